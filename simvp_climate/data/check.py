"""What is wrong with a data set, and the line that mends each fault.

`check` goes from the outside in: grid, time, variables and units, a sample of the values, layout and cost.
Where a fault would hide the ones behind it (unsorted times), it is noted, mended in the view at hand, and the
looking goes on.
"""

import difflib
import html
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import store
from simvp_climate.data.conventions import (
    Axes,
    _horizontal,
    _level_values,
    _resolve,
    _roles,
    find_axes,
    orient,
    rename,
    single_level,
)
from simvp_climate.data.variables import VARIABLES, Variable, lookup, same_units
from simvp_climate.data.windows import data_step, find_windows, parse_step
from simvp_climate.grid import closes_longitude

SEVERITIES = ("error", "warning", "note")
_BUDGET = 2**26  # decoded bytes of a variable that are looked at
_LARGEST_CHUNK = 2**29  # bytes: one chunk above this is not decoded for a look
_STATES = 48  # of a variable that are looked at
_PER_CHUNK = 8  # of them out of one chunk: the others there cost nothing, but tell little
_TINY, _HUGE = 2**16, 2**28  # bytes of a chunk that are too few and too many
_MATTERS = 2**28  # bytes an epoch reads above which a bad layout is felt
_GIVEN = "a Dataset"
_DIMS = ("time", "level", "latitude", "longitude")
_MEMBERS = ("number", "member", "realization", "realisation", "ensemble", "ens", "member_id", "sample")
# what libraries and people write for "no value": netCDF's own defaults, CMIP, GrADS, Ferret, hand-made ones
_FILLS = (
    9.96921e36, 1e20, 1e30, 1e34, 1e35, 1e36, 3.4028235e38, 1e37, 9999.0, 99999.0, 999999.0, 32767.0, 65535.0,
    2147483647.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0, -2147483647.0, -2147483648.0, -1e20, -1e30,
    -1e34, -3.4028235e38, -9.99e8, -9.96921e36,
)  # fmt: skip
# from a unit that is often met to that of the vocabulary: value * factor + offset
_CONVERSIONS = {
    "K": (("degC", 1, 273.15), ("degF", 5 / 9, 273.15 - 160 / 9)),
    "Pa": (("hPa", 100, 0), ("kPa", 1000, 0)),
    "m2 s-2": (("m", 9.80665, 0), ("gpm", 9.80665, 0), ("dam", 98.0665, 0)),
    "kg kg-1": (("g kg-1", 1e-3, 0),),
    "%": (("1", 100, 0),),
    "1": (("%", 0.01, 0),),
    "m": (("mm", 1e-3, 0), ("kg m-2", 1e-3, 0), ("cm", 1e-2, 0)),
    "kg m-2": (("mm", 1, 0),),
    "m s-1": (("km h-1", 1 / 3.6, 0), ("knot", 0.514444, 0), ("cm s-1", 0.01, 0)),
    "Pa s-1": (("hPa s-1", 100, 0),),
}
# zero everywhere for a while is nothing strange for these
_MAY_BE_ZERO = ("tp", "tp6h", "tp24h", "tcc", "tisr", "siconc", "lsm")


@dataclass(frozen=True)
class Finding:
    """One thing found in the data.

    Attributes
    ----------
    severity
        "error": training would refuse or be wrong. "warning": it works, but costs or hurts. "note": worth
        knowing; it is handled.
    code
        One word for scripts, such as "time-gaps".
    where
        The variable or coordinate.
    what
        What was found, with the values.
    fix
        Python or a command to paste, or what to do; `ds` is the Dataset checked, `sc` this package.
    """

    severity: str
    code: str
    where: str
    what: str
    fix: str


@dataclass(frozen=True, repr=False)
class Report:
    """What `check` found: readable when printed, and as a table in Jupyter.

    Attributes
    ----------
    findings
        Errors first, then warnings, then notes.
    summary
        Facts as plain values (text, numbers, lists, dicts): source, variables, grid, time, levels, missing,
        layout, memory, windows. What could not be found out is absent.
    """

    findings: tuple[Finding, ...]
    summary: Mapping[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __str__(self):
        return _as_text(self)

    __repr__ = __str__

    def _repr_html_(self):
        return _as_html(self)


@dataclass(frozen=True, eq=False)
class _Field:
    """One variable to be trained on: dims named as inside, in the order of the file, wanted levels only."""

    name: str
    source: str
    data: xr.Variable
    levels: tuple[float | None, ...]
    level_share: float  # levels decoded for each level wanted
    meaning: Variable | None
    axes: Axes  # what the dimensions are called in the Dataset


@dataclass(frozen=True, eq=False)
class _Series:
    """The times, mended; windows as positions, None where there are none."""

    times: pd.Index
    windows: np.ndarray | None

    @cached_property
    def used(self) -> np.ndarray:
        """Which times are in a window; all, where there is none."""
        used = np.full(len(self.times), self.windows is None)
        if self.windows is not None:
            used[self.windows] = True
        return used


def check(
    dataset: xr.Dataset | str | os.PathLike | Sequence[str | os.PathLike],
    task=None,
    *,
    splits: Mapping[str, slice] | None = None,
) -> Report:
    """Look for everything in a data set that would stop a training, spoil it or slow it, and say the remedy.

    Metadata and coordinates are read in full. Of the values of each variable at most 64 MB are decoded (whole
    chunks count; at least two chunks, none above 512 MB) and about 50 times looked at, evenly spread, with
    the first and the last two: faults between them are not seen. Nothing is changed, and bad data never make
    it raise.

    Parameters
    ----------
    dataset
        A Dataset as it was opened, or one of `open_dataset`; or what `open_dataset` takes as a path.
    task
        The `Task` whose variables, levels, step and windows are checked. None: all variables on the grid that
        have time, at the most common step of the data, with 12 states in and 12 out.
    splits
        Periods as slices of time labels, `{"train": slice("1979", "2015"), "valid": slice("2016", "2016")}`:
        their windows are counted, and overlaps are found.

    Returns
    -------
    Report: findings with their fixes, and facts about grid, time, layout, cost of reading and memory.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing at the path or it cannot be opened.
    TypeError
        If it is neither a path nor a Dataset.
    """
    findings: list[Finding] = []
    summary: dict[str, object] = {"source": _GIVEN}
    if not isinstance(dataset, xr.Dataset):
        if not isinstance(dataset, str | os.PathLike | list | tuple):
            kind = type(dataset).__name__
            raise TypeError(f"a {kind} cannot be checked: give a path or a Dataset (a DataArray: .to_dataset())")
        summary["source"] = str(dataset)
        dataset = _opened(dataset)
    if task is not None and not hasattr(task, "variables"):
        raise TypeError(f"task={task!r} is no Task: write sc.Task([...], history=..., horizon=...)")
    try:
        _look(dataset, task, splits, findings, summary)
    except Exception as error:  # whatever the data are, what was found so far is worth more than a traceback
        what = f"looking stopped at something unforeseen: {type(error).__name__}: {_short(error)}"
        findings.append(Finding("error", "unforeseen", "data", what, "Mend what else was found, and check again"))
    return _report(findings, summary)


def _look(
    dataset: xr.Dataset,
    task,
    splits: Mapping[str, slice] | None,
    findings: list[Finding],
    summary: dict[str, object],
) -> None:
    """Look at everything, from the outside in; add to the findings and the summary."""
    dataset, axes = _check_grid(dataset, findings, summary)
    if axes is None:
        return
    dataset, times = _check_times(dataset, axes, findings)
    series = _check_windows(times, axes.time, task, splits, findings, summary) if times is not None else None
    if axes.level is not None and not _levels_usable(dataset, axes.level, findings):
        return
    fields = _check_variables(dataset, axes, task, findings, summary)
    if axes.level is not None and fields:
        values = _level_values(dataset[axes.level].variable)
        summary["levels"] = {"name": axes.level, "values": [float(value) for value in values]}
    for one in fields:
        _check_units(one, findings)
        _check_dims(one, dataset, findings)
        try:
            _check_values(one, dataset, axes, series, findings, summary)
        except Exception as error:  # codecs and remote stores fail in their own ways
            findings.append(
                Finding(
                    "error",
                    "unreadable",
                    one.source,
                    f"reading it failed: {type(error).__name__}: {_short(error)}",
                    "Fetch the file or the store again: a chunk is missing or damaged",
                )
            )
        _check_layout(one, dataset, axes, series, _cache_lines(fields, task), findings, summary)
    _check_memory(fields, series, findings, summary)


def _opened(path: str | os.PathLike | Sequence[str | os.PathLike]) -> xr.Dataset:
    """Return all of what is at a path, lazily, as it is called there."""
    return store._open(path)


def _report(findings: list[Finding], summary: dict[str, object]) -> Report:
    # the same finding for many variables is one finding
    merged: dict[tuple, list[str]] = {}
    for one in findings:
        merged.setdefault((one.severity, one.code, one.what, one.fix), []).append(one.where)
    found = [Finding(key[0], key[1], _listed(dict.fromkeys(places)), *key[2:]) for key, places in merged.items()]
    return Report(tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))), summary)


# ---- grid


