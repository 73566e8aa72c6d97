"""The benchmark that changes one part of the default network at a time: every network of its list."""

from pathlib import Path

import pytest
import torch

import simvp_climate as sc
from simvp_climate.processing import tensors

ROOT = Path(__file__).parents[1]
SHAPE = sc.NetworkShape(4, 5, 0, 5, 5, (8, 16))


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ablation

    return ablation


def build(ablation, name):
    torch.manual_seed(0)
    return tensors.build_network(ablation.NETWORK_PARTS[name].model, SHAPE).eval()


def networks_of(ablation):
    """Return the setups that have a network of their own."""
    return [name for name, setup in ablation.NETWORK_PARTS.items() if callable(setup.model)]


def test_every_changed_network_predicts_finite_changes_of_its_own(ablation):
    x = torch.randn(2, 4, 5, *SHAPE.grid)
    outputs = {name: build(ablation, name)(x) for name in ["default", *networks_of(ablation)]}
    assert len(outputs) >= 9
    mean_field = torch.randn(5, *SHAPE.grid)
    for name, output in outputs.items():
        assert output.shape == x.shape and output.isfinite().all()
        network = build(ablation, name)
        network.mean_field_CHW.copy_(mean_field)
        assert torch.equal(network(x), output) == (name == "no mean field")


def test_winds_change_their_sign_beyond_the_poles(ablation):
    conv = build(ablation, "sphere padding with the sign of winds").skip
    x = torch.randn(1, 20, *SHAPE.grid)
    padded = conv.pad(x)
    assert torch.equal(padded[:, :12, 0, 1:-1], x[:, :12, 0].roll(8, -1))
    assert torch.equal(padded[:, 12:, 0, 1:-1], -x[:, 12:, 0].roll(8, -1))
    assert torch.equal(padded[:, 12:, -1, 1:-1], -x[:, 12:, -1].roll(8, -1))
    assert torch.equal(padded[:, :, 1:-1, 1:-1], x)
