import numpy as np
import pytest
import xarray as xr

from simvp_climate.grid import closes_longitude, latitude_weights


def axis(values, name="latitude"):
    return xr.DataArray(np.asarray(values, dtype=float), dims=name, coords={name: np.asarray(values)}, name=name)


def pole_free(count):
    return axis(-90 + (np.arange(count) + 0.5) * 180 / count)


def test_a_grid_without_poles_has_the_cosine():
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


def test_one_row_weighs_one():
    assert latitude_weights(axis([51.5])).values.tolist() == [1.0]


def test_the_latitude_of_a_dataset_is_found():
    for attrs, name in (({}, "lat"), ({}, "latitude"), ({"units": "degrees_north"}, "y")):
        ds = xr.Dataset({"t": ((name, "x"), np.zeros((4, 2)))}, {name: (name, pole_free(4).values, attrs)})
        np.testing.assert_array_equal(latitude_weights(ds), latitude_weights(pole_free(4)))
        np.testing.assert_array_equal(latitude_weights(ds.t), latitude_weights(pole_free(4)))
        assert latitude_weights(ds).dims == (name,)


def test_float32_noise_at_the_pole_is_no_error():
    latitude = axis(np.linspace(-90, 90, 5))
    noisy = axis(np.nextafter(latitude.values.astype(np.float32), np.float32(200)))
    np.testing.assert_allclose(latitude_weights(noisy), latitude_weights(latitude), rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 10, 5], "strictly"),
        ([0, 10, 10], "strictly"),
        ([80, 90, 100], "-90 to 90"),
        ([0, np.nan], "not finite"),
        ([], "empty"),
    ],
)
def test_latitudes_that_are_none_are_refused(values, message):
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
