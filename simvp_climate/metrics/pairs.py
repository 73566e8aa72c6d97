"""Pairs of a forecast and its truth: one for every initialization and lead, read in blocks of bounded size."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr
from xarray.coding.times import infer_calendar_name

from simvp_climate.data.conventions import orient
from simvp_climate.data.grid import closes_longitude, find_member
from simvp_climate.metrics.alignment import (
    SPACE,
    align,
    canonical_grid,
    iso,
    lead_text,
    rename_dimensions,
    with_times,
)
from simvp_climate.metrics.baselines.climatologies import climatology_at

_SEASONS = ("DJF", "MAM", "JJA", "SON")
# float64 bytes of the forecast in one block; the arithmetic needs about ten arrays of this size.
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class StoredBaseline:
    """A forecast of another system, and the positions in it of the initializations and leads of the scored one."""

    forecast: xr.Dataset  # (init_time, lead_time, ...)
    init_positions: np.ndarray
    lead_positions: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Forecast and analyses of the same variables and levels, and the position of the truth of every pair."""

    forecast: xr.Dataset  # (init_time, lead_time, ...), in the order of its file, like analysis and climatology
    analysis: xr.Dataset  # (time, ...)
    climatology: xr.Dataset | None  # (hour, dayofyear, ...) or similar
    grid: dict[str, xr.DataArray]  # canonical coordinates of all three: latitude, longitude, level
    valid_time: xr.DataArray  # (init_time, lead_time)
    valid_positions: np.ndarray  # (init, lead): positions of the valid times in analysis.time
    init_positions: np.ndarray  # (init,): positions of the init times
    complete: np.ndarray  # (init, lead): whether the pair is verified; elsewhere the three above are fillers
    scalar_coords: dict[str, xr.DataArray]  # of the forecast, for the result
    stored_baselines: dict[str, StoredBaseline] = field(default_factory=dict)
    callable_baselines: dict[str, Callable] = field(default_factory=dict)  # forecast from the state at the init time
    event_frequency: xr.Dataset | None = None  # in the layout of the climatology, of some variables

    @property
    def member(self) -> str | None:
        """The dimension of the ensemble members of the forecast, or None."""
        return find_member(self.forecast)

    @property
    def max_wavenumber(self) -> int:
        """The largest zonal wavenumber below the Nyquist frequency; 0 if the longitudes do not circle the globe."""
        longitude = self.grid["longitude"]
        return (longitude.size - 1) // 2 if closes_longitude(longitude) else 0

    @property
    def verified_times(self) -> np.ndarray:
        """Valid times of the verified pairs."""
        return self.valid_time.values[self.complete]


@dataclass(frozen=True)
class Block:
    """Some pairs in memory, in float64, with dims (init_time, lead_time, ...)."""

    systems: dict[str, xr.Dataset]  # the forecast under the name "", and baselines
    truth: xr.Dataset
    climatology: xr.Dataset | None
    complete: xr.DataArray
    event_frequency: xr.Dataset | None = None


