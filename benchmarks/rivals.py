"""Compare networks at equal processor time: ResNet, U-Net, SFNO, ViT, SimVPv2 as published, and this package's own.

    python benchmarks/rivals.py costs --data gcm.zarr --out runs     processor time of a step of each network
    python benchmarks/rivals.py rates --data gcm.zarr --out runs     learning rates of each network, scored on 2004
    python benchmarks/rivals.py run --data gcm.zarr --out runs       four budgets, three seeds, scored on 2004
    python benchmarks/rivals.py test --data gcm.zarr --out runs      the same forecasters, scored on 2005
    python benchmarks/rivals.py report --data gcm.zarr --out runs    a section of docs/rivals.md, and docs/rivals.png
    python benchmarks/rivals.py own --data mine.zarr --variables z500,t2m --network "ResNet, half resolution"

The climate is five years of a general circulation model, 6-hourly on 32 x 64 cells: 2001 to 2003 train, 2004 decides,
2005 is for `test` alone. All networks train with `sc.train`: the same data, loader, loss and schedule; one row, named
so, has its own loss. Each run is a process with one thread. It takes as many steps as fit into its budget of processor
time, loader included, by the time of a step from `costs`, which is measured once, in turns and on a quiet machine: so
all seeds take the same number of steps, and noise of the machine favors no network. The schedule ends with the budget,
and the last weights are kept, so there is no validation. Runs with a result in the folder are skipped.
"""

import dataclasses
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import ablation
import numpy as np
import rival_networks
import rival_report
import typer
import xarray as xr
from lightning_fabric.loggers import Logger

import simvp_climate as sc

LEADS = rival_report.LEADS  # hours
RATES = (2e-3, 4e-3, 8e-3, 16e-3)
OPTIMIZERS = ("adamw", "muon")
BUDGETS = (100.0, 300.0, 600.0, 1800.0)  # seconds of processor time
METRICS = ("rmse", "mae", "acc", "activity", "small_scale_variance")
VARIABLES = ("z500", "t2m")  # of the tables
DOCS = Path(__file__).parents[1] / "docs"
YEARS = {"rates": "2004", "run": "2004", "test": "2005"}
# without weights of variables; three quarters of the steps train one call of the network, the last quarter two
TRAINING = sc.TrainConfig(optimizer="muon", batch_size=4, rollout=2, progress=False)


@dataclass(frozen=True)
class Network:
    """A network of the leaderboard: what `sc.train` takes as model, its variables and training; `rate` is for `own`."""

    model: sc.SimVPSphereConfig | sc.SimVPv2Config | Callable[[sc.NetworkShape], object]
    variables: tuple[str, ...] = ablation.FIVE_VARIABLES
    config: sc.TrainConfig = TRAINING
    is_own: bool = False  # one of this package, to be compared with the best of the others
    rate: float = 16e-3  # of Muon, the best on the simulated climate
    needs: str | None = None  # a module that must be installed
    is_variant: bool = False  # a rival with a part of this package's network, not counted as the best of the others

    @property
    def task(self) -> sc.Task:
        return sc.Task(self.variables, history=4, horizon=4)


NETWORKS = {
    "ours": Network(sc.SimVPSphereConfig(padding="periodic"), is_own=True),
    "ResNet": Network(rival_networks.resnet),
    "ResNet, half resolution": Network(rival_networks.half_resolution_resnet, rate=32e-3),
    "ResNet, half resolution, position field": Network(rival_networks.positioned_resnet, rate=32e-3, is_variant=True),
    "ConvNeXt U-Net": Network(rival_networks.convnext_unet),
    "SFNO": Network(rival_networks.sfno, needs="torch_harmonics"),
    "ViT": Network(rival_networks.vit, rate=8e-3),
    "ViT, windows": Network(rival_networks.window_vit, rate=8e-3),
    "SimVPv2 as published": Network(ablation.PUBLISHED.model, rate=8e-3),
    "SimVPv2 as published, its own loss and training, tuned": Network(
        ablation.TUNED.model,
        ablation.TUNED.variables,
        replace(
            ablation.TUNED.config,
            optimizer="muon",
            weight_decay=None,
            validation_windows=TRAINING.validation_windows,
        ),
        rate=8e-3,
    ),
}

