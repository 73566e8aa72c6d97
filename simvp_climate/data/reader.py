"""Read blocks of states from an oriented Dataset as float32 arrays, each stored chunk once.

tensorstore, if installed, reads variables that are untouched views of a local Zarr array; xarray reads all others.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.checksums import ArrayChecksums
from simvp_climate.data.views import View, find_view, store_address, variable_identity
from simvp_climate.data.zarr_store import DamagedChunkError, MissingChunkError

try:
    from zarr.buffer.cpu import NDBuffer
except ModuleNotFoundError:  # zarr 3.0
    NDBuffer = None

ENGINES = ("auto", "zarr", "tensorstore")
_TASK_BYTES = 2**23  # read by one task: a few chunks, so that the cores share a block
_DECODED_BYTES = 2**28  # limit for large chunks that are decoded at the same time
_MAX_TASKS = 8  # at the same time, or as many as there are cores; remote stores serve many requests per task


@dataclass(frozen=True)
class Channel:
    """One two-dimensional field of a state: a variable, on one level (in the units of the data) or without levels."""

    variable: str
    level: float | None = None

    def __str__(self) -> str:
        return self.variable if self.level is None else f"{self.variable} at level {self.level:g}"


@dataclass(frozen=True, eq=False)
class Field:
    """One variable of a series (time, [level,] latitude, longitude), and where it is stored."""

    name: str
    variable: xr.Variable
    view: View | None  # the stored array that it is an untouched view of
    tensorstore: Any | None = None  # that array opened by tensorstore; None: xarray reads

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the largest stored chunk after decoding, including unused levels and cells; 0 if unknown."""
        if self.view is not None or self.variable.chunks is None:
            return 0 if self.view is None else self.view.chunk_bytes
        return int(np.prod([max(lengths) for lengths in self.variable.chunks])) * self.variable.dtype.itemsize

    @property
    def chunk_times(self) -> int:
        """Number of times of the series in a stored chunk; a series may skip stored times."""
        length, positions = self.time_layout()
        return max(1, length // abs(positions.step) if isinstance(positions, range) else length)

    def chunk_indices(self, start: int, stop: int) -> np.ndarray:
        """Return for times `start` to `stop` the index along time of the stored chunk."""
        length, positions = self.time_layout()
        return np.asarray(positions[start:stop]) // length

    def time_layout(self) -> tuple[int, range | np.ndarray]:
        """Return the stored times in a chunk, and the stored position of every time of the series."""
        if self.view is None:
            return max(self.variable.chunksizes.get("time", (1,))), range(self.variable.sizes["time"])
        axis = self.view.time_axis
        times = self.view.key[axis]
        is_slice = isinstance(times, slice)
        positions = range(*times.indices(self.view.stored.shape[axis])) if is_slice else np.asarray(times)
        return 1 if self.view.chunks is None else self.view.chunks[axis], positions


@dataclass(frozen=True, eq=False)
class Source:
    """A series of states that can be read."""

    dataset: xr.Dataset  # oriented
    channels: tuple[Channel, ...]  # of a state, in order
    fields: tuple[Field, ...]  # the variables, in order

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a state: channel, latitude, longitude."""
        return len(self.channels), self.dataset.sizes["latitude"], self.dataset.sizes["longitude"]

    @property
    def state_bytes(self) -> int:
        """Bytes of one state as float32."""
        return 4 * int(np.prod(self.shape))

    @property
    def chunk_times(self) -> int:
        """Largest number of times of the series in one stored chunk (or shard) of any variable; 1 if unknown."""
        return max(field.chunk_times for field in self.fields)

    @property
    def _longest_chunked(self) -> Field:
        return max(self.fields, key=lambda field: field.time_layout()[0])

    def offset_in_chunk(self, time: int) -> int:
        """Return how many times of the series its longest chunk around `time` holds before `time`."""
        length, positions = self._longest_chunked.time_layout()
        step = positions.step if isinstance(positions, range) else 1
        return int(positions[time] % length // step) if step > 0 else 0

    def decoded_times(self, start: int, stop: int) -> int:
        """Return how many times are decoded to read `start` to `stop`, in whole chunks of the longest."""
        field = self._longest_chunked
        return len(np.unique(field.chunk_indices(start, stop))) * field.chunk_times

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the largest decoded chunk of any variable."""
        return max(field.chunk_bytes for field in self.fields)

    @property
    def decoding_bytes(self) -> int:
        """Largest number of bytes being decoded at once: 64 MiB, or a few large chunks, stored and decoded."""
        return max(_MAX_TASKS * _TASK_BYTES, self.max_tasks * 2 * self.chunk_bytes)

    @property
    def max_tasks(self) -> int:
        """Number of tasks that may read at the same time: fewer where chunks are large."""
        views = [field.view for field in self.fields if field.view is not None]
        is_remote = any(view.array is not None and view.folder is None for view in views)
        tasks = _MAX_TASKS if is_remote else min(_MAX_TASKS, os.cpu_count() or 1)
        return max(1, min(tasks, _DECODED_BYTES // max(1, self.chunk_bytes)))


def list_channels(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """Return the channels of an oriented Dataset in order; ValueError if a variable has no time or other dimensions."""
    channels = []
    for name, variable in dataset.data_vars.items():
        if "time" not in variable.dims:
            fix = f"Leave {name!r} out of Task.variables, or name it in Task.forcings"
            raise ValueError(f"{name!r} has no time, only {variable.dims}: it cannot be forecast. {fix}")
        if extra := sorted(set(variable.dims) - {"time", "level", "latitude", "longitude"}):
            fix = f"ds = ds.isel({extra[0]}=0)  # or give a list of series, one for each"
            raise ValueError(f"{name!r} has dimensions {extra} beside time, level, latitude and longitude. {fix}")
        levels = dataset["level"].values.tolist() if "level" in variable.dims else [None]
        channels += [Channel(name, level) for level in levels]
    return tuple(channels)


def open_source(dataset: xr.Dataset, engine: str = "auto") -> Source:
    """Return an oriented Dataset as a source of states; engine "zarr" reads through xarray, "auto" the fastest way."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} must be one of {ENGINES}")
    channels = list_channels(dataset)
    fields = [Field(str(name), v.variable, find_view(v.variable)) for name, v in dataset.data_vars.items()]
    source = Source(dataset, channels, tuple(fields))
    if engine == "zarr":
        return source
    try:
        import tensorstore
    except ModuleNotFoundError as error:
        if engine == "tensorstore":
            fix = "Run: pip install 'simvp-climate[fast]', or use engine='auto'"
            raise ModuleNotFoundError(f"engine='tensorstore' needs tensorstore. {fix}") from error
        return source
    fields = [replace(each, tensorstore=_open_tensorstore(tensorstore, each.view, source.max_tasks)) for each in fields]
    for field in fields:
        if engine == "tensorstore" and field.tensorstore is None:
            rule = "it must be an untouched lazy view of a Zarr array on a local disk"
            raise ValueError(f"engine='tensorstore' cannot read {field.name!r}: {rule}. Use engine='auto'")
    return Source(dataset, channels, tuple(fields))


class Request(NamedTuple):
    """States to read: times `start` to `stop` (exclusive) of a source."""

    source: Source
    start: int
    stop: int
    out: np.ndarray  # float32, (stop - start, channel, latitude, longitude)


def fetch(requests: Sequence[Request]) -> None:
    """Read all requests, many chunks at once; OSError with the variable, chunk and times that cannot be read."""
    tasks, futures = [], []
    for source, first, last, states in requests:
        times, first_channel = source.dataset.indexes["time"], 0
        # tensorstore limits small chunks by itself, but would keep all large ones in memory at the same time
        are_small = source.chunk_bytes <= _TASK_BYTES
        for field in source.fields:
            channel_count = field.variable.sizes.get("level", 1)
            out = states[:, first_channel : first_channel + channel_count]
            if "level" not in field.variable.dims:
                out = out[:, 0]
            first_channel += channel_count
            try:
                future = _start_direct_read(field, first, last, out) if are_small else None
            except Exception as error:
                raise _explain(field, times, first, last, error) from error
            if future is not None:
                futures.append((field, times, first, last, future.result))
                continue
            for start, stop in _split_at_chunks(field, first, last):
                read_part = partial(_read_field, field, start, stop, out[start - first : stop - first])
                tasks.append((field, times, start, stop, read_part))
    if len(tasks) == 1:
        _run(*tasks[0])
    elif tasks:
        max_tasks = min(request.source.max_tasks for request in requests)
        with ThreadPoolExecutor(min(max_tasks, len(tasks))) as pool:
            # the list waits for all tasks and raises the first error
            list(pool.map(lambda task: _run(*task), tasks))
    for future in futures:
        _run(*future)


def read(source: Source, times: np.ndarray) -> np.ndarray:
    """Return the states at ascending time indices: float32, shape (time, channel, latitude, longitude)."""
    out = np.empty((len(times), *source.shape), dtype=np.float32)
    fetch([Request(source, start, stop, out[i : i + stop - start]) for start, stop, i in consecutive_runs(times)])
    return out


def consecutive_runs(times: np.ndarray) -> list[tuple[int, int, int]]:
    """Return ascending indices as runs without a gap: (first, last + 1, position in `times` where the run starts)."""
    if not len(times):
        return []
    begins = np.concatenate([[0], np.flatnonzero(np.diff(times) != 1) + 1])
    ends = np.append(begins[1:], len(times))
    return [(int(times[begin]), int(times[end - 1]) + 1, int(begin)) for begin, end in zip(begins, ends, strict=True)]


def source_identity(source: Source) -> str | None:
    """Return a digest of the `variable_identity` of all variables, or None if that of any is None."""
    identities = {name: variable_identity(variable.variable) for name, variable in source.dataset.data_vars.items()}
    return None if None in identities.values() else hashlib.sha256(json.dumps(identities).encode()).hexdigest()


def _open_tensorstore(tensorstore: ModuleType, view: View | None, max_tasks: int) -> Any | None:
    """Return the array of a view opened by tensorstore, or None if it is not on a local disk or not supported."""
    if view is None or view.folder is None:
        return None
    checksums = _checksums(view)
    if checksums is not None and not checksums.has_codec:  # tensorstore would not check the bytes that it decodes
        return None
    spec = {
        "driver": "zarr" if view.array.metadata.zarr_format == 2 else "zarr3",
        "kvstore": {"driver": "file", "path": f"{view.folder.absolute()}/"},
        # as for zarr-python, see `missing_chunks` of open_dataset
        "fill_missing_data_reads": getattr(view.array.store, "missing_chunks", "fill") == "fill",
        "recheck_cached_data": False,
        "recheck_cached_metadata": False,
        # fewer chunks at the same time where they are large, as for zarr-python
        "context": {"data_copy_concurrency": {"limit": max_tasks}, "file_io_concurrency": {"limit": max_tasks}},
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError:  # an unknown codec or data type
        return None


def _checksums(view: View) -> ArrayChecksums | None:
    """Return the checksums of the stored array, or None if its store has none."""
    checksums = getattr(view.array.store, "checksums", None)
    return None if checksums is None else checksums.arrays.get(view.array.path)


def _check_files(view: View, indices: list) -> None:
    """Raise DamagedChunkError if a chunk is in another's place: tensorstore does not read through the checked store."""
    if _checksums(view) is None:
        return
    positions = []
    for length, index in zip(view.chunks, indices, strict=True):
        if isinstance(index, slice):
            positions.append(range(index.start // length, (index.stop - 1) // length + 1))
        else:
            positions.append(np.unique(np.atleast_1d(index) // length).tolist())
    for position in itertools.product(*positions):
        view.array.store.check_file(view.array, view.folder, position)


def _selection(view: View, start: int, stop: int) -> tuple[list, list]:
    """Return the index to read along each stored axis, and the index that reorders each axis of the result."""
    indices, order, dims = [], [], iter(view.dims)
    for size, index in zip(view.stored.shape, view.key, strict=True):
        if isinstance(index, int):
            indices.append(index)
            continue
        dim, reorder = next(dims), slice(None)
        chosen = range(*index.indices(size)) if isinstance(index, slice) else index
        if dim == "time":
            chosen = chosen[start:stop]
        if isinstance(chosen, range):
            step = abs(chosen.step)
            if chosen.step < 0:  # read forward and flip
                chosen, reorder = chosen[::-1], slice(None, None, -1)
            indices.append(slice(chosen[0], chosen[-1] + 1, step))
        elif dim in ("latitude", "longitude"):  # lists are slow to read and would decode chunks twice
            indices.append(slice(int(chosen.min()), int(chosen.max()) + 1, 1))
            reorder = chosen - chosen.min()
        else:
            consecutive = len(chosen) == chosen[-1] - chosen[0] + 1 and (np.diff(chosen) == 1).all()
            indices.append(slice(int(chosen[0]), int(chosen[-1]) + 1, 1) if consecutive else chosen)
        order.append(reorder)
    return indices, order


def _transpose_to(dims: tuple[str, ...], out: np.ndarray) -> np.ndarray:
    """Return a view of an array (time, [level,] latitude, longitude) with its axes in the order of `dims`."""
    axes = [dim for dim in ("time", "level", "latitude", "longitude") if dim in dims]
    return out.transpose([axes.index(dim) for dim in dims])


def _start_direct_read(field: Field, start: int, stop: int, out: np.ndarray) -> Any | None:
    """Start reading with tensorstore into `out` and return a future; None if it cannot, or must convert the numbers."""
    view = field.view
    if field.tensorstore is None or view.decoders:
        return None
    import tensorstore

    indices, order = _selection(view, start, stop)
    if any(isinstance(reorder, np.ndarray) for reorder in order):
        return None
    _check_files(view, indices)
    selected = field.tensorstore.oindex[tuple(indices)]
    if selected.dtype != tensorstore.float32:
        selected = selected.astype(tensorstore.float32)
    target = _transpose_to(view.dims, out)[tuple(order)]
    return tensorstore.array(target, copy=False, write=True).write(selected)


def _run(field: Field, times: pd.Index, start: int, stop: int, work: Callable[[], object]) -> None:
    """Do work that reads a variable at some times, and explain errors."""
    try:
        work()
    except Exception as error:
        raise _explain(field, times, start, stop, error) from error


def _read_field(field: Field, start: int, stop: int, out: np.ndarray) -> None:
    """Read a variable at times `start` to `stop` into `out` (time, [level,] latitude, longitude)."""
    view, store = field.view, field.tensorstore
    target = _transpose_to(field.variable.dims, out)
    if view is None:
        # read before it is transposed: xarray reads a lazy transposed array point by point
        np.copyto(target, field.variable.isel(time=slice(start, stop)).values, casting="unsafe")
        return
    if future := _start_direct_read(field, start, stop, out):
        future.result()
        return
    indices, order = _selection(view, start, stop)
    direct = not view.decoders and not any(isinstance(axis, np.ndarray) for axis in [*indices, *order])
    if store is None and direct and NDBuffer is not None and view.array is not None and view.array.dtype == np.float32:
        # decoded into the buffer itself: an array in between takes as long again
        view.array.get_basic_selection(tuple(indices), out=NDBuffer(target[tuple(order)]))
        return
    if store is None:
        values = view.stored[tuple(indices)].values
    else:
        _check_files(view, indices)
        values = store.oindex[tuple(indices)].read().result()
        for decoder in view.decoders:
            values = decoder(values)
    for axis, reorder in enumerate(order):
        values = values[(slice(None),) * axis + (reorder,)]
    np.copyto(target, values, casting="unsafe")


def _split_at_chunks(field: Field, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield times `start` to `stop` in pieces that end where chunks end, each of about `_TASK_BYTES`."""
    time_bytes, view = 4 * field.variable.size // field.variable.sizes["time"], field.view
    if view is not None and view.chunks is not None:  # count what is decoded along with it
        time_bytes = max(time_bytes, view.chunk_bytes // view.chunks[view.time_axis])
    ends = [start + int(end) for end in np.flatnonzero(np.diff(field.chunk_indices(start, stop))) + 1]
    for end in [*ends, stop]:
        if (end - start) * time_bytes >= _TASK_BYTES or end == stop:
            yield start, end
            start = end


def _explain(field: Field, times: pd.Index, start: int, stop: int, error: Exception) -> Exception:
    """Return an OSError that names the variable, the first chunk that cannot be read, and its times."""
    view, first, last = field.view, start, stop - 1
    if view is not None and view.folder is not None:
        chunks = field.chunk_indices(start, stop)
        for begin in np.concatenate([[0], np.flatnonzero(np.diff(chunks)) + 1]):
            time = start + int(begin)
            try:
                view.stored[tuple(_selection(view, time, time + 1)[0])].load()
            except Exception as chunk_error:  # that of zarr-python, which contains the fix
                error, first = chunk_error, time
                last = start + int(np.flatnonzero(chunks == chunks[begin])[-1])
                break
    where = "" if view is None or view.array is None else f" of the store {store_address(view.array.store)}"
    chunk = "" if first == start and last == stop - 1 and len(times) > 1 else "one chunk, "
    period = f"{times[first]} to {times[last]} ({chunk}{last - first + 1} times)"
    message = f"{field.name!r}{where} cannot be read at the times {period}: {type(error).__name__}: {error}"
    if not isinstance(error, MissingChunkError | DamagedChunkError):  # these contain the fix
        message += ". If the file is damaged, copy it again; if the store is remote, check the connection and try again"
    return OSError(message)
