"""Opening data: Zarr, NetCDF, GRIB or a Dataset in hand, lazily, under the names asked for."""

import difflib
import glob
import http.client
import importlib.util
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import BloscCodec, ShardingCodec, ShardingCodecIndexLocation
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.storage import FsspecStore, LocalStore, ObjectStore, WrapperStore

from simvp_climate.data.conventions import rename, single_level
from simvp_climate.data.variables import expand, lookup

_SAMPLE = Path(__file__).parents[1] / "sample" / "gcm_t21_6h_5.625deg.zarr"


def open_dataset(
    path_or_dataset: str | os.PathLike | Sequence[str | os.PathLike] | xr.Dataset,
    variables: Iterable[str],
    levels: Sequence[float] | None = None,
    *,
    missing_chunks: Literal["error", "fill"] = "error",
) -> xr.Dataset:
    """Return the variables asked for, lazily, on dimensions called `time`, `latitude`, `longitude`, `level`.

    No value, order, longitude range, calendar or unit changes; `rename` in `conventions.py` says what does.
    Several files are joined along their coordinates and come as dask arrays; everything else comes without
    dask. A time axis that is longer than the data, as that of ARCO-ERA5, ends where the store's attributes
    `valid_time_start` and `valid_time_stop` say.

    Remote Zarr stores are read through obstore where it is installed (the extra `cloud`), else through fsspec.
    Failed requests are made again for up to a minute. Google's buckets, as WeatherBench's, and S3's are read
    anonymously unless the environment holds credentials (GOOGLE_APPLICATION_CREDENTIALS; AWS_ACCESS_KEY_ID and
    the like); other servers of S3 are named by AWS_ENDPOINT_URL, regions by AWS_REGION. Unless you set
    `zarr.config` `async.concurrency` yourself, opening a remote store raises it from 10 to 64 requests in flight.

    Parameters
    ----------
    path_or_dataset
        A Zarr store (format 2 or 3, consolidated or not, also remote: `"https://..."`, `"gs://..."`,
        `"s3://..."`), a NetCDF file, a folder of NetCDF files (all levels of folders below it, as WeatherBench 1
        comes), a pattern (`"era5_*.nc"`), a list of NetCDF files, GRIB files likewise (the extra `grib`), or an
        xarray Dataset.
    variables
        Names as in the file, or WeatherBench or CF names for them: `["z500", "2m_temperature"]`.
    levels
        Pressures in hPa of the variables that have levels; None keeps all.
    missing_chunks
        What a chunk means that a Zarr store does not have: `"error"` (a download or a run that did not end),
        which names the chunk and its times when it is read, or `"fill"`, the fill value.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path; it names what is there instead.
    PermissionError
        If what is there may not be read.
    ConnectionError
        If a server cannot be reached or does not answer.
    ImportError
        If a package is needed that is not installed; it names the extra.
    ValueError
        If what is there is neither Zarr nor NetCDF nor GRIB, is damaged, or as for `rename`. Later, when a chunk
        is read that is not there or not whole: MissingChunkError and DamagedChunkError, both ValueErrors.
    """
    if missing_chunks not in ("error", "fill"):
        raise ValueError(f'missing_chunks={missing_chunks!r}: "error" or "fill" is needed')
    if isinstance(path_or_dataset, xr.Dataset):
        if missing_chunks == "fill":
            raise ValueError(f"{_ONLY_FOR_ZARR}, a Dataset is given. Leave it out")
        return rename(path_or_dataset, variables, levels)
    variables = expand(variables)
    try:
        return rename(open_raw(path_or_dataset, variables, missing_chunks), variables, levels)
    except PermissionError as error:
        if error.errno is None:  # it says why already
            raise
        path = error.filename or path_or_dataset
        raise PermissionError(
            f"{str(path)!r} is there, but this user may not read it. Ask its owner to allow it (chmod a+rX), or copy it"
        ) from error


