"""The statistics that carry physical units to numbers of order one, taken from the training years only.

One pass over the times that windows use reads each stored chunk once, finds the missing values on the way, and can
keep the states it read.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from simvp_climate.data import reader
from simvp_climate.data.files import write_atomically
from simvp_climate.data.reader import Channel, Request, Source
from simvp_climate.data.variables import conversion, lookup

_BLOCK_BYTES = 2**24  # of the two blocks of a pass, one read while the other is summed
_CACHED_BYTES = 2**19  # summed at once: stays in the processor's cache
# windows that fix a typical change to a few percent (a scale, not a result): more where a field has few cells
_CHANGES, _CHANGED_CELLS = (100, 1000), 1000 * 32 * 64
_LOG_METERS = 1e-5  # of water: a hundredth of a millimeter, below what counts as rain


_ARRAYS = ("mean", "std", "change_std", "mask", "low", "high")  # of a survey, as it is remembered


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Statistics per channel.

    Attributes
    ----------
    channels, units
        What the channels are, and the units they were trained in ("" if the data gave none).
    mean, std
        Area-weighted mean and standard deviation over the training times, shape (channel,); of the logarithm where
        that is taken. Cells without values do not count.
    change_std
        Root mean square of the change from the initialization to each lead, shape (lead, channel).
    mask
        Where no training time has a value, shape (channel, latitude, longitude).
    log_scale
        Where above 0, log(1 + value / log_scale) is learned instead of the value; shape (channel,).
    bounds
        Smallest and largest value that a forecast may have, shape (channel, 2), in `units`.
    """

    channels: tuple[Channel, ...]
    units: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    change_std: np.ndarray
    mask: np.ndarray
    log_scale: np.ndarray
    bounds: np.ndarray

    def select(self, places: Sequence[int]) -> "Normalizer":
        """Return the statistics of some channels, by their places."""
        places = list(places)
        fields = {name: getattr(self, name)[places] for name in ("mean", "std", "mask", "log_scale", "bounds")}
        fields |= {name: tuple(getattr(self, name)[at] for at in places) for name in ("channels", "units")}
        return Normalizer(change_std=self.change_std[:, places], **fields)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one pass over some series found.

    Attributes
    ----------
    mean, std, change_std, mask
        As in `Normalizer`.
    low, high
        Smallest and largest value, shape (channel,), in the units of the data.
    digest
        A text that tells these states from others.
    """

    mean: np.ndarray
    std: np.ndarray
    change_std: np.ndarray
    mask: np.ndarray
    low: np.ndarray
    high: np.ndarray
    digest: str


def transforms_of(
    channels: Sequence[Channel], units: Sequence[str], transforms: Sequence[tuple[str, object]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `log_scale` and `bounds` of a `Normalizer` for the transforms of a task.

    Raises
    ------
    ValueError
        If "log" is asked for a variable that is no precipitation, or whose unit is not known.
    """
    log_scale = np.zeros(len(channels))
    bounds = np.tile([-np.inf, np.inf], (len(channels), 1))
    for at, (channel, unit) in enumerate(zip(channels, units, strict=True)):
        match dict(transforms).get(channel.variable):
            case None:
                pass
            case "log":
                scale = conversion(channel.variable, "m", unit) if _is_precipitation(channel.variable) else None
                if scale is None:
                    raise ValueError(
                        f"transforms={{{channel.variable!r}: 'log'}} knows what counts as none for precipitation in "
                        f"units of length only, and {channel.variable!r} is in {unit!r}. Say it, in these units: "
                        "('log', 0.01)"
                    )
                log_scale[at], bounds[at, 0] = _LOG_METERS * scale[0], 0
            case ("log", scale):
                log_scale[at], bounds[at, 0] = scale, 0
            case (low, high):
                bounds[at] = [-np.inf if low is None else low, np.inf if high is None else high]
    return log_scale, bounds


def _is_precipitation(name: str) -> bool:
    known = lookup(name)
    return known is not None and known[0].standard_name == "lwe_thickness_of_precipitation_amount"


