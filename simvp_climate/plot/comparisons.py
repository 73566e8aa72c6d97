"""Two forecasts side by side, and scores by initialization time."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot import style
from simvp_climate.plot.curve_panels import Panels, add_legend_below, curve_panels
from simvp_climate.plot.score_curves import draw_curve
from simvp_climate.plot.score_selection import check_scores, describe_metric, lead_axis, score_rows
from simvp_climate.plot.selection import choose_leads, choose_names
from simvp_climate.plot.time_axis import days_since_1970, label_times


def compare(
    scores: xr.Dataset, baseline: str, *, system: str | None = None, metric: str = "rmse",
    variables: str | Sequence[str] | None = None, width: float | None = None, ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw the scores of two forecasts, and beside them their difference with its confidence interval.

    Parameters
    ----------
    scores
        From `score` of one forecast with the other as a baseline, and with the difference of the metric:
        `score(a, truth, baselines={"b": b}, metrics=["rmse", "rmse_difference"])`.
    baseline
        The system to compare with, "b".
    system
        The system to judge; default the first.
    metric
        "rmse", or another metric whose difference is in the scores.
    variables
        One name or several; default all. Every level, region and season has its own row.
    width, ax
        As in `scores`; two panels for each row, default 4 inches each.

    Returns
    -------
    Figure. On the left the scores of both, on the right those of the system less those of the baseline: of errors,
    below 0 the system is better. The interval of the difference is from differences on the same initializations (moving
    blocks): it is narrower than the shaded intervals of the two scores suggest. Dots are filled at the leads where it
    excludes zero. ValueError if `scores` lacks the difference or a system, or as in `scores`.
    """
    scores = check_scores(scores)
    difference = f"{metric}_difference_vs_{baseline.replace(' ', '_')}"
    system = _check_difference(scores, difference, metric, baseline, system)
    leads, lead_unit = lead_axis(scores)
    rows = _rows(scores, variables)
    contents = "two for each variable, level, region and season"
    panels = curve_panels(ax, width, len(rows), contents, per_row=2)
    label, has_units, reference = describe_metric(metric)
    colors = [style.BASELINE_STYLES.get(name, style.LINE_STYLES[i])[0] for i, name in enumerate((system, baseline))]
    lines: list[Line2D] = []
    for index, (texts, row) in enumerate(rows):
        left, right = panels.axes[2 * index : 2 * index + 2]
        pair = [row.sel(system=name, metric=metric) for name in (system, baseline)]
        lines = [
            draw_curve(left, leads, values, name, color, marker)
            for values, name, color, marker in zip(pair, (system, baseline), colors, "os", strict=True)
        ]
        if has_units and reference is None:
            left.set_ylim(bottom=0)
        _draw_difference(right, leads, row.sel(system=system, metric=difference), colors[0])
        titles = [", ".join([style.display_name(row), *texts]), f"{system} less {baseline}"]
        labels = [style.with_units(text, row) if has_units else text for text in (label, "Difference")]
        for place, (panel, title, text) in enumerate(zip((left, right), titles, labels, strict=True)):
            x_label = f"Lead time [{lead_unit}]" if panels.is_lowest(2 * index + place) else ""
            style.label_panel(panel, panels.wrap(title, 0.65), x_label, panels.wrap_up(text), panels.size)
            style.label_lead_axis(panel, leads, lead_unit)
    _add_legend(panels, [*lines, *_significance_handles(colors[0])])
    return panels.figure


