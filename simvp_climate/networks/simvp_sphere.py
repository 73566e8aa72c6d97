"""SimVPv2's design developed further for fields on the sphere: more skill for the same computation.

As in SimVPv2 (see simvp_v2.py) an encoder halves the grid, a translator of gated blocks mixes space, time and channels
of all states of a window together, and a decoder returns to the full grid with a skip connection. docs/how-it-works.md
lists what differs, and docs/ablation.md what each difference is worth.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, K channel of a window, S channel on
the full grid, D channel of the translator, H latitude, W longitude; h and w are H and W halved.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvp_climate.networks.layers import PaddedConv, check_inputs, check_integer, check_padding, run_module
from simvp_climate.networks.noise import layer_without_effect, modulate, take_noise
from simvp_climate.networks.shape import NetworkShape
from simvp_climate.networks.spectral import SpectralBlock


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
    spectral_blocks
        Blocks that mix the spherical harmonics of the whole globe, spread evenly among the gated ones. `None`: one, but
        none with `padding="zeros"`, and none if `train` finds a grid that does not cover the globe.
    position_field
        Add a learned value for every channel and cell of the halved grid to the input of the translator. It tells the
        network where on the globe a cell lies: coasts, mountains, the equator.
    noise
        Random numbers per cell of the halved grid that every call takes in, for ensembles (`TrainConfig(loss="crps")`);
        with 0 the network is deterministic.
    padding
        How convolutions pad the edges of the grid, as in `SimVPv2Config`.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    hidden_space: int = 32
    hidden_time: int = 64
    blocks: int = 6
    spectral_blocks: int | None = None
    position_field: bool = True
    noise: int = 0
    padding: str = "auto"

    def __post_init__(self) -> None:
        for name in ("hidden_space", "hidden_time", "blocks"):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), 1))
        object.__setattr__(self, "noise", check_integer("noise", self.noise, 0))
        if not isinstance(self.position_field, bool):
            raise ValueError(f"position_field={self.position_field!r} must be True or False.")
        check_padding(self.padding)
        if self.spectral_blocks is None:
            if self.padding != "auto":
                object.__setattr__(self, "spectral_blocks", 0 if self.padding == "zeros" else 1)
            return
        object.__setattr__(self, "spectral_blocks", check_integer("spectral_blocks", self.spectral_blocks, 0))
        if self.spectral_blocks and self.padding == "zeros":
            rule = f"spectral_blocks={self.spectral_blocks} needs a grid around the globe"
            raise ValueError(f"{rule}, and padding='zeros' is for regional grids: set spectral_blocks=0.")

    @staticmethod
    def small() -> "SimVPSphereConfig":
        """Return the default: 0.7 M parameters for five variables on 32 x 64 cells, for a CPU; costs: docs/speed.md."""
        return SimVPSphereConfig()

    @staticmethod
    def medium() -> "SimVPSphereConfig":
        """Return a network of 3.1 M parameters for five variables on 32 x 64 cells."""
        return SimVPSphereConfig(hidden_space=48, hidden_time=128, blocks=8)

    @staticmethod
    def large() -> "SimVPSphereConfig":
        """Return a network of 15 M parameters for five variables on 32 x 64 cells, for a GPU."""
        return SimVPSphereConfig(hidden_space=64, hidden_time=256, blocks=10)


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
            fix = "set padding='periodic' for a global grid, padding='zeros' for a regional one"
            raise ValueError(f"padding='auto' is resolved by train() from the grid. To build the network alone, {fix}.")
        self.config, self.grid = config, shape.grid
        self.history, self.channels, self.forcings = shape.history, shape.channels, shape.forcings
        self.output_channels, self.shared_channels = shape.output_channels, shape.shared_channels
        self.activation_checkpointing = False
        S, D, padding = config.hidden_space, config.hidden_time, config.padding
        inputs = self.history * (self.channels + self.forcings)
        self.encoder = PaddedConv(inputs, D, 3, padding, stride=2)
        self.skip = PaddedConv(inputs, S, 3, padding)
        half = -(-shape.grid[0] // 2), -(-shape.grid[1] // 2)
        position_Dhw = nn.Parameter(torch.zeros(D, *half)) if config.position_field else None
        self.register_parameter("position_Dhw", position_Dhw)
        self.translator = Translator(config, half)
        self.noise_grid = (config.noise, *half) if config.noise else None
        if config.noise:
            self.noise_field = layer_without_effect(nn.Conv2d, config.noise, D, 1)
        self.decoder = nn.Conv2d(D, 4 * S, 1)
        self.readout = PaddedConv(S, self.history * self.output_channels, 3, padding)
        # training sets them: the typical change per lead and channel, and the mean state, all normalized
        self.register_buffer("change_scale_TC", torch.ones(self.history, self.shared_channels))
        self.register_buffer("mean_field_CHW", torch.zeros(self.channels, *shape.grid))

    def forward(
        self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None, noise_BNhw: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Return the next `history` states, (B, T, output channels, H, W), given the forcings of the input states.

        A network with noise draws it from a standard normal distribution, or takes `noise_BNhw`.
        """
        check_inputs(self, x_BTCHW, f_BTFHW)
        if x_BTCHW.shape[-2:] != self.grid:
            raise ValueError(f"Input on a grid of {tuple(x_BTCHW.shape[-2:])}: the network is for one of {self.grid}.")
        T, (H, W) = self.history, x_BTCHW.shape[-2:]
        anomalies_BTCHW = x_BTCHW - self.mean_field_CHW
        inputs_BTCHW = anomalies_BTCHW if f_BTFHW is None else torch.cat([anomalies_BTCHW, f_BTFHW], dim=2)
        # channels of the input: all times of the first channel, then of the second
        x_BKHW = inputs_BTCHW.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        z_BDhw = self.encoder(x_BKHW)
        if self.position_Dhw is not None:
            z_BDhw = z_BDhw + self.position_Dhw
        noise_BN = None
        if self.noise_grid is not None:
            noise_BNhw, noise_BN = take_noise(self.noise_grid, noise_BNhw, x_BTCHW.shape[0], x_BTCHW.device)
            z_BDhw = z_BDhw + self.noise_field(noise_BNhw)
        z_BDhw = self.translator(z_BDhw, noise_BN, self.activation_checkpointing and self.training)
        z_BSHW = F.pixel_shuffle(self.decoder(z_BDhw), 2)[..., :H, :W]
        z_BSHW = F.gelu(z_BSHW + self.skip(x_BKHW))
        # as for the input, all leads of the first channel come first
        y_BTCHW = self.readout(z_BSHW).unflatten(1, (self.output_channels, T)).transpose(1, 2)
        shared = self.shared_channels
        changed_BTCHW = x_BTCHW[:, -1:, :shared] + y_BTCHW[:, :, :shared] * self.change_scale_TC[:, :, None, None]
        if shared == self.output_channels:
            return changed_BTCHW
        return torch.cat([changed_BTCHW, y_BTCHW[:, :, shared:]], dim=2)


