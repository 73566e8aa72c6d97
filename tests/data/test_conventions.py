import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from simvp_climate.data.conventions import bounds_offsets, canonicalize, orient, rename
from simvp_climate.data.grid import Axes, check_same_grid, find_axes, find_member

TIMES = xr.date_range("2000-01-01", periods=3, freq="6h", use_cftime=False)
LATITUDES = np.arange(-67.5, 90, 45)  # 4
LONGITUDES = np.arange(0, 360, 45.0)  # 8


def values_at(latitude, longitude):
    """Return values that encode their coordinates; longitudes just below 360 are noise and count as 0."""
    latitude, longitude = np.asarray(latitude, "f8"), np.asarray(longitude, "f8")
    return 10 * latitude[:, None] + np.round(longitude % 360 % 359.999, 2) / 1000


def field(lat="latitude", lon="longitude", latitude=LATITUDES, longitude=LONGITUDES, time="time", name="x"):
    values = values_at(latitude, longitude) + np.arange(3)[:, None, None]
    return xr.Dataset({name: ((time, lat, lon), values)}, {time: TIMES, lat: latitude, lon: longitude})


def on_levels(levels, name="z", dim="level", **attrs):
    base = field(name=name)
    values = xr.concat([base[name] + 1e4 * i for i in range(len(levels))], dim).transpose("time", dim, ...)
    return values.to_dataset().assign_coords({dim: (dim, levels, attrs)})


def labeled_radians(longitude):
    ds = field(longitude=longitude)
    return ds.assign_coords(longitude=ds["longitude"].assign_attrs(units="radians"))


# ---- find_axes


def test_axes_by_name_without_attributes():
    assert find_axes(field("lat", "lon")) == Axes("time", "lat", "lon", None)


def test_axes_by_attributes_whatever_the_names():
    ds = field("rows", "columns", time="when")
    ds["rows"].attrs["standard_name"] = "latitude"
    ds["columns"].attrs["units"] = "degrees_east"
    assert find_axes(ds) == Axes("when", "rows", "columns", None)


@pytest.mark.parametrize("dim", ["level", "pressure_level", "isobaricInhPa", "plev"])
def test_level_dimension(dim):
    assert find_axes(on_levels([500, 850], dim=dim)).level == dim


def test_pressure_wins_over_depth():
    ds = on_levels([500, 850])
    ds["soil"] = xr.zeros_like(field()["x"]).expand_dims(depth=[0.1, 1.0])
    assert find_axes(ds).level == "level"


def test_axes_of_era5_from_the_climate_data_store():
    ds = field(time="valid_time").assign_coords(number=0, expver=("valid_time", ["0001"] * 3))
    assert find_axes(ds) == Axes("valid_time", "latitude", "longitude", None)


def test_axes_of_a_forecast_have_no_time():
    ds = field().rename(time="init_time").expand_dims(lead_time=TIMES - TIMES[0])
    ds = ds.assign_coords(valid_time=ds["init_time"] + ds["lead_time"])
    assert find_axes(ds) == Axes(None, "latitude", "longitude", None)


def test_axes_with_another_calendar():
    times = xr.date_range("2000-02-28", periods=3, calendar="noleap", use_cftime=True)
    assert find_axes(field().assign_coords(time=times).rename(time="t")).time == "t"


def test_finding_axes_changes_nothing():
    ds = field("lat", "lon")
    find_axes(ds)
    assert ds["lat"].attrs == {} and ds["lon"].attrs == {} and ds["time"].attrs == {}


def curvilinear(**attrs):
    shape = (4, 8)
    return xr.Dataset(
        {"x": (("y", "x_"), np.zeros(shape))},
        {"lat": (("y", "x_"), np.zeros(shape), attrs), "lon": (("y", "x_"), np.zeros(shape))},
    )


def test_refuses_curvilinear_grids():
    with pytest.raises(ValueError, match=r"'lat' has the dimensions .*curvilinear.*CDO .cdo remapcon.*, xESMF"):
        find_axes(curvilinear())
    with pytest.raises(ValueError, match="curvilinear"):
        find_axes(curvilinear().reset_coords())


