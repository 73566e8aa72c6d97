"""Forecasts from many times, written as they are made: what was written before a kill is not made again."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from simvp_climate.data.files import differences, write_atomically
from simvp_climate.data.progress import tqdm

_RUN = "hindcast"


def write(
    to: Path,
    plan: dict,
    template: Callable[[], xr.Dataset],
    make: Callable[[slice], tuple[xr.Dataset, list[str]]],
    progress: bool,
) -> xr.Dataset:
    """Write forecasts to a store, going on where an earlier call stopped, and open it.

    Parameters
    ----------
    to
        The store.
    plan
        What makes this hindcast what it is, in plain values; `initializations` of it is their number, `batch` how many
        are made at a time.
    template
        Makes the whole Dataset, without values in memory.
    make
        Returns the forecasts of some initializations, and the digests of the data of each.
    progress
        Whether a bar is shown.

    Raises
    ------
    FileExistsError
        If what is there is not of this plan.
    """
    count, batch = plan["initializations"], plan["batch"]
    unfinished = to.with_name(f"{to.name}.unfinished")
    progress_file = unfinished.with_name(f"{unfinished.name}.json")
    if to.exists():
        _check_same(_run_of(to), plan, to)
        progress_file.unlink(missing_ok=True)  # killed between the last two steps
        return _open(to)
    digests = _resume(unfinished, progress_file, plan)
    if digests is None:
        digests = []
        _save(progress_file, plan, digests)  # first of all: a store without a plan is somebody else's
        _lay_out(template(), unfinished, batch)
    with tqdm(total=count, initial=len(digests), unit="forecasts", desc=to.name, disable=not progress) as bar:
        while (done := len(digests)) < count:
            part = slice(done, min(done + batch, count))
            forecast, found = make(part)
            data = forecast.drop_vars([name for name, v in forecast.variables.items() if "init_time" not in v.dims])
            for variable in data.variables.values():
                variable.encoding = {}  # those of the store hold
            data.drop_vars("init_time").to_zarr(unfinished, region={"init_time": part}, consolidated=False)
            digests += found
            _save(progress_file, plan, digests)
            bar.update(len(found))
    group = zarr.open_group(unfinished, mode="a", use_consolidated=False)
    group.attrs.update({"data_sha256": combined(digests), _RUN: json.dumps(plan, sort_keys=True)})
    zarr.consolidate_metadata(unfinished, zarr_format=2)
    os.replace(unfinished, to)
    progress_file.unlink()
    return _open(to)


def combined(digests: list[str]) -> str:
    """Return the digest of the data of several initializations from theirs."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _lay_out(template: xr.Dataset, path: Path, batch: int) -> None:
    """Write everything but the forecasts."""
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
    if not path.exists():
        progress_file.unlink(missing_ok=True)  # what it tells of is gone
        return None
    if not progress_file.exists():
        raise FileExistsError(
            f"{str(path)!r} exists, and is no hindcast that was begun here: delete it, or choose another name"
        )
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
    if changes := differences(before, plan):
        raise FileExistsError(
            f"{str(path)!r} is another hindcast: {'; '.join(changes)}. Nothing was overwritten: choose another name, "
            "or delete it"
        )


def _run_of(path: Path) -> dict | None:
    try:
        text = zarr.open_group(path, mode="r").attrs.get(_RUN)
        return None if text is None else json.loads(text)
    except (OSError, ValueError):
        return None


def _save(path: Path, plan: dict, digests: list[str]) -> None:
    content = json.dumps({"plan": plan, "digests": digests})
    write_atomically(path, lambda unfinished: unfinished.write_text(content), sync=False)


def _open(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, consolidated=True, decode_timedelta=True)
