"""Any mix of conventions gives the same canonical values, and `restore` returns the original exactly."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from simvp_climate.data.conventions import canonicalize, rename
from simvp_climate.data.grid import find_axes

forty_examples = settings(derandomize=True, deadline=None, max_examples=40)

# values that float32 represents exactly
LATITUDES = {
    "global": np.arange(-78.75, 90, 22.5),
    "with poles": np.linspace(-90, 90, 9),
    "north": np.arange(20.0, 60, 5),
}
LONGITUDES = {
    "global": np.arange(0, 360, 22.5),
    "one sided": np.arange(30.0, 70, 5),
    "Greenwich": np.arange(340.0, 381, 5),  # to 20 degrees east
    "date line": np.arange(150.0, 211, 7.5),
}
LEVELS = np.array([500.0, 850, 1000])


@dataclass(frozen=True)
class Convention:
    """The choices of a Dataset about names, units, order and calendar."""

    latitudes: str
    longitudes: str
    south_to_north: bool
    start: int  # index of the first longitude; 0 for a region
    lowest: int  # longitudes lie in lowest..lowest + 360
    west_to_east: bool
    names: tuple[str, str, str, str]  # time, latitude, longitude, level
    by_attributes: bool  # only attributes identify the axes
    order: tuple[int, ...]
    in_pascal: bool
    level_order: tuple[int, ...]
    calendar: str
    precision: str


@st.composite
def conventions(draw):
    longitudes = draw(st.sampled_from(sorted(LONGITUDES)))
    by_attributes = draw(st.booleans())
    names = ("when", "rows", "columns", "pressure") if by_attributes else (
        draw(st.sampled_from(["time", "valid_time"])),
        *draw(st.sampled_from([("lat", "lon"), ("latitude", "longitude"), ("Latitude", "Longitude")])),
        draw(st.sampled_from(["level", "plev", "pressure_level", "isobaricInhPa"])),
    )  # fmt: skip
    return Convention(
        latitudes=draw(st.sampled_from(sorted(LATITUDES))),
        longitudes=longitudes,
        south_to_north=draw(st.booleans()),
        start=draw(st.integers(0, 15)) if longitudes == "global" else 0,
        lowest=draw(st.sampled_from([0, -180, -360])),
        west_to_east=draw(st.booleans()),
        names=names,
        by_attributes=by_attributes,
        order=tuple(draw(st.permutations(range(4)))),
        in_pascal=draw(st.booleans()),
        level_order=tuple(draw(st.permutations(range(3)))),
        calendar=draw(st.sampled_from(["standard", "noleap", "360_day"])),
        precision=draw(st.sampled_from(["f4", "f8"])),
    )


def numbers(latitudes, longitudes):
    """Return a field (time, level, latitude, longitude) of unique numbers."""
    shape = (2, 3, len(LATITUDES[latitudes]), len(LONGITUDES[longitudes]))
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


def in_convention(c: Convention) -> xr.Dataset:
    """Return the field in a convention."""
    values, longitude = numbers(c.latitudes, c.longitudes), LONGITUDES[c.longitudes]
    rows = slice(None) if c.south_to_north else slice(None, None, -1)
    columns = np.roll(np.arange(len(longitude)), -c.start)
    columns = columns if c.west_to_east else columns[::-1]
    levels = list(c.level_order)
    values = values[:, levels][:, :, rows][..., columns]
    lon = (longitude[columns] - c.lowest) % 360 + c.lowest
    time, lat_name, lon_name, level = c.names
    coords = {
        time: xr.date_range(
            "2000-02-28", periods=2, freq="6h", calendar=c.calendar, use_cftime=c.calendar != "standard"
        ),
        lat_name: LATITUDES[c.latitudes][rows].astype(c.precision),
        lon_name: lon.astype(c.precision),
        level: LEVELS[levels] * (100 if c.in_pascal else 1),
    }
    ds = xr.Dataset({"t": ((time, level, lat_name, lon_name), values)}, coords)
    ds[level].attrs["units"] = "Pa" if c.in_pascal else "hPa"
    if c.by_attributes:
        ds[lat_name].attrs["standard_name"] = "latitude"
        ds[lon_name].attrs["units"] = "degrees_east"
        ds[level].attrs["standard_name"] = "air_pressure"
        ds[time].attrs["standard_name"] = "time"
    ds["t"].attrs = {"units": "K", "note": "kept"}
    return ds.transpose(*(ds["t"].dims[i] for i in c.order))


DIMS = ("time", "level", "latitude", "longitude")


@forty_examples
@given(conventions())
def test_all_conventions_give_the_same_canonical_dataset(c):
    oriented = canonicalize(in_convention(c), ["temperature"], levels=LEVELS).dataset
    np.testing.assert_array_equal(oriented["temperature"].transpose(*DIMS), numbers(c.latitudes, c.longitudes))
    np.testing.assert_array_equal(oriented["latitude"], LATITUDES[c.latitudes])
    np.testing.assert_array_equal(oriented["longitude"], LONGITUDES[c.longitudes])
    np.testing.assert_array_equal(oriented["level"], LEVELS)


@forty_examples
@given(conventions())
def test_rename_changes_only_names(c):
    ds = in_convention(c)
    renamed = rename(ds, ["t"])
    back = renamed.rename(dict(zip(("time", "latitude", "longitude", "level"), c.names, strict=True)))
    assert back.identical(ds)


@forty_examples
@given(conventions())
def test_restore_returns_the_original_bit_for_bit(c):
    ds = in_convention(c)
    back = canonicalize(ds).restore(canonicalize(ds, ["t"]).dataset)
    time, latitude, longitude, level = c.names
    expected = ds.transpose(time, level, latitude, longitude)
    assert back.identical(expected)
    for name in c.names:
        assert back[name].dtype == ds[name].dtype
        assert back[name].values.tobytes() == ds[name].values.tobytes()
    assert (back - ds).sizes == ds.sizes  # the labels align


@forty_examples
@given(conventions(), st.sampled_from([500, 850, 1000]))
def test_a_level_in_the_name_is_that_level(c, level):
    variable = canonicalize(in_convention(c), [f"t{level}"]).dataset[f"t{level}"]
    expected = numbers(c.latitudes, c.longitudes)[:, [500, 850, 1000].index(level)]
    np.testing.assert_array_equal(variable.transpose("time", "latitude", "longitude"), expected)
    assert "level" not in variable.coords


@forty_examples
@given(conventions())
def test_renaming_twice_changes_nothing(c):
    """The axes of renamed data are recognized."""
    renamed = rename(in_convention(c), ["t"])
    axes = find_axes(renamed)
    assert (axes.time, axes.latitude, axes.longitude, axes.level) == ("time", "latitude", "longitude", "level")
    assert rename(renamed, ["t"]).identical(renamed)


@forty_examples
@given(conventions(), st.randoms(use_true_random=False))
def test_noise_in_the_last_digits_does_not_change_the_order(c, random):
    """Noise as of longitudes from radians or in float32: values keep their cells, and labels return unchanged."""
    ds = in_convention(c)
    _, latitude, longitude, _ = c.names
    noisy = {}
    for name in (latitude, longitude):
        noise = np.array([random.uniform(-1e-6, 1e-6) for _ in range(ds.sizes[name])])
        noisy[name] = (name, ds[name].values.astype("f8") + noise, ds[name].attrs)
    noisy[latitude] = (latitude, np.clip(noisy[latitude][1], -90, 90), ds[latitude].attrs)
    ds = ds.assign_coords(noisy)
    oriented = canonicalize(ds, ["t"], levels=LEVELS).dataset
    np.testing.assert_array_equal(oriented["t"].transpose(*DIMS), numbers(c.latitudes, c.longitudes))
    back = canonicalize(ds).restore(oriented)
    for name in (latitude, longitude):
        assert back[name].values.tobytes() == ds[name].values.tobytes()
