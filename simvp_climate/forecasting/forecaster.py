"""The trained forecaster: a Dataset in, a labelled forecast out. Here numbers become labels."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from numbers import Integral
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import torch
import xarray as xr

from simvp_climate.data import cf_encoding, reader
from simvp_climate.data.conventions import bounds_offsets, find_axes, find_member, orient, rename, restore, same_grid
from simvp_climate.data.files import check_parent
from simvp_climate.data.grid import latitude_weights
from simvp_climate.data.html_table import facts
from simvp_climate.data.store import is_sample
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.data.windows import check_times, find_windows, lead_times, parse_step, valid_times
from simvp_climate.forecasting import export, hindcast, serialization
from simvp_climate.metrics.uncertainty.intervals import Intervals, fit_intervals
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config, rollout
from simvp_climate.processing import tensors
from simvp_climate.processing.forcings import static_names
from simvp_climate.processing.statistics import Normalizer, check_plausible
from simvp_climate.processing.task import Task

# what a file implies that was written before a setting existed; a new one must be added here
IMPLIED = {
    "task": {"forcings": (), "transforms": (), "inputs": (), "diagnostics": ()},
    "model": {},
}
_STATISTICS = ("mean", "std", "change_std", "mask", "log_scale", "bounds")
_CONVENTIONS = {  # of the tensors of a file, for whoever reads it without this package
    "states": "(batch, time, channel, latitude, longitude), latitude and longitude ascending, in degrees",
    "history": "states in, one step apart, the last one at the initialization; the first lead is one step later",
    "normalized": "(x - mean) / std; of log(1 + max(x, 0) / log_scale) where log_scale > 0; 0 where mask",
    "bounds": "forecasts are held within them, in units; and have no value where mask",
    "statics": "fields without time, in their own units; the network sees them less their area mean, over their "
    "area-weighted standard deviation",
    "forcings": "channels after those of the state; at_output: at the time forecast from the place of the state",
}
_PRETRAINED = Path(__file__).parents[1] / "pretrained"
_HINDCAST_BYTES = 2**26  # of the forecasts that are made and written at a time
_BATCH_BYTES = 2**24  # states in and out of one network call; its own activations take about 50 times that


@dataclass(frozen=True, eq=False)
class Forecaster:
    """A trained network with all that it takes to forecast: task, statistics, grid, provenance.

    Call it with a Dataset; `train` and `Forecaster.load` make one.

    Attributes
    ----------
    task, network, normalizer
        What is forecast, with what, in which statistics.
    latitude, longitude
        The grid it was trained on, in ascending order, degrees.
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
        size = sum(value.numel() for value in self.network.parameters()) / 1e6
        return (
            f"<Forecaster of {', '.join(self.task.forecast_variables)}: {self.task.horizon} steps of {self.task.step} "
            f"from {self.task.history}, grid {self.latitude.size} x {self.longitude.size}, {size:.2g} M parameters, "
            f"trained {self.provenance['training']}>"
        )

    def _repr_html_(self) -> str:
        size = sum(value.numel() for value in self.network.parameters()) / 1e6
        told = self.provenance
        config, task = told.get("config", {}), self.task
        statistics = [
            f"{channel}: mean {mean:.5g}, standard deviation {std:.4g}" + (f" {unit}" if unit else "")
            for channel, unit, mean, std in zip(
                map(str, self.normalizer.channels), self.normalizer.units, self.normalizer.mean, self.normalizer.std,
                strict=True,
            )
        ]  # fmt: skip
        kept = f"{config.get('epochs', '?')} epochs, seed {config.get('seed', '?')}, {told.get('device', '')}"
        rows = {
            "forecasts": f"{', '.join(task.forecast_variables)}: {task.horizon} steps of {task.step} from "
            f"{task.history} states",
            "forcings": ", ".join(task.forcings),
            "grid": f"{self.latitude.size} latitudes, {self.longitude.size} longitudes, from {self.latitude[0]:g}, "
            f"{self.longitude[0]:g} degrees",
            "network": f"SimVPv2, {size:.2g} M parameters",
            "trained on": f"{told.get('training', '?')} ({kept})",
            "chosen on": str(told.get("validation") or "nothing: the last weights"),
            "statistics": [*statistics[:8], f"and {len(statistics) - 8} more"] if len(statistics) > 9 else statistics,
            "validation RMSE": self._skill(),
            "made": f"{told.get('created', '?')}, simvp-climate {told.get('versions', {}).get('simvp-climate', '?')}",
            "sha256": self.digest[:16],
        }
        return facts("Forecaster", rows)

    def _skill(self) -> list[str]:
        """Return the validation errors of the epoch whose weights were kept, in words."""
        table = self.history
        if "valid_loss" not in table or table.empty:
            return []
        best = table.loc[table["valid_loss"].idxmin()]
        units = table.attrs.get("units", {})
        names = [column for column in table if column.startswith("valid_rmse_")]
        return [f"{name.removeprefix('valid_rmse_').replace('_', ' ')}: {best[name]:.4g} {units.get(name, '')}".strip()
                for name in names]  # fmt: skip

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
            Holds at least `history` states up to each initialization; no truth is needed. Any lat-lon
            convention; nothing after an initialization is looked at. Units may differ from those trained on where
            the conversion is exact (degC and K, hPa and Pa, geopotential height and geopotential). With a dimension
            of ensemble members each is forecast.
        init_times
            Initializations, each a time of `dataset` with a full history. Default: the last time alone.
        every
            Instead of `init_times`: every initialization with a full history at multiples of this from
            00 UTC (of 1970-01-01), for example "12h"; for calendar steps a number of months from January.
        horizon
            Number of steps; by default the task's. Longer than one call of the network is rolled out.

        Returns
        -------
        xarray.Dataset
            The task's variables and diagnostics on (init_time, lead_time, [member, level,] latitude, longitude), with
            the names, order, coordinate values and units of `dataset` (diagnostics in the units that they were trained
            in), NaN where the training data never had a value, and
            `valid_time(init_time, lead_time)`, so that `forecast - dataset.sel(time=forecast.valid_time)` is
            complete, if the dataset calls the variables as the task does and its time `time`;
            `open_dataset(dataset, task.variables)` sees to both.
            `to_netcdf` gives a CF file.

        Raises
        ------
        ValueError
            If the data do not fit what was trained (grid, variables, units that cannot be converted), a history is
            incomplete, a value in it is missing, or no initialization fits.
        OSError
            If the data cannot be read.
        """
        start = self._start(dataset, init_times, every, horizon)
        return self._forecast(start, start.histories)

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
        """Write forecasts from many initializations to a Zarr store, in bounded memory, and return them, lazily opened.

        A few initializations at a time are forecast and written. A call that was killed goes on where it stopped when
        it is repeated, and ends with the same store; a call whose store is complete opens it.

        Parameters
        ----------
        dataset, init_times, every, horizon
            As for a call of the forecaster; `init_times` or `every` must be said.
        store
            The store: a folder that does not exist yet, or that of the same hindcast. Until it is complete it is
            called "<store>.unfinished".
        progress
            Whether a bar shows how far it is.

        Returns
        -------
        xarray.Dataset
            As from a call of the forecaster, read from the store when it is used. The store is Zarr format 2 with
            consolidated metadata.

        Raises
        ------
        FileExistsError
            If `store`, or what is there of it, is something else or another hindcast; the message says what differs.
        FileNotFoundError
            If there is no folder to write it in.
        ValueError, OSError
            As for a call of the forecaster.
        """
        if init_times is None and every is None:
            raise ValueError("say from which times: every='12h', or init_times=[...]")
        start = self._start(dataset, init_times, every, horizon)
        return self._write(start, store, progress, partial(self._forecast, start))

    def _write(
        self,
        start: "Start",
        store: str | os.PathLike,
        progress: bool,
        forecast: Callable[..., xr.Dataset],
        members: int = 1,
        plan: dict | None = None,
    ) -> xr.Dataset:
        """Write what `forecast(histories, states_of, told)`, as `_forecast` takes them, makes to a store, and open it.

        `members` is how many forecasts it makes of each initialization, `plan` what else makes this run what it is.
        """
        channels, grid = len(self._told.channels), (self.latitude.size, self.longitude.size)
        one = 4 * channels * grid[0] * grid[1] * start.horizon * len(start.series) * members
        batch = max(1, _HINDCAST_BYTES // one)
        told: dict[str, list[str]] = {}

        def nothing(one: xr.Dataset, histories: np.ndarray, horizon: int) -> tuple[dask.array.Array, list[bytes]]:
            shape, chunks = (len(histories), horizon, channels, *grid), (batch, horizon, channels, *grid)
            return dask.array.full(shape, np.float32(np.nan), chunks=chunks, dtype=np.float32), []

        def make(part: slice) -> tuple[xr.Dataset, list[str]]:
            found = forecast(start.histories[part], None, told)
            return found, told["digests"]

        template = partial(forecast, start.histories, nothing, None)
        return hindcast.write(check_parent(store), self._plan(start, batch) | (plan or {}), template, make, progress)

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
            Data that were not trained on and will not be verified, with all months to be forecast: best a whole year.
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
            raise ValueError("say from which times of the validation period: every='24h', or init_times=[...]")
        return fit_intervals(self(valid, init_times, every, horizon), valid, probability, climatology)

    def _plan(self, start: "Start", batch: int) -> dict:
        """Return what makes a hindcast this one, in plain values."""
        inits = start.inside.indexes["time"][start.histories[:, -1]]
        axes = find_axes(start.dataset)
        grid = [start.dataset[axis].values.tolist() for axis in (axes.latitude, axes.longitude, axes.level) if axis]
        return {
            "forecaster": self.digest,
            "horizon": start.horizon,
            "initializations": len(inits),
            "first": str(inits[0]),
            "last": str(inits[-1]),
            "times": hashlib.sha256("\n".join(map(str, inits)).encode()).hexdigest(),
            "grid": hashlib.sha256(json.dumps(grid).encode()).hexdigest(),
            "members": len(start.series),
            "units": {name: str(start.inside[name].attrs.get("units", "")) for name in self.task.variables},
            # the data are known by the states of the first and the last forecast
            "data": [self._history_digest(one, at) for one in start.series for at in start.histories[[0, -1]]],
            "batch": batch,
        }

    @staticmethod
    def _history_digest(inside: xr.Dataset, history: np.ndarray) -> str:
        """Return the digest of the states at some positions, as `_states` makes it."""
        states = reader.read(reader.open_source(inside), history)
        return hashlib.sha256(b"".join(_digest(state) for state in states)).hexdigest()

    def _start(
        self, dataset: xr.Dataset, init_times: Iterable | None, every: str | None, horizon: int | None
    ) -> "Start":
        """Return what is to be forecast, after checking that it can be."""
        horizon = self.task.horizon if horizon is None else horizon
        if not isinstance(horizon, Integral) or horizon < 1:
            raise ValueError(f"horizon={horizon!r} must be a whole number of steps, at least 1")
        if not isinstance(dataset, xr.Dataset):
            raise ValueError(f"the forecaster takes an xarray.Dataset, not {type(dataset).__name__}: see open_dataset")
        if self.task.inputs and horizon > self.task.history:
            raise ValueError(
                f"horizon={horizon} takes more than one call of the network, which emits {self.task.history} states, "
                f"and of inputs={list(self.task.inputs)} no later state is known: take at most {self.task.history}"
            )
        inside = orient(rename(dataset, (*self.task.variables, *self.task.inputs), self.task.levels))
        histories = self._histories(inside, init_times, every)
        member = find_member(inside)
        series = [inside] if member is None else [inside.isel({member: at}) for at in range(inside.sizes[member])]
        for one in series:
            self.check(one)
        return Start(dataset, inside, tuple(series), member, histories, int(horizon))

    def _forecast(
        self,
        start: "Start",
        histories: np.ndarray,
        states_of: Callable | None = None,
        told: dict[str, list[str]] | None = None,
    ) -> xr.Dataset:
        """Return the forecasts from some histories, laid out as the data handed in.

        `states_of` makes other states than the network's; `told` is given the digests of the data of each
        initialization.
        """
        inits = start.inside.indexes["time"][histories[:, -1]]
        of_series, forecasts = [], []
        for one in start.series:
            states, found = (states_of or self._states)(one, histories, start.horizon)
            of_series.append(found)
            forecasts.append(self._label(states, inits, start.horizon, one))
        forecast = forecasts[0]
        if start.member is not None:
            along = start.inside[start.member] if start.member in start.inside.coords else start.member
            forecast = xr.concat(forecasts, along, combine_attrs="override", coords="minimal", compat="override")
        # of each initialization the data of all members, so that it can be told in parts
        digests = [hashlib.sha256(b"".join(of_members)).hexdigest() for of_members in zip(*of_series, strict=True)]
        if told is not None:
            told["digests"] = digests
        forecast = forecast.assign_attrs(
            self._origin(start.dataset),
            init_start=str(inits.min()),
            init_end=str(inits.max()),
            data_sha256=hindcast.combined(digests),
        )
        return cf_encoding.encode(restore(forecast, like=start.dataset))

    def _origin(self, dataset: xr.Dataset) -> dict[str, str]:
        """Return what a file says about where its forecasts come from."""
        found = {"forecaster_sha256": self.digest, "simvp_climate_version": version("simvp-climate")}
        if (seed := self.provenance.get("config", {}).get("seed")) is not None:
            found["seed"] = int(seed)
        if (commit := self.provenance.get("commit")) is not None:
            found["training_commit"] = commit
        source = dataset.encoding.get("source") or next(
            (v.encoding["source"] for v in dataset.data_vars.values() if v.encoding.get("source")), None
        )
        if source is not None and is_sample(source):
            source = "open_sample()"  # wherever the package is installed
        return found | ({"data_source": str(source)} if source else {})

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of task, statistics, grid and weights: two forecasters with the same one forecast the same."""
        digest = hashlib.sha256()
        header = {"task": dataclasses.asdict(self.task), "model": dataclasses.asdict(self.network.config)}
        digest.update(json.dumps(header, sort_keys=True).encode())
        digest.update(json.dumps([str(c) for c in self.normalizer.channels] + list(self.normalizer.units)).encode())
        arrays = [getattr(self.normalizer, name) for name in _STATISTICS]
        for array in (*arrays, self.latitude, self.longitude, self.statics):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check(self, inside: xr.Dataset) -> None:
        """Raise ValueError, naming what differs, unless an oriented Dataset is what was trained on."""
        grid = xr.Dataset(coords={"latitude": self.latitude, "longitude": self.longitude})
        try:
            same_grid(grid, inside)
        except ValueError as error:
            raise ValueError(f"the data are on another grid than the forecaster was trained on: {error}") from error
        found, seen = reader.channels(inside), self._seen.channels
        if found != seen:
            raise ValueError(
                f"the data have the channels {[str(c) for c in found]}, the forecaster was trained on "
                f"{[str(c) for c in seen]}: give the same variables and levels"
            )
        self._conversions(inside)

    @property
    def _seen(self) -> Normalizer:
        """The statistics of what goes into the network."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).input_channels)

    @property
    def _told(self) -> Normalizer:
        """The statistics of what comes out of the network."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).output_channels)

    def _conversions(self, inside: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return factor and offset that carry each channel to the units trained on, (channel, 1, 1)."""
        found = []
        for channel, trained in zip(self._seen.channels, self._seen.units, strict=True):
            units = inside[channel.variable].attrs.get("units", "")
            if not units or not trained or same_units(units, trained):
                found.append((1.0, 0.0))
                continue
            factors = conversion(channel.variable, units, trained)
            if factors is None:
                raise ValueError(
                    f"{channel.variable} is in {units!r}, the forecaster was trained in {trained!r}, and there is no "
                    "exact way from one to the other: convert the data, and set attrs['units']"
                )
            found.append(factors)
        factor, offset = np.array(found, dtype=np.float64).T[:, :, None, None]
        return factor, offset

    @property
    def history(self) -> pd.DataFrame:
        """The history of the training: a row for each `epoch` from 1, a column for each number that was kept.

        `loss` is the mean over the training windows, `valid_loss` that over the validation windows, `valid_rmse_...`
        are in physical units. `attrs["units"]` has those by column, `attrs["kept"]` the epoch whose weights these are.
        """
        table = pd.DataFrame(self.provenance.get("epochs", [])).drop(columns="epoch", errors="ignore")
        table.index = pd.RangeIndex(1, len(table) + 1, name="epoch")
        units = {}
        for channel, unit in zip(self.normalizer.channels, self.normalizer.units, strict=True):
            name = channel.variable if channel.level is None else f"{channel.variable}_{channel.level:g}"
            units |= {c: unit for c in table if f"{c}_".startswith(f"valid_rmse_{name}_")}
        table.attrs["units"] = units
        if len(table):
            table.attrs["kept"] = int(table["valid_loss"].idxmin()) if "valid_loss" in table else len(table)
        return table

    def save(self, path: str | os.PathLike) -> None:
        """Write the forecaster to one safetensors file that `load` reads; it holds no code.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        FileExistsError
            If the path exists and is not a forecaster.
        """
        path = check_parent(path)
        if path.exists() and not serialization.is_ours(path):
            raise FileExistsError(
                f"{str(path)!r} exists and is not a forecaster of simvp_climate: nothing was overwritten. "
                "Choose another path"
            )
        stored = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        arrays = {name: getattr(self.normalizer, name) for name in _STATISTICS}
        arrays |= {"latitude": self.latitude, "longitude": self.longitude, "statics": self.statics}
        stored |= {name: torch.tensor(np.asarray(array)) for name, array in arrays.items()}
        stored = {name: value.detach().cpu().contiguous() for name, value in stored.items()}
        header = {
            "task": dataclasses.asdict(self.task),
            "model": dataclasses.asdict(self.network.config),
            "channels": [[channel.variable, channel.level] for channel in self.normalizer.channels],
            "units": self.normalizer.units,
            "forcings": tensors.forcing_names(self.task),
            "conventions": _CONVENTIONS,
            "provenance": self.provenance,
        }
        serialization.write(path, header, stored)

    @staticmethod
    def load(path: str | os.PathLike, device: str = "auto") -> "Forecaster":
        """Return the forecaster saved at `path`, on a device ("auto": a GPU if there is one).

        Files of all older versions are read; no training data are needed, and nothing in a file can run.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a forecaster, was written by a newer version, is cut short or damaged, or does not hold
            together; the message says which.
        """
        path, device = Path(path), choose_device(device)
        content = serialization.read(path)
        try:
            return _assemble(content, device)
        except (KeyError, TypeError, ValueError) as error:
            words = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{str(path)!r} is no forecaster that can be used: {words}") from error

    def export(self, path: str | os.PathLike) -> None:
        """Write the forecaster as a program that runs without this package, on a CPU.

        What comes before and after the network is inside: transforms, statistics, mask, bounds, and as many calls as
        the task's horizon takes. A program takes states in physical units, (batch, history, channel, latitude,
        longitude), float32, latitude and longitude ascending as trained on, of any batch size, and returns forecasts
        (batch, horizon, channel, latitude, longitude) in the same units, NaN where the training data never had a value.
        For a task with forcings a second input is what `forcings` returns. Names and units of the channels, the grid,
        step, history and horizon go along as JSON.

        Parameters
        ----------
        path
            "name.pt2" is a program of torch:

            >>> about = {"forecaster.json": ""}
            >>> program = torch.export.load("name.pt2", extra_files=about).module()
            >>> forecasts = program(states)  # program(states, forcings) for a task with forcings
            >>> json.loads(about["forecaster.json"])["channels"]

            "name.onnx" is one of ONNX, and takes `pip install "simvp-climate[onnx]"` to write:

            >>> program = onnxruntime.InferenceSession("name.onnx")
            >>> (forecasts,) = program.run(None, {"states": states})  # {"states": states, "forcings": forcings}
            >>> json.loads(program.get_modelmeta().custom_metadata_map["forecaster"])["channels"]

        Raises
        ------
        ValueError
            If the name ends otherwise.
        FileNotFoundError
            If there is no such folder.
        FileExistsError
            If the path exists and is no such program.
        ImportError
            If ONNX is not installed.
        """
        names = tensors.forcing_names(self.task)
        parts = self.task, self.network, self.normalizer, self.latitude, self.longitude, names
        export.export(check_parent(path), *parts)

    def forcings(self, init_times: Iterable, horizon: int | None = None) -> xr.DataArray:
        """Return what the network sees beside the states for forecasts from some times, as `export`'s programs take it.

        Parameters
        ----------
        init_times
            Initializations: dates as text, or an index of times of any calendar.
        horizon
            Number of steps; by default the task's.

        Returns
        -------
        xarray.DataArray
            (init_time, state, forcing, latitude, longitude), float32, no unit: as many states as all network calls take
            in. Without forcings in the task there are none along `forcing`.
        """
        horizon = self.task.horizon if horizon is None else horizon
        inits = init_times if isinstance(init_times, pd.Index) else pd.Index(np.atleast_1d(np.asarray(init_times)))
        if not isinstance(inits, xr.CFTimeIndex):
            inits = pd.DatetimeIndex(inits)
        calls = -(-horizon // self.task.history)
        made = self._forcings(torch.device("cpu"))
        shape = (len(inits), calls * self.task.history, len(made), self.latitude.size, self.longitude.size)
        values = made(inits, calls).numpy() if len(made) else np.zeros(shape, dtype=np.float32)
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

    def _forcings(self, device: torch.device) -> tensors.Forcings:
        weights = latitude_weights(xr.Dataset(coords={"latitude": self.latitude})).values
        return tensors.Forcings(self.task, self.latitude, self.longitude, self.statics, weights, device)

    def _histories(self, inside: xr.Dataset, init_times: Iterable | None, every: str | None) -> np.ndarray:
        """Return the positions of the history of each initialization, shape (init, history)."""
        times = inside.indexes["time"]
        if init_times is not None and every is not None:
            raise ValueError(f"give init_times or every={every!r}, not both")
        found = find_windows(times, self.task.step, self.task.history, 0, "the dataset")
        if every is not None:
            if isinstance(parse_step(every), int) != isinstance(parse_step(self.task.step), int):
                raise ValueError(
                    f"every={every!r} and step={self.task.step!r}: one counts months, the other does not. Give both "
                    "in months, both as durations, or the init_times themselves"
                )
            chosen = found[_multiples(times[found[:, -1]], every)]
            if not len(chosen):
                raise ValueError(
                    f"every={every!r} fits none of the {len(found)} times with a full history, "
                    f"{times[found[0, -1]]} to {times[found[-1, -1]]}: multiples are counted from 00 UTC"
                )
            return chosen
        wanted = times[-1:] if init_times is None else pd.Index(np.atleast_1d(np.asarray(init_times)))
        if isinstance(times, pd.DatetimeIndex):  # dates may come as text
            wanted = pd.DatetimeIndex(wanted)
        elif not isinstance(wanted[0], times.date_type):
            raise ValueError(
                f"init_times has {wanted[0]!r}, the dataset the calendar {times.calendar!r}: take them from the data, "
                "for example ds.time[10:20]"
            )
        check_times(wanted, "init_times")
        rows = pd.Index(found[:, -1]).get_indexer(times.get_indexer(wanted))
        if (rows < 0).any():
            missing = wanted[rows < 0][0]
            raise ValueError(
                f"no forecast can start at {missing}: it takes {self.task.history} states {self.task.step} apart "
                f"up to then, without a gap. Full histories: {len(found)}, the first at {times[found[0, -1]]}, "
                f"the last at {times[found[-1, -1]]}"
            )
        return found[rows]

    @torch.no_grad()
    def _states(
        self,
        inside: xr.Dataset,
        histories: np.ndarray,
        horizon: int,
        perturb: Callable[[pd.Index], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, list[bytes]]:
        """Return forecasts in physical units, float32, (init, lead, channel, latitude, longitude), and digests.

        These are the SHA-256 of the history of each, as it is in the data. `perturb` returns what is added to all
        states of the histories, (init, channel, latitude, longitude), in the units trained in.
        """
        device = next(self.network.parameters()).device
        seen, told = self._seen, self._told
        scale, scale_told = tensors.Scale(seen, device), tensors.Scale(told, device)
        forcings = self._forcings(device)
        factor, offset = self._conversions(inside)
        # back again: what is not in the data comes in the units trained in
        own = len(told.channels) - self.network.shared_channels
        back_factor = np.concatenate([factor[: self.network.shared_channels], np.ones((own, 1, 1))])
        back_offset = np.concatenate([offset[: self.network.shared_channels], np.zeros((own, 1, 1))])
        converted = (factor != 1).any() or (offset != 0).any()
        source = reader.open_source(inside)
        unlabeled = [
            bool(trained) and not inside[channel.variable].attrs.get("units")
            for channel, trained in zip(seen.channels, seen.units, strict=True)
        ]
        inits = inside.indexes["time"][histories[:, -1]]
        calls = -(-horizon // self.task.history)
        batch = max(1, _BATCH_BYTES // (source.state_bytes * (self.task.history + horizon)))
        shape = (len(histories), horizon, len(told.channels), self.latitude.size, self.longitude.size)
        forecasts, digests = np.empty(shape, dtype=np.float32), []
        for start in range(0, len(histories), batch):
            positions, rows = np.unique(histories[start : start + batch], return_inverse=True)
            states = reader.read(source, positions)
            reader.check_finite(states, inside, positions, seen.mask)
            known = [_digest(state) for state in states]
            rows = rows.reshape(-1, histories.shape[1])
            digests += [hashlib.sha256(b"".join(known[at] for at in row)).digest() for row in rows]
            batch_inits = inits[start : start + batch]
            if converted:
                states = (states * factor + offset).astype(np.float32)
            check_plausible(seen, states, "the dataset", unlabeled)
            states = states[rows]
            if perturb is not None:
                states += perturb(batch_inits).astype(np.float32)[:, np.newaxis]
            x_BTCHW = torch.from_numpy(states).to(device)
            f_BTFHW = forcings(batch_inits, calls)
            y_BTCHW = rollout(self.network, scale.normalize(x_BTCHW), horizon, f_BTFHW, scale.constrain)
            states = scale_told.denormalize(y_BTCHW.float()).cpu().numpy()
            forecasts[start : start + batch] = (states - back_offset) / back_factor if converted else states
        return forecasts, digests

    def _label(self, states: np.ndarray, inits: pd.Index, horizon: int, inside: xr.Dataset) -> xr.Dataset:
        """Return the states as a Dataset under the names and on the grid used inside."""
        lead_time = lead_times(self.task.step, horizon)
        coordinates = {
            "init_time": ("init_time", inits),
            "lead_time": lead_time,
            "latitude": inside["latitude"],
            "longitude": inside["longitude"],
        }
        if "level" in inside.dims:
            coordinates["level"] = inside["level"]
        variables, told = {}, self._told
        for name in self.task.forecast_variables:
            places = [at for at, channel in enumerate(told.channels) if channel.variable == name]
            part, dims = states[:, :, places], ("latitude", "longitude")
            if told.channels[places[0]].level is None:
                part = part[:, :, 0]
            else:
                dims = ("level", *dims)
                coordinates.setdefault("level", [told.channels[at].level for at in places])
            units = told.units[places[0]]
            attrs = inside[name].attrs if name in inside else {"units": units} if units else {}
            variables[name] = (("init_time", "lead_time", *dims), part, attrs)
        forecast = xr.Dataset(variables, coordinates)
        valid_time = valid_times(forecast["init_time"], lead_time, known=inside.indexes["time"])
        forecast = forecast.assign_coords(valid_time=valid_time)
        if offsets := bounds_offsets(inside):  # of sums and means over a time before or around the valid time
            edges = [
                valid_time + offset.to_numpy() if valid_time.dtype.kind == "M" else valid_time + offset.to_pytimedelta()
                for offset in offsets
            ]
            forecast = forecast.assign_coords(valid_time_bnds=xr.concat(edges, "bnds").transpose(..., "bnds"))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return forecast.assign_attrs(
            Conventions="CF-1.8",
            title=f"Forecast of {', '.join(self.task.forecast_variables)} by SimVPv2",
            source=f"SimVPv2 (simvp_climate {version('simvp-climate')}), trained {self.provenance['training']}",
            history=f"{now} forecast by simvp_climate {version('simvp-climate')}",
            references="Tan et al., SimVPv2, arXiv:2211.12509",
            system="SimVPv2",
        )


@dataclass(frozen=True, eq=False)
class Start:
    """What is to be forecast: the data, as handed in and as used inside, and the positions of every history."""

    dataset: xr.Dataset
    inside: xr.Dataset
    series: tuple[xr.Dataset, ...]  # of each member
    member: str | None
    histories: np.ndarray  # (init, history)
    horizon: int


def open_pretrained(name: str, device: str = "auto") -> Forecaster:
    """Return a trained forecaster that comes with the package; no network is needed.

    There is "sample", trained on the simulated climate of `open_sample`: for examples and first steps, not for real
    weather. Its data, periods, skill and limits are on a card in the package, `pretrained/sample.md`.

    Parameters
    ----------
    name
        Which one.
    device
        Where it runs; "auto": a GPU if there is one.

    Raises
    ------
    ValueError
        If there is none of this name; the message lists those that there are.
    """
    names = sorted(path.stem for path in _PRETRAINED.glob("*.safetensors"))
    if name not in names:
        raise ValueError(
            f"there is no pretrained forecaster {name!r}: the package has {names}. Files of your own are opened by "
            "Forecaster.load(path)"
        )
    return Forecaster.load(_PRETRAINED / f"{name}.safetensors", device)


def choose_device(device: str) -> str:
    """Return "cuda", "mps" or "cpu": what was asked for, or for "auto" a GPU if there is one.

    Raises ValueError if it is unknown or not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in there.items() if available)
    if not isinstance(device, str) or not there.get(device):
        usable = [name for name, available in there.items() if available]
        raise ValueError(f"device={device!r} is not to be had here: choose 'auto' or one of {usable}")
    return device


