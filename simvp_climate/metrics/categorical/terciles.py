"""Scores of categories: precipitation above a threshold, SEEPS, and terciles of slow variables."""

import re
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_axes, find_member, orient, rename
from simvp_climate.data.variables import conversion, lookup, same_units
from simvp_climate.metrics.aggregation import cell_weights, concat, finish, row_weights, weighted_sums
from simvp_climate.metrics.alignment import comparable, iso
from simvp_climate.metrics.baselines.climatologies import calendar_mean, persistence
from simvp_climate.metrics.baselines.climatologies import climatology as mean_climatology
from simvp_climate.metrics.definitions import Fields, Metric, ratio
from simvp_climate.metrics.pairs import Pairs, match, refuse_overlap
from simvp_climate.metrics.regions import Region

_BAND_BYTES = 128 * 2**20  # float64, of all times of some rows; the arithmetic holds a few arrays of this size
_DRY = {6: 1e-4, 24: 2.5e-4}  # meters in so many hours, as WeatherBench 2


def brier(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    threshold: float,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return the Brier score of exceeding a threshold, <(p - o)^2>.

    p is the share of the members of an ensemble that exceed it, of a single forecast 0 or 1, and o is 1 where the truth
    exceeds it.

    Parameters
    ----------
    threshold
        In the unit of the variables.
    forecast, truth, weights, skipna
        As in `rmse`.

    Returns
    -------
    Dataset as from `rmse`, no unit, from 0 (right) to 1; the members are pooled.

    Raises
    ------
    ValueError
        As in `rmse`.
    """
    metric = event_metrics(dict.fromkeys(forecast.data_vars, threshold), list(forecast.data_vars))["brier"]
    return _scored(match(forecast, truth, None), metric, weights, skipna)


def frequency_bias(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    threshold: float,
    *,
    weights: Literal["area", "cos"] | None = "area",
    skipna: bool = False,
) -> xr.Dataset:
    """Return how often a forecast exceeds a threshold over how often the truth does: 1 is right, more is too often.

    Arguments, result and errors as in `brier`; NaN where the truth never exceeds it.
    """
    metric = event_metrics(dict.fromkeys(forecast.data_vars, threshold), list(forecast.data_vars))["frequency_bias"]
    return _scored(match(forecast, truth, None), metric, weights, skipna)


def event_metrics(thresholds: Mapping[str, float], names: list[str]) -> dict[str, Metric]:
    """Return the metrics "brier" and "frequency_bias" of exceeding a threshold of each variable, NaN without one.

    Raises ValueError if a threshold is of none of the variables `names`, or no number.
    """
    check_thresholds(thresholds, names, "the forecast")

    def event(f: Fields) -> tuple[xr.Dataset, xr.Dataset]:
        """Return the probability of the forecast and the outcome, missing where the values are."""
        (name,) = f.truth.data_vars
        threshold = _just(max, thresholds[str(name)]) if str(name) in thresholds else np.nan
        above, outcome = (
            (one > threshold).astype(np.float64).where(one.notnull() & np.isfinite(threshold))
            for one in (f.members, f.truth)
        )
        if f.probability is not None:
            return f.probability.where(above.notnull()), outcome
        return (above if f.member is None else above.mean(f.member, skipna=False)), outcome

    def square(f: Fields) -> tuple[xr.Dataset]:
        above, outcome = event(f)
        return ((above - outcome) ** 2,)

    return {
        "brier": Metric(square, lambda mean: mean, dimensionless=True),
        "frequency_bias": Metric(event, ratio, dimensionless=True),
    }


def _just(take: Callable[[float, float], float], threshold: float) -> float:
    """Return a threshold or what it is in float32, the larger (`max`) or the smaller of both.

    Data in float32 that are meant to equal it equal the second: by the larger one they do not exceed it, by the smaller
    one they are not below, whether they are compared in float32 or in float64.
    """
    return take(float(threshold), float(np.float32(threshold)))


def check_thresholds(thresholds: Mapping[str, float], names: list[str], whose: str) -> None:
    """Raise ValueError if thresholds are not by variable, of none of the variables `names`, or no numbers."""
    if not isinstance(thresholds, Mapping):
        raise ValueError(f"thresholds={thresholds!r} must say one by variable, for example {{'tp': 1e-3}}")
    if not thresholds:
        raise ValueError("thresholds is empty: say one by variable, for example {'tp': 1e-3}")
    if unknown := [name for name in thresholds if name not in names]:
        raise ValueError(f"thresholds has {unknown}, {whose} {names}")
    for name, threshold in thresholds.items():
        number = isinstance(threshold, Real) and not isinstance(threshold, bool)
        if not number or not np.isfinite(threshold):
            raise ValueError(f"the threshold of {name} is {threshold!r}: give a number in its unit")


def event_frequency(
    train: xr.Dataset, thresholds: Mapping[str, float], *, window_days: int | None = None
) -> xr.Dataset:
    """Return how often a threshold is exceeded, by time of year and time of day: the probability that climatology says.

    What `climatology` makes of 1 where the value exceeds the threshold and 0 where not; missing values are left out.
    `score(..., thresholds=..., event_frequency=...)` scores climatology with it.

    Parameters
    ----------
    train
        Training years with a dimension `time`, read block by block.
    thresholds
        By variable, in its unit: those that the forecast will be scored with.
    window_days
        As in `climatology`.

    Returns
    -------
    Dataset in memory with the variables of `thresholds`, from 0 to 1, dims and attributes as from `climatology`. The
    attributes `threshold` and `threshold_units` of a variable say of what.

    Raises
    ------
    ValueError
        As in `climatology`, or if a threshold is no number, or of a variable that the data have not.
    """
    time = "time" if "time" in train.dims else find_axes(train).time
    names = [str(name) for name, variable in train.data_vars.items() if time in variable.dims]
    check_thresholds(thresholds, names, "the training period has")
    # a default holds the threshold of its own variable
    edges = {name: _just(max, threshold) for name, threshold in thresholds.items()}
    above = {name: lambda values, over=over: values > over for name, over in edges.items()}
    found = calendar_mean(train[list(thresholds)], window_days, None, above)
    for name, threshold in thresholds.items():
        units = train[name].attrs.get("units")
        said = {} if units is None else {"threshold_units": units}
        words = f"frequency of {name} above {threshold:g} {units or ''}".rstrip()
        found[name] = found[name].clip(0, 1)  # off by rounding
        found[name].attrs = {"units": "1", "long_name": words, "threshold": float(threshold), **said}
    return found


def check_frequency(frequency: xr.Dataset, thresholds: Mapping[str, float], forecast: xr.Dataset) -> xr.Dataset:
    """Return the event frequency of the variables that have a threshold.

    Raises ValueError if it has none of them, is of other thresholds as far as it says, or is none.
    """
    names = [name for name in thresholds if name in frequency]
    if not names:
        raise ValueError(
            f"event_frequency has {list(frequency.data_vars)} and nothing on {list(thresholds)}: make it with "
            "event_frequency(train, thresholds)"
        )
    for name in names:
        attrs, units = frequency[name].attrs, forecast[name].attrs.get("units")
        own, own_units = attrs.get("threshold"), attrs.get("threshold_units")
        other_units = bool(units and own_units) and not same_units(units, own_units)
        if own is not None and (other_units or not np.isclose(own, float(thresholds[name]), rtol=1e-6, atol=0)):
            raise ValueError(
                f"event_frequency of {name} is that of values above {own:g} {own_units or ''}, and the threshold is "
                f"{thresholds[name]:g} {units or ''}: make it with event_frequency(train, thresholds)"
            )
        lowest, highest = float(frequency[name].min()), float(frequency[name].max())
        if lowest < -1e-5 or highest > 1 + 1e-5:
            raise ValueError(
                f"event_frequency of {name} runs from {lowest:g} to {highest:g} and is no probability: make it with "
                "event_frequency(train, thresholds)"
            )
    return frequency[names]


def seeps_climatology(train: xr.Dataset, *, window_days: int = 61, dry: float | None = None) -> xr.Dataset:
    """Return what SEEPS needs to know of a place: how often it is dry, and what is heavy rain when it is not.

    By hour and day of the year, over a window of `window_days`, as the code of WeatherBench 2 (`SEEPSThreshold`): the
    share of values below `dry`, in which all days of the window count the same, and the two-thirds quantile of the
    others, in which they count by a triangle.

    Parameters
    ----------
    train
        Precipitation of the training years with a dimension `time`, in m, or in a unit that can be converted.
    window_days
        Width of the window, both ends of the triangle included.
    dry
        In m; by default 0.25 mm for steps of a day and 0.1 mm for steps of six hours, of each hour of the data.

    Returns
    -------
    Dataset in memory with `<variable>_dry_fraction` (no unit) and `<variable>_threshold` (m), dims (hour, dayofyear,
    ...) and the attribute `dry`.

    Raises
    ------
    ValueError
        If the unit is no length, or the step says no `dry`.
    """
    names = [str(name) for name, variable in train.data_vars.items() if "time" in variable.dims]
    train = _map(rename(train, names), _in_meters)
    latitude = find_axes(train).latitude
    if (height := _band_height(train, latitude)) < train.sizes[latitude]:
        rows = [slice(at, at + height) for at in range(0, train.sizes[latitude], height)]
        bands = (train.isel({latitude: one}).load() for one in rows)
        # a band without any value has no days either
        there = [band for band in bands if band.to_array().notnull().any()]
        if not there:
            raise ValueError("the training period has no values")
        parts = [seeps_climatology(band, window_days=window_days, dry=dry) for band in there]
        joined = xr.concat(parts, latitude, data_vars="all", coords="minimal", compat="override", join="outer")
        return joined.reindex({latitude: train[latitude]})
    times = train.indexes["time"]
    gaps = np.asarray(times[1:] - times[:-1]).astype("timedelta64[s]").astype(np.int64)
    if gaps.sum() < 330 * 86400:
        raise ValueError(
            f"the training period, {times[0]} to {times[-1]}, is less than eleven months: give a longer one"
        )
    if dry is None:
        hours = int(np.median(gaps) // 3600)
        if hours not in _DRY:
            raise ValueError(f"a step of {hours} h says not what is dry: give it, dry=0.25e-3 for 0.25 mm")
        dry = _DRY[hours]
    below = _just(min, dry)
    is_dry = (train < below).astype(np.float32).where(train.notnull())
    found = mean_climatology(is_dry, window_days=window_days)
    result = {}
    days, half = train["time"].dt.dayofyear.values, window_days // 2
    length = int(found["dayofyear"].max())
    for name in train.data_vars:
        heavy, dry_share = (np.full(found[name].shape, np.nan, np.float32) for _ in range(2))
        for at, hour in enumerate(found["hour"].values):
            of_hour = train[name].isel(time=np.flatnonzero(train["time"].dt.hour.values == int(hour)))
            values = of_hour.transpose("time", ...).values
            own = days[train["time"].dt.hour.values == int(hour)]
            for place, day in enumerate(found["dayofyear"].values):
                distance = abs(own - day)
                distance = np.minimum(distance, length - distance)
                near = distance <= half
                rain = values[near]
                there = np.isfinite(rain)
                count = there.sum(axis=0)
                dry_share[at, place] = np.where(count, (rain < below).sum(axis=0) / np.maximum(count, 1), np.nan)
                wet = np.where(rain >= below, rain, np.nan)
                heavy[at, place] = _weighted_quantile(wet, 1 - distance[near] / half, 2 / 3)
        result[f"{name}_threshold"] = found[name].copy(data=heavy).assign_attrs(units="m")
        result[f"{name}_dry_fraction"] = found[name].copy(data=dry_share)
        result[f"{name}_dry_fraction"].attrs = {"units": "1"}
    return xr.Dataset(result, attrs={**found.attrs, "dry": dry})


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    """Return the quantile over the first axis of what is there, as xarray's `weighted(...).quantile`.

    Linear between values, with Kish's effective number of them (Akinshin 2023). All cells at once: xarray goes through
    them one by one.
    """
    order = np.argsort(values, axis=0)  # what is missing comes last, and weighs nothing
    sorted_values = np.take_along_axis(values, order, 0)
    own = np.where(np.isfinite(sorted_values), weights[order], 0.0)
    total = own.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        number = total**2 / (own**2).sum(axis=0)
        share = np.concatenate([np.zeros((1, *total.shape)), np.cumsum(own / total, axis=0)])
        place = q * (number - 1) + 1
        reached = np.maximum((place - 1) / number, np.minimum(place / number, share)) * number
        parts = np.diff(reached, axis=0)
    return np.where(total > 0, (np.nan_to_num(sorted_values) * parts).sum(axis=0), np.nan)


def seeps(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    climatology: xr.Dataset,
    *,
    weights: Literal["area", "cos"] | None = "area",
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return SEEPS, the stable equitable error in probability space (Rodwell et al. 2010), of precipitation.

    Dry, light and heavy by `seeps_climatology`; 0.5 times the matrix of WeatherBench 2, with p1 the dry fraction
    averaged over hours and days. 0 is right, 1 what a forecast without skill gets. Cells count where
    0.1 <= p1 <= 0.85. A value that equals the threshold is heavy.

    Parameters
    ----------
    forecast, truth, weights
        As in `rmse`, precipitation in m or a unit that can be converted.
    climatology
        As from `seeps_climatology`, or one of WeatherBench 2's stores, which calls the same
        `total_precipitation_24hr_seeps_threshold` and `total_precipitation_24hr_seeps_dry_fraction`.
    allow_overlap
        Whether verified times may lie in its period.

    Returns
    -------
    Dataset as from `rmse`, no unit.

    Raises
    ------
    ValueError
        As in `rmse`, or if the climatology is of other variables or times, or of a period with verified times in it.
    """
    names = [str(name) for name in forecast.data_vars]
    if lacking := [name for name in names if _seeps_parts(climatology, name) is None]:
        raise ValueError(f"the climatology has nothing on {lacking}: make it with seeps_climatology(train)")
    forecast, truth = _map(forecast, _in_meters), _map(rename(truth, names), _in_meters)
    pairs, metric = seeps_pairs(match(forecast, truth, None), climatology)
    if not allow_overlap:
        refuse_overlap(climatology.attrs, "climatology", "the climatology for SEEPS", pairs)
    return _scored(pairs, metric, weights, skipna=True)


def _seeps_parts(climatology: xr.Dataset, name: str) -> tuple[str, str, float | None] | None:
    """Return what the threshold and the dry fraction of a variable are called, and what is dry in m, if known.

    None where the climatology has nothing on the variable. The names are ours, or those of WeatherBench 2, in which
    dry is by the hours of the sum.
    """
    if f"{name}_threshold" in climatology:
        return f"{name}_threshold", f"{name}_dry_fraction", climatology.attrs.get("dry")
    meaning = lookup(name)
    for own in dict.fromkeys([name, *([meaning[0].long_name] if meaning else [])]):
        if f"{own}_seeps_threshold" in climatology:
            hours = re.search(r"(\d+)h", meaning[0].long_name if meaning else own)
            usual = _DRY.get(int(hours[1])) if hours else None
            return f"{own}_seeps_threshold", f"{own}_seeps_dry_fraction", climatology.attrs.get("dry", usual)
    return None


def seeps_pairs(pairs: Pairs, climatology: xr.Dataset) -> tuple[Pairs, Metric]:
    """Return the pairs of the variables of a SEEPS climatology, with its thresholds as their climatology; the metric.

    Forecast, truth and baselines are in the same unit of length.
    """
    parts = {str(name): _seeps_parts(climatology, str(name)) for name in pairs.forecast.data_vars}
    parts = {name: found for name, found in parts.items() if found is not None}
    names = list(parts)
    if not names:
        raise ValueError(
            f"the climatology for SEEPS has {list(climatology.data_vars)} and nothing on "
            f"{list(pairs.forecast.data_vars)}: make it with seeps_climatology(train)"
        )
    forecast = pairs.forecast[names]
    factor, dry, thresholds, fractions = {}, {}, {}, {}
    for name, (threshold, fraction, meters) in parts.items():
        if fraction not in climatology:
            raise ValueError(f"the climatology for SEEPS has {threshold} and no {fraction}")
        if meters is None:
            raise ValueError(
                f"the climatology for SEEPS says not what is dry for {name}: set it in m, climatology.attrs['dry'] = "
                "0.25e-3"
            )
        factor[name] = _factor_to_meters(forecast[name])
        dry[name] = _just(min, meters / factor[name])
        own = climatology[threshold]
        # without units they are in m, as all precipitation of WeatherBench 2
        own = _in_meters(own) if own.attrs.get("units") else own
        thresholds[name] = (own.astype(np.float64) / factor[name]).assign_attrs(units=forecast[name].attrs["units"])
        fractions[name] = climatology[fraction]
    # the thresholds go along as a climatology would; cells without one count no more than those without rain
    heavy_from = comparable(forecast, xr.Dataset(thresholds), pairs.grid, pairs.kept, "the climatology for SEEPS")
    others = {name: replace(one, forecast=one.forecast[names]) for name, one in pairs.others.items()}
    # what is made from the state may need all variables of it
    whole = any(one is not persistence for one in pairs.made.values())
    analysis = pairs.analysis if whole else pairs.analysis[names]
    pairs = replace(pairs, forecast=forecast, analysis=analysis, climatology=heavy_from, others=others, frequency=None)
    p1 = xr.Dataset(fractions)
    p1 = p1.mean([dim for dim in ("hour", "dayofyear") if dim in p1.dims])
    p1 = p1.map(lambda field: _on(pairs, field, slice(0, pairs.grid["latitude"].size)))

    def error(f: Fields) -> tuple[xr.Dataset, ...]:
        (name,) = map(str, f.truth.data_vars)
        heavy, share = f.climatology[name], p1[name]
        said, was = (
            xr.where(one[name] < dry[name], 0, xr.where(one[name] >= heavy, 2, 1)) for one in (f.forecast, f.truth)
        )
        value = xr.zeros_like(f.truth[name])
        matrix = {
            (0, 1): 1 / (1 - share), (0, 2): 4 / (1 - share),
            (1, 0): 1 / share, (1, 2): 3 / (1 - share),
            (2, 0): 1 / share + 3 / (2 + share), (2, 1): 3 / (2 + share),
        }  # fmt: skip
        for (row, column), cost in matrix.items():
            value = value + 0.5 * cost * ((said == row) & (was == column))
        known = f.forecast[name].notnull() & f.truth[name].notnull() & heavy.notnull()
        value = value.where(known & (share >= 0.1) & (share <= 0.85)).transpose(*f.truth[name].dims)
        return (xr.Dataset({name: value}),)

    return pairs, Metric(error, lambda mean: mean, dimensionless=True)


def tercile_rpss(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    train: xr.Dataset,
    *,
    windows: Sequence[tuple[int, int]],
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    weights: Literal["area", "cos"] | None = "area",
    fair: bool = True,
    skipna: bool = False,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the ranked probability skill score of terciles of means over leads, against 1/3 for each.

    1 - <RPS> / <RPS of climatology>: are weekly or monthly means below, near or above normal? The terciles of each cell
    and calendar month are those of the same means in the training period. The RPS of an ensemble is the fair one,
    sum_k (P_k - O_k)^2 - P_k (1 - P_k) / (M - 1) over the cumulative shares P of its M members and O of the truth: the
    score that an ensemble with infinitely many members of the same kind would have (Ferro 2014).

    Parameters
    ----------
    forecast
        As in `rmse`; the members of an ensemble give the probabilities, a single forecast 0 or 1.
    truth, train
        Analyses; the training period gives the terciles.
    windows
        First and last lead of each mean, in steps from 1: [(1, 28), (29, 56)] are weeks of 6-hourly leads.
    regions
        As in `score`.
    weights, skipna
        As in `rmse`.
    fair
        False: the RPS of the members that there are, which punishes small ensembles. It makes no difference for a
        single forecast, or one member.
    allow_overlap
        Whether verified times may lie in the training period.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (window[, level, region]), no unit: 1 is perfect, 0 no
    better than climatology; coordinates `first_lead` and `last_lead`. A fair score of few members may be above 1.

    Raises
    ------
    ValueError
        As in `rmse`; if a window is outside of the leads, a month has fewer than six means in the training period, or
        verified times lie in it.
    """
    if "lead_time" in forecast.coords and "lead_time" not in forecast.dims:  # one that was picked
        forecast = forecast.expand_dims("lead_time")
    leads = forecast.sizes.get("lead_time", 0)
    windows = list(windows)
    for window in windows:
        if not isinstance(window, tuple | list) or [type(step) for step in window] != [int, int]:
            raise ValueError(f"windows has {window!r}: write pairs of whole numbers, [(first lead, last lead)]")
    if bad := [window for window in windows if not 1 <= window[0] <= window[1] <= leads]:
        raise ValueError(f"windows has {bad[0]}: write (first, last) lead in steps from 1 to {leads}")
    if not windows:
        raise ValueError("windows is empty: give the first and the last lead of each mean, [(1, 28)]")
    parts = []
    for first, last in windows:
        pairs = match(forecast.isel(lead_time=slice(first - 1, last)), truth, None)
        training = comparable(pairs.forecast, train, pairs.grid, pairs.kept, "the training period")
        if not allow_overlap:
            times = training["time"].values
            period = {"train_start": iso(times.min()), "train_end": iso(times.max())}
            refuse_overlap(period, "train", "the training period", pairs)
        weight = cell_weights(pairs.grid, weights, regions, truth)
        count = pairs.grid["latitude"].size
        height = min(_band_height(one, "latitude") for one in (pairs.forecast, pairs.analysis, training))
        bands = [slice(at, min(at + height, count)) for at in range(0, count, height)]
        sums = [_ranked(pairs, training, weight, rows, fair, skipna) for rows in bands]
        own, normal = (sum(one.isel(part=part) for one in sums) for part in (0, 1))
        parts.append(1 - ratio(own, normal))
    table = concat(parts, "window").transpose("window", "level", "region", ..., missing_dims="ignore")
    lead = forecast["lead_time"].values
    table = table.assign_coords(
        first_lead=("window", [lead[first - 1] for first, _ in windows]),
        last_lead=("window", [lead[last - 1] for _, last in windows]),
    )
    if "level" in table.dims:  # in the units handed in
        table = table.assign_coords(level=pairs.forecast["level"])
    table = table.assign_coords({name: one for name, one in pairs.kept.items() if name == "level"})
    if lacking := [name for name in table.data_vars if not skipna and table[name].isnull().any()]:
        warnings.warn(
            f"the tercile score of {lacking} is missing where a value is missing in the forecast or the truth: "
            "skipna=True counts those that are there",
            stacklevel=2,
        )
    for name in table.data_vars:
        table[name].attrs = {"units": "1", "long_name": "tercile ranked probability skill score"}
    return table


def _ranked(
    pairs: Pairs, training: xr.Dataset, weight: xr.DataArray, rows: slice, fair: bool, skipna: bool
) -> xr.Dataset:
    """Return weighted sums of the ranked probability scores of means over all leads, of the forecast and of thirds.

    Over all initializations and some rows of the canonical grid; dims (part[, level, region]).
    """
    member = find_member(pairs.forecast)
    found = {}
    for name in map(str, pairs.forecast.data_vars):
        right, own = _window_means(pairs, name, rows)
        edges = _terciles(training[name], pairs, rows, {int(month) for month in right["month"].values})
        month = xr.DataArray(right["month"].values, dims="init_time")
        lower, upper = (edges.sel(edge=at, drop=True).sel(month=month).drop_vars("month") for at in (0, 1))

        def cumulative(
            values: xr.DataArray, lower: xr.DataArray = lower, upper: xr.DataArray = upper
        ) -> list[xr.DataArray]:
            return [(values < lower).astype(float), (values < upper).astype(float)]

        said = cumulative(own)
        said = [one.mean(member) if member is not None else one for one in said]
        was = cumulative(right.drop_vars("month"))
        there = own.notnull() if member is None else own.notnull().all(member)
        known = right.notnull() & lower.notnull() & there
        rps = sum((s - w) ** 2 for s, w in zip(said, was, strict=True))
        if fair and member is not None and (count := pairs.forecast.sizes[member]) > 1:
            # what the shares of so few members miss by chance
            rps = rps - sum(s * (1 - s) for s in said) / (count - 1)
        normal = sum((share - w) ** 2 for share, w in zip((1 / 3, 2 / 3), was, strict=True))
        left_out = ~known if skipna else ~known.any("init_time")  # a cell that never has a value is a mask
        pooled = [dim for dim in ("init_time", "latitude", "longitude") if dim in rps.dims]
        own_weight = weight.isel(latitude=rows)
        sums = []
        for one in (rps, normal):
            # what is missing and of no weight is not seen
            values = one.where(known).where(~left_out & (own_weight != 0), 0)
            sums.append((values * own_weight).sum(pooled, skipna=False))
        found[name] = xr.concat(sums, "part")
    return xr.Dataset(found)


def _window_means(pairs: Pairs, name: str, rows: slice) -> tuple[xr.DataArray, xr.DataArray]:
    """Return means over all leads of truth and forecast, (init_time, ...), with the month of the middle of each."""
    whole = pairs.complete.all(axis=1)
    if not whole.any():
        raise ValueError("no initialization has a truth at all leads of the window")
    inits = np.flatnonzero(whole)
    at = xr.DataArray(pairs.at_valid[inits], dims=("init_time", "lead_time"))
    right = _on(pairs, pairs.analysis[name], rows).drop_vars("time").isel(time=at).mean("lead_time", skipna=False)
    own = _on(pairs, pairs.forecast[name].isel(init_time=inits), rows).mean("lead_time", skipna=False)
    middle = pairs.valid_time.isel(init_time=inits, lead_time=pairs.complete.shape[1] // 2)
    return right.assign_coords(month=("init_time", middle.dt.month.values)), own.drop_vars("init_time", errors="ignore")


def _terciles(training: xr.DataArray, pairs: Pairs, rows: slice, used: set[int]) -> xr.DataArray:
    """Return the lower and the upper tercile of running means over as many steps as leads, dims (edge, month, ...)."""
    own, length = _on(pairs, training, rows), pairs.complete.shape[1]
    if length > 1:
        steps = np.asarray(own.indexes["time"][1:] - own.indexes["time"][:-1]).astype("timedelta64[s]")
        leads = np.diff(pairs.valid_time.values[0])
        wanted = np.asarray(leads).astype("timedelta64[s]")
        usual = np.median(steps.astype(np.int64)).astype("timedelta64[s]")
        if not (wanted == wanted[0]).all():
            raise ValueError("the leads of the window are not evenly spaced, as the means of the training period are")
        if not (wanted == usual).all() and not (28 <= usual / np.timedelta64(1, "D") <= 31):
            raise ValueError(
                f"the leads of the window are {wanted[0]} apart, the times of the training period {usual}: give both "
                "in the same steps"
            )
        if (steps > 1.2 * usual).any():
            gap = own.indexes["time"][int(np.argmax(steps > 1.2 * usual))]
            raise ValueError(f"the training period has a gap after {gap}: means would run across it")
    means = own.rolling(time=length).mean().isel(time=slice(length - 1, None))
    # the label of a running mean is its last step: the middle is half a window before
    months = own["time"].isel(time=slice(length // 2, length // 2 + means.sizes["time"])).dt.month.values
    edges = []
    for number in range(1, 13):
        chosen = np.flatnonzero(months == number)
        if len(chosen) < 6 and (number in used or len(chosen)):
            raise ValueError(
                f"month {number} has {len(chosen)} means of {length} steps in the training period: too few"
            )
        if len(chosen):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "All-NaN slice encountered")  # a mask
                found = means.isel(time=chosen).quantile([1 / 3, 2 / 3], "time").rename(quantile="edge")
        else:
            found = means.isel(time=[0, 0]).rename(time="edge") * np.nan
        edges.append(found.assign_coords(edge=[0, 1]).transpose("edge", ...))
    labels = xr.DataArray(np.arange(1, 13), dims="month", name="month")
    return xr.concat(edges, labels, coords="minimal", compat="override")


def _in_meters(field: xr.DataArray) -> xr.DataArray:
    factor = _factor_to_meters(field)
    return field if factor == 1 else (field * factor).assign_attrs({**field.attrs, "units": "m"})


def _factor_to_meters(field: xr.DataArray) -> float:
    units = field.attrs.get("units", "")
    if not units:
        raise ValueError(f"{field.name} has no units: set ds[{field.name!r}].attrs['units'], 'm' or 'mm'")
    if same_units(units, "m"):
        return 1.0
    factors = conversion("tp", units, "m")
    if factors is None:
        raise ValueError(f"{field.name} is in {units!r}: convert it to m")
    return factors[0]


def _map(dataset: xr.Dataset, function: Callable[[xr.DataArray], xr.DataArray]) -> xr.Dataset:
    """Return a dataset with every variable as a function makes it, attributes included."""
    return dataset.assign({name: function(dataset[name]) for name in dataset.data_vars})


def _band_height(dataset: xr.Dataset, latitude: Hashable) -> int:
    """Return how many rows of all times are worked on at once, for what takes all times of a cell."""
    row = sum(variable.size for variable in dataset.data_vars.values()) * 8 // dataset.sizes[latitude]
    return max(1, _BAND_BYTES // max(row, 1))


def _on(pairs: Pairs, field: xr.DataArray, rows: slice) -> xr.DataArray:
    """Return some rows of a field, read, in the canonical order, with the coordinates of the forecast's grid."""
    latitude = find_axes(field.to_dataset(name="field")).latitude
    count = field.sizes[latitude]
    if field[latitude].values[0] > field[latitude].values[-1]:
        own = slice(count - rows.stop, count - rows.start)
    else:
        own = rows
    found = orient(field.isel({latitude: own}).compute().to_dataset(name="field"))["field"]
    grid = pairs.grid | {"latitude": pairs.grid["latitude"].isel(latitude=rows)}
    return found.assign_coords({dim: grid[dim] for dim in ("latitude", "longitude", "level") if dim in found.dims})


def _scored(pairs: Pairs, metric: Metric, weights: str | None, skipna: bool) -> xr.Dataset:
    rows = row_weights(pairs.grid["latitude"], weights)
    sums = weighted_sums(pairs, {"own": metric}, rows, skipna, pool_members=True)["", "own"]
    result = finish(sums.sum("init_time", skipna=False), metric)
    labels = {"level": pairs.forecast["level"]} if "level" in pairs.grid else {}
    for name in result.data_vars:
        result[name].attrs = {"units": "1"}
    return result.transpose("lead_time", "level", ..., missing_dims="ignore").assign_coords(pairs.kept | labels)
