"""Thirty years of a climate: train a network for long runs, run members freely, and report their climate.

Forcings: time of year, coordinates, orography and land-sea mask.

Model: SimVPSphere with its default sizes.
Schedule: see CONFIG; the epoch is chosen by the bias of a rollout over the validation period.

RESULT
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
CONFIG = sc.TrainConfig(
    epochs=5, batch_size=4, rollout=3, rollout_share=0.4, input_noise=0.25, select="rollout", validation_windows=64
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
    config = common.with_length(CONFIG, epochs, max_steps)
    forecaster = sc.train(TASK, train, valid=valid, model=MODEL, config=config, directory=folder, device=device)
    if not sc.is_first_process():
        return
    start = pd.Timestamp(train.time.values[-1])
    until = start + pd.DateOffset(years=years, days=1)
    run = forecaster.run(train, start, until, outputs="1D", members=members, store=folder / "run.zarr")
    # the run has the climate of the training period if it has one at all; later years say whether that is the climate
    for name, truth in {"report": train, "report_test": test}.items():
        report = sc.metrics.climate_report(run, truth)
        report.to_netcdf(folder / f"{name}.nc")
        print(f"beside {truth.time.values[0]:.10} to {truth.time.values[-1]:.10}:")
        print(sc.metrics.climate_table(report).to_string())
        for variable in ("z500", "t2m"):
            sc.plot.climate_report(report, variable=variable).savefig(folder / f"{name}_{variable}.png")
    sc.io.to_cmip(run, folder / "cmip", institution="Example")


if __name__ == "__main__":
    common.launch(main)
