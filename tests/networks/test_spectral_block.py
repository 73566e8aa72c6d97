"""The spectral block: fields of known spherical harmonics are scaled and turned as its matrices say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import sph_harm_y

from simvp_climate.networks.spectral import MAX_DEGREES, SpectralBlock

ROWS, COLUMNS = 16, 32


def harmonic(degree, order, part="real"):
    """Return the real or imaginary part of a spherical harmonic on the grid, (h, w)."""
    colatitude = (np.arange(ROWS) + 0.5) * np.pi / ROWS
    longitude = 2 * np.pi * np.arange(COLUMNS) / COLUMNS
    values = sph_harm_y(degree, order, colatitude[:, None], longitude)
    return torch.from_numpy(getattr(values, part)).float()


def mixing(matrices):
    """Return a block of two channels whose complex matrices are zero but for these, {degree: matrix}."""
    block = SpectralBlock(2, ROWS, COLUMNS)
    with torch.no_grad():
        block.scale.fill_(1)
        for degree, linear in enumerate(block.mix):
            matrix = torch.as_tensor(matrices.get(degree, torch.zeros(2, 2, dtype=torch.complex64)))
            linear.weight.copy_(torch.cat([matrix.real, matrix.imag]))
    return block


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (1, 0), (3, 2), (7, 7), (12, 5), (15, 15)])
def test_one_degree_is_multiplied_by_its_matrix_and_no_other(degree, order):
    field = harmonic(degree, order)
    x_BDhw = torch.stack([field, 2 * field])[None]
    block = mixing({degree: torch.tensor([[0.5, 1.0], [0.0, -3.0]], dtype=torch.complex64)})
    with torch.no_grad():
        added_BDhw = block(x_BDhw) - x_BDhw
    expected = F.gelu(torch.stack([0.5 * field + 2 * field, -6 * field]))
    torch.testing.assert_close(added_BDhw[0], expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        other = mixing({(degree + 1) % ROWS: torch.eye(2, dtype=torch.complex64)})
        torch.testing.assert_close(other(x_BDhw), x_BDhw, rtol=1e-4, atol=1e-5)


def test_an_imaginary_matrix_turns_waves_by_a_quarter_of_their_length():
    # i * exp(i m x) has the real part -sin(m x)
    real, imaginary = harmonic(6, 3), harmonic(6, 3, "imag")
    block = mixing({6: 1j * torch.eye(2, dtype=torch.complex64)})
    with torch.no_grad():
        added_BDhw = block(torch.stack([real, real])[None]) - real
    torch.testing.assert_close(added_BDhw[0, 0], F.gelu(-imaginary), rtol=1e-4, atol=1e-5)


def test_it_does_not_know_the_longitude_and_reaches_the_whole_globe():
    torch.manual_seed(0)
    block = SpectralBlock(4, ROWS, COLUMNS)
    x_BDhw = torch.randn(2, 4, ROWS, COLUMNS, requires_grad=True)
    torch.testing.assert_close(block(x_BDhw.roll(5, -1)).roll(-5, -1), block(x_BDhw))
    block(x_BDhw)[0, :, 3, 4].sum().backward()
    assert (x_BDhw.grad[0] != 0).float().mean() > 0.99 and not x_BDhw.grad[1].any()


@pytest.mark.parametrize("grid", [(1, 2), (3, 1), (5, 7), (4, 8), (91, 180)])
def test_any_grid_has_a_block(grid):
    block = SpectralBlock(3, *grid)
    assert block.degrees == min(grid[0], max(1, grid[1] // 2), MAX_DEGREES)
    product = torch.bmm(block.analysis, block.synthesis)
    for order in range(block.degrees):
        expected = torch.eye(block.degrees - order)
        torch.testing.assert_close(product[order, order:, order:], expected, rtol=0, atol=1e-5)
    assert block(torch.randn(2, 3, *grid)).isfinite().all()


def test_noise_without_effect_leaves_it_as_it_is():
    torch.manual_seed(0)
    block = SpectralBlock(4, 4, 8, noise=3)
    x_BDhw, noise_BN = torch.randn(2, 4, 4, 8), torch.randn(2, 3)
    torch.testing.assert_close(block(x_BDhw, noise_BN), block(x_BDhw))
    torch.nn.init.ones_(block.scale_and_shift.weight)
    assert not torch.allclose(block(x_BDhw, noise_BN), block(x_BDhw), atol=1e-2)
