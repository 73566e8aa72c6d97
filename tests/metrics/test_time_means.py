"""Means over days, weeks and months by hand, and their scores."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import two_cells, weather

import simvp_climate as sc
from simvp_climate.data.stations import at
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.time_means import time_mean


def counting(start="2001-01-01", days=70, step="6h"):
    """Return a variable that counts the steps."""
    return two_cells(
        pd.date_range(start, periods=int(days * pd.Timedelta("1D") / pd.Timedelta(step)), freq=step, unit="ns")
    )


def test_days_of_analyses():
    ds = counting(days=3)
    means = time_mean(ds, "1D")
    # from 06 to 24 UTC, values 1 to 4; one for every later time
    assert means.time.values[1] == np.datetime64("2001-01-02") and means.t2m[1, 0, 0] == 2.5
    np.testing.assert_array_equal(means.t2m[:, 0, 0], np.arange(9) + 1.5)
    assert means.time_bnds.values[1].astype("M8[D]").astype(str).tolist() == ["2001-01-01", "2001-01-02"]
    assert means.t2m.attrs["cell_methods"] == "time: mean" and means.t2m.attrs["units"] == "K"
    assert means.attrs["time_mean"] == "means over 1D with the label of their end; 3 incomplete periods are left out"
    xr.testing.assert_allclose(time_mean(ds.chunk(time=5), "1D").load(), means)


def test_gaps_and_missing_values():
    ds = counting(days=4).isel(time=[k for k in range(16) if k != 6])
    means = time_mean(ds, "1D")
    # the value at 12 UTC on the second day is missing, and with it four means
    expected = [np.datetime64("2001-01-01T18", "ns") + np.timedelta64(6 * k, "h") for k in range(13) if not 3 <= k <= 6]
    np.testing.assert_array_equal(means.time, expected)
    holes = counting(days=2).where(lambda each: each.time != np.datetime64("2001-01-01T12"))
    np.testing.assert_array_equal(time_mean(holes, "1D").t2m.isnull()[:, 0, 0], [True] * 3 + [False] * 2)


def test_a_daily_mean_of_daily_means_keeps_their_bounds():
    ds = counting(days=20, step="1D")
    assert "time_bnds" not in time_mean(ds, "7D")
    noon = ds.assign_coords(time=ds.time + np.timedelta64(12, "h"))
    edges = np.stack([noon.time - np.timedelta64(12, "h"), noon.time + np.timedelta64(12, "h")], axis=-1)
    noon = noon.assign_coords(time_bnds=(("time", "bnds"), edges))
    noon["time"].attrs["bounds"] = "time_bnds"
    weekly = time_mean(noon, "7D")
    assert weekly.t2m[0, 0, 0] == 3 and weekly.time_bnds.values[0].astype("M8[D]").astype(str).tolist() == [
        "2001-01-01",
        "2001-01-08",
    ]


def test_days_and_weeks_of_forecasts():
    truth = weather(days=40)
    forecast = persistence(truth, truth.time[:90:3], [f"{6 * k}h" for k in range(1, 31)])
    forecast["t2m"] = forecast.t2m + np.random.default_rng(0).normal(size=forecast.t2m.shape)
    daily = time_mean(forecast, "1D")
    assert daily.lead_time.values.tolist() == pd.to_timedelta(range(1, 8), "D").as_unit("ns").values.tolist()
    np.testing.assert_allclose(daily.t2m[:, 1], forecast.t2m[:, 4:8].mean("lead_time"))
    assert daily.valid_time.values[3, 1] == forecast.valid_time.values[3, 7]
    assert (daily.valid_time_bnds[..., 1] - daily.valid_time_bnds[..., 0] == np.timedelta64(1, "D")).all()
    assert "1 incomplete periods" in daily.attrs["time_mean"] and time_mean(forecast, "7D").sizes["lead_time"] == 1
    # all leads needed for a day
    assert time_mean(forecast.isel(lead_time=[k for k in range(30) if k != 5]), "1D").sizes["lead_time"] == 6

    means = time_mean(truth, "1D")
    scores = sc.score(daily, means, persistence=False)
    error = daily.t2m - means.t2m.sel(time=daily.valid_time)
    weights = sc.metrics.latitude_weights(truth.latitude)
    expected = np.sqrt((error**2).weighted(weights).mean(["init_time", "latitude", "longitude"]))
    np.testing.assert_allclose(scores.t2m.sel(metric="rmse", system="forecast"), expected)
    # persistence is that of the last day before the initialization
    persisted = means.t2m.sel(time=daily.init_time[1:]) - means.t2m.sel(time=daily.valid_time[1:, 0])
    late = sc.score(daily.isel(init_time=slice(1, None)), means).t2m.sel(metric="rmse", system="persistence")[0]
    np.testing.assert_allclose(late, np.sqrt((persisted**2).weighted(weights).mean()))
    points = at(forecast, 0.0, 10.0)
    xr.testing.assert_allclose(time_mean(points, "1D").t2m, at(daily, 0.0, 10.0).t2m)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_months_of_analyses(calendar):
    ds = counting("2001-01-15", days=60).convert_calendar(calendar, use_cftime=calendar != "standard")
    means = time_mean(ds, "1MS")
    assert [str(time)[:10] for time in means.time.values] == ["2001-02-01"]
    # after 00 UTC on the first of February, up to 00 UTC on the first of March
    assert means.t2m[0, 0, 0] == np.arange(17 * 4 + 1, 45 * 4 + 1).mean()
    daily = counting("2001-01-15", days=60, step="1D")
    assert time_mean(daily, "1MS").t2m[0, 0, 0] == np.arange(17, 45).mean()


def test_months_of_forecasts():
    ds = counting(days=150)
    leads = [f"{6 * k}h" for k in range(1, 65 * 4)]
    forecast = persistence(ds, [np.datetime64("2001-01-01", "ns"), np.datetime64("2001-02-15", "ns")], leads)
    forecast["t2m"] = forecast.t2m + np.arange(len(leads))[:, None, None]
    means = time_mean(forecast, "1MS")
    assert means.lead_time.values.tolist() == [1, 2] and means.lead_time.attrs["units"] == "months"
    # the last complete month at the initialization
    assert means.init_time.values.astype("M8[M]").astype(str).tolist() == ["2000-12", "2001-01"]
    valid = means.valid_time.values.astype("M8[D]").astype(str).tolist()
    assert valid == [["2001-01-01", "2001-02-01"], ["2001-02-01", "2001-03-01"]]
    np.testing.assert_allclose(means.t2m[0, :, 0, 0], [np.arange(124).mean(), np.arange(124, 236).mean()])
    first, last = 14 * 4, 45 * 4
    np.testing.assert_allclose(means.t2m[1, :, 0, 0], [np.nan, 180 + np.arange(first, last).mean()])
    assert means.initialization.values[1] == np.datetime64("2001-02-15")
    truth = time_mean(ds, "1MS")
    weights = sc.metrics.latitude_weights(ds.latitude)
    # only the first forecast has its first month
    expected = (means.t2m[0, 0] - truth.t2m[0]).weighted(weights).mean()
    np.testing.assert_allclose(sc.metrics.bias(means, truth, skipna=True).t2m[0], expected)
    together = sc.score(means.isel(init_time=[1], lead_time=[1]), truth)
    persisted = truth.t2m[0] - truth.t2m[2]
    np.testing.assert_allclose(together.t2m.sel(system="persistence", metric="rmse"),
                               np.sqrt((persisted**2).weighted(weights).mean()))  # fmt: skip


def test_errors():
    ds = counting(days=3)
    with pytest.raises(ValueError, match="must be a multiple of the step of the data, 0 days 06:00:00"):
        time_mean(ds, "9h")
    with pytest.raises(ValueError, match="no period of 7 days .* is complete in the dataset"):
        time_mean(ds, "7D")
    with pytest.raises(ValueError, match="no month is complete"):
        time_mean(ds, "1MS")
    with pytest.raises(ValueError, match="period='3MS' must be '1MS'"):
        time_mean(ds, "3MS")
    forecast = persistence(ds, ds.time[:4], ["6h", "12h"])
    with pytest.raises(ValueError, match="is complete in the forecast"):
        time_mean(forecast, "1D")
    with pytest.raises(ValueError, match="4 initializations lie in 1 months"):
        time_mean(forecast, "1MS")
    with pytest.raises(ValueError, match="1 leads, but means need several"):
        time_mean(forecast.isel(lead_time=[0]), "1D")
