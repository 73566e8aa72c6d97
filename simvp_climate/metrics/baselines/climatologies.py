"""What a forecast has to beat: persistence and climatology."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.conventions import find_axes
from simvp_climate.data.windows import valid_times

# bytes of one time block read at once; the sums of a climatology come on top
_BLOCK_BYTES = 64 * 2**20

_OVERALL = "all times"


def persistence(
    dataset: xr.Dataset,
    init_times: xr.DataArray | Iterable | str,
    lead_times: xr.DataArray | Iterable | str,
) -> xr.Dataset:
    """Return the forecast that nothing changes: the analysis at init_time, for every lead time.

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
    Dataset with the variables of `dataset` that have a time, dims (init_time, lead_time, [level,] latitude,
    longitude) with their names, coordinates, units and attributes as in `dataset`, and the coordinate
    `valid_time(init_time, lead_time)`. Dask arrays stay lazy, other data are read; leads share memory.

    Raises
    ------
    ValueError
        If the dataset lacks a `time` or one of the init times, or lead times have no unit.
    """
    dataset = _with_time(dataset)
    index = dataset.indexes["time"]
    wanted = _as_index(init_times, index)
    positions = index.get_indexer(wanted)
    if (positions < 0).any():
        first = wanted[int(np.argmax(positions < 0))]
        nearest = index[int(np.abs(index - first).argmin())]
        raise ValueError(
            f"{(positions < 0).sum()} of {len(wanted)} init times are not in the dataset, first {first}; the "
            f"nearest time there is {nearest} (it runs from {index[0]} to {index[-1]})"
        )
    lead_time = as_lead_time(lead_times)
    changing = [name for name, variable in dataset.data_vars.items() if "time" in variable.dims]
    # coordinates along time describe the analysis, not the time that is forecast
    passing = [name for name, coordinate in dataset.coords.items() if "time" in coordinate.dims]
    analysis = dataset[changing].isel(time=positions).drop_encoding()  # it speaks of the file that was read
    analysis = analysis.drop_vars([name for name in passing if name != "time"], errors="ignore")
    # only dask arrays can be repeated and transposed unread
    analysis = analysis.assign({n: v.compute() for n, v in analysis.data_vars.items() if v.chunks is None})
    forecast = analysis.rename(time="init_time").expand_dims(lead_time=lead_time.values, axis=1)
    axes = find_axes(dataset)
    last = [axis for axis in (axes.level, axes.latitude, axes.longitude) if axis in forecast.dims]
    forecast = forecast.transpose("init_time", "lead_time", ..., *last)
    forecast["init_time"].attrs = {"standard_name": "forecast_reference_time"}
    forecast["lead_time"].attrs = {**lead_time.attrs, "standard_name": "forecast_period"}
    valid_time = valid_times(forecast.init_time, forecast.lead_time, known=index)
    return forecast.assign_coords(valid_time=valid_time.assign_attrs(standard_name="time"))


def climatology(train: xr.Dataset, *, window_days: int | None = None, method: str | None = None) -> xr.Dataset:
    """Return the mean state by time of year and time of day.

    By day of year and hour, as in WeatherBench 2 (`compute_rolling_stat`): for each hour that occurs in the
    data, the weighted mean over all years and the days around a day of the year, with a triangular window
    that runs round the turn of the year; day 366 of an ordinary year is filled from its day 365. Days are
    weighed by the data they have, which is the same for complete years. Monthly data (steps of 28 to 31
    days): the mean by month. Series of less than eleven months, which do not cover the year: the mean by
    hour over the whole series.

    A missing value leaves out that value alone; a cell without any value is NaN. The series is read one
    block of time after the other, so memory holds one sum per variable in float64, not the series.

    Parameters
    ----------
    train
        Training years with a dimension `time`; the other dimensions may be any. Variables without time
        are left out.
    window_days
        Width of the triangle between its two zeros, odd; 61 if None. Only for climatologies by day.
    method
        None: the above. Others, of which the scores of WeatherBench 1 were made, are easier to beat: "weekly", the mean
        by ISO week of the year, and "overall", one mean of all times.

    Returns
    -------
    Dataset in memory with the variables and attributes of `train`, of its floating type (integers become floating),
    dims (hour, dayofyear, ...), (month, ...), (hour, ...), or by `method` (week, ...) or none of these. `hour`
    holds the hours of the day (whole numbers, or fractions if times have minutes), `dayofyear` counts 1..366
    (1..360 in a calendar of 360 days); days that no data lie near enough to are left out. The attributes
    `climatology_method`, `climatology_start` and `climatology_end` say how and from which period.

    Raises
    ------
    ValueError
        If there is no time or no variable along it, `window_days` is not odd and positive or does not apply, or
        `method` is unknown.
    """
    return calendar_mean(train, window_days, method)


def calendar_mean(
    train: xr.Dataset,
    window_days: int | None = None,
    method: str | None = None,
    of: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> xr.Dataset:
    """Return what `climatology` does; of some variables not of their values but of what a function makes of them.

    The functions see a block of values at a time, and not which of them are missing: these are left out.
    """
    if method not in (None, "weekly", "overall"):
        raise ValueError(f"method={method!r} is unknown: choose None, 'weekly' or 'overall'")
    train = _with_time(train)
    if not train.sizes["time"]:
        raise ValueError("the training dataset has no times: is the period you selected inside the data?")
    names = [
        name for name, variable in train.data_vars.items() if "time" in variable.dims and variable.dtype.kind in "fiub"
    ]
    if not names:
        raise ValueError(f"no variable of the dataset has numbers along time: {list(train.data_vars)}")
    kind = {"weekly": "week", "overall": _OVERALL}.get(method) or _kind(train.indexes["time"])
    if window_days is not None and kind != "day":
        raise ValueError(
            f"window_days={window_days} is for climatologies by day of the year, but this one is a mean by "
            f"{kind}: leave window_days out"
        )
    window = 61 if window_days is None else window_days
    if kind == "day":
        positions, labels = _days(train.time)
        spread = _window_matrix(window, len(labels["dayofyear"]))
        method = f"mean by hour and day of the year, triangular window of {window} days"
    else:
        values = {
            "month": lambda: train.time.dt.month.values,
            "week": lambda: _weeks(train.time),
            "hour": lambda: _hours(train.time),
            _OVERALL: lambda: np.zeros(train.sizes["time"]),
        }[kind]()
        distinct, codes = np.unique(values, return_inverse=True)
        positions, labels = [(np.arange(len(values)), (codes,))], {kind: distinct}
        spread = None
        method = f"mean by {kind}"
    shape = tuple(len(values) for values in labels.values())
    made = of or {}
    variables = {
        name: _mean(train[name], positions, shape, spread, tuple(labels), made.get(str(name))) for name in names
    }
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims}
    result = xr.Dataset(variables, {**labels, **coordinates}, train.attrs).assign_attrs(
        climatology_method=method,
        climatology_start=_iso(train.time.min()),
        climatology_end=_iso(train.time.max()),
    )
    if kind == _OVERALL:
        return result.isel({_OVERALL: 0}, drop=True).assign_attrs(climatology_method=f"mean of {_OVERALL}")
    for name, text in {
        "hour": "hour of the day (UTC)",
        "dayofyear": "day of the year",
        "week": "ISO week of the year",
        "month": "month of the year",
    }.items():
        if name in labels:
            result[name].attrs["long_name"] = text
    return _covered(result) if kind == "day" else result


def climatology_at(climatology: xr.Dataset, valid_time: xr.DataArray) -> xr.Dataset:
    """Return the climatology at given times, looked up by the labels hour, dayofyear, week or month.

    Parameters
    ----------
    climatology
        As `climatology` gives it, or one of WeatherBench 2; it may hold only the days that are needed.
    valid_time
        Datetimes with any number of dimensions, for example the `valid_time` of a forecast.

    Returns
    -------
    Dataset with the dims of `valid_time` in the place of those of the calendar, and its coordinates.
    Lazy if `climatology` is.

    Raises
    ------
    ValueError
        If the climatology has none of these dimensions, or lacks an hour, day or month that is asked for.
    """
    parts = {
        "hour": lambda: _hours(valid_time),
        "dayofyear": lambda: valid_time.dt.dayofyear.values,
        # few years have a week 53: its days are nearest to week 52
        "week": lambda: np.minimum(_weeks(valid_time), climatology["week"].values.max()),
        "month": lambda: valid_time.dt.month.values,
    }
    present = [name for name in parts if name in climatology.dims]
    if not present and climatology.attrs.get("climatology_method") == f"mean of {_OVERALL}":
        return climatology.expand_dims(dict(valid_time.sizes)).assign_coords(valid_time.coords)
    if not present:
        raise ValueError(
            f"the climatology has dims {tuple(climatology.dims)}, but none of {tuple(parts)}: make it with "
            "climatology(train)"
        )
    positions = {}
    for name in present:
        wanted = np.asarray(parts[name]())
        found = climatology.indexes[name].get_indexer(wanted.ravel())
        if (found < 0).any():
            lacking = np.unique(wanted.ravel()[found < 0])
            period = " to ".join(
                str(climatology.attrs[key])
                for key in ("climatology_start", "climatology_end")
                if key in climatology.attrs
            )
            raise ValueError(
                f"the climatology{f' of {period}' if period else ''} has no {name} {_listed(lacking)}, but "
                f"{_listed(climatology[name].values)}. Compute it from a period that has every {name} to be "
                "verified, or verify other times"
            )
        positions[name] = xr.DataArray(found.reshape(wanted.shape), dims=valid_time.dims)
    picked = climatology.isel(positions).drop_vars(present)
    order = (*valid_time.dims, *(dim for dim in climatology.dims if dim not in present))
    return picked.transpose(*order, missing_dims="ignore").assign_coords(valid_time.coords)


def _with_time(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with its time dimension called `time`, whatever the file calls it."""
    name = "time" if "time" in dataset.indexes else find_axes(dataset).time
    if name not in dataset.indexes:
        raise ValueError(
            f"the dataset has no dimension with times, but {tuple(dataset.dims)}: open it with "
            "open_dataset, or rename its time dimension to 'time', ds.rename(...)"
        )
    return dataset if name == "time" else dataset.drop_vars("time", errors="ignore").rename({name: "time"})


