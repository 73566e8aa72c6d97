"""SimVPv2: a video prediction network of plain convolutions with gated spatiotemporal attention.

Architecture after C. Tan, Z. Gao, S. Li and S. Z. Li, "SimVPv2: Towards Simple yet Powerful Spatiotemporal
Predictive Learning" (arXiv:2211.12509), as built in OpenSTL ("gSTA",
https://github.com/chengtan9907/OpenSTL): the encoder works on each state alone, the translator on all encoded states
stacked along the channels, the decoder on each state alone.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, S hidden channel of encoder and
decoder, D channel of the translator, H latitude, W longitude; h and w are H and W after downsampling; N stands for
B * T, R for the random numbers of a cell.
"""

import math
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvp_climate.networks.depthwise import depthwise_conv2d
from simvp_climate.networks.layers import (
    MAX_CHANNELS,
    GroupNorm,
    PaddedConv,
    PixelShuffleConv,
    check_inputs,
    check_integer,
    check_padding,
    run_module,
)
from simvp_climate.networks.noise import layer_without_effect, modulate, take_noise


@dataclass(frozen=True)
class SimVPv2Config:
    """Settings of a SimVPv2; the paper's names in brackets.

    Parameters
    ----------
    hidden_space
        Channels of the encoder and the decoder (hid_S), even.
    hidden_time
        Channels of the translator (hid_T).
    spatial_layers
        Convolutions of the encoder and of the decoder (N_S), even; every second one halves the grid.
    blocks
        Attention blocks of the translator (N_T), at least 2.
    mlp_ratio
        Hidden channels of a block's channel mixing (MLP), as a multiple of its input channels.
    drop_path
        Probability to skip the last block for a sample in training (stochastic depth). For earlier blocks it decreases
        linearly, to 0.01 in the first.
    padding
        How convolutions pad the edges of the grid. "zeros" (as published). "periodic": longitude is periodic, rows
        beyond the poles are zeros. "sphere": rows beyond a pole come from the meridian 180 degrees away.
        "sphere_with_poles": the same for grids with rows on the poles. "auto": `train` chooses from the grid; it also
        turns "sphere" into "sphere_with_poles" where the grid has rows on the poles.
    predict
        "state" (as published), or "change": add the output to the last input state.
    noise
        Random numbers per cell of the coarsest grid that every call takes in, for ensembles
        (`TrainConfig(loss="crps")`); with 0 the network is deterministic, as published.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    hidden_space: int = 32
    hidden_time: int = 256
    spatial_layers: int = 2
    blocks: int = 8
    mlp_ratio: float = 8.0
    drop_path: float = 0.1
    padding: str = "auto"
    predict: str = "change"
    noise: int = 0

    def __post_init__(self) -> None:
        # convert numpy integers and floats to plain ones, which JSON can hold
        rules = {"hidden_space": (2, 2), "hidden_time": (1, 1), "spatial_layers": (2, 2), "blocks": (2, 1)}
        for name, (minimum, multiple) in rules.items():
            object.__setattr__(self, name, check_integer(name, getattr(self, name), minimum, multiple))
        object.__setattr__(self, "noise", check_integer("noise", self.noise, 0))
        for name in ("mlp_ratio", "drop_path"):
            if not _is_finite(value := getattr(self, name)):
                raise ValueError(f"{name}={value!r} must be a finite number.")
            object.__setattr__(self, name, float(value))
        if not 1 <= self.hidden_time * self.mlp_ratio < MAX_CHANNELS + 1:
            rule = f"must be from {1 / self.hidden_time:.3g} to {MAX_CHANNELS / self.hidden_time:.3g}"
            raise ValueError(f"mlp_ratio={self.mlp_ratio!r} {rule} with hidden_time={self.hidden_time}.")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path!r} must be at least 0 and below 1.")
        check_padding(self.padding)
        if not isinstance(self.predict, str) or self.predict not in ("change", "state"):
            raise ValueError(f"predict={self.predict!r} must be 'change' or 'state'.")

    @staticmethod
    def published() -> "SimVPv2Config":
        """Return the network of OpenSTL's t2m benchmark, with 12 states in and out: 12.8 M parameters."""
        return SimVPv2Config(padding="zeros", predict="state")


