"""A forecast drawn towards climatology, where it knows little."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import level_values
from simvp_climate.metrics.aggregation import row_weights, weighted_sums
from simvp_climate.metrics.alignment import iso
from simvp_climate.metrics.definitions import METRICS, ratio
from simvp_climate.metrics.pairs import Block, Pairs, match


def fit_calibration(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    """Return by how much a forecast's anomalies should be drawn towards climatology, from a validation period.

    The factor that gives the least square error there, <a b> / <a^2>, a and b the anomalies of forecast and truth, for
    each variable and lead, between 0 and 1. `score(calibrated=...)` takes it, or `climatology + factor * anomaly` makes
    the forecast. Such a forecast has a lower error and less variance: look at its activity.

    Parameters
    ----------
    forecast, truth, climatology
        As in `acc`, of a period that is not the one to be scored.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (lead_time[, level]), no unit. The attributes
    `calibration_start` and `calibration_end` say from which valid times.

    Raises
    ------
    ValueError
        As in `acc`.
    """
    pairs = match(forecast, truth, climatology)
    rows = row_weights(pairs.grid["latitude"], "area")
    sums = weighted_sums(pairs, {"acc": METRICS["acc"]}, rows, False, pool_members=True)["", "acc"]
    totals = sums.sum("init_time", skipna=False)
    factor = ratio(totals.isel(part=0), totals.isel(part=1)).clip(0, 1)
    if lacking := [str(name) for name in factor.data_vars if factor[name].isnull().any()]:
        raise ValueError(
            f"forecast, truth or climatology of {lacking} has missing values in some pairs, so that nothing can be "
            "fitted: take a period without gaps"
        )
    verified = pairs.valid_time.values[pairs.complete]
    return factor.assign_attrs(calibration_start=iso(verified.min()), calibration_end=iso(verified.max()))


def calibrate_with(factors: xr.Dataset, pairs: Pairs, allow_overlap: bool = False) -> Callable[[Block], xr.Dataset]:
    """Return what draws the forecast of a block towards its climatology, by factors as from `fit_calibration`.

    Raises ValueError if they lack a variable or lead, or were fitted on verified times.
    """
    start, end = (factors.attrs.get(f"calibration_{word}") for word in ("start", "end"))
    if lacking := [name for name in pairs.forecast.data_vars if name not in factors]:
        raise ValueError(f"calibrated has no {lacking}, but {list(factors.data_vars)}: fit it on the same variables")
    found = factors.indexes["lead_time"].get_indexer(pairs.forecast.indexes["lead_time"])
    if (found < 0).any():
        raise ValueError(
            f"calibrated has no factor for the lead {pairs.forecast.indexes['lead_time'][found < 0][0]}: fit it on "
            "forecasts with the same leads"
        )
    verified = [iso(time) for time in pairs.valid_time.values[pairs.complete]]
    if not allow_overlap and start is not None and (inside := [text for text in verified if start <= text <= end]):
        raise ValueError(
            f"calibrated was fitted from {start} to {end}, and {len(inside)} verified times lie in it, from "
            f"{min(inside)}: it has seen the truth. Fit it on another period"
        )
    factors = factors[list(pairs.forecast.data_vars)]

    def calibrate(block: Block) -> xr.Dataset:
        forecast = block.systems[""]
        factor = on_levels_of(factors, forecast).sel(lead_time=forecast["lead_time"])
        drawn = block.climatology + factor * (forecast - block.climatology)
        return drawn.assign({name: drawn[name].transpose(*own.dims) for name, own in forecast.data_vars.items()})

    return calibrate


def on_levels_of(factors: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Return factors at the levels of a canonical forecast, by their value.

    Raises ValueError if one is not there.
    """
    if "level" not in factors.dims:
        return factors
    if "level" not in forecast.dims:
        raise ValueError(
            "the calibration was fitted on levels, and the forecast has none: fit it on the level that is scored, or "
            "keep the dimension, forecast.sel(level=[500])"
        )
    own, wanted = level_values(factors["level"].variable), forecast["level"].values
    distance = np.abs(own[np.newaxis] - wanted[:, np.newaxis])
    if (distance.min(axis=1) > 1e-3).any():
        raise ValueError(f"the calibration has the levels {own} hPa, the forecast {wanted}: fit it on the same ones")
    return factors.isel(level=distance.argmin(axis=1)).assign_coords(level=forecast["level"])
