"""The vocabulary: names, units (in UDUNITS spelling) and plausible ranges of the variables of WeatherBench and ERA5."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import xarray as xr

STANDARD_GRAVITY = 9.80665  # m s-2
# fill values of netCDF, CMIP, GrADS, Ferret and hand-made files, without their sign; no file stores more digits
_FILL_VALUES = np.array(
    [9.96921e36, 1e20, 1e30, 1e34, 1e35, 1e36, 1e37, 3.4028235e38, 999, 9999, 99999, 999999, 9.99e8, 32767, 32768,
     65535, 2147483647, 2147483648], dtype=np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Variable:
    """One physical quantity."""

    short_name: str  # as in ERA5 and WeatherBench 1, "t2m"
    long_name: str  # as in WeatherBench 2, "2m_temperature"
    standard_name: str | None  # None where CF has none
    units: str
    valid_range: tuple[float, float]  # plausible values in these units; wide, to find wrong units and fill values
    on_levels: bool  # whether it has pressure levels

    @property
    def tolerated_range(self) -> tuple[float, float]:
        """The plausible range with a margin for records, packing and regridding."""
        return _add_margin(self.short_name, *self.valid_range)


_RAIN = "lwe_thickness_of_precipitation_amount"

# Ranges hold for 1 to 1000 hPa. Lower bounds below zero for q, r and tp: ERA5 has such values after packing.
VARIABLES = (
    Variable("z", "geopotential", "geopotential", "m2 s-2", (-2e4, 6e5), True),
    Variable("gh", "geopotential_height", "geopotential_height", "m", (-2e3, 6.1e4), True),
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
    Variable("tcwv", "total_column_water_vapour", "atmosphere_mass_content_of_water_vapor", "kg m-2", (-1, 120), False),
    Variable("tisr", "toa_incident_solar_radiation", None, "J m-2", (-1, 5e7), False),
    Variable("sst", "sea_surface_temperature", "sea_surface_temperature", "K", (265, 315), False),
    Variable("skt", "skin_temperature", "surface_temperature", "K", (150, 360), False),
    Variable("siconc", "sea_ice_cover", "sea_ice_area_fraction", "1", (-1e-3, 1.001), False),
    Variable("orography", "orography", "surface_altitude", "m", (-500, 9000), False),
    Variable("zs", "geopotential_at_surface", "surface_geopotential", "m2 s-2", (-5e3, 9e4), False),
    Variable("lsm", "land_sea_mask", "land_area_fraction", "1", (-1e-3, 1.001), False),
)

# The same quantity in the same units: GRIB short names and CMIP names.
_ALIASES = {
    "2t": "t2m", "2d": "d2m", "10u": "u10", "10v": "v10", "100u": "u100", "100v": "v100",
    "zg": "gh", "ta": "t", "ua": "u", "va": "v", "hus": "q", "wap": "w",
    "tas": "t2m", "uas": "u10", "vas": "v10", "psl": "msl", "ps": "sp", "ts": "skt", "orog": "orography",
    "mean_sea_level": "msl", "toa_incoming_solar_radiation": "tisr", "ci": "siconc",
}  # fmt: skip

# Geopotential height is geopotential over standard gravity.
_SUBSTITUTES = {"z": "gh", "gh": "z"}

_AMOUNTS = ("q", "tp", "tp6h", "tp24h", "tcwv", "tisr")  # large, but below zero by packing and regridding only

_PSEUDO_NAMES = {"uv10": ("u10", "v10")}

_SHARED = Counter(variable.standard_name for variable in VARIABLES)
# A standard name that several variables share (air_temperature: t and t2m) is ambiguous.
_BY_NAME = {v.standard_name: v for v in VARIABLES if v.standard_name is not None and _SHARED[v.standard_name] == 1}
_BY_NAME |= {v.long_name: v for v in VARIABLES} | {v.short_name: v for v in VARIABLES}
_BY_NAME |= {alias: _BY_NAME[short_name] for alias, short_name in _ALIASES.items()}


def lookup(name: str) -> tuple[Variable, int | None] | None:
    """Return the variable and the pressure level in hPa (None where none is named) that a name means, or None.

    Understands the names of WeatherBench (`"z500"`, `"2m_temperature"`, `"geopotential_500"`, `"geopotential_500hPa"`),
    GRIB and CMIP for the same quantity in the same units (`"2t"`, `"tas"`), and unambiguous CF standard names.
    """
    if name in _BY_NAME:
        return _BY_NAME[name], None
    match = re.fullmatch(r"(.*?[^\d_])_?(\d{2,4})(?:_?hPa)?", name)
    variable = match and _BY_NAME.get(match[1])
    if variable is None or not variable.on_levels or not 1 <= int(match[2]) <= 1100:
        return None
    return variable, int(match[2])


def substitute(variable: Variable) -> Variable | None:
    """Return geopotential for geopotential height and the reverse, None for all other variables."""
    return _BY_NAME.get(_SUBSTITUTES.get(variable.short_name, ""))


def lookup_in_units(name: str, units: str) -> tuple[Variable, int | None] | None:
    """Return what `lookup` returns, but geopotential height for a geopotential in meters, and the reverse."""
    known = lookup(name)
    other = None if known is None else substitute(known[0])
    return (other, known[1]) if other is not None and same_units(units, other.units) else known


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with `"uv10"` as `"u10"`, `"v10"`; ValueError if they are a string, empty, or repeat."""
    if isinstance(names, str):
        raise ValueError(f"variables={names!r} is one string, but must be a list of names: write [{names!r}]")
    expanded = tuple(member for name in names for member in _PSEUDO_NAMES.get(name, (name,)))
    if not expanded:
        raise ValueError('variables is empty. Name at least one, for example ["z500", "t2m"]')
    if twice := [name for name, count in Counter(expanded).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is requested twice in {list(expanded)}. Name each variable once")
    known = {}
    for name in expanded:
        meaning = lookup(name)
        if meaning is not None and meaning in known:
            raise ValueError(f"{known[meaning]!r} and {name!r} are the same variable. Name it once")
        known[meaning] = name
    return expanded


def find_variable(
    dataset: xr.Dataset, name: str, level_dim: str | None, scalar_level: float | None
) -> tuple[str, int | None]:
    """Return the variable of a Dataset that a name means, and the level in hPa to select if it has several.

    The name is one of the file, or any that `lookup` knows; the attributes of variables count too. `level_dim` and
    `scalar_level` are as in `Axes`. ValueError if no variable or several match, or the level is another or unknown.
    """
    # some files store orography and the like as coordinates
    names = [other for other in dataset.variables if other not in dataset.dims]
    if name in names:
        return name, None
    meaning = lookup(name)
    if meaning is None:
        return _single_match(dataset, name, [n for n in names if name in _described_as(dataset, n)]), None
    variable, level = meaning
    known = {n: _meanings(dataset, n, level_dim, scalar_level) for n in names}
    on_level = {n for n in names if level_dim in dataset[n].dims}
    matches, exact = [], []
    for candidate in (variable, substitute(variable)):
        if exact or candidate is None:
            break
        unnamed = [n for n, meanings in known.items() if (candidate, None) in meanings]
        matches, exact = matches or unnamed, unnamed
        if level is not None:
            # z may also be the surface geopotential: accept only a variable with levels, or one named after its level
            exact = [n for n, meanings in known.items() if (candidate, level) in meanings]
            exact += [n for n in unnamed if n in on_level]
    if level is None or exact:
        match = _single_match(dataset, name, exact)
        return match, level if match in on_level else None
    if matches and scalar_level is None:
        fix = f"If it is on {level} hPa, rename it: ds.rename({matches[0]}={name!r})"
        raise ValueError(f"{name!r} is requested, but the level of {matches[0]!r} is not stated. {fix}")
    if matches and abs(scalar_level - level) > 1e-3:
        fix = "Open another file"
        raise ValueError(f"{name!r} is requested, but {matches[0]!r} is on {scalar_level:g} hPa in this file. {fix}")
    return _single_match(dataset, name, matches), None


def _meanings(
    dataset: xr.Dataset, name: str, level_dim: str | None, scalar_level: float | None
) -> set[tuple[Variable, int | None]]:
    """Return the meanings of a variable: that of its name if known, else all those of its attributes."""
    meaning = lookup(str(name))
    if meaning is not None:
        return {meaning}  # geopotential_500 is not "geopotential", whatever its standard_name
    # without a level, relative_humidity is the one at 2 m
    has_level = level_dim in dataset[name].dims or scalar_level is not None
    described = {lookup(text) for text in _described_as(dataset, name)} - {None}
    return {known for known in described if known[1] is None and (has_level or not known[0].on_levels)}


def _described_as(dataset: xr.Dataset, name: str) -> list[str]:
    attrs = dataset.variables[name].attrs
    return [str(attrs[key]) for key in ("standard_name", "short_name", "GRIB_shortName") if key in attrs]


def _single_match(dataset: xr.Dataset, name: str, matches: list[str]) -> str:
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"{name!r} could be any of {matches}. Ask for one of these names")
    raise unknown_variable_error(dataset, name)


