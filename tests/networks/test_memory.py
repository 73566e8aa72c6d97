import pytest
import torch
from factories import tiny_model

from simvp_climate.networks.memory import activation_bytes
from simvp_climate.networks.simvp_v2 import SimVPv2


def test_activation_bytes_grow_with_cells_and_calls():
    network = SimVPv2(tiny_model(padding="sphere"), history=2, channels=2, forcings=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    small = activation_bytes(network, 2, (8, 16))
    # a constant remains, from reordered weights: compare differences between grids
    extra = activation_bytes(network, 2, (16, 32)) - small
    # 15 instead of 3 times the small grid more; padded edges weigh less on a larger grid
    assert activation_bytes(network, 2, (32, 64)) - small == pytest.approx(5 * extra, rel=0.05)
    extra_of_two_calls = activation_bytes(network, 4, (16, 32)) - activation_bytes(network, 4, (8, 16))
    assert extra_of_two_calls == pytest.approx(2 * extra, rel=0.1)
    # the first layer alone keeps the inputs of its norm and SiLU: 4 channels, 2 states, 8 x 16 cells, 4 bytes
    assert small > 2 * 4 * 2 * 8 * 16 * 4
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) and value.device.type == "cpu"
