import re

import numpy as np
import pytest
import xarray as xr

from simvp_climate.data.grid import closes_longitude, find_axes, latitude_weights, reaches_poles
from simvp_climate.data.regridding import regrid


def axis(values, name="latitude"):
    return xr.DataArray(np.asarray(values, dtype=float), dims=name, coords={name: np.asarray(values)}, name=name)


def pole_free(count):
    return axis(-90 + (np.arange(count) + 0.5) * 180 / count)


def test_weights_of_a_grid_without_pole_rows_are_the_cosine():
    latitude = pole_free(32)
    cosine = np.cos(np.deg2rad(latitude.values))
    np.testing.assert_allclose(latitude_weights(latitude), cosine / cosine.mean(), rtol=1e-13)
    # worked by hand: 32 / 2 * (sin(-84.375) - sin(-90)), and so on
    np.testing.assert_allclose(
        latitude_weights(latitude)[:4], [0.07704437, 0.23039114, 0.38151911, 0.52897285], atol=5e-9
    )


def test_a_row_at_the_pole_is_half_a_cell():
    weights = latitude_weights(axis(np.linspace(-90, 90, 121)))
    assert weights.values[0] / weights.values[1] == pytest.approx(0.12502, abs=5e-6)
    assert weights.values[0] == pytest.approx(0.00518, abs=5e-6)


@pytest.mark.parametrize("degrees", [np.linspace(-90, 90, 121), pole_free(64).values], ids=["poles", "pole-free"])
def test_weights_integrate_over_the_sphere(degrees):
    latitude = axis(degrees)
    weights = latitude_weights(latitude)
    radians = np.deg2rad(latitude)
    # the mean over the sphere of 1, sin, sin^2 and cos^2 of latitude
    assert float(weights.mean()) == pytest.approx(1, abs=1e-15)
    assert float((weights * np.sin(radians)).mean()) == pytest.approx(0, abs=1e-15)
    assert float((weights * np.sin(radians) ** 2).mean()) == pytest.approx(1 / 3, rel=2e-3)
    assert float((weights * np.cos(radians) ** 2).mean()) == pytest.approx(2 / 3, rel=2e-3)


def test_the_edge_rows_of_a_region_are_ordinary_cells():
    latitude = axis(np.arange(20, 61, 5))
    cosine = np.cos(np.deg2rad(latitude.values))
    np.testing.assert_allclose(latitude_weights(latitude), cosine / cosine.mean(), rtol=1e-13)


def test_uneven_rows_share_the_area_at_their_midpoints():
    # by hand: the edges are -15, 15, 60 and 90, where 120 is cut
    expected = np.array([np.sin(np.deg2rad(15)) * 2, np.sqrt(3) / 2 - np.sin(np.deg2rad(15)), 1 - np.sqrt(3) / 2])
    np.testing.assert_allclose(latitude_weights(axis([0, 30, 90])), expected / expected.mean(), rtol=1e-14)


def test_descending_rows_give_the_reversed_weights_with_their_coordinate():
    up = axis(np.linspace(-90, 90, 19))
    down = latitude_weights(up[::-1])
    np.testing.assert_array_equal(down.values, latitude_weights(up).values[::-1])
    xr.testing.assert_identical(down.latitude.drop_attrs(), up.latitude[::-1].drop_attrs())
    assert down.dims == ("latitude",)


def test_a_single_row_has_weight_1():
    assert latitude_weights(axis([51.5])).values.tolist() == [1.0]


def test_the_latitude_of_a_dataset_is_found():
    for attrs, name in (({}, "lat"), ({}, "latitude"), ({"units": "degrees_north"}, "y")):
        ds = xr.Dataset({"t": ((name, "x"), np.zeros((4, 2)))}, {name: (name, pole_free(4).values, attrs)})
        np.testing.assert_array_equal(latitude_weights(ds), latitude_weights(pole_free(4)))
        np.testing.assert_array_equal(latitude_weights(ds.t), latitude_weights(pole_free(4)))
        assert latitude_weights(ds).dims == (name,)


def test_float32_noise_at_the_pole_is_accepted():
    latitude = axis(np.linspace(-90, 90, 5))
    noisy = axis(np.nextafter(latitude.values.astype(np.float32), np.float32(200)))
    np.testing.assert_allclose(latitude_weights(noisy), latitude_weights(latitude), rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 10, 5], "strictly"),
        ([0, 10, 10], "strictly"),
        ([80, 90, 100], "-90..90.*100"),
        ([0, np.nan], "nan"),
        ([], "empty"),
    ],
)
def test_invalid_latitudes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        latitude_weights(axis(values))


