"""Forecasts and their skill on maps."""

import textwrap
from collections.abc import Sequence
from datetime import timedelta

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.figure import Figure

from simvp_climate.data.conventions import find_axes, rename
from simvp_climate.grid import latitude_weights
from simvp_climate.plot.choices import (
    at_points_of,
    check_same_units,
    choose_init,
    choose_leads,
    choose_names,
    choose_rows,
    date_text,
    field_at,
    time_values,
    values_of,
)
from simvp_climate.plot.geography import color_bar, colors_of, draw_cells, map_panels, symmetric_range
from simvp_climate.plot.style import (
    DIVERGING,
    MAX_ROWS,
    figure_of,
    font_size,
    given_panels,
    labeled,
    new_figure,
    units_of,
)


def maps(
    forecast: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None,
    init: object | None = None,
    level: float | Sequence[float] | None = None,
    projection: ccrs.Projection | None = None,
    title: str | None = None,
    width: float | None = None,
    ax: GeoAxes | Sequence[GeoAxes] | None = None,
) -> Figure:
    """Draw one forecast on maps, beside the truth at its valid time and the difference of the two.

    Parameters
    ----------
    forecast
        Dataset with dims (init_time, lead_time, [level,] latitude, longitude) and the coordinate
        `valid_time`. Horizontal names, order and longitude range are free, a region is as good as the
        globe. init_time and lead_time may be scalars, as after `forecast.isel(init_time=0)`.
    truth
        Dataset with one time dimension and the variables, levels and units of the forecast, on at least
        its grid points. Without it the forecast alone is drawn.
    variable
        A name or several; default all. Each variable, level and lead is one row of maps; without truth each is a map.
    lead
        "3D", "12h" or a timedelta; a number of months where lead_time counts months; or a list of these. Default the
        last.
    init
        A time such as "2018-03-01T12". Default the last one whose valid times the truth has.
    level
        A value of the level coordinate or several; default all.
    projection
        Of cartopy. Default Robinson centered on Greenwich for the globe, longitude-latitude for a region.
        A map of a pole: select the latitudes and give `cartopy.crs.NorthPolarStereo()`.
    title
        The line above all maps. Default the times of initialization and validity.
    width
        Of the figure in inches; default 12, and 7 for a single map. The text shrinks with it: 7 inches, a
        page of a journal, hold three maps as well.
    ax
        Maps of your own to draw into, as many as would be drawn, row by row:
        `plt.subplots(1, 3, subplot_kw={"projection": cartopy.crs.Robinson()})`. `projection` and `width` are theirs
        then.

    Returns
    -------
    Figure. Forecast and truth share one color scale, from percentile 1 to 99 of both together; around zero for winds
    and anomalies. The scale of the difference is symmetric about zero and reaches percentile 99 of its size. Above the
    difference stands its RMSE over the cells where both have values, weighted by area, in the units of the variable.

    Raises
    ------
    ValueError
        If a variable, level, lead or init is not there; if truth has nothing at the valid time, at a grid
        point or in the same units; if another dimension, such as members, has to be chosen first; if `ax` is not as
        many maps as are drawn.
    """
    axes = find_axes(forecast)
    rows = choose_rows(forecast, axes.level, variable, level)
    leads = choose_leads(forecast, lead)
    if len(rows) * len(leads) > MAX_ROWS:
        raise ValueError(
            f"{len(rows) * len(leads)} rows of maps are more than {MAX_ROWS}: choose with variable=..., level=... or "
            "lead=..."
        )
    if truth is None:
        init_index, valid, _ = choose_init(forecast, init, leads, None)
    else:
        names = list(dict.fromkeys(name for name, _ in rows))
        single = {
            d for n in names if n in truth for d in truth[n].dims if truth.sizes[d] == 1 and d not in forecast.dims
        }
        if not set(names) <= set(truth.data_vars) or single - {find_axes(truth).time}:
            try:
                truth = rename(truth, names)  # the file's own names and its one level are as good
            except ValueError as error:
                raise ValueError(f"truth: {error}") from error
        truth_axes = find_axes(truth)
        truth_times = time_values(truth, truth_axes.time)
        init_index, valid, truth_indices = choose_init(forecast, init, leads, truth_times)

    pictures = []
    for name, value in rows:
        for number, (lead_index, lead_text) in enumerate(leads):
            at = {"init_time": init_index, "lead_time": lead_index}
            predicted = field_at(forecast, name, axes, value, at, "forecast")
            observed = None
            if truth is not None:
                check_same_units(forecast, truth, name)
                time = {truth_axes.time: truth_indices[number]}
                observed = at_points_of(predicted, field_at(truth, name, truth_axes, value, time, "truth"))
            pictures.append((predicted, observed, lead_text))

    columns = 3 if truth is not None else min(3, len(pictures))
    lines = len(pictures) if truth is not None else -(-len(pictures) // columns)
    count = 3 * lines if truth is not None else len(pictures)
    given = (
        None if ax is None else given_panels(ax, count, "forecast, truth and difference" if columns == 3 else "maps")
    )
    if width is None:
        width = 12.0 if columns > 1 else 7.0
    figure = new_figure(width) if given is None else figure_of(given)
    size = font_size(3 * width / columns)
    panels = map_panels(figure, pictures[0][0], projection, (lines, columns), count, size, given)
    if given is None:
        height = 0.95 * width / columns * np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6)
        figure.set_size_inches(width, lines * (height + 0.1 * size) + 0.05 * size)

    for row, (predicted, observed, lead_text) in enumerate(pictures):
        label = textwrap.fill(labeled(predicted.attrs["what"], predicted), 60 if truth is not None else 40)
        if observed is None:
            colors, scale = colors_of(predicted)
            mesh = draw_cells(panels[row], predicted, scale, colors)
            panels[row].set_title(f"Forecast {lead_text}", fontsize=size)
            color_bar(figure, mesh, [panels[row]], label, (predicted,), size)
            continue
        three = panels[3 * row : 3 * row + 3]
        difference = predicted - observed
        colors, scale = colors_of(predicted, observed)
        mesh = draw_cells(three[0], predicted, scale, colors)
        draw_cells(three[1], observed, scale, colors)
        mesh_of_difference = draw_cells(three[2], difference, symmetric_range(difference), DIVERGING)
        three[0].set_title(f"Forecast {lead_text}", fontsize=size)
        three[1].set_title("Truth", fontsize=size)
        three[2].set_title(f"Forecast minus truth, RMSE {_rmse_text(difference, predicted)}", fontsize=size)
        color_bar(figure, mesh, three[:2], label, (predicted, observed), size)
        color_bar(figure, mesh_of_difference, three[2:], labeled("Difference", predicted), (difference,), size)

    if title is None and given is None:
        calendar = "%Y-%m" if "month" in leads[0][1] else "%Y-%m-%d %H:%M UTC"
        start = values_of(forecast, "init_time")[init_index]
        title = f"From {date_text(start, calendar)}, valid {' / '.join(date_text(one, calendar) for one in valid)}"
        title = textwrap.fill(title, int(12 * width))
    if title is not None:
        figure.suptitle(title, fontsize=1.15 * size)
    if given is None:
        # The layout of maps settles in two rounds; without this one the first drawing has titles upon titles.
        figure.get_layout_engine().execute(figure)
    return figure


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
    """Draw where a forecast is better than a baseline, with dots where that is more than chance.

    Parameters
    ----------
    skill
        As from `simvp_climate.skill_map`.
    variable, lead
        One or several; default all variables, at the last lead. A row of maps for each variable, a column for each
        lead.
    level
        A value of the level coordinate; needed where there are several.
    projection, title, width, ax
        As in `maps`.

    Returns
    -------
    Figure. Colors from -1 to 1, red where the baseline is better and blue where the forecast is; dots in cells that are
    significant, of every second row and column where there are more than 60 columns.

    Raises
    ------
    ValueError
        If a variable, lead or level is not there.
    """
    known = [str(name) for name in skill.data_vars if f"{name}_significant" in skill]
    if not known:
        raise ValueError(f"skill has {list(skill.data_vars)}: pass what simvp_climate.skill_map returns.")
    names = choose_names(variable, known, "variable", "skill")
    if "level" in skill.dims:
        levels = skill["level"].values
        if level is None and len(levels) > 1:
            raise ValueError(f"skill has the levels {levels}: choose one, level={levels[0]:g}.")
        level = levels[0] if level is None else level
        if level not in levels:
            raise ValueError(f"level {level} is not there: skill has {levels}.")
        skill = skill.sel(level=level)
    leads = choose_leads(skill, lead)
    shape = (len(names), len(leads))
    width = (12.0 if len(leads) > 1 else 7.0) if width is None else width
    given = None if ax is None else given_panels(ax, shape[0] * shape[1], "variables times leads")
    figure = new_figure(width) if given is None else figure_of(given)
    size = font_size(3 * width / max(shape[1], 2))
    axes = find_axes(skill)
    fields = [field_at(skill, name, axes, None, {"lead_time": index}, "skill") for name in names for index, _ in leads]
    panels = map_panels(figure, fields[0], projection, shape, len(fields), size, given)
    if given is None:
        height = 0.95 * width / shape[1] * np.clip(panels[0].get_data_ratio() * panels[0].get_aspect(), 0.15, 1.6)
        figure.set_size_inches(width, shape[0] * (height + 0.035 * size) + 0.12 * size)
    places = [(name, index, text) for name in names for index, text in leads]
    for panel, field, (name, index, text) in zip(panels, fields, places, strict=True):
        mesh = draw_cells(panel, field, (-1.0, 1.0), DIVERGING.removesuffix("_r"))  # blue: the forecast is better
        dots = field_at(skill, f"{name}_significant", axes, None, {"lead_time": index}, "skill")
        thinned = dots.isel({dim: slice(None, None, 2) for dim in dots.dims}) if dots.sizes["longitude"] > 60 else dots
        row, column = np.nonzero(thinned.values)
        panel.scatter(
            thinned["longitude"].values[column],
            thinned["latitude"].values[row],
            s=0.12 * size,
            color="0.1",
            linewidths=0,
            transform=ccrs.PlateCarree(),
        )
        panel.set_title(f"{name}, {text}", fontsize=size)
    color_bar(figure, mesh, panels, "Skill, 1 - MSE / MSE of the baseline", tuple(fields), size)
    if given is None or title is not None:
        figure.suptitle(skill.attrs.get("blocks", "") if title is None else title, fontsize=1.15 * size)
    if given is None:
        figure.get_layout_engine().execute(figure)
    return figure


def _rmse_text(difference: xr.DataArray, field: xr.DataArray) -> str:
    if not np.isfinite(difference).any():
        return "-"
    squares = (difference**2).weighted(latitude_weights(difference["latitude"])).mean()
    return f"{float(np.sqrt(squares)):.3g} {units_of(field)}".strip()
