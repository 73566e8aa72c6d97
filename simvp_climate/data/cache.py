"""Copy a dataset once into the Zarr layout that trains fastest.

Chunks have 1 MB: zarr-python decodes 1500 MB per CPU-second from them, 390 from chunks of 0.2 MB, 2000 from 4 MB
(fields of 32 x 64, two cores), but of long chunks a shuffled stream decodes more times that it does not use. Shards
cost a fifth of this speed, so they are an option. Compression is lz4: zstd saves a tenth of the disk and no time.
"""

import copy
import hashlib
import itertools
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array
import numcodecs
import numpy as np
import xarray as xr
import zarr

from simvp_climate.data.checksums import remove_leftovers, write_checksums
from simvp_climate.data.files import check_parent, differences, write_atomically, write_once
from simvp_climate.data.grid import find_axes
from simvp_climate.data.progress import ProgressLines, progress_bar, tqdm
from simvp_climate.data.views import variable_identity
from simvp_climate.data.zarr_store import open_zarr

_DTYPES = ("float32", "float16", "int16")
_BLOCK_BYTES = 2**26  # read in one piece; up to four times that where each chunk of the source is then read once
# packed values go from -_STEPS / 2 to _STEPS / 2: all of int16 except the number for missing values
_MISSING, _STEPS = -32768, 65534
_RECORD, _IDENTITY = "cache_made_from", "stored (identity)"
_WRITING_EMPTY_CHUNKS = threading.Lock()  # zarr's configuration is that of all threads
_FILES_CHANGED = "the files of the source changed since: their sizes or times, or the selection"


