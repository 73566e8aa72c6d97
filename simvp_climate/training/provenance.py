"""The provenance of a training run, which its forecaster carries."""

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
from simvp_climate.training.config import TrainConfig
from simvp_climate.training.datasets import Split

_PACKAGES = ("simvp-climate", "torch", "lightning-fabric", "numpy", "xarray", "pandas", "zarr", "safetensors")


def describe_run(
    task: Task,
    model: SimVPv2Config,
    config: TrainConfig,
    normalizer: Normalizer,
    train_split: Split,
    valid_split: Split | None,
    fabric: Fabric,
) -> dict:
    """Return settings, data, versions and device of a training run as plain values."""
    device = fabric.device
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "processes": fabric.world_size,
        # lists instead of tuples, as in a file
        "task": json.loads(json.dumps(dataclasses.asdict(task))),
        "model": dataclasses.asdict(model),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "channels": [str(channel) for channel in normalizer.channels],
        "units": list(normalizer.units),
        "training": train_split.period,
        "training_sha256": train_split.statistics.digest,
        "validation": "none: the weights of the last epoch were kept" if valid_split is None else valid_split.period,
    }


def _commit() -> str | None:
    """Return the git commit of this package, with "-dirty" after uncommitted changes, or None outside git."""
    folder = Path(__file__).parent
    try:
        # a package installed inside another repository does not belong to it
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, check=True, capture_output=True)
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
