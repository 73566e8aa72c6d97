"""Intervals around a single forecast, from how wrong such forecasts were: split-conformal prediction.

Split-conformal intervals (Lei et al. 2018) hold the truth as often as they say, whatever the distribution of errors is,
as far as the errors of the calibration period are like those to come.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_member, restore
from simvp_climate.metrics.aggregation import cell_weights, concat, finish, weighted_sums
from simvp_climate.metrics.alignment import canonical, iso, on_grid_of, with_times
from simvp_climate.metrics.baselines.climatologies import climatology_at
from simvp_climate.metrics.definitions import Metric
from simvp_climate.metrics.pairs import Block, Pairs, group_masks, match, read, refuse_overlap
from simvp_climate.metrics.regions import Region
from simvp_climate.metrics.uncertainty.calibration import fit_calibration, on_levels_of

_SPACE = ("latitude", "longitude")
# half the width of the triangle over the year, days: a season
_SEASON_DAYS = 61


@dataclass(frozen=True, eq=False)
class Intervals:
    """Half-widths of intervals; `fit_intervals` makes them, a call puts them around a forecast.

    Attributes
    ----------
    level
        The share of cases in which the truth should lie inside.
    center
        How the forecast is drawn towards climatology first, or None: where it knows little, its anomalies are too
        large.
    half_width
        For each month of the valid time, lead and cell, in the unit of the variable, dims (month, lead_time, [level,]
        latitude, longitude); NaN in months that the calibration period has not.
    """

    level: float
    half_width: xr.Dataset
    center: Callable[[xr.Dataset], xr.Dataset] | None = None

    def __call__(self, forecast: xr.Dataset) -> xr.Dataset:
        """Return the lower and the upper end for a forecast: its layout with a dimension `bound` first.

        The attributes `intervals_start` and `intervals_end`, with a climatology also `climatology_start` and
        `climatology_end`, say from which period they are.

        Raises
        ------
        ValueError
            If the forecast has members, other variables, leads or a grid than was fitted, or a month that was not.
        """
        _refuse_members(forecast, "stand around")
        names = [str(name) for name in forecast.data_vars]
        if lacking := [name for name in names if name not in self.half_width]:
            raise ValueError(f"nothing was fitted for {lacking}, but for {list(self.half_width.data_vars)}")
        forecast, _ = with_times(forecast)
        inside = canonical(forecast if self.center is None else self.center(forecast))
        half_width = on_grid_of(self.half_width[names], inside, "what the intervals were fitted on")
        leads = half_width.indexes["lead_time"]
        found = leads.get_indexer(inside.indexes["lead_time"])
        if (found < 0).any():
            raise ValueError(
                f"nothing was fitted for the lead {inside.indexes['lead_time'][found < 0][0]}, but for {len(leads)} "
                f"from {leads[0]} to {leads[-1]}"
            )
        months = inside["valid_time"].dt.month.drop_vars(list(inside["valid_time"].coords))
        there = self.half_width.attrs["months"].split()
        if lacking := sorted({int(m) for m in np.unique(months)} - {int(m) for m in there}):
            raise ValueError(
                f"the forecast is valid in the months {lacking}, and the intervals were fitted on {', '.join(there)}: "
                "fit them on a period with all months"
            )
        lead_places = xr.DataArray(found, dims="lead_time")
        half = half_width.drop_vars("lead_time").isel(lead_time=lead_places).sel(month=months)
        half = half.drop_vars("month").assign_coords(
            {name: inside[name] for name in half.dims if name in inside.coords}
        )
        bounds = xr.DataArray(np.array(["lower", "upper"]), dims="bound", name="bound")
        ends = xr.concat([inside - half, inside + half], bounds, coords="minimal", compat="override", join="exact")
        for name in names:
            ends[name] = ends[name].transpose("bound", *inside[name].dims).astype(forecast[name].dtype)
            ends[name].attrs = {**forecast[name].attrs, "interval_level": self.level}
        result = restore(ends.assign_attrs(forecast.attrs | self._period()), like=forecast)
        result = result.assign({name: result[name].transpose("bound", *forecast[name].dims) for name in names})
        result.encoding = dict(forecast.encoding)  # which dimensions are unlimited
        return result

    def _period(self) -> dict[str, str]:
        names = {"fitted": "intervals", "climatology": "climatology"}
        whole = {f"{own}_{end}": f"{said}_{end}" for own, said in names.items() for end in ("start", "end")}
        return {said: self.half_width.attrs[own] for own, said in whole.items() if own in self.half_width.attrs}


def _refuse_members(forecast: xr.Dataset, verb: str) -> None:
    if (member := find_member(forecast)) is not None:
        raise ValueError(
            f"intervals {verb} single forecasts, and this has members along {member!r}: take the mean, "
            f"forecast.mean({member!r})"
        )


def fit_intervals(
    forecast: xr.Dataset, truth: xr.Dataset, level: float = 0.9, climatology: xr.Dataset | None = None
) -> Intervals:
    """Return intervals that hold the truth in a share `level` of cases, from errors in a held-out period.

    For each cell and lead the absolute errors are divided by their seasonal mean (a triangular window of four months
    around the day of the year, round the turn of the year), and the half-width is that mean times the
    ceil((n + 1) * level)-th smallest of the n quotients. So intervals are wide where, when and at which lead forecasts
    are poor.

    Parameters
    ----------
    forecast
        Of a period that was not trained on and will not be verified, best a whole year, as from a forecaster.
    truth
        Analyses of that period.
    level
        Between 0 and 1.
    climatology
        As `climatology` gives it: intervals are put around the forecast drawn towards it (`fit_calibration`, of the
        same period), and so are no wider than those around climatology where a forecast knows nothing. None: around the
        forecast itself.

    Raises
    ------
    ValueError
        As in `rmse`; or if `level` is out of range, or there are too few forecasts for it.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r} must lie between 0 and 1, for example 0.9")
    _refuse_members(forecast, "are fitted on")
    factors = None if climatology is None else fit_calibration(forecast, truth, climatology)
    pairs = match(forecast, truth, climatology)
    fewest = int(np.ceil(np.round(level / (1 - level), 9)))
    complete = pairs.complete.sum(axis=0)
    if (complete < fewest).any():
        raise ValueError(
            f"the lead {pairs.forecast.indexes['lead_time'][int(np.argmin(complete))]} has {complete.min()} verified "
            f"forecasts, and a level of {level:g} takes at least {fewest}: forecast from more times"
        )
    found = {str(name): [] for name in pairs.forecast.data_vars}
    coordinates = dict(pairs.grid)
    days = pairs.valid_time.dt.dayofyear.values
    middles = np.array([16, 46, 75, 106, 136, 167, 197, 228, 259, 289, 320, 350])
    covered = sorted(set(pairs.valid_time.dt.month.values[pairs.complete].tolist()))
    for lead in range(pairs.complete.shape[1]):
        chosen = np.flatnonzero(pairs.complete[:, lead])
        block = _read_lead(pairs, chosen, lead, factors)
        weight = _season_weights(middles[np.newaxis], days[chosen, lead][:, np.newaxis])  # (init, month)
        for name, error in block.items():
            sizes = abs(error.values).reshape(len(chosen), -1)
            missing = np.isnan(sizes)
            if (missing.any(axis=0) & ~missing.all(axis=0)).any():
                raise ValueError(
                    f"{name} has missing values in some forecasts or analyses and not in others, at the lead "
                    f"{pairs.forecast.indexes['lead_time'][lead]}: fit on a period without gaps"
                )
            scale = (weight.T @ sizes) / weight.sum(axis=0)[:, np.newaxis]  # (month, cell)
            month = pairs.valid_time.dt.month.values[chosen, lead] - 1
            with np.errstate(invalid="ignore", divide="ignore"):
                quotients = sizes / scale[month]
            rank = min(int(np.ceil((len(chosen) + 1) * level)), len(chosen)) - 1
            quantile = np.partition(np.nan_to_num(quotients), rank, axis=0)[rank]
            quantile[missing.all(axis=0)] = np.nan  # a mask stays one
            half = np.where(np.isin(np.arange(1, 13), covered)[:, np.newaxis], scale * quantile, np.nan)
            found[name].append(half.reshape(12, *error.shape[1:]))
    variables = {}
    for name, parts in found.items():
        dims = [dim for dim in ("level", *_SPACE) if dim in pairs.forecast[name].dims]
        variables[name] = (("month", "lead_time", *dims), np.stack(parts, axis=1).astype(np.float32))
    half_width = xr.Dataset(variables, {**coordinates, "month": np.arange(1, 13)})
    half_width = half_width.assign_coords(lead_time=pairs.forecast["lead_time"])
    for name, variable in pairs.forecast.data_vars.items():
        half_width[name].attrs = {"units": variable.attrs.get("units", "")}
    verified = pairs.valid_time.values[pairs.complete]
    half_width.attrs = {
        "months": " ".join(map(str, covered)),
        "fitted_start": iso(verified.min()),
        "fitted_end": iso(verified.max()),
    }
    for key in ("climatology_start", "climatology_end"):
        if climatology is not None and key in climatology.attrs:
            half_width.attrs[key] = climatology.attrs[key]
    center = None if climatology is None else partial(_drawn_in, climatology, factors)
    return Intervals(level, half_width, center)


