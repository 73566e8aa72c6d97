"""SimVPv2's design developed further for fields on the sphere: more skill for the same computation.

As in SimVPv2 (see simvp_v2.py) an encoder halves the grid, a translator of gated blocks mixes space, time and channels
of all states of a window together, and a decoder returns to the full grid with a skip connection. docs/how-it-works.md
lists what differs, and docs/ablation.md what each difference is worth.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, K input of a window, S channel on the
full grid, D channel of the translator, E twice as many, P position field, H latitude, W longitude; h and w are H and W
halved.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvp_climate.networks.layers import PaddedConv, check_inputs, check_integer, run_module
from simvp_climate.networks.padding import PADDING_MODES
from simvp_climate.networks.shape import NetworkShape


@dataclass(frozen=True)
class SimVPSphereConfig:
    """Settings of a SimVPSphere, the network that is trained by default.

    Parameters
    ----------
    hidden_space
        Channels on the full grid, in the skip connection from the input to the output.
    hidden_time
        Channels of the translator, on the halved grid.
    blocks
        Gated blocks of the translator.
    position_fields
        Learned fields on the halved grid, from which every block takes a scale and a shift of its input: they tell the
        network where on the globe a cell lies. 0 leaves them out.
    padding
        How convolutions pad the edges of the grid, as in `SimVPv2Config`.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    hidden_space: int = 16
    hidden_time: int = 64
    blocks: int = 8
    position_fields: int = 16
    padding: str = "auto"

    def __post_init__(self) -> None:
        minima = {"hidden_space": 1, "hidden_time": 1, "blocks": 1, "position_fields": 0}
        for name, minimum in minima.items():
            object.__setattr__(self, name, check_integer(name, getattr(self, name), minimum))
        if not isinstance(self.padding, str) or self.padding not in ("auto", *PADDING_MODES):
            raise ValueError(f"padding={self.padding!r} must be 'auto' or one of {PADDING_MODES}.")


