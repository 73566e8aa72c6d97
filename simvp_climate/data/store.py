"""Open Zarr stores, NetCDF and GRIB files, or a Dataset in memory, lazily, under the requested names."""

import difflib
import glob
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import xarray as xr
import zarr
from zarr.storage import LocalStore

from simvp_climate.data.checked_store import CheckedStore, MissingChunkError
from simvp_climate.data.conventions import rename
from simvp_climate.data.netcdf_grib import GRIB_SUFFIXES, decode_lead_times, is_file_url, open_files
from simvp_climate.data.remote import open_remote_store
from simvp_climate.data.variables import expand

_SAMPLE = Path(__file__).parents[1] / "sample" / "gcm_t21_6h_5.625deg.zarr"


def open_dataset(
    path_or_dataset: str | os.PathLike | Sequence[str | os.PathLike] | xr.Dataset,
    variables: Iterable[str],
    levels: Sequence[float] | None = None,
    *,
    missing_chunks: Literal["error", "fill"] = "error",
) -> xr.Dataset:
    """Return the requested variables, lazily, with dimensions called `time`, `latitude`, `longitude`, `level`.

    Values, order, longitude range, calendar and units do not change. Several files are joined along their
    coordinates and returned as dask arrays; everything else is returned without dask. A time axis that is longer than
    the data, as in ARCO-ERA5, is cut at the store's attributes `valid_time_start` and `valid_time_stop`.

    Remote Zarr stores are read through obstore where it is installed (the extra `cloud`), else through fsspec. Failed
    requests are repeated for up to a minute. Stores on Google Cloud (WeatherBench) and S3 are read anonymously unless
    the environment has credentials (GOOGLE_APPLICATION_CREDENTIALS; AWS_ACCESS_KEY_ID and others);
    AWS_ENDPOINT_URL selects another S3 server, AWS_REGION the region. Opening a remote store raises `zarr.config`
    `async.concurrency` from 10 to 64 requests in flight, unless you have changed it.

    Parameters
    ----------
    path_or_dataset
        A Zarr store (format 2 or 3, consolidated or not, also remote: `"https://..."`, `"gs://..."`,
        `"s3://..."`), a NetCDF file, a folder of NetCDF files (including subfolders, as in WeatherBench 1), a pattern
        (`"era5_*.nc"`), a list of NetCDF files, GRIB files likewise (the extra `grib`), or an xarray Dataset.
    variables
        Names as in the file, or their WeatherBench or CF names: `["z500", "2m_temperature"]`.
    levels
        Pressure levels in hPa of the variables that have levels; None keeps all.
    missing_chunks
        How to read a chunk that is absent from a Zarr store: `"error"` (the download or run that wrote it did not
        finish) raises an error with the chunk and its times; `"fill"` reads the fill value.

    Raises
    ------
    FileNotFoundError
        If the path does not exist; the message suggests similar names.
    PermissionError
        If this user may not read the data.
    ConnectionError
        If a server cannot be reached or does not answer.
    ImportError
        If a package is not installed; the message names the extra.
    ValueError
        If the data are not Zarr, NetCDF or GRIB, or damaged, or a variable or level is absent or ambiguous. Reading
        an absent or truncated chunk later raises MissingChunkError or DamagedChunkError, both ValueErrors.
    """
    if missing_chunks not in ("error", "fill"):
        raise ValueError(f'missing_chunks={missing_chunks!r} must be "error" or "fill"')
    if isinstance(path_or_dataset, xr.Dataset):
        if missing_chunks == "fill":
            raise ValueError('missing_chunks="fill" is for Zarr stores only, not for a Dataset. Leave it out')
        return rename(path_or_dataset, variables, levels)
    variables = expand(variables)
    try:
        return rename(open_raw(path_or_dataset, variables, missing_chunks), variables, levels)
    except PermissionError as error:
        if error.errno is None:  # the message explains already
            raise
        path = error.filename or path_or_dataset
        raise PermissionError(
            f"this user has no permission to read {str(path)!r}. Ask its owner to run: chmod -R a+rX '{path}'"
        ) from error


def open_sample(variables: Iterable[str] = ("z500", "t2m")) -> xr.Dataset:
    """Return the bundled sample: a simulated climate, 6-hourly on WeatherBench's 5.625 degree grid.

    It is SIMULATED (a general circulation model at T21), for examples and tests. It has `z500` (m2 s-2) and `t2m` (K)
    on (time, latitude, longitude), and `orography` (m) and `land_sea_mask` (1) on (latitude, longitude).

    Raises
    ------
    ValueError
        If another variable is requested.
    """
    return open_dataset(_SAMPLE, variables)


def is_sample(source: str | os.PathLike) -> bool:
    """Return whether a path, as in the encoding of a Dataset, is that of the bundled sample."""
    return os.path.realpath(str(source).removeprefix("file://")) == os.path.realpath(_SAMPLE)


def open_raw(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    variables: Sequence[str],
    missing_chunks: Literal["error", "fill"] = "error",
) -> xr.Dataset:
    """Return the Dataset at a path under the names in the file; `variables` select the fields of a GRIB file."""
    for name in [path] if isinstance(path, str | os.PathLike) else path:
        if isinstance(name, str) and not name.strip():
            raise ValueError(f"the path {name!r} is empty. The working folder is '.'")
    paths = _list_paths(path)
    if isinstance(path, str | os.PathLike) and len(paths) == 1 and _is_zarr(paths[0]):
        return _open_zarr(str(paths[0]).rstrip("/"), missing_chunks)
    if missing_chunks == "fill":
        raise ValueError(f'missing_chunks="fill" is for Zarr stores only, not for {str(path)!r}. Leave it out')
    if any(_is_zarr(each) for each in paths if "://" not in str(each)):
        raise ValueError(
            f"{len(paths)} paths with Zarr stores ({str(paths[0])!r}) cannot be opened at once. Join them with xarray: "
            'xr.concat([sc.open_dataset(path, [...]) for path in paths], "time")'
        )
    return open_files(paths, variables)


