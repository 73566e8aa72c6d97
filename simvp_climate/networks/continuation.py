"""What lies beyond the edges of a field, put together from slices: as few operations as an exported program can have.

Shape suffixes: B batch, C channel, H latitude, W longitude, p padded.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def continue_by_parts(x_BCHW: Tensor, beyond: str, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return what `simvp_climate.networks.depthwise.continue_beyond` returns, made by concatenation."""
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
