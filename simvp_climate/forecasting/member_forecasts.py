"""Forecasts of the members of an ensemble, joined along the dimension `number`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import find_member
from simvp_climate.data.progress import progress_bar
from simvp_climate.forecasting import cf_encoding, hindcast
from simvp_climate.forecasting.initial_states import states_digest
from simvp_climate.forecasting.labels import NUMBER_ATTRS
from simvp_climate.forecasting.predict import predict, template
from simvp_climate.forecasting.request import ForecastRequest

IN_MEMORY_BYTES = 2**30  # perturbations up to this size are read into memory once


@dataclass(frozen=True, eq=False)
class Member:
    """A forecaster, what it forecasts, and what distinguishes it from other members."""

    forecaster: Any
    request: ForecastRequest
    perturb: Callable[[pd.Index], np.ndarray] | None = None  # as in `predict`
    member_number: int = 0
    seed: int = 0


def check_seed(members: int | None, seed: int) -> None:
    """Raise ValueError for a seed that would be ignored."""
    if members is None and seed != 0:
        raise ValueError(f"seed={seed!r} would be ignored without members. Give members=16, or leave seed out.")


def with_noise(
    forecaster: Any, request: ForecastRequest, members: int | None, seed: int
) -> tuple[list[Member], dict]:  # fmt: skip
    """Return the members of a network with noise, and the attributes of their forecasts.

    ValueError if the network has no noise, or a setting is out of range.
    """
    for name, value, minimum in (("members", members, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"{name}={value!r} must be an integer of at least {minimum}.")
    if getattr(forecaster.network, "noise_grid", None) is None:
        fix = "Train with TrainConfig(loss='crps'), or see sc.ensemble and sc.perturbed_ensemble."
        raise ValueError(f"members={members!r} needs a network with noise, and this one has none. {fix}")
    check_no_members("dataset", request.canonical.dataset)
    description = f"{members} members, noise in the network, seed {seed}"
    attributes = {"ensemble": description, "noise_members": int(members), "noise_seed": int(seed)}
    return [Member(forecaster, request, None, index, int(seed)) for index in range(members)], attributes


def forecast(
    members: Sequence[Member], attributes: dict, store: str | os.PathLike | None, progress: bool,
    perturbations: xr.Dataset | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return the ensemble, in memory or from the store that it is written to."""

    def make_template(histories: np.ndarray) -> xr.Dataset:
        return _join([template(member.forecaster, member.request, histories) for member in members], attributes)

    def forecast_all(
        histories: np.ndarray, advance: Callable[[int], object] | None = None
    ) -> tuple[xr.Dataset, list[str]]:
        settings = [(each.perturb, each.member_number, each.seed, advance) for each in members]
        pairs = [
            predict(member.forecaster, member.request, histories, *setting)
            for member, setting in zip(members, settings, strict=True)
        ]
        # all members start from the same data
        return _join([forecasts for forecasts, _ in pairs], attributes), pairs[0][1]

    request = members[0].request
    if store is None:
        with progress_bar(len(request.histories) * len(members), "forecasts", shown=progress) as bar:
            return forecast_all(request.histories, bar.update)[0]
    digests = dict.fromkeys(member.forecaster.digest for member in members)
    identity = hindcast.identify(request, members[0].forecaster.task.variables, " ".join(digests))
    identity |= {name: attributes[name] for name in ("ensemble", "amplitude") if name in attributes}
    if perturbations is not None:
        identity["perturbations"] = _identify_states(perturbations)
    return hindcast.write(store, identity, request.histories, make_template, forecast_all, progress)


def check_no_members(name: str, dataset: xr.Dataset) -> None:
    """Raise ValueError if a Dataset has ensemble members: the forecasts get members of their own."""
    if (member := find_member(dataset)) is not None:
        raise ValueError(f"{name} must not have ensemble members, here {member!r}. Select one: ds.isel({member}=0)")


def _join(members: Sequence[xr.Dataset], attributes: dict) -> xr.Dataset:
    """Return forecasts joined along a new dimension `number` after the lead time, with additional attributes."""
    numbers = xr.DataArray(np.arange(len(members)), dims="number", name="number", attrs=NUMBER_ATTRS)
    options = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "exact"}
    joined = xr.concat(members, numbers, combine_attrs="override", **options)
    for name in joined.data_vars:
        joined[name] = joined[name].transpose("init_time", "lead_time", "number", ...)
    joined = cf_encoding.encode(joined)
    joined["number"].encoding = {"_FillValue": None, "dtype": "int32"}
    return joined.assign_attrs(attributes)


def _identify_states(states: xr.Dataset) -> list[str | int]:
    """Return values that identify perturbations: first and last time, count, and a digest of at least 64 states."""
    times, positions = states.indexes["time"], np.arange(states.sizes["time"])
    if states.nbytes > IN_MEMORY_BYTES:
        positions = np.unique(np.linspace(0, len(times) - 1, 64).astype(int))
    return [str(times[0]), str(times[-1]), len(times), states_digest(states, positions)]
