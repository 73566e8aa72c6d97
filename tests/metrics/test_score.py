import numpy as np
import pandas as pd
import pytest
import scores as peer
import xarray as xr
from arch.bootstrap import MovingBlockBootstrap
from factories import noisy_forecast, rain, red_noise, two_cells, weather
from scores.probability import crps_for_ensemble

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.baselines.climatologies import climatology, climatology_at
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.baselines.statistical import (
    AnomalyPersistence,
    fit_damped_persistence,
    fit_linear_regression,
)
from simvp_climate.metrics.categorical.seeps import seeps, seeps_climatology
from simvp_climate.metrics.categorical.thresholds import brier, event_frequency, frequency_bias
from simvp_climate.metrics.deterministic import activity, rmse, wind_vector_rmse
from simvp_climate.metrics.ensemble import crps, rank_histogram, spread, spread_skill_ratio
from simvp_climate.metrics.regions import region_masks
from simvp_climate.metrics.score import score, skilful_to
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap, block_length, resample
from simvp_climate.metrics.uncertainty.calibration import fit_calibration

LEADS = ["6h", "24h"]


def ensemble_of(truth, members=5, noise=0.3):
    parts = [noisy_forecast(truth, seed=10 + member, noise=noise) for member in range(members)]
    return xr.concat(parts, "number", coords="minimal", compat="override")


def two_levels(ds):
    """Return t2m, and a temperature on two levels of another size of anomalies."""
    level = xr.DataArray([500.0, 850.0], dims="level", attrs={"units": "hPa", "standard_name": "air_pressure"})
    both = xr.concat(
        [280 + 0.3 * (ds.t2m - 280), 280 + 2 * (ds.t2m - 280)], "level", coords="minimal", compat="override"
    )
    dims = [dim for dim in ds.t2m.dims if dim not in ("latitude", "longitude")]
    both = both.assign_coords(level=level).transpose(*dims, "level", "latitude", "longitude").assign_attrs(units="K")
    return ds.assign(t=both)


class TestEnsembles:
    def test_crps_agrees_with_another_package(self):
        truth, weight = weather(days=20), latitude_weights(weather(days=2))
        forecast = ensemble_of(truth)
        result = crps(forecast, truth).t2m
        right = truth.t2m.sel(time=forecast.valid_time).drop_vars("time")
        cells = crps_for_ensemble(forecast.t2m, right, "number", method="fair", preserve_dims="all")
        expected = cells.weighted(weight).mean(("init_time", "latitude", "longitude"))
        np.testing.assert_allclose(result, expected, rtol=1e-12)

    def test_spread_and_ratio_by_hand(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth, noise=0.0)
        offsets = xr.DataArray([-1.0, 0.0, 4.0], dims="number")  # mean 1, variance 7
        forecast = forecast + offsets
        np.testing.assert_allclose(spread(forecast, truth).t2m, np.sqrt(7))
        # the error of the mean is 1, less than what is expected of the spread by chance
        assert np.isnan(spread_skill_ratio(forecast, truth).t2m).all()
        far = spread_skill_ratio(forecast + 9.0, truth).t2m
        np.testing.assert_allclose(far, np.sqrt(7 / (100 - 7 / 3)))

    def test_an_ensemble_like_the_truth_is_reliable(self):
        truth = weather(days=60)
        # members and truth are draws of the same kind around a center that none of them knows
        hidden = noisy_forecast(truth, seed=99)
        members = ensemble_of(truth)
        center = (hidden - truth.sel(time=hidden.valid_time).drop_vars("time")).t2m
        members = members.assign(t2m=members.t2m - center)
        result = spread_skill_ratio(members, truth).t2m
        np.testing.assert_allclose(result, 1, atol=0.03)
        ranks = rank_histogram(members, truth).t2m
        assert ranks.dims == ("rank", "lead_time") and ranks.sizes["rank"] == 6
        np.testing.assert_allclose(ranks.sum("rank"), 1, rtol=1e-12)
        np.testing.assert_allclose(ranks, 1 / 6, atol=0.015)

    def test_ranks_of_ties(self):
        truth = weather(days=3) * 0
        forecast = noisy_forecast(truth, noise=0.0) + xr.DataArray([0.0, 0.0, 5.0], dims="number")
        # the truth equals two members: ranks 0, 1 and 2 in equal parts
        np.testing.assert_allclose(rank_histogram(forecast, truth).t2m.isel(lead_time=0), [1 / 3, 1 / 3, 1 / 3, 0])

    def test_the_table_pools_the_members(self):
        truth = weather(days=20)
        forecast = ensemble_of(truth)
        table = score(forecast, truth)
        assert "number" not in table.dims
        values = table.t2m.sel(system="forecast")
        np.testing.assert_allclose(values.sel(metric="rmse"), rmse(forecast.mean("number"), truth).t2m, rtol=1e-12)
        np.testing.assert_allclose(values.sel(metric="crps"), crps(forecast, truth).t2m, rtol=1e-12)
        last = table.t2m.sel(system="persistence")
        np.testing.assert_allclose(last.sel(metric="crps"), last.sel(metric="mae"), rtol=1e-12)
        assert np.isnan(last.sel(metric="spread")).all()

    def test_a_baseline_of_one_member_is_a_single_forecast(self):
        truth = weather(days=20)
        other = noisy_forecast(truth, seed=5)
        table = score(ensemble_of(truth), truth, baselines={"single": other.expand_dims(number=1)})
        single = score(ensemble_of(truth), truth, baselines={"single": other})
        xr.testing.assert_identical(table, single)
        values = table.t2m.sel(system="single")
        np.testing.assert_allclose(values.sel(metric="crps"), values.sel(metric="mae"), rtol=1e-12)
        assert np.isfinite(values.sel(metric="crps")).all() and values.sel(metric="spread").isnull().all()

    def test_ranks_by_region(self):
        truth = weather(days=20)
        forecast = ensemble_of(truth)
        regions = {"north": (0, 90, 0, 360), "west": (-90, 90, 0, 90)}
        result = rank_histogram(forecast, truth, regions=regions).t2m
        assert result.dims == ("rank", "lead_time", "region")
        for name, part in (("north", {"latitude": [2, 3]}), ("west", {"longitude": [0, 1, 2]})):
            expected = rank_histogram(forecast.isel(part), truth.isel(part)).t2m
            np.testing.assert_allclose(result.sel(region=name), expected, rtol=1e-12)

    def test_errors(self):
        truth = weather(days=5)
        with pytest.raises(ValueError, match=r"dims \(.*\) and no ensemble members"):
            crps(noisy_forecast(truth), truth)
        single = ensemble_of(truth, members=1)
        for call in (crps, score):
            with pytest.raises(ValueError, match=r"one member along 'number'.*isel\(number=0\)"):
                call(single, truth)


