"""Calibration: forecast anomalies shrunk towards climatology, more where the forecast has less skill."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from simvp_climate.data.grid import read_levels
from simvp_climate.metrics.aggregation import Block, weighted_sums
from simvp_climate.metrics.baselines.statistical import select_leads
from simvp_climate.metrics.definitions import METRICS, ratio
from simvp_climate.metrics.pairs import Pairs, match, period


def fit_calibration(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    """Return the factors that shrink a forecast's anomalies towards climatology, fitted on a validation period.

    For each variable and lead, the factor <a b> / <a^2> has the least square error, where a and b are the anomalies of
    forecast and truth; it is clipped to 0..1. Pass the factors to `score(calibrated=...)`, or compute
    `climatology + factor * anomaly`.
    The calibrated forecast has a lower error and less variance: check its activity. Arguments as in `acc`, from a
    period other than the one to be scored.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (lead_time[, level]), without unit. The attributes
    `calibration_start` and `calibration_end` record the first and last valid time. ValueError as in `acc`, or if values
    are missing in some pairs.
    """
    pairs = match(forecast, truth, climatology, allow_overlap=True)
    sums = weighted_sums(pairs, {"acc": METRICS["acc"]}, False, pool_members=True)["", "acc"]
    totals = sums.sum("init_time", skipna=False)
    factors = ratio(totals.isel(part=0), totals.isel(part=1)).clip(0, 1)
    if lacking := [str(name) for name in factors.data_vars if factors[name].isnull().any()]:
        raise ValueError(f"{lacking} have missing values in some pairs: fit the calibration on a period without gaps")
    return factors.assign_attrs(period("calibration", pairs.verified_times))


def calibrate_with(factors: xr.Dataset, pairs: Pairs) -> Callable[[Block], xr.Dataset]:
    """Return a function that calibrates the forecast of a block; ValueError if a variable or lead has no factor."""
    if lacking := [name for name in pairs.forecast.data_vars if name not in factors]:
        raise ValueError(f"calibrated has {list(factors.data_vars)}, but no {lacking}: fit it on the same variables")
    factors = select_leads(factors[list(pairs.forecast.data_vars)], pairs.forecast["lead_time"])

    def calibrate(block: Block) -> xr.Dataset:
        forecast = block.systems[""]
        calibrated = shrink_towards(block.climatology, forecast, factors)
        return calibrated.assign({name: calibrated[name].transpose(*forecast[name].dims) for name in forecast})

    return calibrate


def shrink_towards(climatology: xr.Dataset, forecast: xr.Dataset, factors: xr.Dataset) -> xr.Dataset:
    """Return climatology + factor * (forecast - climatology), with the factors at the forecast's leads and levels."""
    factor = _select_levels(factors, forecast).sel(lead_time=forecast["lead_time"])
    return climatology + factor * (forecast - climatology)


def _select_levels(factors: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Return factors at the levels of a canonical forecast, selected by value; ValueError if one is missing."""
    if "level" not in factors.dims:
        return factors
    if "level" not in forecast.dims:
        raise ValueError("the calibration has levels, the forecast none: keep the dimension, forecast.sel(level=[500])")
    fitted, levels = read_levels("level", factors["level"].variable).values, forecast["level"].values
    distance = np.abs(fitted[np.newaxis] - levels[:, np.newaxis])
    if (distance.min(axis=1) > 1e-3).any():
        raise ValueError(f"the calibration has the levels {fitted} hPa, the forecast {levels}: fit it on the same ones")
    return factors.isel(level=distance.argmin(axis=1)).assign_coords(level=forecast["level"])
