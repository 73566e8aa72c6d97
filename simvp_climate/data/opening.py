"""Open Zarr stores, NetCDF and GRIB files, or a Dataset in memory, lazily, under the requested names."""

import difflib
import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import xarray as xr
from zarr.abc.store import Store

from simvp_climate.data.conventions import assign_names, rename, variables_on_grid
from simvp_climate.data.netcdf_grib import GRIB_SUFFIXES, is_file_url, open_files
from simvp_climate.data.variables import expand
from simvp_climate.data.virtual import is_virtual
from simvp_climate.data.zarr_store import open_zarr

_SAMPLE = Path(__file__).parents[1] / "sample" / "gcm_t21_6h_5.625deg.zarr"
_Paths = str | os.PathLike | Store | Sequence[str | os.PathLike]


def open_dataset(
    path_or_dataset: str | os.PathLike | Sequence[str | os.PathLike] | Store | xr.Dataset,
    variables: Iterable[str] | Mapping[str, str] | None = None, levels: Sequence[float] | None = None, *,
    missing_chunks: Literal["error", "fill"] = "error",
) -> xr.Dataset:  # fmt: skip
    """Return the requested variables, lazily, with dimensions called `time`, `latitude`, `longitude`, `level`.

    Values, order, longitude range, calendar and units do not change. Several files are joined along their
    coordinates as dask arrays; everything else is returned without dask. A time axis that is longer than the data, as
    in ARCO-ERA5, is cut at the store's attributes `valid_time_start` and `valid_time_stop`.

    Remote Zarr stores are read through obstore where it is installed (the extra `cloud`), else through fsspec. Failed
    requests are repeated for up to a minute. Stores on Google Cloud and S3 are read anonymously unless the environment
    has credentials (GOOGLE_APPLICATION_CREDENTIALS, AWS_ACCESS_KEY_ID); AWS_ENDPOINT_URL selects another S3 server,
    AWS_REGION the region. Opening a remote store sets `zarr.config` `async.concurrency` to 64 if it has its default.

    Parameters
    ----------
    path_or_dataset
        A Zarr store (format 2 or 3, consolidated or not, also remote: `"https://..."`, `"gs://..."`,
        `"s3://..."`), a NetCDF file, also remote (through OPeNDAP, or with the extra `cloud` through fsspec), a folder
        of NetCDF files (including subfolders, as in WeatherBench 1), a pattern (`"era5_*.nc"`), a list of NetCDF files,
        GRIB files likewise (the extra `grib`), virtual references of kerchunk or VirtualiZarr (`"refs.json"`,
        `"refs.parq"`), a folder with an Icechunk repository (the extra `icechunk`; its branch main), an open Zarr store
        such as `session.store` of Icechunk, or an xarray Dataset.
    variables
        Names as in the file, or their WeatherBench or CF names: `["z500", "2m_temperature"]`. A mapping renames:
        `{"t2m": "air"}` opens `air` of the file as `t2m`, and `{"z500": "hgt"}` the level 500 hPa of `hgt`. None opens
        all variables on the grid under their names in the file, and prints what is there.
    levels
        Pressure levels in hPa of the variables that have levels; None keeps all.
    missing_chunks
        Chunks that are absent from a Zarr store (an unfinished download) raise an `"error"` that names their times, or
        get the `"fill"` value.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError, ImportError
        If the path does not exist, may not be read, its server does not answer, or a package is not installed.
    ValueError
        If the data are not Zarr, NetCDF or GRIB, or damaged, or a variable or level is absent or ambiguous. Reading
        an absent or truncated chunk later raises MissingChunkError or DamagedChunkError, both ValueErrors.
    """
    if missing_chunks not in ("error", "fill"):
        raise ValueError(f'missing_chunks={missing_chunks!r} must be "error" or "fill"')
    names = () if variables is None else expand(variables)
    sources = tuple(variables.values()) if isinstance(variables, Mapping) else names
    try:
        if isinstance(path_or_dataset, xr.Dataset):
            if missing_chunks == "fill":
                raise ValueError('missing_chunks="fill" is for Zarr stores only, not for a Dataset. Leave it out')
            raw = path_or_dataset
        else:
            raw = open_raw(path_or_dataset, sources, missing_chunks)
        if variables is None:
            if not raw.variables:  # GRIB fields are left out unless they are named
                message = f"the fields in {str(path_or_dataset)!r} make no single Dataset"
                raise ValueError(f'{message}. Name some: open_dataset(path, ["t2m"])')
            names = variables_on_grid(raw)
            print(_list_variables(raw, names))
        return rename(assign_names(raw, variables) if isinstance(variables, Mapping) else raw, names, levels)
    except PermissionError as error:
        if error.errno is None:  # the message explains already
            raise
        path = error.filename or path_or_dataset
        message = f"this user has no permission to read {str(path)!r}. Ask its owner to run: chmod -R a+rX '{path}'"
        raise PermissionError(message) from error


