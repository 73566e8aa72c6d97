"""Measure what each setting changes on a simulated climate, and compare all with the published configuration.

    python benchmarks/ablation.py network --data gcm.zarr --out runs       one part of the default network or training
                                                                           changed at a time, scored on 2004
    python benchmarks/ablation.py ablation --data gcm.zarr --out runs      one setting of SimVPv2 changed, on 2004
    python benchmarks/ablation.py tuning --data gcm.zarr --out runs        learning rates and lengths, scored on 2004
    python benchmarks/ablation.py headline --data gcm.zarr --out runs      the three systems, scored on 2005
    python benchmarks/ablation.py forcings --ncep ncep.zarr --out runs     forcings on data with a diurnal cycle
    python benchmarks/ablation.py transfer --data gcm.zarr --ncep ncep.zarr --out runs     from simulated to real data
    python benchmarks/ablation.py drift --data gcm.zarr --out runs         forecasts of 90 days
    python benchmarks/ablation.py lagged --data gcm.zarr --out runs        means of forecasts from successive times
    python benchmarks/ablation.py table --out runs                         all results as Markdown

The climate is five years of a general circulation model, 6-hourly on 32 x 64 cells. Training uses 2001 to 2003, every
choice 2004; only `headline` and `drift` use 2005. Each run is a process with one thread, so its CPU time, loader
included, is its wall time on a quiet machine; two runs share the machine. Runs with a result in the folder are skipped.
"""

import contextlib
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
from unittest import mock

import ablation_networks
import numpy as np
import torch
import typer
import xarray as xr
from lightning_fabric import Fabric
from torch import nn

import simvp_climate as sc
from simvp_climate.training import loop

LEADS = (24, 72, 120, 168, 240)  # hours
BASELINES = ("persistence", "damped persistence", "climatology")
STATIC_FIELDS = ("orography", "land_sea_mask")
ALL_FORCINGS = ("coordinates", "time_of_year", *STATIC_FIELDS)
TWO_VARIABLES, FIVE_VARIABLES = ("z500", "t2m"), ("z500", "t2m", "t850", "u10", "v10")
WEIGHT_3 = (("z500", 3.0), ("t2m", 3.0))


@dataclass(frozen=True)
class Setup:
    """The task, network and training of a run, its share of the training data and the setup it starts from."""

    variables: tuple[str, ...]
    history: int
    forcings: tuple[str, ...]
    model: sc.SimVPv2Config | sc.SimVPSphereConfig | Callable[[sc.NetworkShape], object]
    config: sc.TrainConfig
    share: float = 1.0
    pretrained: str | None = None
    soap: bool = False  # the optimizer, in place of that of the configuration

    @property
    def task(self) -> sc.Task:
        return sc.Task(self.variables, history=self.history, horizon=self.history, forcings=self.forcings)

    def change(self, **changes) -> "Setup":
        """Return the setup with changes to its own fields or to those of its model or training configuration."""
        changes_by_owner: dict[str, dict] = {"model": {}, "config": {}, "setup": {}}
        for name, value in changes.items():
            owners = (owner for owner in ("model", "config") if hasattr(getattr(self, owner), name))
            changes_by_owner[next(owners, "setup")][name] = value
        model = replace(self.model, **changes_by_owner["model"]) if changes_by_owner["model"] else self.model
        config = replace(self.config, **changes_by_owner["config"])
        return replace(self, **{"model": model, "config": config, **changes_by_owner["setup"]})


# 0.72 M parameters, an eighteenth of the published size: a CPU trains it in minutes
NETWORK = dict(hidden_space=16, hidden_time=96, spatial_layers=2, blocks=4, mlp_ratio=8.0)
TRAINING = dict(
    epochs=1, batch_size=8, optimizer="adamw", precision="bf16-mixed", progress=False, validation_windows=128
)

# OpenSTL's t2m configuration with its optimizer, learning rate and schedule
PUBLISHED = Setup(
    TWO_VARIABLES,
    4,
    (),
    sc.SimVPv2Config(**NETWORK, drop_path=0.1, padding="zeros", predict="state"),
    sc.TrainConfig(
        **{**TRAINING, "batch_size": 16, "optimizer": "adam"},
        weight_decay=0.0,
        learning_rate=5e-3,
        warmup=0.0,
        gradient_clip=None,
        loss_normalization="state",
        area_weighted=False,
        ema_decay=0.0,
    ),
)
# the same network and loss with the training that was best on 2004 (`tuning`)
TUNED = PUBLISHED.change(
    optimizer="adamw", weight_decay=0.01, learning_rate=8e-3, warmup=0.1, gradient_clip=1.0, drop_path=0.0, batch_size=4
)
SIMVP_CLIMATE = Setup(
    FIVE_VARIABLES,
    4,
    (),
    sc.SimVPv2Config(**NETWORK, drop_path=0.0, padding="sphere", predict="change"),
    sc.TrainConfig(**TRAINING, learning_rate=2e-3),
)

