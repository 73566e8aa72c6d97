"""Grid cells on a map: projections, coastlines, colors.

Cells are drawn one by one, never interpolated, and those that are NaN stay gray. Coastlines are Natural Earth's, from a
file inside the package: no map needs a network.
"""

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
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from simvp_climate.data.grid import closes_longitude
from simvp_climate.plot.style import color_bar_below

_NO_VALUE = "0.85"
_POLAR_EDGE = 20.0  # degrees: a map of a pole shows what is beyond
_COAST_FILE = ("natural_earth", "shapefiles", "natural_earth", "physical", "ne_110m_coastline.shp")


def edges_of(centers: np.ndarray) -> np.ndarray:
    """Return the edges of cells from their centers, the outer ones as far out as the inner ones."""
    if len(centers) == 1:
        return np.array([centers[0] - 0.5, centers[0] + 0.5])
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def degrees_text(value: float, dim: str) -> str:
    """Return how to write a latitude or a longitude."""
    value = (value + 180) % 360 - 180 if dim == "longitude" else value
    positive, negative = ("E", "W") if dim == "longitude" else ("N", "S")
    return f"{abs(value):g}°{'' if value in (0, -180) else positive if value > 0 else negative}"


def longitude_edges(field: xr.DataArray) -> tuple[np.ndarray, bool]:
    """Return the edges of the columns of cells, and whether they go round the globe."""
    edges = edges_of(field["longitude"].values)
    is_ring = closes_longitude(field["longitude"].values)
    if is_ring:
        edges[-1] = edges[0] + 360
    return edges, is_ring


def _west_end(projection: ccrs.Projection) -> float:
    """Return the longitude at which a map begins."""
    # that of PlateCarree is a prime meridian
    middle = projection.proj4_params.get("lon_0", projection.proj4_params.get("pm", 0.0))
    return float(middle) - 180


def pole_of(projection: ccrs.Projection | None) -> int:
    """Return 1 for a map around the north pole, -1 for one around the south pole, and 0 for all others."""
    if projection is None:
        return 0
    azimuthal = projection.proj4_params.get("proj") in ("stere", "laea", "aeqd", "ortho", "gnom")
    latitude = float(projection.proj4_params.get("lat_0", 0.0))
    return int(np.sign(latitude)) if azimuthal and abs(latitude) == 90 else 0


def beyond_edge(field: xr.DataArray, projection: ccrs.Projection | None) -> xr.DataArray:
    """Return a field as far as a map shows it: maps of a pole end at 20 degrees, where there is more than a cap.

    All of the globe would leave the pole a dot in the middle of a map of the other hemisphere.
    """
    pole = pole_of(projection)
    inside = pole * field["latitude"].values >= _POLAR_EDGE
    return field.isel(latitude=inside) if pole and inside.any() else field


def check_projection(projection: object) -> None:
    """Raise ValueError if something else than a projection of cartopy is given."""
    if projection is not None and not isinstance(projection, ccrs.Projection):
        raise ValueError(
            f"projection={projection!r} is a {type(projection).__name__}: give one of cartopy, cartopy.crs.Robinson()"
        )


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
        pole = pole_of(panel.projection)
        if pole and is_ring and pole * (north if pole < 0 else south) > 0:
            _show_cap(panel, south if pole > 0 else north)
        elif is_globe or len(_cut(edges, is_ring, _west_end(panel.projection))) > 1:
            panel.set_global()
        else:
            panel.set_extent((west, east, south, north), crs=frame)
        panel.add_feature(_coastlines(), facecolor="none", edgecolor="0.1", linewidth=0.6)
        panel.spines["geo"].set_linewidth(0.6)
        if plain:
            # by hand: cartopy's grid lines have no meridian that is labeled in a region across 180 degrees
            meridians, parallels = LongitudeLocator(nbins=5), LatitudeLocator(nbins=5)
            x = np.array([tick for tick in meridians.tick_values(*edges[[0, -1]]) if edges[0] <= tick <= edges[-1]])
            y = np.array([tick for tick in parallels.tick_values(south, north) if south <= tick <= north])
            panel.set_xticks(x - middle)
            panel.set_xticklabels([degrees_text(tick, "longitude") for tick in x], fontsize=0.8 * size)
            panel.set_yticks(y)
            texts = [degrees_text(tick, "latitude") if k % shape[1] == 0 else "" for tick in y]
            panel.set_yticklabels(texts, fontsize=0.8 * size)
            panel.tick_params(length=2, width=0.6)
            # true proportions in the middle of the region, as on a paper map
            panel.set_aspect(1 / np.cos(np.deg2rad(np.clip((south + north) / 2, -70, 70))))
        panels.append(panel)
    return panels


def _show_cap(panel: GeoAxes, latitude: float) -> None:
    """Let a map of a pole end at a circle of latitude: its corners would be empty."""
    around = np.linspace(-180, 180, 181)
    places = panel.projection.transform_points(ccrs.PlateCarree(), around, np.full_like(around, latitude))
    radius = float(np.hypot(places[:, 0], places[:, 1]).max())
    panel.set_xlim(-radius, radius)
    panel.set_ylim(-radius, radius)
    turn = np.linspace(0, 2 * np.pi, 361)
    panel.set_boundary(Path(0.5 + 0.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)), transform=panel.transAxes)


def fit_height(figure: Figure, panels: Sequence[GeoAxes], lines: int) -> None:
    """Make a new figure as high as its rows of maps need to fill the width, and settle its layout."""
    ratio = float(np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6))
    width = figure.get_size_inches()[0]
    # titles and bars come on top of the maps; how much they take, the layout knows
    figure.set_size_inches(width, lines * (ratio * width / 2 + 1.0) + 1.0)
    for _ in range(3):  # the layout of maps settles in rounds
        figure.get_layout_engine().execute(figure)
        height = figure.get_size_inches()[1]
        room = panels[0].get_position(original=True)
        figure.set_size_inches(width, height + lines * (ratio * room.width * width - room.height * height))
    figure.get_layout_engine().execute(figure)


@cache
def _coastlines() -> ShapelyFeature:
    # not cartopy.feature.COASTLINE, which would download; cached, so that its lines are projected once
    file = importlib.resources.files("simvp_climate").joinpath(*_COAST_FILE)
    with importlib.resources.as_file(file) as path:
        return ShapelyFeature(tuple(Reader(path).geometries()), ccrs.PlateCarree())


def draw_cells(panel: GeoAxes, field: xr.DataArray, limits: tuple[float, float], colors: Colormap) -> ScalarMappable:
    """Draw the cells and return the color scale."""
    scale = ScalarMappable(Normalize(*limits), colors)
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
    figure: Figure,
    scale: ScalarMappable,
    panels: Sequence[Axes],
    label: str,
    fields: Sequence,
    size: float,
    across: int,
) -> None:
    """Add a color bar below panels, of which so many stand in a row, with arrows where values lie beyond its ends."""
    low = any((field < scale.norm.vmin).any() for field in fields)
    high = any((field > scale.norm.vmax).any() for field in fields)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(low), int(high)]
    bar = color_bar_below(
        figure, scale, panels, label, size, extend=extend, shrink=0.8 / across + 0.1, aspect=20 + 8 * across
    )
    bar.ax.xaxis.set_major_locator(MaxNLocator(4 if across == 1 else 5))
