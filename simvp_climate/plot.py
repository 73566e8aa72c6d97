"""Pictures of forecasts, of scores and of trainings: `maps`, `scores` and `history`.

All return a matplotlib Figure. It is made with pyplot, because only that installs the display of figures in
a notebook, and taken off pyplot's list of open figures at once. So a notebook shows it one time, as the value
of its cell, a script saves it with `figure.savefig(...)`, and a loop over many forecasts leaves nothing open.

Grid cells are drawn one by one, never interpolated, and cells that are NaN stay gray. Coastlines are Natural
Earth's, from a file inside the package: no map needs a network.
"""

import importlib.resources
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache

import cartopy.crs as ccrs
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from cartopy.feature import ShapelyFeature
from cartopy.io.shapereader import Reader
from cartopy.mpl.geoaxes import GeoAxes
from cartopy.mpl.ticker import LatitudeLocator, LongitudeLocator
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from simvp_climate.data.conventions import find_axes, rename
from simvp_climate.grid import closes_longitude, latitude_weights

_SEQUENTIAL, _DIVERGING = "viridis", "RdBu_r"  # both can be read with color-blind eyes
_NO_VALUE = "0.85"
_COAST_FILE = ("natural_earth", "shapefiles", "natural_earth", "physical", "ne_110m_coastline.shp")
_MAX_ROWS = 12
_SAME_POINT = 1e-3  # degrees: some files keep coordinates in single precision

# Okabe and Ito's palette without yellow (invisible on white) and black (for the climatology).
_LINES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P")
)  # fmt: skip
_BASELINES = {"persistence": ("0.5", "x", "-"), "climatology": ("black", "", "--")}

# Label, whether in the units of the variable, the value to compare with.
_METRICS = {
    "rmse": ("RMSE", True, None),
    "mae": ("MAE", True, None),
    "bias": ("Bias", True, 0.0),
    "crps": ("CRPS", True, None),
    "spread": ("Spread", True, None),
    "acc": ("ACC", False, 0.6),  # the customary end of useful skill
    "acc_per_init": ("ACC (mean over forecasts)", False, 0.6),
    # below 1: smoother than the truth
    "activity": ("Activity", False, 1.0),
    "small_scale_variance": ("Small-scale variance ratio", False, 1.0),
    "rmse_unweighted": ("RMSE, not weighted", True, None),
    "spread_skill_ratio": ("Spread / skill", False, 1.0),
}
_SKILL = "rmse_skill_vs_"
_FIRST_METRICS = ("rmse", "acc", "activity", "small_scale_variance")


def maps(
    forecast: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | None = None,
    init: object | None = None,
    level: float | Sequence[float] | None = None,
    projection: ccrs.Projection | None = None,
    title: str | None = None,
    width: float | None = None,
) -> Figure:
    """Draw one forecast on maps, beside the truth at its valid time and the difference of the two.

    Parameters
    ----------
    forecast
        Dataset with dims (init_time, lead_time, [level,] latitude, longitude) and the coordinate
        `valid_time`. Horizontal names, order and longitude range are free, a region is as good as the
        globe. init_time and lead_time may be scalars, as after `forecast.isel(init_time=0)`.
    truth
        Dataset with one time dimension and the variables, levels and units of the forecast, on at least
        its grid points. Without it the forecast alone is drawn.
    variable
        A name or several; default all. Each variable and level is one row of maps.
    lead
        "3D", "12h" or a timedelta; a number of months where lead_time counts months. Default the last.
    init
        A time such as "2018-03-01T12". Default the last one whose valid time the truth has.
    level
        A value of the level coordinate or several; default all.
    projection
        Of cartopy. Default Robinson centered on Greenwich for the globe, longitude-latitude for a region.
        A map of a pole: select the latitudes and give `cartopy.crs.NorthPolarStereo()`.
    title
        The line above all maps. Default the times of initialization and validity.
    width
        Of the figure in inches; default 12, and 7 for a single map. The text shrinks with it: 7 inches, a
        page of a journal, hold three maps as well.

    Returns
    -------
    Figure. Forecast and truth share one color scale, from percentile 1 to 99 of both together. The scale of
    the difference is symmetric about zero and reaches percentile 99 of its size. Above the difference stands
    its RMSE over the cells where both have values, weighted by area, in the units of the variable.

    Raises
    ------
    ValueError
        If a variable, level, lead or init is not there; if truth has nothing at the valid time, at a grid
        point or in the same units; if another dimension, such as members, has to be chosen first.
    """
    axes = find_axes(forecast)
    rows = _choose_rows(forecast, axes.level, variable, level)
    lead_index, lead_text = _choose_lead(forecast, lead)
    if truth is None:
        init_index, valid, _ = _choose_init(forecast, init, lead_index, lead_text, None)
    else:
        names = list(dict.fromkeys(name for name, _ in rows))
        single = {
            d for n in names if n in truth for d in truth[n].dims if truth.sizes[d] == 1 and d not in forecast.dims
        }
        if not set(names) <= set(truth.data_vars) or single - {find_axes(truth).time}:
            try:
                truth = rename(truth, names)  # the file's own names and its one level are as good
            except ValueError as error:
                raise ValueError(f"truth: {error}") from error
        truth_axes = find_axes(truth)
        truth_times = _time_values(truth, truth_axes.time)
        init_index, valid, truth_index = _choose_init(forecast, init, lead_index, lead_text, truth_times)

    pictures = []
    for name, value in rows:
        at = {"init_time": init_index, "lead_time": lead_index}
        predicted = _field(forecast, name, axes, value, at, "forecast")
        observed = None
        if truth is not None:
            _check_same_units(forecast, truth, name)
            observed = _field(truth, name, truth_axes, value, {truth_axes.time: truth_index}, "truth")
            observed = _at_points_of(predicted, observed)
        pictures.append((predicted, observed))

    columns = 3 if truth is not None else min(3, len(rows))
    lines = len(rows) if truth is not None else -(-len(rows) // columns)
    if width is None:
        width = 12.0 if columns > 1 else 7.0
    figure = _new_figure(width)
    size = _font_size(3 * width / columns)
    count = 3 * lines if truth is not None else len(rows)
    panels = _map_panels(figure, pictures[0][0], projection, (lines, columns), count, size)
    height = 0.95 * width / columns * np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6)
    figure.set_size_inches(width, lines * (height + 0.1 * size) + 0.05 * size)

    calendar = "%Y-%m" if "month" in lead_text else "%Y-%m-%d %H:%M UTC"
    for row, (predicted, observed) in enumerate(pictures):
        label = textwrap.fill(_labeled(predicted.attrs["what"], predicted), 60 if truth is not None else 40)
        if observed is None:
            mesh = _draw(panels[row], predicted, _range(predicted), _SEQUENTIAL)
            panels[row].set_title(f"Forecast {lead_text}", fontsize=size)
            _color_bar(figure, mesh, [panels[row]], label, (predicted,), size)
            continue
        three = panels[3 * row : 3 * row + 3]
        difference = predicted - observed
        scale = _range(predicted, observed)
        mesh = _draw(three[0], predicted, scale, _SEQUENTIAL)
        _draw(three[1], observed, scale, _SEQUENTIAL)
        mesh_of_difference = _draw(three[2], difference, _symmetric_range(difference), _DIVERGING)
        three[0].set_title(f"Forecast {lead_text}", fontsize=size)
        three[1].set_title("Truth", fontsize=size)
        three[2].set_title(f"Forecast minus truth, RMSE {_rmse_text(difference, predicted)}", fontsize=size)
        _color_bar(figure, mesh, three[:2], label, (predicted, observed), size)
        _color_bar(figure, mesh_of_difference, three[2:], _labeled("Difference", predicted), (difference,), size)

    start = _values(forecast, "init_time")[init_index]
    default = f"From {_date(start, calendar)}, valid {_date(valid, calendar)}"
    figure.suptitle(default if title is None else title, fontsize=1.15 * size)
    # The layout of maps settles in two rounds; without this one the first drawing has titles upon titles.
    figure.get_layout_engine().execute(figure)
    return figure