def test_a_dataset_without_latitude_is_refused():
    with pytest.raises(ValueError, match="found 0"):
        latitude_weights(xr.Dataset({"t": ("x", [1.0])}, {"x": [0.0]}))


@pytest.mark.parametrize(
    ("longitude", "closes"),
    [
        (np.arange(64) * 5.625, True),
        (np.rad2deg(np.linspace(0, 2 * np.pi, 240, endpoint=False)), True),
        (np.arange(-180, 180, 2.5), True),
        (np.roll(np.arange(0, 360, 2.5), 17), True),
        (np.arange(360)[::-1], True),
        (np.arange(0, 360, 0.25, dtype=np.float32) - np.float32(1e-5), True),
        (np.arange(0, 361, 5), False),  # 0 and 360 are one meridian
        (np.arange(0, 355, 5), False),
        (np.arange(20, 61, 5), False),
        ([0, 90, 170, 270], False),
        ([0], False),
        ([0, 180], True),
    ],
)
def test_closes_longitude(longitude, closes):
    assert closes_longitude(np.asarray(longitude)) is closes
    assert closes_longitude(xr.DataArray(np.asarray(longitude), dims="x")) is closes


def with_poles(rows):
    return np.linspace(-90, 90, rows)


def without(rows):
    return pole_free(rows).values


def globe(latitude, columns, values=None, first=0.0, dtype=float):
    """Return a field `t` of noise on a global grid."""
    shape = (len(latitude), columns)
    values = np.random.default_rng(0).normal(size=shape) if values is None else np.broadcast_to(values, shape)
    longitude = first + np.arange(columns) * 360 / columns
    return xr.Dataset(
        {"t": (("latitude", "longitude"), values.astype(dtype))}, {"latitude": latitude, "longitude": longitude}
    )


def grid_of(latitude, longitude):
    return xr.Dataset(coords={"latitude": np.asarray(latitude, float), "longitude": np.asarray(longitude, float)})


def area_mean(ds):
    return float((ds.t * latitude_weights(ds)).mean())


def brute_force(ds, target, step):
    """Cut the globe into small cells, give each the value of the old cell around it, and average by area."""
    south = np.arange(-90, 90, step)
    area = np.sin(np.deg2rad(south + step)) - np.sin(np.deg2rad(south))
    latitude, longitude = south + step / 2, np.arange(0, 360, step) + step / 2

    def nearest(values, axis, period):
        distance = np.abs(values[:, None] - axis)
        return np.minimum(distance, period - distance).argmin(1) if period else distance.argmin(1)

    rows, columns = nearest(latitude, ds.latitude.values, None), nearest(longitude, ds.longitude.values % 360, 360)
    fine = ds.t.values[rows][:, columns]
    new_rows = nearest(latitude, target.latitude.values, None)
    new_columns = nearest(longitude, target.longitude.values % 360, 360)
    total = np.zeros((target.sizes["latitude"], target.sizes["longitude"]))
    weight = np.zeros_like(total)
    np.add.at(total, (new_rows[:, None], new_columns), fine * area[:, None])
    np.add.at(weight, (new_rows[:, None], new_columns), np.broadcast_to(area[:, None], fine.shape))
    return total / weight


def test_regrid_by_hand():
    # rows of 45 degrees: their areas are 1 - sin(45) at the poles and sin(45) at the equator
    field = np.arange(16.0).reshape(4, 4)
    result = regrid(globe(without(4), 4, field, first=45), globe(without(2), 2, 0, first=90))
    polar, inner = 1 - np.sqrt(0.5), np.sqrt(0.5)
    expected = [
        [polar * (0 + 1) / 2 + inner * (4 + 5) / 2, polar * (2 + 3) / 2 + inner * (6 + 7) / 2],
        [inner * (8 + 9) / 2 + polar * (12 + 13) / 2, inner * (10 + 11) / 2 + polar * (14 + 15) / 2],
    ]
    np.testing.assert_allclose(result.t, expected, rtol=1e-14)


def test_a_cell_across_the_seam_draws_from_both_sides():
    # columns at 0, 90, 180, 270 to columns at 0 and 180: half of 270, all of 0, half of 90
    result = regrid(globe(without(2), 4, [1.0, 2, 4, 8]), globe(without(2), 2, 0))
    np.testing.assert_allclose(result.t, [[(8 / 2 + 1 + 2 / 2) / 2, (2 / 2 + 4 + 8 / 2) / 2]] * 2)