def test_refuses_unstructured_grids():
    cells = xr.Dataset({"x": ("cell", np.zeros(5))}, {"lat": ("cell", np.arange(5.0)), "lon": ("cell", np.arange(5.0))})
    with pytest.raises(ValueError, match=r"share the dimension 'cell'.*reduced Gaussian.*earthkit-regrid"):
        find_axes(cells)
    with pytest.raises(ValueError, match="share the dimension 'cell'"):
        find_axes(field("lat", "lon").stack(cell=("lat", "lon")))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (xr.Dataset({"x": ("time", [1, 2, 3])}, {"time": TIMES}), "no latitude found.*standard_name"),
        (field("lat", "lon").drop_vars("lat"), "no latitude found.*assign_coords"),
        (field("lat", "lon").isel(lat=0), "'lat' is a single value.*expand_dims"),
        (field("lat", "lon").rename_dims(lat="j"), r"its dimension 'j': ds.swap_dims\(j='lat'\)"),
        (field(latitude=[-10.0, 10, 10, 20]), "from 10 to 10 at position 2.*drop_duplicates"),
        (field(latitude=[-10.0, 10, 0, 20]), "from 10 to 0 at position 2.*sortby"),
        (field(latitude=[1e5, 2e5, 3e5, 4e5]), "latitudes must be degrees .*100000"),
        (field(latitude=[-10.0, 0.0, 10.0, np.nan]), "1 of 4 .*nan"),
        (field(longitude=np.linspace(0, 1e6, 8)), "longitudes must be degrees"),
        (field(longitude=np.linspace(0, 360, 8)), r"twice, 0 and 360.*drop_isel\(longitude=\[7\]\)"),
        (field(longitude=np.linspace(-180, 180, 8)), r"twice, -180 and 180"),
        (field(longitude=[0, 45, 45, 90, 135, 180, 225, 270]), r"drop_isel\(longitude=\[2\]\)"),
        (field().drop_vars("time"), "'time' has no dates"),
        (field(latitude=np.linspace(-np.pi / 2, np.pi / 2, 4)), "'latitude' holds radians, from -1.571.*np.rad2deg"),
        (field(longitude=np.deg2rad(np.arange(0, 360, 45))), "'longitude' holds radians.*np.rad2deg.*degrees_east"),
        (labeled_radians(np.linspace(0.1, 0.8, 8)), "'longitude' holds radians, from 0.1 to 0.8"),
        (field(latitude=[0, 95, 190, 285]), "Rename the dimensions if 'latitude' holds the longitudes"),
    ],
)
def test_invalid_axes_are_refused_with_a_fix(dataset, message):
    with pytest.raises(ValueError, match=message):
        find_axes(dataset)


def test_the_fix_for_radians_gives_degrees():
    ds = labeled_radians(np.deg2rad(LONGITUDES))
    with pytest.raises(ValueError, match="radians") as error:
        find_axes(ds)
    fixed = {"ds": ds, "np": np}
    exec(str(error.value).partition(". ds")[2].join(["ds", ""]), fixed)
    np.testing.assert_allclose(find_axes(fixed["ds"]).columns.values, np.sort(LONGITUDES % 360))


def test_refuses_two_times_and_two_levels():
    with pytest.raises(ValueError, match=r"several dimensions could be the time: \['when', 'run'\]"):
        find_axes(field(time="when").expand_dims(run=TIMES))
    assert find_axes(field().expand_dims(run=TIMES)).time == "time"
    both = on_levels([500, 850]).expand_dims(plev=[100.0, 200.0])
    with pytest.raises(ValueError, match=r"several dimensions could be the level.*drop_dims"):
        find_axes(both)


def test_a_dataset_without_its_repeated_meridian_is_accepted():
    ds = field(longitude=np.linspace(0, 360, 8))
    assert find_axes(ds.isel(longitude=slice(0, -1))).longitude == "longitude"


# ---- rename


