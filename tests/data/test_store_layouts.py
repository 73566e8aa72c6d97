"""Open small stores in the byte layout of the large archives, select from them and compare.

The Zarr stores are written file by file, so that their layout does not depend on a library.
"""

import importlib.util
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from store_layouts import (
    LEVELS_13,
    RANDOM,
    WB_LONGITUDE,
    arco,
    axis,
    cmip,
    fields,
    hours,
    noise,
    weatherbench_1,
    weatherbench_2,
    write_grib,
    write_zarr_2,
)

from simvp_climate.data.conventions import bounds_offsets, orient, rename
from simvp_climate.data.grid import find_member
from simvp_climate.data.opening import open_dataset
from simvp_climate.data.zarr_store import MissingChunkError

# ---- Zarr format 2, byte by byte


def test_weatherbench_2(tmp_path):
    t, t2m, orography = weatherbench_2(tmp_path / "era5.zarr")
    assert (
        (tmp_path / "era5.zarr" / "level" / ".zarray").read_text().startswith('{\n    "chunks": [\n        13\n    ],')
    )
    ds = open_dataset(tmp_path / "era5.zarr", ["t850", "t2m", "zs"])
    assert ds["t850"].dims == ("time", "longitude", "latitude")
    np.testing.assert_array_equal(ds["t850"], t[:, 10])
    np.testing.assert_array_equal(ds["t2m"].sel(time="1959-01-03T06"), t2m[9])
    np.testing.assert_array_equal(ds["zs"], orography)
    assert ds["longitude"].values.tobytes() == WB_LONGITUDE.tobytes()
    assert (np.arange(64) * 5.625 != WB_LONGITUDE).any()  # with the noise of the original
    assert ds["t2m"].attrs["units"] == "K" and ds["time"].values[1] == np.datetime64("1959-01-01T06")
    levels = open_dataset(tmp_path / "era5.zarr", ["temperature"], levels=[1000, 50])
    np.testing.assert_array_equal(levels["temperature"], t[:, [12, 0]])


def test_weatherbench_2_without_a_chunk(tmp_path):
    _, t2m, _ = weatherbench_2(tmp_path / "era5.zarr", absent=["2m_temperature/1.0.0"])
    with pytest.raises(MissingChunkError, match=r"chunk \(1, 0, 0\) .*1959-01-03 00:00:00 to 1959-01-04 18:00:00"):
        open_dataset(tmp_path / "era5.zarr", ["t2m"]).load()
    filled = open_dataset(tmp_path / "era5.zarr", ["t2m"], missing_chunks="fill")["t2m"]
    assert np.isnan(filled[8:16]).all()
    np.testing.assert_array_equal(filled[16:], t2m[16:])


def test_the_grid_with_poles_of_weatherbench_2(tmp_path):
    """1440 x 721: latitude from north to south in float32, and before longitude."""
    time, time_attributes = hours(3)
    values = noise(3, 2, 9, 16)
    latitude, longitude = np.linspace(90, -90, 9, dtype="f4"), np.arange(0, 360, 22.5, dtype="f4")
    write_zarr_2(
        tmp_path / "a.zarr",
        {
            "geopotential": (("time", "level", "latitude", "longitude"), values, (1, 2, 9, 16), {}),
            **axis("time", time, time_attributes),
            **axis("level", np.array([500, 850], "i8")),
            **axis("longitude", longitude),
            **axis("latitude", latitude),
        },
    )
    ds = open_dataset(tmp_path / "a.zarr", ["z500"])
    np.testing.assert_array_equal(ds["z500"], values[:, 0])
    assert ds["latitude"].values.tobytes() == latitude.tobytes()
    np.testing.assert_array_equal(orient(ds)["z500"], values[:, 0, ::-1])


