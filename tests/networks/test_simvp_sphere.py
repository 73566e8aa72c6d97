import dataclasses

import numpy as np
import pytest
import torch

from simvp_climate.networks.shape import NetworkShape
from simvp_climate.networks.simvp_sphere import SimVPSphere, SimVPSphereConfig

SHAPE = NetworkShape(history=3, channels=2, forcings=0, output_channels=2, shared_channels=2, grid=(6, 12))


def build(padding="periodic", seed=0, **changes):
    """Return a network of SHAPE with random weights, those that start at zero included."""
    torch.manual_seed(seed)
    config = SimVPSphereConfig(hidden_space=3, hidden_time=8, blocks=2, padding=padding)
    network = SimVPSphere(config, dataclasses.replace(SHAPE, **changes))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


def test_parameter_count_is_that_of_its_convolutions():
    network = SimVPSphere(SimVPSphereConfig(padding="periodic"), NetworkShape(4, 5, 0, 5, 5, (32, 64)))
    encoder, skip = 64 * (9 * 20 + 1), 32 * (9 * 20 + 1)
    block = 128 * (9 * 64 + 1) + 64 * 65 + 64
    decoder, readout = 128 * 65, 20 * (9 * 32 + 1)
    spectral = 16 * 2 * 64**2 + 64  # a complex matrix for each total wavenumber that the halved grid resolves
    expected = encoder + skip + 6 * block + spectral + decoder + readout + 64 * 16 * 32
    assert sum(weight.numel() for weight in network.parameters()) == expected


def test_spectral_blocks_are_spread_evenly_and_are_for_the_globe():
    shape = NetworkShape(4, 5, 0, 5, 5, (8, 16))
    for count, positions in ((0, []), (1, [3]), (2, [2, 4]), (3, [2, 3, 4])):
        translator = SimVPSphere(SimVPSphereConfig(padding="periodic", spectral_blocks=count), shape).translator
        assert translator.positions == positions
    order = [type(block).__name__ for block in translator._in_order()]
    assert order == ["GatedBlock"] * 2 + ["SpectralBlock", "GatedBlock"] * 2 + ["SpectralBlock"] + ["GatedBlock"] * 2
    assert SimVPSphereConfig().spectral_blocks is None
    assert SimVPSphereConfig(padding="sphere").spectral_blocks == 1
    assert SimVPSphereConfig(padding="zeros").spectral_blocks == 0
    with pytest.raises(ValueError, match="spectral_blocks=1 needs a grid around the globe, .*: set spectral_blocks=0"):
        SimVPSphereConfig(padding="zeros", spectral_blocks=1)


@pytest.mark.parametrize(("name", "millions"), [("small", 0.664), ("medium", 3.10), ("large", 14.8)])
def test_presets_have_the_stated_sizes(name, millions):
    config = dataclasses.replace(getattr(SimVPSphereConfig, name)(), padding="periodic")
    with torch.device("meta"):
        network = SimVPSphere(config, NetworkShape(4, 5, 0, 5, 5, (32, 64)))
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_a_fresh_network_predicts_a_small_change():
    torch.manual_seed(0)
    network = SimVPSphere(SimVPSphereConfig(padding="periodic"), NetworkShape(4, 5, 0, 5, 5, (8, 16)))
    network.change_scale_TC.fill_(0.1)
    x_BTCHW = torch.randn(2, 4, 5, 8, 16)
    change = network(x_BTCHW) - x_BTCHW[:, -1:]
    assert 0 < change.std() < 0.3


@pytest.mark.parametrize("grid", [(6, 12), (5, 9), (1, 2), (7, 12)])
def test_output_has_the_grid_of_the_input(grid):
    network = build(grid=grid)
    assert network(torch.randn(2, 3, 2, *grid)).shape == (2, 3, 2, *grid)


def test_only_the_position_field_and_the_mean_field_know_the_longitude():
    network = build()
    x_BTCHW = torch.randn(1, 3, 2, 6, 12)
    for field in (network.position_Dhw.data, network.mean_field_CHW):
        torch.nn.init.normal_(field)
        assert not torch.allclose(network(x_BTCHW.roll(4, -1)).roll(-4, -1), network(x_BTCHW), atol=1e-3)
        torch.nn.init.zeros_(network.position_Dhw)
        torch.nn.init.zeros_(network.mean_field_CHW)
        torch.testing.assert_close(network(x_BTCHW.roll(4, -1)).roll(-4, -1), network(x_BTCHW))


