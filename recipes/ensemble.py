"""How sure is it? An ensemble of seeds, one of perturbed states, and calibrated intervals around a single forecast.

Model: three of SimVPv2, 16 channels in encoder and decoder (two layers each), 64 in the translator (two blocks),
0.20 million weights; four states in, the change to the next four out.
Schedule: one epoch each in batches of 8; AdamW, the learning rate up to 4e-3 in the first tenth of the steps, then
down to zero along a cosine. A running average of the weights is kept.

Result to expect on the bundled sample, a SIMULATED climate (trained on January 2001 to February 2003, fitted on
March to December 2003, scored on January to April 2004, every second day, area-weighted), at 1 / 3 / 5 days:

                                    CRPS, m2 s-2, K       spread over error
    z500, three seeds                 84 / 213 / 274      0.36 / 0.46 / 0.53
    z500, ten perturbed              100 / 205 / 285      6.90 / 0.93 / 0.65
    t2m, three seeds              0.43 / 0.95 / 1.18      0.33 / 0.46 / 0.54
    t2m, ten perturbed            0.44 / 0.92 / 1.21      3.15 / 0.88 / 0.68
    persistence, z500 (its MAE)      257 / 444 / 497
    climatology, z500 (its MAE)      413 / 413 / 413

Seeds differ too little, perturbed states too much at first: nobody should take either spread for the error at all
leads. The 90 % intervals around a single forecast hold 0.90 of the truth at one day and 0.87 (z500) and 0.89 (t2m)
at five, in the months that were fitted. Measured on 2026-11-25, one core AMD EPYC; 7 min of processor time after
training.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import simvp_climate as sc

VARIABLES = ["z500", "t2m"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data: Annotated[str, typer.Option(help="Zarr, NetCDF, a folder or pattern. Default: the bundled sample.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the run and what comes out of it.")] = Path("ensemble"),
    epochs: Annotated[int, typer.Option(help="Passes over the training period.", min=1)] = 1,
    seeds: Annotated[int, typer.Option(help="Forecasters to train.", min=2)] = 3,
    members: Annotated[int, typer.Option(help="Of the perturbed ensemble.", min=2)] = 10,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run in --out, complete or not.")] = False,
    train_until: Annotated[str, typer.Option(help="Last date to learn from. Default: 2015, as WeatherBench.")] = "",
    valid_until: Annotated[str, typer.Option(help="Last date to choose and fit on. Default: 2016.")] = "",
) -> None:
    """Train with several seeds, calibrate on what follows, and score ensembles and intervals on the rest."""
    begun, ended = any(out.glob("seed-*/training.pt")), (out / "scores.png").exists()
    # a run that was stopped goes on; one that is complete, and what is no run, is not overwritten
    if (ended or not begun) and not resume and sc.is_first_process() and out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} holds a run or other files: take it up by --resume, or choose another --out")
    if not data:
        train_until, valid_until = train_until or "2003-02", valid_until or "2003-12"
    ds = sc.open_dataset(data, VARIABLES) if data else sc.open_sample(VARIABLES)
    train, valid, test = sc.split(ds, train_until or None, valid_until or None)

    forecasters = [
        sc.train(
            sc.Task(VARIABLES, history=4, horizon=4, step="6h"),
            train,
            valid=valid,
            model=sc.SimVPv2Config(16, 64, spatial_layers=2, blocks=2, drop_path=0.0),
            config=sc.TrainConfig(epochs=epochs, batch_size=8, learning_rate=4e-3, seed=seed),
            directory=out / f"seed-{seed}",
            device=device,
        )
        for seed in range(seeds)
    ]
    if not sc.is_first_process():  # of those that torchrun or srun started, one goes on
        return
    climatology, first = sc.baselines.climatology(train), forecasters[0]
    amplitude = sc.fit_amplitude(first, valid, train, lead=12)
    systems = {
        f"{seeds} seeds": sc.ensemble(forecasters, test, every="2D", horizon=20),
        f"{members} perturbed": sc.perturbed_ensemble(
            first, test, train, amplitude, every="2D", horizon=20, members=members
        ),
    }
    print(f"amplitude {amplitude:.3f}: spread and error agree at 3 days on the validation period")
    for name, forecast in systems.items():
        scores = sc.score(forecast.assign_attrs(system=name), test, climatology)
        scores.to_netcdf(out / f"{name.replace(' ', '-')}.nc")
        print(sc.score_table(scores, ["crps", "spread_skill_ratio"]).round(2).to_string(na_rep="-"))
    sc.plot.scores(scores, metric=["crps", "spread_skill_ratio"]).savefig(out / "scores.png")

    bands = first.interval(0.9, valid, every="1D", horizon=20, climatology=climatology)
    single = first(test, every="1D", horizon=20)
    months = set(valid["time"].dt.month.values.tolist())
    covered = single["valid_time"].dt.month.isin(list(months)).all("lead_time")
    if covered.any():
        intervals = bands(single.isel(init_time=covered.values))
        share = sc.uncertainty.coverage(intervals, test)
        print("share of the truth in 90 % intervals:")
        print(share.to_dataframe()[VARIABLES].round(3).to_string())


if __name__ == "__main__":
    try:
        app()
    except (OSError, ValueError) as error:  # in words; without these lines Python says where
        words = str(error).replace("train_until", "--train-until").replace("valid_until", "--valid-until")
        if "config.epochs" in words:
            words += ". To train on from the result: recipes/finetune.py --start forecaster.safetensors"
        print(words, file=sys.stderr)
        sys.exit(2)
