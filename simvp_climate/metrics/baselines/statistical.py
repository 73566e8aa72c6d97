"""Baselines fitted on training data: damped persistence, and linear regression in leading EOFs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import canonicalize
from simvp_climate.data.grid import find_axes, latitude_weights
from simvp_climate.data.windows import lead_text, valid_times
from simvp_climate.metrics.baselines.climatologies import normals_at, time_blocks
from simvp_climate.metrics.baselines.simple_persistence import Times, as_lead_time, persistence
from simvp_climate.metrics.pairs import align_fit, period
from simvp_climate.metrics.regions import SPACE

# Candidates for the number of EOFs and for the ridge.
_MODES, _RIDGES = (50, 100, 200, 400), (0.03, 0.1, 0.3, 1.0)
# float64 bytes and number of the states from which the EOFs are computed
_EOF_BYTES, _EOF_STATES = 2**29, 1500


@dataclass(frozen=True, eq=False)
class AnomalyPersistence:
    """Forecast climatology(valid_time) + state - climatology(init_time).

    Harder to beat than `persistence` wherever a season or the time of day changes within the lead. `score` adds it by
    itself where there is a climatology. Call it like `persistence`, or pass it to `score` among the baselines.

    Attributes
    ----------
    climatology
        As from `climatology` or `Forecaster.climatology`; anomalies are differences from it.
    """

    climatology: xr.Dataset

    def __call__(self, dataset: xr.Dataset, init_times: Times, lead_times: Times) -> xr.Dataset:
        """Return the forecast, as `persistence` does; ValueError also for another grid."""
        names = [name for name in self.climatology.data_vars if name in dataset] or list(self.climatology.data_vars)
        fitted = canonicalize(self.climatology[names]).dataset  # levels in hPa
        return _forecast("anomaly persistence", None, fitted, fitted, dataset, init_times, lead_times)


@dataclass(frozen=True, eq=False)
class DampedPersistence:
    """Forecast climatology(valid_time) + damping * (state - climatology(init_time)).

    Returned by `fit_damped_persistence`. Call it like `persistence`, or pass it to `score` among the baselines.

    Attributes
    ----------
    climatology
        Anomalies are differences from it.
    damping
        Factor for each lead and cell, from 0 to 1, dims (lead_time, [level,] latitude, longitude).
    """

    climatology: xr.Dataset
    damping: xr.Dataset

    def __call__(self, dataset: xr.Dataset, init_times: Times, lead_times: Times) -> xr.Dataset:
        """Return the forecast, as `persistence` does; ValueError also for another grid or a lead without a fit."""
        names = [name for name in self.damping.data_vars if name in dataset] or list(self.damping.data_vars)
        damping = self.damping[names]

        def damp(anomaly: xr.Dataset, persisted: xr.Dataset) -> xr.Dataset:
            return select_leads(align_fit(persisted, damping, "the damping"), persisted["lead_time"]) * anomaly

        return _forecast("damped persistence", damp, damping, self.climatology, dataset, init_times, lead_times)


@dataclass(frozen=True, eq=False)
class LinearRegression:
    """Forecast the anomalies of all variables at a lead as a linear function of those at the start, in leading EOFs.

    Returned by `fit_linear_regression`. Call it like `persistence`, or pass it to `score` among the baselines.

    Attributes
    ----------
    climatology
        Anomalies are differences from it.
    scale
        Unit of the state vector for each variable, level and latitude, dims ([level,] latitude).
    patterns
        The empirical orthogonal functions in units of `scale`, dims (mode, [level,] latitude, longitude).
    operator
        From the coefficients at the start to those at the lead, dims (lead_time, mode, start).
    """

    climatology: xr.Dataset
    scale: xr.Dataset
    patterns: xr.Dataset
    operator: xr.DataArray

    def __call__(self, dataset: xr.Dataset, init_times: Times, lead_times: Times) -> xr.Dataset:
        """Return the forecast, as `DampedPersistence` does; ValueError also if a variable of the state is missing."""
        names = list(self.patterns.data_vars)
        if lacking := [name for name in names if name not in dataset]:
            raise ValueError(
                f"the regression starts from {names}, and {lacking} are not in the data, {list(dataset.data_vars)}: "
                "score a forecast of all of them, or fit the regression on fewer"
            )
        fit = self.patterns, self.climatology
        return _forecast("linear regression", self._step, *fit, dataset, init_times, lead_times)

    def _step(self, anomaly: xr.Dataset, persisted: xr.Dataset) -> xr.Dataset:
        """Return the anomalies at all leads: project on the EOFs, apply the operators, and add up the EOFs."""
        patterns = align_fit(persisted, self.patterns, "the regression")
        scale = self.scale
        if "level" in scale.dims:
            scale = scale.sel(level=persisted["level"], method="nearest")
        scale = scale.assign_coords({name: persisted[name] for name in scale.dims})
        normalized = (anomaly / scale).fillna(0)  # masked cells count as climatology
        coefficients = sum(
            xr.dot(normalized[name], pattern, dim=[dim for dim in pattern.dims if dim != "mode"])
            for name, pattern in patterns.data_vars.items()
        )
        operator = select_leads(self.operator.to_dataset(name="operator"), persisted["lead_time"])["operator"]
        coefficients = xr.dot(coefficients.rename(mode="start"), operator, dim="start")
        return xr.Dataset({name: xr.dot(coefficients, patterns[name], dim="mode") for name in patterns}) * scale


def _forecast(
    system: str, step: Callable[[xr.Dataset, xr.Dataset], xr.Dataset] | None, fitted: xr.Dataset,
    climatology: xr.Dataset, dataset: xr.Dataset, init_times: Times, lead_times: Times,
) -> xr.Dataset:  # fmt: skip
    """Return climatology(valid_time) + step(anomaly at the init time, persistence), laid out like the dataset.

    Without `step` the anomaly stays the same.
    """
    names = list(fitted.data_vars)
    levels = fitted["level"].values if any("level" in fitted[name].dims for name in names) else None
    if levels is not None and (available := find_axes(dataset).levels) is not None:
        # the data may have some of the fitted levels only
        levels = [level for level in available.values if np.abs(levels - level).min() < 1e-3]
    canonical = canonicalize(dataset, names, levels)
    states = canonical.dataset.reset_coords(drop=True)
    persisted = persistence(states, init_times, lead_times)
    climatology = align_fit(states, climatology[names], "the climatology of the baseline")
    state = persisted.isel(lead_time=0, drop=True).drop_vars("valid_time")
    before, after = (normals_at(climatology, persisted[name]) for name in ("init_time", "valid_time"))
    # in this order a climatology that does not change leaves the state as it is, to the last bit
    forecast = state + (after - before) if step is None else after + step(state - before, persisted)
    for name in names:
        forecast[name] = forecast[name].transpose(*persisted[name].dims).assign_attrs(persisted[name].attrs)
    forecast = forecast.assign_coords(valid_time=persisted["valid_time"])
    return canonical.restore(forecast.assign_attrs(persisted.attrs, system=system))


def fit_damped_persistence(train: xr.Dataset, climatology: xr.Dataset, lead_times: Times) -> DampedPersistence:
    """Return damped anomaly persistence, fitted by regression for each cell and lead.

    The damping is the regression coefficient of the later anomaly on the first one, <a(t) a(t + lead)> / <a(t)^2> over
    the training times, clipped to 0..1. ValueError if a lead exceeds the period, or the climatology does not fit.

    Parameters
    ----------
    train
        The training period, with a dimension `time`; read in blocks.
    climatology
        Of the same period, as from `climatology`.
    lead_times
        All leads to forecast later, as for `persistence`.
    """
    train, climatology = _canonical_training(train, climatology)
    lead_time = as_lead_time(lead_times)
    products, squares, ever_valid = {}, {}, {}  # by variable; the first two (lead_time, ...), the last (...)
    for _, anomalies, pairs in _lagged_anomalies(train, climatology, lead_time):
        for name, values in anomalies.items():
            valid = np.isfinite(values)
            complete = bool(valid.all())
            ever_valid[name] = ever_valid.get(name, False) | valid.any(axis=0)
            values = values if complete else np.where(valid, values, 0)
            shape = (lead_time.size, *values.shape[1:])
            product = products.setdefault(name, np.zeros(shape))
            square = squares.setdefault(name, np.zeros(shape))
            for lead, (starts, ends) in enumerate(pairs):
                start = values[starts]
                product[lead] += np.einsum("t...,t...->...", start, values[ends])
                # both means are over the pairs with both values
                start = start if complete else start * valid[ends]
                square[lead] += np.einsum("t...,t...->...", start, start)
    damping = {}
    for name, product in products.items():
        varies = squares[name] > 0
        factor = np.clip(product / np.where(varies, squares[name], 1), 0, 1)
        # an anomaly that is always zero stays zero; a cell without any value has no damping
        factor = np.where(ever_valid[name], np.where(varies, factor, 0), np.nan)
        units = {"units": train[name].attrs.get("units", "")}
        damping[name] = (("lead_time", *train[name].dims[1:]), factor, units)
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims} | {"lead_time": lead_time}
    return DampedPersistence(climatology, xr.Dataset(damping, coordinates, period("fitted", train["time"].values)))


def fit_linear_regression(
    train: xr.Dataset, climatology: xr.Dataset, lead_times: Times, *, modes: int | None = None,
    ridge: float | None = None,
) -> LinearRegression:  # fmt: skip
    """Return the linear regression of the state at each lead on the state at the start, in leading EOFs.

    The state holds the anomalies of all variables and levels, each divided by its standard deviation and weighted by
    area. A linear inverse model (Penland and Sardeshmukh 1995) derives all leads from one operator. Here ridge
    regression fits an operator for each lead, a baseline that is at least as hard to beat. ValueError as in
    `fit_damped_persistence`, or if there are fewer times than modes.

    Parameters
    ----------
    train, climatology, lead_times
        As for `fit_damped_persistence`.
    modes
        Number of empirical orthogonal functions. None: chosen for each lead from 50, 100, 200 and 400, by fits on the
        first three quarters of the period and their errors on the last quarter.
    ridge
        Added to the variance of every coefficient, as a fraction of the mean variance of the coefficients. None: chosen
        in the same way from 0.03, 0.1, 0.3 and 1.
    """
    train, climatology = _canonical_training(train, climatology)
    lead_time = as_lead_time(lead_times)
    times = train.sizes["time"]
    if modes is not None and not 1 <= modes < times:
        raise ValueError(f"modes={modes} must be at least 1 and less than the number of times, {times}")
    if ridge is not None and ridge < 0:
        raise ValueError(f"ridge={ridge} must not be negative")
    limit = max(1, min(times // 4, _state_size(train)))
    mode_counts = sorted({min(count, limit) for count in _MODES}) if modes is None else [modes]
    ridges = _RIDGES if ridge is None else [ridge]
    scale, eofs = _leading_eofs(train, climatology, mode_counts[-1])
    covariance, lagged = _covariances(train, climatology, lead_time, scale, eofs)
    operator = np.zeros((lead_time.size, len(eofs), len(eofs)))
    for lead in range(lead_time.size):
        candidates = [(count, share) for count in mode_counts for share in ridges]
        if len(candidates) > 1:
            errors = [_held_out_error(covariance[:, lead], lagged[:, lead], *candidate) for candidate in candidates]
            candidates = [candidates[int(np.argmin(errors))]]
        ((count, share),) = candidates
        whole = covariance[:, lead].sum(axis=0), lagged[:, lead].sum(axis=0)
        operator[lead, :, :count] = _ridge_regression(*whole, count, share).T
    return LinearRegression(
        climatology,
        scale.drop_vars([name for name in scale.coords if name not in ("latitude", "level")]),
        _as_patterns(eofs, train),
        xr.DataArray(operator, dims=("lead_time", "mode", "start"), coords={"lead_time": lead_time}),
    )


def _leading_eofs(train: xr.Dataset, climatology: xr.Dataset, modes: int) -> tuple[xr.Dataset, np.ndarray]:
    """Return the scale of the state vector, ([level,] latitude) by variable, and the leading EOFs, (mode, cell)."""
    states = max(min(_EOF_STATES, _EOF_BYTES // (8 * _state_size(train))), modes + 1)
    every = max(1, -(-train.sizes["time"] // states))
    sample = train.isel(time=slice(None, None, every)).load()
    sample = sample - normals_at(climatology, sample["time"])
    weight = latitude_weights(train["latitude"]).drop_attrs(deep=False)  # arithmetic would add them to `scale`
    # anomaly / scale has variance 1 in the area mean, and each cell counts by its area
    scale: xr.Dataset = np.sqrt((sample**2).weighted(weight).mean(("time", *SPACE))) / np.sqrt(weight)
    normalized = [(sample[name] / scale[name]).transpose("time", ...).values for name in train.data_vars]
    vectors = np.concatenate([np.nan_to_num(values.reshape(len(values), -1)) for values in normalized], axis=1)
    # There are fewer times than cells, so the EOFs follow from the eigenvectors of the smaller matrix X X^T.
    variance, left = np.linalg.eigh(vectors @ vectors.T)
    variance, left = variance[::-1][:modes], left[:, ::-1][:, :modes]
    return scale, (left.T @ vectors) / np.sqrt(np.maximum(variance, 1e-12 * variance[0]))[:, np.newaxis]


def _as_patterns(eofs: np.ndarray, train: xr.Dataset) -> xr.Dataset:
    """Return EOFs, (mode, cell), as variables on the grid, (mode, [level,] latitude, longitude)."""
    fields, patterns = train.data_vars.items(), {}
    parts = np.split(eofs, np.cumsum([field[0].size for _, field in fields])[:-1], axis=1)
    for (name, field), part in zip(fields, parts, strict=True):
        values = part.reshape(len(eofs), *field.shape[1:])
        patterns[name] = (("mode", *field.dims[1:]), values, {"units": field.attrs.get("units", "")})
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims}
    return xr.Dataset(patterns, coordinates, period("fitted", train["time"].values))


def _covariances(
    train: xr.Dataset, climatology: xr.Dataset, lead_time: xr.DataArray, scale: xr.Dataset, eofs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return sums <x(t) x(t)^T> and <x(t) x(t + lead)^T> of EOF coefficients x, (split, lead, mode, mode).

    Split 0 is the first three quarters of the period, split 1 the last quarter.
    """
    covariance = np.zeros((2, lead_time.size, len(eofs), len(eofs)))
    lagged = np.zeros_like(covariance)
    boundary = train.sizes["time"] * 3 // 4
    units = {name: scale[name].broadcast_like(field[0]).transpose(*field.dims[1:]) for name, field in train.items()}
    for first, anomalies, pairs in _lagged_anomalies(train, climatology, lead_time):
        vectors = [(values / units[name].values).reshape(len(values), -1) for name, values in anomalies.items()]
        coefficients = np.concatenate([np.nan_to_num(vector) for vector in vectors], axis=1) @ eofs.T
        for lead, (starts, ends) in enumerate(pairs):
            start, end = coefficients[starts], coefficients[ends]
            divide = int(np.searchsorted(first + np.arange(len(coefficients))[starts], boundary))
            for split, rows in enumerate((slice(0, divide), slice(divide, None))):
                covariance[split, lead] += start[rows].T @ start[rows]
                lagged[split, lead] += start[rows].T @ end[rows]
    return covariance, lagged


