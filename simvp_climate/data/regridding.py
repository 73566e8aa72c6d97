"""First-order conservative regridding between latitude-longitude grids."""

import difflib
import re
import warnings

import numpy as np
import xarray as xr

from simvp_climate.data.grid import TOLERANCE, check_axis, closes_longitude, find_horizontal, latitude_edges

# attributes that describe the grid and the values on it, those of GRIB as named by cfgrib
_ABOUT_GRID = re.compile(
    r"actual_range|bounds|cell_measures|stored_direction"
    r"|GRIB_(N[xyV]|grid.*|numberOfPoints|.*InDegrees|.*Scans.*|.*PointsAreConsecutive)"
)

# WeatherBench's grids and that of NCEP's reanalyses, 2.5deg: columns, rows, whether the outer rows lie on the poles
_SIZES = {
    "5.625deg": (64, 32, False), "2.8125deg": (128, 64, False), "1.40625deg": (256, 128, False),
    "2.5deg": (144, 73, True), "1.5deg": (240, 121, True), "0.25deg": (1440, 721, True),
}  # fmt: skip
# as in the names of WeatherBench 2's stores
_STORE_NAMES = {
    f"{columns}x{rows}{suffix}": (columns, rows, poles)
    for columns, rows, poles in (*_SIZES.values(), (360, 181, True))
    for suffix in ("", f"_equiangular{'_with_poles' if poles else ''}_conservative")
}
_GRIDS = _SIZES | _STORE_NAMES


def regrid(dataset: xr.Dataset, grid: str | xr.Dataset, *, min_valid: float = 0.5) -> xr.Dataset:
    """Return the dataset on another latitude-longitude grid, every value the area mean over its cell.

    First-order conservative: a new value is the mean of the old cells, weighted by their areas within the new cell.
    Between global grids the area mean (`latitude_weights`) stays the same. Cell areas are spherical, longitudes are
    periodic, and a row at a pole is half a cell. Edges lie midway between the coordinates, also where the file has
    bounds; the outermost rows extend to the poles where no further row would fit (Gaussian grids). To a finer grid
    (with a warning), one old value fills several cells.

    Parameters
    ----------
    dataset
        On a regular latitude-longitude grid, global or a region. Variables chunked with dask stay lazy; all others
        are read, so chunk a large store first: `ds.chunk(time=100)`.
    grid
        A grid of WeatherBench: "5.625deg", "2.8125deg", "1.40625deg" (no rows at the poles), "1.5deg", "0.25deg"
        (with), or as in WeatherBench 2's store names, "64x32_equiangular_conservative" or "64x32". "2.5deg" is the grid
        of NCEP's reanalyses, 144 x 73 with rows at the poles. Latitudes ascend, but descend at 0.25 degrees, as
        published. Or a Dataset, whose latitudes and longitudes are taken.
    min_valid
        A new value is the mean over the part of its cell that has values; NaN if that part is less than this fraction.

    Returns
    -------
    Dataset with the variables, names, attributes and dimension order of `dataset`, and the latitudes and longitudes of
    `grid` under their old names. Integers and booleans become floating. Variables without latitude or longitude stay;
    other coordinates on the old grid, its bounds and attributes are dropped. All variables are averaged, which is wrong
    for totals of a cell, such as its area or its mass in kg.

    Raises
    ------
    ValueError
        If a grid is unknown or not regular, a cell of the target reaches beyond the dataset, or a variable holds text,
        dates or classes (CF `flag_values`), which have no mean.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"a {type(dataset).__name__} must become a Dataset first. array.to_dataset(name='t2m')")
    if not 0 <= min_valid <= 1:
        raise ValueError(f"min_valid={min_valid!r} must lie in [0, 1]. It is a fraction of a cell's area")
    target = grid if isinstance(grid, xr.Dataset) else _named_grid(grid)
    old, new = _axes(dataset, "the dataset"), _axes(target, "the target grid")
    degrees = {role: (old[role].values.astype(np.float64), new[role].values.astype(np.float64)) for role in old}
    overlaps = {"latitude": _overlap_of_rows, "longitude": _overlap_of_columns}
    weights = {old[role].name: overlap(*degrees[role]) for role, overlap in overlaps.items()}
    # the median distance of neighbors, which a jump at a seam does not change
    spacings = {role: [np.median(np.abs(np.diff(values))) for values in pair] for role, pair in degrees.items()}
    if finer := [role for role, (before, after) in spacings.items() if after < 0.99 * before]:
        before, after = spacings[finer[0]]
        message = f"the target is finer than the dataset ({after:g} against {before:g} degrees of {finer[0]})"
        fix = "For a smooth field interpolate instead: ds.interp(...)"
        warnings.warn(f"{message}: area means add no detail, one old value fills several cells. {fix}", stacklevel=2)
    on_grid = [name for name, variable in dataset.variables.items() if set(weights) & set(variable.dims)]
    bounds = {axis.attrs.get("bounds") or axis.encoding.get("bounds") for axis in old.values()}
    averaged = [name for name in on_grid if name in dataset.data_vars and name not in bounds]
    averages = {name: _average(str(name), dataset[name].variable, weights, min_valid) for name in averaged}
    attrs = {role: _portable_attrs(axis.attrs, "valid_min", "valid_max") for role, axis in old.items()}
    coords = {axis.name: xr.Variable(axis.dims, new[role].values, attrs[role]) for role, axis in old.items()}
    result = dataset.drop_vars(on_grid).assign(averages).assign_coords(coords)
    ordered = {name: result.variables[name] for name in dataset.data_vars if name in result}
    return xr.Dataset(ordered, result.coords, dataset.attrs)


def _average(name: str, variable: xr.Variable, weights: dict[str, np.ndarray], min_valid: float) -> xr.Variable:
    """Return a variable on the new grid; `weights` are (old, new) for each dimension."""
    if variable.dtype.kind not in "fiub" or "flag_values" in variable.attrs:
        content = "classes" if "flag_values" in variable.attrs else variable.dtype
        raise ValueError(f"{name!r} holds {content}, which have no mean. Leave it out: ds.drop_vars({name!r})")
    # without coordinates, which xarray would align
    data = xr.DataArray(variable.astype(np.result_type(variable.dtype, np.float32)))
    dims, matrices = [dim for dim in weights if dim in data.dims], []
    for dim in dims:
        matrix = xr.DataArray(weights[dim].astype(data.dtype), dims=(dim, f"new_{dim}"))
        chunks = data.chunksizes.get(dim)  # the result has no larger ones
        matrices.append(matrix if chunks is None else matrix.chunk({dim: chunks, f"new_{dim}": max(chunks)}))
    mean = xr.dot(data.fillna(0), *matrices, dim=dims, optimize=True)
    if variable.dtype.kind == "f":
        valid = xr.dot(data.notnull(), *matrices, dim=dims, optimize=True)
        # rounding may make the weights of half a cell sum to slightly less than a half
        mean = mean / valid.where(valid >= max(min_valid - 1e-4, 1e-6))
    mean = mean.rename({f"new_{dim}": dim for dim in dims}).transpose(*data.dims)
    return xr.Variable(mean.dims, mean.data, _portable_attrs(variable.attrs)).astype(data.dtype)


def _portable_attrs(attrs: dict, *others: str) -> dict:
    """Return the attributes that are also true on another grid, without `others`."""
    return {key: value for key, value in attrs.items() if not _ABOUT_GRID.fullmatch(key) and key not in others}


def _overlap_of_rows(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the share of each new row's area that lies in each old row, shape (old, new)."""
    (old_south, old_north), (south, north) = row_edges(old), row_edges(new)
    if south.min() < old_south.min() - TOLERANCE or north.max() > old_north.max() + TOLERANCE:
        _refuse_outside("latitude", (south.min(), north.max()), (old_south.min(), old_north.max()))
    old_south, old_north, south, north = (np.sin(np.deg2rad(edge)) for edge in (old_south, old_north, south, north))
    shared = np.maximum(np.minimum(old_north[:, None], north) - np.maximum(old_south[:, None], south), 0)
    return shared / shared.sum(0)


