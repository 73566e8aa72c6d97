"""The trained forecaster: a Dataset in, a labelled forecast out.

    request -> initial states, in the units of training -> network -> labels and CF attributes

Shape suffixes: B initialization, T time, C channel, F forcing, H latitude, W longitude.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import torch
import xarray as xr

from simvp_climate.data.files import check_parent
from simvp_climate.data.grid import latitude_weights
from simvp_climate.forecasting import export, hindcast, initial_states, labels, serialization, summary
from simvp_climate.forecasting.device import choose_device
from simvp_climate.forecasting.request import ForecastRequest, TrainedStates, resolve_request
from simvp_climate.metrics.uncertainty.intervals import Intervals, fit_intervals
from simvp_climate.networks.simvp_v2 import SimVPv2, rollout
from simvp_climate.processing import tensors
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task


@dataclass(frozen=True, eq=False)
class Forecaster:
    """A trained network with everything it needs to forecast: task, statistics, grid, provenance.

    Call it with a Dataset. `train` and `Forecaster.load` return one.

    Attributes
    ----------
    task, network, normalizer
        The variables and times to forecast, the network, and the statistics of the channels.
    latitude, longitude
        The training grid, ascending, in degrees.
    statics
        The fields without time among `task.forcings`, (field, latitude, longitude), as in the training data.
    provenance
        How it was trained: periods, settings, versions, loss per epoch.
    """

    task: Task
    network: SimVPv2
    normalizer: Normalizer
    latitude: np.ndarray
    longitude: np.ndarray
    statics: np.ndarray
    provenance: dict

    def __repr__(self) -> str:
        return (
            f"<Forecaster of {', '.join(self.task.forecast_variables)}: {self.task.horizon} steps of {self.task.step} "
            f"from {self.task.history}, grid {self.latitude.size} x {self.longitude.size}, "
            f"{summary.parameter_millions(self.network):.2g} M parameters, trained {self.provenance['training']}>"
        )

    def _repr_html_(self) -> str:
        parts = self.task, self.network, self.normalizer, self.latitude, self.longitude, self.provenance
        return summary.html(*parts, self.digest)

    def __call__(
        self,
        dataset: xr.Dataset,
        init_times: Iterable | None = None,
        every: str | None = None,
        horizon: int | None = None,
    ) -> xr.Dataset:
        """Return forecasts as a labelled Dataset in physical units.

        Parameters
        ----------
        dataset
            Holds at least `history` states up to each initialization; no truth is needed. Any lat-lon convention;
            states after an initialization are ignored. Units may differ from those of training where the conversion
            is exact (degC and K, hPa and Pa, geopotential height and geopotential). If it has a dimension of ensemble
            members, every member is forecast.
        init_times
            Initializations, each a time of `dataset` with a full history. Default: the last time.
        every
            Instead of `init_times`: every initialization with a full history at multiples of this from
            00 UTC (of 1970-01-01), for example "12h"; for calendar steps a number of months from January.
        horizon
            Number of steps; by default the task's. Horizons longer than one call of the network are rolled out.

        Returns
        -------
        xarray.Dataset
            The task's variables and diagnostics on (init_time, lead_time, [member, level,] latitude, longitude), with
            the names, order, coordinate values and units of `dataset` (diagnostics in the units of training), NaN
            where the training data never had a value, and `valid_time(init_time, lead_time)`.
            `forecast - dataset.sel(time=forecast.valid_time)` is complete if `dataset` has the variable names of the
            task and a dimension `time`, as `open_dataset(dataset, task.variables)` returns it.
            `to_netcdf` writes a CF file.

        Raises
        ------
        ValueError
            If the data do not match the training data (grid, variables, units that cannot be converted), a history is
            incomplete, a value in it is missing, or no initialization fits.
        OSError
            If the data cannot be read.
        """
        request = make_request(self, dataset, init_times, every, horizon)
        return predict(self, request, request.histories)[0]

    def hindcast(
        self,
        dataset: xr.Dataset,
        init_times: Iterable | None = None,
        every: str | None = None,
        horizon: int | None = None,
        *,
        store: str | os.PathLike,
        progress: bool = True,
    ) -> xr.Dataset:
        """Write forecasts from many initializations to a Zarr store, in bounded memory, and open the store.

        A few initializations at a time are forecast and written. Repeat a call that was killed: it resumes, and ends
        with the same store. If the store is complete, the call opens it.

        Parameters
        ----------
        dataset, init_times, every, horizon
            As for a call of the forecaster; `init_times` or `every` is required.
        store
            Path of the store: a folder that does not exist yet, or that of the same hindcast. It is called
            "<store>.unfinished" until it is complete.
        progress
            Whether to show a progress bar.

        Returns
        -------
        xarray.Dataset
            As from a call of the forecaster, lazily read from the store. The store is Zarr format 2 with consolidated
            metadata.

        Raises
        ------
        FileExistsError
            If `store` or its unfinished form is something else or another hindcast; the message lists the differences.
        FileNotFoundError
            If the folder for the store does not exist.
        ValueError, OSError
            As for a call of the forecaster.
        """
        if init_times is None and every is None:
            raise ValueError("a hindcast needs its initializations: pass every='12h' or init_times=[...]")
        request = make_request(self, dataset, init_times, every, horizon)
        identity = hindcast.identify(request, self.task.variables, self.digest)
        template_of, forecast = partial(template, self, request), partial(predict, self, request)
        return hindcast.write(store, identity, request.histories, template_of, forecast, progress)

    def interval(
        self,
        probability: float,
        valid: xr.Dataset,
        init_times: Iterable | None = None,
        every: str | None = None,
        horizon: int | None = None,
        climatology: xr.Dataset | None = None,
    ) -> Intervals:
        """Return prediction intervals that contain the truth with a probability, fitted on a validation period.

        >>> bands = forecaster.interval(0.9, valid, every="24h")
        >>> bands(forecaster(test, every="12h"))

        The forecasts are made in memory. If they are too large, write them with `hindcast(valid, ..., store=...)` and
        call `fit_intervals(forecasts, valid, probability)`, which reads one lead at a time.

        Parameters
        ----------
        probability
            Between 0 and 1.
        valid
            Data used neither for training nor for verification, with all months to be forecast: best a whole year.
        init_times, every, horizon
            As for a call of the forecaster; `init_times` or `every` is required.
        climatology
            Intervals are put around forecasts shrunk towards it, see `fit_intervals`.

        Raises
        ------
        ValueError
            As for a call of the forecaster, and as in `fit_intervals`.
        """
        if init_times is None and every is None:
            raise ValueError("intervals need initializations in valid: pass every='24h' or init_times=[...]")
        return fit_intervals(self(valid, init_times, every, horizon), valid, probability, climatology)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of task, statistics, grid and weights. Forecasters with the same digest forecast the same."""
        return serialization.content_digest(
            self.task, self.network, self.normalizer, self.latitude, self.longitude, self.statics
        )

    @property
    def training_curve(self) -> pd.DataFrame:
        """The training curve: one row per `epoch` from 1, one column per recorded number.

        `loss` is the mean over the training windows, `valid_loss` that over the validation windows, `valid_rmse_...`
        are in physical units. `attrs["units"]` has the units by column, `attrs["kept"]` the epoch of these weights.
        """
        return summary.training_curve(self.provenance, self.normalizer)

    def save(self, path: str | os.PathLike) -> None:
        """Write the forecaster to one safetensors file that `load` reads; it contains no code.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist.
        FileExistsError
            If the path exists and is not a forecaster.
        """
        grid = self.latitude, self.longitude
        serialization.save(
            check_parent(path), self.task, self.network, self.normalizer, *grid, self.statics, self.provenance
        )

    @staticmethod
    def load(path: str | os.PathLike, device: str = "auto") -> "Forecaster":
        """Return the forecaster saved at `path`, on a device ("auto": a GPU if there is one).

        Reads files of all older versions. It needs no training data, and runs no code from the file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a forecaster, was written by a newer version, is cut short or damaged, or is
            inconsistent; the message says which.
        """
        return Forecaster(**serialization.load(Path(path), choose_device(device)))

    def export(self, path: str | os.PathLike) -> None:
        """Write the forecaster as a program that runs on a CPU without this package.

        The program contains everything around the network: transforms, statistics, mask, bounds, and the rollout to the
        task's horizon. It takes states in physical units, (batch, history, channel, latitude, longitude), float32, of
        any batch size, on the training grid with latitude and longitude ascending. It returns forecasts (batch,
        horizon, channel, latitude, longitude) in the same units, NaN where the training data never had a value.
        For a task with forcings, its second input is the result of `forcings`. The file also holds names and units of
        the channels, the grid, step, history and horizon, as JSON.

        Parameters
        ----------
        path
            "name.pt2" writes a PyTorch program:

            >>> about = {"forecaster.json": ""}
            >>> program = torch.export.load("name.pt2", extra_files=about).module()
            >>> forecasts = program(states)  # program(states, forcings) for a task with forcings
            >>> json.loads(about["forecaster.json"])["channels"]

            "name.onnx" writes an ONNX program; this needs `pip install "simvp-climate[onnx]"`:

            >>> program = onnxruntime.InferenceSession("name.onnx")
            >>> (forecasts,) = program.run(None, {"states": states})  # {"states": states, "forcings": forcings}
            >>> json.loads(program.get_modelmeta().custom_metadata_map["forecaster"])["channels"]

        Raises
        ------
        ValueError
            If the name has another ending.
        FileNotFoundError
            If the folder does not exist.
        FileExistsError
            If the path exists and is not an exported program.
        ImportError
            If ONNX is not installed.
        """
        export.export(check_parent(path), self.task, self.network, self.normalizer, self.latitude, self.longitude)

    def forcings(self, init_times: Iterable, horizon: int | None = None) -> xr.DataArray:
        """Return the forcings of forecasts from some times, as the programs of `export` take them.

        Parameters
        ----------
        init_times
            Initializations: dates as text, or an index of times of any calendar.
        horizon
            Number of steps; by default the task's.

        Returns
        -------
        xarray.DataArray
            (init_time, state, forcing, latitude, longitude), float32, no unit; one `state` for every state that the
            calls of the network take in. `forcing` has length 0 if the task has no forcings.
        """
        horizon = self.task.horizon if horizon is None else horizon
        inits = init_times if isinstance(init_times, pd.Index) else pd.Index(np.atleast_1d(np.asarray(init_times)))
        if not isinstance(inits, xr.CFTimeIndex):
            inits = pd.DatetimeIndex(inits)
        calls = _count_calls(self.task, horizon)
        forcings = _make_forcings(self, torch.device("cpu"))
        shape = (len(inits), calls * self.task.history, 0, self.latitude.size, self.longitude.size)
        values = forcings(inits, calls).numpy() if len(forcings) else np.zeros(shape, dtype=np.float32)
        return xr.DataArray(
            values,
            dims=("init_time", "state", "forcing", "latitude", "longitude"),
            coords={
                "init_time": inits,
                "forcing": tensors.forcing_names(self.task),
                "latitude": self.latitude,
                "longitude": self.longitude,
            },
        )

    @cached_property
    def input_statistics(self) -> Normalizer:
        """The statistics of the channels that the network takes in."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).input_channels)

    @cached_property
    def output_statistics(self) -> Normalizer:
        """The statistics of the channels that the network forecasts."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).output_channels)


