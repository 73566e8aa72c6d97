"""The directory of a training run (saved state, training curve, lock, result), and the provenance of the result."""

import errno
import hashlib
import io
import json
import os
import platform
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from lightning_fabric import Fabric

from simvp_climate.data import files
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task
from simvp_climate.training.config import RESUMABLE_FIELDS, TrainConfig
from simvp_climate.training.datasets import Split
from simvp_climate.training.loader import Plan

_RESULT, _STATE, _CURVE = "forecaster.safetensors", "training.pt", "training_curve.csv"
_FORMAT = 3  # of the state; only states of the same format are resumed
# defaults of settings that older runs lack
_LEGACY_SETTINGS = {
    "limit_train_batches": None, "max_steps": None, "loss": "mse", "members": 2, "crps_share": None, "noise": 0,
    "spectral_blocks": 0, "prescribed": [], "select": "loss", "select_every": 1, "input_noise": 0.0,
}  # fmt: skip
_DIGESTS = {  # what it means that two digests differ
    "data_sha256": "other values, grid, windows or fields without time",
    "start_from": "other weights or statistics",
}
_PACKAGES = ("simvp-climate", "torch", "lightning-fabric", "numpy", "xarray", "pandas", "zarr", "safetensors")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Run:
    """A training run on disk, or nowhere if it has no directory."""

    directory: Path | None
    fingerprint: str = ""  # JSON of all settings and data that decide the result; a resumed run must have the same


@contextmanager
def lock(directory: str | os.PathLike | None) -> Iterator[Path | None]:
    """Create the directory of a run, lock it for this process, and remove unfinished files of a killed process."""
    if directory is None:
        yield None
        return
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"directory={str(path)!r} is a file: choose a folder")
    # files of a scheduler or a logger in the directory stay
    results = [name for name in (_CURVE, _RESULT) if (path / name).exists()]
    if results and not (path / _STATE).exists():
        raise FileExistsError(
            f"directory={str(path)!r} holds {' and '.join(results)}, but no training state ({_STATE}), and nothing is "
            "overwritten: choose another folder, or move them away"
        )
    path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(files.lock(path))
        except BlockingIOError as error:
            message = f"directory={str(path)!r} is in use: another process trains there"
            raise RuntimeError(f"{message}. Wait until it has ended, or choose another directory") from error
        for name in (_STATE, _CURVE, _RESULT):
            files.unfinished_path(path / name).unlink(missing_ok=True)
        yield path


