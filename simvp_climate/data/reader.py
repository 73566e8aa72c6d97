"""Read blocks of states from an oriented Dataset as float32 arrays, each stored chunk once.

A variable that is still an untouched lazy view of a Zarr array on a local disk is read by tensorstore where that is
installed, straight into the output buffer; everything else is read through xarray. Both give the same values.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import xarray as xr
from zarr.core.buffer.cpu import NDBuffer

from simvp_climate.data.checked_store import DamagedChunkError, MissingChunkError
from simvp_climate.data.views import View, find_view, store_address, variable_identity

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
class Source:
    """A series of states that can be read: an oriented Dataset and where its variables are stored."""

    dataset: xr.Dataset
    channels: tuple[Channel, ...]  # of a state, in order
    views: tuple[View | None, ...]  # for each variable the stored array that it is an untouched view of
    tensorstores: tuple[object | None, ...]  # for each variable the array opened by tensorstore; None: xarray reads

    @property
    def time_count(self) -> int:
        """Number of times."""
        return self.dataset.sizes["time"]

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
        return max(self._times_per_chunk(index) for index in range(len(self.views)))

    def offset_in_chunk(self, time: int) -> int:
        """Return how many times of the series its longest chunk around `time` holds before `time`."""
        length, positions = self._time_layout(self._longest_chunked())
        step = positions.step if isinstance(positions, range) else 1
        return int(positions[time] % length // step) if step > 0 else 0

    def decoded_times(self, start: int, stop: int) -> int:
        """Return how many times are decoded to read `start` to `stop`, in whole chunks of the longest."""
        index = self._longest_chunked()
        return len(np.unique(self.chunk_indices(index, start, stop))) * self._times_per_chunk(index)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the largest stored chunk after decoding, including unused levels and cells."""
        sizes = [0]
        for view, variable in zip(self.views, self.dataset.data_vars.values(), strict=True):
            if view is not None:
                sizes.append(view.chunk_bytes)
            elif variable.chunks is not None:
                sizes.append(int(np.prod([max(lengths) for lengths in variable.chunks])) * variable.dtype.itemsize)
        return max(sizes)

    @property
    def decoding_bytes(self) -> int:
        """Largest number of bytes being decoded at once: 64 MiB, or a few large chunks, stored and decoded."""
        return max(_MAX_TASKS * _TASK_BYTES, self.max_tasks * 2 * self.chunk_bytes)

    @property
    def max_tasks(self) -> int:
        """Number of tasks that may read at the same time: fewer where chunks are large."""
        remote = any(view is not None and view.is_remote for view in self.views)
        tasks = _MAX_TASKS if remote else min(_MAX_TASKS, os.cpu_count() or 1)
        return max(1, min(tasks, _DECODED_BYTES // max(1, self.chunk_bytes)))

    def level_count(self, index: int) -> int:
        """Return the number of levels of a variable, 0 if it has no level dimension."""
        return self._variable(index).sizes.get("level", 0)

    def chunk_indices(self, index: int, start: int, stop: int) -> np.ndarray:
        """Return for times `start` to `stop` the index along time of the stored chunk of a variable."""
        length, positions = self._time_layout(index)
        return np.asarray(positions[start:stop]) // length

    def _variable(self, index: int) -> xr.DataArray:
        return self.dataset[list(self.dataset.data_vars)[index]]

    def _longest_chunked(self) -> int:
        """Return the index of the variable with the most times in a stored chunk."""
        return max(range(len(self.views)), key=lambda index: self._time_layout(index)[0])

    def _times_per_chunk(self, index: int) -> int:
        """Return the number of times of the series in a chunk of a variable; a series may skip stored times."""
        length, positions = self._time_layout(index)
        return max(1, length // abs(positions.step) if isinstance(positions, range) else length)

    def _time_layout(self, index: int) -> tuple[int, range | np.ndarray]:
        """Return the stored times in a chunk of a variable, and the stored position of every time of the series."""
        view = self.views[index]
        if view is None:
            return max(self._variable(index).variable.chunksizes.get("time", (1,))), range(self.time_count)
        times = view.key[view.time_axis]
        if isinstance(times, slice):
            positions = range(*times.indices(view.stored.shape[view.time_axis]))
        else:
            positions = np.asarray(times)
        return 1 if view.chunks is None else view.chunks[view.time_axis], positions


def list_channels(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """Return the channels of an oriented Dataset: variables in order, each with its levels in order.

    ValueError if a variable has no time dimension, or one other than time, level, latitude and longitude.
    """
    channels = []
    for name, variable in dataset.data_vars.items():
        if "time" not in variable.dims:
            raise ValueError(
                f"{name!r} has no time, only {variable.dims}: it cannot be forecast. Leave {name!r} out of "
                "Task.variables, or name it in Task.forcings"
            )
        if extra := sorted(set(variable.dims) - {"time", "level", "latitude", "longitude"}):
            raise ValueError(
                f"{name!r} has dimensions {extra} beside time, level, latitude and longitude. "
                f"ds = ds.isel({extra[0]}=0)  # or give a list of series, one for each"
            )
        levels = dataset["level"].values.tolist() if "level" in variable.dims else [None]
        channels += [Channel(name, level) for level in levels]
    return tuple(channels)


def open_source(dataset: xr.Dataset, engine: str = "auto") -> Source:
    """Return an oriented Dataset (time, [level,] latitude, longitude) as a source of states.

    Engine "zarr" reads through xarray and zarr-python, "tensorstore" every variable with tensorstore, "auto" with
    tensorstore those that it can read. ValueError if the engine is unknown or tensorstore cannot read a variable,
    ModuleNotFoundError if it is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} must be one of {ENGINES}")
    channels = list_channels(dataset)
    views = tuple(find_view(variable.variable) for variable in dataset.data_vars.values())
    source = Source(dataset, channels, views, (None,) * len(views))
    if engine == "zarr":
        return source
    try:
        import tensorstore
    except ModuleNotFoundError as error:
        if engine == "tensorstore":
            raise ModuleNotFoundError(
                "engine='tensorstore' needs tensorstore. Run: pip install 'simvp-climate[fast]', or use engine='auto'"
            ) from error
        return source
    opened = tuple(None if view is None else _open_tensorstore(tensorstore, view, source.max_tasks) for view in views)
    if engine == "tensorstore" and None in opened:
        name = list(dataset.data_vars)[opened.index(None)]
        raise ValueError(
            f"engine='tensorstore' cannot read {name!r}: it must be an untouched lazy view of a Zarr array on a local "
            "disk. Use engine='auto'"
        )
    return Source(dataset, channels, views, opened)


@dataclass(frozen=True, eq=False)
class Request:
    """States to read: times `start` to `stop` (exclusive) of a source into `out`.

    `out` is float32 of shape (stop - start, channel, latitude, longitude).
    """

    source: Source
    start: int
    stop: int
    out: np.ndarray


def fetch(requests: Sequence[Request]) -> None:
    """Read all requests into their arrays, many chunks at the same time; return when every value has arrived.

    OSError, with the variable, the chunk and its times, if something cannot be read.
    """
    tasks, futures = [], []
    for request in requests:
        source, first_channel = request.source, 0
        for index, variable in enumerate(source.dataset.data_vars.values()):
            channel_count = variable.sizes.get("level", 1)
            out = request.out[:, first_channel : first_channel + channel_count]
            if "level" not in variable.dims:
                out = out[:, 0]
            first_channel += channel_count
            view, store = source.views[index], source.tensorstores[index]
            # tensorstore limits small chunks by itself, but would keep all large ones in memory at the same time
            direct = store is not None and source.chunk_bytes <= _TASK_BYTES
            if direct and (future := _start_direct_read(view, store, request.start, request.stop, out)):
                futures.append((source, index, request.start, request.stop, future))
                continue
            for start, stop in _split_at_chunks(source, index, request.start, request.stop):
                tasks.append((source, index, start, stop, out[start - request.start : stop - request.start]))
    if len(tasks) == 1:
        _run(*tasks[0])
    elif tasks:
        max_tasks = min(request.source.max_tasks for request in requests)
        with ThreadPoolExecutor(min(max_tasks, len(tasks))) as pool:
            # the list waits for all tasks and raises the first error
            list(pool.map(lambda task: _run(*task), tasks))
    for source, index, start, stop, future in futures:
        try:
            future.result()
        except Exception as error:
            raise _explain(source, index, start, stop, error) from error


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
    if None in identities.values():
        return None
    return hashlib.sha256(json.dumps(identities).encode()).hexdigest()


def _open_tensorstore(tensorstore: ModuleType, view: View, max_tasks: int) -> object | None:
    """Return the array of a view opened by tensorstore, or None if it is not on a local disk or not supported."""
    folder = view.folder
    if folder is None:
        return None
    spec = {
        "driver": "zarr" if view.array.metadata.zarr_format == 2 else "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
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


def _selection(view: View, start: int, stop: int) -> tuple[list, list]:
    """Return the index to read along each stored axis, and for each axis of the result how to reorder it, or None.

    Slices that run forward are read as they are. Backward slices are read forward and flipped. A list of latitudes or
    longitudes is read as the slice that contains it, because lists are slow to read and would decode chunks twice. A
    list of levels or times is read as it is.
    """
    indices, order, dims = [], [], iter(view.dims)
    for size, index in zip(view.stored.shape, view.key, strict=True):
        if isinstance(index, int):
            indices.append(index)
            continue
        dim = next(dims)
        if isinstance(index, slice):
            chosen = range(*index.indices(size))
            if dim == "time":
                chosen = chosen[start:stop]
            if chosen.step < 0:
                indices.append(slice(chosen[-1], chosen[0] + 1, -chosen.step))
                order.append(slice(None, None, -1))
            else:
                indices.append(slice(chosen[0], chosen[-1] + 1, chosen.step))
                order.append(None)
            continue
        chosen = index[start:stop] if dim == "time" else index
        if dim in ("latitude", "longitude"):
            indices.append(slice(int(chosen.min()), int(chosen.max()) + 1, 1))
            order.append(chosen - chosen.min())
        else:
            consecutive = len(chosen) == chosen[-1] - chosen[0] + 1 and (np.diff(chosen) == 1).all()
            indices.append(slice(int(chosen[0]), int(chosen[-1]) + 1, 1) if consecutive else chosen)
            order.append(None)
    return indices, order


def _transpose_to(dims: tuple[str, ...], out: np.ndarray) -> np.ndarray:
    """Return a view of an array (time, [level,] latitude, longitude) with its axes in the order of `dims`."""
    axes = [dim for dim in ("time", "level", "latitude", "longitude") if dim in dims]
    return out.transpose([axes.index(dim) for dim in dims])


def _in_stored_order(view: View, order: list, out: np.ndarray) -> np.ndarray:
    """Return a view of `out` in the order of the stored axes, backward axes flipped."""
    return _transpose_to(view.dims, out)[tuple(slice(None) if reorder is None else reorder for reorder in order)]


def _start_direct_read(view: View, store: object, start: int, stop: int, out: np.ndarray) -> object | None:
    """Start reading with tensorstore into `out` and return a future; return None if the numbers must be converted."""
    import tensorstore

    indices, order = _selection(view, start, stop)
    if view.decoders or any(isinstance(reorder, np.ndarray) for reorder in order):
        return None
    target = _in_stored_order(view, order, out)
    selected = store.oindex[tuple(indices)]
    if selected.dtype != tensorstore.float32:
        selected = selected.astype(tensorstore.float32)
    return tensorstore.array(target, copy=False, write=True).write(selected)


def _run(source: Source, index: int, start: int, stop: int, out: np.ndarray) -> None:
    """Read one variable at some times into `out` (time, [level,] latitude, longitude), and explain errors."""
    try:
        _read_variable(source, index, start, stop, out)
    except Exception as error:
        raise _explain(source, index, start, stop, error) from error


def _read_variable(source: Source, index: int, start: int, stop: int, out: np.ndarray) -> None:
    view, store = source.views[index], source.tensorstores[index]
    if view is None:
        variable = source.dataset.variables[list(source.dataset.data_vars)[index]]
        # read before it is transposed: xarray reads a lazy transposed array point by point
        np.copyto(_transpose_to(variable.dims, out), variable.isel(time=slice(start, stop)).values, casting="unsafe")
        return
    if store is not None and (future := _start_direct_read(view, store, start, stop, out)):
        future.result()
        return
    indices, order = _selection(view, start, stop)
    direct = not view.decoders and not any(isinstance(axis, np.ndarray) for axis in [*indices, *order])
    if store is None and direct and view.array is not None and view.array.dtype == np.float32:
        # decoded into the buffer itself: an array in between takes as long again
        view.array.get_basic_selection(tuple(indices), out=NDBuffer(_in_stored_order(view, order, out)))
        return
    if store is None:
        values = view.stored[tuple(indices)].values
    else:
        values = store.oindex[tuple(indices)].read().result()
        for decoder in view.decoders:
            values = decoder(values)
    for axis, reorder in enumerate(order):
        if isinstance(reorder, np.ndarray):
            values = values.take(reorder, axis=axis)
        elif reorder is not None:
            values = np.flip(values, axis)
    np.copyto(_transpose_to(view.dims, out), values, casting="unsafe")


def _split_at_chunks(source: Source, index: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield times `start` to `stop` in pieces that end where chunks end, each of about `_TASK_BYTES`."""
    time_bytes = source.state_bytes // len(source.channels) * max(1, source.level_count(index))
    view = source.views[index]
    if view is not None and view.chunks is not None:  # count what is decoded along with it
        time_bytes = max(time_bytes, view.chunk_bytes // view.chunks[view.time_axis])
    ends = [start + int(end) for end in np.flatnonzero(np.diff(source.chunk_indices(index, start, stop))) + 1]
    for end in [*ends, stop]:
        if (end - start) * time_bytes >= _TASK_BYTES or end == stop:
            yield start, end
            start = end


def _explain(source: Source, index: int, start: int, stop: int, error: Exception) -> Exception:
    """Return an OSError that names the variable, the first chunk that cannot be read, and its times."""
    view, times, name = source.views[index], source.dataset.indexes["time"], list(source.dataset.data_vars)[index]
    first, last = start, stop - 1
    if view is not None and view.folder is not None:
        chunks = source.chunk_indices(index, start, stop)
        for begin in np.concatenate([[0], np.flatnonzero(np.diff(chunks)) + 1]):
            time = start + int(begin)
            if chunk_error := _chunk_error(source, index, time):
                error, first = chunk_error, time
                last = start + int(np.flatnonzero(chunks == chunks[begin])[-1])
                break
    where = "" if view is None or view.array is None else f" of the store {store_address(view.array.store)}"
    chunk = "" if first == start and last == stop - 1 and len(times) > 1 else "one chunk, "
    message = (
        f"{name!r}{where} cannot be read at the times {times[first]} to {times[last]} ({chunk}{last - first + 1} "
        f"times): {type(error).__name__}: {error}"
    )
    if isinstance(error, MissingChunkError | DamagedChunkError):  # these contain the fix
        return OSError(message)
    return OSError(
        f"{message}. If the file is damaged, copy it again; if the store is remote, check the connection and try again"
    )


def _chunk_error(source: Source, index: int, time: int) -> Exception | None:
    """Return the error of reading a variable at one time, or None if it can be read.

    Where tensorstore fails, the error of the checked store is preferred: it contains the fix.
    """
    out = np.empty((1, source.level_count(index) or 1, *source.shape[1:]), dtype=np.float32)
    view = source.views[index]
    try:
        _read_variable(source, index, time, time + 1, out if source.level_count(index) else out[:, 0])
        return None
    except Exception as error:
        if source.tensorstores[index] is None:
            return error
        try:
            view.stored[tuple(_selection(view, time, time + 1)[0])].load()
        except ValueError as checked_error:
            return checked_error
        except Exception:
            pass
        return error
