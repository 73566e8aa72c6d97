"""The climatology that a forecaster carries: harmonics of the year and the day, fitted in the pass of the statistics.

Shape suffixes: K harmonic, C channel, H latitude, W longitude.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.harmonics import IS_ANNUAL, IS_DAILY, NAMES, harmonic_basis
from simvp_climate.data.windows import to_iso

# Bytes of the float32 coefficients; twice as many are in memory while they are fitted. Larger ones are left out.
_MAX_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Harmonics:
    """Mean, annual and daily harmonics of the training period for each channel and cell."""

    coefficients: np.ndarray  # (harmonic, channel, latitude, longitude), float32, in the units of training, NaN: mask
    start: str  # first and last training time that was used, ISO
    end: str
    months: tuple[int, ...]  # the months that the period holds


def describe_harmonics(
    coefficients: np.ndarray, times: Sequence[pd.Index], windows: Sequence[np.ndarray]
) -> Harmonics | None:
    """Return the harmonics with the period that the windows of all series use; None if there are no coefficients."""
    if not len(coefficients):
        return None
    used = _used_times(times, windows)
    edges = sorted(to_iso(time) for series in used for time in (series.values[0], series.values[-1]))
    return Harmonics(coefficients, edges[0], edges[-1], tuple(sorted(_months(used))))


def fits_in_memory(shape: tuple[int, ...]) -> bool:
    """Return whether a climatology of states (channel, latitude, longitude) is small enough to be kept."""
    return 4 * len(NAMES) * int(np.prod(shape)) <= _MAX_BYTES


class HarmonicSums:
    """Sums of states times harmonics, from which the coefficients follow by least squares."""

    def __init__(self, shape: tuple[int, int, int], times: Sequence[pd.Index], windows: Sequence[np.ndarray]):
        used = _used_times(times, windows)
        self.bases = [harmonic_basis(series) for series in used]
        hours = {(time.hour, time.minute) for series in used for time in series[:1000]}
        # Harmonics of a year that is not covered would extrapolate wildly; those of the day need two times of the day.
        self.fitted = ~(IS_ANNUAL | IS_DAILY)
        self.fitted |= IS_ANNUAL & (len(_months(used)) == 12)
        self.fitted |= IS_DAILY & (len(hours) > 1)
        self.origin: np.ndarray | None = None  # subtracted from every state, (channel,)
        self.sums_KCHW = np.zeros((len(NAMES), *shape))

    def add(self, states: np.ndarray, series: int, start: int, has_missing: bool) -> None:
        """Add states (time, channel, latitude, longitude) at consecutive used times of a series, from `start` on."""
        basis = self.bases[series][start : start + len(states)].astype(np.float32)
        if self.origin is None:
            valid = np.isfinite(states[0])
            total = np.where(valid, states[0], 0).sum(axis=(1, 2), dtype=np.float64)
            self.origin = (total / np.maximum(valid.sum(axis=(1, 2)), 1)).astype(np.float32)
        for channel, origin in enumerate(self.origin):  # a channel at a time, to save memory
            anomaly = (states[:, channel] - origin).reshape(len(states), -1)
            if has_missing:
                np.nan_to_num(anomaly, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            self.sums_KCHW[:, channel] += (basis.T @ anomaly).reshape(len(NAMES), *states.shape[2:])

    def coefficients(self, mask: np.ndarray) -> np.ndarray:
        """Return the coefficients, (harmonic, channel, latitude, longitude), float32; NaN where `mask`."""
        assert self.origin is not None
        gram = sum(basis.T @ basis for basis in self.bases)[np.ix_(self.fitted, self.fitted)]
        # the pseudoinverse leaves out what two times of the day cannot tell apart
        inverse = np.linalg.pinv(gram, rcond=1e-9, hermitian=True)
        result = np.zeros(self.sums_KCHW.shape, dtype=np.float32)
        fitted = np.tensordot(inverse, self.sums_KCHW[self.fitted], 1)
        fitted[0] += self.origin[:, np.newaxis, np.newaxis]
        result[self.fitted] = fitted
        result[:, mask] = np.nan
        return result


def _used_times(times: Sequence[pd.Index], windows: Sequence[np.ndarray]) -> list[pd.Index]:
    return [series[np.unique(positions)] for series, positions in zip(times, windows, strict=True)]


def _months(times: Sequence[pd.Index]) -> set[int]:
    return {int(month) for series in times for month in xr.DataArray(series, dims="time").dt.month.values}