@pytest.mark.parametrize("leads", ["level last", "level first"])
def test_forecasts_of_weatherbench_2(tmp_path, leads):
    values = noise(4, 3, 2, 8, 4)
    time, time_attributes = hours(4, step=12, since="2020-01-01")
    dims = ("time", "prediction_timedelta", "level", "longitude", "latitude")
    chunks = (4, 1, 2, 8, 4)
    order = (0, 1, 2, 3, 4) if leads == "level last" else (2, 0, 1, 3, 4)  # as in keisler/2020
    write_zarr_2(
        tmp_path / "hres.zarr",
        {
            "geopotential": (
                [dims[i] for i in order], values.transpose(order), [chunks[i] for i in order], {"units": "m**2 s**-2"}
            ),
            **axis("time", time, time_attributes),
            **axis("prediction_timedelta", np.array([0, 6, 12], "i8"), {"units": "hours"}),
            **axis("level", np.array([850, 500], "i4")),
            **axis("longitude", np.rad2deg(np.linspace(0, 2 * np.pi, 8, endpoint=False))),
            **axis("latitude", np.arange(-67.5, 90, 45)),
        },
    )  # fmt: skip
    ds = open_dataset(tmp_path / "hres.zarr", ["z500"])
    assert ds["z500"].dims == ("init_time", "lead_time", "longitude", "latitude")
    np.testing.assert_array_equal(ds["z500"], values[:, :, 1])
    assert ds["lead_time"].values.tolist() == pd.to_timedelta([0, 6, 12], unit="h").as_unit("ns").asi8.tolist()
    assert ds["valid_time"].values[3, 2] == np.datetime64("2020-01-03T00")
    selected = ds["z500"].sel(init_time="2020-01-02T00", lead_time="6h")
    np.testing.assert_array_equal(selected, values[2, 1, 1])


def test_arco_era5_ends_at_its_attributes(tmp_path):
    values, t2m = arco(tmp_path / "arco.zarr")
    ds = open_dataset(tmp_path / "arco.zarr", ["z850", "t2m"])
    assert not ds["z850"].variable._in_memory
    assert ds.sizes["time"] == 48
    assert ds["time"].values[[0, -1]].tolist() == pd.to_datetime(["1900-01-02T00", "1900-01-03T23"]).as_unit(
        "ns"
    ).asi8.tolist()  # fmt: skip
    np.testing.assert_array_equal(ds["z850"], values[24:72, 1])
    np.testing.assert_array_equal(ds["t2m"].isel(time=slice(None, None, 7)), t2m[24:72:7])
    np.testing.assert_array_equal(orient(ds)["t2m"], t2m[24:72, ::-1])


def test_arco_era5_without_the_times_that_its_attributes_promise(tmp_path):
    values, _ = arco(tmp_path / "arco.zarr", stop="1900-01-04")
    ds = open_dataset(tmp_path / "arco.zarr", ["z850"])
    assert ds.sizes["time"] == 72
    np.testing.assert_array_equal(ds["z850"][:48], values[24:72, 1])
    with pytest.raises(MissingChunkError, match=r"chunk \(72, 0, 0, 0\) .*time 1900-01-04 00:00:00 to 1900-01-04 00"):
        ds["z850"][48].load()
    assert np.isnan(open_dataset(tmp_path / "arco.zarr", ["z850"], missing_chunks="fill")["z850"][48:]).all()


# ---- NetCDF


