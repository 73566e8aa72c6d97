"""Stores on disk with one file flipped, cut, zeroed, removed, swapped with or replaced by another.

Stores that this package writes carry checksums: whatever is done to them must be noticed. Stores of others without
checksums: chunks that are cut, missing or that cannot be decoded must be noticed; what decodes to other values cannot
be known, and is counted on a line of its own.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numcodecs
import numpy as np
import xarray as xr
import zarr
from dataset_attacks import NAMES, base, trained
from outcomes import Attack, LibraryError, judge

import simvp_climate as sc
from simvp_climate.data import reader
from simvp_climate.data.conventions import canonicalize

HOW = ("flip", "flip", "cut", "empty", "zeros", "remove", "swap", "duplicate")
# what stores without checksums cannot tell from data
UNKNOWABLE = ("flip", "zeros", "swap", "duplicate")


def long_base() -> xr.Dataset:
    """Return data of several chunks per variable, noisy, so that no two chunks are alike."""
    ds = base()
    rng = np.random.default_rng(0)
    return ds.map(lambda v: (v + rng.normal(size=v.shape)).astype("f4"), keep_attrs=True)


@dataclass(frozen=True)
class Layout:
    """A way to store data: how it is written, by whom, and the engines that read it."""

    name: str
    is_ours: bool
    write: Callable[[Path], object]
    engines: tuple[str, ...] = ("zarr", "tensorstore")


def _cache(path: Path, **settings) -> None:
    sc.cache(long_base(), path, chunk_bytes=8 * 16 * 4 * 5, progress=False, **settings)


def _foreign(path: Path, zarr_format: int, compressor: object) -> None:
    encoding = {name: {"chunks": (5, 8, 16), "compressors": compressor} for name in NAMES}
    long_base().to_zarr(path, zarr_format=zarr_format, consolidated=zarr_format == 2, encoding=encoding)


def _hindcast(path: Path) -> None:
    trained().hindcast(base(), every="6h", store=path, progress=False)


LAYOUTS = (
    Layout("cache", True, _cache),
    Layout("cache in int16", True, lambda path: _cache(path, dtype="int16")),
    Layout("cache in shards", True, lambda path: _cache(path, shard_bytes=8 * 16 * 4 * 10)),
    Layout("hindcast", True, _hindcast, engines=("xarray",)),
    Layout("Zarr 2 with Blosc", False, lambda path: _foreign(path, 2, numcodecs.Blosc("lz4"))),
    Layout("Zarr 3 with Blosc", False, lambda path: _foreign(path, 3, zarr.codecs.BloscCodec(cname="lz4"))),
    Layout("Zarr 3 with zstd", False, lambda path: _foreign(path, 3, zarr.codecs.ZstdCodec())),
)


@cache
def _pristine(index: int) -> Path:
    """Return the folder of an undamaged store."""
    folder = Path(tempfile.mkdtemp(prefix="attacks-"))
    LAYOUTS[index].write(folder / "s.zarr")
    return folder / "s.zarr"


@cache
def _expected(index: int, engine: str) -> dict[str, np.ndarray]:
    return _read(_pristine(index), engine)


def _read(path: Path, engine: str) -> dict[str, np.ndarray]:
    """Return all values that a user gets from a store: through an engine of the loader, or through xarray."""
    if engine == "xarray":
        ds = sc.open_dataset(path, list(NAMES))
        try:
            ds.load()
        except Exception as error:
            raise LibraryError(repr(error)) from error
        values = {str(name): variable.values for name, variable in ds.variables.items()}
    else:
        canonical = canonicalize(sc.open_dataset(path, list(NAMES)), NAMES)
        ds = canonical.dataset
        source = reader.open_source(ds, engine)
        values = {"states": reader.read(source, np.arange(ds.sizes["time"]))}
        try:
            values |= {str(name): coordinate.values for name, coordinate in ds.coords.items()}
        except Exception as error:  # xarray reads what is no index
            raise LibraryError(repr(error)) from error
    return values | {f"units of {name}": np.array(ds[name].attrs.get("units")) for name in NAMES}


def damage(path: Path, how: str, rng: np.random.Generator) -> str:
    """Damage one file of a store in place; return which."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = files[int(rng.integers(len(files)))]
    content = bytearray(file.read_bytes())
    at = int(rng.integers(len(content)))
    if how == "flip":
        content[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
    elif how == "cut":
        file.write_bytes(content[:at])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "zeros":
        file.write_bytes(bytes(len(content)))
    elif how == "remove":
        file.unlink()
    else:
        # another file of the same kind: a chunk or a document of another array or time
        others = [f for f in files if f != file and (f.suffix == ".json") == (file.suffix == ".json")]
        other = others[int(rng.integers(len(others)))]
        file.write_bytes(other.read_bytes())
        if how == "swap":
            other.write_bytes(content)
    return f"{how} {file.relative_to(path)} at {at}"


def attack(seed: int) -> list[Attack]:
    """Return how reading one damaged store ended, for one engine."""
    rng = np.random.default_rng(seed)
    index = seed % len(LAYOUTS)
    layout, how = LAYOUTS[index], str(rng.choice(HOW))
    engine = str(rng.choice([*layout.engines, "xarray"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        shutil.copytree(_pristine(index), path)
        described = f"seed {seed}, {layout.name}, {engine}, {damage(path, how, rng)}"

        def is_right(values):
            expected = _expected(index, engine)
            return values.keys() == expected.keys() and all(
                np.array_equal(values[name], expected[name], equal_nan=values[name].dtype.kind == "f")
                for name in expected
            )

        area = "store of ours" if layout.is_ours else "store of others"
        if not layout.is_ours and how in UNKNOWABLE:
            area += ", bytes changed"
        return [judge(area, described, lambda: _read(path, engine), is_right)]
