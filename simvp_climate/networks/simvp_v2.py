"""SimVPv2: a video prediction network of plain convolutions with gated spatiotemporal attention.

Architecture after C. Tan, Z. Gao, S. Li and S. Z. Li, "SimVPv2: Towards Simple yet Powerful Spatiotemporal
Predictive Learning" (arXiv:2211.12509), as built in OpenSTL: every state is encoded alone, the encoded
states are stacked along the channels and translated together, and every state is decoded alone.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, S hidden channel of space,
D channel of the translator, H latitude, W longitude; h and w are H and W after downsampling; N stands for
B * T.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from simvp_climate.networks.depthwise import depthwise
from simvp_climate.networks.padding import pad

MAX_CHANNELS = 2**20  # of channels and layers: beyond no number of weights can be counted
PADDING_MODES = ("zeros", "periodic", "sphere", "sphere_with_poles")


@dataclass(frozen=True)
class SimVPv2Config:
    """The size and the kind of a SimVPv2; the paper's names in brackets.

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
        Widening of the channel mixing inside a block.
    drop_path
        Probability that the last block is skipped for a sample in training; earlier blocks less.
    padding
        What a convolution sees beyond the edge. "zeros" (as published); "periodic": longitude closes round the
        globe, zeros at the poles; "sphere": also beyond a pole lie the values of the opposite meridian;
        "sphere_with_poles": the same for grids with rows on the poles, which "sphere" becomes there in training; or
        "auto", which training resolves from the grid.
    predict
        "state" (as published), or "change": the output is added to the last input state.
    """

    hidden_space: int = 32
    hidden_time: int = 256
    spatial_layers: int = 2
    blocks: int = 8
    mlp_ratio: float = 8.0
    drop_path: float = 0.1
    padding: str = "auto"
    predict: str = "change"

    def __post_init__(self) -> None:
        for name, least, multiple in (
            ("hidden_space", 2, 2),
            ("hidden_time", 1, 1),
            ("spatial_layers", 2, 2),
            ("blocks", 2, 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least or value % multiple:
                even = "an even" if multiple == 2 else "a"
                raise ValueError(f"{name}={value!r} must be {even} whole number of at least {least}")
            if value > MAX_CHANNELS:
                raise ValueError(f"{name}={value!r} must be at most {MAX_CHANNELS}")
            object.__setattr__(self, name, int(value))
        least, most = 1 / self.hidden_time, MAX_CHANNELS / self.hidden_time
        bounds = f"from {least:.3g} to {most:.3g} with hidden_time={self.hidden_time}"
        for name, rule, fits in (
            ("mlp_ratio", bounds, self._mixes),
            ("drop_path", "in [0, 1)", lambda x: 0 <= x < 1),
        ):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            # no float holds the largest whole numbers
            number = number and (abs(value) <= MAX_CHANNELS if isinstance(value, Integral) else math.isfinite(value))
            if not number or not fits(value):
                raise ValueError(f"{name}={value!r} must be a number {rule}")
            object.__setattr__(self, name, float(value))
        if self.padding not in ("auto", *PADDING_MODES):
            raise ValueError(f"padding={self.padding!r} must be 'auto' or one of {PADDING_MODES}")
        if self.predict not in ("change", "state"):
            raise ValueError(f"predict={self.predict!r} must be 'change' or 'state'")

    def _mixes(self, ratio: float) -> bool:
        """Say whether the channel mixing has a channel, and not too many."""
        return 1 <= int(self.hidden_time * ratio) <= MAX_CHANNELS


class SimVPv2(nn.Module):
    """The network: (batch, history, channels, latitude, longitude) to the same number of later states.

    Any grid size is taken: halves are rounded up, and what a doubling makes too much is cropped again.

    Parameters
    ----------
    config
        Size and kind; its padding must be resolved.
    history
        Number of states in, and out.
    channels
        Channels per state that goes in.
    forcings
        Channels of further inputs per state, which are not forecast: what is known of every time (insolation,
        orography). They enter the encoder beside the state. With 0 the network is the published one.
    output_channels
        Channels per state that comes out; as many as go in by default.
    shared_channels
        How many of the first channels are the same in and out: these are what a change is added to, and what a
        rollout feeds back. By default as many as can be.

    Attributes
    ----------
    activation_checkpointing
        Whether training computes what lies inside a block or a layer a second time in the backward pass instead of
        keeping it: less memory for more time, the same numbers. False at first.

    Raises
    ------
    ValueError
        If the padding is still "auto", a number is none of the kind, or more channels are shared than there are.
    """

    def __init__(
        self,
        config: SimVPv2Config,
        *,
        history: int,
        channels: int,
        forcings: int = 0,
        output_channels: int | None = None,
        shared_channels: int | None = None,
    ):
        super().__init__()
        if config.padding == "auto":
            raise ValueError(
                "padding='auto' is resolved by train() from the grid; to build the network alone say 'sphere' or "
                "'periodic' (the longitudes go round the globe), or 'zeros'"
            )
        output_channels = channels if output_channels is None else output_channels
        for name, value, least in (
            ("history", history, 1),
            ("channels", channels, 1),
            ("forcings", forcings, 0),
            ("output_channels", output_channels, 1),
        ):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        wide = int(history * config.hidden_space * config.mlp_ratio)
        if not 1 <= wide <= MAX_CHANNELS:
            raise ValueError(
                f"mlp_ratio={config.mlp_ratio:g} makes {wide} channels of history * hidden_space in the first block: "
                f"it must leave 1 to {MAX_CHANNELS}"
            )
        shared_channels = min(channels, output_channels) if shared_channels is None else shared_channels
        if not 0 <= shared_channels <= min(channels, output_channels):
            raise ValueError(
                f"shared_channels={shared_channels} must be at most channels={channels} and "
                f"output_channels={output_channels}: those that go in and come out"
            )
        self.config, self.history, self.channels, self.forcings = config, history, channels, forcings
        self.output_channels, self.shared_channels = output_channels, shared_channels
        self.activation_checkpointing = False
        width, padding = config.hidden_space, config.padding
        # every second layer changes the resolution, counted from the coarse end in the decoder
        halves = [layer % 2 == 1 for layer in range(config.spatial_layers)]
        self.encoder = nn.ModuleList(
            SpaceLayer(channels + forcings if layer == 0 else width, width, padding, stride=2 if half else 1)
            for layer, half in enumerate(halves)
        )
        self.translator = Translator(history * width, config, padding)
        self.decoder = nn.ModuleList(SpaceLayer(width, width, padding, upsample=half) for half in reversed(halves))
        self.readout = nn.Conv2d(width, output_channels, 1)
        # multiplies the predicted change; training sets it to the typical change per lead and channel
        self.register_buffer("change_scale_TC", torch.ones(history, shared_channels))

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        """Return the next `history` states, (B, T, output channels, H, W); networks with forcings need `f_BTFHW`."""
        B, T, C, H, W = x_BTCHW.shape
        if (self.history, self.channels) != (T, C):
            raise ValueError(
                f"input of shape {tuple(x_BTCHW.shape)}: dimensions 1 and 2 must be history={self.history} and "
                f"channels={self.channels}"
            )
        inputs_BTCHW = x_BTCHW
        if self.forcings or f_BTFHW is not None:
            self._check_forcings(x_BTCHW, f_BTFHW)
            inputs_BTCHW = torch.cat([x_BTCHW, f_BTFHW], dim=2)
        again = self.activation_checkpointing and self.training
        z_NSHW, sizes = inputs_BTCHW.flatten(0, 1), []
        for layer in self.encoder:
            sizes.append(z_NSHW.shape[-2:])
            z_NSHW = _call(layer, again, z_NSHW)
            if len(sizes) == 1:
                skip_NSHW = z_NSHW
        z_NSHW = _unstack(self.translator(_stack(z_NSHW, B), again), T)
        for layer in self.decoder[:-1]:
            z_NSHW = _call(layer, again, z_NSHW, sizes.pop())
        y_NCHW = self.readout(_call(self.decoder[-1], again, z_NSHW + skip_NSHW))
        y_BTCHW = y_NCHW.reshape(B, T, self.output_channels, H, W)
        if self.config.predict == "state":
            return y_BTCHW
        shared = self.shared_channels
        changed_BTCHW = x_BTCHW[:, -1:, :shared] + y_BTCHW[:, :, :shared] * self.change_scale_TC[:, :, None, None]
        if shared == self.output_channels:
            return changed_BTCHW
        return torch.cat([changed_BTCHW, y_BTCHW[:, :, shared:]], dim=2)

    def _check_forcings(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None) -> None:
        B, T, _, H, W = x_BTCHW.shape
        if not self.forcings:
            raise ValueError(
                f"forcings of shape {tuple(f_BTFHW.shape)} were given, but the network was built without: leave "
                f"them out, or build it with forcings={f_BTFHW.shape[2]}"
            )
        wanted = (B, T, self.forcings, H, W)
        if f_BTFHW is None:
            raise ValueError(
                f"the network has forcings={self.forcings}: give f_BTFHW of shape {wanted} beside the input"
            )
        if f_BTFHW.shape != wanted:
            raise ValueError(
                f"forcings of shape {tuple(f_BTFHW.shape)} beside an input of shape {tuple(x_BTCHW.shape)}: they "
                f"must have the shape {wanted}"
            )


def rollout(
    network: nn.Module,
    x_BTCHW: Tensor,
    horizon: int,
    f_BTFHW: Tensor | None = None,
    constrain: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return `horizon` states after `x_BTCHW`, feeding forecasts back in as often as it takes.

    A call of the network emits as many states as it takes in, so there are ceil(horizon / history) calls. Call
    k, from 0, gets the forcings `f_BTFHW[:, k * history : (k + 1) * history]`: what belongs to its input states.
    The next call gets the output channels that are also inputs. `constrain` keeps these within the bounds of their
    variable and masks cells without values.

    Raises
    ------
    ValueError
        If there are not as many forcings along T as states in all the calls' inputs, or fewer channels come out
        than a second call takes in.
    """
    history, channels = x_BTCHW.shape[1:3]
    calls = math.ceil(horizon / history)
    if f_BTFHW is not None and f_BTFHW.shape[1] != calls * history:
        raise ValueError(
            f"forcings of shape {tuple(f_BTFHW.shape)} for {calls} calls of {history} states each: dimension 1 must "
            f"be {calls * history}"
        )
    states = []
    for call in range(calls):
        if f_BTFHW is None:
            y_BTCHW = network(x_BTCHW)
        else:
            y_BTCHW = network(x_BTCHW, f_BTFHW[:, call * history : (call + 1) * history])
        states.append(y_BTCHW)
        shared_channels = getattr(network, "shared_channels", y_BTCHW.shape[2])
        if call + 1 < calls and shared_channels < channels:
            raise ValueError(
                f"a horizon of {horizon} takes {calls} calls of {history} states each, and of the {channels} channels "
                f"that go in only {shared_channels} come out: take a horizon of at most {history}"
            )
        x_BTCHW = y_BTCHW[:, :, :channels]
        if constrain is not None and call + 1 < calls:
            x_BTCHW = constrain(x_BTCHW)
    return torch.cat(states, dim=1)[:, :horizon]


