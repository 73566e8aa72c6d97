"""The network of a run and what it takes from a pretrained forecaster, channel by channel, by name."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from simvp_climate.data.grid import check_same_axis, closes_longitude
from simvp_climate.data.reader import Channel
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing import tensors
from simvp_climate.processing.forcings import static_names
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.datasets import Setup

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


def choose_padding(model: SimVPv2Config, pretrained: Forecaster | None, setup: Setup) -> SimVPv2Config:
    """Return the model with the padding that "auto" stands for, and "sphere" with poles where the grid has them.

    "auto" is the padding of the pretrained network if both grids, or neither, go around the globe; else it follows
    from the grid.

    Raises
    ------
    ValueError
        If the grid does not continue where the padding assumes it.
    """
    latitude, longitude, is_global, poles = setup.latitude, setup.longitude, setup.is_global, setup.poles
    if model.padding == "auto" and pretrained is not None and closes_longitude(pretrained.longitude) == is_global:
        model = dataclasses.replace(model, padding=pretrained.network.config.padding)
    if model.padding == "auto":
        return dataclasses.replace(model, padding="periodic" if is_global else "zeros")
    if model.padding != "zeros" and not is_global:
        raise ValueError(
            f"padding={model.padding!r} needs longitudes around the whole globe, and these {longitude.size} go from "
            f"{longitude[0]:g} to {longitude[-1]:g}: take padding='zeros' or 'auto'"
        )
    if model.padding.startswith("sphere") and poles == "no":
        raise ValueError(
            f"padding={model.padding!r} pads across the poles, and the latitudes from {latitude[0]:g} to "
            f"{latitude[-1]:g} do not reach both: take padding='periodic' or 'auto'"
        )
    if model.padding == "sphere_with_poles" and poles != "rows":
        raise ValueError(
            f"padding='sphere_with_poles' needs rows on the poles, and the outermost rows are at {latitude[0]:g} and "
            f"{latitude[-1]:g}: take padding='sphere'"
        )
    if model.padding == "sphere" and poles == "rows":
        return dataclasses.replace(model, padding="sphere_with_poles")
    return model


def choose_statistics(pretrained: Forecaster, setup: Setup, config: TrainConfig) -> TrainConfig:
    """Return the settings with "inherit" or "compute", after checking that task and data fit the forecaster.

    Raises
    ------
    ValueError
        If history, step or transforms differ, no channel is shared, the pretrained statistics cannot normalize these
        data, or "auto" leaves open whose statistics to use.
    """
    channels, trained = setup.channels, pretrained.normalizer.channels
    shared = [channel for channel in channels if channel in trained]
    _check_task(pretrained, setup, shared)
    if config.statistics == "compute":
        return config
    try:
        check_same_axis("latitude", pretrained.latitude, setup.latitude)
        check_same_axis("longitude", pretrained.longitude, setup.longitude)
    except ValueError as error:
        raise ValueError(
            f"the data are on another grid than start_from, whose statistics and mask belong to its grid: {error}. "
            f"Regrid (sc.regrid), or {_COMPUTE}"
        ) from error
    for channel in shared:
        units = setup.units[channels.index(channel)]
        trained_units = pretrained.normalizer.units[trained.index(channel)]
        if units and trained_units and not same_units(units, trained_units):
            raise ValueError(
                f"{channel.variable} is in {units!r}, start_from was trained in {trained_units!r}, whose statistics "
                f"are kept: {_conversion(channel.variable, units, trained_units)}; or {_COMPUTE}"
            )
    if config.statistics == "auto" and set(channels) != set(trained):
        raise ValueError(
            f"the channels are {_names(channels)}, those of start_from {_names(trained)}: choose the statistics of "
            f"the shared ones ({_names(shared)}). TrainConfig(statistics='inherit') suits data like its own; or "
            f"{_COMPUTE}"
        )
    return dataclasses.replace(config, statistics="inherit")


def _check_task(pretrained: Forecaster, setup: Setup, shared: Sequence[Channel]) -> None:
    """Raise ValueError if the pretrained weights do not fit the task."""
    task, channels = setup.task, setup.channels
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


@torch.no_grad()
def copy_weights(network: nn.Module, pretrained: Forecaster, roles: tensors.ChannelRoles) -> dict:
    """Copy the pretrained weights into a new network; return the names of channels taken, new and left out.

    The weights between input and output are copied whole. Weights of the first convolution are copied for inputs
    (channels or forcings) of the same name, weights of the readout for outputs of the same name. All others stay as
    they are, and so do the scales of change, which are statistics. A variable that was an output alone and is now an
    input too, or the reverse, counts as new: the network predicts states of variables that are outputs alone, and
    changes of those that are also inputs.

    Returns
    -------
    dict
        "taken", "new" and "left_out", lists of names, and "sha256" of the pretrained weights and statistics.
    """
    weights, trained = network.state_dict(), pretrained.network.state_dict()
    inputs, outputs = roles.input_names, roles.output_names
    trained_roles = tensors.channel_roles(pretrained.task, pretrained.normalizer.channels)
    trained_inputs, trained_outputs = trained_roles.input_names, trained_roles.output_names
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


def start_network(
    network: nn.Module, pretrained: Forecaster, roles: tensors.ChannelRoles, config: TrainConfig, fabric: Fabric
) -> dict:
    """Copy the pretrained weights, print what does not start from them, and return the record for the provenance."""
    copied = copy_weights(network, pretrained, roles)
    if copied["new"] or copied["left_out"] or config.statistics == "compute":
        fabric.print(_summary(copied, config.statistics))
    # the provenance of the pretrained forecaster without its training curve
    parent = {name: value for name, value in pretrained.provenance.items() if name != "epochs"}
    return {**copied, "provenance": parent}


def _summary(copied: dict, statistics: str) -> str:
    """Return a sentence on what `copy_weights` copied, and on whose statistics hold."""
    clauses = [f"start_from: copied the weights of {', '.join(copied['taken'])}"]
    clauses += [f"new, with random weights: {', '.join(copied['new'])}"] if copied["new"] else []
    clauses += [f"left out: {', '.join(copied['left_out'])}"] if copied["left_out"] else []
    clauses.append("statistics: " + {"inherit": "those of start_from", "compute": "of the new data"}[statistics])
    return "; ".join(clauses)


def _matches(names: Sequence, others: Sequence) -> list[tuple[int, int]]:
    """Return the index in both of each name that both have."""
    return [(index, others.index(name)) for index, name in enumerate(names) if name in others]


def _names(channels: Sequence[Channel]) -> str:
    return f"{[str(channel) for channel in channels]}"
