"""Small made-up climates whose future is known."""

import numpy as np
import pandas as pd
import pyproj  # noqa: F401, before ecCodes, which xarray loads: the other way round the process crashes when it ends
import pytest
import torch
import xarray as xr

from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.training.train import TrainConfig

# one thread: the runs are small, and the order of sums must not depend on the machine
torch.set_num_threads(1)

GLOBAL = (np.arange(-78.75, 90, 22.5), np.arange(0, 360, 22.5))


def waves(
    latitude: np.ndarray = GLOBAL[0],
    longitude: np.ndarray = GLOBAL[1],
    times: int = 60,
    names: tuple[str, str, str] = ("time", "latitude", "longitude"),
    start: str = "2001-01-01",
) -> xr.Dataset:
    """Waves that travel east, the same whatever the order and range of the coordinates."""
    when = pd.date_range(start, periods=times, freq="6h", unit="ns")
    hours = ((when - pd.Timestamp("2001-01-01")) / pd.Timedelta("6h")).values[:, None, None]
    y, x = np.deg2rad(latitude)[None, :, None], np.deg2rad(longitude)[None, None, :]
    z = 5e4 - 4e3 * np.sin(y) ** 2 + 500 * np.cos(y) * np.sin(3 * x - hours / 5)
    t = 290 - 30 * np.sin(y) ** 2 + 5 * np.cos(y) * np.cos(2 * x - hours / 4)
    coords = {names[0]: when, names[1]: latitude, names[2]: longitude}
    ds = xr.Dataset(
        {
            "z500": (names, (z + 0 * x).astype("f4"), {"units": "m2 s-2"}),
            "t2m": (names, (t + 0 * x).astype("f4"), {"units": "K"}),
        },
        coords,
    )
    return ds


def tiny_model(**changes) -> SimVPv2Config:
    sizes = dict(hidden_space=4, hidden_time=8, blocks=2, mlp_ratio=2, drop_path=0.0)
    return SimVPv2Config(**{**sizes, **changes})


def quick(**changes) -> TrainConfig:
    settings = dict(epochs=1, batch_size=8, learning_rate=1e-3, progress=False)
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    """The user's cache folder of a test: nothing is left in that of whoever runs it."""
    folder = tmp_path_factory.mktemp("user_cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def forecaster():
    """A forecaster of both variables on the global grid, hardly trained."""
    from simvp_climate.processing.task import Task
    from simvp_climate.training.train import train

    task = Task(["z500", "t2m"], history=3, horizon=3)
    ds = waves()
    return train(
        task,
        ds.isel(time=slice(0, 40)),
        valid=ds.isel(time=slice(40, None)),
        model=tiny_model(),
        config=quick(),
        device="cpu",
    )