def scores(
    scores: xr.Dataset,
    *,
    metric: str | Sequence[str] | None = None,
    variables: str | Sequence[str] | None = None,
    published: pd.DataFrame | None = None,
    width: float | None = None,
) -> Figure:
    """Draw scores against lead time: a line for each system, a panel for each metric and variable.

    The intervals of the scores, where they have some, are shaded.

    Parameters
    ----------
    scores
        Dataset with dims (system, metric, lead_time[, level, region, season]), as from `score`. The
        attribute `units` of a variable is that of its RMSE, MAE, bias, CRPS and spread.
    metric
        A name or several. Default those of rmse, acc, activity and small_scale_variance that have values, or all
        metrics where none of these is there.
    variables
        A name or several; default all. Every level, region and season has panels of its own.
    published
        Scores of others to draw as dots, rows of `simvp_climate.published()`: those of the variables, metrics and the
        grid of the scores. Look at their years and truth: those are not checked.
    width
        Of the figure in inches; default 4 for each column of panels. The text shrinks with it.

    Returns
    -------
    Figure. Lead time in days, in hours where the last lead is below two days, or in months. A system has the
    same color and marker in all panels and is left out where it has no values (climatology in ACC). Gray
    dots: ACC 0.6, variance ratio 1, bias 0.

    Raises
    ------
    ValueError
        If a metric or variable is not there, more than 12 rows of panels would be drawn, or nothing of `published` is
        on the grid of the scores.
    """
    if published is not None:
        grid = scores.attrs.get("grid")
        if (published["grid"] == grid).sum() == 0:
            raise ValueError(
                f"the scores are on {grid}, and what is published on {sorted(set(published['grid']))}: errors on "
                "different grids cannot be compared. Regrid both forecast and truth (sc.regrid), or leave it out"
            )
        published = published[published["grid"] == grid]
    for dimension in ("system", "metric", "lead_time"):
        if dimension not in scores.dims:
            if dimension not in scores.coords:
                raise ValueError(
                    f"scores has dimensions {tuple(scores.dims)} and no {dimension!r}: pass what"
                    " simvp_climate.score returns."
                )
            scores = scores.expand_dims(dimension)
    names = _choose(variables, [str(name) for name in scores.data_vars], "variables", "scores")
    all_metrics = [str(name) for name in scores["metric"].values]
    if metric is None:
        usual = [m for m in _FIRST_METRICS if m in all_metrics and _has_values(scores[names].sel(metric=m))]
        metrics = usual or all_metrics
    else:
        metrics = _choose(metric, all_metrics, "metric", "scores")

    rows = []
    for name in names:
        others = [d for d in scores[name].dims if d not in ("system", "metric", "lead_time")]
        values = [scores[d].values if d in scores.coords else np.arange(scores.sizes[d]) for d in others]
        for index in itertools.product(*(range(len(v)) for v in values)):
            chosen = dict(zip(others, index, strict=True))
            what = [_name_of(scores[name])]
            what += [_at_text(scores, d, v[i]) for d, v, i in zip(others, values, index, strict=True)]
            rows.append((scores[name].isel(chosen), ", ".join(what)))
    if len(rows) > _MAX_ROWS:
        raise ValueError(
            f"{len(rows)} rows of panels are more than {_MAX_ROWS}: choose with variables=[...] or before,"
            " scores.sel(level=[500, 850])."
        )

    columns = len(metrics) if len(metrics) > 1 else min(3, len(rows))
    lines = len(rows) if len(metrics) > 1 else -(-len(rows) // columns)
    width = 4.0 * columns if width is None else width
    size = _font_size(3 * width / columns)
    figure = _new_figure(width, lines * 0.72 * width / columns + 0.05 * size)
    leads, lead_label = _lead_axis(scores)
    drawn: dict[str, object] = {}
    for k, ((row, what), one) in enumerate(itertools.product(rows, metrics)):
        panel = figure.add_subplot(lines, columns, k + 1)
        _draw_scores(panel, row.sel(metric=one), leads, drawn)
        if published is not None:
            _draw_published(panel, published, str(row.name), one, lead_label)
        label, has_units, reference = _METRICS.get(one, (_skill_label(one), False, None))
        if one.startswith(_SKILL):
            reference = 0.0
            panel.set_ylim(bottom=max(panel.get_ylim()[0], -0.5))  # what is far worse needs no room
        if reference is not None:
            panel.axhline(reference, color="0.6", linewidth=1, linestyle=":", zorder=0)
        panel.set_title(textwrap.fill(what, 42), fontsize=size)
        panel.set_ylabel(_labeled(label, row) if has_units else label, fontsize=size)
        if k + columns >= len(rows) * len(metrics):
            panel.set_xlabel(lead_label, fontsize=size)
        panel.tick_params(labelsize=0.9 * size)
        panel.set_xlim(0, 1.03 * leads.max())
        panel.xaxis.set_major_locator(_lead_ticks(lead_label))
        if has_units and reference is None and panel.get_ylim()[0] > 0:
            panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    if drawn:
        ordered = [str(name) for name in scores["system"].values if str(name) in drawn]
        ordered.sort(key=lambda name: name in _BASELINES)  # forecasts first
        figure.legend(
            [drawn[name] for name in ordered],
            ordered,
            loc="outside lower center",
            ncols=min(len(ordered), 2 * columns),
            frameon=False,
            fontsize=size,
        )
    return figure


def skill_map(
    skill: xr.Dataset,
    *,
    variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None,
    level: float | None = None,
    projection: ccrs.Projection | None = None,
    title: str | None = None,
    width: float | None = None,
) -> Figure:
    """Draw where a forecast is better than a baseline, with dots where that is more than chance.

    Parameters
    ----------
    skill
        As from `simvp_climate.skill_map`.
    variable, lead
        One or several; default all variables, at the last lead. A row of maps for each variable, a column for each
        lead.
    level
        A value of the level coordinate; needed where there are several.
    projection, title, width
        As in `maps`.

    Returns
    -------
    Figure. Colors from -1 to 1, red where the baseline is better and blue where the forecast is; dots in cells that are
    significant, of every second row and column where there are more than 60 columns.

    Raises
    ------
    ValueError
        If a variable, lead or level is not there.
    """
    known = [str(name) for name in skill.data_vars if f"{name}_significant" in skill]
    if not known:
        raise ValueError(f"skill has {list(skill.data_vars)}: pass what simvp_climate.skill_map returns.")
    names = _choose(variable, known, "variable", "skill")
    if "level" in skill.dims:
        levels = skill["level"].values
        if level is None and len(levels) > 1:
            raise ValueError(f"skill has the levels {levels}: choose one, level={levels[0]:g}.")
        level = levels[0] if level is None else level
        if level not in levels:
            raise ValueError(f"level {level} is not there: skill has {levels}.")
        skill = skill.sel(level=level)
    wanted = lead if isinstance(lead, list | tuple) else [lead]
    leads = [_choose_lead(skill, one) for one in wanted]
    shape = (len(names), len(leads))
    width = (12.0 if len(leads) > 1 else 7.0) if width is None else width
    figure = _new_figure(width)
    size = _font_size(3 * width / max(shape[1], 2))
    axes = find_axes(skill)
    fields = [_field(skill, name, axes, None, {"lead_time": index}, "skill") for name in names for index, _ in leads]
    panels = _map_panels(figure, fields[0], projection, shape, len(fields), size)
    height = 0.95 * width / shape[1] * np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6)
    figure.set_size_inches(width, shape[0] * (height + 0.1 * size) + 0.1 * size)
    places = [(name, index, text) for name in names for index, text in leads]
    for panel, field, (name, index, text) in zip(panels, fields, places, strict=True):
        mesh = _draw(panel, field, (-1.0, 1.0), _DIVERGING.removesuffix("_r"))  # blue: the forecast is better
        dots = _field(skill, f"{name}_significant", axes, None, {"lead_time": index}, "skill")
        thinned = dots.isel({dim: slice(None, None, 2) for dim in dots.dims}) if dots.sizes["longitude"] > 60 else dots
        row, column = np.nonzero(thinned.values)
        panel.scatter(
            thinned["longitude"].values[column],
            thinned["latitude"].values[row],
            s=0.12 * size,
            color="0.1",
            linewidths=0,
            transform=ccrs.PlateCarree(),
        )
        panel.set_title(f"{name}, {text}", fontsize=size)
    _color_bar(figure, mesh, panels, "Skill, 1 - MSE / MSE of the baseline", tuple(fields), size)
    figure.suptitle(skill.attrs.get("blocks", "") if title is None else title, fontsize=1.15 * size)
    figure.get_layout_engine().execute(figure)
    return figure


