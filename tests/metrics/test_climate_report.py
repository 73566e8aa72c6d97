"""Climate reports of made-up runs whose bias, trend, cycle and noise are known."""

import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import simvp_climate as sc
from simvp_climate.metrics.climate import statistics, sums
from simvp_climate.metrics.climate.report import select
from simvp_climate.metrics.climate.statistics import trend
from simvp_climate.metrics.skill_maps import discoveries
from simvp_climate.metrics.spectral import variance_by_wavenumber

LATITUDE, LONGITUDE = np.arange(-82.5, 90, 15), np.arange(0, 360, 22.5)


def climate(years=4, start="2001", seed=0, *, cycle=10.0, noise=1.0, bias=0.0, per_decade=0.0, shift=0.0, name="t2m"):
    """Return daily means with bounds: an annual cycle of opposite phase in the hemispheres, a trend and white noise."""
    begin = pd.date_range(start, periods=int(365.25 * years) + 1, freq="1D", unit="ns")
    begin = begin[begin.year < int(start[:4]) + years]
    middle = begin + pd.Timedelta("12h")
    fraction = (middle.day_of_year.values - 0.5 - shift) / np.where(middle.is_leap_year, 366, 365)
    sine = np.sin(np.deg2rad(LATITUDE))[:, None]
    values = 290 - 40 * sine**2 + cycle * sine * np.cos(2 * np.pi * (fraction - 0.55))[:, None, None]
    elapsed = np.asarray((middle - middle[0]) / pd.Timedelta("3652.5D"))
    values = values + bias + per_decade * elapsed[:, None, None]
    values = values + noise * np.random.default_rng(seed).normal(size=(len(begin), len(LATITUDE), len(LONGITUDE)))
    attrs = {"units": "K", "cell_methods": "time: mean"}
    bounds = np.stack([begin, begin + pd.Timedelta("1D")], axis=-1)
    coords = {"time": begin, "latitude": LATITUDE, "longitude": LONGITUDE, "time_bnds": (("time", "bnds"), bounds)}
    result = xr.Dataset({name: (("time", "latitude", "longitude"), values, attrs)}, coords, {"system": "made up"})
    result["time"].attrs["bounds"] = "time_bnds"
    return result


def report(run, truth, **options):
    return sc.metrics.climate_report(run, truth, **{"eofs": False, **options})


def months(daily):
    return sc.metrics.time_mean(daily.drop_vars("time_bnds", errors="ignore"), "1MS")


@pytest.fixture(scope="module")
def truth():
    return climate()


@pytest.fixture(scope="module")
def known(truth):
    """The report of ten other years, 1 K too warm, warming by .5 K a decade, with 1.1 times the cycle, 5 days late."""
    run = climate(10, "2011", 1, cycle=11, noise=1.2, bias=0.75, per_decade=0.5, shift=5)
    return report(run, truth)


def test_the_bias_is_that_of_the_time_mean(known):
    # the mean of the trend over ten years is .25 K
    np.testing.assert_allclose(known.t2m_bias, 1, atol=0.15)
    np.testing.assert_allclose(known.t2m_zonal_mean - known.t2m_zonal_mean_truth, 1, atol=0.05)
    assert known.t2m_bias.attrs["units"] == "K" and known.t2m_bias_significant.mean() > 0.95
    np.testing.assert_allclose(known.t2m_rmse, 1, atol=0.02)
    quantiles = known.t2m_quantiles - known.t2m_quantiles_truth
    np.testing.assert_allclose(quantiles.sel(quantile=0.5), 1, atol=0.1)


def test_the_trend_is_that_of_the_global_mean(known):
    assert abs(known.t2m_trend - 0.5) < 0.03 and known.t2m_trend_low < 0.5 < known.t2m_trend_high
    assert known.t2m_trend.attrs["units"] == "K (10 years)-1"
    assert known.t2m_trend_truth_low < 0 < known.t2m_trend_truth_high
    assert known.t2m_global_mean.year.values.tolist() == list(range(2011, 2021))
    assert known.t2m_global_mean_truth.truth_year.values.tolist() == [2001, 2002, 2003, 2004]


