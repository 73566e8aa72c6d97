"""What lies beyond the edges of a field.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def continue_beyond(x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return fields with some more rows (before, after) and columns.

    "zeros": nothing lies beyond; "periodic": longitude closes round the globe, beyond the poles lies nothing;
    "sphere": also a meridian goes on across the pole, down the opposite one (of an odd number of longitudes the
    nearest).
    """
    if not any(rows) and not any(columns):
        return x_BCHW
    if torch.compiler.is_exporting():
        return by_parts(x_BCHW, beyond, rows, columns)
    return _Continue.apply(x_BCHW, beyond, rows, columns)


class _Continue(torch.autograd.Function):
    """Copies into a new array, and back: slices and concatenations would touch every value several times more."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        ctx.beyond, ctx.rows, ctx.columns, ctx.size = beyond, rows, columns, x_BCHW.shape[-2:]
        return continued(x_BCHW, beyond, rows, columns)

    @staticmethod
    def backward(ctx: Any, grad_BCpp: Tensor) -> tuple[Tensor, None, None, None]:
        return folded(grad_BCpp, ctx.beyond, ctx.rows, ctx.columns, ctx.size), None, None, None


def _pieces(count: int, before: int, after: int) -> list[tuple[slice, slice, int]]:
    """Cut positions -before to count + after into (where in the padded, where in the ring, which turn)."""
    pieces, at = [], -before
    while at < count + after:
        turn, first = divmod(at, count)
        stop = min(count, first + count + after - at)
        pieces.append((slice(at + before, at + before + stop - first), slice(first, stop), turn))
        at += stop - first
    return pieces


def continued(x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return what `continue_beyond` returns, channels last in memory, without a way back for gradients."""
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


def folded(
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


def by_parts(x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return what `continued` returns, from slices: as few operations as an exported program can have."""
    if beyond == "zeros":
        return F.pad(x_BCHW, (*columns, *rows))
    if beyond == "sphere":
        x_BCpW = torch.cat([*_across(x_BCHW, rows[0], 0)[::-1], x_BCHW, *_across(x_BCHW, rows[1], 1)], dim=-2)
    else:
        x_BCpW = F.pad(x_BCHW, (0, 0, *rows))
    return torch.cat([*_around(x_BCpW, columns[0], 0)[::-1], x_BCpW, *_around(x_BCpW, columns[1], 1)], dim=-1)


def _across(x_BCHW: Tensor, count: int, south: int) -> list[Tensor]:
    """Return strips of `count` rows beyond a pole, the nearest first: every other one is the opposite meridian's."""
    strips, height, half = [], x_BCHW.shape[-2], x_BCHW.shape[-1] // 2
    while count:
        size, opposite = min(count, height), len(strips) % 2 == 0
        # the rows next to this edge turned over, then those next to the other edge
        strip = x_BCHW.narrow(-2, height - size if south == opposite else 0, size)
        if opposite:
            strip = strip.flip(-2)
            strip = torch.cat([strip[..., strip.shape[-1] - half :], strip[..., : strip.shape[-1] - half]], dim=-1)
        strips.append(strip)
        count -= size
    return strips


def _around(x_BCpW: Tensor, count: int, east: int) -> list[Tensor]:
    """Return strips of `count` columns beyond an edge, the nearest first, of a longitude that closes."""
    strips, width = [], x_BCpW.shape[-1]
    while count:
        size = min(count, width)
        strips.append(x_BCpW.narrow(-1, 0 if east else width - size, size))
        count -= size
    return strips
