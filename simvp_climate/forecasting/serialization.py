"""The file of a forecaster: tensors and a header of JSON under one checksum. Reading it runs no code.

It is a safetensors file with the metadata `format`, `version` (of the package that wrote it), `forecaster` (the header)
and `sha256`, which is taken over all other metadata and all tensors with their names, types and shapes. The checksum
finds what was damaged or edited by accident; it is no signature of whoever wrote the file.

Formats: 1 had no masks, transforms, bounds and forcings, 2 no checksum.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from simvp_climate.data.files import write_atomically

_KIND, FORMAT = "simvp_climate forecaster", 3


@dataclass(frozen=True, eq=False)
class Content:
    """What a file holds: its format, the version that wrote it ("unknown" before format 3), header and tensors."""

    format: int
    version: str
    header: dict
    tensors: dict[str, Tensor]


def is_ours(path: Path) -> bool:
    """Say whether there is a forecaster of any format at `path`; it may be damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format", "").startswith(_KIND)
    except (safetensors.SafetensorError, OSError):
        return False


def write(path: Path, header: dict, tensors: dict[str, Tensor]) -> None:
    """Write a header of plain values and tensors on the CPU, in the current format."""
    metadata = {
        "format": f"{_KIND} {FORMAT}",
        "version": version("simvp-climate"),
        "forecaster": json.dumps(header),
    }
    metadata["sha256"] = _checksum(metadata, tensors)
    content = safetensors.torch.save(tensors, metadata)
    write_atomically(path, lambda unfinished: unfinished.write_bytes(content))


def read(path: Path) -> Content:
    """Return what a file holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a forecaster, of a newer format, cut short, or its content is not what was saved.
    """
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = _format(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is not a forecaster saved by simvp_climate, or was cut short or damaged ({error}): take "
            "another copy of the file"
        ) from error
    newer = found >= 3 or "version" in metadata or '"conventions"' in metadata.get("forecaster", "")
    if "sha256" not in metadata and newer:
        raise ValueError(f"{str(path)!r} has no checksum, which files of format 3 have: take another copy")
    if "sha256" in metadata and metadata["sha256"] != _checksum(metadata, tensors):
        raise ValueError(
            f"{str(path)!r} is damaged or was changed: its checksum is not that of its content. Take another copy of "
            "the file"
        )
    try:
        header = json.loads(metadata["forecaster"])
        if not isinstance(header, dict):
            raise ValueError(f"it is a {type(header).__name__}")
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged: its header cannot be read ({error!r}). Take another copy"
        ) from error
    return Content(found, metadata.get("version", "unknown"), header, tensors)


def _format(path: Path, metadata: dict[str, str]) -> int:
    kind, _, number = metadata.get("format", "").rpartition(" ")
    if kind != _KIND or not number.isdecimal():
        raise ValueError(
            f"{str(path)!r} is not a forecaster saved by simvp_climate: its metadata has the format "
            f"{metadata.get('format')!r}"
        )
    if int(number) < 1:
        raise ValueError(f"{str(path)!r} says format {number}, which there never was: take another copy of the file")
    if int(number) > FORMAT:
        raise ValueError(
            f"{str(path)!r} was written by a newer simvp_climate ({metadata.get('version', 'unknown')}, format "
            f"{number}; this, {version('simvp-climate')}, reads up to {FORMAT}): pip install --upgrade simvp-climate"
        )
    return int(number)


def _checksum(metadata: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over metadata and tensors as a hexadecimal text."""
    names = sorted(tensors)
    about = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    others = sorted((key, value) for key, value in metadata.items() if key != "sha256")
    digest = hashlib.sha256(json.dumps([others, about]).encode())
    for name in names:
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
