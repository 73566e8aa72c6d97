"""How much memory a training step takes, without taking it.

Shape suffixes: B batch, T time, C channel, F forcing, H latitude, W longitude.
"""

import copy

import torch
from torch import Tensor, nn

from simvp_climate.networks.simvp_v2 import rollout


def activation_bytes(network: nn.Module, leads: int, grid: tuple[int, int]) -> int:
    """Return the bytes per window that a step in float32 keeps for the way back, through a rollout to `leads`.

    They are counted on tensors without values. What comes and goes on the way (copies with wider edges, gradients)
    comes on top: a fifth, measured on CPU, see docs/speed.md. Of activations that are recomputed nothing is known here.

    Parameters
    ----------
    network
        A SimVPv2 on any device; it is left as it is.
    leads
        Number of states forecast.
    grid
        Rows and columns.
    """
    batch = 2  # of one window on one cell batch norm makes no mean
    calls = -(-leads // network.history)
    empty = copy.deepcopy(network).to("meta").train()
    empty.activation_checkpointing = False
    weights = {value.untyped_storage()._cdata for value in (*empty.parameters(), *empty.buffers())}
    kept = {}

    def count(saved: Tensor) -> None:
        storage = saved.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other one takes its place

    x_BTCHW = torch.zeros(batch, network.history, network.channels, *grid, device="meta")
    f_BTFHW = None
    if network.forcings:
        f_BTFHW = torch.zeros(batch, calls * network.history, network.forcings, *grid, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        rollout(empty, x_BTCHW, leads, f_BTFHW).square().mean()
    return sum(storage.nbytes() for storage in kept.values()) // batch
