"""Datasets on the grid of a forecast: the same variables, levels and units, whatever their conventions."""

import warnings
from dataclasses import replace

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import Canonical, canonicalize, orient, rename
from simvp_climate.data.grid import Axes, check_same_grid, find_axes
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import valid_times

SPACE = ("latitude", "longitude")


def with_times(forecast: xr.Dataset) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a forecast with the dimensions init_time and lead_time, and its valid times (init_time, lead_time).

    A forecast with a single selected initialization or lead gets the dimension back.

    Raises
    ------
    ValueError
        If it has no variables, initializations or leads.
    """
    if not forecast.data_vars:
        raise ValueError("the forecast has no variables")
    if missing := [dim for dim in ("init_time", "lead_time") if dim not in forecast.coords]:
        raise ValueError(
            f"the forecast has no coordinate {' and '.join(missing)}, but {list(forecast.coords)}. Rename its times, "
            "for example forecast.rename(time='init_time', prediction_timedelta='lead_time')"
        )
    for dim in ("init_time", "lead_time"):
        if forecast[dim].ndim == 0:
            forecast = forecast.expand_dims(dim)
    valid_time = forecast.coords.get("valid_time")
    if valid_time is None:
        return forecast, valid_times(forecast.init_time, forecast.lead_time)
    # A selected init or lead leaves it with fewer dimensions.
    valid_time = valid_time.reset_coords(drop=True).drop_vars(["init_time", "lead_time"], errors="ignore")
    missing_dims = {dim: forecast.sizes[dim] for dim in ("init_time", "lead_time") if dim not in valid_time.dims}
    return forecast, valid_time.expand_dims(missing_dims).transpose("init_time", "lead_time")


def canonicalize_forecast(forecast: xr.Dataset) -> Canonical:
    """Return a forecast on the canonical grid, with its valid times; a single level stays a dimension."""
    forecast, valid_time = with_times(forecast)
    canonical = canonicalize(forecast)
    _check_dims(forecast, canonical.axes)
    return replace(canonical, dataset=canonical.dataset.assign_coords(valid_time=valid_time))


def rename_dimensions(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast with the canonical names of the dimensions and without other coordinates.

    Its variables keep their names, and a single level stays a dimension.
    """
    axes = find_axes(forecast)
    _check_dims(forecast, axes)
    names = {axes.latitude: "latitude", axes.longitude: "longitude", axes.level: "level"}
    names = {old: new for old, new in names.items() if old is not None and old != new}
    return forecast.reset_coords(drop=True).rename(names)


def _check_dims(forecast: xr.Dataset, axes: Axes) -> None:
    for name, variable in forecast.data_vars.items():
        if missing := {axes.latitude, axes.longitude, "init_time", "lead_time"} - set(variable.dims):
            raise ValueError(f"{name} in the forecast has dims {variable.dims} and lacks {sorted(missing)}")


def canonical_grid(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the canonical latitude, longitude and, if present, level of a dataset with renamed dimensions."""
    # Without its data: an empty selection along all other dimensions.
    oriented = orient(dataset.isel({dim: slice(0, 0) for dim in dataset.dims if dim not in (*SPACE, "level")}))
    return {name: c for name, c in oriented.coords.items() if name in (*SPACE, "level")}


def on_grid_of(dataset: xr.Dataset, like: xr.Dataset, role: str) -> xr.Dataset:
    """Return the variables and levels of a canonical dataset `like` from another dataset, on the grid of `like`.

    Raises
    ------
    ValueError
        If a variable or level is missing, or grids or units differ; `role` names the dataset in the message.
    """
    names = [str(name) for name in like.data_vars]
    has_levels = any("level" in like[name].dims for name in names)
    try:
        levels = like["level"].values if has_levels else None
        result = canonicalize(dataset, names, levels).dataset.reset_coords(drop=True)
        check_same_grid(like, result)
    except ValueError as error:
        raise ValueError(f"{role} does not fit: {error}") from error
    for name in names:
        expected, units = like[name].attrs.get("units"), result[name].attrs.get("units")
        if expected and units and not same_units(expected, units):
            raise ValueError(f"{role} does not fit: {name} is in {units!r} and not in {expected!r}. Convert one")
    return result.assign_coords({dim: like[dim] for dim in (*SPACE, "level") if dim in result.dims})


def align(
    forecast: xr.Dataset,
    other: xr.Dataset,
    grid: dict[str, xr.DataArray],
    scalar_coords: dict[str, xr.DataArray],
    role: str,
    *,
    check_units: bool = True,
) -> xr.Dataset:
    """Return the variables and levels of the forecast from `other`, in the order of its file, with renamed dimensions.

    Raises ValueError if it lacks one, or if its grid or units differ from those of the forecast; warns if only one of
    the two has units. `role` names it in messages. Without `check_units`, it may be a quantity in another unit.
    """
    names = list(forecast.data_vars)
    # Variables without levels may stand beside others that have them.
    has_levels = "level" in grid and any("level" in variable.dims for variable in forecast.data_vars.values())
    levels = grid["level"].values if has_levels else _selected_level(other, names, scalar_coords)
    try:
        other = rename(other, names, levels).reset_coords(drop=True)
        other_grid = canonical_grid(other)
        check_same_grid(xr.Dataset(coords=grid), xr.Dataset(coords=other_grid))
    except ValueError as error:
        raise ValueError(f"the forecast cannot be compared with {role}: {error}") from error
    if "level" in other.dims and not has_levels:
        if levels is None:
            raise ValueError(
                f"{role} has levels {other_grid['level'].values}, the forecast has none: select one of them"
            )
        other = other.isel(level=0, drop=True)
    if check_units:
        _check_units(forecast, other, role)
    return other


def _check_units(forecast: xr.Dataset, other: xr.Dataset, role: str) -> None:
    """Raise ValueError if the units of a variable differ; warn if only one of both datasets has them."""
    one_sided = []
    for name, variable in forecast.data_vars.items():
        expected, units = variable.attrs.get("units"), other[name].attrs.get("units")
        if expected is None and units is None:
            continue
        if expected is None or units is None:
            one_sided.append(f"{name} ({expected or units!r})")
        elif not same_units(expected, units):
            raise ValueError(f"{name} has units {expected!r} in the forecast but {units!r} in {role}: convert one")
    if one_sided:
        warnings.warn(
            f"only one of the forecast and {role} has units of {', '.join(one_sided)}: both are taken to be the "
            "same. Set the missing ones, ds['t2m'].attrs['units'] = 'K'",
            stacklevel=5,
        )


def _selected_level(other: xr.Dataset, names: list[str], scalar_coords: dict[str, xr.DataArray]) -> np.ndarray | None:
    """Return the level of a forecast with one selected level, if `other` has levels to select from."""
    axis = find_axes(other).level
    level = scalar_coords.get(axis, scalar_coords.get("level"))
    if level is None or not any(axis in other[name].dims for name in names if name in other):
        return None
    # orient converts levels to hPa.
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
