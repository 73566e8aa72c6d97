"""Calibrate the noise of a network that forecasts ensembles."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import xarray as xr

from simvp_climate.data.windows import shift
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.forecasting.request import resolve_request
from simvp_climate.metrics.ensemble import spread_skill_ratio
from simvp_climate.networks.noise import is_of_noise
from simvp_climate.processing import tensors

_MAX_RATIO = 3.0  # a lead counts no more, also where the spread alone explains more than the error
_FACTORS = 0.25, 4.0
_ATTEMPTS = 10
_TOLERANCE = 0.01  # of the mean ratio from 1


def calibrate_noise(
    forecaster: Forecaster, valid: xr.Dataset, *, horizon: int | None = None, every: str = "3D", members: int = 8,
    seed: int = 0,
) -> Forecaster:  # fmt: skip
    """Return a forecaster with noise scaled so that, on average over leads, spread equals the error of the mean.

    After training, the spread of the members is mostly smaller than their error, probably because a network knows the
    weather it was trained on better than new weather. This multiplies the weights that take in the noise by one factor,
    for which `spread_skill_ratio` on a validation period is one on average over variables, levels and leads. The ratio
    of a single lead may still differ.

    Parameters
    ----------
    forecaster
        One with noise, trained with `loss="crps"`. It is not changed.
    valid
        The validation period; do not score the same period.
    horizon
        Last lead that counts, in steps; by default five times the task's horizon.
    every, members, seed
        As for a call of the forecaster, with at least 2 members.

    Returns
    -------
    Forecaster
        With the factor as `noise_factor` in its provenance, times that of an earlier calibration, and the period as
        `noise_calibration`.

    Raises
    ------
    ValueError
        As for a call of the forecaster; if there are fewer than 2 members, the network is one of your own or has no
        noise, the noise has no effect, or no factor from 1/4 to 4 makes the mean ratio one to within 1 %.
    """
    if tensors.is_custom(forecaster.network):
        kind = f"a {type(forecaster.network).__name__} of your own"
        raise ValueError(f"calibrate_noise scales the noise of a SimVPSphere or SimVPv2, and this network is {kind}.")
    if members < 2:
        raise ValueError(f"members={members!r} must be at least 2: one member has no spread.")
    horizon = 5 * forecaster.task.horizon if horizon is None else horizon
    inits = _complete_inits(forecaster, valid, every, horizon)
    factor = 1.0
    for _ in range(_ATTEMPTS):
        scaled = _scale_noise(forecaster, factor)
        forecast = scaled(valid, init_times=inits, horizon=horizon, members=members, seed=seed)
        ratio = _mean_ratio(spread_skill_ratio(forecast, valid))
        if abs(ratio - 1) < _TOLERANCE:
            break
        if ratio == 0:
            raise ValueError("The noise has no effect: all members are equal. Train with loss='crps' for longer.")
        factor /= ratio  # the spread is about proportional to the noise
        if not _FACTORS[0] <= factor <= _FACTORS[1]:
            allowed = "a factor from {:g} to {:g}".format(*_FACTORS)
            raise ValueError(f"The noise needs {allowed}, not {factor:.2f}. Train with loss='crps' for longer.")
    else:
        result = f"After {_ATTEMPTS} factors of the noise, spread over error is {ratio:.3g} and not 1"
        raise ValueError(f"{result} to within {_TOLERANCE:.0%}. Pass more members or a longer period.")
    factor *= forecaster.provenance.get("noise_factor", 1)  # of an earlier calibration
    period = f"{inits[0]} to {shift(inits, forecaster.task.step, horizon)[-1]}"
    provenance = forecaster.provenance | {"noise_factor": round(factor, 4), "noise_calibration": period}
    return replace(scaled, provenance=provenance)


def _complete_inits(forecaster: Forecaster, dataset: xr.Dataset, every: str, horizon: int) -> pd.Index:
    """Return the initializations whose last lead lies in the dataset; ValueError if there is none."""
    request = resolve_request(forecaster, dataset, None, every, horizon)
    inits, times = request.init_times(request.histories), request.canonical.dataset.indexes["time"]
    complete = inits[np.asarray(shift(inits, forecaster.task.step, horizon) <= times[-1])]
    if not len(complete):
        rule = f"No forecast of {horizon} steps ends by {times[-1]}, the last time of valid"
        raise ValueError(f"{rule}. Pass a longer period or a smaller horizon.")
    return complete


def _scale_noise(forecaster: Forecaster, factor: float) -> Forecaster:
    """Return a forecaster with the weights of the noise times a factor."""
    network = deepcopy(forecaster.network)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if is_of_noise(name) and name.endswith("weight"):  # a bias is no noise
                weight.mul_(factor)
    return replace(forecaster, network=network)


def _mean_ratio(ratios: xr.Dataset) -> float:
    """Return the mean over variables, levels and leads."""
    return float(np.mean([ratios[name].fillna(_MAX_RATIO).clip(max=_MAX_RATIO).mean() for name in ratios]))
