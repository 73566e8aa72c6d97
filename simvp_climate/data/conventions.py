"""Any CF latitude-longitude convention to the one inside, and exactly back.

    the user's names and grid --rename--> names as asked for --orient--> canonical grid
    canonical grid --restore--> the user's names and grid

`rename` touches names only. `orient` reorders and relabels the grid. `restore` copies the coordinate arrays
of the user's Dataset bit for bit, because xarray silently drops labels that differ in the last digit.
"""

import difflib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import cf_xarray  # noqa: F401  (gives every Dataset its `.cf`)
import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import closes_longitude, why_healpix
from simvp_climate.data.variables import Variable, expand, lookup, same_units, substitute

# degrees; float32 or linspace noise is far below, grid spacing far above
_TOLERANCE = 1e-3
_FORECAST_DIMS = ("init_time", "lead_time")
# what WeatherBench 2, GRIB and climpred call it
_LEAD_NAMES = ("prediction_timedelta", "step", "lead", "forecast_period")
_MEMBER_NAMES = ("number", "member", "members", "realization", "realisation", "ensemble", "ens", "ensemble_member")
_REGRID = (
    "Regrid to a regular latitude-longitude grid first, for example with CDO (cdo remapcon,r360x180 in.nc out.nc),"
    " xESMF or earthkit-regrid"
)


@dataclass(frozen=True)
class Axes:
    """What the dimensions are called in one Dataset; None where it has no such dimension."""

    time: str | None
    latitude: str
    longitude: str
    level: str | None


def find_axes(dataset: xr.Dataset) -> Axes:
    """Return what the time, latitude, longitude and vertical dimensions of a Dataset are called.

    They are known by CF attributes, else by their usual names. The time of a forecast (dimensions
    `init_time`, `lead_time`) is None: it has two.

    Raises
    ------
    ValueError
        If there is no regular latitude-longitude grid (curvilinear, unstructured, HEALPix or reduced Gaussian
        grids, no latitude at all), if latitudes are not strictly monotonic or longitudes repeat modulo 360, or if
        several dimensions could be the time or the level.
    """
    roles = find_roles(dataset)
    latitude, longitude = horizontal(dataset, roles)
    _check_latitude(latitude, dataset[latitude].values)
    _check_longitude(longitude, dataset[longitude].values)
    return Axes(_time(dataset, roles["time"]), latitude, longitude, _level(dataset, roles["vertical"]))


