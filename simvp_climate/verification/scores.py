"""The table of scores: every system on the same pairs, beside its baselines, with intervals."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_member, level_values, rename
from simvp_climate.grid import closes_longitude
from simvp_climate.verification import baselines as plain
from simvp_climate.verification.bootstrap import block_length, percentiles, resample
from simvp_climate.verification.metrics import (
    METRICS,
    Metric,
    attributes,
    check_wavenumbers,
    concat,
    finish,
    members_of,
    ratio,
    row_weights,
    sums_per_init,
    weighted_sums,
)
from simvp_climate.verification.pairs import SPACE, Block, Pairs, iso, match
from simvp_climate.verification.regions import BOXES, Region, region_masks

_SKILL = "rmse_skill"
_SEASONS = ("DJF", "MAM", "JJA", "SON")
_LEFT_OUT = {True: "left out", False: "left out where never there, else propagated"}


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None = None,
    *,
    baselines: Mapping[str, xr.Dataset | Callable] | None = None,
    metrics: Sequence[str] | None = None,
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    by: Literal["season", "month"] | None = None,
    calibrated: xr.Dataset | None = None,
    persistence: bool = True,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
    confidence: float | None = 0.95,
    block: int | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Return the scores of a forecast beside those of its baselines, each with an interval.

    Every system is scored on the same pairs of init and lead: those with a truth at the valid time and, for baselines
    that start from it, at the init time. With `skipna` also on the same cells.

    Parameters
    ----------
    forecast, truth, weights, skipna
        As in `rmse`. The forecast's attribute `system` names it in the result, "forecast" if it has none. An ensemble
        (dimension `number`, `realization` or `member`) is one system: its mean is scored, and in the metrics of
        ensembles its members.
    climatology
        As `climatology` gives it. Without one there are no anomaly correlation and activity, and no system
        "climatology".
    baselines
        More systems by name: forecasts as Datasets, with all inits and leads of the first (of another model, for
        example opened from a store of WeatherBench 2 with `open_dataset`), or what makes them from the state at init
        time, as `fit_damped_persistence` and `fit_linear_regression` return it.
    metrics
        Some of "rmse", "mae", "bias", "acc" (pooled), "acc_per_init", "activity", "small_scale_variance" (wavenumbers
        10 to 19), "rmse_unweighted", "rmse_skill", and for ensembles "crps" (fair; of one forecast its mae), "spread",
        "spread_skill_ratio"; in the order wanted. "rmse_skill" stands for 1 - rmse / rmse of a baseline, for each
        of them: "rmse_skill_vs_persistence" and so on, blanks as underscores. None: all that apply but acc_per_init and
        rmse_unweighted; small_scale_variance applies to grids round the globe with 39 longitudes or more.
    regions
        Names, boxes or masks, see `region_masks`, and "land" and "sea" where the truth has a land-sea mask: a
        dimension `region` more. None: the whole grid, without the dimension.
    by
        "season" or "month" of the valid time: a dimension of this name more.
    calibrated
        Factors as from `fit_calibration`: the forecast drawn towards climatology by them is a system more,
        named with ", calibrated".
    persistence
        Whether persistence is scored.
    allow_overlap
        Whether the climatology may come from a period with verified times in it.
    confidence
        Of the intervals, which are the central percentiles of moving-block bootstrap samples of the initializations,
        the same ones for all systems. None: no intervals.
    block
        Number of initializations in a block; None: as many as start while one forecast runs, at least the cube root of
        their number.
    samples, seed
        Of the bootstrap.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (system, metric, lead_time[, level, region, season]) and
    the number of initializations in the coordinate `pairs(lead_time[, season])`. The attribute `units` of a variable is
    the unit of its rmse, mae, bias, crps and spread; other metrics have none. The acc of climatology is NaN. The
    coordinates `<variable>_low` and `<variable>_high` are the ends of the intervals, NaN where there are fewer than
    five blocks of initializations (the attribute `intervals` says which).

    Raises
    ------
    ValueError
        As in the functions for single metrics; if a metric or region is unknown or does not apply; if a baseline lacks
        an init or a lead; or if verified times lie in the period of the climatology.
    """
    system = str(forecast.attrs.get("system", "forecast"))
    made = {"persistence": plain.persistence} if persistence else {}
    if climatology is None and calibrated is not None:
        raise ValueError("calibrated draws the forecast towards climatology: give one, climatology(train)")
    names = [*made, *(["climatology"] if climatology is not None else []), *(baselines or {})]
    if twice := sorted({name for name in names if names.count(name) > 1 or name == system}):
        raise ValueError(
            f"two systems are called {twice[0]!r} (the forecast, by its attribute system, is {system!r}, the baselines "
            f"{names}): give one of them another name, for example forecast.assign_attrs(system='my model')"
        )
    pairs = match(forecast, truth, climatology, {**made, **(baselines or {})})
    chosen = _choose(metrics, pairs, names)
    if not allow_overlap:
        if climatology is not None:
            _refuse_overlap(climatology.attrs, "climatology", "the climatology", pairs)
        for name, one in pairs.made.items():
            fitted = getattr(one, "damping", getattr(one, "patterns", None))
            if fitted is not None:
                _refuse_overlap(fitted.attrs, "fitted", f"the baseline {name!r}", pairs)
    rows = row_weights(pairs.grid["latitude"], weights)
    masks = region_masks(_with_land(regions, truth), pairs.grid)
    made_of_block = {"climatology": lambda block: block.climatology} if climatology is not None else {}
    if calibrated is not None:
        made_of_block["calibrated"] = _calibrate_with(calibrated, pairs)
    computed = {name: METRICS[name] for name in chosen if name in METRICS}
    if any(name.startswith(_SKILL) for name in chosen):
        computed.setdefault("rmse", METRICS["rmse"])
    cells = rows if masks is None else masks * rows
    sums = weighted_sums(pairs, computed, cells, skipna, pool_members=True, made=made_of_block)
    titles = {"": system, **({"calibrated": f"{system}, calibrated"} if calibrated is not None else {})}
    order = ["", *(["calibrated"] if calibrated is not None else []), *names]

    length = block_length(pairs.forecast["init_time"], pairs.forecast["lead_time"]) if block is None else block
    drawn = _drawn(pairs, confidence, length, samples, seed)
    groups = _groups(by, pairs)
    tables = [_table(sums, computed, chosen, order, names, drawn, confidence, group) for group in groups.values()]
    complete = [pairs.complete & (True if group is None else group.values) for group in groups.values()]
    if by is None:
        parts, counts = tables[0], ("lead_time", complete[0].sum(axis=0))
    else:
        labels = xr.DataArray(np.array(list(groups)), dims=by, name=by)
        parts = [None if not part else concat(list(part), labels) for part in zip(*tables, strict=True)]
        counts = (("lead_time", by), np.stack([one.sum(axis=0) for one in complete], axis=-1))

    dims = ("system", "metric", "lead_time", "level", "region", *([by] if by else []), ...)
    level = {"level": pairs.forecast.level} if "level" in pairs.grid else {}
    system_labels = xr.DataArray(np.array([titles.get(name, name) for name in order]), dims="system", name="system")

    def laid_out(part: xr.Dataset) -> xr.Dataset:
        return part.assign_coords(system=system_labels, **level).transpose(*dims, missing_dims="ignore")

    if not skipna and (lacking := _missing_in(sums)):
        warnings.warn(
            f"the scores of {lacking} are missing where a value is missing in the forecast, the truth or a baseline: "
            "skipna=True counts the cells where all are there",
            stacklevel=2,
        )
    result, *ends = [laid_out(part) for part in parts if part is not None]
    result = result.assign_coords(pairs.kept)
    result.attrs = {}
    for name, variable in pairs.forecast.data_vars.items():
        result[name].attrs = attributes(variable, pairs.analysis[name], dimensionless=False)
        for word, end in zip(("low", "high"), ends, strict=False):
            result = result.assign_coords({f"{name}_{word}": end[name].variable})
            edge = {"low": "lower", "high": "upper"}[word]
            result[f"{name}_{word}"].attrs = {"long_name": f"{edge} end of the {confidence:.0%} interval of {name}"}
    result = result.assign_coords(pairs=(*counts, {"long_name": "number of initializations that were verified"}))
    result["metric"].attrs["units"] = "rmse, mae, bias, crps and spread: those of the variable; others: 1"
    verified = pairs.valid_time.values[pairs.complete]
    return result.assign_attrs(
        # a score means little without them: coarser grids give lower errors
        grid=" x ".join(f"{pairs.grid[dim].size} {dim}s" for dim in SPACE[::-1]),
        verified_start=iso(verified.min()),
        verified_end=iso(verified.max()),
        weights=str(weights),
        missing_values=_LEFT_OUT[skipna],
        intervals=_say(pairs, confidence, length, samples, seed, drawn),
        **{
            key: climatology.attrs[key]
            for key in ("climatology_method", "climatology_start", "climatology_end")
            if climatology is not None and key in climatology.attrs
        },
    )


