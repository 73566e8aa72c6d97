"""Output periods of a run: the days, months or single steps that its states are averaged over."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.windows import parse_step, shift, to_iso

_DAY = pd.Timedelta("1D")


@dataclass(frozen=True, eq=False)
class OutputPeriods:
    """Which states of a run belong to which period, and how the periods are called."""

    index: np.ndarray  # of the period of each state after the start, (state,); -1: its period is not complete
    counts: np.ndarray  # states in each period, (period,)
    labels: pd.Index  # beginning of each period, or the time of its only state
    bounds: np.ndarray | None  # beginning and end, (period, 2); None for single states

    @property
    def is_point(self) -> bool:
        """Whether every period is a single state."""
        return self.bounds is None


def output_periods(start: pd.Index, until: object, step: str, outputs: str | None) -> OutputPeriods:
    """Return the complete periods of a run from the time `start`, an index of length 1, to `until`.

    Of states with steps below a day, a period holds those after its beginning, up to its end, as in
    `metrics.time_mean`: at 06, 12, 18 and 24 UTC for a day of 6-hourly states. Of longer steps it holds those of its
    dates. ValueError if the period is no multiple of the step, or none is complete.
    """
    if until is None:
        raise ValueError('until is missing: give the end of the run, such as until="2034-01-01"')
    end, size = parse_time("until", until, start), parse_step(step)
    times = _state_times(start, end, step)
    if not len(times):
        raise ValueError(f"until={to_iso(end)} must be at least one step of {step} after the start {to_iso(start[0])}")
    length = size if outputs is None else _parse_length(outputs, size)
    if length == size:
        return OutputPeriods(np.arange(len(times)), np.ones(len(times), int), times, None)
    moments = times - timedelta(microseconds=1) if not isinstance(size, int) and size < _DAY else times
    if isinstance(length, int):
        numbers = np.asarray(moments.year * 12 + moments.month - 1) // length
    else:
        midnight = start[0].replace(hour=0, minute=0, second=0, microsecond=0)
        elapsed = pd.TimedeltaIndex(np.asarray(moments - midnight).astype("timedelta64[ns]"))
        numbers = np.asarray(elapsed // length)
    present, index, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    if isinstance(length, int):
        edges = np.stack([_months(times, present * length), _months(times, (present + 1) * length)], axis=1)
    else:
        edges = np.stack(
            [_after(midnight, times, present * length), _after(midnight, times, (present + 1) * length)], 1
        )
    if isinstance(size, int):
        expected = np.full(len(present), length // size)
    else:
        expected = np.array([round((after - before) / _like(size, after)) for before, after in edges])
    is_complete = counts == expected
    if not is_complete.any():
        raise ValueError(
            f"no period of outputs={outputs!r} is complete from {to_iso(start[0])} to {to_iso(end)}. Choose a later "
            "until, or shorter outputs"
        )
    position = np.where(is_complete, np.cumsum(is_complete) - 1, -1)
    labels = type(times)(edges[is_complete, 0])
    return OutputPeriods(position[index], counts[is_complete], labels, edges[is_complete])


def _parse_length(outputs: str, size: pd.Timedelta | int) -> pd.Timedelta | int:
    fix = "Choose days such as '1D', months such as '1MS', or None for every state"
    try:
        length = parse_step(outputs)
    except ValueError as error:
        raise ValueError(f"outputs={outputs!r}: {error}") from error
    if isinstance(length, int):
        if isinstance(size, int) and length % size:
            raise ValueError(f"outputs={outputs!r} must be a multiple of the step, {size} months. {fix}")
        if not isinstance(size, int) and _DAY % size and size % _DAY:
            raise ValueError(f"outputs={outputs!r} needs steps that divide a day, not {size}. {fix}")
        return length
    if isinstance(size, int) or length % size != pd.Timedelta(0) or (length != size and length % _DAY):
        raise ValueError(f"outputs={outputs!r} must be a multiple of the step, {size}, and of a day. {fix}")
    return length


def parse_time(name: str, value: object, like: pd.Index) -> object:
    """Return a time, also as text, in the calendar of other times; ValueError, with its `name`, if it is no time."""
    try:
        if isinstance(like, pd.DatetimeIndex):
            return pd.Timestamp(value).as_unit(like.unit)
        if isinstance(value, str):
            return xr.date_range(value, periods=1, calendar=like.calendar, use_cftime=True)[0]
    except pd.errors.OutOfBoundsDatetime as error:
        last, fix = f"{pd.Timestamp.max:%Y-%m-%d}", "ds.convert_calendar('standard', use_cftime=True)"
        raise ValueError(
            f"{name}={value!r} must be before {last}, where the times of the data end. Use {fix}"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}={value!r} must be a date, such as '2034-01-01': {error}") from error
    value = getattr(value, "item", lambda: value)()
    if not isinstance(value, like.date_type):
        raise ValueError(f"{name}={value!r} must be a date of the calendar {like.calendar!r}, such as '2034-01-01'")
    return value


def _state_times(start: pd.Index, end: object, step: str) -> pd.Index:
    """Return the times of the states after the start, up to the end."""
    size = parse_step(step)
    if isinstance(size, int):
        months = (end.year - start[0].year) * 12 + end.month - start[0].month
        times = [shift(start, step, count)[0] for count in range(1, months // size + 1)]
        return type(start)([time for time in times if time <= end])
    count = max(0, int((end - start[0]) / _like(size, start[0])))
    return _after(start[0], start, np.arange(1, count + 1) * size)


def _after(time: object, like: pd.Index, durations: np.ndarray | pd.Index) -> pd.Index:
    """Return times some durations after a time, as an index like another."""
    durations = pd.TimedeltaIndex(durations)
    if isinstance(like, xr.CFTimeIndex):
        return xr.CFTimeIndex([time + duration for duration in durations.to_pytimedelta()])
    return pd.DatetimeIndex(time + durations)


def _like(size: pd.Timedelta, time: object) -> pd.Timedelta | timedelta:
    """Return a duration of the type that differences of a time have."""
    return size if isinstance(time, pd.Timestamp | np.datetime64) else size.to_pytimedelta()


def _months(like: pd.Index, months: np.ndarray) -> pd.Index:
    """Return the first day of months since year 0, in the calendar of other times."""
    first = like[0].replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return type(like)([first.replace(year=int(month) // 12, month=int(month) % 12 + 1) for month in months])
