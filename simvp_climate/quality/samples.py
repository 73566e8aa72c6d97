"""Checks of the values of each variable: all if they fit into 64 MiB, else the ends and evenly spread chunks."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.variables import is_fill_value
from simvp_climate.quality import rules
from simvp_climate.quality.report import Draft, Finding, format_bytes, format_time

DIMS = ("time", "level", "latitude", "longitude")
NOTHING_TO_DO = "Nothing to do"
_BUDGET = 2**26  # decoded bytes of a variable
_LARGEST_CHUNK = 2**29  # bytes above which a chunk is not decoded
_STATES = 48  # in the sample of a variable larger than the budget
_PER_CHUNK = 8  # states of one chunk in the sample: more would cost no reading, but tell little
# variables that may be zero everywhere for a while
_MAY_BE_ZERO = ("tp", "tp6h", "tp24h", "tcc", "tisr", "siconc", "lsm")


@dataclass(frozen=True, eq=False)
class StoredField(rules.Field):
    """A variable to train on, with its values and how they are stored."""

    data: xr.Variable  # canonical names of dimensions, in the order of the file; only the levels asked for
    levels: tuple[float | None, ...]  # pressures in hPa; (None,) without levels
    chunks: dict[str, int]  # stored chunk sizes by dimension, empty where unknown
    level_share: float  # levels that are decoded for each level asked for

    @property
    def times_per_chunk(self) -> int:
        """Times that are read together: those of a stored chunk, or of a dask chunk if dask computes the data."""
        dask = max(self.data.chunksizes["time"]) if self.data.chunks is not None else 1
        return max(1, self.chunks.get("time", dask))

    @property
    def bytes_per_chunk(self) -> float:
        """Decoded bytes of everything that is read for one chunk in time."""
        cells = np.prod([size for dim, size in self.data.sizes.items() if dim in DIMS and dim != "time"])
        return float(cells * self.data.dtype.itemsize * self.times_per_chunk * self.level_share)


@dataclass(frozen=True, eq=False)
class SampledSeries:
    """The sorted times of a series, the positions of its windows (None if it has none), and which times they use."""

    times: pd.Index
    windows: np.ndarray | None
    is_used: np.ndarray


@dataclass(frozen=True, eq=False)
class Sample:
    """States of one variable, (state, level, latitude, longitude), their positions in time, and the grid."""

    values: np.ndarray
    positions: np.ndarray
    times: pd.Index
    latitude: np.ndarray
    longitude: np.ndarray

    @property
    def period(self) -> str:
        """The number of states, for messages."""
        return f"all {len(self.positions)} times examined"

    def time(self, state: int) -> str:
        """Return the time of a state as text."""
        return format_time(self.times[self.positions[state]])

    def place(self, state: int, row: int, column: int) -> str:
        """Return time, latitude and longitude of a value as text."""
        return f"{self.time(state)}, latitude {self.latitude[row]:g}, longitude {self.longitude[column]:g}"


def check_values(
    field: StoredField, dataset: xr.Dataset, series: SampledSeries, transform: object, bounds: Sequence[float],
    draft: Draft,
) -> None:  # fmt: skip
    """Add the findings about a sample of the values."""
    positions = choose_positions(field, len(series.times))
    if not len(positions):
        message = f"one chunk has {format_bytes(field.bytes_per_chunk)}: the values were not examined"
        draft.add("note", "not-sampled", field.source, message, f"{NOTHING_TO_DO}, but examine them yourself")
        return
    latitude, longitude = dataset[field.axes.latitude].values, dataset[field.axes.longitude].values
    sample = Sample(read_states(field, positions), positions, series.times, latitude, longitude)
    sample = _check_fill_values(field, sample, draft)
    infinite = np.isinf(sample.values)
    if infinite.any():
        state, level, row, column = np.argwhere(infinite)[0]
        place, value = sample.place(state, row, column), sample.values[state, level, row, column]
        draft.add_all([rules.infinite_values(field, _label(field, level), value, place)])
    draft.summary.setdefault("missing", {})[field.source] = float(np.isnan(sample.values).mean())
    draft.summary["sampled"] = min(len(positions), int(draft.summary.get("sampled", len(positions))))
    _check_missing(field, sample, series.is_used[positions], draft)
    # the rules below skip constant values
    sample = replace(sample, values=_check_variation(field, sample, draft))
    values = sample.values
    if np.isfinite(values).any():
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        has_values = ~np.isnan(values).all(axis=(0, 2, 3))
        levels = [index for index, level in enumerate(field.levels) if level is not None and has_values[index]]
        means = {field.levels[index]: float(np.nanmean(values[:, index])) for index in levels}
        if finding := rules.implausible_values(field, low, high, means, _farthest(field, sample)):
            replaced = {(field.source, code) for code in ("units-other", "units-missing")}  # the new one says more
            draft.findings = [f for f in draft.findings if (f.subject, f.code) not in replaced] + [finding]
        extremum = np.nanargmin if low < bounds[0] else np.nanargmax
        state, _, row, column = np.unravel_index(int(extremum(values)), values.shape)
        place = f"(worst at {sample.place(state, row, column)})"
        draft.add_all([rules.outside_bounds(field, transform, bounds, low, high, float(np.nanstd(values)), place)])


def _farthest(field: StoredField, sample: Sample) -> str:
    """Return the value farthest from the middle of the vocabulary's range, and its place, as text."""
    if field.conversion is None:
        return ""
    factor, offset = field.conversion
    middle = (sum(field.meaning.valid_range) / 2 - offset) / factor
    state, level, row, column = np.unravel_index(int(np.nanargmax(np.abs(sample.values - middle))), sample.values.shape)
    return f"{sample.place(state, row, column)} ({sample.values[state, level, row, column]:.4g})"


