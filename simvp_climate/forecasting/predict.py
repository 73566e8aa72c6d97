"""Forecasts from the histories of a request: initial states in the units of training -> network -> labels.

Shape suffixes: B initialization, T time, C channel, F forcing, N noise, H latitude, W longitude; h and w are those of
the grid on which a network takes noise.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import dask.array
import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.windows import to_iso
from simvp_climate.forecasting import initial_states, labels
from simvp_climate.forecasting.request import ForecastRequest
from simvp_climate.networks.rollout import rollout
from simvp_climate.processing import tensors


def predict(
    forecaster: Any, request: ForecastRequest, histories: np.ndarray,
    perturb: Callable[[pd.Index], np.ndarray] | None = None, member_number: int = 0, seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> tuple[xr.Dataset, list[str]]:  # fmt: skip
    """Return labeled forecasts from some histories of a request, and the digest of the data of each initialization.

    `perturb` maps init times to perturbations of all states of a history, (init, channel, H, W), in units of training.
    `member_number` and `seed` determine the noise of a network that takes noise. `advance` is called with the number of
    forecasts that were made since the last call.
    """
    shape = _shape(forecaster, request, histories)
    states, digests = np.empty(shape, dtype=np.float32), []
    for index in range(len(request.canonical.series)):
        digests.append(
            predict_states(
                forecaster,
                request,
                index,
                histories,
                perturb,
                member_number + index,
                seed,
                states[:, :, index],
                advance,
            )
        )
    combined = initial_states.combine_member_digests(digests)
    return labels.label(forecaster, request, histories, states, combined), combined


def template(forecaster: Any, request: ForecastRequest, histories: np.ndarray) -> xr.Dataset:
    """Return a Dataset like that of `predict`, with lazy NaN in place of forecasts, which takes no memory."""
    shape = _shape(forecaster, request, histories)
    states = dask.array.full(shape, np.float32(np.nan), chunks=shape, dtype=np.float32)
    return labels.label(forecaster, request, histories, states, [])


@torch.no_grad()
def predict_states(
    forecaster: Any, request: ForecastRequest, series: int, histories: np.ndarray,
    perturb: Callable[[pd.Index], np.ndarray] | None, member_number: int, seed: int, out: np.ndarray,
    advance: Callable[[int], object] | None = None,
) -> list[bytes]:  # fmt: skip
    """Write forecasts of a series into `out`, (init, lead, channel, H, W); return digests of the initial states."""
    network, horizon, member = forecaster.network, request.horizon, request.canonical.series[series]
    prescribed_scale = tensors.Scale(forecaster.prescribed_statistics, next(network.parameters()).device)
    device, inputs = next(network.parameters()).device, forecaster.input_statistics
    input_scale, output_scale = tensors.Scale(inputs, device), tensors.Scale(forecaster.output_statistics, device)
    forcings, digests = make_forcings(forecaster, device), []
    for rows, states, batch_digests in initial_states.read_batches(request, member, histories, inputs):
        inits = request.init_times(histories[rows])
        if perturb is not None:
            states += perturb(inits).astype(np.float32)[:, np.newaxis]
        x_BTCHW = torch.from_numpy(states).to(device)
        f_BTFHW = forcings(inits, horizon)
        if request.prescribed is not None:
            statistics, task = forecaster.prescribed_statistics, forecaster.task
            values = initial_states.read_prescribed(request, series, histories[rows], task.step, statistics)
            p_BTCHW = prescribed_scale.normalize(torch.from_numpy(values).to(device))
            f_BTFHW = tensors.add_prescribed(f_BTFHW, p_BTCHW, task.history, horizon)
            pairs = zip(batch_digests, values, strict=True)
            batch_digests = [hashlib.sha256(digest + value.tobytes()).digest() for digest, value in pairs]
        noise = draw_noise(network, inits, horizon, member_number, seed, device)
        y_BTCHW = rollout(network, input_scale.normalize(x_BTCHW), horizon, f_BTFHW, input_scale.constrain, noise)
        forecasts = output_scale.denormalize(y_BTCHW.float()).cpu().numpy()
        out[rows] = request.conversion.from_training_units(forecasts, network.shared_channels)
        digests += batch_digests
        if advance is not None:
            advance(len(batch_digests))
    return digests


def draw_noise(
    network: Any, inits: pd.Index, horizon: int, member_number: int, seed: int, device: torch.device
) -> list[Tensor] | None:  # fmt: skip
    """Return the noise of a member for every call of a network, (B, N, h, w) each; None if the network takes none.

    It depends on the seed, the number of the member, the initialization and the call only.
    """
    grid = getattr(network, "noise_grid", None)
    if grid is None:
        return None
    calls = math.ceil(horizon / network.history)
    draws = []
    for init in inits:
        random = np.random.default_rng([seed, member_number, *to_iso(init).encode()])
        draws.append(random.standard_normal((calls, *grid), dtype=np.float32))
    return list(torch.from_numpy(np.stack(draws, axis=1)).to(device))


def _shape(forecaster: Any, request: ForecastRequest, histories: np.ndarray) -> tuple[int, ...]:
    """Return the sizes (init, lead, member, channel, latitude, longitude)."""
    channels, grid = len(forecaster.output_statistics.channels), (forecaster.latitude.size, forecaster.longitude.size)
    return (len(histories), request.horizon, len(request.canonical.series), channels, *grid)


def make_forcings(forecaster: Any, device: torch.device) -> tensors.Forcings:
    """Return the forcings of a forecaster's task on its grid."""
    latitude, longitude = forecaster.latitude, forecaster.longitude
    weights = latitude_weights(xr.Dataset(coords={"latitude": latitude})).values
    return tensors.Forcings(forecaster.task, latitude, longitude, forecaster.statics, weights, device)
