"""Free runs: decades from one initial state, averaged over days or months as they go, in bounded memory.

Shape suffixes: B member, T state of a call, C channel, F forcing, Q conserved global mean, H latitude, W longitude.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from simvp_climate.data import reader
from simvp_climate.data.grid import find_axes, latitude_weights
from simvp_climate.data.variables import STANDARD_GRAVITY
from simvp_climate.data.windows import later_positions, shift, to_iso
from simvp_climate.forecasting import initial_states
from simvp_climate.forecasting.member_forecasts import check_no_members
from simvp_climate.forecasting.output_periods import OutputPeriods, output_periods, parse_time
from simvp_climate.forecasting.predict import make_forcings
from simvp_climate.forecasting.request import ForecastRequest, resolve_prescribed, resolve_request
from simvp_climate.processing import tensors
from simvp_climate.quality import rules

DRY_AIR = "dry_air"  # the mass of the atmosphere without water vapor, as surface pressure
STATISTICS = {"mean": "", "min": "_min", "max": "_max"}  # and the suffixes of their variables
_PERTURBATION = 0.01  # of the typical change over one step
BLOCK_BYTES = 2**26  # of the output that is written at once
_SAVE_SECONDS = 60.0  # between two states from which a killed run resumes
_FORCING_BYTES = 2**25  # of the forcings that are computed at once


@dataclass(frozen=True, eq=False)
class RunRequest:
    """What to run, resolved and checked."""

    forecaster: Any
    request: ForecastRequest  # of the initial state
    periods: OutputPeriods
    statistics: tuple[str, ...]
    members: int | None
    seed: int
    conserve: tuple[str, ...]
    positions: np.ndarray  # in the data, of the prescribed states from the first input state on; empty without

    @property
    def start(self) -> pd.Index:
        """The time of the initial state, as an index of length 1."""
        return self.request.init_times(self.request.histories)

    @property
    def calls(self) -> int:
        """The number of network calls."""
        return -(-len(self.periods.index) // self.forecaster.task.history)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of one period: (statistic, member, channel, latitude, longitude)."""
        channels = len(self.forecaster.output_statistics.channels)
        return len(self.statistics), self.members or 1, channels, *self.request_grid

    @property
    def request_grid(self) -> tuple[int, int]:
        """The numbers of latitudes and longitudes."""
        return self.forecaster.latitude.size, self.forecaster.longitude.size


@dataclass(frozen=True, eq=False)
class RunState:
    """All that resumes a run: the last states, the sums of the period in progress, and the random numbers."""

    calls: int  # done
    periods: int  # complete and returned
    pending: np.ndarray  # complete periods that follow, not returned yet, (period, statistic, member, ...), float32
    states: np.ndarray  # input of the next call, normalized, (member, history, channel, latitude, longitude)
    sums: np.ndarray  # of the period in progress, (statistic, member, channel, latitude, longitude), float64
    targets: np.ndarray  # global means to conserve, (member, channel)
    random: tuple[dict, ...]  # state of the generator of each member


