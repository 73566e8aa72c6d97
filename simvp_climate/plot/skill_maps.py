"""Draw skill against a baseline on maps."""

import textwrap
from collections.abc import Sequence
from datetime import timedelta

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from simvp_climate.plot.colors import DIVERGING
from simvp_climate.plot.map_axes import (
    add_color_bar,
    check_projection,
    create_maps,
    draw_cells,
    fit_height,
    shown_latitudes,
    user_maps,
)
from simvp_climate.plot.selection import choose_fields, choose_leads, choose_names, open_source
from simvp_climate.plot.style import font_size, refuse_settings_with_axes

_MAX_DOT_COLUMNS = 60


def skill_map(
    skill: xr.Dataset,
    *,
    variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None,
    level: float | None = None,
    projection: ccrs.Projection | None = None,
    title: str | None = None,
    width: float | None = None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
) -> Figure:
    """Draw where a forecast is better than a baseline, with dots where the skill is significant.

    Parameters
    ----------
    skill
        Output of `simvp_climate.metrics.skill_map`.
    variable, lead
        One or several; default all variables, at the last lead. A row of maps for each variable, a column for each
        lead.
    level
        A value of the level coordinate; required if there are several.
    projection, title, width, ax
        As in `maps`.

    Returns
    -------
    Figure. Colors from -1 to 1, red where the baseline is better and blue where the forecast is; dots in cells that are
    significant, in every second row and column if there are more than 60 columns. Title and color bar name the
    baseline, the verified times and the number of blocks, as far as the attributes `baseline`, `verified_start`,
    `verified_end` and `blocks` of the skill do.

    Raises
    ------
    ValueError
        If a variable, lead or level is missing; if a level is given but no variable has levels; or as in `maps`.
    """
    check_projection(projection)
    refuse_settings_with_axes(ax, width, projection)
    source = open_source(skill, "skill")
    available = [str(name) for name in skill.data_vars if f"{name}_significant" in skill]
    if not available:
        raise ValueError(f"skill has {list(skill.data_vars)}: pass the output of sc.metrics.skill_map.")
    names = choose_names(variable, available, "variable", "skill")
    fields = choose_fields(source, names, level)
    if len(fields) > len(names):
        name, value = next(field for field in fields if field[1] is not None)
        raise ValueError(f"skill has several levels of {name!r}, but one is drawn. Choose one: level={value}")
    leads = choose_leads(skill, lead)
    shape = (len(names), len(leads))
    panels = user_maps(ax, len(names) * len(leads), "variables times leads")
    latitudes = shown_latitudes(source.axes.rows.values, projection if panels is None else panels[0].projection)
    if width is None:
        width = 12.0 if len(leads) > 1 else 7.0
    size = font_size(3 * width / max(len(leads), 2))

    def read(name: str, level: float | None, position: int) -> xr.DataArray:
        return source.read(name, level, {"lead_time": position}).sel(latitude=latitudes)

    skills = [read(*field, position) for field in fields for position, _ in leads]
    dots = [read(f"{name}_significant", value, position) for name, value in fields for position, _ in leads]
    titles = [f"{name}, {text}" for name in names for _, text in leads]
    figure, panels = create_maps(
        skills[0], shape, len(skills), projection=projection, width=width, size=size, panels=panels
    )
    scale = ScalarMappable(Normalize(-1.0, 1.0), DIVERGING.removesuffix("_r"))  # blue is better
    for panel, field, significant, panel_title in zip(panels, skills, dots, titles, strict=True):
        draw_cells(panel, field, scale)
        _draw_dots(panel, significant, 0.12 * size)
        panel.set_title(panel_title, fontsize=size)
    baseline = skill.attrs.get("baseline", "the baseline")
    add_color_bar(figure, scale, panels, f"Skill, 1 - MSE / MSE of {baseline}", skills, size, len(leads))
    if title is None and ax is None:
        title = _verification_text(skill.attrs)
    if title is not None:
        figure.suptitle(textwrap.fill(title, int(12 * width)), fontsize=1.15 * size)
    if ax is None:
        fit_height(figure, panels, len(names))
    return figure


def _draw_dots(panel: GeoAxes, significant: xr.DataArray, size: float) -> None:
    """Draw a dot in each significant cell, on fine grids of every second row and column."""
    if significant.sizes["longitude"] > _MAX_DOT_COLUMNS:
        significant = significant.isel(latitude=slice(None, None, 2), longitude=slice(None, None, 2))
    row, column = np.nonzero(significant.values)
    longitude, latitude = significant["longitude"].values[column], significant["latitude"].values[row]
    panel.scatter(longitude, latitude, s=size, color="0.1", linewidths=0, transform=ccrs.PlateCarree())


def _verification_text(attrs: dict) -> str:
    """Return the baseline, the verified times and the blocks that the attributes of skill name."""
    parts = []
    if "baseline" in attrs:
        parts.append(f"Against {attrs['baseline']}")
    if "verified_start" in attrs and "verified_end" in attrs:
        parts.append(f"verified {str(attrs['verified_start'])[:10]} to {str(attrs['verified_end'])[:10]}")
    if "blocks" in attrs:
        parts.append(str(attrs["blocks"]))
    return ", ".join(parts)
