"""Any CF latitude-longitude convention to the canonical one (`canonicalize`), and exactly back (`Canonical.restore`).

`rename` changes names only; `orient` reorders and relabels the grid; `canonicalize` does both.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import grid
from simvp_climate.data.grid import FORECAST_DIMS, Axes, CanonicalAxis, Levels, check_same_axis, find_axes, is_forecast
from simvp_climate.data.single_levels import PRESSURE_ATTRS
from simvp_climate.data.variables import expand, find_variable, lookup, unknown_variable_error

VALID_TIME_BOUNDS = "valid_time_bnds"  # coordinate of forecasts with the bounds of their valid times
_LEAD_NAMES = ("prediction_timedelta", "step", "lead", "forecast_period")  # in WeatherBench 2, GRIB and climpred


@dataclass(frozen=True, eq=False)
class Canonical:
    """A Dataset on the canonical grid, and all that `restore` needs to return results on the original grid."""

    dataset: xr.Dataset  # the requested variables on the canonical grid, see `orient`
    original: xr.Dataset
    axes: Axes  # of the original
    sources: dict[str, str]  # for each variable of `dataset` its name in the original

    @cached_property
    def member(self) -> str | None:
        """The dimension of ensemble members, or None; ValueError if several dimensions could be it."""
        return grid.find_member(self.dataset)

    @cached_property
    def series(self) -> tuple[xr.Dataset, ...]:
        """The canonical Dataset of each ensemble member; without members the only one."""
        if self.member is None:
            return (self.dataset,)
        return tuple(self.dataset.isel({self.member: index}) for index in range(self.dataset.sizes[self.member]))

    def restore(self, result: xr.Dataset) -> xr.Dataset:
        """Return a Dataset on the canonical grid with the dimension names, order and coordinates of the original.

        Coordinates are copied bit for bit: xarray silently drops labels that differ in the last digit. Dimensions are
        (time | init_time, lead_time, ..., [level,] latitude, longitude). ValueError if the grid or a level differs.
        """
        _check_renamed(result)
        axes = self.axes
        check_same_axis("latitude", result["latitude"].values, axes.rows.values)
        check_same_axis("longitude", result["longitude"].values, axes.columns.values)
        restored = _reorder(result, np.argsort(axes.rows.order), np.argsort(axes.columns.order))
        names = {"latitude": axes.latitude, "longitude": axes.longitude}
        coords = {name: self.original[name].variable for name in names.values()}
        if "time" in result.dims and axes.time is not None:
            names["time"] = axes.time
        if "level" in result.dims:
            if axes.levels is None:
                raise ValueError("the result has a level dimension, but the original dataset has none. Select a level")
            names["level"] = axes.level
            positions = [_level_position(axes.levels, level) for level in result["level"].values]
            coords[axes.level] = self.original[axes.level].variable.isel({axes.level: positions})
        restored = restored.rename({old: new for old, new in names.items() if old != new})
        return _transpose(restored.assign_coords(coords), axes.level, axes.latitude, axes.longitude)


def canonicalize(
    dataset: xr.Dataset, variables: Iterable[str] | None = None, levels: Sequence[float] | None = None
) -> Canonical:
    """Return a Dataset on the canonical grid, without reading it; parameters and errors as in `rename`.

    Without `variables`, all stay under their names, and a single level stays a dimension.
    """
    original = as_forecast(dataset)
    axes = find_axes(original)
    if variables is None:
        names = {axes.latitude: "latitude", axes.longitude: "longitude", axes.level: "level", axes.time: "time"}
        names = {old: new for old, new in names.items() if old is not None and old != new}
        renamed, selected = original.reset_coords(drop=True).rename(names), axes.levels
        names = {str(name): str(name) for name in original.data_vars}
    else:
        renamed, selected, names = _select(original, axes, variables, levels)
    return Canonical(_orient(renamed, axes.rows, axes.columns, selected), original, axes, names)


def drop_single_height(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without a vertical dimension of size 1 that is no pressure, such as a height of 2 m."""
    levels = find_axes(dataset).levels
    is_height = levels is not None and levels.values.size == 1 and not levels.is_pressure
    return dataset.isel({levels.name: 0}, drop=True) if is_height else dataset