class Translator(nn.Module):
    """Gated and spectral blocks on the halved grid, over all states of a window together."""

    def __init__(self, config: SimVPSphereConfig, grid: tuple[int, int]):
        super().__init__()
        width, noise, count = config.hidden_time, config.noise, config.spectral_blocks or 0
        self.blocks = nn.ModuleList(GatedBlock(width, config.padding, noise) for _ in range(config.blocks))
        self.spectral_blocks = nn.ModuleList(SpectralBlock(width, *grid, noise) for _ in range(count))
        # a list of their own, and this for each: the number of gated blocks before it
        self.positions = [round((index + 1) * config.blocks / (count + 1)) for index in range(count)]

    def forward(self, z_BDhw: Tensor, noise_BN: Tensor | None, checkpointing: bool) -> Tensor:
        noise = () if noise_BN is None else (noise_BN,)
        for block in self._in_order():
            z_BDhw = run_module(block, checkpointing, z_BDhw, *noise)
        return z_BDhw

    def _in_order(self) -> list[nn.Module]:
        """Return all blocks, from the first to the last."""
        places = [(index, 1, block) for index, block in enumerate(self.blocks)]
        places += [(position, 0, block) for position, block in zip(self.positions, self.spectral_blocks, strict=True)]
        return [block for *_, block in sorted(places, key=lambda place: place[:2])]


class GatedBlock(nn.Module):
    """A residual block without norms: x + scale * mix(value * sigmoid(gate)), with 3 x 3 convolutions for both."""

    def __init__(self, width: int, padding: str, noise: int = 0):
        super().__init__()
        # noise scales and shifts the input of the convolution, for all cells alike
        self.scale_and_shift = layer_without_effect(nn.Linear, noise, 2 * width) if noise else None
        self.value_and_gate = PaddedConv(width, 2 * width, 3, padding)
        self.mix = nn.Conv2d(width, width, 1)
        # small: at first every block nearly passes its input on, which makes norms dispensable (arXiv:2002.10444)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        for conv in (self.value_and_gate, self.mix):
            # normal with variance 2 / fan_in (He et al., arXiv:1502.01852)
            nn.init.normal_(conv.weight, std=math.sqrt(2 / (conv.in_channels * conv.kernel_size[0] ** 2)))
            nn.init.zeros_(conv.bias)

    def forward(self, x_BDhw: Tensor, noise_BN: Tensor | None = None) -> Tensor:
        input_BDhw = x_BDhw
        if noise_BN is not None:
            input_BDhw = modulate(self.scale_and_shift, x_BDhw, noise_BN)
        value_BDhw, gate_BDhw = self.value_and_gate(input_BDhw).chunk(2, dim=1)
        return x_BDhw + self.scale[:, None, None] * self.mix(value_BDhw * torch.sigmoid(gate_BDhw))