def _as_index(times: xr.DataArray | Iterable | str, like: pd.Index) -> pd.Index:
    """Return times as an index of the same kind as `like`: datetime64, or cftime of its calendar."""
    values = np.atleast_1d(np.asarray(times))
    if isinstance(like, pd.DatetimeIndex):
        return pd.DatetimeIndex(values)
    if len(values) and not isinstance(values[0], like.date_type):
        raise ValueError(
            f"init time {values[0]!r} is no {like.date_type.__name__}: the dataset has the calendar "
            f"{like.calendar!r}, take init times from it, for example ds.time[::10]"
        )
    return xr.CFTimeIndex(values)


def as_lead_time(lead_times: xr.DataArray | Iterable | str) -> xr.DataArray:
    """Return lead times as a DataArray over lead_time: timedelta64[ns], or whole months with their unit."""
    values = np.atleast_1d(np.asarray(lead_times))
    if isinstance(lead_times, xr.DataArray) and lead_times.attrs.get("units") == "months":
        return xr.DataArray(values, dims="lead_time", attrs={"units": "months"})
    if values.dtype.kind in "iuf":
        raise ValueError(
            f"lead_times={values} have no unit: give durations such as '6h', or for calendar months a "
            "DataArray with the attribute units='months'"
        )
    return xr.DataArray(pd.to_timedelta(values).to_numpy().astype("timedelta64[ns]"), dims="lead_time")


