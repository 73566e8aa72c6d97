"""SimVP: the predecessor of SimVPv2, with a U-shaped translator of grouped convolutions of several sizes.

Architecture after Z. Gao, C. Tan, L. Wu and S. Z. Li, "SimVP: Simpler yet Better Video Prediction"
(arXiv:2206.05099), as built in OpenSTL ("IncepU"): encoder and decoder are those of `networks.simvp_v2`, the
decoder's last layer gets the first encoded states by addition. Here because the claims made for SimVPv2 are
relative to it.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, S hidden channel of space,
D channel of the translator, H latitude, W longitude; h and w are H and W after downsampling; N stands for
B * T.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvp_climate.networks.simvp_v2 import SpaceLayer

KERNELS = (3, 5, 7, 11)


@dataclass(frozen=True)
class SimVPv1Config:
    """The size of a SimVP; the paper's names in brackets.

    Parameters
    ----------
    hidden_space
        Channels of the encoder and the decoder (hid_S), even.
    hidden_time
        Channels of the translator (hid_T). Where half of them are a multiple of 8, its convolutions work in 8
        groups, else in one.
    spatial_layers
        Convolutions of the encoder and of the decoder (N_S), even; every second one halves the grid.
    blocks
        Inception blocks on the way down the translator, and again on the way up (N_T), at least 2.
    """

    hidden_space: int = 32
    hidden_time: int = 256
    spatial_layers: int = 2
    blocks: int = 8

    def __post_init__(self) -> None:
        for name, multiple in (("hidden_space", 2), ("hidden_time", 1), ("spatial_layers", 2), ("blocks", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 2 or value % multiple:
                even = "an even" if multiple == 2 else "a"
                raise ValueError(f"{name}={value!r} must be {even} whole number of at least 2")
        if self.hidden_time % self.groups:
            raise ValueError(
                f"hidden_time={self.hidden_time} makes {self.groups} groups, which do not divide it: take "
                f"{self.hidden_time - 1}"
            )

    @property
    def groups(self) -> int:
        """Groups of the translator's convolutions and of its norms."""
        return 1 if self.hidden_time // 2 % 8 else 8


class SimVPv1(nn.Module):
    """The network: (batch, history, channels, latitude, longitude) to the same number of later states.

    Any grid size is taken: halves are rounded up, and what a doubling makes too much is cropped again. Beyond the edges
    of the grid lie zeros, and the states are predicted, not their change, as published.

    Parameters
    ----------
    config
        The size.
    history
        Number of states in, and out.
    channels
        Channels per state.
    forcings
        Channels of further inputs per state, which are not forecast. They enter the encoder beside the state. With
        0 the network is the published one.

    Raises
    ------
    ValueError
        If the translator's groups do not divide its input, history * hidden_space channels.
    """

    def __init__(self, config: SimVPv1Config, *, history: int, channels: int, forcings: int = 0):
        super().__init__()
        width, stack = config.hidden_space, history * config.hidden_space
        if stack % config.groups:
            raise ValueError(
                f"history={history} states of hidden_space={width} channels are {stack} channels, which the "
                f"{config.groups} groups of hidden_time={config.hidden_time} do not divide: take a hidden_space that "
                "is a multiple of 8, or a hidden_time that is not a multiple of 16"
            )
        self.config, self.history, self.channels, self.forcings = config, history, channels, forcings
        # every second layer changes the resolution, counted from the coarse end in the decoder
        halves = [layer % 2 == 1 for layer in range(config.spatial_layers)]
        self.encoder = nn.ModuleList(
            SpaceLayer(channels + forcings if layer == 0 else width, width, "zeros", stride=2 if half else 1)
            for layer, half in enumerate(halves)
        )
        self.translator = InceptionTranslator(stack, config)
        self.decoder = nn.ModuleList(SpaceLayer(width, width, "zeros", upsample=half) for half in reversed(halves))
        self.readout = nn.Conv2d(width, channels, 1)

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        """Return the next `history` states, shape as the input; give `f_BTFHW` if the network has forcings."""
        B, T, C, H, W = x_BTCHW.shape
        if (self.history, self.channels) != (T, C):
            raise ValueError(
                f"input of shape {tuple(x_BTCHW.shape)}: dimensions 1 and 2 must be history={self.history} and "
                f"channels={self.channels}"
            )
        given = (B, T, 0, H, W) if f_BTFHW is None else tuple(f_BTFHW.shape)
        if given != (B, T, self.forcings, H, W):
            raise ValueError(
                f"forcings of shape {given} beside an input of shape {tuple(x_BTCHW.shape)}: the network was built "
                f"with forcings={self.forcings}, so they must have the shape {(B, T, self.forcings, H, W)}"
            )
        inputs_BTCHW = x_BTCHW if f_BTFHW is None else torch.cat([x_BTCHW, f_BTFHW], dim=2)
        z_NSHW, sizes = inputs_BTCHW.flatten(0, 1), []
        for layer in self.encoder:
            sizes.append(z_NSHW.shape[-2:])
            z_NSHW = layer(z_NSHW)
            if len(sizes) == 1:
                skip_NSHW = z_NSHW
        z_BDhw = z_NSHW.reshape(B, -1, *z_NSHW.shape[-2:])  # time-major: all channels of the first state first
        z_NSHW = self.translator(z_BDhw).reshape(z_NSHW.shape)
        for layer in self.decoder[:-1]:
            z_NSHW = layer(z_NSHW, sizes.pop())
        return self.readout(self.decoder[-1](z_NSHW + skip_NSHW)).reshape(x_BTCHW.shape)


class InceptionTranslator(nn.Module):
    """Inception blocks down and up; those up also get the outputs of those down, the latest first."""

    def __init__(self, stack: int, config: SimVPv1Config):
        super().__init__()
        hidden, last = config.hidden_time, config.blocks - 1
        self.down = nn.ModuleList(
            Inception(stack if block == 0 else hidden, hidden, config) for block in range(config.blocks)
        )
        self.up = nn.ModuleList(
            Inception(hidden if block == 0 else 2 * hidden, stack if block == last else hidden, config)
            for block in range(config.blocks)
        )

    def forward(self, z_BDhw: Tensor) -> Tensor:
        skips = []
        for block in self.down[:-1]:
            z_BDhw = block(z_BDhw)
            skips.append(z_BDhw)
        z_BDhw = self.up[0](self.down[-1](z_BDhw))
        for block in self.up[1:]:
            z_BDhw = block(torch.cat([z_BDhw, skips.pop()], dim=1))
        return z_BDhw


class Inception(nn.Module):
    """A narrow layer, then the sum of branches of different kernel sizes; nothing is added to the input."""

    def __init__(self, inputs: int, outputs: int, config: SimVPv1Config):
        super().__init__()
        narrow = config.hidden_time // 2
        self.narrow = nn.Conv2d(inputs, narrow, 1)
        self.branches = nn.ModuleList(Branch(narrow, outputs, kernel, config.groups) for kernel in KERNELS)

    def forward(self, z_BDhw: Tensor) -> Tensor:
        z_BDhw = self.narrow(z_BDhw)
        return sum(branch(z_BDhw) for branch in self.branches)


class Branch(nn.Module):
    """Grouped convolution, group norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, z_BDhw: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(z_BDhw)), 0.2)
