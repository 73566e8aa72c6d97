"""Draw a climate report: maps of the bias, and curves of a run beside the range of the true years."""

import textwrap
from collections.abc import Callable

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from simvp_climate.data.windows import count_text
from simvp_climate.metrics.climate.report import select, variables_of
from simvp_climate.plot import style
from simvp_climate.plot.colors import difference_scale
from simvp_climate.plot.curve_panels import add_legend_below, wrap
from simvp_climate.plot.map_axes import LETTER_WIDTH, add_color_bar, create_maps, degrees_text, draw_cells
from simvp_climate.plot.skill_maps import draw_dots

_RUN = style.LINE_STYLES[0][0]
_TRUE_YEARS = "0.82"
_LEAST_PANEL = 2.9  # inches
_LEAST_SHARE = 1e-4  # of the variance in a wavenumber, relative to the largest
_INDEX_NAMES = {"nino34": "Niño 3.4", "nao": "NAO", "sam": "SAM"}
_Draw = Callable[[Axes, xr.Dataset, float], None]


def climate_report(
    report: xr.Dataset, *, variable: str | None = None, level: float | None = None, title: str | None = None,
    width: float | None = None,
) -> Figure:  # fmt: skip
    """Draw the climate of a run beside that of the truth, for one variable.

    Parameters
    ----------
    report
        Output of `simvp_climate.metrics.climate_report`.
    variable, level
        Required if there are several.
    title
        None: the system, the variable and the periods.
    width
        Of the figure, in inches.

    Returns
    -------
    Figure with a map of the mean bias, with dots where it is significant, and panels of the annual global means, the
    zonal mean, the annual cycle, the variance, the spectrum and the distribution, as far as the report has them. Gray
    is the range of single years of the truth, light blue that of the members. ValueError if the variable or level is
    missing or must be chosen.
    """
    name, level = _choose(report, variable, level)
    part = select(report, name, level)
    if "member" not in part.dims:
        of_run = {n: v.expand_dims(member=["all"]) for n, v in part.data_vars.items() if "_truth" not in str(n)}
        part = part.assign(of_run)
    width = 12.0 if width is None else width
    drawings = [draw for needed, draw in _PANELS if any(str(other).endswith(needed) for other in part.data_vars)]
    columns = max(1, min(3, int(width / _LEAST_PANEL)))
    panel_width = width / columns
    # a map of two columns, unless it leaves a row with a single panel
    across = 1 if columns == 3 and len(drawings) % 3 == 2 else min(columns, 2)
    rows = -(-(len(drawings) + across) // columns)
    size = style.font_size(3 * panel_width)
    heights = [0.78 * panel_width + 0.25] * rows
    if across == columns:
        heights[0] = 0.5 * width + 0.6
    figure = style.new_figure(width, sum(heights) + 0.5)
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    _draw_map(figure.add_subplot(grid[0, :across], projection=ccrs.Robinson()), part, name, size, across * panel_width)
    places = [divmod(index + across, columns) for index in range(len(drawings))]
    for (row, column), draw in zip(places, drawings, strict=True):
        panel = figure.add_subplot(grid[row, column])
        draw(panel, part, size)
        panel.set_title(wrap(panel.get_title(), 0.85 * panel_width, size), fontsize=size)
    text = _title(report, name, level) if title is None else title
    figure.suptitle(textwrap.fill(text, int(72 * width / (LETTER_WIDTH * 1.15 * size))), fontsize=1.15 * size)
    add_legend_below(figure, _handles(part), size)
    return figure


def _choose(report: xr.Dataset, variable: str | None, level: float | None) -> tuple[str, float | None]:
    """Return the variable and level to draw."""
    names = variables_of(report)
    if variable is None and len(names) > 1:
        raise ValueError(f"the report has {names}, but one is drawn. Choose: variable={names[0]!r}")
    name = names[0] if variable is None else variable
    if name not in names:
        raise ValueError(f"variable={name!r} is not in the report, which has {names}.")
    if "level" not in report[f"{name}_bias"].dims:
        if level is not None:
            raise ValueError(f"level={level} does not apply: {name} has no levels. Omit level.")
        return name, None
    levels = report["level"].values.tolist()
    if level is None and len(levels) == 1:
        return name, levels[0]
    if level not in levels:
        raise ValueError(f"level={level} of {name!r} must be one of {levels}.")
    return name, level


def _title(report: xr.Dataset, name: str, level: float | None) -> str:
    attrs = report.attrs
    field = name if level is None else f"{name}, {style.coordinate_text(report, 'level', level)}"
    members = report.sizes.get("member", 1) - 1
    ensemble = f", {count_text(members, 'members')}" if members > 0 else ""
    periods = ""
    if "run_start" in attrs and "truth_start" in attrs:
        run, truth = (_span_text(attrs, role) for role in ("run", "truth"))
        periods = f": {run}{ensemble}), truth {truth})"
    return f"{field} of {attrs.get('system', 'the run')}{periods}"


def _span_text(attrs: dict, role: str) -> str:
    """Return the period of a series and the number of its years, with an open bracket."""
    years = count_text(attrs[f"{role}_years"], "years")
    return f"{attrs[f'{role}_start']!s:.10} to {attrs[f'{role}_end']!s:.10} ({years}"


def _handles(part: xr.Dataset) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=_RUN, marker="o", markersize=3, label="run"),
        Line2D([], [], color="black", label="truth"),
        Patch(facecolor=_TRUE_YEARS, label="single years of the truth"),
    ]
    if _has_interannual(part):
        color, marker = style.LINE_STYLES[1]
        handles.append(Line2D([], [], color=color, marker=marker, markersize=3, label="variance of annual means"))
    if part.sizes["member"] > 1:
        handles.insert(1, Patch(facecolor=_RUN, alpha=0.25, label="members"))
    return handles


