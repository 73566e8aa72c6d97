"""A dataset written once, in the layout that trains best.

The layout was measured on 120 MB of 6-hourly fields of 32 x 64, on two cores, warm, in blocks of 1024 times; MB
decoded per CPU-second:

    chunks                         zarr-python   tensorstore
    0.2 MB, Blosc-lz4                      390          2400
    1 MB, Blosc-lz4                       1500          2400
    4 MB, Blosc-lz4                       2000          3000
    1 MB in shards of 64 MB, lz4          1200          3000
    1 MB, Blosc-zstd                      1330          3000

Chunks of 1 MB: a shuffled stream reads less twice the fewer times a chunk has, and with smaller ones zarr-python
spends its time on the chunks and not on the bytes. No shards: zarr-python pays a fifth for them, so they are an
option for file systems that count files and for object stores. lz4: zstd saves a tenth of the disk and no time.
"""

import hashlib
import itertools
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array
import numcodecs
import numpy as np
import xarray as xr
import zarr

from simvp_climate.data.files import check_parent, differences, write_atomically
from simvp_climate.data.grid import find_axes
from simvp_climate.data.progress import tqdm
from simvp_climate.data.store import drop_codecs
from simvp_climate.data.views import variable_identity

_DTYPES = ("float32", "float16", "int16")
_BLOCK_BYTES = 2**26  # read at once; up to four times that if a chunk of the source is then read but once
_MISSING = -32768
# packed values go from -_STEPS / 2 to _STEPS / 2: all of int16 but the one that means missing
_STEPS = 65534
_ERROR = "cache_max_abs_error"
_MADE_FROM = "cache_made_from"
_STORED = "stored (identity)"
_FILES_CHANGED = "the files of the source changed since: their sizes or times, or the selection"