def _is_finite(value: object) -> bool:
    """Return whether a value is a finite number that a float can hold."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False


class SimVPv2(nn.Module):
    """The network: maps `history` states to the `history` states that follow, on grids of any size.

    With the attribute `activation_checkpointing` set to True, training recomputes activations inside blocks and layers
    in the backward pass: less memory, more time, the same numbers.

    Parameters
    ----------
    config
        Settings; their padding must not be "auto".
    history
        Number of input states, and of output states.
    channels
        Input channels per state.
    forcings
        Forcing channels (insolation, orography) per input state. The encoder reads them with the state. 0 gives the
        published network.
    output_channels
        Output channels per state; by default as many as input channels.
    shared_channels
        Number of leading channels that are both input and output. A predicted change is added to these, and a rollout
        feeds them back. By default as many as possible.
    grid
        Latitudes and longitudes, for a network with noise. Without noise a network takes any grid.

    Raises
    ------
    ValueError
        If the padding is "auto", a count is out of range, there are more shared channels than channels, or there is
        noise without a grid.
    """

    def __init__(
        self, config: SimVPv2Config, *, history: int, channels: int, forcings: int = 0,
        output_channels: int | None = None, shared_channels: int | None = None,
        grid: tuple[int, int] | None = None,
    ):  # fmt: skip
        super().__init__()
        if config.padding == "auto":
            fix = "set padding='sphere' for a global grid, padding='zeros' for a regional one"
            raise ValueError(f"padding='auto' is resolved by train() from the grid. To build the network alone, {fix}.")
        self.config = config
        self.history = check_integer("history", history, 1)
        self.channels = check_integer("channels", channels, 1)
        self.forcings = check_integer("forcings", forcings, 0)
        output_channels = channels if output_channels is None else output_channels
        self.output_channels = check_integer("output_channels", output_channels, 1)
        self.shared_channels = min(channels, output_channels) if shared_channels is None else shared_channels
        if not 0 <= self.shared_channels <= min(channels, output_channels):
            limit = f"the smaller of channels={channels} and output_channels={output_channels}"
            raise ValueError(f"shared_channels={shared_channels} must be from 0 to {limit}.")
        stack = history * config.hidden_space
        if not 1 <= stack * config.mlp_ratio < MAX_CHANNELS + 1:
            rule = f"must be from {1 / stack:.3g} to {MAX_CHANNELS / stack:.3g}"
            given = f"history={history} and hidden_space={config.hidden_space}"
            raise ValueError(f"mlp_ratio={config.mlp_ratio:g} {rule} with {given}.")
        self.activation_checkpointing = False
        self.encoder = build_encoder(channels + forcings, config.hidden_space, config.spatial_layers, config.padding)
        self.translator = Translator(stack, config)
        self.noise_grid = None
        if config.noise:
            if grid is None:
                rule = f"noise={config.noise} needs the sizes of the grid"
                raise ValueError(f"{rule}: SimVPv2(..., grid=(latitudes, longitudes)).")
            factor = 2 ** (config.spatial_layers // 2)
            self.noise_grid = config.noise, -(-grid[0] // factor), -(-grid[1] // factor)
            self.noise_field = layer_without_effect(nn.Conv2d, config.noise, stack, 1)
        self.decoder = build_decoder(config.hidden_space, config.spatial_layers, config.padding)
        self.readout = nn.Conv2d(config.hidden_space, output_channels, 1)
        # multiplies the predicted change; training sets it to the typical change per lead and channel
        self.register_buffer("change_scale_TC", torch.ones(history, self.shared_channels))

    def forward(
        self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None, noise_BRhw: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Return the next `history` states, (B, T, output channels, H, W), given the forcings of the input states.

        A network with noise draws it from a standard normal distribution, or takes `noise_BRhw`.
        """
        check_inputs(self, x_BTCHW, f_BTFHW)
        B, T, _, H, W = x_BTCHW.shape
        inputs_BTCHW = x_BTCHW if f_BTFHW is None else torch.cat([x_BTCHW, f_BTFHW], dim=2)
        checkpointing = self.activation_checkpointing and self.training
        z_NShw, skip_NSHW, sizes = encode(self.encoder, inputs_BTCHW.flatten(0, 1), checkpointing)
        z_BDhw, noise_BR = _stack_states(z_NShw, B), None
        if self.noise_grid is not None:
            noise_BRhw, noise_BR = take_noise(self.noise_grid, noise_BRhw, B, x_BTCHW.device)
            z_BDhw = z_BDhw + self.noise_field(noise_BRhw)
        z_NShw = _unstack_states(self.translator(z_BDhw, checkpointing, noise_BR), T)
        z_NSHW = decode(self.decoder, z_NShw, skip_NSHW, sizes, checkpointing)
        y_BTCHW = self.readout(z_NSHW).reshape(B, T, self.output_channels, H, W)
        if self.config.predict == "state":
            return y_BTCHW
        # y = last input + scale * output for shared channels; the network predicts the other channels as states
        shared = self.shared_channels
        changed_BTCHW = x_BTCHW[:, -1:, :shared] + y_BTCHW[:, :, :shared] * self.change_scale_TC[:, :, None, None]
        if shared == self.output_channels:
            return changed_BTCHW
        return torch.cat([changed_BTCHW, y_BTCHW[:, :, shared:]], dim=2)


