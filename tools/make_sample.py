"""Make the bundled sample: a simulated climate on WeatherBench's 5.625 degree grid, every six hours.

JCM, a JAX version of the SPEEDY general circulation model, computes the atmosphere. Its package contains the boundary
conditions, so nothing is downloaded. It pins jax, so use a separate environment:

    pip install "simvp-climate[simulate]"
    python tools/make_sample.py sample.zarr --years 3.333 --start 2001-01-01 --spinup-days 244

--recipes adds the variables of the recipes: temperature at 850 hPa, wind at 10 m, humidity, cloud and precipitation.
--warming and --mountains change the climate, for tests on one that no setting was chosen on (`docs/rivals.md`):

    python tools/make_sample.py second.zarr --years 5 --recipes --warming 4 --mountains 0
"""

import argparse
import lzma
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # must be set before jax is imported

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
REFERENCE_PRESSURE = 1e5  # Pa; the model outputs surface pressure divided by it
LATITUDE = np.linspace(-87.1875, 87.1875, 32)
LONGITUDE = np.linspace(0, 354.375, 64)

TRUNCATION = 21  # T21: its Gaussian grid has WeatherBench's 64 longitudes; only latitude is interpolated
STEP_SECONDS = 45 * 60
HOUR = 3600.0
BLOCK_DAYS = 61  # length of one call of the model; equal calls are compiled once
STEPS_PER_DAY = 4
STEPS_PER_CHUNK = 304
EPOCH = "2001-01-01 00:00:00"
# the filtered values are nearly noise without repetitions, so a small dictionary compresses best
COMPRESSOR = numcodecs.LZMA(
    format=lzma.FORMAT_RAW,
    filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0, "dict_size": 4096}],
)


@dataclass(frozen=True)
class Variable:
    """One variable of the sample: how to compute it from the model's output, and how to store it."""

    compute: Callable[[xr.Dataset], np.ndarray]  # model output -> (time, longitude, latitude)
    attributes: dict[str, str]
    step: float  # values are rounded to `offset` plus a multiple of this
    offset: float
    limits: tuple[float, float] = (-np.inf, np.inf)  # clip here: the spline in latitude may overshoot
    pole_sign: float = 1.0  # factor of values beyond a pole: -1 for the components of a vector


def geopotential_at(pressure: float) -> Callable[[xr.Dataset], np.ndarray]:
    """Return a function that interpolates the model's geopotential to one pressure in Pa."""

    def interpolate(output: xr.Dataset) -> np.ndarray:
        columns = output.isel(level=np.argsort(output.level.values)).transpose("level", ...)
        surface = REFERENCE_PRESSURE * columns["normalized_surface_pressure"].values
        log_pressure = np.log(columns.level.values.reshape(-1, 1, 1, 1) * surface)
        vapor = np.maximum(columns["specific_humidity"].values, 0)
        virtual_temperature = columns["temperature"].values * (1 + 0.608 * vapor)
        geopotential = columns["geopotential"].values
        return interpolate_hydrostatic(np.log(pressure), log_pressure, geopotential, virtual_temperature)

    return interpolate


