"""Prediction intervals around a single forecast, from the errors of earlier forecasts.

Split-conformal intervals (Lei et al. 2018) contain the truth with the requested probability for any distribution of
errors, as long as the errors of the calibration period resemble those to come.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_member
from simvp_climate.metrics.aggregation import Block, join_groups, lay_out, read, weighted_sums
from simvp_climate.metrics.baselines.climatologies import normals_at
from simvp_climate.metrics.baselines.statistical import select_leads
from simvp_climate.metrics.definitions import Metric, mean
from simvp_climate.metrics.pairs import (
    Pairs,
    align_fit,
    canonicalize_forecast,
    match,
    period,
    recorded_periods,
    with_times,
)
from simvp_climate.metrics.regions import SPACE, Regions, Weights
from simvp_climate.metrics.uncertainty.calibration import fit_calibration, shrink_towards

# Half the width of the triangular window over the year, in days: a season.
_SEASON_DAYS = 61
_MONTHS = np.arange(1, 13)
_MIDDLE_OF_MONTH = np.array([16, 46, 75, 106, 136, 167, 197, 228, 259, 289, 320, 350])  # day of the year
_INITS_PER_READ = 64


@dataclass(frozen=True, eq=False)
class Intervals:
    """Half-widths of prediction intervals. `fit_intervals` makes them; a call puts them around a forecast.

    Attributes
    ----------
    probability
        Probability that the truth lies inside an interval.
    half_width
        For each month of the valid time, lead and cell, in the unit of the variable, dims (month, lead_time, [level,]
        latitude, longitude); NaN in months that the calibration period lacks.
    center
        Function that shrinks a forecast on the canonical grid towards climatology before intervals are put around it,
        or None.
    """

    probability: float
    half_width: xr.Dataset
    center: Callable[[xr.Dataset], xr.Dataset] | None = None

    def __call__(self, forecast: xr.Dataset) -> xr.Dataset:
        """Return the lower and the upper bound for a forecast: its layout with a first dimension `bound`.

        The attributes `intervals_start` and `intervals_end`, with a climatology also `climatology_start` and
        `climatology_end`, record the period of the fit. ValueError if the forecast has members, another grid, or
        variables, leads or months that were not fitted.
        """
        _refuse_members(forecast, "are put around")
        names = [str(name) for name in forecast.data_vars]
        if lacking := [name for name in names if name not in self.half_width]:
            raise ValueError(f"no intervals were fitted for {lacking}, only for {list(self.half_width.data_vars)}")
        forecast, _ = with_times(forecast)
        canonical = canonicalize_forecast(forecast)
        center = canonical.dataset if self.center is None else self.center(canonical.dataset)
        half = self._half_width_of(center)
        bounds = xr.DataArray(np.array(["lower", "upper"]), dims="bound", name="bound")
        ends = xr.concat([center - half, center + half], bounds, coords="minimal", compat="override", join="exact")
        for name in names:
            ends[name] = ends[name].transpose("bound", *center[name].dims).astype(forecast[name].dtype)
            ends[name].attrs = {**forecast[name].attrs, "interval_probability": self.probability}
        # the periods of the fit and of its climatology
        periods = {k.replace("fitted", "intervals"): v for k, v in self.half_width.attrs.items() if k != "months"}
        result = canonical.restore(ends.assign_attrs(forecast.attrs | periods))
        result = result.assign({name: result[name].transpose("bound", *forecast[name].dims) for name in names})
        result.encoding = dict(forecast.encoding)  # which dimensions are unlimited
        return result

    def _half_width_of(self, forecast: xr.Dataset) -> xr.Dataset:
        """Return the half-widths at the grid, leads and months of a canonical forecast, (init_time, lead_time, ...)."""
        half_width = align_fit(forecast, self.half_width[list(forecast.data_vars)], "the fitted half-width")
        half_width = select_leads(half_width, forecast["lead_time"]).drop_vars("lead_time")
        months = forecast["valid_time"].dt.month.drop_vars(list(forecast["valid_time"].coords))
        fitted_months = self.half_width.attrs["months"].split()
        if lacking := sorted({int(m) for m in np.unique(months)} - {int(m) for m in fitted_months}):
            raise ValueError(
                f"the forecast is valid in the months {lacking}, and the intervals were fitted on "
                f"{', '.join(fitted_months)}: fit them on a period with all months"
            )
        half = half_width.sel(month=months).drop_vars("month")
        return half.assign_coords({name: forecast[name] for name in half.dims if name in forecast.coords})


def fit_intervals(
    forecast: xr.Dataset, truth: xr.Dataset, probability: float = 0.9, climatology: xr.Dataset | None = None
) -> Intervals:
    """Return intervals that contain the truth with a probability, fitted on the errors in a held-out period.

    For each cell and lead, the absolute errors are divided by their seasonal mean (a triangular window of four months
    around the day of the year). The half-width is that mean times the ceil((n + 1) * probability)-th smallest of the n
    quotients (Lei et al. 2018). So intervals are wide in places, seasons and leads with poor forecasts.

    Parameters
    ----------
    forecast, truth
        From a period that was not trained on and will not be verified, best a whole year.
    probability
        Between 0 and 1.
    climatology
        As from `climatology`: intervals are put around the forecast shrunk towards it (by `fit_calibration` on the same
        period), so they are no wider than climatological intervals where the forecast has no skill. None: intervals are
        put around the forecast itself.

    ValueError as in `rmse`, or if there are too few forecasts for the probability.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability={probability!r} must lie between 0 and 1, for example 0.9")
    _refuse_members(forecast, "are fitted on")
    factors = None if climatology is None else fit_calibration(forecast, truth, climatology)
    pairs = match(forecast, truth, climatology, allow_overlap=True)
    # the rank ceil((n + 1) * probability) must not exceed n
    required = int(np.ceil(np.round(probability / (1 - probability), 9)))
    counts = pairs.complete.sum(axis=0)
    if (counts < required).any():
        raise ValueError(
            f"the lead {pairs.forecast.indexes['lead_time'][int(np.argmin(counts))]} has {counts.min()} verified "
            f"forecasts, and probability={probability:g} needs at least {required}: forecast from more times"
        )
    covered = sorted(set(pairs.valid_time.dt.month.values[pairs.complete].tolist()))
    by_lead = [_half_widths_at_lead(pairs, lead, factors, probability, covered) for lead in range(len(counts))]
    half_width = xr.Dataset(coords={**pairs.grid, "month": _MONTHS, "lead_time": pairs.forecast["lead_time"]})
    for name, variable in pairs.forecast.data_vars.items():
        dims = [dim for dim in ("level", *SPACE) if dim in variable.dims]
        values = np.stack([lead[str(name)] for lead in by_lead], axis=1).astype(np.float32)
        half_width[name] = (("month", "lead_time", *dims), values, {"units": variable.attrs.get("units", "")})
    half_width.attrs = {"months": " ".join(map(str, covered)), **period("fitted", pairs.verified_times)}
    if climatology is None:
        return Intervals(probability, half_width)
    half_width.attrs |= {k: v for k, v in climatology.attrs.items() if k in ("climatology_start", "climatology_end")}
    return Intervals(probability, half_width, partial(_shrink, climatology, factors))