def _drawn_in(climatology: xr.Dataset, factors: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Return climatology + factor * anomaly, laid out as the forecast."""
    inside = canonical(forecast)
    normal = climatology_at(on_grid_of(climatology, inside, "the climatology"), inside["valid_time"])
    normal = normal.drop_vars([name for name in normal.coords if name not in normal.dims])
    factor = on_levels_of(factors, inside).sel(lead_time=inside["lead_time"])
    drawn = normal + factor * (inside - normal)
    for name, own in inside.data_vars.items():
        drawn[name] = drawn[name].transpose(*own.dims).astype(own.dtype).assign_attrs(own.attrs)
    drawn = drawn.assign_coords(valid_time=inside["valid_time"])
    return restore(drawn.assign_attrs(forecast.attrs), like=with_times(forecast)[0])


def coverage(
    intervals: xr.Dataset,
    truth: xr.Dataset,
    *,
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    by: Literal["season", "month"] | None = None,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the share of cases in which the truth lies inside the intervals, its ends included.

    Parameters
    ----------
    intervals
        As from a call of `Intervals`, dims (bound, init_time, lead_time, ...).
    truth, weights, skipna
        As in `rmse`, with a warning where missing values make the result NaN.
    regions, by
        As in `score`.
    allow_overlap
        Whether verified times may lie in the period that the intervals were fitted on, or in that of their climatology.

    Returns
    -------
    Dataset in memory with the variables of the intervals, dims (lead_time[, level, region, season]), no unit.

    Raises
    ------
    ValueError
        As in `rmse` and `score`, or if there is no dimension `bound`, or verified times lie in the period of the fit.
    """

    def inside(name: str, lower: xr.DataArray, upper: xr.DataArray, right: xr.DataArray) -> xr.DataArray:
        known = lower.notnull() & upper.notnull() & right.notnull()
        return ((lower <= right) & (right <= upper)).astype(np.float64).where(known)

    result = _mean_over_pairs(inside, intervals, truth, regions, by, weights, skipna, allow_overlap)
    for name in result.data_vars:
        result[name].attrs = {"units": "1", "long_name": f"coverage of the intervals of {name}"}
    return result


def interval_score(
    intervals: xr.Dataset,
    truth: xr.Dataset,
    *,
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    by: Literal["season", "month"] | None = None,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the mean interval score (Gneiting and Raftery 2007): less is better.

    <width + 2 / (1 - level) * (how far the truth lies outside)>, in the unit of the variable. Arguments, dims of the
    result and errors as in `coverage`; the level is taken from the intervals' attribute `interval_level`.
    """

    levels = {name: intervals[name].attrs.get("interval_level") for name in intervals.data_vars}
    if lost := [name for name, level in levels.items() if level is None]:
        raise ValueError(
            f"{lost} have no attribute interval_level, which arithmetic drops: say it again, "
            "intervals[name].attrs['interval_level'] = 0.9"
        )

    def scored(name: str, lower: xr.DataArray, upper: xr.DataArray, right: xr.DataArray) -> xr.DataArray:
        factor = 2 / (1 - levels[name])
        return upper - lower + factor * ((lower - right).clip(0) + (right - upper).clip(0))

    result = _mean_over_pairs(scored, intervals, truth, regions, by, weights, skipna, allow_overlap)
    for name in result.data_vars:
        units = intervals[name].attrs.get("units", "")
        result[name].attrs = {"units": units, "long_name": f"interval score of {name}"}
    return result


def _mean_over_pairs(
    make: Callable[[str, xr.DataArray, xr.DataArray, xr.DataArray], xr.DataArray],
    intervals: xr.Dataset,
    truth: xr.Dataset,
    regions: Sequence[str] | Mapping[str, Region] | None,
    by: str | None,
    weights: str | None,
    skipna: bool,
    allow_overlap: bool,
) -> xr.Dataset:
    """Return the mean of what is made of both ends and the truth, in one pass over blocks of pairs."""
    if "bound" not in intervals.dims:
        raise ValueError(
            f"intervals have a dimension 'bound', this has {tuple(intervals.dims)}: call Intervals for them"
        )
    lower, upper = (intervals.sel(bound=end, drop=True) for end in ("lower", "upper"))
    pairs = match(lower, truth, None, {"upper": upper})
    if not allow_overlap:
        refuse_overlap(intervals.attrs, "intervals", "the period that the intervals were fitted on", pairs)
        refuse_overlap(intervals.attrs, "climatology", "the climatology of the intervals", pairs)

    def made(block: Block) -> xr.Dataset:
        low, high = block.systems[""], block.systems["upper"]
        found = {}
        for name in map(str, low.data_vars):
            right = block.truth[name].transpose(*low[name].dims).assign_coords(low[name].coords)
            found[name] = make(name, low[name], high[name], right).transpose(*low[name].dims)
        return low.assign(found)

    metric = Metric(lambda f: (f.forecast,), lambda mean: mean)
    cells = cell_weights(pairs.grid, weights, regions, truth)
    sums = weighted_sums(pairs, {"mean": metric}, cells, skipna, made={"made": made})["made", "mean"]
    if lacking := [str(name) for name, field in sums.items() if not np.isfinite(field.values).all()]:
        warnings.warn(
            f"the result for {lacking} is missing where a value is missing in the intervals or the truth: skipna=True "
            "counts the cells where all are there",
            stacklevel=3,
        )
    parts = group_masks(by, pairs)
    means = [
        finish(sums.where(True if part is None else part, 0).sum("init_time", skipna=False), metric)
        for part in parts.values()
    ]
    labels = {"level": pairs.forecast["level"]} if "level" in pairs.grid else {}
    result = means[0] if by is None else concat(means, xr.DataArray(np.array(list(parts)), dims=by, name=by))
    order = ("lead_time", "level", "region", *([by] if by else []), ...)
    return result.transpose(*order, missing_dims="ignore").assign_coords(pairs.kept | labels)


def _read_lead(pairs: Pairs, chosen: np.ndarray, lead: int, factors: xr.Dataset | None) -> dict[str, xr.DataArray]:
    """Return the errors of some initializations at one lead, (init_time, ...), of the forecast drawn in by factors."""
    parts = []
    for start in range(0, len(chosen), 64):
        rows = chosen[start : start + 64]
        block = read(pairs, slice(int(rows[0]), int(rows[-1]) + 1), slice(lead, lead + 1))
        forecast = block.systems[""]
        if factors is not None:
            factor = on_levels_of(factors, forecast).sel(lead_time=forecast["lead_time"])
            forecast = block.climatology + factor * (forecast - block.climatology)
        error = (forecast - block.truth).isel(lead_time=0, drop=True)
        parts.append(error.isel(init_time=rows - rows[0]).astype(np.float32))
    errors = xr.concat(parts, "init_time", coords="minimal", compat="override", join="exact")
    return {str(name): errors[name].transpose("init_time", "level", *_SPACE, missing_dims="ignore") for name in errors}


def _season_weights(middle: np.ndarray, day: np.ndarray) -> np.ndarray:
    distance = abs(middle - day) % 365
    return np.clip(1 - np.minimum(distance, 365 - distance) / _SEASON_DAYS, 1e-9, None)
