"""The table of scores: every system on the same pairs, beside its baselines, with intervals."""

import functools
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.grid import closes_longitude, find_member
from simvp_climate.metrics.aggregation import (
    attributes,
    cell_weights,
    check_wavenumbers,
    concat,
    finish,
    members_of,
    sums_per_init,
    weighted_sums,
)
from simvp_climate.metrics.alignment import SPACE, iso
from simvp_climate.metrics.baselines.simple_persistence import persistence as simple_persistence
from simvp_climate.metrics.categorical.seeps import seeps_pairs
from simvp_climate.metrics.categorical.thresholds import check_frequency, event_metrics
from simvp_climate.metrics.definitions import METRICS, Metric, ratio
from simvp_climate.metrics.pairs import Pairs, group_masks, match, refuse_fits, refuse_overlap
from simvp_climate.metrics.regions import Region
from simvp_climate.metrics.uncertainty.bootstrap import block_length, percentiles, resample
from simvp_climate.metrics.uncertainty.calibration import calibrate_with

_SKILL = "rmse_skill"
# of which less is better and 0 the best: 1 - theirs over that of a baseline is a skill
_ERRORS = ("rmse", "mae", "rmse_unweighted", "crps", "brier", "seeps")
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
    thresholds: Mapping[str, float] | None = None,
    event_frequency: xr.Dataset | None = None,
    seeps_climatology: xr.Dataset | None = None,
    vectors: Mapping[str, tuple[str, str]] | None = None,
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
        ensembles its members. A baseline with one member is a single forecast.
    climatology
        As `climatology` gives it. Without one there are no anomaly correlation and activity, and no system
        "climatology".
    baselines
        More systems by name: forecasts as Datasets, with all inits and leads of the first (of another model, for
        example opened from a store of WeatherBench 2 with `open_dataset`), or what makes them from the state at init
        time, as `fit_damped_persistence` and `fit_linear_regression` return it.
    metrics
        Some of "rmse", "mae", "bias", "acc" (pooled), "acc_per_init", "activity", "small_scale_variance" (wavenumbers
        10 to 19), "rmse_unweighted", and for ensembles "crps" (fair; of one forecast its mae), "spread",
        "spread_skill_ratio"; with `thresholds` "brier" and "frequency_bias", with `seeps_climatology` "seeps"; in the
        order wanted. "rmse_skill" stands for 1 - rmse / rmse of a baseline, for each of them:
        "rmse_skill_vs_persistence" and so on, blanks as underscores; so do "mae_skill", "crps_skill" and the like.
        "acc_difference", or that of any metric, stands for the metric less that of a baseline. Both have intervals of
        their own, narrower than those of the two apart. None: all that apply but acc_per_init and rmse_unweighted,
        and of the comparisons rmse_skill; small_scale_variance applies to grids round the globe with 39 longitudes or
        more.
    regions
        Names ("tropics", "poles"), boxes or masks, see `region_masks`, and "land", "sea" or "europe land" where the
        truth has a land-sea mask: a dimension `region` more. None: the whole grid, without the dimension.
    by
        "season" or "month" of the valid time: a dimension of this name more.
    calibrated
        Factors as from `fit_calibration`: the forecast drawn towards climatology by them is a system more,
        named with ", calibrated".
    thresholds
        By variable, in its unit: what "brier" and "frequency_bias" ask whether it is exceeded. Other variables have
        none.
    event_frequency
        As from the function `event_frequency`, of the same thresholds: the probability that climatology is scored with
        in "brier" and "frequency_bias", and so is compared with in "brier_skill_vs_climatology". All of these are NaN
        for a variable without.
    seeps_climatology
        As from the function `seeps_climatology`, or of a store of WeatherBench 2 (see `seeps`), of the variables that
        have a "seeps".
    vectors
        Variables more by name, of the eastward and the northward component each, {"wind10": ("u10", "v10")}: their rmse
        is the root mean square length of the error; other metrics have none.
    persistence
        Whether persistence is scored.
    allow_overlap
        Whether climatologies, baselines and the calibration may come from a period with verified times in it.
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
    the unit of its rmse, mae, bias, crps, spread and their differences; other metrics have none. The acc of climatology
    is NaN, and so are its brier and frequency_bias without `event_frequency`. The coordinates `<variable>_low` and
    `<variable>_high` are the ends of the intervals, NaN where fewer than five blocks of initializations have a value of
    this variable (the attribute `intervals` says how many have any). With `skipna`, `pairs` counts the initializations
    that have a value of any variable, and `<variable>_pairs(lead_time[, level, region, season])` those of each.

    Warns where values are missing, where no forecast has a truth at a lead, and where only one side says its units.

    Raises
    ------
    ValueError
        As in the functions for single metrics; if a metric or region is unknown or does not apply; if a baseline lacks
        an init or a lead; or if verified times lie in the period of the climatology, event frequency or a fit.
    """
    system = str(forecast.attrs.get("system", "forecast"))
    made = {"persistence": simple_persistence} if persistence else {}
    if climatology is None and calibrated is not None:
        raise ValueError("calibrated draws the forecast towards climatology: give one, climatology(train)")
    names = [*made, *(["climatology"] if climatology is not None else []), *(baselines or {})]
    if calibrated is not None and "calibrated" in names:
        raise ValueError("a baseline is called 'calibrated', as the forecast that is drawn in: give it another name")
    plainly_named = [name.replace(" ", "_") for name in names]
    if twice := sorted({name for name in names if plainly_named.count(name.replace(" ", "_")) > 1 or name == system}):
        raise ValueError(
            f"two systems are called {twice[0]!r} (the forecast, by its attribute system, is {system!r}, the baselines "
            f"{names}): give one of them another name, for example forecast.assign_attrs(system='my model')"
        )
    available = METRICS | ({} if thresholds is None else event_metrics(thresholds, list(map(str, forecast.data_vars))))
    if event_frequency is not None:
        if thresholds is None or climatology is None:
            raise ValueError(
                "event_frequency is what climatology says of the thresholds: give both, score(forecast, truth, "
                "climatology(train), thresholds=..., event_frequency=...)"
            )
        event_frequency = check_frequency(event_frequency, thresholds, forecast)
    pairs = match(forecast, truth, climatology, {**made, **(baselines or {})}, event_frequency)
    rainy = None
    if seeps_climatology is not None:
        rainy, available["seeps"] = seeps_pairs(pairs, seeps_climatology)
    chosen = _choose(metrics, available, pairs, names)
    _check_vectors(vectors or {}, pairs)
    asked = {column.metric for column in chosen.values()}
    if vectors and not {"rmse", "rmse_unweighted"} & asked:
        raise ValueError(f"vectors have an rmse alone, and metrics={metrics!r} asks for none: add 'rmse'")
    for name, given, wanted in (
        ("thresholds", thresholds, ("brier", "frequency_bias")),
        ("seeps_climatology", seeps_climatology, ("seeps",)),
    ):
        if given is not None and not asked & set(wanted):
            raise ValueError(f"{name} would be ignored, as metrics={metrics!r} asks for none of {wanted}: add one")
    if block is not None and confidence is None:
        raise ValueError(f"block={block} would be ignored, as confidence=None asks for no intervals: leave one out")
    if not allow_overlap:
        if climatology is not None:
            refuse_overlap(climatology.attrs, "climatology", "the climatology", pairs)
        refuse_fits(pairs)
        if seeps_climatology is not None:
            refuse_overlap(seeps_climatology.attrs, "climatology", "the climatology for SEEPS", pairs)
        if event_frequency is not None:
            refuse_overlap(event_frequency.attrs, "climatology", "the event frequency", pairs)
    made_of_block = {"climatology": lambda block: block.climatology} if climatology is not None else {}
    if calibrated is not None:
        made_of_block["calibrated"] = calibrate_with(calibrated, pairs, allow_overlap)
    computed = {column.metric: available[column.metric] for column in chosen.values()}
    cells = cell_weights(pairs.grid, weights, regions, truth)
    plainly = {name: metric for name, metric in computed.items() if name != "seeps"}
    sums = weighted_sums(pairs, plainly, cells, skipna, pool_members=True, made=made_of_block) if plainly else {}
    if "seeps" in computed:
        own = weighted_sums(rainy, {"seeps": computed["seeps"]}, cells, True, pool_members=True)
        sums |= _with_all(own, [*names, *made_of_block, ""], pairs)
    for name, components in (vectors or {}).items():
        _add_vector(sums, name, components, cells, pairs)
    titles = {"": system, **({"calibrated": f"{system}, calibrated"} if calibrated is not None else {})}
    order = ["", *(["calibrated"] if calibrated is not None else []), *names]

    verified = pairs.forecast["lead_time"].isel(lead_time=np.flatnonzero(pairs.complete.any(axis=0)))
    length = block_length(pairs.forecast["init_time"], verified) if block is None else block
    # where missing values propagate every pair counts
    valued = _with_values(sums) if skipna else None
    counted = pairs.complete if valued is None else _any_of(valued)
    drawn = _drawn(counted, confidence, length, samples, seed)
    parted = group_masks(by, pairs)
    # the anomalies of climatology are zero, up to the rounding of the store that it came from; and whether a mean
    # exceeds a threshold is not how often the event is
    every = list(pairs.forecast.data_vars)
    unsaid = [name for name in every if pairs.frequency is None or name not in pairs.frequency]
    undefined = {"acc": every, "acc_per_init": every, "brier": unsaid, "frequency_bias": unsaid}
    undefined = {} if climatology is None else undefined  # a baseline may be called so
    tables = [
        _table(sums, computed, chosen, order, drawn, confidence, group, 5 * length, undefined)
        for group in parted.values()
    ]
    complete = [counted & (True if group is None else group.values) for group in parted.values()]
    if by is None:
        parts, counts = tables[0], ("lead_time", complete[0].sum(axis=0))
    else:
        labels = xr.DataArray(np.array(list(parted)), dims=by, name=by)
        parts = [None if not part else concat(list(part), labels) for part in zip(*tables, strict=True)]
        counts = (("lead_time", by), np.stack([one.sum(axis=0) for one in complete], axis=-1))

    dims = ("system", "metric", "lead_time", "level", "region", *([by] if by else []), ...)
    level = {"level": pairs.forecast.level} if "level" in pairs.grid else {}
    system_labels = xr.DataArray(np.array([titles.get(name, name) for name in order]), dims="system", name="system")

    def laid_out(part: xr.Dataset) -> xr.Dataset:
        return part.assign_coords(system=system_labels, **level).transpose(*dims, missing_dims="ignore")

    if not skipna and (lacking := _missing_in(sums, list(vectors or {}), thresholds or {})):
        warnings.warn(
            f"the scores of {lacking} are missing where a value is missing in the forecast, the truth or a baseline: "
            "skipna=True counts the cells where all are there",
            stacklevel=2,
        )
    result, *ends = [laid_out(part) for part in parts if part is not None]
    result = result.assign_coords(pairs.kept)
    result.attrs = {}
    for name in result.data_vars:
        first = (vectors or {}).get(name, (name,))[0]
        result[name].attrs = attributes(pairs.forecast[first], pairs.analysis[first], dimensionless=False)
        if name not in pairs.forecast:
            result[name].attrs["long_name"] = f"vector of {' and '.join(vectors[name])}"
        for word, end in zip(("low", "high"), ends, strict=False):
            result = result.assign_coords({f"{name}_{word}": end[name].variable})
            edge = {"low": "lower", "high": "upper"}[word]
            result[f"{name}_{word}"].attrs = {"long_name": f"{edge} end of the {confidence:.0%} interval of {name}"}
    result = result.assign_coords(pairs=(*counts, {"long_name": "number of initializations that were verified"}))
    if valued is not None:
        numbers = [
            valued.where(True if group is None else group, False).sum("init_time", dtype=np.int64)
            for group in parted.values()
        ]
        numbers = laid_out(numbers[0] if by is None else concat(numbers, labels))
        for name in result.data_vars:
            words = {"long_name": f"number of initializations with values of {name}"}
            result = result.assign_coords({f"{name}_pairs": numbers[name].variable})
            result[f"{name}_pairs"].attrs = words
    result["metric"].attrs["units"] = (
        "rmse, mae, bias, crps, spread and their differences: those of the variable; others: 1"
    )
    verified = pairs.valid_time.values[pairs.complete]
    return result.assign_attrs(
        # a score means little without them: coarser grids give lower errors
        grid=" x ".join(f"{pairs.grid[dim].size} {dim}s" for dim in SPACE[::-1]),
        verified_start=iso(verified.min()),
        verified_end=iso(verified.max()),
        weights=str(weights),
        missing_values=_LEFT_OUT[skipna],
        intervals=_say(counted, confidence, length, samples, seed, drawn),
        **{
            key: climatology.attrs[key]
            for key in ("climatology_method", "climatology_start", "climatology_end")
            if climatology is not None and key in climatology.attrs
        },
    )


def _missing_in(
    sums: dict[tuple[str, str], xr.Dataset], vectors: list[str], thresholds: Mapping[str, float]
) -> list[str]:
    """Return the variables of which a sum over the cells of a pair is missing."""
    found = {}
    for (system, label), one in sums.items():
        # a spectrum has no value where a row is not complete, which a mask may see to; SEEPS leaves out what is missing
        if label in ("small_scale_variance", "seeps"):
            continue
        # what has no members has no spread
        if label in METRICS and METRICS[label].of_ensembles and (system != "" or label != "crps"):
            continue
        for name, values in one.drop_vars(vectors).data_vars.items():
            asked = label in METRICS or name in thresholds
            if asked and not np.isfinite(values.values).all():
                found[str(name)] = None
    return list(found)


def _with_all(sums: dict[tuple[str, str], xr.Dataset], systems: list[str], pairs: Pairs) -> dict:
    """Return sums of some variables and systems with those of all others, which are missing."""
    result = {}
    (_, label), some = next(iter(sums.items()))
    first = next(iter(some.data_vars))
    for system in systems:
        own = sums.get((system, label), some * np.nan)
        # without the levels that another variable may have
        result[system, label] = own.assign(
            {name: own[first] * np.nan for name in pairs.forecast.data_vars if name not in own}
        )[list(pairs.forecast.data_vars)]
    return result


def _check_vectors(vectors: Mapping[str, tuple[str, str]], pairs: Pairs) -> None:
    for name, components in vectors.items():
        if name in pairs.forecast:
            raise ValueError(f"vectors: the forecast has a variable {name!r} already, choose another name")
        if isinstance(components, str) or len(components) != 2:
            raise ValueError(f"vectors has {name}={components!r}: give two components, ('u10', 'v10')")
        if lacking := [one for one in components if one not in pairs.forecast]:
            raise ValueError(f"vectors: the forecast has no {lacking}, but {list(pairs.forecast.data_vars)}")
        units = [pairs.forecast[one].attrs.get("units") for one in components]
        if units[0] != units[1]:
            raise ValueError(f"{components[0]} is in {units[0]!r} and {components[1]} in {units[1]!r}: convert one")


def _add_vector(
    sums: dict[tuple[str, str], xr.Dataset],
    name: str,
    components: tuple[str, str],
    cells: xr.DataArray,
    pairs: Pairs,
) -> None:
    """Add the sums of a vector's squared error to those of its components; other metrics have none."""
    columns = pairs.grid["longitude"].size
    even = (cells > 0).astype(np.float64) if "region" in cells.dims else xr.ones_like(cells)
    for (_, label), one in sums.items():
        first, second = (one[component] for component in components)
        if label not in ("rmse", "rmse_unweighted"):
            one[name] = first * np.nan
            continue
        weights = cells if label == "rmse" else even
        whole = weights.sum([dim for dim in SPACE if dim in weights.dims])
        whole = whole if "longitude" in weights.dims else whole * columns
        for component in (first, second):
            counted = component.isel(part=-1)
            # which cells are missing the sums do not say
            if not (np.isclose(counted, 0) | np.isclose(counted / whole, 1, rtol=1e-9)).all():
                raise ValueError(
                    f"{' or '.join(components)} have missing values, and the sums do not say whether in the same "
                    "cells: wind_vector_rmse(..., skipna=True) takes those where both are there"
                )
        one[name] = xr.concat([(first + second).isel(part=[0]), first.isel(part=[1])], "part")


