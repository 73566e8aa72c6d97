"""Days or months over which a run and the truth are averaged alike, and the whole years that they make.

A value with time bounds is of the period between them. Without bounds, a value at steps below a day is of the step that
it ends (as in `time_mean`), and the label of a longer step is its beginning.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.windows import check_times

_DAY = pd.Timedelta("1D")
_COMPLETE = 0.95  # share of a period that must have values
_LONGEST = 10 * _DAY  # longer periods, except months, do not fit into months
Period = pd.Timedelta | None  # None: a calendar month


@dataclass(frozen=True, eq=False)
class Spans:
    """The middle of the time that each value of a series is of, and its length in days."""

    middle: pd.Index
    days: np.ndarray

    @property
    def months(self) -> np.ndarray:
        """The month since year 0 of each value."""
        return np.asarray(self.middle.year * 12 + self.middle.month - 1)


@dataclass(frozen=True, eq=False)
class Timeline:
    """The periods of a series that lie in whole years."""

    first: np.ndarray  # position in the series of the first value of each period
    count: np.ndarray  # number of its values
    spans: Spans
    year: np.ndarray  # position of its year among the whole years
    years: np.ndarray  # calendar year in which each whole year begins
    calendar_months: tuple[int, ...]  # 0 to 11; all unless no year is whole

    @property
    def first_month(self) -> int:
        """The calendar month, 0 to 11, in which each whole year begins."""
        return int(self.spans.months[0]) % 12

    @property
    def is_whole_year(self) -> bool:
        return len(self.calendar_months) == 12


def find_spans(dataset: xr.Dataset, role: str, is_point: bool) -> Spans:
    """Return the time that each value of a canonical Dataset is of."""
    times = dataset.indexes["time"]
    check_times(times, role)
    if len(times) < 2:
        raise ValueError(f"{role} has {len(times)} time, but a climate report needs a year. Pass a longer series")
    steps = np.asarray(times[1:] - times[:-1]).astype("timedelta64[s]") / np.timedelta64(86400, "s")
    step = float(np.median(steps))
    bounds = dataset["time"].attrs.get("bounds", dataset["time"].encoding.get("bounds", "time_bnds"))
    if bounds in dataset.variables and not is_point:
        begin, end = (type(times)(edge) for edge in dataset[bounds].values.T)
        days = np.asarray(end - begin).astype("timedelta64[s]") / np.timedelta64(86400, "s")
        if step < 0.9 * float(np.median(days)):
            size, rule = f"{np.median(days):g} days at steps of {step:g} days", "Periods must not overlap"
            fix = f".isel(time=slice(None, None, {round(float(np.median(days)) / step)}))"
            raise ValueError(f"{role} has means over {size}. {rule}. Select some of them: {fix}")
        return Spans(begin + (end - begin) / 2, days)
    if 28 <= step <= 31:
        begin = _at_midnight(times) - pd.to_timedelta(times.day - 1, unit="D")
        days = np.asarray(times.days_in_month if hasattr(times, "days_in_month") else times.daysinmonth, float)
        return Spans(begin + pd.to_timedelta(days / 2, unit="D"), days)
    half = pd.Timedelta(days=0 if is_point and step >= 1 else step / 2)
    return Spans(times - half if step < 1 else times + half, np.full(len(times), step))


def period_of(spans: Spans, role: str) -> Period:
    """Return the period of a run: its own, or a day if it is shorter; ValueError if it does not fit into months."""
    days = float(np.median(spans.days))
    if 28 <= days <= 31:
        return None
    period = max(pd.Timedelta(days=days), _DAY)
    if period > _LONGEST:
        fix = 'Take months: sc.metrics.time_mean(run, "1MS")'
        raise ValueError(
            f"the periods of {role} are {period}, but must be months or at most {_LONGEST.days} days. {fix}"
        )
    return period


def group(spans: Spans, period: Period, origin: pd.Timedelta) -> tuple[np.ndarray, np.ndarray, Spans]:
    """Return the first position, the number of values and the span of each complete period of a series.

    Days begin at `origin` after 00 UTC.
    """
    if period is None:
        keys, length = spans.months, np.asarray(spans.middle.days_in_month, float)
    else:
        start = _at_midnight(spans.middle[:1])[0] + origin
        start = start if start <= spans.middle[0] else start - _DAY
        elapsed = np.asarray(spans.middle - start).astype("timedelta64[s]")
        keys = elapsed // np.timedelta64(int(period.total_seconds()), "s")
        length = np.full(len(keys), period / _DAY)
    first = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
    last = np.append(first[1:], len(keys)) - 1
    days = np.add.reduceat(spans.days, first)
    complete = days >= _COMPLETE * length[first]
    first, last, days = first[complete], last[complete], days[complete]
    begin, end = spans.middle[first], spans.middle[last]
    return first, last - first + 1, Spans(begin + (end - begin) / 2, days)


def timelines(run: Spans, truth: Spans, period: Period, origin: pd.Timedelta) -> tuple[Timeline, Timeline]:
    """Return the periods of run and truth in whole years, or if one has none, in the months that both have.

    A year is any twelve months from the first complete month on. ValueError if there are no months in common.
    """
    grouped = [group(spans, period, origin) for spans in (run, truth)]
    present = [_complete_months(spans, period) for _, _, spans in grouped]
    common = tuple(sorted({int(m) % 12 for m in present[0]} & {int(m) % 12 for m in present[1]}))
    for months in (tuple(range(12)), common):
        results = [_timeline(*each, whole, months) for each, whole in zip(grouped, present, strict=True)]
        if months and all(len(result.years) for result in results):
            return results[0], results[1]
    names = [[f"{m % 12 + 1:02d}" for m in sorted({int(x) % 12 for x in whole})] for whole in present]
    fix = "Pass series that share complete months"
    raise ValueError(f"nothing is comparable: complete calendar months of run {names[0]}, of truth {names[1]}. {fix}")


def _complete_months(spans: Spans, period: Period) -> np.ndarray:
    """Return the months whose days have values; periods of several days may stand over their ends."""
    months, position = np.unique(spans.months, return_inverse=True)
    days = np.bincount(position, spans.days, len(months))
    length = np.zeros(len(months))
    length[position] = spans.middle.days_in_month
    over = 0.0 if period is None or period <= _DAY else period / _DAY
    return months[days >= _COMPLETE * length - over]


def _timeline(
    first: np.ndarray, count: np.ndarray, spans: Spans, complete: np.ndarray, calendar_months: tuple[int, ...]
) -> Timeline:
    usable = complete[np.isin(complete % 12, calendar_months)]
    start = int(usable[0]) if len(usable) else 0
    windows, sizes = np.unique((usable - start) // 12, return_counts=True)
    whole = windows[sizes == len(calendar_months)]
    window = (spans.months - start) // 12
    kept = np.isin(window, whole) & np.isin(spans.months, usable)
    years = (start + 12 * whole) // 12
    chosen = Spans(spans.middle[kept], spans.days[kept])
    return Timeline(first[kept], count[kept], chosen, np.searchsorted(whole, window[kept]), years, calendar_months)


def _at_midnight(times: pd.Index) -> pd.Index:
    return times.floor("D")


def select_states(run: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Return the truth at the hours of the day at which a run has states a day or more apart."""
    hours = {time.hour for time in run.indexes["time"]}
    return truth.isel(time=np.flatnonzero(np.isin(truth.indexes["time"].hour, list(hours))))
