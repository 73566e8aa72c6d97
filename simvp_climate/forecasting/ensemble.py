"""Ensembles: several forecasters, or one that starts from perturbed states."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data import cf_encoding, reader
from simvp_climate.data.conventions import find_member, orient, rename
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.metrics.ensemble import spread_skill_ratio

_NUMBER = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
# states whose differences are perturbations are this far apart at least: more than weather remembers
_IN_MEMORY_BYTES = 2**30
_APART = np.timedelta64(10, "D")


def ensemble(
    forecasters: Sequence[Forecaster],
    dataset: xr.Dataset,
    init_times: Iterable | None = None,
    every: str | None = None,
    horizon: int | None = None,
    *,
    store: str | os.PathLike | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Return the forecasts of several forecasters as an ensemble, for example of one trained with several seeds.

    Parameters
    ----------
    forecasters
        Two or more, of the same task.
    dataset, init_times, every, horizon
        As for a call of a forecaster.
    store, progress
        A store to write to in bounded memory, as `Forecaster.hindcast` does; None: the ensemble is made in memory.

    Returns
    -------
    xarray.Dataset
        As from one forecaster, with a dimension `number` after the lead time. `forecaster_sha256` names all of them.

    Raises
    ------
    ValueError
        As for a call of a forecaster, or if there are fewer than two, two are the same, or tasks differ.
    FileExistsError, FileNotFoundError
        As in `Forecaster.hindcast`.
    """
    forecasters = list(forecasters)
    if len(forecasters) < 2:
        raise ValueError(f"an ensemble takes two forecasters or more, not {len(forecasters)}")
    digests = [one.digest for one in forecasters]
    if twice := sorted({digest for digest in digests if digests.count(digest) > 1}):
        raise ValueError(f"the forecaster {twice[0][:12]}... is there {digests.count(twice[0])} times: give each once")
    for one in forecasters[1:]:
        if one.task != forecasters[0].task:
            raise ValueError(f"the tasks differ: {one.task} and {forecasters[0].task}")
    if isinstance(dataset, xr.Dataset) and (member := find_member(dataset)) is not None:
        raise ValueError(f"the dataset has members along {member!r}: pick one, ds.isel({member}=0)")
    starts = [one._start(dataset, init_times, every, horizon) for one in forecasters]

    def forecast(
        histories: np.ndarray, states_of: Callable | None = None, told: dict[str, list[str]] | None = None
    ) -> xr.Dataset:
        both = zip(forecasters, starts, strict=True)
        parts = [one._forecast(start, histories, states_of, told) for one, start in both]
        return _joined(parts).assign_attrs(forecaster_sha256=" ".join(digests), system=f"{len(parts)} forecasters")

    if store is None:
        return forecast(starts[0].histories)
    plan = {"forecaster": " ".join(digests)}
    return forecasters[0]._write(starts[0], store, progress, forecast, len(forecasters), plan)