# four spatial layers: the middle blocks see a quarter of the cells, which halves the time of the many runs
REFERENCE = SIMVP_CLIMATE.change(spatial_layers=4)
ABLATION = {
    "reference": REFERENCE,
    "padding zeros": REFERENCE.change(padding="zeros"),
    "padding periodic": REFERENCE.change(padding="periodic"),
    "predict the state": REFERENCE.change(predict="state"),
    "loss normalized by the state": REFERENCE.change(loss_normalization="state"),
    "loss without area weights": REFERENCE.change(area_weighted=False),
    "higher loss weights of the first leads": REFERENCE.change(lead_weights=(1.0, 0.71, 0.58, 0.5)),
    "only z500 and t2m": REFERENCE.change(variables=TWO_VARIABLES),
    "forcings: coordinates, season, orography, land": REFERENCE.change(forcings=ALL_FORCINGS),
    "no average of weights": REFERENCE.change(ema_decay=0.0),
    "drop path 0.1": REFERENCE.change(drop_path=0.1),
    "rollout of two calls in the last quarter": REFERENCE.change(rollout=2),
    "history 2": REFERENCE.change(history=2),
    "history 12": REFERENCE.change(history=12),
}
# the default network as in `rivals.py`: three quarters of the steps train one call, the last quarter two
DEFAULT = Setup(
    FIVE_VARIABLES,
    4,
    (),
    ablation_networks.CONFIG,
    sc.TrainConfig(**{**TRAINING, "batch_size": 4, "optimizer": "muon"}, learning_rate=8e-3, rollout=2),
)
with_blocks = ablation_networks.with_blocks
SPECTRAL = sc.SimVPSphereConfig(padding="periodic")  # the default network of today
NETWORK_PARTS = {
    "default": DEFAULT,
    "AdamW": DEFAULT.change(optimizer="adamw"),
    "AdamW, learning rate 0.004": DEFAULT.change(optimizer="adamw", learning_rate=4e-3),
    "SOAP, learning rate 0.003": DEFAULT.change(soap=True, learning_rate=3e-3),
    "SOAP, learning rate 0.008": DEFAULT.change(soap=True, learning_rate=8e-3),
    "learning rate 0.016": DEFAULT.change(learning_rate=16e-3),
    "weight decay 0.01": DEFAULT.change(weight_decay=0.01),
    "batches of 2": DEFAULT.change(batch_size=2),
    "batches of 8": DEFAULT.change(batch_size=8),
    "no average of weights": DEFAULT.change(ema_decay=0.0),
    "no rollout in training": DEFAULT.change(rollout=1),
    "rollout of three calls in the last quarter": DEFAULT.change(rollout=3),
    "weight 3 on z500, t2m": DEFAULT.change(variable_weights=WEIGHT_3),
    "history 2": DEFAULT.change(history=2),
    "time of year as forcing": DEFAULT.change(forcings=("time_of_year",)),
    "time of year, coordinates, orography, land as forcings": DEFAULT.change(forcings=ALL_FORCINGS),
    "no position field": DEFAULT.change(position_field=False),
    "no mean field": DEFAULT.change(model=ablation_networks.without_mean_field),
    "no skip connection": DEFAULT.change(model=ablation_networks.without_skip),
    "changes of state as inputs too": DEFAULT.change(model=ablation_networks.with_changes_of_state),
    "each state encoded alone": DEFAULT.change(model=ablation_networks.encoding_each_state_alone),
    "batch norm in every block": DEFAULT.change(model=with_blocks(ablation_networks.with_batch_norm)),
    "scales of blocks from 0.01": DEFAULT.change(model=ablation_networks.with_small_scales),
    "plain residual blocks": DEFAULT.change(model=with_blocks(ablation_networks.plain_block)),
    "SimVPv2's attention blocks": DEFAULT.change(model=with_blocks(ablation_networks.attention_block)),
    "a spectral block in place of two gated ones": DEFAULT.change(model=SPECTRAL),
    "two spectral blocks in place of two gated ones": DEFAULT.change(model=replace(SPECTRAL, spectral_blocks=2)),
    "16 channels in the skip connection": DEFAULT.change(hidden_space=16),
    "96 channels in the translator": DEFAULT.change(hidden_time=96),
    # for `drift`, of the default network of today
    "spectral block, time of year": DEFAULT.change(model=SPECTRAL, forcings=("time_of_year",)),
    "spectral block, time of year, noise on the inputs, three calls in the last 40 %": DEFAULT.change(
        model=SPECTRAL, forcings=("time_of_year",), input_noise=0.25, rollout=3, rollout_share=0.4
    ),
    "sphere padding": DEFAULT.change(padding="sphere"),
    "sphere padding with the sign of winds": DEFAULT.change(model=ablation_networks.with_wind_signs),
}
PERIODIC = SIMVP_CLIMATE.change(padding="periodic")
LONG = PERIODIC.change(learning_rate=8e-3, epochs=2)
BEST = LONG.change(batch_size=4, epochs=3, rollout=2, variable_weights=WEIGHT_3)
TUNING = {
    **{
        f"published: learning rate {rate:g}": TUNED.change(learning_rate=rate, batch_size=8, epochs=1)
        for rate in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)
    },
    "published: learning rate 0.004, 3 epochs": TUNED.change(learning_rate=4e-3, batch_size=8, epochs=3),
    "published: learning rate 0.008, 3 epochs": TUNED.change(batch_size=8, epochs=3),
    "published: learning rate 0.008, 3 epochs, batches of 4": TUNED.change(epochs=3),
    "published: learning rate 0.008, 4 epochs, batches of 4": TUNED.change(epochs=4),
    "published: learning rate 0.016, 3 epochs, batches of 4": TUNED.change(learning_rate=16e-3, epochs=3),
    "published: learning rate 0.008, 3 epochs, batches of 4, one-cycle": TUNED.change(
        epochs=3, schedule="one-cycle", warmup=0.3
    ),
    "simvp_climate: learning rate 0.004": PERIODIC.change(learning_rate=4e-3),
    "simvp_climate: learning rate 0.004, only z500 and t2m": PERIODIC.change(
        learning_rate=4e-3, variables=TWO_VARIABLES
    ),
    "simvp_climate: learning rate 0.004, 2 epochs, rollout": LONG.change(learning_rate=4e-3, rollout=2),
    "simvp_climate: learning rate 0.004, 2 epochs, rollout, forcings": LONG.change(
        learning_rate=4e-3, rollout=2, forcings=ALL_FORCINGS
    ),
    "simvp_climate: learning rate 0.008, 2 epochs": LONG,
    "simvp_climate: learning rate 0.008, 2 epochs, rollout": LONG.change(rollout=2),
    "simvp_climate: learning rate 0.008, 2 epochs, weight 3 on z500, t2m": LONG.change(variable_weights=WEIGHT_3),
    "simvp_climate: learning rate 0.008, 2 epochs, batches of 4": LONG.change(batch_size=4),
    "simvp_climate: learning rate 0.008, 2 epochs, batches of 4, rollout": LONG.change(batch_size=4, rollout=2),
    "simvp_climate: learning rate 0.008, 3 epochs, batches of 4": LONG.change(batch_size=4, epochs=3),
    "simvp_climate: learning rate 0.008, 4 epochs, history 2": LONG.change(history=2, epochs=4),
    "simvp_climate: learning rate 0.008, 3 epochs, batches of 4, history 2": LONG.change(
        history=2, batch_size=4, epochs=3
    ),
    "simvp_climate: learning rate 0.008, 3 epochs, batches of 4, history 2, rollout": LONG.change(
        history=2, batch_size=4, epochs=3, rollout=2
    ),
    "simvp_climate: learning rate 0.008, 3 epochs, batches of 4, rollout, weight 3 on z500, t2m": BEST,
    # for `drift`: do forcings reduce it?
    "simvp_climate: learning rate 0.008, 3 epochs, batches of 4, rollout, weight 3 on z500, t2m, forcings": BEST.change(
        forcings=ALL_FORCINGS
    ),
}
# Best settings on 2004. The published network takes less time per step and gets one epoch more: equal CPU time.
HEADLINE = {
    "simvp_climate": BEST,
    "published, tuned": TUNED.change(epochs=4),
    "as published": PUBLISHED.change(epochs=4),
}
NCEP = Setup(
    ("air",),
    4,
    (),
    sc.SimVPv2Config(**NETWORK, drop_path=0.0, padding="auto", predict="change"),
    sc.TrainConfig(**TRAINING, learning_rate=2e-3),
)
FORCINGS = {
    name: NCEP.change(forcings=forcings, epochs=4)
    for name, forcings in {
        "none": (),
        "insolation": ("insolation",),
        "time of day": ("time_of_day",),
        "insolation, times of day and year, coordinates": ("insolation", "time_of_day", "time_of_year", "coordinates"),
    }.items()
}
INSOLATION = NCEP.change(forcings=("insolation",), epochs=4)
TENTH = INSOLATION.change(share=0.1, epochs=40)  # the same number of steps as with all data
# the same with the default network and training
DEFAULT_INSOLATION = INSOLATION.change(
    model=sc.SimVPSphereConfig(), optimizer="muon", learning_rate=8e-3, batch_size=4, rollout=2
)
DEFAULT_TENTH = DEFAULT_INSOLATION.change(share=0.1, epochs=40)
PRETRAINED_TENTH = DEFAULT_TENTH.change(pretrained="default network, pretraining")
TRANSFER = {
    "default network, pretraining": DEFAULT_INSOLATION.change(epochs=2, rollout=1),
    "default network, all data, from scratch": DEFAULT_INSOLATION,
    "default network, all data, pretrained": DEFAULT_INSOLATION.change(
        pretrained="default network, pretraining", learning_rate=2e-3
    ),
    **{
        f"default network, a tenth, from scratch, learning rate {rate:g}": DEFAULT_TENTH.change(learning_rate=rate)
        for rate in (8e-3, 2e-3)
    },
    **{
        f"default network, a tenth, pretrained, learning rate {rate:g}": PRETRAINED_TENTH.change(learning_rate=rate)
        for rate in (8e-3, 2e-3, 5e-4)
    },
    "pretraining": INSOLATION.change(epochs=2),  # on global temperature of the simulated climate
    # its counterpart from scratch is "insolation" of `forcings`
    "all data, pretrained": INSOLATION.change(pretrained="pretraining"),
    "a tenth, from scratch": TENTH,
    "a tenth, pretrained": TENTH.change(pretrained="pretraining"),
}
EXPERIMENTS = {
    "network": NETWORK_PARTS,
    "ablation": ABLATION,
    "tuning": TUNING,
    "headline": HEADLINE,
    "forcings": FORCINGS,
    "transfer": TRANSFER,
}

