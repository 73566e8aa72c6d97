"""What each setting is worth on a simulated climate, and all together against the published configuration.

    python benchmarks/ablation.py ablation --data gcm.zarr --out runs      each setting on and off, scored on 2004
    python benchmarks/ablation.py tuning --data gcm.zarr --out runs        the rival's learning rates, scored on 2004
    python benchmarks/ablation.py headline --data gcm.zarr --out runs      the three systems, scored on 2005
    python benchmarks/ablation.py forcings --ncep ncep.zarr --out runs     forcings where there is a day and a night
    python benchmarks/ablation.py transfer --data gcm.zarr --ncep ncep.zarr --out runs     from simulated to real
    python benchmarks/ablation.py drift --data gcm.zarr --out runs         90 days in one go
    python benchmarks/ablation.py table --out runs                         what there is, as Markdown

The climate is five years of a general circulation model, 6-hourly on 32 x 64 cells: trained on 2001 to 2003, every
choice made on 2004, 2005 touched by `headline` and `drift` alone. Every run is a process with one thread, so that its
CPU time is the wall time of a quiet machine, loader included; two run side by side. A run whose result lies in the
folder is not repeated.
"""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

import simvp_climate as sc

LEADS = (24, 72, 120, 168, 240)  # hours
SYSTEMS = ("persistence", "damped persistence", "climatology")
FIELDS = ("orography", "land_sea_mask")
PAIR, ALL = ("z500", "t2m"), ("z500", "t2m", "t850", "u10", "v10")
THRICE = (("z500", 3.0), ("t2m", 3.0))


@dataclass(frozen=True)
class Setup:
    """A run: what is forecast, by which network, trained how; on which share of the data, and from which start."""

    variables: tuple[str, ...]
    history: int
    forcings: tuple[str, ...]
    model: sc.SimVPv2Config
    config: sc.TrainConfig
    share: float = 1.0
    start: str | None = None

    @property
    def task(self) -> sc.Task:
        return sc.Task(self.variables, history=self.history, horizon=self.history, forcings=self.forcings)

    def but(self, **changes) -> "Setup":
        """Return the setup with some fields of it, of its model or of its configuration changed."""
        groups = {"model": {}, "config": {}}
        own = {}
        for name, value in changes.items():
            for group in groups:
                if name in {field.name for field in dataclasses.fields(getattr(self, group))}:
                    groups[group][name] = value
                    break
            else:
                own[name] = value
        parts = {group: replace(getattr(self, group), **fields) for group, fields in groups.items()}
        return replace(self, **parts, **own)


# 0.72 M parameters, an eighteenth of the published size, so that a CPU trains it in minutes
SIZE = dict(hidden_space=16, hidden_time=96, spatial_layers=2, blocks=4, mlp_ratio=8.0)
TRAIN = dict(epochs=1, batch_size=8, precision="bf16-mixed", progress=False, validation_windows=128)

# as published: OpenSTL's t2m configuration, with its optimizer, learning rate and schedule
PUBLISHED = Setup(
    PAIR,
    4,
    (),
    sc.SimVPv2Config(**SIZE, drop_path=0.1, padding="zeros", predict="state"),
    sc.TrainConfig(
        **{**TRAIN, "batch_size": 16},
        optimizer="adam",
        weight_decay=0.0,
        learning_rate=5e-3,
        warmup=0.0,
        gradient_clip=None,
        loss_normalization="state",
        area_weighted=False,
        ema_decay=0.0,
    ),
)
# the same network and loss, with the recipe that did best on 2004, see `tuning`
TUNED = PUBLISHED.but(
    optimizer="adamw", weight_decay=0.01, learning_rate=8e-3, warmup=0.1, gradient_clip=1.0, drop_path=0.0, batch_size=4
)
OURS = Setup(
    ALL,
    4,
    (),
    sc.SimVPv2Config(**SIZE, drop_path=0.0, padding="sphere", predict="change"),
    sc.TrainConfig(**TRAIN, learning_rate=2e-3),
)

