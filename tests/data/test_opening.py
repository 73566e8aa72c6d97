"""Open small stores written as WeatherBench 1, WeatherBench 2 and the Climate Data Store write them."""

import asyncio
import os
import pickle
import tempfile
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.codecs import BloscCodec

from simvp_climate.data import opening
from simvp_climate.data.conventions import canonicalize, orient
from simvp_climate.data.opening import open_dataset, open_sample
from simvp_climate.data.zarr_store import CheckedStore, DamagedChunkError, MissingChunkError

TIMES = xr.date_range("2000-01-01", periods=8, freq="6h", use_cftime=False)
LATITUDES = np.arange(-90 + 45 / 2, 90, 45)
LEVELS = np.array([50, 500, 850])


def values(*shape):
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


def weatherbench_2():
    longitude = np.rad2deg(np.linspace(0, 2 * np.pi, 12, endpoint=False))  # with rounding noise, as in the original
    return xr.Dataset(
        {
            "geopotential": (
                ("time", "level", "longitude", "latitude"),
                values(8, 3, 12, 4),
                {"short_name": "z"},
            ),
            "2m_temperature": (("time", "longitude", "latitude"), values(8, 12, 4), {"units": "K"}),
            "land_sea_mask": (("longitude", "latitude"), values(12, 4)),
        },
        {"time": TIMES, "level": LEVELS, "longitude": longitude, "latitude": LATITUDES},
    )


def weatherbench_1(name, times=TIMES, level=None):
    coords = {"time": times, "lat": LATITUDES, "lon": np.arange(0, 360, 45.0)}
    if level is not None:
        coords["level"] = np.int32(level)
    return xr.Dataset({name: (("time", "lat", "lon"), values(len(times), 4, 8))}, coords)


def era5():
    dims = ("valid_time", "pressure_level", "latitude", "longitude")
    attrs = {"standard_name": "air_pressure", "units": "hPa"}
    return xr.Dataset(
        {"vo": (dims, values(8, 1, 5, 8))},
        {
            "valid_time": TIMES,
            "pressure_level": ("pressure_level", [850.0], attrs),
            "latitude": np.linspace(90, -90, 5),
            "longitude": np.arange(-180, 180, 45.0),
            "expver": ("valid_time", ["0001"] * 8),
            "number": 0,
        },
    )


def write_weatherbench_2(path, zarr_format=2, consolidated=True):
    ds = weatherbench_2()
    compressor = numcodecs.Blosc("lz4", 5, 1, 0)
    encoding = {"time": {"units": "hours since 1959-01-01", "dtype": "int64"}}
    for name, variable in ds.data_vars.items():
        if "time" in variable.dims:
            encoding[name] = {"chunks": (3, *variable.shape[1:])}
            if zarr_format == 2:
                encoding[name]["compressors"] = compressor
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part in the Zarr format 3")
        ds.to_zarr(path, zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)
    return ds


@pytest.mark.parametrize(("zarr_format", "consolidated"), [(2, True), (2, False), (3, False), (3, True)])
def test_zarr_of_weatherbench_2(tmp_path, zarr_format, consolidated):
    path = tmp_path / "era5.zarr"
    raw = write_weatherbench_2(path, zarr_format, consolidated)
    ds = open_dataset(path, ["z500", "t2m", "lsm"])
    assert ds["z500"].dims == ("time", "longitude", "latitude")
    assert not any(variable._in_memory for variable in ds.variables.values() if variable.ndim > 1)
    assert all(variable.chunks is None for variable in ds.variables.values())
    np.testing.assert_array_equal(ds["z500"], raw["geopotential"].sel(level=500))
    np.testing.assert_array_equal(ds["t2m"], raw["2m_temperature"])
    assert ds["longitude"].values.tobytes() == raw["longitude"].values.tobytes()
    back = canonicalize(xr.open_zarr(path, chunks=None, consolidated=consolidated)).restore(orient(ds))
    np.testing.assert_array_equal(back["t2m"], raw["2m_temperature"].transpose("time", "latitude", "longitude"))


