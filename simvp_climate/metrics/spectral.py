"""How much of a field is in which zonal wavenumber: does a forecast blur, and does a long one drift?"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import find_axes
from simvp_climate.data.grid import closes_longitude
from simvp_climate.metrics.aggregation import cell_weights, concat, row_weights, weighted_sums
from simvp_climate.metrics.alignment import SPACE, canonical, on_grid_of, with_times
from simvp_climate.metrics.baselines.climatologies import climatology_at
from simvp_climate.metrics.definitions import Metric
from simvp_climate.metrics.pairs import match, refuse_times
from simvp_climate.metrics.regions import Region

_RADIUS = 1000 * (6357 + 6378) / 2  # meters, as WeatherBench 2


def zonal_spectrum(dataset: xr.Dataset) -> xr.Dataset:
    """Return the zonal energy spectrum of every circle of latitude, as WeatherBench 2 (`ZonalEnergySpectrum`).

    S_0 = C |F_0|^2 and S_k = 2 C |F_k|^2, F the discrete Fourier transform along longitude divided by the number of
    longitudes, C = cos(latitude) 2 pi R, R = 6367.5 km.

    Parameters
    ----------
    dataset
        Analyses or a forecast, on longitudes that go round the globe.

    Returns
    -------
    Dataset with `zonal_wavenumber` in the place of the longitude, from 0 to half their number, float64, in the
    square of the variable's unit times m; coordinates `frequency(zonal_wavenumber, latitude)` in 1/m and `wavelength`
    in m. Lazy where the data are dask arrays.

    Raises
    ------
    ValueError
        If the longitudes do not go round the globe.
    """
    axes = find_axes(dataset)
    longitude, latitude = dataset[axes.longitude], dataset[axes.latitude]
    if not closes_longitude(longitude):
        raise ValueError(
            f"a zonal spectrum needs evenly spaced longitudes round the globe; these {longitude.size} run from "
            f"{longitude.values.min():g} to {longitude.values.max():g}"
        )
    count = longitude.size
    circle = np.cos(np.deg2rad(latitude.astype(np.float64))) * 2 * np.pi * _RADIUS
    factor = xr.DataArray(np.where(np.arange(count // 2 + 1) == 0, 1.0, 2.0), dims="zonal_wavenumber")

    def power(values: np.ndarray) -> np.ndarray:
        return np.abs(np.fft.rfft(values.astype(np.float64), norm="forward")) ** 2

    def spectrum(field: xr.DataArray) -> xr.DataArray:
        found = xr.apply_ufunc(
            power,
            field,
            input_core_dims=[[axes.longitude]],
            output_core_dims=[["zonal_wavenumber"]],
            dask="parallelized",
            output_dtypes=[np.float64],
            dask_gufunc_kwargs={"output_sizes": {"zonal_wavenumber": count // 2 + 1}},
        )
        units = field.attrs.get("units", "")
        return (found * factor * circle).transpose(*found.dims).assign_attrs(units=f"({units})2 m" if units else "m")

    fields = {name: v for name, v in dataset.data_vars.items() if axes.longitude in v.dims}
    result = xr.Dataset({name: spectrum(field) for name, field in fields.items()}, attrs=dataset.attrs)
    number = xr.DataArray(np.arange(count // 2 + 1), dims="zonal_wavenumber", attrs={"long_name": "zonal wavenumber"})
    with np.errstate(divide="ignore"):
        frequency = number / circle
        return result.assign_coords(
            zonal_wavenumber=number,
            frequency=frequency.assign_attrs(units="1/m"),
            wavelength=(1 / frequency).assign_attrs(units="m"),
        )


def variance_by_wavenumber(forecast: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Return the variance of a forecast in every zonal wavenumber relative to that of the truth, by lead.

    <|F_k|^2> of the forecast over that of the truth, means over initializations and, by area, over latitudes: 1 where
    the forecast is as rough as the truth, less where it blurs. Wavenumber 0 is the zonal mean and left out.

    Parameters
    ----------
    forecast, truth
        As in `rmse`, on longitudes that go round the globe.

    Returns
    -------
    Dataset in memory with the variables of the forecast, dims (zonal_wavenumber, lead_time[, level]), no unit.

    Raises
    ------
    ValueError
        As in `rmse`, or if the longitudes do not go round the globe.
    """
    pairs = match(forecast, truth, None)
    longitude = pairs.grid["longitude"]
    if not closes_longitude(longitude):
        raise ValueError(
            f"these {longitude.size} longitudes do not go round the globe, so that they have no wavenumbers"
        )
    last = longitude.size // 2

    def powers(field: xr.Dataset) -> list[xr.Dataset]:
        def all_of(one: xr.DataArray) -> xr.DataArray:
            values = one.transpose(..., "longitude")
            found = np.abs(np.fft.rfft(values.values, norm="forward")[..., 1:]) ** 2
            return values.isel(longitude=0, drop=True).expand_dims(wavenumber=last, axis=-1).copy(data=found)

        whole = field.map(all_of)
        return [whole.isel(wavenumber=at) for at in range(last)]

    metric = Metric(lambda f: (*powers(f.forecast), *powers(f.truth)), lambda *means: means)
    rows = row_weights(pairs.grid["latitude"], "area")
    sums = weighted_sums(pairs, {"power": metric}, rows, False)["", "power"].sum("init_time", skipna=False)
    parts = []
    for at in range(last):
        theirs = sums.isel(part=last + at)
        parts.append(sums.isel(part=at) / theirs.where(theirs != 0))
    number = xr.DataArray(np.arange(1, last + 1), dims="zonal_wavenumber", name="zonal_wavenumber")
    result = concat(parts, number)
    labels = {"level": pairs.forecast["level"]} if "level" in pairs.grid else {}
    result = result.transpose("zonal_wavenumber", "lead_time", "level", ..., missing_dims="ignore")
    for name in result.data_vars:
        result[name].attrs = {"units": "1", "long_name": f"variance of {name}, forecast over truth"}
    return result.assign_coords(labels).assign_attrs({})


