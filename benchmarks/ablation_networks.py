"""The default network with one part changed, for `ablation.py`: each function builds one from a `sc.NetworkShape`.

Shape suffixes: B batch, T time, C channel, F forcing, K channel of a window, D channel of the translator, S hidden
channel of one state, H latitude, W longitude; h and w are H and W halved; N stands for B * T.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvp_climate import NetworkShape, SimVPSphereConfig
from simvp_climate.networks.layers import PaddedConv
from simvp_climate.networks.simvp_sphere import GatedBlock, SimVPSphere
from simvp_climate.networks.simvp_v2 import GatedAttentionBlock

# the default network before it had a spectral block
CONFIG = SimVPSphereConfig(padding="periodic", blocks=8, spectral_blocks=0)


def default(shape: NetworkShape) -> nn.Module:
    return SimVPSphere(CONFIG, shape)


def without_mean_field(shape: NetworkShape) -> nn.Module:
    """Return the network with the states themselves as input, not their anomalies."""
    return _WithoutMeanField(CONFIG, shape)


def without_skip(shape: NetworkShape) -> nn.Module:
    """Return the network without a path around the translator on the full grid."""
    network = SimVPSphere(CONFIG, shape)
    network.skip = _Zeros()
    return network


def with_changes_of_state(shape: NetworkShape) -> nn.Module:
    """Return the network with the changes from state to state as inputs too."""
    return _WithChanges(CONFIG, shape)


def encoding_each_state_alone(shape: NetworkShape) -> nn.Module:
    """Return the network with an encoder of two layers for each state, as in SimVPv2, and a 1 x 1 mix of all states."""
    network = SimVPSphere(CONFIG, shape)
    network.encoder = _EachStateAlone(shape, CONFIG.hidden_space, CONFIG.hidden_time)
    return network


def with_blocks(block: Callable[[], nn.Module], count: int = CONFIG.blocks) -> Callable[[NetworkShape], nn.Module]:
    """Return a function that builds the network with other blocks in the translator."""

    def build(shape: NetworkShape) -> nn.Module:
        network = SimVPSphere(CONFIG, shape)
        network.translator.blocks = nn.ModuleList(block() for _ in range(count))
        return network

    return build


def with_small_scales(shape: NetworkShape) -> nn.Module:
    """Return the network with blocks that add a hundredth of their output at first, not a tenth."""
    network = SimVPSphere(CONFIG, shape)
    for block in network.translator.blocks:
        nn.init.constant_(block.scale, 0.01)
    return network


def with_batch_norm() -> nn.Module:
    """Return a gated block with batch norm of its input."""
    return _NormedBlock(CONFIG.hidden_time)


def plain_block() -> nn.Module:
    """Return a residual block of two dense 3 x 3 convolutions without gates."""
    return _PlainBlock(CONFIG.hidden_time)


def attention_block() -> nn.Module:
    """Return SimVPv2's block, but with channels mixed at four times the width, not eight."""
    return _AttentionBlock(CONFIG.hidden_time, 4.0, 0.0, "periodic")


def with_wind_signs(shape: NetworkShape) -> nn.Module:
    """Return the network with sphere padding that changes the sign of both wind components beyond a pole.

    For `ablation.FIVE_VARIABLES`, whose last two are the components. Later layers pad features, which have no sign.
    """
    config = replace(CONFIG, padding="sphere")
    network = SimVPSphere(config, shape)
    inputs = shape.history * shape.channels
    network.encoder = _WindConv(inputs, config.hidden_time, 3, "sphere", stride=2)
    network.skip = _WindConv(inputs, config.hidden_space, 3, "sphere")
    return network


# ---- parts


class _WindConv(PaddedConv):
    def pad(self, x_BKHW: Tensor) -> Tensor:
        padded_BKHW = super().pad(x_BKHW)
        signs_KH1 = padded_BKHW.new_ones(padded_BKHW.shape[1:3])[:, :, None]
        winds = slice(-2 * (x_BKHW.shape[1] // 5), None)  # all times of a variable are adjacent
        signs_KH1[winds, : self.pad_width] = -1
        signs_KH1[winds, -self.pad_width :] = -1
        return padded_BKHW * signs_KH1


class _WithoutMeanField(SimVPSphere):
    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        self.mean_field_CHW.zero_()
        return super().forward(x_BTCHW, f_BTFHW)


class _WithChanges(SimVPSphere):
    """The changes take the place of forcings, which this network cannot have."""

    def __init__(self, config: SimVPSphereConfig, shape: NetworkShape):
        super().__init__(config, shape)
        channels = shape.history * 2 * shape.channels
        self.encoder = PaddedConv(channels, config.hidden_time, 3, config.padding, stride=2)
        self.skip = PaddedConv(channels, config.hidden_space, 3, config.padding)

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        first_BTCHW = x_BTCHW[:, 1:2] - x_BTCHW[:, :1]  # the first state has none before it
        changes_BTCHW = torch.cat([first_BTCHW, x_BTCHW[:, 1:] - x_BTCHW[:, :-1]], dim=1)
        changes_BTCHW = changes_BTCHW / self.change_scale_TC[0, :, None, None]
        self.forcings = self.channels
        try:
            return super().forward(x_BTCHW, changes_BTCHW)
        finally:
            self.forcings = 0


class _Zeros(nn.Module):
    def forward(self, x_BKHW: Tensor) -> Tensor:
        return x_BKHW.new_zeros(())


class _EachStateAlone(nn.Module):
    def __init__(self, shape: NetworkShape, hidden: int, width: int):
        super().__init__()
        self.history = shape.history
        channels = shape.channels + shape.forcings
        self.first = PaddedConv(channels, hidden, 3, CONFIG.padding)
        self.second = PaddedConv(hidden, hidden, 3, CONFIG.padding, stride=2)
        self.mix = nn.Conv2d(shape.history * hidden, width, 1)

    def forward(self, x_BKHW: Tensor) -> Tensor:
        # the channels of a window: all times of the first channel, then of the second
        x_NCHW = x_BKHW.unflatten(1, (-1, self.history)).transpose(1, 2).flatten(0, 1)
        z_NShw = F.gelu(self.second(F.gelu(self.first(x_NCHW))))
        return self.mix(z_NShw.unflatten(0, (-1, self.history)).flatten(1, 2))


class _NormedBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.block = nn.BatchNorm2d(width), GatedBlock(width, CONFIG.padding)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        normed_BDhw = self.norm(x_BDhw)
        return x_BDhw + self.block(normed_BDhw) - normed_BDhw  # the block adds its input


class _AttentionBlock(GatedAttentionBlock):
    def forward(self, x_BDhw: Tensor) -> Tensor:
        return super().forward(x_BDhw, False)


class _PlainBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = PaddedConv(width, width, 3, CONFIG.padding)
        self.second = PaddedConv(width, width, 3, CONFIG.padding)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return x_BDhw + self.scale[:, None, None] * self.second(F.gelu(self.first(x_BDhw)))
