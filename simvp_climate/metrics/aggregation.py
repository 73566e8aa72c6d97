"""Weighted sums over the grid for every pair of initialization and lead, read in blocks of bounded size.

The sums, in float64, can be added over blocks, initializations and leads (as in WeatherBench-X, `aggregation.py`).
"""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_member
from simvp_climate.metrics.baselines.climatologies import climatology_at
from simvp_climate.metrics.definitions import Fields, Metric, Product, concat, mean_over
from simvp_climate.metrics.pairs import Pairs, check_plausible, describe_outlier, find_outlier
from simvp_climate.metrics.regions import SPACE

Sums = dict[tuple[str, str], xr.Dataset]  # over the grid by (system, metric)
# float64 bytes of the forecast in one block; the arithmetic needs about ten arrays of this size.
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Block:
    """Some pairs in memory, in float64, with dims (init_time, lead_time, ...)."""

    systems: dict[str, xr.Dataset]  # the forecast under the name "", and baselines
    truth: xr.Dataset
    complete: xr.DataArray
    climatology: xr.Dataset | None
    event_frequency: xr.Dataset | None


def blocks(pairs: Pairs) -> Iterator[tuple[slice, slice]]:
    """Yield slices of (init, lead) whose forecasts fit in a block, with all leads if possible."""
    inits, leads = pairs.complete.shape
    # A baseline may have more members than the forecast.
    forecasts = [pairs.forecast, *(stored.forecast for stored in pairs.stored_baselines.values())]
    pair_bytes = max(_values(each) // (each.sizes["init_time"] * each.sizes["lead_time"]) for each in forecasts) * 8
    # A baseline may be computed from more variables than are scored.
    state_bytes = _values(pairs.analysis) * 8
    pair_bytes = max(pair_bytes, state_bytes // pairs.analysis.sizes["time"], 1)
    block_pairs = max(_BLOCK_BYTES // pair_bytes, 1)
    width = min(leads, block_pairs)
    height = max(block_pairs // width, 1)
    for column in range(0, leads, width):
        for row in range(0, inits, height):
            yield slice(row, min(row + height, inits)), slice(column, min(column + width, leads))


def _values(dataset: xr.Dataset) -> int:
    """Return the number of values of all variables."""
    return sum(variable.size for variable in dataset.data_vars.values())


def read(pairs: Pairs, inits: slice, leads: slice) -> Block:
    """Read a block of pairs, and each analysis in it once."""
    valid_positions, init_positions = pairs.valid_positions[inits, leads], pairs.init_positions[inits]
    needed = np.unique(np.append(valid_positions, init_positions) if pairs.callable_baselines else valid_positions)
    steps = np.unique(np.diff(needed))
    # Files read slices faster than lists.
    positions = slice(needed[0], needed[-1] + 1, steps[0]) if len(steps) == 1 else needed
    analysis = _load(pairs.analysis.isel(time=positions))
    truth_positions = xr.DataArray(np.searchsorted(needed, valid_positions), dims=("init_time", "lead_time"))
    truth = analysis.drop_vars("time").isel(time=truth_positions).transpose("init_time", "lead_time", ...)

    forecast = _load(pairs.forecast.isel(init_time=inits, lead_time=leads))
    check_plausible(forecast, truth, pairs.valid_time[inits, leads])
    times = {"init_time": forecast["init_time"], "lead_time": forecast["lead_time"]}
    systems = {"": forecast}
    for name, stored in pairs.stored_baselines.items():
        rows, columns = stored.init_positions[inits], stored.lead_positions[leads]
        baseline = _load(stored.forecast.isel(init_time=rows, lead_time=columns))
        systems[name] = baseline.transpose("init_time", "lead_time", ...).assign_coords(times)
    if pairs.callable_baselines:
        # Init times repeat where placeholders stand for missing ones: forecast each once.
        distinct, inverse = np.unique(np.searchsorted(needed, init_positions), return_inverse=True)
        states = analysis.isel(time=distinct)
    for name, function in pairs.callable_baselines.items():
        try:
            baseline = function(states, states["time"], forecast["lead_time"])
        except ValueError as error:
            raise ValueError(f"the baseline {name!r} cannot be computed for this forecast: {error}") from error
        baseline = baseline.isel(init_time=inverse).reset_coords(drop=True)[list(forecast.data_vars)]
        grid = {dim: c for dim, c in pairs.grid.items() if dim in baseline.dims}
        systems[name] = baseline.transpose("init_time", "lead_time", ...).assign_coords(**times, **grid)
    valid_time = pairs.valid_time[inits, leads]
    complete = xr.DataArray(pairs.complete[inits, leads], dims=("init_time", "lead_time"))
    climatologies = [_load_climatology(dataset, valid_time) for dataset in (pairs.climatology, pairs.event_frequency)]
    return Block(systems, truth, complete, *climatologies)


def _load(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.compute().astype(np.float64)


def _load_climatology(climatology: xr.Dataset | None, valid_time: xr.DataArray) -> xr.Dataset | None:
    """Return the climatology at the valid times, read with all days around them: faster than single times."""
    if climatology is None:
        return None
    if "dayofyear" in climatology.dims:
        needed = climatology.indexes["dayofyear"].isin(np.unique(valid_time.dt.dayofyear.values))
        if needed.any():  # otherwise climatology_at names what is missing
            climatology = climatology.isel(dayofyear=np.flatnonzero(needed))
    climatology = _load(climatology)
    if "harmonic" in climatology.dims:  # most coefficients are no values of the variable
        return climatology_at(climatology, valid_time)
    for name, variable in climatology.data_vars.items():
        if (place := find_outlier(str(name), variable.values, variable.attrs.get("units"))) is not None:
            raise ValueError(describe_outlier(str(name), "climatology", variable.values[place], ""))
    return climatology_at(climatology, valid_time)


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
        means = [mean_over(member_dims[name], forecast) for name, forecast in forecasts.items()]
        for dataset in (*means, *probabilities.values()):
            common = common & dataset.notnull()
        forecasts = {name: forecast.where(common) for name, forecast in forecasts.items()}
        truth = truth.where(common)
    for name, forecast in forecasts.items():
        member, outcome = member_dims[name], truth
        # dimensions that only the forecast has, such as members to score one by one
        extra = {dim: n for dim, n in forecast.sizes.items() if dim not in truth.dims and dim != member}
        if extra:
            dims = [dim for dim in forecast[variable].dims if dim != member]
            outcome = truth.expand_dims(extra).transpose(*dims)
        yield name, Fields(forecast, outcome, climatology, member, probabilities.get(name))


def update_mask(mask: xr.Dataset | None, forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Return the cells without a value in any pair so far; raise ValueError if one of them has a value now."""
    pair_dims = ("init_time", "lead_time")
    # If the sum is finite, no cell is missing; this is faster than to look at every cell.
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
                f"the mask of {name!r} changes: {int((masked & ~empty[name]).sum())} cells have no value in the first "
                "pairs and one in later pairs. Pass skipna=True to leave out the missing cells of each pair"
            )
    return mask


def pooled_score(pairs: Pairs, metric: Metric, skipna: bool) -> xr.Dataset:
    """Return a metric pooled over initializations, the grid and, for ensembles or events, members.

    Stations may lack observations: what is missing is left out.
    """
    skipna = skipna or pairs.stations is not None
    sums = sums_by_init(pairs, metric, skipna)
    return lay_out(with_attrs(metric.value(sums.sum("init_time", skipna=False)), metric, pairs), pairs)


def sums_by_init(pairs: Pairs, metric: Metric, skipna: bool) -> xr.Dataset:
    """Return the sums of a metric for every initialization, to add over these."""
    pool_members = metric.needs not in (None, "climatology")
    return metric.per_init_sums(weighted_sums(pairs, {"": metric}, skipna, pool_members=pool_members)["", ""])


def with_attrs(result: xr.Dataset, metric: Metric, pairs: Pairs) -> xr.Dataset:
    """Return a metric with the long names of its variables, and their units unless it has none."""
    for name in result.data_vars:
        result[name].attrs = pairs.attrs(str(name)) | ({"units": "1"} if metric.dimensionless else {})
    return result


def lay_out(result: xr.Dataset, pairs: Pairs, *first: str, by: str | None = None) -> xr.Dataset:
    """Return a result with its dimensions in the usual order after `first`, and with the labels of the forecast."""
    dims = (*first, "lead_time", "level", "region", *([by] if by else []), ...)
    return result.transpose(*dims, missing_dims="ignore").assign_coords(pairs.labels)


def join_groups(datasets: list[xr.Dataset], by: str | None, pairs: Pairs) -> xr.Dataset:
    """Return the datasets of all groups along the dimension `by`, or the only one."""
    return datasets[0] if by is None else concat(datasets, xr.DataArray(np.array(list(pairs.groups)), dims=by, name=by))


def equal_weights(weights: xr.DataArray) -> xr.DataArray:
    """Return weight 1 for every cell, or for every cell of each region."""
    return (weights > 0).astype(np.float64) if "region" in weights.dims else xr.ones_like(weights)


def weighted_sums(
    pairs: Pairs, metrics: Mapping[str, Metric], skipna: bool, *, pool_members: bool = False,
    derived_systems: Mapping[str, Callable[[Block], xr.Dataset]] | None = None,
) -> Sums:  # fmt: skip
    """Return weighted sums over the grid for every pair, by (system, metric), dims (part, init_time, lead_time, ...).

    The parts are the fields of the metric and last the weights; all are zero where a pair is not verified. With
    `pool_members` an ensemble is one forecast, else every member. `derived_systems` are functions of a block by name.
    """
    for metric in metrics.values():
        _check_applies(metric, pairs)
    # By system, metric and variable: the sums of blocks of initializations, by the first lead of the block.
    block_sums: dict[tuple[str, str, str], dict[int, list[xr.Variable]]] = {}
    masks: dict[str, xr.Dataset] = {}
    # Labels that differ must raise: by default xarray drops them silently.
    with xr.set_options(arithmetic_join="exact"):
        for inits, leads in blocks(pairs):
            block = read(pairs, inits, leads)
            systems = block.systems | {name: derive(block) for name, derive in (derived_systems or {}).items()}
            member_dims = {name: find_member(field) if pool_members else None for name, field in systems.items()}
            # One variable at a time: its fields stay in the processor's cache.
            for variable in map(str, pairs.forecast.data_vars):
                if not skipna:
                    forecast = mean_over(member_dims[""], systems[""][[variable]])
                    masks[variable] = update_mask(masks.get(variable), forecast, block.truth[[variable]])
                for system, fields in fields_of_systems(block, systems, member_dims, variable, skipna):
                    for label, metric in metrics.items():
                        cells = pairs.weights if metric.weighted else equal_weights(pairs.weights)
                        if metric.grid_sums is not None:
                            sums = metric.grid_sums(fields, cells, skipna, masks.get(variable))
                        else:
                            sums = _grid_sums(metric.fields(fields), cells, skipna, masks.get(variable))
                        verified = block.complete.values.reshape(1, *block.complete.shape, *[1] * (sums.ndim - 3))
                        sums = sums.copy(data=np.where(verified, sums.values, 0))
                        by_lead = block_sums.setdefault((system, label, variable), {})
                        by_lead.setdefault(leads.start, []).append(sums)
    return _join_blocks(block_sums, pairs)


def _check_applies(metric: Metric, pairs: Pairs) -> None:
    """Raise ValueError unless the forecast has the members, and the grid the wavenumbers, that a metric needs."""
    if metric.needs == "members" and pairs.member is None:
        raise ValueError(
            f"the forecast has dims {tuple(pairs.forecast.dims)} and no ensemble members (number, realization or "
            "member), which this score needs. Score an ensemble, or choose other metrics"
        )
    if metric.needs == "members" and pairs.forecast.sizes[pairs.member] < 2:
        raise ValueError(
            f"the ensemble has one member along {pairs.member!r}, and therefore no spread. Score it as a single "
            f"forecast: forecast.isel({pairs.member}=0)"
        )
    if metric.wavenumbers is None:
        return
    (first, last), longitude = metric.wavenumbers, pairs.grid["longitude"]
    if not 0 < first <= last:
        raise ValueError(f"wavenumbers={metric.wavenumbers} must be the first and the last one, in order, from 1")
    if not pairs.max_wavenumber:
        raise ValueError(
            f"small_scale_variance needs evenly spaced longitudes around the globe; these {longitude.size} "
            f"run from {longitude.values.min():g} to {longitude.values.max():g}. Leave it out of metrics"
        )
    if last > pairs.max_wavenumber:
        raise ValueError(
            f"wavenumbers={metric.wavenumbers} are not resolved by {longitude.size} longitudes: the last must be below "
            f"{longitude.size / 2:g}"
        )


def _join_blocks(block_sums: Mapping[tuple[str, str, str], dict[int, list[xr.Variable]]], pairs: Pairs) -> Sums:
    """Return the sums of all blocks as labeled datasets by (system, metric)."""
    joined: Sums = {}
    for (system, label, variable), by_lead in block_sums.items():
        columns = [xr.Variable.concat(sums, "init_time") for sums in by_lead.values()]
        joined.setdefault((system, label), xr.Dataset())[variable] = xr.Variable.concat(columns, "lead_time")
    labels = {name: pairs.forecast[name] for name in ("init_time", "lead_time")}
    labels |= {"region": pairs.weights.coords.get("region"), "level": pairs.grid.get("level")}
    # Dimensions that are neither time nor space, such as members.
    labels |= {str(name): c for name, c in pairs.forecast.coords.items() if c.dims == (name,) and name not in labels}
    labels = {name: label.reset_coords(drop=True) for name, label in labels.items() if label is not None}
    return {
        key: sums.assign_coords({name: label for name, label in labels.items() if name in sums.dims})
        for key, sums in joined.items()
    }


def _grid_sums(
    fields: tuple[xr.Dataset | Product, ...], weights: xr.DataArray, skipna: bool, mask: xr.Dataset | None
) -> xr.Variable:
    """Return the weighted sums of a variable's fields, and of the weights, (part, init_time, lead_time, ...)."""
    masked = mask is not None and any(cells.values.any() for cells in mask.values())
    if not skipna and not masked and "region" not in weights.dims:
        # Sum over longitude first: all cells of a row have the same weight.
        rows = [_row_sums(field) for field in fields]
        if all(columns for _, columns in rows):
            sums = [row.values @ weights.values for row, _ in rows]
            total_weight = np.full(sums[0].shape, weights.values.sum() * rows[0][1])
            return xr.Variable(("part", *rows[0][0].dims[:-1]), np.stack([*sums, total_weight]))
    arrays = [next(iter((field.value if isinstance(field, Product) else field).values())) for field in fields]
    if skipna:
        # The means of one metric must be over the same cells, as they are compared with each other.
        valid = functools.reduce(operator.and_, [array.notnull() for array in arrays])
        sums = [_grid_sum(array.where(valid, 0), weights) for array in arrays]
        divisor = _grid_sum(valid.astype(np.float64), weights)
    else:
        # The cells of one pair stand for those of all pairs.
        others = {dim: 0 for dim in arrays[0].dims if dim not in (*SPACE, "level")}
        valid = xr.ones_like(arrays[0].isel(others, drop=True))
        # Values of whole rows, such as spectra, have no cells to leave out.
        if masked and "longitude" in arrays[0].dims:
            (cells,) = mask.values()
            valid = valid.where(~cells, 0)
            arrays = [array.where(~cells, 0) for array in arrays]
        sums = [_grid_sum(array, weights) for array in arrays]
        divisor = xr.zeros_like(sums[0]) + _grid_sum(valid, weights)
    first = sums[0].variable.transpose("init_time", "lead_time", ...)
    stacked = [array.variable.transpose(*first.dims).values for array in (*sums, divisor)]
    return xr.Variable(("part", *first.dims), np.stack(stacked))


def _row_sums(field: xr.Dataset | Product) -> tuple[xr.Variable, int]:
    """Return the sum over each row of a field, and the number of columns: 0 if the field has no longitude."""
    if isinstance(field, Product):
        (first,), (second,) = field.first.values(), field.second.values()
        first = first.variable.transpose("init_time", "lead_time", ..., *SPACE)
        second = first if first is second else second.variable.transpose(*first.dims)
        rows = np.einsum("...x,...x->...", first.values, second.values)
        return xr.Variable(first.dims[:-1], rows), first.sizes["longitude"]
    (array,) = field.values()
    if "longitude" not in array.dims:
        return array.variable, 0
    array = array.variable.transpose("init_time", "lead_time", ..., *SPACE)
    return xr.Variable(array.dims[:-1], array.values.sum(axis=-1)), array.sizes["longitude"]


def _grid_sum(field: xr.DataArray, weights: xr.DataArray) -> xr.DataArray:
    """Return the sum of a field times the weights over the grid, by region if the weights have regions."""
    if "region" not in weights.dims:
        return xr.dot(field, weights, dim=[dim for dim in SPACE if dim in field.dims])
    if "longitude" not in field.dims:
        # The value of a row counts in regions that contain either the whole row or nothing of it.
        whole = weights.min("longitude") == weights.max("longitude")
        weights = weights.isel(longitude=0, drop=True).where(whole.all("latitude"), 0)
    space = [dim for dim in weights.dims if dim != "region"]
    values = field.transpose(..., *space)
    template = values.isel(dict.fromkeys(space, 0), drop=True)
    cells = weights.transpose(*space, "region").values.reshape(-1, weights.sizes["region"])
    flat = values.values.reshape(-1, cells.shape[0])
    sums = flat @ cells
    if not np.isfinite(flat).all():  # 0 * NaN is NaN: select the cells of each region instead
        sums = np.stack([flat[:, cell > 0] @ cell[cell > 0] for cell in cells.T], axis=1)
    labeled = template.expand_dims(region=weights["region"], axis=-1)
    return labeled.copy(data=sums.reshape(labeled.shape)).transpose(*template.dims, "region")