def unknown_variable_error(dataset: xr.Dataset, name: str) -> ValueError:
    """Return the error about a variable that a Dataset lacks, with similar names and the way to rename one."""
    available = sorted(str(n) for n in dataset.data_vars)
    # short names are compared too: the file may spell the variable differently
    known = [lookup(n) for n in available]
    short = [f"{k[0].short_name}{k[1] or ''}" for k in known if k is not None]
    near = difflib.get_close_matches(name, list(dict.fromkeys([*available, *short])), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else " Ask for one of these"
    if available:
        example = next((n for n in near if n in available), available[0])
        hint += f"{' Or' if near else ', or'} rename one: {{{name!r}: {example!r}}}"
    return ValueError(f"no variable {name!r} in this dataset, which has {available}.{hint}")


def same_units(first: str, second: str) -> bool:
    """Return whether two units are the same but for spelling, such as `"m**2 s**-2"`, `"m^2/s^2"` and `"J kg-1"`."""
    return _factors(first) == _factors(second)


def conversion(name: str, source: str, target: str) -> tuple[float, float] | None:
    """Return factor and offset so that `target_value = factor * source_value + offset`, or None.

    Only what is exact by definition is converted: units that differ by a factor, and degC and K. For names that
    `lookup` knows also geopotential and its height, by standard gravity (9.80665 m s-2), and precipitation in kg m-2
    and m, by 1000 kg m-3, as ERA5 and the CF conventions count water.
    """
    (bases, scale, zero), (target_bases, target_scale, target_zero) = _to_base(source), _to_base(target)
    difference = Counter(bases)
    difference.subtract(target_bases)
    factor = scale / target_scale
    left = {base: exponent for base, exponent in difference.items() if exponent}
    if not left:
        return float(factor), float((zero - target_zero) / target_scale)
    known = lookup(name)
    for names, quantity, amount in _EQUIVALENTS if known else ():
        for direction in (1, -1):
            if known[0].short_name in names and left == {base: direction * n for base, n in quantity.items()}:
                return float(factor * amount**direction), 0.0
    return None


def tolerated_range(name: str, units: str | None, level: float | None = None) -> tuple[float, float] | None:
    """Return the plausible range with a margin, in `units` (None: the vocabulary's) on a level in hPa; None if unknown.

    The margin is a tenth of the range, and a hundredth below amounts such as rain.
    """
    known = lookup(name)
    if known is None:
        return None
    variable, named_level = known
    factors = conversion(variable.short_name, units or variable.units, variable.units)
    if factors is None:
        return None
    low, high = variable.valid_range
    level = named_level if level is None else level
    if variable.short_name in ("z", "gh") and level is not None and level >= 50:
        gravity = STANDARD_GRAVITY if variable.short_name == "z" else 1
        expected = standard_height(level) * gravity
        # nearer to the ground low pressure may bring it below 0
        low, high = (
            (0.5 * expected, 2 * expected) if level <= 700 else (expected - 1500 * gravity, expected + 1500 * gravity)
        )
    low, high = _add_margin(variable.short_name, low, high)
    return (low - factors[1]) / factors[0], (high - factors[1]) / factors[0]


def _add_margin(short_name: str, low: float, high: float) -> tuple[float, float]:
    margin = 0.1 * (high - low)
    return low - (0.1 * margin if short_name in _AMOUNTS else margin), high + margin


def is_amount(name: str) -> bool:
    """Return whether a variable is known, and an amount such as rain: most values are small, and a few are large."""
    known = lookup(name)
    return known is not None and known[0].short_name in _AMOUNTS


def is_fill_value(values: np.ndarray | float) -> np.ndarray:
    """Return whether files use each number for missing values."""
    with np.errstate(over="ignore"):
        return np.isin(np.abs(np.asarray(values)).astype(np.float32), _FILL_VALUES)


def standard_height(level: float) -> float:
    """Return the geopotential height in m of a pressure in hPa in the standard atmosphere (ISO 2533), below 11 km."""
    return 44330.8 * (1 - (level / 1013.25) ** 0.190263)


# Factors between units that are equivalent for some variables: the units as source over target.
_EQUIVALENTS = (
    (("z", "gh"), {"m": 1, "s": -2}, Fraction(100000, 980665)),  # source m2 s-2, target m
    (("tp", "tp6h", "tp24h"), {"kg": 1, "m": -3}, Fraction(1, 1000)),  # source kg m-2, target m
)


def _to_base(units: str) -> tuple[dict[str, int], Fraction, Fraction]:
    """Return exponents of base units, and scale and zero point: value in base = scale * value + zero."""
    exponents = _factors(units)
    if exponents == {"degC": 1}:
        return {"K": 1}, Fraction(1), Fraction("273.15")
    bases, scale = Counter(), Fraction(1)
    for unit, exponent in exponents.items():
        amount, units_of = _MULTIPLES.get(unit, (Fraction(1), {unit: 1}))
        scale *= amount**exponent
        for base, power in units_of.items():
            bases[base] += exponent * power
    return {base: exponent for base, exponent in bases.items() if exponent}, scale, Fraction(0)


_UNIT_NAMES = {
    "kelvin": "K", "degk": "K", "degreek": "K", "degrees_kelvin": "K", "degree_kelvin": "K",
    "degc": "degC", "celsius": "degC", "degree_celsius": "degC", "degrees_celsius": "degC", "deg_c": "degC",
    "degreec": "degC", "degreesc": "degC", "°c": "degC", "c": "degC",
    "pascal": "Pa", "pascals": "Pa", "hectopascal": "hPa", "hectopascals": "hPa",
    "millibar": "hPa", "millibars": "hPa", "mbar": "hPa", "mb": "hPa",
    "meter": "m", "meters": "m", "metre": "m", "metres": "m", "second": "s", "seconds": "s", "sec": "s",
    "joule": "J", "joules": "J", "watt": "W", "watts": "W", "newton": "N", "percent": "%",
    "gpm": "m", "geopotential meter": "m", "gpdam": "dam", "knot": "kt", "knots": "kt",
    "hours": "h", "hour": "h", "hr": "h", "days": "d", "day": "d",
    "gram": "g", "grams": "g", "millimeter": "mm", "millimeters": "mm", "millimetre": "mm", "millimetres": "mm",
}  # fmt: skip
_DIMENSIONLESS = {
    "", "1", "-", "~", "0 - 1", "0-1", "(0 - 1)", "(0-1)", "dimensionless", "unitless", "none", "fraction",
    "proportion", "code table 4.2",
}  # fmt: skip
# Named units that are products of others, factor 1.
_DERIVED = {
    "N": {"kg": 1, "m": 1, "s": -2}, "Pa": {"kg": 1, "m": -1, "s": -2},
    "J": {"kg": 1, "m": 2, "s": -2}, "W": {"kg": 1, "m": 2, "s": -3},
}  # fmt: skip
# Named units that are multiples of others: the factor, and of what.
_MULTIPLES = {
    "hPa": (Fraction(100), _DERIVED["Pa"]), "kPa": (Fraction(1000), _DERIVED["Pa"]), "%": (Fraction(1, 100), {}),
    "mm": (Fraction(1, 1000), {"m": 1}), "cm": (Fraction(1, 100), {"m": 1}), "dam": (Fraction(10), {"m": 1}),
    "km": (Fraction(1000), {"m": 1}), "g": (Fraction(1, 1000), {"kg": 1}), "h": (Fraction(3600), {"s": 1}),
    "d": (Fraction(86400), {"s": 1}), "kt": (Fraction(1852, 3600), {"m": 1, "s": -1}),
}  # fmt: skip


def _factors(units: str) -> dict[str, int]:
    """Return the exponent of each unit; text that is not a product of units counts as one unit."""
    text = " ".join(units.split())
    if text.lower() in _DIMENSIONLESS:
        return {}
    if text.lower() == "m of water equivalent":  # ERA5's unit of rain and snow
        text = "m"
    tokens = re.findall(r"/|[^\s*./·^]+?(?:(?:\*\*|\^)?[+-]?\d+)?(?=$|[\s*./·])", text.replace("**", "^"))
    exponents: Counter[str] = Counter()
    sign = 1
    for token in tokens:
        if token == "/":
            sign = -1
            continue
        if token != "1":
            match = re.fullmatch(r"(\D+?)\^?([+-]?\d+)?", token)
            if match is None:
                return {text: 1}
            name = _UNIT_NAMES.get(match[1].lower(), match[1])
            for base, exponent in _DERIVED.get(name, {name: 1}).items():
                exponents[base] += sign * int(match[2] or 1) * exponent
        sign = 1  # udunits: a slash divides by the next factor only
    return {name: exponent for name, exponent in exponents.items() if exponent}