def test_the_annual_cycle_is_larger_and_later(known):
    np.testing.assert_allclose(known.t2m_amplitude_ratio, 1.1, atol=0.02)
    np.testing.assert_allclose(known.t2m_shift, 5, atol=1)
    # sin(75) 10 K in the band around 75 N (area-weighted, roughly), at .55 of the year
    assert abs(known.t2m_peak_day_truth.sel(band=75) - 0.55 * 365.2425) < 0.5
    weights = sc.metrics.latitude_weights(known.latitude).where(known.latitude > 60, 0)
    expected = float(np.sin(np.deg2rad(known.latitude)).weighted(weights).mean()) * 10
    np.testing.assert_allclose(known.t2m_amplitude_truth.sel(band=75), expected, rtol=0.01)
    assert (known.t2m_amplitude_ratio_truth_min < 1).all() and (known.t2m_amplitude_ratio_truth_max > 1).all()


def test_variances_and_spectra_are_those_of_the_noise(known):
    np.testing.assert_allclose(known.t2m_variance_truth, 1, rtol=0.03)
    np.testing.assert_allclose(known.t2m_variance_ratio, 1.44, rtol=0.03)
    assert (known.t2m_variance_ratio_truth_min < 1).all() and (known.t2m_variance_ratio_truth_max > 1).all()
    np.testing.assert_allclose(known.t2m_spectrum_ratio, 1.44, rtol=0.05)
    # all waves together are the variance along longitude
    np.testing.assert_allclose(known.t2m_spectrum_truth.sum(), 15 / 16, rtol=0.01)
    assert known.t2m_spectrum_truth.attrs["units"] == "(K)2"


def test_the_range_of_true_years_is_around_the_truth_whatever_the_length_of_the_run(truth):
    for years in (1, 2, 5):
        result = report(climate(years, "2011", 2), truth)
        for name in ("variance", "amplitude", "quantiles", "zonal_mean"):
            low, value, high = (result[f"t2m_{name}_truth{end}"] for end in ("_min", "", "_max"))
            assert ((low < value) & (value < high)).mean() > 0.95, name


def test_spectra_are_those_of_variance_by_wavenumber(truth):
    year = truth.sel(time="2001").drop_vars("time_bnds")
    run = (year * 1.5).assign(t2m=(year.t2m * 1.5).assign_attrs(year.t2m.attrs))
    forecast = run.t2m.rename(time="init_time").expand_dims(lead_time=np.array([0], "m8[ns]"), axis=1).to_dataset()
    ratio = variance_by_wavenumber(forecast.assign_coords(valid_time=forecast.init_time + forecast.lead_time), year)
    np.testing.assert_allclose(report(run, year).t2m_spectrum_truth, ratio.t2m_truth[:, 0])


def test_the_same_climate_passes(truth):
    run = climate(12, "2011", 2)
    result = report(run, truth)
    assert result.t2m_bias_significant.mean() < 0.05
    assert 0.8 < result.t2m_rmse_ratio < 1.2 and result.t2m_rmse_ratio_min < result.t2m_rmse_ratio_max
    np.testing.assert_allclose(result.t2m_interannual_variance_ratio, 1, atol=0.6)
    # a year of white noise has a variance of 1 / 365
    np.testing.assert_allclose(result.t2m_noise, np.sqrt(2 / 4 / 365), rtol=0.15)


def test_false_discoveries_are_few_under_the_null():
    # with the rate .1 a tenth of the fields without a difference have a significant cell
    random = np.random.default_rng(0)
    grid = sums.Grid(np.ones((1, 8, 8)), np.zeros(1), np.ones(1), False, None)
    fields = 0
    for _ in range(200):
        run, true = (_of_years(random.normal(size=(years, 1, 1, 8, 8))) for years in (20, 4))
        p = statistics.bias_test(run, true, grid)[0]
        fields += discoveries(p, 0.1).any()
    assert 8 <= fields <= 32


