"""Blocks of states have the values that xarray reads, for every store layout and both engines."""

import os
import re
import subprocess
import sys

import numcodecs
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from simvp_climate.data import host_memory, reader
from simvp_climate.data.conventions import canonicalize, orient
from simvp_climate.data.opening import open_dataset

ENGINES = ("zarr", "tensorstore")
RAW = np.random.default_rng(0).normal(size=(23, 3, 4, 6)).astype("f4")


def dataset(latitude_ascends: bool = True, west: float = 0) -> xr.Dataset:
    latitude = np.linspace(-60, 60, 4)
    coords = {
        "time": pd.date_range("2001", periods=len(RAW), freq="6h"),
        "level": ("level", [300, 500, 850], {"units": "hPa"}),
        "latitude": latitude if latitude_ascends else latitude[::-1],
        "longitude": np.arange(6) * 60.0 + west,
    }
    return xr.Dataset(
        {
            "z": (("time", "level", "latitude", "longitude"), RAW, {"units": "m2 s-2"}),
            "t2m": (("time", "latitude", "longitude"), RAW[:, 0] + 280, {"units": "K"}),
        },
        coords,
    )


def stored(ds: xr.Dataset, path, zarr_format: int = 2, packed: bool = False, chunk: int = 5) -> xr.Dataset:
    encoding = {name: {"chunks": tuple(chunk if d == "time" else ds.sizes[d] for d in ds[name].dims)} for name in ds}
    if packed:
        encoding["z"] |= {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": -32768}
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding=encoding)
    return xr.open_zarr(path, chunks=None, consolidated=False)


def expected(ds: xr.Dataset) -> np.ndarray:
    """Return the states as xarray reads them."""
    states = [
        variable.transpose("time", ..., "latitude", "longitude").values.reshape(ds.sizes["time"], -1, 4, 6)
        for variable in ds.data_vars.values()
    ]
    return np.concatenate(states, axis=1).astype("f4")


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("order", ["level latitude longitude time", "time longitude latitude level"])
@pytest.mark.parametrize(("ascends", "west"), [(True, 0), (False, 0), (False, -180)])
def test_both_engines_read_what_xarray_reads(tmp_path, packed, zarr_format, order, ascends, west):
    lazy = stored(dataset(ascends, west).transpose(*order.split()), tmp_path / "s.zarr", zarr_format, packed)
    cases = [lazy, lazy.isel(time=slice(3, 19)), lazy.isel(time=slice(1, None, 2)), lazy.isel(time=[3, 4, 5, 9, 11])]
    for case in cases:
        for names, levels in ((["z", "t2m"], [850, 300]), (["z500", "t2m"], None)):
            oriented = canonicalize(case, names, levels).dataset
            reference = expected(canonicalize(case.compute(), names, levels).dataset)
            for engine in ENGINES:
                source = reader.open_source(oriented, engine)
                for times in (np.arange(source.dataset.sizes["time"]), np.arange(1, 4), np.array([0, 2, 3])):
                    np.testing.assert_array_equal(reader.read(source, times), reference[times])


def test_a_zarr_without_public_buffers_reads_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "NDBuffer", None)
    oriented = canonicalize(stored(dataset(False), tmp_path / "s.zarr"), ["z500", "t2m"]).dataset
    source = reader.open_source(oriented, "zarr")
    np.testing.assert_array_equal(reader.read(source, np.arange(2, 9)), expected(oriented.compute())[2:9])


def test_auto_reads_untouched_views_with_tensorstore(tmp_path):
    lazy = canonicalize(stored(dataset(), tmp_path / "s.zarr"), ["z500", "t2m"]).dataset
    assert all(field.tensorstore is not None for field in reader.open_source(lazy).fields)
    assert all(field.tensorstore is None for field in reader.open_source(lazy, "zarr").fields)
    changed = lazy - 1
    assert all(field.tensorstore is None for field in reader.open_source(changed).fields)
    np.testing.assert_array_equal(reader.read(reader.open_source(changed), np.arange(3)), expected(changed)[:3])
    with pytest.raises(ValueError, match="engine='tensorstore' cannot read 'z500'"):
        reader.open_source(changed, "tensorstore")
    with pytest.raises(ValueError, match="engine='fast' must be one of"):
        reader.open_source(lazy, "fast")