def test_rename_returns_the_requested_variables_in_order_and_no_others():
    ds = field("lat", "lon", name="2m_temperature").assign(
        geopotential_500=field("lat", "lon")["x"], rest=field("lat", "lon")["x"]
    )
    ds = ds.assign_coords(number=0, expver=("time", ["1", "1", "5"]), step=np.timedelta64(0, "ns"))
    result = rename(ds, ["z500", "t2m"])
    assert list(result) == ["z500", "t2m"]
    assert set(result.coords) == {"time", "latitude", "longitude"}
    np.testing.assert_array_equal(result["t2m"], ds["2m_temperature"])


def test_rename_changes_neither_values_nor_order_nor_attributes():
    ds = field("lat", "lon", LATITUDES[::-1], np.roll(LONGITUDES, 4).astype("f4") - 180, name="t2m")
    ds = ds.transpose("lon", "lat", "time")
    ds["t2m"].attrs["units"] = "degC"
    ds["lat"].attrs["note"] = "kept"
    ds["t2m"].encoding["dtype"] = "int16"
    ds.attrs["title"] = "kept"
    result = rename(ds, ["2m_temperature"])
    assert result["2m_temperature"].dims == ("longitude", "latitude", "time")
    back = result.rename({"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"})
    assert back.identical(ds)
    assert result["2m_temperature"].encoding["dtype"] == "int16"
    assert result["longitude"].dtype == np.float32


def test_rename_does_not_read():
    with dask.config.set(scheduler=lambda *_: pytest.fail("computed")):
        ds = field("lat", "lon", LATITUDES[::-1], LONGITUDES - 180, name="t2m").chunk(time=1)
        canonicalize(ds, ["t2m"])


def test_a_level_in_the_name_gives_a_variable_without_levels():
    result = rename(on_levels([500, 850]), ["z850", "geopotential_500"])
    assert set(result.coords) == {"time", "latitude", "longitude"}
    np.testing.assert_array_equal(result["z850"] - result["geopotential_500"], 1e4)


@pytest.mark.parametrize(
    ("values", "attrs"),
    [
        ([50000.0, 85000.0], {"units": "Pa"}),
        ([50000, 85000], {}),
        ([500, 850], {"units": "millibars"}),
        ([500.0, 850.0], {"units": "hPa"}),
    ],
)
def test_levels_are_requested_in_hpa_and_stay_as_in_the_file(values, attrs):
    ds = on_levels(values, dim="plev", **attrs)
    result = rename(ds, ["z"], levels=[850, 500])
    assert result["level"].values.tolist() == values[::-1]
    assert result["level"].attrs == attrs
    np.testing.assert_array_equal(result["z"].isel(level=0), ds["z"].isel(plev=1))
    np.testing.assert_array_equal(rename(ds, ["z850"])["z850"], ds["z"].isel(plev=1))
    assert orient(result)["level"].values.tolist() == [850, 500]


def test_all_levels_without_levels():
    assert rename(on_levels([500, 850]), ["geopotential"])["geopotential"].sizes["level"] == 2


def test_a_single_level_has_no_dimension_unless_requested():
    ds = on_levels([850.0], name="vo", dim="pressure_level")
    assert rename(ds, ["vo"])["vo"].dims == ("time", "latitude", "longitude")
    assert rename(ds, ["vorticity"], levels=[850])["vorticity"].sizes["level"] == 1


def test_single_level_variables_ignore_levels():
    ds = on_levels([500, 850]).assign(t2m=field()["x"])
    result = rename(ds, ["t2m", "z"], levels=[500])
    assert result["t2m"].dims == ("time", "latitude", "longitude")
    assert result["z"].sizes["level"] == 1


def test_scalar_level_of_weatherbench_1():
    ds = field("lat", "lon", name="z").assign_coords(level=np.int32(500))
    result = rename(ds, ["z500"])
    assert set(result.coords) == {"time", "latitude", "longitude"}
    with pytest.raises(ValueError, match="'z' is on 500 hPa in this file"):
        rename(ds, ["z850"])


