"""Pad latitude-longitude fields at the edges of their grid.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING_MODES = ("zeros", "periodic", "sphere", "sphere_with_poles")


def pad(x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return fields with ascending latitude and longitude, padded by `rows` and `columns`, (before, after) each.

    "zeros": pad with zeros. "periodic": longitude is periodic, rows beyond the poles are zeros. "sphere": rows beyond a
    pole come from the meridian 180 degrees away (with an odd number of longitudes, from the nearest one).
    "sphere_with_poles": the same for grids whose outermost rows lie on the poles; pole rows are not duplicated.
    """
    if not any(rows) and not any(columns):
        return x_BCHW
    if torch.compiler.is_compiling():
        return pad_for_export(x_BCHW, padding_mode, rows, columns)
    return _Pad.apply(x_BCHW, padding_mode, rows, columns)


class _Pad(torch.autograd.Function):
    """Padding by copies into a new tensor; slices and concatenations would copy every value several times."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        ctx.padding_mode, ctx.rows, ctx.columns, ctx.size = padding_mode, rows, columns, x_BCHW.shape[-2:]
        return pad_forward(x_BCHW, padding_mode, rows, columns)

    @staticmethod
    def backward(ctx: Any, grad_BCpp: Tensor) -> tuple[Tensor, None, None, None]:
        return pad_backward(grad_BCpp, ctx.padding_mode, ctx.rows, ctx.columns, ctx.size), None, None, None


def pad_forward(x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return padded fields like `pad`, in channels-last memory, without recording gradients."""
    height, width = x_BCHW.shape[-2:]
    shape = (*x_BCHW.shape[:2], height + sum(rows), width + sum(columns))
    out_BCpp = torch.empty(shape, dtype=x_BCHW.dtype, device=x_BCHW.device, memory_format=torch.channels_last)
    inner = slice(columns[0], columns[0] + width)
    # rows first, then columns: the corners are wrapped copies of rows that are already padded
    if padding_mode in ("zeros", "periodic"):
        out_BCpp[..., : rows[0], inner].zero_()
        out_BCpp[..., rows[0] : rows[0] + height, inner].copy_(x_BCHW)
        out_BCpp[..., rows[0] + height :, inner].zero_()
    else:
        half = width // 2
        for target, source, is_opposite in _meridian_segments(height, rows, padding_mode):
            target_BCpW, source_BCpW = out_BCpp[..., target, inner], x_BCHW[..., source, :]
            if is_opposite:
                # southward becomes northward, and longitude shifts by 180 degrees
                source_BCpW = source_BCpW.flip(-2)
                target_BCpW[..., half:].copy_(source_BCpW[..., : width - half])
                target_BCpW[..., :half].copy_(source_BCpW[..., width - half :])
            else:
                target_BCpW.copy_(source_BCpW)
    for target, source, turn in _ring_segments(width, *columns):
        if turn == 0:  # the field itself
            continue
        if padding_mode == "zeros":
            out_BCpp[..., target].zero_()
        else:
            out_BCpp[..., target].copy_(out_BCpp[..., columns[0] + source.start : columns[0] + source.stop])
    return out_BCpp


