"""Measure what keeps a free run near the climate of the data: one part of the training left out at a time.

    python benchmarks/climate.py --out runs                        all trainings, about 6 min of processor time each
    python benchmarks/climate.py --out runs --only "one call"

On the bundled sample, a simulated climate: trained on January 2001 to August 2003, epochs chosen on September to
December 2003. Each forecaster then runs freely for five years from 2004, two members; its climate is compared with 2001
to 2003. Trainings with a result in the folder are not repeated.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

import simvp_climate as sc

TASK = sc.Task(["z500", "t2m"], history=4, horizon=4, forcings=["time_of_year", "coordinates"])
CONFIG = sc.TrainConfig(
    epochs=4, limit_train_batches=400, input_noise=0.25, select="rollout", validation_windows=64,
    precision="bf16-mixed", progress=False,
)  # fmt: skip
ALL = replace(CONFIG, rollout=3, rollout_share=0.4)
TRAININGS = {
    "all parts": (TASK, ALL),
    "without the season": (replace(TASK, forcings=("coordinates",)), ALL),
    "without noise on the inputs": (TASK, replace(ALL, input_noise=0.0)),
    "one call": (TASK, CONFIG),
    "epoch chosen by the loss": (TASK, replace(ALL, select="loss")),
    "AMSE in place of the squared error": (TASK, replace(ALL, loss="amse")),
}
YEARS = 5


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    only: Annotated[list[str] | None, typer.Option(help="A training; may be repeated.")] = None,
) -> None:
    """Train, run and report, and print a row for each training."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    print("| training | free run | rmse_ratio of z500, t2m | amplitude of t2m | daily variance of z500 | of t2m |")
    print("|---|---|---|---|---|---|")
    for name in only or TRAININGS:
        path = out / f"{name.replace(' ', '_')}.json"
        if not path.exists():
            path.write_text(json.dumps(measure(name)))
        print(f"| {name} | {' | '.join(json.loads(path.read_text()))} |", flush=True)


def measure(name: str) -> list[str]:
    """Return the cells of a row."""
    task, config = TRAININGS[name]
    ds = sc.open_sample(["z500", "t2m"])
    train, valid = ds.sel(time=slice(None, "2003-08")), ds.sel(time=slice("2003-09", "2003-12"))
    forecaster = sc.train(task, train, valid=valid, config=config, device="cpu")
    start = pd.Timestamp("2003-12-31T18")
    until, past = start + pd.DateOffset(years=YEARS, days=1), ds.sel(time=slice(None, start))
    try:
        run = forecaster.run(past, start, until, members=2, progress=False)
    except FloatingPointError as error:
        return [f"left the range: {error}".split(". Train")[0], "", "", "", ""]
    report = sc.metrics.climate_report(run, ds.sel(time=slice("2001", "2003")), eofs=False)
    table = sc.metrics.climate_table(report)

    def span(variable: str, statistic: str) -> str:
        return " to ".join(f"{table.loc[variable, f'{statistic}_{end}']:.2f}" for end in ("min", "max"))

    ratios = ", ".join(f"{table.loc[variable, 'rmse_ratio']:.1f}" for variable in ("z500", "t2m"))
    variances = (span(variable, "variance_ratio") for variable in ("z500", "t2m"))
    return [f"{YEARS} years", ratios, span("t2m", "amplitude_ratio"), *variances]


if __name__ == "__main__":
    typer.run(main)
