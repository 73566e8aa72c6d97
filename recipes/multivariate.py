"""Five variables at once: 500 hPa geopotential, temperatures at 2 m and 850 hPa, wind at 10 m; 6-hourly to 10 days.

The network is told the height of the surface, land and sea, where it is and the time of the year. z500 and t2m count
thrice in the loss, and in the last quarter of training it learns through two of its calls.

@multivariate@
"""

from pathlib import Path
from typing import Annotated

import typer

import simvp_climate as sc

VARIABLES = ["z500", "t2m", "t850", "u10", "v10"]
FIELDS = ["orography", "land_sea_mask"]


def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern.")],
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("multivariate"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run in --out stopped.")] = False,
    train_until: Annotated[str, typer.Option(help="Last date to learn from. Default: 2015, as WeatherBench.")] = "",
    valid_until: Annotated[str, typer.Option(help="Last date to choose the epoch on. Default: 2016.")] = "",
) -> None:
    """Train until a date, choose the epoch on what follows until another, forecast and score the rest."""
    if not resume and sc.is_first_process() and out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} holds a run: go on with it by --resume, or choose another --out")
    ds = sc.open_dataset(data, [*VARIABLES, *FIELDS])
    train, valid, test = sc.split(ds, train_until or None, valid_until or None)

    forecaster = sc.train(
        sc.Task(VARIABLES, history=4, horizon=4, step="6h", forcings=["coordinates", "time_of_year", *FIELDS]),
        train,
        valid=valid,
        model=sc.SimVPv2Config(16, 96, spatial_layers=2, blocks=4, drop_path=0.0),
        config=sc.TrainConfig(
            epochs=epochs,
            batch_size=4,
            learning_rate=8e-3,
            rollout=2,
            variable_weights={"z500": 3, "t2m": 3},
        ),
        directory=out,
        device=device,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    forecast = forecaster(test, every="12h", horizon=40)
    scores = sc.score(forecast, test, sc.climatology(train), vectors={"wind10": ("u10", "v10")})
    forecast.to_netcdf(out / "forecast.nc")
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scorecard(scores).savefig(out / "scorecard.png")
    sc.plot.maps(forecast, test, variable="z500", lead="3D").savefig(out / "maps.png")
    print(sc.score_table(scores, "rmse").round(2).to_string(na_rep="-"))


if __name__ == "__main__":
    typer.run(main)
