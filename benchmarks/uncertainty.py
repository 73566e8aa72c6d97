"""Do intervals hold the truth as often as they say, and do ensembles spread as far as they err?

    python benchmarks/uncertainty.py --data gcm.zarr --runs runs

With the forecasters that `ablation.py headline` left in a folder (three seeds), on the simulated climate: fitted on
2004, verified on 2005. Prints the coverage of 90 % intervals by season, region and lead, their interval score beside
that of climatological intervals, and CRPS and spread over error of ensembles.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

import simvp_climate as sc

REGIONS = ("tropics", "northern extratropics", "southern extratropics", "arctic", "antarctic")
LEADS = (24, 72, 120, 240)  # hours


def main(
    data: Annotated[Path, typer.Option(help="The simulated climate.")],
    runs: Annotated[Path, typer.Option(help="Folder of ablation.py headline.")],
    level: float = 0.9,
    days: Annotated[int, typer.Option(help="Days of both years that are used, from January.")] = 366,
) -> None:
    forecasters = [sc.Forecaster.load(path, device="cpu") for path in sorted(runs.glob("headline-ours-?.safetensors"))]
    ds = sc.open_dataset(data, forecasters[0].task.variables)
    train, valid, test = (ds.sel(time=years) for years in (slice("2001", "2003"), "2004", "2005"))
    valid, test = (one.isel(time=slice(0, days * 4)) for one in (valid, test))
    shown = ["z500", "t2m"]
    climatology = sc.baselines.climatology(train)
    one = forecasters[0]

    def forecast(dataset: xr.Dataset) -> xr.Dataset:
        found = one(dataset, every="24h", horizon=LEADS[-1] // 6)[shown]
        found = found.sel(lead_time=[np.timedelta64(lead, "h") for lead in LEADS])
        whole = found["valid_time"].max("lead_time") <= dataset["time"].max()
        return found.isel(init_time=np.flatnonzero(whole))

    before, after = forecast(valid), forecast(test)
    bands = sc.uncertainty.fit_intervals(before, valid, level, climatology)
    normal = climatology[shown]

    def of_climatology(like: xr.Dataset) -> xr.Dataset:
        found = sc.baselines.climatology_at(normal, like["valid_time"]).drop_vars(
            ["hour", "dayofyear"], errors="ignore"
        )
        laid_out = {name: found[name].transpose(*like[name].dims).assign_attrs(like[name].attrs) for name in shown}
        return like.assign(laid_out)

    theirs = sc.uncertainty.fit_intervals(of_climatology(before), valid, level)
    ours, others = bands(after), theirs(of_climatology(after))
    parts = sc.uncertainty.coverage(ours, test, regions=REGIONS, by="season")
    whole = sc.uncertainty.coverage(ours, test)
    both = [sc.uncertainty.interval_score(x, test) for x in (ours, others)]
    for name in shown:
        values = parts[name]
        worst = [
            " ".join(str(v) for v in values.where(values == edge, drop=True).stack(at=values.dims).at.values[0])
            for edge in (values.min(), values.max())
        ]
        outside = int(((values < 0.85) | (values > 0.95)).sum())
        print(
            f"{name}: coverage {float(whole[name].mean()):.3f}, by season, region and lead from "
            f"{float(values.min()):.3f} ({worst[0]}) to {float(values.max()):.3f} ({worst[1]}); "
            f"{outside} of {values.size} outside 0.85 to 0.95"
        )
        for lead, (a, b) in enumerate(zip(*(one[name] for one in both), strict=True)):
            words = f"interval score {float(a):.4g}, climatological {float(b):.4g}, ratio {float(a / b):.2f}"
            print(f"    {LEADS[lead]} h: {words}")

    every = "4D"
    amplitude = sc.fit_amplitude(one, valid, train, lead=12, every="12D", members=6)
    print(f"amplitude of perturbations {amplitude:.3f} (ratio 1 at 72 h on 2004)")
    systems = {
        "one": one(test, every=every, horizon=40),
        f"{len(forecasters)} seeds": sc.ensemble(forecasters, test, every=every, horizon=40),
        "10 perturbed": sc.perturbed_ensemble(one, test, train, amplitude, every=every, horizon=40),
    }
    hours = [np.timedelta64(lead, "h") for lead in LEADS]
    for label, found in systems.items():
        table = sc.score(found[shown].sel(lead_time=hours), test, climatology, confidence=None)
        system = table["system"].values[0]
        for name in shown:
            rows = table[name].sel(system=system)
            kinds = [kind for kind in ("rmse", "mae", "crps", "spread_skill_ratio") if kind in rows["metric"]]
            words = [f"{kind} {' / '.join(f'{x:.3g}' for x in rows.sel(metric=kind).values)}" for kind in kinds]
            print(f"{label}, {name}: {'; '.join(words)}")


if __name__ == "__main__":
    typer.run(main)
