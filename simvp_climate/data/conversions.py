"""Conversions of forecasts: one file per initialization for CDO, WeatherBench 2's layout, short names."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.climpred_layout import from_climpred, to_climpred
from simvp_climate.data.cmip_files import to_cmip
from simvp_climate.data.conventions import VALID_TIME_BOUNDS, orient
from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.grid import find_axes
from simvp_climate.data.single_levels import (
    assign_single_levels,
    drop_single_levels,
    name_pressures,
    pressure_coordinates,
    vertical_coordinate,
)
from simvp_climate.data.stations import station_observations
from simvp_climate.data.variables import lookup, lookup_in_units
from simvp_climate.data.windows import find_valid_times

__all__ = [
    "from_climpred", "from_valid_time", "save_valid_time", "short_names", "station_observations", "to_climpred",
    "to_cmip", "to_valid_time", "to_weatherbench2",
]  # fmt: skip
_VALID_TIME_NAMES = {"init_time": "forecast_reference_time", "lead_time": "forecast_period", "valid_time": "time"}


def __dir__() -> list[str]:
    return __all__


def to_valid_time(forecast: xr.Dataset, init: object = None) -> xr.Dataset:
    """Return the forecast from one initialization along its valid time, the form that CDO reads correctly.

    CDO drops variables with more than four dimensions, with a warning and exit status 0.

    The result has dims (time, [level,] latitude, longitude), the lead times in the coordinate `forecast_period(time)`,
    as numbers with units, and the initialization in the scalar `forecast_reference_time`. Where the levels of all
    variables are known and some are pressures, as of `z500` and `t2m`, scalars such as `pressure_500` (hPa) and
    `height_2` (m) contain them. It is lazy if `forecast` is. `init` is optional for a forecast with a single
    initialization. `from_valid_time` is the inverse. ValueError if this is not a forecast, lacks
    the initialization, or has several and `init` is None.
    """
    _check_forecast(forecast)
    for dim in ("lead_time", "init_time"):
        if dim not in forecast.dims:  # a single one was selected
            forecast = _expand(forecast, dim)
    forecast = forecast.assign_coords(valid_time=forecast["valid_time"].transpose("init_time", "lead_time"))
    inits = forecast.indexes["init_time"]
    if init is None and len(inits) != 1:
        fix = "Select one, to_valid_time(forecast, init=...), or use save_valid_time(forecast, folder)"
        raise ValueError(f"the forecast has {len(inits)} initializations. {fix}")
    try:
        selected = forecast if init is None else forecast.sel(init_time=init)
    except KeyError:
        message = f"init={init!r} is not in the forecast. Choose one of its {len(inits)}, {inits[0]} to {inits[-1]}"
        raise ValueError(message) from None
    if selected.sizes.get("init_time", 1) > 1:
        raise ValueError(f"init={init!r} matches {selected.sizes['init_time']} initializations: give the hour too")
    selected = selected.isel(init_time=0, missing_dims="ignore")
    names, attrs = _VALID_TIME_NAMES, {"axis": "T"}
    if VALID_TIME_BOUNDS in selected.coords:
        names, attrs = names | {VALID_TIME_BOUNDS: "time_bnds"}, attrs | {"bounds": "time_bnds"}
    result = selected.rename(names).swap_dims(forecast_period="time")
    result["time"].attrs |= attrs
    result.encoding = {"unlimited_dims": {"time"}}
    return _with_levels(_with_numeric_leads(result))


def _with_numeric_leads(forecast: xr.Dataset) -> xr.Dataset:
    """Return durations as numbers with units: for a duration, xarray would write an attribute that CF does not have."""
    leads = forecast["forecast_period"]
    if leads.dtype.kind != "m":
        return forecast
    # ten minutes are not exact in hours, quarters of an hour are
    multiples = {"hours": np.timedelta64(15, "m"), "minutes": np.timedelta64(1, "m")}
    name = next((unit for unit, of in multiples.items() if (leads.values % of == np.timedelta64(0)).all()), "seconds")
    values = leads.values / np.timedelta64(1, {"hours": "h", "minutes": "m", "seconds": "s"}[name])
    attrs = {**leads.attrs, "units": name}
    variable = xr.Variable(leads.dims, values, attrs, {"dtype": "float64", "_FillValue": None})
    return forecast.assign_coords(forecast_period=variable)


def _with_levels(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast without coordinates that CDO warns of, whose variables such as `z500` name their level.

    CDO gives a variable without a level that of another one, so that all get one, or none does.
    """
    level = find_axes(forecast).level
    single = [str(name) for name, variable in forecast.data_vars.items() if level not in variable.dims]
    names = {name: vertical_coordinate(name) for name in single}
    if None in names.values() or not pressure_coordinates(forecast, level):
        names = {}
    result = assign_single_levels(forecast, names)
    if "time" in result.coords:
        # else xarray names them in a global attribute, which iris warns of, and CDO warns of them at the variables
        times = [name for name in ("forecast_period", "forecast_reference_time") if name in result.coords]
        result["time"].encoding = {**result["time"].encoding, "coordinates": " ".join(times) or None}
    return result


