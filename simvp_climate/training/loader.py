"""Windows as shuffled tensors, normalized on the device: here labels become numbers.

Shape suffixes: N time of all series one after another, C channel, H latitude, W longitude; B window of a
batch, T time of a window; F forcing.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simvp_climate.data import reader
from simvp_climate.data.reader import Request, Source

_RING = 4  # batches that are filled in turn
_SHARE = 0.6  # of the free memory that the states may take
_FILL_BYTES = 2**26  # read at once into the states that are kept
_STREAM_BYTES = 2**32  # enough for thousands of windows of any grid to be mixed


@dataclass(frozen=True)
class Plan:
    """How windows are read: it decides their order, so a run that goes on keeps it.

    Attributes
    ----------
    tier
        "memory": all states are decoded once and kept; every epoch is a random order of all windows.
        "stream": stretches of `segment` windows in a row are read in random order, and `group` of them are mixed
        at a time.
    segment, group
        Windows in a stretch, and stretches in a group; 0 for "memory".
    """

    tier: str
    segment: int = 0
    group: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of one step of training.

    Attributes
    ----------
    states
        In physical units, float32, (B, T, C, H, W).
    windows
        Which windows these are, counted over all series, (B,).
    """

    states: Tensor
    windows: np.ndarray


def choose_plan(
    sources: Sequence[Source],
    windows: Sequence[np.ndarray],
    batch_size: int,
    memory: int | str = "auto",
    share: float = 1.0,
) -> Plan:
    """Return how to read some windows within a number of bytes.

    Parameters
    ----------
    memory
        Bytes that the states may take. "auto": 60 % of the memory that is free; states that do not fit are
        streamed through at most 4 GiB, or as much of it as the length of the chunks makes necessary.
    share
        The part of this that these windows may take.

    Raises
    ------
    MemoryError
        If not even one stretch as long as a stored chunk fits.
    """
    budget = memory
    if memory == "auto":
        free = reader.free_memory()
        budget = _STREAM_BYTES if free is None else _SHARE * free
    budget = int(budget * share)
    state = sources[0].state_bytes
    ring = _RING * min(batch_size, sum(map(len, windows))) * windows[0].shape[1] * state
    if sum(len(np.unique(positions)) for positions in windows) * state + ring <= budget:
        return Plan("memory")
    # what a stretch reads beyond its own length: the rest of its last windows, up to the end of a chunk
    span = max(int((positions[:, -1] - positions[:, 0]).max()) for positions in windows)
    chunk = max(source.chunk for source in sources)
    longest = max(map(len, windows))

    def needed(segment: int) -> int:
        return 2 * (segment + span) * state + ring

    # less than a tenth is read twice: the price of a chunk that two stretches share, against worse mixing
    segment = min(12 * -(-span // chunk) * chunk, -(-longest // chunk) * chunk)
    most = min(budget, _STREAM_BYTES) if memory == "auto" else budget
    while segment > chunk and needed(segment) > most:
        segment -= chunk
    if needed(segment) > most:  # chunks that are longer than what is thought enough
        most = budget
    group = (most - ring) // (needed(segment) - ring)
    if group < 1:
        part = "" if share == 1 else f" ({share:.0%} of it, the rest is for the other period)"
        raise MemoryError(
            f"memory={memory!r} gives {budget / 2**20:.3g} MiB{part}, and to stream these windows takes "
            f"{needed(segment) / 2**20:.3g}: two stretches of {segment + span} states (chunks hold {chunk} times, "
            f"windows reach over {span + 1}) and {_RING} batches of {batch_size}. Give more, take a smaller "
            "batch_size, or write the data once in smaller chunks: sc.cache(ds, path)"
        )
    return Plan("stream", segment, int(group))


def room_for(sources: Sequence[Source], windows: Sequence[np.ndarray]) -> np.ndarray:
    """Return an empty array for all states that windows use, (N, C, H, W), float32.

    Raises
    ------
    MemoryError
        If they do not fit into the memory that is free: a run that was begun on a larger machine.
    """
    count = sum(len(np.unique(positions)) for positions in windows)
    needed, free = count * sources[0].state_bytes, reader.free_memory()
    if free is not None and needed > 0.9 * free:
        raise MemoryError(
            f"the states take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. This run keeps them in "
            "memory, which decides the order of its windows: go on where there is as much, or start anew"
        )
    return np.empty((count, *sources[0].shape), dtype=np.float32)


class WindowStream:
    """Windows of one or several series in a reproducible random order, read once an epoch or kept in memory.

    The order is a function of seed, epoch, world and plan alone: never of threads, engine or where the run was
    stopped. Every window comes once an epoch, on one of the ranks. Batches are of nearly equal size, and every rank
    has the same number of them, so that no window is left out and no rank waits. From memory the batches of all ranks
    together are those that one rank would have with `world` times the `batch_size`; from a stream each rank has
    stretches of its own, so that none is read twice.

    Memory when streaming, beside that of the interpreter: two groups, one read in the background while the other is
    used, of at most `group` x (`segment` + reach of a window - 1) states; and four batches. These `choose_plan` keeps
    within the memory given. On top come the chunks being decoded (`Source.in_flight`): 64 MiB, or more where chunks are
    large: these count whole, as stored and decoded, with all levels that are in them, and up to 256 MiB of them (or
    one) are decoded at once. `bound` is the sum of all. A batch's tensor is filled anew three batches later.

    One process: threads only, no workers. To fork while it runs is refused, because threads do not survive it.

    Parameters
    ----------
    sources, windows
        The series, and for each the positions of its windows, (window, T).
    batch_size
        Largest number of windows in a batch.
    plan
        See `choose_plan`.
    seed
        Of the order.
    rank, world
        Which of how many processes this is.
    shuffle
        False gives the windows in order.
    states
        For a plan in memory the states if they were read already, (N, C, H, W): all times that windows use, series
        after series; otherwise they are read here.
    device
        Where states in memory lie, and batches of them come from.

    Raises
    ------
    ValueError
        If a rank would have no window, or an empty batch.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        windows: Sequence[np.ndarray],
        *,
        batch_size: int,
        plan: Plan,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        states: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ):
        self.sources, self.windows, self.plan = list(sources), list(windows), plan
        self.seed, self.rank, self.world, self.shuffle = seed, rank, world, shuffle
        self.count = sum(map(len, windows))
        self.device = torch.device(device)
        self.decoded_steps = 0  # times decoded so far, whole chunks of the longest kind
        self._pid = os.getpid()
        shares = np.diff(_shares(self.count, world))
        self.batches = -(-int(shares.max()) // batch_size)
        if shares.min() < self.batches:
            raise ValueError(
                f"{self.count} windows over {world} processes in batches of {batch_size} leave a process with an empty "
                "batch: take fewer processes or a larger batch_size"
            )
        self._first = np.cumsum([0, *map(len, windows)])  # of each series among all windows
        if plan.tier == "memory":
            # a part of each batch of all ranks together: these are then the same for any number of ranks
            first = _shares(self.count, self.batches)
            own = [_shares(int(size), world)[rank : rank + 2] for size in np.diff(first)]
            self._own = [slice(*(begin + part)) for begin, part in zip(first, own, strict=False)]
            self.sizes = np.array([part.stop - part.start for part in self._own])  # windows in each batch of this rank
        else:
            self.sizes = np.diff(_shares(int(shares[rank]), self.batches))
        self._states, self._positions = None, None
        self._ring: list[Tensor] = []
        self._buffers: list[np.ndarray] = []
        if plan.tier == "memory":
            self._keep(states)
        else:
            self._segments = [
                (number, begin, end)
                for number, (source, positions) in enumerate(zip(self.sources, self.windows, strict=True))
                for begin, end in _cut(len(positions), plan.segment, source.phase(int(positions[0, 0])))
            ]

    def __len__(self) -> int:
        """Return the number of batches an epoch has, on every rank."""
        return self.batches

    @property
    def length(self) -> int:
        """Number of states in a window."""
        return self.windows[0].shape[1]

    @property
    def batch_size(self) -> int:
        """Number of windows in the largest batch of this rank."""
        return int(self.sizes.max())

    @property
    def bound(self) -> int:
        """Bytes that this holds at most, the interpreter and its libraries not counted."""
        state = self.sources[0].state_bytes
        ring = _RING * self.batch_size * self.length * state
        if self.plan.tier == "memory":
            return len(self._states) * state + ring
        return 2 * self._group_states() * state + ring + max(source.in_flight for source in self.sources)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from `first_batch` on: what is before it is not read."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "these windows were opened in another process: threads that read do not survive a fork. Open the data "
                "in the process that uses them, and start processes by spawn"
            )
        skipped = int(self.sizes[:first_batch].sum())
        parts = self._from_memory(epoch, skipped) if self.plan.tier == "memory" else self._from_store(epoch, skipped)
        try:
            yield from self._fill(parts, first_batch)
        finally:
            parts.close()  # waits for the read in the background

    def _fill(self, parts: Iterator, first_batch: int) -> Iterator[Batch]:
        """Yield batches from parts (windows, their rows, the states)."""
        current, at = None, 0
        for number in range(first_batch, self.batches):
            size = int(self.sizes[number])
            windows = np.empty(size, dtype=np.int64)
            states = None
            filled = 0
            while filled < size:
                if current is None or at == len(current[0]):
                    current, at = next(parts), 0
                ids, rows, states_NX = current
                take = min(size - filled, len(ids) - at)
                windows[filled : filled + take] = ids[at : at + take]
                if states is None:
                    states = self._target(number, size, states_NX)
                rest = states[filled * self.length : (filled + take) * self.length]
                _gather(states_NX, rows[at : at + take].reshape(-1), rest)
                filled += take
                at += take
            yield Batch(states.view(size, self.length, *self.sources[0].shape), windows)

    def order(self, epoch: int) -> np.ndarray:
        """Return the windows of this rank in the order in which an epoch gives them, nothing read."""
        if self.plan.tier == "memory":
            return self._shuffled_all(epoch)
        return np.concatenate([ids for ids, _ in self._groups(epoch)])

    def windows_of(self, epoch: int, batch: int) -> np.ndarray:
        """Return the windows of this rank in a batch of an epoch, nothing read."""
        first = int(self.sizes[:batch].sum())
        return self.order(epoch)[first : first + int(self.sizes[batch])]

    def _target(self, number: int, size: int, states_NX: Tensor) -> Tensor:
        if states_NX.device.type != "cpu":
            return torch.empty((size * self.length, states_NX.shape[1]), device=states_NX.device)
        if not self._ring:
            shape = (self.batch_size * self.length, states_NX.shape[1])
            if torch.cuda.is_available():
                self._ring = [torch.empty(shape, pin_memory=True) for _ in range(_RING)]
            else:  # by NumPy, which asks for huge pages: a copy into them takes two thirds of the time
                self._ring = [torch.from_numpy(np.empty(shape, dtype=np.float32)) for _ in range(_RING)]
        return self._ring[number % _RING][: size * self.length]

    def _keep(self, states: np.ndarray | None) -> None:
        """Hold all states that windows use, and where in them the windows are."""
        self._positions, used_all, first = [], [], 0
        for positions in self.windows:
            used, rows = np.unique(positions, return_inverse=True)
            self._positions.append(rows.reshape(positions.shape) + first)
            used_all.append(used)
            first += len(used)
        self._positions = np.concatenate(self._positions)
        if states is None:
            states = np.empty((first, *self.sources[0].shape), dtype=np.float32)
            at = 0
            for source, used in zip(self.sources, used_all, strict=True):
                for start, stop, begin in reader.runs(used):
                    # block by block: all at once would hold all decoded chunks beside the states
                    bounds = [*range(start, stop, max(source.chunk, _FILL_BYTES // source.state_bytes)), stop]
                    for low, high in itertools.pairwise(bounds):
                        place = at + begin + low - start
                        reader.fetch([Request(source, low, high, states[place : place + high - low])])
                at += len(used)
            self.decoded_steps += first
        self._states = torch.from_numpy(states.reshape(first, -1))
        if self.device.type == "cuda" and self._states.nbytes < torch.cuda.mem_get_info(self.device)[0] / 2:
            self._states = self._states.to(self.device)

    def _shuffled_all(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count) if self.shuffle else None
        order = np.arange(self.count) if order is None else order
        return np.concatenate([order[part] for part in self._own])

    def _from_memory(self, epoch: int, skipped: int) -> Iterator[tuple[np.ndarray, np.ndarray, Tensor]]:
        ids = self._shuffled_all(epoch)[skipped:]
        yield ids, self._positions[ids], self._states

    def _groups(self, epoch: int) -> Iterator[tuple[np.ndarray, list[tuple[int, int, int]]]]:
        """Yield for each group of this rank its windows in order, and its stretches (series, begin, end)."""
        segments = self._segments
        if self.shuffle:
            segments = [segments[i] for i in np.random.default_rng([self.seed, epoch]).permutation(len(segments))]
        first, last = _shares(self.count, self.world)[self.rank : self.rank + 2]
        own, at = [], 0
        for number, begin, end in segments:
            # the part of the stretch that falls to this rank
            low, high = max(begin, begin + first - at), min(end, begin + last - at)
            if low < high:
                own.append((number, low, high))
            at += end - begin
        for place in range(0, len(own), self.plan.group):
            stretches = own[place : place + self.plan.group]
            ids = np.concatenate([self._first[number] + np.arange(low, high) for number, low, high in stretches])
            if self.shuffle:
                ids = np.random.default_rng([self.seed, epoch, self.rank, place]).permutation(ids)
            yield ids, stretches

    def _group_states(self) -> int:
        """Return the largest number of states that a group may hold."""
        reach = 0
        for number, begin, end in self._segments:
            positions = self.windows[number]
            dense = int(positions[end - 1, -1] - positions[begin, 0]) + 1
            reach = max(reach, min(dense, (end - begin) * self.length))
        return reach * min(self.plan.group, len(self._segments))

    def _from_store(self, epoch: int, skipped: int) -> Iterator[tuple[np.ndarray, np.ndarray, Tensor]]:
        """Yield the groups of an epoch; the next one is read in the background while one is used."""
        if not self._buffers:
            shape = (self._group_states(), *self.sources[0].shape)
            # kept from epoch to epoch: memory that is new to the process costs more than the copy into it
            self._buffers = [np.empty(shape, dtype=np.float32) for _ in range(2)]
        groups = self._groups(epoch)
        first = next(groups)
        while skipped >= len(first[0]):
            skipped -= len(first[0])
            first = next(groups)
        with ThreadPoolExecutor(1, thread_name_prefix="windows") as ahead:
            waiting, turn = ahead.submit(self._read_group, *first, self._buffers[0]), 1
            while waiting is not None:
                ids, rows, states_NX = waiting.result()
                following = next(groups, None)
                waiting = following and ahead.submit(self._read_group, *following, self._buffers[turn % 2])
                turn += 1
                yield ids[skipped:], rows[skipped:], states_NX
                skipped = 0

    def _read_group(
        self, ids: np.ndarray, stretches: list[tuple[int, int, int]], buffer: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Read the states of some stretches, and return the windows, their rows in the states, and the states."""
        requests, ordered, rows, at = [], [], [], 0
        for number, low, high in stretches:
            source, positions = self.sources[number], self.windows[number][low:high]
            used = np.unique(positions)
            for start, stop, begin in reader.runs(used):
                requests.append(Request(source, start, stop, buffer[at + begin : at + begin + stop - start]))
                self.decoded_steps += source.decoded(start, stop)
            ordered.append(self._first[number] + np.arange(low, high))
            rows.append(np.searchsorted(used, positions) + at)
            at += len(used)
        reader.fetch(requests)
        numbers, places = np.concatenate(ordered), np.concatenate(rows)
        sorter = np.argsort(numbers)
        places = places[sorter[np.searchsorted(numbers, ids, sorter=sorter)]]
        return ids, places, torch.from_numpy(buffer[:at].reshape(at, -1))


def _gather(states_NX: Tensor, rows: np.ndarray, out: Tensor) -> None:
    """Copy some rows of the states into `out`."""
    if states_NX.device.type == "cpu":
        # "clip" copies straight into the buffer, where "raise" would take one of its own
        np.take(states_NX.numpy(), rows, axis=0, out=out.numpy(), mode="clip")
    else:
        torch.index_select(states_NX, 0, torch.from_numpy(rows).to(states_NX.device), out=out)


def _shares(count: int, parts: int) -> np.ndarray:
    """Return where each of some parts of nearly equal size begins, and the end of the last."""
    return np.cumsum([0, *(count // parts + (part < count % parts) for part in range(parts))])


def _cut(count: int, length: int, phase: int) -> list[tuple[int, int]]:
    """Return stretches (begin, end) of some windows; all but the first begin where a chunk does."""
    begins = [0, *range(length - phase % length, count, length)]
    return list(zip(begins, [*begins[1:], count], strict=True))
