"""Latitude-longitude grids: which dimensions are the axes, whether the grid is regular, area weights."""

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import cf_xarray  # noqa: F401  (gives every Dataset its `.cf`)
import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.single_levels import is_single_level
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import find_date_fault

# degrees; float32 or linspace noise is far below, grid spacing far above
TOLERANCE = 1e-3
FORECAST_DIMS = ("init_time", "lead_time")
LATITUDE_ATTRS = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
LONGITUDE_ATTRS = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
_MEMBER_NAMES = ("number", "member", "members", "realization", "realisation", "ensemble", "ens", "ensemble_member")
# the usual names of the cell dimension in HEALPix output of climate models and forecasts
_CELL_NAMES = {"cell", "cells", "ncells", "healpix", "healpix_index", "hpx", "pix", "pixel", "ipix", "npix", "values"}
_TO_REGULAR = "Regrid to a regular latitude-longitude grid first, for example with"
_REGRID = f"{_TO_REGULAR} CDO (cdo remapcon,r360x180 in.nc out.nc), xESMF or earthkit-regrid"


@dataclass(frozen=True)
class Levels:
    """The values of a vertical dimension, in hPa if they are pressures, else in their own unit."""

    name: str
    values: np.ndarray
    is_pressure: bool
    units: str | None  # as in the file


@dataclass(frozen=True, eq=False)
class CanonicalAxis:
    """Ascending latitudes or longitudes without a jump, float64, and their positions in the Dataset."""

    order: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Axes:
    """The names of the dimensions in one Dataset, None for each dimension it lacks, and what is known about them."""

    time: str | None
    latitude: str
    longitude: str
    level: str | None
    rows: CanonicalAxis | None = field(default=None, compare=False, repr=False)
    columns: CanonicalAxis | None = field(default=None, compare=False, repr=False)
    levels: Levels | None = field(default=None, compare=False, repr=False)  # of the dimension `level`
    # hPa, of a Dataset on a single level: files of WeatherBench 1 carry it as a scalar coordinate
    scalar_level: float | None = field(default=None, compare=False, repr=False)


def find_axes(dataset: xr.Dataset) -> Axes:
    """Return the axes of a Dataset by CF attributes, else by the usual names; a forecast has no single time.

    ValueError if there is no regular latitude-longitude grid, if its values break a rule of `find_axis_fault`, or if
    several dimensions could be the time or the level.
    """
    candidates = find_candidates(dataset)
    latitude, longitude = find_horizontal(dataset, candidates)
    latitudes, longitudes = dataset[latitude].values, dataset[longitude].values
    check_axis("latitude", latitude, latitudes, dataset[latitude].attrs.get("units"))
    check_axis("longitude", longitude, longitudes, dataset[longitude].attrs.get("units"))
    time = find_time(dataset, candidates["time"])
    rows, columns = canonical_latitude(latitudes), canonical_longitude(longitudes)
    levels, scalar_level = _find_levels(dataset, candidates["vertical"])
    return Axes(time, latitude, longitude, levels and levels.name, rows, columns, levels, scalar_level)


def find_candidates(dataset: xr.Dataset | xr.DataArray) -> dict[str, list[str]]:
    """Return the names of the coordinates that could be "latitude", "longitude", "time" and "vertical"."""
    for name, index in dataset.indexes.items():
        if getattr(index, "tz", None) is not None:  # of this type cf-xarray and numpy know nothing
            raise ValueError("{}. {}".format(*find_date_fault(index, str(name))))
    coords = dataset.coords.to_dataset()
    # text cannot be an axis (expver), and testing whether it holds dates would read it
    coords = coords.drop_vars([n for n, c in coords.coords.items() if c.dtype.kind in "OUST" and n not in coords.dims])
    guessed = coords.cf.guess_coord_axis()
    marked, usual = coords.cf.coordinates, guessed.cf.coordinates
    candidates = {role: list(marked.get(role) or usual.get(role, [])) for role in ("latitude", "longitude")}
    vertical = {*usual.get("vertical", []), *guessed.cf.axes.get("Z", [])}
    vertical |= {"plev"} & set(coords.coords)  # CMIP's name; cf-xarray knows it by attributes only
    return candidates | {"vertical": sorted(vertical), "time": list(marked.get("time", []))}