class TestIntervals:
    def test_agree_with_another_package(self):
        truth = weather()
        forecast = noisy_forecast(truth, leads=["24h"])
        table = score(forecast, truth, metrics=["rmse", "rmse_skill"], bootstrap=Bootstrap(samples=4000, block=10))
        weight = latitude_weights(truth).values[:, np.newaxis]
        right = truth.t2m.sel(time=forecast.valid_time).values
        start = truth.t2m.sel(time=forecast.init_time).values[:, np.newaxis]
        squares = [((x - right) ** 2 * weight).mean(axis=(1, 2, 3)) for x in (forecast.t2m.values, start)]
        result = {"rmse": lambda a, b: np.sqrt(a.mean())}
        result["rmse_skill_vs_persistence"] = lambda a, b: 1 - np.sqrt(a.mean()) / np.sqrt(b.mean())
        for name, statistic in result.items():
            peer_says = MovingBlockBootstrap(10, *squares, seed=5).conf_int(statistic, 4000, method="percentile")
            ours = table.sel(system="forecast", metric=name).isel(lead_time=0)
            width = float(peer_says[1, 0] - peer_says[0, 0])
            assert float(ours.t2m_low) == pytest.approx(float(peer_says[0, 0]), abs=0.06 * width)
            assert float(ours.t2m_high) == pytest.approx(float(peer_says[1, 0]), abs=0.06 * width)
            assert float(ours.t2m_low) < float(ours.t2m) < float(ours.t2m_high)

    def test_blocks_are_neighbors_and_equally_likely(self):
        counts = resample(50, 5, 20_000, seed=0)
        assert counts.shape == (20_000, 50) and (counts.sum(axis=1) == 50).all()
        # blocks start anywhere they fit: the middle is drawn oftener than the ends
        np.testing.assert_allclose(counts[:, 4:46].mean(), 50 / 46, rtol=0.01)
        np.testing.assert_allclose(counts[:, 0].mean(), 10 / 46, rtol=0.05)
        assert resample(24, 5, 10, seed=0) is None

    def test_a_block_is_as_long_as_the_longest_lead(self):
        init = xr.DataArray(
            np.datetime64("2018-01-01", "ns") + np.arange(100) * np.timedelta64(12, "h"), dims="init_time"
        )
        lead = xr.DataArray(np.array([6, 240], "timedelta64[h]").astype("timedelta64[ns]"), dims="lead_time")
        assert block_length(init, lead) == 20
        assert block_length(init, lead[:1]) == 5  # the cube root

    @pytest.mark.slow
    def test_cover_the_true_score_with_the_stated_confidence(self):
        hits, times = 0, 60
        for seed in range(times):
            truth = weather(days=60, seed=seed)
            forecast = noisy_forecast(truth, seed=1000 + seed, leads=["6h"], noise=0.5)
            result = score(forecast, truth, metrics=["rmse"], persistence=False, bootstrap=Bootstrap(samples=300))
            result = result.sel(system="forecast", metric="rmse").isel(lead_time=0)
            hits += float(result.t2m_low) <= 0.5 <= float(result.t2m_high)
        assert 50 <= hits <= 60

    def test_too_few_initializations_have_no_interval(self):
        truth = weather(days=4)
        table = score(noisy_forecast(truth), truth)
        assert "t2m_low" not in table.coords
        assert table.attrs["intervals"] == "none: 6 initializations are fewer than five blocks of 2"
        assert score(noisy_forecast(truth), truth, bootstrap=None).attrs["intervals"] == "none requested"

    def test_survive_a_file(self, tmp_path):
        truth = weather(days=30)
        table = score(noisy_forecast(truth), truth)
        table.to_netcdf(tmp_path / "scores.nc")
        read = xr.load_dataset(tmp_path / "scores.nc", decode_timedelta=True)
        xr.testing.assert_equal(read.t2m_low, table.t2m_low)

    def test_skilful_to(self):
        truth = weather(days=60)
        leads = ["6h", "12h", "18h", "24h"]
        forecast = noisy_forecast(truth, leads=leads, noise=0.0)
        right = forecast.t2m.copy()
        last = persistence(truth, forecast.init_time, leads).t2m
        # better than persistence at two leads, then not, then again
        share = xr.DataArray([0.5, 0.5, 1.5, 0.5], dims="lead_time")
        forecast["t2m"] = right + share * (last - right)
        result = skilful_to(score(forecast, truth)).t2m
        assert result.sel(system="forecast").values == np.timedelta64(12, "h")
        assert result.system.values.tolist() == ["forecast"]
        with pytest.raises(ValueError, match="no rmse_skill"):
            skilful_to(score(forecast, truth, metrics=["rmse"]))
        with pytest.raises(ValueError, match="no intervals"):
            skilful_to(score(forecast, truth, bootstrap=None))

    def test_errors(self):
        with pytest.raises(ValueError, match=r"confidence=95"):
            Bootstrap(confidence=95)
        for wrong in ({"block": 0}, {"block": 2.5}, {"block": "3"}, {"samples": 10.5}, {"seed": 0.5}, {"samples": 1}):
            with pytest.raises(ValueError, match="{}={!r} must be a whole number".format(*next(iter(wrong.items())))):
                Bootstrap(**wrong)


