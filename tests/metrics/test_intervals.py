import numpy as np
import pytest
import xarray as xr
from factories import forecasts_of_a_year, waves

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics import aggregation
from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.uncertainty.intervals import Intervals, coverage, fit_intervals, interval_score


def test_coverage_is_the_probability_everywhere():
    bands = fit_intervals(*forecasts_of_a_year(0), probability=0.9)
    forecast, truth = forecasts_of_a_year(1, start="2002-01-01")
    covered = coverage(bands(forecast), truth).t2m
    assert covered.dims == ("lead_time",)
    np.testing.assert_allclose(covered, 0.9, atol=0.02)
    masks = {f"{y}": (forecast.latitude == y) & (forecast.longitude >= 0) for y in (-60, -20, 20, 60)}
    by_region = coverage(bands(forecast), truth, regions=masks, by="season").t2m
    assert by_region.dims == ("lead_time", "region", "season") and by_region.sizes["season"] == 4
    assert float(by_region.min()) > 0.85 and float(by_region.max()) < 0.95
    np.testing.assert_allclose(by_region.mean("season"), 0.9, atol=0.02)


def test_coverage_and_score_by_hand_in_blocks_and_lazily(monkeypatch):
    bands = fit_intervals(*forecasts_of_a_year(0, days=60), probability=0.8)
    forecast, truth = forecasts_of_a_year(1, start="2002-01-01", days=50)
    ends = bands(forecast)
    right = truth.t2m.sel(time=forecast.valid_time).drop_vars("time")
    lower, upper = (ends.t2m.sel(bound=end) for end in ("lower", "upper"))
    weight = latitude_weights(truth)
    cells = ((lower <= right) & (right <= upper)).astype(float)
    outside = (lower - right).clip(0) + (right - upper).clip(0)
    over = ["init_time", "latitude", "longitude"]
    expected = cells.weighted(weight).mean(over)
    expected_score = (upper - lower + 2 / 0.2 * outside).weighted(weight).mean(over)
    monkeypatch.setattr(aggregation, "_BLOCK_BYTES", 5 * 4 * 8 * 8)
    lazy = ends.chunk(init_time=7)
    np.testing.assert_allclose(coverage(lazy, truth).t2m, expected, rtol=1e-12)
    np.testing.assert_allclose(interval_score(lazy, truth).t2m, expected_score, rtol=1e-7)
    months = coverage(ends, truth, by="month").t2m
    january = (forecast.valid_time.dt.month == 1).drop_vars(["valid_time"])
    np.testing.assert_allclose(months.sel(month=1), cells.where(january).weighted(weight).mean(over), rtol=1e-12)
    # a lazy Dataset gives the same fit as one in memory
    first, first_truth = forecasts_of_a_year(0, days=60)
    clim = climatology(first_truth)
    again = fit_intervals(first.chunk(init_time=9), first_truth, 0.8, clim)
    xr.testing.assert_allclose(again.half_width, fit_intervals(first, first_truth, 0.8, clim).half_width)


def test_widths_follow_lead_season_and_place():
    half = fit_intervals(*forecasts_of_a_year(0), probability=0.8).half_width.t2m
    assert half.dims == ("month", "lead_time", "latitude", "longitude") and half.attrs["units"] == "K"
    np.testing.assert_allclose((half[:, 1] / half[:, 0]).mean(), 3, rtol=0.1)
    np.testing.assert_allclose((half.sel(latitude=60) / half.sel(latitude=-60)).mean(), 2, rtol=0.1)
    assert float((half.sel(month=1) / half.sel(month=7)).mean()) > 3


def test_score_is_better_than_that_of_constant_width():
    bands = fit_intervals(*forecasts_of_a_year(0), probability=0.9)
    forecast, truth = forecasts_of_a_year(1, start="2002-01-01")
    ours = bands(forecast)
    # a constant width with the same coverage
    error = abs(forecast.t2m - truth.t2m.sel(time=forecast.valid_time).drop_vars("time"))
    width = float(error.quantile(0.9))
    flat = ours.copy()
    flat["t2m"] = (forecast.t2m + xr.DataArray([-width, width], dims="bound")).transpose(*ours.t2m.dims)
    flat["t2m"].attrs = ours.t2m.attrs
    assert interval_score(ours, truth).t2m.mean() < 0.9 * interval_score(flat, truth).t2m.mean()


