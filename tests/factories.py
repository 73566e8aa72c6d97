"""Small made-up climates whose future is known, and trainings of seconds."""

import numpy as np
import pandas as pd
import pyproj  # noqa: F401, before ecCodes, which xarray loads: the other way round the process crashes when it ends
import torch
import xarray as xr

from simvp_climate.data.opening import open_dataset
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.networks.simvp_sphere import SimVPSphereConfig
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing.task import Task
from simvp_climate.training import loader
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


def tiny_sphere(**changes) -> SimVPSphereConfig:
    return SimVPSphereConfig(**{"hidden_space": 4, "hidden_time": 32, "blocks": 2, **changes})


def quick(**changes) -> TrainConfig:
    # neither of them "auto": tests give the same numbers on every machine, in seconds
    settings = dict(epochs=1, batch_size=8, optimizer="adamw", learning_rate=1e-3, progress=False)
    settings |= dict(precision="32-true", compile=False)
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


def two_cells(times, values=None, factors=(1.0, 10.0), **attrs):
    """Return a variable over time on two cells, the values times a factor for each cell."""
    times = np.asarray(times)
    values = np.arange(len(times)) if values is None else np.asarray(values)
    data = np.asarray(values, dtype=np.float64)[:, None, None] * np.array(factors)[:, None]
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), data, {"units": "K", **attrs})},
        {"time": times, "latitude": [0.0, 10.0], "longitude": [5.0]},
        {"title": "made by hand"},
    )


def slow_months(seed, days=1200, start="2001-01-01"):
    """Return daily temperatures whose months are warm or cold as a whole, with daily noise."""
    random = np.random.default_rng(seed)
    months = np.repeat(random.normal(size=(days // 30 + 2, 4, 8)), 30, axis=0)[:days]
    values = 280 + months + 0.1 * random.normal(size=months.shape)
    sst = (("time", "latitude", "longitude"), values, {"units": "K"})
    return rain(days=days, start=start).drop_vars("tp24h").assign(sst=sst)


def harmonics(amplitudes, mean=3.0, times=20):
    """Return a constant and eastward waves, amplitudes by zonal wavenumber, on 32 longitudes."""
    time = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    longitude = np.arange(32) * 360 / 32
    values = np.full((times, 4, 32), mean)
    for wavenumber, amplitude in amplitudes.items():
        phase = np.deg2rad(wavenumber * longitude) + 0.3 * np.arange(times)[:, np.newaxis]
        values = values + amplitude * np.cos(phase)[:, np.newaxis]
    return xr.Dataset(
        {"z500": (("time", "latitude", "longitude"), values, {"units": "m2 s-2"})},
        {"time": time, "latitude": [-67.5, -22.5, 22.5, 67.5], "longitude": longitude},
    )


def red_noise(share=0.8, times=3000, seed=0):
    """Return 6-hourly values around 280, `share` of each anomaly left after one step and variance 1."""
    random = np.random.default_rng(seed)
    values = np.empty((times, 4, 8))
    values[0] = random.normal(size=(4, 8))
    for i in range(1, times):
        values[i] = share * values[i - 1] + np.sqrt(1 - share**2) * random.normal(size=(4, 8))
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values + 280, {"units": "K"})},
        {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "latitude": [-60.0, -20.0, 20.0, 60.0],
            "longitude": np.arange(8) * 45.0,
        },
    )


def forecasts_of_a_year(seed, start="2001-01-01", days=365, noise=1.0):
    """Return daily forecasts at 6 and 24 h and their truth; errors grow with lead, towards the north, and in winter."""
    random = np.random.default_rng(seed)
    times = np.datetime64(start, "ns") + np.arange(days * 4) * np.timedelta64(6, "h")
    latitude, longitude = np.array([-60.0, -20, 20, 60]), np.arange(8) * 45.0
    values = 280 + random.normal(size=(len(times), 4, 8))
    truth = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {"time": times, "latitude": latitude, "longitude": longitude},
    )
    forecast = persistence(truth, truth.time[:-4:4], ["6h", "24h"])
    verifying = truth.t2m.sel(time=forecast.valid_time).drop_vars("time")
    winter = 1 + 0.8 * np.cos(2 * np.pi * (forecast.valid_time.dt.dayofyear - 15) / 365)
    size = noise * winter * xr.DataArray([1.0, 3.0], dims="lead_time") * (1 + (forecast.latitude + 60) / 120)
    error = verifying.copy(data=random.standard_t(4, size=verifying.shape)) * size.drop_vars(
        "valid_time", errors="ignore"
    )
    t2m = (verifying + error).drop_vars("valid_time", errors="ignore").transpose(*forecast.t2m.dims)
    return forecast.assign(t2m=t2m.assign_attrs(units="K")), truth


