import numpy as np
import pytest
import xarray as xr

from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.spectral import drift, variance_by_wavenumber, zonal_spectrum


def waves(amplitudes, mean=3.0, times=20):
    """Return a constant and waves of the given amplitudes by wavenumber, phases that run, on 32 longitudes."""
    time = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    longitude = np.arange(32) * 360 / 32
    values = np.full((times, 4, 32), mean)
    for number, amplitude in amplitudes.items():
        phase = np.deg2rad(number * longitude) + 0.3 * np.arange(times)[:, np.newaxis]
        values = values + amplitude * np.cos(phase)[:, np.newaxis]
    return xr.Dataset(
        {"z500": (("time", "latitude", "longitude"), values, {"units": "m2 s-2"})},
        {"time": time, "latitude": [-67.5, -22.5, 22.5, 67.5], "longitude": longitude},
    )


def test_the_spectrum_of_waves_is_known():
    found = zonal_spectrum(waves({2: 4.0, 7: 1.0}))
    assert found.z500.dims == ("time", "latitude", "zonal_wavenumber") and found.sizes["zonal_wavenumber"] == 17
    circle = np.cos(np.deg2rad(22.5)) * 2 * np.pi * 6367.5e3
    own = found.z500.sel(latitude=22.5).isel(time=3)
    # |F_2| is half the amplitude, and the negative wavenumber counts too
    np.testing.assert_allclose(own.sel(zonal_wavenumber=[0, 2, 7]), circle * np.array([9.0, 8.0, 0.5]), rtol=1e-12)
    np.testing.assert_allclose(own.sel(zonal_wavenumber=[1, 3, 12]), 0, atol=1e-12 * circle)
    assert float(found.wavelength.sel(zonal_wavenumber=2, latitude=22.5)) == pytest.approx(circle / 2)


def test_parseval():
    random = np.random.default_rng(0)
    ds = waves({})
    ds["z500"] = ds.z500 + random.normal(size=ds.z500.shape)
    circle = np.cos(np.deg2rad(ds.latitude)) * 2 * np.pi * 6367.5e3
    found = zonal_spectrum(ds).z500
    # the highest wavenumber is counted twice, as in WeatherBench 2
    whole = found.sum("zonal_wavenumber") - found.isel(zonal_wavenumber=-1) / 2
    np.testing.assert_allclose(
        (whole / circle).transpose(*("time", "latitude")), (ds.z500**2).mean("longitude"), rtol=1e-12
    )


def test_names_and_laziness():
    ds = waves({2: 4.0}).rename(longitude="lon", latitude="lat").transpose("lon", ...).chunk(time=5)
    found = zonal_spectrum(ds)
    assert found.z500.chunks is not None and "lon" not in found.dims
    np.testing.assert_allclose(
        found.z500.compute().transpose("time", "lat", ...), zonal_spectrum(waves({2: 4.0})).z500, rtol=1e-9, atol=1e-3
    )


