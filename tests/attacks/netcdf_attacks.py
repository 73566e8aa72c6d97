"""NetCDF files with packing and fill values, right and wrong, opened and handed to a forecaster."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr
from dataset_attacks import NAMES, base, same_forecast, trained
from outcomes import Attack, judge

import simvp_climate as sc


def packed(dtype: str, fill: float | None) -> dict:
    """Return an encoding with a scale that keeps the values to a small part of their variation."""
    steps = {"i2": 6e4, "i4": 4e9, "u2": 6e4}[dtype]
    encoding = {}
    for name in NAMES:
        low, high = float(base()[name].min()), float(base()[name].max())
        offset = low if dtype[0] == "u" else (low + high) / 2
        scale = (high - low) / steps * 1.02
        encoding[name] = {"dtype": dtype, "scale_factor": scale, "add_offset": offset, "_FillValue": fill}
    return encoding


def edit(path: Path, change: Callable[[netCDF4.Variable], None]) -> None:
    """Change a variable of a file without masking and scaling."""
    with netCDF4.Dataset(path, "r+") as file:
        file.set_auto_maskandscale(False)
        change(file["t2m"])


def put(value: float) -> Callable[[netCDF4.Variable], None]:
    def change(variable: netCDF4.Variable) -> None:
        variable[-1, 2, 3] = value

    return change


def attribute(name: str, value: object) -> Callable[[netCDF4.Variable], None]:
    return lambda variable: variable.setncattr(name, value)


FLOAT = {name: {"dtype": "f4", "_FillValue": None} for name in NAMES}
# name -> (encoding, whether the data still mean the same, change of the file)
TRICKS = {
    "int16": (packed("i2", None), True, None),
    "int16 with a fill value": (packed("i2", -32768), True, None),
    "int32 with a fill value": (packed("i4", -(2**31)), True, None),
    "uint16": (packed("u2", 65535), True, None),
    "float with a fill value that does not occur": ({name: {"_FillValue": 1e20} for name in NAMES}, True, None),
    "compressed": ({name: {"zlib": True, "shuffle": True, "complevel": 4} for name in NAMES}, True, None),
    "a missing_value that does not occur": (FLOAT, True, attribute("missing_value", np.float32(-9999))),
    "a valid_range": (FLOAT, True, attribute("valid_range", np.array([150.0, 350.0], "f4"))),
    "a fill value in a cell": (packed("i2", -32768), False, put(-32768)),
    "a missing_value in a cell": (FLOAT, False, lambda v: (put(-9999.0)(v), attribute("missing_value", -9999.0)(v))),
    "a fill value that no attribute names": (FLOAT, False, put(-9999.0)),
    "the fill value of NetCDF in a cell": (FLOAT, False, put(9.969209968386869e36)),
    "a scale a hundred times too large": (packed("i2", None), False, attribute("scale_factor", 0.3)),
    "no scale": (packed("i2", None), False, lambda v: (v.delncattr("scale_factor"), v.delncattr("add_offset"))),
    "an offset in other units": (packed("i2", None), False, lambda v: v.setncattr("add_offset", v.add_offset - 273.15)),
    "units of another quantity": (FLOAT, False, attribute("units", "m s-1")),
    "a NaN in a cell": (FLOAT, False, put(np.nan)),
}


def attack(seed: int) -> list[Attack]:
    """Return how a forecast from one file, decoded or not, ended."""
    rng = np.random.default_rng(seed)
    name = list(TRICKS)[seed % len(TRICKS)]
    encoding, keeps_meaning, change = TRICKS[name]
    is_decoded = bool(rng.random() < 0.8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "f.nc"
        base().to_netcdf(path, encoding=encoding, unlimited_dims=["time"] if rng.random() < 0.5 else [])
        if change is not None:
            edit(path, change)

        def forecast():
            if is_decoded:
                return trained()(sc.open_dataset(path, list(NAMES)))
            with xr.open_dataset(path, mask_and_scale=False) as ds:
                return trained()(ds.load())

        # numbers that are packed and not decoded mean nothing; others are as they were
        is_packed = "scale_factor" in encoding["t2m"]
        is_right = keeps_meaning and (is_decoded or not is_packed)
        described = f"seed {seed}, {name}{'' if is_decoded else ', not decoded'}"
        return [judge("NetCDF", described, forecast, lambda r: is_right and same_forecast(r), is_harmless=is_right)]
