"""Draw forecasts, films of forecasts and skill on maps."""

import itertools
import os
import textwrap
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib import animation
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.progress import progress_bar
from simvp_climate.plot import selection
from simvp_climate.plot.colors import DIVERGING, check_colors, difference_scale, value_scale
from simvp_climate.plot.map_axes import add_color_bar, create_maps, draw_cells, fit_height, shown_latitudes, user_maps
from simvp_climate.plot.style import MAX_ROWS, font_size, units_of, with_units

_WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}
_MAX_DOT_COLUMNS = 60


def maps(
    forecast: xr.Dataset, truth: xr.Dataset | None = None, *, variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None, init: object | None = None,
    level: float | Sequence[float] | None = None, cmap: str | Colormap | None = None,
    limits: tuple[float, float] | None = None, projection: ccrs.Projection | None = None, title: str | None = None,
    width: float | None = None, ax: GeoAxes | Sequence[GeoAxes] | None = None,
) -> Figure:  # fmt: skip
    """Draw one forecast on maps, beside the truth at its valid time and their difference.

    Parameters
    ----------
    forecast
        Dataset with dims (init_time, lead_time, [level,] latitude, longitude) and the coordinate `valid_time`.
        Horizontal names, order and longitude range are free. init_time and lead_time may be scalars.
    truth
        Dataset with one time dimension and the variables, levels, units and grid points of the forecast, or more.
        None draws the forecast alone.
    variable
        A name or several; default all. Each variable, level and lead is one row of maps; without truth, one map.
    lead
        "3D", "12h" or a timedelta; a number where lead_time counts months; or a list of these. Default the last.
    init
        A time such as "2018-03-01T12". Default the last one whose valid times the truth has.
    level
        A value of the level coordinate or several; default all.
    cmap
        A matplotlib color map for forecast and truth, or its name. The default depends on the variable, see below.
    limits
        Smallest and largest value of the colors, in the units of the color bar; for a single variable and level.
    projection
        A cartopy projection. Default Robinson centered on Greenwich for the globe, longitude-latitude for a region.
        Maps of a pole, such as `cartopy.crs.NorthPolarStereo()`, show latitudes poleward of 20 degrees, and their RMSE
        covers these.
    title
        The line above all maps. Default the initialization and valid times; with `ax` these stand above each map.
    width
        Of the figure in inches; default 12, and 7 for a single map. Text shrinks with it.
    ax
        Maps to draw into, as many as are drawn, row by row:
        `plt.subplots(1, 3, subplot_kw={"projection": cartopy.crs.Robinson()})`. They exclude `projection` and `width`.

    Returns
    -------
    Figure. Forecasts and truths of a variable and level share colors at all leads, from percentile 1 to 99 of their
    values. They are centered on zero for winds and anomalies, and begin at zero, the lightest color, for precipitation.
    A field counts as an anomaly if its name says so, or if the variable cannot have its values, as in
    `forecast - climatology`. Precipitation in m is drawn in mm. Differences share colors symmetric about zero up to
    percentile 99 of their absolute values. The RMSE is area-weighted, over the cells where both have values. ValueError
    if `forecast` or `truth` is no Dataset; if a variable, level, lead or init is missing; if truth lacks the valid time
    or a grid point, or has other units; if another dimension, such as members, must be selected first; if `ax` has
    another count of maps, or comes with a width or a projection; if `limits` come with several fields.
    """
    source = selection.open_source(forecast, "forecast")
    fields, leads = selection.choose_fields(source, variable, level), selection.choose_leads(forecast, lead)
    rows = len(fields) * len(leads)
    if rows > MAX_ROWS:
        raise ValueError(f"{rows} rows of maps are more than {MAX_ROWS}: choose with variable=, level= or lead=")
    check_colors(cmap, limits, selection.field_texts(fields))
    count = rows * (1 if truth is None else 3)
    columns = min(3, count)
    panels = user_maps(ax, count, "maps" if truth is None else "forecast, truth and difference", projection, width)
    latitudes = shown_latitudes(source.axes.rows.values, projection, panels)
    names = list(dict.fromkeys(name for name, _ in fields))
    chosen = selection.select_forecast(source, truth, names, leads, init, latitudes)
    groups = [[chosen.read_maps(*field, index) for index in range(len(leads))] for field in fields]
    for row in itertools.chain(*groups) if truth is not None else ():
        row.append((row[0] - row[1]).assign_attrs(row[0].attrs))

    width = (12.0 if columns > 1 else 7.0) if width is None else width
    size, shape = font_size(3 * width / columns), (-(-count // columns), columns)
    figure, panels = create_maps(groups[0][0][0], shape, count, projection, width, size, panels)
    dated = ax is not None and title is None  # a figure of the user keeps its own title
    for index, group in enumerate(groups):
        group_panels = panels[index * count // len(groups) : (index + 1) * count // len(groups)]
        scale = value_scale(*(field for row in group for field in row[:2]), cmap=cmap, limits=limits)
        _write_titles(group_panels, group, chosen, dated, size)
        _draw_group(figure, group_panels, group, scale, columns if len(groups) == 1 else 1, size)
    if title is None and ax is None:
        times = f"From {chosen.start_text}, valid {' / '.join(chosen.valid_texts)}"
        title = textwrap.fill(times, int(12 * width))
    if title is not None:
        figure.suptitle(title, fontsize=1.15 * size)
    if ax is None:
        fit_height(figure, panels, shape[0])
    return figure


def _write_titles(
    panels: list[GeoAxes], rows: list[list[xr.DataArray]], chosen: selection.ForecastSelection, dated: bool, size: float
) -> None:
    """Write the titles of maps, with their dates if no title of the figure states them."""
    titles = []
    for row, lead, valid in zip(rows, chosen.leads, chosen.valid_texts, strict=True):
        titles.append(f"Forecast {lead}" + (f"\nfrom {chosen.start_text}" if dated else ""))
        if len(row) == 3:
            titles.append(f"Truth\n{valid}" if dated else "Truth")
            titles.append(f"Forecast minus truth, RMSE {_rmse_text(row[2])}")
        elif dated:
            titles[-1] += f"\nvalid {valid}"
    for panel, text in zip(panels, titles, strict=True):
        panel.set_title(text, fontsize=size)


def _draw_group(
    figure: Figure, panels: list[GeoAxes], rows: list[list[xr.DataArray]], scale: ScalarMappable, columns: int,
    size: float,
) -> None:  # fmt: skip
    """Draw the fields of a variable at all leads, and their color bars: without a truth one, or one for each map."""
    values = [field for row in rows for field in row[:2]]
    differences = [row[2] for row in rows if len(row) == 3]
    scales = [scale, scale, difference_scale(*differences)] if differences else [scale]
    for panel, field, map_scale in zip(panels, itertools.chain(*rows), itertools.cycle(scales)):
        draw_cells(panel, field, map_scale)
    # if the forecast is an anomaly at any lead, the color bar has that label
    labeled = next((row[0] for row in rows if row[0].attrs["anomaly"]), values[0])
    label = textwrap.fill(with_units(labeled.attrs["label"], labeled), 60 if differences else 40)
    if differences:
        value_panels = [panel for index, panel in enumerate(panels) if index % 3 < 2]
        add_color_bar(figure, scale, value_panels, label, values, size, 2)
        label = with_units("Difference", differences[0])
        add_color_bar(figure, scales[2], panels[2::3], label, differences, size, 1)
        return
    for bar_panels in [panels] if columns > 1 else [[panel] for panel in panels]:
        add_color_bar(figure, scale, bar_panels, label, values, size, columns)


def _rmse_text(difference: xr.DataArray) -> str:
    """Return the area-weighted RMSE with its units, "-" where no cell has a difference."""
    if not np.isfinite(difference).any():
        return "-"
    squares = (difference**2).weighted(latitude_weights(difference["latitude"])).mean()
    return f"{float(np.sqrt(squares)):.3g} {units_of(difference)}".strip()


def animate(
    forecast: xr.Dataset, truth: xr.Dataset | None = None, *, variable: str | None = None, init: object | None = None,
    level: float | None = None, lead: str | timedelta | np.timedelta64 | list | None = None,
    cmap: str | Colormap | None = None, limits: tuple[float, float] | None = None,
    projection: ccrs.Projection | None = None, path: str | os.PathLike | None = None, frames_per_second: float = 4.0,
    width: float | None = None, ax: GeoAxes | Sequence[GeoAxes] | None = None, progress: bool = True,
) -> animation.FuncAnimation:  # fmt: skip
    """Animate one forecast, beside the truth if any, with a frame for each lead.

    Parameters
    ----------
    forecast, truth, init, cmap, limits, projection, width, ax
        As in `maps`; `ax` are one map, or with a truth two.
    variable, level
        Required if there are several.
    lead
        Some of the leads; default all.
    path
        "film.gif", or "film.mp4" if ffmpeg is installed. The file gets a temporary name until it is complete. None
        writes no file; `HTML(animation.to_jshtml())` shows the film in a notebook.
    frames_per_second
        Greater than 0.
    progress
        Whether to show a progress bar while the file is written.

    Returns
    -------
    matplotlib.animation.FuncAnimation. All frames share one color scale. ValueError as in `maps`; if several fields
    remain; if `path` has another suffix, or ffmpeg is missing.
    """
    check_colors(cmap, limits, [])
    if not frames_per_second > 0:
        raise ValueError(f"frames_per_second={frames_per_second!r} must be greater than 0")
    writer = None if path is None else _choose_writer(Path(path))
    source = selection.open_source(forecast, "forecast")
    name, level = selection.choose_field(source, variable, level)
    leads = selection.choose_leads(forecast, selection.lead_values(forecast)[0] if lead is None else lead)
    columns = 1 if truth is None else 2
    panels = user_maps(ax, columns, "forecast and truth", projection, width)
    latitudes = shown_latitudes(source.axes.rows.values, projection, panels)
    chosen = selection.select_forecast(source, truth, [name], leads, init, latitudes)
    # one scale for all frames, from the first, the middle and the last
    last = len(leads) - 1
    frames = sorted({0, (last + 1) // 2, last})
    sample = [field for frame in frames for field in chosen.read_maps(name, level, frame)]
    scale = value_scale(*sample, cmap=cmap, limits=limits)
    width = (10.0 if columns > 1 else 6.5) if width is None else width
    size = font_size(3 * width / columns)
    figure, panels = create_maps(sample[0], (1, columns), columns, projection, width, size, panels)
    artists: list = []

    def draw(frame: int) -> list:
        while artists:
            artists.pop().remove()
        titles = (f"Forecast {chosen.leads[frame]}", "Truth")
        for panel, field, title in zip(panels, chosen.read_maps(name, level, frame), titles, strict=False):
            artists.extend(draw_cells(panel, field, scale))
            panel.set_title(title, fontsize=size)
        figure.suptitle(f"Valid {chosen.valid_texts[frame]}", fontsize=1.1 * size)
        return artists

    draw(0)
    add_color_bar(figure, scale, panels, with_units(sample[0].attrs["label"], sample[0]), sample, size, columns)
    if ax is None:
        fit_height(figure, panels, 1)
        figure.set_layout_engine("none")  # the frames must not move
    film = animation.FuncAnimation(figure, draw, frames=len(leads), interval=1000 / frames_per_second, repeat=True)
    if path is not None:
        with progress_bar(len(leads), "frames", Path(path).name, shown=progress) as bar:
            options = {"writer": writer, "fps": frames_per_second, "progress_callback": lambda *_: bar.update()}
            write_atomically(Path(path), partial(film.save, **options))
    return film


def _choose_writer(path: Path) -> str:
    """Return the matplotlib writer for the suffix of a file; ValueError if there is none."""
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"path={str(path)!r} must end in .gif or .mp4.")
    if not animation.writers.is_available(writer):
        raise ValueError(f"{path.name} requires {writer}, which is not installed: install it, or write a .gif")
    check_parent(path)
    return writer


def skill_map(
    skill: xr.Dataset, *, variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None, level: float | None = None,
    projection: ccrs.Projection | None = None, title: str | None = None, width: float | None = None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
) -> Figure:  # fmt: skip
    """Draw where a forecast is better than a baseline, with dots where the skill is significant.

    Parameters
    ----------
    skill
        Output of `simvp_climate.metrics.skill_map`.
    variable, lead
        One or several; default all variables, at the last lead. Variables are rows of maps, leads are columns.
    level
        Required if there are several.
    projection, title, width, ax
        As in `maps`.

    Returns
    -------
    Figure. Colors from -1 to 1, red where the baseline is better and blue where the forecast is; dots in significant
    cells, with more than 60 columns in every second row and column. Title and color bar name the baseline, the verified
    times and the number of blocks, if the attributes of the skill do. ValueError if a variable, lead or level is
    missing; if a level is given but no variable has levels; or as in `maps`.
    """
    source = selection.open_source(skill, "skill")
    available = [str(name) for name in skill.data_vars if f"{name}_significant" in skill]
    if not available:
        raise ValueError(f"skill has {list(skill.data_vars)}: pass the output of sc.metrics.skill_map.")
    names = selection.choose_names(variable, available, "variable", "skill")
    fields = selection.choose_fields(source, names, level)
    if len(fields) > len(names):
        name, value = next(field for field in fields if field[1] is not None)
        raise ValueError(f"skill has several levels of {name!r}, but one is drawn. Choose one: level={value}")
    leads = selection.choose_leads(skill, lead)
    columns, count = len(leads), len(names) * len(leads)
    panels = user_maps(ax, count, "variables times leads", projection, width)
    latitudes = shown_latitudes(source.axes.rows.values, projection, panels)
    source = source.on_points(latitudes, source.axes.columns.values)
    width = (12.0 if columns > 1 else 7.0) if width is None else width
    size = font_size(3 * width / max(columns, 2))

    maps = [(name, value, position, text) for name, value in fields for position, text in leads]
    skills = [source.read(name, value, position) for name, value, position, _ in maps]
    figure, panels = create_maps(skills[0], (len(names), columns), count, projection, width, size, panels)
    scale = ScalarMappable(Normalize(-1.0, 1.0), DIVERGING.removesuffix("_r"))  # blue is better
    for panel, field, (name, value, position, text) in zip(panels, skills, maps, strict=True):
        draw_cells(panel, field, scale)
        _draw_dots(panel, source.read(f"{name}_significant", value, position), 0.12 * size)
        panel.set_title(f"{name}, {text}", fontsize=size)
    baseline = skill.attrs.get("baseline", "the baseline")
    add_color_bar(figure, scale, panels, f"Skill, 1 - MSE / MSE of {baseline}", skills, size, columns)
    if title is None and ax is None:
        title = _verification_text(skill.attrs)
    if title is not None:
        figure.suptitle(textwrap.fill(title, int(12 * width)), fontsize=1.15 * size)
    if ax is None:
        fit_height(figure, panels, len(names))
    return figure


def _draw_dots(panel: GeoAxes, significant: xr.DataArray, size: float) -> None:
    """Draw a dot in each significant cell, on fine grids of every second row and column."""
    if significant.sizes["longitude"] > _MAX_DOT_COLUMNS:
        significant = significant.isel(latitude=slice(None, None, 2), longitude=slice(None, None, 2))
    row, column = np.nonzero(significant.values)
    longitude, latitude = significant["longitude"].values[column], significant["latitude"].values[row]
    panel.scatter(longitude, latitude, s=size, color="0.1", linewidths=0, transform=ccrs.PlateCarree())


def _verification_text(attrs: dict) -> str:
    """Return the baseline, the verified times and the blocks that the attributes of skill name."""
    parts = [f"Against {attrs['baseline']}"] if "baseline" in attrs else []
    if "verified_start" in attrs and "verified_end" in attrs:
        parts.append(f"verified {attrs['verified_start']!s:.10} to {attrs['verified_end']!s:.10}")
    return ", ".join([*parts, *([str(attrs["blocks"])] if "blocks" in attrs else [])])
