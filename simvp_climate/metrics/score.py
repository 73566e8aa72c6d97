"""`score`: every system on the same pairs of initialization and lead, beside baselines, with intervals."""

import functools
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.metrics.aggregation import Sums, equal_weights, join_groups, lay_out, weighted_sums
from simvp_climate.metrics.baselines.standard import standard_baselines
from simvp_climate.metrics.categorical.seeps import seeps_pairs
from simvp_climate.metrics.categorical.thresholds import check_frequency, event_metrics
from simvp_climate.metrics.definitions import METRICS, Metric, concat, ratio
from simvp_climate.metrics.pairs import Pairs, check_vector, match, period
from simvp_climate.metrics.published_scores import describe_truth
from simvp_climate.metrics.regions import SPACE, Regions, Weights
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap, Samples, percentiles
from simvp_climate.metrics.uncertainty.calibration import calibrate_with

Vectors = Mapping[str, tuple[str, str]]  # eastward and northward component by name

_SKILL = "rmse_skill"
_MISSING_VALUES = {True: "left out", False: "left out where missing at all times, else propagated"}


def score(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset | None = None,
    *,
    train: xr.Dataset | None = None,
    baselines: Mapping[str, xr.Dataset | Callable] | None = None,
    metrics: Sequence[str] | None = None,
    regions: Regions = None,
    by: Literal["season", "month"] | None = None,
    calibrated: xr.Dataset | None = None,
    thresholds: Mapping[str, float] | None = None,
    event_frequency: xr.Dataset | None = None,
    seeps_climatology: xr.Dataset | None = None,
    vectors: Vectors | None = None,
    persistence: bool = True,
    weights: Weights = "area",
    skipna: bool = False,
    allow_overlap: bool = False,
    bootstrap: Bootstrap | None = Bootstrap(),  # noqa: B008 (frozen)
) -> xr.Dataset:
    """Return the scores of a forecast beside those of its baselines, each with an interval.

    Every system is scored on the same pairs of init and lead: those with a truth at the valid time and, for baselines
    that start from it, at the init time. With `skipna` also on the same cells.

    Parameters
    ----------
    forecast, truth, weights, skipna
        As in `rmse`. A forecast at stations, from `sc.at`, is scored against observations of the same stations, from
        `station_observations`; each counts the same, missing ones are left out, and `<variable>_observations` counts
        the others. The attribute `system` of the forecast is its name in the result, by default "forecast". An
        ensemble (dimension `number`, `realization` or `member`) is one system: metrics of ensembles score its members,
        all others its mean. A baseline with one member is a single forecast.
    climatology
        As returned by `baselines.climatology`, or `Forecaster.climatology`. None: that of `train`; without it no
        anomaly correlation, no activity, and no systems "climatology" and "anomaly persistence".
    train
        The training period, with the variables of the forecast, on its grid: adds every baseline that can be fitted,
        "climatology" (unless given), "anomaly persistence" (unless `persistence=False`), "damped persistence" and
        "linear regression", each unless `baselines` has its name. Not at stations or for indices. The fits take some
        seconds for years of data on a coarse grid.
    baselines
        More systems by name: forecasts as Datasets, with all inits and leads of the scored one (for example of another
        model, opened from a store of WeatherBench 2 with `open_dataset`), or functions that forecast from the state at
        the init time, as returned by `fit_damped_persistence` and `fit_linear_regression`.
    metrics
        Names, in the order of the result: "rmse", "mae", "bias", "acc" (pooled), "acc_per_init", "activity",
        "small_scale_variance" (wavenumbers 10 to 19), "grid_noise" (checkerboards) and "rmse_unweighted"; for ensembles
        "crps" (fair; of a single forecast its mae), "spread", "spread_skill_ratio", "member_small_scale_variance" and
        "energy_score"; with `thresholds` "brier" and "frequency_bias"; with `seeps_climatology` "seeps".
        "rmse_skill" is 1 - rmse / rmse of a baseline, once for each baseline: "rmse_skill_vs_persistence" and so on,
        with underscores for blanks; "mae_skill", "crps_skill" and others are alike. "acc_difference", or that of any
        metric, is the metric less that of a baseline. Both have intervals of their own, narrower than those of two
        separate scores. None: all that apply except acc_per_init, grid_noise, rmse_unweighted and
        energy_score, and of the comparisons rmse_skill; small_scale_variance applies to grids that circle the globe
        with at least 39 longitudes.
    regions
        Names ("tropics", "poles"), boxes or masks, see `region_masks`, and "land", "sea" or "europe land" if the truth
        has a land-sea mask; they add a dimension `region`. None: the whole grid, without the dimension.
    by
        "season" or "month" of the valid time; adds a dimension of this name.
    calibrated
        Factors as returned by `fit_calibration`: adds the system "<forecast>, calibrated", the forecast drawn towards
        climatology by them.
    thresholds
        By variable, in its unit: the events of "brier" and "frequency_bias" are values above it, for these variables.
    event_frequency
        As returned by the function `event_frequency`, for the same thresholds: the probability with which climatology
        is scored in "brier" and "frequency_bias", and compared with in "brier_skill_vs_climatology". These are NaN for
        variables without it.
    seeps_climatology
        As returned by the function `seeps_climatology`, or from a store of WeatherBench 2 (see `seeps`), of the
        variables with a "seeps".
    vectors
        More variables by name, from an eastward and a northward component each, {"wind10": ("u10", "v10")}: their rmse
        is the root mean square length of the error; other metrics are NaN.
    persistence
        Whether persistence is scored and, on a grid with a climatology that holds the init times, "anomaly
        persistence".
    allow_overlap
        Whether verified times may lie in the periods of climatologies, baselines and the calibration.
    bootstrap
        Settings of the intervals, central percentiles of moving-block bootstrap samples of the initializations, for
        example `uncertainty.Bootstrap(confidence=0.9)`. None: no intervals.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (system, metric, lead_time[, level, region, season]) and
    the number of initializations in the coordinate `pairs(lead_time[, season])`. The attribute `units` of a variable is
    the unit of its rmse, mae, bias, crps, spread, energy_score and their differences; other metrics have none. The acc
    of climatology is NaN, and so are its brier and frequency_bias without `event_frequency`. The coordinates
    `<variable>_low` and `<variable>_high` are the ends of the intervals, NaN where fewer than five blocks of
    initializations have a value of the variable (the attribute `intervals` describes them). The attribute `truth` is
    the title or source of the truth. With `skipna`, `pairs`
    counts the initializations with a value of any variable, and `<variable>_pairs(lead_time[, level, region, season])`
    those of each.

    Warns where values are missing, where no forecast has a truth at a lead, and where only one dataset has units.
    ValueError as in the functions for single metrics; if a metric or region is unknown or does not apply; if a baseline
    lacks an init or a lead; or if verified times lie in the period of the climatology, event frequency or a fit.
    """
    # 1. Resolve the arguments.
    climatology, added = standard_baselines(forecast, climatology, train, persistence, list(baselines or {}))
    names = ["persistence"] * persistence + ["climatology"] * (climatology is not None)
    names += [*(name for name in added if name != "persistence"), *(baselines or {})]
    systems = _name_systems(str(forecast.attrs.get("system", "forecast")), names, calibrated is not None)
    vectors = vectors or {}
    available = _available_metrics(forecast, thresholds)
    if event_frequency is not None:
        event_frequency = check_frequency(event_frequency, thresholds, climatology, forecast)

    # 2. Match every forecast with its truth; refuse what does not apply or was fitted on verified times.
    fits = ("the climatology for SEEPS", seeps_climatology), ("the calibration", calibrated)
    periods = {role: fit.attrs for role, fit in fits if fit is not None}
    pairs = match(
        forecast, truth, climatology, baselines=added | dict(baselines or {}), event_frequency=event_frequency,
        periods=periods, weights=weights, regions=regions, by=by, allow_overlap=allow_overlap,
    )  # fmt: skip
    skipna = skipna or pairs.stations is not None  # stations may lack observations
    derived = _derived_systems(climatology, calibrated, pairs)
    rain_pairs = pairs
    if seeps_climatology is not None:
        rain_pairs, available["seeps"] = seeps_pairs(pairs, seeps_climatology)
    columns = _choose_columns(metrics, available, pairs, names)
    computed = {column.metric: available[column.metric] for column in columns.values()}
    _check_vectors(vectors, pairs)
    _check_used(metrics, computed, vectors=vectors, thresholds=thresholds, seeps_climatology=seeps_climatology)

    # 3. Accumulate sums over the grid for every pair.
    sums = _accumulate(pairs, rain_pairs, computed, skipna, derived, systems)
    _add_vectors(sums, computed, vectors, pairs)

    # 4. Compute the scores and their intervals from the sums.
    with_values, verified = _pairs_with_values(sums) if skipna else (None, pairs.complete)
    samples = _draw_samples(bootstrap, verified, pairs)
    scores, *ends = _tables(sums, computed, columns, systems, samples, pairs, by)
    if not skipna:
        _warn_of_missing(sums, computed, list(vectors), thresholds or {})
    scores = _count_pairs(_describe(scores, ends, vectors, pairs, samples), verified, with_values, by, pairs)
    scores = _count_observations(scores, sums, by, pairs)
    about = {"weights": str(weights), "missing_values": _MISSING_VALUES[skipna], **describe_truth(truth.attrs)}
    return scores.assign_attrs(about)


