"""Monthly means of a run as files that the tools of CMIP read: one per variable and member, named as in CMIP6."""

import os
import re
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from simvp_climate.data.cmip_variables import AREA, EARTH_RADIUS, CmipVariable, cell_areas, nominal_resolution
from simvp_climate.data.conventions import Canonical, canonicalize
from simvp_climate.data.files import check_parent, write_atomically
from simvp_climate.data.grid import LATITUDE_ATTRS, LONGITUDE_ATTRS, TOLERANCE, is_forecast
from simvp_climate.data.monthly_means import find_fields, find_periods, monthly_means, whole_months
from simvp_climate.data.regridding import column_edges, row_edges

_MISSING = np.float32(1e20)
_COORDINATES = {
    "time": {"standard_name": "time", "long_name": "time", "axis": "T", "bounds": "time_bnds"},
    "plev": {"standard_name": "air_pressure", "long_name": "pressure", "units": "Pa", "axis": "Z", "positive": "down"},
    "lat": {**LATITUDE_ATTRS, "long_name": "Latitude", "bounds": "lat_bnds"},
    "lon": {**LONGITUDE_ATTRS, "long_name": "Longitude", "bounds": "lon_bnds"},
    "height": {"standard_name": "height", "long_name": "height", "units": "m", "axis": "Z", "positive": "up"},
    "type": {"standard_name": "area_type", "long_name": "Sea Ice area type"},
}


def to_cmip(
    run: xr.Dataset, folder: str | os.PathLike, *, institution: str, source: str = "simvp-climate",
    experiment: str | None = None, activity: str | None = None, variant: str = "r1i1p1f1", grid: str = "gn",
    license: str | None = None, accumulation: str | None = None, rename: Mapping[str, str] | None = None,
    skip: Iterable[str] = (), layout: Literal["cmip6", "aimip"] = "cmip6",
) -> list[Path]:  # fmt: skip
    """Write monthly means of a run as NetCDF files of CMIP6, one per variable and member, and return their paths.

    Variables get CMIP6's names, units, `cell_methods` and bounds: `t2m` becomes `tas`, `z500` and `z850` together `zg`
    on `plev`, `tp` the flux `pr`. `t2m_max` and `t2m_min` become the means of daily extremes, `tasmax` and `tasmin`.
    Months that are not complete are left out with a warning. A missing value makes its monthly mean missing.
    Files are float32, netCDF-4 classic; `areacella` has the areas of the cells in m2.

    Parameters
    ----------
    run
        Along `time` (and `number` for members), on a regular latitude-longitude grid: states at equal steps, or means
        over periods of at most a month with `time_bnds`. Analyses have this form too. As in `metrics.time_mean`, a
        month of states with steps below a day holds those after its beginning, up to its end.
    folder
        Created if missing, unlike its parent. Files of the same name are replaced.
    institution, source, experiment, activity
        Names (letters, digits, hyphens) of the laboratory, model, experiment and project, in attributes and file
        names. The experiment is "free-run" by default, in the layout of AIMIP "aimip".
    variant
        The label of the first member. Member `number` 3 of members from 0 on has the realization 3 higher.
    grid
        "gn" for the native grid, "gr" for a regridded run.
    license
        For example "CC BY 4.0", which AIMIP asks for; by default that in the attributes of the run.
    accumulation
        The time over which an amount `tp` accumulates, such as "6h". Required for means; for states it is their step,
        for `tp6h` and `tp24h` their own, for sums over periods ("time: sum") the period.
    rename
        {name in the run: name of the vocabulary or of CMIP6}, such as {"air": "t2m"}.
    skip
        Variables to leave out.
    layout
        "cmip6" writes all files into `folder`. "aimip" writes AIMIP-1's folders and file names, `d2m` as `tdas`, and of
        the levels only its seven, 1000 to 50 hPa; it requires a grid of 2.8125 degrees or finer.

    Raises
    ------
    ValueError
        If a variable, its units or its level is unknown, no month is complete, maxima are not over days, a name does
        not fit in file names, or the grid is too coarse for AIMIP.

    References
    ----------
    CMIP6 Global Attributes, DRS, Filenames, Directory Structure, and CV's (https://doi.org/10.5281/zenodo.12768887);
    tables of the data specification 01.00.33; AIMIP-1: arXiv:2605.06944, https://github.com/ai2cm/AIMIP.
    """
    if layout not in ("cmip6", "aimip"):
        raise ValueError(f"layout={layout!r} must be 'cmip6' or 'aimip'")
    project = ("free-run", "CMIP") if layout == "cmip6" else ("aimip", "AIMIP")
    license = license or str(run.attrs.get("license", "not stated"))
    labels = _Labels(institution, source, experiment or project[0], activity or project[1], variant, grid, license)
    canonical = _read_run(run, rename or {}, skip)
    cells = _cells(canonical.dataset, layout)
    periods = find_periods(canonical.original, str(canonical.axes.time))
    fields = find_fields(canonical, periods, accumulation, layout)
    months, incomplete = whole_months(periods)
    folder = check_parent(folder)
    folder.mkdir(exist_ok=True)
    paths, members = [], _realizations(canonical)
    for variable, parts in fields.items():
        levels = np.concatenate([part.levels for part in parts])
        order = np.argsort(-levels)
        means = [monthly_means(part, list(months.values()), periods.length, canonical.member) for part in parts]
        values = np.concatenate(means, axis=2)[:, :, order]
        template = _template(cells, variable, levels[order], list(months), type(periods.begin))
        template.attrs["history"] = f"monthly means by simvp_climate; {incomplete} incomplete months are left out"
        for position, number in enumerate(members):
            dataset = _with_values(template, variable, values[:, position])
            paths.append(_write(dataset, variable, folder, layout, labels.of_member(number), run.attrs))
    cells.attrs["history"] = "areas of the cells on a sphere by simvp_climate"
    areas = _with_values(cells, AREA, cell_areas(cells["lat_bnds"].values, cells["lon_bnds"].values))
    paths.append(_write(areas, AREA, folder, layout, labels.of_member(members[0]), run.attrs))
    if incomplete:
        warnings.warn(f"{incomplete} incomplete months are left out", stacklevel=2)
    return paths


