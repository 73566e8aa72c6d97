"""A run in memory, or in a Zarr store from which a repeated call resumes."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import xarray as xr

from simvp_climate.data.files import check_parent, write_atomically, write_once
from simvp_climate.data.progress import progress_bar
from simvp_climate.data.windows import to_iso
from simvp_climate.data.zarr_store import open_zarr
from simvp_climate.forecasting import labels
from simvp_climate.forecasting.hindcast import check_same, complete_store, create_store, read_identity
from simvp_climate.forecasting.initial_states import states_digest
from simvp_climate.forecasting.run import BLOCK_BYTES, RunRequest, RunState, initial_state, simulate


def run(request: RunRequest, store: str | os.PathLike | None, progress: bool) -> xr.Dataset:
    """Return the run, in memory or from the store that it is written to."""
    steps = len(request.periods.index)
    if store is None:
        with progress_bar(steps, "steps", shown=progress) as bar:
            blocks = [values for _, values, _ in simulate(request, initial_state(request), bar.update)]
        return labels.label_run(request, np.concatenate(blocks))
    path = check_parent(store)
    unfinished = path.with_name(f"{path.name}.unfinished")
    state_file = unfinished.with_name(f"{unfinished.name}.npz")
    identity = identify(request)
    write_once(path, lambda: _write_or_resume(request, path, unfinished, state_file, identity, progress))
    check_same(read_identity(path, "run"), identity, path, "run")
    with suppress(OSError):
        state_file.unlink()  # after the store is complete, also that of an earlier call killed at this moment
    return open_zarr(str(path), "error")


def identify(request: RunRequest) -> dict:
    """Return values that identify a run, as JSON can hold them."""
    forecaster, start = request.forecaster, request.start
    original, axes = request.request.canonical.original, request.request.canonical.axes
    grid = [original[axis].values.tolist() for axis in (axes.latitude, axes.longitude, axes.level) if axis]
    states = [states_digest(request.request.canonical.series[0], request.request.histories[0])]
    if request.request.prescribed is not None:
        ends = request.positions[[0, len(request.positions) // 2, -1]]
        states.append(states_digest(request.request.prescribed[0].series[0], ends))
    return {
        "forecaster": forecaster.digest,
        "start": to_iso(start[0]),
        "steps": len(request.periods.index),
        "periods": len(request.periods.labels),
        "first": str(request.periods.labels[0]),
        "statistics": list(request.statistics),
        "members": request.members,
        "seed": request.seed,
        "conserve": list(request.conserve),
        "grid": hashlib.sha256(json.dumps(grid).encode()).hexdigest(),
        "data": states,
    }


def _write_or_resume(
    request: RunRequest, path: Path, unfinished: Path, state_file: Path, identity: dict, progress: bool
) -> None:
    state = _find_state(unfinished, state_file, identity)
    if state is None:
        state = initial_state(request)
        _save_state(state_file, identity, state)  # first: a store without this file counts as foreign
        block = max(1, BLOCK_BYTES // (4 * int(np.prod(request.shape))))
        create_store(labels.label_run(request, None), unfinished, "time", block)
    done, steps = state.calls * request.forecaster.task.history, len(request.periods.index)
    with progress_bar(steps, "steps", path.name, initial=min(done, steps), shown=progress) as bar:
        for rows, values, after in simulate(request, state, bar.update):
            if len(values):
                dataset = labels.label_run(request, values, rows)
                fixed = [name for name, variable in dataset.variables.items() if "time" not in variable.dims]
                dataset = dataset.drop_vars([*fixed, "time", "time_bnds"], errors="ignore").drop_encoding()
                dataset.to_zarr(unfinished, region={"time": rows}, consolidated=False)
            _save_state(state_file, identity, after)
    complete_store(unfinished, path, {"run": json.dumps(identity, sort_keys=True)})


def _find_state(path: Path, state_file: Path, identity: dict) -> RunState | None:
    """Return the state of an unfinished run, or None if there is none."""
    if not path.exists():
        state_file.unlink(missing_ok=True)  # its store is gone
        return None
    if not state_file.exists():
        message = f"{str(path)!r} exists and is not a run of simvp_climate."
        raise FileExistsError(f"{message} Delete it, or choose another name.")
    try:
        with np.load(state_file) as saved:
            before, settings = json.loads(str(saved["identity"])), json.loads(str(saved["settings"]))
            arrays = {name: saved[name] for name in ("pending", "states", "sums", "targets")}
    except (ValueError, KeyError, OSError) as error:
        message = f"{str(state_file)!r} cannot be read ({error!r}), so {str(path)!r} cannot be resumed."
        raise FileExistsError(f"{message} Delete both, or choose another name.") from error
    check_same(before, identity, path, "run")
    return RunState(settings["calls"], settings["periods"], **arrays, random=tuple(settings["random"]))


def _save_state(state_file: Path, identity: dict, state: RunState) -> None:
    settings = {"calls": state.calls, "periods": state.periods, "random": state.random}
    arrays = {name: getattr(state, name) for name in ("pending", "states", "sums", "targets")}
    texts = {"identity": json.dumps(identity), "settings": json.dumps(settings)}

    def write(unfinished: Path) -> None:
        with open(unfinished, "wb") as file:  # by its name, np.savez would add a suffix
            np.savez(file, **texts, **arrays)

    write_atomically(state_file, write, sync=False)
