"""Weighted sums over the grid for every pair of initialization and lead, and the scores computed from them.

Sums rather than means are kept, so that blocks, initializations and leads can be added, as in WeatherBench-X
(`weatherbenchX/aggregation.py`); they are float64. A system is a forecast that is scored: the forecast itself under the
name "", and baselines.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.grid import find_member, latitude_weights
from simvp_climate.metrics.alignment import SPACE
from simvp_climate.metrics.definitions import METRICS, Metric
from simvp_climate.metrics.pairs import (
    Block,
    Fields,
    Pairs,
    Product,
    blocks,
    fields_of_systems,
    match,
    members_of,
    read,
    refuse_overlap,
    update_mask,
)
from simvp_climate.metrics.regions import Region, region_masks


def compute_metric(
    name: str,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None = None,
    *,
    weights: str | None,
    skipna: bool,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return a metric of METRICS for a forecast, pooled over initializations and the grid."""
    pairs = match(forecast, truth, climatology)
    if climatology is not None and not allow_overlap:
        refuse_overlap(climatology.attrs, "climatology", "the climatology", pairs)
    metric = METRICS[name]
    if metric.needs == "members":
        members_of(pairs)
    rows = row_weights(pairs.grid["latitude"], weights)
    sums = weighted_sums(pairs, {name: metric}, rows, skipna, pool_members=metric.needs == "members")
    return pool_over_inits(sums["", name], metric, pairs)


def pool_over_inits(sums: xr.Dataset, metric: Metric, pairs: Pairs) -> xr.Dataset:
    """Return a metric from its sums, pooled over initializations, with the attributes and levels of the forecast."""
    result = metric.value(metric.per_init_sums(sums).sum("init_time", skipna=False))
    return label_like_forecast(result, metric.dimensionless, pairs)


def label_like_forecast(result: xr.Dataset, dimensionless: bool, pairs: Pairs) -> xr.Dataset:
    """Return a result with the attributes, the scalar coordinates and the levels of the forecast."""
    result = result.copy()
    result.attrs = {}
    for name, variable in pairs.forecast.data_vars.items():
        result[name].attrs = score_attributes(variable, pairs.analysis[name], dimensionless)
    # Levels in the unit of the forecast.
    labels = {"level": pairs.forecast.level} if "level" in pairs.grid else {}
    if "rank" not in result.dims:
        result = result.transpose("lead_time", "level", ..., missing_dims="ignore")
    return result.assign_coords(pairs.scalar_coords | labels)


def score_attributes(forecast: xr.DataArray, analysis: xr.DataArray, dimensionless: bool) -> dict[str, str]:
    """Return long_name and units of a score, from the forecast or, if it has none, from the analysis."""
    attrs = {}
    for key in ("long_name", "units"):
        if (value := forecast.attrs.get(key, analysis.attrs.get(key))) is not None:
            attrs[key] = value
    return attrs | ({"units": "1"} if dimensionless else {})


def row_weights(latitude: xr.DataArray, weights: str | None) -> xr.DataArray:
    """Return the weight of each row of the grid, with mean 1, for weights "area", "cos" or None."""
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
    mask_source: xr.Dataset,
) -> xr.DataArray:
    """Return the weights of the cells, (latitude), or of those in each region, (region, latitude, longitude).

    The regions "land" and "sea" take their land-sea mask from `mask_source`.
    """
    rows = row_weights(grid["latitude"], weights)
    masks = region_masks(regions, grid, mask_source)
    return rows if masks is None else masks * rows


def equal_weights(weights: xr.DataArray) -> xr.DataArray:
    """Return weight 1 for every cell, or for every cell of each region."""
    return (weights > 0).astype(np.float64) if "region" in weights.dims else xr.ones_like(weights)


def weighted_sums(
    pairs: Pairs,
    metrics: dict[str, Metric],
    weights: xr.DataArray,
    skipna: bool,
    *,
    pool_members: bool = False,
    derived_systems: Mapping[str, Callable[[Block], xr.Dataset]] | None = None,
) -> dict[tuple[str, str], xr.Dataset]:
    """Return, for each system and metric, weighted sums over the grid for every pair.

    Parameters
    ----------
    weights
        Of the cells, (latitude) or (region, latitude, longitude). Metrics without `weighted` use weight 1 in the same
        cells.
    pool_members
        True: an ensemble is one forecast, its mean or, for metrics of ensembles, its members. False: every member is a
        forecast of its own.
    derived_systems
        More systems by name, as functions of a block.

    Returns
    -------
    Datasets by (system, metric), dims (part, init_time, lead_time, ...): the sums of the fields of the metric and last
    the sum of the weights, all zero where a pair is not verified.
    """
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
                    forecast = Fields(systems[""][[variable]], block.truth, None, member_dims[""]).forecast
                    masks[variable] = update_mask(masks.get(variable), forecast, block.truth[[variable]])
                for system, fields in fields_of_systems(block, systems, member_dims, variable, skipna):
                    for label, metric in metrics.items():
                        cells = weights if metric.weighted else equal_weights(weights)
                        sums = _grid_sums(metric.fields(fields), cells, skipna, masks.get(variable))
                        verified = block.complete.values.reshape(1, *block.complete.shape, *[1] * (sums.ndim - 3))
                        sums = sums.copy(data=np.where(verified, sums.values, 0))
                        by_lead = block_sums.setdefault((system, label, variable), {})
                        by_lead.setdefault(leads.start, []).append(sums)
    return _join_blocks(block_sums, pairs, weights)


def _join_blocks(
    block_sums: dict[tuple[str, str, str], dict[int, list[xr.Variable]]], pairs: Pairs, weights: xr.DataArray
) -> dict[tuple[str, str], xr.Dataset]:
    """Return the sums of all blocks as labeled datasets by (system, metric)."""
    joined: dict[tuple[str, str], xr.Dataset] = {}
    for (system, label, variable), by_lead in block_sums.items():
        columns = [xr.Variable.concat(sums, "init_time") for sums in by_lead.values()]
        joined.setdefault((system, label), xr.Dataset())[variable] = xr.Variable.concat(columns, "lead_time")
    labels = {name: pairs.forecast[name] for name in ("init_time", "lead_time")}
    labels |= {"region": weights.coords.get("region"), "level": pairs.grid.get("level")}
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
    """Return the weighted sums of the fields of a variable over the grid, and the sum of the weights.

    Dims (part, init_time, lead_time, ...).
    """
    masked = mask is not None and any(cells.values.any() for cells in mask.values())
    if not skipna and not masked and "region" not in weights.dims:
        # Sum over longitude first: all cells of a row have the same weight.
        rows = [_row_sums(field) for field in fields]
        if all(columns for _, columns in rows):
            sums = [row.values @ weights.values for row, _ in rows]
            total_weight = np.full(sums[0].shape, weights.values.sum() * rows[0][1])
            return xr.Variable(("part", *rows[0][0].dims[:-1]), np.stack([*sums, total_weight]))
    arrays = []
    for field in fields:
        (array,) = (field.value if isinstance(field, Product) else field).values()
        arrays.append(array)
    if skipna:
        # The means of one metric must be over the same cells, as they are compared with each other.
        valid = arrays[0].notnull()
        for array in arrays[1:]:
            valid = valid & array.notnull()
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
