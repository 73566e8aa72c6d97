"""The rules about data that training and forecasts enforce: `check` lists all findings, they raise the first.

A rule is a function from what is known about the data (names, statistics, states) to findings. It names variables,
dimensions and coordinates as the user's Dataset does, and its fix can be pasted where `ds` is that Dataset.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.grid import Axes, check_same_grid
from simvp_climate.data.variables import (
    STANDARD_GRAVITY,
    Variable,
    conversion,
    is_fill_value,
    lookup,
    same_units,
    standard_height,
)
from simvp_climate.data.variables import tolerated_range as vocabulary_range
from simvp_climate.processing.forcings import FORCINGS
from simvp_climate.processing.statistics import Normalizer, Statistics, apply_log
from simvp_climate.quality.report import Finding, format_time, list_names, split_error

# units that values may really be in where the attribute is wrong
_CANDIDATE_UNITS = ("K", "degC", "m2 s-2", "m", "dam", "mm", "Pa", "hPa", "kg kg-1", "g kg-1", "1", "%")
_FAR = 6  # standard deviations: where a usual fill value is no value
# how far beyond the range of training, in widths of it, a usual fill value is no value, and any value of a variable
# that the vocabulary does not know; amounts such as snow grow far more, but hardly become negative
_FILL_WIDTHS, _WIDTHS, _AMOUNT_WIDTHS = 3, 10, (1, 100)
_FEW_TIMES = 0.1  # share of times that are dropped rather than masking a cell at all times


def raise_first(findings: Iterable[Finding | None]) -> None:
    """Raise ValueError with the message and the fix of the first finding that is an error."""
    for finding in findings:
        if finding is not None and finding.severity == "error":
            raise ValueError(f"{finding.message}. {finding.fix}")


@dataclass(frozen=True, eq=False)
class Field:
    """One variable under the names of the user's Dataset."""

    name: str  # in the Task
    source: str  # in the Dataset
    dims: tuple[str, ...]  # in the Dataset
    axes: Axes  # of the Dataset
    units: str | None  # the attribute
    meaning: Variable | None  # of the vocabulary

    @property
    def ds(self) -> str:
        """The variable as an expression in a fix."""
        return f'ds["{self.source}"]'

    def label(self, level: float | None) -> str:
        """Return the name of the variable on a level, or without one."""
        return self.source if level is None else f"{self.source} at level {level:g}"

    @property
    def conversion(self) -> tuple[float, float] | None:
        """Factor and offset to the vocabulary's units, or None; without units these are assumed."""
        if self.meaning is None or self.units is None:
            return None if self.meaning is None else (1.0, 0.0)
        return conversion(self.meaning.short_name, self.units, self.meaning.units)

    @property
    def is_refused_by_range(self) -> bool:
        """Whether training refuses values outside the vocabulary's range: the Task's name is known, and the units."""
        return bool(self.units) and lookup(self.name) is not None


def find_fields(canonical: Canonical) -> dict[str, Field]:
    """Return the fields of a canonical Dataset by their names in the Task."""
    fields = {}
    for name, source in canonical.sources.items():
        known, units = lookup(name), canonical.dataset[name].attrs.get("units")
        dims = tuple(map(str, canonical.original[source].dims))
        fields[name] = Field(name, source, dims, canonical.axes, units, None if known is None else known[0])
    return fields


def describe_cell(canonical: Canonical, row: int, column: int) -> str:
    """Return latitude and longitude of a canonical cell, as in the Dataset handed in."""
    axes, original = canonical.axes, canonical.original
    latitude = original[axes.latitude].values[axes.rows.order[row]]
    longitude = original[axes.longitude].values[axes.columns.order[column]]
    return f"latitude {latitude:g}, longitude {longitude:g}"


# ---- missing values


def empty_times(field: Field, times: int, count: int, first: str) -> Finding:
    """Return the finding for times at which no cell has a value."""
    message = f"{field.source} has no value in any cell at {times} of {count} times, the first is {first}"
    fix = f'ds = ds.dropna("{field.axes.time}", how="all", subset=["{field.source}"])  # windows skip the gap'
    if field.axes.level in field.dims:  # how="all" would keep times at which one level is empty
        fix = _drop_incomplete_times(field)
    return Finding("error", "nan-times", field.source, message, fix)


