"""Checksums of the stores that this package writes: a damaged or misplaced chunk is an error, never data.

In Zarr format 3 the bytes of every chunk end with their CRC-32C (the codec `crc32c`). The group "checksums" of a store
lists these again by array and position, with those of the metadata, and serves Zarr format 2, which has no such codec.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from zarr.abc.store import Store

METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
_GROUP = "checksums"
_ABSENT = 2**64 - 1  # as the offset of a chunk that is absent from a shard


@dataclass(frozen=True, eq=False)
class ArrayChecksums:
    """The checksums of one array."""

    values: np.ndarray  # CRC-32C of each chunk file by position; for shards of each chunk inside along the last axis
    has_codec: bool  # whether the bytes of each chunk end with their CRC-32C, so that whoever decodes it checks it
    is_sharded: bool  # whether files are shards of many chunks

    def match(self, position: tuple[int, ...], content: bytes, is_range: bool = False) -> bool:
        """Return whether these are the bytes of the file at a position, or of a range of it that is one chunk."""
        expected = self.values[position]
        if self.is_sharded and is_range:
            return checksum_at_end(content) in expected
        if self.is_sharded:
            present = checksums_in_shard(lambda start, stop: content[start:stop], len(content), len(expected))
            return np.array_equal(present, expected)
        return (checksum_at_end(content) if self.has_codec else google_crc32c.value(content)) == expected

    def match_file(self, position: tuple[int, ...], path: Path) -> bool:
        """Return the same for a file, of which only the checksums are read."""
        count = self.values.shape[-1] if self.is_sharded else None
        return np.array_equal(_read_checksums(path, count), self.values[position])


@dataclass(frozen=True, eq=False)
class Checksums:
    """The checksums of a store: of its metadata by key, and of its arrays by name."""

    metadata: dict[str, int]
    arrays: dict[str, ArrayChecksums]
    of_files: bool  # an older version: those of the metadata are of the bytes of files

    def find_changed(self, files: dict[str, bytes]) -> str | None:
        """Return the key of the first metadata that do not match, from the content of metadata files by key."""
        for key, content in files.items():
            present = {key: google_crc32c.value(content)} if self.of_files else _metadata_checksums(key, content)
            for name, value in present.items():
                if self.metadata.get(name, value) != value:
                    return name
        return None


def read_checksums(store: Store, can_list: bool = True) -> Checksums | None:
    """Return the checksums in a store, or None if it has none, or those of an older version and cannot be listed."""
    try:
        group = zarr.open_group(store, path=_GROUP, mode="r", use_consolidated=False)
    except FileNotFoundError:
        return None
    names = group.attrs.get("arrays")  # older versions did not store them
    if names is None and not can_list:
        return None
    listed = group.arrays() if names is None else [(name, group[name]) for name in names]
    arrays = {
        name: ArrayChecksums(array[...], bool(array.attrs["has_codec"]), bool(array.attrs["is_sharded"]))
        for name, array in listed
    }
    return Checksums(dict(group.attrs["metadata"]), arrays, names is None)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left in a store: chunks that zarr-python was writing, and checksums."""
    for file in folder.rglob("*.partial"):
        file.unlink()
    shutil.rmtree(folder / _GROUP, ignore_errors=True)


def write_checksums(folder: Path) -> None:
    """Add the checksums to a complete store in a local folder."""
    remove_leftovers(folder)
    group = zarr.open_group(folder, mode="r+", use_consolidated=False)
    metadata = {}
    for file in sorted(folder.rglob("*")):
        if file.name in METADATA:
            metadata |= _metadata_checksums(file.relative_to(folder).as_posix(), file.read_bytes())
    arrays = dict(sorted(group.arrays()))
    listed = group.create_group(
        _GROUP, attributes={"metadata": dict(sorted(metadata.items())), "arrays": sorted(arrays)}
    )
    for name, array in arrays.items():
        has_codec = "crc32c" in str(array.metadata.to_dict().get("codecs"))
        grid = [-(-size // length) for size, length in zip(array.shape, array.shards or array.chunks, strict=True)]
        grid = grid or [1]  # a scalar
        inner = None if array.shards is None else int(np.prod(np.floor_divide(array.shards, array.chunks)))
        values = np.zeros(grid if inner is None else (*grid, inner), dtype=np.uint32)
        for file in (folder / name).rglob("*"):
            if file.is_file() and file.name not in METADATA:
                position = chunk_position(file.relative_to(folder / name).as_posix())
                values[position] = _read_checksums(file, inner) if has_codec else google_crc32c.value(file.read_bytes())
        attributes = {"has_codec": has_codec, "is_sharded": inner is not None}
        dims = [f"{name}_chunk_{axis}" for axis in range(values.ndim)]  # xarray needs some
        if group.metadata.zarr_format == 2:
            attributes, dims = attributes | {"_ARRAY_DIMENSIONS": dims}, None
        layout = {"shape": values.shape, "dtype": values.dtype, "chunks": tuple(max(1, n) for n in values.shape)}
        listed.create_array(name, **layout, dimension_names=dims, attributes=attributes)[...] = values


def _metadata_checksums(key: str, content: bytes) -> dict[str, int]:
    """Return the checksums of the metadata in a file by key: consolidated metadata hold those of all arrays.

    They do not depend on the spelling, nor on whether the metadata are consolidated.
    """
    document = json.loads(content)
    if key == ".zmetadata":
        documents = document["metadata"]
    else:
        documents = {key: document}
        for name, other in ((document.get("consolidated_metadata") or {}).get("metadata") or {}).items():
            documents[f"{name}/zarr.json"] = other
    checksums = {}
    for name, entries in documents.items():
        stated = {k: v for k, v in entries.items() if k != "consolidated_metadata" and v not in (None, [], {})}
        checksums[name] = google_crc32c.value(json.dumps(stated, sort_keys=True).encode())
    return checksums


def chunk_position(key: str) -> tuple[int, ...]:
    """Return the position of a chunk file from its key in the array, such as "c/1/0/0" or "1.0.0"; 0 for a scalar."""
    return tuple(int(digits) for digits in re.findall(r"\d+", key)) or (0,)


def checksum_at_end(content: bytes) -> int:
    """Return the CRC-32C with which the bytes of a chunk end, as the codec `crc32c` writes it."""
    return int.from_bytes(content[-4:], "little")


def checksums_in_shard(read: Callable[[int, int], bytes], size: int, count: int) -> np.ndarray | None:
    """Return the checksums with which the chunks of a shard end, in order; None if its index is damaged."""
    # the index is at the end: offset and length of each chunk as 64-bit integers, and a checksum (Zarr format 3)
    if size < 16 * count + 4:
        return None
    index = np.frombuffer(read(size - 16 * count - 4, size - 4), "<u8").reshape(-1, 2).tolist()
    if any(offset != _ABSENT and not 4 <= offset + length <= size for offset, length in index):
        return None
    ends = [0 if offset == _ABSENT else offset + length for offset, length in index]
    return np.array([checksum_at_end(read(end - 4, end)) if end else 0 for end in ends], dtype=np.uint32)


def _read_checksums(path: Path, count: int | None) -> int | np.ndarray | None:
    """Return the checksum with which a chunk file ends, or those of the `count` chunks of a shard."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if count is None:
            return checksum_at_end(os.pread(file.fileno(), 4, max(0, size - 4)))
        return checksums_in_shard(lambda start, stop: os.pread(file.fileno(), stop - start, start), size, count)