# Phase 1: resolve the arguments.


def _available_metrics(forecast: xr.Dataset, thresholds: Mapping[str, float] | None) -> dict[str, Metric]:
    """Return the metrics that can be asked for, those of events with their thresholds."""
    available = {name: metric for name, metric in METRICS.items() if metric.fields or metric.grid_sums}
    if thresholds is not None:
        available |= event_metrics(thresholds, list(map(str, forecast.data_vars)))
    return available


def _name_systems(title: str, names: list[str], calibrated: bool) -> dict[str, str]:
    """Return the names of all systems in the result: the forecast "", "calibrated" if requested, then baselines."""
    if calibrated and "calibrated" in names:
        raise ValueError("a baseline is called 'calibrated', like the calibrated forecast. Give it another name")
    labels = [name.replace(" ", "_") for name in names]
    if repeated := sorted({name for name in names if labels.count(name.replace(" ", "_")) > 1 or name == title}):
        raise ValueError(
            f"two systems are called {repeated[0]!r} (the forecast, by its attribute system, is {title!r}, the "
            f"baselines {names}). Rename one, for example forecast.assign_attrs(system='my model')"
        )
    calibrated_title = {"calibrated": f"{title}, calibrated"} if calibrated else {}
    return {"": title} | calibrated_title | {name: name for name in names}