def changing_mask(field: Field, channel: str, place: str, times: int, count: int, cells: int) -> Finding:
    """Return the finding for `cells` without a value at some times only; one is at `place`, at `times` of `count`."""
    like_it = "1 cell is" if cells == 1 else f"{cells} cells are"
    message = f"{channel} is nan at {place}; {times} of {count} times lack the cell, and {like_it} incomplete. "
    message += "Only cells that never have a value are masked"
    fix = _drop_incomplete_times(field)
    if times > _FEW_TIMES * count:
        fix = f'{field.ds} = {field.ds}.where({field.ds}.notnull().all("{field.axes.time}"))  # a mask'
    return Finding("error", "nan-moving", field.source, message, fix)


def _drop_incomplete_times(field: Field) -> str:
    """Return lines that keep the times with the fewest missing cells, which are those of the mask."""
    others = ", ".join(f'"{dim}"' for dim in field.dims if dim != field.axes.time)
    lines = f"missing = {field.ds}.isnull().sum([{others}])\n"
    return f"{lines}ds = ds.isel({field.axes.time}=(missing == missing.min()).values)  # windows skip the gap"


def infinite_values(field: Field, channel: str, value: float, place: str) -> Finding:
    """Return the finding for values that are infinite."""
    message = f"{channel} is {value:g} at {place}: values must be finite, or NaN where they are missing"
    fix = f"{field.ds} = {field.ds}.where(np.isfinite({field.ds}))"
    return Finding("error", "infinite", field.source, message, fix)


def incomplete_values(statistics: Statistics, series: Sequence[Canonical], sources: Sequence) -> Iterator[Finding]:
    """Yield the findings for values, of some series read from `sources`, that are infinite or missing at some times."""
    missing = statistics.incomplete
    if missing is None:
        return

    def locate(first: np.ndarray) -> tuple[Field, Canonical, str]:
        canonical, times = series[first[0]], sources[first[0]].dataset.indexes["time"]
        return find_fields(canonical)[channel.variable], canonical, format_time(times[first[1]])

    for index, channel in enumerate(sources[0].channels):
        if missing.infinite[index].any():
            row, column = np.argwhere(missing.infinite[index])[0]
            first = missing.first[:, index, row, column]
            field, canonical, time = locate(first)
            value = reader.read(sources[first[0]], first[1:])[0, index, row, column]
            place = f"{time}, {describe_cell(canonical, row, column)}"
            yield infinite_values(field, field.label(channel.level), value, place)
        if 0 < missing.empty[index] < missing.count:
            field, _, time = locate(missing.first_empty[:, index])
            yield empty_times(field, int(missing.empty[index]), missing.count, time)
        times = missing.times[index] - missing.empty[index]
        changing = (times > 0) & (times < missing.count - missing.empty[index])
        if changing.any():
            row, column = np.argwhere(changing)[0]
            field, canonical, time = locate(missing.first[:, index, row, column])
            place = f"{time}, {describe_cell(canonical, row, column)}"
            counts = int(missing.times[index, row, column]), missing.count, int(changing.sum())
            yield changing_mask(field, field.label(channel.level), place, *counts)


def incomplete_history(
    states: np.ndarray, canonical: Canonical, times: pd.Index, mask: np.ndarray
) -> Iterator[Finding]:
    """Yield a finding if a state (time, channel, latitude, longitude) is not finite outside the mask of training."""
    # a sum is finite unless a value is not, and far faster than a test of every value
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(states.sum(dtype=np.float32)):
            return
    if not (invalid := ~np.isfinite(states) & ~mask).any():
        return
    index, channel, row, column = np.argwhere(invalid)[0]
    name = reader.list_channels(canonical.series[0])[channel]
    field = find_fields(canonical)[name.variable]
    place = f"{format_time(times[index])}, {describe_cell(canonical, row, column)}"
    message = (
        f"{field.label(name.level)} is {states[index, channel, row, column]} at {place}, where a forecast reads it"
    )
    fix = f'Fill it, or start elsewhere:\n{field.ds} = {field.ds}.interpolate_na("{field.axes.time}")'
    if len(states) > 1 and invalid[:, channel, row, column].all():
        message += f". The cell has no value at any of the {len(states)} times read, but had values in training"
        fix = "Give data with the mask of the training data, or fill the cell"
    yield Finding("error", "nan-history", field.source, message, fix)


