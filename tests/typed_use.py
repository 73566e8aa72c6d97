"""Code of a user with a type checker: mypy checks it in strict mode, and it is never run."""

from pathlib import Path

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from torch import nn

import simvp_climate as sc


def from_data_to_figure(path: Path) -> Figure:
    ds: xr.Dataset = sc.open_dataset(path, ["z500", "t2m"])
    task = sc.Task(("z500", "t2m"), history=4, horizon=4, step="6h")
    forecaster: sc.Forecaster = sc.train(
        task,
        ds.sel(time=slice("1979", "2015")),
        valid=ds.sel(time="2016"),
        model=sc.SimVPv2Config(hidden_space=16),
        config=sc.TrainConfig(epochs=1),
    )
    forecaster.save(path)
    forecast: xr.Dataset = sc.Forecaster.load(path)(ds, every="12h", horizon=20)
    scores: xr.Dataset = sc.score(
        forecast, ds, climatology=sc.baselines.climatology(ds), regions=["tropics"], by="season"
    )
    table: pd.DataFrame = sc.score_table(scores, "rmse")
    print(table, sc.check(ds, task).ok, forecaster.training_curve)
    intervals: xr.Dataset = forecaster.interval(0.9, ds, every="24h")(forecast)
    print(sc.uncertainty.coverage(intervals, ds), sc.ensemble([forecaster, forecaster], ds))
    sc.plot.maps(forecast, ds, lead="3D")
    return sc.plot.scores(scores)


def build(shape: sc.NetworkShape) -> nn.Module:
    return nn.Conv3d(shape.history, shape.history, 1)


def train_a_network_of_another_kind(task: sc.Task, ds: xr.Dataset, path: Path) -> xr.Dataset:
    sc.train(task, ds, valid=None, model=build, config=sc.TrainConfig(limit_train_batches=3)).save(path)
    return sc.Forecaster.load(path, network=build)(ds)
