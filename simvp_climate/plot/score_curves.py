"""Scores as curves over lead time."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot import style
from simvp_climate.plot.curve_panels import Panels, add_legend_below, curve_panels, wrap
from simvp_climate.plot.published import assign_letters, draw_published, letter_handles, origin_text, select_published
from simvp_climate.plot.score_selection import check_scores, describe_metric, lead_axis, score_rows
from simvp_climate.plot.selection import choose_names

_BAR_WIDTH = 3.0  # in points


def scores(
    scores: xr.Dataset, *, metric: str | Sequence[str] | None = None, variables: str | Sequence[str] | None = None,
    published: pd.DataFrame | None = None, width: float | None = None, ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw scores against lead time, with a line for each system and a panel for each variable and metric.

    Parameters
    ----------
    scores
        From `score`, dims (system, metric, lead_time[, level, region, season]), with `units` on its variables.
    metric
        One name or several. Default: the metrics of `score_table` that have values; all if there are none of them.
    variables
        One name or several; default all. Every level, region and season has its own panels.
    published
        Published scores of other models, rows of `sc.metrics.published()`. Rows with the grid, variables, metrics and
        leads of the figure are drawn as dashes with a letter for each model. The legend names their truth and years,
        which may differ from yours. Scores against a simulated truth (by its title, source or comment, or attributes of
        CMIP) or on another grid are refused. Select models with `table[table["model"].isin([...])]`.
    width, ax
        Width of a new figure in inches, default 4 for each column of panels and less with many rows; or existing axes,
        one for each panel, row by row.

    Returns
    -------
    Figure. Lead time is in days, in hours if the last lead is below two days, or in months. Confidence intervals are
    shaded. A system without values has no line (climatology in ACC). Dotted gray lines mark reference values: ACC 0.6,
    variance ratio 1, bias 0. With RMSE skills and intervals, a bar at the bottom ends at the last lead at which a
    forecast is significantly better than every baseline (`skilful_to`). ValueError if `scores` does not come from
    `score`, a metric or variable is missing, there are more than 12 rows of panels, no row of `published` fits, or `ax`
    does not match the panels or comes with a width.
    """
    scores = check_scores(scores)
    leads, lead_unit = lead_axis(scores)
    names = choose_names(variables, [str(name) for name in scores.data_vars], "variables", "scores")
    metrics = _choose_metrics(scores[names], metric)
    if published is not None:
        published = select_published(published, scores, names, metrics)
    rows = [(", ".join([style.display_name(row), *texts]), row) for texts, row in score_rows(scores[names])]
    if len(rows) > style.MAX_ROWS:
        fix = "set variables=, or scores.sel(level=...)"
        raise ValueError(f"{len(rows)} rows of panels are more than {style.MAX_ROWS}: {fix}")
    if published is not None and ax is None and width is None:
        width = 4.0 * max(2, len(metrics) if len(metrics) > 1 else min(3, len(rows)))  # the legend is long
    least = 1.7 if published is None else 2.6  # room for the letters
    panels = curve_panels(ax, width, len(rows), "variables times metrics", per_row=len(metrics), least=least)

    systems = dict[str, Line2D]()
    has_bars = False
    shown = list(itertools.product(rows, metrics))
    for index, (panel, ((title, row), name)) in enumerate(zip(panels.axes, shown, strict=True)):
        _draw_metric(panel, row, name, leads, systems)
        label, has_units, _ = describe_metric(name)
        label = panels.wrap_up(style.with_units(label, row) if has_units else label)
        x_label = f"Lead time [{lead_unit}]" if panels.is_lowest(index) else ""
        style.label_panel(panel, "", x_label, label, panels.size)
        if len(metrics) == 1 or not panels.is_new:
            panel.set_title(panels.wrap(title), fontsize=panels.size)
        elif name == metrics[0]:  # for the whole row
            panel.set_title(panels.wrap(title, 0.9 * panels.columns), fontsize=panels.size, loc="left")
        style.label_lead_axis(panel, leads, lead_unit)
        if name == "rmse":
            has_bars = _draw_skilful(panel, row, leads, systems) or has_bars
    if not systems:
        return panels.figure
    # forecasts first
    ordered = sorted(map(str, scores["system"].values), key=lambda name: name in style.BASELINE_STYLES)
    lines = [systems[name] for name in ordered if name in systems]
    if has_bars:
        lines.append(Line2D([], [], color="0.4", linewidth=_BAR_WIDTH, label="skilful: better than all baselines"))
    letters = {} if published is None else assign_letters(published)
    note = "" if published is None else origin_text(published, scores)
    _add_legend(panels, [*lines, *letter_handles(letters, panels.size)], note)
    if published is not None:
        panels.figure.draw_without_rendering()  # letters need the final height of the panels
        for panel, ((_, row), name) in zip(panels.axes, shown, strict=True):
            of_panel = published[(published["variable"] == str(row.name)) & (published["metric"] == name)]
            draw_published(panel, of_panel, letters, 0.75 * panels.size)
    return panels.figure


