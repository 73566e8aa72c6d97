"""How good a forecast is: a statistic per cell first, then the weighted mean, the root last.

Every function takes a forecast and the analyses that hold the truth, finds the truth at the `valid_time` of
the forecast, and pools over initializations and the grid. Inputs may be lazy: they are read in blocks of
bounded size, and what comes out is computed. Sums are accumulated in float64.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_axes, orient, rename, same_grid
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import valid_times
from simvp_climate.grid import closes_longitude, latitude_weights
from simvp_climate.verification.baselines import climatology_at

# float64 bytes of the forecast in one block; the arithmetic holds about ten arrays of this size
_BLOCK_BYTES = 32 * 2**20

_SPACE = ("latitude", "longitude")


def rmse(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the root mean square error of a forecast.

    sqrt(<(forecast - truth)^2>), where <> is one weighted mean over initializations and cells and the root
    comes last, as in WeatherBench 1 (its code), WeatherBench 2 and WeatherBench-X.

    Parameters
    ----------
    forecast
        Dims (init_time, lead_time, [level,] latitude, longitude), in any order and CF convention. The truth
        is looked up at its coordinate `valid_time(init_time, lead_time)`; without one, at init_time +
        lead_time.
    truth
        Analyses with a dimension `time`, in any CF convention, on the same grid. Pairs of init and lead
        without an analysis are left out; a lead without any pair is NaN.
    weights
        "area": area of the cells (`latitude_weights`); "cos": cosine of the latitude, as WeatherBench 1;
        None: every cell counts the same.
    skipna
        False: cells without a value in forecast and truth at any time (a mask, as land for the sea surface
        temperature) are left out; any other missing value in a pair makes the result NaN. True: a cell counts where
        forecast and truth are both there, in the sum and in the sum of the weights.

    Returns
    -------
    Dataset in memory with the variables of the forecast, in their units, dims (lead_time[, level]) and any other
    dimension of the forecast.

    Raises
    ------
    ValueError
        If variables are missing from the truth, units or grids differ, no pair has a truth, or a mask moves.
    """
    return _single("rmse", forecast, truth, None, weights, skipna)


