"""Grid cells on a map: projections, coastlines, colors.

Cells are drawn one by one, never interpolated, and those that are NaN stay gray. Coastlines are Natural Earth's, from a
file inside the package: no map needs a network.
"""

import importlib.resources
from collections.abc import Sequence
from functools import cache

import cartopy.crs as ccrs
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from cartopy.feature import ShapelyFeature
from cartopy.io.shapereader import Reader
from cartopy.mpl.geoaxes import GeoAxes
from cartopy.mpl.ticker import LatitudeLocator, LongitudeLocator
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simvp_climate.data.variables import lookup
from simvp_climate.grid import closes_longitude
from simvp_climate.plot.style import DIVERGING, SEQUENTIAL

_NO_VALUE = "0.85"
# of both signs: colors around zero
_SIGNED = ("u", "v", "u10", "v10")
_SIGNED_WORDS = ("anomaly", "anomalies", "vorticity", "divergence", "eastward_wind", "northward_wind")
_COAST_FILE = ("natural_earth", "shapefiles", "natural_earth", "physical", "ne_110m_coastline.shp")


def edges_of(centers: np.ndarray) -> np.ndarray:
    """Return the edges of cells from their centers, the outer ones as far out as the inner ones."""
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def longitude_edges(field: xr.DataArray) -> tuple[np.ndarray, bool]:
    """Return the edges of the columns of cells, and whether they go round the globe."""
    edges = edges_of(field["longitude"].values)
    is_ring = closes_longitude(field["longitude"].values)
    if is_ring:
        edges[-1] = edges[0] + 360
    return edges, is_ring


def _west_end(projection: ccrs.Projection) -> float:
    """Return the longitude at which a map begins."""
    return float(projection.proj4_params.get("lon_0", 0.0)) - 180


