"""What is wrong with a data set, and the line that mends each fault.

`check` goes from the outside in: grid, time, variables and units, a sample of the values, layout and cost.
Where a fault would hide the ones behind it (unsorted times), it is noted, mended in the view at hand, and the
looking goes on.
"""

import bisect
import contextlib
import difflib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import conventions, host_memory, reader
from simvp_climate.data.grid import Axes, closes_longitude, find_axes, find_horizontal, find_member, read_levels
from simvp_climate.data.store import open_raw
from simvp_climate.data.variables import VARIABLES, Variable, conversion, find_variable, lookup, same_units
from simvp_climate.data.windows import data_step, find_windows, parse_step
from simvp_climate.processing.forcings import FORCINGS, harmonics, static_names
from simvp_climate.processing.statistics import transforms_of
from simvp_climate.quality import report
from simvp_climate.quality.report import (
    GIVEN,
    Notes,
    Report,
    gathered,
    in_bytes,
    listed,
    short,
    sizes,
    split_error,
    when,
)

_BUDGET = 2**26  # decoded bytes of a variable that are looked at: all of it, where it has no more
_LARGEST_CHUNK = 2**29  # bytes: one chunk above this is not decoded for a look
_STATES = 48  # of a larger variable that are looked at
_PER_CHUNK = 8  # of them out of one chunk: the others there cost nothing, but tell little
_TINY, _HUGE = 2**16, 2**28  # bytes of a chunk that are too few and too many
_MATTERS = 2**28  # bytes an epoch reads above which a bad layout is felt
_DIMS = ("time", "level", "latitude", "longitude")
# what libraries and people write for "no value", but for the sign: netCDF's defaults, CMIP, GrADS, Ferret, hand-made
_FILLS = (9.96921e36, 1e20, 1e30, 1e34, 1e35, 1e36, 1e37, 3.4028235e38, 999, 9999, 99999, 999999, 9.99e8, 32767, 32768,
          65535, 2147483647, 2147483648)  # fmt: skip
# in which values may be whose units are said to be others
_UNITS = ("K", "degC", "m2 s-2", "m", "dam", "mm", "Pa", "hPa", "kg kg-1", "g kg-1", "1", "%")
# zero everywhere for a while is nothing strange for these
_MAY_BE_ZERO = ("tp", "tp6h", "tp24h", "tcc", "tisr", "siconc", "lsm")
_NOTHING = "Nothing to do"
_EXPECTED_NAMES = [name for variable in VARIABLES for name in (variable.long_name, variable.short_name)]


@dataclass(frozen=True, eq=False)
class _Field:
    """One variable to be trained on: dims named as inside, in the order of the file, wanted levels only."""

    name: str
    source: str
    data: xr.Variable
    levels: tuple[float | None, ...]
    chunks: dict[str, int]  # as stored, by dimension
    level_share: float  # levels decoded for each level wanted
    meaning: Variable | None
    axes: Axes  # what the dimensions are called in the Dataset

    @property
    def ds(self) -> str:
        """What it is called in a fix."""
        return f'ds["{self.source}"]'

    @property
    def conversion(self) -> tuple[float, float] | None:
        """Factor and offset from its units to those of the vocabulary; taken to be the same where none are said."""
        units = self.data.attrs.get("units")
        if self.meaning is None or units is None:
            return None if self.meaning is None else (1.0, 0.0)
        return conversion(self.meaning.short_name, str(units), self.meaning.units)


@dataclass(frozen=True, eq=False)
class _Series:
    """The times, mended; windows as positions, None where there are none; which times windows use, else all."""

    times: pd.Index
    windows: np.ndarray | None
    used: np.ndarray


@dataclass(frozen=True, eq=False)
class _Sample:
    """States of one variable: (state, level, latitude, longitude); their positions among all times; the grid."""

    values: np.ndarray
    positions: np.ndarray
    times: pd.Index
    latitude: np.ndarray
    longitude: np.ndarray

    def when(self, state: int) -> str:
        return when(self.times[self.positions[state]])

    def place(self, state: int, row: int, column: int) -> str:
        return f"{self.when(state)}, latitude {self.latitude[row]:g}, longitude {self.longitude[column]:g}"


def check(
    dataset: xr.Dataset | str | os.PathLike | Sequence[str | os.PathLike],
    task: Any = None,
    *,
    splits: Mapping[str, slice] | None = None,
) -> Report:
    """Look for everything in a data set that would stop a training, spoil it or slow it, and say the remedy.

    Metadata and coordinates are read in full. Of the values of each variable at most 64 MB are decoded (whole
    chunks count; at least two chunks, none above 512 MB): all states of variables that are no larger; of others
    about 50 times, evenly spread, with the first and the last two, and faults between them are not seen. Nothing
    is changed, and bad data never make it raise.

    Parameters
    ----------
    dataset
        A Dataset as it was opened, or one of `open_dataset`; or what `open_dataset` takes as a path.
    task
        The `Task` whose variables, levels, step, windows, forcings and transforms are checked. None: all variables
        on the grid that have time, at the most common step of the data, with 12 states in and 12 out.
    splits
        Periods as slices of time labels, `{"train": slice("1979", "2015"), "valid": slice("2016", "2016")}`:
        their windows are counted, and overlaps are found.

    Returns
    -------
    Report: findings with their fixes, and facts about grid, time, layout, cost of reading and memory.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing at the path, or it cannot be opened or makes no single Dataset.
    TypeError
        If it is neither a path nor a Dataset, or `task` is no Task.
    """
    notes = Notes(summary={"source": GIVEN})
    if task is not None and not hasattr(task, "variables"):
        raise TypeError(f"task={task!r} is no Task: write sc.Task([...], history=..., horizon=...)")
    if isinstance(dataset, str | os.PathLike | list | tuple):
        notes.summary["source"] = str(dataset)
        dataset = open_raw(dataset, () if task is None else (*task.all_variables, *static_names(task.forcings)))
        if not dataset.variables:  # GRIB fields that make no single Dataset are left out where none is named
            what = f"the fields in {str(notes.summary['source'])!r} make no single Dataset"
            raise ValueError(f"{what}: name some that do (--variables), sc.check(path, sc.Task([...]))")
        if "source" not in dataset.encoding:  # several files: named as by open_dataset, which the fixes start from
            notes.summary["joined"] = True
            with contextlib.suppress(ValueError):  # no grid: said later
                axes = find_axes(dataset)
                dataset = dataset.rename({n: dim for dim in _DIMS if (n := getattr(axes, dim)) not in (None, dim)})
    if not isinstance(dataset, xr.Dataset):
        kind = type(dataset).__name__
        raise TypeError(f"a {kind} cannot be checked: give a path or a Dataset (a DataArray: .to_dataset())")
    try:
        _look(dataset, task, splits or {}, notes)
    except Exception as error:  # whatever the data are, what was found so far is worth more than a traceback
        what = f"looking stopped at something unforeseen: {short(error)}"
        notes.add("error", "unforeseen", "data", what, "Mend what else was found, and check again")
    return gathered(notes.findings, notes.summary)


