"""Latitude-longitude grids: area weights (the one definition), do longitudes go round the globe, regridding."""

import difflib
import re
import warnings

import numpy as np
import xarray as xr

# degrees; coordinates stored as float32 or made with linspace carry noise far below this
_TOLERANCE = 1e-3

_UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degree_N"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degree_E"),
}
# attributes that describe the grid and the values on it, GRIB's as cfgrib hands them on
_ABOUT_GRID = re.compile(
    r"actual_range|bounds|cell_measures|stored_direction"
    r"|GRIB_(N[xyV]|grid.*|numberOfPoints|.*InDegrees|.*Scans.*|.*PointsAreConsecutive)"
)
# what climate models and forecasts in HEALPix call the dimension of its cells
_CELLS = {"cell", "cells", "ncells", "healpix", "healpix_index", "hpx", "pix", "pixel", "ipix", "npix", "values"}
_OTHER_REGRIDDERS = "xESMF, CDO (remapcon) or earthkit-regrid can regrid it to a regular latitude-longitude grid"

# WeatherBench's grids: columns, rows, whether the outer rows lie on the poles
_SIZES = {
    "5.625deg": (64, 32, False),
    "2.8125deg": (128, 64, False),
    "1.40625deg": (256, 128, False),
    "1.5deg": (240, 121, True),
    "0.25deg": (1440, 721, True),
}
# as in the names of WeatherBench 2's stores
_STORE_NAMES = {
    f"{columns}x{rows}{suffix}": (columns, rows, poles)
    for columns, rows, poles in (*_SIZES.values(), (360, 181, True))
    for suffix in ("", f"_equiangular{'_with_poles' if poles else ''}_conservative")
}
_GRIDS = _SIZES | _STORE_NAMES


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
        # the absolute value serves descending rows
        weights = np.abs(np.diff(np.sin(np.deg2rad(_latitude_edges(degrees)))))
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


def reaches_poles(latitude: xr.DataArray | np.ndarray) -> str:
    """Return how the rows of a grid reach the poles: "rows" (both outermost lie on them), "between", or "no".

    "between": between both outermost rows and the poles no further row would fit. Latitudes in degrees, any order.
    """
    degrees = np.sort(np.asarray(latitude, dtype=np.float64).ravel())
    if len(degrees) and np.allclose(degrees[[0, -1]], (-90, 90), rtol=0, atol=_TOLERANCE):
        return "rows"
    if len(degrees) < 2:
        return "no"
    left = degrees[0] + 90, 90 - degrees[-1]
    return "between" if left[0] < degrees[1] - degrees[0] and left[1] < degrees[-1] - degrees[-2] else "no"


def why_healpix(dataset: xr.Dataset) -> str | None:
    """Return the words that refuse a HEALPix grid, or None if nothing says that it is one.

    What says so is the word in the names or texts of attributes (`grid_mapping_name`, `healpix_nside`,
    `GRIB_gridType`), or a dimension with a usual name and 12 * nside**2 cells, nside a power of two.
    """
    told = any(
        "healpix" in str(key).lower() or (isinstance(value, str) and "healpix" in value.lower())
        for variable in dataset.variables.values()
        for key, value in variable.attrs.items()
        if str(key).startswith(("grid", "GRIB_grid", "healpix", "crs"))
    )
    whole = {12 * 4**order for order in range(1, 16)}
    cells = [dim for dim, size in dataset.sizes.items() if str(dim).lower() in _CELLS and (told or size in whole)]
    if not cells:
        return None
    return (
        f"the {dataset.sizes[cells[0]]} cells of dimension {cells[0]!r} look like a HEALPix grid, which has no rows "
        "and columns. Regrid to a regular latitude-longitude grid first, for example with earthkit-regrid or earth2grid"
    )