@dataclass(frozen=True)
class _Labels:
    """Names in attributes and file names."""

    institution: str
    source: str
    experiment: str
    activity: str
    variant: str
    grid: str
    license: str

    def __post_init__(self) -> None:
        rules = {name: "[A-Za-z0-9-]+" for name in ("institution", "source", "experiment", "activity")}
        for name, rule in (rules | {"variant": r"r\d+i\d+p\d+f\d+", "grid": r"g[nr]\d*"}).items():
            value, example = getattr(self, name), {"variant": "r1i1p1f1", "grid": "gn"}.get(name, "My-Name-1")
            if not isinstance(value, str) or not re.fullmatch(rule, value):
                needs = {"variant": "a label of this form", "grid": "gn or gr, with a number or without"}
                needed = needs.get(name, "letters, digits and hyphens")
                message = f"{name}={value!r} does not fit in CMIP6's file names, which need {needed}"
                raise ValueError(f"{message}. For example {name}={example!r}")

    @property
    def indices(self) -> tuple[int, ...]:
        """Realization, initialization, physics and forcing."""
        return tuple(int(index) for index in re.findall(r"\d+", self.variant))

    def of_member(self, number: int) -> "_Labels":
        realization, *others = self.indices
        return replace(self, variant="r{}i{}p{}f{}".format(realization + number, *others))

    def attributes(self, variable: CmipVariable, resolution: str) -> dict[str, str | float | np.int32]:
        """Return the global attributes that CMIP6 requires (CMIP6 Global Attributes, table 1)."""
        ids = (self.institution, self.source, self.experiment, "none", self.variant)
        parent = ("activity_id", "experiment_id", "mip_era", "source_id", "time_units", "variant_label")
        indices = zip(("realization", "initialization", "physics", "forcing"), self.indices, strict=True)
        area = {} if variable == AREA else {"external_variables": "areacella"}
        return {
            "Conventions": "CF-1.7 CMIP-6.2", "activity_id": self.activity, "mip_era": "CMIP6",
            "creation_date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "data_specs_version": "01.00.33",
            "experiment": self.experiment, "experiment_id": self.experiment, "institution": self.institution,
            "institution_id": self.institution, "source_id": self.source, "source_type": "AGCM",
            "sub_experiment": "none", "sub_experiment_id": "none", "license": self.license,
            "further_info_url": f"https://furtherinfo.es-doc.org/CMIP6.{'.'.join(ids)}", "grid_label": self.grid,
            "grid": "regular latitude-longitude grid", "nominal_resolution": resolution, "product": "model-output",
            "realm": variable.realm, "table_id": variable.table, "frequency": "fx" if variable == AREA else "mon",
            "variable_id": variable.name, "variant_label": self.variant,
            "title": f"{variable.long_name} of {self.source}, {self.experiment} {self.variant}",
            "tracking_id": f"hdl:21.14100/{uuid.uuid4()}", "branch_method": "no parent",
            "branch_time_in_child": 0.0, "branch_time_in_parent": 0.0, **area,
            **{f"parent_{name}": "no parent" for name in parent},
            **{f"{name}_index": np.int32(index) for name, index in indices},
        }  # fmt: skip


