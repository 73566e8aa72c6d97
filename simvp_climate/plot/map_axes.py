"""Create map axes and draw grid cells on them, never interpolated: projections, extents, coastlines, color bars."""

import importlib.resources
import textwrap
from collections.abc import Sequence
from functools import cache

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.feature import ShapelyFeature
from cartopy.io.shapereader import Reader
from cartopy.mpl.geoaxes import GeoAxes
from cartopy.mpl.ticker import LatitudeLocator, LongitudeLocator
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from simvp_climate.data.grid import TOLERANCE, Axes, closes_longitude
from simvp_climate.metrics.regions import BOXES, region_masks
from simvp_climate.plot.style import check_axes, color_bar_below, figure_of, new_figure, refuse_settings_with_axes

# by whether the map is detailed
_COASTLINES = {False: ("physical", "ne_110m_coastline"), True: ("physical", "ne_50m_coastline")}
_BORDERS = ("cultural", "ne_50m_admin_0_boundary_lines_land")
_MISSING_COLOR = "0.85"
_POLAR_EDGE = 20.0  # degrees: maps of a pole end at this latitude
_DETAILED_EXTENT = 60.0  # degrees: smaller maps have finer coastlines, and borders
_TICK_LABEL = 5  # letters, "160°W"
LETTER_WIDTH = 0.56  # mean width of a letter over the size of the text


def cell_edges(centers: np.ndarray) -> np.ndarray:
    """Return the edges of cells from their centers; the outer cells are symmetric about theirs."""
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def degrees_text(value: float, dim: str) -> str:
    """Return a latitude or a longitude as text, such as "30°N"."""
    value = (value + 180) % 360 - 180 if dim == "longitude" else value
    positive, negative = ("E", "W") if dim == "longitude" else ("N", "S")
    return f"{abs(value):g}°{'' if value in (0, -180) else positive if value > 0 else negative}"