def test_static_fields_have_no_time():
    ds = field().assign(orography=field()["x"].isel(time=0, drop=True))
    assert rename(ds, ["orography"])["orography"].dims == ("latitude", "longitude")


def test_a_field_that_the_file_calls_a_coordinate():
    ds = field().assign_coords(lsm=field()["x"].isel(time=0, drop=True))
    assert list(rename(ds, ["x", "land_sea_mask"])) == ["x", "land_sea_mask"]


def test_variables_are_recognized_by_attributes():
    ds = field(name="var151")
    ds["var151"].attrs["standard_name"] = "air_pressure_at_mean_sea_level"
    assert list(rename(ds, ["msl"])) == ["msl"]
    ds = field(name="var167")
    ds["var167"].attrs["GRIB_shortName"] = "2t"
    assert list(rename(ds, ["2m_temperature"])) == ["2m_temperature"]
    ds = field(name="chl")
    ds["chl"].attrs["standard_name"] = "mass_concentration_of_chlorophyll_in_sea_water"
    assert list(rename(ds, ["mass_concentration_of_chlorophyll_in_sea_water"]))


def test_a_name_counts_more_than_attributes():
    ds = field(name="geopotential_500").assign(hurs=field()["x"])
    ds["geopotential_500"].attrs["standard_name"] = "geopotential"
    ds["hurs"].attrs["standard_name"] = "relative_humidity"  # at 2 m
    for name in ("geopotential", "r", "z850"):
        with pytest.raises(ValueError, match="no variable"):
            rename(ds, [name])


def test_surface_geopotential_is_not_taken_for_a_level():
    ds = on_levels([500, 850], name="geopotential").assign(geopotential_at_surface=field()["x"])
    ds["geopotential_at_surface"].attrs["short_name"] = "z"
    np.testing.assert_array_equal(rename(ds, ["z500"])["z500"], ds["geopotential"].isel(level=0))


@pytest.mark.parametrize(
    ("stored_name", "requested"), [("zg", "z500"), ("gh", "geopotential_500"), ("geopotential", "gh500")]
)
def test_geopotential_and_its_height_stand_for_each_other(stored_name, requested):
    ds = on_levels([500, 850], name=stored_name)
    ds[stored_name].attrs["units"] = "of the file"
    renamed = rename(ds, [requested])[requested]
    np.testing.assert_array_equal(renamed, ds[stored_name].isel(level=0))
    assert renamed.attrs["units"] == "of the file"
    whole = rename(ds, ["geopotential", "gh"])
    np.testing.assert_array_equal(whole["geopotential"], whole["gh"])


def test_geopotential_is_not_its_height_where_the_file_has_both():
    ds = on_levels([500, 850]).assign(gh=on_levels([500, 850])["z"] / 9.8)
    np.testing.assert_array_equal(rename(ds, ["geopotential_500"])["geopotential_500"], ds["z"].isel(level=0))
    np.testing.assert_array_equal(rename(ds, ["zg500"])["zg500"], ds["gh"].isel(level=0))
    surface = field(name="z")["z"]  # no level: not the geopotential at 500 hPa
    ds = on_levels([500, 850], name="gh").assign(z=surface)
    np.testing.assert_array_equal(rename(ds, ["z500"])["z500"], ds["gh"].isel(level=0))


@pytest.mark.parametrize(
    ("dataset", "requested", "names"),
    [
        (field(name="tas").assign({"2m_temperature": field()["x"]}), "t2m", r"\['tas', '2m_temperature'\]"),
        (on_levels([500]).assign(geopotential_500=field()["x"]), "z500", r"\['geopotential_500', 'z'\]"),
        (field(name="msl").assign(p=field()["x"].assign_attrs(short_name="msl")), "psl", r"\['msl', 'p'\]"),
    ],
)
def test_a_variable_under_two_names_is_refused_and_either_name_works(dataset, requested, names):
    with pytest.raises(ValueError, match=f"{requested!r} could be any of {names}"):
        rename(dataset, [requested])
    for name in dataset.data_vars:
        np.testing.assert_array_equal(rename(dataset, [name])[name].squeeze(), dataset[name].squeeze())


