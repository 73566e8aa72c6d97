"""The climatology that a forecaster carries: fitted in the pass of the statistics, and evaluated at any time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import TASK, quick, run, tiny_model

import simvp_climate as sc
from simvp_climate.data import reader
from simvp_climate.data.conventions import orient
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.harmonics import NAMES
from simvp_climate.data.windows import find_windows
from simvp_climate.processing import climatology, statistics

LATITUDE, LONGITUDE = np.array([-67.5, -22.5, 22.5, 67.5]), np.arange(0, 360, 45.0)
# per harmonic, in the order of NAMES
COEFFICIENTS = np.array([5e4, 900, -300, 120, 80, -40, 20, 60, -30.0])


def seasons(times, noise=0.0):
    """Return states that are sums of the harmonics, larger in each row than in the one before, plus noise."""
    times = xr.DataArray(times, dims="time")
    year = (times.dt.dayofyear - 1 + times.dt.hour / 24) / times.dt.days_in_year
    phases = [wave * year for wave in (1, 2, 3)] + [times.dt.hour / 24]
    columns = [function(2 * np.pi * phase) for phase in phases for function in (np.cos, np.sin)]
    values = COEFFICIENTS[0] + sum(c * column for c, column in zip(COEFFICIENTS[1:], columns, strict=True))
    rows = xr.DataArray(1 + np.arange(4) / 10, dims="latitude")
    field = (values * rows).expand_dims(longitude=8, axis=2).transpose("time", "latitude", "longitude").values
    field = field + noise * np.random.default_rng(0).normal(size=field.shape)
    dims = ("time", "latitude", "longitude")
    variables = {
        "z500": (dims, field.astype("f4"), {"units": "m2 s-2"}),
        "t2m": (dims, (field / 200 + 10).astype("f4")),
    }
    return xr.Dataset(variables, {"time": times.values, "latitude": LATITUDE, "longitude": LONGITUDE})


def fit(*parts, **options):
    sources = [reader.open_source(orient(part)) for part in parts]
    windows = [find_windows(part.indexes["time"], "6h", 2, 2, "ds") for part in parts]
    times = [part.indexes["time"] for part in parts]
    arguments = sources, windows, latitude_weights(parts[0]["latitude"]).values, 2, np.zeros(2)
    result = statistics.compute_statistics(*arguments, times=times, **options)
    return climatology.describe_harmonics(result.harmonics, times, windows), result


@pytest.mark.parametrize("block_bytes", [2**24, 20_000])
def test_a_sum_of_the_harmonics_is_found_again(monkeypatch, block_bytes):
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", block_bytes)
    first, second = (seasons(pd.date_range(start, periods=600, freq="6h")) for start in ("2001-01-01", "2002-05-15"))
    third = seasons(pd.date_range("2003-08-20", periods=600, freq="6h"))
    harmonics, _ = fit(first, second, third)
    expected = COEFFICIENTS[:, None, None] * (1 + np.arange(4) / 10)[:, None] * np.ones(8)
    np.testing.assert_allclose(harmonics.coefficients[:, 0], expected, rtol=1e-6, atol=0.05)
    assert (harmonics.start, harmonics.end) == ("2001-01-01T00:00:00", "2004-01-16T18:00:00")
    assert harmonics.months == tuple(range(1, 13)) and harmonics.coefficients.dtype == np.float32


def test_the_other_statistics_stay_the_same():
    ds = seasons(pd.date_range("2001", periods=100, freq="6h"))
    _, with_times = fit(ds)
    sources, windows = [reader.open_source(orient(ds))], [find_windows(ds.indexes["time"], "6h", 2, 2, "ds")]
    without = statistics.compute_statistics(sources, windows, latitude_weights(ds["latitude"]).values, 2, np.zeros(2))
    assert without.digest == with_times.digest and without.harmonics.shape == (0, 2, 4, 8)
    for name in ("mean", "std", "change_std", "mean_field"):
        np.testing.assert_array_equal(getattr(without, name), getattr(with_times, name))


def test_a_part_of_the_year_has_no_season_and_daily_states_no_time_of_day():
    harmonics, _ = fit(seasons(pd.date_range("2001-03-01", periods=300, freq="6h")))
    fitted = (harmonics.coefficients[:, 0] != 0).any(axis=(1, 2))
    assert [name for name, used in zip(NAMES, fitted, strict=True) if used] == [NAMES[0], *NAMES[-2:]]
    assert harmonics.months == (3, 4, 5)
    ds = seasons(pd.date_range("2001-01-01", periods=4 * 370, freq="6h")).isel(time=slice(None, None, 4))
    sources, windows = [reader.open_source(orient(ds))], [find_windows(ds.indexes["time"], "1D", 2, 2, "ds")]
    times, weights = [ds.indexes["time"]], latitude_weights(ds["latitude"]).values
    daily = statistics.compute_statistics(sources, windows, weights, 2, np.zeros(2), times=times).harmonics
    assert (daily[-2:] == 0).all()
    # at 00 UTC the cosine of the day is one
    np.testing.assert_allclose(daily[0, 0, 3], 1.3 * (COEFFICIENTS[0] + COEFFICIENTS[-2]), rtol=1e-6)


def test_masked_cells_have_no_climatology_and_too_large_ones_are_left_out(monkeypatch):
    ds = seasons(pd.date_range("2001", periods=60, freq="6h"))
    ds["t2m"][:, 1, 2:4] = np.nan
    harmonics, result = fit(ds)
    np.testing.assert_array_equal(np.isnan(harmonics.coefficients), np.broadcast_to(result.mask, (9, 2, 4, 8)))
    monkeypatch.setattr(climatology, "_MAX_BYTES", 100)
    assert fit(ds)[0] is None


def test_the_cache_has_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seasons(pd.date_range("2001", periods=100, freq="6h"), noise=10.0).to_zarr(tmp_path / "a.zarr", consolidated=False)
    ds = sc.open_dataset(tmp_path / "a.zarr", ["z500", "t2m"])
    first, _ = fit(ds)
    assert list((tmp_path / "cache").rglob("statistics-*.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "_read_blocks", None)
        again, _ = fit(ds)
    np.testing.assert_array_equal(first.coefficients, again.coefficients)


@pytest.fixture(scope="module")
def trained():
    """Return a year and a month of states, and a forecaster trained on the year."""
    ds = seasons(pd.date_range("2001-01-01", periods=4 * 396, freq="6h"), noise=200.0)
    train = ds.sel(time="2001")
    return ds, run(train, config=quick(max_steps=2), model=tiny_model())


def test_a_file_carries_it(trained, tmp_path):
    _, forecaster = trained
    forecaster.save(tmp_path / "f.safetensors")
    again = sc.Forecaster.load(tmp_path / "f.safetensors", "cpu")
    xr.testing.assert_identical(again.climatology, forecaster.climatology)
    assert again.climatology.attrs["climatology_start"] == "2001-01-01T00:00:00"
    assert again.climatology["z500"].attrs == {"units": "m2 s-2"}
    without = dataclasses.replace(forecaster, harmonics=None)
    assert without.digest == forecaster.digest, "it changes no forecast"
    without.save(tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match=r"this forecaster has no climatology.*sc.baselines.climatology\(train\)"):
        sc.Forecaster.load(tmp_path / "g.safetensors", "cpu").climatology  # noqa: B018


def test_scores_and_baselines_take_it(trained):
    ds, forecaster = trained
    test = ds.sel(time="2002")
    normal = sc.baselines.climatology_at(forecaster.climatology, test["time"])
    truth = seasons(test["time"].values)["z500"]
    assert normal["z500"].dims == ("time", "latitude", "longitude") and normal["z500"].dtype == np.float32
    # the mean of 1460 states with noise of 200, 9 coefficients: about 200 * sqrt(9 / 1460)
    assert float(np.sqrt(((normal["z500"] - truth) ** 2).mean())) < 25
    forecast = forecaster(test, every="1D")
    scores = sc.score(forecast, test, climatology=forecaster.climatology, bootstrap=None)
    expected = np.sqrt((((test["z500"] - normal["z500"]) ** 2).weighted(latitude_weights(test["latitude"]))).mean())
    measured = scores["z500"].sel(metric="rmse", system="climatology").isel(lead_time=0)
    assert float(measured) == pytest.approx(float(expected), rel=0.05)  # of fewer times
    assert np.isfinite(scores["z500"].sel(metric="acc", system="SimVPv2")).all()
    assert scores.attrs["climatology_start"] == "2001-01-01T00:00:00"
    damped = sc.baselines.fit_damped_persistence(ds.sel(time="2001"), forecaster.climatology, forecast["lead_time"])
    assert np.isfinite(damped(test, forecast["init_time"], forecast["lead_time"])["t2m"]).all()


def test_its_period_must_not_be_verified_and_must_hold_the_months(trained):
    ds, forecaster = trained
    forecast = forecaster(ds.sel(time="2001-05"), every="1D")
    with pytest.raises(ValueError, match="the climatology is from 2001-01-01.*verified times lie in it"):
        sc.score(forecast, ds, climatology=forecaster.climatology)
    short = dataclasses.replace(forecaster, harmonics=dataclasses.replace(forecaster.harmonics, months=(3, 4)))
    with pytest.raises(ValueError, match="from 2001-01-01 to 2001-12-31 and has no values of month 1, 2, 5 .. 12"):
        sc.baselines.climatology_at(short.climatology, ds["time"])


def test_levels_calendars_and_months():
    times = xr.date_range("2001-01-01", periods=36, freq="MS", calendar="noleap", use_cftime=True)
    clock = xr.DataArray(times, dims="time")
    values = 250 + 10 * np.cos(2 * np.pi * (clock.dt.dayofyear.values - 1) / 365)
    field = values[:, None, None, None] + np.array([0.0, 20.0])[:, None, None] + np.zeros((4, 8))
    field = field + np.random.default_rng(0).normal(size=field.shape)
    level = ("level", [500.0, 850.0], {"units": "hPa"})
    coordinates = {"time": times, "level": level, "latitude": LATITUDE, "longitude": LONGITUDE}
    ds = xr.Dataset({"temperature": (tuple(coordinates), field.astype("f4"), {"units": "K"})}, coordinates)
    task = dataclasses.replace(TASK, variables=["temperature"], levels=[500, 850], step="1MS")
    forecaster = run(ds.isel(time=slice(0, 30)), task=task, config=quick(max_steps=1))
    normal = sc.baselines.climatology_at(forecaster.climatology, ds["time"])
    assert normal["temperature"].dims == ("time", "level", "latitude", "longitude")
    expected = values[:, None] + np.array([0.0, 20.0])
    np.testing.assert_allclose(normal["temperature"].mean(("latitude", "longitude")), expected, atol=1.0)
    forecast = forecaster(ds.isel(time=slice(30, None)), every="1MS")
    scores = sc.score(forecast, ds, climatology=forecaster.climatology, metrics=["acc"], bootstrap=None)
    assert np.isfinite(scores["temperature"].sel(system="SimVPv2")).all()