def skilful_to(scores: xr.Dataset, baselines: Sequence[str] | None = None) -> xr.Dataset:
    """Return the last lead up to which a system is better than every baseline, beyond the interval.

    Parameters
    ----------
    scores
        As from `score`, with "rmse_skill" among its metrics and with intervals.
    baselines
        Which systems are to be beaten, for example not other models that were handed to `score` with the baselines:
        these are judged too then. None: all that the scores have a skill against.

    Returns
    -------
    Dataset with the variables of `scores` and the systems that are no baselines, dims (system[, level, region,
    season]): the last lead time at which, and at all leads before, the lower end of the interval of the rmse skill is
    above 0 against every baseline; zero where that is so at no lead, NaT (of months NaN) where there is no interval.

    Raises
    ------
    ValueError
        If there is no skill or no interval in the scores.
    """
    labels = [str(name) for name in scores["metric"].values if str(name).startswith(f"{_SKILL}_vs_")]
    if not labels:
        raise ValueError(f"the scores have no {_SKILL}, but {list(scores['metric'].values)}: score with a baseline")
    if baselines is not None:
        wanted = [_vs(_SKILL, str(name)) for name in baselines]
        if isinstance(baselines, str) or not wanted or set(wanted) - set(labels):
            raise ValueError(f"baselines={baselines!r}: name some of those that there is a skill against, {labels}")
        labels = wanted
    judged = [system for system in scores["system"].values if _vs(_SKILL, str(system)) not in labels]
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
        # without an interval at the first lead nothing is known
        nothing = np.timedelta64("NaT") if values.dtype.kind == "m" else np.nan
        if not (known := low.isel(lead_time=0).notnull().all("metric").values).all():
            values = np.where(known, values, nothing)
        result[name] = until.copy(data=values).drop_vars([c for c in until.coords if c not in until.dims])
        result[name].attrs = {"long_name": f"lead up to which {name} is better than every baseline"}
    return xr.Dataset(result)


