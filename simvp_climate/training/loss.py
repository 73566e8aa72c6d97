"""The error that is trained on, on the device.

Shape suffixes: B window of a batch, T time or lead, C channel, H latitude, W longitude, F forcing.
"""

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from simvp_climate.data.reader import Channel
from simvp_climate.data.windows import parse_step
from simvp_climate.networks.simvp_v2 import rollout
from simvp_climate.processing import tensors
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.training import loader
from simvp_climate.training.config import TrainConfig


class Loss:
    """The weighted squared error of forecasts of a batch, and errors in physical units.

    Parameters
    ----------
    config
        Says in which units errors are, and what counts how much.
    weights
        Area weights with mean one, (H,).

    Attributes
    ----------
    columns
        Names under which the history has the errors in physical units, by (which of `shown`, channel).
    shown
        The leads that they are of: the first and the last of the task, from 0.
    units
        Of each channel.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        normalizer: Normalizer,
        weights: np.ndarray,
        forcings: tensors.Forcings,
        device: torch.device,
    ):
        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.scale, self.forcings, self.device = tensors.Scale(normalizer, device), forcings, device
        self.roles = tensors.channel_roles(task, normalizer.channels)
        self.scale_seen = tensors.Scale(normalizer.select(self.roles.input_channels), device)
        normalizer = normalizer.select(self.roles.output_channels)  # from here on it is about what comes out
        self.scale_told = tensors.Scale(normalizer, device)
        self.history = task.history
        self.shown = sorted({0, task.horizon - 1})
        self.units = normalizer.units
        self.columns = {
            (at, number): f"valid_rmse_{_name(channel)}_{_words(task.step, lead + 1)}"
            for at, lead in enumerate(self.shown)
            for number, channel in enumerate(normalizer.channels)
        }
        # cells without values have no weight; the mean over the others is one for every channel
        area_CHW = np.where(normalizer.mask, 0, weights[:, None] if config.area_weighted else 1)
        self.area_CHW = tensor(area_CHW / area_CHW.mean(axis=(1, 2), keepdims=True))
        area_CHW = np.where(normalizer.mask, 0, weights[:, None])
        self.true_area_CHW = tensor(area_CHW / area_CHW.mean(axis=(1, 2), keepdims=True))
        leads = config.leads(task)
        units_TC = np.ones((1, len(normalizer.channels)))
        if config.loss_normalization == "change":
            units_TC = normalizer.change_std / normalizer.std
        # leads of later calls have settled near the change of the last lead of the first
        units_TC = units_TC[np.minimum(np.arange(leads), len(units_TC) - 1)]
        weight_of = dict(config.variable_weights)
        weight_C = np.array([weight_of.get(channel.variable, 1.0) for channel in normalizer.channels])
        weight_T = np.ones(leads)
        if config.lead_weights is not None:
            weight_T = np.array(config.lead_weights)[np.minimum(np.arange(leads), task.horizon - 1)]
        # the weights go into the units: errors are divided once
        self.units_TC11 = tensor(units_TC / np.sqrt(weight_C / weight_C.mean()))[:, :, None, None]
        self.weight_T111 = tensor(weight_T)[:, None, None, None]

    def forecast(self, network: nn.Module, batch: loader.Batch, inits: pd.Index, leads: int) -> tuple[Tensor, Tensor]:
        """Return forecast and truth of `leads` steps as the network sees them, (B, T, C, H, W) each.

        `inits` are the initialization times of all windows.
        """
        x_BTCHW = batch.states[:, : self.history + leads].to(self.device, non_blocking=True)
        x_BTCHW = self.scale.normalize(x_BTCHW)
        f_BTFHW = self.forcings(inits[batch.windows], math.ceil(leads / self.history))
        seen_BTCHW = x_BTCHW[:, : self.history, : len(self.roles.input_channels)]
        forecast_BTCHW = rollout(network, seen_BTCHW, leads, f_BTFHW, self.scale_seen.constrain).float()
        return forecast_BTCHW, _told(x_BTCHW[:, self.history :], self.roles)

    def error(self, forecast_BTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return the mean over windows, leads, channels and cells, each with its unit and weight."""
        leads = forecast_BTCHW.shape[1]
        weight_T111 = self.weight_T111[:leads] / self.weight_T111[:leads].mean()
        error_BTCHW = (forecast_BTCHW - truth_BTCHW) * (weight_T111.sqrt() / self.units_TC11[:leads])
        return (error_BTCHW**2 * self.area_CHW).mean()

    def squares(self, forecast_BTCHW: Tensor, batch: loader.Batch) -> Tensor:
        """Return squared errors in physical units at the leads `shown`, (lead, C): area means, summed over windows."""
        truth_BTCHW = batch.states[:, [self.history + lead for lead in self.shown]].to(self.device)
        error_BTCHW = self.scale_told.denormalize(forecast_BTCHW[:, self.shown]) - _told(truth_BTCHW, self.roles)
        if self.scale_told.mask_CHW is not None:
            error_BTCHW = error_BTCHW.masked_fill(self.scale_told.mask_CHW, 0)
        return (error_BTCHW**2 * self.true_area_CHW).mean(dim=(3, 4)).sum(dim=0)

    def __call__(self, network: nn.Module, batch: loader.Batch, inits: pd.Index, leads: int) -> Tensor:
        """Return the error of the network's forecasts of some windows over their first `leads` steps."""
        return self.error(*self.forecast(network, batch, inits, leads))


def _told(x_BTCHW: Tensor, roles: tensors.ChannelRoles) -> Tensor:
    """Return the channels that come out; a view where these are all."""
    return x_BTCHW if len(roles.output_channels) == x_BTCHW.shape[2] else x_BTCHW[:, :, roles.output_channels]


def _name(channel: Channel) -> str:
    return channel.variable if channel.level is None else f"{channel.variable}_{channel.level:g}"


def _words(step: str, count: int) -> str:
    """Return the lead after some steps: "72h", or "3M" for calendar months."""
    size = parse_step(step) * count
    return f"{size}M" if isinstance(size, int) else f"{size / pd.Timedelta('1h'):g}h"
