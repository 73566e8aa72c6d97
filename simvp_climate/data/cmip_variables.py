"""Variables of CMIP6 and their names here, and CMIP6's nominal resolution of a grid."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simvp_climate.data.variables import lookup

EARTH_RADIUS = 6.371e6  # m
# in Pa; https://github.com/ai2cm/AIMIP, "Horizontal and vertical grid for outputs"
AIMIP_LEVELS = (100000, 85000, 70000, 50000, 25000, 10000, 5000)
# upper bounds of the mean resolution in km, and the names of the classes (CMIP6 Global Attributes, appendix 2)
_RESOLUTIONS = {
    0.72: "0.5 km", 1.6: "1 km", 3.6: "2.5 km", 7.2: "5 km", 16: "10 km", 36: "25 km", 72: "50 km", 160: "100 km",
    360: "250 km", 720: "500 km", 1600: "1000 km", 3600: "2500 km", 7200: "5000 km", np.inf: "10000 km",
}  # fmt: skip


@dataclass(frozen=True)
class CmipVariable:
    """A variable of the tables of CMIP6 (data specification 01.00.33)."""

    name: str
    standard_name: str
    long_name: str
    units: str
    scalar: tuple[str, float | bytes] | None = None  # a coordinate: the height in m or the type of the area
    cell_methods: str = "area: time: mean"
    table: str = "Amon"
    realm: str = "atmos"
    on_levels: bool = False


_2M, _10M, _ICE = ("height", 2.0), ("height", 10.0), ("type", b"sea_ice")
_DAILY, _SEA = "area: mean time: {} within days time: mean over days", "area: mean where sea time: mean"
_LEVELS = {"cell_methods": "time: mean", "on_levels": True}
# by the short names of the vocabulary
CMIP_VARIABLES = {
    "t2m": CmipVariable("tas", "air_temperature", "Near-Surface Air Temperature", "K", _2M),
    "t2m_max": CmipVariable(
        "tasmax", "air_temperature", "Daily Maximum Near-Surface Air Temperature", "K", _2M, _DAILY.format("maximum")),
    "t2m_min": CmipVariable(
        "tasmin", "air_temperature", "Daily Minimum Near-Surface Air Temperature", "K", _2M, _DAILY.format("minimum")),
    "d2m": CmipVariable("tdps", "dew_point_temperature", "2m Dewpoint Temperature", "K", table="Emon"),
    "msl": CmipVariable("psl", "air_pressure_at_mean_sea_level", "Sea Level Pressure", "Pa"),
    "sp": CmipVariable("ps", "surface_air_pressure", "Surface Air Pressure", "Pa"),
    "u10": CmipVariable("uas", "eastward_wind", "Eastward Near-Surface Wind", "m s-1", _10M),
    "v10": CmipVariable("vas", "northward_wind", "Northward Near-Surface Wind", "m s-1", _10M),
    "tp": CmipVariable("pr", "precipitation_flux", "Precipitation", "kg m-2 s-1"),
    "tcc": CmipVariable("clt", "cloud_area_fraction", "Total Cloud Cover Percentage", "%"),
    "tcwv": CmipVariable("prw", "atmosphere_mass_content_of_water_vapor", "Water Vapor Path", "kg m-2"),
    "skt": CmipVariable("ts", "surface_temperature", "Surface Temperature", "K"),
    "sst": CmipVariable(
        "tos", "sea_surface_temperature", "Sea Surface Temperature", "degC", None, _SEA, "Omon", "ocean"),
    "siconc": CmipVariable(
        "siconca", "sea_ice_area_fraction", "Sea-Ice Area Percentage (Atmospheric Grid)", "%", _ICE,
        table="SImon", realm="seaIce"),
    "z": CmipVariable("zg", "geopotential_height", "Geopotential Height", "m", **_LEVELS),
    "t": CmipVariable("ta", "air_temperature", "Air Temperature", "K", **_LEVELS),
    "u": CmipVariable("ua", "eastward_wind", "Eastward Wind", "m s-1", **_LEVELS),
    "v": CmipVariable("va", "northward_wind", "Northward Wind", "m s-1", **_LEVELS),
    "q": CmipVariable("hus", "specific_humidity", "Specific Humidity", "1", **_LEVELS),
    "r": CmipVariable("hur", "relative_humidity", "Relative Humidity", "%", **_LEVELS),
    "w": CmipVariable("wap", "lagrangian_tendency_of_air_pressure", "Omega (=dp/dt)", "Pa s-1", **_LEVELS),
}  # fmt: skip
AREA = CmipVariable(
    "areacella",
    "cell_area",
    "Grid-Cell Area for Atmospheric Grid Variables",
    "m2",
    None,
    "area: sum",
    "fx",
    "atmos land",
)
_AIMIP_DEW_POINT = CmipVariable("tdas", "dew_point_temperature", "2m Dewpoint Temperature", "K", _2M)
_SAME = {"gh": "z", "tp6h": "tp", "tp24h": "tp"}
_SUFFIXES = {"maximum": "_max", "minimum": "_min"}


def time_method(attrs: Mapping) -> str | None:
    """Return the first method over time in `cell_methods`, such as "mean", "point" or "sum", or None."""
    match = re.search(r"\btime: (?:\w+: )*(\w+)", str(attrs.get("cell_methods", "")))
    return match[1] if match else None


def find_cmip_variable(name: str, attrs: Mapping, layout: str) -> tuple[CmipVariable, int | None] | None:
    """Return the variable of CMIP6 and the level in hPa that a variable of a run means; None if it is unknown.

    `t2m_max`, and `t2m` with the cell method "time: maximum", are daily maxima.
    """
    keys, level = {variable.name: key for key, variable in CMIP_VARIABLES.items()}, None
    base = name if lookup(name) else re.sub("_(max|min)$", "", name)
    if name in keys:
        key = keys[name]
    elif known := lookup(base):
        key, level = _SAME.get(known[0].short_name, known[0].short_name) + name.removeprefix(base), known[1]
    else:
        return None
    suffix = _SUFFIXES.get(time_method(attrs) or "", "")
    key = key if key.endswith(suffix) else key + suffix
    variable = _AIMIP_DEW_POINT if layout == "aimip" and key == "d2m" else CMIP_VARIABLES.get(key)
    return None if variable is None else (variable, level)


def cell_areas(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the areas in m2 of the cells between edges in degrees, shapes (latitude, 2) and (longitude, 2)."""
    heights = np.diff(np.sin(np.deg2rad(rows)), axis=1)
    return EARTH_RADIUS**2 * heights * np.diff(np.deg2rad(columns), axis=1).T


def mean_resolution(rows: np.ndarray, columns: np.ndarray) -> float:
    """Return the mean over the area of the largest distance in km between two corners of each cell.

    CMIP6 Global Attributes, DRS, Filenames, Directory Structure, and CV's, appendix 2. The Earth is a sphere.
    """
    south, north = np.deg2rad(rows).T[:, :, np.newaxis]
    width = np.diff(np.deg2rad(columns), axis=1).T
    pairs = ((south, south, width), (north, north, width), (south, north, width), (south, north, 0 * width))
    haversines = [np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(turn / 2) ** 2 for a, b, turn in pairs]
    distances = 2 * EARTH_RADIUS / 1000 * np.arcsin(np.sqrt(np.max(haversines, axis=0)))
    return float(np.average(distances, weights=cell_areas(rows, columns)))


def nominal_resolution(rows: np.ndarray, columns: np.ndarray) -> str:
    """Return CMIP6's class of the resolution of a grid, such as "250 km"."""
    mean = mean_resolution(rows, columns)
    return next(name for bound, name in _RESOLUTIONS.items() if mean <= bound)
