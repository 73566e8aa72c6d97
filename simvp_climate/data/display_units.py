"""Units in which figures and tables show variables: those that meteorologists write, or those that the user names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simvp_climate.data.variables import Variable, conversion, lookup, same_units

_DISPLAY_UNITS = {
    "z": "gpdam", "gh": "gpdam", "msl": "hPa", "sp": "hPa", "t": "degC", "t2m": "degC", "d2m": "degC", "skt": "degC",
    "sst": "degC", "q": "g/kg", "tp": "mm", "tp6h": "mm", "tp24h": "mm", "tcc": "%", "siconc": "%",
}  # fmt: skip
_ACCUMULATION_HOURS = {"tp6h": 6, "tp24h": 24}
_RAIN_RATES = ("precipitation_flux", "lwe_precipitation_rate", "rainfall_flux")  # CF standard names


@dataclass(frozen=True)
class DisplayUnits:
    """A unit to display: values become `factor * value + offset`, differences and errors `factor * value`."""

    units: str
    factor: float = 1.0
    offset: float = 0.0

    @property
    def of_differences(self) -> str:
        """The unit of differences and errors: K for temperatures in degC."""
        return "K" if same_units(self.units, "degC") else self.units


def display_units(name: str, attrs: Mapping, requested: str | None = None) -> DisplayUnits:
    """Return the requested unit of a variable, by default the usual one of charts, else that of the data.

    `name` and `attrs` are those of the variable. Amounts of precipitation over 6 and 24 hours (`tp6h`, `tp24h`) convert
    to rates such as mm/day too. ValueError if the units of the data do not convert to the requested one.
    """
    meaning = _meaning(name, attrs)
    short_name = meaning.short_name if meaning else ""
    units = attrs.get("units")
    if units is None:
        if requested is None:
            return DisplayUnits("")
        fix = f'State them first: ds["{name}"].attrs["units"] = "..."'
        raise ValueError(f"units={requested!r} cannot be drawn: {name!r} has no units. {fix}")
    target = requested or _DISPLAY_UNITS.get(short_name)
    if target is None:
        return DisplayUnits(str(units))
    is_rate = str(attrs.get("standard_name")) in _RAIN_RATES
    known = "tp" if is_rate else short_name or name
    factors = conversion(known, str(units), target)
    if factors is None and short_name in _ACCUMULATION_HOURS:
        factors = conversion(known, f"{units} h-1", target)
        hours = _ACCUMULATION_HOURS[short_name]
        factors = None if factors is None else (factors[0] / hours, 0.0)
    if factors is not None:
        return DisplayUnits(target, *factors)
    if requested is None:
        return DisplayUnits(str(units))
    raise ValueError(f"units={requested!r} of {name!r} must be a unit that {str(units)!r} converts to.")


def requested_units(
    units: str | Mapping[str, str] | None, names: Sequence[str], others: Sequence[str] = ()
) -> dict[str, str]:
    """Return the requested units by variable; ValueError if they are of no variable, or one text is for several.

    A text is for the only one of `names`; a mapping may name `others` too.
    """
    if units is None:
        return {}
    names = list(dict.fromkeys(names))
    if isinstance(units, str):
        if len(names) != 1:
            example = f"units={{{names[0]!r}: {units!r}}}"
            raise ValueError(f"units={units!r} must be of one variable, not of {names}: write {example}")
        return {names[0]: units}
    if not isinstance(units, Mapping) or not all(isinstance(unit, str) for unit in units.values()):
        raise ValueError(f"units={units!r} must be a unit, or units by variable: units={{'t2m': 'degC'}}")
    if unknown := [name for name in units if name not in (*names, *others)]:
        raise ValueError(f"units has {unknown[0]!r}, which is not shown: name variables of {[*names, *others]}.")
    return dict(units)


def _meaning(name: str, attrs: Mapping) -> Variable | None:
    """Return the variable that a name or a standard name means, or None."""
    match = lookup(name) or lookup(str(attrs.get("standard_name", "")))
    return match[0] if match else None
