"""Climatologies: the mean state by time of year and time of day."""

import itertools
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import find_axes
from simvp_climate.data.harmonics import NAMES, harmonic_basis
from simvp_climate.data.windows import find_date_fault
from simvp_climate.metrics.pairs import describe_outlier, find_outlier, period, recorded_periods

# Bytes of one block of times in memory; the sums of a climatology come on top.
_BLOCK_BYTES = 64 * 2**20
# float64 bytes of all times of the rows in one band; the arithmetic holds a few arrays of this size.
_BAND_BYTES = 128 * 2**20

_OVERALL, _HOURLY = "all times", "mean by hour of the day, for all months"
_LONG_NAMES = {
    "hour": "hour of the day (UTC)", "dayofyear": "day of the year",
    "week": "ISO week of the year", "month": "month of the year",
}  # fmt: skip


def climatology(train: xr.Dataset, *, window_days: int | None = None, method: str | None = None) -> xr.Dataset:
    """Return the mean state by time of year and time of day.

    The calendar dimensions follow from the data:

    - Hour and day of the year, as in WeatherBench 2 (`compute_rolling_stat`): for each hour of the day, the mean over
      all years and over neighboring days, weighted by a triangle that wraps around the turn of the year. Days
      with more values weigh more. The last day of an ordinary year also counts as day 366.
    - Month, for monthly data (steps of 28 to 31 days).
    - Hour, for series of less than eleven months, which do not cover the year: with a warning, and for the months of
      the series only.

    Missing values are left out; a cell without any value is NaN. The series is read in blocks of time, so memory holds
    one float64 sum per variable, not the series.

    Parameters
    ----------
    train
        Training years with a dimension `time` and any other dimensions. Variables without time are left out.
    window_days
        Width of the triangle between its two zeros, odd; 61 if None. Applies to climatologies by day only.
    method
        None: as above. "weekly" (mean by ISO week of the year) and "overall" (one mean of all times) are the
        climatologies of the WeatherBench 1 scores, and easier to beat. "hourly" is the mean by hour, for all months.

    Returns
    -------
    Dataset in memory with the variables, attributes and floating type of `train` (integers become floating). Dims
    (hour, dayofyear, ...), (month, ...), (hour, ...), by `method` (week, ...), or none of these. `hour` holds the hours
    of the day (fractions if times have minutes). `dayofyear` counts 1..366 (1..360 in a calendar of 360 days) and
    leaves out days without data in their window. The attributes `climatology_method`, `climatology_start` and
    `climatology_end` record method and period. ValueError if there is no time or no numeric variable along it, a value
    is a fill value that was not decoded, or `window_days` or `method` does not apply.
    """
    result = calendar_mean(train, window_days, method)
    times = name_time(train).indexes["time"].sort_values()
    if method is None and times[-1] - times[0] + (times[-1] - times[max(-2, -len(times))]) < timedelta(days=360):
        warnings.warn(
            f"the climatology is from {times[0]} to {times[-1]}, less than a year, and says little about the "
            "season. Give training years, or take one mean for all of them: climatology(train, method='hourly')",
            stacklevel=2,
        )
    return result