def rename(dataset: xr.Dataset, variables: Iterable[str], levels: Sequence[float] | None = None) -> xr.Dataset:
    """Return the variables asked for, under these names and in this order.

    Dimensions are called `time`, `latitude`, `longitude`, `level`; their order is that of the file.

    No value, order, longitude range, calendar or unit changes, and nothing is read: lazy stays lazy.
    Attributes and encodings stay. Coordinates other than those of the dimensions are dropped (`number`,
    `expver`, `step`), except the bounds of the time and the `valid_time` of a forecast. A time and a dimension
    of leads (`prediction_timedelta` in WeatherBench 2, `step` in GRIB) become `init_time` and `lead_time`, with
    a `valid_time`. Dimensions of other kinds, such as ensemble members, stay as they are.

    Parameters
    ----------
    dataset
        Any Dataset on a regular latitude-longitude grid, whatever its dimensions and variables are called.
    variables
        Names as in the file, or WeatherBench or CF names for them: `"z500"` finds `z500`,
        `geopotential_500` or level 500 hPa of `geopotential` or `z` and is flat, or else the geopotential
        height, in its own units; `"uv10"` stands for `u10`, `v10`.
    levels
        Pressures in hPa, whatever the unit in the file, of the variables that have levels, in this order;
        those without ignore it. None keeps all levels, and makes variables flat where the file has a single
        one. If the vertical axis is not a pressure, its own unit counts.

    Raises
    ------
    ValueError
        If a variable or level is not there, several variables could be meant, `levels` applies to none of
        them, a variable is not on the grid, or as for `find_axes`.
    """
    names = expand(variables)
    dataset = as_forecast(dataset)
    axes = find_axes(dataset)
    levels = _check_levels(levels)
    kept = None  # which of the file's levels stay where a variable keeps its levels
    if axes.level is not None and levels is not None:
        kept = [_level_index(dataset[axes.level].variable, level) for level in levels]
    found, has_levels = {}, False
    for name in names:
        source, level = resolve(dataset, name, axes)
        variable = dataset.variables[source]
        _check_on_grid(name, source, variable.dims, axes)
        if level is not None:
            variable = _at_level(dataset, source, level, axes)
        elif axes.level in variable.dims:
            has_levels = True
            if kept is not None:
                variable = variable.isel({axes.level: _indexer(kept)})
            elif variable.sizes[axes.level] == 1:
                variable = variable.isel({axes.level: 0})
        variable = variable.copy(deep=False)
        # names the coordinates that are dropped here
        variable.encoding = {k: v for k, v in variable.encoding.items() if k != "coordinates"}
        found[name] = variable
    if levels is not None and not has_levels:
        raise ValueError(
            f"levels={list(levels)} is given, but none of {list(names)} has a level dimension. Leave levels out"
        )
    dims = dict.fromkeys(dim for variable in found.values() for dim in variable.dims)
    coords = {dim: dataset.coords[dim].variable for dim in dims if dim in dataset.coords}
    if kept is not None:
        coords[axes.level] = coords[axes.level].isel({axes.level: _indexer(kept)})
    if _is_forecast(dataset):
        for name in (*_FORECAST_DIMS, "valid_time"):
            if name in dataset.coords and set(dataset[name].dims) <= set(dims):
                coords[name] = dataset.coords[name].variable
    for name in (axes.time, *_FORECAST_DIMS, "valid_time"):
        if name in coords:
            coords |= _bounds(dataset, name)
    new_names = {getattr(axes, field.name): field.name for field in fields(axes) if getattr(axes, field.name) in dims}
    result = xr.Dataset(found, coords, dataset.attrs).rename(new_names)
    result.encoding = dict(dataset.encoding)
    if "unlimited_dims" in result.encoding:  # to_netcdf fails on one that is not there
        unlimited = {new_names.get(dim, dim) for dim in result.encoding["unlimited_dims"]}
        result.encoding["unlimited_dims"] = unlimited & set(result.dims)
    return result


def orient(dataset: xr.Dataset) -> xr.Dataset:
    """Return a renamed Dataset on the canonical grid.

    Latitude ascends. Longitude ascends without a jump: globally from 0 to under 360; a region begins after its
    largest gap, so that one across Greenwich or the date line stays in one piece and runs beyond 360. Levels
    stay in the order given, in hPa. Coordinates are float64.

    Nothing is read. The order of the dimensions stays: xarray reads a lazy variable that was transposed
    point by point, which is slow, so whoever needs an order transposes what is loaded.

    Raises
    ------
    ValueError
        If the dimensions are not called latitude and longitude: `rename` comes first.
    """
    _check_renamed(dataset)
    latitude_order, latitude = _canonical_latitude(dataset["latitude"].values)
    longitude_order, longitude = _canonical_longitude(dataset["longitude"].values)
    result = _reorder(dataset, latitude=latitude_order, longitude=longitude_order)
    coords = {
        "latitude": ("latitude", latitude, dict(standard_name="latitude", units="degrees_north", axis="Y")),
        "longitude": (
            "longitude",
            longitude,
            dict(standard_name="longitude", units="degrees_east", axis="X"),
        ),
    }
    if "level" in dataset.dims:
        level = dataset["level"].variable
        attrs = dict(standard_name="air_pressure", units="hPa", positive="down", axis="Z")
        coords["level"] = (
            "level",
            level_values(level),
            attrs if _is_pressure(level, "level") else level.attrs,
        )
    return result.assign_coords(coords)


