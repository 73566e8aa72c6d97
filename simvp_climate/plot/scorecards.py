"""A table of colors: better or worse than a baseline, and how sharp, for every variable and lead."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot.colors import DIVERGING
from simvp_climate.plot.score_curves import check_scores, lead_axis
from simvp_climate.plot.selection import choose_leads
from simvp_climate.plot.style import (
    check_axes,
    color_bar_below,
    coordinate_text,
    figure_of,
    font_size,
    new_figure,
    refuse_settings_with_axes,
)

_MOST_COLUMNS = 12


def scorecard(
    scores: xr.Dataset,
    baseline: str = "persistence",
    *,
    system: str | None = None,
    metric: str = "rmse",
    leads: object | None = None,
    title: str | None = None,
    width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw how much better than a baseline a forecast is: a row for each variable, a column for each lead.

    Parameters
    ----------
    scores
        As from `score`, with "rmse_skill" (or that of another metric) among its metrics.
    baseline
        The system that is compared with.
    system
        The one that is judged; default the first.
    metric
        "rmse" or another of which there is a skill in the scores.
    leads
        Some of the lead times, "3D" or as in `scores.lead_time`; default up to 12 of them, evenly.
    title
        Default names the systems; with `ax` the title of the first panel does.
    width
        Of the figure in inches.
    ax
        Axes of your own: one for the skill, and one more each for activity and small-scale variance where the scores
        have them.

    Returns
    -------
    Figure. Colors from -1 to 1 of the skill 1 - metric / metric of the baseline, blue where the forecast is better,
    with its value in percent; a triangle up (better) or down (worse) where the interval of the skill leaves zero out.
    Beside it, with colors around 1: activity and small-scale variance over the truth's, since a forecast lowers its
    error by blurring. Levels, regions and seasons are rows.

    Raises
    ------
    ValueError
        If these are no scores, or have no such skill, system or lead.
    """
    refuse_settings_with_axes(ax, width)
    scores = check_scores(scores)
    label = f"{metric}_skill_vs_{baseline.replace(' ', '_')}"
    metrics = [str(one) for one in scores["metric"].values]
    if label not in metrics:
        raise ValueError(
            f"the scores have no {label}, but {metrics}: score with metrics=[..., '{metric}_skill'] and {baseline!r} "
            "as a baseline"
        )
    systems = [str(one) for one in scores["system"].values]
    system = systems[0] if system is None else system
    if system not in systems:
        raise ValueError(f"system={system!r} is not in the scores: they have {systems}")
    scores = scores.sel(system=system)
    chosen = _leads(scores, leads)
    scores = scores.isel(lead_time=chosen)
    columns, lead_label = lead_axis(scores)
    unit = {"months": "mo", "days": "d", "hours": "h"}[lead_label.partition("[")[2].rstrip("]")]
    texts = [f"{value:g} {unit}" for value in columns]

    rows: list[tuple[str, xr.DataArray]] = []
    for name in map(str, scores.data_vars):
        others = [dim for dim in scores[name].dims if dim not in ("metric", "lead_time")]
        stacked = scores[name].stack(place=others) if others else scores[name].expand_dims("place")
        for at in range(stacked.sizes["place"]):
            one = stacked.isel(place=at, drop=True)
            words = [coordinate_text(scores, dim, stacked[dim].values[at]) for dim in others]
            if np.isfinite(one.sel(metric=label)).any():
                rows.append((", ".join([name, *words]), one))
    if not rows:
        raise ValueError(f"{label} has no values: nothing to draw")

    # a figure of the user has a title of its own
    whose = f"{system}, skill" if ax is not None and title is None else "Skill"
    parts = [(label, f"{whose} over {baseline}, {metric.upper()}")]
    parts += [
        (name, metric.label.removesuffix(" ratio"))
        for name, metric in METRICS.items()
        if metric.sharpness and name in metrics
    ]
    count = len(parts)
    longest = max(len(text) for text, _ in rows)
    given = None if ax is None else check_axes(ax, count, "the skill, and what there is of activity and variance")
    wide = max(len(texts) * 0.42, 1.6)  # the title and the color bar of a panel have to find room
    width = 0.09 * longest + count * (wide + 0.25) if width is None else width
    size = float(np.clip(font_size(width), 6.5, 9.0))
    height = 0.28 * len(rows) + 0.17 * size
    figure = new_figure(width, height) if given is None else figure_of(given)
    bars = []
    panels = given or [figure.add_subplot(1, count, at + 1) for at in range(count)]
    for panel, (one, text) in zip(panels, parts, strict=True):
        middle, reach = (0.0, 1.0) if one == label else (1.0, 0.5)
        # blue is good: better, or as sharp as the truth; both ends of sharpness are not
        colors = plt.get_cmap(DIVERGING.removesuffix("_r") if one == label else "PuOr")
        norm = Normalize(middle - reach, middle + reach)
        values = np.stack([row.sel(metric=one).transpose("lead_time").values for _, row in rows])
        panel.imshow(np.ma.masked_invalid(values), cmap=colors, norm=norm, aspect="auto")
        panel.set_facecolor("0.85")
        for (y, x), value in np.ndenumerate(values):
            if not np.isfinite(value):
                continue
            word = f"{round(100 * value) + 0:d}" if one == label else f"{value:.2f}"
            dark = abs(value - middle) > 0.6 * reach
            panel.text(x, y, word, ha="center", va="center", fontsize=0.8 * size, color="white" if dark else "black")
        if one == label:
            _mark(panel, [row for _, row in rows], one, size)
        panel.set_xticks(range(len(texts)), texts, fontsize=0.85 * size)
        panel.set_yticks(range(len(rows)), [name for name, _ in rows] if panel is panels[0] else [], fontsize=size)
        panel.tick_params(length=0)
        room = panel.get_window_extent().width / figure.dpi * 72 if given is not None else 72 * width / (count + 0.3)
        panel.set_title(textwrap.fill(text, max(8, int(room / (0.55 * size)))), fontsize=size)
        panel.set_xticks(np.arange(-0.5, len(texts)), minor=True)
        panel.set_yticks(np.arange(-0.5, len(rows)), minor=True)
        panel.grid(which="minor", color="white", linewidth=1.5)
        panel.tick_params(which="minor", length=0)
        panel.spines[:].set_visible(False)
        words = "blue: better" if one == label else "1: as the truth"
        bars.append((ScalarMappable(norm, colors), panel, words, [middle - reach, middle, middle + reach]))
    for mesh, panel, words, ticks in bars:
        bar = color_bar_below(
            figure, mesh, [panel], words, 0.85 * size, extend="both", shrink=0.9, pad=0.3 / len(rows), aspect=18
        )
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    if title is None and given is None:
        title = f"{system} against {baseline}"
    if title:
        figure.suptitle(title, fontsize=1.1 * size)
    return figure


def _leads(scores: xr.Dataset, leads: object | None) -> list[int]:
    """Return the positions of the leads that are drawn."""
    count = scores.sizes["lead_time"]
    if leads is None:
        step = -(-count // _MOST_COLUMNS)
        return list(range(count - 1, -1, -step))[::-1]
    return [index for index, _ in choose_leads(scores, leads)]


def _mark(panel: Axes, rows: list[xr.DataArray], label: str, size: float) -> None:
    """Draw a triangle where the interval of the skill leaves zero out."""
    for y, row in enumerate(rows):
        low, high = (row.coords.get(f"{row.name}_{end}") for end in ("low", "high"))
        if low is None:
            continue
        ends = [one.sel(metric=label).transpose("lead_time").values for one in (low, high)]
        for marker, there in (("^", ends[0] > 0), ("v", ends[1] < 0)):
            x = np.flatnonzero(there)
            panel.plot(
                x + 0.33, np.full(len(x), y - 0.28), marker, color="black", markersize=0.3 * size, linestyle="none"
            )
