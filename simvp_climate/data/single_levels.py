"""The level of variables on a single one, such as `z500`, as scalar coordinates (CF 5.7) called `pressure_500`."""

import re
from collections.abc import Mapping, Sequence

import xarray as xr

from simvp_climate.data.variables import lookup

PRESSURE_ATTRS = {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"}
_ATTRS = {
    "pressure": PRESSURE_ATTRS,
    "height": {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"},
    "altitude": {"standard_name": "altitude", "units": "m", "positive": "up", "axis": "Z"},
}
# in m above the ground
_HEIGHTS = {
    "t2m": 2, "d2m": 2, "u10": 10, "v10": 10, "u100": 100, "v100": 100, "sp": 0, "skt": 0, "sst": 0, "siconc": 0,
    "tp": 0, "tp6h": 0, "tp24h": 0,
}  # fmt: skip


def vertical_coordinate(name: str) -> str | None:
    """Return the name of the scalar coordinate of a variable on a single level, or None if its name states no level."""
    known = lookup(name)
    if known is None:
        return None
    if known[1] is not None:
        return f"pressure_{known[1]:g}"
    if known[0].short_name == "msl":
        return "altitude_0"
    return f"height_{_HEIGHTS[known[0].short_name]:g}" if known[0].short_name in _HEIGHTS else None


def is_single_level(name: object) -> bool:
    """Return whether a coordinate has a name by `vertical_coordinate`: the level of some variables, not of all."""
    return re.fullmatch(rf"({'|'.join(_ATTRS)})_\d+", str(name)) is not None


def pressure_coordinates(dataset: xr.Dataset, level: str | None) -> dict[str, str]:
    """Return for each variable such as `z500` the name of its scalar pressure; `level` is the dimension of levels."""
    flat = [str(name) for name, variable in dataset.data_vars.items() if level not in variable.dims]
    names = {name: vertical_coordinate(name) for name in flat}
    return {name: text for name, text in names.items() if text is not None and text.startswith("pressure_")}


def name_pressures(forecast: xr.Dataset, level: str | None) -> xr.Dataset:
    """Return a forecast with the scalar pressure of each variable such as `z500`; without any, it is unchanged."""
    names = pressure_coordinates(forecast, level)
    if not names:
        return forecast
    # the dimensions too: an initialization selected from the forecast is a scalar, and must stay a coordinate in files
    times = [name for name in ("init_time", "lead_time", "valid_time") if name in forecast.coords]
    result = assign_single_levels(forecast, names, times)
    for name in names.values():
        # by CF these two are optional for a pressure; with them CDO skips the variable, because it has a second level,
        # the lead time
        result[name].attrs = {key: value for key, value in PRESSURE_ATTRS.items() if key not in ("axis", "positive")}
    # named here, they are coordinates in files also without their variables
    coordinates = " ".join(dict.fromkeys(names.values()))
    result["lead_time"].encoding = {**result["lead_time"].encoding, "coordinates": coordinates}
    return result


def assign_single_levels(dataset: xr.Dataset, names: Mapping[str, str], also: Sequence[str] = ()) -> xr.Dataset:
    """Return a Dataset with the scalar coordinate of each variable, in its attribute `coordinates` in files.

    `names` maps variables to coordinates, `also` are further coordinates of all variables.
    """
    dataset, scalars = drop_single_levels(dataset), {}
    for name in names.values():
        kind, _, value = name.partition("_")
        scalars[name] = xr.Variable((), float(value), _ATTRS[kind], {"_FillValue": None})
    dataset = dataset.assign_coords(scalars)
    for name in dataset.data_vars:
        # without it xarray names all scalars at every variable
        coordinates = " ".join([*also, *([names[name]] if name in names else [])])
        dataset[name].encoding = {**dataset[name].encoding, "coordinates": coordinates or None}
    return dataset


def drop_single_levels(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without the scalar coordinates that name the level of some of its variables."""
    dataset = dataset.drop_vars([name for name in dataset.coords if is_single_level(name)]).copy()
    for name in dataset.variables:
        encoding = dataset[name].encoding
        dataset[name].encoding = {key: value for key, value in encoding.items() if key != "coordinates"}
    return dataset
