"""Forecasts from many times, written as they are made: what was written before a kill is not made again."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array
import numpy as np
import xarray as xr
import zarr
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from simvp_climate.forecaster import Forecaster, Start

_RUN = "hindcast"
# of the forecasts that are made and written at a time
_BATCH_BYTES = 2**26


def write(forecaster: "Forecaster", start: "Start", to: Path, progress: bool) -> xr.Dataset:
    """Write the forecasts of a start to a store, going on where an earlier call stopped, and open it."""
    count = len(start.histories)
    batch = max(1, _BATCH_BYTES // (forecaster.state_bytes * start.horizon * len(start.series)))
    plan = _plan(forecaster, start, batch)
    if to.exists():
        _check_same(_run_of(to), plan, to)
        return _open(to)
    unfinished = to.with_name(f"{to.name}.unfinished")
    progress_file = unfinished.with_name(f"{unfinished.name}.json")
    digests = _resume(unfinished, progress_file, plan)
    if digests is None:
        digests = []
        _save(progress_file, plan, digests)  # first of all: a store without a plan is somebody else's
        _lay_out(forecaster, start, unfinished, batch)
    bar = tqdm(total=count, initial=len(digests), unit="forecasts", desc=to.name, disable=not progress)
    with bar:
        while (done := len(digests)) < count:
            part = slice(done, min(done + batch, count))
            found: list[bytes] = []

            def states(one, histories, horizon, found=found):
                values, own = forecaster._states(one, histories, horizon)
                found.extend(own)
                return values, own

            forecast = forecaster._forecast(start, start.histories[part], states)
            data = forecast.drop_vars([name for name, v in forecast.variables.items() if "init_time" not in v.dims])
            for variable in data.variables.values():
                variable.encoding = {}  # those of the store hold
            data.drop_vars("init_time").to_zarr(unfinished, region={"init_time": part}, consolidated=False)
            size = part.stop - part.start
            digests += [hashlib.sha256(b"".join(found[at::size])).hexdigest() for at in range(size)]
            _save(progress_file, plan, digests)
            bar.update(size)
    group = zarr.open_group(unfinished, mode="a", use_consolidated=False)
    group.attrs.update({"data_sha256": _combined(digests), _RUN: json.dumps(plan, sort_keys=True)})
    zarr.consolidate_metadata(unfinished, zarr_format=2)
    os.replace(unfinished, to)
    progress_file.unlink()
    return _open(to)


def _plan(forecaster: "Forecaster", start: "Start", batch: int) -> dict:
    """Return what makes a hindcast this one, in plain values."""
    inits = start.inside.indexes["time"][start.histories[:, -1]]
    grid = {str(name): c.values.tolist() for name, c in start.dataset.coords.items() if _is_grid(name, c, start)}
    return {
        "forecaster": forecaster.digest,
        "horizon": start.horizon,
        "initializations": len(inits),
        "first": str(inits[0]),
        "last": str(inits[-1]),
        "times": hashlib.sha256("\n".join(map(str, inits)).encode()).hexdigest(),
        "grid": hashlib.sha256(json.dumps(grid, sort_keys=True, default=str).encode()).hexdigest(),
        "batch": batch,
    }


def _is_grid(name: str, coordinate: xr.DataArray, start: "Start") -> bool:
    """Whether a coordinate is one of the axes of a field; its time goes by itself."""
    return coordinate.dims == (name,) and coordinate.dtype.kind in "fiu" and coordinate.size < 10**5


def _lay_out(forecaster: "Forecaster", start: "Start", path: Path, batch: int) -> None:
    """Write everything but the forecasts."""
    channels = len(forecaster._told.channels)
    grid = (forecaster.latitude.size, forecaster.longitude.size)
    chunks = (batch, start.horizon, channels, *grid)

    def nothing(one: xr.Dataset, histories: np.ndarray, horizon: int) -> tuple[dask.array.Array, list[bytes]]:
        shape = (len(histories), horizon, channels, *grid)
        return dask.array.full(shape, np.float32(np.nan), chunks=chunks, dtype=np.float32), []

    template = forecaster._forecast(start, start.histories, nothing)
    encoding = {}
    for name, variable in template.data_vars.items():
        sizes = {"init_time": min(batch, template.sizes["init_time"])}
        encoding[name] = {
            "chunks": tuple(sizes.get(dim, size) for dim, size in variable.sizes.items()),
            "_FillValue": np.float32(np.nan),
        }
        variable.encoding = {}
    # a whole coordinate in one chunk: they are small, and no region writes them twice
    for name in ("init_time", "valid_time", "valid_time_bnds"):
        if name in template.coords:
            template[name].encoding["chunks"] = template[name].shape
    if path.exists():
        shutil.rmtree(path)
    # nothing is computed, so that no two tasks can meet in a chunk
    options = {"compute": False, "safe_chunks": False, "zarr_format": 2, "consolidated": False}
    template.to_zarr(path, mode="w", encoding=encoding, **options)


def _resume(path: Path, progress_file: Path, plan: dict) -> list[str] | None:
    """Return the digests of the forecasts that are written already, or None if none are."""
    if not progress_file.exists():
        if path.exists():
            raise FileExistsError(
                f"{str(path)!r} exists, and is no hindcast that was begun here: delete it, or choose another name"
            )
        return None
    try:
        saved = json.loads(progress_file.read_text())
        before, digests = saved["plan"], saved["digests"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f"{str(progress_file)!r} cannot be read ({error!r}), and nothing says how far {str(path)!r} is: delete "
            "both and start anew, or choose another name"
        ) from error
    _check_same(before, plan, path)
    # killed while it was laid out: nothing was forecast yet
    return digests if digests else None


def _check_same(before: dict | None, plan: dict, path: Path) -> None:
    if before is None:
        raise FileExistsError(
            f"{str(path)!r} exists and is no hindcast of simvp_climate: nothing was overwritten. Choose another name"
        )
    if different := [f"{key} {before.get(key)} (now {plan[key]})" for key in plan if before.get(key) != plan[key]]:
        raise FileExistsError(
            f"{str(path)!r} is another hindcast: {'; '.join(different)}. Nothing was overwritten: choose another name, "
            "or delete it"
        )


def _run_of(path: Path) -> dict | None:
    try:
        text = zarr.open_group(path, mode="r").attrs.get(_RUN)
        return None if text is None else json.loads(text)
    except (OSError, ValueError):
        return None


def _save(path: Path, plan: dict, digests: list[str]) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(json.dumps({"plan": plan, "digests": digests}))
    os.replace(unfinished, path)


def _combined(digests: list[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _open(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, consolidated=True, decode_timedelta=True)