PAIRS = [
    pytest.param(with_poles(73), 144, "5.625deg", id="poles to pole-free"),
    pytest.param(without(64), 128, "5.625deg", id="pole-free to pole-free"),
    pytest.param(with_poles(181)[::-1], 360, "1.5deg", id="poles to poles"),
    pytest.param(without(180), 360, "1.5deg", id="pole-free to poles"),
    pytest.param(with_poles(121), 240, "2.8125deg", id="no common edges"),
]


@pytest.mark.parametrize(("latitude", "columns", "grid"), PAIRS)
@pytest.mark.parametrize("first", [0, -180, 1.25])
def test_regridding_keeps_the_area_mean_and_a_constant(latitude, columns, grid, first):
    ds = globe(latitude, columns, first=first)
    assert area_mean(regrid(ds, grid)) == pytest.approx(area_mean(ds), abs=1e-15)
    np.testing.assert_allclose(regrid(globe(latitude, columns, 287.5, first), grid, min_valid=1).t, 287.5, rtol=1e-13)
    single = globe(latitude, columns, first=first, dtype=np.float32) + np.float32(280)
    assert area_mean(regrid(single, grid)) == pytest.approx(area_mean(single), rel=1e-6)
    constant = globe(latitude, columns, 287.5, first, "f4")
    np.testing.assert_allclose(regrid(constant, grid, min_valid=1).t, 287.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("latitude", "columns", "grid", "step"),
    [(with_poles(37), 72, globe(without(16), 32, 0), 0.625), (without(36), 72, globe(with_poles(13), 24, 0), 0.5)],
)
def test_regrid_equals_brute_force(latitude, columns, grid, step):
    # the steps divide all edges: 5 and 11.25, 5 and 15 degrees, with and without half a cell
    ds = globe(latitude, columns)
    np.testing.assert_allclose(regrid(ds, grid).t, brute_force(ds, grid, step), rtol=0, atol=1e-12)


def test_values_do_not_depend_on_the_convention():
    ds = globe(with_poles(37), 72)
    expected = regrid(ds, globe(without(16), 32, 0)).t.values
    reordered = ds.isel(latitude=slice(None, None, -1)).roll(longitude=31, roll_coords=True)
    reordered = reordered.assign_coords(longitude=(reordered.longitude + 180) % 360 - 180).transpose()
    reordered = reordered.rename(latitude="Y", longitude="X")
    reordered.Y.attrs["units"], reordered.X.attrs["standard_name"] = "degrees_north", "longitude"
    result = regrid(reordered, globe(without(16), 32, 0).rename(latitude="lat", longitude="lon"))
    assert result.t.dims == ("X", "Y") and set(result.coords) == {"X", "Y"}
    assert result.Y.attrs == {"units": "degrees_north"} and result.X.attrs == {"standard_name": "longitude"}
    np.testing.assert_allclose(result.t.values.T, expected, atol=1e-14)


def test_the_target_may_have_any_order_and_range():
    ds = globe(with_poles(37), 72)
    straight, turned = (
        grid_of(without(16), np.arange(32) * 11.25),
        grid_of(without(16)[::-1], np.arange(32) * 11.25 - 180),
    )
    result = regrid(ds, turned)
    np.testing.assert_array_equal(result.latitude, turned.latitude)
    np.testing.assert_array_equal(result.longitude, turned.longitude)
    expected = np.roll(regrid(ds, straight).t.values[::-1], 16, axis=1)
    np.testing.assert_allclose(result.t, expected, atol=1e-14)


def test_the_same_grid_gives_the_same_values():
    for ds in (globe(with_poles(13), 24), globe(without(12), 24, first=-180)):
        np.testing.assert_allclose(regrid(ds, ds).t, ds.t, rtol=1e-13)