def _check_grid(
    dataset: xr.Dataset, findings: list[Finding], summary: dict[str, object]
) -> tuple[xr.Dataset, Axes | None]:
    """Return the Dataset with its grid mended, and its axes; None where there is no grid to go on with."""
    axes = None
    for _ in range(6):  # each fault is mended once, and there are fewer kinds
        try:
            axes = find_axes(dataset)
            break
        except Exception as error:
            finding, mended = _grid_fault(dataset, str(error))
            findings.append(finding)
            if mended is None:
                summary["variables"] = [_described(str(name), v, None) for name, v in dataset.data_vars.items()]
                return dataset, None
            dataset = mended
    if axes is None:
        return dataset, None
    empty = [name for name in (axes.latitude, axes.longitude) if dataset.sizes[name] == 0]
    if empty:
        what = "it has no values: what was selected is not in the data"
        fix = f'Select within ds["{empty[0]}"] as it is; a slice goes in the order of the file: slice(60, 40)'
        findings.append(
            Finding("error", f"no-{'latitude' if empty[0] == axes.latitude else 'longitude'}", empty[0], what, fix)
        )
        return dataset, None
    dataset = _check_radians(dataset, axes, findings)
    latitude = dataset[axes.latitude].values.astype(np.float64)
    longitude = dataset[axes.longitude].values.astype(np.float64)
    _check_spacing(latitude, longitude, axes, findings)
    inside = orient(xr.Dataset(coords={"latitude": latitude, "longitude": longitude}))["longitude"].values
    closed = closes_longitude(longitude)
    seam = _seam(longitude, inside, closed)
    if seam:
        nothing = "Nothing to do: handled inside, and a forecast comes back on the longitudes of the data"
        findings.append(Finding("note", "longitude-seam", axes.longitude, seam, nothing))
    poles = [name for name, value in (("south", latitude.min()), ("north", latitude.max())) if abs(value) > 89.99]
    summary["grid"] = {
        "latitude": {
            "name": axes.latitude,
            "size": len(latitude),
            "first": float(latitude[0]),
            "last": float(latitude[-1]),
            "spacing": _spacing(latitude),
            "descending": bool(latitude[0] > latitude[-1]),
            "rows_at_poles": poles,
        },
        "longitude": {
            "name": axes.longitude,
            "size": len(longitude),
            "first": float(longitude[0]),
            "last": float(longitude[-1]),
            "spacing": _spacing(inside),
            "global": closed,
            "across_greenwich": not closed and bool(inside.max() >= 360),
        },
    }
    return dataset, axes


def _grid_fault(dataset: xr.Dataset, message: str) -> tuple[Finding, xr.Dataset | None]:
    """Return what keeps a Dataset from having a grid, and the Dataset without that fault if it can be mended."""
    what, way_out = _split(message)
    try:
        names = _horizontal(dataset, _roles(dataset))
    except Exception:
        code = next((c for c in ("curvilinear", "unstructured", "several") if c in what), "no-grid")
        if code in ("curvilinear", "unstructured"):
            way_out = f"cdo remapbil,r144x73 in.nc regular.nc\n{way_out}"
        return Finding("error", code.replace("several", "ambiguous-axis"), "grid", what, way_out), None
    for axis, name, lowest, highest in zip(("latitude", "longitude"), names, (-90, -360), (90, 720), strict=True):
        try:
            values = dataset[name].values.astype(np.float64)
        except (TypeError, ValueError):
            what = f"it holds {dataset[name].dtype} ({dataset[name].values[0]!r}), not degrees"
            return Finding("error", f"{axis}-values", name, what, f"ds = ds.assign_coords({name}=degrees)"), None
        bad = ~((values >= lowest - 1e-3) & (values <= highest + 1e-3))
        if bad.any():
            where = int(np.argmax(bad))
            what = (
                f"{bad.sum()} of {len(values)} values are no degrees, the first at position {where}: "
                f"{values[where]:g}; {axis}s lie within {lowest}..{highest}"
            )
            if bad.mean() < 0.5:
                keep = dataset.isel({name: ~bad})
                fix = f'ds = ds.isel({name}=(abs(ds["{name}"]) <= {highest}).values)'
                return Finding("error", f"{axis}-values", name, what, fix), keep
            fix = "cdo remapbil,r144x73 in.nc regular.nc\nIf these are meters of a map projection, regrid first"
            return Finding("error", f"{axis}-values", name, what, fix), None
        steps = np.diff(values)
        if axis == "latitude" and not ((steps > 0).all() or (steps < 0).all()):
            repeats = len(np.unique(values)) < len(values)
            fix = f'ds = ds.sortby("{name}")' + (f'.drop_duplicates("{name}")' if repeats else "")
            mended = dataset.sortby(name).drop_duplicates(name)
            return Finding("error", "latitude-order", name, what, fix), mended
        if axis == "longitude" and "one meridian twice" in message:
            keep = _once(values)
            last = keep.all() or (keep[:-1].all() and not keep[-1])
            positions = [int(p) for p in np.flatnonzero(~keep)]
            fix = f"ds = ds.isel({name}=slice(0, -1))" if last else f"ds = ds.drop_isel({name}={positions})"
            return Finding("error", "longitude-repeats", name, what, fix), dataset.isel({name: keep})
    code = "ambiguous-axis" if "several dimensions" in what else "time-values" if "time" in what else "axes"
    return Finding("error", code, "coordinates", what, way_out), None


def _once(longitude: np.ndarray) -> np.ndarray:
    """Return which longitudes to keep so that each meridian, modulo 360, is there once."""
    rounded = np.round(longitude % 360, 3) % 360
    keep = np.zeros(len(longitude), dtype=bool)
    keep[np.unique(rounded, return_index=True)[1]] = True
    return keep


def _check_radians(dataset: xr.Dataset, axes: Axes, findings: list[Finding]) -> xr.Dataset:
    """Note radians and return the Dataset in degrees."""
    names = (axes.latitude, axes.longitude)
    latitude, longitude = (dataset[name].values.astype(np.float64) for name in names)
    said = any("rad" in str(dataset[name].attrs.get("units", "")).lower() for name in names)
    spacing = np.median(np.abs(np.diff(longitude))) if len(longitude) > 1 else 0
    round_the_globe = abs(spacing * len(longitude) / (2 * np.pi) - 1) < 1e-3
    within = np.abs(latitude).max() <= np.pi / 2 + 1e-3 and np.abs(longitude).max() <= 2 * np.pi + 1e-3
    if not within or not (said or round_the_globe):
        return dataset
    lat, lon = names
    what = (
        f"latitudes from {latitude[0]:.4g} to {latitude[-1]:.4g} and longitudes from {longitude[0]:.4g} to "
        f"{longitude[-1]:.4g} are radians; degrees are needed, or the globe is taken for a spot of a few degrees"
    )
    fix = f'ds = ds.assign_coords({lat}=np.rad2deg(ds["{lat}"]), {lon}=np.rad2deg(ds["{lon}"]))'
    findings.append(Finding("error", "radians", _listed(names), what, fix))
    return dataset.assign_coords(
        {name: (name, np.rad2deg(dataset[name].values), {"units": units})
         for name, units in zip(names, ("degrees_north", "degrees_east"), strict=True)}
    )  # fmt: skip


def _check_spacing(latitude: np.ndarray, longitude: np.ndarray, axes: Axes, findings: list[Finding]) -> None:
    """Note what is not evenly spaced; a Gaussian grid is nearly so."""
    inside = orient(xr.Dataset(coords={"latitude": latitude, "longitude": longitude}))
    for axis, name, tolerance in (("latitude", axes.latitude, 0.5), ("longitude", axes.longitude, 0.02)):
        steps = np.diff(inside[axis].values)
        if len(steps) < 2 or np.abs(steps / np.median(steps) - 1).max() <= tolerance:
            continue
        at = int(np.abs(steps - np.median(steps)).argmax())
        values = inside[axis].values
        what = (
            f"most neighbors are {np.median(steps):g} degrees apart, but {values[at]:g} and {values[at + 1]:g} are "
            f"{steps[at]:g}: rows or columns are missing, or the grid is stretched. The network takes all cells for "
            "equally wide"
        )
        count = round((values[-1] - values[0]) / np.median(steps)) + 1
        first, last = (latitude[0], latitude[-1]) if axis == "latitude" else (values[0], values[-1])
        fix = f"ds = ds.interp({name}=np.linspace({first:g}, {last:g}, {count}))"
        findings.append(Finding("warning", f"{axis}-uneven", name, what, fix))
    if len(longitude) < 2:
        return
    step, first, last = np.median(np.diff(inside["longitude"])), *inside["longitude"].values[[0, -1]]
    absent = round((360 - (last - first)) / step) - 1
    if 1 <= absent <= len(longitude) / 8:
        what = (
            f"{absent} columns between {last:g} and {first:g} degrees east are missing to go round the globe: it is "
            "taken for a region, with an edge there"
        )
        fix = "Fetch the missing columns: with them the network sees across the seam"
        findings.append(Finding("warning", "longitude-open", axes.longitude, what, fix))


def _seam(longitude: np.ndarray, inside: np.ndarray, closed: bool) -> str:
    """Say where the longitudes of the file begin other than inside, or nothing."""
    if closed and not np.allclose(longitude % 360, inside % 360):
        return f"global, from {longitude[0]:g} to {longitude[-1]:g}: inside it runs from 0 to under 360"
    if not closed and inside.max() >= 360 and inside.min() < 360:
        return (
            f"the region crosses Greenwich (from {inside[0] - 360:g} to {inside[-1] - 360:g} degrees east): it is "
            "kept in one piece"
        )
    if not closed and not np.allclose(longitude % 360, inside % 360):
        return f"the columns are out of order (from {longitude[0]:g} to {longitude[-1]:g}): they are sorted inside"
    return ""


def _spacing(values: np.ndarray) -> float | None:
    """Return the spacing in degrees if it is even, else None."""
    steps = np.abs(np.diff(values))
    return round(float(np.median(steps)), 6) if len(steps) and np.ptp(steps) < 1e-2 * np.median(steps) else None


# ---- time