def pad_backward(
    grad_BCpp: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the gradient of fields of `size` (H, W): the gradient of every padded copy is added to its original's."""
    height, width = size
    # in reverse order of `pad_forward`: columns first, then rows
    grad_BCpW = grad_BCpp[..., columns[0] : columns[0] + width]
    if padding_mode != "zeros" and any(columns):
        grad_BCpW = grad_BCpW.clone(memory_format=torch.channels_last)
        for target, source, turn in _ring_segments(width, *columns):
            if turn:
                grad_BCpW[..., source] += grad_BCpp[..., target]
    grad_BCHW = grad_BCpW[..., rows[0] : rows[0] + height, :]
    if padding_mode in ("zeros", "periodic") or not any(rows):
        return grad_BCHW
    if grad_BCpW.data_ptr() == grad_BCpp.data_ptr():  # autograd owns the incoming gradient: do not write to it
        grad_BCHW = grad_BCHW.clone(memory_format=torch.channels_last)
    half = width // 2
    for target, source, is_opposite in _meridian_segments(height, rows, padding_mode):
        if target.start == rows[0]:  # the field itself
            continue
        copy_BCpW, original_BCpW = grad_BCpW[..., target, :], grad_BCHW[..., source, :]
        if is_opposite:
            copy_BCpW = copy_BCpW.flip(-2)
            original_BCpW[..., : width - half] += copy_BCpW[..., half:]
            original_BCpW[..., width - half :] += copy_BCpW[..., :half]
        else:
            original_BCpW += copy_BCpW
    return grad_BCHW


def pad_for_export(x_BCHW: Tensor, padding_mode: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return padded fields like `pad`, with few slices and concatenations, which torch.export and ONNX can trace."""
    if padding_mode == "zeros":
        return F.pad(x_BCHW, (*columns, *rows))
    if padding_mode == "periodic":
        x_BCpW = F.pad(x_BCHW, (0, 0, *rows))
    else:
        segments = _meridian_segments(x_BCHW.shape[-2], rows, padding_mode)
        strips = [_rows_across_pole(x_BCHW, source, is_opposite) for _, source, is_opposite in segments]
        x_BCpW = torch.cat(strips, dim=-2)
    strips = [
        x_BCpW.narrow(-1, source.start, source.stop - source.start) if turn else x_BCpW
        for _, source, turn in _ring_segments(x_BCpW.shape[-1], *columns)
    ]
    return torch.cat(strips, dim=-1)


def _rows_across_pole(x_BCHW: Tensor, rows: slice, is_opposite: bool) -> Tensor:
    """Return some rows, flipped and shifted to the opposite meridian if `is_opposite`."""
    strip_BCpW, split = x_BCHW.narrow(-2, rows.start, rows.stop - rows.start), (x_BCHW.shape[-1] + 1) // 2
    if not is_opposite:
        return strip_BCpW
    strip_BCpW = strip_BCpW.flip(-2)
    return torch.cat([strip_BCpW[..., split:], strip_BCpW[..., :split]], dim=-1)


def _ring_segments(length: int, before: int, after: int) -> list[tuple[slice, slice, int]]:
    """Split a padded ring, -before to length + after, into segments (target, source, turns: 0 for the ring itself)."""
    segments, position = [], -before
    while position < length + after:
        turn, start = divmod(position, length)
        stop = min(length, start + length + after - position)
        segments.append((slice(position + before, position + before + stop - start), slice(start, stop), turn))
        position += stop - start
    return segments


def _meridian_segments(height: int, rows: tuple[int, int], padding_mode: str) -> list[tuple[slice, slice, bool]]:
    """Split padded rows into segments (target rows, source rows, is_opposite); opposite ones run in reverse order."""
    # A great circle through the poles runs up one meridian and down the opposite one. On the way down, position p of
    # the circle is row `mirror - p`. A row on a pole belongs to both meridians and counts once.
    if padding_mode == "sphere":
        circle, mirror = 2 * height, 2 * height - 1
    else:
        circle = mirror = max(2 * height - 2, 1)
    segments = []
    for target, source, _ in _ring_segments(circle, rows[0], height + rows[1] - circle):
        # a segment may cross the pole: rows up to `crossing` are on the meridian, the others on the opposite one
        crossing = min(max(source.start, height), source.stop)
        split = target.start + crossing - source.start
        if source.start < crossing:
            segments.append((slice(target.start, split), slice(source.start, crossing), False))
        if crossing < source.stop:
            opposite = slice(mirror - source.stop + 1, mirror - crossing + 1)
            segments.append((slice(split, target.stop), opposite, True))
    return segments
