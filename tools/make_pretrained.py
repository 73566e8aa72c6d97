"""Train the network that the package brings along, and write the card that says what it can do.

    python tools/make_pretrained.py

Writes simvp_climate/pretrained/sample.safetensors, which `sc.open_pretrained("sample")` opens, and sample.md beside it.
The best epoch is chosen on the validation period alone; the test period is read once, after the training, and every
score in the card is measured here. With the same versions and number of threads on the same kind of machine the
weights come out the same.
"""

import hashlib
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import typer
import xarray as xr

import simvp_climate as sc

NAME = "sample"
FOLDER = Path(__file__).parents[1] / "simvp_climate" / "pretrained"
VARIABLES = ("z500", "t2m")
TRAIN, VALID, TEST = ("2001-01", "2003-08"), ("2003-09", "2003-12"), ("2004-01", "2004-04")
TASK = sc.Task(VARIABLES, history=4, horizon=4, step="6h")
MODEL = sc.SimVPv2Config(
    hidden_space=16, hidden_time=96, spatial_layers=4, blocks=4, mlp_ratio=4, drop_path=0.0, padding="auto"
)
TRAINING = dict(batch_size=8, learning_rate=4e-3, rollout=2, validation_windows=128, precision="bf16-mixed")
EPOCHS = 6
SHOWN_HOURS = (6, 24, 72, 120)
EVERY = "12h"  # initializations that are scored


