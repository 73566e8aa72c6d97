"""Time: steps, lead and valid times, and the gap-aware index of windows."""

import re
from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr

_CALENDAR_STEP = re.compile(r"(\d*)(MS|ME|M)")
_DURATION = re.compile(r"(\d+(\.\d+)?)?\s*[A-Za-z]+")


def parse_step(step: str) -> pd.Timedelta | int:
    """Return a time step: a `pandas.Timedelta` ("6h", "1D"), or an int for a number of calendar months ("1MS")."""
    rule = f"{step!r} is not a time step: write a duration such as '6h' or '1D', or calendar months such as '1MS'"
    if not isinstance(step, str):
        raise ValueError(f"{rule}, as text")
    if months := _CALENDAR_STEP.fullmatch(step):
        value = int(months[1] or 1)
    elif not _DURATION.fullmatch(step) or step.endswith(("MS", "ME")):
        # pandas reads "1.5MS" as milliseconds and a bare number as nanoseconds
        raise ValueError(rule)
    else:
        try:
            # "D" alone is a unit to pandas, not a duration
            value = pd.Timedelta(step if step[0].isdigit() else f"1{step}")
        except ValueError as error:
            raise ValueError(rule) from error
    if value <= type(value)(0):
        raise ValueError(f"{step!r} as a time step must be longer than zero")
    return value


def lead_times(step: str, horizon: int) -> xr.DataArray:
    """Return the lead times of `horizon` steps: timedelta64[ns], or for calendar steps integers in months."""
    size = parse_step(step)
    count = np.arange(1, horizon + 1)
    if isinstance(size, int):
        return xr.DataArray(count * size, dims="lead_time", attrs={"units": "months"})
    return xr.DataArray(count * size.to_timedelta64().astype("timedelta64[ns]"), dims="lead_time")


def valid_times(init_time: xr.DataArray, lead_time: xr.DataArray, known: pd.Index | None = None) -> xr.DataArray:
    """Return init_time plus lead_time, dims (init_time, lead_time).

    Monthly data are stamped on any day of the month: if `known`, the times of the data, has a time in the valid month,
    it is returned; else the same day of the month, and the last day if all initializations are last days.
    """
    inits = init_time.to_index()
    if np.issubdtype(lead_time.dtype, np.timedelta64):
        columns = [inits + pd.Timedelta(lead) for lead in lead_time.values]
    elif lead_time.attrs.get("units") == "months":
        columns = [_add_months(inits, int(lead), known) for lead in lead_time.values]
    else:
        message = f"lead_time has dtype {lead_time.dtype} and units {lead_time.attrs.get('units')!r}"
        rule = "it must be a timedelta64, or whole months with the attribute units='months'"
        fix = "forecast = xr.decode_cf(forecast, decode_timedelta=True)"
        raise ValueError(f"{message}: {rule}. Where the attribute units says what it counts: {fix}")
    return xr.DataArray(np.stack([np.asarray(column) for column in columns], axis=1), dims=("init_time", "lead_time"))


def shift(times: pd.Index, step: str, count: int) -> pd.Index:
    """Return times `count` steps later, or earlier if it is negative, in their calendar."""
    size = parse_step(step)
    return _add_months(times, count * size, None) if isinstance(size, int) else times + count * size


def _add_months(times: pd.Index, months: int, known: pd.Index | None) -> pd.Index:
    are_last_days = bool((times.day == times.days_in_month).all())
    later = [_add_months_to_time(time, months, are_last_days) for time in times]
    if known is not None:
        positions = _ordinals(known, 1).get_indexer(_ordinals(times, 1) + months)
        later = [known[i] if i >= 0 else time for i, time in zip(positions, later, strict=True)]
    return type(times)(later)


def _add_months_to_time(time: pd.Timestamp, months: int, on_last_day: bool) -> pd.Timestamp:
    """Return a time (of pandas or cftime) on the same day months later, or on the last day of that month."""
    year, month = divmod(time.year * 12 + time.month - 1 + months, 12)
    first = time.replace(day=1).replace(year=year, month=month + 1)
    days_in_month = ((first + timedelta(days=32)).replace(day=1) - timedelta(days=1)).day
    return first.replace(day=days_in_month if on_last_day else min(time.day, days_in_month))


