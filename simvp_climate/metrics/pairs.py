"""Which forecast belongs to which truth: every pair of initialization and lead, read in blocks of bounded size."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from xarray.coding.times import infer_calendar_name

from simvp_climate.data.conventions import orient
from simvp_climate.data.grid import find_member
from simvp_climate.metrics.alignment import SPACE, _oriented, _renamed, comparable, iso, lead_text, with_times
from simvp_climate.metrics.baselines.climatologies import climatology_at

_SEASONS = ("DJF", "MAM", "JJA", "SON")

# float64 bytes of the forecast in one block; the arithmetic holds about ten arrays of this size
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Other:
    """A forecast of another system, and where in it the inits and leads of the first one lie."""

    forecast: xr.Dataset  # (init_time, lead_time, ...)
    at_init: np.ndarray
    at_lead: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Forecast and analyses of the same variables and levels, and where the truth of every pair lies."""

    forecast: xr.Dataset  # (init_time, lead_time, ...), in the order of its file like the next two
    analysis: xr.Dataset  # (time, ...)
    climatology: xr.Dataset | None  # (hour, dayofyear, ...) or the like
    grid: dict[str, xr.DataArray]  # the canonical coordinates of all three: latitude, longitude, level
    valid_time: xr.DataArray  # (init_time, lead_time)
    at_valid: np.ndarray  # (init, lead): positions in analysis.time
    at_init: np.ndarray  # (init,): the same for the init time
    complete: np.ndarray  # (init, lead): whether it is verified; where not, the three above hold fillers
    kept: dict[str, xr.DataArray]  # scalar coordinates of the forecast, for the result
    others: dict[str, Other] = field(default_factory=dict)
    made: dict[str, Callable] = field(default_factory=dict)  # baselines that are made from the state at init time
    frequency: xr.Dataset | None = None  # how often an event is, in the layout of the climatology, of some variables

    @property
    def needs_init(self) -> bool:
        """Whether the analysis at the init times is read."""
        return bool(self.made)


@dataclass(frozen=True)
class Block:
    """Some pairs in memory, in float64, all with dims (init_time, lead_time, ...)."""

    systems: dict[str, xr.Dataset]  # the forecast by the name "", the others by theirs
    truth: xr.Dataset
    climatology: xr.Dataset | None
    complete: xr.DataArray
    frequency: xr.Dataset | None = None