def test_members_stay():
    ds = field(name="t2m").expand_dims(number=[0, 1])
    assert rename(ds, ["t2m"])["t2m"].sizes["number"] == 2
    assert canonicalize(ds, ["t2m"]).dataset["t2m"].dims == ("number", "time", "latitude", "longitude")


def test_forecasts_keep_their_times():
    ds = field("lat", "lon").rename(time="init_time").expand_dims(lead_time=TIMES - TIMES[0])
    ds = ds.assign_coords(valid_time=ds["init_time"] + ds["lead_time"], number=0)
    result = rename(ds, ["x"])
    assert set(result.coords) == {"init_time", "lead_time", "valid_time", "latitude", "longitude"}
    assert orient(result)["x"].dims == ("lead_time", "init_time", "latitude", "longitude")
    single = rename(ds.isel(init_time=0), ["x"])
    assert single.sizes["lead_time"] == 3 and set(single.coords) == set(result.coords)
    single = rename(ds.isel(lead_time=0), ["x"])
    assert single.sizes["init_time"] == 3 and set(single.coords) == set(result.coords)


def test_renaming_twice_is_renaming_once():
    ds = rename(on_levels([500, 850]), ["z"], levels=[850])
    assert rename(ds, ["z"], levels=[850]).identical(ds)


@pytest.mark.parametrize(
    ("dataset", "variables", "levels", "message"),
    [
        (field(name="t2m"), ["t3m"], None, r"no variable 't3m'.*which has \['t2m'\]. Did you mean 't2m'"),
        (on_levels([500, 850]), ["z505"], None, "level 505 hPa is not in 'level'.*500, 850"),
        (on_levels([500, 850]), ["z"], [500, 700], "level 700 hPa is not in 'level'"),
        (on_levels([50000, 85000], units="hPa"), ["z500"], None, r'are in Pa: ds\["level"\].attrs\["units"\] = "Pa"'),
        (on_levels([850, 500], units="Pa"), ["z500"], None, r'are in hPa: ds\["level"\].attrs\["units"\] = "hPa"'),
        (on_levels([500, 850]), ["z"], [500, 500], r"\[500, 500\] must be unique"),
        (on_levels([500, 850]), ["z"], [], r"levels=\[\] must be"),
        (field(name="t2m"), ["t2m"], [500], r"levels=\[500.0\] applies to none.*Omit levels"),
        (field(name="z"), ["z500"], None, r"level of 'z' is not stated.*ds.rename\(z='z500'\)"),
        (on_levels([1.0, 2.0], units="m"), ["z500"], None, r"levels 'level' \(m\) are not pressures"),
        (field(name="2t").assign(tas=field()["x"]), ["t2m"], None, r"could be any of \['2t', 'tas'\]"),
        (field().assign(index=("time", [1, 2, 3])), ["index"], None, r"lacks \['latitude', 'longitude'\]"),
        (field(), "x", None, "variables='x'"),
    ],
)
def test_rename_refuses_with_a_fix(dataset, variables, levels, message):
    with pytest.raises(ValueError, match=message):
        rename(dataset, variables, levels)


# ---- orient and restore


def test_orient_by_hand():
    ds = field(latitude=[10.0, 0.0, -10.0], longitude=[-90.0, 0.0, 90.0, 180.0], name="t")
    result = canonicalize(ds.transpose("time", "longitude", "latitude"), ["t"]).dataset
    assert result["latitude"].values.tolist() == [-10, 0, 10]
    assert result["longitude"].values.tolist() == [0, 90, 180, 270]
    assert result["t"].dims == ("time", "longitude", "latitude")  # as in the file
    first = result["t"].isel(time=0, latitude=2)
    np.testing.assert_allclose(first, [100, 100.09, 100.18, 100.27])


