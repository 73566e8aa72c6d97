"""Sea surface temperature, monthly to a year ahead, with anomalies and Nino 3.4.

Land is masked: cells without values are left out of statistics, loss and scores, and are NaN in the forecast. The
recipe also scores the mean anomaly over Nino 3.4 (5 S to 5 N, 170 to 120 W) beside its persistence. It draws
forecasts of anomalies three months ahead, as maps (anomalies.png) and for Nino 3.4 (nino34.png). Anomalies are from
the climatology of the training period.

Model: SimVPv2, 16 channels in encoder and decoder (four layers each), 64 in the translator (two blocks, drop path
0.1), 0.92 million weights. It takes twelve months and predicts the next twelve, as changes from the last one.
Schedule: six epochs in batches of 4; AdamW, learning rate up to 2e-3 in the first tenth of the steps, then down to
zero along a cosine. The exponential moving average of the weights is kept.

Result to expect on COBE-SST2 (JMA, by NOAA) at 5 degrees, 1950 to 2009 (trained to 1998, epoch chosen on 1999 to
2004, forecasts from every month of 2005 to 2008; latitude-weighted RMSE in K):

                          RMSE of all cells                            Nino 3.4: RMSE, correlation
    lead        SimVPv2    persistence of    damped    climatology     SimVPv2      persistence of
                          states  anomalies persistence                               anomalies
    1 month        0.36     1.13     0.32       0.31        0.60      0.30   0.94     0.32   0.94
    3 months       0.61     2.88     0.53       0.49        0.60      0.69   0.66     0.77   0.61
    6 months       0.73     3.92     0.63       0.56        0.61      1.10   0.11     1.21   0.05
    12 months      0.62     0.62     0.62       0.57        0.61      1.36  -0.25     1.37  -0.24

Persistence of states has the season in it. SimVPv2 beats climatology for two months only. Over all cells it is worse
than persistence of anomalies up to 11 months ahead, and than damped persistence of anomalies at all leads; over
Nino 3.4 it beats persistence of anomalies by a little. The 588 months of training are few. Measured on 2026-11-30
with `--train-until 1998 --valid-until 2004`, one core AMD EPYC, 2 min 39 s of processor time in all.
"""

from pathlib import Path

import common
import pandas as pd
import xarray as xr

import simvp_climate as sc

TASK = sc.Task(["sst"], history=12, horizon=12, step="1MS", forcings=["coordinates", "time_of_year"])
MODEL = sc.SimVPv2Config(16, 64, spatial_layers=4, blocks=2, drop_path=0.1)
CONFIG = sc.TrainConfig(epochs=6, batch_size=4, optimizer="adamw", learning_rate=2e-3)


def evaluate(forecaster: sc.Forecaster, train: xr.Dataset, test: xr.Dataset, out: Path) -> None:
    """Forecast a year from every month, score the forecasts, and compare anomalies and Nino 3.4 with the truth."""
    climatology = sc.baselines.climatology(train)
    forecast = forecaster(test, every="1MS")
    scores = sc.score(forecast, test, climatology, train=train)
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, test, lead=3).savefig(out / "maps.png")
    common.print_scores(scores, ["rmse", "acc"])

    months = forecast["valid_time"].dt.month
    predicted = forecast.assign(sst=forecast["sst"] - climatology["sst"].sel(month=months).drop_vars("month"))
    observed = (test.groupby("time.month") - climatology).drop_vars("month")
    for anomaly in (predicted, observed):
        anomaly["sst"].attrs = {"units": "K", "long_name": "SST anomaly"}
    sc.plot.maps(predicted, observed, lead=3).savefig(out / "anomalies.png")
    title = "Anomalies of the test period, 5 S to 5 N"
    sc.plot.hovmoller(observed, latitudes=(-5, 5), title=title).savefig(out / "hovmoller.png")
    score_nino34(predicted, observed, out)


def score_nino34(predicted: xr.Dataset, observed: xr.Dataset, out: Path) -> None:
    """Print RMSE and correlation of the Nino 3.4 anomaly by lead, and draw it three months ahead."""
    persistence = sc.baselines.persistence(observed, predicted["init_time"], predicted["lead_time"])
    systems = {"SimVPv2": nino34(predicted["sst"]), "persistence": nino34(persistence["sst"])}
    series = nino34(observed["sst"]).to_series().reindex(predicted["valid_time"].values.ravel())
    truth = systems["SimVPv2"].copy(data=series.values.reshape(systems["SimVPv2"].shape))
    table = {}
    for name, system in systems.items():
        table["RMSE, K", name] = (((system - truth) ** 2).mean("init_time") ** 0.5).values
        table["correlation", name] = xr.corr(system, truth, "init_time").values
    print("\nNino 3.4 by lead in months")
    print(pd.DataFrame(table, index=predicted["lead_time"].values).round(2).to_string())
    curves = {name: values.sel(lead_time=3).values for name, values in {"truth": truth, **systems}.items()}
    dates = predicted["valid_time"].sel(lead_time=3).dt.strftime("%Y-%m").values
    axes = pd.DataFrame(curves, dates).plot(title="Nino 3.4, three months ahead", ylabel="SST anomaly, K")
    axes.figure.savefig(out / "nino34.png")


def nino34(field: xr.DataArray) -> xr.DataArray:
    """Return the mean over 5 S to 5 N, 170 to 120 W."""
    latitude, longitude = (next(n for n in field.dims if str(n).startswith(prefix)) for prefix in ("lat", "lon"))
    east = field[longitude] % 360
    in_box = (abs(field[latitude]) <= 5) & (east >= 190) & (east <= 240)
    # unweighted: cell areas hardly differ within 5 degrees of the equator
    return field.where(in_box).mean([latitude, longitude])


if __name__ == "__main__":
    common.run(TASK, MODEL, CONFIG, evaluate)
