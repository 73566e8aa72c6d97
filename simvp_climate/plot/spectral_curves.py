"""Spectra as curves over zonal wavenumber: the smoothness of forecasts."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from simvp_climate.data.grid import latitude_weights
from simvp_climate.plot import style
from simvp_climate.plot.curve_panels import Panels, add_legend_below, curve_panels
from simvp_climate.plot.selection import choose_leads, choose_names

_TRUTH = "truth"
# Below this share of what a k^-3 law gives, the variance of the truth is that of noise, or of its interpolation.
_LEAST_SHARE = 0.02


def spectra(
    spectra: xr.Dataset | Mapping[str, xr.Dataset], *, variables: str | Sequence[str] | None = None,
    lead: str | timedelta | np.timedelta64 | Sequence | None = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw spectra over the zonal wavenumber on logarithmic axes, and below them their ratio to that of the truth.

    Parameters
    ----------
    spectra
        From `variance_by_wavenumber`, with a line for each lead. Or several spectra from `zonal_spectrum` by name,
        `{"forecast": zonal_spectrum(forecast), "truth": zonal_spectrum(ds)}`, with a line for each and for each lead of
        a forecast; the one with the name "truth" is the truth.
    variables
        One name or several; default all. Every level has its own panels.
    lead
        One lead or several; default up to five, evenly spaced, including the last.
    width, ax
        As in `scores`. `ax` has two axes for each variable and level, for the spectra and the ratio, or one for each:
        the ratio for `variance_by_wavenumber`, else the spectra.

    Returns
    -------
    Figure. The truth is black. Spectra are averaged over times, and over latitudes by area. Ratios are shown from 0.05
    to 20; triangles at the edge mark values outside. Wavenumbers beyond the last one at which the truth has at least
    2 % of the largest variance times k^3 are gray: the spectrum of large-scale turbulence falls as k^-3 (Charney 1971),
    so that beyond them the truth has no variance worth a ratio, as in a model with a coarser truncation. ValueError if
    a spectrum has no zonal wavenumber, or a variable or lead is missing.
    """
    by_name = dict(spectra) if isinstance(spectra, Mapping) and not isinstance(spectra, xr.Dataset) else {"": spectra}
    is_ratio = _check_spectra(by_name)
    first = next(iter(by_name.values()))
    fields = _fields(first, choose_names(variables, [str(name) for name in first.data_vars], "variables", "spectra"))
    read = _read_ratios if is_ratio else _read_spectra
    curves = [read(by_name, name, level, lead) for name, level in fields]
    has_truth = all(field.truth is not None for field in curves)

    contents = "one for each variable and level, or two with their ratio"
    per_field = 2 if has_truth and ax is not None and np.size(np.asarray(ax, dtype=object)) == 2 * len(fields) else 1
    aspect = 1.05 if has_truth else 0.78
    panels = curve_panels(ax, width, len(fields) * per_field, contents, aspect=aspect, least=2.2)
    if has_truth and panels.is_new:
        panels = replace(panels, axes=[half for panel in panels.axes for half in _split(panel)])
        per_field = 2
    for index, (field, (name, level)) in enumerate(zip(curves, fields, strict=True)):
        pair = panels.axes[per_field * index : per_field * (index + 1)]
        upper, lower = pair if per_field == 2 else (None, *pair) if is_ratio else (*pair, None)
        title = style.display_name(first[name]) if "long_name" in first[name].attrs and not is_ratio else name
        if level is not None:
            title += f", {style.coordinate_text(first, _level_dim(first[name]), level)}"
        _draw_field(field, upper, lower, panels, panels.wrap(title))
    _add_legend(panels, curves)
    return panels.figure


@dataclass(frozen=True)
class _Curves:
    """The spectra of one variable and level."""

    wavenumber: np.ndarray
    truth: np.ndarray | None
    spectra: dict[str, tuple[np.ndarray, str | tuple]]  # values and color by label
    ratios: dict[str, tuple[np.ndarray, str | tuple]]  # to the truth
    label: str  # of the spectra, with units

    @property
    def last_wavenumber(self) -> float:
        """The last one at which the truth has enough variance."""
        if self.truth is None:
            return float(self.wavenumber[-1])
        flattened = self.truth * self.wavenumber**3.0
        return float(self.wavenumber[np.flatnonzero(flattened >= _LEAST_SHARE * np.nanmax(flattened))[-1]])


