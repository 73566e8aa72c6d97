"""Ensembles: the forecasts of several forecasters, or of one from perturbed initial states."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from numbers import Integral

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import reader
from simvp_climate.data.conventions import canonicalize
from simvp_climate.data.windows import shift, to_iso
from simvp_climate.forecasting import member_forecasts
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.forecasting.member_forecasts import Member
from simvp_climate.forecasting.request import ForecastRequest, match_training, resolve_request
from simvp_climate.metrics.ensemble import spread_skill_ratio

_MIN_SEPARATION = np.timedelta64(10, "D")  # between two states, for independent weather
_MAX_DAYS_OF_YEAR = 15


def ensemble(
    forecasters: Sequence[Forecaster], dataset: xr.Dataset, init_times: Iterable | None = None,
    every: str | None = None, horizon: int | None = None, *, store: str | os.PathLike | None = None,
    progress: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Return the forecasts of several forecasters as an ensemble, for example of one task trained with several seeds.

    Parameters
    ----------
    forecasters
        At least two, of the same task.
    dataset, init_times, every, horizon
        As for a call of a forecaster.
    store, progress
        As in `Forecaster.hindcast`. Without a store the ensemble is in memory.

    Returns
    -------
    xarray.Dataset
        As from one forecaster, with a dimension `number` after the lead time. The attribute `forecaster_sha256` lists
        all forecasters.

    Raises
    ------
    ValueError, FileExistsError, FileNotFoundError
        As in `Forecaster.hindcast`, or if there are fewer than two forecasters, two are the same, or tasks differ.
    """
    forecasters = list(forecasters)
    digests = [forecaster.digest for forecaster in forecasters]
    if len(forecasters) < 2:
        raise ValueError(f"{len(forecasters)} forecasters are too few: an ensemble needs at least two.")
    if repeated := sorted({digest for digest in digests if digests.count(digest) > 1}):
        raise ValueError(f"The forecaster {repeated[0][:12]}... must not be repeated. Pass every forecaster once.")
    for forecaster in forecasters[1:]:
        if forecaster.task != forecasters[0].task:
            raise ValueError(f"The forecasters must have one task, not {forecaster.task} and {forecasters[0].task}.")
    members = [  # the index matters to forecasters with noise only
        Member(each, resolve_request(each, dataset, init_times, every, horizon), None, index)
        for index, each in enumerate(forecasters)
    ]
    member_forecasts.check_no_members("dataset", members[0].request.canonical.dataset)
    attributes = {"forecaster_sha256": " ".join(digests), "system": f"{len(forecasters)} forecasters"}
    sources = [forecaster.source or "" for forecaster in forecasters]
    attributes["forecaster_source"] = "\n".join(sources) if all(sources) else ""
    return member_forecasts.forecast(members, attributes, store, progress and store is not None)


