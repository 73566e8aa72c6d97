"""The definition of every metric. Metrics added to METRICS appear in `score`, its table and figures.

A metric averages fields over the grid and the initializations, and computes its value from these means: roots and
ratios come last. In formulas F is the forecast, T the truth, C the climatology, f = F - C and t = T - C are the
anomalies, X_k are the M members of an ensemble, and <> is the weighted mean. Definitions as in WeatherBench 2
(`weatherbench2/metrics.py`) and WeatherBench-X (`weatherbenchX/metrics`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.grid import closes_longitude


@dataclass
class Fields:
    """Forecast, truth and climatology of one variable and block in physical units, and fields derived from them."""

    members: xr.Dataset  # with the dimension `member` of an ensemble
    truth: xr.Dataset
    climatology: xr.Dataset | None
    member: str | None
    probability: xr.Dataset | None = None  # of the event, from a system that states it directly, as climatology does

    @cached_property
    def forecast(self) -> xr.Dataset:
        """The single forecast, or the mean of the members."""
        return mean_over(self.member, self.members)

    @cached_property
    def error(self) -> xr.Dataset:
        return self.forecast - self.truth

    @cached_property
    def squared_error(self) -> "Product":
        return Product(self.error, self.error)

    @cached_property
    def anomaly(self) -> xr.Dataset:
        return self.forecast - self.climatology

    @cached_property
    def true_anomaly(self) -> xr.Dataset:
        return self.truth - self.climatology

    @cached_property
    def variance(self) -> xr.Dataset:
        """Variance over the members with the divisor M - 1; NaN for a forecast without members."""
        return self.forecast * np.nan if self.member is None else self.members.var(self.member, ddof=1, skipna=False)


def mean_over(member: str | None, forecast: xr.Dataset) -> xr.Dataset:
    """Return the mean over the members, or a forecast without members itself."""
    return forecast if member is None else forecast.mean(member, skipna=False)


@dataclass(frozen=True)
class Product:
    """The product of two fields, kept as factors: its weighted sum needs no copy in memory."""

    first: xr.Dataset
    second: xr.Dataset

    @property
    def value(self) -> xr.Dataset:
        return self.first * self.second


@dataclass(frozen=True)
class Metric:
    """The definition of a metric: the fields that it averages, its value from the means, and how it is presented."""

    # The fields to average; None where `score` binds them to thresholds or to a climatology of SEEPS.
    fields: Callable[[Fields], tuple[xr.Dataset | Product, ...]] | None
    combine: Callable[..., xr.Dataset]
    label: str = ""  # in figures
    dimensionless: bool = False  # otherwise in the unit of the variable
    weighted: bool = True  # by the area of the cells, or as the user asks
    per_init: bool = False  # the value of every initialization first, then the mean over these
    needs: Literal["climatology", "members", "thresholds", "seeps_climatology"] | None = None
    wavenumbers: tuple[int, int] | None = None  # zonal wavenumbers that the grid must resolve
    # Its sums over the grid, by (fields, weights, skipna, mask), if they are no weighted sums of `fields`.
    grid_sums: "Callable[[Fields, xr.DataArray, bool, xr.Dataset | None], xr.Variable] | None" = None
    smaller_is_better: bool = False  # 0 is best, so a skill is defined
    reference: float | None = None  # drawn as a line in figures
    default: bool = True  # `score` computes it if no metrics are named
    headline: bool = False  # `score_table` and `plot.scores` show it if no metrics are named
    sharpness: bool = False  # `plot.scorecard` shows it beside the skill
    of_vectors: bool = False  # defined for the length of a vector too
    undefined_for_climatology: bool = False
    skips_missing: bool = False  # missing cells do not make it NaN

    def per_init_sums(self, sums: xr.Dataset) -> xr.Dataset:
        """Return sums to add over initializations; if `per_init`, the value of each initialization and a count of 1."""
        if not self.per_init:
            return sums
        means, divisor = means_of(sums)
        counted = divisor > 0
        return concat([self.combine(*means).where(counted, 0), counted.astype(np.float64)], "part")

    def value(self, totals: xr.Dataset) -> xr.Dataset:
        """Return the metric from the sums of `per_init_sums`, added over initializations."""
        means, _ = means_of(totals)
        return means[0] if self.per_init else self.combine(*means)


def means_of(totals: xr.Dataset) -> tuple[list[xr.Dataset], xr.Dataset]:
    """Return the weighted means of the fields of a metric, and the sum of the weights they were divided by."""
    divisor = totals.isel(part=-1)
    return [ratio(totals.isel(part=index), divisor) for index in range(totals.sizes["part"] - 1)], divisor


def concat(datasets: list[xr.Dataset], dim: str | xr.DataArray) -> xr.Dataset:
    """Concatenate datasets with equal labels along a new dimension."""
    return xr.concat(datasets, dim, data_vars="all", coords="minimal", compat="override", join="exact")


def ratio(numerator: xr.Dataset, denominator: xr.Dataset) -> xr.Dataset:
    """Return the quotient, NaN where the denominator is zero."""
    return numerator / denominator.where(denominator != 0)


def mean(field: xr.Dataset) -> xr.Dataset:
    """Return the mean itself, for metrics without a root or ratio."""
    return field


def _absolute_error(f: Fields) -> tuple[xr.Dataset]:
    return (abs(f.error),)


def _correlation(ft: xr.Dataset, ff: xr.Dataset, tt: xr.Dataset) -> xr.Dataset:
    # Two roots: the root of the product overflows sooner.
    return ratio(ft, np.sqrt(ff) * np.sqrt(tt))


def _anomaly_products(f: Fields) -> tuple[Product, ...]:
    factors = (f.anomaly, f.true_anomaly), (f.anomaly, f.anomaly), (f.true_anomaly, f.true_anomaly)
    return tuple(Product(*pair) for pair in factors)


def _root_of_ratio(numerator: xr.Dataset, denominator: xr.Dataset) -> xr.Dataset:
    return np.sqrt(ratio(numerator, denominator))  # type: ignore[return-value]


def _spread_over_error(variance: xr.Dataset, squared_error: xr.Dataset) -> xr.Dataset:
    # The unbiased squared error can be negative by chance.
    return _root_of_ratio(variance, squared_error.where(squared_error > 0))


def _spread_and_error(f: Fields) -> tuple[xr.Dataset, ...]:
    """Return the variance over members and the squared error of their mean less its expected share of the variance."""
    # A forecast without members has a variance of NaN, so the divisor is irrelevant.
    size = f.members.sizes[f.member] if f.member else 1
    return f.variance, f.squared_error.value - f.variance / size


def _crps(f: Fields) -> tuple[xr.Dataset, ...]:
    """Return the fair CRPS of each cell (Ferro 2014): mean_k |X_k - T| - sum_kl |X_k - X_l| / (2 M (M - 1))."""
    if f.member is None:
        return _absolute_error(f)
    size = f.members.sizes[f.member]
    distance = abs(f.members - f.truth).mean(f.member, skipna=False)

    def half_distance_of_members(field: xr.DataArray) -> xr.DataArray:
        # sum_kl |X_k - X_l| = 2 sum_k (2 k - M - 1) X_(k) over the members in ascending order (as WeatherBench 2):
        # member k is the larger of k - 1 pairs and the smaller of M - k.
        ascending = np.sort(field.transpose(..., f.member).values, axis=-1)
        factor = 2 * np.arange(1, size + 1) - size - 1
        return field.isel({f.member: 0}, drop=True).copy(data=ascending @ (factor / (size * (size - 1))))

    return (distance - f.members.map(half_distance_of_members),)


def _energy_sums(f: Fields, weights: xr.DataArray, skipna: bool, mask: xr.Dataset | None) -> xr.Variable:
    """Return the fair energy score of each pair and 1, twice 0 without cells, dims (part, init_time, lead_time, ...).

    mean_k |X_k - T| - sum_kl |X_k - X_l| / (2 M (M - 1)) with |x| = sqrt(<x^2>), <> the mean over the grid.
    """
    (members,), (truth,) = f.members.data_vars.values(), f.truth.data_vars.values()
    members = members if f.member else members.expand_dims("number")
    space, member = ("latitude", "longitude"), f.member or "number"
    dims = ["init_time", "lead_time", *(dim for dim in truth.dims if dim not in ("init_time", "lead_time", *space))]
    cells = truth.transpose(*dims, ..., *space)
    fields = members.transpose(*dims, member, *space).values.reshape(*cells.shape[:-2], members.sizes[member], -1)
    errors = fields - cells.values.reshape(*cells.shape[:-2], 1, -1)
    # Distances between members are small beside the fields: subtract the mean before the scalar products.
    anomalies = fields - fields.mean(axis=-2, keepdims=True)
    counted = ~np.isnan(errors).any(axis=-2, keepdims=True) if skipna else np.ones((1, 1, errors.shape[-1]), bool)
    if mask is not None and not skipna:
        (masked,) = mask.data_vars.values()
        counted = ~masked.transpose(*dims[2:], *space).values.reshape(*cells.shape[2:-2], 1, -1)
    errors, anomalies = np.where(counted, errors, 0), np.where(counted, anomalies, 0)
    area = (weights * xr.ones_like(cells["longitude"], dtype=np.float64)).transpose(..., *space)
    area = area.values.reshape(-1, errors.shape[-1])
    scores = [_energy_score(errors[..., w > 0], anomalies[..., w > 0], counted[..., w > 0] * w[w > 0]) for w in area]
    by_region = "region" in weights.dims
    values = np.stack(scores, axis=-1) if by_region else scores[0]
    return xr.Variable(("part", *dims, *(["region"] if by_region else [])), values)


def _energy_score(errors: np.ndarray, anomalies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return energy scores and their count, (2, ...), of arrays (..., member, cell) with weights (..., 1, cell)."""
    total, size = np.broadcast_to(weights.sum(axis=-1), (*errors.shape[:-2], 1)), errors.shape[-2]
    usable = np.where(total > 0, total, 1)
    distance = np.sqrt((errors**2 * weights).sum(axis=-1) / usable).mean(axis=-1)
    if size > 1:
        # |x - y|^2 = x^2 + y^2 - 2 xy
        products = (anomalies * weights) @ anomalies.swapaxes(-1, -2)
        squares = np.diagonal(products, axis1=-2, axis2=-1)
        squared_distances = squares[..., :, None] + squares[..., None, :] - 2 * products
        between = np.sqrt(np.clip(squared_distances, 0, None) / usable[..., None])
        distance = distance - between.sum(axis=(-2, -1)) / (2 * size * (size - 1))
    counted = total[..., 0] > 0
    return np.stack([np.where(counted, distance, 0), counted.astype(np.float64)])