def rename(dataset: xr.Dataset, variables: Iterable[str], levels: Sequence[float] | None = None) -> xr.Dataset:
    """Return the requested variables under these names, dimensions called `time`, `latitude`, `longitude`, `level`.

    Nothing else changes, and lazy variables stay lazy. Coordinates beside the dimensions are dropped, except the bounds
    of the time and the `valid_time` of a forecast, whose times become `init_time` and `lead_time`. `"z500"` finds
    `z500`, `geopotential_500`, level 500 hPa of `z`, or else the geopotential height, in its own units. `levels` are in
    hPa whatever the unit in the file, or in the unit of an axis that is no pressure; None keeps all, and drops the
    dimension of a single one. ValueError if a variable or level is missing, ambiguous or not on the grid.
    """
    dataset = as_forecast(dataset)
    return _select(dataset, find_axes(dataset), variables, levels)[0]


def variables_on_grid(dataset: xr.Dataset) -> list[str]:
    """Return the names of all variables with numbers on latitude and longitude; ValueError if there are none."""
    axes = find_axes(as_forecast(dataset))
    on_grid = [n for n, v in dataset.data_vars.items() if {axes.latitude, axes.longitude} <= set(v.dims)]
    names = [str(name) for name in on_grid if dataset[name].dtype.kind in "fiub"]
    if not names:
        raise ValueError(f"no variable is on {axes.latitude!r} and {axes.longitude!r}: {list(dataset.data_vars)}")
    return names


def assign_names(dataset: xr.Dataset, sources: Mapping[str, str]) -> xr.Dataset:
    """Return the dataset with variables under new names, {new: name in the file}.

    A variable with levels whose new name states one ("z500") gets the name without it ("z"), in which `rename` finds
    the level. ValueError if a name in the file is missing, or a new one is that of a dimension.
    """
    level, renamed = find_axes(as_forecast(dataset)).level, {}
    for name, source in sources.items():
        if source not in dataset.variables:
            raise unknown_variable_error(dataset, source)
        if name in dataset.dims:
            raise ValueError(f"{name!r} is a dimension of the dataset. Choose another name for {source!r}")
        meaning = lookup(name)
        has_level = level in dataset[source].dims and meaning is not None and meaning[1] is not None
        renamed[meaning[0].short_name if has_level else name] = dataset.variables[source]
    return dataset.drop_vars(set(sources.values()) - set(dataset.dims)).assign(renamed)


def _select(
    dataset: xr.Dataset, axes: Axes, names: Iterable[str], levels: Sequence[float] | None
) -> tuple[xr.Dataset, Levels | None, dict[str, str]]:
    """Return the variables as `rename` does, the levels they keep, and their names in `dataset`."""
    sources = {name: find_variable(dataset, name, axes.level, axes.scalar_level) for name in expand(names)}
    selected, positions = axes.levels, None  # positions in the file of the selected levels
    if levels is not None:
        if np.ndim(levels) != 1 or not len(levels) or len(set(levels)) != len(levels):
            raise ValueError(f"levels={levels!r} must be unique pressures in hPa. For example levels=[500, 850]")
        levels = [float(level) for level in levels]
        if axes.levels is not None:
            positions = [_level_position(axes.levels, level) for level in levels]
            selected = replace(axes.levels, values=axes.levels.values[positions])
    variables = {}
    for name, (source, level) in sources.items():
        variable = dataset.variables[source]
        if missing := [dim for dim in (axes.latitude, axes.longitude) if dim not in variable.dims]:
            message = f"{name!r} (in the file: {source!r}) has the dimensions {list(variable.dims)}"
            fix = "Leave it out: variables must be on the latitude-longitude grid"
            raise ValueError(f"{message}, but lacks {missing}. {fix}")
        check_numbers(source, variable)
        if level is not None:
            if not axes.levels.is_pressure:
                rule = f"its levels {axes.level!r} ({axes.levels.units or 'no unit'}) are not pressures"
                fix = f"Interpolate to pressure levels, or request {source!r} with levels=[...] of the file"
                raise ValueError(f"{level} hPa of {source!r} is requested, but {rule}. {fix}")
            variable = variable.isel({axes.level: _level_position(axes.levels, level)})
        elif axes.level in variable.dims and positions is not None:
            variable = variable.isel({axes.level: _indexer(positions)})
        elif axes.level in variable.dims and variable.sizes[axes.level] == 1:
            variable = variable.isel({axes.level: 0})
        variable = variable.copy(deep=False)
        # this encoding names coordinates that are dropped here
        variable.encoding = {k: v for k, v in variable.encoding.items() if k != "coordinates"}
        variables[name] = variable
    dims = dict.fromkeys(dim for variable in variables.values() for dim in variable.dims)
    if levels is not None and axes.level not in dims:
        raise ValueError(f"levels={levels} applies to none of {list(sources)}, which have no levels. Omit levels")
    coords = {dim: dataset.coords[dim].variable for dim in dims if dim in dataset.coords}
    if positions is not None:
        coords[axes.level] = coords[axes.level].isel({axes.level: _indexer(positions)})
    coords |= _time_coordinates(dataset, axes, dims)
    canonical = {axes.time: "time", axes.latitude: "latitude", axes.longitude: "longitude", axes.level: "level"}
    canonical = {old: new for old, new in canonical.items() if old in dims}
    result = xr.Dataset(variables, coords, dataset.attrs).rename(canonical)
    result.encoding = dict(dataset.encoding)
    if "unlimited_dims" in result.encoding:  # to_netcdf fails on a dimension that is missing
        unlimited = {canonical.get(dim, dim) for dim in result.encoding["unlimited_dims"]}
        result.encoding["unlimited_dims"] = unlimited & set(result.dims)
    return result, selected, {name: source for name, (source, _) in sources.items()}


