import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import red_noise, two_cells

from simvp_climate.metrics.baselines.climatologies import climatology, climatology_at
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.baselines.statistical import (
    AnomalyPersistence,
    fit_damped_persistence,
    fit_linear_regression,
)
from simvp_climate.metrics.deterministic import rmse


def flat_climatology(train):
    """Return a climatology that is the mean, so that anomalies are known."""
    return climatology(train.isel(time=slice(0, 8)), method="hourly") * 0 + 280.0


LEADS = ["6h", "12h", "24h"]


class TestDampedPersistence:
    def test_the_damping_of_red_noise_is_known(self):
        train = red_noise()
        fitted = fit_damped_persistence(train, flat_climatology(train), LEADS)
        assert fitted.damping.t2m.dims == ("lead_time", "latitude", "longitude")
        result = fitted.damping.t2m.mean(("latitude", "longitude"))
        np.testing.assert_allclose(result, [0.8, 0.8**2, 0.8**4], atol=0.02)

    def test_in_blocks(self, monkeypatch):
        from simvp_climate.metrics.baselines import climatologies

        train = red_noise(times=300)
        whole = fit_damped_persistence(train, flat_climatology(train), LEADS)
        monkeypatch.setattr(climatologies, "_BLOCK_BYTES", 10_000)
        xr.testing.assert_allclose(
            fit_damped_persistence(train, flat_climatology(train), LEADS).damping, whole.damping, rtol=1e-12
        )

    def test_the_forecast_by_hand(self):
        train = red_noise(times=300)
        clim = climatology(train)
        fitted = fit_damped_persistence(train, clim, LEADS)
        forecast = fitted(train, train.time[[10, 50]], ["12h", "24h"])
        assert forecast.t2m.dims == ("init_time", "lead_time", "latitude", "longitude")
        assert forecast.t2m.attrs["units"] == "K"
        for lead, step in ((0, 2), (1, 4)):
            now, then = (float(climatology_at(clim, train.time[time]).t2m[1, 3]) for time in (50, 50 + step))
            factor = float(fitted.damping.t2m[lead + 1, 1, 3])
            expected = then + factor * (float(train.t2m[50, 1, 3]) - now)
            assert float(forecast.t2m[1, lead, 1, 3]) == pytest.approx(expected, rel=1e-12)

    def test_beats_persistence_and_climatology_on_red_noise(self):
        train, test = red_noise(), red_noise(seed=1, times=400)
        fitted = fit_damped_persistence(train, flat_climatology(train), LEADS)
        inits = test.time[:300]
        damped, last = rmse(fitted(test, inits, LEADS), test).t2m, rmse(persistence(test, inits, LEADS), test).t2m
        assert (damped < last).all() and (damped < 1.0).all()
        # the variance that the best forecast leaves
        np.testing.assert_allclose(damped, np.sqrt(1 - 0.8 ** np.array([2, 4, 8])), rtol=0.03)

    def test_keeps_the_layout_of_the_data(self):
        train = red_noise(times=300)
        fitted = fit_damped_persistence(train, flat_climatology(train), LEADS)
        turned = train.isel(latitude=slice(None, None, -1)).rename(latitude="lat", longitude="lon")
        forecast = fitted(turned, turned.time[:3], LEADS)
        assert forecast.lat.values.tolist() == [60, 20, -20, -60]
        plain = fitted(train, train.time[:3], LEADS)
        np.testing.assert_allclose(forecast.t2m.values[:, :, ::-1], plain.t2m.values, rtol=1e-14)

    def test_gaps_and_masks(self):
        train = red_noise()
        gappy = train.where((train.latitude != 20) | (train.longitude != 45))  # a masked cell
        gappy = gappy.drop_isel(time=np.arange(50, 90))
        gappy.t2m[7, 0, 0] = np.nan
        fitted = fit_damped_persistence(gappy, flat_climatology(train), LEADS)
        assert int(fitted.damping.t2m.isnull().sum()) == 3  # the masked cell, at each lead
        assert float(fitted.damping.t2m[0].mean()) == pytest.approx(0.8, abs=0.02)

    def test_a_cell_that_never_changes_has_no_anomaly_to_keep(self):
        train = red_noise(times=300)
        train["t2m"][:, 0] = 280.0
        fitted = fit_damped_persistence(train, flat_climatology(train) * 0 + 280.0, LEADS)
        assert (fitted.damping.t2m[:, 0] == 0).all()
        assert np.isfinite(rmse(fitted(train, train.time[:50], LEADS), train).t2m).all()

    def test_errors(self):
        train = red_noise(times=300)
        clim = flat_climatology(train)
        with pytest.raises(ValueError, match="too long"):
            fit_damped_persistence(train, clim, ["300D"])
        fitted = fit_damped_persistence(train, clim, ["6h"])
        with pytest.raises(ValueError, match="fitted for the lead .*12:00"):
            fitted(train, train.time[:1], ["12h"])
        with pytest.raises(ValueError, match="the grids differ: 3 against 4"):
            fitted(train.isel(latitude=slice(1, 4)), train.time[:1], ["6h"])
        with pytest.raises(ValueError, match="in common"):
            fit_damped_persistence(train.rename(t2m="x"), clim, ["6h"])