def find_horizontal(dataset: xr.Dataset, candidates: dict[str, list[str]] | None = None) -> tuple[str, str]:
    """Return the names of the latitude and longitude dimensions; ValueError says why a grid is not regular."""
    candidates = find_candidates(dataset) if candidates is None else candidates
    dimensions = {}
    for role in ("latitude", "longitude"):
        names = [name for name in candidates[role] if dataset[name].dims == (name,)]
        usual = [name for name in names if name in (role, role[:3])]
        if name := _only(usual if len(usual) == 1 else names, role, "Keep the variables of one grid: ds[[...]]"):
            dimensions[role] = name
    if len(dimensions) < 2:
        raise ValueError(_why_not_regular(dataset, candidates, dimensions))
    return dimensions["latitude"], dimensions["longitude"]


def _why_not_regular(dataset: xr.Dataset, candidates: dict[str, list[str]], dimensions: dict[str, str]) -> str:
    """Return the message that names the grid's type and the fix."""
    spatial = {role: [n for n in candidates[role] if dataset[n].ndim] for role in ("latitude", "longitude")}
    for name, variable in dataset.data_vars.items():  # two-dimensional ones are often not marked as coordinates
        if variable.attrs.get("standard_name") == "latitude" or str(name).lower() in ("lat", "latitude", "xlat"):
            spatial["latitude"].append(name)
    rule = f"Latitude and longitude must each have a dimension of their own. {_REGRID}"
    for name in [*spatial["latitude"], *spatial["longitude"]]:
        if dataset[name].ndim > 1:
            dims = dataset[name].dims
            return f"{name!r} has the dimensions {dims}: a curvilinear grid (rotated, ocean or regional model). {rule}"
    for latitude, longitude in itertools.product(spatial["latitude"], spatial["longitude"]):
        if (dims := dataset[latitude].dims) == dataset[longitude].dims:
            shared = f"{latitude!r} and {longitude!r} share the dimension {dims[0]!r}"
            return f"{shared}: an unstructured or reduced Gaussian grid. {rule}"
    role = "longitude" if "latitude" in dimensions else "latitude"
    if spatial[role]:
        name, dim = spatial[role][0], dataset[spatial[role][0]].dims[0]
        return f"{name!r} must be the coordinate of its dimension {dim!r}: ds.swap_dims({dim}={name!r})"
    if candidates[role]:
        name = candidates[role][0]
        return f"{name!r} is a single value, but must be a dimension: ds.expand_dims({name!r})"
    if cells := _healpix_dimension(dataset):
        rule = f"the {dataset.sizes[cells]} cells of dimension {cells!r} look like a HEALPix grid"
        fix = f"{_TO_REGULAR} earthkit-regrid or earth2grid"
        return f"no {role} found: {rule}, which has no rows and columns. {fix}"
    fix = f'If one of them is the {role}, mark it: ds["name"].attrs["standard_name"] = "{role}"; a dimension without'
    fix += " values needs them first: ds.assign_coords(name=values)"
    return f"no {role} found: the dimensions are {list(dataset.dims)}, the coordinates {list(dataset.coords)}. {fix}"


def _healpix_dimension(dataset: xr.Dataset) -> str | None:
    """Return the dimension of HEALPix cells by its name, and by attributes or its 12 * 4**order cells, or None."""
    attrs = [(str(key), value) for variable in dataset.variables.values() for key, value in variable.attrs.items()]
    about_grid = [f"{key} {value}" for key, value in attrs if key.startswith(("grid", "GRIB_grid", "healpix", "crs"))]
    marked = any("healpix" in text.lower() for text in about_grid)
    global_sizes = {12 * 4**order for order in range(1, 16)}
    cells = (str(dim) for dim in dataset.dims if str(dim).lower() in _CELL_NAMES)
    return next((dim for dim in cells if marked or dataset.sizes[dim] in global_sizes), None)


class AxisFault(NamedTuple):
    """A rule that latitudes or longitudes break, and the line that corrects it."""

    rule: str  # "values", "order" or "repeats"
    message: str
    fix: str
    remaining: np.ndarray | None  # positions that remain after the fix, None if nothing usable remains


