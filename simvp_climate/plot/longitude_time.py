"""Draw longitude-time sections (Hovmoller diagrams)."""

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from simvp_climate.data.display_units import requested_units
from simvp_climate.data.grid import TOLERANCE, latitude_weights
from simvp_climate.plot import selection, style
from simvp_climate.plot.colors import (
    check_colors,
    difference_of,
    difference_scale,
    has_usual_values,
    prepare_field,
    value_scale,
)
from simvp_climate.plot.map_axes import degrees_text, longitude_edges
from simvp_climate.plot.time_axis import days_since_1970, label_times

_MAX_VALUES_READ = 2**24  # at once, 128 MiB


def hovmoller(
    dataset: xr.Dataset, truth: xr.Dataset | None = None, *, variable: str | None = None,
    latitudes: tuple[float, float] = (-90, 90), init: object | None = None, level: float | None = None,
    units: str | None = None, anomalies: bool = False, cmap: str | Colormap | None = None,
    limits: tuple[float, float] | None = None, title: str | None = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
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
    units, cmap, limits, title, width, ax
        As in `maps`; `ax` are one, or with a truth three.

    Returns
    -------
    Figure. Time runs downwards, valid times for a forecast; rows of missing times are gray. Colors as in `maps`.
    ValueError if a variable, level, init or latitude is missing; if times do not increase; if truth lacks a valid time
    or a grid point of the forecast, or has other units; if an init comes with analyses; or as in `maps`.
    """
    check_colors(cmap, limits, [])
    style.refuse_settings_with_axes(ax, width)
    is_forecast = "lead_time" in getattr(dataset, "coords", ())
    source = selection.open_source(dataset, "forecast" if is_forecast else "dataset")
    name, level = selection.choose_field(source, variable, level)
    band = _latitudes_of_band(source.axes.rows.values, latitudes)
    sections, times, start = _read_longitude_time_sections(source, truth, name, level, init, band)
    unit = requested_units(units, [name]).get(name)
    usual = has_usual_values(sections[-1], level)
    sections = [prepare_field(section, level, unit, usual=usual) for section in sections]
    if anomalies:
        sections = [_subtract_zonal_mean(section) for section in sections]
    scales = [value_scale(*sections, cmap=cmap, limits=limits)] * len(sections)
    labels = [style.with_units(sections[0].attrs["label"], sections[0])] * len(sections)
    titles = ["Forecast", "Truth", "Forecast minus truth"] if is_forecast else [""]
    if truth is not None:
        difference = difference_of(*sections)
        sections.append(difference)
        scales.append(difference_scale(difference))
        labels.append(style.with_units("Difference", difference))

    width = (11.0 if truth is not None else 5.0) if width is None else width
    count = len(sections)
    contents = "one" if count == 1 else "forecast, truth and difference"
    panels = style.panel_axes(ax, count, contents, count, (width, 5.0 if count == 1 else 0.42 * width))
    figure, size, days = style.figure_of(panels), style.font_size(3 * width / count), days_since_1970(times)
    points = [72 * (0.85 * width / count if ax is None else panel.bbox.width / figure.dpi) for panel in panels]
    for index, (panel, section, scale) in enumerate(zip(panels, sections, scales, strict=True)):
        _draw_section(panel, section, scale, days, points[index] / (3.5 * size))
        label_times(panel.yaxis, times, days, 9)
        panel.tick_params(labelsize=0.85 * size)
        if index:
            panel.tick_params(axis="y", labelleft=False)
        panel.set_title(titles[index], fontsize=size)
    first, last = (selection.date_text(time, "%Y") for time in times[[0, -1]])  # ticks may lack the year
    panels[0].set_ylabel(first if first == last else f"{first} to {last}", fontsize=0.9 * size)
    for panel, scale, label, letters in zip(panels, scales, labels, np.array(points) / (0.5 * size), strict=True):
        bar = style.color_bar_below(figure, scale, [panel], textwrap.fill(label, max(12, int(letters))), 0.9 * size)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    if title is None and ax is None:
        title = " to ".join(f"{abs(degrees):g}°{'S' if degrees < 0 else 'N'}" for degrees in latitudes)
        title = f"From {start}, {title}" if is_forecast else title
    if title:
        figure.suptitle(title, fontsize=1.1 * size)
    return figure


def _subtract_zonal_mean(section: xr.DataArray) -> xr.DataArray:
    """Return a section minus its mean over longitudes, marked as an anomaly."""
    attrs = {**section.attrs, "anomaly": True}
    if "units" in attrs:
        attrs["units"] = attrs["error_units"]
    attrs["label"] = f"{attrs['label']}, anomaly from the zonal mean"
    return (section - section.mean("longitude")).assign_attrs(attrs)


def _latitudes_of_band(available: np.ndarray, latitudes: tuple[float, float]) -> np.ndarray:
    """Return the latitudes of the grid in a band; ValueError if there are none."""
    south, north = latitudes
    selected = available[(available >= south - TOLERANCE) & (available <= north + TOLERANCE)]
    if not selected.size:
        extent = f"the grid runs from {available[0]:g} to {available[-1]:g}"
        raise ValueError(f"latitudes={latitudes} has no grid point: {extent}. Give the south first: latitudes=(30, 60)")
    return selected


def _read_longitude_time_sections(
    source: selection.Source, truth: xr.Dataset | None, name: str, level: float | None, init: object, band: np.ndarray
) -> tuple[list[xr.DataArray], np.ndarray, str]:
    """Return the sections of a forecast and its truth, or of analyses, their times, and the initialization as text."""
    if source.role == "forecast":
        leads = selection.choose_leads(source.dataset, selection.lead_values(source.dataset)[0])
        chosen = selection.select_forecast(source, truth, [name], leads, init, band)
        sources, times, start = chosen.sources, chosen.valid_times, chosen.start_text
    else:
        dims, time = tuple(source.dataset.dims), source.axes.time
        if truth is not None:
            raise ValueError(f"dataset has dimensions {dims} and no lead_time: truth needs a forecast. Omit truth.")
        if time is None or time not in dims:
            raise ValueError(f"dataset has dimensions {dims}: it must be a forecast or have a time.")
        if init is not None:
            raise ValueError(f"init={init!r} does not apply: dataset has no init_time. Omit init.")
        times, start = source.dataset[time].values, ""
        if not len(times):
            raise ValueError(f"dataset has no {time}, its size is 0: the selection that made it matched nothing.")
        sources = [source.on_points(band, source.axes.columns.values)]
    grid_latitudes = source.axes.rows.values
    sections = [_read_longitude_time_section(of_band, name, level, times, grid_latitudes) for of_band in sources]
    return [section.assign_attrs(sections[0].attrs) for section in sections], times, start


def _read_longitude_time_section(
    source: selection.Source, name: str, level: float | None, times: np.ndarray, grid_latitudes: np.ndarray
) -> xr.DataArray:
    """Return the mean over latitudes, weighted by area, dims (time, longitude); missing values have no weight."""
    weights = latitude_weights(xr.DataArray(grid_latitudes, {"latitude": grid_latitudes}, name="latitude"))
    weights = weights.sel(latitude=source.axes.rows.values)
    sizes = source.dataset.sizes
    length = max(1, _MAX_VALUES_READ // (sizes[source.axes.latitude] * sizes[source.axes.longitude]))
    means = []
    for start in range(0, len(times), length):
        block = source.read(name, level, slice(start, start + length))
        means.append(block.where(np.isfinite(block)).weighted(weights).mean("latitude"))
    values = np.concatenate([np.atleast_2d(mean.values) for mean in means])
    return xr.DataArray(values, {"longitude": block["longitude"]}, ("time", "longitude"), name, block.attrs)


def _time_rows(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of rows of cells, midway between times, and the row of each time; the other rows are gaps."""
    if len(days) == 1:
        return days[0] + np.array([-0.5, 0.5]), np.array([0])
    steps = np.diff(days)
    usual = float(np.median(steps))
    after = np.append(steps, min(usual, steps[-1]))
    is_gap = after > 1.5 * usual  # months are 28 to 31 days apart
    upper = days + np.where(is_gap, usual, after) / 2
    gap_ends = days[1:][is_gap[:-1]] - usual / 2
    rows = np.arange(len(days)) + np.cumsum(is_gap) - is_gap
    return np.sort(np.concatenate([[days[0] - min(usual, steps[0]) / 2], upper, gap_ends])), rows


def _draw_section(
    panel: Axes, section: xr.DataArray, scale: ScalarMappable, days: np.ndarray, max_labels: float
) -> None:
    """Draw the cells of a section, time downwards, and label round meridians; missing values and times are gray."""
    time_edges, rows = _time_rows(days)
    longitudes, _ = longitude_edges(section["longitude"].values)
    cells = np.full((len(time_edges) - 1, len(longitudes) - 1), np.nan)
    cells[rows] = section.values
    panel.set_facecolor("0.85")
    options = dict(norm=scale.norm, cmap=scale.cmap, rasterized=True)
    panel.pcolormesh(longitudes, time_edges, np.ma.masked_invalid(cells), **options)
    panel.set_ylim(time_edges[-1], time_edges[0])
    steps = (5, 10, 20, 30, 60, 90, 120, 180)
    step = next((step for step in steps if (longitudes[-1] - longitudes[0]) / step <= max_labels), steps[-1])
    panel.xaxis.set_major_locator(MultipleLocator(step))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: degrees_text(value, "longitude")))