@pytest.mark.parametrize("change", ["an unknown wrapper", "a missing method"])
def test_unknown_insides_of_xarray_are_read_through_xarray(tmp_path, monkeypatch, change):
    lazy = canonicalize(stored(dataset(), tmp_path / "s.zarr"), ["z500", "t2m"]).dataset
    reference = expected(lazy)
    if change == "a missing method":
        monkeypatch.delattr("xarray.backends.zarr.ZarrArrayWrapper.get_array")
        unknown = "get_array"
    else:
        for variable in lazy.data_vars.values():
            known = type(variable.variable._data)
            renamed = type("LazyArray", (known,), {"__module__": known.__module__})
            variable.variable._data = renamed(variable.variable._data)
        unknown = "LazyArray"
    with pytest.warns(UserWarning, match=rf"xarray \d.* in an unknown way .*{unknown}.* read through xarray"):
        source = reader.open_source(lazy)
    np.testing.assert_array_equal(reader.read(source, np.array([0, 2, 3, 22])), reference[[0, 2, 3, 22]])
    with pytest.warns(UserWarning, match="unknown way"):
        assert reader.source_identity(source) is None  # statistics are not kept: a changed file would go unnoticed
    with (
        pytest.warns(UserWarning, match="unknown way"),
        pytest.raises(ValueError, match="engine='tensorstore' cannot read 'z500'"),
    ):
        reader.open_source(lazy, "tensorstore")


def test_dask_and_numbers_in_memory():
    ds = dataset()
    for chunked in (ds, ds.chunk(time=4)):
        oriented = canonicalize(chunked, ["z", "t2m"]).dataset
        np.testing.assert_array_equal(
            reader.read(reader.open_source(oriented), np.arange(2, 9)),
            expected(canonicalize(ds, ["z", "t2m"]).dataset)[2:9],
        )


def test_netcdf(tmp_path):
    dataset(False).to_netcdf(tmp_path / "s.nc")
    with xr.open_dataset(tmp_path / "s.nc", chunks=None) as lazy:
        oriented = canonicalize(lazy, ["z500", "t2m"]).dataset
        source = reader.open_source(oriented)
        reference = expected(canonicalize(dataset(False), ["z500", "t2m"]).dataset)
        np.testing.assert_array_equal(reader.read(source, np.arange(source.dataset.sizes["time"])), reference)
        assert reader.source_identity(source) is not None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_named_with_its_times(tmp_path, engine, zarr_format):
    stored(dataset(), tmp_path / "s.zarr", zarr_format)
    chunk = tmp_path / "s.zarr" / ("t2m/1.0.0" if zarr_format == 2 else "t2m/c/1/0/0")
    os.truncate(chunk, 40)
    source = reader.open_source(orient(open_dataset(tmp_path / "s.zarr", ["z500", "t2m"])), engine)
    message = "'t2m' .*s.zarr.* cannot be read at the times 2001-01-02 06:00:00 to 2001-01-03 06:00:00 .one chunk, 5"
    with pytest.raises(OSError, match=message):
        reader.read(source, np.arange(23))
    reader.read(source, np.arange(0, 5))  # complete chunks can be read


PACKED = {  # for format 2 and 3
    "none": (None, None),
    "zstd": (numcodecs.Zstd(), ZstdCodec()),
    "zlib": (numcodecs.Zlib(), GzipCodec()),
    "blosc-lz4": (numcodecs.Blosc("lz4"), BloscCodec(cname="lz4", shuffle="shuffle")),
    "blosc-zstd": (numcodecs.Blosc("zstd"), BloscCodec(cname="zstd", shuffle="shuffle")),
    "blosc-zlib": (numcodecs.Blosc("zlib"), BloscCodec(cname="zlib", shuffle="shuffle")),
}


