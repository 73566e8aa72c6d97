"""Read and write the file of a forecaster: tensors and a JSON header under one checksum. Reading runs no code.

The safetensors file has the metadata `format`, `version` (of the package), `forecaster` (the header) and `sha256`, of
all other metadata and all tensors. Formats: 1 lacks masks, transforms, bounds and forcings; 2 lacks the checksum; 3
lacks the extremes of training; 4 lacks the climatology, which a file may lack in every format.
"""

import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from simvp_climate.data.files import write_atomically
from simvp_climate.data.harmonics import NAMES
from simvp_climate.data.reader import Channel
from simvp_climate.networks.shape import NetworkBuilder
from simvp_climate.networks.simvp_sphere import SimVPSphereConfig
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing.climatology import Harmonics
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.processing.tensors import (
    ModelConfig,
    build_network,
    channel_roles,
    describe_network,
    is_custom,
    network_shape,
    to_channels_last,
)

# Defaults for settings that older files lack. Add every new setting here.
LEGACY_DEFAULTS = {
    "task": {"forcings": (), "transforms": (), "inputs": (), "diagnostics": (), "prescribed": ()},
    "model": {"noise": 0, "spectral_blocks": 0},
}
_FORMAT_NAME, FORMAT = "simvp_climate forecaster", 5
_USE_A_COPY = "Use another copy of the file."
_FIELDS = ("latitude", "longitude", "statics")
_STATISTICS = ("mean", "std", "change_std", "mask", "log_scale", "bounds", "extremes")
# tensors that older formats lack, by the format that has them first
_NEW_IN = {"mask": 2, "log_scale": 2, "bounds": 2, "statics": 2, "extremes": 4, "climatology": 5}
_CONVENTIONS = {  # of the tensors, for programs that read the file without this package
    "states": "(batch, time, channel, latitude, longitude), latitude and longitude ascending, in degrees",
    "history": "input states, one step apart, the last one at the initialization; the first lead is one step later",
    "normalized": "(x - mean) / std; of log(1 + max(x, 0) / log_scale) where log_scale > 0; 0 where mask",
    "bounds": "forecasts are clamped to them, in units; forecasts have no value where mask",
    "statics": "static fields, in their own units; the network gets (x - area mean) / area-weighted standard deviation",
    "climatology": "coefficients of 1, cos y, sin y, cos 2y, sin 2y, cos 3y, sin 3y, cos d, sin d, in units; y is 2 pi "
    "times the elapsed fraction of the year, d that of the day (UTC)",
    "forcings": "channels after those of the state; at_output: at the time of the output state in the same position",
}


class FileContent(NamedTuple):
    """The content of a file before it is checked."""

    format: int
    version: str  # of the package that wrote the file; "unknown" before format 3
    header: dict
    tensors: dict[str, Tensor]


# `forecaster: Any` is a Forecaster: its module imports this one


def save(path: Path, forecaster: Any) -> None:
    """Write a forecaster to a file; raise FileExistsError if `path` exists and is not a forecaster."""
    if path.exists() and not is_forecaster(path):
        message = f"{str(path)!r} exists and is not a forecaster of simvp_climate: nothing was overwritten."
        raise FileExistsError(f"{message} Choose another path.")
    tensors = {f"network.{name}": weight for name, weight in forecaster.network.state_dict().items()}
    tensors |= {name: torch.tensor(np.asarray(array)) for name, array in _arrays(forecaster).items()}
    if forecaster.harmonics is not None:
        tensors["climatology"] = torch.from_numpy(forecaster.harmonics.coefficients)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if is_custom(forecaster.network):  # some of its weights may be one tensor under two names
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    header = {
        "task": _describe_task(forecaster.task),
        "model": describe_network(forecaster.network),
        "channels": [[channel.variable, channel.level] for channel in forecaster.normalizer.channels],
        "units": forecaster.normalizer.units,
        "forcings": channel_roles(forecaster.task, forecaster.normalizer.channels).forcings,
        "conventions": _CONVENTIONS,
        "provenance": forecaster.provenance,
    }
    if (harmonics := forecaster.harmonics) is not None:
        header["climatology"] = {"start": harmonics.start, "end": harmonics.end, "months": harmonics.months}
    metadata = {"format": f"{_FORMAT_NAME} {FORMAT}", "version": version("simvp-climate")}
    metadata["forecaster"] = json.dumps(header)
    metadata["sha256"] = _checksum(metadata, tensors)
    file_bytes = safetensors.torch.save(tensors, metadata)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(file_bytes))