def open_sample(variables: Iterable[str] = ("z500", "t2m")) -> xr.Dataset:
    """Return the bundled sample: a simulated climate, 6-hourly on WeatherBench's 5.625 degree grid.

    It is SIMULATED (a general circulation model at T21), for examples and tests. It has `z500` (m2 s-2),
    `t2m` (K) on (time, latitude, longitude), and `orography` (m), `land_sea_mask` (1) on (latitude,
    longitude).

    Raises
    ------
    ValueError
        If another variable is asked for.
    """
    return open_dataset(_SAMPLE, variables)


def is_sample(source: str | os.PathLike) -> bool:
    """Return whether a path, as a Dataset's encoding names it, is that of the bundled sample."""
    return os.path.realpath(str(source).removeprefix("file://")) == os.path.realpath(_SAMPLE)


class MissingChunkError(ValueError):
    """A chunk that a Zarr store should have and does not."""


class DamagedChunkError(ValueError):
    """A chunk of a Zarr store that is shorter or longer than it says itself."""


class CheckedStore(WrapperStore[Store]):
    """A Zarr store, read only, in which a data chunk that is absent is an error or said to be meant.

    Zarr itself returns the fill value: an unfinished download reads as a field of NaN or zeros. In a sharded array
    what counts are the shards; what is absent inside one was left out on purpose by whoever wrote it.

    A chunk that is cut short is an error too. Codecs see that by themselves, but for two: Blosc reads on in whatever
    memory comes next, so that its chunks are measured here against the length in their headers; and an empty
    shard is to zarr as good as none.

    Attributes
    ----------
    missing_chunks
        `"error"`: reading an absent chunk raises MissingChunkError; `"fill"`: it gives the fill value.
    path
        Where the store is, for messages.
    filled
        The keys of the absent chunks for which the fill value was given so far.
    """

    def __init__(self, store: Store, path: str = "", missing_chunks: Literal["error", "fill"] = "error"):
        super().__init__(store)
        self.path = path or str(store)
        self.missing_chunks = missing_chunks
        self.filled: set[str] = set()
        # array -> its dimensions and the shape of its chunks; dimension -> its times. Known once xarray has opened it.
        self._chunks: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {}
        self._times: dict[str, pd.Index] = {}
        # array -> how it is packed. Known before, so that coordinates are measured too.
        self.arrays: dict[str, ArrayV2Metadata | ArrayV3Metadata] = {}

    def _with_store(self, store: Store) -> "CheckedStore":
        copy = CheckedStore(store, self.path, self.missing_chunks)
        copy._chunks, copy._times, copy.arrays = self._chunks, self._times, self.arrays
        return copy

    def learn_codecs(self, group: zarr.Group) -> None:
        """Take from the group that is opened from this store how its arrays are packed."""
        self.arrays = {name: array.metadata for name, array in group.arrays()}

    def learn(self, dataset: xr.Dataset) -> None:
        """Take from a Dataset, as xarray opened it from this store, which times the chunks cover."""
        for name, variable in dataset.variables.items():
            chunks = variable.encoding.get("shards") or variable.encoding.get("chunks")
            if chunks:
                self._chunks[str(name)] = variable.dims, chunks
        for name, index in dataset.indexes.items():
            if isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex):
                self._times[str(name)] = index

    def missing(self, key: str) -> MissingChunkError:
        """Return the error for an absent chunk, known by its key in the store; it names the times."""
        array, position, times = self._describe(key)
        return MissingChunkError(
            f"{self.path!r} has no chunk {position} of {array!r} ({key!r}){times}. The store is incomplete: copy or"
            " download it again. If it means fill values by absence, as ARCO-ERA5 and sparse stores do and those whose"
            " writer left out chunks without a single value (all land in an ocean model), say so:"
            ' open_dataset(..., missing_chunks="fill")'
        )

    def damaged(self, key: str, found: int, wanted: int) -> DamagedChunkError:
        """Return the error for a chunk that has another number of bytes than it should; it names the times."""
        array, position, times = self._describe(key)
        return DamagedChunkError(
            f"the chunk {position} of {array!r} in {self.path!r} ({key!r}){times}, is damaged: {found} bytes are there"
            f" where {wanted} should be. Its download or its writing did not end: copy or download it again"
        )

    def _describe(self, key: str) -> tuple[str, str, str]:
        """Return the array, the position of the chunk, and which times it covers."""
        array = self._array_of(key)
        position = [int(number) for number in re.findall(r"\d+", key[len(array) :])]
        times = ""
        dims, shape = self._chunks.get(array, ((), ()))
        for dim, length, number in zip(dims, shape, position, strict=False):
            covered = self._times.get(dim, [])[number * length : (number + 1) * length]
            if len(covered):
                times = f", which holds {dim} {covered[0]} to {covered[-1]}"
        return array, str(tuple(position)), times

    def _array_of(self, key: str) -> str:
        of = [name for name in self.arrays if key.startswith(f"{name}/")]
        return max(of, key=len) if of else re.split(r"/c?[\d./]*$", key)[0]

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return what is at a key, as zarr asks for it."""
        try:
            found = await self._store.get(key, prototype, byte_range)
        except Exception as error:
            if "://" in self.path and not isinstance(error, FileNotFoundError):
                raise _unreachable(self.path, error) from error
            raise
        self._check(key, found, byte_range)
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of what is at some keys, as zarr asks for them."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        requests = list(requests)
        ranges = {key: byte_range for key, _, byte_range in requests}
        async for key, found in self._store._get_many(requests):
            self._check(key, found, ranges[key])
            yield key, found

    def _check(self, key: str, found: Buffer | None, byte_range: ByteRequest | None) -> None:
        """Raise an error if a chunk, or the part asked for, is not there or not whole."""
        if key.rsplit("/", 1)[-1] in _METADATA:
            return
        if found is None:
            if self.missing_chunks == "error":
                raise self.missing(key)
            self.filled.add(key)
            return
        match byte_range:
            case None:
                wanted = _whole(self.arrays.get(self._array_of(key)), found)
            case RangeByteRequest(start, end):
                wanted = end - start
            case SuffixByteRequest(wanted):
                pass
            case _:
                return
        if len(found) != wanted:
            raise self.damaged(key, len(found), wanted)


def _is_blosc(codec: object) -> bool:
    # format 3, format 2, and what numcodecs puts into format 3
    return (
        isinstance(codec, BloscCodec)
        or getattr(codec, "codec_id", "") == "blosc"
        or getattr(codec, "codec_name", "") == "numcodecs.blosc"
    )


def _whole(array: ArrayV2Metadata | ArrayV3Metadata | None, chunk: Buffer) -> int:
    """Return how many bytes a chunk of an array has if it is whole; where it does not say so itself, what is there."""
    codec = None
    if isinstance(array, ArrayV2Metadata):
        codec = array.compressor or (array.filters or [None])[-1]
    elif array is not None:
        codec = array.codecs[-1]
    if _is_blosc(codec):
        return max(16, int.from_bytes(chunk[12:16].to_bytes(), "little"))
    if isinstance(codec, ShardingCodec) and codec.index_location is ShardingCodecIndexLocation.start:
        return max(len(chunk), _end_of_shard(array, codec, chunk))
    return max(1, len(chunk))


def _end_of_shard(array: ArrayV3Metadata, codec: ShardingCodec, shard: Buffer) -> int:
    """Return where a shard ends by the index at its beginning, which is whole although the end may be cut off."""
    length = 16 * int(np.prod(np.array(array.chunk_grid.chunk_shape) // codec.chunk_shape))
    if len(shard) < length:
        return length
    index = np.frombuffer(shard[:length].to_bytes(), "<u8").reshape(-1, 2)
    return max((offset + size for offset, size in index.tolist() if size < 2**63), default=length)


_METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
_ONLY_FOR_ZARR = 'missing_chunks="fill" is for Zarr stores only'


def open_raw(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    variables: Sequence[str],
    missing_chunks: Literal["error", "fill"] = "error",
) -> xr.Dataset:
    """Return what is at a path under the file's own names; it holds the variables, if anything does."""
    for one in [path] if isinstance(path, str | os.PathLike) else path:
        if isinstance(one, str) and not one.strip():
            raise ValueError(
                f"the path {one!r} is empty: is a variable of the shell or of the script not set? The working folder is"
                " '.'"
            )
    store = _zarr_path(path)
    if store is not None:
        return _open_zarr(store, missing_chunks)
    if missing_chunks == "fill":
        raise ValueError(f"{_ONLY_FOR_ZARR}, and {str(path)!r} is none. Leave it out")
    files = _files(path)
    if any(_is_zarr(Path(file)) for file in files if "://" not in str(file)):
        raise ValueError(
            f"{len(files)} paths are given and some are Zarr stores ({str(files[0])!r}): open each, and join the"
            ' Datasets, for example xr.concat([open_dataset(path, [...]) for path in paths], "time")'
        )
    if _is_grib(files[0]):
        return _open_grib(files, variables)
    return _open_files(files)


