"""What lies beyond the edges of a field.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def pad(x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return fields with some more rows (before, after) and columns.

    "zeros": nothing lies beyond; "periodic": longitude closes round the globe, beyond the poles lies nothing;
    "sphere": also a meridian goes on across the pole, down the opposite one (of an odd number of longitudes the
    nearest); "sphere_with_poles": the same where the outermost rows lie on the poles, which a meridian meets once.
    """
    if not any(rows) and not any(columns):
        return x_BCHW
    if torch.compiler.is_exporting():
        return pad_for_export(x_BCHW, padding_mode, rows, columns)
    return _Continue.apply(x_BCHW, padding_mode, rows, columns)


class _Continue(torch.autograd.Function):
    """Copies into a new array, and back: slices and concatenations would touch every value several times more."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        ctx.padding_mode, ctx.rows, ctx.columns, ctx.size = padding_mode, rows, columns, x_BCHW.shape[-2:]
        return pad_forward(x_BCHW, padding_mode, rows, columns)

    @staticmethod
    def backward(ctx: Any, grad_BCpp: Tensor) -> tuple[Tensor, None, None, None]:
        return pad_backward(grad_BCpp, ctx.padding_mode, ctx.rows, ctx.columns, ctx.size), None, None, None


def _pieces(count: int, before: int, after: int) -> list[tuple[slice, slice, int]]:
    """Cut positions -before to count + after into (where in the padded, where in the ring, which turn)."""
    pieces, at = [], -before
    while at < count + after:
        turn, first = divmod(at, count)
        stop = min(count, first + count + after - at)
        pieces.append((slice(at + before, at + before + stop - first), slice(first, stop), turn))
        at += stop - first
    return pieces


def _along_meridian(height: int, rows: tuple[int, int], padding_mode: str) -> list[tuple[slice, slice, bool]]:
    """Cut the rows of a continued field into (where in it, which rows these are, whether on the opposite meridian).

    Those of the opposite meridian come turned over.
    """
    # once round the sphere: up one meridian and down the other, on which rows at the poles are none of their own
    circle, last = (2 * height, 2 * height - 1) if padding_mode == "sphere" else (max(2 * height - 2, 1),) * 2
    strips = []
    for there, here, _ in _pieces(circle, rows[0], height + rows[1] - circle):
        begin, middle, end = here.start, min(max(here.start, height), here.stop), here.stop
        across = there.start + middle - begin
        if begin < middle:
            strips.append((slice(there.start, across), slice(begin, middle), False))
        if middle < end:
            strips.append((slice(across, there.stop), slice(last - end + 1, last - middle + 1), True))
    return strips


def pad_forward(x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return what `pad` returns, channels last in memory, without a way back for gradients."""
    height, width = x_BCHW.shape[-2:]
    shape = (*x_BCHW.shape[:2], height + sum(rows), width + sum(columns))
    out_BCpp = torch.empty(shape, dtype=x_BCHW.dtype, device=x_BCHW.device, memory_format=torch.channels_last)
    inner = slice(columns[0], columns[0] + width)
    if padding_mode in ("zeros", "periodic"):
        out_BCpp[..., : rows[0], inner].zero_()
        out_BCpp[..., rows[0] : rows[0] + height, inner].copy_(x_BCHW)
        out_BCpp[..., rows[0] + height :, inner].zero_()
    else:
        half = width // 2
        for there, here, opposite in _along_meridian(height, rows, padding_mode):
            strip, source = out_BCpp[..., there, inner], x_BCHW[..., here, :]
            if opposite:
                source = source.flip(-2)
                strip[..., half:].copy_(source[..., : width - half])
                strip[..., :half].copy_(source[..., width - half :])
            else:
                strip.copy_(source)
    for there, here, turn in _pieces(width, *columns):
        if turn == 0:
            continue
        if padding_mode == "zeros":
            out_BCpp[..., there].zero_()
        else:
            out_BCpp[..., there].copy_(out_BCpp[..., columns[0] + here.start : columns[0] + here.stop])
    return out_BCpp


def pad_backward(
    grad_BCpp: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the gradient of the fields from that of the continued ones: every copy adds to where it came from."""
    height, width = size
    grad_BCpW = grad_BCpp[..., columns[0] : columns[0] + width]
    if padding_mode != "zeros" and any(columns):
        grad_BCpW = grad_BCpW.clone(memory_format=torch.channels_last)
        for there, here, turn in _pieces(width, *columns):
            if turn:
                grad_BCpW[..., here] += grad_BCpp[..., there]
    grad_BCHW = grad_BCpW[..., rows[0] : rows[0] + height, :]
    if padding_mode in ("zeros", "periodic") or not any(rows):
        return grad_BCHW
    if grad_BCpW.data_ptr() == grad_BCpp.data_ptr():
        grad_BCHW = grad_BCHW.clone(memory_format=torch.channels_last)
    half = width // 2
    for there, here, opposite in _along_meridian(height, rows, padding_mode):
        if there.start == rows[0]:
            continue
        strip, origin = grad_BCpW[..., there, :], grad_BCHW[..., here, :]
        if opposite:
            strip = strip.flip(-2)
            origin[..., : width - half] += strip[..., half:]
            origin[..., width - half :] += strip[..., :half]
        else:
            origin += strip
    return grad_BCHW


def pad_for_export(x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return what `pad_forward` returns, from slices: as few operations as an exported program can have."""
    if padding_mode == "zeros":
        return F.pad(x_BCHW, (*columns, *rows))
    if padding_mode == "periodic":
        x_BCpW = F.pad(x_BCHW, (0, 0, *rows))
    else:
        x_BCpW = torch.cat(
            [
                _strip(x_BCHW, here, opposite)
                for _, here, opposite in _along_meridian(x_BCHW.shape[-2], rows, padding_mode)
            ],
            dim=-2,
        )
    return torch.cat([*_around(x_BCpW, columns[0], 0)[::-1], x_BCpW, *_around(x_BCpW, columns[1], 1)], dim=-1)


def _strip(x_BCHW: Tensor, here: slice, opposite: bool) -> Tensor:
    """Return some rows, or what lies on the opposite meridians of them, turned over."""
    strip_BCpW, half = x_BCHW.narrow(-2, here.start, here.stop - here.start), x_BCHW.shape[-1] // 2
    if not opposite:
        return strip_BCpW
    strip_BCpW = strip_BCpW.flip(-2)
    return torch.cat([strip_BCpW[..., x_BCHW.shape[-1] - half :], strip_BCpW[..., : x_BCHW.shape[-1] - half]], dim=-1)


def _around(x_BCpW: Tensor, count: int, east: int) -> list[Tensor]:
    """Return strips of `count` columns beyond an edge, the nearest first, of a longitude that closes."""
    strips, width = [], x_BCpW.shape[-1]
    while count:
        size = min(count, width)
        strips.append(x_BCpW.narrow(-1, 0 if east else width - size, size))
        count -= size
    return strips
