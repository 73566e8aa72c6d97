"""Fine-tuning: the model, padding, statistics and weights that a run takes from a pretrained forecaster."""

import copy
import dataclasses
import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import nn

from simvp_climate.data.grid import check_same_axis, closes_longitude, reaches_poles
from simvp_climate.data.reader import Channel
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.noise import is_of_noise
from simvp_climate.networks.shape import NetworkBuilder
from simvp_climate.networks.simvp_sphere import SimVPSphere, SimVPSphereConfig
from simvp_climate.networks.spectral import TRANSFORMS
from simvp_climate.processing import tensors
from simvp_climate.processing.tensors import ModelConfig
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.datasets import Setup

NOISE = 16  # of a network that is to be trained on the CRPS
_STATISTICS = ("mean", "std", "log_scale", "bounds", "mask")  # per channel
_COMPUTE = "compute them from the new data, TrainConfig(statistics='compute')"


def choose_model(
    model: ModelConfig | NetworkBuilder | None, pretrained: Forecaster | None
) -> ModelConfig | NetworkBuilder:
    """Return the model to train; relative to a pretrained one, `model` may change only what the grid decides.

    These are the padding and whether there are spectral blocks; besides, drop path, and noise may be added.
    """
    if pretrained is None:
        return model or SimVPSphereConfig()
    network = pretrained.network
    if tensors.is_custom(network) and model is None:
        return lambda shape: copy.deepcopy(network)
    if tensors.is_custom(network) != (model is not None and not isinstance(model, ModelConfig)):
        config = type(getattr(network, "config", None)).__name__
        kind = "a function that builds it" if tensors.is_custom(network) else f"a {config}"
        raise ValueError(f"model must be {kind}, as start_from has a {type(network).__name__}; or leave model out")
    if model is not None and not isinstance(model, ModelConfig):
        return model
    trained = network.config
    assert isinstance(trained, ModelConfig)  # for the type checker: all others are custom
    if model is None:
        return dataclasses.replace(trained, padding="auto")
    if getattr(model, "spectral_blocks", 0) is None:
        model = dataclasses.replace(model, spectral_blocks=trained.spectral_blocks)
    if type(model) is not type(trained):
        message = f"model is a {type(model).__name__}, and the network of start_from has a {type(trained).__name__}"
        raise ValueError(f"{message}: leave model out")
    differences = [
        f"{name}={value!r} (it has {getattr(trained, name)!r})"
        for name, value in dataclasses.asdict(model).items()
        if value != getattr(trained, name)
        and name not in ("padding", "drop_path")
        and (name, getattr(trained, name)) != ("noise", 0)  # it may be added
        and (name, value) != ("spectral_blocks", 0)  # they may be left out, on a regional grid
    ]
    if differences:
        fix = "change only padding (or drop_path; noise may be added): dataclasses.replace(start.network.config, ...)"
        raise ValueError(f"model is not the network of start_from: {', '.join(differences)}. Leave model out, or {fix}")
    return model


def match_noise(model: ModelConfig | NetworkBuilder, loss: str) -> ModelConfig | NetworkBuilder:
    """Return the model with the noise that the loss needs; ValueError if it cannot have noise, or would ignore it."""
    noise = model.noise if isinstance(model, ModelConfig) else 0
    if loss != "crps":
        if noise:
            message = f"the model has noise={noise}, which loss={loss!r} does not train"
            raise ValueError(f"{message}: set loss='crps', or take a model without noise")
        return model
    if not isinstance(model, ModelConfig):
        kinds = "a SimVPSphereConfig or SimVPv2Config"
        raise ValueError(f"loss='crps' needs a network with noise, {kinds}, and the model is a function")
    return model if noise else dataclasses.replace(model, noise=NOISE)