def _missing_in(sums: dict[tuple[str, str], xr.Dataset]) -> list[str]:
    """Return the variables of which a sum over the cells of a pair is missing."""
    found = {}
    for (_, label), one in sums.items():
        for name, values in one.data_vars.items():
            # a spectrum has no value where a row is not complete, which a mask may see to
            if (
                label != "small_scale_variance"
                and not METRICS[label].of_ensembles
                and not np.isfinite(values.values).all()
            ):
                found[str(name)] = None
    return list(found)


def _with_land(
    regions: Sequence[str] | Mapping[str, Region] | None, truth: xr.Dataset
) -> Sequence[str] | Mapping[str, Region] | None:
    """Return the regions with "land" and "sea" as masks, from the land-sea mask that comes with the truth."""
    if regions is None or isinstance(regions, str | Mapping) or not {"land", "sea"} & set(regions):
        return regions
    try:
        mask = rename(truth, ["land_sea_mask"])["land_sea_mask"]
    except ValueError as error:
        raise ValueError(
            "the regions land and sea take a land-sea mask in the truth, and there is none: open it with the data "
            f"(open_dataset(path, [..., 'land_sea_mask'])), or give regions={{'land': mask}} ({error})"
        ) from error
    if "time" in mask.dims:
        mask = mask.isel(time=0, drop=True)
    own = {"land": mask, "sea": 1 - mask}
    unknown = [name for name in regions if name not in own and name not in BOXES]
    if unknown:
        raise ValueError(f"regions {unknown} are unknown: choose from {[*BOXES, 'land', 'sea']}")
    return {name: own[name] if name in own else BOXES[name] for name in regions}


