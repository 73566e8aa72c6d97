"""The bias of a long rollout over the validation period, by which `TrainConfig(select="rollout")` chooses the weights.

Shape suffixes: B window, T state, C channel, H latitude, W longitude.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from simvp_climate.data import reader
from simvp_climate.data.windows import later_positions, shift, to_iso
from simvp_climate.networks.rollout import rollout
from simvp_climate.processing.tensors import add_prescribed
from simvp_climate.training.datasets import Split
from simvp_climate.training.loss import Loss

_BLOCK_CALLS = 32  # of the network, whose states are in memory at once


@torch.no_grad()
def rollout_bias(network: nn.Module, split: Split, loss: Loss, seed: int) -> float:
    """Return the root mean square of the bias of a rollout, over cells and channels, in standard deviations.

    The rollout goes from the first window of the period to its end; of several series or members, of the first. Its
    mean over time is compared with that of the states that validation windows use. Infinite if the rollout leaves the
    range of numbers. ValueError if a prescribed variable lacks a time.
    """
    series, positions, step = split.series[0], split.windows[0][0], loss.step
    history, device, inputs = loss.history, loss.device, len(loss.roles.input_channels)
    x_BTCHW = _read(split, positions[:history], loss)[:, :, :inputs]
    # the data may have shorter steps than the task
    steps = range(1, len(series.times) - int(positions[history - 1]))
    later = later_positions(series.times, step, positions[[history - 1]], steps)[0]
    calls = (int(np.flatnonzero(later >= 0).max(initial=-1)) + 1) // history
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(loss.area_CHW.shape, dtype=torch.float64, device=device)
    count = 0
    for call in range(0, calls, _BLOCK_CALLS):
        block = min(_BLOCK_CALLS, calls - call)
        init = shift(series.times[[positions[history - 1]]], step, call * history)
        f_BTFHW = loss.forcings(init, block * history)
        if loss.roles.prescribed_channels:
            steps = range((call - 1) * history + 1, (call + block) * history + 1)
            later = later_positions(series.times, step, positions[[history - 1]], steps)[0]
            if (later < 0).any():
                missing = to_iso(shift(init, step, int(np.argmax(later < 0)) - history + 1)[0])
                rule = f"select='rollout' reads the prescribed variables at all times of valid, which lacks {missing}"
                raise ValueError(f"{rule}: pass a period without gaps, or select='loss'")
            p_BTCHW = _read(split, later, loss)[:, :, loss.roles.prescribed_channels]
            f_BTFHW = add_prescribed(f_BTFHW, p_BTCHW, history, block * history)
        noise = _draw_noise(network, block, generator, device)
        y_BTCHW = rollout(network, x_BTCHW, block * history, f_BTFHW, loss.input_scale.constrain, noise).float()
        if not bool(y_BTCHW.isfinite().all()):
            return math.inf
        total += y_BTCHW[0].double().sum(dim=0)
        count += block * history
        x_BTCHW = loss.input_scale.constrain(y_BTCHW[:, -history:, :inputs])
    # statistics are of the logarithm where the network learns it, as the states here
    truth = loss.mean_field(split.statistics.mean_field)
    bias_CHW = loss.blank_masked(total.float() / max(count, 1) - truth)
    return float((bias_CHW**2 * loss.area_CHW).mean().sqrt())


def _read(split: Split, positions: np.ndarray, loss: Loss) -> Tensor:
    """Return normalized states of the first series, (1, T, C, H, W)."""
    used, inverse = np.unique(positions, return_inverse=True)
    states = reader.read(split.sources[0], used)[inverse]
    return loss.scale.normalize(torch.from_numpy(states).to(loss.device))[None]


def _draw_noise(
    network: nn.Module, calls: int, generator: torch.Generator, device: torch.device
) -> list[Tensor] | None:  # fmt: skip
    if (grid := getattr(network, "noise_grid", None)) is None:
        return None
    return [torch.randn(1, *grid, generator=generator).to(device) for _ in range(calls)]
