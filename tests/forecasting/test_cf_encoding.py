"""CF attributes and encodings of forecasts, in memory and in files."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import waves

from simvp_climate.data.grid import find_axes
from simvp_climate.forecasting.cf_encoding import encode
from simvp_climate.metrics.baselines.simple_persistence import persistence


def forecast(name="tp", calendar="standard", **attrs):
    inits = xr.date_range("2001-01-01", periods=2, freq="12h", calendar=calendar, use_cftime=calendar != "standard")
    leads = pd.timedelta_range("6h", periods=3, freq="6h", unit="ns")
    valid = np.array([[init + lead for lead in leads] for init in inits])
    values = np.arange(2 * 3 * 2 * 4, dtype="f4").reshape(2, 3, 2, 4)
    return xr.Dataset(
        {name: (("init_time", "lead_time", "latitude", "longitude"), values, attrs)},
        {
            "init_time": inits,
            "lead_time": leads,
            "valid_time": (("init_time", "lead_time"), valid),
            "latitude": [-45.0, 45.0],
            "longitude": [0.0, 90, 180, 270],
        },
    )


def with_bounds(ds, lower, upper):
    valid = ds["valid_time"].values
    pairs = np.array([[[t + pd.Timedelta(lower), t + pd.Timedelta(upper)] for t in row] for row in valid])
    return ds.assign_coords(valid_time_bnds=(("init_time", "lead_time", "bnds"), pairs))


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("lower", ["-6h", "-10min"])
def test_means_and_sums_keep_their_bounds_and_methods_in_a_file(tmp_path, calendar, lower):
    ds = with_bounds(forecast(calendar=calendar, cell_methods="time: sum (interval: 6 hours)"), lower, "0h")
    out = encode(ds)
    assert out["tp"].attrs["cell_methods"] == "time: sum (interval: 6 hours)"
    assert out["valid_time"].attrs["bounds"] == "valid_time_bnds"
    out.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc", decode_timedelta=True) as back:
        np.testing.assert_array_equal(back["valid_time_bnds"], ds["valid_time_bnds"])
        np.testing.assert_array_equal(back["valid_time"], ds["valid_time"])
        np.testing.assert_array_equal(back["lead_time"], ds["lead_time"])
        assert back["valid_time"].attrs["bounds"] == "valid_time_bnds"
    with xr.open_dataset(tmp_path / "f.nc", decode_times=False) as raw:
        assert raw["valid_time_bnds"].attrs == {}  # by CF its units are those of the valid time
        assert raw["valid_time_bnds"].dtype == np.float64
        unit = "hours" if lower == "-6h" else "minutes"
        assert raw["valid_time"].attrs["units"].split(" 00:")[0] == f"{unit} since 1970-01-01"


@pytest.mark.parametrize(
    ("name", "attrs", "methods"),
    [
        ("t2m", {}, None),  # may be a daily mean
        ("t2m", {"cell_methods": "time: mean"}, "time: mean"),
        ("t2m", {"GRIB_stepType": "instant"}, None),  # xarray keeps it in daily means
        ("t2m", {"cell_methods": "time: point"}, "time: point"),
        ("mean_flux", {"GRIB_stepType": "avg"}, "time: mean"),
        ("tp", {"GRIB_stepType": "accum"}, "time: sum"),
        ("t2m", {"GRIB_stepType": "max"}, "time: maximum"),
        ("tp", {}, None),  # accumulated over an unknown time
        ("unknown_name", {}, None),
    ],
)
def test_cell_methods_come_from_the_data(name, attrs, methods):
    assert encode(forecast(name, **attrs))[name].attrs.get("cell_methods") == methods


def test_attributes_about_cached_values_are_dropped():
    attrs = {"cache_max_abs_error": 0.5, "units": "K", "cacheable": "yes"}
    assert encode(forecast("t2m", **attrs))["t2m"].attrs == {
        "standard_name": "air_temperature",
        "long_name": "2m temperature",
        "units": "K",
        "cacheable": "yes",
    }


def test_bounds_that_the_forecast_lacks_are_not_named():
    ds = forecast("t2m")
    ds["latitude"].attrs["bounds"] = "lat_bnds"
    ds["valid_time"].attrs["bounds"] = "time_bnds"
    out = encode(ds)
    assert "bounds" not in out["latitude"].attrs and "bounds" not in out["valid_time"].attrs
    assert ds["latitude"].attrs["bounds"] == "lat_bnds"  # the data handed in keep theirs


@pytest.mark.parametrize("name", ["unknown", ""])
def test_a_standard_name_that_is_none_is_replaced(name):
    ds = persistence(waves(), waves().time[:2], ["6h"])
    ds["t2m"].attrs |= {"standard_name": name, "long_name": "2 metre temperature"}
    encoded = encode(ds)
    assert encoded.t2m.attrs["standard_name"] == "air_temperature"
    assert encoded.t2m.attrs["long_name"] == "2 metre temperature"


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"units": "Pa", "standard_name": "air_pressure"}, {"units": "Pa", "positive": "down", "axis": "Z"}),
        ({}, {"units": "hPa", "standard_name": "air_pressure", "positive": "down", "axis": "Z"}),
        ({"units": "m", "standard_name": "height", "positive": "up"}, {"units": "m", "positive": "up", "axis": "Z"}),
    ],
)
def test_levels_of_every_unit_have_an_axis(attrs, expected):
    values = [50000.0, 85000.0] if attrs.get("units") == "Pa" else [500.0, 850.0]
    ds = waves()
    ds["q"] = ds.t2m.expand_dims(level=values, axis=1)
    ds["level"].attrs = attrs
    encoded = encode(persistence(ds[["q"]], ds.time[:2], ["6h"]))
    assert expected.items() <= encoded.level.attrs.items()


def flat_levels():
    values = forecast("z500", units="m2 s-2")
    return values.assign(t850=values.z500.assign_attrs(units="K"), t2m=values.z500.assign_attrs(units="K"))


def test_flat_variables_name_their_pressure_in_memory_and_in_files(tmp_path):
    ds = encode(flat_levels())
    for name, value in {"pressure_500": 500, "pressure_850": 850}.items():
        assert ds[name].dims == () and ds[name] == value
        assert ds[name].attrs == {"standard_name": "air_pressure", "units": "hPa"}
    ds.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc", decode_cf=False) as raw:
        pressures = {name: raw[name].attrs["coordinates"].split()[3:] for name in ("z500", "t850", "t2m")}
        assert pressures == {"z500": ["pressure_500"], "t850": ["pressure_850"], "t2m": []}
        assert "coordinates" not in raw.attrs
    back = xr.load_dataset(tmp_path / "f.nc", decode_timedelta=True)
    xr.testing.assert_identical(back, ds)
    # a level of some variables is not the level of the whole file
    assert find_axes(back).scalar_level is None
    assert not {"pressure_500", "height_2"} & set(encode(forecast("t2m")).coords)


@pytest.mark.parametrize(
    "select",
    [
        lambda ds: ds.isel(init_time=0),
        lambda ds: ds.isel(lead_time=1),
        lambda ds: ds.isel(init_time=0, lead_time=1),
        lambda ds: ds[["t2m"]],
        lambda ds: ds[["t2m"]].drop_vars("valid_time"),
        lambda ds: ds[["t2m"]].isel(init_time=1),
    ],
)
def test_coordinates_of_a_selection_stay_coordinates_in_files(tmp_path, select):
    ds = select(encode(flat_levels()))
    ds.encoding = {}
    ds.to_netcdf(tmp_path / "f.nc")
    back = xr.load_dataset(tmp_path / "f.nc", decode_timedelta=True)
    assert set(back.coords) == set(ds.coords)
    xr.testing.assert_identical(back, ds)


def test_the_level_dimension_names_the_pressure_of_its_variables():
    ds = waves()
    ds["z"] = ds.z500.expand_dims(level=[500.0, 850.0], axis=1)
    encoded = encode(persistence(ds[["z", "t2m"]], ds.time[:2], ["6h"]))
    assert set(encoded.coords) == {"init_time", "lead_time", "valid_time", "level", "latitude", "longitude"}
