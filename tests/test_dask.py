"""Results on a dask.distributed cluster equal those without one."""

import os

import distributed
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import quick, tiny_model

import simvp_climate as sc
from simvp_climate.data import reader
from simvp_climate.data.conventions import orient
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.windows import find_windows
from simvp_climate.processing.statistics import compute_statistics
from simvp_climate.training import checkpoint


@pytest.fixture(scope="module")
def client():
    """Two worker processes: everything sent to them is pickled."""
    # any free port: a warning follows if the default one is taken
    settings = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0")
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        yield client


def series(freq):
    """Return a year and 20 days of noise in memory, with a missing cell and a missing time."""
    time = pd.date_range("2001-01-01", "2002-01-20", freq=freq)
    values = np.random.default_rng(1).normal(280, 5, (len(time), 8, 16)).astype("f4")
    values[:, 0, 0] = np.nan
    values[5, 3, 3] = np.nan
    coords = {"time": time, "latitude": np.arange(8) * 22.5 - 78.75, "longitude": np.arange(16) * 22.5}
    return xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords)


def on_workers(ds, **chunks):
    """Chunk a Dataset such that its values are computed in other processes only."""
    client_process = os.getpid()

    def check_process(block):
        assert os.getpid() != client_process, "computed in the process of the client"
        return block

    def chunk(array):
        array = array.chunk(chunks)
        return array.copy(data=array.data.map_blocks(check_process, meta=np.empty((0,) * array.ndim, array.dtype)))

    return ds.map(chunk, keep_attrs=True)


def test_values_come_from_the_workers(client):
    ds = on_workers(series("MS"), time=5)
    assert ds.t2m.attrs == {"units": "K"} and ds.t2m.dtype == "f4"
    with pytest.raises(AssertionError, match="process of the client"):
        ds.compute(scheduler="sync")
    xr.testing.assert_identical(ds.compute(), series("MS"))


@pytest.mark.parametrize("freq", ["6h", "MS"])
def test_climatology(client, freq):
    ds = series(freq)
    result = sc.baselines.climatology(on_workers(ds, time=300, longitude=7))
    assert ("dayofyear" in result.dims) == (freq == "6h")
    xr.testing.assert_identical(result.compute(), sc.baselines.climatology(ds))


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


TASK = sc.Task(["t2m"], history=2, horizon=2)


def warm(freq="6h"):
    """Return a month and a half with one missing cell."""
    ds = series(freq).isel(time=slice(0, 180))
    return ds.assign(t2m=ds["t2m"].where(ds["t2m"].notnull() | (ds["t2m"].latitude == ds.latitude[0]), 280))


@pytest.mark.parametrize("chunks", [{"time": 50}, {"time": 7, "latitude": 5}, {"time": -1, "longitude": 3}], ids=str)
def test_statistics(client, chunks):
    ds = warm()
    results = []
    for dataset in (ds, on_workers(ds, **chunks)):
        source = reader.open_source(orient(dataset))
        assert reader.source_identity(source) is None, "data without an identity are not cached"
        windows = find_windows(dataset.indexes["time"], "6h", 2, 2, "ds")
        results.append(
            compute_statistics([source], [windows], latitude_weights(dataset["latitude"]).values, 2, np.zeros(1))
        )
    local, by_workers = results
    assert local.digest == by_workers.digest
    for name in ("mean", "std", "change_std", "mask"):
        np.testing.assert_array_equal(getattr(local, name), getattr(by_workers, name))
    assert np.argwhere(by_workers.mask).tolist() == [[0, 0, 0]]
    ds["t2m"][9, 5, 5] += 0.01
    other = reader.open_source(orient(on_workers(ds, **chunks)))
    assert (
        compute_statistics([other], [windows], latitude_weights(ds["latitude"]).values, 2, np.zeros(1)).digest
        != local.digest
    )


@pytest.mark.parametrize("memory", ["auto", 140_000], ids=["kept", "streamed"])
def test_training(client, memory, tmp_path):
    ds = warm()
    model, config = tiny_model(), quick(epochs=2, memory=memory)

    def run(ds, name):
        valid = ds.isel(time=slice(150, 156))
        settings = dict(model=model, config=config, device="cpu", directory=tmp_path / name)
        return sc.train(TASK, ds.isel(time=slice(0, 120)), valid=valid, **settings)

    local = run(ds, "run")
    mode = "memory" if memory == "auto" else "stream"
    assert checkpoint.load_plans(tmp_path / "run")[0].mode == mode
    by_workers = run(on_workers(ds, time=5), "by_workers")
    assert checkpoint.load_plans(tmp_path / "by_workers")[0].mode == mode
    np.testing.assert_array_equal(local.normalizer.mean, by_workers.normalizer.mean)
    if memory == "auto":  # in a stream the order of the windows follows the chunks
        assert local.provenance["epochs"] == by_workers.provenance["epochs"]
        for name, value in local.network.state_dict().items():
            assert torch.equal(value, by_workers.network.state_dict()[name]), name
    xr.testing.assert_equal(local(ds.isel(time=slice(0, 9))), local(on_workers(ds.isel(time=slice(0, 9)), time=4)))
    # the run resumes with either
    assert run(on_workers(ds, time=5), "run").provenance["epochs"] == local.provenance["epochs"]


def test_scores(client):
    ds = series("6h")
    truth, train = ds.isel(time=slice(6, 200)), ds.sel(time=slice("2001-02-20", "2002-01-20"))
    forecast = sc.baselines.persistence(truth, truth.time[:-8:2], ["6h", "24h"])
    clim = sc.baselines.climatology(train)
    options = dict(by="season", regions=["tropics", "global"], allow_overlap=True)
    expected = sc.score(forecast.assign_attrs(system="model"), truth, clim, **options)
    scores = sc.score(
        on_workers(forecast, init_time=7).assign_attrs(system="model"),
        on_workers(truth, time=11),
        on_workers(clim, hour=1),
        **options,
    )
    assert np.isfinite(scores.t2m.sel(metric="rmse")).any()
    xr.testing.assert_allclose(scores, expected, rtol=1e-12)
    xr.testing.assert_allclose(scores.t2m_low, expected.t2m_low, rtol=1e-12)