def find_axis_fault(axis: str, name: str, values: np.ndarray, units: str | None = None) -> AxisFault | None:
    """Return the first rule that the values of a "latitude" or "longitude" called `name` break, or None."""
    lowest, highest = (-90, 90) if axis == "latitude" else (-360, 720)
    if not values.size or values.dtype.kind not in "fiu":
        content = ", ".join(str(value) for value in values[:5]) or "nothing: the selection is empty"
        fix = f"ds = ds.assign_coords({name}=[...])  # or select what exists, in the order of the file: slice(60, 40)"
        return AxisFault("values", f"{axis}s must be degrees, but {name!r} contains {content}", fix, None)
    values = values.astype(np.float64)
    wrong = ~((values >= lowest - TOLERANCE) & (values <= highest + TOLERANCE))
    if wrong.any():
        message = f"{axis}s must be degrees within {lowest}..{highest}, but {name!r} has {wrong.sum()} of {wrong.size}"
        message += f" values outside, the first is {values[wrong][0]:g}"
        if wrong.mean() > 0.5:  # another unit, or a map projection
            swapped = f"Rename the dimensions if {name!r} holds the longitudes. Otherwise regrid: "
            is_swapped = axis == "latitude" and values.min() >= -180 and values.max() <= 360
            return AxisFault("values", message, swapped + _REGRID if is_swapped else _REGRID, None)
        fix = f'ds = ds.isel({name}=((ds["{name}"] >= {lowest}) & (ds["{name}"] <= {highest})).values)'
        return AxisFault("values", message, fix, np.flatnonzero(~wrong))
    if _are_radians(axis, values, units):
        message = f"{axis}s must be degrees, but {name!r} holds radians, from {values.min():.4g} to {values.max():.4g}"
        attributes = LATITUDE_ATTRS if axis == "latitude" else LONGITUDE_ATTRS
        degrees = f'("{name}", np.rad2deg(ds["{name}"].values), {{"units": "{attributes["units"]}"}})'
        other = "longitude" if axis == "latitude" else "latitude"
        fix = f"ds = ds.assign_coords({name}={degrees})  # the {other}s likewise"
        return AxisFault("values", message, fix, None)
    if axis == "longitude":
        return _find_repeats(name, values)
    directions = np.sign(np.diff(values))
    if np.abs(directions.sum()) == directions.size:
        return None
    position = int(np.argmax((directions != directions[0]) | (directions == 0)))
    message = f"latitudes must increase or decrease strictly, but {name!r} goes from {values[position]:g} to"
    message += f" {values[position + 1]:g} at position {position + 1}"
    fix = f'ds = ds.sortby("{name}").drop_duplicates("{name}")'
    return AxisFault("order", message, fix, np.unique(values, return_index=True)[1])


def _are_radians(axis: str, values: np.ndarray, units: str | None) -> bool:
    """Return whether the unit says radians, or evenly spaced values cover just the globe in radians."""
    if str(units).lower().startswith("rad"):
        return True
    span = float(np.ptp(values))
    extents = [span] if axis == "latitude" else []  # from pole to pole
    extents += [span * values.size / max(values.size - 1, 1)]  # with the halves of the outer cells
    return values.size > 3 and bool(np.isclose(extents, np.pi if axis == "latitude" else 2 * np.pi, rtol=1e-4).any())


def _find_repeats(name: str, longitudes: np.ndarray) -> AxisFault | None:
    """Return the fault of longitudes that contain a meridian twice, or None."""
    order = np.argsort(longitudes % 360, kind="stable")
    gaps = np.diff(longitudes[order] % 360, append=longitudes[order[0]] % 360 + 360)
    pairs = np.sort(np.stack([order, np.roll(order, -1)]), axis=0)[:, gaps < TOLERANCE]
    if not pairs.size:
        return None
    first, second = pairs[:, pairs[1].argmin()]
    message = f"longitudes must be unique modulo 360, but {name!r} has one meridian twice, {longitudes[first]:g} and"
    message += f" {longitudes[second]:g} (positions {first} and {second})"
    repeated = np.unique(pairs[1])
    remaining = np.setdiff1d(np.arange(longitudes.size), repeated)
    return AxisFault("repeats", message, f"ds = ds.drop_isel({name}={repeated.tolist()})", remaining)


def check_axis(axis: str, name: str, values: np.ndarray, units: str | None = None) -> None:
    """Raise ValueError for the first rule that the values of a "latitude" or "longitude" break."""
    if fault := find_axis_fault(axis, name, values, units):
        raise ValueError(f"{fault.message}. {fault.fix}")


def is_forecast(dataset: xr.Dataset) -> bool:
    """Return whether a Dataset has the dimension `init_time` or `lead_time`; the other may be a scalar."""
    return any(dim in dataset.dims for dim in FORECAST_DIMS)


