"""Weights of the grid cells, for the globe or for regions that are scored separately."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import canonicalize, rename
from simvp_climate.data.grid import check_same_grid, latitude_weights

SPACE = ("latitude", "longitude")

# (south, north, west, east) in degrees, or two of them: the regions of WeatherBench 2's scores.
BOXES = {
    "global": (-90, 90, -180, 180),
    "tropics": (-20, 20, -180, 180),
    "extratropics": ((-90, -20, -180, 180), (20, 90, -180, 180)),
    "northern extratropics": (20, 90, -180, 180),
    "southern extratropics": (-90, -20, -180, 180),
    "poles": ((-90, -60, -180, 180), (60, 90, -180, 180)),
    "arctic": (60, 90, -180, 180),
    "antarctic": (-90, -60, -180, 180),
    "europe": (35, 75, -12.5, 42.5),
    "north america": (25, 60, -120, -75),
    "north atlantic": (25, 65, -70, -10),
    "north pacific": (25, 60, 145, -130),
    "east asia": (25, 60, 102.5, 150),
    "australia and new zealand": (-45, -12.5, 120, 175),
}

Region = tuple[float, float, float, float] | tuple[float, float, float, float, str] | xr.DataArray | str
Regions = Sequence[str] | Mapping[str, Region] | None
Weights = Literal["area", "cos"] | None
_SURFACES = ("land", "sea")
_TOLERANCE = 1e-3  # degrees: the noise of coordinates must not exclude the edges of a box


def cell_weights(grid: Mapping, weights: Weights, regions: Regions, mask_source: xr.Dataset) -> xr.DataArray:
    """Return weights of the cells, (latitude), or with regions, see `region_masks`, (region, latitude, longitude)."""
    latitude = grid["latitude"]
    if weights == "area":
        rows = latitude_weights(latitude)
    elif weights == "cos":
        cosine = np.cos(np.deg2rad(latitude.astype(np.float64)))
        rows = cosine / cosine.mean()
    elif weights is None:
        rows = xr.ones_like(latitude, dtype=np.float64)
    else:
        raise ValueError(f"weights={weights!r} is unknown: choose 'area', 'cos' or None")
    masks = region_masks(regions, grid, mask_source)
    return rows if masks is None else masks * rows


def region_masks(
    regions: Regions, grid: Mapping[str, xr.DataArray], mask_source: xr.Dataset | None = None
) -> xr.DataArray | None:
    """Return 1 in the cells of each region and 0 elsewhere, dims (region, latitude, longitude), None without regions.

    `regions` are names: those of `BOXES`, "land" and "sea", or a box with a surface, "europe land", "tropics sea". Or a
    mapping of names to such names, to boxes or to masks. A box (south, north, west, east) in degrees contains the cells
    with their center inside or on its edge, and with a fifth element "land" or "sea" only these; west > east crosses
    the date line. A mask is a DataArray on the grid, of booleans or of shares from 0 to 1, of which at least 0.5
    counts. `mask_source` has the land-sea mask, for land (at least 0.5) and sea.
    """
    if regions is None:
        return None
    regions = _check_regions(regions)
    masks, land = [], None
    for name, region in regions.items():
        if isinstance(region, xr.DataArray):
            mask, description = _mask_on_grid(name, region, grid), "its mask is below one half everywhere"
        else:
            boxes, surface = _parse_name(region) if isinstance(region, str) else _parse_box(name, region)
            description = " and ".join(map(str, boxes)) + (f", {surface}" if surface else "")
            mask = False
            for box in boxes:
                mask = mask | _cells_in_box(name, box, grid["latitude"], grid["longitude"])
            if surface is not None:
                land = _land(mask_source, grid) if land is None else land
                mask = mask & (land if surface == "land" else ~land)
        mask = (mask & xr.ones_like(grid["longitude"], dtype=bool)).transpose(*SPACE)
        if not mask.any():
            raise ValueError(f"the region {name!r} has no cell of the grid: {description}")
        masks.append(mask.astype(np.float64).reset_coords(drop=True))
    # NumPy text labels: pandas would make them strings that NetCDF cannot store.
    labels = xr.DataArray(np.array(list(regions)), dims="region", name="region")
    return xr.concat(masks, labels, coords="minimal", compat="override", join="exact")


def _check_regions(regions: Sequence[str] | Mapping[str, Region]) -> Mapping[str, Region]:
    """Return the regions by name; raise ValueError if there are none, or if a name is repeated or unknown."""
    if isinstance(regions, str):
        raise ValueError(f"regions={regions!r} is one string, but must be a list: write [{regions!r}]")
    if not isinstance(regions, Mapping):
        names = list(regions)
        if repeated := sorted({str(name) for name in names if names.count(name) > 1}):
            raise ValueError(f"regions has {repeated[0]!r} twice: name each once")
        regions = {name: name for name in names}
    if not regions:
        raise ValueError(f"regions is empty: choose from {list(BOXES)}, or leave it out")
    if unknown := [region for region in regions.values() if isinstance(region, str) and _parse_name(region) is None]:
        raise ValueError(
            f"regions {unknown} are unknown. Choose from {[*BOXES, *_SURFACES]}, append ' land' or ' sea' to a box, or "
            "give boxes by name, {'my region': (south, north, west, east)}"
        )
    return regions


def _parse_name(name: str) -> tuple[tuple, str | None] | None:
    """Return the boxes of a named region and its surface, "land", "sea" or None; None if it is unknown."""
    box, _, surface = name.rpartition(" ")
    if name in _SURFACES:
        box, surface = "global", name
    if surface not in _SURFACES:
        box, surface = name, None
    if box not in BOXES:
        return None
    edges = BOXES[box]
    return (edges if isinstance(edges[0], tuple) else (edges,)), surface


def _parse_box(name: str, region: tuple) -> tuple[tuple, str | None]:
    """Return the box of a user-defined region as a tuple of one, and its surface, "land", "sea" or None."""
    try:
        *box, last = region
    except (TypeError, ValueError):
        last = None  # _cells_in_box raises
    if not isinstance(last, str):
        return (region,), None
    if last not in _SURFACES:
        raise ValueError(f"the region {name!r} ends with {last!r}: write 'land' or 'sea' after its four edges")
    return (tuple(box),), last


def _land(mask_source: xr.Dataset | None, grid: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Return the land cells as booleans, from the land-sea mask in the data."""
    try:
        if mask_source is None:
            raise ValueError("no dataset was passed")
        mask = rename(mask_source, ["land_sea_mask"])["land_sea_mask"]
    except ValueError as error:
        raise ValueError(
            "the regions land and sea need a land-sea mask in the truth. Open it with the data, "
            f"open_dataset(path, [..., 'land_sea_mask']), or pass regions={{'land': mask}} ({error})"
        ) from error
    return _mask_on_grid("land", mask.isel(time=0, drop=True) if "time" in mask.dims else mask, grid)