def test_weatherbench_1(tmp_path):
    root = tmp_path / "5.625deg"
    z = [weatherbench_1(root, "geopotential_500", "z", "geopotential_500hPa", year, 500) for year in (1979, 1980)]
    t = [weatherbench_1(root, "temperature_850", "t", "temperature_850hPa", year, 850) for year in (1979, 1980)]
    t2m = [weatherbench_1(root, "2m_temperature", "t2m", "2m_temperature", year) for year in (1979, 1980)]
    q = [weatherbench_1(root, "specific_humidity", "q", "specific_humidity", y, LEVELS_13) for y in (1979, 1980)]
    (root / "constants").mkdir()
    lsm, lat, lon = noise(32, 64), np.arange(-90 + 5.625 / 2, 90, 5.625), np.arange(0, 360, 5.625)
    lat2d, lon2d = np.meshgrid(lat, lon, indexing="ij")
    grid = {name: (("lat", "lon"), values) for name, values in [("lsm", lsm), ("lat2d", lat2d), ("lon2d", lon2d)]}
    xr.Dataset(grid, {"lat": lat, "lon": lon}).to_netcdf(root / "constants" / "constants_5.625deg.nc")
    ds = open_dataset(root, ["z500", "t850", "2m_temperature", "q700", "lsm"])
    assert ds.sizes == {"time": 6, "latitude": 32, "longitude": 64}
    np.testing.assert_array_equal(ds["z500"], np.concatenate(z))
    np.testing.assert_array_equal(ds["t850"].sel(time="1980-01-01T01"), t[1][1])
    np.testing.assert_array_equal(ds["2m_temperature"], np.concatenate(t2m))
    np.testing.assert_array_equal(ds["q700"], np.concatenate(q)[:, 9])
    np.testing.assert_array_equal(ds["lsm"], lsm)
    np.testing.assert_array_equal(open_dataset(root / "geopotential_500", ["geopotential_500"]).load().to_array()[0],
                                  ds["z500"])  # fmt: skip


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_cmip(tmp_path, calendar):
    raw = cmip(tmp_path / "day.nc", calendar)
    ds = open_dataset(tmp_path / "day.nc", ["t2m", "z500", "zg850"])
    np.testing.assert_array_equal(ds["t2m"], raw["tas"])
    np.testing.assert_array_equal(ds["z500"], raw["zg"][:, 2])
    np.testing.assert_array_equal(ds["zg850"], raw["zg"][:, 1])
    assert ds["z500"].attrs["units"] == "m"  # a height, not a geopotential
    assert set(ds.coords) == {"time", "latitude", "longitude", "time_bnds"}
    last = {"noleap": "1999-03-02", "360_day": "1999-02-30", "standard": "1999-03-02"}[calendar]
    assert str(ds["time"].dt.strftime("%Y-%m-%d").values[-1]) == last
    assert bounds_offsets(ds) == (pd.Timedelta("-12h"), pd.Timedelta("12h"))
    assert ds["t2m"].attrs["cell_methods"] == "area: time: mean"
    levels = open_dataset(tmp_path / "day.nc", ["geopotential_height"], levels=[500, 1000])
    np.testing.assert_array_equal(levels["geopotential_height"], raw["zg"][:, [2, 0]])
    assert orient(levels)["level"].values.tolist() == [500, 1000]


def test_cmip_with_a_file_for_each_year(tmp_path):
    raw = cmip(tmp_path / "all.nc", "noleap")
    raw["time"].encoding["units"] = "days since 1850-01-01"
    folder = tmp_path / "years"
    folder.mkdir()
    for times in (slice(0, 2), slice(2, 4)):
        raw.isel(time=times).to_netcdf(folder / f"tas_{times.start}.nc")
    ds = open_dataset(folder, ["tas"])
    np.testing.assert_array_equal(ds["tas"], raw["tas"])
    assert bounds_offsets(ds) == (pd.Timedelta("-12h"), pd.Timedelta("12h"))


@pytest.mark.parametrize("packed", [False, True])
def test_sea_surface_temperature_with_land(tmp_path, packed):
    time = pd.date_range("2000-01-01", periods=3, freq="MS", unit="ns")
    sst = np.round(RANDOM.uniform(271, 300, (3, 4, 8)) * 100) / 100  # float64
    sst[:, 1:3, 2:4] = np.nan
    ds = xr.Dataset(
        {"sst": (("time", "lat", "lon"), sst, {"units": "degC", "standard_name": "sea_surface_temperature"})},
        {"time": time, "lat": np.arange(67.5, -90, -45.0), "lon": np.arange(0, 360, 45.0)},
    )
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32768)}
    ds.to_netcdf(tmp_path / "sst.nc", encoding={"sst": packing} if packed else None)
    result = open_dataset(tmp_path / "sst.nc", ["sea_surface_temperature"])["sea_surface_temperature"]
    np.testing.assert_allclose(result, sst, atol=1e-9 if packed else 0)
    assert np.isnan(result).sum() == 3 * 4 and result.attrs["units"] == "degC"


# ---- GRIB


@pytest.mark.parametrize("name", ["era5.grib", "era5.grb2", "era5"])
def test_grib(tmp_path, name):
    z, t = fields(2, 2, 5, 8), fields(2, 2, 5, 8)
    write_grib(tmp_path / name, {("z", 500, None): z[0], ("z", 850, None): z[1], ("t", 500, None): t[0],
                                 ("t", 850, None): t[1]})  # fmt: skip
    ds = open_dataset(tmp_path / name, ["z500", "temperature"], levels=[850, 500])
    assert ds["z500"].dims == ("time", "latitude", "longitude") and not ds["z500"].variable._in_memory
    np.testing.assert_allclose(ds["z500"], z[0], atol=1e-4)
    np.testing.assert_allclose(ds["temperature"].transpose("level", ...), t[::-1], atol=1e-4)
    assert ds["time"].values.tolist() == pd.to_datetime(["2020-01-01T06", "2020-01-02T06"]).as_unit("ns").asi8.tolist()
    assert [file.name for file in tmp_path.iterdir()] == [name]  # nothing is written beside the data


