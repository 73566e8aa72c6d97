"""Forecasts and their skill on maps."""

import textwrap
from collections.abc import Sequence
from datetime import timedelta

import cartopy.crs as ccrs
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from simvp_climate.data.conventions import rename
from simvp_climate.data.grid import find_axes, latitude_weights
from simvp_climate.plot.colors import DIVERGING, check_colors, colors_of, diverging_of, symmetric_range
from simvp_climate.plot.map_axes import beyond_edge, check_projection, color_bar, draw_cells, fit_height, map_panels
from simvp_climate.plot.selection import (
    at_points_of,
    check_dataset,
    choose_init,
    choose_leads,
    choose_names,
    choose_rows,
    date_text,
    field_at,
    in_same_units,
    time_values,
    values_of,
)
from simvp_climate.plot.style import (
    MAX_ROWS,
    check_axes,
    figure_of,
    font_size,
    new_figure,
    refuse_settings_with_axes,
    units_of,
    with_units,
)


def maps(
    forecast: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    variable: str | Sequence[str] | None = None,
    lead: str | int | timedelta | np.timedelta64 | Sequence | None = None,
    init: object | None = None,
    level: float | Sequence[float] | None = None,
    cmap: str | Colormap | None = None,
    limits: tuple[float, float] | None = None,
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
    cmap
        A color map of matplotlib for forecast and truth, or its name. Default by what is drawn, see below.
    limits
        Smallest and largest value of their colors, in the units of the color bar; of a single variable and level.
    projection
        Of cartopy. Default Robinson centered on Greenwich for the globe, longitude-latitude for a region. Maps of a
        pole, `cartopy.crs.NorthPolarStereo()`, show what lies beyond 20 degrees of latitude, and their RMSE is of that.
    title
        The line above all maps. Default the times of initialization and validity; with `ax` these stand above each
        map.
    width
        Of the figure in inches; default 12, and 7 for a single map. The text shrinks with it: 7 inches, a
        page of a journal, hold three maps as well.
    ax
        Maps of your own to draw into, as many as would be drawn, row by row:
        `plt.subplots(1, 3, subplot_kw={"projection": cartopy.crs.Robinson()})`. `projection` and `width` are theirs
        then.

    Returns
    -------
    Figure. All maps of a variable and level share one color scale, forecasts and truths at all leads, from percentile 1
    to 99 of them together; it is around zero for winds and anomalies, and begins at zero, light, for precipitation.
    What was computed with its attributes kept, as in `forecast - climatology`, counts as an anomaly if its values are
    none that the variable can have. Precipitation in m is drawn in mm. The differences at all leads share a scale that
    is symmetric about zero and reaches percentile 99 of their size. Above each stands its RMSE over the cells where
    both have values, weighted by area, in the units of the color bar.

    Raises
    ------
    ValueError
        If `forecast` or `truth` is no Dataset; if a variable, level, lead or init is not there; if truth has nothing at
        the valid time, at a grid point or in the same units; if another dimension, such as members, has to be chosen
        first; if `ax` is not as many maps as are drawn, or comes with a width or a projection; if `limits` are given
        for several variables or levels.
    """
    check_dataset(forecast, "forecast")
    check_projection(projection)
    refuse_settings_with_axes(ax, width, projection)
    axes = find_axes(forecast)
    rows = choose_rows(forecast, axes.level, variable, level)
    leads = choose_leads(forecast, lead)
    if len(rows) * len(leads) > MAX_ROWS:
        raise ValueError(
            f"{len(rows) * len(leads)} rows of maps are more than {MAX_ROWS}: choose with variable=..., level=... or "
            "lead=..."
        )
    check_colors(cmap, limits, [name if value is None else f"{name} {value:g}" for name, value in rows])
    if truth is None:
        init_index, valid, _ = choose_init(forecast, init, leads, None)
    else:
        check_dataset(truth, "truth")
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

    on = projection if ax is None else getattr(np.asarray(ax, dtype=object).ravel()[0], "projection", None)
    groups = []  # of each variable and level, the fields at all leads
    for name, value in rows:
        predicted, observed = [], []
        if truth is not None and name in truth:
            forecast, truth = in_same_units(forecast, truth, name)
        for number, (lead_index, _) in enumerate(leads):
            at = {"init_time": init_index, "lead_time": lead_index}
            predicted.append(beyond_edge(field_at(forecast, name, axes, value, at, "forecast"), on))
            if truth is not None:
                time = {truth_axes.time: truth_indices[number]}
                observed.append(at_points_of(predicted[-1], field_at(truth, name, truth_axes, value, time, "truth")))
        groups.append((predicted, observed))

    each = 3 if truth is not None else 1  # maps of a picture
    total = each * len(groups) * len(leads)
    columns = 3 if truth is not None else min(3, total)
    lines = -(-total // columns)
    given = None if ax is None else check_axes(ax, total, "forecast, truth and difference" if each == 3 else "maps")
    if width is None:
        width = 12.0 if columns > 1 else 7.0
    figure = new_figure(width) if given is None else figure_of(given)
    size = font_size(3 * width / columns)
    panels = map_panels(figure, groups[0][0][0], projection, (lines, columns), total, size, given)

    calendar = "%Y-%m" if "month" in leads[0][1] else "%Y-%m-%d %H:%M UTC"
    start = date_text(values_of(forecast, "init_time")[init_index], calendar)
    ends = [date_text(one, calendar) for one in valid]
    dated = given is not None and title is None  # a figure of the user has a title of its own
    for number, (predicted, observed) in enumerate(groups):
        colors, scale = colors_of(*predicted, *observed, cmap=cmap, limits=limits)
        differences = [one - other for one, other in zip(predicted, observed, strict=False)]
        own = panels[each * len(leads) * number : each * len(leads) * (number + 1)]
        for row, (_, lead_text) in enumerate(leads):
            mesh = draw_cells(own[each * row], predicted[row], scale, colors)
            above = f"Forecast {lead_text}"
            if dated:
                above += f"\nfrom {start}" if observed else f"\nfrom {start}\nvalid {ends[row]}"
            own[each * row].set_title(above, fontsize=size)
            if observed:
                draw_cells(own[3 * row + 1], observed[row], scale, colors)
                own[3 * row + 1].set_title("Truth" + f"\n{ends[row]}" * dated, fontsize=size)
                limit, blue_red = symmetric_range(*differences), plt.get_cmap(diverging_of(predicted[0]))
                difference = draw_cells(own[3 * row + 2], differences[row], limit, blue_red)
                words = f"Forecast minus truth, RMSE {_rmse_text(differences[row], predicted[row])}"
                own[3 * row + 2].set_title(words, fontsize=size)
        called = next((one for one in predicted if one.attrs["anomaly"]), predicted[0])
        label = textwrap.fill(with_units(called.attrs["what"], called), 60 if observed else 40)
        if observed:
            both = [panel for at, panel in enumerate(own) if at % 3 < 2]
            color_bar(figure, mesh, both, label, [*predicted, *observed], size, 2)
            color_bar(figure, difference, own[2::3], with_units("Difference", called), differences, size, 1)
        elif len(groups) == 1:
            color_bar(figure, mesh, own, label, predicted, size, columns)
        else:
            for panel in own:
                color_bar(figure, mesh, [panel], label, predicted, size, 1)

    if title is None and given is None:
        title = textwrap.fill(f"From {start}, valid {' / '.join(ends)}", int(12 * width))
    if title is not None:
        figure.suptitle(title, fontsize=1.15 * size)
    if given is None:
        fit_height(figure, panels, lines)
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
    significant, of every second row and column where there are more than 60 columns. The title and the color bar say
    the baseline, the verified times and the number of blocks, as far as the attributes `baseline`, `verified_start`,
    `verified_end` and `blocks` of the skill do.

    Raises
    ------
    ValueError
        If a variable, lead or level is not there; if a level is given where there are none; or as in `maps`.
    """
    check_dataset(skill, "skill")
    check_projection(projection)
    refuse_settings_with_axes(ax, width, projection)
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
    elif level is not None:
        raise ValueError(f"level={level!r} was given, but {names} have no level dimension: leave it out.")
    leads = choose_leads(skill, lead)
    shape = (len(names), len(leads))
    width = (12.0 if len(leads) > 1 else 7.0) if width is None else width
    given = None if ax is None else check_axes(ax, shape[0] * shape[1], "variables times leads")
    figure = new_figure(width) if given is None else figure_of(given)
    size = font_size(3 * width / max(shape[1], 2))
    axes = find_axes(skill)
    on = projection if given is None else getattr(given[0], "projection", None)

    def field_of(name: str, index: int) -> xr.DataArray:
        return beyond_edge(field_at(skill, name, axes, None, {"lead_time": index}, "skill"), on)

    fields = [field_of(name, index) for name in names for index, _ in leads]
    panels = map_panels(figure, fields[0], projection, shape, len(fields), size, given)
    blue_is_better = plt.get_cmap(DIVERGING.removesuffix("_r"))
    places = [(name, index, text) for name in names for index, text in leads]
    for panel, field, (name, index, text) in zip(panels, fields, places, strict=True):
        mesh = draw_cells(panel, field, (-1.0, 1.0), blue_is_better)
        dots = field_of(f"{name}_significant", index)
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
    baseline = str(skill.attrs.get("baseline", "the baseline"))
    color_bar(figure, mesh, panels, f"Skill, 1 - MSE / MSE of {baseline}", fields, size, shape[1])
    if given is None or title is not None:
        figure.suptitle(
            textwrap.fill(_tested(skill.attrs) if title is None else title, int(12 * width)), fontsize=1.15 * size
        )
    if given is None:
        fit_height(figure, panels, shape[0])
    return figure


def _tested(attrs: dict) -> str:
    """Return what a skill map was computed of, as far as its attributes say it."""
    words = f"Against {attrs['baseline']}" if "baseline" in attrs else ""
    if {"verified_start", "verified_end"} <= set(attrs):
        first, last = (str(attrs[f"verified_{end}"])[:10] for end in ("start", "end"))
        words += (", " if words else "") + f"verified {first} to {last}"
    return ", ".join([words] * bool(words) + [str(attrs["blocks"])] * ("blocks" in attrs))


def _rmse_text(difference: xr.DataArray, field: xr.DataArray) -> str:
    if not np.isfinite(difference).any():
        return "-"
    squares = (difference**2).weighted(latitude_weights(difference["latitude"])).mean()
    return f"{float(np.sqrt(squares)):.3g} {units_of(field)}".strip()