Folder = Annotated[Path, typer.Option()]
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0])


def damped_persistence(train: xr.Dataset, climatology: xr.Dataset, persistence: xr.Dataset) -> xr.Dataset:
    """Return climatology plus the initial anomaly, damped at each lead by a regression on `train`."""
    anomaly = train - sc.baselines.climatology_at(climatology, train["time"]).drop_vars(
        ["hour", "dayofyear"], errors="ignore"
    )
    anomaly = anomaly.load()
    weight = sc.metrics.latitude_weights(train["latitude"])
    factors = []
    for lead in persistence["lead_time"].values:
        steps = int(lead / (train["time"].values[1] - train["time"].values[0]))
        first, later = anomaly.isel(time=slice(None, -steps)), anomaly.isel(time=slice(steps, None)).drop_vars("time")
        first = first.drop_vars("time")
        factors.append((first * later).weighted(weight).mean() / (first**2).weighted(weight).mean())
    factor = xr.concat(factors, persistence["lead_time"])
    now = sc.baselines.climatology_at(climatology, persistence["init_time"])
    then = sc.baselines.climatology_at(climatology, persistence["valid_time"])
    names = ["hour", "dayofyear"]
    damped = then.drop_vars(names, errors="ignore") + factor * (persistence - now.drop_vars(names, errors="ignore"))
    return damped.transpose(*next(iter(persistence.data_vars.values())).dims)


