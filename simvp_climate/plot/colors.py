"""Choose colors, range and units of a field from its variable and its values."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize

from simvp_climate.data.display_units import display_units
from simvp_climate.data.variables import Variable, conversion, lookup, same_units

# all are safe for color-blind readers
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
MOIST, MOIST_DIVERGING = "YlGnBu", "BrBG"  # light where it is dry, so that coastlines show; brown drier, green wetter
_WARM, _HEIGHT, _COVER = "RdYlBu_r", "GnBu_r", "Blues_r"  # blue is cold; blue is low; white is cloud or ice
_CONTOURED = ("z", "gh", "msl")
_COLORS = dict.fromkeys(("t", "t2m", "d2m", "skt", "sst"), _WARM) | dict.fromkeys(_CONTOURED, _HEIGHT)
_COLORS |= dict.fromkeys(("q", "r", "tcwv"), MOIST) | dict.fromkeys(("tcc", "siconc"), _COVER)
_RAIN_STEPS = 8  # colors of precipitation, beside white

# variables of both signs, drawn around zero
_SIGNED = ("u", "v", "u10", "v10", "u100", "v100", "w", "vo", "pv")
_SIGNED_NAMES = ("vorticity", "divergence", "eastward_wind", "northward_wind")
_RAIN = ("tp", "tp6h", "tp24h")
_ABOVE_SEA = 850  # hPa: geopotential is positive at this level and above


def prepare_field(
    field: xr.DataArray, level: float | None = None, units: str | None = None, *, usual: bool = True
) -> xr.DataArray:
    """Return a field in units for display, by default the usual ones; mark anomalies in its attributes and label.

    A field whose attribute `anomaly` is true is one whatever its values. Anomalies convert without an offset. Without
    `usual`, see `has_usual_values`, units stay unless others are requested.
    """
    anomaly = bool(field.attrs.get("anomaly")) or is_anomaly(field, level)
    attrs = {**field.attrs, "anomaly": anomaly}
    if anomaly and "anomal" not in attrs["label"].lower():
        attrs["label"] += " anomaly"
    target = display_units(str(field.name), attrs, units or (None if usual else attrs.get("units")))
    field = field * target.factor + (0.0 if anomaly else target.offset)
    if "units" in attrs:
        attrs |= {"units": target.of_differences if anomaly else target.units, "error_units": target.of_differences}
    return field.assign_attrs(attrs)


def has_usual_values(field: xr.DataArray, level: float | None) -> bool:
    """Return whether a field is an anomaly or has possible values: a spread of temperatures in K is no temperature."""
    return is_anomaly(field, level) or _share_outside(field, level) <= 0.5


def contours_by_default(field: xr.DataArray) -> bool:
    """Return whether charts show contours of a variable: geopotential, its height, and pressure at sea level."""
    return _meaning(field) in _CONTOURED


def difference_of(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """Return the difference of two prepared fields, in the units of errors: K where the fields are in degC."""
    attrs = dict(first.attrs)
    if "units" in attrs:
        attrs["units"] = attrs["error_units"]
    return (first - second).assign_attrs(attrs)


def is_anomaly(field: xr.DataArray, level: float | None) -> bool:
    """Return whether a field is an anomaly: by its names, or by values that the variable cannot have."""
    if "anomal" in _names(field):
        return True
    # xarray keeps attributes in arithmetic, so `forecast - climatology` still has the long name "Temperature"
    limits, values = _limits(field, level), _finite(field)
    if limits is None or not values.size:
        return False
    low, high = np.percentile(values, (1, 99)).tolist()
    if low == high == 0:
        return False
    if _share_outside(field, level) > 0.5:
        # values in wrong units are also outside, but on one side of zero and far from it
        return low <= 0.5 * high and high >= 0.5 * low
    # packing and networks leave small values below zero in variables that are never negative
    never_negative = limits[0] >= -0.02 * limits[1]
    return bool(never_negative and np.mean(values < 0) > 0.2 and -low > 0.1 * high)


def _share_outside(field: xr.DataArray, level: float | None) -> float:
    """Return the share of values that the variable cannot have; 0 if it is unknown."""
    limits, values = _limits(field, level), _finite(field)
    if limits is None or not values.size:
        return 0.0
    return float(np.mean((values < limits[0]) | (values > limits[1])))


def _limits(field: xr.DataArray, level: float | None) -> tuple[float, float] | None:
    """Return the valid range of the variable that a field means, in the units of the field, or None if unknown."""
    match = lookup(str(field.name)) or lookup(str(field.attrs.get("standard_name", "")))
    if match is None:
        return None
    variable, level_in_name = match
    return _valid_range(variable, field, level if level_in_name is None else level_in_name)


def _short_name(name: str) -> str | None:
    """Return the short name of a known variable, or None."""
    match = lookup(name)
    return None if match is None else match[0].short_name


def _finite(*fields: xr.DataArray) -> np.ndarray:
    return np.concatenate([field.values[np.isfinite(field.values)] for field in fields])


def _names(field: xr.DataArray) -> str:
    """Return the standard name and the long name of a field in lower case."""
    return f"{field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}".lower()


def _valid_range(variable: Variable, field: xr.DataArray, level: float | None) -> tuple[float, float] | None:
    """Return the valid range of a variable in the units of the field, or None if the units do not convert."""
    low, high = variable.valid_range
    if variable.short_name in ("z", "gh") and level is not None and level <= _ABOVE_SEA:
        low = 0.0
    units = str(field.attrs.get("units", variable.units))
    if same_units(units, variable.units):
        return low, high
    if (converted := conversion(variable.short_name, variable.units, units)) is None:
        return None
    factor, offset = converted
    return factor * low + offset, factor * high + offset


def value_scale(
    *fields: xr.DataArray, cmap: str | Colormap | None = None, limits: tuple[float, float] | None = None
) -> ScalarMappable:
    """Return the color scale that prepared fields share: around zero for winds and anomalies, in steps for rain."""
    field = fields[0]
    values = _finite(*fields)
    low, high = np.percentile(values, (1, 99)).tolist() if values.size else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, low + 0.5
    signed = _short_name(str(field.name)) in _SIGNED or any(word in _names(field) for word in _SIGNED_NAMES)
    if field.attrs.get("anomaly") or (signed and low < 0 < high):
        scale = difference_scale(*fields)
    elif _is_rain(field):
        stepped = cmap is None and limits is None
        scale = _rain_scale(high) if stepped else ScalarMappable(Normalize(0.0, max(high, 1e-9)), MOIST)
    else:
        if _meaning(field) in ("tcc", "siconc") and same_units(str(field.attrs.get("units", "1")), "%"):
            low, high = 0.0, 100.0
        scale = ScalarMappable(Normalize(low, high), _COLORS.get(_meaning(field), SEQUENTIAL))
    if cmap is not None:
        scale.set_cmap(cmap)
    if limits is not None:
        scale.set_clim(*limits)
    return scale


def difference_scale(*fields: xr.DataArray) -> ScalarMappable:
    """Return a color scale that fields share, around zero and up to percentile 99 of the absolute values."""
    sizes = np.abs(_finite(*fields))
    limit = float(np.percentile(sizes, 99) or sizes.max() or 1.0) if sizes.size else 1.0
    is_moist = _is_rain(fields[0]) or _COLORS.get(_meaning(fields[0])) == MOIST
    return ScalarMappable(Normalize(-limit, limit), MOIST_DIVERGING if is_moist else DIVERGING)


def _rain_scale(high: float) -> ScalarMappable:
    """Return a scale in steps of 1, 2 and 5 times powers of ten up to a value; white below the first step."""
    exponent = int(np.floor(np.log10(max(high, 1e-9))))
    steps = [float(f"{digit}e{power}") for power in range(exponent - 4, exponent + 2) for digit in (1, 2, 5)]
    last = next(index for index, step in enumerate(steps) if step >= high)
    bounds = [0.0, *steps[last + 1 - _RAIN_STEPS : last + 1]]
    colors = ["white", *plt.colormaps[MOIST](np.linspace(0.1, 1, len(bounds) - 2))]
    return ScalarMappable(BoundaryNorm(bounds, len(colors)), ListedColormap(colors, f"{MOIST} in steps"))


def _meaning(field: xr.DataArray) -> str:
    """Return the short name of the variable that the name or standard name of a field means, empty if unknown."""
    return _short_name(str(field.name)) or _short_name(str(field.attrs.get("standard_name", ""))) or ""


def _is_rain(field: xr.DataArray) -> bool:
    return _short_name(str(field.name)) in _RAIN or "precipitation" in _names(field)


def check_colors(cmap: str | Colormap | None, limits: tuple[float, float] | None, fields: list[str]) -> None:
    """Raise ValueError if a color map or limits are invalid, or limits apply to several fields."""
    if isinstance(cmap, str):
        if cmap not in plt.colormaps():
            raise ValueError(f"cmap={cmap!r} must be the name of a matplotlib color map: plt.colormaps() lists them.")
    elif cmap is not None and not isinstance(cmap, Colormap):
        raise ValueError(f"cmap is a {type(cmap).__name__}: it must be a matplotlib Colormap or the name of one.")
    if limits is None:
        return
    try:
        low, high = map(float, limits)
        valid = -np.inf < low < high < np.inf
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"limits={limits!r} must be two finite numbers, the smaller first: limits=(250, 300)")
    if len(fields) > 1:
        raise ValueError(f"limits={limits!r} must be of one field, not of {fields}: choose with variable= and level=")
