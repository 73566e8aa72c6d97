import pytest

from simvp_climate.data.variables import VARIABLES, conversion, expand, lookup, same_units, substitute


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
        ("gh500", "gh", 500),
        ("zg", "gh", None),  # CMIP
        ("zg500", "gh", 500),
        ("geopotential_height", "gh", None),
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
def test_ambiguous_and_unknown_names(name):
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
        ("z500", r"variables='z500'.*list.*\['z500'\]"),
        ([], "variables is empty"),
        (["u10", "uv10"], "'u10' is requested twice"),
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
        ("gpm", "m"),
    ],
)
def test_same_units_in_other_spellings(first, second):
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
def test_different_units(first, second):
    assert not same_units(first, second)


@pytest.mark.parametrize(
    ("name", "source", "target", "factor", "offset"),
    [
        ("t2m", "K", "degK", 1, 0),
        ("t2m", "degC", "K", 1, 273.15),
        ("anything", "K", "celsius", 1, -273.15),
        ("msl", "hPa", "Pa", 100, 0),
        ("msl", "Pa", "millibars", 0.01, 0),
        ("tcc", "%", "1", 0.01, 0),
        ("siconc", "(0 - 1)", "percent", 100, 0),
        ("tp", "mm", "m", 0.001, 0),
        ("tp", "kg m-2", "mm", 1, 0),
        ("total_precipitation_6hr", "m", "kg m**-2", 1000, 0),
        ("tp", "kg m-2 s-1", "mm d-1", 86400, 0),
        ("q", "g kg-1", "kg kg**-1", 0.001, 0),
        ("q", "1", "g/kg", 1000, 0),
        ("z500", "m", "m2 s-2", 9.80665, 0),
        ("zg500", "gpm", "m**2 s**-2", 9.80665, 0),
        ("geopotential", "m2 s-2", "dam", 1 / 98.0665, 0),
        ("u10", "km h-1", "m s-1", 1 / 3.6, 0),
    ],
)
def test_conversion_is_exact(name, source, target, factor, offset):
    assert conversion(name, source, target) == (factor, offset)


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("t2m", "K", "Pa"),
        ("orography", "m", "m2 s-2"),  # a height above the geoid, no geopotential height
        ("tcwv", "kg m-2", "mm"),  # vapor is no water in a gauge
        ("t2m", "furlongs", "K"),
        ("tisr", "J m-2", "W m-2"),  # over how long?
    ],
)
def test_conversion_does_not_guess(name, source, target):
    assert conversion(name, source, target) is None
    assert conversion(name, target, source) is None


def test_a_conversion_and_its_reverse_cancel():
    for name, source, target in [("t2m", "degC", "K"), ("z500", "m", "m2 s-2"), ("tp", "kg m-2", "m")]:
        (factor, offset), (back, back_offset) = conversion(name, source, target), conversion(name, target, source)
        assert back * (factor * 7.5 + offset) + back_offset == pytest.approx(7.5, rel=1e-14)


def test_geopotential_and_its_height_stand_for_each_other():
    assert substitute(lookup("z500")[0]).short_name == "gh"
    assert substitute(lookup("zg")[0]).short_name == "z"
    assert substitute(lookup("t")[0]) is None
