"""Panels of curves: their number side by side, their size and text at a width, and the legend below them."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.textpath import TextPath

from simvp_climate.plot import style

_MAX_HEIGHT, _MIN_HEIGHT = 4.8, 1.25  # of a panel, in inches
_PAGE_HEIGHT = 10.0  # inches; more rows make smaller panels


@dataclass(frozen=True)
class Panels:
    """The panels of a figure, row by row."""

    axes: list[Axes]
    places: list[tuple[int, int]]  # line and column of each; the user's have a line each
    width: float  # of one panel with its labels, in inches
    height: float
    size: float  # of the text, in points
    is_new: bool  # not the user's axes

    @property
    def figure(self) -> Figure:
        return style.figure_of(self.axes)

    @property
    def columns(self) -> int:
        return 1 + max(column for _, column in self.places)

    def is_lowest(self, index: int) -> bool:
        """Return whether no panel stands below this one."""
        line, column = self.places[index]
        return not self.is_new or all(other <= line for other, other_column in self.places if other_column == column)

    def is_first(self, index: int) -> bool:
        """Return whether no panel stands at the left of this one."""
        return not self.is_new or self.places[index][1] == 0

    def wrap(self, text: str, share: float = 0.85) -> str:
        """Return a text in lines that fill at most this share of the width of a panel."""
        return wrap(text, share * self.width, self.size)

    def wrap_up(self, text: str, share: float = 0.7) -> str:
        """Return a text in lines that fill at most this share of the height of a panel."""
        return wrap(text, share * self.height, self.size)


def curve_panels(
    ax: Axes | Sequence[Axes] | None, width: float | None, rows: int, contents: str, *, per_row: int = 1,
    default: float = 4.0, least: float = 1.7, aspect: float = 0.72, max_columns: int = 3,
) -> Panels:  # fmt: skip
    """Return the panels of `rows` rows of `per_row` panels that belong together; single ones stand side by side.

    `default` and `least` are widths of a panel in inches, and `aspect` is its height over its width: a narrow figure
    has fewer panels side by side, and a figure with many rows has smaller panels.
    """
    style.refuse_settings_with_axes(ax, width)
    if ax is not None:
        axes = style.check_axes(ax, rows * per_row, contents)
        panel_width = 1.2 * min(panel.bbox.width for panel in axes) / style.figure_of(axes).dpi
        panel_height = 1.3 * min(panel.bbox.height for panel in axes) / style.figure_of(axes).dpi
        places = [(index, 0) for index in range(len(axes))]
        return Panels(axes, places, panel_width, panel_height, style.font_size(3 * panel_width), is_new=False)
    columns, lines_per_row = (per_row, 1) if per_row > 1 else (min(max_columns, rows), 0)
    if width is None:
        lines = rows if per_row > 1 else -(-rows // columns)
        width = max(columns * float(np.clip(3 * default / lines, 0.62 * default, default)), min(default, 4.0))
    elif columns > (fitting := max(int(width / least), 1)):
        columns = -(-columns // -(-columns // fitting))  # as many lines as needed, filled evenly
        lines_per_row = -(-per_row // columns) if per_row > 1 else 0
    places = [divmod(row if per_row == 1 else place, columns) for row in range(rows) for place in range(per_row)]
    places = [(line + index // per_row * lines_per_row, column) for index, (line, column) in enumerate(places)]
    lines = 1 + places[-1][0]
    panel_width = width / columns
    height = max(min(aspect * panel_width, _MAX_HEIGHT, _PAGE_HEIGHT / lines), _MIN_HEIGHT)
    figure = style.new_figure(width, lines * height)
    axes = [figure.add_subplot(lines, columns, line * columns + column + 1) for line, column in places]
    return Panels(axes, places, panel_width, height, style.font_size(3 * panel_width), is_new=True)


def wrap(text: str, inches: float, size: float) -> str:
    """Return a text in lines of a length in inches, for text of a size in points."""
    # A unit stays with its number, and units in brackets stay together.
    joined = re.sub(r"\[[^]]*\]|[\d.]+ \w+", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines = textwrap.fill(joined, max(8, int(72 * inches / (0.56 * size))), break_long_words=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def text_width(text: str, size: float) -> float:
    """Return the width of a text in inches, for text of a size in points."""
    widths = [TextPath((0, 0), line, size=size).get_extents().width for line in text.splitlines() if line.strip()]
    return max(widths, default=0.0) / 72


def add_legend_below(figure: Figure, handles: Sequence[Artist], size: float, title: str = "") -> Legend:
    """Return a legend below the panels with as many columns as fit; the figure grows by its height."""
    width, height = figure.get_size_inches()
    # the line, its distances and the distance of columns take about six letters
    entries = [text_width(str(handle.get_label()), size) + 5 * size / 72 for handle in handles]
    across = next(n for n in range(len(entries), 0, -1) if n == 1 or _columns_width(entries, n) < width - 0.1)
    across = -(-len(handles) // -(-len(handles) // across))  # filled evenly
    lines = -(-len(handles) // across) + len(title.splitlines())
    figure.set_size_inches(width, height + (1.6 * lines + 0.8) * size / 72)
    legend = figure.legend(handles=handles, frameon=False, fontsize=size, loc="outside lower center", ncols=across)
    if title:
        legend.set_title(title, prop={"size": 0.9 * size})
    return legend


def _columns_width(widths: list[float], columns: int) -> float:
    """Return the width of a legend whose entries have these widths, column by column."""
    return sum(max(part) for part in np.array_split(widths, columns))
