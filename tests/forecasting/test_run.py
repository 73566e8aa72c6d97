"""Free runs: the same states as forecasts, averaged, in pieces, with what is prescribed."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import TASK, quick, run, tiny_sphere, waves

from simvp_climate.data.grid import latitude_weights
from simvp_climate.forecasting import run as free_run
from simvp_climate.forecasting import run_store
from simvp_climate.metrics.time_means import time_mean
from simvp_climate.processing.task import Task

START, UNTIL = "2001-01-05", "2001-01-12T12"


@pytest.fixture
def month(forecaster):
    """A run over a whole month from the end of the previous one."""
    ds = waves(times=60, start="2001-01-17")
    return forecaster.run(ds, "2001-01-31", "2001-03-05", outputs="1MS", progress=False)


def test_single_states_are_those_of_a_forecast(forecaster):
    ds = waves()
    states = forecaster.run(ds, START, UNTIL, outputs=None, progress=False)
    forecast = forecaster(ds, [START], horizon=30)
    for name in ("z500", "t2m"):
        np.testing.assert_array_equal(states[name], forecast[name][0])
        assert states[name].dims == ("time", "latitude", "longitude")
        assert states[name].attrs["cell_methods"] == "time: point"
        assert states[name].attrs["units"] == ds[name].attrs["units"]
    np.testing.assert_array_equal(states.time, forecast.valid_time[0])
    assert "time_bnds" not in states.coords and "bounds" not in states.time.attrs
    assert states.attrs["run_start"] == "2001-01-05T00:00:00"
    assert states.attrs["forecaster_sha256"] == forecaster.digest


def test_days_hold_the_states_after_their_beginning_up_to_their_end(forecaster):
    ds, all_statistics = waves(), ["mean", "max", "min"]
    days = forecaster.run(ds, START, UNTIL, statistics=all_statistics, progress=False)
    states = forecaster.run(ds, START, UNTIL, outputs=None, progress=False)
    # the half day at the end is left out
    np.testing.assert_array_equal(days.time, pd.date_range("2001-01-05", "2001-01-11"))
    np.testing.assert_array_equal(days.time_bnds[:, 0], days.time)
    np.testing.assert_array_equal(days.time_bnds[:, 1], days.time + np.timedelta64(1, "D"))
    assert set(days.data_vars) == {"z500", "t2m", "z500_min", "t2m_min", "z500_max", "t2m_max"}
    first = states.isel(time=slice(0, 4))
    assert str(first.time.values[0])[:13] == "2001-01-05T06"
    np.testing.assert_allclose(days.t2m[0], first.t2m.mean("time"), rtol=1e-6)
    np.testing.assert_array_equal(days.t2m_min[0], first.t2m.min("time"))
    np.testing.assert_array_equal(days.t2m_max[0], first.t2m.max("time"))
    assert days.t2m.attrs["cell_methods"] == "time: mean" and days.t2m_max.attrs["cell_methods"] == "time: maximum"
    # as time_mean, whose label is the end
    means = time_mean(states, "1D").sel(time=days.time_bnds[:, 1].values)
    np.testing.assert_allclose(days.z500, means.z500, rtol=1e-6)


def test_incomplete_months_are_left_out(month):
    np.testing.assert_array_equal(month.time, [np.datetime64("2001-02-01")])
    np.testing.assert_array_equal(month.time_bnds[0], np.array(["2001-02-01", "2001-03-01"], "M8[ns]"))


def test_files_of_a_run_are_read_back(month, tmp_path):
    month.to_netcdf(tmp_path / "run.nc")
    with xr.open_dataset(tmp_path / "run.nc") as opened:
        xr.testing.assert_allclose(opened, month)
        assert opened.time.encoding["units"].startswith("hours since") and opened.time.attrs["bounds"] == "time_bnds"
        assert opened.time.attrs["axis"] == "T" and opened.latitude.attrs["units"] == "degrees_north"


def test_layout_and_units_are_those_of_the_data(forecaster):
    ds = waves()
    upside_down = waves(
        latitude=ds.latitude.values[::-1], longitude=ds.longitude.values - 180, names=("time", "y", "x")
    )
    upside_down["y"].attrs["units"], upside_down["x"].attrs["units"] = "degrees_north", "degrees_east"
    upside_down["t2m"] = (upside_down.t2m - 273.15).assign_attrs(units="degC")
    days = forecaster.run(upside_down, START, UNTIL, progress=False)
    expected = forecaster.run(ds, START, UNTIL, progress=False)
    assert days.t2m.dims == ("time", "y", "x") and days.t2m.attrs["units"] == "degC"
    np.testing.assert_array_equal(days.y, upside_down.y)
    np.testing.assert_array_equal(days.x, upside_down.x)
    same = days.t2m.rename(y="latitude", x="longitude").sel(latitude=ds.latitude)
    same = same.assign_coords(longitude=same.longitude % 360).sortby("longitude")
    np.testing.assert_allclose(same + 273.15, expected.t2m, rtol=1e-4)


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bytes(forecaster, tmp_path, monkeypatch):
    monkeypatch.setattr(free_run, "BLOCK_BYTES", 4 * 2 * 8 * 16 * 4)  # two days
    monkeypatch.setattr(run_store, "BLOCK_BYTES", 4 * 2 * 8 * 16 * 4)
    ds, options = waves(), {"members": 2, "progress": False}
    whole = forecaster.run(ds, START, UNTIL, store=tmp_path / "whole.zarr", **options)
    save, count = run_store._save_state, []

    def killed(*args):
        count.append(1)
        if len(count) == 3:
            raise KilledError
        save(*args)

    monkeypatch.setattr(run_store, "_save_state", killed)
    with pytest.raises(KilledError):
        forecaster.run(ds, START, UNTIL, store=tmp_path / "killed.zarr", **options)
    assert not (tmp_path / "killed.zarr").exists() and (tmp_path / "killed.zarr.unfinished").exists()
    calls = []
    monkeypatch.setattr(run_store, "_save_state", save)
    monkeypatch.setattr(forecaster.network, "forward", counting(forecaster.network.forward, calls))
    resumed = forecaster.run(ds, START, UNTIL, store=tmp_path / "killed.zarr", **options)
    assert 0 < len(calls) < 10  # of ten calls
    xr.testing.assert_identical(resumed.drop_attrs(), whole.drop_attrs())
    for name in ("z500", "t2m"):
        files = sorted(path.name for path in (tmp_path / "whole.zarr" / name).iterdir())
        assert len(files) > 4
        for file in files:
            assert (tmp_path / "killed.zarr" / name / file).read_bytes() == (
                tmp_path / "whole.zarr" / name / file
            ).read_bytes()
    assert not list(tmp_path.glob("*.npz")) and not list(tmp_path.glob("*.unfinished*"))
    # in memory, too
    xr.testing.assert_allclose(forecaster.run(ds, START, UNTIL, **options), whole.load(), rtol=0, atol=0)
    with pytest.raises(FileExistsError, match="another run: steps is 34, was 30"):
        forecaster.run(ds, START, "2001-01-13T12", store=tmp_path / "whole.zarr", **options)


def counting(function, calls):
    def call(*args):
        calls.append(1)
        return function(*args)

    return call


def test_members_without_noise_grow_apart(forecaster):
    ds = waves()
    single = forecaster.run(ds, START, UNTIL, outputs=None, progress=False)
    members = forecaster.run(ds, START, UNTIL, outputs=None, members=3, progress=False)
    assert members.t2m.dims == ("time", "number", "latitude", "longitude")
    np.testing.assert_allclose(members.t2m.sel(number=0), single.t2m, rtol=1e-6)
    typical = forecaster.normalizer.change_std[0, 1]
    first = (members.t2m[0, 1] - members.t2m[0, 2]).std().item()
    assert 0 < first < 0.1 * typical
    again = forecaster.run(ds, START, UNTIL, outputs=None, members=3, progress=False)
    xr.testing.assert_equal(again, members)
    other = forecaster.run(ds, START, UNTIL, outputs=None, members=3, seed=1, progress=False)
    assert not other.t2m.sel(number=1).equals(members.t2m.sel(number=1))


def test_members_with_noise_are_those_of_a_forecast():
    ds = waves()
    forecaster = run(ds, model=tiny_sphere(), config=quick(loss="crps", epochs=2))
    members = forecaster.run(ds, START, UNTIL, outputs=None, members=2, seed=3, progress=False)
    forecast = forecaster(ds, [START], horizon=30, members=2, seed=3)
    np.testing.assert_allclose(members.t2m, forecast.t2m[0], rtol=1e-6)
    assert float(abs(members.t2m[-1, 0] - members.t2m[-1, 1]).max()) > 0


def test_a_conserved_mean_stays(forecaster):
    ds, weights = waves(), latitude_weights(waves())
    free = forecaster.run(ds, START, UNTIL, progress=False)
    kept = forecaster.run(ds, START, UNTIL, conserve=["z500"], progress=False)
    initial = float(ds.z500.sel(time=START).mean("longitude")[0].weighted(weights).mean("latitude"))
    means = {name: each.z500.mean("longitude").weighted(weights).mean("latitude") for name, each in
             (("free", free), ("kept", kept))}  # fmt: skip
    np.testing.assert_allclose(means["kept"], initial, rtol=1e-6)
    assert float(abs(means["free"] - initial).max()) > 1
    assert kept.attrs["conserved_global_means"] == "z500"


def test_the_mass_of_dry_air_stays():
    ds = waves().rename(z500="sp", t2m="tcwv")
    ds = ds.assign(sp=(ds.sp + 5e4).assign_attrs(units="Pa"), tcwv=(ds.tcwv - 250).assign_attrs(units="kg m-2"))
    task = dataclasses.replace(TASK, variables=("sp", "tcwv"))
    forecaster = run(ds, task=task, model=tiny_sphere(), config=quick())
    kept = forecaster.run(ds, START, UNTIL, conserve=["dry_air"], outputs=None, progress=False)
    weights = latitude_weights(ds)

    def mean(field):
        return field.mean("longitude").weighted(weights).mean("latitude")

    dry, initial = mean(kept.sp - 9.80665 * kept.tcwv), mean((ds.sp - 9.80665 * ds.tcwv).sel(time=START))[0]
    np.testing.assert_allclose(dry, float(initial), atol=0.05)
    assert float(mean(kept.sp).std()) > 0.2  # its water vapor changes
    assert kept.attrs["conserved_global_means"] == "dry_air"
    with pytest.raises(ValueError, match="both correct the surface pressure"):
        forecaster.run(ds, START, UNTIL, conserve=["dry_air", "sp"])
    hectopascal = ds.assign(sp=(ds.sp / 100).assign_attrs(units="hPa"))
    other = run(hectopascal, task=task, model=tiny_sphere(), config=quick())
    with pytest.raises(ValueError, match="needs sp in Pa and tcwv in kg m-2, not"):
        other.run(hectopascal, START, UNTIL, conserve=["dry_air"])


class Copy(torch.nn.Module):
    """Forecasts the normalized prescribed variable at the output time, its last forcing."""

    def __init__(self, shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_BTCHW, f_BTFHW):
        return f_BTFHW[:, :, -1:] + self.weight


def test_prescribed_values_are_read_for_every_step(monkeypatch):
    monkeypatch.setattr(free_run, "_FORCING_BYTES", 4 * 2 * 4 * 8 * 16 * 3)  # three calls
    task = Task(["z500"], prescribed=["t2m"], forcings=["time_of_year"], history=2, horizon=2)
    forecaster, ds = run(task=task, model=Copy), waves()
    states = forecaster.run(ds, START, "2001-01-14T18", outputs=None, progress=False)
    assert states.sizes["time"] == 39  # not a multiple of the history
    (z_mean, t_mean), (z_std, t_std) = forecaster.normalizer.mean, forecaster.normalizer.std
    expected = (ds.t2m.sel(time=states.time) - t_mean) / t_std + forecaster.network.weight.item()
    np.testing.assert_allclose((states.z500 - z_mean) / z_std, expected, atol=2e-4)
    np.testing.assert_array_equal(states.z500, forecaster(ds, [START], horizon=39).z500[0])
    with pytest.raises(ValueError, match="needed at 2001-01-16T00:00:00, which the data do not hold"):
        forecaster.run(ds, START, "2001-02-01", progress=False)


class Growing(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x_BTCHW):
        return self.weight * 2 * x_BTCHW


def test_a_run_that_leaves_the_possible_states_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(free_run, "BLOCK_BYTES", 1)
    forecaster = run(model=Growing)
    store = tmp_path / "r.zarr"
    with pytest.raises(
        FloatingPointError, match=r"t2m is .* K at 2001-01-0\dT.* member 0,\s?and must be from"
    ) as error:
        forecaster.run(waves(), START, UNTIL, outputs=None, members=1, store=store, progress=False)
    assert "degrees north" in str(error.value) and "select='rollout'" in str(error.value)
    assert periods_in(store) > 0  # what came before is kept


def periods_in(store):
    """Return how many periods an unfinished store holds."""
    with np.load(f"{store}.unfinished.npz") as state:
        return json.loads(str(state["settings"]))["periods"]


def test_the_periods_before_an_impossible_state_are_in_the_store(tmp_path):
    """Also where they are less than a block; the same call fails at the same state again."""
    forecaster, store = run(model=Growing), tmp_path / "r.zarr"
    errors = []
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="a store whose name ends with .unfinished") as error:
            forecaster.run(waves(), START, UNTIL, outputs=None, store=store, progress=False)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    kept = xr.open_zarr(f"{store}.unfinished", consolidated=False).t2m.load()
    periods = periods_in(store)
    assert 0 < periods < kept.sizes["time"]
    assert np.isfinite(kept[:periods]).all() and not np.isfinite(kept[periods:]).any()


def test_a_killed_run_resumes_within_a_block(forecaster, tmp_path, monkeypatch):
    """A run of months would else lose all that it has done before its end."""
    monkeypatch.setattr(free_run, "_SAVE_SECONDS", 0.0)  # after every call
    ds, options = waves(), {"progress": False}
    whole = forecaster.run(ds, START, UNTIL, store=tmp_path / "whole.zarr", **options).load()
    save, count = run_store._save_state, []

    def killed(*args):
        count.append(args[-1].periods)
        if len(count) == 8:
            raise KilledError
        save(*args)

    monkeypatch.setattr(run_store, "_save_state", killed)
    with pytest.raises(KilledError):
        forecaster.run(ds, START, UNTIL, store=tmp_path / "killed.zarr", **options)
    assert set(count) == {0}  # no block was complete
    monkeypatch.setattr(run_store, "_save_state", save)
    calls = []
    monkeypatch.setattr(forecaster.network, "forward", counting(forecaster.network.forward, calls))
    resumed = forecaster.run(ds, START, UNTIL, store=tmp_path / "killed.zarr", **options)
    assert len(calls) == 4  # of ten: six states were saved after the first
    xr.testing.assert_identical(resumed.load().drop_attrs(), whole.drop_attrs())


class Decaying(Growing):
    def forward(self, x_BTCHW):
        return self.weight * 0.9 * x_BTCHW


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars(calendar):
    ds = waves(times=40, start="2001-02-10").convert_calendar(calendar, align_on="date")
    forecaster = run(ds, model=Decaying)
    months = forecaster.run(ds, "2001-02-16", "2003-03-01", outputs="1MS", progress=False)
    assert months.sizes["time"] == 24 and months.time.dt.calendar == calendar
    length = (months.time_bnds[-1, 1] - months.time_bnds[-1, 0]).item()
    assert length.days == (28 if calendar == "noleap" else 30)


def test_monthly_steps():
    times = pd.date_range("2001-01-01", periods=36, freq="MS", unit="ns")
    ds = waves(times=36).assign_coords(time=times)
    forecaster = run(ds, task=Task(["z500", "t2m"], history=2, horizon=2, step="1MS"))
    states = forecaster.run(ds, until="2005-12-01", outputs=None, progress=False)
    np.testing.assert_array_equal(states.time, pd.date_range("2004-01-01", "2005-12-01", freq="MS"))
    years = forecaster.run(ds, until="2005-12-01", outputs="12MS", progress=False)
    np.testing.assert_allclose(years.t2m[0], states.t2m[:12].mean("time"), rtol=1e-6)
    assert str(years.time.values[0])[:10] == "2004-01-01" and years.sizes["time"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": None}, "until is missing"),
        ({"until": "soon"}, "until='soon' must be a date"),
        ({"until": "2300-01-01"}, "until='2300-01-01' must be before 2262-04-11.*use_cftime=True"),
        ({"until": "2001-01-01"}, "at least one step of 6h after the start 2001-01-05"),
        ({"outputs": "1MS"}, "no period of outputs='1MS' is complete"),
        ({"outputs": "9h"}, "outputs='9h' must be a multiple of the step"),
        ({"statistics": ["sum"]}, "must be a list of some of"),
        ({"statistics": "mean"}, "must be a list of some of"),
        ({"statistics": []}, "must be a list of some of"),
        ({"statistics": ["max"], "outputs": None}, "would be ignored: each output is one state"),
        ({"conserve": ["msl"]}, "conserve=.*must be a list of some of"),
        ({"conserve": ["dry_air"]}, "'dry_air' needs surface pressure and total column water vapor"),
        ({"members": 0}, "members=0 must be an integer of at least 1"),
        ({"seed": 1}, "seed=1 would be ignored without members"),
    ],
)
def test_settings_that_cannot_work(forecaster, options, message):
    with pytest.raises(ValueError, match=message):
        forecaster.run(waves(), START, **{"until": UNTIL, "progress": False, **options})


def test_inputs_that_are_not_forecast_rule_out_a_run():
    forecaster = run(task=Task(["z500"], inputs=["t2m"], history=2, horizon=2))
    with pytest.raises(ValueError, match="inputs=\\['t2m'\\] are not forecast"):
        forecaster.run(waves(), START, UNTIL, progress=False)


def test_members_in_the_data_are_refused(forecaster):
    ds = xr.concat([waves(), waves()], xr.DataArray([0, 1], dims="number"))
    with pytest.raises(ValueError, match="must not have ensemble members"):
        forecaster.run(ds, START, UNTIL, progress=False)


def test_a_forecaster_of_another_task_is_not_changed(forecaster):
    task = dataclasses.replace(forecaster.task)
    forecaster.run(waves(), START, UNTIL, progress=False)
    assert forecaster.task == task
