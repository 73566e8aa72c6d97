"""Forecasts changed in one to three ways, scored against an unchanged truth and a climatology."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import reference
import xarray as xr
from dataset_attacks import NAMES, base, replace_variable, states_of
from outcomes import Attack, judge

import simvp_climate as sc

LEADS = (6, 12, 24)  # hours
INITS = (2, 4, 5, 8)  # positions in the truth


@dataclass(frozen=True)
class Mutation:
    """A change of a forecast, the aspect that it changes, and whether it still means the same, but may be refused."""

    name: str
    aspect: str
    keeps_meaning: bool
    apply: Callable[[xr.Dataset, np.random.Generator], xr.Dataset]
    may_be_refused: bool = False


MUTATIONS: list[Mutation] = []


def harmless(aspect: str, may_be_refused: bool = False):
    """Register a function as a change that keeps the meaning."""
    return lambda function: MUTATIONS.append(Mutation(function.__name__, aspect, True, function, may_be_refused))


def harmful(aspect: str):
    """Register a function as a change that makes the forecast wrong."""
    return lambda function: MUTATIONS.append(Mutation(function.__name__, aspect, False, function))


def forecast() -> xr.Dataset:
    """Return the unchanged forecast: the truth with an error that is larger at every lead."""
    truth = base()
    times = truth.indexes["time"]
    result = sc.baselines.persistence(truth, times[list(INITS)], [f"{lead}h" for lead in LEADS])
    for channel, name in enumerate(NAMES):
        values = np.stack([states_of(truth)[index + np.array(LEADS) // 6, channel] for index in INITS])
        error = np.array(LEADS)[:, None, None] * np.cos(np.arange(values[0, 0].size)).reshape(values.shape[2:])
        result[name] = result[name].copy(data=(values + 0.1 * error).astype("f4"))
    return result


# ---- order, names and layout


@harmless("order of leads")
def leads_backward(ds, rng):
    return ds.isel(lead_time=slice(None, None, -1))


@harmless("order of inits")
def inits_backward(ds, rng):
    return ds.isel(init_time=slice(None, None, -1))


@harmless("rows")
def north_to_south(ds, rng):
    return ds.isel(latitude=slice(None, None, -1))


@harmless("columns")
def longitudes_from_minus_180(ds, rng):
    return ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude")


@harmless("order of dimensions")
def dimensions_in_another_order(ds, rng):
    return ds.transpose(*rng.permutation(list(ds.dims)))


@harmless("valid times")
def no_valid_times(ds, rng):
    return ds.drop_vars("valid_time", errors="ignore")


@harmless("dtype")
def double_precision(ds, rng):
    return ds.astype("f8")


@harmless("storage")
def chunked(ds, rng):
    return ds.chunk({"init_time": int(rng.integers(1, 4)), "lead_time": 1})


@harmless("names of the times", may_be_refused=True)
def names_of_weatherbench_2(ds, rng):
    return ds.drop_vars("valid_time", errors="ignore").rename(init_time="time", lead_time="prediction_timedelta")


@harmless("members")
def a_member_of_one(ds, rng):
    return ds.expand_dims(number=[0], axis=int(rng.integers(0, 3)))


@harmless("members")
def two_equal_members(ds, rng):
    return xr.concat([ds, ds], "number", join="outer").assign_coords(number=[0, 1])


@harmless("units", may_be_refused=True)
def celsius(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: (variable - 273.15).assign_attrs(units="degC"))


@harmless("extra coordinates")
def a_height_of_one(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.expand_dims(height=[2.0], axis=2))


@harmless("extra coordinates")
def a_height_of_one_without_units(ds, rng):
    lev = xr.DataArray([2.0], dims="lev", attrs={"standard_name": "height"})
    return replace_variable(ds, "t2m", lambda variable: variable.expand_dims("lev").assign_coords(lev=lev))


@harmless("attributes")
def no_attributes(ds, rng):
    return xr.Dataset({name: ds[name] for name in NAMES})


# ---- times that are wrong


@harmful("valid times")
def leads_relabeled(ds, rng):
    """The valid times stay those of the old leads."""
    leads = pd.to_timedelta([12, 18, 30], unit="h")
    return ds.assign_coords(lead_time=leads)


@harmful("valid times")
def inits_relabeled(ds, rng):
    return ds.assign_coords(init_time=ds.init_time + np.timedelta64(6, "h"))


@harmful("valid times")
def one_valid_time_is_wrong(ds, rng):
    valid = ds.valid_time.copy(deep=True)
    valid[dict(init_time=1, lead_time=1)] += np.timedelta64(6, "h")
    return ds.assign_coords(valid_time=valid)


@harmful("times")
def leads_as_integers(ds, rng):
    return ds.drop_vars("valid_time", errors="ignore").assign_coords(lead_time=[6, 12, 24])


@harmful("times")
def leads_as_integers_beside_valid_times(ds, rng):
    return ds.assign_coords(lead_time=[0, 1, 2])


@harmful("times")
def a_lead_twice(ds, rng):
    return ds.isel(lead_time=[0, 1, 1])


@harmful("times")
def an_init_twice(ds, rng):
    return ds.isel(init_time=[0, 1, 2, 2])


@harmful("times")
def inits_beyond_the_truth(ds, rng):
    return ds.drop_vars("valid_time", errors="ignore").assign_coords(init_time=ds.init_time + np.timedelta64(400, "D"))


@harmful("times")
def no_inits(ds, rng):
    return ds.isel(init_time=slice(0, 0))


@harmful("times")
def no_leads(ds, rng):
    return ds.isel(lead_time=slice(0, 0))


@harmful("times")
def negative_leads(ds, rng):
    return ds.drop_vars("valid_time", errors="ignore").assign_coords(lead_time=-ds.lead_time)


@harmful("times")
def init_times_as_text(ds, rng):
    return ds.drop_vars("valid_time", errors="ignore").assign_coords(
        init_time=[str(time)[:16] for time in ds.init_time.values]
    )


@harmful("times")
def init_times_with_a_zone(ds, rng):
    times = pd.Series(ds.indexes["init_time"].tz_localize("Asia/Tokyo")).astype(object).values
    return ds.drop_vars("valid_time", errors="ignore").assign_coords(init_time=times)


# ---- values and grids that are wrong


@harmful("units")
def kelvin_called_celsius(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.assign_attrs(units="degC"))


@harmful("units")
def units_of_another_quantity(ds, rng):
    return replace_variable(ds, "z500", lambda variable: variable.assign_attrs(units="Pa"))


@harmful("units")
def units_that_are_a_number(ds, rng):
    return replace_variable(ds, "z500", lambda variable: variable.assign_attrs(units=5))


@harmful("values")
def complex_numbers(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.astype("c8"))


@harmful("values")
def numbers_as_text(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.astype(str))


@harmful("rows")
def latitudes_moved(ds, rng):
    return ds.assign_coords(latitude=ds.latitude + 1)


@harmful("columns")
def longitudes_moved(ds, rng):
    return ds.assign_coords(longitude=ds.longitude + 11.25)


@harmful("rows")
def half_of_the_latitudes(ds, rng):
    return ds.isel(latitude=slice(0, 4))


def choose(seed: int) -> tuple[list[Mutation], np.random.Generator]:
    """Return one to three mutations of different aspects, at most one of which makes the forecast wrong."""
    rng = np.random.default_rng(seed)
    chosen = [MUTATIONS[seed % len(MUTATIONS)]]
    for _ in range(int(rng.integers(1, 3)) if seed >= len(MUTATIONS) else 0):
        taken = {mutation.aspect for mutation in chosen}
        others = [m for m in MUTATIONS if m.keeps_meaning and m.aspect not in taken]
        chosen.append(others[int(rng.integers(len(others)))])
    chosen = [chosen[index] for index in rng.permutation(len(chosen))]
    # new names last: the other changes use our names; before them what is no number any more
    order = {"values": 1, "names of the times": 2}
    return sorted(chosen, key=lambda mutation: order.get(mutation.aspect, 0)), rng


def attack(seed: int) -> list[Attack]:
    """Return how `score` and `sc.metrics.rmse` ended with one mutated forecast."""
    mutations, rng = choose(seed)
    ds = forecast()
    for mutation in mutations:
        ds = mutation.apply(ds, rng)
    keeps_meaning = all(mutation.keeps_meaning for mutation in mutations)
    described = f"seed {seed}, {' + '.join(mutation.name for mutation in mutations)}"

    def is_right(values: dict[str, xr.DataArray]) -> bool:
        return keeps_meaning and all(_is_expected(name, values[name]) for name in NAMES)

    def score():
        scores = sc.score(ds, base(), metrics=["rmse"], persistence=False, bootstrap=None)
        return {name: scores[name].sel(metric="rmse", system="forecast") for name in NAMES}

    def rmse():
        scores = sc.metrics.rmse(ds, base())
        return {name: scores[name] for name in NAMES}

    names = {str(name) for name in [*ds.variables, *ds.dims, *NAMES]}
    options = {"is_harmless": keeps_meaning, "may_be_refused": any(m.may_be_refused for m in mutations), "names": names}
    calls = {"score": score, "metrics.rmse": rmse}
    return [judge(area, described, call, is_right, **options) for area, call in calls.items()]


def _is_expected(name: str, values: xr.DataArray) -> bool:
    """Return whether the RMSE of a variable is the reference, by the labels of its leads."""
    channel = NAMES.index(name)
    states, unchanged = states_of(base()), forecast()
    truth = np.stack([states[index + np.array(LEADS) // 6, channel] for index in INITS])
    expected = reference.rmse(unchanged[name].values, truth, base().latitude.values)
    lead = next(dim for dim in values.dims if dim in ("lead_time", "prediction_timedelta"))
    ordered = values.transpose(..., lead).sortby(lead)  # members, where there are some, are equal
    hours = ordered[lead].values / np.timedelta64(1, "h")
    return bool(np.array_equal(hours, LEADS) and np.allclose(ordered, expected, rtol=1e-3))