def _derived_systems(
    climatology: xr.Dataset | None, calibrated: xr.Dataset | None, pairs: Pairs
) -> dict[str, Callable]:  # fmt: skip
    """Return the systems that are computed in each block: a function of the block by name."""
    derived: dict[str, Callable] = {}
    if climatology is not None:
        derived["climatology"] = lambda block: block.climatology
    if calibrated is not None and climatology is None:
        raise ValueError("calibrated draws the forecast towards climatology: give one, climatology(train)")
    if calibrated is not None:
        derived["calibrated"] = calibrate_with(calibrated, pairs)
    return derived


def _check_vectors(vectors: Vectors, pairs: Pairs) -> None:
    """Raise ValueError if a vector lacks a component, or has the name of a variable."""
    for name, components in vectors.items():
        check_vector("vectors", components, pairs.forecast)
        if name in pairs.forecast:
            raise ValueError(f"vectors: the forecast has a variable {name!r} already, choose another name")


def _draw_samples(bootstrap: Bootstrap | None, verified: np.ndarray, pairs: Pairs) -> Samples:
    """Return the bootstrap samples of the initializations that have a verified pair."""
    if bootstrap is None:
        return Samples(None, "none requested")
    leads = pairs.forecast["lead_time"].isel(lead_time=np.flatnonzero(pairs.complete.any(axis=0)))
    return bootstrap.draw(verified.any(axis=1), pairs.forecast["init_time"], leads)


@dataclass(frozen=True)
class Column:
    """The content of a label of the dimension metric: a metric, or its comparison with that of a baseline."""

    metric: str
    comparison: Literal["", "skill", "difference"] = ""
    baseline: str = ""