def load(path: Path, device: str, builder: NetworkBuilder | None = None) -> dict[str, Any]:
    """Return the fields of the Forecaster in a file, its network on a device; errors are those of `Forecaster.load`."""
    content = _read(path)
    custom = _custom_network(content)
    if custom is not None and builder is None:
        message = f"the network of {str(path)!r} is a {custom}, and the file has only its weights"
        raise ValueError(f"{message}. Pass the function that builds it: Forecaster.load(path, network=...)")
    if custom is None and builder is not None:
        message = f"network would be ignored: the network of {str(path)!r} is one of this package"
        raise ValueError(f"{message}. Leave network out.")
    try:
        return _assemble(content, device, builder)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        message = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{str(path)!r} is not a usable forecaster: {message}") from error


def _custom_network(content: FileContent) -> str | None:
    """Return the name of the class of a network that is not part of this package, else None."""
    model = content.header.get("model")
    return str(model["network"]) if isinstance(model, dict) and "network" in model else None


def content_digest(forecaster: Any) -> str:
    """Return the SHA-256 of everything that determines the forecasts, in hexadecimal."""
    network, normalizer = forecaster.network, forecaster.normalizer
    header = {"task": _describe_task(forecaster.task), "model": describe_network(network)}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(json.dumps([str(c) for c in normalizer.channels] + list(normalizer.units)).encode())
    for name, array in _arrays(forecaster).items():
        if name != "extremes":  # they refuse states, but change no forecast, and older files lack them
            digest.update(np.ascontiguousarray(array).tobytes())
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _describe_task(task: Task) -> dict:
    """Return the settings of a task without `prescribed` if it is empty: files of earlier versions lack it."""
    settings = dataclasses.asdict(task)
    if not task.prescribed:
        del settings["prescribed"]
    return settings


def _arrays(forecaster: Any) -> dict[str, np.ndarray]:
    """Return statistics, grid and static fields; files and digests store them under these names, in this order."""
    statistics = {name: getattr(forecaster.normalizer, name) for name in _STATISTICS}
    return statistics | {name: getattr(forecaster, name) for name in _FIELDS}


