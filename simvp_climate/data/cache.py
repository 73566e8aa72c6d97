"""Copy a dataset once into the Zarr layout that trains fastest.

The layout follows from this measurement, on 120 MB of 6-hourly fields of 32 x 64, on two cores, from the page cache,
in blocks of 1024 times; MB decoded per CPU-second:

    chunks                         zarr-python   tensorstore
    0.2 MB, Blosc-lz4                      390          2400
    1 MB, Blosc-lz4                       1500          2400
    4 MB, Blosc-lz4                       2000          3000
    1 MB in shards of 64 MB, lz4          1200          3000
    1 MB, Blosc-zstd                      1330          3000

Chunks have 1 MB: from longer ones a shuffled stream decodes more times that it does not use, and with smaller ones
zarr-python is slower. Shards cost zarr-python a fifth of its speed, so they are an option for object stores and for
file systems with limits on the number of files. Compression is lz4: zstd saves a tenth of the disk and no time.
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
_BLOCK_BYTES = 2**26  # read in one piece; up to four times that where each chunk of the source is then read once
# packed values go from -_STEPS / 2 to _STEPS / 2: all of int16 except the number for missing values
_MISSING, _STEPS = -32768, 65534
_ERROR, _RECORD = "cache_max_abs_error", "cache_made_from"  # attributes of the store
_IDENTITY = "stored (identity)"
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
    """Copy a dataset into a Zarr store with the layout that trains fastest, and return the copy, lazily.

    A cache pays off where a store keeps all levels, or very many times, in one chunk: one level out of a chunk of 13
    costs 13 times its size in every epoch; with a cache only once. Later, `open_dataset(path, variables)` opens the
    cache like any other store.

    Variables have the dimensions (time, ..., level, latitude, longitude), in chunks of whole globes on one level, in
    Zarr format 3. Their names, attributes and missing values, and all coordinates with their order and calendar, are
    those of `dataset`. Variables without time, latitude or longitude are copied unchanged. All others have the
    attribute `cache_max_abs_error`: the largest difference from `dataset`, in their units, 0 for float32 copied as
    float32.

    The store is written to the folder `<path>.unfinished` and moved to `path` when it is complete. If writing stops
    (time limit, full disk), the same call resumes it, and the result is the same to the byte. A complete cache of the
    same dataset with the same settings is returned unchanged. Datasets are the same if they agree in names,
    attributes, coordinates, the path they were opened from, and the values at their first, middle and last time, and
    if their files (each chunk) have the same sizes and modification times. Files are compared for datasets that
    `open_dataset` opened from a local disk; for remote stores, datasets in memory, dask and results of arithmetic,
    values at other times are not compared.

    Each variable is read in blocks of times of about 64 MB (up to 256 MB where the chunks of the source are as long).
    Blocks end where chunks of the source end, so that each chunk is read once; if a selection of times begins inside a
    chunk, chunks at the ends of blocks are read twice. `z500` and `z850` read an array with levels twice,
    `geopotential` with levels=[500, 850] once. Memory: a block, 8 chunks (or shards) of the cache, and the chunks being
    decoded, about ten at the same time (measured with chunks of 10 MB: 0.5 GB in all). With a dask.distributed client
    its workers write the blocks: they need access to the same file system, and this memory for each of their threads.

    Parameters
    ----------
    dataset
        As returned by `open_dataset`, or any Dataset on time, latitude and longitude; other names of these dimensions
        (`lat`, `valid_time`) become these in the cache.
    path
        A folder on a file system (not a bucket) that does not exist yet.
    dtype
        "float32"; "float16" (11 bits, for values around zero: 5e4 is kept to within 16; read back as float16); or
        "int16": 65534 equal steps from the smallest to the largest value of a variable, all levels on one scale. For
        int16 the dataset is read twice; values are read back as float64.
    chunk_bytes
        Approximate size of a chunk before compression.
    shard_bytes
        Approximate size of a file with many chunks before compression; None writes each chunk to its own file.
    progress
        Show a progress bar, and at the end a line with the sizes and errors.

    Raises
    ------
    FileExistsError
        If `path` exists and is not a cache.
    ValueError
        If the cache at `path`, complete or not, is of another dataset or other settings; the message names the
        difference. If a dimension is missing, or a variable is not numeric.
    OverflowError
        If a value does not fit `dtype`.
    OSError
        If the disk has too little space; the message has the bytes needed and free.
    """
    if "://" in str(path):
        raise ValueError(f"{str(path)!r} must be a local folder. Write the cache there and copy it to the bucket")
    _check_settings(dtype, chunk_bytes, shard_bytes)
    target = check_parent(Path(path).expanduser().absolute())
    building = target.with_name(f"{target.name}.unfinished")
    axes = find_axes(dataset)
    names = {axes.time: "time", axes.latitude: "latitude", axes.longitude: "longitude"}
    dataset = dataset.rename({old: new for old, new in names.items() if old is not None and old != new})
    fields = _find_fields(dataset)
    layouts = {name: _choose_layout(field, dtype, chunk_bytes, shard_bytes) for name, field in fields.items()}
    samples = {name: _sample(field) for name, field in fields.items()}
    record = _make_record(dataset, samples, {"dtype": dtype, "chunk_bytes": chunk_bytes, "shard_bytes": shard_bytes})
    if target.exists():
        _check_record(target, record)
        if (building / "made_from.json").exists():
            shutil.rmtree(building)  # a run was killed right after it moved the store
        return _open(target)
    if building.exists() and any(building.iterdir()):
        _check_record(building, record)
    _check_disk_space(target, building, fields, samples, dtype)
    building.mkdir(exist_ok=True)
    _write_json(building / "made_from.json", record)
    (building / "blocks").mkdir(exist_ok=True)
    errors = _copy(dataset, building, fields, layouts, dtype, target.name, progress)
    _finish(building, target, errors, record)
    if progress:
        print(_summary(target, fields, errors))
    return _open(target)


def _copy(
    dataset: xr.Dataset,
    building: Path,
    fields: dict[str, xr.Variable],
    layouts: dict[str, "_Layout"],
    dtype: str,
    title: str,
    progress: bool,
) -> dict[str, float]:
    """Write the store block by block, and return the largest error of each field."""
    blocks = [_Block(name, times) for name, layout in layouts.items() for times in layout.blocks]
    # in order of time: variables in one file are read while it is in the page cache
    blocks.sort(key=lambda block: block.times.start)
    packings = dict.fromkeys(fields, _Packing(dtype))
    bar = tqdm(total=(1 + (dtype == "int16")) * len(blocks), desc=title, unit="block", disable=not progress)
    try:
        with bar:
            if dtype == "int16":
                work = {name: partial(_find_range, name) for name in fields}
                ranges = _run_phase("range", work, blocks, fields, building, bar)
                packings = {
                    name: _fit_packing((block["low"], block["high"]) for block in results)
                    for name, results in ranges.items()
                }
            if not (building / "store").exists():
                _create_store(building / "store", dataset, layouts, packings)
            work = {
                name: partial(_write_block, name, building / "store" / name, layouts[name], packings[name])
                for name in fields
            }
            written = _run_phase("written", work, blocks, fields, building, bar)
    except OverflowError:
        shutil.rmtree(building)  # useless: these settings cannot represent these values
        raise
    return {name: max(block["error"] for block in results) for name, results in written.items()}


@dataclass(frozen=True)
class _Layout:
    """Chunks and shards of a stored variable, and the blocks of time in which it is copied."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: int  # times in a chunk
    shard: int | None  # times in a shard
    blocks: tuple[slice, ...]

    @property
    def file_times(self) -> int:
        """Number of times in one file, which only one worker may write."""
        return self.shard or self.chunk

    def chunk_shape(self, times: int) -> tuple[int, ...]:
        """Return the shape of a chunk or shard of some times: the whole globe, one index of all other dimensions."""
        sizes = {"time": times, "latitude": self.shape[-2], "longitude": self.shape[-1]}
        return tuple(sizes.get(dim, 1) for dim in self.dims)


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