def regrid(dataset: xr.Dataset, grid: str | xr.Dataset, *, min_valid: float = 0.5) -> xr.Dataset:
    """Return the dataset on another latitude-longitude grid, every value the area mean over its cell.

    First-order conservative: a new value is the mean of the old cells, each by the area of it that lies in
    the new cell. Between global grids the area mean (`latitude_weights`) stays the same. Cell areas are
    spherical, longitudes go round the globe, and a row at a pole is half a cell. Edges of cells lie midway
    between the coordinates, also where the file has bounds; the outermost rows reach to the poles where no
    further row would fit (Gaussian grids).

    Missing values are left out: the value is the mean over the part of the cell that has values, NaN where
    that is less than `min_valid` of its area.

    Parameters
    ----------
    dataset
        On a regular latitude-longitude grid, global or a region, with any names, order and range. Variables
        chunked with dask stay lazy and keep their chunks in the other dimensions; all others are read, so
        chunk a large store first: `ds.chunk(time=100)`.
    grid
        A grid of WeatherBench: "5.625deg", "2.8125deg", "1.40625deg" (no rows at the poles), "1.5deg",
        "0.25deg" (with), or as in WeatherBench 2's store names, "64x32_equiangular_conservative" or "64x32".
        Latitudes ascend, but descend at 0.25 degrees, as published; longitudes are 0 to under 360. Or a
        Dataset, whose latitudes and longitudes are taken.
    min_valid
        Part of a new cell's area, 0 to 1, that must have values. With 0 any value is enough.

    Returns
    -------
    Dataset with the variables, names, attributes and dimension order of `dataset`, and the latitudes and
    longitudes of `grid` under their old names. Floating types stay; integers and booleans become floating.
    Variables without latitude or longitude stay as they are; bounds of the old cells, other coordinates on
    the old grid and attributes that describe it are left out. Everything is averaged: right for
    temperature and for precipitation in mm, wrong for what belongs to a whole cell, such as its area or
    kilograms in it.

    Raises
    ------
    ImportError
        If xarray-regrid is not installed.
    ValueError
        If `grid` is neither a name nor a Dataset, the name is not known, the dataset or the target has no
        regular latitude-longitude grid, a cell of the target reaches beyond the dataset, or a variable holds
        text, dates or classes (CF `flag_values`), which have no mean.

    Warns
    -----
    UserWarning
        If the target is finer: one old value then fills several cells, no detail is gained.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"a {type(dataset).__name__} was given, a Dataset is needed: array.to_dataset(name='t2m')")
    if not 0 <= min_valid <= 1:
        raise ValueError(f"min_valid={min_valid!r} must lie in [0, 1]: it is a part of a cell's area")
    if not isinstance(grid, str | xr.Dataset):
        raise ValueError(
            f"grid={grid!r} is neither a name nor a Dataset: names are {', '.join(_SIZES)} and sizes such as '64x32'; "
            "for any other grid give a Dataset with its latitude and longitude"
        )
    target = _named_grid(grid) if isinstance(grid, str) else grid
    old = {role: _axis(dataset, role, "the dataset") for role in _UNITS}
    new = {role: _axis(target, role, "the target grid") for role in _UNITS}
    degrees = {role: (old[role].values.astype(np.float64), new[role].values.astype(np.float64)) for role in _UNITS}
    weights = {
        old["latitude"].name: _overlap_of_rows(*degrees["latitude"]),
        old["longitude"].name: _overlap_of_columns(*degrees["longitude"]),
    }
    if finer := [role for role, (before, after) in degrees.items() if _spacing(after) < 0.99 * _spacing(before)]:
        before, after = (_spacing(values) for values in degrees[finer[0]])
        warnings.warn(
            f"the target is finer than the dataset ({after:g} against {before:g} degrees of {finer[0]}): area means "
            "add no detail, one old value fills several cells. For a smooth field interpolate instead: ds.interp(...)",
            stacklevel=2,
        )
    on_grid = [name for name, variable in dataset.variables.items() if set(weights) & set(variable.dims)]
    bounds = {axis.attrs.get("bounds") or axis.encoding.get("bounds") for axis in old.values()}
    averages = {
        name: _average(str(name), dataset[name].variable, weights, min_valid)
        for name in on_grid
        if name in dataset.data_vars and name not in bounds
    }
    coords = {
        axis.name: xr.Variable(axis.dims, new[role].values, _kept_attrs(axis.attrs, "valid_min", "valid_max"))
        for role, axis in old.items()
    }
    result = dataset.drop_vars(on_grid).assign(averages).assign_coords(coords)
    ordered = {name: result.variables[name] for name in dataset.data_vars if name in result}
    return xr.Dataset(ordered, result.coords, dataset.attrs)


def _average(name: str, variable: xr.Variable, weights: dict[str, np.ndarray], min_valid: float) -> xr.Variable:
    """Return a variable on the new grid; `weights` are (old, new) for each dimension."""
    if variable.dtype.kind not in "fiub" or "flag_values" in variable.attrs:
        raise ValueError(
            f"{name!r} holds {'classes' if 'flag_values' in variable.attrs else variable.dtype}, which have no mean: "
            f"leave it out, ds.drop_vars({name!r})"
        )
    # The library applies the weights, and knows NaN and dask. Weights of its own are not used: they give rows
    # at the poles no area, mix the edge rows along longitude, and cut rows in degrees, so that the area mean
    # is not kept.
    try:
        from xarray_regrid.methods.conservative import apply_weights, format_weights
    except ImportError as error:
        raise ImportError("regrid needs xarray-regrid: pip install 'simvp-climate[regrid]'") from error
    # without coordinates: nothing to align
    data = xr.DataArray(variable.astype(np.result_type(variable.dtype, np.float32)))
    matrices = {
        dim: format_weights(
            xr.DataArray(matrix, dims=(dim, f"target_{dim}")), dim, data.dtype, data.chunksizes.get(dim), None
        )
        for dim, matrix in weights.items()
        if dim in data.dims
    }
    # the sum of the weights of half a cell may come out a little under a half
    threshold = min(1 - min_valid + 1e-4, 1)
    result = apply_weights(data, matrices, skipna=variable.dtype.kind == "f", nan_threshold=threshold)
    return xr.Variable(result.dims, result.data, _kept_attrs(variable.attrs)).astype(data.dtype)


def _kept_attrs(attrs: dict, *others: str) -> dict:
    """Return the attributes that are still true on another grid, and none of `others`."""
    return {key: value for key, value in attrs.items() if not _ABOUT_GRID.fullmatch(key) and key not in others}


def _overlap_of_rows(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return (old, new): which part of a new row's area lies in each old row."""
    (old_south, old_north), (south, north) = _rows(old), _rows(new)
    if south.min() < old_south.min() - _TOLERANCE or north.max() > old_north.max() + _TOLERANCE:
        _refuse_outside("latitude", (south.min(), north.max()), (old_south.min(), old_north.max()))
    old_south, old_north, south, north = (np.sin(np.deg2rad(edge)) for edge in (old_south, old_north, south, north))
    shared = np.minimum(old_north[:, None], north) - np.maximum(old_south[:, None], south)
    shared = np.maximum(shared, 0)
    return shared / shared.sum(0)


