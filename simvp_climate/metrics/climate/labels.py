"""Dimensions, coordinates, names and units of the statistics in a climate report."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from simvp_climate.metrics.climate.matching import Pair
from simvp_climate.metrics.climate.statistics import QUANTILES
from simvp_climate.metrics.climate.sums import Grid

ALL_MEMBERS = "all"
_CELLS = ("latitude", "longitude")
_DIMS = {
    "bias": _CELLS, "bias_p": _CELLS, "bias_significant": _CELLS, "zonal_mean": ("latitude",), "amplitude": ("band",),
    "peak_day": ("band",), "shift": ("band",), "variance": ("band",), "interannual_variance": ("band",),
    "spectrum": ("zonal_wavenumber",), "quantiles": ("quantile",), "return_levels": ("return_period",),
    "global_mean": ("year",), "eof_variance": ("mode",), "eof_correlation": ("mode",),
}  # fmt: skip
_UNITS = {"peak_day": "days", "shift": "days"}
_WITHOUT_UNIT = ("_p", "_ratio", "_correlation", "_autocorrelation", "eof_variance", "_frequency")
_SQUARED = ("variance", "spectrum")


def band_edges(bands: float | Sequence[float]) -> np.ndarray:
    """Return the edges of latitude bands; ValueError if they are none."""
    if np.ndim(bands) == 0:
        width = float(bands)  # type: ignore[arg-type]
        if not (0 < width <= 180 and abs(180 / width - round(180 / width)) < 1e-6):
            raise ValueError(f"bands={bands!r} must be a width that divides 180 degrees, for example 30, or edges")
        return np.linspace(-90, 90, round(180 / width) + 1)
    edges = np.asarray(bands, dtype=np.float64)
    if len(edges) < 2 or (np.diff(edges) <= 0).any() or edges[0] < -90 or edges[-1] > 90:
        raise ValueError(f"bands={bands!r} must be ascending edges within -90 and 90, for example [-90, -30, 30, 90]")
    return edges


def band_coordinates(edges: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, dict[str, tuple]]:
    """Return the rows of each band that has any, (band, latitude), and the coordinates of the bands."""
    upper = np.append(edges[1:-1], np.nextafter(edges[-1], np.inf))  # the last band contains its edge
    rows = (latitude >= edges[:-1, None]) & (latitude < upper[:, None])
    kept = rows.any(1)
    if not kept.any():
        raise ValueError(f"bands={edges.tolist()} contain no row of the grid. Make them wider")
    south, north = edges[:-1][kept], edges[1:][kept]
    attrs = {"units": "degrees_north", "long_name": "middle of a latitude band"}
    coords = {
        "band": ("band", (south + north) / 2, attrs),
        "band_south": ("band", south),
        "band_north": ("band", north),
    }
    return rows[kept].astype(np.float64), coords


def label(
    values: dict[str, np.ndarray], pair: Pair, grid: Grid, bands: dict[str, tuple], return_periods: Sequence[int]
) -> xr.Dataset:
    """Return statistics of a variable, (member, level, ...) by name, as a Dataset with the names of the report."""
    member_count = pair.run.sizes[pair.member] if pair.member else 1
    member_labels = pair.run[pair.member].values if pair.member in pair.run.coords else range(member_count)
    coords = {
        "latitude": pair.truth["latitude"], "longitude": pair.truth["longitude"], "quantile": list(QUANTILES),
        "zonal_wavenumber": np.arange(1, grid.weights.shape[-1] // 2 + 1), "mode": [1, 2, 3], **bands,
        "return_period": ("return_period", list(return_periods), {"units": "years"}),
        "year": pair.timelines[0].years, "truth_year": pair.timelines[1].years,
        "member": [ALL_MEMBERS, *map(str, member_labels)],
    }  # fmt: skip
    if "level" in pair.run.dims:
        coords["level"] = pair.run["level"]
    variables = {}
    for name, array in values.items():
        is_truth = name == "noise" or "_truth" in name
        dims = ["member", "level", *_dims(name)]
        # without levels or members their dimension has the size 1
        dropped = {"member": is_truth or member_count == 1, "level": "level" not in pair.run.dims}
        array = array[tuple(0 if dropped.get(dim) else slice(None) for dim in dims)]
        dims = [dim for dim in dims if not dropped.get(dim)]
        variables[f"{pair.name}_{name}"] = (dims, array, _attrs(name, pair))
    used = {dim for dims, *_ in variables.values() for dim in dims}
    return xr.Dataset(
        variables, {key: value for key, value in coords.items() if key.split("_south")[0].split("_north")[0] in used}
    )


def _dims(name: str) -> tuple[str, ...]:
    if name == "global_mean_truth":
        return ("truth_year",)
    base = name.removesuffix("_min").removesuffix("_max").removesuffix("_truth").removesuffix("_ratio")
    return _DIMS.get(base, ())


def _attrs(name: str, pair: Pair) -> dict[str, str]:
    units, base = (
        str(pair.run.attrs.get("units", "")),
        name.split("_truth")[0].removesuffix("_min").removesuffix("_max"),
    )
    if base.endswith(_WITHOUT_UNIT):
        units = "1"
    elif base.endswith(_SQUARED):
        units = f"({units})2" if units else ""
    elif base.startswith("trend"):
        units = f"{units} (10 years)-1".strip()
    attrs = {"long_name": f"{name.replace('_', ' ')} of {pair.name}"}
    units = "" if base == "bias_significant" else _UNITS.get(base, units)
    return attrs | ({"units": units} if units else {})
