"""Synthetic forecasts, scores and training curves to draw, and readers of drawn pixels."""

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.metrics.baselines.simple_persistence import persistence
from simvp_climate.metrics.score import score
from simvp_climate.metrics.uncertainty.bootstrap import Bootstrap

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb

HOT, MIDDLE = (tuple(matplotlib.colormaps["viridis"](x)[:3]) for x in (1.0, 0.5))


GRAY = to_rgb("0.85")


GLOBE = (np.linspace(-87.1875, 87.1875, 32), np.arange(64) * 5.625)


def analysis(lat, lon, values=None, *, steps=8, names=("latitude", "longitude")):
    """Six-hourly truth from 2018-01-01, the same field at all times, plus the number of the step."""
    lat, lon = np.asarray(lat, float), np.asarray(lon, float)
    if values is None:
        values = 280 + 20 * np.cos(np.deg2rad(lat))[:, None] + 5 * np.sin(np.deg2rad(lon))[None, :]
    time = np.datetime64("2018-01-01T00", "ns") + np.arange(steps) * np.timedelta64(6, "h")
    data = np.broadcast_to(values, (len(lat), len(lon))) + np.arange(steps)[:, None, None]
    return xr.Dataset(
        {"t2m": (("time", *names), data, {"units": "K", "long_name": "2 metre temperature"})},
        coords={
            "time": time,
            names[0]: (names[0], lat, {"units": "degrees_north"}),
            names[1]: (names[1], lon, {"units": "degrees_east"}),
        },
    )


def perfect_forecast(truth, *, inits=4, leads=3):
    """The truth itself, on (init_time, lead_time, ...)."""
    starts = truth["time"].values[:inits]
    ahead = np.arange(1, leads + 1) * np.timedelta64(6, "h")
    valid = xr.DataArray(
        starts[:, None] + ahead,
        dims=("init_time", "lead_time"),
        coords={"init_time": starts, "lead_time": ahead},
    )
    return truth.sel(time=valid).drop_vars("time").assign_coords(valid_time=valid)


def pixels(figure, dpi=100):
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255


def colors_at(figure, axes, lon, lat, dpi=100):
    """The colors of the picture at points of a map."""
    image = pixels(figure, dpi)
    x, y, _ = axes.projection.transform_points(ccrs.PlateCarree(), np.asarray(lon, float), np.asarray(lat, float)).T
    column, row = axes.transData.transform(np.stack([x, y], axis=-1)).astype(int).T
    return image[row, column]


def meshes(axes):
    return [artist for artist in axes.collections if isinstance(artist, QuadMesh)]


def near(color, expected):
    return np.abs(np.asarray(color) - expected).max(axis=-1) < 0.02


GRIDS = {
    "0..360": GLOBE,
    "-180..180, descending": (GLOBE[0][::-1], np.arange(-180, 180, 5.625)),
    "lat and lon, centers off the edge": (np.linspace(-90, 90, 37), np.arange(2.5, 360, 5)),
    "region, descending, across Greenwich": (np.arange(70, 29, -2.5), np.arange(-20, 106, 2.5)),
    "region across the date line": (np.arange(-30, 61, 2.5), np.arange(80, 252, 2.5)),
}


def some_scores(hours=12, leads=6):
    numbers = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 3, leads))
    numbers[:, 2, 1] = np.nan  # the climatology has no ACC
    dims = ("system", "metric", "lead_time")
    return xr.Dataset(
        {
            "z500": (dims, numbers[0], {"units": "m2 s-2", "long_name": "geopotential at 500 hPa"}),
            "t2m": (dims, numbers[1], {"units": "K"}),
        },
        coords={
            "system": ["persistence", "SimVPv2", "climatology"],
            "metric": ["rmse", "acc", "mae"],
            "lead_time": np.arange(1, leads + 1) * np.timedelta64(hours, "h"),
        },
    )


def curves(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def some_history(first=8.0, epochs=4):
    """Losses that halve every epoch, those of validation until the third one."""
    loss = first * 0.5 ** np.arange(epochs)
    valid = np.where(np.arange(epochs) < 3, 1.5 * loss, first)
    columns = {"learning_rate": 0 * loss, "loss": loss, "valid_loss": valid}
    columns |= {f"valid_rmse_{name}": 100 * valid for name in ("z500_6h", "z500_24h", "t2m")}
    table = pd.DataFrame(columns, index=pd.RangeIndex(1, epochs + 1, name="epoch"))
    table.attrs["units"] = {"valid_rmse_z500_6h": "m2 s-2", "valid_rmse_z500_24h": "m2 s-2"}
    return table


def rings(axes):
    """Where the kept epochs are marked."""
    found = [line for line in axes.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in found]


def noisy(steps=12):
    truth = analysis(*GLOBE, steps=steps)
    noise = np.random.default_rng(0).normal(size=truth.t2m.shape)
    return truth.assign(t2m=(truth.t2m + noise).assign_attrs(truth.t2m.attrs))


def own_axes(shape=(1, 1), projection=None):
    figure, panels = plt.subplots(*shape, subplot_kw={"projection": projection} if projection else {})
    plt.close(figure)
    return figure, panels


def scale_of(axes):
    return meshes(axes)[0].get_clim(), meshes(axes)[0].get_cmap().name


def with_noise(truth, size=1.0):
    random = np.random.default_rng(1)
    return truth.assign(t2m=(truth.t2m + size * random.normal(size=truth.t2m.shape)).assign_attrs(truth.t2m.attrs))


PACIFIC = (np.arange(-38, 10, 4.0), np.arange(140, 221, 5.0))


def skill_of_the_globe():
    latitude, longitude = GLOBE
    leads = np.array([24, 72], "m8[h]").astype("m8[ns]")
    values = np.broadcast_to(np.linspace(-1, 1, 64), (2, 32, 64)).copy()
    significant = np.zeros((2, 32, 64), bool)
    significant[1, :, :8] = True
    dims = ("lead_time", "latitude", "longitude")
    coordinates = {"lead_time": leads, "latitude": latitude, "longitude": longitude}
    variables = {
        "t2m": (dims, values, {"units": "1"}),
        "t2m_p": (dims, values),
        "t2m_significant": (dims, significant),
    }
    return xr.Dataset(variables, coordinates, {"blocks": "12 blocks of 5 initializations"})


def scores_with_intervals():
    times = pd.date_range("2001-01-01", periods=160, freq="6h", unit="ns")
    random = np.random.default_rng(0)
    truth = xr.Dataset(
        {
            "z500": (
                ("time", "latitude", "longitude"),
                random.normal(54000, 900, (160, 32, 64)),
                {"units": "m2 s-2"},
            )
        },
        {"time": times, "latitude": np.arange(-87.1875, 90, 5.625), "longitude": np.arange(0, 360, 5.625)},
    )
    leads = ["24h", "72h", "120h"]
    forecast = persistence(truth, times[:120:2], leads).assign_attrs(system="SimVPv2")
    forecast["z500"] = forecast.z500 * 0.5 + 27000
    return score(forecast, truth, metrics=["rmse", "rmse_skill"], bootstrap=Bootstrap(block=4))