def match(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    baselines: Mapping[str, xr.Dataset | Callable] | None = None,
    frequency: xr.Dataset | None = None,
) -> Pairs:
    """Bring all to one grid and find the truth of every pair.

    `baselines` are forecasts of other systems, or functions that make them: of analyses at init times, these times and
    the lead times, like `persistence`. `frequency` is a climatology of how often an event is, of some of the variables.
    Warns of leads without any pair, and of units that only one side has.

    Raises
    ------
    ValueError
        If variables, leads or initializations are missing, units or grids differ, or no pair has a truth.
    """
    baselines = baselines or {}
    made = {name: one for name, one in baselines.items() if not isinstance(one, xr.Dataset)}
    times = ("init_time", "lead_time", "valid_time", "time")
    kept = {name: c for name, c in forecast.coords.items() if c.ndim == 0 and name not in times}
    forecast, valid_time = with_times(forecast)
    if (twice := forecast.indexes["init_time"].duplicated()).any():
        raise ValueError(
            f"the initialization {forecast.indexes['init_time'][twice][0]} is there more than once: keep one, "
            "forecast.drop_duplicates('init_time')"
        )
    if not forecast.indexes["init_time"].is_monotonic_increasing:  # blocks of initializations are neighbors
        order = np.argsort(forecast["init_time"].values, kind="stable")
        forecast, valid_time = forecast.isel(init_time=order), valid_time.isel(init_time=order)
    forecast = _renamed(forecast)
    grid = {name: c for name, c in _oriented(forecast).coords.items() if name in (*SPACE, "level")}
    analysis = comparable(forecast, truth, grid, kept, "the truth")
    if climatology is not None:
        climatology = comparable(forecast, climatology, grid, kept, "the climatology")
    if frequency is not None:
        names = [name for name in forecast.data_vars if name in frequency]
        frequency = comparable(forecast[names], frequency, grid, kept, "the event frequency", units=False)
    others = {
        name: _other(forecast, one, grid, kept, name) for name, one in baselines.items() if isinstance(one, xr.Dataset)
    }
    extra = set(analysis.dims) - {"time", "level", *SPACE} - set(forecast.dims)
    if (member := find_member(analysis)) is not None:
        raise ValueError(f"the truth has members along {member!r}: pick one, truth.isel({member}=0)")
    if extra:
        raise ValueError(f"the truth has the dimensions {sorted(map(str, extra))} beyond time and grid: pick from them")
    if "time" not in analysis.indexes:
        raise ValueError(f"the truth has dims {tuple(truth.dims)} and no times: give analyses along 'time'")
    index = analysis.indexes["time"]
    if not index.is_unique:
        raise ValueError(
            f"the time {index[index.duplicated()][0]} appears more than once in the truth: keep one, "
            "truth.drop_duplicates('time')"
        )
    if isinstance(index, xr.CFTimeIndex) != (valid_time.dtype == object):
        calendars = [infer_calendar_name(one) for one in (valid_time, analysis["time"])]
        raise ValueError(
            f"the forecast has the calendar {calendars[0]!r} ({valid_time.dtype}), the truth {calendars[1]!r} "
            f"({analysis['time'].dtype}): convert one, for example truth.convert_calendar(...)"
        )
    at_valid = index.get_indexer(valid_time.values.ravel()).reshape(valid_time.shape)
    at_init = index.get_indexer(forecast.init_time.values)
    complete = at_valid >= 0
    if made:
        complete &= (at_init >= 0)[:, np.newaxis]
    if not complete.any():
        times = np.sort(valid_time.values, axis=None)
        message = (
            f"no forecast can be verified: the forecast is valid from {iso(times[0])} to {iso(times[-1])}, "
            f"the truth has {len(index)} times from {index.min()} to {index.max()}"
        )
        if made:
            message += (
                f"; {' and '.join(made)} also needs it at init times, from {iso(forecast.init_time.values.min())}"
                + (" (or say persistence=False)" if "persistence" in made else "")
            )
        raise ValueError(message)
    if (without := ~complete.any(axis=0)).any():
        leads = [lead_text(lead) for lead in forecast["lead_time"].values[without]]
        which = ", ".join(leads) if len(leads) <= 12 else f"{leads[0]} to {leads[-1]} ({len(leads)} of them)"
        needed = f" at the valid time, and at the init time for {' and '.join(made)}" if made else " at the valid time"
        warnings.warn(
            f"no forecast has a truth at the leads {which}, so that these have no score: a pair takes an analysis"
            f"{needed}. Give analyses to {iso(valid_time.values.max())}, or leave the leads out",
            stacklevel=3,
        )
    # pairs without truth are computed with that of a neighbor and then not counted: nothing more is read
    return Pairs(
        forecast=forecast,
        analysis=analysis,
        climatology=climatology,
        grid=grid,
        valid_time=valid_time.copy(data=_nearby(valid_time.values, complete)),
        at_valid=_nearby(at_valid, complete),
        at_init=_nearby(at_init, at_init >= 0) if made else at_init,
        complete=complete,
        kept=kept,
        others=others,
        made=made,
        frequency=frequency,
    )


