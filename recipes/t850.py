"""Temperature at 850 hPa, 6-hourly to 5 days, from itself and 500 hPa geopotential.

Model: SimVPv2, 16 channels in encoder and decoder (two layers each), 96 in the translator (four blocks), 0.72
million weights; four states in, the change to the next four out, again from its own forecast beyond.
Schedule: two epochs in batches of 4; AdamW, the learning rate up to 8e-3 in the first tenth of the steps, then down
to zero along a cosine; in the last quarter through two calls, 48 h. A running average of the weights is kept.

Result to expect on five years of a SIMULATED climate (jcm, a general circulation model, on the grid of the bundled
sample; trained on 2001 to 2003, epoch chosen on 2004, scored on 2005 every 12 h, latitude-weighted):

    t850 RMSE, K        SimVPv2  persistence  climatology
    24 h                   0.53         2.24         2.76
    72 h                   1.58         3.50         2.75
    120 h                  2.38         3.69         2.75

z500 beside it 99 / 306 / 472 m2 s-2 at 24 / 72 / 120 h, persistence 416 / 702 / 777. Measured on 2026-11-25 with
`--train-until 2003 --valid-until 2004`, one core AMD EPYC shared with other work, 10 min 50 s of processor time in
all.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import simvp_climate as sc

VARIABLES = ["t850", "z500"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern; needed.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("t850"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 2,
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
        sc.Task(VARIABLES, history=4, horizon=4, step="6h"),
        train,
        valid=valid,
        model=sc.SimVPv2Config(16, 96, spatial_layers=2, blocks=4, drop_path=0.0),
        config=sc.TrainConfig(epochs=epochs, batch_size=4, learning_rate=8e-3, rollout=2),
        directory=out,
        device=device,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    forecast = forecaster(test, every="12h", horizon=20)
    scores = sc.score(forecast, test, sc.baselines.climatology(train))
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, test, variable="t850", lead="3D").savefig(out / "maps.png")
    print(sc.score_table(scores, "rmse").round(2).to_string(na_rep="-"))


if __name__ == "__main__":
    try:
        app()
    except (OSError, ValueError) as error:  # in words; without these lines Python says where
        words = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in words:
            words += ". To train on from the result: recipes/finetune.py --start forecaster.safetensors"
        print(words, file=sys.stderr)
        sys.exit(2)