def history(histories: object, *, width: float | None = None) -> Figure:
    """Draw how a training went: losses per epoch, and validation errors in physical units where there are some.

    Parameters
    ----------
    histories
        A Forecaster, or its `history` (a DataFrame, also one read from a run's `history.csv`); several to compare as a
        dict, `{"zeros": first, "sphere": second}`.
    width
        Of the figure in inches; default 4.2 for each column of panels.

    Returns
    -------
    Figure. In the first panel the losses, on a logarithmic scale where they span a factor of ten: training thin,
    validation thick. Then a panel for each variable with its errors at the leads in the history, in its units. A ring
    is around the epoch whose weights were kept: the first with the smallest validation loss, or the last.

    Raises
    ------
    ValueError
        If there is no history, or no epoch in one.
    """
    runs = histories if isinstance(histories, Mapping) else {"": histories}
    tables = {str(name): _history_table(str(name), one) for name, one in runs.items()}
    if not tables:
        raise ValueError("histories is empty: give at least one Forecaster or history, {'a name': forecaster}")
    columns = dict.fromkeys(column for table in tables.values() for column in table)
    leads_of: dict[str, dict[str, str]] = {}  # the lead of each column, by variable
    for column in columns:
        if match := re.fullmatch(r"valid_rmse_(.+?)(?:_([\d.]+(?:h|M)))?", column):
            leads_of.setdefault(match[1], {})[column] = re.sub(r"(\d)([hM])", r"\1 \2", match[2] or "")
    if len(leads_of) >= 3 * _MAX_ROWS:
        raise ValueError(f"{len(leads_of)} panels of errors are more than {3 * _MAX_ROWS - 1}: drop some columns")
    across = min(3, 1 + len(leads_of))
    lines = -(-(1 + len(leads_of)) // across)
    width = 4.2 * across if width is None else width
    size = _font_size(3 * width / across)
    figure = _new_figure(width, lines * 0.72 * width / across + 0.05 * size)
    last = max(table.index.max() for table in tables.values())

    panel = figure.add_subplot(lines, across, 1)
    several = len(tables) > 1
    # of validation; one training alone has a color of its own
    colors = dict(zip(tables, itertools.cycle(color for color, _ in (_LINES if several else _LINES[1:])), strict=False))
    for name, table in tables.items():
        words = f"{name}, " if several else ""
        validated = "valid_loss" in table
        color = colors[name] if several else _LINES[0][0]
        _draw_epochs(panel, table, "loss", f"{words}training", color, "-", 1.0, ring=not validated)
        if validated:
            _draw_epochs(panel, table, "valid_loss", f"{words}validation", colors[name], "-", 2.2, ring=True)
    panel.plot([], [], "o", color="0.4", markerfacecolor="none", markersize=9, label="kept")
    drawn = np.concatenate([line.get_ydata() for line in panel.lines])
    if drawn.min() > 0 and drawn.max() > 10 * drawn.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
    _finish_epochs(panel, "Training", "Loss", last, size)

    for number, (variable, leads) in enumerate(leads_of.items(), start=2):
        panel = figure.add_subplot(lines, across, number)
        for name, table in tables.items():
            for column, style in zip(list(leads)[::-1], itertools.cycle(("-", "--", ":"))):  # the longest lead solid
                if column in table:
                    words = [name] * several + [leads[column]] * bool(leads[column])
                    _draw_epochs(panel, table, column, ", ".join(words), colors[name], style, 1.6, ring=True)
        panel.set_ylim(bottom=0)
        units = {table.attrs.get("units", {}).get(column, "") for table in tables.values() for column in leads} - {""}
        if len(units) > 1:
            raise ValueError(f"the errors of {variable} are in {sorted(units)}: draw the runs one by one")
        label = f"RMSE [{_pretty(units.pop())}]" if units else "RMSE"
        _finish_epochs(panel, f"Validation, {variable}", label, last, size)
    return figure


# ---- what to draw ----------------------------------------------------------------------------------------


def _choose(wanted: str | Sequence[str] | None, names: list[str], option: str, where: str) -> list[str]:
    """Return the names asked for, all of them by default."""
    if wanted is None:
        return names
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{option}={missing} not in {where}: it has {names}.")
    if not wanted:
        raise ValueError(f"{option} is empty: name at least one of {names}, or leave it out for all.")
    return wanted


def _choose_rows(
    forecast: xr.Dataset, level_name: str | None, variable: str | Sequence[str] | None, level: object
) -> list[tuple[str, object]]:
    """Return the (variable, level) of each row of maps; level None where the variable has none."""
    rows: list[tuple[str, object]] = []
    names = _choose(variable, [str(name) for name in forecast.data_vars], "variable", "forecast")
    layered = [name for name in names if level_name in forecast[name].dims]
    if level is not None and not layered:
        raise ValueError(f"level={level} was given, but {names} have no level dimension: leave it out.")
    for name in names:
        if name not in layered:
            rows.append((name, None))
            continue
        known = forecast[level_name].values
        for value in known if level is None else np.atleast_1d(level):
            if value not in known:
                raise ValueError(f"level={value:g} not in forecast: {level_name} has {known.tolist()}.")
            rows.append((name, value))
    if len(rows) > _MAX_ROWS:
        raise ValueError(f"{len(rows)} rows of maps are more than {_MAX_ROWS}: choose with variable=... or level=...")
    return rows


def _values(forecast: xr.Dataset, name: str) -> np.ndarray:
    if name not in forecast.coords:
        raise ValueError(
            f"forecast has no coordinate {name!r}: it has {list(forecast.coords)}. Pass what a Forecaster"
            " returns, dims (init_time, lead_time, ...) with valid_time."
        )
    return np.atleast_1d(forecast[name].values)


def _leads(dataset: xr.Dataset) -> tuple[np.ndarray, bool]:
    """Return the leads as timedelta64, or as numbers and True where they count months."""
    values = _values(dataset, "lead_time")
    if values.dtype.kind == "m":
        return values.astype("timedelta64[ns]"), False
    units = str(dataset["lead_time"].attrs.get("units", ""))
    if units.startswith("month"):
        return values, True
    # a file opened without decode_timedelta=True has numbers and a unit
    if units in ("days", "hours", "minutes", "seconds"):
        return pd.to_timedelta(values, unit=units).values.astype("timedelta64[ns]"), False
    raise ValueError(
        f"lead_time has type {values.dtype} and units {units!r}: it must be timedelta64, or numbers with"
        " units months, days, hours, minutes or seconds."
    )


def _lead_text(lead: object, months: bool) -> str:
    if months:
        return f"+{lead:g} month" + ("" if lead == 1 else "s")
    hours = lead / np.timedelta64(1, "h")
    return f"+{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"+{hours:g} h"


def _choose_lead(forecast: xr.Dataset, lead: object) -> tuple[int, str]:
    """Return the position of a lead and how to write it."""
    leads, months = _leads(forecast)
    texts = [_lead_text(one, months) for one in leads]
    if lead is None:
        return len(leads) - 1, texts[-1]
    if months:
        number = re.fullmatch(r"\+?(\d+)( ?(MS|ME|M|months?))?", str(lead))
        wanted = int(number.group(1)) if number else None
        example = "lead=3"
    else:
        example = 'lead="3D" or "12h"'
        try:
            # a bare number would silently be nanoseconds
            wanted = None if isinstance(lead, int | float) else pd.Timedelta(lead).to_timedelta64()
        except ValueError:
            wanted = None
    if wanted is None:
        raise ValueError(f"lead={lead!r} cannot be read: write {example}. It has {', '.join(texts)}.")
    found = np.flatnonzero(leads == wanted)
    if not len(found):
        raise ValueError(f"lead={lead!r} not in forecast: it has {', '.join(texts)}.")
    return int(found[0]), texts[found[0]]


def _time_values(truth: xr.Dataset, name: str | None) -> np.ndarray:
    if name is None or name not in truth.dims:
        raise ValueError(f"truth has dimensions {dict(truth.sizes)} and no time: pass an analysis with one.")
    return truth[name].values


def _choose_init(
    forecast: xr.Dataset, init: object, lead_index: int, lead_text: str, truth_times: np.ndarray | None
) -> tuple[int, object, int | None]:
    """Return the position of an init, its valid time, and the position of that in the truth."""
    starts = _values(forecast, "init_time")
    _values(forecast, "valid_time")
    valid = forecast["valid_time"]
    valid = valid.isel(lead_time=lead_index) if "lead_time" in valid.dims else valid
    valid = np.atleast_1d(valid.values)
    if init is not None:
        candidates = [_find_time(starts, init)]
        if candidates == [None]:
            raise ValueError(f"init={init!r} not in forecast: it has {_span(starts)}.")
    else:
        candidates = list(range(len(starts)))[::-1]
    if truth_times is None:
        return candidates[0], valid[candidates[0]], None
    if truth_times.dtype.kind != valid.dtype.kind:
        raise ValueError(
            f"valid_time has type {valid.dtype}, truth's time {truth_times.dtype}: their calendars differ."
        )
    where = {time: index for index, time in enumerate(_comparable(truth_times))}
    for candidate in candidates:
        index = where.get(_comparable(valid)[candidate])
        if index is not None:
            return candidate, valid[candidate], index
    moments = _span(valid[candidates])
    raise ValueError(
        f"no truth at lead {lead_text}: the forecast is valid at {moments}, truth has {_span(truth_times)}."
        " Choose another init or lead, a longer truth, or leave truth out."
    )


def _comparable(times: np.ndarray) -> list:
    """Return times that compare equal whatever the resolution they are stored in."""
    return times.astype("datetime64[ns]").tolist() if times.dtype.kind == "M" else times.tolist()


def _find_time(times: np.ndarray, wanted: object) -> int | None:
    if times.dtype.kind == "M":
        try:
            found = np.flatnonzero(times == pd.Timestamp(wanted).to_datetime64())
        except ValueError:
            return None
    else:
        text = str(wanted).replace("T", " ")
        found = np.flatnonzero([str(time).startswith(text) for time in times])
    return int(found[0]) if len(found) else None


def _date(time: object, calendar: str) -> str:
    time = pd.Timestamp(time) if isinstance(time, np.datetime64) else time
    return time.strftime(calendar).replace(":00 UTC", " UTC")


def _span(times: np.ndarray) -> str:
    first, last = (_date(time, "%Y-%m-%d %H:%M UTC") for time in (min(times), max(times)))
    return first if len(times) == 1 else f"{len(times)} times from {first} to {last}"


# ---- one field on its grid -------------------------------------------------------------------------------


def _field(dataset: xr.Dataset, name: str, axes: object, level: object, at: dict, role: str) -> xr.DataArray:
    """Return one map with dims (latitude, longitude), latitude ascending, longitude from the western edge on.

    Longitudes of the globe run from 0; those of a region increase without a jump, past 360 if need be.
    """
    if name not in dataset.data_vars:
        raise ValueError(f"variable {name!r} not in {role}: it has {list(dataset.data_vars)}.")
    array = dataset[name]
    array = array.isel({dim: index for dim, index in at.items() if dim in array.dims})
    if level is not None:
        if axes.level not in array.dims:
            raise ValueError(f"{name!r} in {role} has no level dimension: it has {array.dims}.")
        found = np.flatnonzero(dataset[axes.level].values == level)
        if not len(found):
            raise ValueError(f"level={level:g} not in {role}: it has {dataset[axes.level].values.tolist()}.")
        array = array.isel({axes.level: int(found[0])})
    if left_over := [dim for dim in array.dims if dim not in (axes.latitude, axes.longitude)]:
        dim = left_over[0]
        raise ValueError(
            f"{name!r} in {role} also has dimension {dim!r} of size {array.sizes[dim]}: choose or average"
            f" first, {role}.isel({dim}=0) or {role}.mean({dim!r}, keep_attrs=True)."
        )
    if {axes.latitude, axes.longitude} - set(array.dims):
        raise ValueError(f"{name!r} in {role} has {array.dims}: a map needs latitude and longitude.")
    latitude = np.asarray(dataset[axes.latitude].values, dtype=float)
    longitude = np.asarray(dataset[axes.longitude].values, dtype=float) % 360
    order = np.argsort(latitude)
    columns = np.argsort(longitude)
    longitude = longitude[columns]
    if not closes_longitude(longitude):
        start = (int(np.argmax(np.diff(longitude, append=longitude[0] + 360))) + 1) % len(longitude)
        columns, longitude = np.roll(columns, -start), np.roll(longitude, -start)
        longitude = longitude + 360 * (longitude < longitude[0])
    values = array.transpose(axes.latitude, axes.longitude).values[np.ix_(order, columns)]
    attrs = dict(array.attrs)
    attrs["what"] = _name_of(array) + ("" if level is None else f", {_at_text(dataset, axes.level, level)}")
    return xr.DataArray(
        values.astype(float),
        dims=("latitude", "longitude"),
        coords={"latitude": latitude[order], "longitude": longitude},
        name=name,
        attrs=attrs,
    )


def _check_same_units(forecast: xr.Dataset, truth: xr.Dataset, name: str) -> None:
    units = [dataset[name].attrs.get("units") for dataset in (forecast, truth)]
    if None not in units and _pretty(units[0]) != _pretty(units[1]):
        raise ValueError(f"{name!r} is in {units[0]!r} in forecast and in {units[1]!r} in truth: convert one of them.")


def _at_points_of(field: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return `other` at the grid points of `field`, which it must have: nothing is interpolated."""
    picked = {}
    for dim in ("latitude", "longitude"):
        apart = np.abs(other[dim].values[None, :] - field[dim].values[:, None])
        if dim == "longitude":
            apart = np.minimum(apart % 360, -apart % 360)
        picked[dim] = apart.argmin(axis=1)
        if (missing := apart.min(axis=1) > _SAME_POINT).any():
            raise ValueError(
                f"truth has no {dim} {field[dim].values[missing][0]:g} ({missing.sum()} of {missing.size} of"
                " the forecast are missing): bring both to one grid first, truth is not interpolated here."
            )
    return other.isel(picked).assign_coords(field.coords)


def _edges(centers: np.ndarray) -> np.ndarray:
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def _longitude_edges(field: xr.DataArray) -> tuple[np.ndarray, bool]:
    """Return the edges of the columns of cells, and whether they go round the globe."""
    edges = _edges(field["longitude"].values)
    is_ring = closes_longitude(field["longitude"].values)
    if is_ring:
        edges[-1] = edges[0] + 360
    return edges, is_ring


def _west_end(projection: ccrs.Projection) -> float:
    """Return the longitude at which a map begins."""
    return float(projection.proj4_params.get("lon_0", 0.0)) - 180


def _cut(edges: np.ndarray, is_ring: bool, cut: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pieces (edges, columns) of a row of cells none of which crosses the meridian `cut`.

    Cartopy draws a cell across the edge of a map in a second layer, and hides it in the first by marking it
    as missing. If the color map has a color for missing values, that paints over half the map (Robinson and
    Equal Earth with longitudes 0..360). So the cell is split at the edge: there is no second layer.
    """
    start = edges[0] + (cut - edges[0]) % 360
    count = len(edges) - 1
    k = int(np.searchsorted(edges, start, side="right")) - 1  # the cell that is split
    east = (np.concatenate([[start], edges[k + 1 :]]), np.arange(k, count))
    west = (np.concatenate([edges[: k + 1], [start]]), np.arange(k + 1))
    if k >= count:  # the cut is in the gap of a region
        pieces = [(edges, np.arange(count))]
    elif is_ring:
        pieces = [(np.concatenate([east[0], west[0][1:] + 360]), np.concatenate([east[1], west[1]]))]
    else:
        pieces = [east, west]
    kept = []
    for borders, columns in pieces:
        wide = np.diff(borders) > 1e-6
        if wide.any():
            borders = np.concatenate([borders[:1], borders[1:][wide]])
            # into the range of the map: PROJ gives up beyond 10 radians
            borders -= 360 * np.floor((borders.mean() - cut) / 360)
            kept.append((borders, columns[wide]))
    return kept


# ---- drawing ---------------------------------------------------------------------------------------------


def _new_figure(width: float, height: float = 4.0) -> Figure:
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)  # out of pyplot's list, still a whole figure: see the top of this file
    return figure


def _font_size(width: float) -> float:
    return float(np.clip(0.85 * width, 6.5, 10.0))


def _map_panels(
    figure: Figure,
    field: xr.DataArray,
    projection: ccrs.Projection | None,
    shape: tuple[int, int],
    count: int,
    size: float,
) -> list[GeoAxes]:
    """Return empty maps with coastlines that show the grid of the field."""
    edges, is_ring = _longitude_edges(field)
    south, north = np.clip(_edges(field["latitude"].values)[[0, -1]], -90, 90)
    is_globe = is_ring and north - south > 120
    middle = 0.0 if is_ring else (edges[0] + edges[-1]) / 2
    # no region crosses the edge of a frame around its own middle
    frame = ccrs.PlateCarree(central_longitude=middle)
    west, east = (-180, 180) if is_ring else (edges[0] - middle, edges[-1] - middle)
    plain = projection is None and not is_globe
    if projection is None:
        projection = ccrs.Robinson() if is_globe else frame
    panels = []
    for k in range(count):
        panel = figure.add_subplot(*shape, k + 1, projection=projection)
        panel.set_facecolor(_NO_VALUE)
        if is_globe or len(_cut(edges, is_ring, _west_end(projection))) > 1:
            panel.set_global()
        else:
            panel.set_extent((west, east, south, north), crs=frame)
        panel.add_feature(_coastlines(), facecolor="none", edgecolor="0.1", linewidth=0.6)
        panel.spines["geo"].set_linewidth(0.6)
        if plain:
            sides = {"bottom": "x", "left": "y"} if k % shape[1] == 0 else {"bottom": "x"}
            labels = panel.gridlines(draw_labels=sides, linewidth=0)
            labels.xlocator, labels.ylocator = LongitudeLocator(nbins=5), LatitudeLocator(nbins=5)
            labels.xlabel_style = labels.ylabel_style = {"size": 0.8 * size}
            # true proportions in the middle of the region, as on a paper map
            panel.set_aspect(1 / np.cos(np.deg2rad(np.clip((south + north) / 2, -70, 70))))
        panels.append(panel)
    return panels


@cache
def _coastlines() -> ShapelyFeature:
    # not cartopy.feature.COASTLINE, which would download; cached, so that its lines are projected once
    file = importlib.resources.files("simvp_climate").joinpath(*_COAST_FILE)
    with importlib.resources.as_file(file) as path:
        return ShapelyFeature(tuple(Reader(path).geometries()), ccrs.PlateCarree())


def _draw(panel: GeoAxes, field: xr.DataArray, limits: tuple[float, float], colors: str) -> ScalarMappable:
    """Draw the cells and return the color scale."""
    scale = ScalarMappable(Normalize(*limits), plt.get_cmap(colors))
    edges, is_ring = _longitude_edges(field)
    lat_edges = np.clip(_edges(field["latitude"].values), -90, 90)
    cells = np.ma.masked_invalid(field.values)
    for borders, columns in _cut(edges, is_ring, _west_end(panel.projection)):
        borders = borders.copy()
        # a hair inside the edge of the map: on it, either side could be meant
        borders[[0, -1]] += 1e-5, -1e-5
        panel.pcolormesh(
            borders,
            lat_edges,
            cells[:, columns],
            norm=scale.norm,
            cmap=scale.cmap,
            transform=ccrs.PlateCarree(),
            shading="flat",
            rasterized=True,
        )
    return scale


def _color_bar(
    figure: Figure, scale: ScalarMappable, panels: list[GeoAxes], label: str, fields: tuple, size: float
) -> None:
    low = any((field < scale.norm.vmin).any() for field in fields)
    high = any((field > scale.norm.vmax).any() for field in fields)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(low), int(high)]
    bar = figure.colorbar(
        scale,
        ax=panels,
        location="bottom",
        extend=extend,
        shrink=0.8 / len(panels) + 0.1,
        aspect=20 + 8 * len(panels),
        pad=0.02,
    )
    bar.set_label(label, fontsize=size)
    bar.ax.tick_params(labelsize=0.9 * size)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4 if len(panels) == 1 else 5))


