"""Depth-wise convolutions over fields that go on beyond their edges, fast on CPU in both directions.

oneDNN, which PyTorch uses on CPU, has fast kernels for the forward pass of any depth-wise convolution, but for the
gradient of the weights only where the kernel is 3 x 3 and not dilated, and for the gradient of the input only where
it is not dilated: elsewhere it takes 10 to 100 times as long. Here both gradients are put together from what is fast.
On other devices PyTorch's own gradients are used.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from simvp_climate.networks.continuation import continue_by_parts


def depthwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, beyond: str) -> Tensor:
    """Return the "same" convolution of each channel with its own kernel.

    Parameters
    ----------
    x_BCHW
        The fields.
    weight, bias
        (C, 1, K, K) with K odd, and (C,).
    dilation
        Distance between the taps of the kernel.
    beyond
        What lies beyond the edges, see `continue_beyond`.

    Returns
    -------
    torch.Tensor
        Shape as `x_BCHW`; under autocast in its precision.
    """
    device = x_BCHW.device.type
    if torch.is_autocast_enabled(device):
        lower = torch.get_autocast_dtype(device)
        x_BCHW, weight, bias = x_BCHW.to(lower), weight.to(lower), bias.to(lower)
    if device == "cpu" and not torch.compiler.is_compiling():
        return _Depthwise.apply(x_BCHW, weight, bias, dilation, beyond)
    reach = dilation * (weight.shape[-1] - 1) // 2
    x_BCpp = continue_beyond(x_BCHW, beyond, (reach,) * 2, (reach,) * 2)
    return F.conv2d(x_BCpp, weight, bias, dilation=dilation, groups=len(weight))


def continue_beyond(x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return fields with some more rows (before, after) and columns.

    "zeros": nothing lies beyond; "periodic": longitude closes round the globe, beyond the poles lies nothing;
    "sphere": also a meridian goes on across the pole, down the opposite one (of an odd number of longitudes the
    nearest).
    """
    if not any(rows) and not any(columns):
        return x_BCHW
    if torch.compiler.is_exporting():
        return continue_by_parts(x_BCHW, beyond, rows, columns)
    return _Continue.apply(x_BCHW, beyond, rows, columns)


