"""Train the pretrained forecasters of the package, and write their model cards.

    python tools/make_pretrained.py
    python tools/make_pretrained.py --ensemble
    python tools/make_pretrained.py --climate

The first writes simvp_climate/pretrained/sample.safetensors, which `sc.open_pretrained("sample")` opens, and the card
sample.md. The second trains that forecaster on as an ensemble, "sample-ensemble". The third trains one for long runs,
"sample-climate". The epoch is chosen on the validation
period alone. The test period is read once, after training, for the scores in the card. The same versions and number of
threads on the same type of machine give the same weights.
"""

import dataclasses
import hashlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
import xarray as xr

import simvp_climate as sc

FOLDER = Path(__file__).parents[1] / "simvp_climate" / "pretrained"
VARIABLES = ("z500", "t2m")
TRAIN, VALID, TEST = ("2001-01", "2003-08"), ("2003-09", "2003-12"), ("2004-01", "2004-04")
TASK = sc.Task(VARIABLES, history=4, horizon=4, step="6h")
MODEL = sc.SimVPSphereConfig(blocks=8, spectral_blocks=0)  # the files are older than the spectral block
TRAINING = dict(rollout=2, validation_windows=128, precision="bf16-mixed")
ENSEMBLE_TRAINING = dict(
    loss="crps", members=2, optimizer="adamw", learning_rate=1e-3, weight_decay=0.1, rollout=3, rollout_share=0.3,
    validation_windows=128, precision="bf16-mixed",
)  # fmt: skip
CLIMATE_TASK = dataclasses.replace(TASK, forcings=("time_of_year", "coordinates"))
CLIMATE_TRAINING = dict(
    rollout=3, rollout_share=0.4, input_noise=0.25, select="rollout", validation_windows=64, precision="bf16-mixed",
)  # fmt: skip
MEMBERS = 16  # in the card
RUN_YEARS = 10  # in the card
EPOCHS = {"sample": 6, "sample-ensemble": 3, "sample-climate": 4}
SHOWN_HOURS = {"sample": (6, 24, 72, 120), "sample-ensemble": (6, 24, 72, 120, 240), "sample-climate": (6, 24, 72, 120)}
ENSEMBLE_TEXT = f"""The ensemble has {MEMBERS} members; CRPS is the fair score (Ferro 2014). "single" is the forecaster
"sample", from which this one was trained on.
"""
SHOWN_SETTINGS = (
    "loss", "optimizer", "learning_rate", "weight_decay", "batch_size", "rollout", "rollout_share", "input_noise",
    "select", "ema_decay", "precision", "seed",
)  # fmt: skip
EVERY = {
    "sample": "12h",
    "sample-ensemble": "2D",
    "sample-climate": "12h",
}  # interval between the initializations of the test period


def main(
    out: Path = FOLDER, epochs: int | None = None, months: int = 32, ensemble: bool = False, climate: bool = False
) -> None:
    """Train on the last `months` of the training period, score, and write forecaster and card to the folder `out`."""
    if not out.is_dir():
        raise typer.BadParameter(f"the folder {str(out)!r} does not exist: mkdir {out}")

    name = "sample-ensemble" if ensemble else "sample-climate" if climate else "sample"
    epochs = epochs or EPOCHS[name]
    ds = sc.open_sample(VARIABLES)
    begin = pd.Timestamp(TRAIN[1]) - pd.DateOffset(months=months - 1)
    train, valid, test = (ds.sel(time=slice(*period)) for period in ((begin, TRAIN[1]), VALID, TEST))
    start = time.monotonic()
    if ensemble:
        single = sc.open_pretrained("sample", device="cpu")
        config = sc.TrainConfig(epochs=epochs, **ENSEMBLE_TRAINING)
        forecaster = sc.train(TASK, train, valid=valid, start_from=single, config=config, device="cpu")
    else:
        task, config = TASK, sc.TrainConfig(epochs=epochs, **TRAINING)
        if climate:
            task, config = CLIMATE_TASK, sc.TrainConfig(epochs=epochs, **CLIMATE_TRAINING)
        forecaster = sc.train(task, train, valid=valid, model=MODEL, config=config, device="cpu")
    seconds = time.monotonic() - start

    # climatology may use the validation period, too: that only makes it harder to beat
    climatology = sc.baselines.climatology(ds.sel(time=slice(None, VALID[1])))
    horizon = SHOWN_HOURS[name][-1] // 6
    if ensemble:
        forecast = forecaster(test, every=EVERY[name], horizon=horizon, members=MEMBERS)
        baselines = {"single": single(test, every=EVERY[name], horizon=horizon)}
        scores = sc.score(forecast, test, climatology, baselines=baselines)
    else:
        scores = sc.score(forecaster(test, every=EVERY[name], horizon=horizon), test, climatology)

    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
        weights, card = (Path(folder) / f"{name}{suffix}" for suffix in (".safetensors", ".md"))
        forecaster.save(weights)
        options = f"{'--ensemble ' if ensemble else '--climate ' if climate else ''}--epochs {epochs} --months {months}"
        command, content = f"python tools/make_pretrained.py {options}", weights.read_bytes()
        text = write_card(forecaster, scores, test, name=name, command=command, seconds=seconds, content=content)
        if climate:
            text = text.replace("## Limits", f"{describe_run(forecaster, ds)}\n\n## Limits")
        card.write_text(text, encoding="utf-8")
        for path in (weights, card):
            os.replace(path, out / path.name)
    print((out / f"{name}.md").read_text(encoding="utf-8"))