def check_numbers(name: Hashable, variable: xr.Variable | xr.DataArray) -> None:
    """Raise ValueError unless a variable holds real numbers, and its units, if it has some, are text."""
    if variable.dtype.kind not in "fiub":
        content = {"c": "complex numbers", "U": "text", "S": "text", "O": "objects", "M": "dates", "m": "durations"}
        message = f"{name!r} holds {content.get(variable.dtype.kind, variable.dtype)} ({variable.dtype}), but must hold"
        raise ValueError(f'{message} real numbers. ds["{name}"] = ds["{name}"].astype("float32")  # if the values are')
    units = variable.attrs.get("units")
    if units is not None and not isinstance(units, str):
        fix = f'For example ds["{name}"].attrs["units"] = "K"'
        raise ValueError(f"{name!r} has the units {units!r}, but units must be text. {fix}")


def _time_coordinates(dataset: xr.Dataset, axes: Axes, dims: Iterable[str]) -> dict[str, xr.Variable]:
    """Return the times of a forecast along some dimensions, and the bounds of all times along them."""
    coords, forecast_times = {}, (*FORECAST_DIMS, "valid_time")
    for name in forecast_times if is_forecast(dataset) else ():
        if name in dataset.coords and set(dataset[name].dims) <= set(dims):
            coords[name] = dataset.coords[name].variable
    for name in (axes.time, *forecast_times):
        if name in coords or (name in dims and name in dataset.coords):
            coords |= _time_bounds(dataset, name)
    return coords


def orient(dataset: xr.Dataset) -> xr.Dataset:
    """Return a renamed Dataset on the canonical grid, without reading it.

    Latitude and longitude ascend, see `canonical_longitude`; levels keep their order, in hPa. Dimensions keep their
    order, because xarray reads a transposed lazy variable point by point.
    """
    _check_renamed(dataset)
    rows = grid.canonical_latitude(dataset["latitude"].values)
    columns = grid.canonical_longitude(dataset["longitude"].values)
    levels = grid.read_levels("level", dataset["level"].variable) if "level" in dataset.dims else None
    return _orient(dataset, rows, columns, levels)


def _orient(dataset: xr.Dataset, rows: CanonicalAxis, columns: CanonicalAxis, levels: Levels | None) -> xr.Dataset:
    """Return a renamed Dataset in canonical order, with the canonical coordinates and their CF attributes."""
    axes = (("latitude", rows, grid.LATITUDE_ATTRS), ("longitude", columns, grid.LONGITUDE_ATTRS))
    coords = {name: (name, axis.values, attrs) for name, axis, attrs in axes}
    oriented = _reorder(dataset, rows.order, columns.order).assign_coords(coords)
    if "level" not in dataset.dims:
        return oriented
    attrs = PRESSURE_ATTRS if levels.is_pressure else dataset["level"].attrs
    return oriented.assign_coords(level=("level", levels.values, attrs))


