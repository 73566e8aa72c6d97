"""The command line: `python -m simvp_climate demo`. Thin: it uses the public API only."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
import xarray as xr

import simvp_climate as sc

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# chosen on the validation months of the sample, for five minutes on two cores
MODEL = dict(hidden_space=16, hidden_time=96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0)
TRAINING = dict(epochs=2, batch_size=12, learning_rate=3e-3, average=0.985, validation_windows=64)


@app.callback()
def main() -> None:
    """Learned weather and climate forecasts on latitude-longitude grids."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    months: Annotated[int, typer.Option(help="Months to train on, up to 32; fewer are faster.", min=1, max=32)] = 32,
) -> None:
    """Train on the bundled sample, forecast months it never saw, score and draw.

    Example: python -m simvp_climate demo --out demo

    The sample is a simulated climate, not observations. Exit status 0 when all files are written.
    """
    ours = out / "forecaster.safetensors"
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and (not ours.exists() or (out / "training.pt").exists()):  # the latter: a run of train()
        raise typer.BadParameter(f"{out} exists and is not a folder of this demo: choose another", param_hint="--out")
    out.mkdir(parents=True, exist_ok=True)

    ds = sc.open_sample()
    first = pd.Timestamp("2003-09-01") - pd.DateOffset(months=months)
    train, valid = ds.sel(time=slice(first, "2003-08")), ds.sel(time=slice("2003-09", "2003-12"))
    test = ds.sel(time=slice("2004-01", "2004-04"))

    task = sc.Task(["z500", "t2m"], history=4, horizon=4)
    forecaster = sc.train(
        task, train, valid=valid, model=sc.SimVPv2Config(**MODEL), config=sc.TrainConfig(**TRAINING), device=device
    )
    forecast = forecaster(test, every="12h", horizon=20)
    scores = sc.score(forecast, test, climatology=sc.climatology(train))

    forecaster.save(ours)
    _write(out / "forecast.nc", forecast.to_netcdf)
    _write(out / "scores.nc", scores.to_netcdf)
    _write(out / "scores.csv", scores.to_dataframe().to_csv)
    _write(out / "scores.png", lambda path: sc.plot.scores(scores).savefig(path, dpi=120))
    title = "Simulated climate: 3 days from 2004-02-01 00 UTC"
    maps = sc.plot.maps(forecast, test, init="2004-02-01", lead="3D", title=title)
    _write(out / "maps.png", lambda path: maps.savefig(path, dpi=120))
    for variable in scores.data_vars:
        print(_table(scores, variable))
    print(f"Simulated climate, {test.time.values[0]:.10} to {test.time.values[-1]:.10}: {_verdict(scores)}.")
    print(f"Written to {out}/: {', '.join(sorted(path.name for path in out.iterdir()))}")


def _write(path: Path, write: Callable) -> None:
    """Write under a temporary name and rename: what has the final name is whole."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    write(unfinished)
    os.replace(unfinished, path)


def _table(scores: xr.Dataset, variable: str) -> str:
    """Return one variable's scores by lead time as text."""
    shown = {"rmse": f"RMSE ({scores[variable].attrs['units']})", "acc": "ACC", "small_scale_variance": "small scales"}
    days = pd.to_timedelta(scores["lead_time"].values) / pd.Timedelta("1D")
    chosen = [index for index, day in enumerate(days) if day in (0.25, 0.5) or day % 1 == 0]
    part = scores[variable].isel(lead_time=chosen).sel(metric=list(shown))
    columns = {
        (shown[metric], system): part.sel(metric=metric, system=system).values
        for metric in shown
        for system in part["system"].values
        if part.sel(metric=metric, system=system).notnull().any() or metric == "acc"
    }
    digits = 0 if part.sel(metric="rmse").max() > 100 else 2
    table = pd.DataFrame(columns, index=[f"{24 * days[index]:.0f} h" for index in chosen])
    formats = {column: f"{{:.{digits if column[0].startswith('RMSE') else 2}f}}".format for column in table}
    return f"\n{variable}\n" + table.to_string(formatters=formats, na_rep="-")


def _verdict(scores: xr.Dataset) -> str:
    """Say at which leads the forecast beats persistence and climatology by RMSE, for each variable."""
    rmse = scores.sel(metric="rmse")
    days = pd.to_timedelta(rmse["lead_time"].values) / pd.Timedelta("1D")
    name = str(rmse["system"].values[0])
    words = []
    for variable in rmse.data_vars:
        ours = rmse[variable].sel(system=name)
        better = (ours < rmse[variable].sel(system="persistence")).values
        every = "at every lead" if better.all() else f"at {better.sum()} of {better.size} leads"
        # up to a day means: at that lead and all before
        skilful = (ours < rmse[variable].sel(system="climatology")).values.cumprod().sum()
        day = f"up to day {days[skilful - 1]:g}" if skilful else "at no lead"
        words.append(f"{variable} beats persistence {every}; beats climatology {day}")
    return ". ".join(words)


if __name__ == "__main__":
    app(prog_name="simvp-climate")
