"""Forecasts in the layout of climpred, and back."""

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import VALID_TIME_BOUNDS
from simvp_climate.data.grid import find_axes, find_member
from simvp_climate.data.single_levels import drop_single_levels, name_pressures
from simvp_climate.data.windows import find_valid_times, valid_times

_DURATIONS = {
    "weeks": np.timedelta64(7, "D"), "pentads": np.timedelta64(5, "D"), "days": np.timedelta64(1, "D"),
    "hours": np.timedelta64(1, "h"), "minutes": np.timedelta64(1, "m"), "seconds": np.timedelta64(1, "s"),
}  # fmt: skip
_MONTHS = {"years": 12, "seasons": 3, "months": 1}


def to_climpred(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast in climpred's layout, for its `HindcastEnsemble`.

    >>> hindcast = climpred.HindcastEnsemble(sc.io.to_climpred(forecast))
    >>> hindcast.add_observations(test).verify(metric="rmse", comparison="e2o", dim="init", alignment="maximize")

    The result has the dims (init, lead, [member,] ...): `lead` is whole numbers in the unit of its attribute `units`,
    the largest of days, hours, minutes and seconds in which all are whole, or months. `valid_time` is dropped, because
    climpred computes it. `from_climpred` is the inverse. ValueError if this is no forecast, or valid times have bounds.
    """
    if missing := [name for name in ("init_time", "lead_time") if name not in forecast.dims]:
        message = f"this is no forecast with several initializations and leads: it has no dimension {missing[0]}"
        raise ValueError(f"{message}, but {list(forecast.dims)}. A single one: forecast.expand_dims({missing[0]!r})")
    if VALID_TIME_BOUNDS in forecast.coords:
        raise ValueError(f"climpred has no bounds of valid times. forecast.drop_vars({VALID_TIME_BOUNDS!r})")
    find_valid_times(forecast)
    leads, units = forecast["lead_time"].values, "months"
    if leads.dtype.kind == "m":
        exact = [name for name in list(_DURATIONS)[2:] if (leads % _DURATIONS[name] == np.timedelta64(0)).all()]
        if not exact:
            raise ValueError("climpred needs leads of whole seconds. Round them: forecast.lead_time.dt.round('1s')")
        units, leads = exact[0], leads // _DURATIONS[exact[0]]
    attrs = {key: value for key, value in forecast["lead_time"].attrs.items() if key != "units"}
    names = {"init_time": "init", "lead_time": "lead"}
    if (member := find_member(forecast)) is not None:
        names[member] = "member"
    result = drop_single_levels(forecast).drop_vars("valid_time", errors="ignore")
    lead_time = xr.Variable("lead_time", leads.astype(np.int64), {**attrs, "units": units})
    result = result.assign_coords(lead_time=lead_time).rename(names)
    order = [name for name in ("init", "lead", "member") if name in result.dims]
    result = result.transpose(*order, ...)
    result.encoding = {}
    return result


def from_climpred(hindcast: xr.Dataset) -> xr.Dataset:
    """Return a forecast from climpred's layout, such as `HindcastEnsemble.get_initialized()`.

    The result has the dims (init_time, lead_time, [number,] ...) and the coordinate `valid_time`. ValueError if `init`
    or `lead` is missing, or the units of `lead` are unknown.
    """
    if missing := [name for name in ("init", "lead") if name not in hindcast.dims]:
        message = f"climpred's layout has the dimensions init and lead, but {missing[0]} is missing in"
        raise ValueError(f"{message} {list(hindcast.dims)}. Pass HindcastEnsemble.get_initialized()")
    units = str(hindcast["lead"].attrs.get("units"))
    if units not in _DURATIONS and units not in _MONTHS:
        fix = 'For example hindcast["lead"].attrs["units"] = "months"'
        raise ValueError(f"the units of lead are {units!r}, but must be one of {[*_DURATIONS, *_MONTHS]}. {fix}")
    index = hindcast.indexes["init"]
    if isinstance(index, xr.CFTimeIndex) and index.calendar in ("standard", "gregorian", "proleptic_gregorian"):
        attrs = hindcast["init"].attrs
        hindcast = hindcast.assign_coords(init=index.to_datetimeindex(time_unit="ns"))
        hindcast["init"].attrs = attrs
    attrs = {key: value for key, value in hindcast["lead"].attrs.items() if key != "units"}
    values = hindcast["lead"].values
    if units in _MONTHS:
        lead = xr.Variable("lead", values.astype(np.int64) * _MONTHS[units], {**attrs, "units": "months"})
    else:
        lead = xr.Variable("lead", (values * _DURATIONS[units]).astype("timedelta64[ns]"), attrs)
    names = {"init": "init_time", "lead": "lead_time"} | ({"member": "number"} if "member" in hindcast.dims else {})
    result = hindcast.drop_vars("valid_time", errors="ignore").assign_coords(lead=lead).rename(names)
    times = valid_times(result["init_time"], result["lead_time"])
    times.attrs = {"standard_name": "time", "long_name": "time for which the forecast is valid"}
    order = ("init_time", "lead_time", ...)
    result = result.transpose(*order).assign_coords(valid_time=times)
    return name_pressures(result, find_axes(result).level)
