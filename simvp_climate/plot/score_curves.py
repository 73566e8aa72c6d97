"""Scores as curves over lead time."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from simvp_climate.data.variables import conversion
from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot.selection import check_dataset, choose_names, lead_values
from simvp_climate.plot.style import (
    BASELINE_STYLES,
    LINE_STYLES,
    MAX_ROWS,
    check_axes,
    coordinate_text,
    display_name,
    figure_of,
    font_size,
    new_figure,
    refuse_settings_with_axes,
    with_units,
)


def scores(
    scores: xr.Dataset,
    *,
    metric: str | Sequence[str] | None = None,
    variables: str | Sequence[str] | None = None,
    published: pd.DataFrame | None = None,
    width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw scores against lead time: a line for each system, a panel for each metric and variable.

    The intervals of the scores, where they have some, are shaded.

    Parameters
    ----------
    scores
        Dataset with dims (system, metric, lead_time[, level, region, season]), as from `score`. The
        attribute `units` of a variable is that of its RMSE, MAE, bias, CRPS and spread.
    metric
        A name or several. Default those of rmse, acc, activity and small_scale_variance that have values, or all
        metrics where none of these is there.
    variables
        A name or several; default all. Every level, region and season has panels of its own.
    published
        Scores of others, rows of `simvp_climate.published()`. Those of the variables, metrics, leads and grid of the
        scores are drawn as a dash each, with a letter beside it. What truth and years they have stands in the legend:
        it is not compared with yours. Fewer of them: `table[table["model"].isin([...])]`.
    width
        Of the figure in inches; default 4 for each column of panels. The text shrinks with it.
    ax
        Axes of your own to draw into, as many as there are panels, row by row.

    Returns
    -------
    Figure. Lead time in days, in hours where the last lead is below two days, or in months. A system has the
    same color and marker in all panels and is left out where it has no values (climatology in ACC). Gray
    dots: ACC 0.6, variance ratio 1, bias 0. Where the scores have skills with intervals, a bar below the curves of the
    RMSE says up to which lead each forecast is better than every baseline beyond chance (`skilful_to`).

    Raises
    ------
    ValueError
        If these are no scores; if a metric or variable is not there, more than 12 rows of panels would be drawn,
        nothing of `published` is of the grid, variables, metrics and leads that are drawn, or `ax` is not as many axes
        as panels, or comes with a width.
    """
    refuse_settings_with_axes(ax, width)
    scores = check_scores(scores)
    if published is not None:
        published = _comparable(published, scores)
    names = choose_names(variables, [str(name) for name in scores.data_vars], "variables", "scores")
    all_metrics = [str(name) for name in scores["metric"].values]
    if metric is None:
        headline = [name for name in METRICS if METRICS[name].headline and name in all_metrics]
        metrics = [name for name in headline if _has_values(scores[names].sel(metric=name))] or all_metrics
    else:
        metrics = choose_names(metric, all_metrics, "metric", "scores")

    if published is not None:
        here = published["variable"].isin(names) & published["metric"].isin(metrics)
        if not here.any():
            raise ValueError(
                f"nothing in published is {metrics} of {names} at the leads of the scores: it has "
                f"{sorted(set(published['metric']))} of {sorted(set(published['variable']))}. Leave it out"
            )
        published = published[here]

    rows = []
    for name in names:
        others = [d for d in scores[name].dims if d not in ("system", "metric", "lead_time")]
        values = [scores[d].values if d in scores.coords else np.arange(scores.sizes[d]) for d in others]
        for index in itertools.product(*(range(len(v)) for v in values)):
            chosen = dict(zip(others, index, strict=True))
            what = [display_name(scores[name])]
            what += [coordinate_text(scores, d, v[i]) for d, v, i in zip(others, values, index, strict=True)]
            rows.append((scores[name].isel(chosen), ", ".join(what)))
    if len(rows) > MAX_ROWS:
        raise ValueError(
            f"{len(rows)} rows of panels are more than {MAX_ROWS}: choose with variables=[...] or before,"
            " scores.sel(level=[500, 850])."
        )

    columns = len(metrics) if len(metrics) > 1 else min(3, len(rows))
    lines = len(rows) if len(metrics) > 1 else -(-len(rows) // columns)
    if width is None:
        width = 4.0 * columns if published is None else max(4.0 * columns, 8.0)  # the legend is long
    size = font_size(3 * width / columns)
    given = None if ax is None else check_axes(ax, len(rows) * len(metrics), "variables times metrics")
    figure = new_figure(width, lines * 0.72 * width / columns + 0.05 * size) if given is None else figure_of(given)
    leads, lead_label = lead_axis(scores)
    drawn: dict[str, object] = {}
    letters: dict[str, Line2D] = {}
    for k, ((row, what), one) in enumerate(itertools.product(rows, metrics)):
        panel = figure.add_subplot(lines, columns, k + 1) if given is None else given[k]
        _draw_scores(panel, row.sel(metric=one), leads, drawn)
        label, has_units, reference = _described(one)
        if "_skill_vs_" in one:
            panel.set_ylim(bottom=max(panel.get_ylim()[0], -0.5))  # what is far worse needs no room
        if reference is not None:
            panel.axhline(reference, color="0.6", linewidth=1, linestyle=":", zorder=0)
        panel.set_title(textwrap.fill(what, 42), fontsize=size)
        # letters that go along the axis of a panel
        room = max(12, int(0.62 * 72 * 0.72 * width / columns / (0.5 * size)))
        panel.set_ylabel(textwrap.fill(with_units(label, row) if has_units else label, room), fontsize=size)
        if k + columns >= len(rows) * len(metrics):
            panel.set_xlabel(lead_label, fontsize=size)
        panel.tick_params(labelsize=0.9 * size)
        panel.set_xlim(0, 1.03 * leads.max())
        panel.xaxis.set_major_locator(lead_ticks(lead_label))
        if has_units and reference is None and panel.get_ylim()[0] > 0:
            panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        if published is not None:
            tall = 0.68 * 72 * 0.72 * width / columns if given is None else panel.bbox.height / figure.dpi * 72
            _draw_published(panel, published, row, one, lead_label, letters, tall, 0.75 * size)
        if one == "rmse":
            _draw_skilful(panel, row, leads, drawn)
    if drawn:
        ordered = [str(name) for name in scores["system"].values if str(name) in drawn]
        ordered.sort(key=lambda name: name in BASELINE_STYLES)  # forecasts first
        lines_of = [*(drawn[name] for name in ordered), *letters.values()]
        ordered += list(letters)
        if given is None:
            text_size = 0.8 * size if letters else size
            longest = max(len(name) for name in ordered)
            across = max(1, min(len(ordered), int(72 * width / ((0.52 * longest + 4) * text_size))))
            across = across if letters else min(len(ordered), 2 * columns)
            place = {"loc": "outside lower center", "ncols": across}
            legend = figure.legend(lines_of, ordered, frameon=False, fontsize=text_size, **place)
            if letters:
                height = figure.get_size_inches()[1] + (-(-len(ordered) // across) + 1) * 1.6 * text_size / 72
                figure.set_size_inches(width, height)
        else:
            legend = given[0].legend(lines_of, ordered, frameon=False, fontsize=(0.7 if letters else 0.9) * size)
        if published is not None:
            note = textwrap.fill(_origin(published, scores), int(11 * width) if given is None else 40)
            legend.set_title(note, prop={"size": 0.8 * size})
    return figure


def check_scores(scores: object) -> xr.Dataset:
    """Return scores with all of their dimensions; ValueError if these are none."""
    check_dataset(scores, "scores")
    assert isinstance(scores, xr.Dataset)
    for dimension in ("system", "metric", "lead_time"):
        if dimension not in scores.dims:
            if dimension not in scores.coords:
                raise ValueError(
                    f"scores has dimensions {tuple(scores.dims)} and no {dimension!r}: pass what"
                    " simvp_climate.score returns."
                )
            scores = scores.expand_dims(dimension)
        if not scores.sizes[dimension]:
            raise ValueError(f"scores has no {dimension}, its size is 0: nothing was selected")
    return scores


def _draw_scores(panel: Axes, values: xr.DataArray, leads: np.ndarray, drawn: dict) -> None:
    """Draw the line of every system that has values, and enter it into `drawn` for the legend."""
    others = [str(name) for name in values["system"].values if str(name) not in BASELINE_STYLES]
    for name in (str(name) for name in values["system"].values):
        line = values.sel(system=name).transpose("lead_time").values
        itself = str(values["metric"].values).endswith(f"_vs_{name.replace(' ', '_')}")
        if itself or not np.isfinite(line).any():
            continue
        if name in BASELINE_STYLES:
            color, marker, style = BASELINE_STYLES[name]
        else:
            color, marker = LINE_STYLES[others.index(name) % len(LINE_STYLES)]
            style = "-"
        drawn[name] = panel.plot(
            leads,
            line,
            color=color,
            marker=marker,
            linestyle=style,
            markersize=4,
            linewidth=1.6,
            label=name,
            markevery=-(-len(leads) // 12),
        )[0]
        low, high = (values.coords.get(f"{values.name}_{end}") for end in ("low", "high"))
        if low is not None and np.isfinite(low.sel(system=name)).any():
            ends = [one.sel(system=name).transpose("lead_time").values for one in (low, high)]
            panel.fill_between(leads, *ends, color=color, alpha=0.15, linewidth=0)
    if not panel.lines:
        panel.text(0.5, 0.5, "no values", transform=panel.transAxes, ha="center", color="0.4")


def _described(metric: str) -> tuple[str, bool, float | None]:
    """Return the label of a metric, whether it has the unit of its variable, and the value to compare with."""
    if metric in METRICS:
        definition = METRICS[metric]
        return definition.label, not definition.dimensionless, definition.reference
    for separator, text in (("_skill_vs_", "skill over"), ("_difference_vs_", "less that of")):
        name, matched, baseline = metric.partition(separator)
        if matched:
            label, has_units, _ = _described(name)
            return f"{label} {text} {baseline.replace('_', ' ')}", has_units and "diff" in separator, 0.0
    return metric, False, None


def _draw_skilful(panel: Axes, values: xr.DataArray, leads: np.ndarray, drawn: dict) -> None:
    """Draw a bar from lead 0 to the last one at which a forecast is better than every baseline beyond chance."""
    labels = [str(one) for one in values["metric"].values if str(one).startswith("rmse_skill_vs_")]
    low = values.coords.get(f"{values.name}_low")
    if not labels or low is None:
        return
    baselines = {label.removeprefix("rmse_skill_vs_").replace("_", " ") for label in labels}
    height = 0.02
    for name in (str(one) for one in values["system"].values):
        if name in baselines or name not in drawn:
            continue
        better = (low.sel(system=name, metric=labels) > 0).all("metric").transpose("lead_time").values
        count = int(np.cumprod(better).sum())
        if count:
            color = drawn[name].get_color()
            place = panel.get_xaxis_transform()
            panel.plot([0, leads[count - 1]], [height, height], color=color, linewidth=3, transform=place, alpha=0.7)
            late = leads[count - 1] > 0.8 * leads.max()
            panel.annotate(
                "skilful", (leads[count - 1], height + 0.03 * late), xycoords=place, xytext=(-3 if late else 3, 0),
                textcoords="offset points", fontsize=7, color=color, va="center", ha="right" if late else "left",
            )  # fmt: skip
            height += 0.045


def _comparable(published: object, scores: xr.Dataset) -> pd.DataFrame:
    """Return what is published on the grid and at the leads of scores, in their units; ValueError if nothing is."""
    needed = ["model", "variable", "metric", "lead_hours", "value", "units", "grid", "years", "truth"]
    if not isinstance(published, pd.DataFrame) or set(needed) - set(published.columns):
        found = list(published.columns) if isinstance(published, pd.DataFrame) else type(published).__name__
        raise ValueError(f"published is {found}: give sc.metrics.published() or rows of it, with the columns {needed}")
    if published.empty:
        raise ValueError(
            "published has no rows: nothing was selected from sc.metrics.published(). Leave it out, or take more"
        )
    for part in ("region", "season", "month"):
        if part in scores.coords and not (part == "region" and (scores[part] == "global").all()):
            raise ValueError(
                f"the scores are of {part} {np.atleast_1d(scores[part].values).tolist()}, and what is published is of "
                "the globe and whole years: score without regions and by, or leave published out"
            )
    grid = scores.attrs.get("grid")
    if not (published["grid"] == grid).any():
        raise ValueError(
            f"the scores are on {grid}, and what is published on {sorted(set(published['grid']))}: errors on "
            "different grids cannot be compared. Regrid both forecast and truth (sc.regrid), or leave it out"
        )
    published = published[published["grid"] == grid]
    leads, months = lead_values(scores)
    hours = set() if months else set((leads / np.timedelta64(1, "h")).tolist())
    if not published["lead_hours"].isin(hours).any():
        raise ValueError(
            f"published has scores at {sorted(set(published['lead_hours']))} hours, and none is a lead of the scores: "
            "leave it out"
        )
    published = published[published["lead_hours"].isin(hours)].copy()
    for at, row in published.iterrows():
        _, has_units, _ = _described(row["metric"])
        units = scores[row["variable"]].attrs.get("units") if row["variable"] in scores else None
        if has_units and units is not None and pd.notna(row["units"]):
            factor = conversion(row["variable"], row["units"], units)
            if factor is None:
                raise ValueError(
                    f"{row['variable']} is in {row['units']!r} in published and in {units!r} in the scores: convert "
                    "one of them, or leave published out"
                )
            published.loc[at, "value"] = row["value"] * factor[0]  # of an error no offset
    return published


def _origin(published: pd.DataFrame, scores: xr.Dataset) -> str:
    """Return a note on what the letters and what the curves were verified with."""
    parts = []
    for (truth, years), rows in published.groupby(["truth", "years"], sort=False):
        parts.append((f"{truth} {years}", list(dict.fromkeys(rows["model"]))))
    most = max(parts, key=lambda part: len(part[1]))[0]
    words = [most] + [f"{text} ({', '.join(models)})" for text, models in parts if text != most]
    note = f"Letters: published, against {'; '.join(words)}."
    if {"verified_start", "verified_end"} <= set(scores.attrs):
        first, last = (str(scores.attrs[f"verified_{end}"])[:10] for end in ("start", "end"))
        note += f" Curves: against the truth of these scores, {first} to {last}."
    return note


def _draw_published(
    panel: Axes,
    published: pd.DataFrame,
    values: xr.DataArray,
    metric: str,
    lead_label: str,
    letters: dict[str, Line2D],
    tall: float,
    size: float,
) -> None:
    """Draw what others published of a variable, a dash and a letter each; enter each into `letters` for the legend.

    Letters that would lie upon each other, in a panel of this height in points, stand in columns. What is far beyond
    the curves is a letter with an arrow at the edge: it would press these together.
    """
    unit = 24 if "days" in lead_label else 1
    chosen = published[(published["variable"] == str(values.name)) & (published["metric"] == metric)]
    for model, rows in chosen.groupby("model", sort=False):
        if model not in letters:
            letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[len(letters) % 52]
            style = {"marker": f"${letter}$", "color": "0.25", "markeredgewidth": 0.2, "markersize": 0.75 * size}
            letters[model] = Line2D([], [], linestyle="none", label=model, **style)
        panel.plot(
            rows["lead_hours"] / unit, rows["value"], linestyle="none", marker="_", color="0.25", markersize=5,
            markeredgewidth=0.8, zorder=1, label=model,
        )  # fmt: skip
    if chosen.empty:
        return
    low, high = panel.get_ylim()
    reach = 0.25 * (high - low)
    low, high = (
        min(low, max(low - reach, chosen["value"].min() - 0.2 * reach)) if low != 0 else 0,
        max(high, min(high + reach, chosen["value"].max() + 0.2 * reach)),
    )
    panel.set_ylim(low, high)
    for hours, rows in chosen.groupby("lead_hours"):
        tops: list[float] = []  # of the highest letter in each column, in points
        for _, row in rows.sort_values("value").iterrows():
            share = (row["value"] - low) / (high - low)
            arrow = "↑" if share > 1 else "↓" if share < 0 else ""
            height = float(np.clip(share * tall, 0.5 * size, tall - 0.5 * size)) if arrow else share * tall
            column = next((at for at, top in enumerate(tops) if height >= top + size), len(tops))
            tops[column : column + 1] = [height]
            aside = -1 if hours / unit > 0.8 * panel.get_xlim()[1] else 1  # no letter beyond the edge of a panel
            place = hours / unit, low + height / tall * (high - low)
            panel.annotate(
                letters[row["model"]].get_marker().strip("$") + arrow, place,
                xytext=(aside * (4 + (1.6 if arrow else 1.0) * size * column), 0), textcoords="offset points",
                fontsize=size, color="0.25", ha="left" if aside > 0 else "right", va="center_baseline", zorder=1,
            )  # fmt: skip


def lead_axis(scores: xr.Dataset) -> tuple[np.ndarray, str]:
    """Return the leads as numbers, and the label of their axis."""
    leads, months = lead_values(scores)
    if months:
        return leads, "Lead time [months]"
    days = leads / np.timedelta64(1, "D")
    return (days, "Lead time [days]") if days.max() >= 2 else (24 * days, "Lead time [hours]")


def lead_ticks(label: str) -> MaxNLocator:
    """Return where an axis of leads has ticks: whole days, or hours that divide a day."""
    steps = [1, 3, 6, 10] if "hours" in label else None
    return MaxNLocator(8, steps=steps, integer=True)


def _has_values(scores: xr.Dataset) -> bool:
    return any(bool(np.isfinite(array).any()) for array in scores.data_vars.values())
