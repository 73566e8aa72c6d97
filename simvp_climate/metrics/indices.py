"""Climate indices of forecasts and of the truth: Nino 3.4, NAO, AO, PNA and SAM by documented definitions.

Every index is a weighted sum over the anomalies of one field. The weights are fitted to a training period, and the same
weights apply to forecasts and the truth, so that both indices can be scored.
"""

import importlib.util
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import canonicalize
from simvp_climate.data.grid import check_same_grid, closes_longitude, is_forecast, latitude_weights
from simvp_climate.data.stations import point_weights
from simvp_climate.metrics.baselines.climatologies import climatology as mean_state
from simvp_climate.metrics.baselines.climatologies import normals_at
from simvp_climate.metrics.pairs import check_units, period, with_times
from simvp_climate.metrics.regions import region_masks

__all__ = ["fit_ao", "fit_nao", "fit_nino34", "fit_pna", "fit_sam"]
_BLOCK_BYTES = 64 * 2**20
_MIN_MONTHS = 24
_Box = tuple[float, float, float, float]  # south, north, west, east


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True, eq=False)
class Index:
    """A climate index: a function of a forecast or of analyses, as returned by `fit_nao` and its kin.

    >>> nao = sc.metrics.fit_nao(train)
    >>> sc.score(nao(forecast), nao(test), nao.climatology)

    Attributes
    ----------
    name, variable, definition
        The name of the index, the variable that it is computed from, and its definition as text.
    units
        Those of the data, or "1".
    pattern
        The weights of the anomalies, (latitude, longitude), on the grid of training with ascending coordinates.
    normals
        The weighted sum over the climatology, at the hours and days that it has.
    like
        The variable without values, for its grid and units.
    """

    name: str
    variable: str
    definition: str
    units: str
    pattern: xr.DataArray
    normals: xr.Dataset
    like: xr.Dataset

    def __call__(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return the index of a forecast, dims (init_time, lead_time[, number]), or of analyses, (time,).

        ValueError if the variable is missing or in other units, or the grid is not that of training.
        """
        forecast = is_forecast(dataset)
        if forecast:
            dataset, valid_time = with_times(dataset)
        field = canonicalize(dataset, [self.variable]).dataset
        check_same_grid(self.like, field)
        check_units(self.like, field, "the dataset", warn=False)
        times = valid_time if forecast else field["time"]
        values = _weighted_sum(field[self.variable], self.pattern)
        anomaly = values - normals_at(self.normals, times)[self.variable].drop_vars("valid_time", errors="ignore")
        order = ("init_time", "lead_time", "time", ...)
        result = anomaly.transpose(*order, missing_dims="ignore").reset_coords(drop=True).to_dataset(name=self.name)
        if forecast:
            result = result.assign_coords(valid_time=valid_time)
        attrs = {"long_name": self.definition, "units": self.units}
        result[self.name].attrs = attrs
        return result.assign_attrs({key: dataset.attrs[key] for key in ("system",) if key in dataset.attrs})

    @cached_property
    def climatology(self) -> xr.Dataset:
        """An index of zero, the climatology to score it with: `acc` is then the uncentered correlation."""
        zero = xr.Dataset({self.name: ((), 0.0, {"units": self.units})})
        periods = {key: value for key, value in self.normals.attrs.items() if key.endswith(("_start", "_end"))}
        return zero.assign_attrs(periods, climatology_method="mean of all times")


def fit_nino34(train: xr.Dataset, climatology: xr.Dataset | None = None, *, variable: str = "sst") -> Index:
    """Return the Nino 3.4 index: the mean anomaly of the sea surface temperature in 5S-5N, 170W-120W.

    Trenberth (1997), The definition of El Nino, BAMS 78, 2771-2777. It is in the units of the data. The Oceanic Nino
    Index is its running mean over three months, with base periods that move.

    Parameters
    ----------
    train
        Training years of the variable, on (time, latitude, longitude).
    climatology
        As from `baselines.climatology`; by default that of `train`.
    variable
        Its name in the data, or one that `open_dataset` knows.

    Returns
    -------
    Index, a function of forecasts and analyses on the same grid.

    Raises
    ------
    ValueError
        If the variable is missing, or the grid does not cover the region.
    """
    fit = _Fit(train, climatology, variable)
    pattern = fit.box((-5, 5, -170, -120))
    return fit.index("nino34", "Nino 3.4: mean anomaly in 5S-5N, 170W-120W", pattern, standardize=False)


def fit_nao(
    train: xr.Dataset, climatology: xr.Dataset | None = None, *, variable: str = "msl",
    method: Literal["box", "pc"] = "box",
) -> Index:  # fmt: skip
    """Return the index of the North Atlantic Oscillation, with standard deviation 1 in the training period.

    Parameters
    ----------
    train, climatology, variable
        As in `fit_nino34`. The definitions are of mean sea level pressure, but for the component of Thompson and
        Wallace (2000), which is of the height of 850 hPa; other fields are variants.
    method
        "box": the mean anomaly over 20N-55N less that over 55N-90N, both 90W-60E (Stephenson et al. 2006, Climate
        Dynamics 27, 401-420). "pc": the leading principal component over 20N-80N, 90W-40E of monthly means, weighted by
        the square root of the area (Hurrell 1995, Science 269, 676-679), onto which every state is projected; needs
        xeofs, `pip install "simvp-climate[indices]"`, and at least 24 months.

    Returns
    -------
    Index, positive for low pressure in the north.

    Raises
    ------
    ValueError, ImportError
        As in `fit_nino34`; if the months are too few, or xeofs is not installed.
    """
    fit = _Fit(train, climatology, variable)
    if _is_pc(method, "box"):
        pattern = fit.leading_pattern((20, 80, -90, 40), (60, 80, -90, 40))
        return fit.index("nao", "North Atlantic Oscillation: leading PC in 20N-80N, 90W-40E", pattern)
    # a row at 55N counts in the southern box alone
    pattern = fit.box((20, 55, -90, 60)) - fit.box((55.001, 90, -90, 60))
    return fit.index("nao", "North Atlantic Oscillation: 20N-55N less 55N-90N, 90W-60E", pattern)


def fit_ao(
    train: xr.Dataset, climatology: xr.Dataset | None = None, *, variable: str = "msl",
    method: Literal["circles", "pc"] = "circles",
) -> Index:  # fmt: skip
    """Return the index of the Arctic Oscillation, or northern annular mode, with standard deviation 1 in training.

    Parameters
    ----------
    train, climatology, variable
        As in `fit_nao`.
    method
        "circles": the mean anomaly on the latitude circle 35N less that on 65N, each divided by its standard deviation
        (Li and Wang 2003, Geophysical Research Letters 30, 1632). "pc": the leading principal component poleward of 20N
        (Thompson and Wallace 1998, Geophysical Research Letters 25, 1297-1300), as in `fit_nao`.

    Returns
    -------
    Index, positive for low pressure at the pole. Errors as in `fit_nao`.
    """
    fit = _Fit(train, climatology, variable)
    if _is_pc(method, "circles"):
        pattern = fit.leading_pattern((20, 90, -180, 180), (60, 90, -180, 180))
        return fit.index("ao", "Arctic Oscillation: leading PC in 20N-90N", pattern)
    pattern = fit.normalized(fit.zonal_mean(35)) - fit.normalized(fit.zonal_mean(65))
    return fit.index("ao", "Arctic Oscillation: normalized zonal mean at 35N less 65N", pattern)


def fit_sam(
    train: xr.Dataset, climatology: xr.Dataset | None = None, *, variable: str = "msl",
    method: Literal["circles", "pc"] = "circles",
) -> Index:  # fmt: skip
    """Return the index of the southern annular mode, with standard deviation 1 in the training period.

    Parameters
    ----------
    train, climatology, variable
        As in `fit_nao`.
    method
        "circles": the mean anomaly on the latitude circle 40S less that on 65S, each divided by its standard deviation
        (Gong and Wang 1999, Geophysical Research Letters 26, 459-462). "pc": the leading principal component poleward
        of 20S (Thompson and Wallace 2000, Journal of Climate 13, 1000-1016), as in `fit_nao`.

    Returns
    -------
    Index, positive for low pressure at the pole. Errors as in `fit_nao`.
    """
    fit = _Fit(train, climatology, variable)
    if _is_pc(method, "circles"):
        pattern = fit.leading_pattern((-90, -20, -180, 180), (-90, -60, -180, 180))
        return fit.index("sam", "Southern annular mode: leading PC in 90S-20S", pattern)
    pattern = fit.normalized(fit.zonal_mean(-40)) - fit.normalized(fit.zonal_mean(-65))
    return fit.index("sam", "Southern annular mode: normalized zonal mean at 40S less 65S", pattern)


def fit_pna(train: xr.Dataset, climatology: xr.Dataset | None = None, *, variable: str = "z500") -> Index:
    """Return the index of the Pacific/North American pattern, with standard deviation 1 in the training period.

    z(20N, 160W) - z(45N, 165W) + z(55N, 115W) - z(30N, 85W), of anomalies of the height (or geopotential) at 500 hPa,
    each divided by its standard deviation: Wallace and Gutzler (1981), Monthly Weather Review 109, 784-812. The sum is
    then divided by its own standard deviation, unlike in the source, which divides it by 4.
    Parameters and errors as in `fit_nino34`.
    """
    fit = _Fit(train, climatology, variable)
    centers = ((1, 20, -160), (-1, 45, -165), (1, 55, -115), (-1, 30, -85))
    patterns = [sign * fit.normalized(fit.point(latitude, longitude)) for sign, latitude, longitude in centers]
    pattern = sum(patterns[1:], patterns[0])
    return fit.index("pna", "Pacific/North American pattern: four centers at 500 hPa", pattern)


def _is_pc(method: str, other: str) -> bool:
    if method not in (other, "pc"):
        raise ValueError(f'method={method!r} must be "{other}" or "pc"')
    return method == "pc"


class _Fit:
    """Weights of cells for the parts of an index, fitted to the anomalies of a training period."""

    def __init__(self, train: xr.Dataset, climatology: xr.Dataset | None, variable: str):
        self.variable = variable
        self.train = canonicalize(train, [variable]).dataset
        if "time" not in self.train.dims:
            raise ValueError(f"{variable!r} of the training data has no times, but {list(self.train[variable].dims)}")
        if extra := set(self.train[variable].dims) - {"time", "latitude", "longitude"}:
            raise ValueError(
                f"{variable!r} of the training data has the dimensions {sorted(map(str, extra))}: select one"
            )
        self.climatology = mean_state(self.train) if climatology is None else climatology
        normals = canonicalize(self.climatology, [variable]).dataset
        check_same_grid(self.train, normals)
        self.normals = normals.assign_attrs(self.climatology.attrs)
        # cells that never have a value, such as land in the sea surface temperature, do not count
        values = self.normals[variable].notnull()
        self.has_values = values.all([dim for dim in values.dims if dim not in ("latitude", "longitude")])

    def index(self, name: str, definition: str, pattern: xr.DataArray, standardize: bool = True) -> Index:
        units = str(self.train[self.variable].attrs.get("units", ""))
        if standardize:
            pattern, units = self.normalized(pattern), "1"
        sums = _weighted_sum(self.normals[self.variable], pattern).to_dataset(name=self.variable)
        attrs = self.normals.attrs | period("fitted", self.train["time"].values)
        like = self.train.isel(time=slice(0, 0))
        return Index(name, self.variable, definition, units, pattern, sums.assign_attrs(attrs), like)

    def box(self, box: _Box) -> xr.DataArray:
        """Return weights of the mean over a box; ValueError if the grid does not cover it."""
        if not self._covers(box):
            raise ValueError(f"the grid of {self.variable!r} does not cover (south, north, west, east) = {box}")
        in_box = region_masks({"box": box}, self.train).isel(region=0, drop=True) * self.has_values
        weights = in_box * latitude_weights(self.train["latitude"])
        if not float(weights.sum()):
            raise ValueError(f"{self.variable!r} has no values in (south, north, west, east) = {box}")
        return weights / weights.sum()

    def _covers(self, box: _Box) -> bool:
        """Return whether the cells of the grid reach the edges of a box."""
        south, north, west, east = box
        rows, columns = self.train["latitude"].values, self.train["longitude"].values
        height, width = (abs(np.diff(x)).max() if len(x) > 1 else 0.0 for x in (rows, columns))
        if rows.min() - height > south or rows.max() + height < north:
            return False
        first = columns[0] - width
        return closes_longitude(columns) or (west - first) % 360 + (east - west) <= columns[-1] + width - first

    def zonal_mean(self, latitude: float) -> xr.DataArray:
        """Return weights of the mean over a circle of latitude, between two rows."""
        if not closes_longitude(self.train["longitude"].values):
            raise ValueError(f"{self.variable!r} is not on all longitudes, which a zonal mean needs")
        rows = point_weights(self.train, latitude, float(self.train["longitude"][0])).sum("longitude")
        return (rows / self.train.sizes["longitude"]) * xr.ones_like(self.train["longitude"], dtype=np.float64)

    def point(self, latitude: float, longitude: float) -> xr.DataArray:
        """Return weights of the bilinear value at a point."""
        return point_weights(self.train, latitude, longitude)

    def normalized(self, pattern: xr.DataArray) -> xr.DataArray:
        """Return weights divided by the standard deviation of their sum over the anomalies in training."""
        deviation = float(self._anomalies(_weighted_sum(self.train[self.variable], pattern), pattern).std())
        if not deviation > 0:
            raise ValueError(f"{self.variable!r} does not vary in the training period where the index needs it")
        return pattern / deviation

    def _anomalies(self, sums: xr.DataArray, pattern: xr.DataArray) -> xr.DataArray:
        normals = _weighted_sum(self.normals[self.variable], pattern).to_dataset(name=self.variable)
        return sums - normals_at(normals.assign_attrs(self.normals.attrs), self.train["time"])[self.variable]

    def leading_pattern(self, box: _Box, negative: _Box) -> xr.DataArray:
        """Return weights of the leading principal component in a box, negative on the mean over another."""
        if importlib.util.find_spec("xeofs") is None:
            fix = "pip install 'simvp-climate[indices]', or omit method='pc'"
            raise ImportError(f'method="pc" needs xeofs, which is not installed. Run: {fix}')
        from xeofs.single import EOF

        box_weights = self.box(box)
        rows = box_weights.latitude[(box_weights > 0).any("longitude").values]
        columns = box_weights.longitude[(box_weights > 0).any("latitude").values]
        anomalies = self._monthly_anomalies().sel(latitude=rows, longitude=columns)
        weights = np.sqrt(box_weights.sel(latitude=rows, longitude=columns))
        model = EOF(n_modes=1, center=True, use_coslat=False)
        with warnings.catch_warnings():  # xeofs 3.0 uses what newer versions of xarray will drop
            warnings.simplefilter("ignore", FutureWarning)
            model.fit((anomalies * weights).where(weights > 0), dim="time")
            component = model.components().isel(mode=0, drop=True)
        pattern = (component * weights).fillna(0).transpose(*box_weights.dims).reindex_like(box_weights, fill_value=0.0)
        # an anomaly of the pattern itself, low where the index is to be positive
        field = (component / weights).reindex_like(box_weights).where(self.box(negative) > 0)
        return -pattern if float((field * self.box(negative)).sum()) > 0 else pattern

    def _monthly_anomalies(self) -> xr.DataArray:
        months = self.train["time"].dt.year * 12 + self.train["time"].dt.month
        if (count := len(np.unique(months))) < _MIN_MONTHS:
            raise ValueError(f'the training data have {count} months, but method="pc" needs {_MIN_MONTHS}')
        means = []
        for month in np.unique(months):
            field = self.train.isel(time=np.flatnonzero(months == month))
            normals = normals_at(self.normals, field["time"])
            means.append((field[self.variable].astype(np.float64) - normals[self.variable]).mean("time"))
        return xr.concat(means, xr.DataArray(np.arange(count), dims="time", name="time"), coords="minimal",
                         compat="override", join="exact")  # fmt: skip


def _weighted_sum(field: xr.DataArray, pattern: xr.DataArray) -> xr.DataArray:
    """Return the sum over the grid of a field times weights, in blocks; cells without a weight need no value."""
    counted = pattern.transpose("latitude", "longitude").values != 0
    rows, columns = (np.flatnonzero(counted.any(axis=axis)) for axis in (1, 0))
    field = field.isel(latitude=rows, longitude=columns)
    weights = pattern.transpose("latitude", "longitude").values[np.ix_(rows, columns)]
    field = field.transpose(..., "latitude", "longitude")
    result = field.isel(latitude=0, longitude=0, drop=True)
    dim = result.dims[0] if result.ndim else None
    step = max(_BLOCK_BYTES // max(field.size // max(field.sizes[dim], 1) * 8, 1), 1) if dim else 1
    blocks = [field.isel({dim: slice(k, k + step)}) for k in range(0, field.sizes[dim], step)] if dim else [field]
    cells = weights != 0
    sums = [block.values.astype(np.float64)[..., cells] @ weights[cells] for block in blocks]
    values = np.concatenate(sums) if dim and sums else np.asarray(sums[0] if sums else np.zeros(result.shape))
    return xr.DataArray(values, result.reset_coords(drop=True).coords, result.dims)
