"""What must hold on a GPU: the forecasts of the CPU, and trainings that resume, in every precision.

    python -m pytest -m gpu tests/test_gpu.py

Without a GPU all are skipped; with SIMVP_GPU_TESTS=cpu they run on the CPU, to test the tests.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import training_script
from factories import TASK, quick, tiny_model, tiny_sphere, waves

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.processing.task import Task
from simvp_climate.training.loader import Plan, WindowStream
from simvp_climate.training.train import train

pytestmark = pytest.mark.gpu

DEVICE = "cuda" if torch.cuda.is_available() else os.environ.get("SIMVP_GPU_TESTS", "")
FORCED = Task(["z500", "t2m"], history=2, horizon=3, forcings=["insolation", "time_of_year", "coordinates"])


@pytest.fixture
def device(monkeypatch):
    if not DEVICE:
        pytest.skip("no CUDA GPU")
    # otherwise convolutions round to 10 bits, and no comparison with the CPU could be strict
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return DEVICE


def with_land(ds):
    """Return the Dataset without values of t2m on a corner of the grid."""
    land = np.zeros(ds["t2m"].shape[1:], bool)
    land[:3, :5] = True
    return ds.assign(t2m=ds["t2m"].where(~land))


def train_on(device, ds, task=TASK, model=None, **changes):
    config = quick(**{"precision": "32-true", "epochs": 2, **changes})
    return train(task, ds, valid=None, model=model or tiny_model(), config=config, device=device)


def losses(forecaster):
    return [record["loss"] for record in forecaster.provenance["epochs"]]


def assert_same_forecast(first, second, ds, limit, **request):
    """Assert that two forecasters differ by at most a share of each variable's standard deviation."""
    one, other = first(ds, **request), second(ds, **request)
    for name in one:
        np.testing.assert_array_equal(one[name].isnull(), other[name].isnull())
        difference = float(abs(one[name] - other[name]).max() / ds[name].std())
        assert difference <= limit, f"{name} differs by {difference:.1e} standard deviations"


@pytest.mark.parametrize("build", [tiny_model, tiny_sphere])
def test_the_forecasts_are_those_of_the_cpu(device, build, tmp_path):
    ds = waves()
    train_on("cpu", ds, FORCED, build(hidden_space=16, hidden_time=64, blocks=4)).save(tmp_path / "f.safetensors")
    on_cpu, on_gpu = (Forecaster.load(tmp_path / "f.safetensors", name, compile=False) for name in ("cpu", device))
    assert next(on_gpu.network.parameters()).device.type == device
    assert_same_forecast(on_cpu, on_gpu, ds, 1e-4, every="12h", horizon=7)  # a rollout of four calls


@pytest.mark.parametrize("padding", ["zeros", "periodic", "sphere"])
def test_training_gives_the_losses_of_the_cpu(device, padding):
    ds = waves()
    for model, optimizer in ((tiny_model(padding=padding), "adamw"), (tiny_sphere(padding=padding), "muon")):
        here, on_cpu = (train_on(name, ds, model=model, optimizer=optimizer) for name in (device, "cpu"))
        np.testing.assert_allclose(losses(here), losses(on_cpu), rtol=1e-3)


@pytest.mark.parametrize(("model", "optimizer"), [(tiny_model(), "adamw"), (tiny_sphere(), "muon")])
@pytest.mark.parametrize(("precision", "limit"), [("bf16-mixed", 0.05), ("16-mixed", 0.05)])
def test_half_precision_trains_as_float32_does(device, precision, limit, model, optimizer):
    if precision == "16-mixed" and device == "cpu":
        pytest.skip("fp16 needs a GPU")
    ds, changes = waves(), {"model": model, "optimizer": optimizer, "epochs": 3}
    half, full = (train_on(device, ds, precision=name, **changes) for name in (precision, "32-true"))
    assert losses(half)[-1] < losses(half)[0]
    np.testing.assert_allclose(losses(half), losses(full), rtol=limit)
    assert half(ds).to_array().notnull().all()


def test_masked_cells_and_forcings_are_those_of_the_cpu(device, tmp_path):
    ds = with_land(waves())
    trained = train_on(device, ds, FORCED)
    assert np.isfinite(losses(trained)).all()
    trained.save(tmp_path / "f.safetensors")
    forecast = trained(ds, every="12h")
    assert (forecast["t2m"].isnull() == ds["t2m"].isnull().all("time")).all()
    assert forecast["z500"].notnull().all()
    assert_same_forecast(Forecaster.load(tmp_path / "f.safetensors", "cpu"), trained, ds, 1e-4, every="12h")


def test_activation_checkpointing_changes_no_loss(device):
    ds = waves()
    kept, recomputed = (train_on(device, ds, activation_checkpointing=value) for value in (False, True))
    np.testing.assert_allclose(losses(recomputed), losses(kept), rtol=1e-4)