def skilful_to(scores: xr.Dataset) -> xr.Dataset:
    """Return the last lead up to which a system is better than every baseline, beyond the interval.

    Parameters
    ----------
    scores
        As from `score`, with "rmse_skill" among its metrics and with intervals.

    Returns
    -------
    Dataset with the variables of `scores` and the systems that are no baselines, dims (system[, level, region,
    season]): the last lead time at which, and at all leads before, the lower end of the interval of the rmse skill is
    above 0 against every baseline; zero where that is so at no lead, NaT where there is no interval.

    Raises
    ------
    ValueError
        If there is no skill or no interval in the scores.
    """
    labels = [str(name) for name in scores["metric"].values if str(name).startswith(f"{_SKILL}_vs_")]
    if not labels:
        raise ValueError(f"the scores have no {_SKILL}, but {list(scores['metric'].values)}: score with a baseline")
    judged = [system for system in scores["system"].values if _vs(str(system)) not in labels]
    result = {}
    for name in scores.data_vars:
        if f"{name}_low" not in scores.coords:
            raise ValueError(
                f"the scores have no intervals ({scores.attrs.get('intervals')}): score with confidence=0.95"
            )
        low = scores[f"{name}_low"].sel(metric=labels)
        low = low.sel(system=judged)
        better = (low > 0).all("metric")
        until = better.astype(int).cumprod("lead_time").sum("lead_time")
        leads = np.concatenate([np.zeros(1, scores["lead_time"].dtype), scores["lead_time"].values])
        values = leads[until.values]
        if values.dtype.kind == "m":  # without an interval at the first lead nothing is known
            values = np.where(low.isel(lead_time=0).notnull().all("metric").values, values, np.timedelta64("NaT"))
        result[name] = until.copy(data=values).drop_vars([c for c in until.coords if c not in until.dims])
        result[name].attrs = {"long_name": f"lead up to which {name} is better than every baseline"}
    return xr.Dataset(result)


