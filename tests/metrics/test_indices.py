"""Indices of fields whose answer is known by hand, on both hemispheres' conventions, and their scores."""

import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import simvp_climate as sc
from simvp_climate.metrics import indices
from simvp_climate.metrics.baselines.climatologies import climatology
from simvp_climate.metrics.baselines.simple_persistence import persistence

LATITUDE, LONGITUDE = np.arange(-87.5, 90, 5), np.arange(0.0, 360, 10)


def field(pattern, series, name="msl", mean=1e5, noise=0.0, start="2001-01-01"):
    """Return daily data: a mean, and a pattern on the grid times a series."""
    times = pd.date_range(start, periods=len(series), freq="1D", unit="ns")
    shape = np.broadcast_to(pattern(LATITUDE[:, None], LONGITUDE[None]), (LATITUDE.size, LONGITUDE.size))
    values = mean + np.asarray(series)[:, None, None] * shape
    values = values + noise * np.random.default_rng(1).normal(size=values.shape)
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset({name: (tuple(coords), values, {"units": "Pa" if name == "msl" else "K"})}, coords)


def series(days=800, seed=0):
    return np.random.default_rng(seed).normal(size=days)


def in_box(south, north, west, east):
    return lambda y, x: ((y >= south) & (y <= north) & ((x - west) % 360 <= (east - west) % 360)).astype(float)


def test_nino34_by_hand():
    warm = in_box(-5, 5, 190, 240)
    values = series()
    ds = field(warm, values, "sst", mean=300.0)
    land = ds.where(~((ds.latitude == 2.5) & (ds.longitude == 200)))
    flat = climatology(ds, method="overall")
    for data in (ds, land, ds.isel(latitude=slice(None, None, -1)).assign_coords(longitude=ds.longitude)):
        index = indices.fit_nino34(data, climatology(data, method="overall"))
        np.testing.assert_allclose(index(data).nino34, values - values.mean(), atol=1e-9)
    assert index(ds).nino34.attrs["units"] == "K" and index(ds).nino34.dims == ("time",)
    # half of the box warms by twice as much
    half = field(lambda y, x: 2 * in_box(-5, 0, 190, 240)(y, x), values, "sst", mean=300.0)
    np.testing.assert_allclose(indices.fit_nino34(half, climatology(half, method="overall"))(half).nino34,
                               values - values.mean(), atol=1e-9)  # fmt: skip
    # the anomaly is that from the climatology given
    warmer = indices.fit_nino34(ds, flat)(ds + 2)
    np.testing.assert_allclose(warmer.nino34, values - values.mean() + 2, atol=1e-9)


@pytest.mark.parametrize(
    ("fit", "name", "pattern"),
    [
        (indices.fit_nao, "nao", lambda y, x: in_box(20, 54, -90, 60)(y, x) - in_box(56, 90, -90, 60)(y, x)),
        (indices.fit_ao, "ao", lambda y, x: np.cos(np.deg2rad(6 * (y - 35))) * (y > 20)),
        (indices.fit_sam, "sam", lambda y, x: np.cos(np.deg2rad(7.2 * (y + 40))) * (y < -20)),
    ],
)
def test_an_oscillation_is_its_series_standardized(fit, name, pattern):
    values = series()
    ds = field(pattern, 100 * values)
    index = fit(ds, climatology(ds, method="overall"))
    named = fit(ds, climatology(ds, method="overall"), method="box" if name == "nao" else "circles")
    xr.testing.assert_identical(named.pattern, index.pattern)
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(index(ds)[name], expected, atol=1e-9)
    assert index(ds)[name].attrs["units"] == "1"
    # a uniform change of pressure is no oscillation where both parts vary alike
    if name == "nao":
        np.testing.assert_allclose(index(ds + 500)[name], expected, atol=1e-9)


def test_pna_by_hand():
    centers = [(1, 20, 200), (-1, 45, 195), (1, 55, 245), (-1, 30, 275)]
    values = series(seed=3)
    random = np.random.default_rng(5).normal(size=(len(centers), len(values)))

    def bumps(y, x, k):
        _, latitude, longitude = centers[k]
        return np.exp(-((y - latitude) ** 2) / 50 - ((x - longitude) ** 2) / 100)

    fields = [field(lambda y, x, k=k: bumps(y, x, k), random[k], "z500", mean=0.0) for k in range(4)]
    ds = sum(fields[1:], fields[0])
    ds["z500"].attrs["units"] = "m2 s-2"
    at_centers = [sc.at(ds, y, x).z500[:, 0] for _, y, x in centers]
    parts = [sign * (z - z.mean()) / z.std() for (sign, _, _), z in zip(centers, at_centers, strict=True)]
    expected = sum(part.values for part in parts)
    index = indices.fit_pna(ds, climatology(ds, method="overall"))
    np.testing.assert_allclose(index(ds).pna, expected / expected.std(), atol=1e-9)


