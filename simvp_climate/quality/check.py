"""Check a data set before training: every broken rule, and the line that fixes it.

Where a fault would hide others (unsorted times), `check` adds the finding, corrects its view of the data and continues.
"""

import contextlib
import difflib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import conventions, grid, reader
from simvp_climate.data.grid import Axes, find_axes
from simvp_climate.data.opening import open_raw
from simvp_climate.data.variables import VARIABLES, find_variable, lookup, same_units
from simvp_climate.data.windows import check_times, data_step, find_date_fault, find_windows, parse_step, shared_period
from simvp_climate.processing.forcings import longitude_harmonics, static_names
from simvp_climate.processing.statistics import resolve_log_scale_and_bounds
from simvp_climate.processing.task import Task
from simvp_climate.quality import report, rules
from simvp_climate.quality.layout import check_layout, check_memory
from simvp_climate.quality.report import Draft, Report, format_error, format_time, list_names, split_error
from simvp_climate.quality.samples import DIMS, NOTHING_TO_DO, SampledSeries, StoredField, check_values

_EXPECTED_NAMES = [name for variable in VARIABLES for name in (variable.long_name, variable.short_name)]


def check(
    dataset: xr.Dataset | str | os.PathLike | Sequence[str | os.PathLike], task: Any = None, *,
    splits: Mapping[str, slice] | None = None,
) -> Report:  # fmt: skip
    """Return every finding that would stop a training, spoil it or slow it, each with its fix.

    Metadata and coordinates are read in full. Of each variable at most 64 MB are decoded (at least two chunks, none
    above 512 MB): smaller ones in full, of larger ones about 50 times, evenly spread, with the first and the last two.
    Faults between these are missed. Nothing is changed, and bad data never raise.

    Parameters
    ----------
    dataset
        A Dataset as it was opened, or one of `open_dataset`; or a path, as for `open_dataset`.
    task
        The `Task` to check. None: all variables on the grid that have time, at the most common step of the data, with
        4 states in and 4 out.
    splits
        Periods as slices of time labels, `{"train": slice("1979", "2015"), "valid": slice("2016", "2016")}`:
        counts their windows and finds overlaps.

    Returns
    -------
    Report: findings with their fixes, and facts about grid, time, layout, cost of reading and memory.

    Raises
    ------
    FileNotFoundError, ValueError
        If the path does not exist, or cannot be opened as a single Dataset.
    TypeError
        If `dataset` is neither a path nor a Dataset, or `task` is no Task.
    """
    if task is not None and not hasattr(task, "variables"):
        raise TypeError(f"task={task!r} must be a Task: sc.Task([...], history=..., horizon=...)")
    draft = Draft(summary={"source": report.IN_MEMORY})
    if isinstance(dataset, str | os.PathLike | list | tuple):
        dataset = _open(dataset, task, draft)
    if not isinstance(dataset, xr.Dataset):
        name = type(dataset).__name__
        raise TypeError(f"a {name} cannot be checked: give a path or a Dataset (of a DataArray: .to_dataset())")
    try:
        _check_all(dataset, task, splits or {}, draft)
    except Exception as error:  # whatever the data are, the findings so far are worth more than a traceback
        message = f"the check stopped at an unforeseen error: {format_error(error)}"
        draft.add("error", "unforeseen", "data", message, "Fix the other findings, and check again")
    return draft.report()


def _open(path: str | os.PathLike | Sequence, task: Any, draft: Draft) -> xr.Dataset:
    """Return the Dataset at a path, or of several files, with all its variables."""
    draft.summary["source"] = str(path)
    dataset = open_raw(path, () if task is None else (*task.all_variables, *static_names(task.forcings)))
    if not dataset.variables:  # GRIB fields that make no single Dataset are left out unless they are named
        message = f"the fields in {str(path)!r} make no single Dataset"
        raise ValueError(f"{message}. Name some (--variables): sc.check(path, sc.Task([...]))")
    if "source" not in dataset.encoding:  # several files: the fixes start from open_dataset, with its names
        draft.summary["joined"] = True
        with contextlib.suppress(ValueError):  # reported later
            axes = find_axes(dataset)
            dataset = dataset.rename({name: dim for dim in DIMS if (name := getattr(axes, dim)) not in (None, dim)})
    return dataset


