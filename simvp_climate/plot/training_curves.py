"""Losses and validation errors as curves over epochs."""

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from simvp_climate.plot import style
from simvp_climate.plot.curve_panels import Panels, curve_panels

_LOSSES = ("loss", "valid_loss")
# of ensembles, by the part of the column name
_RATIOS = {"spread_skill": "spread over error", "small_scales": "small scales over truth"}


def training_curve(histories: object, *, width: float | None = None, ax: Axes | Sequence[Axes] | None = None) -> Figure:
    """Draw the losses of each epoch, and the validation errors in physical units if the history has them.

    Parameters
    ----------
    histories
        A Forecaster, or its `training_curve` (a DataFrame, also one read from the `training_curve.csv` of a run). To
        compare several runs, a dict: `{"zeros": first, "sphere": second}`.
    width, ax
        As in `scores`; default 4.2 inches for each column of panels.

    Returns
    -------
    Figure. The first panel has the losses, training thin and validation thick, on a logarithmic axis if they span a
    factor of ten; then each variable has a panel of its errors at the recorded leads. After training on the CRPS these
    are the errors of the mean of members, each variable has another panel of its CRPS, and two more panels have the
    spread of members over that error and their variance in small scales over that of the truth, both 1 in a good
    ensemble; a dotted line in the first panel shows where the training loss changes from the squared error to the CRPS.
    A ring marks the epoch whose weights were kept: the first with the smallest validation loss (on the CRPS, once it is
    trained), or the last without validation. ValueError if there is no history, one without epochs, or more than 36
    panels to draw.
    """
    runs = histories if isinstance(histories, Mapping) else {"": histories}
    tables = {str(name): _history_table(str(name), run) for name, run in runs.items()}
    if not tables:
        raise ValueError("histories={} is empty: pass a Forecaster, or {'name': forecaster}.")
    leads_of, ratios = _leads_by_variable(tables), _ratio_columns(tables)
    count = 1 + len(leads_of) + len(ratios)
    if count > 3 * style.MAX_ROWS:
        raise ValueError(f"{count} panels are more than {3 * style.MAX_ROWS}: drop some columns of errors.")

    contents = "the losses and the errors of each variable"
    panels = curve_panels(ax, width, count, contents, default=4.2, least=2.6)
    last_epoch = max(table.index.max() for table in tables.values())
    # The training loss of a single run has the first color, so that its validation has the second.
    styles = style.LINE_STYLES if len(tables) > 1 else style.LINE_STYLES[1:]
    colors = {name: color for name, (color, _) in zip(tables, itertools.cycle(styles), strict=False)}

    _draw_losses(panels.axes[0], tables, colors)
    _finish_panel(panels, 0, "Training", "Loss", last_epoch)
    for index, ((variable, metric), leads) in enumerate(leads_of.items(), start=1):
        _draw_errors(panels.axes[index], tables, leads, colors)
        units = {table.attrs.get("units", {}).get(column, "") for table in tables.values() for column in leads} - {""}
        if len(units) > 1:
            raise ValueError(f"the errors of {variable} have units {sorted(units)}: draw the runs one at a time.")
        label = f"{metric} [{style.pretty_units(units.pop())}]" if units else metric
        _finish_panel(panels, index, f"Validation, {variable}", label, last_epoch)
    for index, (kind, columns) in enumerate(ratios.items(), start=1 + len(leads_of)):
        _draw_ratios(panels.axes[index], tables, columns)
        _finish_panel(panels, index, f"Validation, {_RATIOS[kind]}", "Ratio", last_epoch)
    return panels.figure


def _history_table(name: str, history: object) -> pd.DataFrame:
    """Return the training curve of a Forecaster, or the history itself, with the epochs as index."""
    table = history if isinstance(history, pd.DataFrame) else getattr(history, "training_curve", None)
    argument = f"histories[{name!r}]" if name else "histories"
    if not isinstance(table, pd.DataFrame) or not {"loss", "valid_loss"} & set(table.columns):
        raise ValueError(f"{argument} is a {type(history).__name__}: pass a Forecaster or its training_curve.")
    if table.empty:
        raise ValueError(f"{argument} has no epoch: train for at least one.")
    return table.set_index("epoch") if "epoch" in table.columns else table


