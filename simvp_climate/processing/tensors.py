"""Tensors from Datasets: channels of a task, forcings, normalization on the device, and the network.

Shape suffixes: C channel, H latitude, W longitude; B window of a batch, T time of a window; F forcing; N different
times of a batch.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from simvp_climate.data import reader
from simvp_climate.data.windows import parse_step, shift
from simvp_climate.networks.shape import NetworkBuilder, NetworkShape
from simvp_climate.networks.simvp_sphere import SimVPSphere, SimVPSphereConfig
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config
from simvp_climate.processing import forcings
from simvp_climate.processing.statistics import Normalizer, Statistics
from simvp_climate.processing.task import Task

ModelConfig = SimVPv2Config | SimVPSphereConfig  # the settings of the networks of this package


def choose_device(device: str) -> str:
    """Return the requested device, for "auto" a GPU if there is one, else "cpu"; ValueError if it is not available."""
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, is_available in devices.items() if is_available]
    if device == "auto":
        return available[0]
    if device not in available:
        raise ValueError(f"device={device!r} is not available. Choose 'auto' or one of {available}.")
    return device


def choose_compile(compile: bool | str, device: str) -> bool:
    """Return whether to compile networks on a device; "auto": on CUDA, with a warning where it does not work.

    RuntimeError if `compile` is True where it does not work; ValueError if it is neither "auto", True nor False.
    """
    if compile != "auto" and not isinstance(compile, bool):
        raise ValueError(f"compile={compile!r} must be 'auto', True or False.")
    if not compile or (compile == "auto" and device != "cuda"):
        return False
    if (reason := _compiler_error(device)) is None:
        # torch's own code reads this attribute when it compiles a later call of a rollout
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        return True
    message = f"torch.compile does not work with device={device!r} here ({reason})."
    fix = "Install a C++ compiler, and triton for a GPU"
    if compile is True:
        raise RuntimeError(f"{message} {fix}, or set compile=False.")
    warnings.warn(f"{message} The network runs without, more slowly. {fix}.", stacklevel=3)
    return False


@cache
def _compiler_error(device: str) -> str | None:
    """Return why torch cannot compile for a device, or None; it looks for its compilers only when it compiles."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own code
            torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # of many types, by version and backend
        return str(error).strip().splitlines()[0]
    return None


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Return values on a device, without waiting for what a GPU still has to do."""
    tensor = torch.from_numpy(values)
    # from other than pinned memory, the host waits until the GPU has copied
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Forcings:
    """The forcings of each input state: static fields, and varying ones at its own time and `history` steps later."""

    def __init__(
        self,
        task: Task,
        latitude: np.ndarray,
        longitude: np.ndarray,
        statics: np.ndarray,  # the static fields of `task.forcings` in order, (field, H, W), in their own units
        weights: np.ndarray,  # area weights with mean one, (H,)
        device: torch.device,
    ):
        self.task, self.latitude, self.device = task, latitude, device
        varying = forcings.varying_channels(task.forcings)
        self.varying_count = len(varying)
        self.clipped_channels = [index for index, name in enumerate(varying) if name == "insolation"]
        fields = [np.empty((0, len(latitude), len(longitude)))]
        if "coordinates" in task.forcings:
            fields.append(forcings.coordinate_fields(latitude, longitude))
        if len(statics):
            # normalize each field with its area-weighted mean and standard deviation; a constant field becomes 0
            mean = (statics * weights[:, None]).mean(axis=(1, 2), keepdims=True)
            deviation = np.sqrt(((statics - mean) ** 2 * weights[:, None]).mean(axis=(1, 2), keepdims=True))
            fields.append((statics - mean) / np.maximum(deviation, 1e-12))
        self.static_FHW = torch.as_tensor(np.concatenate(fields), dtype=torch.float32, device=device)
        # the basis of the harmonics in longitude, see processing.forcings
        radians = np.deg2rad(longitude)
        basis = np.stack([np.ones_like(radians), np.cos(radians), np.sin(radians)])
        self.basis_3W = torch.as_tensor(basis, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        """Return the number of forcing channels."""
        return 2 * self.varying_count + len(self.static_FHW)

    def __call__(self, init_times: pd.Index, horizon: int) -> Tensor | None:
        """Return the forcings of the input states of all network calls, (B, T, F, H, W), or None without forcings."""
        if not len(self):
            return None
        history = self.task.history
        states = math.ceil(horizon / history) * history
        channels = []
        if self.varying_count:
            steps = range(1 - history, states + 1)
            times = [shift(init_times, self.task.step, step) for step in steps]
            # windows overlap: compute each time once
            unique, inverse = np.unique(np.stack([np.asarray(index) for index in times], axis=1), return_inverse=True)
            names, step = self.task.forcings, parse_step(self.task.step)
            coefficients = forcings.longitude_harmonics(names, type(init_times)(unique), self.latitude, step)
            fields_NFHW = to_device(coefficients, self.device) @ self.basis_3W
            for channel in self.clipped_channels:
                fields_NFHW[:, channel].clamp_(min=0)
            fields_BTFHW = fields_NFHW[to_device(inverse.reshape(len(init_times), -1), self.device)]
            channels = [fields_BTFHW[:, :states], fields_BTFHW[:, history:]]
        if len(self.static_FHW):
            channels.append(self.static_FHW.expand(len(init_times), states, *self.static_FHW.shape))
        return torch.cat(channels, dim=2)


def add_prescribed(f_BTFHW: Tensor | None, p_BTCHW: Tensor, history: int, horizon: int) -> Tensor | None:
    """Return the forcings of the input states of all calls, with prescribed channels after those of `Forcings`.

    `p_BTCHW` are normalized, from the first input state to the last lead. States that a call emits beyond the last lead
    get the values of the last lead: they are never returned.
    """
    if not p_BTCHW.shape[2]:
        return f_BTFHW
    states = math.ceil(horizon / history) * history
    beyond = history + states - p_BTCHW.shape[1]
    if beyond > 0:
        p_BTCHW = torch.cat([p_BTCHW, p_BTCHW[:, -1:].expand(-1, beyond, -1, -1, -1)], dim=1)
    channels = [p_BTCHW[:, :states], p_BTCHW[:, history : history + states]]
    return torch.cat(channels if f_BTFHW is None else [f_BTFHW, *channels], dim=2)


@dataclass(frozen=True)
class ChannelRoles:
    """Which channels of the states are inputs and outputs of the network, and its forcings."""

    input_channels: list[int]  # indices in the states; both lists begin with the shared channels
    output_channels: list[int]
    shared_count: int  # channels that are both
    prescribed_channels: list[int]  # indices in the states; among the forcings
    forcings: list[str]  # names of the forcing channels
    input_names: list[str]  # names of the network's input channels, forcings included
    output_names: list[str]


def channel_roles(task: Task, channels: Sequence[reader.Channel]) -> ChannelRoles:
    """Return the roles of channels that are in the order of `task.all_variables`."""

    def positions(variables: Sequence[str]) -> list[int]:
        return [index for index, channel in enumerate(channels) if channel.variable in variables]

    shared, prescribed, forcing_channels = positions(task.variables), positions(task.prescribed), forcing_names(task)
    names = [str(channels[index]) for index in prescribed]
    forcing_channels += [*names, *(f"{name}_at_output" for name in names)]
    inputs, outputs = shared + positions(task.inputs), shared + positions(task.diagnostics)
    input_names = [*(str(channels[index]) for index in inputs), *forcing_channels]
    output_names = [str(channels[index]) for index in outputs]
    return ChannelRoles(inputs, outputs, len(shared), prescribed, forcing_channels, input_names, output_names)


def network_shape(task: Task, roles: ChannelRoles, grid: tuple[int, int]) -> NetworkShape:
    """Return the sizes of a network for a task, with these channels, on a grid (rows, columns)."""
    inputs, outputs = len(roles.input_channels), len(roles.output_channels)
    return NetworkShape(task.history, inputs, len(roles.forcings), outputs, roles.shared_count, grid)


def build_network(
    model: ModelConfig | NetworkBuilder, shape: NetworkShape, normalizer: Normalizer | None = None,
    mean_field_CHW: Tensor | None = None,
) -> nn.Module:  # fmt: skip
    """Return a network with random weights; a normalizer sets the scale of its predicted changes.

    `mean_field_CHW` is the mean state of training, normalized, for networks that take anomalies from it.

    It has the sizes of `shape` but the grid as attributes. ValueError if a function returns no such network.
    """
    if isinstance(model, SimVPv2Config):
        network: nn.Module = SimVPv2(model, **dataclasses.asdict(shape))
    elif isinstance(model, SimVPSphereConfig):
        network = SimVPSphere(model, shape)
    else:
        network = _build_custom(model, shape)
    scale_TC = dict(network.named_buffers(recurse=False)).get("change_scale_TC")
    if scale_TC is not None and tuple(scale_TC.shape) != (expected := (shape.history, shape.shared_channels)):
        message = f"the buffer change_scale_TC has the shape {tuple(scale_TC.shape)}"
        raise ValueError(f"{message} and must have {expected}, (history, shared_channels)")
    if is_custom(network):
        _check_output(network, shape)
    if scale_TC is not None and normalizer is not None:
        typical_TC = torch.from_numpy(normalizer.change_std / normalizer.std)
        scale_TC.copy_(typical_TC[:, : shape.shared_channels])
    if isinstance(network, SimVPSphere) and mean_field_CHW is not None:
        network.mean_field_CHW.copy_(mean_field_CHW)
    return network


def normalized_mean_field(statistics: Statistics, normalizer: Normalizer, roles: ChannelRoles) -> Tensor:
    """Return the mean state of training in the input channels, normalized, 0 in masked cells, (C, H, W)."""
    field_CHW = (statistics.mean_field - normalizer.mean[:, None, None]) / normalizer.std[:, None, None]
    return torch.from_numpy(np.where(normalizer.mask, 0, field_CHW)[roles.input_channels])


def _build_custom(builder: NetworkBuilder, shape: NetworkShape) -> nn.Module:
    """Return the network of a function, with the sizes of its shape as attributes."""
    if isinstance(builder, nn.Module):
        name = type(builder).__name__
        message = f"the network is a {name}, but must be a function that builds it from a NetworkShape"
        raise ValueError(f"{message}: lambda shape: {name}(...)")
    network = builder(shape)
    if not isinstance(network, nn.Module):
        message = f"the function that builds the network returned a {type(network).__name__}"
        raise ValueError(f"{message}, but must return a torch.nn.Module")
    name = type(network).__name__
    sizes = {name: size for name, size in dataclasses.asdict(shape).items() if name != "grid"}
    for attribute, size in sizes.items():
        value = getattr(network, attribute, None)
        if value is None:
            setattr(network, attribute, size)
        elif type(value) is not int or value != size:
            shown = f"a {type(value).__name__}" if isinstance(value, nn.Module) else repr(value)
            message = f"the attribute {attribute!r} of {name} is {shown}, but is reserved for the size {size}"
            raise ValueError(f"{message}: rename it, or build the network for the sizes of its NetworkShape")
    network.is_custom = True  # type: ignore[assignment]
    return network


@torch.no_grad()
def _check_output(network: nn.Module, shape: NetworkShape) -> None:
    """Raise ValueError if a network has no weights or returns another shape than its contract says."""
    name, parameter = type(network).__name__, next(network.parameters(), None)
    if parameter is None:
        raise ValueError(f"{name} has no parameters to train")
    training = network.training
    network.eval()  # statistics of batch norms stay as they are
    batch = 2  # an output without a batch dimension cannot be taken for one
    inputs = [torch.zeros(batch, shape.history, shape.channels, *shape.grid, device=parameter.device)]
    if shape.forcings:
        inputs.append(torch.zeros(batch, shape.history, shape.forcings, *shape.grid, device=parameter.device))
    output = network(*inputs)
    network.train(training)
    expected = (batch, shape.history, shape.output_channels, *shape.grid)
    returned = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if returned != expected:
        message = f"{name} must return states of the shape {expected}, (batch, history, output_channels, rows, columns)"
        raise ValueError(f"{message}, and returned {returned} for an input of the shape {tuple(inputs[0].shape)}")


def is_custom(network: nn.Module) -> bool:
    """Return whether a function of the user has built a network, whose code is not part of this package."""
    return bool(getattr(network, "is_custom", False))


def describe_network(network: Any) -> dict:
    """Return the settings of a network, for one of another kind the name of its class and its number of parameters."""
    if is_custom(network):
        name = f"{type(network).__module__}.{type(network).__qualname__}"
        return {"network": name, "parameters": sum(value.numel() for value in network.parameters())}
    settings = dataclasses.asdict(network.config)
    for name in ("noise", "spectral_blocks"):
        if settings.get(name) == 0:  # files of earlier versions lack it, and the digest of a forecaster must not change
            del settings[name]
    # files of earlier versions name no type
    return settings if isinstance(network.config, SimVPv2Config) else {"type": type(network).__name__, **settings}


def to_channels_last(network: nn.Module) -> None:
    """Store the weights of convolutions in the order in memory that is faster."""
    if is_custom(network):  # of its weights only those whose order cannot matter to its code
        nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
    else:
        network.to(memory_format=torch.channels_last)


def forcing_names(task: Task) -> list[str]:
    """Return the names of the channels of `Forcings`, in order. Forecaster files store them: do not change them."""
    varying = forcings.varying_channels(task.forcings)
    names = [f"{name}{suffix}" for suffix in ("", "_at_output") for name in varying]
    names += forcings.COORDINATE_CHANNELS if "coordinates" in task.forcings else ()
    return [*names, *forcings.static_names(task.forcings)]


class Scale:
    """Normalizes states, (x - mean) / std of x or log(1 + x / log_scale), 0 in masked cells; denormalizes forecasts."""

    def __init__(self, normalizer: Normalizer, device: torch.device):
        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        self.mean_C11 = tensor(normalizer.mean)[:, None, None]
        self.std_C11 = tensor(normalizer.std)[:, None, None]
        self.mask_CHW = torch.as_tensor(normalizer.mask, device=device) if normalizer.mask.any() else None
        log_channels = np.flatnonzero(normalizer.log_scale)
        self.log_scales = [(int(channel), float(normalizer.log_scale[channel])) for channel in log_channels]
        bounded = np.isfinite(normalizer.bounds).any()
        self.bounds_2C11 = tensor(normalizer.bounds.T)[:, :, None, None] if bounded else None

    def normalize(self, x_BTCHW: Tensor) -> Tensor:
        """Return normalized states from physical units, with 0 in masked cells."""
        x_BTCHW = self.normalize_unmasked(x_BTCHW)
        return x_BTCHW if self.mask_CHW is None else x_BTCHW.masked_fill(self.mask_CHW, 0)

    def normalize_unmasked(self, x_CHW: Tensor) -> Tensor:
        """Return normalized values, (..., C, H, W), from physical units, without masking."""
        if self.log_scales:
            x_CHW = x_CHW.clone()
            for channel, scale in self.log_scales:
                x_CHW[..., channel, :, :] = torch.log1p(x_CHW[..., channel, :, :].clamp(min=0) / scale)
        return (x_CHW - self.mean_C11) / self.std_C11

    def constrain(self, y_BTCHW: Tensor) -> Tensor:
        """Return normalized forecasts within the bounds, with 0 in masked cells, as the network's next input."""
        if self.bounds_2C11 is not None:
            low_C11, high_C11 = (self.normalize_unmasked(bound_C11) for bound_C11 in self.bounds_2C11)
            y_BTCHW = torch.clamp(y_BTCHW, low_C11, high_C11)
        return y_BTCHW if self.mask_CHW is None else y_BTCHW.masked_fill(self.mask_CHW, 0)

    def denormalize(self, y_BTCHW: Tensor) -> Tensor:
        """Return forecasts in physical units from normalized ones, within the bounds, with NaN in masked cells."""
        y_BTCHW = y_BTCHW * self.std_C11 + self.mean_C11
        for channel, scale in self.log_scales:
            y_BTCHW[:, :, channel] = torch.expm1(y_BTCHW[:, :, channel]) * scale
        if self.bounds_2C11 is not None:
            y_BTCHW = torch.clamp(y_BTCHW, self.bounds_2C11[0], self.bounds_2C11[1])
        return y_BTCHW if self.mask_CHW is None else y_BTCHW.masked_fill(self.mask_CHW, torch.nan)
