"""Leading EOFs and climate indices of monthly anomalies."""

import importlib.util
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.variables import lookup
from simvp_climate.metrics.climate.statistics import join_all
from simvp_climate.metrics.climate.sums import Grid, Sums
from simvp_climate.metrics.indices import Index, fit_nao, fit_nino34, fit_sam

_MODES = 3
_MIN_MONTHS = 24
_INDICES: dict[str, dict[str, Callable[..., Index]]] = {
    "sst": {"nino34": fit_nino34}, "msl": {"nao": fit_nao, "sam": fit_sam}, "z": {"nao": fit_nao, "sam": fit_sam},
    "gh": {"nao": fit_nao, "sam": fit_sam},
}  # fmt: skip


def monthly_anomalies(sums: Sums, first_month: int = 0) -> np.ndarray:
    """Return monthly means less the mean of their calendar month, (month, member, level, latitude, longitude).

    They are in the order of time if `first_month`, 0 to 11, is that in which the years of the sums begin.
    """
    means = sums.total / sums.days.reshape(*sums.days.shape, 1, 1, 1, 1)
    return np.roll(means - means.mean(0), -first_month, axis=1).reshape(-1, *means.shape[2:])


def eof_statistics(run: Sums, truth: Sums, grid: Grid, notes: list[str]) -> dict[str, np.ndarray]:
    """Return the explained variance and pattern correlation of the leading EOFs; nothing, and a note, without xeofs."""
    if importlib.util.find_spec("xeofs") is None:
        notes.append('no EOFs: xeofs is not installed, pip install "simvp-climate[indices]"')
        return {}
    normal, anomalies = monthly_anomalies(truth), monthly_anomalies(run)
    shares = np.full((2, anomalies.shape[1] + 1, anomalies.shape[2], _MODES), np.nan)
    true_shares = np.full((2, 1, anomalies.shape[2], _MODES), np.nan)
    for level in range(anomalies.shape[2]):
        weights = np.sqrt(grid.weights[level])
        patterns, true_shares[0, 0, level] = _eofs(normal[:, 0, level], weights)
        # the halves have no months in common
        half = len(truth.count) // 2 * 12
        if half >= _MIN_MONTHS:
            first, second = (_eofs(part[:, 0, level], weights)[0] for part in (normal[:half], normal[-half:]))
            true_shares[1, 0, level] = np.abs((first * second).sum(1))
        together = anomalies.reshape(-1, *anomalies.shape[2:])[:, level]
        for place, series in enumerate([together, *np.moveaxis(anomalies[:, :, level], 1, 0)]):
            if place == 1 and anomalies.shape[1] == 1:
                break
            others, shares[0, place, level] = _eofs(series, weights)
            shares[1, place, level] = np.abs((patterns * others).sum(1))
    shares = shares[:, :1] if anomalies.shape[1] == 1 else shares
    names = ("eof_variance", "eof_correlation")
    return dict(zip(names, shares, strict=True)) | dict(zip([f"{n}_truth" for n in names], true_shares, strict=True))


def _eofs(anomalies: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted patterns of the leading EOFs, of length 1, (mode, cell), and their explained variance."""
    from xeofs.single import EOF

    cells = weights > 0
    field = xr.DataArray(anomalies[:, cells] * weights[cells], dims=("time", "cell"))
    coords = {dim: np.arange(size) for dim, size in field.sizes.items()}
    model = EOF(n_modes=_MODES, center=True, use_coslat=False, random_state=0)
    with warnings.catch_warnings():  # xeofs 3.0 uses what newer versions of xarray will drop
        warnings.simplefilter("ignore", FutureWarning)
        model.fit(field.assign_coords(coords), dim="time")
        patterns = model.components().transpose("mode", "cell").values
        return patterns, model.explained_variance_ratio().values


def index_statistics(
    run: Sums, truth: Sums, first_months: tuple[int, int], grid: Grid, like: xr.DataArray, notes: list[str]
) -> dict[str, np.ndarray]:
    """Return the ratio of standard deviations and the autocorrelations of the indices that a variable has.

    `first_months` are the calendar months, 0 to 11, in which the years of run and truth begin.
    """
    known = lookup(str(like.name))
    if known is None or known[0].short_name not in _INDICES:
        return {}
    on_levels, level = known[0].on_levels, 0
    if on_levels and known[1] != 500:
        positions = np.flatnonzero(like["level"].values == 500) if "level" in like.dims else []
        if not len(positions):
            return {}
        level = int(positions[0])
    result = {}
    anomalies = monthly_anomalies(run, first_months[0])[:, :, level]
    normal = monthly_anomalies(truth, first_months[1])[:, :, level]
    for name, fit in _INDICES[known[0].short_name].items():
        try:
            index = fit(_months(normal[:, 0], grid.weights[level], like), variable=str(like.name))
        except ValueError as error:
            notes.append(f"no {name} of {like.name}: {error}")
            continue
        series = [index(_months(values, grid.weights[level], like))[name].values for values in _members(anomalies)]
        true_series = index(_months(normal[:, 0], grid.weights[level], like))[name].values
        ratios, memories = np.array([each.std() for each in series]), np.array([_autocorrelation(x) for x in series])
        ratios = join_all(ratios, np.sqrt((ratios**2).mean(keepdims=True))) / true_series.std()
        values = {"std_ratio": ratios, "autocorrelation": join_all(memories, memories.mean(keepdims=True))}
        values["autocorrelation_truth"] = np.array([_autocorrelation(true_series)])
        shape = like.sizes.get("level", 1)
        for key, each in values.items():
            filled = np.full((len(each), shape), np.nan)
            filled[:, level] = each
            result[f"{name}_{key}"] = filled
    return result


def _members(anomalies: np.ndarray) -> Iterator[np.ndarray]:
    return (anomalies[:, member] for member in range(anomalies.shape[1]))


def _months(values: np.ndarray, weights: np.ndarray, like: xr.DataArray) -> xr.Dataset:
    """Return anomalies as a Dataset with successive months."""
    time = pd.date_range("2001-01-01", periods=len(values), freq="MS", unit="ns")
    coords = {"time": time, "latitude": like["latitude"], "longitude": like["longitude"]}
    attrs = {"units": like.attrs.get("units", "")}
    data = np.where(weights > 0, values, np.nan)
    return xr.Dataset({str(like.name): (("time", "latitude", "longitude"), data, attrs)}, coords)


def _autocorrelation(series: np.ndarray) -> float:
    """Return the correlation of successive values."""
    anomaly = series - series.mean()
    return float((anomaly[1:] * anomaly[:-1]).sum() / (anomaly**2).sum())