def from_valid_time(forecasts: xr.Dataset | Iterable[xr.Dataset]) -> xr.Dataset:
    """Return a forecast along initialization and lead time from one or several results of `to_valid_time`.

    ValueError if one is not such a result, or they differ in leads or grid.
    """
    forecasts = [forecasts] if isinstance(forecasts, xr.Dataset) else list(forecasts)
    restored = []
    for forecast in forecasts:
        if lacking := {*_VALID_TIME_NAMES.values()} - set(forecast.coords):
            raise ValueError(f"a forecast lacks {sorted(lacking)}. Pass results of to_valid_time")
        forecast = _with_durations(drop_single_levels(forecast))
        attrs = forecast["time"].attrs
        forecast["time"].attrs = {key: value for key, value in attrs.items() if key not in ("axis", "bounds")}
        names = {new: old for old, new in _VALID_TIME_NAMES.items()}
        if "time_bnds" in forecast.variables:
            names["time_bnds"] = VALID_TIME_BOUNDS
            forecast["time"].attrs["bounds"] = VALID_TIME_BOUNDS
        coordinates = [name for name in ("time_bnds", "forecast_period") if name in forecast.variables]
        forecast = forecast.set_coords(coordinates).swap_dims(time="forecast_period").rename(names)
        restored.append(_expand(forecast, "init_time"))
    try:
        result = xr.concat(restored, "init_time", data_vars="all", coords="minimal", compat="override", join="exact")
    except ValueError as error:
        raise ValueError(f"the forecasts differ in leads or grid: {error}") from error
    result = result.assign_attrs(forecasts[0].attrs)
    result.encoding = {"unlimited_dims": {"init_time"}}
    for name in (*result.data_vars, "valid_time", "init_time", "lead_time"):
        result[name].encoding = dict(restored[0][name].encoding)
    return name_pressures(result, find_axes(result).level)


