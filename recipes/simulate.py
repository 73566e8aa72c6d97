"""Make a small simulated data set that has all variables of the recipes, to run each without data of your own.

    python recipes/simulate.py
    python recipes/t850.py --data simulated/weather.zarr --max-steps 100
    python recipes/sst.py --data simulated/sst.nc --max-steps 100

Geopotential at 500 hPa and 2 m temperature are those of the bundled sample, a SIMULATED climate, averaged over 2 x 2
cells, 18 months. All other variables are MADE UP from these two by simple formulas, and the sea surface temperature
from waves and noise: they show that a recipe runs, and their scores mean nothing. Measured on 2026-11-30, one core:
8 seconds, 55 MB.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import typer
import xarray as xr

import simvp_climate as sc

LEVELS = [300, 500, 850, 1000]
MADE_UP = {"comment": "MADE UP from simulated geopotential and temperature, neither simulated nor observed"}
PERIODS = {"train_until": "2003-08", "valid_until": "2003-10"}  # recipes split there by default


def main(out: Path = Path("simulated")) -> None:
    """Write weather.zarr and sst.nc into a new folder."""
    if out.exists():
        raise typer.BadParameter(f"{out} exists: choose another folder", param_hint="--out")
    out.mkdir(parents=True)
    write_weather(out / "weather.zarr")
    write_sst(out / "sst.nc")
    print(f"{out}/weather.zarr and {out}/sst.nc, for --data of the recipes")


def write_weather(path: Path, start: str = "2002-07", end: str = "2003-12", cells: int = 2) -> None:
    """Write six-hourly weather, averaged over `cells` x `cells` cells of the sample, named as in WeatherBench."""
    fields = ["orography", "land_sea_mask"]
    ds = sc.open_sample(["z500", "t2m", *fields]).sel(time=slice(start, end))
    ds = ds.coarsen(latitude=cells, longitude=cells).mean().transpose("time", "latitude", "longitude")
    z500, temperature = ds["z500"].values, ds["t2m"].values
    east, north = geostrophic_wind(z500, ds["latitude"].values)
    front = np.tanh(north / 10)  # moist air from the equator, dry air from the poles
    surface = {
        "2m_temperature": (temperature, "K", {}),
        "10m_u_component_of_wind": (0.4 * east, "m s**-1", MADE_UP),
        "10m_v_component_of_wind": (0.4 * north, "m s**-1", MADE_UP),
        "total_cloud_cover": (np.clip(0.5 + 0.45 * front, 0, 1), "1", MADE_UP),
        "total_precipitation_6hr": (np.maximum(front - 0.2, 0) * 4e-3, "m", MADE_UP),
    }
    anomaly = z500 - 55000
    on_levels = {
        "geopotential": ([9e4 + 1.4 * anomaly, z500, 1.4e4 + 0.4 * anomaly, 1e3 + 0.2 * anomaly], "m**2 s**-2"),
        "temperature": ([0.8 * temperature + offset for offset in (0, 25, 50, 57)], "K"),
        "u_component_of_wind": ([1.3 * east, east, 0.6 * east, 0.4 * east], "m s**-1"),
        "relative_humidity": ([np.clip(60 + 35 * front, 0, 100)] * 4, "%"),
    }
    dims = ("time", "latitude", "longitude")
    variables = {name: (dims, values, {"units": units, **more}) for name, (values, units, more) in surface.items()}
    for name, (values, units) in on_levels.items():
        variables[name] = (("time", "level", *dims[1:]), np.stack(values, axis=1), {"units": units, **MADE_UP})
    variables |= {name: ds[name].variable for name in fields}
    level = ("level", LEVELS, {"units": "hPa", "standard_name": "air_pressure"})
    coordinates = {"level": level, **{dim: ds[dim].values for dim in dims}}
    title = "SIMULATED geopotential at 500 hPa and 2 m temperature; all other variables MADE UP from them"
    made = xr.Dataset(variables, coordinates, {"title": title, **PERIODS}).astype("float32")
    encoding = {name: {"chunks": (200, *made[name].shape[1:])} for name in (*surface, *on_levels)}
    made.to_zarr(path, consolidated=True, zarr_format=2, encoding=encoding)


def geostrophic_wind(geopotential: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eastward and northward wind in m s-1, (time, latitude, longitude), weaker near the equator."""
    radius, radians = 6.371e6, np.deg2rad(latitude)[:, np.newaxis]
    coriolis = 1.458e-4 * np.sin(radians)
    coriolis = np.sign(coriolis) * np.maximum(abs(coriolis), 8e-5)
    step = 2 * np.pi / geopotential.shape[-1]
    slope_north = np.gradient(geopotential, radians[:, 0], axis=1) / radius
    slope_east = (np.roll(geopotential, -1, axis=2) - np.roll(geopotential, 1, axis=2)) / (2 * step * radius)
    winds = -slope_north / coriolis, slope_east / np.maximum(np.cos(radians), 0.3) / coriolis
    return tuple(np.clip(wind, -60, 60) for wind in winds)


def write_sst(path: Path) -> None:
    """Write thirty years of monthly sea surface temperature with land, a season and an oscillation of 40 months."""
    times = pd.date_range("1971-01-01", periods=360, freq="MS", unit="ns")
    random = np.random.default_rng(0)
    latitude, longitude = np.arange(-87.5, 90, 5.0), np.arange(2.5, 360, 5.0)
    months = np.arange(360)[:, None, None]
    radians = np.deg2rad(latitude)[None, :, None]
    values = 300 - 25 * np.sin(radians) ** 2 + 3 * np.sin(radians) * np.cos(2 * np.pi * months / 12)
    values = values + np.cos(radians) ** 4 * np.sin(2 * np.pi * months / 40) + 0.2 * random.normal(size=(360, 36, 72))
    values[:, :, 10:20] = np.nan  # land
    attrs = {"units": "K", "long_name": "SST", "comment": "MADE UP from waves and noise"}
    coordinates = {"time": times, "latitude": latitude, "longitude": longitude}
    attributes = {"title": "MADE UP sea surface temperature", "train_until": "1990", "valid_until": "1994"}
    ds = xr.Dataset({"sst": (tuple(coordinates), values.astype("f4"), attrs)}, coordinates, attributes)
    ds.to_netcdf(path)


if __name__ == "__main__":
    typer.run(main)
