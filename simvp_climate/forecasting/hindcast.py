"""Write forecasts from many initializations to a Zarr store, a few at a time; a repeated call resumes."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from simvp_climate.data.checksums import remove_leftovers, write_checksums
from simvp_climate.data.files import check_parent, differences, write_atomically, write_once
from simvp_climate.data.progress import progress_bar
from simvp_climate.data.zarr_store import open_zarr
from simvp_climate.forecasting.initial_states import combine_init_digests, states_digest
from simvp_climate.forecasting.request import ForecastRequest

_ATTRIBUTE = "hindcast"  # attribute of a complete store: its identity as JSON
_BATCH_BYTES = 2**26  # of the forecasts in one batch


def identify(request: ForecastRequest, variables: Sequence[str], forecaster_digest: str) -> dict:
    """Return values that identify a hindcast, as JSON can hold them."""
    inits = request.init_times(request.histories)
    original, axes, series = request.canonical.original, request.canonical.axes, request.canonical.series
    grid = [original[axis].values.tolist() for axis in (axes.latitude, axes.longitude, axes.level) if axis]
    return {
        "forecaster": forecaster_digest,
        "horizon": request.horizon,
        "initializations": len(inits),
        "first": str(inits[0]),
        "last": str(inits[-1]),
        "times": hashlib.sha256("\n".join(map(str, inits)).encode()).hexdigest(),
        "grid": hashlib.sha256(json.dumps(grid).encode()).hexdigest(),
        "members": len(series),
        "units": {name: str(request.canonical.dataset[name].attrs.get("units", "")) for name in variables},
        # reading all data would take too long: the first and the last initial states stand for them
        "data": [states_digest(member, history) for member in series for history in request.histories[[0, -1]]],
    }


def write(
    store: str | os.PathLike, identity: dict, histories: np.ndarray, template: Callable[[np.ndarray], xr.Dataset],
    forecast: Callable[[np.ndarray], tuple[xr.Dataset, list[str]]], progress: bool,
) -> xr.Dataset:  # fmt: skip
    """Write forecasts to a Zarr store, resuming after an earlier call, and open it; `identity` is from `identify`.

    `forecast` and `template` are like `forecaster.predict` and `forecaster.template`, of histories (init, history).
    """
    path = check_parent(store)
    unfinished = path.with_name(f"{path.name}.unfinished")
    state_file = unfinished.with_name(f"{unfinished.name}.json")
    forecast_bytes = sum(variable.nbytes for variable in template(histories[:1]).values())
    batch = max(1, _BATCH_BYTES // forecast_bytes)
    identity = {**identity, "batch": batch}
    steps = partial(_write_or_resume, path, unfinished, state_file, identity, histories, template, forecast, progress)
    write_once(path, steps)
    check_same(read_identity(path, _ATTRIBUTE), identity, path, "hindcast")
    with suppress(OSError):
        state_file.unlink()  # after the store is complete, also that of an earlier call killed at this moment
    return open_zarr(str(path), "error")


def _write_or_resume(
    path: Path, unfinished: Path, state_file: Path, identity: dict, histories: np.ndarray,
    template: Callable[[np.ndarray], xr.Dataset], forecast: Callable[[np.ndarray], tuple[xr.Dataset, list[str]]],
    progress: bool,
) -> None:  # fmt: skip
    batch, count = identity["batch"], len(histories)
    digests = _find_finished(unfinished, state_file, identity)
    if not digests:
        _save_state(state_file, identity, [])  # first: a store without this file counts as foreign
        create_store(template(histories), unfinished, "init_time", batch)
    with progress_bar(count, "forecasts", path.name, initial=len(digests), shown=progress) as bar:
        while (done := len(digests)) < count:
            rows = slice(done, min(done + batch, count))
            forecasts, batch_digests = forecast(histories[rows])
            fixed = [name for name, variable in forecasts.variables.items() if "init_time" not in variable.dims]
            forecasts = forecasts.drop_vars([*fixed, "init_time"]).drop_encoding()  # the store has its own
            forecasts.to_zarr(unfinished, region={"init_time": rows}, consolidated=False)
            digests += batch_digests
            _save_state(state_file, identity, digests)
            bar.update(len(batch_digests))
    attributes = {"data_sha256": combine_init_digests(digests), _ATTRIBUTE: json.dumps(identity, sort_keys=True)}
    complete_store(unfinished, path, attributes)


def complete_store(unfinished: Path, path: Path, attributes: dict[str, str]) -> None:
    """Add attributes, consolidated metadata and checksums to a store, and give it its name."""
    group = zarr.open_group(unfinished, mode="a", use_consolidated=False)
    group.attrs.update(attributes)
    remove_leftovers(unfinished)  # the consolidated metadata hold no checksums
    zarr.consolidate_metadata(unfinished, zarr_format=2)
    write_checksums(unfinished)
    os.replace(unfinished, path)


def create_store(template: xr.Dataset, path: Path, dim: str, size: int) -> None:
    """Write metadata and coordinates, without values, in chunks of `size` along a dimension."""
    encoding = {}
    for name, variable in template.data_vars.items():
        sizes = {**variable.sizes, dim: min(size, template.sizes[dim])}
        encoding[name] = {"chunks": tuple(sizes.values()), "_FillValue": np.float32(np.nan)}
        kept = variable.encoding.get("coordinates")
        variable.encoding = {} if kept is None else {"coordinates": kept}
    # coordinates are small: one chunk each, so that regions share no partial chunks
    for coordinate in template.coords.values():
        if dim in coordinate.dims:
            coordinate.encoding["chunks"] = coordinate.shape
    if path.exists():
        shutil.rmtree(path)
    # nothing is computed, so no two dask tasks can write to one chunk
    options = {"compute": False, "safe_chunks": False, "zarr_format": 2, "consolidated": False}
    template.to_zarr(path, mode="w", encoding=encoding, **options)


def _find_finished(path: Path, state_file: Path, identity: dict) -> list[str]:
    """Return the digests of the forecasts in an unfinished store."""
    if not path.exists():
        state_file.unlink(missing_ok=True)  # its store is gone
        return []
    if not state_file.exists():
        message = f"{str(path)!r} exists and is not a hindcast of simvp_climate."
        raise FileExistsError(f"{message} Delete it, or choose another name.")
    try:
        state = json.loads(state_file.read_text())
        before, digests = state["plan"], list(state["digests"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{str(state_file)!r} cannot be read ({error!r}), so {str(path)!r} cannot be resumed."
        raise FileExistsError(f"{message} Delete both, or choose another name.") from error
    check_same(before, identity, path, "hindcast")
    return digests


def check_same(before: dict | None, identity: dict, path: Path, kind: str) -> None:
    """Raise FileExistsError if a store is not what `identity` says; `kind` is "hindcast" or "run"."""
    if before is None:
        raise FileExistsError(f"{str(path)!r} exists and is not a {kind} of simvp_climate. Choose another name.")
    if changes := "; ".join(differences(before, identity)):
        raise FileExistsError(f"{str(path)!r} is another {kind}: {changes}. Choose another name, or delete it.")


def read_identity(path: Path, attribute: str) -> dict | None:
    """Return the identity in an attribute of a store, or None if it has none."""
    try:
        text = zarr.open_group(path, mode="r").attrs.get(attribute)
        return None if text is None else json.loads(text)
    except (OSError, ValueError):
        return None


def _save_state(state_file: Path, identity: dict, digests: list[str]) -> None:
    content = json.dumps({"plan": identity, "digests": digests})
    write_atomically(state_file, lambda unfinished: unfinished.write_text(content), sync=False)
