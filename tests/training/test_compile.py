"""A network compiled by torch.compile: the same forecaster up to rounding, with weights of the same names."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import assert_same_weights, quick, run, tiny_model, waves, weights
from torch import nn

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.processing import tensors


@pytest.fixture
def traced(monkeypatch):
    """Trace networks forward and backward as for compilation, but run the traced operations: seconds, not a minute."""
    compile_module, traced = nn.Module.compile, []

    def trace(network):
        traced.append(network)
        compile_module(network, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", trace)
    monkeypatch.setattr(tensors, "_compiler_error", lambda device: None)
    return traced


@pytest.mark.slow
def test_a_traced_network_trains_exports_and_resumes_as_any_other(traced, tmp_path, monkeypatch):
    ds, settings = waves(times=11), dict(epochs=2, batch_size=4, learning_rate=1e-2)  # two batches of 4 windows
    model = tiny_model(padding="sphere", drop_path=0.3)
    plain = run(ds, model=model, config=quick(**settings))
    assert not traced and plain.provenance["config"]["compile"] is False
    config = quick(**settings, compile=True)
    whole = run(ds, model=model, config=config)
    assert len(traced) == 1 and whole.provenance["config"]["compile"] is True
    assert weights(whole).keys() == weights(plain).keys()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(whole)[name], value, rtol=1e-3, atol=1e-4, msg=name)

    # stopped after the first of two epochs, and resumed
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("simvp_climate.training.checkpoint.write_curve", stop)
        run(ds, model=model, config=config, directory=tmp_path / "run")
    resumed = run(ds, model=model, config=config, directory=tmp_path / "run")
    assert_same_weights(resumed, whole)
    assert resumed.provenance["epochs"] == whole.provenance["epochs"]
    with pytest.warns(UserWarning, match="saved with compile True .now False.*different digits"):
        run(ds, model=model, config=quick(**settings), directory=tmp_path / "run")

    loaded = Forecaster.load(tmp_path / "run" / "forecaster.safetensors", "cpu")
    assert loaded.digest == whole.digest
    history = ds.isel(time=slice(0, 2))
    expected, forecast = loaded(history), whole(history)
    whole.export(tmp_path / "f.pt2")
    states = torch.from_numpy(history.to_dataarray().transpose("time", "variable", ...).values)
    exported = torch.export.load(tmp_path / "f.pt2").module()(states[None])
    for index, name in enumerate(expected):
        np.testing.assert_allclose(forecast[name], expected[name], rtol=1e-5)
        np.testing.assert_allclose(exported[0, :, index], expected[name].values[0], rtol=1e-5)


def test_a_loaded_forecaster_is_compiled_if_wanted(traced, tmp_path, forecaster):
    forecaster.save(tmp_path / "f.safetensors")
    compiled = Forecaster.load(tmp_path / "f.safetensors", "cpu", compile=True)
    assert traced == [compiled.network]
    Forecaster.load(tmp_path / "f.safetensors", "cpu"), copy.deepcopy(compiled)
    assert len(traced) == 1, "only on CUDA by itself"
    ds = waves()
    # several sizes of batches: traced for the first, and once more for all others
    for count in (3, 2, 4):
        inits = ds.time.values[5 : 5 + count]
        first, second = forecaster(ds, inits, horizon=7), compiled(ds, inits, horizon=7)
        for name in first:
            np.testing.assert_allclose(second[name], first[name], rtol=1e-5)
    with pytest.raises(ValueError, match="compile=1 must be 'auto', True or False"):
        Forecaster.load(tmp_path / "f.safetensors", "cpu", compile=1)


def test_what_auto_compiles(monkeypatch):
    monkeypatch.setattr(tensors, "_compiler_error", lambda device: None)
    choices = [(compile, device) for compile in ("auto", True, False) for device in ("cpu", "cuda", "mps")]
    compiled = [choice for choice in choices if tensors.choose_compile(*choice)]
    assert compiled == [("auto", "cuda"), (True, "cpu"), (True, "cuda"), (True, "mps")]


def test_a_machine_without_compiler_is_named(monkeypatch, tmp_path, forecaster):
    def fail(*_, **__):
        raise RuntimeError("No working C++ compiler found\nand a page of text")

    monkeypatch.setattr(torch, "compile", fail)
    tensors._compiler_error.cache_clear()
    message = r"torch.compile does not work with device='cpu' here \(No working C\+\+ compiler found\). Install a C\+\+"
    with pytest.raises(RuntimeError, match=message + ".*, or set compile=False"):
        run(config=quick(compile=True))
    forecaster.save(tmp_path / "f.safetensors")
    with pytest.raises(RuntimeError, match=message):
        Forecaster.load(tmp_path / "f.safetensors", "cpu", compile=True)
    monkeypatch.setattr(tensors, "_compiler_error", lambda device: "no triton")
    with pytest.warns(UserWarning, match=re.escape("device='cuda' here (no triton). The network runs without")):
        assert tensors.choose_compile("auto", "cuda") is False
    monkeypatch.undo()
    tensors._compiler_error.cache_clear()


# a rank of two, whose batch norms, gradients and rollouts meet those of the other
RANK = """
import sys
sys.path.insert(0, sys.argv[1])
from torch import nn
from factories import quick, run, tiny_model, waves
from simvp_climate.processing import tensors

compile_module, compiled = nn.Module.compile, []
nn.Module.compile = lambda network: (compiled.append(network), compile_module(network, backend="aot_eager"))
tensors._compiler_error = lambda device: None
settings = dict(batch_size=4, learning_rate=1e-2, rollout=2, compile=sys.argv[3] == "compiled")
run(waves(times=17), model=tiny_model(padding="sphere"), config=quick(**settings), directory=sys.argv[2])
assert len(compiled) == settings["compile"]
"""


@pytest.mark.slow
def test_two_processes_with_traced_networks_train_as_others(tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    trained = []
    for name in ("plain", "compiled"):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        arguments = [str(Path(__file__).parents[1]), str(tmp_path / name), name]
        done = subprocess.run(
            [*launch, str(tmp_path / "rank.py"), *arguments],
            capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        trained.append(Forecaster.load(tmp_path / name / "forecaster.safetensors", "cpu"))
    plain, compiled = trained
    assert compiled.provenance["processes"] == 2 and compiled.provenance["config"]["compile"] is True
    assert compiled.provenance["epochs"][0]["loss"] == pytest.approx(plain.provenance["epochs"][0]["loss"], rel=1e-4)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights():
    if (error := tensors._compiler_error("cpu")) is not None:
        pytest.skip(f"torch.compile does not work here: {error}")
    ds, settings = waves(times=13), dict(learning_rate=1e-2, batch_size=4)
    compiled, plain = (
        run(ds, config=quick(**settings, rollout=2, compile=True)),
        run(ds, config=quick(**settings, rollout=2)),
    )
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-3, atol=1e-3, msg=name)
    history = ds.isel(time=slice(0, 2))
    expected, forecast = plain(history), compiled(history)
    for name in expected:
        np.testing.assert_allclose(forecast[name], expected[name], rtol=1e-3)