def _choose_columns(
    metrics: Sequence[str] | None, available: Mapping[str, Metric], pairs: Pairs, baselines: list[str]
) -> dict[str, Column]:
    """Return the columns of the named metrics, or of all that apply, by label; raise ValueError if one does not."""
    if metrics is None:  # all that apply
        lacking = {"climatology": pairs.climatology is None, "members": pairs.member is None}
        names = [name for name, metric in available.items() if metric.default and not lacking.get(metric.needs or "")]
        last = {name: available[name].wavenumbers[1] for name in names if available[name].wavenumbers}
        names = [name for name in names if last.get(name, 0) <= pairs.max_wavenumber]
        metrics = [*names, _SKILL] if baselines else names
    with_skill = [name for name, metric in available.items() if metric.smaller_is_better]
    comparisons = {f"{name}_difference": Column(name, "difference") for name in available}
    comparisons |= {f"{name}_skill": Column(name, "skill") for name in with_skill}
    known = [*available, _SKILL]
    if isinstance(metrics, str):
        raise ValueError(f"metrics={metrics!r} is one string, a list is needed: [{metrics!r}]")
    if not metrics:
        raise ValueError(f"metrics is empty: choose from {known}")
    if repeated := sorted({str(name) for name in metrics if list(metrics).count(name) > 1}):
        raise ValueError(f"metrics has {repeated[0]!r} twice: name each once")
    if unknown := [name for name in metrics if name not in available and name not in comparisons]:
        for name in unknown:
            if (metric := METRICS.get(name.removesuffix("_skill").removesuffix("_difference"))) and not metric.fields:
                raise ValueError(f"{name} needs {metric.needs}: score(..., {metric.needs}=...)")
        also = "or compare with the baselines by <metric>_skill and <metric>_difference"
        raise ValueError(f"metrics {unknown} are unknown. Choose from {known}, {also}")
    columns = {}
    for name in metrics:
        column = Column(name) if name in available else comparisons[name]
        metric = available[column.metric]
        if metric.needs == "climatology" and pairs.climatology is None:
            raise ValueError(f"{name} needs a climatology: score(forecast, truth, climatology(train))")
        if not column.comparison:
            columns[name] = column
            continue
        if not baselines:
            raise ValueError(f"{name} needs something to compare with: persistence=True, a climatology or baselines")
        columns |= {_versus(name, baseline): replace(column, baseline=baseline) for baseline in baselines}
    return columns


def _versus(name: str, baseline: str) -> str:
    """Return the label of a comparison with a baseline, "rmse_skill_vs_persistence"."""
    return f"{name}_vs_{baseline.replace(' ', '_')}"


# Phase 2: refuse arguments that do not apply to the pairs.


def _check_used(
    metrics: Sequence[str] | None, computed: Mapping[str, Metric], *, vectors: Vectors, **arguments: object
) -> None:
    """Raise ValueError if vectors, thresholds or seeps_climatology are given and no computed metric needs them."""
    if vectors and not any(metric.of_vectors for metric in computed.values()):
        raise ValueError(f"vectors have only an rmse, and metrics={metrics!r} does not contain it: add 'rmse'")
    for argument, value in arguments.items():
        users = tuple(name for name, metric in METRICS.items() if metric.needs == argument)
        if value is not None and not set(users) & set(computed):
            raise ValueError(f"{argument} would be ignored, as metrics={metrics!r} has none of {users}: add one")


# Phase 3: accumulate sums over the grid.


def _accumulate(
    pairs: Pairs, rain_pairs: Pairs, metrics: dict[str, Metric], skipna: bool, derived: Mapping, systems: Iterable[str]
) -> Sums:
    """Return the sums of all metrics; those of SEEPS come from pairs with their own climatology."""
    usual = {name: metric for name, metric in metrics.items() if name != "seeps"}
    sums = weighted_sums(pairs, usual, skipna, pool_members=True, derived_systems=derived) if usual else {}
    if "seeps" in metrics:
        rain_sums = weighted_sums(rain_pairs, {"seeps": metrics["seeps"]}, True, pool_members=True)
        template = rain_sums["", "seeps"]
        # NaN without the levels that another variable may have.
        missing = template[next(iter(template))] * np.nan
        blank = {name: template.get(name, missing) * np.nan for name in pairs.forecast.data_vars}
        for system in systems:
            sums[system, "seeps"] = xr.Dataset(blank).assign(rain_sums.get((system, "seeps"), {}))
    return sums


