"""Training networks of another kind: the contract, what a run records, resume, fine-tuning, and the errors."""

import dataclasses
from importlib.metadata import version

import numpy as np
import pytest
import torch
from factories import TASK, assert_same_weights, quick, run, stop_after, tiny_model, waves, weights
from torch import nn

import simvp_climate as sc
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.training import memory

VALID = waves(times=12, start="2001-03-01")


class Stencil(nn.Module):
    """A convolution over all input states at once, which predicts changes of the shared channels."""

    def __init__(self, shape: sc.NetworkShape, kernel: int = 3):
        super().__init__()
        self.sizes = shape
        inputs = shape.history * (shape.channels + shape.forcings)
        self.conv = nn.Conv2d(inputs, shape.history * shape.output_channels, kernel, padding=kernel // 2)
        self.register_buffer("change_scale_TC", torch.ones(shape.history, shape.shared_channels))

    def forward(self, x, f=None):
        shape, both = self.sizes, x if f is None else torch.cat([x, f], dim=2)
        y = self.conv(both.flatten(1, 2)).unflatten(1, (shape.history, shape.output_channels))
        shared = shape.shared_channels
        changed = x[:, -1:, :shared] + y[:, :, :shared] * self.change_scale_TC[:, :, None, None]
        return torch.cat([changed, y[:, :, shared:]], dim=2)


class ComplexGlobal(nn.Module):
    """Complex weights for every cell, a weight that is a view of five dimensions, and a tensor outside the buffers."""

    def __init__(self, shape: sc.NetworkShape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.channels, *shape.grid, dtype=torch.complex64))
        self.field = nn.Parameter(torch.zeros(1, 1, shape.channels, *shape.grid))
        self.tied, self.one = self.field, torch.ones(1)

    def forward(self, x, f=None):
        return x[:, -1:].expand_as(x) * (self.weight.real + self.weight.imag) * self.one + self.field


def as_simvp(config):
    """Return a function that builds the SimVPv2 of a config."""

    def build(shape):
        sizes = dataclasses.asdict(shape)
        del sizes["grid"]
        return SimVPv2(config, **sizes)

    return build


def test_the_shape_is_that_of_the_task_and_the_grid():
    shapes = []
    task = sc.Task(["z500"], history=3, horizon=2, inputs=["t2m"], forcings=["insolation"])

    def build(shape):
        shapes.append(shape)
        return Stencil(shape)

    forecaster = run(task=task, model=build)
    # insolation at the time of the input state and at that of the output state
    expected = sc.NetworkShape(history=3, channels=2, forcings=2, output_channels=1, shared_channels=1, grid=(8, 16))
    assert set(shapes) == {expected}
    assert forecaster(waves()).z500.sizes["lead_time"] == 2
    network = forecaster.network
    assert (network.history, network.channels, network.forcings) == (3, 2, 2)
    assert (network.output_channels, network.shared_channels) == (1, 1)


def test_it_is_trained_with_the_typical_change_and_forecasts():
    config = quick(epochs=12, learning_rate=1e-2)
    forecaster = run(waves(), valid=VALID, model=Stencil, config=config)
    normalizer = forecaster.normalizer
    expected = (normalizer.change_std / normalizer.std).astype(np.float32)
    np.testing.assert_array_equal(forecaster.network.change_scale_TC, expected)
    losses = forecaster.training_curve["valid_loss"]
    assert losses.iloc[-1] < 0.5 < losses.iloc[0], "1 is the loss of a forecast without change"
    forecast = forecaster(VALID.isel(time=slice(0, 8)), every="6h", horizon=4)
    assert forecast.attrs["system"] == "Stencil" and "references" not in forecast.attrs
    assert "Stencil" in forecaster._repr_html_()
    error = forecast - VALID.sel(time=forecast.valid_time)
    assert float((error.t2m.sel(lead_time="6h") ** 2).mean()) ** 0.5 < 1


@pytest.mark.parametrize("task", [TASK, dataclasses.replace(TASK, forcings=("insolation",))], ids=["plain", "forced"])
def test_simvp_built_by_a_function_gives_the_same_bits_as_its_config(task):
    config = tiny_model(padding="periodic", drop_path=0.3)
    settings = quick(epochs=2, rollout=2)
    arguments = {"task": task, "valid": VALID, "config": settings}
    plain, built = (run(model=model, **arguments) for model in (config, as_simvp(config)))
    assert_same_weights(plain, built)
    assert plain.provenance["epochs"] == built.provenance["epochs"]
    assert plain(waves(), horizon=4).equals(built(waves(), horizon=4))


def test_provenance_names_class_and_size():
    provenance = run(model=Stencil).provenance
    name, count = f"{Stencil.__module__}.Stencil", (2 * 2 * 9 + 1) * 4
    assert provenance["model"] == {"network": name, "parameters": count}


def test_a_stopped_run_resumes_exactly_and_refuses_another_network(tmp_path, monkeypatch):
    arguments = {"config": quick(epochs=2, save_minutes=0), "valid": VALID}
    whole = run(model=Stencil, directory=tmp_path / "whole", **arguments)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 2)
        run(model=Stencil, directory=tmp_path / "run", **arguments)
    with pytest.raises(ValueError, match=r"model\.parameters is 404, was 148"):
        run(model=lambda shape: Stencil(shape, kernel=5), directory=tmp_path / "run", **arguments)
    with pytest.raises(ValueError, match=r"model\.network is '.*ComplexGlobal', was '.*Stencil'"):
        run(model=ComplexGlobal, directory=tmp_path / "run", **arguments)
    with pytest.raises(ValueError, match=r"model\.hidden_space is new"):
        run(directory=tmp_path / "run", **arguments)
    resumed = run(model=Stencil, directory=tmp_path / "run", **arguments)
    assert_same_weights(whole, resumed)
    assert whole.provenance["epochs"] == resumed.provenance["epochs"]


