"""Repeat the forecast in a file with its forecaster and data, and compare the two."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from simvp_climate.data.conventions import as_forecast, canonicalize
from simvp_climate.data.conversions import from_valid_time
from simvp_climate.data.grid import find_member
from simvp_climate.data.opening import open_dataset, open_sample
from simvp_climate.data.windows import lead_times
from simvp_climate.forecasting.ensemble import ensemble, perturbed_ensemble
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.forecasting.pretrained import open_source


def reproduce(
    forecast: xr.Dataset, forecaster: Forecaster | Sequence[Forecaster] | None = None,
    dataset: xr.Dataset | None = None, *, perturbations: xr.Dataset | None = None,
    tolerance: float = 1e-3,
) -> str:  # fmt: skip
    """Repeat a forecast, and return a report on the differences.

    Parameters
    ----------
    forecast
        From a forecaster, `ensemble` or `perturbed_ensemble`, or read from a file. A selection of its initializations,
        leads or members is enough.
    forecaster
        The forecaster with the SHA-256 in the attribute `forecaster_sha256` of the forecast; for an ensemble of
        forecasters all of them, in any order. None: the files that the attribute `forecaster_source` names; they must
        have that SHA-256.
    dataset
        The data that the forecast started from. None: those at the path in the attribute `data_source`.
    perturbations
        For a perturbed ensemble: the states that its perturbations were drawn from.
    tolerance
        Largest difference allowed, in standard deviations of the variable. Machines round sums differently, and a long
        rollout amplifies that.

    Returns
    -------
    One line for each variable, and a line that says whether the data are bit for bit those of the forecast.

    Raises
    ------
    ValueError
        If the forecast does not name its forecaster, is from another forecaster, or differs by more than the tolerance;
        the message lists the differences and says whether the data are the same.
    FileNotFoundError
        If a file that the forecast names does not exist.
    """
    if forecaster is None:
        forecaster = _open_forecasters(forecast)
    forecasters = _match_forecasters(forecast, [forecaster] if isinstance(forecaster, Forecaster) else forecaster)
    dataset = _open_data(forecast, forecasters[0]) if dataset is None else dataset
    _check_ensemble(forecast, dataset, len(forecasters), perturbations)
    forecast = _with_all_dimensions(forecast)
    inits, leads = forecast.indexes["init_time"], forecast["lead_time"]
    last, step = leads.values.max(), lead_times(forecasters[0].task.step, 1).values[0]
    horizon = int(last / step)
    if horizon < 1 or last != horizon * step:
        raise ValueError(f"The lead {last} must be a multiple of the forecaster's step, {forecasters[0].task.step}.")
    if perturbations is not None:
        attrs = forecast.attrs
        options = {"members": int(attrs["perturbed_members"]), "seed": int(attrs["perturbation_seed"])}
        arguments = forecasters[0], dataset, perturbations, float(attrs["amplitude"]), inits
        repeated = perturbed_ensemble(*arguments, horizon=horizon, **options)
    elif len(forecasters) > 1:
        repeated = ensemble(forecasters, dataset, init_times=inits, horizon=horizon)
    elif "noise_members" in forecast.attrs:
        options = {"members": int(forecast.attrs["noise_members"]), "seed": int(forecast.attrs["noise_seed"])}
        repeated = forecasters[0](dataset, init_times=inits, horizon=horizon, **options)
    else:
        repeated = forecasters[0](dataset, init_times=inits, horizon=horizon)
    selection = {"lead_time": leads}
    if "number" in repeated.dims and "number" in forecast.coords:
        selection["number"] = forecast["number"].values
    report, largest = _compare(forecast, repeated.sel(selection), forecasters[0].task.levels)
    if largest > tolerance:
        raise ValueError(f"The forecast is not reproduced within tolerance={tolerance:g}. " + "; ".join(report))
    return "\n".join(report)


def _open_forecasters(forecast: xr.Dataset) -> list[Forecaster]:
    """Return the forecasters in the files that a forecast names."""
    sources = str(forecast.attrs.get("forecaster_source", "")).splitlines()
    if not sources:
        message = "The forecast does not name the file of its forecaster, which was not saved before it forecast."
        raise ValueError(f"{message} Pass the forecaster: reproduce(forecast, Forecaster.load(path))")
    return [open_source(source, compile=False) for source in sources]


def _open_data(forecast: xr.Dataset, forecaster: Forecaster) -> xr.Dataset:
    """Return the data that a forecast names."""
    source, task = str(forecast.attrs.get("data_source", "")), forecaster.task
    if not source:
        raise ValueError("The forecast does not name its data. Pass them: reproduce(forecast, forecaster, dataset)")
    if source == "open_sample()":
        return open_sample(list(task.read_variables))
    return open_dataset(source, list(task.read_variables), levels=task.levels)


def _match_forecasters(forecast: xr.Dataset, forecasters: Sequence[Forecaster]) -> list[Forecaster]:
    """Return the forecasters in the order of the digests in a forecast; ValueError if any is missing or unused."""
    if "forecaster_sha256" not in forecast.attrs:
        raise ValueError("The forecast has no attribute forecaster_sha256, so its forecaster is unknown.")
    digests = forecast.attrs["forecaster_sha256"].split()
    by_digest = {forecaster.digest: forecaster for forecaster in forecasters}
    if missing := [digest for digest in digests if digest not in by_digest]:
        available = ", ".join(f"{digest[:12]}..." for digest in by_digest)
        message = f"The forecast is from the forecaster with the SHA-256 {missing[0][:12]}..., not from {available}."
        raise ValueError(f"{message} Pass that forecaster: Forecaster.load(path)")
    if unused := [digest for digest in by_digest if digest not in digests]:
        raise ValueError(f"The forecaster {unused[0][:12]}... did not contribute to the forecast. Leave it out.")
    return [by_digest[digest] for digest in digests]


def _check_ensemble(
    forecast: xr.Dataset, dataset: xr.Dataset, forecaster_count: int, perturbations: xr.Dataset | None
) -> None:
    """Raise ValueError unless the attributes of a forecast explain its members."""
    perturbed, noisy = "perturbed_members" in forecast.attrs, "noise_members" in forecast.attrs
    if perturbed and perturbations is None:
        raise ValueError("The forecast is a perturbed ensemble. Pass perturbations=, the states they were drawn from.")
    if not perturbed and perturbations is not None:
        raise ValueError("The forecast is not a perturbed ensemble. Leave out perturbations.")
    member = find_member(forecast)
    if (perturbed or noisy) and "number" not in forecast.coords:
        raise ValueError(
            "The forecast is one member of an ensemble, but does not say which: it lacks the coordinate 'number'. "
            "Select a member with ensemble.sel(number=0), which keeps it."
        )
    if member is not None and member not in dataset.dims and not (perturbed or noisy) and forecaster_count == 1:
        raise ValueError(
            f"The forecast has members along {member!r}, but its attributes name one forecaster and no perturbations. "
            "Pass the forecast with all attributes of ensemble or perturbed_ensemble."
        )


def _with_all_dimensions(forecast: xr.Dataset) -> xr.Dataset:
    """Return a forecast with dimensions init_time, lead_time and number, also where one value was selected."""
    if "forecast_reference_time" in forecast.coords and "forecast_period" in forecast.coords:
        forecast = from_valid_time(forecast)
    forecast = as_forecast(forecast)
    dims = ("init_time", "lead_time", "number")
    return forecast.expand_dims([dim for dim in dims if dim in forecast.coords and forecast[dim].ndim == 0])


def _compare(forecast: xr.Dataset, repeated: xr.Dataset, levels: Sequence[float] | None) -> tuple[list[str], float]:
    """Return a report on two forecasts, and their largest difference in standard deviations of a variable."""
    names = [str(name) for name in forecast.data_vars]
    before, after = (canonicalize(each, names, levels).dataset for each in (forecast, repeated))
    report, largest = [], 0.0
    for name in names:
        first, second = before[name].values, after[name].transpose(*before[name].dims).values
        if (np.isnan(first) != np.isnan(second)).any():
            raise ValueError(f"The mask of {name} differs: other cells of the repeated forecast are NaN.")
        difference = float(np.nanmax(abs(first - second)))
        relative = difference / max(float(np.nanstd(first)), np.finfo(np.float32).tiny)
        largest = max(largest, relative)
        change = f"differs by at most {difference:.3g}, {relative:.1g} of its standard deviation"
        report.append(f"{name}: {change if difference else 'bit by bit the same'}")
    is_same = repeated.attrs["data_sha256"] == forecast.attrs.get("data_sha256")
    other = "not those of the forecast (other values, or only some of its initializations)"
    report.append(f"data: {'bit by bit those of the forecast' if is_same else other}")
    return report, largest
