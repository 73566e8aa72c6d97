"""Fine-tuning and transfer: what a new run takes over from a trained forecaster, channel by channel, by name."""

import dataclasses
import hashlib

import numpy as np
import torch
import xarray as xr
from torch import nn

from simvp_climate.data import reader
from simvp_climate.data.conventions import same_grid
from simvp_climate.data.grid import closes_longitude
from simvp_climate.data.reader import Channel
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing import tensors
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer, Statistics, check_transforms, check_units, check_varies
from simvp_climate.processing.task import Task

_STATISTICS = ("mean", "std", "log_scale", "bounds", "mask")  # per channel


def choose_model(model: SimVPv2Config | None, start: Forecaster | None) -> SimVPv2Config:
    """Return the network to train: that of the start, if there is one; `model` may say another padding and drop path.

    Raises
    ------
    ValueError
        If `model` is another network: weights would not fit.
    """
    if start is None:
        return model or SimVPv2Config()
    own = start.network.config
    if model is None:
        return dataclasses.replace(own, padding="auto")
    ours, theirs = dataclasses.asdict(model), dataclasses.asdict(own)
    if different := [name for name in ours if ours[name] != theirs[name] and name not in ("padding", "drop_path")]:
        words = ", ".join(f"{name}={ours[name]!r} (it has {theirs[name]!r})" for name in different)
        raise ValueError(
            f"model is not the network of start_from: {words}. Leave model out, or take "
            "dataclasses.replace(start.network.config, ...), of which padding and drop_path may be others"
        )
    return model


def choose_padding(model: SimVPv2Config, start: Forecaster, grid: xr.Dataset) -> SimVPv2Config:
    """Return the network with the padding of the start, unless one of both grids goes round the globe alone."""
    alike = closes_longitude(start.longitude) == closes_longitude(grid["longitude"].values)
    if model.padding != "auto" or not alike:
        return model
    return dataclasses.replace(model, padding=start.network.config.padding)


def choose_statistics(start: Forecaster, task: Task, grid: xr.Dataset, statistics: str) -> str:
    """Return "inherit" or "compute", after checking that task and data fit the start.

    Raises
    ------
    ValueError
        If history, step or transforms differ, no channel is shared, the statistics of the start cannot be those of
        these data, or it is left to us to choose ("auto") and not plain.
    """
    before, channels = start.normalizer.channels, reader.channels(grid)
    shared = [channel for channel in channels if channel in before]
    if different := [name for name in ("history", "step") if getattr(task, name) != getattr(start.task, name)]:
        raise ValueError(
            "; ".join(f"{n}={getattr(task, n)!r}, start_from has {getattr(start.task, n)!r}" for n in different)
            + ": its weights are those of this history and step. Take these, or train without start_from"
        )
    if not shared:
        raise ValueError(
            f"start_from forecasts {_words(before)}, none of {_words(channels)}: there is nothing to take over. "
            "Channels are known by their name and level; give variables the same names (and levels the same units)"
        )
    transforms, theirs = dict(task.transforms), dict(start.task.transforms)
    for name in sorted({channel.variable for channel in shared}):
        if transforms.get(name) != theirs.get(name):
            raise ValueError(
                f"transforms of {name!r} is {transforms.get(name)!r}, start_from has {theirs.get(name)!r}: what it "
                "learned is in these. Take the same"
            )
    if statistics == "compute":
        return statistics
    elsewhere = "compute them from the new data, TrainConfig(statistics='compute')"
    try:
        same_grid(xr.Dataset(coords={"latitude": start.latitude, "longitude": start.longitude}), grid)
    except ValueError as error:
        raise ValueError(
            f"the data are on another grid than start_from, whose statistics and mask are of its own: {error}. Regrid "
            f"(sc.regrid), or {elsewhere}"
        ) from error
    for channel in shared:
        units, trained = grid[channel.variable].attrs.get("units", ""), start.normalizer.units[before.index(channel)]
        if units and trained and not same_units(units, trained):
            factors = conversion(channel.variable, units, trained)
            words = "there is no exact way from one to the other"
            if factors is not None:
                words = f"convert it, (variable * {factors[0]:g} + {factors[1]:g}).assign_attrs(units={trained!r})"
            raise ValueError(
                f"{channel.variable} is in {units!r}, start_from was trained in {trained!r}, whose statistics are "
                f"kept: {words}; or {elsewhere}"
            )
    if statistics == "auto" and set(channels) != set(before):
        raise ValueError(
            f"the channels are {_words(channels)}, those of start_from {_words(before)}: say whose statistics hold for "
            f"those that both have ({_words(shared)}). Those of start_from, TrainConfig(statistics='inherit'), for "
            f"data like its own; or {elsewhere}"
        )
    return "inherit"