def _other(
    forecast: xr.Dataset, other: xr.Dataset, grid: dict[str, xr.DataArray], kept: dict[str, xr.DataArray], name: str
) -> Other:
    """Return another system's forecast with what is needed of it; it must have all leads and initializations."""
    for dim in ("init_time", "lead_time"):
        if dim in other.coords and other[dim].ndim == 0:  # one that was picked
            other = other.drop_vars("valid_time", errors="ignore").expand_dims(dim)
    found = comparable(forecast, other, grid, kept, name)
    if (member := find_member(found)) is not None and found.sizes[member] == 1:
        found = found.isel({member: 0}, drop=True)  # one member is a single forecast, without a spread
    positions = {}
    for dim in ("init_time", "lead_time"):
        if dim not in found.coords:
            raise ValueError(f"{name} has dims {tuple(other.dims)} and no {dim}: it must be a forecast like the first")
        wanted = forecast.indexes[dim]
        at = positions[dim] = found.indexes[dim].get_indexer(wanted)
        if (at < 0).any():
            raise ValueError(
                f"{name} lacks {(at < 0).sum()} of the {len(wanted)} {dim}s of the forecast, the first of them "
                f"{wanted[at < 0][0]}; it has {len(found.indexes[dim])}, from {found.indexes[dim][0]} to "
                f"{found.indexes[dim][-1]}. All systems are scored on the same pairs: take those that all have, "
                f"forecast.sel({dim}=...)"
            )
    return Other(found, positions["init_time"], positions["lead_time"])