def _cut(edges: np.ndarray, is_ring: bool, cut: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pieces (edges, columns) of a row of cells none of which crosses the meridian `cut`.

    Cartopy draws a cell across the edge of a map in a second layer, and hides it in the first by marking it
    as missing. If the color map has a color for missing values, that paints over half the map (Robinson and
    Equal Earth with longitudes 0..360). So the cell is split at the edge: there is no second layer.
    """
    start = edges[0] + (cut - edges[0]) % 360
    count = len(edges) - 1
    k = int(np.searchsorted(edges, start, side="right")) - 1  # the cell that is split
    east = (np.concatenate([[start], edges[k + 1 :]]), np.arange(k, count))
    west = (np.concatenate([edges[: k + 1], [start]]), np.arange(k + 1))
    if k >= count:  # the cut is in the gap of a region
        pieces = [(edges, np.arange(count))]
    elif is_ring:
        pieces = [(np.concatenate([east[0], west[0][1:] + 360]), np.concatenate([east[1], west[1]]))]
    else:
        pieces = [east, west]
    kept = []
    for borders, columns in pieces:
        wide = np.diff(borders) > 1e-6
        if wide.any():
            borders = np.concatenate([borders[:1], borders[1:][wide]])
            # into the range of the map: PROJ gives up beyond 10 radians
            borders -= 360 * np.floor((borders.mean() - cut) / 360)
            kept.append((borders, columns[wide]))
    return kept


def map_panels(
    figure: Figure,
    field: xr.DataArray,
    projection: ccrs.Projection | None,
    shape: tuple[int, int],
    count: int,
    size: float,
    given: Sequence[Axes] | None = None,
) -> list[GeoAxes]:
    """Return empty maps with coastlines that show the grid of the field, new ones or those that were given."""
    edges, is_ring = longitude_edges(field)
    south, north = np.clip(edges_of(field["latitude"].values)[[0, -1]], -90, 90)
    is_globe = is_ring and north - south > 120
    middle = 0.0 if is_ring else (edges[0] + edges[-1]) / 2
    # no region crosses the edge of a frame around its own middle
    frame = ccrs.PlateCarree(central_longitude=middle)
    west, east = (-180, 180) if is_ring else (edges[0] - middle, edges[-1] - middle)
    plain = projection is None and not is_globe and given is None
    if projection is None:
        projection = ccrs.Robinson() if is_globe else frame
    panels = []
    for k in range(count):
        if given is None:
            panel = figure.add_subplot(*shape, k + 1, projection=projection)
        elif isinstance(given[k], GeoAxes):
            panel = given[k]
        else:
            raise ValueError(
                "ax is no map: make it with a projection of cartopy, for example "
                "plt.subplot(projection=cartopy.crs.Robinson())"
            )
        panel.set_facecolor(_NO_VALUE)
        if is_globe or len(_cut(edges, is_ring, _west_end(panel.projection))) > 1:
            panel.set_global()
        else:
            panel.set_extent((west, east, south, north), crs=frame)
        panel.add_feature(_coastlines(), facecolor="none", edgecolor="0.1", linewidth=0.6)
        panel.spines["geo"].set_linewidth(0.6)
        if plain:
            sides = {"bottom": "x", "left": "y"} if k % shape[1] == 0 else {"bottom": "x"}
            labels = panel.gridlines(draw_labels=sides, linewidth=0)
            labels.xlocator, labels.ylocator = LongitudeLocator(nbins=5), LatitudeLocator(nbins=5)
            labels.xlabel_style = labels.ylabel_style = {"size": 0.8 * size}
            # true proportions in the middle of the region, as on a paper map
            panel.set_aspect(1 / np.cos(np.deg2rad(np.clip((south + north) / 2, -70, 70))))
        panels.append(panel)
    return panels


@cache
def _coastlines() -> ShapelyFeature:
    # not cartopy.feature.COASTLINE, which would download; cached, so that its lines are projected once
    file = importlib.resources.files("simvp_climate").joinpath(*_COAST_FILE)
    with importlib.resources.as_file(file) as path:
        return ShapelyFeature(tuple(Reader(path).geometries()), ccrs.PlateCarree())


def draw_cells(panel: GeoAxes, field: xr.DataArray, limits: tuple[float, float], colors: str) -> ScalarMappable:
    """Draw the cells and return the color scale."""
    scale = ScalarMappable(Normalize(*limits), plt.get_cmap(colors))
    edges, is_ring = longitude_edges(field)
    lat_edges = np.clip(edges_of(field["latitude"].values), -90, 90)
    cells = np.ma.masked_invalid(field.values)
    for borders, columns in _cut(edges, is_ring, _west_end(panel.projection)):
        borders = borders.copy()
        # a hair inside the edge of the map: on it, either side could be meant
        borders[[0, -1]] += 1e-5, -1e-5
        panel.pcolormesh(
            borders,
            lat_edges,
            cells[:, columns],
            norm=scale.norm,
            cmap=scale.cmap,
            transform=ccrs.PlateCarree(),
            shading="flat",
            rasterized=True,
        )
    return scale


def color_bar(
    figure: Figure, scale: ScalarMappable, panels: list[GeoAxes], label: str, fields: tuple, size: float
) -> None:
    """Add a color bar below panels, with arrows where values lie beyond its ends."""
    low = any((field < scale.norm.vmin).any() for field in fields)
    high = any((field > scale.norm.vmax).any() for field in fields)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(low), int(high)]
    bar = figure.colorbar(
        scale,
        ax=panels,
        location="bottom",
        extend=extend,
        shrink=0.8 / len(panels) + 0.1,
        aspect=20 + 8 * len(panels),
        pad=0.02,
    )
    bar.set_label(label, fontsize=size)
    bar.ax.tick_params(labelsize=0.9 * size)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4 if len(panels) == 1 else 5))


def value_range(*fields: xr.DataArray) -> tuple[float, float]:
    """Return the range from percentile 1 to 99 of all values that are there."""
    values = np.concatenate([field.values[np.isfinite(field.values)] for field in fields])
    if not len(values):
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(values, (1, 99)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def colors_of(*fields: xr.DataArray) -> tuple[str, tuple[float, float]]:
    """Return the color map and range of fields: around zero for what has a direction or is an anomaly."""
    field = fields[0]
    known = lookup(str(field.name))
    words = f"{field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}".lower()
    signed = (known is not None and known[0].short_name in _SIGNED) or any(word in words for word in _SIGNED_WORDS)
    if signed and (value_range(*fields)[0] < 0 < value_range(*fields)[1]):
        return DIVERGING, symmetric_range(*fields)
    return SEQUENTIAL, value_range(*fields)


def symmetric_range(*fields: xr.DataArray) -> tuple[float, float]:
    """Return a range around zero that reaches percentile 99 of the size of the values."""
    sizes = np.concatenate([np.abs(field.values[np.isfinite(field.values)]) for field in fields])
    limit = float(np.percentile(sizes, 99) or sizes.max() or 1.0) if len(sizes) else 1.0
    return -limit, limit
