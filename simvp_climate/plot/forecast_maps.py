"""Draw forecasts on maps, beside truth and difference."""

import textwrap
from collections.abc import Sequence
from datetime import timedelta

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from simvp_climate.data.grid import latitude_weights
from simvp_climate.plot.colors import check_colors, difference_scale, value_scale
from simvp_climate.plot.map_axes import (
    add_color_bar,
    check_projection,
    create_maps,
    draw_cells,
    fit_height,
    shown_latitudes,
    user_maps,
)
from simvp_climate.plot.selection import ForecastSelection, choose_fields, choose_leads, open_source, select_forecast
from simvp_climate.plot.style import MAX_ROWS, font_size, refuse_settings_with_axes, units_of, with_units


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
    """Draw one forecast on maps, beside the truth at its valid time and their difference.

    Parameters
    ----------
    forecast
        Dataset with dims (init_time, lead_time, [level,] latitude, longitude) and the coordinate `valid_time`.
        Horizontal names, order and longitude range are free; a region works like the globe. init_time and lead_time
        may be scalars, as after `forecast.isel(init_time=0)`.
    truth
        Dataset with one time dimension and the variables, levels and units of the forecast, on at least its grid
        points. None draws the forecast alone.
    variable
        A name or several; default all. Each variable, level and lead is one row of maps; without truth, one map.
    lead
        "3D", "12h" or a timedelta; a number of months where lead_time counts months; or a list of these. Default the
        last.
    init
        A time such as "2018-03-01T12". Default the last one whose valid times the truth has.
    level
        A value of the level coordinate or several; default all.
    cmap
        A matplotlib color map for forecast and truth, or its name. The default depends on the variable, see below.
    limits
        Smallest and largest value of the colors, in the units of the color bar; for a single variable and level.
    projection
        A cartopy projection. Default Robinson centered on Greenwich for the globe, longitude-latitude for a region.
        Maps of a pole, such as `cartopy.crs.NorthPolarStereo()`, show latitudes poleward of 20 degrees, and their RMSE
        covers these.
    title
        The line above all maps. Default the times of initialization and validity; with `ax` these stand above each
        map.
    width
        Of the figure in inches; default 12, and 7 for a single map. Text shrinks with it: three maps still fit 7
        inches, a journal's page.
    ax
        Maps to draw into, as many as are drawn, row by row:
        `plt.subplots(1, 3, subplot_kw={"projection": cartopy.crs.Robinson()})`. They exclude `projection` and `width`.

    Returns
    -------
    Figure. All maps of a variable and level share one color scale, forecasts and truths at all leads, from percentile 1
    to 99 of their values; it is centered on zero for winds and anomalies, and starts at zero, light, for precipitation.
    Data computed with attributes kept, as in `forecast - climatology`, count as an anomaly if the variable cannot have
    their values. Precipitation in m is drawn in mm. The differences at all leads share a scale that is symmetric about
    zero and reaches percentile 99 of their absolute values. The RMSE above each is area-weighted, over the cells where
    both have values, in the units of the color bar.

    Raises
    ------
    ValueError
        If `forecast` or `truth` is no Dataset; if a variable, level, lead or init is missing; if truth lacks the valid
        time or a grid point, or has other units; if another dimension, such as members, must be selected first; if
        `ax` has another count of maps, or comes with a width or a projection; if `limits` come with several variables
        or levels.
    """
    check_projection(projection)
    refuse_settings_with_axes(ax, width, projection)
    source = open_source(forecast, "forecast")
    fields = choose_fields(source, variable, level)
    leads = choose_leads(forecast, lead)
    if len(fields) * len(leads) > MAX_ROWS:
        raise ValueError(
            f"{len(fields) * len(leads)} rows of maps are more than {MAX_ROWS}. Choose with variable=..., level=... or "
            "lead=..."
        )
    check_colors(cmap, limits, [name if value is None else f"{name} {value}" for name, value in fields])
    count = len(fields) * len(leads) * (1 if truth is None else 3)
    columns = min(3, count)
    panels = user_maps(ax, count, "maps" if truth is None else "forecast, truth and difference")
    latitudes = shown_latitudes(source.axes.rows.values, projection if panels is None else panels[0].projection)
    names = list(dict.fromkeys(name for name, _ in fields))
    selection = select_forecast(source, truth, names, leads, init, latitudes)
    groups = [_read_group(selection, name, value) for name, value in fields]

    if width is None:
        width = 12.0 if columns > 1 else 7.0
    size = font_size(3 * width / columns)
    shape = (-(-count // columns), columns)
    figure, panels = create_maps(
        groups[0][0][0], shape, count, projection=projection, width=width, size=size, panels=panels
    )
    dated = ax is not None and title is None  # a figure of the user keeps its own title
    for index, rows in enumerate(groups):
        group_panels = panels[index * count // len(groups) : (index + 1) * count // len(groups)]
        scale = value_scale(*(field for row in rows for field in row[:2]), cmap=cmap, limits=limits)
        _write_titles(group_panels, rows, selection, dated, size)
        if truth is not None:
            _draw_comparisons(figure, group_panels, rows, scale, size)
        else:
            _draw_forecasts(figure, group_panels, rows, scale, columns if len(groups) == 1 else 1, size)
    if title is None and ax is None:
        title = f"From {selection.start_text}, valid {' / '.join(selection.valid_texts)}"
        title = textwrap.fill(title, int(12 * width))
    if title is not None:
        figure.suptitle(title, fontsize=1.15 * size)
    if ax is None:
        fit_height(figure, panels, shape[0])
    return figure


def _read_group(selection: ForecastSelection, name: str, level: float | None) -> list[list[xr.DataArray]]:
    """Return a row of fields for each lead: the forecast, and with a truth also the truth and the difference."""
    rows = [selection.read_maps(name, level, index) for index in range(len(selection.leads))]
    for row in rows:
        if selection.truth is not None:
            row.append((row[0] - row[1]).assign_attrs(row[0].attrs))
    return rows


def _write_titles(
    panels: list[GeoAxes], rows: list[list[xr.DataArray]], selection: ForecastSelection, dated: bool, size: float
) -> None:
    """Write the titles of maps, with their dates if no title of the figure states them."""
    titles = []
    for row, (_, lead), valid in zip(rows, selection.leads, selection.valid_texts, strict=True):
        above = f"Forecast {lead}" + (f"\nfrom {selection.start_text}" if dated else "")
        if selection.truth is None:
            titles.append(above + (f"\nvalid {valid}" if dated else ""))
        else:
            titles += [
                above,
                f"Truth\n{valid}" if dated else "Truth",
                f"Forecast minus truth, RMSE {_rmse_text(row[2])}",
            ]
    for panel, text in zip(panels, titles, strict=True):
        panel.set_title(text, fontsize=size)


def _draw_forecasts(
    figure: Figure,
    panels: list[GeoAxes],
    rows: list[list[xr.DataArray]],
    scale: ScalarMappable,
    columns: int,
    size: float,
) -> None:
    """Draw a map for each lead, with one color bar over several columns or one for each map."""
    forecasts = [row[0] for row in rows]
    for panel, forecast in zip(panels, forecasts, strict=True):
        draw_cells(panel, forecast, scale)
    label = textwrap.fill(_value_label(forecasts), 40)
    for bar_panels in [panels] if columns > 1 else [[panel] for panel in panels]:
        add_color_bar(figure, scale, bar_panels, label, forecasts, size, columns)


def _draw_comparisons(
    figure: Figure, panels: list[GeoAxes], rows: list[list[xr.DataArray]], scale: ScalarMappable, size: float
) -> None:
    """Draw forecast, truth and difference for each lead, with a color bar for values and one for differences."""
    differences = [row[2] for row in rows]
    scales = [scale, scale, difference_scale(*differences)]
    for index, panel in enumerate(panels):
        draw_cells(panel, rows[index // 3][index % 3], scales[index % 3])
    label = textwrap.fill(_value_label([row[0] for row in rows]), 60)
    value_panels = [panel for index, panel in enumerate(panels) if index % 3 < 2]
    add_color_bar(figure, scale, value_panels, label, [field for row in rows for field in row[:2]], size, 2)
    add_color_bar(figure, scales[2], panels[2::3], with_units("Difference", differences[0]), differences, size, 1)


def _value_label(forecasts: list[xr.DataArray]) -> str:
    """Return the label of the values at all leads: an anomaly if one of them is."""
    field = next((field for field in forecasts if field.attrs["anomaly"]), forecasts[0])
    return with_units(field.attrs["label"], field)


def _rmse_text(difference: xr.DataArray) -> str:
    """Return the area-weighted RMSE with its units, "-" where no cell has a difference."""
    if not np.isfinite(difference).any():
        return "-"
    squares = (difference**2).weighted(latitude_weights(difference["latitude"])).mean()
    return f"{float(np.sqrt(squares)):.3g} {units_of(difference)}".strip()
