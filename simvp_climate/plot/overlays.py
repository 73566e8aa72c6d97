"""Contours and wind arrows on maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.quiver import Quiver
from matplotlib.transforms import Bbox

from simvp_climate.data.grid import closes_longitude
from simvp_climate.plot.colors import contours_by_default
from simvp_climate.plot.map_axes import LETTER_WIDTH
from simvp_climate.plot.selection import Source
from simvp_climate.plot.style import units_of

Field = tuple[str, float | None]

# of charts, by unit
_INTERVALS = {"gpdam": (1, 2, 4, 6, 8, 12, 16, 24, 40, 60, 80, 120), "hPa": (1, 2, 4, 8, 10, 20, 40)}
_MOST_CONTOURS, _CONTOURS_PER_INCH = 20, 4.5
_MIN_LABELED_WIDTH = 2.2  # inches: contours on smaller maps have no labels
_ARROWS_PER_INCH, _MOST_ARROWS = 5, 24  # along a parallel
_FEWEST_PER_INCH = 3  # even where cells are larger, arrows are no longer than if there were so many
_ARROW_LENGTH = 1.6  # of a strong wind, in distances between arrows
_LABEL = "contour label"
_POLE = 89.0  # degrees: beyond, east has no direction on a map


@dataclass(frozen=True)
class Overlays:
    """Which fields are drawn over each field: their contours, and pairs (eastward, northward) of winds as arrows."""

    contours: dict[Field, Field]
    arrows: dict[Field, tuple[Field, Field]]
    by_request: bool  # else contours of anomalies are not drawn

    def names(self) -> list[str]:
        """Return the names of all variables that are drawn over others."""
        pairs = [field for pair in self.arrows.values() for field in pair]
        return list(dict.fromkeys(name for name, _ in [*self.contours.values(), *pairs]))


def choose_overlays(source: Source, fields: list[Field], contours: object, arrows: object) -> Overlays:
    """Return what is drawn over each field; ValueError if a variable or level is missing, or the arrows are no pair.

    `contours` is a variable, or (variable, level); True draws those of every field itself, None those of geopotential
    and pressure at sea level, False none. `arrows` are (eastward, northward) or (eastward, northward, level).
    """
    chosen: dict[Field, Field] = {}
    if isinstance(contours, bool) or contours is None:
        for name, level in fields:
            if contours or (contours is None and contours_by_default(source.dataset[name])):
                chosen[name, level] = (name, level)
    else:
        (name,), level = _names_and_level(contours, 1, 'contours="z500" or contours=("geopotential", 500)')
        chosen = {field: _overlay(source, "contours", name, level, field) for field in fields}
    pairs: dict[Field, tuple[Field, Field]] = {}
    if arrows is not None:
        (east, north), level = _names_and_level(arrows, 2, 'arrows=("u10", "v10") or arrows=("u", "v", 850)')
        for field in fields:
            u, v = (_overlay(source, "arrows", name, level, field) for name in (east, north))
            pairs[field] = u, v
    return Overlays(chosen, pairs, contours is not None)


def _names_and_level(setting: object, count: int, example: str) -> tuple[tuple, float | None]:
    """Return the names and the level, if any, of a setting; ValueError if it has another form."""
    values = (setting,) if isinstance(setting, str) else setting
    option = example.partition("=")[0]
    valid = isinstance(values, tuple | list) and len(values) in (count, count + 1)
    if not valid or not all(isinstance(name, str) for name in values[:count]):
        raise ValueError(
            f"{option}={setting!r} must be {count} name{'s' * (count > 1)}, with a level or not: {example}"
        )
    return tuple(values[:count]), values[count] if len(values) > count else None


def _overlay(source: Source, option: str, name: str, level: float | None, field: Field) -> Field:
    """Return the field of a variable to draw over another one, at the level of that one if none is named."""
    if name not in source.dataset:
        available = [str(other) for other in source.dataset.data_vars]
        raise ValueError(f"{option} has {name!r}, which is not in {source.role}: choose from {available}.")
    dim = source.axes.level
    if dim not in source.dataset[name].dims:
        if level is not None:
            raise ValueError(f"{option} has {name!r} at level {level}, but it has no levels. Leave the level out.")
        return name, None
    level = field[1] if level is None else level
    available = source.dataset[dim].values.tolist()
    if level not in available:
        rule = f"{name!r} needs one of its levels, {available}"
        raise ValueError(f"{option} has {name!r} at level {level}: {rule}. Name it last, as in ({name!r}, 500).")
    return name, level


def contour_levels(fields: Sequence[xr.DataArray], width: float) -> np.ndarray:
    """Return the values of contours of fields that share them, at round intervals: fewer on maps of smaller width."""
    values = np.concatenate([field.values[np.isfinite(field.values)] for field in fields])
    if not values.size or values.min() == values.max():
        return np.array([])
    low, high = float(values.min()), float(values.max())
    most = np.clip(_CONTOURS_PER_INCH * width, 5, _MOST_CONTOURS)
    intervals = [1.0 * interval for interval in _INTERVALS.get(units_of(fields[0]), ())]
    if not intervals or not 4 * intervals[0] <= high - low <= most * intervals[-1]:
        exponent = int(np.floor(np.log10((high - low) / most)))
        intervals = [float(f"{digit}e{exponent + more}") for more in (0, 1) for digit in (1, 2, 5)]
    interval = next(interval for interval in intervals if (high - low) / interval <= most)
    return interval * np.arange(np.ceil(low / interval), np.floor(high / interval) + 1)


def draw_contours(panel: GeoAxes, field: xr.DataArray, levels: np.ndarray, width: float, size: float) -> None:
    """Draw contours of a field, with labels if the map is wide enough; negative ones are dashed."""
    levels = levels[(levels > field.min().item()) & (levels < field.max().item())]
    if not levels.size:
        return
    longitudes, values = field["longitude"].values, field.values
    if closes_longitude(longitudes):
        longitudes = np.append(longitudes, longitudes[0] + 360)
        values = np.concatenate([values, values[:, :1]], axis=1)
    line_width = float(np.clip(0.2 * width, 0.35, 0.8))
    lines = panel.contour(
        longitudes, field["latitude"].values, np.ma.masked_invalid(values), levels=levels, colors="0.1",
        linewidths=line_width, transform=ccrs.PlateCarree(),
    )  # fmt: skip
    if width >= _MIN_LABELED_WIDTH:
        labels = panel.clabel(lines, levels[::2], fontsize=0.68 * size, inline_spacing=1, fmt="%g")
        for label in labels:
            label.set_path_effects([withStroke(linewidth=1.2, foreground="white", alpha=0.6)])
            label.set_gid(_LABEL)


def interval_text(levels: np.ndarray, field: xr.DataArray) -> str:
    """Return the interval of contours as text, such as "every 8 gpdam"; empty if there are less than two."""
    return f"every {levels[1] - levels[0]:.4g} {units_of(field)}".strip() if len(levels) > 1 else ""


def draw_arrows(panel: GeoAxes, east: xr.DataArray, north: xr.DataArray, strong: float, width: float) -> Quiver | None:
    """Draw wind arrows with true directions on the map, in a part of the cells; None without wind.

    An arrow of the speed `strong` is a little longer than the distance between arrows.
    """
    longitude, latitude, u, v, count = _thin(east, north, width)
    grid, projection = ccrs.PlateCarree(), panel.projection
    start = projection.transform_points(grid, longitude, latitude)[:, :2]
    speed = np.hypot(u, v)
    degrees = 1e-3 / np.where(speed > 0, speed, 1)
    step_east, step_north = degrees * u / np.cos(np.deg2rad(latitude)), degrees * v
    ahead = projection.transform_points(grid, longitude + step_east, latitude + step_north)[:, :2] - start
    behind = start - projection.transform_points(grid, longitude - step_east, latitude - step_north)[:, :2]
    # one of the two may lie across the edge of the map
    direction = np.where((np.hypot(*ahead.T) <= np.hypot(*behind.T))[:, None], ahead, behind)
    length = np.hypot(*direction.T)
    usable = np.isfinite(start).all(axis=1) & np.isfinite(length) & (length > 0) & (speed > 0)
    if not usable.any() or not strong > 0:
        return None
    start, unit = start[usable], direction[usable] / length[usable, None]
    vectors = unit * speed[usable, None]
    return panel.quiver(
        *start.T, *vectors.T, angles="xy", scale=strong * count / _ARROW_LENGTH, scale_units="width",
        width=0.0035, headwidth=4, headlength=4.5, headaxislength=4, color="0.1", zorder=3,
    )  # fmt: skip


def _thin(
    east: xr.DataArray, north: xr.DataArray, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Return longitudes, latitudes and components of arrows, none at a pole, and their number along a parallel.

    They are about as far apart everywhere.
    """
    longitudes, latitudes = east["longitude"].values, east["latitude"].values
    spacing = abs(longitudes[1] - longitudes[0]) if len(longitudes) > 1 else 1.0
    extent = spacing * len(longitudes)
    count = min(_MOST_ARROWS, max(6, int(_ARROWS_PER_INCH * width)))
    distance = max(extent / count, spacing)
    row_step = max(1, round(distance / (abs(latitudes[1] - latitudes[0]) if len(latitudes) > 1 else distance)))
    rows, columns = [], []
    for row in range(row_step // 2, len(latitudes), row_step):
        if abs(latitudes[row]) > _POLE:
            continue
        step = max(1, round(distance / spacing / max(np.cos(np.deg2rad(latitudes[row])), 0.05)))
        chosen = np.arange(step // 2 % len(longitudes), len(longitudes), step)
        rows.append(np.full(len(chosen), row))
        columns.append(chosen)
    if not rows:
        return np.array([]), np.array([]), np.array([]), np.array([]), 1.0
    row, column = np.concatenate(rows), np.concatenate(columns)
    u, v = (wind.values[row, column] for wind in (east, north))
    return longitudes[column], latitudes[row], u, v, max(extent / distance, _FEWEST_PER_INCH * width)


def strong_speed(speeds: Sequence[xr.DataArray]) -> float:
    """Return percentile 99 of wind speeds, 0 without values."""
    values = np.concatenate([speed.values[np.isfinite(speed.values)] for speed in speeds])
    return float(np.percentile(values, 99)) if values.size else 0.0


def drop_labels(panels: Sequence[GeoAxes]) -> None:
    """Remove labels of contours that the edge of their map cuts or that lie on another; the layout must be settled."""
    for panel in panels:
        edge = panel.patch.get_path().transformed(panel.patch.get_transform())
        placed: list[Bbox] = []
        for label in [text for text in panel.texts if text.get_gid() == _LABEL]:
            box = label.get_window_extent()
            if edge.contains_points(box.corners()).all() and not any(box.overlaps(other) for other in placed):
                placed.append(box)
            else:
                label.remove()


@dataclass(frozen=True)
class ArrowKey:
    """An arrow of a round speed that explains the length of the arrows on a map."""

    arrows: Quiver
    speed: float
    units: str

    @property
    def text(self) -> str:
        return f"{self.speed:g} {self.units}".strip()

    def width(self, panel_width: float, size: float) -> float:
        """Return the room for the arrow and its text in inches."""
        letters = 2 + LETTER_WIDTH * (1 + len(self.text))
        return self.speed / self.arrows.scale * panel_width + 0.8 * size / 72 * letters


def arrow_key(arrows: Quiver, strong: float, units: str) -> ArrowKey:
    """Return the key of arrows: a round speed, at most `strong`."""
    exponent = int(np.floor(np.log10(strong)))
    return ArrowKey(arrows, max(s for digit in (1, 2, 5) if (s := float(f"{digit}e{exponent}")) <= strong), units)


def add_arrow_key(figure: Figure, bar: Colorbar, key: ArrowKey, size: float) -> None:
    """Add the key of arrows to the right of a color bar; the layout must be settled."""
    # the ends of the bar are outside of its axes, which have their place when they are drawn
    bar.ax.apply_aspect(bar.ax.get_axes_locator()(bar.ax, None))
    box = bar.outline.get_window_extent().transformed(figure.transFigure.inverted())
    arrows = key.arrows
    length = key.speed / arrows.scale * arrows.axes.bbox.width / figure.bbox.width
    x, y = box.x1 + length + 0.8 * size / 72 / figure.get_size_inches()[0], (box.y0 + box.y1) / 2
    arrows.axes.quiverkey(
        arrows, x, y, key.speed, key.text, labelpos="E", coordinates="figure", labelsep=0.05,
        fontproperties={"size": 0.8 * size},
    )  # fmt: skip