def _digest(state: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(state).tobytes()).digest()


def _multiples(inits: pd.Index, every: str) -> np.ndarray:
    """Say which times are multiples of `every` from 00 UTC of 1970-01-01, in their calendar (or from January)."""
    size = parse_step(every)
    if isinstance(size, int):
        return np.asarray((inits.year * 12 + inits.month - 1) % size == 0)
    epoch = inits[0].replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return np.asarray((inits - epoch) % size == pd.Timedelta(0))


def _assemble(content: serialization.Content, device: str) -> Forecaster:
    """Return the forecaster of a file, after checking that its parts fit each other."""
    header, stored = content.header, dict(content.tensors)
    task = Task(**_settings(content, "task", Task))
    config = SimVPv2Config(**_settings(content, "model", SimVPv2Config))
    channels = tuple(reader.Channel(*channel) for channel in header["channels"])
    units = tuple(header["units"])
    latitude, longitude = stored["latitude"].numpy(), stored["longitude"].numpy()
    shape = (len(channels), latitude.size, longitude.size)
    if content.format == 1:  # before there were masks, transforms and forcings
        bounds = torch.tensor([-np.inf, np.inf], dtype=torch.float64).repeat(len(channels), 1)
        stored |= {"mask": torch.zeros(shape, dtype=torch.bool), "log_scale": torch.zeros(len(channels)).double()}
        stored |= {"bounds": bounds, "statics": torch.empty(0, *shape[1:])}
    names = tensors.forcing_names(task)
    if content.format >= 3 and header["forcings"] != names:
        raise ValueError(f"its network sees the forcings {header['forcings']}, and those of its task are {names}")
    _check_channels(task, channels)
    weights = {n.removeprefix("network."): v for n, v in stored.items() if n.startswith("network.")}
    if config.blocks + config.spatial_layers > len(weights):
        raise ValueError(f"its model has {config.blocks + config.spatial_layers} layers, and {len(weights)} weights")
    with torch.device("meta"):  # whatever sizes the header says, nothing is made of them before they are compared
        network = tensors.build_network(config, task, channels)
    statistics = {name: stored[name].numpy() for name in _STATISTICS}
    statics = stored["statics"].numpy()
    _check_numbers(task, units, shape, latitude, longitude, statics, statistics)
    network = _fill(network, weights)
    network.to(device=device, memory_format=torch.channels_last)
    return Forecaster(
        task=task,
        network=network.eval(),
        normalizer=Normalizer(channels=channels, units=units, **statistics),
        latitude=latitude,
        longitude=longitude,
        statics=statics,
        provenance=dict(header["provenance"]),
    )


