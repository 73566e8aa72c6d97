"""CF attributes and encodings of forecasts, with which xarray, iris and NCO read back what `to_netcdf` wrote.

CF 1.8: float64 times, no fill value on coordinates. No coordinate has the axis T: `valid_time` is the time, in two
dimensions, and cf-xarray would find `init_time` beside it.
"""

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import VALID_TIME_BOUNDS
from simvp_climate.data.grid import LATITUDE_ATTRS, LONGITUDE_ATTRS, Axes, find_axes
from simvp_climate.data.single_levels import PRESSURE_ATTRS, name_pressures
from simvp_climate.data.variables import lookup_in_units

_INIT = {"standard_name": "forecast_reference_time", "long_name": "initialization time"}
_LEAD = {"standard_name": "forecast_period", "long_name": "time since initialization"}
_VALID = {"standard_name": "time", "long_name": "time for which the forecast is valid"}
_TIME_ENCODING = {"dtype": "float64", "_FillValue": None}

# attributes of the analysis that do not hold for its forecast; readers mask values outside a valid range
_STALE = {"valid_range", "valid_min", "valid_max", "actual_range", "statistic", "precision", "dataset"}
# what GRIB readers write where they know no standard name
_NO_NAMES = ("unknown", "", "-")
# without "instant": a daily mean of such data, made with xarray, still has that attribute
_GRIB_METHODS = {"accum": "sum", "avg": "mean", "max": "maximum", "min": "minimum"}
# prefixes of attributes about GRIB's coding and the values of a cache
_STALE_PREFIXES = ("GRIB_", "cache_")


def encode(forecast: xr.Dataset, axes: Axes | None = None) -> xr.Dataset:
    """Return the forecast with CF attributes and encodings; `axes` are its dimensions, None looks them up.

    Attributes of the data stay; missing ones that the vocabulary knows are added. `cell_methods` come from the data, or
    from GRIB's step type for sums, means and extremes over time, never from a variable's name. A scalar coordinate is
    the pressure of each variable such as `z500`.
    """
    axes, forecast = axes or find_axes(forecast), forecast.copy()
    known = {"init_time": _INIT, "lead_time": _LEAD, "valid_time": _VALID}
    known |= {axes.latitude: LATITUDE_ATTRS, axes.longitude: LONGITUDE_ATTRS}
    for name, attributes in known.items():
        forecast[name].attrs = {**attributes, **forecast[name].attrs}
        if forecast[name].attrs.get("bounds") not in forecast.variables:
            forecast[name].attrs.pop("bounds", None)  # the data have these bounds, the forecast does not
        forecast[name].encoding = {"_FillValue": None}
    times = ["init_time", "valid_time"]
    unit = _unit(forecast["valid_time"])
    if VALID_TIME_BOUNDS in forecast.coords:
        forecast["valid_time"].attrs["bounds"] = VALID_TIME_BOUNDS
        forecast[VALID_TIME_BOUNDS].attrs = {}  # by CF they are those of the valid time
        times.append(VALID_TIME_BOUNDS)
        unit = min(unit, _unit(forecast[VALID_TIME_BOUNDS]), key=("seconds", "minutes", "hours").index)
    for name in times:
        units, calendar = f"{unit} since 1970-01-01 00:00:00", forecast[name].dt.calendar
        forecast[name].encoding = {"units": units, "calendar": calendar, **_TIME_ENCODING}
    if np.issubdtype(forecast["lead_time"].dtype, np.timedelta64):
        # xarray adds the attribute `dtype` to every duration, whatever its encoding
        forecast["lead_time"].encoding = {"units": unit, **_TIME_ENCODING}
    _encode_levels(forecast, axes)
    _encode_variables(forecast)
    forecast.encoding = {"unlimited_dims": {"init_time"}}
    return name_pressures(forecast, axes.level)


def encode_run(run: xr.Dataset, axes: Axes) -> xr.Dataset:
    """Return a run, on `time`, with CF attributes and encodings; `axes` are its dimensions."""
    run = run.copy()
    known = {axes.latitude: LATITUDE_ATTRS, axes.longitude: LONGITUDE_ATTRS}
    known["time"] = {"standard_name": "time", "axis": "T"}
    for name, attributes in known.items():
        run[name].attrs = {**attributes, **run[name].attrs}
        if run[name].attrs.get("bounds") not in run.variables:
            run[name].attrs.pop("bounds", None)
        run[name].encoding = {"_FillValue": None}
    for name in [name for name in ("time", "time_bnds") if name in run.variables]:
        units, calendar = f"{_unit(run[name])} since 1970-01-01 00:00:00", run["time"].dt.calendar
        run[name].encoding = {"units": units, "calendar": calendar, **_TIME_ENCODING}
    _encode_levels(run, axes)
    _encode_variables(run)
    run.encoding = {"unlimited_dims": {"time"}}
    return run


def _encode_levels(dataset: xr.Dataset, axes: Axes) -> None:
    if axes.level not in dataset.dims:
        return
    level = dataset[axes.level]
    # the vocabulary's levels are hPa unless the data say otherwise
    is_pressure = axes.levels.is_pressure if axes.levels is not None else level.attrs.get("units", "hPa") == "hPa"
    level.attrs = {**(PRESSURE_ATTRS if is_pressure else {"axis": "Z"}), **level.attrs}
    level.encoding = {"_FillValue": None}


def _encode_variables(dataset: xr.Dataset) -> None:
    """Set attributes and encodings of the variables."""
    for name, variable in dataset.data_vars.items():
        inherited = {k: v for k, v in variable.attrs.items() if k not in _STALE and not k.startswith(_STALE_PREFIXES)}
        if inherited.get("standard_name") in _NO_NAMES:
            del inherited["standard_name"]
        known = _known_attributes(name, variable.attrs.get("units", ""))
        if method := _GRIB_METHODS.get(variable.attrs.get("GRIB_stepType")):
            known["cell_methods"] = f"time: {method}"
        variable.attrs = {**known, **inherited}
        variable.encoding = {"zlib": True, "complevel": 1, "shuffle": True, "_FillValue": np.float32("nan")}


def _unit(times: xr.DataArray) -> str:
    """Return the largest unit in which the times are exact as float64; ten minutes are not exact in hours."""
    if (times.dt.second != 0).any():
        return "seconds"
    return "minutes" if (times.dt.minute % 15 != 0).any() else "hours"


def _known_attributes(name: str, units: str) -> dict[str, str]:
    """Return `standard_name` and `long_name` from the vocabulary; units come from the data."""
    known = lookup_in_units(name, units)
    if known is None:
        return {}
    variable, level = known
    suffix = "" if level is None else f" at {level:g} hPa"
    named = {"standard_name": variable.standard_name} if variable.standard_name else {}
    return {**named, "long_name": variable.long_name.replace("_", " ") + suffix}
