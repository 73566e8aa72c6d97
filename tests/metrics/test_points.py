"""Scores at stations and of series: the same numbers as by hand, gaps counted."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import noisy_forecast, weather

import simvp_climate as sc
from simvp_climate.data.stations import at, station_observations

LATITUDES, LONGITUDES = [-67.5, -22.5, 22.5], [0.0, 90.0, 315.0]


@pytest.fixture(scope="module")
def data():
    """Return forecasts at three cells, and observations: the truth there, of which some are missing."""
    truth = weather(days=40)
    forecast = noisy_forecast(truth)
    points = at(forecast, LATITUDES, LONGITUDES, names=["a", "b", "c"])
    table = at(truth, LATITUDES, LONGITUDES, names=["a", "b", "c"]).t2m.to_dataframe().reset_index()
    missing = (table.station == "b") & (table.time >= "2018-01-20")
    return forecast, truth, points, table[~missing]


def test_scores_by_hand(data):
    forecast, truth, points, table = data
    observations = station_observations(table, units={"t2m": "K"})
    error = forecast.t2m - truth.t2m.sel(time=forecast.valid_time)
    cells = [error.sel(latitude=y, longitude=x) for y, x in zip(LATITUDES, LONGITUDES, strict=True)]
    cells[1] = cells[1].where(cells[1].valid_time < np.datetime64("2018-01-20"))
    errors = xr.concat(cells, "station", coords="minimal", compat="override")
    expected = np.sqrt((errors**2).mean(["station", "init_time"]))
    np.testing.assert_allclose(sc.metrics.rmse(points, observations).t2m, expected)
    scores = sc.score(points, observations, persistence=False)
    np.testing.assert_allclose(scores.t2m.sel(metric="rmse")[0], expected)
    np.testing.assert_allclose(scores.t2m.sel(metric="bias")[0], errors.mean(["station", "init_time"]))
    np.testing.assert_array_equal(scores.t2m_observations, errors.notnull().sum(["station", "init_time"]))
    assert scores.attrs["grid"] == "3 stations" and np.isfinite(scores.t2m_low.sel(metric="rmse")).all()


def test_order_of_stations_units_and_baselines(data):
    _, truth, points, table = data
    observations = station_observations(table.assign(t2m=table.t2m - 273.15), units={"t2m": "degC"})
    climatology = at(sc.baselines.climatology(truth.isel(time=slice(0, 80)), method="overall"), LATITUDES, LONGITUDES)
    climatology = climatology.assign_coords(station=["a", "b", "c"])
    scores = sc.score(points.isel(station=[2, 0]), observations, climatology, allow_overlap=True)
    same = station_observations(table, units={"t2m": "K"})
    expected = sc.score(points.sel(station=["a", "c"]), same, climatology, allow_overlap=True)
    xr.testing.assert_allclose(scores.drop_vars("system"), expected.drop_vars("system"))
    assert scores.system.values.tolist() == ["forecast", "persistence", "climatology"]
    by_hand = (points - climatology.drop_vars(["latitude", "longitude"])).t2m.isel(station=[2, 0])
    right = observations.t2m.sel(time=points.valid_time, station=["c", "a"]) + 273.15
    right = right - climatology.t2m.sel(station=["c", "a"])
    acc = (by_hand * right).sum(["init_time", "station"])
    acc = acc / np.sqrt((by_hand**2).sum(["init_time", "station"]) * (right**2).sum(["init_time", "station"]))
    np.testing.assert_allclose(scores.t2m.sel(metric="acc", system="forecast"), acc)


def test_a_single_station_and_an_ensemble(data):
    _, _, points, table = data
    observations = station_observations(table, units={"t2m": "K"})
    single = sc.metrics.rmse(points.isel(station=1), observations)
    np.testing.assert_allclose(single.t2m, sc.metrics.rmse(points.isel(station=[1]), observations).t2m)
    members = xr.concat([points - 1, points + 1], pd.Index([0, 1], name="number")).assign_attrs(points.attrs)
    members["t2m"].attrs["units"] = "K"
    assert np.isfinite(sc.metrics.crps(members, observations).t2m).all()
    np.testing.assert_allclose(sc.metrics.spread(members, observations).t2m, np.sqrt(2))


def test_errors(data):
    forecast, truth, points, table = data
    observations = station_observations(table, units={"t2m": "K"})
    with pytest.raises(ValueError, match="the truth is on a grid, the forecast is not. Interpolate it"):
        sc.metrics.rmse(points, truth)
    with pytest.raises(ValueError, match="the truth lacks 1 of 3 stations, first 'c'; it has a, b"):
        sc.metrics.rmse(points, observations.sel(station=["a", "b"]))
    with pytest.raises(ValueError, match="regions are for grids"):
        sc.score(points, observations, regions=["tropics"])
    with pytest.raises(ValueError, match="a skill map needs a forecast on a grid"):
        sc.metrics.skill_map(points, observations, points)
    with pytest.raises(ValueError, match="truth is at stations, the forecast on a grid. Interpolate it"):
        sc.metrics.rmse(forecast, observations)
