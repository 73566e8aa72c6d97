"""Thirty years of a climate: train a network for long runs, run it freely, and report its climate.

Five variables: z500, t2m, t850 and the wind at 10 m. Forcings: time of year, coordinates, orography and land-sea mask.

Model: SimVPSphere with its default sizes, 0.67 million weights. It takes four states and predicts the next four, as
changes from the last one.
Schedule: five epochs in batches of 4; Muon, learning rate up to 8e-3 in the first tenth of the steps, then down to
zero along a cosine; noise of a quarter of the typical change on the inputs; a rollout of three network calls in the
last 40 % of the steps. Then 16 times 250 batches of the continuous ranked probability score (CRPS) of two members, with
AdamW, learning rate up to 5e-4, and the same noise on the inputs and rollout. The exponential moving average of the
weights is kept, in both stages of the epoch whose rollout over the validation year has the smallest bias.

Result to expect on five years of a SIMULATED climate (jcm, a general circulation model, on the grid of the bundled
sample; trained on 2001 to 2003, epochs chosen on 2004), 20 members from 2004 to 2033, beside 2001 to 2003. All 20 stay
in range. The error is that of the time mean over the error that true years have among themselves; amplitude of the
annual cycle and daily variance are ratios to the truth, from the smallest to the largest of six latitude bands:

             trend per decade, 95 % interval     error   amplitude    daily variance
    z500    -0.05 (-2.09 to 1.99) m2 s-2         1.06    0.97 1.12     0.74 0.91
    t2m     0.005 (-0.011 to 0.020) K            1.60    0.97 1.05     0.84 1.08
    t850    0.004 (-0.010 to 0.019) K            1.41    0.97 1.05     0.86 0.99
    u10     0.005 (-0.007 to 0.016) m s-1        1.09    0.79 1.23     0.83 0.95
    v10     0.004 (-0.006 to 0.014) m s-1        1.15    0.50 1.17     0.79 0.95

Daily variance is of two members over six years. docs/climate.md says what each stage changes. Three true years differ
among themselves, too: within 2001 to 2004 the amplitude of z500 of the worst band by 24 %, daily variance by up to
11 %. Measured on 2026-12-01 with `--train-until 2003 --valid-until 2004`, one AMD EPYC core beside other work: 14 and
19 min of training, 33 min for the run.
"""

from typing import Annotated

import common
import pandas as pd
import typer

import simvp_climate as sc

TASK = sc.Task(
    ["z500", "t2m", "t850", "u10", "v10"],
    history=4,
    horizon=4,
    step="6h",
    forcings=["time_of_year", "coordinates", "orography", "land_sea_mask"],
)
MODEL = sc.SimVPSphereConfig()
FIRST = sc.TrainConfig(
    epochs=5,
    batch_size=4,
    learning_rate=8e-3,
    input_noise=0.25,
    rollout=3,
    rollout_share=0.4,
    select="rollout",
    validation_windows=64,
)
SECOND = sc.TrainConfig(
    epochs=16,
    limit_train_batches=250,
    loss="crps",
    members=2,
    optimizer="adamw",
    learning_rate=5e-4,
    weight_decay=0.1,
    input_noise=0.25,
    rollout=3,
    rollout_share=0.4,
    select="rollout",
    validation_windows=32,
)


def main(
    data: common.Data = "",
    out: common.Out = None,
    epochs: common.Epochs = None,
    max_steps: common.MaxSteps = None,
    years: Annotated[int, typer.Option(help="Length of the run.", min=1)] = 30,
    members: Annotated[int, typer.Option(help="Runs side by side.", min=1)] = 2,
    device: common.Device = "auto",
    resume: common.Resume = False,
    train_until: common.TrainUntil = "",
    valid_until: common.ValidUntil = "",
) -> None:
    """Train, run freely from the end of the training period, and report the climate of the run and of the data."""
    folder = common.check_folder(out, resume, results=["report.nc"])
    train, valid, test = common.open_periods(TASK, data, train_until, valid_until)
    calm = sc.train(
        TASK,
        train,
        valid=valid,
        model=MODEL,
        config=common.with_length(FIRST, epochs, max_steps),
        directory=folder / "squared-error",
        device=device,
    )
    forecaster = sc.train(
        TASK,
        train,
        valid=valid,
        start_from=calm,
        config=common.with_length(SECOND, epochs, max_steps),
        directory=folder / "crps",
        device=device,
    )
    if not sc.is_first_process():
        return
    start = pd.Timestamp(train.time.values[-1])
    until = start + pd.DateOffset(years=years, days=1)
    run = forecaster.run(train, start, until, outputs="1D", members=members, store=folder / "run.zarr")
    # the run has the climate of the training period if it has one at all; later years say whether that is the climate
    truths = {"report": train}
    if test.time.values[-1] - test.time.values[0] >= pd.Timedelta("364D"):
        truths["report_test"] = test
    for name, truth in truths.items():
        report = sc.metrics.climate_report(run, truth)
        report.to_netcdf(folder / f"{name}.nc")
        print(f"beside {truth.time.values[0]:.10} to {truth.time.values[-1]:.10}:")
        print(sc.metrics.climate_table(report).to_string())
        for variable in ("z500", "t2m"):
            sc.plot.climate_report(report, variable=variable).savefig(folder / f"{name}_{variable}.png")
    sc.io.to_cmip(run, folder / "cmip", institution="Example")


if __name__ == "__main__":
    common.launch(main)