def describe_run(forecaster: sc.Forecaster, ds: xr.Dataset) -> str:
    """Return the climate of a free run beside that of the sample, as Markdown."""
    start = pd.Timestamp("2003-12-31T18")
    run = forecaster.run(
        ds.sel(time=slice(None, start)), start, start + pd.DateOffset(years=RUN_YEARS, days=1), members=4
    )
    table = sc.metrics.climate_table(sc.metrics.climate_report(run, ds, eofs=False))
    return f"""## A free run

Four members ran from 2004 for {RUN_YEARS} years. Their climate beside that of the sample's three whole years, 2001
to 2003, of which the first 32 months are the training period (`sc.metrics.climate_table`):

```
{table.T.to_string()}
```"""


def write_card(
    forecaster: sc.Forecaster,
    scores: xr.Dataset,
    test: xr.Dataset,
    *,
    name: str,
    command: str,
    seconds: float,
    content: bytes,
) -> str:
    """Return the model card, as Markdown."""
    task, provenance, curve = forecaster.task, forecaster.provenance, forecaster.training_curve
    parameters = sum(value.numel() for value in forecaster.network.parameters())
    model, config, versions = (provenance[name] for name in ("model", "config", "versions"))
    channels = zip(provenance["channels"], provenance["units"], strict=True)
    is_ensemble, last_hour = forecaster.network.noise_grid is not None, SHOWN_HOURS[name][-1]
    write = write_ensemble_table if is_ensemble else write_table
    tables = "\n\n".join(write(scores, variable) for variable in task.variables)
    describe = describe_ensemble_limits if is_ensemble else describe_limits
    limits = "\n".join(f"- {sentence}" for variable in task.variables for sentence in describe(scores, variable))
    title = "Pretrained ensemble forecaster of the sample" if is_ensemble else "Pretrained forecaster of the sample"
    title += " for long runs" if name == "sample-climate" else ""
    call = f"forecaster(sc.open_sample(), horizon=20{', members=16' if is_ensemble else ''})"
    pairs, threads = scores["pairs"].values, torch.get_num_threads()
    chosen = curve.attrs["kept"]
    return f"""# {title}

```python
import simvp_climate as sc

forecaster = sc.open_pretrained("{name}")
forecast = {call}  # five days from the last time of the sample
```

**The climate is SIMULATED.** The forecaster was trained and scored on the bundled sample. A general circulation model
computed the sample; it contains no observations. Use the forecaster for examples, tests and first steps. Its skill says
nothing about real weather.

| | |
|---|---|
| forecasts | {", ".join(f"{name} ({units})" for name, units in channels)} |
| input | {task.history} states, {task.step} apart |
| output | {task.horizon} states per call of the network; longer forecasts are rolled out |
| forcings | {", ".join(task.forcings) or "none"} |
| grid | {forecaster.latitude.size} latitudes by {forecaster.longitude.size} longitudes (5.625 degrees) |
| size | {parameters:,} parameters in float32, {len(content) / 1e6:.2f} MB |
| SHA-256 | `{hashlib.sha256(content).hexdigest()}` |
| network | SimVPSphere: {join_settings(model)} |
| license | Apache-2.0, as the package and the sample |

## Skill

Scores are weighted by cell area. Forecasts start every {EVERY[name]} from {test.time.values[0]:.10} to \
{test.time.values[-1]:.10} ({pairs.max()} at the first lead
time, {pairs.min()} at the last). Neither the training nor the choice of the epoch used this period. Persistence and
climatology (by hour and day of the year, from all earlier data) are scored on the same pairs of initialization and
lead time. Small scales: variance in zonal wavenumbers 10 to 19, forecast over truth; below 1 the forecast is blurred.
{ENSEMBLE_TEXT if is_ensemble else ""}
{tables}

## Limits

{limits}
- The forecaster knows one climate on one grid. It refuses other grids; forecasts of other climates have no meaning.
- The simulated climate has no diurnal cycle and the same sea surface temperature every year.
- Forecasts beyond {last_hour} h were not scored.

## How it was made

    {command}

Training period: {provenance["training"]}.
Validation period: {provenance["validation"]}; it chose epoch {chosen} of {len(curve)}.
Training loss of the last epoch {curve.iloc[-1]["loss"]:.4g}, validation loss of the chosen epoch \
{curve.loc[chosen, "valid_loss"]:.4g}.
Settings: {join_settings({name: config[name] for name in SHOWN_SETTINGS})}.
Training took {seconds / 60:.1f} minutes with {threads} thread{"" if threads == 1 else "s"} on {provenance["device"]}, \
{provenance["created"][:10]}, simvp_climate {versions["simvp-climate"]}, torch {versions["torch"]}.
"""


