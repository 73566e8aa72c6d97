"""Datasets brought to the variables, levels and grid of a forecast."""

import warnings

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import canonicalize, orient, rename
from simvp_climate.data.grid import check_same_grid, find_axes
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import valid_times

SPACE = ("latitude", "longitude")


def with_times(forecast: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a forecast with both dimensions of time, and its valid times, (init_time, lead_time).

    One initialization or lead that was picked is a forecast too.

    Raises
    ------
    ValueError
        If it has no variables, initializations or leads.
    """
    if not forecast.data_vars:
        raise ValueError("the forecast has no variables")
    if lacking := [dim for dim in ("init_time", "lead_time") if dim not in forecast.coords]:
        raise ValueError(
            f"the forecast has no coordinate {' and '.join(lacking)}, but {list(forecast.coords)}: rename "
            "them, for example forecast.rename(time='init_time', prediction_timedelta='lead_time')"
        )
    for dim in ("init_time", "lead_time"):
        if forecast[dim].ndim == 0:
            forecast = forecast.expand_dims(dim)
    given = forecast.coords.get("valid_time")
    if given is None:
        return forecast, valid_times(forecast.init_time, forecast.lead_time)
    # a picked init or lead leaves it with fewer dimensions
    shape = {dim: forecast.sizes[dim] for dim in ("init_time", "lead_time")}
    given = given.reset_coords(drop=True).drop_vars(["init_time", "lead_time"], errors="ignore")
    valid_time = given.expand_dims({dim: size for dim, size in shape.items() if dim not in given.dims})
    return forecast, valid_time.transpose("init_time", "lead_time")


def canonical(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast on the canonical grid, with its valid times; a single level stays a dimension."""
    forecast, valid_time = with_times(forecast)
    return orient(_renamed(forecast)).assign_coords(valid_time=valid_time)


def on_grid_of(dataset: xr.Dataset, like: xr.Dataset, role: str) -> xr.Dataset:
    """Return the variables and levels of a canonical dataset in another one, by name and by value, and on its grid.

    Raises
    ------
    ValueError
        If a variable or level is missing, the grid is another, or units differ; `role` says of what.
    """
    names = [str(name) for name in like.data_vars]
    has_levels = any("level" in like[name].dims for name in names)
    try:
        levels = like["level"].values if has_levels else None
        found = canonicalize(dataset, names, levels).dataset.reset_coords(drop=True)
        check_same_grid(like, found)
    except ValueError as error:
        raise ValueError(f"{role} does not fit: {error}") from error
    for name in names:
        first, second = like[name].attrs.get("units"), found[name].attrs.get("units")
        if first and second and not same_units(first, second):
            raise ValueError(f"{role} does not fit: {name} is in {second!r} and not in {first!r}. Convert one")
    return found.assign_coords({dim: like[dim] for dim in (*SPACE, "level") if dim in found.dims})


def comparable(
    forecast: xr.Dataset,
    other: xr.Dataset,
    grid: dict[str, xr.DataArray],
    kept: dict[str, xr.DataArray],
    role: str,
    *,
    units: bool = True,
) -> xr.Dataset:
    """Return the variables and levels of the forecast in `other`, if it has them on the same grid and in its units.

    A warning says where only one of both has units. `units=False`: `other` is something else in a unit of its own.
    """
    names = list(forecast.data_vars)
    # some of the variables may have levels and these none
    has_levels = "level" in grid and any("level" in variable.dims for variable in forecast.data_vars.values())
    levels = grid["level"].values if has_levels else _picked_level(other, names, kept)
    try:
        other = rename(other, names, levels).reset_coords(drop=True)
        oriented = _oriented(other)
        check_same_grid(xr.Dataset(coords=grid), oriented)
    except ValueError as error:
        raise ValueError(f"the forecast cannot be compared with {role}: {error}") from error
    if "level" in other.dims and not has_levels:
        if levels is None:
            raise ValueError(f"{role} has levels {oriented.level.values}, the forecast has none: select one of them")
        other = other.isel(level=0, drop=True)
    if not units:
        return other
    one_sided = []
    for name, variable in forecast.data_vars.items():
        first, second = variable.attrs.get("units"), other[name].attrs.get("units")
        if first is None and second is None:
            continue
        if first is None or second is None:
            one_sided.append(f"{name} ({first or second!r})")
        elif not same_units(first, second):
            raise ValueError(f"{name} has units {first!r} in the forecast but {second!r} in {role}: convert one")
    if one_sided:
        warnings.warn(
            f"only one of the forecast and {role} says the units of {', '.join(one_sided)}: both are taken to be the "
            "same. Set them where they are missing, ds['t2m'].attrs['units'] = 'K'",
            stacklevel=4,
        )
    return other


def _renamed(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast with our names of the dimensions and no coordinates but those of dimensions.

    Its variables are what they are called, so nothing is looked up, and a single level stays a dimension.
    """
    axes = find_axes(forecast)
    for name, variable in forecast.data_vars.items():
        if lacking := {axes.latitude, axes.longitude, "init_time", "lead_time"} - set(variable.dims):
            raise ValueError(f"{name} in the forecast has dims {variable.dims} and lacks {sorted(lacking)}")
    names = {axes.latitude: "latitude", axes.longitude: "longitude", axes.level: "level"}
    names = {old: new for old, new in names.items() if old is not None and old != new}
    return forecast.reset_coords(drop=True).rename(names)


def _oriented(dataset: xr.Dataset) -> xr.Dataset:
    """Return the canonical grid of a renamed dataset, without the data."""
    grid_dims = (*SPACE, "level")
    return orient(dataset.isel({dim: slice(0, 0) for dim in dataset.dims if dim not in grid_dims}))


def _picked_level(other: xr.Dataset, names: list[str], kept: dict[str, xr.DataArray]) -> np.ndarray | None:
    """Return the level of a forecast with one picked level, if `other` has levels to pick from."""
    axis = find_axes(other).level
    level = kept.get(axis, kept.get("level"))
    if level is None or not any(axis in other[name].dims for name in names if name in other):
        return None
    # orient knows pressures
    labels = ("level", np.atleast_1d(level.values), level.attrs)
    return orient(xr.Dataset(coords={"latitude": [0.0], "longitude": [0.0], "level": labels})).level.values


def iso(time: np.generic | object) -> str:
    """Return a time as ISO text to the second."""
    return time.isoformat() if hasattr(time, "isoformat") else str(np.datetime64(time, "s"))


def lead_text(lead: object) -> str:
    """Return a lead time as text to read, "6 h", "5 d" or "2 months"."""
    if not isinstance(lead, np.timedelta64):
        return f"{lead} months"
    hours = lead / np.timedelta64(1, "h")
    return f"{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"{hours:g} h"
