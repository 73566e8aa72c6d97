"""Zonal spectra, which show how much a forecast blurs, and the drift of its area mean."""

import numpy as np
import xarray as xr

from simvp_climate.data.grid import closes_longitude, find_axes
from simvp_climate.metrics.aggregation import weighted_sums
from simvp_climate.metrics.baselines.climatologies import normals_at
from simvp_climate.metrics.definitions import METRICS, Fields, Metric, concat, means_of, ratio
from simvp_climate.metrics.pairs import align_fit, canonicalize_forecast, match, refuse_overlap, with_times
from simvp_climate.metrics.regions import SPACE, Regions, cell_weights

_EARTH_RADIUS = 1000 * (6357 + 6378) / 2  # meters, as in WeatherBench 2


def zonal_spectrum(dataset: xr.Dataset) -> xr.Dataset:
    """Return the zonal energy spectrum of every circle of latitude, as WeatherBench 2 (`ZonalEnergySpectrum`).

    S_0 = C |F_0|^2 and S_k = 2 C |F_k|^2, F the discrete Fourier transform along longitude divided by the number of
    longitudes, C = cos(latitude) 2 pi R, R = 6367.5 km.

    The dataset holds analyses or a forecast, on longitudes that go around the globe, else ValueError.

    Returns
    -------
    Dataset with `zonal_wavenumber` (0 to half the number of longitudes) in place of the longitude, float64, in the
    squared unit of the variable times m; coordinates `frequency(zonal_wavenumber, latitude)` in 1/m and `wavelength`
    in m. Lazy where the data are dask arrays.
    """
    axes = find_axes(dataset)
    longitude, latitude = dataset[axes.longitude], dataset[axes.latitude]
    _check_longitudes(longitude)
    length = longitude.size // 2 + 1
    circumference = np.cos(np.deg2rad(latitude.astype(np.float64))) * 2 * np.pi * _EARTH_RADIUS
    # wavenumber k > 0 stands for k and -k
    factor = xr.DataArray(np.where(np.arange(length) == 0, 1.0, 2.0), dims="zonal_wavenumber")

    def spectrum(field: xr.DataArray) -> xr.DataArray:
        power = xr.apply_ufunc(
            wave_power, field.astype(np.float64),
            input_core_dims=[[axes.longitude]], output_core_dims=[["zonal_wavenumber"]],
            dask="parallelized", output_dtypes=[np.float64],
            dask_gufunc_kwargs={"output_sizes": {"zonal_wavenumber": length}},
        )  # fmt: skip
        units = field.attrs.get("units", "")
        energy = (power * factor * circumference).transpose(*power.dims)
        return energy.assign_attrs(units=f"({units})2 m" if units else "m")

    fields = {name: v for name, v in dataset.data_vars.items() if axes.longitude in v.dims}
    result = xr.Dataset({name: spectrum(field) for name, field in fields.items()}, attrs=dataset.attrs)
    wavenumber = xr.DataArray(np.arange(length), dims="zonal_wavenumber", attrs={"long_name": "zonal wavenumber"})
    with np.errstate(divide="ignore"):
        frequency = wavenumber / circumference
        wavelength = (1 / frequency).assign_attrs(units="m")
    frequency = frequency.assign_attrs(units="1/m")
    return result.assign_coords(zonal_wavenumber=wavenumber, frequency=frequency, wavelength=wavelength)