def _half_widths_at_lead(
    pairs: Pairs, lead: int, factors: xr.Dataset | None, probability: float, covered_months: list[int]
) -> dict[str, np.ndarray]:
    """Return the half-widths at one lead by variable, (month, ...); NaN in months that are not covered."""
    inits = np.flatnonzero(pairs.complete[:, lead])
    valid_time = pairs.valid_time[inits, lead]
    # triangular weights around the middle of each month, on a circle of 365 days, (init, month)
    distance = abs(_MIDDLE_OF_MONTH - valid_time.dt.dayofyear.values[:, np.newaxis]) % 365
    weight = np.clip(1 - np.minimum(distance, 365 - distance) / _SEASON_DAYS, 1e-9, None)
    result = {}
    for name, error in _read_errors(pairs, inits, lead, factors).items():
        sizes = abs(error.values).reshape(len(inits), -1)  # (init, cell)
        missing = np.isnan(sizes)
        if (missing.any(axis=0) & ~missing.all(axis=0)).any():
            raise ValueError(
                f"{name} has missing values in some forecasts or analyses and not in others, at the lead "
                f"{pairs.forecast.indexes['lead_time'][lead]}: fit on a period without gaps"
            )
        scale = (weight.T @ sizes) / weight.sum(axis=0)[:, np.newaxis]  # (month, cell)
        with np.errstate(invalid="ignore", divide="ignore"):
            quotients = sizes / scale[valid_time.dt.month.values - 1]
        # conformal quantile (Lei et al. 2018): the ceil((n + 1) * probability)-th smallest
        rank = min(int(np.ceil((len(inits) + 1) * probability)), len(inits)) - 1
        quantile = np.partition(np.nan_to_num(quotients), rank, axis=0)[rank]
        quantile[missing.all(axis=0)] = np.nan  # masked cells
        half = np.where(np.isin(_MONTHS, covered_months)[:, np.newaxis], scale * quantile, np.nan)
        result[name] = half.reshape(12, *error.shape[1:])
    return result