def lost_cells(
    normalizer: Normalizer, statistics: Statistics, canonical: Canonical, period_name: str
) -> Iterator[Finding]:
    """Yield a finding if a cell never has a value in the data called `period_name`, but has values in training."""
    lost = statistics.mask & ~normalizer.mask
    if not lost.any():
        return
    index, row, column = np.argwhere(lost)[0]
    channel, cell = normalizer.channels[index], describe_cell(canonical, row, column)
    message = f"{channel} of {period_name} has no value at {cell} at any time, but the training data have"
    fix = "Fill the cells, or compute new statistics: TrainConfig(statistics='compute')"
    if period_name == "valid":
        selected = f'["{channel.variable}"]'
        fix = f"Mask them in training, too: train{selected} = train{selected}.where("
        fix += f'valid{selected}.notnull().any("{canonical.axes.time}"))'
    yield Finding("error", "mask-differs", channel.variable, message, fix)


# ---- units and values


def wrong_units(field: Field) -> Finding | None:
    """Return a finding if units cannot be converted to those of the vocabulary."""
    if field.meaning is None or not field.units or field.conversion is not None:
        return None
    message = f"{field.source} has the units {field.units!r}, but {field.meaning.long_name} has {field.meaning.units!r}"
    fix = f'{field.ds}.attrs["units"] = "{field.meaning.units}"  # if the values are; else give it another name'
    return Finding("error" if lookup(field.name) else "warning", "units-wrong", field.source, message, fix)


def implausible_values(
    field: Field, low: float, high: float, means: Mapping[float, float] = {}, worst: str = ""
) -> Finding | None:
    """Return a finding if values from `low` to `high`, the worst at `worst`, cannot be in the units of the attribute.

    `means` on each pressure level in hPa tell geopotential from geopotential height.
    """
    if field.conversion is None:
        return None
    meaning = field.meaning
    if _is_plausible(field, low, high, means, field.conversion, meaning.tolerated_range):
        return None
    stated = meaning.units if field.units is None else field.units
    values = f"{field.source} has values from {low:.4g} to {high:.4g}"
    for units in _CANDIDATE_UNITS:
        factors = conversion(meaning.short_name, units, meaning.units)
        # a mass per mass is no other fraction, although both have no dimension
        if factors is None or ("kg" in units) != ("kg" in meaning.units) or same_units(units, stated):
            continue
        if not _is_plausible(field, low, high, means, factors, meaning.valid_range):
            continue
        fix = f'{field.ds}.attrs["units"] = "{units}"'
        if field.units is None:
            message = f"{values} and no attribute `units`; they can be {meaning.long_name} in {units!r}"
            return Finding("warning", "units-missing", field.source, message, fix)
        message = f"{values} in {stated!r}, but such values of {meaning.long_name} are in {units!r}"
        return Finding("error", "units-mislabeled", field.source, message, fix)
    factor, offset = field.conversion
    lowest, highest = meaning.tolerated_range
    if lowest <= low * factor + offset and high * factor + offset <= highest:
        listed = ", ".join(f"{mean:.4g} at {level:g} hPa" for level, mean in means.items())
        message = f"{field.source} has the mean {listed} {stated}, less than half or more than twice that of the "
        message += "standard atmosphere"
        fix = "Correct the units or the levels, or give the variable another name"
        return Finding("error", "units-mislabeled", field.source, message, fix)
    lowest, highest = ((bound - offset) / factor for bound in meaning.valid_range)
    message = f"{values} {stated}; {meaning.long_name} lies within {lowest:.4g} to {highest:.4g}"
    message += f". The worst is at {worst}" if worst else ""
    fix = "Correct the units or the packing (scale_factor, _FillValue; xr.decode_cf(ds)), or cut the values:\n"
    fix += f"{field.ds} = {field.ds}.clip({lowest:.6g}, {highest:.6g})  # if true, give the variable another name"
    excess = max(lowest - low, high - highest) / (highest - lowest)
    # ranges are wide, not laws: without units a small excess may be real
    severity = "error" if field.is_refused_by_range or excess > 0.2 else "warning"
    return Finding(severity, "range", field.source, message, fix)


def _is_plausible(
    field: Field, low: float, high: float, means: Mapping[float, float], factors: tuple[float, float],
    limits: tuple[float, float],
) -> bool:  # fmt: skip
    """Return whether values are plausible after conversion; geopotential also by its mean on each level."""
    (factor, offset), (lowest, highest) = factors, limits
    if low * factor + offset < lowest or high * factor + offset > highest:
        return False
    gravity = {"z": STANDARD_GRAVITY, "gh": 1}.get(field.meaning.short_name)
    for level, mean in means.items():
        if gravity is None or not 50 <= level <= 850 or np.isnan(mean):
            continue  # near the ground the mean tells little
        if not 0.5 < (mean * factor + offset) / (gravity * standard_height(level)) < 2:
            return False
    return True