def cache(
    dataset: xr.Dataset,
    path: str | os.PathLike,
    *,
    dtype: str = "float32",
    chunk_bytes: int = 2**20,
    shard_bytes: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Write a dataset once, in the layout that trains best, and return what was written, lazily.

    It pays where a store keeps all levels, or very many times, in one chunk: one level out of a chunk of 13
    costs 13 times its size in every epoch; here it is paid once. Later, `open_dataset(path, variables)` opens
    the cache like any other store.

    Variables come out on (time, ..., level, latitude, longitude), in chunks of whole globes on one level, as
    Zarr format 3. Their names, attributes and missing values, and all coordinates with their order and
    calendar, are those of `dataset`. Variables without time, latitude or longitude are copied as they are.
    Every other one says in its attribute `cache_max_abs_error`, in its own units, how far its values are from
    those of `dataset` at most: 0 for float32 out of float32.

    The store is written into the folder `<path>.unfinished` and moved when it is complete. If the writing
    stops (time limit, full disk), the same call goes on where it stopped, and the store is the same to the
    byte. A finished store that was made from the same dataset with the same settings is returned as it is. The
    same are datasets that agree in names, attributes, coordinates, the path they were opened from, and the
    values at their first, middle and last time, and whose files (each chunk's) have the size and the time of
    change that they had. Files count where a dataset comes as `open_dataset` opened it from a local disk; of
    remote stores, datasets in memory and those out of arithmetic or dask the values at other times are not
    compared.

    Time is read in blocks of about 64 MB of one variable (up to 256 MB where the chunks of the source are as
    long), which end where the chunks of the source end, so that each is read once; if a selection of times
    begins inside a chunk, once more per block. `z500` and `z850` out of one array with levels are two passes,
    `geopotential` with levels=[500, 850] is one. Memory: a block and 8 times a chunk (or shard) of the cache,
    beside the chunks that are being decoded, some ten at a time (measured with chunks of 10 MB: 0.5 GB in all).
    If there is a dask.distributed client, its workers write the blocks: they must see the same file system, and
    each thread of theirs needs that memory.

    Parameters
    ----------
    dataset
        What `open_dataset` returned, or any Dataset on time, latitude and longitude: dimensions of other names (`lat`,
        `valid_time`) are called so in the cache.
    path
        A folder on a file system (not a bucket) that does not exist yet.
    dtype
        "float32"; "float16" (11 bits, for values around zero: 5e4 is kept to within 16; they come back as
        float16); or "int16": 65534 equal steps from the smallest to the largest value of a variable, all levels
        on one scale, for which the dataset is read twice; they come back as float64.
    chunk_bytes
        Size of a chunk before compression, about.
    shard_bytes
        Size of a file with many chunks before compression, about; None puts each chunk into a file of its own.
    progress
        Show a bar, and at the end a line with the sizes and errors.

    Raises
    ------
    FileExistsError
        If there is something at `path` that `cache` did not write.
    ValueError
        If what is there, finished or not, was made from another dataset or with other settings; it names the
        difference. If a dimension is missing, or a variable is not numeric.
    OverflowError
        If a value does not fit `dtype`.
    OSError
        If the disk has not enough room; it names the bytes needed and free.
    """
    target, building = _check_path(path)
    _check_settings(dtype, chunk_bytes, shard_bytes)
    axes = find_axes(dataset)
    names = {axes.time: "time", axes.latitude: "latitude", axes.longitude: "longitude"}
    dataset = dataset.rename({old: new for old, new in names.items() if old is not None and old != new})
    fields = _fields(dataset)
    layouts = {name: _layout(field, dtype, chunk_bytes, shard_bytes) for name, field in fields.items()}
    samples = {name: _sample(field) for name, field in fields.items()}
    settings = {"dtype": dtype, "chunk_bytes": chunk_bytes, "shard_bytes": shard_bytes}
    made_from = _made_from(dataset, samples, settings)
    if target.exists():
        _check_finished(target, made_from)
        if (building / "made_from.json").exists():
            shutil.rmtree(building)  # a run died right after the move
        return _open(target)
    if building.exists():
        _check_unfinished(building, made_from)
    _check_room(target, building, fields, samples, dtype)
    building.mkdir(exist_ok=True)
    _write_json(building / "made_from.json", made_from)
    (building / "blocks").mkdir(exist_ok=True)
    blocks = [_Block(name, times) for name, layout in layouts.items() for times in layout.blocks]
    blocks.sort(key=lambda block: block.times.start)  # variables out of one file are read while it is at hand
    packings = dict.fromkeys(fields, _Packing(dtype))
    bar = tqdm(total=(1 + (dtype == "int16")) * len(blocks), desc=target.name, unit="block", disable=not progress)
    try:
        with bar:
            if dtype == "int16":
                work = {name: partial(_find_range, name) for name in fields}
                ranges = _run("range", work, blocks, fields, building, bar)
                packings = {
                    name: _fit_packing((one["low"], one["high"]) for one in found) for name, found in ranges.items()
                }
            if not (building / "store").exists():
                _create(building, dataset, layouts, packings)
            work = {
                name: partial(_write, name, building / "store" / name, layouts[name], packings[name]) for name in fields
            }
            written = _run("written", work, blocks, fields, building, bar)
    except OverflowError:
        shutil.rmtree(building)  # of no use any more: these settings cannot hold these values
        raise
    errors = {name: max(one["error"] for one in found) for name, found in written.items()}
    _finish(building, target, errors, made_from)
    if progress:
        print(_summary(target, fields, errors))
    return _open(target)


@dataclass(frozen=True)
class _Layout:
    """How a variable is stored, and in which blocks of time it is copied."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: int  # times in a chunk
    shard: int | None  # times in a shard
    blocks: tuple[slice, ...]

    @property
    def unit(self) -> int:
        """The times in one file, which two workers must not share."""
        return self.shard or self.chunk

    def box(self, times: int) -> tuple[int, ...]:
        """Return the shape of a chunk or shard: some times, the whole globe, one of everything else."""
        sizes = {"time": times, "latitude": self.shape[-2], "longitude": self.shape[-1]}
        return tuple(sizes.get(dim, 1) for dim in self.dims)


@dataclass(frozen=True)
class _Packing:
    """How values become numbers of the stored type; the way back is that of CF."""

    dtype: str
    scale: float = 1.0
    offset: float = 0.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        if self.dtype != "int16":
            with np.errstate(over="ignore"):  # whoever calls looks for what became infinite
                return values.astype(self.dtype)
        steps = np.clip(np.rint((values.astype(np.float64) - self.offset) / self.scale), -_STEPS / 2, _STEPS / 2)
        return np.where(np.isnan(values), _MISSING, steps).astype(np.int16)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        if self.dtype != "int16":
            return stored
        return np.where(stored == _MISSING, np.nan, stored.astype(np.float64) * self.scale + self.offset)


@dataclass(frozen=True)
class _Block:
    """Some times of one variable."""

    name: str
    times: slice


def _check_path(path: str | os.PathLike) -> tuple[Path, Path]:
    if "://" in str(path):
        raise ValueError(
            f"{str(path)!r} is not a folder: a cache is written to a file system, and can be copied from it"
        )
    target = check_parent(Path(path).expanduser().absolute())
    return target, target.with_name(f"{target.name}.unfinished")


def _check_settings(dtype: str, chunk_bytes: int, shard_bytes: int | None) -> None:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r} is not possible: choose one of {', '.join(map(repr, _DTYPES))}")
    for name, value in {"chunk_bytes": chunk_bytes, "shard_bytes": shard_bytes}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be positive")


def _fields(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    """Return the variables that are worth a layout: those on time, latitude and longitude."""
    wanted = ("time", "latitude", "longitude")
    fields = {str(name): dataset.variables[name] for name in dataset.data_vars if {*wanted} <= {*dataset[name].dims}}
    if not fields:
        raise ValueError(
            f"no variable has the dimensions time, latitude and longitude; the dimensions are {list(dataset.dims)}. "
            "Open the data with open_dataset, which gives them these names"
        )
    for name, field in fields.items():
        if field.dtype.kind not in "fiub":
            raise ValueError(f"{name!r} has dtype {field.dtype}: only numbers can be cached, leave it out")
        if not field.size:
            raise ValueError(f"{name!r} is empty: its sizes are {dict(field.sizes)}. Is the selection inside the data?")
    return fields


def _layout(field: xr.Variable, dtype: str, chunk_bytes: int, shard_bytes: int | None) -> _Layout:
    times = field.sizes["time"]
    others = [dim for dim in field.dims if dim not in ("time", "level", "latitude", "longitude")]
    level = [dim for dim in field.dims if dim == "level"]
    dims = ("time", *others, *level, "latitude", "longitude")
    globe = field.sizes["latitude"] * field.sizes["longitude"] * np.dtype(dtype).itemsize
    source = _source_chunk(field)
    chunk = min(_chunk_length(max(1, chunk_bytes // globe), source), times)
    shard = None
    if shard_bytes is not None:
        shard = chunk * min(max(1, shard_bytes // (chunk * globe)), math.ceil(times / chunk))
    unit = shard or chunk
    fit = max(1, _BLOCK_BYTES * times // (field.size * field.dtype.itemsize))
    aligned = math.lcm(unit, source)
    if aligned > 4 * fit:
        aligned = unit
    length = aligned * max(1, fit // aligned)
    blocks = tuple(slice(start, min(start + length, times)) for start in range(0, times, length))
    return _Layout(dims, tuple(field.sizes[dim] for dim in dims), chunk, shard, blocks)


def _chunk_length(wanted: int, source: int) -> int:
    """Return about as many times as wanted, so that chunks end where those of the source do, if possible."""
    if source <= wanted:
        return wanted // source * source
    parts = range(math.ceil(source / wanted), 2 * source // wanted + 1)
    return next((source // part for part in parts if source % part == 0), wanted)


def _source_chunk(field: xr.Variable) -> int:
    """Return how many times are in a chunk of the source, 1 if that is not known."""
    if field.chunks is not None:
        return field.chunksizes["time"][0]
    preferred = field.encoding.get("preferred_chunks") or {}
    if "time" in preferred:
        return preferred["time"]
    # time was called something else; levels may have been selected, but behind it
    chunks = field.encoding.get("chunks") or field.encoding.get("chunksizes")
    return chunks[0] if chunks and field.dims[0] == "time" else 1


def _sample(field: xr.Variable) -> np.ndarray:
    """Return the values at the first, middle and last time."""
    last = field.sizes["time"] - 1
    return field.isel(time=sorted({0, last // 2, last})).compute().values


def _made_from(dataset: xr.Dataset, samples: dict[str, np.ndarray], settings: dict) -> dict:
    """Return what a cache is made from and how, in words and checksums that survive JSON."""
    contents = {}
    for name, variable in dataset.variables.items():
        values = samples[name] if name in samples else variable.compute().values
        contents[name] = {
            "dimensions": list(variable.dims),
            "shape": list(variable.shape),
            "dtype": str(variable.dtype),
            "attributes": variable.attrs,
            _STORED: variable_identity(variable) if name in samples else None,
            "values (checksum)": _checksum(values),
        }
    record = {
        "settings": settings,
        "path": dataset.encoding.get("source"),
        "attributes": dataset.attrs,
        "contents": contents,
    }
    return json.loads(
        json.dumps(record, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    )


def _checksum(values: np.ndarray) -> str:
    # dates of other calendars are objects, whose repr names the calendar
    content = repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _check_finished(target: Path, made_from: dict) -> None:
    try:
        before = json.loads(json.loads((target / "zarr.json").read_text())["attributes"][_MADE_FROM])
    except (OSError, ValueError, KeyError):
        raise FileExistsError(
            f"{str(target)!r} exists and was not written by cache: give another path, or remove it"
        ) from None
    if found := _difference(before, made_from):
        raise ValueError(
            f"{str(target)!r} was made from something else or in another way: {found}. Open it with open_dataset, "
            "give another path, or remove it"
        )


def _check_unfinished(building: Path, made_from: dict) -> None:
    if not any(building.iterdir()):
        return
    try:
        before = json.loads((building / "made_from.json").read_text())
    except OSError:
        raise FileExistsError(
            f"{str(building)!r} exists and was not written by cache: give another path, or remove it"
        ) from None
    if found := _difference(before, made_from):
        raise ValueError(
            f"{str(building)!r} was begun from something else or in another way: {found}. Call cache as then to "
            "complete it, or remove the folder to begin anew"
        )


def _difference(before: dict, now: dict) -> str | None:
    """Return the first difference of two records, or None if there is none."""
    before, now = ({**record, "contents": dict(record["contents"])} for record in (before, now))
    for name in before["contents"].keys() & now["contents"].keys():
        variables = [record["contents"][name] for record in (before, now)]
        # the samples decide where the files of one are not known
        if None in [variable.get(_STORED) for variable in variables]:
            for record in (before, now):
                record["contents"][name] = {**record["contents"][name], _STORED: None}
    return next(iter(differences(before, now, {_STORED: _FILES_CHANGED})), None)


def _check_room(
    target: Path, building: Path, fields: dict[str, xr.Variable], samples: dict[str, np.ndarray], dtype: str
) -> None:
    """Raise OSError unless the disk has room for the rest of the store, compressed like the samples."""
    needed = -_size(building)
    for name, field in fields.items():
        packing = _fit_packing([_ends(samples[name])]) if dtype == "int16" else _Packing(dtype)
        stored = packing.encode(samples[name])
        compressed = len(numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE).encode(np.ascontiguousarray(stored)))
        needed += int(1.05 * compressed * field.size / stored.size)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OSError(
            f"{str(target)!r} needs about {needed} bytes ({needed / 2**30:.1f} GiB) more, and {free} bytes "
            f"({free / 2**30:.1f} GiB) are free: choose another disk, fewer variables, levels or years, or "
            "dtype='int16'"
        )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _create(building: Path, dataset: xr.Dataset, layouts: dict[str, _Layout], packings: dict[str, _Packing]) -> None:
    """Make the store complete but for the values of its fields."""
    template, encoding = dataset.copy(), {}
    for name, variable in dataset.variables.items():
        if name in layouts:
            layout, packing = layouts[name], packings[name]
            # never computed: xarray writes what describes it
            values = dask.array.empty(layout.shape, chunks=-1, dtype=np.float32)
            template[name] = xr.Variable(layout.dims, values, variable.attrs)
            missing = np.int16(_MISSING) if packing.dtype == "int16" else np.dtype(packing.dtype).type(np.nan)
            # fill_value is what a chunk that got lost reads as
            encoding[name] = {"dtype": packing.dtype, "_FillValue": missing, "fill_value": missing}
            encoding[name]["chunks"] = layout.box(layout.chunk)
            if layout.shard is not None:
                encoding[name]["shards"] = layout.box(layout.shard)
            encoding[name]["compressors"] = [zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")]
            if packing.dtype == "int16":
                encoding[name] |= {"scale_factor": packing.scale, "add_offset": packing.offset}
        else:
            variable = variable.compute()
            # chunks and codecs of the source mean nothing here, and its units of time may not hold these times
            variable.encoding = {key: value for key, value in variable.encoding.items() if key == "calendar"}
            template[name] = variable
            if variable.ndim:
                encoding[name] = {"chunks": variable.shape}
    template.encoding = {}
    options = {"zarr_format": 3, "consolidated": False, "encoding": encoding, "write_empty_chunks": True}
    write_atomically(building / "store", partial(template.to_zarr, compute=False, **options), sync=False)


def _run(
    phase: str,
    work: dict[str, Callable[[xr.Variable, int], dict]],
    blocks: list[_Block],
    fields: dict[str, xr.Variable],
    building: Path,
    bar: tqdm,
) -> dict[str, list[dict]]:
    """Do the work of a phase on all blocks where it is not done yet, and return all results, by variable."""
    records = [building / "blocks" / f"{phase}-{block.name}-{block.times.start}.json" for block in blocks]
    tasks = [
        (record, work[block.name], fields[block.name].isel(time=block.times), block.times.start)
        for record, block in zip(records, blocks, strict=True)
        if not record.exists()
    ]
    bar.update(len(blocks) - len(tasks))
    client = _client()
    if client is None:
        for task in tasks:
            _do(*task)
            bar.update()
    else:
        _distribute(client, tasks, bar)
    results = {name: [] for name in fields}
    for record, block in zip(records, blocks, strict=True):
        results[block.name].append(json.loads(record.read_text()))
    return results


def _do(record: Path, work: Callable[[xr.Variable, int], dict], piece: xr.Variable, start: int) -> None:
    """Work on a piece, and only then write down that it is done."""
    # threads also on a worker of dask.distributed, where the default would wait for the very thread that asks
    _write_json(record, work(piece.compute(scheduler="threads"), start))


def _client() -> Any:
    """Return the dask.distributed client that there is, or None."""
    if "distributed" not in sys.modules:  # then nobody made one
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def _distribute(client: Any, tasks: list[tuple], bar: tqdm) -> None:
    """Do tasks on the workers, no more at a time than keep them busy."""
    from distributed import as_completed, wait

    waiting = iter(tasks)
    running = {client.submit(_do, *task, pure=False) for task in itertools.islice(waiting, 2 * _threads(client))}
    done = as_completed(running)
    try:
        for future in done:
            future.result()
            running.discard(future)
            bar.update()
            for task in itertools.islice(waiting, 1):
                more = client.submit(_do, *task, pure=False)
                running.add(more)
                done.add(more)
    except Exception:
        wait(running)  # who is told of the failure may remove what they are writing into
        raise


def _threads(client: Any) -> int:
    return max(1, sum(client.nthreads().values()))


def _find_range(name: str, piece: xr.Variable, start: int) -> dict:
    """Return the smallest and the largest value of a block."""
    low, high = _ends(piece.values)
    if np.isinf([low, high]).any():
        raise OverflowError(f"{name!r} has infinite values, which int16 cannot hold: choose dtype='float32'")
    return {"low": low, "high": high}


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest value, NaN if all are missing."""
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))


def _fit_packing(ranges: Iterable[tuple[float, float]]) -> _Packing:
    """Return the packing whose first and last steps are the smallest and the largest value of all ranges."""
    low, high = _ends(np.array(list(ranges)))
    if np.isnan(low):  # nothing but missing values
        return _Packing("int16")
    # a constant is the offset, and any scale will do
    return _Packing("int16", (high - low) / _STEPS or 1.0, low + (high - low) / 2)


def _write(name: str, array: Path, layout: _Layout, packing: _Packing, piece: xr.Variable, start: int) -> dict:
    """Write a block, file by file to bound the memory, and return the largest error."""
    values = piece.transpose(*layout.dims).values
    # a chunk that is not there is one that got lost
    out = zarr.open_array(array, mode="r+").with_config({"write_empty_chunks": True})
    error = 0.0
    for begin in range(0, len(values), layout.unit):
        part = values[begin : begin + layout.unit]
        stored = packing.encode(part)
        if stored.dtype != part.dtype:
            error = max(error, _largest_error(name, part, packing.decode(stored), packing.dtype))
        out[start + begin : start + begin + len(part)] = stored
    return {"error": error}


def _largest_error(name: str, values: np.ndarray, decoded: np.ndarray, dtype: str) -> float:
    present = np.isfinite(values)
    difference = np.abs(values[present] - decoded[present].astype(np.float64))
    if not np.isfinite(difference).all():
        value = values[present][~np.isfinite(difference)][0]
        raise OverflowError(
            f"{name!r} has the value {value:g}, and {dtype} ends at {np.finfo(dtype).max:g}: choose dtype='int16', "
            "which takes its scale from the values"
        )
    return float(difference.max(initial=0.0))


def _finish(building: Path, target: Path, errors: dict[str, float], made_from: dict) -> None:
    """Say in the store how it was made, and move it to its place."""
    for file in (building / "store").rglob("*.partial"):
        file.unlink()  # left by zarr-python where a run was killed while it wrote a chunk
    store = zarr.open_group(building / "store", mode="r+")
    for name, error in errors.items():
        store[name].update_attributes({_ERROR: error})
    store.update_attributes({_MADE_FROM: json.dumps(made_from)})
    (building / "store").rename(target)
    shutil.rmtree(building)


def _open(target: Path) -> xr.Dataset:
    dataset = xr.open_zarr(target, chunks=None, consolidated=False, decode_timedelta=False)
    drop_codecs(dataset)
    return dataset


def _summary(target: Path, fields: dict[str, xr.Variable], errors: dict[str, float]) -> str:
    raw = sum(4 * field.size for field in fields.values())
    listed = ", ".join(
        f"{name} {error:.2g} {fields[name].attrs.get('units', '')}".strip() for name, error in errors.items()
    )
    return (
        f"{target}: {raw / 1e6:.1f} MB of float32 in {_size(target) / 1e6:.1f} MB on disk; values are off by at most: "
        f"{listed}"
    )


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_text(json.dumps(content)), sync=False)
