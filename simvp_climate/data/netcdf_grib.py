"""Open NetCDF and GRIB files, one or several joined along their coordinates."""

import http.client
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import xarray as xr

from simvp_climate.data.conventions import rename
from simvp_climate.data.grid import find_scalar_level
from simvp_climate.data.variables import lookup

GRIB_SUFFIXES = (".grib", ".grb", ".grib2", ".grb2")
# no index files beside the user's data; raise an error for fields that do not fit into one Dataset
_GRIB_OPTIONS = {"indexpath": "", "errors": "raise"}


def is_file_url(url: str) -> bool:
    """Return whether an address is that of a NetCDF or GRIB file, by its suffix."""
    return Path(urlsplit(url).path).suffix in (".nc", ".nc4", *GRIB_SUFFIXES)


def open_files(files: Sequence[str | os.PathLike], variables: Sequence[str]) -> xr.Dataset:
    """Return the Dataset of some NetCDF files, or of some GRIB files; GRIB files are searched for the variables."""
    if _is_grib(files[0]):
        return _open_grib(files, variables)
    return _open_with_xarray(files)


def _open_with_xarray(files: Sequence[str | os.PathLike], engine: str | None = None) -> xr.Dataset:
    names = [str(file) for file in files]
    options = {"decode_timedelta": False, "engine": engine}
    if engine == "cfgrib":
        options["backend_kwargs"] = _GRIB_OPTIONS
    for name in names:
        if name.startswith(("http://", "https://")):
            _check_opendap(name)
    try:
        if len(names) == 1:
            return decode_lead_times(xr.open_dataset(names[0], chunks=None, **options))
        # Files may differ in attributes (history) but not in their grids: xarray would fill labels that differ in the
        # last digit with NaN.
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
        return decode_lead_times(joined)
    except PermissionError:
        raise
    except OSError as error:
        raise _damaged_file_error(str(error.filename or names[0]), error) from error
    except TypeError as error:
        if "mixed types" not in str(error):
            raise
        raise ValueError(
            f"the {len(names)} files from {names[0]!r} to {names[-1]!r} have different calendars ({error}). Pass the "
            "files of one model or run, or convert with ds.convert_calendar(...)"
        ) from error
    except ValueError as error:
        if type(error).__name__ == "DatasetBuildError":  # GRIB with several hypercubes
            raise
        unknown = [n for n in names if engine is None and "://" not in n and not _starts_with(n, b"CDF", b"\x89HDF")]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} cannot be opened: it is neither NetCDF nor GRIB nor a Zarr store. If xarray opens "
                "it, pass the Dataset"
            ) from error
        if len(names) == 1:
            raise
        raise ValueError(
            f"the {len(names)} files from {names[0]!r} to {names[-1]!r} cannot be joined: {error}. Their grids must "
            "agree to the last digit, and all variables have the same times: correct them, or join them with xarray"
        ) from error


def _check_opendap(url: str) -> None:
    """Raise OSError if no OPeNDAP server answers at an address.

    Otherwise the NetCDF library prints a syntax error about the server's error page. All other problems (passwords,
    certificates, addresses with a fragment) are left to the library.
    """
    if urlsplit(url).fragment:
        return
    try:
        with urllib.request.urlopen(f"{url.split('?')[0]}.dds", timeout=20):
            pass
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise _damaged_file_error(url, error) from error
    except (OSError, http.client.HTTPException):
        pass


def _damaged_file_error(path: str, error: Exception) -> Exception:
    if "://" in path:
        return OSError(
            f"{path!r} cannot be opened ({error}). Remote NetCDF files are read from OPeNDAP servers only: download "
            "the file first, or use a Zarr store"
        )
    return ValueError(f"{path!r} is damaged or truncated ({error}). Copy or download it again")