def activity(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    """Return, by lead, the standard deviation of forecast anomalies over that of the anomalies of the truth."""

    def spread(fields: xr.Dataset) -> xr.Dataset:
        anomaly = fields - sc.baselines.climatology_at(climatology, forecast["valid_time"])
        pooled = ("init_time", "latitude", "longitude")
        return np.sqrt((anomaly**2).weighted(sc.metrics.latitude_weights(forecast["latitude"])).mean(pooled))

    return spread(forecast) / spread(truth.sel(time=forecast["valid_time"]))


def scores(forecast: xr.Dataset, truth: xr.Dataset, train: xr.Dataset) -> dict:
    """Return {variable: {system: {metric: values by lead}}} of the forecast and the baselines."""
    complete = forecast["valid_time"].max("lead_time") <= truth["time"].max()
    forecast = forecast.isel(init_time=np.flatnonzero(complete))
    climatology = sc.baselines.climatology(train)
    forecast = forecast.sel(lead_time=[np.timedelta64(lead, "h") for lead in LEADS]).assign_attrs(system="forecast")
    names = list(forecast.data_vars)
    table = sc.score(forecast, truth, climatology=climatology)
    persistence = sc.baselines.persistence(truth[names], forecast["init_time"], forecast["lead_time"])
    damped = damped_persistence(train[names], climatology, persistence)
    damped_table = sc.score(damped.assign_attrs(system="damped persistence"), truth, climatology=climatology)
    tables = {"forecast": table, "persistence": table, "climatology": table, "damped persistence": damped_table}
    results = {}
    for name in names:
        results[name] = {
            system: {
                str(metric): [round(float(x), 5) for x in scored[name].sel(system=system, metric=metric)]
                for metric in scored["metric"].values
            }
            for system, scored in tables.items()
        }
        ratio = activity(forecast[[name]], truth, climatology)[name]
        results[name]["forecast"]["activity"] = [round(float(x), 4) for x in ratio]
    return results


def split_climate(data: Path, setup: Setup) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the training, validation and test years of the simulated climate."""
    if setup.variables == ("air",):
        ds = sc.open_dataset(data, ["t2m"]).rename(t2m="air")
    else:
        ds = sc.open_dataset(data, [*setup.variables, *(name for name in setup.forcings if name in STATIC_FIELDS)])
    return ds.sel(time=slice("2001", "2003")), ds.sel(time="2004"), ds.sel(time="2005")


def split_ncep(data: Path, setup: Setup) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the first 60 % of a series (or the last share of them), the next 20 % and the last 20 %."""
    ds = sc.open_dataset(data, setup.variables)
    first, second = (int(ds.sizes["time"] * share) for share in (0.6, 0.8))
    start = first - int(first * setup.share)
    return tuple(ds.isel(time=slice(*bounds)) for bounds in ((start, first), (first, second), (second, None)))


def measure(experiment: str, name: str, seed: int, data: Path, out: Path) -> dict:
    """Train a setup with one seed, save the forecaster and return its scores."""
    setup = EXPERIMENTS[experiment][name].change(seed=seed)
    real = experiment in ("forcings", "transfer") and not name.endswith("pretraining")
    train, valid, test = (split_ncep if real else split_climate)(data, setup)
    pretrained = None
    if setup.pretrained is not None:
        path = out / f"{file_name(experiment, setup.pretrained, seed)}.safetensors"
        pretrained = sc.Forecaster.load(path, device="cpu")
        setup = setup.change(statistics="compute")
    before = time.process_time()
    model = None if pretrained else setup.model
    with mock.patch.object(loop, "_make_optimizer", make_soap) if setup.soap else contextlib.nullcontext():
        forecaster = sc.train(
            setup.task, train, valid=valid, model=model, config=setup.config, start_from=pretrained, device="cpu"
        )
    seconds = time.process_time() - before
    forecaster.save(out / f"{file_name(experiment, name, seed)}.safetensors")
    truth, every = (test, "12h") if real else (test, "1D") if experiment == "headline" else (valid, "2D")
    forecast = forecaster(truth, every=every, horizon=LEADS[-1] // 6)
    size = sum(value.numel() for value in forecaster.network.parameters())
    if real:  # the climatology needs all months, also where the network is trained on a tenth
        train = split_ncep(data, setup.change(share=1.0))[0]
    return {
        "experiment": experiment,
        "name": name,
        "seed": seed,
        "parameters": size,
        "cpu_seconds": round(seconds, 1),
        "epochs": setup.config.epochs,
        "scores": scores(forecast[[v for v in forecast if v in (*TWO_VARIABLES, "air")]], truth, train),
        "history": forecaster.provenance["epochs"],
    }


def make_soap(network: nn.Module, config: sc.TrainConfig, fabric: Fabric) -> torch.optim.Optimizer:
    """Return the optimizer of N. Vyas et al. (arXiv:2409.11321); needs pip install pytorch-optimizer."""
    from pytorch_optimizer import SOAP

    return SOAP(network.parameters(), lr=config.learning_rate, weight_decay=0.01)


def file_name(experiment: str, name: str, seed: int) -> str:
    return "-".join([experiment, "".join(c if c.isalnum() else "_" for c in name), str(seed)])


@app.command()
def run(experiment: str, name: str, seed: int, data: Path, out: Path):
    """Do one run and write its result."""
    torch.set_num_threads(1)
    result = measure(experiment, name, seed, data, out)
    path = out / f"{file_name(experiment, name, seed)}.json"
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=1))
    os.replace(unfinished, path)


