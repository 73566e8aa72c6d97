"""Persistence: the analysis at initialization, unchanged at every lead."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import find_axes
from simvp_climate.data.windows import valid_times
from simvp_climate.metrics.baselines.climatologies import name_time

# Datetimes or durations: labeled, any sequence, or text.
Times = xr.DataArray | Iterable | str


def persistence(dataset: xr.Dataset, init_times: Times, lead_times: Times) -> xr.Dataset:
    """Return the analysis at each initialization time as the forecast for every lead time.

    Parameters
    ----------
    dataset
        Analyses with a dimension `time`.
    init_times
        Times of the dataset to start from: datetimes, an array, or ISO strings.
    lead_times
        Durations: timedelta64, pandas timedeltas, or text such as "6h"; for calendar months a DataArray
        of whole numbers with the attribute units="months".

    Returns
    -------
    Dataset with the variables of `dataset` that have a time, in its units, with its names, coordinates and attributes.
    Dims (init_time, lead_time, [level,] latitude, longitude); coordinate `valid_time(init_time, lead_time)`. Dask
    arrays stay lazy, other data are read; all leads share memory. ValueError if the dataset lacks a `time` or one of
    the init times, or lead times have no unit.
    """
    dataset = name_time(dataset)
    times = dataset.indexes["time"]
    positions = _init_positions(init_times, times)
    lead_time = as_lead_time(lead_times)
    changing = [name for name, variable in dataset.data_vars.items() if "time" in variable.dims]
    analysis = dataset[changing].isel(time=positions).drop_encoding()  # it belongs to the file that was read
    # other coordinates along time describe the analysis, not the forecast time
    analysis = analysis.drop_vars([name for name, c in analysis.coords.items() if "time" in c.dims and name != "time"])
    # only dask arrays can be repeated and transposed unread
    analysis = analysis.assign({n: v.compute() for n, v in analysis.data_vars.items() if v.chunks is None})
    forecast = analysis.rename(time="init_time").expand_dims(lead_time=lead_time.values, axis=1)
    axes = find_axes(dataset)
    last = [axis for axis in (axes.level, axes.latitude, axes.longitude) if axis in forecast.dims]
    forecast = forecast.transpose("init_time", "lead_time", ..., *last)
    forecast["init_time"].attrs = {"standard_name": "forecast_reference_time"}
    forecast["lead_time"].attrs = {**lead_time.attrs, "standard_name": "forecast_period"}
    valid_time = valid_times(forecast.init_time, forecast.lead_time, known=times)
    return forecast.assign_coords(valid_time=valid_time.assign_attrs(standard_name="time"))


def as_lead_time(lead_times: Times) -> xr.DataArray:
    """Return lead times as a DataArray along lead_time: timedelta64[ns], or whole months with their unit."""
    values = np.atleast_1d(np.asarray(lead_times))
    if isinstance(lead_times, xr.DataArray) and lead_times.attrs.get("units") == "months":
        return xr.DataArray(values, dims="lead_time", attrs={"units": "months"})
    if values.dtype.kind in "iuf":
        raise ValueError(
            f"lead_times={values} have no unit: give durations such as '6h', or for calendar months a "
            "DataArray with the attribute units='months'"
        )
    return xr.DataArray(pd.to_timedelta(values).to_numpy().astype("timedelta64[ns]"), dims="lead_time")


def as_times(init_times: Times, times: pd.Index) -> pd.Index:
    """Return init times in the calendar of the times of the data; ValueError if they have another one."""
    values = np.atleast_1d(np.asarray(init_times))
    standard = isinstance(times, pd.DatetimeIndex)
    if not standard and len(values) and not isinstance(values[0], times.date_type):
        raise ValueError(
            f"init time {values[0]!r} is not a {times.date_type.__name__}: the dataset has the calendar "
            f"{times.calendar!r}, take init times from it, for example ds.time[::10]"
        )
    return pd.DatetimeIndex(values) if standard else xr.CFTimeIndex(values)


def _init_positions(init_times: Times, times: pd.Index) -> np.ndarray:
    """Return where the init times are among the times of the data; ValueError if one of them is not."""
    inits = as_times(init_times, times)
    positions = times.get_indexer(inits)
    if (positions < 0).any():
        first = inits[int(np.argmax(positions < 0))]
        nearest = times[int(np.abs(times - first).argmin())]
        raise ValueError(
            f"{(positions < 0).sum()} of {len(inits)} init times are not in the dataset, first {first}; its "
            f"nearest time is {nearest} (it runs from {times[0]} to {times[-1]})"
        )
    return positions