def _check_all(dataset: xr.Dataset, task: Any, splits: Mapping[str, slice], draft: Draft) -> None:
    """Add all findings, from the grid to the cost of reading."""
    dataset, axes = _check_grid(dataset, draft)
    if axes is None:
        return
    dataset, times = _check_times(dataset, axes.time, draft)
    series = None if times is None else _check_windows(times, axes.time, task, splits, draft)
    fields = _check_variables(dataset, axes, task, draft)
    levels = "" if task is None or task.levels is None else f", {list(task.levels)}"
    opened = f"sc.open_dataset(ds, {json.dumps([field.name for field in fields])}{levels})"
    cache_fix = f'ds = sc.cache({opened}, "cache.zarr")'  # once, in a layout that reads fast
    for field in fields:
        _check_dims(field, dataset, draft)
        try:
            transform, bounds = _check_transform(field, task, draft)
            if _check_attributes(field, draft) and series is not None and "time" in field.data.dims:
                check_values(field, dataset, series, transform, bounds, draft)
        except Exception as error:  # codecs and remote stores fail in their own ways
            fix = "Fetch the file or the store again: a chunk is missing or damaged"
            draft.add("error", "unreadable", field.source, f"reading it failed: {format_error(error)}", fix)
        check_layout(field, series, cache_fix, draft)
    check_memory(fields, series, draft)
    if task is not None:
        try:
            longitude_harmonics(task.forcings, pd.DatetimeIndex([]), np.empty(0), parse_step(task.step))
        except ValueError as error:
            draft.add("error", "forcing-time-of-day", "forcings", *split_error(error))
        draft.add_all(rules.find_static(dataset, name)[1] for name in static_names(task.forcings))


# ---- grid


def _check_grid(dataset: xr.Dataset, draft: Draft) -> tuple[xr.Dataset, Axes | None]:
    """Return the Dataset with its grid corrected, and its axes; None if it has no usable grid."""
    try:
        latitude, longitude = grid.find_horizontal(dataset)
    except Exception as error:
        draft.add("error", "no-grid", "grid", *split_error(error))
        return dataset, None
    for name, axis in ((latitude, "latitude"), (longitude, "longitude")):
        while fault := grid.find_axis_fault(axis, name, dataset[name].values, dataset[name].attrs.get("units")):
            draft.add("error", f"{axis}-{fault.rule}", name, fault.message, fault.fix)
            if fault.remaining is None:
                return xr.Dataset(), None
            dataset = dataset.isel({name: fault.remaining})
    try:
        axes = find_axes(dataset)
    except Exception as error:
        draft.add("error", "axes", "coordinates", *split_error(error))
        return dataset, None
    rows, columns = (dataset[name].values.astype(np.float64) for name in (axes.latitude, axes.longitude))
    canonical = grid.canonical_longitude(columns).values
    is_global = grid.closes_longitude(columns)
    _check_spacing(axes.latitude, "latitude", np.sort(rows), 0.5, draft)  # a Gaussian grid is nearly even
    _check_spacing(axes.longitude, "longitude", canonical, 0.02, draft)
    _check_seam(axes.longitude, columns, canonical, is_global, draft)
    poles = [pole for pole, row in (("south", rows.min()), ("north", rows.max())) if abs(row) > 89.99]
    latitude = report.axis_properties(axes.latitude, rows, np.sort(rows))
    latitude |= {"descending": bool(rows[0] > rows[-1]), "rows_at_poles": poles}
    longitude = report.axis_properties(axes.longitude, columns, canonical)
    longitude |= {"global": is_global, "across_greenwich": not is_global and bool(canonical.max() >= 360)}
    draft.summary["grid"] = {"latitude": latitude, "longitude": longitude}
    if not {"init_time", "lead_time"} & set(conventions.as_forecast(dataset).dims):
        return dataset, axes
    message = f"dimensions {list_names(dataset.dims)}: these are forecasts, but a network trains on a series in time"
    draft.add("error", "forecast", "time", message, report.fix_for_forecasts(dataset, axes.time))
    return dataset, None


