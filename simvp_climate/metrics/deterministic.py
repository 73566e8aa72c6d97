"""How good a forecast is: a statistic per cell first, then the weighted mean, the root last.

Every function takes a forecast and the analyses that hold the truth, finds the truth at the `valid_time` of
the forecast, and pools over initializations and the grid. Inputs may be lazy: they are read in blocks of
bounded size, and what comes out is computed. Sums are accumulated in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_member, rename
from simvp_climate.data.grid import closes_longitude, latitude_weights
from simvp_climate.metrics.pairs import SPACE, Block, Pairs, blocks, match, read, refuse_overlap
from simvp_climate.metrics.regions import Region, region_masks


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
    allow_overlap: bool = False,
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
    allow_overlap
        Whether the climatology may come from a period with verified times in it.

    Returns
    -------
    Dataset as from `rmse`, without unit, from -1 to 1; NaN where an anomaly is zero throughout.

    Raises
    ------
    ValueError
        As in `rmse`, or if the climatology lacks a valid time, or verified times lie in its period, or `kind` is
        unknown.
    """
    if kind not in ("pooled", "per_init"):
        raise ValueError(f"kind={kind!r} is unknown: choose 'pooled' or 'per_init'")
    name = "acc" if kind == "pooled" else "acc_per_init"
    return _single(name, forecast, truth, climatology, weights, skipna, allow_overlap)


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
    pairs = match(forecast, truth, None)
    check_wavenumbers(pairs.grid["longitude"], wavenumbers)
    metrics = {"small_scale_variance": _small_scale_variance(wavenumbers)}
    sums = weighted_sums(pairs, metrics, row_weights(pairs.grid["latitude"], weights), skipna)
    return _described(*_estimate(sums["", "small_scale_variance"], metrics["small_scale_variance"]), pairs)