@pytest.mark.parametrize("content", ["smooth", "noise"])
@pytest.mark.parametrize("layout", ["v2", "v3", "sharded"])
@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_truncated_chunk_is_never_read_as_other_values(tmp_path, engine, codec, layout, content):
    times, shape = 20, (8, 16)
    if content == "smooth":
        values = np.broadcast_to(np.arange(times, dtype="f4")[:, None, None], (times, *shape))
    else:  # random bits, which Blosc stores uncompressed
        values = np.random.default_rng(0).integers(0, 2**31, (times, *shape), dtype="u4").view("f4")
        values = np.where(np.isfinite(values), values, np.float32(1))
    coords = {
        "time": pd.date_range("2001", periods=times, freq="6h"),
        "latitude": np.linspace(-70, 70, 8),
        "longitude": np.arange(16) * 22.5,
    }
    zarr_format = 2 if layout == "v2" else 3
    encoding = {"chunks": (5, *shape), "compressors": PACKED[codec][zarr_format - 2]}
    if layout == "sharded":
        encoding |= {"chunks": (1, *shape), "shards": (5, *shape)}
    path = tmp_path / "s.zarr"
    ds = xr.Dataset({"t2m": (("time", "latitude", "longitude"), values)}, coords)
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False, encoding={"t2m": encoding})
    chunk = path / ("t2m/1.0.0" if zarr_format == 2 else "t2m/c/1/0/0")
    whole = chunk.read_bytes()
    refused = 0
    for cut in (1, 10, len(whole) // 2, len(whole)):
        chunk.write_bytes(whole[: len(whole) - cut])
        source = reader.open_source(orient(open_dataset(path, ["t2m"])), engine)
        np.testing.assert_array_equal(reader.read(source, np.array([4, 10]))[:, 0], values[[4, 10]])
        for selection in (np.arange(times), np.array([7])):  # the whole shard, and one chunk of it
            try:
                states = reader.read(source, selection)
            except OSError as error:
                refused += 1
                assert re.search(
                    r"'t2m' .*s.zarr.* at the times 2001-01-0(2 06:00:00 to 2001-01-03 06|2 18:00:00 to 2001-01-02 18)"
                    r":00:00",
                    str(error),
                )
            else:  # only the end of a checksum is lost, no value
                np.testing.assert_array_equal(states[:, 0], values[selection])
    assert refused == 8 or (engine == "tensorstore" and codec == "zlib" and refused >= 6)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_chunk_is_an_error_unless_it_means_the_fill_value(tmp_path, engine):
    stored(dataset(), tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "t2m" / "2.0.0").unlink()
    source = reader.open_source(orient(open_dataset(tmp_path / "s.zarr", ["t2m"])), engine)
    fix = r"MissingChunkError: .*2\.0\.0.*open_dataset\(..., missing_chunks=\"fill\"\)"
    with pytest.raises(OSError, match=rf"2001-01-03 12:00:00 to 2001-01-04 12:00:00 .one chunk, 5 times.: {fix}"):
        reader.read(source, np.arange(23))
    filled = open_dataset(tmp_path / "s.zarr", ["t2m"], missing_chunks="fill")
    states = reader.read(reader.open_source(orient(filled), engine), np.arange(23))
    assert np.isnan(states[10:15]).all() and np.isfinite(states[:10]).all()


def test_the_identity_follows_the_stored_data(tmp_path):
    lazy = stored(dataset(), tmp_path / "s.zarr")

    def identity(ds: xr.Dataset) -> str | None:
        return reader.source_identity(reader.open_source(canonicalize(ds, ["t2m"]).dataset, "zarr"))

    first = identity(lazy)
    assert first == identity(lazy) != identity(lazy.isel(time=slice(1, None)))
    assert identity(lazy - 1) is None and identity(lazy.chunk(time=3)) is None
    chunk = tmp_path / "s.zarr" / "t2m" / "2.0.0"
    os.utime(chunk, (1, 1))
    assert identity(lazy) != first


def test_chunks_in_times_of_a_selection(tmp_path):
    lazy = stored(dataset(), tmp_path / "s.zarr", chunk=5)

    def source(**by) -> reader.Source:
        return reader.open_source(canonicalize(lazy.isel(by), ["t2m"]).dataset, "zarr")

    whole, later, thinned = source(), source(time=slice(3, None)), source(time=slice(0, None, 2))
    assert (whole.chunk_times, whole.offset_in_chunk(0), whole.offset_in_chunk(7)) == (5, 0, 2)
    assert (later.chunk_times, later.offset_in_chunk(0), later.offset_in_chunk(2)) == (5, 3, 0)
    assert later.fields[0].chunk_indices(0, 4).tolist() == [0, 0, 1, 1]
    assert (thinned.chunk_times, thinned.offset_in_chunk(0)) == (2, 0)
    assert whole.decoded_times(4, 6) == 10


def test_runs_without_a_gap():
    assert reader.consecutive_runs(np.array([2, 3, 4, 7, 9, 10])) == [(2, 5, 0), (7, 8, 3), (9, 11, 4)]
    assert reader.consecutive_runs(np.array([], dtype=int)) == []


def test_chunks_of_netcdf_are_known(tmp_path):
    dataset().to_netcdf(
        tmp_path / "s.nc", encoding={"z": {"chunksizes": (5, 3, 4, 6)}, "t2m": {"chunksizes": (7, 4, 6)}}
    )
    with xr.open_dataset(tmp_path / "s.nc", chunks=None) as lazy:
        source = reader.open_source(canonicalize(lazy.isel(time=slice(2, None)), ["z500", "t2m"]).dataset)
        assert (source.chunk_times, source.offset_in_chunk(0)) == (7, 2)
        assert source.chunk_bytes == 5 * 3 * 4 * 6 * 4


def test_the_size_of_a_chunk_includes_unused_levels(tmp_path):
    lazy = stored(dataset(), tmp_path / "s.zarr", chunk=5)
    source = reader.open_source(canonicalize(lazy, ["z500"]).dataset, "zarr")
    assert source.chunk_bytes == 5 * 3 * 4 * 6 * 4 > 5 * source.state_bytes


def test_the_identity_is_the_same_in_every_process(tmp_path):
    """Also for packed data, whose decoder has another address in each process."""
    stored(dataset(), tmp_path / "s.zarr", packed=True)
    code = f"""
import xarray as xr
from simvp_climate.data import views
ds = xr.open_zarr({str(tmp_path / "s.zarr")!r}, chunks=None, consolidated=False)
print(views.variable_identity(ds["z"].variable))
"""
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(outputs) == 1 and len(outputs.pop().strip()) == 64


def test_the_memory_limit_of_the_job_counts(monkeypatch, tmp_path):
    """Version 2 of cgroups, nested as Slurm does it: the tightest limit above the process."""
    job = tmp_path / "sys/fs/cgroup/slurm/job_1/step_0"
    job.mkdir(parents=True)
    (job.parent / "memory.max").write_text("1000000")
    (job.parent / "memory.current").write_text("300000")
    (job.parent / "memory.stat").write_text("anon 200000\ninactive_file 50000\n")
    (job / "memory.max").write_text("max")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/slurm/job_1/step_0\n")
    monkeypatch.setattr(host_memory, "Path", lambda *parts: tmp_path.joinpath(*(part.lstrip("/") for part in parts)))
    assert host_memory.free_memory() == 750_000
    (tmp_path / "proc/self/cgroup").write_text("5:cpu:/\n")
    assert host_memory.free_memory() == 8000 * 1024