def test_variance_by_wavenumber():
    truth = waves({2: 4.0, 7: 1.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right = truth.z500.sel(time=forecast.valid_time).drop_vars("time")
    blurred = waves({2: 4.0, 7: 0.5}).z500.sel(time=forecast.valid_time).drop_vars("time")
    forecast["z500"] = right.where(right.lead_time == right.lead_time[0], blurred)
    found = variance_by_wavenumber(forecast, truth).z500
    assert found.dims == ("zonal_wavenumber", "lead_time") and found.zonal_wavenumber.values.tolist() == list(
        range(1, 17)
    )
    np.testing.assert_allclose(found.sel(zonal_wavenumber=2), [1, 1], rtol=1e-12)
    np.testing.assert_allclose(found.sel(zonal_wavenumber=7), [1, 0.25], rtol=1e-12)


def test_drift():
    truth = waves({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right = truth.z500.sel(time=forecast.valid_time).drop_vars("time")
    forecast["z500"] = right + xr.DataArray([0.5, -2.0], dims="lead_time")
    found = drift(forecast, truth).z500
    assert found.dims == ("init_time", "lead_time")
    np.testing.assert_allclose(found, np.tile([0.5, -2.0], (10, 1)), rtol=1e-9)
    # beyond the analyses, against climatology
    clim = climatology(truth) * 0 + 3.0
    long = persistence(truth, truth.time[:10], ["90D"]) + 1.5
    found = drift(long, climatology=clim).z500
    np.testing.assert_allclose(found, 1.5, rtol=1e-9)
    with pytest.raises(ValueError, match="not both"):
        drift(forecast, truth, clim)


def test_drift_from_a_climatology_that_saw_the_times_is_refused():
    truth = waves({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h"])
    with pytest.raises(ValueError, match="10 verified times lie in it"):
        drift(forecast, climatology=climatology(truth))


def test_drift_counts_the_cells_that_both_have():
    truth = waves({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"]) * 0 + np.cos(np.deg2rad(truth.latitude)) * 30
    normal = climatology(truth) * 0 + np.cos(np.deg2rad(truth.latitude)) * 30 + 0.5
    masked = forecast.where(abs(forecast.latitude) < 50)
    np.testing.assert_allclose(drift(masked, climatology=normal, allow_overlap=True).z500, -0.5, rtol=1e-9)
    np.testing.assert_allclose(
        drift(forecast, climatology=normal.where(normal.latitude < 0), allow_overlap=True).z500, -0.5, rtol=1e-9
    )
    hole = masked.copy(deep=True)
    hole["z500"][dict(init_time=3, lead_time=1, latitude=int(len(truth.latitude) / 2), longitude=0)] = np.nan
    found = drift(hole, climatology=normal, allow_overlap=True).z500
    assert np.isnan(found[3, 1]) and found.isnull().sum() == 1


@pytest.mark.parametrize("units", ["hPa", "Pa"])
def test_drift_gives_levels_back(units):
    truth = waves({2: 4.0})
    factor = 100 if units == "Pa" else 1
    levels = xr.DataArray([850.0 * factor, 500.0 * factor], dims="level", attrs={"units": units})
    truth = truth.rename(z500="z").expand_dims(level=levels).transpose("time", "level", ...)
    truth["level"].attrs["units"] = units
    forecast = persistence(truth, truth.time[:5], ["6h"])
    for found in (drift(forecast, truth), drift(forecast, climatology=climatology(truth), allow_overlap=True)):
        assert found.level.values.tolist() == levels.values.tolist()
    one = drift(forecast.isel(level=1), climatology=climatology(truth), allow_overlap=True)
    assert one.level == levels[1] and one.z.dims == ("init_time", "lead_time")
    both = drift(forecast, climatology=climatology(truth), allow_overlap=True)
    np.testing.assert_allclose(one.z, both.z.isel(level=1))


def test_drift_by_region():
    truth = waves({2: 4.0})
    forecast = persistence(truth, truth.time[:10], ["6h", "24h"])
    right = truth.z500.sel(time=forecast.valid_time).drop_vars("time")
    north = xr.where(truth.latitude > 0, 1.0, -3.0)
    forecast["z500"] = (right + north).transpose(*forecast.z500.dims)
    regions = {"north": (0, 90, 0, 360), "south": (-90, 0, 0, 360)}
    found = drift(forecast, truth, regions=regions).z500
    assert found.dims == ("init_time", "lead_time", "region")
    np.testing.assert_allclose(found, np.broadcast_to([1.0, -3.0], (10, 2, 2)), rtol=1e-9)
    normal = climatology(truth) * 0
    found = drift(forecast * 0 + north, climatology=normal, regions=regions, allow_overlap=True).z500
    assert found.dims == ("init_time", "lead_time", "region")
    np.testing.assert_allclose(found, np.broadcast_to([1.0, -3.0], (10, 2, 2)), rtol=1e-9)


def test_errors():
    regional = waves({2: 4.0}).isel(longitude=slice(0, 20))
    forecast = persistence(regional, regional.time[:4], ["6h"])
    with pytest.raises(ValueError, match="longitudes around the globe; these 20"):
        zonal_spectrum(regional)
    with pytest.raises(ValueError, match="around the globe; these 20"):
        variance_by_wavenumber(forecast, regional)


def test_drift_of_shuffled_initializations():
    truth = waves({3: 2.0}, times=40)
    forecast = persistence(truth, truth.time[:20], ["6h", "12h"])
    found = drift(forecast.isel(init_time=[5, 3, 9]), truth)
    lead = found.valid_time - found.init_time
    assert (lead == found.lead_time).all()