def variance_ratio(wavenumbers: tuple[int, int]) -> Metric:
    """Return the metric <V(F)> / <V(T)>, V the variance along a circle of latitude in a range of zonal wavenumbers."""
    variance = _variance_of(wavenumbers)
    return Metric(
        lambda f: (f.forecast.map(variance), f.truth.map(variance)), ratio, "Small-scale variance ratio",
        dimensionless=True, wavenumbers=wavenumbers, reference=1.0, headline=True, sharpness=True, skips_missing=True,
    )  # fmt: skip


def _variance_ratio_of_members(wavenumbers: tuple[int, int]) -> Metric:
    """Return the metric <mean_k V(X_k)> / <V(T)>: the mean of an ensemble is smoother than its members."""
    variance = _variance_of(wavenumbers)
    return replace(
        variance_ratio(wavenumbers),
        fields=lambda f: (mean_over(f.member, f.members.map(variance)), f.truth.map(variance)),
        label="Small-scale variance ratio of members", needs="members", headline=False, sharpness=False,
    )  # fmt: skip


def _variance_of(wavenumbers: tuple[int, int]) -> Callable[[xr.DataArray], xr.DataArray]:
    """Return the function V of a field."""
    first, last = wavenumbers

    def variance(field: xr.DataArray) -> xr.DataArray:
        # 2 |F_k|^2 summed over k (WeatherBench 2, ZonalEnergySpectrum, without the length of the circle).
        values = field.transpose(..., "longitude")
        spectrum = np.fft.rfft(values.values, norm="forward")[..., first : last + 1]
        return values.isel(longitude=0, drop=True).copy(data=2 * (np.abs(spectrum) ** 2).sum(axis=-1))

    return variance


