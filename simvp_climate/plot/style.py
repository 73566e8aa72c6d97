"""Figures, axes, text sizes, colors, names and units: shared by all plots."""

import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

MAX_ROWS = 12

# Okabe and Ito's palette without yellow (invisible on white) and black (for the climatology).
LINE_STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P")
)  # fmt: skip
BASELINE_STYLES = {
    "persistence": ("0.5", "x", "-"),
    "anomaly persistence": ("0.5", "+", ":"),
    "climatology": ("black", "", "--"),
}


def new_figure(width: float, height: float = 4.0) -> Figure:
    """Return an empty figure that a notebook displays once, as the value of its cell, and that does not stay open."""
    if not width > 0:
        raise ValueError(f"width={width!r} must be greater than 0 (inches).")
    figure = plt.figure(figsize=(width, height), layout="constrained")  # only pyplot installs the display in notebooks
    plt.close(figure)  # Removes it from pyplot's list only; the figure stays usable.
    return figure


def font_size(width: float) -> float:
    """Return the text size in points that suits a figure whose three panels have this width in inches."""
    return float(np.clip(0.85 * width, 6.5, 10.0))


def display_name(array: xr.DataArray) -> str:
    """Return the long name of an array in plain text, or its name."""
    text = str(array.attrs.get("long_name") or array.name).replace("_", " ")
    return text[:1].upper() + text[1:] if "long_name" in array.attrs else text


def coordinate_text(dataset: xr.Dataset, dim: str, value: object) -> str:
    """Return the text of a level, region or season: "500 hPa", "level 3" or "tropics"."""
    if not np.issubdtype(type(value), np.number):
        return str(value)
    units = dataset[dim].attrs.get("units", "") if dim in dataset.coords else ""
    return f"{value:g} {units}" if units else f"{dim} {value:g}"


def pretty_units(units: str) -> str:
    """Return units as in print: "m2 s-2", "m**2 s**-2" and "m^2 s^-2" all become "m² s⁻²", "degC" "°C"."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    power = r"\b([A-Za-z]+)(?:\*\*|\^)?(-?\d+)\b"
    raised_text = re.sub(power, lambda m: m.group(1) + m.group(2).translate(raised), str(units).strip())
    return re.sub(r"\bdegC\b", "°C", raised_text)


def units_of(array: xr.DataArray) -> str:
    """Return the units of an array as text; empty if it is dimensionless."""
    units = pretty_units(array.attrs.get("units", ""))
    return "" if units == "1" else units


def with_units(text: str, array: xr.DataArray) -> str:
    """Return a text followed by the units of an array in brackets."""
    units = units_of(array)
    return f"{text} [{units}]" if units else text


def refuse_settings_with_axes(ax: object, width: float | None, projection: object = None) -> None:
    """Raise ValueError if `ax` comes with a setting that only new figures take."""
    for name, value in (("width", width), ("projection", projection)):
        if ax is not None and value is not None:
            raise ValueError(f"ax has its own {name}, so {name}={value!r} has no effect: leave {name} out.")


def check_axes(ax: Axes | Sequence[Axes], count: int, contents: str) -> list[Axes]:
    """Return the user's axes as a list; ValueError unless they are `count` matplotlib axes."""
    panels = list(np.asarray(ax, dtype=object).ravel())
    if wrong := [panel for panel in panels if not isinstance(panel, Axes)]:
        raise ValueError(f"ax has a {type(wrong[0]).__name__}: pass matplotlib axes, or a list of them.")
    if len(panels) != count:
        raise ValueError(f"ax has {len(panels)} axes, but the figure has {count} panels ({contents}): pass {count}.")
    return panels


def panel_axes(
    ax: Axes | Sequence[Axes] | None, count: int, contents: str, columns: int, size: tuple[float, float]
) -> list[Axes]:
    """Return the user's axes, or those of a new figure of this width and height, row by row."""
    if ax is not None:
        return check_axes(ax, count, contents)
    figure = new_figure(*size)
    return [figure.add_subplot(-(-count // columns), columns, index + 1) for index in range(count)]


def label_panel(panel: Axes, title: str, x_label: str, y_label: str, size: float) -> None:
    """Write the title and labels of a panel of curves, and remove its frame at the top and right."""
    panel.set_title(title, fontsize=size)
    panel.set_xlabel(x_label, fontsize=size)
    panel.set_ylabel(y_label, fontsize=size)
    panel.tick_params(which="both", labelsize=0.9 * size)
    panel.spines[["top", "right"]].set_visible(False)


def label_lead_axis(panel: Axes, leads: np.ndarray, unit: str) -> None:
    """Limit the axis of the lead times to them, with few ticks at whole numbers that divide a day if in hours."""
    panel.set_xlim(0, 1.03 * leads.max())
    steps = [1, 3, 6, 10] if unit == "hours" else None
    panel.xaxis.set_major_locator(
        MaxNLocator(6 if panel.bbox.width < 2.5 * figure_of([panel]).dpi else 8, steps=steps, integer=True)
    )


def figure_of(panels: Sequence[Axes]) -> Figure:
    """Return the figure, not the subfigure, that contains the axes."""
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    return figure


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times the powers of ten, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def color_bar_below(
    figure: Figure, scale: ScalarMappable, panels: Sequence[Axes], label: str, size: float, *, extend: str = "neither",
    shrink: float = 1.0, pad: float = 0.02, aspect: float = 30.0,
) -> Colorbar:  # fmt: skip
    """Add a color bar below the tick labels of panels, in every layout, and return it."""
    fraction = 0.08
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        # Other layouts ignore the height of the tick labels, so we measure it and take the space from the panels.
        # The bounding boxes come first: computing them fixes the position of a map in its axes.
        low = [panel.get_tightbbox().y0 for panel in panels]  # type: ignore[union-attr]
        hanging = max(panel.bbox.y0 - y for panel, y in zip(panels, low, strict=True))
        boxes = [panel.get_position(original=True).transformed(figure.transSubfigure) for panel in panels]
        height = max(box.y1 for box in boxes) - min(box.y0 for box in boxes)
        point = figure.dpi / 72
        pad = min((hanging + 3 * point) / height, 0.4)
        fraction = min((1.2 + 2.6 * size / 10) * 10 * point / height, 0.4)
        width = max(box.x1 for box in boxes) - min(box.x0 for box in boxes)
        aspect = max(shrink * width / (8 * point), 4.0)
    bar = figure.colorbar(
        scale, ax=list(panels), location="bottom", extend=extend, shrink=shrink, aspect=aspect, pad=pad,
        fraction=fraction,
    )  # fmt: skip
    bar.set_label(label, fontsize=size)
    bar.ax.tick_params(labelsize=0.9 * size)
    return bar