# the translator on a quarter of the cells, half the time: there are many runs
SMALL = OURS.but(spatial_layers=4)
ABLATION = {
    "all on": SMALL,
    "padding: zeros": SMALL.but(padding="zeros"),
    "padding: periodic": SMALL.but(padding="periodic"),
    "predict: state": SMALL.but(predict="state"),
    "loss: in units of the state": SMALL.but(loss_normalization="state"),
    "loss: not weighted by area": SMALL.but(area_weighted=False),
    "loss: first leads count more": SMALL.but(lead_weights=(1.0, 0.71, 0.58, 0.5)),
    "variables: z500 and t2m alone": SMALL.but(variables=PAIR),
    "forcings: fields and season": SMALL.but(forcings=("coordinates", "time_of_year", *FIELDS)),
    "average: none": SMALL.but(ema_decay=0.0),
    "drop path: 0.1": SMALL.but(drop_path=0.1),
    "rollout: two calls at the end": SMALL.but(rollout=2),
    "history: 2": SMALL.but(history=2),
    "history: 12": SMALL.but(history=12),
}
FIELDS_AND_SEASON = ("coordinates", "time_of_year", *FIELDS)
PERIODIC = OURS.but(padding="periodic")
LONG = PERIODIC.but(learning_rate=8e-3, epochs=2)
TUNING = {
    **{
        f"published: rate {rate:g}": TUNED.but(learning_rate=rate, batch_size=8, epochs=1)
        for rate in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)
    },
    "published: rate 0.004, 3 epochs": TUNED.but(learning_rate=4e-3, batch_size=8, epochs=3),
    "published: rate 0.008, 3 epochs": TUNED.but(batch_size=8, epochs=3),
    "published: rate 0.008, 3 epochs, batches of 4": TUNED.but(epochs=3),
    "published: rate 0.008, 4 epochs, batches of 4": TUNED.but(epochs=4),
    "published: rate 0.016, 3 epochs, batches of 4": TUNED.but(learning_rate=16e-3, epochs=3),
    "published: rate 0.008, 3 epochs, batches of 4, one-cycle": TUNED.but(epochs=3, schedule="one-cycle", warmup=0.3),
    "ours: rate 0.004": PERIODIC.but(learning_rate=4e-3),
    "ours: rate 0.004, z500 and t2m alone": PERIODIC.but(learning_rate=4e-3, variables=PAIR),
    "ours: rate 0.004, 2 epochs, rollout": LONG.but(learning_rate=4e-3, rollout=2),
    "ours: rate 0.004, 2 epochs, rollout, forcings": LONG.but(
        learning_rate=4e-3, rollout=2, forcings=FIELDS_AND_SEASON
    ),
    "ours: rate 0.008, 2 epochs": LONG,
    "ours: rate 0.008, 2 epochs, rollout": LONG.but(rollout=2),
    "ours: rate 0.008, 2 epochs, z500 and t2m count thrice": LONG.but(variable_weights=THRICE),
    "ours: rate 0.008, 2 epochs, batches of 4": LONG.but(batch_size=4),
    "ours: rate 0.008, 2 epochs, batches of 4, rollout": LONG.but(batch_size=4, rollout=2),
    "ours: rate 0.008, 3 epochs, batches of 4": LONG.but(batch_size=4, epochs=3),
    "ours: rate 0.008, 4 epochs, history 2": LONG.but(history=2, epochs=4),
    "ours: rate 0.008, 3 epochs, batches of 4, history 2": LONG.but(history=2, batch_size=4, epochs=3),
    "ours: rate 0.008, 3 epochs, batches of 4, history 2, rollout": LONG.but(
        history=2, batch_size=4, epochs=3, rollout=2
    ),
    "ours: rate 0.008, 3 epochs, batches of 4, rollout, z500 and t2m count thrice": LONG.but(
        batch_size=4, epochs=3, rollout=2, variable_weights=THRICE
    ),
    # for `drift`: does it help to know the season?
    "ours: rate 0.008, 3 epochs, batches of 4, rollout, z500 and t2m count thrice, forcings": LONG.but(
        batch_size=4, epochs=3, rollout=2, variable_weights=THRICE, forcings=FIELDS_AND_SEASON
    ),
}
# what did best on 2004; equal CPU time: the steps of the rivals take less, so they have an epoch more
HEADLINE = {
    "ours": LONG.but(batch_size=4, epochs=3, rollout=2, variable_weights=THRICE),
    "published, tuned": TUNED.but(epochs=4),
    "as published": PUBLISHED.but(epochs=4),
}
AIR = Setup(
    ("air",),
    4,
    (),
    sc.SimVPv2Config(**SIZE, drop_path=0.0, padding="auto", predict="change"),
    sc.TrainConfig(**TRAIN, learning_rate=2e-3),
)
FORCINGS = {
    name: AIR.but(forcings=forcings, epochs=4)
    for name, forcings in {
        "none": (),
        "insolation": ("insolation",),
        "time of day": ("time_of_day",),
        "insolation, times of day and year, coordinates": ("insolation", "time_of_day", "time_of_year", "coordinates"),
    }.items()
}
WARM = AIR.but(forcings=("insolation",), epochs=4)
TENTH = WARM.but(share=0.1, epochs=40)  # as many steps
TRANSFER = {
    "pretraining": WARM.but(epochs=2),  # on the temperature of the simulated climate, all round the globe
    # from scratch: "insolation" of `forcings`
    "all data, pretrained": WARM.but(start="pretraining"),
    "a tenth, from scratch": TENTH,
    "a tenth, pretrained": TENTH.but(start="pretraining"),
}
PARTS = {"ablation": ABLATION, "tuning": TUNING, "headline": HEADLINE, "forcings": FORCINGS, "transfer": TRANSFER}