def _zarr_path(path: str | os.PathLike | Sequence[str | os.PathLike]) -> str | None:
    """Return the path of the Zarr store that is meant, or None if it is something else."""
    if not isinstance(path, str | os.PathLike):
        return None
    if "://" in str(path):
        return None if _is_file_url(str(path)) else str(path).rstrip("/")
    local = Path(path).expanduser()
    if not local.exists() and glob.has_magic(str(local)):
        found = glob.glob(str(local), recursive=True)
        local = Path(found[0]) if len(found) == 1 else local
    return str(local) if local.is_dir() and _is_zarr(local) else None


def _files(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str | os.PathLike]:
    """Return the files that are meant."""
    if not isinstance(path, str | os.PathLike):
        if not path:
            raise ValueError("an empty list of files is given: name at least one")
        return [one if "://" in str(one) else _existing(Path(one).expanduser()) for one in path]
    if "://" in str(path):
        return [path]
    local = Path(path).expanduser()
    if not local.exists() and glob.has_magic(str(local)):
        matching = sorted(glob.glob(str(local), recursive=True))
        if not matching:
            raise FileNotFoundError(f"no file matches {str(local.absolute())!r}. {_nearby(local)}")
        return list(matching)
    _existing(local)
    if local.is_file():
        return [local]
    files = sorted(local.rglob("*.nc")) or sorted(file for file in local.rglob("*") if file.suffix in _GRIB_ENDINGS)
    if not files:
        there = sorted(entry.name for entry in local.iterdir())
        raise ValueError(
            f"{str(local.absolute())!r} is a folder, but neither a Zarr store (no .zgroup or zarr.json in it)"
            f" nor one with NetCDF files (*.nc) or GRIB files. It holds {_some(there)}. Give the path of the store or"
            " of the files"
        )
    return list(files)