def run_all(experiment: str, data: Path, out: Path, seeds: int, jobs: int, names: list[str]) -> None:
    """Do all runs of an experiment that have no result yet, `jobs` at a time, and print the table."""
    out.mkdir(parents=True, exist_ok=True)

    def run_job(job: tuple[str, int]) -> None:
        name, seed = job
        if (out / f"{file_name(experiment, name, seed)}.json").exists():
            return
        command = [sys.executable, __file__, "run", experiment, name, str(seed), str(data), str(out)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"{experiment}: {name}, seed {seed} done", flush=True)

    jobs_to_do = [(name, seed) for seed in range(seeds) for name in names or EXPERIMENTS[experiment]]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run_job, jobs_to_do))
    print(as_table(experiment, out))


@app.command()
def network(data: Folder, out: Folder, seeds: int = 1, jobs: int = 2, only: list[str] | None = None):
    """Change one part of the default network or its training at a time."""
    run_all("network", data, out, seeds, jobs, only or [])


@app.command()
def ablation(data: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None):
    """Change one setting at a time."""
    run_all("ablation", data, out, seeds, jobs, only or [])


@app.command()
def tuning(data: Folder, out: Folder, seeds: int = 1, jobs: int = 2, only: list[str] | None = None):
    """Tune both configurations on 2004."""
    run_all("tuning", data, out, seeds, jobs, only or [])


