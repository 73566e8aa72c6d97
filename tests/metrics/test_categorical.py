import numpy as np
import pytest
import xarray as xr
from factories import rain, slow_months
from scores.categorical import seeps as peer_seeps

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.baselines import climatologies
from simvp_climate.metrics.baselines.climatologies import climatology, climatology_at
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.categorical.seeps import seeps, seeps_climatology
from simvp_climate.metrics.categorical.terciles import tercile_rpss
from simvp_climate.metrics.categorical.thresholds import brier, event_frequency, frequency_bias
from simvp_climate.metrics.score import score


class TestEvents:
    def test_by_hand(self):
        truth = rain(days=10) * 0
        truth["tp24h"][:, :, :2] = 5.0  # a quarter of the cells
        forecast = persistence(truth, truth.time[:8], ["1D"])
        members = xr.concat([forecast, forecast * 0 + 5.0], "number", coords="minimal", compat="override")
        # correct where it rains; elsewhere half of the members are wrong: (1/2)^2 on three quarters of the cells
        np.testing.assert_allclose(brier(members, truth, 1.0).tp24h, 0.75 * 0.25)
        np.testing.assert_allclose(brier(forecast, truth, 1.0).tp24h, 0)
        np.testing.assert_allclose(frequency_bias(members, truth, 1.0).tp24h, (0.25 + 0.75 / 2) / 0.25)
        assert np.isnan(frequency_bias(forecast, truth, 99.0).tp24h).all()

    def test_missing_values(self):
        truth = rain(days=10)
        forecast = persistence(truth, truth.time[:8], ["1D"])
        forecast["tp24h"] = forecast["tp24h"] * 1.0  # persistence returns a view of the truth
        forecast["tp24h"][2, 0, 1, 1] = np.nan
        assert np.isnan(brier(forecast, truth, 1e-3).tp24h).all()
        assert np.isfinite(brier(forecast, truth, 1e-3, skipna=True).tp24h).all()


class TestEventFrequency:
    def test_by_hand(self):
        # two years of months, wet in every second cell in the first year and nowhere in the second
        times = np.arange("2001-01", "2003-01", dtype="datetime64[M]").astype("datetime64[ns]")
        train = rain(days=24).assign_coords(time=times) * 0
        train["tp24h"][:12, :, ::2] = 2.0
        result = event_frequency(train, {"tp24h": 1.0}).tp24h
        assert result.dims == ("month", "latitude", "longitude")
        np.testing.assert_array_equal(result, np.broadcast_to([0.5, 0] * 4, (12, 4, 8)))
        assert result.attrs["units"] == "1" and result.attrs["threshold"] == 1.0
        assert event_frequency(train, {"tp24h": 1.0}).attrs["climatology_end"] == "2002-12-01T00:00:00"
        # a value equal to the threshold does not exceed it; missing values are left out
        train["tp24h"][:12, 0, 1] = np.nan
        train["tp24h"][12:, 0, 1] = 2.0
        result = event_frequency(train, {"tp24h": 1.0}).tp24h
        np.testing.assert_array_equal(result[:, 0, 1], np.ones(12))
        assert float(event_frequency(train, {"tp24h": 2.0}).tp24h.max()) == 0

    @pytest.mark.parametrize("threshold", [1e-4, 3e-4, 1e-3, 0.1])
    @pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f4", "f8"), ("f8", "f4")])
    def test_values_equal_to_the_threshold_do_not_exceed_it_in_any_precision(self, threshold, dtypes):
        # the nearest float32 is slightly above (1e-3) or below (1e-4) the threshold
        train, truth = rain(days=400, start="1999-01-01") * 0, rain(days=30, start="2001-01-01") * 0
        train, truth = ((ds + threshold).astype(dtype) for ds, dtype in zip((train, truth), dtypes, strict=True))
        frequency = event_frequency(train, {"tp24h": threshold})
        assert float(frequency.tp24h.max()) == 0
        table = score(persistence(truth, truth.time[:9], ["1D"]), truth, climatology(train), metrics=["brier"],
                      thresholds={"tp24h": threshold}, event_frequency=frequency, bootstrap=None)  # fmt: skip
        # anomaly persistence adds and subtracts the climatology, which rounds
        assert (table.tp24h.drop_sel(system="anomaly persistence") == 0).all()
        # and is not dry
        train = train.assign(tp24h=train.tp24h.assign_attrs(units="m"))
        assert float(seeps_climatology(train, dry=threshold).tp24h_dry_fraction.max()) == 0

    def test_is_the_climatology_of_the_indicator(self):
        train = rain(days=800)
        result = event_frequency(train, {"tp24h": 5e-3}, window_days=31)
        expected = climatology((train > 5e-3).astype(float), window_days=31)
        np.testing.assert_allclose(result.tp24h, expected.tp24h, rtol=1e-6)
        lazy = event_frequency(train.chunk(time=90), {"tp24h": 5e-3}, window_days=31)
        xr.testing.assert_identical(lazy, result)

    def test_errors(self):
        train = rain(days=400)
        with pytest.raises(ValueError, match=r"\['tp'\].*training period has \['tp24h'\]"):
            event_frequency(train, {"tp": 1e-3})
        for wrong in ({"tp24h": "1"}, {"tp24h": True}, {"tp24h": np.nan}, {"tp24h": [1.0]}):
            with pytest.raises(ValueError, match="threshold of tp24h is .* number"):
                event_frequency(train, wrong)
        with pytest.raises(ValueError, match=r"thresholds=0.001 .*mapping by variable"):
            event_frequency(train, 1e-3)