def longitude_edges(longitudes: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the edges of grid columns, and whether they go round the globe."""
    edges, is_ring = cell_edges(longitudes), closes_longitude(longitudes)
    if is_ring:
        edges[-1] = edges[0] + 360
    return edges, is_ring


def _pole(projection: ccrs.Projection | None) -> int:
    """Return 1 for a map around the north pole, -1 for one around the south pole, and 0 for all others."""
    if projection is None:
        return 0
    azimuthal = projection.proj4_params.get("proj") in ("stere", "laea", "aeqd", "ortho", "gnom")
    latitude = float(projection.proj4_params.get("lat_0", 0.0))
    return int(np.sign(latitude)) if azimuthal and abs(latitude) == 90 else 0


def shown_points(
    axes: Axes, region: object, projection: ccrs.Projection | None, panels: list[GeoAxes] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the latitudes and longitudes that maps show: those of a region, or all; those near the pole around one.

    `region` is a name of `BOXES` or (south, north, west, east) in degrees; ValueError if it is unknown, consists of
    several boxes or has no cell.
    """
    latitudes, longitudes = axes.rows.values, axes.columns.values
    if region is not None:
        single = [name for name, box in BOXES.items() if not isinstance(box[0], tuple)]
        if isinstance(region, str) and region not in single:
            raise ValueError(f"region={region!r} must be one of {single}, or (south, north, west, east) in degrees.")
        grid = {"latitude": latitudes, "longitude": longitudes}
        arrays = {dim: xr.DataArray(values, {dim: values}, dim, dim) for dim, values in grid.items()}
        (cells,) = region_masks({"region": region}, arrays).values
        latitudes, longitudes = latitudes[cells.any(axis=1)], longitudes[cells.any(axis=0)]
        west, east = BOXES[region][2:] if isinstance(region, str) else region[2:]
        if east - west < 360:
            # ascending from the western edge, which may lie west of Greenwich
            longitudes = np.sort(west + (longitudes - west + TOLERANCE) % 360 - TOLERANCE)
    return shown_latitudes(latitudes, projection, panels), longitudes


def shown_latitudes(
    latitudes: np.ndarray, projection: ccrs.Projection | None, panels: list[GeoAxes] | None
) -> np.ndarray:
    """Return the latitudes that maps show: all, or on maps of a pole, where it would be tiny, those near it."""
    pole = _pole(projection if panels is None else panels[0].projection)
    shown = pole * latitudes >= _POLAR_EDGE
    return latitudes[shown] if pole and shown.any() else latitudes


def user_maps(ax: object, count: int, content: str, projection: object, width: float | None) -> list[GeoAxes] | None:
    """Return the maps that the user passed as `ax`, or None; ValueError if they do not fit the other arguments."""
    if projection is not None and not isinstance(projection, ccrs.Projection):
        rule = "it must be one of cartopy, such as cartopy.crs.Robinson()"
        raise ValueError(f"projection={projection!r} is a {type(projection).__name__}: {rule}")
    refuse_settings_with_axes(ax, width, projection)
    if ax is None:
        return None
    panels = check_axes(ax, count, content)
    if not all(isinstance(panel, GeoAxes) for panel in panels):
        raise ValueError("ax is no map. Give it a projection: plt.subplot(projection=cartopy.crs.Robinson())")
    return panels


class _Extent:
    """The edges of the rows and columns of a grid in degrees; `is_ring` if its longitudes go round the globe."""

    def __init__(self, field: xr.DataArray) -> None:
        self.rows = np.clip(cell_edges(field["latitude"].values), -90, 90)
        self.columns, self.is_ring = longitude_edges(field["longitude"].values)
        self.south, self.north = self.rows[[0, -1]]
        self.is_globe = self.is_ring and self.north - self.south > 120
        self.is_small = max(self.north - self.south, self.columns[-1] - self.columns[0]) < _DETAILED_EXTENT
        self.middle = 0.0 if self.is_ring else (self.columns[0] + self.columns[-1]) / 2
        # no region crosses the edge of a frame around its own middle
        self.frame = ccrs.PlateCarree(central_longitude=self.middle)

    def split_columns(self, projection: ccrs.Projection) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return pieces (edges, columns) of a row of cells, split at the western edge of a map.

        Cartopy draws a cell across the edge in a second layer, and marks it as missing in the first: a color map with a
        color for missing values then paints it over half the map (Robinson, Equal Earth with longitudes 0..360).
        """
        # PlateCarree states its central longitude as a prime meridian
        cut = float(projection.proj4_params.get("lon_0", projection.proj4_params.get("pm", 0.0))) - 180
        edges, count = self.columns, len(self.columns) - 1
        start = edges[0] + (cut - edges[0]) % 360
        split = int(np.searchsorted(edges, start, side="right")) - 1  # the cell that is split
        east = (np.concatenate([[start], edges[split + 1 :]]), np.arange(split, count))
        west = (np.concatenate([edges[: split + 1], [start]]), np.arange(split + 1))
        if split >= count:  # the cut is in the gap of a region
            pieces = [(edges, np.arange(count))]
        elif self.is_ring:
            pieces = [(np.concatenate([east[0], west[0][1:] + 360]), np.concatenate([east[1], west[1]]))]
        else:
            pieces = [east, west]
        non_empty = []
        for borders, columns in pieces:
            wide = np.diff(borders) > 1e-6
            if wide.any():
                borders = np.concatenate([borders[:1], borders[1:][wide]])
                # into the range of the map: PROJ fails beyond 10 radians
                borders -= 360 * np.floor((borders.mean() - cut) / 360)
                non_empty.append((borders, columns[wide]))
        return non_empty


def create_maps(
    field: xr.DataArray, shape: tuple[int, int], count: int, projection: ccrs.Projection | None, width: float,
    size: float, panels: list[GeoAxes] | None,
) -> tuple[Figure, list[GeoAxes]]:  # fmt: skip
    """Return a figure of empty maps with coastlines that show the grid of a field: a new one, or the user's panels."""
    extent = _Extent(field)
    has_tick_labels = projection is None and panels is None and not extent.is_globe
    if panels is None:
        figure = new_figure(width)
        projection = projection or (ccrs.Robinson() if extent.is_globe else extent.frame)
        panels = [figure.add_subplot(*shape, index + 1, projection=projection) for index in range(count)]
    else:
        figure = figure_of(panels)
    thickness = float(np.clip(panels[0].bbox.width / figure.dpi / 3, 0.4, 1.0))
    for index, panel in enumerate(panels):
        panel.set_facecolor(_MISSING_COLOR)
        _show_extent(panel, extent)
        coastlines = _natural_earth(*_COASTLINES[extent.is_small])
        panel.add_feature(coastlines, facecolor="none", edgecolor="0.1", linewidth=0.6 * thickness)
        if extent.is_small:
            panel.add_feature(_natural_earth(*_BORDERS), facecolor="none", edgecolor="0.3", linewidth=0.4 * thickness)
        panel.spines["geo"].set_linewidth(0.6 * thickness)
        if has_tick_labels:
            labels = 72 * 0.8 * width / shape[1] / (1.6 * _TICK_LABEL * LETTER_WIDTH * 0.8 * size)
            _label_degrees(panel, extent, 0.8 * size, index % shape[1] == 0, int(np.clip(labels, 1, 5)))
    return figure, panels


def _show_extent(panel: GeoAxes, extent: _Extent) -> None:
    """Limit a map to a region, to the globe, or to a polar cap: the corners of a square would be empty."""
    pole = _pole(panel.projection)
    if pole and extent.is_ring and pole * (extent.north if pole < 0 else extent.south) > 0:
        meridians = np.linspace(-180, 180, 181)
        edge = np.full_like(meridians, extent.south if pole > 0 else extent.north)
        points = panel.projection.transform_points(ccrs.PlateCarree(), meridians, edge)
        radius = float(np.hypot(points[:, 0], points[:, 1]).max())
        panel.set_xlim(-radius, radius)
        panel.set_ylim(-radius, radius)
        angle = np.linspace(0, 2 * np.pi, 361)
        circle = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        panel.set_boundary(Path(circle), transform=panel.transAxes)
    elif extent.is_globe or len(extent.split_columns(panel.projection)) > 1:
        panel.set_global()
    else:
        west, east = (-180, 180) if extent.is_ring else extent.columns[[0, -1]] - extent.middle
        panel.set_extent((west, east, extent.south, extent.north), crs=extent.frame)


def _label_degrees(panel: GeoAxes, extent: _Extent, size: float, label_latitudes: bool, most: int) -> None:
    """Label meridians and parallels of a region; cartopy labels no meridians in a region across 180 degrees."""
    west, east = (-180.0, 180.0) if extent.is_ring else extent.columns[[0, -1]]
    meridians = [x for x in LongitudeLocator(nbins=most).tick_values(west, east) if west <= x <= east]
    parallels = LatitudeLocator(nbins=5).tick_values(extent.south, extent.north)
    parallels = [y for y in parallels if extent.south <= y <= extent.north]
    panel.set_xticks(np.array(meridians) - extent.middle)
    panel.set_xticklabels([degrees_text(x, "longitude") for x in meridians], fontsize=size)
    panel.set_yticks(parallels)
    panel.set_yticklabels([degrees_text(y, "latitude") if label_latitudes else "" for y in parallels], fontsize=size)
    panel.tick_params(length=2, width=0.6)
    # true proportions in the middle of the region, as on a paper map
    panel.set_aspect(1 / np.cos(np.deg2rad(np.clip((extent.south + extent.north) / 2, -70, 70))))


def label_row(panel: GeoAxes, text: str, size: float) -> None:
    """Write a text at the left of a map, beyond the labels of its parallels if it has any."""
    labels = [label.get_text() for label in panel.get_yticklabels()] if panel.yaxis.get_visible() else []
    distance = 0.5 * size + 0.8 * LETTER_WIDTH * size * max(map(len, labels), default=0)
    panel.annotate(
        text, (0, 0.5), xycoords="axes fraction", xytext=(-distance, 0), textcoords="offset points", rotation=90,
        ha="right", va="center", fontsize=size, multialignment="center", annotation_clip=False,
    )  # fmt: skip


def fit_height(figure: Figure, panels: Sequence[GeoAxes], rows: int) -> None:
    """Set the height of a new figure so that its rows of maps fill the width, and settle its layout."""
    ratio = float(np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6))
    width = figure.get_size_inches()[0]
    for panel in panels:  # color bars move maps to the bottom of their places: the layout would forget titles
        panel.set_anchor("N")
    # a guess of the height of titles and bars, until the layout has placed them
    figure.set_size_inches(width, rows * (ratio * width / 2 + 1.0) + 1.0)
    engine = figure.get_layout_engine()
    if rows > 1 and isinstance(engine, ConstrainedLayoutEngine):
        engine.set(h_pad=0.07)  # the title of a row stands apart from the color bar above it
    for _ in range(3):  # the layout of maps converges in rounds
        figure.get_layout_engine().execute(figure)
        height = figure.get_size_inches()[1]
        box = panels[0].get_position(original=True)
        figure.set_size_inches(width, height + rows * (ratio * box.width * width - box.height * height))
    figure.get_layout_engine().execute(figure)


