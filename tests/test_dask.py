"""What is computed on a dask.distributed cluster is what is computed without one."""

import os

import distributed
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import simvp_climate as sc


@pytest.fixture(scope="module")
def client():
    """Two worker processes, so that all they get must survive the journey."""
    # any free port: the default one may be taken, which would be a warning
    settings = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0")
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        yield client


def series(freq):
    """A year and a little more of noise, with a cell and a time that are missing, in memory."""
    time = pd.date_range("2001-01-01", "2002-01-20", freq=freq)
    values = np.random.default_rng(1).normal(280, 5, (len(time), 8, 16)).astype("f4")
    values[:, 0, 0] = np.nan
    values[5, 3, 3] = np.nan
    coords = {"time": time, "latitude": np.arange(8) * 22.5 - 78.75, "longitude": np.arange(16) * 22.5}
    return xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords)


def on_workers(ds, **chunks):
    """Chunk a Dataset such that its values exist in other processes only."""
    here = os.getpid()

    def away(block):
        assert os.getpid() != here, "computed in the process of the client"
        return block

    def elsewhere(array):
        array = array.chunk(chunks)
        return array.copy(data=array.data.map_blocks(away, meta=np.empty((0,) * array.ndim, array.dtype)))

    return ds.map(elsewhere, keep_attrs=True)


def test_values_come_from_the_workers(client):
    ds = on_workers(series("MS"), time=5)
    assert ds.t2m.attrs == {"units": "K"} and ds.t2m.dtype == "f4"
    with pytest.raises(AssertionError, match="process of the client"):
        ds.compute(scheduler="sync")
    xr.testing.assert_identical(ds.compute(), series("MS"))


@pytest.mark.parametrize("freq", ["6h", "MS"])
def test_climatology(client, freq):
    ds = series(freq)
    result = sc.climatology(on_workers(ds, time=300, longitude=7))
    assert ("dayofyear" in result.dims) == (freq == "6h")
    xr.testing.assert_identical(result.compute(), sc.climatology(ds))


@pytest.mark.parametrize("chunks", [{"time": 300}, {"time": 500, "latitude": 5, "longitude": 7}])
def test_regrid(client, chunks):
    ds = series("6h")
    target = xr.Dataset(coords={"latitude": [-67.5, -22.5, 22.5, 67.5], "longitude": np.arange(8) * 45.0})
    result = sc.regrid(on_workers(ds, **chunks), target)
    assert result.t2m.chunks is not None and result.t2m.dtype == "f4"
    # sums in another order
    xr.testing.assert_allclose(result.compute(), sc.regrid(ds, target), rtol=1e-6)
    assert result.t2m.notnull().all().compute()
    # columns of 45 degrees: that at 0 holds the whole column 0, those at 45 and 90 each half of column 3
    missing = sc.regrid(on_workers(ds, **chunks), target, min_valid=1).t2m.isnull().isel(time=[0, 5]).compute()
    assert np.argwhere(missing.values).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 2]]
