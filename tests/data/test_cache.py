"""Caches have the same values as their source, read it once, and resume after interruptions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import netCDF4
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

import simvp_climate.data.cache as module
from simvp_climate.data.cache import cache
from simvp_climate.data.files import lock
from simvp_climate.data.opening import open_dataset

LATITUDE, LONGITUDE = [90.0, 0.0, -90.0], [-180.0, -90.0, 0.0, 90.0]
GLOBE = 4 * 3 * 4  # bytes of one float32 field


def noise(times=40, levels=None, dtype="f4", calendar="standard"):
    when = xr.date_range("2001-02-26", periods=times, freq="6h", calendar=calendar, use_cftime=calendar != "standard")
    coords = {"time": when, "latitude": LATITUDE, "longitude": LONGITUDE}
    dims = ["time", "latitude", "longitude"]
    if levels:
        coords["level"] = ("level", levels, {"units": "hPa"})
        dims.insert(1, "level")
    shape = [len(coords[dim][1]) if dim == "level" else len(coords[dim]) for dim in dims]
    values = np.random.default_rng(0).normal(5e4, 1e3, shape).astype(dtype)
    return xr.Dataset({"z": (dims, values, {"units": "m2 s-2"})}, coords, {"title": "noise"})


def without_record(ds):
    ds = ds.copy()
    ds.attrs.pop("cache_made_from", None)
    for variable in ds.data_vars.values():
        variable.attrs.pop("cache_max_abs_error", None)
    return ds


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


@pytest.fixture
def blocks_of_eight(monkeypatch):
    """Blocks of 8 times of float32 on one level."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * GLOBE)


class Reads(xr.backends.BackendArray):
    """An array that records which times were read, and can fail."""

    def __init__(self, values, fail_at=None):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.times, self.fail_at = [], fail_at

    def __getitem__(self, key):
        values = xr.core.indexing.explicit_indexing_adapter(
            key, self.shape, xr.core.indexing.IndexingSupport.OUTER, lambda key: self.values[key]
        )
        if isinstance(key.tuple[0], slice):  # the times of the sample are a list
            start = key.tuple[0].start or 0
            if start == self.fail_at:
                raise OSError("the planted failure")
            self.times += range(self.shape[0])[key.tuple[0]]
        return values


def counted(ds, fail_at=None):
    """Return a lazy copy of a Dataset, and the record of its reads."""
    reads = Reads(ds["z"].values, fail_at)
    lazy = xr.core.indexing.LazilyIndexedArray(reads)
    return ds.assign(z=xr.Variable(ds["z"].dims, lazy, ds["z"].attrs, {"preferred_chunks": {"time": 4}})), reads


def test_everything_is_kept(tmp_path, capsys):
    ds = noise(levels=[500, 850])
    ds["land"] = ("latitude", "longitude"), np.eye(3, 4), {"units": "1"}
    ds["time"].encoding = {"units": "days since 2001-01-01", "dtype": "int32", "calendar": "standard"}
    ds["time"].attrs["bounds"] = "time_bnds"
    ds = ds.assign_coords(time_bnds=(("time", "bnds"), np.stack([ds.time - np.timedelta64(6, "h"), ds.time], 1)))
    result = cache(ds, tmp_path / "c.zarr")
    xr.testing.assert_identical(without_record(result).reset_coords("time_bnds"), ds.reset_coords("time_bnds"))
    assert "z 0 m2 s-2" in capsys.readouterr().out
    assert result["z"].attrs["cache_max_abs_error"] == 0 and not result["z"].variable._in_memory
    assert result["z"].chunks is None and result["z"].encoding["chunks"] == (40, 1, 3, 4)
    opened = open_dataset(tmp_path / "c.zarr", ["z"], levels=[850])
    np.testing.assert_array_equal(opened["z"], ds["z"].sel(level=[850]))
    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]
    result.to_zarr(tmp_path / "again.zarr", zarr_format=2)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "again.zarr")["z"], ds["z"])