Folder = Annotated[Path, typer.Option()]
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0], pretty_exceptions_enable=False)


# ---- training for a budget of processor time


class StepClock(Logger):
    """Records the processor time at the end of every epoch."""

    name, version = "clock", None

    def __init__(self):
        self.times: list[float] = []

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        if "learning_rate" in metrics:
            self.times.append(time.process_time())

    def log_hyperparams(self, params: dict) -> None:
        pass


def measure_step(network: Network, task: sc.Task, train: xr.Dataset, batches: int) -> tuple[float, float]:
    """Return the processor time of a step, with a quarter of rollouts, and that before the first step, in seconds."""
    config = replace(network.config, epochs=1, limit_train_batches=1)
    sc.train(task, train, valid=None, model=network.model, config=config, device="cpu")  # imports modules
    clock = StepClock()
    start = time.process_time()
    config = replace(network.config, epochs=8, limit_train_batches=batches)
    sc.train(task, train, valid=None, model=network.model, config=config, logger=clock, device="cpu")
    # epochs 7 and 8 are rollouts; the first one also warms up
    seconds = [(after - before) / batches for before, after in zip(clock.times, clock.times[1:], strict=False)]
    first, last = statistics.median(seconds[:5]), statistics.median(seconds[5:])
    return 0.75 * first + 0.25 * last, max(0.0, clock.times[0] - start - batches * first)


def train_for(
    budget: float, network: Network, task: sc.Task, train: xr.Dataset, cost: tuple[float, float] | None = None
) -> tuple[sc.Forecaster, dict]:  # fmt: skip
    """Return a forecaster after `budget` seconds of processor time in `sc.train`, and what was measured.

    `cost` is what `measure_step` returns; without it, it is measured first.
    """
    step, before = cost or measure_step(network, task, train, 4 if budget >= 60 else 1)
    steps = max(10.0, (budget - before) / step)
    in_epoch = 0.9 * train.sizes["time"] / network.config.batch_size  # a bit fewer than an epoch has
    epochs = max(10, math.ceil(steps / in_epoch))
    batches = max(1, round(steps / epochs))
    config = replace(network.config, epochs=epochs, limit_train_batches=batches)
    start = time.process_time()
    forecaster = sc.train(task, train, valid=None, model=network.model, config=config, device="cpu")
    seconds = time.process_time() - start
    return forecaster, {
        "parameters": sum(value.numel() for value in forecaster.network.parameters()),
        "ms_a_step": round(1000 * step, 1),
        "steps": epochs * batches,
        "cpu_seconds": round(seconds, 1),
    }


# ---- forecasts and scores