@cache
def _natural_earth(theme: str, name: str) -> ShapelyFeature:
    """Return bundled lines of Natural Earth."""
    # cartopy.feature.COASTLINE downloads; cached so that cartopy projects the lines once
    folder = importlib.resources.files("simvp_climate").joinpath("natural_earth", "shapefiles", "natural_earth")
    with importlib.resources.as_file(folder.joinpath(theme, f"{name}.shp")) as path:
        return ShapelyFeature(tuple(Reader(path).geometries()), ccrs.PlateCarree())


def draw_cells(panel: GeoAxes, field: xr.DataArray, scale: ScalarMappable) -> list[Artist]:
    """Draw the cells of a field on a map, and return what was drawn."""
    extent = _Extent(field)
    cells = np.ma.masked_invalid(field.values)
    options = dict(norm=scale.norm, cmap=scale.cmap, transform=ccrs.PlateCarree(), shading="flat", rasterized=True)
    previous = set(panel.collections)
    for borders, columns in extent.split_columns(panel.projection):
        # slightly within the map: its edge belongs to both sides
        borders[[0, -1]] += 1e-5, -1e-5
        panel.pcolormesh(borders, extent.rows, cells[:, columns], **options)
    return [artist for artist in panel.collections if artist not in previous]


def add_color_bar(
    figure: Figure, scale: ScalarMappable, panels: list[GeoAxes], label: str, fields: list, size: float, columns: int,
    width: float, key_width: float = 0.0,
) -> Colorbar:  # fmt: skip
    """Add a color bar below panels that span `columns`, each `width` inches wide; arrows where values exceed its ends.

    The label is wrapped to the width of the panels, and there are as many tick labels as have room. `key_width`
    inches at the right stay free.
    """
    low = any((field < scale.norm.vmin).any() for field in fields)
    high = any((field > scale.norm.vmax).any() for field in fields)
    extend = ("both" if high else "min") if low else ("max" if high else "neither")
    shrink = float(np.clip(1 - 2 * key_width / (columns * width), 0.25, 0.8 / columns + 0.1))
    label = textwrap.fill(label, max(8, int(72 * width * columns / (LETTER_WIDTH * size))))
    points = 7 if key_width else 4  # between the maps and the bar
    bar = color_bar_below(
        figure, scale, panels, label, size, extend=extend, shrink=shrink, aspect=20 + 8 * columns,
        pad=max(0.02, points / (72 * 0.5 * width)),
    )  # fmt: skip
    room = 72 * 0.85 * width * columns * shrink / (LETTER_WIDTH * 0.9 * size)  # letters
    if isinstance(scale.norm, BoundaryNorm):
        bounds = scale.norm.boundaries
        texts = [f"{bound:g}" for bound in bounds]
        every = -(-len(bounds) // max(1, int(room / (1.5 + max(map(len, texts))))))
        bar.set_ticks(bounds[::every], labels=texts[::every])
        bar.minorticks_off()
    else:
        bar.ax.xaxis.set_major_locator(MaxNLocator(int(np.clip(room / 8, 1, 4 if columns == 1 else 5))))
    return bar