def _with_durations(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast whose lead times are durations again, unless they count months."""
    leads = forecast["forecast_period"]
    units = leads.attrs.get("units", leads.encoding.get("units"))
    if leads.dtype.kind == "m" or units not in ("hours", "minutes", "seconds", "days"):
        return forecast
    attrs = {key: value for key, value in leads.attrs.items() if key != "units"}
    values = pd.to_timedelta(leads.values, unit=units).to_numpy().astype("timedelta64[ns]")
    encoding = {"units": units, "dtype": "float64", "_FillValue": None}
    return forecast.assign_coords(forecast_period=xr.Variable(leads.dims, values, attrs, encoding))


def save_valid_time(forecast: xr.Dataset, folder: str | os.PathLike, name: str = "forecast_%Y%m%dT%H.nc") -> list[Path]:
    """Write a NetCDF file for each initialization, along its valid time, and return their paths.

    `folder` is created if missing; FileNotFoundError if its parent is. `name` has `strftime` codes for the
    initialization; ValueError if two get the same name, or as in `to_valid_time`.
    """
    _check_forecast(forecast)
    folder = check_parent(folder)
    folder.mkdir(exist_ok=True)
    whole = forecast if "init_time" in forecast.dims else forecast.expand_dims("init_time")
    inits = whole.indexes["init_time"]
    paths = [folder / init.strftime(name) for init in inits]
    if len(set(paths)) < len(paths):
        raise ValueError(f"name={name!r} gives {len(paths)} initializations {len(set(paths))} names: add %d, %H or %M")
    for init, path in zip(inits, paths, strict=True):
        write_atomically(path, to_valid_time(whole, init).to_netcdf)
    return paths


def to_weatherbench2(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast in the layout of WeatherBench 2's stores: dims (time, prediction_timedelta, ...).

    Known variables get WeatherBench 2's names (`2m_temperature`, `geopotential_500`), latitudes and longitudes ascend,
    levels are in hPa, and `valid_time` is dropped. WeatherBench's tools read the result of
    `to_zarr(path, zarr_format=2)`; `open_dataset` is the inverse. ValueError if this is no forecast, leads are calendar
    months, or valid times have bounds.
    """
    _check_forecast(forecast)
    if not np.issubdtype(forecast["lead_time"].dtype, np.timedelta64):
        raise ValueError("lead times are calendar months, but WeatherBench 2 has durations only. Use to_netcdf")
    if VALID_TIME_BOUNDS in forecast.coords:
        raise ValueError("WeatherBench 2 has no bounds of valid times. forecast.drop_vars('valid_time_bnds')")
    axes = find_axes(forecast)
    names = {"init_time": "time", "lead_time": "prediction_timedelta", axes.latitude: "latitude"}
    names |= {axes.longitude: "longitude", **({axes.level: "level"} if axes.level else {})}
    for name, variable in forecast.data_vars.items():
        if known := lookup_in_units(str(name), variable.attrs.get("units", "")):
            names[name] = known[0].long_name + ("" if known[1] is None else f"_{known[1]:g}")
    result = drop_single_levels(forecast).drop_vars("valid_time")
    result = orient(result.rename({old: new for old, new in names.items() if old != new}))
    if "level" in result.coords and (result["level"] % 1 == 0).all():
        result = result.assign_coords(level=result["level"].astype(np.int32))
    for variable in result.variables.values():
        variable.encoding = {}
    result.encoding = {}
    return result


def short_names(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast with short names of its variables (`t2m`, `u10`, `z`, `z500`).

    CF checkers reject WeatherBench's long names such as `2m_temperature`: CF names begin with a letter. ValueError if
    two variables would get the same name.
    """
    new_names = {name: str(name) for name in forecast.data_vars}
    for name in forecast.data_vars:
        if known := lookup(str(name)):
            new_names[name] = known[0].short_name + ("" if known[1] is None else f"{known[1]:g}")
    names = list(new_names.values())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two variables would be called {twice[0]!r}. Rename one first")
    return forecast.rename({old: new for old, new in new_names.items() if old != new})


def _expand(forecast: xr.Dataset, dim: str) -> xr.Dataset:
    """Return a forecast with a scalar initialization or lead time as a dimension, also of its valid times."""
    valid_times = [name for name in ("valid_time", VALID_TIME_BOUNDS) if name in forecast.coords]
    return forecast.reset_coords(valid_times).expand_dims(dim).set_coords(valid_times)


def _check_forecast(forecast: xr.Dataset) -> None:
    if lacking := [name for name in _VALID_TIME_NAMES if name not in forecast.coords]:
        message = f"this is not a forecast: it lacks {' and '.join(lacking)}, and has {list(forecast.coords)}"
        raise ValueError(f"{message}. Pass the result of a Forecaster, or open another forecast with open_dataset")
    find_valid_times(forecast)