class Fields:
    """Forecast, truth and climatology of one variable and block in physical units, and fields derived from them.

    `members` keeps the dimension `member` of an ensemble, and `forecast` is its mean. `probability` is the event
    probability of a system that states one directly, as climatology does.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        truth: xr.Dataset,
        climatology: xr.Dataset | None,
        member: str | None,
        probability: xr.Dataset | None = None,
    ):
        self.truth, self.climatology, self.member, self.probability = truth, climatology, member, probability
        self.members = forecast
        self.forecast = forecast if member is None else forecast.mean(member, skipna=False)

    @cached_property
    def error(self) -> xr.Dataset:
        return self.forecast - self.truth

    @cached_property
    def squared_error(self) -> "Product":
        return Product(self.error, self.error)

    @cached_property
    def anomaly(self) -> xr.Dataset:
        return self.forecast - self.climatology

    @cached_property
    def true_anomaly(self) -> xr.Dataset:
        return self.truth - self.climatology

    @cached_property
    def variance(self) -> xr.Dataset:
        """Variance over the members with the divisor M - 1; NaN for a forecast without members."""
        if self.member is None:
            return self.forecast * np.nan
        return self.members.var(self.member, ddof=1, skipna=False)


@dataclass(frozen=True)
class Product:
    """The product of two fields, kept as factors: its weighted sum needs no copy in memory."""

    first: xr.Dataset
    second: xr.Dataset

    @property
    def value(self) -> xr.Dataset:
        return self.first * self.second


def match(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    baselines: Mapping[str, xr.Dataset | Callable] | None = None,
    event_frequency: xr.Dataset | None = None,
) -> Pairs:
    """Bring all datasets to one grid and find the truth of every pair of initialization and lead.

    `baselines` are forecasts of other systems, or functions like `persistence` that forecast from analyses at init
    times, given these times and the lead times. `event_frequency` is a climatology of events, of some variables. Warns
    of leads without any pair, and of units that only one dataset has.

    Raises
    ------
    ValueError
        If variables, leads or initializations are missing, units or grids differ, or no pair has a truth.
    """
    stored = {name: baseline for name, baseline in (baselines or {}).items() if isinstance(baseline, xr.Dataset)}
    callables = {name: baseline for name, baseline in (baselines or {}).items() if name not in stored}
    times = ("init_time", "lead_time", "valid_time", "time")
    scalar_coords = {name: c for name, c in forecast.coords.items() if c.ndim == 0 and name not in times}
    forecast, valid_time = _sort_inits(*with_times(forecast))
    forecast = rename_dimensions(forecast)
    grid = canonical_grid(forecast)
    analysis = align(forecast, truth, grid, scalar_coords, "the truth")
    if climatology is not None:
        climatology = align(forecast, climatology, grid, scalar_coords, "the climatology")
    if event_frequency is not None:
        variables = forecast[[name for name in forecast.data_vars if name in event_frequency]]
        event_frequency = align(
            variables, event_frequency, grid, scalar_coords, "the event frequency", check_units=False
        )
    stored = {name: _match_stored(forecast, baseline, grid, scalar_coords, name) for name, baseline in stored.items()}
    _check_analysis(forecast, valid_time, truth, analysis)

    index = analysis.indexes["time"]
    valid_positions = index.get_indexer(valid_time.values.ravel()).reshape(valid_time.shape)
    init_positions = index.get_indexer(forecast.init_time.values)
    complete = valid_positions >= 0
    if callables:
        complete &= (init_positions >= 0)[:, np.newaxis]
    _check_complete(complete, forecast, valid_time, index, list(callables))
    # A pair without truth is computed with that of a neighbor and not counted: nothing else has to be read.
    return Pairs(
        forecast=forecast,
        analysis=analysis,
        climatology=climatology,
        grid=grid,
        valid_time=valid_time.copy(data=_fill(valid_time.values, complete)),
        valid_positions=_fill(valid_positions, complete),
        init_positions=_fill(init_positions, init_positions >= 0) if callables else init_positions,
        complete=complete,
        scalar_coords=scalar_coords,
        stored_baselines=stored,
        callable_baselines=callables,
        event_frequency=event_frequency,
    )


def _sort_inits(forecast: xr.Dataset, valid_time: xr.DataArray) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a forecast in the order of its initializations; raise ValueError if one is repeated."""
    inits = forecast.indexes["init_time"]
    if (repeated := inits.duplicated()).any():
        raise ValueError(
            f"the initialization {inits[repeated][0]} appears more than once in the forecast. Keep one: "
            "forecast.drop_duplicates('init_time')"
        )
    if inits.is_monotonic_increasing:
        return forecast, valid_time
    # Blocks of the bootstrap are neighboring initializations.
    order = np.argsort(forecast["init_time"].values, kind="stable")
    return forecast.isel(init_time=order), valid_time.isel(init_time=order)


def _match_stored(
    forecast: xr.Dataset,
    other: xr.Dataset,
    grid: dict[str, xr.DataArray],
    scalar_coords: dict[str, xr.DataArray],
    name: str,
) -> StoredBaseline:
    """Return another system's forecast with the positions of all initializations and leads of the scored one."""
    for dim in ("init_time", "lead_time"):
        if dim in other.coords and other[dim].ndim == 0:  # a single one was selected
            other = other.drop_vars("valid_time", errors="ignore").expand_dims(dim)
    baseline = align(forecast, other, grid, scalar_coords, name)
    if (member := find_member(baseline)) is not None and baseline.sizes[member] == 1:
        baseline = baseline.isel({member: 0}, drop=True)  # one member is a single forecast, without a spread
    positions = {}
    for dim in ("init_time", "lead_time"):
        if dim not in baseline.coords:
            raise ValueError(
                f"the baseline {name!r} has dims {tuple(other.dims)} and no {dim}. Give a forecast with the "
                "initializations and leads of the scored one"
            )
        required, labels = forecast.indexes[dim], baseline.indexes[dim]
        positions[dim] = labels.get_indexer(required)
        if (missing := positions[dim] < 0).any():
            raise ValueError(
                f"{name} lacks {missing.sum()} of the {len(required)} {dim}s of the forecast, first "
                f"{required[missing][0]}; it has {len(labels)}, from {labels[0]} to {labels[-1]}. All systems are "
                f"scored on the same pairs: select those that all have, forecast.sel({dim}=...)"
            )
    return StoredBaseline(baseline, positions["init_time"], positions["lead_time"])