def test_a_compiled_network_forecasts_and_trains_as_any_other(device, tmp_path):
    if device == "cpu":
        pytest.skip("tests/training/test_compile.py compiles on the CPU")
    ds = waves()
    plain, compiled = (train_on(device, ds, FORCED, compile=value) for value in (False, True))
    np.testing.assert_allclose(losses(compiled), losses(plain), rtol=1e-3)
    plain.save(tmp_path / "f.safetensors")
    loaded = Forecaster.load(tmp_path / "f.safetensors", device, compile=True)
    assert_same_forecast(plain, loaded, ds, 1e-4, every="12h", horizon=7)


def start(directory: Path, device: str) -> subprocess.Popen:
    command = [sys.executable, str(Path(training_script.__file__)), str(directory), "3", "0", device]
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # needed for deterministic matrix products
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_training_resumes(device, tmp_path, record_property):
    killed = start(tmp_path / "killed", device)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "training.pt").exists():
        assert killed.poll() is None and time.monotonic() < deadline, "the training ended before it saved anything"
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "forecaster.safetensors").exists(), "killed too late"
    for process in (start(tmp_path / "killed", device), start(tmp_path / "whole", device)):
        assert process.communicate(timeout=240)[0].endswith("done\n")
    resumed, whole = (
        Forecaster.load(tmp_path / name / "forecaster.safetensors", "cpu") for name in ("killed", "whole")
    )
    pairs = zip(resumed.network.state_dict().values(), whole.network.state_dict().values(), strict=True)
    record_property("bit_exact", all(torch.equal(one, other) for one, other in pairs))
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-5)


def test_an_exported_program_forecasts_as_the_gpu_does(device, tmp_path):
    ds = with_land(waves())
    trained = train_on(device, ds)
    trained.export(tmp_path / "program.pt2")
    assert next(trained.network.parameters()).device.type == device
    program = torch.export.load(tmp_path / "program.pt2").module()
    states = np.stack([ds[name].values[-TASK.history :] for name in TASK.variables], axis=1)
    expected = trained(ds).squeeze("init_time")
    exported = program(torch.from_numpy(states[np.newaxis]))[0].numpy()
    for index, name in enumerate(TASK.variables):
        error = abs(exported[:, index] - expected[name].values) / float(ds[name].std())
        assert np.nanmax(error) <= 1e-4
        np.testing.assert_array_equal(np.isnan(exported[:, index]), np.isnan(expected[name].values))


def open_stream(device, plan, states):
    """Return a stream of windows of four states, whose source yields the states given."""
    windows = np.arange(len(states) - 3)[:, np.newaxis] + np.arange(4)
    shape = states.shape[1:]
    source = SimpleNamespace(shape=shape, state_bytes=4 * int(np.prod(shape)))
    return WindowStream([source], [windows], batch_size=4, plan=plan, states=states, device=device)


def test_states_kept_on_the_gpu_give_the_same_batches(device):
    states = np.random.default_rng(0).standard_normal((60, 2, 8, 16), dtype=np.float32)
    streams = [open_stream(name, Plan("memory"), states) for name in ("cpu", device)]
    for on_cpu, on_gpu in zip(*(stream.epoch(1) for stream in streams), strict=True):
        assert on_gpu.states.device.type == device
        np.testing.assert_array_equal(on_cpu.windows, on_gpu.windows)
        torch.testing.assert_close(on_cpu.states, on_gpu.states.cpu(), rtol=0, atol=0)


def test_batches_are_right_while_the_gpu_lags_behind(device, monkeypatch):
    """The host fills pinned memory again that the GPU may not have copied yet."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))  # the states stay on the host
    states = np.arange(200 * 2 * 64 * 64, dtype=np.float32).reshape(200, 2, 64, 64)
    received, expected = [], []
    for batch in open_stream(device, Plan("memory"), states).epoch(0):
        assert batch.states.is_pinned() == (device == "cuda")
        if device == "cuda":
            torch.cuda._sleep(20_000_000)  # cycles, about 10 ms
        received.append(batch.states.to(device, non_blocking=True))
        expected.append(states[batch.windows[:, np.newaxis] + np.arange(4)])
    for one, other in zip(received, expected, strict=True):
        if device == "cuda":
            np.testing.assert_array_equal(one.cpu(), other)
        else:  # on the CPU `to` copies nothing, so only the last four batches are still there
            assert one.shape == other.shape


def test_automatic_settings_are_those_of_the_gpu(device):
    if device == "cpu":
        pytest.skip("these are the settings of a GPU")
    config = quick(precision="auto", compile="auto")
    trained = train(TASK, waves(), valid=None, model=tiny_model(), config=config, device=device)
    assert trained.provenance["config"]["precision"] == "bf16-mixed"
    assert trained.provenance["config"]["compile"] is True
    assert np.isfinite(losses(trained)).all()
