import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import random_analyses, shifted_forecast

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics import aggregation
from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.deterministic import acc, activity, bias, mae, rmse, small_scale_variance
from simvp_climate.metrics.score import score

GOLDEN = Path(__file__).parents[1] / "goldens" / "metrics_wb64x32"
METRICS = {
    "rmse": lambda f, t, c: rmse(f, t),
    "rmse_unweighted": lambda f, t, c: rmse(f, t, weights=None),
    "mae": lambda f, t, c: mae(f, t),
    "bias": lambda f, t, c: bias(f, t),
    "acc_pooled": lambda f, t, c: acc(f, t, c),
    "acc_per_init": lambda f, t, c: acc(f, t, c, average="per_init"),
}


@pytest.fixture(scope="module")
def golden():
    names = ("forecast", "truth", "climatology")
    forecast, truth, clim = (xr.load_dataset(GOLDEN / f"{name}.nc", decode_timedelta=True) for name in names)
    # that of WeatherBench 2 does not record its period
    return forecast, truth, clim.assign_attrs(climatology_start="1990-01-01", climatology_end="2019-12-31")


@pytest.fixture(scope="module")
def expected():
    return json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(scope="module")
def plain(golden):
    return score(*golden).sortby("level")


def row(index, rows=32):
    return xr.DataArray(np.arange(rows) == index, dims="latitude") * 1.0


class TestGoldens:
    def check(self, name, forecast, truth, clim, expected):
        scores = METRICS[name](forecast, truth, clim)
        records = [r for r in expected["expected"] if r["metric"] == name]
        assert records
        for record in records:
            where = {"lead_time": np.timedelta64(record["lead_hours"], "h")}
            if record["level"] is not None:
                where["level"] = record["level"]
            value = float(scores[record["variable"]].sel(where))
            if name == "bias":  # it may be near zero
                same = {key: record[key] for key in ("variable", "level", "lead_hours")}
                scale = next(
                    r["value"] for r in expected["expected"] if r["metric"] == "rmse" and same.items() <= r.items()
                )
            else:
                scale = abs(record["value"])
            # the goldens are printed with 12 digits
            assert abs(value - record["value"]) < 1e-11 * scale, record

    @pytest.mark.parametrize("name", METRICS)
    def test_agrees_with_weatherbench(self, golden, expected, name):
        self.check(name, *golden, expected)

    @pytest.mark.parametrize("name", ["rmse", "acc_pooled", "acc_per_init"])
    def test_in_chunks_and_blocks(self, golden, expected, name, monkeypatch):
        forecast, truth, clim = golden
        # two inits and all leads, then a part of the leads of one init
        for size in (2 * 5 * 5 * 2048 * 8, 2 * 5 * 2048 * 8):
            monkeypatch.setattr(aggregation, "_BLOCK_BYTES", size)
            chunked = forecast.chunk(init_time=4, lead_time=2), truth.chunk(time=7), clim.chunk(hour=1)
            self.check(name, *chunked, expected)

    def test_latitude_weights(self, golden, expected):
        np.testing.assert_allclose(latitude_weights(golden[0]), expected["latitude_weights"], rtol=1e-11)

    def test_the_root_comes_last(self, golden, expected):
        pooled = rmse(golden[0], golden[1])
        for record in expected["expected"]:
            if record["metric"] == "rmse_root_first" and record["level"] is None:
                lead = np.timedelta64(record["lead_hours"], "h")
                assert record["value"] < float(pooled[record["variable"]].sel(lead_time=lead))

    def test_score_has_the_same_numbers(self, golden):
        forecast, truth, clim = golden
        table = score(forecast, truth, clim)
        for name, scores in {"rmse": rmse(forecast, truth), "acc": acc(forecast, truth, clim)}.items():
            xr.testing.assert_allclose(
                table.sel(system="forecast", metric=name).drop_vars(["system", "metric", "pairs"]),
                scores,
                rtol=1e-14,
            )