def weather(days=120, seed=0, start="2018-01-01", names=("t2m",), columns=8):
    """Return random fields that change slowly, on a coarse globe, 6-hourly."""
    random = np.random.default_rng(seed)
    times = days * 4
    variables = {}
    for name in names:
        values = np.cumsum(random.normal(size=(times, 4, columns)), axis=0)
        values = 280 + values - 0.9 * (values - values.mean(axis=0))
        variables[name] = (("time", "latitude", "longitude"), values, {"units": "m s-1" if name[0] in "uv" else "K"})
    coordinates = {
        "time": np.datetime64(start, "ns") + np.arange(times) * np.timedelta64(6, "h"),
        "latitude": [-67.5, -22.5, 22.5, 67.5],
        "longitude": np.arange(columns) * 360 / columns,
    }
    return xr.Dataset(variables, coordinates)


def noisy_forecast(truth, seed=1, noise=0.3, every=2, leads=("6h", "24h")):
    """Return the truth with noise that grows with the lead, from every second time that has a truth at all leads."""
    forecast = persistence(truth, truth.time[:-4:every], list(leads))
    right = truth.sel(time=forecast.valid_time).drop_vars("time")
    random = np.random.default_rng(seed)
    size = noise * np.arange(1, len(leads) + 1)[:, np.newaxis, np.newaxis]
    changed = {name: right[name] + size * random.normal(size=right[name].shape) for name in truth}
    return forecast.assign({name: forecast[name].copy(data=value.values) for name, value in changed.items()})


def random_analyses(latitude=32, longitude=64, times=12, seed=0):
    """Return white noise every 6 hours on a grid without poles."""
    values = np.random.default_rng(seed).normal(280, 10, (times, latitude, longitude))
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K", "long_name": "temperature"})},
        {
            "time": pd.date_range("2018-01-01", periods=times, freq="6h").to_numpy(),
            "latitude": -90 + (np.arange(latitude) + 0.5) * 180 / latitude,
            "longitude": np.arange(longitude) * 360 / longitude,
        },
    )


def shifted_forecast(truth, inits=3, leads=(6, 24), error=0.0):
    """Return the truth plus an error, NaN where it has no value."""
    result = persistence(truth, truth.time[:inits], [f"{lead}h" for lead in leads])
    perfect = truth.t2m.reindex(time=np.unique(result.valid_time)).sel(time=result.valid_time)
    result["t2m"] = (perfect + error).drop_vars("time").transpose(*result.t2m.dims)
    result["t2m"].attrs = truth.t2m.attrs
    return result


def forecasts_better_in(days=200, better=None, seed=0):
    """Return a forecast with the error of white noise, a baseline like it, and the truth.

    The forecast is better in the cells `better`.
    """
    random = np.random.default_rng(seed)
    truth = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), random.normal(size=(days + 2, 16, 32)), {"units": "K"})},
        {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(days + 2) * np.timedelta64(1, "D"),
            "latitude": np.linspace(-84, 84, 16),
            "longitude": np.arange(32) * 11.25,
        },
    )
    forecast = persistence(truth, truth.time[:days], ["1D"])
    right = truth.t2m.sel(time=forecast.valid_time).drop_vars("time")

    def noisy(size):
        return forecast.assign(t2m=(right + size * random.normal(size=right.shape)).transpose(*forecast.t2m.dims))

    size = np.ones((16, 32))
    if better is not None:
        size[better] = 0.6
    return noisy(size), noisy(1.0), truth


def made_up_scores():
    """Return scores of three systems by hand: RMSE, ACC (none of climatology) and small-scale variance."""
    leads = pd.to_timedelta([6, 12, 24, 36, 48], unit="h").astype("timedelta64[ns]")
    values = np.full((3, 3, 5), np.nan)
    values[:, 0] = [[1, 2, 3, 4, 7], [2, 3, 4, 5, 8], [6, 6, 6, 6, 6]]
    values[:, 1] = [[0.9, 0.8, 0.7, 0.6, 0.5], [0.8, 0.7, 0.6, 0.5, 0.4], [np.nan] * 5]
    values[:, 2] = [[0.8] * 5, [1] * 5, [0.1] * 5]
    coords = {
        "system": ["SimVPv2", "persistence", "climatology"],
        "metric": ["rmse", "acc", "small_scale_variance"],
        "lead_time": leads,
    }
    return xr.Dataset({"t2m": (list(coords), values, {"units": "K"})}, coords)


def stop_after(monkeypatch, batches):
    """Stop the run, as with Ctrl-C, when it asks for a batch after these."""
    seen, original = [], loader.WindowStream.epoch

    def epoch(self, *arguments):
        for batch in original(self, *arguments):
            seen.append(batch)
            if len(seen) > batches:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loader.WindowStream, "epoch", epoch)