class TestLinearRegression:
    def wave(self, times=1500):
        """Return a wave that runs east by a fixed angle each step: linear, but not persistent."""
        angle = 2 * np.pi * (np.arange(8)[np.newaxis] / 8 - 0.045 * np.arange(times)[:, np.newaxis])
        values = 280 + 5 * np.cos(angle)[:, np.newaxis] * np.array([1.0, 2.0, 2.0, 1.0])[:, np.newaxis]
        return red_noise(times=times).assign(t2m=(("time", "latitude", "longitude"), values, {"units": "K"}))

    def test_a_running_wave_is_forecast(self):
        ds = self.wave()
        fitted = fit_linear_regression(ds, flat_climatology(ds), LEADS, modes=2, ridge=0.0)
        forecast = fitted(ds, ds.time[:200:7], LEADS)
        assert not {"long_name", "units"} & forecast.attrs.keys()  # those of the area weights
        assert (rmse(forecast, ds).t2m < 1e-8).all()
        assert (rmse(persistence(ds, ds.time[:200:7], LEADS), ds).t2m > 1).all()

    @pytest.mark.slow
    def test_reaches_the_best_possible_error_on_red_noise(self):
        train, test = red_noise(), red_noise(seed=1, times=400)
        fitted = fit_linear_regression(train, flat_climatology(train), LEADS, modes=32, ridge=0.0)
        result = rmse(fitted(test, test.time[:300], LEADS), test).t2m
        np.testing.assert_allclose(result, np.sqrt(1 - 0.8 ** np.array([2, 4, 8])), rtol=0.04)

    @pytest.mark.slow
    def test_modes_and_ridge_are_chosen_on_the_last_quarter(self):
        train = red_noise(times=400)  # few times, so that the ridge matters
        clim = flat_climatology(train)
        result = fit_linear_regression(train, clim, LEADS)
        assert result.operator.sizes["mode"] == 32  # as many EOFs as cells
        first, rest = train.isel(time=slice(0, 300)), train.isel(time=slice(300, None))
        for i, lead in enumerate(LEADS):
            ridges = (0.03, 0.1, 0.3, 1.0)
            errors = []
            for ridge in ridges:
                fitted = fit_linear_regression(first, clim, [lead], modes=32, ridge=ridge)
                inits = rest.time[: rest.sizes["time"] - 8]
                errors.append(float(rmse(fitted(rest, inits, [lead]), rest).t2m[0]))
            best = fit_linear_regression(train, clim, [lead], modes=32, ridge=ridges[int(np.argmin(errors))])
            np.testing.assert_allclose(result.operator[i], best.operator[0], atol=1e-10)

    @pytest.mark.slow
    def test_several_variables_levels_and_blocks(self, monkeypatch):
        from simvp_climate.metrics.baselines import climatologies

        flat = self.wave()
        levels = xr.concat([flat.t2m, flat.t2m * 2 - 280], xr.DataArray([500.0, 850.0], dims="level")).transpose(
            "time", "level", ...
        )
        levels["level"].attrs = {"units": "hPa", "standard_name": "air_pressure"}
        train = xr.Dataset({"t2m": flat.t2m, "temperature": levels.assign_attrs(units="K")})
        clim = climatology(train.isel(time=slice(0, 8)), method="hourly") * 0 + 280.0
        whole = fit_linear_regression(train, clim, LEADS, modes=2)
        monkeypatch.setattr(climatologies, "_BLOCK_BYTES", 50_000)
        parts = fit_linear_regression(train, clim, LEADS, modes=2)
        np.testing.assert_allclose(parts.operator, whole.operator, rtol=1e-9, atol=1e-12)
        forecast = whole(train, train.time[:20], LEADS)
        assert forecast.temperature.dims == ("init_time", "lead_time", "level", "latitude", "longitude")
        # the ridge of 0.1 shrinks the forecast a little towards climatology
        assert (rmse(forecast, train).t2m < 0.8).all()

    def test_errors(self):
        ds = self.wave(times=100)
        with pytest.raises(ValueError, match="modes=100 must be"):
            fit_linear_regression(ds, flat_climatology(ds), LEADS, modes=100)
        with pytest.raises(ValueError, match="ridge=-1"):
            fit_linear_regression(ds, flat_climatology(ds), LEADS, modes=3, ridge=-1)


def test_anomaly_persistence_by_hand():
    """The climatology of the first month is 10, of the second 20: 13 in the first is 23 in the second."""
    times = pd.date_range("2001-01-01", periods=3, freq="MS", unit="ns")
    ds = two_cells(times, [13.0, 21.0, 30.0], factors=(1.0, 2.0))
    months = xr.DataArray([10.0, 20.0, 30.0], {"month": [1, 2, 3]}, dims="month")
    factor = xr.DataArray([1.0, 2.0], dims="latitude")
    cells = (months * factor).expand_dims(longitude=[5.0], axis=2).assign_coords(latitude=[0.0, 10.0])
    climatology = cells.to_dataset(name="t2m")
    climatology["t2m"].attrs["units"] = "K"
    leads = xr.DataArray([1, 2], dims="lead_time", attrs={"units": "months"})
    forecast = AnomalyPersistence(climatology)(ds, ds["time"][:1], leads)
    np.testing.assert_allclose(forecast["t2m"].values[0, :, :, 0], [[23, 46], [33, 66]])
    assert forecast["t2m"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert forecast.attrs["system"] == "anomaly persistence" and forecast["t2m"].attrs["units"] == "K"
