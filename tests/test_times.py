"""Dates, leads and valid times as users bring them: right ones are scored, wrong ones are refused in words."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import TASK, run, waves

import simvp_climate as sc

DAYS = {"latitude": np.arange(-78.75, 90, 22.5), "longitude": np.arange(0, 360, 22.5)}


def off_by_three(times, lead_time):
    """A truth, and forecasts from its first four times that are 3 K too warm."""
    rng = np.random.default_rng(0)
    coords = {"time": times, **DAYS}
    truth = xr.Dataset({"t2m": (tuple(coords), rng.uniform(260, 300, (len(times), 8, 16)), {"units": "K"})}, coords)
    positions = np.arange(4)[:, None] + np.arange(1, lead_time.size + 1)
    values = truth["t2m"].values[positions] + 3
    coords = {"init_time": times[:4], "lead_time": lead_time, **DAYS}
    forecast = xr.Dataset({"t2m": (tuple(coords), values, {"units": "K"})}, coords)
    return truth, forecast.assign_coords(valid_time=(("init_time", "lead_time"), np.asarray(times)[positions]))


def months(lead_time):
    return xr.DataArray(lead_time, dims="lead_time", attrs={"units": "months"})


@pytest.mark.parametrize("stamp", ["MS", "ME", "middle"])
@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_monthly_forecasts_are_scored_in_every_calendar(calendar, stamp):
    times = xr.date_range("2001-01-01", periods=8, freq="ME" if stamp == "ME" else "MS", calendar=calendar)
    if stamp == "middle":
        times = times + pd.Timedelta("14D")
    truth, forecast = off_by_three(times, months([1, 2]))
    np.testing.assert_allclose(sc.metrics.rmse(forecast, truth)["t2m"], [3, 3])
    later = forecast.assign_coords(lead_time=months([2, 3]))
    with pytest.raises(ValueError, match="lead_time 2 months, but their sum is 2001-03"):
        sc.metrics.rmse(later, truth)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_leads_of_a_third_of_a_day_are_rounded_in_float32(calendar):
    times = xr.date_range("2001-01-01", periods=8, freq="8h", calendar=calendar)
    lead_time = (np.array([1 / 3, 2 / 3], "f4") * np.timedelta64(1, "D").astype("timedelta64[ns]")).astype("m8[ns]")
    truth, forecast = off_by_three(times, xr.DataArray(lead_time, dims="lead_time"))
    np.testing.assert_allclose(sc.metrics.rmse(forecast, truth)["t2m"], [3, 3])


def test_relabeled_leads_are_refused_in_maps_and_files():
    truth, forecast = off_by_three(pd.date_range("2001", periods=8, freq="6h"), xr.DataArray(
        pd.timedelta_range("6h", periods=2, freq="6h"), dims="lead_time"))  # fmt: skip
    later = forecast.assign_coords(lead_time=forecast["lead_time"] + np.timedelta64(6, "h"))
    for call in (
        lambda: sc.plot.maps(later, truth, lead="12h"),
        lambda: sc.io.to_valid_time(later, init="2001-01-01"),
        lambda: sc.metrics.rmse(later, truth),
    ):
        with pytest.raises(ValueError, match="lead_time 12 h, but their sum is 2001-01-01T12:00:00"):
            call()


def test_leads_in_undecoded_hours_are_refused_with_the_call_that_decodes_them():
    truth, forecast = off_by_three(pd.date_range("2001", periods=8, freq="6h"), months([1, 2]))
    forecast["lead_time"] = xr.DataArray([6, 12], dims="lead_time", attrs={"units": "hours"})
    with pytest.raises(ValueError, match="decode_timedelta=True"):
        sc.metrics.rmse(forecast, truth)
    decoded = xr.decode_cf(forecast, decode_timedelta=True)
    np.testing.assert_allclose(sc.metrics.rmse(decoded, truth)["t2m"], [3, 3])


def test_times_with_a_zone_are_refused_with_the_line_that_drops_it(forecaster):
    ds = waves(times=12)
    zoned = ds.assign_coords(time=ds.indexes["time"].tz_localize("UTC"))
    forecast = forecaster(ds, horizon=1)
    line = r'(\w+) = \1\.assign_coords\(time=pd\.DatetimeIndex\(\1\.indexes\["time"\]\)\.tz_convert\(None\)\)$'
    for call in (
        lambda: run(zoned),
        lambda: forecaster(zoned),
        lambda: sc.score(forecast, zoned),
        lambda: sc.baselines.climatology(zoned),
        lambda: sc.cache(zoned, "unused.zarr"),
    ):
        with pytest.raises(ValueError, match=f"zone UTC, but must be UTC without a zone. {line}"):
            call()
    assert 'ds.indexes["time"]).tz_convert(None)' in str(sc.check(zoned, TASK))
    xr.testing.assert_identical(
        zoned.assign_coords(time=pd.DatetimeIndex(zoned.indexes["time"]).tz_convert(None))["t2m"], ds["t2m"]
    )


def test_the_fix_for_undecoded_times_names_the_dataset_and_keeps_its_units(forecaster):
    ds = waves(times=12)
    counts = ds.assign_coords(time=("time", 6 * np.arange(12), {"units": "hours since 2001-01-01"}))
    forecast = forecaster(ds, horizon=1)
    for call in (lambda: run(counts), lambda: forecaster(counts)):
        with pytest.raises(ValueError, match=r"'hours since 2001-01-01', not decoded. ds = xr.decode_cf\(ds\)$"):
            call()
    with pytest.raises(ValueError, match=r"not decoded. truth = xr.decode_cf\(truth\)$"):
        sc.score(forecast, counts)
    text = ds.assign_coords(time=ds.indexes["time"].astype(str))
    with pytest.raises(
        ValueError, match=r'truth = truth.assign_coords\(time=pd.to_datetime\(truth\["time"\].values\)\)$'
    ):
        sc.score(forecast, text)
    with pytest.raises(ValueError, match=r'ds = ds.assign_coords\(time=pd.to_datetime\(ds\["time"\].values\)\)$'):
        sc.baselines.climatology(text)
    xr.testing.assert_equal(xr.decode_cf(counts)["t2m"], ds["t2m"])


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_perturbations_from_the_verified_period_are_refused_across_calendars(forecaster, calendar):
    ds = waves(times=40)
    pool = ds.convert_calendar(calendar, use_cftime=True)
    with pytest.raises(ValueError, match="lie in the period of the forecasts"):
        sc.perturbed_ensemble(forecaster, ds, pool, 0.1, every="1D", members=2)


@pytest.mark.parametrize(
    "end", ["2001", "2001-01", "2001-01-02", "2001-01-02T06:00:00", np.datetime64("2001-01-02"), 2001]
)
def test_a_period_may_be_recorded_as_a_year_a_month_or_a_day(end):
    truth, forecast = off_by_three(pd.date_range("2001", periods=8, freq="6h"), xr.DataArray(
        pd.timedelta_range("6h", periods=2, freq="6h"), dims="lead_time"))  # fmt: skip
    clim = sc.baselines.climatology(truth, method="hourly")
    clim.attrs = {"climatology_start": "1990", "climatology_end": end}
    last_day = forecast.isel(init_time=[-1])  # valid on January 2 at 00 and 06 UTC
    with pytest.raises(ValueError, match="2 verified times lie in it"):
        sc.score(last_day, truth, clim, metrics=["acc"])
    clim.attrs["climatology_end"] = "2000"
    assert sc.score(last_day, truth, clim, metrics=["acc"]).sizes["lead_time"] == 2
    clim.attrs["climatology_end"] = "31.12.2000"
    with pytest.raises(ValueError, match="write dates as ISO text, '2015-12-31'"):
        sc.score(last_day, truth, clim, metrics=["acc"])