def _check_times(dataset: xr.Dataset, axes: Axes, findings: list[Finding]) -> tuple[xr.Dataset, pd.Index | None]:
    """Return the Dataset with its times in order, each once, and these times."""
    name = axes.time
    if name is None:
        if "init_time" in dataset.dims or "lead_time" in dataset.dims:
            what = "init_time and lead_time: these are forecasts, a network is trained on a series in time"
            fix = 'ds = ds.isel(lead_time=0, drop=True).rename(init_time="time")'
            findings.append(Finding("error", "forecast", "time", what, fix))
        else:
            what = f"no dimension holds times; the dimensions are {_listed(dataset.dims)}"
            fix = 'ds = ds.assign_coords(time=xr.date_range("2000-01-01", periods=ds.sizes["time"], freq="6h"))'
            findings.append(Finding("error", "no-time", "time", what, fix))
        return dataset, None
    times = dataset.indexes.get(name)
    if not isinstance(times, pd.DatetimeIndex | xr.CFTimeIndex):
        findings.append(_no_dates(dataset, name, times))
        return dataset, None
    missing = np.asarray(times.isna())
    if missing.any():
        what = f"{missing.sum()} of {len(times)} times have no value, the first at position {missing.argmax()}"
        fix = f'ds = ds.isel({name}=ds["{name}"].notnull().values)'
        findings.append(Finding("error", "time-missing", name, what, fix))
        dataset, times = dataset.isel({name: ~missing}), times[~missing]
    if not times.is_monotonic_increasing:
        at = int(np.argmax(times[1:] < times[:-1]))
        what = f"{_when(times[at + 1])} comes after {_when(times[at])} (position {at + 1} of {len(times)})"
        findings.append(Finding("error", "time-order", name, what, f'ds = ds.sortby("{name}")'))
        dataset = dataset.isel({name: np.argsort(times, kind="stable")})
        times = dataset.indexes[name]
    if not times.is_unique:
        twice = times[times.duplicated()]
        what = f"{len(twice)} times are there more than once, the first is {_when(twice[0])}"
        findings.append(Finding("error", "time-duplicates", name, what, f'ds = ds.drop_duplicates("{name}")'))
        dataset = dataset.isel({name: ~times.duplicated()})
        times = dataset.indexes[name]
    if len(times) == 0:
        what = "the series has no times"
        findings.append(Finding("error", "too-short", name, what, "Is the period that was selected in the data?"))
        return dataset, None
    return dataset, times


def _no_dates(dataset: xr.Dataset, name: str, times: pd.Index | None) -> Finding:
    """Return what is wrong with an axis called time that holds no dates."""
    values = [] if times is None else list(times[:10_000])
    calendars = sorted({value.calendar for value in values if hasattr(value, "calendar")})
    if len(calendars) > 1:
        what = f"its times are in several calendars: {_listed(calendars)}"
        fix = 'ds = xr.concat([a.convert_calendar("standard"), b.convert_calendar("standard")], "time")'
        return Finding("error", "calendar-mixed", name, what, fix)
    what = f"it holds no dates but {dataset[name].dtype}" + (f", the first is {values[0]!r}" if values else "")
    if "units" in dataset[name].attrs:
        what += f" in {dataset[name].attrs['units']!r}: not decoded"
        return Finding("error", "time-values", name, what, "ds = xr.decode_cf(ds)")
    fix = f'ds = ds.assign_coords({name}=xr.date_range("2000-01-01", periods=ds.sizes["{name}"], freq="6h"))'
    return Finding("error", "time-values", name, what, fix)


def _check_windows(
    times: pd.Index,
    name: str,
    task,
    splits: Mapping[str, slice] | None,
    findings: list[Finding],
    summary: dict[str, object],
) -> _Series:
    """Check steps, gaps and calendar, count the windows, and return the series."""
    own = _own_step(times)
    step = task.step if task is not None else own or "6h"
    history, horizon = (task.history, task.horizon) if task is not None else (12, 12)
    calendar = times.calendar if isinstance(times, xr.CFTimeIndex) else "standard"
    gaps, times = _check_steps(times, name, own, findings) if own else (0, times)
    _check_calendar(times, name, calendar, findings)
    summary["time"] = {
        "name": name,
        "first": _when(times[0]),
        "last": _when(times[-1]),
        "count": len(times),
        "step": own,
        "calendar": calendar,
        "cftime": isinstance(times, xr.CFTimeIndex),
        "gaps": gaps,
    }
    windows = None
    try:
        windows = find_windows(times, step, history, horizon, "the data")
    except Exception as error:
        findings.append(_no_windows(times, name, step, (history, horizon), str(error)))
    counts = {"all": 0 if windows is None else len(windows)}
    counts |= _check_splits(times, name, (step, history, horizon), splits or {}, findings)
    summary["windows"] = {"history": history, "horizon": horizon, "step": step, "count": counts}
    return _Series(times, windows)


def _own_step(times: pd.Index) -> str | None:
    """Return the most common step of a series as text, or None if it has less than two times."""
    if len(times) < 2:
        return None
    common = data_step(times, "1h")
    if pd.Timedelta(days=28) <= common <= pd.Timedelta(days=366) and (times.day == times.day[0]).mean() > 0.5:
        return f"{data_step(times, '1MS')}MS"
    seconds = round(common.total_seconds())
    for size, unit in ((86400, "D"), (3600, "h"), (60, "min")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 1)}s"


def _check_steps(times: pd.Index, name: str, step: str, findings: list[Finding]) -> tuple[int, pd.Index]:
    """Note times off the beat, and gaps; return the number of gaps, and the times without jitter."""
    size = parse_step(step)
    if isinstance(size, int):
        months = np.asarray(times.year * 12 + times.month)
        ratio = np.diff(months) / size
    else:
        ratio = np.asarray((times[1:] - times[:-1]) / size, dtype=np.float64)
    off = np.abs(ratio - np.round(ratio)) > 1e-9
    off |= ratio < 0.5
    if off.any():
        at = int(off.argmax())
        between = f"from {times[at]} to {times[at + 1]}"
        if (np.abs(ratio - np.maximum(np.round(ratio), 1)) < 0.05).all():
            beat = next(u for u in ("1h", "10min", "1min", "1s") if _rounds(times, u, size) or u == "1s")
            what = (
                f"{off.sum()} of {len(ratio)} steps differ from {step} by a little, the first {between}: windows find "
                "each time by its exact value"
            )
            fix = f'ds = ds.assign_coords({name}=ds["{name}"].dt.round("{beat}"))'
            findings.append(Finding("error", "time-jitter", name, what, fix))
            return 0, times.round(beat)
        else:
            what = f"{off.sum()} of {len(ratio)} steps are no multiple of {step}, the most common, the first {between}"
            fix = f'ds = ds.resample({name}="{_coarsest(times)}").mean()'
            findings.append(Finding("warning", "time-uneven", name, what, fix))
    gaps = np.flatnonzero(~off & (np.round(ratio) > 1.5))
    if len(gaps):
        findings.append(_gaps(times, name, step, gaps, np.round(ratio)))
    return len(gaps), times


def _rounds(times: pd.Index, beat: str, step: pd.Timedelta) -> bool:
    """Whether rounding moves no time by much."""
    moved = np.asarray((times.round(beat) - times) / step, dtype=np.float64)
    return bool(np.abs(moved).max() < 0.05)


def _coarsest(times: pd.Index) -> str:
    """Return a step in whole days that holds every time step of a series."""
    return f"{max(1, int(np.ceil((times[1:] - times[:-1]).max() / pd.Timedelta(days=1))))}D"


def _gaps(times: pd.Index, name: str, step: str, gaps: np.ndarray, ratio: np.ndarray) -> Finding:
    listed = "; ".join(f"after {_when(times[at])} until {_when(times[at + 1])}" for at in gaps[:3])
    lost = int((ratio[gaps] - 1).sum())
    leap = [
        (times[at].month, times[at].day, times[at + 1].month, times[at + 1].day) == (2, 28, 3, 1)
        and times[at].year % 4 == 0
        for at in gaps
    ]
    if all(leap) and parse_step(step) <= pd.Timedelta(days=1):
        what = (
            f"no 29 February in {len(gaps)} leap years ({listed}): this looks like a model without leap days in the "
            "wrong calendar, and no window crosses the hole"
        )
        return Finding("warning", "calendar-leap", name, what, 'ds = ds.convert_calendar("noleap")')
    more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
    places = "1 place" if len(gaps) == 1 else f"{len(gaps)} places"
    what = f"{lost} times of step {step} are missing in {places}: {listed}{more}. No window crosses a gap"
    fix = (
        "Fetch the missing times. Training goes on without them; gaps of a step or two can be filled:\n"
        f'ds = ds.resample({name}="{step}").interpolate("linear")'
    )
    return Finding("warning", "time-gaps", name, what, fix)


def _check_calendar(times: pd.Index, name: str, calendar: str, findings: list[Finding]) -> None:
    if not isinstance(times, xr.CFTimeIndex):
        return
    if calendar in ("standard", "gregorian", "proleptic_gregorian") and 1700 < times[0].year < 2250:
        what = f"cftime dates in the {calendar} calendar: handled, but slower and without pandas"
        fix = 'ds = ds.convert_calendar("standard", use_cftime=False)'
    else:
        what = f"calendar {calendar}: handled; the forecast is in it too, and data to compare with must be"
        fix = "Nothing to do. To bring other data to it: other.convert_calendar(" + repr(calendar) + ")"
    findings.append(Finding("note", "calendar", name, what, fix))