class _Continue(torch.autograd.Function):
    """Copies into a new array, and back: slices and concatenations would touch every value several times more."""

    @staticmethod
    def forward(ctx, x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        ctx.beyond, ctx.rows, ctx.columns, ctx.size = beyond, rows, columns, x_BCHW.shape[-2:]
        return _continue(x_BCHW, beyond, rows, columns)

    @staticmethod
    def backward(ctx, grad_BCpp: Tensor) -> tuple[Tensor, None, None, None]:
        return _fold(grad_BCpp, ctx.beyond, ctx.rows, ctx.columns, ctx.size), None, None, None


def _pieces(count: int, before: int, after: int) -> list[tuple[slice, slice, int]]:
    """Cut positions -before to count + after into (where in the padded, where in the ring, which turn)."""
    pieces, at = [], -before
    while at < count + after:
        turn, first = divmod(at, count)
        stop = min(count, first + count + after - at)
        pieces.append((slice(at + before, at + before + stop - first), slice(first, stop), turn))
        at += stop - first
    return pieces


def _continue(x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    height, width = x_BCHW.shape[-2:]
    shape = (*x_BCHW.shape[:2], height + sum(rows), width + sum(columns))
    out_BCpp = torch.empty(shape, dtype=x_BCHW.dtype, device=x_BCHW.device, memory_format=torch.channels_last)
    inner = slice(columns[0], columns[0] + width)
    for there, here, turn in _pieces(height, *rows):
        strip = out_BCpp[..., there, inner]
        if turn == 0:
            strip.copy_(x_BCHW)
        elif beyond != "sphere":
            strip.zero_()
        elif turn % 2 == 0:
            strip.copy_(x_BCHW[..., here, :])
        else:  # down the opposite meridian
            half = width // 2
            opposite = x_BCHW[..., height - here.stop : height - here.start, :].flip(-2)
            strip[..., half:].copy_(opposite[..., : width - half])
            strip[..., :half].copy_(opposite[..., width - half :])
    for there, here, turn in _pieces(width, *columns):
        if turn == 0:
            continue
        if beyond == "zeros":
            out_BCpp[..., there].zero_()
        else:
            out_BCpp[..., there].copy_(out_BCpp[..., columns[0] + here.start : columns[0] + here.stop])
    return out_BCpp


def _fold(
    grad_BCpp: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the gradient of the fields from that of the continued ones: every copy adds to where it came from."""
    height, width = size
    grad_BCpW = grad_BCpp[..., columns[0] : columns[0] + width]
    if beyond != "zeros" and any(columns):
        grad_BCpW = grad_BCpW.clone(memory_format=torch.channels_last)
        for there, here, turn in _pieces(width, *columns):
            if turn:
                grad_BCpW[..., here] += grad_BCpp[..., there]
    grad_BCHW = grad_BCpW[..., rows[0] : rows[0] + height, :]
    if beyond != "sphere" or not any(rows):
        return grad_BCHW
    if grad_BCpW.data_ptr() == grad_BCpp.data_ptr():
        grad_BCHW = grad_BCHW.clone(memory_format=torch.channels_last)
    for there, here, turn in _pieces(height, *rows):
        if turn == 0:
            continue
        strip = grad_BCpW[..., there, :]
        if turn % 2 == 0:
            grad_BCHW[..., here, :] += strip
            continue
        half, strip = width // 2, strip.flip(-2)
        opposite = grad_BCHW[..., height - here.stop : height - here.start, :]
        opposite[..., : width - half] += strip[..., half:]
        opposite[..., width - half :] += strip[..., :half]
    return grad_BCHW


class _Depthwise(torch.autograd.Function):
    """A depth-wise convolution on CPU whose gradients are made of what oneDNN is fast at."""

    @staticmethod
    def forward(ctx, x_BCHW: Tensor, weight: Tensor, bias: Tensor, dilation: int, beyond: str) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight)
        ctx.dilation, ctx.beyond = dilation, beyond
        return _convolve(x_BCHW, weight, bias, dilation, beyond)

    @staticmethod
    def backward(ctx, grad_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x_BCHW, weight = ctx.saved_tensors
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradient_of_input(grad_BCHW, weight, ctx.dilation, ctx.beyond)
        if ctx.needs_input_grad[1]:
            grad_weight = _gradient_of_weight(x_BCHW, grad_BCHW, weight, ctx.dilation, ctx.beyond)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_BCHW.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


def _convolve(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, beyond: str) -> Tensor:
    reach = dilation * (weight.shape[-1] - 1) // 2
    if beyond == "zeros" and dilation == 1:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x_BCHW, weight, bias, padding=reach, groups=len(weight))
    # padded here: padding by oneDNN makes it choose a slow kernel where it dilates
    x_BCpp = _continue(x_BCHW, beyond, (reach,) * 2, (reach,) * 2)
    return F.conv2d(x_BCpp, weight, bias, dilation=dilation, groups=len(weight))


def _gradient_of_input(grad_BCHW: Tensor, weight: Tensor, dilation: int, beyond: str) -> Tensor:
    """Convolve with the turned kernel: what a value went into, by the same weights."""
    turned = weight.flip(-2, -1)
    if beyond != "sphere":
        return _convolve(grad_BCHW, turned, None, dilation, beyond)
    reach = dilation * (weight.shape[-1] - 1) // 2
    # beyond a pole the gradient lands on rows that are copies, and is folded back onto their originals
    grad_BCpp = _continue(grad_BCHW, "periodic", (2 * reach,) * 2, (reach,) * 2)
    grad_BCpW = F.conv2d(grad_BCpp, turned, dilation=dilation, groups=len(weight))
    return _fold(grad_BCpW, beyond, (reach,) * 2, (0, 0), grad_BCHW.shape[-2:])


def _gradient_of_weight(x_BCHW: Tensor, grad_BCHW: Tensor, weight: Tensor, dilation: int, beyond: str) -> Tensor:
    """Correlate input and gradient, nine taps at a time."""
    kernel, (height, width) = weight.shape[-1], grad_BCHW.shape[-2:]
    if kernel == 3 and dilation == 1 and beyond == "zeros":
        return _nine_taps(x_BCHW.contiguous(memory_format=torch.channels_last), grad_BCHW, weight, 1)
    reach = dilation * (kernel - 1) // 2
    # taps that are `dilation` apart meet every `dilation`-th cell alone: each of these grids is a field of its own
    extra = (-height % dilation, -width % dilation)
    x_BCpp = _continue(x_BCHW, beyond, (reach, reach + extra[0]), (reach, reach + extra[1]))
    if any(extra):
        grad_BCHW = _continue(grad_BCHW, "zeros", (0, extra[0]), (0, extra[1]))
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
