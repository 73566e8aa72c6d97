"""2 m temperature, 6-hourly to 5 days, from 2 m temperature and 500 hPa geopotential.

Result to expect on the bundled sample, a SIMULATED climate (test period January to April 2004, latitude-weighted):

    t2m RMSE, K         SimVPv2  persistence  climatology
    6 h                    0.21         0.51         2.32
    24 h                   0.78         1.78         2.32
    72 h                   1.89         2.88         2.31
    120 h                  2.49         3.09         2.31

Measured on 2026-11-23 with `python recipes/t2m.py`, on one core of a 2.8 GHz Xeon; training took 4 min 49 s.
"""

from pathlib import Path

import typer

import simvp_climate as sc


def main(data: str = "", out: Path = Path("t2m"), train_until: str = "", valid_until: str = "", epochs: int = 2):
    """Train until a date, choose the epoch on what follows until another, forecast and score the rest."""
    if data and not (train_until and valid_until):
        raise typer.BadParameter("say where to split your data, for example --train-until 2015 --valid-until 2016")
    ds = sc.open_dataset(data, ["t2m", "z500"]) if data else sc.open_sample(["t2m", "z500"])
    # both dates are included; any calendar
    first, second = (
        ds.sel(time=slice(None, date)).sizes["time"] for date in (train_until or "2003-08", valid_until or "2003-12")
    )
    training, validation, testing = (
        ds.isel(time=slice(*part)) for part in ((0, first), (first, second), (second, None))
    )

    forecaster = sc.train(
        sc.Task(["t2m", "z500"], history=4, horizon=4, step="6h"),
        training,
        valid=validation,
        model=sc.SimVPv2Config(16, 96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0),
        config=sc.TrainConfig(epochs=epochs, batch_size=12, learning_rate=3e-3),
        directory=out,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    forecast = forecaster(testing, every="12h", horizon=20)
    scores = sc.score(forecast, testing, climatology=sc.climatology(training))
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, testing, variable="t2m", lead="3D").savefig(out / "maps.png")
    print(scores["t2m"].sel(metric="rmse").to_pandas().round(2))


typer.run(main)
