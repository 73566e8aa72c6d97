"""Checkpoints published by OpenSTL, as networks of ours: SimVPv2 (its gSTA) and SimVP (its IncepU).

What is called "weights" here are tensors under OpenSTL's names.
"""

import os
import re
from collections import OrderedDict

import torch
from torch import Tensor

from simvp_climate.networks.simvp_v1 import KERNEL_SIZES, SimVPv1, SimVPv1Config
from simvp_climate.networks.simvp_v2 import PixelShuffleConv, SimVPv2, SimVPv2Config

_FIRST = "enc.enc.0.conv.conv.weight"
# what profilers, weight averaging and losses leave among the weights
_BESIDE = re.compile(r"(.*\.)?total_(ops|params)|n_averaged|criterion\..*")

_BLOCK = {
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
    """Return the network of a checkpoint of OpenSTL, ready to forecast: float32, on the CPU, in evaluation mode.

    Its configuration is inferred from the shapes of the weights. It predicts states from states, normalized as they
    were in its training, with zeros beyond the edges; drop path, which no shape tells, is 0.

    Parameters
    ----------
    path
        A file that holds the weights, a dict of tensors, or such a dict as "state_dict" among other things, as in
        checkpoints of Lightning (`.ckpt`). Their names may have a prefix ("model.", "module."). No code in the file
        is run; what lies beside the weights is not looked at.

    Returns
    -------
    SimVPv2 or SimVPv1
        Weights of a SimVPv2 have attention blocks, those of a SimVPv1 inception blocks.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or something else, holds objects that only running code would load, or if its weights
        are not, or not all, those of one of the two networks.
    """
    name = repr(os.fspath(path))
    weights = _strip(_read(path, name), name)
    version_1 = any(key.startswith(("hid.dec.", "hid.enc.0.conv1.")) for key in weights)
    try:
        # initial weights are drawn in vain: the caller's random numbers stay what they were
        with torch.random.fork_rng(devices=[]):
            network = _build_v1(weights) if version_1 else _build_v2(weights)
    except ValueError as error:
        raise ValueError(f"{name}: the shapes of its weights make no network of OpenSTL: {error}") from error
    published = _published_names(network)
    kind = "SimVP v1 (IncepU)" if version_1 else "SimVPv2 (gSTA)"
    if unknown := [key for key in weights if key not in published.values()]:
        raise ValueError(
            f"{name}: not among the weights of OpenSTL's {kind}: {_some(unknown)}. TAU and other models of OpenSTL "
            "are not loaded; what does not belong to the model, leave out of the file"
        )
    if missing := [key for key in published.values() if key not in weights]:
        raise ValueError(f"{name}: of the weights of OpenSTL's {kind} are missing: {_some(missing)}")
    state = network.state_dict()
    for ours, theirs in published.items():
        value, wanted = weights[theirs], state[ours]
        if value.shape != wanted.shape or value.is_floating_point() != wanted.is_floating_point():
            raise ValueError(
                f"{name}: {theirs!r} is {value.dtype} of shape {tuple(value.shape)}; beside the other weights of a "
                f"{kind} it must be {wanted.dtype} of shape {tuple(wanted.shape)}"
            )
        state[ours] = value.to(wanted.dtype)
        if not state[ours].isfinite().all():
            raise ValueError(f"{name}: {theirs!r} is not finite everywhere: its training failed, or it is damaged")
    network.load_state_dict(state)
    return network.eval()


# ---- the file


class _Ignored:
    """Stands for what lies beside the weights: it takes anything, and does nothing."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


# OpenSTL's hyperparameters hold arrays of numpy (mean and std of the data); others' hold paths and namespaces
_BESIDE_OBJECTS = [
    *(
        (_Ignored, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    (_Ignored, "numpy.ndarray"),
    (_Ignored, "numpy.dtype"),
    (_Ignored, "argparse.Namespace"),
    *((_Ignored, f"pathlib{local}.{name}") for local in ("", "._local") for name in ("PosixPath", "WindowsPath")),
    # a dict to torch's unpickler, which fills no others
    (OrderedDict, "lightning.fabric.utilities.data.AttributeDict"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
]


def _read(path: str | os.PathLike, name: str) -> dict[object, object]:
    """Return the dict of weights in a file, without running what the file may say to run."""
    with open(path, "rb") as file, torch.serialization.safe_globals(_BESIDE_OBJECTS):
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch and its zip and pickle formats raise
            raise _refusal(error, name) from error
    weights = saved.get("state_dict", saved) if isinstance(saved, dict) else saved
    if not isinstance(weights, dict):
        raise ValueError(f"{name} holds no weights but a {type(weights).__name__}: it must hold a dict of tensors")
    return weights


def _refusal(error: Exception, name: str) -> ValueError:
    if found := re.search(r"GLOBAL (\S+)|call reduce|create new object", str(error)):
        return ValueError(
            f"{name} holds {found[1] or 'an object'!r}, which only running code from the file would load: that is not "
            "done. Only if you trust whoever made the file, save its weights alone, where OpenSTL is installed, by "
            'torch.save(torch.load(path, weights_only=False)["state_dict"], "weights.pt"), and load weights.pt'
        )
    return ValueError(
        f"{name} cannot be read as a checkpoint of PyTorch: it is damaged, not complete, or something else"
    )


def _strip(weights: dict[object, object], name: str) -> dict[str, Tensor]:
    """Return weights under the names that OpenSTL's model gives them, without what is known to lie beside them."""
    weights = {str(key): value for key, value in weights.items()}
    prefixes = [key.removesuffix(_FIRST) for key in weights if key == _FIRST or key.endswith(f".{_FIRST}")]
    if len(prefixes) != 1:
        found = f"has it behind each of {prefixes}: save one of these models alone" if prefixes else "has none"
        raise ValueError(
            f"{name}: a SimVPv2 (gSTA) or SimVP v1 (IncepU) of OpenSTL has one weight {_FIRST!r}, behind any prefix; "
            f"this file {found}. It holds {_some(list(weights)) or 'nothing'}"
        )
    prefix, stripped = prefixes[0], {}
    for key, value in weights.items():
        inner = key.removeprefix(prefix)
        if _BESIDE.fullmatch(key) or _BESIDE.fullmatch(inner):
            continue
        if not key.startswith(prefix):
            raise ValueError(
                f"{name}: {key!r} is not a weight of the model, whose names begin with {prefix!r}: leave it out of "
                "the file"
            )
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
            raise ValueError(f"{name}: {key!r} is not a plain tensor but {str(value)[:80]}")
        stripped[inner] = value
    return stripped


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(repr(key) for key in keys[:3]) + more


# ---- the network


def _build_v2(weights: dict[str, Tensor]) -> SimVPv2:
    width, channels = _shape(weights, _FIRST, 4)[:2]
    blocks = _count(weights, "hid.enc")
    (stack,) = _shape(weights, "hid.enc.0.block.layer_scale_1", 1)
    (hidden,) = _shape(weights, "hid.enc.1.block.layer_scale_1", 1)
    history = _history(stack, width)
    mixing = [_shape(weights, f"hid.enc.{at}.block.mlp.fc1.weight", 4)[0] for at in (0, 1)]
    config = SimVPv2Config(
        hidden_space=width,
        hidden_time=hidden,
        spatial_layers=_count(weights, "enc.enc"),
        blocks=blocks,
        mlp_ratio=_ratio([stack, hidden], mixing),
        drop_path=0.0,
        padding="zeros",
        predict="state",
    )
    return SimVPv2(config, history=history, channels=channels)


def _build_v1(weights: dict[str, Tensor]) -> SimVPv1:
    width, channels = _shape(weights, _FIRST, 4)[:2]
    hidden = _shape(weights, "hid.enc.0.layers.0.conv.weight", 4)[0]
    stack = _shape(weights, "hid.enc.0.conv1.weight", 4)[1]
    config = SimVPv1Config(
        hidden_space=width,
        hidden_time=hidden,
        spatial_layers=_count(weights, "enc.enc"),
        blocks=_count(weights, "hid.enc"),
    )
    return SimVPv1(config, history=_history(stack, width), channels=channels)


def _shape(weights: dict[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    if key not in weights:
        raise ValueError(f"{key!r} is missing (models other than gSTA and IncepU do not have it)")
    shape = tuple(weights[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{key!r} has the shape {shape}, which must be of {dimensions} sizes above 0")
    return shape


def _count(weights: dict[str, Tensor], layers: str) -> int:
    """Return how many layers there are, a last one that is missing apart."""
    found = {int(key.removeprefix(f"{layers}.").split(".")[0]) for key in weights if re.match(rf"{layers}\.\d+\.", key)}
    if found != set(range(len(found))):
        raise ValueError(f"of the layers '{layers}' there are the numbers {sorted(found)[:20]}: some are missing")
    return len(found)


def _history(stack: int, width: int) -> int:
    if stack % width:
        raise ValueError(
            f"a translator of {stack} channels does not hold a whole number of states of {width} channels each"
        )
    return stack // width


def _ratio(widths: list[int], wide: list[int]) -> float:
    """Return what makes the widths wide, fractions cut off."""
    least = max(after / before for before, after in zip(widths, wide, strict=True))
    most = min((after + 1) / before for before, after in zip(widths, wide, strict=True))
    for ratio in (least, (least + most) / 2):  # the first may miss by the last digit
        if [int(before * ratio) for before in widths] == wide:
            return ratio
    raise ValueError(f"the channel mixing makes {widths} channels {wide}, which no single mlp_ratio does")


def _published_names(network: SimVPv2 | SimVPv1) -> dict[str, str]:
    """Return OpenSTL's name for every weight of ours."""
    modules = {"readout": "dec.readout"}
    for at in range(len(network.encoder)):
        modules |= {f"encoder.{at}.{part}": f"enc.enc.{at}.conv.{part}" for part in ("conv", "norm")}
    for at, layer in enumerate(network.decoder):
        # an upsampling layer of theirs holds its convolution and its pixel shuffle in a sequence
        modules |= {
            f"decoder.{at}.conv": f"dec.dec.{at}.conv.conv" + (".0" if isinstance(layer.conv, PixelShuffleConv) else "")
        }
        modules |= {f"decoder.{at}.norm": f"dec.dec.{at}.conv.norm"}
    for at in range(network.config.blocks):
        if isinstance(network, SimVPv2):
            modules |= {f"translator.blocks.{at}.{ours}": f"hid.enc.{at}.block.{name}" for name, ours in _BLOCK.items()}
            continue
        for ours, theirs in ((f"translator.down.{at}", f"hid.enc.{at}"), (f"translator.up.{at}", f"hid.dec.{at}")):
            modules |= {f"{ours}.narrow": f"{theirs}.conv1"}
            for branch in range(len(KERNEL_SIZES)):
                for part in ("conv", "norm"):
                    modules |= {f"{ours}.branches.{branch}.{part}": f"{theirs}.layers.{branch}.{part}"}
    if isinstance(network, SimVPv2):
        modules |= {
            "translator.narrow": "hid.enc.0.reduction",
            "translator.widen": f"hid.enc.{network.config.blocks - 1}.reduction",
        }
    names = {}
    for name in network.state_dict():
        module, _, kind = name.rpartition(".")
        if name in modules:  # a layer scale
            names[name] = modules[name]
        elif name != "change_scale_TC":  # which theirs lacks
            names[name] = f"{modules[module]}.{kind}"
    return names
