"""Linear regression in leading EOFs: a baseline that is harder to beat than persistence."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.baselines.anomalies import (
    canonical_training,
    finish_forecast,
    fitted_period,
    grid_coordinates,
    lagged_anomalies,
    select_leads,
    start_forecast,
)
from simvp_climate.metrics.baselines.climatologies import normals_at
from simvp_climate.metrics.baselines.simple_persistence import Times, as_lead_time
from simvp_climate.metrics.pairs import on_grid_of
from simvp_climate.metrics.regions import SPACE

# Candidates for the number of EOFs and for the ridge.
_MODES, _RIDGES = (50, 100, 200, 400), (0.03, 0.1, 0.3, 1.0)
# float64 bytes and number of the states from which the EOFs are computed
_EOF_BYTES, _EOF_STATES = 2**29, 1500


@dataclass(frozen=True, eq=False)
class LinearRegression:
    """Forecast the anomalies of all variables at a lead as a linear function of those at the start, in leading EOFs.

    `fit_linear_regression` makes one. Call it like `persistence`, or pass it to `score` among the baselines.

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
        """Return the forecast; arguments, result and errors as in `persistence`.

        Also raises ValueError for a lead that was not fitted, or another grid.
        """
        names = list(self.patterns.data_vars)
        if lacking := [name for name in names if name not in dataset]:
            raise ValueError(
                f"the regression starts from {names}, and {lacking} are not in the data, {list(dataset.data_vars)}: "
                "score a forecast of all of them, or fit the regression on fewer"
            )
        canonical, last, normal_at_init, normal_at_valid = start_forecast(
            dataset, self.patterns, self.climatology, init_times, lead_times
        )
        patterns = on_grid_of(self.patterns, last, "the regression")
        scale = self.scale
        if "level" in scale.dims:
            scale = scale.sel(level=last["level"], method="nearest")
        scale = scale.assign_coords({name: last[name] for name in scale.dims})
        # project the anomalies on the EOFs, step from start to lead, and back to anomalies
        state = last.isel(lead_time=0, drop=True).drop_vars("valid_time", errors="ignore")
        normalized = ((state - normal_at_init) / scale).fillna(0)  # masked cells count as climatology
        coefficients = sum(
            xr.dot(normalized[name], patterns[name], dim=[d for d in patterns[name].dims if d != "mode"])
            for name in names
        )
        operator = select_leads(self.operator.to_dataset(name="operator"), last["lead_time"])["operator"]
        coefficients = xr.dot(coefficients.rename(mode="start"), operator, dim="start")
        anomaly = xr.Dataset({name: xr.dot(coefficients, patterns[name], dim="mode") for name in names}) * scale
        return finish_forecast(normal_at_valid + anomaly, last, canonical, "linear regression")


