"""SimVPv2: a video prediction network of plain convolutions with gated spatiotemporal attention.

Architecture after C. Tan, Z. Gao, S. Li and S. Z. Li, "SimVPv2: Towards Simple yet Powerful Spatiotemporal
Predictive Learning" (arXiv:2211.12509), as built in OpenSTL: every state is encoded alone, the encoded
states are stacked along the channels and translated together, and every state is decoded alone.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, S hidden channel of space,
D channel of the translator, H latitude, W longitude; h and w are H and W after downsampling; N stands for
B * T.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        "zeros" (as published), "periodic" (longitude closes round the globe, zeros at the poles), or "auto",
        which training resolves from the grid.
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

    def __post_init__(self):
        for name, least, multiple in (
            ("hidden_space", 2, 2),
            ("hidden_time", 1, 1),
            ("spatial_layers", 2, 2),
            ("blocks", 2, 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least or value % multiple:
                even = "an even" if multiple == 2 else "a"
                raise ValueError(f"{name}={value!r} must be {even} whole number of at least {least}")
        if not self.mlp_ratio > 0:
            raise ValueError(f"mlp_ratio={self.mlp_ratio!r} must be greater than 0")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path!r} must lie in [0, 1)")
        if self.padding not in ("auto", "zeros", "periodic"):
            raise ValueError(f"padding={self.padding!r} must be 'auto', 'zeros' or 'periodic'")
        if self.predict not in ("change", "state"):
            raise ValueError(f"predict={self.predict!r} must be 'change' or 'state'")


class SimVPv2(nn.Module):
    """The network: (batch, history, channels, latitude, longitude) to the same number of later states.

    Any grid size is taken: what the strides do not divide is padded inside and cropped again.

    Parameters
    ----------
    config
        Size and kind; its padding must be resolved ("zeros" or "periodic").
    history
        Number of states in, and out.
    channels
        Channels per state, in and out.
    forcings
        Channels of further inputs per state, which are not forecast: what is known of every time (insolation,
        orography). They enter the encoder beside the state. With 0 the network is the published one.

    Raises
    ------
    ValueError
        If the padding is still "auto".
    """

    def __init__(self, config: SimVPv2Config, *, history: int, channels: int, forcings: int = 0):
        super().__init__()
        if config.padding == "auto":
            raise ValueError(
                "padding='auto' is resolved by train() from the grid; to build the network alone say 'periodic' "
                "(the longitudes go round the globe) or 'zeros'"
            )
        self.config, self.history, self.channels, self.forcings = config, history, channels, forcings
        width, periodic = config.hidden_space, config.padding == "periodic"
        # every second layer changes the resolution, counted from the coarse end in the decoder
        halves = [layer % 2 == 1 for layer in range(config.spatial_layers)]
        self.stride = 2 ** sum(halves)
        self.encoder = nn.ModuleList(
            SpaceLayer(channels + forcings if layer == 0 else width, width, periodic, stride=2 if half else 1)
            for layer, half in enumerate(halves)
        )
        self.translator = Translator(history * width, config, periodic)
        self.decoder = nn.ModuleList(SpaceLayer(width, width, periodic, upsample=half) for half in reversed(halves))
        self.readout = nn.Conv2d(width, channels, 1)
        # multiplies the predicted change; training sets it to the typical change per lead and channel
        self.register_buffer("change_scale_TC", torch.ones(history, channels))

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        """Return the next `history` states, shape as `x_BTCHW`; `f_BTFHW` if the network has forcings."""
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
        z_NSHW = _pad_to_multiple(inputs_BTCHW.flatten(0, 1), self.stride, self.config.padding == "periodic")
        skip_NSHW = z_NSHW = self.encoder[0](z_NSHW)
        for layer in self.encoder[1:]:
            z_NSHW = layer(z_NSHW)
        z_BDhw = z_NSHW.reshape(B, -1, *z_NSHW.shape[-2:])  # time-major: all channels of the first state first
        z_NSHW = self.translator(z_BDhw).reshape(z_NSHW.shape)
        for layer in self.decoder[:-1]:
            z_NSHW = layer(z_NSHW)
        y_NCHW = self.readout(self.decoder[-1](z_NSHW + skip_NSHW))
        y_BTCHW = y_NCHW[..., :H, :W].reshape(B, T, C, H, W)
        if self.config.predict == "change":
            y_BTCHW = x_BTCHW[:, -1:] + y_BTCHW * self.change_scale_TC[:, :, None, None]
        return y_BTCHW

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


def rollout(network: nn.Module, x_BTCHW: Tensor, horizon: int, f_BTFHW: Tensor | None = None) -> Tensor:
    """Return `horizon` states after `x_BTCHW`, feeding forecasts back in as often as it takes.

    A call of the network emits as many states as it takes in, so there are ceil(horizon / history) calls. Call
    k, from 0, gets the forcings `f_BTFHW[:, k * history : (k + 1) * history]`: what belongs to its input states.

    Raises
    ------
    ValueError
        If there are not as many forcings along T as states in all the calls' inputs.
    """
    history = x_BTCHW.shape[1]
    calls = math.ceil(horizon / history)
    if f_BTFHW is not None and f_BTFHW.shape[1] != calls * history:
        raise ValueError(
            f"forcings of shape {tuple(f_BTFHW.shape)} for {calls} calls of {history} states each: dimension 1 must "
            f"be {calls * history}"
        )
    states = []
    for call in range(calls):
        if f_BTFHW is None:
            x_BTCHW = network(x_BTCHW)
        else:
            x_BTCHW = network(x_BTCHW, f_BTFHW[:, call * history : (call + 1) * history])
        states.append(x_BTCHW)
    return torch.cat(states, dim=1)[:, :horizon]


class Conv(nn.Conv2d):
    """A "same" convolution whose longitude closes round the globe if `periodic`; latitude sees zeros."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        periodic: bool,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ):
        reach = dilation * (kernel - 1) // 2
        super().__init__(
            inputs,
            outputs,
            kernel,
            stride=stride,
            dilation=dilation,
            groups=groups,
            padding=(reach, 0 if periodic else reach),
        )
        self.wrap = reach if periodic else 0

    def forward(self, x_NSHW: Tensor) -> Tensor:
        return super().forward(_wrap_longitude(x_NSHW, self.wrap, self.wrap))