def activity(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the standard deviation of the anomalies of a forecast over that of the truth.

    sqrt(<a^2> / <b^2>), a and b the anomalies of forecast and truth from the climatology at the valid time. A forecast
    that blurs what it does not know has less than 1. Arguments, result and errors as in `acc`; no unit.
    """
    return _single("activity", forecast, truth, climatology, weights, skipna, allow_overlap)


def wind_vector_rmse(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    components: tuple[str, str] = ("u10", "v10"),
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.DataArray:
    """Return the root mean square length of the error of the wind, sqrt(<du^2 + dv^2>).

    Parameters
    ----------
    components
        The variables that hold the eastward and the northward wind.
    forecast, truth, weights, skipna
        As in `rmse`.

    Returns
    -------
    DataArray `wind_vector_rmse` as one of the variables of `rmse`, in the unit of the wind.

    Raises
    ------
    ValueError
        As in `rmse`, or if a component is missing, or both differ in unit.
    """
    if lacking := [name for name in components if name not in forecast]:
        raise ValueError(
            f"the forecast has no {' and '.join(lacking)}, but {list(forecast.data_vars)}: say components="
        )
    east, north = components
    units = [forecast[name].attrs.get("units") for name in components]
    if units[0] != units[1]:
        raise ValueError(f"{east} is in {units[0]!r} and {north} in {units[1]!r}: convert one")
    if skipna:  # the same cells for both
        analyses = rename(truth, components)
        there = {name: one[east].notnull() & one[north].notnull() for name, one in (("f", forecast), ("t", analyses))}
        forecast = forecast[list(components)].where(there["f"])
        truth = analyses[list(components)].where(there["t"])
    both = rmse(forecast[list(components)], truth, weights=weights, skipna=skipna)
    # the means of both squares are over the same cells, so that their sum is the mean of the sum
    length = np.sqrt(both[east] ** 2 + both[north] ** 2).rename("wind_vector_rmse")
    return length.assign_attrs(long_name="root mean square length of the wind error", units=units[0] or "")


def crps(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the fair continuous ranked probability score of an ensemble.

    <mean_k |X_k - T| - 1/2 sum_kl |X_k - X_l| / (M (M - 1))> over the M members X and the truth T: the score that an
    ensemble with infinitely many members of the same kind would have (Ferro 2014), as WeatherBench 2 and
    WeatherBench-X compute it. Arguments, result and errors as in `rmse`, for a forecast with a dimension of members
    (`number`, `realization`, `member`) that is pooled; ValueError also where there is none, or a single member.
    """
    return _single("crps", forecast, truth, None, weights, skipna)


def spread(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the spread of an ensemble, sqrt(<variance over members>), the variance with the divisor M - 1.

    The truth says which pairs count. Arguments, result and errors as in `crps`.
    """
    return _single("spread", forecast, truth, None, weights, skipna)


def spread_skill_ratio(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the spread of an ensemble over the error of its mean, 1 where the members are like the truth.

    sqrt(<variance>) / sqrt(<(mean - T)^2 - variance / M>), so that it does not depend on the number of members M
    (WeatherBench-X `UnbiasedSpreadSkillRatio`). Below 1 the ensemble is too sure. Arguments, result and errors as in
    `crps`; no unit.
    """
    return _single("spread_skill_ratio", forecast, truth, None, weights, skipna)


def rank_histogram(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    *,
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return how often the truth lies above so many members: flat if the ensemble is reliable.

    Arguments and errors as in `crps`, `regions` as in `score`. A truth that equals some members counts in equal parts
    for all ranks that it could have.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (rank, lead_time[, level, region]), the share of each
    rank from 0 to M; the sum over the ranks is 1.
    """
    pairs = match(forecast, truth, None)
    member = members_of(pairs)
    count = pairs.forecast.sizes[member]
    metric = Metric(lambda f: _shares_of_ranks(f, count), lambda *means: means)
    cells = cell_weights(pairs.grid, weights, regions, truth)
    sums = weighted_sums(pairs, {"rank": metric}, cells, skipna, pool_members=True)["", "rank"]
    shares, _ = _means(sums.sum("init_time", skipna=False))
    ranks = xr.DataArray(np.arange(count + 1), dims="rank", name="rank", attrs={"long_name": "members below the truth"})
    result = concat(list(shares), ranks)
    return _described(result.transpose("rank", "lead_time", "level", "region", ..., missing_dims="ignore"), True, pairs)


class Fields:
    """Forecast, truth and climatology of a block, and what several metrics make of them; all in physical units.

    `probability` is that of an event, of a system that says one and has no members to count.
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
    def square(self) -> "Product":
        return Product(self.error, self.error)

    @cached_property
    def anomaly(self) -> xr.Dataset:
        return self.forecast - self.climatology

    @cached_property
    def true_anomaly(self) -> xr.Dataset:
        return self.truth - self.climatology

    @cached_property
    def variance(self) -> xr.Dataset:
        """Over the members; a forecast without has none."""
        if self.member is None:
            return self.forecast * np.nan
        return self.members.var(self.member, ddof=1, skipna=False)


@dataclass(frozen=True)
class Product:
    """A field that is the product of two: its mean needs no copy of it."""

    first: xr.Dataset
    second: xr.Dataset

    @property
    def value(self) -> xr.Dataset:
        return self.first * self.second


@dataclass(frozen=True)
class Metric:
    """The fields whose means a metric needs, and the metric from these means."""

    fields: Callable[[Fields], tuple[xr.Dataset | Product, ...]]
    finish: Callable[..., xr.Dataset]
    dimensionless: bool = False
    weighted: bool = True  # by the area of the cells, or whatever is asked for
    per_init: bool = False  # the metric of every initialization, then the mean of these
    needs_climatology: bool = False
    of_ensembles: bool = False


def _crps(f: Fields) -> tuple[xr.Dataset, ...]:
    if f.member is None:
        return (abs(f.error),)
    count = f.members.sizes[f.member]
    distance = abs(f.members - f.truth).mean(f.member, skipna=False)

    def half_distance_of_members(field: xr.DataArray) -> xr.DataArray:
        # the sum of all distances from the sorted members: each is the larger one of `rank` pairs
        ordered = np.sort(field.transpose(..., f.member).values, axis=-1)
        factor = 2 * np.arange(1, count + 1) - count - 1
        return field.isel({f.member: 0}, drop=True).copy(data=ordered @ (factor / (count * (count - 1))))

    return (distance - f.members.map(half_distance_of_members),)


def _shares_of_ranks(f: Fields, count: int) -> tuple[xr.Dataset, ...]:
    """Return for each rank whether the truth has it, or which share of it."""
    below, equal = (f.members < f.truth).sum(f.member), (f.members == f.truth).sum(f.member)
    # comparisons know no missing values
    share = (1 / (equal + 1)).where(f.forecast.notnull() & f.truth.notnull())
    last = below + equal
    return tuple(share * ((below <= rank) & (rank <= last)) for rank in range(count + 1))


def _small_scale_variance(wavenumbers: tuple[int, int]) -> Metric:
    first, last = wavenumbers

    def variance(field: xr.DataArray) -> xr.DataArray:
        values = field.transpose(..., "longitude")
        spectrum = np.fft.rfft(values.values, norm="forward")[..., first : last + 1]
        return values.isel(longitude=0, drop=True).copy(data=2 * (np.abs(spectrum) ** 2).sum(axis=-1))

    return Metric(lambda f: (f.forecast.map(variance), f.truth.map(variance)), ratio, dimensionless=True)


def _correlation(ab: xr.Dataset, aa: xr.Dataset, bb: xr.Dataset) -> xr.Dataset:
    # two roots, not the root of the product, which overflows sooner
    return ratio(ab, np.sqrt(aa) * np.sqrt(bb))


def _anomaly_products(f: Fields) -> tuple[Product, ...]:
    pairs = (f.anomaly, f.true_anomaly), (f.anomaly, f.anomaly), (f.true_anomaly, f.true_anomaly)
    return tuple(Product(*pair) for pair in pairs)


def ratio(numerator: xr.Dataset, denominator: xr.Dataset) -> xr.Dataset:
    """Return the quotient, NaN where the denominator is zero."""
    return numerator / denominator.where(denominator != 0)


METRICS = {
    "rmse": Metric(lambda f: (f.square,), np.sqrt),
    "mae": Metric(lambda f: (abs(f.error),), lambda error: error),
    "bias": Metric(lambda f: (f.error,), lambda error: error),
    "acc": Metric(_anomaly_products, _correlation, dimensionless=True, needs_climatology=True),
    "acc_per_init": Metric(_anomaly_products, _correlation, dimensionless=True, needs_climatology=True, per_init=True),
    "activity": Metric(
        lambda f: (Product(f.anomaly, f.anomaly), Product(f.true_anomaly, f.true_anomaly)),
        lambda aa, bb: np.sqrt(ratio(aa, bb)),  # type: ignore[return-value]
        dimensionless=True,
        needs_climatology=True,
    ),
    "small_scale_variance": _small_scale_variance((10, 19)),
    # as OpenSTL and others print it
    "rmse_unweighted": Metric(lambda f: (f.square,), np.sqrt, weighted=False),
    "crps": Metric(_crps, lambda crps: crps, of_ensembles=True),
    "spread": Metric(lambda f: (f.variance,), np.sqrt, of_ensembles=True),
    "spread_skill_ratio": Metric(
        # the factor makes NaN of a forecast without members
        lambda f: (f.variance, f.square.value - f.variance / (f.members.sizes[f.member] if f.member else 1)),
        # the error may come out below the share of the spread that it holds by chance
        lambda variance, error: np.sqrt(ratio(variance, error.where(error > 0))),  # type: ignore[return-value]
        dimensionless=True,
        of_ensembles=True,
    ),
}


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
