"""A table of colors: skill over a baseline, and sharpness, for every variable and lead."""

import textwrap
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot.colors import DIVERGING
from simvp_climate.plot.score_curves import check_scores, lead_axis, score_rows
from simvp_climate.plot.selection import choose_leads
from simvp_climate.plot.style import color_bar_below, figure_of, font_size, panel_axes, refuse_settings_with_axes

_MAX_COLUMNS = 12
_LEAD_UNITS = {"months": "mo", "days": "d", "hours": "h"}


def scorecard(
    scores: xr.Dataset, baseline: str = "persistence", *, system: str | None = None, metric: str = "rmse",
    leads: object | None = None, title: str | None = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
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
        Lead times to draw, "3D" or as in `scores.lead_time`; default up to 12, evenly spaced.
    title
        Default the names of both systems; with `ax`, the title of the first panel has them.
    width, ax
        As in `scores`. `ax` has one for the skill, and one each for activity and small-scale variance if scored.

    Returns
    -------
    Figure. The first panel has the skill 1 - metric / metric of the baseline in percent, blue where the forecast is
    better; colors range from -1 to 1. A triangle points up (better) or down (worse) where the interval of the skill
    excludes zero. Further panels have activity and small-scale variance relative to the truth, because blurring a
    forecast lowers its error. Levels, regions and seasons are rows. ValueError if `scores` does not come from `score`,
    or lacks the skill, system or lead.
    """
    refuse_settings_with_axes(ax, width)
    scores = check_scores(scores)
    skill = f"{metric}_skill_vs_{baseline.replace(' ', '_')}"
    system = _check_skill(scores, skill, metric, baseline, system)
    scores = scores.sel(system=system)
    count = scores.sizes["lead_time"]
    positions = list(range(count - 1, -1, count // -_MAX_COLUMNS))[::-1]  # evenly spaced, with the last
    scores = scores.isel(lead_time=positions if leads is None else [index for index, _ in choose_leads(scores, leads)])
    values, unit = lead_axis(scores)
    lead_texts = [f"{value:g} {_LEAD_UNITS[unit]}" for value in values]
    rows = {", ".join([str(row.name), *texts]): row for texts, row in score_rows(scores)}
    rows = {name: row for name, row in rows.items() if np.isfinite(row.sel(metric=skill)).any()}
    if not rows:
        raise ValueError(f"{skill} has no finite value, so there is nothing to draw.")

    prefix = f"{system}, skill" if ax is not None and title is None else "Skill"  # user axes get no figure title
    tables = {skill: f"{prefix} over {baseline}, {metric.upper()}"}
    sharpness = [name for name in METRICS if METRICS[name].sharpness and name in scores["metric"]]
    tables |= {name: METRICS[name].label.removesuffix(" ratio") for name in sharpness}
    panel_width = max(len(lead_texts) * 0.42, 1.6)  # at least as wide as its title and color bar
    width = 0.09 * max(map(len, rows)) + len(tables) * (panel_width + 0.25) if width is None else width
    size = float(np.clip(font_size(width), 6.5, 9.0))
    contents = "the skill, and activity and variance if scored"
    panels = panel_axes(ax, len(tables), contents, len(tables), (width, 0.28 * len(rows) + 0.17 * size))
    figure = figure_of(panels)

    scales = []
    for panel, (name, text) in zip(panels, tables.items(), strict=True):
        # Blue is better. Sharpness has no better end: both above and below the truth are wrong.
        low, high, colors = (-1.0, 1.0, DIVERGING.removesuffix("_r")) if name == skill else (0.5, 1.5, "PuOr")
        scales.append(ScalarMappable(Normalize(low, high), colors))
        _draw_table(panel, rows, name, scales[-1], size, in_percent=name == skill)
        panel.set_xticks(range(len(lead_texts)), lead_texts, fontsize=0.85 * size)
        panel.set_yticks(range(len(rows)), list(rows) if name == skill else [], fontsize=size)
        points = 72 * width / (len(tables) + 0.3) if ax is None else panel.get_window_extent().width / figure.dpi * 72
        panel.set_title(textwrap.fill(text, max(8, int(points / (0.55 * size)))), fontsize=size)
    _mark_significant(panels[0], rows, skill, size)
    shape = dict(extend="both", shrink=0.9, pad=0.3 / len(rows), aspect=18)
    for panel, name, scale in zip(panels, tables, scales, strict=True):
        meaning = "blue: better" if name == skill else "1: as the truth"
        bar = color_bar_below(figure, scale, [panel], meaning, 0.85 * size, **shape)
        ticks = np.linspace(*scale.get_clim(), 3)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    if title is None and ax is None:
        title = f"{system} against {baseline}"
    if title:
        figure.suptitle(title, fontsize=1.1 * size)
    return figure


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
    panel: Axes, rows: dict[str, xr.DataArray], metric: str, scale: ScalarMappable, size: float, in_percent: bool
) -> None:
    """Draw a cell for each row and lead, with its color and value; gray without a value."""
    values = np.stack([row.sel(metric=metric).values for row in rows.values()])
    panel.imshow(np.ma.masked_invalid(values), cmap=scale.cmap, norm=scale.norm, aspect="auto")
    panel.set_facecolor("0.85")
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{round(100 * value) + 0:d}" if in_percent else f"{value:.2f}"  # + 0 turns -0 into 0
            color = "black" if 0.2 <= scale.norm(value) <= 0.8 else "white"
            panel.text(x, y, text, ha="center", va="center", fontsize=0.8 * size, color=color)
    # white lines between the cells
    panel.set_xticks(np.arange(-0.5, values.shape[1]), minor=True)
    panel.set_yticks(np.arange(-0.5, values.shape[0]), minor=True)
    panel.grid(which="minor", color="white", linewidth=1.5)
    panel.tick_params(which="both", length=0)
    panel.spines[:].set_visible(False)


def _mark_significant(panel: Axes, rows: dict[str, xr.DataArray], skill: str, size: float) -> None:
    """Draw a triangle where the interval of the skill excludes zero."""
    for y, row in enumerate(rows.values()):
        low, high = (row.coords.get(f"{row.name}_{end}") for end in ("low", "high"))
        if low is None:
            continue
        low, high = (bound.sel(metric=skill).values for bound in (low, high))
        for marker, significant in (("^", low > 0), ("v", high < 0)):
            x = np.flatnonzero(significant)
            panel.plot(x + 0.33, np.full(len(x), y - 0.28), marker, color="black", markersize=0.3 * size)
