"""The stream of windows: every window once, in an order that is a function of the seed, within its memory."""

import multiprocessing
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from factories import waves

from simvp_climate.data import host_memory, reader
from simvp_climate.data.conventions import canonicalize, orient
from simvp_climate.data.reader import Channel
from simvp_climate.data.windows import find_windows
from simvp_climate.processing import tensors
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.training import loader
from simvp_climate.training.loader import Plan, WindowStream, choose_plan

LENGTH = 4  # of a window
SHAPE = (4, 8)


def counted(times: int, start: int = 0) -> xr.Dataset:
    """States that hold the number of their time, so that a window says which it is."""
    values = np.arange(start, start + times, dtype="f4")[:, None, None] + np.zeros(SHAPE, "f4")
    coords = {
        "time": pd.date_range("2001", periods=times, freq="6h") + start * pd.Timedelta("6h"),
        "latitude": [-60.0, -20.0, 20.0, 60.0],
        "longitude": np.arange(8) * 45.0,
    }
    return xr.Dataset({"a": (("time", "latitude", "longitude"), values)}, coords)


def parts(*series: xr.Dataset) -> tuple[list, list]:
    sources = [reader.open_source(orient(one)) for one in series]
    return sources, [find_windows(one.indexes["time"], "6h", 2, LENGTH - 2, "ds") for one in series]


def seen(stream: WindowStream, epoch: int = 0, first_batch: int = 0) -> list[list[int]]:
    """The first time of every window, batch by batch; checks that each window is in order."""
    batches = []
    for batch in stream.epoch(epoch, first_batch):
        times = batch.states[:, :, 0, 0, 0].numpy()
        np.testing.assert_array_equal(times - times[:, :1], np.tile(np.arange(LENGTH), (len(times), 1)))
        assert (batch.states == batch.states[..., :1, :1]).all()
        batches.append(times[:, 0].astype(int).tolist())
    return batches


PLANS = [Plan("memory"), Plan("stream", 10, 2), Plan("stream", 7, 3), Plan("stream", 1000, 1), Plan("stream", 1, 1)]


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("times", [50, 53, 61])
def test_every_window_comes_once_over_all_ranks(plan, world, times):
    sources, windows = parts(counted(times))
    streams = [
        WindowStream(sources, windows, batch_size=5, plan=plan, rank=rank, world_size=world, seed=3)
        for rank in range(world)
    ]
    epochs = [[seen(stream, epoch) for stream in streams] for epoch in (0, 1)]
    for ranks in epochs:
        flat = [window for batches in ranks for batch in batches for window in batch]
        assert sorted(flat) == list(range(times - LENGTH + 1)), "a window is missing or comes twice"
        assert len({len(batches) for batches in ranks}) == 1, "a rank would wait for the others"
        sizes = [len(batch) for batches in ranks for batch in batches]
        assert max(sizes) <= 5 and max(sizes) - min(sizes) <= 1
    assert epochs[0] != epochs[1]
    for stream, batches in zip(streams, epochs[0], strict=True):
        assert stream.order(0).tolist() == [window for batch in batches for window in batch]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_seed_fixes_the_order_and_an_epoch_goes_on_at_any_batch(plan):
    sources, windows = parts(counted(60))
    stream, again = (WindowStream(sources, windows, batch_size=4, plan=plan, seed=5) for _ in range(2))
    whole = seen(stream, 2)
    assert len(whole) == len(stream) == 15
    for first in (0, 1, 6, 7, 14):
        assert seen(again, 2, first) == whole[first:]
    assert seen(WindowStream(sources, windows, batch_size=4, plan=plan, seed=6), 2) != whole


def test_a_resumed_epoch_reads_only_what_is_left(tmp_path):
    counted(60).to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"a": {"chunks": (5, *SHAPE)}})
    sources, windows = parts(xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False))
    whole, last = (WindowStream(sources, windows, batch_size=10, plan=Plan("stream", 10, 1)) for _ in range(2))
    seen(whole, 0)
    seen(last, 0, 5)
    assert last.decoded_steps <= 20 < whole.decoded_steps


def test_no_window_crosses_a_gap_or_from_one_series_to_the_next():
    gap = counted(20).drop_isel(time=[8, 9])
    sources, windows = parts(gap, counted(15, start=100))
    for plan in PLANS:
        found = [w for batch in seen(WindowStream(sources, windows, batch_size=6, plan=plan)) for w in batch]
        assert sorted(found) == [*range(0, 5), *range(10, 17), *range(100, 112)]


