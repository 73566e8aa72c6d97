"""Statistics of what windows read, in one pass, and the normalization made from those of the training period."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from simvp_climate.data import reader
from simvp_climate.data.files import write_atomically
from simvp_climate.data.reader import Channel, Request, Source
from simvp_climate.data.variables import conversion, lookup
from simvp_climate.processing.climatology import HarmonicSums, fits_in_memory

_BLOCK_BYTES = 2**24  # of each of two blocks: one is read while the other is summed
_CACHED_BYTES = 2**19  # summed at once: fits into the processor's cache
# windows that give a typical change to a few percent (a scale, not a result): more where a field has few cells
_CHANGES, _CHANGED_CELLS = (100, 1000), 1000 * 32 * 64
_LOG_METERS = 1e-5  # of water: a hundredth of a millimeter, below what counts as rain
_SAMPLED = 4  # states of each series that are compared before cached statistics are used
_CACHED_FIELDS = ("mean", "std", "change_std", "mask", "minimum", "maximum", "mean_field", "harmonics")


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Area-weighted statistics of the training period, units and transforms that normalize states."""

    channels: tuple[Channel, ...]
    units: tuple[str, ...]  # in the training data, "" where these have none
    mean: np.ndarray  # (channel,), over cells with values; of the logarithm where that is learned
    std: np.ndarray  # standard deviation, (channel,)
    change_std: np.ndarray  # root mean square of the change from the initialization to each lead, (lead, channel)
    mask: np.ndarray  # cells without a value at any training time, (channel, latitude, longitude)
    log_scale: np.ndarray  # where above 0, log(1 + value / log_scale) is learned instead of the value, (channel,)
    bounds: np.ndarray  # smallest and largest value of a forecast, (channel, 2), in `units`
    extremes: np.ndarray  # smallest and largest value in training, (channel, 2), in `units`; infinite where unknown

    def select(self, indices: Sequence[int]) -> "Normalizer":
        """Return the normalizer of some channels."""
        indices = list(indices)
        if indices == list(range(len(self.channels))):
            return self
        names = ("mean", "std", "mask", "log_scale", "bounds", "extremes")
        fields = {name: getattr(self, name)[indices] for name in names}
        fields |= {name: tuple(getattr(self, name)[index] for index in indices) for name in ("channels", "units")}
        return Normalizer(change_std=self.change_std[:, indices], **fields)

    def inherit(self, other: "Normalizer") -> "Normalizer":
        """Return this normalizer with all of `other` for the channels that both have."""
        names = ("mean", "std", "mask", "log_scale", "bounds", "extremes")
        merged, change_std = {name: getattr(self, name).copy() for name in names}, self.change_std.copy()
        units = list(self.units)
        for index, channel in enumerate(self.channels):
            if channel in other.channels:
                source = other.channels.index(channel)
                for name in names:
                    merged[name][index] = getattr(other, name)[source]
                change_std[:, index], units[index] = other.change_std[:, source], other.units[source]
        return replace(self, units=tuple(units), change_std=change_std, **merged)

    def widen(self, extremes: np.ndarray) -> "Normalizer":
        """Return this normalizer with the extremes of more training data, of these alone where its own are unknown."""
        known = np.isfinite(self.extremes)
        both = np.stack([np.fmin(self.extremes, extremes)[:, 0], np.fmax(self.extremes, extremes)[:, 1]], axis=1)
        return replace(self, extremes=np.where(known, both, extremes))


