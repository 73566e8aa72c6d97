"""Probability forecasts of events: reliability, the decomposition of the Brier score, and the ROC curve."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from simvp_climate.metrics.categorical.thresholds import event_metrics
from simvp_climate.metrics.definitions import Fields, Metric, concat, ratio
from simvp_climate.metrics.pairs import Pairs, match
from simvp_climate.metrics.regions import Regions, Weights
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap, score_with_intervals

_QUANTITIES = ("forecast_probability", "observed_frequency", "share")
_COMPONENTS = ("reliability", "resolution", "uncertainty")


def reliability(
    forecast: xr.Dataset, truth: xr.Dataset, threshold: float, *, bins: int | None = None, regions: Regions = None,
    weights: Weights = "area", skipna: bool = False, bootstrap: Bootstrap | None = Bootstrap(),  # noqa: B008 (frozen)
) -> xr.Dataset:  # fmt: skip
    """Return how often an event happens when it is forecast with a probability: as often, if these are reliable.

    The event is that a value exceeds the threshold; its probability is the fraction of members that do.

    Parameters
    ----------
    forecast, truth, threshold, weights, skipna
        As in `brier`.
    bins
        Number of bins of equal width for the probabilities, the last with its upper edge. None: one for each
        probability that M members can give, k / M.
    regions
        As in `score`.
    bootstrap
        Settings of the intervals as in `score`; None: no intervals.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (quantity, probability, lead_time[, level, region]),
    without unit. `quantity` has the mean "forecast_probability" of a bin, the "observed_frequency" of the event there,
    and the "share" of all forecasts; the first two are NaN in empty bins. `probability` is the probability or the
    center of the bin. The coordinates `<variable>_low` and `<variable>_high` are the ends of the intervals. ValueError
    as in `brier`, or if `bins` is no positive integer.
    """
    pairs = match(forecast, truth, weights=weights, regions=regions)
    size, labels = _bins(pairs, bins)
    labels.attrs["long_name"] = "probability of the event" if bins is None else "center of the bin of probability"
    quantity = xr.DataArray(np.array(_QUANTITIES), dims="quantity", name="quantity")

    def join(*means: xr.Dataset) -> xr.Dataset:
        return concat(list(_by_bin(means, labels)), quantity)

    metric = Metric(_bin_fields(forecast, threshold, size, len(labels)), join, dimensionless=True, needs="thresholds")
    result = score_with_intervals(pairs, metric, skipna, bootstrap, "quantity", "probability")
    return _with_threshold(result, pairs, threshold)


def brier_decomposition(
    forecast: xr.Dataset, truth: xr.Dataset, threshold: float, *, bins: int | None = None, regions: Regions = None,
    weights: Weights = "area", skipna: bool = False, bootstrap: Bootstrap | None = Bootstrap(),  # noqa: B008 (frozen)
) -> xr.Dataset:  # fmt: skip
    """Return the reliability, resolution and uncertainty that the Brier score consists of (Murphy 1973).

    With the share s, mean probability p and observed frequency o of each bin and the frequency c of all cases:
    reliability sum(s (p - o)^2), 0 if the probabilities are right; resolution sum(s (o - c)^2), larger if they tell
    cases apart; uncertainty c (1 - c), that of the event. Brier score = reliability - resolution + uncertainty, exactly
    with `bins=None`; wider bins leave out what varies within them (Stephenson et al. 2008).

    Arguments and errors as in `reliability`. Returns a Dataset in memory with the variables of the forecast, dims
    (component, lead_time[, level, region]), without unit, with intervals as from `reliability`.
    """
    pairs = match(forecast, truth, weights=weights, regions=regions)
    size, labels = _bins(pairs, bins)
    component = xr.DataArray(np.array(_COMPONENTS), dims="component", name="component")

    def join(*means: xr.Dataset) -> xr.Dataset:
        probability, frequency, share = _by_bin(means, labels)
        base = sum(means[2::3])
        terms = [(probability - frequency) ** 2, (frequency - base) ** 2]
        # Empty bins have no frequency.
        sums = [(term * share).where(share != 0, 0).sum("probability", skipna=False) for term in terms]
        return concat([*sums, base * (1 - base)], component)

    metric = Metric(_bin_fields(forecast, threshold, size, len(labels)), join, dimensionless=True, needs="thresholds")
    result = score_with_intervals(pairs, metric, skipna, bootstrap, "component")
    return _with_threshold(result, pairs, threshold)


def roc(
    forecast: xr.Dataset, truth: xr.Dataset, threshold: float, *, regions: Regions = None, weights: Weights = "area",
    skipna: bool = False, bootstrap: Bootstrap | None = Bootstrap(),  # noqa: B008 (frozen)
) -> xr.Dataset:  # fmt: skip
    """Return hit rate and false alarm rate if one warns of an event from a probability on (Mason 1982).

    The hit rate is the share of events with a warning, the false alarm rate the share of non-events with one. Arguments
    and errors as in `reliability`. Returns a Dataset in memory with the variables of the forecast, dims (rate,
    probability, lead_time[, level, region]), without unit, with intervals as from `reliability`. `rate` is "hit_rate"
    or "false_alarm_rate", `probability` the lowest with a warning: from 0, where both rates are 1, to 1 in steps of
    1 / M. The curve ends at 0, without any warning. NaN where an event, or none, happens in all cases.
    """
    pairs = match(forecast, truth, weights=weights, regions=regions)
    size, labels = _bins(pairs, None)
    labels.attrs["long_name"] = "lowest probability with a warning"
    names = xr.DataArray(np.array(["hit_rate", "false_alarm_rate"]), dims="rate", name="rate")

    def join(*means: xr.Dataset) -> xr.Dataset:
        return concat(list(_rates(means, labels)), names)

    metric = Metric(_bin_fields(forecast, threshold, size, len(labels)), join, dimensionless=True, needs="thresholds")
    result = score_with_intervals(pairs, metric, skipna, bootstrap, "rate", "probability")
    return _with_threshold(result, pairs, threshold)


def roc_area(
    forecast: xr.Dataset, truth: xr.Dataset, threshold: float, *, regions: Regions = None, weights: Weights = "area",
    skipna: bool = False, bootstrap: Bootstrap | None = Bootstrap(),  # noqa: B008 (frozen)
) -> xr.Dataset:  # fmt: skip
    """Return the area under the ROC curve: the probability to tell an event from a non-event.

    1 is perfect, 0.5 no better than chance. The curve is straight between its points: cases of equal probability count
    half (Mason and Graham 2002). Arguments and errors as in `roc`. Returns a Dataset in memory with the variables of
    the forecast, dims (lead_time[, level, region]), without unit, with intervals as from `reliability`.
    """
    pairs = match(forecast, truth, weights=weights, regions=regions)
    size, labels = _bins(pairs, None)

    def area(*means: xr.Dataset) -> xr.Dataset:
        hits, false_alarms = _rates(means, labels)
        # the last point of the curve is (0, 0)
        steps = false_alarms - false_alarms.shift(probability=-1, fill_value=0)
        return (steps * (hits + hits.shift(probability=-1, fill_value=0)) / 2).sum("probability", skipna=False)

    metric = Metric(_bin_fields(forecast, threshold, size, len(labels)), area, dimensionless=True, needs="thresholds")
    return _with_threshold(score_with_intervals(pairs, metric, skipna, bootstrap), pairs, threshold)


def _bins(pairs: Pairs, bins: int | None) -> tuple[int, xr.DataArray]:
    """Return the bins in a probability of 1, and their probabilities or centers; ValueError if they are too few."""
    if bins is None:
        size = pairs.forecast.sizes.get(pairs.member, 1)
        centers = np.arange(size + 1) / size
    elif isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ValueError(f"bins={bins!r} must be a positive integer, or None for one bin for each probability")
    else:
        size, centers = int(bins), (np.arange(bins) + 0.5) / bins
    return size, xr.DataArray(centers, dims="probability", name="probability")


def _bin_fields(forecast: xr.Dataset, threshold: float, size: int, bins: int) -> Callable[[Fields], tuple]:
    """Return the function of the fields of all bins: 1 inside, and there the probability p and the outcome o."""
    names = list(forecast.data_vars)
    probability_and_outcome = event_metrics(dict.fromkeys(names, threshold), names)["frequency_bias"].fields
    assert probability_and_outcome is not None

    def fields(f: Fields) -> tuple[xr.Dataset, ...]:
        probability, outcome = probability_and_outcome(f)
        (name,) = probability.data_vars
        p, o = probability[name], outcome[name].transpose(*probability[name].dims).values
        # A tolerance far below 1 / size: k / M times M may be a little less than k.
        index = np.minimum(np.floor(p.values * size + 1e-6), bins - 1)
        known = ~np.isnan(index + o)
        inside = (np.where(known, index == position, np.nan) for position in range(bins))
        values = (field for cells in inside for field in (cells, cells * p.values, cells * o))
        return tuple(p.copy(data=field).to_dataset() for field in values)

    return fields


def _by_bin(means: tuple[xr.Dataset, ...], labels: xr.DataArray) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the mean probability, the frequency of the event, and the share of each bin, from the means of fields."""
    share, probability, frequency = (concat(list(means[start::3]), labels) for start in range(3))
    return ratio(probability, share), ratio(frequency, share), share


def _rates(means: tuple[xr.Dataset, ...], labels: xr.DataArray) -> tuple[xr.Dataset, xr.Dataset]:
    """Return hit rate and false alarm rate of warnings from each probability on."""
    share, _, events = (concat(list(means[start::3]), labels) for start in range(3))

    def at_least(cases: xr.Dataset) -> xr.Dataset:
        later = cases.isel(probability=slice(None, None, -1)).cumsum("probability", skipna=False)
        counts = later.isel(probability=slice(None, None, -1)).assign_coords(probability=labels)
        return ratio(counts, counts.isel(probability=0, drop=True))

    return at_least(events), at_least(share - events)


def _with_threshold(result: xr.Dataset, pairs: Pairs, threshold: float) -> xr.Dataset:
    """Return a result with the threshold, and its units, in the attributes of the variables."""
    for name in result.data_vars:
        units = pairs.attrs(str(name)).get("units")
        result[name].attrs |= {"threshold": float(threshold)} | ({} if units is None else {"threshold_units": units})
    return result