def resolve_run(
    forecaster: Any, dataset: xr.Dataset, start: object, until: object, outputs: str | None,
    statistics: Sequence[str], members: int | None, seed: int, conserve: Sequence[str],
) -> RunRequest:  # fmt: skip
    """Return a checked run; arguments and errors are those of `Forecaster.run`."""
    task = forecaster.task
    if task.inputs:
        fix = "Train with them among the variables, or as prescribed"
        raise ValueError(
            f"A run needs forecasts of all inputs, and inputs={list(task.inputs)} are not forecast. {fix}."
        )
    for name, value, minimum in (("members", members, 1), ("seed", seed, 0)):
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        if not (value is None and name == "members") and not (is_integer and value >= minimum):
            raise ValueError(f"{name}={value!r} must be an integer of at least {minimum}.")
    if members is None and seed != 0:
        raise ValueError(f"seed={seed!r} would be ignored without members. Give members=16, or leave seed out.")
    inits = None
    if start is not None:
        time = find_axes(dataset).time
        inits = [parse_time("start", start, dataset.indexes[time])] if time in dataset.indexes else [start]
    initial = replace(task, prescribed=()) if task.prescribed else task  # a run looks further than any horizon
    request = resolve_request(replace(forecaster, task=initial), dataset, inits, None, None)
    check_no_members("dataset", request.canonical.dataset)
    first = request.init_times(request.histories)
    periods = output_periods(first, until, task.step, outputs)
    statistics = _parse_names("statistics", statistics, list(STATISTICS))
    if periods.is_point and statistics != ("mean",):
        raise ValueError(f"statistics={list(statistics)} would be ignored: each output is one state. Leave them out.")
    channels = forecaster.output_statistics.channels[: forecaster.network.shared_channels]
    known = [*map(str, channels), *([DRY_AIR] if {"sp", "tcwv"} <= set(map(str, channels)) else [])]
    if DRY_AIR in conserve and DRY_AIR not in known:
        rule = "needs surface pressure and total column water vapor, 'sp' and 'tcwv', among the variables of the task"
        raise ValueError(f"conserve={conserve!r}: {DRY_AIR!r} {rule}, which are {list(task.variables)}.")
    conserve = _parse_names("conserve", conserve, known, needed=False)
    positions = np.empty(0, dtype=int)
    if task.prescribed:
        request = replace(request, prescribed=resolve_prescribed(forecaster, dataset))
        positions = _prescribed_positions(request, task, len(periods.index))
    resolved = RunRequest(forecaster, request, periods, statistics, members, int(seed), conserve, positions)
    _conserved_means(resolved)  # its error comes before a store is made
    return resolved


@torch.no_grad()
def initial_state(request: RunRequest) -> RunState:
    """Return the state before the first call."""
    forecaster, members = request.forecaster, request.members or 1
    scale, statistics = tensors.Scale(forecaster.input_statistics, torch.device("cpu")), forecaster.input_statistics
    series, histories = request.request.canonical.series[0], request.request.histories
    _, states, _ = next(initial_states.read_batches(request.request, series, histories, statistics))
    x_BTCHW = scale.normalize(torch.from_numpy(states)).repeat(members, 1, 1, 1, 1)
    generators = [np.random.default_rng([request.seed, m, *to_iso(request.start[0]).encode()]) for m in range(members)]
    if getattr(forecaster.network, "noise_grid", None) is None:
        # members differ by small perturbations, which grow; the first one has none
        size_C11 = (_PERTURBATION * statistics.change_std[0] / statistics.std)[:, None, None]
        for member in range(1, members):
            noise_CHW = generators[member].standard_normal(x_BTCHW.shape[2:]) * size_C11
            x_BTCHW[member] += torch.from_numpy(np.where(statistics.mask, 0, noise_CHW)).float()
    weights_CHW = _mean_weights(request)
    targets = (x_BTCHW[:, -1].numpy() * weights_CHW).sum(axis=(-2, -1), dtype=np.float64)
    random = tuple(generator.bit_generator.state for generator in generators)
    return RunState(0, 0, _stack(request, []), x_BTCHW.numpy(), _empty_sums(request), targets, random)