def variance_by_wavenumber(forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Return the variance of a forecast in every zonal wavenumber relative to that of the truth, by lead.

    <|F_k|^2> of the forecast divided by that of the truth, F the discrete Fourier transform along longitude, <> the
    mean over initializations and, weighted by area, over latitudes. 1 means as much variance as the truth, less means
    blurred. Wavenumber 0, the zonal mean, is left out. Arguments and errors as in `rmse`, on longitudes that go around
    the globe, else ValueError.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (zonal_wavenumber, lead_time[, level]), without unit. The
    coordinates `<variable>_truth` are the variance of the truth in each wavenumber, in the squared unit.
    """
    pairs = match(forecast, truth)
    longitude = pairs.grid["longitude"]
    _check_longitudes(longitude)
    last = longitude.size // 2

    def power(field: xr.DataArray) -> xr.DataArray:
        values = field.transpose(..., "longitude")
        row = values.isel(longitude=0, drop=True).expand_dims(wavenumber=last, axis=-1)
        return row.copy(data=wave_power(values.values)[..., 1:])

    def statistics(f: Fields) -> tuple[xr.Dataset, ...]:
        powers = f.forecast.map(power), f.truth.map(power)
        return tuple(power.isel(wavenumber=i) for power in powers for i in range(last))

    metric = Metric(statistics, lambda *means: means)
    sums = weighted_sums(pairs, {"power": metric}, False)["", "power"].sum("init_time", skipna=False)
    ratios = [ratio(sums.isel(part=i), sums.isel(part=last + i)) for i in range(last)]
    # |F_k|^2 stands for the wavenumbers k and -k; half the number of longitudes is both
    shares = [1 if 2 * k == longitude.size else 2 for k in range(1, last + 1)]
    variances = [share * ratio(sums.isel(part=last + i), sums.isel(part=-1)) for i, share in enumerate(shares)]
    wavenumber = xr.DataArray(np.arange(1, last + 1), dims="zonal_wavenumber", name="zonal_wavenumber")
    order = ("zonal_wavenumber", "lead_time", "level", ...)
    result, variance = (
        concat(values, wavenumber).transpose(*order, missing_dims="ignore") for values in (ratios, variances)
    )
    for name in result.data_vars:
        result[name].attrs = {"units": "1", "long_name": f"variance of {name}, forecast over truth"}
        units = pairs.attrs(str(name)).get("units")
        attrs = {"long_name": f"variance of {name} in the truth"} | ({"units": f"({units})2"} if units else {})
        result = result.assign_coords({f"{name}_truth": variance[name].variable.copy(deep=False)})
        result[f"{name}_truth"].attrs = attrs
    return result.assign_coords(level=pairs.labels["level"]) if "level" in result.dims else result


def effective_resolution(forecast: xr.Dataset, truth: xr.Dataset, *, share: float = 0.5) -> xr.Dataset:
    """Return the largest zonal wavenumber up to which a forecast has more than a share of the variance of the truth.

    `variance_by_wavenumber` exceeds `share` at this and at all smaller wavenumbers; 0 if it does not at wavenumber 1.
    A blurred forecast has a lower one than its grid allows. Arguments and errors as in `variance_by_wavenumber`.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (lead_time[, level]), without unit; NaN where values are
    missing or the truth has no variance at a wavenumber.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share!r} must be between 0 and 1, for example 0.5")
    ratios = variance_by_wavenumber(forecast, truth)
    result = (ratios > share).cumprod("zonal_wavenumber").sum("zonal_wavenumber")
    result = result.where(ratios.notnull().all("zonal_wavenumber"))
    for name in result.data_vars:
        result[name].attrs = {"units": "1", "long_name": f"effective resolution of {name}, zonal wavenumber"}
    return result


