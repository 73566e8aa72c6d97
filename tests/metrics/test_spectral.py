import numpy as np
import pytest
import xarray as xr
from factories import harmonics

from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.spectral import drift, effective_resolution, variance_by_wavenumber, zonal_spectrum


def test_spectrum_of_known_waves():
    result = zonal_spectrum(harmonics({2: 4.0, 7: 1.0}))
    assert result.z500.dims == ("time", "latitude", "zonal_wavenumber") and result.sizes["zonal_wavenumber"] == 17
    circle = np.cos(np.deg2rad(22.5)) * 2 * np.pi * 6367.5e3
    energy = result.z500.sel(latitude=22.5).isel(time=3)
    # |F_2| is half the amplitude, and the negative wavenumber counts too
    np.testing.assert_allclose(energy.sel(zonal_wavenumber=[0, 2, 7]), circle * np.array([9.0, 8.0, 0.5]), rtol=1e-12)
    np.testing.assert_allclose(energy.sel(zonal_wavenumber=[1, 3, 12]), 0, atol=1e-12 * circle)
    assert float(result.wavelength.sel(zonal_wavenumber=2, latitude=22.5)) == pytest.approx(circle / 2)


def test_parseval():
    random = np.random.default_rng(0)
    ds = harmonics({})
    ds["z500"] = ds.z500 + random.normal(size=ds.z500.shape)
    circle = np.cos(np.deg2rad(ds.latitude)) * 2 * np.pi * 6367.5e3
    result = zonal_spectrum(ds).z500
    # the highest wavenumber is counted twice, as in WeatherBench 2
    whole = result.sum("zonal_wavenumber") - result.isel(zonal_wavenumber=-1) / 2
    np.testing.assert_allclose(
        (whole / circle).transpose(*("time", "latitude")), (ds.z500**2).mean("longitude"), rtol=1e-12
    )


def test_names_and_laziness():
    ds = harmonics({2: 4.0}).rename(longitude="lon", latitude="lat").transpose("lon", ...).chunk(time=5)
    result = zonal_spectrum(ds)
    assert result.z500.chunks is not None and "lon" not in result.dims
    np.testing.assert_allclose(
        result.z500.compute().transpose("time", "lat", ...),
        zonal_spectrum(harmonics({2: 4.0})).z500,
        rtol=1e-9,
        atol=1e-3,
    )


