"""Sections through time: longitude against time."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from simvp_climate.data.conventions import find_axes, rename
from simvp_climate.grid import closes_longitude, latitude_weights
from simvp_climate.plot.choices import check_same_units, choose_init, date_text, field_at, lead_values, values_of
from simvp_climate.plot.geography import colors_of, edges_of, symmetric_range
from simvp_climate.plot.style import DIVERGING, figure_of, font_size, given_panels, labeled, new_figure


def hovmoller(
    dataset: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    variable: str | None = None,
    latitudes: tuple[float, float] = (-90, 90),
    init: object | None = None,
    level: float | None = None,
    anomalies: bool = False,
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
        Analyses to draw beside a forecast, with the difference.
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
    title, width
        Of the figure, in inches.
    ax
        Axes of your own: one, or with a truth three.

    Returns
    -------
    Figure. Time runs downwards.

    Raises
    ------
    ValueError
        If a variable, level, init or latitude is not there, or truth lacks a valid time.
    """
    names = [str(name) for name in dataset.data_vars]
    if variable is None:
        if len(names) > 1:
            raise ValueError(f"there are {names}: choose one, variable={names[0]!r}")
        variable = names[0]
    axes = find_axes(dataset)
    is_forecast = "lead_time" in dataset.dims
    if truth is not None and not is_forecast:
        raise ValueError(f"the first dataset has {tuple(dataset.dims)} and no lead_time: truth goes beside a forecast")
    if is_forecast:
        leads, months = lead_values(dataset)
        numbers = [(at, str(lead)) for at, lead in enumerate(leads)]
        times_of_truth = None
        if truth is not None:
            if variable not in truth:
                truth = rename(truth, [variable])
            check_same_units(dataset, truth, variable)
            truth_axes = find_axes(truth)
            times_of_truth = truth[truth_axes.time].values
        at_init, times, places = choose_init(dataset, init, numbers, times_of_truth)
        where = [{"init_time": at_init, "lead_time": at} for at, _ in numbers]
        start = date_text(values_of(dataset, "init_time")[at_init], "%Y-%m" if months else "%Y-%m-%d %H:%M UTC")
        heading = f"From {start}"
    else:
        if axes.time is None:
            raise ValueError(f"dataset has {tuple(dataset.dims)}: neither a forecast nor a time")
        times = list(dataset[axes.time].values)
        where = [{axes.time: at} for at in range(len(times))]
        heading = ""
    if level is None and axes.level in dataset[variable].dims:
        found = dataset[axes.level].values
        if len(found) > 1:
            raise ValueError(f"{variable} has the levels {found}: choose one, level={found[0]:g}")
        level = found[0]

    def section(source: xr.Dataset, own_axes: object, at: list[dict], role: str) -> xr.DataArray:
        rows = [field_at(source, variable, own_axes, level, place, role) for place in at]
        south, north = latitudes
        inside = (rows[0]["latitude"] >= south - 1e-3) & (rows[0]["latitude"] <= north + 1e-3)
        if not inside.any():
            raise ValueError(f"no latitude lies in {latitudes}: they run from {float(rows[0].latitude.min()):g} to "
                             f"{float(rows[0].latitude.max()):g}")  # fmt: skip
        weight = latitude_weights(rows[0]["latitude"]).where(inside, 0)
        means = [row.weighted(weight).mean("latitude") for row in rows]
        found = xr.concat(means, "time", coords="minimal", compat="override").assign_attrs(rows[0].attrs)
        if anomalies:
            attrs = found.attrs
            found = (found - found.mean("longitude")).assign_attrs(
                {**attrs, "long_name": f"{attrs['what']}, anomaly from the zonal mean"}
            )
        return found.rename(variable)

    fields = [section(dataset, axes, where, "forecast" if is_forecast else "dataset")]
    titles = ["Forecast" if is_forecast else ""]
    if truth is not None:
        fields.append(section(truth, truth_axes, [{truth_axes.time: at} for at in places], "truth"))
        fields[1] = fields[1].assign_coords(longitude=fields[0]["longitude"])
        fields.append((fields[0] - fields[1]).assign_attrs(fields[0].attrs))
        titles += ["Truth", "Forecast minus truth"]
    given = None if ax is None else given_panels(ax, len(fields), "forecast, truth and difference" if truth else "one")
    width = (11.0 if len(fields) > 1 else 5.0) if width is None else width
    size = font_size(3 * width / len(fields))
    figure = new_figure(width, 5.0 if len(fields) == 1 else 0.42 * width) if given is None else figure_of(given)
    colors, scale = colors_of(*fields[:2])
    label = labeled(fields[0].attrs["what"], fields[0])
    positions, bars = np.arange(len(times)), []
    for number, (field, text) in enumerate(zip(fields, titles, strict=True)):
        panel = figure.add_subplot(1, len(fields), number + 1) if given is None else given[number]
        own = (DIVERGING, symmetric_range(field)) if number == 2 else (colors, scale)
        edges = edges_of(field["longitude"].values)
        if closes_longitude(field["longitude"].values):
            edges[-1] = edges[0] + 360
        mesh = ScalarMappable(Normalize(*own[1]), own[0])
        cells = np.ma.masked_invalid(field.transpose("time", "longitude").values)
        panel.set_facecolor("0.85")
        panel.pcolormesh(edges, edges_of(positions.astype(float)), cells, norm=mesh.norm, cmap=own[0], rasterized=True)
        panel.set_ylim(len(times) - 0.5, -0.5)
        ticks = positions[:: max(1, len(times) // 8)]
        months = len(times) > 1 and date_text(times[0], "%d%H") == date_text(times[-1], "%d%H")
        form = "%Y-%m" if months else "%m-%d %H"
        panel.set_yticks(ticks, [date_text(times[at], form) for at in ticks] if number == 0 else [])
        panel.xaxis.set_major_locator(MultipleLocator(60 if edges[-1] - edges[0] > 180 else 20))
        panel.xaxis.set_major_formatter(FuncFormatter(_degrees))
        panel.tick_params(labelsize=0.85 * size)
        panel.set_title(text, fontsize=size)
        bars.append((mesh, panel, labeled("Difference", field) if number == 2 else label))
    for mesh, panel, words in bars:  # last, so that the panels come first in the figure
        bar = figure.colorbar(mesh, ax=panel, location="bottom", aspect=30, pad=0.02)
        bar.set_label(words, fontsize=0.9 * size)
        bar.ax.tick_params(labelsize=0.85 * size)
    south, north = latitudes
    if title is None and given is None:
        band = f"{abs(south):g}°{'S' if south < 0 else 'N'} to {abs(north):g}°{'S' if north < 0 else 'N'}"
        title = f"{heading}, {band}" if heading else band
    if title:
        figure.suptitle(title, fontsize=1.1 * size)
    return figure


def _degrees(value: float, _: object) -> str:
    east = (value + 180) % 360 - 180
    return f"{abs(east):g}°{'' if east in (0, -180) else 'E' if east > 0 else 'W'}"