def test_grib_with_members(tmp_path):
    z = fields(3, 2, 5, 8)
    write_grib(tmp_path / "ens.grib", {("z", 500, member): z[member] for member in range(3)})
    ds = open_dataset(tmp_path / "ens.grib", ["z500"])
    assert find_member(ds) == "number" and ds["number"].values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(ds["z500"], z, atol=1e-4)


def test_grib_whose_fields_make_no_single_dataset(tmp_path, caplog):
    """Only one field has members; one lies at the surface, others on levels."""
    z, t2m, t = fields(2, 2, 5, 8), fields(2, 5, 8), fields(2, 2, 5, 8)
    path = tmp_path / "mixed.grib"
    write_grib(path, {("z", 500, 0): z[0], ("z", 500, 1): z[1], ("2t", None, None): t2m, ("t", 850, None): t[0],
                      ("t", 1000, None): t[1], ("z", None, None): z[0]})  # fmt: skip
    ds = open_dataset(path, ["t2m", "t850"])
    np.testing.assert_allclose(ds["t2m"], t2m, atol=1e-4)
    np.testing.assert_allclose(ds["t850"], t[0], atol=1e-4)
    members = open_dataset(path, ["z500"])
    np.testing.assert_allclose(members["z500"], z, atol=1e-4)
    np.testing.assert_allclose(open_dataset(path, ["t"], levels=[1000])["t"][:, 0], t[1], atol=1e-4)
    with pytest.raises(ValueError, match=r"no variable 'u10' in .*mixed.grib'.*t, t2m, z"):
        open_dataset(path, ["u10"])
    with pytest.raises(ValueError, match=r"mixed.grib' has 'z' 2 times: .*isobaricInhPa.*surface.*filter_by_keys"):
        open_dataset(path, ["z"])
    with pytest.raises(ValueError, match=r"fields in .*mixed.grib' make no single Dataset. Name some"):
        open_dataset(path)
    renamed = open_dataset(path, {"air": "t2m"})
    np.testing.assert_allclose(renamed["air"], t2m, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["mixed.grib"]


def test_several_grib_files(tmp_path):
    t2m = fields(4, 5, 8)
    write_grib(tmp_path / "a.grib", {("2t", None, None): t2m[:2]})
    write_grib(tmp_path / "b.grib", {("2t", None, None): t2m[2:]}, (20200103, 20200104))
    for paths in (tmp_path, str(tmp_path / "*.grib"), [tmp_path / "a.grib", tmp_path / "b.grib"]):
        np.testing.assert_allclose(open_dataset(paths, ["t2m"])["t2m"], t2m, atol=1e-4)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.grib", "b.grib"]


def test_truncated_grib_is_an_error(tmp_path):
    write_grib(tmp_path / "a.grib", {("2t", None, None): fields(2, 5, 8)})
    whole = (tmp_path / "a.grib").read_bytes()
    (tmp_path / "a.grib").write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"a.grib' is damaged or truncated"):
        open_dataset(tmp_path / "a.grib", ["t2m"])


def test_grib_without_cfgrib_is_an_error(tmp_path, monkeypatch):
    write_grib(tmp_path / "a.grib", {("2t", None, None): fields(2, 5, 8)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"is GRIB.*needs cfgrib.*simvp-climate\[grib\]"):
        open_dataset(tmp_path / "a.grib", ["t2m"])


@pytest.mark.filterwarnings("ignore:Variable.s. referenced in cell_measures not in variables")
def test_a_dataset_in_memory_is_renamed_like_a_file(tmp_path):
    cmip(tmp_path / "day.nc", "noleap")
    with xr.open_dataset(tmp_path / "day.nc", decode_coords="all") as raw:
        ds = rename(raw, ["tas"])
        assert bounds_offsets(ds) == (pd.Timedelta("-12h"), pd.Timedelta("12h"))
        assert ds.identical(open_dataset(raw, ["tas"]))


def test_maps_can_be_drawn_after_data_were_opened():
    """Eccodes contains a PROJ library, which could hide the database of that of cartopy."""
    code = (
        "import warnings; warnings.simplefilter('error', UserWarning);"
        "import simvp_climate as sc; sc.open_sample(); import eccodes, pyproj; pyproj.CRS.from_epsg(4326)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
