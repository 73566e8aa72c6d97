"""The climate of a long run beside that of the truth, in one Dataset and in a table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.grid import latitude_weights
from simvp_climate.metrics.climate import statistics
from simvp_climate.metrics.climate.labels import band_coordinates, band_edges, label
from simvp_climate.metrics.climate.matching import Pair, find_pairs, make_grid
from simvp_climate.metrics.climate.modes import eof_statistics, index_statistics
from simvp_climate.metrics.climate.sums import Grid, Sums, add_up
from simvp_climate.metrics.pairs import period
from simvp_climate.metrics.skill_maps import discoveries

_OF_WHOLE_YEARS = ("amplitude", "peak_day", "variance", "interannual", "shift", "trend")
_FEW_YEARS = 5


def climate_report(
    run: xr.Dataset, truth: xr.Dataset, *, bands: float | Sequence[float] = 30.0, alpha: float = 0.05,
    eofs: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Return the mean, drift, annual cycle and variability of a long run beside those of the truth.

    >>> report = sc.metrics.climate_report(run, truth)
    >>> sc.metrics.climate_table(report)
    >>> sc.plot.climate_report(report, variable="t2m")

    Parameters
    ----------
    run
        Means over days or months on (time, [level,] latitude, longitude) and, of an ensemble, `number`, with the bounds
        of `time`; states at steps below a day are averaged to days. Without bounds, the label of a period is its
        beginning. The years need not be those of the truth. Read in blocks, one pass for each variable.
    truth
        The same variables at equal or shorter steps, averaged to periods like those of the run. States at steps below
        a day belong to the step that they end, as in `time_mean`. Minima and maxima of the run (`cell_methods`, names
        such as "t2m_min") are compared with minima and maxima of the truth's own values ("t2m").
    bands
        Width of the latitude bands in degrees, from the south pole, or their edges in ascending order.
    alpha
        The share of falsely significant cells that the bias map may have. The false discovery rate is 2 * alpha, as
        for fields that are correlated in space (Wilks 2016, BAMS 97, 2263-2273).
    eofs
        Whether to compare the leading three EOFs, which needs xeofs, `pip install "simvp-climate[indices]"`.

    Returns
    -------
    Dataset in memory with variables `<variable>_<statistic>`, on the canonical grid. With members, `member` is "all"
    and then each of them. `_truth` follows the names of the statistics of the truth, `_truth_min` and `_truth_max`
    those of the extremes among its single years. Statistics are of whole years: any twelve months from the first
    complete month on; 5 % of the values of a period may be missing. Without a whole year in both, means, spectra and
    quantiles are of the calendar months that both have. N is the number of years of the truth, L the smaller one of N
    and that of the run:

    `bias`, `bias_p`, `bias_significant`: run minus truth of the time mean; Student's t-test on annual means.

    `rmse`: the area-weighted RMSE of the time mean. `noise`: sqrt(mean of s^2 (1/L + 1/N)), s^2 the variance of the
    annual means of the truth in each cell: the root mean square difference between all disjoint sets of true years,
    for sets of L and N years. `rmse_ratio`: the median over blocks of L years of the run (and over members) of
    their RMSE, divided by the noise; `rmse_ratio_min`, `rmse_ratio_max`: its range.

    `trend`, `trend_low`, `trend_high`: of the annual global mean, `global_mean(year)`, per decade, from three years
    on, with a 95 % interval by Student's t with as many independent years as the autocorrelation of the residuals
    at lag 1 leaves (Santer et al. 2000).

    `amplitude`, `peak_day`: the first harmonic of the year in the mean over latitude bands, and the day of the year
    of its maximum; `amplitude_ratio`; `shift` in days, positive if the run is late. The last two are NaN where the
    true amplitude is below 5 % of that in the band with the largest.

    `variance`: that of daily (or monthly) values after three annual harmonics and the mean of each year are removed;
    `interannual_variance`: that of annual means, from three years on. Both are averages over blocks of L years and
    over the band; `variance_ratio`, `interannual_variance_ratio`.

    `zonal_mean`; `spectrum`: the variance by zonal wavenumber, averaged over the area, and `spectrum_ratio`.

    `quantiles`: of all values, weighted by area, to 1/2000 of the range of the first true values.

    `return_levels`: the area mean of the values that annual maxima of daily values exceed every 2, 5 and 10 years,
    empirical quantiles, averages over blocks of L years, for periods up to L. Their range in the truth is that of
    values with one year left out.

    `wet_day_frequency`: the share of days with at least 1 mm of precipitation.

    `eof_variance`, `eof_correlation`: of monthly anomalies, the explained variance of the leading three EOFs and
    the absolute pattern correlation with those of the truth, averages over blocks of L years. The range of the
    explained variance in the truth is that of its halves, `eof_correlation_truth` the correlation between them.

    `nino34`, `nao`, `sam` where the variable is the sea surface temperature, the pressure at sea level or the
    geopotential at 500 hPa: `_std_ratio`, and `_autocorrelation` at a lag of a month, averages over blocks of L
    years.

    The attribute `notes` says what is missing and why.

    Raises
    ------
    ValueError
        If there is no variable in common, units or grids differ, a value is missing, the steps of the truth are longer
        than those of the run, or no calendar month is complete in both.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha={alpha!r} must lie between 0 and 0.5, for example 0.05")
    notes: list[str] = []
    edges = band_edges(bands)
    parts, attrs = [], {key: run.attrs[key] for key in ("system", "source") if key in run.attrs}
    for pair in find_pairs(run, truth, notes):
        parts.append(_report(pair, edges, alpha, eofs, notes))
        for role, timeline in zip(("run", "truth"), pair.timelines, strict=True):
            half = pd.Timedelta(days=timeline.spans.days[0] / 2)
            ends = [timeline.spans.middle[:1] - half, timeline.spans.middle[-1:] + half]
            attrs |= period(role, np.concatenate(ends)) | {f"{role}_years": len(timeline.years)}
    attrs |= {"false_discovery_rate": 2 * alpha, "notes": "; ".join(dict.fromkeys(notes))}
    return xr.merge(parts, compat="override", join="outer").assign_attrs(attrs)


def climate_table(report: xr.Dataset) -> pd.DataFrame:
    """Return the main figures of a climate report, of all members together.

    Parameters
    ----------
    report
        As returned by `climate_report`.

    Returns
    -------
    DataFrame of numbers with a row for each variable (and level): the global mean `bias`; `rmse` of the time mean,
    `noise` and `rmse_ratio`; `trend` per decade with `trend_low` and `trend_high`; the smallest and largest
    `amplitude_ratio` and `variance_ratio` of a latitude band; and `units`. NaN for what the report lacks. ValueError if
    it is no report.
    """
    rows = {}
    for name in variables_of(report):
        levels = report["level"].values if "level" in report[f"{name}_bias"].dims else [None]
        for level in levels:
            row = "" if level is None else f" {level:g}"
            rows[name + row] = _table_row(select(report, name, level), report[f"{name}_bias"].attrs.get("units", ""))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variable")


def variables_of(report: xr.Dataset) -> list[str]:
    """Return the variables that a report is of; ValueError if it is none."""
    names = [str(name).removesuffix("_bias") for name in report.data_vars if str(name).endswith("_bias")]
    if not names:
        raise ValueError(f"the report has {list(report.data_vars)}. Pass the output of sc.metrics.climate_report")
    return names


def select(report: xr.Dataset, name: str, level: float | None = None) -> xr.Dataset:
    """Return the statistics of a variable of a report under their names without that of the variable."""
    # "t2m_min" begins with "t2m_" too
    longer = tuple(f"{other}_" for other in variables_of(report) if other.startswith(f"{name}_"))
    names = [str(n) for n in report.data_vars if str(n).startswith(f"{name}_") and not str(n).startswith(longer)]
    part = report[names].rename({each: each.removeprefix(f"{name}_") for each in names})
    return part if level is None else part.sel(level=level)


def _table_row(part: xr.Dataset, units: str) -> dict[str, object]:
    if "member" in part.dims:
        part = part.isel(member=0)
    row: dict[str, object] = {"bias": float(part["bias"].weighted(latitude_weights(part["latitude"])).mean())}
    numbers = ("rmse", "noise", "rmse_ratio", "trend", "trend_low", "trend_high")
    row |= {name: float(part[name]) if name in part else np.nan for name in numbers}
    for name in ("amplitude_ratio", "variance_ratio"):
        values = part[name] if name in part else xr.DataArray(np.nan)
        row |= {f"{name}_min": float(values.min()), f"{name}_max": float(values.max())}
    return row | {"units": units}


def _report(pair: Pair, edges: np.ndarray, alpha: float, eofs: bool, notes: list[str]) -> xr.Dataset:
    """Return all statistics of one variable."""
    grid = make_grid(pair, notes)
    rows, bands = band_coordinates(edges, pair.truth["latitude"].values)
    run = add_up(pair.run, pair.timelines[0], pair.method, grid, pair.member, "the run")
    truth = add_up(pair.truth, pair.timelines[1], pair.method, grid, None, "the truth")
    values = _bias(run, truth, grid, alpha, notes) | _errors(run, truth, grid) | _trends(run, truth, grid, pair)
    values |= _distributions(run, truth, grid, rows)
    shared = min(len(run.count), len(truth.count))
    periods = tuple(p for p in statistics.RETURN_PERIODS if p <= shared and pair.is_daily)
    if not pair.timelines[0].is_whole_year:
        months = ", ".join(f"{month + 1:02d}" for month in pair.timelines[0].calendar_months)
        notes.append(f"no whole year in run and truth: {pair.name} is compared in the months {months}")
        values = {key: value for key, value in values.items() if not key.startswith(_OF_WHOLE_YEARS)}
    elif shared > 1:
        values |= eof_statistics(run, truth, grid, notes) if eofs else {}
        first_months = pair.timelines[0].first_month, pair.timelines[1].first_month
        values |= index_statistics(run, truth, first_months, grid, pair.truth, notes)
    if periods:
        for sums, suffix in ((run, ""), (truth, "_truth")):
            values[f"return_levels{suffix}"] = statistics.return_levels(sums, grid, periods, shared)
        low, high = statistics.return_level_range(truth, grid, periods)
        values |= {"return_levels_truth_min": low, "return_levels_truth_max": high}
    return label(values, pair, grid, bands, periods)


def _bias(run: Sums, truth: Sums, grid: Grid, alpha: float, notes: list[str]) -> dict[str, np.ndarray]:
    mean = statistics.mean_over_years(run)
    mean = statistics.join_all(mean, mean.mean(0, keepdims=True))
    bias = np.where(grid.weights > 0, mean - statistics.mean_over_years(truth), np.nan)
    p = statistics.bias_test(run, truth, grid)
    significant = np.zeros(p.shape, bool)
    for place in np.ndindex(p.shape[:2]):
        significant[place] = discoveries(p[place], 2 * alpha)
    count = min(len(run.count), len(truth.count))
    if count < 2:
        notes.append("no test of the bias, which needs two years of run and truth")
    elif count < _FEW_YEARS:
        notes.append(f"the test of the bias has little power with {count} years of run or truth")
    return {"bias": bias, "bias_p": p, "bias_significant": significant}


def _errors(run: Sums, truth: Sums, grid: Grid) -> dict[str, np.ndarray]:
    length = min(len(run.count), len(truth.count))
    noise = statistics.interannual_noise(truth, grid, length)
    rmse, blocks = statistics.error_of_means(run, truth, grid, length)
    ratios = blocks / np.where(noise > 0, noise, np.nan)  # (block, member, level)
    result = {"rmse": rmse, "noise": noise}
    for suffix, reduce in (("", np.median), ("_min", np.min), ("_max", np.max)):
        together = reduce(ratios, axis=(0, 1))[None]
        result[f"rmse_ratio{suffix}"] = statistics.join_all(reduce(ratios, axis=0), together)
    return result


def _trends(run: Sums, truth: Sums, grid: Grid, pair: Pair) -> dict[str, np.ndarray]:
    result = {}
    for sums, timeline, suffix in zip((run, truth), pair.timelines, ("", "_truth"), strict=True):
        members = np.moveaxis(grid.mean(statistics.annual_means(sums)), 0, -1)  # (member, level, year)
        series = statistics.join_all(members, members.mean(0, keepdims=True))
        trends = statistics.trend(timeline.years, np.moveaxis(series, -1, 0))
        result |= {f"trend{suffix}{end}": each for end, each in zip(("", "_low", "_high"), trends, strict=True)}
        result[f"global_mean{suffix}"] = series
    return result


def _distributions(run: Sums, truth: Sums, grid: Grid, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of run and truth, and the range of those of single years of the truth."""
    length = min(len(run.count), len(truth.count))
    normal = statistics.describe(statistics.moments(truth, length), grid, rows)
    described = statistics.describe(statistics.moments(run, length).with_all(), grid, rows)
    result = described | statistics.compare(described, normal)
    result |= {f"{name}_truth": value for name, value in normal.items()}
    if len(truth.count) < 2:
        return result
    cycle = statistics.fit_cycle(truth)
    singles = [truth.select(slice(year, year + 1)) for year in range(len(truth.count))]
    years = [statistics.describe(statistics.moments(single, 1, cycle), grid, rows) for single in singles]
    # one cycle for all years leaves more variance than one for each block
    mean = np.mean([year["variance"] for year in years], axis=0)
    for year in years:
        year["variance"] = year["variance"] / np.where(mean > 0, mean, np.nan) * normal["variance"]
        year |= statistics.compare(year, normal)
    for name in years[0]:
        if not name.startswith(("interannual", "peak_day")):
            values = np.stack([year[name] for year in years])
            result |= {f"{name}_truth_min": values.min(0), f"{name}_truth_max": values.max(0)}
    return result
