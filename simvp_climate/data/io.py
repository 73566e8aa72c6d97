"""Conversions of forecasts: one file per initialization for CDO, WeatherBench 2's layout, short names."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from simvp_climate.data.cf_encoding import VALID_TIME_BOUNDS
from simvp_climate.data.conventions import orient
from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.grid import find_axes
from simvp_climate.data.variables import lookup, same_units, substitute

__all__ = ["from_valid_time", "save_valid_time", "short_names", "to_valid_time", "to_weatherbench2"]


def __dir__() -> list[str]:
    return __all__


def to_valid_time(forecast: xr.Dataset, init: object = None) -> xr.Dataset:
    """Return the forecast from one initialization along its valid time: the form that CDO reads right.

    CDO drops variables with more than four dimensions, with a warning and exit status 0; a file for each
    initialization along `time` is read right by CDO, NCO, iris, MetPy, GDAL and what else there is.

    Parameters
    ----------
    forecast
        As from a Forecaster, of durations or calendar months.
    init
        Which initialization; may be left out where there is one.

    Returns
    -------
    Dataset with dims (time, [level,] latitude, longitude), the lead times in the coordinate
    `forecast_period(time)`, the initialization in the scalar `forecast_reference_time`; lazy if `forecast` is. All
    attributes stay. `from_valid_time` goes back.

    Raises
    ------
    ValueError
        If this is no forecast, the initialization is not in it, or none is named and there are several.
    """
    _check_forecast(forecast)
    for dim in ("lead_time", "init_time"):
        if dim not in forecast.dims:  # one that was picked
            given = [name for name in ("valid_time", VALID_TIME_BOUNDS) if name in forecast.coords]
            forecast = forecast.expand_dims(dim)
            forecast = forecast.assign_coords({name: forecast[name].expand_dims(dim) for name in given})
    forecast = forecast.assign_coords(valid_time=forecast["valid_time"].transpose("init_time", "lead_time"))
    inits = forecast.indexes["init_time"]
    if init is None:
        if len(inits) != 1:
            raise ValueError(
                f"the forecast has {len(inits)} initializations: name one, to_valid_time(forecast, "
                "init=...), or write a file for each, save_valid_time(forecast, folder)"
            )
        one = forecast.isel(init_time=0)
    else:
        try:
            one = forecast.sel(init_time=init)
        except KeyError:
            raise ValueError(
                f"init={init!r} is not in the forecast, which has {len(inits)} from {inits[0]} to {inits[-1]}"
            ) from None
        if one.sizes.get("init_time", 1) > 1:
            raise ValueError(f"init={init!r} names {one.sizes['init_time']} initializations: name one to the hour")
        one = one.isel(init_time=0) if "init_time" in one.dims else one
    names = {"init_time": "forecast_reference_time", "lead_time": "forecast_period", "valid_time": "time"}
    if VALID_TIME_BOUNDS in one.coords:
        names[VALID_TIME_BOUNDS] = "time_bnds"
    result = one.rename(names).swap_dims(forecast_period="time")
    result["time"].attrs |= {"axis": "T"}
    if VALID_TIME_BOUNDS in one.coords:
        result["time"].attrs["bounds"] = "time_bnds"
    result.encoding = {"unlimited_dims": {"time"}}
    return result


def from_valid_time(forecasts: xr.Dataset | Iterable[xr.Dataset]) -> xr.Dataset:
    """Return the forecast that `to_valid_time` was given, from one or several of its results.

    Raises
    ------
    ValueError
        If one of them is no such result, or they differ in leads or grid.
    """
    parts = [forecasts] if isinstance(forecasts, xr.Dataset) else list(forecasts)
    back = []
    for part in parts:
        if lacking := {"forecast_reference_time", "forecast_period", "time"} - set(part.coords):
            raise ValueError(f"this is no result of to_valid_time: it lacks {sorted(lacking)}")
        part = part.copy()
        part["time"].attrs = {key: value for key, value in part["time"].attrs.items() if key not in ("axis", "bounds")}
        names = {"forecast_reference_time": "init_time", "forecast_period": "lead_time", "time": "valid_time"}
        if "time_bnds" in part.variables:
            names["time_bnds"] = VALID_TIME_BOUNDS
            part["time"].attrs["bounds"] = VALID_TIME_BOUNDS
        coordinates = [name for name in ("time_bnds", "forecast_period") if name in part.variables]
        one = part.set_coords(coordinates).swap_dims(time="forecast_period").rename(names)
        back.append(one.expand_dims("init_time"))
    # the valid time depends on the initialization too
    back = [
        one.assign_coords(
            {
                name: one[name].expand_dims(init_time=one["init_time"]).variable
                for name in ("valid_time", VALID_TIME_BOUNDS)
                if name in one.coords and "init_time" not in one[name].dims
            }
        )
        for one in back
    ]
    try:
        result = xr.concat(back, "init_time", data_vars="all", coords="minimal", compat="override", join="exact")
    except ValueError as error:
        raise ValueError(f"the forecasts differ in leads or grid: {error}") from error
    result = result.assign_attrs(parts[0].attrs)
    result.encoding = {"unlimited_dims": {"init_time"}}
    for name in (*result.data_vars, "valid_time", "init_time", "lead_time"):
        result[name].encoding = dict(back[0][name].encoding)
    return result


def save_valid_time(forecast: xr.Dataset, folder: str | os.PathLike, name: str = "forecast_%Y%m%dT%H.nc") -> list[Path]:
    """Write a NetCDF file for each initialization, along its valid time, and return their paths.

    Parameters
    ----------
    forecast
        As from a Forecaster.
    folder
        Is made, inside of one that exists.
    name
        Of the files; the codes of `strftime` stand for the initialization.

    Raises
    ------
    FileNotFoundError
        If there is no folder to make it in.
    ValueError
        If two initializations get the same name, or as in `to_valid_time`.
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

    Variables get WeatherBench 2's names where they are known (`t2m` becomes `2m_temperature`; flat variables on a
    level keep it in the name, `geopotential_500`), latitudes and longitudes ascend, levels are in hPa, and
    `valid_time` goes, which follows from the other two. Written with `to_zarr(path, zarr_format=2)` its own tools
    read it; `open_dataset` goes back.

    Raises
    ------
    ValueError
        If this is no forecast, or leads are calendar months or valid times have bounds, which WeatherBench 2 does not
        have.
    """
    _check_forecast(forecast)
    if not np.issubdtype(forecast["lead_time"].dtype, np.timedelta64):
        raise ValueError("leads are calendar months, and a prediction_timedelta is a duration")
    axes = find_axes(forecast)
    if VALID_TIME_BOUNDS in forecast.coords:
        raise ValueError(
            "WeatherBench 2 has no bounds of valid times: drop them, forecast.drop_vars('valid_time_bnds')"
        )
    names = {str(name): _store_name(str(name), v.attrs.get("units", "")) for name, v in forecast.data_vars.items()}
    names |= {"init_time": "time", "lead_time": "prediction_timedelta"}
    names |= {axes.latitude: "latitude", axes.longitude: "longitude"}
    names |= {axes.level: "level"} if axes.level else {}
    result = forecast.drop_vars("valid_time").rename({old: new for old, new in names.items() if old != new})
    # latitudes and longitudes ascend, from 0 to 360; levels in hPa
    result = orient(result)
    if "level" in result.coords and (result["level"] % 1 == 0).all():
        result = result.assign_coords(level=result["level"].astype(np.int32))
    for variable in result.variables.values():
        variable.encoding = {}
    result.encoding = {}
    return result


def short_names(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast with short names of its variables (`t2m`, `u10`, `z`, `z500`): CF wants a letter first.

    WeatherBench's long names such as `2m_temperature` are the one thing that the CF checkers object to, and NCO needs
    them quoted. Names that are not known stay.

    Raises
    ------
    ValueError
        If two variables would get the same name.
    """
    found = {}
    for name in forecast.data_vars:
        known = lookup(str(name))
        if known is not None:
            found[name] = known[0].short_name + ("" if known[1] is None else f"{known[1]:g}")
    result = [found.get(name, name) for name in forecast.data_vars]
    if twice := sorted({name for name in result if result.count(name) > 1}):
        raise ValueError(f"two variables would be called {twice[0]!r}: rename one before")
    return forecast.rename({old: new for old, new in found.items() if old != new})


def _store_name(name: str, units: str) -> str:
    known = lookup(name)
    if known is None:
        return name
    other = substitute(known[0])
    if other is not None and same_units(units, other.units):  # geopotential height by the name of geopotential
        known = other, known[1]
    return known[0].long_name + ("" if known[1] is None else f"_{known[1]:g}")


def _check_forecast(forecast: xr.Dataset) -> None:
    if lacking := [name for name in ("init_time", "lead_time", "valid_time") if name not in forecast.coords]:
        raise ValueError(
            f"this is no forecast: it has no {' and '.join(lacking)}, but {list(forecast.coords)}. A Forecaster makes "
            "one; others are opened by open_dataset"
        )