def test_levels_of_weatherbench_2(tmp_path):
    raw = write_weatherbench_2(tmp_path / "era5.zarr")
    ds = open_dataset(tmp_path / "era5.zarr", ["geopotential", "t2m"], levels=[850, 50])
    assert ds["level"].values.tolist() == [850, 50]
    oriented = orient(ds)
    assert oriented["geopotential"].dims == ("time", "level", "longitude", "latitude")  # as in the file
    assert not oriented["geopotential"].variable._in_memory
    np.testing.assert_array_equal(ds["geopotential"], raw["geopotential"].isel(level=[2, 0]))
    np.testing.assert_array_equal(oriented["geopotential"], ds["geopotential"])


def test_netcdf_of_weatherbench_1(tmp_path):
    raw = weatherbench_1("z", level=500)
    raw.to_netcdf(tmp_path / "geopotential_500hPa_2000_45deg.nc")
    ds = open_dataset(tmp_path / "geopotential_500hPa_2000_45deg.nc", ["z500"])
    assert set(ds.coords) == {"time", "latitude", "longitude"}
    assert not ds["z500"].variable._in_memory
    np.testing.assert_array_equal(ds["z500"], raw["z"])


def test_folder_of_weatherbench_1(tmp_path):
    for folder, name, level in [
        ("geopotential_500", "z", 500),
        ("temperature_850", "t", 850),
        ("2m", "t2m", None),
    ]:
        (tmp_path / folder).mkdir()
        for year in (1999, 2000):
            times = xr.date_range(f"{year}-01-01", periods=3, freq="6h", use_cftime=False)
            ds = weatherbench_1(name, times, level).assign_attrs(history=f"{folder} {year}")
            ds.to_netcdf(tmp_path / folder / f"{folder}_{year}_45deg.nc")
    ds = open_dataset(tmp_path, ["z500", "t850", "t2m"])
    assert ds.sizes == {"time": 6, "latitude": 4, "longitude": 8}
    np.testing.assert_array_equal(ds["t850"][3:], weatherbench_1("t", TIMES[:3])["t"])
    pattern = str(tmp_path / "geopotential_500" / "*_45deg.nc")
    assert open_dataset(pattern, ["z500"]).identical(ds[["z500"]].assign_attrs(history="geopotential_500 1999"))
    files = sorted((tmp_path / "2m").iterdir())
    assert open_dataset(files, ["2m_temperature"]).sizes["time"] == 6


def test_files_of_different_grids_are_not_joined(tmp_path):
    weatherbench_1("t2m", TIMES[:4]).to_netcdf(tmp_path / "a.nc")
    shifted = weatherbench_1("t2m", TIMES[4:])
    shifted.assign_coords(lat=shifted["lat"] + 1e-9).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(ValueError, match=r"2 files from .*a.nc.* cannot be joined.*to the last digit"):
        open_dataset(tmp_path, ["t2m"])


def test_netcdf_of_the_climate_data_store(tmp_path):
    era5().to_netcdf(tmp_path / "vo.nc")
    ds = open_dataset(tmp_path / "vo.nc", ["vo"])
    assert ds["vo"].dims == ("time", "latitude", "longitude")
    assert set(ds.coords) == {"time", "latitude", "longitude"}
    np.testing.assert_array_equal(ds["vo"], era5()["vo"].isel(pressure_level=0))
    assert ds["longitude"].values[0] == -180
    assert orient(ds)["longitude"].values[0] == 0


def test_an_opened_dataset_can_be_written(tmp_path):
    ds = era5()
    ds.encoding["unlimited_dims"] = {"valid_time"}
    ds.to_netcdf(tmp_path / "vo.nc")
    open_dataset(tmp_path / "vo.nc", ["vo850"]).to_netcdf(tmp_path / "again.nc")
    write_weatherbench_2(tmp_path / "era5.zarr")
    open_dataset(tmp_path / "era5.zarr", ["z500"]).to_zarr(tmp_path / "again.zarr", zarr_format=2)
    with xr.open_dataset(tmp_path / "again.nc") as again:
        np.testing.assert_array_equal(again["vo850"], ds["vo"][:, 0])
        assert again.encoding["unlimited_dims"] == {"time"}


def test_a_dataset_passes_through():
    raw = weatherbench_2()
    ds = open_dataset(raw, ["geopotential_500"])
    np.testing.assert_array_equal(ds["geopotential_500"], raw["geopotential"].sel(level=500))
    assert open_dataset(ds, ["geopotential_500"]).identical(ds)


