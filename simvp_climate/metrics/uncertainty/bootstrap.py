"""Moving-block bootstrap: intervals of scores from resampled blocks of initializations."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import xarray as xr

from simvp_climate.metrics.aggregation import lay_out, sums_by_init, with_attrs
from simvp_climate.metrics.definitions import Metric
from simvp_climate.metrics.pairs import Pairs

# With fewer blocks, the samples do not show how much blocks differ.
MIN_BLOCKS = 5
_SAMPLES_BYTES = 64 * 2**20  # of resampled sums in memory


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the moving-block bootstrap of initializations, from which `score` takes its intervals.

    Attributes
    ----------
    confidence
        Fraction of the samples inside an interval, between 0 and 1; its bounds are percentiles of the samples.
    block
        Number of initializations in a block. None: as many as the longest lead spans, at least the cube root of all.
    samples, seed
        Number of samples, the same ones for all systems, and the seed of the random numbers.
    """

    confidence: float = 0.95
    block: int | None = None
    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence!r} must lie between 0 and 1, for example 0.95")
        for name, minimum in (("samples", 2), ("seed", 0), *([] if self.block is None else [("block", 1)])):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
                raise ValueError(f"{name}={value!r} must be a whole number, at least {minimum}")

    def draw(self, verified: np.ndarray, init_time: xr.DataArray, lead_time: xr.DataArray) -> "Samples":
        """Return samples of the initializations, drawn from those in the mask `verified`."""
        length = block_length(init_time, lead_time) if self.block is None else self.block
        inits = int(verified.sum())
        drawn = resample(inits, length, self.samples, self.seed)
        if drawn is None:
            return Samples(None, f"none: {inits} initializations are fewer than five blocks of {length}")
        counts = np.zeros((self.samples, len(verified)))
        counts[:, verified] = drawn
        description = (
            f"{self.confidence:.0%}, percentiles of {self.samples} moving-block bootstrap samples of {inits} "
            f"initializations, blocks of {length}, seed {self.seed}; none where fewer than five blocks were verified"
        )
        return Samples(counts, description, self.confidence, MIN_BLOCKS * length)


@dataclass(frozen=True)
class Samples:
    """Bootstrap samples: how often each initialization is in each, (sample, init_time), or None without intervals."""

    counts: np.ndarray | None
    description: str
    confidence: float = np.nan
    min_inits: int = 0  # an interval needs values from so many initializations

    def resample_sums(self, sums: xr.Dataset) -> xr.Dataset:
        """Return the sums over the initializations of every sample, by matrix products."""

        def product(field: xr.DataArray) -> xr.DataArray:
            values = field.transpose("init_time", ...)
            flat = self.counts @ values.values.reshape(values.shape[0], -1)
            return xr.DataArray(flat.reshape(-1, *values.shape[1:]), dims=("sample", *values.dims[1:]))

        coordinates = {name: c for name, c in sums.coords.items() if "init_time" not in c.dims}
        return sums.map(product).assign_coords(coordinates)


def block_length(init_time: xr.DataArray, lead_time: xr.DataArray) -> int:
    """Return the length of a block: the initializations within the longest lead, at least the cube root of all."""
    # Forecasts that overlap in time are verified against the same weather, so their errors depend on each other. The
    # cube root is the theoretical growth of the block length (Künsch 1989).
    inits = init_time.to_index()
    if len(inits) < 2:
        return 1
    spacing = np.median(np.diff(inits.sort_values()).astype("timedelta64[s]").astype(np.int64))
    last = lead_time.values.max()
    in_months = not np.issubdtype(lead_time.dtype, np.timedelta64)
    seconds = int(last) * 30 * 86400 if in_months else last.astype("timedelta64[s]").astype(np.int64)
    return int(max(np.ceil(seconds / max(spacing, 1)), np.ceil(len(inits) ** (1 / 3)), 1))


def resample(count: int, length: int, samples: int, seed: int) -> np.ndarray | None:
    """Return how often each of `count` initializations is in each sample, (sample, init); None if they are too few.

    Moving blocks (Künsch 1989, Liu and Singh 1992): draws blocks of `length` neighbors with equal probability until a
    sample has `count` initializations, and cuts the last block.
    """
    if count < MIN_BLOCKS * length or count < 2:
        return None
    random = np.random.default_rng(seed)
    starts = random.integers(0, count - length + 1, size=(samples, -(-count // length)))
    drawn = (starts[:, :, np.newaxis] + np.arange(length)).reshape(samples, -1)[:, :count]
    counts = np.zeros((samples, count))
    np.add.at(counts, (np.arange(samples)[:, np.newaxis], drawn), 1)
    return counts


def percentiles(values: xr.Dataset, confidence: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the lower and the upper bound of the central interval along `sample`; NaN if most have no value."""
    tail = (1 - confidence) / 2
    # a sample without an initialization in a season has no value for it
    enough = values.notnull().mean("sample") > 0.5
    # numpy warns of slices without values, so they are 0 during the computation
    bounds = values.where(enough, 0).quantile([tail, 1 - tail], "sample", skipna=True).where(enough)
    return bounds.isel(quantile=0, drop=True), bounds.isel(quantile=1, drop=True)


def score_with_intervals(
    pairs: Pairs, metric: Metric, skipna: bool, bootstrap: Bootstrap | None, *first: str
) -> xr.Dataset:  # fmt: skip
    """Return `pooled_score` with dims in the usual order after `first`, and with intervals as `score` has them."""
    sums = sums_by_init(pairs, metric, skipna)
    result = lay_out(with_attrs(metric.value(sums.sum("init_time", skipna=False)), metric, pairs), pairs, *first)
    if bootstrap is None:
        return result
    counted = sums.isel(part=-1) > 0
    verified = counted.to_array().transpose("init_time", ...).values.reshape(len(pairs.complete), -1).any(axis=-1)
    leads = pairs.forecast["lead_time"].isel(lead_time=np.flatnonzero(pairs.complete.any(axis=0)))
    samples = bootstrap.draw(verified, pairs.forecast["init_time"], leads)
    result = result.assign_attrs(intervals=samples.description)
    if samples.counts is None:
        return result
    enough = counted.sum("init_time") >= samples.min_inits
    # Some leads at a time: the samples of a result with many bins are large.
    values = sum(field.size for field in sums.data_vars.values()) // (sums.sizes["init_time"] * sums.sizes["lead_time"])
    width = max(_SAMPLES_BYTES // (8 * values * bootstrap.samples), 1)
    by_lead = (sums.isel(lead_time=slice(first, first + width)) for first in range(0, sums.sizes["lead_time"], width))
    bounds = [percentiles(metric.value(samples.resample_sums(each)), samples.confidence) for each in by_lead]
    for suffix, ends in zip(("low", "high"), zip(*bounds, strict=True), strict=True):
        end = xr.concat(ends, "lead_time", join="exact").where(enough)
        for name, values in lay_out(end, pairs, *first).data_vars.items():
            long_name = f"{'lower' if suffix == 'low' else 'upper'} end of the {samples.confidence:.0%} interval"
            variable = values.variable.transpose(*result[name].dims)
            result = result.assign_coords({f"{name}_{suffix}": variable})
            result[f"{name}_{suffix}"].attrs = {"long_name": f"{long_name} of {name}"}
    return result