def _add_vectors(sums: Sums, metrics: Mapping[str, Metric], vectors: Vectors, pairs: Pairs) -> None:
    """Add to the sums those of vectors: of the squared error, |dv|^2 = du^2 + dv^2; NaN for other metrics."""
    for vector, components in vectors.items():
        for (_, label), dataset in sums.items():
            east, north = (dataset[component] for component in components)
            if not metrics[label].of_vectors:
                dataset[vector] = east * np.nan
                continue
            weights = pairs.weights if metrics[label].weighted else equal_weights(pairs.weights)
            total_weight = weights.sum([dim for dim in SPACE if dim in weights.dims])
            if "longitude" not in weights.dims:
                total_weight = total_weight * pairs.grid["longitude"].size
            for component in (east, north):
                counted = component.isel(part=-1)
                # Sums can be added only over the same cells, and they do not contain which cells are missing.
                if not (np.isclose(counted, 0) | np.isclose(counted / total_weight, 1, rtol=1e-9)).all():
                    raise ValueError(
                        f"{' or '.join(components)} have missing values, maybe in different cells, so their errors "
                        "cannot be added. Use wind_vector_rmse(..., skipna=True), which takes cells with both"
                    )
            dataset[vector] = xr.concat([(east + north).isel(part=[0]), east.isel(part=[1])], "part")


# Phase 4: compute the scores and their intervals.


def _tables(
    sums: Sums, metrics: Mapping[str, Metric], columns: Mapping[str, Column], systems: Mapping[str, str],
    samples: Samples, pairs: Pairs, by: str | None,
) -> list[xr.Dataset]:  # fmt: skip
    """Return the scores and, if there are samples, the lower and upper ends of their intervals."""
    # Anomalies of climatology are zero but for the rounding of its store, and a mean above a threshold is not the
    # frequency of the event.
    variables, frequency = list(pairs.forecast.data_vars), pairs.event_frequency
    without_frequency = [name for name in variables if frequency is None or name not in frequency]
    undefined = {
        label: without_frequency if metric.needs == "thresholds" else variables
        for label, metric in metrics.items()
        if metric.undefined_for_climatology and pairs.climatology is not None
    }
    groups = [_table(sums, metrics, columns, list(systems), samples, mask, undefined) for mask in pairs.groups.values()]
    tables = [join_groups(list(table), by, pairs) for table in zip(*groups, strict=True)]
    names = xr.DataArray(np.array(list(systems.values())), dims="system", name="system")
    return [lay_out(table.assign_coords(system=names), pairs, "system", "metric", by=by) for table in tables]


def _table(
    sums: Sums, metrics: Mapping[str, Metric], columns: Mapping[str, Column], systems: list[str],
    samples: Samples, mask: xr.DataArray | bool, undefined: Mapping[str, list],
) -> tuple[xr.Dataset, ...]:  # fmt: skip
    """Return `_tables` of the pairs in a mask; scores of climatology are NaN for what is `undefined`."""
    values, sampled, enough = {}, {}, {}
    for key in ((system, label) for system in systems for label in metrics):
        metric = metrics[key[1]]
        per_init = metric.per_init_sums(sums[key].where(mask, 0))
        values[key] = metric.value(per_init.sum("init_time", skipna=False))
        if samples.counts is not None:
            # The last part is the weight of the cells that count in an initialization.
            enough[key] = (per_init.isel(part=-1) > 0).sum("init_time") >= samples.min_inits
            sampled[key] = metric.value(samples.resample_sums(per_init))
    for results in (values, sampled) if sampled else (values,):
        for label, names in undefined.items():
            climatology = results["climatology", label]
            results["climatology", label] = climatology.assign({name: climatology[name] * np.nan for name in names})
        for system in systems:
            for label, column in columns.items():
                if column.comparison:
                    first, second = results[system, column.metric], results[column.baseline, column.metric]
                    skill = column.comparison == "skill"
                    results[system, label] = 1 - ratio(first, second) if skill else first - second
    ends: dict[tuple[str, str], list[xr.Dataset]] = {}
    if sampled:
        for system in systems:
            for label, column in columns.items():
                key = system, label
                if column.comparison:
                    enough[key] = enough[system, column.metric] & enough[column.baseline, column.metric]
                ends[key] = [end.where(enough[key]) for end in percentiles(sampled[key], samples.confidence)]
    edges = [{key: bounds[edge] for key, bounds in ends.items()} for edge in (0, 1)] if sampled else []
    names = xr.DataArray(np.array(list(columns)), dims="metric", name="metric")
    rows = [[concat([results[s, label] for label in columns], names) for s in systems] for results in (values, *edges)]
    return tuple(concat(row, "system") for row in rows)


