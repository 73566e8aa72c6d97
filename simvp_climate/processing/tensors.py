"""Datasets as tensors: the channels of a task, its forcings, normalization on the device, the network.

Shape suffixes: C channel, H latitude, W longitude; B window of a batch, T time of a window; F forcing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from simvp_climate.data import reader
from simvp_climate.data.windows import parse_step, shift
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.processing import forcings
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task


class Forcings:
    """What the network sees beside the states, on the device: nothing of it is read while it trains or forecasts.

    For every input state the forcings at its time, those at the time that is forecast from its place, and the
    fields that do not change.

    Parameters
    ----------
    task
        Names the forcings.
    latitude, longitude
        Of the grid inside, degrees.
    statics
        The fields named in `task.forcings` that have no time, in that order, (field, H, W), in their own units.
    weights
        Area weights with mean one, (H,).
    """

    def __init__(
        self,
        task: Task,
        latitude: np.ndarray,
        longitude: np.ndarray,
        statics: np.ndarray,
        weights: np.ndarray,
        device: torch.device,
    ):
        self.task, self.latitude, self.device = task, latitude, device
        self.changing = len(forcings.channels(task.forcings))
        self.clipped = [int(at) for at in np.flatnonzero(forcings.clipped(task.forcings))]
        fields = []
        if "coordinates" in task.forcings:
            fields.append(forcings.coordinate_fields(latitude, longitude))
        if len(statics):
            mean = (statics * weights[:, None]).mean(axis=(1, 2), keepdims=True)
            deviation = np.sqrt(((statics - mean) ** 2 * weights[:, None]).mean(axis=(1, 2), keepdims=True))
            fields.append((statics - mean) / np.maximum(deviation, 1e-12))
        shape = (0, len(latitude), len(longitude))
        fixed = np.concatenate(fields) if fields else np.empty(shape)
        self.fixed_FHW = torch.as_tensor(fixed, dtype=torch.float32, device=device)
        east = np.deg2rad(longitude)
        waves = np.stack([np.ones_like(east), np.cos(east), np.sin(east)])
        self.waves_3W = torch.as_tensor(waves, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        """Return the number of channels that the network sees beside the state."""
        return 2 * self.changing + len(self.fixed_FHW)

    def __call__(self, inits: pd.Index, calls: int) -> Tensor | None:
        """Return the forcings of forecasts of `calls` network calls from some initializations, (B, T, F, H, W)."""
        if not len(self):
            return None
        history = self.task.history
        parts = []
        if self.changing:
            steps = range(1 - history, calls * history + 1)
            times = [shift(inits, self.task.step, step) for step in steps]
            unique, inverse = np.unique(np.stack([np.asarray(one) for one in times], axis=1), return_inverse=True)
            rows = forcings.harmonics(
                self.task.forcings, type(inits)(unique), self.latitude, parse_step(self.task.step)
            )
            fields_NFHW = torch.as_tensor(rows, device=self.device) @ self.waves_3W
            for channel in self.clipped:
                fields_NFHW[:, channel].clamp_(min=0)
            fields_BTFHW = fields_NFHW[torch.as_tensor(inverse.reshape(len(inits), -1), device=self.device)]
            parts = [fields_BTFHW[:, : calls * history], fields_BTFHW[:, history:]]
        if len(self.fixed_FHW):
            parts.append(self.fixed_FHW.expand(len(inits), calls * history, *self.fixed_FHW.shape))
        return torch.cat(parts, dim=2)


@dataclass(frozen=True)
class ChannelRoles:
    """Which channels of the states go into the network, and which come out.

    Attributes
    ----------
    input_channels, output_channels
        Places of the channels that go in, and of those that come out. The first ones are the same.
    shared_count
        How many are the same.
    """

    input_channels: list[int]
    output_channels: list[int]
    shared_count: int


def channel_roles(task: Task, channels: Sequence[reader.Channel]) -> ChannelRoles:
    """Return what the channels of the states of a task are for: they are in the order of `task.all_variables`."""
    places = {name: [] for name in ("variables", "inputs", "diagnostics")}
    for at, channel in enumerate(channels):
        next(found for name, found in places.items() if channel.variable in getattr(task, name)).append(at)
    both = places["variables"]
    return ChannelRoles(both + places["inputs"], both + places["diagnostics"], len(both))


def build_network(config: SimVPv2Config, task: Task, channels: Sequence[reader.Channel]) -> SimVPv2:
    """Return the network of a task, with initial weights."""
    roles = channel_roles(task, channels)
    return SimVPv2(
        config,
        history=task.history,
        channels=len(roles.input_channels),
        output_channels=len(roles.output_channels),
        shared_channels=roles.shared_count,
        forcings=len(forcing_names(task)),
    )


def forcing_names(task: Task) -> list[str]:
    """Return the names of the channels of `Forcings`, in order, as forecaster files store them."""
    varying = forcings.channels(task.forcings)
    names = [f"{name}{suffix}" for suffix in ("", "_at_output") for name in varying]
    names += forcings.COORDINATE_CHANNELS if "coordinates" in task.forcings else ()
    return [*names, *forcings.static_names(task.forcings)]


def channel_names(task: Task, channels: Sequence[reader.Channel]) -> tuple[list[str], list[str]]:
    """Return the names of the network's input channels, forcings included, and of its output channels."""
    roles, names = channel_roles(task, channels), [str(channel) for channel in channels]
    inputs = [names[index] for index in roles.input_channels]
    return [*inputs, *forcing_names(task)], [names[index] for index in roles.output_channels]


