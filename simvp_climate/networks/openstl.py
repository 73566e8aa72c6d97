"""Load checkpoints published by OpenSTL: SimVPv2 (its gSTA) and SimVP (its IncepU).

In this module `weights` are tensors under OpenSTL's names; `_published_names` maps the names of this package to them.
"""

import itertools
import os
import re
from collections import OrderedDict

import torch
from torch import Tensor

from simvp_climate.networks.layers import PixelShuffleConv
from simvp_climate.networks.simvp_v1 import KERNEL_SIZES, SimVPv1, SimVPv1Config
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config

_FIRST_WEIGHT = "enc.enc.0.conv.conv.weight"
# keys that profilers, weight averaging and losses add to the weights
_IGNORED_KEYS = re.compile(r"(.*\.)?total_(ops|params)|n_averaged|criterion\..*")

# modules of an attention block: name in OpenSTL, name in this package
_BLOCK_NAMES = {
    "layer_scale_1": "scale_attention",
    "layer_scale_2": "scale_mix",
    "norm1": "norm_attention",
    "norm2": "norm_mix",
    "attn.proj_1": "enter",
    "attn.spatial_gating_unit.conv0": "near",
    "attn.spatial_gating_unit.conv_spatial": "far",
    "attn.spatial_gating_unit.conv1": "value_and_gate",
    "attn.proj_2": "leave",
    "mlp.fc1": "expand",
    "mlp.dwconv.dwconv": "spread",
    "mlp.fc2": "shrink",
}


def load(path: str | os.PathLike) -> SimVPv2 | SimVPv1:
    """Load the network of an OpenSTL checkpoint, in float32 on the CPU, in evaluation mode.

    The configuration is inferred from the shapes of the weights. The network predicts states, normalized as in its
    training, and pads with zeros. Files do not record drop path, so it is 0.

    Parameters
    ----------
    path
        A file with a dict of tensors, or with such a dict under "state_dict", as in Lightning checkpoints (`.ckpt`).
        The names of the tensors may have a prefix ("model.", "module."). Code in the file is not run, and other
        content is ignored.

    Returns
    -------
    SimVPv2 or SimVPv1
        SimVPv2 if the translator has attention blocks, SimVPv1 if it has inception blocks.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, is not a checkpoint, would run code when loaded, or does not hold exactly the weights of
        one of the two networks.
    """
    file_name = repr(os.fspath(path))
    weights = _strip_prefix(_read(path, file_name), file_name)
    is_v1 = any(key.startswith(("hid.dec.", "hid.enc.0.conv1.")) for key in weights)
    model = "SimVP v1 (IncepU)" if is_v1 else "SimVPv2 (gSTA)"
    try:
        # building draws initial weights; keep the caller's random state
        with torch.random.fork_rng(devices=[]):
            network = _build(weights, is_v1)
    except ValueError as error:
        raise ValueError(f"{file_name}: the shapes of its weights fit no network of OpenSTL: {error}") from error
    published_names = _published_names(network)
    if unknown := [key for key in weights if key not in published_names.values()]:
        fix = "Other models, such as TAU, are not supported. Remove tensors that are not part of the model."
        raise ValueError(f"{file_name} holds {_shorten(unknown)}, which OpenSTL's {model} does not have. {fix}")
    if missing := [key for key in published_names.values() if key not in weights]:
        raise ValueError(f"{file_name} lacks weights of OpenSTL's {model}: {_shorten(missing)}.")
    state = network.state_dict()
    for name, published_name in published_names.items():
        value, expected = weights[published_name], state[name]
        if value.shape != expected.shape or value.is_floating_point() != expected.is_floating_point():
            raise ValueError(
                f"{file_name}: {published_name!r} is {value.dtype} of shape {tuple(value.shape)}; in a {model} with "
                f"these other weights it must be {expected.dtype} of shape {tuple(expected.shape)}."
            )
        state[name] = value.to(expected.dtype)
        if not state[name].isfinite().all():
            raise ValueError(f"{file_name}: {published_name!r} must be finite; its training failed, or it is damaged.")
    network.load_state_dict(state)
    return network.eval()


# ---- read the file