class Conv(nn.Conv2d):
    """A "same" convolution that pads a field on the sphere, see `SimVPv2Config.padding`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding_mode: str, *, stride: int = 1):
        super().__init__(inputs, outputs, kernel, stride=stride)
        self.pad_width, self.edge_padding = (kernel - 1) // 2, padding_mode

    def forward(self, x_NSHW: Tensor) -> Tensor:
        return super().forward(pad(x_NSHW, self.edge_padding, (self.pad_width,) * 2, (self.pad_width,) * 2))


class DepthwiseConv(nn.Conv2d):
    """The same for a kernel per channel."""

    def __init__(self, channels: int, kernel: int, padding_mode: str, *, dilation: int = 1):
        super().__init__(channels, channels, kernel, dilation=dilation, groups=channels)
        self.edge_padding = padding_mode

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return depthwise(x_BDhw, self.weight, self.bias, self.dilation[0], self.edge_padding)


class PixelShuffleConv(Conv):
    """Four channels per channel that comes out: those of the 2 x 2 cells that each cell becomes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding_mode: str):
        super().__init__(inputs, outputs * 4, kernel, padding_mode)

    def forward(self, x_NShw: Tensor) -> Tensor:
        x_NShw = pad(x_NShw, self.edge_padding, (self.pad_width,) * 2, (self.pad_width,) * 2)
        # a pixel shuffle would have the four cells of a channel side by side: here they come cell by cell, all
        # channels of one together, as they lie in memory afterwards
        weight = self.weight.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)
        y_NEhw = F.conv2d(x_NShw, weight, self.bias.unflatten(0, (-1, 4)).t().flatten())
        N, E, h, w = y_NEhw.shape
        cells_Nh2w2S = y_NEhw.permute(0, 2, 3, 1).reshape(N, h, w, 2, 2, E // 4).transpose(2, 3)
        return cells_Nh2w2S.reshape(N, 2 * h, 2 * w, E // 4).permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group norm whose gradient in bfloat16 on CPU is computed in float32: in channels-last memory twice as fast."""

    def forward(self, x_NSHW: Tensor) -> Tensor:
        if x_NSHW.device.type != "cpu" or x_NSHW.dtype != torch.bfloat16 or torch.compiler.is_compiling():
            return super().forward(x_NSHW)
        return _GroupNorm.apply(x_NSHW, self.weight, self.bias, self.num_groups, self.eps)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NSHW: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        N, S, H, W = x_NSHW.shape
        # for fields of fewer than 1024 cells there is a kernel that is slow on channels-last memory
        lying = x_NSHW.contiguous() if H * W < 1024 else x_NSHW
        y_NSHW, mean, rstd = torch.native_group_norm(lying, weight, bias, N, S, H * W, groups, eps)
        ctx.save_for_backward(x_NSHW, mean, rstd, weight)
        ctx.groups = groups
        return y_NSHW.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, grad_NSHW: Tensor) -> tuple[Tensor | None, ...]:
        x_NSHW, mean, rstd, weight = ctx.saved_tensors
        N, S, H, W = x_NSHW.shape
        x_NSHW, mean, rstd, weight = x_NSHW.float(), mean.float(), rstd.float(), weight.float()
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
            grad_NSHW.float(), x_NSHW, mean, rstd, weight, N, S, H * W, ctx.groups, [True, True, True]
        )
        return grad_x.to(grad_NSHW.dtype), grad_weight, grad_bias, None, None


