"""Decoded blocks of time from an oriented Dataset, with the missing values found on the way."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Channel:
    """One two-dimensional field of a state: a variable, on a level (in the data's own units) or without."""

    variable: str
    level: float | None = None

    def __str__(self):
        return self.variable if self.level is None else f"{self.variable} at level {self.level:g}"


def channels(dataset: xr.Dataset) -> tuple[Channel, ...]:
    """Return the channels of an oriented Dataset: variables in order, each with its levels in order.

    Raises
    ------
    ValueError
        If a variable has no time (a field that never changes is no forecast), or a dimension more.
    """
    found = []
    for name, variable in dataset.data_vars.items():
        if "time" not in variable.dims:
            raise ValueError(
                f"{name!r} has no time dimension (its dimensions: {variable.dims}): it cannot be forecast. "
                "Leave it out of Task.variables"
            )
        if more := sorted(set(variable.dims) - {"time", "level", "latitude", "longitude"}):
            raise ValueError(
                f"{name!r} has the dimensions {more} beside time, level, latitude and longitude: choose one, for "
                f"example ds.isel({more[0]}=0); to train on all give a list of series, one for each"
            )
        levels = dataset["level"].values.tolist() if "level" in variable.dims else [None]
        found += [Channel(name, level) for level in levels]
    return tuple(found)


def read(dataset: xr.Dataset, times: slice | np.ndarray) -> np.ndarray:
    """Return the states at some times: float32, shape (time, channel, latitude, longitude)."""
    # loaded before it is transposed: xarray reads a lazy transposed array point by point
    part = dataset.isel(time=times).load().transpose("time", "level", "latitude", "longitude", missing_dims="ignore")
    stacked = [
        variable.values.reshape(part.sizes["time"], -1, part.sizes["latitude"], part.sizes["longitude"])
        for variable in part.data_vars.values()
    ]
    return np.concatenate(stacked, axis=1, dtype=np.float32)


def blocks(dataset: xr.Dataset, block_bytes: int = 2**26) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (times, states) over the whole series in order, in blocks of about `block_bytes` bytes."""
    state = 4 * len(channels(dataset)) * dataset.sizes["latitude"] * dataset.sizes["longitude"]
    length = max(1, block_bytes // state)
    for start in range(0, dataset.sizes["time"], length):
        times = slice(start, min(start + length, dataset.sizes["time"]))
        yield times, read(dataset, times)


def check_finite(states: np.ndarray, dataset: xr.Dataset, times: np.ndarray) -> None:
    """Raise ValueError, naming time and cell, if a state to be used is not finite.

    `times` are the positions in `dataset` of the states, shape (time, channel, latitude, longitude).
    """
    if np.isfinite(states).all():
        return
    when, channel, row, column = np.argwhere(~np.isfinite(states))[0]
    value = states[when, channel, row, column]
    cell = f"latitude {dataset['latitude'].values[row]:g}, longitude {dataset['longitude'].values[column]:g}"
    message = (
        f"{channels(dataset)[channel]} is {value} at {dataset.indexes['time'][times[when]]}, {cell}, inside a "
        "window that would be read. "
    )
    if len(states) > 1 and not np.isfinite(states[:, channel, row, column]).any():
        raise ValueError(
            message + f"The cell has no value at any of the {len(states)} times read: masked variables "
            "(sea surface temperature, soil moisture) are not supported yet. Choose a region "
            "without missing cells, or fill them"
        )
    raise ValueError(
        message + "Fill the value, or drop the time (windows skip gaps): "
        f"ds.dropna('time', how='any', subset=[{channels(dataset)[channel].variable!r}])"
    )