class Scale:
    """What carries states to the numbers that the network sees, and back, on the device.

    The logarithm where it is learned, then mean and standard deviation per channel; cells without values are 0, the
    mean. Back again a forecast is held within the bounds of its variable and has no value where the data had none.
    """

    def __init__(self, normalizer: Normalizer, device: torch.device):
        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.mean_C11 = tensor(normalizer.mean)[:, None, None]
        self.std_C11 = tensor(normalizer.std)[:, None, None]
        self.mask_CHW = torch.as_tensor(normalizer.mask, device=device) if normalizer.mask.any() else None
        self.logged = [(int(at), float(normalizer.log_scale[at])) for at in np.flatnonzero(normalizer.log_scale)]
        bounded = np.isfinite(normalizer.bounds).any()
        self.bounds_2C11 = tensor(normalizer.bounds.T)[:, :, None, None] if bounded else None

    def normalize(self, x_BTCHW: Tensor) -> Tensor:
        """Return states in physical units as the network sees them."""
        x_BTCHW = self.transform(x_BTCHW)
        return x_BTCHW if self.mask_CHW is None else x_BTCHW.masked_fill(self.mask_CHW, 0)

    def transform(self, x_CHW: Tensor) -> Tensor:
        """Return values in physical units, (..., C, H, W), bent and normalized."""
        if self.logged:
            x_CHW = x_CHW.clone()
            for at, scale in self.logged:
                x_CHW[..., at, :, :] = torch.log1p(x_CHW[..., at, :, :].clamp(min=0) / scale)
        return (x_CHW - self.mean_C11) / self.std_C11

    def constrain(self, y_BTCHW: Tensor) -> Tensor:
        """Return forecasts, as the network gives them, as it sees states: within the bounds, 0 without values."""
        if self.bounds_2C11 is not None:
            low_C11, high_C11 = (self.transform(bound_C11) for bound_C11 in self.bounds_2C11)
            y_BTCHW = torch.clamp(y_BTCHW, low_C11, high_C11)
        return y_BTCHW if self.mask_CHW is None else y_BTCHW.masked_fill(self.mask_CHW, 0)

    def denormalize(self, y_BTCHW: Tensor) -> Tensor:
        """Return what the network gives in physical units."""
        y_BTCHW = y_BTCHW * self.std_C11 + self.mean_C11
        for at, scale in self.logged:
            y_BTCHW[:, :, at] = torch.expm1(y_BTCHW[:, :, at]) * scale
        if self.bounds_2C11 is not None:
            y_BTCHW = torch.clamp(y_BTCHW, self.bounds_2C11[0], self.bounds_2C11[1])
        return y_BTCHW if self.mask_CHW is None else y_BTCHW.masked_fill(self.mask_CHW, torch.nan)