class TestByHand:
    def test_a_constant_error(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth, error=-2.0)
        for metric, value in ((rmse, 2), (mae, 2), (bias, -2)):
            result = metric(forecast, truth).t2m
            assert result.dims == ("lead_time",)
            np.testing.assert_allclose(result, value, rtol=1e-12)
            assert result.attrs == {"units": "K", "long_name": "temperature"}
        np.testing.assert_array_equal(rmse(forecast, truth).lead_time, forecast.lead_time)

    def test_an_error_on_one_row_weighs_as_the_row(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth, error=row(3))
        weight = float(latitude_weights(truth)[3])
        np.testing.assert_allclose(rmse(forecast, truth).t2m, np.sqrt(weight / 32), rtol=1e-12)
        np.testing.assert_allclose(bias(forecast, truth).t2m, weight / 32, rtol=1e-12)
        np.testing.assert_allclose(bias(forecast, truth, weights=None).t2m, 1 / 32, rtol=1e-12)
        np.testing.assert_allclose(bias(forecast, truth, weights="cos").t2m, weight / 32, rtol=1e-12)

    def test_cosine_weights_leave_out_the_poles(self):
        truth = random_analyses(latitude=5)
        truth = truth.assign_coords(latitude=np.linspace(-90, 90, 5))
        forecast = shifted_forecast(truth, error=row(0, 5))
        np.testing.assert_allclose(bias(forecast, truth, weights="cos").t2m, 0, atol=1e-12)
        assert (bias(forecast, truth).t2m > 0.01).all()

    def test_anomaly_correlation_of_a_shrunk_and_a_mirrored_anomaly(self):
        truth = random_analyses()
        clim = climatology(truth)
        anomaly = shifted_forecast(truth, leads=(6,)).t2m - 280
        perfect = shifted_forecast(truth, leads=(6,))
        shift = climatology(truth).t2m.sel(hour=perfect.valid_time.dt.hour).drop_vars("hour")
        for factor, value in ((0.3, 1), (-2.0, -1)):
            forecast = perfect.assign(t2m=shift + factor * (perfect.t2m - shift))
            for kind in ("pooled", "per_init"):
                result = acc(forecast, truth, clim, average=kind, allow_overlap=True).t2m
                np.testing.assert_allclose(result, value, rtol=1e-12)
                assert result.attrs["units"] == "1"
        assert anomaly.shape == perfect.t2m.shape

    def test_the_two_kinds_of_anomaly_correlation(self):
        # two inits with one anomaly each of 1 and 3; forecast right for the first, mirrored for the second
        truth = random_analyses(times=3)
        truth["t2m"] = xr.zeros_like(truth.t2m) + xr.DataArray([0.0, 1.0, 3.0], dims="time")
        clim = xr.zeros_like(truth.isel(time=0, drop=True)).expand_dims(hour=[0, 6, 12])
        forecast = shifted_forecast(truth, inits=2, leads=(6,))
        forecast["t2m"] = forecast.t2m * xr.DataArray([1.0, -1.0], dims="init_time")
        # pooled (1 - 9) / (1 + 9); the mean of 1 and -1 is 0
        with pytest.raises(ValueError, match=r"climatology does not say .*climatology_start.*allow_overlap=True"):
            acc(forecast, truth, clim)
        clim = clim.assign_attrs(climatology_start="1990-01-01", climatology_end="1999-12-31")
        np.testing.assert_allclose(acc(forecast, truth, clim).t2m, -0.8, rtol=1e-12)
        np.testing.assert_allclose(acc(forecast, truth, clim, average="per_init").t2m, 0, atol=1e-12)
        with pytest.raises(ValueError, match="average='mean' is unknown"):
            acc(forecast, truth, clim, average="mean")

    def test_other_dimensions_and_a_selected_lead_or_init(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth, error=1.0)
        members = xr.concat([forecast, forecast + 2], "number")
        np.testing.assert_allclose(bias(members, truth).t2m, [[1, 3], [1, 3]])
        np.testing.assert_allclose(bias(forecast.isel(init_time=1), truth).t2m, 1)
        np.testing.assert_allclose(bias(forecast.isel(lead_time=1), truth).t2m, [1])
        picked = forecast.isel(lead_time=1, init_time=0)
        np.testing.assert_allclose(bias(picked.drop_vars("valid_time"), truth).t2m, [1])

    def test_valid_time_must_be_the_sum_of_init_and_lead(self):
        truth = random_analyses()
        right = shifted_forecast(truth)
        odd = right.assign_coords(lead_time=[1, 2])
        with pytest.raises(ValueError, match="lead_time has dtype int64 .* timedelta64"):
            rmse(odd, truth)
        later = right.assign_coords(lead_time=right.lead_time + np.timedelta64(6, "h"))
        for metric in (rmse, score):
            with pytest.raises(ValueError, match=r"valid_time is 2018-01-01T06.* lead_time 12 h.* 2018-01-01T12"):
                metric(later, truth)
        np.testing.assert_allclose(rmse(right.drop_vars("valid_time"), truth).t2m, 0, atol=1e-12)

    def test_monthly_leads(self):
        truth = random_analyses(times=24).assign_coords(
            time=pd.date_range("2000-01-01", periods=24, freq="MS").to_numpy()
        )
        leads = xr.DataArray([1, 3], dims="lead_time", attrs={"units": "months"})
        forecast = persistence(truth, truth.time[:4], leads)
        table = score(forecast, truth, climatology(truth), allow_overlap=True)
        error = truth.t2m.values[[0, 1, 2, 3]] - truth.t2m.values[[3, 4, 5, 6]]
        expected = np.sqrt((error**2).mean(axis=(0, 2)) @ latitude_weights(truth).values / 32)
        np.testing.assert_allclose(table.t2m.sel(system="forecast", metric="rmse", lead_time=3), expected, rtol=1e-12)
        assert table.lead_time.attrs["units"] == "months"