def as_forecast(dataset: xr.Dataset) -> xr.Dataset:
    """Return a forecast with dimensions `init_time` and `lead_time`, and every other Dataset unchanged."""
    leads = [dim for dim in dataset.dims if dim in dataset.coords and dataset[dim].dtype.kind == "m"]
    leads = [n for n in leads if n in _LEAD_NAMES or dataset[n].attrs.get("standard_name") == "forecast_period"]
    if len(leads) != 1 or set(FORECAST_DIMS) & set(dataset.variables):
        return dataset
    scalar = "time" if "time" in dataset.coords and dataset["time"].ndim == 0 else None
    init = grid.find_time(dataset) or scalar
    if init is None or dataset[init].dtype.kind != "M":
        return dataset
    result = dataset.rename({leads[0]: "lead_time", init: "init_time"})
    if "valid_time" in result.coords:
        return result
    return result.assign_coords(valid_time=result["init_time"] + result["lead_time"])


def bounds_offsets(dataset: xr.Dataset) -> tuple[pd.Timedelta, ...] | None:
    """Return the offsets of the time bounds, (-12 h, 12 h) for a mean at noon; None without, or if they differ."""
    if "time" not in dataset.dims:
        return None
    bounds = [variable.values for variable in _time_bounds(dataset, "time").values()]
    if not bounds or not dataset.sizes["time"]:
        return None
    times = dataset.indexes["time"]
    pairs = zip(*(pd.Index(bound) - times for bound in bounds[0].T), strict=True)
    offsets = {tuple(sorted(pd.Timedelta(offset) for offset in pair)) for pair in pairs}
    return offsets.pop() if len(offsets) == 1 else None


def _time_bounds(dataset: xr.Dataset, name: str) -> dict[str, xr.Variable]:
    """Return the bounds of a time, {name: variable}, or an empty dict without bounds of shape (*times, 2)."""
    time = dataset[name].variable
    bounds = time.attrs.get("bounds", time.encoding.get("bounds"))
    if bounds not in dataset.variables:
        return {}
    variable = dataset.variables[bounds]
    return {bounds: variable} if variable.dims[:-1] == time.dims and variable.shape[-1] == 2 else {}


def _level_position(levels: Levels, level: float) -> int:
    position = int(np.abs(levels.values - level).argmin())
    if abs(levels.values[position] - level) > 1e-3:
        available = ", ".join(f"{value:g}" for value in levels.values)
        fix = f"Choose from {available} (hPa)" if levels.is_pressure else f"Choose from {available}"
        for factor, units in ((100, "Pa"), (0.01, "hPa")):  # pressures in one unit, labeled with the other
            if levels.is_pressure and np.isclose(levels.values, level * factor, rtol=1e-6).any():
                fix = f'Its values are in {units}: ds["{levels.name}"].attrs["units"] = "{units}"'
        raise ValueError(f"level {level:g} hPa is not in {levels.name!r}. {fix}")
    return position


def _check_renamed(dataset: xr.Dataset) -> None:
    if missing := [dim for dim in ("latitude", "longitude") if dim not in dataset.dims]:
        raise ValueError(f"the dimensions {list(dataset.dims)} lack {missing}. Open it with open_dataset")


def _reorder(dataset: xr.Dataset, row_order: np.ndarray, column_order: np.ndarray) -> xr.Dataset:
    indexers = {"latitude": _indexer(row_order), "longitude": _indexer(column_order)}
    # without an indexer an untouched lazy view stays one
    return dataset.isel({dim: by for dim, by in indexers.items() if by != slice(0, dataset.sizes[dim], 1)})


def _indexer(order: Sequence[int]) -> slice | list[int]:
    """Return positions as a slice where they are evenly spaced: files read slices faster than lists."""
    steps = set(np.diff(order).tolist()) or {1}
    if len(steps) > 1:
        return [int(position) for position in order]
    step = steps.pop()
    stop = int(order[-1]) + (1 if step > 0 else -1)
    return slice(int(order[0]), stop if stop >= 0 else None, step)


def _transpose(dataset: xr.Dataset, *last: str | None) -> xr.Dataset:
    dims = ("init_time", "lead_time", "time", ..., *filter(None, last))
    arrays = {name: array.transpose(*dims, missing_dims="ignore") for name, array in dataset.data_vars.items()}
    return dataset.assign(arrays)
