"""Means over days, weeks or months of forecasts and of the truth, to score them instead of single states."""

from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import VALID_TIME_BOUNDS, bounds_offsets
from simvp_climate.data.grid import is_forecast
from simvp_climate.data.windows import check_times, parse_step
from simvp_climate.metrics.baselines.climatologies import name_time
from simvp_climate.metrics.pairs import with_times

_DAY = pd.Timedelta("1D")
_CONCAT = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}


def time_mean(dataset: xr.Dataset, period: str) -> xr.Dataset:
    """Return means of a forecast or of analyses over days, weeks or months.

    >>> sc.score(sc.metrics.time_mean(forecast, "7D"), sc.metrics.time_mean(test, "7D"))

    Parameters
    ----------
    dataset
        A forecast with dims (init_time, lead_time, ...), or analyses with a dimension `time`, at equal steps.
    period
        A duration such as "1D" or "7D", or "1MS" for calendar months.

    Returns
    -------
    Dataset with the variables along time, in float64 sums, and `cell_methods` that say "time: mean". Incomplete periods
    are left out, and the attribute `time_mean` counts them; a missing value makes its mean missing. Lazy if `dataset`
    consists of dask arrays.

    A mean over a duration has the label of its end: the values after `lead_time` - period, up to `lead_time`, or after
    `time` - period, up to `time`. Analyses have one for every time, so that every forecast finds its truth, and the
    climatology and persistence of these means fit too. For days of the calendar select those at 00 UTC.

    A mean over a month has the label of its first day. Of data with steps below a day it contains the values after its
    beginning, up to its end; of daily data, those with its dates. `init_time` becomes the last month that was complete
    at the initialization, so that lead 1 is the month that follows it; leads are whole months.

    Raises
    ------
    ValueError
        If the period is no multiple of the step, nothing is complete, or months have several initializations.
    """
    size = parse_step(period)
    if isinstance(size, int) and size != 1:
        raise ValueError(f"period={period!r} must be '1MS', one calendar month, or a duration such as '7D'")
    if is_forecast(dataset):
        dataset, valid_time = with_times(dataset)
        if dataset["lead_time"].dtype.kind != "m":
            raise ValueError("the forecast has monthly steps already. Pass one with steps in days or hours")
        leads = pd.TimedeltaIndex(dataset["lead_time"].values)
        step = _step(leads, "forecast", "leads")
        means = _of_leads(dataset, leads, step, size) if size != 1 else _months_of_forecast(dataset, valid_time, step)
    else:
        dataset = name_time(dataset)
        times = dataset.indexes["time"]
        check_times(times, "the dataset")
        step = _step(times, "dataset", "times")
        means = _of_times(dataset, times, step, size) if size != 1 else _months_of_times(dataset, times, step)
    result, dropped = means
    for name in result.data_vars:
        result[name] = result[name].astype(dataset[name].dtype if dataset[name].dtype.kind == "f" else np.float64)
        result[name].attrs = {**dataset[name].attrs, "cell_methods": "time: mean"}
    label = "their first day" if size == 1 else "their end"
    text = f"means over {period} with the label of {label}; {dropped} incomplete periods are left out"
    return result.assign_attrs(dataset.attrs, time_mean=text)


def _step(times: pd.Index, owner: str, content: str) -> pd.Timedelta:
    if len(times) < 2:
        raise ValueError(f"the {owner} has {len(times)} {content}, but means need several")
    differences, counts = np.unique(np.asarray(times[1:] - times[:-1]), return_counts=True)
    return pd.Timedelta(differences[counts.argmax()])


def _count(size: pd.Timedelta, step: pd.Timedelta) -> int:
    """Return the number of steps in a period."""
    if size % step != pd.Timedelta(0):
        raise ValueError(f"the period {size} must be a multiple of the step of the data, {step}")
    return int(size / step)


def _along(dataset: xr.Dataset, dim: str) -> xr.Dataset:
    """Return the numbers along a dimension, in memory unless they are dask arrays."""
    names = [name for name, v in dataset.data_vars.items() if dim in v.dims and v.dtype.kind in "fiub"]
    selected = dataset[names]
    return selected if any(v.chunks for v in selected.data_vars.values()) else selected.load()