def _cells_in_box(name: str, box: tuple, latitude: xr.DataArray, longitude: xr.DataArray) -> xr.DataArray:
    """Return the cells with their center in a box (south, north, west, east) or on its edge."""
    try:
        south, north, west, east = (float(edge) for edge in box)
    except (TypeError, ValueError):
        rule = "write (south, north, west, east) in degrees, or give a DataArray"
        raise ValueError(f"the region {name!r} is {box!r}: {rule}") from None
    if south > north:
        raise ValueError(f"the region {name!r} must be (south, north, west, east), but {south:g} is north of {north:g}")
    # Longitudes as degrees east of the western edge, from 0 to 360.
    width = 360.0 if east - west >= 360 else (east - west) % 360
    eastward = (longitude - west + _TOLERANCE) % 360 - _TOLERANCE
    in_width = eastward <= width + _TOLERANCE if width < 360 else xr.ones_like(longitude, dtype=bool)
    return (latitude >= south - _TOLERANCE) & (latitude <= north + _TOLERANCE) & in_width


def _mask_on_grid(name: str, mask: xr.DataArray, grid: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Return where a mask is at least one half, with the coordinates of the grid."""
    try:
        oriented = canonicalize(mask.to_dataset(name="region_mask"), ["region_mask"]).dataset
        check_same_grid(grid, oriented)
    except ValueError as error:
        raise ValueError(f"the mask of the region {name!r} does not fit the forecast: {error}") from error
    mask = oriented["region_mask"]
    if extra := sorted(set(mask.dims) - set(SPACE)):
        raise ValueError(f"the mask of the region {name!r} has the dimensions {extra}: pick one, mask.isel(...)")
    return mask.assign_coords({dim: grid[dim] for dim in SPACE}) >= 0.5
