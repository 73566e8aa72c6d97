"""The metrics: the fields that each averages, and the score that it makes of the means."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr


class Fields:
    """Forecast, truth and climatology of a block, and what several metrics make of them; all in physical units.

    `probability` is that of an event, of a system that says one and has no members to count.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        truth: xr.Dataset,
        climatology: xr.Dataset | None,
        member: str | None,
        probability: xr.Dataset | None = None,
    ):
        self.truth, self.climatology, self.member, self.probability = truth, climatology, member, probability
        self.members = forecast
        self.forecast = forecast if member is None else forecast.mean(member, skipna=False)

    @cached_property
    def error(self) -> xr.Dataset:
        return self.forecast - self.truth

    @cached_property
    def square(self) -> "Product":
        return Product(self.error, self.error)

    @cached_property
    def anomaly(self) -> xr.Dataset:
        return self.forecast - self.climatology

    @cached_property
    def true_anomaly(self) -> xr.Dataset:
        return self.truth - self.climatology

    @cached_property
    def variance(self) -> xr.Dataset:
        """Over the members; a forecast without has none."""
        if self.member is None:
            return self.forecast * np.nan
        return self.members.var(self.member, ddof=1, skipna=False)


@dataclass(frozen=True)
class Product:
    """A field that is the product of two: its mean needs no copy of it."""

    first: xr.Dataset
    second: xr.Dataset

    @property
    def value(self) -> xr.Dataset:
        return self.first * self.second


@dataclass(frozen=True)
class Metric:
    """The fields whose means a metric needs, and the metric from these means."""

    fields: Callable[[Fields], tuple[xr.Dataset | Product, ...]]
    finish: Callable[..., xr.Dataset]
    dimensionless: bool = False
    weighted: bool = True  # by the area of the cells, or whatever is asked for
    per_init: bool = False  # the metric of every initialization, then the mean of these
    needs_climatology: bool = False
    of_ensembles: bool = False


def _crps(f: Fields) -> tuple[xr.Dataset, ...]:
    if f.member is None:
        return (abs(f.error),)
    count = f.members.sizes[f.member]
    distance = abs(f.members - f.truth).mean(f.member, skipna=False)

    def half_distance_of_members(field: xr.DataArray) -> xr.DataArray:
        # the sum of all distances from the sorted members: each is the larger one of `rank` pairs
        ordered = np.sort(field.transpose(..., f.member).values, axis=-1)
        factor = 2 * np.arange(1, count + 1) - count - 1
        return field.isel({f.member: 0}, drop=True).copy(data=ordered @ (factor / (count * (count - 1))))

    return (distance - f.members.map(half_distance_of_members),)


def _small_scale_variance(wavenumbers: tuple[int, int]) -> Metric:
    first, last = wavenumbers

    def variance(field: xr.DataArray) -> xr.DataArray:
        values = field.transpose(..., "longitude")
        spectrum = np.fft.rfft(values.values, norm="forward")[..., first : last + 1]
        return values.isel(longitude=0, drop=True).copy(data=2 * (np.abs(spectrum) ** 2).sum(axis=-1))

    return Metric(lambda f: (f.forecast.map(variance), f.truth.map(variance)), ratio, dimensionless=True)


def _correlation(ab: xr.Dataset, aa: xr.Dataset, bb: xr.Dataset) -> xr.Dataset:
    # two roots, not the root of the product, which overflows sooner
    return ratio(ab, np.sqrt(aa) * np.sqrt(bb))


def _anomaly_products(f: Fields) -> tuple[Product, ...]:
    pairs = (f.anomaly, f.true_anomaly), (f.anomaly, f.anomaly), (f.true_anomaly, f.true_anomaly)
    return tuple(Product(*pair) for pair in pairs)


def ratio(numerator: xr.Dataset, denominator: xr.Dataset) -> xr.Dataset:
    """Return the quotient, NaN where the denominator is zero."""
    return numerator / denominator.where(denominator != 0)


METRICS = {
    "rmse": Metric(lambda f: (f.square,), np.sqrt),
    "mae": Metric(lambda f: (abs(f.error),), lambda error: error),
    "bias": Metric(lambda f: (f.error,), lambda error: error),
    "acc": Metric(_anomaly_products, _correlation, dimensionless=True, needs_climatology=True),
    "acc_per_init": Metric(_anomaly_products, _correlation, dimensionless=True, needs_climatology=True, per_init=True),
    "activity": Metric(
        lambda f: (Product(f.anomaly, f.anomaly), Product(f.true_anomaly, f.true_anomaly)),
        lambda aa, bb: np.sqrt(ratio(aa, bb)),  # type: ignore[return-value]
        dimensionless=True,
        needs_climatology=True,
    ),
    "small_scale_variance": _small_scale_variance((10, 19)),
    # as OpenSTL and others print it
    "rmse_unweighted": Metric(lambda f: (f.square,), np.sqrt, weighted=False),
    "crps": Metric(_crps, lambda crps: crps, of_ensembles=True),
    "spread": Metric(lambda f: (f.variance,), np.sqrt, of_ensembles=True),
    "spread_skill_ratio": Metric(
        # the factor makes NaN of a forecast without members
        lambda f: (f.variance, f.square.value - f.variance / (f.members.sizes[f.member] if f.member else 1)),
        # the error may come out below the share of the spread that it holds by chance
        lambda variance, error: np.sqrt(ratio(variance, error.where(error > 0))),  # type: ignore[return-value]
        dimensionless=True,
        of_ensembles=True,
    ),
}