class TestConventions:
    @pytest.mark.parametrize(
        "change",
        {
            "longitude first": lambda ds: ds.transpose("longitude", ..., "latitude"),
            "descending": lambda ds: ds.isel(latitude=slice(None, None, -1)),
            "from -180": lambda ds: ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude"),
            "short names": lambda ds: ds.rename(latitude="lat", longitude="lon"),
            "noise": lambda ds: ds.assign_coords(longitude=ds.longitude + 6e-14),
            "chunks": lambda ds: ds.chunk(latitude=5),
            "levels in Pa": lambda ds: ds.isel(level=[1, 0]).assign_coords(
                level=("level", [85000.0, 50000.0], {"units": "Pa", "standard_name": "air_pressure"})
            ),
        }.items(),
        ids=lambda item: item[0],
    )
    def test_order_and_names_do_not_matter(self, golden, plain, change):
        # first the forecast is changed, then the other two
        for alone in (True, False):
            args = [change[1](ds) if (index == 0) == alone else ds for index, ds in enumerate(golden)]
            result = score(*args).assign_coords(level=args[0].level.values).sortby("level")
            result = result.assign_coords(level=plain.level)
            xr.testing.assert_allclose(result, plain, rtol=1e-12)
            assert result.attrs == plain.attrs

    def test_every_column_counts_on_noisy_longitudes(self):
        truth = random_analyses(times=2)
        noisy = truth.assign_coords(longitude=np.rad2deg(np.linspace(0, 2 * np.pi, 64, endpoint=False)))
        assert (noisy.longitude.values != truth.longitude.values).any()
        forecast = shifted_forecast(truth, inits=1, leads=(6,))
        forecast["t2m"] = forecast.t2m + np.arange(64.0) ** 2
        # 0 + 1 + 4 + ... + 63^2 = 63 * 64 * 127 / 6
        np.testing.assert_allclose(bias(forecast, noisy).t2m, 63 * 127 / 6, rtol=1e-12)

    def test_flat_names_find_the_levels_of_the_truth(self, golden):
        forecast, truth, _ = golden
        flat = forecast[["geopotential"]].sel(level=500, drop=True).rename(geopotential="z500")
        np.testing.assert_allclose(rmse(flat, truth).z500, rmse(forecast, truth).geopotential.sel(level=500))

    def test_a_selected_level_is_compared_with_that_level(self, golden):
        forecast, truth, _ = golden
        some = forecast[["temperature"]].sel(level=850)
        result = rmse(some, truth)
        np.testing.assert_allclose(result.temperature, rmse(forecast, truth).temperature.sel(level=850))
        assert result.level == 850

    def test_a_truth_with_one_level_verifies_only_that_level(self, golden):
        forecast, truth, _ = (ds[["temperature"]] for ds in golden)
        for selected in (forecast.sel(level=[850]), forecast.sel(level=850)):
            result = rmse(selected, truth.sel(level=[850])).temperature
            np.testing.assert_allclose(np.ravel(result), rmse(forecast, truth).temperature.sel(level=850), rtol=1e-12)
            assert ("level" in result.dims) == ("level" in selected.dims)
            with pytest.raises(ValueError, match="level 850 hPa is not in"):
                rmse(selected, truth.sel(level=[500]))
        with pytest.raises(ValueError, match="levels .* the forecast has none"):
            rmse(forecast.isel(level=0, drop=True), truth)

    def test_levels_keep_the_labels_of_the_forecast(self, golden):
        xr.testing.assert_identical(rmse(golden[0], golden[1]).level, golden[0].level)