def test_the_change_is_scaled_and_added_to_the_last_state():
    network = build()
    x_BTCHW = torch.randn(1, 3, 2, 6, 12)
    # an output that does not depend on the input: the same for every lead of a channel
    torch.nn.init.zeros_(network.readout.weight)
    with torch.no_grad():
        network.readout.bias.copy_(torch.tensor([1.0, 1, 1, 2, 2, 2]))
        network.change_scale_TC.copy_(torch.tensor([[1.0, 10], [2, 20], [3, 30]]))
    expected = x_BTCHW[:, -1:] + torch.tensor([[1.0, 20], [2, 40], [3, 60]])[:, :, None, None]
    torch.testing.assert_close(network(x_BTCHW), expected)


def test_the_mean_field_is_subtracted_from_the_input_but_not_from_the_last_state():
    network = build()
    x_BTCHW, field_CHW = torch.randn(1, 3, 2, 6, 12), torch.randn(2, 6, 12)
    change = network(x_BTCHW) - x_BTCHW[:, -1:]
    network.mean_field_CHW.copy_(field_CHW)
    shifted = x_BTCHW + field_CHW
    torch.testing.assert_close(network(shifted) - shifted[:, -1:], change, rtol=1e-4, atol=1e-4)


def test_forcings_of_every_state_matter():
    network = build(forcings=1)
    x_BTCHW, f_BTFHW = torch.randn(1, 3, 2, 6, 12), torch.randn(1, 3, 1, 6, 12)
    before = network(x_BTCHW, f_BTFHW)
    for time in range(3):
        changed = f_BTFHW.clone()
        changed[:, time] += 1
        assert not torch.allclose(network(x_BTCHW, changed), before, atol=1e-3)


def test_channels_that_are_not_shared_are_predicted_as_states():
    network = build(channels=3, output_channels=2, shared_channels=1)
    x_BTCHW = torch.randn(1, 3, 3, 6, 12)
    torch.nn.init.zeros_(network.readout.weight)
    torch.nn.init.zeros_(network.readout.bias)
    y_BTCHW = network(x_BTCHW)
    torch.testing.assert_close(y_BTCHW[:, :, 0], x_BTCHW[:, -1:, 0].expand(1, 3, 6, 12))
    assert (y_BTCHW[:, :, 1] == 0).all()


def test_forecasts_of_a_sample_do_not_depend_on_its_batch():
    network = build().train()
    x_BTCHW = torch.randn(3, 3, 2, 6, 12)
    torch.testing.assert_close(network(x_BTCHW)[:1], network(x_BTCHW[:1]))


def test_activation_checkpointing_gives_the_same_gradients():
    network = build().train()
    x_BTCHW, gradients = torch.randn(2, 3, 2, 6, 12), []
    for network.activation_checkpointing in (False, True):
        network.zero_grad()
        network(x_BTCHW).square().mean().backward()
        gradients.append([weight.grad.clone() for weight in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_without_a_position_field_it_has_no_such_weight():
    network = SimVPSphere(SimVPSphereConfig(position_field=False, padding="zeros"), SHAPE)
    assert not [name for name in network.state_dict() if "position" in name]
    assert network(torch.randn(1, 3, 2, 6, 12)).isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [{"hidden_time": 0}, {"blocks": 0}, {"position_field": 2}, {"hidden_space": 2.5}, {"spectral_blocks": -1}],
)
def test_bad_settings_raise(changes):
    (name, value), *_ = changes.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        SimVPSphereConfig(**changes)


def test_numpy_integers_become_plain_ones():
    assert type(SimVPSphereConfig(blocks=np.int64(3)).blocks) is int


def test_auto_padding_and_other_grids_raise():
    with pytest.raises(ValueError, match="padding='auto'"):
        SimVPSphere(SimVPSphereConfig(), SHAPE)
    with pytest.raises(ValueError, match="6, 12"):
        build()(torch.randn(1, 3, 2, 8, 12))