def _ridge_regression(covariance: np.ndarray, lagged: np.ndarray, count: int, ridge: float) -> np.ndarray:
    """Return the regression of all coefficients at the lead on the `count` leading ones at the start, (count, mode)."""
    leading = covariance[:count, :count]
    return np.linalg.solve(leading + ridge * np.trace(leading) / count * np.eye(count), lagged[:count])


def _held_out_error(covariance: np.ndarray, lagged: np.ndarray, count: int, ridge: float) -> float:
    """Return the squared error on split 1 of a fit on split 0, up to a constant that all candidates share."""
    # |y - x B|^2 = |y|^2 + trace(B^T (C B - 2 L)), C = x^T x, L = x^T y; the first term is the constant
    matrix = _ridge_regression(covariance[0], lagged[0], count, ridge)
    return float(np.sum(matrix * (covariance[1, :count, :count] @ matrix - 2 * lagged[1, :count])))


def _state_size(train: xr.Dataset) -> int:
    """Return the number of cells and levels of all variables."""
    return sum(variable[0].size for variable in train.data_vars.values())


def _canonical_training(train: xr.Dataset, climatology: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return training data and climatology on the canonical grid, with the variables of the climatology."""
    names = [name for name in climatology.data_vars if name in train]
    if not names:
        raise ValueError(
            f"train has {list(train.data_vars)} and the climatology {list(climatology.data_vars)}: they have no "
            "variable in common. Give climatology(train)"
        )
    train = canonicalize(train, names).dataset.reset_coords(drop=True)
    climatology = align_fit(train, climatology, "the climatology").load()
    if not train.indexes["time"].is_unique:
        raise ValueError("train has a time twice: keep one, train.drop_duplicates('time')")
    return train.transpose("time", "level", *SPACE, missing_dims="ignore"), climatology


def _lagged_anomalies(
    train: xr.Dataset, climatology: xr.Dataset, lead_time: xr.DataArray
) -> Iterator[tuple[int, dict[str, np.ndarray], list[tuple]]]:
    """Yield blocks of time: the first position, anomalies (time, ...) by variable, and (starts, ends) of each lead."""
    times = train.indexes["time"]
    verifying = valid_times(train["time"].rename(time="init_time"), lead_time, known=times)
    later = times.get_indexer(verifying.values.ravel()).reshape(verifying.shape)
    counts = (later >= 0).sum(axis=0)
    if (counts == 0).any():
        lead = lead_time.values[np.argmax(counts == 0)]
        lacking = f"no pair of times in the training period, {times[0]} to {times[-1]}"
        raise ValueError(f"the lead {lead_text(lead)} has {lacking}: it is too long, or not a multiple of the step")
    largest = max(train.data_vars, key=lambda name: train[name].nbytes)
    for block in time_blocks(train[largest]):
        stop = max(block.stop, int(later[block].max()) + 1)  # the last starts of the block verify beyond it
        states = train.isel(time=slice(block.start, stop)).load()
        mean = normals_at(climatology, states["time"])
        anomalies = {name: (states[name] - mean[name]).transpose(*train[name].dims).values for name in train.data_vars}
        pairs = []
        for column in range(lead_time.size):
            ends = later[block, column]
            starts = np.flatnonzero(ends >= 0)
            pairs.append((_as_slice(starts), _as_slice(ends[starts] - block.start)))
        yield block.start, anomalies, pairs


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """Return consecutive positions as a slice, which numpy does not copy."""
    consecutive = len(positions) and (np.diff(positions) == 1).all()
    return slice(int(positions[0]), int(positions[-1]) + 1) if consecutive else positions


def select_leads(fitted: xr.Dataset, lead_time: xr.DataArray) -> xr.Dataset:
    """Return a fit at the given leads, or raise ValueError if one was not fitted."""
    leads = fitted.indexes["lead_time"]
    positions = leads.get_indexer(lead_time.to_index())
    if (positions < 0).any():
        raise ValueError(
            f"nothing was fitted for the lead {lead_time.to_index()[positions < 0][0]}, only for {len(leads)} leads "
            f"from {leads[0]} to {leads[-1]}: fit with the leads of the forecast"
        )
    return fitted.isel(lead_time=positions).assign_coords(lead_time=lead_time)
