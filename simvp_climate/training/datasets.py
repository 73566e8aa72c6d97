"""The setup of a run and its two periods: opened, checked, indexed, with their statistics.

Shape suffix: H latitude.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
import xarray as xr
from lightning_fabric import Fabric

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.windows import check_times, find_windows, shared_period
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.processing.climatology import Harmonics, describe_harmonics
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer, Statistics, compute_statistics, resolve_log_scale_and_bounds
from simvp_climate.processing.task import Task
from simvp_climate.processing.tensors import ChannelRoles, channel_roles
from simvp_climate.quality import rules
from simvp_climate.training import distributed, loader
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.loader import Plan

Data = xr.Dataset | Sequence[xr.Dataset]


@dataclass(frozen=True, eq=False)
class Series:
    """One series of states without members, before any value is read."""

    dataset: xr.Dataset  # canonical, one of those of `canonical`
    canonical: Canonical
    channels: tuple[reader.Channel, ...]
    times: pd.Index  # of its states
    windows: np.ndarray  # positions in time of its windows, (window, history + leads)


@dataclass(frozen=True, eq=False)
class Setup:
    """What follows from the task and from the grid and channels of the data: resolved once, used by the whole run."""

    task: Task
    leads: int  # steps from the initialization to the end of each window
    channels: tuple[reader.Channel, ...]
    units: tuple[str, ...]  # of each channel, "" without
    roles: ChannelRoles
    log_scale: np.ndarray  # this and `bounds` as in `Normalizer`
    bounds: np.ndarray
    latitude: np.ndarray  # of the canonical grid, degrees
    longitude: np.ndarray
    weights: np.ndarray  # area weights with mean one, (latitude,)


def open_data(task: Task, leads: int, dataset: Data, valid: Data | None) -> tuple[Setup, list[Series], list[Series]]:
    """Return the setup of a run, and the series of the training and the validation period, all checked."""
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
    log_scale, bounds = resolve_log_scale_and_bounds(channels, units, task.transforms)
    axes = grid["latitude"].values, grid["longitude"].values
    roles, weights = channel_roles(task, channels), latitude_weights(grid["latitude"]).values
    return Setup(task, leads, channels, units, roles, log_scale, bounds, *axes, weights), training, validation


def _open_series(task: Task, leads: int, dataset: Data, name: str) -> list[Series]:
    """Return the series of a Dataset or of a list of them, with each ensemble member as a series of its own."""
    originals = dataset if isinstance(dataset, list | tuple) else [dataset]
    for original in originals:
        if not isinstance(original, xr.Dataset):
            message = f"{name} has type {type(original).__name__}, but must be an xarray.Dataset"
            raise ValueError(f"{message}: {name} = sc.open_dataset(path, variables)")
    if not originals:
        raise ValueError(f"{name} is an empty list. Give at least one series: {name}=[ds]")
    canonicals = [canonicalize(original, task.all_variables, task.levels) for original in originals]
    members = [(member, canonical) for canonical in canonicals for member in canonical.series]
    series = []
    for index, (member, canonical) in enumerate(members):
        channels, label = reader.list_channels(member), _series_name(name, index, len(members))
        times = member.indexes["time"]
        time = canonical.axes.time
        check_times(times, label, time, canonical.original[time].attrs.get("units"))
        windows = find_windows(times, task.step, task.history, leads, label)
        series.append(Series(member, canonical, channels, times, windows))
    return series


def _series_name(name: str, index: int, count: int) -> str:
    return name if count == 1 else f"{name}[{index}]"


@dataclass(frozen=True, eq=False)
class Split:
    """The windows of the training or the validation period, and their statistics."""

    name: str  # "dataset" or "valid"
    period: str  # first and last time of each series
    series: list[Series]  # those that have windows; in the same order `sources`, `windows` and `identities`
    sources: list[reader.Source]
    windows: list[np.ndarray]
    inits: pd.Index  # initialization times of all windows, series after series
    plan: Plan
    statistics: Statistics  # of the states that windows use
    states: np.ndarray | None  # these states, if they stay in memory
    identities: list[str | None]  # `reader.source_identity` when the statistics were computed

    def stream(self, config: TrainConfig, fabric: Fabric, shuffle: bool = True) -> loader.WindowStream:
        """Return the windows of this process as batches."""
        ranks = {"rank": fabric.global_rank, "world_size": fabric.world_size, "device": fabric.device}
        settings = {"batch_size": config.batch_size // fabric.world_size, "seed": config.seed, "shuffle": shuffle}
        return loader.WindowStream(self.sources, self.windows, plan=self.plan, states=self.states, **settings, **ranks)

    def climatology(self) -> Harmonics | None:
        """Return the climatology of these states; None if it is too large to be kept."""
        return describe_harmonics(self.statistics.harmonics, [each.times for each in self.series], self.windows)

    def check_unchanged(self) -> None:
        """Raise ValueError if the store changed since its statistics were computed."""
        for index, (source, identity) in enumerate(zip(self.sources, self.identities, strict=True)):
            if self.plan.mode == "stream" and reader.source_identity(source) != identity:
                raise ValueError(
                    f"the store of {_series_name(self.name, index, len(self.sources))} changed during training: files "
                    "have another size or time of change. Write nothing to it, and start the run in another directory"
                )


def read_split(
    setup: Setup, series: list[Series], name: str, config: TrainConfig, plan: Plan | None, share: float, fabric: Fabric
) -> Split:
    """Return the windows of some series with their statistics; `plan` None decides now, within a `share` of memory."""
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
    # the climatology is of the training period
    times = [each.times for each in series] if name == "dataset" else None
    arguments = sources, windows, setup.weights, history, setup.log_scale
    statistics = compute_statistics(*arguments, times=times, out=states)
    rules.raise_first(rules.incomplete_values(statistics, [each.canonical for each in series], sources))
    inits = inits[0].append(inits[1:])
    return Split(name, period, series, sources, windows, inits, plan, statistics, states, identities)


def _spread_evenly(windows: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Return `count` of the windows, evenly spread over all series."""
    starts = np.cumsum([0, *map(len, windows)])
    chosen = np.unique(np.linspace(0, starts[-1] - 1, min(count, starts[-1])).round().astype(int))
    of_series = np.split(chosen, np.searchsorted(chosen, starts[1:-1]))
    return [positions[part - start] for positions, part, start in zip(windows, of_series, starts, strict=False)]


