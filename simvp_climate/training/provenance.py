"""The provenance of a training run."""

import dataclasses
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from lightning_fabric import Fabric

from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.training import datasets
from simvp_climate.training.config import TrainConfig


def describe_run(
    task: Task,
    model: SimVPv2Config,
    config: TrainConfig,
    normalizer: Normalizer,
    train_part: datasets.Split,
    valid_part: datasets.Split | None,
    fabric: Fabric,
) -> dict:
    """Return the provenance of a training run, as plain values."""
    packages = ("simvp-climate", "torch", "lightning-fabric", "numpy", "xarray", "pandas", "zarr", "safetensors")
    device = fabric.device
    unseen = "none: the weights of the last epoch were kept"
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {name: version(name) for name in packages},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "processes": fabric.world_size,
        # lists, as a file gives them back
        "task": json.loads(json.dumps(dataclasses.asdict(task))),
        "model": dataclasses.asdict(model),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "channels": [str(channel) for channel in normalizer.channels],
        "units": list(normalizer.units),
        "training": train_part.period,
        "training_sha256": train_part.statistics.digest,
        "validation": unseen if valid_part is None else valid_part.period,
    }


def _commit() -> str | None:
    """Return the git commit of this package with "-dirty" for changes since, or None where it is not in git."""
    folder = Path(__file__).parent
    try:
        # a package installed below somebody's repository is not a part of it
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, check=True, capture_output=True)
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
