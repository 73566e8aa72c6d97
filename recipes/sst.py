"""Sea surface temperature, monthly to a year ahead, with anomalies and Nino 3.4.

Land is a mask: cells that never have a value are left out of statistics, loss and scores, and the forecast has none
there. Beside the scores stands the mean anomaly over Nino 3.4 (5 S to 5 N, 170 to 120 W), with its persistence; the
anomalies of the forecast, less the climatology of the training period, are drawn beside the truth's, three months
ahead (anomalies.png) and over Nino 3.4 (nino34.png).

Model: SimVPv2, 16 channels in encoder and decoder (four layers each), 64 in the translator (two blocks, the last
skipped for a tenth of the samples), 0.92 million weights; twelve months in, the change to the next twelve out.
Schedule: six epochs in batches of 4; AdamW, the learning rate up to 2e-3 in the first tenth of the steps, then down
to zero along a cosine. A running average of the weights is kept.

Result to expect on COBE-SST2 (JMA, by NOAA) at 5 degrees, 1950 to 2009 (trained to 1998, epoch chosen on 1999 to
2004, forecasts from every month of 2005 to 2008 on; latitude-weighted RMSE in K, and of the Nino 3.4 anomaly with
its correlation):

    lead        SimVPv2  persistence  climatology    Nino 3.4   correlation   persistence
    1 month        0.36         1.13         0.60        0.29          0.95   0.32   0.94
    3 months       0.61         2.88         0.60        0.68          0.67   0.77   0.61
    6 months       0.73         3.92         0.61        1.10          0.09   1.21   0.05
    12 months      0.62         0.62         0.61        1.36         -0.25   1.37  -0.24

Better than climatology for two months only, in Nino 3.4 a little better than anomalies that persist; 588 months are
few. Measured on 2026-11-25 with `--train-until 1998 --valid-until 2004`, one core AMD EPYC, 2 min 50 s of processor
time in all.
"""

import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import simvp_climate as sc

VARIABLES = ["sst"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern; needed.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("sst"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 6,
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
        sc.Task(VARIABLES, history=12, horizon=12, step="1MS", forcings=["coordinates", "time_of_year"]),
        train,
        valid=valid,
        model=sc.SimVPv2Config(16, 64, spatial_layers=4, blocks=2, drop_path=0.1),
        config=sc.TrainConfig(epochs=epochs, batch_size=4, learning_rate=2e-3),
        directory=out,
        device=device,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    climatology = sc.baselines.climatology(train)
    forecast = forecaster(test, every="1MS")
    scores = sc.score(forecast, test, climatology)
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, test, lead=3).savefig(out / "maps.png")
    print(sc.score_table(scores, ["rmse", "acc"]).round(2).to_string(na_rep="-"))

    anomalies = (test.groupby("time.month") - climatology).drop_vars("month")
    ours = forecast["sst"] - climatology["sst"].sel(month=forecast["valid_time"].dt.month).drop_vars("month")
    kept = sc.baselines.persistence(anomalies, forecast["init_time"], forecast["lead_time"])["sst"]
    index = {"SimVPv2": nino34(ours), "persistence": nino34(kept)}
    found = nino34(anomalies["sst"]).to_series().reindex(forecast["valid_time"].values.ravel())
    truth = index["SimVPv2"].copy(data=found.values.reshape(index["SimVPv2"].shape))
    table = {}
    for name, one in index.items():
        table["RMSE, K", name] = (((one - truth) ** 2).mean("init_time") ** 0.5).values
        table["correlation", name] = xr.corr(one, truth, "init_time").values
    print("\nNino 3.4 by lead in months")
    print(pd.DataFrame(table, index=forecast["lead_time"].values).round(2).to_string())
    words = {"units": "K", "long_name": "SST anomaly"}
    shown, ahead = (
        one.assign(sst=sst.assign_attrs(words)) for one, sst in ((anomalies, anomalies["sst"]), (forecast, ours))
    )
    sc.plot.maps(ahead, shown, lead=3).savefig(out / "anomalies.png")
    at = {name: one.sel(lead_time=3).values for name, one in {"truth": truth, **index}.items()}
    series = pd.DataFrame(at, index=forecast["valid_time"].sel(lead_time=3).dt.strftime("%Y-%m").values)
    series.plot(title="Nino 3.4, three months ahead", ylabel="SST anomaly, K").figure.savefig(out / "nino34.png")
    picture = sc.plot.hovmoller(shown, latitudes=(-5, 5), title="Anomalies of the test period, 5 S to 5 N")
    picture.savefig(out / "hovmoller.png")


def nino34(field: xr.DataArray) -> xr.DataArray:
    """Return the mean over 5 S to 5 N, 170 to 120 W."""
    latitude, longitude = (next(n for n in field.dims if str(n).startswith(word)) for word in ("lat", "lon"))
    east = field[longitude] % 360
    inside = (abs(field[latitude]) <= 5) & (east >= 190) & (east <= 240)
    # cells of one band of latitudes: their areas hardly differ
    return field.where(inside).mean([latitude, longitude])


if __name__ == "__main__":
    try:
        app()
    except (OSError, ValueError) as error:  # in words; without these lines Python says where
        words = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in words:
            words += ". To train on from the result: recipes/finetune.py --start forecaster.safetensors"
        print(words, file=sys.stderr)
        sys.exit(2)
