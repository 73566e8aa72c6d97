"""Weighted sums over the grid for every pair, and the scores made from them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.grid import closes_longitude, find_member, latitude_weights
from simvp_climate.metrics.alignment import SPACE
from simvp_climate.metrics.definitions import METRICS, Fields, Metric, Product, ratio
from simvp_climate.metrics.pairs import Block, Pairs, blocks, match, read, refuse_overlap
from simvp_climate.metrics.regions import Region, region_masks


def _single(
    name: str,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None,
    weights: str | None,
    skipna: bool,
    allow_overlap: bool = False,
) -> xr.Dataset:
    pairs = match(forecast, truth, climatology)
    if climatology is not None and not allow_overlap:
        refuse_overlap(climatology.attrs, "climatology", "the climatology", pairs)
    metric = METRICS[name]
    if metric.of_ensembles:
        members_of(pairs)
    rows = row_weights(pairs.grid["latitude"], weights)
    sums = weighted_sums(pairs, {name: metric}, rows, skipna, pool_members=metric.of_ensembles)
    return _described(*_estimate(sums["", name], metric), pairs)


def members_of(pairs: Pairs) -> str:
    """Return the dimension of the members of an ensemble, or raise ValueError if it is none."""
    member = find_member(pairs.forecast)
    if member is None:
        raise ValueError(
            f"the forecast has dims {tuple(pairs.forecast.dims)} and none of ensemble members (number, realization, "
            "member): this score is of ensembles"
        )
    if pairs.forecast.sizes[member] < 2:
        raise ValueError(
            f"the ensemble has one member along {member!r}, and no spread: score the member as a forecast, "
            f"forecast.isel({member}=0)"
        )
    return member


def weighted_sums(
    pairs: Pairs,
    metrics: dict[str, Metric],
    weights: xr.DataArray,
    skipna: bool,
    *,
    pool_members: bool = False,
    made: dict[str, Callable[[Block], xr.Dataset]] | None = None,
) -> dict[tuple[str, str], xr.Dataset]:
    """Return, for each system and metric, weighted sums over the grid for every pair.

    Parameters
    ----------
    weights
        Of the cells, (latitude) or (region, latitude, longitude); metrics that are not `weighted` see only whether a
        cell is in a region.
    pool_members
        Whether the members of an ensemble are one forecast, their mean where the metric is none of ensembles, or each
        is a forecast of its own.
    made
        Further systems by name, from a block.

    Returns
    -------
    By (system, metric), the forecast being the system "": dims (part, init_time, lead_time, ...), the sums of the
    fields of the metric and last the sum of the weights, all zero where a pair is not verified. Sums of blocks,
    initializations or leads can be added.
    """
    # by system, metric and variable, by the first lead of a block
    columns: dict[tuple[str, str, str], dict[int, list[xr.Variable]]] = {}
    masked: dict[str, xr.Dataset | None] = {}
    even = (weights > 0).astype(np.float64) if "region" in weights.dims else xr.ones_like(weights)
    # misaligned labels must fail, xarray's default would drop them
    with xr.set_options(arithmetic_join="exact"):
        for inits, leads in blocks(pairs):
            block = read(pairs, inits, leads)
            systems = block.systems | {name: make(block) for name, make in (made or {}).items()}
            member_of = {name: find_member(field) if pool_members else None for name, field in systems.items()}
            # a variable at a time: what is made of it stays in the processor's cache
            for variable in map(str, pairs.forecast.data_vars):
                truth = block.truth[[variable]]
                normal = None if block.climatology is None else block.climatology[[variable]]
                own = {name: field[[variable]] for name, field in systems.items()}
                says = {}
                if block.frequency is not None and variable in block.frequency and "climatology" in own:
                    says["climatology"] = block.frequency[[variable]]
                if not skipna:
                    first = Fields(own[""], truth, normal, member_of[""]).forecast
                    masked[variable] = _mask(first, truth, masked.get(variable))
                elif len(own) > 1:
                    # the same cells for every system
                    common = truth.notnull()
                    for name, field in own.items():
                        common = common & Fields(field, truth, normal, member_of[name]).forecast.notnull()
                    for probability in says.values():
                        common = common & probability.notnull()
                    own = {name: field.where(common) for name, field in own.items()}
                    truth = truth.where(common)
                for name, field in own.items():
                    fields = Fields(field, truth, normal, member_of[name], says.get(name))
                    for label, metric in metrics.items():
                        cells = weights if metric.weighted else even
                        parts = _weighted(metric.fields(fields), cells, skipna, masked.get(variable))
                        known = block.complete.values.reshape(1, *block.complete.shape, *[1] * (parts.ndim - 3))
                        parts = parts.copy(data=np.where(known, parts.values, 0))
                        columns.setdefault((name, label, variable), {}).setdefault(leads.start, []).append(parts)
    labels = {name: pairs.forecast[name] for name in ("init_time", "lead_time")} | {
        "region": weights.coords.get("region")
    }
    labels |= {"level": pairs.grid.get("level")}
    labels |= {str(name): c for name, c in pairs.forecast.coords.items() if c.dims == (name,) and name not in labels}
    sums: dict[tuple[str, str], xr.Dataset] = {}
    for (name, label, variable), column in columns.items():
        rows = [xr.Variable.concat(parts, "init_time") for parts in column.values()]
        whole = xr.Variable.concat(rows, "lead_time")
        sums.setdefault((name, label), xr.Dataset())[variable] = whole
    dims = {key: set(found.dims) for key, found in sums.items()}
    return {
        key: found.assign_coords(
            {n: c.reset_coords(drop=True) for n, c in labels.items() if n in dims[key] and c is not None}
        )
        for key, found in sums.items()
    }


def _mask(forecast: xr.Dataset, truth: xr.Dataset, before: xr.Dataset | None) -> xr.Dataset:
    """Return the cells that have a value in no pair so far; refuse those that have one now and had none before."""
    over = ("init_time", "lead_time")
    # a sum tells faster than every cell whether anything is missing
    if any(np.isfinite(one.sum(skipna=False).to_array()).all() for one in (forecast, truth)):
        found = truth.isel(dict.fromkeys(over, 0), drop=True).map(lambda field: xr.zeros_like(field, dtype=bool))
        found = found.broadcast_like(forecast.isel(dict.fromkeys(over, 0), drop=True))
    else:
        found = (forecast.isnull() & truth.isnull()).all(over)
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
    fields: tuple[xr.Dataset | Product, ...], weights: xr.DataArray, skipna: bool, masked: xr.Dataset | None
) -> xr.Variable:
    """Return weighted sums of the fields of a variable over the grid, and the sum of the weights.

    Dims (part, init_time, lead_time, ...).
    """
    holes = masked is not None and any(part.values.any() for part in masked.values())
    if not skipna and not holes and "region" not in weights.dims:
        found = [_rows_of(field) for field in fields]
        if all(columns for _, columns in found):  # every row has the same number of columns in it
            sums = [rows.values @ weights.values for rows, _ in found]
            total = np.full(sums[0].shape, weights.values.sum() * found[0][1])
            return xr.Variable(("part", *found[0][0].dims[:-1]), np.stack([*sums, total]))
    arrays = []
    for field in fields:
        (array,) = (field.value if isinstance(field, Product) else field).values()
        arrays.append(array)
    if skipna:
        # the fields of one metric must have the same cells: their means are set in relation
        valid = arrays[0].notnull()
        for array in arrays[1:]:
            valid = valid & array.notnull()
        sums = [_grid_sum(array.where(valid, 0), weights) for array in arrays]
        divisor = _grid_sum(valid.astype(np.float64), weights)
    else:
        # one grid stands for all pairs
        others = {dim: 0 for dim in arrays[0].dims if dim not in (*SPACE, "level")}
        valid = xr.ones_like(arrays[0].isel(others, drop=True))
        # what is made of whole rows (a spectrum) has no cells that could be left out
        if holes and "longitude" in arrays[0].dims:
            (hole,) = masked.values()
            valid = valid.where(~hole, 0)
            arrays = [array.where(~hole, 0) for array in arrays]
        sums = [_grid_sum(array, weights) for array in arrays]
        divisor = xr.zeros_like(sums[0]) + _grid_sum(valid, weights)
    order = ("init_time", "lead_time", ...)
    first = sums[0].variable.transpose(*order)
    parts = [one.variable.transpose(*first.dims).values for one in (*sums, divisor)]
    return xr.Variable(("part", *first.dims), np.stack(parts))


def _rows_of(field: xr.Dataset | Product) -> tuple[xr.Variable, int]:
    """Return the sum over each row of a field of a variable, and over how many columns; 0 where it has none."""
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
    """Return the sum over the grid of a field times weights, by region if these have one."""
    if "region" not in weights.dims:
        return xr.dot(field, weights, dim=[dim for dim in SPACE if dim in field.dims])
    if "longitude" not in field.dims:
        # a value of a whole row counts in the regions that have the row wholly or not at all
        whole = weights.min("longitude") == weights.max("longitude")
        weights = weights.isel(longitude=0, drop=True).where(whole.all("latitude"), 0)
    over = [dim for dim in weights.dims if dim != "region"]
    outside = field.sum(over, skipna=False) if not np.isfinite(field.values).all() else None
    values = field.transpose(..., *over)
    template = values.isel(dict.fromkeys(over, 0), drop=True)
    cells = weights.transpose(*over, "region").values.reshape(-1, weights.sizes["region"])
    flat = values.values.reshape(-1, cells.shape[0])
    if outside is None:
        found = flat @ cells
    else:  # zero times what is missing is missing: regions without it must not see it
        found = np.stack([flat[:, cell > 0] @ cell[cell > 0] for cell in cells.T], axis=1)
    named = template.expand_dims(region=weights["region"], axis=-1)
    return named.copy(data=found.reshape(named.shape)).transpose(*template.dims, "region")


def _means(totals: xr.Dataset) -> tuple[list[xr.Dataset], xr.Dataset]:
    """Return the means of the fields of a metric, and the sum of weights that they were divided by."""
    divisor = totals.isel(part=-1)
    return [ratio(totals.isel(part=part), divisor) for part in range(totals.sizes["part"] - 1)], divisor


def sums_per_init(sums: xr.Dataset, metric: Metric) -> xr.Dataset:
    """Return sums of which the means make the metric: its own, or of every initialization the metric and its count."""
    if not metric.per_init:
        return sums
    means, divisor = _means(sums)
    counted = divisor > 0
    return concat([metric.finish(*means).where(counted, 0), counted.astype(np.float64)], "part")


def finish(totals: xr.Dataset, metric: Metric) -> xr.Dataset:
    """Return the metric from the sums of `sums_per_init` over initializations."""
    means, _ = _means(totals)
    return means[0] if metric.per_init else metric.finish(*means)


def _estimate(sums: xr.Dataset, metric: Metric) -> tuple[xr.Dataset, bool]:
    totals = sums_per_init(sums, metric).sum("init_time", skipna=False)
    return finish(totals, metric), metric.dimensionless


def _described(result: xr.Dataset, dimensionless: bool, pairs: Pairs) -> xr.Dataset:
    """Return a result with the words and labels of the forecast."""
    result = result.copy()
    result.attrs = {}
    for name, variable in pairs.forecast.data_vars.items():
        result[name].attrs = attributes(variable, pairs.analysis[name], dimensionless)
    # levels in the words of the forecast again, whatever their unit
    labels = {"level": pairs.forecast.level} if "level" in pairs.grid else {}
    if "rank" not in result.dims:
        result = result.transpose("lead_time", "level", ..., missing_dims="ignore")
    return result.assign_coords(pairs.kept | labels)


def concat(parts: list[xr.Dataset], dim: str | xr.DataArray) -> xr.Dataset:
    """Return datasets that have the same labels, one after the other along a dimension."""
    return xr.concat(parts, dim, data_vars="all", coords="minimal", compat="override", join="exact")


def attributes(forecast: xr.DataArray, analysis: xr.DataArray, dimensionless: bool) -> dict[str, str]:
    """Return what a score says about its variable."""
    found = {}
    for key in ("long_name", "units"):
        if (value := forecast.attrs.get(key, analysis.attrs.get(key))) is not None:
            found[key] = value
    return found | ({"units": "1"} if dimensionless else {})


def row_weights(latitude: xr.DataArray, weights: str | None) -> xr.DataArray:
    """Return the weights of the rows that "area", "cos" or None stand for."""
    if weights == "area":
        return latitude_weights(latitude)
    if weights == "cos":
        cosine = np.cos(np.deg2rad(latitude.astype(np.float64)))
        return cosine / cosine.mean()
    if weights is None:
        return xr.ones_like(latitude, dtype=np.float64)
    raise ValueError(f"weights={weights!r} is unknown: choose 'area', 'cos' or None")


def cell_weights(
    grid: Mapping[str, xr.DataArray],
    weights: str | None,
    regions: Sequence[str] | Mapping[str, Region] | None,
    beside: xr.Dataset,
) -> xr.DataArray:
    """Return the weights of the cells, (latitude), or of those in each region, (region, latitude, longitude).

    `beside` may hold the land-sea mask.
    """
    rows = row_weights(grid["latitude"], weights)
    masks = region_masks(regions, grid, beside)
    return rows if masks is None else masks * rows


def check_wavenumbers(longitude: xr.DataArray, wavenumbers: tuple[int, int]) -> None:
    """Raise ValueError unless the longitudes go round the globe and resolve the wavenumbers."""
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