def main(out: Path = FOLDER, epochs: int = EPOCHS, months: int = 32) -> None:
    """Train on so many months, the last ones of the training period, score, and write both files into a folder."""
    if not out.is_dir():
        raise typer.BadParameter(f"there is no folder {str(out)!r}: make it first")

    ds = sc.open_sample(VARIABLES)
    begin = pd.Timestamp(TRAIN[1]) - pd.DateOffset(months=months - 1)
    train, valid, test = (ds.sel(time=slice(*period)) for period in ((begin, TRAIN[1]), VALID, TEST))
    start = time.monotonic()
    config = sc.TrainConfig(epochs=epochs, **TRAINING)
    forecaster = sc.train(TASK, train, valid=valid, model=MODEL, config=config, device="cpu")
    seconds = time.monotonic() - start

    # the climatology may know the validation period: it is a rival, not ours
    known = ds.sel(time=slice(None, VALID[1]))
    forecast = forecaster(test, every=EVERY, horizon=SHOWN_HOURS[-1] // 6)
    scores = sc.score(forecast, test, climatology=sc.baselines.climatology(known))

    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
        model, card = (Path(folder) / f"{NAME}{suffix}" for suffix in (".safetensors", ".md"))
        forecaster.save(model)
        command = f"python tools/make_pretrained.py --epochs {epochs} --months {months}"
        about = {"command": command, "seconds": seconds, "content": model.read_bytes()}
        card.write_text(write_card(forecaster, scores, test, **about), encoding="utf-8")
        for path in (model, card):
            os.replace(path, out / path.name)
    print((out / f"{NAME}.md").read_text(encoding="utf-8"))


def write_card(
    forecaster: sc.Forecaster, scores: xr.Dataset, test: xr.Dataset, *, command: str, seconds: float, content: bytes
) -> str:
    """Return what there is to know about the forecaster, as Markdown."""
    task, provenance, history = forecaster.task, forecaster.provenance, forecaster.training_curve
    parameters = sum(value.numel() for value in forecaster.network.parameters())
    model, config, versions = (provenance[name] for name in ("model", "config", "versions"))
    channels = zip(provenance["channels"], provenance["units"], strict=True)
    tables = "\n\n".join(table(scores, name) for name in task.variables)
    limits = "\n".join(f"- {sentence}" for name in task.variables for sentence in findings(scores, name))
    inits = scores["pairs"].values
    return f"""# A forecaster of the sample

```python
import simvp_climate as sc

forecaster = sc.open_pretrained("{NAME}")
forecast = forecaster(sc.open_sample(), horizon=20)  # five days from the last time of the sample
```

**The climate is SIMULATED.** Trained and scored on the bundled sample, which a general circulation model computed: it
holds no observations. This forecaster is for examples, tests and first steps, and says nothing about real weather.

| | |
|---|---|
| forecasts | {", ".join(f"{name} ({units})" for name, units in channels)} |
| from, to | {task.history} states {task.step} apart, to {task.horizon} per call of the network, rolled out beyond |
| forcings | {", ".join(task.forcings) or "none"} |
| grid | {forecaster.latitude.size} latitudes by {forecaster.longitude.size} longitudes (5.625 degrees) |
| size | {parameters:,} parameters in float32, {len(content) / 1e6:.2f} MB |
| SHA-256 | `{hashlib.sha256(content).hexdigest()}` |
| network | SimVPv2: {listed(model)} |
| license | Apache-2.0, that of the project and of the sample |

## Skill

Area-weighted, over forecasts every {EVERY} from {test.time.values[0]:.10} to {test.time.values[-1]:.10} \
({inits.max()} at the first lead, {inits.min()} at the last).
Neither the training nor the choice of the epoch saw this period. Persistence and climatology (by hour and day of the
year, from all the time before) are scored on the same forecasts. Small scales: variance in zonal wavenumbers 10 to 19,
forecast over truth; below 1 is blurred.

{tables}

## Limits

{limits}
- One climate, one grid: of other data it refuses the grid, or forecasts what it never learned.
- The simulated climate has no diurnal cycle and the same sea surface temperature every year.
- Rolled out beyond {SHOWN_HOURS[-1]} h it was not scored.

## How it was made

    {command}

Trained on {provenance["training"]}. The epoch was chosen on {provenance["validation"]}:
{history.attrs["kept"]} of {len(history)}. Training loss at the end {history.iloc[-1]["loss"]:.4g}, validation loss of \
the epoch kept {history.loc[history.attrs["kept"], "valid_loss"]:.4g}.
{listed({name: config[name] for name in ("batch_size", "learning_rate", "ema_decay", "precision", "seed")})}.
It took {seconds / 60:.1f} minutes with {torch.get_num_threads()} threads on {provenance["device"]}, \
{provenance["created"][:10]}, simvp_climate {versions["simvp-climate"]}, torch {versions["torch"]}.
"""


def table(scores: xr.Dataset, name: str) -> str:
    """Return the scores of a variable at the leads shown, as a table."""
    units = scores[name].attrs["units"]
    head = (
        f"| {name} | RMSE, {units} | persistence | climatology | ACC | persistence | small scales |\n"
        "|---|---|---|---|---|---|---|"
    )
    digits = 0 if float(scores[name].sel(metric="rmse").max()) > 100 else 2
    rows = []
    for hours in SHOWN_HOURS:
        at = scores[name].sel(lead_time=pd.Timedelta(hours=hours))
        ours, persistence, climatology = (at.sel(system=system) for system in ("SimVPv2", "persistence", "climatology"))
        errors = [f"{float(one.sel(metric='rmse')):.{digits}f}" for one in (ours, persistence, climatology)]
        anomalies = [f"{float(one.sel(metric='acc')):.2f}" for one in (ours, persistence)]
        sharpness = f"{float(ours.sel(metric='small_scale_variance')):.2f}"
        rows.append(f"| {hours} h | {' | '.join([*errors, *anomalies, sharpness])} |")
    return "\n".join([head, *rows])


def findings(scores: xr.Dataset, name: str) -> list[str]:
    """Return sentences on where a variable is worse than its rivals, and how blurred it is."""
    rmse = scores[name].sel(metric="rmse")
    hours = (scores["lead_time"].values / pd.Timedelta("1h")).astype(int)
    ours = rmse.sel(system="SimVPv2")
    sentences = []
    for rival in ("persistence", "climatology"):
        worse = hours[(ours >= rmse.sel(system=rival)).values]
        text = "better at all leads" if not len(worse) else f"no better at {spans(worse)} h"
        sentences.append(f"{name} against {rival}: {text} (6 to {hours[-1]} h, RMSE).")
    sharpness = scores[name].sel(metric="small_scale_variance", system="SimVPv2").values
    sentences.append(
        f"{name}: {sharpness.min():.2f} to {sharpness.max():.2f} of the true variance at small scales, "
        f"{sharpness[-1]:.2f} at {hours[-1]} h."
    )
    return sentences


def spans(hours: pd.Index) -> str:
    """Return lead times as text, those in a row as one span: "6, 24-48"."""
    parts: list[list[int]] = []
    for hour in hours.tolist():
        if parts and hour == parts[-1][-1] + 6:
            parts[-1].append(hour)
        else:
            parts.append([hour])
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def listed(settings: dict) -> str:
    """Return settings as text."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


if __name__ == "__main__":
    typer.run(main)