Folder = Annotated[Path, typer.Option()]
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0])


def damped_persistence(train: xr.Dataset, climatology: xr.Dataset, persistence: xr.Dataset) -> xr.Dataset:
    """Return climatology plus the last anomaly times the share of it that is left at each lead, fit on `train`."""
    anomaly = train - sc.baselines.climatology_at(climatology, train["time"]).drop_vars(
        ["hour", "dayofyear"], errors="ignore"
    )
    anomaly = anomaly.load()
    weight = sc.metrics.latitude_weights(train["latitude"])
    shares = []
    for lead in persistence["lead_time"].values:
        steps = int(lead / (train["time"].values[1] - train["time"].values[0]))
        first, later = anomaly.isel(time=slice(None, -steps)), anomaly.isel(time=slice(steps, None)).drop_vars("time")
        first = first.drop_vars("time")
        shares.append((first * later).weighted(weight).mean() / (first**2).weighted(weight).mean())
    share = xr.concat(shares, persistence["lead_time"])
    now = sc.baselines.climatology_at(climatology, persistence["init_time"])
    then = sc.baselines.climatology_at(climatology, persistence["valid_time"])
    names = ["hour", "dayofyear"]
    damped = then.drop_vars(names, errors="ignore") + share * (persistence - now.drop_vars(names, errors="ignore"))
    return damped.transpose(*next(iter(persistence.data_vars.values())).dims)


def activity(forecast: xr.Dataset, truth: xr.Dataset, climatology: xr.Dataset) -> xr.Dataset:
    """Return the standard deviation of the anomalies of a forecast over that of the truth, by lead."""

    def spread(fields: xr.Dataset) -> xr.Dataset:
        anomaly = fields - sc.baselines.climatology_at(climatology, forecast["valid_time"])
        pooled = ("init_time", "latitude", "longitude")
        return np.sqrt((anomaly**2).weighted(sc.metrics.latitude_weights(forecast["latitude"])).mean(pooled))

    return spread(forecast) / spread(truth.sel(time=forecast["valid_time"]))


def scores(forecast: xr.Dataset, truth: xr.Dataset, train: xr.Dataset) -> dict:
    """Return rmse, acc, small-scale variance and activity by variable and lead, and those of the baselines."""
    complete = forecast["valid_time"].max("lead_time") <= truth["time"].max()
    forecast = forecast.isel(init_time=np.flatnonzero(complete))
    climatology = sc.baselines.climatology(train)
    forecast = forecast.sel(lead_time=[np.timedelta64(lead, "h") for lead in LEADS]).assign_attrs(system="forecast")
    found = {}
    table = sc.score(forecast, truth, climatology=climatology)
    damped = sc.baselines.persistence(truth[list(forecast.data_vars)], forecast["init_time"], forecast["lead_time"])
    damped = damped_persistence(train[list(forecast.data_vars)], climatology, damped)
    damped = sc.score(damped.assign_attrs(system="damped persistence"), truth, climatology=climatology)
    for name in forecast.data_vars:
        part = {
            system: {
                metric: [round(float(x), 5) for x in one[name].sel(system=system, metric=metric)]
                for metric in one["metric"].values
            }
            for one, systems in ((table, ("forecast", "persistence", "climatology")), (damped, ["damped persistence"]))
            for system in systems
        }
        active = activity(forecast[[name]], truth, climatology)[name]
        part["forecast"]["activity"] = [round(float(x), 4) for x in active]
        found[name] = part
    return found


