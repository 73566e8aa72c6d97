"""The serious one: ten fields of ERA5, orography, land and insolation in; z500 to 10 days, as WeatherBench sets it.

Data: WeatherBench 2's ERA5 at 5.625 degrees (1959-2023_01_10-6h-64x32_equiangular_conservative.zarr), from its
bucket or a copy. Trained on 1979 to 2015, the epoch chosen on 2016, scored on 2017 and 2018 every 12 hours,
latitude-weighted.

Model: SimVPv2, 64 channels in encoder and decoder (two layers each), 512 in the translator (eight blocks, skipped
for up to a tenth of the samples), 39 million weights; four states in, the change to the next four out.
Schedule: 50 epochs in batches of 16; AdamW, the learning rate up to 2e-3 in the first tenth of the steps, then down
to zero along a cosine; in the last quarter through five calls, five days. Geopotential and temperature count twice.
A running average of the weights is kept.

To be beaten: 314 and 561 m2 s-2 of z500 at 3 and 5 days (Rasp and Thuerey 2021, trained on ERA5 alone); the stretch
is their 268 and 499, pretrained on CMIP. Not verified here for want of the data: nothing says yet that it gets
there.

One GPU, or several: `torchrun --nproc-per-node=4 recipes/weatherbench.py ...`. Where time is limited, repeat the
same command with --resume. Stores that are remote, or have 13 levels in a chunk, go through `sc.cache` first.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import simvp_climate as sc

VARIABLES = ["geopotential", "temperature", "u_component_of_wind", "2m_temperature"]
LEVELS = [300, 500, 850]
FIELDS = ["orography", "land_sea_mask"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern; needed.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("weatherbench"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 50,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run in --out, complete or not.")] = False,
    small: Annotated[bool, typer.Option("--small", help="A network that a laptop trains, to try the script.")] = False,
    train_until: Annotated[str, typer.Option(help="Last date to learn from. Default: 2015, as WeatherBench.")] = "",
    valid_until: Annotated[str, typer.Option(help="Last date to choose the epoch on. Default: 2016.")] = "",
) -> None:
    """Train until a date, choose the epoch on what follows until another, forecast and score the rest."""
    begun, ended = ((out / name).exists() for name in ("training.pt", "forecaster.safetensors"))
    # a run that was stopped goes on; one that is complete, and what is no run, is not overwritten
    if (ended or not begun) and not resume and sc.is_first_process() and out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} holds a run or other files: take it up by --resume, or choose another --out")
    if not data:
        words = f"give data with {', '.join([*VARIABLES, *FIELDS])}; simvp-climate check PATH says whether they will do"
        raise typer.BadParameter(f"{words}. recipes/t2m.py runs without, on the bundled sample", param_hint="--data")
    ds = sc.open_dataset(data, [*VARIABLES, *FIELDS], levels=LEVELS)
    if not train_until:
        ds = ds.sel(time=slice("1979", None))
    train, valid, test = sc.split(ds, train_until or None, valid_until or None)

    space, time, blocks = (16, 64, 2) if small else (64, 512, 8)
    forecaster = sc.train(
        sc.Task(
            VARIABLES,
            levels=LEVELS,
            history=4,
            horizon=4,
            step="6h",
            forcings=["insolation", "time_of_year", "coordinates", *FIELDS],
        ),
        train,
        valid=valid,
        model=sc.SimVPv2Config(space, time, spatial_layers=2, blocks=blocks, drop_path=0.0 if small else 0.1),
        config=sc.TrainConfig(
            epochs=epochs,
            batch_size=16,
            learning_rate=2e-3,
            rollout=5,  # through five days in the last quarter of the steps
            variable_weights={"geopotential": 2, "temperature": 2},
        ),
        directory=out,
        device=device,
    )
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    shown = ["geopotential", "temperature", "2m_temperature"]
    forecast = forecaster.hindcast(test, every="12h", horizon=40, store=out / "hindcast.zarr")[shown]
    climatology = sc.baselines.climatology(train[shown])
    damped = sc.baselines.fit_damped_persistence(train[shown], climatology, forecast["lead_time"])
    scores = sc.score(forecast, test[shown], climatology, baselines={"damped persistence": damped})
    scores.to_netcdf(out / "scores.nc")
    sc.plot.scorecard(scores, "damped persistence").savefig(out / "scorecard.png")
    z500 = scores[["geopotential"]].sel(level=500)
    sc.plot.scores(z500).savefig(out / "scores.png")
    sc.plot.spectra(sc.metrics.variance_by_wavenumber(forecast, test[shown])).savefig(out / "spectra.png")
    print(sc.score_table(z500, "rmse").round(1).to_string(na_rep="-"))


if __name__ == "__main__":
    try:
        app()
    except (OSError, ValueError) as error:  # in words; without these lines Python says where
        words = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in words:
            words += ". To train on from the result: recipes/finetune.py --start forecaster.safetensors"
        print(words, file=sys.stderr)
        sys.exit(2)