def _draw_map(panel: Axes, part: xr.Dataset, name: str, size: float, width: float) -> None:
    bias = part["bias"].isel(member=0).rename(name)
    figure, _ = create_maps(bias, (1, 1), 1, None, width, size, [panel])
    scale = difference_scale(bias)
    draw_cells(panel, bias, scale)
    significant = part["bias_significant"].isel(member=0)
    draw_dots(panel, bias, significant, scale)
    units = style.units_of(bias)
    text = f"Mean bias, RMSE {float(part['rmse'][0]):.2g} {units}".rstrip()
    if "rmse_ratio" in part and np.isfinite(part["rmse_ratio"][0]):
        text += f", {float(part['rmse_ratio'][0]):.2g} times the sampling noise"
    panel.set_title(wrap(text, 0.85 * width, size), fontsize=size)
    add_color_bar(figure, scale, [panel], style.with_units("Run minus truth", bias), [bias], size, 1, width)
    panel.set_anchor("C")  # the color bar moves it to the bottom of its place


def _draw_ranges(panel: Axes, part: xr.Dataset, name: str, x: np.ndarray, offset: xr.DataArray | float = 0.0) -> None:
    """Draw the range of the true years, and that of the members."""
    if f"{name}_truth_min" in part:
        low, high = (np.atleast_1d(part[f"{name}_truth_{end}"] - offset) for end in ("min", "max"))
        panel.fill_between(x, low, high, color=_TRUE_YEARS, linewidth=0)
    if part.sizes["member"] > 1:
        members = part[name].isel(member=slice(1, None)) - offset
        panel.fill_between(x, members.min("member"), members.max("member"), color=_RUN, alpha=0.25, linewidth=0)


def _draw_by_latitude(
    panel: Axes, part: xr.Dataset, names: list[str], neutral: float, labels: tuple[str, str], size: float
) -> None:
    """Draw statistics of latitude bands; the first one with its ranges."""
    x = part["band"].values
    for index, name in enumerate(names):
        if index == 0:
            _draw_ranges(panel, part, name, x)
        color, marker = style.LINE_STYLES[index]
        panel.plot(x, part[name].isel(member=0), color=color, marker=marker, markersize=3, linewidth=1.2)
    panel.axhline(neutral, color="black", linewidth=0.8)
    _label_latitudes(panel)
    style.label_panel(panel, labels[0], "", labels[1], size)


