"""Padding against a field on the sphere, and against a search for each padded cell."""

import pytest
import torch

from simvp_climate.networks.padding import PADDING_MODES, pad, pad_for_export


def pad_cell_by_cell(x, padding_mode, rows, columns):
    """Return a padded field by looking up where each padded cell lies on the globe."""
    height, width = x.shape[-2:]
    lines = []
    for row in range(-rows[0], height + rows[1]):
        cells = []
        for column in range(-columns[0], width + columns[1]):
            turn, line = divmod(row, height)
            is_opposite = turn % 2 == 1
            if padding_mode == "sphere_with_poles":
                # a great circle passes each pole row once, every other row twice
                position = row % (2 * height - 2)
                is_opposite = position >= height
                line = position - height + 1 if is_opposite else position
            on_grid = padding_mode.startswith("sphere") or turn == 0
            on_grid = on_grid and (padding_mode != "zeros" or 0 <= column < width)
            shift = width - width // 2 if is_opposite else 0
            line = height - 1 - line if is_opposite else line
            cells.append(x[..., line, (column + shift) % width] if on_grid else torch.zeros_like(x[..., 0, 0]))
        lines.append(torch.stack(cells, -1))
    return torch.stack(lines, -2)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("rows", "columns"), [((2, 3), (1, 4)), ((0, 0), (0, 3)), ((9, 20), (13, 25)), ((1, 0), (0, 0))]
)
def test_values_and_gradients_equal_those_of_padding_cell_by_cell(padding_mode, rows, columns):
    torch.manual_seed(1)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64).requires_grad_()
    padded, expected = pad(x, padding_mode, rows, columns), pad_cell_by_cell(x, padding_mode, rows, columns)
    torch.testing.assert_close(padded, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(padded, x, grad), torch.autograd.grad(expected, x, grad))


@pytest.mark.parametrize("rows", [(2, 3), (9, 8), (21, 30)])
@pytest.mark.parametrize(("padding_mode", "first"), [("sphere", 0.5), ("sphere_with_poles", 0)])
def test_a_smooth_field_on_the_sphere_continues_across_the_poles(rows, padding_mode, first):
    # Cartesian coordinates of a point: a latitude above 90 degrees gives the point on the opposite meridian
    height, width, before, after = 8, 12, *rows
    spacing = torch.pi / (height - 1 + 2 * first)
    latitude = (torch.arange(-before, height + after, dtype=torch.float64) + first) * spacing - torch.pi / 2
    longitude = torch.arange(-5, width + 2, dtype=torch.float64) * 2 * torch.pi / width
    y, x = torch.meshgrid(latitude, longitude, indexing="ij")
    expected = (2 * y.cos() * x.cos() - 3 * y.cos() * x.sin() + y.sin())[None, None]
    field = expected[..., before : before + height, 5 : 5 + width]
    torch.testing.assert_close(pad(field, padding_mode, rows, (5, 2)), expected)


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    ("rows", "columns"), [((1, 1), (1, 1)), ((9, 9), (9, 9)), ((0, 0), (0, 3)), ((2, 0), (0, 0)), ((5, 13), (12, 7))]
)
@pytest.mark.parametrize("size", [(8, 16), (5, 7), (4, 4)])
def test_exported_padding_equals_that_of_training(padding_mode, rows, columns, size):
    fields = torch.arange(2.0 * 3 * size[0] * size[1]).reshape(2, 3, *size)
    expected = pad(fields, padding_mode, rows, columns)
    torch.testing.assert_close(pad_for_export(fields, padding_mode, rows, columns), expected, rtol=0, atol=0)
