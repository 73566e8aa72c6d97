"""A block of global reach: it mixes the channels of each total wavenumber of the spherical harmonics.

Shape suffixes: B batch, D channel, h and w rows and columns of the grid, M zonal wavenumber, L total wavenumber
(degree), R real and imaginary part.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import sph_legendre_p_all
from torch import Tensor, nn

from simvp_climate.networks.noise import layer_without_effect, modulate

MAX_DEGREES = 32  # more would cost much on fine grids; convolutions see the small scales
TRANSFORMS = ("fourier", "analysis", "synthesis", "waves")  # buffers that follow from the grid


class SpectralBlock(nn.Module):
    """A residual block: x + scale * gelu(y), where y has the mixed spherical harmonics of x.

    The mix is the convolution on the sphere of B. Bonev et al. (SFNO, arXiv:2306.03838): one complex matrix over the
    channels for every total wavenumber, the same for all zonal wavenumbers. The transforms are products with real
    matrices, which run on every device and in every precision. Rows count as the centers of equal steps from pole to
    pole: on Gaussian grids and those with rows on the poles the harmonics are approximate.
    """

    def __init__(self, width: int, rows: int, columns: int, noise: int = 0):
        super().__init__()
        self.degrees = min(rows, max(1, columns // 2), MAX_DEGREES)
        self.scale_and_shift = layer_without_effect(nn.Linear, noise, 2 * width) if noise else None
        # matrices of their own, of the real parts above the imaginary ones, so that Muon takes each alone
        self.mix = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(self.degrees))
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        for linear in self.mix:
            nn.init.normal_(linear.weight, std=1 / math.sqrt(2 * width))
        for name, matrix in zip(TRANSFORMS, self._transforms(rows, columns), strict=True):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32)))

    def _transforms(self, rows: int, columns: int) -> tuple[np.ndarray, ...]:
        """Return the matrices of the four transforms."""
        degrees = orders = self.degrees
        colatitude = (np.arange(rows) + 0.5) * math.pi / rows
        legendre_LMh = sph_legendre_p_all(degrees - 1, orders - 1, colatitude)[0][:, :orders]
        synthesis_MhL = legendre_LMh.transpose(1, 2, 0)
        angle_Mw = np.arange(orders)[:, None] * 2 * math.pi * np.arange(columns) / columns
        waves_MRw = np.stack([np.cos(angle_Mw), -np.sin(angle_Mw)], axis=1)
        twice_M11 = np.where(np.arange(orders) > 0, 2, 1)[:, None, None]  # negative zonal wavenumbers, too
        fourier, waves = (values.reshape(-1, columns) for values in (waves_MRw / columns, waves_MRw * twice_M11))
        return fourier, np.linalg.pinv(synthesis_MhL), synthesis_MhL, waves.T

    def forward(self, x_BDhw: Tensor, noise_BN: Tensor | None = None) -> Tensor:
        input_BDhw = x_BDhw if noise_BN is None else modulate(self.scale_and_shift, x_BDhw, noise_BN)
        B, D, h, _ = x_BDhw.shape
        M = L = self.degrees
        # longitude to zonal wavenumber, then latitude to total wavenumber
        c_BhKD = torch.matmul(self.fourier, input_BDhw.permute(0, 2, 3, 1))  # K = M * R
        c_MhK = c_BhKD.unflatten(2, (M, 2)).permute(2, 1, 0, 3, 4).reshape(M, h, B * 2 * D)
        c_MLK = torch.bmm(self.analysis, c_MhK)
        c_LKD = c_MLK.unflatten(2, (B, 2 * D)).transpose(0, 1).reshape(L, M * B, 2 * D)
        c_LKD = torch.bmm(c_LKD, self._mix_LDD())
        # and back
        c_MLK = c_LKD.unflatten(1, (M, B)).transpose(0, 1).reshape(M, L, B * 2 * D)
        c_MhK = torch.bmm(self.synthesis, c_MLK)
        c_BhKD = c_MhK.unflatten(2, (B, 2, D)).permute(2, 1, 0, 3, 4).reshape(B, h, M * 2, D)
        y_BDhw = torch.matmul(self.waves, c_BhKD).permute(0, 3, 1, 2)
        return x_BDhw + self.scale[:, None, None] * F.gelu(y_BDhw)

    def _mix_LDD(self) -> Tensor:
        """Return a real matrix for every degree that multiplies (real, imaginary) parts by its complex one."""
        real_LDD, imaginary_LDD = torch.stack([linear.weight for linear in self.mix]).mT.chunk(2, dim=2)
        rows = (real_LDD, imaginary_LDD), (-imaginary_LDD, real_LDD)
        return torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)
