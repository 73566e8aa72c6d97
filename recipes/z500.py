"""500 hPa geopotential, 6-hourly to 5 days, from 500 hPa geopotential alone.

RESULT
"""

from pathlib import Path

import numpy as np
import typer

import simvp_climate as sc


def main(data: str = "", out: Path = Path("z500"), valid: str = "", test: str = "", epochs: int = 2):
    """Train until the date `valid`, choose the epoch until `test`, forecast and score the rest."""
    if data and not (valid and test):
        raise typer.BadParameter("say where validation and test begin: --valid 2016-01 --test 2017-01")
    ds = sc.open_dataset(data, ["z500"]) if data else sc.open_sample(["z500"])
    before_valid = ds.time < np.datetime64(valid or "2003-09")
    before_test = ds.time < np.datetime64(test or "2004-01")
    training, validation, testing = (ds.sel(time=m) for m in (before_valid, ~before_valid & before_test, ~before_test))

    forecaster = sc.train(
        sc.Task(["z500"], history=4, horizon=4, step="6h"),
        training,
        valid=validation,
        model=sc.SimVPv2Config(16, 96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0),
        config=sc.TrainConfig(epochs=epochs, batch_size=12, learning_rate=3e-3),
        directory=out,
    )
    forecast = forecaster(testing, every="12h", horizon=20)
    scores = sc.score(forecast, testing, climatology=sc.climatology(training))
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scores(scores).savefig(out / "scores.png")
    sc.plot.maps(forecast, testing, variable="z500", lead="3D").savefig(out / "maps.png")
    print(scores["z500"].sel(metric="rmse").to_pandas().round(0))


typer.run(main)
