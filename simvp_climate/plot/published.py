"""Published scores of other models: as dashes with letters, and as rows of a scorecard."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from simvp_climate.data.variables import conversion
from simvp_climate.plot import style
from simvp_climate.plot.score_selection import describe_metric, lead_axis
from simvp_climate.plot.selection import lead_values

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_COLUMNS = ["model", "variable", "metric", "lead_hours", "value", "units", "grid", "years", "truth"]


def select_published(published: object, scores: xr.Dataset, names: list[str], metrics: list[str]) -> pd.DataFrame:
    """Return the published scores to draw, in the units of `scores`, with a column "lead" in that of `lead_axis`."""
    if not isinstance(published, pd.DataFrame) or set(_COLUMNS) - set(published.columns):
        content = list(published.columns) if isinstance(published, pd.DataFrame) else type(published).__name__
        raise ValueError(f"published is {content}: pass rows of sc.metrics.published(), columns {_COLUMNS}.")
    if published.empty:
        raise ValueError("published has no rows: select some rows of sc.metrics.published(), or leave it out.")
    for dim in ("region", "season", "month"):
        if dim in scores.coords and not (dim == "region" and (scores[dim] == "global").all()):
            raise ValueError(
                f"scores has {dim} {np.atleast_1d(scores[dim].values).tolist()}, but published scores are of the globe"
                " and whole years: leave published out, or score without regions and by."
            )
    truth = str(scores.attrs.get("truth", ""))
    if "simulat" in truth.lower():
        raise ValueError(
            f"the truth of scores is {truth[:80]!r}, but published scores are of analyses of the real atmosphere: they"
            " cannot be compared. Leave published out."
        )
    grid = scores.attrs.get("grid")
    same_grid = published[published["grid"] == grid]
    if same_grid.empty:
        raise ValueError(
            f"scores are on the grid {grid}, published on {sorted(set(published['grid']))}: errors on different grids"
            " cannot be compared. Regrid forecast and truth with sc.regrid, or leave published out."
        )
    leads, in_months = lead_values(scores)
    selected = same_grid[same_grid["lead_hours"].isin([] if in_months else leads / np.timedelta64(1, "h"))]
    if selected.empty:
        hours = sorted(set(same_grid["lead_hours"]))
        raise ValueError(f"published has lead_hours {hours}, none of them in scores: leave it out.")
    available = {column: sorted(set(selected[column])) for column in ("metric", "variable")}
    selected = selected[selected["variable"].isin(names) & selected["metric"].isin(metrics)]
    if selected.empty:
        content = f"{available['metric']} of {available['variable']}"
        raise ValueError(f"published has no {metrics} of {names} at these leads, but {content}: leave it out.")
    selected = selected.assign(lead=selected["lead_hours"] / (24 if lead_axis(scores)[1] == "days" else 1))
    for index, row in selected.iterrows():
        units = scores[row["variable"]].attrs.get("units")
        if describe_metric(row["metric"])[1] and units is not None and pd.notna(row["units"]):
            factor_and_offset = conversion(row["variable"], row["units"], units)
            if factor_and_offset is None:
                differ = f"units {row['units']!r} in published and {units!r} in scores"
                raise ValueError(f"{row['variable']} has {differ}: convert one of them, or leave published out.")
            selected.loc[index, "value"] = row["value"] * factor_and_offset[0]  # errors have no offset
    return selected


def published_rows(published: pd.DataFrame, scores: xr.Dataset, metric: str, baseline: str) -> dict[str, xr.DataArray]:
    """Return the skill of published models over a baseline, a row (metric, lead_time) for each variable and model.

    `published` is from `select_published`. The skill is 1 - score / score of the baseline, as in `scores`.
    """
    if metric not in scores["metric"] or baseline not in scores["system"]:
        content = f"{scores['metric'].values.tolist()} of {scores['system'].values.tolist()}"
        raise ValueError(f"published needs the {metric} of {baseline!r} in scores, which has {content}: score it too.")
    rows, hours = {}, lead_values(scores)[0] / np.timedelta64(1, "h")
    for (variable, model), values in published.groupby(["variable", "model"], sort=False):
        reference = scores[variable].sel(system=baseline, metric=metric).squeeze(drop=True)
        value_at = dict(zip(values["lead_hours"], values["value"], strict=True))
        skill = 1 - np.array([value_at.get(hour, np.nan) for hour in hours]) / reference.values.reshape(len(hours))
        coords = {"metric": [f"{metric}_skill_vs_{baseline.replace(' ', '_')}"], "lead_time": scores["lead_time"]}
        rows[f"{variable}, {model}"] = xr.DataArray(skill[np.newaxis], coords, ("metric", "lead_time"), variable)
    return rows


def origin_text(
    published: pd.DataFrame, scores: xr.Dataset, names: tuple[str, str] = ("Letters: published", "Curves")
) -> str:
    """Return a sentence on the truth and years of the published scores, and one on those of the others.

    `names` are what the figure shows of both.
    """
    models = {
        f"{truth} {years}": list(dict.fromkeys(rows["model"]))
        for (truth, years), rows in published.groupby(["truth", "years"], sort=False)
    }
    most_frequent = max(models, key=lambda origin: len(models[origin]))
    others = [f"{origin} ({', '.join(names)})" for origin, names in models.items() if origin != most_frequent]
    note = f"{names[0]}, against {'; '.join([most_frequent, *others])}."
    if {"verified_start", "verified_end"} <= set(scores.attrs):
        first, last = (str(scores.attrs[f"verified_{end}"])[:10] for end in ("start", "end"))
        note += f" {names[1]}: against the truth of these scores, {first} to {last}."
    return note


def assign_letters(published: pd.DataFrame) -> dict[str, str]:
    """Return the letter of each model."""
    return {model: _LETTERS[index % len(_LETTERS)] for index, model in enumerate(dict.fromkeys(published["model"]))}


def letter_handles(letters: dict[str, str], size: float) -> list[Line2D]:
    """Return an entry of a legend for each letter, of a size in points."""
    options = {"color": "0.25", "markeredgewidth": 0.2, "markersize": 0.6 * size, "linestyle": "none"}
    return [Line2D([], [], marker=f"${letter}$", label=model, **options) for model, letter in letters.items()]


def draw_published(panel: Axes, published: pd.DataFrame, letters: dict[str, str], size: float) -> None:
    """Draw published scores as dashes with letters of a size in points, in a panel that has its final height."""
    if published.empty:
        return
    for model, rows in published.groupby("model", sort=False):
        options = dict(linestyle="none", marker="_", color="0.25", markersize=5, markeredgewidth=0.8, zorder=1)
        panel.plot(rows["lead"], rows["value"], label=model, **options)
    # extend the limits by a quarter at most, so that the curves stay legible
    low, high = panel.get_ylim()
    limit = 0.25 * (high - low)
    panel.set_ylim(
        min(low, max(low - limit, published["value"].min() - 0.2 * limit)) if low != 0 else 0,
        max(high, min(high + limit, published["value"].max() + 0.2 * limit)),
    )
    for lead, rows in published.groupby("lead"):
        _draw_letters(panel, lead, rows.sort_values("value"), letters, size)


def _draw_letters(panel: Axes, lead: float, rows: pd.DataFrame, letters: dict[str, str], size: float) -> None:
    """Draw the letters of ascending scores at a lead in a column, moved apart, with lines to the scores."""
    low, high = panel.get_ylim()
    height = 72 * panel.bbox.height / style.figure_of([panel]).dpi  # in points
    spacing = min(1.25 * size, height / len(rows))
    clipped = rows["value"].clip(low, high).to_numpy()
    wished = (clipped - low) / (high - low) * height
    places = _spread_apart(np.clip(wished, 0.5 * spacing, height - 0.5 * spacing), spacing, height)
    for (_, row), value, wish, place in zip(rows.iterrows(), clipped, wished, places, strict=True):
        arrow = "↑" if row["value"] > high else "↓" if row["value"] < low else ""
        line = dict(arrowstyle="-", color="0.5", linewidth=0.4, shrinkA=0, shrinkB=2.5, relpos=(0, 0.5))
        panel.annotate(
            letters[row["model"]] + arrow, (lead, value), xytext=(9, place - wish), textcoords="offset points",
            fontsize=spacing / 1.25, color="0.25", va="center_baseline", zorder=1, annotation_clip=False,
            arrowprops=None if arrow else line, path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip


def _spread_apart(wished: np.ndarray, spacing: float, height: float) -> np.ndarray:
    """Return ascending positions from 0 to a height that are a spacing apart, as near as possible to the wished ones.

    Positions less their rank times the spacing must not descend: isotonic regression by pooling adjacent violators.
    """
    groups: list[list[float]] = []  # of equal results
    for wish in wished - spacing * np.arange(len(wished)):
        groups.append([wish])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    level = np.concatenate([np.full(len(group), np.mean(group)) for group in groups])
    top = height - spacing * (len(wished) - 0.5)
    return np.clip(level, 0.5 * spacing, max(top, 0.5 * spacing)) + spacing * np.arange(len(wished))