@torch.no_grad()
def simulate(
    request: RunRequest, state: RunState, advance: Callable[[int], object] | None = None
) -> Iterator[tuple[slice, np.ndarray, RunState]]:
    """Yield blocks of complete periods from a state on, with the state after each.

    A block: the positions of its periods; its values (period, statistic, member, channel, latitude, longitude) in the
    units of the data, float32. A block without periods comes every `_SAVE_SECONDS`, for its state.
    FloatingPointError if a value leaves the range of `quality.rules.plausible_limits`, after a last block.
    """
    forecaster, periods, network = request.forecaster, request.periods, request.forecaster.network
    history, device = forecaster.task.history, next(network.parameters()).device
    scale = tensors.Scale(forecaster.input_statistics, device)
    output_scale = tensors.Scale(forecaster.output_statistics, device)
    weights_CHW = torch.from_numpy(_mean_weights(request)).to(device, torch.float32)
    conserved, factors_QC = _conserved_means(request)
    targets_BQ = torch.from_numpy(state.targets @ factors_QC.T).to(device, torch.float32)[:, None]
    factors_QC = torch.from_numpy(factors_QC).to(device, torch.float32)
    generators = [np.random.default_rng() for _ in state.random]
    for generator, saved in zip(generators, state.random, strict=True):
        generator.bit_generator.state = saved
    x_BTCHW = torch.from_numpy(state.states).to(device)
    forcings = _forcing_reader(request, device)
    sums, first, complete = state.sums.copy(), state.periods, list(state.pending)
    block = max(1, BLOCK_BYTES // (4 * int(np.prod(request.shape))))

    def state_after(calls: int, pending: list[np.ndarray]) -> RunState:
        states, random = x_BTCHW.cpu().numpy().copy(), tuple(generator.bit_generator.state for generator in generators)
        return RunState(calls, first, _stack(request, pending), states, sums.copy(), state.targets, random)

    saved_at = time.monotonic()
    for call in range(state.calls, request.calls):
        before = x_BTCHW, tuple(generator.bit_generator.state for generator in generators)
        arguments = _call_arguments(network, forcings(call, len(x_BTCHW)), generators, device)
        y_BTCHW = network(x_BTCHW, *arguments)
        if conserved:
            means_BTC = (y_BTCHW[:, :, : x_BTCHW.shape[2]] * weights_CHW).sum(dim=(-2, -1))
            y_BTCHW[:, :, conserved] += (targets_BQ - means_BTC @ factors_QC.T)[..., None, None]
        x_BTCHW = scale.constrain(y_BTCHW[:, :, : x_BTCHW.shape[2]])
        values = output_scale.denormalize(y_BTCHW.float()).cpu().numpy()
        try:
            _check_limits(request, values, call)
        except FloatingPointError:
            x_BTCHW, random = before
            rows, first = slice(first, first + len(complete)), first + len(complete)
            yield rows, _stack(request, complete), replace(state_after(call, []), random=random)
            raise
        values = request.request.conversion.from_training_units(values, network.shared_channels)
        for step in range(call * history, min((call + 1) * history, len(periods.index))):
            period = periods.index[step]
            if period >= 0:
                _add(sums, values[:, step - call * history], request.statistics)
            if period >= 0 and (step + 1 == len(periods.index) or periods.index[step + 1] != period):
                complete.append(_finish(sums, periods.counts[period], request.statistics))
                sums = _empty_sums(request)
        if advance is not None:
            advance(min((call + 1) * history, len(periods.index)) - call * history)
        if complete and (len(complete) >= block or call + 1 == request.calls):
            rows, first = slice(first, first + len(complete)), first + len(complete)
            yield rows, _stack(request, complete), state_after(call + 1, [])
            complete, saved_at = [], time.monotonic()
        elif time.monotonic() - saved_at >= _SAVE_SECONDS:
            yield slice(first, first), _stack(request, []), state_after(call + 1, complete)
            saved_at = time.monotonic()


def _stack(request: RunRequest, periods: list[np.ndarray]) -> np.ndarray:
    return np.stack(periods) if periods else np.empty((0, *request.shape), dtype="f4")


def _call_arguments(
    network: Any, f_BTFHW: Tensor | None, generators: list[np.random.Generator], device: torch.device
) -> list[Tensor | None]:  # fmt: skip
    """Return the arguments of a network after its states: forcings, and noise where it takes noise."""
    if (grid := getattr(network, "noise_grid", None)) is None:
        return [] if f_BTFHW is None else [f_BTFHW]
    noise = np.stack([generator.standard_normal(grid, dtype=np.float32) for generator in generators])
    return [f_BTFHW, torch.from_numpy(noise).to(device)]


def _forcing_reader(request: RunRequest, device: torch.device) -> Callable[[int, int], Tensor | None]:
    """Return a function of a call and the number of members that returns the forcings of the call."""
    forecaster, task = request.forecaster, request.forecaster.task
    history, compute = task.history, make_forcings(forecaster, device)
    names = tensors.channel_roles(task, forecaster.normalizer.channels).forcings
    call_bytes = 4 * history * max(1, len(names)) * int(np.prod(request.request_grid))
    size = max(1, min(256, _FORCING_BYTES // call_bytes))  # calls at once
    known: dict[int, Tensor | None] = {}

    def forcings(call: int, members: int) -> Tensor | None:
        block = call // size
        if block not in known:
            calls = min(size, request.calls - block * size)
            init = shift(request.start, task.step, block * size * history)
            f_BTFHW = compute(init, calls * history)
            if task.prescribed:
                p_BTCHW = _read_prescribed(request, block * size, calls, device)
                f_BTFHW = tensors.add_prescribed(f_BTFHW, p_BTCHW, history, calls * history)
            known.clear()
            known[block] = f_BTFHW
        f_BTFHW = known[block]
        if f_BTFHW is None:
            return None
        within = (call - block * size) * history
        return f_BTFHW[:, within : within + history].expand(members, -1, -1, -1, -1)

    return forcings


def _read_prescribed(request: RunRequest, call: int, calls: int, device: torch.device) -> Tensor:
    """Return the prescribed states of some calls, normalized, from their first input state on, (1, T, C, H, W)."""
    assert request.request.prescribed is not None
    (canonical, conversion), statistics = request.request.prescribed, request.forecaster.prescribed_statistics
    history, dataset = request.forecaster.task.history, canonical.series[0]
    positions = request.positions[call * history : (call + calls + 1) * history]
    _, states = initial_states.read_checked(
        reader.open_source(dataset), positions, canonical, dataset, conversion, statistics
    )
    return tensors.Scale(statistics, device).normalize(torch.from_numpy(states).to(device))[None]


def _prescribed_positions(request: ForecastRequest, task: Any, steps: int) -> np.ndarray:
    """Return the positions of the prescribed states; ValueError if one is missing."""
    times = request.canonical.dataset.indexes["time"]
    later = later_positions(times, task.step, request.histories[:, -1], range(1, steps + 1))[0]
    if (later < 0).any():
        missing = shift(request.init_times(request.histories), task.step, int(np.argmax(later < 0)) + 1)[0]
        message = f"prescribed={list(task.prescribed)} are needed at {to_iso(missing)}, which the data do not hold"
        raise ValueError(f"{message} ({to_iso(times[0])} to {to_iso(times[-1])}). Give longer data, or another until.")
    return np.concatenate([request.histories[0], later])


def _mean_weights(request: RunRequest) -> np.ndarray:
    """Return weights that give the global mean of each input channel over cells with values, (C, H, W)."""
    latitude = xr.Dataset(coords={"latitude": request.forecaster.latitude})
    weights = np.where(request.forecaster.input_statistics.mask, 0, latitude_weights(latitude).values[:, None])
    return weights / weights.sum(axis=(1, 2), keepdims=True)


def _conserved_means(request: RunRequest) -> tuple[list[int], np.ndarray]:
    """Return the channels to correct (Q,), and what each conserved mean is, as factors of normalized means (Q, C).

    The mass of dry air: surface pressure less the weight of the water vapor (Trenberth and Smith 2005, Journal of
    Climate 18, 864-875).
    """
    statistics = request.forecaster.output_statistics
    names = [str(channel) for channel in statistics.channels]
    used = ["sp", "tcwv"] if DRY_AIR in request.conserve else []
    if logarithmic := [name for name in names if name in (*request.conserve, *used)
                       and statistics.log_scale[names.index(name)]]:  # fmt: skip
        rule = "the network has the logarithm of these channels, whose mean is not that of the values"
        raise ValueError(f"conserve={logarithmic}: {rule}. Leave them out of conserve.")
    channels = [names.index("sp" if name == DRY_AIR else name) for name in request.conserve]
    if len(set(channels)) < len(channels):
        raise ValueError(f"conserve={list(request.conserve)}: both correct the surface pressure. Choose one of them.")
    factors = np.eye(len(request.forecaster.input_statistics.channels))[channels]
    if DRY_AIR in request.conserve:
        pressure, vapor = (names.index(name) for name in used)
        units = statistics.units[pressure], statistics.units[vapor]
        if units != ("Pa", "kg m-2"):
            raise ValueError(f"conserve={[DRY_AIR]} needs sp in Pa and tcwv in kg m-2, not {units}. Convert the data.")
        ratio = statistics.std[vapor] / statistics.std[pressure]
        factors[request.conserve.index(DRY_AIR), vapor] = -STANDARD_GRAVITY * ratio
    return channels, factors


def _check_limits(request: RunRequest, values: np.ndarray, call: int) -> None:
    """Raise FloatingPointError for a value that no state can have, with its place."""
    statistics, task = request.forecaster.output_statistics, request.forecaster.task
    limits = rules.plausible_limits(statistics).T[..., None, None]
    mask = statistics.mask
    with np.errstate(invalid="ignore"):
        outside = ~((values >= limits[0]) & (values <= limits[1])) & ~mask
    if not outside.any():
        return
    member, step, channel, row, column = np.argwhere(outside)[0]
    time = to_iso(shift(request.start, task.step, int(call * task.history + step + 1))[0])
    low, high = rules.plausible_limits(statistics)[channel]
    place = f"{request.forecaster.latitude[row]:g} degrees north, {request.forecaster.longitude[column]:g} east"
    member_text = "" if request.members is None else f", member {member}"
    if forcings := {"time_of_year", "insolation"}.intersection(task.forcings):
        fix = f"with TrainConfig(select='rollout', input_noise=0.25), or longer (it has the forcing {min(forcings)!r})"
    else:
        fix = "with forcings=['time_of_year'] or 'insolation', with TrainConfig(select='rollout'), or longer"
    raise FloatingPointError(
        f"the run left the range of possible states: {statistics.channels[channel]} is "
        f"{values[member, step, channel, row, column]:.6g} {statistics.units[channel]} at {time}, {place}{member_text},"
        f" and must be from {low:.6g} to {high:.6g}. Train {fix}. With store=, the periods before are in a store whose "
        "name ends with .unfinished"
    )


def _add(sums: np.ndarray, state: np.ndarray, statistics: Sequence[str]) -> None:
    for index, name in enumerate(statistics):
        operation = {"mean": np.add, "min": np.minimum, "max": np.maximum}[name]
        operation(sums[index], state, out=sums[index])


def _empty_sums(request: RunRequest) -> np.ndarray:
    initial = {"mean": 0.0, "min": np.inf, "max": -np.inf}
    sums = np.empty(request.shape)
    for index, name in enumerate(request.statistics):
        sums[index] = initial[name]
    return sums


def _finish(sums: np.ndarray, count: int, statistics: Sequence[str]) -> np.ndarray:
    return np.stack([sums[i] / count if name == "mean" else sums[i] for i, name in enumerate(statistics)]).astype("f4")


def _parse_names(setting: str, names: Sequence[str], known: list[str], needed: bool = True) -> tuple[str, ...]:
    if isinstance(names, str) or not set(names) <= set(known) or len(set(names)) < len(names) or needed > len(names):
        example = [names] if names in known else known[:1]
        raise ValueError(f"{setting}={names!r} must be a list of some of {known}, each once: {setting}={example}.")
    return tuple(name for name in known if name in names)