def test_in_order_where_nothing_is_to_be_shuffled():
    sources, windows = parts(counted(30))
    for plan in PLANS:
        batches = seen(WindowStream(sources, windows, batch_size=8, plan=plan, shuffle=False))
        assert [window for batch in batches for window in batch] == list(range(27))


def test_shuffled_windows_come_from_all_over_the_group():
    sources, windows = parts(counted(1003))
    stream = WindowStream(sources, windows, batch_size=20, plan=Plan("stream", 50, 4), seed=1)
    spreads = [np.ptp(batch) for batch in seen(stream)]
    assert np.median(spreads) > 300, "batches of neighbors teach the same weather twice"


@pytest.mark.parametrize("chunk", [10, 7])
@pytest.mark.parametrize("offset", [0, 3])
def test_each_chunk_is_read_about_once_an_epoch(tmp_path, chunk, offset):
    counted(1000).to_zarr(tmp_path / "s.zarr", consolidated=False, encoding={"a": {"chunks": (chunk, *SHAPE)}})
    lazy = xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False).isel(time=slice(offset, None))
    sources, windows = parts(lazy)
    plan = choose_plan(sources, windows, 8, memory=120_000)
    assert plan.mode == "stream"
    assert plan.shard % chunk == 0 and plan.shard >= 10 * (LENGTH - 1)
    stream = WindowStream(sources, windows, batch_size=8, plan=plan)
    seen(stream)
    assert stream.decoded_steps / 1000 <= 1.11


def test_the_plan_keeps_within_the_memory_given():
    sources, windows = parts(counted(2000))
    state = 4 * np.prod(SHAPE)
    everything = 2000 * state + 4 * 8 * LENGTH * state
    assert choose_plan(sources, windows, 8, memory=int(everything)).mode == "memory"
    for memory in (int(everything) - 1, 100_000, 40_000):
        plan = choose_plan(sources, windows, 8, memory)
        stream = WindowStream(sources, windows, batch_size=8, plan=plan)
        assert plan.mode == "stream"
        held = 2 * stream._largest_group() * state + 4 * 8 * LENGTH * state
        assert held <= memory and held <= stream.bound
    with pytest.raises(MemoryError, match="memory=17000 gives 0.0162 MiB, and streaming these windows takes"):
        choose_plan(sources, windows, 8, memory=17_000)


def test_chunks_that_are_longer_than_what_is_thought_enough(monkeypatch):
    """Hourly files of a year: by itself it takes what one stretch of them needs, if that is free."""
    monkeypatch.setattr(loader, "_STREAM_BYTES", 10_000)
    monkeypatch.setattr(host_memory, "free_memory", lambda: 1_000_000)
    ds = counted(6000).chunk(time=2000)
    sources, windows = parts(ds)
    plan = choose_plan(sources, windows, 2)
    assert plan == Plan("stream", 2000, 1)
    monkeypatch.setattr(host_memory, "free_memory", lambda: 500_000)
    with pytest.raises(
        MemoryError, match=r"gives 0.143 MiB \(50% of it, the rest is for the other period\), .* 2000 times"
    ):
        choose_plan(sources, windows, 2, share=0.5)


def test_memory_stays_within_the_bound_for_a_store_that_is_larger(tmp_path):
    """A store of 240 MB through a bound of about 107 MB, measured from outside."""
    code = f"""
import resource, sys
import numpy as np, pandas as pd, xarray as xr, zarr
from simvp_climate.training import loader
from simvp_climate.data import reader
def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = {str(tmp_path / "big.zarr")!r}
ds = xr.open_zarr(path, chunks=None, consolidated=False)
windows = np.arange(1500 - 3)[:, None] + np.arange(4)
def stream(times, count, plan=None):
    source = reader.open_source(ds.isel(time=slice(0, times)), "zarr")
    plan = plan or loader.choose_plan([source], [windows[:count]], 4, 40 * 2**20)
    return loader.WindowStream([source], [windows[:count]], batch_size=4, plan=plan)
for _ in stream(40, 30, loader.Plan("stream", 10, 1)).epoch(0):
    pass  # what the libraries take once
before = peak()
whole = stream(1500, 1497)
total = 0
for batch in whole.epoch(0):
    total += float(batch.states[:, 0, 0, 0, 0].sum())
assert total == 1496 * 1497 / 2, total
print(whole.plan.mode, peak() - before, whole.bound)
"""
    big = counted(1500).isel(latitude=np.arange(200) % 4, longitude=np.arange(200) % 8)
    big = big.assign_coords(latitude=np.linspace(-89, 89, 200), longitude=np.arange(200) * 1.8)
    big.to_zarr(tmp_path / "big.zarr", consolidated=False, encoding={"a": {"chunks": (10, 200, 200)}})
    environment = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    mode, used, bound = done.stdout.split()
    assert mode == "stream" and int(bound) < 110e6 < 1500 * 200 * 200 * 4 / 2
    assert int(used) <= 1.2 * int(bound)