def find_valid_times(forecast: xr.Dataset) -> xr.DataArray:
    """Return the valid times of a forecast, dims (init_time, lead_time): its coordinate, or else the sum of both.

    A forecast at a single init or lead time is valid too. ValueError if the coordinate is not the sum; of monthly data
    only the month counts.
    """
    dims = ("init_time", "lead_time")
    init_time, lead_time = (forecast[dim].reset_coords(drop=True) for dim in dims)
    init_time, lead_time = (each if each.ndim else each.expand_dims(each.name) for each in (init_time, lead_time))
    expected = valid_times(init_time, lead_time)
    valid_time = forecast.coords.get("valid_time")
    if valid_time is None:
        return expected
    valid_time = valid_time.reset_coords(drop=True).drop_vars(dims, errors="ignore")
    missing_dims = {dim: expected.sizes[dim] for dim in dims if dim not in valid_time.dims}
    valid_time = valid_time.expand_dims(missing_dims).transpose(*dims)
    given, right = (times.values.ravel() for times in (valid_time, expected))
    if given.dtype.kind != right.dtype.kind:
        is_wrong = np.ones(right.shape, dtype=bool)
    elif lead_time.attrs.get("units") == "months":
        index = pd.DatetimeIndex if right.dtype.kind == "M" else xr.CFTimeIndex
        is_wrong = np.asarray(_ordinals(index(given), 1) != _ordinals(index(right), 1))
    else:  # leads of a third of a day, stored as float32, are off by less than a second
        is_wrong = np.abs(given - right) > (timedelta(seconds=1) if right.dtype == object else np.timedelta64(1, "s"))
    if is_wrong.any():
        row, column = divmod(int(np.argmax(is_wrong)), expected.sizes["lead_time"])
        init, lead = init_time.values[row], lead_text(lead_time.values[column])
        raise ValueError(
            f"valid_time is {to_iso(valid_time.values[row, column])} at init_time {to_iso(init)} and lead_time {lead}, "
            f"but their sum is {to_iso(expected.values[row, column])}. Correct init_time or lead_time, or drop the old "
            "valid_time: forecast.drop_vars('valid_time')"
        )
    return valid_time


def to_iso(time: np.generic | object) -> str:
    """Return a time as ISO text to the second."""
    return time.isoformat() if hasattr(time, "isoformat") else str(np.datetime64(time, "s"))


def count_text(count: int, plural: str) -> str:
    """Return a number with its noun, in the singular for one: "1 epoch", "2 epochs"."""
    return f"{count} {plural.removesuffix('s') if count == 1 else plural}"


def lead_text(lead: object) -> str:
    """Return a lead time as text to read, "6 h", "5 d" or "2 months"."""
    if not isinstance(lead, np.timedelta64):
        return count_text(int(lead), "months") if lead == int(lead) else f"{lead} months"
    hours = lead / np.timedelta64(1, "h")
    return f"{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"{hours:g} h"


def lead_texts(leads: np.ndarray) -> list[str]:
    """Return several leads as texts in one unit: days if all are whole days, but not a single one; else hours."""
    if leads.dtype.kind != "m":
        return [lead_text(lead) for lead in leads]
    hours = leads / np.timedelta64(1, "h")
    if len(hours) and (hours % 24 == 0).all() and (len(hours) > 1 or hours[0] >= 48):
        return [f"{days:g} d" for days in hours / 24]
    return [f"{value:g} h" for value in hours]


def check_times(times: pd.Index, name: str, dim: str = "time", units: str | None = None) -> None:
    """Raise ValueError unless the times of a series exist and increase; the other arguments are for the message."""
    if len(times) == 0:
        raise ValueError(f"{name} has no times. Select a period that lies within the data")
    if fault := find_date_fault(times, dim, units):
        raise ValueError(f"{name}: {fault[0]}. {fault[1]}")
    missing = np.asarray(times.isna())
    if missing.any():
        message = f"{missing.sum()} of the {len(times)} times of {name} are missing (NaT), the first at position"
        raise ValueError(f'{message} {missing.argmax()}. ds = ds.isel({dim}=ds["{dim}"].notnull().values)')
    if not times.is_monotonic_increasing:
        first = int(np.argmax(times[1:] < times[:-1]))
        message = f"the times of {name} must increase: {times[first + 1]} comes after {times[first]}"
        raise ValueError(f'{message}. ds = ds.sortby("{dim}")')
    if not times.is_unique:
        repeated = times[times.duplicated()][0]
        raise ValueError(f'the time {repeated} appears more than once in {name}. ds = ds.drop_duplicates("{dim}")')