def _label_latitudes(panel: Axes) -> None:
    ticks = [-60, -30, 0, 30, 60]
    panel.set_xlim(-90, 90)
    panel.set_xticks(ticks, [degrees_text(tick, "latitude") for tick in ticks])


def _draw_amplitude(panel: Axes, part: xr.Dataset, size: float) -> None:
    _draw_by_latitude(panel, part, ["amplitude_ratio"], 1, ("Annual cycle, amplitude", "Ratio to truth"), size)


def _draw_shift(panel: Axes, part: xr.Dataset, size: float) -> None:
    _draw_by_latitude(panel, part, ["shift"], 0, ("Annual cycle, shift (late above 0)", "Days"), size)


def _draw_variance(panel: Axes, part: xr.Dataset, size: float) -> None:
    names = ["variance_ratio", *(["interannual_variance_ratio"] if _has_interannual(part) else [])]
    _draw_by_latitude(panel, part, names, 1, ("Variance within seasons", "Ratio to truth"), size)


def _has_interannual(part: xr.Dataset) -> bool:
    return "interannual_variance_ratio" in part and bool(np.isfinite(part["interannual_variance_ratio"]).any())


def _draw_zonal_mean(panel: Axes, part: xr.Dataset, size: float) -> None:
    x, truth = part["latitude"].values, part["zonal_mean_truth"]
    _draw_ranges(panel, part, "zonal_mean", x, truth)
    panel.plot(x, part["zonal_mean"].isel(member=0) - truth, color=_RUN, linewidth=1.2)
    panel.axhline(0, color="black", linewidth=0.8)
    _label_latitudes(panel)
    style.label_panel(panel, "Zonal mean", "", style.with_units("Run minus truth", part["bias"]), size)


def _draw_global_mean(panel: Axes, part: xr.Dataset, size: float) -> None:
    years, true_years = part["year"].values, part["truth_year"].values
    truth = part["global_mean_truth"]
    panel.axhspan(float(truth.min()), float(truth.max()), color=_TRUE_YEARS, linewidth=0)
    if part.sizes["member"] > 1:
        members = part["global_mean"].isel(member=slice(1, None))
        panel.fill_between(years, members.min("member"), members.max("member"), color=_RUN, alpha=0.25, linewidth=0)
    options = {"marker": "o", "markersize": 2.5, "linewidth": 1.2}
    panel.plot(true_years, truth, color="black", **options)
    panel.plot(years, part["global_mean"].isel(member=0), color=_RUN, **options)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.get_major_formatter().set_useOffset(False)
    text = "Annual global mean"
    if "trend" in part and np.isfinite(part["trend_low"][0]):
        value, low, high = (float(part[name][0]) for name in ("trend", "trend_low", "trend_high"))
        text += f", {value:.2g} [{low:.2g}, {high:.2g}] {style.units_of(part['bias'])} per decade".replace(
            "-", "\N{MINUS SIGN}"
        )
    style.label_panel(panel, text, "", style.units_of(part["bias"]), size)


def _draw_spectrum(panel: Axes, part: xr.Dataset, size: float) -> None:
    truth = part["spectrum_truth"]
    part = part.isel(zonal_wavenumber=np.flatnonzero((truth > _LEAST_SHARE * truth.max()).values))
    x = part["zonal_wavenumber"].values
    _draw_ranges(panel, part, "spectrum_ratio", x)
    panel.plot(x, part["spectrum_ratio"].isel(member=0), color=_RUN, linewidth=1.2)
    panel.axhline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    style.label_log_axis(panel.xaxis)
    style.label_panel(panel, "Variance by zonal wavenumber", "Zonal wavenumber", "Ratio to truth", size)