def drift(
    forecast: xr.Dataset, truth: xr.Dataset | None = None, climatology: xr.Dataset | None = None, *,
    regions: Regions = None, allow_overlap: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Return the area mean of a forecast minus that of the truth, by initialization and lead.

    Parameters
    ----------
    forecast, truth
        As in `rmse`; pairs without truth are NaN in the result.
    climatology
        As from `climatology`, in place of the truth, for rollouts longer than the analyses. Cells count if they have
        values in the first forecast and at all times of the climatology.
    regions
        As in `score`; "land" and "sea" need a land-sea mask in the truth or the climatology.
    allow_overlap
        Whether valid times may lie in the period of the climatology.

    Returns
    -------
    Dataset in memory, dims (init_time, lead_time[, level, region]), in the unit of the variable. ValueError as in
    `rmse`, or if valid times lie in the period of the climatology.
    """
    if (truth is None) == (climatology is None):
        raise ValueError("give either the truth or a climatology, not both: drift(forecast, truth)")
    if climatology is not None:
        result, valid_time = _drift_from_climatology(forecast, climatology, regions, allow_overlap)
    else:
        result, valid_time = _drift_from_truth(forecast, truth, regions)
    for name in result.data_vars:
        order = ("init_time", "lead_time", "level", "region", ...)
        result[name] = result[name].transpose(*order, missing_dims="ignore")
        result[name].attrs = {"units": forecast[name].attrs.get("units", "")}
    return result.assign_coords(valid_time=(("init_time", "lead_time"), valid_time.values))


def _drift_from_truth(forecast: xr.Dataset, truth: xr.Dataset, regions: Regions) -> tuple[xr.Dataset, xr.DataArray]:
    """Return the mean error of every pair and its valid time, in ascending order of initializations."""
    pairs = match(forecast, truth, regions=regions)
    (result,), _ = means_of(weighted_sums(pairs, {"bias": METRICS["bias"]}, False)["", "bias"])
    if "level" in result.dims:
        result = result.assign_coords(level=pairs.labels["level"])
    # from the forecast, because the valid times of `pairs` are placeholders where the truth is missing
    forecast, valid_time = with_times(forecast)
    return result, valid_time.isel(init_time=np.argsort(forecast["init_time"].values, kind="stable"))


def _drift_from_climatology(
    forecast: xr.Dataset, climatology: xr.Dataset, regions: Regions, allow_overlap: bool
) -> tuple[xr.Dataset, xr.DataArray]:
    """Return the difference of area means of forecast and climatology for every pair, and its valid time."""
    level = forecast.coords.get(find_axes(forecast).level or "level")
    scalar_level = {"level": level} if level is not None and level.ndim == 0 else {}
    states = canonicalize_forecast(forecast).dataset
    if not allow_overlap:
        refuse_overlap("the climatology", climatology.attrs, states["valid_time"].values.ravel())
    normals = align_fit(states, climatology, "the climatology", scalar_level).load()
    weight = cell_weights(states, "area", regions, climatology)
    means = {}
    for name in map(str, states.data_vars):
        state, normal = states[name], normals[name]
        calendar = [dim for dim in normal.dims if dim not in (*SPACE, "level")]
        valid = state.isel(init_time=0, lead_time=0, drop=True).notnull() & normal.notnull().all(calendar)
        cells = (weight * valid).compute()
        state_mean, normal_mean = (
            # NaN times zero would be NaN: cells that do not count become 0 first
            (field.where(valid, 0) * cells).sum(SPACE, skipna=False) / cells.sum(SPACE).where(lambda x: x != 0)
            for field in (state, normal)
        )
        normal_mean = normals_at(normal_mean.to_dataset(name=name), states["valid_time"])[name]
        means[name] = (state_mean - normal_mean).compute()
    result = xr.Dataset(means).drop_vars("valid_time", errors="ignore")
    if "level" in result.dims:  # in the units of the forecast again
        result = result.assign_coords(level=("level", level.values, level.attrs))
    return result.assign_coords(scalar_level), states["valid_time"]


def wave_power(values: np.ndarray) -> np.ndarray:
    """Return |F_k|^2 along the last axis, F the discrete Fourier transform divided by the number of values."""
    return np.abs(np.fft.rfft(values, norm="forward")) ** 2


def _check_longitudes(longitude: xr.DataArray) -> None:
    if not closes_longitude(longitude):
        raise ValueError(
            f"zonal wavenumbers need evenly spaced longitudes around the globe; these {longitude.size} run from "
            f"{longitude.values.min():g} to {longitude.values.max():g}"
        )
