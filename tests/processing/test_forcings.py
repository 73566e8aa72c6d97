import numpy as np
import pandas as pd
import pytest
import xarray as xr

from simvp_climate.processing.forcings import (
    COORDINATE_CHANNELS,
    FORCINGS,
    coordinate_fields,
    longitude_harmonics,
    varying_channels,
)

HOUR, DAY, MONTH = pd.Timedelta("1h"), pd.Timedelta("1D"), 1
SOLAR_CONSTANT = 1361  # W m-2
GLOBE = np.arange(-89.5, 90)


def evaluate_fields(names, times, latitude, longitude, step=HOUR):
    """Return the fields of the harmonics, (time, channel, latitude, longitude)."""
    radians = np.deg2rad(np.asarray(longitude, float))
    basis = np.stack([np.ones_like(radians), np.cos(radians), np.sin(radians)])
    values = longitude_harmonics(names, times, np.asarray(latitude, float), step).astype(float) @ basis
    clipped = [name == "insolation" for name in varying_channels(names)]
    values[:, clipped] = np.maximum(values[:, clipped], 0)
    return values


def times(*texts):
    return pd.DatetimeIndex(texts)


def subsolar(time):
    """Return the latitude and longitude (degrees) of the subsolar point, and the insolation."""
    a, b, c = longitude_harmonics(["insolation"], times(time), [0, 90], HOUR)[0, 0].astype(float).T
    amplitude, constant = np.hypot(b[0], c[0]), a[1]
    latitude, longitude = np.arctan2(constant, amplitude), np.arctan2(c[0], b[0])
    return np.rad2deg(latitude), np.rad2deg(longitude), np.hypot(constant, amplitude)


def test_channels_in_the_order_of_the_names():
    assert varying_channels(["time_of_year", "insolation"]) == ("time_of_year_cos", "time_of_year_sin", "insolation")
    assert varying_channels(FORCINGS)[0] == "insolation" and len(varying_channels(FORCINGS)) == 5
    assert varying_channels(["coordinates", "orography"]) == ()
    values = longitude_harmonics(FORCINGS, times("2001-01-01", "2001-01-02"), GLOBE, HOUR)
    assert values.shape == (2, 5, 180, 3) and values.dtype == np.float32
    assert longitude_harmonics(["coordinates"], times("2001-01-01"), GLOBE, HOUR).shape == (1, 0, 180, 3)


@pytest.mark.parametrize(
    ("time", "declination", "tolerance"),
    [  # from almanacs, UTC
        ("2024-03-20 03:06", 0, 0.003),
        ("2024-06-20 20:51", 23.436, 0.003),
        ("2024-09-22 12:44", 0, 0.003),
        ("2024-12-21 09:21", -23.436, 0.003),
        ("1959-06-22 03:50", 23.44, 0.01),
        ("2044-03-19 23:20", 0, 0.003),  # later than any dataset
    ],
)
def test_declination_at_equinoxes_and_solstices(time, declination, tolerance):
    assert subsolar(time)[0] == pytest.approx(declination, abs=tolerance)


@pytest.mark.parametrize(
    ("time", "minutes", "tolerance"),
    [  # sundial minus clock, from tables: the four extremes, and the dates when it crosses 0
        ("2023-02-11 12:00", -14.22, 0.1),
        ("2023-05-14 12:00", 3.65, 0.1),
        ("2023-07-26 12:00", -6.53, 0.1),
        ("2023-11-03 12:00", 16.42, 0.1),
        ("2023-04-15 12:00", 0, 0.25),
        ("2023-06-13 12:00", 0, 0.25),
        ("2023-09-01 12:00", 0, 0.25),
        ("2023-12-25 12:00", 0, 0.35),
    ],
)
def test_equation_of_time(time, minutes, tolerance):
    clock = pd.Timestamp(time)
    longitude = subsolar(time)[1]
    # without the equation of time, the subsolar longitude is 180 - 15 * hour
    delay = (180 - 15 * (clock.hour + clock.minute / 60) - longitude + 180) % 360 - 180
    assert delay * 4 == pytest.approx(minutes, abs=tolerance)


def test_the_subsolar_point_moves_west_by_15_degrees_an_hour():
    first, second = (subsolar(f"2010-05-05 {hour}:00")[1] for hour in ("06", "07"))
    assert first == pytest.approx(90, abs=2)
    assert second - first == pytest.approx(-15, abs=0.005)


@pytest.mark.parametrize(
    ("time", "distance"),
    [("2023-01-04 16:17", 0.983296), ("2023-07-06 20:07", 1.016681), ("2020-01-05 07:48", 0.983244)],
)
def test_distance_at_perihelion_and_aphelion(time, distance):
    assert subsolar(time)[2] == pytest.approx(distance**-2, rel=2e-4)


