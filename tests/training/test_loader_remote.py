"""Training from a store on a web server, slow, faulty or gone: the same batches as from the disk, or an error."""

import re
import time
from datetime import timedelta

import http_server
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from factories import quick, tiny_model
from http_server import serve

import simvp_climate as sc
from simvp_climate.data import reader, remote
from simvp_climate.data.conventions import orient
from simvp_climate.data.opening import open_dataset
from simvp_climate.data.windows import find_windows
from simvp_climate.processing import statistics
from simvp_climate.training import checkpoint, loader
from simvp_climate.training.loader import Plan, WindowStream

STREAM = Plan("stream", 50, 2)
NAMES = ["a", "b", "c"]
TIMES, CHUNK, LENGTH = 200, 5, 4
CHUNKS = len(NAMES) * TIMES // CHUNK


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store of three variables of 40 chunks each."""
    path = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    dims = ("time", "latitude", "longitude")
    coords = {
        "time": pd.date_range("2001", periods=TIMES, freq="6h"),
        "latitude": np.linspace(-70, 70, 8),
        "longitude": np.arange(0, 360, 22.5),
    }
    ds = xr.Dataset({name: (dims, rng.normal(size=(TIMES, 8, 16)).astype("f4")) for name in NAMES}, coords)
    encoding = {name: {"chunks": (CHUNK, 8, 16)} for name in NAMES}
    ds.to_zarr(path / "s.zarr", zarr_format=2, consolidated=True, encoding=encoding)
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait little between attempts, and leave zarr as it was."""
    monkeypatch.setitem(remote._RETRY, "backoff", {"init_backoff": timedelta(seconds=0.01), "base": 1.1})
    with zarr.config.set({"async.concurrency": zarr.config.get("async.concurrency")}):
        yield


def opened(where) -> tuple[reader.Source, np.ndarray]:
    ds = orient(open_dataset(f"{where}/s.zarr", NAMES))
    return reader.open_source(ds), find_windows(ds.indexes["time"], "6h", 2, LENGTH - 2, "ds")


def stream(where, plan=STREAM) -> WindowStream:
    source, windows = opened(where)
    return WindowStream([source], [windows], batch_size=8, plan=plan, seed=1)


def batches(one: WindowStream, epoch: int = 0) -> list[tuple[np.ndarray, torch.Tensor]]:
    return [(batch.windows.copy(), batch.states.clone()) for batch in one.epoch(epoch)]


def assert_same(found, expected):
    for (windows, states), (other_windows, other_states) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(windows, other_windows)
        assert torch.equal(states, other_states)


def chunk_requests(server) -> int:
    return sum(count for path, count in server.paths.items() if path.split("/")[1] in NAMES and path[-1].isdigit())


def test_a_slow_server_gives_the_same_batches_with_many_requests_in_flight(folder):
    with serve(folder, latency=0.05) as server:
        remote = stream(server.url)
        server.most_at_once = 0
        before = chunk_requests(server)
        assert before == 0, "opening reads no data"
        assert_same(batches(remote), batches(stream(folder)))
        # a group is 2 stretches of 11 chunks of 3 variables
        assert server.most_at_once >= 40
        assert CHUNKS <= chunk_requests(server) <= 1.15 * CHUNKS
        assert_same(batches(remote, 1), batches(stream(folder), 1))
        assert chunk_requests(server) <= 2 * 1.15 * CHUNKS


def test_a_faulty_server_gives_the_same_batches(folder):
    with serve(folder, failure_rate=0.05, seed=4) as server:
        remote, local = stream(server.url), stream(folder)
        for epoch in range(3):
            assert_same(batches(remote, epoch), batches(local, epoch))
        assert server.failures >= 10
        assert min(server.by_status[kind] for kind in ("503", "truncated", "dropped")) >= 2