def _read_errors(pairs: Pairs, inits: np.ndarray, lead: int, factors: xr.Dataset | None) -> dict[str, xr.DataArray]:
    """Return the errors at one lead by variable, (init_time, ...), of the forecast shrunk by factors if given."""
    errors = []
    for start in range(0, len(inits), _INITS_PER_READ):
        rows = inits[start : start + _INITS_PER_READ]
        block = read(pairs, slice(int(rows[0]), int(rows[-1]) + 1), slice(lead, lead + 1))
        forecast = block.systems[""]
        if factors is not None:
            forecast = shrink_towards(block.climatology, forecast, factors)
        error = (forecast - block.truth).isel(lead_time=0, drop=True)
        errors.append(error.isel(init_time=rows - rows[0]).astype(np.float32))
    joined = xr.concat(errors, "init_time", coords="minimal", compat="override", join="exact")
    return {str(name): joined[name].transpose("init_time", "level", *SPACE, missing_dims="ignore") for name in joined}


def _shrink(climatology: xr.Dataset, factors: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Return a canonical forecast shrunk towards climatology."""
    normal = normals_at(align_fit(forecast, climatology, "the climatology"), forecast["valid_time"])
    shrunk = shrink_towards(normal, forecast, factors)
    for name, field in forecast.data_vars.items():
        shrunk[name] = shrunk[name].transpose(*field.dims).astype(field.dtype).assign_attrs(field.attrs)
    return shrunk.assign_coords(valid_time=forecast["valid_time"])


def _refuse_members(forecast: xr.Dataset, verb: str) -> None:
    if (member := find_member(forecast)) is not None:
        fault = f"the forecast has members along {member!r}: take the mean, forecast.mean({member!r})"
        raise ValueError(f"intervals {verb} single forecasts, and {fault}")


def coverage(
    intervals: xr.Dataset, truth: xr.Dataset, *, regions: Regions = None, by: Literal["season", "month"] | None = None,
    weights: Weights = "area", skipna: bool = False, allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the fraction of cases in which the truth lies inside the intervals, bounds included.

    Parameters
    ----------
    intervals
        As from a call of `Intervals`, dims (bound, init_time, lead_time, ...).
    truth, weights, skipna, regions, by
        As in `rmse` and `score`, with a warning where missing values make the result NaN.
    allow_overlap
        Whether verified times may lie in the period of the fit or of its climatology.

    Returns
    -------
    Dataset in memory with the variables of the intervals, dims (lead_time[, level, region, season]), without unit.
    ValueError as in `rmse` and `score`, or if there is no dimension `bound`, or verified times lie in the period of the
    fit.
    """

    def is_inside(name: str, lower: xr.DataArray, upper: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
        valid = lower.notnull() & upper.notnull() & truth.notnull()
        return ((lower <= truth) & (truth <= upper)).astype(np.float64).where(valid)

    result = _mean_over_pairs(is_inside, intervals, truth, regions, by, weights, skipna, allow_overlap)
    for name in result.data_vars:
        result[name].attrs = {"units": "1", "long_name": f"coverage of the intervals of {name}"}
    return result


def interval_score(
    intervals: xr.Dataset, truth: xr.Dataset, *, regions: Regions = None, by: Literal["season", "month"] | None = None,
    weights: Weights = "area", skipna: bool = False, allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the mean interval score (Gneiting and Raftery 2007), lower is better.

    <width + 2 / (1 - probability) * distance of the truth from the interval>, in the unit of the variable. The
    probability is the attribute `interval_probability` of each variable. Arguments, dims of the result and errors as in
    `coverage`.
    """
    probabilities = {name: intervals[name].attrs.get("interval_probability") for name in intervals.data_vars}
    if lacking := [name for name, probability in probabilities.items() if probability is None]:
        raise ValueError(
            f"{lacking} have no attribute interval_probability, which arithmetic drops: set it again, "
            "intervals[name].attrs['interval_probability'] = 0.9"
        )

    def interval_score_of(name: str, lower: xr.DataArray, upper: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
        penalty = 2 / (1 - probabilities[name])
        return upper - lower + penalty * ((lower - truth).clip(0) + (truth - upper).clip(0))

    result = _mean_over_pairs(interval_score_of, intervals, truth, regions, by, weights, skipna, allow_overlap)
    for name in result.data_vars:
        units = intervals[name].attrs.get("units", "")
        result[name].attrs = {"units": units, "long_name": f"interval score of {name}"}
    return result


def _mean_over_pairs(
    statistic: Callable[[str, xr.DataArray, xr.DataArray, xr.DataArray], xr.DataArray],
    intervals: xr.Dataset, truth: xr.Dataset, regions: Regions, by: str | None, weights: Weights, skipna: bool,
    allow_overlap: bool,
) -> xr.Dataset:  # fmt: skip
    """Return the weighted mean of statistic(name, lower, upper, truth), in one pass over blocks of pairs."""
    if "bound" not in intervals.dims:
        dims = tuple(intervals.dims)
        raise ValueError(f"intervals have dims {dims} and no dimension 'bound': make them by a call of Intervals")
    lower, upper = (intervals.sel(bound=end, drop=True) for end in ("lower", "upper"))
    roles = {"intervals": "period that the intervals were fitted on", "climatology": "climatology of the intervals"}
    periods = {
        f"the {role}": {key: value for key, value in intervals.attrs.items() if str(key).startswith(f"{prefix}_")}
        for prefix, role in roles.items()
    }
    # bounds need not be fitted: they may be quantiles of an ensemble
    pairs = match(
        lower, truth, baselines={"upper": upper}, weights=weights, regions=regions, by=by, allow_overlap=allow_overlap,
        periods={role: attrs for role, attrs in periods.items() if recorded_periods(attrs)},
    )  # fmt: skip

    def of_block(block: Block) -> xr.Dataset:
        low, high = block.systems[""], block.systems["upper"]
        fields = {}
        for name in map(str, low.data_vars):
            outcome = block.truth[name].transpose(*low[name].dims).assign_coords(low[name].coords)
            fields[name] = statistic(name, low[name], high[name], outcome).transpose(*low[name].dims)
        return low.assign(fields)

    metric = Metric(lambda f: (f.forecast,), mean)
    sums = weighted_sums(pairs, {"mean": metric}, skipna, derived_systems={"statistic": of_block})["statistic", "mean"]
    if lacking := [str(name) for name, field in sums.items() if not np.isfinite(field.values).all()]:
        warnings.warn(
            f"the result for {lacking} is missing where a value is missing in the intervals or the truth: skipna=True "
            "counts the cells with all values",
            stacklevel=3,
        )
    means = [metric.value(sums.where(mask, 0).sum("init_time", skipna=False)) for mask in pairs.groups.values()]
    return lay_out(join_groups(means, by, pairs), pairs, by=by)
