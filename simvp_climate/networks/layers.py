"""Layers and checks that the networks share.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, S hidden channel, H latitude, W
longitude; h and w are H and W after downsampling; N stands for B * T, E for 4 * S.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from simvp_climate.networks.padding import PADDING_MODES, pad

MAX_CHANNELS = 2**20  # also the largest number of layers; no product of such sizes overflows


def check_integer(name: str, value: object, minimum: int, multiple: int = 1) -> int:
    """Return a setting as a plain integer, after checking that it is in range and a multiple of `multiple`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum or value % multiple:
        even = "even " if multiple == 2 else ""
        raise ValueError(f"{name}={value!r} must be an {even}integer of at least {minimum}.")
    if value > MAX_CHANNELS:
        raise ValueError(f"{name}={value!r} must be at most {MAX_CHANNELS}.")
    return int(value)


def check_padding(padding: object) -> None:
    """Raise ValueError if a setting is no padding mode and not "auto", which training resolves."""
    if not isinstance(padding, str) or padding not in ("auto", *PADDING_MODES):
        raise ValueError(f"padding={padding!r} must be 'auto' or one of {PADDING_MODES}.")


def check_inputs(network: nn.Module, x_BTCHW: Tensor, f_BTFHW: Tensor | None) -> None:
    """Raise ValueError if states or forcings do not have the shapes that a network was built for."""
    B, T, C, H, W = x_BTCHW.shape
    if (network.history, network.channels) != (T, C):
        expected = f"history={network.history} and channels={network.channels}"
        raise ValueError(f"Input of shape {tuple(x_BTCHW.shape)}: dimensions 1 and 2 must be {expected}.")
    shape = None if f_BTFHW is None else tuple(f_BTFHW.shape)
    if shape != (expected := (B, T, network.forcings, H, W) if network.forcings else None):
        rule = f"have the shape {tuple(expected)}" if expected else "be left out"
        raise ValueError(f"Forcings of shape {shape} must {rule}: the network has forcings={network.forcings}.")


def run_module(module: Callable[..., Tensor], checkpointing: bool, *arguments: Any) -> Tensor:
    """Call a module, with activation checkpointing if requested."""
    return checkpoint(module, *arguments, use_reentrant=False) if checkpointing else module(*arguments)


class PaddedConv(nn.Conv2d):
    """A convolution of padded fields; without a stride it keeps the size of the grid."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, padding: str, *, stride: int = 1):
        super().__init__(inputs, outputs, kernel_size, stride=stride)
        # not the attributes padding and padding_mode: nn.Conv2d uses them for its own padding
        self.edge_padding, self.pad_width = padding, (kernel_size - 1) // 2

    def forward(self, x_NSHW: Tensor) -> Tensor:
        return super().forward(self.pad(x_NSHW))

    def pad(self, x_NSHW: Tensor) -> Tensor:
        return pad(x_NSHW, self.edge_padding, (self.pad_width,) * 2, (self.pad_width,) * 2)


class PixelShuffleConv(PaddedConv):
    """`nn.Conv2d` of padded fields and `nn.PixelShuffle(2)`, which doubles the grid, faster in channels-last memory."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, padding: str):
        super().__init__(inputs, outputs * 4, kernel_size, padding)

    def forward(self, x_NShw: Tensor) -> Tensor:
        # In the weights, the four cells of a channel are adjacent. Reorder them so that all channels of a cell are
        # adjacent, as in memory after the shuffle, which then moves whole rows of channels.
        weight = self.weight.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)
        bias = self.bias.unflatten(0, (-1, 4)).t().flatten()
        y_NEhw = F.conv2d(self.pad(x_NShw), weight, bias)
        N, E, h, w = y_NEhw.shape
        cells_Nh2w2S = y_NEhw.permute(0, 2, 3, 1).reshape(N, h, w, 2, 2, E // 4).transpose(2, 3)
        return cells_Nh2w2S.reshape(N, 2 * h, 2 * w, E // 4).permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group norm with a float32 gradient for bfloat16 on CPU, which takes half the time in channels-last memory."""

    def forward(self, x_NSHW: Tensor) -> Tensor:
        if x_NSHW.device.type != "cpu" or x_NSHW.dtype != torch.bfloat16 or torch.compiler.is_compiling():
            return super().forward(x_NSHW)
        return _GroupNorm.apply(x_NSHW, self.weight, self.bias, self.num_groups, self.eps)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NSHW: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        N, S, H, W = x_NSHW.shape
        # below 1024 cells PyTorch takes a kernel that is slow in channels-last memory
        contiguous_NSHW = x_NSHW.contiguous() if H * W < 1024 else x_NSHW
        y_NSHW, mean, rstd = torch.native_group_norm(contiguous_NSHW, weight, bias, N, S, H * W, groups, eps)
        ctx.save_for_backward(x_NSHW, mean, rstd, weight)
        ctx.groups = groups
        return y_NSHW.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, grad_NSHW: Tensor) -> tuple[Tensor | None, ...]:
        x_NSHW, mean, rstd, weight = ctx.saved_tensors
        N, S, H, W = x_NSHW.shape
        x_NSHW, mean, rstd, weight = x_NSHW.float(), mean.float(), rstd.float(), weight.float()
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
            grad_NSHW.float(), x_NSHW, mean, rstd, weight, N, S, H * W, ctx.groups, [True, True, True]
        )
        return grad_x.to(grad_NSHW.dtype), grad_weight, grad_bias, None, None