@pytest.mark.parametrize(
    ("longitude", "canonical"),
    [
        ([-10.0, 0.0, 10.0], [350, 360, 370]),  # across Greenwich
        ([350.0, 0.0, 10.0], [350, 360, 370]),
        ([170.0, 180.0, -170.0], [170, 180, 190]),  # across the date line
        ([30.0, 20.0, 10.0], [10, 20, 30]),
        ([-1e-13, 120.0, 240.0], [0, 120, 240]),  # global, with noise at 0
        ([15.0], [15]),
    ],
)
def test_longitude_ascends_without_a_jump(longitude, canonical):
    ds = field(longitude=longitude)
    result = orient(ds)
    np.testing.assert_allclose(result["longitude"], canonical, atol=1e-9)
    assert canonicalize(ds).restore(result).identical(ds)


def test_orient_needs_renamed_dimensions():
    with pytest.raises(ValueError, match=r"lack \['latitude', 'longitude'\]"):
        orient(field("lat", "lon"))


NOISY = np.rad2deg(np.linspace(0, 2 * np.pi, 12, endpoint=False))


@pytest.mark.parametrize("latitude", [LATITUDES, LATITUDES[::-1], LATITUDES.astype("f4"), np.array([-90.0, 0, 90])])
@pytest.mark.parametrize(
    "longitude",
    [
        LONGITUDES,
        LONGITUDES - 180,
        LONGITUDES[::-1],
        NOISY,
        NOISY - 180,
        (NOISY + 1e-5).astype("f4"),
        ((NOISY + 180) % 360 - 180).astype("f4"),
        np.arange(-20, 20, 2.5, dtype="f4"),
        np.arange(150, 220, 2.5) % 360,
    ],
)
@pytest.mark.parametrize("longitude_first", [False, True])
def test_restore_returns_the_original_to_the_bit(latitude, longitude, longitude_first):
    ds = field("lat", "lon", latitude, longitude, time="valid_time", name="z500")
    ds["lat"].attrs["comment"] = "mine"
    ds["lon"].encoding["_FillValue"] = None
    if longitude_first:
        ds = ds.transpose("valid_time", "lon", "lat")
    oriented = canonicalize(ds, ["z500"]).dataset
    for axis in ("latitude", "longitude"):
        assert (np.diff(oriented[axis]) > 0).all() and oriented[axis].dtype == np.float64
    expected = values_at(oriented["latitude"], oriented["longitude"])
    first = oriented["z500"].isel(time=0).transpose("latitude", "longitude")
    np.testing.assert_allclose(first, expected, atol=1e-4)
    back = canonicalize(ds).restore(oriented)
    assert back.identical(ds.transpose("valid_time", "lat", "lon"))
    for axis in ("lat", "lon"):
        assert back[axis].dtype == ds[axis].dtype
        assert back[axis].values.tobytes() == ds[axis].values.tobytes()
        assert back[axis].encoding == ds[axis].encoding
    assert (back - ds).sizes == ds.sizes


def test_levels_come_back_in_the_unit_of_the_file():
    ds = on_levels([85000.0, 50000.0], dim="plev", units="Pa")
    oriented = canonicalize(ds, ["z"], levels=[500, 850]).dataset
    assert oriented["level"].values.tolist() == [500, 850]
    assert oriented["level"].attrs["units"] == "hPa"
    back = canonicalize(ds).restore(oriented)
    assert back["plev"].values.tolist() == [50000, 85000] and back["plev"].attrs == {"units": "Pa"}
    assert back["z"].dims == ("time", "plev", "latitude", "longitude")
    assert (back - ds).sizes == ds.sizes


def test_a_forecast_aligns_with_the_data_it_was_made_from():
    ds = field("lat", "lon", LATITUDES[::-1], NOISY - 180, time="valid_time", name="t2m")
    oriented = canonicalize(ds, ["t2m"]).dataset
    forecast = oriented.rename(time="init_time").isel(init_time=[0]).expand_dims(lead_time=TIMES[1:] - TIMES[0])
    forecast = forecast.assign_coords(valid_time=forecast["init_time"] + forecast["lead_time"])
    out = canonicalize(ds).restore(forecast)
    assert out["t2m"].dims == ("init_time", "lead_time", "lat", "lon")
    difference = out - ds.sel(valid_time=out["valid_time"])
    np.testing.assert_allclose(difference["t2m"], np.broadcast_to([[[[-1]], [[-2]]]], (1, 2, 4, 12)))