class SpaceLayer(nn.Module):
    """Convolution, group norm, SiLU; halves the grid with `stride=2`, doubles it with `upsample`."""

    def __init__(self, inputs: int, outputs: int, periodic: bool, *, stride: int = 1, upsample: bool = False):
        super().__init__()
        self.conv = Conv(inputs, outputs * 4 if upsample else outputs, 3, periodic, stride=stride)
        self.upsample = upsample
        self.norm = nn.GroupNorm(2, outputs)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x_NSHW: Tensor) -> Tensor:
        x_NSHW = self.conv(x_NSHW)
        if self.upsample:
            x_NSHW = F.pixel_shuffle(x_NSHW, 2)
        return F.silu(self.norm(x_NSHW))


class Translator(nn.Module):
    """Attention blocks over the stacked states; the first and the last work at the stack's own width."""

    def __init__(self, stack: int, config: SimVPv2Config, periodic: bool):
        super().__init__()
        hidden, count = config.hidden_time, config.blocks
        # the published schedule starts at 0.01 even where drop_path is 0; here 0 means none
        drops = torch.linspace(min(0.01, config.drop_path), config.drop_path, count).tolist()
        widths = [stack] + [hidden] * (count - 1)
        self.blocks = nn.ModuleList(
            GatedAttentionBlock(width, config.mlp_ratio, drop, periodic)
            for width, drop in zip(widths, drops, strict=True)
        )
        self.narrow = nn.Conv2d(stack, hidden, 1) if stack != hidden else nn.Identity()
        self.widen = nn.Conv2d(hidden, stack, 1) if stack != hidden else nn.Identity()

    def forward(self, z_BDhw: Tensor) -> Tensor:
        z_BDhw = self.narrow(self.blocks[0](z_BDhw))
        for block in self.blocks[1:]:
            z_BDhw = block(z_BDhw)
        return self.widen(z_BDhw)


