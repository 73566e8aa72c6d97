"""Sections through time: longitude against time."""

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from simvp_climate.data.conventions import rename
from simvp_climate.data.grid import Axes as Dimensions
from simvp_climate.data.grid import closes_longitude, find_axes, latitude_weights
from simvp_climate.plot.colors import check_colors, colors_of, diverging_of, shown, symmetric_range
from simvp_climate.plot.map_axes import degrees_text, edges_of
from simvp_climate.plot.selection import (
    check_dataset,
    choose_init,
    date_text,
    grid_of,
    in_same_units,
    lead_values,
    positions_of,
    select,
    time_values,
    values_of,
    what,
)
from simvp_climate.plot.style import (
    check_axes,
    color_bar_below,
    figure_of,
    font_size,
    new_figure,
    refuse_settings_with_axes,
    with_units,
)

_AT_ONCE = 2**24  # values that are read in one go, 128 MiB


def hovmoller(
    dataset: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    variable: str | None = None,
    latitudes: tuple[float, float] = (-90, 90),
    init: object | None = None,
    level: float | None = None,
    anomalies: bool = False,
    cmap: str | Colormap | None = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw longitude against time, a mean over a band of latitudes: how waves travel, in a forecast and in truth.

    Parameters
    ----------
    dataset
        One forecast, (init_time, lead_time, ...), or analyses along a time.
    truth
        Analyses to draw beside a forecast, with the difference; on at least its grid points.
    variable
        Needed where there are several.
    latitudes
        South and north of the band, degrees; means are weighted by area.
    init
        Of a forecast; default the last one whose valid times the truth has.
    level
        Needed where there are several.
    anomalies
        Whether the mean over longitudes is taken away at each time.
    cmap, limits
        As in `maps`.
    title, width
        Of the figure, in inches.
    ax
        Axes of your own: one, or with a truth three.

    Returns
    -------
    Figure. Time runs downwards, valid times for a forecast; where times are missing, rows are gray. Colors as in
    `maps`.

    Raises
    ------
    ValueError
        If a variable, level, init or latitude is not there; if times do not increase; if truth lacks a valid time, a
        grid point of the forecast, or is in other units; if an init is given for analyses; or as in `maps`.
    """
    check_dataset(dataset, "dataset")
    check_colors(cmap, limits, [])
    refuse_settings_with_axes(ax, width)
    names = [str(name) for name in dataset.data_vars]
    if variable is None:
        if len(names) > 1:
            raise ValueError(f"there are {names}: choose one, variable={names[0]!r}")
        variable = names[0]
    if variable not in names:
        raise ValueError(f"variable={variable!r} is not in dataset: it has {names}")
    axes = find_axes(dataset)
    is_forecast = "lead_time" in dataset.coords
    if truth is not None and not is_forecast:
        raise ValueError(f"the first dataset has {tuple(dataset.dims)} and no lead_time: truth goes beside a forecast")
    if is_forecast:
        leads, months = lead_values(dataset)
        numbers = [(at, str(lead)) for at, lead in enumerate(leads)]
        times_of_truth = None
        if truth is not None:
            check_dataset(truth, "truth")
            if variable not in truth:
                truth = rename(truth, [variable])
            dataset, truth = in_same_units(dataset, truth, variable)
            truth_axes = find_axes(truth)
            times_of_truth = time_values(truth, truth_axes.time)
        at_init, valid, places = choose_init(dataset, init, numbers, times_of_truth)
        times = np.asarray(valid)
        dataset = dataset.expand_dims([d for d in ("init_time", "lead_time") if d not in dataset.dims])
        along, where = "lead_time", {"init_time": at_init, "lead_time": np.arange(len(leads))}
        start = date_text(values_of(dataset, "init_time")[at_init], "%Y-%m" if months else "%Y-%m-%d %H:%M UTC")
        heading = f"From {start}"
    else:
        if axes.time is None or axes.time not in dataset.dims:
            raise ValueError(f"dataset has {tuple(dataset.dims)}: neither a forecast nor a time")
        if init is not None:
            raise ValueError(
                f"init={init!r} was given, and dataset has no init_time: it is of a forecast, leave it out"
            )
        times = dataset[axes.time].values
        if not len(times):
            raise ValueError(f"dataset has no {axes.time}, its size is 0: nothing was selected")
        along, where = axes.time, {axes.time: np.arange(len(times))}
        heading = ""
    if level is None and axes.level in dataset[variable].dims:
        found = dataset[axes.level].values
        if len(found) > 1:
            raise ValueError(f"{variable} has the levels {found}: choose one, level={found[0]:g}")
        level = found[0]

    grid, own = grid_of(dataset, axes)
    band = _inside(grid["latitude"], latitudes)
    points = {"latitude": grid["latitude"][band], "longitude": grid["longitude"]}
    own = {"latitude": own["latitude"][band], "longitude": own["longitude"]}
    degrees = xr.DataArray(grid["latitude"], dims="latitude", name="latitude")
    weights = latitude_weights(degrees.assign_coords(latitude=degrees)).values[band]
    array = select(dataset, variable, axes, level, where, "forecast" if is_forecast else "dataset")
    attrs = what(array, dataset, axes, level)
    fields = [_section(array, axes, along, own, weights).assign_attrs(attrs)]
    titles = ["Forecast" if is_forecast else ""]
    if truth is not None:
        others, theirs = grid_of(truth, truth_axes)
        found_at = positions_of(points, others)
        theirs = {dim: theirs[dim][found_at[dim]] for dim in theirs}
        at = {truth_axes.time: np.asarray(places)}
        array = select(truth, variable, truth_axes, level, at, "truth")
        fields.append(_section(array, truth_axes, truth_axes.time, theirs, weights).assign_attrs(attrs))
        titles += ["Truth", "Forecast minus truth"]
    fields = [shown(field.rename(variable).assign_coords(longitude=points["longitude"]), level) for field in fields]
    if anomalies:
        words = {"what": f"{fields[0].attrs['what']}, anomaly from the zonal mean", "anomaly": True}
        fields = [(one - one.mean("longitude")).assign_attrs({**one.attrs, **words}) for one in fields]
    if truth is not None:
        fields.append((fields[0] - fields[1]).assign_attrs(fields[0].attrs))

    given = None if ax is None else check_axes(ax, len(fields), "forecast, truth and difference" if truth else "one")
    width = (11.0 if len(fields) > 1 else 5.0) if width is None else width
    size = font_size(3 * width / len(fields))
    figure = new_figure(width, 5.0 if len(fields) == 1 else 0.42 * width) if given is None else figure_of(given)
    colors, scale = colors_of(*fields[:2], cmap=cmap, limits=limits)
    label = with_units(fields[0].attrs["what"], fields[0])
    positions = _positions(times)
    rows, kept = _rows(positions)
    bars = []
    for number, (field, text) in enumerate(zip(fields, titles, strict=True)):
        panel = figure.add_subplot(1, len(fields), number + 1) if given is None else given[number]
        mesh = ScalarMappable(Normalize(*scale), colors)
        if number == 2:
            mesh = ScalarMappable(Normalize(*symmetric_range(field)), diverging_of(field))
        edges = edges_of(field["longitude"].values)
        if closes_longitude(field["longitude"].values):
            edges[-1] = edges[0] + 360
        cells = np.full((len(rows) - 1, len(edges) - 1), np.nan)
        cells[kept] = field.values
        panel.set_facecolor("0.85")
        panel.pcolormesh(
            edges, rows, np.ma.masked_invalid(cells), norm=mesh.norm, cmap=mesh.cmap, rasterized=True
        )  # fmt: skip
        panel.set_ylim(rows[-1], rows[0])
        _write_times(panel, times, positions)
        points = 72 * 0.85 * width / len(fields) if given is None else 72 * panel.bbox.width / figure.dpi
        panel.xaxis.set_major_locator(MultipleLocator(_step(edges[-1] - edges[0], points / (3.5 * size))))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: degrees_text(value, "longitude")))
        panel.tick_params(labelsize=0.85 * size)
        if number:
            panel.tick_params(axis="y", labelleft=False)
        else:
            panel.set_ylabel(_years(times), fontsize=0.9 * size)
        panel.set_title(text, fontsize=size)
        words = with_units("Difference", field) if number == 2 else label
        bars.append((mesh, panel, textwrap.fill(words, max(12, int(points / (0.5 * size))))))
    for mesh, panel, words in bars:  # last, so that the panels come first in the figure
        bar = color_bar_below(figure, mesh, [panel], words, 0.9 * size)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    south, north = latitudes
    if title is None and given is None:
        between = f"{abs(south):g}°{'S' if south < 0 else 'N'} to {abs(north):g}°{'S' if north < 0 else 'N'}"
        title = f"{heading}, {between}" if heading else between
    if title:
        figure.suptitle(title, fontsize=1.1 * size)
    return figure


def _inside(latitude: np.ndarray, latitudes: tuple[float, float]) -> np.ndarray:
    """Return which latitudes lie in a band; ValueError if none does."""
    south, north = latitudes
    inside = (latitude >= south - 1e-3) & (latitude <= north + 1e-3)
    if not inside.any():
        raise ValueError(
            f"no latitude lies in {latitudes}: they run from {latitude.min():g} to {latitude.max():g}, and the south "
            "of the band comes first"
        )
    return inside


def _section(
    array: xr.DataArray, axes: Dimensions, along: str, places: dict[str, np.ndarray], weights: np.ndarray
) -> xr.DataArray:
    """Return the means over latitudes of an array at positions of its grid, dims (time, longitude).

    Values that are missing count nothing; where all are, so is the mean. Times are read in blocks.
    """
    if along not in array.dims:
        array = array.expand_dims(along)
    array = array.transpose(along, axes.latitude, axes.longitude)
    # whole rows of the file are read: scattered positions are slow in most stores
    rows = slice(places["latitude"].min(), places["latitude"].max() + 1)
    inside = np.ix_(places["latitude"] - rows.start, places["longitude"])
    array = array.isel({axes.latitude: rows})
    step = max(1, _AT_ONCE // (array.shape[1] * array.shape[2]))
    means = []
    for first in range(0, array.shape[0], step):
        block = array.isel({along: slice(first, first + step)}).values[:, inside[0], inside[1]].astype(float)
        there = np.isfinite(block)
        total = np.einsum("l,tlo->to", weights, np.where(there, block, 0))
        count = np.einsum("l,tlo->to", weights, there.astype(float))
        means.append(np.where(count > 0, total / np.where(count > 0, count, 1), np.nan))
    return xr.DataArray(np.concatenate(means), dims=("time", "longitude"))


def _positions(times: np.ndarray) -> np.ndarray:
    """Return times as numbers of days; ValueError if they do not increase."""
    if times.dtype.kind == "M":
        found = date2num(times)
    else:
        import cftime

        found = np.asarray(cftime.date2num(times, "days since 1970-01-01", times[0].calendar), dtype=float)
    if (wrong := np.flatnonzero(np.diff(found) <= 0)).size:
        earlier, later = (date_text(times[wrong[0] + at], "%Y-%m-%d %H:%M UTC") for at in (0, 1))
        raise ValueError(f"times must increase, and {later} follows {earlier}: sort them, and keep each once")
    return found


def _rows(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of rows in time, and which rows hold a time: gaps between times are rows of their own."""
    if len(positions) == 1:
        return positions[0] + np.array([-0.5, 0.5]), np.array([0])
    apart = np.diff(positions)
    usual = float(np.median(apart))
    edges = [positions[0] - min(usual, apart[0]) / 2]
    kept = []
    for at, (position, gap) in enumerate(zip(positions, [*apart, min(usual, apart[-1])], strict=True)):
        kept.append(len(edges) - 1)
        if gap <= 1.5 * usual:  # months are 28 to 31 days apart
            edges.append(position + gap / 2)
        else:
            edges += [position + usual / 2, positions[at + 1] - usual / 2]
    return np.array(edges), np.array(kept)


def _years(times: np.ndarray) -> str:
    """Return the years of a time axis: its ticks may be months or days."""
    first, last = (date_text(times[at], "%Y") for at in (0, -1))
    return first if first == last else f"{first} to {last}"


def _step(wide: float, count: float) -> float:
    """Return how far apart so many meridians at most are labeled, degrees."""
    steps = (5, 10, 20, 30, 60, 90, 120, 180)
    return next((step for step in steps if wide / step <= count), steps[-1])


def _write_times(panel: Axes, times: np.ndarray, positions: np.ndarray) -> None:
    """Set the ticks of a time axis."""
    if times.dtype.kind == "M":
        locator = AutoDateLocator(minticks=3, maxticks=9)
        panel.yaxis.set_major_locator(locator)
        # years, months, days, hours, minutes, seconds; what stands in place of January, the first, midnight ...
        formats = ["%Y", "%b", "%b %d", "%b %d, %H h", "%H:%M", "%H:%M:%S"]
        starts = ["", "%Y", "%b", "%b %d", "%H:%M", "%H:%M"]
        panel.yaxis.set_major_formatter(
            ConciseDateFormatter(locator, formats=formats, zero_formats=starts, show_offset=False)
        )
        return
    # matplotlib knows no other calendars
    ticks = np.arange(len(times))[:: -(-len(times) // 8)]
    forms = ("%Y-%m-%d %H", "%Y-%m-%d", "%Y-%m")
    fine = [len({one.strftime(form) for one in times}) for form in ("%H", "%d %H")]
    form = forms[2] if fine[1] == 1 and len(times) > 1 else forms[1] if fine[0] == 1 else forms[0]
    panel.set_yticks(positions[ticks], [times[at].strftime(form) for at in ticks])
