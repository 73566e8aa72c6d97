"""Open Zarr stores, local and remote, such that chunks that are absent, truncated or damaged are errors."""

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import LocalStore

from simvp_climate.data.checksums import METADATA, Checksums, chunk_position, read_checksums
from simvp_climate.data.netcdf_grib import decode_lead_times
from simvp_climate.data.remote import open_remote_store, request_error
from simvp_climate.data.virtual import is_virtual, open_virtual

if TYPE_CHECKING:  # zarr 3.0 lacks this module
    from zarr.abc.buffer import Buffer, BufferPrototype

_WRONG_CHECKSUM = "it does not match its checksum, or is in the place of another"
# attributes of stores that this package writes, and how to write them again
_WRITTEN_BY = {"cache_made_from": "sc.cache(...)", "hindcast": "forecaster.hindcast(...)"}


def open_zarr(path: str, missing_chunks: str, opened: Store | None = None) -> xr.Dataset:
    """Return the Dataset of a local, remote, virtual or `opened` Zarr store under the names in the store."""
    store = CheckedStore(_open_store(path) if opened is None else opened, path, missing_chunks)
    try:
        raw = _open_group(store)
    except FileNotFoundError as error:
        message = f"no Zarr store at {path!r}: it has neither .zgroup nor zarr.json. Check the spelling"
        raise FileNotFoundError(message) from error
    for name in {*raw.dims} & {*raw.variables}:
        if raw[name].ndim == 1 and raw[name].dims != (name,):
            message = f"the metadata of {name!r} in the Zarr store {path!r} are damaged: it is on {raw[name].dims[0]!r}"
            raise DamagedChunkError(f"{message}, but names a dimension of others. Copy or download the store again")
    store.remember_times(raw)
    dataset = decode_lead_times(raw)
    for variable in dataset.variables.values():
        for name in ("compressors", "filters", "serializer", "shards"):
            variable.encoding.pop(name, None)  # those of one Zarr format would break `to_zarr` in the other
    # drop the times that a store has allocated for the future
    start, stop = dataset.attrs.get("valid_time_start"), dataset.attrs.get("valid_time_stop")
    index = dataset.indexes.get("time")
    if isinstance(index, pd.DatetimeIndex) and index.is_monotonic_increasing and (start or stop) is not None:
        dataset = dataset.isel(time=index.slice_indexer(start, stop))
    for attribute in _WRITTEN_BY:
        dataset.attrs.pop(attribute, None)  # a copy of the Dataset is another store, without checksums
    dataset.encoding["source"] = path
    return dataset


def _open_store(path: str) -> Store:
    if is_virtual(path):
        return open_virtual(path)
    return open_remote_store(path) if "://" in path else LocalStore(path, read_only=True)


def _open_group(store: "CheckedStore") -> xr.Dataset:
    """Return the Dataset of a store, also if it lacks chunks of coordinates that consist of zeros."""
    try:
        group = zarr.open_group(store, mode="r")
        # passed on, because open_zarr by itself warns before it falls back
        consolidated = group.metadata.consolidated_metadata is not None
        if consolidated or store.can_list:
            store.arrays = {name: array.metadata.to_dict() for name, array in group.arrays()}
    except (FileNotFoundError, ConnectionError, PermissionError, ImportError):
        raise
    except Exception as error:  # whatever zarr raises where a file is no JSON, or lacks or misspells an entry
        files = f"the metadata of the Zarr store {store.path!r} (.zgroup, .zarray, .zattrs, .zmetadata or zarr.json)"
        raise DamagedChunkError(f"{files} are damaged: {error!r}. Copy or download the store again") from error
    if not consolidated and not store.can_list:
        message = f"{store.path!r} has no consolidated metadata, and a web server does not list the arrays of a store"
        raise ValueError(f"{message}. Its owner can add them: zarr.consolidate_metadata(path)")
    store.checksums = _check_metadata(store, group)
    store.metadata_files = None
    options = {"chunks": None, "consolidated": consolidated, "decode_timedelta": False}  # without dask
    try:
        return xr.open_zarr(store, **options)
    except MissingChunkError:
        store.missing_chunks = "fill"
        raw = xr.open_zarr(store, **options)
        store.missing_chunks = "error"
    except (DamagedChunkError, ConnectionError, PermissionError):
        raise
    except Exception as error:
        fault = f"{_name_unreadable(group)}{error!r}. Copy or download the store again"
        message = f"the coordinates or metadata of the Zarr store {store.path!r} are damaged"
        raise DamagedChunkError(f"{message}: {fault}") from error
    # Zarr leaves zeros out: a store that grew time by time lacks its first, which was 0 if that makes the axis even
    for key in sorted(store.filled):
        name = key.split("/")[0]
        index = raw.indexes.get(name)
        if index is None or len(index) < 3 or not index.is_unique or (index[1:] - index[:-1]).nunique() != 1:
            raise store.missing_chunk_error(key)
    return raw


