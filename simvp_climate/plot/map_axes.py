"""Create map axes and draw grid cells on them, never interpolated: projections, extents, coastlines, color bars."""

import importlib.resources
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
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from simvp_climate.data.grid import closes_longitude
from simvp_climate.plot.style import check_axes, color_bar_below, figure_of, new_figure, refuse_settings_with_axes

_MISSING_COLOR = "0.85"
_POLAR_EDGE = 20.0  # degrees: maps of a pole end at this latitude
_COAST_FILE = ("natural_earth", "shapefiles", "natural_earth", "physical", "ne_110m_coastline.shp")


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
    for index, panel in enumerate(panels):
        panel.set_facecolor(_MISSING_COLOR)
        _show_extent(panel, extent)
        panel.add_feature(_coastlines(), facecolor="none", edgecolor="0.1", linewidth=0.6)
        panel.spines["geo"].set_linewidth(0.6)
        if has_tick_labels:
            _label_degrees(panel, extent, 0.8 * size, label_latitudes=index % shape[1] == 0)
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


def _label_degrees(panel: GeoAxes, extent: _Extent, size: float, label_latitudes: bool) -> None:
    """Label meridians and parallels of a region; cartopy labels no meridians in a region across 180 degrees."""
    west, east = extent.columns[[0, -1]]
    meridians = [x for x in LongitudeLocator(nbins=5).tick_values(west, east) if west <= x <= east]
    parallels = LatitudeLocator(nbins=5).tick_values(extent.south, extent.north)
    parallels = [y for y in parallels if extent.south <= y <= extent.north]
    panel.set_xticks(np.array(meridians) - extent.middle)
    panel.set_xticklabels([degrees_text(x, "longitude") for x in meridians], fontsize=size)
    panel.set_yticks(parallels)
    panel.set_yticklabels([degrees_text(y, "latitude") if label_latitudes else "" for y in parallels], fontsize=size)
    panel.tick_params(length=2, width=0.6)
    # true proportions in the middle of the region, as on a paper map
    panel.set_aspect(1 / np.cos(np.deg2rad(np.clip((extent.south + extent.north) / 2, -70, 70))))


def fit_height(figure: Figure, panels: Sequence[GeoAxes], rows: int) -> None:
    """Set the height of a new figure so that its rows of maps fill the width, and settle its layout."""
    ratio = float(np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6))
    width = figure.get_size_inches()[0]
    # a guess of the height of titles and bars, until the layout has placed them
    figure.set_size_inches(width, rows * (ratio * width / 2 + 1.0) + 1.0)
    for _ in range(3):  # the layout of maps converges in rounds
        figure.get_layout_engine().execute(figure)
        height = figure.get_size_inches()[1]
        box = panels[0].get_position(original=True)
        figure.set_size_inches(width, height + rows * (ratio * box.width * width - box.height * height))
    figure.get_layout_engine().execute(figure)


@cache
def _coastlines() -> ShapelyFeature:
    # cartopy.feature.COASTLINE downloads; cached so that cartopy projects the lines once
    file = importlib.resources.files("simvp_climate").joinpath(*_COAST_FILE)
    with importlib.resources.as_file(file) as path:
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
    figure: Figure, scale: ScalarMappable, panels: list[GeoAxes], label: str, fields: list, size: float, columns: int
) -> None:
    """Add a color bar below panels that span `columns` of the figure, with arrows where values exceed its ends."""
    low = any((field < scale.norm.vmin).any() for field in fields)
    high = any((field > scale.norm.vmax).any() for field in fields)
    extend = ("both" if high else "min") if low else ("max" if high else "neither")
    shape = dict(shrink=0.8 / columns + 0.1, aspect=20 + 8 * columns)
    bar = color_bar_below(figure, scale, panels, label, size, extend=extend, **shape)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4 if columns == 1 else 5))
