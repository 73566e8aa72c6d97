"""Figures of ensembles: ranks of the truth, reliability of probabilities, and spread beside error."""

from collections.abc import Sequence
from datetime import timedelta

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from simvp_climate.plot import style
from simvp_climate.plot.curve_panels import Panels, add_legend_below, curve_panels
from simvp_climate.plot.score_curves import draw_curve
from simvp_climate.plot.score_selection import check_scores, lead_axis, score_rows
from simvp_climate.plot.selection import choose_leads, choose_names

Lead = str | timedelta | np.timedelta64 | Sequence | None
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:g}")
_SPREAD_METRICS = ["rmse", "spread", "spread_skill_ratio"]


def rank_histogram(
    ranks: xr.Dataset, *, variables: str | Sequence[str] | None = None, lead: Lead = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw the share of each rank of the truth among the members, with a panel for each variable and lead.

    Parameters
    ----------
    ranks
        From `sc.metrics.rank_histogram`, dims (rank, lead_time[, level, region]).
    variables
        One name or several; default all. Every level and region has its own panels.
    lead
        One lead or several; default up to three, evenly spaced, including the last.
    width, ax
        As in `scores`; default 3.4 inches for each column of panels, but at least 4.

    Returns
    -------
    Figure. The dotted line is the flat histogram of a reliable ensemble; thin lines are the intervals. High ends on
    both sides mean too little spread, one high end a bias. ValueError if `ranks` has no ranks, a variable or lead is
    missing, there are more than 12 rows of panels, or `ax` does not match the panels or comes with a width.
    """
    ranks = check_scores(ranks, ("rank", "lead_time"), "ranks", "sc.metrics.rank_histogram(...)")
    leads = _choose_leads(ranks, lead)
    rows = _rows(ranks, variables, "ranks", ("rank", "lead_time"))
    options = dict(per_row=len(leads), default=3.4, least=1.15, aspect=0.6)
    panels = curve_panels(ax, width, len(rows), "variables times leads", **options)
    flat = 1 / ranks.sizes["rank"]
    pairs = [(texts, row, index, text) for texts, row in rows for index, text in leads]
    for position, (panel, (texts, row, index, text)) in enumerate(zip(panels.axes, pairs, strict=True)):
        values = row.isel(lead_time=index).transpose("rank")
        panel.bar(values["rank"].values, values.values, width=0.9, color=style.LINE_STYLES[0][0], alpha=0.75)
        low, high = (values.coords.get(f"{row.name}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            panel.vlines(values["rank"].values, low.values, high.values, color="0.2", linewidth=1)
        panel.axhline(flat, color="0.3", linewidth=1.2, linestyle=":")
        x_label = panels.wrap("Members below the truth", 0.6) if panels.is_lowest(position) else ""
        y_label = panels.wrap_up("Share of cases [%]") if panels.is_first(position) else ""
        title = panels.wrap(", ".join([style.display_name(row), *texts, text]), 0.75)
        style.label_panel(panel, title, x_label, y_label, panels.size)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(5 if panels.height > 1.5 else 3))
        panel.yaxis.set_major_formatter(_PERCENT)
        panel.set_ylim(0, max(panel.get_ylim()[1], 1.6 * flat))
    return panels.figure


def reliability(
    reliability: xr.Dataset, *, variables: str | Sequence[str] | None = None, lead: Lead = None,
    width: float | None = None, ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw how often an event happens against its forecast probability, with a panel for each variable.

    Parameters
    ----------
    reliability
        From `sc.metrics.reliability`, dims (quantity, probability, lead_time[, level, region]).
    variables
        One name or several; default all. Every level and region has its own panel.
    lead
        One lead or several, a line each; default up to three, evenly spaced, including the last.
    width, ax
        As in `scores`; default 4 inches for each column of panels.

    Returns
    -------
    Figure. Reliable probabilities lie on the dotted diagonal; the dashed line is the frequency of the event in all
    cases and leads. Intervals are shaded. The small panel has the share of forecasts with each probability, on a
    logarithmic axis: the more at its ends, the sharper the forecast. ValueError as in `rank_histogram`.
    """
    dims = ("quantity", "probability", "lead_time")
    reliability = check_scores(reliability, dims, "reliability", "sc.metrics.reliability(...)")
    labels = ("Forecast probability", "Observed frequency")
    panels, rows, leads = _square_panels(reliability, dims, "reliability", labels, variables, lead, width, ax)
    for panel, row in zip(panels.axes, rows, strict=True):
        inset = panel.inset_axes((0.18, 0.69, 0.32, 0.25))
        for index, text, color in leads:
            _draw_reliability(panel, inset, row.isel(lead_time=index), text, color)
        share, frequency = row.sel(quantity="share"), row.sel(quantity="observed_frequency")
        # empty bins have no frequency, and leads without truth no share
        frequencies = (share * frequency.fillna(0)).sum("probability").where(share.sum("probability") > 0)
        panel.axhline(float(frequencies.mean()), color="0.6", linewidth=1, linestyle="--")
        _finish_shares(inset, panels.size)
    _add_lead_legend(panels)
    return panels.figure


def roc(
    roc: xr.Dataset, *, variables: str | Sequence[str] | None = None, lead: Lead = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw the hit rate against the false alarm rate of warnings, with a panel for each variable and a line for a lead.

    `roc` is from `sc.metrics.roc`, dims (rate, probability, lead_time[, level, region]); other arguments and errors as
    in `reliability`. Returns a Figure. The dotted diagonal is chance; the higher above it, the better.
    """
    dims = ("rate", "probability", "lead_time")
    roc = check_scores(roc, dims, "roc", "sc.metrics.roc(...)")
    labels = ("False alarm rate", "Hit rate")
    panels, rows, leads = _square_panels(roc, dims, "roc", labels, variables, lead, width, ax)
    for panel, row in zip(panels.axes, rows, strict=True):
        for index, text, color in leads:
            rates = row.isel(lead_time=index)
            hits, false_alarms = (rates.sel(rate=rate).values for rate in ("hit_rate", "false_alarm_rate"))
            # the last point of the curve, without any warning
            options = dict(color=color, marker=".", markersize=5, linewidth=1.6, label=text)
            panel.plot(np.append(false_alarms, 0), np.append(hits, 0), **options)
    _add_lead_legend(panels)
    return panels.figure


def spread_skill(
    scores: xr.Dataset, *, variables: str | Sequence[str] | None = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw the spread of ensembles beside the error of their mean, and their ratio, against lead time.

    Parameters
    ----------
    scores
        From `score`, with the metrics rmse, spread and spread_skill_ratio; systems without members are left out.
    variables
        One name or several; default all. Every level, region and season has its own panels.
    width, ax
        As in `scores`; two panels for each variable, default 4 inches each.

    Returns
    -------
    Figure. On the left the RMSE of the mean (solid) and the spread (dashed), on the right their ratio, up to 2: 1 for a
    reliable ensemble (dotted), below 1 with too little spread. Only the ratio is corrected for the number of members M:
    on the left, the spread of a reliable ensemble lies below its RMSE by the factor sqrt(M / (M + 1)). Intervals are
    shaded. ValueError as in `scores`, or if a metric is missing or no system has members.
    """
    scores = check_scores(scores)
    available = [str(name) for name in scores["metric"].values]
    if missing := [name for name in _SPREAD_METRICS if name not in available]:
        fix = f"sc.score(forecast, truth, metrics={_SPREAD_METRICS})"
        raise ValueError(f"scores has the metrics {available}, no {missing}: {fix}.")
    dims = ("system", "metric", "lead_time")
    rows = _rows(scores, variables, "scores", dims)
    has_spread = scores.sel(metric="spread").notnull().any([dim for dim in scores.dims if dim not in dims[:2]])
    ensembles = [str(name) for name in scores["system"].values if any(has_spread.sel(system=name).values())]
    if not ensembles:
        raise ValueError(f"scores has the systems {scores['system'].values.tolist()}, none with members.")
    leads, lead_unit = lead_axis(scores)
    contents = "two for each variable, level, region and season"
    panels = curve_panels(ax, width, len(rows), contents, per_row=2, aspect=0.7)
    colors = {name: style.LINE_STYLES[i % len(style.LINE_STYLES)] for i, name in enumerate(ensembles)}
    for index, (texts, row) in enumerate(rows):
        left, right = panels.axes[2 * index : 2 * index + 2]
        for name, (color, marker) in colors.items():
            rmse, spread, ratio = (row.sel(system=name, metric=metric) for metric in _SPREAD_METRICS)
            draw_curve(left, leads, rmse, "", color, marker)
            draw_curve(left, leads, spread, "", color, line_style="--")
            draw_curve(right, leads, ratio, "", color, marker)
        right.axhline(1, color="0.6", linewidth=1, linestyle=":", zorder=0)
        left.set_ylim(bottom=0)
        low = row.sel(system=ensembles, metric="spread_skill_ratio").min()
        # A very bad lead must not flatten the others.
        right.set_ylim(0.9 * min(float(low.fillna(1)), 0.9), min(max(right.get_ylim()[1], 1.1), 2))
        title = panels.wrap(", ".join([style.display_name(row), *texts]))
        y_labels = panels.wrap_up(style.with_units("RMSE and spread", row)), panels.wrap_up("Spread / skill")
        for position, (panel, y_label) in enumerate(zip((left, right), y_labels, strict=True)):
            x_label = f"Lead time [{lead_unit}]" if panels.is_lowest(2 * index + position) else ""
            style.label_panel(panel, title, x_label, y_label, panels.size)
            style.label_lead_axis(panel, leads, lead_unit)
    _add_spread_legend(panels, colors)
    return panels.figure


def _choose_leads(dataset: xr.Dataset, lead: Lead) -> list[tuple[int, str]]:
    """Return the position and the text of each lead to draw, by default of up to three with the last."""
    count = dataset.sizes["lead_time"]
    if lead is None:
        lead = dataset["lead_time"].values[np.unique(np.linspace(0, count - 1, min(3, count)).round().astype(int))]
    return choose_leads(dataset, lead)


def _rows(
    dataset: xr.Dataset, variables: str | Sequence[str] | None, role: str, kept: Sequence[str]
) -> list[tuple[list[str], xr.DataArray]]:
    """Return `score_rows` of the variables to draw; ValueError if they are too many."""
    names = choose_names(variables, [str(name) for name in dataset.data_vars], "variables", role)
    rows = list(score_rows(dataset[names], kept))
    if len(rows) > style.MAX_ROWS:
        fix = f"set variables=, or {role}.sel(level=...)"
        raise ValueError(f"{len(rows)} rows of panels are more than {style.MAX_ROWS}: {fix}")
    return rows


def _square_panels(
    dataset: xr.Dataset, dims: Sequence[str], role: str, labels: tuple[str, str],
    variables: str | Sequence[str] | None, lead: Lead, width: float | None, ax: Axes | Sequence[Axes] | None,
) -> tuple[Panels, list[xr.DataArray], list[tuple[int, str, tuple]]]:  # fmt: skip
    """Return labeled panels from 0 to 1 with a diagonal, what to draw in them, and leads with colors."""
    leads = _choose_leads(dataset, lead)
    rows = _rows(dataset, variables, role, dims)
    contents = "one for each variable, level and region"
    panels = curve_panels(ax, width, len(rows), contents, aspect=1.0, least=2.4)
    for panel, (texts, row) in zip(panels.axes, rows, strict=True):
        title = panels.wrap(", ".join([_event(row), *texts]))
        style.label_panel(panel, title, *labels, panels.size)
        panel.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle=":", zorder=0)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.8, len(leads)))
    colored = [(index, text, tuple(shade)) for (index, text), shade in zip(leads, shades, strict=True)]
    return panels, [row for _, row in rows], colored


