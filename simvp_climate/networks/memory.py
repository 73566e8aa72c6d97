"""Estimate the memory of a training step without running it.

Shape suffixes: B batch, T time, C channel, F forcing, H latitude, W longitude.
"""

import copy
import math

import torch
from torch import Tensor, nn

from simvp_climate.networks.simvp_v2 import rollout


def activation_bytes(network: nn.Module, leads: int, grid: tuple[int, int]) -> int:
    """Return the bytes per window that a float32 training step keeps for the backward pass of a rollout.

    `leads` is the number of forecast states, `grid` the numbers of latitudes and longitudes. The meta device computes
    shapes without values. Temporary memory (padded copies, gradients) adds about a quarter, measured on CPU, see
    docs/speed.md. Activation checkpointing is not taken into account.
    """
    batch = 2  # batch norm in training needs more than one value per channel, even on a grid of one cell
    calls = math.ceil(leads / network.history)
    meta_network = copy.deepcopy(network).to("meta").train()
    meta_network.activation_checkpointing = False
    weights = {value.untyped_storage()._cdata for value in (*meta_network.parameters(), *meta_network.buffers())}
    storages = {}

    def record(saved: Tensor) -> None:
        storage = saved.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage  # keep it alive, so that no other storage gets the same address

    x_BTCHW = torch.zeros(batch, network.history, network.channels, *grid, device="meta")
    f_BTFHW = None
    if network.forcings:
        f_BTFHW = torch.zeros(batch, calls * network.history, network.forcings, *grid, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(record, lambda unused: unused):
        rollout(meta_network, x_BTCHW, leads, f_BTFHW).square().mean()
    return sum(storage.nbytes() for storage in storages.values()) // batch