def _nearby(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return values with those that are not usable replaced by the usable one before, or the first."""
    order = np.where(usable.ravel(), np.arange(usable.size), np.flatnonzero(usable)[0])
    return values.ravel()[np.maximum.accumulate(order)].reshape(values.shape)


def blocks(pairs: Pairs) -> Iterator[tuple[slice, slice]]:
    """Return slices of (init, lead) whose forecasts fit in a block, whole runs of leads if possible."""
    count, leads = pairs.complete.shape
    one = sum(variable.size for variable in pairs.forecast.data_vars.values()) * 8 // (count * leads)
    # baselines may be made from more variables than are scored
    state = sum(variable.size for variable in pairs.analysis.data_vars.values()) * 8 // pairs.analysis.sizes["time"]
    one = max(one, state)
    fitting = max(_BLOCK_BYTES // max(one, 1), 1)
    width = min(leads, fitting)
    height = max(fitting // width, 1)
    for column in range(0, leads, width):
        for row in range(0, count, height):
            yield slice(row, min(row + height, count)), slice(column, min(column + width, leads))


def read(pairs: Pairs, inits: slice, leads: slice) -> Block:
    """Read a block of pairs, each analysis in it once."""

    def loaded(dataset: xr.Dataset) -> xr.Dataset:
        # oriented only now: a lazy variable with transposed dimensions would be read point by point.
        # The coordinates of the forecast itself: check_same_grid allows for noise, xarray's alignment does not
        grid = {name: c for name, c in pairs.grid.items() if name in dataset.dims}
        return orient(dataset.compute()).assign_coords(grid).astype(np.float64)

    at_valid, at_init = pairs.at_valid[inits, leads], pairs.at_init[inits]
    wanted = np.unique(np.append(at_valid, at_init) if pairs.needs_init else at_valid)
    steps = np.unique(np.diff(wanted))
    # files read slices faster than lists
    positions = slice(wanted[0], wanted[-1] + 1, steps[0]) if len(steps) == 1 else wanted
    analysis = loaded(pairs.analysis.isel(time=positions))
    nameless = analysis.drop_vars("time")

    def at(positions: np.ndarray) -> xr.Dataset:
        where = xr.DataArray(np.searchsorted(wanted, positions), dims=("init_time", "lead_time"))
        return nameless.isel(time=where).transpose("init_time", "lead_time", ...)

    forecast = loaded(pairs.forecast.isel(init_time=inits, lead_time=leads))
    order = ("init_time", "lead_time", ...)
    systems = {"": forecast}
    for name, other in pairs.others.items():
        rows, columns = other.at_init[inits], other.at_lead[leads]
        found = loaded(other.forecast.isel(init_time=rows, lead_time=columns)).transpose(*order)
        systems[name] = found.assign_coords(init_time=forecast["init_time"], lead_time=forecast["lead_time"])
    starts = np.searchsorted(wanted, at_init) if pairs.needs_init else None
    for name, make in pairs.made.items():
        # fillers may stand in the place of times that are not there, so times repeat: each is forecast once
        distinct, back = np.unique(starts, return_inverse=True)
        states = analysis.isel(time=distinct)
        try:
            found = make(states, states["time"], forecast["lead_time"])
        except ValueError as error:
            raise ValueError(f"the baseline {name!r} cannot be made of what the forecast has: {error}") from error
        found = found.isel(init_time=back).reset_coords(drop=True)
        found = found[list(forecast.data_vars)].transpose(*order)
        systems[name] = found.assign_coords(
            init_time=forecast["init_time"], lead_time=forecast["lead_time"], **_grid_of(found, pairs.grid)
        )
    return Block(
        systems=systems,
        truth=at(at_valid),
        climatology=None
        if pairs.climatology is None
        else _normal(loaded, pairs.climatology, pairs.valid_time[inits, leads]),
        complete=xr.DataArray(pairs.complete[inits, leads], dims=("init_time", "lead_time")),
        frequency=None if pairs.frequency is None else _normal(loaded, pairs.frequency, pairs.valid_time[inits, leads]),
    )


def _normal(
    loaded: Callable[[xr.Dataset], xr.Dataset], climatology: xr.Dataset, valid_time: xr.DataArray
) -> xr.Dataset:
    """Return the climatology at some times, from the days around them: files read these faster than single times."""
    if "dayofyear" in climatology.dims:
        there = climatology.indexes["dayofyear"]
        near = there.isin(np.unique(valid_time.dt.dayofyear.values))
        if near.any():  # else the lookup says what is missing
            climatology = climatology.isel(dayofyear=np.flatnonzero(near))
    return climatology_at(loaded(climatology), valid_time)


def _grid_of(dataset: xr.Dataset, grid: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    return {name: c for name, c in grid.items() if name in dataset.dims}


def refuse_fits(pairs: Pairs) -> None:
    """Raise ValueError if a baseline that is made from the state was fitted on verified times."""
    for name, one in pairs.made.items():
        fitted = getattr(one, "damping", getattr(one, "patterns", None))
        if fitted is not None:
            refuse_overlap(fitted.attrs, "fitted", f"the baseline {name!r}", pairs)
        around = getattr(one, "climatology", None)
        if isinstance(around, xr.Dataset):
            refuse_overlap(around.attrs, "climatology", f"the climatology of the baseline {name!r}", pairs)


def refuse_overlap(attrs: Mapping, prefix: str, what: str, pairs: Pairs) -> None:
    """Raise ValueError if verified times lie in the period of a climatology or fit, as far as its attributes say one.

    They are `<prefix>_start` and `<prefix>_end`, ISO text.
    """
    refuse_times(attrs, prefix, what, pairs.valid_time.values[pairs.complete])


def refuse_times(attrs: Mapping, prefix: str, what: str, times: np.ndarray) -> None:
    """Do the same for some times."""
    start, end = (attrs.get(f"{prefix}_{word}") for word in ("start", "end"))
    if start is None or end is None:
        return
    # ISO text sorts like the times, also across calendars
    inside = [text for text in map(iso, times) if start <= text <= end]
    if inside:
        raise ValueError(
            f"{what} is from {start} to {end}, and {len(inside)} verified times lie in it, from "
            f"{min(inside)} to {max(inside)}: it has seen the truth. Compute it from the training years "
            "alone, or say allow_overlap=True"
        )


def group_masks(by: str | None, pairs: Pairs) -> dict[str | int, xr.DataArray | None]:
    """Return which pairs are in which season or month, (init_time, lead_time); all of them by the name "".

    Raises ValueError if `by` is neither.
    """
    if by is None:
        return {"": None}
    if by not in ("season", "month"):
        raise ValueError(f"by={by!r} is unknown: choose 'season', 'month' or None")
    found = getattr(pairs.valid_time.dt, by)
    there = set(found.values[pairs.complete].tolist())
    labels = [name for name in (_SEASONS if by == "season" else range(1, 13)) if name in there]
    return {label: (found == label).reset_coords(drop=True) for label in labels}