def test_a_faulty_server_fills_the_memory_with_the_same_states(folder):
    with serve(folder, failure_rate=0.05, seed=3) as server:
        assert_same(batches(stream(server.url, Plan("memory"))), batches(stream(folder, Plan("memory"))))
        assert server.failures >= 3


def test_a_server_that_is_gone_is_an_error_and_nothing_unread_is_a_batch(folder):
    plan = Plan("stream", 25, 1)
    expected = batches(stream(folder, plan))
    found = []
    with serve(folder) as server:
        remote = stream(server.url, plan)
        epoch = remote.epoch(0)
        start = time.perf_counter()
        with pytest.raises(OSError) as error:
            for batch in epoch:
                found.append((batch.windows.copy(), batch.states.clone()))
                if len(found) == 2:
                    server.stop()
                    start = time.perf_counter()
    assert time.perf_counter() - start < 15
    assert 2 <= len(found) < len(expected)
    assert_same(found, expected[: len(found)])
    message = str(error.value)
    times = r"the times 2001-\d\d-\d\d \d\d:00:00 to 2001-\d\d-\d\d \d\d:00:00 \(\d+ times\)"
    assert re.match(rf"'[abc]' of the store '{server.url}/s.zarr' cannot be read at {times}: ConnectionError", message)
    assert "no server listens at '127.0.0.1" in message and "check the connection" in message


def test_a_run_goes_on_when_the_server_is_back(folder, tmp_path, monkeypatch):
    task = sc.Task(NAMES, history=2, horizon=2)
    config = quick(epochs=3, memory=500_000)

    def run(where, directory):
        ds = open_dataset(f"{where}/s.zarr", NAMES)
        valid = ds.isel(time=slice(160, 166))
        settings = dict(model=tiny_model(), config=config, directory=directory, device="cpu")
        return sc.train(task, ds.isel(time=slice(0, 150)), valid=valid, **settings)

    whole = run(folder, tmp_path / "whole")
    assert checkpoint.load_plans(tmp_path / "whole")[0].mode == "stream"
    epoch_of, server_class = WindowStream.epoch, http_server._HTTPServer
    with serve(folder) as server:
        port = int(server.url.rsplit(":", 1)[1])

        def until_the_server_goes(self, epoch, first_batch=0):
            for number, batch in enumerate(epoch_of(self, epoch, first_batch)):
                if (epoch, number) == (1, 2):
                    server.stop()
                yield batch

        monkeypatch.setattr(loader.WindowStream, "epoch", until_the_server_goes)
        with pytest.raises(OSError, match="no server listens at"):
            run(server.url, tmp_path / "part")
        monkeypatch.setattr(loader.WindowStream, "epoch", epoch_of)
    # the same address again
    monkeypatch.setattr(http_server, "_HTTPServer", lambda address, handler: server_class((address[0], port), handler))
    with serve(folder) as back:
        assert back.url == server.url
        resumed = run(back.url, tmp_path / "part")
    assert len(resumed.provenance["epochs"]) == 3
    assert resumed.provenance["epochs"] == whole.provenance["epochs"]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_statistics_are_those_of_the_disk_and_are_remembered(folder):
    weights, logs = np.ones(8), np.zeros(len(NAMES))
    with serve(folder, latency=0.02, failure_rate=0.05, seed=4) as server:
        source, windows = opened(server.url)
        found = statistics.compute_statistics([source], [windows], weights, 2, logs)
        assert CHUNKS <= chunk_requests(server) <= 1.15 * CHUNKS + server.failures
        local, _ = opened(folder)
        expected = statistics.compute_statistics([local], [windows], weights, 2, logs, use_cache=False)
        for name in ("mean", "std", "change_std", "mask"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert found.digest == expected.digest
        read = chunk_requests(server)
        again, _ = opened(server.url)
        assert statistics.compute_statistics([again], [windows], weights, 2, logs).digest == found.digest
        # a few states show whether the content is the same
        assert read < chunk_requests(server) <= read + statistics._SAMPLED * len(NAMES) + server.failures
