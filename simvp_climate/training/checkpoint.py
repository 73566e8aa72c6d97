"""The directory of a training run: its saved state, its training curve, its lock, and its result."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch

from simvp_climate.data import files
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.training.config import RESUMABLE_FIELDS
from simvp_climate.training.datasets import Split
from simvp_climate.training.loader import Plan

_RESULT, _STATE, _CURVE = "forecaster.safetensors", "training.pt", "training_curve.csv"
_FORMAT = 3  # of the state; only states of the same format are resumed
_DIGESTS = {  # what it means that two digests differ
    "data_sha256": "other values, grid, windows or fields without time",
    "start_from": "other weights or statistics",
}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes
    ----------
    directory
        Where its state is saved; None if nowhere.
    fingerprint
        JSON of all settings and data that decide its result; a state is resumed only by a run with the same.
    """

    directory: Path | None
    fingerprint: str = ""


@contextmanager
def lock(directory: str | os.PathLike | None) -> Iterator[Path | None]:
    """Create the directory of a run if needed, and lock it for this process while the context lasts.

    Unfinished files of a process that died are removed.

    Raises
    ------
    FileExistsError
        If the path is a file, or the folder has results but no training state.
    RuntimeError
        If another process trains there.
    """
    if directory is None:
        yield None
        return
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"directory={str(path)!r} is a file: choose a folder")
    # files of others there (a scheduler, a logger) stay as they are
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
            raise RuntimeError(
                f"directory={str(path)!r} is in use: another process trains there. Wait until it has ended, or choose "
                "another directory"
            ) from error
        for name in (_STATE, _CURVE, _RESULT):
            files.unfinished_path(path / name).unlink(missing_ok=True)
        yield path


def identify(
    directory: Path | None,
    provenance: dict,
    train_split: Split,
    valid_split: Split | None,
    arrays: Iterable[np.ndarray],
) -> Run:
    """Return the run in a directory, with the fingerprint of its settings, data and `arrays` (grid, static fields)."""
    if directory is None:
        return Run(None)
    splits = [train_split] if valid_split is None else [train_split, valid_split]
    digest = hashlib.sha256(" ".join(split.statistics.digest for split in splits).encode())
    for array in (*arrays, *(positions for split in splits for positions in split.windows)):
        digest.update(np.ascontiguousarray(array))
    settings = {
        f"{group}.{name}": value
        for group in ("task", "model", "config")
        for name, value in provenance[group].items()
        if name not in RESUMABLE_FIELDS  # the saved plans keep the order of the windows
    }
    settings |= {name: provenance[name] for name in ("training", "validation", "channels", "units")}
    settings["start_from"] = provenance.get("start_from", {}).get("sha256")
    if any(split.plan.mode == "stream" for split in splits):  # then each process reads shards of its own
        settings["processes"] = provenance["processes"]
    settings["data_sha256"] = digest.hexdigest()
    return Run(directory, json.dumps(settings, sort_keys=True))


def load_plans(directory: Path | None) -> list[Plan | None] | None:
    """Return how a saved run reads its training and validation windows, or None without a saved run."""
    if directory is None or not (directory / _STATE).exists():
        return None
    return [None if plan is None else Plan(**plan) for plan in _load(directory)["plans"]]


def _load(directory: Path) -> dict:
    path = directory / _STATE
    try:
        with zipfile.ZipFile(path) as archive:
            if name := archive.testzip():  # torch does not verify checksums
                raise ValueError(f"the checksum of {name!r} in it does not match")
        # weights_only: loading runs no code
        saved = torch.load(path, weights_only=True, map_location="cpu")
        version = saved.get("format", 1)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"{str(path)!r} cannot be read now ({error}). Nothing was changed: call again when the disk answers",
        ) from error
    except MemoryError as error:
        raise MemoryError(
            f"{str(path)!r} ({path.stat().st_size / 2**20:.0f} MiB) does not fit into the free memory. Nothing was "
            "changed: call again where there is more"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as a training state: it is damaged. Move it away to start anew"
        ) from error
    if version != _FORMAT:
        raise ValueError(
            f"{str(path)!r} was saved by another version of simvp_climate (format {version}, this one reads "
            f"{_FORMAT}): finish the run with that version, or move the file away to start anew"
        )
    return saved


def resume(run: Run) -> dict | None:
    """Return the saved state of this run, or None if there is none.

    Raises
    ------
    ValueError
        If the state is damaged, or that of another run: the message lists the settings that differ.
    """
    if run.directory is None or not (run.directory / _STATE).exists():
        return None
    saved = _load(run.directory)
    if saved["fingerprint"] != run.fingerprint:
        changes = files.differences(json.loads(saved["fingerprint"]), json.loads(run.fingerprint), _DIGESTS)
        raise ValueError(
            f"directory={str(run.directory)!r} holds another run, as {'; '.join(changes)}. Choose another directory, "
            "or call with the settings of that run to resume it"
        )
    return saved


def save(run: Run, plans: list[Plan | None], state: dict) -> None:
    """Replace the saved state of a run; do nothing for a run without a directory.

    Raises
    ------
    OSError
        If it cannot be written; the previous state is intact.
    """
    if run.directory is None:
        return
    header = {"format": _FORMAT, "fingerprint": run.fingerprint}
    header |= {"plans": [None if plan is None else dataclasses.asdict(plan) for plan in plans]}
    buffer = io.BytesIO()  # torch does not raise OSError when the disk fails, so it writes to memory
    torch.save({**header, **state}, buffer)
    with buffer.getbuffer() as content:  # released on errors too, else the buffer cannot be freed
        _write(run.directory / _STATE, content)


def write_curve(run: Run, records: list[dict], columns: dict[str, list[float]]) -> None:
    """Write the training curve as CSV, a row for each epoch, with further columns; do nothing without a directory."""
    if run.directory is not None:
        table = pd.DataFrame(records).assign(**columns)
        _write(run.directory / _CURVE, table.to_csv(index=False).encode())


def save_forecaster(run: Run, forecaster: Forecaster) -> None:
    """Save the result of a run; do nothing for a run without a directory."""
    if run.directory is not None:
        try:
            forecaster.save(run.directory / _RESULT)
        except (OSError, safetensors.SafetensorError) as error:
            raise _explain(run.directory, error) from error


def _write(path: Path, content: bytes | memoryview) -> None:
    try:
        files.write_atomically(path, lambda unfinished: unfinished.write_bytes(content))
    except OSError as error:
        raise _explain(path.parent, error) from error


def _explain(directory: Path, error: Exception) -> OSError:
    """Return an error that says why the directory cannot be written to, and how to resume."""
    error_type, resume = OSError, "call again with the same arguments to resume from the last saved state"
    code = getattr(error, "errno", None)
    if not directory.is_dir():
        error_type, reason = FileNotFoundError, "vanished during training: bring it back"
        resume += " (without it, the run starts anew)"
    elif code in _DISK_FULL or "No space left" in str(error):
        reason = f"has no space left ({error}): free some (old and new state lie side by side)"
    else:
        reason = f"cannot be written to ({error}): fix this"
    return error_type(code or errno.EIO, f"directory={str(directory)!r} {reason}, then {resume}")