def _label(field: StoredField, level_index: int) -> str:
    return field.label(field.levels[level_index] if "level" in field.data.dims else None)


# ---- which states, and reading them


def choose_positions(field: StoredField, count: int) -> np.ndarray:
    """Return the positions in time of the sample: whole chunks within the budget, spread over the series."""
    cost = field.bytes_per_chunk
    if cost > _LARGEST_CHUNK:
        return np.empty(0, dtype=int)
    length = min(field.times_per_chunk, count)
    affordable = int(np.clip(_BUDGET // max(cost, 1), 2, _STATES))
    chunks = -(-count // length)
    if chunks * cost <= _BUDGET:
        return np.arange(count)
    chosen = np.unique(np.linspace(0, chunks - 1, min(chunks, affordable)).round().astype(int))
    per_chunk = max(2, min(_PER_CHUNK if len(chosen) > 1 else _STATES, _STATES // len(chosen)))
    positions = {0, count - 1} | ({1, count - 2} if length > 1 or affordable > 8 else set())  # where they cost little
    for chunk in chosen:
        first, last = chunk * length, min((chunk + 1) * length, count) - 1
        positions |= set(np.linspace(first, last, per_chunk).round().astype(int).tolist())
    return np.array(sorted(position for position in positions if 0 <= position < count), dtype=int)


def read_states(field: StoredField, positions: np.ndarray) -> np.ndarray:
    """Return states of a variable: (state, level, latitude, longitude)."""
    data = field.data.isel({dim: 0 for dim in field.data.dims if dim not in DIMS})
    chunks, blocks = positions // field.times_per_chunk, []
    if positions[-1] - positions[0] < len(positions):  # without a hole: one read, of many chunks at once
        chunks = np.zeros_like(chunks)
    for chunk in np.unique(chunks):  # else one for each chunk
        in_chunk = positions[chunks == chunk]
        block = data.isel(time=slice(int(in_chunk[0]), int(in_chunk[-1]) + 1)).load()
        blocks.append(block.transpose("time", ..., "latitude", "longitude").values[in_chunk - in_chunk[0]])
    values = np.concatenate(blocks)
    return values.reshape(len(positions), -1, *values.shape[-2:]).astype(np.result_type(values, np.float32), copy=False)


# ---- rules


def _check_fill_values(field: StoredField, sample: Sample, draft: Draft) -> Sample:
    """Add a finding for each fill value that was not decoded, and return the sample without these."""
    values = sample.values
    for extremum in (np.max, np.min) * 2:
        finite = values[np.isfinite(values)]
        extreme = float(extremum(finite)) if finite.size else np.nan
        if not is_fill_value(extreme):
            continue
        others = finite[finite != extreme]
        if others.size and np.abs(extreme - others).min() <= np.ptp(others):
            continue  # not an outlier
        share = f" ({100 * (finite.size - others.size) / values.size:.2g} % of the values)"
        distance = abs(extreme - others.mean()) / max(float(others.std()), 1e-300) if others.size else np.inf
        if finding := rules.fill_value(field, extreme, distance, share):
            draft.add_all([finding])
            values = np.where(values == extreme, np.nan, values)
    return replace(sample, values=values)


def _check_missing(field: StoredField, sample: Sample, is_used: np.ndarray, draft: Draft) -> None:
    """Add the findings about masks, and about values that are missing at some times of windows only."""
    missing = np.isnan(sample.values)
    has_values = ~missing.all(axis=(0, 2, 3))
    never = np.zeros(len(has_values), dtype=bool)
    draft.add_all(rules.empty_or_constant(field, field.levels, ~has_values, never, np.empty(len(never)), sample.period))
    missing, levels = missing[:, has_values], np.flatnonzero(has_values)
    empty = is_used & missing.all(axis=(2, 3)).any(axis=1) & has_values.any()
    if empty.any():
        first = sample.time(int(empty.argmax()))
        draft.add_all([rules.empty_times(field, int(empty.sum()), len(is_used), first)])
    states = np.flatnonzero(is_used & ~empty)
    if not len(states) or not len(levels):
        return
    missing = missing[states]
    mask = missing.all(axis=0)
    changing = missing.any(axis=0) & ~mask
    if changing.any():
        level, row, column = np.argwhere(changing)[0]
        is_missing = missing[:, level, row, column]
        place = sample.place(states[int(is_missing.argmax())], row, column)
        counts = int(is_missing.sum()), len(states), int(changing.any(axis=0).sum())
        draft.add_all([rules.changing_mask(field, _label(field, levels[level]), place, *counts)])
    if mask.any():
        message = f"the same {100 * mask.mean():.1f} % of the cells are always missing: a mask (land, ice, ground)"
        fix = f"{NOTHING_TO_DO}: statistics, loss and scores leave them out"
        draft.add("note", "mask", field.source, message, fix)


def _check_variation(field: StoredField, sample: Sample, draft: Draft) -> np.ndarray:
    """Add findings about constant levels, and times with one value in all cells; return the values without these."""
    values = np.where(np.isfinite(sample.values), sample.values, np.nan)
    has_values = ~np.isnan(values).all(axis=(0, 2, 3))
    if not has_values.any():
        return values
    highest, lowest = (extremum(values, axis=(0, 2, 3)) for extremum in (np.fmax.reduce, np.fmin.reduce))
    constant = has_values & (highest - lowest <= 1e-6 * np.abs(highest))
    # rain may be zero at all sampled times, and not in between
    zero_is_plausible = field.meaning is not None and field.meaning.short_name in _MAY_BE_ZERO
    if constant.any():
        dry = zero_is_plausible and len(sample.positions) < len(sample.times)
        examined = [level for level, has in zip(field.levels, has_values, strict=True) if has]
        arrays = np.zeros(len(examined), dtype=bool), constant[has_values], highest[has_values]
        draft.add_all(rules.empty_or_constant(field, examined, *arrays, sample.period, dry))
        values[:, constant] = np.nan
    changing = values[:, has_values & ~constant]
    if not changing.shape[1] or len(values) == 1:
        return values
    # states, (state, level), with a single value in all cells that have any, or with no value
    blank = np.fmax.reduce(changing, axis=(2, 3)) <= np.fmin.reduce(changing, axis=(2, 3))
    empty = np.isnan(changing).all(axis=(2, 3))
    # a blank state may repeat by itself (no rain)
    draft.add_all([_standstill(field, sample, changing, ~(blank | empty).all(axis=1))])
    is_blank = blank.any(axis=1)
    if is_blank.any() and not is_blank.all():
        first = int(is_blank.argmax())
        value = float(np.nanmax(changing[first, int(blank[first].argmax())]))
        if value or not (zero_is_plausible or field.meaning is None):
            times = f"{is_blank.sum()} of {len(values)} times examined, first at {sample.time(first)}"
            grid = f'["{field.axes.latitude}", "{field.axes.longitude}"]'
            fix = f"ds = ds.isel({field.axes.time}=({field.ds}.std({grid}) > 0).values)  # windows skip the gap"
            draft.add("error", "blank-times", field.source, f"all cells are {value:g} at {times}", fix)
            values[is_blank] = np.nan
    return values


def _standstill(field: StoredField, sample: Sample, values: np.ndarray, has_pattern: np.ndarray) -> Finding | None:
    """Return a finding if states repeat the one before: at all times, from some time to the end, or now and then."""
    name = field.axes.time
    is_same = has_pattern[:-1] & [np.array_equal(*pair, equal_nan=True) for pair in itertools.pairwise(values)]
    if not is_same.any():
        return None
    if is_same.all():
        message = f"it never changes in time (the same at {sample.period})"
        fix = f"Leave {field.name!r} out of Task.variables: it is a static field. To name it in Task.forcings:\n"
        fix += f"{field.ds} = {field.ds}.isel({name}=0, drop=True)"
        return Finding("error", "static", field.source, message, fix)
    if is_same[-1]:
        start = len(is_same) - int(np.argmin(is_same[::-1]))  # first sampled state of the run that lasts to the end
        last = read_states(field, sample.positions[-1:])

        def equals_last(position: int) -> bool:
            return np.array_equal(read_states(field, np.array([position])), last, equal_nan=True)

        between = range(int(sample.positions[start - 1]) + 1, int(sample.positions[start]))
        offset = bisect.bisect_left(between, True, key=equals_last)  # a dozen reads
        since = format_time(sample.times[between.start + offset])
        count = len(values) - start
        message = f"it stands still from {since} to the end, {sample.time(-1)} ({count} times examined)"
        return Finding("error", "stuck", field.source, message, f'ds = ds.sel({name}=slice(None, "{since}"))')
    first, second = (sample.time(int(is_same.argmax()) + offset) for offset in (0, 1))
    message = f"{is_same.sum()} of {len(is_same)} neighbors in the sample are equal, first {first} and {second}"
    fix = f'ds = ds.drop_sel({name}="{second}")  # and the others'
    return Finding("warning", "repeated", field.source, message, fix)
