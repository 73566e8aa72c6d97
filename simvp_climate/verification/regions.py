"""Parts of the globe that are scored by themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import orient, rename, same_grid

# south, north, west, east in degrees: the boxes of WeatherBench 2's scores
BOXES = {
    "global": (-90, 90, -180, 180),
    "tropics": (-20, 20, -180, 180),
    "extratropics": None,  # both of the next two
    "northern extratropics": (20, 90, -180, 180),
    "southern extratropics": (-90, -20, -180, 180),
    "arctic": (60, 90, -180, 180),
    "antarctic": (-90, -60, -180, 180),
    "europe": (35, 75, -12.5, 42.5),
    "north america": (25, 60, -120, -75),
    "north atlantic": (25, 65, -70, -10),
    "north pacific": (25, 60, 145, -130),
    "east asia": (25, 60, 102.5, 150),
    "australia and new zealand": (-45, -12.5, 120, 175),
}

Region = tuple[float, float, float, float] | xr.DataArray


def region_masks(
    regions: Sequence[str] | Mapping[str, Region] | None, grid: Mapping[str, xr.DataArray]
) -> xr.DataArray | None:
    """Return 1 in the cells of each region and 0 elsewhere, dims (region, latitude, longitude).

    Parameters
    ----------
    regions
        Names of `BOXES`; or by name a box (south, north, west, east) in degrees, in which cells count whose center lies
        in it or on its edge, or a mask on the grid, a DataArray of booleans or of shares from 0 to 1 (which count from
        one half). A box with west > east crosses the date line. None: no regions.
    grid
        Coordinates latitude and longitude, in the order of the result.

    Raises
    ------
    ValueError
        If a region is unknown, has no cell, or is on another grid.
    """
    if regions is None:
        return None
    if isinstance(regions, str):
        raise ValueError(f"regions={regions!r} is one string, a list is needed: [{regions!r}]")
    if not isinstance(regions, Mapping):
        if unknown := [name for name in regions if name not in BOXES]:
            raise ValueError(
                f"regions {unknown} are unknown: choose from {list(BOXES)}, or give boxes by name, "
                "{'my region': (south, north, west, east)}"
            )
        regions = {name: BOXES[name] for name in regions}
    if not regions:
        raise ValueError(f"regions is empty: choose from {list(BOXES)}, or leave it out")
    latitude, longitude = grid["latitude"], grid["longitude"]
    masks = []
    for name, region in regions.items():
        if isinstance(region, xr.DataArray):
            mask = _on_grid(name, region, grid)
        elif region is None:
            mask = abs(latitude) >= 20 - 1e-3
        else:
            mask = _in_box(name, region, latitude, longitude)
        mask = (mask & xr.ones_like(longitude, dtype=bool)).transpose("latitude", "longitude")
        if not mask.any():
            raise ValueError(f"the region {name!r} has no cell of the grid: {region}")
        masks.append(mask.astype(np.float64).reset_coords(drop=True))
    # plain text labels: pandas would make them strings that NetCDF cannot hold
    labels = xr.DataArray(np.array(list(regions)), dims="region", name="region")
    return xr.concat(masks, labels, coords="minimal", compat="override", join="exact")


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
        found = orient(rename(mask.to_dataset(name="region_mask"), ["region_mask"]))
        same_grid(xr.Dataset(coords={dim: grid[dim] for dim in ("latitude", "longitude")}), found)
    except ValueError as error:
        raise ValueError(f"the mask of the region {name!r} does not fit the forecast: {error}") from error
    own = found["region_mask"]
    if extra := set(own.dims) - {"latitude", "longitude"}:
        raise ValueError(
            f"the mask of the region {name!r} has the dimensions {sorted(extra)}: pick one, mask.isel(...)"
        )
    return own.assign_coords({dim: grid[dim] for dim in ("latitude", "longitude")}) >= 0.5