class TestErrors:
    def test_variables_levels_units_and_grids_must_match(self, golden):
        truth = random_analyses()
        forecast = shifted_forecast(truth)
        with pytest.raises(ValueError, match="truth does not fit: no variable 'q'"):
            rmse(forecast.rename(t2m="q"), truth)
        with pytest.raises(ValueError, match=r"t2m has units 'K', but 'degC' in the truth"):
            rmse(forecast, truth.assign(t2m=truth.t2m.assign_attrs(units="degC")))
        with pytest.raises(ValueError, match="truth does not fit: the grids differ: 32 against 16"):
            rmse(forecast, random_analyses(latitude=16))
        with pytest.raises(ValueError, match="truth does not fit: level 850 hPa is not in"):
            rmse(golden[0], golden[1].sel(level=[500]))

    def test_spellings_of_a_unit_are_one_unit(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth, error=1.0)
        forecast.t2m.attrs["units"], truth.t2m.attrs["units"] = "m**2 s**-2", "m2 s-2"
        np.testing.assert_allclose(rmse(forecast, truth).t2m, 1)

    def test_units_missing_from_one_dataset_warn(self):
        truth = random_analyses()
        forecast, nameless = shifted_forecast(truth, error=2.0), random_analyses()
        del nameless.t2m.attrs["units"]
        with pytest.warns(UserWarning, match=r"only one .*units of t2m \('K'\)"):
            np.testing.assert_allclose(rmse(forecast, nameless).t2m, 2)
        del forecast.t2m.attrs["units"]
        np.testing.assert_allclose(rmse(forecast, nameless).t2m, 2)  # neither says: nothing to compare

    def test_no_truth_at_all_names_both_periods(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth)
        with pytest.raises(ValueError, match=r"2018-01-01T06:00:00 to 2018-01-02T12.*1 times from 2018-01-03"):
            rmse(forecast, truth.isel(time=[8]))

    def test_a_time_that_appears_twice(self):
        truth = random_analyses()
        with pytest.raises(ValueError, match="time 2018.* more than once"):
            rmse(shifted_forecast(truth), xr.concat([truth, truth.isel(time=[3])], "time"))

    def test_a_forecast_is_no_truth(self):
        forecast = shifted_forecast(random_analyses())
        with pytest.raises(ValueError, match="no times"):
            rmse(forecast, forecast)

    def test_unknown_settings(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth)
        with pytest.raises(ValueError, match="weights='sin'"):
            rmse(forecast, truth, weights="sin")
        with pytest.raises(ValueError, match=r"\['crpss'\] are unknown"):
            score(forecast, truth, metrics=["rmse", "crpss"])
        with pytest.raises(ValueError, match="one string"):
            score(forecast, truth, metrics="rmse")
        with pytest.raises(ValueError, match="needs a climatology"):
            score(forecast, truth, metrics=["acc"])
        with pytest.raises(ValueError, match="two systems are called 'climatology'"):
            score(forecast.assign_attrs(system="climatology"), truth, climatology(truth), allow_overlap=True)
        with pytest.raises(ValueError, match="no coordinate lead_time"):
            rmse(forecast.rename(lead_time="prediction_timedelta"), truth)