def test_latitude_is_stored_before_longitude(tmp_path):
    ds = noise()
    result = cache(ds.transpose("time", "longitude", "latitude"), tmp_path / "c.zarr", progress=False)
    xr.testing.assert_identical(without_record(result), ds)


def test_one_level_out_of_chunks_of_13(tmp_path):
    ds = noise(levels=list(range(50, 700, 50)))
    compressor = numcodecs.Blosc("lz4", 5, 1, 0)
    encoding = {"z": {"chunks": (10, 13, 3, 4), "compressors": compressor}}
    ds.rename(z="geopotential").to_zarr(tmp_path / "wb2.zarr", zarr_format=2, encoding={"geopotential": encoding["z"]})
    source = open_dataset(tmp_path / "wb2.zarr", ["z500"])
    result = cache(source, tmp_path / "c.zarr", chunk_bytes=25 * GLOBE, progress=False)
    np.testing.assert_array_equal(result["z500"], ds["z"].sel(level=500))
    # about 25 times, in whole chunks of the source
    assert result["z500"].encoding["chunks"] == (20, 3, 4)
    assert sum(len(content) for content in files(tmp_path / "c.zarr" / "z500").values()) < 1.1 * 40 * GLOBE + 2000


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [(128, 1, 128), (128, 100, 100), (128, 50, 100), (128, 1000, 125), (128, 365, 73), (128, 997, 128)],
)
def test_chunks_end_where_those_of_the_source_do(target, source, expected):
    assert module._chunk_length(target, source) == expected


def test_each_time_is_read_once(tmp_path, blocks_of_eight):
    ds = noise(times=37)
    lazy, reads = counted(ds)
    result = cache(lazy, tmp_path / "c.zarr", chunk_bytes=4 * GLOBE, progress=False)
    assert reads.times == list(range(37))
    np.testing.assert_array_equal(result["z"], ds["z"])


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("shard_bytes", [None, 8 * GLOBE])
def test_a_failure_costs_one_block(tmp_path, blocks_of_eight, dtype, shard_bytes):
    ds = noise(times=37)
    settings = dict(dtype=dtype, chunk_bytes=4 * GLOBE, shard_bytes=shard_bytes, progress=False)
    cache(ds, tmp_path / "whole.zarr", **settings)
    failing, _ = counted(ds, fail_at=16)
    with pytest.raises(OSError, match="planted"):
        cache(failing, tmp_path / "c.zarr", **settings)
    assert [path.name for path in tmp_path.glob("c*")] == ["c.zarr.unfinished"]
    lazy, reads = counted(ds)
    cache(lazy, tmp_path / "c.zarr", **settings)
    # int16 failed in its first pass over the data, and the second pass is whole
    assert reads.times == list(range(16, 37)) + (list(range(37)) if dtype == "int16" else [])
    assert files(tmp_path / "c.zarr") == files(tmp_path / "whole.zarr")
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_block_that_was_half_written_is_written_again(tmp_path, blocks_of_eight, monkeypatch):
    ds, settings = noise(), dict(chunk_bytes=4 * GLOBE, progress=False)
    cache(ds, tmp_path / "whole.zarr", **settings)
    written, write_json = [], module._write_json

    def die(path, content):
        written.append(path.name)
        if path.name == "written-z-16.json":
            raise KeyboardInterrupt
        write_json(path, content)

    monkeypatch.setattr(module, "_write_json", die)
    with pytest.raises(KeyboardInterrupt):
        cache(ds, tmp_path / "c.zarr", **settings)
    chunk = tmp_path / "c.zarr.unfinished" / "store" / "z" / "c" / "4" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:10])
    chunk.with_name("0.ea2959b3.partial").write_bytes(b"left by zarr-python when it is killed")
    monkeypatch.setattr(module, "_write_json", write_json)
    cache(ds, tmp_path / "c.zarr", **settings)
    assert "written-z-8.json" in written and "written-z-24.json" not in written
    assert files(tmp_path / "c.zarr") == files(tmp_path / "whole.zarr")


