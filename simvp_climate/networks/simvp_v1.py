"""SimVP: the predecessor of SimVPv2, with a U-shaped translator of grouped convolutions of several sizes.

Architecture after Z. Gao, C. Tan, L. Wu and S. Z. Li, "SimVP: Simpler yet Better Video Prediction"
(arXiv:2206.05099), as built in OpenSTL ("IncepU"): the baseline of the SimVPv2 paper. Encoder and decoder are those of
SimVPv2, and shape suffixes as in `simvp_v2`.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simvp_climate.networks.layers import check_inputs, check_integer
from simvp_climate.networks.simvp_v2 import build_decoder, build_encoder, decode, encode

KERNEL_SIZES = (3, 5, 7, 11)


@dataclass(frozen=True)
class SimVPv1Config:
    """Settings of a SimVP: as in `SimVPv2Config`, with at least two inception blocks on the way down and on the way up.

    Convolutions of the translator have 8 groups if half of `hidden_time` is a multiple of 8, otherwise one group, and
    the groups must divide `hidden_time`.
    """

    hidden_space: int = 32
    hidden_time: int = 256
    spatial_layers: int = 2
    blocks: int = 8

    def __post_init__(self) -> None:
        for name, multiple in (("hidden_space", 2), ("hidden_time", 1), ("spatial_layers", 2), ("blocks", 1)):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), 2, multiple))
        if self.hidden_time % self.groups:
            fix = f"Set hidden_time={self.hidden_time - 1}."
            raise ValueError(f"hidden_time={self.hidden_time} must be a multiple of its {self.groups} groups. {fix}")

    @property
    def groups(self) -> int:
        """Number of groups of the translator's convolutions and group norms."""
        return 1 if self.hidden_time // 2 % 8 else 8


class SimVPv1(nn.Module):
    """The network: maps `history` states to the `history` states that follow.

    It takes grids of any size, pads with zeros, and predicts states, as published. `forcings` are channels per input
    state, which the encoder gets with the state; 0 gives the published network.
    """

    def __init__(self, config: SimVPv1Config, *, history: int, channels: int, forcings: int = 0):
        super().__init__()
        stack = history * config.hidden_space
        if stack % config.groups:
            rule = f"must be a multiple of the {config.groups} groups of hidden_time={config.hidden_time}"
            fix = "Set hidden_space to a multiple of 8."
            raise ValueError(f"history={history} times hidden_space={config.hidden_space} {rule}. {fix}")
        self.config, self.history, self.channels, self.forcings = config, history, channels, forcings
        self.encoder = build_encoder(channels + forcings, config.hidden_space, config.spatial_layers, "zeros")
        self.translator = InceptionTranslator(stack, config)
        self.decoder = build_decoder(config.hidden_space, config.spatial_layers, "zeros")
        self.readout = nn.Conv2d(config.hidden_space, channels, 1)

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        """Return the next `history` states, in the shape of the input, given the forcings of the input states."""
        check_inputs(self, x_BTCHW, f_BTFHW)
        inputs_BTCHW = x_BTCHW if f_BTFHW is None else torch.cat([x_BTCHW, f_BTFHW], dim=2)
        z_NShw, skip_NSHW, sizes = encode(self.encoder, inputs_BTCHW.flatten(0, 1))
        # stack the states along the channels, all channels of the first state first
        z_BDhw = z_NShw.reshape(len(x_BTCHW), -1, *z_NShw.shape[-2:])
        z_NShw = self.translator(z_BDhw).reshape(z_NShw.shape)
        z_NSHW = decode(self.decoder, z_NShw, skip_NSHW, sizes)
        return self.readout(z_NSHW).reshape(x_BTCHW.shape)


class InceptionTranslator(nn.Module):
    """A U of inception blocks with skip connections (OpenSTL's MidIncepNet)."""

    def __init__(self, stack: int, config: SimVPv1Config):
        super().__init__()
        hidden, last = config.hidden_time, config.blocks - 1
        self.down = nn.ModuleList(
            InceptionBlock(stack if block == 0 else hidden, hidden, config) for block in range(config.blocks)
        )
        self.up = nn.ModuleList(
            InceptionBlock(hidden if block == 0 else 2 * hidden, stack if block == last else hidden, config)
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


class InceptionBlock(nn.Module):
    """A 1 x 1 convolution, then the sum of branches with different kernel sizes, without a residual."""

    def __init__(self, inputs: int, outputs: int, config: SimVPv1Config):
        super().__init__()
        narrow = config.hidden_time // 2
        self.narrow = nn.Conv2d(inputs, narrow, 1)
        self.branches = nn.ModuleList()
        for size in KERNEL_SIZES:
            conv = nn.Conv2d(narrow, outputs, size, padding=size // 2, groups=config.groups)
            layers = {"conv": conv, "norm": nn.GroupNorm(config.groups, outputs), "activation": nn.LeakyReLU(0.2)}
            self.branches.append(nn.Sequential(OrderedDict(layers)))

    def forward(self, z_BDhw: Tensor) -> Tensor:
        z_BDhw = self.narrow(z_BDhw)
        return sum(branch(z_BDhw) for branch in self.branches)