def _of_years(values):
    """Return sums whose annual means are some values, (year, member, level, latitude, longitude)."""
    empty = dict.fromkeys(("gram", "moment", "square", "power", "histogram", "highest", "wet"), np.zeros(len(values)))
    total = np.repeat(values[:, None], 12, axis=1)
    return sums.Sums(days=np.ones((len(values), 12)), total=total, count=np.full(len(values), 12), **empty)


def test_noise_is_the_difference_between_disjoint_sets_of_true_years():
    from itertools import combinations

    years = np.random.default_rng(0).normal(size=(5, 1, 1, 2, 3))
    grid = sums.Grid(np.ones((1, 2, 3)), np.zeros(1), np.ones(1), False, None)
    squares = []
    for first in combinations(range(5), 2):
        for second in combinations(sorted({*range(5)} - {*first}), 2):
            squares.append((years[list(first)].mean(0) - years[list(second)].mean(0)) ** 2)
    # sets of 2 years each, scaled to 3 years beside all 5
    expected = np.sqrt(np.mean(squares) * 2 / 2 * (1 / 3 + 1 / 5))
    np.testing.assert_allclose(statistics.interannual_noise(_of_years(years), grid, 3), expected)


def test_the_interval_of_a_trend_is_that_of_least_squares():
    from scipy.stats import linregress, t

    years, values = np.arange(2000, 2020), np.random.default_rng(3).normal(size=20)
    fit = linregress(years, values)
    residual = values - fit.intercept - fit.slope * years
    r = max((residual[1:] * residual[:-1]).sum() / (residual**2).sum(), 0)
    freedom = 20 * (1 - r) / (1 + r) - 2
    half = t.ppf(0.975, freedom) * fit.stderr * np.sqrt(18 / freedom)
    np.testing.assert_allclose(trend(years, values), 10 * (fit.slope + np.array([0, -half, half])))
    assert np.isnan(trend(years[:2], values[:2])).all()


def test_members_are_reported_one_by_one_and_together(truth):
    warm, cold = climate(4, "2011", 3, bias=1.0), climate(4, "2011", 4, bias=-0.5)
    run = xr.concat([warm, cold], pd.Index([3, 7], name="number"))
    result = report(run.assign_coords(time_bnds=warm.time_bnds).transpose("time", "number", ...), truth)
    assert result.member.values.tolist() == ["all", "3", "7"]
    weights = sc.metrics.latitude_weights(result.latitude)
    means = result.t2m_bias.weighted(weights).mean(["latitude", "longitude"])
    np.testing.assert_allclose(means, [0.25, 1, -0.5], atol=0.02)
    single = report(warm, truth)
    for name in single.data_vars:
        expected = result[name].sel(member="3") if "member" in result[name].dims else result[name]
        xr.testing.assert_allclose(single[name], expected.drop_vars("member", errors="ignore"))
    table = sc.metrics.climate_table(result)
    np.testing.assert_allclose(table.loc["t2m", "bias"], 0.25, atol=0.02)


def test_states_of_the_truth_are_averaged_to_the_periods_of_the_run():
    """Days end at 00 UTC, so a state at 00 UTC belongs to the day before, as in `time_mean`."""
    times = pd.date_range("2001-01-01T06", "2003-01-01", freq="6h", unit="ns")
    random = np.random.default_rng(0)
    values = 280 + random.normal(size=(len(times), 12, 16))
    truth = xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
                       {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE})  # fmt: skip
    days = values.reshape(730, 4, 12, 16)
    run = climate(2)
    for name, reduced in (("t2m", days.mean(1)), ("t2m_min", days.min(1)), ("t2m_max", days.max(1))):
        method = {"t2m": "mean", "t2m_min": "minimum", "t2m_max": "maximum"}[name]
        attrs = {"units": "K", "cell_methods": f"time: {method}"}
        run[name] = (("time", "latitude", "longitude"), reduced, attrs)
    result = report(run, truth)
    for name in ("t2m", "t2m_min", "t2m_max"):
        np.testing.assert_allclose(result[f"{name}_bias"], 0, atol=1e-10)
        np.testing.assert_allclose(result[f"{name}_variance_ratio"], 1)
    monthly = months(run[["t2m"]])
    np.testing.assert_allclose(report(monthly, truth).t2m_bias, 0, atol=1e-10)
    assert "return_levels" not in str(list(report(monthly, truth)))
    states = report(truth, truth)
    np.testing.assert_allclose(states.t2m_zonal_mean, result.t2m_zonal_mean)