def forecast_year(forecaster: sc.Forecaster, truth: xr.Dataset, every: int) -> xr.Dataset:
    """Return forecasts at LEADS, from 00 UTC of every n-th day with a full history and a truth at all leads."""
    leads = [np.timedelta64(lead, "h") for lead in LEADS]
    starts = truth.indexes["time"][forecaster.task.history - 1 :]
    starts = starts[(starts == starts.floor("D")) & (starts + leads[-1] <= truth.indexes["time"][-1])][::every]
    parts = []
    for first in range(0, len(starts), 32):  # not all leads of all days in memory
        forecast = forecaster(truth, init_times=starts[first : first + 32], horizon=LEADS[-1] // 6)
        parts.append(forecast.sel(lead_time=leads))
    return xr.concat(parts, "init_time", join="exact")


def scores(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset) -> dict:
    """Return {variable: {metric: values by lead}}, with the ends of intervals as <metric>_low and <metric>_high."""
    table = sc.score(forecast, truth, climatology=climatology, metrics=METRICS, persistence=False)
    resolution = sc.metrics.effective_resolution(forecast, truth)
    table = table.sel(system="forecast")
    results = {}
    for name in forecast.data_vars:
        results[name] = {}
        for metric in METRICS:
            for end in ("", "_low", "_high"):
                values = select(table, f"{name}{end}", metric)
                results[name][metric + end] = [round(value, 5) for value in values]
        results[name]["effective_resolution"] = resolution[name].values.tolist()
    return results


def select(table: xr.Dataset, name: str, metric: str) -> list[float]:
    """Return the values of a metric by lead; NaN for intervals that too few initializations do not have."""
    if name not in table.variables:
        return [math.nan] * table.sizes["lead_time"]
    return table[name].sel(metric=metric).values.tolist()


def compare(forecast: xr.Dataset, rivals: dict[str, xr.Dataset], truth: xr.Dataset) -> dict:
    """Return {rival: {variable: (ratio of the RMSE of the forecast and the rival, low, high), by lead}}."""
    table = sc.score(forecast, truth, baselines=rivals, metrics=["rmse_skill"], persistence=False)
    table = table.sel(system=table["system"].values[0])
    labels = {name: f"rmse_skill_vs_{name.replace(' ', '_')}" for name in rivals}
    return {
        rival: {
            # the skill is 1 - ratio, so the ends change places
            name: [[1 - x for x in select(table, f"{name}{end}", label)] for end in ("", "_high", "_low")]
            for name in map(str, forecast.data_vars)
        }
        for rival, label in labels.items()
    }


def save_packed(forecast: xr.Dataset, path: Path) -> None:
    """Write a forecast as 16-bit integers, to a 65,000th of the range of each variable."""
    encoding = {}
    for name, field in forecast.data_vars.items():
        low, high = float(field.min()), float(field.max())
        scale = max(high - low, 1e-12) / 65000
        encoding[name] = {"dtype": "int16", "scale_factor": scale, "add_offset": (low + high) / 2, "_FillValue": -32768}
    unfinished = path.with_suffix(".unfinished")
    forecast.to_netcdf(unfinished, encoding=encoding)
    os.replace(unfinished, path)


# ---- runs


@dataclass(frozen=True)
class Job:
    """A run of one network."""

    stage: str  # "rates" or "run", and "test" for the second score of a forecaster of "run"
    name: str
    budget: float
    optimizer: str
    rate: float
    seed: int
    precision: str

    def path(self, out: Path, stage: str | None = None) -> Path:
        """Return the path of the result; a run does not have optimizer and rate in its name."""
        name = "".join(c if c.isalnum() else "_" for c in self.name)
        parts = [stage or self.stage, name, f"{self.budget:g}s", str(self.seed), self.precision]
        if self.stage == "rates":
            parts[3:3] = [self.optimizer, f"{self.rate:g}"]
        return out / f"{'-'.join(parts)}.json"


def climate(data: Path, variables: tuple[str, ...], stage: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the years for training and the year that scores a stage."""
    ds = sc.open_dataset(data, variables)
    return ds.sel(time=slice("2001", "2003")), ds.sel(time=YEARS[stage])


def measure(job: Job, data: Path, out: Path, every: int) -> dict:
    """Train and score a network; in the stage "test" score that of "run"."""
    network, path = NETWORKS[job.name], job.path(out)
    train, truth = climate(data, network.variables, job.stage)
    weights = job.path(out, "run").with_suffix(".safetensors")
    result = {
        "stage": job.stage, "name": job.name, "budget": job.budget, "optimizer": job.optimizer,
        "rate": job.rate, "seed": job.seed, "precision": job.precision,
    }  # fmt: skip
    if job.stage == "test":
        builder = network.model if callable(network.model) else None
        forecaster = sc.Forecaster.load(weights, device="cpu", network=builder)
        trained = json.loads(job.path(out, "run").read_text())
        result |= {key: trained[key] for key in ("parameters", "ms_a_step", "steps", "cpu_seconds")}
    else:
        changes = {"optimizer": job.optimizer, "learning_rate": job.rate, "seed": job.seed}
        network = replace(network, config=replace(network.config, precision=job.precision, **changes))
        try:
            cost = read_costs(out, job.precision)[job.name]
            forecaster, measured = train_for(job.budget, network, network.task, train, cost)
        except FloatingPointError as error:  # the rate is too high
            return {**result, "failed": str(error)}
        result |= measured
        if job.stage == "run":
            forecaster.save(weights)
    forecast = forecast_year(forecaster, truth, every)
    if job.stage != "rates":
        save_packed(forecast[list(VARIABLES)], path.with_suffix(".nc"))
    if job.stage == "test":
        result["long_forecasts"] = ablation.long_forecasts(forecaster, truth)
    climatology = sc.baselines.climatology(train)
    return {**result, "scores": scores(forecast.assign_attrs(system="forecast"), truth, climatology)}


@app.command(hidden=True)
def job(
    stage: str, name: str, budget: float, optimizer: str, rate: float, seed: int, precision: str, data: Path,
    out: Path, every: int,
):  # fmt: skip
    """Do one run and write its result."""
    import torch

    torch.set_num_threads(1)
    chosen, start = Job(stage, name, budget, optimizer, rate, seed, precision), time.monotonic()
    result = measure(chosen, data, out, every)
    result["seconds"] = round(time.monotonic() - start, 1)
    path = chosen.path(out)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=1))
    os.replace(unfinished, path)


def do_jobs(todo: list[Job], data: Path, out: Path, every: int, jobs: int) -> None:
    """Do all runs that have no result yet, `jobs` at a time, and print a row for each."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [job for job in todo if not job.path(out).exists()]
    for job in todo:
        check_result(job, out)
    results = [result for result in read_results(out) if result["stage"] != "test"]
    overheads = [result["seconds"] - result.get("cpu_seconds", 0) for result in results]
    overhead = statistics.median(overheads) if overheads else 60  # reading, forecasting and scoring
    seconds = sum(overhead + (0 if job.stage == "test" else job.budget) for job in missing) / jobs
    print(f"{len(missing)} of {len(todo)} runs to do, about {seconds / 3600:.1f} hours", flush=True)
    columns = "network | budget | optimizer | rate | seed | ms a step | CPU s | z500 RMSE | t2m RMSE"
    print(f"| {columns} |\n|" + "---|" * 9, flush=True)

    def do_job(job: Job) -> None:
        values = (*dataclasses.astuple(job), data, out, every)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, "job", *map(str, values)], check=True, env=environment)
        print(row(json.loads(job.path(out).read_text())), flush=True)

    for job in todo:
        if job not in missing:
            print(row(json.loads(job.path(out).read_text())), flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(do_job, missing))


