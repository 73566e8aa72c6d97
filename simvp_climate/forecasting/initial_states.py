"""Read and check the initial states of forecasts, convert them to the units of training, and digest their data."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import xarray as xr

from simvp_climate.data import reader
from simvp_climate.data.conventions import Canonical
from simvp_climate.data.windows import later_positions
from simvp_climate.forecasting.request import ForecastRequest, UnitConversion
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.quality import rules

# Input and output states of one network call; its activations take about 50 times as much memory.
_BATCH_BYTES = 2**24


def read_batches(
    request: ForecastRequest, dataset: xr.Dataset, histories: np.ndarray, statistics: Normalizer
) -> Iterator[tuple[slice, np.ndarray, list[bytes]]]:
    """Yield batches of checked initial states of forecasts from `dataset`, a series of the request.

    A batch: its positions among the histories; its states in the units of training, (init, history, channel, latitude,
    longitude), float32; and the SHA-256 of each history as it is in the data.
    """
    source = reader.open_source(dataset)
    history, conversion = histories.shape[1], request.conversion
    batch = max(1, _BATCH_BYTES // (source.state_bytes * (history + request.horizon)))
    for start in range(0, len(histories), batch):
        rows = slice(start, min(start + batch, len(histories)))
        # histories overlap: read every state once
        positions, indices = np.unique(histories[rows], return_inverse=True)
        indices = indices.reshape(-1, history)
        stored, states = read_checked(source, positions, request.canonical, dataset, conversion, statistics)
        state_digests = [_digest(state) for state in stored]
        digests = [hashlib.sha256(b"".join(state_digests[index] for index in row)).digest() for row in indices]
        yield rows, states[indices], digests


def read_prescribed(
    request: ForecastRequest, series: int, histories: np.ndarray, step: str, statistics: Normalizer
) -> np.ndarray:
    """Return the prescribed states of forecasts, from the first input state to the last lead, in units of training.

    The result is (init, history + horizon, channel, latitude, longitude), float32; `series` counts the members.
    """
    assert request.prescribed is not None
    canonical, conversion = request.prescribed
    dataset = canonical.series[series if len(canonical.series) > 1 else 0]
    later = later_positions(dataset.indexes["time"], step, histories[:, -1], range(1, request.horizon + 1))
    windows = np.concatenate([histories, later], axis=1)
    positions, indices = np.unique(windows, return_inverse=True)
    source = reader.open_source(dataset)
    return read_checked(source, positions, canonical, dataset, conversion, statistics)[1][
        indices.reshape(windows.shape)
    ]


def read_checked(
    source: reader.Source, positions: np.ndarray, canonical: Canonical, dataset: xr.Dataset, conversion: UnitConversion,
    statistics: Normalizer,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return checked states as they are in the data, and in the units of training."""
    times = dataset.indexes["time"][positions]
    stored = reader.read(source, positions)
    rules.raise_first(rules.incomplete_history(stored, canonical, times, statistics.mask))
    states = conversion.to_training_units(stored)
    implausible = list(rules.implausible_states(statistics, states, stored, canonical, times))
    rules.raise_first(finding for finding in implausible if finding.code == "fill-values")
    # other units show in the means, and in every value
    rules.raise_first(rules.unlike_training_states(statistics, states, conversion.unlabeled))
    rules.raise_first(implausible)
    return stored, states


def states_digest(dataset: xr.Dataset, positions: np.ndarray) -> str:
    """Return the SHA-256 of the states of a canonical Dataset at some positions along time."""
    states = reader.read(reader.open_source(dataset), positions)
    return hashlib.sha256(b"".join(_digest(state) for state in states)).hexdigest()


def combine_member_digests(members: list[list[bytes]]) -> list[str]:
    """Return the digest of each initialization over all members, in hexadecimal."""
    return [hashlib.sha256(b"".join(digests)).hexdigest() for digests in zip(*members, strict=True)]


def combine_init_digests(digests: Iterable[str]) -> str:
    """Return the digest over all initializations from the digest of each, in hexadecimal."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest(state: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(state).tobytes()).digest()