def find_date_fault(times: pd.Index, dim: str, units: str | None = None, dataset: str = "ds") -> tuple[str, str] | None:
    """Return why times (with the attribute `units`) are no dates, and the lines that make them dates; else None.

    `dataset` is what these lines call the Dataset.
    """
    if isinstance(times, pd.DatetimeIndex | xr.CFTimeIndex) and getattr(times, "tz", None) is None:
        return None
    zone = getattr(times[0], "tzinfo", None) if len(times) else None
    if zone is not None:
        message = f"the times {dim!r} have the zone {zone}, but must be UTC without a zone"
        converted = f'pd.DatetimeIndex({dataset}.indexes["{dim}"]).tz_convert(None)'
        return message, f"{dataset} = {dataset}.assign_coords({dim}={converted})"
    first = f", the first is {times[0]!s}" if len(times) else ""
    message = f"the times {dim!r} must be dates, but have the type {times.inferred_type}{first}"
    if units:
        return f"{message}, in {units!r}, not decoded", f"{dataset} = xr.decode_cf({dataset})"
    if times.inferred_type in ("string", "mixed"):
        return message, f'{dataset} = {dataset}.assign_coords({dim}=pd.to_datetime({dataset}["{dim}"].values))'
    if _are_calendar_numbers(times):
        converted = f'pd.to_datetime({dataset}["{dim}"].values.astype(str))'
        return message, f"{dataset} = {dataset}.assign_coords({dim}={converted})"
    fix = "State in CF units what they count, here for example hours since 1900:\n"
    fix += f'{dataset}["{dim}"].attrs["units"] = "hours since 1900-01-01"\n{dataset} = xr.decode_cf({dataset})'
    return message, fix


def _are_calendar_numbers(times: pd.Index) -> bool:
    """Return whether all times are integers such as 20010131."""
    if times.inferred_type != "integer" or not len(times):
        return False
    return bool(pd.to_datetime(pd.Index(times.astype(str)), format="%Y%m%d", errors="coerce").notna().all())


def data_step(times: pd.Index, step: str) -> pd.Timedelta | int:
    """Return the most common step of a series, as a duration or in months like `step`."""
    ordinals = _ordinals(times, parse_step(step))
    differences, counts = np.unique(np.asarray(ordinals[1:] - ordinals[:-1]), return_counts=True)
    common = differences[counts.argmax()]
    return int(common) if isinstance(parse_step(step), int) else pd.Timedelta(common)


def find_windows(times: pd.Index, step: str, history: int, horizon: int, name: str) -> np.ndarray:
    """Return every window of a series: positions in `times` exactly one step apart, shape (window, history + horizon).

    ValueError, with the `name` of the series, if the step is no multiple of the data's step, or no window fits.
    """
    check_times(times, name)
    size, length = parse_step(step), history + horizon
    ordinals = _ordinals(times, size)
    if not ordinals.is_unique:
        fix = "average them first, ds.resample(time='1MS').mean()"
        raise ValueError(f"step={step!r} counts months, and {name} has several times in a month: {fix}")
    series_step = data_step(times, step) if len(times) > 1 else size
    if size % series_step != type(size)(0):
        label, fix = f"{series_step}MS", "choose a multiple of it"
        if not isinstance(series_step, int):
            hours = series_step / pd.Timedelta(hours=1)
            label = f"{hours / 24:g}D" if hours >= 24 else f"{hours:g}h"
            fix = "the data look monthly, choose '1MS'" if 28 * 24 <= hours <= 31 * 24 else fix
        raise ValueError(f"step={step!r} is not a multiple of the step of {name}, {label}: {fix}")
    positions = np.stack([ordinals.get_indexer(ordinals + (k - history + 1) * size) for k in range(length)], axis=1)
    windows = positions[(positions >= 0).all(axis=1)].astype(np.int64)
    if not len(windows):
        rule = f"window of {length} states (history {history} + horizon {horizon}) that are {step} apart"
        message = f"{name} has no {rule}: it has {len(times)} times from {times[0]} to {times[-1]}"
        fix = "Give a longer series, or a shorter history or horizon; windows never span a gap in time"
        raise ValueError(f"{message}. {fix}")
    return windows