def test_leads_are_durations(tmp_path):
    ds = weatherbench_1("t2m").rename(time="init_time").expand_dims(lead_time=TIMES[1:3] - TIMES[0])
    ds.to_netcdf(tmp_path / "forecast.nc")
    ds = open_dataset(tmp_path / "forecast.nc", ["t2m"])
    assert ds["lead_time"].dtype.kind == "m"


def test_errors_for_missing_paths_suggest_others(tmp_path, monkeypatch):
    write_weatherbench_2(tmp_path / "era5_5.625deg.zarr")
    with pytest.raises(FileNotFoundError, match=r"era5_5.6deg.zarr' does not exist. Did you mean 'era5_5.625deg.zarr'"):
        open_dataset(tmp_path / "era5_5.6deg.zarr", ["z500"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/xyz' does not exist.*contains era5_5.625deg.zarr"):
        open_dataset("xyz", ["z500"])
    with pytest.raises(FileNotFoundError, match=f"The path exists up to '{tmp_path}'"):
        open_dataset("data/here/era5.zarr", ["z500"])
    with pytest.raises(FileNotFoundError, match=r"no file matches '.*\*.nc'"):
        open_dataset("*.nc", ["z500"])
    with pytest.raises(FileNotFoundError, match="a.nc' does not exist"):
        open_dataset(["a.nc", "b.nc"], ["z500"])


def test_folders_and_lists_without_data(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"neither a Zarr store .* nor .*NetCDF .*contains notes.txt"):
        open_dataset(tmp_path, ["z500"])
    with pytest.raises(ValueError, match="files is empty"):
        open_dataset([], ["z500"])


def test_an_empty_path_is_not_the_working_folder(tmp_path, monkeypatch):
    weatherbench_1("t2m").to_netcdf(tmp_path / "a.nc")
    monkeypatch.chdir(tmp_path)
    for path in ("", " ", ["a.nc", ""]):
        with pytest.raises(ValueError, match=r"the path ' ?' is empty.*'\.'"):
            open_dataset(path, ["t2m"])
    assert open_dataset(".", ["t2m"]).sizes["time"] == len(TIMES)


def test_sample():
    ds = open_sample()
    assert list(ds) == ["z500", "t2m"]
    assert ds.sizes["latitude"] == 32 and ds.sizes["longitude"] == 64
    assert 4.5e4 < ds["z500"].isel(time=0).mean() < 6e4
    assert open_sample(["orography"])["orography"].dims == ("latitude", "longitude")


def test_the_sample_is_labeled_simulated_and_has_no_gap():
    ds = open_sample()
    assert "SIMULATED" in ds.attrs["title"] and "SIMULATED" in ds.attrs["comment"]
    steps = np.diff(ds["time"].values)
    assert len(steps) == 4863 and (steps == np.timedelta64(6, "h")).all()
    assert ds["z500"].dtype == ds["t2m"].dtype == np.float32
    assert ds["t2m"].attrs["units"] == "K" and ds["z500"].attrs["units"] == "m2 s-2"
    thinned = ds.isel(time=slice(None, None, 304)).load()
    # the stated precision: steps of 4 m2 s-2 and 1/32 K
    assert (thinned["z500"] % 4 == 0).all() and (thinned["t2m"] * 32 % 1 == 0).all()
    assert thinned["z500"].min() > 4.4e4 and thinned["z500"].max() < 6.1e4
    assert thinned["t2m"].min() > 180 and thinned["t2m"].max() < 340


def test_days_as_units_are_numbers_in_a_variable_and_durations_in_a_lead(tmp_path):
    ds = xr.Dataset(
        {"frost_days": (("lead", "latitude", "longitude"), np.ones((2, 4, 3)), {"units": "days"})},
        {"lead": ("lead", [6, 12], {"units": "hours"}), "latitude": LATITUDES, "longitude": [0.0, 120, 240]},
    )
    ds.to_netcdf(tmp_path / "f.nc")
    back = opening.open_raw(tmp_path / "f.nc", ["frost_days"])
    assert back["frost_days"].dtype == np.float64 and back["frost_days"].attrs["units"] == "days"
    assert back["lead"].values[0] == np.timedelta64(6, "h")


def test_the_sample_fits_into_the_wheel():
    assert sum(file.stat().st_size for file in opening._SAMPLE.rglob("*") if file.is_file()) < 16e6


# ---- absent and truncated chunks


def sparse(path, zarr_format, separator, shards=None, compressor="auto"):
    """Write a store of 6 times in chunks of 2; return its values and the key of the chunk or shard of times 2 and 3."""
    ds = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values(6, 4, 8) + 1)},
        {"time": TIMES[:6], "latitude": LATITUDES, "longitude": np.arange(0, 360, 45.0)},
    )
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    key_encoding = {"name": "v2" if zarr_format == 2 else "default", "separator": separator}
    options = {"dimension_names": ds["t2m"].dims} if zarr_format == 3 else {}
    array = group.create_array(
        "t2m", shape=(6, 4, 8), dtype="f4", chunks=(1 if shards else 2, 4, 8), shards=shards, fill_value=np.nan,
        chunk_key_encoding=key_encoding, compressors=compressor, **options,
    )  # fmt: skip
    array[:] = ds["t2m"].values
    if zarr_format == 2:
        array.attrs["_ARRAY_DIMENSIONS"] = list(ds["t2m"].dims)
    ds.drop_vars("t2m").to_zarr(path, mode="a", zarr_format=zarr_format, consolidated=False)
    chunk = separator.join(["1", "0", "0"])
    return ds["t2m"].values, f"t2m/c{separator}{chunk}" if zarr_format == 3 else f"t2m/{chunk}"


