"""Scores as curves over lead time."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from simvp_climate.data.variables import conversion
from simvp_climate.metrics.definitions import METRICS
from simvp_climate.plot import style
from simvp_climate.plot.selection import check_dataset, choose_names, lead_values

_ASPECT = 0.72  # height over width of a panel with its labels
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PUBLISHED_COLUMNS = ["model", "variable", "metric", "lead_hours", "value", "units", "grid", "years", "truth"]


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
        which may differ from yours. Select models with `table[table["model"].isin([...])]`.
    width, ax
        Width of a new figure in inches, default 4 for each column of panels; or existing axes, one for each panel,
        row by row.

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
        published = _select_published(published, scores, names, metrics)
    rows = [(", ".join([style.display_name(row), *texts]), row) for texts, row in score_rows(scores[names])]
    if len(rows) > style.MAX_ROWS:
        fix = "set variables=, or scores.sel(level=...)"
        raise ValueError(f"{len(rows)} rows of panels are more than {style.MAX_ROWS}: {fix}")

    columns = len(metrics) if len(metrics) > 1 else min(3, len(rows))
    count = len(rows) * len(metrics)
    default = 4.0 * columns if published is None else max(4.0 * columns, 8.0)  # the legend of published is long
    panels, width, size = style.curve_panels(ax, width, default, count, "variables times metrics", columns, _ASPECT)
    figure = style.figure_of(panels)
    axis_length = 72 * _ASPECT * width / columns  # in points, with the labels

    systems, letters = dict[str, Line2D](), dict[str, Line2D]()
    for panel, ((title, row), name) in zip(panels, itertools.product(rows, metrics), strict=True):
        _draw_metric(panel, row, name, leads, systems)
        label, has_units, _ = _describe(name)
        letters_per_line = max(12, int(0.62 * axis_length / (0.5 * size)))
        label = textwrap.fill(style.with_units(label, row) if has_units else label, letters_per_line)
        x_label = f"Lead time [{lead_unit}]" if panel in panels[-columns:] else ""
        style.label_panel(panel, textwrap.fill(title, 42), x_label, label, size)
        panel.set_xlim(0, 1.03 * leads.max())
        steps = [1, 3, 6, 10] if lead_unit == "hours" else None  # hours that divide a day
        panel.xaxis.set_major_locator(MaxNLocator(8, steps=steps, integer=True))
        if published is not None:
            of_panel = published[(published["variable"] == str(row.name)) & (published["metric"] == name)]
            axis_height = 0.68 * axis_length if ax is None else panel.bbox.height / figure.dpi * 72
            _draw_published(panel, of_panel, letters, axis_height, 0.75 * size)
        if name == "rmse":
            _draw_skilful(panel, row, leads, systems)
    if not systems:
        return figure
    # forecasts first
    ordered = sorted(map(str, scores["system"].values), key=lambda name: name in style.BASELINE_STYLES)
    lines = [*(systems[name] for name in ordered if name in systems), *letters.values()]
    if ax is None:
        legend = add_legend_below(figure, lines, columns, size, long=bool(letters))
    else:
        legend = panels[0].legend(handles=lines, frameon=False, fontsize=(0.7 if letters else 0.9) * size)
    if published is not None:
        note = textwrap.fill(_origin_text(published, scores), int(11 * width) if ax is None else 40)
        legend.set_title(note, prop={"size": 0.8 * size})
    return figure


def check_scores(
    scores: xr.Dataset, dimensions: Sequence[str] = ("system", "metric", "lead_time"), role: str = "scores",
    source: str = "sc.score(...)",
) -> xr.Dataset:  # fmt: skip
    """Return scores with some dimensions, by default those of `score`; ValueError if one is missing or empty."""
    check_dataset(scores, role)
    for dimension in dimensions:
        if dimension not in scores.dims:
            if dimension not in scores.coords:
                raise ValueError(f"{role} has dimensions {tuple(scores.dims)}, no {dimension!r}: pass {source}.")
            scores = scores.expand_dims(dimension)
        if not scores.sizes[dimension]:
            raise ValueError(f"{role} has {dimension} of size 0: select at least one {dimension}.")
    return scores


def lead_axis(scores: xr.Dataset) -> tuple[np.ndarray, str]:
    """Return the leads as numbers, and their unit: "days", "hours" (if the last lead is below two days) or "months"."""
    leads, in_months = lead_values(scores)
    if in_months:
        return leads, "months"
    days = leads / np.timedelta64(1, "D")
    return (days, "days") if days.max() >= 2 else (24 * days, "hours")


def _choose_metrics(scores: xr.Dataset, metric: str | Sequence[str] | None) -> list[str]:
    """Return the metrics asked for; by default the headline metrics that have values, or all metrics."""
    available = [str(name) for name in scores["metric"].values]
    if metric is not None:
        return choose_names(metric, available, "metric", "scores")
    headline = [name for name in METRICS if METRICS[name].headline and name in available]
    finite = np.isfinite(scores).any([dim for dim in scores.dims if dim != "metric"])
    return [name for name in headline if any(finite.sel(metric=name).data_vars.values())] or available


def score_rows(
    scores: xr.Dataset, kept: Sequence[str] = ("system", "metric", "lead_time")
) -> Iterator[tuple[list[str], xr.DataArray]]:
    """Yield the labels and scores, with the dimensions `kept`, of each variable, level, region and season."""
    for array in scores.data_vars.values():
        dims = [dim for dim in array.dims if dim not in kept]
        labels = [scores[dim].values for dim in dims]
        for position in np.ndindex(*map(len, labels)):
            index = dict(zip(dims, position, strict=True))
            texts = [style.coordinate_text(scores, str(dim), scores[dim].values[place]) for dim, place in index.items()]
            yield texts, array.isel(index)


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


def _describe(metric: str) -> tuple[str, bool, float | None]:
    """Return the label of a metric, whether it has the unit of its variable, and its reference value."""
    if metric in METRICS:
        definition = METRICS[metric]
        return definition.label, not definition.dimensionless, definition.reference
    for separator, text in (("_skill_vs_", "skill over"), ("_difference_vs_", "less that of")):
        name, matched, baseline = metric.partition(separator)
        if matched:
            label, has_units, _ = _describe(name)
            return f"{label} {text} {baseline.replace('_', ' ')}", has_units and "diff" in separator, 0.0
    return metric, False, None


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
    _, has_units, reference = _describe(metric)
    if "_skill_vs_" in metric:
        panel.set_ylim(bottom=max(panel.get_ylim()[0], -0.5))  # a very bad system must not flatten the others
    if reference is not None:
        panel.axhline(reference, color="0.6", linewidth=1, linestyle=":", zorder=0)
    elif has_units and panel.get_ylim()[0] > 0:
        panel.set_ylim(bottom=0)


def _draw_skilful(panel: Axes, row: xr.DataArray, leads: np.ndarray, systems: dict[str, Line2D]) -> None:
    """Draw a bar up to the last lead at which a forecast is significantly better than every baseline."""
    prefix = "rmse_skill_vs_"
    labels = [label for label in map(str, row["metric"].values) if label.startswith(prefix)]
    low = row.coords.get(f"{row.name}_low")
    if not labels or low is None:
        return
    baselines = {label.removeprefix(prefix).replace("_", " ") for label in labels}
    height = 0.02  # in the coordinates of the axes
    for name in (str(name) for name in row["system"].values):
        if name in baselines or name not in systems:
            continue
        better = (low.sel(system=name, metric=labels) > 0).all("metric").values
        count = int(np.cumprod(better).sum())  # the leads before the first one that is not better
        if count:
            color, end = systems[name].get_color(), leads[count - 1]
            transform = panel.get_xaxis_transform()
            panel.plot([0, end], [height, height], color=color, linewidth=3, transform=transform, alpha=0.7)
            late = end > 0.8 * leads.max()
            panel.annotate(
                "skilful", (end, height + 0.03 * late), xycoords=transform, xytext=(-3 if late else 3, 0),
                textcoords="offset points", fontsize=7, color=color, va="center", ha="right" if late else "left",
            )  # fmt: skip
            height += 0.045


def add_legend_below(figure: Figure, lines: list[Line2D], columns: int, size: float, *, long: bool) -> Legend:
    """Return a legend below the panels; a long one has small text, and the figure grows by its height."""
    width, height = figure.get_size_inches()
    across = min(len(lines), 2 * columns)
    if long:
        size = 0.8 * size
        longest = max(len(str(line.get_label())) for line in lines)
        across = max(1, min(len(lines), int(72 * width / ((0.52 * longest + 4) * size))))
        rows = -(-len(lines) // across)
        figure.set_size_inches(width, height + (rows + 1) * 1.6 * size / 72)
    return figure.legend(handles=lines, frameon=False, fontsize=size, loc="outside lower center", ncols=across)


# Published scores


def _select_published(published: object, scores: xr.Dataset, names: list[str], metrics: list[str]) -> pd.DataFrame:
    """Return the published scores to draw, in the units of `scores`, with a column "lead" in that of `lead_axis`."""
    if not isinstance(published, pd.DataFrame) or set(_PUBLISHED_COLUMNS) - set(published.columns):
        content = list(published.columns) if isinstance(published, pd.DataFrame) else type(published).__name__
        raise ValueError(f"published is {content}: pass rows of sc.metrics.published(), columns {_PUBLISHED_COLUMNS}.")
    if published.empty:
        raise ValueError("published has no rows: select some rows of sc.metrics.published(), or leave it out.")
    for dim in ("region", "season", "month"):
        if dim in scores.coords and not (dim == "region" and (scores[dim] == "global").all()):
            raise ValueError(
                f"scores has {dim} {np.atleast_1d(scores[dim].values).tolist()}, but published scores are of the globe"
                " and whole years: leave published out, or score without regions and by."
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
        if _describe(row["metric"])[1] and units is not None and pd.notna(row["units"]):
            factor_and_offset = conversion(row["variable"], row["units"], units)
            if factor_and_offset is None:
                differ = f"units {row['units']!r} in published and {units!r} in scores"
                raise ValueError(f"{row['variable']} has {differ}: convert one of them, or leave published out.")
            selected.loc[index, "value"] = row["value"] * factor_and_offset[0]  # errors have no offset
    return selected


def _origin_text(published: pd.DataFrame, scores: xr.Dataset) -> str:
    """Return a sentence on the truth and years of the published scores, and one on those of the curves."""
    models = {
        f"{truth} {years}": list(dict.fromkeys(rows["model"]))
        for (truth, years), rows in published.groupby(["truth", "years"], sort=False)
    }
    most_frequent = max(models, key=lambda origin: len(models[origin]))
    others = [f"{origin} ({', '.join(names)})" for origin, names in models.items() if origin != most_frequent]
    note = f"Letters: published, against {'; '.join([most_frequent, *others])}."
    if {"verified_start", "verified_end"} <= set(scores.attrs):
        first, last = (str(scores.attrs[f"verified_{end}"])[:10] for end in ("start", "end"))
        note += f" Curves: against the truth of these scores, {first} to {last}."
    return note


def _draw_published(
    panel: Axes, published: pd.DataFrame, letters: dict[str, Line2D], axis_height: float, size: float
) -> None:
    """Draw published scores as dashes with letters of a size in points; add models to `letters` for the legend."""
    if published.empty:
        return
    for model, rows in published.groupby("model", sort=False):
        if model not in letters:
            letter = _LETTERS[len(letters) % len(_LETTERS)]
            options = {"marker": f"${letter}$", "color": "0.25", "markeredgewidth": 0.2, "markersize": 0.75 * size}
            letters[model] = Line2D([], [], linestyle="none", label=model, **options)
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
        _draw_letters(panel, lead, rows.sort_values("value"), letters, axis_height, size)


def _draw_letters(
    panel: Axes, lead: float, rows: pd.DataFrame, letters: dict[str, Line2D], axis_height: float, size: float
) -> None:
    """Draw the letters of ascending scores at a lead, in columns where they would overlap, with arrows at the edge."""
    low, high = panel.get_ylim()
    tops: list[float] = []  # of the highest letter in each column, in points
    for _, row in rows.iterrows():
        fraction = (row["value"] - low) / (high - low)
        arrow = "↑" if fraction > 1 else "↓" if fraction < 0 else ""
        height = fraction * axis_height
        if arrow:
            height = float(np.clip(height, 0.5 * size, axis_height - 0.5 * size))
        column = next((index for index, top in enumerate(tops) if height >= top + size), len(tops))
        tops[column : column + 1] = [height]
        side = -1 if lead > 0.8 * panel.get_xlim()[1] else 1  # keeps letters inside the panel
        panel.annotate(
            letters[row["model"]].get_marker().strip("$") + arrow, (lead, low + height / axis_height * (high - low)),
            xytext=(side * (4 + (1.6 if arrow else 1.0) * size * column), 0), textcoords="offset points",
            fontsize=size, color="0.25", ha="left" if side > 0 else "right", va="center_baseline", zorder=1,
        )  # fmt: skip
