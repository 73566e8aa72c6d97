"""Which colors, range and units a field is drawn in: by what it is, and by what its values are."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.colors import Colormap

from simvp_climate.data.variables import Variable, conversion, lookup, same_units

# all of them can be read with color-blind eyes
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
RAIN, RAIN_DIVERGING = "YlGnBu", "BrBG"  # coastlines are seen where little falls; brown is drier, green wetter

# of both signs: colors around zero
_SIGNED = ("u", "v", "u10", "v10", "u100", "v100", "w", "vo", "pv")
_SIGNED_WORDS = ("vorticity", "divergence", "eastward_wind", "northward_wind")
_RAIN = ("tp", "tp6h", "tp24h")
_ABOVE_SEA = 850  # hPa: geopotential is above zero on all levels up to here


def shown(field: xr.DataArray, level: float | None = None) -> xr.DataArray:
    """Return a field as it is drawn: precipitation in mm instead of m, and `what` ends in "anomaly" where it is one.

    The attribute `what` is there before. The attribute `anomaly` says whether values are drawn around zero as one.
    """
    attrs = dict(field.attrs)
    attrs["anomaly"] = is_anomaly(field, level)
    if attrs["anomaly"] and "anomal" not in attrs["what"].lower():
        attrs["what"] += " anomaly"
    known = lookup(str(field.name))
    if known is not None and known[0].short_name in _RAIN and same_units(str(attrs.get("units", "1")), "m"):
        field, attrs["units"] = field * 1000, "mm"
    return field.assign_attrs(attrs)


def is_anomaly(field: xr.DataArray, level: float | None = None) -> bool:
    """Return whether a field is an anomaly, by its names or by values that the variable itself cannot have.

    Arithmetic keeps the attributes of what it was done with, so `forecast - climatology` says "Temperature".
    """
    words = f"{field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}".lower()
    if "anomal" in words:
        return True
    known = lookup(str(field.name)) or lookup(str(field.attrs.get("standard_name", "")))
    if known is None:
        return False
    variable, own_level = known
    limits = _plausible(variable, field, level if own_level is None else own_level)
    values = field.values[np.isfinite(field.values)]
    if limits is None or not values.size:
        return False
    low, high = (float(end) for end in np.percentile(values, (1, 99)))
    if max(abs(low), abs(high)) == 0:
        return False
    outside = np.mean((values < limits[0]) | (values > limits[1]))
    if outside > 0.5:
        # wrong units are implausible as well, but lie on one side of zero, and far from it
        return low <= 0.5 * high and high >= 0.5 * low
    # packing and networks leave small values below zero where there should be none
    never_negative = limits[0] >= -0.02 * limits[1]
    return bool(never_negative and np.mean(values < 0) > 0.2 and -low > 0.1 * high)


def _plausible(variable: Variable, field: xr.DataArray, level: float | None) -> tuple[float, float] | None:
    """Return the plausible range of a variable in the units of a field, or None if these are other ones."""
    low, high = variable.valid_range
    if variable.short_name in ("z", "gh") and level is not None and level <= _ABOVE_SEA:
        low = 0.0
    factor, offset = 1.0, 0.0
    if "units" in field.attrs:
        units = str(field.attrs["units"])
        if same_units(units, variable.units):
            return low, high
        found = conversion(variable.short_name, variable.units, units)
        if found is None:
            return None
        factor, offset = found
    return factor * low + offset, factor * high + offset


def colors_of(
    *fields: xr.DataArray, cmap: str | Colormap | None = None, limits: tuple[float, float] | None = None
) -> tuple[Colormap, tuple[float, float]]:
    """Return the color map and range of fields as from `shown`: around zero for what has a direction or is an anomaly.

    `cmap` and `limits` are used as they are; `check_colors` has looked at them.
    """
    field = fields[0]
    known = lookup(str(field.name))
    words = f"{field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}".lower()
    low, high = value_range(*fields)
    signed = (known is not None and known[0].short_name in _SIGNED) or any(word in words for word in _SIGNED_WORDS)
    if field.attrs.get("anomaly") or (signed and low < 0 < high):
        colors, found = diverging_of(field), symmetric_range(*fields)
    elif is_rain(field):
        colors, found = RAIN, (0.0, max(high, 1e-9))
    else:
        colors, found = SEQUENTIAL, (low, high)
    return plt.get_cmap(colors if cmap is None else cmap), found if limits is None else limits


def is_rain(field: xr.DataArray) -> bool:
    """Return whether a field is an amount of precipitation."""
    known = lookup(str(field.name))
    words = f"{field.attrs.get('standard_name', '')} {field.attrs.get('long_name', '')}".lower()
    return (known is not None and known[0].short_name in _RAIN) or "precipitation" in words


def diverging_of(field: xr.DataArray) -> str:
    """Return the color map of differences of a field."""
    return RAIN_DIVERGING if is_rain(field) else DIVERGING


def check_colors(cmap: str | Colormap | None, limits: tuple[float, float] | None, drawn: list[str]) -> None:
    """Raise ValueError if a color map or limits cannot be used, or limits are for several variables or levels."""
    if isinstance(cmap, str):
        if cmap not in plt.colormaps():
            raise ValueError(f"cmap={cmap!r} is no color map of matplotlib: give one of its names, or a Colormap")
    elif cmap is not None and not isinstance(cmap, Colormap):
        raise ValueError(f"cmap is a {type(cmap).__name__}: give the name of a color map of matplotlib, or a Colormap")
    if limits is None:
        return
    try:
        low, high = (float(end) for end in limits)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"limits={limits!r} must be two numbers, the smaller one first: limits=(250, 300)")
    if len(drawn) > 1:
        raise ValueError(f"limits={limits!r} are of one field, and {drawn} are drawn: say variable= and level=")


def value_range(*fields: xr.DataArray) -> tuple[float, float]:
    """Return the range from percentile 1 to 99 of all values that are there."""
    values = np.concatenate([field.values[np.isfinite(field.values)] for field in fields])
    if not len(values):
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(values, (1, 99)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def symmetric_range(*fields: xr.DataArray) -> tuple[float, float]:
    """Return a range around zero that reaches percentile 99 of the size of the values."""
    sizes = np.concatenate([np.abs(field.values[np.isfinite(field.values)]) for field in fields])
    limit = float(np.percentile(sizes, 99) or sizes.max() or 1.0) if len(sizes) else 1.0
    return -limit, limit
