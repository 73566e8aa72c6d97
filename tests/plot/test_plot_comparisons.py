"""Two forecasts side by side, and scores by initialization."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
from plot_factories import GLOBE, analysis, noisy, own_axes, perfect_forecast, scores_with_intervals, with_noise
from plot_layout import check_layout

from simvp_climate import plot
from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.deterministic import acc, rmse
from simvp_climate.metrics.init_scores import score_by_init
from simvp_climate.metrics.score import score
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap


def two_forecasts():
    """Return scores of a forecast that is better than another at the first lead, and just as good at the second."""
    truth = noisy(steps=60)
    better, worse = perfect_forecast(truth, inits=50, leads=2), perfect_forecast(truth, inits=50, leads=2)
    random = np.random.default_rng(2)
    shape = better.t2m.shape
    for dataset, sizes in ((better, (1.0, 2.0)), (worse, (2.0, 2.0))):
        errors = random.normal(size=shape) * np.array(sizes)[:, None, None]
        dataset["t2m"] = (dataset.t2m + errors).assign_attrs(dataset.t2m.attrs)
    metrics = ["rmse", "rmse_difference"]
    options = dict(metrics=metrics, persistence=False, bootstrap=Bootstrap(block=3))
    return score(better.assign_attrs(system="new"), truth, baselines={"old model": worse}, **options)


class TestCompare:
    def test_difference_with_its_interval(self):
        scores = two_forecasts()
        figure = plot.compare(scores, "old model")
        left, right = figure.axes
        new, old = (scores.t2m.sel(system=name, metric="rmse") for name in ("new", "old model"))
        np.testing.assert_allclose(left.lines[0].get_ydata(), new)
        np.testing.assert_allclose(left.lines[1].get_ydata(), old)
        np.testing.assert_allclose(right.lines[0].get_ydata(), new - old)
        np.testing.assert_allclose(new - old, [-1, 0], atol=0.02)
        # the first lead is significant, the second is not
        filled, empty = (line for line in right.lines if line.get_linestyle() == "None")
        assert filled.get_xdata().tolist() == [6] and empty.get_xdata().tolist() == [12]
        low = scores.t2m_low.sel(system="new", metric="rmse_difference_vs_old_model")
        assert right.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(float(low.min()))
        assert right.get_title() == "new less old model" and right.get_ylabel() == "Difference [K]"
        check_layout(figure)
        check_layout(plot.compare(scores.assign_coords(system=["SimVPSphere", "old model"]), "old model", width=3.5))

    def test_missing_differences_and_systems_are_refused(self):
        with pytest.raises(ValueError, match=r"no \['rmse_difference_vs_persistence'\]: sc.score"):
            plot.compare(scores_with_intervals(), "persistence")
        scores = two_forecasts()
        with pytest.raises(ValueError, match="baseline='x' is not in scores"):
            plot.compare(scores, "x")
        with pytest.raises(ValueError, match="both 'old model'"):
            plot.compare(scores, "old model", system="old model")
        with pytest.raises(ValueError, match="1 axes.* 2 panels"):
            plot.compare(scores, "old model", ax=own_axes()[1])


class TestScoresByInit:
    def test_values_are_those_of_single_initializations(self):
        truth = noisy(steps=12)
        forecast = with_noise(perfect_forecast(truth)).assign_attrs(system="new")
        by_init = score_by_init(forecast, truth, metrics=["rmse", "bias"])
        assert by_init.t2m.dims == ("system", "metric", "init_time", "lead_time")
        assert by_init.system.values.tolist() == ["new", "persistence"] and by_init.t2m.attrs["units"] == "K"
        for index in range(4):
            expected = rmse(forecast.isel(init_time=[index]), truth).t2m
            np.testing.assert_allclose(by_init.t2m.sel(system="new", metric="rmse")[index], expected)
        # an analysis that is missing
        shorter = score_by_init(forecast, truth.isel(time=slice(None, 6)), persistence=False).t2m
        assert np.isnan(shorter.values[0, 0]).sum(axis=1).tolist() == [0, 0, 0, 1]

    def test_anomaly_correlation_and_regions(self):
        times = pd.date_range("2001", periods=800, freq="1D", unit="ns")
        truth = noisy(steps=800).assign_coords(time=times)
        fit, test = truth.isel(time=slice(None, 780)), truth.isel(time=slice(780, None))
        lead = np.timedelta64(1, "D").astype("m8[ns]")
        forecast = test.isel(time=slice(None, 5)).rename(time="init_time").expand_dims(lead_time=[lead], axis=1)
        normal = climatology(fit)
        result = score_by_init(forecast, test, normal, metrics=["acc"], regions=["tropics"]).t2m
        assert result.dims == ("system", "metric", "init_time", "lead_time", "region")
        assert np.isnan(result.sel(system="climatology")).all()
        world = score_by_init(forecast, test, normal, metrics=["acc"]).t2m.sel(system="forecast", metric="acc")
        np.testing.assert_allclose(world[2], acc(forecast.isel(init_time=[2]), test, normal).t2m)

    def test_unknown_metrics_are_refused(self):
        truth = noisy()
        for metrics in (["x"], "rmse", []):
            with pytest.raises(ValueError, match="must be a list of names"):
                score_by_init(perfect_forecast(truth), truth, metrics=metrics)
        with pytest.raises(ValueError, match="acc needs a climatology"):
            score_by_init(perfect_forecast(truth), truth, metrics=["acc"])

    def test_the_worst_have_rings(self):
        truth = noisy(steps=40)
        forecast = perfect_forecast(truth, inits=30)
        sizes = np.ones(30)
        sizes[[4, 11, 25]] = 5, 6, 7
        errors = sizes[:, None, None, None] * np.random.default_rng(0).normal(size=forecast.t2m.shape)
        forecast["t2m"] = (forecast.t2m + errors).assign_attrs(forecast.t2m.attrs)
        scores = score_by_init(forecast, truth)
        figure = plot.scores_by_init(scores, lead="12h")
        (panel,) = figure.axes
        np.testing.assert_allclose(panel.lines[0].get_ydata(), scores.t2m.sel(system="forecast", metric="rmse")[:, 1])
        rings = next(line for line in panel.lines if line.get_markersize() == 9)
        days = panel.lines[0].get_xdata()
        assert sorted(rings.get_xdata()) == list(days[[4, 11, 25]])
        assert panel.get_title() == "2 metre temperature, +12 h" and panel.get_ylabel() == "RMSE [K]"
        for width in (3.5, 16):
            check_layout(plot.scores_by_init(scores, width=width))
        with pytest.raises(ValueError, match="2 leads, but one"):
            plot.scores_by_init(scores, lead=["6h", "12h"])
        with pytest.raises(ValueError, match="no 'init_time': pass sc.metrics.score_by_init"):
            plot.scores_by_init(scores_with_intervals())


def test_other_calendars_have_dates():
    truth = analysis(*GLOBE, steps=8)
    scores = score_by_init(perfect_forecast(truth), truth, persistence=False)
    scores = scores.convert_calendar("noleap", dim="init_time")
    figure = plot.scores_by_init(scores)
    assert figure.axes[0].get_xticklabels()[0].get_text().startswith("2018-01-01")
    check_layout(figure)