def restore(forecast: xr.Dataset, like: xr.Dataset) -> xr.Dataset:
    """Return a Dataset on the canonical grid with the names, order and coordinates of `like`.

    The inverse of `orient` and of the renaming of dimensions. Latitude, longitude and level have the names,
    values (bit for bit), units and attributes of `like`, latitude and longitude also its order. Dimensions
    are (time | init_time, lead_time, ..., [level,] latitude, longitude) in the names of `like`. Data
    variables keep their names.

    Raises
    ------
    ValueError
        If the two are not on the same grid, or `forecast` has levels that `like` has not.
    """
    axes = find_axes(like)
    _check_renamed(forecast)
    latitude_order, latitude = _canonical_latitude(like[axes.latitude].values)
    longitude_order, longitude = _canonical_longitude(like[axes.longitude].values)
    _check_same_axis("latitude", forecast["latitude"].values, latitude)
    _check_same_axis("longitude", forecast["longitude"].values, longitude)
    result = _reorder(forecast, latitude=np.argsort(latitude_order), longitude=np.argsort(longitude_order))
    names = {"latitude": axes.latitude, "longitude": axes.longitude}
    coords = {name: like[name].variable for name in names.values()}
    if "time" in forecast.dims and axes.time is not None:
        names["time"] = axes.time
    if "level" in forecast.dims:
        if axes.level is None:
            raise ValueError("the forecast has a level dimension, the Dataset it is to look like has none")
        wanted = level_values(forecast["level"].variable)
        level = like[axes.level].variable
        names["level"] = axes.level
        coords[axes.level] = level.isel({axes.level: [_level_index(level, value) for value in wanted]})
    result = result.rename({old: new for old, new in names.items() if old != new})
    return _transpose(result.assign_coords(coords), axes.level, axes.latitude, axes.longitude)


def same_grid(first: xr.Dataset, second: xr.Dataset, tolerance: float = _TOLERANCE) -> None:
    """Check that two oriented Datasets have the same grid to `tolerance` degrees, longitudes modulo 360.

    Raises
    ------
    ValueError
        If they have not; it names the sizes or the first value that differs.
    """
    for axis in ("latitude", "longitude"):
        _check_same_axis(axis, first[axis].values, second[axis].values, tolerance)


def find_member(dataset: xr.Dataset) -> str | None:
    """Return what the dimension of ensemble members is called, or None if there is none.

    It is known by the CF standard name `realization`, else by its usual names (`number`, `member`, ...).

    Raises
    ------
    ValueError
        If several dimensions could be it.
    """
    names = sorted(
        str(dim)
        for dim in dataset.dims
        if str(dim).lower() in _MEMBER_NAMES
        or (dim in dataset.coords and dataset[dim].attrs.get("standard_name") == "realization")
    )
    if len(names) > 1:
        raise ValueError(
            f"several dimensions could be the ensemble members: {names}. Select from all but one: ds.isel({names[1]}=0)"
        )
    return names[0] if names else None


def bounds_offsets(dataset: xr.Dataset) -> tuple[pd.Timedelta, ...] | None:
    """Return how far the lower and the upper bound of each time are from it, upper and lower ordered by time.

    A day's mean at noon has (-12 h, 12 h), six hours' precipitation at their end (-6 h, 0 h). None if the
    Dataset, as `rename` returns it, has no time bounds, or if these offsets differ from time to time, as they
    do for months.
    """
    if "time" not in dataset.dims:
        return None
    bounds = [variable.values for variable in _bounds(dataset, "time").values()]
    if not bounds or not dataset.sizes["time"]:
        return None
    times = dataset.indexes["time"]
    offsets = {
        tuple(sorted(pd.Timedelta(bound - time) for bound in pair))
        for time, pair in zip(times, _stamps(bounds[0]), strict=True)
    }
    return offsets.pop() if len(offsets) == 1 else None


def single_level(dataset: xr.Dataset) -> float | None:
    """Return the pressure in hPa that all of a Dataset is on, or None.

    Files of WeatherBench 1 on one level carry it as a scalar coordinate.
    """
    for name in find_roles(dataset)["vertical"]:
        variable = dataset[name].variable
        if variable.ndim == 0 and _is_pressure(variable, name):
            return float(level_values(variable))
    return None


def as_forecast(dataset: xr.Dataset) -> xr.Dataset:
    """Give the times of a forecast, whoever made it, their names inside; anything else stays."""
    leads = [
        dim
        for dim in dataset.dims
        if dim in dataset.coords
        and dataset[dim].dtype.kind == "m"
        and (dim in _LEAD_NAMES or dataset[dim].attrs.get("standard_name") == "forecast_period")
    ]
    if len(leads) != 1 or set(_FORECAST_DIMS) & set(dataset.variables):
        return dataset
    init = find_axes(dataset).time or ("time" if "time" in dataset.coords and dataset["time"].ndim == 0 else None)
    if init is None or dataset[init].dtype.kind != "M":
        return dataset
    result = dataset.rename({leads[0]: "lead_time", init: "init_time"})
    if "valid_time" in result.coords:
        return result
    return result.assign_coords(valid_time=result["init_time"] + result["lead_time"])


