"""The fast gradients against those of a plain convolution of a field continued cell by cell."""

import pytest
import torch
import torch.nn.functional as F

from simvp_climate.networks.depthwise import depthwise
from simvp_climate.networks.padding import pad
from simvp_climate.networks.simvp_v2 import PADDING_MODES


def continued(x, padding_mode, rows, columns):
    """Cell by cell: where does a position beyond the edge lie?"""
    height, width = x.shape[-2:]
    lines = []
    for row in range(-rows[0], height + rows[1]):
        cells = []
        for column in range(-columns[0], width + columns[1]):
            turn, at = divmod(row, height)
            over = turn % 2 == 1
            if padding_mode == "sphere_with_poles":
                # once round: up to the other pole, and back over the rows between the poles
                place = row % (2 * height - 2)
                over, at = place >= height, place if place < height else place - height + 1
            inside = padding_mode.startswith("sphere") or turn == 0
            inside = inside and (padding_mode != "zeros" or 0 <= column < width)
            here = (column + (width - width // 2 if over and column % width < width else 0)) % width
            line = height - 1 - at if over else at
            cells.append(x[..., line, here] if inside else torch.zeros_like(x[..., 0, 0]))
        lines.append(torch.stack(cells, -1))
    return torch.stack(lines, -2)


def case(kernel, size, dtype=torch.float64):
    torch.manual_seed(1)
    x = torch.randn(2, 3, *size, dtype=dtype).requires_grad_()
    weight = torch.randn(3, 1, kernel, kernel, dtype=dtype).requires_grad_()
    return x, weight, torch.randn(3, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (7, 3), (7, 2), (3, 3)])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (2, 4), (16, 5)])
def test_values_and_gradients(padding_mode, kernel, dilation, size):
    x, weight, bias = case(kernel, size)
    pad_width = dilation * (kernel - 1) // 2
    padded = continued(x, padding_mode, (pad_width,) * 2, (pad_width,) * 2)
    plain = F.conv2d(padded, weight, bias, dilation=dilation, groups=3)
    fast = depthwise(x, weight, bias, dilation, padding_mode)
    torch.testing.assert_close(fast, plain)
    by = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, weight, bias), by)
    for found, value in zip(torch.autograd.grad(fast, (x, weight, bias), by), expected, strict=True):
        torch.testing.assert_close(found, value)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("rows", "columns"), [((2, 3), (1, 4)), ((0, 0), (0, 3)), ((9, 20), (13, 25)), ((1, 0), (0, 0))]
)
def test_continuing(padding_mode, rows, columns):
    x, _, _ = case(3, (6, 8))
    found, expected = pad(x, padding_mode, rows, columns), continued(x, padding_mode, rows, columns)
    torch.testing.assert_close(found, expected)
    by = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(found, x, by), torch.autograd.grad(expected, x, by))


def test_bfloat16_under_autocast_is_near():
    x, weight, bias = case(7, (16, 32), torch.float32)
    plain = depthwise(x, weight, bias, 3, "sphere")
    by = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, weight, bias), by)
    with torch.autocast("cpu", torch.bfloat16):
        lower = depthwise(x, weight, bias, 3, "sphere")
    assert lower.dtype == torch.bfloat16
    for found, value in zip(torch.autograd.grad(lower, (x, weight, bias), by.bfloat16()), expected, strict=True):
        assert found.dtype == torch.float32
        assert (found - value).abs().max() < 0.02 * value.abs().max()