class TestSeeps:
    def test_agrees_with_scores(self):
        train, truth = rain(days=1200), rain(days=60, start="2005-03-01", seed=1)
        clim = seeps_climatology(train)
        assert clim.attrs["dry"] == 2.5e-4
        forecast = persistence(truth, truth.time[:50], ["1D", "5D"])
        p1 = clim.tp24h_dry_fraction.mean(("hour", "dayofyear"))
        heavy = climatology_at(clim[["tp24h_threshold"]], forecast.valid_time).tp24h_threshold
        right = truth.tp24h.sel(time=forecast.valid_time).drop_vars("time")
        cells = peer_seeps(
            forecast.tp24h.drop_vars("valid_time"), right.drop_vars("valid_time"), p1,
            heavy.drop_vars(["valid_time", "hour", "dayofyear"], errors="ignore"), dry_light_threshold=2.5e-4,
            mask_clim_extremes=True, lower_masked_value=0.1, upper_masked_value=0.85, preserve_dims="all",
        )  # fmt: skip
        expected = cells.weighted(latitude_weights(truth)).mean(("init_time", "latitude", "longitude"))
        np.testing.assert_allclose(seeps(forecast, truth, clim).tp24h, expected, rtol=1e-7)

    def test_units_and_names_of_the_data(self):
        train, truth = rain(days=800), rain(days=60, start="2005-03-01", seed=1)
        forecast = persistence(truth, truth.time[:50], ["1D"])
        expected = seeps(forecast, truth, seeps_climatology(train)).tp24h
        millimeters = forecast.assign(tp24h=(forecast.tp24h * 1000).assign_attrs(units="mm"))
        clim = seeps_climatology(train.rename(latitude="lat", longitude="lon").isel(lat=slice(None, None, -1)))
        np.testing.assert_allclose(seeps(millimeters, truth, clim).tp24h, expected, rtol=1e-5)

    def test_a_perfect_forecast_scores_0_and_one_without_skill_1(self):
        train, truth = rain(days=1200), rain(days=300, start="2005-03-01", seed=1)
        clim = seeps_climatology(train)
        forecast = persistence(truth, truth.time[:290], ["1D"])
        right = forecast.assign(tp24h=truth.tp24h.sel(time=forecast.valid_time).drop_vars("time"))
        np.testing.assert_allclose(seeps(right, truth, clim).tp24h, 0)
        # successive days are independent: persistence has no skill
        np.testing.assert_allclose(seeps(forecast, truth, clim).tp24h, 1, atol=0.03)

    def test_dry_fraction_of_known_rain(self):
        clim = seeps_climatology(rain(days=1500))
        assert float(clim.tp24h_dry_fraction.mean()) == pytest.approx(0.4 + 0.6 * 0.13, abs=0.05)
        millimeters = seeps_climatology(rain(days=1500, units="mm"))
        np.testing.assert_allclose(millimeters.tp24h_threshold, clim.tp24h_threshold, rtol=1e-5)

    @pytest.mark.parametrize("name", ["tp24h", "total_precipitation_24hr"])
    def test_climatology_with_the_names_of_weatherbench_2(self, name):
        train, truth = rain(days=800), rain(days=60, start="2005-03-01", seed=1).rename(tp24h=name)
        forecast = persistence(truth, truth.time[:50], ["1D"])
        ours = seeps_climatology(train)
        theirs = xr.Dataset(
            {f"total_precipitation_24hr_seeps_{key}": ours[f"tp24h_{key}"].drop_attrs().transpose(
                "hour", "dayofyear", "longitude", "latitude") for key in ("threshold", "dry_fraction")},
            attrs={"climatology_start": "2001-01-01", "climatology_end": "2003-03-11"},
        )  # fmt: skip
        theirs["total_precipitation_24hr"] = theirs.total_precipitation_24hr_seeps_threshold * 0
        expected = seeps(forecast.rename({name: "tp24h"}), truth.rename({name: "tp24h"}), ours).tp24h
        np.testing.assert_array_equal(seeps(forecast, truth, theirs)[name], expected)
        millimeters = forecast.assign({name: (forecast[name] * 1000).assign_attrs(units="mm")})
        np.testing.assert_allclose(seeps(millimeters, truth, theirs)[name], expected, rtol=1e-6)
        table = score(forecast, truth, metrics=["seeps"], seeps_climatology=theirs)
        np.testing.assert_array_equal(table[name].sel(system="forecast", metric="seeps"), expected)
        with pytest.raises(ValueError, match="no total_precipitation_24hr_seeps_dry_fraction"):
            seeps(forecast, truth, theirs.drop_vars("total_precipitation_24hr_seeps_dry_fraction"))
        with pytest.raises(ValueError, match="dry for rain"):
            new = theirs.rename({name: name.replace("total_precipitation_24hr", "rain") for name in theirs.data_vars})
            seeps(forecast.rename({name: "rain"}), truth.rename({name: "rain"}), new)

    def test_errors(self):
        with pytest.raises(ValueError, match="12 h .*dry"):
            ds = rain(days=800)
            seeps_climatology(ds.assign_coords(time=ds.time[0].values + np.arange(800) * np.timedelta64(12, "h")))
        with pytest.raises(ValueError, match="less than eleven months"):
            seeps_climatology(rain(days=300))
        with pytest.raises(ValueError, match="tp24h has no units"):
            seeps_climatology(rain(days=400, units=""))
        with pytest.raises(ValueError, match="make it with seeps_climatology"):
            truth = rain(days=10)
            seeps(persistence(truth, truth.time[:5], ["1D"]), truth, truth)

    def test_a_climatology_of_verified_times_is_refused(self):
        truth = rain(days=400, start="2001-01-01")
        forecast, clim = persistence(truth, truth.time[:5], ["1D"]), seeps_climatology(truth)
        with pytest.raises(ValueError, match="climatology for SEEPS.*2001"):
            seeps(forecast, truth, clim)
        assert seeps(forecast, truth, clim, allow_overlap=True).sizes == {"lead_time": 1}


