"""The training and the validation period: opened, checked, indexed, with their statistics.

Shape suffix: H latitude.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
import xarray as xr
from lightning_fabric import Fabric

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.windows import check_times, find_windows
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer, Statistics, compute_statistics
from simvp_climate.processing.task import Task
from simvp_climate.quality import rules
from simvp_climate.quality.report import Finding
from simvp_climate.training import loader
from simvp_climate.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Series:
    """One series of states without members: its canonical Dataset, and where it comes from."""

    dataset: xr.Dataset
    canonical: Canonical


def open_series(task: Task, dataset: xr.Dataset | Sequence[xr.Dataset], name: str) -> list[Series]:
    """Return the series of a Dataset or of a list of them, with each ensemble member as a series of its own."""
    originals = dataset if isinstance(dataset, list | tuple) else [dataset]
    for original in originals:
        if not isinstance(original, xr.Dataset):
            raise ValueError(
                f"{name} has type {type(original).__name__}, but must be an xarray.Dataset: "
                f"{name} = sc.open_dataset(path, variables)"
            )
    if not originals:
        raise ValueError(f"{name} is an empty list. Give at least one series: {name}=[ds]")
    canonicals = [canonicalize(original, task.all_variables, task.levels) for original in originals]
    series = [Series(member, canonical) for canonical in canonicals for member in canonical.series]
    for index, each in enumerate(series):
        reader.list_channels(each.dataset)  # raises for variables without time, or with other dimensions
        label = _series_name(name, index, len(series))
        check_times(each.dataset.indexes["time"], label, each.canonical.axes.time)
    return series


def check_series(task: Task, leads: int, training: list[Series], validation: list[Series]) -> None:
    """Raise ValueError if series differ from each other, or if validation times lie within training windows."""
    datasets = [series.dataset for series in training]
    rules.raise_first(
        chain(
            rules.unlike_series([*datasets, *(series.dataset for series in validation)]),
            rules.partly_missing_units(datasets),
            _overlaps(task, leads, datasets, [series.dataset for series in validation]),
        )
    )


def _overlaps(
    task: Task, leads: int, training: list[xr.Dataset], validation: list[xr.Dataset]
) -> Iterator[Finding | None]:
    for index, dataset in enumerate(training):
        times, name = dataset.indexes["time"], _series_name("dataset", index, len(training))
        windows = find_windows(times, task.step, task.history, leads, name)
        for other in validation:
            yield rules.overlapping_periods("training", times, windows, "validation", other.indexes["time"])


def _series_name(name: str, index: int, count: int) -> str:
    return name if count == 1 else f"{name}[{index}]"


def describe_periods(series: list[Series]) -> str:
    """Return the first and last time of each series as text."""
    indexes = [each.dataset.indexes["time"] for each in series]
    return ", ".join(dict.fromkeys(f"{times[0]} to {times[-1]}" for times in indexes))


@dataclass(frozen=True, eq=False)
class Split:
    """The windows of the training or the validation period, and their statistics.

    Attributes
    ----------
    name
        "dataset" or "valid".
    period
        First and last time of each series, as text.
    series, sources, windows
        The series that have windows, where each is read from, and the positions of its windows.
    inits
        Initialization times of all windows, series after series.
    plan
        How the windows are read.
    statistics
        Statistics of the states that windows use.
    states
        These states if they stay in memory, else None.
    identities
        For each source what `reader.source_identity` returned when the statistics were computed.
    """

    name: str
    period: str
    series: list[Series]
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
        for index, (source, identity) in enumerate(zip(self.sources, self.identities, strict=True)):
            if reader.source_identity(source) != identity:
                raise ValueError(
                    f"the store of {_series_name(self.name, index, len(self.sources))} changed during training: files "
                    "have another size or time of change. Write nothing to it, and start the run in another directory"
                )


def read_split(
    task: Task,
    series: list[Series],
    name: str,
    weights_H: np.ndarray,
    log_scale: np.ndarray,
    config: TrainConfig,
    plan: loader.Plan | None,
    share: float,
    fabric: Fabric,
) -> Split:
    """Return the windows of some series with their statistics, after deciding how they are read.

    Parameters
    ----------
    name
        "dataset" or "valid".
    weights_H
        Area weights with mean one.
    log_scale
        As in `Normalizer`.
    plan
        How a resumed run read them; None to decide now, with at most a `share` of the memory that is free.

    Raises
    ------
    ValueError
        If no window fits, or a value inside a window is missing at some times only.
    """
    sources = [reader.open_source(each.dataset, config.engine) for each in series]
    windows = []
    for index, each in enumerate(series):
        label = _series_name(name, index, len(series))
        times = each.dataset.indexes["time"]
        windows.append(find_windows(times, task.step, task.history, config.leads(task), label))
    if name == "valid":
        windows = _spread_evenly(windows, config.validation_windows)
    period = describe_periods(series)
    # some series may have none of the chosen windows
    used = [index for index, positions in enumerate(windows) if len(positions)]
    series, sources, windows = ([items[index] for index in used] for items in (series, sources, windows))
    inits = [
        each.dataset.indexes["time"][positions[:, task.history - 1]]
        for each, positions in zip(series, windows, strict=True)
    ]
    batch = min(config.batch_size, sum(map(len, windows)))
    if plan is None:  # one for all processes, whatever memory each of them sees as free
        plan = fabric.broadcast(loader.choose_plan(sources, windows, batch, config.memory, share))
    identities = [reader.source_identity(source) if plan.mode == "stream" else None for source in sources]
    states = loader.allocate(sources, windows) if plan.mode == "memory" else None
    statistics = compute_statistics(sources, windows, weights_H, task.history, log_scale, out=states)
    rules.raise_first(rules.incomplete_values(statistics, [each.canonical for each in series], sources))
    inits = inits[0].append(inits[1:])
    return Split(name, period, series, sources, windows, inits, plan, statistics, states, identities)


def _spread_evenly(windows: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return `count` of the windows, evenly spread over all series."""
    starts = np.cumsum([0, *map(len, windows)])
    chosen = np.unique(np.linspace(0, starts[-1] - 1, min(count, starts[-1])).round().astype(int))
    return [
        positions[chosen[(chosen >= start) & (chosen < stop)] - start]
        for positions, start, stop in zip(windows, starts[:-1], starts[1:], strict=True)
    ]


