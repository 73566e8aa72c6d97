"""The vocabulary: what the variables of WeatherBench and ERA5 are called, their units and plausible ranges.

Units are in UDUNITS spelling. Nothing here converts a value.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One physical quantity.

    Attributes
    ----------
    short_name
        As in ERA5 and WeatherBench 1 files, `"t2m"`.
    long_name
        As in WeatherBench 2 stores, `"2m_temperature"`.
    standard_name
        The CF standard name, or None where CF has none for it.
    units
        UDUNITS spelling, `"m2 s-2"`.
    valid_range
        Smallest and largest plausible value in these units; wide, to find wrong units and fill values.
    on_levels
        Whether it lives on pressure levels.
    """

    short_name: str
    long_name: str
    standard_name: str | None
    units: str
    valid_range: tuple[float, float]
    on_levels: bool


_RAIN = "lwe_thickness_of_precipitation_amount"

# Ranges hold for 1 to 1000 hPa. Lower bounds below zero for q, r and tp: ERA5 has such values after packing.
VARIABLES = (
    Variable("z", "geopotential", "geopotential", "m2 s-2", (-2e4, 6e5), True),
    Variable("t", "temperature", "air_temperature", "K", (130, 350), True),
    Variable("u", "u_component_of_wind", "eastward_wind", "m s-1", (-250, 250), True),
    Variable("v", "v_component_of_wind", "northward_wind", "m s-1", (-250, 250), True),
    Variable("q", "specific_humidity", "specific_humidity", "kg kg-1", (-1e-3, 0.05), True),
    Variable("r", "relative_humidity", "relative_humidity", "%", (-30, 200), True),
    Variable("w", "vertical_velocity", "lagrangian_tendency_of_air_pressure", "Pa s-1", (-60, 60), True),
    Variable("vo", "vorticity", "atmosphere_relative_vorticity", "s-1", (-0.02, 0.02), True),
    Variable("pv", "potential_vorticity", "ertel_potential_vorticity", "K m2 kg-1 s-1", (-0.1, 0.1), True),
    Variable("t2m", "2m_temperature", "air_temperature", "K", (170, 345), False),
    Variable("d2m", "2m_dewpoint_temperature", "dew_point_temperature", "K", (150, 320), False),
    Variable("u10", "10m_u_component_of_wind", "eastward_wind", "m s-1", (-100, 100), False),
    Variable("v10", "10m_v_component_of_wind", "northward_wind", "m s-1", (-100, 100), False),
    # Listed because u100 must never be read as u at 100 hPa: ERA5 calls the wind at 100 m so.
    Variable("u100", "100m_u_component_of_wind", "eastward_wind", "m s-1", (-150, 150), False),
    Variable("v100", "100m_v_component_of_wind", "northward_wind", "m s-1", (-150, 150), False),
    Variable("msl", "mean_sea_level_pressure", "air_pressure_at_mean_sea_level", "Pa", (8.5e4, 1.1e5), False),
    Variable("sp", "surface_pressure", "surface_air_pressure", "Pa", (3e4, 1.1e5), False),
    Variable("tp", "total_precipitation", _RAIN, "m", (-1e-3, 1), False),
    Variable("tp6h", "total_precipitation_6hr", _RAIN, "m", (-1e-3, 2), False),
    Variable("tp24h", "total_precipitation_24hr", _RAIN, "m", (-1e-3, 4), False),
    Variable("tcc", "total_cloud_cover", "cloud_area_fraction", "1", (-1e-3, 1.001), False),
    Variable("tcwv", "total_column_water_vapour", "atmosphere_mass_content_of_water_vapor", "kg m-2",
             (-1, 120), False),
    Variable("tisr", "toa_incident_solar_radiation", None, "J m-2", (-1, 4e7), False),
    Variable("sst", "sea_surface_temperature", "sea_surface_temperature", "K", (265, 315), False),
    Variable("skt", "skin_temperature", "surface_temperature", "K", (150, 360), False),
    Variable("siconc", "sea_ice_cover", "sea_ice_area_fraction", "1", (-1e-3, 1.001), False),
    Variable("orography", "orography", "surface_altitude", "m", (-500, 9000), False),
    Variable("zs", "geopotential_at_surface", "surface_geopotential", "m2 s-2", (-5e3, 9e4), False),
    Variable("lsm", "land_sea_mask", "land_area_fraction", "1", (-1e-3, 1.001), False),
)  # fmt: skip

# The same quantity in the same units: GRIB short names and CMIP names.
_ALIASES = {
    "2t": "t2m", "2d": "d2m", "10u": "u10", "10v": "v10", "100u": "u100", "100v": "v100",
    "ta": "t", "ua": "u", "va": "v", "hus": "q", "wap": "w",
    "tas": "t2m", "uas": "u10", "vas": "v10", "psl": "msl", "ps": "sp", "ts": "skt", "orog": "orography",
    "mean_sea_level": "msl", "toa_incoming_solar_radiation": "tisr", "ci": "siconc",
}  # fmt: skip

_PSEUDO_NAMES = {"uv10": ("u10", "v10")}