def perturbed_ensemble(
    forecaster: Forecaster,
    dataset: xr.Dataset,
    perturbations: xr.Dataset,
    amplitude: float,
    init_times: Iterable | None = None,
    every: str | None = None,
    horizon: int | None = None,
    *,
    members: int = 10,
    seed: int = 0,
    store: str | os.PathLike | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Return an ensemble of one forecaster from perturbed initial states.

    A perturbation is `amplitude` times the difference between two states of `perturbations` at the same hour of the day
    and within 15 days of the same time of year, at least 10 days apart: random fields with the scales, balance and
    seasonal variance of real states (Magnusson et al. 2009). All states of a history get the same one. Members come in
    pairs with opposite signs, so that their mean starts at the analysis; a last one without a partner is
    the unperturbed forecast.

    Parameters
    ----------
    dataset, init_times, every, horizon
        As for a call of the forecaster.
    perturbations
        States to draw from, a year or more, for example the training data. Up to 1 GiB is read into memory; for larger
        ones every state that is drawn is read from its store.
    amplitude
        As from `fit_amplitude`.
    members
        How many, two or more.
    seed
        Of the draw. A perturbation depends on it, the pair of members and the initialization alone.
    store, progress
        As in `ensemble`.

    Returns
    -------
    xarray.Dataset
        As from the forecaster, with a dimension `number` after the lead time, and `amplitude`, `perturbed_members` and
        `perturbation_seed` in its attributes.

    Raises
    ------
    ValueError
        As for a call of the forecaster; if the data or the perturbations have members, or no two states of the
        perturbations go together.
    FileExistsError, FileNotFoundError
        As in `Forecaster.hindcast`.
    """
    for name, value, least in (("members", members, 2), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number, {least} or more")
    members, seed = int(members), int(seed)
    if not amplitude > 0:
        raise ValueError(f"amplitude={amplitude!r} must be greater than 0: fit_amplitude finds one")
    start = forecaster._start(dataset, init_times, every, horizon)
    inside = _states_of(forecaster, perturbations)
    for name, one in (("dataset", start.inside), ("perturbations", inside)):
        if (member := find_member(one)) is not None:
            raise ValueError(f"the {name} has members along {member!r}: pick one, ds.isel({member}=0)")
    forecaster.check(inside)
    factor, _ = forecaster._conversions(inside)  # differences know no offset
    draw = partial(_draw, reader.open_source(inside), inside.indexes["time"], factor, seed)
    words = f"{members} members, perturbed by {amplitude:g} x differences of states, seed {seed}"
    said = {"system": "SimVPv2, perturbed", "ensemble": words, "amplitude": float(amplitude)}
    said |= {"perturbed_members": members, "perturbation_seed": seed}  # what `reproduce` needs

    def forecast(
        histories: np.ndarray, states_of: Callable | None = None, told: dict[str, list[str]] | None = None
    ) -> xr.Dataset:
        parts = []
        for member in range(members):
            sign = 0.0 if member == members - 1 and members % 2 else (-1.0) ** member
            perturb = None if sign == 0 else partial(_perturbation, draw, member // 2, sign * amplitude)
            own = states_of or partial(forecaster._states, perturb=perturb)
            parts.append(forecaster._forecast(start, histories, own, told))
        return _joined(parts).assign_attrs(said)

    if store is None:
        return forecast(start.histories)
    times = inside.indexes["time"]
    plan = {
        "ensemble": words,
        "amplitude": float(amplitude),
        "perturbations": [
            str(times[0]),
            str(times[-1]),
            len(times),
            forecaster._history_digest(inside, _known_by(inside)),
        ],
    }
    return forecaster._write(start, store, progress, forecast, members, plan)


def fit_amplitude(
    forecaster: Forecaster,
    valid: xr.Dataset,
    perturbations: xr.Dataset,
    *,
    lead: int | None = None,
    every: str = "5D",
    members: int = 6,
    seed: int = 0,
) -> float:
    """Return the amplitude of perturbations at which the spread of the ensemble is as large as its error.

    Found on a validation period by bisection of the spread over the error (`spread_skill_ratio`), averaged over
    variables and levels, at one lead. At other leads the ratio may differ: look at it.

    Parameters
    ----------
    valid
        The validation period: not the one that will be scored.
    perturbations
        As for `perturbed_ensemble`.
    lead
        In steps; by default the last of the task.
    every
        From which times, as for a call of the forecaster.
    members, seed
        Of the ensembles that are tried.

    Raises
    ------
    ValueError
        As in `perturbed_ensemble`, or if no amplitude up to 2 gives spread enough.
    """
    lead = forecaster.task.horizon if lead is None else lead
    perturbations = _states_of(forecaster, perturbations)  # read once

    def ratio(amplitude: float) -> float:
        found = perturbed_ensemble(
            forecaster, valid, perturbations, amplitude, every=every, horizon=lead, members=members, seed=seed
        )
        values = spread_skill_ratio(found.isel(lead_time=[lead - 1]), valid)
        # none where the error is less than what the spread alone would give: far too much spread
        return float(np.mean([values[name].fillna(np.inf).mean() for name in values]))

    low, high = 1e-3, 2.0
    if not ratio(high) > 1:
        raise ValueError(
            f"even with an amplitude of {high:g}, a whole difference of states and more, the spread at step {lead} is "
            f"{ratio(high):.2f} of the error: an ensemble of several forecasters may have more"
        )
    for _ in range(9):  # to two hundredths of the amplitude: the search is even in its logarithm
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if ratio(middle) > 1 else (middle, high)
    return float(np.sqrt(low * high))


def _states_of(forecaster: Forecaster, perturbations: xr.Dataset) -> xr.Dataset:
    """Return the variables of the perturbations, oriented, in memory where it is not too large.

    States are drawn one by one, and each would decode a whole chunk of a store.
    """
    inside = orient(
        rename(perturbations, (*forecaster.task.variables, *forecaster.task.inputs), forecaster.task.levels)
    )
    return inside.compute() if inside.nbytes <= _IN_MEMORY_BYTES else inside


def _known_by(inside: xr.Dataset) -> np.ndarray:
    """Return the positions of the states that identify the perturbations: all in memory, else 64 throughout."""
    count = inside.sizes["time"]
    return (
        np.arange(count) if inside.nbytes <= _IN_MEMORY_BYTES else np.unique(np.linspace(0, count - 1, 64).astype(int))
    )


def _draw(source: reader.Source, times: pd.Index, factor: np.ndarray, seed: int, pair: int, init: object) -> np.ndarray:
    """Return the difference of two states, (channel, latitude, longitude), in the units trained in."""
    # the time counts, not its place: any batch of initializations gets the same
    stamp = [init.year, init.month, init.day, init.hour, init.minute]
    random = np.random.default_rng([seed, pair, *stamp])
    distance = abs(xr.DataArray(times, dims="time").dt.dayofyear.values - init.timetuple()[7])
    near = np.flatnonzero((np.minimum(distance, 365 - distance) <= 15) & (times.hour == init.hour))
    for first in random.permutation(near):
        gap = np.asarray(abs(times[near] - times[first])).astype("timedelta64[s]")
        partners = near[gap >= _APART]
        if len(partners):
            second = random.choice(partners)
            states = reader.read(source, np.unique([first, second]))
            return (states[0] - states[1]) * factor * (1 if first < second else -1)
    raise ValueError(
        f"the perturbations, {times[0]} to {times[-1]}, have no two states at {init.hour} UTC within 15 days of "
        f"{init:%m-%d} that are ten days apart: give a longer one"
    )


def _perturbation(draw: Callable, pair: int, amplitude: float, inits: pd.Index) -> np.ndarray:
    return amplitude * np.nan_to_num(np.stack([draw(pair, init) for init in inits]))


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    numbers = xr.DataArray(np.arange(len(parts)), dims="number", name="number", attrs=_NUMBER)
    options = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}
    joined = xr.concat(parts, numbers, combine_attrs="override", **options)
    order = ["init_time", "lead_time", "number"]
    for name in joined.data_vars:
        joined[name] = joined[name].transpose(*order, ...)
    joined = cf_encoding.encode(joined)
    joined["number"].encoding = {"_FillValue": None, "dtype": "int32"}
    return joined
