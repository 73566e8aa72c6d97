import pytest
import torch

from simvp_climate.networks.rollout import rollout
from simvp_climate.networks.simvp_v1 import SimVPv1, SimVPv1Config

# test_openstl.py compares the numbers with those of OpenSTL


def small(forcings=0, **changes):
    torch.manual_seed(0)
    config = SimVPv1Config(**{**dict(hidden_space=4, hidden_time=12, blocks=3), **changes})
    return SimVPv1(config, history=3, channels=2, forcings=forcings).eval()


@pytest.mark.parametrize("size", [(25, 53), (7, 5), (1, 1), (8, 6)])
def test_any_grid_size(size):
    network = small(spatial_layers=4)
    x = torch.randn(1, 3, 2, *size)
    assert network(x).shape == x.shape
    assert network(x).isfinite().all()


@pytest.mark.parametrize("size", [(6, 7), (1, 1), (5, 12)])
def test_every_cell_of_the_input_matters_on_any_grid_size(size):
    network = small(spatial_layers=4)
    x = torch.randn(1, 3, 2, *size)
    with torch.no_grad():
        y = network(x)
    assert y.shape == x.shape and y.isfinite().all()
    # strides round up, so that the last row and column enter
    x.requires_grad_()
    network(x).square().sum().backward()
    assert (x.grad != 0).all()


def test_forecasts_depend_on_every_state_of_their_own_sample_only():
    network = small()
    x = torch.randn(2, 3, 2, 8, 8)
    with torch.no_grad():
        output = network(x)
        for time in range(3):
            for channel in range(2):
                other = x.clone()
                other[0, time, channel] += 1
                changed = (network(other) - output).abs().amax((2, 3, 4))
                assert (changed[0] > 1e-4).all() and (changed[1] < 1e-5).all()


@pytest.mark.parametrize(("hidden_time", "groups"), [(16, 8), (12, 1), (31, 1), (2, 1), (256, 8)])
def test_groups_depend_on_half_the_hidden_channels(hidden_time, groups):
    config = SimVPv1Config(hidden_space=8, hidden_time=hidden_time, blocks=2)
    assert config.groups == groups
    network = SimVPv1(config, history=3, channels=1)
    convolution = network.translator.up[1].branches[2].conv
    # 24 output channels, each from one group of half the hidden channels
    assert convolution.weight.shape == (24, hidden_time // 2 // groups, 7, 7)


def test_training_reduces_the_loss():
    network = small().train()
    x = torch.randn(4, 3, 2, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x) - x.flip(1)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(value.grad.isfinite().all() and value.grad.abs().max() > 0 for value in network.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_rollout_gives_every_call_its_forcings():
    network = small(forcings=1)
    x, f = torch.randn(1, 3, 2, 8, 8), torch.randn(1, 6, 1, 8, 8)
    with torch.no_grad():
        states = rollout(network, x, 5, f)
        first = network(x, f[:, :3])
        torch.testing.assert_close(states, torch.cat([first, network(first, f[:, 3:])], dim=1)[:, :5])
        other = f.clone()
        other[:, 1] += 1
        assert (rollout(network, x, 5, other) - states).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("forcings", "shape"),
    [(4, None), (0, (1, 3, 4, 8, 8)), (4, (1, 3, 2, 8, 8)), (4, (1, 2, 4, 8, 8)), (4, (1, 3, 4, 8, 9))],
)
def test_forcings_of_a_wrong_shape_raise(forcings, shape):
    with pytest.raises(ValueError, match=rf"[Ff]orcings of shape .* must .*forcings={forcings}"):
        small(forcings=forcings)(torch.zeros(1, 3, 2, 8, 8), None if shape is None else torch.zeros(shape))


def test_a_wrong_input_shape_raises():
    with pytest.raises(ValueError, match="history=3 and channels=2"):
        small()(torch.zeros(1, 4, 2, 8, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_space": 5}, "hidden_space=5 must be an even integer"),
        ({"hidden_time": 1}, "hidden_time=1 must be an integer of at least 2"),
        ({"hidden_time": 8.0}, "hidden_time=8.0"),
        ({"hidden_time": 17}, "hidden_time=17 must be a multiple of its 8 groups"),
        ({"spatial_layers": 3}, "spatial_layers=3 must be an even integer"),
        ({"blocks": 1}, "blocks=1"),
    ],
)
def test_bad_settings_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        SimVPv1Config(**changes)


def test_groups_that_do_not_divide_the_stacked_states_raise():
    with pytest.raises(ValueError, match="history=3 times hidden_space=4 must be a multiple of the 8 groups"):
        small(hidden_time=16)
