"""Outputs where nothing may be written, through links, in bounded memory, and interrupted in Jupyter."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from factories import quick, tiny_model, waves

import simvp_climate as sc

TASK = sc.Task(["z500", "t2m"], history=2, horizon=2)


@contextmanager
def read_only(folder: Path):
    """Let this process write nothing in a folder, also where it runs as root."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_folder_without_permission_is_named_and_left_as_it_was(forecaster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("read_only")
    for parent in folder.parents:
        if parent.owner() == "root" and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    ds = waves(times=12)
    calls = {
        "cache": lambda: sc.cache(ds, folder / "c.zarr", progress=False),
        "hindcast": lambda: forecaster.hindcast(ds, every="6h", store=folder / "h.zarr", progress=False),
        "save": lambda: forecaster.save(folder / "f.safetensors"),
        "train": lambda: sc.train(
            TASK, ds, valid=None, model=tiny_model(), config=quick(), directory=folder / "run", device="cpu"
        ),
    }
    with read_only(folder):
        for name, call in calls.items():
            with pytest.raises(OSError, match=f"Permission denied.*{folder.name}"):
                call()
            assert not any(folder.iterdir()), name


def test_complete_stores_are_returned_in_a_folder_without_permission(forecaster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("read_only")
    ds = waves(times=12)

    def calls():
        sc.cache(ds, folder / "c.zarr", progress=False)
        forecaster.hindcast(ds, every="6h", store=folder / "h.zarr", progress=False)

    calls()
    for parent in folder.parents:
        if parent.owner() == "root" and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    with read_only(folder):
        calls()
    assert sorted(file.name for file in folder.iterdir()) == ["c.zarr", "h.zarr"]


def test_outputs_that_are_links_are_written_through(forecaster, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    ds = waves(times=20)
    settings = dict(valid=None, model=tiny_model(), config=quick(), device="cpu")
    first = sc.train(TASK, ds, directory=tmp_path / "run", **settings)
    assert (tmp_path / "scratch" / "forecaster.safetensors").exists()
    assert sc.train(TASK, ds, directory=tmp_path / "scratch", **settings).digest == first.digest  # the same run
    first.save(tmp_path / "scratch" / "f.safetensors")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "scratch" / "f.safetensors")
    forecaster.save(tmp_path / "link.safetensors")
    assert (tmp_path / "link.safetensors").is_symlink()
    assert sc.Forecaster.load(tmp_path / "scratch" / "f.safetensors", device="cpu").digest == forecaster.digest
    (tmp_path / "cache.zarr").symlink_to(tmp_path / "scratch" / "c.zarr")
    sc.cache(ds, tmp_path / "scratch" / "c.zarr", progress=False)
    xr.testing.assert_equal(sc.cache(ds, tmp_path / "scratch" / "c.zarr", progress=False).load(), ds)
    xr.testing.assert_equal(sc.open_dataset(tmp_path / "cache.zarr", ["z500", "t2m"]).load(), ds)


IN_LITTLE_MEMORY = """
import resource, sys
import torch
from factories import tiny_model, quick, waves
import simvp_climate as sc
import numpy as np

torch.set_num_threads(1)
task = sc.Task(["t2m"], history=2, horizon=2)
latitude, longitude = np.linspace(-88, 88, 64), np.arange(128) * 360 / 128
train = waves(latitude, longitude, times=12)[["t2m"]]
forecaster = sc.train(task, train, valid=None, model=tiny_model(), config=quick(), device="cpu")
ds = sc.open_dataset(sys.argv[1], ["t2m"])
sc.score(forecaster(ds.isel(time=slice(0, 8)), every="6h"), ds, bootstrap=None)  # imports what is imported when used
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
limit = used + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
forecast = forecaster.hindcast(ds, every="6h", store=sys.argv[2], progress=False)
scores = sc.score(forecast, ds, metrics=["rmse"], bootstrap=None)
print(ds.nbytes + forecast.nbytes, float(scores.t2m.sel(metric="rmse", system="persistence").isel(lead_time=0)))
"""


@pytest.mark.slow
def test_a_hindcast_and_its_scores_stay_within_a_hard_limit_of_memory(tmp_path):
    limit = 1000 * 2**20  # a batch of states takes 16 MiB, and the network about 50 times as much
    latitude, longitude = np.linspace(-88, 88, 64), np.arange(128) * 360 / 128
    days = waves(latitude, longitude, times=1000)[["t2m"]]
    path = tmp_path / "s.zarr"
    days.to_zarr(path, consolidated=False, encoding={"t2m": {"chunks": (100, 64, 128)}})
    for block in range(1, 18):
        later = days.assign_coords(time=days.time + np.timedelta64(6000 * block, "h"))
        later.to_zarr(path, append_dim="time", consolidated=False)
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, str(path), str(tmp_path / "h.zarr"), str(limit)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert result.returncode == 0, result.stderr[-3000:]
    size, rmse = map(float, result.stdout.split())
    assert size > 1.5 * limit and 0.1 < rmse < 10


CELL = """
import torch
torch.set_num_threads(1)
from factories import quick, tiny_model, waves
import simvp_climate as sc
ds = waves(times=60)
task = sc.Task(["z500", "t2m"], history=2, horizon=2)
config = quick(epochs=EPOCHS, save_minutes=0.0)
forecaster = sc.train(task, ds, valid=None, model=tiny_model(), config=config, directory="run", device="cpu")
print(len(forecaster.training_curve), "epochs")
"""


@pytest.mark.slow
def test_an_interrupted_cell_of_jupyter_is_resumed(tmp_path):
    manager = pytest.importorskip("jupyter_client").KernelManager()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    manager.start_kernel(cwd=str(tmp_path), env=variables)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        client.execute(CELL.replace("EPOCHS", "200"))
        begin = time.monotonic()
        while not (tmp_path / "run" / "training_curve.csv").exists():
            assert time.monotonic() - begin < 120
            time.sleep(0.05)
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=60)["content"].get("ename") == "KeyboardInterrupt"
        rows = (tmp_path / "run" / "training_curve.csv").read_text().splitlines()
        assert 1 < len(rows) <= 200  # a header and the epochs until then
        client.execute_interactive(CELL.replace("EPOCHS", "200"), timeout=300, output_hook=(outputs := []).append)
        text = "".join(message["content"].get("text", "") for message in outputs)
        assert "200 epochs" in text
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