def test_a_forecast_and_its_skill():
    ds = field(in_box(-5, 5, 190, 240), np.cumsum(series(900)) * 0.1, "sst", mean=300.0)
    train, test = ds.isel(time=slice(0, 700)), ds.isel(time=slice(700, None))
    index = indices.fit_nino34(train)
    forecast = persistence(test, test.time[:150], ["1D", "5D"])
    result = index(forecast)
    assert result.nino34.dims == ("init_time", "lead_time")
    # the index of a persisted field is the field now, from the climatology then
    now, normals = index(test).nino34, index.normals
    assert not np.allclose(result.nino34[:, 1], now[:150]) and "dayofyear" in normals.dims
    scores = sc.score(result, index(test), index.climatology, persistence=False)
    error = result.nino34 - index(test).nino34.sel(time=result.valid_time)
    np.testing.assert_allclose(scores.nino34.sel(metric="rmse")[0], np.sqrt((error**2).mean("init_time")))
    right = index(test).nino34.sel(time=result.valid_time)
    correlation = (result.nino34 * right).sum("init_time")
    correlation = correlation / np.sqrt((result.nino34**2).sum("init_time") * (right**2).sum("init_time"))
    np.testing.assert_allclose(scores.nino34.sel(metric="acc", system="forecast"), correlation)
    skill = scores.nino34.sel(metric="rmse_skill_vs_climatology", system="forecast")
    assert skill[0] > skill[1] and np.isfinite(scores.nino34_low.sel(metric="rmse")).all()
    members = xr.concat([forecast, forecast + 1], pd.Index([0, 1], name="number"))
    assert set(index(members).nino34.dims) == {"init_time", "lead_time", "number"}
    with pytest.raises(ValueError, match="is from 2001-01-01.* verified times lie in it"):
        early = persistence(train, train.time[:50], ["1D"])
        sc.score(index(early), index(train), index.climatology)


def test_errors():
    ds = field(in_box(-5, 5, 190, 240), series(60), "sst", mean=300.0)
    flat = climatology(ds, method="overall")
    index = indices.fit_nino34(ds, flat)
    with pytest.raises(ValueError, match="the grids differ"):
        index(ds.isel(latitude=slice(1, None)))
    with pytest.raises(ValueError, match="sst has units 'K', but 'm'"):
        index(ds.assign(sst=ds.sst.assign_attrs(units="m")))
    with pytest.raises(ValueError, match="no variable 'msl'"):
        indices.fit_nao(ds)
    with pytest.raises(ValueError, match="does not cover"):
        indices.fit_nino34(ds.sel(latitude=slice(20, 60)), flat.sel(latitude=slice(20, 60)))
    # a part of the box
    with pytest.raises(ValueError, match=r"does not cover .*-5, 5, -170, -120"):
        indices.fit_nino34(ds.sel(longitude=slice(0, 200)))
    half = ds.sel(longitude=slice(180, 300))
    assert indices.fit_nino34(half, flat.sel(longitude=slice(180, 300))).pattern.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="not on all longitudes"):
        indices.fit_ao(half.rename(sst="msl"))
    with pytest.raises(ValueError, match="does not vary"):
        indices.fit_nao(ds.rename(sst="msl"), flat.rename(sst="msl"))
    for fit, method, choices in (
        (indices.fit_nao, "circles", '"box" or "pc"'),
        (indices.fit_ao, "box", '"circles" or "pc"'),
        (indices.fit_sam, "eof", '"circles" or "pc"'),
    ):
        with pytest.raises(ValueError, match=f"method='{method}' must be {choices}"):
            fit(ds.rename(sst="msl"), flat.rename(sst="msl"), method=method)


def test_principal_components_without_xeofs(monkeypatch):
    ds = field(in_box(20, 54, -90, 60), series(), noise=0.1)
    monkeypatch.setitem(sys.modules, "xeofs", None)
    with pytest.raises(ImportError, match=r"pip install 'simvp-climate\[indices\]'"):
        indices.fit_ao(ds, climatology(ds, method="overall"), method="pc")


@pytest.mark.parametrize(
    ("fit", "name", "pattern"),
    [
        (indices.fit_nao, "nao", lambda y, x: in_box(20, 54, -90, 40)(y, x) - in_box(56, 80, -90, 40)(y, x)),
        (indices.fit_ao, "ao", lambda y, x: np.cos(np.deg2rad(6 * (y - 35))) * (y > 20)),
        (indices.fit_sam, "sam", lambda y, x: np.cos(np.deg2rad(7.2 * (y + 40))) * (y < -20)),
    ],
)
def test_principal_components(fit, name, pattern):
    pytest.importorskip("xeofs")
    values = np.repeat(series(30, seed=2), 30)
    ds = field(pattern, 100 * values, noise=5.0)
    index = fit(ds, climatology(ds, method="overall"), method="pc")
    result = index(ds)[name]
    assert np.corrcoef(result, values)[0, 1] > 0.999, "with its sign"
    np.testing.assert_allclose(result.std(), 1)
    with pytest.raises(ValueError, match="have 20 months"):
        short = ds.isel(time=slice(0, 600))
        fit(short, climatology(short, method="overall"), method="pc")
