"""A forecast in motion."""

import os
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib import animation
from matplotlib.colors import Colormap

from simvp_climate.data.conventions import rename
from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.grid import find_axes
from simvp_climate.data.progress import tqdm
from simvp_climate.plot.colors import check_colors, colors_of
from simvp_climate.plot.map_axes import beyond_edge, check_projection, color_bar, draw_cells, fit_height, map_panels
from simvp_climate.plot.selection import (
    at_points_of,
    check_dataset,
    choose_init,
    choose_leads,
    choose_rows,
    date_text,
    field_at,
    in_same_units,
    lead_values,
    time_values,
)
from simvp_climate.plot.style import check_axes, figure_of, font_size, new_figure, refuse_settings_with_axes, with_units

_WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}


def animate(
    forecast: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    variable: str | None = None,
    init: object | None = None,
    level: float | None = None,
    lead: str | timedelta | np.timedelta64 | list | None = None,
    cmap: str | Colormap | None = None,
    limits: tuple[float, float] | None = None,
    projection: ccrs.Projection | None = None,
    to: str | os.PathLike | None = None,
    frames_per_second: float = 4.0,
    width: float | None = None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
    progress: bool = True,
) -> animation.FuncAnimation:
    """Make a film of one forecast, beside the truth where it is given: a frame for each lead.

    Parameters
    ----------
    forecast, truth, init, cmap, limits, projection
        As in `maps`.
    variable, level
        Needed where there are several.
    lead
        Some of the leads; default all.
    to
        "film.gif", or "film.mp4" where ffmpeg is installed. Written under a temporary name and renamed. None: nothing
        is written; `HTML(animation.to_jshtml())` shows it in a notebook.
    frames_per_second
        Greater than 0.
    width
        Of the figure in inches.
    ax
        Maps of your own to draw into: one, or with a truth two.
    progress
        Whether a bar shows how far the writing is.

    Returns
    -------
    matplotlib.animation.FuncAnimation

    Raises
    ------
    ValueError
        As in `maps`; if the name ends otherwise, or ffmpeg is not there.
    """
    check_dataset(forecast, "forecast")
    check_projection(projection)
    check_colors(cmap, limits, [])
    refuse_settings_with_axes(ax, width, projection)
    if not frames_per_second > 0:
        raise ValueError(f"frames_per_second={frames_per_second!r} must be greater than 0")
    writer = None if to is None else _writer(Path(to))
    axes = find_axes(forecast)
    rows = choose_rows(forecast, axes.level, variable, level)
    if len(rows) > 1:
        raise ValueError(
            f"a film shows one field, and there are {[name for name, _ in rows]}: say variable= and level="
        )
    name, value = rows[0]
    every = [np.timedelta64(one) if one.dtype.kind == "m" else one for one in lead_values(forecast)[0]]
    leads = choose_leads(forecast, every if lead is None else lead)
    times = None
    if truth is not None:
        check_dataset(truth, "truth")
        if name not in truth:
            truth = rename(truth, [name])
        forecast, truth = in_same_units(forecast, truth, name)
        truth_axes = find_axes(truth)
        times = time_values(truth, truth_axes.time)
    at_init, valid, places = choose_init(forecast, init, leads, times)

    on = projection if ax is None else getattr(np.asarray(ax, dtype=object).ravel()[0], "projection", None)

    def fields_of(number: int) -> list[xr.DataArray]:
        at = {"init_time": at_init, "lead_time": leads[number][0]}
        found = [beyond_edge(field_at(forecast, name, axes, value, at, "forecast"), on)]
        if truth is not None:
            own = field_at(truth, name, truth_axes, value, {truth_axes.time: places[number]}, "truth")
            found.append(at_points_of(found[0], own))
        return found

    first = fields_of(0)
    # one scale for all frames, from the first, the middle and the last
    sample = [field for number in sorted({0, len(leads) // 2, len(leads) - 1}) for field in fields_of(number)]
    colors, scale = colors_of(*sample, cmap=cmap, limits=limits)
    columns = len(first)
    width = (10.0 if columns > 1 else 6.5) if width is None else width
    size = font_size(3 * width / columns)
    given = None if ax is None else check_axes(ax, columns, "forecast and truth")
    figure = new_figure(width) if given is None else figure_of(given)
    panels = map_panels(figure, first[0], projection, (1, columns), columns, size, given)
    label = with_units(first[0].attrs["what"], first[0])
    calendar = "%Y-%m" if "month" in leads[0][1] else "%Y-%m-%d %H:%M UTC"
    drawn: list = []

    def draw(number: int) -> list:
        for mesh in drawn:
            mesh.remove()
        drawn.clear()
        for panel, field, role in zip(panels, fields_of(number), ("Forecast", "Truth"), strict=False):
            before = set(panel.collections)
            mesh = draw_cells(panel, field, scale, colors)
            drawn.extend(one for one in panel.collections if one not in before)
            text = f"{role} {leads[number][1]}" if role == "Forecast" else role
            panel.set_title(text, fontsize=size)
        figure.suptitle(f"Valid {date_text(valid[number], calendar)}", fontsize=1.1 * size)
        return [mesh]

    (mesh,) = draw(0)
    color_bar(figure, mesh, panels, label, sample, size, columns)
    if given is None:
        fit_height(figure, panels, 1)
        figure.set_layout_engine("none")  # the frames must not move
    film = animation.FuncAnimation(figure, draw, frames=len(leads), interval=1000 / frames_per_second, repeat=True)
    if to is not None:
        to = Path(to)
        with tqdm(total=len(leads), unit="frames", desc=to.name, disable=not progress) as bar:
            options = {"writer": writer, "fps": frames_per_second, "progress_callback": lambda *_: bar.update()}
            write_atomically(to, partial(film.save, **options))
    return film


def _writer(to: Path) -> str:
    if to.suffix.lower() not in _WRITERS:
        raise ValueError(f"to={str(to)!r}: the name of a film ends in .gif or .mp4")
    writer = _WRITERS[to.suffix.lower()]
    if not animation.writers.is_available(writer):
        raise ValueError(f"{to.name} takes {writer}, which is not installed: install it, or write a .gif")
    check_parent(to)
    return writer
