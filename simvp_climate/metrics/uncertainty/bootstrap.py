"""How sure a score is: moving blocks of initializations drawn again and again."""

import numpy as np
import xarray as xr

_FEWEST_BLOCKS = 5


def block_length(init_time: xr.DataArray, lead_time: xr.DataArray) -> int:
    """Return how many initializations a block has: as many as start while one forecast runs, or their cube root.

    Forecasts that overlap in time share the weather that they are verified with, so that their errors depend on each
    other; the cube root is what the block length grows with in theory (Künsch 1989).
    """
    inits = init_time.to_index()
    if len(inits) < 2:
        return 1
    spacing = np.median(np.diff(inits.sort_values()).astype("timedelta64[s]").astype(np.int64))
    last = lead_time.values.max()
    months = not np.issubdtype(lead_time.dtype, np.timedelta64)
    seconds = int(last) * 30 * 86400 if months else last.astype("timedelta64[s]").astype(np.int64)
    return int(max(np.ceil(seconds / max(spacing, 1)), np.ceil(len(inits) ** (1 / 3)), 1))


def resample(count: int, length: int, samples: int, seed: int) -> np.ndarray | None:
    """Return how often each of `count` initializations is in each sample, (sample, init); None where they are too few.

    Moving blocks (Künsch 1989, Liu and Singh 1992): blocks of `length` neighbors, each as likely as any other, until
    `count` are drawn; the last one is cut. Fewer than five blocks say nothing about how different blocks can be.
    """
    if count < _FEWEST_BLOCKS * length or count < 2:
        return None
    random = np.random.default_rng(seed)
    starts = random.integers(0, count - length + 1, size=(samples, -(-count // length)))
    drawn = (starts[:, :, np.newaxis] + np.arange(length)).reshape(samples, -1)[:, :count]
    counts = np.zeros((samples, count))
    np.add.at(counts, (np.arange(samples)[:, np.newaxis], drawn), 1)
    return counts


def percentiles(values: xr.Dataset, confidence: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the lower and the upper end of the central interval along `sample`.

    Samples without a value, such as those that drew no initialization of a season, are left out, unless they are most.
    """
    tail = (1 - confidence) / 2
    enough = values.notnull().mean("sample") > 0.5
    # where nothing is there numpy warns: zeros stand in, and are taken out again
    values = values.where(enough, 0)
    both = [values.quantile(q, "sample", skipna=True).drop_vars("quantile").where(enough) for q in (tail, 1 - tail)]
    return both[0], both[1]