@app.command()
def headline(data: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None):
    """Train the three systems and score them on 2005."""
    run_all("headline", data, out, seeds, jobs, only or [])


@app.command()
def forcings(ncep: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None):
    """Train on the NCEP series with and without forcings."""
    run_all("forcings", ncep, out, seeds, jobs, only or [])


@app.command()
def transfer(
    data: Folder, ncep: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None
):  # fmt: skip
    """Train on the simulated climate, then fine-tune on the NCEP series."""
    names = [name for name in TRANSFER if name in only] if only else list(TRANSFER)
    first = [name for name in names if name.endswith("pretraining")]
    if first:
        run_all("transfer", data, out, seeds, jobs, first)
    if later := [name for name in names if name not in first]:
        run_all("transfer", ncep, out, seeds, jobs, later)


def long_forecasts(forecaster: sc.Forecaster, truth: xr.Dataset, days: int = 90) -> dict:
    """Compare forecasts from four times of a year with the truth of that year, both in their last 30 days.

    Return {variable: {"drift": largest difference of the global means, "variance": mean ratio, "finite": bool}}.
    """
    year = truth.indexes["time"][0].year
    starts = truth["time"].sel(time=[f"{year}-{day}T00" for day in ("01-15", "04-01", "07-01", "10-01")])
    starts = starts[starts + np.timedelta64(days, "D") <= truth["time"][-1]]
    forecast = forecaster(truth, init_times=starts, horizon=days * 4)
    late = forecast.isel(lead_time=slice(-120, None))
    truth = truth.sel(time=late["valid_time"])
    weight = sc.metrics.latitude_weights(truth["latitude"])
    results = {}
    for name in TWO_VARIABLES:
        means = [x[name].weighted(weight).mean(("lead_time", "latitude", "longitude")) for x in (late, truth)]
        spreads = [x[name].var(("lead_time", "longitude")).weighted(weight).mean() for x in (late, truth)]
        results[name] = {
            "drift": float(abs(means[0] - means[1]).max()),
            "variance": float(spreads[0] / spreads[1]),
            "finite": bool(np.isfinite(forecast[name]).all()),
        }
    return results