def _read_run(run: xr.Dataset, new_names: Mapping[str, str], skip: Iterable[str]) -> Canonical:
    """Return a run on the canonical grid, without the skipped variables and with new names."""
    skip = [skip] if isinstance(skip, str) else list(skip)
    for argument, names in (("rename", new_names), ("skip", skip)):
        if missing := [name for name in names if name not in run.data_vars]:
            raise ValueError(f"{argument} names {missing[0]!r}, but the run has {list(run.data_vars)}")
    run = run.drop_vars(skip).rename({old: new for old, new in new_names.items() if old not in skip})
    bounds = {each.attrs.get("bounds", each.encoding.get("bounds")) for each in run.coords.values()}
    run = run.set_coords(bounds & set(run.data_vars))  # xarray opens them as variables
    if is_forecast(run):
        fix = "Select an initialization: sc.io.to_valid_time(forecast, init)"
        raise ValueError(f"this is a forecast, but a run along time is needed. {fix}")
    canonical = canonicalize(run)
    if canonical.axes.time is None:
        raise ValueError(f"the run has no dimension time, but {list(run.dims)}. For one state: run.expand_dims('time')")
    return canonical


def _realizations(canonical: Canonical) -> list[int]:
    """Return what the members' labels add to the realization: their numbers, or else their positions."""
    if canonical.member is None:
        number = canonical.original.coords.get("number")  # of a selected member
        is_member = number is not None and number.ndim == 0 and number.dtype.kind in "iu"
        return [int(number)] if is_member else [0]
    numbers = canonical.dataset[canonical.member].values
    return [int(number) for number in (numbers if numbers.dtype.kind in "iu" else range(len(numbers)))]


def _cells(dataset: xr.Dataset, layout: str) -> xr.Dataset:
    """Return the coordinates of the cells and their bounds."""
    axes = {"lat": dataset["latitude"].values, "lon": dataset["longitude"].values}
    if short := [name for name, values in axes.items() if values.size < 2]:
        raise ValueError(f"the run has 1 {short[0]}, but bounds of cells need several. Keep more of the grid")
    spacing = max(float(np.diff(values).max()) for values in axes.values())
    if layout == "aimip" and spacing > 2.8125 + TOLERANCE:
        size = f"{spacing:g} degrees ({np.deg2rad(spacing) * EARTH_RADIUS / 1000:.0f} km)"
        rule = "AIMIP-1 takes at most 500 km and is evaluated at 2.8125 degrees or finer"
        raise ValueError(f"the grid has {size}, but {rule}. Train on a finer grid, or use layout='cmip6'")
    south, north = row_edges(axes["lat"])
    west, east = column_edges(axes["lon"])
    turns = np.round((axes["lon"] - (west + east) / 2) / 360) * 360
    edges = {"lat": (south, north), "lon": (west + turns, east + turns)}
    bounds = {f"{name}_bnds": ((name, "bnds"), np.stack(pair, axis=1)) for name, pair in edges.items()}
    return xr.Dataset(bounds, {name: (name, values, _COORDINATES[name]) for name, values in axes.items()})


