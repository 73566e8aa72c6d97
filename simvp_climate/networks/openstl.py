"""Weights published by OpenSTL, under the names of `networks.simvp_v2`."""

import re

from torch import Tensor

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


def rename_weights(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenSTL's SimVPv2 (gSTA) weights, float32, under the names of our `SimVPv2`.

    Raises
    ------
    ValueError
        If a name is not one of OpenSTL's SimVPv2 with gated attention.
    """
    last = max((int(key.split(".")[2]) for key in state_dict if key.startswith("hid.enc.")), default=0)
    return {
        _rename(key, last): value.float() if value.is_floating_point() else value for key, value in state_dict.items()
    }


def _rename(key: str, last_block: int) -> str:
    if match := re.fullmatch(r"enc\.enc\.(\d+)\.conv\.(conv|norm)\.(\w+)", key):
        return f"encoder.{match[1]}.{match[2]}.{match[3]}"
    # an upsampling layer holds its convolution and its pixel shuffle in a sequence
    if match := re.fullmatch(r"dec\.dec\.(\d+)\.conv\.(conv|norm)(?:\.0)?\.(\w+)", key):
        return f"decoder.{match[1]}.{match[2]}.{match[3]}"
    if match := re.fullmatch(r"dec\.readout\.(\w+)", key):
        return f"readout.{match[1]}"
    if match := re.fullmatch(r"hid\.enc\.(\d+)\.reduction\.(\w+)", key):
        return f"translator.{'widen' if int(match[1]) == last_block else 'narrow'}.{match[2]}"
    match = re.fullmatch(r"hid\.enc\.(\d+)\.block\.(.+?)(?:\.(weight|bias|running_\w+|num_\w+))?", key)
    if match and match[2] in _BLOCK:
        return f"translator.blocks.{match[1]}.{_BLOCK[match[2]]}" + (f".{match[3]}" if match[3] else "")
    raise ValueError(f"{key!r} is not a weight of OpenSTL's SimVPv2 with the gated attention translator (gSTA)")