def test_mean_over_globe_and_year_is_a_quarter_of_the_solar_constant():
    year = pd.date_range("2001-01-01", periods=1461, freq="6h")
    weights = np.cos(np.deg2rad(GLOBE))
    mean = (longitude_harmonics(["insolation"], year, GLOBE, DAY)[:, 0, :, 0] @ weights).mean() / weights.sum()
    # the elliptic orbit adds a factor 1 / sqrt(1 - 0.0167**2)
    assert mean == pytest.approx(0.25 * 1.00014, rel=1e-4)
    values = evaluate_fields(["insolation"], year[::7], GLOBE, np.arange(0, 360, 4))[:, 0]
    assert (values.mean(-1) @ weights).mean() / weights.sum() == pytest.approx(0.25, rel=2e-3)


def test_daily_means_equal_the_tabulated_ones():
    solstice = times("2001-06-21 12:00")
    north, equator, south = (
        longitude_harmonics(["insolation"], solstice, [90, 0, -90], DAY)[0, 0, :, 0] * SOLAR_CONSTANT
    )
    # sin(23.44) S0 / 1.0163**2, and cos(23.44) S0 / (pi 1.0163**2)
    assert north == pytest.approx(524.2, abs=0.5)
    assert equator == pytest.approx(384.8, abs=0.5)
    assert south == 0
    december = (
        longitude_harmonics(["insolation"], times("2001-12-21 12:00"), [-90, 80], DAY)[0, 0, :, 0] * SOLAR_CONSTANT
    )
    assert december[0] == pytest.approx(559.5, abs=0.5) and december[1] == 0
    # at an equinox S0 cos(latitude) / pi, with the sun on the horizon at both poles
    equinox = longitude_harmonics(["insolation"], times("2001-03-20 13:30"), [-90, 0, 60, 90], DAY)[0, 0, :, 0]
    np.testing.assert_allclose(equinox, np.array([0, 1, 0.5, 0]) / np.pi * 0.9959**-2, atol=2e-4)


@pytest.mark.parametrize("day", ["2001-01-15", "2001-03-21", "2001-06-21", "2001-10-10"])
def test_the_daily_mean_equals_the_mean_over_the_day(day):
    hours = pd.date_range(day, periods=288, freq="5min")
    latitude = [-90, -70, -30, 0, 45, 66, 90]
    mean = evaluate_fields(["insolation"], hours, latitude, [0, 77])[:, 0].mean(0)
    daily = longitude_harmonics(["insolation"], times(f"{day} 12:00"), latitude, DAY)[0, 0]
    assert not daily[:, 1:].any()
    # the declination changes by up to 0.4 degrees per day, which matters at the poles at an equinox
    np.testing.assert_allclose(mean, np.stack([daily[:, 0]] * 2, 1), atol=1e-3)


def test_insolation_is_zero_at_night_and_largest_at_noon():
    values = evaluate_fields(["insolation"], times("2001-03-20 12:00"), [0], [0, 90, 180, 270])[0, 0, 0]
    assert values[0] == pytest.approx(0.9959**-2, rel=1e-3) and values[2] == 0
    # the sun is 7.5 minutes late, above 1.87 E: it has not set at 90 E and not risen at 90 W
    assert values[1] == pytest.approx(np.sin(np.deg2rad(1.87)), abs=2e-3)
    assert values[3] == 0


def test_longitude_range_does_not_matter():
    west = evaluate_fields(["insolation", "time_of_day"], times("2001-05-05 03:00"), [40], [-100.0, 350])
    east = evaluate_fields(["insolation", "time_of_day"], times("2001-05-05 03:00"), [40], [260.0, -10])
    np.testing.assert_allclose(west, east, atol=1e-6)


