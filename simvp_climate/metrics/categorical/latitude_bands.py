"""Bands of latitude, for statistics that need all times of a cell at once."""

from collections.abc import Hashable, Mapping

import xarray as xr

from simvp_climate.data.conventions import orient
from simvp_climate.data.grid import find_axes

# float64 bytes of all times of the rows in one band; the arithmetic holds a few arrays of this size
_BAND_BYTES = 128 * 2**20


def band_height(dataset: xr.Dataset, latitude: Hashable) -> int:
    """Return how many rows of latitude one band of a dataset has."""
    row = sum(variable.size for variable in dataset.data_vars.values()) * 8 // dataset.sizes[latitude]
    return max(1, _BAND_BYTES // max(row, 1))


def read_rows(field: xr.DataArray, rows: slice, grid: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Return some rows of the canonical `grid` of a field, read into memory, with the coordinates of the grid."""
    latitude = find_axes(field.to_dataset(name="field")).latitude
    count = field.sizes[latitude]
    if field[latitude].values[0] > field[latitude].values[-1]:  # from north to south
        stored_rows = slice(count - rows.stop, count - rows.start)
    else:
        stored_rows = rows
    band = orient(field.isel({latitude: stored_rows}).compute().to_dataset(name="field"))["field"]
    coordinates = {**grid, "latitude": grid["latitude"].isel(latitude=rows)}
    return band.assign_coords({dim: coordinates[dim] for dim in ("latitude", "longitude", "level") if dim in band.dims})
