"""Open NetCDF and GRIB files, one or several joined along their coordinates."""

import http.client
import importlib.util
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import xarray as xr

from simvp_climate.data.conventions import rename
from simvp_climate.data.grid import find_scalar_level
from simvp_climate.data.remote import open_remote_file
from simvp_climate.data.variables import lookup

GRIB_SUFFIXES = (".grib", ".grb", ".grib2", ".grb2")
# no index files beside the user's data; raise an error for fields that do not fit into one Dataset
_GRIB_OPTIONS = {"indexpath": "", "errors": "raise"}


def is_file_url(url: str) -> bool:
    """Return whether an address is that of a NetCDF or GRIB file, by its suffix."""
    return Path(urlsplit(url).path).suffix in (".nc", ".nc4", *GRIB_SUFFIXES)


def open_files(files: Sequence[str | os.PathLike], variables: Sequence[str]) -> xr.Dataset:
    """Return the Dataset of some NetCDF files, or of some GRIB files; GRIB files are searched for the variables."""
    names = [str(file) for file in files]
    is_remote = "://" in names[0]
    is_grib = Path(urlsplit(names[0]).path if is_remote else names[0]).suffix in GRIB_SUFFIXES
    if is_grib or (not is_remote and Path(names[0]).is_file() and _starts_with(names[0], b"GRIB")):
        return _open_grib(names, variables)
    return _open_with_xarray(names)


def _open_with_xarray(names: Sequence[str], engine: str | None = None) -> xr.Dataset:
    options = {"decode_timedelta": False, "engine": engine}
    if engine == "cfgrib":
        options["backend_kwargs"] = _GRIB_OPTIONS
    sources: list = list(names)
    if engine is None and any("://" in name and not _is_opendap(name) for name in names):
        opened = [open_remote_file(name) for name in names]
        sources, options["engine"] = [file for file, _ in opened], opened[0][1]
    files = f"the {len(names)} files from {names[0]!r} to {names[-1]!r}"
    try:
        if len(names) == 1:
            dataset = decode_lead_times(xr.open_dataset(sources[0], chunks=None, **options))
            dataset.encoding.setdefault("source", names[0])
            return dataset
        # Files may differ in attributes (history) but not in their grids: xarray would fill labels that differ in the
        # last digit with NaN.
        options |= {"join": "exact", "compat": "no_conflicts", "combine_attrs": "override", "preprocess": _name_level}
        options |= {"combine": "by_coords", "data_vars": "minimal", "coords": "minimal"}
        return decode_lead_times(xr.open_mfdataset(sources, **options))
    except PermissionError:
        raise
    except OSError as error:
        raise _damaged_file_error(str(error.filename or names[0]), error) from error
    except TypeError as error:
        if "mixed types" not in str(error):
            raise
        message = f"{files} have different calendars ({error}). Convert each: ds.convert_calendar('standard')"
        raise ValueError(message) from error
    except ValueError as error:
        if type(error).__name__ == "DatasetBuildError":  # GRIB with several hypercubes
            raise
        unknown = [n for n in names if engine is None and "://" not in n and not _starts_with(n, b"CDF", b"\x89HDF")]
        if unknown:
            fix = "If xarray opens it, pass the Dataset"
            raise ValueError(f"{unknown[0]!r} is neither NetCDF nor GRIB nor a Zarr store. {fix}") from error
        if len(names) == 1:
            raise
        rule = "Their grids must agree to the last digit, and all variables have the same times"
        fix = "correct them, or join them with xarray"
        raise ValueError(f"{files} cannot be joined: {error}. {rule}: {fix}") from error


def _is_opendap(url: str) -> bool:
    """Return whether an OPeNDAP server answers; else the NetCDF library would print a syntax error about a page."""
    if not url.startswith(("http://", "https://")):
        return False
    if urlsplit(url).fragment:  # options of the NetCDF library
        return True
    try:
        with urllib.request.urlopen(f"{url.split('?')[0]}.dds", timeout=20) as answer:
            return answer.read(7).lower() == b"dataset"
    except (OSError, http.client.HTTPException):
        return False


def _damaged_file_error(path: str, error: Exception) -> Exception:
    if "://" in path:
        return OSError(f"{path!r} cannot be opened ({error}). Download the file first, or use a Zarr store")
    return ValueError(f"{path!r} is damaged or truncated ({error}). Copy or download it again")


