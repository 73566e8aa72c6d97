"""2 m temperature, 6-hourly to 5 days, from 2 m temperature and 500 hPa geopotential.

Grid: that of the data, here 64 x 32 cells of 5.625 degrees. Periods of the sample: trained on January 2001 to August
2003, the epoch chosen on September to December 2003, scored on January to April 2004 every 12 h; of other data
WeatherBench's (to 2015, 2016, 2017 and 2018), or by --train-until and --valid-until.
Model: SimVPv2, 16 channels in encoder and decoder (four layers each), 96 in the translator (four blocks), 0.47
million weights; four states in, the change to the next four out, again from its own forecast beyond.
Schedule: two epochs in batches of 12; AdamW, the learning rate up to 3e-3 in the first tenth of the steps, then down
to zero along a cosine. A running average of the weights is kept.

Result to expect on the bundled sample, a SIMULATED climate (test period January to April 2004, latitude-weighted):

    t2m RMSE, K         SimVPv2  persistence  climatology
    6 h                    0.21         0.51         2.32
    24 h                   0.78         1.78         2.32
    72 h                   1.89         2.88         2.31
    120 h                  2.49         3.09         2.31

Measured on 2026-11-23 with `python recipes/t2m.py`, on one core of a 2.8 GHz Xeon; training took 4 min 49 s.

OpenSTL publishes 1.051 K for SimVPv2 (gSTA) on ERA5 at 5.625 degrees, trained on 2010 to 2015 and scored on 2017 and
2018: of hourly forecasts, pooled over leads of 1 to 12 h, and not weighted by latitude. Not measured here.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import simvp_climate as sc

VARIABLES = ["t2m", "z500"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern. Default: the bundled sample.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("t2m"),
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
        train_until, valid_until = train_until or "2003-08", valid_until or "2003-12"
    ds = sc.open_dataset(data, VARIABLES) if data else sc.open_sample(VARIABLES)
    train, valid, test = sc.split(ds, train_until or None, valid_until or None)

    forecaster = sc.train(
        sc.Task(VARIABLES, history=4, horizon=4, step="6h"),
        train,
        valid=valid,
        model=sc.SimVPv2Config(16, 96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0),
        config=sc.TrainConfig(epochs=epochs, batch_size=12, learning_rate=3e-3),
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
    sc.plot.maps(forecast, test, variable="t2m", lead="3D").savefig(out / "maps.png")
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