def interpolate_hydrostatic(
    target: float, log_pressure: np.ndarray, geopotential: np.ndarray, virtual_temperature: np.ndarray
) -> np.ndarray:
    """Interpolate geopotential along the first axis (downward) to the logarithm of a pressure.

    The hydrostatic equation gives the slope at each level, d(geopotential) / d(log pressure) = -R T_virtual.
    Between two levels a cubic with these slopes (Hermite) accounts for the change of temperature, unlike linear
    interpolation. Below the lowest level the slope is that of the lowest level.
    """
    above = np.clip((log_pressure < target).sum(0) - 1, 0, len(log_pressure) - 2)[None]

    def at_neighbors(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values at the level above the target and at the level below."""
        return np.take_along_axis(values, above, 0)[0], np.take_along_axis(values, above + 1, 0)[0]

    (top, bottom), (high, low) = at_neighbors(log_pressure), at_neighbors(geopotential)
    thickness = bottom - top
    slope_high, slope_low = (
        -GAS_CONSTANT * thickness * temperature for temperature in at_neighbors(virtual_temperature)
    )
    x = np.clip((target - top) / thickness, 0, 1)
    cubic = ((1 + 2 * x) * high + x * slope_high) * (1 - x) ** 2
    cubic += ((3 - 2 * x) * low - (1 - x) * slope_low) * x**2
    return cubic - GAS_CONSTANT * at_neighbors(virtual_temperature)[1] * np.maximum(target - bottom, 0)


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
    """Return a function that interpolates temperature to one pressure in Pa, linearly in the logarithm of pressure."""

    def interpolate(output: xr.Dataset) -> np.ndarray:
        columns = output.isel(level=np.argsort(output.level.values)).transpose("level", ...)
        surface = REFERENCE_PRESSURE * columns["normalized_surface_pressure"].values
        log_pressure = np.log(columns.level.values.reshape(-1, 1, 1, 1) * surface)
        temperature, target = columns["temperature"].values, np.log(pressure)
        above = np.clip((log_pressure < target).sum(0) - 1, 0, len(log_pressure) - 2)[None]
        top, bottom = (np.take_along_axis(log_pressure, above + offset, 0)[0] for offset in (0, 1))
        high, low = (np.take_along_axis(temperature, above + offset, 0)[0] for offset in (0, 1))
        return high + np.clip((target - top) / (bottom - top), 0, 1) * (low - high)

    return interpolate


# converts the rate of rain, g m-2 s-1, to the depth of water that falls in six hours, m
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
        pole_sign=-1.0,
    ),
    "10m_v_component_of_wind": Variable(
        lambda output: output["surface_flux.v0"].values,
        {"standard_name": "northward_wind", "long_name": "northward wind near the surface", "units": "m s-1"},
        step=1 / 64,
        offset=0.0,
        pole_sign=-1.0,
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
        limits=(0.0, 100.0),  # over ice the model exceeds them by far
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

    Rows beyond a pole come from the meridian 180 degrees away, where the components of a vector change sign.
    """

    HALO = 4

    def __init__(self, latitude: np.ndarray, longitude: np.ndarray):
        if not np.allclose(longitude, LONGITUDE):
            raise ValueError(
                f"the model's longitudes must be WeatherBench's, {LONGITUDE[0]:g} to {LONGITUDE[-1]:g}, not {longitude}"
            )
        extended = np.pad(latitude, self.HALO)
        extended[: self.HALO] = -180 - latitude[: self.HALO][::-1]
        extended[-self.HALO :] = 180 - latitude[-self.HALO :][::-1]
        self.weights = CubicSpline(extended, np.eye(len(extended)))(LATITUDE)

    def __call__(self, values: np.ndarray, pole_sign: float = 1.0) -> np.ndarray:
        """Interpolate (..., longitude, model latitude) to (..., latitude, longitude)."""
        values = np.asarray(values, dtype="float64")
        opposite = pole_sign * np.roll(values, values.shape[-2] // 2, axis=-2)
        south, north = opposite[..., : self.HALO][..., ::-1], opposite[..., -self.HALO :][..., ::-1]
        extended = np.concatenate([south, values, north], axis=-1)
        return np.swapaxes(extended @ self.weights.T, -1, -2)


@dataclass(frozen=True)
class Changes:
    """Changes of the boundary conditions, which make another climate."""

    warming: float = 0.0  # of the surface, K
    mountains: float = 1.0  # factor of the height of the surface

    def apply(self, fields: xr.Dataset) -> xr.Dataset:
        """Return changed boundary conditions."""
        changed = {name: fields[name] + self.warming for name in ("sst", "stl") if name in fields}
        if "orog" in fields:
            changed["orog"] = self.mountains * fields["orog"]
        return fields.assign({name: value.assign_attrs(fields[name].attrs) for name, value in changed.items()})

    def __str__(self) -> str:
        surface = f"surface {self.warming:+g} K, " if self.warming else ""
        return surface + (f"mountains times {self.mountains:g}, " if self.mountains != 1 else "")


class Simulation:
    """The model with climatological boundary conditions, and the interpolation of its output."""

    def __init__(
        self, begin: np.datetime64, variables: dict[str, Variable] = VARIABLES, changes: Changes | None = None
    ):
        """Start the model at `begin`; its first output is six hours later."""
        self.variables, changes = variables, changes or Changes()
        boundary = Path(jcm.__file__).parent / "data/bc/t30/clim"
        grid = get_speedy_coords(spectral_truncation=TRUNCATION)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("terrain", "forcing"):
                with xr.open_dataset(boundary / f"{name}.nc") as fields:
                    changes.apply(fields).to_netcdf(f"{folder}/{name}.nc")
            self.terrain = TerrainData.from_file(f"{folder}/terrain.nc", coords=grid)
            self.forcing = ForcingData.from_file(f"{folder}/forcing.nc", coords=grid, align_mode="wrap_year")
        # the model's default diffusion, del^4, damps the weather too strongly at this resolution
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
        """Simulate the next `days` days and return the model's output, one state every six hours."""
        step = self.model.resume if self.started else self.model.run
        self.started = True
        return step(forcing=self.forcing, save_interval=1 / STEPS_PER_DAY, total_time=float(days)).to_xarray()

    def sample(self, days: int) -> xr.Dataset:
        """Simulate the next `days` days and return the sample's variables on WeatherBench's grid."""
        output = self.advance(days)
        data = {}
        for name, variable in self.variables.items():
            values = np.clip(self.regrid(variable.compute(output), variable.pole_sign), *variable.limits)
            if not np.isfinite(values).all():
                raise FloatingPointError(f"the simulation is unstable: {name} is not finite")
            data[name] = (("time", "latitude", "longitude"), values.astype("float32"))
        return xr.Dataset(data, {"time": output.time.values.astype("datetime64[ns]")})

    def static(self) -> xr.Dataset:
        """Return the height of the surface and the fraction of land on WeatherBench's grid."""
        orography = self.regrid(self.terrain.phis0) / GRAVITY
        land = np.clip(self.regrid(self.terrain.fmask), 0, 1)
        dims = ("latitude", "longitude")
        return xr.Dataset({"orography": (dims, orography), "land_sea_mask": (dims, land)}).astype("float32")


def simulate(
    times: pd.DatetimeIndex, spinup_days: int, variables: dict[str, Variable] = VARIABLES,
    changes: Changes | None = None,
) -> xr.Dataset:  # fmt: skip
    """Simulate the states at `times`, after a spin-up that is discarded."""
    # the first output is one step after the start, so start one step earlier
    begin = times[0] - pd.Timedelta(days=spinup_days) - pd.Timedelta(days=1) / STEPS_PER_DAY
    simulation = Simulation(begin.to_datetime64(), variables, changes)
    days = spinup_days + len(times) / STEPS_PER_DAY
    blocks = []
    for _ in range(int(np.ceil(days / BLOCK_DAYS))):
        started = time.perf_counter()
        block = simulation.sample(BLOCK_DAYS)
        blocks.append(block.sel(time=slice(times[0], times[-1])))
        print(f"to {block.time.values[-1]:.10}: {time.perf_counter() - started:.0f} s", flush=True)
    data = xr.concat(blocks, "time").assign_coords(latitude=LATITUDE, longitude=LONGITUDE)
    if not data.indexes["time"].equals(times):
        raise ValueError(f"the model's times {data.indexes['time']} must be {times}")
    return data.merge(simulation.static())


def zarr_encoding(values: np.ndarray, variable: Variable) -> dict:
    """Return the zarr settings that store a variable in 16 bits; it reads back as float32.

    Values become integers, in units of `variable.step`. Because weather is smooth, differences (two in time, then one
    in latitude and one in longitude) make these integers small. A filter knows no dimensions, only neighbors in memory:
    order F puts time first in memory, and a shuffle transposes, byte by byte. Therefore the differences are centered
    in their low byte first, so that nearly all high bytes are zero.
    """
    # a second difference is at most four times as large as the values: within this limit 16 bits do not overflow
    if np.abs(values - variable.offset).max() / variable.step > 8000:
        raise ValueError(
            f"the values do not fit into 16 bits: choose a larger step than {variable.step}, or another offset"
        )
    steps, rows = min(STEPS_PER_CHUNK, len(values)), values.shape[1]
    time_difference, byte_difference = numcodecs.Delta("<i2"), numcodecs.Delta("|u1")
    return {
        "chunks": (steps, *values.shape[1:]),
        "order": "F",
        "filters": [
            numcodecs.FixedScaleOffset(variable.offset, 1 / variable.step, dtype="<f4", astype="<i2"),
            time_difference,
            time_difference,
            numcodecs.FixedScaleOffset(-128, 1, dtype="<i2"),
            numcodecs.Shuffle(2 * steps),  # latitude is now first in memory
            byte_difference,
            numcodecs.Shuffle(rows),  # longitude is now first in memory
            byte_difference,
        ],
        "compressors": [COMPRESSOR],
    }


def describe_precision(variable: Variable) -> str:
    """Return a text on the rounding of a variable."""
    return f"rounded to multiples of {variable.step:g} {variable.attributes['units']}"


def write(data: xr.Dataset, path: Path, changes: Changes) -> None:
    """Write the sample in Zarr format 2, under a temporary name until it is complete."""
    temporary = path.with_name(f"{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    group = zarr.create_group(temporary, zarr_format=2, attributes=global_attributes(data, changes))
    hours = (data.indexes["time"] - pd.Timestamp(EPOCH)) // pd.Timedelta(hours=1)
    data = data.assign_coords(time=("time", hours.to_numpy("int32")))
    for name, array in data.variables.items():
        variable = (VARIABLES | FOR_RECIPES).get(name)
        encoding = zarr_encoding(array.values, variable) if variable else {"chunks": array.shape}
        attributes = {**ATTRIBUTES[name], "_ARRAY_DIMENSIONS": list(array.dims)}
        if variable:
            attributes["precision"] = describe_precision(variable)
        # no fill value: xarray would read it as a missing value
        stored = group.create_array(
            name, shape=array.shape, dtype=array.dtype, attributes=attributes, fill_value=None, **encoding
        )
        stored[...] = array.values
    zarr.consolidate_metadata(temporary, zarr_format=2)
    temporary.rename(path)


def global_attributes(data: xr.Dataset, changes: Changes) -> dict[str, str]:
    """Return the attributes of the sample, which say that it is simulated."""
    first, last = (str(instant)[:13] for instant in data.time.values[[0, -1]])
    variables = {name: variable for name, variable in (VARIABLES | FOR_RECIPES).items() if name in data}
    rounding = "; ".join(f"{name} {describe_precision(variable)}" for name, variable in variables.items())
    return {
        "Conventions": "CF-1.11",
        "title": f"SIMULATED climate, 6-hourly on a 5.625 degree grid, {first} to {last}",
        "source": f"circulation model jcm {jcm.__version__} (SPEEDY physics, Dinosaur dynamical core) "
        f"T{TRUNCATION}L8, del^8 diffusion, {changes}climatological sea surface temperature",
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
    parser.add_argument("out", type=Path, help="path of the new Zarr store")
    parser.add_argument("--years", type=float, default=3.333, help="length, rounded to months")
    parser.add_argument("--start", default="2001-01-01", help="first time of the sample, in UTC")
    parser.add_argument("--spinup-days", type=int, default=244, help="days simulated before the start, then discarded")
    parser.add_argument("--recipes", action="store_true", help="add the variables of the recipes")
    parser.add_argument("--warming", type=float, default=0.0, help="added to surface temperatures, K")
    parser.add_argument("--mountains", type=float, default=1.0, help="factor of the height of the surface")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} already exists: choose another path")
    end = pd.Timestamp(options.start) + pd.DateOffset(months=round(12 * options.years))
    times = pd.date_range(options.start, end, freq=pd.Timedelta(days=1) / STEPS_PER_DAY, inclusive="left")
    variables = VARIABLES | (FOR_RECIPES if options.recipes else {})
    changes = Changes(options.warming, options.mountains)
    write(simulate(times, options.spinup_days, variables, changes), options.out, changes)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{options.out}: {len(times)} states, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