def fit_linear_regression(
    train: xr.Dataset,
    climatology: xr.Dataset,
    lead_times: Times,
    *,
    modes: int | None = None,
    ridge: float | None = None,
) -> LinearRegression:
    """Return the linear regression of the state at each lead on the state at the start, in leading EOFs.

    The state holds the anomalies of all variables and levels, each divided by its standard deviation and weighted by
    area. A linear inverse model (Penland and Sardeshmukh 1995) derives all leads from one operator; here each lead has
    its own, fitted by ridge regression, and so is at least as hard to beat.

    Parameters
    ----------
    train, climatology, lead_times
        As for `fit_damped_persistence`.
    modes
        Number of empirical orthogonal functions. None: chosen for each lead from 50, 100, 200 and 400, by the error on
        the last quarter of the period of fits on the first three quarters.
    ridge
        Added to the variance of every coefficient, as a fraction of the mean variance of the coefficients. None: chosen
        in the same way from 0.03, 0.1, 0.3 and 1.

    Raises
    ------
    ValueError
        If a lead is longer than the period, there are fewer times than modes, or the climatology does not fit.
    """
    train, climatology = canonical_training(train, climatology)
    lead_time = as_lead_time(lead_times)
    times = train.sizes["time"]
    if modes is not None and not 1 <= modes < times:
        raise ValueError(f"modes={modes} must be at least 1 and less than the number of times, {times}")
    if ridge is not None and ridge < 0:
        raise ValueError(f"ridge={ridge} must not be negative")
    limit = max(1, min(times // 4, _count_cells(train)))
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


def _count_cells(train: xr.Dataset) -> int:
    """Return the length of the state vector: cells and levels of all variables."""
    return sum(train[name].isel(time=0).size for name in train.data_vars)


def _leading_eofs(train: xr.Dataset, climatology: xr.Dataset, modes: int) -> tuple[xr.Dataset, np.ndarray]:
    """Return the unit of the state vector, ([level,] latitude) by variable, and the leading EOFs, (mode, cell)."""
    names = list(train.data_vars)
    states = max(min(_EOF_STATES, _EOF_BYTES // (8 * _count_cells(train))), modes + 1)
    every = max(1, -(-train.sizes["time"] // states))
    sample = train.isel(time=slice(None, None, every)).load()
    sample = sample - normals_at(climatology, sample["time"]).assign_coords(grid_coordinates(sample))
    weight = latitude_weights(train["latitude"])
    # anomaly / scale has variance 1 in the area mean, and each cell counts by its area
    scale: xr.Dataset = np.sqrt((sample**2).weighted(weight).mean(("time", *SPACE))) / np.sqrt(weight)
    vectors = np.concatenate([_flatten((sample[name] / scale[name]).transpose("time", ...)) for name in names], axis=1)
    # There are fewer times than cells, so the EOFs follow from the eigenvectors of the smaller matrix X X^T.
    variance, left = np.linalg.eigh(vectors @ vectors.T)
    variance, left = variance[::-1][:modes], left[:, ::-1][:, :modes]
    return scale, (left.T @ vectors) / np.sqrt(np.maximum(variance, 1e-12 * variance[0]))[:, np.newaxis]


def _as_patterns(eofs: np.ndarray, train: xr.Dataset) -> xr.Dataset:
    """Return EOFs, (mode, cell), as variables on the grid, (mode, [level,] latitude, longitude)."""
    patterns, first = {}, 0
    for name in train.data_vars:
        dims = [dim for dim in train[name].dims if dim != "time"]
        shape = tuple(train.sizes[dim] for dim in dims)
        last = first + int(np.prod(shape))
        values = eofs[:, first:last].reshape(len(eofs), *shape)
        patterns[name] = (("mode", *dims), values, {"units": train[name].attrs.get("units", "")})
        first = last
    coordinates = {name: c for name, c in train.coords.items() if "time" not in c.dims}
    return xr.Dataset(patterns, coordinates, fitted_period(train))


def _covariances(
    train: xr.Dataset, climatology: xr.Dataset, lead_time: xr.DataArray, scale: xr.Dataset, eofs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return <x(t) x(t)^T> and <x(t) x(t + lead)^T> of the EOF coefficients x, as sums, (split, lead, mode, mode).

    Split 0 is the first three quarters of the period, split 1 the last quarter.
    """
    covariance = np.zeros((2, lead_time.size, len(eofs), len(eofs)))
    lagged = np.zeros_like(covariance)
    boundary = train.sizes["time"] * 3 // 4
    for first, anomalies, pairs in lagged_anomalies(train, climatology, lead_time):
        vectors = [
            np.nan_to_num((values / _expand_scale(scale[name], train[name])).reshape(len(values), -1))
            for name, values in anomalies.items()
        ]
        coefficients = np.concatenate(vectors, axis=1) @ eofs.T
        for lead, (starts, ends) in enumerate(pairs):
            start, end = coefficients[starts], coefficients[ends]
            divide = int(np.searchsorted(first + np.arange(len(coefficients))[starts], boundary))
            for split, rows in enumerate((slice(0, divide), slice(divide, None))):
                covariance[split, lead] += start[rows].T @ start[rows]
                lagged[split, lead] += start[rows].T @ end[rows]
    return covariance, lagged


def _ridge_regression(covariance: np.ndarray, lagged: np.ndarray, count: int, ridge: float) -> np.ndarray:
    """Return the matrix from the `count` leading coefficients at the start to all at the lead, (count, mode)."""
    leading = covariance[:count, :count]
    return np.linalg.solve(leading + ridge * np.trace(leading) / count * np.eye(count), lagged[:count])


def _held_out_error(covariance: np.ndarray, lagged: np.ndarray, count: int, ridge: float) -> float:
    """Return the squared error on split 1 of a fit on split 0, up to a constant that all candidates share.

    |y - x B|^2 = |y|^2 + trace(B^T (C B - 2 L)), C = x^T x, L = x^T y; the first term is left out.
    """
    matrix = _ridge_regression(covariance[0], lagged[0], count, ridge)
    return float(np.sum(matrix * (covariance[1, :count, :count] @ matrix - 2 * lagged[1, :count])))


def _expand_scale(scale: xr.DataArray, like: xr.DataArray) -> np.ndarray:
    """Return the scale with one axis for each dimension of `like` but time."""
    dims = [dim for dim in like.dims if dim != "time"]
    return scale.expand_dims([dim for dim in dims if dim not in scale.dims]).transpose(*dims).values


def _flatten(values: xr.DataArray) -> np.ndarray:
    """Return values as (time, cell), missing ones as 0."""
    return np.nan_to_num(values.values.reshape(values.shape[0], -1))
