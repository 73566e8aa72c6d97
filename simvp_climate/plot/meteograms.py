"""Meteograms: a forecast at a point against valid time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from simvp_climate.data.display_units import DisplayUnits, display_units, requested_units
from simvp_climate.data.grid import Axes as GridAxes
from simvp_climate.data.grid import closes_longitude, find_axes, find_member
from simvp_climate.data.windows import find_valid_times
from simvp_climate.metrics.baselines.climatologies import climatology_at
from simvp_climate.plot import style
from simvp_climate.plot.colors import has_usual_values, is_anomaly
from simvp_climate.plot.curve_panels import add_legend_below, curve_panels
from simvp_climate.plot.score_selection import score_rows
from simvp_climate.plot.selection import choose_names, date_text, init_position, open_source
from simvp_climate.plot.time_axis import days_since_1970, label_times

_FEW_MEMBERS = 8  # drawn as lines
_COLOR, _CLIMATE_COLOR = style.LINE_STYLES[0][0], "0.55"


def meteogram(
    forecast: xr.Dataset, truth: xr.Dataset | None = None, *, latitude: float, longitude: float,
    variables: str | Sequence[str] | None = None, init: object | None = None, method: str = "nearest",
    interval: xr.Dataset | None = None, climatology: xr.Dataset | None = None,
    units: str | Mapping[str, str] | None = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw one forecast at a point against valid time, with its members or an interval, the truth and the climate.

    Parameters
    ----------
    forecast
        Dims (init_time, lead_time, [number, level,] latitude, longitude).
    truth
        Analyses on the same grid; drawn at the valid times that it has.
    latitude, longitude
        Degrees north and east; longitudes may be -180 to 180 or 0 to 360.
    variables
        One name or several; default all. Every level has its own panel.
    init
        Initialization time; default the last.
    method
        "nearest": the cell that contains the point; "bilinear": between the four cells around it.
    interval
        Bounds of a prediction interval, from `Intervals`: `forecaster.interval(0.9, valid, every="1D")(forecast)`.
    climatology
        From `climatology`, drawn as a line; or from `climatological_ensemble` for the same init and leads, drawn as a
        band of 80 % of its members.
    units
        Units to draw in by variable, as in `maps`; default the usual ones of charts, such as degC.
    width, ax
        As in `scores`; default 7 inches, with a panel below the other for each variable and level.

    Returns
    -------
    Figure. Up to eight members are thin lines around their mean; of more members, bands contain the middle 50 % and
    80 % around the median. ValueError if the point is outside the grid, an init or variable is missing, or `units` do
    not convert.
    """
    if method not in ("nearest", "bilinear"):
        raise ValueError(f"method={method!r} must be 'nearest' or 'bilinear'.")
    source = open_source(forecast, "forecast")
    names = choose_names(variables, [str(name) for name in source.dataset.data_vars], "variables", "forecast")
    requested = requested_units(units, names)
    inits = np.atleast_1d(source.dataset["init_time"].values)
    chosen = len(inits) - 1 if init is None else init_position(inits, init)
    point = (latitude, longitude, method)
    plume, place = _at_point(_one_init(source.dataset[names], chosen), "forecast", *point)
    times = find_valid_times(_one_init(source.dataset, chosen)).values[0]
    days, member = days_since_1970(times), find_member(plume)
    drawn = [_truth_at(truth, names, times, point), _interval_at(interval, names, chosen, point)]
    drawn.append(_climate_at(climatology, names, chosen, times, point))

    rows = list(score_rows(plume, ("lead_time", member) if member else ("lead_time",)))
    options = dict(default=7.0, aspect=0.36, max_columns=1)
    panels = curve_panels(ax, width, len(rows), "one for each variable and level", **options)
    handles: dict[str, Line2D | Patch] = {}
    for index, (panel, (texts, row)) in enumerate(zip(panels.axes, rows, strict=True)):
        level = {dim: row[dim] for dim in row.coords if dim in plume.dims and dim not in row.dims}
        displayed = _display(row, level.get(source.axes.level), requested.get(str(row.name)))
        observed, bounds, climate = (
            None if each is None or row.name not in each else _convert(each[row.name].sel(level), displayed)
            for each in drawn
        )
        row = _convert(row, displayed)
        handles |= _draw_climate(panel, days, climate)
        handles |= _draw_forecast(panel, days, row, member, bounds)
        if observed is not None:
            options = dict(color="black", marker=".", linewidth=1.2, label="truth", zorder=4)
            handles |= {"truth": panel.plot(days, observed.values, **options)[0]}
        is_lowest = panels.is_lowest(index)
        years = " to ".join(dict.fromkeys(date_text(time, "%Y") for time in times[[0, -1]]))
        y_label = panels.wrap_up(style.with_units("", row).strip())
        title = panels.wrap(", ".join([style.display_name(row), *texts]))
        style.label_panel(panel, title, f"Valid time ({years})" if is_lowest else "", y_label, panels.size)
        label_times(panel.xaxis, times, days, int(1.1 * panels.width))
    start = date_text(inits[chosen], "%Y-%m-%d %H:%M UTC")
    if panels.is_new:
        figure_width = panels.figure.get_size_inches()[0]
        title = f"{place}, from {start}"
        panels.figure.suptitle(title, fontsize=min(1.1 * panels.size, 72 * figure_width / (0.62 * len(title))))
        add_legend_below(panels.figure, list(handles.values()), panels.size)
    else:
        panels.axes[0].legend(handles=list(handles.values()), frameon=False, fontsize=0.85 * panels.size)
    return panels.figure