def test_restore_refuses_another_grid():
    oriented = orient(field())
    with pytest.raises(ValueError, match="8 against 7 longitudes"):
        canonicalize(field(longitude=np.arange(7) * 40.0)).restore(oriented)
    with pytest.raises(ValueError, match="level dimension"):
        canonicalize(field()).restore(orient(on_levels([500, 850])))


# ---- same_grid


def test_grids_agree_despite_noise_and_modulo_360():
    check_same_grid(orient(field()), orient(field(longitude=(LONGITUDES + 1e-5).astype("f4"))))
    check_same_grid(field(longitude=LONGITUDES + 360), field())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (field(latitude=LATITUDES[:3]), "4 against 3 latitudes"),
        (field(latitude=LATITUDES[::-1]), "latitude 0 is -67.5 against 67.5"),
        (field(longitude=LONGITUDES + 1), r"longitude 0 is 0 against 1 \(tolerance 0.001"),
    ],
)
def test_different_grids_are_an_error_with_the_first_difference(other, message):
    with pytest.raises(ValueError, match=message):
        check_same_grid(field(), other)


# ---- forecasts, members, bounds of times


def forecast_of(init, lead, lead_attrs=None):
    ds = field("lat", "lon", name="t2m").rename(time=init).expand_dims({lead: TIMES - TIMES[0]}, axis=1)
    ds[lead].attrs = lead_attrs or {}
    return ds


@pytest.mark.parametrize(
    ("init", "lead", "attrs"),
    [
        ("time", "prediction_timedelta", {}),  # WeatherBench 2
        ("time", "step", {"standard_name": "forecast_period"}),  # GRIB
        ("forecast_reference_time", "hours_ahead", {"standard_name": "forecast_period"}),
    ],
)
def test_forecasts_of_any_origin_get_canonical_names(init, lead, attrs):
    ds = forecast_of(init, lead, attrs)
    renamed = rename(ds, ["t2m"])
    assert renamed["t2m"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert renamed["valid_time"].dims == ("init_time", "lead_time")
    assert renamed["valid_time"].values[1, 2] == TIMES[1] + (TIMES[2] - TIMES[0])
    np.testing.assert_array_equal(renamed["t2m"], ds["t2m"])
    assert rename(renamed, ["t2m"]).identical(renamed)


def test_a_single_forecast_of_grib_has_a_scalar_init_time():
    ds = forecast_of("time", "step").isel(time=1)
    ds = ds.assign_coords(valid_time=ds["time"] + ds["step"])
    renamed = rename(ds, ["t2m"])
    assert renamed.sizes["lead_time"] == 3 and renamed["init_time"].values == TIMES[1]
    assert renamed["valid_time"].values.tolist() == ds["valid_time"].values.tolist()


def test_durations_that_are_not_lead_times_stay():
    ds = field().expand_dims(window=TIMES - TIMES[0])
    assert rename(ds, ["x"])["x"].dims == ("window", "time", "latitude", "longitude")


@pytest.mark.parametrize(
    ("dim", "attrs", "expected"),
    [
        ("number", {}, "number"),
        ("member", {}, "member"),
        ("realization", {}, "realization"),
        ("Ensemble", {}, "Ensemble"),
        ("run", {"standard_name": "realization"}, "run"),
        ("scenario", {}, None),
    ],
)
def test_member_dimension(dim, attrs, expected):
    ds = field(name="t2m").expand_dims({dim: [0, 1]})
    ds[dim].attrs = attrs
    assert find_member(ds) == expected
    assert find_member(rename(ds, ["t2m"])) == expected
    assert find_member(ds.isel({dim: 0})) is None


def test_two_member_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"several dimensions could be the ensemble members: \['member', 'number'\]"):
        find_member(field().expand_dims(member=[0, 1]).expand_dims(number=[0, 1]))