class TestMissingValues:
    def test_make_the_score_nan_without_skipna(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth, error=3.0)
        forecast["t2m"][1, 0, 5, 7] = np.nan
        assert np.isnan(rmse(forecast, truth).t2m[0])
        np.testing.assert_allclose(rmse(forecast, truth).t2m[1], 3)
        np.testing.assert_allclose(rmse(forecast, truth, skipna=True).t2m, 3, rtol=1e-12)

    def test_the_divisor_is_the_weight_of_the_cells_that_count(self):
        # errors 1 in the north, 3 in the south; half of the south is missing
        truth = random_analyses()
        north = xr.DataArray(np.arange(32) >= 16, dims="latitude")
        forecast = shifted_forecast(truth, error=xr.where(north, 1.0, 3.0))
        forecast["t2m"] = forecast.t2m.where(north | (forecast.longitude < 180))
        # by hand: (1 * 2 + 3 * 1) / 3
        np.testing.assert_allclose(mae(forecast, truth, skipna=True).t2m, 5 / 3, rtol=1e-12)

    @pytest.mark.parametrize("block_bytes", [2**25, pytest.param(1, marks=pytest.mark.slow)])
    def test_a_mask_needs_no_setting(self, golden, monkeypatch, block_bytes):
        monkeypatch.setattr(aggregation, "_BLOCK_BYTES", block_bytes)
        forecast, truth, clim = (ds[["2m_temperature"]] for ds in golden)
        sea = xr.DataArray(np.random.default_rng(0).random((32, 64)) > 0.4, dims=("latitude", "longitude"))
        masked = forecast.where(sea), truth.where(sea)
        for masked_score, skipna_score in (
            (rmse(*masked), rmse(*masked, skipna=True)),
            (acc(*masked, clim), acc(*masked, clim, skipna=True)),
            (acc(*masked, clim, average="per_init"), acc(*masked, clim, average="per_init", skipna=True)),
            # the climatology has values where the others have none
            (
                score(*masked, clim).sel(system="climatology"),
                score(*masked, clim, skipna=True).sel(system="climatology"),
            ),
        ):
            assert np.isfinite(
                masked_score["2m_temperature"].sel(metric="rmse") if "metric" in masked_score.dims else 1
            ).all()
            skipna_score = skipna_score.drop_vars("2m_temperature_pairs", errors="ignore")
            xr.testing.assert_allclose(masked_score.drop_attrs(), skipna_score.drop_attrs(), rtol=1e-12)

    def test_a_mask_that_changes_is_an_error(self, monkeypatch):
        monkeypatch.setattr(aggregation, "_BLOCK_BYTES", 1)
        truth = random_analyses()
        ice = truth.where((truth.latitude > -80) | (truth.time > truth.time[2]))
        with pytest.raises(ValueError, match=r"mask of 't2m' changes: \d+ cells"):
            rmse(shifted_forecast(ice), ice)

    def test_an_infinite_forecast_has_an_infinite_error(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth)
        forecast["t2m"][0, 0, 0, 0] = np.inf
        assert np.isinf(rmse(forecast, truth, skipna=True).t2m[0])

    def test_anomaly_correlation_leaves_out_the_same_cells_in_all_three_means(self, golden):
        forecast, truth, clim = (ds[["2m_temperature"]] for ds in golden)
        sea = xr.DataArray(np.random.default_rng(0).random((32, 64)) > 0.4, dims=("latitude", "longitude"))
        for kind in ("pooled", "per_init"):
            both_masked = acc(forecast.where(sea), truth.where(sea), clim, average=kind, skipna=True)
            truth_masked = acc(forecast, truth.where(sea), clim, average=kind, skipna=True)
            xr.testing.assert_allclose(truth_masked, both_masked, rtol=1e-13)
            assert np.isnan(acc(forecast, truth.where(sea), clim, average=kind)["2m_temperature"]).all()

    def test_all_systems_are_scored_on_the_same_cells(self):
        truth = random_analyses()
        truth["t2m"][0] = truth.t2m[0].where(truth.latitude > 0)
        forecast = shifted_forecast(truth, inits=1, leads=(6,), error=row(3))
        # the row lies in the south, where persistence has nothing at init
        both = score(forecast, truth, skipna=True)
        assert (both.t2m.sel(system="forecast", metric="mae") == 0).all()
        alone = score(forecast, truth, skipna=True, persistence=False)
        assert (alone.t2m.sel(system="forecast", metric="mae") > 0).all()


