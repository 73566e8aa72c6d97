"""Parts of the globe that are scored by themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import canonicalize, rename
from simvp_climate.data.grid import check_same_grid

# south, north, west, east in degrees: the boxes of WeatherBench 2's scores, some regions are two of them
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

Box = tuple[float, float, float, float]
Region = Box | tuple[float, float, float, float, str] | xr.DataArray | str
_SURFACES = ("land", "sea")


def region_masks(
    regions: Sequence[str] | Mapping[str, Region] | None,
    grid: Mapping[str, xr.DataArray],
    beside: xr.Dataset | None = None,
) -> xr.DataArray | None:
    """Return 1 in the cells of each region and 0 elsewhere, dims (region, latitude, longitude).

    Parameters
    ----------
    regions
        Names: those of `BOXES`, "land" and "sea", and both within a box, "europe land", "tropics sea". Or by names of
        your own any of these; or a box (south, north, west, east) in degrees, in which cells count whose center lies in
        it or on its edge, and with a fifth "land" or "sea" only such cells in it; or a mask on the grid, a DataArray of
        booleans or of shares from 0 to 1 (which count from one half). A box with west > east crosses the date line.
        None: no regions.
    grid
        Coordinates latitude and longitude, in the order of the result.
    beside
        What has the land-sea mask, for land and sea: cells are land from one half.

    Raises
    ------
    ValueError
        If a region is unknown, is there twice or has no cell, a mask is on another grid, or there is no land-sea mask.
    """
    if regions is None:
        return None
    if isinstance(regions, str):
        raise ValueError(f"regions={regions!r} is one string, a list is needed: [{regions!r}]")
    if not isinstance(regions, Mapping):
        named = list(regions)
        if twice := sorted({str(name) for name in named if named.count(name) > 1}):
            raise ValueError(f"regions has {twice[0]!r} twice: name each once")
        regions = {name: name for name in named}
    if not regions:
        raise ValueError(f"regions is empty: choose from {list(BOXES)}, or leave it out")
    if unknown := [region for region in regions.values() if isinstance(region, str) and _named(region) is None]:
        raise ValueError(
            f"regions {unknown} are unknown: choose from {[*BOXES, *_SURFACES]}, one of the first with ' land' or "
            "' sea' behind it, or give boxes by name, {'my region': (south, north, west, east)}"
        )
    masks, land = [], None
    for name, region in regions.items():
        if isinstance(region, xr.DataArray):
            mask, where = _on_grid(name, region, grid), "its mask is below one half everywhere"
        else:
            boxes, surface = _named(region) if isinstance(region, str) else _own(name, region)
            where = " and ".join(map(str, boxes)) + (f", {surface}" if surface else "")
            mask = False
            for box in boxes:
                mask = mask | _in_box(name, box, grid["latitude"], grid["longitude"])
            if surface is not None:
                land = _land(beside, grid) if land is None else land
                mask = mask & (land if surface == "land" else ~land)
        mask = (mask & xr.ones_like(grid["longitude"], dtype=bool)).transpose("latitude", "longitude")
        if not mask.any():
            raise ValueError(f"the region {name!r} has no cell of the grid: {where}")
        masks.append(mask.astype(np.float64).reset_coords(drop=True))
    # plain text labels: pandas would make them strings that NetCDF cannot hold
    labels = xr.DataArray(np.array(list(regions)), dims="region", name="region")
    return xr.concat(masks, labels, coords="minimal", compat="override", join="exact")


def _named(name: str) -> tuple[tuple, str | None] | None:
    """Return the boxes that a name stands for, and whether it is the land or the sea in them; None if unknown."""
    box, _, surface = name.rpartition(" ")
    if name in _SURFACES:
        box, surface = "global", name
    if surface not in _SURFACES:
        box, surface = name, None
    if box not in BOXES:
        return None
    found = BOXES[box]
    return (found if isinstance(found[0], tuple) else (found,)), surface


def _own(name: str, region: tuple) -> tuple[tuple, str | None]:
    """Return a box of one's own, and whether it is the land or the sea in it."""
    try:
        *box, last = region
    except (TypeError, ValueError):
        return (region,), None  # refused as a box
    if not isinstance(last, str):
        return (region,), None
    if last not in _SURFACES:
        raise ValueError(f"the region {name!r} ends with {last!r}: write 'land' or 'sea' after its four edges")
    return (tuple(box),), last


def _land(beside: xr.Dataset | None, grid: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Return which cells are land, from the land-sea mask that comes with the data."""
    try:
        if beside is None:
            raise ValueError("no data are given that could have one")
        mask = rename(beside, ["land_sea_mask"])["land_sea_mask"]
    except ValueError as error:
        raise ValueError(
            "the regions land and sea take a land-sea mask in the truth, and there is none: open it with the data "
            f"(open_dataset(path, [..., 'land_sea_mask'])), or give regions={{'land': mask}} ({error})"
        ) from error
    return _on_grid("land", mask.isel(time=0, drop=True) if "time" in mask.dims else mask, grid)


def _in_box(name: str, box: tuple, latitude: xr.DataArray, longitude: xr.DataArray) -> xr.DataArray:
    try:
        south, north, west, east = (float(edge) for edge in box)
    except (TypeError, ValueError):
        raise ValueError(
            f"the region {name!r} is {box!r}: write (south, north, west, east) in degrees, or give a DataArray"
        ) from None
    if south > north:
        raise ValueError(f"the region {name!r} has its south {south:g} north of its north {north:g}")
    # degrees east of the western edge; noise of coordinates must not cut off the edges
    width = 360.0 if east - west >= 360 else (east - west) % 360
    along = (longitude - west + 1e-3) % 360 - 1e-3
    inside = along <= width + 1e-3 if width < 360 else xr.ones_like(longitude, dtype=bool)
    return (latitude >= south - 1e-3) & (latitude <= north + 1e-3) & inside


def _on_grid(name: str, mask: xr.DataArray, grid: Mapping[str, xr.DataArray]) -> xr.DataArray:
    try:
        found = canonicalize(mask.to_dataset(name="region_mask"), ["region_mask"]).dataset
        check_same_grid(xr.Dataset(coords={dim: grid[dim] for dim in ("latitude", "longitude")}), found)
    except ValueError as error:
        raise ValueError(f"the mask of the region {name!r} does not fit the forecast: {error}") from error
    own = found["region_mask"]
    if extra := set(own.dims) - {"latitude", "longitude"}:
        raise ValueError(
            f"the mask of the region {name!r} has the dimensions {sorted(extra)}: pick one, mask.isel(...)"
        )
    return own.assign_coords({dim: grid[dim] for dim in ("latitude", "longitude")}) >= 0.5
