"""Scores of ensembles: CRPS, spread, and the ranks of the truth among the members."""

import numpy as np
import xarray as xr

from simvp_climate.metrics.aggregation import pooled_score
from simvp_climate.metrics.definitions import METRICS, Fields, Metric, concat
from simvp_climate.metrics.pairs import match
from simvp_climate.metrics.regions import Regions, Weights


def crps(forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False) -> xr.Dataset:
    """Return the fair continuous ranked probability score of an ensemble.

    <mean_k |X_k - T| - 1/2 sum_kl |X_k - X_l| / (M (M - 1))> over the M members X and the truth T: the expected score
    of an ensemble with infinitely many such members (Ferro 2014), as in WeatherBench 2 and WeatherBench-X. Arguments,
    result and errors as in `rmse`, for a forecast with a dimension of members (`number`, `realization`, `member`),
    which is pooled; ValueError also if there are fewer than two members.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["crps"], skipna)


def spread(forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False) -> xr.Dataset:
    """Return the spread of an ensemble, sqrt(<variance over members>), the variance with the divisor M - 1.

    The truth only selects the pairs that count. Arguments, result and errors as in `crps`.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["spread"], skipna)


def spread_skill_ratio(
    forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False
) -> xr.Dataset:
    """Return the spread of an ensemble over the error of its mean: 1 if the truth behaves like a member.

    sqrt(<variance>) / sqrt(<(mean - T)^2 - variance / M>), which does not depend on the number of members M
    (WeatherBench-X, `UnbiasedSpreadSkillRatio`). Below 1 the ensemble is overconfident. Arguments, result and errors as
    in `crps`; no unit.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["spread_skill_ratio"], skipna)


def rank_histogram(
    forecast: xr.Dataset, truth: xr.Dataset, *, regions: Regions = None, weights: Weights = "area", skipna: bool = False
) -> xr.Dataset:
    """Return the frequency of each rank of the truth among the members: flat if the ensemble is reliable.

    Arguments and errors as in `crps`, `regions` as in `score`. A truth that equals some members counts in equal shares
    for all ranks that it can have. Returns a Dataset in memory with the variables of the forecast, dims (rank,
    lead_time[, level, region]): the share of each rank from 0 to M, which add up to 1.
    """
    pairs = match(forecast, truth, weights=weights, regions=regions)
    size = pairs.forecast.sizes.get(pairs.member, 0)
    ranks = xr.DataArray(np.arange(size + 1), dims="rank", name="rank", attrs={"long_name": "members below the truth"})
    fields, join = (lambda f: _rank_shares(f, size)), (lambda *shares: concat(list(shares), ranks))
    result = pooled_score(pairs, Metric(fields, join, dimensionless=True, needs="members"), skipna)
    return result.transpose("rank", "lead_time", "level", "region", ..., missing_dims="ignore")


def _rank_shares(f: Fields, size: int) -> tuple[xr.Dataset, ...]:
    """Return for each rank 1 where the truth has it, or its share where the truth equals some members."""
    below, equal = (f.members < f.truth).sum(f.member), (f.members == f.truth).sum(f.member)
    # Comparisons with NaN are False.
    share = (1 / (equal + 1)).where(f.forecast.notnull() & f.truth.notnull())
    highest = below + equal
    return tuple(share * ((below <= rank) & (rank <= highest)) for rank in range(size + 1))