def test_local_solar_time():
    # local time 0, 6, 12 and 18 hours
    values = evaluate_fields(["time_of_day"], times("2001-07-01 00:00", "2001-07-01 18:00"), [10], [0, 90, 180, 270])[
        :, :, 0
    ]
    np.testing.assert_allclose(values[0], [[1, 0, -1, 0], [0, 1, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(values[1], [[0, 1, 0, -1], [-1, 0, 1, 0]], atol=1e-6)


def test_time_of_year_in_all_calendars():
    # a quarter of the year: 90 days of 360, 91.25 of 365, 91.5 of 366
    quarters = [
        xr.date_range("2001-04-01", periods=1, calendar="360_day", use_cftime=True),
        xr.date_range("2001-04-02 06:00", periods=1, calendar="noleap", use_cftime=True),
        xr.date_range("2004-04-02 06:00", periods=1, calendar="noleap", use_cftime=True),
        times("2001-04-02 06:00"),
        times("2004-04-01 12:00"),
        xr.date_range("2004-04-01 12:00", periods=1, calendar="standard", use_cftime=True),
    ]
    for quarter in quarters:
        values = longitude_harmonics(["time_of_year"], quarter, [0, 50], MONTH)[0]
        np.testing.assert_allclose(values[:, :, 0], [[0, 0], [1, 1]], atol=1e-6)
        assert not values[..., 1:].any()


def test_time_of_year_is_continuous_at_new_year():
    ends = times("2003-12-31 23:59:59", "2004-01-01", "2004-12-31 23:59:59")
    values = longitude_harmonics(["time_of_year"], ends, [0], HOUR)[:, :, 0, 0]
    np.testing.assert_allclose(values, [[1, 0]] * 3, atol=1e-6)


@pytest.mark.parametrize("calendar", ["standard", "gregorian", "proleptic_gregorian"])
def test_cftime_and_pandas_agree_in_real_calendars(calendar):
    pandas = pd.date_range("1950-02-25", periods=40, freq="61h").append(
        pd.date_range("2100-02-25", periods=9, freq="9h")
    )
    cftime = xr.CFTimeIndex(
        [xr.date_range(str(time), periods=1, calendar=calendar, use_cftime=True)[0] for time in pandas]
    )
    np.testing.assert_array_equal(
        longitude_harmonics(FORCINGS[:3], cftime, GLOBE, HOUR), longitude_harmonics(FORCINGS[:3], pandas, GLOBE, HOUR)
    )


@pytest.mark.parametrize(
    ("calendar", "solstice"),
    [("noleap", "06-21 18:00"), ("360_day", "06-20 12:00"), ("all_leap", "06-21"), ("julian", "06-21")],
)
@pytest.mark.parametrize("year", [850, 1999, 2000, 2300])
def test_model_calendars_have_the_same_sun_every_year(calendar, solstice, year):
    time = xr.date_range(f"{year:04}-{solstice}", periods=1, calendar=calendar, use_cftime=True)
    pole = longitude_harmonics(["insolation"], time, [90], DAY)[0, 0, 0, 0]
    assert pole * SOLAR_CONSTANT == pytest.approx(524.2, abs=1)


def test_the_equinox_in_model_calendars():
    for calendar, day in (("noleap", "2001-03-21 06:00"), ("360_day", "2001-03-19 06:00")):
        time = xr.date_range(day, periods=1, calendar=calendar, use_cftime=True)
        declination = np.rad2deg(np.arcsin(longitude_harmonics(["insolation"], time, [90], HOUR)[0, 0, 0, 0]))
        assert declination == pytest.approx(0, abs=0.1)


def test_distant_times_do_not_overflow():
    distant = pd.DatetimeIndex(np.array(["1680-06-21", "2260-06-21", "9000-06-21"], "datetime64[s]"))
    pole = longitude_harmonics(["insolation"], distant, [90], DAY)[:, 0, 0, 0] * SOLAR_CONSTANT
    np.testing.assert_allclose(pole[:2], 524, atol=8)
    assert np.isfinite(pole).all()


@pytest.mark.parametrize(("step", "length"), [(MONTH, "1 month"), (DAY, "1 day"), (5 * DAY, "5 days")])
def test_time_of_day_with_steps_of_whole_days_raises(step, length):
    with pytest.raises(ValueError, match=f"'time_of_day' is constant with a step of {length}"):
        longitude_harmonics(["time_of_day"], times("2001-01-01"), [0], step)


def test_monthly_steps_use_daily_means():
    index = pd.date_range("2001-01-01", periods=12, freq="MS")
    np.testing.assert_array_equal(
        longitude_harmonics(["insolation", "time_of_year"], index, GLOBE, MONTH),
        longitude_harmonics(["insolation", "time_of_year"], index, GLOBE, DAY),
    )


def test_coordinates_are_points_on_the_sphere():
    latitude, longitude = np.array([90.0, 0, -30]), np.array([0.0, 90, 180, -90])
    values = coordinate_fields(latitude, longitude)
    assert values.shape == (len(COORDINATE_CHANNELS), 3, 4) and values.dtype == np.float32
    np.testing.assert_allclose((values**2).sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(values[:, 0].T, [[1, 0, 0]] * 4, atol=1e-7)
    np.testing.assert_allclose(values[1:, 1], [[1, 0, -1, 0], [0, 1, 0, -1]], atol=1e-7)
    np.testing.assert_allclose(values[0, 2], -0.5)
    np.testing.assert_allclose(coordinate_fields(latitude, longitude + 360), values, atol=1e-6)