def is_forecaster(path: Path) -> bool:
    """Return whether `path` is a forecaster file of any format; it may be damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format", "").startswith(_FORMAT_NAME)
    except (safetensors.SafetensorError, OSError):
        return False


def _read(path: Path) -> FileContent:
    """Return the content of a file; ValueError if it is not a forecaster, of a newer format, cut short or damaged."""
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            file_format = _check_format(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (safetensors.SafetensorError, OSError) as error:
        message = f"{str(path)!r} is not a forecaster saved by simvp_climate, or is cut short or damaged ({error})."
        raise ValueError(f"{message} {_USE_A_COPY}") from error
    # an edit must not escape the checksum by claiming an older format
    needs_checksum = file_format >= 3 or "version" in metadata or '"conventions"' in metadata.get("forecaster", "")
    if "sha256" not in metadata and needs_checksum:
        raise ValueError(f"{str(path)!r} has no checksum, which files of format 3 must have. {_USE_A_COPY}")
    if "sha256" in metadata and metadata["sha256"] != _checksum(metadata, tensors):
        raise ValueError(f"{str(path)!r} is damaged or was edited: it does not match its checksum. {_USE_A_COPY}")
    try:
        header = json.loads(metadata["forecaster"])
        if not isinstance(header, dict):
            raise ValueError(f"it is a {type(header).__name__}")
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is damaged: its header cannot be read ({error!r}). {_USE_A_COPY}") from error
    return FileContent(file_format, metadata.get("version", "unknown"), header, tensors)


def _check_format(path: Path, metadata: dict[str, str]) -> int:
    """Return the format of a file; raise ValueError if it is not a forecaster or newer than this package."""
    name, _, digits = metadata.get("format", "").rpartition(" ")
    if name != _FORMAT_NAME or not digits.isdecimal():
        found_format = f"its metadata has the format {metadata.get('format')!r}"
        raise ValueError(f"{str(path)!r} is not a forecaster saved by simvp_climate: {found_format}.")
    if int(digits) < 1:
        raise ValueError(f"{str(path)!r} has format {digits}, but formats start at 1. {_USE_A_COPY}")
    if int(digits) > FORMAT:
        raise ValueError(
            f"{str(path)!r} was written by a newer simvp_climate ({metadata.get('version', 'unknown')}, format "
            f"{digits}); {version('simvp-climate')} reads formats up to {FORMAT}. pip install --upgrade simvp-climate"
        )
    return int(digits)


def _checksum(metadata: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over metadata and tensors, in hexadecimal."""
    names = sorted(tensors)
    layout = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    others = sorted((key, value) for key, value in metadata.items() if key != "sha256")
    digest = hashlib.sha256(json.dumps([others, layout]).encode())
    for name in names:
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _assemble(content: FileContent, device: str, builder: NetworkBuilder | None) -> dict[str, Any]:
    """Return the fields of a forecaster; ValueError, KeyError or TypeError if header and tensors do not match."""
    header, arrays = content.header, dict(content.tensors)
    task = Task(**_settings(content, "task", Task))
    model = _read_model(content) if builder is None else builder
    channels = tuple(Channel(*channel) for channel in header["channels"])
    units = tuple(header["units"])
    shape = (len(channels), arrays["latitude"].numel(), arrays["longitude"].numel())
    for name in arrays:
        is_known = name in (*_STATISTICS, *_FIELDS, "climatology") or name.startswith("network.")
        if not is_known or _NEW_IN.get(name, 1) > content.format:
            raise ValueError(f"format {content.format} has no tensor {name!r}")
    if isinstance(header["units"], str) or not all(
        isinstance(text, str) for text in (*units, *(c.variable for c in channels))
    ):
        raise ValueError(f"its units {header['units']!r} and the variables of its channels must be lists of text")
    levels = [channel.level for channel in channels if channel.level is not None]
    if not all(isinstance(level, int | float) and np.isfinite(level) for level in levels):
        raise ValueError(f"the levels of its channels, {levels}, must be numbers")
    provenance = header["provenance"]
    if not isinstance(provenance, dict) or not isinstance(provenance.get("training"), str):
        raise ValueError("its provenance must name the training period, as 'training'")
    unbounded = torch.tensor([-np.inf, np.inf], dtype=torch.float64).repeat(len(channels), 1)
    if content.format == 1:
        arrays |= {"mask": torch.zeros(shape, dtype=torch.bool), "log_scale": torch.zeros(len(channels)).double()}
        arrays |= {"bounds": unbounded, "statics": torch.empty(0, *shape[1:])}
    if content.format < 4:
        arrays["extremes"] = unbounded
    names = channel_roles(task, channels).forcings
    if content.format >= 3 and header["forcings"] != names:
        raise ValueError(f"its network has the forcings {header['forcings']}, its task {names}")
    names = list(task.all_variables)
    if list(dict.fromkeys(c.variable for c in channels)) != names or len(set(channels)) < len(channels):
        raise ValueError(f"its channels {list(map(str, channels))} must be different and those of its task, {names}")
    weights = {n.removeprefix("network."): v for n, v in arrays.items() if n.startswith("network.")}
    layers = getattr(model, "blocks", 0) + getattr(model, "spatial_layers", 0)
    if builder is None and layers > len(weights):
        raise ValueError(f"its model has {layers} layers, but {len(weights)} weights")
    network_sizes = network_shape(task, channel_roles(task, channels), shape[1:])
    # the meta device allocates nothing, whatever sizes the header claims, but the code of a user may not work on it
    with torch.device("meta") if builder is None else torch.random.fork_rng(devices=[]):
        network = build_network(model, network_sizes)
    statistics, fields = ({name: arrays[name].numpy() for name in names} for names in (_STATISTICS, _FIELDS))
    _check_arrays(task, units, shape, statistics | fields)
    network = _load_weights(network, weights).to(device=device).eval()
    to_channels_last(network)
    normalizer = Normalizer(channels=channels, units=units, **statistics)
    harmonics = _read_harmonics(header, arrays.get("climatology"), statistics["mask"])
    fields |= dict(provenance=dict(provenance), harmonics=harmonics)
    return dict(task=task, network=network, normalizer=normalizer, **fields)


def _read_model(content: FileContent) -> ModelConfig:
    """Return the settings of the network; headers name the type of all networks but SimVPv2."""
    name = content.header["model"].pop("type", "SimVPv2")
    types: dict[str, type[ModelConfig]] = {"SimVPv2": SimVPv2Config, "SimVPSphere": SimVPSphereConfig}
    if name not in types:
        message = f"its network is a {name!r}, unknown to simvp_climate {version('simvp-climate')}"
        raise ValueError(f"{message}. It is from version {content.version}: install that version or a later one.")
    return types[name](**_settings(content, "model", types[name]))


