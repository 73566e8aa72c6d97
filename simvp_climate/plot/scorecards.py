"""A table of colors: skill over a baseline, and sharpness, for every variable and lead."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot.colors import DIVERGING
from simvp_climate.plot.curve_panels import text_width, wrap
from simvp_climate.plot.published import origin_text, published_rows, select_published
from simvp_climate.plot.score_selection import check_scores, lead_columns, score_rows
from simvp_climate.plot.selection import choose_leads
from simvp_climate.plot.style import (
    check_axes,
    color_bar_below,
    figure_of,
    font_size,
    new_figure,
    refuse_settings_with_axes,
)  # fmt: skip

_MIN_TEXT = 4.5  # points
_MAX_LEADS = 12
_MAX_WIDTH = 12.0  # of a new figure by default, in inches
_ROW_HEIGHT = 0.28  # inches


def scorecard(
    scores: xr.Dataset, baseline: str = "persistence", *, system: str | None = None, metric: str = "rmse",
    leads: object | None = None, published: pd.DataFrame | None = None, title: str | None = None,
    width: float | None = None, ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw the skill of a forecast over a baseline, with a row for each variable and a column for each lead.

    Parameters
    ----------
    scores
        From `score`, with "rmse_skill" (or the skill in another metric) among its metrics.
    baseline
        The system to compare with.
    system
        The system to judge; default the first.
    metric
        "rmse", or another metric whose skill is in the scores.
    leads
        Lead times to draw, "3D" or as in `scores.lead_time`; default up to 12, evenly spaced, as many as fit.
    published
        Published scores of other models, rows of `sc.metrics.published()`. Models with the grid, variables and leads of
        the scores get rows of their own, with the skill of their published score over the baseline in `scores`; a note
        names their truth and years, which may differ from yours. Refused as in `plot.scores`.
    title
        Default the names of both systems; with `ax`, the title of the first panel has them.
    width, ax
        As in `scores`; default up to 12 inches. `ax` has one for the skill, and one each for activity and small-scale
        variance if scored.

    Returns
    -------
    Figure. The first panel has the skill 1 - metric / metric of the baseline in percent, blue where the forecast is
    better. A triangle points up (better) or down (worse) where the interval of the skill excludes zero. Further panels
    have activity and small-scale variance relative to the truth, because blurring a forecast lowers its error; they
    stand below each other in a narrow figure. Levels, regions and seasons are rows. ValueError if `scores` does not
    come from `score`, or lacks the skill, system or lead, or no row of `published` fits.
    """
    refuse_settings_with_axes(ax, width)
    scores = check_scores(scores)
    skill = f"{metric}_skill_vs_{baseline.replace(' ', '_')}"
    system = _check_skill(scores, skill, metric, baseline, system)
    if leads is not None:
        scores = scores.isel(lead_time=[index for index, _ in choose_leads(scores, leads)])
    others, note = {}, ""
    if published is not None:
        published = select_published(published, scores, [str(name) for name in scores.data_vars], [metric])
        others = published_rows(published, scores, metric, baseline)
        note = origin_text(published, scores, ("Published models", "Others"))
    scores = scores.sel(system=system)
    rows = {", ".join([str(row.name), *texts]): row for texts, row in score_rows(scores)}
    rows = {name: row for name, row in rows.items() if np.isfinite(row.sel(metric=skill)).any()}
    if not rows:
        raise ValueError(f"{skill} has no finite value, so there is nothing to draw.")
    rows = _insert_below(rows, others)

    prefix = f"{system}, skill" if ax is not None and title is None else "Skill"  # user axes get no figure title
    tables = {skill: f"{prefix} over {baseline}, {metric.upper()}"}
    sharpness = [name for name in METRICS if METRICS[name].sharpness and name in scores["metric"]]
    tables |= {name: METRICS[name].label.removesuffix(" ratio") for name in sharpness}
    layout = _layout(ax, width, list(rows), len(tables), scores.sizes["lead_time"], fixed=leads is not None)
    panels, size, count = layout.axes, layout.size, scores.sizes["lead_time"]
    shown = list(range(count - 1, -1, count // -layout.max_leads))[::-1]  # evenly spaced, with the last
    rows = {name: row.isel(lead_time=shown) for name, row in rows.items()}
    lead_numbers, unit = lead_columns(scores["lead_time"].isel(lead_time=shown))

    for panel, (name, text) in zip(panels, tables.items(), strict=True):
        # Blue is better. Sharpness has no better end: both above and below the truth are wrong.
        low, high, colors = (-100, 100, DIVERGING.removesuffix("_r")) if name == skill else (0.5, 1.5, "PuOr")
        scale = ScalarMappable(Normalize(low, high), colors)
        cell = layout.cell * layout.max_leads / len(shown)
        _draw_table(panel, rows, name, scale, size, cell, in_percent=name == skill)
        step = -(-max(text_width(number, 0.85 * size) + 0.04 for number in lead_numbers) // cell)
        ticks = list(range(len(shown) - 1, -1, -int(step)))[::-1]
        panel.set_xticks(ticks, [lead_numbers[tick] for tick in ticks], fontsize=0.85 * size)
        panel.set_xlabel(f"Lead time [{unit}]", fontsize=0.85 * size)
        has_names = name == skill or layout.is_stacked
        panel.set_yticks(range(len(rows)), layout.row_names if has_names else [], fontsize=size)
        panel.set_title(wrap(text, 0.95 * cell * len(shown), size), fontsize=size)
        is_marked = name == skill and _mark_significant(panel, rows, skill, size)
        triangles = "\n▲ significantly better, ▼ worse" if is_marked else ""
        meaning = f"Skill [%], blue: better{triangles}" if name == skill else "1: as the truth"
        if note and name == skill:
            meaning += f"\n{wrap(note, max(cell * len(shown), 2.5), 0.85 * size)}"
        bar_height = panel.bbox.height if ax is not None else 72 * _ROW_HEIGHT * len(rows)
        shape = dict(extend="both", shrink=0.9, pad=4 / bar_height, aspect=18)
        bar = color_bar_below(layout.figure, scale, [panel], meaning, 0.85 * size, **shape)
        ticks = np.linspace(*scale.get_clim(), 3)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    if title is None and ax is None:
        title = f"{system} against {baseline}"
    if title:
        figure_width = layout.figure.get_size_inches()[0]
        layout.figure.suptitle(wrap(title, 0.95 * figure_width, 1.1 * size), fontsize=1.1 * size)
    return layout.figure


def _insert_below(rows: dict[str, xr.DataArray], others: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Return the rows, each variable's followed by the others of it, which have no value in the other metrics."""
    result, remaining = {}, dict(others)
    for name, row in reversed(rows.items()):
        below = {key: other.reindex(metric=row["metric"]) for key, other in remaining.items() if other.name == row.name}
        remaining = {key: other for key, other in remaining.items() if key not in below}
        result |= dict(reversed(below.items())) | {name: row}
    return dict(reversed(result.items()))


@dataclass(frozen=True)
class _Layout:
    """The panels of a scorecard, the size of their text and cells, and the names of their rows."""

    axes: list[Axes]
    row_names: list[str]
    size: float  # of the text, in points
    cell: float  # width in inches if a panel has `max_leads` columns
    max_leads: int
    is_stacked: bool  # every panel has names of rows

    @property
    def figure(self) -> Figure:
        return figure_of(self.axes)


def _layout(
    ax: Axes | Sequence[Axes] | None, width: float | None, names: list[str], count: int, leads: int, *, fixed: bool
) -> _Layout:
    """Return panels for `count` tables side by side, or below each other if their cells would be too narrow."""
    if ax is not None:
        axes = check_axes(ax, count, "the skill, and activity and variance if scored")
        panel_width = min(panel.bbox.width for panel in axes) / figure_of(axes).dpi
        leads = leads if fixed else min(leads, _MAX_LEADS)
        return _Layout(
            axes, names, float(np.clip(font_size(3 * panel_width), 6.5, 9.0)), panel_width / leads, leads, False
        )
    size = 8.0 if width is None else float(np.clip(font_size(width), 6.5, 9.0))
    least = text_width("-100", 0.8 * size) + 0.1  # of a cell
    columns = leads if fixed else min(leads, _MAX_LEADS)
    names = [wrap(name, 1.8 if width is None else 0.4 * width, size) for name in names]
    labels = max(text_width(name, size) for name in names) + 0.15
    if width is None:
        needed = labels + count * (max(columns * 1.1 * least, 1.4) + 0.25)
        width = float(np.clip(needed, 4.0, _MAX_WIDTH))
    beside = (width - labels) / count - 0.2
    is_stacked = count > 1 and beside < max(min(columns, 5) * least, 1.2)
    panel_width = width - labels - 0.2 if is_stacked else beside
    if not fixed:
        columns = max(1, min(columns, int(panel_width / least)))
    # the title, ticks, the label, and the color bar with its label
    height = _ROW_HEIGHT * len(names) + 0.19 * size
    lines = count if is_stacked else 1
    figure = new_figure(width, lines * height + 0.03 * size)
    axes = [figure.add_subplot(lines, count // lines, index + 1) for index in range(count)]
    return _Layout(axes, names, size, panel_width / columns, columns, is_stacked)


def _check_skill(scores: xr.Dataset, skill: str, metric: str, baseline: str, system: str | None) -> str:
    """Return the system to judge; ValueError if the scores lack it or the skill."""
    metrics, systems = ([str(name) for name in scores[dim].values] for dim in ("metric", "system"))
    if skill not in metrics:
        fix = f"pass metrics=[..., '{metric}_skill'] and the baseline {baseline!r} to score"
        raise ValueError(f"scores has no {skill}, but {metrics}: {fix}.")
    if system is not None and system not in systems:
        raise ValueError(f"system={system!r} is not in scores: choose from {systems}.")
    return systems[0] if system is None else system


def _draw_table(
    panel: Axes, rows: dict[str, xr.DataArray], metric: str, scale: ScalarMappable, size: float, cell: float,
    *, in_percent: bool,
) -> None:  # fmt: skip
    """Draw a cell for each row and lead, with its color and, where it fits, its value; gray without a value."""
    values = np.stack([row.sel(metric=metric).values for row in rows.values()]) * (100 if in_percent else 1)
    panel.imshow(np.ma.masked_invalid(values), cmap=scale.cmap, norm=scale.norm, aspect="auto")
    panel.set_facecolor("0.85")
    texts = {
        place: f"{round(value) + 0:d}" if in_percent else f"{value:.2f}"  # + 0 turns -0 into 0
        for place, value in np.ndenumerate(values)
        if np.isfinite(value)
    }
    longest = max((text_width(text, 0.8 * size) for text in texts.values()), default=cell)
    text_size = 0.8 * size * min(1.0, 0.92 * cell / longest)
    for (y, x), text in texts.items() if text_size >= _MIN_TEXT else ():
        color = "black" if 0.2 <= scale.norm(values[y, x]) <= 0.8 else "white"
        panel.text(x, y, text, ha="center", va="center", fontsize=text_size, color=color)
    # white lines between the cells
    panel.set_xticks(np.arange(-0.5, values.shape[1]), minor=True)
    panel.set_yticks(np.arange(-0.5, values.shape[0]), minor=True)
    panel.grid(which="minor", color="white", linewidth=1.5)
    panel.tick_params(which="both", length=0)
    panel.spines[:].set_visible(False)


def _mark_significant(panel: Axes, rows: dict[str, xr.DataArray], skill: str, size: float) -> bool:
    """Draw a triangle where the interval of the skill excludes zero; return whether there are intervals."""
    has_intervals = False
    for y, row in enumerate(rows.values()):
        low, high = (row.coords.get(f"{row.name}_{end}") for end in ("low", "high"))
        if low is None:
            continue
        has_intervals = True
        low, high = (bound.sel(metric=skill).values for bound in (low, high))
        for marker, significant in (("^", low > 0), ("v", high < 0)):
            x = np.flatnonzero(significant)
            panel.plot(x + 0.32, np.full(len(x), y - 0.36), marker, color="black", markersize=0.27 * size)
    return has_intervals