@dataclass(frozen=True, eq=False)
class IncompleteCells:
    """Where values are missing at some times only, or infinite. An infinite value counts as missing."""

    count: int  # of times read
    times: np.ndarray  # number of times at which a cell has no value, (channel, latitude, longitude)
    first: np.ndarray  # series, and position in time, of the first of these, (2, channel, latitude, longitude)
    infinite: np.ndarray  # whether a cell is infinite at some time, (channel, latitude, longitude)
    empty: np.ndarray  # number of times at which no cell has a value, (channel,)
    first_empty: np.ndarray  # series and position of the first of these, (2, channel)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of one period: those that a `Normalizer` takes over, and those that the data are checked with."""

    mean: np.ndarray  # these four as in `Normalizer`
    std: np.ndarray
    change_std: np.ndarray
    mask: np.ndarray
    minimum: np.ndarray  # smallest value, (channel,), in the units of the data
    maximum: np.ndarray
    mean_field: np.ndarray  # mean over time of each cell, as `mean`, (channel, latitude, longitude)
    harmonics: np.ndarray  # of the climatology, as in `Harmonics`; empty if no times were given, or if too large
    digest: str  # other states have another
    incomplete: IncompleteCells | None = None  # if not None, nothing can be trained

    def select(self, indices: Sequence[int]) -> "Statistics":
        """Return the statistics of some channels."""
        fields = {
            name: getattr(self, name)[indices] for name in ("mean", "std", "mask", "minimum", "maximum", "mean_field")
        }
        return replace(self, change_std=self.change_std[:, indices], harmonics=self.harmonics[:, indices], **fields)


