"""Probability forecasts of events, and the energy score of fields."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import noisy_forecast, weather
from scipy.stats import chi2, mannwhitneyu

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.categorical.probabilities import brier_decomposition, reliability, roc, roc_area
from simvp_climate.metrics.categorical.thresholds import brier
from simvp_climate.metrics.definitions import METRICS
from simvp_climate.metrics.ensemble import crps, energy_score, rank_histogram, spread_skill_ratio
from simvp_climate.metrics.score import score
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap

CELLS = {"latitude": [-45.0, 45.0], "longitude": np.arange(4) * 90.0}  # all of the same area


def cases(members, outcomes):
    """Return an ensemble (init, number) and its truth (init), constant on a grid, verified after a day."""
    members, outcomes = np.asarray(members, float), np.asarray(outcomes, float)
    times = pd.date_range("2001-01-01", periods=len(outcomes) + 1, freq="1D")
    fields = np.broadcast_to(members[:, None, :, None, None], (len(members), 1, members.shape[1], 2, 4))
    dims = ("init_time", "lead_time", "number", "latitude", "longitude")
    leads = np.array([1], "m8[D]").astype("m8[ns]")
    forecast = xr.Dataset(
        {"t2m": (dims, fields, {"units": "K"})}, {"init_time": times[:-1], "lead_time": leads} | CELLS
    )
    states = np.broadcast_to(np.concatenate([[0.0], outcomes])[:, None, None], (len(times), 2, 4))
    truth = xr.Dataset({"t2m": (("time", "latitude", "longitude"), states, {"units": "K"})}, {"time": times} | CELLS)
    return forecast, truth


def reliable(days=400, members=9, seed=1):
    """Return an ensemble and a truth that are draws of the same kind around a center that changes with the cell."""
    random = np.random.default_rng(seed)
    shape = (days, 1, 1, 2, 4)
    center = random.normal(size=shape)
    forecast, truth = cases(np.zeros((days, members)), np.zeros(days))
    draws = center + random.normal(size=(days, 1, members, 2, 4))
    states = np.concatenate([np.zeros((1, 2, 4)), (center + random.normal(size=shape))[:, 0, 0]])
    return forecast.assign(t2m=forecast.t2m.copy(data=draws)), truth.assign(t2m=truth.t2m.copy(data=states))


# the event is a value above 0: probabilities 1, 1/2, 1/2, 0 and outcomes 1, 1, 0, 0
BY_HAND = cases([[1, 2], [1, -1], [-1, 1], [-1, -2]], [1, 1, -1, -1])


class TestReliability:
    def test_by_hand(self):
        result = reliability(*BY_HAND, 0.0)
        assert result.t2m.dims == ("quantity", "probability", "lead_time")
        np.testing.assert_allclose(result.probability, [0, 0.5, 1])
        np.testing.assert_allclose(result.t2m.sel(quantity="forecast_probability")[:, 0], [0, 0.5, 1])
        np.testing.assert_allclose(result.t2m.sel(quantity="observed_frequency")[:, 0], [0, 0.5, 1])
        np.testing.assert_allclose(result.t2m.sel(quantity="share")[:, 0], [0.25, 0.5, 0.25])
        assert result.t2m.attrs == {"units": "1", "threshold": 0.0, "threshold_units": "K"}
        assert result.attrs["intervals"].startswith("none: 4 initializations")

    def test_bins_of_equal_width_and_empty_ones(self):
        result = reliability(*BY_HAND, 0.0, bins=4).t2m.isel(lead_time=0)
        np.testing.assert_allclose(result.probability, [0.125, 0.375, 0.625, 0.875])
        np.testing.assert_allclose(result.sel(quantity="share"), [0.25, 0, 0.5, 0.25])
        np.testing.assert_allclose(result.sel(quantity="forecast_probability"), [0, np.nan, 0.5, 1])

    def test_the_bin_of_every_number_of_members_is_right(self):
        for size in (3, 7, 49):
            members = np.where(np.arange(size) < np.arange(size + 1)[:, None], 1, -1)
            result = reliability(*cases(members, np.ones(size + 1)), 0.0, bootstrap=None).t2m
            np.testing.assert_allclose(result.sel(quantity="share")[:, 0], 1 / (size + 1), rtol=1e-12)

    def test_an_ensemble_like_the_truth_is_on_the_diagonal_and_its_histogram_is_flat(self):
        forecast, truth = reliable()
        # With few members the fraction k / M is not the probability of the event, even if the truth is one of them.
        result = reliability(*reliable(members=99), 0.5, bins=10).t2m.isel(lead_time=0)
        difference = result.sel(quantity="observed_frequency") - result.sel(quantity="forecast_probability")
        cases_of_bin = 3200 * result.sel(quantity="share")
        probability = result.sel(quantity="forecast_probability")
        error = np.sqrt(probability * (1 - probability) / cases_of_bin)
        assert (abs(difference) < 3 * error + 0.01).all()
        low, high = (result[f"t2m_{end}"].sel(quantity="observed_frequency") for end in ("low", "high"))
        assert ((low < high) & (low < probability + 0.06) & (high > probability - 0.06)).all()
        # Pearson's test of a flat histogram, at the 1 % level, with independent cells
        ranks = rank_histogram(forecast, truth).t2m.isel(lead_time=0)
        assert 3200 * 10 * ((ranks - 0.1) ** 2).sum() < chi2.ppf(0.99, 9)
        assert ((ranks.t2m_low < 0.1) & (ranks.t2m_high > 0.1)).sum() >= 8
        np.testing.assert_allclose(spread_skill_ratio(forecast, truth).t2m, 1, atol=0.03)

    def test_regions_intervals_and_missing_values(self):
        truth = weather(days=20)
        forecast = xr.concat([noisy_forecast(truth, seed=seed) for seed in range(3)], pd.Index(range(3), name="number"))
        regions = {"north": (0, 90, 0, 360), "south": (-90, 0, 0, 360)}
        result = reliability(forecast, truth, 280.0, regions=regions).t2m
        assert result.dims == ("quantity", "probability", "lead_time", "region")
        north = reliability(forecast.isel(latitude=[2, 3]), truth.isel(latitude=[2, 3]), 280.0).t2m
        np.testing.assert_allclose(result.sel(region="north"), north, rtol=1e-12)
        np.testing.assert_allclose(result.sel(region="north").t2m_low, north.t2m_low, rtol=1e-12)
        gap = truth.t2m.isel(time=6, latitude=0, longitude=3)
        holed = truth.where(truth.t2m != gap)
        assert reliability(forecast, holed, 280.0, bootstrap=None).t2m.sel(quantity="share").isnull().any()
        assert brier_decomposition(forecast, holed, 280.0, bootstrap=None).t2m.isnull().any()
        skipped = reliability(forecast, holed, 280.0, skipna=True, bootstrap=None).t2m
        np.testing.assert_allclose(skipped.sel(quantity="share").sum("probability"), 1, rtol=1e-12)

    def test_errors(self):
        with pytest.raises(ValueError, match="bins=0 must be a positive integer"):
            reliability(*BY_HAND, 0.0, bins=0)
        with pytest.raises(ValueError, match="threshold of t2m is nan"):
            reliability(*BY_HAND, np.nan)


class TestBrierDecomposition:
    def test_by_hand(self):
        # as forecast: reliability 0; resolution 1/4 (0 - 1/2)^2 + 1/4 (1 - 1/2)^2; uncertainty 1/2 1/2
        result = brier_decomposition(*BY_HAND, 0.0).t2m
        assert list(result.component.values) == ["reliability", "resolution", "uncertainty"]
        np.testing.assert_allclose(result[:, 0], [0, 0.125, 0.25])

    def test_the_parts_make_the_brier_score(self):
        truth = weather(days=30)
        forecast = xr.concat([noisy_forecast(truth, 1 + k, 3.0) for k in range(7)], pd.Index(range(7), name="number"))
        parts = brier_decomposition(forecast, truth, 281.0).t2m
        total = parts.sel(component="reliability") - parts.sel(component="resolution")
        total = total + parts.sel(component="uncertainty")
        np.testing.assert_allclose(total, brier(forecast, truth, 281.0).t2m, rtol=1e-12)
        assert (parts.t2m_low <= parts).all() and (parts <= parts.t2m_high).all()


class TestRoc:
    def test_by_hand(self):
        curve = roc(*BY_HAND, 0.0).t2m
        assert curve.dims == ("rate", "probability", "lead_time")
        # events have the probabilities 1 and 1/2, non-events 1/2 and 0
        np.testing.assert_allclose(curve.sel(rate="hit_rate")[:, 0], [1, 1, 0.5])
        np.testing.assert_allclose(curve.sel(rate="false_alarm_rate")[:, 0], [1, 0.5, 0])
        # three of four pairs of an event and a non-event in the right order, and one is a tie
        np.testing.assert_allclose(roc_area(*BY_HAND, 0.0).t2m, 0.875)

    def test_the_area_agrees_with_the_test_of_mann_and_whitney(self):
        forecast, truth = reliable(days=60)
        probability = (forecast.t2m > 0.5).mean("number").values.ravel()
        event = truth.t2m.values[1:].ravel() > 0.5
        expected = mannwhitneyu(probability[event], probability[~event]).statistic / event.sum() / (~event).sum()
        area = roc_area(forecast, truth, 0.5).t2m
        np.testing.assert_allclose(area, expected, rtol=1e-12)
        assert area.t2m_low < expected < area.t2m_high

    def test_chance_perfection_and_no_event(self):
        random = np.random.default_rng(0)
        unrelated = cases(random.normal(size=(400, 3)), random.normal(size=400))
        np.testing.assert_allclose(roc_area(*unrelated, 0.0, bootstrap=None).t2m, 0.5, atol=0.07)
        outcomes = random.normal(size=50)
        assert roc_area(*cases(np.stack([outcomes] * 3, axis=1), outcomes), 0.0).t2m == 1
        assert np.isnan(roc_area(*BY_HAND, 9.0).t2m)


class TestEnergyScore:
    def test_constant_fields_have_the_crps(self):
        forecast, truth = cases([[1, 4, 6], [0, 2, -1]], [3, 3])
        np.testing.assert_allclose(energy_score(forecast, truth).t2m, crps(forecast, truth).t2m)
        # the first: distances 2, 1, 3 from the truth, and 3, 5, 2 between members
        np.testing.assert_allclose(energy_score(forecast.isel(init_time=[0]), truth).t2m, 2 - 10 / 6)

    @pytest.mark.parametrize("skipna", [False, True])
    def test_by_the_definition_with_masks_and_regions(self, skipna):
        truth = weather(days=10)
        truth["t2m"] = truth.t2m.where((truth.latitude > -60) | (truth.longitude > 100))
        if skipna:
            truth["t2m"][5, 2, 3] = np.nan
        single = [noisy_forecast(weather(days=10), seed, 2.0) for seed in range(4)]
        forecast = xr.concat(single, pd.Index(range(4), name="number"))
        right = truth.t2m.sel(time=forecast.valid_time).drop_vars("time")
        weight = latitude_weights(truth) * right.notnull()

        def length(field):
            return np.sqrt((field**2 * weight).sum(("latitude", "longitude")) / weight.sum(("latitude", "longitude")))

        distance = length(forecast.t2m - right).mean("number")
        between = length(forecast.t2m - forecast.t2m.rename(number="other")).sum(("number", "other"))
        expected = (distance - between / (2 * 4 * 3)).mean("init_time")
        masked = forecast if skipna else forecast.where(truth.t2m.isel(time=0, drop=True).notnull())
        result = energy_score(masked, truth, skipna=skipna).t2m
        np.testing.assert_allclose(result, expected, rtol=1e-12)
        scores = score(masked, truth, metrics=["energy_score", "energy_score_skill"], skipna=skipna, bootstrap=None,
                       regions={"all": (-90, 90, 0, 360), "north": (0, 90, 0, 360)}).t2m  # fmt: skip
        of_all = scores.sel(system="forecast", region="all")
        np.testing.assert_allclose(of_all.sel(metric="energy_score"), expected, rtol=1e-12)
        assert (of_all.sel(metric="energy_score_skill_vs_persistence") < 1).all()
        north = {"latitude": [2, 3]}
        alone = energy_score(masked.isel(north), truth.isel(north), skipna=skipna).t2m
        np.testing.assert_allclose(scores.sel(system="forecast", region="north", metric="energy_score"), alone)

    def test_a_single_forecast_levels_and_missing_values(self):
        forecast, truth = reliable(days=20, members=3)
        level = pd.Index([500.0, 850.0], name="level")
        both = (xr.concat([dataset, 2 * dataset], level).assign_coords(level=("level", level, {"units": "hPa"}))
                for dataset in (forecast, truth))  # fmt: skip
        result = energy_score(*both).t2m
        np.testing.assert_allclose(result.sel(level=850), 2 * result.sel(level=500))
        scores = score(forecast, truth, metrics=["energy_score"], bootstrap=Bootstrap(samples=20)).t2m
        error = (truth.t2m[:-1].values - truth.t2m[1:].values) ** 2
        persistence = scores.sel(system="persistence", metric="energy_score")
        np.testing.assert_allclose(persistence, np.sqrt(error.mean(axis=(1, 2))).mean())
        assert not METRICS["energy_score"].default and METRICS["energy_score"].smaller_is_better
        truth["t2m"][3, 0, 0] = np.nan
        assert np.isnan(energy_score(forecast, truth).t2m)

    def test_it_sees_wrong_relations_between_cells(self):
        # the truth is the same in all cells; members of the second ensemble are not, and have the same CRPS
        random = np.random.default_rng(0)
        together = cases(random.normal(size=(300, 5)), random.normal(size=300))
        alone = together[0].copy()
        alone["t2m"] = alone.t2m.copy(data=random.normal(size=alone.t2m.shape))
        np.testing.assert_allclose(crps(alone, together[1]).t2m, crps(*together).t2m, atol=0.05)
        assert energy_score(alone, together[1]).t2m > energy_score(*together).t2m + 0.05