def _open_zarr(path: str, missing_chunks: Literal["error", "fill"]) -> xr.Dataset:
    store = CheckedStore(_zarr_store(path), path, missing_chunks)
    try:
        group = zarr.open_group(store, mode="r")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no Zarr store at {path!r}: it has neither .zgroup nor zarr.json. Check the path for a spelling"
            " mistake; a store is a folder and often ends in .zarr"
        ) from error
    except json.JSONDecodeError as error:
        raise _damaged_metadata(path, error) from error
    # Left to itself open_zarr warns before it falls back.
    consolidated = group.metadata.consolidated_metadata is not None
    if not consolidated and path.startswith(("http://", "https://")):
        raise ValueError(
            f"{path!r} has no consolidated metadata, and a web server does not list what is in a store. Whoever"
            " wrote it can add them: zarr.consolidate_metadata(path)"
        )
    try:
        store.learn_codecs(group)
        raw = _open_group(store, consolidated)
    except json.JSONDecodeError as error:
        raise _damaged_metadata(path, error) from error
    except MissingChunkError:
        raw = _open_without_zeros(store, consolidated)
    store.learn(raw)
    dataset = _clip(_decode_leads(raw))
    for variable in dataset.variables.values():
        # codecs of one Zarr format cannot be written in the other: left here they would break a later to_zarr
        for name in ("compressors", "filters", "serializer", "shards"):
            variable.encoding.pop(name, None)
    dataset.encoding["source"] = path
    return dataset


