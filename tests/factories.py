"""Small made-up climates whose future is known, and trainings of seconds."""

import numpy as np
import pandas as pd
import pyproj  # noqa: F401, before ecCodes, which xarray loads: the other way round the process crashes when it ends
import torch
import xarray as xr

from simvp_climate.data.store import open_dataset
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing.task import Task
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.train import train

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


TASK = Task(["z500", "t2m"], history=2, horizon=2)


def weights(forecaster):
    return forecaster.network.state_dict()


def assert_same_weights(first, second):
    assert weights(first).keys() == weights(second).keys()
    for name, value in weights(first).items():
        torch.testing.assert_close(value, weights(second)[name], rtol=0, atol=0, msg=name)


def run(dataset=None, *, valid=None, task=TASK, model=None, config=None, **more):
    dataset = waves(times=30) if dataset is None else dataset
    model = model or (None if "start_from" in more else tiny_model())
    return train(task, dataset, valid=valid, model=model, config=config or quick(), device="cpu", **more)


def stored(tmp_path, times=60):
    chunks = {name: {"chunks": (5, 8, 16)} for name in ("z500", "t2m")}
    waves(times=times).to_zarr(tmp_path / "s.zarr", consolidated=False, encoding=chunks)
    return open_dataset(tmp_path / "s.zarr", ["z500", "t2m"])


STREAMED = 165_000  # bytes: less than 60 states of 1 kB and four batches take


def rain(days=400, start="2001-01-01", seed=0, units="m"):
    """Return daily rain, dry on 40 % of days."""
    random = np.random.default_rng(seed)
    values = random.gamma(0.7, 5e-3, size=(days, 4, 8)) * (random.random(size=(days, 4, 8)) > 0.4)
    return xr.Dataset(
        {"tp24h": (("time", "latitude", "longitude"), values * (1000 if units == "mm" else 1), {"units": units})},
        {
            "time": np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D"),
            "latitude": [-67.5, -22.5, 22.5, 67.5],
            "longitude": np.arange(8) * 45.0,
        },
    )