def cache(
    dataset: xr.Dataset, path: str | os.PathLike, *, dtype: str = "float32", chunk_bytes: int = 2**20,
    shard_bytes: int | None = None, progress: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Copy a dataset into a Zarr store with the layout that trains fastest, and return the copy, lazily.

    A cache pays off where a store keeps all levels, or very many times, in one chunk: one level out of a chunk of 13
    costs 13 times its size in every epoch. `open_dataset(path, variables)` opens the cache like any other store.

    Variables have the dimensions (time, ..., level, latitude, longitude), in chunks of whole globes on one level, in
    Zarr format 3. Their attribute `cache_max_abs_error` is the largest difference from `dataset`, in their units.
    Variables without time, latitude or longitude are copied unchanged.

    The store is written to the folder `<path>.unfinished` and moved to `path` when it is complete. If writing stops,
    the same call resumes it. A complete cache of the same dataset with the same settings is returned unchanged.
    Datasets are the same if they agree in names, attributes, coordinates, path, and values at the first, middle and
    last time; and, if `open_dataset` opened them from a local disk, in the sizes and modification times of their files.

    Each variable is read in blocks of times of about 64 MB (up to 256 MB), which end where chunks of the source end.
    `z500` and `z850` read an array with levels twice, `geopotential` with levels=[500, 850] once. Memory: a block, 8
    chunks (or shards) of the cache, and about ten chunks being decoded. With a dask.distributed client its workers
    write the blocks: they need the same file system, and this memory per thread.

    Parameters
    ----------
    dataset
        Any Dataset on time, latitude and longitude; other names of these (`lat`, `valid_time`) are replaced.
    path
        A folder on a file system (not a bucket) that does not exist yet.
    dtype
        "float32"; "float16" (11 bits, for values around zero: 5e4 is kept to within 16); or "int16": 65534 equal steps
        from the smallest to the largest value of a variable, read back as float64. int16 reads the dataset twice.
    chunk_bytes, shard_bytes
        Approximate sizes before compression of a chunk, and of a file with many chunks (None: each chunk is a file).
    progress
        Show a progress bar, and at the end a line with the sizes and errors.

    Raises
    ------
    FileExistsError, OSError, RuntimeError
        If `path` exists and is not a cache, the disk has too little space, or another process writes the same cache.
    ValueError, OverflowError
        If the cache at `path` is of another dataset or other settings, a dimension is missing, a variable is not
        numeric, or a value does not fit `dtype`.
    """
    if "://" in str(path):
        raise ValueError(f"{str(path)!r} must be a local folder. Write the cache there and copy it to the bucket")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(map(repr, _DTYPES))}")
    settings = {"dtype": dtype, "chunk_bytes": chunk_bytes, "shard_bytes": shard_bytes}
    for name in ("chunk_bytes", "shard_bytes"):
        if settings[name] is not None and settings[name] < 1:
            raise ValueError(f"{name}={settings[name]} must be positive")
    target = check_parent(Path(path).expanduser().absolute())
    building = target.with_name(f"{target.name}.unfinished")
    axes = find_axes(dataset)
    names = {axes.time: "time", axes.latitude: "latitude", axes.longitude: "longitude"}
    dataset = dataset.rename({old: new for old, new in names.items() if old is not None and old != new})
    fields = _find_fields(dataset)
    layouts = {name: _choose_layout(field, dtype, chunk_bytes, shard_bytes) for name, field in fields.items()}
    samples = {}  # the values at the first, middle and last time
    for name, field in fields.items():
        last = field.sizes["time"] - 1
        samples[name] = field.isel(time=sorted({0, last // 2, last})).compute().values
    record = _make_record(dataset, samples, settings)
    write_once(target, partial(_write_or_resume, target, building, record, dataset, layouts, samples, progress))
    _check_record(target, record)
    if (building / "made_from.json").exists():
        shutil.rmtree(building, ignore_errors=True)  # also that of a run killed right after it moved the store
    return open_zarr(str(target), "error")


def _write_or_resume(
    target: Path, building: Path, record: dict, dataset: xr.Dataset, layouts: dict[str, "_Layout"],
    samples: dict[str, np.ndarray], progress: bool,
) -> None:  # fmt: skip
    fields, dtype = {name: dataset.variables[name] for name in layouts}, record["settings"]["dtype"]
    # a run that was killed before it wrote the record may leave the temporary file of it
    if building.exists() and any(not entry.name.startswith("unfinished-") for entry in building.iterdir()):
        _check_record(building, record)
    _check_disk_space(target, building, fields, samples, dtype)
    building.mkdir(exist_ok=True)
    _write_json(building / "made_from.json", record)
    (building / "blocks").mkdir(exist_ok=True)
    total = sum(len(layout.blocks) for layout in layouts.values()) * (2 if dtype == "int16" else 1)
    with progress_bar(total, "blocks", target.name, shown=progress) as bar:
        errors = _copy(dataset, building, layouts, dtype, bar)
    remove_leftovers(building / "store")
    store = zarr.open_group(building / "store", mode="r+")
    for name, error in errors.items():
        store[name].update_attributes({"cache_max_abs_error": error})
    store.update_attributes({_RECORD: json.dumps(record)})
    write_checksums(building / "store")
    (building / "store").rename(target)
    if progress:
        raw_bytes = sum(4 * field.size for field in fields.values())
        units = {name: field.attrs.get("units", "") for name, field in fields.items()}
        listed = ", ".join(f"{name} {error:.2g} {units[name]}".strip() for name, error in errors.items())
        sizes = f"{raw_bytes / 1e6:.1f} MB of float32 in {_size(target) / 1e6:.1f} MB on disk"
        print(f"{target}: {sizes}; largest errors: {listed}")


def _copy(
    dataset: xr.Dataset, building: Path, layouts: dict[str, "_Layout"], dtype: str, bar: tqdm | ProgressLines
) -> dict[str, float]:
    """Write the store block by block, and return the largest error of each field."""
    parts = [(name, part) for name, layout in layouts.items() for part in layout.blocks]
    parts.sort(key=lambda pair: pair[1].start)  # variables in one file are read while it is in the page cache
    blocks = [(name, part.start, dataset.variables[name].isel(time=part)) for name, part in parts]
    packings = dict.fromkeys(layouts, _Packing(dtype))
    store = building / "store"
    try:
        if dtype == "int16":
            work = {name: partial(_find_range, name) for name in layouts}
            ranges = _run_phase("range", work, blocks, building / "blocks", bar)
            packings = {name: _fit_packing(results) for name, results in ranges.items()}
        if not store.exists():
            _create_store(store, dataset, layouts, packings)
        work = {name: partial(_write_block, name, store / name, layouts[name], packings[name]) for name in layouts}
        written = _run_phase("written", work, blocks, building / "blocks", bar)
    except OverflowError:
        shutil.rmtree(building)  # useless: these settings cannot represent these values
        raise
    return {name: max(errors) for name, errors in written.items()}


@dataclass(frozen=True)
class _Layout:
    """Chunks and shards of a stored variable, and the blocks of time in which it is copied."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: int  # times in a chunk
    shard: int | None  # times in a shard
    blocks: tuple[slice, ...]


@dataclass(frozen=True)
class _Packing:
    """Conversion of values to the stored type and back; for int16 CF's scale_factor and add_offset."""

    dtype: str
    scale: float = 1.0
    offset: float = 0.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        if self.dtype != "int16":
            with np.errstate(over="ignore"):  # the caller checks for infinities
                return values.astype(self.dtype)
        steps = np.clip(np.rint((values.astype(np.float64) - self.offset) / self.scale), -_STEPS / 2, _STEPS / 2)
        return np.where(np.isnan(values), _MISSING, steps).astype(np.int16)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        if self.dtype != "int16":
            return stored
        return np.where(stored == _MISSING, np.nan, stored.astype(np.float64) * self.scale + self.offset)


def _find_fields(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    dims = {"time", "latitude", "longitude"}
    fields = {str(name): dataset.variables[name] for name in dataset.data_vars if dims <= {*dataset[name].dims}}
    if not fields:
        message = f"no variable has the dimensions time, latitude and longitude, but {list(dataset.dims)}"
        raise ValueError(f"{message}. Use open_dataset")
    for name, field in fields.items():
        if field.dtype.kind not in "fiub":
            raise ValueError(f"{name!r} has dtype {field.dtype}, but must hold numbers. Leave it out")
        if not field.size:
            raise ValueError(f"{name!r} is empty, with the sizes {dict(field.sizes)}. Check the selection")
    return fields


def _choose_layout(field: xr.Variable, dtype: str, chunk_bytes: int, shard_bytes: int | None) -> _Layout:
    times = field.sizes["time"]
    dims = field.transpose("time", ..., *({"level"} & {*field.dims}), "latitude", "longitude").dims
    globe_bytes = field.sizes["latitude"] * field.sizes["longitude"] * np.dtype(dtype).itemsize
    source_chunk = _source_chunk(field)
    chunk = min(_chunk_length(max(1, chunk_bytes // globe_bytes), source_chunk), times)
    shard_chunks = min(max(1, (shard_bytes or 0) // (chunk * globe_bytes)), math.ceil(times / chunk))
    shard = None if shard_bytes is None else chunk * shard_chunks
    file_times = shard or chunk
    block_times = max(1, _BLOCK_BYTES * times // (field.size * field.dtype.itemsize))
    # blocks end where files of the cache end, and where chunks of the source end unless that makes them too long
    aligned = math.lcm(file_times, source_chunk)
    if aligned > 4 * block_times:
        aligned = file_times
    length = aligned * max(1, block_times // aligned)
    blocks = tuple(slice(start, min(start + length, times)) for start in range(0, times, length))
    return _Layout(dims, tuple(field.sizes[dim] for dim in dims), chunk, shard, blocks)


def _chunk_length(target: int, source: int) -> int:
    """Return a chunk length near `target` with which chunks end where those of the source end, if possible."""
    if source <= target:
        return target // source * source
    divisors = range(math.ceil(source / target), 2 * source // target + 1)
    return next((source // divisor for divisor in divisors if source % divisor == 0), target)


def _source_chunk(field: xr.Variable) -> int:
    """Return the number of times in a chunk of the source, 1 if unknown."""
    if field.chunks is not None:
        return field.chunksizes["time"][0]
    preferred = field.encoding.get("preferred_chunks") or {}
    if "time" in preferred:
        return preferred["time"]
    # time had another name; levels may have been selected, which come after it
    chunks = field.encoding.get("chunks") or field.encoding.get("chunksizes")
    return chunks[0] if chunks and field.dims[0] == "time" else 1


def _make_record(dataset: xr.Dataset, samples: dict[str, np.ndarray], settings: dict) -> dict:
    """Return the record of dataset and settings that identifies a cache, in values that JSON preserves."""
    contents = {}
    for name, variable in dataset.variables.items():
        values = samples[name] if name in samples else variable.compute().values
        # dates of other calendars are objects, whose repr names the calendar
        content = repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
        layout = {"dimensions": list(variable.dims), "shape": list(variable.shape), "dtype": str(variable.dtype)}
        identity = variable_identity(variable) if name in samples else None
        checksum = hashlib.sha256(content).hexdigest()[:16]
        contents[name] = layout | {"attributes": variable.attrs, _IDENTITY: identity, "values (checksum)": checksum}
    path = dataset.encoding.get("source")
    record = {"settings": settings, "path": path, "attributes": dataset.attrs, "contents": contents}
    return json.loads(json.dumps(record, default=lambda x: x.tolist() if hasattr(x, "tolist") else str(x)))


def _check_record(path: Path, record: dict) -> None:
    """Raise an error unless the cache at a path, complete or unfinished, has this record."""
    unfinished = not (path / "zarr.json").exists()
    try:
        if unfinished:
            before = json.loads((path / "made_from.json").read_text())
        else:
            before = json.loads(json.loads((path / "zarr.json").read_text())["attributes"][_RECORD])
    except (OSError, ValueError, KeyError):
        raise FileExistsError(f"{str(path)!r} exists and is not a cache. Use another path, or remove it") from None
    now = copy.deepcopy(record)
    for name in before["contents"].keys() & now["contents"].keys():
        contents = [before["contents"][name], now["contents"][name]]
        if any(content.get(_IDENTITY) is None for content in contents):  # only the samples can be compared
            for content in contents:
                content[_IDENTITY] = None
    if changes := differences(before, now, {_IDENTITY: _FILES_CHANGED}):
        kind = f"{'an unfinished' if unfinished else 'a'} cache of another dataset or other settings"
        raise ValueError(f"{str(path)!r} is {kind}: {changes[0]}. Use another path, or remove it")


def _check_disk_space(
    target: Path, building: Path, fields: dict[str, xr.Variable], samples: dict[str, np.ndarray], dtype: str
) -> None:
    """Raise OSError unless the rest of the store fits on the disk, if all values compress like the samples."""
    needed = -_size(building)
    for name, field in fields.items():
        packing = _fit_packing([_find_extremes(samples[name])]) if dtype == "int16" else _Packing(dtype)
        stored = packing.encode(samples[name])
        compressed = len(numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE).encode(np.ascontiguousarray(stored)))
        needed += int(1.05 * compressed * field.size / stored.size)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        more, left = (f"{count} bytes ({count / 2**30:.1f} GiB)" for count in (needed, free))
        fix = "Use another disk, fewer variables, levels or years, or dtype='int16'"
        raise OSError(f"{str(target)!r} needs about {more} more, and {left} are free. {fix}")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _create_store(path: Path, dataset: xr.Dataset, layouts: dict[str, _Layout], packings: dict[str, _Packing]) -> None:
    """Write the store without the values of its fields."""
    template, encoding = dataset.copy(), {}
    for name, variable in dataset.variables.items():
        if name in layouts:
            layout, packing = layouts[name], packings[name]
            # never computed: xarray writes the metadata only
            values = dask.array.empty(layout.shape, chunks=-1, dtype=np.float32)
            template[name] = xr.Variable(layout.dims, values, variable.attrs)
            missing = np.int16(_MISSING) if packing.dtype == "int16" else np.dtype(packing.dtype).type(np.nan)
            encoding[name] = {"dtype": packing.dtype, "_FillValue": missing}
            globe = (1,) * (len(layout.shape) - 3) + layout.shape[-2:]  # one index of all other dimensions
            encoding[name]["chunks"] = (layout.chunk, *globe)
            if layout.shard is not None:
                encoding[name]["shards"] = (layout.shard, *globe)
            blosc = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
            encoding[name]["compressors"] = [blosc, zarr.codecs.Crc32cCodec()]
            if packing.dtype == "int16":
                encoding[name] |= {"scale_factor": packing.scale, "add_offset": packing.offset}
        else:
            variable = variable.compute()
            # without chunks, codecs and time units of the source, which may not suit the cache
            variable.encoding = {key: value for key, value in variable.encoding.items() if key == "calendar"}
            template[name] = variable
            encoding[name] = {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]}
            if variable.ndim:
                encoding[name]["chunks"] = variable.shape
    template.encoding = {}

    def write(unfinished: Path) -> None:
        with _WRITING_EMPTY_CHUNKS, zarr.config.set({"array.write_empty_chunks": True}):
            template.to_zarr(unfinished, zarr_format=3, consolidated=False, encoding=encoding, compute=False)
        for name, packing in packings.items():  # with this fill value other programs read a lost chunk as missing
            file = unfinished / name / "zarr.json"
            fill_value = _MISSING if packing.dtype == "int16" else "NaN"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"fill_value": fill_value}))

    write_atomically(path, write, sync=False)


def _run_phase(
    phase: str,
    work: dict[str, Callable],
    blocks: list[tuple[str, int, xr.Variable]],
    folder: Path,
    bar: tqdm | ProgressLines,
) -> dict[str, list]:
    """Run the work of a phase on all blocks that lack a result in `folder`, and return all results by variable."""
    files = [folder / f"{phase}-{name}-{start}.json" for name, start, _ in blocks]
    pairs = zip(files, blocks, strict=True)
    tasks = [(file, work[name], block, start) for file, (name, start, block) in pairs if not file.exists()]
    bar.update(len(blocks) - len(tasks))
    if (client := _find_client()) is not None:
        _distribute(client, tasks, bar)
    else:
        for task in tasks:
            _run_task(*task)
            bar.update()
    results = {name: [] for name in work}
    for file, (name, *_) in zip(files, blocks, strict=True):
        results[name].append(json.loads(file.read_text()))
    return results


def _run_task(result_file: Path, work: Callable, block: xr.Variable, start: int) -> None:
    # on a worker of dask.distributed the default scheduler would wait for this thread
    _write_json(result_file, work(block.compute(scheduler="threads"), start))


def _find_client() -> Any:
    if "distributed" not in sys.modules:  # then there is no client
        return None
    try:
        return sys.modules["distributed"].get_client()
    except ValueError:
        return None


def _distribute(client: Any, tasks: list[tuple], bar: tqdm | ProgressLines) -> None:
    """Run tasks on the workers, at most two per thread at a time."""
    from distributed import as_completed, wait

    threads = max(1, sum(client.nthreads().values()))
    waiting = iter(tasks)
    running = {client.submit(_run_task, *task, pure=False) for task in itertools.islice(waiting, 2 * threads)}
    completed = as_completed(running)
    try:
        for future in completed:
            future.result()
            running.discard(future)
            bar.update()
            for task in itertools.islice(waiting, 1):
                submitted = client.submit(_run_task, *task, pure=False)
                running.add(submitted)
                completed.add(submitted)
    except Exception:
        wait(running)  # before the caller removes the folder they write to
        raise


def _find_range(name: str, block: xr.Variable, start: int) -> tuple[float, float]:
    extremes = _find_extremes(block.values)
    if np.isinf(extremes).any():
        raise OverflowError(f"{name!r} has infinite values, which int16 cannot represent. Use dtype='float32'")
    return extremes


def _find_extremes(values: np.ndarray) -> tuple[float, float]:
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))


def _fit_packing(ranges: Sequence[Sequence[float]]) -> _Packing:
    """Return the packing that spans the smallest to the largest value of all ranges."""
    low, high = _find_extremes(np.array(ranges))
    if np.isnan(low):  # all values are missing
        return _Packing("int16")
    # a constant is the offset, with any scale
    return _Packing("int16", (high - low) / _STEPS or 1.0, low + (high - low) / 2)


def _write_block(name: str, array: Path, layout: _Layout, packing: _Packing, block: xr.Variable, start: int) -> float:
    values = block.transpose(*layout.dims).values
    # write chunks of missing values too: an absent chunk would count as lost
    with _WRITING_EMPTY_CHUNKS, zarr.config.set({"array.write_empty_chunks": True}):
        out = zarr.open_array(array, mode="r+")
    error, length = 0.0, layout.shard or layout.chunk
    for begin in range(0, len(values), length):
        original = values[begin : begin + length]
        stored = packing.encode(original)
        if stored.dtype != original.dtype:
            present = np.isfinite(original)
            difference = np.abs(original[present] - packing.decode(stored)[present].astype(np.float64))
            if not np.isfinite(difference).all():
                value, limit = original[present][~np.isfinite(difference)][0], np.finfo(stored.dtype).max
                message = f"{name!r} has the value {value:g}, but {stored.dtype} ends at {limit:g}. Use dtype='int16'"
                raise OverflowError(message)
            error = max(error, float(difference.max(initial=0.0)))
        out[start + begin : start + begin + len(original)] = stored
    return error


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_text(json.dumps(content)), sync=False)
