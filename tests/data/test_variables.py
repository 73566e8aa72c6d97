import pytest

from simvp_climate.data.variables import VARIABLES, expand, lookup, same_units


@pytest.mark.parametrize(
    ("name", "short_name", "level"),
    [
        ("t2m", "t2m", None),
        ("2m_temperature", "t2m", None),
        ("2t", "t2m", None),
        ("z", "z", None),
        ("z500", "z", 500),
        ("geopotential", "z", None),
        ("geopotential_500", "z", 500),
        ("geopotential_500hPa", "z", 500),
        ("t850", "t", 850),
        ("u_component_of_wind_50", "u", 50),
        ("u10", "u10", None),  # wind at 10 m, not at 10 hPa
        ("u100", "u100", None),  # likewise in ERA5
        ("u_component_of_wind_100", "u", 100),
        ("air_pressure_at_mean_sea_level", "msl", None),
        ("total_precipitation_6hr", "tp6h", None),
        ("land_sea_mask", "lsm", None),
    ],
)
def test_lookup_knows_the_spellings(name, short_name, level):
    variable, found_level = lookup(name)
    assert variable.short_name == short_name
    assert found_level == level


@pytest.mark.parametrize(
    "name",
    [
        "air_temperature",  # t or t2m
        "msl500",  # not on pressure levels
        "t2",  # WRF's temperature at 2 m, not at 2 hPa
        "z2000",
        "time",
        "500",
        "",
        "chlorophyll",
    ],
)
def test_lookup_does_not_guess(name):
    assert lookup(name) is None


def test_each_name_means_one_variable():
    for variable in VARIABLES:
        assert lookup(variable.short_name) == (variable, None)
        assert lookup(variable.long_name) == (variable, None)
        assert variable.valid_range[0] < variable.valid_range[1]


def test_expand_keeps_order():
    assert expand(["z500", "uv10", "t2m"]) == ("z500", "u10", "v10", "t2m")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("z500", r"one string, a list of names is needed: write \['z500'\]"),
        ([], "no variables asked for"),
        (["u10", "uv10"], "'u10' is asked for twice"),
    ],
)
def test_expand_refuses(names, message):
    with pytest.raises(ValueError, match=message):
        expand(names)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("m**2 s**-2", "m2 s-2"),
        ("m2 s-2", "m^2/s^2"),
        ("m2 s-2", "m2.s-2"),
        ("m2 s-2", "J kg-1"),
        ("m s**-1", "m/s"),
        ("kg/m^2/s", "kg m-2 s-1"),
        ("degC", "celsius"),
        ("K", "kelvin"),
        ("degK", "K"),
        ("hPa", "millibars"),
        ("Pa s**-1", "Pa/s"),
        ("kg kg**-1", "1"),
        ("", "1"),
        ("(0 - 1)", "1"),
        ("K m**2 kg**-1 s**-1", "K m2 kg-1 s-1"),
        ("m of water equivalent", "m"),
    ],
)
def test_same_units_knows_spellings(first, second):
    assert same_units(first, second)
    assert same_units(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Pa", "hPa"),
        ("K", "degC"),
        ("%", "1"),
        ("m", "mm"),
        ("m s-1", "m s-2"),
        ("m2 s-2", "m"),
        ("0.01 m", "m"),
    ],
)
def test_same_units_tells_apart(first, second):
    assert not same_units(first, second)
