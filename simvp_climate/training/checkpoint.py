"""The state of a training run on disk, so that a stopped run goes on exactly where it stopped."""

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
import torch

from simvp_climate.data.files import differences, lock, unfinished_path, write_atomically
from simvp_climate.training.config import FREE
from simvp_climate.training.loader import Plan

RESULT = "forecaster.safetensors"
_STATE, _HISTORY = "training.pt", "history.csv"
_FORMAT = 2
_DIGESTS = {  # what it means that two digests differ
    "data_sha256": "other values, grid, windows or fields without time",
    "start_from": "other weights or statistics",
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Run:
    """Where the state of a run is kept, if anywhere, and what tells the run from others."""

    directory: Path | None
    fingerprint: str


@contextmanager
def hold(directory: str | os.PathLike | None) -> Iterator[Path | None]:
    """Give the directory of a run, made if needed, to this process alone while the context lasts.

    What a process that died left unfinished is removed.

    Raises
    ------
    FileExistsError
        If it is a file, or holds files of the names that a run writes, and no state of one.
    RuntimeError
        If another process trains there.
    """
    if directory is None:
        yield None
        return
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"directory={str(path)!r} is a file: choose a folder")
    # what others write there (a scheduler, a logger) is left alone
    found = [name for name in (_HISTORY, RESULT) if (path / name).exists()]
    if found and not (path / _STATE).exists():
        raise FileExistsError(
            f"directory={str(path)!r} holds {' and '.join(found)}, but no training state ({_STATE}) of ours: choose "
            "another folder, or move them away, nothing is overwritten"
        )
    path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path))
        except BlockingIOError as error:
            raise RuntimeError(
                f"directory={str(path)!r} is in use: another process trains there. Wait until it has ended, or choose "
                "another directory"
            ) from error
        for name in (_STATE, _HISTORY, RESULT):
            unfinished_path(path / name).unlink(missing_ok=True)
        yield path


def fingerprint(provenance: dict, digests: list[str], arrays: Iterable[np.ndarray], streamed: bool) -> str:
    """Return a text that two runs share exactly if one may go on where the other stopped.

    `digests` tell the states from others; `arrays` are grid and windows; `streamed` says whether states are not kept in
    memory.
    """
    digest = hashlib.sha256(" ".join(digests).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    settings = {
        f"{group}.{name}": value
        for group in ("task", "model", "config")
        for name, value in provenance[group].items()
        if name not in FREE  # the order of the windows is kept in `plans`
    }
    others = {name: provenance[name] for name in ("training", "validation", "channels", "units")}
    others["start_from"] = provenance.get("start_from", {}).get("sha256")
    if streamed:  # every process reads stretches of its own
        others["processes"] = provenance["processes"]
    return json.dumps({**settings, **others, "data_sha256": digest.hexdigest()}, sort_keys=True)


def plans(directory: Path | None) -> list[Plan | None] | None:
    """Return how a saved run reads its training and its validation windows, or None if there is none."""
    if directory is None or not (directory / _STATE).exists():
        return None
    return [None if plan is None else Plan(**plan) for plan in _load(directory)["plans"]]


def _load(directory: Path) -> dict:
    path = directory / _STATE
    try:
        with zipfile.ZipFile(path) as archive:
            if name := archive.testzip():  # torch does not look at the checksums
                raise ValueError(f"the checksum of {name!r} in it is another")
        # weights_only: loading runs no code
        saved = torch.load(path, weights_only=True, map_location="cpu")
        found = saved.get("format", 1)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"{str(path)!r} cannot be read now ({error}). Nothing was changed: call again when the disk answers",
        ) from error
    except MemoryError as error:
        raise MemoryError(
            f"{str(path)!r} ({path.stat().st_size / 2**20:.0f} MiB) does not fit into the memory that is free. Nothing "
            "was changed: call again where there is more"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as a training state: it is damaged or not ours. Move it away to start anew"
        ) from error
    if found != _FORMAT:
        raise ValueError(
            f"{str(path)!r} is the state of a run of another version of simvp_climate (format {found}, this one reads "
            f"{_FORMAT}): finish it with that version, or move it away to start anew"
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
        changed = differences(json.loads(saved["fingerprint"]), json.loads(run.fingerprint), _DIGESTS)
        raise ValueError(
            f"directory={str(run.directory)!r} holds another run. Different are: {'; '.join(changed)}. Choose "
            "another directory, or call with the settings of that run to resume it"
        )
    return saved


def save(run: Run, plans: list[Plan | None], state: dict) -> None:
    """Put the state of a run in the place of the one before; do nothing for a run without a directory.

    Raises
    ------
    OSError
        If it cannot be written, with the way out. The state from before is as it was.
    """
    if run.directory is None:
        return
    kept = {"plans": [None if plan is None else dataclasses.asdict(plan) for plan in plans]}
    buffer = io.BytesIO()  # in memory first: then what goes wrong with the disk is an OSError that says what
    torch.save({"format": _FORMAT, "fingerprint": run.fingerprint, **kept, **state}, buffer)
    with buffer.getbuffer() as content:  # let go of, whatever happens: else the buffer cannot be freed
        _write(run.directory / _STATE, content)


def write_history(run: Run, history: list[dict], more: dict[str, list[float]]) -> None:
    """Write the history as CSV, one row for each epoch, with more columns; do nothing without a directory."""
    if run.directory is not None:
        table = pd.DataFrame(history).assign(**more)
        _write(run.directory / _HISTORY, table.to_csv(index=False).encode())


def explain(directory: Path, error: Exception) -> OSError:
    """Return the error of a write into the directory of a run in words that say how to go on."""
    again = "then call again with the same arguments: the run goes on from the state that was saved last"
    number = getattr(error, "errno", None)
    if not directory.is_dir():
        kind, words = FileNotFoundError, "vanished while the run trains: bring it back"
        again += " (if that is lost, it starts anew)"
    elif number in _NO_ROOM or "No space left" in str(error):
        kind, words = OSError, f"has no room left ({error}): free some, the new state lies beside the old one,"
    else:
        kind, words = OSError, f"cannot be written to ({error}): mend that,"
    return kind(number or errno.EIO, f"directory={str(directory)!r} {words} {again}")


def _write(path: Path, content: bytes | memoryview) -> None:
    try:
        write_atomically(path, lambda unfinished: unfinished.write_bytes(content))
    except OSError as error:
        raise explain(path.parent, error) from error