@pytest.mark.parametrize(
    ("zarr_format", "separator", "shards"),
    [(2, ".", None), (2, "/", None), (3, "/", None), (3, ".", None), (3, "/", (2, 4, 8))],
)
def test_an_absent_chunk_is_an_error_with_its_position_and_times(tmp_path, zarr_format, separator, shards):
    expected, key = sparse(tmp_path / "s.zarr", zarr_format, separator, shards)
    ds = open_dataset(tmp_path / "s.zarr", ["t2m"])
    np.testing.assert_array_equal(ds["t2m"], expected)  # also from the chunk that will be lost
    (tmp_path / "s.zarr" / key).unlink()
    ds = open_dataset(tmp_path / "s.zarr", ["t2m"])
    assert not ds["t2m"].variable._in_memory and ds["t2m"].chunks is None
    np.testing.assert_array_equal(ds["t2m"][:2], expected[:2])
    np.testing.assert_array_equal(ds["t2m"][4:, 1], expected[4:, 1])
    message = (
        rf"s.zarr' has no chunk \(1, 0, 0\) of 't2m' \('{key}'\), which holds time 2000-01-01 12:00:00 to"
        r" 2000-01-01 18:00:00. The store is incomplete.*open_dataset\(..., missing_chunks=\"fill\"\)"
    )
    for selected in (ds["t2m"], ds["t2m"][2], ds["t2m"][::-1, 0, ::3], ds["t2m"][3:5, [0, 2]]):
        with pytest.raises(MissingChunkError, match=message):
            selected.load()
    filled = open_dataset(tmp_path / "s.zarr", ["t2m"], missing_chunks="fill")["t2m"]
    assert np.isnan(filled[2:4]).all()
    np.testing.assert_array_equal(filled[[0, 1, 4, 5]], expected[[0, 1, 4, 5]])


def test_a_lost_chunk_of_a_coordinate_is_an_error(tmp_path):
    sparse(tmp_path / "s.zarr", 2, ".")
    (tmp_path / "s.zarr" / "latitude" / "0").unlink()
    with pytest.raises(MissingChunkError, match=r"no chunk \(0,\) of 'latitude' \('latitude/0'\)\. The store is"):
        open_dataset(tmp_path / "s.zarr", ["t2m"])


def blosc(path):
    """Write a store of two chunks compressed by Blosc, and return the file of the second."""
    coords = {"time": TIMES[:4], "latitude": LATITUDES, "longitude": np.arange(0, 360, 45.0)}
    ds = xr.Dataset({"t2m": (("time", "latitude", "longitude"), values(4, 4, 8))}, coords)
    encoding = {"t2m": {"chunks": (2, 4, 8)}, "latitude": {}}
    for settings in encoding.values():
        settings["compressors"] = numcodecs.Blosc("lz4")
    ds.to_zarr(path, zarr_format=2, consolidated=False, encoding=encoding)
    return path / "t2m" / "1.0.0"


