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
from simvp_climate.data.windows import check_times, find_windows, parse_step
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
    histories = _select_histories(canonical.dataset.indexes["time"], task, init_times, every)
    conversion = trained.check(canonical.series[0])  # members differ in values only
    return ForecastRequest(canonical, conversion, histories, int(horizon))


def _select_histories(times: pd.Index, task: Task, init_times: Iterable | None, every: str | None) -> np.ndarray:
    """Return the positions of the history of each initialization, shape (init, history)."""
    if init_times is not None and every is not None:
        raise ValueError(f"give init_times or every={every!r}, not both")
    histories = find_windows(times, task.step, task.history, 0, "the dataset")
    if every is not None:
        return _histories_every(times, histories, task, every)
    inits = times[-1:] if init_times is None else pd.Index(np.atleast_1d(np.asarray(init_times)))
    if isinstance(times, pd.DatetimeIndex):  # dates may come as text
        inits = pd.DatetimeIndex(inits)
    elif not isinstance(inits[0], times.date_type):
        raise ValueError(
            f"init_times has {inits[0]!r}, but the dataset has the calendar {times.calendar!r}: take the times from "
            "the data, for example ds.time[10:20]"
        )
    check_times(inits, "init_times")
    rows = pd.Index(histories[:, -1]).get_indexer(times.get_indexer(inits))
    if (rows < 0).any():
        raise ValueError(
            f"no forecast can start at {inits[rows < 0][0]}: it takes {task.history} states {task.step} apart up to "
            f"that time, without a gap. {len(histories)} times have a full history, from {times[histories[0, -1]]} "
            f"to {times[histories[-1, -1]]}"
        )
    return histories[rows]


def _histories_every(times: pd.Index, histories: np.ndarray, task: Task, every: str) -> np.ndarray:
    """Return the histories whose initialization is a multiple of `every`."""
    if isinstance(parse_step(every), int) != isinstance(parse_step(task.step), int):
        raise ValueError(
            f"every={every!r} and step={task.step!r}: one counts months, the other does not. Give both in months or "
            "both as durations, or pass init_times"
        )
    selected = histories[_is_multiple(times[histories[:, -1]], every)]
    if not len(selected):
        raise ValueError(
            f"every={every!r} matches none of the {len(histories)} times with a full history, "
            f"{times[histories[0, -1]]} to {times[histories[-1, -1]]}: multiples are counted from 00 UTC"
        )
    return selected


def _is_multiple(inits: pd.Index, every: str) -> np.ndarray:
    """Return which times are multiples of `every` from 00 UTC of 1970-01-01 in their calendar, or from January."""
    size = parse_step(every)
    if isinstance(size, int):
        return np.asarray((inits.year * 12 + inits.month - 1) % size == 0)
    epoch = inits[0].replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return np.asarray((inits - epoch) % size == pd.Timedelta(0))