@dataclass(frozen=True)
class Column:
    """What stands under a label of the dimension metric: a metric, or how it compares with that of a baseline."""

    metric: str
    kind: Literal["own", "skill", "difference"] = "own"
    baseline: str = ""


def _choose(
    metrics: Sequence[str] | None, available: Mapping[str, Metric], pairs: Pairs, baselines: list[str]
) -> dict[str, Column]:
    """Return what was asked for by label, or all that apply."""
    ensemble = find_member(pairs.forecast) is not None
    longitude = pairs.grid["longitude"]
    if metrics is None:
        metrics = ["rmse", "mae", "bias"]
        metrics += ["acc", "activity"] if pairs.climatology is not None else []
        if closes_longitude(longitude) and longitude.size > 2 * 19:
            metrics += ["small_scale_variance"]
        metrics += [name for name, metric in METRICS.items() if metric.of_ensembles] if ensemble else []
        metrics += [name for name in available if name not in METRICS]
        metrics += [_SKILL] if baselines else []
    if isinstance(metrics, str):
        raise ValueError(f"metrics={metrics!r} is one string, a list is needed: [{metrics!r}]")
    if twice := sorted({str(name) for name in metrics if list(metrics).count(name) > 1}):
        raise ValueError(f"metrics has {twice[0]!r} twice: name each once")
    comparisons = {f"{name}_difference": Column(name, "difference") for name in available}
    comparisons |= {f"{name}_skill": Column(name, "skill") for name in _ERRORS if name in available}
    known = [*available, _SKILL]
    if unknown := [name for name in metrics if name not in available and name not in comparisons]:
        needs = {"brier": "thresholds", "frequency_bias": "thresholds", "seeps": "seeps_climatology"}
        for name in unknown:
            if (base := name.removesuffix("_skill").removesuffix("_difference")) in needs:
                raise ValueError(f"{name} needs {needs[base]}: score(..., {needs[base]}=...)")
        raise ValueError(
            f"metrics {unknown} are unknown: choose from {known}, or compare with the baselines by "
            "<metric>_skill and <metric>_difference"
        )
    if not metrics:
        raise ValueError(f"metrics is empty: choose from {known}")
    labels = {}
    for name in metrics:
        column = Column(name) if name in available else comparisons[name]
        if available[column.metric].needs_climatology and pairs.climatology is None:
            raise ValueError(f"{name} needs a climatology: score(forecast, truth, climatology(train))")
        if available[column.metric].of_ensembles:
            members_of(pairs)
        if column.kind == "own":
            labels[name] = column
            continue
        if not baselines:
            raise ValueError(f"{name} needs something to compare with: persistence=True, a climatology or baselines")
        labels |= {_vs(name, baseline): replace(column, baseline=baseline) for baseline in baselines}
    if ensemble:
        members_of(pairs)
    if "small_scale_variance" in {column.metric for column in labels.values()}:
        check_wavenumbers(longitude, (10, 19))
    return labels