def _read_ratios(by_name: Mapping[str, xr.Dataset], name: str, level: object, lead: object) -> _Curves:
    """Return the curves of a variable from `variance_by_wavenumber`, a ratio for each lead."""
    (dataset,) = by_name.values()
    array = _select_level(dataset[name], level)
    lines = _lead_lines(dataset, array, lead)
    ratios = {text: (values.values, color) for text, values, color in lines}
    wavenumber = array["zonal_wavenumber"].values.astype(float)
    if f"{name}_truth" not in dataset.coords:
        return _Curves(wavenumber, None, {}, ratios, "")
    variance = array.coords[f"{name}_truth"]
    spectra = {text: ((values * values.coords[f"{name}_truth"]).values, color) for text, values, color in lines}
    dims = [dim for dim in variance.dims if dim != "zonal_wavenumber"]
    truth = variance.mean(dims).values if dims else variance.values
    return _Curves(wavenumber, truth, spectra, ratios, _with_squared_units("Variance", variance))


def _read_spectra(by_name: Mapping[str, xr.Dataset], name: str, level: object, lead: object) -> _Curves:
    """Return the curves of a variable from `zonal_spectrum` by name."""
    truth, spectra = None, {}
    for (label, dataset), (color, _) in zip(by_name.items(), itertools.cycle(style.LINE_STYLES)):
        if name not in dataset:
            raise ValueError(f"{label!r} has no {name}: it has {list(dataset.data_vars)}.")
        values = _mean_spectrum(_select_level(dataset[name], level)).isel(zonal_wavenumber=slice(1, None))
        if "lead_time" in values.dims:
            lines = _lead_lines(dataset, values, lead)
            spectra |= {f"{label}, {text}": (line.values, shade) for text, line, shade in lines}
        elif label == _TRUTH:
            truth = values.values
        else:
            spectra[label] = (values.values, color)
        wavenumber = values["zonal_wavenumber"].values.astype(float)  # without 0, the zonal mean
    ratios = {}
    if truth is not None:
        divisor = np.where(truth > 0, truth, np.nan)
        ratios = {label: (values / divisor, color) for label, (values, color) in spectra.items()}
    label = _with_squared_units("Energy", next(iter(by_name.values()))[name])
    return _Curves(wavenumber, truth, spectra, ratios, label)


def _select_level(array: xr.DataArray, level: object) -> xr.DataArray:
    return array if level is None else array.sel({_level_dim(array): level})


def _lead_lines(dataset: xr.Dataset, values: xr.DataArray, lead: object) -> list[tuple[str, xr.DataArray, tuple]]:
    """Return the text, the values and the color of each lead to draw."""
    count = values.sizes["lead_time"]
    if lead is None:
        lead = dataset["lead_time"].values[sorted({round(x) for x in np.linspace(0, count - 1, min(5, count))})]
    leads = choose_leads(dataset, lead)
    shades = plt.get_cmap("viridis")(np.linspace(0.15, 0.9, len(leads)))
    return [
        (text, values.isel(lead_time=index), tuple(shade)) for (index, text), shade in zip(leads, shades, strict=True)
    ]


def _with_squared_units(text: str, array: xr.DataArray) -> str:
    """Return a text with the squared units of an array: "(K)2" becomes "K²", "(m2 s-2)2 m" becomes "(m² s⁻²)² m"."""
    simple = re.sub(r"^\((\S+)\)2", r"\g<1>2", array.attrs.get("units", ""))
    units = style.pretty_units(simple.replace(")2", ")²"))
    return f"{text} [{units}]" if units else text


def _split(panel: Axes) -> tuple[Axes, Axes]:
    """Return two axes in place of one, the lower one half as high."""
    inner = panel.get_subplotspec().subgridspec(2, 1, height_ratios=[2, 1], hspace=0.06)  # type: ignore[union-attr]
    figure = style.figure_of([panel])
    panel.remove()
    upper = figure.add_subplot(inner[0])
    lower = figure.add_subplot(inner[1], sharex=upper)
    upper.tick_params(which="both", labelbottom=False)
    return upper, lower


def _draw_field(curves: _Curves, upper: Axes | None, lower: Axes | None, panels: Panels, title: str) -> None:
    """Draw the spectra and the ratios of a variable and level, each if it has axes."""
    x, size = curves.wavenumber, panels.size
    for panel, lines in ((upper, curves.spectra), (lower, curves.ratios)):
        if panel is None:
            continue
        if panel is upper and curves.truth is not None:
            panel.plot(x, curves.truth, color="black", linewidth=2.2, label=_TRUTH)
        for label, (values, color) in lines.items():
            panel.plot(x, values, color=color, linewidth=1.4, label=label)
        panel.set(xscale="log", yscale="log", xlim=(0.93 * x[0], 1.07 * x[-1]))
        style.label_log_axis(panel.xaxis)
        is_lowest = panel is lower or lower is None
        y_label = curves.label if panel is upper else "Ratio to truth"
        heading = title if panel is upper or upper is None else ""
        style.label_panel(
            panel,
            heading,
            "Zonal wavenumber" if is_lowest else "",
            panels.wrap_up(y_label, 0.45 if panels.is_new else 0.7),
            size,
        )
        if curves.last_wavenumber < x[-1]:
            panel.axvspan(curves.last_wavenumber + 0.5, 1.07 * x[-1], color="0.9", linewidth=0, zorder=0)
    if lower is not None:
        _finish_ratios(lower, x <= curves.last_wavenumber)