def test_months_with_cftime_of_another_calendar(truth):
    run = climate(5, "2011", 5, bias=1.0).drop_vars("time_bnds").convert_calendar("noleap")
    monthly = sc.metrics.time_mean(run, "1MS")
    assert monthly.indexes["time"].calendar == "noleap"
    result = report(monthly, truth)
    weights = sc.metrics.latitude_weights(result.latitude)
    np.testing.assert_allclose(result.t2m_bias.weighted(weights).mean(), 1, atol=0.05)
    np.testing.assert_allclose(result.t2m_amplitude_ratio, 1, atol=0.03)
    np.testing.assert_allclose(result.t2m_shift, 0, atol=2)
    assert result.attrs["run_years"] == 5 and result.attrs["truth_years"] == 4


def test_lazy_data_are_read_in_blocks(truth, monkeypatch):
    monkeypatch.setattr(sums, "_BLOCK_BYTES", 100 * truth.t2m[0].nbytes)
    largest = []

    def count(block):
        largest.append(block.nbytes)
        return block

    run = climate(6, "2011", 6, bias=1.0)
    lazy = run.assign(t2m=run.t2m.chunk(time=50).copy(data=run.chunk(time=50).t2m.data.map_blocks(count, dtype=float)))
    assert isinstance(lazy.t2m.data, dask.array.Array)
    reads = []
    original = sums.read
    monkeypatch.setattr(sums, "read", lambda *arguments: reads.append(original(*arguments)) or reads[-1])
    result = report(lazy, truth)
    assert max(each.nbytes for each in reads) <= 101 * truth.t2m[0].nbytes and len(reads) > 20
    monkeypatch.undo()
    xr.testing.assert_allclose(result, report(run, truth))


def test_masked_cells_and_missing_values(truth):
    run = climate(4, "2011", 7, bias=1.0)
    sea = ~((truth.latitude > 30) & (truth.longitude < 90))
    masked = truth.assign(t2m=truth.t2m.where(sea))
    result = report(run, masked)
    assert (result.t2m_bias.notnull() == sea.transpose("latitude", "longitude")).all()
    np.testing.assert_allclose(result.t2m_rmse, 1, atol=0.02)
    assert np.isfinite(result.t2m_variance_ratio).all() and np.isfinite(result.t2m_spectrum_ratio).all()
    broken = run.copy(deep=True)
    broken.t2m[700, 2, 3] = np.inf
    with pytest.raises(ValueError, match="'t2m' of the run is missing or infinite near 2012-12-01"):
        report(broken, truth)


def test_parts_of_a_year_are_compared_in_the_months_that_both_have(truth):
    winter = truth.sel(time=slice("2001-11-20", "2002-03-10"))
    run = climate(3, "2011", 8, bias=1.0)
    result = report(run, winter)
    np.testing.assert_allclose(result.t2m_bias, 1, atol=0.6)
    weights = sc.metrics.latitude_weights(result.latitude)
    np.testing.assert_allclose(result.t2m_bias.weighted(weights).mean(), 1, atol=0.05)
    assert "in the months 01, 02, 12" in result.notes and "t2m_amplitude" not in result and "t2m_trend" not in result
    assert "no test of the bias" in result.notes and not result.t2m_bias_significant.any()
    with pytest.raises(
        ValueError, match=r"complete calendar months of run \['05', '06'\], of truth \['01', '02', '12'\]"
    ):
        report(run.sel(time=slice("2011-05", "2011-06")), winter)