def test_a_damaged_chunk_is_an_error_with_its_position_and_times(tmp_path):
    chunk = blosc(tmp_path / "s.zarr")
    whole = chunk.read_bytes()
    size = len(whole)
    for content in (whole[:-1], whole[: size // 2], whole + b"\0\0"):
        chunk.write_bytes(content)
        message = (
            r"chunk \(1, 0, 0\) of 't2m' in '.*s.zarr' \('t2m/1.0.0'\), .* 2000-01-01 12:00:00 to 2000-01-01 18:00:00, "
            rf"is damaged: .*{len(content)} bytes .*{size}\."
        )
        for missing_chunks in ("error", "fill"):
            with pytest.raises(DamagedChunkError, match=message):
                open_dataset(tmp_path / "s.zarr", ["t2m"], missing_chunks=missing_chunks).load()


def test_a_truncated_coordinate_is_an_error(tmp_path):
    blosc(tmp_path / "s.zarr")
    chunk = tmp_path / "s.zarr" / "latitude" / "0"
    os.truncate(chunk, chunk.stat().st_size - 8)
    with pytest.raises(DamagedChunkError, match=r"chunk \(0,\) of 'latitude' .* is damaged: .*\d+ bytes"):
        open_dataset(tmp_path / "s.zarr", ["t2m"])


@pytest.mark.parametrize("left", [0, 20, 100, 0.5, -1], ids=str)
@pytest.mark.parametrize("compressor", [None, BloscCodec(cname="lz4")], ids=["plain", "blosc"])
def test_a_truncated_shard_that_begins_with_its_index_is_an_error(tmp_path, left, compressor):
    shards = {"shape": (2, 4, 8), "index_location": "start"}
    expected, key = sparse(tmp_path / "s.zarr", 3, "/", shards, compressor)
    np.testing.assert_array_equal(open_dataset(tmp_path / "s.zarr", ["t2m"])["t2m"], expected)
    shard = tmp_path / "s.zarr" / key
    size = shard.stat().st_size
    os.truncate(shard, left if left in (0, 20, 100) else int(size * left) if left > 0 else size + left)
    for times in (slice(None), slice(3, 4)):
        with pytest.raises(DamagedChunkError, match="2000-01-01 18:00:00, is damaged"):
            open_dataset(tmp_path / "s.zarr", ["t2m"])["t2m"][times].load()


def test_ranges_that_zarr_reads_together_are_checked_one_by_one(tmp_path):
    _, key = sparse(tmp_path / "s.zarr", 3, "/", (2, 4, 8))
    store = CheckedStore(zarr.storage.LocalStore(tmp_path / "s.zarr", read_only=True))
    size = (tmp_path / "s.zarr" / key).stat().st_size
    prototype = pytest.importorskip("zarr.buffer").default_buffer_prototype()

    async def read(*limits):
        ranges = [RangeByteRequest(*pair) for pair in limits]
        return [
            len(content) async for group in store.get_ranges(key, ranges, prototype=prototype) for _, content in group
        ]

    assert asyncio.run(read((0, 8), (8, 20))) == [8, 12]
    with pytest.raises(DamagedChunkError, match="it has 1 bytes instead of 9"):
        asyncio.run(read((0, 8), (size - 1, size + 8)))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_grew_time_by_time_lacks_a_chunk_of_zero_and_opens(tmp_path, zarr_format):
    ds = weatherbench_1("t2m", TIMES[:4])
    for time in range(4):
        mode = {"append_dim": "time"} if time else {"encoding": {"time": {"units": "hours since 2000-01-01"}}}
        ds.isel(time=[time]).to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=False, **mode)
    prefix = "c/" if zarr_format == 3 else ""
    assert not (tmp_path / "s.zarr" / "time" / f"{prefix}0").exists()  # 0 hours since the first
    opened = open_dataset(tmp_path / "s.zarr", ["t2m"])
    assert opened["time"].values.tolist() == ds["time"].values.tolist()
    np.testing.assert_array_equal(opened["t2m"], ds["t2m"])
    data = "t2m/c/1/0/0" if zarr_format == 3 else "t2m/1.0.0"
    (tmp_path / "s.zarr" / data).unlink()
    with pytest.raises(MissingChunkError, match="no chunk .1, 0, 0. of 't2m'.*time 2000-01-01 06"):
        open_dataset(tmp_path / "s.zarr", ["t2m"]).load()
    (tmp_path / "s.zarr" / "time" / f"{prefix}2").unlink()  # not 0: the axis is not even
    with pytest.raises(MissingChunkError, match="of 'time'"):
        open_dataset(tmp_path / "s.zarr", ["t2m"])


def test_the_policy_is_an_attribute_of_the_store(tmp_path):
    sparse(tmp_path / "s.zarr", 3, "/")
    for policy in ("error", "fill"):
        ds = pickle.loads(pickle.dumps(open_dataset(tmp_path / "s.zarr", ["t2m"], missing_chunks=policy)))
        array = ds["t2m"].variable._data
        while not hasattr(array, "get_array"):
            array = array.array
        checked = array.get_array().store
        assert isinstance(checked, CheckedStore) and checked.missing_chunks == policy
        assert isinstance(checked.base, zarr.storage.LocalStore)
        assert "which holds time 2000-01-02 00:00:00 to" in str(checked.missing_chunk_error("t2m/c/2/0/0"))
        assert ds.encoding["source"] == str(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("data", "policy", "message"),
    [
        (weatherbench_1("t2m"), "fill", "for Zarr stores only, not for a Dataset"),
        (weatherbench_1("t2m"), "nan", 'missing_chunks=\'nan\' must be "error" or "fill"'),
    ],
)
def test_a_meaningless_policy_is_refused(tmp_path, data, policy, message):
    with pytest.raises(ValueError, match=message):
        open_dataset(data, ["t2m"], missing_chunks=policy)
    data.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="Zarr stores only, not for .*a.nc'|'nan'"):
        open_dataset(tmp_path / "a.nc", ["t2m"], missing_chunks=policy)