def read_splits(
    setup: Setup, training: list[Series], validation: list[Series], config: TrainConfig,
    plans: Sequence[Plan] | None, inherited: Forecaster | None, fabric: Fabric,
) -> tuple[list[Split], Normalizer]:  # fmt: skip
    """Return the windows of both periods, and their normalizer: of `inherited` for the channels that it has."""
    # processes on one machine share its memory, and the validation period gets a quarter of it
    share = (0.75 if validation else 1.0) * distributed.count()[1] / fabric.world_size
    train_plan, valid_plan = (*plans, None)[:2] if plans else (None, None)
    splits = [read_split(setup, training, "dataset", config, train_plan, share, fabric)]
    if validation:
        splits.append(read_split(setup, validation, "valid", config, valid_plan, share / 3, fabric))

    statistics, canonical = splits[0].statistics, splits[0].series[0].canonical
    settings = {name: getattr(setup, name) for name in ("channels", "units", "log_scale", "bounds")}
    settings |= {name: getattr(statistics, name) for name in ("mean", "std", "change_std", "mask")}
    settings["extremes"] = extremes = np.stack([statistics.minimum, statistics.maximum], axis=1)
    normalizer, new = Normalizer(**settings), range(len(setup.channels))
    if inherited is not None:
        new = [index for index in new if setup.channels[index] not in inherited.normalizer.channels]
        normalizer = normalizer.inherit(inherited.normalizer)
    transforms = dict(setup.task.transforms)
    data = [(split.sources, split.windows) for split in splits]
    locate = [partial(rules.find_value, split.series, *each) for split, each in zip(splits, data, strict=True)]
    find_new = lambda index, value: locate[0](new[index], value)  # noqa: E731
    is_far = lambda index, value: rules.is_outlier(*data[0], new[index], value)  # noqa: E731
    chosen = statistics.select(new), normalizer.select(new)
    rules.raise_first(rules.unusable_channels(*chosen, canonical, transforms, find_new, is_far))
    for split, find in list(zip(splits, locate, strict=True))[1 if inherited is None else 0 :]:
        arguments = split.statistics, normalizer, split.series[0].canonical, transforms, split.name, find
        rules.raise_first(rules.unlike_training_period(*arguments))
        normalizer = normalizer.widen(extremes)  # once the new training data were held to the old extremes
    return splits, normalizer


def read_statics(setup: Setup, dataset: Data, inherited: Forecaster | None) -> np.ndarray:
    """Return the static fields that the task names, (field, latitude, longitude), float64, inherited where possible."""
    datasets = [dataset] if isinstance(dataset, xr.Dataset) else list(dataset)
    known = dict(zip(static_names(inherited.task.forcings), inherited.statics, strict=True)) if inherited else {}
    fields = []
    for name in static_names(setup.task.forcings):
        if name in known:
            fields.append(known[name])
            continue
        values, findings = zip(*(rules.find_static(each, name) for each in datasets), strict=True)
        rules.raise_first(findings)
        for index, other in enumerate(values[1:], start=1):
            if not np.array_equal(other, values[0]):
                message = f"{name!r} in forcings differs between dataset[0] and dataset[{index}]"
                raise ValueError(f"{message}. Omit it from forcings, or train on the series one by one")
        fields.append(values[0])
    return np.stack(fields) if fields else np.empty((0, setup.latitude.size, setup.longitude.size))
