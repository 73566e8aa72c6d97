"""Make the bundled sample: a simulated climate on WeatherBench's 5.625 degree grid, every six hours.

The atmosphere is computed by JCM, a JAX version of the SPEEDY general circulation model. Nothing is
downloaded: the model's boundary conditions come with its package. Install it in an environment of its own,
since it pins jax:

    pip install "simvp-climate[simulate]"
    python tools/make_sample.py sample.zarr --years 3.333 --start 2001-01-01 --spinup-days 244

With --recipes also what the recipes forecast: temperature at 850 hPa, wind at 10 m, humidity, cloud and precipitation.
"""

import argparse
import lzma
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # has to be set before jax is imported

import jcm
import numcodecs
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from jcm import Model
from jcm.diffusion import DiffusionFilter
from jcm.dycore.dinosaur.dycore import DinosaurDycore
from jcm.forcing import ForcingData
from jcm.physics.speedy.speedy_coords import get_speedy_coords
from jcm.physics.speedy.speedy_terms import speedy_physics
from jcm.terrain import TerrainData
from scipy.interpolate import CubicSpline

GRAVITY = 9.80665  # m s-2
GAS_CONSTANT = 287.05  # of dry air, J kg-1 K-1
REFERENCE_PRESSURE = 1e5  # Pa; the model divides its surface pressure by it
LATITUDE = np.linspace(-87.1875, 87.1875, 32)
LONGITUDE = np.linspace(0, 354.375, 64)

TRUNCATION = 21  # T21: its Gaussian grid has WeatherBench's 64 longitudes, so only latitude is interpolated
STEP_SECONDS = 45 * 60
HOUR = 3600.0
BLOCK_DAYS = 61  # length of one call of the model; all calls are alike, so that it is compiled once
STEPS_PER_DAY = 4
STEPS_PER_CHUNK = 304
EPOCH = "2001-01-01 00:00:00"
# What is left after the filters is nearly noise: it repeats nothing, so that a small dictionary is best
COMPRESSOR = numcodecs.LZMA(
    format=lzma.FORMAT_RAW,
    filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0, "dict_size": 4096}],
)


@dataclass(frozen=True)
class Variable:
    """One variable of the sample: how to find it in the model's output, and how to store it."""

    field: Callable[[xr.Dataset], np.ndarray]  # the model's output -> (time, longitude, latitude)
    attributes: dict[str, str]
    step: float  # values are rounded to multiples of it, counted from `offset`
    offset: float
    limits: tuple[float, float] = (-np.inf, np.inf)  # the spline in latitude may overshoot them
    beyond_pole: float = 1.0  # a component of a vector changes its sign there


def geopotential_at(pressure: float) -> Callable[[xr.Dataset], np.ndarray]:
    """Return the function that interpolates the model's geopotential to one pressure in Pa."""

    def field(output: xr.Dataset) -> np.ndarray:
        columns = output.isel(level=np.argsort(output.level.values)).transpose("level", ...)
        surface = REFERENCE_PRESSURE * columns["normalized_surface_pressure"].values
        log_pressure = np.log(columns.level.values.reshape(-1, 1, 1, 1) * surface)
        vapor = np.maximum(columns["specific_humidity"].values, 0)
        virtual = columns["temperature"].values * (1 + 0.608 * vapor)
        return hydrostatic(np.log(pressure), log_pressure, columns["geopotential"].values, virtual)

    return field