# ---- files that are damaged, unknown or not readable


def test_damaged_files_are_named(tmp_path):
    weatherbench_1("t2m").to_netcdf(tmp_path / "a.nc")
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "b.nc").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.nc").write_bytes(b"<html>404 not found</html>")
    for files in ("b.nc", ["a.nc", "b.nc"]):
        files = tmp_path / files if isinstance(files, str) else [tmp_path / file for file in files]
        with pytest.raises(ValueError, match=r"b.nc' is damaged or truncated"):
            open_dataset(files, ["t2m"])
    for files in ("c.nc", ["a.nc", "c.nc"]):
        files = tmp_path / files if isinstance(files, str) else [tmp_path / file for file in files]
        with pytest.raises(ValueError, match=r"c.nc' is neither NetCDF"):
            open_dataset(files, ["t2m"])
    (tmp_path / "d.grib").write_bytes(b"GRIB" + bytes(100))
    with pytest.raises(ValueError, match=r"d.grib' is damaged or truncated"):
        open_dataset(tmp_path / "d.grib", ["t2m"])


@pytest.mark.parametrize("calendars", [("standard", "noleap"), ("noleap", "360_day")])
def test_files_of_different_calendars_are_not_joined(tmp_path, calendars):
    for year, calendar in enumerate(calendars):
        times = xr.date_range(f"200{year}-01-01", periods=3, calendar=calendar)
        weatherbench_1("t2m", times).to_netcdf(tmp_path / f"{year}.nc")
    with pytest.raises(ValueError, match=r"2 files from .*0.nc' to .*1.nc' have different calendars.*convert_calendar"):
        open_dataset(tmp_path, ["t2m"])


def test_several_stores_are_not_joined(tmp_path):
    write_weatherbench_2(tmp_path / "1.zarr")
    write_weatherbench_2(tmp_path / "2.zarr")
    for paths in (str(tmp_path / "*.zarr"), [tmp_path / "1.zarr", tmp_path / "2.zarr"]):
        with pytest.raises(ValueError, match=r"2 paths with Zarr stores .*xr.concat"):
            open_dataset(paths, ["t2m"])
    assert open_dataset(str(tmp_path / "1*.zarr"), ["t2m"]).sizes["time"] == 8


