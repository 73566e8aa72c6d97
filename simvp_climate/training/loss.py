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

from simvp_climate.data.grid import closes_longitude
from simvp_climate.data.reader import Channel
from simvp_climate.data.windows import parse_step
from simvp_climate.networks.rollout import rollout
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.tensors import Forcings, Scale, add_prescribed
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.datasets import Setup
from simvp_climate.training.loader import Batch

_ALPHA = 0.95  # of the almost fair CRPS (Lang et al. 2024, arXiv:2412.15832)
ENSEMBLE_ERRORS = 5  # fields of `Loss.ensemble_errors`
_MIN_POWER = 1e-12  # keeps the gradient of the amplitude finite
_SMALL_SCALES = (10, 20)  # zonal wavenumbers of `metrics.small_scale_variance`


class Loss:
    """The weighted mean squared error of the forecasts of a batch, or the CRPS of those of several members."""

    def __init__(
        self, config: TrainConfig, setup: Setup, normalizer: Normalizer, forcings: Forcings, device: torch.device
    ):
        task, tensor = setup.task, partial(torch.as_tensor, dtype=torch.float32, device=device)
        # the number of leads of the task, and of the longest rollout
        self.history, self.horizon, self.max_leads = task.history, task.horizon, setup.leads
        self.step = task.step
        self.forcings, self.device, self.roles = forcings, device, setup.roles
        outputs = normalizer.select(self.roles.output_channels)
        self.outputs = torch.tensor(self.roles.output_channels, device=device)
        # on the device: a list would be copied there at every step, which waits for the GPU
        self.prescribed = torch.tensor(self.roles.prescribed_channels, dtype=torch.long, device=device)
        self.scale = Scale(normalizer, device)
        self.input_scale = Scale(normalizer.select(self.roles.input_channels), device)
        self.output_scale = Scale(outputs, device)
        self.units = outputs.units
        inputs = normalizer.select(self.roles.input_channels)
        typical_CHW = (config.input_noise * inputs.change_std[0] / inputs.std)[:, None, None]
        self.input_noise_CHW = tensor(np.where(inputs.mask, 0, typical_CHW)) if config.input_noise else None
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

        is_global = closes_longitude(setup.longitude)
        # rows with masked cells do not count, as in the metric
        self.row_weight_CH = self.area_CHW.mean(dim=-1) * tensor(~outputs.mask.any(axis=-1))
        self.has_small_scales = is_global and len(setup.longitude) >= 2 * _SMALL_SCALES[1]
        self.is_adjusted = config.loss == "amse"
        if self.is_adjusted and not is_global:
            rule = "loss='amse' compares zonal spectra, which need longitudes around the globe"
            raise ValueError(f"{rule}: take loss='mse' for a regional grid")
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

        With `members`, return the CRPS of that many forecasts, each with its own noise.
        """
        if not members:
            return self.error(*self.forecast(network, batch, inits, leads, input_noise=True))
        forecast_BTCHW, truth_BTCHW = self.forecast(network, batch, inits, leads, members, input_noise=True)
        return self.crps(forecast_BTCHW.unflatten(0, (members, -1)), truth_BTCHW)

    def forecast(
        self, network: nn.Module, batch: Batch, inits: pd.Index, leads: int, members: int = 0,
        input_noise: bool = False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return normalized forecast and truth of `leads` steps, (B, T, C, H, W) each; `inits` are of all windows.

        The forecasts are those of all windows for the first member, then for the second. Without members, a network
        with noise gets zeros. `input_noise`: whether the inputs get that of the configuration.
        """
        # copy whole windows: parts of pinned memory would first be gathered on the host, which waits for the GPU
        x_BTCHW = batch.states.to(self.device, non_blocking=True)
        x_BTCHW = self.scale.normalize(x_BTCHW[:, : self.history + leads])
        f_BTFHW = self.forcings(inits[batch.windows], leads)
        if self.roles.prescribed_channels:
            f_BTFHW = add_prescribed(f_BTFHW, x_BTCHW[:, :, self.prescribed], self.history, leads)
        # the input channels come first
        input_BTCHW = x_BTCHW[:, : self.history, : len(self.roles.input_channels)]
        if input_noise and self.input_noise_CHW is not None:
            input_BTCHW = input_BTCHW + self.input_noise_CHW * torch.randn_like(input_BTCHW)
        if members:
            input_BTCHW = input_BTCHW.repeat(members, 1, 1, 1, 1)
            f_BTFHW = None if f_BTFHW is None else f_BTFHW.repeat(members, 1, 1, 1, 1)
        noise = None
        if (noise_grid := getattr(network, "noise_grid", None)) is not None:
            # drawn here: within a compiled network it would be other noise
            draw = torch.randn if members else torch.zeros
            shape, calls = (len(input_BTCHW), *noise_grid), math.ceil(leads / self.history)
            noise = [draw(shape, device=self.device) for _ in range(calls)]
        forecast_BTCHW = rollout(network, input_BTCHW, leads, f_BTFHW, self.input_scale.constrain, noise).float()
        return forecast_BTCHW, self._outputs(x_BTCHW[:, self.history :])

    def error(self, forecast_BTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return mean(a_hw * w_t * w_c * ((forecast - truth) / s_tc)^2), a scalar."""
        # a: area, w: leads and variables, with mean one each; s: scale of the errors
        weight_TC11, scale_TC11 = self._weights(forecast_BTCHW.shape[1])
        if self.is_adjusted:
            factor_TC11 = weight_TC11.sqrt() / scale_TC11
            return self._adjusted_error(forecast_BTCHW * factor_TC11, truth_BTCHW * factor_TC11)
        # w * (e / s)^2 = (e * (sqrt(w) / s))^2: errors are multiplied once
        error_BTCHW = (forecast_BTCHW - truth_BTCHW) * (weight_TC11.sqrt() / scale_TC11)
        return (error_BTCHW**2 * self.loss_area_CHW).mean()

    def _adjusted_error(self, forecast_BTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return the adjusted mean squared error, a scalar (Subich et al. 2025, arXiv:2501.19374).

        With the power P of a zonal wavenumber, weighted by area and summed over latitudes, and the coherence c, the
        mean squared error is the sum over wavenumbers of (sqrt(Px) - sqrt(Py))^2 + 2 sqrt(Px Py) (1 - c). A forecast
        lowers its last term by losing power. Here that term has max(Px, Py) in place of sqrt(Px Py).
        """
        width = forecast_BTCHW.shape[-1]
        weight_CHW = self.loss_area_CHW / self.loss_area_CHW.shape[-2]
        # masked cells are 0 in both fields; a row has the weight of its other cells
        weight_CHK = weight_CHW.amax(dim=-1, keepdim=True) * _wavenumber_counts(width).to(weight_CHW)
        x_BTCHK, y_BTCHK = (
            torch.fft.rfft(self.blank_masked(field), norm="forward") for field in (forecast_BTCHW, truth_BTCHW)
        )

        def product(a: Tensor, b: Tensor) -> Tensor:
            return ((a.real * b.real + a.imag * b.imag) * weight_CHK).sum(dim=-2)

        power_x, power_y = (product(z, z).clamp(min=_MIN_POWER) for z in (x_BTCHK, y_BTCHK))
        amplitude_x, amplitude_y = power_x.sqrt(), power_y.sqrt()
        of_amplitude = (amplitude_x - amplitude_y) ** 2
        # 2 sqrt(Px Py) (1 - c) from the difference of the fields: 1 - c itself would lose digits where c is near 1
        difference_BTCHK = x_BTCHK - y_BTCHK
        of_position = product(difference_BTCHK, difference_BTCHK) - of_amplitude
        # max(Px, Py) / sqrt(Px Py)
        factor = torch.maximum(amplitude_x, amplitude_y) / torch.minimum(amplitude_x, amplitude_y)
        return (of_amplitude + factor * of_position).sum(dim=-1).mean()

    def crps(self, forecast_MBTCHW: Tensor, truth_BTCHW: Tensor) -> Tensor:
        """Return the almost fair CRPS of members, weighted as the squared error, in units of s_tc, a scalar."""
        weight_TC11, scale_TC11 = self._weights(truth_BTCHW.shape[1])
        crps_BTCHW = _crps(forecast_MBTCHW, truth_BTCHW, _ALPHA) * (weight_TC11 / scale_TC11)
        return (crps_BTCHW * self.loss_area_CHW).mean()

    def _weights(self, leads: int) -> tuple[Tensor, Tensor]:
        """Return weights, with mean one over the first leads and channels, and scales of the errors, (T, C, 1, 1)."""
        weight_TC11 = self.weight_TC11[:leads]
        return weight_TC11 / weight_TC11.mean(), self.scale_TC11[:leads]

    def squared_errors(self, forecast_BTCHW: Tensor, batch: Batch) -> Tensor:
        """Return area-weighted mean squared errors in physical units at `scored_leads`, summed over windows, (T, C)."""
        truth_BTCHW = self._scored_truth(batch)
        error_BTCHW = self.blank_masked(self._scored(forecast_BTCHW) - truth_BTCHW)
        return self._area_mean(error_BTCHW**2).sum(dim=0)

    def ensemble_errors(self, forecast_MBTCHW: Tensor, batch: Batch) -> Tensor:
        """Return sums over windows of what `ensemble_columns` needs, at `scored_leads`, (ENSEMBLE_ERRORS, T, C).

        In physical units and weighted by area: the squared error of the mean of members, the variance of members, their
        fair CRPS, and the variance in small zonal scales of all members and of the truth.
        """
        truth_BTCHW = self.blank_masked(self._scored_truth(batch))
        members_MBTCHW = self.blank_masked(torch.stack([self._scored(member) for member in forecast_MBTCHW]))
        fields = [
            (members_MBTCHW.mean(dim=0) - truth_BTCHW) ** 2,
            members_MBTCHW.var(dim=0),
            _crps(members_MBTCHW, truth_BTCHW, alpha=1),
        ]
        sums = [self._area_mean(field).sum(dim=0) for field in fields]
        sums.append(self._small_scales(members_MBTCHW).mean(dim=0).sum(dim=0))
        return torch.stack([*sums, self._small_scales(truth_BTCHW).sum(dim=0)])

    def ensemble_columns(self, means: np.ndarray, members: int) -> dict[str, float]:
        """Return the columns of the training curve for an ensemble from means over windows of `ensemble_errors`."""
        squares, variance, crps, small_scales, true_small_scales = means
        with np.errstate(invalid="ignore", divide="ignore"):
            # as metrics.spread_skill_ratio: does not depend on the number of members
            spread_skill = np.sqrt(variance / (squares - variance / members))
            values = {"crps": crps, "spread_skill": spread_skill}
            if self.has_small_scales:
                values["small_scales"] = small_scales / true_small_scales
        return {
            column.replace("valid_rmse", f"valid_{name}"): float(value[position])
            for name, value in values.items()
            for position, column in self.columns.items()
        }

    def _scored(self, forecast_BTCHW: Tensor) -> Tensor:
        """Return a forecast at the scored leads in physical units."""
        return self.output_scale.denormalize(forecast_BTCHW[:, self.scored_leads])

    def _scored_truth(self, batch: Batch) -> Tensor:
        truth_BTCHW = batch.states[:, [self.history + lead for lead in self.scored_leads]].to(self.device)
        return self._outputs(truth_BTCHW)

    def mean_field(self, field: np.ndarray) -> Tensor:
        """Return a mean field of all channels, normalized, in the output channels, (C, H, W)."""
        channels = self.roles.output_channels
        field_CHW = torch.as_tensor(field[channels], dtype=torch.float32, device=self.device)
        return (field_CHW - self.output_scale.mean_C11) / self.output_scale.std_C11

    def blank_masked(self, field: Tensor) -> Tensor:
        """Return a field with 0 in masked cells."""
        mask_CHW = self.output_scale.mask_CHW
        return field if mask_CHW is None else field.masked_fill(mask_CHW, 0)

    def _area_mean(self, field: Tensor) -> Tensor:
        return (field * self.area_CHW).mean(dim=(-2, -1))

    def _small_scales(self, field: Tensor) -> Tensor:
        """Return the variance in the wavenumbers of `metrics.small_scale_variance`, weighted by area, (..., C)."""
        power = torch.fft.rfft(field)[..., slice(*_SMALL_SCALES)].abs() ** 2
        return (power.sum(dim=-1) * self.row_weight_CH).mean(dim=-1)

    def _outputs(self, x_BTCHW: Tensor) -> Tensor:
        """Return the output channels; a view where these are all."""
        return x_BTCHW if len(self.outputs) == x_BTCHW.shape[2] else x_BTCHW[:, :, self.outputs]


def _wavenumber_counts(width: int) -> Tensor:
    """Return how many coefficients of a Fourier transform each zonal wavenumber stands for: k and -k, or one."""
    counts = torch.full((width // 2 + 1,), 2.0)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    return counts


def _crps(forecast_MBTCHW: Tensor, truth_BTCHW: Tensor, alpha: float) -> Tensor:
    """Return the almost fair CRPS of members in each cell, (B, T, C, H, W); with alpha = 1 the fair one.

    The mean over pairs of members of (|x_i - y| + |x_j - y| - (1 - e) |x_i - x_j|) / 2 with e = (1 - alpha) / M
    (Lang et al. 2024, arXiv:2412.15832). No term is negative, so no small difference of large numbers remains.
    """
    members = len(forecast_MBTCHW)
    error_MBTCHW, epsilon = (forecast_MBTCHW - truth_BTCHW).abs(), (1 - alpha) / members
    total_BTCHW = torch.zeros_like(truth_BTCHW)
    for first in range(members):
        for second in range(first):
            spread_BTCHW = (forecast_MBTCHW[first] - forecast_MBTCHW[second]).abs()
            total_BTCHW = total_BTCHW + error_MBTCHW[first] + error_MBTCHW[second] - (1 - epsilon) * spread_BTCHW
    return total_BTCHW / (members * (members - 1))


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