def _damaged_metadata(path: str, error: json.JSONDecodeError) -> ValueError:
    return ValueError(
        f"the metadata of the Zarr store {path!r} (.zgroup, .zarray, .zattrs, .zmetadata or zarr.json) are damaged: "
        f"{error}. Copy or download the store again"
    )


def _open_group(store: CheckedStore, consolidated: bool) -> xr.Dataset:
    # Without chunks=None xarray takes dask.
    return xr.open_zarr(store, chunks=None, consolidated=consolidated, decode_timedelta=False)


def _open_without_zeros(store: CheckedStore, consolidated: bool) -> xr.Dataset:
    """Open a store with a lost chunk of a coordinate, if what it held is beyond doubt.

    Zarr leaves out chunks that hold the fill value alone, and that is 0 in coordinates: of a store that grew one
    time at a time the first time is not there. Where it makes an even axis it was 0.
    """
    store.missing_chunks = "fill"
    raw = _open_group(store, consolidated)
    store.missing_chunks = "error"
    for key in sorted(store.filled):
        name = key.split("/")[0]
        index = raw.indexes.get(name)
        if index is None or len(index) < 3 or not index.is_unique or (index[1:] - index[:-1]).nunique() != 1:
            raise store.missing(key)
    return raw


def _clip(dataset: xr.Dataset) -> xr.Dataset:
    """Drop the times at which a store, allocated for years to come, says that it holds nothing yet."""
    start, stop = dataset.attrs.get("valid_time_start"), dataset.attrs.get("valid_time_stop")
    index = dataset.indexes.get("time")
    if not isinstance(index, pd.DatetimeIndex) or not index.is_monotonic_increasing or (start or stop) is None:
        return dataset
    return dataset.isel(time=index.slice_indexer(start, stop))


def _zarr_store(path: str) -> Store:
    """Return the Zarr store at a path or address, read only."""
    if "://" not in path:
        return LocalStore(path, read_only=True)
    if zarr.config.get("async.concurrency") == zarr.config.defaults[0]["async"]["concurrency"]:
        zarr.config.set({"async.concurrency": _REQUESTS_IN_FLIGHT})
    scheme = urlsplit(path).scheme
    if scheme in _CLOUD and importlib.util.find_spec("obstore"):
        return ObjectStore(_object_store(path), read_only=True)
    try:
        # without credentials, as `_object_store` does
        options = {"gs": {"token": "anon"}, "s3": {"anon": True}} if _is_anonymous(scheme) else {}
        return FsspecStore.from_url(path, storage_options=options.get(scheme), read_only=True)
    except Exception as error:  # each file system of fsspec has errors of its own
        if scheme not in _CLOUD or isinstance(error, ValueError):
            raise ValueError(
                f"{path!r} cannot be opened: {error}. Known are {', '.join(_CLOUD)} and local paths"
            ) from error
        if isinstance(error, ImportError):
            raise ImportError(
                f"{path!r} is remote: reading it needs a package that is not installed ({error}). Install it with"
                f" {_CLOUD_EXTRA}"
            ) from error
        raise


_CLOUD = ("http", "https", "gs", "s3")
_CLOUD_EXTRA = "pip install 'simvp-climate[cloud]'"
# A request takes about 50 ms wherever the store is: many at once are what makes remote stores fast.
_REQUESTS_IN_FLIGHT = 64
_RETRY = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
}
# A chunk of ARCO-ERA5 is 100 MB: slow is fine, silence is not.
_TIMEOUTS = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(minutes=10),
}
_CREDENTIALS = {
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH",
           "GOOGLE_SERVICE_ACCOUNT_KEY"),
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
           "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
}  # fmt: skip