class SpaceLayer(nn.Module):
    """Convolution, group norm, SiLU; halves the grid with `stride=2`, doubles it with `upsample`."""

    def __init__(self, inputs: int, outputs: int, padding: str, *, stride: int = 1, upsample: bool = False):
        super().__init__()
        if upsample:
            self.conv = PixelShuffleConv(inputs, outputs, 3, padding)
        else:
            self.conv = Conv(inputs, outputs, 3, padding, stride=stride)
        self.norm = GroupNorm(2, outputs)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x_NSHW: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Return fields of another resolution, of some size if it doubles them."""
        y_NSHW = self.conv(x_NSHW)
        if size is not None and size != y_NSHW.shape[-2:]:
            # a view of it would be copied again and again
            y_NSHW = y_NSHW[..., : size[0], : size[1]].contiguous(memory_format=torch.channels_last)
        return F.silu(self.norm(y_NSHW))


class Translator(nn.Module):
    """Attention blocks over the stacked states; the first and the last work at the stack's own width."""

    def __init__(self, stack: int, config: SimVPv2Config, padding: str):
        super().__init__()
        hidden, count = config.hidden_time, config.blocks
        # the published schedule starts at 0.01 even where drop_path is 0; here 0 means none
        drops = torch.linspace(min(0.01, config.drop_path), config.drop_path, count, device="cpu").tolist()
        widths = [stack] + [hidden] * (count - 1)
        self.blocks = nn.ModuleList(
            GatedAttentionBlock(width, config.mlp_ratio, drop, padding)
            for width, drop in zip(widths, drops, strict=True)
        )
        self.narrow = nn.Conv2d(stack, hidden, 1) if stack != hidden else nn.Identity()
        self.widen = nn.Conv2d(hidden, stack, 1) if stack != hidden else nn.Identity()

    def forward(self, z_BDhw: Tensor, checkpointing: bool) -> Tensor:
        z_BDhw = self.narrow(self.blocks[0](z_BDhw, checkpointing))
        for block in self.blocks[1:]:
            z_BDhw = block(z_BDhw, checkpointing)
        return self.widen(z_BDhw)


