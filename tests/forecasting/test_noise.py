"""Calibrated noise: the spread of members equals the error of their mean, and only the noise changes."""

import itertools

import numpy as np
import pytest
import torch
from factories import run, tiny_model

import simvp_climate as sc
from simvp_climate.forecasting import noise
from simvp_climate.forecasting.noise import _scale_noise
from simvp_climate.networks.simvp_v2 import SimVPv2

PERIOD = dict(every="16D", horizon=4, members=4)


@pytest.fixture(scope="module")
def noisy():
    return sc.open_pretrained("sample-ensemble", device="cpu")


@pytest.fixture(scope="module")
def valid(noisy):
    return sc.open_sample(noisy.task.variables).sel(time=slice("2003-10", "2003-11"))


@pytest.fixture(scope="module")
def calibrated(noisy, valid):
    return sc.calibrate_noise(_scale_noise(noisy, 0.5), valid, **PERIOD)


def mean_ratio(forecaster, valid, every="16D", horizon=4, members=4, seed=0):
    forecast = forecaster(valid, every=every, horizon=horizon, members=members, seed=seed)
    forecast = forecast.isel(init_time=forecast.valid_time.max("lead_time").values <= valid.time.values[-1])
    ratios = sc.metrics.spread_skill_ratio(forecast, valid)
    return float(np.mean([ratios[name].mean() for name in ratios]))


def test_the_spread_matches_the_error(noisy, valid, calibrated):
    halved = _scale_noise(noisy, 0.5)
    assert mean_ratio(halved, valid) < 0.7
    assert mean_ratio(calibrated, valid) == pytest.approx(1, abs=0.01)
    # other random numbers of the same distribution
    assert mean_ratio(calibrated, valid, members=8, seed=5) == pytest.approx(1, abs=0.1)


def test_only_the_noise_is_scaled_and_the_factor_is_recorded(noisy, valid, calibrated):
    halved = _scale_noise(noisy, 0.5)
    factor = calibrated.provenance["noise_factor"]
    assert 1.6 < factor < 3.5
    assert calibrated.provenance["noise_calibration"].startswith("2003-10-11 00:00:00 to 2003-11-29")
    assert calibrated.digest != halved.digest
    pairs = zip(halved.network.named_parameters(), calibrated.network.named_parameters(), strict=True)
    for (name, before), (_, after) in pairs:
        scaled = name == "noise_field.weight" or name.endswith("scale_and_shift.weight")
        torch.testing.assert_close(after, before * factor if scaled else before, rtol=1e-3 if scaled else 0, atol=0)
    # the mean forecast, with noise of zero, stays as it was
    states = torch.zeros(1, 4, 2, 32, 64)
    zeros = torch.zeros(1, *noisy.network.noise_grid)
    with torch.no_grad():
        torch.testing.assert_close(calibrated.network(states, None, zeros), noisy.network(states, None, zeros))


def test_the_provenance_survives_a_file(calibrated, tmp_path):
    calibrated.save(tmp_path / "calibrated.safetensors")
    loaded = sc.Forecaster.load(tmp_path / "calibrated.safetensors", device="cpu")
    assert loaded.provenance["noise_factor"] == calibrated.provenance["noise_factor"]
    assert loaded.digest == calibrated.digest


def test_a_second_calibration_records_the_factor_of_both(calibrated, valid):
    again = sc.calibrate_noise(calibrated, valid, **PERIOD)  # the noise is right: another factor of one
    assert again.digest == calibrated.digest
    assert again.provenance["noise_factor"] == calibrated.provenance["noise_factor"]


def test_noise_that_cannot_be_calibrated_is_an_error(noisy, valid, monkeypatch):
    with pytest.raises(ValueError, match="The noise has no effect: all members are equal. Train with loss='crps'"):
        sc.calibrate_noise(_scale_noise(noisy, 0), valid, **PERIOD)
    monkeypatch.setattr(noise, "_ATTEMPTS", 2)
    # from below and from above, without end
    ratios = itertools.cycle([0.8, 1 / 0.8])
    monkeypatch.setattr(noise, "_mean_ratio", lambda ratios_of_leads: next(ratios))
    with pytest.raises(ValueError, match="After 2 factors of the noise, spread over error is 1.25 and not 1"):
        sc.calibrate_noise(noisy, valid, every="16D", horizon=1, members=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(members=1), "members=1 must be at least 2"),
        (dict(horizon=400), "No forecast of 400 steps ends by 2003-11-30 18:00:00"),
    ],
)
def test_settings_that_cannot_work_are_errors(noisy, valid, options, message):
    with pytest.raises(ValueError, match=message):
        sc.calibrate_noise(noisy, valid, **(PERIOD | options))


def test_forecasters_that_it_cannot_scale_are_errors(noisy, valid):
    with pytest.raises(ValueError, match="this one has none"):
        sc.calibrate_noise(sc.open_pretrained("sample", device="cpu"), valid, **PERIOD)
    custom = run(model=lambda shape: SimVPv2(tiny_model(padding="zeros"), history=2, channels=2))
    with pytest.raises(ValueError, match="scales the noise of a SimVPSphere or SimVPv2, and this network is a SimVPv2"):
        sc.calibrate_noise(custom, valid, **PERIOD)
    with pytest.raises(ValueError, match=r"The noise needs a factor from 0.25 to 4, not \d+"):
        sc.calibrate_noise(_scale_noise(noisy, 0.02), valid, **PERIOD)