def _display(row: xr.DataArray, level: xr.DataArray | None, requested: str | None) -> DisplayUnits:
    """Return the units to draw a variable in; anomalies, as in `forecast - climatology`, convert without an offset."""
    value = None if level is None else float(level)
    usual = None if has_usual_values(row, value) else row.attrs.get("units")
    target = display_units(str(row.name), row.attrs, requested or usual)
    return replace(target, units=target.of_differences, offset=0.0) if is_anomaly(row, value) else target


def _convert(array: xr.DataArray, target: DisplayUnits) -> xr.DataArray:
    """Return an array in units for display, with its attributes."""
    attrs = array.attrs | ({"units": target.units} if target.units else {})
    return (array * target.factor + target.offset).assign_attrs(attrs)


def _one_init(dataset: xr.Dataset, position: int) -> xr.Dataset:
    return dataset.isel(init_time=[position]) if "init_time" in dataset.dims else dataset.expand_dims("init_time")


def _at_point(dataset: xr.Dataset, role: str, latitude: float, longitude: float, method: str) -> tuple[xr.Dataset, str]:
    """Return a Dataset at a point, without latitude and longitude, and the place as text."""
    axes = find_axes(dataset)
    rows, columns = (dataset[dim].values.astype(float) for dim in (axes.latitude, axes.longitude))
    _check_inside(rows, columns, role, latitude, longitude)
    nearest = int(np.abs(rows - latitude).argmin()), int(np.abs((columns - longitude + 180) % 360 - 180).argmin())
    if method == "nearest":
        at_row, at_column = ({nearest[0]: 1.0}, {nearest[1]: 1.0})
        latitude, longitude = rows[nearest[0]], columns[nearest[1]]
    else:
        at_row = _weights(rows - latitude, nearest[0])
        at_column = _weights((columns - longitude + 180) % 360 - 180, nearest[1])
    cells = dataset.isel({axes.latitude: list(at_row), axes.longitude: list(at_column)}).compute()
    result = cells.map(lambda field: _weighted(field, axes, list(at_row.values()), list(at_column.values())))
    east = (longitude + 180) % 360 - 180
    text = f"{abs(latitude):.4g}°{'S' if latitude < 0 else 'N'} {abs(east):.4g}°{'W' if east < 0 else 'E'}"
    if "init_time" in result.dims:
        result = result.isel(init_time=0, drop=True)
    return result, text


def _weights(offsets: np.ndarray, nearest: int) -> dict[int, float]:
    """Return the weights of the two cells around offset 0 in linear interpolation, or 1 for the nearest at an edge."""
    below, above = np.flatnonzero(offsets <= 0), np.flatnonzero(offsets > 0)
    if not below.size or not above.size or offsets[nearest] == 0:
        return {nearest: 1.0}
    first, second = below[offsets[below].argmax()], above[offsets[above].argmin()]
    share = -offsets[first] / (offsets[second] - offsets[first])
    return {int(first): 1 - share, int(second): share}


def _weighted(field: xr.DataArray, axes: GridAxes, rows: list[float], columns: list[float]) -> xr.DataArray:
    """Return the weighted sum of the cells around a point."""
    weights = xr.DataArray(np.outer(rows, columns), dims=(axes.latitude, axes.longitude))
    return (field * weights).sum((axes.latitude, axes.longitude), skipna=False).assign_attrs(field.attrs)


def _check_inside(rows: np.ndarray, columns: np.ndarray, role: str, latitude: float, longitude: float) -> None:
    """Raise ValueError unless a point lies in a cell of the grid."""
    half_row = np.abs(np.diff(rows)).max() / 2 if len(rows) > 1 else 0.5
    half_column = np.abs((np.diff(columns) + 180) % 360 - 180).max() / 2 if len(columns) > 1 else 0.5
    distance = np.abs((columns - longitude + 180) % 360 - 180).min()
    inside_columns = closes_longitude(columns) or distance <= half_column + 1e-6
    if not (-90 <= latitude <= 90 and np.abs(rows - latitude).min() <= half_row + 1e-6 and inside_columns):
        extent = f"{rows.min():g} to {rows.max():g} N, {columns.min():g} to {columns.max():g} E"
        raise ValueError(f"latitude={latitude:g}, longitude={longitude:g} is outside the grid of {role}, {extent}.")