def known_statics(start: Forecaster, statistics: str) -> dict[str, np.ndarray]:
    """Return the fields without time that are taken over, by name; none on another grid."""
    if statistics == "compute":
        return {}
    return dict(zip(static_names(start.task.forcings), start.statics, strict=True))


def take_statistics(start: Forecaster, own: Normalizer, found: Statistics) -> Normalizer:
    """Return statistics of the data with those of the start in their place, for the channels that it has.

    Raises
    ------
    ValueError
        If one of the other channels cannot be trained on, as in a run without a start.
    """
    theirs = start.normalizer
    pairs = _pairs(own.channels, theirs.channels)
    new = [at for at in range(len(own.channels)) if at not in dict(pairs)]
    fields = {name: getattr(found, name)[new] for name in ("mean", "std", "mask", "low", "high")}
    fresh = dataclasses.replace(found, **fields, change_std=found.change_std[:, new])
    channels, units = [own.channels[at] for at in new], [own.units[at] for at in new]
    check_units(fresh, channels, units, own.log_scale[new])
    check_varies(fresh, channels)
    check_transforms(fresh, channels, units, own.log_scale[new], own.bounds[new])
    merged = {name: getattr(own, name).copy() for name in (*_STATISTICS, "change_std")}
    units = list(own.units)
    for at, there in pairs:
        for name in _STATISTICS:
            merged[name][at] = getattr(theirs, name)[there]
        merged["change_std"][:, at] = theirs.change_std[:, there]
        units[at] = theirs.units[there]
    return dataclasses.replace(own, units=tuple(units), **merged)


@torch.no_grad()
def take_weights(network: nn.Module, start: Forecaster, task: Task, channels: tuple[Channel, ...]) -> dict:
    """Copy the weights of the start into a new network, and return what was taken, what is new and what left out.

    With these the digest that tells the start from others.

    The weights between input and output are taken whole. Of the first convolution those that belong to an input
    (channel or forcing) of the same name, of the readout those of a channel of the same name. The others of the new
    network stay as they are, and so do its scales of change, which are statistics. A variable that was only forecast
    and now is seen too, or the other way round, is new: its output was a state and is a change, or the other way round.
    """
    own, theirs = network.state_dict(), start.network.state_dict()
    inputs, outputs = tensors.channel_names(task, channels)
    inputs_there, outputs_there = tensors.channel_names(start.task, start.normalizer.channels)
    by_input, by_channel = _pairs(inputs, inputs_there), _pairs(outputs, outputs_there)
    # what is seen and forecast comes out as a change, what is forecast alone as a state
    turned = []
    if start.network.config.predict == "change":
        turned = [n for n in outputs if n in outputs_there and (n in inputs) != (n in inputs_there)]
    by_channel = [(at, there) for at, there in by_channel if outputs[at] not in turned]
    for name, value in own.items():
        if name == "change_scale_TC":
            continue
        if name == "encoder.0.conv.weight":
            for at, there in by_input:
                value[:, at] = theirs[name][:, there]
        elif name in ("readout.weight", "readout.bias"):
            for at, there in by_channel:
                value[at] = theirs[name][there]
        else:
            value.copy_(theirs[name])
    names = list(dict.fromkeys([*inputs, *outputs]))  # of diagnostics nothing goes in
    names_there = list(dict.fromkeys([*inputs_there, *outputs_there]))
    digest = hashlib.sha256()
    for value in (*theirs.values(), *(torch.from_numpy(getattr(start.normalizer, name)) for name in _STATISTICS)):
        digest.update(value.cpu().contiguous().numpy())
    return {
        "sha256": digest.hexdigest(),
        "taken": [name for name in names if name in names_there and name not in turned],
        "new": [name for name in names if name not in names_there or name in turned],
        "left_out": [name for name in names_there if name not in names],
    }


def say(found: dict, statistics: str) -> str:
    """Return what `take_weights` found in a sentence."""
    words = [f"start_from: the weights of {', '.join(found['taken'])} are taken over"]
    words += [f"new, with fresh weights: {', '.join(found['new'])}"] if found["new"] else []
    words += [f"left out: {', '.join(found['left_out'])}"] if found["left_out"] else []
    words.append("statistics: " + {"inherit": "those of start_from", "compute": "of the new data"}[statistics])
    return "; ".join(words)


def _pairs(names: list, others: list) -> list[tuple[int, int]]:
    """Return the places of what is in both."""
    return [(at, others.index(name)) for at, name in enumerate(names) if name in others]


def _words(channels: tuple[Channel, ...]) -> str:
    return f"{[str(channel) for channel in channels]}"
