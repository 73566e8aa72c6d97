"""Write stores in the byte layout of the large archives, with synthetic values."""

import base64
import json
from itertools import product
from pathlib import Path

import numcodecs
import numpy as np
import pandas as pd
import xarray as xr
from factories import waves

LEVELS_13 = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
WB_LONGITUDE = np.rad2deg(np.linspace(0, 2 * np.pi, 64, endpoint=False))  # with rounding noise, as in the original
WB_LATITUDE = np.rad2deg(np.deg2rad(np.arange(-90 + 5.625 / 2, 90, 5.625)))
RANDOM = np.random.default_rng(0)
_BLOSC = {"blocksize": 0, "clevel": 5, "cname": "lz4", "id": "blosc", "shuffle": 1}


def noise(*shape):
    return RANDOM.standard_normal(shape).astype("f4")


def to_json(value):
    return json.dumps(value, indent=4, sort_keys=True, separators=(",", ": "))


def write_zarr_2(path: Path, arrays: dict, attrs: dict | None = None, absent=()) -> None:
    """Write arrays {name: (dims, values, chunks, attributes)} with consolidated metadata, without `absent` chunks."""
    metadata = {".zgroup": {"zarr_format": 2}, ".zattrs": attrs or {}}
    compressor = numcodecs.get_codec(_BLOSC)
    for name, (dims, values, chunks, attributes) in arrays.items():
        metadata[f"{name}/.zarray"] = {
            "chunks": list(chunks),
            "compressor": _BLOSC,
            "dtype": values.dtype.str,
            "fill_value": "NaN" if values.dtype.kind == "f" else None,
            "filters": None,
            "order": "C",
            "shape": list(values.shape),
            "zarr_format": 2,
        }
        metadata[f"{name}/.zattrs"] = {"_ARRAY_DIMENSIONS": list(dims), **attributes}
        (path / name).mkdir(parents=True)
        for index in product(*(range(-(-size // chunk)) for size, chunk in zip(values.shape, chunks, strict=True))):
            key = f"{name}/{'.'.join(map(str, index))}"
            if key in absent:
                continue
            block = np.zeros(chunks, values.dtype)
            chunk = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
            block[tuple(slice(0, size) for size in chunk.shape)] = chunk
            (path / key).write_bytes(compressor.encode(block))
    for key, value in metadata.items():
        (path / key).write_text(to_json(value))
    (path / ".zmetadata").write_text(to_json({"metadata": metadata, "zarr_consolidated_format": 1}))


def axis(name, values, attributes=None):
    """Return the entry of a coordinate for `write_zarr_2`."""
    return {name: ((name,), values, values.shape, attributes or {})}


def hours(count, step=6, since="1959-01-01"):
    """Return encoded times, and their attributes."""
    attributes = {"calendar": "proleptic_gregorian", "units": f"hours since {since}"}
    return np.arange(count, dtype="i8") * step, attributes


def weatherbench_2(path, absent=()):
    """Write a store of WeatherBench 2 with 13 levels, and return its temperatures and orography."""
    time, time_attributes = hours(20)
    t = noise(20, 13, 64, 32)
    t2m = noise(20, 64, 32)
    orography = noise(64, 32)
    write_zarr_2(
        path,
        {
            "temperature": (
                ("time", "level", "longitude", "latitude"), t, (8, 13, 64, 32),
                {"long_name": "Temperature", "short_name": "t", "standard_name": "air_temperature", "units": "K"},
            ),
            "2m_temperature": (
                ("time", "longitude", "latitude"), t2m, (8, 64, 32),
                {"long_name": "2 metre temperature", "short_name": "t2m", "units": "K"},
            ),
            "geopotential_at_surface": (("longitude", "latitude"), orography, (64, 32), {"units": "m**2 s**-2"}),
            **axis("time", time, time_attributes),
            **axis("level", np.array(LEVELS_13, "i8")),
            **axis("longitude", WB_LONGITUDE),
            **axis("latitude", WB_LATITUDE),
        },
        absent=absent,
    )  # fmt: skip
    return t, t2m, orography


def arco(path, stop="1900-01-03"):
    """Write a store allocated for five days, with values on the second and third only."""
    time, time_attributes = hours(120, step=1, since="1900-01-01")
    values = noise(120, 3, 5, 8)
    t2m = noise(120, 5, 8)
    absent = [f"geopotential/{hour}.0.0.0" for hour in range(120) if not 24 <= hour < 72]
    absent += [f"2m_temperature/{hour}.0.0" for hour in range(120) if not 24 <= hour < 72]
    write_zarr_2(
        path,
        {
            "geopotential": (("time", "level", "latitude", "longitude"), values, (1, 3, 5, 8), {"units": "m**2 s**-2"}),
            "2m_temperature": (("time", "latitude", "longitude"), t2m, (1, 5, 8), {"units": "K"}),
            **axis("time", time, time_attributes),
            **axis("level", np.array([500, 850, 1000], "i8")),
            **axis("longitude", np.arange(0, 360, 45, dtype="f4")),
            **axis("latitude", np.linspace(90, -90, 5, dtype="f4")),
        },
        {"valid_time_start": "1900-01-02", "valid_time_stop": stop, "valid_time_stop_era5t": "1900-01-05"},
        absent,
    )
    return values, t2m


def weatherbench_1(root, folder, short_name, file_name, year, levels=None):
    """Write a yearly file, shortened to three hours, and return its values."""
    time = pd.date_range(f"{year}-01-01", periods=3, freq="h", unit="ns")
    lat, lon = np.arange(-90 + 5.625 / 2, 90, 5.625), np.arange(0, 360, 5.625)
    shape, dims = (3, 32, 64), ("time", "lat", "lon")
    coords = {"time": time, "lat": lat, "lon": lon}
    if np.ndim(levels):
        shape, dims = (3, len(levels), 32, 64), ("time", "level", "lat", "lon")
        coords["level"] = np.array(levels, "i4")
    elif levels is not None:
        coords["level"] = np.int32(levels)
    attrs = {"Conventions": "CF-1.6", "history": f"{year}: grib_to_netcdf"}
    ds = xr.Dataset({short_name: (dims, noise(*shape))}, coords, attrs)
    (root / folder).mkdir(exist_ok=True, parents=True)
    ds.to_netcdf(root / folder / f"{file_name}_{year}_5.625deg.nc", encoding={n: {"_FillValue": None} for n in coords})
    return ds[short_name].values


def cmip(path, calendar, frequency="D"):
    """Write a file of the Coupled Model Intercomparison Project: bounds of all axes, a scalar height."""
    time = xr.date_range("1999-02-27T12", periods=4, freq=frequency, calendar=calendar, use_cftime=True)
    half = pd.Timedelta("12h")
    ds = xr.Dataset(
        {
            "tas": (
                ("time", "lat", "lon"), noise(4, 4, 8),
                {"standard_name": "air_temperature", "units": "K", "cell_methods": "area: time: mean",
                 "cell_measures": "area: areacella"},
            ),
            "zg": (
                ("time", "plev", "lat", "lon"), noise(4, 3, 4, 8),
                {"standard_name": "geopotential_height", "units": "m", "cell_methods": "time: mean"},
            ),
            "time_bnds": (("time", "bnds"), [[t - half, t + half] for t in time]),
            "lat_bnds": (("lat", "bnds"), np.array([[-90.0, -45], [-45, 0], [0, 45], [45, 90]])),
            "lon_bnds": (("lon", "bnds"), np.arange(0, 360, 45.0)[:, None] + [-22.5, 22.5]),
        },
        {
            "time": ("time", time, {"bounds": "time_bnds", "axis": "T", "standard_name": "time"}),
            "plev": ("plev", [100000.0, 85000.0, 50000.0],
                     {"units": "Pa", "axis": "Z", "positive": "down", "standard_name": "air_pressure"}),
            "lat": ("lat", [-67.5, -22.5, 22.5, 67.5],
                    {"bounds": "lat_bnds", "units": "degrees_north", "axis": "Y", "standard_name": "latitude"}),
            "lon": ("lon", np.arange(0, 360, 45.0),
                    {"bounds": "lon_bnds", "units": "degrees_east", "axis": "X", "standard_name": "longitude"}),
            "height": ((), 2.0, {"units": "m", "axis": "Z", "positive": "up", "standard_name": "height"}),
        },
        {"Conventions": "CF-1.7 CMIP-6.2", "variant_label": "r1i1p1f1"},
    )  # fmt: skip
    ds["tas"].encoding["coordinates"] = "height"
    encoding = {"time": {"units": "days since 1850-01-01", "calendar": calendar, "dtype": "f8"}}
    ds.to_netcdf(path, encoding={**encoding, "tas": {"_FillValue": 1e20}, "zg": {"_FillValue": 1e20}})
    return ds


def write_grib(path, messages, dates=(20200101, 20200102)):
    """Write fields {(short name, level or None, member or None): values (date, latitude, longitude)}."""
    import eccodes  # here, because it must be imported after pyproj

    with open(path, "wb") as file:
        for (short_name, level, member), values in messages.items():
            for date, field in zip(dates, values, strict=True):
                message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
                keys = {
                    "dataDate": date, "dataTime": 600, "Ni": 8, "Nj": 5, "bitsPerValue": 24,
                    "latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90,
                    "longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 315,
                    "iDirectionIncrementInDegrees": 45, "jDirectionIncrementInDegrees": 45,
                }  # fmt: skip
                keys |= {"levelType": "pl", "level": level} if level else {"levelType": "sfc"}
                if member is not None:
                    keys |= {"localDefinitionNumber": 1, "type": "pf", "stream": "enda", "number": member}
                for key, value in {**keys, "shortName": short_name}.items():
                    eccodes.codes_set(message, key, value)
                eccodes.codes_set_values(message, field.ravel())
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)


def fields(*shape):
    """Return values that GRIB's packing preserves to a tolerance of 1e-4."""
    return np.round(RANDOM.uniform(0, 100, shape), 2)


def write_references(folder, leave_out=(), address=None):
    """Write a store, and references to its chunks: metadata inline, chunks as ranges of bytes of one file.

    The references name the file at its path, or at an address.
    """
    encoding = {name: {"chunks": (3, 8, 16)} for name in ("z500", "t2m")}
    waves(times=6).to_zarr(folder / "s.zarr", zarr_format=2, consolidated=False, encoding=encoding)
    refs, packed = {}, b""
    for path in sorted((folder / "s.zarr").rglob("*")):
        key, content = path.relative_to(folder / "s.zarr").as_posix(), path.read_bytes() if path.is_file() else b""
        if path.is_dir() or key in leave_out:
            continue
        if path.name.startswith("."):
            refs[key] = "base64:" + base64.b64encode(content).decode()
        else:
            refs[key] = [address or str(folder / "packed.bin"), len(packed), len(content)]
            packed += content
    (folder / "packed.bin").write_bytes(packed)
    (folder / "refs.json").write_text(json.dumps({"version": 1, "refs": refs}))
    return refs