def _grid_noise(f: Fields) -> tuple[xr.Dataset | Product]:
    """Return the square of the checkerboard in a forecast, of all members if it has some."""
    pattern = f.members.map(_checkerboard)
    return (Product(pattern, pattern),) if f.member is None else (mean_over(f.member, pattern**2),)


def _checkerboard(field: xr.DataArray) -> xr.DataArray:
    """Return what the filter [-1, 2, -1] / 4 along longitude and along latitude leaves of a field.

    A wave with k cells from crest to crest keeps sin^2(pi / k) in each direction, two cells all of it. Beyond the edge
    of the grid, and in cells without a value, stands the neighbor on the other side.
    """
    values = field.transpose(..., "latitude", "longitude")
    filtered = values.values
    for axis, closes in ((-1, closes_longitude(field["longitude"])), (-2, False)):
        before, after = np.roll(filtered, 1, axis), np.roll(filtered, -1, axis)
        if not closes:
            edges = np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0)
            edges[0][0], edges[1][-1] = np.nan, np.nan
        before, after = np.where(np.isnan(before), after, before), np.where(np.isnan(after), before, after)
        before, after = (np.where(np.isnan(each), filtered, each) for each in (before, after))
        filtered = (2 * filtered - before - after) / 4
    return values.copy(data=filtered)


