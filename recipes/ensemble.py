"""Uncertainty: an ensemble of seeds, one of perturbed initial states, and calibrated prediction intervals.

Model: three networks SimVPv2, each with 16 channels in encoder and decoder (two layers each), 64 in the translator
(two blocks), 0.20 million weights. They take four states and predict the next four, as changes from the last one.
Schedule: one epoch each in batches of 8; AdamW, learning rate up to 4e-3 in the first tenth of the steps, then down
to zero along a cosine. The exponential moving average of the weights is kept.

Result to expect on the bundled sample, a SIMULATED climate (trained on January 2001 to February 2003, fitted on
March to December 2003, scored on January to April 2004, every second day, area-weighted), at 1 / 3 / 5 days:

                                    CRPS, m2 s-2, K       spread over error
    z500, three seeds                 84 / 213 / 274      0.36 / 0.46 / 0.53
    z500, ten perturbed              100 / 205 / 285      6.90 / 0.93 / 0.65
    t2m, three seeds              0.43 / 0.95 / 1.18      0.33 / 0.46 / 0.54
    t2m, ten perturbed            0.44 / 0.92 / 1.21      3.15 / 0.88 / 0.68
    persistence, z500 (its MAE)      257 / 444 / 497
    climatology, z500 (its MAE)      413 / 413 / 413

The seeds spread too little; the perturbed ensemble spreads too much at first and too little later. The 90 % intervals
around a single forecast contain 0.90 of the truth at one day, and 0.87 (z500) and 0.89 (t2m) at five days, in March
and April, the only test months that the validation period contains too. Measured on 2026-11-25, one core AMD EPYC; 7
min of processor time after training.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import typer
import xarray as xr

import simvp_climate as sc

TASK = sc.Task(["z500", "t2m"], history=4, horizon=4, step="6h")
MODEL = sc.SimVPv2Config(16, 64, spatial_layers=2, blocks=2, drop_path=0.0)
CONFIG = sc.TrainConfig(epochs=1, batch_size=8, optimizer="adamw", learning_rate=4e-3)


def main(
    data: common.Data = "",
    out: common.Out = None,
    epochs: common.Epochs = None,
    max_steps: common.MaxSteps = None,
    seeds: Annotated[int, typer.Option(help="Number of forecasters to train.", min=2)] = 3,
    members: Annotated[int, typer.Option(help="Members of the perturbed ensemble.", min=2)] = 10,
    device: common.Device = "auto",
    resume: common.Resume = False,
    train_until: common.TrainUntil = "",
    valid_until: common.ValidUntil = "",
) -> None:
    """Train with several seeds, calibrate on the validation period, score ensembles and intervals on the rest."""
    folder = common.check_folder(out, resume, results=["scores.png"])
    train, valid, test = common.open_periods(TASK, data, train_until, valid_until, ("2003-02", "2003-12"))
    config = common.with_length(CONFIG, epochs, max_steps)
    forecasters = [
        sc.train(
            TASK,
            train,
            valid=valid,
            model=MODEL,
            config=dataclasses.replace(config, seed=seed),
            directory=folder / f"seed-{seed}",
            device=device,
        )
        for seed in range(seeds)
    ]
    if sc.is_first_process():  # with torchrun or srun, one process evaluates
        score_ensembles(forecasters, members, train, valid, test, folder)
        score_intervals(forecasters[0], train, valid, test)


def score_ensembles(
    forecasters: list[sc.Forecaster],
    members: int,
    train: xr.Dataset,
    valid: xr.Dataset,
    test: xr.Dataset,
    folder: Path,
) -> None:
    """Score the ensemble of seeds and an ensemble of perturbed initial states by CRPS and spread over error."""
    first, climatology = forecasters[0], sc.baselines.climatology(train)
    amplitude = sc.fit_amplitude(first, valid, train, lead=12)
    print(f"amplitude {amplitude:.3f}: spread and error agree at 3 days on the validation period")
    systems = {
        f"{len(forecasters)} seeds": sc.ensemble(forecasters, test, every="2D", horizon=20),
        f"{members} perturbed": sc.perturbed_ensemble(
            first, test, train, amplitude, every="2D", horizon=20, members=members
        ),
    }
    metrics = ["crps", "spread_skill_ratio"]
    for name, forecast in systems.items():
        scores = sc.score(forecast.assign_attrs(system=name), test, climatology)
        scores.to_netcdf(folder / f"{name.replace(' ', '-')}.nc")
        common.print_scores(scores, metrics)
    sc.plot.scores(scores, metric=metrics).savefig(folder / "scores.png")


def score_intervals(forecaster: sc.Forecaster, train: xr.Dataset, valid: xr.Dataset, test: xr.Dataset) -> None:
    """Fit 90 % intervals on the validation period, and print their coverage in the months of that period."""
    climatology = sc.baselines.climatology(train)
    intervals = forecaster.interval(0.9, valid, every="1D", horizon=20, climatology=climatology)
    forecast = forecaster(test, every="1D", horizon=20)
    fitted_months = list(set(valid["time"].dt.month.values.tolist()))
    covered = forecast["valid_time"].dt.month.isin(fitted_months).all("lead_time")
    if covered.any():
        coverage = sc.uncertainty.coverage(intervals(forecast.isel(init_time=covered.values)), test)
        print("coverage of 90 % intervals:")
        print(coverage.to_dataframe()[list(TASK.variables)].round(3).to_string())


if __name__ == "__main__":
    common.launch(main)
