"""Opening data: Zarr, NetCDF or a Dataset in hand, lazily, under the names asked for."""

import difflib
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import xarray as xr

from simvp_climate.data.conventions import rename, single_level
from simvp_climate.data.variables import lookup

_SAMPLE = Path(__file__).parents[1] / "sample" / "gcm_t21_6h_5.625deg.zarr"


def open_dataset(
    path_or_dataset: str | os.PathLike | Sequence[str | os.PathLike] | xr.Dataset,
    variables: Iterable[str],
    levels: Sequence[float] | None = None,
) -> xr.Dataset:
    """Return the variables asked for, lazily, on dimensions called `time`, `latitude`, `longitude`, `level`.

    No value, order, longitude range, calendar or unit changes; `rename` in `conventions.py` says what does.
    Several files are joined along their coordinates and come as dask arrays; everything else comes without
    dask.

    Parameters
    ----------
    path_or_dataset
        A Zarr store (format 2 or 3, consolidated or not, also remote: `"gs://..."`), a NetCDF file, a
        folder of NetCDF files (all levels of folders below it, as WeatherBench 1 comes), a pattern
        (`"era5_*.nc"`), a list of NetCDF files, or an xarray Dataset.
    variables
        Names as in the file, or WeatherBench or CF names for them: `["z500", "2m_temperature"]`.
    levels
        Pressures in hPa of the variables that have levels; None keeps all.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path; it names what is there instead.
    ValueError
        If what is there is neither Zarr nor NetCDF, or as for `rename`.
    """
    if isinstance(path_or_dataset, xr.Dataset):
        return rename(path_or_dataset, variables, levels)
    return rename(_open(path_or_dataset), variables, levels)


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


def _open(path: str | os.PathLike | Sequence[str | os.PathLike]) -> xr.Dataset:
    if not isinstance(path, str | os.PathLike):
        return _open_files([_existing(Path(one).expanduser()) for one in path])
    if "://" in str(path):
        if str(path).endswith(".nc"):
            return _open_files([path])
        return _open_zarr(str(path))
    local = Path(path).expanduser()
    if not local.exists() and glob.has_magic(str(local)):
        files = sorted(glob.glob(str(local), recursive=True))
        if not files:
            raise FileNotFoundError(f"no file matches {str(local.absolute())!r}. {_nearby(local)}")
        return _open_zarr(files[0]) if len(files) == 1 and _is_zarr(Path(files[0])) else _open_files(files)
    _existing(local)
    if local.is_file():
        return _open_files([local])
    if _is_zarr(local):
        return _open_zarr(str(local))
    files = sorted(local.rglob("*.nc"))
    if not files:
        there = sorted(entry.name for entry in local.iterdir())
        raise ValueError(
            f"{str(local.absolute())!r} is a folder, but neither a Zarr store (no .zgroup or zarr.json in it)"
            f" nor one with NetCDF files (*.nc). It holds {_some(there)}. Give the path of the store or of"
            " the files"
        )
    return _open_files(files)


def _open_zarr(path: str) -> xr.Dataset:
    # Without chunks=None xarray takes dask. Which of consolidated or not is found out from the store, because
    # open_zarr warns before it falls back.
    consolidated = None if "://" in path else _is_consolidated(Path(path))
    dataset = _decode_leads(xr.open_zarr(path, chunks=None, consolidated=consolidated, decode_timedelta=False))
    for variable in dataset.variables.values():
        # codecs of one Zarr format cannot be written in the other: left here they would break a later to_zarr
        for name in ("compressors", "filters", "serializer", "shards"):
            variable.encoding.pop(name, None)
    return dataset


def _open_files(files: Sequence[str | os.PathLike]) -> xr.Dataset:
    if not files:
        raise ValueError("an empty list of files is given: name at least one")
    names = [str(file) for file in files]
    if len(names) == 1:
        try:
            return _decode_leads(xr.open_dataset(names[0], chunks=None, decode_timedelta=False))
        except ValueError as error:
            raise ValueError(
                f"{names[0]!r} is not a file that can be opened here: it is neither NetCDF nor a Zarr store. Open it "
                "with xarray (GRIB: engine='cfgrib') and pass the Dataset"
            ) from error
    # The files may differ in attributes (history) and must agree in their grids to the last bit: xarray would
    # otherwise fill with NaN where labels differ in the last digit.
    try:
        joined = xr.open_mfdataset(
            names,
            combine="by_coords",
            data_vars="minimal",
            coords="minimal",
            compat="no_conflicts",
            join="exact",
            combine_attrs="override",
            preprocess=_name_level,
            decode_timedelta=False,
        )
    except ValueError as error:
        raise ValueError(
            f"the {len(names)} files from {names[0]!r} to {names[-1]!r} cannot be joined: {error}. They"
            " must have the same latitudes and longitudes to the last digit, and every variable the same"
            " times. Otherwise join them with xarray and pass the Dataset"
        ) from error
    return _decode_leads(joined)


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