def _list_paths(path: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str | os.PathLike]:
    """Return the files or Zarr stores that a path, a pattern, a folder or a list stands for."""
    if not isinstance(path, str | os.PathLike):
        if not path:
            raise ValueError("the list of files is empty. List at least one")
        return [file if "://" in str(file) else _check_exists(Path(file).expanduser()) for file in path]
    if "://" in str(path):
        return [path]
    local = Path(path).expanduser()
    if not local.exists() and glob.has_magic(str(local)):
        matches = sorted(glob.glob(str(local), recursive=True))
        if not matches:
            raise FileNotFoundError(f"no file matches {str(local.absolute())!r}. {_suggest(local)}")
        return list(matches)
    _check_exists(local)
    if local.is_file() or _is_zarr(local):
        return [local]
    files = sorted(local.rglob("*.nc")) or sorted(file for file in local.rglob("*") if file.suffix in GRIB_SUFFIXES)
    if not files:
        entries = sorted(entry.name for entry in local.iterdir())
        raise ValueError(
            f"{str(local.absolute())!r} is neither a Zarr store (no .zgroup or zarr.json) nor a folder of NetCDF or "
            f"GRIB files: it contains {_shorten(entries)}. Pass the path of the store or of the files"
        )
    return list(files)


def _open_zarr(path: str, missing_chunks: Literal["error", "fill"]) -> xr.Dataset:
    base = open_remote_store(path) if "://" in path else LocalStore(path, read_only=True)
    store = CheckedStore(base, path, missing_chunks)
    try:
        raw = _open_group(store)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no Zarr store at {path!r}: it has neither .zgroup nor zarr.json. Check the spelling; the path of a store "
            "often ends in .zarr"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the metadata of the Zarr store {path!r} (.zgroup, .zarray, .zattrs, .zmetadata or zarr.json) are "
            f"damaged: {error}. Copy or download the store again"
        ) from error
    store.remember_times(raw)
    dataset = _cut_to_valid_time(decode_lead_times(raw))
    drop_codecs(dataset)
    dataset.encoding["source"] = path
    return dataset


def drop_codecs(dataset: xr.Dataset) -> None:
    """Remove the codecs from the encodings: those of one Zarr format would break `to_zarr` in the other."""
    for variable in dataset.variables.values():
        for name in ("compressors", "filters", "serializer", "shards"):
            variable.encoding.pop(name, None)


def _open_group(store: CheckedStore) -> xr.Dataset:
    """Return the Dataset of a store, also if it lacks chunks of coordinates that consist of zeros.

    Zarr leaves out chunks that consist of the fill value, which is 0 in coordinates: a store that grew by one time
    after another lacks its first time. The value was 0 if that makes the axis evenly spaced.
    """
    group = zarr.open_group(store, mode="r")
    # passed on, because open_zarr by itself warns before it falls back
    consolidated = group.metadata.consolidated_metadata is not None
    if not consolidated and store.path.startswith(("http://", "https://")):
        raise ValueError(
            f"{store.path!r} has no consolidated metadata, and a web server does not list the arrays of a store. Its "
            "owner can add them: zarr.consolidate_metadata(path)"
        )
    store.remember_codecs(group)
    options = {"chunks": None, "consolidated": consolidated, "decode_timedelta": False}  # without dask
    try:
        return xr.open_zarr(store, **options)
    except MissingChunkError:
        store.missing_chunks = "fill"
        raw = xr.open_zarr(store, **options)
        store.missing_chunks = "error"
    for key in sorted(store.filled):
        name = key.split("/")[0]
        index = raw.indexes.get(name)
        if index is None or len(index) < 3 or not index.is_unique or (index[1:] - index[:-1]).nunique() != 1:
            raise store.missing_chunk_error(key)
    return raw


def _cut_to_valid_time(dataset: xr.Dataset) -> xr.Dataset:
    """Drop the times that a store has allocated for the future, as its attributes tell."""
    start, stop = dataset.attrs.get("valid_time_start"), dataset.attrs.get("valid_time_stop")
    index = dataset.indexes.get("time")
    if not isinstance(index, pd.DatetimeIndex) or not index.is_monotonic_increasing or (start or stop) is None:
        return dataset
    return dataset.isel(time=index.slice_indexer(start, stop))


def _is_zarr(path: str | os.PathLike) -> bool:
    if "://" in str(path):
        return not is_file_url(str(path))
    return any((Path(path) / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json"))


def _check_exists(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{str(path.absolute())!r} does not exist. {_suggest(path)}")
    return path


def _suggest(path: Path) -> str:
    """Return a sentence with similar names in the same folder, or the part of the path that exists."""
    folder = path.absolute().parent
    if not folder.is_dir():
        while not folder.exists():
            folder = folder.parent
        return f"The path exists up to {str(folder)!r}"
    entries = sorted(entry.name for entry in folder.iterdir())
    similar = difflib.get_close_matches(path.name, entries, n=3, cutoff=0.5)
    if similar:
        return f"Did you mean {' or '.join(repr(name) for name in similar)}?"
    return f"{str(folder)!r} contains {_shorten(entries)}"


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "nothing"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