def _add_legend(panels: Panels, curves: list[_Curves]) -> None:
    """Add one legend of the lines and the gray wavenumbers, below the panels or in the user's first axes."""
    handles: list = []
    if any(field.truth is not None for field in curves):
        handles.append(Line2D([], [], color="black", linewidth=2.2, label=_TRUTH))
    lines = {label: color for field in curves for label, (_, color) in (field.spectra or field.ratios).items()}
    handles += [Line2D([], [], color=color, linewidth=1.4, label=label) for label, color in lines.items() if label]
    if any(field.last_wavenumber < field.wavenumber[-1] for field in curves):
        handles.append(Patch(color="0.9", label="truth has little variance"))
    if handles and panels.is_new:
        add_legend_below(panels.figure, handles, panels.size)
    elif handles:
        panels.axes[0].legend(handles=handles, frameon=False, fontsize=0.85 * panels.size)


def _check_spectra(by_name: Mapping[str, object]) -> bool:
    """Return whether the spectra are ratios of variances; ValueError if they cannot be drawn together."""
    if not by_name:
        raise ValueError("spectra={} is empty: pass {'forecast': zonal_spectrum(forecast)}.")
    for spectrum in by_name.values():
        if not isinstance(spectrum, xr.Dataset) or "zonal_wavenumber" not in spectrum.dims:
            content = tuple(spectrum.dims) if isinstance(spectrum, xr.Dataset) else type(spectrum).__name__
            fix = "pass the result of variance_by_wavenumber, or results of zonal_spectrum by name"
            raise ValueError(f"spectra has {content}, no zonal_wavenumber: {fix}.")
    is_ratio = "frequency" not in next(iter(by_name.values())).coords
    if is_ratio and len(by_name) > 1:
        raise ValueError(f"spectra has {len(by_name)} ratios of variances: pass one, or results of zonal_spectrum.")
    return is_ratio


def _fields(spectra: xr.Dataset, names: list[str]) -> list[tuple[str, object]]:
    """Return the variable and level of each panel; the level is None if the variable has none."""
    dims = {name: _level_dim(spectra[name]) for name in names}
    fields = [(name, level) for name, dim in dims.items() for level in (spectra[name][dim].values if dim else [None])]
    if len(fields) > style.MAX_ROWS:
        raise ValueError(f"{len(fields)} panels are more than {style.MAX_ROWS}: select with variables=[...].")
    return fields


def _level_dim(array: xr.DataArray) -> str | None:
    """Return the dimension of the levels, None if there is none."""
    known = ("zonal_wavenumber", "lead_time", "init_time", "time", "latitude", "lat")
    others = [str(dim) for dim in array.dims if dim not in known]
    if len(others) > 1:
        raise ValueError(f"{array.name} has dimensions {others}: select or average all but the level.")
    return others[0] if others else None


def _mean_spectrum(values: xr.DataArray) -> xr.DataArray:
    """Return the mean over times, and over latitudes weighted by area."""
    if latitude := next((dim for dim in ("latitude", "lat") if dim in values.dims), None):
        weights = latitude_weights(values[latitude].rename({latitude: "latitude"})).rename({"latitude": latitude})
        values = values.weighted(weights).mean(latitude, keep_attrs=True)
    return values.mean([dim for dim in ("init_time", "time") if dim in values.dims], keep_attrs=True)


def _finish_ratios(panel: Axes, has_variance: np.ndarray) -> None:
    """Draw the line at 1 and limit the axis to wavenumbers with variance; triangles at the edge mark values outside."""
    lines = list(panel.lines)
    panel.axhline(1, color="0.6", linewidth=1, linestyle=":", zorder=0.5)
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float)[has_variance] for line in lines])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if values.size else (1.0, 1.0)
    # A ratio to almost nothing is very large.
    low, high = max(min(0.9 * low, 0.4), 0.05), min(max(1.1 * high, 2.7), 20)
    panel.set_ylim(low, high)
    for line in lines:
        x, y = (np.asarray(data, dtype=float)[has_variance] for data in line.get_data())
        for marker, edge, outside in (("v", low, y < low), ("^", high, y > high)):
            if outside.any():
                options = dict(color=line.get_color(), markersize=4, clip_on=False, zorder=3)
                (triangles,) = panel.plot(x[outside], np.full(outside.sum(), edge), marker, **options)
                triangles.set_in_layout(False)
    style.label_log_axis(panel.yaxis)
