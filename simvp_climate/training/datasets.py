"""The training and the validation period: checked, indexed and with its statistics.

Shape suffix: H latitude.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from lightning_fabric import Fabric

from simvp_climate.data import reader
from simvp_climate.data.conventions import canonicalize
from simvp_climate.data.grid import check_same_grid
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import find_windows, shared_period
from simvp_climate.processing.forcings import FORCINGS, static_names
from simvp_climate.processing.statistics import (
    Normalizer,
    Statistics,
    check_moments,
    check_transforms,
    compute_statistics,
)
from simvp_climate.processing.task import Task
from simvp_climate.training import loader
from simvp_climate.training.config import TrainConfig


def open_series(task: Task, dataset: xr.Dataset | Sequence[xr.Dataset], name: str) -> list[xr.Dataset]:
    """Return the series under the names and on the orientation used inside."""
    series = dataset if isinstance(dataset, list | tuple) else [dataset]
    for one in series:
        if not isinstance(one, xr.Dataset):
            raise ValueError(
                f"{name} is of type {type(one).__name__}: give an xarray.Dataset (open_dataset returns one)"
            )
    if not series:
        raise ValueError(f"{name} is an empty list: give at least one series")
    inside = []
    for one in series:
        inside += canonicalize(one, task.all_variables, task.levels).series
    for one in inside:
        reader.list_channels(one)  # refuses what has no time, or a dimension too many
    return inside


def check_alike(series: list[xr.Dataset]) -> None:
    """Refuse series that differ in grid, channels or units."""
    for one in series[1:]:
        check_same_grid(series[0], one)
        calendars = [dataset["time"].dt.calendar for dataset in (series[0], one)]
        if calendars[0] != calendars[1]:
            raise ValueError(
                f"the calendars differ: {calendars[0]} and {calendars[1]} (training, validation or member). Bring all "
                "series to one, ds.convert_calendar('standard')"
            )
        if reader.list_channels(one) != reader.list_channels(series[0]):
            raise ValueError(
                f"the series differ in their channels: {[str(c) for c in reader.list_channels(series[0])]} and "
                f"{[str(c) for c in reader.list_channels(one)]}. Select the same levels in each"
            )
        for name in one.data_vars:
            units = [dataset[name].attrs.get("units", "") for dataset in (series[0], one)]
            if all(units) and not same_units(*units):
                raise ValueError(
                    f"{name} is in {units[0]!r} in one series and in {units[1]!r} in another (training, validation or "
                    "member): convert it, and set attrs['units']"
                )


def check_labels(series: list[xr.Dataset]) -> None:
    """Refuse a list of series of which some say their units and some do not: two scales would mix unseen."""
    for name in series[0].data_vars:
        said = [one[name].attrs.get("units", "") for one in series]
        if any(said) and not all(said):
            raise ValueError(
                f"{name} has no attribute units in dataset[{said.index('')}], and {max(said)!r} in another: say the "
                f"units of each, ds[{name!r}].attrs['units']"
            )


def check_no_overlap(task: Task, leads: int, training: list[xr.Dataset], validation: list[xr.Dataset]) -> None:
    """Refuse validation times that lie within training windows."""
    for number, one in enumerate(training):
        times = one.indexes["time"]
        label = "dataset" if len(training) == 1 else f"dataset[{number}]"
        windows = find_windows(times, task.step, task.history, leads, label)
        for other in validation:
            shared = shared_period(times, windows, other.indexes["time"])
            if len(shared):
                raise ValueError(
                    f"training and validation overlap: {len(shared)} validation times, {shared[0]} to {shared[-1]}, "
                    "lie within training windows, and the best epoch would be chosen on training data. Split by time: "
                    "train, valid = ds.sel(time=slice(None, '2015')), ds.sel(time='2016')"
                )


def describe(series: list[xr.Dataset]) -> str:
    """Return the periods of some series in words."""
    periods = [f"{one.indexes['time'][0]} to {one.indexes['time'][-1]}" for one in series]
    return ", ".join(dict.fromkeys(periods))


@dataclass(frozen=True, eq=False)
class Split:
    """The training or the validation windows, with its statistics.

    `period` is what the series cover, in words; `inits` are the initialization times of all windows, series after
    series; `states` those read already, or None.
    """

    name: str
    period: str
    sources: list[reader.Source]
    windows: list[np.ndarray]
    inits: pd.Index
    plan: loader.Plan
    statistics: Statistics
    states: np.ndarray | None
    identities: list[str | None]

    def stream(self, config: TrainConfig, fabric: Fabric, shuffle: bool = True) -> loader.WindowStream:
        """Return the windows of this process as batches."""
        return loader.WindowStream(
            self.sources,
            self.windows,
            batch_size=config.batch_size // fabric.world_size,
            plan=self.plan,
            seed=config.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            shuffle=shuffle,
            states=self.states,
            device=fabric.device,
        )

    def check_unchanged(self) -> None:
        """Raise ValueError if the store changed since its statistics were computed."""
        if self.plan.mode == "memory":
            return
        for number, (source, identity) in enumerate(zip(self.sources, self.identities, strict=True)):
            if reader.source_identity(source) != identity:
                raise ValueError(
                    f"the store of {self.name} (series {number}) changed under the run: files in it have another size "
                    "or time of change than when the statistics were computed. Let nothing write to the data while "
                    "they train; start the run anew in another directory"
                )


def read_split(
    task: Task,
    series: list[xr.Dataset],
    name: str,
    weights_H: np.ndarray,
    log_scale: np.ndarray,
    config: TrainConfig,
    plan: loader.Plan | None,
    share: float,
    fabric: Fabric,
) -> Split:
    """Index the windows of some series, decide how they are read, and survey what they use."""
    sources = [reader.open_source(one, config.engine) for one in series]
    windows = []
    for number, one in enumerate(series):
        label = name if len(series) == 1 else f"{name}[{number}]"
        windows.append(find_windows(one.indexes["time"], task.step, task.history, config.leads(task), label))
    if name == "valid":
        windows = _spread(windows, config.validation_windows)
    inits = [one.indexes["time"][w[:, task.history - 1]] for one, w in zip(series, windows, strict=True)]
    # series without a window among those chosen
    used = [number for number, positions in enumerate(windows) if len(positions)]
    sources, windows, inits = ([part[number] for number in used] for part in (sources, windows, inits))
    batch = min(config.batch_size, sum(map(len, windows)))
    if plan is None:  # one for all processes, whatever memory each sees free
        plan = fabric.broadcast(loader.choose_plan(sources, windows, batch, config.memory, share))
    identities = [reader.source_identity(source) if plan.mode == "stream" else None for source in sources]
    states = loader.allocate(sources, windows) if plan.mode == "memory" else None
    found = compute_statistics(sources, windows, weights_H, task.history, log_scale, out=states)
    return Split(name, describe(series), sources, windows, inits[0].append(inits[1:]), plan, found, states, identities)


def _spread(windows: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return `count` of the windows, evenly spread over all series."""
    first = np.cumsum([0, *map(len, windows)])
    chosen = np.unique(np.linspace(0, first[-1] - 1, min(count, first[-1])).round().astype(int))
    return [
        positions[chosen[(chosen >= begin) & (chosen < end)] - begin]
        for positions, begin, end in zip(windows, first[:-1], first[1:], strict=True)
    ]