def check_result(job: Job, out: Path) -> None:
    """Raise ValueError if a run has no cost, or a result with another optimizer or learning rate."""
    if job.stage != "test" and job.name not in read_costs(out, job.precision):
        raise ValueError(f"{out} has no time of a step of {job.name!r} in {job.precision}: run `costs` first")
    if not job.path(out).exists():
        return
    result = json.loads(job.path(out).read_text())
    if (old := (result["optimizer"], result["rate"])) != (new := (job.optimizer, job.rate)):
        raise ValueError(f"{job.path(out)} was run with {old}, now {new} are best: delete it, or use another --out")


def row(result: dict) -> str:
    cells = [result["name"], f"{result['budget']:g}", result["optimizer"], f"{result['rate']:g}", str(result["seed"])]
    cells += [str(result.get("ms_a_step", "")), str(result.get("cpu_seconds", ""))]
    if "failed" in result:
        cells += ["diverged", ""]
    else:
        cells += [rival_report.slashes(result["scores"][name]["rmse"], rival_report.digits(name)) for name in VARIABLES]
    return f"| {' | '.join(cells)} |"


def read_results(out: Path, stage: str = "*") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"{stage}-*.json"))]


def choose_networks(only: list[str] | None) -> list[str]:
    """Return the networks to run, without those whose module is not installed."""
    if unknown := set(only or []) - NETWORKS.keys():
        raise typer.BadParameter(f"{sorted(unknown)} must be of {list(NETWORKS)}", param_hint="--only")
    names = []
    for name in only or NETWORKS:
        needs = NETWORKS[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            print(f"{name} is skipped: it needs {needs}, pip install -e '.[benchmarks]'", flush=True)
        else:
            names.append(name)
    return names


def best_rates(out: Path, precision: str) -> dict[str, tuple[str, float]]:
    """Return the best optimizer and learning rate by network; by those in float32 where no others were run.

    Of several budgets, the one with most results counts.
    """
    best: dict[str, tuple[float, str, float]] = {}
    results = read_results(out, "rates")
    for result in results:
        name = result["name"]
        similar = [other for other in results if other["name"] == name and other["precision"] == precision]
        if not similar:
            similar = [other for other in results if other["name"] == name and other["precision"] == "32-true"]
        budget = statistics.mode(other["budget"] for other in similar) if similar else None
        if "failed" in result or result not in similar or result["budget"] != budget:
            continue
        # the geometric mean over both variables and the first three leads: a percent of each counts the same
        errors = [error for variable in VARIABLES for error in result["scores"][variable]["rmse"][:3]]
        error = statistics.geometric_mean(errors)
        best[name] = min(best.get(name, (math.inf, "", 0.0)), (error, result["optimizer"], result["rate"]))
    return {name: (optimizer, rate) for name, (_, optimizer, rate) in best.items()}


Only = Annotated[list[str] | None, typer.Option(help="A network of the list; may be repeated.")]
Every = Annotated[int, typer.Option(help="Days between two forecasts that are scored.")]
Jobs = Annotated[int, typer.Option(help="Runs at a time, each with one thread.")]
Precision = Annotated[str, typer.Option(help="32-true or bf16-mixed.")]


def read_costs(out: Path, precision: str) -> dict[str, tuple[float, float]]:
    """Return the processor time of a step and that before the first step, in seconds, by network."""
    path = out / f"{precision}.costs"
    return {name: tuple(cost) for name, cost in json.loads(path.read_text()).items()} if path.exists() else {}


@app.command()
def costs(data: Folder, out: Folder, only: Only = None, rounds: int = 3, precision: Precision = "32-true"):
    """Measure the processor time of a step of each network with Muon, in turns; nothing else should run."""
    import torch

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    measured: dict[str, list[tuple[float, float]]] = {}
    names = choose_networks(only)
    for _ in range(rounds):
        for name in names:
            network = NETWORKS[name]
            network = replace(network, config=replace(network.config, optimizer="muon", precision=precision))
            train, _ = climate(data, network.variables, "rates")
            measured.setdefault(name, []).append(measure_step(network, network.task, train, 4))
            print(f"{name}: {1000 * measured[name][-1][0]:.0f} ms a step", flush=True)
    best = {name: tuple(map(min, zip(*values, strict=True))) for name, values in measured.items()}
    path = out / f"{precision}.costs"
    path.write_text(json.dumps({**read_costs(out, precision), **best}, indent=1))


@app.command()
def rates(
    data: Folder, out: Folder, only: Only = None, rate: list[float] | None = None,
    optimizer: list[str] | None = None, budget: float = 100.0, every: Every = 1, jobs: Jobs = 1,
    precision: Precision = "32-true",
):  # fmt: skip
    """Find the optimizer and the learning rate of each network, with one seed, on 2004."""
    names = choose_networks(only)
    todo = [
        Job("rates", name, budget, choice, x, 0, precision)
        for choice in optimizer or OPTIMIZERS
        for x in rate or RATES
        for name in names
    ]
    do_jobs(todo, data, out, every, jobs)
    for name, (choice, best) in best_rates(out, precision).items():
        results = [result for result in read_results(out, "rates") if result["name"] == name]
        tested = sorted(result["rate"] for result in results if result["optimizer"] == choice)
        is_end = len(tested) > 1 and best in (tested[0], tested[-1])
        print(f"{name}: {choice} {best:g}" + (", the end of the range: try more with --rate" if is_end else ""))


@app.command()
def run(
    data: Folder, out: Folder, only: Only = None, budget: list[float] | None = None, seeds: int = 3,
    every: Every = 1, jobs: Jobs = 1, precision: Precision = "32-true",
):  # fmt: skip
    """Train every network for each budget with the best rate of `rates`, and score it on 2004."""
    names, best = choose_networks(only), best_rates(out, precision)
    if missing := [name for name in names if name not in best]:
        raise typer.BadParameter(f"{out} has no learning rates of {missing}: run `rates` first", param_hint="--out")
    do_jobs(
        [
            Job("run", name, seconds, *best[name], seed, precision)
            for seconds in budget or BUDGETS
            for seed in range(seeds)
            for name in names
        ],
        data, out, every, jobs,
    )  # fmt: skip


@app.command()
def test(data: Folder, out: Folder, only: Only = None, every: Every = 1, jobs: Jobs = 1):
    """Score the forecasters of `run` on 2005. Do this once, after all choices."""
    keys = ("name", "budget", "optimizer", "rate", "seed", "precision")
    names = choose_networks(only)
    results = [result for result in read_results(out, "run") if result["name"] in names and "failed" not in result]
    do_jobs([Job("test", *(result[key] for key in keys)) for result in results], data, out, every, jobs)


@app.command()
def report(
    data: Folder, out: Folder, docs: Folder = DOCS, precision: Precision = "32-true",
    note: Annotated[str, typer.Option(help="Machine, date and options of the runs, for the page.")] = "",
):  # fmt: skip
    """Write the section of the page that belongs to a precision, and the figure, from all results."""
    own = [name for name, network in NETWORKS.items() if network.is_own]
    stages, comparisons = {}, {}
    for stage in ("run", "test"):
        results = [result for result in read_results(out, stage) if result["precision"] == precision]
        stages[stage] = rival_report.group(results)
        comparisons[stage] = compare_all(stage, stages[stage], own, data, out)
    rates = [result for result in read_results(out, "rates") if result["precision"] == precision]
    variants = tuple(name for name, network in NETWORKS.items() if network.is_variant)
    text = rival_report.describe(stages, comparisons, rates, list(NETWORKS), own, VARIABLES, variants, note)
    rival_report.write_section(docs / "rivals.md", precision, text)
    rival_report.write_csv(out / "scores.csv", stages)
    rival_report.draw(docs / "rivals.png", stages["test"] or stages["run"], list(NETWORKS), own, VARIABLES)
    print(f"wrote {docs / 'rivals.md'}, {docs / 'rivals.png'} and {out / 'scores.csv'}")


def compare_all(stage: str, groups: rival_report.Results, own: list[str], data: Path, out: Path) -> dict:
    """Return the comparison of each own network and budget with all rivals, for each seed."""
    _, truth = climate(data, VARIABLES, stage)

    def forecasts_of(names: list[str], budget: float, seed: int) -> dict[str, xr.Dataset]:
        runs = [run for name in names for run in groups.get((name, budget), []) if run["seed"] == seed]
        keys = ("name", "budget", "optimizer", "rate", "seed", "precision")
        paths = {run["name"]: Job(stage, *(run[key] for key in keys)).path(out).with_suffix(".nc") for run in runs}
        return {name: xr.open_dataset(path, engine="netcdf4") for name, path in paths.items()}

    comparisons: dict = {}
    for (name, budget), runs in groups.items():
        if name not in own:
            continue
        for seed in [run["seed"] for run in runs]:
            rivals = forecasts_of([other for other in NETWORKS if other not in own], budget, seed)
            if rivals:
                forecast = forecasts_of([name], budget, seed)[name].assign_attrs(system=name)
                comparisons.setdefault((name, budget), []).append(compare(forecast, rivals, truth))
    return comparisons


@app.command()
def own(
    data: Folder, variables: Annotated[str, typer.Option()], network: str = "ResNet, half resolution",
    budget: float = 600.0,
    train_until: str | None = None, rate: float | None = None, every: Every = 1, precision: Precision = "32-true",
    against: str = "ours",
):  # fmt: skip
    """Train a network and ours on your data for the same processor time, and compare them: is it worth it for you?

    The data are on a global grid, with steps of hours or days. Training uses the first four fifths of the times, or
    those to --train-until; the rest is forecast. The learning rate is the one that was best on the simulated climate,
    for the named network --rate.
    """
    import torch

    torch.set_num_threads(1)
    names = choose_networks([against, network])
    if network not in names:
        raise typer.BadParameter(f"{network} cannot be run, as said above", param_hint="--network")
    ds = sc.open_dataset(data, variables.split(","))
    times = ds.indexes["time"]
    train = (
        ds.isel(time=slice(0, len(times) * 4 // 5)) if train_until is None else ds.sel(time=slice(None, train_until))
    )
    truth = ds.isel(time=slice(train.sizes["time"], None))
    step = times[1] - times[0]
    task = sc.Task(tuple(variables.split(",")), history=4, horizon=4, step=f"{round(step / np.timedelta64(1, 'h'))}h")
    print(
        f"trains {len(names)} networks, about {len(names) * (budget + 60) / 60:.0f} minutes; then forecasts", flush=True
    )
    print("| network | M parameters | ms a step | steps | CPU s |\n|---|---|---|---|---|", flush=True)
    forecasts = {}
    leads = [count * step for count in (1, 4, 8, 16)]
    for name in names:
        chosen = NETWORKS[name]
        learning_rate = rate if rate is not None and name == network else chosen.rate
        config = replace(chosen.config, learning_rate=learning_rate, precision=precision)
        forecaster, measured = train_for(budget, replace(chosen, config=config), task, train)
        size = f"{measured['parameters'] / 1e6:.2f}"
        print(
            f"| {name} | {size} | {measured['ms_a_step']} | {measured['steps']} | {measured['cpu_seconds']} |",
            flush=True,
        )
        hours = max(24 * every, round(step / np.timedelta64(1, "h")))
        forecast = forecaster(truth, every=f"{hours}h", horizon=16).sel(lead_time=leads)
        forecasts[name] = forecast.assign_attrs(system=name)
    print(worth_it(forecasts[against], {network: forecasts[network]}, truth))


def worth_it(forecast: xr.Dataset, rivals: dict[str, xr.Dataset], truth: xr.Dataset) -> str:
    """Return a table of the RMSE of a forecast, its rivals and persistence, and the ratio to each rival."""
    table = sc.score(forecast, truth, baselines=rivals, metrics=["rmse"])
    ratios = compare(forecast, rivals, truth)
    systems = [str(name) for name in table["system"].values]
    rows = []
    for name in forecast.data_vars:
        for index, lead in enumerate(forecast["lead_time"].values):
            cells = [f"{float(x):.4g}" for x in table[name].sel(metric="rmse").isel(lead_time=index)]
            for rival in rivals:
                ratio, low, high = (values[index] for values in ratios[rival][name])
                verdict = (
                    f"{systems[0]} is better" if high < 1 else f"{rival} is better" if low > 1 else "no difference"
                )
                cells += [f"{ratio:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f}): {verdict}")]
            rows.append([f"{name}, {lead / np.timedelta64(1, 'h'):g} h", *cells])
    head = ["RMSE", *systems, *(f"ratio {systems[0]} / {rival} with 95 % interval" for rival in rivals)]
    return rival_report.as_table(head, rows)


if __name__ == "__main__":
    app()
