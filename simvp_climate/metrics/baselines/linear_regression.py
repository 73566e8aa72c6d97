"""Baselines that learn from the training period, and so are harder to beat than persistence."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_axes, level_values, orient, rename, restore, same_grid
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.variables import same_units
from simvp_climate.data.windows import valid_times
from simvp_climate.metrics.alignment import iso, on_grid_of
from simvp_climate.metrics.baselines.climatologies import as_lead_time, climatology_at, persistence, time_blocks

# float64 bytes of the states from which the empirical orthogonal functions are computed
_MODES, _RIDGES = (50, 100, 200, 400), (0.03, 0.1, 0.3, 1.0)
_EOF_BYTES = 2**29
_SPACE = ("latitude", "longitude")


@dataclass(frozen=True, eq=False)
class DampedPersistence:
    """The last anomaly, damped towards climatology: climatology(valid) + damping * (state - climatology(init)).

    `fit_damped_persistence` makes one; call it like `persistence`, or give it to `score` among its baselines.

    Attributes
    ----------
    climatology
        From which the anomalies are.
    damping
        For each lead and cell, from 0 to 1, dims (lead_time, [level,] latitude, longitude).
    """

    climatology: xr.Dataset
    damping: xr.Dataset

    def __call__(
        self,
        dataset: xr.Dataset,
        init_times: xr.DataArray | Iterable | str,
        lead_times: xr.DataArray | Iterable | str,
    ) -> xr.Dataset:
        """Return the forecast; arguments, result and errors as in `persistence`.

        ValueError also for a lead that nothing was fitted for, or another grid.
        """
        there = [name for name in self.damping.data_vars if name in dataset] or list(self.damping.data_vars)
        inside = _prepared(dataset, there, self.damping[there])
        last = persistence(inside, init_times, lead_times)
        damping = on_grid_of(self.damping[there], inside, "the damping")
        damping = _at_leads(damping, last["lead_time"])
        climatology = on_grid_of(self.climatology[there], inside, "the climatology of the baseline")
        now = _plain(climatology_at(climatology, last["init_time"]))
        then = _plain(climatology_at(climatology, last["valid_time"]))
        return _finished(then + damping * (last - now), last, dataset, "damped persistence")


@dataclass(frozen=True, eq=False)
class LinearRegression:
    """The anomalies of all variables at a lead, linear in those at the start, in leading EOFs of both.

    `fit_linear_regression` makes one; call it like `persistence`, or give it to `score` among its baselines.

    Attributes
    ----------
    climatology
        From which the anomalies are.
    scale
        Unit of the state vector for each variable, level and latitude, dims ([level,] latitude).
    patterns
        The empirical orthogonal functions, in these units, dims (mode, [level,] latitude, longitude).
    operator
        From the coefficients at the start to those at the lead, dims (lead_time, mode, start).
    """

    climatology: xr.Dataset
    scale: xr.Dataset
    patterns: xr.Dataset
    operator: xr.DataArray

    def __call__(
        self,
        dataset: xr.Dataset,
        init_times: xr.DataArray | Iterable | str,
        lead_times: xr.DataArray | Iterable | str,
    ) -> xr.Dataset:
        """Return the forecast; arguments, result and errors as in `persistence`.

        ValueError also for a lead that nothing was fitted for, or another grid.
        """
        names = list(self.patterns.data_vars)
        if lacking := [name for name in names if name not in dataset]:
            raise ValueError(
                f"the regression starts from {names}, and {lacking} are not in the data, {list(dataset.data_vars)}: "
                "score a forecast of all of them, or fit the regression on fewer"
            )
        inside = _prepared(dataset, names, self.patterns)
        last = persistence(inside, init_times, lead_times)
        patterns = on_grid_of(self.patterns, inside, "the regression")
        scale = self.scale
        if "level" in scale.dims:
            scale = scale.sel(level=inside["level"], method="nearest")
        scale = scale.assign_coords({name: inside[name] for name in scale.dims})
        state = last.isel(lead_time=0, drop=True).drop_vars("valid_time", errors="ignore")
        climatology = on_grid_of(self.climatology[names], inside, "the climatology of the baseline")
        now = _plain(climatology_at(climatology, last["init_time"]))
        then = _plain(climatology_at(climatology, last["valid_time"]))
        normed = ((state - now) / scale).fillna(0)  # masked cells are no part of the state
        start = sum(
            xr.dot(normed[name], patterns[name], dim=[d for d in patterns[name].dims if d != "mode"]) for name in names
        )
        operator = _at_leads(self.operator.to_dataset(name="operator"), last["lead_time"])["operator"]
        found = xr.dot(start.rename(mode="start"), operator, dim="start")
        anomaly = xr.Dataset({name: xr.dot(found, patterns[name], dim="mode") for name in names}) * scale
        return _finished(then + anomaly, last, dataset, "linear regression")


def fit_damped_persistence(
    train: xr.Dataset, climatology: xr.Dataset, lead_times: xr.DataArray | Iterable | str
) -> DampedPersistence:
    """Return damped anomaly persistence, its damping the regression of the later anomaly on the first one.

    <a(t) a(t + lead)> / <a(t)^2> over the training times for each cell, kept between 0 and 1.

    Parameters
    ----------
    train
        The training period, with a dimension `time`; read in blocks.
    climatology
        Of the same period, as `climatology` gives it.
    lead_times
        As for `persistence`: those that will be forecast.

    Raises
    ------
    ValueError
        If a lead is longer than the period, or the climatology does not fit.
    """
    train, climatology = _inside(train, climatology)
    lead_time = as_lead_time(lead_times)
    products, squares, seen = {}, {}, {}
    for _, anomalies, later in _anomalies(train, climatology, lead_time):
        for name, values in anomalies.items():
            there = np.isfinite(values)
            complete = bool(there.all())
            seen[name] = seen.get(name, False) | there.any(axis=0)
            values = values if complete else np.where(there, values, 0)
            for at, (first, second) in enumerate(later):
                shape = (lead_time.size, *values.shape[1:])
                product = products.setdefault(name, np.zeros(shape))
                square = squares.setdefault(name, np.zeros(shape))
                start = values[first]
                product[at] += np.einsum("t...,t...->...", start, values[second])
                start = start if complete else start * there[second]
                square[at] += np.einsum("t...,t...->...", start, start)
    damping = {}
    for name, product in products.items():
        known = squares[name] > 0
        factor = np.clip(product / np.where(known, squares[name], 1), 0, 1)
        # an anomaly that is always zero stays so; a cell that never has a value has none
        factor = np.where(seen[name], np.where(known, factor, 0), np.nan)
        units = {"units": train[name].attrs.get("units", "")}
        damping[name] = (("lead_time", *train[name].dims[1:]), factor, units)
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims} | {"lead_time": lead_time}
    return DampedPersistence(climatology, xr.Dataset(damping, coordinates, _period(train)))


def fit_linear_regression(
    train: xr.Dataset,
    climatology: xr.Dataset,
    lead_times: xr.DataArray | Iterable | str,
    *,
    modes: int | None = None,
    ridge: float | None = None,
) -> LinearRegression:
    """Return the linear regression of the state at each lead on the state at the start, in leading EOFs.

    The state holds the anomalies of all variables and levels, each in units of its standard deviation and weighted by
    area. A linear inverse model (Penland and Sardeshmukh 1995) would derive all leads from one; here each has its own
    operator, fitted by ridge regression, and so is at least as hard to beat.

    Parameters
    ----------
    train, climatology, lead_times
        As for `fit_damped_persistence`.
    modes
        Number of empirical orthogonal functions. None: for each lead that of 50, 100, 200 and 400 with which what is
        fitted on the first three quarters of the period is best on the last one.
    ridge
        Added to the variance of every coefficient, as a share of the mean variance of the coefficients. None: chosen
        likewise, of 0.03, 0.1, 0.3 and 1.

    Raises
    ------
    ValueError
        If a lead is longer than the period, there are fewer times than modes, or the climatology does not fit.
    """
    train, climatology = _inside(train, climatology)
    lead_time = as_lead_time(lead_times)
    times = train.sizes["time"]
    if modes is not None and not 1 <= modes < times:
        raise ValueError(f"modes={modes} must be at least 1, and less than the number of times, {times}")
    if ridge is not None and ridge < 0:
        raise ValueError(f"ridge={ridge} must be 0 or more")
    names = list(train.data_vars)
    cells = sum(train[name].isel(time=0).size for name in names)
    most = max(1, min(times // 4, cells))
    counts = sorted({min(count, most) for count in _MODES}) if modes is None else [modes]
    ridges = _RIDGES if ridge is None else [ridge]
    modes = counts[-1]
    every = max(1, -(-train.sizes["time"] // max(min(1500, _EOF_BYTES // (8 * cells)), modes + 1)))
    sample = train.isel(time=slice(None, None, every)).load()
    sample = sample - _plain(climatology_at(climatology, sample["time"])).assign_coords(_grid_of(sample))
    weight = latitude_weights(train["latitude"])
    over = ("time", *_SPACE)
    scale = np.sqrt((sample**2).weighted(weight).mean(over)) / np.sqrt(weight)
    vectors = np.concatenate([_flat((sample[name] / scale[name]).transpose("time", ...)) for name in names], axis=1)
    # from the smaller of both products: there are fewer times than cells
    power, left = np.linalg.eigh(vectors @ vectors.T)
    power, left = power[::-1][:modes], left[:, ::-1][:, :modes]
    basis = (left.T @ vectors) / np.sqrt(np.maximum(power, 1e-12 * power[0]))[:, np.newaxis]
    patterns, start = {}, 0
    for name in names:
        dims = [dim for dim in train[name].dims if dim != "time"]
        shape = tuple(train.sizes[dim] for dim in dims)
        part = basis[:, start : start + int(np.prod(shape))].reshape(modes, *shape)
        patterns[name] = (("mode", *dims), part, {"units": train[name].attrs.get("units", "")})
        start += int(np.prod(shape))
    covariance = np.zeros((2, lead_time.size, modes, modes))  # of the first part of the period, and of the rest
    lagged = np.zeros_like(covariance)
    rest = times * 3 // 4
    for begin, anomalies, later in _anomalies(train, climatology, lead_time):
        parts = [
            np.nan_to_num((values / _along(scale[name], train[name])).reshape(len(values), -1))
            for name, values in anomalies.items()
        ]
        coefficients = np.concatenate(parts, axis=1) @ basis.T
        for at, (first, second) in enumerate(later):
            start, end = coefficients[first], coefficients[second]
            held = int(np.searchsorted(begin + np.arange(len(coefficients))[first], rest))
            for part, own in enumerate((slice(0, held), slice(held, None))):
                covariance[part, at] += start[own].T @ start[own]
                lagged[part, at] += start[own].T @ end[own]
    operator = np.zeros((lead_time.size, modes, modes))
    for at in range(lead_time.size):
        choices = [(count, share) for count in counts for share in ridges]
        if len(choices) > 1:
            errors = [_held_out_error(covariance[:, at], lagged[:, at], *choice) for choice in choices]
            choices = [choices[int(np.argmin(errors))]]
        ((count, share),) = choices
        operator[at, :, :count] = _regression(covariance[:, at].sum(axis=0), lagged[:, at].sum(axis=0), count, share).T
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims}
    return LinearRegression(
        climatology,
        scale.drop_vars([name for name in scale.coords if name not in ("latitude", "level")]),
        xr.Dataset(patterns, coordinates, _period(train)),
        xr.DataArray(operator, dims=("lead_time", "mode", "start"), coords={"lead_time": lead_time}),
    )


def _regression(covariance: np.ndarray, lagged: np.ndarray, count: int, ridge: float) -> np.ndarray:
    """Return what makes all coefficients at the lead from the leading ones at the start, (count, all)."""
    own = covariance[:count, :count]
    return np.linalg.solve(own + ridge * np.trace(own) / count * np.eye(count), lagged[:count])


def _held_out_error(covariance: np.ndarray, lagged: np.ndarray, count: int, ridge: float) -> float:
    """Return the squared error on the second part of what is fitted on the first, less what no choice changes."""
    made = _regression(covariance[0], lagged[0], count, ridge)
    return float(np.sum(made * (covariance[1, :count, :count] @ made - 2 * lagged[1, :count])))


def _period(train: xr.Dataset) -> dict[str, str]:
    return {"fitted_start": iso(train["time"].values.min()), "fitted_end": iso(train["time"].values.max())}


def _along(scale: xr.DataArray, like: xr.DataArray) -> np.ndarray:
    """Return the scale with an axis for each dimension of the data but time."""
    dims = [dim for dim in like.dims if dim != "time"]
    return scale.expand_dims([dim for dim in dims if dim not in scale.dims]).transpose(*dims).values


def _flat(values: xr.DataArray) -> np.ndarray:
    return np.nan_to_num(values.values.reshape(values.shape[0], -1))


def _inside(train: xr.Dataset, climatology: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return both on the canonical grid, with the variables of the climatology."""
    names = [name for name in climatology.data_vars if name in train]
    if not names:
        raise ValueError(
            f"train has {list(train.data_vars)} and the climatology {list(climatology.data_vars)}: none in common. "
            "Give climatology(train)"
        )
    train = orient(rename(train, names).reset_coords(drop=True))
    climatology = on_grid_of(climatology, train, "the climatology").load()
    if not train.indexes["time"].is_unique:
        raise ValueError("train has a time twice: keep one, train.drop_duplicates('time')")
    return train.transpose("time", "level", *_SPACE, missing_dims="ignore"), climatology