def perturbed_ensemble(
    forecaster: Forecaster, dataset: xr.Dataset, perturbations: xr.Dataset, amplitude: float,
    init_times: Iterable | None = None, every: str | None = None, horizon: int | None = None, *,
    members: int = 10, seed: int = 0, store: str | os.PathLike | None = None, progress: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Return an ensemble of one forecaster from perturbed initial states.

    A perturbation is `amplitude` times the difference between two states of `perturbations`. Both have the hour of the
    initialization and lie within 15 days of its day of the year, at least 10 days apart. Such differences have the
    scales, balance and seasonal variance of real states (Magnusson et al. 2009). All states of a history get the same
    perturbation. Members come in pairs with opposite signs, so that their mean starts at the analysis; with an odd
    number, the last member is the unperturbed forecast.

    Parameters
    ----------
    dataset, init_times, every, horizon
        As for a call of the forecaster.
    perturbations
        States to draw from, a year or more, for example the training data. None of them may lie in the period of the
        forecasts: they would carry what is to be forecast into it. Up to 1 GiB is read into memory.
    amplitude
        As from `fit_amplitude`.
    members
        Number of members, at least 2.
    seed
        Of the draw. A perturbation depends only on the seed, the pair of members and the initialization.
    store, progress
        As in `ensemble`.

    Returns
    -------
    xarray.Dataset
        As from the forecaster, with a dimension `number` after the lead time, and `amplitude`, `perturbed_members` and
        `perturbation_seed` in its attributes.

    Raises
    ------
    ValueError, FileExistsError, FileNotFoundError
        As in `Forecaster.hindcast`; if the data or the perturbations have members, or the perturbations have no two
        states to take a difference of, or states in the period of the forecasts.
    """
    for name, value, minimum in (("members", members, 2), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"{name}={value!r} must be an integer of at least {minimum}.")
    members, seed = int(members), int(seed)
    if not amplitude > 0:
        raise ValueError(f"amplitude={amplitude!r} must be greater than 0. Estimate it with fit_amplitude.")
    request = resolve_request(forecaster, dataset, init_times, every, horizon)
    member_forecasts.check_no_members("dataset", request.canonical.dataset)
    states = _canonical_states(forecaster, perturbations)
    member_forecasts.check_no_members("perturbations", states)
    _refuse_later_states(states.indexes["time"], request, forecaster.task.step)
    factor = match_training(forecaster, states).factor  # an offset cancels in a difference
    draw = partial(_draw_difference, reader.open_source(states), states.indexes["time"], factor, seed)
    description = f"{members} members, perturbed by {amplitude:g} x differences of states, seed {seed}"
    system = f"{type(forecaster.network).__name__}, perturbed"
    attributes = {"system": system, "ensemble": description, "amplitude": float(amplitude)}
    attributes |= {"perturbed_members": members, "perturbation_seed": seed}  # for `reproduce`

    def perturb(pair: int, factor: float, inits: pd.Index) -> np.ndarray:
        """Return the drawn differences times a factor, 0 in masked cells, (init, channel, latitude, longitude)."""
        return factor * np.nan_to_num(np.stack([draw(pair, init) for init in inits]))

    paired = [partial(perturb, member // 2, amplitude * (-1) ** member) for member in range(members // 2 * 2)]
    perturbed = [*paired, *[None] * (members % 2)]
    ensemble_members = [Member(forecaster, request, each, index, seed) for index, each in enumerate(perturbed)]
    return member_forecasts.forecast(ensemble_members, attributes, store, progress and store is not None, states)


def fit_amplitude(
    forecaster: Forecaster, valid: xr.Dataset, perturbations: xr.Dataset, *, lead: int | None = None,
    every: str = "5D", members: int = 6, seed: int = 0,
) -> float:  # fmt: skip
    """Return the amplitude of perturbations for which the ensemble spread equals the error of its mean.

    Bisects `spread_skill_ratio` on a validation period, averaged over variables and levels, at one lead. The ratio may
    differ at other leads.

    Parameters
    ----------
    valid
        The validation period; do not score the same period.
    lead
        Lead in steps; by default the last lead of the task.
    perturbations, every, members, seed
        As for `perturbed_ensemble`.

    Raises
    ------
    ValueError
        As in `perturbed_ensemble`, or if no amplitude up to 2 gives enough spread.
    """
    lead = forecaster.task.horizon if lead is None else lead
    perturbations = _canonical_states(forecaster, perturbations)  # read once

    def ratio(amplitude: float) -> float:
        options = {"every": every, "horizon": lead, "members": members, "seed": seed}
        forecast = perturbed_ensemble(forecaster, valid, perturbations, amplitude, **options)
        ratios = spread_skill_ratio(forecast.isel(lead_time=[lead - 1]), valid)
        # NaN where the spread alone explains more than the error: far too much spread
        return float(np.mean([ratios[name].fillna(np.inf).mean() for name in ratios]))

    low, high = 1e-3, 2.0  # 1 would be a whole difference between two states
    if not ratio(high) > 1:
        spread = f"only {ratio(high):.2f} of the spread needed at step {lead}"
        raise ValueError(f"amplitude={high:g}, the largest allowed, gives {spread}. Use several forecasters.")
    for _ in range(9):  # halve log(high / low): to 1.5 % of the amplitude
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if ratio(middle) > 1 else (middle, high)
    return float(np.sqrt(low * high))


def _refuse_later_states(times: pd.Index, request: ForecastRequest, step: str) -> None:
    """Raise ValueError if states to draw perturbations from lie between the first initialization and the last lead."""
    inits = request.init_times(request.histories)
    first, last = inits.min(), shift(inits, step, request.horizon).max()
    # as ISO text, which sorts like the times also across calendars
    is_later = [to_iso(first) < to_iso(time) <= to_iso(last) for time in times]
    later = times[np.array(is_later, dtype=bool)]
    if len(later):
        raise ValueError(
            f"{len(later)} states of the perturbations, {later.min()} to {later.max()}, lie in the period of the "
            f"forecasts, {first} to {last}. Pass earlier states, for example the training data."
        )


def _canonical_states(forecaster: Forecaster, dataset: xr.Dataset) -> xr.Dataset:
    """Return the states of a Dataset on the canonical grid, in memory unless they are too large."""
    task = forecaster.task
    states = canonicalize(dataset, (*task.variables, *task.inputs), task.levels).dataset
    # states are drawn one at a time: from a store, each would decode a whole chunk
    return states.compute() if states.nbytes <= member_forecasts.IN_MEMORY_BYTES else states


def _draw_difference(
    source: reader.Source, times: pd.Index, factor: np.ndarray, seed: int, pair: int, init: object
) -> np.ndarray:
    """Return the difference of two random states, (channel, latitude, longitude), in the units of training."""
    # the seed contains the time: an initialization gets the same perturbation in any batch
    stamp = [init.year, init.month, init.day, init.hour, init.minute]
    random = np.random.default_rng([seed, pair, *stamp])
    days = abs(xr.DataArray(times, dims="time").dt.dayofyear.values - init.timetuple()[7])
    same_season = np.minimum(days, 365 - days) <= _MAX_DAYS_OF_YEAR
    candidates = np.flatnonzero(same_season & (times.hour == init.hour))
    for first in random.permutation(candidates):
        separation = np.asarray(abs(times[candidates] - times[first])).astype("timedelta64[s]")
        partners = candidates[separation >= _MIN_SEPARATION]
        if len(partners):
            second = random.choice(partners)
            states = reader.read(source, np.unique([first, second]))
            return (states[0] - states[1]) * factor * (1 if first < second else -1)
    raise ValueError(
        f"The perturbations, {times[0]} to {times[-1]}, have no two states at {init.hour} UTC within "
        f"{_MAX_DAYS_OF_YEAR} days of {init:%m-%d} and ten days apart. Pass a longer period."
    )