def test_only_the_same_dataset_and_settings_resume(tmp_path, blocks_of_eight):
    ds = noise()
    failing, _ = counted(ds, fail_at=16)
    settings = dict(chunk_bytes=4 * GLOBE, progress=False)
    with pytest.raises(OSError, match="planted"):
        cache(failing, tmp_path / "c.zarr", **settings)
    changed = {
        r"contents\.z\.shape is \[36, 3, 4\], was \[40, 3, 4\]": ds.isel(time=slice(36)),
        r"contents\.z\.values \(checksum\) is": ds.assign(z=(ds["z"] + 1).assign_attrs(ds["z"].attrs)),
        r"contents\.t is new": ds.assign(t=ds["z"]),
        r"contents\.z\.attributes\.units is 'm', was 'm2 s-2'": ds.assign(z=ds["z"].assign_attrs(units="m")),
    }
    for message, other in changed.items():
        with pytest.raises(ValueError, match=f"c.zarr.unfinished' is an unfinished cache .*{message}"):
            cache(other, tmp_path / "c.zarr", **settings)
    with pytest.raises(ValueError, match="settings.dtype is 'int16', was 'float32'"):
        cache(ds, tmp_path / "c.zarr", dtype="int16", **settings)
    done = cache(ds, tmp_path / "c.zarr", **settings)
    before = files(tmp_path / "c.zarr")
    lazy, reads = counted(ds)
    assert cache(lazy, tmp_path / "c.zarr", **settings).identical(done)
    assert files(tmp_path / "c.zarr") == before and reads.times == []
    with pytest.raises(ValueError, match=r"c.zarr' is a cache of another .*chunk_bytes is 96, was 192"):
        cache(ds, tmp_path / "c.zarr", chunk_bytes=2 * GLOBE, progress=False)


def test_the_path_of_the_source_is_compared(tmp_path):
    for name in ("a.nc", "b.nc"):
        noise().to_netcdf(tmp_path / name)
    cache(open_dataset(tmp_path / "a.nc", ["z"]), tmp_path / "c.zarr", progress=False)
    with pytest.raises(ValueError, match="path is '.*b.nc', was '.*a.nc'"):
        cache(open_dataset(tmp_path / "b.nc", ["z"]), tmp_path / "c.zarr", progress=False)


def packed(path, values):
    """Write a store of 800 times with packed numbers, which xarray decodes."""
    encoding = {"z": {"chunks": (100, 3, 4), "dtype": "int16", "scale_factor": 0.5, "_FillValue": -9}}
    noise(800).assign(z=lambda ds: ds["z"].copy(data=values)).to_zarr(path, mode="w", zarr_format=2, encoding=encoding)


def change_in_the_middle(path):
    array = zarr.open_array(path / "z", mode="r+")
    array[200:300] = array[200:300] + 1  # not the first, middle or last time


@pytest.mark.parametrize("file_format", ["zarr", "netcdf"])
def test_a_source_that_changed_between_the_samples_is_refused(tmp_path, file_format):
    values = np.zeros((800, 3, 4), "f4")
    path, target = tmp_path / "source", tmp_path / "c.zarr"
    if file_format == "zarr":
        packed(path, values)
    else:
        noise(800).to_netcdf(path)
    before = cache(open_dataset(path, ["z"]), target, progress=False)
    assert cache(open_dataset(path, ["z"]), target, progress=False).identical(before)
    if file_format == "zarr":
        change_in_the_middle(path)
    else:
        with netCDF4.Dataset(path, "r+") as file:
            file["z"][200:300] = 0
    message = r"c.zarr' is a cache of another .*contents\.z.*the files of the source changed since"
    with pytest.raises(ValueError, match=message):
        cache(open_dataset(path, ["z"]), target, progress=False)