def _no_windows(times: pd.Index, name: str, step: str, lengths: tuple[int, int], message: str) -> Finding:
    """Return why a series has no window, and what would give one."""
    what, way_out = _split(message)
    if "has no window" not in message:
        own = _own_step(times)
        return Finding("error", "step", name, what, f"step={own!r} in the Task is possible.\n{way_out}")
    run = _longest_run(times, step, sum(lengths) - 1)
    if run < 2:
        return Finding("error", "too-short", name, what, f"A longer series: two states {step} apart are the least")
    history = min(lengths[0], run // 2)
    fix = f"sc.Task(variables, history={history}, horizon={min(lengths[1], run - history)}, step={step!r})"
    return Finding("error", "too-short", name, f"{what}. The longest run without a gap has {run} states", fix)


def _longest_run(times: pd.Index, step: str, longest: int) -> int:
    """Return the number of states in the longest series of times one step apart, known to be at most `longest`."""
    low, high = 1, min(len(times), longest)
    while low < high:  # whether there is a window only falls with its length
        middle = (low + high + 1) // 2
        try:
            find_windows(times, step, middle, 0, "the data")
            low = middle
        except ValueError:
            high = middle - 1
    return low


def _check_splits(
    times: pd.Index,
    name: str,
    lengths: tuple[str, int, int],
    splits: Mapping[str, slice],
    findings: list[Finding],
) -> dict[str, int]:
    """Return the number of windows in each split."""
    counts, members = {}, {}
    positions = xr.DataArray(np.arange(len(times)), dims="time", coords={"time": times.rename("time")})
    for split, period in splits.items():
        counts[split] = 0
        try:
            chosen = np.atleast_1d(positions.sel(time=period).values)
            members[split] = set(chosen.tolist())
            counts[split] = len(find_windows(times[chosen], *lengths, f"split {split!r}"))
        except Exception as error:
            what, _ = _split(str(error) if isinstance(error, ValueError) else f"split {split!r}: {error}")
            fix = f"{split!r}: slice(first, last) within {_when(times[0])} to {_when(times[-1])}, and long enough"
            findings.append(Finding("error", "split", name, what, fix))
    names = list(members)
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            both = sorted(members[first] & members[second])
            if both:
                what = (
                    f"{first!r} and {second!r} share {len(both)} times, from {_when(times[both[0]])} to "
                    f"{_when(times[both[-1]])}: scores would be too good"
                )
                fix = "Give periods that do not overlap; labels such as '2015' include the whole year"
                findings.append(Finding("error", "split-overlap", name, what, fix))
    return counts


# ---- variables


def _check_variables(
    dataset: xr.Dataset, axes: Axes, task, findings: list[Finding], summary: dict[str, object]
) -> list[_Field]:
    """Return the variables to look at: those of the task, or all on the grid that have time."""
    if task is not None:
        names = list(task.variables)
        levels = task.levels
    else:
        names, levels = _usable(dataset, axes), None
        if not names:
            what = f"no variable has time, {axes.latitude} and {axes.longitude}; there are {_listed(dataset.data_vars)}"
            findings.append(Finding("error", "no-variables", "variables", what, "Check that this is the right file"))
    fields = []
    for name in names:
        found = _find_field(dataset, axes, name, levels, findings)
        if found is not None:
            fields.append(found)
    flat = not any("level" in one.data.dims for one in fields)
    if levels is not None and fields and flat and not any(one.code == "level-missing" for one in findings):
        what = f"levels={list(levels)} is asked for, but none of {_listed(names)} has levels"
        findings.append(Finding("error", "levels-unused", "levels", what, "Leave levels out of the Task"))
    _check_two_names(dataset, axes, fields, findings)
    summary["variables"] = [_described(one.source, one.data, one) for one in fields]
    others = [str(name) for name in dataset.data_vars if name not in {one.source for one in fields}]
    if others and task is None:
        summary["left_out"] = others
    scalars = [str(name) for name in dataset.coords if name not in dataset.dims]
    if scalars:
        summary["ignored_coordinates"] = scalars
    return fields


def _levels_usable(dataset: xr.Dataset, name: str, findings: list[Finding]) -> bool:
    """Note levels that are no numbers, or are there twice."""
    values = dataset[name].values
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        what = f"levels must be numbers, these are {_listed(values)}"
        fix = f"ds = ds.assign_coords({name}=[...])  # pressures in hPa"
    elif len(np.unique(values)) < len(values):
        what = f"a level is there more than once: {_listed(values)}"
        fix = f'ds = ds.drop_duplicates("{name}")'
    else:
        return True
    findings.append(Finding("error", "level-values", name, what, fix))
    return False


def _usable(dataset: xr.Dataset, axes: Axes) -> list[str]:
    needed = {axes.latitude, axes.longitude} | ({axes.time} if axes.time else set())
    return [str(name) for name, variable in dataset.data_vars.items() if needed <= set(variable.dims)]


def _find_field(
    dataset: xr.Dataset, axes: Axes, name: str, levels: Sequence[float] | None, findings: list[Finding]
) -> _Field | None:
    try:
        renamed = rename(dataset, [name])
        source, level = _resolve(dataset, name, axes)
    except Exception as error:
        what, way_out = _split(str(error))
        codes = {
            "is not in": "level-missing",
            "could be any of": "two-names",
            "lacks": "off-grid",
            "no variable": "unknown-variable",
        }
        code = next((code for words, code in codes.items() if words in str(error)), "variable")
        if code == "level-missing":
            there = [f"{value:g}" for value in _level_values(dataset[axes.level].variable)]
            way_out = f"Choose levels that are there ({', '.join(there)}), or fetch the missing one"
        if code == "unknown-variable" and "Did you mean" not in way_out:
            way_out = f"Choose from {_listed(dataset.data_vars)}"
        findings.append(Finding("error", code, name, what, way_out))
        return None
    on_levels = axes.level is not None and axes.level in dataset[source].dims
    if on_levels and level is None and levels is not None:
        present = _check_levels_there(dataset, axes, name, levels, findings)
        if present:
            renamed = rename(dataset, [name], present)
    data = renamed[name].variable
    share = 1.0
    if "level" in data.dims:
        values = tuple(float(value) for value in _level_values(renamed["level"].variable))
    elif level is not None:
        values = (float(level),)
    elif on_levels and dataset.sizes[axes.level] == 1:
        values = (float(_level_values(dataset[axes.level].variable)[0]),)
    else:
        in_name = [found[1] for text in (name, source) if (found := lookup(text)) and found[1]]
        values = (float(in_name[0]) if in_name else single_level(dataset),)
    if on_levels:
        share = _level_share(dataset, axes.level, source, values)
    meaning = _meaning(dataset, name, source)
    _check_name(name, source, meaning, findings)
    return _Field(name, source, data, values, share, meaning, axes)


def _check_levels_there(
    dataset: xr.Dataset, axes: Axes, name: str, levels: Sequence[float], findings: list[Finding]
) -> list[float]:
    """Return those of the levels that are there."""
    there = _level_values(dataset[axes.level].variable)
    present = [level for level in levels if np.abs(there - level).min() <= 1e-3]
    missing = [f"{level:g}" for level in levels if level not in present]
    if missing:
        has = ", ".join(f"{value:g}" for value in there)
        what = f"{name!r} has no level {', '.join(missing)} hPa; {axes.level!r} holds {has}"
        keep = ", ".join(f"{level:g}" for level in present)
        fix = f"levels=[{keep}] in the Task, or fetch level {', '.join(missing)}"
        findings.append(Finding("error", "level-missing", axes.level, what, fix))
    return present


def _level_share(dataset: xr.Dataset, axis: str, source: str, values: Sequence[float | None]) -> float:
    """Return how many levels are decoded for each one wanted, as the store is chunked."""
    size = _stored_chunks(dataset[source].variable).get(axis)
    if not size:
        return 1.0
    there = _level_values(dataset[axis].variable)
    wanted = [int(np.abs(there - value).argmin()) for value in values if value is not None]
    return len({at // size for at in wanted}) * size / len(wanted) if wanted else 1.0


def _meaning(dataset: xr.Dataset, name: str, source: str) -> Variable | None:
    attrs = dataset[source].attrs
    texts = (name, source, *(attrs.get(key) for key in ("standard_name", "short_name", "GRIB_shortName")))
    found = next((found for text in texts if text and (found := lookup(str(text)))), None)
    return found[0] if found else None


def _check_name(name: str, source: str, meaning: Variable | None, findings: list[Finding]) -> None:
    if meaning is not None:
        return
    known = [spelling for variable in VARIABLES for spelling in (variable.long_name, variable.short_name)]
    near = difflib.get_close_matches(str(source), known, n=1, cutoff=0.75)
    what = "no name of the vocabulary: it can be trained on, but neither its units nor its range are checked"
    fix = f'ds = ds.rename({{"{source}": "{near[0]}"}})  # if that is what it is' if near else "Nothing to do"
    findings.append(Finding("note", "unknown-name", source, what, fix))


def _check_two_names(dataset: xr.Dataset, axes: Axes, fields: list[_Field], findings: list[Finding]) -> None:
    names: dict[tuple, list[str]] = {}
    for name in _usable(dataset, axes):
        meaning = lookup(name)
        if meaning is not None:
            names.setdefault((meaning[0].short_name, meaning[1]), []).append(name)
    sources = {one.source for one in fields}
    for (short, _), same in names.items():
        used = [name for name in same if name in sources]
        if len(same) > 1 and used:
            others = [name for name in same if name != used[0]]
            what = f"{_listed(same)} are names of one quantity ({short}): training on both says everything twice"
            fix = f"ds = ds.drop_vars({others})"
            findings.append(Finding("warning", "two-names", _listed(same), what, fix))


def _described(source: str, variable, one: _Field | None) -> dict[str, object]:
    data = variable.variable if isinstance(variable, xr.DataArray) else variable
    stored = data.encoding.get("dtype")
    facts = {
        "name": source,
        "asked_as": one.name if one is not None else source,
        "dims": {str(dim): int(size) for dim, size in data.sizes.items()},
        "dtype": str(data.dtype),
        "stored_dtype": str(np.dtype(stored)) if stored is not None else None,
        "units": data.attrs.get("units"),
        "vocabulary": one.meaning.long_name if one is not None and one.meaning is not None else None,
    }
    if one is not None and one.levels != (None,):
        facts["levels"] = list(one.levels)
    return facts


def _check_dims(one: _Field, dataset: xr.Dataset, findings: list[Finding]) -> None:
    """Note dimensions that a state has not."""
    data = one.data
    if one.axes.time is None:  # said before
        return
    if "time" not in data.dims:
        what = f"it has no time ({_listed(data.dims)}): a field that never changes is no forecast"
        fix = f"Leave {one.name!r} out of Task.variables"
        findings.append(Finding("error", "no-time-dimension", one.source, what, fix))
    for dim in [dim for dim in data.dims if dim not in _DIMS]:
        attrs = dataset[dim].attrs if dim in dataset.coords else {}
        size = data.sizes[dim]
        if str(dim).lower() in _MEMBERS or attrs.get("standard_name") == "realization":
            what = f"{size} members along {dim!r}: each is a series of its own; values are looked at in the first"
            fix = f"series = [ds.isel({dim}=i) for i in range({size})]  # for sc.train(task, series, ...)"
            findings.append(Finding("note", "members", str(dim), what, fix))
        else:
            what = f"a dimension {dim!r} of size {size} beside time, level, latitude and longitude"
            fix = f"ds = ds.isel({dim}=0)  # or the mean: ds.mean({dim!r})"
            findings.append(Finding("error", "extra-dimension", one.source, what, fix))


# ---- units and values


def _check_units(one: _Field, findings: list[Finding]) -> None:
    attrs, meaning = one.data.attrs, one.meaning
    packed = [key for key in ("scale_factor", "add_offset", "_FillValue", "missing_value") if key in attrs]
    if packed:
        said = ", ".join(f"{key}={attrs[key]}" for key in packed)
        what = f"packed values that were not decoded ({said})"
        findings.append(Finding("error", "not-decoded", one.source, what, "ds = xr.decode_cf(ds)"))
    kind = one.data.dtype.kind
    if kind not in "fiu":
        what = f"it holds {one.data.dtype}, numbers are needed"
        fix = f'ds["{one.source}"] = ds["{one.source}"].astype("float32")'
        findings.append(Finding("error", "not-numbers", one.source, what, fix))
    elif kind in "iu" and not packed:
        what = f"whole numbers ({one.data.dtype}): training turns them into float32; packed values would be wrong"
        findings.append(Finding("note", "integer", one.source, what, "Nothing to do, if these are the true values"))
    elif one.data.dtype == np.float64 and np.dtype(one.data.encoding.get("dtype") or "f8") == np.float64:
        what = "float64: training uses float32, so half of what is read and kept is of no use"
        findings.append(Finding("note", "float64", one.source, what, 'ds = ds.astype("float32")'))
    units = attrs.get("units")
    if units is None:
        guess = meaning.units if meaning else "..."
        what = "no attribute `units`: nobody can tell whether other data are in the same ones"
        fix = f'ds["{one.source}"].attrs["units"] = "{guess}"  # what the values really are in'
        findings.append(Finding("warning", "units-missing", one.source, what, fix))
    elif meaning is not None and not same_units(str(units), meaning.units):
        if _conversion(meaning, str(units)) is None:
            what = f"units {units!r} cannot be those of {meaning.long_name}, which is in {meaning.units!r}"
            fix = f'ds["{one.source}"].attrs["units"] = "{meaning.units}"  # if the values are'
            findings.append(Finding("error", "units-wrong", one.source, what, fix))
        else:
            what = f"units {units!r}, WeatherBench has {meaning.units!r}: kept as they are, also in the forecast"
            factor, offset = _conversion(meaning, str(units))
            formula = f'ds["{one.source}"]' + (f" * {factor:.10g}" if factor != 1 else "")
            formula += f" + {offset:g}" if offset else ""
            fix = f"Nothing to do. To compare with others:\n{formula}"
            findings.append(Finding("note", "units-other", one.source, what, fix))


def _conversion(meaning: Variable, units: str | None) -> tuple[float, float] | None:
    """Return factor and offset from `units` to those of the vocabulary; None if there are none."""
    if units is None or same_units(units, meaning.units):
        return 1.0, 0.0
    for other, factor, offset in _CONVERSIONS.get(meaning.units, ()):
        if same_units(units, other):
            return factor, offset
    return None


@dataclass(frozen=True, eq=False)
class _Sample:
    """States of one variable: (state, level, latitude, longitude); their positions among all times; the grid."""

    values: np.ndarray
    positions: np.ndarray
    times: pd.Index
    latitude: np.ndarray
    longitude: np.ndarray

    def when(self, state: int) -> str:
        return _when(self.times[self.positions[state]])

    def cell(self, row: int, column: int) -> str:
        return f"latitude {self.latitude[row]:g}, longitude {self.longitude[column]:g}"


def _check_values(
    one: _Field,
    dataset: xr.Dataset,
    axes: Axes,
    series: _Series | None,
    findings: list[Finding],
    summary: dict[str, object],
) -> None:
    """Look at a sample of the values."""
    codes = {finding.code for finding in findings if finding.where == one.source}
    if series is None or "time" not in one.data.dims or one.data.dtype.kind not in "fiu" or "not-decoded" in codes:
        return
    positions = _positions(one, len(series.times))
    if not len(positions):
        what = f"one chunk holds {_bytes(_chunk_bytes(one))}: its values were not looked at"
        findings.append(Finding("note", "not-sampled", one.source, what, "Nothing to do, but look yourself"))
        return
    latitude, longitude = dataset[axes.latitude].values, dataset[axes.longitude].values
    sample = _Sample(_read(one, positions), positions, series.times, latitude, longitude)
    sample = _check_fills(one, sample, findings)
    _check_infinite(one, sample, findings)
    missing = np.isnan(sample.values)
    summary.setdefault("missing", {})[one.source] = float(missing.mean())
    summary["sampled"] = max(len(positions), int(summary.get("sampled", 0)))
    live = _check_missing(one, sample, series.used[positions], findings)
    # what is dead has been said, its values tell nothing more
    sample = replace(sample, values=_check_variation(one, sample, live, findings))
    _check_range(one, sample, findings)


def _positions(one: _Field, count: int) -> np.ndarray:
    """Return the positions in time to look at: whole chunks within the budget, spread over the series."""
    length = max(1, min(_time_chunk(one), count))
    cost = _chunk_bytes(one) * one.level_share
    if cost > _LARGEST_CHUNK:
        return np.empty(0, dtype=int)
    rows = -(-count // length)
    wanted = int(np.clip(_BUDGET // max(cost, 1), 2, _STATES))
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, wanted)).round().astype(int))
    per_row = max(2, min(_PER_CHUNK if len(chosen) > 1 else _STATES, _STATES // len(chosen)))
    positions = {0, count - 1}
    if length > 1 or wanted > 8:  # where they cost little
        positions |= {1, count - 2}
    for row in chosen:
        first, last = row * length, min((row + 1) * length, count) - 1
        positions |= set(np.linspace(first, last, per_row).round().astype(int).tolist())
    return np.array(sorted(p for p in positions if 0 <= p < count), dtype=int)


def _chunk_bytes(one: _Field) -> int:
    """Return the decoded bytes of all that is read for one chunk in time (one state, if there are no chunks)."""
    area = np.prod([size for dim, size in one.data.sizes.items() if dim in _DIMS and dim != "time"])
    return int(area) * one.data.dtype.itemsize * _time_chunk(one)


def _time_chunk(one: _Field) -> int:
    """Return how many times are read at once; dask passes a selection on to a store, but not to a computation."""
    stored = _stored_chunks(one.data).get("time") or (1 if one.data.encoding.get("contiguous") else None)
    if stored is None and one.data.chunks is not None:
        stored = max(one.data.chunksizes["time"])
    return int(stored or 1)


def _read(one: _Field, positions: np.ndarray) -> np.ndarray:
    """Return states of a field: (state, level, latitude, longitude)."""
    extra = {dim: 0 for dim in one.data.dims if dim not in _DIMS}
    data = one.data.isel(extra)
    length, parts = _time_chunk(one), []
    for row in np.unique(positions // length):  # one read for each chunk
        inside = positions[positions // length == row]
        block = data.isel(time=slice(int(inside[0]), int(inside[-1]) + 1)).load()
        block = block.transpose("time", ..., "latitude", "longitude")
        parts.append(block.values[inside - inside[0]])
    values = np.concatenate(parts)
    return values.reshape(len(positions), -1, *values.shape[-2:]).astype(np.result_type(values, np.float32), copy=False)


def _check_fills(one: _Field, sample: _Sample, findings: list[Finding]) -> _Sample:
    """Note numbers that stand for no value, and return the sample without them."""
    values, found = sample.values, []
    for _ in range(4):
        finite = np.isfinite(values)
        if not finite.any():
            break
        lowest, highest = values.min(where=finite, initial=np.inf), values.max(where=finite, initial=-np.inf)
        for extreme in (highest, lowest):
            fill = next((fill for fill in _FILLS if np.isclose(extreme, fill, rtol=1e-5, atol=0)), None)
            if fill is None:
                continue
            is_fill = values == extreme
            rest = values[finite & ~is_fill]
            far = not rest.size or min(abs(extreme - rest.min()), abs(extreme - rest.max())) > np.ptp(rest)
            if far and not _plausible(one, float(extreme)):
                found.append((float(extreme), int(is_fill.sum())))
                values = np.where(is_fill, np.nan, values)
                break
        else:
            break
    if found:
        said = ", ".join(f"{value:.7g} ({100 * count / values.size:.2g} % of the values)" for value, count in found)
        what = f"{said}: a fill value that was not decoded is taken for data"
        fix = "\n".join(f'ds["{one.source}"] = ds["{one.source}"].where({_but(one, value)})' for value, _ in found)
        findings.append(Finding("error", "fill-values", one.source, what, fix))
    return replace(sample, values=values)


def _but(one: _Field, fill: float) -> str:
    """Return the condition that a value is not the fill value, safe against rounding."""
    if abs(fill) < 1e7 and fill == int(fill):
        return f'ds["{one.source}"] != {int(fill)}'
    return f'abs(ds["{one.source}"]) < {abs(fill) * 0.99:.3g}'


def _plausible(one: _Field, value: float) -> bool:
    conversion = _conversion(one.meaning, one.data.attrs.get("units")) if one.meaning else None
    if conversion is None:
        return False
    lowest, highest = one.meaning.valid_range
    return lowest <= value * conversion[0] + conversion[1] <= highest


def _check_infinite(one: _Field, sample: _Sample, findings: list[Finding]) -> None:
    wrong = np.isinf(sample.values)
    if wrong.any():
        state, _, row, column = np.argwhere(wrong)[0]
        what = (
            f"{wrong.sum()} infinite values in the sample, the first at {sample.when(state)}, "
            f"{sample.cell(row, column)}"
        )
        fix = f'ds["{one.source}"] = ds["{one.source}"].where(np.isfinite(ds["{one.source}"]))'
        findings.append(Finding("error", "infinite", one.source, what, fix))


def _check_missing(one: _Field, sample: _Sample, used: np.ndarray, findings: list[Finding]) -> np.ndarray:
    """Note masks and values missing now and then; return which levels have values."""
    missing = np.isnan(sample.values)
    live = ~missing.all(axis=(0, 2, 3))
    if not live.any():
        what = f"no value at any of {len(used)} times looked at"
        findings.append(Finding("error", "all-missing", one.source, what, f"Leave {one.name!r} out of the Task"))
        return live
    if not live.all():
        dead = [one.levels[at] for at in np.flatnonzero(~live)]
        findings.append(_dead_levels(one, dead, "no values"))
    missing = missing[:, live] & used[:, None, None, None]
    empty = missing.all(axis=(2, 3)).any(axis=1)
    if empty.any():
        what = (
            f"all cells are missing at {empty.sum()} of {len(used)} times looked at, the first is "
            f"{sample.when(int(empty.argmax()))}"
        )
        findings.append(
            Finding(
                "error",
                "nan-times",
                one.source,
                what,
                f'ds = ds.dropna("{one.axes.time}", how="all", subset=["{one.source}"])  # windows skip the gap',
            )
        )
    rest = np.isnan(sample.values)[:, live][used & ~empty]
    if not len(rest):
        return live
    mask = rest.all(axis=0)
    moving = rest.any(axis=0) & ~mask
    if moving.any():
        level, row, column = np.argwhere(moving)[0]
        states = np.flatnonzero(used & ~empty)
        at = states[int(rest[:, level, row, column].argmax())]
        there = states[int((~rest[:, level, row, column]).argmax())]
        value = sample.values[there][live][level, row, column]
        what = (
            f"{moving.any(axis=0).sum()} cells are missing at some times only; the first, "
            f"{sample.cell(row, column)}, at {sample.when(at)}, but is {value:g} at {sample.when(there)}"
        )
        name = f'ds["{one.source}"]'
        fix = (
            "Fill them, or mask these cells at all times:\n"
            f'{name} = {name}.where({name}.notnull().all("{one.axes.time}"))'
        )
        findings.append(Finding("error", "nan-moving", one.source, what, fix))
    if mask.any():
        what = (
            f"the same {100 * mask.mean():.1f} % of the cells are missing at all {len(rest)} times looked at: a mask "
            "(land, ice, below ground)"
        )
        fix = "Nothing to do: they are kept out of statistics, loss and scores"
        findings.append(Finding("note", "mask", one.source, what, fix))
        _check_poles(one, mask.all(axis=0), sample.latitude, findings)
    return live


def _check_poles(one: _Field, mask: np.ndarray, latitude: np.ndarray, findings: list[Finding]) -> None:
    """Note rows at a pole that are missing while their neighbors are not: left so by regridding."""
    rows = mask.all(axis=1)
    for row, neighbor in ((0, 1), (-1, -2)):
        if len(rows) > 2 and rows[row] and not rows[neighbor] and abs(latitude[row]) > 89.99:
            cut = "slice(1, None)" if row == 0 else "slice(0, -1)"
            what = f"the row at {latitude[row]:g} degrees has no values, the row at {latitude[neighbor]:g} has"
            fix = f"ds = ds.isel({one.axes.latitude}={cut})"
            findings.append(Finding("warning", "masked-poles", one.source, what, fix))


def _check_range(one: _Field, sample: _Sample, findings: list[Finding]) -> None:
    """Note values that cannot be in the units they are said to be in."""
    meaning, units = one.meaning, one.data.attrs.get("units")
    conversion = _conversion(meaning, units) if meaning else None
    finite = np.isfinite(sample.values)
    if conversion is None or not finite.any():
        return
    lowest, highest = meaning.valid_range
    extremes = np.array([np.min(sample.values[finite]), np.max(sample.values[finite])])
    if _fits(meaning, one.levels, sample.values, extremes, conversion):
        return
    stated = meaning.units if units is None else units
    candidates = [(meaning.units, 1, 0), *_CONVERSIONS.get(meaning.units, ())]
    fitting = [
        other
        for other, factor, offset in candidates
        if not same_units(other, stated) and _fits(meaning, one.levels, sample.values, extremes, (factor, offset))
    ]
    values = f"values from {extremes[0]:.4g} to {extremes[1]:.4g}"
    bounds = (np.array([lowest, highest]) - conversion[1]) / conversion[0]
    if fitting:
        _drop(findings, one.source, "units-other", "units-missing")
        fix = f'ds["{one.source}"].attrs["units"] = "{fitting[0]}"'
        if units is None:
            what = f"no attribute `units`; {values} can be {meaning.long_name} in {fitting[0]!r}"
            findings.append(Finding("warning", "units-missing", one.source, what, fix))
        else:
            what = (
                f"{values} are said to be in {stated!r}, but such values of {meaning.long_name} are in {fitting[0]!r}"
            )
            findings.append(Finding("error", "units-mislabeled", one.source, what, fix))
        return
    state, level, row, column = np.unravel_index(
        int(np.argmax(np.where(finite, np.abs(sample.values - bounds.mean()), -1))), sample.values.shape
    )
    what = (
        f"{values} {stated}; {meaning.long_name} lies within {bounds[0]:.4g} to {bounds[1]:.4g}. The worst, "
        f"{sample.values[state, level, row, column]:.4g}, is at {sample.when(state)}, {sample.cell(row, column)}"
    )
    fix = (
        "See whether units, scale_factor or the variable are wrong, or take out what cannot be:\n"
        f'ds["{one.source}"] = ds["{one.source}"].clip({bounds[0]:.6g}, {bounds[1]:.6g})'
    )
    beyond = max(bounds[0] - extremes[0], extremes[1] - bounds[1]) / np.ptp(bounds)
    severity = "error" if beyond > 0.2 else "warning"  # the ranges are wide, not laws
    findings.append(Finding(severity, "range", one.source, what, fix))


def _drop(findings: list[Finding], where: str, *codes: str) -> None:
    """Take back what was said of a variable before more was known."""
    findings[:] = [one for one in findings if one.where != where or one.code not in codes]


def _fits(
    meaning: Variable,
    levels: Sequence[float | None],
    values: np.ndarray,
    extremes: np.ndarray,
    conversion: tuple[float, float],
) -> bool:
    """Whether values would be plausible, converted; geopotential also by its mean on each level."""
    factor, offset = conversion
    lowest, highest = meaning.valid_range
    low, high = extremes * factor + offset
    if not (low >= lowest and high <= highest):
        return False
    if meaning.short_name != "z":
        return True
    for at, level in enumerate(levels):
        if level is None or not 50 <= level <= 850:  # near the ground the mean says little
            continue
        # height in the standard atmosphere to within the tropopause, and well within a factor of 2 above
        expected = 9.80665 * 44330.8 * (1 - (level / 1013.25) ** 0.190263)
        mean = np.nanmean(values[:, at]) if np.isfinite(values[:, at]).any() else expected
        if not 0.5 < (mean * factor + offset) / expected < 2:
            return False
    return True


def _check_variation(one: _Field, sample: _Sample, live: np.ndarray, findings: list[Finding]) -> np.ndarray:
    """Note fields, levels and times at which nothing changes; return the values without these."""
    values = np.where(np.isfinite(sample.values), sample.values, np.nan)
    live = np.flatnonzero(live & np.isfinite(values).any(axis=(0, 2, 3)))
    if not len(live):
        return values
    highest, lowest = np.nanmax(values[:, live], axis=(0, 2, 3)), np.nanmin(values[:, live], axis=(0, 2, 3))
    flat = highest - lowest <= 1e-6 * np.abs(highest)
    count = len(sample.positions)
    may_be_zero = one.meaning is not None and one.meaning.short_name in _MAY_BE_ZERO
    if flat.all() and len(set(highest.tolist())) == 1:
        severity = "warning" if may_be_zero and not highest[0] else "error"
        what = f"it is {highest[0]:g} in all cells at all {count} times looked at: there is nothing to learn"
        fix = f'ds = ds.drop_vars("{one.source}")  # and out of Task.variables'
        findings.append(Finding(severity, "constant", one.source, what, fix))
        return np.full_like(values, np.nan)
    if flat.any():
        levels = [one.levels[at] for at in live[flat]]
        findings.append(_dead_levels(one, levels, f"the same value ({highest[flat][0]:g}) everywhere"))
        values[:, live[flat]] = np.nan
    changing = values[:, live[~flat]]
    if changing.shape[1] and count > 1:
        _check_standstill(one, sample, changing, findings)
        values[_check_blanks(one, sample, changing, may_be_zero, findings)] = np.nan
    return values


def _dead_levels(one: _Field, levels: list[float | None], what: str) -> Finding:
    named = ", ".join(f"{level:g}" for level in levels)
    keep = ", ".join(f"{level:g}" for level in one.levels if level not in levels)
    return Finding(
        "error",
        "dead-level",
        one.source,
        f"level {named} has {what} at all times looked at",
        f"levels=[{keep}] in the Task, or ds = ds.sel({one.axes.level}=[{keep}])",
    )


def _check_standstill(one: _Field, sample: _Sample, values: np.ndarray, findings: list[Finding]) -> None:
    """Note states that repeat the one before."""
    # a spatially flat state may come back by itself (no rain): that is for _check_blanks
    patterned = ~_is_flat(values).all(axis=1)
    same = np.array([_equal(values[k], values[k + 1]) and patterned[k] for k in range(len(values) - 1)])
    if not same.any():
        return
    if same.all():
        what = f"it never changes in time (the same at all {len(values)} times looked at)"
        fix = f"Leave {one.name!r} out of Task.variables: it is a static field"
        findings.append(Finding("error", "static", one.source, what, fix))
        return
    name = one.axes.time
    if same[-1]:
        start = len(same) - int(np.argmin(same[::-1]))  # first sampled state of the run that lasts to the end
        since = _first_standing(one, sample, start)
        what = (
            f"it stands still from {_when(since)} to the end, {sample.when(-1)} (the same at all "
            f"{len(values) - start} times looked at)"
        )
        fix = f'ds = ds.sel({name}=slice(None, "{_when(since)}"))'
        findings.append(Finding("error", "stuck", one.source, what, fix))
        return
    at = int(same.argmax())
    what = (
        f"{same.sum()} of {len(same)} pairs of times looked at hold the same state, the first "
        f"{sample.when(at)} and {sample.when(at + 1)}: values were repeated to fill a gap, or stand still"
    )
    fix = f'ds = ds.where(ds["{name}"] != np.datetime64("{sample.when(at + 1)}"), drop=True)  # and the others'
    findings.append(Finding("warning", "repeated", one.source, what, fix))


def _first_standing(one: _Field, sample: _Sample, start: int):
    """Return the first time from which a field stands still, at or before a sampled state, in at most 12 reads."""
    last = _read(one, sample.positions[-1:])
    moving, standing = int(sample.positions[start - 1]), int(sample.positions[start])
    for _ in range(12):
        if standing - moving < 2:
            break
        middle = (moving + standing) // 2
        if _equal(_read(one, np.array([middle])), last):
            standing = middle
        else:
            moving = middle
    return sample.times[standing]


def _check_blanks(
    one: _Field, sample: _Sample, values: np.ndarray, may_be_zero: bool, findings: list[Finding]
) -> np.ndarray:
    """Note states that have one value in all cells, between others that have not; return which."""
    flat = _is_flat(values) & ~np.isnan(values).all(axis=(2, 3))
    blank = flat.any(axis=1)
    if not blank.any() or blank.all():
        return np.zeros_like(blank)
    at = int(blank.argmax())
    value = float(np.nanmax(values[at, int(flat[at].argmax())]))
    if value == 0 and (may_be_zero or one.meaning is None):
        return np.zeros_like(blank)
    what = f"all cells are {value:g} at {blank.sum()} of {len(blank)} times looked at, the first is {sample.when(at)}"
    name = f'ds["{one.source}"]'
    fix = (
        f'ds = ds.isel({one.axes.time}=({name}.std(["{one.axes.latitude}", "{one.axes.longitude}"]) > 0).values)'
        "  # windows skip the gap"
    )
    findings.append(Finding("error", "blank-times", one.source, what, fix))
    return blank


def _is_flat(values: np.ndarray) -> np.ndarray:
    """Return which states (state, level) have one value in all cells that have any, or none."""
    highest = np.max(values, axis=(2, 3), where=~np.isnan(values), initial=-np.inf)
    lowest = np.min(values, axis=(2, 3), where=~np.isnan(values), initial=np.inf)
    return highest <= lowest


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=True)


# ---- layout, cost, memory


def _stored_chunks(variable: xr.Variable) -> dict[str, int]:
    """Return the chunk sizes of the store by dimension, empty where there are none or they are not known.

    A variable out of `rename` has other dimension names than its store, and maybe no level: sizes go by
    position where the names do not fit.
    """
    chunks = {str(dim): size for dim, size in (variable.encoding.get("preferred_chunks") or {}).items()}
    if not all(isinstance(size, int | np.integer) for size in chunks.values()):
        return {}
    if not chunks and variable.encoding.get("chunksizes"):
        return dict(zip(variable.dims, map(int, variable.encoding["chunksizes"]), strict=False))
    if set(variable.dims) <= set(chunks):
        return chunks
    if len(chunks) == variable.ndim + 1:  # one dimension was selected from
        vertical = [dim for dim in chunks if dim.lower().startswith(("lev", "plev", "pres", "isobaric"))]
        dropped = vertical[0] if vertical else None
        sizes = [size for dim, size in chunks.items() if dim != dropped]
        if dropped is None:
            return {}
        return dict(zip(variable.dims, sizes, strict=True)) | {dropped: chunks[dropped]}
    return dict(zip(variable.dims, chunks.values(), strict=True)) if len(chunks) == variable.ndim else {}


def _check_layout(
    one: _Field,
    dataset: xr.Dataset,
    axes: Axes,
    series: _Series | None,
    cache: str,
    findings: list[Finding],
    summary: dict[str, object],
) -> None:
    """Note a chunk layout that costs, and what reading one window and one epoch takes."""
    raw = dataset.variables[one.source]
    chunks = _stored_chunks(raw)
    facts: dict[str, object] = {"stored": chunks or None}
    if shards := raw.encoding.get("shards"):
        facts["shards"] = [int(size) for size in shards]
    if raw.chunks is not None:
        facts["dask"] = {str(dim): int(max(sizes)) for dim, sizes in raw.chunksizes.items()}
        _check_dask(one, raw, chunks, findings)
    summary.setdefault("layout", {})[one.source] = facts
    if not chunks or series is None or series.windows is None or "time" not in one.data.dims:
        return
    itemsize = np.dtype(raw.encoding.get("dtype") or raw.dtype).itemsize
    length = chunks.get(axes.time, 1)
    some = series.windows[:: max(1, len(series.windows) // 500)]
    touched = float(np.mean([len(np.unique(window // length)) for window in some]))
    area = {dim: chunks.get(dim, 1) for dim in (axes.latitude, axes.longitude)}
    space = np.prod([-(-raw.sizes[dim] // size) * size / raw.sizes[dim] for dim, size in area.items()])
    level = _levels_per_level(one, raw, chunks, axes)
    used = np.flatnonzero(series.used)
    rows = len(np.unique(used // length)) * length
    chunk = int(np.prod(list(chunks.values()))) * itemsize
    levels = one.data.sizes.get("level", 1)
    cells = raw.sizes[axes.latitude] * raw.sizes[axes.longitude]
    state = cells * levels * itemsize
    per_window = touched * np.prod([-(-raw.sizes[dim] // size) for dim, size in area.items()])
    per_window *= max(1.0, levels * level / chunks.get(axes.level, levels * level))
    facts |= {
        "chunk_bytes": chunk,
        "levels_decoded_per_level": float(level),
        "window_amplification": float(touched * length / series.windows.shape[1] * space * level),
        "epoch_amplification": float(rows / len(used) * space * level),
        "epoch_bytes": int(rows * space * level * state),
        "chunks_per_window": float(per_window),
    }
    _check_chunks(one, raw, chunks, facts, cache, findings)


def _levels_per_level(one: _Field, raw: xr.Variable, chunks: dict[str, int], axes: Axes) -> float:
    """Return how many levels are decoded for each one wanted."""
    if axes.level in raw.dims:
        return one.level_share
    # a level was selected from the file before: its size in the chunk is still known
    return float(np.prod([size for dim, size in chunks.items() if dim not in raw.dims] or [1]))


def _check_chunks(
    one: _Field,
    raw: xr.Variable,
    chunks: dict[str, int],
    facts: dict[str, object],
    cache: str,
    findings: list[Finding],
) -> None:
    epoch, factor, share = facts["epoch_bytes"], facts["epoch_amplification"], facts["levels_decoded_per_level"]
    felt = "warning" if epoch > _MATTERS else "note"
    if share >= 2:
        wanted = one.data.sizes.get("level", 1)
        what = (
            f"chunks hold {share * wanted:g} levels and {wanted} {'is' if wanted == 1 else 'are'} wanted: an epoch "
            f"decodes {_bytes(epoch)} for {_bytes(epoch / factor)}, {factor:.3g} times its size"
        )
        if epoch > _MATTERS:
            what += ". A copy of what is wanted costs one such pass and pays from the second epoch on"
        findings.append(Finding(felt, "chunk-levels", one.source, what, cache))
    elif factor >= 2:
        what = (
            f"chunks of {_sizes(chunks)} hold {factor:.3g} times what is wanted of them: an epoch decodes "
            f"{_bytes(epoch)} for {_bytes(epoch / factor)}"
        )
        findings.append(Finding(felt, "chunk-space", one.source, what, cache))
    size = facts["chunk_bytes"]
    if size > _HUGE:
        what = f"chunks of {_sizes(chunks)} are {_bytes(size)} decoded each: a single state costs one of them in memory"
        findings.append(Finding("warning", "chunk-huge", one.source, what, cache))
    count = np.prod([-(-raw.sizes[dim] // chunks.get(dim, 1)) for dim in raw.dims])
    if size < _TINY and facts["chunks_per_window"] >= 8 and count >= 1000:
        what = (
            f"{count:,.0f} chunks of {_sizes(chunks)}, {_bytes(size)} each: a window takes "
            f"{facts['chunks_per_window']:.0f} of them, and opening each costs more than decoding it"
        )
        findings.append(Finding("warning", "chunk-tiny", one.source, what, cache))


def _cache_lines(fields: list[_Field], task) -> str:
    """Return the code that writes what is wanted once, in a layout that reads fast."""
    names = json.dumps([one.name for one in fields])
    levels = "" if task is None or task.levels is None else f", {[float(level) for level in task.levels]}"
    return (
        f'sc.cache(sc.open_dataset(ds, {names}{levels}), "cache.zarr")\n'
        f'ds = sc.open_dataset("cache.zarr", {names}{levels})'
    )


def _check_dask(one: _Field, raw: xr.Variable, stored: dict[str, int], findings: list[Finding]) -> None:
    """Note dask chunks that cut stored chunks, or are too many."""
    in_zarr = "chunks" in raw.encoding  # files joined end in the middle of a chunk, and nothing is cut by that
    for dim, sizes in raw.chunksizes.items():
        size = stored.get(str(dim), 0)
        edges = np.cumsum(sizes)[:-1]
        cut = edges[edges % size != 0] if in_zarr and size else []
        if len(cut):
            what = (
                f"dask chunks of {_listed(dict.fromkeys(sizes[:4]))} along {dim!r} cut the stored chunks of {size}: "
                f"{len(cut)} of these are read twice"
            )
            fix = f"ds = ds.chunk({{{str(dim)!r}: {size}}})  # or open without dask: xr.open_zarr(path, chunks=None)"
            findings.append(Finding("warning", "dask-chunks", one.source, what, fix))
            return
    count = np.prod([len(sizes) for sizes in raw.chunks])
    typical = raw.nbytes / count
    if typical < _TINY and count >= 1000:
        what = f"{count:,.0f} dask chunks of {_bytes(typical)}: dask spends about 1 ms on each, reading or not"
        fix = "Open without dask: xr.open_zarr(path, chunks=None), xr.open_dataset(path)"
        findings.append(Finding("warning", "dask-chunks", one.source, what, fix))


def _check_memory(
    fields: list[_Field], series: _Series | None, findings: list[Finding], summary: dict[str, object]
) -> None:
    """Compare the memory that the states need with what is free."""
    needed = sum(4 * one.data.size for one in fields if "time" in one.data.dims)
    free = _free_memory()
    summary["memory"] = {"states_bytes": int(needed), "free_bytes": free}
    if free is None or needed <= 0.8 * free:
        return
    what = f"all states are {_bytes(needed)} as float32, {_bytes(free)} of memory are free: they do not fit at once"
    share = 0.5 * free / needed
    fix = "Fewer variables, levels or years"
    if series is not None and len(series.times) * share >= 2:
        name = fields[0].axes.time
        first = _when(series.times[int(len(series.times) * (1 - share))])
        fix += f', as ds = ds.sel({name}=slice("{first}", None)),'
    fix += '\nor a coarser grid: ds = sc.regrid(ds, "5.625deg")'
    findings.append(Finding("warning", "memory", "all variables", what, fix))


def _free_memory() -> int | None:
    """Return the bytes of memory free for use, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


# ---- words


def _split(message: str) -> tuple[str, str]:
    """Return a message of this package as what is wrong and the way out, its last sentence."""
    what, dot, way_out = message.rpartition(". ")
    if not dot:  # a line of code after a colon is one as well
        what, _, way_out = message.rpartition(", ")
        if "ds." not in way_out:
            return message.rstrip("."), "See above"
    return what.rstrip("."), way_out


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _listed(names) -> str:
    names = [str(name) for name in names] if not isinstance(names, str) else [names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _when(time) -> str:
    text = str(time)[:16]
    return text.removesuffix(" 00:00")


def _sizes(chunks: Mapping[str, int]) -> str:
    return " x ".join(f"{size} {dim}" for dim, size in chunks.items())


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _facts(summary: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """Return the facts as lines under headings."""
    writers = (
        ("variables", _variables_words),
        ("left out", lambda s: [f"{_listed(s['left_out'])} (no time, or not on the grid)"] if "left_out" in s else []),
        ("not used", lambda s: [_listed(s["ignored_coordinates"])] if "ignored_coordinates" in s else []),
        ("grid", _grid_words),
        ("levels", _level_words),
        ("time", _time_words),
        ("missing", _missing_words),
        ("layout", _layout_words),
        ("memory", _memory_words),
        ("windows", _window_words),
    )
    facts = [("data", [str(summary["source"])])] if "source" in summary else []
    return facts + [(topic, lines) for topic, write in writers if (lines := write(summary))]


def _variables_words(summary: Mapping[str, object]) -> list[str]:
    lines = []
    for one in summary.get("variables", []):
        name = one["name"] if one["asked_as"] == one["name"] else f"{one['asked_as']} (in the file: {one['name']})"
        dtype = one["dtype"]
        if one["stored_dtype"] not in (None, dtype):
            dtype += f" stored as {one['stored_dtype']}"
        size = " x ".join(f"{size} {dim}" for dim, size in one["dims"].items())
        units = one["units"] if one["units"] is not None else "no units"
        known = one["vocabulary"] or "not in the vocabulary"
        if one.get("levels"):
            known += " at " + ", ".join(f"{level:g}" for level in one["levels"] if level is not None) + " hPa"
        lines.append(f"{name}: {size}; {dtype}; {units}; {known}")
    return lines


def _grid_words(summary: Mapping[str, object]) -> list[str]:
    if "grid" not in summary:
        return []
    latitude, longitude = summary["grid"]["latitude"], summary["grid"]["longitude"]
    poles = latitude["rows_at_poles"]
    rows = (
        f"{latitude['name']}: {latitude['size']} rows from {latitude['first']:g} to {latitude['last']:g} "
        f"({'descending' if latitude['descending'] else 'ascending'}), {_every(latitude['spacing'])}; "
        f"{'rows at the ' + ' and '.join(poles) + ' pole' if poles else 'no row at a pole'}"
    )
    kind = "global" if longitude["global"] else "regional"
    kind += ", across Greenwich" if longitude["across_greenwich"] else ""
    columns = (
        f"{longitude['name']}: {longitude['size']} columns from {longitude['first']:g} to {longitude['last']:g}, "
        f"{_every(longitude['spacing'])}; {kind}"
    )
    lines = [rows, columns]
    if latitude["size"] % 4 or longitude["size"] % 4:
        lines.append(f"{latitude['size']} x {longitude['size']} cells: padded inside the network, and cut again")
    return lines


def _every(spacing: float | None) -> str:
    return f"every {spacing:g} degrees" if spacing else "unevenly spaced"


def _level_words(summary: Mapping[str, object]) -> list[str]:
    if "levels" not in summary:
        return []
    values = ", ".join(f"{value:g}" for value in summary["levels"]["values"])
    return [f"{summary['levels']['name']}: {values}"]


def _time_words(summary: Mapping[str, object]) -> list[str]:
    if "time" not in summary:
        return []
    time = summary["time"]
    calendar = f"{time['calendar']} calendar" + (" (cftime)" if time["cftime"] else "")
    gaps = {0: "no gaps", 1: "1 gap"}.get(time["gaps"], f"{time['gaps']} gaps")
    return [
        f"{time['name']}: {time['count']} times from {time['first']} to {time['last']}, step {time['step']}; "
        f"{calendar}; {gaps}"
    ]


def _missing_words(summary: Mapping[str, object]) -> list[str]:
    shares = summary.get("missing", {})
    some = [f"{name} {100 * share:.3g} %" for name, share in shares.items() if share]
    if not shares:
        return []
    return [f"{', '.join(some) or 'no value'} (at {summary['sampled']} times looked at)"]


def _layout_words(summary: Mapping[str, object]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for name, one in summary.get("layout", {}).items():
        words = f"chunks {_sizes(one['stored'])}" if one["stored"] else "no chunks known"
        if "shards" in one:
            words += f" in shards of {' x '.join(map(str, one['shards']))}"
        if "dask" in one:
            words += f"; dask chunks {_sizes(one['dask'])}"
        if "chunk_bytes" in one:
            words += (
                f" ({_bytes(one['chunk_bytes'])}); one window decodes {one['window_amplification']:.3g} x its size, "
                f"an epoch in order {one['epoch_amplification']:.3g} x the data ({_bytes(one['epoch_bytes'])})"
            )
        lines.setdefault(words, []).append(name)
    return [f"{_listed(names)}: {words}" for words, names in lines.items()]


def _memory_words(summary: Mapping[str, object]) -> list[str]:
    if "memory" not in summary:
        return []
    memory = summary["memory"]
    free = "" if memory["free_bytes"] is None else f"; {_bytes(memory['free_bytes'])} are free"
    return [f"all states take {_bytes(memory['states_bytes'])} as float32{free}"]


def _window_words(summary: Mapping[str, object]) -> list[str]:
    if "windows" not in summary:
        return []
    windows = summary["windows"]
    lengths = f"{windows['history']} states in and {windows['horizon']} out, {windows['step']} apart"
    splits = [f"{name} {count}" for name, count in windows["count"].items() if name != "all"]
    return [f"{windows['count']['all']} of {lengths}" + (f"; by split: {', '.join(splits)}" if splits else "")]


def _headline(report: Report) -> str:
    counts = [sum(one.severity == severity for one in report.findings) for severity in SEVERITIES]
    words = [f"{n} {severity}{'' if n == 1 else 's'}" for n, severity in zip(counts, SEVERITIES, strict=True) if n]
    return ", ".join(words) or "nothing found"


_WIDTH = 100


def _as_text(report: Report) -> str:
    lines = [f"check: {_headline(report)}", ""]
    for topic, texts in _facts(report.summary):
        for number, text in enumerate(texts):
            lines += _wrapped(text, f"{topic if number == 0 else '':<10}", " " * 12)
    for one in report.findings:
        lines += ["", *_wrapped(f"{one.code}: {one.where}", f"{one.severity.upper():<10}", " " * 12)]
        lines += _wrapped(one.what, " " * 10, " " * 12)
        for number, line in enumerate(one.fix.splitlines()):
            lead = f"{'fix' if number == 0 else '':>8}  "
            # what can be pasted is never broken
            lines += [lead + line] if _is_code(line) else _wrapped(line, lead, " " * 10)
    if any("ds" in one.fix for one in report.findings):
        lines += ["", f"In the fixes ds is {_what_ds_is(report)}, sc is simvp_climate."]
    return "\n".join(lines)


def _what_ds_is(report: Report) -> str:
    given = report.summary.get("source") == _GIVEN
    return "the Dataset that was checked" if given else "what xarray opens at the path"


def _wrapped(text: str, first: str, other: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


def _is_code(line: str) -> bool:
    if line.startswith(("cdo ", "python ")):
        return True
    try:
        compile(line, "fix", "exec")
    except SyntaxError:
        return False
    return True


def _as_html(report: Report) -> str:
    colors = {"error": "#b3261e", "warning": "#8a5a00", "note": "#3b6ea5"}
    facts = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(topic)}</th>"
        f"<td style='text-align:left'>{'<br>'.join(html.escape(text) for text in texts)}</td></tr>"
        for topic, texts in _facts(report.summary)
    )
    found = "".join(
        f"<tr><td style='vertical-align:top;color:{colors[one.severity]}'><b>{one.severity}</b></td>"
        f"<td style='text-align:left'><b>{html.escape(one.code)}</b>: {html.escape(one.where)}<br>"
        f"{html.escape(one.what)}<pre style='margin:0.3em 0'>{html.escape(one.fix)}</pre></td></tr>"
        for one in report.findings
    )
    return (
        f"<div><p><b>check</b>: {html.escape(_headline(report))}</p><table>{facts}</table><table>{found}</table>"
        f"<p>In the fixes <code>ds</code> is {_what_ds_is(report)}, <code>sc</code> is simvp_climate.</p></div>"
    )