def _settings(content: FileContent, group: str, settings_type: type) -> dict:
    """Return the fields of a Task or of a network's settings in the header, with defaults for those it lacks."""
    settings, defaults = content.header[group], LEGACY_DEFAULTS[group]
    if not isinstance(settings, dict):
        raise ValueError(f"its {group} is {settings!r}")
    names = {field.name for field in dataclasses.fields(settings_type)}
    if unknown := sorted(settings.keys() - names):
        message = f"its {group} has {unknown}, unknown to simvp_climate {version('simvp-climate')}"
        raise ValueError(f"{message}. It is from version {content.version}: install that version or a later one.")
    if missing := sorted(names - settings.keys() - defaults.keys()):
        raise ValueError(f"its {group} lacks {missing}, which have no default")
    return {**{name: default for name, default in defaults.items() if name in names}, **settings}


def _read_harmonics(header: dict, coefficients: Tensor | None, mask: np.ndarray) -> Harmonics | None:
    """Return the climatology in a file, if it has one, after checking it."""
    if (coefficients is None) != ("climatology" not in header):
        raise ValueError("its climatology must have both coefficients and a period")
    if coefficients is None:
        return None
    values, shape = coefficients.numpy(), (len(NAMES), *mask.shape)
    if values.shape != shape or values.dtype != np.float32:
        raise ValueError(f"climatology is {values.shape} of {values.dtype}, but must be {shape} of float32")
    if not np.array_equal(np.isfinite(values), np.broadcast_to(~mask, shape)):
        raise ValueError("climatology must be finite outside of the mask, and only there")
    start, end, months = (header["climatology"][name] for name in ("start", "end", "months"))
    if not (isinstance(start, str) and isinstance(end, str) and set(months) <= set(range(1, 13)) and months):
        raise ValueError(f"the period of its climatology, {start!r} to {end!r}, months {months!r}, is no period")
    return Harmonics(values, start, end, tuple(months))


def _check_arrays(task: Task, units: tuple, shape: tuple[int, int, int], arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError for the first array with a wrong shape or values; `shape` is (channel, latitude, longitude)."""
    count, grid = shape[0], shape[1:]
    if len(units) != count:
        raise ValueError(f"it has {len(units)} units for {count} channels")
    positive = "finite and above 0", lambda x: np.isfinite(x) & (x > 0)
    rules = {
        "mean": ((count,), "finite", np.isfinite),
        "std": ((count,), *positive),
        "change_std": ((task.history, count), *positive),
        "mask": (shape, "boolean with an unmasked cell in every channel", lambda x: x.dtype == bool and ~x.all((1, 2))),
        "log_scale": ((count,), "finite and at least 0", lambda x: np.isfinite(x) & (x >= 0)),
        "bounds": ((count, 2), "a smaller and a larger number for each channel", lambda x: x[:, 0] < x[:, 1]),
        "extremes": ((count, 2), "a smallest and a largest number for each channel", lambda x: x[:, 0] <= x[:, 1]),
        "latitude": (grid[:1], "ascending within -90 and 90", lambda x: (abs(x) <= 90) & (np.diff(x, prepend=-91) > 0)),
        "longitude": (grid[1:], "finite and ascending", lambda x: np.isfinite(x) & (np.diff(x, prepend=-np.inf) > 0)),
        "statics": ((len(static_names(task.forcings)), *grid), "finite", np.isfinite),
    }
    for name, (expected, rule, is_valid) in rules.items():
        if arrays[name].shape != expected:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, but must have {expected}")
        if not np.all(is_valid(arrays[name])):
            raise ValueError(f"{name} must be {rule}")


def _load_weights(network: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Return a network with weights, after checking their names, shapes, types and values."""
    expected = network.state_dict()
    if different := sorted(expected.keys() ^ weights.keys()):
        others = f" and {len(different) - 1} more" if len(different) > 1 else ""
        fault = "lacks" if different[0] in expected else "should not have"
        raise ValueError(f"its network {fault} the weight {different[0]!r}{others}")
    for name, weight in weights.items():
        shape, expected_shape = tuple(weight.shape), tuple(expected[name].shape)
        if shape != expected_shape:
            raise ValueError(f"the weight {name!r} has the shape {shape}, its model {expected_shape}")
        if weight.dtype != expected[name].dtype:
            raise ValueError(f"the weight {name!r} has the type {weight.dtype}, its model {expected[name].dtype}")
        if not weight.isfinite().all():
            raise ValueError(f"the weight {name!r} has values that are not finite")
        if name.endswith("running_var") and (weight < 0).any():
            raise ValueError(f"the weight {name!r} is a variance and has values below 0")
    if not is_custom(network):
        network = network.to_empty(device="cpu")
    network.load_state_dict(weights)
    return network