class SimVPSphere(nn.Module):
    """The network: maps `history` states to the `history` states that follow, on the grid that it was built for.

    It predicts the change from the last input state for channels that are input and output, and the state for others.

    Parameters
    ----------
    config
        Settings; their padding must not be "auto".
    shape
        Numbers of states and channels, and the grid.
    """

    def __init__(self, config: SimVPSphereConfig, shape: NetworkShape):
        super().__init__()
        if config.padding == "auto":
            fix = "set padding='sphere' for a global grid, padding='zeros' for a regional one"
            raise ValueError(f"padding='auto' is resolved by train() from the grid. To build the network alone, {fix}.")
        self.config, self.grid = config, shape.grid
        self.history, self.channels, self.forcings = shape.history, shape.channels, shape.forcings
        self.output_channels, self.shared_channels = shape.output_channels, shape.shared_channels
        self.activation_checkpointing = False
        S, D, padding = config.hidden_space, config.hidden_time, config.padding
        # all states and forcings, then the changes from each state to the next
        inputs = self.history * (self.channels + self.forcings) + (self.history - 1) * self.shared_channels
        self.encoder = PaddedConv(inputs, D, 3, padding, stride=2)
        self.skip = PaddedConv(inputs, S, 3, padding)
        half = [-(-size // 2) for size in shape.grid]
        self.translator = Translator(config, half)
        self.decoder = nn.Conv2d(D, 4 * S, 1)
        self.readout = PaddedConv(S, self.history * self.output_channels, 3, padding)
        # training sets these: the typical change per lead and channel, and the mean field of each channel over time
        self.register_buffer("change_scale_TC", torch.ones(self.history, self.shared_channels))
        self.register_buffer("mean_field_CHW", torch.zeros(self.channels, *shape.grid))

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        """Return the next `history` states, (B, T, output channels, H, W), given the forcings of the input states."""
        check_inputs(self, x_BTCHW, f_BTFHW)
        if x_BTCHW.shape[-2:] != self.grid:
            raise ValueError(f"Input on a grid of {tuple(x_BTCHW.shape[-2:])}: the network is for one of {self.grid}.")
        T, (H, W) = self.history, x_BTCHW.shape[-2:]
        x_BKHW = self._stack(x_BTCHW, f_BTFHW)
        checkpointing = self.activation_checkpointing and self.training
        z_BDhw = self.translator(self.encoder(x_BKHW), checkpointing)
        z_BSHW = F.pixel_shuffle(self.decoder(z_BDhw), 2)[..., :H, :W]
        z_BSHW = F.gelu(z_BSHW + self.skip(x_BKHW))
        # channels of the readout: all leads of the first channel, then of the second
        y_BTCHW = self.readout(z_BSHW).unflatten(1, (self.output_channels, T)).transpose(1, 2)
        shared = self.shared_channels
        changed_BTCHW = x_BTCHW[:, -1:, :shared] + y_BTCHW[:, :, :shared] * self.change_scale_TC[:, :, None, None]
        if shared == self.output_channels:
            return changed_BTCHW
        return torch.cat([changed_BTCHW, y_BTCHW[:, :, shared:]], dim=2)

    def _stack(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None) -> Tensor:
        """Return all inputs of a window as channels: anomalies and forcings by channel and time, then changes."""
        anomalies_BTCHW = x_BTCHW - self.mean_field_CHW
        states = anomalies_BTCHW if f_BTFHW is None else torch.cat([anomalies_BTCHW, f_BTFHW], dim=2)
        stacked = [states.transpose(1, 2).flatten(1, 2)]
        if self.history > 1:
            shared_BTCHW = x_BTCHW[:, :, : self.shared_channels]
            # states differ little from one to the next: in units of the typical change they are as large as the states
            changes = (shared_BTCHW[:, 1:] - shared_BTCHW[:, :-1]) / self.change_scale_TC[0][:, None, None]
            stacked.append(changes.transpose(1, 2).flatten(1, 2))
        return torch.cat(stacked, dim=1).contiguous(memory_format=torch.channels_last)


class Translator(nn.Module):
    """Gated blocks on the halved grid, each with a scale and a shift from the position fields."""

    def __init__(self, config: SimVPSphereConfig, grid: list[int]):
        super().__init__()
        self.blocks = nn.ModuleList(GatedBlock(config) for _ in range(config.blocks))
        self.register_parameter("position_Phw", None)
        if config.position_fields:
            self.position_Phw = nn.Parameter(torch.randn(config.position_fields, *grid))

    def forward(self, z_BDhw: Tensor, checkpointing: bool) -> Tensor:
        for block in self.blocks:
            z_BDhw = run_module(block, checkpointing, z_BDhw, self.position_Phw)
        return z_BDhw


class GatedBlock(nn.Module):
    """A residual block without norms: x + scale * mix(value * sigmoid(gate)), both from a 3 x 3 convolution."""

    def __init__(self, config: SimVPSphereConfig):
        super().__init__()
        width, positions = config.hidden_time, config.position_fields
        self.value_and_gate = PaddedConv(width, 2 * width, 3, config.padding)
        self.mix = nn.Conv2d(width, width, 1)
        self.scale = nn.Parameter(torch.full((width,), 0.01))
        self.register_parameter("locate_EP", nn.Parameter(torch.zeros(2 * width, positions)) if positions else None)
        for conv in (self.value_and_gate, self.mix):
            # normal with variance 2 / fan_in (He et al., arXiv:1502.01852)
            nn.init.normal_(conv.weight, std=math.sqrt(2 / (conv.in_channels * conv.kernel_size[0] ** 2)))
            nn.init.zeros_(conv.bias)

    def forward(self, x_BDhw: Tensor, position_Phw: Tensor | None) -> Tensor:
        if position_Phw is not None:
            gain_Dhw, shift_Dhw = torch.einsum("ep,phw->ehw", self.locate_EP, position_Phw).chunk(2)
            x_BDhw = x_BDhw + x_BDhw * gain_Dhw + shift_Dhw
        value_BDhw, gate_BDhw = self.value_and_gate(x_BDhw).chunk(2, dim=1)
        return x_BDhw + self.scale[:, None, None] * self.mix(value_BDhw * torch.sigmoid(gate_BDhw))
