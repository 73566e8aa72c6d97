"""Train on a real series with the public API, and print the RMSE by lead time beside persistence and climatology.

    python benchmarks/real_input.py air.zarr air --epochs 8
    python benchmarks/real_input.py sst.nc sst --step 1MS --history 12 --leads 12 --forcings time_of_year --epochs 12
    python benchmarks/real_input.py t2m.grib t2m --step 1h --history 12 --leads 24 --epochs 6 \\
        --forcings insolation,time_of_day,coordinates

The last fifth of the series is the test period. Validation is the last eighth of the rest.
"""

from typing import Annotated

import typer

import simvp_climate as sc


def main(
    data: Annotated[str, typer.Argument(help="Zarr store, NetCDF or GRIB file.")],
    variable: Annotated[str, typer.Argument(help="Variable to forecast.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training windows.")] = 8,
    step: Annotated[str, typer.Option(help="Time between states.")] = "6h",
    history: Annotated[int, typer.Option(help="Input states, and states per network call.")] = 4,
    leads: Annotated[int, typer.Option(help="Steps to forecast.")] = 12,
    forcings: Annotated[str, typer.Option(help="Names, separated by commas.")] = "",
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 2e-3,
    valid_only: Annotated[bool, typer.Option(help="Score on the validation period, without the test period.")] = False,
):
    """Train, forecast from every time, and print a table of RMSE."""
    ds = sc.open_dataset(data, [variable])
    test_start = ds.sizes["time"] * 4 // 5
    valid_start = test_start * 7 // 8
    train, valid = ds.isel(time=slice(0, valid_start)), ds.isel(time=slice(valid_start, test_start))
    scored = valid if valid_only else ds.isel(time=slice(test_start, None))
    names = [name for name in forcings.split(",") if name]
    forecaster = sc.train(
        sc.Task([variable], history=history, horizon=history, step=step, forcings=names),
        train,
        valid=valid,
        model=sc.SimVPv2Config(hidden_space=16, hidden_time=64, blocks=4, mlp_ratio=4, drop_path=0.1),
        config=sc.TrainConfig(epochs=epochs, batch_size=16, optimizer="adamw", learning_rate=learning_rate),
    )
    forecast = forecaster(scored, every=step, horizon=leads)
    scores = sc.score(forecast, scored, climatology=sc.baselines.climatology(train), metrics=["rmse"])
    table = scores[variable].sel(metric="rmse").transpose("lead_time", "system").to_pandas()
    print(f"\n{variable} [{scores[variable].attrs['units']}], {'validation' if valid_only else 'test'} period")
    print(table.round(3))


typer.run(main)