def hydrostatic(target: float, log_pressure: np.ndarray, geopotential: np.ndarray, virtual: np.ndarray) -> np.ndarray:
    """Interpolate geopotential along the first axis (downward) to the logarithm of a pressure.

    The hydrostatic equation gives the slope at each level, d(geopotential) / d(log pressure) = -R T_virtual.
    A cubic through two levels with those slopes follows the temperature between them, which linear
    interpolation does not. Below the lowest level the column goes on with the slope there.
    """
    above = np.clip((log_pressure < target).sum(0) - 1, 0, len(log_pressure) - 2)[None]

    def ends(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.take_along_axis(values, above, 0)[0], np.take_along_axis(values, above + 1, 0)[0]

    (top, bottom), (high, low) = ends(log_pressure), ends(geopotential)
    thickness = bottom - top
    slope_high, slope_low = (-GAS_CONSTANT * thickness * temperature for temperature in ends(virtual))
    x = np.clip((target - top) / thickness, 0, 1)
    cubic = ((1 + 2 * x) * high + x * slope_high) * (1 - x) ** 2
    cubic += ((3 - 2 * x) * low - (1 - x) * slope_low) * x**2
    return cubic - GAS_CONSTANT * ends(virtual)[1] * np.maximum(target - bottom, 0)


VARIABLES = {
    "geopotential_500": Variable(
        geopotential_at(500e2),
        {"standard_name": "geopotential", "long_name": "geopotential at 500 hPa", "units": "m2 s-2"},
        step=4.0,
        offset=54000.0,
    ),
    "2m_temperature": Variable(
        lambda output: output["surface_flux.t0"].values,
        {"standard_name": "air_temperature", "long_name": "temperature at 2 m", "units": "K"},
        step=1 / 32,
        offset=273.0,
    ),
}


def temperature_at(pressure: float) -> Callable[[xr.Dataset], np.ndarray]:
    """Return the function that interpolates temperature to a pressure in Pa, linearly in its logarithm."""

    def field(output: xr.Dataset) -> np.ndarray:
        columns = output.isel(level=np.argsort(output.level.values)).transpose("level", ...)
        surface = REFERENCE_PRESSURE * columns["normalized_surface_pressure"].values
        log_pressure = np.log(columns.level.values.reshape(-1, 1, 1, 1) * surface)
        temperature, target = columns["temperature"].values, np.log(pressure)
        above = np.clip((log_pressure < target).sum(0) - 1, 0, len(log_pressure) - 2)[None]
        top, bottom = (np.take_along_axis(log_pressure, above + at, 0)[0] for at in (0, 1))
        high, low = (np.take_along_axis(temperature, above + at, 0)[0] for at in (0, 1))
        return high + np.clip((target - top) / (bottom - top), 0, 1) * (low - high)

    return field


# rain of the model is a rate at the time of the state, g m-2 s-1: over six hours, as a depth of water in m
SIX_HOURS_OF_WATER = 6 * HOUR * 1e-3 / 1000
FOR_RECIPES = {
    "temperature_850": Variable(
        temperature_at(850e2),
        {"standard_name": "air_temperature", "long_name": "temperature at 850 hPa", "units": "K"},
        step=1 / 32,
        offset=273.0,
    ),
    "10m_u_component_of_wind": Variable(
        lambda output: output["surface_flux.u0"].values,
        {"standard_name": "eastward_wind", "long_name": "eastward wind near the surface", "units": "m s-1"},
        step=1 / 64,
        offset=0.0,
        beyond_pole=-1.0,
    ),
    "10m_v_component_of_wind": Variable(
        lambda output: output["surface_flux.v0"].values,
        {"standard_name": "northward_wind", "long_name": "northward wind near the surface", "units": "m s-1"},
        step=1 / 64,
        offset=0.0,
        beyond_pole=-1.0,
    ),
    "relative_humidity_1000": Variable(
        lambda output: 100 * output["humidity.rh"].isel(level=int(np.argmax(output.level.values))).values,
        {
            "standard_name": "relative_humidity",
            "long_name": "relative humidity of the lowest layer of the model, at most 100 %, in the place of 1000 hPa",
            "units": "%",
        },
        step=1 / 8,
        offset=50.0,
        limits=(0.0, 100.0),  # over ice the model goes far beyond
    ),
    "total_cloud_cover": Variable(
        lambda output: output["shortwave_rad.cloudc"].values,
        {"standard_name": "cloud_area_fraction", "long_name": "total cloud cover", "units": "1"},
        step=1 / 512,
        offset=0.5,
        limits=(0.0, 1.0),
    ),
    "total_precipitation_6hr": Variable(
        lambda output: SIX_HOURS_OF_WATER * (output["condensation.precls"] + output["convection.precnv"]).values,
        {
            "standard_name": "lwe_thickness_of_precipitation_amount",
            "long_name": "precipitation of six hours, by the rate at their end",
            "units": "m",
        },
        step=2e-5,
        offset=0.0,
        limits=(0.0, 0.15),
    ),
}
ATTRIBUTES = {name: variable.attributes for name, variable in (VARIABLES | FOR_RECIPES).items()} | {
    "orography": {"standard_name": "surface_altitude", "long_name": "surface height", "units": "m"},
    "land_sea_mask": {"standard_name": "land_area_fraction", "long_name": "fraction of land", "units": "1"},
    "time": {
        "standard_name": "time",
        "long_name": "time",
        "units": f"hours since {EPOCH}",
        "calendar": "proleptic_gregorian",
        "axis": "T",
    },
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {
        "standard_name": "longitude",
        "long_name": "longitude",
        "units": "degrees_east",
        "axis": "X",
    },
}


class Regridder:
    """Interpolate from the model's Gaussian latitudes to WeatherBench's with a cubic spline across the poles.

    Beyond a pole a meridian goes on at the longitude opposite, where a component of a vector changes its sign.
    """

    HALO = 4

    def __init__(self, latitude: np.ndarray, longitude: np.ndarray):
        if not np.allclose(longitude, LONGITUDE):
            raise ValueError("the model's longitudes are not those of WeatherBench's 5.625 degree grid")
        extended = np.pad(latitude, self.HALO)
        extended[: self.HALO] = -180 - latitude[: self.HALO][::-1]
        extended[-self.HALO :] = 180 - latitude[-self.HALO :][::-1]
        self.weights = CubicSpline(extended, np.eye(len(extended)))(LATITUDE)

    def __call__(self, values: np.ndarray, beyond_pole: float = 1.0) -> np.ndarray:
        """Turn (..., longitude, model latitude) into (..., latitude, longitude)."""
        values = np.asarray(values, dtype="float64")
        opposite = beyond_pole * np.roll(values, values.shape[-2] // 2, axis=-2)
        south, north = opposite[..., : self.HALO][..., ::-1], opposite[..., -self.HALO :][..., ::-1]
        extended = np.concatenate([south, values, north], axis=-1)
        return np.swapaxes(extended @ self.weights.T, -1, -2)


class Simulation:
    """The model, its climatological boundary conditions, and the grid that its output is interpolated to."""

    def __init__(self, begin: np.datetime64, variables: dict[str, Variable] = VARIABLES):
        """Set the model up to start at `begin`; its first output is one step of six hours later."""
        self.variables = variables
        boundary = Path(jcm.__file__).parent / "data/bc/t30/clim"
        grid = get_speedy_coords(spectral_truncation=TRUNCATION)
        self.terrain = TerrainData.from_file(str(boundary / "terrain.nc"), coords=grid)
        self.forcing = ForcingData.from_file(str(boundary / "forcing.nc"), coords=grid, align_mode="wrap_year")
        # The model's own diffusion, del^4, takes too much out of the weather at this resolution.
        diffusion = DiffusionFilter(
            div_timescale=2 * HOUR,
            div_order=1,
            vor_q_timescale=12 * HOUR,
            vor_q_order=4,
            temp_timescale=24 * HOUR,
            temp_order=4,
        )
        core = DinosaurDycore(coords=grid, terrain=self.terrain, dt_seconds=STEP_SECONDS, diffusion=diffusion)
        self.model = Model(core, physics=speedy_physics(), start_time=str(begin))
        self.started = False
        self.regrid = Regridder(np.rad2deg(grid.horizontal.latitudes), np.rad2deg(grid.horizontal.longitudes))

    def advance(self, days: int) -> xr.Dataset:
        """Simulate so many more days and return the model's output, one state every six hours."""
        step = self.model.resume if self.started else self.model.run
        self.started = True
        return step(forcing=self.forcing, save_interval=1 / STEPS_PER_DAY, total_time=float(days)).to_xarray()

    def sample(self, days: int) -> xr.Dataset:
        """Simulate so many more days and return the sample's variables on WeatherBench's grid."""
        output = self.advance(days)
        data = {}
        for name, variable in self.variables.items():
            values = np.clip(self.regrid(variable.field(output), variable.beyond_pole), *variable.limits)
            if not np.isfinite(values).all():
                raise FloatingPointError(f"the simulation has failed: {name} is not finite")
            data[name] = (("time", "latitude", "longitude"), values.astype("float32"))
        return xr.Dataset(data, {"time": output.time.values.astype("datetime64[ns]")})

    def static(self) -> xr.Dataset:
        """Return the height of the surface and the fraction of land on WeatherBench's grid."""
        orography = self.regrid(self.terrain.phis0) / GRAVITY
        land = np.clip(self.regrid(self.terrain.fmask), 0, 1)
        dims = ("latitude", "longitude")
        return xr.Dataset({"orography": (dims, orography), "land_sea_mask": (dims, land)}).astype("float32")


def simulate(times: pd.DatetimeIndex, spinup_days: int, variables: dict[str, Variable] = VARIABLES) -> xr.Dataset:
    """Simulate the states at `times`, after a spin-up that is thrown away."""
    # The model's first output is one step after its start, so it starts one step earlier than whole days.
    begin = times[0] - pd.Timedelta(days=spinup_days) - pd.Timedelta(days=1) / STEPS_PER_DAY
    simulation = Simulation(begin.to_datetime64(), variables)
    days = spinup_days + len(times) / STEPS_PER_DAY
    parts = []
    for _ in range(int(np.ceil(days / BLOCK_DAYS))):
        started = time.perf_counter()
        part = simulation.sample(BLOCK_DAYS)
        parts.append(part.sel(time=slice(times[0], times[-1])))
        print(f"to {part.time.values[-1]:.10}: {time.perf_counter() - started:.0f} s", flush=True)
    data = xr.concat(parts, "time").assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
    if not data.indexes["time"].equals(times):
        raise ValueError("the model's output times are not those asked for")
    return data.merge(simulation.static())


def packed(values: np.ndarray, variable: Variable) -> dict:
    """Return how zarr is to store a variable, which reads back as float32.

    The values become counts of a step, 16 bits each. The weather is smooth: differences leave little of the
    counts, taken twice in time, then in latitude and in longitude. A filter sees no dimensions,
    only neighbors in memory. Order F puts time first there, and shuffling transposes, byte by byte. Hence the
    differences are centered in their low byte, which leaves nearly all high bytes zero.
    """
    # A second difference is at most four times as large as the values: nothing wraps within this limit.
    if np.abs(values - variable.offset).max() / variable.step > 8000:
        raise ValueError("the values do not fit in 16 bits: choose a longer step or another offset")
    steps, rows = min(STEPS_PER_CHUNK, len(values)), values.shape[1]
    in_time, of_bytes = numcodecs.Delta("<i2"), numcodecs.Delta("|u1")
    return {
        "chunks": (steps, *values.shape[1:]),
        "order": "F",
        "filters": [
            numcodecs.FixedScaleOffset(variable.offset, 1 / variable.step, dtype="<f4", astype="<i2"),
            in_time,
            in_time,
            numcodecs.FixedScaleOffset(-128, 1, dtype="<i2"),
            numcodecs.Shuffle(2 * steps),  # now latitude is first in memory
            of_bytes,
            numcodecs.Shuffle(rows),  # now longitude is
            of_bytes,
        ],
        "compressors": [COMPRESSOR],
    }


def precision(variable: Variable) -> str:
    """Say in words what rounding has done to a variable."""
    return f"rounded to multiples of {variable.step:g} {variable.attributes['units']}"


def write(data: xr.Dataset, path: Path) -> None:
    """Write the sample in Zarr format 2, under a temporary name until it is complete."""
    temporary = path.with_name(f"{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    group = zarr.create_group(temporary, zarr_format=2, attributes=global_attributes(data))
    hours = (data.indexes["time"] - pd.Timestamp(EPOCH)) // pd.Timedelta(hours=1)
    data = data.assign_coords(time=("time", hours.to_numpy("int32")))
    for name, array in data.variables.items():
        variable = (VARIABLES | FOR_RECIPES).get(name)
        storage = packed(array.values, variable) if variable else {"chunks": array.shape}
        attributes = {**ATTRIBUTES[name], "_ARRAY_DIMENSIONS": list(array.dims)}
        if variable:
            attributes["precision"] = precision(variable)
        # No fill value: xarray would take it for the mark of missing values, and there are none.
        stored = group.create_array(
            name, shape=array.shape, dtype=array.dtype, attributes=attributes, fill_value=None, **storage
        )
        stored[...] = array.values
    zarr.consolidate_metadata(temporary, zarr_format=2)
    temporary.rename(path)


def global_attributes(data: xr.Dataset) -> dict[str, str]:
    """Say what the sample is, and above all that it is simulated."""
    first, last = (str(moment)[:13] for moment in data.time.values[[0, -1]])
    stored = {name: variable for name, variable in (VARIABLES | FOR_RECIPES).items() if name in data}
    rounding = "; ".join(f"{name} {precision(variable)}" for name, variable in stored.items())
    return {
        "Conventions": "CF-1.11",
        "title": f"SIMULATED climate, 6-hourly on a 5.625 degree grid, {first} to {last}",
        "source": f"circulation model jcm {jcm.__version__} (SPEEDY physics, Dinosaur dynamical core) "
        f"T{TRUNCATION}L8, del^8 diffusion, climatological sea surface temperature",
        "comment": "SIMULATED by a general circulation model: neither observations nor a reanalysis. "
        "The dates are the model's own and tell nothing of the weather on those days. "
        "The sea surface temperature is the same every year, and there is no diurnal cycle. "
        f"Precision: {rounding}.",
        "history": "made by tools/make_sample.py of simvp-climate",
        "references": "the Python package jcm, version 3.0.0",
        "license": "Apache-2.0",
        "acknowledgement": "computed with jcm (Apache-2.0), a JAX version of the SPEEDY model",
    }


def main() -> None:
    """Read the command line, simulate, and write the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the Zarr store to write; it must not exist yet")
    parser.add_argument("--years", type=float, default=3.333, help="length, rounded to whole months")
    parser.add_argument("--start", default="2001-01-01", help="the first time kept, in UTC")
    parser.add_argument("--spinup-days", type=int, default=244, help="days simulated before it, and not kept")
    parser.add_argument("--recipes", action="store_true", help="with the variables of the recipes")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists already")
    end = pd.Timestamp(options.start) + pd.DateOffset(months=round(12 * options.years))
    times = pd.date_range(options.start, end, freq=pd.Timedelta(days=1) / STEPS_PER_DAY, inclusive="left")
    variables = VARIABLES | (FOR_RECIPES if options.recipes else {})
    write(simulate(times, options.spinup_days, variables), options.out)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{options.out}: {len(times)} states, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
