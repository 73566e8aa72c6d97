"""The error that is trained on, on the device.

Shape suffixes: B window of a batch, T time or lead, C channel, H latitude, W longitude, F forcing.
"""

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from simvp_climate import loader
from simvp_climate.data.normalizer import Normalizer
from simvp_climate.networks.simvp_v2 import rollout
from simvp_climate.settings import TrainConfig
from simvp_climate.task import Task


class Loss:
    """The weighted squared error of forecasts of a batch.

    Parameters
    ----------
    config
        Says in which units errors are, and what counts how much.
    weights
        Area weights with mean one, (H,).
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        normalizer: Normalizer,
        weights: np.ndarray,
        forcings: loader.Forcings,
        device: torch.device,
    ):
        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.scale, self.forcings, self.device = loader.Scale(normalizer, device), forcings, device
        self.history = task.history
        # cells without values have no weight; the mean over the others is one for every channel
        area_CHW = np.where(normalizer.mask, 0, weights[:, None] if config.area_weighted else 1)
        self.area_CHW = tensor(area_CHW / area_CHW.mean(axis=(1, 2), keepdims=True))
        leads = config.leads(task)
        units_TC = np.ones((1, len(normalizer.channels)))
        if config.loss_scale == "change":
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
        forecast_BTCHW = rollout(network, x_BTCHW[:, : self.history], leads, f_BTFHW).float()
        return forecast_BTCHW, x_BTCHW[:, self.history :]

    def error(self, forecast_BTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return the mean over windows, leads, channels and cells, each with its unit and weight."""
        leads = forecast_BTCHW.shape[1]
        weight_T111 = self.weight_T111[:leads] / self.weight_T111[:leads].mean()
        error_BTCHW = (forecast_BTCHW - truth_BTCHW) * (weight_T111.sqrt() / self.units_TC11[:leads])
        return (error_BTCHW**2 * self.area_CHW).mean()

    def __call__(self, network: nn.Module, batch: loader.Batch, inits: pd.Index, leads: int) -> Tensor:
        """Return the error of the network's forecasts of some windows over their first `leads` steps."""
        return self.error(*self.forecast(network, batch, inits, leads))
