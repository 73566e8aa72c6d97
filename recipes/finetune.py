"""A forecaster that exists, trained on: through longer rollouts, or on other data.

Starts from the file of a forecaster; by default from the pretrained one of the sample. Its channels are found by
name, variables that it has not begin anew, and the statistics stay its own where grid and units are the same. Here
it learns through three of its calls, 72 hours, at a tenth of the usual learning rate.

Model: that of the forecaster; the pretrained one is a SimVPv2 with 16 channels in encoder and decoder (four layers
each), 96 in the translator (four blocks), 0.47 million weights.
Schedule: one epoch in batches of 8; AdamW, the learning rate up to 4e-4 in the first tenth of the steps, then down
to zero along a cosine; all of it through three calls. A running average of the weights is kept.

Result to expect from the pretrained forecaster, on the bundled sample (a SIMULATED climate; test period January to
April 2004, latitude-weighted): nothing that is worth it. z500 RMSE before 135 / 388 / 552 / 727 m2 s-2 at 1 / 3 / 5
/ 10 days, after 137 / 390 / 553 / 730; activity before 0.98 / 0.91 / 0.85 / 0.82, after 0.98 / 0.91 / 0.87 / 0.84:
it blurs a little less. That forecaster has learned through two calls before. Measured on 2026-11-25, one core AMD
EPYC, 3 min 55 s of processor time in all.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
import xarray as xr

import simvp_climate as sc

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    start: Annotated[str, typer.Option(help="The file of a forecaster. Default: the pretrained one.")] = "",
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern. Default: the bundled sample.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("finetune"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run in --out, complete or not.")] = False,
    train_until: Annotated[str, typer.Option(help="Last date to learn from. Default: 2015, as WeatherBench.")] = "",
    valid_until: Annotated[str, typer.Option(help="Last date to choose the epoch on. Default: 2016.")] = "",
) -> None:
    """Train on from a forecaster, and score it beside what it was."""
    begun, ended = ((out / name).exists() for name in ("training.pt", "forecaster.safetensors"))
    # a run that was stopped goes on; one that is complete, and what is no run, is not overwritten
    if (ended or not begun) and not resume and sc.is_first_process() and out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} holds a run or other files: take it up by --resume, or choose another --out")
    before = sc.Forecaster.load(start, device) if start else sc.open_pretrained("sample", device)
    task = before.task
    if not data:
        train_until, valid_until = train_until or "2003-08", valid_until or "2003-12"
    names = [*task.variables, *task.inputs, *task.diagnostics]
    ds = sc.open_dataset(data, names, levels=task.levels) if data else sc.open_sample(names)
    train, valid, test = sc.split(ds, train_until or None, valid_until or None)

    after = sc.train(
        task,
        train,
        valid=valid,
        start_from=before,
        config=sc.TrainConfig(
            epochs=epochs, batch_size=8, learning_rate=4e-4, rollout=3, rollout_share=1.0, statistics="inherit"
        ),
        directory=out,
        device=device,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    forecasts: dict[str, xr.Dataset] = {
        name: one(test, every="12h", horizon=40) for name, one in (("before", before), ("after", after))
    }
    scores = sc.score(
        forecasts["after"].assign_attrs(system="after"),
        test,
        sc.baselines.climatology(train),
        baselines={"before": forecasts["before"]},
    )
    forecasts["after"].to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.scorecard(scores, "before").savefig(out / "scorecard.png")
    print(sc.score_table(scores, ["rmse", "activity"]).round(2).to_string(na_rep="-"))


if __name__ == "__main__":
    try:
        app()
    except (OSError, ValueError) as error:  # in words; without these lines Python says where
        words = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in words:
            words += ". To train on from the result: recipes/finetune.py --start forecaster.safetensors"
        print(words, file=sys.stderr)
        sys.exit(2)
