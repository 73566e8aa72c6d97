"""Measure the ensemble trained on the CRPS beside a single forecaster and an ensemble of perturbed initial states.

    python benchmarks/crps.py scores [--period valid] [--ensemble other.safetensors]
    python benchmarks/crps.py costs

All on the bundled sample, a simulated climate: trained on January 2001 to August 2003; September to December 2003
chose the settings and fitted the amplitude of the perturbations; January to April 2004 is the test period.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
import xarray as xr

import simvp_climate as sc

PERIODS = {"valid": slice("2003-09", "2003-12"), "test": slice("2004-01", "2004-04")}
LEADS = pd.to_timedelta([6, 24, 72, 120, 240], "h")
REGIONS = ("tropics", "northern extratropics", "southern extratropics")
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0], pretty_exceptions_enable=False)


@app.command()
def scores(
    period: str = "test",
    ensemble: Annotated[Path | None, typer.Option(help="A forecaster with noise. Default: sample-ensemble.")] = None,
    every: str = "2D",
    members: int = 16,
) -> None:
    """Print the scores of all systems, their ratios, and how reliable the ensemble is."""
    torch.set_num_threads(1)
    ds = sc.open_sample(["z500", "t2m"])
    train, valid, truth = (ds.sel(time=times) for times in (slice(None, "2003-08"), PERIODS["valid"], PERIODS[period]))
    single = sc.open_pretrained("sample", device="cpu")
    noisy = sc.Forecaster.load(ensemble, device="cpu") if ensemble else sc.open_pretrained("sample-ensemble", "cpu")
    amplitude = sc.fit_amplitude(single, valid, train)
    when = {"every": every, "horizon": 40}
    systems = {
        "single": single(truth, **when),
        "perturbed": sc.perturbed_ensemble(single, truth, train, amplitude, members=members, **when),
        "crps": noisy(truth, **when, members=20),
    }
    systems["crps"], twenty = systems["crps"].isel(number=slice(0, members)), systems["crps"]
    systems = {name: forecast.sel(lead_time=LEADS).assign_attrs(system=name) for name, forecast in systems.items()}
    print(f"{members} members, amplitude of perturbations {amplitude:.3f}, leads 6 / 24 / 72 / 120 / 240 h")
    ensembles = {name: systems[name] for name in ("single", "perturbed")}
    table = sc.score(systems["crps"], truth, baselines=ensembles, persistence=False, bootstrap=None)
    for name in ("z500", "t2m"):
        rows = {system: table[name].sel(system=system) for system in systems}
        for system, row in rows.items():
            for metric in ("crps", "rmse", "spread_skill_ratio", "member_small_scale_variance"):
                print(f"{name}, {system}, {metric}: {slashes(row.sel(metric=metric))}")
        for metric, other in (("crps", "perturbed"), ("rmse", "single")):
            ratio = rows["crps"].sel(metric=metric) / rows[other].sel(metric=metric)
            print(f"{name}, ratio of {metric} to {other}: {slashes(ratio)}")
    print_reliability(twenty.sel(lead_time=LEADS), truth)


def print_reliability(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """Print the coverage of the range of 20 members, which is 19/21 if the ensemble is reliable, and the ranks."""
    bounds = xr.concat([forecast.min("number"), forecast.max("number")], pd.Index(["lower", "upper"], name="bound"))
    coverage = sc.uncertainty.coverage(bounds.assign_attrs(probability=0.9), truth, regions=REGIONS)
    ranks = sc.metrics.rank_histogram(forecast, truth)
    for name in ("z500", "t2m"):
        values = coverage[name]
        print(f"{name}, coverage of 20 members: {slashes(values.mean('region'))}, by region and lead "
              f"from {float(values.min()):.3f} to {float(values.max()):.3f}")  # fmt: skip
        deviation = abs(ranks[name] * ranks.sizes["rank"] - 1).mean("rank")
        print(f"{name}, mean deviation of ranks from flat: {slashes(deviation)}")


def slashes(values: xr.DataArray) -> str:
    return " / ".join(f"{float(value):.3g}" for value in values)


@app.command()
def costs(rounds: int = 3) -> None:
    """Print the processor time of training steps and forecasts of members relative to single ones, in turns."""
    torch.set_num_threads(1)
    ds = sc.open_sample(["z500", "t2m"]).isel(time=slice(0, 400))
    task, model = sc.Task(["z500", "t2m"], history=4, horizon=4), sc.SimVPSphereConfig()  # "crps" adds noise
    configs = {1: sc.TrainConfig(progress=False, epochs=1, limit_train_batches=24, precision="32-true")}
    configs |= {
        members: sc.TrainConfig(
            progress=False, epochs=1, limit_train_batches=24, precision="32-true",
            loss="crps", members=members, crps_share=1.0,
        )
        for members in (2, 4)
    }  # fmt: skip
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        trained = []  # without noise, with noise
        for members, config in configs.items():
            start = time.process_time()
            trained.append(sc.train(task, ds, valid=None, model=model, config=config, device="cpu"))
            seconds.setdefault(f"training, {members} members", []).append(time.process_time() - start)
        for members in (None, 4, 16):
            start = time.process_time()
            forecaster = trained[0] if members is None else trained[1]
            forecaster(ds, every="5D", horizon=20, members=members)
            seconds.setdefault(f"forecasts, {members or 1} members", []).append(time.process_time() - start)
    for name, values in seconds.items():
        kind, members = name.split(", ")[0], int(name.split()[1])
        first = next(statistics.median(seconds[other]) for other in seconds if other.startswith(kind))
        median = statistics.median(values)
        print(f"{name}: {median:.2f} s, {median / first / members:.2f} of as many single ones")


if __name__ == "__main__":
    app()