def _starts_with(path: str | os.PathLike, *magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(4).startswith(magic)


def _is_grib(path: str | os.PathLike) -> bool:
    if "://" in str(path):
        return Path(urlsplit(str(path)).path).suffix in GRIB_SUFFIXES
    return Path(path).suffix in GRIB_SUFFIXES or (Path(path).is_file() and _starts_with(path, b"GRIB"))


def _open_grib(files: Sequence[str | os.PathLike], variables: Sequence[str]) -> xr.Dataset:
    if "://" in str(files[0]):
        raise ValueError(f"{str(files[0])!r} is GRIB, which must be a local path. Download the file first")
    if importlib.util.find_spec("cfgrib") is None:
        raise ImportError(
            f"{str(files[0])!r} is GRIB, and reading it needs cfgrib. Run: pip install 'simvp-climate[grib]'"
        )
    from cfgrib import DatasetBuildError
    from gribapi.errors import GribInternalError

    try:
        return _open_with_xarray(files, engine="cfgrib")
    except GribInternalError as error:
        raise _damaged_file_error(str(files[0]), error) from error
    except DatasetBuildError as error:
        if len(files) > 1:
            raise ValueError(
                f"the {len(files)} GRIB files from {str(files[0])!r} have several grids, levels or members that do not "
                f"fit into one Dataset ({error}). Open them one by one, or with xarray and filter_by_keys"
            ) from error
    return _choose_hypercubes(str(files[0]), variables)


def _choose_hypercubes(path: str, variables: Sequence[str]) -> xr.Dataset:
    """Return the requested variables of a GRIB file whose variables do not fit into one Dataset."""
    from cfgrib.xarray_store import open_variable_datasets

    cubes = open_variable_datasets(path, backend_kwargs=_GRIB_OPTIONS, chunks=None, decode_timedelta=False)
    chosen = {}
    for name in variables:
        matches = [position for position, cube in enumerate(cubes) if _has_variable(cube, name)]
        if not matches:
            available = sorted({str(name) for cube in cubes for name in cube.data_vars})
            raise ValueError(f"no variable {name!r} in {path!r}. It has {', '.join(available)}")
        if len(matches) > 1:
            shapes = " and ".join(_describe_cube(cubes[position]) for position in matches)
            raise ValueError(
                f"{path!r} has {name!r} {len(matches)} times: {shapes}. Select one and pass the Dataset: "
                "xr.open_dataset(path, engine='cfgrib', backend_kwargs={'indexpath': '', 'filter_by_keys': "
                "{'typeOfLevel': 'surface'}})"
            )
        chosen[matches[0]] = decode_lead_times(_name_level(cubes[matches[0]]))
    datasets = [cube.drop_vars([n for n, c in cube.coords.items() if c.ndim == 0]) for cube in chosen.values()]
    names = [name for dataset in datasets for name in dataset.data_vars]
    try:
        if len(set(names)) < len(names):
            raise ValueError(f"{max(names, key=names.count)!r} would appear twice")
        return xr.merge(datasets, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        raise ValueError(
            f"{list(variables)} of {path!r} do not fit into one Dataset: {error}. Open them one at a time"
        ) from error


def _has_variable(dataset: xr.Dataset, name: str) -> bool:
    try:
        rename(dataset, [name])
    except ValueError:
        return False
    return True


def _describe_cube(cube: xr.Dataset) -> str:
    (variable,) = cube.data_vars.values()
    return f"{variable.attrs.get('GRIB_typeOfLevel', 'unknown level')} {dict(variable.sizes)}"


def decode_lead_times(dataset: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with coordinates in days, hours, minutes or seconds, which are lead times, as durations."""
    leads = {
        name: xr.conventions.decode_cf_variable(name, coordinate.variable, decode_timedelta=True)
        for name, coordinate in dataset.coords.items()
        if coordinate.attrs.get("units") in ("days", "hours", "minutes", "seconds")
    }
    return dataset.assign_coords(leads) if leads else dataset


def _name_level(dataset: xr.Dataset) -> xr.Dataset:
    """Move the level of a file on a single level into the names of its variables: z becomes z500.

    WeatherBench 1 has z at 500 and t at 850 hPa in two files, each with a scalar `level`, which exclude each other in
    one Dataset.
    """
    level = find_scalar_level(dataset)
    if level is None:
        return dataset
    names = {}
    for name in dataset.data_vars:
        meaning = lookup(str(name))
        if meaning is not None and meaning[0].on_levels and meaning[1] is None:
            names[name] = f"{meaning[0].short_name}{level:g}"
    scalars = [name for name, coordinate in dataset.coords.items() if coordinate.ndim == 0]
    return dataset.drop_vars(scalars).rename(names)
