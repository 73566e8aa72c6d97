"""Maps of the skill against a baseline, and of where it is significant."""

import re
from collections.abc import Callable
from numbers import Integral

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_member
from simvp_climate.metrics.aggregation import Block, blocks, read
from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.pairs import Pairs, match, period
from simvp_climate.metrics.uncertainty.bootstrap import MIN_BLOCKS, block_length


def skill_map(
    forecast: xr.Dataset, truth: xr.Dataset, baseline: xr.Dataset | Callable = persistence, *, block: int | None = None,
    false_discovery_rate: float = 0.1, allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the skill against a baseline in every cell, and the cells where it differs significantly from zero.

    Skill is 1 - mean squared error / that of the baseline. In each cell a t-test asks whether the mean difference of
    the squared errors is zero. Its samples are means over blocks of initializations, which are nearly independent.
    Fifty of a thousand cells without any difference would pass a test at 0.05. Significant cells are therefore chosen
    by the rule of Benjamini and Hochberg (1995), which keeps the expected share of false ones below the rate. For
    fields that are correlated in space the rate should be twice the intended one (Wilks 2016): 0.1 for 0.05.

    Parameters
    ----------
    forecast, truth
        As in `rmse`.
    baseline
        A forecast with the same inits and leads, or a function that forecasts from the state at the init time:
        `persistence`, or as returned by `fit_damped_persistence`.
    block
        Number of initializations in a block; None: as for the intervals of `score`.
    false_discovery_rate
        Between 0 and 1.
    allow_overlap
        Whether verified times may lie in the period on which the baseline was fitted.

    Returns
    -------
    Dataset in memory with, for each variable of the forecast, `<variable>` (the skill, no unit), `<variable>_p` (the
    p-value) and `<variable>_significant`, dims (lead_time, [level,] latitude, longitude) in canonical order. NaN and
    false where a value is missing, or all pairs have the same difference. The attributes `baseline`, `verified_start`,
    `verified_end` and `blocks` describe the test. ValueError as in `rmse`, or if there are fewer than five blocks, or
    verified times lie in the period of the baseline's fit.
    """
    if not 0 < false_discovery_rate < 1:
        raise ValueError(f"false_discovery_rate={false_discovery_rate!r} must lie between 0 and 1, for example 0.1")
    if (member := find_member(forecast)) is not None:
        fix = f"take the mean, forecast.mean({member!r})"
        raise ValueError(f"the forecast has members along {member!r}, a map of skill needs a single one: {fix}")
    pairs = match(forecast, truth, baselines={"baseline": baseline}, allow_overlap=allow_overlap)
    if pairs.stations is not None:
        raise ValueError("a skill map needs a forecast on a grid. Use score for stations")
    length = block_length(pairs.forecast["init_time"], pairs.forecast["lead_time"]) if block is None else block
    if not isinstance(length, Integral) or length < 1:
        raise ValueError(f"block={block!r} must be a whole number, at least 1")
    verified_inits = pairs.complete.any(axis=1)
    block_count = int(verified_inits.sum()) // length
    if block_count < MIN_BLOCKS:
        raise ValueError(
            f"{int(verified_inits.sum())} initializations make {block_count} blocks of {length}, and the test "
            f"needs at least {MIN_BLOCKS}: forecast from more times, or over shorter leads"
        )
    # The number of the block of each initialization; the last one takes the remainder.
    block_numbers = np.minimum(np.maximum(np.cumsum(verified_inits) - 1, 0) // length, block_count - 1)

    result = {}
    for name, (squares, differences) in _sum_squares(pairs, block_numbers).items():
        squared_error, reference = squares
        with np.errstate(invalid="ignore", divide="ignore"):
            skill = 1 - squared_error / np.where(reference > 0, reference, np.nan)
            p = differences.p_values()
        significant = np.stack([discoveries(p_of_lead, false_discovery_rate) for p_of_lead in p])
        dims = ("lead_time", *_cell_dims(pairs, name))
        result[name] = (dims, skill, {"units": "1", "long_name": f"skill of {name}, 1 - MSE / MSE of the baseline"})
        result[f"{name}_p"] = (dims, p, {"units": "1", "long_name": f"p-value of the difference of {name}"})
        long_name = f"{name} differs from the baseline, false discovery rate {false_discovery_rate:g}"
        result[f"{name}_significant"] = (dims, significant, {"long_name": long_name})
    attrs = {"baseline": _baseline_name(baseline), **period("verified", pairs.verified_times)}
    attrs |= {"blocks": f"{block_count} blocks of {length} initializations"}
    attrs |= {"false_discovery_rate": false_discovery_rate}
    return xr.Dataset(result, {**pairs.grid, "lead_time": pairs.forecast["lead_time"]}, attrs)


def _cell_dims(pairs: Pairs, name: str) -> list[str]:
    """Return the dimensions of the cells of a variable in canonical order."""
    return [dim for dim in ("level", "latitude", "longitude") if dim in pairs.forecast[name].dims]


def _sum_squares(pairs: Pairs, block_numbers: np.ndarray) -> dict[str, tuple[np.ndarray, "_BlockMeans"]]:
    """Return by variable the sums of squared errors of forecast and baseline, and block means of their difference."""
    names = [str(name) for name in pairs.forecast.data_vars]
    leads_count = pairs.complete.shape[1]
    shapes = {name: (leads_count, *(pairs.grid[dim].size for dim in _cell_dims(pairs, name))) for name in names}
    sums = {name: (np.zeros((2, *shape)), _BlockMeans(shape)) for name, shape in shapes.items()}
    for inits, leads in blocks(pairs):
        block = read(pairs, inits, leads)
        verified = block.complete.values
        for name in names:
            squares, means = sums[name]
            errors = _squared_errors(block, name, _cell_dims(pairs, name))
            for index in (0, 1):
                squares[index][leads] += errors[index].sum(axis=0)
            for block_number in np.unique(block_numbers[inits]):
                rows = block_numbers[inits] == block_number
                means.add((leads, block_number), (errors[1] - errors[0])[rows].sum(axis=0), verified[rows].sum(axis=0))
    return sums


def _squared_errors(block: Block, name: str, cell_dims: list[str]) -> list[np.ndarray]:
    """Return the squared errors of forecast and baseline, zero in pairs that are not verified."""
    order = ("init_time", "lead_time", *cell_dims)
    truth = block.truth[name].transpose(*order).values
    verified = block.complete.values.reshape(*block.complete.shape, *(1 for _ in cell_dims))
    forecasts = (block.systems[system][name].transpose(*order).values for system in ("", "baseline"))
    return [np.where(verified, (forecast - truth) ** 2, 0) for forecast in forecasts]


def _baseline_name(baseline: xr.Dataset | Callable) -> str:
    """Return the attribute `system` of a Dataset, or the spaced name of a function or class ("damped persistence")."""
    if isinstance(baseline, xr.Dataset):
        return str(baseline.attrs.get("system", "the baseline"))
    name = getattr(baseline, "__name__", type(baseline).__name__)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


class _BlockMeans:
    """Running count, mean and squared deviations of the means over consecutive blocks, (lead, ...) (Welford 1962)."""

    def __init__(self, shape: tuple[int, ...]):
        self.count = np.zeros((shape[0], *(1 for _ in shape[1:])))
        self.mean, self.deviations = np.zeros(shape), np.zeros(shape)
        self.block: tuple[slice, int] | None = None

    def add(self, block: tuple[slice, int], total: np.ndarray, pair_count: np.ndarray) -> None:
        """Add sums over some pairs of a block; the calls for one block must be consecutive."""
        if block != self.block:
            self._close()
            self.block, self.total, self.pair_count = block, np.zeros_like(total), np.zeros(len(pair_count))
        self.total += total
        self.pair_count += pair_count

    def _close(self) -> None:
        """Add the mean of the current block to the statistics."""
        if self.block is None:
            return
        leads, _ = self.block
        pair_count = self.pair_count.reshape(-1, *(1 for _ in self.total.shape[1:]))
        self.count[leads] += pair_count > 0
        step = np.where(pair_count > 0, self.total / np.maximum(pair_count, 1) - self.mean[leads], 0)
        self.mean[leads] += step / np.maximum(self.count[leads], 1)
        # step * (mean of the block - new mean)
        self.deviations[leads] += step**2 * (1 - 1 / np.maximum(self.count[leads], 1))
        self.block = None

    def p_values(self) -> np.ndarray:
        """Return two-sided p-values of Student's t for a mean of 0; NaN where nothing varies or a value is missing."""
        from scipy.special import stdtr

        self._close()
        freedom = np.maximum(self.count - 1, 1)
        deviation = np.sqrt(self.deviations / freedom)
        t = abs(self.mean) / np.where(deviation > 0, deviation / np.sqrt(np.maximum(self.count, 1)), np.nan)
        return np.where(self.count > 1, 2 * stdtr(freedom, -t), np.nan)


def discoveries(p: np.ndarray, rate: float) -> np.ndarray:
    """Return the rejected hypotheses (Benjamini and Hochberg 1995) among those with a p-value."""
    # of the n p-values in ascending order, the first k, with the largest k for which p_(k) <= k * rate / n
    ascending = np.sort(p[np.isfinite(p)])
    if not ascending.size:
        return np.zeros(p.shape, bool)
    below = np.flatnonzero(ascending <= rate * np.arange(1, ascending.size + 1) / ascending.size)
    threshold = ascending[below[-1]] if below.size else -1.0
    return np.where(np.isfinite(p), p, 2) <= threshold