def _overlap_of_columns(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return (old, new): which part of a new column lies in each old column, longitudes modulo 360."""
    (old_west, old_east), (west, east) = _columns(old), _columns(new)
    shared = np.zeros((len(old), len(new)))
    for turn in (-720, -360, 0, 360, 720):
        part = np.minimum(old_east[:, None] + turn, east) - np.maximum(old_west[:, None] + turn, west)
        shared += np.maximum(part, 0)
    covered = shared.sum(0)
    if (covered < east - west - _TOLERANCE).any():
        _refuse_outside("longitude", (west.min(), east.max()), (old_west.min(), old_east.max()))
    return shared / covered


def _rows(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the southern and northern edges of rows, in their order."""
    edges = _latitude_edges(degrees)
    south, north = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    last, first = north.argmax(), south.argmin()
    if 2 * north[last] - south[last] > 90 + _TOLERANCE:
        north[last] = 90
    if 2 * south[first] - north[first] < -90 - _TOLERANCE:
        south[first] = -90
    return south, north


def _columns(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the western and eastern edges of columns, in their order; a region is in one piece."""
    order = np.argsort(degrees % 360)
    ascending = (degrees % 360)[order]
    gaps = np.diff(ascending, append=ascending[0] + 360)
    before, after = gaps, gaps  # round the globe they are all the same
    if not closes_longitude(degrees):
        # begin after the largest gap; the outer cells extend as far outward as inward
        start = gaps.argmax() + 1
        order, ascending, gaps = (np.roll(values, -start) for values in (order, ascending, gaps))
        inner = gaps[:-1]
        before, after = np.append(inner[0], inner), np.append(inner, inner[-1])
        ascending = ascending[0] + np.append(0, inner.cumsum())
    west, east = np.empty_like(ascending), np.empty_like(ascending)
    west[order], east[order] = ascending - before / 2, ascending + after / 2
    return west, east


def _latitude_edges(degrees: np.ndarray) -> np.ndarray:
    """Return the edges of at least two rows, one more than rows, in their order."""
    middle = (degrees[1:] + degrees[:-1]) / 2
    first = degrees[0] - (middle[0] - degrees[0])
    last = degrees[-1] + (degrees[-1] - middle[-1])
    return np.clip(np.concatenate([[first], middle, [last]]), -90, 90)


def _refuse_outside(role: str, target: tuple[float, float], source: tuple[float, float]) -> None:
    raise ValueError(
        f"the target's cells reach from {role} {target[0]:g} to {target[1]:g}, those of the dataset from "
        f"{source[0]:g} to {source[1]:g}: values beyond are not known. Give a Dataset with the part of the grid "
        "that lies inside"
    )


def _spacing(degrees: np.ndarray) -> float:
    """Return the usual distance of neighbors; the median passes over the jump at a seam."""
    return float(np.median(np.abs(np.diff(degrees))))


def _named_grid(name: str) -> xr.Dataset:
    if name not in _GRIDS:
        near = difflib.get_close_matches(name, _GRIDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"grid {name!r} is not known: {hint}Names are {', '.join(_SIZES)} and sizes such as '64x32'; for any other "
            "grid give a Dataset with its latitude and longitude"
        )
    columns, rows, poles = _GRIDS[name]
    latitude = np.linspace(-90, 90, rows) if poles else -90 + (np.arange(rows) + 0.5) * 180 / rows
    if rows == 721:
        latitude = latitude[::-1]
    return xr.Dataset(coords={"latitude": latitude, "longitude": np.arange(columns) * 360 / columns})


def _axis(dataset: xr.Dataset, role: str, owner: str) -> xr.DataArray:
    """Return the latitude or the longitude of a regular grid, at least two values, checked."""
    found = {
        name: variable
        for name, variable in dataset.variables.items()
        if str(name).lower() in (role, role[:3])
        or variable.attrs.get("standard_name") == role
        or variable.attrs.get("units") in _UNITS[role]
    }
    names = [name for name, variable in found.items() if variable.dims == (name,)]
    usual = [name for name in names if str(name).lower() in (role, role[:3])]
    names = usual if len(usual) == 1 else names
    if len(names) > 1:
        raise ValueError(f"several dimensions of {owner} could be the {role}: {names}. Keep one grid: ds[[...]]")
    if not names and found:
        raise ValueError(_why_not_regular(role, owner, *next(iter(found.items()))))
    if not names and (healpix := why_healpix(dataset)):
        raise ValueError(f"no {role} found in {owner}: {healpix}")
    if not names:
        raise ValueError(
            f"no {role} found: {owner} has the coordinates {list(dataset.coords)}. If one of them is the {role}, say "
            f'so: ds["name"].attrs["standard_name"] = "{role}"'
        )
    coordinate = dataset[names[0]]
    degrees = coordinate.values
    if len(degrees) < 2:
        raise ValueError(
            f"{owner} has {len(degrees)} {role}s, at least 2 are needed: their distance is the size of the cells"
        )
    if role == "latitude":
        _check_latitude(degrees, f"{names[0]!r} of {owner}")
    else:
        _check_longitude(degrees, f"{names[0]!r} of {owner}", names[0])
    return coordinate


def _why_not_regular(role: str, owner: str, name: str, variable: xr.Variable) -> str:
    if variable.ndim == 0:
        return f"{name!r} of {owner} is a single value, regridding needs a dimension with at least 2 {role}s"
    text = (
        f"{name!r} of {owner} has the dimensions {variable.dims}: a curvilinear (rotated, ocean, regional model) or "
        f"unstructured grid. {_OTHER_REGRIDDERS}"
    )
    if variable.ndim == 1:
        text += f"; if it is regular already, say so: ds.swap_dims({variable.dims[0]}={name!r})"
    return text


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


def _check_longitude(degrees: np.ndarray, name: str, key: str) -> None:
    if not np.isfinite(degrees).all():
        raise ValueError(f"{name} has values that are not finite: {degrees}")
    ascending = np.sort(degrees.astype(np.float64) % 360)
    gaps = np.diff(ascending, append=ascending[0] + 360)
    if gaps.min() < _TOLERANCE:
        raise ValueError(
            f"{name} has the meridian {ascending[gaps.argmin()]:g} twice (0 and 360 are one). Drop the second one: "
            f"ds.isel({key}=slice(None, -1))"
        )


def _check_latitude(degrees: np.ndarray, name: str) -> None:
    if not len(degrees) or not np.isfinite(degrees).all():
        raise ValueError(f"{name} is empty or has values that are not finite: {degrees}")
    if np.abs(degrees).max() > 90 + _TOLERANCE:
        raise ValueError(f"{name} reaches {degrees[np.abs(degrees).argmax()]:g}: latitudes are degrees from -90 to 90")
    steps = np.diff(degrees)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"{name} must increase or decrease strictly, but has {degrees}. Sort it: ds.sortby({name!r})")