class TestSystems:
    def test_another_model_is_scored_on_the_same_pairs(self):
        truth = weather(days=20)
        first, other = noisy_forecast(truth), noisy_forecast(truth, seed=5, noise=1.0)
        # a store of WeatherBench 2, in another order, with more of everything
        store = noisy_forecast(truth, seed=5, noise=1.0).drop_vars("valid_time")
        store = store.rename(init_time="time", lead_time="prediction_timedelta").transpose("longitude", ...)
        store = store.rename(t2m="2m_temperature")
        table = score(first, truth, baselines={"GraphCast": store.isel(time=slice(None, None, -1))})
        assert table.system.values.tolist() == ["forecast", "persistence", "GraphCast"]
        np.testing.assert_allclose(table.t2m.sel(system="GraphCast", metric="rmse"), rmse(other, truth).t2m, rtol=1e-12)
        skill = 1 - table.t2m.sel(system="forecast", metric="rmse") / table.t2m.sel(system="GraphCast", metric="rmse")
        np.testing.assert_allclose(
            table.t2m.sel(system="forecast", metric="rmse_skill_vs_GraphCast"), skill, rtol=1e-12
        )

    def test_baselines_computed_from_the_state(self):
        truth, train = weather(days=20), weather(days=200, seed=7, start="2016-01-01")
        clim = climatology(train)
        fitted = fit_damped_persistence(train, clim, LEADS)
        forecast = noisy_forecast(truth)
        table = score(forecast, truth, clim, baselines={"damped persistence": fitted})
        alone = rmse(fitted(truth, forecast.init_time, LEADS), truth).t2m
        np.testing.assert_allclose(table.t2m.sel(system="damped persistence", metric="rmse"), alone, rtol=1e-12)
        assert "rmse_skill_vs_damped_persistence" in table.metric

    def test_a_missing_lead_or_init_is_an_error(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        with pytest.raises(ValueError, match=r"Pangu lacks 1 of the 2 lead_times .*1 days"):
            score(forecast, truth, baselines={"Pangu": forecast.isel(lead_time=[0])})
        with pytest.raises(ValueError, match=r"Pangu lacks 3 of the 38 init_times"):
            score(forecast, truth, baselines={"Pangu": forecast.isel(init_time=slice(3, None))})
        with pytest.raises(ValueError, match="Pangu does not fit"):
            score(forecast, truth, baselines={"Pangu": forecast.isel(latitude=slice(1, None))})
        with pytest.raises(ValueError, match="two systems are called 'persistence'"):
            score(forecast, truth, baselines={"persistence": forecast})

    def test_calibration_draws_towards_climatology(self):
        train, valid, test = (weather(seed=s, days=d, start=y) for s, d, y in
                              ((7, 200, "2015-01-01"), (8, 60, "2016-01-01"), (9, 60, "2017-01-01")))  # fmt: skip
        clim = climatology(train) * 0 + 280.0
        factors = fit_calibration(noisy_forecast(valid, noise=1.0), valid, clim)
        assert (factors.t2m > 0).all() and (factors.t2m < 1).all()
        assert float(factors.t2m[0]) > float(factors.t2m[1])
        forecast = noisy_forecast(test, noise=1.0)
        table = score(forecast, test, clim, calibrated=factors)
        drawn = forecast.assign(t2m=280 + factors.t2m * (forecast.t2m - 280))
        values = table.t2m.sel(system="forecast, calibrated")
        np.testing.assert_allclose(values.sel(metric="rmse"), rmse(drawn, test).t2m, rtol=1e-10)
        assert (values.sel(metric="rmse") < table.t2m.sel(system="forecast", metric="rmse")).all()
        assert (values.sel(metric="activity") < table.t2m.sel(system="forecast", metric="activity")).all()
        with pytest.raises(ValueError, match="verified times lie in it"):
            score(noisy_forecast(valid), valid, clim, calibrated=factors)
        with pytest.raises(ValueError, match="calibrated .* climatology"):
            score(forecast, test, calibrated=factors)

    def test_levels_are_matched_by_value_beside_flat_variables(self):
        train, valid, test = (
            two_levels(weather(seed=s, days=d, start=y))
            for s, d, y in ((7, 200, "2015-01-01"), (8, 60, "2016-01-01"), (9, 60, "2017-01-01"))
        )
        clim = climatology(train)
        fitted = fit_damped_persistence(train, clim, LEADS)
        turned = fit_damped_persistence(train, clim.isel(level=[1, 0]), LEADS)
        xr.testing.assert_allclose(turned.damping, fitted.damping)
        forecast = two_levels(noisy_forecast(test[["t2m"]], noise=1.0))
        factors = fit_calibration(two_levels(noisy_forecast(valid[["t2m"]], noise=1.0)), valid, clim)
        plain = score(forecast, test, clim, calibrated=factors, baselines={"damped": fitted})
        other = score(
            forecast.isel(level=[1, 0]), test, clim.isel(level=[1, 0]), calibrated=factors, baselines={"damped": fitted}
        )
        for name in ("t2m", "t"):
            np.testing.assert_allclose(
                other[name].sel(level=[500.0, 850.0]) if name == "t" else other[name], plain[name], rtol=1e-10
            )
        # a part of what was fitted will do
        part = score(forecast[["t"]].isel(level=[0]), test, clim, baselines={"damped": fitted})
        np.testing.assert_allclose(
            part.t.sel(system="damped", metric="rmse", level=500.0),
            plain.t.sel(system="damped", metric="rmse", level=500.0),
            rtol=1e-10,
        )

    def test_a_baseline_fitted_on_the_verified_year_is_refused(self):
        train, truth = weather(days=200, seed=7, start="2016-01-01"), weather(days=20)
        clim = climatology(train)
        cheat = fit_damped_persistence(truth, climatology(truth), LEADS)
        forecast = noisy_forecast(truth)
        with pytest.raises(ValueError, match=r"the baseline 'damped' is from 2018-01-01T00.*verified times lie in it"):
            score(forecast, truth, clim, baselines={"damped": cheat})
        celsius = train.assign(t2m=(train.t2m - 273.15).assign_attrs(units="degC"))
        with pytest.raises(ValueError, match=r"the baseline 'damped' cannot .*'K'.*'degC'"):
            other = fit_damped_persistence(celsius, climatology(celsius), LEADS)
            score(forecast, truth, clim, baselines={"damped": other})
        with pytest.raises(ValueError, match="t2m has units 'degC', but 'K' in the climatology"):
            fit_damped_persistence(celsius, clim, LEADS)

    def test_truth_of_another_calendar_or_with_members(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        with pytest.raises(ValueError, match="calendar 'proleptic_gregorian'.*truth 'noleap'"):
            score(forecast, truth.convert_calendar("noleap"))
        with pytest.raises(ValueError, match="the truth has members along 'number'"):
            score(forecast, truth.expand_dims(number=[0, 1]))

    def test_the_order_of_initializations_does_not_matter(self):
        truth = weather(days=60)
        forecast = noisy_forecast(truth)
        shuffled = forecast.isel(init_time=np.random.default_rng(0).permutation(forecast.sizes["init_time"]))
        xr.testing.assert_allclose(score(shuffled, truth), score(forecast, truth), rtol=1e-12)

    def test_activity_by_hand(self):
        truth = weather(days=20)
        clim = climatology(truth) * 0 + 280.0
        forecast = noisy_forecast(truth, noise=0.0)
        half = forecast.assign(t2m=280 + 0.5 * (forecast.t2m - 280))
        np.testing.assert_allclose(activity(half, truth, clim, allow_overlap=True).t2m, 0.5, rtol=1e-12)

    def test_unweighted_agrees_with_another_package(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        right = truth.t2m.sel(time=forecast.valid_time).drop_vars("time")
        expected = peer.continuous.rmse(forecast.t2m, right, preserve_dims="lead_time")
        result = score(forecast, truth, metrics=["rmse_unweighted"]).t2m.sel(
            system="forecast", metric="rmse_unweighted"
        )
        np.testing.assert_allclose(result, expected, rtol=1e-12)

    def test_the_length_of_the_wind_error(self):
        truth = weather(days=5, names=("u10", "v10"))
        with xr.set_options(keep_attrs=True):  # the default of xarray since November 2025
            forecast = noisy_forecast(truth, noise=0.0).assign(
                u10=lambda ds: ds.u10 + 3.0, v10=lambda ds: ds.v10.where(ds.latitude > -99) - 4.0
            )
        result = wind_vector_rmse(forecast, truth)
        np.testing.assert_allclose(result, 5.0)
        assert result.attrs["units"] == "m s-1"
        with pytest.raises(ValueError, match=r"has no \['v10'\]"):
            wind_vector_rmse(forecast.drop_vars("v10"), truth)


class TestRegionsAndSeasons:
    def test_a_region_is_the_score_of_its_cells(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        land = (truth.longitude < 100).expand_dims(latitude=truth.latitude)
        table = score(
            forecast,
            truth,
            regions={"all": (-90, 90, -180, 180), "north": (20, 90, 0, 360), "land": land.astype(float)},
        )
        assert table.t2m.dims == ("system", "metric", "lead_time", "region")
        values = table.t2m.sel(system="forecast", metric="rmse")
        np.testing.assert_allclose(values.sel(region="all"), rmse(forecast, truth).t2m, rtol=1e-12)
        weight = latitude_weights(truth)
        error = forecast.t2m - truth.t2m.sel(time=forecast.valid_time).drop_vars("time")
        for name, part in (("north", error.isel(latitude=[2, 3])), ("land", error.isel(longitude=[0, 1, 2]))):
            expected = np.sqrt((part**2).weighted(weight).mean(("init_time", "latitude", "longitude")))
            np.testing.assert_allclose(values.sel(region=name), expected, rtol=1e-12)

    def test_land_and_sea_from_the_mask_of_the_truth(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        land = (truth.longitude < 100).expand_dims(latitude=truth.latitude).astype(float)
        table = score(forecast, truth.assign(lsm=land), metrics=["rmse"], regions=["global", "land", "sea"])
        values = score(forecast, truth, metrics=["rmse"], regions={"a": land, "b": 1 - land})
        np.testing.assert_array_equal(table.t2m.isel(region=[1, 2]), values.t2m)
        with pytest.raises(ValueError, match="land-sea mask"):
            score(forecast, truth, regions=["land"])

    def test_masked_cells_count_in_no_region(self):
        truth = weather(days=20)
        masked = truth.where(truth.latitude != 22.5)
        forecast = noisy_forecast(truth).where(truth.latitude != 22.5)
        table = score(
            forecast, masked, metrics=["rmse"], regions={"north": (20, 90, 0, 360), "south": (-90, 0, 0, 360)}
        )
        values = table.t2m.sel(system="forecast", metric="rmse")
        only = score(noisy_forecast(truth), truth, metrics=["rmse"], regions={"far north": (60, 90, 0, 360)})
        only = only.t2m.sel(system="forecast", metric="rmse")
        np.testing.assert_allclose(values.sel(region="north"), only.sel(region="far north"), rtol=1e-12)

    def test_a_hole_in_one_region_leaves_the_others(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        forecast.t2m[3, 0, 3, 2] = np.nan  # in the far north
        with pytest.warns(UserWarning, match=r"\['t2m'\] are missing .*skipna=True"):
            table = score(
                forecast, truth, metrics=["rmse"], regions={"north": (20, 90, 0, 360), "south": (-90, 0, 0, 360)}
            )
        values = table.t2m.sel(system="forecast", metric="rmse")
        assert np.isnan(values.sel(region="north")[0]) and np.isfinite(values.sel(region="south")).all()

    def test_boxes_cross_the_date_line_and_have_noise(self):
        longitude = xr.DataArray(np.rad2deg(np.linspace(0, 2 * np.pi, 72, endpoint=False)), dims="longitude", name="x")
        latitude = xr.DataArray(np.arange(-87.5, 90, 5), dims="latitude")
        grid = {
            "latitude": latitude.assign_coords(latitude=latitude),
            "longitude": longitude.assign_coords(longitude=longitude),
        }
        masks = region_masks({"pacific": (-20, 20, 170, -170), "atlantic": (-90, 90, -10, 10)}, grid)
        result = longitude.values[masks.sel(region="pacific").any("latitude")]
        np.testing.assert_allclose(result, [170, 175, 180, 185, 190])
        result = longitude.values[masks.sel(region="atlantic").any("latitude")]
        np.testing.assert_allclose(result, [0, 5, 10, 350, 355])
        named = region_masks(["tropics", "europe", "extratropics"], grid)
        assert float(named.sel(region="tropics").sum()) == 8 * 72
        assert float(named.sel(region="extratropics").sum()) == 28 * 72
        with pytest.raises(ValueError, match=r"\['asia'\] are unknown"):
            region_masks(["asia"], grid)
        with pytest.raises(ValueError, match="no cell"):
            region_masks({"speck": (1, 2, 1, 2)}, grid)
        with pytest.raises(ValueError, match="south, north, west, east"):
            region_masks({"speck": (1, 2)}, grid)
        with pytest.raises(ValueError, match="mask of the region .* does not fit"):
            region_masks({"land": xr.DataArray(np.ones((3, 3)), coords={"latitude": [0, 1, 2], "longitude": [0, 1, 2]},
                                               dims=("latitude", "longitude"))}, grid)  # fmt: skip

    def test_poles_are_both_caps(self):
        latitude = xr.DataArray(np.arange(-85.0, 90, 10), dims="latitude")
        longitude = xr.DataArray(np.arange(0, 360, 45.0), dims="longitude")
        grid = {"latitude": latitude.assign_coords(latitude=latitude)}
        grid["longitude"] = longitude.assign_coords(longitude=longitude)
        masks = region_masks(["poles", "arctic", "antarctic"], grid)
        result = masks.sel(region="poles")
        assert latitude.values[result.any("longitude")].tolist() == [-85, -75, -65, 65, 75, 85]
        np.testing.assert_array_equal(result, masks.sel(region="arctic") + masks.sel(region="antarctic"))
        # 1 - sin(60 degrees) of the sphere
        assert float(result.weighted(latitude_weights(result)).mean()) == pytest.approx(1 - np.sqrt(3) / 2, rel=1e-12)

    def test_land_and_sea_in_a_box(self):
        truth = weather(days=20)
        forecast = noisy_forecast(truth)
        land = (truth.longitude < 100).expand_dims(latitude=truth.latitude).astype(float)
        truth = truth.assign(lsm=land)
        north = land * (land.latitude > 20)
        named = score(forecast, truth, metrics=["rmse"], regions=["northern extratropics land", "poles sea"])
        assert named.region.values.tolist() == ["northern extratropics land", "poles sea"]
        poles = (1 - land) * (abs(land.latitude) > 60)
        by_hand = score(forecast, truth, metrics=["rmse"], regions={"a": north, "b": poles})
        np.testing.assert_array_equal(named.t2m, by_hand.t2m)
        values = {
            "a": (20, 90, -180, 180, "land"),
            "b": "poles sea",
            "c": (0, 50, 40, 80),
            "d": (-50, 0, 0, 50, "land"),
        }
        result = score(forecast, truth, metrics=["rmse"], regions={key: values[key] for key in "ab"})
        np.testing.assert_array_equal(result.t2m, by_hand.t2m)
        grid = {dim: truth[dim] for dim in ("latitude", "longitude")}
        masks = region_masks(values, grid, truth)
        assert float(masks.sel(region="d").sum()) == 2  # one row, at 0 and 45 degrees
        with pytest.raises(ValueError, match=r"\['europe lamd'\] are unknown"):
            region_masks(["europe lamd"], grid, truth)
        with pytest.raises(ValueError, match="'lake'.* 'land' or 'sea'"):
            region_masks({"a": (0, 1, 2, 3, "lake")}, grid, truth)
        with pytest.raises(ValueError, match="land-sea mask"):
            region_masks(["tropics land"], grid)
        with pytest.raises(ValueError, match="regions has 'tropics' twice"):
            region_masks(["tropics", "tropics"], grid)

    def test_seasons_are_of_the_valid_time(self):
        truth = weather(days=180, start="2018-02-01")
        forecast = noisy_forecast(truth, every=4)
        table = score(forecast, truth, by="season")
        assert table.season.values.tolist() == ["DJF", "MAM", "JJA"]
        assert table.t2m.dims == ("system", "metric", "lead_time", "season")
        values = table.t2m.sel(system="forecast", metric="rmse")
        for season in ("DJF", "MAM"):
            for lead in range(2):
                in_season = (forecast.valid_time.dt.season == season)[:, lead].values
                selected = forecast.isel(init_time=np.flatnonzero(in_season), lead_time=[lead])
                np.testing.assert_allclose(values.sel(season=season)[lead], rmse(selected, truth).t2m[0], rtol=1e-12)
                assert int(table.pairs.sel(season=season)[lead]) == in_season.sum()
        rare = score(forecast, truth, by="month", metrics=["rmse"])
        assert rare.month.values.tolist() == [2, 3, 4, 5, 6, 7]
        # intervals where there are five blocks
        length = block_length(forecast.init_time, forecast.lead_time)
        has_interval = rare.t2m_low.sel(metric="rmse", system="forecast").notnull().transpose(*rare.pairs.dims)
        np.testing.assert_array_equal(has_interval, rare.pairs >= 5 * length)
        assert has_interval.any() and not has_interval.all()
        with pytest.raises(ValueError, match="by='year' is unknown"):
            score(forecast, truth, by="year")

    def test_small_scales_count_in_whole_rows_only(self):
        truth = weather(days=10, columns=64)
        forecast = noisy_forecast(truth)
        table = score(forecast, truth, metrics=["small_scale_variance"],
                      regions={"north": (0, 90, 0, 360), "box": (0, 90, 0, 90)})  # fmt: skip
        values = table.t2m.sel(system="forecast", metric="small_scale_variance")
        assert np.isfinite(values.sel(region="north")).all() and np.isnan(values.sel(region="box")).all()


class TestMetricsOfSomeVariables:
    def rainy(self):
        truth = rain(days=300, start="2005-03-01", seed=1)
        truth["t2m"] = truth.tp24h.copy(data=280 + truth.tp24h.values).assign_attrs(units="K")
        return persistence(truth, truth.time[:290], ["1D", "3D"]), truth

    def test_precipitation_in_the_table(self):
        forecast, truth = self.rainy()
        clim = seeps_climatology(rain(days=1200))
        table = score(
            forecast.assign_attrs(system="model"), truth, metrics=["rmse", "brier", "frequency_bias", "seeps",
            "seeps_skill"], thresholds={"tp24h": 1e-3}, seeps_climatology=clim, regions=["global"], by="season",
        )  # fmt: skip
        plain = score(
            forecast.assign_attrs(system="model"), truth, metrics=["rmse", "brier", "frequency_bias", "seeps"],
            thresholds={"tp24h": 1e-3}, seeps_climatology=clim,
        )  # fmt: skip
        for name, expected in {
            "brier": brier(forecast[["tp24h"]], truth, 1e-3),
            "frequency_bias": frequency_bias(forecast[["tp24h"]], truth, 1e-3),
            "seeps": seeps(forecast[["tp24h"]], truth, clim),
        }.items():
            result = plain.sel(metric=name)
            np.testing.assert_allclose(result.tp24h.sel(system="model"), expected.tp24h, rtol=1e-12)
            assert result.t2m.isnull().all()
            assert (result.tp24h_low < result.tp24h).all() and (result.tp24h < result.tp24h_high).all()
        assert table.tp24h.dims == ("system", "metric", "lead_time", "region", "season")
        # in another unit the same
        millimeters = [ds.assign(tp24h=(ds.tp24h * 1000).assign_attrs(units="mm")) for ds in (forecast, truth)]
        result = score(
            millimeters[0].assign_attrs(system="model"), millimeters[1], metrics=["seeps"], seeps_climatology=clim
        )
        np.testing.assert_allclose(result.tp24h.sel(metric="seeps"), plain.tp24h.sel(metric="seeps"), rtol=1e-9)
        # the model is persistence
        np.testing.assert_allclose(table.tp24h.sel(metric="seeps_skill_vs_persistence"), 0, atol=1e-12)

    def test_climatology_is_scored_with_its_event_frequency(self):
        forecast, truth = self.rainy()
        train = rain(days=1200)
        train["t2m"] = train.tp24h.copy(data=280 + train.tp24h.values).assign_attrs(units="K")
        clim, thresholds = climatology(train), {"tp24h": 5e-3}
        frequency = event_frequency(train, thresholds)
        metrics = ["brier", "brier_skill", "frequency_bias"]
        table = score(forecast, truth, clim, metrics=metrics, thresholds=thresholds, event_frequency=frequency)
        outcome = (truth.tp24h > 5e-3).astype(float).sel(time=forecast.valid_time).drop_vars("time")
        probability = climatology_at(frequency, forecast.valid_time).tp24h.drop_vars(
            ["hour", "dayofyear"], errors="ignore"
        )
        over, weight = ("init_time", "latitude", "longitude"), latitude_weights(truth)
        expected = ((probability - outcome) ** 2).weighted(weight).mean(over)
        values = table.tp24h.sel(system="climatology")
        np.testing.assert_allclose(values.sel(metric="brier"), expected, rtol=1e-10)
        mean = probability.weighted(weight).mean(over) / outcome.weighted(weight).mean(over)
        np.testing.assert_allclose(values.sel(metric="frequency_bias"), mean, rtol=1e-10)
        first = table.tp24h.sel(system="forecast")
        skill = 1 - first.sel(metric="brier") / expected
        np.testing.assert_allclose(first.sel(metric="brier_skill_vs_climatology"), skill, rtol=1e-10)
        # days are independent: persistence has about twice the Brier score of the frequency, p (1 - p)
        np.testing.assert_allclose(first.sel(metric="brier_skill_vs_climatology"), -1, atol=0.1)
        edge = table.sel(system="forecast", metric="brier_skill_vs_climatology")
        assert (edge.tp24h_low < edge.tp24h).all() and (edge.tp24h < edge.tp24h_high).all()
        assert table.t2m.isnull().all()
        # one that the user made is one as well
        by_hand = climatology((train[["tp24h"]] > 5e-3).astype(float))
        same = score(forecast, truth, clim, metrics=metrics, thresholds=thresholds, event_frequency=by_hand)
        np.testing.assert_allclose(same.tp24h, table.tp24h, rtol=1e-6)
        # without, nothing
        less = score(forecast, truth, clim, metrics=metrics, thresholds=thresholds)
        assert less.tp24h.sel(metric="brier_skill_vs_climatology").isnull().all()
        assert less.tp24h.sel(metric="brier", system="climatology").isnull().all()

    def test_event_frequency_of_climatology_on_levels_and_with_gaps(self):
        train, truth = (two_levels(weather(days=d, seed=s, start=y)) for d, s, y in (
            (400, 3, "2015-01-01"), (60, 4, "2018-01-01")))  # fmt: skip
        forecast, clim, thresholds = two_levels(noisy_forecast(truth[["t2m"]])), climatology(train), {"t2m": 280.0}
        frequency = event_frequency(train, thresholds)
        arguments = {"metrics": ["brier"], "thresholds": thresholds, "event_frequency": frequency}
        whole = score(forecast, truth, clim, **arguments)
        assert np.isfinite(whole.t2m.sel(system="climatology")).all() and whole.t.isnull().all()
        part = score(forecast.isel(latitude=[1, 2, 3]), truth.isel(latitude=[1, 2, 3]),
                     clim.isel(latitude=[1, 2, 3]), weights=None,
                     **{**arguments, "event_frequency": frequency.isel(latitude=[1, 2, 3])})  # fmt: skip
        # where the frequency is not known no system counts
        arguments["event_frequency"] = frequency.where(frequency.latitude > -60)
        result = score(forecast, truth, clim, weights=None, skipna=True, **arguments)
        np.testing.assert_allclose(result.t2m, part.t2m, rtol=1e-10)

    def test_a_baseline_that_is_called_climatology_has_scores(self):
        forecast, truth = self.rainy()
        years = [forecast.assign(tp24h=forecast.tp24h.roll(init_time=shift)) for shift in (30, 60, 90)]
        members = xr.concat(years, "number", coords="minimal", compat="override", join="override")
        table = score(forecast, truth, thresholds={"tp24h": 5e-3}, baselines={"climatology": members}, bootstrap=None,
                      metrics=["brier", "brier_skill"])  # fmt: skip
        values = table.tp24h.sel(system="climatology", metric="brier")
        np.testing.assert_allclose(values, brier(members[["tp24h"]], truth, 5e-3).tp24h, rtol=1e-12)
        assert np.isfinite(table.tp24h.sel(system="forecast", metric="brier_skill_vs_climatology")).all()

    def test_errors_of_event_frequencies(self):
        forecast, truth = self.rainy()
        train, thresholds = rain(days=800), {"tp24h": 5e-3}
        clim = climatology(train.assign(t2m=train.tp24h + 280).assign(t2m=lambda ds: ds.t2m.assign_attrs(units="K")))

        def scored(frequency, clim=clim, thresholds=thresholds):
            return score(forecast, truth, clim, thresholds=thresholds, event_frequency=frequency)

        frequency = event_frequency(train, thresholds)
        with pytest.raises(ValueError, match="event_frequency .* both"):
            scored(frequency, thresholds=None)
        with pytest.raises(ValueError, match="event_frequency .* both"):
            scored(frequency, clim=None)
        with pytest.raises(ValueError, match="above 0.005 m, .*threshold is 0.01 m"):
            scored(frequency, thresholds={"tp24h": 1e-2})
        with pytest.raises(ValueError, match=r"\['tp24h'\].* none of \['t2m'\]"):
            scored(frequency, thresholds={"t2m": 280.0})
        with pytest.raises(ValueError, match="probabilities from 0 to 1"):
            scored(clim[["t2m"]], thresholds={"t2m": 280.0})
        with pytest.raises(ValueError, match="the event frequency is from 2005-03-01.*verified times lie in it"):
            scored(event_frequency(truth, thresholds))

    def test_seeps_beside_a_regression_of_all_variables(self):
        forecast, truth = self.rainy()
        train = rain(days=800)
        train["t2m"] = train.tp24h.copy(data=280 + train.tp24h.values).assign_attrs(units="K")
        clim, rainy = climatology(train), seeps_climatology(train[["tp24h"]])
        fitted = fit_linear_regression(train, clim, forecast.lead_time, modes=5)
        table = score(forecast, truth, clim, metrics=["seeps"], seeps_climatology=rainy, baselines={"linear": fitted})
        values = fitted(truth, forecast.init_time, forecast.lead_time)
        np.testing.assert_allclose(
            table.tp24h.sel(system="linear", metric="seeps"), seeps(values[["tp24h"]], truth, rainy).tp24h, rtol=1e-9
        )

    def test_errors_of_thresholds(self):
        forecast, truth = self.rainy()
        with pytest.raises(ValueError, match="threshold of tp24h is '1'.* number"):
            score(forecast, truth, thresholds={"tp24h": "1"})
        with pytest.raises(ValueError, match="thresholds=1.0 .*mapping by variable"):
            score(forecast, truth, thresholds=1.0)
        with pytest.raises(ValueError, match="metrics has 'rmse' twice"):
            score(forecast, truth, metrics=["rmse", "mae", "rmse"])
        with pytest.raises(ValueError, match="brier needs thresholds"):
            score(forecast, truth, metrics=["brier"])
        with pytest.raises(ValueError, match="seeps_skill needs seeps_climatology"):
            score(forecast, truth, metrics=["seeps_skill"])
        with pytest.raises(ValueError, match=r"\['tp'\], but the forecast has \['tp24h', 't2m'\]"):
            score(forecast, truth, thresholds={"tp": 1e-3})
        period = {"climatology_start": "1990-01-01", "climatology_end": "1999-12-31"}
        with pytest.raises(ValueError, match="has .* and nothing on"):
            score(forecast, truth, seeps_climatology=xr.Dataset(attrs={"dry": 1e-3, **period}))

    def test_wind_as_a_vector(self):
        truth = weather(names=("u10", "v10", "t2m"))
        forecast = noisy_forecast(truth)
        table = score(forecast, truth, vectors={"wind10": ("u10", "v10")}, by="month", regions=["global"])
        plain = score(forecast, truth, vectors={"wind10": ("u10", "v10")})
        wind = plain.wind10.sel(system="forecast")
        np.testing.assert_allclose(wind.sel(metric="rmse"), wind_vector_rmse(forecast, truth), rtol=1e-12)
        assert plain.wind10.attrs["units"] == "m s-1" and wind.sel(metric="mae").isnull().all()
        assert (plain.wind10_low.sel(metric="rmse") < plain.wind10.sel(metric="rmse")).all()
        assert np.isfinite(table.wind10.sel(metric="rmse_skill_vs_persistence")).all()
        with pytest.raises(ValueError, match="has no \\['u'\\]"):
            score(forecast, truth, vectors={"wind": ("u", "v10")})
        with pytest.raises(ValueError, match="u10 is in 'm s-1' and t2m in 'K'"):
            score(forecast, truth, vectors={"wind": ("u10", "t2m")})


def test_differences_to_each_baseline_have_intervals_of_their_own():
    truth = weather(days=200)
    clim = climatology(weather(days=400, start="2016-01-01"))
    forecast = noisy_forecast(truth, noise=0.5)
    metrics = ["rmse", "acc", "mae_skill", "acc_difference", "rmse_difference"]
    table = score(forecast, truth, clim, metrics=metrics, bootstrap=Bootstrap(block=4))
    values, reference = (table.t2m.sel(system=name, metric="rmse") for name in ("forecast", "persistence"))
    result = table.sel(system="forecast", metric="rmse_difference_vs_persistence")
    np.testing.assert_allclose(result.t2m, values - reference)
    both = table.sel(system=["forecast", "persistence"], metric="rmse")
    apart = (both.t2m_high - both.t2m_low).sum("system")
    assert (result.t2m_high - result.t2m_low < apart).all()
    # against arch, which draws whole blocks of pairs of both systems
    lead = 1
    errors = [
        ((f - truth.t2m.sel(time=f.valid_time)) ** 2).weighted(latitude_weights(truth)).mean(("latitude", "longitude"))
        for f in (forecast.t2m[:, lead], persistence(truth, forecast.init_time, LEADS).t2m[:, lead])
    ]
    drawn = MovingBlockBootstrap(4, *(error.values for error in errors), seed=3)
    ends = drawn.conf_int(lambda a, b: np.sqrt(a.mean()) - np.sqrt(b.mean()), 2000, method="percentile", size=0.95)
    np.testing.assert_allclose([result.t2m_low[lead], result.t2m_high[lead]], ends.ravel(), rtol=0.08)
    acc = table.sel(system="forecast", metric="acc_difference_vs_persistence").t2m
    np.testing.assert_allclose(acc, table.t2m.sel(system="forecast", metric="acc") - table.t2m.sel(
        system="persistence", metric="acc"))  # fmt: skip
    with pytest.raises(ValueError, match="bias_skill'\\] are unknown"):
        score(forecast, truth, metrics=["bias_skill"])


class TestEdgeCases:
    def test_intervals_count_what_was_verified(self):
        truth = weather(days=120)
        forecast = noisy_forecast(truth)
        few = score(forecast, truth.isel(time=slice(0, 12)), bootstrap=Bootstrap(block=2))
        assert few.t2m_low.isnull().all() if "t2m_low" in few.coords else "fewer than five blocks" in few.intervals
        by_month = score(forecast, truth, by="month", bootstrap=Bootstrap(block=40))
        assert by_month.t2m_low.isnull().all()

    def test_a_lead_without_truth_makes_no_longer_blocks(self):
        truth = weather(days=120)
        forecast = noisy_forecast(truth)
        far = forecast.isel(lead_time=[-1])
        later = far.valid_time + np.timedelta64(199, "D")
        far = far.assign_coords(lead_time=[np.timedelta64(200, "D")], valid_time=later)
        with pytest.warns(UserWarning, match="leads 200 d"):
            both = score(xr.concat([forecast, far], "lead_time"), truth, metrics=["rmse"], persistence=False)
        alone = score(forecast, truth, metrics=["rmse"], persistence=False)
        np.testing.assert_allclose(both.t2m_low[..., : alone.sizes["lead_time"]], alone.t2m_low)

    def test_an_unused_argument_is_an_error(self):
        truth = weather(days=60)
        forecast = noisy_forecast(truth)
        with pytest.raises(ValueError, match=r"thresholds .* metrics=\['rmse'\]"):
            score(forecast, truth, metrics=["rmse"], thresholds={"t2m": 280.0})

    def test_pairs_and_intervals_count_times_that_have_values(self):
        truth = weather(days=60, names=("t2m", "u10"))
        forecast = noisy_forecast(truth)  # 118 initializations, blocks of 5
        holes = truth.copy(deep=True)
        holes["t2m"][:] = holes.t2m.where(holes.time < holes.time[41])
        plain = score(forecast, truth, metrics=["rmse", "rmse_skill"], skipna=True, persistence=False, climatology=None,
                      baselines={"other": noisy_forecast(truth, seed=4)})  # fmt: skip
        assert plain.pairs.values.tolist() == plain.t2m_pairs.values.tolist() == [118, 118]
        table = score(forecast, holes, metrics=["rmse", "rmse_skill"], skipna=True, persistence=False,
                      baselines={"other": noisy_forecast(truth, seed=4)})  # fmt: skip
        # 6 h after the first, third, ... of 41 times, or 24 h after
        assert table.t2m_pairs.values.tolist() == [20, 19] and table.u10_pairs.values.tolist() == [118, 118]
        assert table.pairs.values.tolist() == [118, 118]
        assert table.t2m_low.isnull().all() and np.isfinite(table.t2m).any()
        np.testing.assert_array_equal(table.u10_low, plain.u10_low)
        # nothing else is scored: the bootstrap draws from what has values
        alone = score(forecast[["t2m"]], holes, metrics=["rmse"], skipna=True, persistence=False)
        assert alone.pairs.values.tolist() == [20, 19]
        assert alone.attrs["intervals"] == "none: 20 initializations are fewer than five blocks of 5"
        # a season and a region of its own
        west = truth.t2m.where(truth.longitude > 100)
        parts = score(forecast, truth.assign(t2m=west), metrics=["rmse"], skipna=True, by="month", persistence=False,
                      regions={"west": (-90, 90, 0, 90), "all": (-90, 90, 0, 360)})  # fmt: skip
        assert parts.t2m_pairs.dims == ("lead_time", "region", "month")
        assert (parts.t2m_pairs.sel(region="west") == 0).all()
        assert (parts.t2m_pairs.sel(region="all") == parts.pairs).all()
        assert parts.t2m_pairs.attrs["long_name"] == "number of initializations with values of t2m"

    def test_a_baseline_with_one_selected_lead(self):
        truth = weather(days=40)
        forecast = noisy_forecast(truth)
        single = forecast.isel(lead_time=1)
        result = score(single, truth, baselines={"other": noisy_forecast(truth, seed=4).isel(lead_time=1)})
        whole = score(forecast, truth, baselines={"other": noisy_forecast(truth, seed=4)})
        for system in ("forecast", "other"):
            np.testing.assert_allclose(
                result.t2m.sel(system=system, metric="rmse")[0], whole.t2m.sel(system=system, metric="rmse")[1]
            )

    def test_no_climatology_or_fit_may_contain_verified_times(self):
        truth = weather(days=60)
        forecast = noisy_forecast(truth)
        train, verified = (
            weather(days=400, start="2015-01-01", seed=3),
            climatology(weather(days=400, start="2017-06-01")),
        )
        damped = fit_damped_persistence(train, verified, forecast.lead_time)
        with pytest.raises(ValueError, match="the climatology of the baseline 'damped' is from 2017-06-01"):
            score(forecast, truth, baselines={"damped": damped})
        rainy = rain(days=400, start="2005-01-01")
        values = persistence(rainy, rainy.time[:300], ["1D"])
        with pytest.raises(ValueError, match="the climatology for SEEPS is from 2005-01-01"):
            score(values, rainy, seeps_climatology=seeps_climatology(rainy))
        clim = climatology(train)
        factors = fit_calibration(forecast, truth, clim)
        with pytest.raises(ValueError, match="verified times lie in it"):
            score(forecast, truth, clim, calibrated=factors)
        score(forecast, truth, clim, calibrated=factors, allow_overlap=True)

    def test_skilful_against_some_baselines(self):
        truth = weather(days=200)
        forecast, better = noisy_forecast(truth, noise=0.5), noisy_forecast(truth, seed=9, noise=0.05)
        table = score(forecast, truth, baselines={"other": better}, bootstrap=Bootstrap(block=4))
        assert skilful_to(table).t2m.sel(system="forecast") == np.timedelta64(0)
        result = skilful_to(table, ["persistence"]).t2m
        assert set(result.system.values) == {"forecast", "other"}
        assert result.sel(system="other") == np.timedelta64(24, "h")
        with pytest.raises(ValueError, match="baselines="):
            skilful_to(table, ["climatology"])

    def test_repeated_names_and_missing_values(self):
        truth = weather(days=40)
        forecast = noisy_forecast(truth)
        with pytest.raises(ValueError, match="two systems are called 'a b'"):
            score(forecast, truth, baselines={"a b": forecast, "a_b": forecast})
        holes = forecast.copy(deep=True)
        holes["t2m"][3, 0, 1, 1] = np.nan
        with pytest.warns(UserWarning, match=r"\['t2m'\] are missing"):
            score(holes, truth, metrics=["brier"], thresholds={"t2m": 280.0})
        with pytest.raises(ValueError, match="initialization 2.* more than once"):
            score(forecast.isel(init_time=[0, 0, 1]), truth)
        with pytest.raises(ValueError, match=r"vectors .*metrics=\["):
            winds = weather(days=20, names=("u10", "v10"))
            score(noisy_forecast(winds), winds, metrics=["mae"], vectors={"wind": ("u10", "v10")})

    def test_wind_where_one_component_is_missing(self):
        truth = weather(days=20, names=("u10", "v10"))
        forecast = noisy_forecast(truth)
        holes = forecast.copy(deep=True)
        holes["u10"][:, :, 0, 0] = np.nan
        both = holes.copy(deep=True)
        both["v10"][:, :, 0, 0] = np.nan
        np.testing.assert_allclose(
            wind_vector_rmse(holes, truth, skipna=True), wind_vector_rmse(both, truth, skipna=True), rtol=1e-12
        )

    def test_a_vector_whose_components_lack_other_cells_is_refused(self):
        truth = weather(days=20, names=("u10", "v10"))
        truth["u10"][:, :, 0] = np.nan
        truth["v10"][:, :, 4] = np.nan  # as many, of the same weight
        with pytest.raises(ValueError, match="u10 or v10 have missing values"):
            score(noisy_forecast(truth), truth, vectors={"w": ("u10", "v10")}, metrics=["rmse"], skipna=True)


def test_a_height_without_units_is_no_pressure_and_empty_selections_are_named():
    truth = weather().isel(time=slice(0, 20))
    forecast = persistence(truth, truth.time.values[:4], ["6h", "12h"])[["t2m"]]
    height = xr.DataArray([2.0], dims="lev", attrs={"standard_name": "height"})
    expected = rmse(forecast, truth).t2m
    np.testing.assert_allclose(rmse(forecast.expand_dims("lev").assign_coords(lev=height), truth).t2m, expected)
    for dim in ("init_time", "lead_time"):
        with pytest.raises(ValueError, match=f"the forecast has no {dim}s: its selection is empty. Select some"):
            score(forecast.isel({dim: slice(0, 0)}), truth)
    times = forecast.init_time.values.copy()
    times[1] = np.datetime64("NaT")
    with pytest.raises(ValueError, match=r"1 of 4 init_times of the forecast are missing .* forecast = forecast.isel"):
        score(forecast.drop_vars("valid_time", errors="ignore").assign_coords(init_time=times), truth)


class TestBaselinesOfTrainingData:
    """`score(train=...)` fits all baselines."""

    ALL = ("persistence", "climatology", "anomaly persistence", "damped persistence", "linear regression")

    @pytest.fixture
    def data(self):
        ds = red_noise(times=2200)  # a year and a half
        train, test = ds.isel(time=slice(0, 1800)), ds.isel(time=slice(1800, None))
        return persistence(test, test.time[:-8:4], ["6h", "24h"]).assign_attrs(system="mine"), test, train

    def test_they_are_those_fitted_by_hand(self, data):
        forecast, test, train = data
        scores = score(forecast, test, train=train, bootstrap=None)
        assert scores.system.values.tolist() == ["mine", *self.ALL]
        normal = climatology(train)
        fits = {
            "anomaly persistence": AnomalyPersistence(normal),
            "damped persistence": fit_damped_persistence(train, normal, forecast.lead_time),
            "linear regression": fit_linear_regression(train, normal, forecast.lead_time),
        }
        expected = score(forecast, test, normal, baselines=fits, bootstrap=None)
        xr.testing.assert_allclose(scores, expected)
        # noise with 0.8 left after a step: damping helps
        rmse = scores.t2m.sel(metric="rmse", lead_time=pd.Timedelta("24h"))
        assert rmse.sel(system="damped persistence") < rmse.sel(system="climatology") < rmse.sel(system="persistence")

    def test_a_baseline_of_the_user_stands_in_for_the_fitted_one(self, data):
        forecast, test, train = data
        mine = {"damped persistence": forecast, "linear regression": forecast, "other": forecast}
        scores = score(forecast, test, train=train, baselines=mine, bootstrap=None, metrics=["rmse"])
        systems = ["mine", "persistence", "climatology", "anomaly persistence", *mine]
        assert scores.system.values.tolist() == systems
        rmse = scores.t2m.sel(metric="rmse")
        np.testing.assert_array_equal(rmse.sel(system="damped persistence"), rmse.sel(system="mine"))

    def test_more_variables_and_levels_in_the_training_data_are_left_out(self, data):
        forecast, test, train = data
        more = train.assign(z=train.t2m * 2)
        scores = score(forecast, test, train=more, bootstrap=None, metrics=["rmse"])
        xr.testing.assert_allclose(scores, score(forecast, test, train=train, bootstrap=None, metrics=["rmse"]))

    def test_verified_times_must_not_be_trained_on(self, data):
        forecast, test, train = data
        with pytest.raises(ValueError, match="verified times lie in it"):
            score(forecast, test, train=xr.concat([train, test], "time"))

    def test_without_persistence_no_anomaly_persistence(self, data):
        forecast, test, train = data
        scores = score(forecast, test, climatology(train), persistence=False, bootstrap=None)
        assert scores.system.values.tolist() == ["mine", "climatology"]

    def test_a_climatology_of_the_valid_times_alone_gives_no_anomaly_persistence(self, data):
        forecast, test, train = data
        first = forecast.isel(init_time=[0])
        days = np.unique(first.valid_time.dt.dayofyear)
        hours = np.setdiff1d(np.unique(first.valid_time.dt.hour), first.init_time.dt.hour)
        normal = climatology(train).sel(dayofyear=days, hour=hours)
        scores = score(first.isel(lead_time=[0]), test, normal, bootstrap=None)
        assert scores.system.values.tolist() == ["mine", "persistence", "climatology"]

    def test_a_season_makes_raw_persistence_a_straw_man(self):
        times = pd.date_range("1981-01-01", periods=240, freq="MS", unit="ns")
        season = 10 * np.cos(2 * np.pi * np.arange(240) / 12)
        random = np.random.default_rng(0)
        ds = two_cells(times, season, factors=(1.0, 1.0))
        ds = ds + 0.5 * random.normal(size=(240, 2, 1))
        ds["t2m"].attrs["units"] = "K"
        train, test = ds.isel(time=slice(0, 180)), ds.isel(time=slice(180, None))
        leads = xr.DataArray([6], dims="lead_time", attrs={"units": "months"})
        forecast = persistence(test, test.time[:40], leads).assign_attrs(system="mine")
        rmse = score(forecast, test, train=train, bootstrap=None).t2m.sel(metric="rmse").squeeze("lead_time")
        # raw: 20 |cos| at half a year, so 14.1; anomalies: 0.5 * sqrt(2)
        assert float(rmse.sel(system="persistence")) == pytest.approx(14.1, abs=0.8)
        assert float(rmse.sel(system="anomaly persistence")) == pytest.approx(0.71, abs=0.12)