def _range(*fields: xr.DataArray) -> tuple[float, float]:
    values = np.concatenate([field.values[np.isfinite(field.values)] for field in fields])
    if not len(values):
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(values, (1, 99)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _symmetric_range(field: xr.DataArray) -> tuple[float, float]:
    sizes = np.abs(field.values[np.isfinite(field.values)])
    limit = float(np.percentile(sizes, 99) or sizes.max() or 1.0) if len(sizes) else 1.0
    return -limit, limit


def _rmse_text(difference: xr.DataArray, field: xr.DataArray) -> str:
    if not np.isfinite(difference).any():
        return "-"
    squares = (difference**2).weighted(latitude_weights(difference["latitude"])).mean()
    return f"{float(np.sqrt(squares)):.3g} {_units(field)}".strip()


def _history_table(name: str, one: object) -> pd.DataFrame:
    """Return the history of a Forecaster, or a history itself, with its epochs as index."""
    table = one if isinstance(one, pd.DataFrame) else getattr(one, "history", None)
    words = f"histories has {name!r}, which" if name else "histories"
    if not isinstance(table, pd.DataFrame) or not {"loss", "valid_loss"} & set(table.columns):
        raise ValueError(f"{words} is a {type(one).__name__}: give a Forecaster or its history, several as a dict")
    if table.empty:
        raise ValueError(f"{words} has no epoch: nothing was trained yet")
    return table.set_index("epoch") if "epoch" in table.columns else table


def _draw_epochs(
    panel: Axes, table: pd.DataFrame, column: str, label: str, color: str, style: str, width: float, *, ring: bool
) -> None:
    """Draw a column against the epochs; the kept one is in a ring."""
    if column not in table:
        return
    few = "." if len(table) < 15 else ""
    panel.plot(
        table.index, table[column], color=color, linestyle=style, linewidth=width, marker=few, label=label or None
    )
    if ring:
        kept = table["valid_loss"].idxmin() if "valid_loss" in table else table.index[-1]
        panel.plot([kept], [table.loc[kept, column]], "o", color=color, markerfacecolor="none", markersize=9)


def _finish_epochs(panel: Axes, title: str, label: str, last: int, size: float) -> None:
    panel.set_title(title, fontsize=size)
    panel.set_ylabel(label, fontsize=size)
    panel.set_xlabel("Epoch", fontsize=size)
    panel.tick_params(which="both", labelsize=0.9 * size)
    panel.set_xlim(1 - 0.04 * last, 1.04 * last)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        panel.legend(handles, labels, frameon=False, fontsize=0.9 * size)


def _draw_scores(panel: Axes, values: xr.DataArray, leads: np.ndarray, drawn: dict) -> None:
    """Draw the line of every system that has values, and enter it into `drawn` for the legend."""
    others = [str(name) for name in values["system"].values if str(name) not in _BASELINES]
    for name in (str(name) for name in values["system"].values):
        line = values.sel(system=name).transpose("lead_time").values
        if not np.isfinite(line).any():
            continue
        if name in _BASELINES:
            color, marker, style = _BASELINES[name]
        else:
            color, marker = _LINES[others.index(name) % len(_LINES)]
            style = "-"
        drawn[name] = panel.plot(
            leads, line, color=color, marker=marker, linestyle=style, markersize=4, linewidth=1.6, label=name
        )[0]
        low, high = (values.coords.get(f"{values.name}_{end}") for end in ("low", "high"))
        if low is not None and np.isfinite(low.sel(system=name)).any():
            ends = [one.sel(system=name).transpose("lead_time").values for one in (low, high)]
            panel.fill_between(leads, *ends, color=color, alpha=0.15, linewidth=0)
    if not panel.lines:
        panel.text(0.5, 0.5, "no values", transform=panel.transAxes, ha="center", color="0.4")


def _skill_label(metric: str) -> str:
    return f"Skill over {metric.removeprefix(_SKILL).replace('_', ' ')}" if metric.startswith(_SKILL) else metric


def _draw_published(panel: Axes, published: pd.DataFrame, variable: str, metric: str, lead_label: str) -> None:
    """Draw what others published of a variable as dots, each with the name of its model."""
    unit = 24 if "days" in lead_label else 1
    chosen = published[(published["variable"] == variable) & (published["metric"] == metric)]
    for _, row in chosen.iterrows():
        place = (row["lead_hours"] / unit, row["value"])
        panel.plot(*place, color="0.35", marker=".", markersize=5, linestyle="none", zorder=1)
        panel.annotate(row["model"], place, xytext=(3, 0), textcoords="offset points", fontsize=5, color="0.35")


def _lead_axis(scores: xr.Dataset) -> tuple[np.ndarray, str]:
    leads, months = _leads(scores)
    if months:
        return leads, "Lead time [months]"
    days = leads / np.timedelta64(1, "D")
    return (days, "Lead time [days]") if days.max() >= 2 else (24 * days, "Lead time [hours]")


def _lead_ticks(label: str) -> MaxNLocator:
    steps = [1, 3, 6, 10] if "hours" in label else None
    return MaxNLocator(8, steps=steps, integer=True)


# ---- words -----------------------------------------------------------------------------------------------


def _has_values(scores: xr.Dataset) -> bool:
    return any(bool(np.isfinite(array).any()) for array in scores.data_vars.values())


def _name_of(array: xr.DataArray) -> str:
    text = str(array.attrs.get("long_name") or array.name).replace("_", " ")
    return text[:1].upper() + text[1:] if "long_name" in array.attrs else text


def _at_text(dataset: xr.Dataset, dim: str, value: object) -> str:
    """Return how to write one value of level, region or season."""
    if not np.issubdtype(type(value), np.number):
        return str(value)
    units = dataset[dim].attrs.get("units", "") if dim in dataset.coords else ""
    return f"{value:g} {units}" if units else f"{dim} {value:g}"


def _pretty(units: str) -> str:
    """Return units with raised exponents: "m2 s-2", "m**2 s**-2" and "m^2 s^-2" all become "m² s⁻²"."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    power = r"\b([A-Za-z]+)(?:\*\*|\^)?(-?\d+)\b"
    return re.sub(power, lambda m: m.group(1) + m.group(2).translate(raised), str(units).strip())


def _units(array: xr.DataArray) -> str:
    units = _pretty(array.attrs.get("units", ""))
    return "" if units == "1" else units


def _labeled(text: str, array: xr.DataArray) -> str:
    units = _units(array)
    return f"{text} [{units}]" if units else text