class TestTerciles:
    def test_one_selected_lead(self):
        train, truth = slow_months(0, days=3000, start="1971-01-01"), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:1000:10], ["1D", "2D"])
        picked = tercile_rpss(forecast.isel(lead_time=1), truth, train, windows=[(1, 1)])
        beside = tercile_rpss(forecast.isel(lead_time=[1]), truth, train, windows=[(1, 1)])
        np.testing.assert_array_equal(picked.sst, beside.sst)
        with pytest.raises(ValueError, match=r"windows has .*lead"):
            tercile_rpss(forecast.isel(lead_time=1), truth, train, windows=[(1, 2)])

    def test_a_missing_truth_warns_and_gives_nan(self):
        train, truth = slow_months(0, days=3000, start="1971-01-01"), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:1000:10], ["1D", "2D"])
        holes = truth.copy(deep=True)
        holes["sst"][dict(time=11, latitude=0, longitude=0)] = np.nan  # one verified value, in the north
        north, south = (0, 90, 0, 360), (-90, 0, 0, 360)
        regions = {"here": north, "there": south}
        if float(truth.latitude[0]) < 0:
            regions = {"here": south, "there": north}
        arguments = dict(windows=[(1, 2)], regions=regions)
        whole = tercile_rpss(forecast, truth, train, **arguments)
        with pytest.warns(UserWarning, match=r"tercile score of \['sst'\] is missing .*: skipna=True"):
            result = tercile_rpss(forecast, holes, train, **arguments)
        assert np.isnan(result.sst.sel(region="here")).all()
        np.testing.assert_array_equal(result.sst.sel(region="there"), whole.sst.sel(region="there"))
        some = tercile_rpss(forecast, holes, train, skipna=True, **arguments)
        assert np.isfinite(some.sst).all() and (some.sst.sel(region="here") != whole.sst.sel(region="here")).all()
        # cells that never have a value are masked
        sea = [ds.where(ds.longitude > 50) for ds in (forecast, truth, train)]
        assert np.isfinite(tercile_rpss(*sea, **arguments).sst).all()
        with pytest.raises(ValueError, match="windows has 1: .*pairs"):
            tercile_rpss(forecast, truth, train, windows=(1, 2))

    def test_right_wrong_and_undecided(self):
        # long enough for the middle tercile to contain the mean in nearly every cell and month
        train, truth = slow_months(0, days=9000, start="1971-01-01"), slow_months(1, start="2006-01-01")
        leads = [f"{n}D" for n in range(1, 15)]
        forecast = persistence(truth, truth.time[:1000:10], leads)
        right = forecast.assign(sst=truth.sst.sel(time=forecast.valid_time).drop_vars("time"))
        windows = [(1, 7), (8, 14)]
        result = tercile_rpss(right, truth, train, windows=windows).sst
        assert result.dims == ("window",)
        np.testing.assert_allclose(result, 1)
        assert result.last_lead.values[1] == np.timedelta64(14, "D")
        opposite = right.assign(sst=560 - right.sst)
        assert (tercile_rpss(opposite, truth, train, windows=windows).sst < -1).all()
        # an ensemble with one third of its members in each tercile is climatology
        spread = xr.concat(
            [right * 0 + 200, right * 0 + 280.0, right * 0 + 400], "number", coords="minimal", compat="override"
        )
        result = tercile_rpss(spread, truth, train, windows=windows, fair=False).sst
        np.testing.assert_allclose(result, 0, atol=0.01)
        # the fair score is 2 (1/3 2/3) / (3 - 1) = 2/9 below the 4/9 of thirds
        np.testing.assert_allclose(tercile_rpss(spread, truth, train, windows=windows).sst, 0.5, atol=0.02)

    def test_the_expected_fair_score_of_two_members_is_that_of_infinitely_many(self):
        train, truth = slow_months(0, days=9000, start="1971-01-01"), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:100:10], ["1D", "2D", "3D"]) * 0
        predictions = [200.0, 280.0, 400.0]  # below, near and above normal
        sure = [tercile_rpss(forecast + value, truth, train, windows=[(1, 3)]).sst for value in predictions]
        scores = {fair: [] for fair in (True, False)}
        for first in predictions:
            for second in predictions:
                members = forecast + xr.DataArray([first, second], dims="number")
                for fair, values in scores.items():
                    values.append(tercile_rpss(members, truth, train, windows=[(1, 3)], fair=fair).sst)
        # all nine pairs are equally likely; infinitely many members are distributed like three different ones
        thirds = forecast + xr.DataArray(predictions, dims="number")
        expected = tercile_rpss(thirds, truth, train, windows=[(1, 3)], fair=False).sst
        np.testing.assert_allclose(np.mean(scores[True], axis=0), expected, rtol=1e-9)
        assert np.mean(scores[False], axis=0) < expected - 0.3
        np.testing.assert_allclose(scores[True][0], sure[0])  # two equal members score like one
        single = (forecast + 200.0).expand_dims(number=1)
        np.testing.assert_allclose(tercile_rpss(single, truth, train, windows=[(1, 3)]).sst, sure[0])

    def test_regions(self):
        train, truth = slow_months(0), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:1000:10], ["1D", "2D", "3D"])
        regions = {"north": (0, 90, 0, 360), "west": (-90, 90, 0, 90), "all": (-90, 90, 0, 360)}
        result = tercile_rpss(forecast, truth, train, windows=[(1, 3)], regions=regions).sst
        assert result.dims == ("window", "region")
        north, west = (lambda ds: ds.isel(latitude=[2, 3])), (lambda ds: ds.isel(longitude=[0, 1, 2]))
        for name, select in (("north", north), ("west", west), ("all", lambda ds: ds)):
            expected = tercile_rpss(select(forecast), select(truth), select(train), windows=[(1, 3)]).sst
            np.testing.assert_allclose(result.sel(region=name), expected, rtol=1e-12)

    def test_a_training_period_of_verified_times_is_refused(self):
        truth = slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:100:10], ["1D", "2D", "3D"])
        with pytest.raises(ValueError, match="training period.*2006-01-01T00.*verified times lie in it"):
            tercile_rpss(forecast, truth, truth, windows=[(1, 3)])
        allowed = tercile_rpss(forecast, truth, truth, windows=[(1, 3)], allow_overlap=True)
        assert np.isfinite(allowed.sst).all()

    def test_order_of_latitudes_does_not_matter(self):
        train, truth = slow_months(0), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:1000:10], ["1D", "2D", "3D"])
        plain = tercile_rpss(forecast, truth, train, windows=[(1, 3)])
        turned = tercile_rpss(
            forecast.isel(latitude=slice(None, None, -1)),
            truth,
            train.isel(latitude=slice(None, None, -1)),
            windows=[(1, 3)],
        )
        np.testing.assert_allclose(turned.sst, plain.sst, rtol=1e-12)

    def test_a_missing_forecast_does_not_count(self):
        train, truth = slow_months(0), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:1000:10], ["1D", "2D", "3D"])
        holes = forecast.where(forecast.valid_time.dt.month[:, 0].drop_vars("lead_time") != 1)
        others = forecast.isel(init_time=np.flatnonzero(forecast.valid_time.dt.month[:, 0] != 1))
        result = tercile_rpss(holes, truth, train, windows=[(1, 3)], skipna=True).sst
        expected = tercile_rpss(others, truth, train, windows=[(1, 3)]).sst
        np.testing.assert_allclose(result, expected, rtol=1e-12)

    def test_steps_and_gaps(self):
        train, truth = slow_months(0), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:100:10], ["5D", "10D", "15D"])
        with pytest.raises(ValueError, match="same steps"):
            tercile_rpss(forecast, truth, train, windows=[(1, 3)])
        daily = persistence(truth, truth.time[:100:10], ["1D", "2D", "3D"])
        with pytest.raises(ValueError, match="has a gap after 2001-01-05"):
            tercile_rpss(daily, truth, train.drop_isel(time=[5, 6]), windows=[(1, 3)])

    def test_errors(self):
        train, truth = slow_months(0), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:100:10], ["1D", "2D", "3D"])
        with pytest.raises(ValueError, match=r"windows has \(1, 4\)"):
            tercile_rpss(forecast, truth, train, windows=[(1, 4)])
        with pytest.raises(ValueError, match="month 9 has 0 means.*too few"):
            autumn = persistence(truth, truth.sel(time="2006-09").time[:20], ["1D", "2D", "3D"])
            tercile_rpss(autumn, truth, train.sel(time="2001").isel(time=slice(0, 180)), windows=[(1, 3)])
        with pytest.raises(ValueError, match="too few"):
            tercile_rpss(forecast, truth, train.isel(time=slice(0, 35)), windows=[(1, 3)])

    def test_in_bands_of_latitude(self, monkeypatch):
        train, truth = slow_months(0), slow_months(1, start="2006-01-01")
        forecast = persistence(truth, truth.time[:1000:10], ["1D", "2D", "3D"])
        forecast = forecast.isel(latitude=slice(None, None, -1))
        whole = tercile_rpss(forecast, truth, train, windows=[(1, 3)])
        monkeypatch.setattr(climatologies, "_BAND_BYTES", 1)
        xr.testing.assert_allclose(tercile_rpss(forecast, truth, train, windows=[(1, 3)]), whole, rtol=1e-12)