def mae(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the mean absolute error <|forecast - truth|>; arguments, result and errors as in `rmse`."""
    return _single("mae", forecast, truth, None, weights, skipna)


def bias(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the mean error <forecast - truth>; arguments, result and errors as in `rmse`."""
    return _single("bias", forecast, truth, None, weights, skipna)


def acc(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset,
    *,
    kind: Literal["pooled", "per_init"] = "pooled",
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the anomaly correlation <a b> / sqrt(<a^2> <b^2>), a and b the anomalies of forecast and truth.

    Anomalies are differences from the climatology at the valid time; no other mean is removed from them.

    Parameters
    ----------
    forecast, truth, weights, skipna
        As in `rmse`. With `skipna`, the climatology must be there too where a cell counts.
    climatology
        As `climatology` gives it, or one of WeatherBench 2.
    kind
        "pooled": the three means over initializations and cells, then one ratio, as WeatherBench-X.
        "per_init": the ratio of means over cells for every initialization, then the mean of the ratios, as
        WeatherBench 2.

    Returns
    -------
    Dataset as from `rmse`, without unit, from -1 to 1; NaN where an anomaly is zero throughout.

    Raises
    ------
    ValueError
        As in `rmse`, or if the climatology lacks a valid time or `kind` is unknown.
    """
    if kind not in ("pooled", "per_init"):
        raise ValueError(f"kind={kind!r} is unknown: choose 'pooled' or 'per_init'")
    return _single("acc", forecast, truth, climatology, weights, skipna, per_init=kind == "per_init")


def small_scale_variance(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    wavenumbers: tuple[int, int] = (10, 19),
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the variance at small scales in the forecast relative to that in the truth.

    The variance along circles of latitude in the zonal wavenumbers from the first to the last of
    `wavenumbers` (2 |F_k|^2, F the discrete Fourier transform divided by the number of longitudes),
    averaged like the other statistics. 1 means as sharp as the truth, less means blurred.

    Parameters
    ----------
    forecast, truth, weights
        As in `rmse`, on a grid that goes round the globe.
    wavenumbers
        First and last zonal wavenumber, both included.
    skipna
        True: only complete circles of latitude count, complete in forecast and truth.

    Returns
    -------
    Dataset as from `rmse`, without unit.

    Raises
    ------
    ValueError
        As in `rmse`, or if the grid does not close in longitude or does not resolve the wavenumbers.
    """
    pairs = _match(forecast, truth, None)
    _check_wavenumbers(pairs.grid["longitude"], wavenumbers)
    metrics = {"small_scale_variance": _small_scale_variance(wavenumbers)}
    sums = _sums(pairs, {"forecast": _of_forecast}, metrics, weights, skipna)
    return _finished(sums["forecast", "small_scale_variance"], metrics["small_scale_variance"], pairs)


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None = None,
    *,
    metrics: Sequence[str] | None = None,
    persistence: bool = True,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the scores of a forecast beside those of persistence and climatology.

    Every system is scored on the same pairs of init and lead: those with a truth at the valid time and, for
    persistence, at the init time. With `skipna` also on the same cells.

    Parameters
    ----------
    forecast, truth, weights, skipna
        As in `rmse`. The forecast's attribute `system` names it in the result, "forecast" if it has none.
    climatology
        As `climatology` gives it. Without one there is no anomaly correlation and no system "climatology".
    metrics
        Some of "rmse", "mae", "bias", "acc" (pooled) and "small_scale_variance" (wavenumbers 10 to 19), in
        the order wanted. None: all that apply; the last one applies to grids round the globe with 39
        longitudes or more.
    persistence
        Whether persistence is scored.
    allow_overlap
        Whether the climatology may come from a period with verified times in it.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (system, metric, lead_time[, level]) and the number
    of initializations in the coordinate `pairs(lead_time)`. The attribute `units` of a variable is the unit of its
    rmse, mae and bias; acc and small_scale_variance have none. The acc of climatology is NaN.

    Raises
    ------
    ValueError
        As in the functions for single metrics; if a metric is unknown or does not apply; or if verified
        times lie in the period of the climatology.
    """
    pairs = _match(forecast, truth, climatology, needs_init=persistence)
    chosen = _choose(metrics, pairs)
    if climatology is not None and not allow_overlap:
        _refuse_overlap(climatology, pairs)
    system = str(forecast.attrs.get("system", "forecast"))
    if system in ("persistence", "climatology"):
        raise ValueError(
            f"the forecast's attribute system={system!r} is the name of a baseline: give it another, "
            "forecast.assign_attrs(system='my model')"
        )
    systems = {system: _of_forecast}
    if persistence:
        systems["persistence"] = _of_persistence
    if climatology is not None:
        systems["climatology"] = _of_climatology
    sums = _sums(pairs, systems, chosen, weights, skipna)

    # plain text labels: pandas would make them strings that NetCDF cannot hold
    metric_labels = xr.DataArray(np.array(list(chosen)), dims="metric", name="metric")
    system_labels = xr.DataArray(np.array(list(systems)), dims="system", name="system")
    result = _concat(
        [
            _concat([_finished(sums[name, label], chosen[label], pairs) for label in chosen], metric_labels)
            for name in systems
        ],
        system_labels,
    )
    if climatology is not None and "acc" in chosen:
        # its anomalies are zero, up to the rounding of the store that it came from
        result = result.where((result.system != "climatology") | (result.metric != "acc"))
    for name, variable in pairs.forecast.data_vars.items():
        result[name].attrs = _attributes(variable, pairs.analysis[name], dimensionless=False)
    verified = pairs.valid_time.values[pairs.complete]
    counts = pairs.complete.sum(axis=0)
    result = result.assign_coords(
        pairs=("lead_time", counts, {"long_name": "number of initializations that were verified"})
    )
    result["metric"].attrs["units"] = "rmse, mae and bias: those of the variable; others: 1"
    result = result.transpose("system", "metric", "lead_time", "level", ..., missing_dims="ignore")
    return result.assign_attrs(
        # a score means little without them: coarser grids give lower errors
        grid=" x ".join(f"{pairs.grid[dim].size} {dim}s" for dim in _SPACE[::-1]),
        verified_start=_iso(verified.min()),
        verified_end=_iso(verified.max()),
        weights=str(weights),
        missing_values="left out" if skipna else "left out where never there, else propagated",
        **{
            key: climatology.attrs[key]
            for key in ("climatology_method", "climatology_start", "climatology_end")
            if climatology is not None and key in climatology.attrs
        },
    )


@dataclass(frozen=True)
class _Metric:
    """The fields whose means a metric needs, and the metric from these means."""

    fields: Callable[[xr.Dataset, xr.Dataset, xr.Dataset | None], tuple[xr.Dataset, ...]]
    finish: Callable[..., xr.Dataset]
    dimensionless: bool = False


@dataclass(frozen=True)
class _Pairs:
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


@dataclass(frozen=True)
class _Block:
    """Some pairs in memory, in float64, all with dims (init_time, lead_time, ...)."""

    forecast: xr.Dataset
    truth: xr.Dataset
    persistence: xr.Dataset | None
    climatology: xr.Dataset | None
    complete: xr.DataArray


def _of_forecast(block: _Block) -> xr.Dataset:
    return block.forecast


def _of_persistence(block: _Block) -> xr.Dataset:
    return block.persistence


def _of_climatology(block: _Block) -> xr.Dataset:
    return block.climatology


def _small_scale_variance(wavenumbers: tuple[int, int]) -> _Metric:
    first, last = wavenumbers

    def variance(field: xr.DataArray) -> xr.DataArray:
        values = field.transpose(..., "longitude")
        spectrum = np.fft.rfft(values.values, norm="forward")[..., first : last + 1]
        return values.isel(longitude=0, drop=True).copy(data=2 * (np.abs(spectrum) ** 2).sum(axis=-1))

    return _Metric(
        fields=lambda f, t, c: (f.map(variance), t.map(variance)),
        finish=lambda f, t: _ratio(f, t),
        dimensionless=True,
    )


def _anomaly_products(f: xr.Dataset, t: xr.Dataset, c: xr.Dataset) -> tuple[xr.Dataset, ...]:
    a, b = f - c, t - c
    return a * b, a**2, b**2


_METRICS = {
    "rmse": _Metric(lambda f, t, c: ((f - t) ** 2,), lambda square: np.sqrt(square)),
    "mae": _Metric(lambda f, t, c: (abs(f - t),), lambda error: error),
    "bias": _Metric(lambda f, t, c: (f - t,), lambda error: error),
    "acc": _Metric(
        _anomaly_products,
        # two roots, not the root of the product, which overflows sooner
        lambda ab, aa, bb: _ratio(ab, np.sqrt(aa) * np.sqrt(bb)),
        dimensionless=True,
    ),
    "small_scale_variance": _small_scale_variance((10, 19)),
}


def _single(
    metric: str,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    weights: str | None,
    skipna: bool,
    per_init: bool = False,
) -> xr.Dataset:
    pairs = _match(forecast, truth, climatology)
    sums = _sums(pairs, {"forecast": _of_forecast}, {metric: _METRICS[metric]}, weights, skipna)
    return _finished(sums["forecast", metric], _METRICS[metric], pairs, per_init)


def _match(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset | None, needs_init: bool = False) -> _Pairs:
    """Bring all to one grid and find the truth of every pair."""
    if not forecast.data_vars:
        raise ValueError("the forecast has no variables")
    times = ("init_time", "lead_time", "valid_time", "time")
    kept = {name: c for name, c in forecast.coords.items() if c.ndim == 0 and name not in times}
    lacking = [dim for dim in ("init_time", "lead_time") if dim not in forecast.coords]
    if lacking:
        raise ValueError(
            f"the forecast has no coordinate {' and '.join(lacking)}, but {list(forecast.coords)}: rename "
            "them, for example forecast.rename(time='init_time', prediction_timedelta='lead_time')"
        )
    # one init or one lead that was picked is a forecast too
    for dim in ("init_time", "lead_time"):
        if forecast[dim].ndim == 0:
            forecast = forecast.expand_dims(dim)
    given = forecast.coords.get("valid_time")
    forecast = _renamed(forecast)
    grid = {name: c for name, c in _oriented(forecast).coords.items() if name in (*_SPACE, "level")}
    if given is None:
        valid_time = valid_times(forecast.init_time, forecast.lead_time)
    else:
        # a picked init or lead leaves it with fewer dimensions
        shape = {dim: forecast.sizes[dim] for dim in ("init_time", "lead_time")}
        given = given.reset_coords(drop=True).drop_vars(["init_time", "lead_time"], errors="ignore")
        valid_time = given.expand_dims({dim: size for dim, size in shape.items() if dim not in given.dims})
        valid_time = valid_time.transpose("init_time", "lead_time")
    analysis = _comparable(forecast, truth, grid, kept, "truth")
    if climatology is not None:
        climatology = _comparable(forecast, climatology, grid, kept, "climatology")
    if "time" not in analysis.indexes:
        raise ValueError(f"the truth has dims {tuple(truth.dims)} and no times: give analyses along 'time'")
    index = analysis.indexes["time"]
    if not index.is_unique:
        raise ValueError(
            f"the time {index[index.duplicated()][0]} appears more than once in the truth: keep one, "
            "truth.drop_duplicates('time')"
        )
    at_valid = index.get_indexer(valid_time.values.ravel()).reshape(valid_time.shape)
    at_init = index.get_indexer(forecast.init_time.values)
    complete = at_valid >= 0
    if needs_init:
        complete &= (at_init >= 0)[:, np.newaxis]
    if not complete.any():
        times = np.sort(valid_time.values, axis=None)
        message = (
            f"no forecast can be verified: the forecast is valid from {_iso(times[0])} to {_iso(times[-1])}, "
            f"the truth has {len(index)} times from {index.min()} to {index.max()}"
        )
        if needs_init:
            first = _iso(forecast.init_time.values.min())
            message += f"; persistence also needs it at init times, from {first} (or say persistence=False)"
        raise ValueError(message)
    # pairs without truth are computed with that of a neighbor and then not counted: nothing more is read
    return _Pairs(
        forecast=forecast,
        analysis=analysis,
        climatology=climatology,
        grid=grid,
        valid_time=valid_time.copy(data=_nearby(valid_time.values, complete)),
        at_valid=_nearby(at_valid, complete),
        at_init=_nearby(at_init, at_init >= 0) if needs_init else at_init,
        complete=complete,
        kept=kept,
    )


def _renamed(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast with our names of the dimensions and no coordinates but those of dimensions.

    Its variables are what they are called, so nothing is looked up, and a single level stays a dimension.
    """
    axes = find_axes(forecast)
    for name, variable in forecast.data_vars.items():
        if lacking := {axes.latitude, axes.longitude, "init_time", "lead_time"} - set(variable.dims):
            raise ValueError(f"{name} in the forecast has dims {variable.dims} and lacks {sorted(lacking)}")
    names = {axes.latitude: "latitude", axes.longitude: "longitude", axes.level: "level"}
    names = {old: new for old, new in names.items() if old is not None and old != new}
    return forecast.reset_coords(drop=True).rename(names)


def _oriented(dataset: xr.Dataset) -> xr.Dataset:
    """Return the canonical grid of a renamed dataset, without the data."""
    grid_dims = (*_SPACE, "level")
    return orient(dataset.isel({dim: slice(0, 0) for dim in dataset.dims if dim not in grid_dims}))


def _comparable(
    forecast: xr.Dataset,
    other: xr.Dataset,
    grid: dict[str, xr.DataArray],
    kept: dict[str, xr.DataArray],
    role: str,
) -> xr.Dataset:
    """Return the variables and levels of the forecast in `other`, if it has them on the same grid."""
    names = list(forecast.data_vars)
    levels = grid["level"].values if "level" in grid else _picked_level(other, names, kept)
    try:
        other = rename(other, names, levels).reset_coords(drop=True)
        oriented = _oriented(other)
        same_grid(xr.Dataset(coords=grid), oriented)
    except ValueError as error:
        raise ValueError(f"the forecast cannot be compared with the {role}: {error}") from error
    if "level" in other.dims and "level" not in grid:
        if levels is None:
            raise ValueError(
                f"the {role} has levels {oriented.level.values}, the forecast has none: select one of them"
            )
        other = other.isel(level=0, drop=True)
    for name, variable in forecast.data_vars.items():
        first, second = variable.attrs.get("units"), other[name].attrs.get("units")
        if first is not None and second is not None and not same_units(first, second):
            raise ValueError(f"{name} has units {first!r} in the forecast but {second!r} in the {role}: convert one")
    return other


def _picked_level(other: xr.Dataset, names: list[str], kept: dict[str, xr.DataArray]) -> np.ndarray | None:
    """Return the level of a forecast with one picked level, if `other` has levels to pick from."""
    axis = find_axes(other).level
    level = kept.get(axis, kept.get("level"))
    if level is None or not any(axis in other[name].dims for name in names if name in other):
        return None
    # orient knows pressures
    labels = ("level", np.atleast_1d(level.values), level.attrs)
    return orient(xr.Dataset(coords={"latitude": [0.0], "longitude": [0.0], "level": labels})).level.values


def _nearby(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return values with those that are not usable replaced by the usable one before, or the first."""
    order = np.where(usable.ravel(), np.arange(usable.size), np.flatnonzero(usable)[0])
    return values.ravel()[np.maximum.accumulate(order)].reshape(values.shape)


def _blocks(pairs: _Pairs) -> Iterator[tuple[slice, slice]]:
    """Return slices of (init, lead) whose forecasts fit in a block, whole runs of leads if possible."""
    count, leads = pairs.complete.shape
    one = sum(variable.size for variable in pairs.forecast.data_vars.values()) * 8 // (count * leads)
    fitting = max(_BLOCK_BYTES // max(one, 1), 1)
    width = min(leads, fitting)
    height = max(fitting // width, 1)
    for column in range(0, leads, width):
        for row in range(0, count, height):
            yield slice(row, min(row + height, count)), slice(column, min(column + width, leads))


def _read(pairs: _Pairs, inits: slice, leads: slice, needs_persistence: bool) -> _Block:
    """Read a block of pairs, each analysis in it once."""

    def loaded(dataset: xr.Dataset) -> xr.Dataset:
        # oriented only now: a lazy variable with transposed dimensions would be read point by point.
        # The coordinates of the forecast itself: same_grid allows for noise, xarray's alignment does not
        grid = {name: c for name, c in pairs.grid.items() if name in dataset.dims}
        return orient(dataset.compute()).assign_coords(grid).astype(np.float64)

    at_valid, at_init = pairs.at_valid[inits, leads], pairs.at_init[inits]
    wanted = np.unique(np.append(at_valid, at_init) if needs_persistence else at_valid)
    steps = np.unique(np.diff(wanted))
    # files read slices faster than lists
    positions = slice(wanted[0], wanted[-1] + 1, steps[0]) if len(steps) == 1 else wanted
    analysis = loaded(pairs.analysis.isel(time=positions)).drop_vars("time")

    def at(positions: np.ndarray) -> xr.Dataset:
        where = xr.DataArray(np.searchsorted(wanted, positions), dims=("init_time", "lead_time"))
        return analysis.isel(time=where).transpose("init_time", "lead_time", ...)

    return _Block(
        forecast=loaded(pairs.forecast.isel(init_time=inits, lead_time=leads)),
        truth=at(at_valid),
        persistence=at(at_init[:, np.newaxis].repeat(at_valid.shape[1], 1)) if needs_persistence else None,
        climatology=None
        if pairs.climatology is None
        else loaded(climatology_at(pairs.climatology, pairs.valid_time[inits, leads])),
        complete=xr.DataArray(pairs.complete[inits, leads], dims=("init_time", "lead_time")),
    )


def _sums(
    pairs: _Pairs,
    systems: dict[str, Callable[[_Block], xr.Dataset]],
    metrics: dict[str, _Metric],
    weights: str | None,
    skipna: bool,
) -> dict[tuple[str, str], xr.Dataset]:
    """Return, for each system and metric, weighted sums over the grid for every pair.

    Dims (part, init_time, lead_time, ...): the sums of the fields of the metric and last the sum of the
    weights, all zero where a pair is not verified. Sums of blocks, initializations or leads can be added.
    """
    row_weights = _row_weights(pairs.grid["latitude"], weights)
    columns: dict[tuple[str, str], dict[int, list[xr.Dataset]]] = {}
    masked: xr.Dataset | None = None
    # misaligned labels must fail, xarray's default would drop them
    with xr.set_options(arithmetic_join="exact"):
        for inits, leads in _blocks(pairs):
            block = _read(pairs, inits, leads, _of_persistence in systems.values())
            fields = {name: of(block) for name, of in systems.items()}
            truth = block.truth
            if not skipna:
                masked = _mask(fields[next(iter(fields))], truth, masked, pairs)
            if skipna and len(fields) > 1:
                # the same cells for every system
                common = truth.notnull()
                for field in fields.values():
                    common = common & field.notnull()
                fields = {name: field.where(common) for name, field in fields.items()}
                truth = truth.where(common)
            for name, field in fields.items():
                for label, metric in metrics.items():
                    parts = _weighted(metric.fields(field, truth, block.climatology), row_weights, skipna, masked)
                    column = columns.setdefault((name, label), {}).setdefault(leads.start, [])
                    column.append(parts.where(block.complete, 0))
    return {
        key: _concat([_concat(rows, "init_time") for rows in column.values()], "lead_time")
        for key, column in columns.items()
    }


def _mask(forecast: xr.Dataset, truth: xr.Dataset, before: xr.Dataset | None, pairs: _Pairs) -> xr.Dataset:
    """Return the cells that have a value in no pair so far; refuse those that have one now and had none before."""
    found = (forecast.isnull() & truth.isnull()).all(("init_time", "lead_time"))
    if before is None or found.equals(before):
        return found
    for name, variable in before.data_vars.items():
        if (variable & ~found[name]).any():
            raise ValueError(
                f"the mask of {name!r} moves: {int((variable & ~found[name]).sum())} cells have no value in the first "
                "pairs and one in later ones. Say what is to count: skipna=True leaves out what is missing in each pair"
            )
    return before


def _weighted(
    fields: tuple[xr.Dataset, ...], row_weights: xr.DataArray, skipna: bool, masked: xr.Dataset | None = None
) -> xr.Dataset:
    """Return weighted sums of the fields over the grid, and the sum of the weights, along `part`."""

    def total(field: xr.DataArray) -> xr.DataArray:
        return xr.dot(field, row_weights, dim=[dim for dim in _SPACE if dim in field.dims])

    if skipna:
        # the fields of one metric must have the same cells: their means are set in relation
        valid = fields[0].notnull()
        for field in fields[1:]:
            valid = valid & field.notnull()
        sums = [field.where(valid, 0).map(total) for field in fields]
        divisor = valid.astype(np.float64).map(total)
    else:
        # one grid stands for all pairs
        others = {dim: 0 for dim in fields[0].dims if dim not in (*_SPACE, "level")}
        valid = xr.ones_like(fields[0].isel(others, drop=True))
        # what is made of whole rows (a spectrum) has no cells that could be left out
        if masked is not None and "longitude" in fields[0].dims and any(part.any() for part in masked.values()):
            valid = valid.where(~masked, 0)
            fields = tuple(field.where(~masked, 0) for field in fields)
        sums = [field.map(total) for field in fields]
        divisor = xr.zeros_like(sums[0]) + valid.map(total)
    return _concat([*sums, divisor], "part")


def _finished(sums: xr.Dataset, metric: _Metric, pairs: _Pairs, per_init: bool = False) -> xr.Dataset:
    """Return the metric from its sums: means over initializations first, unless `per_init`."""
    totals = sums if per_init else sums.sum("init_time", skipna=False)
    divisor = totals.isel(part=-1)
    means = [_ratio(totals.isel(part=part), divisor) for part in range(totals.sizes["part"] - 1)]
    result = metric.finish(*means)
    if per_init:
        counted = divisor > 0
        result = _ratio(result.where(counted, 0).sum("init_time", skipna=False), counted.sum("init_time"))
    result.attrs = {}
    for name, variable in pairs.forecast.data_vars.items():
        result[name].attrs = _attributes(variable, pairs.analysis[name], metric.dimensionless)
    # levels in the words of the forecast again, whatever their unit
    labels = {"level": pairs.forecast.level} if "level" in pairs.grid else {}
    result = result.transpose("lead_time", "level", ..., missing_dims="ignore")
    return result.assign_coords(pairs.kept | labels)


def _concat(parts: list[xr.Dataset], dim: str | xr.DataArray) -> xr.Dataset:
    return xr.concat(parts, dim, data_vars="all", coords="minimal", compat="override", join="exact")


def _ratio(numerator: xr.Dataset, denominator: xr.Dataset) -> xr.Dataset:
    """Return the quotient, NaN where the denominator is zero."""
    return numerator / denominator.where(denominator != 0)


def _attributes(forecast: xr.DataArray, analysis: xr.DataArray, dimensionless: bool) -> dict[str, str]:
    """Return what a score says about its variable."""
    attributes = {}
    for key in ("long_name", "units"):
        if (value := forecast.attrs.get(key, analysis.attrs.get(key))) is not None:
            attributes[key] = value
    return attributes | ({"units": "1"} if dimensionless else {})


def _row_weights(latitude: xr.DataArray, weights: str | None) -> xr.DataArray:
    if weights == "area":
        return latitude_weights(latitude)
    if weights == "cos":
        cosine = np.cos(np.deg2rad(latitude.astype(np.float64)))
        return cosine / cosine.mean()
    if weights is None:
        return xr.ones_like(latitude, dtype=np.float64)
    raise ValueError(f"weights={weights!r} is unknown: choose 'area', 'cos' or None")


def _choose(metrics: Sequence[str] | None, pairs: _Pairs) -> dict[str, _Metric]:
    """Return the metrics asked for, or all that apply."""
    if metrics is None:
        metrics = ["rmse", "mae", "bias"]
        metrics += ["acc"] if pairs.climatology is not None else []
        longitude = pairs.grid["longitude"]
        if closes_longitude(longitude) and longitude.size > 2 * 19:
            metrics += ["small_scale_variance"]
    if isinstance(metrics, str):
        raise ValueError(f"metrics={metrics!r} is one string, a list is needed: [{metrics!r}]")
    if unknown := [name for name in metrics if name not in _METRICS]:
        raise ValueError(f"metrics {unknown} are unknown: choose from {list(_METRICS)}")
    if not metrics:
        raise ValueError(f"metrics is empty: choose from {list(_METRICS)}")
    if "acc" in metrics and pairs.climatology is None:
        raise ValueError("acc needs a climatology: score(forecast, truth, climatology(train))")
    if "small_scale_variance" in metrics:
        _check_wavenumbers(pairs.grid["longitude"], (10, 19))
    return {name: _METRICS[name] for name in metrics}


def _check_wavenumbers(longitude: xr.DataArray, wavenumbers: tuple[int, int]) -> None:
    first, last = wavenumbers
    if not 0 < first <= last:
        raise ValueError(f"wavenumbers={wavenumbers} must be a first and a last one, at least 1, in order")
    if not closes_longitude(longitude):
        raise ValueError(
            f"small_scale_variance needs evenly spaced longitudes round the globe; these {longitude.size} "
            f"run from {longitude.values.min():g} to {longitude.values.max():g}"
        )
    if 2 * last >= longitude.size:
        raise ValueError(
            f"wavenumbers={wavenumbers} are not resolved by {longitude.size} longitudes: the last must be "
            f"below {longitude.size / 2:g}"
        )


def _refuse_overlap(climatology: xr.Dataset, pairs: _Pairs) -> None:
    """Raise if verified times lie in the period of the climatology, as far as its attributes say one."""
    start, end = (climatology.attrs.get(f"climatology_{word}") for word in ("start", "end"))
    if start is None or end is None:
        return
    # ISO text sorts like the times, also across calendars
    inside = [text for text in map(_iso, pairs.valid_time.values[pairs.complete]) if start <= text <= end]
    if inside:
        raise ValueError(
            f"the climatology is from {start} to {end}, and {len(inside)} verified times lie in it, from "
            f"{min(inside)} to {max(inside)}: it has seen the truth. Compute it from the training years "
            "alone, or say allow_overlap=True"
        )


def _iso(time: np.generic | object) -> str:
    """Return a time as ISO text to the second."""
    return time.isoformat() if hasattr(time, "isoformat") else str(np.datetime64(time, "s"))
