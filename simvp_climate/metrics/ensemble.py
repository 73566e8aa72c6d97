"""Scores of ensembles: CRPS, spread, and how the truth ranks among the members."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.metrics.aggregation import (
    _described,
    _means,
    _single,
    cell_weights,
    concat,
    members_of,
    weighted_sums,
)
from simvp_climate.metrics.definitions import Fields, Metric
from simvp_climate.metrics.pairs import match
from simvp_climate.metrics.regions import Region


def crps(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the fair continuous ranked probability score of an ensemble.

    <mean_k |X_k - T| - 1/2 sum_kl |X_k - X_l| / (M (M - 1))> over the M members X and the truth T: the score that an
    ensemble with infinitely many members of the same kind would have (Ferro 2014), as WeatherBench 2 and
    WeatherBench-X compute it. Arguments, result and errors as in `rmse`, for a forecast with a dimension of members
    (`number`, `realization`, `member`) that is pooled; ValueError also where there is none, or a single member.
    """
    return _single("crps", forecast, truth, None, weights, skipna)


def spread(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the spread of an ensemble, sqrt(<variance over members>), the variance with the divisor M - 1.

    The truth says which pairs count. Arguments, result and errors as in `crps`.
    """
    return _single("spread", forecast, truth, None, weights, skipna)


def spread_skill_ratio(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the spread of an ensemble over the error of its mean, 1 where the members are like the truth.

    sqrt(<variance>) / sqrt(<(mean - T)^2 - variance / M>), so that it does not depend on the number of members M
    (WeatherBench-X `UnbiasedSpreadSkillRatio`). Below 1 the ensemble is too sure. Arguments, result and errors as in
    `crps`; no unit.
    """
    return _single("spread_skill_ratio", forecast, truth, None, weights, skipna)


def rank_histogram(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return how often the truth lies above so many members: flat if the ensemble is reliable.

    Arguments and errors as in `crps`, `regions` as in `score`. A truth that equals some members counts in equal parts
    for all ranks that it could have.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (rank, lead_time[, level, region]), the share of each
    rank from 0 to M; the sum over the ranks is 1.
    """
    pairs = match(forecast, truth, None)
    member = members_of(pairs)
    count = pairs.forecast.sizes[member]
    metric = Metric(lambda f: _shares_of_ranks(f, count), lambda *means: means)
    cells = cell_weights(pairs.grid, weights, regions, truth)
    sums = weighted_sums(pairs, {"rank": metric}, cells, skipna, pool_members=True)["", "rank"]
    shares, _ = _means(sums.sum("init_time", skipna=False))
    ranks = xr.DataArray(np.arange(count + 1), dims="rank", name="rank", attrs={"long_name": "members below the truth"})
    result = concat(list(shares), ranks)
    return _described(result.transpose("rank", "lead_time", "level", "region", ..., missing_dims="ignore"), True, pairs)


def _shares_of_ranks(f: Fields, count: int) -> tuple[xr.Dataset, ...]:
    """Return for each rank whether the truth has it, or which share of it."""
    below, equal = (f.members < f.truth).sum(f.member), (f.members == f.truth).sum(f.member)
    # comparisons know no missing values
    share = (1 / (equal + 1)).where(f.forecast.notnull() & f.truth.notnull())
    last = below + equal
    return tuple(share * ((below <= rank) & (rank <= last)) for rank in range(count + 1))