def trained_states(forecaster: Forecaster) -> TrainedStates:
    """Return the description of the states that a Dataset must have to be forecast."""
    return TrainedStates(forecaster.task, forecaster.input_statistics, forecaster.latitude, forecaster.longitude)


def make_request(
    forecaster: Forecaster,
    dataset: xr.Dataset,
    init_times: Iterable | None = None,
    every: str | None = None,
    horizon: int | None = None,
) -> ForecastRequest:
    """Return a checked request for forecasts; arguments and errors are those of a call of the forecaster."""
    return resolve_request(dataset, trained_states(forecaster), init_times, every, horizon)


def predict(
    forecaster: Forecaster,
    request: ForecastRequest,
    histories: np.ndarray,
    perturb: Callable[[pd.Index], np.ndarray] | None = None,
) -> tuple[xr.Dataset, list[str]]:
    """Return labelled forecasts from some histories of a request, and the digest of the data of each initialization.

    `perturb` returns perturbations of all states of a history, (init, channel, latitude, longitude), in the units of
    training.
    """
    shape = _forecast_shape(forecaster, request, histories)
    states, digests = np.empty(shape, dtype=np.float32), []
    for index, member in enumerate(request.canonical.series):
        digests.append(predict_states(forecaster, request, member, histories, perturb, out=states[:, :, index]))
    combined = initial_states.combine_member_digests(digests)
    return _label(forecaster, request, histories, states, combined), combined


