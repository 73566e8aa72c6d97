"""Depth-wise convolutions of padded fields, with forward and backward passes that are fast on CPU.

On CPU, oneDNN is fast for depth-wise convolutions without dilation in the forward pass, the gradient of the input, and
that of 3 x 3 weights; with dilation, only in the forward pass. All other gradients take 10 to 100 times as long: this
module composes them from the fast cases. Other devices use PyTorch's gradients.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simvp_climate.networks.padding import pad, pad_backward, pad_forward


def depthwise_conv2d(x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, padding_mode: str) -> Tensor:
    """Return each channel convolved with its kernel in `weight`, (C, 1, K, K) with K odd, padded as in `pad`."""
    device = x_BCHW.device.type
    if device != "meta" and torch.is_autocast_enabled(device):  # the meta device has no autocast
        dtype = torch.get_autocast_dtype(device)
        x_BCHW, weight, bias = x_BCHW.to(dtype), weight.to(dtype), bias.to(dtype)
    if device in ("cpu", "meta") and not torch.compiler.is_compiling():
        return _DepthwiseConv2d.apply(x_BCHW, weight, bias, dilation, padding_mode)
    return _plain_conv2d(x_BCHW, weight, bias, dilation, padding_mode)


def _plain_conv2d(x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, padding_mode: str) -> Tensor:
    width = _same_pad_width(weight, dilation)
    x_BCpp = pad(x_BCHW, padding_mode, (width, width), (width, width))
    return F.conv2d(x_BCpp, weight, bias, dilation=dilation, groups=len(weight))


class _DepthwiseConv2d(torch.autograd.Function):
    """A depth-wise convolution on CPU with gradients from oneDNN's fast kernels."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, padding_mode: str) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight)
        ctx.dilation, ctx.padding_mode = dilation, padding_mode
        return _convolve(x_BCHW, weight, bias, dilation, padding_mode)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x_BCHW, weight = ctx.saved_tensors
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        (for_x, for_weight, for_bias, *_), options = ctx.needs_input_grad, (ctx.dilation, ctx.padding_mode)
        grad_x = _input_gradient(grad_BCHW, weight, *options) if for_x else None
        grad_weight = _weight_gradient(x_BCHW, grad_BCHW, weight, *options) if for_weight else None
        grad_bias = grad_BCHW.sum(dim=(0, 2, 3)) if for_bias else None
        return grad_x, grad_weight, grad_bias, None, None


def _same_pad_width(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] - 1) // 2


def _convolve(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, padding_mode: str) -> Tensor:
    """Return y[p] = bias + sum over taps k of weight[k] * x[p + dilation * k]."""
    pad_width = _same_pad_width(weight, dilation)
    if padding_mode == "zeros" and dilation == 1:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x_BCHW, weight, bias, padding=pad_width, groups=len(weight))
    # pad here, because oneDNN chooses a slow kernel if it has to pad and dilate
    x_BCpp = pad_forward(x_BCHW, padding_mode, (pad_width,) * 2, (pad_width,) * 2)
    return F.conv2d(x_BCpp, weight, bias, dilation=dilation, groups=len(weight))


def _input_gradient(grad_BCHW: Tensor, weight: Tensor, dilation: int, padding_mode: str) -> Tensor:
    """Return dL/dx[p] = sum over taps k of weight[k] * grad[p - dilation * k]: convolve with the flipped kernel."""
    flipped = weight.flip(-2, -1)
    if padding_mode in ("zeros", "periodic"):
        return _convolve(grad_BCHW, flipped, None, dilation, padding_mode)
    pad_width = _same_pad_width(weight, dilation)
    # on the sphere, also compute the gradient of the padded rows and add it to the rows that they are copies of
    grad_BCpp = pad_forward(grad_BCHW, "periodic", (2 * pad_width,) * 2, (pad_width,) * 2)
    grad_BCpW = F.conv2d(grad_BCpp, flipped, dilation=dilation, groups=len(weight))
    return pad_backward(grad_BCpW, padding_mode, (pad_width,) * 2, (0, 0), grad_BCHW.shape[-2:])


def _weight_gradient(x_BCHW: Tensor, grad_BCHW: Tensor, weight: Tensor, dilation: int, padding_mode: str) -> Tensor:
    """Return dL/dweight[k] = sum over cells p of x[p + dilation * k] * grad[p], in blocks of 3 x 3 taps."""
    kernel_size, (height, width) = weight.shape[-1], grad_BCHW.shape[-2:]
    if kernel_size == 3 and dilation == 1 and padding_mode == "zeros":
        return _weight_gradient_3x3(x_BCHW.contiguous(memory_format=torch.channels_last), grad_BCHW, weight, 1)
    pad_width = _same_pad_width(weight, dilation)
    # A dilated kernel couples only cells that are `dilation` apart. These cells form independent subgrids, on which the
    # kernel is not dilated. Pad the grid to a multiple of the dilation, so that all subgrids have the same size.
    remainder = (-height % dilation, -width % dilation)
    rows, columns = ((pad_width, pad_width + extra) for extra in remainder)
    x_BCpp = pad_forward(x_BCHW, padding_mode, rows, columns)
    if any(remainder):
        grad_BCHW = pad_forward(grad_BCHW, "zeros", (0, remainder[0]), (0, remainder[1]))
    x_BCpp, grad_BCHW = _subgrids(x_BCpp, dilation), _subgrids(grad_BCHW, dilation)
    height, width = grad_BCHW.shape[-2:]
    # blocks of three taps; the last one overlaps its neighbor if the kernel size is no multiple of three
    starts = [*range(0, kernel_size - 2, 3)]
    starts += [kernel_size - 3] if starts[-1] != kernel_size - 3 else []
    weight_3x3 = weight[..., :3, :3].contiguous()
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for row in starts:
        for column in starts:
            window_BCpp = x_BCpp[..., row : row + height + 2, column : column + width + 2]
            block = _weight_gradient_3x3(window_BCpp, grad_BCHW, weight_3x3, 0)
            grad_weight[..., row : row + 3, column : column + 3] = block
    return grad_weight


def _weight_gradient_3x3(x_BCHW: Tensor, grad_BCHW: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the gradient of 3 x 3 weights without dilation, for which oneDNN is fast."""
    # stride, padding, dilation, not transposed, output padding, groups; the gradient of the weights alone
    options = (1, 1), (padding, padding), (1, 1), False, (0, 0), len(weight), (False, True, False)
    return torch.ops.aten.convolution_backward(grad_BCHW, x_BCHW, weight, None, *options)[1]


def _subgrids(x_BCHW: Tensor, step: int) -> Tensor:
    """Return the step x step interleaved subgrids of fields, concatenated along the batch."""
    if step == 1:
        return x_BCHW
    B, C, H, W = x_BCHW.shape
    grids = x_BCHW.permute(0, 2, 3, 1).reshape(B, H // step, step, W // step, step, C).permute(2, 4, 0, 1, 3, 5)
    return grids.reshape(step * step * B, H // step, W // step, C).permute(0, 3, 1, 2)
