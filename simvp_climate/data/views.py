"""Lazy variables as selections from stored arrays. Only this module knows how xarray wraps an opened file."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from simvp_climate.data.zarr_store import CheckedStore

# the wrappers of untouched and of selected variables
_WRAPPERS = (
    "MemoryCachedArray", "CopyOnWriteArray", "_ElementwiseFunctionArray", "LazilyIndexedArray",
    "LazilyVectorizedIndexedArray",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class View:
    """A lazy variable as a selection from a stored array."""

    stored: xr.Variable  # the whole stored array, decoded when it is read
    key: tuple[int | slice | np.ndarray, ...]  # for each stored axis the indices that the variable consists of
    dims: tuple[str, ...]  # of the variable: the stored axes without those at a single index
    array: zarr.Array | None  # None for other formats than Zarr
    chunks: tuple[int, ...] | None  # shape of a chunk, or of a shard of many; None if unknown
    decoders: tuple[Callable, ...]  # functions that xarray applies to the stored numbers, in order

    @property
    def time_axis(self) -> int:
        """Position of time among the stored axes."""
        axes = [axis for axis, index in enumerate(self.key) if not isinstance(index, int | np.integer)]
        return axes[self.dims.index("time")]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded chunk, 0 if the chunks are unknown."""
        return 0 if self.chunks is None else int(np.prod(self.chunks)) * self.stored.dtype.itemsize

    @property
    def folder(self) -> Path | None:
        """Folder of the Zarr array on a local disk, or None."""
        if self.array is None:
            return None
        store = self.array.store
        if isinstance(store, CheckedStore):
            store = store.base
        return store.root / self.array.path if isinstance(store, LocalStore) else None


def find_view(variable: xr.Variable) -> View | None:
    """Return a lazy variable as a view; None for dask, numbers in memory, results of arithmetic and unknown wrappers.

    A warning says which wrappers are unknown: whoever needs a view then reads through xarray.
    """
    try:
        view, unknown = _unwrap(variable), ""
        data = getattr(variable, "_data", None)
        if view is None and type(data).__module__.startswith("xarray.") and not _is_instance(data, *_WRAPPERS):
            unknown = type(data).__name__
    except (AttributeError, TypeError) as error:
        view, unknown = None, str(error)
    if unknown and not unknown.endswith("Adapter"):  # of numbers in memory
        message = f"xarray {xr.__version__} wraps opened files in an unknown way ({unknown}): they are read through "
        message += "xarray, which is slower. Update simvp_climate, or install an older xarray"
        warnings.warn(message, stacklevel=2)
    return view


def _unwrap(variable: xr.Variable) -> View | None:
    """Return the view; until October 2025 xarray put a selection around the functions that decode, later within."""
    data = getattr(variable, "_data", None)
    while _is_instance(data, "MemoryCachedArray", "CopyOnWriteArray"):
        data = data.array
    decoders, keys, wrappers = [], [], {}
    while _is_instance(data, "_ElementwiseFunctionArray", "LazilyIndexedArray"):
        wrappers[type(data).__name__] = type(data)
        if _is_instance(data, "_ElementwiseFunctionArray"):
            if not isinstance(data.func, partial):
                return None
            decoders.insert(0, data.func)
        elif not _is_instance(data.key, "BasicIndexer", "OuterIndexer"):
            return None
        else:
            keys.append(data.key.tuple)
        data = data.array
    selections = [key for key in keys if any(isinstance(i, np.ndarray) or i != slice(None) for i in key)]
    if not keys or len(selections) > 1:
        return None
    key = tuple(int(index) if isinstance(index, np.integer) else index for index in (*selections, keys[-1])[0])
    if "time" not in variable.dims or sum(not isinstance(index, int) for index in key) != len(variable.dims):
        return None
    array = None
    if _is_instance(data, "ZarrArrayWrapper"):
        array = data.get_array()
        if not isinstance(array.store, CheckedStore):  # raise an error for truncated chunks; absent ones stay allowed
            store = CheckedStore(array.store, missing_chunks="fill")
            store.arrays = {array.path: array.metadata.to_dict()}
            array = zarr.open_array(store, path=array.path, mode="r")
        data = type(data)(array)
    stored = wrappers["LazilyIndexedArray"](data)
    for decoder in decoders:
        stored = wrappers["_ElementwiseFunctionArray"](stored, decoder, variable.dtype)
    axis_names = [f"axis_{axis}" for axis in range(len(key))]
    chunks = variable.encoding.get("chunksizes") if array is None else array.shards or array.chunks
    chunks = tuple(chunks) if chunks is not None and len(chunks) == len(key) else None
    return View(xr.Variable(axis_names, stored), key, variable.dims, array, chunks, tuple(decoders))


def _is_instance(value: object, *names: str) -> bool:
    """Return whether the type of a value has one of these names; xarray does not export these types."""
    return type(value).__name__ in names


def has_checksums(variable: xr.Variable) -> bool | None:
    """Return whether the chunks of a Zarr array have checksums, or None for what is no untouched view of one."""
    view = find_view(variable)
    if view is None or view.array is None:
        return None
    if getattr(view.array.store, "checksums", None) is not None:
        return True
    metadata = view.array.metadata.to_dict()
    codecs = str([metadata.get(key) for key in ("codecs", "filters", "compressor")]).lower()
    names = ("crc32", "adler32", "fletcher32", "jenkins", "'checksum': true")
    return any(name in codecs for name in names)


def variable_identity(variable: xr.Variable) -> str | None:
    """Return a digest of the selection and of files (names, sizes, times; metadata of remote ones), None if unknown."""
    view = find_view(variable)
    if view is None:
        return None
    if view.array is None:
        path = variable.encoding.get("source")
        if path is None or not os.path.isfile(path):
            return None
        stamp = _stamp(path)
    elif view.folder is None:
        metadata = json.dumps(view.array.metadata.to_dict(), default=str, sort_keys=True)
        stamp = f"{metadata} {store_address(view.array.store)} {view.array.path}"
    else:
        stamp = _stamp(str(view.folder))
    key = [index.tolist() if isinstance(index, np.ndarray) else str(index) for index in view.key]
    # functions by name: their addresses differ from process to process
    options = [sorted((name, str(value)) for name, value in decoder.keywords.items()) for decoder in view.decoders]
    decoders = [(decoder.func.__qualname__, each) for decoder, each in zip(view.decoders, options, strict=True)]
    return hashlib.sha256(f"{stamp} {key} {decoders}".encode()).hexdigest()


def _stamp(path: str) -> str:
    """Return names, sizes and modification times of a file, or of all files in a folder."""
    if os.path.isfile(path):
        stat = os.stat(path)
        return f"{path} {stat.st_size} {stat.st_mtime_ns}"
    entries = []
    with os.scandir(path) as folder:
        for entry in folder:
            stat = entry.stat()
            file = f"{entry.name} {stat.st_size} {stat.st_mtime_ns}"
            entries.append(_stamp(entry.path) if entry.is_dir() else file)
    return f"{path} {sorted(entries)}"


def store_address(store: Store) -> str:
    """Return the address of a store as the user gave it to `open_dataset`, or else as zarr prints it."""
    return repr(store.path) if isinstance(store, CheckedStore) else str(store)
