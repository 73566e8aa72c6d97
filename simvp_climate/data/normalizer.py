"""The statistics that carry physical units to numbers of order one, taken from the training years only."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from simvp_climate.data.reader import Channel

_BLOCK = 512  # times per block of the sums: bounds the float64 copies


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Statistics per channel.

    Attributes
    ----------
    channels, units
        What the channels are, and the units they were trained in ("" if the data gave none).
    mean, std
        Area-weighted mean and standard deviation over the training times, shape (channel,).
    change_std
        Root mean square of the change from the initialization to each lead, shape (lead, channel).
    """

    channels: tuple[Channel, ...]
    units: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    change_std: np.ndarray


def fit_normalizer(
    channels: tuple[Channel, ...],
    units: tuple[str, ...],
    states: np.ndarray,
    windows: np.ndarray,
    weights: np.ndarray,
    history: int,
) -> Normalizer:
    """Return the statistics of the states that the training windows touch.

    Parameters
    ----------
    states
        Training states in physical units, (time, channel, latitude, longitude).
    windows
        Positions in `states`, (window, history + horizon); times in no window are not looked at.
    weights
        Area weights with mean one, (latitude,).
    history
        Number of states in before the forecast; also the number of leads that one network call emits.

    Raises
    ------
    ValueError
        If a channel is constant over the training period.
    """
    used = np.split(np.unique(windows), range(_BLOCK, np.unique(windows).size, _BLOCK))
    mean = _area_mean((states[times] for times in used), weights)
    # the mean is taken off first: squares of geopotential in float32 would drown its variance
    variance = _area_mean(((states[times] - mean[:, None, None]) ** 2 for times in used), weights)
    for channel, value, spread in zip(channels, mean, variance, strict=True):
        if spread <= (1e-6 * abs(value)) ** 2:
            raise ValueError(
                f"{channel} is constant (value {value:g}) over the training period: there is nothing to learn. "
                "Leave it out of Task.variables, or check the data"
            )
    # a thousand windows fix a typical change to a few percent; it is a scale, not a result
    some = windows[:: max(1, len(windows) // 1000)]
    leads = [min(history + lead, windows.shape[1] - 1) for lead in range(history)]
    change = [
        _area_mean(((states[window[lead]] - states[window[history - 1]])[None] ** 2 for window in some), weights)
        for lead in leads
    ]
    return Normalizer(channels, units, mean, np.sqrt(variance), np.maximum(np.sqrt(change), 1e-12))


def check_plausible(normalizer: Normalizer, states: np.ndarray, name: str) -> None:
    """Raise ValueError if states (time, channel, latitude, longitude) cannot be in the units that were trained.

    Data often lose their units attribute on the way; kelvin read as degrees Celsius are 20 standard deviations off.
    """
    means = states.mean(axis=(0, 2, 3), dtype=np.float64)
    for channel, units, mean, trained, std in zip(
        normalizer.channels, normalizer.units, means, normalizer.mean, normalizer.std, strict=True
    ):
        if abs(mean - trained) > 10 * std:
            raise ValueError(
                f"{channel} of {name} averages {mean:.4g}, it was trained on {trained:.4g} with a standard deviation "
                f"of {std:.3g} {units}: are the units the same?"
            )


def _area_mean(blocks: Iterable[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the area-weighted mean per channel over blocks of (time, channel, latitude, longitude)."""
    total, area = 0.0, 0.0
    for block in blocks:
        total = total + np.einsum("tcyx,y->c", block.astype(np.float64), weights)
        area += len(block) * block.shape[3] * weights.sum()
    return total / area
