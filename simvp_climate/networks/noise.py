"""Noise as an input of a network, for ensembles trained on the CRPS.

Shape suffixes: B batch, N random number, D hidden channel, h and w the cells that have random numbers of their own.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def is_of_noise(name: str) -> bool:
    """Return whether this weight belongs to the noise layers."""
    return "noise_field" in name or "scale_and_shift" in name


def layer_without_effect(layer: Callable[..., nn.Module], *sizes: int) -> nn.Module:
    """Return a layer of weights that are zero, and leave the random state alone.

    So a network starts as the deterministic one, also from nothing with the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        module = layer(*sizes)
    for weight in module.parameters():
        nn.init.zeros_(weight)
    return module


def take_noise(
    grid: tuple[int, int, int], noise_BNhw: Tensor | None, windows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the noise of every cell, (B, N, h, w), and that of whole windows, (B, N), both standard normal.

    Without `noise_BNhw`, it is drawn. ValueError if it has not the sizes `grid`, (N, h, w).
    """
    if noise_BNhw is None:
        noise_BNhw = torch.randn(windows, *grid, device=device)
    if noise_BNhw.shape[1:] != grid:
        raise ValueError(
            f"Noise of shape {tuple(noise_BNhw.shape)}: it must be (windows, {', '.join(map(str, grid))})."
        )
    # the scaled mean over all cells is standard normal, too
    return noise_BNhw, noise_BNhw.mean((2, 3)) * math.sqrt(noise_BNhw[0, 0].numel())


def modulate(scale_and_shift: nn.Module, x_BDhw: Tensor, noise_BN: Tensor) -> Tensor:
    """Return the fields scaled and shifted by the noise, for all cells alike."""
    scale_BD11, shift_BD11 = scale_and_shift(noise_BN)[:, :, None, None].chunk(2, dim=1)
    return x_BDhw * (1 + scale_BD11) + shift_BD11