def calendar_mean(
    train: xr.Dataset, window_days: int | None = None, method: str | None = None,
    transforms: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return the `climatology` of a dataset; `transforms` are functions by variable to apply to the values first."""
    if method not in (None, "weekly", "hourly", "overall"):
        raise ValueError(f"method={method!r} is unknown: choose None, 'weekly', 'hourly' or 'overall'")
    train = name_time(train)
    if not train.sizes["time"]:
        raise ValueError("the training dataset has no times: select a period inside the data")
    names = [name for name, field in train.data_vars.items() if "time" in field.dims and field.dtype.kind in "fiub"]
    if not names:
        raise ValueError(f"no variable of the dataset has numbers along time: {list(train.data_vars)}")
    grouping = {"weekly": "week", "hourly": "hour", "overall": _OVERALL}.get(method)
    grouping = grouping or finest_grouping(train.indexes["time"])
    if window_days is not None and grouping != "day":
        raise ValueError(
            f"window_days={window_days} applies to climatologies by day of the year, and this one is a mean by "
            f"{grouping}: leave window_days out"
        )
    window = 61 if window_days is None else window_days
    groups, labels = _calendar_groups(train.time, grouping)
    smoothing = _window_matrix(window, len(labels["dayofyear"])) if grouping == "day" else None
    transforms = transforms or {}
    variables = {name: _group_mean(train[name], groups, labels, smoothing, transforms.get(str(name))) for name in names}
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims}
    windowed = f"mean by hour and day of the year, triangular window of {window} days"
    methods = {"day": windowed, _OVERALL: f"mean of {_OVERALL}"}
    methods |= {"hour": _HOURLY} if method == "hourly" else {}
    attrs = {"climatology_method": methods.get(grouping, f"mean by {grouping}")}
    attrs |= period("climatology", train["time"].values)
    result = xr.Dataset(variables, {**labels, **coordinates}, train.attrs).assign_attrs(attrs)
    if grouping == _OVERALL:
        return result.isel({_OVERALL: 0}, drop=True)
    for name in labels:
        result[name].attrs["long_name"] = _LONG_NAMES[name]
    if grouping != "day":
        return result
    # days that have a value in some variable and cell
    covered = [v.notnull().any([dim for dim in v.dims if dim != "dayofyear"]).values for v in result.data_vars.values()]
    return result if np.any(covered, axis=0).all() else result.isel(dayofyear=np.any(covered, axis=0))


def climatology_at(climatology: xr.Dataset, valid_time: xr.DataArray) -> xr.Dataset:
    """Return the climatology at the requested times, selected by hour, day of the year, week or month.

    Parameters
    ----------
    climatology
        As from `climatology`, `Forecaster.climatology`, or one of WeatherBench 2. It may hold only the days that are
        needed.
    valid_time
        Datetimes with any number of dimensions, for example the `valid_time` of a forecast.

    Returns
    -------
    Dataset with the dims and coordinates of `valid_time` in place of the calendar dims. Lazy if `climatology` is.
    ValueError if the climatology has no calendar dimension, or lacks an hour, day, week or month of `valid_time`.
    """
    if "harmonic" in climatology.dims:
        return _evaluate_harmonics(climatology, valid_time)
    present = [name for name in _LONG_NAMES if name in climatology.dims]
    if not present and climatology.attrs.get("climatology_method") == f"mean of {_OVERALL}":
        return climatology.expand_dims(dict(valid_time.sizes)).assign_coords(valid_time.coords)
    if not present:
        dims = f"{tuple(climatology.dims)}, but none of {tuple(_LONG_NAMES)}"
        raise ValueError(f"the climatology has dims {dims}: make it with climatology(train)")
    if present == ["hour"] and climatology.attrs.get("climatology_method") != _HOURLY:
        _check_months(climatology, valid_time)
    labels = {name: np.asarray(_calendar_labels(valid_time, name)) for name in present}
    if "week" in labels:  # few years have a week 53: its days are nearest to week 52
        labels["week"] = np.minimum(labels["week"], climatology["week"].values.max())
    positions = {name: _label_positions(climatology, name, labels[name]) for name in present}
    selected = climatology.isel({name: xr.Variable(valid_time.dims, where) for name, where in positions.items()})
    selected = selected.drop_vars(present)
    order = (*valid_time.dims, *(dim for dim in climatology.dims if dim not in present))
    return selected.transpose(*order, missing_dims="ignore").assign_coords(valid_time.coords)


def _evaluate_harmonics(climatology: xr.Dataset, valid_time: xr.DataArray) -> xr.Dataset:
    """Return the climatology of a forecaster at some times, as `climatology_at`."""
    if tuple(climatology["harmonic"].values.tolist()) != NAMES:
        raise ValueError(
            f"the climatology has the harmonics {climatology['harmonic'].values}, but must have all: {NAMES}"
        )
    held = set(np.atleast_1d(climatology.attrs.get("climatology_months", range(1, 13))).tolist())
    if lacking := sorted({*valid_time.dt.month.values.ravel().tolist()} - held):
        period = " to ".join(str(climatology.attrs.get(f"climatology_{edge}"))[:10] for edge in ("start", "end"))
        raise ValueError(
            f"the climatology of the forecaster is from {period} and has no values of month {_abbreviate(lacking)}. "
            "Train on whole years, or give another climatology: sc.baselines.climatology(ds)"
        )
    basis = harmonic_basis(valid_time.values.ravel()).reshape(*valid_time.shape, len(NAMES))
    weights = xr.DataArray(basis, dims=(*valid_time.dims, "harmonic"))
    values = {
        name: xr.dot(weights, field, dim="harmonic").transpose(*valid_time.dims, ...).astype(field.dtype, copy=False)
        for name, field in climatology.drop_vars("harmonic").data_vars.items()
    }
    result = xr.Dataset({name: field.assign_attrs(climatology[name].attrs) for name, field in values.items()})
    return result.assign_attrs(climatology.attrs).assign_coords(valid_time.coords)


def _check_months(climatology: xr.Dataset, valid_time: xr.DataArray) -> None:
    """Raise ValueError if a mean by hour, of less than a year, holds no values of some month to be verified."""
    edges = [edge for period in recorded_periods(climatology.attrs)[:1] for edge in period]
    if not edges:
        return
    # a year alone stands for all its months
    first, last = (int(edge[:4]) * 12 + int(edge[5:7] or month) - 1 for edge, month in zip(edges, (1, 12), strict=True))
    held = {month % 12 + 1 for month in range(first, last + 1)}
    if lacking := sorted({*valid_time.dt.month.values.ravel().tolist()} - held):
        raise ValueError(
            f"the climatology is from {edges[0][:10]} to {edges[1][:10]} and has no values of month "
            f"{_abbreviate(lacking)}. Compute it from whole years, or choose one mean for all months: "
            "climatology(train, method='hourly')"
        )


def normals_at(climatology: xr.Dataset, valid_time: xr.DataArray) -> xr.Dataset:
    """Return `climatology_at` without the coordinates that are not dimensions, so that it combines with forecasts."""
    normals = climatology_at(climatology, valid_time)
    return normals.drop_vars([name for name in normals.coords if name not in normals.dims])


def _label_positions(climatology: xr.Dataset, name: str, labels: np.ndarray) -> np.ndarray:
    """Return where labels of a calendar dimension are in a climatology, or raise ValueError naming missing ones."""
    positions = climatology.indexes[name].get_indexer(labels.ravel())
    if (positions < 0).any():
        lacking = np.unique(labels.ravel()[positions < 0])
        keys = ("climatology_start", "climatology_end")
        fitted = " to ".join(str(climatology.attrs[key]) for key in keys if key in climatology.attrs)
        raise ValueError(
            f"the climatology{f' of {fitted}' if fitted else ''} has no {name} {_abbreviate(lacking)}, but "
            f"{_abbreviate(climatology[name].values)}. Compute it from a period with every {name} to be verified, or "
            "verify other times"
        )
    return positions.reshape(labels.shape)


def name_time(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with its time dimension renamed to `time`; ValueError if it has none, or no dates."""
    name = "time" if "time" in dataset.indexes else find_axes(dataset).time
    if name not in dataset.indexes:
        raise ValueError(
            f"the dataset has no dimension with times, but {tuple(dataset.dims)}: open it with "
            "open_dataset, or rename its time dimension to 'time', ds.rename(...)"
        )
    if fault := find_date_fault(dataset.indexes[name], str(name), dataset[name].attrs.get("units")):
        raise ValueError(f"{fault[0]}. {fault[1]}")
    return dataset if name == "time" else dataset.drop_vars("time", errors="ignore").rename({name: "time"})


def time_blocks(data: xr.DataArray) -> list[slice]:
    """Return slices of time of bounded size; they cut no chunk in two where chunks are known."""
    length = data.sizes["time"]
    chunk = (data.chunksizes or data.encoding.get("preferred_chunks") or {}).get("time", 1)
    chunk = max(chunk) if isinstance(chunk, tuple) else chunk
    step_bytes = max(data.nbytes // max(length, 1), 1)
    size = max(_BLOCK_BYTES // step_bytes // chunk, 1) * chunk
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def latitude_bands(datasets: Sequence[xr.Dataset], latitude: Hashable) -> list[slice]:
    """Return slices of latitude of bounded size, for statistics that need all times of a cell at once."""
    count = datasets[0].sizes[latitude]
    row_sizes = [sum(field.size for field in dataset.data_vars.values()) // count for dataset in datasets]
    height = max(1, _BAND_BYTES // max(8 * max(row_sizes), 1))
    return [slice(start, min(start + height, count)) for start in range(0, count, height)]


def finest_grouping(times: pd.Index) -> str:
    """Return the finest grouping that a series supports: "day" of the year, "month", or only "hour" of the day."""
    if len(times) == 1:
        return "hour"
    times = times.sort_values()
    steps = np.asarray(times[1:] - times[:-1]).astype("timedelta64[s]") / np.timedelta64(1, "D")
    # Eleven months and a window of a month on both sides leave no day of the year without data; 330 is eleven months
    # of the shortest calendar (360 days).
    if steps.sum() + np.median(steps) < 330:
        return "hour"
    # Single months may be missing, so the longest step does not tell monthly from daily data.
    return "month" if steps.min() >= 28 and np.median(steps) <= 31 else "day"


def _calendar_groups(time: xr.DataArray, grouping: str) -> tuple[list[list[tuple]], dict[str, np.ndarray]]:
    """Return for each time its groups, as positions along the calendar dimensions, and the labels of these."""
    if grouping == "day":  # the last day of an ordinary year is also in the group of day 366
        hours, codes = np.unique(_calendar_labels(time, "hour"), return_inverse=True)
        days = time.dt.dayofyear.values
        groups = [[position] for position in zip(codes, days - 1, strict=True)]
        for last in np.flatnonzero((days == 365) & (time.dt.days_in_year.values == 365)):
            groups[last].append((codes[last], 365))
        length = 360 if time.dt.calendar == "360_day" else 366
        return groups, {"hour": hours, "dayofyear": np.arange(1, length + 1)}
    values = np.zeros(time.size) if grouping == _OVERALL else _calendar_labels(time, grouping)
    labels, codes = np.unique(values, return_inverse=True)
    return [[(code,)] for code in codes], {grouping: labels}


def _calendar_labels(time: xr.DataArray, name: str) -> np.ndarray:
    """Return the month, the day or ISO week of the year, or the hour of the day, fractional if times have minutes."""
    if name == "week":
        if time.dtype.kind == "M":
            return time.dt.isocalendar().week.values
        # other calendars have no ISO weeks: count from the first day of the year
        return np.minimum((time.dt.dayofyear.values - 1) // 7, 51) + 1
    if name == "hour":
        seconds = time.dt.minute.values * 60 + time.dt.second.values
        return time.dt.hour.values + (seconds / 3600 if seconds.any() else 0)
    return getattr(time.dt, name).values


def _window_matrix(window_days: int, length: int) -> np.ndarray:
    """Return the weights[day, neighbor] of a triangular window on a circle of `length` days, zero at its ends."""
    # for 61 days as WeatherBench 2: concat(linspace(0, 1, 31), linspace(1, 0, 31)[1:])
    if window_days < 1 or window_days % 2 == 0 or window_days > length:
        raise ValueError(f"window_days={window_days} must be an odd number of days from 1 to {length - 1}")
    day = np.arange(length)
    distance = np.abs(day[:, None] - day[None, :])
    distance = np.minimum(distance, length - distance)  # the shorter way around the year
    return np.clip(1 - distance / max(window_days // 2, 1), 0, None)


def _group_mean(
    data: xr.DataArray, groups: list[list[tuple]], labels: Mapping[str, np.ndarray], smoothing: np.ndarray | None,
    transform: Callable[[np.ndarray], np.ndarray] | None,
) -> xr.Variable:  # fmt: skip
    """Return the mean of (transformed) values over each calendar group, dims (*labels, ...).

    Sums and counts are smoothed before the division, by weights[day, neighbor] along the last label.
    """
    data = data.transpose("time", ...)
    counts = np.zeros([len(values) for values in labels.values()])
    for index in itertools.chain.from_iterable(groups):
        counts[index] += 1
    sums = np.zeros((*counts.shape, *data.shape[1:]))
    missing = None  # takes as much memory as the sums, so only once it is needed
    for block in time_blocks(data):
        values = data.isel(time=block).values
        if (place := find_outlier(str(data.name), values, data.attrs.get("units"))) is not None:
            time = f" at {data.indexes['time'][block][place[0]]}"
            raise ValueError(describe_outlier(str(data.name), "train", values[place], time))
        gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        values = values if transform is None else transform(values)
        if gaps.any():
            missing = np.zeros(sums.shape, np.float32) if missing is None else missing
            values = np.where(gaps, 0, values)
        for offset, indices in enumerate(groups[block]):
            for index in indices:
                sums[index] += values[offset]
                if missing is not None:
                    missing[index] += gaps[offset]
    result = np.empty(sums.shape, np.result_type(data.dtype, np.float32))
    for index in np.ndindex(counts.shape[:-1]):  # hour by hour, to smooth one at a time
        total, count = sums[index], counts[index].reshape(-1, *(1 for _ in data.shape[1:]))
        if missing is not None:
            count = count - missing[index]
        if smoothing is not None:
            total, count = np.tensordot(smoothing, total, 1), np.tensordot(smoothing, count, 1)
        # groups without values have no mean
        result[index] = np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)
    return xr.Variable((*labels, *data.dims[1:]), result, data.attrs)


def _abbreviate(values: np.ndarray) -> str:
    """Return labels as text, long lists shortened: "0, 6, 12, 18", or "1, 2, 3 .. 366"."""
    texts = [f"{value:g}" for value in values]
    return ", ".join(texts) if len(texts) <= 6 else f"{', '.join(texts[:3])} .. {texts[-1]}"