class _Placeholder:
    """Stands in for an object in the file that is not part of the weights; it takes any arguments and ignores them."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Classes allowed in a file, and their replacements. OpenSTL's hyperparameters hold numpy arrays (mean and std of the
# data); those of other projects hold paths and namespaces.
_SAFE_CLASSES = [
    *((_Placeholder, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_Placeholder, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_Placeholder, name) for name in ("numpy.ndarray", "numpy.dtype", "argparse.Namespace")),
    *((_Placeholder, f"pathlib{local}.{name}") for local in ("", "._local") for name in ("PosixPath", "WindowsPath")),
    # torch's unpickler fills an OrderedDict, but no other subclass of dict
    *((OrderedDict, f"{package}.utilities.data.AttributeDict") for package in ("lightning.fabric", "lightning_fabric")),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
]


def _read(path: str | os.PathLike, file_name: str) -> dict[object, object]:
    """Return the dict of weights in a file, without running code from the file."""
    with open(path, "rb") as file, torch.serialization.safe_globals(_SAFE_CLASSES):
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch and its zip and pickle formats raise many types
            if match := re.search(r"GLOBAL (\S+)|call reduce|create new object", str(error)):
                raise ValueError(
                    f"{file_name} holds {match[1] or 'an object'!r}: loading it would run code from the file. If you "
                    "trust its author, save the weights alone where OpenSTL is installed: "
                    'torch.save(torch.load(path, weights_only=False)["state_dict"], "weights.pt")'
                ) from error
            message = f"{file_name} cannot be read as a PyTorch checkpoint: it is damaged, cut short or another format."
            raise ValueError(message) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict):
        raise ValueError(f"{file_name} holds a {type(weights).__name__}, but must hold a dict of tensors.")
    return weights


def _strip_prefix(weights: dict[object, object], file_name: str) -> dict[str, Tensor]:
    """Return the weights under the names of OpenSTL's model, without the keys of profilers and losses."""
    weights = {str(key): value for key, value in weights.items()}
    keys = [key for key in weights if key == _FIRST_WEIGHT or key.endswith(f".{_FIRST_WEIGHT}")]
    prefixes = [key.removesuffix(_FIRST_WEIGHT) for key in keys]
    if not prefixes:
        raise ValueError(
            f"{file_name} holds {_shorten(list(weights)) or 'nothing'}. A SimVPv2 (gSTA) or SimVP v1 (IncepU) of "
            f"OpenSTL must have the weight {_FIRST_WEIGHT!r}, after any prefix."
        )
    if len(prefixes) > 1:
        raise ValueError(f"{file_name} holds several models, with prefixes {prefixes}. Save one of them alone.")
    prefix, stripped = prefixes[0], {}
    for key, value in weights.items():
        name = key.removeprefix(prefix)
        if _IGNORED_KEYS.fullmatch(key) or _IGNORED_KEYS.fullmatch(name):
            continue
        if not key.startswith(prefix):
            raise ValueError(f"{file_name}: {key!r} must begin with {prefix!r} like the model's weights. Remove it.")
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
            raise ValueError(f"{file_name}: {key!r} must be a dense tensor, not {str(value)[:80]}")
        stripped[name] = value
    return stripped


def _shorten(keys: list[str]) -> str:
    """Return the first three keys and the number of others."""
    rest = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(repr(key) for key in keys[:3]) + rest


# ---- infer the configuration from shapes