def _is_anonymous(scheme: str) -> bool:
    return not any(os.environ.get(name) for name in _CREDENTIALS.get(scheme, ()))


def _object_store(url: str) -> Any:
    """Return an obstore store that tries again and does not wait for ever."""
    from obstore.store import from_url

    scheme = urlsplit(url).scheme
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "") if scheme == "s3" else url
    client = {**_TIMEOUTS, "allow_http": endpoint.startswith("http://")}
    config = {"skip_signature": True} if scheme in _CREDENTIALS and _is_anonymous(scheme) else None
    return from_url(url, config=config, client_options=client, retry_config=_RETRY)


def _unreachable(path: str, error: Exception) -> Exception:
    """Return the error for a server that did not give what was asked for, and why."""
    text = f"{error} {error.__cause__ or ''}"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if re.search("Unauthenticated|Permission|Unauthorized|Forbidden|code: 40[13]", f"{type(error).__name__} {first}"):
        return PermissionError(
            f"{path!r} may not be read ({first}). Public stores are read without credentials; for others put them"
            " into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    host = _host(path)
    if re.search("dns error|failed to lookup|Name or service not known|name resolution", text, re.IGNORECASE):
        why = f"the host {host!r} has no address: check its spelling, and the network"
        if urlsplit(path).scheme == "s3":
            bucket = urlsplit(path).netloc
            why += f". {bucket!r} is the name of a bucket; if it is on another server, set AWS_ENDPOINT_URL to that"
    elif re.search("Connection ?refused|Connect call failed", text):
        why = f"nothing listens at {host!r}: the server is down, or the port is wrong"
    elif re.search("time(d )?out", text, re.IGNORECASE):
        why = f"{host!r} does not answer in time: check the network, or wait until the server is less busy"
    else:
        why = "the server failed again and again: wait until it is well, or copy the store to a local disk"
    return ConnectionError(f"{path!r} cannot be read: {why}. {first}")


def _host(path: str) -> str:
    """Return the server that is asked for a path; in addresses of Google's and S3's the first name is a bucket."""
    match urlsplit(path).scheme:
        case "s3":
            endpoint = os.environ.get("AWS_ENDPOINT_URL")
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            return urlsplit(endpoint).netloc or endpoint if endpoint else f"s3.{region}.amazonaws.com"
        case "gs":
            return "storage.googleapis.com"
        case _:
            return urlsplit(path).netloc


def _is_file_url(url: str) -> bool:
    return Path(urlsplit(url).path).suffix in (".nc", ".nc4", *_GRIB_ENDINGS)


def _open_files(files: Sequence[str | os.PathLike], engine: str | None = None) -> xr.Dataset:
    """Return what is in one file, or in several joined along their coordinates."""
    names = [str(file) for file in files]
    options = {"decode_timedelta": False, "engine": engine}
    if engine == "cfgrib":
        options["backend_kwargs"] = _GRIB_OPTIONS
    for name in names:
        if name.startswith(("http://", "https://")):
            _check_opendap(name)
    try:
        if len(names) == 1:
            return _decode_leads(xr.open_dataset(names[0], chunks=None, **options))
        # The files may differ in attributes (history) and must agree in their grids to the last bit: xarray would
        # otherwise fill with NaN where labels differ in the last digit.
        joined = xr.open_mfdataset(
            names,
            combine="by_coords",
            data_vars="minimal",
            coords="minimal",
            compat="no_conflicts",
            join="exact",
            combine_attrs="override",
            preprocess=_name_level,
            **options,
        )
        return _decode_leads(joined)
    except PermissionError:
        raise
    except OSError as error:
        raise _damaged(str(error.filename or names[0]), error) from error
    except TypeError as error:
        if "mixed types" not in str(error):
            raise
        raise ValueError(
            f"the {len(names)} files from {names[0]!r} to {names[-1]!r} have different calendars ({error}): they are of"
            " different models or runs. Give the files of one; convert with ds.convert_calendar(...) if they belong"
            " together"
        ) from error
    except ValueError as error:
        if type(error).__name__ == "DatasetBuildError":  # GRIB with several hypercubes
            raise
        strange = [name for name in names if engine is None and not _looks_like_netcdf(name)]
        if strange:
            raise ValueError(
                f"{strange[0]!r} is not a file that can be opened here: it is neither NetCDF nor GRIB nor a Zarr store."
                " If xarray opens it, pass the Dataset"
            ) from error
        if len(names) == 1:
            raise
        raise ValueError(
            f"the {len(names)} files from {names[0]!r} to {names[-1]!r} cannot be joined: {error}. They"
            " must have the same latitudes and longitudes to the last digit, and every variable the same"
            " times. Otherwise join them with xarray and pass the Dataset"
        ) from error


def _check_opendap(url: str) -> None:
    """Raise OSError if a server says that it has no NetCDF file to be read in parts.

    The NetCDF library would print a syntax error to the terminal, for the page that came instead. All other troubles
    (passwords, certificates, addresses with a part behind #) are left to it.
    """
    if urlsplit(url).fragment:
        return
    try:
        with urllib.request.urlopen(f"{url.split('?')[0]}.dds", timeout=20):
            pass
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise _damaged(url, error) from error
    except (OSError, http.client.HTTPException):
        pass


def _damaged(path: str, error: Exception) -> Exception:
    if "://" in path:
        return OSError(
            f"{path!r} cannot be opened ({error}): of NetCDF files elsewhere only those on an OPeNDAP server can be"
            " read. Download the file first, or ask for the data as Zarr"
        )
    return ValueError(f"{path!r} is damaged or cut short ({error}): copy or download it again")


def _looks_like_netcdf(path: str) -> bool:
    return "://" in path or _begins_with(path, b"CDF", b"\x89HDF")


def _begins_with(path: str | os.PathLike, *magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(4).startswith(magic)


_GRIB_ENDINGS = (".grib", ".grb", ".grib2", ".grb2")
# No index files beside the user's data; what cannot be one Dataset is an error, not left out.
_GRIB_OPTIONS = {"indexpath": "", "errors": "raise"}


def _is_grib(path: str | os.PathLike) -> bool:
    if "://" in str(path):
        return Path(urlsplit(str(path)).path).suffix in _GRIB_ENDINGS
    return Path(path).suffix in _GRIB_ENDINGS or (Path(path).is_file() and _begins_with(path, b"GRIB"))


def _open_grib(files: Sequence[str | os.PathLike], variables: Sequence[str]) -> xr.Dataset:
    if "://" in str(files[0]):
        raise ValueError(f"{str(files[0])!r} is GRIB, which is read from local paths only. Download the file first")
    if importlib.util.find_spec("cfgrib") is None:
        raise ImportError(
            f"{str(files[0])!r} is GRIB: reading it needs cfgrib. Install it with pip install 'simvp-climate[grib]'"
        )
    from cfgrib import DatasetBuildError
    from gribapi.errors import GribInternalError

    try:
        return _open_files(files, engine="cfgrib")
    except GribInternalError as error:
        raise _damaged(str(files[0]), error) from error
    except DatasetBuildError as error:
        if len(files) > 1:
            raise ValueError(
                f"the {len(files)} GRIB files from {str(files[0])!r} hold several grids, levels or members that make no"
                f" single Dataset ({error}). Open them one by one, or with xarray and filter_by_keys"
            ) from error
    return _choose_hypercubes(str(files[0]), variables)


def _choose_hypercubes(path: str, variables: Sequence[str]) -> xr.Dataset:
    """Return the variables asked for of a GRIB file whose variables do not fit into one Dataset."""
    from cfgrib.xarray_store import open_variable_datasets

    cubes = open_variable_datasets(path, backend_kwargs=_GRIB_OPTIONS, chunks=None, decode_timedelta=False)
    chosen = {}
    for name in variables:
        found = [position for position, cube in enumerate(cubes) if _has(cube, name)]
        if not found:
            held = sorted({str(name) for cube in cubes for name in cube.data_vars})
            raise ValueError(f"no variable {name!r} in {path!r}, which holds {', '.join(held)}")
        if len(found) > 1:
            raise ValueError(
                f"{path!r} holds {name!r} {len(found)} times: {' and '.join(_shape(cubes[one]) for one in found)}."
                " Choose with xarray, for example xr.open_dataset(path, engine='cfgrib', backend_kwargs={'indexpath':"
                " '', 'filter_by_keys': {'typeOfLevel': 'surface'}}), and pass the Dataset"
            )
        chosen[found[0]] = _decode_leads(_name_level(cubes[found[0]]))
    parts = [part.drop_vars([n for n, c in part.coords.items() if c.ndim == 0]) for part in chosen.values()]
    held = [name for part in parts for name in part.data_vars]
    try:
        if len(set(held)) < len(held):
            raise ValueError(f"{max(held, key=held.count)!r} would be there twice")
        return xr.merge(parts, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        raise ValueError(
            f"{list(variables)} of {path!r} make no single Dataset: {error}. Ask for one at a time"
        ) from error


def _has(dataset: xr.Dataset, name: str) -> bool:
    try:
        rename(dataset, [name])
    except ValueError:
        return False
    return True


def _shape(cube: xr.Dataset) -> str:
    (variable,) = cube.data_vars.values()
    return f"{variable.attrs.get('GRIB_typeOfLevel', 'unknown level')} {dict(variable.sizes)}"


def _decode_leads(dataset: xr.Dataset) -> xr.Dataset:
    """Decode the durations among the coordinates, which are lead times; a variable in days stays a number."""
    leads = {
        name: xr.conventions.decode_cf_variable(name, coordinate.variable, decode_timedelta=True)
        for name, coordinate in dataset.coords.items()
        if coordinate.attrs.get("units") in ("days", "hours", "minutes", "seconds")
    }
    return dataset.assign_coords(leads) if leads else dataset


def _name_level(dataset: xr.Dataset) -> xr.Dataset:
    """Move the level of a file on one level into the names: z becomes z500.

    WeatherBench 1 has z at 500 and t at 850 hPa in files of their own, each with a scalar `level`; one
    Dataset can hold only one of these.
    """
    level = single_level(dataset)
    if level is None:
        return dataset
    names = {}
    for name in dataset.data_vars:
        meaning = lookup(str(name))
        if meaning is not None and meaning[0].on_levels and meaning[1] is None:
            names[name] = f"{meaning[0].short_name}{level:g}"
    scalars = [name for name, coordinate in dataset.coords.items() if coordinate.ndim == 0]
    return dataset.drop_vars(scalars).rename(names)


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json"))


def _is_consolidated(store: Path) -> bool:
    if (store / ".zmetadata").exists():
        return True
    group = store / "zarr.json"
    return group.exists() and "consolidated_metadata" in group.read_text()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {str(path.absolute())!r}. {_nearby(path)}")
    return path


def _nearby(path: Path) -> str:
    """Say what there is instead: similar names in the same folder, or up to where the path exists."""
    folder = path.absolute().parent
    if not folder.is_dir():
        while not folder.exists():
            folder = folder.parent
        return f"The path exists up to {str(folder)!r}"
    there = sorted(entry.name for entry in folder.iterdir())
    near = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(name) for name in near)}?"
    return f"{str(folder)!r} holds {_some(there)}"


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:8]) or "nothing"
    return listed + (f" and {len(names) - 8} more" if len(names) > 8 else "")
