"""Forecaster files: flipped, cut or edited, with their checksum made anew for the edits."""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import xarray as xr
from dataset_attacks import base, trained
from outcomes import Attack, judge

import simvp_climate as sc
from simvp_climate.forecasting import serialization

# values that a header may hold in place of another
STRANGE = (None, True, -1, 0, 1e308, -0.5, 2**70, "x", "", [], [1, 2], {}, {"a": 1}, [None], [["t2m", "x"]])


@cache
def file_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.safetensors"
        trained().save(path)
        return path.read_bytes()


@cache
def right_forecast() -> xr.Dataset:
    return trained()(base())


def damage(rng: np.random.Generator) -> tuple[str, bytes]:
    """Return a damaged copy of the file and what was done to it."""
    content = bytearray(file_bytes())
    how = str(rng.choice(["flip", "cut", "zeros", "append", "remove"]))
    at = int(rng.integers(len(content)))
    if how == "flip":
        content[at] ^= 1 << int(rng.integers(8))
    elif how == "cut":
        del content[at:]
    elif how == "zeros":
        length = min(16, len(content) - at)
        if not any(content[at : at + length]):
            content[at] = 1
        else:
            content[at : at + length] = bytes(length)
    elif how == "append":
        content += bytes(rng.integers(0, 256, 8, dtype=np.uint8))
    else:
        del content[at : at + 1]
    return f"{how} at byte {at}", bytes(content)


def _paths(value: object, prefix: tuple = ()) -> list[tuple]:
    """Return the path to each entry of nested dicts and lists."""
    paths = [prefix] if prefix else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        if key not in ("conventions", "provenance"):
            paths += _paths(entry, (*prefix, key))
    return paths


def edit(rng: np.random.Generator) -> tuple[str, bytes]:
    """Return a copy with one edit of header or tensors and a valid checksum, and what was edited."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.safetensors"
        path.write_bytes(file_bytes())
        with safetensors.safe_open(path, "pt") as file:
            metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["forecaster"])
    how = str(rng.choice(["value", "value", "remove", "tensor", "extra tensor", "format", "provenance"]))
    if how in ("value", "remove"):
        paths = _paths(header)
        path = paths[int(rng.integers(len(paths)))]
        target = header
        for key in path[:-1]:
            target = target[key]
        if how == "remove":
            del target[path[-1]]
        else:
            target[path[-1]] = STRANGE[int(rng.integers(len(STRANGE)))]
            how = f"value {target[path[-1]]!r}"
        how = f"{how} at {'.'.join(map(str, path))}"
    elif how == "tensor":
        name = str(rng.choice(sorted(tensors)))
        change = str(rng.choice(["nan", "dtype", "shape", "absent", "negative"]))
        tensor = tensors[name]
        if change == "absent":
            del tensors[name]
        elif change == "shape":
            tensors[name] = tensor.reshape(-1).repeat(2)
        elif change == "dtype":
            tensors[name] = tensor.to(torch.float16 if tensor.dtype != torch.float16 else torch.float32)
        elif tensor.is_floating_point() and tensor.numel():
            tensor.reshape(-1)[0] = float("nan") if change == "nan" else -1e30
        else:
            del tensors[name]
        how = f"{change} of {name}"
    elif how == "extra tensor":
        tensors["more"] = torch.zeros(2)
    elif how == "format":
        number = int(rng.choice([0, 1, 2, 4]))
        metadata["format"] = f"simvp_climate forecaster {number}"
        how = f"format {number}"
    else:
        header["provenance"] = [{}, [], "", {"epochs": 3}, {"training": None}][int(rng.integers(5))]
        how = f"provenance {header['provenance']!r}"
    metadata["forecaster"] = json.dumps(header)
    metadata["sha256"] = serialization._checksum(metadata, tensors)
    return how, safetensors.torch.save(tensors, metadata)


def attack(seed: int) -> list[Attack]:
    """Return how loading and using one damaged file, and one edited file, ended."""
    rng = np.random.default_rng(seed)
    attacks = []
    for area, make in (("forecaster file, damaged", damage), ("forecaster file, edited", edit)):
        how, content = make(rng)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "f.safetensors"
            path.write_bytes(content)

            def use(path=path):
                forecaster = sc.Forecaster.load(path, device="cpu")
                # all that a user calls first
                repr(forecaster), forecaster._repr_html_(), forecaster.training_curve
                return forecaster(base())

            def is_right(result, area=area):
                # a valid edit is another forecaster; damage must not go unnoticed
                return area.endswith("edited") or result.equals(right_forecast())

            attacks.append(judge(area, f"seed {seed}, {how}", use, is_right))
    return attacks