def _check_metadata(store: "CheckedStore", group: zarr.Group) -> Checksums | None:
    """Raise an error for metadata that do not match their checksums; return all checksums of the store."""
    try:
        checksums = read_checksums(store, can_list=store.can_list)
        changed = None if checksums is None else checksums.find_changed(store.metadata_files)
    except (ConnectionError, PermissionError):
        raise
    except Exception as error:
        message = f"the checksums of the Zarr store {store.path!r} are damaged: {error!r}"
        raise DamagedChunkError(f"{message}. Copy it again, or write it anew") from error
    if changed is not None:
        message = f"{changed!r} of the Zarr store {store.path!r} is damaged or was edited: "
        message += "it does not match its checksum. Copy the store again, or write it anew"
        fix = f"To keep an edit, such as attributes or times: xr.open_zarr({store.path!r}).to_zarr(another_path)"
        raise DamagedChunkError(f"{message}. {fix}")
    if checksums is None:
        for attribute, call in _WRITTEN_BY.items():
            if attribute in group.attrs:
                message = f"{store.path!r} has no checksums (an older version wrote it, or it is a copy without them)"
                message += f": damage in it may go unnoticed. To write it anew with checksums: {call}"
                warnings.warn(message, stacklevel=2)
    return checksums


def _name_unreadable(group: zarr.Group) -> str:
    """Return the first coordinate that cannot be decoded, for the start of a message."""
    for name, array in group.arrays():
        try:
            if array.ndim <= 1:
                array[...]
        except Exception:
            return f"{name!r} cannot be decoded: "
    return ""


class MissingChunkError(ValueError):
    """A Zarr store lacks a chunk that it should have."""


class DamagedChunkError(ValueError):
    """A Zarr store has a chunk of another length or content than was written, or metadata that cannot be read."""


