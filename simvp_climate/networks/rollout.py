"""Forecasts of any length by calling a network on its own output.

Shape suffixes: B batch, T time, C channel of the data, F channel of the forcings, H latitude, W longitude.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def rollout(
    network: nn.Module, x_BTCHW: Tensor, horizon: int, f_BTFHW: Tensor | None = None,
    constrain: Callable[[Tensor], Tensor] | None = None, noise: Sequence[Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Return the `horizon` states after `x_BTCHW`, feeding forecasts back into a network.

    The network makes ceil(horizon / history) calls. `f_BTFHW` are the forcings of the input states of all calls.
    `constrain` maps the forecast of one call, in the channels that are also input, to the input of the next. `noise` is
    that of every call, for a network that takes noise; without it, the network draws it.
    """
    history, channels = x_BTCHW.shape[1:3]
    calls = math.ceil(horizon / history)
    if f_BTFHW is not None and f_BTFHW.shape[1] != calls * history:
        expected = f"be {calls * history}, for {calls} calls of {history} states"
        raise ValueError(f"Forcings of shape {tuple(f_BTFHW.shape)}: dimension 1 must {expected}.")
    states = []
    for call in range(calls):
        forcings = None if f_BTFHW is None else f_BTFHW[:, call * history : (call + 1) * history]
        if noise is not None:
            y_BTCHW = network(x_BTCHW, forcings, noise[call])
        else:
            y_BTCHW = network(x_BTCHW) if forcings is None else network(x_BTCHW, forcings)
        states.append(y_BTCHW)
        if call + 1 == calls:
            break
        shared = getattr(network, "shared_channels", y_BTCHW.shape[2])
        if shared < channels:
            reason = f"a second call needs {channels} input channels, and the network forecasts only {shared} of them"
            raise ValueError(f"horizon={horizon} must be at most {history}: {reason}.")
        x_BTCHW = y_BTCHW[:, :, :channels]
        if constrain is not None:
            x_BTCHW = constrain(x_BTCHW)
    return torch.cat(states, dim=1)[:, :horizon]