def _pairs_with_values(sums: Sums) -> tuple[xr.Dataset, np.ndarray]:
    """Return the pairs with a value of the forecast in some metric, by variable, level and region, and of any."""
    counted = [dataset.isel(part=-1) > 0 for (system, _), dataset in sums.items() if system == ""]
    with_values = functools.reduce(operator.or_, counted)
    values = with_values.to_array().transpose("init_time", "lead_time", ...)
    return with_values, values.any(values.dims[2:]).values


def _describe(
    result: xr.Dataset, ends: list[xr.Dataset], vectors: Vectors, pairs: Pairs, samples: Samples
) -> xr.Dataset:
    """Return the scores with the ends of the intervals as coordinates, and attributes."""
    for name in result.data_vars:
        result[name].attrs = pairs.attrs(vectors.get(name, (name,))[0])
        if name in vectors:
            result[name].attrs["long_name"] = f"vector of {' and '.join(vectors[name])}"
        for (suffix, edge), end in zip((("low", "lower"), ("high", "upper")), ends, strict=False):
            result = result.assign_coords({f"{name}_{suffix}": end[name].variable})
            long_name = f"{edge} end of the {samples.confidence:.0%} interval of {name}"
            result[f"{name}_{suffix}"].attrs = {"long_name": long_name}
    present = [name for name, metric in METRICS.items() if metric.default or name in result["metric"]]
    with_units = [name for name in present if not METRICS[name].dimensionless]
    units = f"{', '.join(with_units)} and their differences: those of the variable; others: 1"
    result["metric"].attrs["units"] = units
    # Scores depend on the grid: coarser grids have lower errors.
    grid = " x ".join(f"{pairs.grid[dim].size} {dim}s" for dim in SPACE[::-1])
    grid = grid if pairs.stations is None else f"{pairs.stations} stations"
    result.attrs = {"grid": grid, **period("verified", pairs.verified_times), "intervals": samples.description}
    fit = {} if pairs.climatology is None else pairs.climatology.attrs
    keys = ("climatology_method", "climatology_start", "climatology_end")
    return result.assign_attrs({key: fit[key] for key in keys if key in fit})


def _count_pairs(
    result: xr.Dataset, verified: np.ndarray, with_values: xr.Dataset | None, by: str | None, pairs: Pairs
) -> xr.Dataset:
    """Return the scores with the number of initializations, of all variables and, where values are skipped, of each."""
    masks = pairs.groups.values()
    counts = [(verified & np.asarray(mask)).sum(axis=0) for mask in masks]
    dims, values = ("lead_time", counts[0]) if by is None else (("lead_time", by), np.stack(counts, axis=-1))
    result = result.assign_coords(pairs=(dims, values, {"long_name": "number of initializations that were verified"}))
    if with_values is None:
        return result
    sizes = [with_values.where(mask, False).sum("init_time", dtype=np.int64) for mask in masks]
    numbers = join_groups(sizes, by, pairs)
    for name in result.data_vars:
        dims = [dim for dim in result[name].dims if dim in numbers[name].dims]
        attrs = {"long_name": f"number of initializations with values of {name}"}
        result = result.assign_coords({f"{name}_pairs": numbers[name].transpose(*dims).variable})
        result[f"{name}_pairs"].attrs = attrs
    return result