@pytest.mark.parametrize(("min_valid", "expected"), [(0, [1, 1, 1]), (0.5, [1, 1, np.nan]), (0.9, [1, np.nan, np.nan])])
def test_missing_values_are_left_out(min_valid, expected):
    nan = np.nan
    # two old columns to a new one: all, half, and half of one of two rows valid
    values = np.array(
        [[1, 1, 1, nan, nan, nan], [1, 1, 1, nan, 1, nan], [1, 1, 1, nan, nan, nan], [1, 1, 1, nan, 1, nan]]
    )
    for dtype in ("f4", "f8"):
        ds = globe(without(4), 6, values, first=30, dtype=dtype)
        result = regrid(ds, globe(without(2), 3, 0, first=60), min_valid=min_valid).t
        assert result.dtype == dtype
        np.testing.assert_allclose(result, [expected] * 2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("rows", range(6, 103, 6))
def test_half_a_cell_is_enough_despite_rounding(rows, dtype):
    # the middle row of three reaches as far south as north
    ds = globe(without(rows), 14, np.where(without(rows) < 0, 1, np.nan)[:, None], dtype=dtype)
    result = regrid(ds, globe(without(3), 7, 0)).t
    np.testing.assert_allclose(result, np.array([[1], [1], [np.nan]]) * np.ones(7), rtol=1e-6)


def test_a_cell_with_missing_values_has_the_mean_of_the_others():
    values = np.arange(1.0, 17).reshape(4, 4)
    values[0, 0] = np.nan
    result = regrid(globe(without(4), 4, values, first=45), globe(without(2), 2, 0, first=90)).t
    polar, inner = 1 - np.sqrt(0.5), np.sqrt(0.5)
    assert float(result[0, 0]) == pytest.approx((polar * 2 + inner * (5 + 6)) / (polar + 2 * inner))
    assert float(result[0, 1]) == pytest.approx((polar * (3 + 4) + inner * (7 + 8)) / 2)
    assert result.notnull().all()


def test_what_regridding_keeps_and_drops():
    ds = globe(without(8), 16).expand_dims(time=3, number=2).astype("f4")
    ds = ds.assign_attrs(title="x").assign_coords(season=("time", list("abc")), step=6, unused=("n", [1]))
    ds["t"].attrs = {"units": "K", "GRIB_paramId": 130, "GRIB_Nx": 16, "GRIB_jDirectionIncrementInDegrees": 22.5}
    ds["zonal"] = ("time", "latitude"), np.ones((3, 8))
    ds["land"] = ("latitude", "longitude"), np.arange(16) < np.arange(8)[:, None]
    ds["lat_bnds"] = ("latitude", "nv"), np.zeros((8, 2))
    ds["scalar"] = 5
    ds = ds.assign_coords(area=("latitude", np.ones(8)))
    ds["latitude"].attrs = {"units": "degrees_north", "bounds": "lat_bnds", "actual_range": [-78, 78]}
    result = regrid(ds, globe(without(4), 8, 0))
    assert list(result.data_vars) == ["t", "zonal", "land", "scalar"]
    assert set(result.coords) == {"season", "step", "unused", "latitude", "longitude"}
    assert result.t.dims == ("time", "number", "latitude", "longitude") == ds.t.dims
    assert (
        result.t.dtype == "f4"
        and result.t.attrs == {"units": "K", "GRIB_paramId": 130}
        and result.attrs == {"title": "x"}
    )
    assert result.latitude.attrs == {"units": "degrees_north"}
    np.testing.assert_allclose(result.zonal, np.ones((3, 4)))
    assert result.zonal.dims == ("time", "latitude")
    # columns at 0, 45, .. from 0, 22.5, ..: a half, a whole and a half; row 6 is land west of column 6, row 7 of 7
    polar, inner = (np.sin(np.deg2rad(b)) - np.sin(np.deg2rad(a)) for a, b in ((67.5, 90), (45, 67.5)))
    assert float(result.land[3, 3]) == pytest.approx((polar * 0.75 + inner * 0.25) / (polar + inner))
    xr.testing.assert_identical(result.season.variable, ds.season.variable)


def test_dask_stays_lazy_and_keeps_its_chunks():
    ds = globe(with_poles(37), 72).expand_dims(time=10) * xr.DataArray(np.arange(10.0), dims="time")
    lazy = regrid(ds.chunk(time=3), globe(without(16), 32, 0))
    assert lazy.t.chunks == ((3, 3, 3, 1), (16,), (32,))
    xr.testing.assert_allclose(lazy.compute(), regrid(ds, globe(without(16), 32, 0)), rtol=1e-13)
    cut = regrid(ds.chunk(time=5, latitude=10, longitude=30), globe(without(16), 32, 0))
    assert cut.t.chunks[0] == (5, 5)
    xr.testing.assert_allclose(cut.compute(), lazy.compute(), rtol=1e-13)


@pytest.mark.parametrize("first", [0, -180])
def test_a_region_inside_the_dataset(first):
    ds = globe(with_poles(37), 72, first=first)
    whole = regrid(ds, globe(without(16), 32, 0)).t
    region = grid_of(without(16)[9:13], [-22.5, -11.25, 0, 11.25])  # across Greenwich
    np.testing.assert_allclose(regrid(ds, region).t, whole[9:13, [30, 31, 0, 1]], atol=1e-14)
    turned = grid_of(without(16)[9:13], [337.5, 348.75, 0, 11.25])
    np.testing.assert_array_equal(regrid(ds, turned).t, regrid(ds, region).t)


def test_a_regional_dataset_across_the_seam():
    ds = globe(with_poles(37), 72)
    europe = ds.sel(latitude=slice(20, 70)).isel(longitude=[66, 67, 68, 69, 70, 71, 0, 1, 2, 3, 4, 5])  # 330 .. 25
    within = grid_of([28.125, 39.375, 50.625], [345, 0, 15])
    np.testing.assert_allclose(regrid(europe, within).t, regrid(ds, within).t, atol=1e-14)
    with pytest.raises(ValueError, match="longitude 322.5 to 382.5, .* 327.5 to 387.5"):
        regrid(europe, grid_of([28.125, 39.375], [330, 345, 0, 15]))
    with pytest.raises(ValueError, match="latitude 16.875 to 39.375, .* 17.5 to 72.5"):
        regrid(europe, grid_of([22.5, 33.75], [345, 0, 15]))
    with pytest.raises(ValueError, match="latitude -90 to 90"):
        regrid(europe, "5.625deg")


def test_a_target_that_goes_nearly_round_begins_anywhere():
    ds = globe(without(4), 8)
    longitude = np.arange(72) * 5 + 2.5
    with pytest.warns(UserWarning, match="finer"):
        whole = regrid(ds, grid_of(without(4), longitude)).t
        for left_out in range(72):
            others = np.delete(longitude, left_out)
            np.testing.assert_allclose(
                regrid(ds, grid_of(without(4), others)).t, whole.sel(longitude=others), rtol=1e-13
            )


def test_the_outer_rows_of_a_gaussian_grid_reach_to_the_poles():
    # T21: the outermost row at 85.76, an ordinary cell would end at 88.53
    latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
    ds = globe(latitude, 64, np.arange(32.0)[:, None])
    result = regrid(ds, globe(without(16), 32, 0)).t
    edge = (latitude[30] + latitude[31]) / 2
    assert edge > 78.75
    inner = np.sin(np.deg2rad(edge)) - np.sin(np.deg2rad(78.75))
    polar = 1 - np.sin(np.deg2rad(edge))
    np.testing.assert_allclose(result[-1], (31 * polar + 30 * inner) / (polar + inner), rtol=1e-12)


def test_a_finer_grid_gives_blocks_of_equal_values_and_a_warning():
    ds = globe(without(4), 8, first=22.5)
    with pytest.warns(UserWarning, match=r"finer than the dataset \(22.5 against 45 degrees of latitude\)") as record:
        result = regrid(ds, globe(without(8), 16, 0, first=11.25))
    assert len(record) == 1 and record[0].filename == __file__
    np.testing.assert_allclose(result.t, np.repeat(np.repeat(ds.t, 2, 0), 2, 1), rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "latitude", "longitude"),
    [
        ("5.625deg", (32, -87.1875, 87.1875), (64, 354.375)),
        ("2.8125deg", (64, -88.59375, 88.59375), (128, 357.1875)),
        ("64x32_equiangular_conservative", (32, -87.1875, 87.1875), (64, 354.375)),
        ("2.5deg", (73, -90, 90), (144, 357.5)),
        ("1.5deg", (121, -90, 90), (240, 358.5)),
        ("240x121_equiangular_with_poles_conservative", (121, -90, 90), (240, 358.5)),
        ("360x181_equiangular_with_poles_conservative", (181, -90, 90), (360, 359)),
    ],
)
def test_the_grids_of_weatherbench(name, latitude, longitude):
    result = regrid(globe(without(400), 400, 1.0), name)
    assert (result.sizes["latitude"], *result.latitude.values[[0, -1]]) == latitude
    assert (result.sizes["longitude"], result.longitude.values[-1]) == longitude and result.longitude[0] == 0


