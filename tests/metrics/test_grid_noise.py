"""Noise at the scale of the grid."""

import numpy as np
import pytest
import xarray as xr

from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.deterministic import grid_noise
from simvp_climate.metrics.score import score

LATITUDE, LONGITUDE = np.arange(-78.75, 90, 22.5), np.arange(0, 360, 22.5)
CHECKERBOARD = (-1.0) ** np.add.outer(np.arange(8), np.arange(16))


def noise_of(field, latitude=LATITUDE, longitude=LONGITUDE, **options):
    """Return the noise of a field that is forecast at all leads, whatever the truth."""
    time = np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")
    coordinates = {"time": time, "latitude": latitude, "longitude": longitude}
    shape = (8, len(latitude), len(longitude))
    truth = xr.Dataset({"t2m": (tuple(coordinates), np.full(shape, 280.0), {"units": "K"})}, coordinates)
    forecast = persistence(truth, truth.time[:4], ["6h", "12h"])
    forecast["t2m"] = forecast.t2m.copy(data=np.broadcast_to(field, forecast.t2m.shape))
    return grid_noise(forecast, truth, **options).t2m


def test_a_checkerboard_has_its_amplitude():
    noise = noise_of(280 + 0.5 * CHECKERBOARD)
    np.testing.assert_allclose(noise, [0.5, 0.5], rtol=1e-12)
    assert noise.dims == ("lead_time",) and noise.attrs["units"] == "K"
    # also on part of the globe, where the edge has neighbors on one side only
    np.testing.assert_allclose(noise_of(280 + 0.5 * CHECKERBOARD[:, :9], longitude=LONGITUDE[:9]), 0.5, rtol=1e-12)


def test_smooth_fields_and_stripes_have_almost_none():
    north_south = 20 * np.cos(np.deg2rad(LATITUDE))[:, np.newaxis] * np.ones(16)
    assert np.abs(noise_of(280 + north_south)).max() < 1e-12
    # a wave of 16 cells keeps sin^2(pi / 16) = 0.038 in each direction
    wave = np.cos(np.deg2rad(LONGITUDE)) * np.cos(2 * np.deg2rad(LATITUDE))[:, np.newaxis]
    assert noise_of(280 + 10 * wave).max() < 10 * 0.038 * 0.15
    stripes = 0.5 * (-1.0) ** np.arange(16) * np.ones((8, 1))
    assert noise_of(280 + stripes).max() < 1e-12


def test_uncorrelated_noise_has_three_eighths():
    random = np.random.default_rng(0)
    noise = noise_of(280 + random.normal(size=(4, 2, 8, 16)), weights=None)
    np.testing.assert_allclose(noise, 0.375, rtol=0.15)


def test_masked_cells_do_not_spread():
    field = 280 + 0.5 * CHECKERBOARD
    field[2:4, 3:6] = np.nan
    np.testing.assert_allclose(noise_of(field, skipna=True), 0.5, rtol=1e-12)


def test_score_compares_with_that_of_the_analyses():
    time = np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")
    coordinates = {"time": time, "latitude": LATITUDE, "longitude": LONGITUDE}
    field = np.broadcast_to(280 + 0.1 * CHECKERBOARD, (8, 8, 16))
    truth = xr.Dataset({"t2m": (tuple(coordinates), field, {"units": "K"})}, coordinates)
    forecast = persistence(truth, truth.time[:4], ["6h", "12h"]).assign_attrs(system="network")
    members = xr.concat([forecast + a * CHECKERBOARD for a in (0.2, 0.3)], "number").assign_attrs(forecast.attrs)
    scores = score(members, truth, metrics=["grid_noise"]).t2m.sel(metric="grid_noise")
    np.testing.assert_allclose(scores.sel(system="persistence"), 0.1, rtol=1e-12)
    # the members have 0.3 and 0.4
    np.testing.assert_allclose(scores.sel(system="network"), np.sqrt((0.09 + 0.16) / 2), rtol=1e-12)
    assert "grid_noise" not in score(forecast, truth).metric
    with pytest.raises(ValueError, match="unknown"):
        score(forecast, truth, metrics=["grid_noise_skill"])