def _count_observations(result: xr.Dataset, sums: Sums, by: str | None, pairs: Pairs) -> xr.Dataset:
    """Return scores with the number of observations of each variable that were verified, for those at stations."""
    if pairs.stations is None:
        return result
    counts = [dataset.isel(part=-1) for (system, _), dataset in sums.items() if system == ""]
    largest = functools.reduce(np.fmax, counts)  # SEEPS leaves out dry stations
    groups = [largest.where(mask, 0).sum("init_time").astype(np.int64) for mask in pairs.groups.values()]
    numbers = join_groups(groups, by, pairs)
    for name in result.data_vars:
        dims = [dim for dim in result[name].dims if dim in numbers[name].dims]
        result = result.assign_coords({f"{name}_observations": numbers[name].transpose(*dims).variable})
        result[f"{name}_observations"].attrs = {"long_name": f"number of observations of {name} that were verified"}
    return result


def _warn_of_missing(
    sums: Sums, metrics: Mapping[str, Metric], vectors: list[str], thresholds: Mapping[str, float]
) -> None:
    """Warn if a sum over the cells of a pair is missing."""
    missing: dict[str, None] = {}
    for (system, label), dataset in sums.items():
        metric = metrics[label]
        # Baselines have no members: of the metrics of ensembles, only the crps of the forecast tells what is missing.
        if metric.skips_missing or (metric.needs == "members" and (system, label) != ("", "crps")):
            continue
        for name, values in dataset.drop_vars(vectors).data_vars.items():
            has_score = metric.needs != "thresholds" or name in thresholds
            if has_score and not np.isfinite(values.values).all():
                missing[str(name)] = None
    if missing:
        warnings.warn(
            f"the scores of {list(missing)} are missing where a value is missing in the forecast, the truth or a "
            "baseline. Pass skipna=True to count the cells with all values",
            stacklevel=3,
        )


def skilful_to(scores: xr.Dataset, baselines: Sequence[str] | None = None) -> xr.Dataset:
    """Return the last lead up to which a system is better than every baseline, beyond the interval.

    Parameters
    ----------
    scores
        As returned by `score`, with "rmse_skill" among its metrics and with intervals.
    baselines
        The systems to beat; other systems with a skill against them, such as other models, are then judged too. None:
        all systems that the scores have a skill against.

    Returns
    -------
    Dataset with the variables of `scores` and the systems that are no baselines, dims (system[, level, region,
    season]): the last lead time up to which, at all leads, the lower end of the interval of the rmse skill is above 0
    against every baseline. Zero if there is no such lead, NaT (for months NaN) if there is no interval. ValueError if
    the scores have no skill or no interval.
    """
    metrics = [str(name) for name in scores["metric"].values]
    labels = [name for name in metrics if name.startswith(f"{_SKILL}_vs_")]
    if not labels:
        raise ValueError(f"the scores have no {_SKILL}, but {metrics}: score with a baseline")
    if baselines is not None:
        chosen = [_versus(_SKILL, str(name)) for name in baselines]
        if isinstance(baselines, str) or not chosen or set(chosen) - set(labels):
            raise ValueError(f"baselines={baselines!r} must be a list of systems with a skill against them, {labels}")
        labels = chosen
    judged = [system for system in scores["system"].values if _versus(_SKILL, str(system)) not in labels]
    result = {}
    for name in scores.data_vars:
        if f"{name}_low" not in scores.coords:
            fix = "Score with bootstrap=Bootstrap(), or forecast from more times"
            raise ValueError(f"the scores have no intervals ({scores.attrs.get('intervals')}). {fix}")
        low = scores[f"{name}_low"].sel(metric=labels, system=judged)
        better = (low > 0).all("metric")
        count = better.astype(int).cumprod("lead_time").sum("lead_time")  # leads up to the first that is not better
        leads = np.concatenate([np.zeros(1, scores["lead_time"].dtype), scores["lead_time"].values])[count.values]
        known = low.isel(lead_time=0).notnull().all("metric").values
        if not known.all():
            leads = np.where(known, leads, np.timedelta64("NaT") if leads.dtype.kind == "m" else np.nan)
        result[name] = count.copy(data=leads).drop_vars([c for c in count.coords if c not in count.dims])
        result[name].attrs = {"long_name": f"lead up to which {name} is better than every baseline"}
    return xr.Dataset(result)