def scores_by_init(
    scores: xr.Dataset, *, metric: str | None = None, lead: object = None,
    variables: str | Sequence[str] | None = None, width: float | None = None, ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw scores against the initialization time at one lead, which shows busts.

    Parameters
    ----------
    scores
        From `sc.metrics.score_by_init`, dims (system, metric, init_time, lead_time[, level, region]).
    metric
        A metric of the scores; default the first.
    lead
        A lead time, "3D" or as in `scores.lead_time`; default the last.
    variables
        One name or several; default all. Every level and region has its own panel.
    width, ax
        As in `scores`; default 8 inches.

    Returns
    -------
    Figure with a panel below the other for each variable. Rings mark the worst three initializations of the first
    system. ValueError if `scores` has no init_time, or a metric, variable or lead is missing.
    """
    dims = ("system", "metric", "init_time", "lead_time")
    scores = check_scores(scores, dims, "scores", "sc.metrics.score_by_init(...)")
    (name,) = choose_names(metric or str(scores["metric"].values[0]), list(map(str, scores["metric"].values)), "metric",
                           "scores")  # fmt: skip
    leads = choose_leads(scores, lead)
    if len(leads) > 1:
        raise ValueError(f"lead={lead!r} has {len(leads)} leads, but one is drawn: give one, such as lead='3D'.")
    ((position, lead_text),) = leads
    times = scores["init_time"].values
    days = days_since_1970(times)
    rows = _rows(scores, variables, dims)
    panels = curve_panels(ax, width, len(rows), "one for each variable, level and region", default=8.0, aspect=0.33,
                          max_columns=1)  # fmt: skip
    label, has_units, reference = describe_metric(name)
    lines: dict[str, Line2D] = {}
    for index, (panel, (texts, row)) in enumerate(zip(panels.axes, rows, strict=True)):
        values = row.isel(lead_time=position).sel(metric=name)
        systems = [str(system) for system in values["system"].values]
        for number, system in enumerate(systems):
            style_of = style.BASELINE_STYLES.get(system, style.LINE_STYLES[number % len(style.LINE_STYLES)])
            (lines[system],) = panel.plot(days, values.sel(system=system).values, color=style_of[0], linewidth=1.3,
                                          marker=".", markersize=4, label=system)  # fmt: skip
        _ring_worst(panel, days, values.sel(system=systems[0]).values, name)
        if reference is not None:
            panel.axhline(reference, color="0.6", linewidth=1, linestyle=":", zorder=0)
        elif has_units:
            panel.set_ylim(bottom=0)
        title = panels.wrap(", ".join([style.display_name(row), *texts, lead_text]))
        label_text = panels.wrap_up(style.with_units(label, row) if has_units else label)
        x_label = "Initialization time" if panels.is_lowest(index) else ""
        style.label_panel(panel, title, x_label, label_text, panels.size)
        label_times(panel.xaxis, times, days, int(1.1 * panels.width))
    rings = Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", color="0.3", markersize=9,
                   label=f"worst three of {systems[0]}")  # fmt: skip
    _add_legend(panels, [*lines.values(), rings])
    return panels.figure


def _rows(
    scores: xr.Dataset, variables: str | Sequence[str] | None,
    slab_dims: Sequence[str] = ("system", "metric", "lead_time"),
) -> list[tuple[list[str], xr.DataArray]]:  # fmt: skip
    """Return `score_rows` of the variables to draw; ValueError if they are too many."""
    names = choose_names(variables, [str(name) for name in scores.data_vars], "variables", "scores")
    rows = list(score_rows(scores[names], slab_dims))
    if len(rows) > style.MAX_ROWS:
        fix = "set variables=, or scores.sel(level=...)"
        raise ValueError(f"{len(rows)} rows of panels are more than {style.MAX_ROWS}: {fix}")
    return rows


def _check_difference(scores: xr.Dataset, difference: str, metric: str, baseline: str, system: str | None) -> str:
    """Return the system to judge; ValueError if the scores lack it, the baseline or their difference."""
    metrics, systems = ([str(name) for name in scores[dim].values] for dim in ("metric", "system"))
    for role, name in (("baseline", baseline), ("system", system)):
        if name is not None and name not in systems:
            raise ValueError(f"{role}={name!r} is not in scores: choose from {systems}.")
    if missing := [name for name in (metric, difference) if name not in metrics]:
        fix = f"sc.score(..., metrics=['{metric}', '{metric}_difference'])"
        raise ValueError(f"scores has the metrics {metrics}, no {missing}: {fix}.")
    system = systems[0] if system is None else system
    if system == baseline:
        raise ValueError(f"system and baseline are both {system!r}: choose two of {systems}.")
    return system


def _draw_difference(panel: Axes, leads: np.ndarray, values: xr.DataArray, color: str) -> None:
    """Draw a difference with its interval; dots are filled where the interval excludes zero."""
    draw_curve(panel, leads, values, "", color)
    low, high = (values.coords.get(f"{values.name}_{end}") for end in ("low", "high"))
    excluded = np.zeros(len(leads), bool)
    if low is not None and high is not None:
        excluded = (low.values > 0) | (high.values < 0)
    for selected, face in ((excluded, color), (~excluded, "white")):
        options = dict(color=color, markerfacecolor=face, markersize=5)
        panel.plot(leads[selected], values.values[selected], "o", **options)
    panel.axhline(0, color="0.6", linewidth=1, linestyle=":", zorder=0)


def _significance_handles(color: str) -> list[Line2D]:
    """Return the entries of a legend for filled and empty dots."""
    options = dict(color=color, marker="o", linestyle="none", markersize=5)
    return [
        Line2D([], [], markerfacecolor=color, label="significant difference", **options),
        Line2D([], [], markerfacecolor="white", label="not significant", **options),
    ]


def _ring_worst(panel: Axes, days: np.ndarray, values: np.ndarray, metric: str) -> None:
    """Draw rings around the worst three values of a metric: the largest errors, or else the smallest values."""
    is_error = metric in METRICS and METRICS[metric].smaller_is_better
    badness = values if is_error else np.abs(values) if metric == "bias" else -values
    worst = np.argsort(np.where(np.isfinite(badness), badness, -np.inf))[-3:]
    panel.plot(days[worst], values[worst], "o", color="0.3", markerfacecolor="none", markersize=9)


def _add_legend(panels: Panels, handles: list[Line2D]) -> None:
    """Add a legend below the panels, or in the user's first axes."""
    if panels.is_new:
        add_legend_below(panels.figure, handles, panels.size)
    else:
        panels.axes[0].legend(handles=handles, frameon=False, fontsize=0.85 * panels.size)
