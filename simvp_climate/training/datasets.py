"""The setup of a run and its two periods: opened, checked, indexed, with their statistics.

Shape suffix: H latitude.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
import xarray as xr
from lightning_fabric import Fabric

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.grid import closes_longitude, latitude_weights, reaches_poles
from simvp_climate.data.windows import check_times, find_windows, shared_period
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer, Statistics, compute_statistics, resolve_transforms
from simvp_climate.processing.task import Task
from simvp_climate.processing.tensors import ChannelRoles, channel_roles
from simvp_climate.quality import rules
from simvp_climate.training import distributed, loader
from simvp_climate.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Series:
    """One series of states without members, before any value is read.

    Attributes
    ----------
    dataset, canonical
        Its canonical Dataset, and where it comes from.
    channels
        Its variables, each with its levels.
    windows
        Positions in time of its windows, (window, history + leads).
    """

    dataset: xr.Dataset
    canonical: Canonical
    channels: tuple[reader.Channel, ...]
    windows: np.ndarray

    @property
    def times(self) -> pd.Index:
        """The times of its states."""
        return self.dataset.indexes["time"]


@dataclass(frozen=True, eq=False)
class Setup:
    """What follows from the task and from the grid and channels of the data: resolved once, used by the whole run.

    Attributes
    ----------
    task
        What to forecast.
    leads
        Number of steps from the initialization to the end of each window.
    channels, units, roles
        The channels of the states, their units ("" without), and what the network does with them.
    log_scale, bounds
        As in `Normalizer`.
    latitude, longitude
        Of the canonical grid, degrees.
    is_global, poles
        Whether the longitudes go around the globe, and how the rows reach the poles, as `data.grid.reaches_poles`.
    weights
        Area weights with mean one, (latitude,).
    """

    task: Task
    leads: int
    channels: tuple[reader.Channel, ...]
    units: tuple[str, ...]
    roles: ChannelRoles
    log_scale: np.ndarray
    bounds: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    is_global: bool
    poles: str
    weights: np.ndarray


def open_data(
    task: Task,
    leads: int,
    dataset: xr.Dataset | Sequence[xr.Dataset],
    valid: xr.Dataset | Sequence[xr.Dataset] | None,
) -> tuple[Setup, list[Series], list[Series]]:
    """Return the setup of a run, and the series of the training and the validation period.

    Raises
    ------
    ValueError
        If the data do not fit the task, times are out of order, no window fits, series differ from each other, or
        validation times lie within training windows.
    """
    training = _open_series(task, leads, dataset, "dataset")
    validation = [] if valid is None else _open_series(task, leads, valid, "valid")
    shared = [shared_period(series.times, series.windows, other.times) for series in training for other in validation]
    every = [*training, *validation]
    rules.raise_first(
        chain(
            rules.partly_missing_units([series.dataset for series in training]),
            rules.unlike_series([series.dataset for series in every], [series.channels for series in every]),
            (rules.overlapping_periods("training", "validation", times) for times in shared),
        )
    )
    grid, channels = training[0].dataset, training[0].channels
    units = tuple(grid[channel.variable].attrs.get("units", "") for channel in channels)
    log_scale, bounds = resolve_transforms(channels, units, task.transforms)
    roles = channel_roles(task, channels)
    setup = Setup(
        task=task,
        leads=leads,
        channels=channels,
        units=units,
        roles=roles,
        log_scale=log_scale,
        bounds=bounds,
        latitude=grid["latitude"].values,
        longitude=grid["longitude"].values,
        is_global=closes_longitude(grid["longitude"]),
        poles=reaches_poles(grid["latitude"]),
        weights=latitude_weights(grid["latitude"]).values,
    )
    return setup, training, validation


def _open_series(task: Task, leads: int, dataset: xr.Dataset | Sequence[xr.Dataset], name: str) -> list[Series]:
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
    members = [(member, canonical) for canonical in canonicals for member in canonical.series]
    series = []
    for index, (member, canonical) in enumerate(members):
        channels = reader.list_channels(member)
        times, label = member.indexes["time"], _series_name(name, index, len(members))
        check_times(times, label, canonical.axes.time)
        windows = find_windows(times, task.step, task.history, leads, label)
        series.append(Series(member, canonical, channels, windows))
    return series


def _series_name(name: str, index: int, count: int) -> str:
    return name if count == 1 else f"{name}[{index}]"


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
    setup: Setup,
    series: list[Series],
    name: str,
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
    plan
        How a resumed run read them; None to decide now, with at most a `share` of the memory that is free.

    Raises
    ------
    ValueError
        If a value inside a window is missing at some times only.
    """
    windows = [each.windows for each in series]
    if name == "valid":
        windows = _spread_evenly(windows, config.validation_windows)
    period = ", ".join(dict.fromkeys(f"{each.times[0]} to {each.times[-1]}" for each in series))
    # some series may have none of the chosen windows
    used = [index for index, positions in enumerate(windows) if len(positions)]
    series, windows = [series[index] for index in used], [windows[index] for index in used]
    sources = [reader.open_source(each.dataset, config.engine) for each in series]
    history = setup.task.history
    inits = [each.times[positions[:, history - 1]] for each, positions in zip(series, windows, strict=True)]
    batch = min(config.batch_size, sum(map(len, windows)))
    if plan is None:  # one for all processes, whatever memory each of them sees as free
        plan = fabric.broadcast(loader.choose_plan(sources, windows, batch, config.memory, share))
    identities = [reader.source_identity(source) if plan.mode == "stream" else None for source in sources]
    states = loader.allocate(sources, windows) if plan.mode == "memory" else None
    statistics = compute_statistics(sources, windows, setup.weights, history, setup.log_scale, out=states)
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