def _vs(name: str, baseline: str) -> str:
    return f"{name}_vs_{baseline.replace(' ', '_')}"


def _drawn(counted: np.ndarray, confidence: float | None, length: int, samples: int, seed: int) -> xr.DataArray | None:
    if confidence is None:
        return None
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r} must lie between 0 and 1, for example 0.95")
    whole = all(isinstance(one, Integral) and not isinstance(one, bool) for one in (length, samples, seed))
    if not whole or length < 1 or samples < 2 or seed < 0:
        raise ValueError(
            f"block={length!r}, samples={samples!r} and seed={seed!r} must be whole numbers, at least 1, 2 and 0"
        )
    verified = counted.any(axis=1)
    counts = resample(int(verified.sum()), length, samples, seed)
    if counts is None:
        return None
    whole = np.zeros((samples, len(verified)))
    whole[:, verified] = counts
    return xr.DataArray(whole, dims=("sample", "init_time"))


def _say(
    counted: np.ndarray, confidence: float | None, length: int, samples: int, seed: int, drawn: xr.DataArray | None
) -> str:
    if confidence is None:
        return "none asked for"
    inits = int(counted.any(axis=1).sum())
    if drawn is None:
        return f"none: {inits} initializations are fewer than five blocks of {length}"
    return (
        f"{confidence:.0%}, percentiles of {samples} moving-block bootstrap samples of {inits} initializations, "
        f"blocks of {length}, seed {seed}; none where fewer than five blocks were verified"
    )