def _list_variables(dataset: xr.Dataset, names: Sequence[str]) -> str:
    """Return a line about each variable: name, dimensions, units and long name; then the names of all others."""
    rows = []
    for name in names:
        attrs, dims = dataset[name].attrs, ", ".join(f"{dim} {size}" for dim, size in dataset[name].sizes.items())
        rows.append((name, f"({dims})", str(attrs.get("units", "no units")), str(attrs.get("long_name", ""))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    others = [str(name) for name in dataset.data_vars if name not in names]
    lines += [f"left out, not numbers on the grid: {', '.join(others)}"] if others else []
    count = "1 variable" if len(rows) == 1 else f"{len(rows)} variables"
    return "\n".join([f"Opened {count}:", *lines])


def open_sample(variables: Iterable[str] = ("z500", "t2m")) -> xr.Dataset:
    """Return the bundled sample: a simulated climate, 6-hourly on WeatherBench's 5.625 degree grid.

    It is SIMULATED (a general circulation model at T21), for examples and tests. It has `z500` (m2 s-2) and `t2m` (K)
    on (time, latitude, longitude), and `orography` (m) and `land_sea_mask` (1) on (latitude, longitude); any other
    variable is a ValueError.
    """
    return open_dataset(_SAMPLE, variables)


def is_sample(source: str | os.PathLike) -> bool:
    """Return whether a path, as in the encoding of a Dataset, is that of the bundled sample."""
    return os.path.realpath(str(source).removeprefix("file://")) == os.path.realpath(_SAMPLE)


def open_raw(path: _Paths, variables: Sequence[str], missing_chunks: str = "error") -> xr.Dataset:
    """Return the Dataset at a path under the names in the file; `variables` select the fields of a GRIB file."""
    if isinstance(path, Store):
        return open_zarr(str(path), missing_chunks, path)
    is_path = isinstance(path, str | os.PathLike)
    for name in [path] if is_path else path:
        if isinstance(name, str) and not name.strip():
            raise ValueError(f"the path {name!r} is empty. The working folder is '.'")
    paths = _list_paths(path)
    if is_path and len(paths) == 1 and _is_zarr(paths[0]):
        return open_zarr(str(paths[0]).rstrip("/"), missing_chunks)
    if missing_chunks == "fill":
        raise ValueError(f'missing_chunks="fill" is for Zarr stores only, not for {str(path)!r}. Leave it out')
    if any(_is_zarr(each) for each in paths if "://" not in str(each)):
        fix = 'Join them with xarray: xr.concat([sc.open_dataset(path, [...]) for path in paths], "time")'
        raise ValueError(f"{len(paths)} paths with Zarr stores ({str(paths[0])!r}) cannot be opened at once. {fix}")
    return open_files(paths, variables)


def _list_paths(path: _Paths) -> list[str | os.PathLike]:
    """Return the files or Zarr stores that a path, a pattern, a folder or a list stands for."""
    if not isinstance(path, str | os.PathLike):
        if not path:
            raise ValueError("the list of files is empty. List at least one")
        return [file if "://" in str(file) else _check_exists(Path(file).expanduser()) for file in path]
    if "://" in str(path):
        return [path]
    local = Path(path).expanduser()
    if not local.exists() and glob.has_magic(str(local)):
        if matches := sorted(glob.glob(str(local), recursive=True)):
            return list(matches)
        raise FileNotFoundError(f"no file matches {str(local.absolute())!r}. {_suggest(local)}")
    _check_exists(local)
    if local.is_file() or _is_zarr(local):
        return [local]
    files = sorted(local.rglob("*.nc")) or sorted(file for file in local.rglob("*") if file.suffix in GRIB_SUFFIXES)
    if not files:
        content = _shorten(sorted(entry.name for entry in local.iterdir()))
        rule = "neither a Zarr store (no .zgroup or zarr.json) nor a folder of NetCDF or GRIB files: it contains"
        raise ValueError(f"{str(local.absolute())!r} is {rule} {content}. Pass the path of the store or of the files")
    return list(files)


def _is_zarr(path: str | os.PathLike) -> bool:
    if "://" in str(path):
        return not is_file_url(str(path))
    if is_virtual(path):
        return True
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