def check_same_data(normalizer: Normalizer, part: Split, name: str) -> None:
    """Refuse data that lack values where the training data had them, or cannot be in the same units."""
    lost = part.statistics.mask & ~normalizer.mask
    if lost.any():
        channel, row, column = np.argwhere(lost)[0]
        time = int(part.windows[0][0, 0])
        raise ValueError(
            reader.describe_missing_value(part.sources[0].dataset, time, channel, row, column, np.nan)
            + f"{name} has no value there at any time, the training data have. Give both the same mask: {name} = "
            f"{name}.where(train.notnull().any('time'))"
        )
    channels, units = normalizer.channels, normalizer.units
    unlabeled = [not part.sources[0].dataset[channel.variable].attrs.get("units") for channel in channels]
    # a season without snow or rain may vary little: only of data that do not say their units is that held against them
    spread = np.where(unlabeled, part.statistics.std, np.maximum(part.statistics.std, normalizer.std))
    check_moments(normalizer, part.statistics.mean, spread, name)
    check_transforms(part.statistics, channels, units, normalizer.log_scale, normalizer.bounds, name)


def read_statics(task: Task, dataset: object, grid: xr.Dataset, known: dict[str, np.ndarray]) -> np.ndarray:
    """Return the fields without time that the task names, (field, latitude, longitude), float64.

    Those that are `known` are not looked for in the dataset.
    """
    names = static_names(task.forcings)
    shape = (0, grid.sizes["latitude"], grid.sizes["longitude"])
    series = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
    fields = []
    for name in names:
        if name in known:
            fields.append(known[name])
            continue
        try:
            field, *others = [canonicalize(one, [name]).dataset[name] for one in series]
        except ValueError as error:
            raise ValueError(
                f"forcings={task.forcings} names {name!r}, which is neither built in ({', '.join(FORCINGS)}) nor found "
                f"in all of the training data: {error}"
            ) from error
        if more := sorted(set(field.dims) - {"latitude", "longitude"}):
            raise ValueError(
                f"{name!r} in forcings has the dimensions {more} beside latitude and longitude: fields that change "
                "cannot be known at the times that are forecast. Choose one state of it, "
                f"ds[{name!r}].isel({more[0]}=0), or add it to Task.variables"
            )
        values = field.transpose("latitude", "longitude").values.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{name!r} in forcings has missing values: fill them, for example ds[{name!r}].fillna(0)")
        for number, other in enumerate(others, start=1):
            if not np.array_equal(other.transpose("latitude", "longitude").values.astype(np.float64), values):
                raise ValueError(
                    f"{name!r} in forcings is another field in dataset[{number}] than in dataset[0]: one run has one. "
                    "Leave it out of forcings, or train on the series one by one"
                )
        fields.append(values)
    return np.stack(fields) if fields else np.empty(shape)