@dataclass(frozen=True)
class _Block:
    """A range of times of one variable."""

    name: str
    times: slice


def _check_settings(dtype: str, chunk_bytes: int, shard_bytes: int | None) -> None:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(map(repr, _DTYPES))}")
    for name, value in {"chunk_bytes": chunk_bytes, "shard_bytes": shard_bytes}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be positive")


def _find_fields(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    """Return the data variables on time, latitude and longitude."""
    dims = {"time", "latitude", "longitude"}
    fields = {str(name): dataset.variables[name] for name in dataset.data_vars if dims <= {*dataset[name].dims}}
    if not fields:
        raise ValueError(
            f"no variable has the dimensions time, latitude and longitude, but {list(dataset.dims)}. Open the data "
            "with open_dataset, which names these dimensions"
        )
    for name, field in fields.items():
        if field.dtype.kind not in "fiub":
            raise ValueError(f"{name!r} has dtype {field.dtype}, but must hold numbers. Leave it out")
        if not field.size:
            raise ValueError(f"{name!r} is empty, with the sizes {dict(field.sizes)}. Check the selection")
    return fields


def _choose_layout(field: xr.Variable, dtype: str, chunk_bytes: int, shard_bytes: int | None) -> _Layout:
    times = field.sizes["time"]
    others = [dim for dim in field.dims if dim not in ("time", "level", "latitude", "longitude")]
    level = [dim for dim in field.dims if dim == "level"]
    dims = ("time", *others, *level, "latitude", "longitude")
    globe_bytes = field.sizes["latitude"] * field.sizes["longitude"] * np.dtype(dtype).itemsize
    source_chunk = _source_chunk(field)
    chunk = min(_chunk_length(max(1, chunk_bytes // globe_bytes), source_chunk), times)
    shard = None
    if shard_bytes is not None:
        shard = chunk * min(max(1, shard_bytes // (chunk * globe_bytes)), math.ceil(times / chunk))
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
    """Return a chunk length near `target` such that chunks end where those of the source end, if possible."""
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


def _sample(field: xr.Variable) -> np.ndarray:
    """Return the values at the first, middle and last time."""
    last = field.sizes["time"] - 1
    return field.isel(time=sorted({0, last // 2, last})).compute().values


def _make_record(dataset: xr.Dataset, samples: dict[str, np.ndarray], settings: dict) -> dict:
    """Return the record of dataset and settings that identifies a cache, in values that JSON preserves."""
    contents = {}
    for name, variable in dataset.variables.items():
        values = samples[name] if name in samples else variable.compute().values
        contents[name] = {
            "dimensions": list(variable.dims),
            "shape": list(variable.shape),
            "dtype": str(variable.dtype),
            "attributes": variable.attrs,
            _IDENTITY: variable_identity(variable) if name in samples else None,
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
    if change := _first_difference(before, record):
        raise ValueError(
            f"{str(path)!r} is {'an unfinished' if unfinished else 'a'} cache of another dataset or other settings: "
            f"{change}. Use another path, or remove it"
        )


def _first_difference(before: dict, now: dict) -> str | None:
    """Return the first difference between two records, or None."""
    before, now = ({**record, "contents": dict(record["contents"])} for record in (before, now))
    for name in before["contents"].keys() & now["contents"].keys():
        identities = [record["contents"][name].get(_IDENTITY) for record in (before, now)]
        if None in identities:  # only the samples can be compared
            for record in (before, now):
                record["contents"][name] = {**record["contents"][name], _IDENTITY: None}
    return next(iter(differences(before, now, {_IDENTITY: _FILES_CHANGED})), None)


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
        raise OSError(
            f"{str(target)!r} needs about {needed} bytes ({needed / 2**30:.1f} GiB) more, and {free} bytes "
            f"({free / 2**30:.1f} GiB) are free. Use another disk, fewer variables, levels or years, or dtype='int16'"
        )


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
            # with this fill value a lost chunk reads as missing
            encoding[name] = {"dtype": packing.dtype, "_FillValue": missing, "fill_value": missing}
            encoding[name]["chunks"] = layout.chunk_shape(layout.chunk)
            if layout.shard is not None:
                encoding[name]["shards"] = layout.chunk_shape(layout.shard)
            encoding[name]["compressors"] = [zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")]
            if packing.dtype == "int16":
                encoding[name] |= {"scale_factor": packing.scale, "add_offset": packing.offset}
        else:
            variable = variable.compute()
            # without chunks, codecs and time units of the source, which may not suit the cache
            variable.encoding = {key: value for key, value in variable.encoding.items() if key == "calendar"}
            template[name] = variable
            if variable.ndim:
                encoding[name] = {"chunks": variable.shape}
    template.encoding = {}
    options = {"zarr_format": 3, "consolidated": False, "encoding": encoding, "write_empty_chunks": True}
    write_atomically(path, partial(template.to_zarr, compute=False, **options), sync=False)


def _run_phase(
    phase: str,
    work: dict[str, Callable[[xr.Variable, int], dict]],
    blocks: list[_Block],
    fields: dict[str, xr.Variable],
    building: Path,
    bar: tqdm,
) -> dict[str, list[dict]]:
    """Run the work of a phase on all blocks that lack a result, and return all results for each variable."""
    files = [building / "blocks" / f"{phase}-{block.name}-{block.times.start}.json" for block in blocks]
    tasks = [
        (file, work[block.name], fields[block.name].isel(time=block.times), block.times.start)
        for file, block in zip(files, blocks, strict=True)
        if not file.exists()
    ]
    bar.update(len(blocks) - len(tasks))
    client = _find_client()
    if client is None:
        for task in tasks:
            _run_task(*task)
            bar.update()
    else:
        _distribute(client, tasks, bar)
    results = {name: [] for name in fields}
    for file, block in zip(files, blocks, strict=True):
        results[block.name].append(json.loads(file.read_text()))
    return results


def _run_task(result_file: Path, work: Callable[[xr.Variable, int], dict], block: xr.Variable, start: int) -> None:
    """Read a block, work on it, and write the result to a file."""
    # on a worker of dask.distributed the default scheduler would wait for this thread
    _write_json(result_file, work(block.compute(scheduler="threads"), start))


def _find_client() -> Any:
    """Return the current dask.distributed client, or None."""
    if "distributed" not in sys.modules:  # then there is no client
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def _distribute(client: Any, tasks: list[tuple], bar: tqdm) -> None:
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


def _find_range(name: str, block: xr.Variable, start: int) -> dict:
    """Return the smallest and the largest value of a block."""
    low, high = _find_extremes(block.values)
    if np.isinf([low, high]).any():
        raise OverflowError(f"{name!r} has infinite values, which int16 cannot represent. Use dtype='float32'")
    return {"low": low, "high": high}


def _find_extremes(values: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest value, NaN if all are missing."""
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))


def _fit_packing(ranges: Iterable[tuple[float, float]]) -> _Packing:
    """Return the packing that spans the smallest to the largest value of all ranges."""
    low, high = _find_extremes(np.array(list(ranges)))
    if np.isnan(low):  # all values are missing
        return _Packing("int16")
    # a constant is the offset, with any scale
    return _Packing("int16", (high - low) / _STEPS or 1.0, low + (high - low) / 2)


def _write_block(name: str, array: Path, layout: _Layout, packing: _Packing, block: xr.Variable, start: int) -> dict:
    """Write a block, file by file to limit the memory, and return the largest error."""
    values = block.transpose(*layout.dims).values
    # write chunks of missing values too: an absent chunk would count as lost
    out = zarr.open_array(array, mode="r+").with_config({"write_empty_chunks": True})
    error = 0.0
    for begin in range(0, len(values), layout.file_times):
        original = values[begin : begin + layout.file_times]
        stored = packing.encode(original)
        if stored.dtype != original.dtype:
            error = max(error, _largest_error(name, original, packing.decode(stored), packing.dtype))
        out[start + begin : start + begin + len(original)] = stored
    return {"error": error}


def _largest_error(name: str, values: np.ndarray, decoded: np.ndarray, dtype: str) -> float:
    present = np.isfinite(values)
    difference = np.abs(values[present] - decoded[present].astype(np.float64))
    if not np.isfinite(difference).all():
        value = values[present][~np.isfinite(difference)][0]
        raise OverflowError(
            f"{name!r} has the value {value:g}, but {dtype} ends at {np.finfo(dtype).max:g}. Use dtype='int16', whose "
            "scale follows the values"
        )
    return float(difference.max(initial=0.0))


def _finish(building: Path, target: Path, errors: dict[str, float], record: dict) -> None:
    """Add errors and record to the attributes of the store, and move it to its final path."""
    for file in (building / "store").rglob("*.partial"):
        file.unlink()  # left by zarr-python where a run was killed while it wrote a chunk
    store = zarr.open_group(building / "store", mode="r+")
    for name, error in errors.items():
        store[name].update_attributes({_ERROR: error})
    store.update_attributes({_RECORD: json.dumps(record)})
    (building / "store").rename(target)
    shutil.rmtree(building)


def _open(target: Path) -> xr.Dataset:
    dataset = xr.open_zarr(target, chunks=None, consolidated=False, decode_timedelta=False)
    drop_codecs(dataset)
    return dataset


def _summary(target: Path, fields: dict[str, xr.Variable], errors: dict[str, float]) -> str:
    raw_bytes = sum(4 * field.size for field in fields.values())
    listed = ", ".join(
        f"{name} {error:.2g} {fields[name].attrs.get('units', '')}".strip() for name, error in errors.items()
    )
    return (
        f"{target}: {raw_bytes / 1e6:.1f} MB of float32 in {_size(target) / 1e6:.1f} MB on disk; largest errors: "
        f"{listed}"
    )


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_text(json.dumps(content)), sync=False)
