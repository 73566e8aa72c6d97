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

from simvp_climate.plot.choices import choose_names, lead_values
from simvp_climate.plot.style import (
    BASELINES,
    LINES,
    MAX_ROWS,
    at_text,
    figure_of,
    font_size,
    given_panels,
    labeled,
    name_of,
    new_figure,
)

# Label, whether in the units of the variable, the value to compare with.
_METRICS = {
    "rmse": ("RMSE", True, None),
    "mae": ("MAE", True, None),
    "bias": ("Bias", True, 0.0),
    "crps": ("CRPS", True, None),
    "spread": ("Spread", True, None),
    "acc": ("ACC", False, 0.6),  # the customary end of useful skill
    "acc_per_init": ("ACC (mean over forecasts)", False, 0.6),
    # below 1: smoother than the truth
    "activity": ("Activity", False, 1.0),
    "small_scale_variance": ("Small-scale variance ratio", False, 1.0),
    "rmse_unweighted": ("RMSE, not weighted", True, None),
    "spread_skill_ratio": ("Spread / skill", False, 1.0),
    "brier": ("Brier score", False, None),
    "frequency_bias": ("Frequency bias", False, 1.0),
    "seeps": ("SEEPS", False, None),
}
_FIRST_METRICS = ("rmse", "acc", "activity", "small_scale_variance")


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
        Scores of others to draw as letters, rows of `simvp_climate.published()`: those of the variables, metrics and
        the grid of the scores. Look at their years and truth: those are not checked.
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
        If a metric or variable is not there, more than 12 rows of panels would be drawn, nothing of `published` is
        on the grid of the scores, or `ax` is not as many axes as panels.
    """
    if published is not None:
        grid = scores.attrs.get("grid")
        if (published["grid"] == grid).sum() == 0:
            raise ValueError(
                f"the scores are on {grid}, and what is published on {sorted(set(published['grid']))}: errors on "
                "different grids cannot be compared. Regrid both forecast and truth (sc.regrid), or leave it out"
            )
        published = published[published["grid"] == grid]
    for dimension in ("system", "metric", "lead_time"):
        if dimension not in scores.dims:
            if dimension not in scores.coords:
                raise ValueError(
                    f"scores has dimensions {tuple(scores.dims)} and no {dimension!r}: pass what"
                    " simvp_climate.score returns."
                )
            scores = scores.expand_dims(dimension)
    names = choose_names(variables, [str(name) for name in scores.data_vars], "variables", "scores")
    all_metrics = [str(name) for name in scores["metric"].values]
    if metric is None:
        usual = [m for m in _FIRST_METRICS if m in all_metrics and _has_values(scores[names].sel(metric=m))]
        metrics = usual or all_metrics
    else:
        metrics = choose_names(metric, all_metrics, "metric", "scores")

    rows = []
    for name in names:
        others = [d for d in scores[name].dims if d not in ("system", "metric", "lead_time")]
        values = [scores[d].values if d in scores.coords else np.arange(scores.sizes[d]) for d in others]
        for index in itertools.product(*(range(len(v)) for v in values)):
            chosen = dict(zip(others, index, strict=True))
            what = [name_of(scores[name])]
            what += [at_text(scores, d, v[i]) for d, v, i in zip(others, values, index, strict=True)]
            rows.append((scores[name].isel(chosen), ", ".join(what)))
    if len(rows) > MAX_ROWS:
        raise ValueError(
            f"{len(rows)} rows of panels are more than {MAX_ROWS}: choose with variables=[...] or before,"
            " scores.sel(level=[500, 850])."
        )

    columns = len(metrics) if len(metrics) > 1 else min(3, len(rows))
    lines = len(rows) if len(metrics) > 1 else -(-len(rows) // columns)
    width = 4.0 * columns if width is None else width
    size = font_size(3 * width / columns)
    given = None if ax is None else given_panels(ax, len(rows) * len(metrics), "variables times metrics")
    figure = new_figure(width, lines * 0.72 * width / columns + 0.05 * size) if given is None else figure_of(given)
    leads, lead_label = lead_axis(scores)
    drawn: dict[str, object] = {}
    letters: dict[str, Line2D] = {}
    for k, ((row, what), one) in enumerate(itertools.product(rows, metrics)):
        panel = figure.add_subplot(lines, columns, k + 1) if given is None else given[k]
        _draw_scores(panel, row.sel(metric=one), leads, drawn)
        if published is not None:
            _draw_published(panel, published, str(row.name), one, lead_label, letters)
        label, has_units, reference = _described(one)
        if "_skill_vs_" in one:
            panel.set_ylim(bottom=max(panel.get_ylim()[0], -0.5))  # what is far worse needs no room
        if reference is not None:
            panel.axhline(reference, color="0.6", linewidth=1, linestyle=":", zorder=0)
        panel.set_title(textwrap.fill(what, 42), fontsize=size)
        # letters that go along the axis of a panel
        room = max(12, int(0.62 * 72 * 0.72 * width / columns / (0.5 * size)))
        panel.set_ylabel(textwrap.fill(labeled(label, row) if has_units else label, room), fontsize=size)
        if k + columns >= len(rows) * len(metrics):
            panel.set_xlabel(lead_label, fontsize=size)
        panel.tick_params(labelsize=0.9 * size)
        panel.set_xlim(0, 1.03 * leads.max())
        panel.xaxis.set_major_locator(lead_ticks(lead_label))
        if has_units and reference is None and panel.get_ylim()[0] > 0:
            panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        if one == "rmse":
            _draw_skilful(panel, row, leads, drawn)
    if drawn:
        ordered = [str(name) for name in scores["system"].values if str(name) in drawn]
        ordered.sort(key=lambda name: name in BASELINES)  # forecasts first
        lines_of = [*(drawn[name] for name in ordered), *letters.values()]
        ordered += list(letters)
        if given is None:
            place = {"loc": "outside lower center", "ncols": min(len(ordered), 2 * columns)}
            figure.legend(lines_of, ordered, frameon=False, fontsize=0.8 * size if letters else size, **place)
        else:
            given[0].legend(lines_of, ordered, frameon=False, fontsize=0.9 * size)
    return figure


def _draw_scores(panel: Axes, values: xr.DataArray, leads: np.ndarray, drawn: dict) -> None:
    """Draw the line of every system that has values, and enter it into `drawn` for the legend."""
    others = [str(name) for name in values["system"].values if str(name) not in BASELINES]
    for name in (str(name) for name in values["system"].values):
        line = values.sel(system=name).transpose("lead_time").values
        itself = str(values["metric"].values).endswith(f"_vs_{name.replace(' ', '_')}")
        if itself or not np.isfinite(line).any():
            continue
        if name in BASELINES:
            color, marker, style = BASELINES[name]
        else:
            color, marker = LINES[others.index(name) % len(LINES)]
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
    if metric in _METRICS:
        return _METRICS[metric]
    for words, text in (("_skill_vs_", "skill over"), ("_difference_vs_", "less that of")):
        own, found, baseline = metric.partition(words)
        if found:
            label, has_units, _ = _METRICS.get(own, (own, False, None))
            return f"{label} {text} {baseline.replace('_', ' ')}", has_units and "diff" in words, 0.0
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


def _draw_published(
    panel: Axes, published: pd.DataFrame, variable: str, metric: str, lead_label: str, letters: dict[str, Line2D]
) -> None:
    """Draw what others published of a variable as letters, and enter each into `letters` for the legend."""
    unit = 24 if "days" in lead_label else 1
    chosen = published[(published["variable"] == variable) & (published["metric"] == metric)]
    for model, rows in chosen.groupby("model", sort=False):
        if model not in letters:
            letter = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[len(letters) % 52]
            style = {"marker": f"${letter}$", "color": "0.25", "markeredgewidth": 0.3, "markersize": 5}
            letters[model] = Line2D([], [], linestyle="none", label=model, **style)
        panel.plot(
            rows["lead_hours"] / unit, rows["value"], linestyle="none", marker=letters[model].get_marker(),
            color="0.25", markeredgewidth=0.3, markersize=5, zorder=1, label=model,
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