def _add_legend(panels: Panels, handles: list[Line2D], note: str) -> None:
    """Add a legend with a note above it, below the panels or in the user's first axes."""
    size = (0.8 if note else 1.0) * panels.size
    if panels.is_new:
        inches = panels.figure.get_size_inches()[0] - 0.4
        add_legend_below(panels.figure, handles, size, wrap(note, inches, 0.9 * size) if note else "")
        return
    legend = panels.axes[0].legend(handles=handles, frameon=False, fontsize=0.9 * size)
    if note:
        legend.set_title(wrap(note, panels.width, 0.9 * size), prop={"size": 0.8 * size})


def _choose_metrics(scores: xr.Dataset, metric: str | Sequence[str] | None) -> list[str]:
    """Return the metrics asked for; by default the headline metrics that have values, or all metrics."""
    available = [str(name) for name in scores["metric"].values]
    if metric is not None:
        return choose_names(metric, available, "metric", "scores")
    headline = [name for name in METRICS if METRICS[name].headline and name in available]
    finite = np.isfinite(scores).any([dim for dim in scores.dims if dim != "metric"])
    return [name for name in headline if any(finite.sel(metric=name).data_vars.values())] or available


def draw_curve(
    panel: Axes, x: np.ndarray, values: xr.DataArray, label: str, color: str | tuple, marker: str = "",
    line_style: str = "-",
) -> Line2D:  # fmt: skip
    """Draw values over x, and shade the interval that their coordinates `<variable>_low` and `_high` hold."""
    options = dict(color=color, marker=marker, linestyle=line_style, markersize=4, linewidth=1.6)
    (line,) = panel.plot(x, values.values, label=label, markevery=-(-len(x) // 12), **options)
    low, high = (values.coords.get(f"{values.name}_{end}") for end in ("low", "high"))
    if low is not None and high is not None and np.isfinite(low).any():
        panel.fill_between(x, low.values, high.values, color=color, alpha=0.15, linewidth=0)
    return line


def _draw_metric(panel: Axes, row: xr.DataArray, metric: str, leads: np.ndarray, systems: dict[str, Line2D]) -> None:
    """Draw lines and intervals of the systems, and the reference value; add lines to `systems` for the legend."""
    values = row.sel(metric=metric)
    names = [str(name) for name in values["system"].values]
    forecasts = [name for name in names if name not in style.BASELINE_STYLES]
    for name in names:
        line = values.sel(system=name).values
        with_itself = metric.endswith(f"_vs_{name.replace(' ', '_')}")
        if with_itself or not np.isfinite(line).any():
            continue
        if name in style.BASELINE_STYLES:
            color, marker, line_style = style.BASELINE_STYLES[name]
        else:
            color, marker = style.LINE_STYLES[forecasts.index(name) % len(style.LINE_STYLES)]
            line_style = "-"
        systems[name] = draw_curve(panel, leads, values.sel(system=name), name, color, marker, line_style)
    if not panel.lines:
        panel.text(0.5, 0.5, "no values", transform=panel.transAxes, ha="center", color="0.4")
    _, has_units, reference = describe_metric(metric)
    if "_skill_vs_" in metric:
        panel.set_ylim(bottom=max(panel.get_ylim()[0], -0.5))  # a very bad system must not flatten the others
    if reference is not None:
        panel.axhline(reference, color="0.6", linewidth=1, linestyle=":", zorder=0)
    elif has_units and panel.get_ylim()[0] > 0:
        panel.set_ylim(bottom=0)


def _draw_skilful(panel: Axes, row: xr.DataArray, leads: np.ndarray, systems: dict[str, Line2D]) -> bool:
    """Draw bars up to the last lead at which a forecast is significantly better than every baseline, if there is one.

    Returns whether there is a bar.
    """
    prefix = "rmse_skill_vs_"
    labels = [label for label in map(str, row["metric"].values) if label.startswith(prefix)]
    low = row.coords.get(f"{row.name}_low")
    if not labels or low is None:
        return False
    baselines = {label.removeprefix(prefix).replace("_", " ") for label in labels}
    height = _BAR_WIDTH  # above the axis, in points
    for name in (str(name) for name in row["system"].values):
        if name in baselines or name not in systems:
            continue
        better = (low.sel(system=name, metric=labels) > 0).all("metric").values
        count = int(np.cumprod(better).sum())  # the leads before the first one that is not better
        if count:
            raised = ScaledTranslation(0, height / 72, style.figure_of([panel]).dpi_scale_trans)
            options = dict(color=systems[name].get_color(), linewidth=_BAR_WIDTH, alpha=0.7, solid_capstyle="butt")
            panel.plot([0, leads[count - 1]], [0, 0], transform=panel.get_xaxis_transform() + raised, **options)
            height += 1.5 * _BAR_WIDTH
    return height > _BAR_WIDTH