@pytest.mark.parametrize("name", ["0.25deg", "1440x721"])
def test_a_quarter_degree_has_poles_and_descends(name):
    region = globe(without(4), 8, 1.0, first=22.5)
    with pytest.warns(UserWarning, match="finer"):
        result = regrid(region, name)
    assert result.latitude.values[[0, 1, -1]].tolist() == [90, 89.75, -90]
    assert result.longitude.values[[0, 1, -1]].tolist() == [0, 0.25, 359.75]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("5.625", "Did you mean '5.625deg'"),
        ("2deg", "grid='2deg' must be a known.*2.5deg, 1.5deg"),
        ("32x64", "'32x64'.*Did you mean"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        regrid(globe(without(4), 8), name)


def curvilinear():
    two = (("y", "x"), np.zeros((3, 4)))
    return xr.Dataset({"t": two}, {"lat": two, "lon": two})


def unstructured():
    return xr.Dataset({"t": ("cell", [1.0, 2])}, {"lat": ("cell", [1.0, 2]), "lon": ("cell", [1.0, 2])})


def healpix(size=48, dim="cell", **attrs):
    return xr.Dataset({"t": (dim, np.zeros(size)), "crs": ((), 0, attrs)})


@pytest.mark.parametrize(
    ("dataset", "refused"),
    [
        (healpix(grid_mapping_name="healpix", healpix_nside=2), True),
        (healpix(47, "values", GRIB_gridType="healpix"), True),  # a part of the globe
        (healpix(196608), True),  # by its size alone, nside 128
        (healpix(192, "time"), False),
        (healpix(108), False),  # 12 * 3**2
        (healpix(100, title="not from HEALPix"), False),
    ],
)
def test_healpix_grids_are_refused_with_tools_to_regrid_them(dataset, refused):
    pattern = "cells of dimension .* look like a HEALPix grid.*Regrid to a regular latitude-longitude grid first"
    for call in (lambda: regrid(dataset, "5.625deg"), lambda: find_axes(dataset)):
        with pytest.raises(ValueError, match="no latitude found") as caught:
            call()
        assert bool(re.search(pattern, str(caught.value))) == refused


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (curvilinear(), r"the dataset .*'lat' has the dimensions \('y', 'x'\): a curvilinear .*xESMF"),
        (unstructured(), "share the dimension 'cell': an unstructured .*xESMF"),
        (globe(without(4), 8).isel(latitude=0), "the dataset .*'latitude' is a single value"),
        (globe(without(4), 8).isel(latitude=[0]), "the dataset has 1 latitudes, .*at least 2"),
        (globe(without(4), 8).drop_vars("latitude"), "no latitude found"),
        (globe(without(4), 8).isel(longitude=[*range(8), 0]), "twice, 0 and 0"),
        (globe(without(4), 8).isel(latitude=[0, 2, 1]), "decrease strictly"),
        (globe(without(4), 8).astype(str), "'t' holds <U.*ds.drop_vars\\('t'\\)"),
        (globe(without(4), 8).t.assign_attrs(flag_values=[1, 2]).to_dataset(), "'t' holds classes"),
        (globe(without(4), 8).t, "DataArray.*to_dataset"),
    ],
)
def test_datasets_that_cannot_be_regridded(dataset, message):
    with pytest.raises(ValueError, match=message):
        regrid(dataset, globe(without(2), 4, 0))