def find_time(dataset: xr.Dataset, marked: list[str] | None = None) -> str | None:
    """Return the time dimension, or None; ValueError if ambiguous. `marked` are coordinates that CF marks as times."""
    if is_forecast(dataset):
        return None
    marked = find_candidates(dataset)["time"] if marked is None else marked
    names = [name for name, index in dataset.indexes.items() if isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex)]
    names = names or [name for name in marked if name in dataset.dims]
    if len(names) > 1:
        names = [n for n in names if n == "time"] or [n for n in names if n in marked] or names
    if not names and "time" in dataset.dims:
        if "time" not in dataset.coords:
            raise ValueError("dimension 'time' has no dates: ds.assign_coords(time=xr.date_range(...))")
        return "time"
    return _only(names, "time", "Keep one: ds = ds.isel({}=0)")


def find_member(dataset: xr.Dataset) -> str | None:
    """Return the name of the dimension of ensemble members, or None; ValueError if several could be it."""
    marked = [name for name, coord in dataset.coords.items() if coord.attrs.get("standard_name") == "realization"]
    names = sorted(str(dim) for dim in dataset.dims if str(dim).lower() in _MEMBER_NAMES or dim in marked)
    return _only(names, "ensemble members", "Keep one: ds = ds.isel({}=0)")


def _find_levels(dataset: xr.Dataset, names: list[str]) -> tuple[Levels | None, float | None]:
    """Return the levels of the vertical dimension, and the pressure in hPa of a scalar level; None if absent."""
    names = [name for name in names if not is_single_level(name)]  # these are of some variables only
    coordinates = [read_levels(name, dataset[name].variable) for name in names if dataset[name].ndim < 2]
    scalars = [float(scalar.values) for scalar in coordinates if scalar.values.ndim == 0 and scalar.is_pressure]
    dimensions = {levels.name: levels for levels in coordinates if dataset[levels.name].dims == (levels.name,)}
    pressures = [name for name, levels in dimensions.items() if levels.is_pressure]
    name = _only(pressures or list(dimensions), "level", "Drop the others: ds.drop_dims('{}')")
    return dimensions.get(name), scalars[0] if scalars else None


def _only(names: list[str], role: str, fix: str) -> str | None:
    """Return the only name, or None; ValueError, with the second name in the fix, if there are several."""
    if len(names) > 1:
        raise ValueError(f"several dimensions could be the {role}: {names}. {fix.format(names[1])}")
    return names[0] if names else None


def find_scalar_level(dataset: xr.Dataset) -> float | None:
    """Return the pressure in hPa of a Dataset on a single level, or None."""
    scalars = [name for name in find_candidates(dataset)["vertical"] if dataset[name].ndim == 0]
    return _find_levels(dataset, scalars)[1]


def read_levels(dim: str, coordinate: xr.Variable) -> Levels:
    """Return the values of a vertical coordinate, pressures converted to hPa; NaN in place of text."""
    units = coordinate.attrs.get("units")
    if coordinate.dtype.kind not in "fiu":
        return Levels(dim, np.full(coordinate.shape, np.nan), False, units)
    values = np.asarray(coordinate.values, dtype=np.float64)
    if units is None:
        named = dim.lower().startswith(("lev", "plev", "pres", "isobaric"))
        meaning = str(coordinate.attrs.get("standard_name", ""))
        named = (named and not meaning.endswith(("height", "altitude", "depth"))) or meaning == "air_pressure"
        # no pressure in hPa is above 1100
        return Levels(dim, values / 100 if values.size and values.max() > 2000 else values, named, None)
    in_pascal = same_units(units, "Pa")
    return Levels(dim, values / 100 if in_pascal else values, in_pascal or same_units(units, "hPa"), units)


def canonical_latitude(values: np.ndarray) -> CanonicalAxis:
    """Return latitudes in ascending order."""
    order = np.argsort(values, kind="stable")
    return CanonicalAxis(order, values[order].astype(np.float64))


def canonical_longitude(values: np.ndarray) -> CanonicalAxis:
    """Return longitudes ascending: from 0 to under 360; a region begins after its largest gap, and may pass 360."""
    degrees = values.astype(np.float64) % 360
    degrees[degrees > 360 - TOLERANCE] -= 360  # noise below 0 belongs at the beginning
    order = np.argsort(degrees, kind="stable")
    degrees = degrees[order]
    if not closes_longitude(degrees):
        gaps = np.diff(degrees, append=degrees[0] + 360)
        start = (int(gaps.argmax()) + 1) % len(degrees)
        order = np.roll(order, -start)
        degrees = np.concatenate([degrees[start:], degrees[:start] + 360])
    return CanonicalAxis(order, degrees)