def _build(weights: dict[str, Tensor], is_v1: bool) -> SimVPv2 | SimVPv1:
    """Return a network of the configuration that the shapes of the weights imply."""
    width, channels = _shape(weights, _FIRST_WEIGHT, 4)[:2]
    if is_v1:
        stack = _shape(weights, "hid.enc.0.conv1.weight", 4)[1]
        hidden = _shape(weights, "hid.enc.0.layers.0.conv.weight", 4)[0]
    else:
        stack, hidden = (_shape(weights, f"hid.enc.{block}.block.layer_scale_1", 1)[0] for block in (0, 1))
    if stack % width:
        raise ValueError(f"the translator's {stack} input channels must be a multiple of hidden_space={width}")
    layers, blocks = _count_layers(weights, "enc.enc"), _count_layers(weights, "hid.enc")
    sizes = {"hidden_space": width, "hidden_time": hidden, "spatial_layers": layers, "blocks": blocks}
    if is_v1:
        return SimVPv1(SimVPv1Config(**sizes), history=stack // width, channels=channels)
    mlp_widths = [_shape(weights, f"hid.enc.{block}.block.mlp.fc1.weight", 4)[0] for block in (0, 1)]
    ratio = _infer_mlp_ratio([stack, hidden], mlp_widths)
    config = SimVPv2Config(**sizes, mlp_ratio=ratio, drop_path=0.0, padding="zeros", predict="state")
    return SimVPv2(config, history=stack // width, channels=channels)


def _shape(weights: dict[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in weights:
        raise ValueError(f"{key!r} is missing (only gSTA and IncepU are supported)")
    shape = tuple(weights[key].shape)
    if len(shape) != ndim or 0 in shape:
        raise ValueError(f"{key!r} of shape {shape} must have {ndim} dimensions above 0")
    return shape


def _count_layers(weights: dict[str, Tensor], prefix: str) -> int:
    """Return the number of layers under a prefix, after checking that they are numbered from 0 without a gap."""
    layers = {int(match[1]) for key in weights if (match := re.match(rf"{prefix}\.(\d+)\.", key))}
    if layers != set(range(len(layers))):
        raise ValueError(f"layers {prefix!r} must be numbered from 0 without a gap, not {sorted(layers)[:20]}")
    return len(layers)


def _infer_mlp_ratio(widths: list[int], mlp_widths: list[int]) -> float:
    """Return a ratio with int(width * ratio) == mlp_width for all blocks."""
    pairs = list(zip(widths, mlp_widths, strict=True))
    low = max(mlp_width / width for width, mlp_width in pairs)
    high = min((mlp_width + 1) / width for width, mlp_width in pairs)
    for ratio in (low, (low + high) / 2):  # `low` may fail by rounding
        if [int(width * ratio) for width in widths] == mlp_widths:
            return ratio
    raise ValueError(f"no mlp_ratio turns {widths} channels into {mlp_widths}")


def _published_names(network: SimVPv2 | SimVPv1) -> dict[str, str]:
    """Return OpenSTL's name of every weight in the state dict of a network."""
    modules = {"readout": "dec.readout"}
    for index in range(len(network.encoder)):
        modules |= {f"encoder.{index}.{name}": f"enc.enc.{index}.conv.{name}" for name in ("conv", "norm")}
    for index, layer in enumerate(network.decoder):
        # OpenSTL wraps the convolution and the pixel shuffle of an upsampling layer in a Sequential
        suffix = ".0" if isinstance(layer.conv, PixelShuffleConv) else ""
        modules[f"decoder.{index}.conv"] = f"dec.dec.{index}.conv.conv{suffix}"
        modules[f"decoder.{index}.norm"] = f"dec.dec.{index}.conv.norm"
    blocks = network.config.blocks
    if isinstance(network, SimVPv2):
        for block in range(blocks):
            prefix, published_prefix = f"translator.blocks.{block}", f"hid.enc.{block}.block"
            modules |= {f"{prefix}.{name}": f"{published_prefix}.{old}" for old, name in _BLOCK_NAMES.items()}
        # "reduction" is a 1 x 1 convolution after a block whose output width differs from its input width
        modules["translator.narrow"] = "hid.enc.0.reduction"
        modules["translator.widen"] = f"hid.enc.{blocks - 1}.reduction"
    else:
        for block, (side, published_side) in itertools.product(range(blocks), (("down", "enc"), ("up", "dec"))):
            prefix, published_prefix = f"translator.{side}.{block}", f"hid.{published_side}.{block}"
            modules[f"{prefix}.narrow"] = f"{published_prefix}.conv1"
            for branch, name in itertools.product(range(len(KERNEL_SIZES)), ("conv", "norm")):
                modules[f"{prefix}.branches.{branch}.{name}"] = f"{published_prefix}.layers.{branch}.{name}"
    names = {}
    for name in network.state_dict():
        module, _, tensor = name.rpartition(".")
        if name in modules:  # a layer scale is a parameter, not a module
            names[name] = modules[name]
        elif name != "change_scale_TC":  # OpenSTL has no predicted change
            names[name] = f"{modules[module]}.{tensor}"
    return names