def write_table(scores: xr.Dataset, name: str) -> str:
    """Return the scores of a variable at the leads of the card, as a Markdown table."""
    units = scores[name].attrs["units"]
    head = (
        f"| {name} | RMSE, {units} | persistence | climatology | ACC | persistence | small scales |\n"
        "|---|---|---|---|---|---|---|"
    )
    digits = 0 if float(scores[name].sel(metric="rmse").max()) > 100 else 2
    rows = []
    for hours in SHOWN_HOURS["sample"]:
        lead = scores[name].sel(lead_time=pd.Timedelta(hours=hours))
        systems = ("SimVPSphere", "persistence", "climatology")
        cells = [f"{float(lead.sel(metric='rmse', system=system)):.{digits}f}" for system in systems]
        cells += [f"{float(lead.sel(metric='acc', system=system)):.2f}" for system in systems[:2]]
        cells.append(f"{float(lead.sel(metric='small_scale_variance', system='SimVPSphere')):.2f}")
        rows.append(f"| {hours} h | {' | '.join(cells)} |")
    return "\n".join([head, *rows])


def write_ensemble_table(scores: xr.Dataset, name: str) -> str:
    """Return the scores of a variable of an ensemble at the leads of the card, as a Markdown table."""
    units = scores[name].attrs["units"]
    head = (
        f"| {name} | CRPS, {units} | single (its MAE) | RMSE of the mean, {units} | single | climatology "
        "| spread / error | small scales of a member | single |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for hours in SHOWN_HOURS["sample-ensemble"]:
        lead = scores[name].sel(lead_time=pd.Timedelta(hours=hours))
        cells = [("crps", "SimVPSphere"), ("mae", "single"), ("rmse", "SimVPSphere"), ("rmse", "single")]
        cells += [("rmse", "climatology"), ("spread_skill_ratio", "SimVPSphere")]
        cells += [("member_small_scale_variance", "SimVPSphere"), ("small_scale_variance", "single")]
        texts = [f"{float(lead.sel(metric=metric, system=system)):.3g}" for metric, system in cells]
        rows.append(f"| {hours} h | {' | '.join(texts)} |")
    return "\n".join([head, *rows])


def describe_ensemble_limits(scores: xr.Dataset, name: str) -> list[str]:
    """Return sentences that say how well the spread of an ensemble fits, and how sharp its members are."""
    ours = scores[name].sel(system="SimVPSphere")
    hours = int(scores["lead_time"].values[-1] / pd.Timedelta("1h"))
    spread, scales = (ours.sel(metric=m).values for m in ("spread_skill_ratio", "member_small_scale_variance"))
    return [
        f"{name}: spread over error from {spread.min():.2f} to {spread.max():.2f} at 6 to {hours} h; 1 is right.",
        f"{name}: small scales of a member have {scales.min():.2f} to {scales.max():.2f} of the true variance.",
    ]


def describe_limits(scores: xr.Dataset, name: str) -> list[str]:
    """Return sentences that say where a variable is worse than the baselines, and how blurred it is."""
    rmse = scores[name].sel(metric="rmse")
    hours = (scores["lead_time"].values / pd.Timedelta("1h")).astype(int)
    sentences = []
    for baseline in ("persistence", "climatology"):
        worse = hours[(rmse.sel(system="SimVPSphere") >= rmse.sel(system=baseline)).values]
        if len(worse):
            sentences.append(f"{name}: RMSE no lower than that of {baseline} at {join_hours(worse)} h.")
        else:
            sentences.append(f"{name}: RMSE lower than that of {baseline} at all lead times (6 to {hours[-1]} h).")
    ratio = scores[name].sel(metric="small_scale_variance", system="SimVPSphere").values
    sentences.append(
        f"{name}: small scales have {ratio.min():.2f} to {ratio.max():.2f} of the true variance, "
        f"{ratio[-1]:.2f} at {hours[-1]} h."
    )
    return sentences


def join_hours(lead_hours: np.ndarray) -> str:
    """Return lead times as text, consecutive ones as a range: "6, 24-48"."""
    ranges: list[list[int]] = []
    for hour in lead_hours.tolist():
        if ranges and hour == ranges[-1][-1] + 6:
            ranges[-1].append(hour)
        else:
            ranges.append([hour])
    return ", ".join(f"{hours[0]}" if len(hours) == 1 else f"{hours[0]}-{hours[-1]}" for hours in ranges)


def join_settings(settings: dict) -> str:
    """Return settings as text: "batch_size 8, seed 0"."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


if __name__ == "__main__":
    typer.run(main)
