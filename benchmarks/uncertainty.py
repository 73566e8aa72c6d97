"""Measure the coverage of prediction intervals and the spread of ensembles.

    python benchmarks/uncertainty.py --data gcm.zarr --runs runs

Uses the forecasters that `ablation.py headline` left in a folder (three seeds), on the simulated climate: fitted on
2004, verified on 2005. Prints the coverage of 90 % intervals by season, region and lead, their interval score beside
that of climatological intervals, and CRPS and spread over error of ensembles.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

import simvp_climate as sc

REGIONS = ("tropics", "northern extratropics", "southern extratropics", "arctic", "antarctic")
LEADS = (24, 72, 120, 240)  # hours
SHOWN = ["z500", "t2m"]


def main(
    data: Annotated[Path, typer.Option(help="The simulated climate.")],
    runs: Annotated[Path, typer.Option(help="Folder of ablation.py headline.")],
    probability: float = 0.9,
    days: Annotated[int, typer.Option(help="Days of both years that are used, from January.")] = 366,
) -> None:
    paths = sorted(runs.glob("headline-simvp_climate-?.safetensors"))
    forecasters = [sc.Forecaster.load(path, device="cpu") for path in paths]
    ds = sc.open_dataset(data, forecasters[0].task.variables)
    train, valid, test = (ds.sel(time=years) for years in (slice("2001", "2003"), "2004", "2005"))
    valid, test = (year.isel(time=slice(0, days * 4)) for year in (valid, test))
    climatology = sc.baselines.climatology(train)
    compare_intervals(forecasters[0], climatology, valid, test, probability)
    compare_ensembles(forecasters, climatology, train, valid, test)


def compare_intervals(
    forecaster: sc.Forecaster, climatology: xr.Dataset, valid: xr.Dataset, test: xr.Dataset, probability: float
) -> None:
    """Print coverage and interval score of intervals around forecasts and around climatology."""
    fitted_on, verified = verifiable_forecast(forecaster, valid), verifiable_forecast(forecaster, test)
    intervals = sc.uncertainty.fit_intervals(fitted_on, valid, probability, climatology)(verified)
    climatological = sc.uncertainty.fit_intervals(climatology_as(fitted_on, climatology), valid, probability)
    climatological = climatological(climatology_as(verified, climatology))
    by_season = sc.uncertainty.coverage(intervals, test, regions=REGIONS, by="season")
    overall = sc.uncertainty.coverage(intervals, test)
    scores = [sc.uncertainty.interval_score(bounds, test) for bounds in (intervals, climatological)]
    for name in SHOWN:
        values = by_season[name]
        extremes = [
            " ".join(str(v) for v in values.where(values == extreme, drop=True).stack(at=values.dims).at.values[0])
            for extreme in (values.min(), values.max())
        ]
        outside = int(((values < 0.85) | (values > 0.95)).sum())
        print(
            f"{name}: coverage {float(overall[name].mean()):.3f}, by season, region and lead from "
            f"{float(values.min()):.3f} ({extremes[0]}) to {float(values.max()):.3f} ({extremes[1]}); "
            f"{outside} of {values.size} outside 0.85 to 0.95"
        )
        for lead, (a, b) in enumerate(zip(*(score[name] for score in scores), strict=True)):
            line = f"interval score {float(a):.4g}, climatological {float(b):.4g}, ratio {float(a / b):.2f}"
            print(f"    {LEADS[lead]} h: {line}")


def verifiable_forecast(forecaster: sc.Forecaster, dataset: xr.Dataset) -> xr.Dataset:
    """Return daily forecasts at `LEADS` whose valid times all lie in the dataset."""
    forecast = forecaster(dataset, every="24h", horizon=LEADS[-1] // 6)[SHOWN]
    forecast = forecast.sel(lead_time=[np.timedelta64(lead, "h") for lead in LEADS])
    complete = forecast["valid_time"].max("lead_time") <= dataset["time"].max()
    return forecast.isel(init_time=np.flatnonzero(complete))


def climatology_as(forecast: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    """Return the climatology at the valid times of a forecast, laid out like the forecast."""
    normal = sc.baselines.climatology_at(climatology[SHOWN], forecast["valid_time"])
    normal = normal.drop_vars(["hour", "dayofyear"], errors="ignore")
    fields = {name: normal[name].transpose(*forecast[name].dims).assign_attrs(forecast[name].attrs) for name in SHOWN}
    return forecast.assign(fields)


def compare_ensembles(
    forecasters: list[sc.Forecaster], climatology: xr.Dataset, train: xr.Dataset, valid: xr.Dataset, test: xr.Dataset
) -> None:
    """Print the scores of one forecaster, of all seeds, and of perturbed initial states."""
    single, every = forecasters[0], "4D"
    amplitude = sc.fit_amplitude(single, valid, train, lead=12, every="12D", members=6)
    print(f"amplitude of perturbations {amplitude:.3f} (ratio 1 at 72 h on 2004)")
    systems = {
        "one": single(test, every=every, horizon=40),
        f"{len(forecasters)} seeds": sc.ensemble(forecasters, test, every=every, horizon=40),
        "10 perturbed": sc.perturbed_ensemble(single, test, train, amplitude, every=every, horizon=40),
    }
    leads = [np.timedelta64(lead, "h") for lead in LEADS]
    for label, forecast in systems.items():
        table = sc.score(forecast[SHOWN].sel(lead_time=leads), test, climatology, bootstrap=None)
        system = table["system"].values[0]
        for name in SHOWN:
            rows = table[name].sel(system=system)
            metrics = [m for m in ("rmse", "mae", "crps", "spread_skill_ratio") if m in rows["metric"]]
            texts = [f"{m} {' / '.join(f'{x:.3g}' for x in rows.sel(metric=m).values)}" for m in metrics]
            print(f"{label}, {name}: {'; '.join(texts)}")


if __name__ == "__main__":
    typer.run(main)