def _check_analysis(forecast: xr.Dataset, valid_time: xr.DataArray, truth: xr.Dataset, analysis: xr.Dataset) -> None:
    """Raise ValueError unless the truth has unique times in the calendar of the forecast, and no dimension of its own.

    `analysis` is the truth on the grid of the forecast.
    """
    if (member := find_member(analysis)) is not None:
        raise ValueError(f"the truth has members along {member!r}: pick one, truth.isel({member}=0)")
    if extra := set(analysis.dims) - {"time", "level", *SPACE} - set(forecast.dims):
        raise ValueError(
            f"the truth has the dimensions {sorted(map(str, extra))} besides time and grid: select from them"
        )
    if "time" not in analysis.indexes:
        raise ValueError(f"the truth has dims {tuple(truth.dims)} and no times: give analyses along 'time'")
    index = analysis.indexes["time"]
    if not index.is_unique:
        raise ValueError(
            f"the time {index[index.duplicated()][0]} appears more than once in the truth: keep one, "
            "truth.drop_duplicates('time')"
        )
    if isinstance(index, xr.CFTimeIndex) != (valid_time.dtype == object):
        calendars = [infer_calendar_name(times) for times in (valid_time, analysis["time"])]
        raise ValueError(
            f"the forecast has the calendar {calendars[0]!r} ({valid_time.dtype}), the truth {calendars[1]!r} "
            f"({analysis['time'].dtype}): convert one, for example truth.convert_calendar(...)"
        )


def _check_complete(
    complete: np.ndarray, forecast: xr.Dataset, valid_time: xr.DataArray, index: xr.Index, callables: list[str]
) -> None:
    """Raise ValueError if no pair has a truth; warn of leads without any pair."""
    if not complete.any():
        times = np.sort(valid_time.values, axis=None)
        message = (
            f"no forecast can be verified: the forecast is valid from {iso(times[0])} to {iso(times[-1])}, "
            f"the truth has {len(index)} times from {index.min()} to {index.max()}"
        )
        if callables:
            message += (
                f"; {' and '.join(callables)} also needs it at init times, from {iso(forecast.init_time.values.min())}"
                + (" (or pass persistence=False)" if "persistence" in callables else "")
            )
        raise ValueError(message)
    if (unverified := ~complete.any(axis=0)).any():
        leads = [lead_text(lead) for lead in forecast["lead_time"].values[unverified]]
        text = ", ".join(leads) if len(leads) <= 12 else f"{leads[0]} to {leads[-1]} ({len(leads)} leads)"
        also = f", and at the init time for {' and '.join(callables)}" if callables else ""
        warnings.warn(
            f"no forecast has a truth at the leads {text}, so they have no score. A pair needs an analysis at the "
            f"valid time{also}: give analyses to {iso(valid_time.values.max())}, or leave the leads out",
            stacklevel=4,
        )


