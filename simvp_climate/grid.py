"""Latitude-longitude grids: area weights (the one definition) and whether longitude goes round the globe."""

import numpy as np
import xarray as xr

# degrees; coordinates stored as float32 or made with linspace carry noise far below this
_TOLERANCE = 1e-3


def latitude_weights(latitude: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the area of a grid cell at each latitude, relative to the mean over the rows.

    The area between the edges of a row is sin(upper edge) - sin(lower edge). Inner edges lie midway
    between the rows; the outer edges lie half the neighboring spacing beyond the outermost rows and are
    cut at the poles. So a row at a pole is half a cell, and the edge rows of a region are ordinary cells
    (as in WeatherBench-X; WeatherBench 2 stretches them to the poles). On an evenly spaced grid without
    rows at the poles this is cos(latitude) / mean(cos(latitude)).

    Parameters
    ----------
    latitude
        A one-dimensional coordinate in degrees north, ascending or descending, or a Dataset or DataArray
        that has one: called "latitude" or "lat", or marked so by `standard_name` or `units`.

    Returns
    -------
    DataArray over the latitude dimension with its coordinate, float64, no unit, mean 1. A single row has
    weight 1.

    Raises
    ------
    ValueError
        If there is no such coordinate, or its values are not strictly monotonic, not finite, or beyond
        90 degrees.
    """
    latitude = _find_latitude(latitude)
    degrees = latitude.values.astype(np.float64)
    _check_latitude(degrees, str(latitude.name))
    if len(degrees) == 1:
        weights = np.ones(1)
    else:
        middle = (degrees[1:] + degrees[:-1]) / 2
        first = degrees[0] - (middle[0] - degrees[0])
        last = degrees[-1] + (degrees[-1] - middle[-1])
        edges = np.clip(np.concatenate([[first], middle, [last]]), -90, 90)
        # the absolute value serves descending rows
        weights = np.abs(np.diff(np.sin(np.deg2rad(edges))))
        weights /= weights.mean()
    return xr.DataArray(
        weights,
        dims=latitude.dims,
        coords=latitude.reset_coords(drop=True).coords,
        name="latitude_weights",
        attrs={"long_name": "cell area relative to the mean over latitudes", "units": "1"},
    )


def closes_longitude(longitude: xr.DataArray | np.ndarray) -> bool:
    """Return whether evenly spaced longitudes (degrees, any range, any order) go once round the globe.

    False for a region, for unequal spacing, and where a meridian appears twice (0 and 360).
    """
    degrees = np.sort(np.asarray(longitude, dtype=np.float64).ravel() % 360)
    if len(degrees) < 2:
        return False
    # the gap across 360 counts like the others, so noise at 0 (359.99999 after the modulo) does no harm
    gaps = np.diff(degrees, append=degrees[0] + 360)
    return bool(np.abs(gaps - 360 / len(degrees)).max() < _TOLERANCE)


def _find_latitude(data: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the latitude coordinate of `data`, or `data` itself if it is one."""
    if isinstance(data, xr.DataArray) and (data.ndim == 1 and (data.name in data.dims or not data.coords)):
        return data
    found = [
        coordinate
        for name, coordinate in data.coords.items()
        if coordinate.ndim == 1
        and (
            str(name).lower() in ("latitude", "lat")
            or coordinate.attrs.get("standard_name") == "latitude"
            or coordinate.attrs.get("units") in ("degrees_north", "degree_north")
        )
    ]
    if len(found) != 1:
        raise ValueError(
            f"found {len(found)} one-dimensional latitudes among the coordinates {list(data.coords)}, one is"
            " needed. Give the coordinate itself: latitude_weights(ds['my_latitude'])"
        )
    return found[0]


def _check_latitude(degrees: np.ndarray, name: str) -> None:
    if not len(degrees) or not np.isfinite(degrees).all():
        raise ValueError(f"{name} is empty or has values that are not finite: {degrees}")
    if np.abs(degrees).max() > 90 + _TOLERANCE:
        raise ValueError(f"{name} reaches {degrees[np.abs(degrees).argmax()]:g}: latitudes are degrees from -90 to 90")
    steps = np.diff(degrees)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"{name} must increase or decrease strictly, but has {degrees}. Sort it: ds.sortby({name!r})")
