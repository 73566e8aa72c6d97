"""Events above a threshold: Brier score, frequency bias, and the frequency in the climatology."""

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_axes
from simvp_climate.data.variables import same_units
from simvp_climate.metrics.aggregation import pooled_score
from simvp_climate.metrics.baselines.climatologies import calendar_mean
from simvp_climate.metrics.definitions import METRICS, Fields, Metric
from simvp_climate.metrics.pairs import match
from simvp_climate.metrics.regions import Weights


def brier(
    forecast: xr.Dataset, truth: xr.Dataset, threshold: float, *, weights: Weights = "area", skipna: bool = False
) -> xr.Dataset:
    """Return the Brier score of exceeding a threshold, <(p - o)^2>.

    p is the fraction of ensemble members above the threshold (0 or 1 for a single forecast); o is 1 where the truth is
    above it, else 0. `threshold` is in the unit of the variables; other arguments, result and errors as in `rmse`,
    without unit, from 0 (perfect) to 1. ValueError also if the threshold is not a finite number.
    """
    metric = event_metrics(dict.fromkeys(forecast.data_vars, threshold), list(forecast.data_vars))["brier"]
    return pooled_score(match(forecast, truth, weights=weights), metric, skipna)


def frequency_bias(
    forecast: xr.Dataset, truth: xr.Dataset, threshold: float, *, weights: Weights = "area", skipna: bool = False
) -> xr.Dataset:
    """Return how often the forecast exceeds a threshold divided by how often the truth does.

    1 is unbiased; above 1 the event is forecast too often. Arguments, result and errors as in `brier`; NaN where the
    truth never exceeds the threshold.
    """
    metric = event_metrics(dict.fromkeys(forecast.data_vars, threshold), list(forecast.data_vars))["frequency_bias"]
    return pooled_score(match(forecast, truth, weights=weights), metric, skipna)


def event_frequency(
    train: xr.Dataset, thresholds: Mapping[str, float], *, window_days: int | None = None
) -> xr.Dataset:
    """Return how often a threshold is exceeded, by time of year and time of day.

    It is the `climatology` of an indicator that is 1 where the value exceeds the threshold and else 0; missing values
    are left out. `score(..., thresholds=..., event_frequency=...)` scores climatology with it.

    Parameters
    ----------
    train
        Training years with a dimension `time`, read in blocks.
    thresholds
        By variable, in its unit, the same as for the forecast.
    window_days
        As in `climatology`.

    Returns
    -------
    Dataset in memory with the variables of `thresholds`, from 0 to 1, dims and attributes as from `climatology`. The
    attributes `threshold` and `threshold_units` of a variable record its threshold. ValueError as in `climatology`, or
    if a threshold is not a finite number or its variable is not in the data.
    """
    time = "time" if "time" in train.dims else find_axes(train).time
    names = [str(name) for name, variable in train.data_vars.items() if time in variable.dims]
    check_thresholds(thresholds, names, "the training period")
    uppers = {name: float32_bounds(threshold)[1] for name, threshold in thresholds.items()}
    # the default binds each function to the threshold of its own variable
    indicators = {name: lambda values, upper=upper: values > upper for name, upper in uppers.items()}
    frequency = calendar_mean(train[list(thresholds)], window_days, None, indicators)
    for name, threshold in thresholds.items():
        units = train[name].attrs.get("units")
        frequency[name] = frequency[name].clip(0, 1)  # off by rounding
        long_name = f"frequency of {name} above {threshold:g} {units or ''}".rstrip()
        frequency[name].attrs = {"units": "1", "long_name": long_name, "threshold": float(threshold)}
        frequency[name].attrs |= {} if units is None else {"threshold_units": units}
    return frequency


def event_metrics(thresholds: Mapping[str, float], names: list[str]) -> dict[str, Metric]:
    """Return the metrics "brier" and "frequency_bias" of the variables `names`, NaN for those without a threshold."""
    check_thresholds(thresholds, names, "the forecast")

    def probability_and_outcome(f: Fields) -> tuple[xr.Dataset, xr.Dataset]:
        """Return p and o of one variable, missing where its values or the threshold are."""
        (name,) = f.truth.data_vars
        upper = float32_bounds(thresholds[str(name)])[1] if str(name) in thresholds else np.nan
        exceeded, outcome = (
            (values > upper).astype(np.float64).where(values.notnull() & np.isfinite(upper))
            for values in (f.members, f.truth)
        )
        if f.probability is not None:
            return f.probability.where(exceeded.notnull()), outcome
        return (exceeded if f.member is None else exceeded.mean(f.member, skipna=False)), outcome

    def squared_difference(f: Fields) -> tuple[xr.Dataset]:
        probability, outcome = probability_and_outcome(f)
        return ((probability - outcome) ** 2,)

    return {
        "brier": replace(METRICS["brier"], fields=squared_difference),
        "frequency_bias": replace(METRICS["frequency_bias"], fields=probability_and_outcome),
    }


def float32_bounds(threshold: float) -> tuple[float, float]:
    """Return the bounds, a threshold and its nearest float32 value, of data that equal it in float32 or in float64."""
    rounded = float(np.float32(threshold))
    return min(float(threshold), rounded), max(float(threshold), rounded)


def check_thresholds(thresholds: Mapping[str, float], names: list[str], owner: str) -> None:
    """Raise ValueError unless thresholds are finite numbers by variable, of variables that the `owner` has."""
    if not isinstance(thresholds, Mapping) or not thresholds:
        raise ValueError(f"thresholds={thresholds!r} must be a mapping by variable, for example {{'tp': 1e-3}}")
    if unknown := [name for name in thresholds if name not in names]:
        raise ValueError(f"thresholds names {unknown}, but {owner} has {names}")
    for name, threshold in thresholds.items():
        if not isinstance(threshold, Real) or isinstance(threshold, bool) or not np.isfinite(threshold):
            raise ValueError(f"the threshold of {name} is {threshold!r}: give a finite number in its unit")


def check_frequency(
    frequency: xr.Dataset, thresholds: Mapping[str, float] | None, climatology: xr.Dataset | None, forecast: xr.Dataset
) -> xr.Dataset:
    """Return the event frequencies of the variables that have a threshold; ValueError if they do not fit it."""
    if thresholds is None or climatology is None:
        raise ValueError(
            "event_frequency is the probability of climatology to exceed the thresholds. Give both: "
            "score(forecast, truth, climatology(train), thresholds=..., event_frequency=...)"
        )
    fix = "make it with event_frequency(train, thresholds)"
    names = [name for name in thresholds if name in frequency]
    if not names:
        raise ValueError(f"event_frequency has {list(frequency.data_vars)}, but none of {list(thresholds)}: {fix}")
    for name in names:
        attrs, units = frequency[name].attrs, forecast[name].attrs.get("units")
        fitted, fitted_units = attrs.get("threshold"), attrs.get("threshold_units")
        other_units = bool(units and fitted_units) and not same_units(units, fitted_units)
        if fitted is not None and (other_units or not np.isclose(fitted, float(thresholds[name]), rtol=1e-6, atol=0)):
            raise ValueError(
                f"event_frequency of {name} is for values above {fitted:g} {fitted_units or ''}, and the threshold is "
                f"{thresholds[name]:g} {units or ''}: {fix}"
            )
        low, high = float(frequency[name].min()), float(frequency[name].max())
        if low < -1e-5 or high > 1 + 1e-5:
            extent = f"event_frequency of {name} ranges from {low:g} to {high:g}"
            raise ValueError(f"{extent}, and probabilities from 0 to 1: {fix}")
    return frequency[names]
