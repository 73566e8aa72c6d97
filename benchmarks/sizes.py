"""Measure the sizes of the default network on the bundled sample: time of a step, memory, and error after a time.

    python benchmarks/sizes.py table --budget 600

Each size trains in a process with one thread on z500 and t2m from January 2001 to August 2003, for the budget of
processor time, and is scored on September to December 2003; the test months of the sample are not read.
"""

import json
import os
import resource
import subprocess
import sys
from typing import Annotated

import rival_report
import rivals
import typer

import simvp_climate as sc

SIZES = ("small", "medium", "large")
HOURS = (24, 72, 120)
app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0], pretty_exceptions_enable=False)


def measure(size: str, budget: float, precision: str) -> dict:
    """Train a size for `budget` seconds of processor time and score it."""
    import torch

    torch.set_num_threads(1)
    ds = sc.open_sample(rivals.VARIABLES).load()
    train, valid = ds.sel(time=slice("2001-01", "2003-08")), ds.sel(time=slice("2003-09", "2003-12"))
    config = sc.TrainConfig(precision=precision, rollout=2, progress=False)
    network = rivals.Network(getattr(sc.SimVPSphereConfig, size)(), rivals.VARIABLES, config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forecaster, result = rivals.train_for(budget, network, network.task, train)
    result["MiB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    forecast = forecaster(valid, every="12h", horizon=HOURS[-1] // 6)
    scores = sc.score(forecast, valid, metrics=["rmse"], persistence=False).isel(system=0)
    hours = [f"{hour}h" for hour in HOURS]
    for name in rivals.VARIABLES:
        result[name] = scores[name].sel(metric="rmse", lead_time=hours).values.tolist()
    return result


@app.command(hidden=True)
def one(size: str, budget: float, precision: str):
    """Measure one size and print the result as JSON."""
    print(json.dumps(measure(size, budget, precision)))


@app.command()
def table(budget: float = 600.0, precision: Annotated[str, typer.Option(help="32-true or bf16-mixed")] = "bf16-mixed"):
    """Measure all sizes and print the table, a row as soon as it is there."""
    head = ["size", "M parameters", "ms a step", "steps", "CPU s", "MiB", "z500 RMSE 24 / 72 / 120 h", "t2m RMSE"]
    print(f"{rival_report.as_table(head, [])}", flush=True)
    for size in SIZES:
        command = [sys.executable, __file__, "one", size, str(budget), precision]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        output = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        cells = [size, f"{result['parameters'] / 1e6:.2f}", f"{result['ms_a_step']:.0f}", str(result["steps"])]
        cells += [f"{result['cpu_seconds']:.0f}", f"{result['MiB']:.0f}"]
        cells += [rival_report.slashes(result[name], rival_report.digits(name)) for name in rivals.VARIABLES]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    app()