def _look(dataset: xr.Dataset, task: Any, splits: Mapping[str, slice], notes: Notes) -> None:
    """Look at everything, from the outside in."""
    dataset, axes = _check_grid(dataset, notes)
    if axes is None:
        return
    dataset, times = _check_times(dataset, axes.time, notes)
    series = None if times is None else _check_windows(times, axes.time, task, splits, notes)
    fields = _check_variables(dataset, axes, task, notes)
    levels = "" if task is None or task.levels is None else f", {list(task.levels)}"
    wanted = f"sc.open_dataset(ds, {json.dumps([one.name for one in fields])}{levels})"
    cache = f'ds = sc.cache({wanted}, "cache.zarr")'  # once, in a layout that reads fast
    for one in fields:
        _check_dims(one, dataset, notes)
        try:
            bounds = _check_transform(one, task, notes)
            if _check_units(one, notes) and series is not None and "time" in one.data.dims:
                _check_values(one, dataset, series, bounds, notes)
        except Exception as error:  # codecs and remote stores fail in their own ways
            fix = "Fetch the file or the store again: a chunk is missing or damaged"
            notes.add("error", "unreadable", one.source, f"reading it failed: {short(error)}", fix)
        _check_layout(one, series, cache, notes)
    _check_memory(fields, series, notes)
    if task is not None:
        _check_forcings(dataset, axes, task, notes)


# ---- grid


def _check_grid(dataset: xr.Dataset, notes: Notes) -> tuple[xr.Dataset, Axes | None]:
    """Return the Dataset with its grid mended, and its axes; None where there is no grid to go on with."""
    try:
        latitude, longitude = find_horizontal(dataset)
    except Exception as error:
        notes.add("error", "no-grid", "grid", *split_error(error))
        return dataset, None
    for name, axis in ((latitude, "latitude"), (longitude, "longitude")):
        dataset = _check_degrees(dataset, name, axis, notes)
        if dataset is None:
            return xr.Dataset(), None
    try:
        axes = find_axes(dataset)
    except Exception as error:
        notes.add("error", "axes", "coordinates", *split_error(error))
        return dataset, None
    rows, columns = (dataset[name].values.astype(np.float64) for name in (axes.latitude, axes.longitude))
    inside = conventions.orient(xr.Dataset(coords={"latitude": rows, "longitude": columns}))["longitude"].values
    closed = closes_longitude(columns)
    _check_spacing(axes.latitude, "latitude", np.sort(rows), 0.5, notes)  # a Gaussian grid is nearly even
    _check_spacing(axes.longitude, "longitude", inside, 0.02, notes)
    _check_seam(axes.longitude, columns, inside, closed, notes)
    poles = [pole for pole, row in (("south", rows.min()), ("north", rows.max())) if abs(row) > 89.99]
    latitude = report.described_axis(axes.latitude, rows, np.sort(rows))
    latitude |= {"descending": bool(rows[0] > rows[-1]), "rows_at_poles": poles}
    longitude = report.described_axis(axes.longitude, columns, inside)
    longitude |= {"global": closed, "across_greenwich": not closed and bool(inside.max() >= 360)}
    notes.summary["grid"] = {"latitude": latitude, "longitude": longitude}
    forecast = conventions.as_forecast(dataset).dims
    if not {"init_time", "lead_time"} & set(forecast):
        return dataset, axes
    what = f"dimensions {listed(dataset.dims)}: these are forecasts, a network is trained on a series in time"
    notes.add("error", "forecast", "time", what, report.series_of_forecasts(dataset, axes.time))
    return dataset, None


