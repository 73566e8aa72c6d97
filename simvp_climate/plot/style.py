"""What all pictures share: figures, sizes, colors, and how names and units are written."""

import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

MAX_ROWS = 12

# Okabe and Ito's palette without yellow (invisible on white) and black (for the climatology).
LINE_STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#E69F00", "P")
)  # fmt: skip
BASELINE_STYLES = {"persistence": ("0.5", "x", "-"), "climatology": ("black", "", "--")}


def new_figure(width: float, height: float = 4.0) -> Figure:
    """Return an empty figure that pyplot shows in a notebook and does not keep; ValueError without a width."""
    if not width > 0:
        raise ValueError(f"width={width!r} must be greater than 0: it is that of the figure in inches")
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)  # out of pyplot's list, still a whole figure: see the top of this file
    return figure


def font_size(width: float) -> float:
    """Return the size of the text that suits a figure, from the width of three of its panels in inches."""
    return float(np.clip(0.85 * width, 6.5, 10.0))


def display_name(array: xr.DataArray) -> str:
    """Return how to write what a field is: its long name, or its name."""
    text = str(array.attrs.get("long_name") or array.name).replace("_", " ")
    return text[:1].upper() + text[1:] if "long_name" in array.attrs else text


def coordinate_text(dataset: xr.Dataset, dim: str, value: object) -> str:
    """Return how to write one value of level, region or season."""
    if not np.issubdtype(type(value), np.number):
        return str(value)
    units = dataset[dim].attrs.get("units", "") if dim in dataset.coords else ""
    return f"{value:g} {units}" if units else f"{dim} {value:g}"


def pretty_units(units: str) -> str:
    """Return units with raised exponents: "m2 s-2", "m**2 s**-2" and "m^2 s^-2" all become "m² s⁻²"."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    power = r"\b([A-Za-z]+)(?:\*\*|\^)?(-?\d+)\b"
    return re.sub(power, lambda m: m.group(1) + m.group(2).translate(raised), str(units).strip())


def units_of(array: xr.DataArray) -> str:
    """Return the units of a field as they are written, nothing for 1."""
    units = pretty_units(array.attrs.get("units", ""))
    return "" if units == "1" else units


def with_units(text: str, array: xr.DataArray) -> str:
    """Return a text with the units of a field."""
    units = units_of(array)
    return f"{text} [{units}]" if units else text


def refuse_settings_with_axes(ax: object, width: float | None, projection: object = None) -> None:
    """Raise ValueError if axes of the user come with what only a new figure heeds."""
    for name, value in (("width", width), ("projection", projection)):
        if ax is not None and value is not None:
            raise ValueError(f"ax has a {name} of its own, and {name} is given too: leave one of both out")


def check_axes(ax: Axes | Sequence[Axes], count: int, what: str) -> list[Axes]:
    """Return the axes of the user, of which as many are needed as are drawn.

    Raises ValueError if they are not as many, or no axes.
    """
    panels = list(np.asarray(ax, dtype=object).ravel())
    if wrong := [one for one in panels if not isinstance(one, Axes)]:
        raise ValueError(f"ax has a {type(wrong[0]).__name__}: give matplotlib axes, one or a list of them")
    if len(panels) != count:
        raise ValueError(f"ax has {len(panels)} axes, and {count} are drawn ({what}): give as many, or choose fewer")
    return panels


def figure_of(panels: Sequence[Axes]) -> Figure:
    """Return the figure that axes are in, the whole one."""
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    return figure


def color_bar_below(
    figure: Figure,
    scale: ScalarMappable,
    panels: Sequence[Axes],
    label: str,
    size: float,
    *,
    extend: str = "neither",
    shrink: float = 1.0,
    pad: float = 0.02,
    aspect: float = 30.0,
) -> Colorbar:
    """Add a color bar below panels, below their tick labels in every layout, and return it."""
    fraction = 0.08
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        # Other layouts do not know how deep the tick labels hang: so we measure them. The bar, its ticks and its label
        # take the room that they need from the panels, and nothing from what is below.
        # first the bounding boxes: they settle where a map lies in its axes
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
