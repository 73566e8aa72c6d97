"""Read windows of states in a reproducible random order, as batches of tensors.

Shape suffixes: N time of all series one after another, X all values of a state (C x H x W); B window of a batch,
T time of a window, C channel, H latitude, W longitude.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simvp_climate.data import host_memory, reader
from simvp_climate.data.reader import Request, Source
from simvp_climate.processing.tensors import to_device

_RING_SIZE = 4  # batches whose memory is reused in turn
_MEMORY_SHARE = 0.6  # of the free memory
_STREAM_BYTES = 2**32  # enough to mix thousands of windows on any grid


@dataclass(frozen=True)
class Plan:
    """How windows are read. It decides their order, so a resumed run keeps it."""

    mode: str  # "memory": all states are decoded once and kept; "stream": shards are read in random order
    shard: int = 0  # consecutive windows
    group: int = 0  # shards whose windows are shuffled together


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of a batch."""

    states: Tensor  # in physical units, float32, (B, T, C, H, W)
    windows: np.ndarray  # index of each window among those of all series, (B,)


def choose_plan(
    sources: Sequence[Source], windows: Sequence[np.ndarray], batch_size: int, memory: int | str = "auto",
    share: float = 1.0,
) -> Plan:  # fmt: skip
    """Return how to read windows in a `share` of `memory` bytes: from memory if all states fit, else as a stream."""
    budget = memory
    if memory == "auto":
        free = host_memory.free_memory()
        budget = _STREAM_BYTES if free is None else _MEMORY_SHARE * free
    budget = int(budget * share)
    state_bytes = sources[0].state_bytes
    ring_bytes = _RING_SIZE * min(batch_size, sum(map(len, windows))) * windows[0].shape[1] * state_bytes
    if _count_states(windows) * state_bytes + ring_bytes <= budget:
        return Plan("memory")
    # the last windows of a shard extend up to `span` times beyond it
    span = max(int((positions[:, -1] - positions[:, 0]).max()) for positions in windows)
    chunk = max(source.chunk_times for source in sources)
    longest = max(map(len, windows))

    def shard_bytes(shard: int) -> int:
        return 2 * (shard + span) * state_bytes  # one is read while another is used

    # 12 spans: neighboring shards share less than a tenth, which is read twice, and windows still mix well
    shard = min(12 * -(-span // chunk) * chunk, -(-longest // chunk) * chunk)
    limit = min(budget, _STREAM_BYTES) if memory == "auto" else budget
    while shard > chunk and shard_bytes(shard) + ring_bytes > limit:
        shard -= chunk
    if shard_bytes(shard) + ring_bytes > limit:  # a single chunk exceeds 4 GiB
        limit = budget
    group = (limit - ring_bytes) // shard_bytes(shard)
    if group < 1:
        fraction = "" if share == 1 else f" ({share:.0%} of it, the rest is for the other period)"
        raise MemoryError(
            f"memory={memory!r} gives {budget / 2**20:.3g} MiB{fraction}, and streaming these windows takes "
            f"{(shard_bytes(shard) + ring_bytes) / 2**20:.3g} MiB: two shards of {shard + span} states (chunks hold "
            f"{chunk} times, windows span {span + 1}) and {_RING_SIZE} batches of {batch_size}. Raise memory, lower "
            "batch_size, or write the data once in smaller chunks: sc.cache(ds, path)"
        )
    return Plan("stream", shard, int(group))


def allocate(sources: Sequence[Source], windows: Sequence[np.ndarray]) -> np.ndarray:
    """Return an uninitialized array for all states that windows use, (N, C, H, W), float32."""
    count = _count_states(windows)
    needed, free = count * sources[0].state_bytes, host_memory.free_memory()
    if free is not None and needed > 0.9 * free:
        raise MemoryError(
            f"the states take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. This run keeps them in "
            "memory, which decides the order of its windows: resume it on a larger machine, or start a new run"
        )
    return np.empty((count, *sources[0].shape), dtype=np.float32)


def _count_states(windows: Sequence[np.ndarray]) -> int:
    return sum(len(np.unique(positions)) for positions in windows)


class WindowGroup(NamedTuple):
    """Windows that are read together, in the order of training."""

    windows: np.ndarray
    rows: np.ndarray  # of each window in the states, (window, T)
    states: Tensor  # (N, X)


class WindowStream:
    """Windows of one or several series in a reproducible random order, streamed every epoch or kept in memory.

    The order depends on seed, epoch, world size and plan alone. In an epoch every window comes once, on one of the
    ranks, which have the same number of batches. With plan "memory" the batches of all ranks together are those of a
    single rank with `world_size` times the `batch_size`; with plan "stream" every rank reads shards of its own.

    `windows` are the positions of the windows of each series, (window, T). `batch_size` is the largest on one rank.
    `states`, for plan "memory", are all states that windows use if they are already read, (N, C, H, W).
    """

    def __init__(
        self, sources: Sequence[Source], windows: Sequence[np.ndarray], *, batch_size: int, plan: Plan, seed: int = 0,
        rank: int = 0, world_size: int = 1, shuffle: bool = True, states: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        self.sources, self.windows, self.plan = list(sources), list(windows), plan
        self.seed, self.rank, self.world_size, self.shuffle = seed, rank, world_size, shuffle
        self.count = sum(map(len, windows))
        self.length = windows[0].shape[1]  # states in a window
        self.device = torch.device(device)
        self.decoded_steps = 0  # times decoded so far, in whole chunks
        self._pid = os.getpid()
        self._offsets = np.cumsum([0, *map(len, windows)])  # first window of each series among all windows
        self._ring: list[Tensor] = []
        self._copied: dict[int, torch.cuda.Event] = {}  # after the copies of a batch of the ring to the GPU
        self._buffers: list[np.ndarray] = []
        shares = np.diff(_even_bounds(self.count, world_size))
        batches = -(-int(shares.max()) // batch_size)
        if shares.min() < batches:
            message = f"{self.count} windows over {world_size} processes in batches of {batch_size} leave a process"
            raise ValueError(f"{message} with an empty batch: take fewer processes or a larger batch_size")
        if plan.mode == "memory":
            # each rank takes a part of every global batch, so that the global batches do not depend on the ranks
            first = _even_bounds(self.count, batches)
            bounds = [_even_bounds(int(size), world_size)[rank : rank + 2] for size in np.diff(first)]
            self._slices = [slice(*(begin + part)) for begin, part in zip(first, bounds, strict=False)]
            self.sizes = np.array([part.stop - part.start for part in self._slices])  # of the batches of this rank
            self._rows, self._states = self._keep_states(states)
        else:
            self.sizes = np.diff(_even_bounds(int(shares[rank]), batches))
            self._shards = [
                (series, begin, end)
                for series, (source, positions) in enumerate(zip(self.sources, self.windows, strict=True))
                for begin, end in _cut(len(positions), plan.shard, source.offset_in_chunk(int(positions[0, 0])))
            ]
        self.batch_size = int(self.sizes.max())  # of the largest batch of this rank

    def __len__(self) -> int:
        """Return the number of batches of an epoch, the same on every rank."""
        return len(self.sizes)

    @property
    def bound(self) -> int:
        """Upper bound of its memory in bytes: a ring of batches, and all states, or two groups and decoded chunks."""
        state_bytes = self.sources[0].state_bytes
        ring_bytes = _RING_SIZE * self.batch_size * self.length * state_bytes
        if self.plan.mode == "memory":
            return len(self._states) * state_bytes + ring_bytes
        decoding_bytes = max(source.decoding_bytes for source in self.sources)
        return 2 * self._largest_group() * state_bytes + ring_bytes + decoding_bytes

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_batch` on; windows before it are not read."""
        if os.getpid() != self._pid:
            message = "these windows were opened in another process: reading threads do not survive a fork"
            raise RuntimeError(f"{message}. Open the data in the process that uses them, and start processes by spawn")
        skipped = int(self.sizes[:first_batch].sum())
        groups = (
            self._groups_from_memory(epoch, skipped)
            if self.plan.mode == "memory"
            else self._groups_from_store(epoch, skipped)
        )
        with closing(groups):  # waits for the read in the background
            yield from self._fill_batches(groups, first_batch)

    def order(self, epoch: int) -> np.ndarray:
        """Return the windows of this rank in the order of an epoch, without reading them."""
        if self.plan.mode == "stream":
            return np.concatenate([windows for windows, _ in self._groups(epoch)])
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return np.concatenate([order[part] for part in self._slices])

    def windows_of(self, epoch: int, batch: int) -> np.ndarray:
        """Return the windows of this rank in a batch of an epoch, without reading them."""
        first = int(self.sizes[:batch].sum())
        return self.order(epoch)[first : first + int(self.sizes[batch])]

    def _fill_batches(self, groups: Iterator[WindowGroup], first_batch: int) -> Iterator[Batch]:
        """Yield batches, cut from groups."""
        windows, rows, states_NX = next(groups)
        used = 0
        for batch in range(first_batch, len(self)):
            size, filled = int(self.sizes[batch]), 0
            batch_windows = np.empty(size, dtype=np.int64)
            batch_NX = self._batch_memory(batch, size, states_NX)
            while filled < size:
                if used == len(windows):
                    (windows, rows, states_NX), used = next(groups), 0
                count = min(size - filled, len(windows) - used)
                batch_windows[filled : filled + count] = windows[used : used + count]
                out = batch_NX[filled * self.length : (filled + count) * self.length]
                taken = rows[used : used + count].reshape(-1)
                if states_NX.device.type == "cpu":
                    # mode "clip" writes straight into `out`; mode "raise" would copy through a buffer
                    np.take(states_NX.numpy(), taken, axis=0, out=out.numpy(), mode="clip")
                else:
                    torch.index_select(states_NX, 0, to_device(taken, self.device), out=out)
                filled, used = filled + count, used + count
            try:
                yield Batch(batch_NX.view(size, self.length, *self.sources[0].shape), batch_windows)
            finally:
                if self._ring and self.device.type == "cuda":
                    self._copied[batch % _RING_SIZE] = torch.cuda.current_stream(self.device).record_event()

    def _batch_memory(self, batch: int, size: int, states_NX: Tensor) -> Tensor:
        """Return a tensor to fill with a batch: on CPU the next one of the ring, on a GPU a new one."""
        if states_NX.device.type != "cpu":
            return torch.empty((size * self.length, states_NX.shape[1]), device=states_NX.device)
        if not self._ring:
            shape = (self.batch_size * self.length, states_NX.shape[1])
            if self.device.type == "cuda":
                self._ring = [torch.empty(shape, pin_memory=True) for _ in range(_RING_SIZE)]
            else:  # NumPy asks for huge pages: a copy into them takes two thirds of the time
                self._ring = [torch.from_numpy(np.empty(shape, dtype=np.float32)) for _ in range(_RING_SIZE)]
        if (copied := self._copied.get(batch % _RING_SIZE)) is not None:
            copied.synchronize()  # the GPU may lag behind by more batches than the ring has
        return self._ring[batch % _RING_SIZE][: size * self.length]

    def _keep_states(self, states: np.ndarray | None) -> tuple[np.ndarray, Tensor]:
        """Return the rows of each window in the states, (window, T), and all states, (N, X), on the GPU if they fit."""
        used = [np.unique(positions, return_inverse=True) for positions in self.windows]
        first = np.cumsum([0, *(len(times) for times, _ in used)])
        rows = [index.reshape(-1, self.length) + start for start, (_, index) in zip(first, used, strict=False)]
        if states is None:
            states = np.concatenate([reader.read(source, used[i][0]) for i, source in enumerate(self.sources)])
        states_NX = torch.from_numpy(states.reshape(len(states), -1))
        if self.device.type == "cuda" and states_NX.nbytes < torch.cuda.mem_get_info(self.device)[0] / 2:
            states_NX = states_NX.to(self.device)
        return np.concatenate(rows), states_NX

    def _groups_from_memory(self, epoch: int, skipped_windows: int) -> Iterator[WindowGroup]:
        windows = self.order(epoch)[skipped_windows:]
        yield WindowGroup(windows, self._rows[windows], self._states)

    def _groups(self, epoch: int) -> Iterator[tuple[np.ndarray, list[tuple[int, int, int]]]]:
        """Yield for each group of this rank its windows in order, and its shards (series, begin, end)."""
        shards = self._shards
        if self.shuffle:
            shards = [shards[i] for i in np.random.default_rng([self.seed, epoch]).permutation(len(shards))]
        first, last = _even_bounds(self.count, self.world_size)[self.rank : self.rank + 2]
        rank_shards, passed = [], 0
        for series, begin, end in shards:
            # the part of the shard that falls to this rank
            low, high = max(begin, begin + first - passed), min(end, begin + last - passed)
            if low < high:
                rank_shards.append((series, low, high))
            passed += end - begin
        for start in range(0, len(rank_shards), self.plan.group):
            group = rank_shards[start : start + self.plan.group]
            windows = np.concatenate([self._offsets[series] + np.arange(low, high) for series, low, high in group])
            if self.shuffle:
                windows = np.random.default_rng([self.seed, epoch, self.rank, start]).permutation(windows)
            yield windows, group

    def _largest_group(self) -> int:
        """Return the largest number of states that a group may have."""
        largest = 0
        for series, begin, end in self._shards:
            contiguous = int(self.windows[series][end - 1, -1] - self.windows[series][begin, 0]) + 1
            largest = max(largest, min(contiguous, (end - begin) * self.length))
        return largest * min(self.plan.group, len(self._shards))

    def _groups_from_store(self, epoch: int, skipped_windows: int) -> Iterator[WindowGroup]:
        """Yield the groups of an epoch, while the next one is read in the background."""
        if not self._buffers:
            shape = (self._largest_group(), *self.sources[0].shape)
            # reused in every epoch: memory that is new to the process costs more than the copy into it
            self._buffers = [np.empty(shape, dtype=np.float32) for _ in range(2)]
        groups = self._groups(epoch)
        first = next(groups)
        while skipped_windows >= len(first[0]):
            skipped_windows -= len(first[0])
            first = next(groups)
        with ThreadPoolExecutor(1, thread_name_prefix="windows") as reading:
            waiting, turn = reading.submit(self._read_group, *first, self._buffers[0]), 1
            while waiting is not None:
                windows, rows, states_NX = waiting.result()
                following = next(groups, None)
                waiting = following and reading.submit(self._read_group, *following, self._buffers[turn % 2])
                turn += 1
                yield WindowGroup(windows[skipped_windows:], rows[skipped_windows:], states_NX)
                skipped_windows = 0

    def _read_group(self, windows: np.ndarray, shards: list[tuple[int, int, int]], buffer: np.ndarray) -> WindowGroup:
        """Read the states of some shards, and return them with the windows."""
        requests, shard_windows, shard_rows, count = [], [], [], 0
        for series, low, high in shards:
            source, positions = self.sources[series], self.windows[series][low:high]
            times = np.unique(positions)
            for start, stop, begin in reader.consecutive_runs(times):
                requests.append(Request(source, start, stop, buffer[count + begin : count + begin + stop - start]))
                self.decoded_steps += source.decoded_times(start, stop)
            shard_windows.append(self._offsets[series] + np.arange(low, high))
            shard_rows.append(np.searchsorted(times, positions) + count)
            count += len(times)
        reader.fetch(requests)
        # from the order of reading to the shuffled order of `windows`
        in_order, rows = np.concatenate(shard_windows), np.concatenate(shard_rows)
        sorter = np.argsort(in_order)
        rows = rows[sorter[np.searchsorted(in_order, windows, sorter=sorter)]]
        return WindowGroup(windows, rows, torch.from_numpy(buffer[:count].reshape(count, -1)))


def _even_bounds(count: int, parts: int) -> np.ndarray:
    """Return the bounds that divide a count into parts of nearly equal size, (parts + 1,)."""
    return np.cumsum([0, *(count // parts + (part < count % parts) for part in range(parts))])


def _cut(count: int, length: int, phase: int) -> list[tuple[int, int]]:
    """Return shards (begin, end) of `count` windows; all but the first begin at the start of a chunk."""
    begins = [0, *range(length - phase % length, count, length)]
    return list(zip(begins, [*begins[1:], count], strict=True))