def fit_calibration(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    """Return by how much a forecast's anomalies should be drawn towards climatology, from a validation period.

    The factor that gives the least square error there, <a b> / <a^2>, a and b the anomalies of forecast and truth, for
    each variable and lead, between 0 and 1. `score(calibrated=...)` takes it, or `climatology + factor * anomaly` makes
    the forecast. Such a forecast has a lower error and less variance: look at its activity.

    Parameters
    ----------
    forecast, truth, climatology
        As in `acc`, of a period that is not the one to be scored.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (lead_time[, level]), no unit. The attributes
    `calibration_start` and `calibration_end` say from which valid times.

    Raises
    ------
    ValueError
        As in `acc`.
    """
    pairs = match(forecast, truth, climatology)
    rows = row_weights(pairs.grid["latitude"], "area")
    sums = weighted_sums(pairs, {"acc": METRICS["acc"]}, rows, False, pool_members=True)["", "acc"]
    totals = sums.sum("init_time", skipna=False)
    factor = ratio(totals.isel(part=0), totals.isel(part=1)).clip(0, 1)
    if lacking := [str(name) for name in factor.data_vars if factor[name].isnull().any()]:
        raise ValueError(
            f"forecast, truth or climatology of {lacking} has missing values in some pairs, so that nothing can be "
            "fitted: take a period without gaps"
        )
    verified = pairs.valid_time.values[pairs.complete]
    return factor.assign_attrs(calibration_start=iso(verified.min()), calibration_end=iso(verified.max()))


def _calibrate_with(factors: xr.Dataset, pairs: Pairs) -> Callable[[Block], xr.Dataset]:
    start, end = (factors.attrs.get(f"calibration_{word}") for word in ("start", "end"))
    if lacking := [name for name in pairs.forecast.data_vars if name not in factors]:
        raise ValueError(f"calibrated has no {lacking}, but {list(factors.data_vars)}: fit it on the same variables")
    found = factors.indexes["lead_time"].get_indexer(pairs.forecast.indexes["lead_time"])
    if (found < 0).any():
        raise ValueError(
            f"calibrated has no factor for the lead {pairs.forecast.indexes['lead_time'][found < 0][0]}: fit it on "
            "forecasts with the same leads"
        )
    verified = [iso(time) for time in pairs.valid_time.values[pairs.complete]]
    if start is not None and (inside := [text for text in verified if start <= text <= end]):
        raise ValueError(
            f"calibrated was fitted from {start} to {end}, and {len(inside)} verified times lie in it, from "
            f"{min(inside)}: it has seen the truth. Fit it on another period"
        )
    factors = factors[list(pairs.forecast.data_vars)]

    def calibrate(block: Block) -> xr.Dataset:
        forecast = block.systems[""]
        factor = on_levels_of(factors, forecast).sel(lead_time=forecast["lead_time"])
        drawn = block.climatology + factor * (forecast - block.climatology)
        return drawn.assign({name: drawn[name].transpose(*own.dims) for name, own in forecast.data_vars.items()})

    return calibrate


def on_levels_of(factors: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Return factors at the levels of a canonical forecast, by their value.

    Raises ValueError if one is not there.
    """
    if "level" not in factors.dims:
        return factors
    own, wanted = level_values(factors["level"].variable), forecast["level"].values
    distance = np.abs(own[np.newaxis] - wanted[:, np.newaxis])
    if (distance.min(axis=1) > 1e-3).any():
        raise ValueError(f"the calibration has the levels {own} hPa, the forecast {wanted}: fit it on the same ones")
    return factors.isel(level=distance.argmin(axis=1)).assign_coords(level=forecast["level"])


def _choose(metrics: Sequence[str] | None, pairs: Pairs, baselines: list[str]) -> list[str]:
    """Return the labels of the metrics asked for, or of all that apply."""
    ensemble = find_member(pairs.forecast) is not None
    longitude = pairs.grid["longitude"]
    if metrics is None:
        metrics = ["rmse", "mae", "bias"]
        metrics += ["acc", "activity"] if pairs.climatology is not None else []
        if closes_longitude(longitude) and longitude.size > 2 * 19:
            metrics += ["small_scale_variance"]
        metrics += [name for name, metric in METRICS.items() if metric.of_ensembles] if ensemble else []
        metrics += [_SKILL] if baselines else []
    if isinstance(metrics, str):
        raise ValueError(f"metrics={metrics!r} is one string, a list is needed: [{metrics!r}]")
    known = [*METRICS, _SKILL]
    if unknown := [name for name in metrics if name not in known]:
        raise ValueError(f"metrics {unknown} are unknown: choose from {known}")
    if not metrics:
        raise ValueError(f"metrics is empty: choose from {known}")
    for name in metrics:
        if name in METRICS and METRICS[name].needs_climatology and pairs.climatology is None:
            raise ValueError(f"{name} needs a climatology: score(forecast, truth, climatology(train))")
        if name in METRICS and METRICS[name].of_ensembles:
            members_of(pairs)
    if ensemble:
        members_of(pairs)
    if _SKILL in metrics and not baselines:
        raise ValueError(f"{_SKILL} needs something to compare with: persistence=True, a climatology or baselines")
    if "small_scale_variance" in metrics:
        check_wavenumbers(longitude, (10, 19))
    labels = []
    for name in metrics:
        labels += [_vs(baseline) for baseline in baselines] if name == _SKILL else [name]
    return labels


def _vs(baseline: str) -> str:
    return f"{_SKILL}_vs_{baseline.replace(' ', '_')}"


def _drawn(pairs: Pairs, confidence: float | None, length: int, samples: int, seed: int) -> xr.DataArray | None:
    if confidence is None:
        return None
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} must lie between 0 and 1, for example 0.95")
    if length < 1 or samples < 2:
        raise ValueError(f"block={length!r} must be at least 1, and samples={samples!r} at least 2")
    counts = resample(pairs.complete.shape[0], length, samples, seed)
    return None if counts is None else xr.DataArray(counts, dims=("sample", "init_time"))


def _say(
    pairs: Pairs, confidence: float | None, length: int, samples: int, seed: int, drawn: xr.DataArray | None
) -> str:
    if confidence is None:
        return "none asked for"
    inits = pairs.complete.shape[0]
    if drawn is None:
        return f"none: {inits} initializations are fewer than five blocks of {length}"
    return (
        f"{confidence:.0%}, percentiles of {samples} moving-block bootstrap samples of {inits} initializations, "
        f"blocks of {length}, seed {seed}"
    )


def _groups(by: str | None, pairs: Pairs) -> dict[str | int, xr.DataArray | None]:
    """Return which pairs are in which season or month, (init_time, lead_time); all of them by the name ""."""
    if by is None:
        return {"": None}
    if by not in ("season", "month"):
        raise ValueError(f"by={by!r} is unknown: choose 'season', 'month' or None")
    found = getattr(pairs.valid_time.dt, by)
    there = set(found.values[pairs.complete].tolist())
    labels = [name for name in (_SEASONS if by == "season" else range(1, 13)) if name in there]
    return {label: (found == label).reset_coords(drop=True) for label in labels}


def _table(
    sums: dict[tuple[str, str], xr.Dataset],
    computed: dict[str, Metric],
    labels: list[str],
    systems: list[str],
    baselines: list[str],
    drawn: xr.DataArray | None,
    confidence: float | None,
    group: xr.DataArray | None,
) -> tuple[xr.Dataset, ...]:
    """Return the scores of a group of pairs, and the ends of their intervals if samples were drawn."""
    found, sampled = {}, {}
    for system in systems:
        for label, metric in computed.items():
            own = sums[system, label]
            if group is not None:
                own = own.where(group, 0)
            own = sums_per_init(own, metric)
            found[system, label] = finish(own.sum("init_time", skipna=False), metric)
            if drawn is not None:
                sampled[system, label] = finish(_resampled(own, drawn), metric)
    for parts in (found, sampled) if drawn is not None else (found,):
        for system in systems:
            for baseline in baselines:
                if (label := _vs(baseline)) in labels:
                    parts[system, label] = 1 - ratio(parts[system, "rmse"], parts[baseline, "rmse"])
    for parts in (found, sampled):
        for key in (("climatology", "acc"), ("climatology", "acc_per_init")):
            if key in parts:  # its anomalies are zero, up to the rounding of the store that it came from
                parts[key] = parts[key] * np.nan

    def stacked(of: Callable[[tuple[str, str]], xr.Dataset]) -> xr.Dataset:
        names = xr.DataArray(np.array(labels), dims="metric", name="metric")
        return concat([concat([of((system, label)) for label in labels], names) for system in systems], "system")

    table = stacked(lambda key: found[key])
    if drawn is None:
        return (table,)
    ends = {key: percentiles(value, confidence) for key, value in sampled.items()}
    return table, stacked(lambda key: ends[key][0]), stacked(lambda key: ends[key][1])


def _resampled(sums: xr.Dataset, drawn: xr.DataArray) -> xr.Dataset:
    """Return the sums over the initializations of every sample, by matrix products."""

    def product(field: xr.DataArray) -> xr.DataArray:
        values = field.transpose("init_time", ...)
        flat = drawn.values @ values.values.reshape(values.shape[0], -1)
        shape = (drawn.sizes["sample"], *values.shape[1:])
        return xr.DataArray(flat.reshape(shape), dims=("sample", *values.dims[1:]))

    coordinates = {name: c for name, c in sums.coords.items() if "init_time" not in c.dims}
    return sums.map(product).assign_coords(coordinates)


def _refuse_overlap(attrs: dict, prefix: str, what: str, pairs: Pairs) -> None:
    """Raise if verified times lie in the period of a climatology or baseline, as far as its attributes say one."""
    start, end = (attrs.get(f"{prefix}_{word}") for word in ("start", "end"))
    if start is None or end is None:
        return
    # ISO text sorts like the times, also across calendars
    inside = [text for text in map(iso, pairs.valid_time.values[pairs.complete]) if start <= text <= end]
    if inside:
        raise ValueError(
            f"{what} is from {start} to {end}, and {len(inside)} verified times lie in it, from "
            f"{min(inside)} to {max(inside)}: it has seen the truth. Compute it from the training years "
            "alone, or say allow_overlap=True"
        )