def _spellings() -> dict[str, Variable]:
    by_short_name = {variable.short_name: variable for variable in VARIABLES}
    shared = Counter(variable.standard_name for variable in VARIABLES)
    # A standard name that several variables share (air_temperature: t and t2m) says too little.
    names = {v.standard_name: v for v in VARIABLES if v.standard_name is not None and shared[v.standard_name] == 1}
    names |= {variable.long_name: variable for variable in VARIABLES}
    names |= {alias: by_short_name[short_name] for alias, short_name in _ALIASES.items()}
    return names | by_short_name


_BY_NAME = _spellings()


def lookup(name: str) -> tuple[Variable, int | None] | None:
    """Return what a name means: the variable and the pressure level in hPa that it names, or None if unknown.

    Understands short names (`"t2m"`, `"z500"`), WeatherBench names (`"2m_temperature"`, `"geopotential"`,
    `"geopotential_500"`, `"geopotential_500hPa"`), the names of GRIB and CMIP for the same quantity in the
    same units (`"2t"`, `"tas"`), and CF standard names that only one variable has. The level is None where
    none is named.
    """
    if name in _BY_NAME:
        return _BY_NAME[name], None
    match = re.fullmatch(r"(.*?[^\d_])_?(\d{2,4})(?:_?hPa)?", name)
    if match is None:
        return None
    variable = _BY_NAME.get(match[1])
    level = int(match[2])
    if variable is None or not variable.on_levels or not 1 <= level <= 1100:
        return None
    return variable, level


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with pseudo-names replaced by what they stand for: `"uv10"` gives `"u10"`, `"v10"`.

    Raises
    ------
    ValueError
        If `names` is one string, is empty, or names a variable twice.
    """
    if isinstance(names, str):
        raise ValueError(f"variables={names!r} is one string, a list of names is needed: write [{names!r}]")
    expanded = tuple(part for name in names for part in _PSEUDO_NAMES.get(name, (name,)))
    if not expanded:
        raise ValueError('no variables asked for: name at least one, for example ["z500", "t2m"]')
    twice = [name for name, count in Counter(expanded).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is asked for twice in {list(expanded)}: name each variable once")
    return expanded


def same_units(first: str, second: str) -> bool:
    """Return whether two units are the same but for spelling.

    `"m**2 s**-2"`, `"m2 s-2"`, `"m^2/s^2"` and `"J kg-1"` are. Units that differ by a factor or an offset
    (Pa and hPa, K and degC) are not the same. An empty string counts as dimensionless, as `"1"`.
    """
    return _factors(first) == _factors(second)


_UNIT_NAMES = {
    "kelvin": "K", "degk": "K", "degreek": "K", "degrees_kelvin": "K", "degree_kelvin": "K",
    "degc": "degC", "celsius": "degC", "degree_celsius": "degC", "degrees_celsius": "degC", "deg_c": "degC",
    "degreec": "degC", "degreesc": "degC", "°c": "degC", "c": "degC",
    "pascal": "Pa", "pascals": "Pa", "hectopascal": "hPa", "hectopascals": "hPa",
    "millibar": "hPa", "millibars": "hPa", "mbar": "hPa", "mb": "hPa",
    "meter": "m", "meters": "m", "metre": "m", "metres": "m", "second": "s", "seconds": "s", "sec": "s",
    "joule": "J", "joules": "J", "watt": "W", "watts": "W", "newton": "N", "percent": "%",
}  # fmt: skip
_DIMENSIONLESS = {
    "", "1", "-", "~", "0 - 1", "0-1", "(0 - 1)", "(0-1)", "dimensionless", "unitless", "none", "fraction",
    "proportion", "code table 4.2",
}  # fmt: skip
# Named units that are products of others, factor 1.
_DERIVED = {
    "N": {"kg": 1, "m": 1, "s": -2},
    "Pa": {"kg": 1, "m": -1, "s": -2},
    "J": {"kg": 1, "m": 2, "s": -2},
    "W": {"kg": 1, "m": 2, "s": -3},
}


def _factors(units: str) -> dict[str, int]:
    """Return the exponent of each base unit; text that is no product of units stands for itself."""
    text = " ".join(units.split())
    if text.lower() in _DIMENSIONLESS:
        return {}
    if text.lower() == "m of water equivalent":  # what ERA5 calls meters of rain and snow
        text = "m"
    tokens = re.findall(r"/|[^\s*./·^]+?(?:(?:\*\*|\^)?[+-]?\d+)?(?=$|[\s*./·])", text.replace("**", "^"))
    exponents: Counter[str] = Counter()
    sign = 1
    for token in tokens:
        if token == "/":
            sign = -1
            continue
        match = re.fullmatch(r"(\D+?)\^?([+-]?\d+)?", token)
        if match is None and token != "1":
            return {text: 1}
        if match is not None:
            name = _UNIT_NAMES.get(match[1].lower(), match[1])
            power = sign * int(match[2] or 1)
            for base, exponent in _DERIVED.get(name, {name: 1}).items():
                exponents[base] += power * exponent
        sign = 1  # udunits: a slash divides by the next factor only
    return {name: exponent for name, exponent in exponents.items() if exponent and name != "1"}
