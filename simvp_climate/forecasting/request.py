"""What to forecast: the data, the initializations and their histories, and the horizon, resolved and checked."""

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
class TrainedStates:
    """The states that a network takes in: statistics of the input channels, and the canonical grid in degrees."""

    task: Task
    statistics: Normalizer
    latitude: np.ndarray
    longitude: np.ndarray

    def canonicalize(self, dataset: xr.Dataset) -> Canonical:
        """Return the input variables of a Dataset on the canonical grid; nothing is read."""
        return canonicalize(dataset, (*self.task.variables, *self.task.inputs), self.task.levels)

    def check(self, dataset: xr.Dataset) -> UnitConversion:
        """Return the conversion to the units of training; raise ValueError if grid, channels or units do not fit."""
        grid = xr.Dataset(coords={"latitude": self.latitude, "longitude": self.longitude})
        try:
            check_same_grid(grid, dataset)
        except ValueError as error:
            raise ValueError(f"the data are not on the grid of the training data: {error}") from error
        channels, trained = reader.list_channels(dataset), self.statistics.channels
        if channels != trained:
            raise ValueError(
                f"the data have the channels {[str(channel) for channel in channels]}, the forecaster was trained on "
                f"{[str(channel) for channel in trained]}: select the same variables and levels"
            )
        return find_conversion(dataset, self.statistics)


@dataclass(frozen=True, eq=False)
class ForecastRequest:
    """Data, initializations and horizon of forecasts, resolved and checked.

    `histories` are positions of the input states along time, shape (init, history); `horizon` is a number of steps.
    """

    canonical: Canonical
    conversion: UnitConversion
    histories: np.ndarray
    horizon: int

    def init_times(self, histories: np.ndarray) -> pd.Index:
        """Return the initialization times of some histories: those of their last states."""
        return self.canonical.dataset.indexes["time"][histories[:, -1]]


def resolve_request(
    dataset: xr.Dataset,
    trained: TrainedStates,
    init_times: Iterable | None,
    every: str | None,
    horizon: int | None,
) -> ForecastRequest:
    """Return a checked request; arguments and errors are those of `Forecaster.__call__`."""
    task = trained.task
    horizon = task.horizon if horizon is None else horizon
    if not isinstance(horizon, Integral) or horizon < 1:
        raise ValueError(f"horizon={horizon!r} must be a positive integer (number of steps)")
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"the forecaster takes an xarray.Dataset, not {type(dataset).__name__}: see open_dataset")
    if task.inputs and horizon > task.history:
        raise ValueError(
            f"horizon={horizon} takes more than one call of the network, which emits {task.history} states, but no "
            f"later states of inputs={list(task.inputs)} are known: use a horizon of at most {task.history}"
        )
    canonical = trained.canonicalize(dataset)
    histories = select_histories(canonical.dataset.indexes["time"], task.step, task.history, init_times, every)
    conversion = trained.check(canonical.series[0])  # members differ in values only
    return ForecastRequest(canonical, conversion, histories, int(horizon))