# ---- encoder and decoder, on each state alone


def build_encoder(channels: int, hidden: int, layers: int, padding: str) -> nn.ModuleList:
    """Return the layers of an encoder; every second one halves the grid."""
    return nn.ModuleList(
        ConvLayer(hidden if layer else channels, hidden, padding, stride=2 if layer % 2 else 1)
        for layer in range(layers)
    )


def build_decoder(hidden: int, layers: int, padding: str) -> nn.ModuleList:
    """Return the layers of a decoder, which mirror those of the encoder: the first one doubles the grid."""
    return nn.ModuleList(ConvLayer(hidden, hidden, padding, upsample=layer % 2 == 0) for layer in range(layers))


def encode(
    layers: nn.ModuleList, x_NCHW: Tensor, checkpointing: bool = False
) -> tuple[Tensor, Tensor, list[torch.Size]]:
    """Return encoded states, the output of the first layer (the skip connection), and the input grid of each layer."""
    sizes = [x_NCHW.shape[-2:]]
    z_NSHW = skip_NSHW = run_module(layers[0], checkpointing, x_NCHW)
    for layer in layers[1:]:
        sizes.append(z_NSHW.shape[-2:])
        z_NSHW = run_module(layer, checkpointing, z_NSHW)
    return z_NSHW, skip_NSHW, sizes


def decode(
    layers: nn.ModuleList, z_NShw: Tensor, skip_NSHW: Tensor, sizes: list[torch.Size], checkpointing: bool = False
) -> Tensor:
    """Return decoded states; each layer restores the grid size of its counterpart in the encoder."""
    for layer, size in zip(layers[:-1], reversed(sizes[1:]), strict=True):
        z_NShw = run_module(layer, checkpointing, z_NShw, size)
    return run_module(layers[-1], checkpointing, z_NShw + skip_NSHW)  # the sum is OpenSTL's skip connection


