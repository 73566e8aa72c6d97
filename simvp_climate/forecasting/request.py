"""Resolve and check what to forecast: data, initializations with their histories, horizon, and the data's units."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.grid import check_same_grid
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.data.windows import check_times, select_histories
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task


@dataclass(frozen=True, eq=False)
class UnitConversion:
    """Linear conversion of each channel: trained = dataset * factor + offset."""

    factor: np.ndarray  # (channel, 1, 1), float64
    offset: np.ndarray
    unlabeled: tuple[bool, ...]  # for each channel, whether only the training data had units

    @property
    def is_identity(self) -> bool:
        return bool((self.factor == 1).all() and (self.offset == 0).all())

    def to_training_units(self, states: np.ndarray) -> np.ndarray:
        """Return states (..., channel, latitude, longitude) in the units of training, float32."""
        return states if self.is_identity else (states * self.factor + self.offset).astype(np.float32)

    def from_training_units(self, forecasts: np.ndarray, shared: int) -> np.ndarray:
        """Return forecasts in the units of the Dataset; channels from `shared` on (diagnostics) stay in theirs."""
        if self.is_identity:
            return forecasts
        converted = (forecasts[..., :shared, :, :] - self.offset[:shared]) / self.factor[:shared]
        return np.concatenate([converted, forecasts[..., shared:, :, :]], axis=-3)


@dataclass(frozen=True, eq=False)
class ForecastRequest:
    """Data, initializations and horizon of forecasts, resolved and checked."""

    canonical: Canonical
    conversion: UnitConversion
    histories: np.ndarray  # positions of the input states along time, (init, history)
    horizon: int  # steps
    prescribed: tuple[Canonical, UnitConversion] | None = None  # of `Task.prescribed`

    def init_times(self, histories: np.ndarray) -> pd.Index:
        """Return the initialization times of histories: the times of their last states."""
        return self.canonical.dataset.indexes["time"][histories[:, -1]]


def resolve_request(
    forecaster: Any, dataset: xr.Dataset, init_times: Iterable | None, every: str | None, horizon: int | None
) -> ForecastRequest:
    """Return a checked request; arguments and errors are those of a call of the Forecaster."""
    task = forecaster.task
    horizon = task.horizon if horizon is None else horizon
    if not isinstance(horizon, Integral) or horizon < 1:
        raise ValueError(f"horizon={horizon!r} must be a positive integer (number of steps).")
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"The data must be an xarray.Dataset, not {type(dataset).__name__}. See open_dataset.")
    if task.inputs and horizon > task.history:
        reason = f"a second call of the network needs inputs={list(task.inputs)}, which are not forecast"
        raise ValueError(f"horizon={horizon} must be at most history={task.history}: {reason}.")
    canonical = canonicalize(dataset, (*task.variables, *task.inputs), _levels(forecaster.input_statistics, task))
    times, name = canonical.dataset.indexes["time"], canonical.axes.time
    check_times(times, "the dataset", name, canonical.original[name].attrs.get("units"))
    later = int(horizon) if task.prescribed else 0
    histories = select_histories(times, task.step, task.history, init_times, every, later)
    units = match_training(forecaster, canonical.series[0])  # members differ in values only
    return ForecastRequest(canonical, units, histories, int(horizon), resolve_prescribed(forecaster, dataset))


def resolve_prescribed(forecaster: Any, dataset: xr.Dataset) -> tuple[Canonical, UnitConversion] | None:
    """Return the prescribed variables of a Dataset with their conversion to the units of training."""
    statistics, task = forecaster.prescribed_statistics, forecaster.task
    if not task.prescribed:
        return None
    canonical = canonicalize(dataset, task.prescribed, _levels(statistics, task))
    return canonical, match_training(forecaster, canonical.series[0], statistics)


def _levels(statistics: Normalizer, task: Task) -> tuple[float, ...] | None:
    """Return the levels of a task if any of some channels has one."""
    return task.levels if any(channel.level is not None for channel in statistics.channels) else None


def match_training(forecaster: Any, dataset: xr.Dataset, statistics: Normalizer | None = None) -> UnitConversion:
    """Return the conversion of a canonical Dataset to the units of training, after checking its grid and channels.

    `statistics` are those of its channels, by default of the channels that the network takes in.
    """
    grid = xr.Dataset(coords={"latitude": forecaster.latitude, "longitude": forecaster.longitude})
    try:
        check_same_grid(grid, dataset)
    except ValueError as error:
        raise ValueError(f"The data must be on the grid of the training data: {error}") from error
    trained = forecaster.input_statistics if statistics is None else statistics
    if (channels := reader.list_channels(dataset)) != trained.channels:
        names, trained_names = ([str(channel) for channel in each] for each in (channels, trained.channels))
        raise ValueError(f"The channels {names} must be those of training, {trained_names}. Select these variables.")
    factors, unlabeled = [], []
    for channel, trained_units in zip(trained.channels, trained.units, strict=True):
        units = dataset[channel.variable].attrs.get("units", "")
        unlabeled.append(bool(trained_units) and not units)
        is_same = not units or not trained_units or same_units(units, trained_units)
        exact = (1.0, 0.0) if is_same else conversion(channel.variable, units, trained_units)
        if exact is None:
            rule = f"{channel.variable} is in {units!r} and must be in {trained_units!r}, as in training"
            fix = f"Convert the data and set ds[{channel.variable!r}].attrs['units']."
            raise ValueError(f"{rule}: no exact conversion is known. {fix}")
        factors.append(exact)
    factor, offset = np.array(factors, dtype=np.float64).T[:, :, None, None]
    return UnitConversion(factor, offset, tuple(unlabeled))