def _overlap_of_columns(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the share of each new column that lies in each old column, shape (old, new), longitudes modulo 360."""
    (old_west, old_east), (west, east) = column_edges(old), column_edges(new)
    shared = np.zeros((len(old), len(new)))
    for turn in (-720, -360, 0, 360, 720):
        overlap = np.minimum(old_east[:, None] + turn, east) - np.maximum(old_west[:, None] + turn, west)
        shared += np.maximum(overlap, 0)
    covered = shared.sum(0)
    if (covered < east - west - TOLERANCE).any():
        _refuse_outside("longitude", (west.min(), east.max()), (old_west.min(), old_east.max()))
    return shared / covered


def row_edges(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the southern and northern edges of rows, in their order."""
    edges = latitude_edges(degrees)
    south, north = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    last, first = north.argmax(), south.argmin()
    if 2 * north[last] - south[last] > 90 + TOLERANCE:
        north[last] = 90
    if 2 * south[first] - north[first] < -90 - TOLERANCE:
        south[first] = -90
    return south, north


def column_edges(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the western and eastern edges of columns, in their order; those of a region are contiguous."""
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


def _refuse_outside(role: str, target: tuple[float, float], source: tuple[float, float]) -> None:
    needed, present = (f"{first:g} to {last:g}" for first, last in (target, source))
    message = f"the target's cells reach from {role} {needed}, but those of the dataset from {present}"
    raise ValueError(f"{message}. Pass a target grid that lies within the dataset")


def _named_grid(name: object) -> xr.Dataset:
    if not isinstance(name, str) or name not in _GRIDS:
        near = difflib.get_close_matches(str(name), _GRIDS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        known = f"{hint}Names are {', '.join(_SIZES)} and sizes such as '64x32'"
        fix = "for any other grid pass a Dataset with its latitude and longitude"
        raise ValueError(f"grid={name!r} must be a known name or a Dataset. {known}; {fix}")
    columns, rows, poles = _GRIDS[name]
    latitude = np.linspace(-90, 90, rows) if poles else -90 + (np.arange(rows) + 0.5) * 180 / rows
    if rows == 721:
        latitude = latitude[::-1]
    return xr.Dataset(coords={"latitude": latitude, "longitude": np.arange(columns) * 360 / columns})


def _axes(dataset: xr.Dataset, owner: str) -> dict[str, xr.DataArray]:
    try:
        latitude, longitude = find_horizontal(dataset)
        axes = {"latitude": dataset[latitude], "longitude": dataset[longitude]}
        for role, coordinate in axes.items():
            check_axis(role, coordinate.name, coordinate.values)
    except ValueError as error:
        raise ValueError(f"{owner} has no usable grid: {error}") from error
    for role, coordinate in axes.items():
        if coordinate.size < 2:
            raise ValueError(f"{owner} has {coordinate.size} {role}s, but regridding needs at least 2. Keep more")
    return axes
