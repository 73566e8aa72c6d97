"""Statistics of a climate from sums over its years, dims (member, level, ...)."""

from dataclasses import dataclass

import numpy as np

from simvp_climate.metrics.climate.sums import BINS, Grid, Sums

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
RETURN_PERIODS = (2, 5, 10)  # years
DAYS_IN_YEAR = 365.2425
_LEAST_AMPLITUDE = 0.05  # of the annual cycle in a band, relative to that of the band with the largest
_LEAST_YEARS = 3  # of an interannual variance
_LARGEST_AUTOCORRELATION = 0.99


@dataclass(frozen=True, eq=False)
class Moments:
    """What the statistics are computed from, (member, level, ...); the mean over members is that of all together."""

    mean: np.ndarray  # (member, level, latitude, longitude)
    coefficients: np.ndarray  # (member, level, harmonic, latitude, longitude)
    variance: np.ndarray  # (member, level, latitude, longitude), of the deviations from annual cycle and annual mean
    interannual: np.ndarray  # (member, level, latitude, longitude), of annual means
    power: np.ndarray  # (member, level, zonal wavenumber)
    density: np.ndarray  # (member, level, bin)
    wet: np.ndarray  # (member, level)

    def with_all(self) -> "Moments":
        """Return these with those of all members together first."""
        return Moments(*(join_all(value, value.mean(0, keepdims=True)) for value in vars(self).values()))