def _anomalies(train: xr.Dataset, climatology: xr.Dataset, lead_time: xr.DataArray) -> Iterator[tuple[int, dict, list]]:
    """Yield blocks: where one begins, anomalies by variable (time, ...), and for each lead which start and verify."""
    index = train.indexes["time"]
    after = valid_times(train["time"].rename(time="init_time"), lead_time, known=index)
    later = index.get_indexer(after.values.ravel()).reshape(after.shape)
    counts = (later >= 0).sum(axis=0)
    if (counts == 0).any():
        lead = lead_time.values[np.argmax(counts == 0)]
        raise ValueError(
            f"the lead {lead} has no pair of times in the training period, {index[0]} to {index[-1]}: it is "
            "too long, or no multiple of the step"
        )
    largest = max(train.data_vars, key=lambda name: train[name].nbytes)
    for block in time_blocks(train[largest]):
        stop = max(block.stop, int(later[block].max()) + 1)
        part = train.isel(time=slice(block.start, stop)).load()
        mean = _plain(climatology_at(climatology, part["time"])).assign_coords(_grid_of(part))
        values = {name: (part[name] - mean[name]).transpose(*train[name].dims).values for name in train.data_vars}
        pairs = []
        for column in range(lead_time.size):
            second = later[block, column]
            first = np.flatnonzero(second >= 0)
            pairs.append((_as_slice(first), _as_slice(second[first] - block.start)))
        yield block.start, values, pairs


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Return neighbors as a slice, which numpy does not copy."""
    whole = len(positions) and positions[-1] - positions[0] + 1 == len(positions) and (np.diff(positions) == 1).all()
    return slice(int(positions[0]), int(positions[-1]) + 1) if whole else positions


def _prepared(dataset: xr.Dataset, names: list[str], fitted: xr.Dataset) -> xr.Dataset:
    """Return a dataset on the canonical grid, after checking that it is the one of the fit."""
    has_levels = any("level" in fitted[name].dims for name in names)
    levels = fitted["level"].values if has_levels else None
    if has_levels and (axis := find_axes(dataset).level) in dataset.dims:
        own = level_values(dataset[axis].variable)
        levels = [level for level in own if np.abs(levels - level).min() < 1e-3]  # some of them will do
    inside = orient(rename(dataset, names, levels).reset_coords(drop=True))
    try:
        same_grid(fitted, inside)
    except ValueError as error:
        raise ValueError(f"the data are on another grid than the baseline was fitted on: {error}") from error
    for name in names:
        units, trained = inside[name].attrs.get("units"), fitted[name].attrs.get("units")
        if units and trained and not same_units(units, trained):
            raise ValueError(f"{name} is in {units!r}, and the baseline was fitted in {trained!r}: convert one")
    return inside


def _grid_of(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    return {name: dataset[name] for name in (*_SPACE, "level") if name in dataset.dims}


def _plain(climatology: xr.Dataset) -> xr.Dataset:
    """Return a climatology at some times without the labels that it was looked up by."""
    return climatology.drop_vars([name for name in climatology.coords if name not in climatology.dims])


def _at_leads(fitted: xr.Dataset, lead_time: xr.DataArray) -> xr.Dataset:
    leads = fitted.indexes["lead_time"]
    found = leads.get_indexer(lead_time.to_index())
    if (found < 0).any():
        raise ValueError(
            f"nothing was fitted for the lead {lead_time.to_index()[found < 0][0]}: fit the baseline with this lead, "
            f"it has {len(leads)} from {leads[0]} to {leads[-1]}"
        )
    return fitted.isel(lead_time=found).assign_coords(lead_time=lead_time)


def _finished(forecast: xr.Dataset, last: xr.Dataset, dataset: xr.Dataset, system: str) -> xr.Dataset:
    """Return a forecast with dimensions and attributes of persistence, laid out as the data handed in."""
    for name in forecast.data_vars:
        forecast[name] = forecast[name].transpose(*last[name].dims).assign_attrs(last[name].attrs)
    forecast = forecast.assign_coords(valid_time=last["valid_time"]).assign_attrs(last.attrs, system=system)
    return restore(forecast, like=dataset)