def test_levels_stand_beside_variables_without(truth):
    both = xr.concat([truth.t2m, truth.t2m - 50], pd.Index([850.0, 500.0], name="level"))
    both = both.transpose("time", "level", ...).assign_attrs(truth.t2m.attrs)
    both["level"].attrs = {"units": "hPa"}
    true = truth.assign(t=both)
    run = true.assign(t=(both + xr.DataArray([1.0, 2.0], dims="level")).transpose(*both.dims).assign_attrs(both.attrs))
    result = report(run, true)
    assert result.t_bias.dims == ("level", "latitude", "longitude")
    np.testing.assert_allclose(result.t_bias.mean(["latitude", "longitude"]), [1, 2])
    assert sc.metrics.climate_table(result).index.tolist() == ["t2m", "t 850", "t 500"]
    assert set(select(result, "t", 500.0).data_vars) == set(select(result, "t2m").data_vars)


def test_rain_has_wet_days_and_return_levels():
    truth, run = (climate(5, start, name="tp24h") for start in ("2001", "2011"))
    share = np.random.default_rng(0).random(truth.tp24h.shape)
    for ds, wet, scale in ((truth, 0.3, 1), (run, 0.6, 2)):
        values = np.where(share[: ds.sizes["time"]] < wet, scale * 0.004, 0.0005)
        ds["tp24h"] = (ds.tp24h.dims, values, {"units": "m", "cell_methods": "time: mean"})
    result = report(run, truth)
    np.testing.assert_allclose(result.tp24h_wet_day_frequency_truth, 0.3, atol=0.01)
    np.testing.assert_allclose(result.tp24h_wet_day_frequency, 0.6, atol=0.01)
    assert result.return_period.values.tolist() == [2, 5]
    np.testing.assert_allclose(result.tp24h_return_levels_truth, 0.004)
    np.testing.assert_allclose(result.tp24h_return_levels, 0.008)


def test_return_levels_are_quantiles_of_annual_maxima(truth):
    result = report(truth, truth)
    highest = truth.t2m.groupby("time.year").max()
    weights = sc.metrics.latitude_weights(truth.latitude)
    expected = highest.median("year").weighted(weights).mean()
    assert result.return_period.values.tolist() == [2]
    np.testing.assert_allclose(result.t2m_return_levels, [expected])
    left_out = [highest.drop_sel(year=year).median("year").weighted(weights).mean() for year in highest["year"].values]
    np.testing.assert_allclose(result.t2m_return_levels_truth_min, [min(left_out)])
    np.testing.assert_allclose(result.t2m_return_levels_truth_max, [max(left_out)])
    # of a longer run, blocks of as many years compare
    longer = climate(9, "2011", 5)
    highest = longer.t2m.groupby("time.year").max().values
    blocks = np.mean([np.median(highest[start : start + 4], axis=0) for start in (0, 4)], axis=0)
    expected = xr.DataArray(blocks, truth.t2m[0].coords).weighted(weights).mean()
    np.testing.assert_allclose(report(longer, truth).t2m_return_levels, [expected])


def test_quantiles_are_those_of_weighted_values(truth):
    result = report(truth, truth)
    values = truth.t2m.weighted(sc.metrics.latitude_weights(truth.latitude)).quantile(result["quantile"].values)
    width = float(truth.t2m.max() - truth.t2m.min()) / 2000
    np.testing.assert_allclose(result.t2m_quantiles_truth, values, atol=2 * width)


def test_eofs_find_the_same_patterns(truth):
    pytest.importorskip("xeofs")
    random = np.random.default_rng(0)
    one, two = (np.cos(k * np.deg2rad(LONGITUDE)) * np.cos(np.deg2rad(LATITUDE))[:, None] for k in (1, 2))

    def with_modes(ds, first, second):
        count = 12 * len(np.unique(ds.time.dt.year))
        amplitudes = random.normal(size=(2, count)) * np.array([[first], [second]])
        when = (ds.time.dt.year.values - ds.time.dt.year.values[0]) * 12 + ds.time.dt.month.values - 1
        extra = sum(a[when][:, None, None] * p for a, p in zip(amplitudes, (one, two), strict=True))
        return months(ds.assign(t2m=(ds.t2m + extra).assign_attrs(ds.t2m.attrs)))

    true, run = with_modes(truth, 3, 1), with_modes(climate(6, "2011", 9), 3, 1)
    result = report(run, true, eofs=True)
    assert (result.t2m_eof_correlation.sel(mode=[1, 2]) > 0.95).all()
    assert (result.t2m_eof_correlation_truth.sel(mode=[1, 2]) > 0.9).all()
    shares = (result[f"t2m_eof_variance_truth{end}"] for end in ("_min", "", "_max"))
    low, _, high = (float(share[0]) for share in shares)
    assert low < high and abs((low + high) / 2 - 0.87) < 0.1
    variances = [9 * (one**2), 1 * (two**2)]
    assert 0.8 < float(result.t2m_eof_variance_truth[0]) < 0.95 and variances[0].sum() > variances[1].sum()