def _settings(content: serialization.Content, group: str, kind: type) -> dict:
    """Return the fields of a Task or SimVPv2Config as a file has them, or implies them."""
    found = content.header[group]
    if not isinstance(found, dict):
        raise ValueError(f"its {group} is {found!r}")
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(found.keys() - known):
        raise ValueError(
            f"its {group} has {unknown}, which simvp_climate {version('simvp-climate')} does not know; it was written "
            f"by version {content.version}: install that or a later one"
        )
    if missing := sorted(known - found.keys() - IMPLIED[group].keys()):
        raise ValueError(f"its {group} has no {missing}, and nothing says what that implies")
    return {**{name: value for name, value in IMPLIED[group].items() if name in known}, **found}


def _check_numbers(
    task: Task,
    units: tuple,
    shape: tuple[int, int, int],
    latitude: np.ndarray,
    longitude: np.ndarray,
    statics: np.ndarray,
    statistics: dict[str, np.ndarray],
) -> None:
    """Raise ValueError, naming it, for what has another shape than it must, or values that nothing can be made with."""
    count, grid = shape[0], shape[1:]
    if len(units) != count:
        raise ValueError(f"it has {len(units)} units for {count} channels")
    shapes = {"mean": (count,), "std": (count,), "change_std": (task.history, count), "mask": shape}
    shapes |= {"log_scale": (count,), "bounds": (count, 2), "latitude": grid[:1], "longitude": grid[1:]}
    shapes["statics"] = (len(static_names(task.forcings)), *grid)
    arrays = {**statistics, "latitude": latitude, "longitude": longitude, "statics": statics}
    for name, wanted in shapes.items():
        if arrays[name].shape != wanted:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, and must have {wanted}")
    rules = {
        "mean": ("finite", np.isfinite),
        "std": ("finite and above 0", lambda x: np.isfinite(x) & (x > 0)),
        "change_std": ("finite and above 0", lambda x: np.isfinite(x) & (x > 0)),
        "mask": ("true or false, with a cell left in every channel", _leaves_cells),
        "log_scale": ("finite and at least 0", lambda x: np.isfinite(x) & (x >= 0)),
        "bounds": ("a smaller and a larger number", lambda x: x[:, 0] < x[:, 1]),
        "latitude": ("ascending within -90 and 90", lambda x: (np.abs(x) <= 90) & (np.diff(x, prepend=-np.inf) > 0)),
        "longitude": ("finite and ascending", lambda x: np.isfinite(x) & (np.diff(x, prepend=-np.inf) > 0)),
        "statics": ("finite", np.isfinite),
    }
    for name, (rule, fits) in rules.items():
        if not fits(arrays[name]).all():
            raise ValueError(f"{name} is not {rule}")