def _without_other_times(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.drop_vars([name for name, c in dataset.coords.items() if "time" in c.dims and name != "time"])


def _mean(dataset: xr.Dataset, dim: str, ends: np.ndarray, count: int) -> xr.Dataset:
    """Return the mean over some positions up to each end."""
    parts = (dataset.isel({dim: ends - k}).drop_vars(dim).astype(np.float64) for k in range(count))
    total = next(parts)
    for part in parts:
        total = total + part
    return (total / count).assign_coords({dim: dataset[dim].isel({dim: ends})})


def _complete(times: pd.Index, size: pd.Timedelta, step: pd.Timedelta) -> np.ndarray:
    """Return the positions at which a period without a gap ends."""
    count = _count(size, step)
    ends = np.arange(count - 1, len(times))
    without_gap = np.asarray(times[ends] - times[ends - count + 1]) == np.timedelta64(size - step)
    return ends[np.asarray(without_gap, dtype=bool)]


def _of_times(dataset: xr.Dataset, times: pd.Index, step: pd.Timedelta, size: pd.Timedelta) -> tuple[xr.Dataset, int]:
    ends = _complete(times, size, step)
    if not ends.size:
        raise ValueError(f"no period of {size} is complete in the dataset, {times[0]} to {times[-1]} every {step}")
    fields = _along(_without_other_times(dataset), "time")
    result = _mean(fields, "time", ends, _count(size, step))
    offsets = bounds_offsets(dataset)
    offsets = (-step, pd.Timedelta(0)) if offsets is None and step < _DAY else offsets
    if offsets is not None:
        edges = [_shift(times[ends], offsets[0] - size + step), _shift(times[ends], offsets[1])]
        result = _with_bounds(result, "time", "time_bnds", np.stack(edges, axis=-1))
    return result, len(times) - len(ends)


def _of_leads(dataset: xr.Dataset, leads: pd.Index, step: pd.Timedelta, size: pd.Timedelta) -> tuple[xr.Dataset, int]:
    ends = _complete(leads, size, step)
    ends = ends[np.asarray(leads[ends] % size == pd.Timedelta(0))]
    if not ends.size:
        raise ValueError(f"no period of {size} is complete in the forecast, whose leads are {leads[0]} to {leads[-1]}")
    dataset = dataset.drop_vars(VALID_TIME_BOUNDS, errors="ignore")
    result = _mean(_along(dataset, "lead_time"), "lead_time", ends, _count(size, step))
    valid_time = with_times(result.drop_vars("valid_time", errors="ignore"))[1]
    result = result.assign_coords(valid_time=valid_time)
    if step < _DAY:
        index = type(dataset.indexes["init_time"])
        flat = index(valid_time.values.ravel())
        edges = np.stack([_shift(flat, -size), np.asarray(flat)], axis=-1).reshape(*valid_time.shape, 2)
        result = _with_bounds(result, "valid_time", VALID_TIME_BOUNDS, edges)
    return result, int(np.ceil(leads[-1] / size)) - len(ends)


def _shift(times: pd.Index, offset: pd.Timedelta) -> np.ndarray:
    return np.asarray(times + (offset.to_pytimedelta() if isinstance(times, xr.CFTimeIndex) else offset))


def _with_bounds(result: xr.Dataset, time: str, name: str, edges: np.ndarray) -> xr.Dataset:
    result = result.assign_coords({name: ((*result[time].dims, "bnds"), edges)})
    result[time].attrs["bounds"] = name
    return result


def _months(times: pd.Index, step: pd.Timedelta) -> np.ndarray:
    """Return the month since year 0 that each value belongs to: of steps below a day, one at 00 UTC ends a day."""
    moments = times - timedelta(microseconds=1) if step < _DAY else times
    return np.asarray(moments.year * 12 + moments.month - 1)


def _first_day(like: pd.Index, months: np.ndarray) -> pd.Index:
    """Return the first day of months, in the calendar of other times."""
    start = like[0].replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return type(like)([start.replace(year=int(month) // 12, month=int(month) % 12 + 1) for month in months])


def _whole_months(times: pd.Index, step: pd.Timedelta) -> tuple[dict[int, np.ndarray], int]:
    """Return the positions of the values of complete months, and the number of incomplete ones."""
    if step > 7 * _DAY:
        raise ValueError(f"the step of the data, {step}, is too long for means over months")
    months, whole = _months(times, step), {}
    present = np.unique(months)
    for month in present:
        first, after = _first_day(times, np.array([month, month + 1]))
        positions = np.flatnonzero(months == month)
        if len(positions) * step == after - first:
            whole[int(month)] = positions
    return whole, len(present) - len(whole)


def _months_of_times(dataset: xr.Dataset, times: pd.Index, step: pd.Timedelta) -> tuple[xr.Dataset, int]:
    whole, dropped = _whole_months(times, step)
    if not whole:
        raise ValueError(f"no month is complete in the dataset, {times[0]} to {times[-1]} every {step}")
    fields = _along(_without_other_times(dataset), "time")
    means = [fields.isel(time=where).astype(np.float64).mean("time", skipna=False) for where in whole.values()]
    months = np.array(list(whole))
    labels = xr.DataArray(_first_day(times, months), dims="time", name="time", attrs=dataset["time"].attrs)
    result = xr.concat(means, labels, **_CONCAT)
    edges = np.stack([np.asarray(_first_day(times, months + k)) for k in (0, 1)], axis=-1)
    return _with_bounds(result, "time", "time_bnds", edges), dropped


def _months_of_forecast(dataset: xr.Dataset, valid_time: xr.DataArray, step: pd.Timedelta) -> tuple[xr.Dataset, int]:
    inits, index = dataset.indexes["init_time"], type(dataset.indexes["init_time"])
    # the month before that of the first state after the initialization
    last = _months(index(_shift(inits, step)), step) - 1
    if len(set(last)) < len(last):
        fix = "Select one for each month: forecast.isel(init_time=...)"
        raise ValueError(f"{len(last)} initializations lie in {len(set(last))} months. {fix}")
    months = [_whole_months(index(row), step) for row in valid_time.values]
    complete, dropped = [whole for whole, _ in months], sum(count for _, count in months)
    leads = sorted({month - before for whole, before in zip(complete, last, strict=True) for month in whole})
    if not leads:
        raise ValueError("no month is complete in the forecast. It needs all values of a calendar month")
    fields = _along(dataset.drop_vars(VALID_TIME_BOUNDS, errors="ignore"), "lead_time")
    missing = fields.isel(init_time=0, lead_time=0, drop=True).astype(np.float64) * np.nan
    rows = []
    for position, (whole, before) in enumerate(zip(complete, last, strict=True)):
        row = fields.isel(init_time=position, drop=True).astype(np.float64)
        means = {month: row.isel(lead_time=where).mean("lead_time", skipna=False) for month, where in whole.items()}
        rows.append(xr.concat([means.get(before + lead, missing) for lead in leads], "lead_time", **_CONCAT))
    result = xr.concat(rows, "init_time", **_CONCAT).drop_vars(
        ["init_time", "lead_time", "valid_time"], errors="ignore"
    )
    ordinals = last[:, np.newaxis] + np.array(leads)
    valid, after = (np.asarray(_first_day(inits, (ordinals + k).ravel())).reshape(ordinals.shape) for k in (0, 1))
    result = result.assign_coords(
        init_time=("init_time", _first_day(inits, last), dataset["init_time"].attrs),
        lead_time=("lead_time", np.array(leads), {"units": "months"}),
        valid_time=(("init_time", "lead_time"), valid),
        initialization=("init_time", inits, {"long_name": "time of the last state before the forecast"}),
    )
    return _with_bounds(result, "valid_time", VALID_TIME_BOUNDS, np.stack([valid, after], axis=-1)), dropped