def test_the_engines_give_the_same_batches(tmp_path):
    names = ["z500", "t2m"]
    waves(times=60).to_zarr(tmp_path / "s.zarr", consolidated=False)
    lazy = canonicalize(xr.open_zarr(tmp_path / "s.zarr", chunks=None, consolidated=False), names).dataset
    windows = find_windows(lazy.indexes["time"], "6h", 2, 2, "ds")
    streams = []
    for engine in ("zarr", "tensorstore"):
        source = reader.open_source(lazy, engine)
        streams.append(WindowStream([source], [windows], batch_size=6, plan=Plan("stream", 12, 2)))
    for first, second in zip(streams[0].epoch(0), streams[1].epoch(0), strict=True):
        assert torch.equal(first.states, second.states)
        np.testing.assert_array_equal(first.windows, second.windows)


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_from_memory_share_the_batches_of_one(shuffle):
    sources, windows = parts(counted(53))

    def batches(world, batch_size):
        streams = [
            WindowStream(
                sources,
                windows,
                batch_size=batch_size,
                plan=Plan("memory"),
                rank=rank,
                world_size=world,
                shuffle=shuffle,
            )
            for rank in range(world)
        ]
        ranks = [[batch.windows for batch in stream.epoch(2)] for stream in streams]
        return [np.concatenate(step).tolist() for step in zip(*ranks, strict=True)]

    assert batches(2, 3) == batches(1, 6)
    assert batches(3, 4) == batches(1, 12)


def test_too_few_windows_for_the_ranks_are_refused():
    sources, windows = parts(counted(8))
    with pytest.raises(ValueError, match="5 windows over 2 processes in batches of 1 leave a process with an empty"):
        WindowStream(sources, windows, batch_size=1, plan=Plan("memory"), world_size=2)


def _child(stream, queue):
    try:
        next(iter(stream.epoch(0)))
        queue.put("went on")
    except RuntimeError as error:
        queue.put(str(error))


def test_a_forked_process_is_told_off():
    sources, windows = parts(counted(20))
    stream = WindowStream(sources, windows, batch_size=4, plan=Plan("stream", 5, 1))
    seen(stream)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(stream, queue))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
        child.start()
    assert "threads do not survive a fork" in queue.get()
    child.join()


def test_memory_is_filled_again_only_after_the_gpu_has_copied_it(monkeypatch):
    """With a pretended GPU that copies a batch only when the host waits for it, as a busy one does."""
    sources, windows = parts(counted(60))
    expected = seen(WindowStream(sources, windows, batch_size=4, plan=Plan("memory")))
    uncopied, copied = [], []

    def record_event() -> SimpleNamespace:
        batch, number = uncopied[-1], len(uncopied) - 1

        def copy() -> None:
            if len(copied) == number:
                copied.append(batch[:, 0, 0, 0, 0].int().tolist())

        return SimpleNamespace(synchronize=copy)

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory=False: empty(shape))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))  # the states stay on the host
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(record_event=record_event))
    stream = WindowStream(sources, windows, batch_size=4, plan=Plan("memory"), device="cuda")
    for batch in stream.epoch(0):
        uncopied.append(batch.states)
    assert len(expected) == 15
    assert copied == expected[:11], "the last four may wait"


def test_reading_is_ahead_by_one_group_and_no_more(monkeypatch):
    sources, windows = parts(counted(60))
    stream = WindowStream(sources, windows, batch_size=5, plan=Plan("stream", 10, 1))
    read = []
    fetch = reader.fetch
    monkeypatch.setattr(reader, "fetch", lambda requests: (fetch(requests), read.append(1)))
    batches = stream.epoch(0)
    next(batches)
    batches.close()
    assert 1 <= len(read) <= 2