def test_old_and_new_are_not_mixed_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 100 * GLOBE)
    path, settings = tmp_path / "source", dict(chunk_bytes=100 * GLOBE, progress=False)
    packed(path, np.zeros((800, 3, 4), "f4"))
    write, begun = module._write_block, []

    def die(*arguments):
        begun.append(1)
        if len(begun) == 4:
            raise OSError("the planted failure")
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_block", die)
        with pytest.raises(OSError, match="planted"):
            cache(open_dataset(path, ["z"]), tmp_path / "c.zarr", **settings)
    change_in_the_middle(path)
    with pytest.raises(ValueError, match=r"c.zarr.unfinished' is an unfinished cache .*files of the source changed"):
        cache(open_dataset(path, ["z"]), tmp_path / "c.zarr", **settings)


def test_another_process_recognizes_the_source(tmp_path):
    packed(tmp_path / "source", np.zeros((800, 3, 4), "f4"))
    cache(open_dataset(tmp_path / "source", ["z"]), tmp_path / "c.zarr", progress=False)
    code = "import sys, simvp_climate as sc; sc.cache(sc.open_dataset(sys.argv[1], ['z']), sys.argv[2], progress=False)"
    arguments = [str(tmp_path / name) for name in ("source", "c.zarr")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_samples_decide_where_files_are_unknown(tmp_path):
    """Also for caches written before files were compared."""
    packed(tmp_path / "source", np.zeros((800, 3, 4), "f4"))
    ds = open_dataset(tmp_path / "source", ["z"])
    before = cache(ds, tmp_path / "c.zarr", progress=False)
    assert cache(ds.load(), tmp_path / "c.zarr", progress=False).identical(before)
    record = json.loads(zarr.open_group(tmp_path / "c.zarr", mode="r").attrs["cache_made_from"])
    assert record["contents"]["z"].pop("stored (identity)")
    zarr.open_group(tmp_path / "c.zarr", mode="r+").update_attributes({"cache_made_from": json.dumps(record)})
    shutil.rmtree(tmp_path / "c.zarr" / "checksums")
    with pytest.warns(UserWarning, match=r"c\.zarr.* has no checksums.*sc\.cache"):
        again = cache(open_dataset(tmp_path / "source", ["z"]), tmp_path / "c.zarr", progress=False)
    xr.testing.assert_equal(again, before)


def test_a_cache_that_another_process_writes_is_refused(tmp_path):
    ds = noise(times=4)
    (tmp_path / "c.zarr.unfinished.lock").touch()
    with lock(tmp_path / "c.zarr.unfinished.lock"), pytest.raises(RuntimeError, match="c.zarr' is being written by"):
        cache(ds, tmp_path / "c.zarr", progress=False)
    cache(ds, tmp_path / "c.zarr", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["c.zarr"]
    (tmp_path / "c.zarr.unfinished.lock").touch()  # of a run killed right after it moved the store
    cache(ds, tmp_path / "c.zarr", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["c.zarr"]


def test_other_files_are_not_touched(tmp_path):
    ds = noise(times=4)
    ds.to_zarr(tmp_path / "mine.zarr", zarr_format=3, consolidated=False)
    (tmp_path / "notes").mkdir()
    (tmp_path / "new.zarr.unfinished").mkdir()
    (tmp_path / "new.zarr.unfinished" / "thesis.tex").write_text("")
    before = files(tmp_path)
    for name in ("mine.zarr", "notes", "new.zarr"):
        with pytest.raises(FileExistsError, match=rf"{name}(.unfinished)?' exists and is not a cache"):
            cache(ds, tmp_path / name, progress=False)
    assert files(tmp_path) == before


def test_int16_by_hand(tmp_path):
    # from 0 to 65534 a step is exactly 1, and 0.25 and 3.5 are a quarter and a half from a step
    values = np.zeros((4, 3, 4), "f4")
    values[1, 0, 0], values[2, 0, 0], values[3, 0, 0] = 65534, 0.25, 1000.0
    ds = noise(times=4).assign(z=(("time", "latitude", "longitude"), values))
    result = cache(ds, tmp_path / "a.zarr", dtype="int16", progress=False)
    assert result["z"].encoding["scale_factor"] == 1.0 and result["z"].encoding["add_offset"] == 32767.0
    assert result["z"].attrs["cache_max_abs_error"] == 0.25
    expected = values.copy()
    expected[2, 0, 0] = 0
    np.testing.assert_array_equal(result["z"], expected)
    values[0, 1, 1] = 3.5
    result = cache(ds, tmp_path / "b.zarr", dtype="int16", progress=False)
    assert result["z"].attrs["cache_max_abs_error"] == 0.5


def test_int16_is_off_by_half_a_step_at_most(tmp_path):
    ds = noise(times=200)
    result = cache(ds, tmp_path / "c.zarr", dtype="int16", progress=False)
    stated, step = result["z"].attrs["cache_max_abs_error"], result["z"].encoding["scale_factor"]
    # the equal comes from float64 as the file's reader sees it
    assert stated == float(np.abs(result["z"].astype("f8") - ds["z"].astype("f8")).max())
    assert 0.45 * step < stated <= 0.5 * step * (1 + 1e-9)
    assert step == pytest.approx(float(ds["z"].max() - ds["z"].min()) / 65534)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int16"])
def test_missing_values_stay(tmp_path, dtype):
    ds = noise(times=8)
    ds["z"][:, 1, 2] = np.nan
    ds["z"][3, 0] = np.nan
    ds["ice"] = ds["z"] * np.nan  # nothing but missing values
    ds["flat"] = xr.full_like(ds["z"], 7.25).where(ds["z"].notnull())
    result = cache(ds, tmp_path / "c.zarr", dtype=dtype, progress=False)
    for name in ds:
        np.testing.assert_array_equal(np.isnan(result[name]), np.isnan(ds[name]))
    np.testing.assert_array_equal(result["flat"], ds["flat"])
    assert result["ice"].attrs["cache_max_abs_error"] == 0
    assert (tmp_path / "c.zarr" / "ice" / "c" / "0" / "0" / "0").exists()  # an absent chunk would count as lost
    os.remove(tmp_path / "c.zarr" / "z" / "c" / "0" / "0" / "0")
    assert np.isnan(xr.open_zarr(tmp_path / "c.zarr", chunks=None, consolidated=False)["z"]).all()


def test_float16_records_its_error_and_ends_at_65504(tmp_path):
    ds = noise(times=4)
    ds["z"][:] = 49152 + 13  # of multiples of 32 the nearest is 13 below
    result = cache(ds, tmp_path / "a.zarr", dtype="float16", progress=False)
    assert result["z"].dtype == np.float16 and (result["z"] == 49152).all()
    assert result["z"].attrs["cache_max_abs_error"] == 13
    ds["z"][2, 0, 0] = 7e4
    with pytest.raises(OverflowError, match="'z' has the value 70000, .*65504.*dtype='int16'"):
        cache(ds, tmp_path / "b.zarr", dtype="float16", progress=False)
    assert not list(tmp_path.glob("b*"))
    ds["z"][2, 0, 0] = np.inf
    with pytest.raises(OverflowError, match="'z' has infinite values"):
        cache(ds, tmp_path / "b.zarr", dtype="int16", progress=False)


def test_float64_is_rounded_and_the_error_recorded(tmp_path):
    ds = noise(times=4, dtype="f8")
    ds["z"][:] = 2.0**24 + 1  # float32 has the even numbers there
    assert cache(ds, tmp_path / "c.zarr", progress=False)["z"].attrs["cache_max_abs_error"] == 1


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_of_models(tmp_path, calendar):
    ds = noise(calendar=calendar)
    result = cache(ds, tmp_path / "c.zarr", progress=False)
    xr.testing.assert_identical(without_record(result), ds)
    assert result.indexes["time"].calendar == calendar


def test_other_dimensions_are_kept_in_chunks_of_one(tmp_path):
    ds = noise().expand_dims(member=3).assign_coords(member=[1, 2, 3])
    result = cache(ds, tmp_path / "c.zarr", progress=False)
    assert result["z"].dims == ("time", "member", "latitude", "longitude")
    assert result["z"].encoding["chunks"] == (40, 1, 3, 4)
    np.testing.assert_array_equal(result["z"].transpose(*ds["z"].dims), ds["z"])


def test_shards_hold_many_chunks(tmp_path):
    ds = noise()
    cache(ds, tmp_path / "c.zarr", chunk_bytes=4 * GLOBE, shard_bytes=17 * GLOBE, progress=False)
    assert len([name for name in files(tmp_path / "c.zarr" / "z") if name.startswith("c/")]) == 3  # of 16 times each
    np.testing.assert_array_equal(open_dataset(tmp_path / "c.zarr", ["z"])["z"], ds["z"])


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("source", ["memory", "dask", "netcdf"])
def test_workers_write_the_same_bytes(tmp_path, blocks_of_eight, client, source, monkeypatch):
    ds = noise(times=37)
    if source == "netcdf":
        ds.to_netcdf(tmp_path / "z.nc")
        ds = open_dataset(tmp_path / "z.nc", ["z"])
    elif source == "dask":
        ds = ds.chunk(time=5)
    settings = dict(dtype="int16", chunk_bytes=4 * GLOBE, shard_bytes=8 * GLOBE, progress=False)
    submitted, submit = [], client.submit
    monkeypatch.setattr(client, "submit", lambda *args, **options: submitted.append(args) or submit(*args, **options))
    cache(ds, tmp_path / "workers.zarr", **settings)
    assert len(submitted) == 2 * 3  # shards of 16 times, read twice
    with monkeypatch.context() as alone:
        alone.setattr(module, "_find_client", lambda: None)
        cache(ds, tmp_path / "alone.zarr", **settings)
    assert files(tmp_path / "workers.zarr") == files(tmp_path / "alone.zarr")


def test_a_failure_on_a_worker_is_raised_here(tmp_path, client):
    ds = noise(times=4)
    ds["z"][2] = 7e4
    with pytest.raises(OverflowError, match="'z' has the value 70000"):
        cache(ds, tmp_path / "c.zarr", dtype="float16", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"c.zarr' needs about \d{4} bytes .* more, and 1000 bytes .* are free"):
        cache(noise(), tmp_path / "c.zarr", progress=False)
    assert not list(tmp_path.iterdir())


def test_wrong_arguments(tmp_path):
    ds = noise(times=4)
    with pytest.raises(ValueError, match="dtype='int8' must be one of 'float32', 'float16', 'int16'"):
        cache(ds, tmp_path / "c.zarr", dtype="int8")
    with pytest.raises(ValueError, match="chunk_bytes=0 must be positive"):
        cache(ds, tmp_path / "c.zarr", chunk_bytes=0)
    with pytest.raises(ValueError, match="'s3://bucket/c.zarr' must be a local folder"):
        cache(ds, "s3://bucket/c.zarr")
    with pytest.raises(FileNotFoundError, match="no folder"):
        cache(ds, tmp_path / "not" / "there" / "c.zarr")
    with pytest.raises(ValueError, match=r"no variable has the dimensions.*\['latitude', 'longitude'\].*open_dataset"):
        cache(ds.isel(time=0), tmp_path / "c.zarr")
    with pytest.raises(ValueError, match="'z' has dtype <U1"):
        cache(ds.assign(z=ds["z"].astype("U1")), tmp_path / "c.zarr")
    with pytest.raises(ValueError, match="'z' is empty"):
        cache(ds.isel(time=slice(0)), tmp_path / "c.zarr")
    assert not list(tmp_path.iterdir())


def test_other_names_of_the_axes_are_accepted(tmp_path):
    from factories import waves

    ds = waves(times=20).rename(latitude="lat", longitude="lon")
    result = cache(ds, tmp_path / "c.zarr", progress=False)
    xr.testing.assert_equal(result.load(), ds.rename(lat="latitude", lon="longitude").astype("f4"))
