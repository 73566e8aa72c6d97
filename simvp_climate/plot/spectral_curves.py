"""Spectra as curves over zonal wavenumber: how rough a forecast is."""

import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from simvp_climate.data.grid import latitude_weights
from simvp_climate.plot.selection import choose_leads, choose_names
from simvp_climate.plot.style import (
    LINE_STYLES,
    MAX_ROWS,
    check_axes,
    coordinate_text,
    display_name,
    figure_of,
    font_size,
    new_figure,
    pretty_units,
    refuse_settings_with_axes,
)


def spectra(
    spectra: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    variables: str | Sequence[str] | None = None,
    lead: str | timedelta | np.timedelta64 | Sequence | None = None,
    width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw spectra over the zonal wavenumber, both on logarithmic scales: a panel for each variable and level.

    Parameters
    ----------
    spectra
        As from `variance_by_wavenumber`: the variance of a forecast over the truth's, a line for each lead. Or several
        spectra as from `zonal_spectrum` by name, `{"forecast": zonal_spectrum(forecast), "truth": zonal_spectrum(ds)}`:
        a line for each, and for each lead of a forecast.
    variables
        A name or several; default all.
    lead
        One or several; default up to five of them, evenly, the last one among them.
    width
        Of the figure in inches; default 4 for each column of panels.
    ax
        Axes of your own, as many as there are panels.

    Returns
    -------
    Figure. Ratios are shown from 0.05 to 20; triangles at the edge say where a line goes on beyond. Spectra of several
    times are averaged over these, and over latitudes by area.

    Raises
    ------
    ValueError
        If there is no zonal wavenumber, or a variable or lead is not there.
    """
    refuse_settings_with_axes(ax, width)
    several = dict(spectra) if isinstance(spectra, Mapping) and not isinstance(spectra, xr.Dataset) else {"": spectra}
    if not several:
        raise ValueError("spectra is empty: give zonal_spectrum(forecast) by a name")
    for one in several.values():
        if not isinstance(one, xr.Dataset) or "zonal_wavenumber" not in one.dims:
            found = tuple(one.dims) if isinstance(one, xr.Dataset) else type(one).__name__
            raise ValueError(
                f"spectra has {found} and no zonal_wavenumber: give what variance_by_wavenumber or, by name, "
                "zonal_spectrum returns"
            )
    first = next(iter(several.values()))
    is_ratio = "frequency" not in first.coords
    if is_ratio and len(several) > 1:
        raise ValueError("ratios of variance are drawn one by one: give one Dataset, or spectra of zonal_spectrum")
    names = choose_names(variables, [str(name) for name in first.data_vars], "variables", "spectra")
    panels_of = []
    for name in names:
        levels = first[name][_level(first[name])].values if _level(first[name]) else [None]
        panels_of += [(name, level) for level in levels]
    if len(panels_of) > MAX_ROWS:
        raise ValueError(f"{len(panels_of)} panels are more than {MAX_ROWS}: choose with variables=[...]")
    columns = min(3, len(panels_of))
    lines = -(-len(panels_of) // columns)
    given = None if ax is None else check_axes(ax, len(panels_of), "one for each variable and level")
    width = 4.2 * columns if width is None else width
    size = font_size(3 * width / columns)
    figure = new_figure(width, lines * 0.78 * width / columns) if given is None else figure_of(given)
    for number, (name, level) in enumerate(panels_of):
        panel = figure.add_subplot(lines, columns, number + 1) if given is None else given[number]
        for (label, one), (color, _) in zip(several.items(), itertools.cycle(LINE_STYLES)):
            _draw_lines(panel, one, name, level, lead, label, color, is_ratio)
        field = first[name]
        text = name if is_ratio else display_name(field)
        panel.set_title(
            text if level is None else f"{text}, {coordinate_text(first, _level(field), level)}", fontsize=size
        )
        panel.set_xscale("log")
        if is_ratio:
            panel.axhline(1, color="0.6", linewidth=1, linestyle=":", zorder=0)
            panel.set_ylabel("Variance, forecast over truth", fontsize=size)
            panel.set_yscale("log")
            # where the truth has next to nothing, any noise is a hundred times that
            low, high = panel.get_ylim()
            panel.set_ylim(max(min(low, 0.5), 0.05), min(max(high, 2), 20))
            _mark_beyond(panel)
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        else:
            panel.set_yscale("log")
            units = re.sub(r"^\((\S+)\)2", r"\g<1>2", field.attrs.get("units", ""))  # (K)2 is K2
            panel.set_ylabel(f"Energy [{pretty_units(units.replace(')2', ')²'))}]", fontsize=size)
        panel.set_xlabel("Zonal wavenumber", fontsize=size)
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.tick_params(labelsize=0.9 * size)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=0.85 * size)
    return figure


def _level(array: xr.DataArray) -> str | None:
    known = ("zonal_wavenumber", "lead_time", "init_time", "time", "latitude", "lat")
    others = [str(dim) for dim in array.dims if dim not in known]
    if len(others) > 1:
        raise ValueError(f"{array.name} has the dimensions {others}: choose or average all but the level first")
    return others[0] if others else None


def _draw_lines(
    panel: Axes, spectra: xr.Dataset, name: str, level: object, lead: object, label: str, color: str, is_ratio: bool
) -> None:
    """Draw a line for each lead."""
    if name not in spectra:
        raise ValueError(f"{label!r} has no {name}, but {list(spectra.data_vars)}")
    values = spectra[name]
    if level is not None:
        values = values.sel({_level(values): level})
    latitude = next((dim for dim in ("latitude", "lat") if dim in values.dims), None)
    if latitude is not None:
        values = values.weighted(latitude_weights(spectra[latitude].rename({latitude: "latitude"})).rename(
            {"latitude": latitude})).mean(latitude)  # fmt: skip
    values = values.mean([dim for dim in ("init_time", "time") if dim in values.dims])
    # the zonal mean is no wave
    values = values.isel(zonal_wavenumber=slice(None) if is_ratio else slice(1, None))
    number = values["zonal_wavenumber"].values
    if "lead_time" not in values.dims:
        panel.plot(number, values.values, color=color if label else "black", linewidth=1.8, label=label or None)
        return
    count = values.sizes["lead_time"]
    if lead is None:
        lead = spectra["lead_time"].values[sorted({round(at) for at in np.linspace(0, count - 1, min(5, count))})]
    leads = choose_leads(spectra, lead)
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(leads)))
    for (at, text), shade in zip(leads, shades, strict=True):
        words = ", ".join([label] * bool(label) + [text])
        panel.plot(number, values.isel(lead_time=at).values, color=shade, linewidth=1.6, label=words)


def _mark_beyond(panel: Axes) -> None:
    """Draw a triangle at the edge of a panel where a line goes on beyond it."""
    low, high = panel.get_ylim()
    for line in list(panel.lines):
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        if len(x) < 3:  # the line at 1
            continue
        for marker, edge, beyond in (("v", low, y < low), ("^", high, y > high)):
            if not beyond.any():
                continue
            at = np.full(beyond.sum(), edge)
            (marks,) = panel.plot(x[beyond], at, marker, color=line.get_color(), markersize=4, clip_on=False, zorder=3)
            marks.set_in_layout(False)