def test_seeps_climatology_in_bands_of_latitude(monkeypatch):
    train = rain(days=500)
    whole = seeps_climatology(train)
    monkeypatch.setattr(climatologies, "_BAND_BYTES", 1)
    xr.testing.assert_identical(seeps_climatology(train), whole)
    xr.testing.assert_identical(seeps_climatology(train.chunk(time=100)), whole)
    # no data near the poles
    holes = train.where(abs(train.latitude) < 60)
    banded = seeps_climatology(holes)
    monkeypatch.undo()
    xr.testing.assert_allclose(banded, seeps_climatology(holes))


def test_seeps_climatology_agrees_with_weatherbench_2():
    train = rain(days=800)
    clim = seeps_climatology(train)
    values, day = train.tp24h, train.time.dt.dayofyear
    for day_of_year in (1, 100, 365):
        distance = abs(day - day_of_year)
        distance = np.minimum(distance, 366 - distance) if int(clim.dayofyear.max()) == 366 else np.minimum(
            distance, 365 - distance)  # fmt: skip
        near = values.isel(time=np.flatnonzero(distance <= 30))
        triangle = (1 - distance / 30).isel(time=np.flatnonzero(distance <= 30))
        result = clim.sel(dayofyear=day_of_year).squeeze("hour")
        np.testing.assert_allclose(result.tp24h_dry_fraction, (near < 2.5e-4).mean("time"), rtol=1e-6)
        heavy = near.where(near >= 2.5e-4).weighted(triangle).quantile(2 / 3, dim="time")
        np.testing.assert_allclose(result.tp24h_threshold, heavy, rtol=1e-6)
