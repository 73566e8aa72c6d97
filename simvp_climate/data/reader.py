"""Decoded blocks of time from an oriented Dataset, each stored chunk once, with the missing values found on the way.

A variable that is still an untouched lazy view of a Zarr array on a local disk is read by tensorstore where that is
installed, straight into the buffer it is wanted in; everything else goes through xarray. Both give the same values.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import xarray as xr
import zarr
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing
from zarr.abc.store import Store
from zarr.core.buffer.cpu import NDBuffer
from zarr.storage import LocalStore, WrapperStore

from simvp_climate.data.store import CheckedStore, DamagedChunkError, MissingChunkError

ENGINES = ("auto", "zarr", "tensorstore")
_TASK_BYTES = 2**23  # read by one task: a few chunks, so that the cores share a block
_DECODED_BYTES = 2**28  # of large chunks at once
_TASKS = 8  # at once, or as many as there are cores; each has many requests in flight where the store is remote


@dataclass(frozen=True)
class Channel:
    """One two-dimensional field of a state: a variable, on a level (in the data's own units) or without."""

    variable: str
    level: float | None = None

    def __str__(self) -> str:
        return self.variable if self.level is None else f"{self.variable} at level {self.level:g}"


@dataclass(frozen=True, eq=False)
class Source:
    """One series of states: an oriented Dataset, and where its variables are stored.

    Attributes
    ----------
    dataset
        The series, oriented.
    channels
        What its states consist of.
    views
        For each variable the stored array that it is an untouched view of, or None.
    stores
        For each variable what tensorstore opened, or None where it is read through xarray.
    """

    dataset: xr.Dataset
    channels: tuple[Channel, ...]
    views: tuple["View | None", ...]
    stores: tuple[object | None, ...]

    @property
    def times(self) -> int:
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
    def chunk(self) -> int:
        """Number of times in a stored chunk (or shard), the most of any variable; 1 where it is not known."""
        steps = []
        for number in range(len(self.views)):
            unit, stored = self._unit(number)
            steps.append(max(1, unit // abs(stored.step) if isinstance(stored, range) else unit))
        return max(steps)

    def phase(self, time: int) -> int:
        """Number of times by which a time comes after the beginning of its chunk, for the longest chunks."""
        number = max(range(len(self.views)), key=lambda one: self._unit(one)[0])
        unit, stored = self._unit(number)
        step = stored.step if isinstance(stored, range) else 1
        return int(stored[time] % unit // step) if step > 0 else 0

    def decoded(self, start: int, stop: int) -> int:
        """Number of times that are decoded to read some: whole chunks of the longest kind."""
        number = max(range(len(self.views)), key=lambda one: self._unit(one)[0])
        unit, stored = self._unit(number)
        numbers = self.chunk_numbers(number, start, stop)
        return int(len(np.unique(numbers)) * max(1, unit // abs(stored.step) if isinstance(stored, range) else unit))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the largest stored chunk when it is decoded: all that is in it, wanted or not."""
        sizes = [0]
        for number, view in enumerate(self.views):
            if view is not None and view.chunks is not None:
                sizes.append(int(np.prod(view.chunks)) * view.stored.dtype.itemsize)
            elif view is None:
                variable = self.dataset[list(self.dataset.data_vars)[number]]
                if variable.chunks is not None:
                    sizes.append(int(np.prod([max(one) for one in variable.chunks])) * variable.dtype.itemsize)
        return max(sizes)

    @property
    def in_flight(self) -> int:
        """Bytes of what is being decoded at once, at most: 64 MiB, or some large chunks as stored and decoded."""
        return max(_TASKS * _TASK_BYTES, self.at_once * 2 * self.chunk_bytes)

    @property
    def at_once(self) -> int:
        """Number of tasks that read at once: fewer where chunks are large."""
        remote = any(v is not None and v.array is not None and local_folder(v.array) is None for v in self.views)
        most = _TASKS if remote else min(_TASKS, os.cpu_count() or 1)
        return max(1, min(most, _DECODED_BYTES // max(1, self.chunk_bytes)))

    def levels_of(self, number: int) -> int:
        """Number of levels of a variable, 0 if it has no such dimension."""
        return self.dataset[list(self.dataset.data_vars)[number]].sizes.get("level", 0)

    def chunk_numbers(self, number: int, start: int, stop: int) -> np.ndarray:
        """Return for some times the number of the stored chunk of a variable that they lie in."""
        unit, stored = self._unit(number)
        return np.asarray(stored[start:stop]) // unit

    def _unit(self, number: int) -> tuple[int, range | np.ndarray]:
        """Return the times in a chunk as stored, and for every time of the series the place where it is stored."""
        view = self.views[number]
        if view is None:
            variable = self.dataset[list(self.dataset.data_vars)[number]].variable
            return max(variable.chunksizes.get("time", (1,))), range(self.times)
        by = view.key[view.time_axis]
        stored = range(*by.indices(view.stored.shape[view.time_axis])) if isinstance(by, slice) else np.asarray(by)
        return 1 if view.chunks is None else view.chunks[view.time_axis], stored


@dataclass(frozen=True, eq=False)
class View:
    """A lazy variable as what is stored, and which part of it is meant.

    Attributes
    ----------
    stored
        All that is stored, decoded when it is read.
    key
        For each stored axis the position, the slice or the positions that make up the variable.
    dims
        Of the variable: the stored axes without those at a single position.
    array
        The Zarr array below, or None for other files.
    chunks
        Shape of what is stored and decoded in one piece (a chunk, or the shard with many), None where not known.
    decode
        What xarray does to the stored numbers, in order: filling, scaling.
    """

    stored: xr.Variable
    key: tuple[int | slice | np.ndarray, ...]
    dims: tuple[str, ...]
    array: zarr.Array | None
    chunks: tuple[int, ...] | None
    decode: tuple[Callable, ...]

    @property
    def time_axis(self) -> int:
        """Position of the time among the stored axes."""
        axes = [axis for axis, by in enumerate(self.key) if not isinstance(by, int | np.integer)]
        return axes[self.dims.index("time")]


def channels(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """Return the channels of an oriented Dataset: variables in order, each with its levels in order.

    Raises
    ------
    ValueError
        If a variable has no time (a field that never changes is no forecast), or a dimension more.
    """
    found = []
    for name, variable in dataset.data_vars.items():
        if "time" not in variable.dims:
            raise ValueError(
                f"{name!r} has no time dimension (its dimensions: {variable.dims}): it cannot be forecast. "
                "Leave it out of Task.variables, or name it in Task.forcings"
            )
        if more := sorted(set(variable.dims) - {"time", "level", "latitude", "longitude"}):
            raise ValueError(
                f"{name!r} has the dimensions {more} beside time, level, latitude and longitude: choose one, for "
                f"example ds.isel({more[0]}=0); to train on all give a list of series, one for each"
            )
        levels = dataset["level"].values.tolist() if "level" in variable.dims else [None]
        found += [Channel(name, level) for level in levels]
    return tuple(found)


def open_source(dataset: xr.Dataset, engine: str = "auto") -> Source:
    """Return an oriented Dataset as a source of states.

    Parameters
    ----------
    dataset
        Oriented: dimensions time, latitude, longitude and perhaps level.
    engine
        "zarr": through xarray and zarr-python; "tensorstore": that, for every variable; "auto": tensorstore for
        those variables that it can read.

    Raises
    ------
    ValueError
        If the engine is unknown, or tensorstore is asked for by name and cannot read a variable.
    ModuleNotFoundError
        If tensorstore is asked for by name and is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} must be one of {ENGINES}")
    found = channels(dataset)
    views = tuple(_view(variable.variable) for variable in dataset.data_vars.values())
    plain = Source(dataset, found, views, (None,) * len(views))
    if engine == "zarr":
        return plain
    try:
        import tensorstore
    except ModuleNotFoundError as error:
        if engine == "tensorstore":
            raise ModuleNotFoundError(
                "engine='tensorstore' needs tensorstore: pip install 'simvp-climate[fast]', or take engine='auto'"
            ) from error
        return plain
    stores = tuple(None if view is None else _open_tensorstore(tensorstore, view, plain.at_once) for view in views)
    if engine == "tensorstore" and None in stores:
        name = list(dataset.data_vars)[stores.index(None)]
        raise ValueError(
            f"engine='tensorstore' reads untouched lazy views of Zarr arrays on a local disk, and {name!r} is none. "
            "Take engine='auto'"
        )
    return Source(dataset, found, views, stores)


@dataclass(frozen=True, eq=False)
class Request:
    """States to be read: times `start` to `stop` (exclusive) of a source into `out`.

    `out` is float32 of shape (stop - start, channel, latitude, longitude).
    """

    source: Source
    start: int
    stop: int
    out: np.ndarray


def fetch(requests: Sequence[Request]) -> None:
    """Read all requests into their arrays, many chunks at once; return when every value is there.

    Raises
    ------
    OSError
        If something cannot be read: the message names the variable, the chunk and its times.
    """
    tasks, reads = [], []
    for request in requests:
        first = 0
        for number, variable in enumerate(request.source.dataset.data_vars.values()):
            count = variable.sizes.get("level", 1)
            out = request.out[:, first : first + count]
            if "level" not in variable.dims:
                out = out[:, 0]
            first += count
            source, view, store = request.source, request.source.views[number], request.source.stores[number]
            # tensorstore orders small chunks by itself, and would hold all large ones at once
            many = store is not None and source.chunk_bytes <= _TASK_BYTES
            if many and (read := _read_straight(view, store, request.start, request.stop, out)):
                reads.append((source, number, request.start, request.stop, read))
                continue
            for start, stop in _pieces(source, number, request.start, request.stop):
                tasks.append((source, number, start, stop, out[start - request.start : stop - request.start]))
    if len(tasks) == 1:
        _run(*tasks[0])
    elif tasks:
        at_once = min(request.source.at_once for request in requests)
        with ThreadPoolExecutor(min(at_once, len(tasks))) as pool:
            # the list waits for all, and passes on the first error
            list(pool.map(lambda task: _run(*task), tasks))
    for source, number, start, stop, read in reads:
        try:
            read.result()
        except Exception as error:
            raise _explain(source, number, start, stop, error) from error


def read(source: Source, times: np.ndarray) -> np.ndarray:
    """Return the states at some ascending times: float32, shape (time, channel, latitude, longitude)."""
    out = np.empty((len(times), *source.shape), dtype=np.float32)
    fetch([Request(source, start, stop, out[at : at + stop - start]) for start, stop, at in runs(times)])
    return out


def runs(times: np.ndarray) -> list[tuple[int, int, int]]:
    """Return ascending positions as runs without a gap: (first, last + 1, where the run begins in `times`)."""
    if not len(times):
        return []
    begins = np.concatenate([[0], np.flatnonzero(np.diff(times) != 1) + 1])
    ends = np.append(begins[1:], len(times))
    return [(int(times[begin]), int(times[end - 1]) + 1, int(begin)) for begin, end in zip(begins, ends, strict=True)]


def check_finite(states: np.ndarray, dataset: xr.Dataset, times: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Raise ValueError, naming time and cell, if a state to be used is not finite.

    `times` are the positions in `dataset` of the states, shape (time, channel, latitude, longitude). Cells of
    `mask` (channel, latitude, longitude) are not looked at.
    """
    # a sum is finite unless a value is not, and far faster than a look at every value
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(states.sum(dtype=np.float32)):
            return
    wrong = ~np.isfinite(states)
    if mask is not None:
        wrong &= ~mask
    if not wrong.any():
        return
    when, channel, row, column = np.argwhere(wrong)[0]
    message = missing_value(dataset, times[when], channel, row, column, states[when, channel, row, column])
    if mask is not None and len(states) > 1 and wrong[:, channel, row, column].all():
        raise ValueError(
            f"{message}The cell has no value at any of the {len(states)} times read, and had values in training: give "
            "data with the mask of the training data, or fill the cell"
        )
    raise ValueError(message + fill_or_drop(dataset, channel))


def missing_value(dataset: xr.Dataset, time: int, channel: int, row: int, column: int, value: float) -> str:
    """Return the words for a value that is missing where it is needed."""
    cell = f"latitude {dataset['latitude'].values[row]:g}, longitude {dataset['longitude'].values[column]:g}"
    return (
        f"{channels(dataset)[channel]} is {value} at {dataset.indexes['time'][time]}, {cell}, inside a "
        "window that would be read. "
    )


def fill_or_drop(dataset: xr.Dataset, channel: int) -> str:
    """Return the way out of a missing value."""
    return (
        "Fill the value, or drop the time (windows skip gaps): "
        f"ds.dropna('time', how='any', subset=[{channels(dataset)[channel].variable!r}])"
    )


def identity(source: Source) -> str | None:
    """Return a text that changes when what is stored changes, or None where that cannot be told without reading.

    For files on a local disk: names, sizes and times of change of the files (of each chunk), and which part of them
    is meant. For remote stores: the address and the metadata, so that a chunk overwritten in place is not noticed.
    """
    stamps = {name: stored_identity(variable.variable) for name, variable in source.dataset.data_vars.items()}
    if None in stamps.values():
        return None
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()


def stored_identity(variable: xr.Variable) -> str | None:
    """Return what `identity` says, for one variable, as opened and perhaps selected from."""
    view = _view(variable)
    if view is None:
        return None
    if view.array is None:
        path = variable.encoding.get("source")
        if path is None or not os.path.isfile(path):
            return None
        stamp = _stamp(path)
    else:
        folder = local_folder(view.array)
        metadata = json.dumps(view.array.metadata.to_dict(), default=str, sort_keys=True)
        address = f"{metadata} {_address(view.array.store)} {view.array.path}"
        stamp = address if folder is None else _stamp(str(folder))
    key = [by.tolist() if isinstance(by, np.ndarray) else str(by) for by in view.key]
    # functions by name: their addresses differ from process to process
    decode = [(one.func.__qualname__, sorted((k, str(v)) for k, v in one.keywords.items())) for one in view.decode]
    return hashlib.sha256(f"{stamp} {key} {decode}".encode()).hexdigest()


def free_memory() -> int | None:
    """Return the bytes that can still be had: of the machine, or of the job's share (cgroup) if that is less."""
    found = []
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except (OSError, KeyError, ValueError):  # not Linux
        return min(found, default=None)
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":  # version 2: every group above has a limit of its own
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        for one in [folder, *folder.parents]:
            if one == root.parent:
                break
            try:
                limit, used = int((one / names[0]).read_text()), int((one / names[1]).read_text())
                # files in the cache count as used, but make way
                lines = dict(line.split() for line in (one / "memory.stat").read_text().splitlines())
                found.append(limit - used + int(lines[names[2]]))
            except (OSError, KeyError, ValueError):  # no limit ("max"), or not to be seen from inside a container
                continue
    return min(found)


def _stamp(path: str) -> str:
    """Return the names, sizes and times of change of a file or of all files in a folder."""
    if os.path.isfile(path):
        stat = os.stat(path)
        return f"{path} {stat.st_size} {stat.st_mtime_ns}"
    entries = []
    with os.scandir(path) as folder:
        for entry in folder:
            if entry.is_dir():
                entries.append(_stamp(entry.path))
            else:
                stat = entry.stat()
                entries.append(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}")
    return f"{path} {sorted(entries)}"


def local_folder(array: zarr.Array) -> Path | None:
    """Return the folder of a Zarr array on a local disk, or None if it is elsewhere."""
    store = array.store
    while isinstance(store, WrapperStore):
        store = store._store
    return store.root / array.path if isinstance(store, LocalStore) else None


def _view(variable: xr.Variable) -> View | None:
    """Return what a variable is a lazy view of, or None if it is anything but an untouched view.

    Only the arrays that xarray puts around an opened file are known here. Whatever else there is (dask, numbers in
    memory, the outcome of arithmetic) is no view.
    """
    data = variable._data
    while type(data) in (indexing.MemoryCachedArray, indexing.CopyOnWriteArray):
        data = data.array
    decode, elementwise = [], None
    while type(data).__name__ == "_ElementwiseFunctionArray":  # by name: it may move from one xarray to the next
        if not isinstance(data.func, partial):
            return None
        elementwise = type(data)
        decode.insert(0, data.func)
        data = data.array
    if type(data) is not indexing.LazilyIndexedArray:
        return None
    if type(data.key) not in (indexing.BasicIndexer, indexing.OuterIndexer):
        return None
    key = tuple(int(by) if isinstance(by, np.integer) else by for by in data.key.tuple)
    if sum(not isinstance(by, int) for by in key) != len(variable.dims):
        return None
    array, below = None, data.array
    if type(below) is ZarrArrayWrapper:
        array = _checked(below.get_array())
        below = ZarrArrayWrapper(array)
    stored = indexing.LazilyIndexedArray(below)
    for func in decode:
        stored = elementwise(stored, func, variable.dtype)
    names = [f"axis_{axis}" for axis in range(len(key))]
    chunks = variable.encoding.get("chunksizes") if array is None else array.shards or array.chunks
    chunks = tuple(chunks) if chunks is not None and len(chunks) == len(key) else None
    view = View(xr.Variable(names, stored), key, variable.dims, array, chunks, tuple(decode))
    return view if "time" in variable.dims else None


def _checked(array: zarr.Array) -> zarr.Array:
    """Return an array whose chunks are refused if they are cut, also where the user opened the store.

    What is absent then has fill values, as for whoever opens a store with xarray.
    """
    if isinstance(array.store, CheckedStore):
        return array
    store = CheckedStore(array.store, missing_chunks="fill")
    store.arrays = {array.path: array.metadata}
    return zarr.open_array(store, path=array.path, mode="r")


def _open_tensorstore(tensorstore: ModuleType, view: View, at_once: int) -> object | None:
    """Return the array of a view opened with tensorstore, or None if that is not on a local disk or not read by it."""
    folder = None if view.array is None else local_folder(view.array)
    if folder is None:
        return None
    spec = {
        "driver": "zarr" if view.array.metadata.zarr_format == 2 else "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder.absolute()}/"},
        # the same rule as for zarr-python, see open_dataset
        "fill_missing_data_reads": getattr(view.array.store, "missing_chunks", "fill") == "fill",
        "recheck_cached_data": False,
        "recheck_cached_metadata": False,
        # fewer at once where chunks are large, as for the other engine
        "context": {"data_copy_concurrency": {"limit": at_once}, "file_io_concurrency": {"limit": at_once}},
    }
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError:  # a codec or a type that it does not know
        return None


def _selection(view: View, start: int, stop: int) -> tuple[list, list]:
    """Return which part of each stored axis to read, and how to put each axis of that into the order meant.

    Slices that run forward are read straight. Backward ones are read forward and flipped; a list of latitudes or
    longitudes is read as the slice that holds it, because lists read slowly and would touch chunks twice; a list of
    levels or times as it is.
    """
    wanted, order, axes = [], [], iter(view.dims)
    for size, by in zip(view.stored.shape, view.key, strict=True):
        if isinstance(by, int):
            wanted.append(by)
            continue
        dim = next(axes)
        if isinstance(by, slice):
            chosen = range(*by.indices(size))
            if dim == "time":
                chosen = chosen[start:stop]
            if chosen.step < 0:
                wanted.append(slice(chosen[-1], chosen[0] + 1, -chosen.step))
                order.append(slice(None, None, -1))
            else:
                wanted.append(slice(chosen[0], chosen[-1] + 1, chosen.step))
                order.append(None)
            continue
        chosen = by[start:stop] if dim == "time" else by
        if dim in ("latitude", "longitude"):
            wanted.append(slice(int(chosen.min()), int(chosen.max()) + 1, 1))
            order.append(chosen - chosen.min())
        else:
            steady = len(chosen) == chosen[-1] - chosen[0] + 1 and (np.diff(chosen) == 1).all()
            wanted.append(slice(int(chosen[0]), int(chosen[-1]) + 1, 1) if steady else chosen)
            order.append(None)
    return wanted, order


def _as_stored(out: np.ndarray, dims: tuple[str, ...]) -> np.ndarray:
    """Return a view of an array (time, [level,] latitude, longitude) with its axes in the order of `dims`."""
    inside = [dim for dim in ("time", "level", "latitude", "longitude") if dim in dims]
    return out.transpose([inside.index(dim) for dim in dims])


def _read_straight(view: View, store: object, start: int, stop: int, out: np.ndarray) -> object | None:
    """Begin to read with tensorstore into `out`, and return what to wait for; None if numbers must be changed first."""
    import tensorstore

    wanted, order = _selection(view, start, stop)
    if view.decode or any(isinstance(by, np.ndarray) for by in order):
        return None
    target = _as_stored(out, view.dims)[tuple(slice(None) if by is None else by for by in order)]
    part = store.oindex[tuple(wanted)]
    if part.dtype != tensorstore.float32:
        part = part.astype(tensorstore.float32)
    return tensorstore.array(target, copy=False, write=True).write(part)


def _run(source: Source, number: int, start: int, stop: int, out: np.ndarray) -> None:
    """Read one variable at some times into `out` (time, [level,] latitude, longitude)."""
    try:
        _read_variable(source, number, start, stop, out)
    except Exception as error:
        raise _explain(source, number, start, stop, error) from error


def _read_variable(source: Source, number: int, start: int, stop: int, out: np.ndarray) -> None:
    view, store = source.views[number], source.stores[number]
    if view is None:
        variable = source.dataset.variables[list(source.dataset.data_vars)[number]]
        # read before it is transposed: xarray reads a lazy transposed array point by point
        np.copyto(_as_stored(out, variable.dims), variable.isel(time=slice(start, stop)).values, casting="unsafe")
        return
    if store is not None and (read := _read_straight(view, store, start, stop, out)):
        read.result()
        return
    wanted, order = _selection(view, start, stop)
    straight = not view.decode and not any(isinstance(by, np.ndarray) for by in [*wanted, *order])
    if store is None and straight and view.array is not None and view.array.dtype == np.float32:
        # decoded into the buffer itself: an array in between costs as much again
        target = _as_stored(out, view.dims)[tuple(slice(None) if by is None else by for by in order)]
        view.array.get_basic_selection(tuple(wanted), out=NDBuffer(target))
        return
    if store is None:
        values = view.stored[tuple(wanted)].values
    else:
        values = store.oindex[tuple(wanted)].read().result()
        for func in view.decode:
            values = func(values)
    for axis, by in enumerate(order):
        if isinstance(by, np.ndarray):
            values = values.take(by, axis=axis)
        elif by is not None:
            values = np.flip(values, axis)
    np.copyto(_as_stored(out, view.dims), values, casting="unsafe")


def _pieces(source: Source, number: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield a stretch of times in pieces that end where chunks end, each of about `_TASK_BYTES`."""
    state = source.state_bytes // len(source.channels) * max(1, source.levels_of(number))
    view = source.views[number]
    if view is not None and view.chunks is not None:  # what is decoded with it counts
        chunk = int(np.prod(view.chunks)) * view.stored.dtype.itemsize
        state = max(state, chunk // view.chunks[view.time_axis])
    ends = [start + int(end) for end in np.flatnonzero(np.diff(source.chunk_numbers(number, start, stop))) + 1]
    for end in [*ends, stop]:
        if (end - start) * state >= _TASK_BYTES or end == stop:
            yield start, end
            start = end


def _explain(source: Source, number: int, start: int, stop: int, error: Exception) -> Exception:
    """Return an error that names what could not be read: the first chunk that fails, and its times."""
    view, times = source.views[number], source.dataset.indexes["time"]
    name, first, last = list(source.dataset.data_vars)[number], start, stop - 1
    if view is not None and view.array is not None and local_folder(view.array) is not None:
        numbers = source.chunk_numbers(number, start, stop)
        for begin in np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1]):
            at = start + int(begin)
            out = np.empty((1, source.levels_of(number) or 1, *source.shape[1:]), dtype=np.float32)
            try:
                _read_variable(source, number, at, at + 1, out if source.levels_of(number) else out[:, 0])
            except Exception as one:
                error, first = _plainer(view, source.stores[number], at, one), at
                last = start + int(np.flatnonzero(numbers == numbers[begin])[-1])
                break
    where = "" if view is None or view.array is None else f" of the store {_address(view.array.store)}"
    chunk = "" if first == start and last == stop - 1 and len(times) > 1 else "one chunk, "
    message = (
        f"{name!r}{where} cannot be read at the times {times[first]} to {times[last]} ({chunk}{last - first + 1} "
        f"times): {type(error).__name__}: {error}"
    )
    message = f"{message}. Nothing of it was used"
    if isinstance(error, MissingChunkError | DamagedChunkError):  # they say the way out
        return OSError(message)
    return OSError(
        f"{message}. If the file is damaged, copy it again; if the store is remote, see whether it can still be "
        "reached, and start again"
    )


def _plainer(view: View, store: object | None, time: int, error: Exception) -> Exception:
    """Return the error of a checked store where tensorstore failed, if there is one: it says the way out."""
    if store is None:
        return error
    try:
        view.stored[tuple(_selection(view, time, time + 1)[0])].load()
    except Exception as other:
        return other if isinstance(other, ValueError) else error
    return error


def _address(store: Store) -> str:
    """Return where a store is, as it was given to `open_dataset` if it was."""
    return repr(store.path) if isinstance(store, WrapperStore) and hasattr(store, "path") else str(store)