def choose_padding(
    model: ModelConfig | NetworkBuilder, pretrained: Forecaster | None, setup: Setup
) -> ModelConfig | NetworkBuilder:
    """Return the model with the padding of the grid in place of "auto" and "sphere", after checking that it fits.

    "auto" is the padding of the pretrained network if both grids, or neither, go around the globe. A network of another
    kind chooses its padding itself.
    """
    if not isinstance(model, ModelConfig):
        return model
    is_global, poles = closes_longitude(setup.longitude), reaches_poles(setup.latitude)
    south, north, west, east = *setup.latitude[[0, -1]], *setup.longitude[[0, -1]]
    if isinstance(model, SimVPSphereConfig) and not (is_global and poles != "no"):
        if model.spectral_blocks is None or (pretrained is not None and model.padding == "auto"):
            model = dataclasses.replace(model, spectral_blocks=0)  # start_network says so
        elif model.spectral_blocks and is_global:
            rule = f"needs rows from pole to pole, and these latitudes go from {south:g} to {north:g}"
            raise ValueError(f"spectral_blocks={model.spectral_blocks} {rule}: set spectral_blocks=0")
    if model.padding == "auto" and pretrained is not None and closes_longitude(pretrained.longitude) == is_global:
        model = dataclasses.replace(model, padding=pretrained.network.config.padding)
    if model.padding == "auto":
        return dataclasses.replace(model, padding="periodic" if is_global else "zeros")
    if model.padding != "zeros" and not is_global:
        rule = f"needs longitudes around the whole globe, and these {setup.longitude.size} go from {west:g} to {east:g}"
        raise ValueError(f"padding={model.padding!r} {rule}: take padding='zeros' or 'auto'")
    if model.padding.startswith("sphere") and poles == "no":
        rule = f"pads across the poles, and the latitudes from {south:g} to {north:g} do not reach both"
        raise ValueError(f"padding={model.padding!r} {rule}: take padding='periodic' or 'auto'")
    if model.padding == "sphere_with_poles" and poles != "rows":
        rule = f"needs rows on the poles, and the outermost rows are at {south:g} and {north:g}"
        raise ValueError(f"padding='sphere_with_poles' {rule}: take padding='sphere'")
    if model.padding == "sphere" and poles == "rows":
        return dataclasses.replace(model, padding="sphere_with_poles")
    return model


def choose_statistics(pretrained: Forecaster, setup: Setup, config: TrainConfig) -> TrainConfig:
    """Return the settings with "inherit" or "compute", after checking that task and data fit the forecaster."""
    channels, trained = setup.channels, pretrained.normalizer.channels
    shared = [channel for channel in channels if channel in trained]
    _check_task(pretrained, setup, shared)
    if config.statistics == "compute":
        return config
    try:
        check_same_axis("latitude", pretrained.latitude, setup.latitude)
        check_same_axis("longitude", pretrained.longitude, setup.longitude)
    except ValueError as error:
        message = f"the data are on another grid than start_from, whose statistics and mask belong to its grid: {error}"
        raise ValueError(f"{message}. Regrid (sc.regrid), or {_COMPUTE}") from error
    for channel in shared:
        units = setup.units[channels.index(channel)]
        trained_units = pretrained.normalizer.units[trained.index(channel)]
        if units and trained_units and not same_units(units, trained_units):
            fix = "there is no exact way from one to the other"
            if factors := conversion(channel.variable, units, trained_units):
                scaled = f"(variable * {factors[0]:g} + {factors[1]:g})"
                fix = f"convert it, {scaled}.assign_attrs(units={trained_units!r})"
            raise ValueError(
                f"{channel.variable} is in {units!r}, start_from was trained in {trained_units!r}, whose statistics "
                f"are kept: {fix}; or {_COMPUTE}"
            )
    if config.statistics == "auto" and set(channels) != set(trained):
        raise ValueError(
            f"the channels are {_names(channels)}, those of start_from {_names(trained)}: choose how to normalize the "
            f"shared ones ({_names(shared)}). If the data are like those of start_from, keep its statistics: "
            f"TrainConfig(statistics='inherit'). Otherwise {_COMPUTE}"
        )
    return dataclasses.replace(config, statistics="inherit")


def _check_task(pretrained: Forecaster, setup: Setup, shared: Sequence[Channel]) -> None:
    """Raise ValueError if the pretrained weights do not fit the task."""
    task, channels = setup.task, setup.channels
    for name in ("history", "step"):
        value, trained = getattr(task, name), getattr(pretrained.task, name)
        if value != trained:
            rule = f"{name}={value!r} must be {trained!r}, for which the weights of start_from were trained"
            raise ValueError(f"{rule}. Set {name}={trained!r}, or train without start_from")
    if not shared:
        raise ValueError(
            f"start_from forecasts {_names(pretrained.normalizer.channels)}, none of {_names(channels)}: there is "
            "nothing to transfer. Give variables the same names (and levels the same units)"
        )
    for name in sorted({channel.variable for channel in shared}):
        transform, trained = dict(task.transforms).get(name), dict(pretrained.task.transforms).get(name)
        if transform != trained:
            rule = f"must be {trained!r}, for which the weights of start_from were trained"
            raise ValueError(f"transforms of {name!r} is {transform!r}, but {rule}")


