"""Windows as shuffled tensors: here labels become numbers.

Shape suffixes: N time of all series one after another, C channel, H latitude, W longitude; B window of a
batch, T time of a window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from simvp_climate.data import reader
from simvp_climate.data.windows import find_windows
from simvp_climate.task import Task


@dataclass(frozen=True, eq=False)
class Windows:
    """The states of one or several series in memory, and the windows into them.

    Attributes
    ----------
    states
        Physical units, float32, (N, C, H, W).
    positions
        Times of each window as positions in `states`, (window, history + horizon); no window crosses
        from one series to the next, nor a gap in time.
    """

    states: np.ndarray
    positions: np.ndarray


def load_windows(task: Task, series: Sequence[xr.Dataset], name: str) -> Windows:
    """Read every series (oriented Datasets) and index its windows; `name` is said in errors.

    Raises
    ------
    ValueError
        If a series has no window, or a value that a window would read is missing.
    """
    count = sum(one.sizes["time"] for one in series)
    shape = (len(reader.channels(series[0])), series[0].sizes["latitude"], series[0].sizes["longitude"])
    states = np.empty((count, *shape), dtype=np.float32)
    positions, start = [], 0
    for number, one in enumerate(series):
        label = name if len(series) == 1 else f"{name}[{number}]"
        windows = find_windows(one.indexes["time"], task.step, task.history, task.horizon, label)
        used = np.zeros(one.sizes["time"], dtype=bool)
        used[windows] = True
        for times, block in reader.blocks(one):
            needed = np.flatnonzero(used[times])
            reader.check_finite(block[needed], one, times.start + needed)
            states[start + times.start : start + times.stop] = block
        positions.append(windows + start)
        start += one.sizes["time"]
    return Windows(states, np.concatenate(positions))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the windows in an epoch: a function of seed and epoch alone, so that it resumes."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batches(states_NCHW: Tensor, windows: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """Yield batches (B, T, C, H, W) of whole windows, in the order given, on the device of the states."""
    for start in range(0, len(windows), batch_size):
        positions_BT = torch.from_numpy(windows[start : start + batch_size]).to(states_NCHW.device)
        yield states_NCHW[positions_BT]


def check_memory(series: Sequence[xr.Dataset]) -> None:
    """Raise MemoryError unless the states of all series fit into the memory that is free, where that is known."""
    needed = sum(
        4 * one.sizes["time"] * len(reader.channels(one)) * one.sizes["latitude"] * one.sizes["longitude"]
        for one in series
    )
    free = _free_memory()
    if free is not None and needed > 0.8 * free:
        raise MemoryError(
            f"the states take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: this version holds the "
            "series in memory. Choose fewer variables, levels or years, or a coarser grid"
        )


def _free_memory() -> int | None:
    """Return the bytes that can still be had: of the machine, or of the job's share (cgroup) if that is less."""
    found = []
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        # files in the cache count as used, but make way
        cache = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        found.append(limit - used + int(cache["inactive_file"]))
    except (OSError, KeyError, ValueError):  # not Linux, or no limit
        pass
    return min(found, default=None)