def closes_longitude(longitude: xr.DataArray | np.ndarray) -> bool:
    """Return whether longitudes (degrees, any range, any order) are evenly spaced once round the globe."""
    degrees = np.sort(np.asarray(longitude, dtype=np.float64).ravel() % 360)
    if len(degrees) < 2:
        return False
    # the gap across 360 is one of the gaps, so noise at 0 (359.99999 after the modulo) does no harm
    gaps = np.diff(degrees, append=degrees[0] + 360)
    return bool(np.abs(gaps - 360 / len(degrees)).max() < TOLERANCE)


def reaches_poles(latitude: xr.DataArray | np.ndarray) -> str:
    """Return "rows" if the outermost rows lie on the poles, "between" if no row would fit beyond them, else "no"."""
    degrees = np.sort(np.asarray(latitude, dtype=np.float64).ravel())
    if len(degrees) and np.allclose(degrees[[0, -1]], (-90, 90), rtol=0, atol=TOLERANCE):
        return "rows"
    if len(degrees) < 2:
        return "no"
    south, north = degrees[0] + 90, 90 - degrees[-1]
    return "between" if south < degrees[1] - degrees[0] and north < degrees[-1] - degrees[-2] else "no"


def check_same_grid(first: xr.Dataset, second: xr.Dataset) -> None:
    """Raise ValueError unless two canonical grids agree to 0.001 degrees, longitudes modulo 360."""
    for axis in ("latitude", "longitude"):
        check_same_axis(axis, first[axis].values, second[axis].values)


def check_same_axis(axis: str, first: np.ndarray, second: np.ndarray) -> None:
    """Raise ValueError unless two arrays of the axis "latitude" or "longitude" agree to 0.001 degrees."""
    fix = "Select the same region, or regrid one of them"
    if first.shape != second.shape:
        raise ValueError(f"the grids differ: {first.size} against {second.size} {axis}s. {fix}")
    difference = first.astype(np.float64) - second.astype(np.float64)
    if axis == "longitude":
        difference = (difference + 180) % 360 - 180
    differing = np.flatnonzero(~(np.abs(difference) <= TOLERANCE))
    if differing.size:
        index = int(differing[0])
        values = f"{float(first[index]):g} against {float(second[index]):g}"
        raise ValueError(f"the grids differ: {axis} {index} is {values} (tolerance {TOLERANCE:g} degrees). {fix}")


def latitude_weights(latitude: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the area of a grid cell at each latitude, relative to the mean over the rows.

    The area is sin(upper edge) - sin(lower edge). Inner edges lie midway between the rows; the outer edges lie half the
    neighboring spacing beyond the outermost rows, cut at the poles (as in WeatherBench-X; WeatherBench 2 stretches the
    edge rows of a region to the poles). On an evenly spaced grid without rows at the poles this is
    cos(latitude) / mean(cos(latitude)).

    `latitude` is a coordinate in degrees north, ascending or descending, or a Dataset or DataArray that has one. The
    result is a DataArray over the latitude dimension with its coordinate, float64, mean 1. ValueError if there is no
    such coordinate, or its values are not strictly monotonic, not finite, or beyond 90 degrees.
    """
    is_array = isinstance(latitude, xr.DataArray) and latitude.ndim == 1
    if not is_array or (latitude.name not in latitude.dims and latitude.coords):
        names = [name for name in find_candidates(latitude)["latitude"] if latitude[name].ndim == 1]
        if len(names) != 1:
            fix = "Pass the coordinate itself: latitude_weights(ds['my_latitude'])"
            raise ValueError(f"found {len(names)} latitudes in {list(latitude.coords)}, not exactly one. {fix}")
        latitude = latitude[names[0]]
    check_axis("latitude", str(latitude.name), latitude.values)
    degrees = latitude.values.astype(np.float64)
    weights = np.ones(1)
    if len(degrees) > 1:
        weights = np.abs(np.diff(np.sin(np.deg2rad(latitude_edges(degrees)))))  # absolute: rows may descend
        weights /= weights.mean()
    attrs = {"long_name": "cell area relative to the mean over latitudes", "units": "1"}
    coords = latitude.reset_coords(drop=True).coords
    return xr.DataArray(weights, coords, latitude.dims, name="latitude_weights", attrs=attrs)


def latitude_edges(degrees: np.ndarray) -> np.ndarray:
    """Return the edges of at least two rows, one more than rows, in their order, cut at the poles."""
    middle = (degrees[1:] + degrees[:-1]) / 2
    first = degrees[0] - (middle[0] - degrees[0])
    last = degrees[-1] + (degrees[-1] - middle[-1])
    return np.clip(np.concatenate([[first], middle, [last]]), -90, 90)