class TestSmallScaleVariance:
    def waves(self, **amplitudes):
        truth = random_analyses()
        longitude = np.deg2rad(truth.longitude)
        total = sum(a * np.cos(int(k[1:]) * longitude + 0.7) for k, a in amplitudes.items())
        truth["t2m"] = (xr.zeros_like(truth.t2m) + total).transpose(*truth.t2m.dims)
        return truth

    def test_half_the_amplitude_is_a_quarter_of_the_variance(self):
        truth, weak = self.waves(k12=4.0), self.waves(k12=2.0)
        np.testing.assert_allclose(small_scale_variance(shifted_forecast(weak), truth).t2m, 0.25, rtol=1e-10)

    def test_of_members_is_their_mean_and_not_that_of_the_mean(self):
        """Two members in opposite phase have a mean without any variance."""
        truth, wave = self.waves(k12=4.0), shifted_forecast(self.waves(k12=2.0))
        forecast = xr.concat([wave, -wave], "number")
        table = score(forecast, truth, metrics=["small_scale_variance", "member_small_scale_variance"])
        np.testing.assert_allclose(table.t2m.isel(system=0, metric=0), 0, atol=1e-10)
        np.testing.assert_allclose(table.t2m.isel(system=0, metric=1), 0.25, rtol=1e-10)

    def test_other_wavenumbers_change_nothing(self):
        truth, weak = self.waves(k12=4.0, k20=3.0), self.waves(k12=2.0, k5=90.0, k9=8.0)
        result = small_scale_variance(shifted_forecast(weak), truth)
        np.testing.assert_allclose(result.t2m, 0.25, rtol=1e-10)
        assert result.t2m.attrs["units"] == "1"

    def test_both_ends_are_included(self):
        truth = self.waves(k10=3.0, k19=4.0)
        np.testing.assert_allclose(small_scale_variance(shifted_forecast(self.waves(k10=3.0)), truth).t2m, 9 / 25)
        np.testing.assert_allclose(
            small_scale_variance(shifted_forecast(self.waves(k19=4.0)), truth, (19, 30)).t2m, 1, rtol=1e-10
        )

    def test_rows_weigh_by_their_area(self):
        truth = self.waves(k12=1.0)
        forecast = shifted_forecast(truth)
        forecast["t2m"] = forecast.t2m * row(3)
        expected = float(latitude_weights(truth)[3]) / 32
        np.testing.assert_allclose(small_scale_variance(forecast, truth).t2m, expected, rtol=1e-10)

    def test_missing_values(self):
        truth = self.waves(k12=1.0)
        forecast = shifted_forecast(truth)
        forecast["t2m"][..., 3, 9] = np.nan
        assert np.isnan(small_scale_variance(forecast, truth).t2m).all()
        np.testing.assert_allclose(small_scale_variance(forecast, truth, skipna=True).t2m, 1, rtol=1e-10)

    def test_only_round_the_globe_and_where_resolved(self):
        truth = random_analyses()
        region = truth.isel(longitude=slice(0, 50))
        with pytest.raises(ValueError, match="around the globe"):
            small_scale_variance(shifted_forecast(region), region)
        with pytest.raises(ValueError, match="below 32"):
            small_scale_variance(shifted_forecast(truth), truth, (10, 32))
        with pytest.raises(ValueError, match="in order"):
            small_scale_variance(shifted_forecast(truth), truth, (19, 10))
        assert "small_scale_variance" in score(shifted_forecast(truth), truth).metric
        assert "small_scale_variance" not in score(shifted_forecast(region), region).metric
        coarse = random_analyses(longitude=38)
        assert "small_scale_variance" not in score(shifted_forecast(coarse), coarse).metric
        with pytest.raises(ValueError, match="not resolved"):
            score(shifted_forecast(coarse), coarse, metrics=["small_scale_variance"])