@pytest.fixture
def give_up_root(tmp_path):
    """Return a function that gives up the rights of root, who may read every file."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    before = os.geteuid()

    def give_up():
        if before == 0:
            os.seteuid(65534)

    yield give_up
    os.seteuid(before)


@pytest.mark.parametrize("closed_path", ["store", "metadata", "file", "folder"])
def test_data_without_permission_are_an_error(tmp_path, give_up_root, closed_path):
    path = tmp_path / ("a.nc" if closed_path == "file" else "a.zarr")
    closed = path / ".zmetadata" if closed_path == "metadata" else path
    if closed_path == "file":
        weatherbench_1("t2m").to_netcdf(path)
    elif closed_path == "folder":
        path.mkdir()
    else:
        write_weatherbench_2(path)
    closed.chmod(0)
    try:
        give_up_root()
        with pytest.raises(PermissionError, match=rf"no permission to read .*{path.name}.*chmod"):
            open_dataset(path, ["t2m"])
    finally:
        os.seteuid(os.getuid())
        closed.chmod(0o755)


def test_times_out_of_order_keep_their_order(tmp_path):
    ds = weatherbench_1("t2m").isel(time=[1, 0, 2, 2, 5])
    ds.to_netcdf(tmp_path / "a.nc")
    opened = open_dataset(tmp_path / "a.nc", ["t2m"])
    assert opened["time"].values.tolist() == ds["time"].values.tolist()
    np.testing.assert_array_equal(opened["t2m"], ds["t2m"])


def test_without_names_all_variables_are_opened_and_listed(capsys):
    source = weatherbench_2().assign(name=("time", np.array(list("abcdefgh"))))
    source["time_bnds"] = (("time", "bnds"), np.zeros((8, 2)))
    ds = open_dataset(source)
    assert list(ds.data_vars) == ["geopotential", "2m_temperature", "land_sea_mask"]
    assert ds["2m_temperature"].dims == ("time", "longitude", "latitude")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Opened 3 variables:"
    assert " ".join(lines[1].split()) == "geopotential (time 8, level 3, longitude 12, latitude 4) no units"
    assert " ".join(lines[2].split()) == "2m_temperature (time 8, longitude 12, latitude 4) K"
    assert lines[4] == "left out, not numbers on the grid: name, time_bnds"
    assert open_dataset(source, levels=[500]).geopotential.level.values.tolist() == [500]
    with pytest.raises(ValueError, match=r"no variable is on 'latitude' and 'longitude': \['name'\]"):
        open_dataset(source[["name"]].assign_coords(latitude=LATITUDES, longitude=source.longitude))


def test_a_mapping_renames(tmp_path):
    source = weatherbench_2().rename({"geopotential": "hgt", "2m_temperature": "air"})
    source["hgt"].attrs = {"units": "m2 s-2"}
    source.to_zarr(tmp_path / "mine.zarr", consolidated=False)
    ds = open_dataset(tmp_path / "mine.zarr", {"t2m": "air", "z500": "hgt", "z850": "hgt"})
    assert set(ds.data_vars) == {"t2m", "z500", "z850"}
    np.testing.assert_array_equal(ds["t2m"], source["air"])
    np.testing.assert_array_equal(ds["z500"], source["hgt"].sel(level=500))
    np.testing.assert_array_equal(ds["z850"], source["hgt"].sel(level=850))
    whole = open_dataset(source, {"z": "hgt"}, levels=[500, 850])
    np.testing.assert_array_equal(whole["z"], source["hgt"].sel(level=[500, 850]))
    # a name that the file has already stands for what the mapping says
    swapped = open_dataset(source.assign(t2m=source["land_sea_mask"]), {"t2m": "air"})
    np.testing.assert_array_equal(swapped["t2m"], source["air"])
    kept = open_dataset(source, {"t2m": "air", "lsm": "land_sea_mask", "air": "air"})
    np.testing.assert_array_equal(kept["t2m"], kept["air"])


def test_errors_of_names_show_how_to_rename():
    source = weatherbench_2().rename({"2m_temperature": "air"})
    with pytest.raises(ValueError, match=r"no variable 't2m' .*, or rename one: \{'t2m': 'air'\}"):
        open_dataset(source, ["t2m"])
    with pytest.raises(ValueError, match=r"no variable 'aire' .*Did you mean 'air'\? Or rename one: \{'aire': 'air'\}"):
        open_dataset(source, {"t2m": "aire"})
    with pytest.raises(ValueError, match="'level' is a dimension of the dataset. Choose another name for 'air'"):
        open_dataset(source, {"level": "air"})