def test_climatological_intervals_where_the_forecast_has_no_skill():
    forecast, truth = forecasts_of_a_year(0, noise=4.0)  # errors far larger than the variability
    later, later_truth = forecasts_of_a_year(1, start="2002-01-01", noise=4.0)
    clim = climatology(truth)
    plain, drawn = (fit_intervals(forecast, truth, 0.9, c)(later) for c in (None, clim))
    assert drawn.t2m.dims == plain.t2m.dims and drawn.t2m.attrs["units"] == "K"
    # the truth has a standard deviation of 1 K: climatological intervals are 2 * 1.64 K wide
    width = drawn.t2m.sel(bound="upper") - drawn.t2m.sel(bound="lower")
    assert float(width.mean()) == pytest.approx(3.3, abs=0.3)
    assert float((plain.t2m.sel(bound="upper") - plain.t2m.sel(bound="lower")).mean()) > 20
    assert float(coverage(drawn, later_truth).t2m.mean()) == pytest.approx(0.9, abs=0.02)


def test_interval_score_by_hand():
    forecast, truth = forecasts_of_a_year(0, days=30, noise=0.0)
    ends = xr.concat([forecast + 1.0, forecast + 3.0], xr.DataArray(["lower", "upper"], dims="bound", name="bound"))
    ends["t2m"].attrs = {"units": "K", "interval_probability": 0.5}
    # width 2, and the truth 1 below: 2 + 2 / 0.5 * 1
    np.testing.assert_allclose(interval_score(ends, truth).t2m, 6.0)
    assert float(coverage(ends, truth).t2m.max()) == 0


def of_one_width(forecast):
    """Return intervals of half-width 1 around forecasts of January."""
    half = forecast.isel(init_time=0, drop=True).drop_vars("valid_time") * 0 + 1.0
    return Intervals(0.9, half.expand_dims(month=[1]).assign_attrs(months="1"))


def test_missing_values():
    forecast, truth = forecasts_of_a_year(0, days=20, noise=0.0)
    forecast["t2m"] = forecast.t2m + xr.where(forecast.latitude > 0, 0.5, 5.0).values[:, np.newaxis]
    ends = of_one_width(forecast)(forecast)
    np.testing.assert_allclose(coverage(ends, truth).t2m, 0.5)
    np.testing.assert_allclose(interval_score(ends, truth).t2m, 0.5 * 2 + 0.5 * (2 + 20 * 4))
    # half of the south lacks truth: the north, all of it inside, is two thirds of the other cells
    holes = truth.copy(deep=True)
    holes["t2m"][1:41, :2, :4] = np.nan
    holes = holes.isel(time=slice(0, 41))
    for measure, expected in ((coverage, 2 / 3), (interval_score, 2 + 20 * 4 / 3)):
        with pytest.warns(UserWarning, match=r"\['t2m'\] is missing .*skipna"):
            assert measure(ends, holes.isel(time=slice(0, 21))).t2m.isnull().all()
        np.testing.assert_allclose(measure(ends, holes, skipna=True).t2m, expected, rtol=1e-6)
    # cells that never have a value are masked
    masked, sea = truth.where(truth.longitude < 180), forecast.where(forecast.longitude < 180)
    np.testing.assert_allclose(coverage(of_one_width(sea)(sea), masked).t2m, 0.5)


def test_the_period_of_the_fit_is_refused():
    forecast, truth = forecasts_of_a_year(0, days=60)
    later, later_truth = forecasts_of_a_year(1, days=20, start="2002-02-01")
    of_verified_times = climatology(later_truth, method="hourly")
    for clim, owner in ((None, "the period that the intervals were fitted on is from 2001-01-01T06"),
                        (of_verified_times, "the climatology of the intervals is from 2002-02-01T00")):  # fmt: skip
        bands = fit_intervals(forecast, truth, 0.8, clim)
        cases = (forecast, truth) if clim is None else (later, later_truth)
        for measure in (coverage, interval_score):
            with pytest.raises(ValueError, match=owner + ".*verified times lie in it"):
                measure(bands(cases[0]), cases[1])
            assert np.isfinite(measure(bands(cases[0]), cases[1], allow_overlap=True).t2m).all()
    assert float(coverage(fit_intervals(forecast, truth, 0.8)(later), later_truth).t2m.mean()) > 0.5


