"""The trained forecaster: it turns a Dataset into labeled forecasts."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn

from simvp_climate.data.files import check_parent
from simvp_climate.data.progress import progress_bar
from simvp_climate.data.windows import count_text
from simvp_climate.forecasting import export, hindcast, labels, member_forecasts, run_store, serialization, summary
from simvp_climate.forecasting.predict import make_forcings, predict, template
from simvp_climate.forecasting.request import resolve_request
from simvp_climate.forecasting.run import resolve_run
from simvp_climate.metrics.uncertainty.intervals import Intervals, fit_intervals
from simvp_climate.networks.shape import NetworkBuilder
from simvp_climate.processing import tensors
from simvp_climate.processing.climatology import Harmonics
from simvp_climate.processing.statistics import Normalizer
from simvp_climate.processing.task import Task


@dataclass(frozen=True, eq=False)
class Forecaster:
    """A trained network with everything it needs to forecast: task, statistics, grid, provenance.

    Call it with a Dataset. `train` and `Forecaster.load` return one.

    Attributes
    ----------
    task, network, normalizer
        The variables and times to forecast, the network, and the statistics of all channels.
    latitude, longitude
        The training grid, ascending, in degrees.
    statics
        The static fields among `task.forcings`, (field, latitude, longitude), with the values of the training data.
    provenance
        How the network was trained: periods, settings, versions, loss of each epoch.
    harmonics
        The coefficients of `climatology`; None in files of older versions.
    source
        The path of the file that it was loaded from or saved to last, None if there is none. Forecasts name it.
    """

    task: Task
    network: nn.Module
    normalizer: Normalizer
    latitude: np.ndarray
    longitude: np.ndarray
    statics: np.ndarray
    provenance: dict
    harmonics: Harmonics | None = None
    source: str | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        steps = f"{count_text(self.task.horizon, 'steps')} of {self.task.step}"
        return (
            f"<Forecaster of {', '.join(self.task.forecast_variables)}: {steps} "
            f"from {self.task.history}, grid {self.latitude.size} x {self.longitude.size}, "
            f"{summary.parameter_millions(self.network):.2g} M parameters, trained {self.provenance['training']}>"
        )

    def _repr_html_(self) -> str:
        return summary.html(self)

    def __call__(
        self, dataset: xr.Dataset, init_times: Iterable | None = None, every: str | None = None,
        horizon: int | None = None, *, members: int | None = None, seed: int = 0, progress: bool = False,
    ) -> xr.Dataset:  # fmt: skip
        """Return forecasts as a labeled Dataset in physical units.

        Parameters
        ----------
        dataset
            At least `history` states up to each initialization, in any lat-lon convention; later states are ignored.
            Units may differ from those of training where the conversion is exact (degC and K, hPa and Pa, geopotential
            height and geopotential). If it has ensemble members, every member is forecast.
        init_times
            Initializations, each a time of `dataset` with a full history. Default: the last time.
        every
            Interval between initializations, for example "12h", counted from 1970-01-01 00 UTC, or a number of months,
            counted from January: all such times with a full history. Excludes `init_times`.
        horizon
            Number of steps; by default the task's. Horizons longer than one call of the network are rolled out.
        members
            Number of members of an ensemble, for a network with noise (trained with `loss="crps"`). Each has noise of
            its own at every call of the network, which depends only on the seed, the number of the member and the
            initialization. `None`: one forecast, the first member with seed 0; if `dataset` has members, each has
            noise of its own.
        seed
            Of the noise of `members`, an integer of at least 0.
        progress
            Whether to show a progress bar; without a terminal a line per minute.

        Returns
        -------
        xarray.Dataset
            The task's variables and diagnostics on (init_time, lead_time, [number, level,] latitude, longitude), and
            `valid_time(init_time, lead_time)`. Dimension names, order, coordinate values and units are those of
            `dataset` (diagnostics: units of training). Cells that never had a value in training are NaN. If `dataset`
            comes from `open_dataset`, `forecast - dataset.sel(time=forecast.valid_time)` is complete. Scalars such as
            `pressure_500` are the levels of variables such as `z500`. `to_netcdf` writes a CF file; for CDO, which has
            one time dimension, `sc.io.save_valid_time(forecast, folder)` writes one file per initialization.

        Raises
        ------
        ValueError
            If grid, variables or units do not match the training data, a history is incomplete or has missing values,
            or no initialization has a full history. If `members` are given for a network without noise or data that
            have members, or `seed` without `members`.
        OSError
            If the data cannot be read.
        """
        member_forecasts.check_seed(members, seed)
        request = resolve_request(self, dataset, init_times, every, horizon)
        if members is not None:
            return member_forecasts.forecast(*member_forecasts.with_noise(self, request, members, seed), None, progress)
        with progress_bar(len(request.histories) * len(request.canonical.series), "forecasts", shown=progress) as bar:
            return predict(self, request, request.histories, advance=bar.update)[0]

    def hindcast(
        self, dataset: xr.Dataset, init_times: Iterable | None = None, every: str | None = None,
        horizon: int | None = None, *, store: str | os.PathLike, members: int | None = None, seed: int = 0,
        progress: bool = True,
    ) -> xr.Dataset:  # fmt: skip
        """Write forecasts from many initializations to a Zarr store, a few at a time, and open the store.

        Memory stays bounded. A repeated call resumes after one that was killed, and only opens a complete store.

        Parameters
        ----------
        dataset, init_times, every, horizon
            As for a call of the forecaster; `init_times` or `every` is required.
        members, seed
            As for a call of the forecaster.
        store
            Path of the store: a new folder, or the store of the same hindcast; "<store>.unfinished" until complete.
        progress
            Whether to show a progress bar; without a terminal a line per minute.

        Returns
        -------
        xarray.Dataset
            As from a call of the forecaster, read lazily from the store (Zarr format 2, consolidated metadata).

        Raises
        ------
        FileExistsError
            If `store` or "<store>.unfinished" is not this hindcast; the message lists the differences.
        FileNotFoundError, ValueError, OSError
            If the folder for the store does not exist, and as for a call of the forecaster.
        """
        if init_times is None and every is None:
            raise ValueError("A hindcast needs initializations. Pass every='12h' or init_times=[...].")
        member_forecasts.check_seed(members, seed)
        request = resolve_request(self, dataset, init_times, every, horizon)
        if members is not None:
            noisy = member_forecasts.with_noise(self, request, members, seed)
            return member_forecasts.forecast(*noisy, store, progress)
        identity = hindcast.identify(request, self.task.variables, self.digest)
        make_template, forecast = partial(template, self, request), partial(predict, self, request)
        return hindcast.write(store, identity, request.histories, make_template, forecast, progress)

    def run(
        self, dataset: xr.Dataset, start: object = None, until: object = None, *, outputs: str | None = "1D",
        statistics: Sequence[str] = ("mean",), members: int | None = None, seed: int = 0,
        conserve: Sequence[str] = (), store: str | os.PathLike | None = None, progress: bool = True,
    ) -> xr.Dataset:  # fmt: skip
        """Run freely for months or decades, averaging over output periods, in bounded memory.

        >>> run = forecaster.run(ds, "2004-01-01", "2034-01-01", outputs="1MS", store="run.zarr")

        The network is called on its own output again and again. From the data it gets the initial state, and the
        variables of `Task.prescribed`.

        Parameters
        ----------
        dataset
            At least the `history` states up to the start, in any lat-lon convention and units, as for a call of the
            forecaster. Prescribed variables must reach to the end of the run.
        start
            The time of the initial state, by default the last time of `dataset`.
        until
            The end of the run, such as "2034-01-01", which is its last state. Only complete periods are returned.
        outputs
            Length of the output periods: days ("1D", "5D"), months ("1MS", "12MS"), or None for every state. With
            steps shorter than a day, a period holds the states after its beginning, up to and including its end.
        statistics
            Of the states in each period: "mean" (under the variable's name), "min" and "max" (`t2m_min`, `t2m_max`).
        members
            Number of members, which run side by side. Those of a network with noise (trained with `loss="crps"`) have
            noise of their own. Without noise, they start from slightly different states (1 % of the typical change over
            a step; the first member from the data). None: one run without the dimension.
        seed
            Of noise and perturbations, an integer of at least 0.
        conserve
            Channels whose global mean keeps its initial value: after every step a constant is added to all cells.
            "dry_air" is the mass of the atmosphere without water vapor, from `sp` and `tcwv`; it corrects `sp`.
        store
            Path of a Zarr store to write, a new folder or the store of the same run; "<store>.unfinished" until it is
            complete. Repeat the call to resume a killed run, from at most a minute before; on the same machine its
            values are the same to the last byte. None: in memory.
        progress
            Whether to show a progress bar; without a terminal a line per minute.

        Returns
        -------
        xarray.Dataset
            The task's variables and diagnostics on (time, [number, level,] latitude, longitude), float32, in the units,
            names and order of `dataset`. `time` is the beginning of each period, `time_bnds` has both ends, and
            `cell_methods` say what was computed. With `store`, read lazily from it.

        Raises
        ------
        ValueError
            If a setting is invalid, no period is complete, prescribed values are missing, and as for a call.
        FloatingPointError
            If a value leaves the range that the vocabulary or the training data allow; the message names it.
        FileExistsError, FileNotFoundError, OSError
            As for `hindcast`.
        """
        request = resolve_run(self, dataset, start, until, outputs, statistics, members, seed, conserve)
        return run_store.run(request, store, progress)

    def interval(
        self, probability: float, valid: xr.Dataset, init_times: Iterable | None = None, every: str | None = None,
        horizon: int | None = None, climatology: xr.Dataset | None = None,
    ) -> Intervals:  # fmt: skip
        """Return prediction intervals that contain the truth with a given probability, fitted on a validation period.

        >>> bands = forecaster.interval(0.9, valid, every="24h")
        >>> bands(forecaster(test, every="12h"))

        The forecasts are held in memory. If they are too large, write them with `hindcast(valid, ..., store=...)` and
        call `fit_intervals(forecasts, valid, probability)`.

        Parameters
        ----------
        probability
            Between 0 and 1.
        valid
            Data used neither for training nor for verification, best a whole year: all months to forecast must occur.
        init_times, every, horizon
            As for a call of the forecaster; `init_times` or `every` is required.
        climatology
            If given, the intervals are centered on forecasts shrunk towards it, see `fit_intervals`.

        Raises
        ------
        ValueError
            As for a call of the forecaster, and as in `fit_intervals`.
        """
        if init_times is None and every is None:
            raise ValueError("Intervals need initializations in valid. Pass every='24h' or init_times=[...].")
        return fit_intervals(self(valid, init_times, every, horizon), valid, probability, climatology)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of task, statistics, grid and weights: equal digests mean equal forecasts."""
        return serialization.content_digest(self)

    @property
    def climatology(self) -> xr.Dataset:
        """The climatology of the training period, for `score`, `metrics.acc`, `baselines.climatology_at` and others.

        A Dataset of coefficients: the mean, three harmonics of the year and one of the day, in the units of training,
        dims (harmonic, [level,] latitude, longitude) on the training grid; `baselines.climatology_at` gives its values
        at any time. Harmonics of the year are zero unless the period holds all months, and then only its own months
        have a climatology. Attributes record the period, as those of `baselines.climatology` do.

        Raises
        ------
        ValueError
            If the forecaster has none: its file is from an older version, or its grid and channels are so many that the
            coefficients would take more than 256 MiB.
        """
        return labels.label_climatology(self)

    @property
    def training_curve(self) -> pd.DataFrame:
        """The training curve: one row per `epoch` from 1, one column per recorded quantity.

        `loss` is the mean over the training windows, `valid_loss` over the validation windows; `valid_rmse_...` are in
        physical units. With `TrainConfig(loss="crps")` the validation has 8 members: `valid_loss` is their almost fair
        CRPS, over all leads and normalized as the training loss, `valid_rmse_...` is of their mean, and there are
        `valid_crps_...` (fair, in physical units), `valid_spread_skill_...` and `valid_small_scales_...`; `loss` is the
        squared error in the steps before those on the CRPS, which begin after `attrs["crps_after"]` epochs.
        With `TrainConfig(select="rollout")` there is `valid_rollout_bias`, see there.
        `attrs["units"]` maps columns to units, `attrs["kept"]` is the epoch of the weights.
        """
        return summary.training_curve(self.provenance, self.normalizer)

    def save(self, path: str | os.PathLike) -> None:
        """Write the forecaster to one safetensors file, which `load` reads and which contains no code.

        Raises
        ------
        FileNotFoundError, FileExistsError
            If the folder does not exist, or the path exists and is not a forecaster.
        """
        serialization.save(check_parent(path), self)
        object.__setattr__(self, "source", str(Path(path).absolute()))  # no part of what the forecaster is

    @staticmethod
    def load(
        path: str | os.PathLike, device: str = "auto", compile: bool | str = "auto",
        network: NetworkBuilder | None = None,
    ) -> "Forecaster":  # fmt: skip
        """Return the forecaster saved at `path`.

        Reads files of all older versions. Needs no training data and runs no code from the file.

        Parameters
        ----------
        path
            A file of any version.
        device
            "cuda", "mps" or "cpu"; "auto": a GPU if there is one.
        compile
            Compile the network with `torch.compile`: the same forecasts up to rounding, after a minute or more of
            compilation. "auto" compiles on CUDA, and warns where that does not work; True is an error there.
        network
            For a network that is not of this package, which the file names but does not contain: the function that
            builds it, as given to `train` as `model`. The file has its weights.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no forecaster, is newer than this package, damaged or inconsistent; the message says which.
            If its network is not of this package and `network` is missing or builds other weights, or if `network` is
            given for one of this package.
        RuntimeError
            If `compile` is True and torch cannot compile here.
        """
        device = tensors.choose_device(device)
        content = serialization.load(Path(path), device, network)
        forecaster = Forecaster(**content, source=str(Path(path).absolute()))
        if tensors.choose_compile(compile, device):
            forecaster.network.compile()
        return forecaster

    def export(self, path: str | os.PathLike) -> None:
        """Write the forecaster as a program that runs on a CPU without this package.

        The program includes transforms, normalization, mask, bounds, and the rollout to the task's horizon. It maps
        states (batch, history, channel, latitude, longitude), float32, in physical units on the ascending training
        grid, to forecasts (batch, horizon, channel, latitude, longitude), NaN where training data never had a value.
        For a task with forcings, its second input is the result of `forcings`. A network with noise takes as its last
        input standard normal numbers, (batch, call of the network, *network.noise_grid): one member of an ensemble. The
        file also contains channel names, units, grid, step, history and horizon, as JSON.

        Parameters
        ----------
        path
            "name.pt2" writes a PyTorch program:

            >>> about = {"forecaster.json": ""}
            >>> program = torch.export.load("name.pt2", extra_files=about).module()
            >>> forecasts = program(states)  # program(states, forcings) for a task with forcings
            >>> forecasts = program(states, None, noise)  # a network with noise; None stands for the forcings
            >>> json.loads(about["forecaster.json"])["channels"]

            "name.onnx" writes an ONNX program; this needs `pip install "simvp-climate[onnx]"`:

            >>> program = onnxruntime.InferenceSession("name.onnx")
            >>> (forecasts,) = program.run(None, {"states": states})  # {"states": states, "forcings": forcings}
            >>> json.loads(program.get_modelmeta().custom_metadata_map["forecaster"])["channels"]

        Raises
        ------
        ValueError, FileNotFoundError, FileExistsError
            If the name has another ending, the folder does not exist, or the path exists and is no exported program.
        ImportError
            If ONNX is not installed.
        """
        export.export(check_parent(path), self)

    def forcings(self, init_times: Iterable, horizon: int | None = None) -> xr.DataArray:
        """Return the forcings of forecasts from some initializations, as input of an exported program.

        Parameters
        ----------
        init_times
            Initializations: dates as text, or a time index of any calendar.
        horizon
            Number of steps; by default the task's.

        Returns
        -------
        xarray.DataArray
            (init_time, state, forcing, latitude, longitude), float32, dimensionless; `state` counts the input states of
            all network calls. `forcing` has length 0 if the task has no forcings.
        """
        if self.task.prescribed:
            message = f"prescribed={list(self.task.prescribed)} come from the data"
            raise ValueError(f"{message}, so that init times alone do not give the forcings: call the forecaster")
        horizon = self.task.horizon if horizon is None else horizon
        inits = init_times if isinstance(init_times, pd.Index) else pd.Index(np.atleast_1d(np.asarray(init_times)))
        if not isinstance(inits, xr.CFTimeIndex):
            inits = pd.DatetimeIndex(inits)
        values = make_forcings(self, torch.device("cpu"))(inits, horizon)
        if values is None:
            states = math.ceil(horizon / self.task.history) * self.task.history
            values = torch.zeros(len(inits), states, 0, self.latitude.size, self.longitude.size)
        coords = {"init_time": inits, "forcing": tensors.forcing_names(self.task)}
        coords |= {"latitude": self.latitude, "longitude": self.longitude}
        return xr.DataArray(values.numpy(), coords, ("init_time", "state", "forcing", "latitude", "longitude"))

    @property  # not cached: a user may widen `normalizer.extremes`
    def input_statistics(self) -> Normalizer:
        """The statistics of the channels that the network takes in."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).input_channels)

    @property
    def prescribed_statistics(self) -> Normalizer:
        """The statistics of the channels of `Task.prescribed`."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).prescribed_channels)

    @cached_property
    def output_statistics(self) -> Normalizer:
        """The statistics of the channels that the network forecasts."""
        return self.normalizer.select(tensors.channel_roles(self.task, self.normalizer.channels).output_channels)
