"""Sums over the periods of each year of a series, from one pass over blocks of bounded size."""

import itertools
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.harmonics import IS_ANNUAL, harmonic_basis
from simvp_climate.metrics.climate.periods import Timeline
from simvp_climate.metrics.spectral import wave_power

BINS = 2000  # of a histogram, over the range of the first values; as many again lie on both sides
Method = Literal["mean", "minimum", "maximum"]
_BLOCK_BYTES = 64 * 2**20
_REDUCE = {"mean": np.add, "minimum": np.minimum, "maximum": np.maximum}
_WAVES = np.flatnonzero(np.concatenate([[True], IS_ANNUAL[1:]]))  # the mean and the waves of the year


@dataclass(frozen=True, eq=False)
class Grid:
    """The area weights of the cells of a variable, and the bins and the wet day of its values."""

    weights: np.ndarray  # (level, latitude, longitude), zero in cells without values
    origin: np.ndarray  # (level,) the lowest value of the central bins
    width: np.ndarray  # (level,) of a bin
    is_ring: bool
    wet_value: float | None  # in the units of the data; None unless the variable is precipitation

    def mean(self, field: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the area mean of (..., level, latitude, longitude), or with (band, latitude) the mean of each band."""
        values = np.where(self.weights > 0, field, 0)
        if rows is None:
            return (values * self.weights).sum((-2, -1)) / self.weights.sum((-2, -1))
        sums = np.einsum("by,...lyx,lyx->...lb", rows, values, self.weights)
        totals = np.einsum("by,lyx->lb", rows, self.weights)
        return sums / np.where(totals > 0, totals, np.nan)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the periods of each year, dims (year, member, level, ...) unless stated; all can be added over years.

    They give means, the regression on harmonics of the year and what it leaves, spectra, histograms and extremes.
    """

    days: np.ndarray  # (year, month)
    total: np.ndarray  # (year, month, member, level, latitude, longitude), values times days
    count: np.ndarray  # (year)
    gram: np.ndarray  # (year, harmonic, harmonic), products of the harmonics
    moment: np.ndarray  # (year, harmonic, member, level, latitude, longitude), harmonics times values
    square: np.ndarray  # (..., latitude, longitude)
    power: np.ndarray  # (..., zonal wavenumber), area mean
    histogram: np.ndarray  # (..., bin), area
    highest: np.ndarray  # (..., latitude, longitude)
    wet: np.ndarray  # (...,), area

    def select(self, years: slice | np.ndarray) -> "Sums":
        return Sums(*(getattr(self, field.name)[years] for field in fields(self)))


def add_up(data: xr.DataArray, timeline: Timeline, method: Method, grid: Grid, member: str | None, role: str) -> Sums:
    """Return the sums of a variable on the canonical grid; ValueError if a value is missing or infinite."""
    dims = [
        "time",
        *([member] if member else []),
        *(["level"] if "level" in data.dims else []),
        "latitude",
        "longitude",
    ]
    shape = (data.sizes[member] if member else 1, *grid.weights.shape)
    sums = _empty(len(timeline.years), shape, grid)
    basis = harmonic_basis(timeline.spans.middle)[:, _WAVES]
    for periods in _blocks(timeline, int(np.prod(shape))):
        values = read(data.transpose(*dims), timeline, periods, method).reshape(-1, *shape)
        if (missing := ~np.isfinite(values) & (grid.weights > 0)).any():
            time = timeline.spans.middle[periods][int(missing.any((1, 2, 3, 4)).argmax())]
            rule = "All values of a cell must be finite, or all missing"
            fix = "Select the time before: .sel(time=slice(None, ...))"
            raise ValueError(f"{data.name!r} of {role} is missing or infinite near {time}. {rule}. {fix}")
        years = timeline.year[periods]
        for year in np.unique(years):
            rows = years == year
            spans = timeline.spans
            months = spans.months[periods][rows] % 12
            _add_year(sums, year, np.where(grid.weights > 0, values[rows], 0), basis[periods][rows],
                      spans.days[periods][rows], months, grid)  # fmt: skip
    return sums


def read(data: xr.DataArray, timeline: Timeline, periods: slice, method: Method) -> np.ndarray:
    """Return the means, minima or maxima over some periods, (period, ...), in float64."""
    first, count = timeline.first[periods], timeline.count[periods]
    values = np.asarray(data.isel(time=slice(int(first[0]), int(first[-1] + count[-1]))).values, dtype=np.float64)
    starts = first - first[0]
    if count.max() == 1:
        return values if len(values) == len(starts) else values[starts]
    begins = np.cumsum(count) - count
    if len(values) != count.sum():  # there are values of no period between
        values = values[np.repeat(starts - begins, count) + np.arange(count.sum())]
    result = _REDUCE[method].reduceat(values, begins, axis=0)
    return result / count.reshape(-1, *[1] * (values.ndim - 1)) if method == "mean" else result


def _blocks(timeline: Timeline, size: int) -> list[slice]:
    """Return slices of periods whose states fit in a block."""
    states = np.cumsum(timeline.count)
    block = states * size * 8 // _BLOCK_BYTES
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1), len(block)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges) if stop > start]


def _empty(years: int, shape: tuple[int, ...], grid: Grid) -> Sums:
    waves, each = len(_WAVES), (years, *shape[:2])
    return Sums(
        np.zeros((years, 12)), np.zeros((years, 12, *shape)), np.zeros(years), np.zeros((years, waves, waves)),
        np.zeros((years, waves, *shape)), np.zeros((years, *shape)),
        np.zeros((*each, shape[-1] // 2 if grid.is_ring else 0)), np.zeros((*each, 3 * BINS)),
        np.full((years, *shape), -np.inf), np.zeros(each),
    )  # fmt: skip


def _add_year(
    sums: Sums, year: int, values: np.ndarray, basis: np.ndarray, days: np.ndarray, months: np.ndarray, grid: Grid
) -> None:
    """Add some periods of one year, values (period, member, level, latitude, longitude)."""
    for month in np.unique(months):
        rows = months == month
        sums.days[year, month] += days[rows].sum()
        sums.total[year, month] += np.tensordot(days[rows], values[rows], 1)
    sums.count[year] += len(values)
    sums.gram[year] += basis.T @ basis
    sums.moment[year] += np.tensordot(basis.T, values, 1)
    sums.square[year] += (values**2).sum(0)
    np.maximum(sums.highest[year], values.max(0), out=sums.highest[year])
    if grid.wet_value is not None:
        sums.wet[year] += ((values >= grid.wet_value) * grid.weights).sum((0, -2, -1))
    if grid.is_ring:
        # rows with cells without values have no spectrum
        rows = np.where((grid.weights > 0).all(-1), grid.weights[..., 0], 0)
        rows = rows / np.maximum(rows.sum(-1, keepdims=True), 1e-12)
        sums.power[year] += np.einsum("tmlyk,ly->mlk", wave_power(values)[..., 1:], rows)
    below, above = -BINS, 2 * BINS - 1
    place = (values - grid.origin[:, None, None]) // grid.width[:, None, None]
    place = np.clip(place, below, above).astype(np.int64) + BINS
    series = np.arange(np.prod(values.shape[1:3])).reshape(*values.shape[1:3], 1, 1) * 3 * BINS
    weights = np.broadcast_to(grid.weights, values.shape)
    counts = np.bincount((place + series).ravel(), weights.ravel(), sums.histogram[year].size)
    sums.histogram[year] += counts.reshape(sums.histogram[year].shape)
