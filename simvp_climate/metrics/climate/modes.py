"""Leading EOFs and climate indices of monthly anomalies."""

import importlib.util
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.variables import lookup
from simvp_climate.metrics.climate.statistics import block_starts, join_all
from simvp_climate.metrics.climate.sums import Grid, Sums
from simvp_climate.metrics.indices import Index, fit_nao, fit_nino34, fit_sam

_MODES = 3
_EOF_NAMES = ("eof_variance", "eof_correlation")
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
    """Return the explained variance and pattern correlation of the leading EOFs; nothing, and a note, without xeofs.

    Both are means over blocks of as many years as run and truth have: fewer years leave fewer modes more variance.
    """
    if importlib.util.find_spec("xeofs") is None:
        notes.append('no EOFs: xeofs is not installed, pip install "simvp-climate[indices]"')
        return {}
    length = min(len(run.count), len(truth.count))
    halves = [truth.select(slice(None, len(truth.count) // 2)), truth.select(slice(-(len(truth.count) // 2), None))]
    has_halves = 12 * len(halves[0].count) >= _MIN_MONTHS  # they have no months in common
    members, levels = run.total.shape[2:4]
    values, true_values = np.full((2, members, levels, _MODES), np.nan), np.full((2, 1, levels, _MODES), np.nan)
    ranges = np.full((2, 1, levels, _MODES), np.nan)
    for level in range(levels):
        weights = np.sqrt(grid.weights[level])

        def eofs(sums: Sums, member: int = 0, level: int = level, weights: np.ndarray = weights) -> tuple:
            return _eofs(monthly_anomalies(sums)[:, member, level], weights)

        patterns, _ = eofs(truth)
        true_values[0, 0, level] = np.mean([eofs(block)[1] for block in _blocks(truth, length)], 0)
        if has_halves:
            (first, first_share), (second, second_share) = (eofs(half) for half in halves)
            true_values[1, 0, level] = np.abs((first * second).sum(1))
            ranges[:, 0, level] = np.minimum(first_share, second_share), np.maximum(first_share, second_share)
        for member in range(members):
            by_block = [eofs(block, member) for block in _blocks(run, length)]
            values[0, member, level] = np.mean([share for _, share in by_block], 0)
            values[1, member, level] = np.mean([np.abs((patterns * others).sum(1)) for others, _ in by_block], 0)
    result = {name: join_all(each, each.mean(0, keepdims=True)) for name, each in zip(_EOF_NAMES, values, strict=True)}
    result |= {f"{name}_truth": each for name, each in zip(_EOF_NAMES, true_values, strict=True)}
    return result | {f"eof_variance_truth_{end}": each for end, each in zip(("min", "max"), ranges, strict=True)}


def _blocks(sums: Sums, length: int) -> Iterator[Sums]:
    return (sums.select(slice(start, start + length)) for start in block_starts(len(sums.count), length))


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
    result, length = {}, min(len(run.count), len(truth.count))

    def label(anomalies: np.ndarray) -> xr.Dataset:
        return _months(anomalies[:, level], grid.weights[level], like)

    normal = label(monthly_anomalies(truth, first_months[1])[:, 0])
    for name, fit in _INDICES[known[0].short_name].items():
        try:
            index = fit(normal, variable=str(like.name))
        except ValueError as error:
            notes.append(f"no {name} of {like.name}: {error}")
            continue
        series, true_series = (
            _index_series(index, sums, first_month, length, label)
            for sums, first_month in zip((run, truth), first_months, strict=True)
        )
        for key, each in _describe_index(series, true_series).items():
            filled = np.full((len(each), like.sizes.get("level", 1)), np.nan)
            filled[:, level] = each
            result[f"{name}_{key}"] = filled
    return result


def _index_series(
    index: Index, sums: Sums, first_month: int, length: int, label: Callable[[np.ndarray], xr.Dataset]
) -> np.ndarray:
    """Return an index less its mean annual cycle in blocks of years, (member, block, month)."""
    blocks = [monthly_anomalies(block, first_month) for block in _blocks(sums, length)]
    members = range(sums.total.shape[2])
    return np.array([[index(label(block[:, member]))[index.name].values for block in blocks] for member in members])


def _describe_index(series: np.ndarray, true_series: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics of an index (member, block, month), and the range of those of single years of the truth."""
    ratios = series.std(-1) / true_series.std(-1).mean()
    values = {"std_ratio": ratios.mean(1), "autocorrelation": _autocorrelation(series).mean(1)}
    result = {key: join_all(each, each.mean(keepdims=True)) for key, each in values.items()}
    result["autocorrelation_truth"] = _autocorrelation(true_series).mean(1)
    years, variance = true_series[0].reshape(-1, 12), true_series.var()
    of_years = {"std_ratio": np.sqrt((years**2).mean(-1) / variance),
                "autocorrelation": (years[:, 1:] * years[:, :-1]).mean(-1) / variance}  # fmt: skip
    for key, each in of_years.items():
        result |= {f"{key}_truth_min": each.min(keepdims=True), f"{key}_truth_max": each.max(keepdims=True)}
    return result


def _months(values: np.ndarray, weights: np.ndarray, like: xr.DataArray) -> xr.Dataset:
    """Return anomalies as a Dataset with successive months."""
    time = pd.date_range("2001-01-01", periods=len(values), freq="MS", unit="ns")
    coords = {"time": time, "latitude": like["latitude"], "longitude": like["longitude"]}
    attrs = {"units": like.attrs.get("units", "")}
    data = np.where(weights > 0, values, np.nan)
    return xr.Dataset({str(like.name): (("time", "latitude", "longitude"), data, attrs)}, coords)


def _autocorrelation(series: np.ndarray) -> np.ndarray:
    """Return the correlation of successive values along the last axis."""
    anomaly = series - series.mean(-1, keepdims=True)
    return (anomaly[..., 1:] * anomaly[..., :-1]).sum(-1) / (anomaly**2).sum(-1)
