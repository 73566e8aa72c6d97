"""Draw forecasts and films of forecasts on maps."""

import itertools
import os
import string
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib import animation
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from simvp_climate.data.display_units import requested_units
from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.progress import progress_bar
from simvp_climate.plot import selection
from simvp_climate.plot.colors import check_colors, difference_of, difference_scale, value_scale
from simvp_climate.plot.map_axes import (
    LETTER_WIDTH,
    add_color_bar,
    create_maps,
    draw_cells,
    fit_height,
    label_row,
    shown_latitudes,
    shown_points,
    user_maps,
)
from simvp_climate.plot.overlays import (
    ArrowKey,
    Field,
    Overlays,
    add_arrow_key,
    arrow_key,
    choose_overlays,
    contour_levels,
    draw_arrows,
    draw_contours,
    drop_labels,
    interval_text,
    strong_speed,
)
from simvp_climate.plot.style import MAX_ROWS, figure_of, font_size, units_of, with_units

_WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}


def maps(
    forecast: xr.Dataset, truth: xr.Dataset | None = None, *, variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None, init: object | None = None,
    level: float | Sequence[float] | None = None, region: str | tuple[float, float, float, float] | None = None,
    climatology: xr.Dataset | None = None, units: str | Mapping[str, str] | None = None,
    contours: str | tuple[str, float] | bool | None = None,
    arrows: tuple[str, str] | tuple[str, str, float] | None = None, cmap: str | Colormap | None = None,
    limits: tuple[float, float] | None = None, projection: ccrs.Projection | None = None, letters: bool = False,
    title: str | None = None, width: float | None = None, ax: GeoAxes | Sequence[GeoAxes] | None = None,
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
    region
        The part to show: a region of `sc.score` that is one box, such as "europe", or (south, north, west, east) in
        degrees, west > east across the date line. Default all.
    climatology
        As from `sc.baselines.climatology`: forecast and truth are drawn as anomalies from it.
    units
        Units to draw in by variable, such as {"t2m": "K", "u10": "kt"}; a text if there is a single variable. Default
        the usual ones of charts: gpdam, hPa, degC, mm, g/kg and %, else those of the data. `tp6h` and `tp24h` convert
        to mm/day. Differences and anomalies of temperatures in degC are in K.
    contours
        A variable whose contours are drawn over all fields, or (variable, level). True: of each field itself. Default:
        of geopotential and sea-level pressure, themselves. False: none. Labels need maps 2.2 inches wide.
    arrows
        The eastward and the northward wind, ("u10", "v10") or ("u", "v", level), drawn as arrows over all fields.
    cmap
        A matplotlib color map for forecast and truth, or its name. The default depends on the variable, see below.
    limits
        Smallest and largest value of the colors, in the units of the color bar; for a single variable and level.
    projection
        A cartopy projection. Default Robinson centered on Greenwich for the globe, longitude-latitude for a region.
        Maps of a pole, such as `cartopy.crs.NorthPolarStereo()`, show latitudes poleward of 20 degrees.
    letters
        Whether the maps are marked (a), (b), (c) and so on.
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
    values: blue to red for temperature, blue to pale green for geopotential and pressure, yellow to blue for humidity.
    Colors are centered on zero for winds and anomalies; those of precipitation begin at zero, in white, and rise in
    steps of 1, 2 and 5. A field counts as an anomaly if its name says so, or if the variable cannot have its values, as
    in `forecast - climatology`. Differences share colors symmetric about zero up to percentile 99 of their absolute
    values. Contours and arrows are drawn on forecast and truth. The RMSE is area-weighted, over the cells that are
    shown and where both have values. Maps of less than 60 degrees have finer coastlines, and borders. ValueError if
    `forecast` or `truth` is no Dataset; if a variable, level, lead or init is missing; if truth or climatology lacks
    the valid time or a grid point, or has other units; if `units` do not convert; if the region is unknown or has no
    cell; if another dimension, such as members, must be selected first; if `ax` has another count of maps, or comes
    with a width or a projection; if `limits` come with several fields.
    """
    source = selection.open_source(forecast, "forecast")
    fields, leads = selection.choose_fields(source, variable, level), selection.choose_leads(forecast, lead)
    rows = len(fields) * len(leads)
    if rows > MAX_ROWS:
        raise ValueError(f"{rows} rows of maps are more than {MAX_ROWS}: choose with variable=, level= or lead=")
    check_colors(cmap, limits, selection.field_texts(fields))
    count, content = (rows, "maps") if truth is None else (3 * rows, "forecast, truth and difference")
    panels = user_maps(ax, count, content, projection, width)
    layout = _plan_layout(count, truth is not None, width, panels)
    overlays = choose_overlays(source, fields, contours, arrows)
    names = list(dict.fromkeys(name for name, _ in fields))
    points = shown_points(source.axes, region, projection, panels)
    all_names = list(dict.fromkeys([*names, *overlays.names()]))
    chosen = selection.select_forecast(source, truth, all_names, leads, init, *points)
    chosen = replace(chosen, units=requested_units(units, names, overlays.names()))
    if climatology is not None:
        chosen = replace(chosen, normals=selection.select_normals(climatology, chosen, names))
    groups = [[chosen.read_maps(*field, index) for index in range(len(leads))] for field in fields]
    for row in itertools.chain(*groups) if truth is not None else ():
        row.append(difference_of(*row))

    figure, panels = create_maps(
        groups[0][0][0], layout.shape, layout.count, projection, layout.width, layout.size, panels
    )
    texts = _titles(fields, groups, chosen, layout) if ax is None else _dated_titles(groups, chosen, title is None)
    marks = [f"({string.ascii_lowercase[index % 26]}) " if letters else "" for index in range(len(panels))]
    for panel, mark, text in zip(panels, marks, texts, strict=True):
        panel.set_title(layout.wrap((mark + text).strip()), fontsize=layout.size)
    keys = []
    for index, (field, group) in enumerate(zip(fields, groups, strict=True)):
        group_panels = panels[index * len(panels) // len(groups) : (index + 1) * len(panels) // len(groups)]
        scale = value_scale(*(field for row in group for field in row[:2]), cmap=cmap, limits=limits)
        note, arrow_keys = _draw_overlays(group_panels, field, overlays, chosen, layout)
        bars = _draw_group(figure, group_panels, group, scale, layout, note, len(groups) == 1, arrow_keys[:1])
        keys += list(zip(bars[: 1 if layout.has_truth else None], arrow_keys, strict=False))
    if ax is None:
        _label_rows(panels, fields, chosen, layout)
    if title is None and ax is None:
        title = f"From {chosen.start_text}, valid {_span(chosen.valid_texts)}"
    if title is not None:
        letters_per_line = int(72 * layout.width / (LETTER_WIDTH * 1.15 * layout.size))
        figure.suptitle(textwrap.fill(title, letters_per_line), fontsize=1.15 * layout.size)
    if ax is None:
        fit_height(figure, panels, layout.shape[0])
    drop_labels(panels)
    for bar, key in keys:
        add_arrow_key(figure, bar, key, layout.size)
    return figure


@dataclass(frozen=True)
class _Layout:
    """The maps of a figure: their number, rows and columns, and the sizes of maps and text."""

    count: int
    shape: tuple[int, int]
    has_truth: bool
    width: float  # of the figure, inches
    size: float  # of text, points

    @property
    def panel_width(self) -> float:
        return self.width / self.shape[1]

    def wrap(self, text: str) -> str:
        """Return a text in lines as wide as a map."""
        letters = max(8, int(72 * self.panel_width / (LETTER_WIDTH * self.size)))
        if any(len(line) > letters for line in text.split("\n")):
            text = text.replace(", ", ",\n")
        return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def _plan_layout(count: int, has_truth: bool, width: float | None, panels: list[GeoAxes] | None) -> _Layout:
    """Return the layout of a number of maps, at most three in a row."""
    columns = min(3, count)
    width = (12.0 if columns > 1 else 7.0) if width is None else width
    if panels is not None:
        width = columns * panels[0].bbox.width / figure_of(panels).dpi
    return _Layout(count, (-(-count // columns), columns), has_truth, width, font_size(3 * width / columns))


def _span(texts: list[str]) -> str:
    """Return one or two dates as they are, of more the first and the last."""
    texts = list(dict.fromkeys(texts))
    return " / ".join(texts) if len(texts) < 3 else f"{texts[0]} to {texts[-1]}"


def _titles(
    fields: list[Field], groups: list[list[list[xr.DataArray]]], chosen: selection.ForecastSelection, layout: _Layout
) -> list[str]:
    """Return the titles of the maps of a new figure: of columns above the first row, of errors above all rows."""
    titles = []
    for field, group in zip(fields, groups, strict=True):
        for row, lead in zip(group, chosen.leads, strict=True):
            if not layout.has_truth:
                name = "Forecast" if len(fields) == 1 else f"{selection.short_text(*field)},"
                titles.append(f"{name} {lead}")
                continue
            error = f"RMSE {_rmse_text(row[2])}"
            if titles:
                titles += ["", "", error]
            else:
                # the only lead is in no name of a row
                forecast = "Forecast" if len(chosen.leads) > 1 else f"Forecast {lead}"
                titles += [forecast, "Truth", f"Forecast minus truth, {error}"]
    return titles


def _dated_titles(
    groups: list[list[list[xr.DataArray]]], chosen: selection.ForecastSelection, dated: bool
) -> list[str]:
    """Return the titles of maps in a figure of the user, with their dates if no title of the figure states them."""
    titles = []
    times = list(zip(chosen.leads, chosen.valid_texts, strict=True)) * len(groups)
    for row, (lead, valid) in zip(itertools.chain(*groups), times, strict=True):
        titles.append(f"Forecast {lead}" + (f"\nfrom {chosen.start_text}" if dated else ""))
        if len(row) == 3:
            titles.append(f"Truth\n{valid}" if dated else "Truth")
            titles.append(f"Forecast minus truth, RMSE {_rmse_text(row[2])}")
        elif dated:
            titles[-1] += f"\nvalid {valid}"
    return titles


def _label_rows(
    panels: list[GeoAxes], fields: list[Field], chosen: selection.ForecastSelection, layout: _Layout
) -> None:
    """Name the variable and the lead, as far as there are several, at the left of each row."""
    if not layout.has_truth or layout.shape[0] == 1:
        return  # the titles name them
    names = [selection.short_text(*field) if len(fields) > 1 else "" for field in fields]
    leads = chosen.leads if len(chosen.leads) > 1 else [""]
    for panel, (name, lead) in zip(panels[:: layout.shape[1]], itertools.product(names, leads), strict=True):
        label_row(panel, "\n".join(filter(None, (name, lead))), layout.size)


def _draw_overlays(
    panels: list[GeoAxes], field: Field, overlays: Overlays, chosen: selection.ForecastSelection, layout: _Layout
) -> tuple[str, list[ArrowKey]]:
    """Draw contours and arrows over forecasts and truths of a field; return a note on them, and the arrows of each."""
    value_panels = [panel for index, panel in enumerate(panels) if not layout.has_truth or index % 3 < 2]
    notes, keys = [], []

    def read(other: Field) -> list[xr.DataArray]:
        return [full for index in range(len(chosen.leads)) for full in chosen.read_full_maps(*other, index)]

    if field in overlays.contours:
        other = overlays.contours[field]
        fields = read(other)
        if other != field or overlays.by_request or not fields[0].attrs["anomaly"]:
            levels = contour_levels(fields, layout.panel_width)
            for panel, contoured in zip(value_panels, fields, strict=True):
                draw_contours(panel, contoured, levels, layout.panel_width, layout.size)
            name = "" if other == field and chosen.normals is None else f" of {selection.short_text(*other)}"
            notes.append(f"contours{name} {interval_text(levels, fields[0])}".strip())
    if field in overlays.arrows:
        east, north = map(read, overlays.arrows[field])
        speed = strong_speed([np.hypot(u, v) for u, v in zip(east, north, strict=True)])
        for panel, u, v in zip(value_panels, east, north, strict=True):
            if (quiver := draw_arrows(panel, u, v, speed, layout.panel_width)) is not None:
                keys.append(arrow_key(quiver, speed, units_of(u)))
        notes.append("arrows: " + ", ".join(selection.short_text(*wind) for wind in overlays.arrows[field]))
    return "".join(f", {note}" for note in notes), keys


def _draw_group(
    figure: Figure, panels: list[GeoAxes], rows: list[list[xr.DataArray]], scale: ScalarMappable, layout: _Layout,
    note: str, only_group: bool, keys: list[ArrowKey],
) -> list[Colorbar]:  # fmt: skip
    """Draw the fields of a variable at all leads; return their color bars, those of differences last.

    Without a truth, a single group has one bar; of several, each map has its own.
    """
    values = [field for row in rows for field in row[:2]]
    differences = [row[2] for row in rows if len(row) == 3]
    scales = [scale, scale, difference_scale(*differences)] if differences else [scale]
    for panel, field, map_scale in zip(panels, itertools.chain(*rows), itertools.cycle(scales)):
        draw_cells(panel, field, map_scale)
    # if the forecast is an anomaly at any lead, the color bar has that label
    labeled = next((row[0] for row in rows if row[0].attrs["anomaly"]), values[0])
    label = with_units(labeled.attrs["label"], labeled) + note
    add_bar = partial(add_color_bar, figure, size=layout.size, width=layout.panel_width)
    room = max((key.width(layout.panel_width, layout.size) for key in keys), default=0.0)
    if differences:
        value_panels = [panel for index, panel in enumerate(panels) if index % 3 < 2]
        error_label = with_units("Difference", differences[0])
        return [
            add_bar(scale, value_panels, label, values, columns=2, key_width=room),
            add_bar(scales[2], panels[2::3], error_label, differences, columns=1),
        ]
    if only_group:
        return [add_bar(scale, panels, label, values, columns=layout.shape[1], key_width=room)]
    return [add_bar(scale, [panel], label, values, columns=1, key_width=room) for panel in panels]


def _rmse_text(difference: xr.DataArray) -> str:
    """Return the area-weighted RMSE with its units, "-" where no cell has a difference."""
    if not np.isfinite(difference).any():
        return "-"
    squares = (difference**2).weighted(latitude_weights(difference["latitude"])).mean()
    return f"{float(np.sqrt(squares)):.3g} {units_of(difference)}".strip()


def animate(
    forecast: xr.Dataset, truth: xr.Dataset | None = None, *, variable: str | None = None, init: object | None = None,
    level: float | None = None, units: str | None = None, lead: str | timedelta | np.timedelta64 | list | None = None,
    cmap: str | Colormap | None = None, limits: tuple[float, float] | None = None,
    projection: ccrs.Projection | None = None, path: str | os.PathLike | None = None, frames_per_second: float = 4.0,
    width: float | None = None, ax: GeoAxes | Sequence[GeoAxes] | None = None, progress: bool = True,
) -> animation.FuncAnimation:  # fmt: skip
    """Animate one forecast, beside the truth if any, with a frame for each lead.

    Parameters
    ----------
    forecast, truth, init, units, cmap, limits, projection, width, ax
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
    chosen = replace(chosen, units=requested_units(units, [name]))
    # one scale for all frames, from the first, the middle and the last
    last = len(leads) - 1
    frames = sorted({0, (last + 1) // 2, last})
    sample = [field for frame in frames for field in chosen.read_maps(name, level, frame)]
    scale = value_scale(*sample, cmap=cmap, limits=limits)
    width = (10.0 if columns > 1 else 6.5) if width is None else width
    panel_width = width / columns if panels is None else panels[0].bbox.width / figure_of(panels).dpi
    size = font_size(3 * panel_width)
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
    label = with_units(sample[0].attrs["label"], sample[0])
    add_color_bar(figure, scale, panels, label, sample, size, columns, panel_width)
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