def climate(data: Path, setup: Setup) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the training, the validation and the test years."""
    if setup.variables == ("air",):
        ds = sc.open_dataset(data, ["t2m"]).rename(t2m="air")
    else:
        ds = sc.open_dataset(data, [*setup.variables, *(name for name in setup.forcings if name in FIELDS)])
    return ds.sel(time=slice("2001", "2003")), ds.sel(time="2004"), ds.sel(time="2005")


def air(data: Path, setup: Setup) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return the first 60 % of a series (or the last share of these), the next 20 % and the last 20 %."""
    ds = sc.open_dataset(data, setup.variables)
    first, second = (int(ds.sizes["time"] * share) for share in (0.6, 0.8))
    start = first - int(first * setup.share)
    return tuple(ds.isel(time=slice(*part)) for part in ((start, first), (first, second), (second, None)))


def measure(part: str, name: str, seed: int, data: Path, out: Path) -> dict:
    """Train a setup of a part once, score it, and return what was found."""
    setup = PARTS[part][name].but(seed=seed)
    real = part in ("forcings", "transfer") and name != "pretraining"
    train, valid, test = (air if real else climate)(data, setup)
    start = None
    if setup.start is not None:
        start = sc.Forecaster.load(out / f"{file_name(part, setup.start, seed)}.safetensors", device="cpu")
        setup = setup.but(statistics="compute")
    before = time.process_time()
    model = None if start else setup.model
    forecaster = sc.train(
        setup.task, train, valid=valid, model=model, config=setup.config, start_from=start, device="cpu"
    )
    seconds = time.process_time() - before
    forecaster.save(out / f"{file_name(part, name, seed)}.safetensors")
    truth, every = (test, "12h") if real else (test, "1D") if part == "headline" else (valid, "2D")
    forecast = forecaster(truth, every=every, horizon=LEADS[-1] // 6)
    size = sum(value.numel() for value in forecaster.network.parameters())
    return {
        "part": part,
        "name": name,
        "seed": seed,
        "parameters": size,
        "cpu_seconds": round(seconds, 1),
        "epochs": setup.config.epochs,
        "scores": scores(forecast[[v for v in forecast if v in (*PAIR, "air")]], truth, train),
        "history": forecaster.provenance["epochs"],
    }


def file_name(part: str, name: str, seed: int) -> str:
    return "-".join([part, "".join(c if c.isalnum() else "_" for c in name), str(seed)])


@app.command()
def one(part: str, name: str, seed: int, data: Path, out: Path):
    """Do a single run and write its result."""
    import torch

    torch.set_num_threads(1)
    result = measure(part, name, seed, data, out)
    path = out / f"{file_name(part, name, seed)}.json"
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(result, indent=1))
    os.replace(unfinished, path)


def run_all(part: str, data: Path, out: Path, seeds: int, jobs: int, names: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)

    def start(job: tuple[str, int]) -> None:
        name, seed = job
        if (out / f"{file_name(part, name, seed)}.json").exists():
            return
        command = [sys.executable, __file__, "one", part, name, str(seed), str(data), str(out)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"{part}: {name}, seed {seed} done", flush=True)

    wanted = [(name, seed) for seed in range(seeds) for name in names or PARTS[part]]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(start, wanted))
    print(as_table(part, out))


@app.command()
def ablation(data: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None):
    """Train with each setting on and off."""
    run_all("ablation", data, out, seeds, jobs, only or [])


@app.command()
def tuning(data: Folder, out: Folder, seeds: int = 1, jobs: int = 2, only: list[str] | None = None):
    """Tune the published configuration."""
    run_all("tuning", data, out, seeds, jobs, only or [])