def _dims(climatology: xr.Dataset) -> set:
    """Return the dimensions of a climatology, that of levels under any name too."""
    level = find_axes(climatology).level
    return {*climatology.dims, *(("level",) if level is not None else ())}


def drift(
    forecast: xr.Dataset,
    truth: xr.Dataset | None = None,
    climatology: xr.Dataset | None = None,
    *,
    regions: Sequence[str] | Mapping[str, Region] | None = None,
    allow_overlap: bool = False,
) -> xr.Dataset:
    """Return the area mean of a forecast less that of the truth, by initialization and lead: does the climate drift?

    Parameters
    ----------
    forecast
        Dims (init_time, lead_time, [level,] latitude, longitude).
    truth
        As in `rmse`; pairs without are missing in the result.
    climatology
        Instead of the truth, as `climatology` gives it: for rollouts longer than the analyses. Cells count that have
        values in the first forecast and at all times of the climatology.
    regions
        As in `score`; "land" and "sea" take a land-sea mask beside the truth or the climatology.
    allow_overlap
        Whether valid times may lie in the period of the climatology.

    Returns
    -------
    Dataset in memory, dims (init_time, lead_time[, level, region]), in the unit of the variable.

    Raises
    ------
    ValueError
        If both or none of truth and climatology are given, if valid times lie in its period, or as in `rmse`.
    """
    if (truth is None) == (climatology is None):
        raise ValueError("give the truth or a climatology, and not both: drift(forecast, truth)")
    if climatology is not None:
        level = find_axes(forecast).level or ("level" if "level" in forecast.coords else None)
        picked = level is not None and forecast[level].ndim == 0
        whole = forecast.expand_dims(level) if picked and level in _dims(climatology) else forecast
        inside = canonical(whole)
        if not allow_overlap:
            refuse_times(climatology.attrs, "climatology", "the climatology", inside["valid_time"].values.ravel())
        normal = on_grid_of(climatology, inside, "the climatology").load()
        weight = cell_weights({dim: inside[dim] for dim in SPACE}, "area", regions, climatology)
        means = {}
        for name in map(str, inside.data_vars):
            own, usual = inside[name], normal[name]
            apart = [dim for dim in usual.dims if dim not in (*SPACE, "level")]
            there = own.isel(init_time=0, lead_time=0, drop=True).notnull() & usual.notnull().all(apart)
            cells = (weight * there).compute()
            own, usual = (
                # zero times what is missing is missing: what is of no weight is not seen
                (one.where(there, 0) * cells).sum(SPACE, skipna=False) / cells.sum(SPACE).where(lambda x: x != 0)
                for one in (own, usual)
            )
            usual = climatology_at(usual.to_dataset(name=name), inside["valid_time"])[name]
            means[name] = (own - usual.drop_vars([c for c in usual.coords if c not in usual.dims])).compute()
        result = xr.Dataset(means).drop_vars("valid_time", errors="ignore")
        if "level" in result.dims:  # in the units handed in
            result = result.assign_coords(level=("level", whole[level].values, whole[level].attrs))
            result = result.isel(level=0) if picked else result
        valid_time = inside["valid_time"]
    else:
        pairs = match(forecast, truth, None)
        cells = cell_weights(pairs.grid, "area", regions, truth)
        metric = Metric(lambda f: (f.error,), lambda x: x)
        sums = weighted_sums(pairs, {"mean": metric}, cells, False)["", "mean"]
        divisor = sums.isel(part=1)
        result = sums.isel(part=0) / divisor.where(divisor != 0)
        if "level" in pairs.grid:
            result = result.assign_coords(level=pairs.forecast["level"])
        ordered, valid_time = with_times(forecast)
        # as the pairs are
        valid_time = valid_time.isel(init_time=np.argsort(ordered["init_time"].values, kind="stable"))
    for name in result.data_vars:
        order = ("init_time", "lead_time", "level", "region", ...)
        result[name] = result[name].transpose(*order, missing_dims="ignore")
        result[name].attrs = {"units": forecast[name].attrs.get("units", "")}
    return result.assign_coords(valid_time=(("init_time", "lead_time"), valid_time.values))
