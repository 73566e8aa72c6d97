"""Scores of ensembles: CRPS, energy score, spread, and the ranks of the truth among the members."""

import numpy as np
import xarray as xr

from simvp_climate.metrics.aggregation import pooled_score
from simvp_climate.metrics.definitions import METRICS, Fields, Metric, concat
from simvp_climate.metrics.pairs import match
from simvp_climate.metrics.regions import Regions, Weights
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap, score_with_intervals


def crps(forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False) -> xr.Dataset:
    """Return the fair continuous ranked probability score of an ensemble.

    <mean_k |X_k - T| - 1/2 sum_kl |X_k - X_l| / (M (M - 1))> over the M members X and the truth T: the expected score
    of an ensemble with infinitely many such members (Ferro 2014), as in WeatherBench 2 and WeatherBench-X. Arguments,
    result and errors as in `rmse`, for a forecast with a dimension of members (`number`, `realization`, `member`),
    which is pooled; ValueError also if there are fewer than two members.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["crps"], skipna)


def energy_score(
    forecast: xr.Dataset, truth: xr.Dataset, *, weights: Weights = "area", skipna: bool = False
) -> xr.Dataset:
    """Return the fair energy score of an ensemble of fields, the CRPS of whole fields.

    The mean over initializations of mean_k |X_k - T| - 1/2 sum_kl |X_k - X_l| / (M (M - 1)), where the length of a
    field is |x| = sqrt(<x^2>), <> the mean over cells (Gneiting and Raftery 2007; the divisor M - 1 makes it
    fair, Ferro 2014). Unlike the CRPS it also judges whether errors in different cells go together as they should. For
    a single forecast in `score`, the RMSE of each initialization, then the mean. Arguments, result and errors as in
    `crps`; with `skipna`, cells count where all members and the truth have a value.
    """
    return pooled_score(match(forecast, truth, weights=weights), METRICS["energy_score"], skipna)


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
    forecast: xr.Dataset, truth: xr.Dataset, *, regions: Regions = None, weights: Weights = "area",
    skipna: bool = False, bootstrap: Bootstrap | None = Bootstrap(),  # noqa: B008 (frozen)
) -> xr.Dataset:  # fmt: skip
    """Return the frequency of each rank of the truth among the members: flat if the ensemble is reliable.

    Arguments and errors as in `crps`, `regions` and `bootstrap` as in `score`. A truth that equals some members counts
    in equal shares for all ranks that it can have. Returns a Dataset in memory with the variables of the forecast, dims
    (rank, lead_time[, level, region]): the share of each rank from 0 to M, which add up to 1. The coordinates
    `<variable>_low` and `<variable>_high` are the ends of the intervals.
    """
    pairs = match(forecast, truth, weights=weights, regions=regions)
    size = pairs.forecast.sizes.get(pairs.member, 0)
    ranks = xr.DataArray(np.arange(size + 1), dims="rank", name="rank", attrs={"long_name": "members below the truth"})
    fields, join = (lambda f: _rank_shares(f, size)), (lambda *shares: concat(list(shares), ranks))
    metric = Metric(fields, join, dimensionless=True, needs="members")
    return score_with_intervals(pairs, metric, skipna, bootstrap, "rank")


def _rank_shares(f: Fields, size: int) -> tuple[xr.Dataset, ...]:
    """Return for each rank 1 where the truth has it, or its share where the truth equals some members."""
    below, equal = (f.members < f.truth).sum(f.member), (f.members == f.truth).sum(f.member)
    # Comparisons with NaN are False.
    share = (1 / (equal + 1)).where(f.forecast.notnull() & f.truth.notnull())
    highest = below + equal
    return tuple(share * ((below <= rank) & (rank <= highest)) for rank in range(size + 1))