def template(forecaster: Forecaster, request: ForecastRequest, histories: np.ndarray) -> xr.Dataset:
    """Return a Dataset as `predict` does, with dask arrays of NaN in place of forecasts: it needs no memory."""
    shape = _forecast_shape(forecaster, request, histories)
    states = dask.array.full(shape, np.float32(np.nan), chunks=shape, dtype=np.float32)
    return _label(forecaster, request, histories, states, [])


@torch.no_grad()
def predict_states(
    forecaster: Forecaster,
    request: ForecastRequest,
    member: xr.Dataset,
    histories: np.ndarray,
    perturb: Callable[[pd.Index], np.ndarray] | None,
    out: np.ndarray,
) -> list[bytes]:
    """Write forecasts of one ensemble member into `out`, and return the digests of the initial states.

    `out` has the shape (init, lead, channel, latitude, longitude), in the units of the data.
    """
    network, horizon, conversion = forecaster.network, request.horizon, request.conversion
    device = next(network.parameters()).device
    inputs = forecaster.input_statistics
    input_scale = tensors.Scale(inputs, device)
    output_scale = tensors.Scale(forecaster.output_statistics, device)
    forcings, calls = _make_forcings(forecaster, device), _count_calls(forecaster.task, horizon)
    digests = []
    for batch in initial_states.read_batches(request.canonical, member, histories, horizon, inputs, conversion):
        inits, states = request.init_times(histories[batch.rows]), batch.states
        if perturb is not None:
            states += perturb(inits).astype(np.float32)[:, np.newaxis]
        x_BTCHW = torch.from_numpy(states).to(device)
        f_BTFHW = forcings(inits, calls)
        y_BTCHW = rollout(network, input_scale.normalize(x_BTCHW), horizon, f_BTFHW, input_scale.constrain)
        forecasts = output_scale.denormalize(y_BTCHW.float()).cpu().numpy()
        out[batch.rows] = conversion.from_trained(forecasts, network.shared_channels)
        digests += batch.digests
    return digests