def _check_spacing(name: str, axis: str, values: np.ndarray, tolerance: float, draft: Draft) -> None:
    steps = np.diff(values)
    step = np.median(steps) if len(steps) > 1 else np.nan
    if len(steps) < 2 or np.abs(steps / step - 1).max() <= tolerance:
        return
    worst = int(np.abs(steps - step).argmax())
    message = f"most neighbors are {step:g} degrees apart, but {values[worst]:g} and {values[worst + 1]:g} are "
    message += f"{steps[worst]:g}: the network treats all cells as equally wide"
    count = round((values[-1] - values[0]) / step) + 1
    fix = f"ds = ds.interp({name}=np.linspace({values[0]:g}, {values[-1]:g}, {count}))"
    draft.add("warning", f"{axis}-uneven", name, message, fix)


def _check_seam(name: str, columns: np.ndarray, canonical: np.ndarray, is_global: bool, draft: Draft) -> None:
    """Add a note if longitudes begin elsewhere than in the canonical order, a warning if a globe is not closed."""
    message = None
    if not is_global and canonical.min() < 360 <= canonical.max():
        west, east = (canonical[[0, -1]] + 180) % 360 - 180
        message = f"the region crosses Greenwich (from {west:g} to {east:g} degrees east): it stays in one piece"
    elif not np.allclose(columns % 360, canonical % 360):
        message = f"longitudes run from {columns[0]:g} to {columns[-1]:g}; the network gets them from "
        message += f"{canonical[0]:g} to {canonical[-1]:g}"
    if message:
        fix = f"{NOTHING_TO_DO}: forecasts come back on the longitudes of the data"
        draft.add("note", "longitude-seam", name, message, fix)
    gap = round((360 - np.ptp(canonical)) / np.median(np.diff(canonical))) - 1 if len(canonical) > 1 else 0
    if 1 <= gap <= len(canonical) / 8:
        message = f"{gap} columns between {canonical[-1] % 360:g} and {canonical[0] % 360:g} degrees are missing "
        message += "for a closed globe"
        draft.add("warning", "longitude-open", name, message, "Fetch them: without them the network sees an edge there")


# ---- time


def _check_times(dataset: xr.Dataset, name: str | None, draft: Draft) -> tuple[xr.Dataset, pd.Index | None]:
    """Return the Dataset with its times in order, each once, and these times; None without usable times."""
    if name is None:
        message = f"no dimension holds times; the dimensions are {list_names(dataset.dims)}"
        fix = 'ds = ds.assign_coords(time=xr.date_range("2000-01-01", periods=ds.sizes["time"], freq="6h"))'
        draft.add("error", "no-time", "time", message, fix)
        return dataset, None
    times = dataset.indexes.get(name)
    times = pd.Index([]) if times is None else times
    if fault := find_date_fault(times, name, dataset[name].attrs.get("units")):
        draft.add("error", "time-values", name, *fault)
        return dataset, None
    while len(times):
        try:
            check_times(times, "the series", name)
            break
        except ValueError as error:
            code, valid = "time-duplicates", ~times.duplicated()
            if times.isna().any():
                code, valid = "time-missing", ~np.asarray(times.isna())
            elif not times.is_monotonic_increasing:
                code, valid = "time-order", np.argsort(times, kind="stable")
            draft.add("error", code, name, *split_error(error))
            dataset, times = dataset.isel({name: valid}), times[valid]
    if not len(times):
        draft.add("error", "too-short", name, "the series has no times", "Select a period that the data contain")
        return dataset, None
    return dataset, times


