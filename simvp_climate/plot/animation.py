"""Animate a forecast on maps."""

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

from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.progress import tqdm
from simvp_climate.plot.colors import check_colors, value_scale
from simvp_climate.plot.map_axes import (
    add_color_bar,
    check_projection,
    create_maps,
    draw_cells,
    fit_height,
    shown_latitudes,
    user_maps,
)
from simvp_climate.plot.selection import (
    ForecastSelection,
    choose_field,
    choose_leads,
    lead_values,
    open_source,
    select_forecast,
)
from simvp_climate.plot.style import font_size, refuse_settings_with_axes, with_units

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
    path: str | os.PathLike | None = None,
    frames_per_second: float = 4.0,
    width: float | None = None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
    progress: bool = True,
) -> animation.FuncAnimation:
    """Animate one forecast, beside the truth if any, with a frame for each lead.

    Parameters
    ----------
    forecast, truth, init, cmap, limits, projection
        As in `maps`.
    variable, level
        Required if there are several.
    lead
        Some of the leads; default all.
    path
        "film.gif", or "film.mp4" if ffmpeg is installed. The file gets a temporary name until it is complete. None
        writes no file; `HTML(animation.to_jshtml())` shows the film in a notebook.
    frames_per_second
        Greater than 0.
    width
        Of the figure in inches.
    ax
        Maps to draw into: one, or with a truth two.
    progress
        Whether to show a progress bar while the file is written.

    Returns
    -------
    matplotlib.animation.FuncAnimation. All frames share one color scale.

    Raises
    ------
    ValueError
        As in `maps`; if several fields remain; if `path` has another suffix, or ffmpeg is missing.
    """
    check_projection(projection)
    check_colors(cmap, limits, [])
    refuse_settings_with_axes(ax, width, projection)
    if not frames_per_second > 0:
        raise ValueError(f"frames_per_second={frames_per_second!r} must be greater than 0")
    writer = None if path is None else _choose_writer(Path(path))
    source = open_source(forecast, "forecast")
    name, level = choose_field(source, variable, level)
    leads = choose_leads(forecast, lead_values(forecast)[0] if lead is None else lead)
    columns = 1 if truth is None else 2
    panels = user_maps(ax, columns, "forecast and truth")
    latitudes = shown_latitudes(source.axes.rows.values, projection if panels is None else panels[0].projection)
    selection = select_forecast(source, truth, [name], leads, init, latitudes)
    sample = _sample_fields(selection, name, level)  # one scale for all frames
    scale = value_scale(*sample, cmap=cmap, limits=limits)
    width = (10.0 if columns > 1 else 6.5) if width is None else width
    size = font_size(3 * width / columns)
    figure, panels = create_maps(
        sample[0], (1, columns), columns, projection=projection, width=width, size=size, panels=panels
    )
    artists: list = []

    def draw(frame: int) -> list:
        while artists:
            artists.pop().remove()
        titles = (f"Forecast {leads[frame][1]}", "Truth")
        for panel, field, title in zip(panels, selection.read_maps(name, level, frame), titles, strict=False):
            previous = set(panel.collections)
            draw_cells(panel, field, scale)
            artists.extend(artist for artist in panel.collections if artist not in previous)
            panel.set_title(title, fontsize=size)
        figure.suptitle(f"Valid {selection.valid_texts[frame]}", fontsize=1.1 * size)
        return artists

    draw(0)
    add_color_bar(figure, scale, panels, with_units(sample[0].attrs["label"], sample[0]), sample, size, columns)
    if ax is None:
        fit_height(figure, panels, 1)
        figure.set_layout_engine("none")  # the frames must not move
    film = animation.FuncAnimation(figure, draw, frames=len(leads), interval=1000 / frames_per_second, repeat=True)
    if path is not None:
        _write(film, Path(path), writer, frames_per_second, len(leads), progress)
    return film


def _sample_fields(selection: ForecastSelection, name: str, level: float | None) -> list[xr.DataArray]:
    """Return the fields of the first, the middle and the last frame."""
    last = len(selection.leads) - 1
    return [field for frame in sorted({0, (last + 1) // 2, last}) for field in selection.read_maps(name, level, frame)]


def _choose_writer(path: Path) -> str:
    """Return the matplotlib writer for the suffix of a file; ValueError if there is none."""
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"path={str(path)!r} must end in .gif or .mp4.")
    if not animation.writers.is_available(writer):
        raise ValueError(f"{path.name} requires {writer}, which is not installed: install it, or write a .gif")
    check_parent(path)
    return writer


def _write(
    film: animation.FuncAnimation, path: Path, writer: str | None, rate: float, frames: int, progress: bool
) -> None:
    with tqdm(total=frames, unit="frames", desc=path.name, disable=not progress) as bar:
        options = {"writer": writer, "fps": rate, "progress_callback": lambda *_: bar.update()}
        write_atomically(path, partial(film.save, **options))