def compute_statistics(
    sources: Sequence[Source],
    windows: Sequence[np.ndarray],
    weights: np.ndarray,
    history: int,
    log_scale: np.ndarray,
    *,
    out: np.ndarray | None = None,
    use_cache: bool = True,
) -> Statistics:
    """Read every time that a window uses, once and in order, and return the statistics.

    The means and squares are summed over rows in float32 after a typical state was taken off (squares of geopotential
    would drown its variance), and over everything else in float64. Takes two blocks of 16 MiB (or of a chunk and the
    reach of a forecast, where that is more) beside the states that it keeps.

    Parameters
    ----------
    sources, windows
        The series, and for each the positions of its windows, (window, history + horizon).
    weights
        Area weights with mean one, (latitude,).
    history
        Number of states in before the forecast; also the number of leads that one network call emits.
    log_scale
        As in `Normalizer`.
    out
        Where to put the states, (used times of all series, channel, latitude, longitude), float32.
    use_cache
        Whether to look for the outcome in the user's cache folder, and to leave it there. It is known by
        what is stored and which part is used (`reader.source_identity`). With `out` the states are read all the same.

    Raises
    ------
    ValueError
        If a cell has a value at some of the times only; the message names time and cell.
    """
    path = _cache_path(sources, windows, weights, history, log_scale) if use_cache else None
    if path is not None and out is None and (known := load_cached(path)) is not None:
        return known
    found = _Sums(sources[0].shape, weights, log_scale)
    cells = sources[0].shape[1] * sources[0].shape[2]
    every = max(1, sum(map(len, windows)) // int(np.clip(_CHANGED_CELLS // cells, *_CHANGES)))
    begin, first = 0, 0
    for number, (source, positions) in enumerate(zip(sources, windows, strict=True)):
        used, inverse = np.unique(positions, return_inverse=True)
        chosen = inverse.reshape(positions.shape)[-begin % every :: every]
        begin += len(positions)
        part = None if out is None else out[first : first + len(used)]
        first += len(used)
        leads = [min(history + lead, positions.shape[1] - 1) for lead in range(history)]
        pairs = chosen[:, [history - 1, *leads]]
        for start, states, block in _blocks(source, used, pairs, part):
            found.add(block, (number, used[start : start + len(block)]))
            inside = (pairs[:, -1] >= start) & (pairs[:, -1] < start + len(block))
            found.add_changes(pairs[inside], states, start + len(block) - len(states))
    mask = found.mask(sources)
    mean, variance = found.moments(mask)
    spreads = np.sqrt(variance), found.change_std(mask)
    result = Statistics(mean, *spreads, mask, found.low, found.high, found.digest.hexdigest())
    if path is not None:
        save_cached(path, result)
    return result


def check_varies(found: Statistics, channels: Sequence[Channel]) -> None:
    """Raise ValueError if a channel never changes, or has no value at all."""
    for at, channel in enumerate(channels):
        if found.mask[at].all():
            raise ValueError(
                f"{channel} has no value at any time that a window uses: leave it out of Task.variables, or check the "
                "data"
            )
        if found.std[at] <= 1e-6 * abs(found.mean[at]):
            raise ValueError(
                f"{channel} is constant (value {found.mean[at]:g}) over the training period: there is nothing to "
                "learn. Leave it out of Task.variables, or check the data"
            )


def check_units(found: Statistics, channels: Sequence[Channel], units: Sequence[str], log_scale: np.ndarray) -> None:
    """Raise ValueError if units, or values in these units, cannot be those of the variable by the vocabulary."""
    for at, (channel, unit) in enumerate(zip(channels, units, strict=True)):
        known = lookup(channel.variable)
        if known is None or not unit or found.mask[at].all():
            continue
        factors = conversion(channel.variable, unit, known[0].units)
        if factors is None:
            raise ValueError(
                f"{channel.variable} has the units {unit!r}, which are none of {known[0].long_name} "
                f"({known[0].units}). If the attribute is wrong, set it: ds[{channel.variable!r}].attrs['units'] = "
                f"{known[0].units!r}; if the variable is another one, give it another name"
            )
        lowest, highest = known[0].valid_range
        values = {"averages": found.mean[at], "goes down to": found.low[at], "goes up to": found.high[at]}
        if log_scale[at]:
            del values["averages"]
        for word, value in values.items():
            if not lowest <= factors[0] * value + factors[1] <= highest:
                raise ValueError(
                    f"{channel} {word} {value:.4g} {unit}: {known[0].long_name} lies between {lowest:g} and "
                    f"{highest:g} {known[0].units}. Is the attribute units right? Values of fill (-9999, 1e20) that "
                    "were not decoded look like this too: then set attrs['_FillValue'] and decode, xarray.decode_cf(ds)"
                )


def check_transforms(
    found: Statistics,
    channels: Sequence[Channel],
    units: Sequence[str],
    log_scale: np.ndarray,
    bounds: np.ndarray,
    name: str = "dataset",
) -> None:
    """Raise ValueError if the data lie beyond the bounds of their transform, or below what has a logarithm.

    A tenth of a standard deviation (for logarithms a hundredth of the largest value) is let pass: packing leaves it.
    """
    for at, (channel, unit) in enumerate(zip(channels, units, strict=True)):
        low, high, slack = found.low[at], found.high[at], 0.1 * found.std[at]
        if log_scale[at] and low < -0.01 * high:
            raise ValueError(
                f"transforms takes the logarithm of {channel.variable!r}, which goes down to {low:.4g} {unit}: it "
                f"is for values from 0 up, such as precipitation. Leave {channel.variable!r} out of it"
            )
        if not log_scale[at] and not (bounds[at, 0] - slack <= low and high <= bounds[at, 1] + slack):
            raise ValueError(
                f"transforms holds {channel.variable!r} within {bounds[at, 0]:g} and {bounds[at, 1]:g}, and "
                f"{name} goes from {low:.4g} to {high:.4g} {unit}: are the bounds in the units of the data?"
            )


def check_plausible(normalizer: Normalizer, states: np.ndarray, name: str, unlabeled: Sequence[bool]) -> None:
    """Raise ValueError if states (time, channel, latitude, longitude) cannot be in the units that were trained.

    Data often lose their units attribute on the way; kelvin read as degrees Celsius are 20 standard deviations off.
    Channels that are `unlabeled` (without units, where the training data had some) must also vary about as much.
    """
    values = np.where(normalizer.mask, np.nan, _logged(states[:8], normalizer.log_scale)).astype(np.float64)
    spread = np.where(unlabeled, np.nanstd(values, axis=(0, 2, 3)), normalizer.std)
    check_moments(normalizer, np.nanmean(values, axis=(0, 2, 3)), spread, name)


def check_moments(normalizer: Normalizer, means: np.ndarray, spreads: np.ndarray, name: str) -> None:
    """Raise ValueError if means or spreads per channel are too far from those trained on for the same units."""
    for at, (channel, units) in enumerate(zip(normalizer.channels, normalizer.units, strict=True)):
        mean, std = normalizer.mean[at], normalizer.std[at]
        if abs(means[at] - mean) > 10 * std or not std / 20 < spreads[at] < 20 * std:
            raise ValueError(
                f"{channel} of {name} averages {means[at]:.4g} with a standard deviation of {spreads[at]:.3g}, it was "
                f"trained on {mean:.4g} with a standard deviation of {std:.3g} {units}: are the units the same? "
                f"Say them: ds[{channel.variable!r}].attrs['units']"
            )


class _Sums:
    """Sums over states as they come by, per channel."""

    def __init__(self, shape: tuple[int, int, int], weights: np.ndarray, log_scale: np.ndarray):
        self.shape, self.weights, self.log_scale = shape, weights.astype(np.float64), log_scale
        self.origin: np.ndarray | None = None  # taken off every state, (channel, 1, 1)
        self.count = 0
        self.sum, self.squares = np.zeros(shape[0]), np.zeros(shape[0])
        self.low, self.high = np.full(shape[0], np.inf), np.full(shape[0], -np.inf)
        self.changes: list[np.ndarray] = []
        self.missing: np.ndarray | None = None  # number of times without a value, per cell
        self.first_missing: np.ndarray | None = None  # series and time of the first of these, per cell
        self.infinite: np.ndarray | None = None  # whether a value was infinite, which is no way to say missing
        self.digest = hashlib.sha256()
        self.scratch = np.empty(max(_CACHED_BYTES // 4, shape[2]), dtype=np.float32)

    def add(self, block: np.ndarray, where: tuple[int, np.ndarray]) -> None:
        """Add the states (time, channel, latitude, longitude) of a series at some times."""
        if self.origin is None:
            first = _logged(block[:1], self.log_scale)[0]
            valid = np.isfinite(first)
            total = np.where(valid, first, 0).sum(axis=(1, 2), dtype=np.float64)
            self.origin = (total / np.maximum(valid.sum(axis=(1, 2)), 1)).astype(np.float32)[:, None, None]
            self.digest.update(self.origin.tobytes())
        states = _logged(block, self.log_scale)
        rows, squares = np.empty((2, *block.shape[:3]), dtype=np.float32)
        missing = False
        for times, channel, band in self._pieces(len(block)):
            part = states[times, channel, band]
            raw = block[times, channel, band]
            self.low[channel] = np.fmin(self.low[channel], np.fmin.reduce(raw, axis=None))
            self.high[channel] = np.fmax(self.high[channel], np.fmax.reduce(raw, axis=None))
            anomaly = self.scratch[: part.size].reshape(part.shape)
            np.subtract(part, self.origin[channel], out=anomaly)
            anomaly.sum(axis=-1, out=rows[times, channel, band])
            if not np.isfinite(rows[times, channel, band]).all():
                missing = True
                np.nan_to_num(anomaly, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                anomaly.sum(axis=-1, out=rows[times, channel, band])
            np.einsum("tyx,tyx->ty", anomaly, anomaly, out=squares[times, channel, band])
        if missing:
            self._note_missing(block, *where)
        # sums by row tell data apart at a tenth of the cost of a hash of every value
        self.digest.update(np.concatenate([rows, squares], axis=1).tobytes())
        self.sum += (rows * self.weights).sum(axis=(0, 2))
        self.squares += (squares * self.weights).sum(axis=(0, 2))
        self.count += len(block)

    def add_changes(self, pairs: np.ndarray, states: np.ndarray, offset: int) -> None:
        """Add the squared changes of windows; `pairs` are positions of the initialization and of each lead."""
        for pair in pairs - offset:
            init = _logged(states[pair[:1]], self.log_scale)[0]
            rows = np.empty((len(pair) - 1, *self.shape[:2]), dtype=np.float32)
            for lead, at in enumerate(pair[1:]):
                with np.errstate(invalid="ignore"):  # infinities are refused when all is read
                    change = _logged(states[at : at + 1], self.log_scale)[0] - init
                if self.missing is not None:
                    np.nan_to_num(change, copy=False, nan=0.0)
                np.einsum("cyx,cyx->cy", change, change, out=rows[lead])
            self.changes.append((rows * self.weights).sum(axis=-1))

    def _pieces(self, count: int) -> Iterator[tuple[slice, int, slice]]:
        """Yield times, channel and rows of pieces that stay in the processor's cache."""
        _, height, width = self.shape
        tall = max(1, min(height, _CACHED_BYTES // (4 * width)))
        long = max(1, _CACHED_BYTES // (4 * width * tall)) if tall == height else 1
        for channel in range(self.shape[0]):
            for time in range(0, count, long):
                for row in range(0, height, tall):
                    yield slice(time, time + long), channel, slice(row, row + tall)

    def _note_missing(self, states: np.ndarray, series: int, times: np.ndarray) -> None:
        missing = ~np.isfinite(states)  # of the values as they came
        if self.missing is None:
            self.missing = np.zeros(self.shape, dtype=np.int64)
            self.first_missing = np.zeros((2, *self.shape), dtype=np.int64)
            self.infinite = np.zeros(self.shape, dtype=bool)
        self.infinite |= np.isinf(states).any(axis=0)
        new = missing.any(axis=0) & (self.missing == 0)
        self.first_missing[0][new] = series
        self.first_missing[1][new] = times[missing.argmax(axis=0)[new]]
        self.missing += missing.sum(axis=0)

    def mask(self, sources: Sequence[Source]) -> np.ndarray:
        """Return where there is never a value; refuse cells that have one at some times only."""
        if self.missing is None:
            return np.zeros(self.shape, dtype=bool)
        moving = (self.missing > 0) & (self.missing < self.count)
        if (moving | self.infinite).any():
            channel, row, column = np.argwhere(moving | self.infinite)[0]
            series, time = self.first_missing[:, channel, row, column]
            source, times = sources[series], self.missing[channel, row, column]
            value = reader.read(source, np.array([time]))[0, channel, row, column]
            raise ValueError(
                reader.describe_missing_value(source.dataset, time, channel, row, column, value)
                + f"The cell has none at {times} of the {self.count} times read, and {int(moving[channel].sum())} "
                "cells are like it: cells that never have a value are masked by themselves, a mask that moves in "
                "time is not. " + reader.missing_value_fix(source.dataset, channel)
            )
        return self.missing == self.count

    def _area(self, mask: np.ndarray) -> np.ndarray:
        """Return the summed weights of the cells with values, per channel."""
        return np.maximum(((~mask).sum(axis=2) * self.weights).sum(axis=1), 1e-300)

    def moments(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance per channel."""
        area = self._area(mask) * self.count
        mean = self.sum / area
        return mean + self.origin[:, 0, 0].astype(np.float64), np.maximum(self.squares / area - mean**2, 0)

    def change_std(self, mask: np.ndarray) -> np.ndarray:
        """Return the root mean square change, (lead, channel)."""
        # scales, with a floor that keeps what never changes from a division by zero
        return np.maximum(np.sqrt(np.mean(self.changes, axis=0) / self._area(mask)), 1e-12)


def _logged(states: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Return states with the logarithm taken where it is learned."""
    if not log_scale.any():
        return states
    states = states.copy()
    for channel in np.flatnonzero(log_scale):
        states[:, channel] = np.log1p(np.maximum(states[:, channel], 0) / np.float32(log_scale[channel]))
    return states


def _blocks(
    source: Source, used: np.ndarray, pairs: np.ndarray, keep: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (where the block begins in `used`, states up to its end, the block) over all used times in order.

    The states hold the block and, before it, as many as the changes of `pairs` reach back. The next block is read
    in the background.
    """
    reach = int((pairs[:, -1] - pairs[:, 0]).max(initial=0))
    size = max(1, _BLOCK_BYTES // source.state_bytes)
    size = max(1, size // source.chunk_times, -(-reach // source.chunk_times)) * source.chunk_times
    # blocks end where chunks end, so that no chunk is read for two of them
    bounds = [0, *range(size - source.offset_in_chunk(int(used[0])), len(used), size), len(used)]
    size = min(size, len(used))
    if keep is None:
        buffers = [np.empty((reach + size, *source.shape), dtype=np.float32) for _ in range(min(2, len(bounds) - 1))]
        blocks = [buffers[i % 2][reach : reach + bounds[i + 1] - bounds[i]] for i in range(len(bounds) - 1)]
    else:
        blocks = [keep[start:stop] for start, stop in itertools.pairwise(bounds)]

    def fill(number: int) -> None:
        times = used[bounds[number] : bounds[number + 1]]
        fetch = [Request(source, a, b, blocks[number][at : at + b - a]) for a, b, at in reader.consecutive_runs(times)]
        reader.fetch(fetch)

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(fill, 0)
        for number, start in enumerate(bounds[:-1]):
            waiting.result()
            if keep is not None:
                states = keep[: bounds[number + 1]]
            else:
                states = buffers[number % 2][: reach + len(blocks[number])]
                if number and reach:  # the end of the block before, which is overwritten from now on
                    before = reach + bounds[number] - bounds[number - 1]
                    states[:reach] = buffers[(number - 1) % 2][before - reach : before]
            if number + 2 < len(bounds):
                waiting = ahead.submit(fill, number + 1)
            yield start, states, blocks[number]


def _cache_path(
    sources: Sequence[Source],
    windows: Sequence[np.ndarray],
    weights: np.ndarray,
    history: int,
    log_scale: np.ndarray,
) -> Path | None:
    """Return where the outcome of a pass is kept, or None for data that are not known by what is stored."""
    stamps = [reader.source_identity(source) for source in sources]
    if None in stamps:
        return None
    digest = hashlib.sha256(json.dumps([2, stamps, history]).encode())
    for array in (weights, log_scale, *windows):
        digest.update(np.ascontiguousarray(array))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simvp_climate"
    return folder / f"statistics-{digest.hexdigest()[:32]}.npz"


def load_cached(path: Path) -> Statistics | None:
    """Return the statistics in a file of the cache, or None if it does not exist or is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            return Statistics(**arrays, digest=str(file["digest"]))
    except (OSError, ValueError, KeyError, EOFError):  # none there, or damaged: it is made anew
        return None


def save_cached(path: Path, found: Statistics) -> None:
    """Write statistics to a file of the cache; a folder that cannot be written to is ignored."""
    arrays = {name: getattr(found, name) for name in _ARRAYS}
    # a home that cannot be written to costs a second pass, nothing else
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        save = partial(np.savez_compressed, **arrays, digest=np.array(found.digest))
        write_atomically(path, save, sync=False, concurrent=True)