def join_all(members: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Return what describes all members together and then each of them; a single one stays alone."""
    return members if len(members) == 1 else np.concatenate([together, members])


def moments(sums: Sums, length: int, cycle: np.ndarray | None = None) -> Moments:
    """Return the moments of some years; variances are means over blocks of `length` years.

    A regression on more years leaves more variance, so only blocks of the same length compare. `cycle` are the
    coefficients of an annual cycle to take instead of that of the block.
    """
    blocks = [sums.select(slice(k, k + length)) for k in block_starts(len(sums.count), length)]
    count, area = sums.count.sum(), sums.histogram.sum((0, -1))
    annual = [annual_means(block) for block in blocks]
    interannual = [years.var(0, ddof=1) if len(years) >= _LEAST_YEARS else years[0] * np.nan for years in annual]
    return Moments(
        mean_over_years(sums), np.moveaxis(fit_cycle(sums), 0, 2),
        np.mean([_variance(block, cycle) for block in blocks], 0), np.mean(interannual, 0),
        sums.power.sum(0) / count, sums.histogram.sum(0) / area[..., None], sums.wet.sum(0) / area,
    )  # fmt: skip


def block_starts(years: int, length: int) -> range:
    """Return the first years of blocks of some length."""
    return range(0, years - length + 1, length)


def mean_over_years(sums: Sums) -> np.ndarray:
    """Return the time mean, (member, level, latitude, longitude)."""
    return sums.total.sum((0, 1)) / sums.days.sum()


def annual_means(sums: Sums) -> np.ndarray:
    """Return the means of years, (year, member, level, latitude, longitude)."""
    days = sums.days.sum(1)
    return sums.total.sum(1) / days.reshape(-1, *[1] * (sums.total.ndim - 2))


def fit_cycle(sums: Sums) -> np.ndarray:
    """Return the least-squares coefficients of the harmonics, (harmonic, member, level, latitude, longitude)."""
    gram, moment = sums.gram.sum(0), sums.moment.sum(0)
    # of less than a year of months there are fewer equations than harmonics
    return np.tensordot(np.linalg.pinv(gram), moment, 1)


def _variance(sums: Sums, cycle: np.ndarray | None) -> np.ndarray:
    """Return the variance of the deviations from the harmonics and from the mean deviation of each year."""
    coefficients = fit_cycle(sums) if cycle is None else cycle
    fitted = np.tensordot(sums.gram, coefficients, 1)  # (year, harmonic, ...)
    squares = sums.square - 2 * (coefficients * sums.moment).sum(1) + (coefficients * fitted).sum(1)
    years = sums.count.reshape(-1, *[1] * (squares.ndim - 1))
    means = (sums.moment[:, 0] - fitted[:, 0]) / years
    fitted_waves = len(coefficients) - 1 if cycle is None else 0
    freedom = sums.count.sum() - fitted_waves - len(sums.count)
    # rounding leaves less than zero of a variance of zero
    return np.maximum((squares - years * means**2).sum(0), 0) / max(freedom, 1)


def describe(m: Moments, grid: Grid, bands: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics by name, (member, level, ...); `bands` are the rows of each latitude band."""
    rows = grid.weights.sum(-1)
    zonal = (np.where(grid.weights > 0, m.mean, 0) * grid.weights).sum(-1) / np.where(rows > 0, rows, np.nan)
    # |F_k|^2 stands for the wavenumbers k and -k; half the number of longitudes is both
    waves = np.where(2 * np.arange(1, m.power.shape[-1] + 1) == grid.weights.shape[-1], 1, 2)
    cosine, sine = (grid.mean(m.coefficients[:, :, wave], bands) for wave in (1, 2))
    return {
        "zonal_mean": zonal,
        "amplitude": np.hypot(cosine, sine),
        "peak_day": np.arctan2(sine, cosine) / (2 * np.pi) % 1 * DAYS_IN_YEAR,
        "variance": grid.mean(m.variance, bands),
        "interannual_variance": grid.mean(m.interannual, bands),
        **({"spectrum": m.power * waves} if grid.is_ring else {}),
        "quantiles": _quantiles(m.density, grid),
        **({"wet_day_frequency": m.wet} if grid.wet_value is not None else {}),
    }


def compare(statistics: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return ratios to the statistics of the truth and the shift of the annual cycle in days."""
    least = _LEAST_AMPLITUDE * np.nanmax(truth["amplitude"], axis=-1, keepdims=True, initial=0)
    amplitude = np.where(truth["amplitude"] > least, truth["amplitude"], np.nan)
    shift = statistics["peak_day"] - truth["peak_day"] + 0 * amplitude
    names = [name for name in ("variance", "interannual_variance", "spectrum") if name in truth]
    ratios = {f"{name}_ratio": statistics[name] / np.where(truth[name] > 0, truth[name], np.nan) for name in names}
    half = DAYS_IN_YEAR / 2
    return {
        "amplitude_ratio": statistics["amplitude"] / amplitude, "shift": (shift + half) % DAYS_IN_YEAR - half, **ratios
    }  # fmt: skip


def _quantiles(density: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the quantiles of histograms, linear within a bin, (member, level, quantile)."""
    cumulative = np.cumsum(density, -1)
    result = np.empty((*density.shape[:-1], len(QUANTILES)))
    for member, level in np.ndindex(density.shape[:2]):
        for index, share in enumerate(QUANTILES):
            upper = cumulative[member, level]
            place = min(int(np.searchsorted(upper, share - 1e-12)), len(upper) - 1)
            inside = density[member, level, place]
            part = (share - upper[place] + inside) / inside if inside > 0 else 0.0
            result[member, level, index] = grid.origin[level] + (place - BINS + part) * grid.width[level]
    return result


def return_levels(sums: Sums, grid: Grid, periods: tuple[int, ...], length: int) -> np.ndarray:
    """Return the area mean of the values that annual maxima exceed every so many years, (member, level, period).

    Means over blocks of `length` years: empirical quantiles of more years are larger or smaller, so only blocks of the
    same length compare.
    """
    highest = np.where(grid.weights > 0, sums.highest, 0)
    shares = [1 - 1 / period for period in periods]
    blocks = [highest[start : start + length] for start in block_starts(len(highest), length)]
    levels = grid.mean(np.mean([np.quantile(block, shares, axis=0) for block in blocks], 0))  # (period, member, level)
    members = np.moveaxis(levels, 0, -1)
    return join_all(members, members.mean(0, keepdims=True))


def return_level_range(sums: Sums, grid: Grid, periods: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest return levels, each with one of the years left out."""
    years = np.arange(len(sums.count))
    levels = [return_levels(sums.select(years != year), grid, periods, len(years) - 1) for year in years]
    return np.min(levels, 0), np.max(levels, 0)


def interannual_noise(sums: Sums, grid: Grid, length: int) -> np.ndarray:
    """Return the RMSE to expect between means over `length` years of the same climate and over those of the truth."""
    years = annual_means(sums)
    if len(years) < 2:
        return np.full(years.shape[1:3], np.nan)
    return np.sqrt(grid.mean(years.var(0, ddof=1)) * (1 / length + 1 / len(years)))


def error_of_means(run: Sums, truth: Sums, grid: Grid, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the RMSE of the time mean of a run, (member, level), and of its blocks, (block, member, level)."""
    normal = mean_over_years(truth)
    starts = block_starts(len(run.count), length)
    means = [mean_over_years(run.select(slice(start, start + length))) for start in starts]
    whole = mean_over_years(run)
    whole = join_all(whole, whole.mean(0, keepdims=True))
    return tuple(np.sqrt(grid.mean((np.asarray(mean) - normal) ** 2)) for mean in (whole, means))  # type: ignore


def trend(years: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the trend per decade and the ends of its 95 % interval, (3, ...), of values (year, ...).

    The number of independent years is n (1 - r) / (1 + r), r the autocorrelation of the residuals at lag 1 where it is
    positive (Santer et al. 2000, Journal of Geophysical Research 105, 7337-7356); at least one degree of freedom.
    """
    from scipy.special import stdtrit

    if len(years) < _LEAST_YEARS:
        return np.full((3, *values.shape[1:]), np.nan)
    x = (years - years.mean()).reshape(-1, *[1] * (values.ndim - 1))
    anomaly = values - values.mean(0)
    slope = (x * anomaly).sum(0) / (x**2).sum()
    residual = anomaly - slope * x
    squares = (residual**2).sum(0)
    r = (residual[1:] * residual[:-1]).sum(0) / np.where(squares > 0, squares, 1)
    r = np.clip(r, 0, _LARGEST_AUTOCORRELATION)
    freedom = np.maximum(len(years) * (1 - r) / (1 + r) - 2, 1)
    half = stdtrit(freedom, 0.975) * np.sqrt(squares / freedom / (x**2).sum())
    return 10 * np.stack([slope, slope - half, slope + half])


def bias_test(run: Sums, truth: Sums, grid: Grid) -> np.ndarray:
    """Return p-values of Student's t-test for equal means of the years of run and truth, for all and for each member.

    Of two equal climates also the variances are equal; the test for unequal ones (Welch) rejects far too often with
    few years. NaN with less than two years, and where nothing varies.
    """
    from scipy.special import stdtr

    first, second = annual_means(run), annual_means(truth)
    together = first.reshape(-1, 1, *first.shape[2:])
    p = []
    for sample in [together, first] if first.shape[1] > 1 else [first]:
        counts = len(sample), len(second)
        if min(counts) < 2:
            p.append(np.full(sample.shape[1:], np.nan))
            continue
        freedom = sum(counts) - 2
        squares = sum(each.var(0) * len(each) for each in (sample, second))
        error = np.sqrt(squares / freedom * sum(1 / count for count in counts))
        t = np.abs(sample.mean(0) - second.mean(0)) / np.where(error > 0, error, np.nan)
        p.append(np.where(grid.weights > 0, 2 * stdtr(freedom, -t), np.nan))
    return np.concatenate(p)