class ConvLayer(nn.Module):
    """Convolution, group norm, SiLU (OpenSTL's ConvSC); halves the grid with `stride=2`, doubles it with `upsample`."""

    def __init__(self, inputs: int, outputs: int, padding: str, *, stride: int = 1, upsample: bool = False):
        super().__init__()
        if upsample:
            self.conv = PixelShuffleConv(inputs, outputs, 3, padding)
        else:
            self.conv = PaddedConv(inputs, outputs, 3, padding, stride=stride)
        self.norm = GroupNorm(2, outputs)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x_NSHW: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return fields, cropped to `size` (rows, columns) if given."""
        y_NSHW = self.conv(x_NSHW)
        if size is not None and size != y_NSHW.shape[-2:]:
            # make it contiguous once, because every operation on a cropped view would copy it
            y_NSHW = y_NSHW[..., : size[0], : size[1]].contiguous(memory_format=torch.channels_last)
        return F.silu(self.norm(y_NSHW))


# ---- translator, on all states of a window together


class Translator(nn.Module):
    """Attention blocks over the stacked states (OpenSTL's MidMetaNet); after the first with `hidden_time` channels."""

    def __init__(self, stack: int, config: SimVPv2Config):
        super().__init__()
        hidden, blocks = config.hidden_time, config.blocks
        # as in OpenSTL, the probability grows linearly with depth from 0.01; unlike in OpenSTL, drop_path=0 drops none
        drop_paths = torch.linspace(min(0.01, config.drop_path), config.drop_path, blocks, device="cpu").tolist()
        widths = [stack] + [hidden] * (blocks - 1)
        self.blocks = nn.ModuleList(
            GatedAttentionBlock(width, config.mlp_ratio, drop_path, config.padding, config.noise)
            for width, drop_path in zip(widths, drop_paths, strict=True)
        )
        self.narrow = nn.Conv2d(stack, hidden, 1) if stack != hidden else nn.Identity()
        self.widen = nn.Conv2d(hidden, stack, 1) if stack != hidden else nn.Identity()

    def forward(self, z_BDhw: Tensor, checkpointing: bool, noise_BR: Tensor | None = None) -> Tensor:
        z_BDhw = self.narrow(self.blocks[0](z_BDhw, checkpointing, noise_BR))
        for block in self.blocks[1:]:
            z_BDhw = block(z_BDhw, checkpointing, noise_BR)
        return self.widen(z_BDhw)


class GatedAttentionBlock(nn.Module):
    """Gated spatiotemporal attention, then mixing of the channels, both with a residual (OpenSTL's GASubBlock)."""

    def __init__(self, width: int, mlp_ratio: float, drop_path: float, padding: str, noise: int = 0):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.drop_path = drop_path
        self.norm_attention = nn.BatchNorm2d(width)
        self.enter = nn.Conv2d(width, width, 1)
        # a large kernel of about 21 x 21 cells, split into a dense 5 x 5 and a dilated 7 x 7
        self.near = DepthwiseConv(width, 5, padding)
        self.far = DepthwiseConv(width, 7, padding, dilation=3)
        self.value_and_gate = nn.Conv2d(width, 2 * width, 1)
        self.leave = nn.Conv2d(width, width, 1)
        self.scale_attention = nn.Parameter(torch.full((width,), 0.01))
        self.norm_mix = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, hidden, 1)
        self.spread = DepthwiseConv(hidden, 3, padding)
        self.shrink = nn.Conv2d(hidden, width, 1)
        self.scale_mix = nn.Parameter(torch.full((width,), 0.01))
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            # as in OpenSTL: normal with variance 2 / fan_out (He et al., arXiv:1502.01852)
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(conv.bias)
        self.scale_and_shift = None
        if noise:  # it scales and shifts what comes out of the norms
            norms = self.norm_attention, self.norm_mix
            self.scale_and_shift = nn.ModuleList(layer_without_effect(nn.Linear, noise, 2 * width) for _ in norms)

    def forward(self, x_BDhw: Tensor, checkpointing: bool, noise_BR: Tensor | None = None) -> Tensor:
        # x = x + scale * attend(norm(x)); x = x + scale * mix_channels(norm(x))
        # the norms stay outside of the checkpoints: recomputing them would update their running statistics twice
        normed_BDhw = self.norm_attention(x_BDhw)
        if self.scale_and_shift is not None and noise_BR is not None:
            normed_BDhw = modulate(self.scale_and_shift[0], normed_BDhw, noise_BR)
        a_BDhw = run_module(self.attend, checkpointing, normed_BDhw)
        x_BDhw = x_BDhw + self._drop(self.scale_attention[:, None, None] * a_BDhw)
        normed_BDhw = self.norm_mix(x_BDhw)
        if self.scale_and_shift is not None and noise_BR is not None:
            normed_BDhw = modulate(self.scale_and_shift[1], normed_BDhw, noise_BR)
        m_BDhw = run_module(self.mix_channels, checkpointing, normed_BDhw)
        return x_BDhw + self._drop(self.scale_mix[:, None, None] * m_BDhw)

    def attend(self, normed_BDhw: Tensor) -> Tensor:
        """Return sigmoid(gate) * value, both from a large neighborhood of each cell."""
        a_BDhw = self.far(self.near(F.gelu(self.enter(normed_BDhw))))
        value_BDhw, gate_BDhw = self.value_and_gate(a_BDhw).chunk(2, dim=1)
        # the inner shortcut adds the normalized input, as published
        return self.leave(torch.sigmoid(gate_BDhw) * value_BDhw) + normed_BDhw

    def mix_channels(self, normed_BDhw: Tensor) -> Tensor:
        """Return channels mixed through `mlp_ratio` times as many hidden channels."""
        return self.shrink(F.gelu(self.spread(self.expand(normed_BDhw))))

    def _drop(self, branch_BDhw: Tensor) -> Tensor:
        """Zero the branch for random samples in training, and scale it to keep its expectation (arXiv:1603.09382)."""
        if not self.training or self.drop_path == 0:
            return branch_BDhw
        keep = 1 - self.drop_path
        mask_B111 = torch.empty(len(branch_BDhw), 1, 1, 1, device=branch_BDhw.device).bernoulli_(keep)
        return branch_BDhw * (mask_B111 / keep).to(branch_BDhw.dtype)


class DepthwiseConv(nn.Conv2d):
    """A convolution of padded fields with one kernel per channel; it keeps the size of the grid."""

    def __init__(self, channels: int, kernel_size: int, padding: str, *, dilation: int = 1):
        super().__init__(channels, channels, kernel_size, dilation=dilation, groups=channels)
        self.edge_padding = padding

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return depthwise_conv2d(x_BDhw, self.weight, self.bias, self.dilation[0], self.edge_padding)


def _stack_states(z_NShw: Tensor, batch: int) -> Tensor:
    """Return the states of each window stacked along the channels, the first state first, in channels-last memory."""
    N, S, h, w = z_NShw.shape
    z_BThwS = z_NShw.permute(0, 2, 3, 1).reshape(batch, N // batch, h, w, S)
    return z_BThwS.permute(0, 2, 3, 1, 4).reshape(batch, h, w, N // batch * S).permute(0, 3, 1, 2)


def _unstack_states(z_BDhw: Tensor, states: int) -> Tensor:
    """Undo `_stack_states`."""
    B, D, h, w = z_BDhw.shape
    z_BhwTS = z_BDhw.permute(0, 2, 3, 1).reshape(B, h, w, states, D // states)
    return z_BhwTS.permute(0, 3, 1, 2, 4).reshape(B * states, h, w, D // states).permute(0, 3, 1, 2)