class CheckedStore(Store):
    """A Zarr store, read only, that raises an error for absent and truncated chunks.

    Zarr itself returns the fill value for an absent chunk, so that an unfinished download reads as a field of NaN or
    zeros. A chunk absent inside a shard was left out by its writer. Most codecs detect truncated chunks themselves, but
    Blosc reads past the end of a chunk into other memory, and zarr takes an empty shard for an absent one.

    It is no `WrapperStore`, whose other ways of reading (`get_sync` in zarr 3.4) go past `get`.
    """

    supports_writes = supports_deletes = supports_partial_writes = False

    def __init__(self, store: Store, path: str = "", missing_chunks: str = "error"):
        super().__init__(read_only=True)
        self.base = store
        self.path = path or str(store)  # for messages
        # a web server does not list the files of a store
        self.can_list = not self.path.startswith(("http://", "https://")) or is_virtual(self.path)
        self.missing_chunks = missing_chunks  # "error": an absent chunk raises MissingChunkError
        self.filled: set[str] = set()  # keys of the absent chunks that were read as the fill value so far
        # from `remember_times`: array -> (dimensions, shape of a chunk), and dimension -> times
        self._chunks: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        self._times: dict[str, pd.Index] = {}
        # array -> metadata as in its file; set before xarray opens the store, so that coordinates are checked too
        self.arrays: dict[str, dict[str, Any]] = {}
        self.checksums: Checksums | None = None
        self.metadata_files: dict[str, bytes] | None = {}  # their content by key, until it is compared
        self._checked: set[tuple[str, tuple[int, ...]]] = set()  # arrays and positions of the files checked so far

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckedStore) and self.base == other.base

    def __str__(self) -> str:
        return str(self.base)

    def remember_times(self, dataset: xr.Dataset) -> None:
        """Take the times that each chunk covers from the Dataset that xarray opened from this store."""
        for name, variable in dataset.variables.items():
            if chunks := variable.encoding.get("shards") or variable.encoding.get("chunks"):
                self._chunks[str(name)] = variable.dims, chunks
        for name, index in dataset.indexes.items():
            if isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex):
                self._times[str(name)] = index

    def missing_chunk_error(self, key: str) -> MissingChunkError:
        """Return the error for an absent chunk, with its position and times, from its key in the store."""
        array, position, times = self._describe(key)
        message = f"{self.path!r} has no chunk {position} of {array!r} ({key!r}){times}. The store is incomplete"
        fix = "If absent chunks mean missing values, as in ARCO-ERA5 and over land in ocean models"
        fix += ': open_dataset(..., missing_chunks="fill")'
        return MissingChunkError(f"{message}: copy or download it again. {fix}")

    def _describe(self, key: str) -> tuple[str, str, str]:
        """Return the array of a chunk, its position, and a clause with the times it covers."""
        array = self._array_of(key)
        position = [int(digits) for digits in re.findall(r"\d+", key[len(array) :])]
        times = ""
        dims, shape = self._chunks.get(array, ((), ()))
        for dim, length, index in zip(dims, shape, position, strict=False):
            covered = self._times.get(dim, [])[index * length : (index + 1) * length]
            if len(covered):
                times = f", which holds {dim} {covered[0]} to {covered[-1]}"
        return array, str(tuple(position)), times

    def _array_of(self, key: str) -> str:
        names = [name for name in self.arrays if key.startswith(f"{name}/")]
        return max(names, key=len) if names else re.split(r"/c?[\d./]*$", key)[0]

    async def get(
        self, key: str, prototype: "BufferPrototype", byte_range: ByteRequest | None = None
    ) -> "Buffer | None":
        try:
            content = await self.base.get(key, prototype, byte_range)
        except Exception as error:
            if "://" in self.path and not isinstance(error, FileNotFoundError):
                raise request_error(self.path, error) from error
            raise
        self._check(key, content, byte_range)
        return content

    async def get_partial_values(
        self, prototype: "BufferPrototype", key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> "list[Buffer | None]":
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: "BufferPrototype", **limits: int | None
    ) -> "AsyncIterator[Sequence[tuple[int, Buffer | None]]]":
        """Yield all ranges, each read by `get`, which checks it; zarr 3.4 would merge them within the limits."""
        contents = await asyncio.gather(*(self.get(key, prototype, byte_range) for byte_range in byte_ranges))
        yield list(enumerate(contents))

    async def exists(self, key: str) -> bool:
        return await self.base.exists(key)

    @property
    def supports_listing(self) -> bool:
        return self.base.supports_listing

    def list(self) -> AsyncIterator[str]:
        return self.base.list()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self.base.list_prefix(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self.base.list_dir(prefix)

    async def _refuse(self, *arguments: object) -> None:
        raise PermissionError(f"the store {self.path!r} is open for reading only")

    set = delete = set_partial_values = _refuse

    def _check(self, key: str, content: "Buffer | None", byte_range: ByteRequest | None) -> None:
        if key.rsplit("/", 1)[-1] in METADATA:
            if content is not None and self.metadata_files is not None:
                self.metadata_files[key] = content.to_bytes()
            return
        if content is None:
            if self.missing_chunks == "error":
                raise self.missing_chunk_error(key)
            self.filled.add(key)
            return
        match byte_range:
            case None:
                expected = _stored_length_by_header(self.arrays.get(self._array_of(key), {}), content)
            case RangeByteRequest(start, end):
                expected = end - start
            case SuffixByteRequest(expected):
                pass
            case _:
                return
        if len(content) != expected:
            raise self._damaged_chunk_error(key, f"it has {len(content)} bytes instead of {expected}")
        name = self._array_of(key)
        checksums = None if self.checksums is None else self.checksums.arrays.get(name)
        if checksums is None or isinstance(byte_range, SuffixByteRequest):
            return
        # one chunk with the codec is checked by its last bytes: the codec compares them with the others
        is_chunk = checksums.has_codec and not checksums.is_sharded
        checked = (content[-4:] if is_chunk else content).to_bytes()
        if not checksums.match(chunk_position(key[len(name) :]), checked, byte_range is not None):
            raise self._damaged_chunk_error(key, _WRONG_CHECKSUM)

    def check_file(self, array: zarr.Array, folder: Path, position: tuple[int, ...]) -> None:
        """Raise an error if a file in the local folder of an array is not the chunk that was written at a position.

        Each file is checked once: who decodes it checks its bytes every time, and loaders notice files that change.
        """
        name = array.path
        if (name, position) in self._checked:
            return
        path = folder / array.metadata.chunk_key_encoding.encode_chunk_key(position)
        if path.exists() and not self.checksums.arrays[name].match_file(position, path):
            raise self._damaged_chunk_error(f"{name}/{'/'.join(map(str, position))}", _WRONG_CHECKSUM)
        self._checked.add((name, position))

    def _damaged_chunk_error(self, key: str, fault: str) -> DamagedChunkError:
        array, position, times = self._describe(key)
        message = f"the chunk {position} of {array!r} in {self.path!r} ({key!r}){times}, is damaged: {fault}"
        return DamagedChunkError(f"{message}. Copy or download it again")


def _stored_length_by_header(metadata: dict[str, Any], chunk: "Buffer") -> int:
    """Return the length in bytes that the header of a chunk states; without a header, its present length."""
    by_format = metadata.get("codecs"), metadata.get("filters"), [metadata.get("compressor")]
    codecs = [codec for group in by_format for codec in group or () if codec is not None]
    # zarr 3.0 has objects here in format 2
    codec = next((each if isinstance(each, dict) else each.get_config() for each in reversed(codecs)), {})
    name = codec.get("name", codec.get("id"))
    if name in ("blosc", "numcodecs.blosc"):
        # bytes 12 to 15 of its header: compressed size
        return max(16, int.from_bytes(chunk[12:16].to_bytes(), "little"))
    if name == "sharding_indexed" and codec["configuration"]["index_location"] == "start":
        shard_shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        return max(len(chunk), _shard_end(shard_shape, codec["configuration"]["chunk_shape"], chunk))
    return max(1, len(chunk))


def _shard_end(shard_shape: Sequence[int], chunk_shape: Sequence[int], shard: "Buffer") -> int:
    """Return where a shard ends by the index at its start, which survives truncation."""
    # the index: offset and size of each chunk as 64-bit integers, all bits set for an absent chunk
    length = 16 * int(np.prod(np.array(shard_shape) // chunk_shape))
    if len(shard) < length:
        return length
    index = np.frombuffer(shard[:length].to_bytes(), "<u8").reshape(-1, 2)
    return max((offset + size for offset, size in index.tolist() if size < 2**63), default=length)