@pytest.mark.parametrize("skipna", [False, True])
@pytest.mark.parametrize("function", [rmse, acc, activity, small_scale_variance])
def test_members_are_scored_one_by_one(function, skipna):
    truth, other = random_analyses(), random_analyses(seed=1)
    levels = xr.concat([other.t2m, truth.t2m], xr.DataArray([500.0, 850.0], dims="level"))
    truth = truth.assign(t=levels.assign_attrs(units="K", long_name="temperature on levels"))
    arguments = (climatology(truth * 0 + 270),) if function in (acc, activity) else ()
    forecast = shifted_forecast(truth, error=1.0)
    forecast["t2m"][0, 1, 2, 3] = np.nan if skipna else 270.0
    second = forecast * 1.01 + 0.2
    members = xr.concat([forecast, second], "number", combine_attrs="override")
    options = {"skipna": skipna, "allow_overlap": True} if arguments else {"skipna": skipna}
    result = function(members, truth, *arguments, **options)
    for number, member in enumerate((forecast, second)):
        alone = function(member, truth, *arguments, **options)
        xr.testing.assert_allclose(result.isel(number=number), alone, rtol=1e-12)


class TestScore:
    def test_layout_of_the_result(self):
        truth, earlier = random_analyses(), random_analyses(seed=1)
        earlier = earlier.assign_coords(time=earlier.time - np.timedelta64(365, "D"))
        forecast = shifted_forecast(truth, error=1.0).assign_attrs(system="SimVPv2")
        table = score(forecast, truth, climatology(earlier))
        assert table.t2m.dims == ("system", "metric", "lead_time")
        assert table.system.values.tolist() == ["SimVPv2", "persistence", "climatology", "anomaly persistence"]
        assert table.metric.values.tolist() == [
            *("rmse", "mae", "bias", "acc", "activity", "small_scale_variance"),
            *("rmse_skill_vs_persistence", "rmse_skill_vs_climatology", "rmse_skill_vs_anomaly_persistence"),
        ]
        assert np.isnan(table.t2m.sel(system="climatology", metric="acc")).all()
        assert table.t2m.notnull().sum() == table.t2m.size - 2
        np.testing.assert_allclose(table.t2m.sel(system="SimVPv2", metric="rmse"), 1)
        assert table.t2m.attrs == {"units": "K", "long_name": "temperature"}
        assert table.attrs == {
            "grid": "64 longitudes x 32 latitudes",
            "verified_start": "2018-01-01T06:00:00",
            "verified_end": "2018-01-02T12:00:00",
            "weights": "area",
            "missing_values": "left out where missing at all times, else propagated",
            "intervals": "none: 3 initializations are fewer than five blocks of 4",
            "climatology_method": "mean by hour",
            "climatology_start": "2017-01-01T00:00:00",
            "climatology_end": "2017-01-03T18:00:00",
        }

    def test_survives_a_file(self, tmp_path):
        truth = random_analyses()
        table = score(shifted_forecast(truth), truth)
        table.to_netcdf(tmp_path / "scores.nc")
        read = xr.load_dataset(tmp_path / "scores.nc", decode_timedelta=True)
        xr.testing.assert_equal(read, table)

    def test_without_climatology_or_persistence(self):
        truth = random_analyses()
        table = score(shifted_forecast(truth), truth, metrics=["bias", "rmse"], persistence=False)
        assert table.system.values.tolist() == ["forecast"]
        assert table.metric.values.tolist() == ["bias", "rmse"]

    def test_persistence_is_the_forecast_of_that_name(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth)
        table = score(forecast, truth, metrics=["rmse", "mae", "bias"])
        same = persistence(truth, forecast.init_time, forecast.lead_time)
        for name, metric in (("rmse", rmse), ("mae", mae), ("bias", bias)):
            np.testing.assert_allclose(
                table.t2m.sel(system="persistence", metric=name), metric(same, truth).t2m, rtol=1e-13
            )

    def test_all_systems_share_the_pairs_and_they_are_counted(self):
        truth = random_analyses(times=8)
        forecast = persistence(truth, truth.time[:6], ["6h", "18h", "48h"])
        # no truth for the last inits at the longer leads, and none at the third init itself
        gappy = truth.drop_isel(time=2)
        with pytest.warns(UserWarning, match=r"leads 2 d, .*2018-01-04T06:00:00"):
            table = score(forecast, gappy, metrics=["rmse"])
        # valid 1 3 4 5 6 less init 2: 0->1, 3->4, 4->5, 5->6, and 1->2 is missing
        assert table.pairs.values.tolist() == [4, 4, 0]
        inits_by_lead = {"6h": [0, 3, 4, 5], "18h": [0, 1, 3, 4]}
        weights = latitude_weights(truth).values / 32
        for lead, inits in inits_by_lead.items():
            step = pd.Timedelta(lead) // pd.Timedelta("6h")
            error = truth.t2m.values[inits] - truth.t2m.values[np.array(inits) + step]
            expected = np.sqrt((error**2).mean(axis=(0, 2)) @ weights)
            for system in ("forecast", "persistence"):
                value = table.t2m.sel(system=system, metric="rmse", lead_time=pd.Timedelta(lead).to_timedelta64())
                assert float(value) == pytest.approx(expected, rel=1e-12)
        assert np.isnan(table.t2m.sel(lead_time=np.timedelta64(48, "h"))).all()
        with pytest.warns(UserWarning, match="an analysis at the valid time:"):
            alone = score(forecast, gappy, metrics=["rmse"], persistence=False)
        assert alone.pairs.values.tolist() == [5, 5, 0]

    def test_a_pair_without_truth_needs_no_climatology(self):
        truth, clim = random_analyses(times=5), climatology(random_analyses(times=5).isel(time=[0, 1, 2, 4]))
        forecast = persistence(truth, truth.time[:2], ["6h", "48h"])
        clim = clim.sel(hour=[6, 12])
        with pytest.warns(UserWarning, match="leads 2 d"):
            assert score(forecast, truth, clim, allow_overlap=True).pairs.values.tolist() == [2, 0]

    def test_leads_without_truth_are_named(self):
        truth = random_analyses(times=8)
        forecast = persistence(truth, truth.time[:6], ["6h", "72h", "78h"])
        with pytest.warns(UserWarning, match="leads 3 d, 78 h, so"):
            result = rmse(forecast, truth).t2m
        assert np.isfinite(result[0]) and np.isnan(result[1:]).all()

    def test_a_climatology_of_verified_times_is_refused(self):
        truth = random_analyses()
        forecast = shifted_forecast(truth)
        with pytest.raises(ValueError, match=r"from 2018-01-01T00.* 6 verified times.*allow_overlap=True"):
            score(forecast, truth, climatology(truth))
        assert "acc" in score(forecast, truth, climatology(truth), allow_overlap=True).metric
        later = climatology(truth.assign_coords(time=truth.time + np.timedelta64(10, "D")))
        assert "acc" in score(forecast, truth, later).metric
        for alone in (acc, activity):
            with pytest.raises(ValueError, match=r"from 2018-01-01T00.* 6 verified times.*allow_overlap=True"):
                alone(forecast, truth, climatology(truth))
            alone(forecast, truth, climatology(truth), allow_overlap=True)
            alone(forecast, truth, later)

    def test_lazy_in_computed_out(self):
        truth = random_analyses()
        clim = climatology(truth)
        forecast = shifted_forecast(truth, error=row(2))
        lazy = score(forecast.chunk(init_time=1), truth.chunk(time=5), clim.chunk(), allow_overlap=True)
        assert lazy.t2m.chunks is None
        xr.testing.assert_allclose(lazy, score(forecast, truth, clim, allow_overlap=True), rtol=1e-12)
