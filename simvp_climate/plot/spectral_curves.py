"""Spectra as curves over zonal wavenumber: the smoothness of forecasts."""

import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simvp_climate.data.grid import latitude_weights
from simvp_climate.plot import style
from simvp_climate.plot.curve_panels import curve_panels
from simvp_climate.plot.selection import choose_leads, choose_names


def spectra(
    spectra: xr.Dataset | Mapping[str, xr.Dataset], *, variables: str | Sequence[str] | None = None,
    lead: str | timedelta | np.timedelta64 | Sequence | None = None, width: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:  # fmt: skip
    """Draw spectra over the zonal wavenumber on logarithmic axes, with a panel for each variable and level.

    Parameters
    ----------
    spectra
        From `variance_by_wavenumber`: the variance of a forecast over that of the truth, with a line for each lead. Or
        several spectra from `zonal_spectrum` by name, `{"forecast": zonal_spectrum(forecast), "truth":
        zonal_spectrum(ds)}`, with a line for each and for each lead of a forecast.
    variables
        One name or several; default all.
    lead
        One lead or several; default up to five, evenly spaced, including the last.
    width, ax
        As in `scores`; default 4.2 inches for each column of panels.

    Returns
    -------
    Figure. Ratios are shown from 0.05 to 20; triangles at the edge mark values outside. Spectra are averaged over
    times, and over latitudes by area. ValueError if a spectrum has no zonal wavenumber, or a variable or lead is
    missing.
    """
    by_name = dict(spectra) if isinstance(spectra, Mapping) and not isinstance(spectra, xr.Dataset) else {"": spectra}
    is_ratio = _check_spectra(by_name)
    first = next(iter(by_name.values()))
    fields = _fields(first, choose_names(variables, [str(name) for name in first.data_vars], "variables", "spectra"))

    contents = "one for each variable and level"
    panels = curve_panels(ax, width, len(fields), contents, aspect=0.78)
    size = panels.size
    for panel, (name, level) in zip(panels.axes, fields, strict=True):
        for (label, dataset), (color, _) in zip(by_name.items(), itertools.cycle(style.LINE_STYLES)):
            _draw_lines(panel, dataset, name, level, lead, label, color, is_ratio)
        title = name if is_ratio else style.display_name(first[name])
        if level is not None:
            title += f", {style.coordinate_text(first, _level_dim(first[name]), level)}"
        panel.set_xscale("log")
        panel.set_yscale("log")
        y_label = "Variance, forecast over truth"
        if is_ratio:
            _finish_ratios(panel)
        else:
            units = re.sub(r"^\((\S+)\)2", r"\g<1>2", first[name].attrs.get("units", ""))  # (K)2 becomes K2
            y_label = f"Energy [{style.pretty_units(units.replace(')2', ')²'))}]"
        style.label_log_axis(panel.xaxis)
        style.label_panel(panel, title, "Zonal wavenumber", y_label, size)
        panel.legend(frameon=False, fontsize=0.85 * size)
    return panels.figure


def _check_spectra(by_name: Mapping[str, object]) -> bool:
    """Return whether the spectra are ratios of variances; ValueError if they cannot be drawn together."""
    if not by_name:
        raise ValueError("spectra={} is empty: pass {'forecast': zonal_spectrum(forecast)}.")
    for spectrum in by_name.values():
        if not isinstance(spectrum, xr.Dataset) or "zonal_wavenumber" not in spectrum.dims:
            content = tuple(spectrum.dims) if isinstance(spectrum, xr.Dataset) else type(spectrum).__name__
            fix = "pass the result of variance_by_wavenumber, or results of zonal_spectrum by name"
            raise ValueError(f"spectra has {content}, no zonal_wavenumber: {fix}.")
    is_ratio = "frequency" not in next(iter(by_name.values())).coords
    if is_ratio and len(by_name) > 1:
        raise ValueError(f"spectra has {len(by_name)} ratios of variances: pass one, or results of zonal_spectrum.")
    return is_ratio


def _fields(spectra: xr.Dataset, names: list[str]) -> list[tuple[str, object]]:
    """Return the variable and level of each panel; the level is None if the variable has none."""
    dims = {name: _level_dim(spectra[name]) for name in names}
    fields = [(name, level) for name, dim in dims.items() for level in (spectra[name][dim].values if dim else [None])]
    if len(fields) > style.MAX_ROWS:
        raise ValueError(f"{len(fields)} panels are more than {style.MAX_ROWS}: select with variables=[...].")
    return fields


def _level_dim(array: xr.DataArray) -> str | None:
    """Return the dimension of the levels, None if there is none."""
    known = ("zonal_wavenumber", "lead_time", "init_time", "time", "latitude", "lat")
    others = [str(dim) for dim in array.dims if dim not in known]
    if len(others) > 1:
        raise ValueError(f"{array.name} has dimensions {others}: select or average all but the level.")
    return others[0] if others else None


def _draw_lines(
    panel: Axes, spectra: xr.Dataset, name: str, level: object, lead: object, label: str, color: str, is_ratio: bool
) -> None:
    """Draw the spectrum of a variable and level, a line for each lead."""
    if name not in spectra:
        raise ValueError(f"{label!r} has no {name}: it has {list(spectra.data_vars)}.")
    values = _mean_spectrum(spectra[name] if level is None else spectra[name].sel({_level_dim(spectra[name]): level}))
    if not is_ratio:
        values = values.isel(zonal_wavenumber=slice(1, None))  # wavenumber 0 is the zonal mean
    wavenumber = values["zonal_wavenumber"].values
    if "lead_time" not in values.dims:
        panel.plot(wavenumber, values.values, color=color if label else "black", linewidth=1.8, label=label or None)
        return
    count = values.sizes["lead_time"]
    if lead is None:
        lead = spectra["lead_time"].values[sorted({round(x) for x in np.linspace(0, count - 1, min(5, count))})]
    leads = choose_leads(spectra, lead)
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(leads)))
    for (index, text), shade in zip(leads, shades, strict=True):
        line_label = f"{label}, {text}" if label else text
        panel.plot(wavenumber, values.isel(lead_time=index).values, color=shade, linewidth=1.6, label=line_label)


def _mean_spectrum(values: xr.DataArray) -> xr.DataArray:
    """Return the mean over times, and over latitudes weighted by area."""
    if latitude := next((dim for dim in ("latitude", "lat") if dim in values.dims), None):
        weights = latitude_weights(values[latitude].rename({latitude: "latitude"})).rename({"latitude": latitude})
        values = values.weighted(weights).mean(latitude, keep_attrs=True)
    return values.mean([dim for dim in ("init_time", "time") if dim in values.dims], keep_attrs=True)


def _finish_ratios(panel: Axes) -> None:
    """Draw the line at 1 and limit the axis; triangles at the edge mark the values outside."""
    lines = list(panel.lines)
    panel.axhline(1, color="0.6", linewidth=1, linestyle=":", zorder=0)
    low, high = panel.get_ylim()
    # Where the variance of the truth is almost zero, the ratio of noise to it is very large.
    low, high = max(min(low, 0.5), 0.05), min(max(high, 2), 20)
    panel.set_ylim(low, high)
    for line in lines:
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        for marker, edge, outside in (("v", low, y < low), ("^", high, y > high)):
            if outside.any():
                options = dict(color=line.get_color(), markersize=4, clip_on=False, zorder=3)
                (triangles,) = panel.plot(x[outside], np.full(outside.sum(), edge), marker, **options)
                triangles.set_in_layout(False)
    style.label_log_axis(panel.yaxis)