def test_the_target_is_checked_too():
    with pytest.raises(ValueError, match="the target grid .*'lat' has the dimensions"):
        regrid(globe(without(4), 8), curvilinear())
    with pytest.raises(ValueError, match="the target grid has 1 longitudes"):
        regrid(globe(without(4), 8), grid_of([0, 10], [5]))
    for none in (3, None, globe(without(2), 4).t):
        with pytest.raises(ValueError, match="must be a known name or a Dataset.*5.625deg, "):
            regrid(globe(without(4), 8), none)
    with pytest.raises(ValueError, match="min_valid=50"):
        regrid(globe(without(4), 8), globe(without(2), 4, 0), min_valid=50)


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (np.linspace(-90, 90, 9), "rows"),
        (np.linspace(90, -90, 181), "rows"),
        (np.arange(-87.1875, 90, 5.625), "between"),
        ([-85.76, -80.27, -74.74, 74.74, 80.27, 85.76], "between"),  # a Gaussian grid's ends
        (np.arange(-80, 81, 5), "no"),
        (np.linspace(0, 90, 10), "no"),
        ([45.0], "no"),
        ([], "no"),
    ],
)
def test_how_rows_reach_the_poles(degrees, expected):
    assert reaches_poles(np.asarray(degrees, dtype=float)) == expected