def _bounds(dataset: xr.Dataset, name: str) -> dict[str, xr.Variable]:
    """Return the bounds of a time by their name, if it has some: its dimensions and one of length 2."""
    time = dataset[name].variable
    bounds = time.attrs.get("bounds", time.encoding.get("bounds"))
    if bounds not in dataset.variables:
        return {}
    variable = dataset.variables[bounds]
    whole = variable.dims[:-1] == time.dims and variable.shape[-1] == 2
    return {bounds: variable} if whole else {}


def _stamps(bounds: np.ndarray) -> Iterable[Iterable]:
    """Return dates that can be subtracted, of either kind: numpy's or cftime's."""
    return bounds if bounds.dtype == object else [[pd.Timestamp(date) for date in pair] for pair in bounds]


def find_roles(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Return the coordinates that could be latitude, longitude, time or vertical."""
    coords = dataset.coords.to_dataset()
    # text cannot be an axis (expver), and to look whether it holds dates would read it
    coords = coords.drop_vars([n for n, c in coords.coords.items() if c.dtype.kind in "OUST" and n not in coords.dims])
    guessed = coords.cf.guess_coord_axis()
    roles = {}
    for role in ("latitude", "longitude"):
        marked = coords.cf.coordinates.get(role, [])
        roles[role] = list(marked or guessed.cf.coordinates.get(role, []))
    roles["vertical"] = sorted(
        {*guessed.cf.coordinates.get("vertical", []), *guessed.cf.axes.get("Z", [])}
        | ({"plev"} & set(coords.coords)),  # what CMIP calls it; cf-xarray knows it by attributes only
    )
    roles["time"] = list(coords.cf.coordinates.get("time", []))
    return roles


def horizontal(dataset: xr.Dataset, roles: dict[str, list[str]]) -> tuple[str, str]:
    """Return which of these coordinates are the latitude and the longitude, or raise ValueError saying why none is."""
    found = {}
    for role in ("latitude", "longitude"):
        names = [name for name in roles[role] if dataset[name].dims == (name,)]
        usual = [name for name in names if name in (role, role[:3])]
        if len(names) > 1 and len(usual) != 1:
            raise ValueError(
                f"several dimensions could be the {role}: {names}. Keep the variables of one grid: ds[[...]]"
            )
        if names:
            found[role] = usual[0] if usual else names[0]
    if len(found) == 2:
        return found["latitude"], found["longitude"]
    if len(found) < 2:
        raise ValueError(_why_no_grid(dataset, roles, found))
    return found["latitude"], found["longitude"]


def _why_no_grid(dataset: xr.Dataset, roles: dict[str, list[str]], found: dict[str, str]) -> str:
    """Say what kind of grid it is instead of a regular one, and what to do."""
    others = {role: [n for n in roles[role] if dataset[n].ndim] for role in ("latitude", "longitude")}
    others["latitude"] += [  # two-dimensional ones are often not marked as coordinates
        name
        for name, variable in dataset.data_vars.items()
        if variable.attrs.get("standard_name") == "latitude" or str(name).lower() in ("lat", "latitude", "xlat")
    ]
    own = "Latitude and longitude must each have a dimension of their own"
    for name in [*others["latitude"], *others["longitude"]]:
        if dataset[name].ndim > 1:
            return (
                f"{name!r} has the dimensions {dataset[name].dims}: a curvilinear grid (rotated, ocean or"
                f" regional model). {own}. {_REGRID}"
            )
    for latitude, longitude in itertools.product(others["latitude"], others["longitude"]):
        if dataset[latitude].dims == dataset[longitude].dims:
            return (
                f"{latitude!r} and {longitude!r} share the dimension {dataset[latitude].dims[0]!r}: an"
                f" unstructured or reduced Gaussian grid. {own}. {_REGRID}"
            )
    role = "longitude" if "latitude" in found else "latitude"
    if others[role]:
        name, dim = others[role][0], dataset[others[role][0]].dims[0]
        return f"{name!r} must be the coordinate of its dimension {dim!r}: ds.swap_dims({dim}={name!r})"
    if roles[role]:
        return f"{roles[role][0]!r} is a single value, a dimension is needed: ds.expand_dims({roles[role][0]!r})"
    if healpix := why_healpix(dataset):
        return f"no {role} found: {healpix}"
    return (
        f"no {role} found: the dimensions are {list(dataset.dims)}, the coordinates"
        f" {list(dataset.coords)}. If one of them is the {role}, say so:"
        f' ds["name"].attrs["standard_name"] = "{role}"; a dimension'
        " without values needs them first: ds.assign_coords(name=values)"
    )


def _check_latitude(name: str, values: np.ndarray) -> None:
    values = values.astype(np.float64)
    wrong = values[~(np.abs(values) <= 90 + _TOLERANCE)]
    if wrong.size:
        raise ValueError(f"{name!r} contains {wrong[0]:g}: latitudes are degrees north, within -90..90. {_REGRID}")
    steps = np.diff(values)
    if not ((steps > 0).all() or (steps < 0).all()):
        at = int(np.argmax(np.sign(steps) != np.sign(steps[0]))) if steps[0] else 0
        raise ValueError(
            f"{name!r} must increase or decrease strictly, but goes from {values[at]:g} to"
            f" {values[at + 1]:g} at position {at + 1}. Sort it and drop what repeats:"
            f" ds.sortby({name!r}).drop_duplicates({name!r})"
        )


def _check_longitude(name: str, values: np.ndarray) -> None:
    if not values.size:
        raise ValueError(f"{name} is empty: is the region you selected inside the data?")
    values = values.astype(np.float64)
    wrong = values[~((values >= -360 - _TOLERANCE) & (values <= 720))]
    if wrong.size:
        raise ValueError(f"{name!r} contains {wrong[0]:g}: longitudes are degrees east. {_REGRID}")
    order = np.argsort(values % 360, kind="stable")
    gaps = np.diff(values[order] % 360, append=values[order[0]] % 360 + 360)
    if values.size > 1 and gaps.min() < _TOLERANCE:
        at = int(gaps.argmin())
        first, second = sorted((int(order[at]), int(order[(at + 1) % values.size])))
        last = second == values.size - 1
        way_out = f"ds.isel({name}=slice(0, -1))" if last else f"ds.drop_isel({name}=[{second}])"
        raise ValueError(
            f"{name!r} holds one meridian twice, {values[first]:g} and {values[second]:g} (positions {first}"
            f" and {second}); each may be there once, modulo 360. Drop one: {way_out}"
        )


def _is_forecast(dataset: xr.Dataset) -> bool:
    # one of them is enough: the other may have been selected from
    return any(dim in dataset.dims for dim in _FORECAST_DIMS)


def _time(dataset: xr.Dataset, marked: list[str]) -> str | None:
    if _is_forecast(dataset):
        return None
    names = [name for name, index in dataset.indexes.items() if isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex)]
    names = names or [name for name in marked if name in dataset.dims]
    if len(names) > 1:
        names = [n for n in names if n == "time"] or [n for n in names if n in marked] or names
    if len(names) > 1:
        raise ValueError(
            f"several dimensions could be the time: {names}. Select from one of them: ds.isel({names[1]}=0)"
        )
    if not names and "time" in dataset.dims:
        if "time" not in dataset.coords:
            raise ValueError("dimension 'time' has no dates: ds.assign_coords(time=xr.date_range(...))")
        return "time"
    return names[0] if names else None


def _level(dataset: xr.Dataset, vertical: list[str]) -> str | None:
    names = [name for name in vertical if dataset[name].dims == (name,)]
    if len(names) > 1:
        names = [name for name in names if _is_pressure(dataset[name].variable, name)] or names
    if len(names) > 1:
        raise ValueError(
            f"several dimensions could be the level: {names}. Drop what is not needed: ds.drop_dims({names[1]!r})"
        )
    return names[0] if names else None


def _is_pressure(variable: xr.Variable, name: str) -> bool:
    units = variable.attrs.get("units")
    if units is None:
        return variable.attrs.get("standard_name") == "air_pressure" or name.lower().startswith(
            ("lev", "plev", "pres", "isobaric")
        )
    return same_units(units, "Pa") or same_units(units, "hPa")


def level_values(variable: xr.Variable) -> np.ndarray:
    """Return levels in hPa; those that are no pressures as they are."""
    values = np.asarray(variable.values, dtype=np.float64)
    units = variable.attrs.get("units")
    # no pressure in hPa is above 1100
    in_pascal = values.size and values.max() > 2000 if units is None else same_units(units, "Pa")
    return values / 100 if in_pascal else values


def _level_index(variable: xr.Variable, level: float) -> int:
    values = level_values(variable)
    at = int(np.abs(values - level).argmin())
    if abs(values[at] - level) > 1e-3:
        there = ", ".join(f"{value:g}" for value in values)
        raise ValueError(f"level {level:g} hPa is not in {variable.dims[0]!r}, which has {there}. Ask for one of these")
    return at


def _check_levels(levels: Sequence[float] | None) -> tuple[float, ...] | None:
    if levels is None:
        return None
    if np.ndim(levels) != 1 or not len(levels) or len(set(levels)) != len(levels):
        raise ValueError(f"levels={levels!r}: a list of different pressures in hPa is needed, as [500, 850]")
    return tuple(float(level) for level in levels)


def _check_on_grid(name: str, source: str, dims: tuple[str, ...], axes: Axes) -> None:
    missing = [dim for dim in (axes.latitude, axes.longitude) if dim not in dims]
    if missing:
        raise ValueError(
            f"{name!r} (in the file: {source!r}) has the dimensions {list(dims)} and lacks {missing}: only"
            " variables on the latitude-longitude grid can be used. Leave it out"
        )


def _at_level(dataset: xr.Dataset, source: str, level: int, axes: Axes) -> xr.Variable:
    variable = dataset.variables[source]
    if axes.level not in variable.dims:
        return variable  # its only level, see resolve
    if not _is_pressure(dataset[axes.level].variable, axes.level):
        units = dataset[axes.level].attrs.get("units", "no unit")
        raise ValueError(
            f"{level} hPa of {source!r} is asked for, but its levels {axes.level!r} ({units}) are not"
            f" pressures. Interpolate to pressure levels first, or ask for {source!r} with levels=[...] as in"
            " the file"
        )
    return variable.isel({axes.level: _level_index(dataset[axes.level].variable, level)})


def resolve(dataset: xr.Dataset, name: str, axes: Axes) -> tuple[str, int | None]:
    """Return which variable of the file is meant, and which level of it in hPa if it is one of several."""
    # orography and the like are coordinates in some files
    names = [other for other in dataset.variables if other not in dataset.dims]
    if name in names:
        return name, None
    meaning = lookup(name)
    if meaning is None:
        candidates = [n for n in names if name in _described_as(dataset, n)]
        return _the_only(dataset, name, candidates), None
    variable, level = meaning
    candidates, named = _candidates(dataset, names, variable, level, axes)
    other = substitute(variable)
    if not named and other is not None:
        others, named = _candidates(dataset, names, other, level, axes)
        candidates = candidates or others
    if level is None or named:
        chosen = _the_only(dataset, name, named)
        return chosen, level if axes.level in dataset[chosen].dims else None
    single = single_level(dataset)
    if candidates and single is None:
        raise ValueError(
            f"{name!r} is asked for, but {candidates[0]!r} says nowhere on which level it is."
            f" If it is on {level} hPa, give it its name: ds.rename({candidates[0]}={name!r})"
        )
    if candidates and abs(single - level) > 1e-3:
        raise ValueError(f"{name!r} is asked for, but {candidates[0]!r} is on {single:g} hPa in this file")
    return _the_only(dataset, name, candidates), None


def _candidates(
    dataset: xr.Dataset, names: list[str], variable: Variable, level: int | None, axes: Axes
) -> tuple[list[str], list[str]]:
    """Return what is this variable, on whatever level, and which of it has the level asked for or all levels."""
    whole = [n for n in names if lookup(str(n)) == (variable, None) or _says_it_is(dataset, n, variable, axes)]
    if level is None:
        return whole, whole
    # z may also be the surface geopotential: only a variable with levels can be meant, or one named after its level
    flat = [n for n in names if lookup(str(n)) == (variable, level)]
    return whole, flat + [n for n in whole if axes.level in dataset[n].dims]


def _described_as(dataset: xr.Dataset, name: str) -> list[str]:
    attrs = dataset.variables[name].attrs
    return [str(attrs[key]) for key in ("standard_name", "short_name", "GRIB_shortName") if key in attrs]


def _says_it_is(dataset: xr.Dataset, name: str, variable: Variable, axes: Axes) -> bool:
    """Whether attributes say so, and neither the name nor the shape speaks against it."""
    if lookup(str(name)) not in (None, (variable, None)):
        return False  # geopotential_500 is not "geopotential", whatever its standard_name
    if not any(lookup(text) == (variable, None) for text in _described_as(dataset, name)):
        return False
    # a relative_humidity without a level is the one at 2 m
    return not variable.on_levels or axes.level in dataset[name].dims or single_level(dataset) is not None


def _the_only(dataset: xr.Dataset, name: str, candidates: list[str]) -> str:
    if len(candidates) == 1:
        return candidates[0]
    there = sorted(str(n) for n in dataset.data_vars)
    if candidates:
        raise ValueError(f"{name!r} could be any of {candidates}. Ask for one of these names")
    # what it is called elsewhere is closer to the mark than how it is spelled
    known = [lookup(n) for n in there]
    short = [f"{k[0].short_name}{k[1] or ''}" for k in known if k is not None]
    near = difflib.get_close_matches(name, list(dict.fromkeys([*there, *short])), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    raise ValueError(f"no variable {name!r} in this dataset, which has {there}.{hint}")


def _check_renamed(dataset: xr.Dataset) -> None:
    missing = [dim for dim in ("latitude", "longitude") if dim not in dataset.dims]
    if missing:
        raise ValueError(f"dimensions {missing} are missing, there are {list(dataset.dims)}: rename the dataset first")


def _canonical_latitude(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order that makes latitudes canonical, and these latitudes."""
    order = np.argsort(values, kind="stable")
    return order, values[order].astype(np.float64)


def _canonical_longitude(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order that makes longitudes canonical, and these longitudes."""
    degrees = values.astype(np.float64) % 360
    degrees[degrees > 360 - _TOLERANCE] -= 360  # noise below 0 belongs at the beginning
    order = np.argsort(degrees, kind="stable")
    degrees = degrees[order]
    if not closes_longitude(degrees):
        gaps = np.diff(degrees, append=degrees[0] + 360)
        start = (int(gaps.argmax()) + 1) % len(degrees)
        order = np.roll(order, -start)
        degrees = np.concatenate([degrees[start:], degrees[:start] + 360])
    return order, degrees


def _reorder(dataset: xr.Dataset, latitude: np.ndarray, longitude: np.ndarray) -> xr.Dataset:
    indexers = {"latitude": _indexer(latitude), "longitude": _indexer(longitude)}
    # an untouched lazy view stays one where nothing is to do
    return dataset.isel({dim: by for dim, by in indexers.items() if by != slice(0, dataset.sizes[dim], 1)})


def _indexer(order: Sequence[int]) -> slice | list[int]:
    """Return positions as a slice where they are evenly spaced: files read slices faster than lists."""
    steps = set(np.diff(order).tolist())
    if len(order) == 1 or (len(steps) == 1 and 0 not in steps):
        step = steps.pop() if steps else 1
        stop = int(order[-1]) + (1 if step > 0 else -1)
        return slice(int(order[0]), stop if stop >= 0 else None, step)
    return [int(position) for position in order]


def _transpose(dataset: xr.Dataset, *last: str | None) -> xr.Dataset:
    first = ("init_time", "lead_time", "time")
    return dataset.assign(
        {
            name: variable.transpose(
                *(dim for dim in first if dim in variable.dims),
                *(dim for dim in variable.dims if dim not in first and dim not in last),
                *(dim for dim in last if dim in variable.dims),
            )
            for name, variable in dataset.data_vars.items()
        }
    )


def _check_same_axis(axis: str, first: np.ndarray, second: np.ndarray, tolerance: float = _TOLERANCE) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"the grids differ: {first.size} against {second.size} {axis}s. Bring both to one grid: select"
            " the same region, or regrid one of them"
        )
    difference = first.astype(np.float64) - second.astype(np.float64)
    if axis == "longitude":
        difference = (difference + 180) % 360 - 180
    apart = np.flatnonzero(~(np.abs(difference) <= tolerance))
    if apart.size:
        at = int(apart[0])
        raise ValueError(
            f"the grids differ: {axis} {at} is {float(first[at]):g} against {float(second[at]):g} (up to"
            f" {tolerance:g} degree would pass). Bring both to one grid: select the same region, or regrid"
            " one of them"
        )
