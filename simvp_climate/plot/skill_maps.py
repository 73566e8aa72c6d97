"""Draw maps of skill and its significance."""

import textwrap
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simvp_climate.plot import selection
from simvp_climate.plot.colors import DIVERGING
from simvp_climate.plot.map_axes import (
    LETTER_WIDTH,
    add_color_bar,
    create_maps,
    draw_cells,
    fit_height,
    shown_points,
    user_maps,
)
from simvp_climate.plot.style import figure_of, font_size

_MAX_DOT_COLUMNS = 60


def skill_map(
    skill: xr.Dataset, *, variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None, level: float | None = None,
    region: str | tuple[float, float, float, float] | None = None, units: Literal["1", "%"] = "1",
    projection: ccrs.Projection | None = None, title: str | None = None, width: float | None = None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
) -> Figure:  # fmt: skip
    """Draw where a forecast is better than a baseline, with dots where the skill is significant.

    Parameters
    ----------
    skill
        Output of `simvp_climate.metrics.skill_map`.
    variable, lead
        One or several; default all variables, at the last lead. Variables are rows of maps, leads are columns.
    level
        Required if there are several.
    units
        Of the skill: "1", or "%" as in scorecards.
    region, projection, title, width, ax
        As in `maps`.

    Returns
    -------
    Figure. Colors from -1 to 1 (100 %), red where the baseline is better and blue where the forecast is; dots in
    significant cells, with more than 60 columns in every second row and column. Title and color bar name the baseline,
    the verified times and the number of blocks, if the attributes of the skill do. ValueError if a variable, lead or
    level is missing; if a level is given but no variable has levels; if `units` are others; or as in `maps`.
    """
    if units not in ("1", "%"):
        raise ValueError(f"units={units!r} of the skill must be '1' or '%'.")
    source = selection.open_source(skill, "skill")
    available = [str(name) for name in skill.data_vars if f"{name}_significant" in skill]
    if not available:
        raise ValueError(f"skill has {list(skill.data_vars)}: pass the output of sc.metrics.skill_map.")
    names = selection.choose_names(variable, available, "variable", "skill")
    fields = selection.choose_fields(source, names, level)
    if len(fields) > len(names):
        name, value = next(field for field in fields if field[1] is not None)
        raise ValueError(f"skill has several levels of {name!r}, but one is drawn. Choose one: level={value}")
    leads = selection.choose_leads(skill, lead)
    columns, count = len(leads), len(names) * len(leads)
    panels = user_maps(ax, count, "variables times leads", projection, width)
    source = source.on_points(*shown_points(source.axes, region, projection, panels))
    width = (12.0 if columns > 1 else 7.0) if width is None else width
    panel_width = width / columns if panels is None else panels[0].bbox.width / figure_of(panels).dpi
    size = font_size(1.5 * panel_width * min(columns, 2))

    maps = [(name, value, position, text) for name, value in fields for position, text in leads]
    best = 1.0 if units == "1" else 100.0
    skills = [best * source.read(name, value, position) for name, value, position, _ in maps]
    figure, panels = create_maps(skills[0], (len(names), columns), count, projection, width, size, panels)
    scale = ScalarMappable(Normalize(-best, best), DIVERGING.removesuffix("_r"))  # blue is better
    for panel, field, (name, value, position, text) in zip(panels, skills, maps, strict=True):
        draw_cells(panel, field, scale)
        draw_dots(panel, field, source.read(f"{name}_significant", value, position), scale)
        panel.set_title(f"{name}, {text}", fontsize=size)
    baseline = skill.attrs.get("baseline", "the baseline")
    label = f"Skill{' [%]' if units == '%' else ''}, 1 - MSE / MSE of {baseline}"
    add_color_bar(figure, scale, panels, label, skills, size, columns, panel_width)
    if title is None and ax is None:
        title = _verification_text(skill.attrs)
    if title is not None:
        figure.suptitle(textwrap.fill(title, int(72 * width / (LETTER_WIDTH * 1.15 * size))), fontsize=1.15 * size)
    if ax is None:
        fit_height(figure, panels, len(names))
    return figure


def draw_dots(panel: GeoAxes, skill: xr.DataArray, significant: xr.DataArray, scale: ScalarMappable) -> None:
    """Draw a dot in each significant cell, on fine grids of every second row and column; light ones on dark cells."""
    if significant.sizes["longitude"] > _MAX_DOT_COLUMNS:
        thinned = dict.fromkeys(("latitude", "longitude"), slice(None, None, 2))
        skill, significant = skill.isel(thinned), significant.isel(thinned)
    row, column = np.nonzero(significant.values)
    longitude, latitude = significant["longitude"].values[column], significant["latitude"].values[row]
    colors = np.where(np.abs(scale.norm(skill.values[row, column]) - 0.5) > 0.3, "0.95", "0.1")
    cell = 72 * panel.bbox.width / figure_of([panel]).dpi / significant.sizes["longitude"]  # width in points
    panel.scatter(
        longitude, latitude, s=min(0.02 * cell**2, 12), color=colors, linewidths=0, transform=ccrs.PlateCarree()
    )


def _verification_text(attrs: dict) -> str:
    """Return the baseline, the verified times and the blocks that the attributes of skill name."""
    parts = [f"Against {attrs['baseline']}"] if "baseline" in attrs else []
    if "verified_start" in attrs and "verified_end" in attrs:
        parts.append(f"verified {attrs['verified_start']!s:.10} to {attrs['verified_end']!s:.10}")
    return ", ".join([*parts, *([str(attrs["blocks"])] if "blocks" in attrs else [])])