def test_indices_of_the_sea_surface_temperature():
    months_of = pd.date_range("1981-01-01", periods=240, freq="MS", unit="ns")
    random, sst = np.random.default_rng(0), {}
    for role, size in (("truth", 1.0), ("run", 1.5)):
        index = np.zeros(240)
        for k in range(1, 240):
            index[k] = 0.9 * index[k - 1] + random.normal()
        latitude, longitude = np.arange(-87.5, 90, 5), np.arange(0, 360, 10.0)
        values = 290 + size * index[:, None, None] + np.zeros((240, 36, 36))
        coords = {"time": months_of, "latitude": latitude, "longitude": longitude}
        sst[role] = xr.Dataset({"sst": (tuple(coords), values, {"units": "K"})}, coords)
    result = report(sst["run"], sst["truth"])
    assert abs(float(result.sst_nino34_autocorrelation_truth) - 0.9) < 0.1
    assert 1 < float(result.sst_nino34_std_ratio) < 2.2
    same = report(sst["truth"], sst["truth"])
    np.testing.assert_allclose(same.sst_nino34_std_ratio, 1)
    assert same.sst_nino34_std_ratio_truth_min < 0.7 and same.sst_nino34_std_ratio_truth_max > 1.3
    assert same.sst_nino34_autocorrelation_truth_min < same.sst_nino34_autocorrelation_truth
    # a process with memory varies less within five years than in twenty: blocks of five compare
    part = sst["truth"].isel(time=slice(60))
    ratio = report(sst["truth"], part).sst_nino34_std_ratio
    deviation = [float(report(sst["truth"].isel(time=slice(k, k + 60)), part).sst_nino34_std_ratio)
                 for k in (0, 60, 120, 180)]  # fmt: skip
    np.testing.assert_allclose(ratio, np.mean(deviation), rtol=1e-6)
    # years that begin in September have their months in the order of time, too
    later = report(sst["truth"].isel(time=slice(8, None)), sst["truth"])
    assert abs(float(later.sst_nino34_autocorrelation) - float(same.sst_nino34_autocorrelation)) < 0.02


def test_overlapping_means_are_refused(truth):
    running = sc.metrics.time_mean(truth, "5D")
    with pytest.raises(ValueError, match=r"means over 5 days at steps of 1 days.*slice\(None, None, 5\)"):
        report(running, truth)
    selected = running.isel(time=slice(None, None, 5))
    np.testing.assert_allclose(report(selected, truth).t2m_rmse, 0, atol=0.02)


def test_errors_name_the_rule_and_the_fix(truth, known):
    with pytest.raises(ValueError, match=r"the run has \['t2m'\], the truth \['other'\]"):
        report(truth, truth.rename(t2m="other"))
    with pytest.raises(ValueError, match="the dataset has no dimension with times"):
        report(sc.baselines.persistence(truth, truth.time[:9], ["1D"]), truth)
    with pytest.raises(ValueError, match="alpha=0.7 must lie between 0 and 0.5"):
        report(truth, truth, alpha=0.7)
    with pytest.raises(ValueError, match="bands=50 must be a width that divides 180"):
        report(truth, truth, bands=50)
    with pytest.raises(ValueError, match=r"bands=\[0, -10\] must be ascending edges"):
        report(truth, truth, bands=[0, -10])
    with pytest.raises(ValueError, match="'t2m' has steps of 31 days in the truth, 1 in the run"):
        report(truth, months(truth))
    with pytest.raises(ValueError, match="t2m has units 'K', but 'degC' in the truth"):
        report(truth, truth.assign(t2m=truth.t2m.assign_attrs(units="degC")))
    with pytest.raises(ValueError, match=r"Pass the output of sc.metrics.climate_report"):
        sc.metrics.climate_table(truth)
    assert known.attrs["notes"].startswith("the test of the bias has little power with 4 years")
    assert report(truth, truth, bands=[-30, 30]).band.values.tolist() == [0.0]