@app.command()
def headline(data: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None):
    """Train and test the three systems."""
    run_all("headline", data, out, seeds, jobs, only or [])


@app.command()
def forcings(ncep: Folder, out: Folder, seeds: int = 3, jobs: int = 2, only: list[str] | None = None):
    """Train on a real series with and without forcings."""
    run_all("forcings", ncep, out, seeds, jobs, only or [])


@app.command()
def transfer(data: Folder, ncep: Folder, out: Folder, seeds: int = 3, jobs: int = 2):
    """Train on a simulated climate, and go on with a real series."""
    run_all("transfer", data, out, seeds, jobs, ["pretraining"])
    run_all("transfer", ncep, out, seeds, jobs, [name for name in TRANSFER if name != "pretraining"])


@app.command()
def drift(data: Folder, out: Folder, days: int = 90, runs: str = "headline-*", year: int = 2005):
    """Roll what `headline`, or other runs, trained out over a season, from four times of a year."""
    for path in sorted(out.glob(f"{runs}.safetensors")):
        forecaster = sc.Forecaster.load(path, device="cpu")
        test = sc.open_dataset(data, forecaster.task.variables).sel(time=str(year))
        starts = test["time"].sel(time=[f"{year}-{day}" for day in ("01-15", "04-01", "07-01", "10-01")])
        starts = starts[starts + np.timedelta64(days, "D") <= test["time"][-1]]
        forecast = forecaster(test, init_times=starts, horizon=days * 4)
        late = forecast.isel(lead_time=slice(-120, None))  # the last 30 days
        truth = test.sel(time=late["valid_time"])
        weight = sc.metrics.latitude_weights(test["latitude"])
        for name in PAIR:
            finite = bool(np.isfinite(forecast[name]).all())
            means = [x[name].weighted(weight).mean(("lead_time", "latitude", "longitude")) for x in (late, truth)]
            spreads = [x[name].var(("lead_time", "longitude")).weighted(weight).mean() for x in (late, truth)]
            worst = float(abs(means[0] - means[1]).max())
            print(f"{path.stem}: {name} finite {finite}, drift of the mean at most {worst:.2f}, "
                  f"variance {float(spreads[0] / spreads[1]):.2f} of that of the truth")  # fmt: skip


@app.command()
def table(out: Folder):
    """Print what there is."""
    for part in PARTS:
        if any(out.glob(f"{part}-*.json")):
            print(f"\n{part}\n\n{as_table(part, out)}")


def as_table(part: str, out: Path) -> str:
    """Return the results of a part as Markdown: means over the seeds, and their spread at the first lead."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob(f"{part}-*.json"))]
    variables = list(results[0]["scores"])
    shown = LEADS if part == "headline" else LEADS[:3]
    head = ["", "seeds", "CPU s"]
    for variable in variables:
        head += [f"{variable} RMSE at {' / '.join(str(lead) for lead in shown)} h", "ACC", "small scales", "activity"]
    lines = [head, ["---"] * len(head)]

    def cells(rows: list[dict], digits: int) -> list[str]:
        found = []
        for metric, places in (("rmse", digits), ("acc", 3), ("small_scale_variance", 2), ("activity", 2)):
            series = [row[metric] for row in rows if metric in row]
            if not series:
                found.append("")
                continue
            means = [statistics.mean(values) for values in zip(*series, strict=True)][: len(shown)]
            text = " / ".join("-" if math.isnan(x) else f"{x:.{places}f}" for x in means)
            if metric == "rmse" and len(series) > 1:
                text += f" (±{statistics.stdev(values[0] for values in series):.{places}f})"
            found.append(text)
        return found

    digits = {name: 1 if name == "z500" else 3 for name in variables}
    for name in PARTS[part]:
        runs = [result for result in results if result["name"] == name]
        if not runs:
            continue
        line = [name, str(len(runs)), f"{statistics.mean(run['cpu_seconds'] for run in runs):.0f}"]
        for variable in variables:
            line += cells([run["scores"][variable]["forecast"] for run in runs], digits[variable])
        lines.append(line)
    for system in SYSTEMS:
        line = [system, "", ""]
        for variable in variables:
            line += cells([results[0]["scores"][variable][system]], digits[variable])
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    app()
