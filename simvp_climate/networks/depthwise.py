"""Depth-wise convolutions over fields that go on beyond their edges, fast on CPU in both directions.

oneDNN, which PyTorch uses on CPU, has fast kernels for the forward pass of any depth-wise convolution, but for the
gradient of the weights only where the kernel is 3 x 3 and not dilated, and for the gradient of the input only where
it is not dilated: elsewhere it takes 10 to 100 times as long. Here both gradients are put together from what is fast.
On other devices PyTorch's own gradients are used.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simvp_climate.networks.padding import pad, pad_backward, pad_forward


def depthwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, padding_mode: str) -> Tensor:
    """Return the "same" convolution of each channel with its own kernel.

    Parameters
    ----------
    x_BCHW
        The fields.
    weight, bias
        (C, 1, K, K) with K odd, and (C,).
    dilation
        Distance between the taps of the kernel.
    padding_mode
        What lies beyond the edges, see `pad`.

    Returns
    -------
    torch.Tensor
        Shape as `x_BCHW`; under autocast in its precision.
    """
    device = x_BCHW.device.type
    if device != "meta" and torch.is_autocast_enabled(device):  # of tensors without values there is none
        lower = torch.get_autocast_dtype(device)
        x_BCHW, weight, bias = x_BCHW.to(lower), weight.to(lower), bias.to(lower)
    if device in ("cpu", "meta") and not torch.compiler.is_compiling():
        return _Depthwise.apply(x_BCHW, weight, bias, dilation, padding_mode)
    pad_width = dilation * (weight.shape[-1] - 1) // 2
    x_BCpp = pad(x_BCHW, padding_mode, (pad_width,) * 2, (pad_width,) * 2)
    return F.conv2d(x_BCpp, weight, bias, dilation=dilation, groups=len(weight))


class _Depthwise(torch.autograd.Function):
    """A depth-wise convolution on CPU whose gradients are made of what oneDNN is fast at."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, padding_mode: str) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight)
        ctx.dilation, ctx.padding_mode = dilation, padding_mode
        return _convolve(x_BCHW, weight, bias, dilation, padding_mode)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x_BCHW, weight = ctx.saved_tensors
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_of_input(grad_BCHW, weight, ctx.dilation, ctx.padding_mode)
        if ctx.needs_input_grad[1]:
            grad_weight = _gradient_of_weight(x_BCHW, grad_BCHW, weight, ctx.dilation, ctx.padding_mode)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_BCHW.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def _convolve(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, padding_mode: str) -> Tensor:
    pad_width = dilation * (weight.shape[-1] - 1) // 2
    if padding_mode == "zeros" and dilation == 1:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x_BCHW, weight, bias, padding=pad_width, groups=len(weight))
    # padded here: padding by oneDNN makes it choose a slow kernel where it dilates
    x_BCpp = pad_forward(x_BCHW, padding_mode, (pad_width,) * 2, (pad_width,) * 2)
    return F.conv2d(x_BCpp, weight, bias, dilation=dilation, groups=len(weight))


def _gradient_of_input(grad_BCHW: Tensor, weight: Tensor, dilation: int, padding_mode: str) -> Tensor:
    """Convolve with the turned kernel: what a value went into, by the same weights."""
    turned = weight.flip(-2, -1)
    if padding_mode in ("zeros", "periodic"):
        return _convolve(grad_BCHW, turned, None, dilation, padding_mode)
    pad_width = dilation * (weight.shape[-1] - 1) // 2
    # beyond a pole the gradient lands on rows that are copies, and is folded back onto their originals
    grad_BCpp = pad_forward(grad_BCHW, "periodic", (2 * pad_width,) * 2, (pad_width,) * 2)
    grad_BCpW = F.conv2d(grad_BCpp, turned, dilation=dilation, groups=len(weight))
    return pad_backward(grad_BCpW, padding_mode, (pad_width,) * 2, (0, 0), grad_BCHW.shape[-2:])


def _gradient_of_weight(x_BCHW: Tensor, grad_BCHW: Tensor, weight: Tensor, dilation: int, padding_mode: str) -> Tensor:
    """Correlate input and gradient, nine taps at a time."""
    kernel, (height, width) = weight.shape[-1], grad_BCHW.shape[-2:]
    if kernel == 3 and dilation == 1 and padding_mode == "zeros":
        return _nine_taps(x_BCHW.contiguous(memory_format=torch.channels_last), grad_BCHW, weight, 1)
    pad_width = dilation * (kernel - 1) // 2
    # taps that are `dilation` apart meet every `dilation`-th cell alone: each of these grids is a field of its own
    extra = (-height % dilation, -width % dilation)
    x_BCpp = pad_forward(x_BCHW, padding_mode, (pad_width, pad_width + extra[0]), (pad_width, pad_width + extra[1]))
    if any(extra):
        grad_BCHW = pad_forward(grad_BCHW, "zeros", (0, extra[0]), (0, extra[1]))
    x_BCpp, grad_BCHW = _every(x_BCpp, dilation), _every(grad_BCHW, dilation)
    height, width = grad_BCHW.shape[-2:]
    starts = [*range(0, kernel - 2, 3)]
    starts += [kernel - 3] if starts[-1] != kernel - 3 else []
    nine = weight[..., :3, :3].contiguous()
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for row in starts:
        for column in starts:
            part = x_BCpp[..., row : row + height + 2, column : column + width + 2]
            grad_weight[..., row : row + 3, column : column + 3] = _nine_taps(part, grad_BCHW, nine, 0)
    return grad_weight


def _nine_taps(x_BCHW: Tensor, grad_BCHW: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the gradient of 3 x 3 weights."""
    return torch.ops.aten.convolution_backward(
        grad_BCHW,
        x_BCHW,
        weight,
        bias_sizes=None,
        stride=(1, 1),
        padding=(padding, padding),
        dilation=(1, 1),
        transposed=False,
        output_padding=(0, 0),
        groups=len(weight),
        output_mask=(False, True, False),
    )[1]


def _every(x_BCHW: Tensor, step: int) -> Tensor:
    """Return the step x step coarser grids of some fields one after another along the batch."""
    if step == 1:
        return x_BCHW
    B, C, H, W = x_BCHW.shape
    grids = x_BCHW.permute(0, 2, 3, 1).reshape(B, H // step, step, W // step, step, C).permute(2, 4, 0, 1, 3, 5)
    return grids.reshape(step * step * B, H // step, W // step, C).permute(0, 3, 1, 2)
