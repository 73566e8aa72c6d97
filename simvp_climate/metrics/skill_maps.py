"""Where a forecast is better than a baseline, and where that is more than chance."""

import re
from collections.abc import Callable
from numbers import Integral

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_member
from simvp_climate.metrics.alignment import iso
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.pairs import blocks, match, read, refuse_fits
from simvp_climate.metrics.uncertainty.bootstrap import block_length

_FEWEST = 5


def skill_map(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    baseline: xr.Dataset | Callable = persistence,
    *,
    block: int | None = None,
    false_discovery_rate: float = 0.1,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the skill against a baseline in every cell, and where it differs from none beyond chance.

    Skill is 1 - mean squared error / that of the baseline. In each cell the mean difference of both squared errors is
    tested with Student's t over means of blocks of initializations, which hardly depend on each other. Of a thousand
    cells without any difference fifty would pass a test at 0.05: the cells that count as significant are those of
    Benjamini and Hochberg's rule, which keeps the expected share of false ones among them below the rate. With fields
    that are correlated in space the rate should be twice what is wanted (Wilks 2016): 0.1 for 0.05.

    Parameters
    ----------
    forecast, truth
        As in `rmse`.
    baseline
        A forecast with the same inits and leads, or what makes one from the state at init time: `persistence`, or as
        from `fit_damped_persistence`.
    block
        Number of initializations in a block; None: as for the intervals of `score`.
    false_discovery_rate
        Between 0 and 1.
    allow_overlap
        Whether the baseline may be fitted on a period with verified times in it.

    Returns
    -------
    Dataset in memory with, for each variable of the forecast, `<variable>` (the skill, no unit), `<variable>_p` (the
    p-value) and `<variable>_significant`, dims (lead_time, [level,] latitude, longitude) in canonical order. NaN and
    false where a value is missing, or the same in all pairs. The attributes `baseline`, `verified_start`,
    `verified_end` and `blocks` say against what, on which times and in how many blocks.

    Raises
    ------
    ValueError
        As in `rmse`; if there are fewer than five blocks, or verified times lie in the period of the baseline's fit.
    """
    if not 0 < false_discovery_rate < 1:
        raise ValueError(f"false_discovery_rate={false_discovery_rate!r} must lie between 0 and 1, for example 0.1")
    if (member := find_member(forecast)) is not None:
        raise ValueError(f"a map of skill is of single forecasts: take the mean, forecast.mean({member!r})")
    pairs = match(forecast, truth, None, {"baseline": baseline})
    if not allow_overlap:
        refuse_fits(pairs)
    length = block_length(pairs.forecast["init_time"], pairs.forecast["lead_time"]) if block is None else block
    if not isinstance(length, Integral) or length < 1:
        raise ValueError(f"block={block!r} must be a whole number from 1")
    count = int(pairs.complete.any(axis=1).sum())
    whole = count // length
    if whole < _FEWEST:
        raise ValueError(
            f"{count} initializations are {whole} whole blocks of {length}, and a test takes {_FEWEST}: forecast from "
            "more times, or over shorter leads"
        )
    names = [str(name) for name in pairs.forecast.data_vars]
    dims = {n: [d for d in ("level", "latitude", "longitude") if d in pairs.forecast[n].dims] for n in names}
    shapes = {n: (pairs.complete.shape[1], *(pairs.grid[d].size for d in dims[n])) for n in names}
    squares = {n: np.zeros((2, *shapes[n])) for n in names}  # sums over all pairs, of the forecast and the baseline
    means = {n: _BlockMeans(shapes[n]) for n in names}
    numbers = np.maximum(np.cumsum(pairs.complete.any(axis=1)) - 1, 0)  # of those that are verified
    for inits, leads in blocks(pairs):
        part = read(pairs, inits, leads)
        known = part.complete.values
        rows = np.minimum(numbers[inits] // length, whole - 1)  # the last one takes the rest
        for name in names:
            order = ("init_time", "lead_time", *dims[name])
            right = part.truth[name].transpose(*order).values
            use = known.reshape(*known.shape, *(1 for _ in dims[name]))
            two = [
                np.where(use, (part.systems[system][name].transpose(*order).values - right) ** 2, 0)
                for system in ("", "baseline")
            ]
            for at in (0, 1):
                squares[name][at][leads] += two[at].sum(axis=0)
            for row in np.unique(rows):
                own = rows == row
                means[name].add((leads, row), (two[1] - two[0])[own].sum(axis=0), known[own].sum(axis=0))
    result = {}
    for name in names:
        own, theirs = squares[name]
        with np.errstate(invalid="ignore", divide="ignore"):
            skill = 1 - own / np.where(theirs > 0, theirs, np.nan)
            p = means[name].p_values()
        significant = np.stack([_discoveries(one, false_discovery_rate) for one in p])
        over = ("lead_time", *dims[name])
        result[name] = (over, skill, {"units": "1", "long_name": f"skill of {name}, 1 - MSE / MSE of the baseline"})
        result[f"{name}_p"] = (over, p, {"units": "1", "long_name": f"p-value of the difference of {name}"})
        words = f"{name} differs from the baseline, false discovery rate {false_discovery_rate:g}"
        result[f"{name}_significant"] = (over, significant, {"long_name": words})
    coordinates = {**pairs.grid, "lead_time": pairs.forecast["lead_time"]}
    times = pairs.valid_time.values[pairs.complete]
    attrs = {
        "baseline": _name_of(baseline),
        "verified_start": iso(times.min()),
        "verified_end": iso(times.max()),
        "blocks": f"{whole} blocks of {length} initializations",
        "false_discovery_rate": false_discovery_rate,
    }
    return xr.Dataset(result, coordinates, attrs)


def _name_of(baseline: xr.Dataset | Callable) -> str:
    """Return what a baseline is called: by its attribute `system`, or "damped persistence" for a DampedPersistence."""
    if isinstance(baseline, xr.Dataset):
        return str(baseline.attrs.get("system", "the baseline"))
    name = getattr(baseline, "__name__", type(baseline).__name__)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


class _BlockMeans:
    """Number, mean and spread of means over blocks that come one after the other, (lead, ...) each (Welford 1962)."""

    def __init__(self, shape: tuple[int, ...]):
        self.number = np.zeros((shape[0], *(1 for _ in shape[1:])))
        self.mean, self.deviations = np.zeros(shape), np.zeros(shape)
        self.block: tuple[slice, int] | None = None

    def add(self, block: tuple[slice, int], total: np.ndarray, count: np.ndarray) -> None:
        """Add sums over some pairs of a block; those of one block follow each other."""
        if block != self.block:
            self._close()
            self.block, self.total, self.count = block, np.zeros_like(total), np.zeros(len(count))
        self.total += total
        self.count += count

    def _close(self) -> None:
        if self.block is None:
            return
        leads, _ = self.block
        count = self.count.reshape(-1, *(1 for _ in self.total.shape[1:]))
        self.number[leads] += count > 0
        step = np.where(count > 0, self.total / np.maximum(count, 1) - self.mean[leads], 0)
        self.mean[leads] += step / np.maximum(self.number[leads], 1)
        # step * (the block's mean - the new mean)
        self.deviations[leads] += step**2 * (1 - 1 / np.maximum(self.number[leads], 1))
        self.block = None

    def p_values(self) -> np.ndarray:
        """Return two-sided p-values of Student's t for a mean of 0; NaN where nothing varies or a value is missing."""
        from scipy.special import stdtr

        self._close()
        freedom = np.maximum(self.number - 1, 1)
        spread = np.sqrt(self.deviations / freedom)
        t = abs(self.mean) / np.where(spread > 0, spread / np.sqrt(np.maximum(self.number, 1)), np.nan)
        return np.where(self.number > 1, 2 * stdtr(freedom, -t), np.nan)


def _discoveries(p: np.ndarray, rate: float) -> np.ndarray:
    """Return which hypotheses are rejected (Benjamini and Hochberg 1995) among those with a p-value."""
    known = np.sort(p[np.isfinite(p)])
    if not known.size:
        return np.zeros(p.shape, bool)
    below = np.flatnonzero(known <= rate * np.arange(1, known.size + 1) / known.size)
    threshold = known[below[-1]] if below.size else -1.0
    return np.where(np.isfinite(p), p, 2) <= threshold