@torch.no_grad()
def copy_weights(network: nn.Module, pretrained: Forecaster, roles: tensors.ChannelRoles) -> dict:
    """Copy the pretrained weights into a new network; return the names of channels "taken", "new" and "left_out".

    The network predicts changes of variables that are also inputs, and states of all others: an output that has become
    an input, or is no longer one, counts as new.
    """
    weights, trained = network.state_dict(), pretrained.network.state_dict()
    inputs, outputs = roles.input_names, roles.output_names
    trained_roles = tensors.channel_roles(pretrained.task, pretrained.normalizer.channels)
    trained_inputs, trained_outputs = trained_roles.input_names, trained_roles.output_names
    redefined = [name for name in outputs if name in trained_outputs and (name in inputs) != (name in trained_inputs)]
    is_custom = tensors.is_custom(network)
    if is_custom or getattr(pretrained.network.config, "predict", "change") == "state":
        redefined = []
    for name, value in weights.items():
        if name in ("change_scale_TC", "mean_field_CHW") or (not is_custom and name.endswith(TRANSFORMS)):
            continue  # of the data and their grid
        if name not in trained and (is_of_noise(name) or "spectral_blocks" in name):
            continue  # noise has no effect until it is trained; total wavenumbers of a finer grid are new
        if is_custom:
            value.copy_(trained[name])
        elif name == "encoder.0.conv.weight":
            for index, source in _matches(inputs, trained_inputs):
                value[:, index] = trained[name][:, source]
        elif name in ("encoder.weight", "skip.weight"):  # of a SimVPSphere: by channel, then time
            new, old = value.unflatten(1, (len(inputs), -1)), trained[name].unflatten(1, (len(trained_inputs), -1))
            for index, source in _matches(inputs, trained_inputs):
                new[:, index] = old[:, source]
        elif name in ("readout.weight", "readout.bias"):
            new, old = value.unflatten(0, (len(outputs), -1)), trained[name].unflatten(0, (len(trained_outputs), -1))
            for index, source in _matches(outputs, trained_outputs):
                if outputs[index] not in redefined:
                    new[index] = old[source]
        elif name == "position_Dhw" and value.shape != trained[name].shape:  # on another grid
            value.copy_(F.interpolate(trained[name][None], value.shape[1:], mode="bilinear")[0])
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


def check_custom(network: nn.Module, pretrained: Forecaster, setup: Setup) -> None:
    """Raise ValueError if a network of another kind cannot take over all pretrained weights as they are."""
    trained_roles = tensors.channel_roles(pretrained.task, pretrained.normalizer.channels)
    for name in ("input_names", "output_names"):
        names, trained_names = getattr(setup.roles, name), getattr(trained_roles, name)
        if names != trained_names:
            rule = f"must be those of start_from, {trained_names}: its {type(network).__name__} is taken over whole"
            raise ValueError(f"the {name.removesuffix('_names')} channels {names} {rule}")
    sizes, trained = ({key: tuple(v.shape) for key, v in n.state_dict().items()} for n in (network, pretrained.network))
    if different := sorted(key for key in sizes | trained if sizes.get(key) != trained.get(key)):
        now, before = (each.get(different[0], "no such weight") for each in (sizes, trained))
        message = f"the weight {different[0]!r} has another shape than in start_from ({now}, was {before})"
        raise ValueError(f"{message}: give a model that builds the same network")


def start_network(
    network: nn.Module, pretrained: Forecaster, roles: tensors.ChannelRoles, config: TrainConfig, fabric: Fabric
) -> dict:
    """Copy the pretrained weights, print which channels are new or left out, and return a record for provenance."""
    copied = copy_weights(network, pretrained, roles)
    if config.statistics == "inherit" and isinstance(network, SimVPSphere):
        trained_roles = tensors.channel_roles(pretrained.task, pretrained.normalizer.channels)
        names, trained_names = roles.input_names[: network.channels], trained_roles.input_names
        # without forcings: one may have become a variable
        for index, source in _matches(names, trained_names[: pretrained.network.channels]):
            network.mean_field_CHW[index] = pretrained.network.mean_field_CHW[source]
    before, now = (getattr(getattr(n, "config", None), "spectral_blocks", 0) for n in (pretrained.network, network))
    lost = before - now
    if copied["new"] or copied["left_out"] or lost or config.statistics == "compute":
        clauses = [f"start_from: copied the weights of {', '.join(copied['taken'])}"]
        clauses += [f"new, with random weights: {', '.join(copied['new'])}"] if copied["new"] else []
        clauses += [f"left out: {', '.join(copied['left_out'])}"] if copied["left_out"] else []
        clauses += [f"left out: spectral blocks ({lost}), which need a grid around the globe"] if lost else []
        whose = {"inherit": "those of start_from", "compute": "of the new data"}[config.statistics]
        fabric.print("; ".join([*clauses, f"statistics: {whose}"]))
    # the provenance of the pretrained forecaster without its training curve
    parent = {name: value for name, value in pretrained.provenance.items() if name != "epochs"}
    return {**copied, "provenance": parent}


def _matches(names: Sequence, others: Sequence) -> list[tuple[int, int]]:
    """Return for each name in both lists its index in the first and in the second."""
    return [(index, others.index(name)) for index, name in enumerate(names) if name in others]


def _names(channels: Sequence[Channel]) -> str:
    return f"{[str(channel) for channel in channels]}"