def averaged(lower, upper, times=TIMES, time="time"):
    """Return means from `lower` to `upper` hours relative to each time."""
    ds = field(name="tp", time=time).assign_coords({time: times})
    ds["tp"].attrs = {"cell_methods": "time: mean (interval: 6 hours)", "units": "m"}
    pairs = [[t + pd.Timedelta(lower, "h"), t + pd.Timedelta(upper, "h")] for t in times]
    ds[f"{time}_bnds"] = ((time, "bnds"), pairs)
    ds[time].attrs["bounds"] = f"{time}_bnds"
    return ds


@pytest.mark.parametrize("time", ["time", "valid_time"])
def test_time_bounds_stay_and_follow_selections(time):
    ds = averaged(-6, 0, time=time)
    renamed = rename(ds, ["tp"])
    name = f"{time}_bnds"
    assert renamed["time"].attrs["bounds"] == name and renamed.coords[name].dims == ("time", "bnds")
    assert renamed["tp"].attrs["cell_methods"] == "time: mean (interval: 6 hours)"
    assert list(renamed.data_vars) == ["tp"]
    for selected in (renamed.isel(time=[2]), renamed.sel(time=[TIMES[2]]), orient(renamed).isel(time=[2])):
        assert selected[name].values.tolist() == [[TIMES[1].value, TIMES[2].value]]
    assert canonicalize(ds).restore(orient(renamed))["tp"].dims == (time, "latitude", "longitude")
    assert rename(renamed, ["tp"]).identical(renamed)


def test_bounds_without_their_time_are_dropped():
    ds = averaged(-6, 0)
    ds["x"] = ds["tp"].isel(time=0, drop=True)
    assert "time_bnds" not in rename(ds, ["x"]).coords
    ds["time"].attrs["bounds"] = "elsewhere"
    assert set(rename(ds, ["tp"]).coords) == {"time", "latitude", "longitude"}


@pytest.mark.parametrize(("lower", "upper"), [(-6, 0), (-12, 12), (0, 1)])
def test_offsets_of_bounds(lower, upper):
    expected = (pd.Timedelta(lower, "h"), pd.Timedelta(upper, "h"))
    assert bounds_offsets(rename(averaged(lower, upper), ["tp"])) == expected
    assert bounds_offsets(rename(averaged(upper, lower), ["tp"])) == expected
    noleap = xr.date_range("2000-02-27", periods=3, calendar="noleap", use_cftime=True)
    assert bounds_offsets(rename(averaged(lower, upper, noleap), ["tp"])) == expected


def test_offsets_that_vary_or_are_absent_are_none():
    months = averaged(0, 24 * 31, xr.date_range("2001-01-01", periods=3, freq="MS", use_cftime=False))
    months["time_bnds"][1, 1] = np.datetime64("2001-03-01")
    assert bounds_offsets(rename(months, ["tp"])) is None
    assert bounds_offsets(field()) is None
    assert bounds_offsets(field().isel(time=0)) is None


def test_times_out_of_order_stay():
    ds = field(name="t2m").isel(time=[2, 0, 1, 1])
    assert rename(ds, ["t2m"])["time"].values.tolist() == ds["time"].values.tolist()


def test_canonical_keeps_the_members_and_the_original():
    ds = field("lat", "lon", LATITUDES[::-1], name="t2m").expand_dims(number=[3, 5])
    canonical = canonicalize(ds, ["t2m"])
    assert canonical.original is ds and canonical.member == "number" and len(canonical.series) == 2
    for index, member in enumerate(canonical.series):
        assert member.identical(canonical.dataset.isel(number=index))
    assert canonicalize(ds.isel(number=0), ["t2m"]).series[0].sizes == {"time": 3, "latitude": 4, "longitude": 8}


def test_levels_in_pascal_without_units_are_recognized_from_all_levels():
    ds = on_levels([1000.0, 50000.0, 85000.0], dim="plev")
    canonical = canonicalize(ds, ["z"], levels=[10])
    assert canonical.dataset["level"].values.tolist() == [10]
    assert canonical.restore(canonical.dataset)["plev"].values.tolist() == [1000]