def _label(
    forecaster: Forecaster, request: ForecastRequest, histories: np.ndarray, states: np.ndarray, digests: list[str]
) -> xr.Dataset:
    task, inits = forecaster.task, request.init_times(histories)
    attributes = labels.origin_attributes(task, forecaster.provenance, forecaster.digest, request.canonical.original)
    return labels.label(states, request.canonical, inits, task, forecaster.output_statistics, attributes, digests)


def _forecast_shape(forecaster: Forecaster, request: ForecastRequest, histories: np.ndarray) -> tuple[int, ...]:
    """Return (init, lead, member, channel, latitude, longitude)."""
    channels, grid = len(forecaster.output_statistics.channels), (forecaster.latitude.size, forecaster.longitude.size)
    return (len(histories), request.horizon, len(request.canonical.series), channels, *grid)


def _count_calls(task: Task, horizon: int) -> int:
    """Return the number of network calls for a horizon: each call emits `history` states."""
    return -(-horizon // task.history)


def _make_forcings(forecaster: Forecaster, device: torch.device) -> tensors.Forcings:
    latitude, longitude = forecaster.latitude, forecaster.longitude
    weights = latitude_weights(xr.Dataset(coords={"latitude": latitude})).values
    return tensors.Forcings(forecaster.task, latitude, longitude, forecaster.statics, weights, device)
