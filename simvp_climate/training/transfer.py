"""Fine-tuning and transfer: what a run takes from a pretrained forecaster, channel by channel, by name."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import nn

from simvp_climate.data.grid import check_same_grid
from simvp_climate.data.reader import Channel
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing import tensors
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.training.datasets import Split, check_trainable

_STATISTICS = ("mean", "std", "log_scale", "bounds", "mask")  # per channel
_COMPUTE = "compute them from the new data, TrainConfig(statistics='compute')"


def choose_model(model: SimVPv2Config | None, pretrained: Forecaster | None) -> SimVPv2Config:
    """Return the model to train: that of the pretrained forecaster, or `model` with another padding and drop path.

    Raises
    ------
    ValueError
        If the pretrained weights do not fit `model`.
    """
    if pretrained is None:
        return model or SimVPv2Config()
    trained = pretrained.network.config
    if model is None:
        return dataclasses.replace(trained, padding="auto")
    differences = [
        f"{name}={value!r} (it has {getattr(trained, name)!r})"
        for name, value in dataclasses.asdict(model).items()
        if value != getattr(trained, name) and name not in ("padding", "drop_path")
    ]
    if differences:
        raise ValueError(
            f"model is not the network of start_from: {', '.join(differences)}. Leave model out, or change only "
            "padding and drop_path: dataclasses.replace(start.network.config, drop_path=0.1)"
        )
    return model


def choose_statistics(
    pretrained: Forecaster, task: Task, grid: xr.Dataset, channels: tuple[Channel, ...], statistics: str
) -> str:
    """Return "inherit" or "compute", after checking that task and data fit the pretrained forecaster.

    Raises
    ------
    ValueError
        If history, step or transforms differ, no channel is shared, the pretrained statistics cannot normalize these
        data, or "auto" leaves open whose statistics to use.
    """
    trained = pretrained.normalizer.channels
    shared = [channel for channel in channels if channel in trained]
    _check_task(pretrained, task, channels, shared)
    if statistics == "compute":
        return statistics
    try:
        check_same_grid(xr.Dataset(coords={"latitude": pretrained.latitude, "longitude": pretrained.longitude}), grid)
    except ValueError as error:
        raise ValueError(
            f"the data are on another grid than start_from, whose statistics and mask belong to its grid: {error}. "
            f"Regrid (sc.regrid), or {_COMPUTE}"
        ) from error
    for channel in shared:
        units, trained_units = (
            grid[channel.variable].attrs.get("units", ""),
            pretrained.normalizer.units[trained.index(channel)],
        )
        if units and trained_units and not same_units(units, trained_units):
            raise ValueError(
                f"{channel.variable} is in {units!r}, start_from was trained in {trained_units!r}, whose statistics "
                f"are kept: {_conversion(channel.variable, units, trained_units)}; or {_COMPUTE}"
            )
    if statistics == "auto" and set(channels) != set(trained):
        raise ValueError(
            f"the channels are {_names(channels)}, those of start_from {_names(trained)}: choose the statistics of "
            f"the shared ones ({_names(shared)}). TrainConfig(statistics='inherit') suits data like its own; or "
            f"{_COMPUTE}"
        )
    return "inherit"


def _check_task(pretrained: Forecaster, task: Task, channels: tuple[Channel, ...], shared: Sequence[Channel]) -> None:
    """Raise ValueError if the pretrained weights do not fit the task."""
    differences = [
        f"{name}={getattr(task, name)!r}, start_from has {getattr(pretrained.task, name)!r}"
        for name in ("history", "step")
        if getattr(task, name) != getattr(pretrained.task, name)
    ]
    if differences:
        raise ValueError(
            f"{'; '.join(differences)}: its weights fit only this history and step. Take these, or train without "
            "start_from"
        )
    if not shared:
        raise ValueError(
            f"start_from forecasts {_names(pretrained.normalizer.channels)}, none of {_names(channels)}: there is "
            "nothing to transfer. Give variables the same names (and levels the same units)"
        )
    transforms, trained = dict(task.transforms), dict(pretrained.task.transforms)
    for name in sorted({channel.variable for channel in shared}):
        if transforms.get(name) != trained.get(name):
            raise ValueError(
                f"transforms of {name!r} is {transforms.get(name)!r}, start_from has {trained.get(name)!r}: its "
                "weights fit only these. Take the same"
            )


def _conversion(name: str, units: str, trained_units: str) -> str:
    """Return the line that converts a variable into the pretrained units, for messages."""
    factors = conversion(name, units, trained_units)
    if factors is None:
        return "there is no exact way from one to the other"
    return f"convert it, (variable * {factors[0]:g} + {factors[1]:g}).assign_attrs(units={trained_units!r})"


def known_statics(pretrained: Forecaster | None, statistics: str) -> dict[str, np.ndarray]:
    """Return the static fields that are inherited, by name; none where statistics are computed anew."""
    if pretrained is None or statistics == "compute":
        return {}
    return dict(zip(static_names(pretrained.task.forcings), pretrained.statics, strict=True))


def inherit_statistics(pretrained: Forecaster, normalizer: Normalizer, split: Split, task: Task) -> Normalizer:
    """Return the normalizer of the data with the pretrained statistics for the channels that both have.

    Raises
    ------
    ValueError
        If one of the new channels cannot be trained on, as in a run without `start_from`.
    """
    trained = pretrained.normalizer
    pairs = _matches(normalizer.channels, trained.channels)
    new = [index for index in range(len(normalizer.channels)) if index not in dict(pairs)]
    check_trainable(normalizer.select(new), split.statistics.select(new), split, task)
    merged = {name: getattr(normalizer, name).copy() for name in (*_STATISTICS, "change_std")}
    units = list(normalizer.units)
    for index, source in pairs:
        for name in _STATISTICS:
            merged[name][index] = getattr(trained, name)[source]
        merged["change_std"][:, index] = trained.change_std[:, source]
        units[index] = trained.units[source]
    return dataclasses.replace(normalizer, units=tuple(units), **merged)


@torch.no_grad()
def copy_weights(network: nn.Module, pretrained: Forecaster, task: Task, channels: tuple[Channel, ...]) -> dict:
    """Copy the pretrained weights into a new network; return the names of channels taken, new and left out.

    The weights between input and output are copied whole. Weights of the first convolution are copied for inputs
    (channels or forcings) of the same name, weights of the readout for outputs of the same name. All others stay as
    they are, and so do the scales of change, which are statistics. A variable that was an output alone and is now an
    input too, or the reverse, is new: its output changes from a state to a change, or the reverse.

    Returns
    -------
    dict
        "taken", "new" and "left_out", lists of names, and "sha256" of the pretrained weights and statistics.
    """
    weights, trained = network.state_dict(), pretrained.network.state_dict()
    inputs, outputs = tensors.channel_names(task, channels)
    trained_inputs, trained_outputs = tensors.channel_names(pretrained.task, pretrained.normalizer.channels)
    # with predict="change" an output that is also an input is a change, any other is a state
    redefined = []
    if pretrained.network.config.predict == "change":
        redefined = [
            name for name in outputs if name in trained_outputs and (name in inputs) != (name in trained_inputs)
        ]
    for name, value in weights.items():
        if name == "change_scale_TC":
            continue
        if name == "encoder.0.conv.weight":
            for index, source in _matches(inputs, trained_inputs):
                value[:, index] = trained[name][:, source]
        elif name in ("readout.weight", "readout.bias"):
            for index, source in _matches(outputs, trained_outputs):
                if outputs[index] not in redefined:
                    value[index] = trained[name][source]
        else:
            value.copy_(trained[name])
    names = list(dict.fromkeys([*inputs, *outputs]))  # an output may not be an input
    trained_names = list(dict.fromkeys([*trained_inputs, *trained_outputs]))
    digest = hashlib.sha256()
    statistics = (torch.from_numpy(getattr(pretrained.normalizer, name)) for name in _STATISTICS)
    for value in (*trained.values(), *statistics):
        digest.update(value.cpu().contiguous().numpy())
    return {
        "sha256": digest.hexdigest(),
        "taken": [name for name in names if name in trained_names and name not in redefined],
        "new": [name for name in names if name not in trained_names or name in redefined],
        "left_out": [name for name in trained_names if name not in names],
    }


def summary(copied: dict, statistics: str) -> str:
    """Return a sentence on what `copy_weights` copied, and on whose statistics hold."""
    clauses = [f"start_from: copied the weights of {', '.join(copied['taken'])}"]
    clauses += [f"new, with random weights: {', '.join(copied['new'])}"] if copied["new"] else []
    clauses += [f"left out: {', '.join(copied['left_out'])}"] if copied["left_out"] else []
    clauses.append("statistics: " + {"inherit": "those of start_from", "compute": "of the new data"}[statistics])
    return "; ".join(clauses)


def parent_provenance(pretrained: Forecaster) -> dict:
    """Return the provenance of the pretrained forecaster without its training curve."""
    return {name: value for name, value in pretrained.provenance.items() if name != "epochs"}


def _matches(names: Sequence, others: Sequence) -> list[tuple[int, int]]:
    """Return the index in both of each name that both have."""
    return [(index, others.index(name)) for index, name in enumerate(names) if name in others]


def _names(channels: Sequence[Channel]) -> str:
    return f"{[str(channel) for channel in channels]}"