def _starts_with(path: str, *magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(4).startswith(magic)


def _open_grib(names: Sequence[str], variables: Sequence[str]) -> xr.Dataset:
    if "://" in names[0]:
        raise ValueError(f"{names[0]!r} is GRIB, which must be a local path. Download the file first")
    if importlib.util.find_spec("cfgrib") is None:
        raise ImportError(f"{names[0]!r} is GRIB, and reading it needs cfgrib. Run: pip install 'simvp-climate[grib]'")
    from cfgrib import DatasetBuildError
    from gribapi.errors import GribInternalError

    try:
        return _open_with_xarray(names, engine="cfgrib")
    except GribInternalError as error:
        raise _damaged_file_error(names[0], error) from error
    except DatasetBuildError as error:
        if len(names) > 1:
            files = f"the {len(names)} GRIB files from {names[0]!r}"
            rule = f"have several grids, levels or members that do not fit into one Dataset ({error})"
            raise ValueError(f"{files} {rule}. Open them one by one, or with xarray and filter_by_keys") from error
    return _choose_hypercubes(names[0], variables)


def _choose_hypercubes(path: str, variables: Sequence[str]) -> xr.Dataset:
    from cfgrib.xarray_store import open_variable_datasets

    cubes = open_variable_datasets(path, backend_kwargs=_GRIB_OPTIONS, chunks=None, decode_timedelta=False)
    chosen = {}
    for name in variables:
        matches = [position for position, cube in enumerate(cubes) if _has_variable(cube, name)]
        if not matches:
            available = sorted({str(name) for cube in cubes for name in cube.data_vars})
            raise ValueError(f"no variable {name!r} in {path!r}. It has {', '.join(available)}")
        if len(matches) > 1:
            arrays = [array for position in matches for array in cubes[position].data_vars.values()]
            levels = [array.attrs.get("GRIB_typeOfLevel", "unknown level") for array in arrays]
            shapes = " and ".join(f"{level} {dict(array.sizes)}" for level, array in zip(levels, arrays, strict=True))
            options = "{'indexpath': '', 'filter_by_keys': {'typeOfLevel': 'surface'}}"
            fix = f"Select one and pass the Dataset: xr.open_dataset(path, engine='cfgrib', backend_kwargs={options})"
            raise ValueError(f"{path!r} has {name!r} {len(matches)} times: {shapes}. {fix}")
        chosen[matches[0]] = decode_lead_times(_name_level(cubes[matches[0]]))
    names = [name for cube in chosen.values() for name in cube.data_vars]
    try:
        if len(set(names)) < len(names):
            raise ValueError(f"{max(names, key=names.count)!r} would appear twice")
        cubes = map(_drop_scalars, chosen.values())
        return xr.merge(cubes, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        message = f"{list(variables)} of {path!r} do not fit into one Dataset: {error}. Open them one at a time"
        raise ValueError(message) from error


def _has_variable(dataset: xr.Dataset, name: str) -> bool:
    try:
        rename(dataset, [name])
    except ValueError:
        return False
    return True


def decode_lead_times(dataset: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with its lead times, which are coordinates in days to seconds, decoded to durations."""
    units, leads = ("days", "hours", "minutes", "seconds"), {}
    for name, coordinate in dataset.coords.items():
        if coordinate.attrs.get("units") in units:
            leads[name] = xr.conventions.decode_cf_variable(name, coordinate.variable, decode_timedelta=True)
    return dataset.assign_coords(leads) if leads else dataset


def _name_level(dataset: xr.Dataset) -> xr.Dataset:
    """Move the level of a file on a single level into the names of its variables: z becomes z500."""
    # WeatherBench 1 has z at 500 and t at 850 hPa in two files, whose scalar `level` would exclude each other
    level = find_scalar_level(dataset)
    if level is None:
        return dataset
    names = {}
    for name in dataset.data_vars:
        meaning = lookup(str(name))
        if meaning is not None and meaning[0].on_levels and meaning[1] is None:
            names[name] = f"{meaning[0].short_name}{level:g}"
    return _drop_scalars(dataset).rename(names)


def _drop_scalars(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.drop_vars([name for name, coordinate in dataset.coords.items() if coordinate.ndim == 0])
