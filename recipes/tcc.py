"""Total cloud cover, 6-hourly to 3 days, from itself, 500 hPa geopotential and 2 m temperature.

Forecasts are held between 0 and 1.

Model: SimVPv2, 16 channels in encoder and decoder (two layers each), 96 in the translator (four blocks), 0.72
million weights; four states in, the change to the next four out, again from its own forecast beyond.
Schedule: one epoch in batches of 4; AdamW, the learning rate up to 8e-3 in the first tenth of the steps, then down
to zero along a cosine; in the last quarter through two calls, 48 h. A running average of the weights is kept.

Result to expect on a SIMULATED climate (`tools/make_sample.py recipes.zarr --recipes`; trained on January 2001 to
August 2003, epoch chosen to December 2003, scored on January to April 2004 every 12 h, area-weighted):

    tcc RMSE, 1         SimVPv2  persistence  climatology
    24 h                  0.167        0.274        0.252
    48 h                  0.203        0.326        0.252
    72 h                  0.225        0.337        0.252

Measured on 2026-11-25 with `--train-until 2003-08 --valid-until 2003-12`, one core AMD EPYC shared with other work,
4 min 30 s of processor time in all.

OpenSTL publishes 0.2158 for SimVPv2 (gSTA) on ERA5 at 5.625 degrees, trained on 2010 to 2015 and scored on 2017 and
2018: a fraction, of hourly forecasts, pooled over leads of 1 to 12 h, and not weighted by latitude. Not measured
here.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import simvp_climate as sc

VARIABLES = ["tcc", "z500", "t2m"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern; needed.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("tcc"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run in --out, complete or not.")] = False,
    train_until: Annotated[str, typer.Option(help="Last date to learn from. Default: 2015, as WeatherBench.")] = "",
    valid_until: Annotated[str, typer.Option(help="Last date to choose the epoch on. Default: 2016.")] = "",
) -> None:
    """Train until a date, choose the epoch on what follows until another, forecast and score the rest."""
    begun, ended = ((out / name).exists() for name in ("training.pt", "forecaster.safetensors"))
    # a run that was stopped goes on; one that is complete, and what is no run, is not overwritten
    if (ended or not begun) and not resume and sc.is_first_process() and out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} holds a run or other files: take it up by --resume, or choose another --out")
    if not data:
        words = f"give data with {', '.join(VARIABLES)}; simvp-climate check PATH says whether they will do"
        raise typer.BadParameter(f"{words}. recipes/t2m.py runs without, on the bundled sample", param_hint="--data")
    ds = sc.open_dataset(data, VARIABLES)
    train, valid, test = sc.split(ds, train_until or None, valid_until or None)

    forecaster = sc.train(
        sc.Task(VARIABLES, history=4, horizon=4, step="6h", transforms={"tcc": (0, 1)}),
        train,
        valid=valid,
        model=sc.SimVPv2Config(16, 96, spatial_layers=2, blocks=4, drop_path=0.0),
        config=sc.TrainConfig(epochs=epochs, batch_size=4, learning_rate=8e-3, rollout=2),
        directory=out,
        device=device,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    forecast = forecaster(test, every="12h", horizon=12)
    scores = sc.score(forecast, test, sc.baselines.climatology(train))
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, test, variable="tcc", lead="3D").savefig(out / "maps.png")
    print(sc.score_table(scores, "rmse").round(3).to_string(na_rep="-"))


if __name__ == "__main__":
    try:
        app()
    except (OSError, ValueError) as error:  # in words; without these lines Python says where
        words = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in words:
            words += ". To train on from the result: recipes/finetune.py --start forecaster.safetensors"
        print(words, file=sys.stderr)
        sys.exit(2)