def read_splits(
    setup: Setup,
    training: list[Series],
    validation: list[Series],
    config: TrainConfig,
    plans: Sequence[loader.Plan | None],
    inherited: Normalizer | None,
    fabric: Fabric,
) -> tuple[Split, Split | None, Normalizer]:
    """Return the windows of both periods, and the normalizer of the training period that both fit.

    Parameters
    ----------
    plans
        As in `read_split`, for both periods.
    inherited
        The normalizer whose statistics replace those of the training period for the channels that it has.

    Raises
    ------
    ValueError
        As in `read_split`; if channels cannot be trained on, or data differ from those of the normalizer's statistics.
    """
    # processes on one machine share its memory, and the validation period gets a quarter of it
    share = (0.75 if validation else 1.0) * distributed.count()[1] / fabric.world_size
    periods = [("dataset", training, plans[0], share)]
    periods += [("valid", validation, plans[1], share / 3)] if validation else []
    splits = [read_split(setup, series, name, config, plan, share, fabric) for name, series, plan, share in periods]

    statistics, canonical = splits[0].statistics, splits[0].series[0].canonical
    settings = {name: getattr(setup, name) for name in ("channels", "units", "log_scale", "bounds")}
    settings |= {name: getattr(statistics, name) for name in ("mean", "std", "change_std", "mask")}
    normalizer, new = Normalizer(**settings), range(len(setup.channels))
    if inherited is not None:
        new = [index for index in new if setup.channels[index] not in inherited.channels]
        normalizer = normalizer.inherit(inherited)
    transforms = dict(setup.task.transforms)
    findings = [rules.unusable_channels(statistics.select(new), normalizer.select(new), canonical, transforms)]
    for split in splits[1 if inherited is None else 0 :]:
        canonical = split.series[0].canonical
        findings.append(rules.unlike_training_period(split.statistics, normalizer, canonical, transforms, split.name))
    rules.raise_first(chain(*findings))
    return splits[0], splits[1] if validation else None, normalizer


def read_statics(setup: Setup, dataset: object, known: dict[str, np.ndarray]) -> np.ndarray:
    """Return the fields without time that the task names, (field, latitude, longitude), float64.

    Fields in `known` are not read from the dataset. All series must have the same field.
    """
    datasets = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
    fields = []
    for name in static_names(setup.task.forcings):
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
    return np.stack(fields) if fields else np.empty((0, setup.latitude.size, setup.longitude.size))