def _template(
    cells: xr.Dataset, variable: CmipVariable, levels: np.ndarray, months: Iterable[tuple], index: type
) -> xr.Dataset:
    """Return the coordinates and bounds of a file; times are the middles of months, in days since 1850."""
    firsts, nexts = (index(days) for days in zip(*months, strict=True))
    middles = index([first + (after - first) / 2 for first, after in months])
    template = cells.assign_coords(time=("time", middles, _COORDINATES["time"]))
    template["time_bnds"] = (("time", "bnds"), np.stack([np.asarray(firsts), np.asarray(nexts)], axis=1))
    calendar = template["time"].dt.calendar
    if calendar == "proleptic_gregorian" and index is pd.DatetimeIndex and firsts[0].year > 1582:
        calendar = "standard"  # the same since 1582, and known to more programs
    for name in ("time", "time_bnds"):
        template[name].encoding = {"units": "days since 1850-01-01", "calendar": calendar}
    if variable.on_levels:
        template = template.assign_coords(plev=("plev", levels, _COORDINATES["plev"]))
    if variable.scalar is not None:
        name, value = variable.scalar
        template = template.assign_coords({name: ((), value, _COORDINATES[name])})
    template.encoding = {"unlimited_dims": {"time"}}
    return template


def _with_values(template: xr.Dataset, variable: CmipVariable, values: np.ndarray) -> xr.Dataset:
    """Return a file's Dataset with the values of a variable, and the encodings of CMIP6."""
    attrs = {key: getattr(variable, key) for key in ("standard_name", "long_name", "units", "cell_methods")}
    if variable != AREA:
        attrs["cell_measures"] = "area: areacella"
    dims = [dim for dim in ("time", "plev", "lat", "lon") if dim in template.dims]
    dataset = template.assign({variable.name: (dims, values.reshape([template.sizes[dim] for dim in dims]), attrs)})
    for name, array in dataset.variables.items():
        if array.dtype.kind in "fiMO":
            array.encoding = {**array.encoding, "dtype": "float64", "_FillValue": None}
        if str(name).endswith("_bnds"):
            array.encoding["coordinates"] = None  # else the height is one of them
    fill = {"dtype": "float32", "_FillValue": _MISSING, "missing_value": _MISSING}
    dataset[variable.name].encoding = {**fill, "zlib": True, "complevel": 1, "shuffle": True}
    return dataset


def _write(
    dataset: xr.Dataset, variable: CmipVariable, folder: Path, layout: str, labels: _Labels, attrs: Mapping
) -> Path:
    """Write a file under its name in CMIP6 and return its path."""
    parts = [variable.name, variable.table, labels.source, labels.experiment, labels.variant, labels.grid]
    if "time" in dataset.dims:
        parts.append("-".join(f"{date.year:04d}{date.month:02d}" for date in dataset.indexes["time"][[0, -1]]))
    if layout == "aimip":
        version = f"v{datetime.now(UTC):%Y%m%d}"
        folder = folder.joinpath(labels.institution, *parts[2:5], variable.table, variable.name, labels.grid, version)
        folder.mkdir(parents=True, exist_ok=True)
    resolution = nominal_resolution(dataset["lat_bnds"].values, dataset["lon_bnds"].values)
    # netCDF-4 classic has no 64-bit integers
    kept = {str(key): value if isinstance(value, str | float) else str(value) for key, value in attrs.items()}
    history = "\n".join(part["history"] for part in (kept, dataset.attrs) if "history" in part)
    attributes = {"source": labels.source} | kept | labels.attributes(variable, resolution) | {"history": history}
    path = folder / f"{'_'.join(parts)}.nc"
    write = dataset.assign_attrs(attributes).to_netcdf
    write_atomically(path, lambda unfinished: write(unfinished, engine="netcdf4", format="NETCDF4_CLASSIC"))
    return path