class GatedAttentionBlock(nn.Module):
    """Gated attention over a wide neighborhood, then mixing of the channels, each added to its input."""

    def __init__(self, width: int, mlp_ratio: float, drop_path: float, periodic: bool):
        super().__init__()
        wide = int(width * mlp_ratio)
        self.drop_path = drop_path
        self.norm_attention = nn.BatchNorm2d(width)
        self.enter = Conv(width, width, 1, periodic)
        # a 21 x 21 neighborhood as a dense 5 x 5 and a dilated 7 x 7
        self.near = Conv(width, width, 5, periodic, groups=width)
        self.far = Conv(width, width, 7, periodic, dilation=3, groups=width)
        self.value_and_gate = Conv(width, 2 * width, 1, periodic)
        self.leave = Conv(width, width, 1, periodic)
        self.scale_attention = nn.Parameter(torch.full((width,), 0.01))
        self.norm_mix = nn.BatchNorm2d(width)
        self.expand = Conv(width, wide, 1, periodic)
        self.spread = Conv(wide, wide, 3, periodic, groups=wide)
        self.shrink = Conv(wide, width, 1, periodic)
        self.scale_mix = nn.Parameter(torch.full((width,), 0.01))
        for conv in (module for module in self.modules() if isinstance(module, Conv)):
            fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
            nn.init.zeros_(conv.bias)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        normed_BDhw = self.norm_attention(x_BDhw)
        a_BDhw = self.far(self.near(F.gelu(self.enter(normed_BDhw))))
        value_BDhw, gate_BDhw = self.value_and_gate(a_BDhw).chunk(2, dim=1)
        # the inner shortcut adds the normalized input, as published
        a_BDhw = self.leave(torch.sigmoid(gate_BDhw) * value_BDhw) + normed_BDhw
        x_BDhw = x_BDhw + self._drop(self.scale_attention[:, None, None] * a_BDhw)
        m_BDhw = self.shrink(F.gelu(self.spread(self.expand(self.norm_mix(x_BDhw)))))
        return x_BDhw + self._drop(self.scale_mix[:, None, None] * m_BDhw)

    def _drop(self, branch_BDhw: Tensor) -> Tensor:
        """Skip the branch for some samples in training (stochastic depth), keeping its expectation."""
        if not self.training or self.drop_path == 0:
            return branch_BDhw
        keep = 1 - self.drop_path
        mask_B111 = torch.empty(len(branch_BDhw), 1, 1, 1, device=branch_BDhw.device).bernoulli_(keep)
        return branch_BDhw * (mask_B111 / keep).to(branch_BDhw.dtype)


def _wrap_longitude(x_NSHW: Tensor, left: int, right: int) -> Tensor:
    """Continue the last axis periodically; by more than one turn on a tiny grid."""
    if not left and not right:
        return x_NSHW
    width = x_NSHW.shape[-1]
    if max(left, right) <= width:
        return torch.cat([x_NSHW[..., width - left :], x_NSHW, x_NSHW[..., :right]], dim=-1)
    columns = torch.arange(-left, width + right, device=x_NSHW.device) % width
    return x_NSHW.index_select(-1, columns)


def _pad_to_multiple(x_NCHW: Tensor, multiple: int, periodic: bool) -> Tensor:
    """Add rows in the north and columns in the east up to a multiple: edge values, or the wrapped ones."""
    rows, columns = (-x_NCHW.shape[-2] % multiple, -x_NCHW.shape[-1] % multiple)
    if columns:
        x_NCHW = _wrap_longitude(x_NCHW, 0, columns) if periodic else _repeat_edge(x_NCHW, columns, -1)
    return _repeat_edge(x_NCHW, rows, -2) if rows else x_NCHW


def _repeat_edge(x_NCHW: Tensor, count: int, axis: int) -> Tensor:
    edge = x_NCHW.narrow(axis, x_NCHW.shape[axis] - 1, 1)
    return torch.cat([x_NCHW] + [edge] * count, dim=axis)