def _leads_by_variable(tables: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the columns by variable and "RMSE" or "CRPS", each with its lead as text: "24 h", "3 M" or ""."""
    leads: dict[tuple[str, str], dict[str, str]] = {}
    for column in dict.fromkeys(column for table in tables.values() for column in table):
        if match := re.fullmatch(r"valid_(rmse|crps)_(.+?)(?:_([\d.]+(?:h|M)))?", column):
            columns = leads.setdefault((match[2], match[1].upper()), {})
            columns[column] = re.sub(r"(\d)([hM])", r"\1 \2", match[3] or "")
    return leads


def _ratio_columns(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, str]]:
    """Return the columns of each ratio of ensembles, with variable and lead as text: "z500, 24 h"."""
    columns: dict[str, dict[str, str]] = {}
    for column in dict.fromkeys(column for table in tables.values() for column in table):
        for kind in _RATIOS:
            if match := re.fullmatch(rf"valid_{kind}_(.+?)(?:_([\d.]+)(h|M))?", column):
                label = match[1] + (f", {match[2]} {match[3]}" if match[2] else "")
                columns.setdefault(kind, {})[column] = label
    return columns


def _draw_ratios(panel: Axes, tables: Mapping, columns: Mapping[str, str]) -> None:
    """Draw all columns of a ratio, and a line where it should be."""
    panel.axhline(1, color="0.5", linewidth=0.8)
    styles = itertools.cycle(style.LINE_STYLES)
    for name, table in tables.items():
        for column, label in columns.items():
            color, _ = next(styles)
            if column in table:
                text = ", ".join(part for part in (name, label) if part)
                _draw_epochs(panel, table, column, text, color, "-", 1.6, ring=True)


def _draw_losses(panel: Axes, tables: Mapping[str, pd.DataFrame], colors: Mapping[str, str]) -> None:
    """Draw the losses of all runs, on a logarithmic axis if they span a factor of ten."""
    several = len(tables) > 1
    for name, table in tables.items():
        prefix = f"{name}, " if several else ""
        validated = "valid_loss" in table
        color = colors[name] if several else style.LINE_STYLES[0][0]
        _draw_epochs(panel, table, "loss", f"{prefix}training", color, "-", 1.0, ring=not validated)
        if validated:
            _draw_epochs(panel, table, "valid_loss", f"{prefix}validation", colors[name], "-", 2.2, ring=True)
    for start in {table.attrs["crps_after"] for table in tables.values() if "crps_after" in table.attrs}:
        # the first epoch has its point at 1
        panel.axvline(start + 0.5, color="0.4", linestyle=":", linewidth=1, label="training on the CRPS begins")
    panel.plot([], [], "o", color="0.4", markerfacecolor="none", markersize=9, label="kept")
    losses = np.concatenate([table[name] for table in tables.values() for name in table if name in _LOSSES])
    if losses.min() > 0 and losses.max() > 10 * losses.min():
        panel.set_yscale("log")
        style.label_log_axis(panel.yaxis)
        panel.yaxis.set_minor_locator(NullLocator())


def _draw_errors(panel: Axes, tables: Mapping, leads: Mapping[str, str], colors: Mapping[str, str]) -> None:
    """Draw the validation errors of a variable for all runs, the longest lead solid."""
    for name, table in tables.items():
        for (column, lead), line_style in zip(list(leads.items())[::-1], itertools.cycle(("-", "--", ":"))):
            if column in table:
                label = ", ".join(text for text in (name, lead) if text)
                _draw_epochs(panel, table, column, label, colors[name], line_style, 1.6, ring=True)
    panel.set_ylim(bottom=0)


def _draw_epochs(
    panel: Axes, table: pd.DataFrame, column: str, label: str, color: str, line_style: str, width: float, *, ring: bool
) -> None:
    """Draw a column against the epochs, with a ring at the epoch whose weights were kept."""
    if column not in table:
        return
    options = dict(color=color, linestyle=line_style, linewidth=width, marker="." if len(table) < 15 else "")
    panel.plot(table.index, table[column], label=label or None, **options)
    if ring:
        measures = [name for name in ("valid_rollout_bias", "valid_loss") if name in table]
        candidates = table[table.index > table.attrs.get("crps_after", 0)]
        values = candidates[measures[0]].dropna() if measures else []
        kept = values.idxmin() if len(values) else table.index[-1]
        panel.plot([kept], [table.loc[kept, column]], "o", color=color, markerfacecolor="none", markersize=9)


def _finish_panel(panels: Panels, index: int, title: str, label: str, last_epoch: int) -> None:
    """Label a panel and limit it to the epochs."""
    panel = panels.axes[index]
    style.label_panel(panel, panels.wrap(title), "Epoch", panels.wrap_up(label), panels.size)
    panel.set_xlim(1 - 0.04 * last_epoch, 1.04 * last_epoch)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=0.9 * panels.size)
