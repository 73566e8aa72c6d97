"""Measure the ensemble trained on the CRPS beside a single forecaster and an ensemble of perturbed initial states.

    python benchmarks/crps.py scores [--period valid] [--ensemble other.safetensors] [--second second.safetensors]
    python benchmarks/crps.py second --out second.safetensors
    python benchmarks/crps.py costs
    python benchmarks/crps.py real --data air.zarr --variable air

All but `real` on the bundled sample, a simulated climate: trained on January 2001 to August 2003; September to December
2003 chose the settings and fitted the amplitude of the perturbations; January to April 2004 is the test period.
`second` trains the forecaster "sample" again with another seed, for `scores` of an ensemble of two seeds. `real` takes
60 % of a series for training, 20 % for validation and 20 % for the test.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
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
    second: Annotated[Path | None, typer.Option(help="Another seed of the single forecaster.")] = None,
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
    if second:
        systems["seeds"] = sc.ensemble([single, sc.Forecaster.load(second, device="cpu")], truth, **when)
    systems["crps"], twenty = systems["crps"].isel(number=slice(0, members)), systems["crps"]
    systems = {name: forecast.sel(lead_time=LEADS).assign_attrs(system=name) for name, forecast in systems.items()}
    print(f"{members} members, amplitude of perturbations {amplitude:.3f}, leads 6 / 24 / 72 / 120 / 240 h")
    ensembles = {name: forecast for name, forecast in systems.items() if name != "crps"}
    table = sc.score(systems["crps"], truth, baselines=ensembles, persistence=False, bootstrap=None)
    for name in ("z500", "t2m"):
        rows = {system: table[name].sel(system=system) for system in systems}
        for system, row in rows.items():
            for metric in ("crps", "rmse", "spread_skill_ratio", "member_small_scale_variance"):
                print(f"{name}, {system}, {metric}: {slashes(row.sel(metric=metric))}")
        pairs = [("crps", "perturbed"), ("crps", "seeds"), ("rmse", "single")]
        for metric, other in [pair for pair in pairs if pair[1] in rows]:
            ratio = rows["crps"].sel(metric=metric) / rows[other].sel(metric=metric)
            print(f"{name}, ratio of {metric} to {other}: {slashes(ratio)}")
    print_reliability(twenty.sel(lead_time=LEADS), truth)


def print_reliability(forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """Print the coverage of the range of 20 members, which is 19/21 if the ensemble is reliable, and the ranks."""
    bounds = xr.concat([forecast.min("number"), forecast.max("number")], pd.Index(["lower", "upper"], name="bound"))
    bounds = bounds.assign_attrs(probability=19 / 21)
    coverage = sc.uncertainty.coverage(bounds, truth, regions=REGIONS, by="season")
    ranks = sc.metrics.rank_histogram(forecast, truth)
    for name in ("z500", "t2m"):
        values = coverage[name]
        mean, low, high = slashes(values.mean(("region", "season"))), float(values.min()), float(values.max())
        print(f"{name}, coverage of 20 members: {mean}, by region, season and lead from {low:.3f} to {high:.3f}")
        deviation = abs(ranks[name] * ranks.sizes["rank"] - 1).mean("rank")
        print(f"{name}, mean deviation of ranks from flat: {slashes(deviation)}")


def slashes(values: xr.DataArray) -> str:
    return " / ".join(f"{float(value):.3g}" for value in values)


@app.command("second")
def train_second(out: Annotated[Path, typer.Option(help="File of the forecaster.")]) -> None:
    """Train as tools/make_pretrained.py does, with another seed."""
    torch.set_num_threads(1)
    ds = sc.open_sample(["z500", "t2m"])
    single = sc.open_pretrained("sample", device="cpu")
    config = sc.TrainConfig(epochs=6, rollout=2, validation_windows=128, precision="bf16-mixed", seed=1)
    train, valid = ds.sel(time=slice(None, "2003-08")), ds.sel(time=PERIODS["valid"])
    sc.train(single.task, train, valid=valid, model=single.network.config, config=config, device="cpu").save(out)


@app.command()
def real(
    data: Annotated[Path, typer.Option(help="A series that sc.open_dataset reads.")],
    variable: Annotated[str, typer.Option(help="Its variable to forecast.")],
    epochs: int = 4,
    members: int = 16,
) -> None:
    """Train a single forecaster and an ensemble on a real series; print their scores beside those of climatology."""
    torch.set_num_threads(1)
    ds = sc.open_dataset(data, [variable])
    first, last = (int(ds.sizes["time"] * share) for share in (0.6, 0.8))
    train, valid, test = (ds.isel(time=slice(*ends)) for ends in ((0, first), (first, last), (last, None)))
    task = sc.Task([variable], history=4, horizon=4, forcings=("time_of_day",))
    config = sc.TrainConfig(epochs=epochs, rollout=2)
    single = sc.train(task, train, valid=valid, model=sc.SimVPSphereConfig(), config=config, device="cpu")
    config = sc.TrainConfig(
        epochs=2, loss="crps", optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, rollout=3, rollout_share=0.3
    )
    noisy = sc.train(task, train, valid=valid, start_from=single, config=config, device="cpu")
    noisy = sc.calibrate_noise(noisy, valid, horizon=20)
    print(f"factor of the noise {noisy.provenance['noise_factor']}")
    leads = LEADS[:4]
    forecast = noisy(test, every="12h", horizon=20, members=members).sel(lead_time=leads).assign_attrs(system="crps")
    forecast = forecast.isel(init_time=(forecast.valid_time.max("lead_time") <= test.time[-1]).values)
    baselines = {
        "single": single(test, init_times=forecast.init_time.values, horizon=20).sel(lead_time=leads),
        "climatology": sc.baselines.climatological_ensemble(train, forecast.init_time, leads),
    }
    table = sc.score(forecast, test, baselines=baselines, persistence=False, bootstrap=None)[variable]
    for system in ("crps", *baselines):
        for metric in ("crps", "mae", "rmse", "spread_skill_ratio"):
            print(f"{variable}, {system}, {metric}: {slashes(table.sel(system=system, metric=metric))}")
    intervals = {
        "quantiles of the members": member_intervals(forecast),
        "conformal intervals of the single forecast": conformal_intervals(single, valid, baselines["single"]),
    }
    for name, bounds in intervals.items():
        for measure in (sc.uncertainty.interval_score, sc.uncertainty.coverage):
            print(f"{variable}, 90 % {name}, {measure.__name__}: {slashes(measure(bounds, test)[variable])}")


def member_intervals(forecast: xr.Dataset) -> xr.Dataset:
    """Return the 5 and 95 % quantiles of the members; of M, the k-th has the probability k / (M + 1)."""
    quantiles = forecast.quantile([0.05, 0.95], "number", method="weibull", keep_attrs=True)
    bounds = quantiles.rename(quantile="bound").assign_coords(bound=["lower", "upper"])
    for name in bounds:
        bounds[name].attrs["interval_probability"] = 0.9
    return bounds


def conformal_intervals(single: sc.Forecaster, valid: xr.Dataset, forecast: xr.Dataset) -> xr.Dataset:
    """Return 90 % intervals, in each month as wide as on average in those of `valid`, which lacks some of the test."""
    intervals = single.interval(0.9, valid, every="12h", horizon=20)
    half_width = intervals.half_width.mean("month", keep_attrs=True).expand_dims(month=np.arange(1, 13))
    half_width = half_width.assign_attrs(months=" ".join(map(str, range(1, 13))))
    return replace(intervals, half_width=half_width)(forecast)


@app.command()
def costs(rounds: int = 3) -> None:
    """Print the processor time of training steps and forecasts of members relative to single ones, in turns."""
    torch.set_num_threads(1)
    ds = sc.open_sample(["z500", "t2m"]).isel(time=slice(0, 400))
    train_steps(ds, 2, 4)  # the first training of a process takes longer
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        forecasters = {}
        for members in (1, 2, 4):
            # what a training takes besides its steps is in both
            shorter, longer = (train_steps(ds, members, steps) for steps in (8, 56))
            seconds.setdefault(f"training step, {members} members", []).append((longer[1] - shorter[1]) / (56 - 8))
            forecasters[members] = longer[0]
        for members in (None, 4, 16):
            start = time.process_time()
            forecaster = forecasters[1] if members is None else forecasters[2]
            forecaster(ds, every="5D", horizon=20, members=members)
            seconds.setdefault(f"forecasts, {members or 1} members", []).append(time.process_time() - start)
    for name, values in seconds.items():
        kind, members = name.split(", ")[0], int(name.split()[-2])
        first = next(statistics.median(seconds[other]) for other in seconds if other.startswith(kind))
        median = statistics.median(values)
        print(f"{name}: {median:.3g} s, {median / first / members:.2f} of as many single ones")


def train_steps(ds: xr.Dataset, members: int, steps: int) -> tuple[sc.Forecaster, float]:
    """Train for some steps, with one member on the squared error; return the forecaster and the processor time."""
    crps = dict(loss="crps", members=members, crps_share=1.0) if members > 1 else {}
    config = sc.TrainConfig(progress=False, epochs=1, limit_train_batches=steps, precision="32-true", **crps)
    task, model = sc.Task(["z500", "t2m"], history=4, horizon=4), sc.SimVPSphereConfig()  # "crps" adds noise
    start = time.process_time()
    forecaster = sc.train(task, ds, valid=None, model=model, config=config, device="cpu")
    return forecaster, time.process_time() - start


if __name__ == "__main__":
    app()