def _add_lead_legend(panels: Panels) -> None:
    """Add a legend of the leads below the panels of a new figure, or inside the first one."""
    first = panels.axes[0]
    lines = [line for line in first.lines if not str(line.get_label()).startswith("_")]
    if panels.is_new:
        add_legend_below(panels.figure, lines, panels.size)
    else:
        first.legend(handles=lines, frameon=False, fontsize=0.85 * panels.size, loc="lower right")


def _event(row: xr.DataArray) -> str:
    """Return an event as text, "2 metre temperature above 300 K"."""
    if "threshold" not in row.attrs:
        return style.display_name(row)
    units = style.pretty_units(row.attrs.get("threshold_units", ""))
    return f"{style.display_name(row)} above {row.attrs['threshold']:g} {units}".rstrip()


def _draw_reliability(panel: Axes, inset: Axes, row: xr.DataArray, text: str, color: tuple) -> None:
    """Draw the curve of one lead, without empty bins, and the shares of its bins."""
    share = row.sel(quantity="share")
    filled = np.flatnonzero(share.values > 0)
    probability, frequency = (row.sel(quantity=name) for name in ("forecast_probability", "observed_frequency"))
    draw_curve(panel, probability.values[filled], frequency.isel(probability=filled), text, color, "o")
    options = dict(color=color, linewidth=1.2, marker="." if len(share) < 15 else "", markersize=3)
    inset.plot(share["probability"].values[filled], share.values[filled], **options)


