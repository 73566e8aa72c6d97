"""Resolve and check what to forecast: the data, the initializations with their histories, and the horizon."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.grid import check_same_grid
from simvp_climate.data.windows import select_histories
from simvp_climate.forecasting.units import UnitConversion, find_conversion
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task


@dataclass(frozen=True, eq=False)
class InputSpec:
    """What a Dataset must match to be forecast: the task, the input channels with their statistics, and the grid."""

    task: Task
    statistics: Normalizer
    latitude: np.ndarray
    longitude: np.ndarray

    def canonicalize(self, dataset: xr.Dataset) -> Canonical:
        """Return the input variables of a Dataset on the canonical grid, lazily."""
        return canonicalize(dataset, (*self.task.variables, *self.task.inputs), self.task.levels)

    def match(self, dataset: xr.Dataset) -> UnitConversion:
        """Return the conversion of a canonical Dataset to the units of training.

        Raises ValueError if grid or channels differ from those of training, or no exact conversion is known.
        """
        grid = xr.Dataset(coords={"latitude": self.latitude, "longitude": self.longitude})
        try:
            check_same_grid(grid, dataset)
        except ValueError as error:
            raise ValueError(f"The data must be on the grid of the training data: {error}") from error
        if (channels := reader.list_channels(dataset)) != self.statistics.channels:
            names, trained = ([str(channel) for channel in each] for each in (channels, self.statistics.channels))
            raise ValueError(f"The channels {names} must be those of training, {trained}. Select these variables.")
        return find_conversion(dataset, self.statistics)


@dataclass(frozen=True, eq=False)
class ForecastRequest:
    """Data, initializations and horizon of forecasts, resolved and checked."""

    canonical: Canonical
    conversion: UnitConversion
    histories: np.ndarray  # positions of the input states along time, (init, history)
    horizon: int  # steps

    def init_times(self, histories: np.ndarray) -> pd.Index:
        """Return the initialization times of histories: the times of their last states."""
        return self.canonical.dataset.indexes["time"][histories[:, -1]]


def resolve_request(
    dataset: xr.Dataset, spec: InputSpec, init_times: Iterable | None, every: str | None, horizon: int | None
) -> ForecastRequest:
    """Return a checked request; arguments and errors are those of `Forecaster.__call__`."""
    task = spec.task
    horizon = task.horizon if horizon is None else horizon
    if not isinstance(horizon, Integral) or horizon < 1:
        raise ValueError(f"horizon={horizon!r} must be a positive integer (number of steps).")
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"The data must be an xarray.Dataset, not {type(dataset).__name__}. See open_dataset.")
    if task.inputs and horizon > task.history:
        raise ValueError(
            f"horizon={horizon} must be at most history={task.history}: a second call of the network needs "
            f"inputs={list(task.inputs)}, which are not forecast. Set horizon={task.history}."
        )
    canonical = spec.canonicalize(dataset)
    histories = select_histories(canonical.dataset.indexes["time"], task.step, task.history, init_times, every)
    conversion = spec.match(canonical.series[0])  # members differ in values only
    return ForecastRequest(canonical, conversion, histories, int(horizon))