def fill_value(field: Field, value: float, distance: float, share: str = "") -> Finding | None:
    """Return the finding for a fill value, `distance` standard deviations from the mean; None if it may be a value."""
    factor, offset = field.conversion or (1, 0)
    lowest, highest = field.meaning.tolerated_range if field.meaning else (-np.inf, np.inf)
    if lowest <= value * factor + offset <= highest and distance < _FAR:
        return None
    message = f"{field.source} has the fill value {value:.7g}{share} that was not decoded: it would be taken for data"
    return Finding("error", "fill-values", field.source, message, _fix_value(field, value))


def outside_bounds(
    field: Field, transform: object, bounds: Sequence[float], low: float, high: float, std: float, place: str
) -> Finding | None:
    """Return a finding if values at `place` lie beyond the bounds of their transform, or below 0 for a logarithm."""
    # packing leaves a tenth of a standard deviation, or for logarithms a hundredth of the largest value
    logarithmic = transform == "log" or (isinstance(transform, tuple) and transform[0] == "log")
    slack = 0.01 * high if logarithmic else 0.1 * std
    if transform is None or (bounds[0] - slack <= low and high <= bounds[1] + slack):
        return None
    limits = f"keeps forecasts within {bounds[0]:g} to {bounds[1]:g}"
    values = f"{low:.4g} to {high:.4g} {field.units or ''}".rstrip()
    message = f"transforms={{{field.name!r}: {transform!r}}} {limits}, but {field.source} {place} goes from {values}"
    fix = f"Leave {field.name!r} out of transforms, or give bounds in the units of the data"
    factor, offset = field.conversion or (1, 0)
    converted = [(bound - offset) / factor for bound in bounds]  # of (0, 1) for data in %
    if not logarithmic and converted[0] - slack <= low and high <= converted[1] + slack:
        text = ", ".join(f"{bound:.6g}" if np.isfinite(bound) else "None" for bound in converted)
        fix = f"transforms={{{field.name!r}: ({text})}} in the Task: bounds are in the units of the data"
    return Finding("error", "bounds", field.source, message, fix)


def empty_or_constant(
    field: Field, levels: Sequence[float | None], empty: np.ndarray, constant: np.ndarray, values: np.ndarray,
    times: str, may_be_zero: bool = False,
) -> Iterator[Finding]:  # fmt: skip
    """Yield a finding if a variable, or a level, never has a value, or a single one at all of the named `times`."""
    if empty.all():
        message = f"{field.source} has no value at {times}"
        yield Finding("error", "all-missing", field.source, message, f"Leave {field.name!r} out of the Task")
        return
    if (empty | constant).all() and len(set(values[constant].tolist())) == 1:
        value = float(values[constant][0])
        severity = "warning" if may_be_zero and not value else "error"
        message = f"{field.source} is constant, {value:g} in all cells at {times}: there is nothing to learn"
        fix = f'ds = ds.drop_vars("{field.source}")  # and leave it out of Task.variables'
        yield Finding(severity, "constant", field.source, message, fix)
        return
    for dead, content in ((empty, "no values"), (constant, "a single value everywhere")):
        if not dead.any():
            continue
        named = ", ".join(f"{level:g}" for level, is_dead in zip(levels, dead, strict=True) if is_dead)
        live = [f"{level:g}" for level, *is_dead in zip(levels, empty, constant, strict=True) if not any(is_dead)]
        fix = f"levels=[{', '.join(live)}] in the Task" if live else f"Leave {field.name!r} out of the Task"
        message = f"{field.source} has {content} on level {named} at {times}"
        yield Finding("error", "dead-level", field.source, message, fix)