def _finish_shares(inset: Axes, size: float) -> None:
    """Label the small panel of shares."""
    inset.set_yscale("log")
    inset.set_xlim(0, 1)
    inset.set_xticks([0, 1])
    lowest = min((line.get_ydata().min() for line in inset.lines if len(line.get_ydata())), default=0.1)
    inset.set_ylim(10 ** np.floor(np.log10(lowest) - 0.01), 1.3)
    inset.set_title("Share [%]", fontsize=0.8 * size, pad=2)
    inset.tick_params(which="both", labelsize=0.7 * size, length=2, pad=1.5)
    inset.yaxis.set_minor_locator(NullLocator())
    inset.yaxis.set_major_formatter(_PERCENT)
    inset.spines[["top", "right"]].set_visible(False)


def _add_spread_legend(panels: Panels, colors: dict[str, tuple[str, str]]) -> None:
    """Add a legend of the line styles and of several ensembles, below the panels or in the user's first axes."""
    several = len(colors) > 1
    color, marker = ("0.3", "") if several else next(iter(colors.values()))
    mean = Line2D([], [], color=color, marker=marker, markersize=4, label="RMSE of the ensemble mean")
    lines = [mean, Line2D([], [], color=color, linestyle="--", label="spread")]
    if several:
        lines = [Line2D([], [], color=c, marker=m, markersize=4, label=name) for name, (c, m) in colors.items()] + lines
    if panels.is_new:
        add_legend_below(panels.figure, lines, panels.size)
    else:
        panels.axes[0].legend(handles=lines, frameon=False, fontsize=0.9 * panels.size)
