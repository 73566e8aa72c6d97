"""Datasets changed in one to three ways: handed to `check`, `train`, a forecaster and `score`.

Each change either keeps the meaning of the data, so that the result must be that of the unchanged data, or it makes
them wrong, so that they must be refused. Stacked changes are of different aspects and cannot undo each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import reference
import xarray as xr
from factories import quick, tiny_model, waves
from outcomes import Attack, judge

import simvp_climate as sc
from simvp_climate.quality import report as sc_report
from simvp_climate.quality import rules as sc_rules

TIMES = 16
TASK = sc.Task(["z500", "t2m"], history=2, horizon=2)
NAMES = ("z500", "t2m")


ALL = ("forecast", "check", "training", "validation", "score")
# two Datasets in different units or kinds of times are not converted
BESIDE_ANOTHER = ("validation", "score")


@dataclass(frozen=True)
class Mutation:
    """A change of a Dataset, and the aspect that it changes.

    `refused_by` are the operations that cannot give a right result, empty if the data still mean the same. For the
    other operations a mutation that is not harmless gives other data, for example another grid to train on: they may
    accept or refuse it, clearly. A harmless one is refused by none but those that `may_refuse` it.
    """

    name: str
    aspect: str
    refused_by: tuple[str, ...]
    is_harmless: bool
    apply: Callable[[xr.Dataset, np.random.Generator], xr.Dataset]
    may_refuse: tuple[str, ...] = ()

    @property
    def joins_others(self) -> bool:
        return self.refused_by == ALL and self.aspect.startswith(("units", "dtype"))


MUTATIONS: list[Mutation] = []


def harmless(aspect: str, may_refuse: tuple[str, ...] = ()):
    """Register a function as a change that keeps the meaning."""
    return lambda function: MUTATIONS.append(Mutation(function.__name__, aspect, (), True, function, may_refuse))


def harmful(aspect: str, refused_by: tuple[str, ...] = ALL):
    """Register a function as a change that makes the data wrong for some operations."""
    return lambda function: MUTATIONS.append(Mutation(function.__name__, aspect, refused_by, False, function))


def dimension(ds: xr.Dataset, *names: str) -> str:
    """Return the name that a dimension has by now."""
    return next(str(dim) for dim in ds.dims if dim in names)


def time_of(ds: xr.Dataset) -> str:
    return dimension(ds, "time", "valid_time", "t")


def latitude_of(ds: xr.Dataset) -> str:
    return dimension(ds, "latitude", "lat", "nav_lat")


def longitude_of(ds: xr.Dataset) -> str:
    return dimension(ds, "longitude", "lon", "nav_lon")


def variable_of(ds: xr.Dataset, name: str) -> str:
    return next(known for known in (name, {"t2m": "2m_temperature", "z500": "geopotential_500"}[name]) if known in ds)


def change_values(ds: xr.Dataset, name: str, change: Callable[[np.ndarray], None]) -> xr.Dataset:
    """Return the Dataset after a change, in place, of the values (time, latitude, longitude) of a variable."""
    name = variable_of(ds, name)
    first = [time_of(ds), latitude_of(ds), longitude_of(ds)]
    ordered = ds[name].transpose(*first, ...).copy(deep=True).load()
    values = ordered.values if ordered.dtype.kind == "f" else ordered.values.astype("f4")
    change(values)
    changed = ordered.copy(data=values)
    return ds.assign({name: changed.transpose(*ds[name].dims)})


def replace_variable(ds: xr.Dataset, name: str, change: Callable[[xr.DataArray], xr.DataArray]) -> xr.Dataset:
    with xr.set_options(keep_attrs=True):
        return ds.assign({variable_of(ds, name): change(ds[variable_of(ds, name)])})


# ---- names, order and layout


@harmless("rows")
def north_to_south(ds, rng):
    return ds.isel({latitude_of(ds): slice(None, None, -1)})


@harmless("columns")
def longitudes_from_minus_180(ds, rng):
    name = longitude_of(ds)
    return ds.assign_coords({name: (ds[name] + 180) % 360 - 180}).sortby(name)


@harmless("columns")
def longitudes_from_another_meridian(ds, rng):
    return ds.roll({longitude_of(ds): int(rng.integers(1, 16))}, roll_coords=True)


@harmless("columns")
def longitudes_backward(ds, rng):
    return ds.isel({longitude_of(ds): slice(None, None, -1)})


@harmless("rows")
def latitudes_in_float32(ds, rng):
    return ds.assign_coords({latitude_of(ds): ds[latitude_of(ds)].astype("f4")})


@harmless("columns")
def longitudes_with_noise(ds, rng):
    name = longitude_of(ds)
    return ds.assign_coords({name: ds[name] + 1e-5 * rng.normal(size=ds.sizes[name])})


@harmless("order of dimensions")
def dimensions_in_another_order(ds, rng):
    return ds.transpose(*rng.permutation(list(ds.dims)))


@harmless("names")
def short_names_of_dimensions(ds, rng):
    return ds.rename({latitude_of(ds): "lat", longitude_of(ds): "lon"})


@harmless("names")
def names_known_by_attributes(ds, rng):
    ds = ds.rename({latitude_of(ds): "nav_lat", longitude_of(ds): "nav_lon"})
    ds["nav_lat"].attrs |= {"standard_name": "latitude", "units": "degrees_north"}
    ds["nav_lon"].attrs |= {"standard_name": "longitude", "units": "degrees_east"}
    return ds


@harmless("name of time")
def time_named_t(ds, rng):
    ds = ds.rename({time_of(ds): "t"})
    ds["t"].attrs |= {"standard_name": "time"}
    return ds


@harmless("names of variables")
def long_names_of_variables(ds, rng):
    return ds.rename({variable_of(ds, "t2m"): "2m_temperature", variable_of(ds, "z500"): "geopotential_500"})


@harmless("dtype")
def double_precision(ds, rng):
    return ds.astype("f8")


@harmless("dtype")
def big_endian(ds, rng):
    return ds.astype(">f4")


@harmless("storage")
def chunked(ds, rng):
    return ds.chunk({time_of(ds): int(rng.integers(1, 7)), longitude_of(ds): int(rng.integers(3, 9))})


@harmless("storage")
def not_contiguous(ds, rng):
    return ds.map(lambda variable: variable.copy(data=np.asfortranarray(variable.values)))


@harmless("extra variables")
def another_variable(ds, rng):
    name = next(iter(ds.data_vars))
    zeros = (ds[name].dims, np.zeros(ds[name].shape))
    return ds.assign(extra=zeros, text=("letters", np.array(["a", "b"])))


@harmless("extra coordinates")
def scalar_coordinates(ds, rng):
    return ds.assign_coords({"run" if "number" in ds.dims else "number": 0, "expver": "0001", "surface": 0.0})


@harmless("extra dimension")
def scalar_height(ds, rng):
    return ds.assign_coords(height=xr.DataArray(2.0, attrs={"units": "m", "standard_name": "height", "axis": "Z"}))


@harmless("extra coordinates")
def coordinates_of_two_dimensions(ds, rng):
    rows, columns = latitude_of(ds), longitude_of(ds)
    return ds.assign_coords(zone=((rows, columns), np.zeros((ds.sizes[rows], ds.sizes[columns]), int)))


@harmless("extra dimension")
def height_of_one(ds, rng):
    height = xr.DataArray([2.0], dims="height", attrs={"units": "m", "standard_name": "height", "axis": "Z"})
    return replace_variable(ds, "t2m", lambda variable: variable.expand_dims(height=height))


@harmless("extra dimension")
def height_of_one_without_attributes(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.expand_dims(height=[2.0], axis=1))


@harmless("extra dimension")
def member_of_one(ds, rng):
    return ds.map(lambda variable: variable.expand_dims(number=[0]) if variable.ndim > 2 else variable)


@harmless("encoding")
def encoding_of_packed_files(ds, rng):
    for name in NAMES:
        ds[variable_of(ds, name)].encoding = {
            "scale_factor": 0.1,
            "add_offset": 3.0,
            "dtype": "i2",
            "_FillValue": -9999,
        }
    return ds


@harmless("attributes")
def foreign_attributes(ds, rng):
    ds = ds.assign_attrs(history="made by hand", Conventions="CF-1.6", answer=42, table=np.arange(3))
    ds[variable_of(ds, "t2m")].attrs |= {"valid_range": [100.0, 400.0], "comment": "", "flag_values": np.arange(2)}
    return ds


# ---- units


@harmless("units of t2m", BESIDE_ANOTHER)
def celsius(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: (variable - 273.15).assign_attrs(units="degC"))


@harmless("units of z500", BESIDE_ANOTHER)
def height_in_place_of_geopotential(ds, rng):
    return replace_variable(ds, "z500", lambda variable: (variable / reference.GRAVITY).assign_attrs(units="m"))


@harmless("units of z500")
def another_spelling_of_units(ds, rng):
    return replace_variable(ds, "z500", lambda variable: variable.assign_attrs(units="m**2 s**-2"))


@harmful("units of t2m")
def kelvin_called_celsius(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.assign_attrs(units="degC"))


@harmful("units of t2m")
def celsius_called_kelvin(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable - 273.15)


@harmful("units of z500")
def height_called_geopotential(ds, rng):
    return replace_variable(ds, "z500", lambda variable: variable / reference.GRAVITY)


@harmful("units of t2m", ("forecast", "validation", "score"))
def celsius_without_units(ds, rng):
    ds = replace_variable(ds, "t2m", lambda variable: variable - 273.15)
    del ds[variable_of(ds, "t2m")].attrs["units"]
    return ds


@harmful("units of t2m")
def units_of_another_quantity(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.assign_attrs(units="m s-1"))


@harmful("units of t2m")
def units_that_are_a_number(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.assign_attrs(units=5))


@harmful("units of t2m")
def units_that_are_a_list(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.assign_attrs(units=[1, 2]))


@harmful("units of z500")
def variables_swapped(ds, rng):
    first, second = (variable_of(ds, name) for name in NAMES)
    return ds.assign(
        {first: ds[second].assign_attrs(ds[first].attrs), second: ds[first].assign_attrs(ds[second].attrs)}
    )


# ---- values, in the last states: those from which a forecast starts


@harmful("values")
def fill_values_not_decoded(ds, rng):
    fill = float(rng.choice([-9999.0, 9999.0, 1e20, 9.96921e36, -32768.0, -999.0]))

    def change(values):
        values[-1][rng.random(values.shape[1:3]) < 0.02] = fill
        values[-1, 3, 3] = fill

    return change_values(ds, str(rng.choice(NAMES)), change)


@harmful("values")
def a_fill_value_in_one_cell(ds, rng):
    def change(values):
        values[-2, int(rng.integers(8)), int(rng.integers(16))] = -9999.0

    return change_values(ds, "t2m", change)


@harmful("values")
def zero_kelvin_in_some_cells(ds, rng):
    def change(values):
        values[-2:][rng.random(values[-2:].shape) < 0.1] = 0.0
        values[-1, 0, 0] = 0.0

    return change_values(ds, "t2m", change)


@harmful("values", ("forecast", "check", "training", "validation"))
def a_missing_value(ds, rng):
    def change(values):
        values[-int(rng.integers(1, 3)), int(rng.integers(8)), int(rng.integers(16))] = np.nan

    return change_values(ds, str(rng.choice(NAMES)), change)


@harmful("values", ("forecast", "check", "training", "validation"))
def an_infinite_value(ds, rng):
    def change(values):
        values[-1, int(rng.integers(8)), int(rng.integers(16))] = rng.choice([np.inf, -np.inf])

    return change_values(ds, str(rng.choice(NAMES)), change)


@harmful("values", ("forecast", "check", "training", "validation"))
def a_last_state_without_values(ds, rng):
    def change(values):
        values[-1] = np.nan

    return change_values(ds, "z500", change)


@harmful("values")
def zeros_in_place_of_a_state(ds, rng):
    def change(values):
        values[-1] = 0.0

    return change_values(ds, str(rng.choice(NAMES)), change)


@harmful("values")
def a_state_a_hundred_times_too_large(ds, rng):
    def change(values):
        values[-1] *= 100

    return change_values(ds, str(rng.choice(NAMES)), change)


@harmful("dtype")
def complex_numbers(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.astype("c8"))


@harmful("dtype")
def numbers_as_text(ds, rng):
    return replace_variable(ds, "t2m", lambda variable: variable.astype(str))


@harmful("presence")
def a_variable_is_absent(ds, rng):
    return ds.drop_vars(variable_of(ds, str(rng.choice(NAMES))))


@harmful("presence")
def a_variable_without_time(ds, rng):
    name = variable_of(ds, "t2m")
    return ds.assign({name: ds[name].isel({time_of(ds): -1}, drop=True)})


# ---- times


def with_times(ds: xr.Dataset, times) -> xr.Dataset:
    name = time_of(ds)
    return ds.assign_coords({name: (name, times, ds[name].attrs)})


@harmless("times")
def times_in_seconds(ds, rng):
    return with_times(ds, ds.indexes[time_of(ds)].as_unit("s"))


@harmless("times", BESIDE_ANOTHER)
def times_of_a_gregorian_calendar(ds, rng):
    start = str(ds.indexes[time_of(ds)][0])
    return with_times(ds, xr.date_range(start, periods=TIMES, freq="6h", calendar="standard", use_cftime=True))


@harmful("times", ("forecast", "check", "training", "validation"))
def times_out_of_order(ds, rng):
    order = np.arange(TIMES)
    order[[-1, -2]] = order[[-2, -1]]
    return ds.isel({time_of(ds): order})


@harmful("times")
def a_time_twice(ds, rng):
    return ds.isel({time_of(ds): [*range(TIMES - 1), TIMES - 2]})


@harmful("times", ("forecast",))
def a_gap_before_the_last_time(ds, rng):
    return ds.isel({time_of(ds): [*range(TIMES - 2), TIMES - 1]})


@harmful("times")
def times_with_a_zone(ds, rng):
    return with_times(ds, pd.Series(ds.indexes[time_of(ds)].tz_localize("Europe/Berlin")).astype(object).values)


@harmful("times")
def times_as_text(ds, rng):
    return with_times(ds, np.array([str(time) for time in ds.indexes[time_of(ds)]]))


@harmful("times")
def times_as_integers(ds, rng):
    return with_times(ds, np.arange(TIMES))


@harmful("times")
def a_time_that_is_missing(ds, rng):
    times = ds.indexes[time_of(ds)].to_numpy().copy()
    times[-1] = np.datetime64("NaT")
    return with_times(ds, times)


@harmful("times")
def times_of_another_step(ds, rng):
    return with_times(ds, pd.date_range("2001-01-01", periods=TIMES, freq="5h"))


# ---- grid


@harmful("rows", ("forecast", "validation", "score"))
def latitudes_moved(ds, rng):
    return ds.assign_coords({latitude_of(ds): ds[latitude_of(ds)] + 1.0})


@harmful("rows")
def a_latitude_beyond_the_pole(ds, rng):
    name = latitude_of(ds)
    values = ds[name].values.copy()
    values[-1] = 95.0
    return ds.assign_coords({name: (name, values, ds[name].attrs)})


@harmful("rows", ("forecast", "validation", "score"))
def latitudes_in_radians(ds, rng):
    name = latitude_of(ds)
    return ds.assign_coords({name: (name, np.deg2rad(ds[name].values), {"units": "radians"})})


@harmful("rows", ("forecast", "validation", "score"))
def half_of_the_latitudes(ds, rng):
    return ds.isel({latitude_of(ds): slice(0, 4)})


@harmful("rows")
def a_latitude_that_is_missing(ds, rng):
    name = latitude_of(ds)
    values = ds[name].values.copy()
    values[2] = np.nan
    return ds.assign_coords({name: (name, values, ds[name].attrs)})


@harmful("columns", ("forecast", "validation", "score"))
def longitudes_moved_by_half_a_cell(ds, rng):
    return ds.assign_coords({longitude_of(ds): ds[longitude_of(ds)] + 11.25})


@harmful("columns")
def a_longitude_twice(ds, rng):
    return ds.isel({longitude_of(ds): [*range(16), 0]})


@harmful("columns", ("forecast", "validation", "score"))
def every_second_longitude(ds, rng):
    return ds.isel({longitude_of(ds): slice(None, None, 2)})


@harmful("columns")
def no_longitudes(ds, rng):
    return ds.drop_vars(longitude_of(ds))


@harmful("times")
def no_states(ds, rng):
    return ds.isel({time_of(ds): slice(0, 0)})


# ---- attacks


@cache
def base() -> xr.Dataset:
    """The unchanged Dataset."""
    return waves(times=40).isel(time=slice(-TIMES, None))


@cache
def trained() -> sc.Forecaster:
    return sc.train(TASK, waves(times=40), valid=None, model=tiny_model(), config=quick(), device="cpu")


def states_of(ds: xr.Dataset) -> np.ndarray:
    """Return the values (time, channel, latitude, longitude) of an unchanged Dataset."""
    return np.stack([ds[name].values for name in NAMES], axis=1)


@cache
def expected_forecast() -> np.ndarray:
    """Return the reference forecast from the last states, (lead, channel, latitude, longitude)."""
    mean, std = reference.statistics(states_of(waves(times=40)), base().latitude.values)
    return reference.forecast(trained().network, states_of(base())[-2:], mean, std)


@cache
def expected_statistics() -> tuple[np.ndarray, np.ndarray]:
    return reference.statistics(states_of(base()), base().latitude.values)


def same_forecast(result: xr.Dataset) -> bool:
    """Return whether a forecast from the last time has the values and the times of the reference."""
    leads = [np.timedelta64(6, "h"), np.timedelta64(12, "h")]
    if [*result.lead_time.values.astype("m8[h]")] != leads or result.sizes["init_time"] != 1:
        return False
    if pd.Timestamp(str(result.init_time.values[0])) != base().indexes["time"][-1]:
        return False
    fields = [reference.plain_values(result[name].squeeze()) for name in NAMES]
    scale = expected_statistics()[1][:, None, None, None]
    error = np.abs(np.stack(fields) - expected_forecast().swapaxes(0, 1)) / scale
    return bool(error.max() < 1e-3)


def same_statistics(forecaster: sc.Forecaster) -> bool:
    """Return whether the statistics of a training are those of the unchanged data, in the units of the training."""
    mean, std = (values.copy() for values in expected_statistics())
    offsets, factors = {"degC": -273.15}, {"m": 1 / reference.GRAVITY}
    for index, units in enumerate(forecaster.normalizer.units):
        mean[index] = mean[index] * factors.get(units, 1) + offsets.get(units, 0)
        std[index] *= factors.get(units, 1)
    close = np.allclose(forecaster.normalizer.mean, mean, rtol=1e-5, atol=1e-3)
    return close and np.allclose(forecaster.normalizer.std, std, rtol=1e-4)


# values change first and names last, so that every mutation finds what it changes
ORDER = (
    *("values", "units of t2m", "units of z500", "dtype", "rows", "columns", "times", "extra dimension", "storage"),
    *("order of dimensions", "encoding", "attributes", "extra coordinates", "extra variables"),
    *("names of variables", "presence", "name of time", "names"),
)


def choose(seed: int) -> tuple[list[Mutation], np.random.Generator]:
    """Return one to three mutations of different aspects.

    Of those that make the data wrong, only units and numbers of another kind join others, which cannot undo them.
    """
    rng = np.random.default_rng(seed)
    # every mutation alone first, then in company
    chosen = [MUTATIONS[seed % len(MUTATIONS)]]
    for _ in range(int(rng.integers(1, 3)) if seed >= len(MUTATIONS) else 0):
        taken = {mutation.aspect for mutation in chosen}
        others = [m for m in MUTATIONS if m.aspect not in taken and (m.is_harmless or m.joins_others)]
        chosen.append(others[int(rng.integers(len(others)))])
    return sorted(chosen, key=lambda mutation: ORDER.index(mutation.aspect)), rng


def attack(seed: int) -> list[Attack]:
    """Return how the attacks with one mutated Dataset ended: a forecast, a check, a score and often a training."""
    mutations, rng = choose(seed)
    ds = base().copy(deep=True)
    for mutation in mutations:
        ds = mutation.apply(ds, rng)
    described = f"seed {seed}, {' + '.join(mutation.name for mutation in mutations)}"
    is_harmless = all(mutation.is_harmless for mutation in mutations)
    refused_by = {operation for mutation in mutations for operation in mutation.refused_by}

    may_refuse = {operation for mutation in mutations for operation in mutation.may_refuse}
    names = {str(name) for name in [*ds.variables, *ds.dims, *NAMES]}

    def run(operation: str, call: Callable, is_right: Callable) -> Attack:
        def is_allowed(result):
            return operation not in refused_by and (not is_harmless or is_right(result))

        options = {"is_harmless": is_harmless, "may_be_refused": operation in may_refuse, "names": names}
        return judge(f"Dataset, {operation}", described, call, is_allowed, **options)

    def train(dataset, valid):
        return sc.train(TASK, dataset, valid=valid, model=tiny_model(), config=quick(), device="cpu")

    def score():
        return sc.score(persistence_forecast(), ds, metrics=["rmse"], persistence=False, bootstrap=None)

    attacks = [
        run("forecast", lambda: trained()(ds), same_forecast),
        run("check", lambda: findings_of(ds), lambda report: True),
        run("score", score, same_score),
    ]
    # trainings take longest: one or the other for each mutation alone, later a half of the seeds
    turn = (seed + seed // len(MUTATIONS)) % (2 if seed < 2 * len(MUTATIONS) else 4)
    if turn == 0:
        attacks.append(run("training", lambda: train(ds, None), same_statistics))
    elif turn == 1:
        attacks.append(run("validation", lambda: train(waves(times=20), ds), same_loss))
    return attacks


def validation_loss(forecaster: sc.Forecaster) -> float:
    return float(forecaster.training_curve["valid_loss"].iloc[-1])


@cache
def expected_loss() -> float:
    """Return the validation loss of the unchanged data."""
    forecaster = sc.train(TASK, waves(times=20), valid=base(), model=tiny_model(), config=quick(), device="cpu")
    return validation_loss(forecaster)


def same_loss(forecaster: sc.Forecaster) -> bool:
    return bool(np.isclose(validation_loss(forecaster), expected_loss(), rtol=1e-3))


def findings_of(ds: xr.Dataset) -> sc_report.Report:
    """Return the report of `check`; an error that it finds is raised as one that is clear, or not."""
    report = sc.check(ds, TASK)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if any(finding.code == "unforeseen" for finding in errors):
        raise RuntimeError(errors[0].message)
    sc_rules.raise_first(errors)
    return report


def persistence_forecast() -> xr.Dataset:
    """Return forecasts of the unchanged data from two times, whose truth ends with the data."""
    inits = base().indexes["time"][[-4, -3]]
    return sc.baselines.persistence(base(), inits, ["6h", "12h"])


def same_score(scores: xr.Dataset) -> bool:
    """Return whether the RMSE of the persistence forecasts is that of the unchanged data."""
    states = states_of(base())
    predicted = np.stack([states[[index, index]] for index in (-4, -3)])
    truth = np.stack([states[[index + 1, index + 2]] for index in (-4, -3)])
    for channel, name in enumerate(NAMES):
        expected = reference.rmse(predicted[:, :, channel], truth[:, :, channel], base().latitude.values)
        if not np.allclose(scores[name].sel(metric="rmse", system="forecast"), expected, rtol=1e-3):
            return False
    return True
