"""Draw longitude-time sections (Hovmoller diagrams)."""

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from simvp_climate.data.grid import latitude_weights
from simvp_climate.plot.colors import check_colors, difference_scale, prepare_field, value_scale
from simvp_climate.plot.map_axes import degrees_text, longitude_edges
from simvp_climate.plot.selection import (
    Source,
    check_dataset,
    choose_field,
    choose_leads,
    date_text,
    lead_values,
    open_source,
    select_forecast,
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

_MAX_VALUES_READ = 2**24  # at once, 128 MiB


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
    """Draw longitude against time, averaged over a band of latitudes: how waves travel in a forecast and in truth.

    Parameters
    ----------
    dataset
        One forecast, (init_time, lead_time, ...), or analyses along a time.
    truth
        Analyses to draw beside a forecast, with the difference. They need all grid points of the forecast.
    variable
        Required if there are several.
    latitudes
        South and north of the band, degrees; means are weighted by area.
    init
        Of a forecast; default the last one whose valid times the truth has.
    level
        Required if there are several.
    anomalies
        Whether to subtract the mean over longitudes at each time.
    cmap, limits
        As in `maps`.
    title, width
        Of the figure, in inches.
    ax
        Axes to draw into: one, or with a truth three.

    Returns
    -------
    Figure. Time runs downwards, valid times for a forecast; rows of missing times are gray. Colors as in `maps`.

    Raises
    ------
    ValueError
        If a variable, level, init or latitude is missing; if times do not increase; if truth lacks a valid time or a
        grid point of the forecast, or has other units; if an init comes with analyses; or as in `maps`.
    """
    check_colors(cmap, limits, [])
    refuse_settings_with_axes(ax, width)
    check_dataset(dataset, "dataset")
    is_forecast = "lead_time" in dataset.coords
    source = open_source(dataset, "forecast" if is_forecast else "dataset")
    name, level = choose_field(source, variable, level)
    band = _latitudes_of_band(source.axes.rows.values, latitudes)
    if is_forecast:
        sections, times, start = _forecast_sections(source, truth, name, level, init, band)
    else:
        sections, times = _analysis_section(source, truth, name, level, init, band)
    if anomalies:
        sections = [_subtract_zonal_mean(section) for section in sections]
    scales = [value_scale(*sections, cmap=cmap, limits=limits)] * len(sections)
    labels = [with_units(sections[0].attrs["label"], sections[0])] * len(sections)
    titles = ["Forecast", "Truth", "Forecast minus truth"] if is_forecast else [""]
    if truth is not None:
        difference = (sections[0] - sections[1]).assign_attrs(sections[0].attrs)
        sections.append(difference)
        scales.append(difference_scale(difference))
        labels.append(with_units("Difference", difference))

    width = (11.0 if truth is not None else 5.0) if width is None else width
    figure, panels, panel_widths = _create_panels(ax, len(sections), width)
    size = font_size(3 * width / len(sections))
    days = _days(times)
    for index, (panel, section) in enumerate(zip(panels, sections, strict=True)):
        _draw_section(panel, section, scales[index], days)
        _label_longitudes(panel, section, panel_widths[index] / (3.5 * size))
        _label_times(panel, times, days)
        panel.tick_params(labelsize=0.85 * size)
        if index:
            panel.tick_params(axis="y", labelleft=False)
        panel.set_title(titles[index], fontsize=size)
    panels[0].set_ylabel(_years_text(times), fontsize=0.9 * size)
    for panel, scale, label, panel_width in zip(panels, scales, labels, panel_widths, strict=True):
        label = textwrap.fill(label, max(12, int(panel_width / (0.5 * size))))
        bar = color_bar_below(figure, scale, [panel], label, 0.9 * size)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    if title is None and ax is None:
        title = " to ".join(f"{abs(degrees):g}°{'S' if degrees < 0 else 'N'}" for degrees in latitudes)
        title = f"From {start}, {title}" if is_forecast else title
    if title:
        figure.suptitle(title, fontsize=1.1 * size)
    return figure


def _create_panels(ax: object, count: int, width: float) -> tuple[Figure, list[Axes], list[float]]:
    """Return the figure, a panel for each section, new or the user's, and the widths of the panels in points."""
    if ax is None:
        figure = new_figure(width, 5.0 if count == 1 else 0.42 * width)
        panels = [figure.add_subplot(1, count, index + 1) for index in range(count)]
        return figure, panels, [72 * 0.85 * width / count] * count
    panels = check_axes(ax, count, "one" if count == 1 else "forecast, truth and difference")
    figure = figure_of(panels)
    return figure, panels, [72 * panel.bbox.width / figure.dpi for panel in panels]


def _subtract_zonal_mean(section: xr.DataArray) -> xr.DataArray:
    """Return a section minus its mean over longitudes, marked as an anomaly."""
    attrs = {**section.attrs, "anomaly": True}
    attrs["label"] = f"{attrs['label']}, anomaly from the zonal mean"
    return (section - section.mean("longitude")).assign_attrs(attrs)


def _latitudes_of_band(available: np.ndarray, latitudes: tuple[float, float]) -> np.ndarray:
    """Return the latitudes of the grid in a band; ValueError if there are none."""
    south, north = latitudes
    selected = available[(available >= south - 1e-3) & (available <= north + 1e-3)]
    if not selected.size:
        raise ValueError(
            f"latitudes={latitudes} has no grid point: the grid runs from {available.min():g} to "
            f"{available.max():g}. Give the south first: latitudes=(30, 60)"
        )
    return selected


def _forecast_sections(
    source: Source, truth: xr.Dataset | None, name: str, level: float | None, init: object, latitudes: np.ndarray
) -> tuple[list[xr.DataArray], np.ndarray, str]:
    """Return the sections of a forecast and of the truth if any, the valid times, and the initialization as text."""
    leads = choose_leads(source.dataset, lead_values(source.dataset)[0])
    selection = select_forecast(source, truth, [name], leads, init, latitudes)
    weights = _area_weights(source.axes.rows.values, latitudes)
    positions = {"init_time": selection.init, "lead_time": np.arange(len(leads))}
    forecast = selection.forecast.on_points(latitudes, source.axes.columns.values)
    sections = [_read_section(forecast, name, level, "lead_time", positions, weights)]
    if selection.truth is not None:
        time = selection.truth.axes.time
        positions = {time: np.array(selection.truth_positions)}
        section = _read_section(selection.truth, name, level, time, positions, weights)
        sections.append(section.assign_attrs(sections[0].attrs))
    sections = [prepare_field(section, level) for section in sections]
    return sections, selection.valid_times, selection.start_text


def _analysis_section(
    source: Source, truth: xr.Dataset | None, name: str, level: float | None, init: object, latitudes: np.ndarray
) -> tuple[list[xr.DataArray], np.ndarray]:
    """Return the section of analyses, and its times."""
    dims, time = tuple(source.dataset.dims), source.axes.time
    if truth is not None:
        raise ValueError(f"dataset has dimensions {dims} and no lead_time: truth needs a forecast. Omit truth.")
    if time is None or time not in dims:
        raise ValueError(f"dataset has dimensions {dims}: it must be a forecast or have a time.")
    if init is not None:
        raise ValueError(f"init={init!r} does not apply: dataset has no init_time. Omit init.")
    times = source.dataset[time].values
    if not len(times):
        raise ValueError(f"dataset has no {time}, its size is 0: the selection that made it matched nothing.")
    weights = _area_weights(source.axes.rows.values, latitudes)
    source = source.on_points(latitudes, source.axes.columns.values)
    section = _read_section(source, name, level, time, {time: np.arange(len(times))}, weights)
    return [prepare_field(section, level)], times


def _area_weights(available: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
    """Return the area weights of some latitudes of a grid."""
    degrees = xr.DataArray(available, {"latitude": available}, "latitude", name="latitude")
    return latitude_weights(degrees).sel(latitude=latitudes).values


def _read_section(
    source: Source, name: str, level: float | None, time: str, positions: dict, weights: np.ndarray
) -> xr.DataArray:
    """Return the mean over latitudes, dims (time, longitude).

    Missing values have no weight; a mean without values is NaN. Times are read in blocks.
    """
    axes = source.axes
    array = source.select(name, level, positions)
    if time not in array.dims:
        array = array.expand_dims(time)
    array = array.transpose(time, axes.latitude, axes.longitude)
    # whole rows of the file: most stores are slow to read scattered positions
    first_row = axes.rows.order.min()
    rows, columns = np.ix_(axes.rows.order - first_row, axes.columns.order)
    array = array.isel({axes.latitude: slice(first_row, axes.rows.order.max() + 1)})
    block_length = max(1, _MAX_VALUES_READ // (array.shape[1] * array.shape[2]))
    means = []
    for start in range(0, array.shape[0], block_length):
        block = array.isel({time: slice(start, start + block_length)}).values[:, rows, columns].astype(float)
        valid = np.isfinite(block)
        total = np.einsum("l,tlo->to", weights, np.where(valid, block, 0))
        weight = np.einsum("l,tlo->to", weights, valid.astype(float))
        means.append(np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan))
    coords = {"longitude": axes.columns.values}
    return xr.DataArray(np.concatenate(means), coords, ("time", "longitude"), name, array.attrs)


def _time_rows(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of rows of cells, and the row of each time; rows without a time are gaps.

    Edges lie midway between two times, and half a usual step from a time beside a gap.
    """
    if len(days) == 1:
        return days[0] + np.array([-0.5, 0.5]), np.array([0])
    steps = np.diff(days)
    usual = float(np.median(steps))
    edges = [days[0] - min(usual, steps[0]) / 2]
    rows = []
    for index, (day, step) in enumerate(zip(days, [*steps, min(usual, steps[-1])], strict=True)):
        rows.append(len(edges) - 1)
        if step <= 1.5 * usual:  # months are 28 to 31 days apart
            edges.append(day + step / 2)
        else:
            edges += [day + usual / 2, days[index + 1] - usual / 2]
    return np.array(edges), np.array(rows)


def _days(times: np.ndarray) -> np.ndarray:
    """Return times as days since 1970; ValueError if they do not increase."""
    if times.dtype.kind == "M":
        days = date2num(times)
    else:
        import cftime

        days = np.asarray(cftime.date2num(times, "days since 1970-01-01", times[0].calendar), dtype=float)
    if (wrong := np.flatnonzero(np.diff(days) <= 0)).size:
        earlier, later = (date_text(time, "%Y-%m-%d %H:%M UTC") for time in times[wrong[0] : wrong[0] + 2])
        raise ValueError(f"times must increase, but {later} follows {earlier}. Sort them and drop duplicates.")
    return days


def _draw_section(panel: Axes, section: xr.DataArray, scale: ScalarMappable, days: np.ndarray) -> None:
    """Draw the cells of a section, time downwards; missing values and times are gray."""
    time_edges, rows = _time_rows(days)
    longitudes, _ = longitude_edges(section)
    cells = np.full((len(time_edges) - 1, len(longitudes) - 1), np.nan)
    cells[rows] = section.values
    cells = np.ma.masked_invalid(cells)
    panel.set_facecolor("0.85")
    panel.pcolormesh(longitudes, time_edges, cells, norm=scale.norm, cmap=scale.cmap, rasterized=True)
    panel.set_ylim(time_edges[-1], time_edges[0])


def _label_longitudes(panel: Axes, section: xr.DataArray, max_labels: float) -> None:
    """Label round meridians, at most as many as fit."""
    west, east = longitude_edges(section)[0][[0, -1]]
    steps = (5, 10, 20, 30, 60, 90, 120, 180)
    step = next((step for step in steps if (east - west) / step <= max_labels), steps[-1])
    panel.xaxis.set_major_locator(MultipleLocator(step))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: degrees_text(value, "longitude")))


def _label_times(panel: Axes, times: np.ndarray, days: np.ndarray) -> None:
    """Label a time axis; `_years_text` supplies the year."""
    if times.dtype.kind == "M":
        locator = AutoDateLocator(minticks=3, maxticks=9)
        panel.yaxis.set_major_locator(locator)
        # of years, months, days, hours, minutes, seconds; and of January, the first, midnight ... among these
        formats = ["%Y", "%b", "%b %d", "%b %d, %H h", "%H:%M", "%H:%M:%S"]
        zero_formats = ["", "%Y", "%b", "%b %d", "%H:%M", "%H:%M"]
        panel.yaxis.set_major_formatter(
            ConciseDateFormatter(locator, formats=formats, zero_formats=zero_formats, show_offset=False)
        )
        return
    # matplotlib knows no other calendars
    format = "%Y-%m-%d %H"
    if len({time.strftime("%d %H") for time in times}) == 1 and len(times) > 1:
        format = "%Y-%m"
    elif len({time.strftime("%H") for time in times}) == 1:
        format = "%Y-%m-%d"
    ticks = np.arange(len(times))[:: -(-len(times) // 8)]
    panel.set_yticks(days[ticks], [time.strftime(format) for time in times[ticks]])


def _years_text(times: np.ndarray) -> str:
    """Return the first and the last year of a time axis; its ticks may lack the year."""
    first, last = (date_text(time, "%Y") for time in times[[0, -1]])
    return first if first == last else f"{first} to {last}"
