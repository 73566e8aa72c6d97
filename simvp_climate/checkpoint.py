"""The state of a training run on disk, so that a stopped run goes on exactly where it stopped."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from simvp_climate.loader import Plan
from simvp_climate.settings import FREE

_STATE = "training.pt"
_PARTS = ("fingerprint", "network", "optimizer", "average", "kept", "history", "best", "plans")


@dataclass(frozen=True)
class Run:
    """Where the state of a run is kept, if anywhere, and what tells the run from others."""

    directory: Path | None
    fingerprint: str


def claim(directory: str | os.PathLike) -> Path:
    """Return the directory of a run, made if needed.

    Raises
    ------
    FileExistsError
        If it is a file, or holds something else than a run.
    """
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"directory={str(path)!r} is a file: choose a folder")
    foreign = path.is_dir() and {entry.name for entry in path.iterdir()} - {f"{_STATE}.unfinished"}
    if foreign and not (path / _STATE).exists():
        raise FileExistsError(
            f"directory={str(path)!r} holds files but no training state ({_STATE}) of ours: choose an empty or "
            "new folder, nothing is overwritten"
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def fingerprint(provenance: dict, digests: list[str], arrays: Iterable[np.ndarray]) -> str:
    """Return a text that two runs share exactly if one may go on where the other stopped.

    `digests` tell the states from others; `arrays` are grid, windows and, for fine-tuning, the weights at the start.
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
    return json.dumps({**settings, **others, "data_sha256": digest.hexdigest()}, sort_keys=True)


def plans(directory: Path | None) -> list[Plan | None] | None:
    """Return how a saved run reads its training and its validation windows, or None if there is none."""
    if directory is None or not (directory / _STATE).exists():
        return None
    return [None if plan is None else Plan(**plan) for plan in _load(directory)["plans"]]


def _load(directory: Path) -> dict:
    try:
        # weights_only: loading runs no code
        saved = torch.load(directory / _STATE, weights_only=True, map_location="cpu")
        return {name: saved[name] for name in _PARTS}
    except Exception as error:
        raise ValueError(
            f"{str(directory / _STATE)!r} cannot be read as a training state: it is damaged or not ours. Move it "
            "away to start anew"
        ) from error


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
        before, now = json.loads(saved["fingerprint"]), json.loads(run.fingerprint)
        names = sorted({name for name in before.keys() | now.keys() if before.get(name) != now.get(name)})
        changed = [f"{name} ({before.get(name)} there, {now.get(name)} now)" for name in names]
        raise ValueError(
            f"directory={str(run.directory)!r} holds another run. Different are: {'; '.join(changed)}. Choose "
            "another directory, or call with the settings of that run to resume it"
        )
    return saved


def save(
    run: Run,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    kept: dict[str, Tensor],
    history: list[dict],
    best: float,
    plans: list[Plan | None],
) -> None:
    """Write the state under a temporary name and rename it; do nothing for a run without a directory."""
    if run.directory is None:
        return
    state = {
        "fingerprint": run.fingerprint,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "kept": kept,
        "history": history,
        "best": best,
        "plans": [None if plan is None else dataclasses.asdict(plan) for plan in plans],
    }
    unfinished = run.directory / f"{_STATE}.unfinished"
    torch.save(state, unfinished)
    os.replace(unfinished, run.directory / _STATE)
