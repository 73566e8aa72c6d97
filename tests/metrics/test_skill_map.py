import numpy as np
import pytest
import xarray as xr
from factories import forecasts_better_in
from scipy import stats

from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.baselines.statistical import fit_damped_persistence
from simvp_climate.metrics.skill_maps import discoveries, skill_map


def test_significant_cells_are_those_with_known_skill():
    half = (slice(None), slice(0, 16))
    forecast, baseline, truth = forecasts_better_in(better=half)
    result = skill_map(forecast, truth, baseline)
    assert result.t2m.dims == ("lead_time", "latitude", "longitude")
    present, elsewhere = result.isel(longitude=slice(0, 16)), result.isel(longitude=slice(16, 32))
    assert float(present.t2m.mean()) == pytest.approx(1 - 0.36, abs=0.02)
    assert float(elsewhere.t2m.mean()) == pytest.approx(0, abs=0.03)
    assert float(present.t2m_significant.mean()) > 0.9
    # of all that is result at most a tenth is false, in expectation
    false = float(elsewhere.t2m_significant.sum())
    assert false / (false + float(present.t2m_significant.sum())) < 0.1


def test_a_baseline_fitted_on_verified_times_is_refused():
    forecast, _, truth = forecasts_better_in()
    fitted = fit_damped_persistence(truth, climatology(truth), ["1D"])
    with pytest.raises(ValueError, match="baseline 'baseline' is from .* verified times lie in it"):
        skill_map(forecast, truth, fitted)
    result = skill_map(forecast, truth, fitted, allow_overlap=True)
    assert result.t2m.notnull().all() and result.attrs["baseline"] == "damped persistence"
    assert result.attrs["verified_start"] == "2001-01-02T00:00:00"
    assert skill_map(forecast, truth).attrs["baseline"] == "persistence"


def test_equal_forecasts_have_no_significant_cell():
    cells = [
        int(skill_map(*(lambda f, b, t: (f, t, b))(*forecasts_better_in(seed=seed))).t2m_significant.sum())
        for seed in range(6)
    ]
    assert sum(cells) <= 3  # without the rule it would be a twentieth, 154 of 3072
    p = skill_map(*(lambda f, b, t: (f, t, b))(*forecasts_better_in(seed=9))).t2m_p
    assert float((p < 0.05).mean()) == pytest.approx(0.05, abs=0.03)


def test_p_values_are_those_of_scipy():
    forecast, baseline, truth = forecasts_better_in(days=60)
    result = skill_map(forecast, truth, baseline, block=5)
    right = truth.t2m.sel(time=forecast.valid_time).values
    difference = (baseline.t2m.values - right) ** 2 - (forecast.t2m.values - right) ** 2
    means = difference[:, 0].reshape(12, 5, 16, 32).mean(axis=1)
    np.testing.assert_allclose(result.t2m_p[0], stats.ttest_1samp(means, 0).pvalue, rtol=1e-10)
    assert result.attrs["blocks"] == "12 blocks of 5 initializations"


def test_the_rule_is_that_of_scipy():
    random = np.random.default_rng(1)
    p = np.concatenate([random.random(500), random.random(50) * 1e-3])
    np.testing.assert_array_equal(discoveries(p, 0.1), stats.false_discovery_control(p) <= 0.1)
    assert not discoveries(np.array([np.nan, 0.9]), 0.1).any()


def test_in_blocks_with_gaps_and_against_persistence(monkeypatch):
    from simvp_climate.metrics import aggregation

    forecast, _, truth = forecasts_better_in(days=60)
    masked = truth.where(truth.latitude > -80)
    whole = skill_map(forecast, masked)
    assert np.isnan(whole.t2m.isel(latitude=0)).all() and not whole.t2m_significant.isel(latitude=0).any()
    assert np.isfinite(whole.t2m.isel(latitude=slice(1, None))).all()
    monkeypatch.setattr(aggregation, "_BLOCK_BYTES", 7 * 16 * 32 * 8)
    xr.testing.assert_allclose(skill_map(forecast, masked), whole, rtol=1e-9)


def test_errors():
    forecast, baseline, truth = forecasts_better_in(days=12)
    with pytest.raises(ValueError, match="12 initializations .*4 .*blocks of 3"):
        skill_map(forecast, truth, baseline)
    for wrong in (2.5, 0, "3"):
        with pytest.raises(ValueError, match=f"block={wrong!r} "):
            skill_map(forecast, truth, baseline, block=wrong)
    with pytest.raises(ValueError, match="false_discovery_rate=5"):
        skill_map(forecast, truth, baseline, false_discovery_rate=5)
    with pytest.raises(ValueError, match=r"take the mean, forecast.mean\('number'\)"):
        skill_map(forecast.expand_dims(number=[0, 1]), truth, baseline)