def _fill(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return values with unusable ones replaced by the usable one before, or else by the first usable one."""
    order = np.where(usable.ravel(), np.arange(usable.size), np.flatnonzero(usable)[0])
    return values.ravel()[np.maximum.accumulate(order)].reshape(values.shape)


def blocks(pairs: Pairs) -> Iterator[tuple[slice, slice]]:
    """Yield slices of (init, lead) whose forecasts fit in a block, with all leads if possible."""
    inits, leads = pairs.complete.shape
    pair_bytes = sum(variable.size for variable in pairs.forecast.data_vars.values()) * 8 // (inits * leads)
    # A baseline may be computed from more variables than are scored.
    state_bytes = sum(variable.size for variable in pairs.analysis.data_vars.values()) * 8
    pair_bytes = max(pair_bytes, state_bytes // pairs.analysis.sizes["time"], 1)
    block_pairs = max(_BLOCK_BYTES // pair_bytes, 1)
    width = min(leads, block_pairs)
    height = max(block_pairs // width, 1)
    for column in range(0, leads, width):
        for row in range(0, inits, height):
            yield slice(row, min(row + height, inits)), slice(column, min(column + width, leads))


def read(pairs: Pairs, inits: slice, leads: slice) -> Block:
    """Read a block of pairs, and each analysis in it once."""
    valid_positions, init_positions = pairs.valid_positions[inits, leads], pairs.init_positions[inits]
    needed = valid_positions.ravel()
    if pairs.callable_baselines:
        needed = np.append(needed, init_positions)
    needed = np.unique(needed)
    steps = np.unique(np.diff(needed))
    # Files read slices faster than lists.
    positions = slice(needed[0], needed[-1] + 1, steps[0]) if len(steps) == 1 else needed
    analysis = _load(pairs.analysis.isel(time=positions), pairs.grid)
    truth_positions = xr.DataArray(np.searchsorted(needed, valid_positions), dims=("init_time", "lead_time"))
    truth = analysis.drop_vars("time").isel(time=truth_positions).transpose("init_time", "lead_time", ...)

    forecast = _load(pairs.forecast.isel(init_time=inits, lead_time=leads), pairs.grid)
    times = {"init_time": forecast["init_time"], "lead_time": forecast["lead_time"]}
    systems = {"": forecast}
    for name, stored in pairs.stored_baselines.items():
        rows, columns = stored.init_positions[inits], stored.lead_positions[leads]
        baseline = _load(stored.forecast.isel(init_time=rows, lead_time=columns), pairs.grid)
        systems[name] = baseline.transpose("init_time", "lead_time", ...).assign_coords(times)
    if pairs.callable_baselines:
        # Fillers repeat init times: each is forecast once.
        distinct, inverse = np.unique(np.searchsorted(needed, init_positions), return_inverse=True)
        states = analysis.isel(time=distinct)
    for name, function in pairs.callable_baselines.items():
        try:
            baseline = function(states, states["time"], forecast["lead_time"])
        except ValueError as error:
            raise ValueError(f"the baseline {name!r} cannot be computed for this forecast: {error}") from error
        baseline = baseline.isel(init_time=inverse).reset_coords(drop=True)[list(forecast.data_vars)]
        grid = _grid_of(baseline, pairs.grid)
        systems[name] = baseline.transpose("init_time", "lead_time", ...).assign_coords(**times, **grid)
    valid_time = pairs.valid_time[inits, leads]
    return Block(
        systems=systems,
        truth=truth,
        climatology=_load_climatology(pairs.climatology, valid_time, pairs.grid),
        complete=xr.DataArray(pairs.complete[inits, leads], dims=("init_time", "lead_time")),
        event_frequency=_load_climatology(pairs.event_frequency, valid_time, pairs.grid),
    )


def _load(dataset: xr.Dataset, grid: dict[str, xr.DataArray]) -> xr.Dataset:
    """Return a dataset in memory on the canonical grid, as float64, with the coordinates of the forecast."""
    # Oriented after reading: xarray reads a lazy variable with transposed dimensions point by point. The coordinates
    # of the forecast itself: check_same_grid tolerates rounding, xarray's alignment does not.
    return orient(dataset.compute()).assign_coords(_grid_of(dataset, grid)).astype(np.float64)


def _load_climatology(
    climatology: xr.Dataset | None, valid_time: xr.DataArray, grid: dict[str, xr.DataArray]
) -> xr.Dataset | None:
    """Return the climatology at the valid times, read with all days around them: faster than single times."""
    if climatology is None:
        return None
    if "dayofyear" in climatology.dims:
        needed = climatology.indexes["dayofyear"].isin(np.unique(valid_time.dt.dayofyear.values))
        if needed.any():  # otherwise climatology_at names what is missing
            climatology = climatology.isel(dayofyear=np.flatnonzero(needed))
    return climatology_at(_load(climatology, grid), valid_time)


def _grid_of(dataset: xr.Dataset, grid: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    return {name: c for name, c in grid.items() if name in dataset.dims}


def fields_of_systems(
    block: Block, systems: dict[str, xr.Dataset], member_dims: dict[str, str | None], variable: str, skipna: bool
) -> Iterator[tuple[str, Fields]]:
    """Yield the fields of a variable for every system; with `skipna` they have values in the same cells."""
    truth = block.truth[[variable]]
    climatology = None if block.climatology is None else block.climatology[[variable]]
    forecasts = {name: dataset[[variable]] for name, dataset in systems.items()}
    probabilities = {}
    if block.event_frequency is not None and variable in block.event_frequency and "climatology" in systems:
        probabilities["climatology"] = block.event_frequency[[variable]]
    if skipna and len(systems) > 1:
        common = truth.notnull()
        for name, forecast in forecasts.items():
            common = common & Fields(forecast, truth, climatology, member_dims[name]).forecast.notnull()
        for probability in probabilities.values():
            common = common & probability.notnull()
        forecasts = {name: forecast.where(common) for name, forecast in forecasts.items()}
        truth = truth.where(common)
    for name, forecast in forecasts.items():
        yield name, Fields(forecast, truth, climatology, member_dims[name], probabilities.get(name))


def update_mask(mask: xr.Dataset | None, forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Return the cells without a value in any pair so far; raise ValueError if one of them has a value now."""
    pair_dims = ("init_time", "lead_time")
    # A sum shows faster than every cell that nothing is missing.
    if any(np.isfinite(dataset.sum(skipna=False).to_array()).all() for dataset in (forecast, truth)):
        empty = truth.isel(dict.fromkeys(pair_dims, 0), drop=True).map(lambda field: xr.zeros_like(field, dtype=bool))
        empty = empty.broadcast_like(forecast.isel(dict.fromkeys(pair_dims, 0), drop=True))
    else:
        empty = (forecast.isnull() & truth.isnull()).all(pair_dims)
    if mask is None or empty.equals(mask):
        return empty
    for name, masked in mask.data_vars.items():
        if (masked & ~empty[name]).any():
            raise ValueError(
                f"the mask of {name!r} moves: {int((masked & ~empty[name]).sum())} cells have no value in the first "
                "pairs and one in later pairs. Pass skipna=True to leave out the missing cells of each pair"
            )
    return mask


def members_of(pairs: Pairs) -> str:
    """Return the dimension of the ensemble members; raise ValueError if the forecast has fewer than two."""
    member = pairs.member
    if member is None:
        raise ValueError(
            f"the forecast has dims {tuple(pairs.forecast.dims)} and no ensemble members (number, realization or "
            "member), which this score needs. Score an ensemble, or choose other metrics"
        )
    if pairs.forecast.sizes[member] < 2:
        raise ValueError(
            f"the ensemble has one member along {member!r}, and therefore no spread. Score it as a single forecast: "
            f"forecast.isel({member}=0)"
        )
    return member


def refuse_fits(pairs: Pairs) -> None:
    """Raise ValueError if a baseline that forecasts from the state was fitted on verified times."""
    for name, baseline in pairs.callable_baselines.items():
        fitted = getattr(baseline, "damping", getattr(baseline, "patterns", None))
        if fitted is not None:
            refuse_overlap(fitted.attrs, "fitted", f"the baseline {name!r}", pairs)
        climatology = getattr(baseline, "climatology", None)
        if isinstance(climatology, xr.Dataset):
            refuse_overlap(climatology.attrs, "climatology", f"the climatology of the baseline {name!r}", pairs)


def refuse_overlap(attrs: Mapping, prefix: str, role: str, pairs: Pairs) -> None:
    """Raise ValueError if verified times lie in the period of a climatology or fit, if its attributes state one.

    They are `<prefix>_start` and `<prefix>_end`, ISO text.
    """
    refuse_times(attrs, prefix, role, pairs.verified_times)


def refuse_times(attrs: Mapping, prefix: str, role: str, times: np.ndarray) -> None:
    """Raise ValueError if some of the times lie in the period that attributes state, as in `refuse_overlap`."""
    start, end = (attrs.get(f"{prefix}_{edge}") for edge in ("start", "end"))
    if start is None or end is None:
        return
    # ISO text sorts like the times, also across calendars.
    overlapping = [text for text in map(iso, times) if start <= text <= end]
    if overlapping:
        raise ValueError(
            f"{role} is from {start} to {end}, and {len(overlapping)} verified times lie in it, from "
            f"{min(overlapping)} to {max(overlapping)}: it has seen the truth. Compute it from the training years "
            "alone, or pass allow_overlap=True"
        )


def group_masks(by: str | None, pairs: Pairs) -> dict[str | int, xr.DataArray | None]:
    """Return the pairs of each season or month as booleans (init_time, lead_time); for None {"": None}, all pairs."""
    if by is None:
        return {"": None}
    if by not in ("season", "month"):
        raise ValueError(f"by={by!r} is unknown: choose 'season', 'month' or None")
    group = getattr(pairs.valid_time.dt, by)
    present = set(group.values[pairs.complete].tolist())
    labels = [name for name in (_SEASONS if by == "season" else range(1, 13)) if name in present]
    return {label: (group == label).reset_coords(drop=True) for label in labels}