def _kind(times: pd.Index) -> str:
    """Return by what a series can be averaged: "day" of the year, "month", or only "hour" of the day."""
    if len(times) == 1:
        return "hour"
    times = times.sort_values()
    steps = np.asarray(times[1:] - times[:-1]).astype("timedelta64[s]") / np.timedelta64(1, "D")
    # eleven months and a window of a month on both sides leave no day of the year without data; 330 is
    # eleven months of the shortest calendar (360 days)
    if steps.sum() + np.median(steps) < 330:
        return "hour"
    # a month may be missing now and then, so the longest step says nothing
    return "month" if steps.min() >= 28 and np.median(steps) <= 31 else "day"


def _weeks(time: xr.DataArray) -> np.ndarray:
    """Return the ISO week of the year; of other calendars the weeks that begin on its first day, 52 of them."""
    if time.dtype.kind == "M":
        return time.dt.isocalendar().week.values
    return np.minimum((time.dt.dayofyear.values - 1) // 7, 51) + 1


def _hours(time: xr.DataArray) -> np.ndarray:
    """Return the hour of the day: whole numbers where all times are on the hour, else with fractions."""
    seconds = time.dt.minute.values * 60 + time.dt.second.values
    hours = time.dt.hour.values
    return hours + seconds / 3600 if seconds.any() else hours


def _days(time: xr.DataArray) -> tuple[list, dict[str, np.ndarray]]:
    """Return where each time is counted, and the labels (hour, dayofyear) of those places.

    The places are pairs of positions in time and positions in (hour, dayofyear); the second pair fills day
    366 of ordinary years from day 365.
    """
    hours, codes = np.unique(_hours(time), return_inverse=True)
    days = time.dt.dayofyear.values
    length = 360 if time.dt.calendar == "360_day" else 366
    everything = np.arange(len(days))
    last = np.flatnonzero((days == 365) & (time.dt.days_in_year.values == 365))
    places = [(everything, (codes, days - 1)), (last, (codes[last], np.full(len(last), 365)))]
    return places, {"hour": hours, "dayofyear": np.arange(1, length + 1)}


def _window_matrix(window_days: int, length: int) -> np.ndarray:
    """Return weights[day, neighbor] of a triangular window on a circle of `length` days, its ends at zero.

    WeatherBench 2: concat(linspace(0, 1, 31), linspace(1, 0, 31)[1:]) for 61 days.
    """
    if window_days < 1 or window_days % 2 == 0 or window_days > length:
        raise ValueError(f"window_days={window_days} must be an odd number of days from 1 to {length - 1}")
    day = np.arange(length)
    distance = np.abs(day[:, None] - day[None, :])
    distance = np.minimum(distance, length - distance)
    return np.clip(1 - distance / max(window_days // 2, 1), 0, None)


def _mean(
    data: xr.DataArray,
    places: list[tuple[np.ndarray, tuple[np.ndarray, ...]]],
    shape: tuple[int, ...],
    spread: np.ndarray | None,
    dims: tuple[str, ...],
    of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> xr.Variable:
    """Return the mean of `data` over the times that share a place, optionally spread over its last axis.

    Or the mean of what `of` makes of the values.
    """
    data = data.transpose("time", ...)
    cells = data.shape[1:]
    sums = np.zeros((*shape, *cells))
    counts = np.zeros(shape)
    # a count for every cell, only once something is missing
    missing = None
    targets = [[] for _ in range(data.sizes["time"])]
    for times, place in places:
        np.add.at(counts, place, 1)
        for position, target in zip(times, zip(*place, strict=True), strict=True):
            targets[position].append(target)
    for block in time_blocks(data):
        values = data.isel(time=block).values
        gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        values = values if of is None else of(values)
        if gaps.any():
            missing = np.zeros(sums.shape, np.float32) if missing is None else missing
            values = np.where(gaps, 0, values)
        for offset, position in enumerate(range(block.start, block.stop)):
            for target in targets[position]:
                sums[target] += values[offset]
                if missing is not None:
                    missing[target] += gaps[offset]
    dtype = np.result_type(data.dtype, np.float32)
    result = np.empty(sums.shape, dtype)
    for first in np.ndindex(shape[:-1]):
        total, number = sums[first], counts[first].reshape(-1, *(1 for _ in cells))
        if missing is not None:
            number = number - missing[first]
        if spread is not None:
            total, number = np.tensordot(spread, total, 1), np.tensordot(spread, number, 1)
        # a place that nothing was counted at has no mean
        result[first] = np.where(number > 0, total / np.where(number > 0, number, 1), np.nan)
    return xr.Variable((*dims, *data.dims[1:]), result, data.attrs)


def time_blocks(data: xr.DataArray) -> list[slice]:
    """Return slices of time of bounded size that cut no chunk in two, as far as chunks are known."""
    length = data.sizes["time"]
    chunk = (data.chunksizes or data.encoding.get("preferred_chunks") or {}).get("time", 1)
    chunk = max(chunk) if isinstance(chunk, tuple) else chunk
    one = max(data.nbytes // max(length, 1), 1)
    size = max(_BLOCK_BYTES // one // chunk, 1) * chunk
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _covered(climatology: xr.Dataset) -> xr.Dataset:
    """Leave out the days of the year that have no value anywhere."""
    found = np.zeros(climatology.sizes["dayofyear"], bool)
    for variable in climatology.data_vars.values():
        found |= variable.notnull().any([dim for dim in variable.dims if dim != "dayofyear"]).values
    return climatology if found.all() else climatology.isel(dayofyear=found)


def _iso(time: xr.DataArray) -> str:
    """Return a time as ISO text to the second, which sorts like the time in every calendar."""
    value = time.values[()]
    return value.isoformat() if hasattr(value, "isoformat") else str(value.astype("datetime64[s]"))


def _listed(values: np.ndarray) -> str:
    """Return a few labels as text: "0, 6, 12, 18", or "1, 2, 3 .. 366"."""
    texts = [f"{value:g}" for value in values]
    return ", ".join(texts) if len(texts) <= 6 else f"{', '.join(texts[:3])} .. {texts[-1]}"