def _truth_at(truth: xr.Dataset | None, names: list[str], times: np.ndarray, point: tuple) -> xr.Dataset | None:
    """Return the truth at a point and the valid times; NaN where it has none."""
    if truth is None:
        return None
    source = open_source(truth, "truth")
    dataset, time = source.dataset, source.axes.time
    if time is None or time not in dataset.dims:
        raise ValueError(f"truth has dimensions {dict(truth.sizes)} and no time: pass analyses along a time.")
    positions = dataset.indexes[time].get_indexer(times)
    if (positions < 0).all():
        last = date_text(times[-1], "%Y-%m-%d %H:%M UTC")
        raise ValueError(f"truth has none of the valid times up to {last}: choose another init, or omit truth.")
    if missing := [name for name in names if name not in dataset]:
        raise ValueError(f"truth has no {missing}, but {list(dataset.data_vars)}: choose variables=.")
    values, _ = _at_point(dataset[names].isel({time: np.maximum(positions, 0)}), "truth", *point)
    has_truth = xr.DataArray(positions >= 0, dims="lead_time")
    return values.rename({time: "lead_time"}).drop_vars("lead_time").where(has_truth)


def _interval_at(interval: xr.Dataset | None, names: list[str], init: int, point: tuple) -> xr.Dataset | None:
    """Return the bounds of an interval at a point."""
    if interval is None:
        return None
    if "bound" not in interval.dims:
        fix = "pass forecaster.interval(0.9, valid, every='1D')(forecast)"
        raise ValueError(f"interval has dimensions {dict(interval.sizes)} and no bound: {fix}.")
    return _at_point(_one_init(interval[names], init), "interval", *point)[0]


def _climate_at(
    climatology: xr.Dataset | None, names: list[str], init: int, times: np.ndarray, point: tuple
) -> xr.Dataset | None:
    """Return the climatology at a point and the valid times, or the members of a climatological ensemble."""
    if climatology is None:
        return None
    climate = climatology[[name for name in names if name in climatology]]
    if "init_time" in climatology.coords:
        return _at_point(_one_init(climate, init), "climatology", *point)[0]
    return climatology_at(_at_point(climate, "climatology", *point)[0], xr.DataArray(times, dims="lead_time"))


def _draw_climate(panel: Axes, days: np.ndarray, climate: xr.DataArray | None) -> dict[str, Line2D | Patch]:
    """Draw the climatology as a line, or the band of its members; return the entries of the legend."""
    if climate is None:
        return {}
    member = find_member(climate.to_dataset(name="climate"))
    if member is None:
        options = dict(color=_CLIMATE_COLOR, linestyle="--", linewidth=1.4, label="climatology")
        return {"climatology": panel.plot(days, climate.transpose("lead_time").values, **options)[0]}
    low, high = climate.quantile([0.1, 0.9], member).transpose("quantile", "lead_time").values
    panel.fill_between(days, low, high, color=_CLIMATE_COLOR, alpha=0.25, linewidth=0, zorder=0)
    return {"climatology": Patch(color=_CLIMATE_COLOR, alpha=0.25, label="climatology, middle 80 %")}


def _draw_forecast(
    panel: Axes, days: np.ndarray, row: xr.DataArray, member: str | None, bounds: xr.DataArray | None
) -> dict[str, Line2D | Patch]:
    """Draw a forecast, its members and its interval; return the entries of the legend."""
    handles: dict[str, Line2D | Patch] = {}
    center, label = row, "forecast"
    if bounds is not None:
        low, high = bounds.transpose("bound", "lead_time").values
        panel.fill_between(days, low, high, color=_COLOR, alpha=0.2, linewidth=0)
        probability = bounds.attrs.get("interval_probability")
        text = "interval" if probability is None else f"{100 * float(probability):g} % interval"
        handles["interval"] = Patch(color=_COLOR, alpha=0.2, label=text)
    if member is not None and row.sizes[member] <= _FEW_MEMBERS:
        center, label = row.mean(member), "mean of the members"
        lines = panel.plot(days, row.transpose("lead_time", member).values, color=_COLOR, linewidth=0.6, alpha=0.6)
        handles["members"] = Line2D([], [], color=_COLOR, linewidth=0.6, alpha=0.6, label=f"{len(lines)} members")
    elif member is not None:
        center, label = row.median(member), "median of the members"
        for share, alpha in ((0.8, 0.2), (0.5, 0.35)):
            tails = [(1 - share) / 2, (1 + share) / 2]
            low, high = row.quantile(tails, member).transpose("quantile", "lead_time").values
            panel.fill_between(days, low, high, color=_COLOR, alpha=alpha, linewidth=0)
            handles[f"{share}"] = Patch(color=_COLOR, alpha=alpha, label=f"middle {100 * share:g} % of members")
    handles["forecast"] = panel.plot(days, center.values, color=_COLOR, linewidth=2, label=label, zorder=3)[0]
    return handles