def _draw_distribution(panel: Axes, part: xr.Dataset, size: float) -> None:
    """Draw differences of quantiles, and beside them those of return levels."""
    truth = part["quantiles_truth"]
    x = np.arange(truth.size)
    _draw_ranges(panel, part, "quantiles", x, truth)
    style_of_run = {"color": _RUN, "marker": "o", "markersize": 3, "linewidth": 1.2}
    panel.plot(x, part["quantiles"].isel(member=0) - truth, **style_of_run)
    texts = [f"{100 * share:g}" for share in part["quantile"].values]
    text = "Quantiles [%]"
    if "return_levels" in part:
        levels = part["return_levels"].isel(member=0) - part["return_levels_truth"]
        further = x[-1] + 1 + np.arange(levels.size)
        low, high = (part[f"return_levels_truth_{end}"] - part["return_levels_truth"] for end in ("min", "max"))
        panel.vlines(further, low, high, color=_TRUE_YEARS, linewidth=9)
        panel.plot(further, levels, **{**style_of_run, "marker": "s"})
        panel.axvline(x[-1] + 0.5, color="0.6", linewidth=0.6, linestyle=":")
        texts += [f"{years:g}a" for years in levels["return_period"].values]
        x, text = np.append(x, further), f"{text}, return levels [years]"
    panel.axhline(0, color="black", linewidth=0.8)
    panel.xaxis.set_major_locator(FixedLocator(x))
    panel.set_xticks(x, texts)
    style.label_panel(panel, "Distribution", text, style.with_units("Run minus truth", part["bias"]), size)


def _draw_modes(panel: Axes, part: xr.Dataset, size: float) -> None:
    """Draw the pattern correlations of EOFs, and those of the halves of the truth."""
    x = part["mode"].values
    panel.plot(x, part["eof_correlation_truth"], color="black", marker="x", markersize=4, linestyle="none")
    if part.sizes["member"] > 1:
        members = part["eof_correlation"].isel(member=slice(1, None))
        panel.vlines(x, members.min("member"), members.max("member"), color=_RUN, alpha=0.25, linewidth=5)
    panel.plot(x, part["eof_correlation"].isel(member=0), color=_RUN, marker="o", markersize=4, linestyle="none")
    shares = part["eof_variance"].isel(member=0).values, part["eof_variance_truth"].values
    texts = [f"{k}\n{100 * run:.0f} %, {100 * true:.0f} %" for k, run, true in zip(x, *shares, strict=True)]
    panel.set_xticks(x, texts)
    panel.set(xlim=(0.5, x[-1] + 0.5), ylim=(0, 1.05))
    style.label_panel(panel, "Leading EOFs (halves of the truth: x)", "Explained variance of run, truth",
                      "Pattern correlation", size)  # fmt: skip


def _draw_indices(panel: Axes, part: xr.Dataset, size: float) -> None:
    """Draw ratios of standard deviations, and autocorrelations of run and truth."""
    names = [str(name).removesuffix("_std_ratio") for name in part.data_vars if str(name).endswith("_std_ratio")]
    texts = []
    for index, name in enumerate(names):
        for place, statistic in ((2 * index, "std_ratio"), (2 * index + 1, "autocorrelation")):
            values = part[f"{name}_{statistic}"]
            low, high = (part[f"{name}_{statistic}_truth_{end}"] for end in ("min", "max"))
            panel.vlines(place, low, high, color=_TRUE_YEARS, linewidth=9)
            panel.vlines(place, values.min(), values.max(), color=_RUN, alpha=0.25, linewidth=5)
            panel.plot(place, values.isel(member=0), color=_RUN, marker="o", markersize=4)
            truth = 1.0 if statistic == "std_ratio" else part[f"{name}_{statistic}_truth"]
            panel.plot(place, truth, color="black", marker="x", markersize=4)
            texts.append(f"{_INDEX_NAMES[name]}\n{'std ratio' if statistic == 'std_ratio' else 'lag 1'}")
    panel.set_xticks(range(len(texts)), texts)
    panel.set_xlim(-0.6, len(texts) - 0.4)
    style.label_panel(panel, "Indices (truth: x)", "", "Ratio, correlation", size)


_PANELS: list[tuple[str, _Draw]] = [
    ("global_mean", _draw_global_mean), ("zonal_mean", _draw_zonal_mean), ("amplitude_ratio", _draw_amplitude),
    ("shift", _draw_shift), ("variance_ratio", _draw_variance), ("spectrum_ratio", _draw_spectrum),
    ("quantiles", _draw_distribution), ("eof_correlation", _draw_modes), ("_std_ratio", _draw_indices),
]  # fmt: skip