def resolve_log_scale_and_bounds(
    channels: Sequence[Channel], units: Sequence[str], transforms: Sequence[tuple[str, object]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `log_scale` and `bounds` of a `Normalizer`; ValueError if "log" is not for precipitation as a length."""
    log_scale = np.zeros(len(channels))
    bounds = np.tile([-np.inf, np.inf], (len(channels), 1))
    for index, (channel, unit) in enumerate(zip(channels, units, strict=True)):
        match dict(transforms).get(channel.variable):
            case None:
                pass
            case "log":
                known = lookup(channel.variable)
                is_rain = known is not None and known[0].standard_name == "lwe_thickness_of_precipitation_amount"
                factors = conversion(channel.variable, "m", unit) if is_rain else None
                if factors is None:
                    name, rule = repr(channel.variable), "needs precipitation in units of length"
                    fix = "Give the scale in these units, ('log', 0.01)"
                    raise ValueError(f"transforms={{{name}: 'log'}} {rule}, but {name} is in {unit!r}. {fix}")
                log_scale[index], bounds[index, 0] = _LOG_METERS * factors[0], 0
            case ("log", scale):
                log_scale[index], bounds[index, 0] = scale, 0
            case (low, high):
                bounds[index] = [-np.inf if low is None else low, np.inf if high is None else high]
    return log_scale, bounds


def compute_statistics(
    sources: Sequence[Source], windows: Sequence[np.ndarray], weights: np.ndarray, history: int, log_scale: np.ndarray,
    *, times: Sequence[pd.Index] | None = None, out: np.ndarray | None = None, use_cache: bool = True,
) -> Statistics:  # fmt: skip
    """Read every time that a window uses, once and in order, and return the statistics.

    `windows` are positions in each source, (window, history + horizon); `weights` have mean one, (latitude,). With the
    `times` of each source, the statistics include the harmonics of a climatology. The
    states are kept in `out` if given, (used times of all series, channel, latitude, longitude), float32; otherwise
    statistics are loaded from the user's cache folder where it has them.

    Means and squares are summed over rows in float32, after a typical state was subtracted (the squares of geopotential
    would hide its variance), and over everything else in float64.
    """
    path = _cache_path(sources, windows, weights, history, log_scale, times) if use_cache else None
    is_cached = path is not None and path.exists() and out is None
    if is_cached and (cached := load_cached(path, _sample_digest(sources, windows))) is not None:
        return cached
    sample = hashlib.sha256()
    sums = _Sums(sources[0].shape, weights, log_scale)
    if times is not None and fits_in_memory(sources[0].shape):
        sums.harmonics = HarmonicSums(sources[0].shape, times, windows)
    cells = sources[0].shape[1] * sources[0].shape[2]
    every = max(1, sum(map(len, windows)) // int(np.clip(_CHANGED_CELLS // cells, *_CHANGES)))
    windows_before, times_before = 0, 0
    for series, (source, positions) in enumerate(zip(sources, windows, strict=True)):
        used, inverse = np.unique(positions, return_inverse=True)
        # every n-th window of all series together
        sampled = inverse.reshape(positions.shape)[-windows_before % every :: every]
        windows_before += len(positions)
        states_out = None if out is None else out[times_before : times_before + len(used)]
        times_before += len(used)
        leads = [min(history + lead, positions.shape[1] - 1) for lead in range(history)]
        inits_and_leads = sampled[:, [history - 1, *leads]]
        chosen = _sample(len(used))
        for start, with_overlap, block in _read_blocks(source, used, inits_and_leads, states_out):
            stop = start + len(block)
            sample.update(np.ascontiguousarray(block[chosen[(chosen >= start) & (chosen < stop)] - start]))
            sums.add(block, series, used[start:stop], start)
            # a window belongs to the block that its last state lies in
            ends_here = (inits_and_leads[:, -1] >= start) & (inits_and_leads[:, -1] < stop)
            sums.add_changes(inits_and_leads[ends_here], with_overlap, stop - len(with_overlap))
    statistics = sums.statistics()
    if path is not None and statistics.incomplete is None:
        save_cached(path, statistics, sample.hexdigest())
    return statistics


class _Sums:
    """Running sums over states, per channel."""

    def __init__(self, shape: tuple[int, int, int], weights: np.ndarray, log_scale: np.ndarray):
        self.shape, self.weights, self.log_scale = shape, weights.astype(np.float64), log_scale
        self.origin: np.ndarray | None = None  # subtracted from every state, (channel, 1, 1)
        self.count = 0
        self.sum, self.squares = np.zeros(shape[0]), np.zeros(shape[0])
        self.fields = np.zeros(shape)  # sums over time
        self.minimum, self.maximum = np.full(shape[0], np.inf), np.full(shape[0], -np.inf)
        self.changes: list[np.ndarray] = []
        self.harmonics: HarmonicSums | None = None
        self.missing: IncompleteCells | None = None  # `count` is set at the end
        self.digest = hashlib.sha256()
        self.scratch = np.empty(max(_CACHED_BYTES // 4, shape[2]), dtype=np.float32)

    def add(self, block: np.ndarray, series: int, times: np.ndarray, start: int) -> None:
        """Add the states (time, channel, latitude, longitude) at some positions in time of a series.

        `start` is the number of states of the series that were added before.
        """
        if self.origin is None:
            first = apply_log(block[:1], self.log_scale)[0]
            valid = np.isfinite(first)
            total = np.where(valid, first, 0).sum(axis=(1, 2), dtype=np.float64)
            self.origin = (total / np.maximum(valid.sum(axis=(1, 2)), 1)).astype(np.float32)[:, None, None]
            self.digest.update(self.origin.tobytes())
        states = apply_log(block, self.log_scale)
        rows, squares = np.empty((2, *block.shape[:3]), dtype=np.float32)
        has_missing = False
        for time, channel, row in self._cache_tiles(len(block)):
            tile, raw = states[time, channel, row], block[time, channel, row]
            self.minimum[channel] = np.fmin(self.minimum[channel], np.fmin.reduce(raw, axis=None))
            self.maximum[channel] = np.fmax(self.maximum[channel], np.fmax.reduce(raw, axis=None))
            anomaly = self.scratch[: tile.size].reshape(tile.shape)
            np.subtract(tile, self.origin[channel], out=anomaly)
            anomaly.sum(axis=-1, out=rows[time, channel, row])
            # a sum is finite unless a value is not
            if not np.isfinite(rows[time, channel, row]).all():
                has_missing = True
                np.nan_to_num(anomaly, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                anomaly.sum(axis=-1, out=rows[time, channel, row])
            np.einsum("tyx,tyx->ty", anomaly, anomaly, out=squares[time, channel, row])
            self.fields[channel, row] += anomaly.sum(axis=0)
        if has_missing:
            self._count_missing(block, series, times)
        if self.harmonics is not None:
            self.harmonics.add(block, series, start, has_missing)
        # the sums of rows tell data apart at a tenth of the cost of hashing every value
        self.digest.update(np.concatenate([rows, squares], axis=1).tobytes())
        self.sum += (rows * self.weights).sum(axis=(0, 2))
        self.squares += (squares * self.weights).sum(axis=(0, 2))
        self.count += len(block)

    def add_changes(self, inits_and_leads: np.ndarray, states: np.ndarray, offset: int) -> None:
        """Add the squared changes of windows from the initialization to each lead, which are at these positions."""
        for init_position, *lead_positions in inits_and_leads - offset:
            init = apply_log(states[init_position : init_position + 1], self.log_scale)[0]
            rows = np.empty((len(lead_positions), *self.shape[:2]), dtype=np.float32)
            for lead, position in enumerate(lead_positions):
                with np.errstate(invalid="ignore"):  # infinite values are reported when all is read
                    change = apply_log(states[position : position + 1], self.log_scale)[0] - init
                if self.missing is not None:
                    np.nan_to_num(change, copy=False, nan=0.0)
                np.einsum("cyx,cyx->cy", change, change, out=rows[lead])
            self.changes.append((rows * self.weights).sum(axis=-1))

    def _cache_tiles(self, count: int) -> Iterator[tuple[slice, int, slice]]:
        """Yield times, channel and rows of tiles that fit into the processor's cache."""
        _, height, width = self.shape
        rows = max(1, min(height, _CACHED_BYTES // (4 * width)))
        times = max(1, _CACHED_BYTES // (4 * width * rows)) if rows == height else 1
        for channel in range(self.shape[0]):
            for time in range(0, count, times):
                for row in range(0, height, rows):
                    yield slice(time, time + times), channel, slice(row, row + rows)

    def _count_missing(self, states: np.ndarray, series: int, times: np.ndarray) -> None:
        if self.missing is None:
            channels, zeros = self.shape[0], partial(np.zeros, dtype=np.int64)
            arrays = zeros(self.shape), zeros((2, *self.shape)), np.zeros(self.shape, dtype=bool)
            self.missing = IncompleteCells(0, *arrays, zeros(channels), zeros((2, channels)))
        missing, totals = ~np.isfinite(states), self.missing
        totals.infinite[:] |= np.isinf(states).any(axis=0)
        empty = missing.all(axis=(2, 3))
        for flags, count, first in ((missing, totals.times, totals.first), (empty, totals.empty, totals.first_empty)):
            new = flags.any(axis=0) & (count == 0)
            first[0][new] = series
            first[1][new] = times[flags.argmax(axis=0)[new]]
            count += flags.sum(axis=0)

    def statistics(self) -> Statistics:
        """Return the statistics of all states that were added."""
        mask, incomplete = np.zeros(self.shape, dtype=bool), None
        if self.missing is not None:
            times = self.missing.times
            mask = times == self.count
            if ((times > 0) & ~mask | self.missing.infinite).any():
                incomplete = replace(self.missing, count=self.count)
        # summed weights of the cells with values, per channel
        area = np.maximum(((~mask).sum(axis=2) * self.weights).sum(axis=1), 1e-300)
        mean = self.sum / (area * self.count)  # of the anomalies from `origin`
        variance = np.maximum(self.squares / (area * self.count) - mean**2, 0)
        # a floor keeps channels that never change from a division by zero
        change_std = np.maximum(np.sqrt(np.mean(self.changes, axis=0) / area), 1e-12)
        mean = mean + self.origin[:, 0, 0].astype(np.float64)
        mean_field = (self.fields / self.count + self.origin).astype(np.float32)
        harmonics = np.empty((0, *self.shape), np.float32)
        if self.harmonics is not None:
            harmonics = self.harmonics.coefficients(mask)
        arrays = mean, np.sqrt(variance), change_std, mask, self.minimum, self.maximum, mean_field, harmonics
        return Statistics(*arrays, self.digest.hexdigest(), incomplete)


def apply_log(states: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Return states with log(1 + x / log_scale) instead of x where log_scale is above 0."""
    if not log_scale.any():
        return states
    states = states.copy()
    for channel in np.flatnonzero(log_scale):
        states[:, channel] = np.log1p(np.maximum(states[:, channel], 0) / np.float32(log_scale[channel]))
    return states


def _read_blocks(
    source: Source, used: np.ndarray, inits_and_leads: np.ndarray, out: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (start of the block in `used`, states from which changes end in the block up to its end, the block)."""
    overlap = int((inits_and_leads[:, -1] - inits_and_leads[:, 0]).max(initial=0))
    size = max(1, _BLOCK_BYTES // source.state_bytes)
    size = max(1, size // source.chunk_times, -(-overlap // source.chunk_times)) * source.chunk_times
    # blocks end where chunks end, so that no chunk is read twice
    bounds = [0, *range(size - source.offset_in_chunk(int(used[0])), len(used), size), len(used)]
    size = min(size, len(used))
    ranges = list(itertools.pairwise(bounds))
    if out is None:
        buffers = [np.empty((overlap + size, *source.shape), dtype=np.float32) for _ in ranges[:2]]
        blocks = [buffers[i % 2][overlap : overlap + stop - start] for i, (start, stop) in enumerate(ranges)]
    else:
        blocks = [out[start:stop] for start, stop in ranges]

    def read_block(index: int) -> None:
        runs = reader.consecutive_runs(used[slice(*ranges[index])])
        reader.fetch([Request(source, start, stop, blocks[index][i : i + stop - start]) for start, stop, i in runs])

    with ThreadPoolExecutor(1) as pool:  # the next block is read in the background
        pending = pool.submit(read_block, 0)
        for index, (start, stop) in enumerate(ranges):
            pending.result()
            if out is not None:
                states = out[:stop]
            else:
                states = buffers[index % 2][: overlap + stop - start]
                if index and overlap:  # copy the end of the previous block before it is overwritten
                    end = overlap + len(blocks[index - 1])
                    states[:overlap] = buffers[(index - 1) % 2][end - overlap : end]
            if index + 1 < len(ranges):
                pending = pool.submit(read_block, index + 1)
            yield start, states, blocks[index]


def _cache_path(
    sources: Sequence[Source], windows: Sequence[np.ndarray], weights: np.ndarray, history: int, log_scale: np.ndarray,
    times: Sequence[pd.Index] | None,
) -> Path | None:  # fmt: skip
    identities = [reader.source_identity(source) for source in sources]
    if None in identities:
        return None
    edges = None if times is None else [[str(time) for time in series[[0, -1]]] for series in times]
    digest = hashlib.sha256(json.dumps([4, identities, history, edges]).encode())
    for array in (weights, log_scale, *windows):
        digest.update(np.ascontiguousarray(array))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simvp_climate"
    return folder / f"statistics-{digest.hexdigest()[:32]}.npz"


def _sample_digest(sources: Sequence[Source], windows: Sequence[np.ndarray]) -> str:
    """Return a digest of a few states: sizes and times of files may stay the same when their content changes."""
    digest = hashlib.sha256()
    for source, positions in zip(sources, windows, strict=True):
        used = np.unique(positions)
        digest.update(reader.read(source, used[_sample(len(used))]))
    return digest.hexdigest()


def _sample(count: int) -> np.ndarray:
    """Return positions of `_SAMPLED` of the used times, evenly spread."""
    return np.unique(np.linspace(0, count - 1, _SAMPLED).astype(int))


def load_cached(path: Path, sample: str) -> Statistics | None:
    """Return the statistics in a file of the cache, or None if it does not exist, is damaged or has another sample."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _CACHED_FIELDS}
            texts = {name: str(file[name]) for name in ("digest", "sample", "seal")}
    except Exception:  # whatever numpy and zipfile raise for a damaged file
        return None
    if texts["sample"] != sample or texts["seal"] != _seal(arrays, texts["digest"], sample):
        return None
    return Statistics(**arrays, digest=texts["digest"])


def save_cached(path: Path, statistics: Statistics, sample: str) -> None:
    """Write statistics to a file of the cache; a folder that cannot be written to is ignored."""
    arrays = {name: getattr(statistics, name) for name in _CACHED_FIELDS}
    texts = {"digest": statistics.digest, "sample": sample, "seal": _seal(arrays, statistics.digest, sample)}
    with suppress(OSError):  # only a second pass is lost
        path.parent.mkdir(parents=True, exist_ok=True)
        save = partial(np.savez_compressed, **arrays, **{name: np.array(text) for name, text in texts.items()})
        write_atomically(path, save, sync=False, concurrent=True)


def _seal(arrays: dict[str, np.ndarray], digest: str, sample: str) -> str:
    """Return the SHA-256 over everything in a file of the cache."""
    seal = hashlib.sha256(f"{digest} {sample}".encode())
    for name, array in arrays.items():
        seal.update(f"{name} {array.dtype} {array.shape}".encode())
        seal.update(np.ascontiguousarray(array))
    return seal.hexdigest()