def _check_degrees(dataset: xr.Dataset, name: str, axis: str, notes: Notes) -> xr.Dataset | None:
    """Return the Dataset with one axis in order, or None if there is none left."""
    lowest, highest = {"latitude": (-90, 90), "longitude": (-360, 720)}[axis]
    try:
        values = dataset[name].values.astype(np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if not len(values):
        what = f"it holds no degrees but {listed(dataset[name].values) or 'nothing: what was selected is not there'}"
        fix = f"ds = ds.assign_coords({name}=[...])  # or select what is there, in the order of the file: slice(60, 40)"
        notes.add("error", f"{axis}-values", name, what, fix)
        return None
    bad = ~((values >= lowest - 1e-3) & (values <= highest + 1e-3))
    if bad.any():
        at = int(bad.argmax())
        what = f"{bad.sum()} of {len(values)} values are outside of {lowest}..{highest}, the first is {values[at]:g}"
        fix = f'ds = ds.isel({name}=(abs(ds["{name}"]) <= {highest}).values)'
        if bad.mean() > 0.5:
            fix = "cdo remapbil,r144x73 in.nc regular.nc\nIf these are meters of a map projection, regrid first"
        notes.add("error", f"{axis}-values", name, what, fix)
        if bad.mean() > 0.5:
            return None
        dataset, values = dataset.isel({name: ~bad}), values[~bad]
    if axis == "latitude":
        signs = np.sign(np.diff(values))
        if len(signs) and abs(signs.sum()) != len(signs):
            at = int(np.argmax((signs != signs[0]) | (signs == 0)))
            what = f"{values[at]:g} is followed by {values[at + 1]:g} (position {at + 1}): rows must go one way"
            fix = f'ds = ds.sortby("{name}").drop_duplicates("{name}")'
            notes.add("error", "latitude-order", name, what, fix)
            dataset = dataset.sortby(name).drop_duplicates(name)
        return dataset
    meridian = np.round(values % 360, 3) % 360
    again = np.setdiff1d(np.arange(len(values)), np.unique(meridian, return_index=True)[1]).tolist()
    if again:
        first = values[meridian == meridian[again[0]]][0]
        what = f"one meridian is there twice, {first:g} and {values[again[0]]:g}; each may be there once, modulo 360"
        notes.add("error", "longitude-repeats", name, what, f"ds = ds.drop_isel({name}={again})")
        dataset = dataset.drop_isel({name: again})
    return dataset


def _check_spacing(name: str, axis: str, values: np.ndarray, tolerance: float, notes: Notes) -> None:
    steps = np.diff(values)
    if len(steps) < 2 or np.abs(steps / np.median(steps) - 1).max() <= tolerance:
        return
    at = int(np.abs(steps - np.median(steps)).argmax())
    what = f"most neighbors are {np.median(steps):g} degrees apart, but {values[at]:g} and {values[at + 1]:g} are "
    what += f"{steps[at]:g}: the network takes all cells for equally wide"
    count = round((values[-1] - values[0]) / np.median(steps)) + 1
    fix = f"ds = ds.interp({name}=np.linspace({values[0]:g}, {values[-1]:g}, {count}))"
    notes.add("warning", f"{axis}-uneven", name, what, fix)


def _check_seam(name: str, columns: np.ndarray, inside: np.ndarray, closed: bool, notes: Notes) -> None:
    """Note where the longitudes begin other than inside, and a globe that does not close."""
    what = None
    if not closed and inside.min() < 360 <= inside.max():
        west, east = (inside[[0, -1]] + 180) % 360 - 180
        what = f"the region crosses Greenwich (from {west:g} to {east:g} degrees east): it is kept in one piece"
    elif not np.allclose(columns % 360, inside % 360):
        what = f"from {columns[0]:g} to {columns[-1]:g}: inside it is from {inside[0]:g} to {inside[-1]:g}"
    if what:
        fix = f"{_NOTHING}: handled inside, and a forecast comes back on the longitudes of the data"
        notes.add("note", "longitude-seam", name, what, fix)
    absent = round((360 - np.ptp(inside)) / np.median(np.diff(inside))) - 1 if len(inside) > 1 else 0
    if 1 <= absent <= len(inside) / 8:
        what = f"{absent} columns between {inside[-1] % 360:g} and {inside[0] % 360:g} degrees are missing "
        what += "to go round the globe"
        notes.add("warning", "longitude-open", name, what, "Fetch them: without them the network sees an edge there")


# ---- time


def _check_times(dataset: xr.Dataset, name: str | None, notes: Notes) -> tuple[xr.Dataset, pd.Index | None]:
    """Return the Dataset with its times in order, each once, and these times."""
    if name is None:
        what = f"no dimension holds times; the dimensions are {listed(dataset.dims)}"
        notes.add("error", "no-time", "time", what, _new_times("time"))
        return dataset, None
    times = dataset.indexes.get(name)
    if not isinstance(times, pd.DatetimeIndex | xr.CFTimeIndex):
        values, units = dataset[name].values, dataset[name].attrs.get("units")
        what = f"it holds no dates but {values.dtype}" + (f", the first is {values[0]!r}" if len(values) else "")
        what += f" in {units!r}: not decoded" if units else ""
        notes.add("error", "time-values", name, what, "ds = xr.decode_cf(ds)" if units else _new_times(name))
        return dataset, None
    missing = np.asarray(times.isna())
    if missing.any():
        what = f"{missing.sum()} of {len(times)} times have no value, the first at position {missing.argmax()}"
        notes.add("error", "time-missing", name, what, f'ds = ds.isel({name}=ds["{name}"].notnull().values)')
        dataset, times = dataset.isel({name: ~missing}), times[~missing]
    if not times.is_monotonic_increasing:
        at = int(np.argmax(times[1:] < times[:-1]))
        what = f"{when(times[at + 1])} comes after {when(times[at])} (position {at + 1} of {len(times)})"
        notes.add("error", "time-order", name, what, f'ds = ds.sortby("{name}")')
        order = np.argsort(times, kind="stable")
        dataset, times = dataset.isel({name: order}), times[order]
    if not times.is_unique:
        again = times.duplicated()
        many = f"{again.sum()} times are" if again.sum() > 1 else "1 time is"
        what = f"{many} there more than once, the first is {when(times[again][0])}"
        notes.add("error", "time-duplicates", name, what, f'ds = ds.drop_duplicates("{name}")')
        dataset, times = dataset.isel({name: ~again}), times[~again]
    if not len(times):
        what = "the series has no times"
        notes.add("error", "too-short", name, what, "Is the period that was selected in the data?")
        return dataset, None
    return dataset, times


def _new_times(name: str) -> str:
    return f'ds = ds.assign_coords({name}=xr.date_range("2000-01-01", periods=ds.sizes["{name}"], freq="6h"))'


def _check_windows(times: pd.Index, name: str, task: Any, splits: Mapping[str, slice], notes: Notes) -> _Series:
    """Check steps, gaps and calendar, count the windows, and return the series."""
    own = _own_step(times)
    step = task.step if task is not None else own or "6h"
    history, horizon = (task.history, task.horizon) if task is not None else (12, 12)
    times, gaps = _check_steps(times, name, own, notes) if own else (times, 0)
    facts = {"name": name, "first": when(times[0]), "last": when(times[-1]), "count": len(times), "step": own}
    facts |= {"gaps": gaps, "calendar": getattr(times, "calendar", "standard")}
    if isinstance(times, xr.CFTimeIndex):
        _note_calendar(times, name, notes)
    notes.summary["time"] = facts | {"cftime": isinstance(times, xr.CFTimeIndex)}
    counts = {"all": 0} | dict.fromkeys(splits, 0)
    notes.summary["windows"] = {"history": history, "horizon": horizon, "step": step, "count": counts}
    try:
        find_windows(times, step, 1, 0, "the data")  # a state by itself fails for its step alone
    except ValueError as error:
        notes.add("error", "step", name, str(error), f"step={own!r} in the Task is possible")
        return _Series(times, None, np.full(len(times), True))
    windows, used = None, np.full(len(times), True)
    try:
        windows = find_windows(times, step, history, horizon, "the data")
        counts["all"] = len(windows)
        used = np.isin(np.arange(len(times)), windows)
    except ValueError as error:
        run = _longest_run(times, step)
        what = f"{split_error(error)[0]}. The longest run without a gap has {run} states"
        shorter = min(history, run // 2)
        fix = f"sc.Task(variables, history={shorter}, horizon={min(horizon, run - shorter)}, step={step!r})"
        if run < 2:
            fix = f"A longer series: two states {step} apart are the least"
        # without a task the lengths are but a guess
        notes.add("warning" if task is None and run > 1 else "error", "too-short", name, what, fix)
    _check_splits(times, name, (step, history, horizon), splits, notes)
    return _Series(times, windows, used)


def _own_step(times: pd.Index) -> str | None:
    """Return the most common step of a series as text, or None if it has less than two times."""
    if len(times) < 2:
        return None
    common = data_step(times, "1h")
    if pd.Timedelta(days=28) <= common <= pd.Timedelta(days=366) and (times.day == times.day[0]).mean() > 0.5:
        return f"{data_step(times, '1MS')}MS"
    seconds = max(1, round(common.total_seconds()))
    lengths = {"D": 86400, "h": 3600, "min": 60, "s": 1}
    return next(f"{seconds // size}{unit}" for unit, size in lengths.items() if seconds % size == 0)


def _check_steps(times: pd.Index, name: str, step: str, notes: Notes) -> tuple[pd.Index, int]:
    """Note times off the beat, and gaps; return the times without jitter, and the number of gaps."""
    size = parse_step(step)
    if isinstance(size, int):
        ratio = np.diff(np.asarray(times.year * 12 + times.month)) / size
    else:
        ratio = np.asarray((times[1:] - times[:-1]) / size, dtype=np.float64)
    whole = np.round(ratio)
    off = (np.abs(ratio - whole) > 1e-9) | (whole < 1)
    fill = f'ds = ds.resample({name}="{step}").interpolate("linear")'
    if off.any():
        at = int(off.argmax())
        between = f"the first from {times[at]} to {times[at + 1]}"
        if (np.abs(ratio - np.maximum(whole, 1)) < 0.05).all():
            moved = {beat: np.abs(np.asarray(times.round(beat) - times) / size).max() for beat in ("1h", "1min", "1s")}
            beat = next((beat for beat, share in moved.items() if share < 0.05), "1s")
            what = f"{off.sum()} of {len(ratio)} steps differ from {step} by a little, {between}: no window has them"
            fix = f'ds = ds.assign_coords({name}=ds["{name}"].dt.round("{beat}"))'
            notes.add("error", "time-jitter", name, what, fix)
            return times.round(beat), 0
        what = f"{off.sum()} of {len(ratio)} steps are no multiple of {step}, the most common, {between}"
        notes.add("warning", "time-uneven", name, what, fill)
    gaps = np.flatnonzero(~off & (whole > 1))
    if len(gaps):
        places = "1 place" if len(gaps) == 1 else f"{len(gaps)} places"
        ends = [(times[at], times[at + 1]) for at in gaps]
        where = "; ".join(f"after {when(last)} until {when(following)}" for last, following in ends[:3])
        where += f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
        lost = int((whole[gaps] - 1).sum())
        what = f"{lost} times of step {step} are missing in {places}: {where}. No window crosses a gap"
        fix = f"Fetch the missing times. Training goes on without them; gaps of a step or two can be filled:\n{fill}"
        if all((a.month, a.day, b.month, b.day, a.year % 4) == (2, 28, 3, 1, 0) for a, b in ends):
            what += ". They are 29 February alone: this looks like a model without leap days in the wrong calendar"
            fix = 'ds = ds.convert_calendar("noleap")'
        notes.add("warning", "time-gaps", name, what, fix)
    return times, len(gaps)


def _note_calendar(times: xr.CFTimeIndex, name: str, notes: Notes) -> None:
    what = f"calendar {times.calendar}: handled; the forecast is in it too, and data to compare with must be"
    fix = f"{_NOTHING}. To bring other data to it: other.convert_calendar({times.calendar!r})"
    if times.calendar in ("standard", "gregorian", "proleptic_gregorian") and 1700 < times[0].year < 2250:
        what = f"cftime dates in the {times.calendar} calendar: handled, but slower and without pandas"
        fix = 'ds = ds.convert_calendar("standard", use_cftime=False)'
    notes.add("note", "calendar", name, what, fix)


def _longest_run(times: pd.Index, step: str) -> int:
    """Return the number of states in the longest series of times one step apart."""
    run = np.ones(len(times), dtype=int)
    try:
        for first, second in find_windows(times, step, 2, 0, "the data"):
            run[second] = run[first] + 1
    except ValueError:  # no two
        pass
    return int(run.max())


def _check_splits(
    times: pd.Index, name: str, lengths: tuple[str, int, int], splits: Mapping[str, slice], notes: Notes
) -> None:
    """Count the windows in each split, and note what they share."""
    members: dict[str, set[int]] = {}
    positions = xr.DataArray(np.arange(len(times)), dims="time", coords={"time": times.rename("time")})
    for split, period in splits.items():
        try:
            chosen = np.atleast_1d(positions.sel(time=period).values)
            members[split] = set(chosen.tolist())
            count = len(find_windows(times[chosen], *lengths, f"split {split!r}"))
            notes.summary["windows"]["count"][split] = count
        except Exception as error:  # whatever pandas says to a label
            what = split_error(error)[0] if isinstance(error, ValueError) else f"split {split!r}: {short(error)}"
            fix = f"{split!r}: slice(first, last) within {when(times[0])} to {when(times[-1])}, and long enough"
            notes.add("error", "split", name, what, fix)
    for first, second in itertools.combinations(members, 2):
        if both := sorted(members[first] & members[second]):
            period = f"from {when(times[both[0]])} to {when(times[both[-1]])}"
            what = f"{first!r} and {second!r} share {len(both)} times, {period}: scores would be too good"
            fix = "Give periods that do not overlap; labels such as '2015' include the whole year"
            notes.add("error", "split-overlap", name, what, fix)


# ---- variables


def _check_variables(dataset: xr.Dataset, axes: Axes, task: Any, notes: Notes) -> list[_Field]:
    """Return the variables to look at: those of the task, or all on the grid that have time."""
    levels = dataset.indexes.get(axes.level, pd.Index([], dtype=float))
    if levels.dtype.kind not in "fiu" or levels.hasnans or not levels.is_unique:
        what = f"levels must be numbers, each once; these are {listed(levels)}"
        fix = f'ds = ds.drop_duplicates("{axes.level}")  # or ds.assign_coords({axes.level}=[...]) in hPa'
        notes.add("error", "level-values", axes.level, what, fix)
        return []
    usable = _usable(dataset, axes)
    names, levels = (usable, None) if task is None else (list(task.all_variables), task.levels)
    if not names:
        what = f"no variable has time, {axes.latitude} and {axes.longitude}; there are {listed(dataset.data_vars)}"
        notes.add("error", "no-variables", "variables", what, "Check that this is the right file")
    found = [_find_field(dataset, axes, name, levels, notes) for name in names]
    fields = [one for one in found if one is not None]
    if levels is not None and len(fields) == len(names) and not any("level" in one.data.dims for one in fields):
        what = f"levels={list(levels)} is asked for, but none of {listed(names)} has levels"
        notes.add("error", "levels-unused", "levels", what, "Leave levels out of the Task")
    notes.summary["variables"] = [
        report.described_variable(one.source, one.name, one.data, one.levels, one.meaning) for one in fields
    ]
    if task is None:
        notes.summary["left_out"] = [str(name) for name in dataset.data_vars if name not in names]
    return fields


def _usable(dataset: xr.Dataset, axes: Axes) -> list[str]:
    needed = {axes.latitude, axes.longitude, axes.time} - {None}
    return [str(name) for name, variable in dataset.data_vars.items() if needed <= set(variable.dims)]


def _find_field(dataset: xr.Dataset, axes: Axes, name: str, levels: tuple | None, notes: Notes) -> _Field | None:
    try:
        source, level = find_variable(dataset, name, axes.level, axes.scalar_level)
    except ValueError as error:
        meant = [one for one in _usable(dataset, axes) if lookup(one) == lookup(name) is not None]
        code = "two-names" if len(meant) > 1 else "unknown-variable"
        notes.add("error", code, name, *split_error(error, f"Choose from {listed(dataset.data_vars)}"))
        return None
    on_levels = axes.level is not None and axes.level in dataset[source].dims
    try:
        renamed = conventions.rename(dataset, [name], levels if on_levels and level is None else None)
    except ValueError as error:
        on_grid = {axes.latitude, axes.longitude} <= set(dataset[source].dims)
        notes.add("error", "level-missing" if on_grid else "off-grid", name, *split_error(error))
        return None
    data = renamed[name].variable
    if "level" in data.dims:
        values = tuple(float(value) for value in read_levels("level", renamed["level"].variable).values)
    elif on_levels:
        values = (float(level if level is not None else axes.levels.values[0]),)
    else:
        named = next((meaning[1] for text in (name, source) if (meaning := lookup(text)) and meaning[1]), None)
        values = (axes.scalar_level if named is None else float(named),)
    chunks = _stored_chunks(data)
    share = float(np.prod([size for dim, size in chunks.items() if dim not in data.dims] or [1]))
    if "level" in chunks and on_levels:
        there = axes.levels.values
        rows = {int(np.abs(there - value).argmin()) // chunks["level"] for value in values}
        share = len(rows) * chunks["level"] / len(values)
    attrs = dataset[source].attrs
    texts = (name, source, *(attrs.get(key, "") for key in ("standard_name", "short_name", "GRIB_shortName")))
    meaning = next((known[0] for text in texts if (known := lookup(str(text)))), None)
    if meaning is None:
        near = difflib.get_close_matches(source, _EXPECTED_NAMES, n=1, cutoff=0.75)
        what = "no name of the vocabulary: it can be trained on, but neither its units nor its range are checked"
        fix = f'ds = ds.rename({{"{source}": "{near[0]}"}})  # if that is what it is' if near else _NOTHING
        notes.add("note", "unknown-name", source, what, fix)
    return _Field(name, source, data, values, chunks, share, meaning, axes)


def _stored_chunks(variable: xr.Variable) -> dict[str, int]:
    """Return the chunk sizes of the store by dimension, empty where there are none or they are not known.

    The store may call its dimensions otherwise, and have a level that was selected from: sizes go by position then.
    """
    chunks = {str(dim): size for dim, size in (variable.encoding.get("preferred_chunks") or {}).items()}
    if not all(isinstance(size, int) for size in chunks.values()):
        return {}
    if set(variable.dims) <= set(chunks):
        return chunks
    vertical = [dim for dim in chunks if dim.lower().startswith(("lev", "plev", "pres", "isobaric"))]
    dropped = vertical[: len(chunks) - variable.ndim] if len(chunks) > variable.ndim else []
    kept = [size for dim, size in chunks.items() if dim not in dropped]
    if len(kept) != variable.ndim:
        return {}
    return dict(zip(variable.dims, kept, strict=True)) | {dim: chunks[dim] for dim in dropped}


def _check_dims(one: _Field, dataset: xr.Dataset, notes: Notes) -> None:
    """Note dimensions that a state has not."""
    if one.axes.time is None:  # said before
        return
    if "time" not in one.data.dims:
        what = f"it has no time ({listed(one.data.dims)}): a field that never changes is no forecast"
        fix = f"Leave {one.name!r} out of Task.variables, or name it in Task.forcings"
        notes.add("error", "no-time-dimension", one.source, what, fix)
    try:
        member = find_member(dataset)
    except ValueError:  # several: one may stay
        member = None
    for dim in [dim for dim in one.data.dims if dim not in _DIMS]:
        size = one.data.sizes[dim]
        if dim == member:
            what = f"{size} members along {dim!r}: each is a series of its own; values are looked at in the first"
            notes.add("note", "members", dim, what, f"{_NOTHING}: no window goes from one member to the next")
        else:
            what = f"a dimension {dim!r} of size {size} beside time, level, latitude and longitude"
            fix = f"ds = ds.isel({dim}=0)  # or the mean: ds.mean({dim!r})"
            notes.add("error", "extra-dimension", one.source, what, fix)


# ---- units and values


def _check_units(one: _Field, notes: Notes) -> bool:
    """Return whether the values are numbers to look at."""
    attrs, meaning = one.data.attrs, one.meaning
    packed = [key for key in ("scale_factor", "add_offset", "_FillValue", "missing_value") if key in attrs]
    if packed:
        said = ", ".join(f"{key}={attrs[key]}" for key in packed)
        notes.add("error", "not-decoded", one.source, f"packed values, not decoded ({said})", "ds = xr.decode_cf(ds)")
    numbers = one.data.dtype.kind in "fiu"
    if not numbers:
        what = f"it holds {one.data.dtype}, numbers are needed"
        notes.add("error", "not-numbers", one.source, what, f'{one.ds} = {one.ds}.astype("float32")')
    units = attrs.get("units")
    if units is None:
        what = "no attribute `units`: nobody can tell whether other data are in the same ones"
        fix = f'{one.ds}.attrs["units"] = "{meaning.units if meaning else "..."}"  # what the values really are in'
        notes.add("warning", "units-missing", one.source, what, fix)
    elif meaning is not None and one.conversion is None:
        what = f"units {units!r} cannot be converted to {meaning.units!r}, those of {meaning.long_name}: not checked"
        fix = f'{one.ds}.attrs["units"] = "{meaning.units}"  # if the values are'
        notes.add("warning", "units-wrong", one.source, what, fix)
    elif meaning is not None and not same_units(str(units), meaning.units):
        what = f"units {units!r}, WeatherBench has {meaning.units!r}: kept as they are, also in the forecast"
        fix = f"{_NOTHING}: a forecaster trained on either converts the other"
        notes.add("note", "units-other", one.source, what, fix)
    return numbers and not packed


def _check_values(
    one: _Field, dataset: xr.Dataset, series: _Series, bounds: tuple[object, float, float], notes: Notes
) -> None:
    """Look at a sample of the values."""
    positions = _positions(one, len(series.times))
    if not len(positions):
        what = f"one chunk holds {in_bytes(_bytes_at_once(one))}: its values were not looked at"
        notes.add("note", "not-sampled", one.source, what, f"{_NOTHING}, but look yourself")
        return
    latitude, longitude = dataset[one.axes.latitude].values, dataset[one.axes.longitude].values
    sample = _Sample(_read(one, positions), positions, series.times, latitude, longitude)
    sample = _check_fills(one, sample, notes)
    infinite = np.isinf(sample.values)
    if infinite.any():
        state, _, row, column = np.argwhere(infinite)[0]
        what = f"{infinite.sum()} infinite values in the sample, the first at {sample.place(state, row, column)}"
        notes.add("error", "infinite", one.source, what, f"{one.ds} = {one.ds}.where(np.isfinite({one.ds}))")
    notes.summary.setdefault("missing", {})[one.source] = float(np.isnan(sample.values).mean())
    notes.summary["sampled"] = min(len(positions), int(notes.summary.get("sampled", len(positions))))
    _check_missing(one, sample, series.used[positions], notes)
    # what is dead has been said then, its values tell nothing more
    sample = replace(sample, values=_check_variation(one, sample, notes))
    _check_range(one, sample, notes)
    _check_bounds(one, sample, *bounds, notes)


def _positions(one: _Field, count: int) -> np.ndarray:
    """Return the positions in time to look at: whole chunks within the budget, spread over the series."""
    cost = _bytes_at_once(one)
    if cost > _LARGEST_CHUNK:
        return np.empty(0, dtype=int)
    length = min(_times_at_once(one), count)
    wanted = int(np.clip(_BUDGET // max(cost, 1), 2, _STATES))
    rows = -(-count // length)
    if rows * cost <= _BUDGET:
        return np.arange(count)
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, wanted)).round().astype(int))
    per_row = max(2, min(_PER_CHUNK if len(chosen) > 1 else _STATES, _STATES // len(chosen)))
    positions = {0, count - 1}
    if length > 1 or wanted > 8:  # where they cost little
        positions |= {1, count - 2}
    for row in chosen:
        first, last = row * length, min((row + 1) * length, count) - 1
        positions |= set(np.linspace(first, last, per_row).round().astype(int).tolist())
    return np.array(sorted(at for at in positions if 0 <= at < count), dtype=int)


def _times_at_once(one: _Field) -> int:
    """Return how many times are read at once; dask passes a selection on to a store, but not to a computation."""
    dask = max(one.data.chunksizes["time"]) if one.data.chunks is not None else 1
    return max(1, one.chunks.get("time", dask))


def _bytes_at_once(one: _Field) -> float:
    """Return the decoded bytes of all that is read for one chunk in time."""
    cells = np.prod([size for dim, size in one.data.sizes.items() if dim in _DIMS and dim != "time"])
    return float(cells * one.data.dtype.itemsize * _times_at_once(one) * one.level_share)


def _read(one: _Field, positions: np.ndarray) -> np.ndarray:
    """Return states of a field: (state, level, latitude, longitude)."""
    data = one.data.isel({dim: 0 for dim in one.data.dims if dim not in _DIMS})
    rows, parts = positions // _times_at_once(one), []
    if positions[-1] - positions[0] < len(positions):  # without a hole: one read, of many chunks at once
        rows = np.zeros_like(rows)
    for row in np.unique(rows):  # else one for each chunk
        inside = positions[rows == row]
        block = data.isel(time=slice(int(inside[0]), int(inside[-1]) + 1)).load()
        parts.append(block.transpose("time", ..., "latitude", "longitude").values[inside - inside[0]])
    values = np.concatenate(parts)
    return values.reshape(len(positions), -1, *values.shape[-2:]).astype(np.result_type(values, np.float32), copy=False)


def _check_fills(one: _Field, sample: _Sample, notes: Notes) -> _Sample:
    """Note numbers that stand for no value, and return the sample without them."""
    values, said, fixes = sample.values, [], []
    factor, offset = one.conversion or (np.nan, 0)
    lowest, highest = one.meaning.valid_range if one.meaning else (0, 0)
    for side in (np.max, np.min) * 2:
        finite = values[np.isfinite(values)]
        extreme = float(side(finite)) if finite.size else np.nan
        if not np.isclose(abs(extreme), _FILLS, rtol=1e-5, atol=0).any():
            continue
        rest = finite[finite != extreme]
        near = rest.size and np.abs(extreme - rest).min() <= np.ptp(rest)
        if near or lowest <= extreme * factor + offset <= highest:
            continue
        said.append(f"{extreme:.7g} ({100 * (finite.size - rest.size) / values.size:.2g} % of the values)")
        whole = abs(extreme) < 1e7 and extreme == int(extreme)
        but = f"{one.ds} != {int(extreme)}" if whole else f"abs({one.ds}) < {abs(extreme) * 0.99:.3g}"
        fixes.append(f"{one.ds} = {one.ds}.where({but})")
        values = np.where(values == extreme, np.nan, values)
    if said:
        what = f"{', '.join(said)}: a fill value that was not decoded is taken for data"
        notes.add("error", "fill-values", one.source, what, "\n".join(fixes))
    return replace(sample, values=values)


def _check_missing(one: _Field, sample: _Sample, used: np.ndarray, notes: Notes) -> None:
    """Note masks, and values missing now and then in what windows use."""
    missing = np.isnan(sample.values)
    live = ~missing.all(axis=(0, 2, 3))
    if not live.any():
        what = f"no value at any of {len(used)} times looked at"
        notes.add("error", "all-missing", one.source, what, f"Leave {one.name!r} out of the Task")
        return
    if not live.all():
        _note_dead_levels(one, ~live, "no values", notes)
    missing = missing[:, live]
    empty = used & missing.all(axis=(2, 3)).any(axis=1)
    if empty.any():
        first = sample.when(int(empty.argmax()))
        what = f"all cells are missing at {empty.sum()} of {len(used)} times looked at, the first is {first}"
        fix = f'ds = ds.dropna("{one.axes.time}", how="all", subset=["{one.source}"])  # windows skip the gap'
        notes.add("error", "nan-times", one.source, what, fix)
    states = np.flatnonzero(used & ~empty)
    if not len(states):
        return
    missing = missing[states]
    mask = missing.all(axis=0)
    moving = missing.any(axis=0) & ~mask
    if moving.any():
        level, row, column = np.argwhere(moving)[0]
        moves = missing[:, level, row, column]
        gone, there = states[int(moves.argmax())], states[int((~moves).argmax())]
        place = f"{sample.place(gone, row, column)}, but not at {sample.when(there)}"
        what = f"{moving.any(axis=0).sum()} cells are missing at some times only; the first at {place}"
        fix = "Fill them, or mask these cells at all times:\n"
        fix += f'{one.ds} = {one.ds}.where({one.ds}.notnull().all("{one.axes.time}"))'
        notes.add("error", "nan-moving", one.source, what, fix)
    if mask.any():
        what = f"the same {100 * mask.mean():.1f} % of the cells are missing at all times: a mask (land, ice, ground)"
        fix = f"{_NOTHING}: they are kept out of statistics, loss and scores"
        notes.add("note", "mask", one.source, what, fix)


def _note_dead_levels(one: _Field, dead: np.ndarray, what: str, notes: Notes) -> None:
    named = ", ".join(f"{level:g}" for level, out in zip(one.levels, dead, strict=True) if out)
    keep = ", ".join(f"{level:g}" for level, out in zip(one.levels, dead, strict=True) if not out)
    fix = f"levels=[{keep}] in the Task" if keep else f"Leave {one.name!r} out of the Task"
    notes.add("error", "dead-level", one.source, f"level {named} has {what} at all times looked at", fix)


def _check_variation(one: _Field, sample: _Sample, notes: Notes) -> np.ndarray:
    """Note fields, levels and times at which nothing changes; return the values without these."""
    values = np.where(np.isfinite(sample.values), sample.values, np.nan)
    live = ~np.isnan(values).all(axis=(0, 2, 3))
    if not live.any():
        return values
    highest, lowest = (side(values, axis=(0, 2, 3)) for side in (np.fmax.reduce, np.fmin.reduce))
    flat = live & (highest - lowest <= 1e-6 * np.abs(highest))
    may_be_zero = one.meaning is not None and one.meaning.short_name in _MAY_BE_ZERO
    count = len(values)
    if (flat == live).all() and len(set(highest[live].tolist())) == 1:
        value = float(highest[live][0])
        what = f"it is {value:g} in all cells at all {count} times looked at: there is nothing to learn"
        fix = f'ds = ds.drop_vars("{one.source}")  # and out of Task.variables'
        notes.add("warning" if may_be_zero and not value else "error", "constant", one.source, what, fix)
        return np.full_like(values, np.nan)
    if flat.any():
        _note_dead_levels(one, flat, f"the same value ({highest[flat][0]:g}) everywhere", notes)
        values[:, flat] = np.nan
    changing = values[:, live & ~flat]
    if not changing.shape[1] or count == 1:
        return values
    # which states (state, level) have one value in all cells that have any, or none
    blank = np.fmax.reduce(changing, axis=(2, 3)) <= np.fmin.reduce(changing, axis=(2, 3))
    empty = np.isnan(changing).all(axis=(2, 3))
    # a blank state may come back by itself (no rain)
    _check_standstill(one, sample, changing, ~(blank | empty).all(axis=1), notes)
    blanks = blank.any(axis=1)
    if blanks.any() and not blanks.all():
        at = int(blanks.argmax())
        value = float(np.nanmax(changing[at, int(blank[at].argmax())]))
        if value or not (may_be_zero or one.meaning is None):
            what = f"all cells are {value:g} at {blanks.sum()} of {count} times looked at, first at {sample.when(at)}"
            grid = f'["{one.axes.latitude}", "{one.axes.longitude}"]'
            fix = f"ds = ds.isel({one.axes.time}=({one.ds}.std({grid}) > 0).values)  # windows skip the gap"
            notes.add("error", "blank-times", one.source, what, fix)
            values[blanks] = np.nan
    return values


def _check_standstill(one: _Field, sample: _Sample, values: np.ndarray, patterned: np.ndarray, notes: Notes) -> None:
    """Note states that repeat the one before."""
    count, name = len(values), one.axes.time
    same = patterned[:-1] & [np.array_equal(*pair, equal_nan=True) for pair in itertools.pairwise(values)]
    if same.all():
        what = f"it never changes in time (the same at all {count} times looked at)"
        fix = f"Leave {one.name!r} out of Task.variables: it is a static field. To name it in Task.forcings:\n"
        fix += f"{one.ds} = {one.ds}.isel({name}=0, drop=True)"
        notes.add("error", "static", one.source, what, fix)
    elif same[-1]:
        start = len(same) - int(np.argmin(same[::-1]))  # first sampled state of the run that lasts to the end
        last = _read(one, sample.positions[-1:])
        between = range(int(sample.positions[start - 1]) + 1, int(sample.positions[start]))
        at = bisect.bisect_left(  # a dozen reads
            between, True, key=lambda at: np.array_equal(_read(one, np.array([at])), last, equal_nan=True)
        )
        since = when(sample.times[between.start + at])
        what = f"it stands still from {since} to the end, {sample.when(-1)} ({count - start} times looked at)"
        notes.add("error", "stuck", one.source, what, f'ds = ds.sel({name}=slice(None, "{since}"))')
    elif same.any():
        first, second = sample.when(int(same.argmax())), sample.when(int(same.argmax()) + 1)
        what = f"{same.sum()} of {len(same)} neighbors in the sample are the same state, the first {first} and {second}"
        fix = f'ds = ds.drop_sel({name}="{second}")  # and the others'
        notes.add("warning", "repeated", one.source, what, fix)


def _check_range(one: _Field, sample: _Sample, notes: Notes) -> None:
    """Note values that cannot be in the units they are said to be in."""
    meaning, values = one.meaning, sample.values
    if one.conversion is None or not np.isfinite(values).any() or _fits(one, values, one.conversion):
        return
    units = one.data.attrs.get("units")
    stated = meaning.units if units is None else units
    said = f"values from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}"
    for other in _UNITS:
        factors = conversion(meaning.short_name, other, meaning.units)
        # a mass in a mass is no fraction of anything else, though both have no dimension
        if factors is None or ("kg" in other) != ("kg" in meaning.units):
            continue
        if same_units(other, stated) or not _fits(one, values, factors):
            continue
        said_before = ("units-other", "units-missing")
        notes.findings = [n for n in notes.findings if n.where != one.source or n.code not in said_before]
        fix = f'{one.ds}.attrs["units"] = "{other}"'
        if units is None:
            what = f"no attribute `units`; {said} can be {meaning.long_name} in {other!r}"
            notes.add("warning", "units-missing", one.source, what, fix)
        else:
            what = f"{said} are said to be in {stated!r}, but such values of {meaning.long_name} are in {other!r}"
            notes.add("error", "units-mislabeled", one.source, what, fix)
        return
    factor, offset = one.conversion
    low, high = ((bound - offset) / factor for bound in meaning.valid_range)
    worst = np.unravel_index(int(np.nanargmax(np.abs(values - (low + high) / 2))), values.shape)
    what = f"{said} {stated}; {meaning.long_name} lies within {low:.4g} to {high:.4g}. The worst, "
    what += f"{values[worst]:.4g}, is at {sample.place(worst[0], *worst[2:])}"
    fix = "See whether units, scale_factor or the variable are wrong, or take out what cannot be:\n"
    fix += f"{one.ds} = {one.ds}.clip({low:.6g}, {high:.6g})"
    beyond = max(low - np.nanmin(values), np.nanmax(values) - high) / (high - low)
    # the ranges are wide, not laws
    notes.add("error" if beyond > 0.2 else "warning", "range", one.source, what, fix)


def _fits(one: _Field, values: np.ndarray, factors: tuple[float, float]) -> bool:
    """Whether values would be plausible, converted; geopotential (height) also by its mean on each level."""
    factor, offset = factors
    lowest, highest = one.meaning.valid_range
    if np.nanmin(values) * factor + offset < lowest or np.nanmax(values) * factor + offset > highest:
        return False
    gravity = {"z": 9.80665, "gh": 1}.get(one.meaning.short_name)
    for at, level in enumerate(one.levels):
        if gravity is None or level is None or not 50 <= level <= 850 or np.isnan(values[:, at]).all():
            continue  # near the ground the mean says little
        # height in the standard atmosphere to within the tropopause, and well within a factor of 2 above
        expected = gravity * 44330.8 * (1 - (level / 1013.25) ** 0.190263)
        if not 0.5 < (np.nanmean(values[:, at]) * factor + offset) / expected < 2:
            return False
    return True


# ---- what a task says of its variables and beside them


def _check_transform(one: _Field, task: Any, notes: Notes) -> tuple[object, float, float]:
    """Return how the task bends or bounds a variable, and the least and the largest value of a forecast."""
    how, units = None if task is None else dict(task.transforms).get(one.name), str(one.data.attrs.get("units", ""))
    try:
        bounds = transforms_of([reader.Channel(one.name)], [units], [(one.name, how)] if how else ())[1]
        return how, *bounds[0].tolist()
    except ValueError as error:
        notes.add("error", "transform", one.source, *split_error(error))
        return None, -np.inf, np.inf


def _check_bounds(one: _Field, sample: _Sample, how: object, low: float, high: float, notes: Notes) -> None:
    """Note values that no forecast could have; packing alone makes some that are a little outside."""
    values = sample.values
    if how is None or not np.isfinite(values).any():
        return
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    slack = 1e-3 * (most - least)
    outside = (values < low - slack) | (values > high + slack)
    if not outside.any():
        return
    state, _, row, column = np.argwhere(outside)[0]
    what = f"transforms={{{one.name!r}: {how!r}}} keeps forecasts within {low:g} to {high:g}, but values go from "
    what += f"{least:.4g} to {most:.4g} {one.data.attrs.get('units', '')}; {100 * outside.mean():.3g} % are outside, "
    what += f"the first at {sample.place(state, row, column)}. Every forecast would be cut"
    fix = f"Leave {one.name!r} out of transforms, or give bounds in the units of the data"
    factor, offset = one.conversion or (1, 0)
    ends = [(end - offset) / factor for end in (low, high)]  # of (0, 1) for %
    if ends[0] - slack <= least and most <= ends[1] + slack:
        said = ", ".join(f"{end:.6g}" if np.isfinite(end) else "None" for end in ends)
        fix = f"transforms={{{one.name!r}: ({said})}} in the Task: bounds are in the units of the data"
    notes.add("error", "bounds", one.source, what, fix)


def _check_forcings(dataset: xr.Dataset, axes: Axes, task: Any, notes: Notes) -> None:
    """Note forcings that are not there, change with time or have no value somewhere."""
    try:
        harmonics(task.forcings, pd.DatetimeIndex([]), np.empty(0), parse_step(task.step))
    except ValueError as error:
        notes.add("error", "forcing-time-of-day", "forcings", *str(error).split(": ", 1))
    for name in static_names(task.forcings):
        try:
            source = find_variable(dataset, name, axes.level, axes.scalar_level)[0]
            field = conventions.rename(dataset, [name])[name]
            more = [dim for dim in field.dims if dim not in ("latitude", "longitude")]
            missing = np.zeros(1) if more else ~np.isfinite(field.values.astype(np.float64))
        except Exception as error:  # not there, or not to be read
            near = difflib.get_close_matches(name, FORCINGS, n=1)
            what, fix = split_error(error, f"Choose from {listed(dataset.data_vars)}")
            what = f"in forcings, not built in ({', '.join(FORCINGS)}) and not to be had of the data: {what}"
            notes.add("error", "forcing-unknown", name, what, f"Did you mean {near[0]!r}?" if near else fix)
            continue
        if more:
            what = f"in forcings, but with {listed(more)}: what changes is not known at the times that are forecast"
            one = ", ".join(f"{getattr(axes, dim, dim)}=0" for dim in more)
            fix = f'Name it in Task.variables, or if it hardly changes:\nds["{source}"] = ds["{source}"].isel({one}, '
            notes.add("error", "forcing-changes", source, what, f"{fix}drop=True)")
        elif missing.any():
            what = f"in forcings, but {missing.sum()} of its {missing.size} cells have no value"
            notes.add("error", "forcing-missing", source, what, f'ds["{source}"] = ds["{source}"].fillna(0)')


# ---- layout, cost, memory


def _check_layout(one: _Field, series: _Series | None, cache: str, notes: Notes) -> None:
    """Note a chunk layout that costs, and what reading one window and one epoch takes."""
    facts: dict[str, object] = {"stored": one.chunks or None}
    notes.summary.setdefault("layout", {})[one.source] = facts
    if one.data.chunks is not None:
        facts["dask"] = {str(dim): int(max(cut)) for dim, cut in one.data.chunksizes.items()}
    if not one.chunks or series is None or series.windows is None or "time" not in one.data.dims:
        return
    counts = {dim: -(-size // one.chunks[dim]) for dim, size in one.data.sizes.items()}
    pieces = counts["latitude"] * counts["longitude"]
    space = np.prod([counts[dim] * one.chunks[dim] / one.data.sizes[dim] for dim in ("latitude", "longitude")])
    share, levels, length = one.level_share, one.data.sizes.get("level", 1), one.chunks["time"]
    used = np.flatnonzero(series.used)
    rows = len(np.unique(used // length)) * length
    some = series.windows[:: max(1, len(series.windows) // 500)]
    touched = float(np.mean([len(np.unique(window // length)) for window in some]))
    itemsize = np.dtype(one.data.encoding.get("dtype") or one.data.dtype).itemsize
    epoch = rows * space * share * itemsize * levels * one.data.sizes["latitude"] * one.data.sizes["longitude"]
    factor = rows / len(used) * space * share
    chunk = int(np.prod(list(one.chunks.values()))) * itemsize
    facts |= {
        "chunk_bytes": chunk,
        "levels_decoded_per_level": share,
        "window_amplification": float(touched * length / series.windows.shape[1] * space * share),
        "epoch_amplification": float(factor),
        "epoch_bytes": int(epoch),
        "chunks_per_window": float(touched * pieces * max(1.0, levels * share / one.chunks.get("level", np.inf))),
    }
    said, felt = f"chunks of {sizes(one.chunks)}", "warning" if epoch > _MATTERS else "note"
    costs = f"an epoch decodes {in_bytes(epoch)} for {in_bytes(epoch / factor)}, {factor:.3g} times its size"
    if share >= 2:
        what = f"chunks hold {share * levels:g} levels and {levels} {'is' if levels == 1 else 'are'} wanted: {costs}"
        what += ". A copy of what is wanted costs one such pass and pays from the second epoch on"
        notes.add(felt, "chunk-levels", one.source, what, cache)
    elif factor >= 2:
        notes.add(felt, "chunk-space", one.source, f"{said} hold more than is wanted of them: {costs}", cache)
    if chunk > _HUGE:
        what = f"{said} are {in_bytes(chunk)} decoded each: a single state costs one of them in memory"
        notes.add("warning", "chunk-huge", one.source, what, cache)
    if chunk < _TINY and facts["chunks_per_window"] >= 8 and np.prod(list(counts.values())) >= 1000:
        what = f"{np.prod(list(counts.values())):,} {said}, {in_bytes(chunk)} each: a window takes "
        what += f"{facts['chunks_per_window']:.0f} of them, and opening each costs more than decoding it"
        notes.add("warning", "chunk-tiny", one.source, what, cache)


def _check_memory(fields: list[_Field], series: _Series | None, notes: Notes) -> None:
    """Compare the memory that all states need, or a stream of them, with what is free."""
    fields = [one for one in fields if "time" in one.data.dims]
    if not fields or series is None:
        return
    needed, free = int(sum(4 * one.data.size for one in fields)), host_memory.free_memory()
    notes.summary["memory"] = {"states_bytes": needed, "free_bytes": free}
    if free is None or needed <= 0.6 * free:  # what training keeps in memory
        return
    # two stretches as long as the longest chunk, and what a window reaches beyond it
    reach = 0 if series.windows is None else int((series.windows[:, -1] - series.windows[:, 0]).max())
    streamed = 2 * (max(_times_at_once(one) for one in fields) + reach) * needed // len(series.times)
    what = f"all states are {in_bytes(needed)} as float32, {in_bytes(free)} of memory are free: "
    if streamed <= 0.6 * free:
        fix = f"{_NOTHING}. To have them stay: fewer variables, levels or years"
        notes.add("note", "memory", "all variables", f"{what}they are read anew every epoch", fix)
        return
    what += f"they do not stay there, and to stream them takes {in_bytes(streamed)} at least"
    fix = "Fewer variables or levels, or a copy in smaller chunks: sc.cache(ds, path)"
    grid = notes.summary["grid"]
    if grid["longitude"]["global"] and grid["latitude"]["size"] > 64:
        fix += '\nor a coarser grid:\nds = sc.regrid(ds, "5.625deg")'
    notes.add("warning", "memory", "all variables", what, fix)