def later_positions(times: pd.Index, step: str, positions: np.ndarray, steps: Iterable[int]) -> np.ndarray:
    """Return the positions in `times` some steps after others, (position, step); -1 where there is no such time."""
    size = parse_step(step)
    ordinals = _ordinals(times, size)
    return np.stack([ordinals.get_indexer(ordinals[positions] + count * size) for count in steps], axis=1)


def select_histories(
    times: pd.Index, step: str, history: int, init_times: Iterable | None, every: str | None, horizon: int = 0
) -> np.ndarray:
    """Return the positions in `times` of the history of each initialization, shape (init, history).

    Initializations are `init_times`, or all multiples of `every` with a full history, or by default the last time. They
    must also have `horizon` states after them.
    """
    if init_times is not None and every is not None:
        raise ValueError(f"give init_times or every={every!r}, not both")
    histories = find_windows(times, step, history, 0, "the dataset")
    rule = f"it takes {history} states {step} apart up to that time, without a gap"
    if horizon:
        is_complete = (later_positions(times, step, histories[:, -1], range(1, horizon + 1)) >= 0).all(axis=1)
        rule += f", and prescribed variables for {count_text(horizon, 'steps')} after it"
        if not is_complete.any():
            message = f"no forecast of {count_text(horizon, 'steps')} can start in {times[0]} to {times[-1]}"
            raise ValueError(f"{message}: {rule}. Give data with later times, or a shorter horizon")
        histories = histories[is_complete]
    if every is not None:
        if isinstance(parse_step(every), int) != isinstance(parse_step(step), int):
            raise ValueError(f"every={every!r} and step={step!r} must both count months, or both be durations")
        inits, size = times[histories[:, -1]], parse_step(every)
        # multiples count from 1970-01-01 00 UTC in the calendar of the times, months from January
        epoch = inits[0].replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
        elapsed = _ordinals(inits, size) - (1 if isinstance(size, int) else epoch)
        selected = histories[np.asarray(elapsed % size == type(size)(0))]
        if not len(selected):
            available = f"{len(histories)} times with a full history, {inits[0]} to {inits[-1]}"
            raise ValueError(f"every={every!r} matches none of the {available}: multiples are counted from 00 UTC")
        return selected
    last = times[histories[-1:, -1]] if horizon else times[-1:]
    inits = last if init_times is None else pd.Index(np.atleast_1d(np.asarray(init_times)))
    if isinstance(times, pd.DatetimeIndex):  # dates may come as text
        try:
            inits = pd.DatetimeIndex(inits)
        except (ValueError, TypeError) as error:
            message = f"init_times={list(inits[:3])!r} must be dates: {error}. For example init_times=['2004-01-01T12']"
            raise ValueError(message) from error
    elif not isinstance(inits[0], times.date_type):
        message = f"init_times has {inits[0]!r}, but the dataset has the calendar {times.calendar!r}"
        raise ValueError(f"{message}: take the times from the data, for example ds.time[10:20]")
    else:
        inits = type(times)(inits)
    check_times(inits, "init_times")
    rows = pd.Index(histories[:, -1]).get_indexer(times.get_indexer(inits))
    if (rows < 0).any():
        period = f"from {times[histories[0, -1]]} to {times[histories[-1, -1]]}"
        message = f"no forecast can start at {inits[rows < 0][0]}: {rule}"
        raise ValueError(f"{message}. {len(histories)} times have a full history, {period}")
    return histories[rows]


def _ordinals(times: pd.Index, size: pd.Timedelta | int) -> pd.Index:
    """Return values to which a step can be added: the times, or for months their number of months since year 0."""
    return pd.Index(times.year * 12 + times.month) if isinstance(size, int) else times


def shared_period(times: pd.Index, windows: np.ndarray, others: pd.Index) -> pd.Index:
    """Return the times of another series that lie within a window, from its first to its last time."""
    if type(times) is not type(others):
        calendars = [getattr(index, "calendar", "datetime64") for index in (times, others)]
        raise ValueError(f"the calendars {calendars} differ. Convert all to one: ds.convert_calendar('standard')")
    # windows are in order and of equal length: the last to begin before a time is the last to end after it
    latest = np.searchsorted(times[windows[:, 0]], others, side="right") - 1
    is_within = (latest >= 0) & (others <= times[windows[latest, -1]])
    return others[is_within]
