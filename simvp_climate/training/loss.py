"""The training loss, on the device, and validation errors in physical units.

Shape suffixes: B window of a batch, T time or lead, C channel, H latitude, W longitude, F forcing.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from simvp_climate.data.reader import Channel
from simvp_climate.data.windows import parse_step
from simvp_climate.networks.simvp_v2 import rollout
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.tensors import Forcings, Scale
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.datasets import Setup
from simvp_climate.training.loader import Batch

_ALPHA = 0.95  # of the almost fair CRPS (Lang et al. 2024, arXiv:2412.15832)


class Loss:
    """The weighted mean squared error of the forecasts of a batch, or the CRPS of those of several members."""

    def __init__(
        self, config: TrainConfig, setup: Setup, normalizer: Normalizer, forcings: Forcings, device: torch.device
    ):
        task, tensor = setup.task, partial(torch.as_tensor, dtype=torch.float32, device=device)
        # the number of leads of the task, and of the longest rollout
        self.history, self.horizon, self.max_leads = task.history, task.horizon, setup.leads
        self.forcings, self.device, self.roles = forcings, device, setup.roles
        outputs = normalizer.select(self.roles.output_channels)
        self.outputs = torch.tensor(self.roles.output_channels, device=device)
        self.scale = Scale(normalizer, device)
        self.input_scale = Scale(normalizer.select(self.roles.input_channels), device)
        self.output_scale = Scale(outputs, device)
        self.units = outputs.units
        # leads with errors in physical units, and the names of these errors in the training curve
        self.scored_leads = sorted({0, task.horizon - 1})
        self.columns = {
            (index, channel_index): _column_name(channel, task.step, lead + 1)
            for index, lead in enumerate(self.scored_leads)
            for channel_index, channel in enumerate(outputs.channels)
        }

        # masked cells weigh nothing; the mean over all cells is one for every channel
        area_CHW = np.where(outputs.mask, 0, setup.weights[:, None])
        self.area_CHW = tensor(area_CHW / area_CHW.mean(axis=(1, 2), keepdims=True))
        loss_area_CHW = area_CHW if config.area_weighted else np.where(outputs.mask, 0, 1)
        self.loss_area_CHW = tensor(loss_area_CHW / loss_area_CHW.mean(axis=(1, 2), keepdims=True))

        leads = np.arange(self.max_leads)
        scale_TC = np.ones((1, len(outputs.channels)))
        if config.loss_normalization == "change":
            scale_TC = outputs.change_std / outputs.std
        # in later calls the typical change stays near that of the first call's last lead
        scale_TC = scale_TC[np.minimum(leads, len(scale_TC) - 1)]
        lead_weights = np.ones(self.horizon) if config.lead_weights is None else np.array(config.lead_weights)
        weight_T = lead_weights[np.minimum(leads, self.horizon - 1)]
        weight_C = _channel_weights(dict(config.variable_weights), outputs.channels)
        self.scale_TC11 = tensor(scale_TC)[:, :, None, None]
        self.weight_TC11 = tensor(weight_T[:, None] * (weight_C / weight_C.mean()))[:, :, None, None]

    def __call__(self, network: nn.Module, batch: Batch, inits: pd.Index, leads: int, members: int = 0) -> Tensor:
        """Return the loss of the network's forecasts of a batch over the first `leads` steps, a scalar.

        With `members` it is the CRPS of as many, each with noise of its own, without the squared error.
        """
        if not members:
            return self.error(*self.forecast(network, batch, inits, leads))
        forecast_BTCHW, truth_BTCHW = self.forecast(network, batch, inits, leads, members)
        return self.crps(forecast_BTCHW.unflatten(0, (members, -1)), truth_BTCHW)

    def forecast(
        self, network: nn.Module, batch: Batch, inits: pd.Index, leads: int, members: int = 0
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return normalized forecast and truth of `leads` steps, (B, T, C, H, W) each; `inits` are of all windows.

        The forecasts are those of all windows for the first member, then for the second. Without members, a network
        with noise gets zeros.
        """
        # copy whole windows: parts of pinned memory would first be gathered on the host, which waits for the GPU
        x_BTCHW = batch.states.to(self.device, non_blocking=True)
        x_BTCHW = self.scale.normalize(x_BTCHW[:, : self.history + leads])
        f_BTFHW = self.forcings(inits[batch.windows], leads)
        # the input channels come first
        input_BTCHW = x_BTCHW[:, : self.history, : len(self.roles.input_channels)]
        noise = None
        if members:
            input_BTCHW = input_BTCHW.repeat(members, 1, 1, 1, 1)
            f_BTFHW = None if f_BTFHW is None else f_BTFHW.repeat(members, 1, 1, 1, 1)
        elif (noise_grid := getattr(network, "noise_grid", None)) is not None:
            noise = [x_BTCHW.new_zeros(len(x_BTCHW), *noise_grid)] * math.ceil(leads / self.history)
        forecast_BTCHW = rollout(network, input_BTCHW, leads, f_BTFHW, self.input_scale.constrain, noise).float()
        return forecast_BTCHW, self._outputs(x_BTCHW[:, self.history :])

    def error(self, forecast_BTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return mean(a_hw * w_t * w_c * ((forecast - truth) / s_tc)^2), a scalar."""
        # a: area, w: leads and variables, with mean one each; s: scale of the errors
        weight_TC11, scale_TC11 = self._weights(forecast_BTCHW.shape[1])
        # w * (e / s)^2 = (e * (sqrt(w) / s))^2: errors are multiplied once
        error_BTCHW = (forecast_BTCHW - truth_BTCHW) * (weight_TC11.sqrt() / scale_TC11)
        return (error_BTCHW**2 * self.loss_area_CHW).mean()

    def crps(self, forecast_MBTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return the almost fair CRPS of members, weighted as the squared error, in units of s_tc, a scalar.

        It is the mean over pairs of members of (|x_i - y| + |x_j - y| - (1 - e) |x_i - x_j|) / 2 with
        e = (1 - alpha) / M (Lang et al. 2024, arXiv:2412.15832, eq. 4). No term is negative, so that rounding errors
        of large, nearly equal numbers do not remain.
        """
        members = len(forecast_MBTCHW)
        error_MBTCHW = (forecast_MBTCHW - truth_BTCHW).abs()
        epsilon = (1 - _ALPHA) / members
        total_BTCHW = torch.zeros_like(truth_BTCHW)
        for first in range(members):
            for second in range(first):
                spread_BTCHW = (forecast_MBTCHW[first] - forecast_MBTCHW[second]).abs()
                total_BTCHW = total_BTCHW + error_MBTCHW[first] + error_MBTCHW[second] - (1 - epsilon) * spread_BTCHW
        weight_TC11, scale_TC11 = self._weights(truth_BTCHW.shape[1])
        crps_BTCHW = total_BTCHW * (weight_TC11 / scale_TC11) / (members * (members - 1))
        return (crps_BTCHW * self.loss_area_CHW).mean()

    def _weights(self, leads: int) -> tuple[Tensor, Tensor]:
        """Return weights, with mean one over the first leads and channels, and scales of the errors, (T, C, 1, 1)."""
        weight_TC11 = self.weight_TC11[:leads]
        return weight_TC11 / weight_TC11.mean(), self.scale_TC11[:leads]

    def squared_errors(self, forecast_BTCHW: Tensor, batch: Batch) -> Tensor:
        """Return area-weighted mean squared errors in physical units at `scored_leads`, summed over windows, (T, C)."""
        truth_BTCHW = batch.states[:, [self.history + lead for lead in self.scored_leads]].to(self.device)
        error_BTCHW = self.output_scale.denormalize(forecast_BTCHW[:, self.scored_leads]) - self._outputs(truth_BTCHW)
        if self.output_scale.mask_CHW is not None:
            error_BTCHW = error_BTCHW.masked_fill(self.output_scale.mask_CHW, 0)
        return (error_BTCHW**2 * self.area_CHW).mean(dim=(3, 4)).sum(dim=0)

    def _outputs(self, x_BTCHW: Tensor) -> Tensor:
        """Return the output channels; a view where these are all."""
        return x_BTCHW if len(self.outputs) == x_BTCHW.shape[2] else x_BTCHW[:, :, self.outputs]


def _channel_weights(weights: dict[str, float], channels: Sequence[Channel]) -> np.ndarray:
    """Return the weight of each channel: that of its variable and level, else of its variable, else 1."""
    pairs = [(_channel_name(channel), channel.variable) for channel in channels]
    if unknown := sorted(weights.keys() - (known := {name for pair in pairs for name in pair})):
        raise ValueError(f"variable_weights names {unknown}, which must be of {sorted(known)}")
    return np.array([weights.get(name, weights.get(variable, 1.0)) for name, variable in pairs])


def _channel_name(channel: Channel) -> str:
    """Return "t2m", or "geopotential_500" for a variable with levels."""
    return channel.variable if channel.level is None else f"{channel.variable}_{channel.level:g}"


def _column_name(channel: Channel, step: str, steps: int) -> str:
    """Return "valid_rmse_t2m_72h", with the level if there is one; "3M" for calendar months."""
    size = parse_step(step) * steps
    lead = f"{size}M" if isinstance(size, int) else f"{size / pd.Timedelta('1h'):g}h"
    return f"valid_rmse_{_channel_name(channel)}_{lead}"
