"""What the results must be, in numpy and torch alone: no labels, no code of the package but the network."""

import numpy as np
import torch
import xarray as xr

GRAVITY = 9.80665  # m s-2, by which geopotential is divided to give geopotential height


def area_weights(latitude: np.ndarray) -> np.ndarray:
    """Return weights proportional to the area of cells whose edges lie halfway between latitudes; mean 1."""
    order = np.argsort(latitude)
    middle = (latitude[order][1:] + latitude[order][:-1]) / 2
    edges = np.clip(np.concatenate([[-90.0], middle, [90.0]]), -90, 90)
    weights = np.empty(len(latitude))
    weights[order] = np.diff(np.sin(np.deg2rad(edges)))
    return weights / weights.mean()


def statistics(states: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return area-weighted mean and standard deviation of each channel of (time, channel, latitude, longitude)."""
    states = states.astype(np.float64)
    weights = np.broadcast_to(area_weights(latitude)[:, None], states.shape[-2:])
    total = weights.sum() * len(states)
    mean = (states * weights).sum(axis=(0, 2, 3)) / total
    variance = ((states - mean[:, None, None]) ** 2 * weights).sum(axis=(0, 2, 3)) / total
    return mean, np.sqrt(variance)


@torch.no_grad()
def forecast(network: torch.nn.Module, history: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the states after one history (time, channel, latitude, longitude) from one call of the network."""
    scale = [values.astype(np.float32)[:, None, None] for values in (mean, std)]
    normalized = torch.from_numpy((history.astype(np.float32) - scale[0]) / scale[1])
    return network(normalized[None])[0].numpy() * scale[1] + scale[0]


def rmse(forecast: np.ndarray, truth: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Return the area-weighted RMSE over initializations and grid for each lead, of (init, lead, row, column)."""
    squared = (forecast.astype(np.float64) - truth) ** 2
    weights = np.broadcast_to(area_weights(latitude)[:, None], squared.shape[-2:])
    return np.sqrt((squared * weights).sum(axis=(0, 2, 3)) / (weights.sum() * len(squared)))


def plain_values(variable: xr.DataArray) -> np.ndarray:
    """Return values (..., latitude, longitude) with latitude ascending and longitude from 0, in SI units.

    The horizontal dimensions are found by their coordinates: the only ones with negative values of even spacing, and
    with a range of more than 180 degrees.
    """
    latitude = next(dim for dim in variable.dims if dim in ("lat", "latitude", "y", "nav_lat"))
    longitude = next(dim for dim in variable.dims if dim in ("lon", "longitude", "x", "nav_lon"))
    others = [dim for dim in variable.dims if dim not in (latitude, longitude)]
    values = variable.transpose(*others, latitude, longitude).values.astype(np.float64)
    rows = np.argsort(variable[latitude].values)
    columns = np.argsort(np.mod(np.round(variable[longitude].values.astype(np.float64), 2), 360))
    values = values[..., rows, :][..., columns]
    units = variable.attrs.get("units")
    offsets = {"degC": 273.15, "Celsius": 273.15, "celsius": 273.15}
    factors = {"m": GRAVITY, "gpm": GRAVITY, "dam": 10 * GRAVITY}
    return values * factors.get(units, 1) + offsets.get(units, 0)