def _table(
    sums: dict[tuple[str, str], xr.Dataset],
    computed: dict[str, Metric],
    columns: dict[str, Column],
    systems: list[str],
    drawn: xr.DataArray | None,
    confidence: float | None,
    group: xr.DataArray | None,
    fewest: int,
    undefined: Mapping[str, list],
) -> tuple[xr.Dataset, ...]:
    """Return the scores of a group of pairs, and the ends of their intervals if samples were drawn.

    Intervals are missing where fewer initializations than `fewest` have a value, and scores of climatology where they
    are undefined, by metric and variable.
    """
    found, sampled, enough = {}, {}, {}
    for system in systems:
        for label, metric in computed.items():
            own = sums[system, label]
            if group is not None:
                own = own.where(group, 0)
            own = sums_per_init(own, metric)
            found[system, label] = finish(own.sum("init_time", skipna=False), metric)
            if drawn is not None:
                # the last part is the weight of what counts in an initialization
                enough[system, label] = (own.isel(part=-1) > 0).sum("init_time") >= fewest
                sampled[system, label] = finish(_resampled(own, drawn), metric)
    for parts in (found, sampled):
        for label, names in undefined.items():
            if (key := ("climatology", label)) in parts:
                parts[key] = parts[key].assign({name: parts[key][name] * np.nan for name in names})
    for parts in (found, sampled) if drawn is not None else (found,):
        for system in systems:
            for label, column in columns.items():
                if column.kind == "own":
                    continue
                own, theirs = parts[system, column.metric], parts[column.baseline, column.metric]
                parts[system, label] = 1 - ratio(own, theirs) if column.kind == "skill" else own - theirs
                if drawn is not None:
                    enough[system, label] = enough[system, column.metric] & enough[column.baseline, column.metric]

    def stacked(of: Callable[[tuple[str, str]], xr.Dataset]) -> xr.Dataset:
        names = xr.DataArray(np.array(list(columns)), dims="metric", name="metric")
        return concat([concat([of((system, label)) for label in columns], names) for system in systems], "system")

    table = stacked(lambda key: found[key])
    if drawn is None:
        return (table,)
    ends = {
        key: tuple(end.where(enough[key]) for end in percentiles(value, confidence)) for key, value in sampled.items()
    }
    return table, stacked(lambda key: ends[key][0]), stacked(lambda key: ends[key][1])