# sqrt(<(F - T)^2>), the root last: the code of WeatherBench 1, and ECMWF's convention.
_RMSE = Metric(lambda f: (f.squared_error,), np.sqrt, "RMSE", smaller_is_better=True, headline=True, of_vectors=True)
# <f t> / sqrt(<f^2> <t^2>): WeatherBench-X. Below 0.6 a forecast is customarily no longer useful.
_ACC = Metric(
    _anomaly_products, _correlation, "ACC", dimensionless=True, needs="climatology", reference=0.6, headline=True,
    undefined_for_climatology=True,
)  # fmt: skip

# By name, in the order in which `score` returns them.
METRICS = {
    "rmse": _RMSE,
    "mae": Metric(_absolute_error, mean, "MAE", smaller_is_better=True),
    "bias": Metric(lambda f: (f.error,), mean, "Bias", reference=0.0),
    "acc": _ACC,
    # The same for every initialization, then the mean: WeatherBench 2.
    "acc_per_init": replace(_ACC, label="ACC (mean over forecasts)", per_init=True, default=False, headline=False),
    # sqrt(<f^2> / <t^2>)
    "activity": Metric(
        lambda f: (Product(f.anomaly, f.anomaly), Product(f.true_anomaly, f.true_anomaly)), _root_of_ratio, "Activity",
        dimensionless=True, needs="climatology", reference=1.0, headline=True, sharpness=True,
    ),
    "small_scale_variance": variance_ratio((10, 19)),
    "member_small_scale_variance": _variance_ratio_of_members((10, 19)),
    # sqrt(<c^2>), c the checkerboard of two cells in both directions
    "grid_noise": Metric(_grid_noise, np.sqrt, "Grid noise", default=False),
    # OpenSTL and others print the error without area weights.
    "rmse_unweighted": replace(_RMSE, label="RMSE, not weighted", weighted=False, default=False, headline=False),
    "crps": Metric(_crps, mean, "CRPS", needs="members", smaller_is_better=True),
    # sqrt(<var X>)
    "spread": Metric(lambda f: (f.variance,), np.sqrt, "Spread", needs="members"),
    # sqrt(<var X> / <(mean X - T)^2 - var X / M>): WeatherBench-X, UnbiasedSpreadSkillRatio.
    "spread_skill_ratio": Metric(
        _spread_and_error, _spread_over_error, "Spread / skill", dimensionless=True, needs="members", reference=1.0
    ),
    # The mean over initializations of the fair energy score of fields: Gneiting and Raftery 2007.
    "energy_score": Metric(
        None, mean, "Energy score", needs="members", grid_sums=_energy_sums, smaller_is_better=True, default=False
    ),
    # <(p - o)^2>, p the probability of exceeding the threshold and o 1 where the truth does.
    "brier": Metric(
        None, mean, "Brier score",
        dimensionless=True, needs="thresholds", smaller_is_better=True, undefined_for_climatology=True,
    ),
    # <p> / <o>
    "frequency_bias": Metric(
        None, ratio, "Frequency bias",
        dimensionless=True, needs="thresholds", reference=1.0, undefined_for_climatology=True,
    ),
    # Rodwell et al. 2010, with the matrix of WeatherBench 2: `categorical.seeps_pairs`.
    "seeps": Metric(
        None, mean, "SEEPS", dimensionless=True, needs="seeps_climatology", smaller_is_better=True, skips_missing=True
    ),
}  # fmt: skip