def describe_run(
    task: Task, model: dict, config: TrainConfig, normalizer: Normalizer, splits: list[Split], fabric: Fabric
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
        "task": json.loads(json.dumps(asdict(task))),
        "model": model,
        "config": json.loads(json.dumps(asdict(config))),
        "channels": [str(channel) for channel in normalizer.channels],
        "units": list(normalizer.units),
        "training": splits[0].period,
        "training_sha256": splits[0].statistics.digest,
        "validation": splits[1].period if splits[1:] else "none: the weights of the last epoch were kept",
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


def identify(
    directory: Path | None, provenance: dict, requested: TrainConfig, splits: list[Split], arrays: Iterable[np.ndarray]
) -> Run:
    """Return the run in a directory, with the fingerprint of its settings, data and `arrays` (grid, static fields)."""
    if directory is None:
        return Run(None)
    digest = hashlib.sha256(" ".join(split.statistics.digest for split in splits).encode())
    for array in (*arrays, *(positions for split in splits for positions in split.windows)):
        digest.update(np.ascontiguousarray(array))
    settings = {
        f"{group}.{name}": value
        for group in ("task", "model", "config")
        for name, value in provenance[group].items()
        if name not in RESUMABLE_FIELDS  # the saved plans keep the order of the windows
        and (name, value) not in _LEGACY_SETTINGS.items()
    }
    settings["config.precision"] = requested.precision  # "auto" may choose another one where a run resumes
    settings |= {name: provenance[name] for name in ("training", "validation", "channels", "units")}
    settings["start_from"] = provenance.get("start_from", {}).get("sha256")
    if any(split.plan.mode == "stream" for split in splits):  # then each process reads shards of its own
        settings["processes"] = provenance["processes"]
    settings["data_sha256"] = digest.hexdigest()
    return Run(directory, json.dumps(settings, sort_keys=True))


def load_plans(directory: Path | None) -> list[Plan] | None:
    """Return how a saved run reads its training and validation windows, or None without a saved run."""
    if directory is None or not (directory / _STATE).exists():
        return None
    return [Plan(**plan) for plan in _load(directory)["plans"] if plan]


def _load(directory: Path) -> dict:
    path = directory / _STATE
    try:
        with zipfile.ZipFile(path) as archive:
            if name := archive.testzip():  # torch does not verify checksums
                raise ValueError(f"the checksum of {name!r} in it does not match")
        # weights_only: loading runs no code
        saved = torch.load(path, weights_only=True, map_location="cpu")
        saved_format = saved.get("format", 1)
    except (OSError, MemoryError) as error:  # the file may be intact
        error_type, reason = (OSError, error) if isinstance(error, OSError) else (MemoryError, "too little free memory")
        message = f"{str(path)!r} cannot be read now ({reason}). Nothing was changed: call again later"
        raise error_type(message) from error
    except Exception as error:
        message = f"{str(path)!r} cannot be read as a training state: it is damaged. Move it away to start anew"
        raise ValueError(message) from error
    if saved_format != _FORMAT:
        message = f"{str(path)!r} was saved by another version (format {saved_format}, this one reads {_FORMAT})"
        raise ValueError(f"{message}: finish the run with that version, or move the file away to start anew")
    return saved


def resume(run: Run) -> dict | None:
    """Return the saved state of this run, or None if there is none; an error lists the settings that differ."""
    if run.directory is None or not (run.directory / _STATE).exists():
        return None
    saved = _load(run.directory)
    if saved["fingerprint"] != run.fingerprint:
        changes = files.differences(json.loads(saved["fingerprint"]), json.loads(run.fingerprint), _DIGESTS)
        message = f"directory={str(run.directory)!r} holds another run, as {'; '.join(changes)}"
        raise ValueError(f"{message}. Choose another directory, or call with the settings of that run to resume it")
    return saved


def save(run: Run, plans: list[Plan], state: dict) -> None:
    """Replace the saved state of a run, if it has a directory; after an error the previous state is intact."""
    if run.directory is None:
        return
    header = {"format": _FORMAT, "fingerprint": run.fingerprint, "plans": [asdict(plan) for plan in plans]}
    buffer = io.BytesIO()  # torch does not raise OSError when the disk fails, so it writes to memory
    torch.save({**header, **state}, buffer)
    with buffer.getbuffer() as content:  # released on errors too, else the buffer cannot be freed
        _write(run.directory / _STATE, content)


def write_curve(run: Run, records: list[dict], columns: dict[str, list[float]]) -> None:
    """Write the training curve as CSV, a row for each epoch, with further columns, if the run has a directory."""
    if run.directory is not None:
        _write(run.directory / _CURVE, pd.DataFrame(records).assign(**columns).to_csv(index=False).encode())


def save_forecaster(run: Run, forecaster: Forecaster) -> None:
    """Save the result of a run, if it has a directory."""
    if run.directory is not None:
        with _explain_errors(run.directory):
            forecaster.save(run.directory / _RESULT)


def _write(path: Path, content: bytes | memoryview) -> None:
    with _explain_errors(path.parent):
        files.write_atomically(path, lambda unfinished: unfinished.write_bytes(content))


@contextmanager
def _explain_errors(directory: Path) -> Iterator[None]:
    """Raise errors that say why the directory cannot be written to, and how to resume."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        error_type, code = OSError, getattr(error, "errno", None)
        resume = "call again with the same arguments to resume from the last saved state"
        if not directory.is_dir():
            error_type, reason = FileNotFoundError, "vanished during training: bring it back"
            resume += " (without it, the run starts anew)"
        elif code in _DISK_FULL or "No space left" in str(error):
            reason = f"has no space left ({error}): free some (old and new state lie side by side)"
        else:
            reason = f"cannot be written to ({error}): fix this"
        raise error_type(code or errno.EIO, f"directory={str(directory)!r} {reason}, then {resume}") from error