def _with_values(sums: dict[tuple[str, str], xr.Dataset]) -> xr.Dataset:
    """Return which pairs have a value of the forecast's that counts in some metric, by variable, level and region."""
    own = [one.isel(part=-1) > 0 for (system, _), one in sums.items() if system == ""]
    return functools.reduce(operator.or_, own)


def _any_of(valued: xr.Dataset) -> np.ndarray:
    """Return the pairs that have a value of any variable, (init, lead)."""
    over = ("init_time", "lead_time")
    parts = [one.any([dim for dim in one.dims if dim not in over]).transpose(*over) for one in valued.values()]
    return np.logical_or.reduce([one.values for one in parts])


def _resampled(sums: xr.Dataset, drawn: xr.DataArray) -> xr.Dataset:
    """Return the sums over the initializations of every sample, by matrix products."""

    def product(field: xr.DataArray) -> xr.DataArray:
        values = field.transpose("init_time", ...)
        flat = drawn.values @ values.values.reshape(values.shape[0], -1)
        shape = (drawn.sizes["sample"], *values.shape[1:])
        return xr.DataArray(flat.reshape(shape), dims=("sample", *values.dims[1:]))

    coordinates = {name: c for name, c in sums.coords.items() if "init_time" not in c.dims}
    return sums.map(product).assign_coords(coordinates)