def find_value(series: Sequence, sources: Sequence, windows: Sequence[np.ndarray], index: int, value: float) -> str:
    """Return time and cell of a value of the channel at `index`, the first among what the windows read."""
    for each, source, positions in zip(series, sources, windows, strict=True):
        for block in np.array_split(np.unique(positions), max(1, positions.size // 64)):
            places = np.argwhere(np.isclose(reader.read(source, block)[:, index], value, rtol=1e-6, atol=0))
            if len(places):
                time, row, column = places[0]
                return f"{format_time(each.times[block[time]])}, {describe_cell(each.canonical, row, column)}"
    return ""


def is_outlier(sources: Sequence, windows: Sequence[np.ndarray], index: int, value: float) -> bool:
    """Return whether a value of the channel at `index` is farther from all others than these are from each other."""
    low, high = np.inf, -np.inf
    for source, positions in zip(sources, windows, strict=True):
        for block in np.array_split(np.unique(positions), max(1, positions.size // 64)):
            values = reader.read(source, block)[:, index]
            others = values[values != np.float32(value)]
            low, high = np.fmin.reduce(others, initial=low), np.fmax.reduce(others, initial=high)
    return max(low - value, value - high) > high - low


def unusable_channels(
    statistics: Statistics, normalizer: Normalizer, canonical: Canonical, transforms: Mapping[str, object],
    locate: Callable[[int, float], str], is_far: Callable[[int, float], bool],
) -> Iterator[Finding | None]:  # fmt: skip
    """Yield the findings for channels that cannot be trained on.

    `locate` returns time and cell of a value, `is_far` is `is_outlier`.
    """
    fields, channels = find_fields(canonical), normalizer.channels
    for name, field in fields.items():
        indices = [index for index, channel in enumerate(channels) if channel.variable == name]
        if not indices:
            continue
        low, high = statistics.minimum[indices].min(), statistics.maximum[indices].max()
        is_known = field.is_refused_by_range and low <= high  # else all values are missing
        if is_known:
            yield wrong_units(field)
        for index in indices:
            for extreme in (float(statistics.minimum[index]), float(statistics.maximum[index])):
                if is_fill_value(extreme):
                    # mean and deviation are of the logarithm where that is learned
                    is_log, spread = normalizer.log_scale[index] > 0, max(statistics.std[index], 1e-300)
                    distance = 0.0 if is_log else abs(extreme - statistics.mean[index]) / spread
                    if field.meaning is None and distance < _FAR and is_far(index, extreme):
                        distance = np.inf  # many fill values widen the distribution
                    if finding := fill_value(field, extreme, distance):
                        yield replace(finding, message=f"{finding.message}: {locate(index, extreme)}")
        empty = statistics.mask[indices].all(axis=(1, 2))
        constant = ~empty & (statistics.std[indices] <= 1e-6 * np.abs(statistics.mean[indices]))
        values, levels = statistics.mean[indices], [channels[index].level for index in indices]
        yield from empty_or_constant(field, levels, empty, constant, values, "all times that windows use")
        if is_known or (field.meaning is not None and not field.units and low <= high):
            means = {}
            for index in indices:
                level = channels[index].level or lookup(name)[1]
                if level is not None and not normalizer.log_scale[index]:
                    means[float(level)] = float(statistics.mean[index])
            if finding := implausible_values(field, low, high, means):
                # the one farther from the middle of the vocabulary's range
                factor, offset = field.conversion
                middle = (sum(field.meaning.valid_range) / 2 - offset) / factor
                extreme = low if abs(low - middle) > abs(high - middle) else high
                index = next(i for i in indices if extreme in (statistics.minimum[i], statistics.maximum[i]))
                fits = [_fits_vocabulary(field, statistics, normalizer, indices, deviations) for deviations in (0, 1)]
                is_single = fits[1] or (fits[0] and is_far(index, extreme))  # one value far off may double the spread
                if is_known or (finding.code == "range" and is_single):
                    place = locate(index, extreme)
                    yield replace(finding, message=f"{finding.message}. The value {extreme:.7g} is at {place}")
    yield from values_outside_bounds(statistics, normalizer, fields, transforms)


def _fits_vocabulary(
    field: Field, statistics: Statistics, normalizer: Normalizer, indices: list[int], deviations: int
) -> bool:
    """Return whether means, and values some standard deviations from them, fit the units that the vocabulary has."""
    bulk = statistics.mean[:, np.newaxis] + statistics.std[:, np.newaxis] * [-deviations, deviations]
    bulk, (lowest, highest) = _without_log(bulk, normalizer.log_scale)[indices], field.meaning.tolerated_range
    return bool(lowest <= bulk.min() and bulk.max() <= highest)


def values_outside_bounds(
    statistics: Statistics, normalizer: Normalizer, fields: Mapping[str, Field], transforms: Mapping[str, object],
    name: str = "dataset",
) -> Iterator[Finding | None]:  # fmt: skip
    """Yield the findings for values of the data called `name` beyond the bounds of their transforms."""
    for index, channel in enumerate(normalizer.channels):
        field, transform, bounds = fields[channel.variable], transforms.get(channel.variable), normalizer.bounds[index]
        extremes = statistics.minimum[index], statistics.maximum[index], statistics.std[index]
        yield outside_bounds(field, transform, bounds, *extremes, f"of {name}")


def unlike_training_period(
    statistics: Statistics, normalizer: Normalizer, canonical: Canonical, transforms: Mapping[str, object], name: str,
    locate: Callable[[int, float], str],
) -> Iterator[Finding | None]:  # fmt: skip
    """Yield the findings for data called `name` that lack values which training had, or differ in units or range."""
    yield from lost_cells(normalizer, statistics, canonical, name)
    fields = find_fields(canonical)
    is_unlabeled = [not fields[channel.variable].units for channel in normalizer.channels]
    # a season without snow or rain may vary little: only data without units must vary as in training
    spreads = np.where(is_unlabeled, statistics.std, np.maximum(statistics.std, normalizer.std))
    implausible, fill_limits = [], fill_value_limits(normalizer)
    for index, (channel, limits) in enumerate(zip(normalizer.channels, plausible_limits(normalizer), strict=True)):
        for value in (float(statistics.minimum[index]), float(statistics.maximum[index])):
            is_fill = is_fill_value(value) and not fill_limits[index, 0] <= value <= fill_limits[index, 1]
            if not np.isnan(value) and (is_fill or not limits[0] <= value <= limits[1]):
                field, place = fields[channel.variable], locate(index, value)
                subject, way_out = f"{field.label(channel.level)} of {name}", "leave these times out"
                if name == "dataset":  # start_from
                    way_out = "TrainConfig(statistics='compute')"
                implausible.append(_outside_limits(normalizer, index, field, subject, value, place, way_out))
    # other units show in the means, and in every value
    yield from (finding for finding in implausible if finding.code == "fill-values")
    yield from unlike_training(normalizer, statistics.mean, spreads, is_unlabeled, name)
    yield from values_outside_bounds(statistics, normalizer, fields, transforms, name)
    yield from implausible


def unlike_training(
    normalizer: Normalizer, means: np.ndarray, spreads: np.ndarray, is_unlabeled: Sequence[bool], name: str
) -> Iterator[Finding]:
    """Yield a finding for each channel without units, in training or now, whose mean or deviation is too far off."""
    for index, (channel, units) in enumerate(zip(normalizer.channels, normalizer.units, strict=True)):
        if units and not is_unlabeled[index]:
            continue  # another season may have another mean
        mean, std = normalizer.mean[index], normalizer.std[index]
        # kelvin read as degrees Celsius are 20 standard deviations off
        if abs(means[index] - mean) > 10 * std or not std / 20 < spreads[index] < 20 * std:
            message = f"{channel} of {name} has mean {means[index]:.4g} and standard deviation {spreads[index]:.3g}, "
            message += f"but was trained with {mean:.4g} and {std:.3g} {units}".rstrip()
            fix = f'Set its units, here and in training: ds["{channel.variable}"].attrs["units"]'
            yield Finding("error", "unlike-training", channel.variable, message, fix)


def unlike_training_states(
    normalizer: Normalizer, states: np.ndarray, is_unlabeled: Sequence[bool]
) -> Iterator[Finding]:
    """Yield the findings for states (time, channel, latitude, longitude) in other units than those of training."""
    if all(normalizer.units) and not any(is_unlabeled):
        return
    # only channels that lost their units must also vary about as much: a season without snow may vary little
    values = np.where(normalizer.mask, np.nan, apply_log(states[:8], normalizer.log_scale)).astype(np.float64)
    spreads = np.where(is_unlabeled, np.nanstd(values, axis=(0, 2, 3)), normalizer.std)
    yield from unlike_training(normalizer, np.nanmean(values, axis=(0, 2, 3)), spreads, is_unlabeled, "the dataset")


def plausible_limits(normalizer: Normalizer) -> np.ndarray:
    """Return the smallest and the largest value that a state may have, (channel, 2), in the units of the normalizer.

    The vocabulary's range with its margin holds where it knows the variable and its units, and for data without units
    if the values of training lie within it. For other variables the range of training is widened.
    """
    limits = np.empty_like(normalizer.extremes)
    for index, (low, high) in enumerate(normalizer.extremes):
        if known := _known_range(normalizer, index):
            # training may have had a value beyond; extremes may be unknown
            limits[index, 0] = min(known[0], low) if np.isfinite(low) else known[0]
            limits[index, 1] = max(known[1], high) if np.isfinite(high) else known[1]
        else:
            widths = _AMOUNT_WIDTHS if low >= 0 else (_WIDTHS, _WIDTHS)
            limits[index] = min(low, 0) - widths[0] * (high - low), high + widths[1] * (high - low)
    return limits + 1e-6 * np.abs(limits) * [-1, 1]  # float32 rounds


def _known_range(normalizer: Normalizer, index: int) -> tuple[float, float] | None:
    """Return the range of the vocabulary for a channel in its units; without units if all of training lies within."""
    channel, units, (low, high) = normalizer.channels[index], normalizer.units[index], normalizer.extremes[index]
    known = vocabulary_range(channel.variable, units, channel.level)
    return known if known and (units or known[0] <= low <= high <= known[1]) else None


def fill_value_limits(normalizer: Normalizer) -> np.ndarray:
    """Return between which values a usual fill value may be a value, (channel, 2), in the units of the normalizer."""
    # three standard deviations stand for the range of training where that is unknown
    typical = normalizer.mean[:, np.newaxis] + normalizer.std[:, np.newaxis] * [-3, 3]
    typical = _without_log(typical, normalizer.log_scale)
    extremes = np.where(np.isfinite(normalizer.extremes), normalizer.extremes, typical)
    return extremes + _FILL_WIDTHS * (extremes[:, 1:] - extremes[:, :1]) * [-1, 1]


def _without_log(values: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Return values (channel, 2) before `apply_log`."""
    values = values.copy()
    for index in np.flatnonzero(log_scale):
        values[index] = log_scale[index] * np.expm1(values[index])
    return values


def implausible_states(
    normalizer: Normalizer, states: np.ndarray, stored: np.ndarray, canonical: Canonical, times: pd.Index
) -> Iterator[Finding]:
    """Yield a finding if a state (time, channel, latitude, longitude) in training's units cannot be true.

    It breaks `plausible_limits`, or as it is `stored` it is a usual fill value beyond `fill_value_limits`.
    """
    each = (plausible_limits(normalizer), fill_value_limits(normalizer))
    (lowest, highest), (lowest_fill, highest_fill) = (limits.T[..., np.newaxis, np.newaxis] for limits in each)
    low, high = (extremum.reduce(states, axis=(0, 2, 3))[:, None, None] for extremum in (np.fmin, np.fmax))
    if not ((low < np.fmax(lowest, lowest_fill)) | (high > np.fmin(highest, highest_fill))).any():
        return
    outside = ((states < lowest_fill) | (states > highest_fill)) & ~normalizer.mask
    outside[outside] = is_fill_value(stored[outside])
    outside |= ((states < lowest) | (states > highest)) & ~normalizer.mask
    if not outside.any():
        return
    index, channel, row, column = np.argwhere(outside)[0]
    name = normalizer.channels[channel]
    field, value = find_fields(canonical)[name.variable], float(stored[index, channel, row, column])
    place = f"{format_time(times[index])}, {describe_cell(canonical, row, column)}"
    trained = float(states[index, channel, row, column])
    side = int(trained > min(highest[channel, 0, 0], highest_fill[channel, 0, 0]))
    way_out = f"accept it: forecaster.normalizer.extremes[{channel}, {side}] = {trained:.7g}"
    yield _outside_limits(normalizer, channel, field, field.label(name.level), value, place, way_out)


def _outside_limits(
    normalizer: Normalizer, index: int, field: Field, subject: str, value: float, place: str, way_out: str
) -> Finding:
    """Return the finding for a value that cannot be true; if it is, `way_out` says how to go on."""
    units, (low, high), limits = (
        normalizer.units[index],
        normalizer.extremes[index],
        plausible_limits(normalizer)[index],
    )
    clauses = [f"training had {low:.4g} to {high:.4g} {units}".rstrip()] if np.isfinite([low, high]).all() else []
    name = field.meaning.long_name if field.meaning and _known_range(normalizer, index) else "training"
    clauses.append(f"the range of {name} with a margin is {limits[0]:.4g} to {limits[1]:.4g} {units}".rstrip())
    clauses += ["it is a usual fill value"] if is_fill_value(value) else []
    message = f"{subject} is {value:.7g} {field.units or ''}".rstrip() + f" at {place}; {', and '.join(clauses)}"
    code = "fill-values" if is_fill_value(value) else "range"
    fix = f"{_fix_value(field, value)}. If it is true, train on data that have such values, or {way_out}"
    return Finding("error", code, field.source, message, fix)


def _fix_value(field: Field, value: float) -> str:
    """Return the fix for a value that cannot be real: a mask for a usual fill value, or a look at the units."""
    if is_fill_value(value):
        whole = abs(value) < 1e7 and value == int(value)
        valid = f"{field.ds} != {int(value)}" if whole else f"abs({field.ds}) < {abs(value) * 0.99:.3g}"
        return f"{field.ds} = {field.ds}.where({valid})  # a fill value"
    return "Correct the value, the units, or the packing (scale_factor, _FillValue; xr.decode_cf(ds))"


# ---- several series


def unlike_series(series: Sequence[xr.Dataset], channels: Sequence[tuple[reader.Channel, ...]]) -> Iterator[Finding]:
    """Yield the findings for canonical series whose grid, calendar, channels or units differ from the first one's."""
    first = series[0]
    for other, other_channels in zip(series[1:], channels[1:], strict=True):
        try:
            check_same_grid(first, other)
        except ValueError as error:
            yield Finding("error", "grids-differ", "grid", *split_error(error))
        calendars = [dataset["time"].dt.calendar for dataset in (first, other)]
        if calendars[0] != calendars[1]:
            message = f"the calendars of two series differ: {calendars[0]} and {calendars[1]}"
            yield Finding("error", "calendars-differ", "time", message, "ds = ds.convert_calendar('standard')")
        names = [list(map(str, each)) for each in (channels[0], other_channels)]
        if names[0] != names[1]:
            message = f"the channels of two series differ: {names[0]} and {names[1]}"
            yield Finding("error", "channels-differ", "level", message, "Select the same levels in each")
        for name in [name for name in first.data_vars if name in other.data_vars]:
            units = [dataset[name].attrs.get("units", "") for dataset in (first, other)]
            if all(units) and not same_units(*units):
                message = f"{name} is in {units[0]!r} in one series and in {units[1]!r} in another"
                fix = f"Convert it, and set its attribute: ds[{name!r}].attrs['units']"
                yield Finding("error", "units-differ", name, message, fix)


def partly_missing_units(series: Sequence[xr.Dataset]) -> Iterator[Finding]:
    """Yield the findings for variables that have units in some training series only: two scales could mix unseen."""
    for name in series[0].data_vars:
        units = [dataset[name].attrs.get("units", "") for dataset in series]
        if any(units) and not all(units):
            message = f"{name} has no units in dataset[{units.index('')}], but {max(units)!r} in another series"
            yield Finding("error", "units-missing", name, message, f"Set them in each: ds[{name!r}].attrs['units']")


def overlapping_periods(name: str, other_name: str, shared: pd.Index) -> Finding | None:
    """Return a finding if there are `shared` times of the other period that lie within windows of the first."""
    if not len(shared):
        return None
    message = f"{name} and {other_name} overlap: {len(shared)} times of {other_name}, from {format_time(shared[0])} to "
    message += f"{format_time(shared[-1])}, lie within windows of {name}, and scores would be too good"
    fix = "Split by time: train, valid = ds.sel(time=slice(None, '2015')), ds.sel(time='2016')"
    return Finding("error", "split-overlap", "time", message, fix)


# ---- forcings


def find_static(dataset: xr.Dataset, name: str) -> tuple[np.ndarray | None, Finding | None]:
    """Return a field without time, canonical (latitude, longitude), float64; or None and what forbids it."""
    try:
        canonical = canonicalize(dataset, [name])
        field = canonical.dataset[name]
        source = find_fields(canonical)[name].source
        if extra := [dim for dim in field.dims if dim not in ("latitude", "longitude")]:
            message = f"{source} in forcings has dimensions {list_names(extra)}: fields that change are unknown at the "
            message += "times to forecast"
            select = ", ".join(f"{getattr(canonical.axes, dim, dim)}=0" for dim in extra)
            fix = f'Name it in Task.variables, or if it hardly changes:\nds["{source}"] = ds["{source}"]'
            return None, Finding("error", "forcing-changes", source, message, f"{fix}.isel({select}, drop=True)")
        values = field.transpose("latitude", "longitude").values.astype(np.float64)
    except Exception as error:  # absent or unreadable, in whatever way
        near = get_close_matches(name, FORCINGS, n=1)
        message, fix = split_error(error, f"Choose from {list_names(dataset.data_vars)}")
        message = f"{name!r} in forcings is not built in ({', '.join(FORCINGS)}), and not in the data: {message}"
        fix = f"Did you mean {near[0]!r}?" if near else fix
        return None, Finding("error", "forcing-unknown", name, message, fix)
    if missing := int((~np.isfinite(values)).sum()):
        message = f"{source} in forcings has no value in {missing} of {values.size} cells"
        return None, Finding("error", "forcing-missing", source, message, f'ds["{source}"] = ds["{source}"].fillna(0)')
    return values, None