@app.command()
def drift(data: Folder, out: Folder, days: int = 90, runs: str = "headline-*", year: int = 2005):
    """Print the drift and variance of 90-day forecasts by trained forecasters, from four times of a year."""
    for path in sorted(out.glob(f"{runs}.safetensors")):
        forecaster = sc.Forecaster.load(path, device="cpu")
        truth = sc.open_dataset(data, forecaster.task.variables).sel(time=str(year))
        for name, result in long_forecasts(forecaster, truth, days).items():
            print(f"{path.stem}: {name} finite {result['finite']}, drift of the mean at most {result['drift']:.2f}, "
                  f"variance {result['variance']:.2f} of that of the truth")  # fmt: skip


@app.command()
def lagged(data: Folder, out: Folder, run: str = "network-default-0", year: int = 2004):
    """Print scores of a forecaster, and of the mean of its forecasts from up to four successive initializations."""
    forecaster = sc.Forecaster.load(out / f"{run}.safetensors", device="cpu")
    truth = sc.open_dataset(data, forecaster.task.variables).sel(time=str(year))
    step, lags = np.timedelta64(6, "h"), 4
    latest = truth["time"].values[8 : -LEADS[2] // 6 : 8]  # every second day at 00 UTC
    parts = []
    for lag in range(lags):
        forecast = forecaster(truth, init_times=latest - lag * step, horizon=LEADS[2] // 6 + lags)
        leads = [np.timedelta64(hours, "h") + lag * step for hours in LEADS[:3]]
        part = forecast[list(TWO_VARIABLES)].sel(lead_time=leads).assign_coords(lead_time=leads - lag * step)
        parts.append(part.assign_coords(init_time=latest).drop_vars("valid_time"))
    for count in range(1, lags + 1):
        mean = sum(parts[1:count], parts[0]) / count
        mean = mean.assign_coords(valid_time=mean["init_time"] + mean["lead_time"]).assign_attrs(parts[0].attrs)
        for name in TWO_VARIABLES:
            mean[name].attrs = parts[0][name].attrs
        scored = sc.score(mean, truth, metrics=["rmse", "small_scale_variance"], persistence=False).isel(system=0)
        print(f"mean of {count}: " + ", ".join(
            f"{name} {metric} {scored[name].sel(metric=metric).values.round(3).tolist()}"
            for name in TWO_VARIABLES for metric in ("rmse", "small_scale_variance")
        ), flush=True)  # fmt: skip


@app.command()
def table(out: Folder):
    """Print the results of all experiments."""
    for experiment in EXPERIMENTS:
        if any(out.glob(f"{experiment}-*.json")):
            print(f"\n{experiment}\n\n{as_table(experiment, out)}")


def as_table(experiment: str, out: Path) -> str:
    """Return the results as Markdown: means over seeds, and their standard deviation at the first lead."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob(f"{experiment}-*.json"))]
    variables = list(results[0]["scores"])
    leads = LEADS if experiment == "headline" else LEADS[:3]
    head = ["", "seeds", "CPU s"]
    for variable in variables:
        head += [f"{variable} RMSE at {' / '.join(str(lead) for lead in leads)} h", "ACC", "small scales", "activity"]
    lines = [head, ["---"] * len(head)]

    def cells(rows: list[dict], digits: int) -> list[str]:
        columns = []
        for metric, places in (("rmse", digits), ("acc", 3), ("small_scale_variance", 2), ("activity", 2)):
            series = [row[metric] for row in rows if metric in row]
            if not series:
                columns.append("")
                continue
            means = [statistics.mean(values) for values in zip(*series, strict=True)][: len(leads)]
            text = " / ".join("-" if math.isnan(x) else f"{x:.{places}f}" for x in means)
            if metric == "rmse" and len(series) > 1:
                text += f" (±{statistics.stdev(values[0] for values in series):.{places}f})"
            columns.append(text)
        return columns

    digits = {name: 1 if name == "z500" else 3 for name in variables}
    for name in EXPERIMENTS[experiment]:
        runs = [result for result in results if result["name"] == name]
        if not runs:
            continue
        line = [name, str(len(runs)), f"{statistics.mean(run['cpu_seconds'] for run in runs):.0f}"]
        for variable in variables:
            line += cells([run["scores"][variable]["forecast"] for run in runs], digits[variable])
        lines.append(line)
    for system in BASELINES:
        line = [system, "", ""]
        for variable in variables:
            line += cells([results[0]["scores"][variable][system]], digits[variable])
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    app()