def _check_windows(times: pd.Index, name: str, task: Any, splits: Mapping[str, slice], draft: Draft) -> SampledSeries:
    """Check steps, gaps and calendar, count the windows, and return the series."""
    data_step_text = _common_step(times)
    step = task.step if task is not None else data_step_text or "6h"
    history, horizon = (task.history, task.horizon) if task is not None else (Task.history, Task.horizon)
    times, gaps = _check_steps(times, name, data_step_text, draft) if data_step_text else (times, 0)
    is_cftime = isinstance(times, xr.CFTimeIndex)
    if is_cftime:
        message = f"calendar {times.calendar}: handled; the forecast has it too, and data to compare with must have it"
        fix = f"{NOTHING_TO_DO}. To convert other data: other.convert_calendar({times.calendar!r})"
        if times.calendar in ("standard", "gregorian", "proleptic_gregorian") and 1700 < times[0].year < 2250:
            message = f"cftime dates in the {times.calendar} calendar: handled, but slower and without pandas"
            fix = 'ds = ds.convert_calendar("standard", use_cftime=False)'
        draft.add("note", "calendar", name, message, fix)
    draft.summary["time"] = {
        "name": name, "first": format_time(times[0]), "last": format_time(times[-1]), "count": len(times),
        "step": data_step_text, "gaps": gaps, "calendar": getattr(times, "calendar", "standard"), "cftime": is_cftime,
    }  # fmt: skip
    counts = {"all": 0} | dict.fromkeys(splits, 0)
    draft.summary["windows"] = {"history": history, "horizon": horizon, "step": step, "count": counts}
    is_used, windows = np.full(len(times), True), None
    try:
        find_windows(times, step, 1, 0, "the data")  # windows of one state fail for their step alone
    except ValueError as error:
        draft.add("error", "step", name, str(error), f"step={data_step_text!r} in the Task is possible")
        return SampledSeries(times, None, is_used)
    try:
        windows = find_windows(times, step, history, horizon, "the data")
        counts["all"] = len(windows)
        is_used = np.isin(np.arange(len(times)), windows)
    except ValueError as error:
        run = _longest_run(times, step)
        message = f"{split_error(error)[0]}. The longest run without a gap has {run} states"
        shorter = min(history, run // 2)
        fix = f"sc.Task(variables, history={shorter}, horizon={min(horizon, run - shorter)}, step={step!r})"
        fix = fix if run > 1 else f"Give a longer series, with at least two states {step} apart"
        # without a task the lengths are only a guess
        draft.add("warning" if task is None and run > 1 else "error", "too-short", name, message, fix)
    _check_splits(times, name, (step, history, horizon), splits, draft)
    return SampledSeries(times, windows, is_used)


def _common_step(times: pd.Index) -> str | None:
    """Return the most common step of a series as text, None for less than two times."""
    if len(times) < 2:
        return None
    common = data_step(times, "1h")
    if pd.Timedelta(days=28) <= common <= pd.Timedelta(days=366) and (times.day == times.day[0]).mean() > 0.5:
        return f"{data_step(times, '1MS')}MS"
    seconds = max(1, round(common.total_seconds()))
    lengths = {"D": 86400, "h": 3600, "min": 60, "s": 1}
    return next(f"{seconds // length}{unit}" for unit, length in lengths.items() if seconds % length == 0)


def _check_steps(times: pd.Index, name: str, step: str, draft: Draft) -> tuple[pd.Index, int]:
    """Add the findings about uneven times and gaps; return the times without jitter, and the number of gaps."""
    size = parse_step(step)
    if isinstance(size, int):
        ratio = np.diff(np.asarray(times.year * 12 + times.month)) / size
    else:
        ratio = np.asarray((times[1:] - times[:-1]) / size, dtype=np.float64)
    whole = np.round(ratio)
    is_uneven = (np.abs(ratio - whole) > 1e-9) | (whole < 1)
    fill = f'ds = ds.resample({name}="{step}").interpolate("linear")'
    if is_uneven.any():
        count, first = f"{is_uneven.sum()} of {len(ratio)} steps", int(is_uneven.argmax())
        between = f"the first from {times[first]} to {times[first + 1]}"
        if (np.abs(ratio - np.maximum(whole, 1)) < 0.05).all():
            shifts = {unit: np.abs(np.asarray(times.round(unit) - times) / size) for unit in ("1h", "1min", "1s")}
            unit = next((unit for unit, shift in shifts.items() if shift.max() < 0.05), "1s")
            message = f"{count} differ from {step} by a little, {between}: no window contains them"
            fix = f'ds = ds.assign_coords({name}=ds["{name}"].dt.round("{unit}"))'
            draft.add("error", "time-jitter", name, message, fix)
            return times.round(unit), 0
        message = f"{count} are no multiple of {step}, the most common, {between}"
        draft.add("warning", "time-uneven", name, message, fill)
    gaps = np.flatnonzero(~is_uneven & (whole > 1))
    if len(gaps):
        ends = [(times[gap], times[gap + 1]) for gap in gaps]
        places = "1 place" if len(ends) == 1 else f"{len(ends)} places"
        where = "; ".join(f"after {format_time(last)} until {format_time(first)}" for last, first in ends[:3])
        where += f" and {len(ends) - 3} more" if len(ends) > 3 else ""
        missing = int((whole[gaps] - 1).sum())
        message = f"{missing} times of step {step} are missing in {places}: {where}. No window crosses a gap"
        fix = f"Fetch the missing times. Training works without them; gaps of a step or two can be filled:\n{fill}"
        if all((a.month, a.day, b.month, b.day, a.year % 4) == (2, 28, 3, 1, 0) for a, b in ends):
            message += ". They are 29 February alone: this looks like a model without leap days in the wrong calendar"
            fix = 'ds = ds.convert_calendar("noleap")'
        draft.add("warning", "time-gaps", name, message, fix)
    return times, len(gaps)


def _longest_run(times: pd.Index, step: str) -> int:
    """Return the number of states in the longest series of times one step apart."""
    run = np.ones(len(times), dtype=int)
    with contextlib.suppress(ValueError):  # no two states
        for first, second in find_windows(times, step, 2, 0, "the data"):
            run[second] = run[first] + 1
    return int(run.max())


def _check_splits(
    times: pd.Index, name: str, lengths: tuple[str, int, int], splits: Mapping[str, slice], draft: Draft
) -> None:
    """Count the windows in each split, and add the findings about splits that overlap."""
    selected: dict[str, pd.Index] = {}
    windows: dict[str, np.ndarray] = {}
    positions = xr.DataArray(np.arange(len(times)), dims="time", coords={"time": times.rename("time")})
    for split, period in splits.items():
        try:
            selected[split] = times[np.atleast_1d(positions.sel(time=period).values)]
            windows[split] = find_windows(selected[split], *lengths, f"split {split!r}")
            draft.summary["windows"]["count"][split] = len(windows[split])
        except Exception as error:  # pandas raises many types for a label
            is_ours = isinstance(error, ValueError)
            message = split_error(error)[0] if is_ours else f"split {split!r}: {format_error(error)}"
            fix = f"{split!r}: slice(first, last), long enough, within {times[0]} to {times[-1]}"
            draft.add("error", "split", name, message, fix)
    for first, second in itertools.combinations(selected, 2):
        if first in windows:
            shared = shared_period(selected[first], windows[first], selected[second])
            draft.add_all([rules.overlapping_periods(repr(first), repr(second), shared)])


# ---- variables


def _check_variables(dataset: xr.Dataset, axes: Axes, task: Any, draft: Draft) -> list[StoredField]:
    """Return the variables to check: those of the task, or all on the grid that have time."""
    vertical = axes.level or next((n for n in grid.find_candidates(dataset)["vertical"] if n in dataset.dims), None)
    levels = dataset.indexes.get(vertical, pd.Index([], dtype=float))
    if levels.dtype.kind not in "fiu" or levels.hasnans or not levels.is_unique:
        message = f"levels must be numbers, each once; these are {list_names(levels)}"
        fix = f'ds = ds.drop_duplicates("{vertical}")  # or ds.assign_coords({vertical}=[...]) in hPa'
        draft.add("error", "level-values", vertical, message, fix)
        return []
    on_grid = _names_on_grid(dataset, axes)
    names, levels = (on_grid, None) if task is None else (list(task.all_variables), task.levels)
    if not names:
        available = list_names(dataset.data_vars)
        message = f"no variable has time, {axes.latitude} and {axes.longitude}; there are {available}"
        draft.add("error", "no-variables", "variables", message, "Check that this is the right file")
    fields = [field for name in names if (field := _find_field(dataset, axes, name, levels, draft)) is not None]
    if levels is not None and len(fields) == len(names) and not any("level" in field.data.dims for field in fields):
        message = f"levels={list(levels)} applies to none of {list_names(names)}, which have no levels"
        draft.add("error", "levels-unused", "levels", message, "Leave levels out of the Task")
    draft.summary["variables"] = [_variable_properties(field) for field in fields]
    if task is None:
        draft.summary["left_out"] = [str(name) for name in dataset.data_vars if name not in names]
    return fields


def _variable_properties(field: StoredField) -> dict[str, object]:
    stored, data = field.data.encoding.get("dtype"), field.data
    properties = {
        "name": field.source, "asked_as": field.name, "dims": {str(dim): int(size) for dim, size in data.sizes.items()},
        "units": data.attrs.get("units"), "dtype": str(data.dtype),
        "stored_dtype": None if stored is None else str(np.dtype(stored)),
        "vocabulary": None if field.meaning is None else field.meaning.long_name,
    }  # fmt: skip
    return properties if field.levels == (None,) else {**properties, "levels": list(field.levels)}


def _names_on_grid(dataset: xr.Dataset, axes: Axes) -> list[str]:
    needed = {axes.latitude, axes.longitude, axes.time} - {None}
    return [str(name) for name, variable in dataset.data_vars.items() if needed <= set(variable.dims)]


def _find_field(dataset: xr.Dataset, axes: Axes, name: str, levels: tuple | None, draft: Draft) -> StoredField | None:
    """Return a variable by the name in the task, or None after adding why it cannot be used."""
    try:
        source, level = find_variable(dataset, name, axes.level, axes.scalar_level)
    except ValueError as error:
        same = [other for other in _names_on_grid(dataset, axes) if lookup(other) == lookup(name) is not None]
        code = "two-names" if len(same) > 1 else "unknown-variable"
        draft.add("error", code, name, *split_error(error, f"Choose from {list_names(dataset.data_vars)}"))
        return None
    has_levels = axes.level is not None and axes.level in dataset[source].dims
    try:
        renamed = conventions.rename(dataset, [name], levels if has_levels and level is None else None)
    except ValueError as error:
        is_on_grid = {axes.latitude, axes.longitude} <= set(dataset[source].dims)
        code = "level-missing" if is_on_grid else "off-grid"
        code = code if dataset[source].dtype.kind in "fiub" else "not-numbers"
        draft.add("error", code, name, *split_error(error))
        return None
    data, attrs = renamed[name].variable, dataset[source].attrs
    if "level" in data.dims:
        pressures = tuple(float(value) for value in grid.read_levels("level", renamed["level"].variable).values)
    elif has_levels:
        pressures = (float(level if level is not None else axes.levels.values[0]),)
    else:
        named = next((known[1] for text in (name, source) if (known := lookup(text)) and known[1]), None)
        pressures = (axes.scalar_level if named is None else float(named),)
    chunks = _stored_chunks(data)
    share = float(np.prod([size for dim, size in chunks.items() if dim not in data.dims] or [1]))
    if "level" in chunks and has_levels:
        read = {int(np.abs(axes.levels.values - value).argmin()) // chunks["level"] for value in pressures}
        share = len(read) * chunks["level"] / len(pressures)
    texts = (name, source, *(attrs.get(key, "") for key in ("standard_name", "short_name", "GRIB_shortName")))
    meaning = next((known[0] for text in texts if (known := lookup(str(text)))), None)
    if meaning is None:
        near = difflib.get_close_matches(source, _EXPECTED_NAMES, n=1, cutoff=0.75)
        message = "not a name of the vocabulary: it can be trained on, but units and range are not checked"
        fix = f'ds = ds.rename({{"{source}": "{near[0]}"}})  # if that is the variable' if near else NOTHING_TO_DO
        draft.add("note", "unknown-name", source, message, fix)
    dims, units = tuple(map(str, dataset[source].dims)), attrs.get("units")
    units = None if units is None else str(units)
    return StoredField(name, source, dims, axes, units, meaning, data, pressures, chunks, share)


def _stored_chunks(variable: xr.Variable) -> dict[str, int]:
    """Return the chunk sizes of the store by dimension, empty without chunks or where they are unknown."""
    chunks = {str(dim): size for dim, size in (variable.encoding.get("preferred_chunks") or {}).items()}
    if not all(isinstance(size, int) for size in chunks.values()):
        return {}
    if set(variable.dims) <= set(chunks):
        return chunks
    # the store has other names of dimensions, or one more level: match by position
    vertical = [dim for dim in chunks if dim.lower().startswith(("lev", "plev", "pres", "isobaric"))]
    dropped = vertical[: len(chunks) - variable.ndim] if len(chunks) > variable.ndim else []
    remaining = [size for dim, size in chunks.items() if dim not in dropped]
    if len(remaining) != variable.ndim:
        return {}
    return dict(zip(variable.dims, remaining, strict=True)) | {dim: chunks[dim] for dim in dropped}


def _check_dims(field: StoredField, dataset: xr.Dataset, draft: Draft) -> None:
    """Add the findings about dimensions that a state must not have, or lacks."""
    if field.axes.time is None:  # already reported
        return
    try:
        member = grid.find_member(dataset)
    except ValueError:  # several: one may stay
        member = None
    data = field.data
    if member in data.dims:
        message = f"{data.sizes[member]} members along {member!r}: each is a series; values are checked in the first"
        draft.add("note", "members", member, message, f"{NOTHING_TO_DO}: no window crosses from member to member")
        data = data.isel({member: 0})
    try:
        reader.list_channels(xr.Dataset({field.source: data}, coords={"level": list(field.levels)}))
    except ValueError as error:
        code = "extra-dimension" if "time" in data.dims else "no-time-dimension"
        draft.add("error", code, field.source, *split_error(error))


# ---- attributes, transforms, forcings


def _check_attributes(field: StoredField, draft: Draft) -> bool:
    """Return whether the values are numbers to check."""
    attrs, meaning = field.data.attrs, field.meaning
    packing = [key for key in ("scale_factor", "add_offset", "_FillValue", "missing_value") if key in attrs]
    if packing:
        text = ", ".join(f"{key}={attrs[key]}" for key in packing)
        draft.add("error", "not-decoded", field.source, f"packed values, not decoded ({text})", "ds = xr.decode_cf(ds)")
    is_numeric = field.data.dtype.kind in "fiu"
    if not is_numeric:  # true and false
        fix = f'{field.ds} = {field.ds}.astype("float32")'
        draft.add("error", "not-numbers", field.source, f"it must hold numbers, not {field.data.dtype}", fix)
    if field.units is None:
        message = "no attribute `units`: whether other data have the same units cannot be checked"
        fix = f'{field.ds}.attrs["units"] = "{meaning.units if meaning else "..."}"  # the units of the values'
        draft.add("warning", "units-missing", field.source, message, fix)
    elif finding := rules.wrong_units(field):
        draft.add_all([finding])
    elif meaning is not None and not same_units(field.units, meaning.units):
        message = f"units {field.units!r}, WeatherBench has {meaning.units!r}: kept as they are, also in the forecast"
        fix = f"{NOTHING_TO_DO}: a forecaster trained on either converts the other"
        draft.add("note", "units-other", field.source, message, fix)
    return is_numeric and not packing


def _check_transform(field: StoredField, task: Any, draft: Draft) -> tuple[object, tuple[float, float]]:
    """Return the transform of a variable, and the smallest and largest value of a forecast."""
    transform = None if task is None else dict(task.transforms).get(field.name)
    transforms = ((field.name, transform),) if transform else ()
    try:
        bounds = resolve_log_scale_and_bounds([reader.Channel(field.name)], [field.units or ""], transforms)[1]
        return transform, tuple(bounds[0].tolist())
    except ValueError as error:
        draft.add("error", "transform", field.source, *split_error(error))
        return None, (-np.inf, np.inf)