class GatedAttentionBlock(nn.Module):
    """Gated attention over a wide neighborhood, then mixing of the channels, each added to its input."""

    def __init__(self, width: int, mlp_ratio: float, drop_path: float, padding: str):
        super().__init__()
        wide = int(width * mlp_ratio)
        self.drop_path = drop_path
        self.norm_attention = nn.BatchNorm2d(width)
        self.enter = nn.Conv2d(width, width, 1)
        # a 21 x 21 neighborhood as a dense 5 x 5 and a dilated 7 x 7
        self.near = DepthwiseConv(width, 5, padding)
        self.far = DepthwiseConv(width, 7, padding, dilation=3)
        self.value_and_gate = nn.Conv2d(width, 2 * width, 1)
        self.leave = nn.Conv2d(width, width, 1)
        self.scale_attention = nn.Parameter(torch.full((width,), 0.01))
        self.norm_mix = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, wide, 1)
        self.spread = DepthwiseConv(wide, 3, padding)
        self.shrink = nn.Conv2d(wide, width, 1)
        self.scale_mix = nn.Parameter(torch.full((width,), 0.01))
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(conv.bias)

    def forward(self, x_BDhw: Tensor, checkpointing: bool) -> Tensor:
        # the norms stay outside of what is recomputed: a second pass would move their running statistics twice
        a_BDhw = _call(self.attend, checkpointing, self.norm_attention(x_BDhw))
        x_BDhw = x_BDhw + self._drop(self.scale_attention[:, None, None] * a_BDhw)
        m_BDhw = _call(self.mix, checkpointing, self.norm_mix(x_BDhw))
        return x_BDhw + self._drop(self.scale_mix[:, None, None] * m_BDhw)

    def attend(self, normed_BDhw: Tensor) -> Tensor:
        a_BDhw = self.far(self.near(F.gelu(self.enter(normed_BDhw))))
        value_BDhw, gate_BDhw = self.value_and_gate(a_BDhw).chunk(2, dim=1)
        # the inner shortcut adds the normalized input, as published
        return self.leave(torch.sigmoid(gate_BDhw) * value_BDhw) + normed_BDhw

    def mix(self, normed_BDhw: Tensor) -> Tensor:
        return self.shrink(F.gelu(self.spread(self.expand(normed_BDhw))))

    def _drop(self, branch_BDhw: Tensor) -> Tensor:
        """Skip the branch for some samples in training (stochastic depth), keeping its expectation."""
        if not self.training or self.drop_path == 0:
            return branch_BDhw
        keep = 1 - self.drop_path
        mask_B111 = torch.empty(len(branch_BDhw), 1, 1, 1, device=branch_BDhw.device).bernoulli_(keep)
        return branch_BDhw * (mask_B111 / keep).to(branch_BDhw.dtype)


def _call(module: Callable[..., Tensor], checkpointing: bool, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    given = (x,) if size is None else (x, size)
    return checkpoint(module, *given, use_reentrant=False) if checkpointing else module(*given)


def _stack(z_NShw: Tensor, batch: int) -> Tensor:
    """Put the states of a window along the channels, those of the first one first; channels stay last in memory."""
    N, S, h, w = z_NShw.shape
    z_BThwS = z_NShw.permute(0, 2, 3, 1).reshape(batch, N // batch, h, w, S)
    return z_BThwS.permute(0, 2, 3, 1, 4).reshape(batch, h, w, N // batch * S).permute(0, 3, 1, 2)


def _unstack(z_BDhw: Tensor, states: int) -> Tensor:
    """Undo `_stack`."""
    B, D, h, w = z_BDhw.shape
    z_BhwTS = z_BDhw.permute(0, 2, 3, 1).reshape(B, h, w, states, D // states)
    return z_BhwTS.permute(0, 3, 1, 2, 4).reshape(B * states, h, w, D // states).permute(0, 3, 1, 2)
