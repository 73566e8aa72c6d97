"""Units for display: hand-worked conversions."""

import pytest

from simvp_climate.data.display_units import display_units, requested_units


@pytest.mark.parametrize(
    ("name", "units", "requested", "display", "factor", "offset"),
    [
        ("z500", "m2 s-2", None, "gpdam", 1 / 98.0665, 0),
        ("geopotential", "m**2 s**-2", "gpm", "gpm", 1 / 9.80665, 0),
        ("zg", "m", None, "gpdam", 0.1, 0),
        ("msl", "Pa", None, "hPa", 0.01, 0),
        ("t2m", "K", None, "degC", 1, -273.15),
        ("t2m", "K", "K", "K", 1, 0),
        ("t2m", "degC", None, "degC", 1, 0),
        ("q", "kg kg-1", None, "g/kg", 1000, 0),
        ("tcc", "1", None, "%", 100, 0),
        ("u10", "m s-1", None, "m s-1", 1, 0),
        ("u10", "m s-1", "kt", "kt", 3600 / 1852, 0),
        ("tp6h", "m", None, "mm", 1000, 0),
        ("tp6h", "m", "mm/day", "mm/day", 4000, 0),
        ("tp24h", "kg m-2", "mm/day", "mm/day", 1, 0),
        ("pr", "kg m-2 s-1", "mm/day", "mm/day", 86400, 0),
        ("something", "K", None, "K", 1, 0),
        ("something", "K", "degC", "degC", 1, -273.15),
        ("t2m", "furlongs", None, "furlongs", 1, 0),
    ],
)
def test_usual_and_requested_units(name, units, requested, display, factor, offset):
    attrs = {"units": units, "standard_name": "precipitation_flux"} if name == "pr" else {"units": units}
    result = display_units(name, attrs, requested)
    assert result.units == display
    assert result.factor == pytest.approx(factor, rel=1e-14) and result.offset == pytest.approx(offset)


def test_differences_of_temperatures_are_in_kelvin():
    assert display_units("t2m", {"units": "K"}).of_differences == "K"
    assert display_units("t2m", {"units": "degC"}).of_differences == "K"
    assert display_units("msl", {"units": "Pa"}).of_differences == "hPa"


def test_units_that_do_not_convert_are_refused():
    with pytest.raises(ValueError, match=r"units='hPa' of 't2m' must be .*'K' converts to"):
        display_units("t2m", {"units": "K"}, "hPa")
    with pytest.raises(ValueError, match="'mm/day' of 'tp'"):  # over how long?
        display_units("tp", {"units": "m"}, "mm/day")
    with pytest.raises(ValueError, match=r"'t2m' has no units.*attrs\[\"units\"\]"):
        display_units("t2m", {}, "degC")
    assert display_units("t2m", {}).units == ""


def test_units_are_requested_by_variable():
    assert requested_units(None, ["t2m"]) == {}
    assert requested_units("degC", ["t2m", "t2m"]) == {"t2m": "degC"}
    assert requested_units({"t2m": "K"}, ["z500", "t2m"]) == {"t2m": "K"}
    with pytest.raises(ValueError, match=r"units='K' must be of one variable.*\{'z500': 'K'\}"):
        requested_units("K", ["z500", "t2m"])
    with pytest.raises(ValueError, match="units has 'u10', which is not shown"):
        requested_units({"u10": "kt"}, ["z500"])
    with pytest.raises(ValueError, match="units=5 must be"):
        requested_units(5, ["z500"])