def _leaves_cells(mask: np.ndarray) -> np.ndarray:
    return np.array(mask.dtype == bool and not mask.all(axis=(1, 2)).any())


def _check_channels(task: Task, channels: tuple[reader.Channel, ...]) -> None:
    """Raise ValueError unless the channels are those of the task, in its order."""
    names = list(dict.fromkeys(channel.variable for channel in channels))
    if names != list(task.all_variables):
        raise ValueError(f"its channels are of {names}, and its task names {list(task.all_variables)}")
    if len(set(channels)) < len(channels):
        raise ValueError(f"its channels {[str(channel) for channel in channels]} are not all different")


def _fill(network: SimVPv2, weights: dict[str, torch.Tensor]) -> SimVPv2:
    """Return a network built without memory with its weights, after checking that they fit and are numbers."""
    wanted = network.state_dict()
    if different := sorted(wanted.keys() ^ weights.keys()):
        name = different[0]
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        words = f"lacks {name!r}{more}" if name in wanted else f"has {name!r}{more}, which its model has not"
        raise ValueError(f"its network {words}")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, and in its model {tuple(wanted[name].shape)}"
            raise ValueError(f"the weight {name!r} has the shape {shapes}")
        if value.dtype != wanted[name].dtype:
            raise ValueError(f"the weight {name!r} is {value.dtype}, and in its model {wanted[name].dtype}")
        if not value.isfinite().all():
            raise ValueError(f"the weight {name!r} has values that are not finite")
        if name.endswith("running_var") and (value < 0).any():
            raise ValueError(f"the weight {name!r} is a variance and has values below 0")
    network = network.to_empty(device="cpu")
    network.load_state_dict(weights)
    return network