def test_the_table_has_a_row_for_each_variable(known):
    table = sc.metrics.climate_table(known)
    row = table.loc["t2m"]
    assert row["units"] == "K" and abs(row["bias"] - 1) < 0.02 and abs(row["trend"] - 0.5) < 0.03
    assert row["trend_low"] < row["trend"] < row["trend_high"]
    assert row["amplitude_ratio_min"] <= 1.1 <= row["amplitude_ratio_max"] + 0.02
    assert 1.3 < row["variance_ratio_min"] < row["variance_ratio_max"] < 1.6
    np.testing.assert_allclose(row["rmse_ratio"], known.t2m_rmse_ratio)


def states(days=731):
    """Return 6-hourly white noise from 2001-01-01 06 UTC."""
    times = pd.date_range("2001-01-01T06", periods=4 * days, freq="6h", unit="ns")
    values = 280 + np.random.default_rng(1).normal(size=(len(times), 12, 16))
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset({"t2m": (tuple(coords), values, {"units": "K"})}, coords)


def test_means_over_several_days():
    truth = states()
    run = sc.metrics.time_mean(truth, "5D").isel(time=slice(None, None, 20))
    assert run.sizes["time"] == 146 and run.time_bnds.values[0].astype("M8[h]").astype(str).tolist() == [
        "2001-01-01T00", "2001-01-06T00",
    ]  # fmt: skip
    result = report(run, truth)
    np.testing.assert_allclose(result.t2m_bias, 0, atol=1e-10)
    np.testing.assert_allclose(result.t2m_variance_ratio, 1)
    assert result.attrs["run_years"] == 2 and result.attrs["run_end"] == "2003-01-01T00:00:00"
    long = sc.metrics.time_mean(truth, "15D").isel(time=slice(None, None, 60))
    with pytest.raises(ValueError, match="periods of the run are 15 days 00:00:00, but must be months or at most 10"):
        report(long, truth)


def test_states_of_one_hour_are_compared_with_those_of_that_hour():
    truth = states()
    truth["t2m"] = truth.t2m + (5 * (truth.time.dt.hour == 12)).astype(float)
    truth["t2m"].attrs = {"units": "K"}
    run = truth.isel(time=truth.time.dt.hour == 12)
    run["t2m"].attrs["cell_methods"] = "time: point"
    np.testing.assert_allclose(report(run, truth).t2m_bias, 0, atol=1e-10)
    # as means they would be compared with the means of days
    run["t2m"].attrs["cell_methods"] = "time: mean"
    np.testing.assert_allclose(report(run, truth).t2m_bias.mean(), 3.75, atol=0.05)


def test_days_that_begin_at_noon():
    truth = states()
    days = sc.metrics.time_mean(truth, "1D")
    noon = days.isel(time=days.time.dt.hour == 12)
    result = report(noon, truth)
    # the last noon of the year is in the truth too
    np.testing.assert_allclose(result.t2m_bias, 0, atol=1e-10)
    np.testing.assert_allclose(result.t2m_shift, 0, atol=1e-6)


def test_a_calendar_of_360_days():
    run = climate(3, "2011", 5, bias=1.0).drop_vars("time_bnds").convert_calendar("360_day", align_on="year")
    result = report(sc.metrics.time_mean(run, "1MS"), climate(3))
    np.testing.assert_allclose(result.t2m_amplitude_ratio, 1, atol=0.03)
    np.testing.assert_allclose(result.t2m_shift, 0, atol=3)
    assert result.attrs["run_end"].startswith("2014-01-01")


def test_without_xeofs_a_note_says_what_is_missing(truth, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = report(months(truth), truth, eofs=True)
    assert "no EOFs: xeofs is not installed" in result.notes
    assert not [name for name in result.data_vars if "eof" in str(name)]