def test_variance_by_wavenumber():
    truth = harmonics({2: 4.0, 7: 1.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right = truth.z500.sel(time=forecast.valid_time).drop_vars("time")
    blurred = harmonics({2: 4.0, 7: 0.5}).z500.sel(time=forecast.valid_time).drop_vars("time")
    forecast["z500"] = right.where(right.lead_time == right.lead_time[0], blurred)
    result = variance_by_wavenumber(forecast, truth).z500
    assert result.dims == ("zonal_wavenumber", "lead_time") and result.zonal_wavenumber.values.tolist() == list(
        range(1, 17)
    )
    np.testing.assert_allclose(result.sel(zonal_wavenumber=2), [1, 1], rtol=1e-12)
    np.testing.assert_allclose(result.sel(zonal_wavenumber=7), [1, 0.25], rtol=1e-12)
    # the variance of a wave of amplitude a is a^2 / 2
    variance = result.z500_truth
    np.testing.assert_allclose(variance.sel(zonal_wavenumber=[2, 7]), [[8, 8], [0.5, 0.5]], rtol=1e-12)
    np.testing.assert_allclose(variance.sum("zonal_wavenumber"), 8.5, rtol=1e-12)
    assert variance.dims == result.dims and variance.attrs["units"] == "(m2 s-2)2"


def test_effective_resolution_is_the_last_wavenumber_before_the_variance_falls():
    truth = harmonics(dict.fromkeys(range(1, 17), 1.0))
    # three fifths of the amplitude are 0.36 of the variance; wavenumber 9 has all of it again, which does not count
    weak = harmonics({**dict.fromkeys(range(1, 17), 1.0), 7: 0.6, 8: 0.6})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right, blurred = (ds.z500.sel(time=forecast.valid_time).drop_vars("time") for ds in (truth, weak))
    forecast["z500"] = right.where(right.lead_time == right.lead_time[0], blurred)
    result = effective_resolution(forecast, truth).z500
    assert result.dims == ("lead_time",) and result.values.tolist() == [16, 6]
    assert effective_resolution(forecast, truth, share=0.3).z500.values.tolist() == [16, 16]
    with pytest.raises(ValueError, match="share=2 must be between 0 and 1"):
        effective_resolution(forecast, truth, share=2)


def test_drift():
    truth = harmonics({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right = truth.z500.sel(time=forecast.valid_time).drop_vars("time")
    forecast["z500"] = right + xr.DataArray([0.5, -2.0], dims="lead_time")
    result = drift(forecast, truth).z500
    assert result.dims == ("init_time", "lead_time")
    np.testing.assert_allclose(result, np.tile([0.5, -2.0], (10, 1)), rtol=1e-9)
    # later than the analyses, against climatology
    clim = climatology(truth) * 0 + 3.0
    long = persistence(truth, truth.time[:10], ["90D"]) + 1.5
    result = drift(long, climatology=clim).z500
    np.testing.assert_allclose(result, 1.5, rtol=1e-9)
    with pytest.raises(ValueError, match="not both"):
        drift(forecast, truth, clim)


def test_drift_from_a_climatology_of_the_verified_times_is_refused():
    truth = harmonics({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h"])
    with pytest.raises(ValueError, match="10 verified times lie in it"):
        drift(forecast, climatology=climatology(truth))


def test_drift_uses_cells_with_values_in_forecast_and_climatology():
    truth = harmonics({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"]) * 0 + np.cos(np.deg2rad(truth.latitude)) * 30
    normal = climatology(truth) * 0 + np.cos(np.deg2rad(truth.latitude)) * 30 + 0.5
    masked = forecast.where(abs(forecast.latitude) < 50)
    np.testing.assert_allclose(drift(masked, climatology=normal, allow_overlap=True).z500, -0.5, rtol=1e-9)
    np.testing.assert_allclose(
        drift(forecast, climatology=normal.where(normal.latitude < 0), allow_overlap=True).z500, -0.5, rtol=1e-9
    )
    hole = masked.copy(deep=True)
    hole["z500"][dict(init_time=3, lead_time=1, latitude=int(len(truth.latitude) / 2), longitude=0)] = np.nan
    result = drift(hole, climatology=normal, allow_overlap=True).z500
    assert np.isnan(result[3, 1]) and result.isnull().sum() == 1


@pytest.mark.parametrize("units", ["hPa", "Pa"])
def test_drift_keeps_levels_and_their_units(units):
    truth = harmonics({2: 4.0})
    factor = 100 if units == "Pa" else 1
    levels = xr.DataArray([850.0 * factor, 500.0 * factor], dims="level", attrs={"units": units})
    truth = truth.rename(z500="z").expand_dims(level=levels).transpose("time", "level", ...)
    truth["level"].attrs["units"] = units
    forecast = persistence(truth, truth.time[:5], ["6h"])
    for result in (drift(forecast, truth), drift(forecast, climatology=climatology(truth), allow_overlap=True)):
        assert result.level.values.tolist() == levels.values.tolist()
    single = drift(forecast.isel(level=1), climatology=climatology(truth), allow_overlap=True)
    assert single.level == levels[1] and single.z.dims == ("init_time", "lead_time")
    whole = drift(forecast, climatology=climatology(truth), allow_overlap=True)
    np.testing.assert_allclose(single.z, whole.z.isel(level=1))


def test_drift_by_region():
    truth = harmonics({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right = truth.z500.sel(time=forecast.valid_time).drop_vars("time")
    north = xr.where(truth.latitude > 0, 1.0, -3.0)
    forecast["z500"] = (right + north).transpose(*forecast.z500.dims)
    regions = {"north": (0, 90, 0, 360), "south": (-90, 0, 0, 360)}
    result = drift(forecast, truth, regions=regions).z500
    assert result.dims == ("init_time", "lead_time", "region")
    np.testing.assert_allclose(result, np.broadcast_to([1.0, -3.0], (10, 2, 2)), rtol=1e-9)
    normal = climatology(truth) * 0
    result = drift(forecast * 0 + north, climatology=normal, regions=regions, allow_overlap=True).z500
    assert result.dims == ("init_time", "lead_time", "region")
    np.testing.assert_allclose(result, np.broadcast_to([1.0, -3.0], (10, 2, 2)), rtol=1e-9)


def test_errors():
    regional = harmonics({2: 4.0}).isel(longitude=slice(0, 20))
    forecast = persistence(regional, regional.time[:4], ["6h"])
    with pytest.raises(ValueError, match="longitudes around the globe; these 20"):
        zonal_spectrum(regional)
    with pytest.raises(ValueError, match="around the globe; these 20"):
        variance_by_wavenumber(forecast, regional)


def test_drift_of_shuffled_initializations():
    truth = harmonics({3: 2.0}, times=40)
    forecast = persistence(truth, truth.time[:20], ["6h", "12h"])
    result = drift(forecast.isel(init_time=[5, 3, 9]), truth)
    lead = result.valid_time - result.init_time
    assert (lead == result.lead_time).all()
