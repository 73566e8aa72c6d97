"""The probabilistic climatology: states of other years as members."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from simvp_climate.metrics.aggregation import blocks
from simvp_climate.metrics.baselines.climatological_ensembles import _read_states as states
from simvp_climate.metrics.baselines.climatological_ensembles import climatological_ensemble
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.ensemble import crps
from simvp_climate.metrics.pairs import match
from simvp_climate.metrics.score import score


def dated(times) -> xr.Dataset:
    """Return states whose values are their dates, as days since 2000-01-01."""
    days = np.asarray(times - times[0].replace(year=2000, month=1, day=1, hour=0)) / np.timedelta64(1, "D")
    values = np.broadcast_to(days.astype(float)[:, None, None], (len(times), 2, 4))
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {"time": times, "latitude": [-45.0, 45.0], "longitude": np.arange(4) * 90.0},
    )


TRAIN = dated(pd.date_range("2001-01-01", "2004-12-31T18", freq="6h"))


def dates(members: xr.Dataset) -> set[str]:
    """Return the dates that the values of a single pair stand for."""
    days = members.t2m.isel(latitude=0, longitude=0).values.ravel()
    return {f"{np.datetime64('2000-01-01T00') + np.timedelta64(round(24 * day), 'h')}" for day in days}


def test_members_are_the_same_day_and_hour_of_other_years():
    members = climatological_ensemble(TRAIN, ["2005-03-09T12"], ["18h"], window_days=1)
    assert members.t2m.dims == ("init_time", "lead_time", "number", "latitude", "longitude")
    # the 69th day of the year is 9 March in a leap year
    assert dates(members) == {"2001-03-10T06", "2002-03-10T06", "2003-03-10T06", "2004-03-09T06"}
    assert members.valid_time.values[0, 0] == np.datetime64("2005-03-10T06")
    assert members.t2m.units == "K" and members.climatology_end == "2004-12-31T18:00:00"
    assert members.number.attrs["standard_name"] == "realization"


def test_the_window_has_days_apart():
    members = climatological_ensemble(TRAIN, ["2005-06-30T00"], ["1D"])
    assert members.sizes["number"] == 12
    # July 1 and 15 days before and after it, one day earlier in a leap year
    days = {f"{year}-{day}T00" for year in (2001, 2002, 2003) for day in ("06-16", "07-01", "07-16")}
    assert dates(members) == days | {"2004-06-15T00", "2004-06-30T00", "2004-07-15T00"}
    wide = climatological_ensemble(TRAIN, ["2005-06-30T00"], ["1D"], window_days=9, separation_days=2)
    assert wide.sizes["number"] == 4 * 5


def test_all_pairs_have_as_many_members_as_the_one_with_the_fewest_and_the_nearest_days_count():
    # 10 January less 15 days: of 2001 it is before the data, of 2005 in the year of the valid time
    members = climatological_ensemble(TRAIN, ["2005-01-09", "2005-06-30"], ["1D"])
    assert members.sizes["number"] == 11
    assert "2000-12-26T00" not in dates(members.isel(init_time=0))
    missing = {"2004-07-15T00"}  # the last of those 15 days away
    summer = climatological_ensemble(TRAIN, ["2005-06-30"], ["1D"])
    assert dates(summer) - dates(members.isel(init_time=1)) == missing


def test_verified_times_in_the_training_period_are_refused_and_their_year_never_counts():
    with pytest.raises(ValueError, match="climatological ensemble is from 2001.* verified times lie in it"):
        climatological_ensemble(TRAIN, ["2003-03-09"], ["1D"])
    members = climatological_ensemble(TRAIN, ["2003-03-09"], ["1D"], window_days=1, allow_overlap=True)
    assert {date[:4] for date in dates(members)} == {"2001", "2002", "2004"}


def test_other_calendars_and_months():
    noleap = dated(xr.date_range("2001-01-01", "2003-12-31", freq="D", calendar="noleap", use_cftime=True))
    init = xr.date_range("2004-03-01", periods=1, calendar="noleap", use_cftime=True)
    members = climatological_ensemble(noleap, init, ["1D"], window_days=1)
    # 365 days a year, 2 March is the 61st
    np.testing.assert_array_equal(members.t2m[0, 0, :, 0, 0], [365 * year + 60 for year in (1, 2, 3)])

    monthly = dated(pd.date_range("2001-01-01", "2004-12-01", freq="MS"))
    leads = xr.DataArray([1, 13], dims="lead_time", attrs={"units": "months"})
    members = climatological_ensemble(monthly, ["2005-01-01"], leads)
    assert members.sizes["number"] == 4
    assert dates(members) == {f"{year}-02-01T00" for year in (2001, 2002, 2003, 2004)}
    with pytest.raises(ValueError, match="window_days.* these are monthly"):
        climatological_ensemble(monthly, ["2005-01-01"], leads, window_days=5)


@pytest.mark.parametrize("chunks", [None, 50])
def test_the_members_are_lazy_and_computed_in_blocks(monkeypatch, chunks):
    module = "simvp_climate.metrics.baselines.climatological_ensembles"
    # 12 members of 8 cells in float64 are a pair, and a block has three leads
    monkeypatch.setattr(f"{module}._BLOCK_BYTES", 3 * 12 * 8 * 8)
    read = []
    monkeypatch.setattr(f"{module}._read_states", lambda *options: read.append(options[1]) or states(*options))
    train = TRAIN if chunks is None else TRAIN.chunk(time=chunks)
    members = climatological_ensemble(train, pd.date_range("2005-03-01", periods=100), ["1D", "2D", "3D", "4D"])
    assert members.t2m.chunks[:2] == ((1,) * 100, (3, 1)) and not read
    one = members.t2m.isel(init_time=7, lead_time=3).values
    assert [positions.shape for positions in read] == [(1, 1, 12)]
    expected = climatological_ensemble(TRAIN, ["2005-03-08"], ["4D"]).t2m[0, 0]
    np.testing.assert_array_equal(one, expected)


def test_crps_and_score_take_it():
    random = np.random.default_rng(0)
    ds = dated(pd.date_range("2001-01-01", "2005-02-28", freq="D"))
    ds["t2m"] = ds.t2m.copy(data=280 + random.normal(size=ds.t2m.shape))
    train, test = ds.sel(time=slice("2004")), ds.sel(time="2005")
    forecast = persistence(test, test.time[:40], ["1D", "2D"])
    members = climatological_ensemble(train, forecast.init_time, forecast.lead_time)
    result = crps(members, test).t2m
    # independent normal numbers: 1/sqrt(pi), the CRPS of the distribution itself
    np.testing.assert_allclose(result, 1 / np.sqrt(np.pi), atol=0.05)
    ensemble = xr.concat([forecast, forecast + 1.0], pd.Index([0, 1], name="number"))
    scores = score(ensemble, test, baselines={"climatological ensemble": members}, metrics=["crps", "crps_skill"])
    np.testing.assert_allclose(scores.t2m.sel(system="climatological ensemble", metric="crps"), result, rtol=1e-12)
    assert "crps_skill_vs_climatological_ensemble" in scores.metric


def test_blocks_of_pairs_count_the_members_of_a_baseline(monkeypatch):
    test = dated(pd.date_range("2005-01-01", "2005-02-28", freq="D"))
    forecast = persistence(test, test.time[:40], ["1D", "2D"])
    members = climatological_ensemble(TRAIN, forecast.init_time, forecast.lead_time)
    # two pairs of 11 members on 8 cells in float64
    monkeypatch.setattr("simvp_climate.metrics.aggregation._BLOCK_BYTES", 2 * 11 * 8 * 8)
    assert len(list(blocks(match(forecast, test, baselines={"climatology": members})))) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_days": 10}, "window_days=10 must be an odd number"),
        ({"separation_days": 0}, "separation_days=0 must be at least 1"),
        ({"lead_times": ["3h"]}, "2005-03-09T03:00:00 has 0 states of other years.*needs two"),
    ],
)
def test_settings_that_do_not_apply(options, message):
    arguments = {"init_times": ["2005-03-09"], "lead_times": ["1D"]} | options
    with pytest.raises(ValueError, match=message):
        climatological_ensemble(TRAIN, **arguments)
