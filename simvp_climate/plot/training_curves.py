"""How a training went."""

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from simvp_climate.plot.style import (
    LINE_STYLES,
    MAX_ROWS,
    check_axes,
    figure_of,
    font_size,
    new_figure,
    pretty_units,
    refuse_settings_with_axes,
)


def training_curve(histories: object, *, width: float | None = None, ax: Axes | Sequence[Axes] | None = None) -> Figure:
    """Draw how a training went: losses per epoch, and validation errors in physical units where there are some.

    Parameters
    ----------
    histories
        A Forecaster, or its `training_curve` (a DataFrame, also one read from a run's `training_curve.csv`); several to
        compare as a dict, `{"zeros": first, "sphere": second}`.
    width
        Of the figure in inches; default 4.2 for each column of panels.
    ax
        Axes of your own to draw into: one for the losses and one for each variable with errors.

    Returns
    -------
    Figure. In the first panel the losses, on a logarithmic scale where they span a factor of ten: training thin,
    validation thick. Then a panel for each variable with its errors at the leads in the history, in its units. A ring
    is around the epoch whose weights were kept: the first with the smallest validation loss, or the last.

    Raises
    ------
    ValueError
        If there is no history, or no epoch in one.
    """
    refuse_settings_with_axes(ax, width)
    runs = histories if isinstance(histories, Mapping) else {"": histories}
    tables = {str(name): _history_table(str(name), one) for name, one in runs.items()}
    if not tables:
        raise ValueError("histories is empty: give at least one Forecaster or history, {'a name': forecaster}")
    columns = dict.fromkeys(column for table in tables.values() for column in table)
    leads_of: dict[str, dict[str, str]] = {}  # the lead of each column, by variable
    for column in columns:
        if match := re.fullmatch(r"valid_rmse_(.+?)(?:_([\d.]+(?:h|M)))?", column):
            leads_of.setdefault(match[1], {})[column] = re.sub(r"(\d)([hM])", r"\1 \2", match[2] or "")
    if len(leads_of) >= 3 * MAX_ROWS:
        raise ValueError(f"{len(leads_of)} panels of errors are more than {3 * MAX_ROWS - 1}: drop some columns")
    across = min(3, 1 + len(leads_of))
    lines = -(-(1 + len(leads_of)) // across)
    width = 4.2 * across if width is None else width
    size = font_size(3 * width / across)
    given = None if ax is None else check_axes(ax, 1 + len(leads_of), "the losses and the errors of each variable")
    figure = new_figure(width, lines * 0.72 * width / across + 0.05 * size) if given is None else figure_of(given)
    last = max(table.index.max() for table in tables.values())

    panel = figure.add_subplot(lines, across, 1) if given is None else given[0]
    several = len(tables) > 1
    # of validation; one training alone has a color of its own
    colors = dict(
        zip(tables, itertools.cycle(color for color, _ in (LINE_STYLES if several else LINE_STYLES[1:])), strict=False)
    )
    for name, table in tables.items():
        words = f"{name}, " if several else ""
        validated = "valid_loss" in table
        color = colors[name] if several else LINE_STYLES[0][0]
        _draw_epochs(panel, table, "loss", f"{words}training", color, "-", 1.0, ring=not validated)
        if validated:
            _draw_epochs(panel, table, "valid_loss", f"{words}validation", colors[name], "-", 2.2, ring=True)
    panel.plot([], [], "o", color="0.4", markerfacecolor="none", markersize=9, label="kept")
    drawn = np.concatenate([line.get_ydata() for line in panel.lines])
    if drawn.min() > 0 and drawn.max() > 10 * drawn.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
    _finish_epochs(panel, "Training", "Loss", last, size)

    for number, (variable, leads) in enumerate(leads_of.items(), start=2):
        panel = figure.add_subplot(lines, across, number) if given is None else given[number - 1]
        for name, table in tables.items():
            for column, style in zip(list(leads)[::-1], itertools.cycle(("-", "--", ":"))):  # the longest lead solid
                if column in table:
                    words = [name] * several + [leads[column]] * bool(leads[column])
                    _draw_epochs(panel, table, column, ", ".join(words), colors[name], style, 1.6, ring=True)
        panel.set_ylim(bottom=0)
        units = {table.attrs.get("units", {}).get(column, "") for table in tables.values() for column in leads} - {""}
        if len(units) > 1:
            raise ValueError(f"the errors of {variable} are in {sorted(units)}: draw the runs one by one")
        label = f"RMSE [{pretty_units(units.pop())}]" if units else "RMSE"
        _finish_epochs(panel, f"Validation, {variable}", label, last, size)
    return figure


def _history_table(name: str, one: object) -> pd.DataFrame:
    """Return the history of a Forecaster, or a history itself, with its epochs as index."""
    table = one if isinstance(one, pd.DataFrame) else getattr(one, "training_curve", None)
    words = f"histories has {name!r}, which" if name else "histories"
    if not isinstance(table, pd.DataFrame) or not {"loss", "valid_loss"} & set(table.columns):
        raise ValueError(f"{words} is a {type(one).__name__}: give a Forecaster or its training_curve")
    if table.empty:
        raise ValueError(f"{words} has no epoch: nothing was trained yet")
    return table.set_index("epoch") if "epoch" in table.columns else table


def _draw_epochs(
    panel: Axes, table: pd.DataFrame, column: str, label: str, color: str, style: str, width: float, *, ring: bool
) -> None:
    """Draw a column against the epochs; the kept one is in a ring."""
    if column not in table:
        return
    few = "." if len(table) < 15 else ""
    panel.plot(
        table.index, table[column], color=color, linestyle=style, linewidth=width, marker=few, label=label or None
    )
    if ring:
        kept = table["valid_loss"].idxmin() if "valid_loss" in table else table.index[-1]
        panel.plot([kept], [table.loc[kept, column]], "o", color=color, markerfacecolor="none", markersize=9)


def _finish_epochs(panel: Axes, title: str, label: str, last: int, size: float) -> None:
    panel.set_title(title, fontsize=size)
    panel.set_ylabel(label, fontsize=size)
    panel.set_xlabel("Epoch", fontsize=size)
    panel.tick_params(which="both", labelsize=0.9 * size)
    panel.set_xlim(1 - 0.04 * last, 1.04 * last)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panel.get_legend_handles_labels()
    if handles:
        panel.legend(handles, labels, frameon=False, fontsize=0.9 * size)