def check_trainable(normalizer: Normalizer, statistics: Statistics, split: Split, task: Task) -> None:
    """Raise ValueError if units or values of some channels of a split are impossible, or there is nothing to learn."""
    canonical = split.series[0].canonical
    rules.raise_first(rules.unusable_channels(statistics, normalizer, canonical, dict(task.transforms)))


def check_like_training(normalizer: Normalizer, split: Split, task: Task) -> None:
    """Raise ValueError if data lack values that training had, or are in other units than those of the normalizer."""
    canonical, statistics = split.series[0].canonical, split.statistics
    dataset = split.sources[0].dataset
    unlabeled = [not dataset[channel.variable].attrs.get("units") for channel in normalizer.channels]
    # a season without snow or rain may vary little: only data without units must vary as in training
    spreads = np.where(unlabeled, statistics.std, np.maximum(statistics.std, normalizer.std))
    rules.raise_first(
        chain(
            rules.lost_cells(normalizer, statistics, canonical, split.name),
            rules.unlike_training(normalizer, statistics.mean, spreads, split.name),
            rules.values_outside_bounds(statistics, normalizer, canonical, dict(task.transforms), split.name),
        )
    )


def read_statics(task: Task, dataset: object, grid: xr.Dataset, known: dict[str, np.ndarray]) -> np.ndarray:
    """Return the fields without time that the task names, (field, latitude, longitude), float64.

    Fields in `known` are not read from the dataset. All series must have the same field.
    """
    datasets = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
    fields = []
    for name in static_names(task.forcings):
        if name in known:
            fields.append(known[name])
            continue
        values, findings = zip(*(rules.find_static(each, name) for each in datasets), strict=True)
        rules.raise_first(findings)
        for index, other in enumerate(values[1:], start=1):
            if not np.array_equal(other, values[0]):
                raise ValueError(
                    f"{name!r} in forcings differs between dataset[0] and dataset[{index}], but a run has one such "
                    "field. Omit it from forcings, or train on the series one by one"
                )
        fields.append(values[0])
    return np.stack(fields) if fields else np.empty((0, grid.sizes["latitude"], grid.sizes["longitude"]))
