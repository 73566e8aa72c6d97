"""Small synthetic stores with all variables of the recipes, named as in WeatherBench."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

LATITUDE, LONGITUDE = np.arange(-78.75, 90, 22.5), np.arange(0, 360, 22.5)
LEVELS = [300, 500, 850, 1000]


def write_weather(path: Path) -> None:
    """Write thirteen months of eastward waves, six-hourly, with rain on their crests."""
    times = pd.date_range("2001-01-01", "2002-01-31T18", freq="6h", unit="ns")
    random = np.random.default_rng(0)
    steps = np.arange(len(times))[:, None, None]
    latitude, longitude = np.deg2rad(LATITUDE)[None, :, None], np.deg2rad(LONGITUDE)[None, None, :]
    season = np.cos(2 * np.pi * steps / 1460)  # 1460 steps are a year
    wave = np.cos(latitude) * np.sin(3 * longitude - steps / 5) + 0.1 * random.normal(size=(len(times), 8, 16))
    temperature = 288 - 40 * np.sin(latitude) ** 2 + 5 * season * np.sin(latitude) + 4 * wave
    dims = ("time", "latitude", "longitude")
    surface = {
        "2m_temperature": (temperature, "K"),
        "10m_u_component_of_wind": (10 * np.cos(2 * latitude) + 3 * wave, "m s**-1"),
        "10m_v_component_of_wind": (4 * wave, "m s**-1"),
        "total_cloud_cover": (np.clip(0.5 + 0.4 * wave, 0, 1), "1"),
        "total_precipitation_6hr": (np.maximum(wave - 0.2, 0) * 4e-3, "m"),
    }
    variables = {name: (dims, values.astype("f4"), {"units": units}) for name, (values, units) in surface.items()}
    on_levels = {
        "geopotential": ([9e4 + 900 * wave, 5.4e4 + 500 * wave, 1.4e4 + 200 * wave, 1e3 + 100 * wave], "m**2 s**-2"),
        "temperature": ([temperature - 60, temperature - 30, temperature - 10, temperature], "K"),
        "u_component_of_wind": ([20 + 5 * wave, 10 + 4 * wave, 5 + 3 * wave, 2 * wave], "m s**-1"),
        "relative_humidity": ([np.clip(50 + 30 * wave, 0, None)] * 4, "%"),
    }
    for name, (values, units) in on_levels.items():
        stacked = np.stack(values, axis=1).astype("f4")
        variables[name] = (("time", "level", "latitude", "longitude"), stacked, {"units": units})
    land = (np.sin(2 * longitude[0]) * np.cos(latitude[0]) > 0.2).astype("f4")
    variables["land_sea_mask"] = (dims[1:], land, {"units": "1"})
    variables["orography"] = (dims[1:], 800 * land, {"units": "m"})
    level = ("level", LEVELS, {"units": "hPa", "standard_name": "air_pressure"})
    coordinates = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE, "level": level}
    ds = xr.Dataset(variables, coordinates)
    encoding = {name: {"chunks": (200, *ds[name].shape[1:])} for name in surface}
    ds.to_zarr(path, consolidated=True, zarr_format=2, encoding=encoding)


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
    variable = (("time", "latitude", "longitude"), values.astype("f4"), {"units": "K", "long_name": "SST"})
    coordinates = {"time": times, "latitude": latitude, "longitude": longitude}
    xr.Dataset({"sst": variable}, coordinates).to_netcdf(path)