@pytest.mark.skipif(version("safetensors") < "0.7", reason="older safetensors have no complex numbers")
def test_complex_and_shared_weights_are_trained_averaged_and_saved(tmp_path):
    forecaster = run(model=ComplexGlobal, config=quick(epochs=2, learning_rate=1e-2))
    assert (weights(forecaster)["weight"].imag != 0).any()
    forecaster.save(tmp_path / "f")
    loaded = sc.Forecaster.load(tmp_path / "f", "cpu", network=ComplexGlobal)
    assert_same_weights(forecaster, loaded)


def test_without_an_estimate_of_its_memory_it_is_trained():
    class HostOnly(Stencil):
        def forward(self, x, f=None):
            assert x.device.type != "meta", "this code needs values"
            return super().forward(x, f)

    run(model=HostOnly)


def test_memory_is_estimated_where_the_network_allows_it(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda fabric: 10_000)
    with pytest.raises(MemoryError, match="keeps at least"):
        run(model=Stencil)
    monkeypatch.setattr(memory, "free_bytes", lambda fabric: 100)
    with pytest.raises(MemoryError, match="148 weights.* take a smaller network"):
        run(model=Stencil)


def test_the_random_numbers_of_the_caller_stay(tmp_path):
    before = torch.get_rng_state()
    forecaster = run(model=Stencil)
    forecaster.save(tmp_path / "f")
    sc.Forecaster.load(tmp_path / "f", "cpu", network=Stencil)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model", [None, Stencil], ids=["none", "same"])
def test_fine_tuning_starts_with_all_weights(model):
    start = run(model=Stencil)
    tuned = run(start_from=start, model=model, config=quick(learning_rate=1e-12))
    for name, value in weights(start).items():
        torch.testing.assert_close(weights(tuned)[name], value, rtol=0, atol=1e-9, msg=name)
    assert tuned.provenance["start_from"]["taken"] == ["z500", "t2m"]
    assert tuned.network is not start.network


def test_fine_tuning_of_another_network_or_channels_is_an_error():
    start, simvp = run(model=Stencil), run()
    for model, message in (
        (tiny_model(), "model must be a function that builds it, as start_from has a Stencil"),
        (lambda shape: Stencil(shape, kernel=5), r"the weight 'conv.weight' has another shape .*5, 5.*was .*3, 3"),
        (ComplexGlobal, "the weight 'change_scale_TC' has another shape .*no such weight, was"),
    ):
        with pytest.raises(ValueError, match=message):
            run(start_from=start, model=model)
    with pytest.raises(ValueError, match="model must be a SimVPv2Config, as start_from has a SimVPv2"):
        run(start_from=simvp, model=Stencil)
    task, config = sc.Task(["t2m", "z500"], history=2, horizon=2), quick(statistics="compute")
    with pytest.raises(ValueError, match=r"the input channels \['t2m', 'z500'\] must be those of start_from"):
        run(start_from=start, model=Stencil, task=task, config=config)
    task = dataclasses.replace(TASK, forcings=("insolation",))
    with pytest.raises(ValueError, match=r"the attribute 'forcings' of Stencil is 0, but is reserved for the size 2"):
        run(start_from=start, task=task, config=config)


class Lists(nn.Linear):
    def __init__(self, shape):
        super().__init__(1, 1)

    def forward(self, x):
        return [x]


class OneState(Lists):
    def forward(self, x):
        return x[:, -1]


class ForcingLayer(Stencil):
    def __init__(self, shape):
        super().__init__(shape)
        self.forcings = nn.Linear(1, 1)


class FewScales(Stencil):
    def __init__(self, shape):
        super().__init__(shape)
        self.change_scale_TC = torch.ones(1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "model is a int: give a SimVPSphereConfig.*or a function that builds a network"),
        (nn.Linear(1, 1), "the network is a Linear, but must be a function that builds it"),
        (lambda shape: "ResNet", "returned a str, but must return a torch.nn.Module"),
        (lambda shape: nn.Identity(), "Identity has no parameters to train"),
        (Lists, r"Lists must return states of the shape \(2, 2, 2, 8, 16\).*and returned a list"),
        (OneState, r"shape \(2, 2, 2, 8, 16\).*returned \(2, 2, 8, 16\) for an input of the shape \(2, 2, 2, 8, 16\)"),
        (ForcingLayer, "the attribute 'forcings' of ForcingLayer is a Linear, but is reserved for the size 0: rename"),
        (FewScales, r"change_scale_TC has the shape \(1,\) and must have \(2, 2\)"),
    ],
)
def test_a_network_that_breaks_the_contract_is_an_error_before_data_are_read(monkeypatch, model, message):
    monkeypatch.setattr("simvp_climate.training.datasets.read_splits", None)
    with pytest.raises(ValueError, match=message):
        run(model=model)


def test_settings_without_effect_on_it_are_errors():
    with pytest.raises(ValueError, match="strategy='fsdp' divides only networks of this package"):
        run(model=Stencil, config=quick(strategy="fsdp"))
    with pytest.raises(ValueError, match="activation_checkpointing=True would be ignored by Stencil"):
        run(model=Stencil, config=quick(activation_checkpointing=True))
    run(model=as_simvp(tiny_model(padding="zeros")), config=quick(activation_checkpointing=True))
