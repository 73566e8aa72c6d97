"""Prescribed variables: read at input and forecast times, never forecast."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from factories import quick, run, tiny_sphere, waves

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.forecasting.reproduce import reproduce
from simvp_climate.processing.task import Task

TASK = Task(["z500"], prescribed=["t2m"], history=2, horizon=3)


class Copy(torch.nn.Module):
    """Forecasts the normalized prescribed variable at the output time, its last forcing."""

    def __init__(self, shape):
        super().__init__()
        assert shape.forcings == 2 and shape.channels == shape.output_channels == 1
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_BTCHW, f_BTFHW):
        return f_BTFHW[:, :, -1:] + self.weight


@pytest.fixture(scope="module")
def copying():
    return run(task=TASK, model=Copy)


def normalized(ds, forecaster, name):
    index = [str(channel) for channel in forecaster.normalizer.channels].index(name)
    statistics = forecaster.normalizer
    return (ds[name] - statistics.mean[index]) / statistics.std[index]


@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
def test_the_network_gets_the_values_at_the_valid_times(copying, horizon):
    ds = waves(times=40)
    forecast = copying(ds, every="12h", horizon=horizon)
    assert list(forecast.data_vars) == ["z500"]
    # the weight has moved a little
    constant = copying.network.weight.item()
    expected = normalized(ds, copying, "t2m").sel(time=forecast.valid_time) + constant
    xr.testing.assert_allclose(
        normalized(forecast, copying, "z500").drop_vars("time", errors="ignore"),
        expected.drop_vars("time"),
        atol=2e-4,
    )


def test_by_default_the_last_time_with_all_values_is_forecast(copying):
    ds = waves(times=40)
    assert copying(ds).init_time.item() == ds.time.values[-4].item()


def test_states_after_the_initialization_may_be_missing_but_not_the_prescribed(copying):
    ds = waves(times=40)
    init = ds.time.values[20]
    known = ds.assign(z500=ds.z500.where(ds.time <= init))
    xr.testing.assert_identical(copying(known, [init]), copying(ds, [init]))
    with pytest.raises(ValueError, match="t2m is nan at 2001-01-06 12:00.*where a forecast reads it"):
        copying(ds.assign(t2m=ds.t2m.where(ds.time <= init + np.timedelta64(6, "h"))), [init])
    with pytest.raises(ValueError, match="prescribed variables for 3 steps after it"):
        copying(ds, [ds.time.values[-2]])
    with pytest.raises(ValueError, match="no forecast of 90 steps can start"):
        copying(ds, horizon=90)


def test_units_are_converted(copying):
    ds = waves(times=40)
    celsius = ds.assign(t2m=(ds.t2m - 273.15).assign_attrs(units="degC"))
    xr.testing.assert_allclose(copying(celsius).z500, copying(ds).z500, rtol=1e-4)


def test_every_member_has_its_values(copying):
    ds = waves(times=40)
    members = xr.concat([ds, ds + xr.Dataset({"z500": 0.0, "t2m": 1.0})], xr.DataArray([0, 1], dims="number"))
    members["t2m"].attrs, members["z500"].attrs = ds.t2m.attrs, ds.z500.attrs
    forecast = copying(members)
    difference = forecast.z500.isel(number=1) - forecast.z500.isel(number=0)
    z, t = copying.normalizer.std
    np.testing.assert_allclose(difference, z / t, rtol=2e-2)


def test_trains_in_steps_of_any_length_and_keeps_its_forecasts_in_a_file(tmp_path):
    task = dataclasses.replace(TASK, forcings=("time_of_year",))
    ds = waves(times=40)
    forecaster = run(
        ds, task=task, model=tiny_sphere(), config=quick(rollout=2, rollout_share=0.5), valid=waves(start="2001-02-01")
    )
    assert forecaster.network.forcings == 6
    forecaster.save(tmp_path / "f.safetensors")
    loaded = Forecaster.load(tmp_path / "f.safetensors", "cpu")
    assert loaded.task == task and loaded.digest == forecaster.digest
    forecast = forecaster(ds, every="24h", horizon=5)
    xr.testing.assert_equal(loaded(ds, every="24h", horizon=5), forecast)
    reproduce(forecast, forecaster, ds)
    changed = ds.assign(t2m=(ds.t2m * 1.01).assign_attrs(ds.t2m.attrs))
    other = forecaster(changed, every="24h", horizon=5)
    assert float(abs(other.z500 - forecast.z500).max()) > 0
    assert other.attrs["data_sha256"] != forecast.attrs["data_sha256"]


def test_a_prescribed_level_is_read(copying):
    ds = waves(times=40)
    level = xr.DataArray([500.0, 850.0], dims="level", attrs={"units": "hPa"})
    z = xr.concat([ds.z500, ds.z500 * 0.3], level).rename("z").transpose("time", "level", ...)
    ds = xr.Dataset({"z": z.assign_attrs(units="m2 s-2", standard_name="geopotential"), "t2m": ds.t2m})
    task = Task(["t2m"], levels=[850], prescribed=["z"], history=2, horizon=2)
    forecaster = run(ds, task=task, model=Copy)
    forecast = forecaster(ds, horizon=4)
    z_mean, z_std = (getattr(forecaster.normalizer, name)[1] for name in ("mean", "std"))
    expected = (ds.z.sel(level=850, time=forecast.valid_time) - z_mean) / z_std + forecaster.network.weight.item()
    np.testing.assert_allclose(normalized(forecast, forecaster, "t2m"), expected, atol=2e-4)


def test_what_cannot_work_is_an_error(copying, tmp_path):
    with pytest.raises(ValueError, match="must not be in both variables and prescribed"):
        Task(["z500"], prescribed=["z500"])
    with pytest.raises(ValueError, match="exported program cannot"):
        copying.export(tmp_path / "f.pt2")
    with pytest.raises(ValueError, match="call the forecaster"):
        copying.forcings(["2001-01-01"])