class TestScale:
    CHANNELS = (Channel("tp"), Channel("tcc"), Channel("sst"))

    def scale(self):
        mask = np.zeros((3, 2, 2), bool)
        mask[2, 0, 0] = True
        normalizer = Normalizer(
            self.CHANNELS,
            ("m", "1", "K"),
            mean=np.array([0.5, 0.25, 280.0]),
            std=np.array([2.0, 0.5, 4.0]),
            change_std=np.ones((1, 3)),
            mask=mask,
            log_scale=np.array([1e-5, 0, 0]),
            bounds=np.array([[0, np.inf], [0, 1], [-np.inf, np.inf]]),
            extremes=np.tile([-np.inf, np.inf], (3, 1)),
        )
        return tensors.Scale(normalizer, torch.device("cpu"))

    def test_there_and_back(self):
        x = torch.full((1, 1, 3, 2, 2), 0.5)
        x[:, :, 0] = 1e-5 * (np.e - 1)  # log(1 + x / 1e-5) is one
        x[:, :, 2] = 284.0
        x[:, :, 2, 0, 0] = torch.nan
        y = self.scale().normalize(x)
        torch.testing.assert_close(y[0, 0, :, 1, 1], torch.tensor([0.25, 0.5, 1.0]))
        assert y[0, 0, 2, 0, 0] == 0
        torch.testing.assert_close(self.scale().denormalize(y), x, equal_nan=True, rtol=1e-5, atol=0)
        assert x[0, 0, 0, 0, 0] < 1e-4, "the input is left alone"

    def test_a_forecast_stays_within_its_bounds(self):
        y = self.scale().denormalize(torch.tensor([-9.0, 9.0, 0.0])[None, None, :, None, None].expand(1, 1, 3, 2, 2))
        assert y[0, 0, :2, 0, 0].tolist() == [0, 1]
        assert y[0, 0, 2].isnan().tolist() == [[True, False], [False, False]]


class TestForcings:
    def fields(self, names, inits, calls=1, statics=(), history=2, step="6h"):
        task = Task(["t2m"], history=history, horizon=history * calls, step=step, forcings=names)
        statics = np.array(statics).reshape(-1, 2, 4)
        latitude, longitude = np.array([-30.0, 30.0]), np.arange(4) * 90.0
        made = tensors.Forcings(task, latitude, longitude, statics, np.ones(2), torch.device("cpu"))
        return made, made(pd.DatetimeIndex(inits), history * calls)

    def test_input_and_target_times_side_by_side(self):
        made, f = self.fields(["insolation"], ["2001-03-20T12", "2001-03-20T18"], calls=2)
        assert len(made) == 2 and f.shape == (2, 4, 2, 2, 4)
        # the second forecast begins one step after the first
        torch.testing.assert_close(f[0, 1:], f[1, :-1])
        # what is a target for the first call is an input of the second
        torch.testing.assert_close(f[:, :2, 1], f[:, 2:, 0])
        # at the equinox, noon at Greenwich: full at longitude 0, dark at the date line
        noon = f[0, 1, 0]
        assert noon[0, 0] == pytest.approx(np.cos(np.deg2rad(30)), abs=0.03)
        assert noon[0, 2] == 0 and f.min() >= 0

    def test_fields_without_time_have_mean_zero_and_unit_spread(self):
        height = [[0, 0, 0, 0], [2, 2, 2, 2]]
        made, f = self.fields(["orography"], ["2001-03-20T12"], statics=[height])
        assert len(made) == 1
        assert f[0, 0, 0].tolist() == f[0, 1, 0].tolist() == [[-1] * 4, [1] * 4]

    def test_coordinates_are_a_place_on_the_sphere(self):
        made, f = self.fields(["coordinates"], ["2001-03-20T12"])
        assert len(made) == 3
        torch.testing.assert_close((f[0, 0] ** 2).sum(0), torch.ones(2, 4))

    def test_none_is_none(self):
        made, f = self.fields([], ["2001-03-20T12"])
        assert len(made) == 0 and f is None

    def test_months(self):
        _, f = self.fields(["time_of_year"], ["2001-01-31"], step="1MS", history=1)
        assert f.shape == (1, 1, 4, 2, 4)
        torch.testing.assert_close((f[0, 0, :2] ** 2).sum(0), torch.ones(2, 4))