def test_keeps_the_layout_of_the_forecast():
    bands = fit_intervals(*forecasts_of_a_year(0), probability=0.9)
    forecast, _ = forecasts_of_a_year(1, start="2002-01-01", days=20)
    turned = forecast.isel(latitude=slice(None, None, -1)).rename(latitude="lat", longitude="lon")
    result = bands(turned)
    assert result.t2m.dims == ("bound", "init_time", "lead_time", "lat", "lon")
    assert result.lat.values.tolist() == [60, 20, -20, -60]
    np.testing.assert_allclose(result.t2m.values[:, :, :, ::-1], bands(forecast).t2m.values, rtol=1e-6)
    single = bands(forecast.isel(lead_time=[1]))
    np.testing.assert_array_equal(single.t2m, bands(forecast).t2m.isel(lead_time=[1]))


def test_levels_by_value_beside_a_flat_variable():
    forecast, truth = (on_two_levels(ds) for ds in forecasts_of_a_year(0))
    later, later_truth = (on_two_levels(ds) for ds in forecasts_of_a_year(1, start="2002-01-01", days=100))
    clim = climatology(truth)
    bands = fit_intervals(forecast, truth, 0.9, clim)
    plain = bands(later)
    turned = bands(later.isel(level=[1, 0]))
    np.testing.assert_allclose(turned.t.sel(level=[500.0, 850.0]), plain.t, rtol=1e-6)
    width = (plain.t.sel(bound="upper") - plain.t.sel(bound="lower")).mean(["init_time", "latitude", "longitude"])
    assert (width.sel(level=850.0) > 3 * width.sel(level=500.0)).all()
    covered = coverage(plain, later_truth)
    assert float(covered.t.mean()) == pytest.approx(0.9, abs=0.03)
    assert float(covered.t2m.mean()) == pytest.approx(0.9, abs=0.03)
    single = bands(later[["t"]].isel(level=[1]))
    np.testing.assert_allclose(single.t.isel(level=0), plain.t.sel(level=850.0), rtol=1e-6)
    picked = bands(later.isel(lead_time=1))
    np.testing.assert_allclose(picked.t2m.squeeze("lead_time"), plain.t2m.isel(lead_time=1), rtol=1e-6)


def on_two_levels(ds):
    level = xr.DataArray([500.0, 850.0], dims="level", attrs={"units": "hPa", "standard_name": "air_pressure"})
    small, large = 280 + 0.2 * (ds.t2m - 280), 280 + (ds.t2m - 280)
    levels = xr.concat([small, large], "level", coords="minimal", compat="override").assign_coords(level=level)
    dims = [dim for dim in ds.t2m.dims if dim not in ("latitude", "longitude")]
    return ds.assign(t=levels.transpose(*dims, "level", "latitude", "longitude").assign_attrs(units="K"))


def test_errors():
    forecast, truth = forecasts_of_a_year(0, days=60)
    with pytest.raises(ValueError, match="probability=90"):
        fit_intervals(forecast, truth, probability=90)
    with pytest.raises(ValueError, match="5 verified forecasts, and probability=0.9 .* 9"):
        fit_intervals(forecast.isel(init_time=slice(0, 5)), truth)
    bands = fit_intervals(forecast, truth)
    summer, _ = forecasts_of_a_year(1, start="2001-06-01", days=20)
    with pytest.raises(ValueError, match=r"months \[6\], .* fitted on 1, 2, 3"):
        bands(summer)
    with pytest.raises(ValueError, match="fitted for the lead"):
        bands(forecast.drop_vars("valid_time").assign_coords(lead_time=forecast.lead_time + np.timedelta64(1, "h")))
    for call in (lambda ds: fit_intervals(ds, truth), bands):
        with pytest.raises(ValueError, match="members along 'number'"):
            call(forecast.expand_dims(number=[0, 1]))
    holes = forecast.copy(deep=True)
    holes["t2m"][3, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="t2m has missing values"):
        fit_intervals(holes, truth)
    with pytest.raises(ValueError, match="dimension 'bound'"):
        coverage(forecast, truth)


def test_from_a_forecaster(forecaster):
    ds = waves()
    bands = forecaster.interval(0.8, ds, every="6h")
    assert bands.probability == 0.8 and bands.half_width.sizes["lead_time"] == 3
    ends = bands(forecaster(ds.isel(time=slice(0, 40)), every="6h").isel(init_time=slice(0, 30)))
    result = coverage(ends, ds, allow_overlap=True)
    assert float(result.t2m.mean()) == pytest.approx(0.8, abs=0.1)
