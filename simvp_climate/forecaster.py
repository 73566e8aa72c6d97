"""The trained forecaster: a Dataset in, a labelled forecast out. Here numbers become labels."""

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
import xarray as xr

from simvp_climate import layouts, loader
from simvp_climate.data import reader
from simvp_climate.data.conventions import bounds_offsets, find_member, orient, rename, restore, same_grid
from simvp_climate.data.forcings import COORDINATE_CHANNELS
from simvp_climate.data.forcings import channels as forcing_channels
from simvp_climate.data.normalizer import Normalizer, check_plausible
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.data.windows import check_times, find_windows, lead_times, parse_step, valid_times
from simvp_climate.grid import latitude_weights
from simvp_climate.networks.simvp_v2 import SimVPv2, SimVPv2Config, rollout
from simvp_climate.task import Task

_FORMAT = "simvp_climate forecaster 2"
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

    def __repr__(self):
        size = sum(value.numel() for value in self.network.parameters()) / 1e6
        return (
            f"<Forecaster of {', '.join(self.task.variables)}: {self.task.horizon} steps of {self.task.step} from "
            f"{self.task.history}, grid {self.latitude.size} x {self.longitude.size}, {size:.2g} M parameters, "
            f"trained {self.provenance['training']}>"
        )

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
            The task's variables on (init_time, lead_time, [member,] [level,] latitude, longitude), with the names,
            order, coordinate values and units of `dataset`, NaN where the training data never had a value, and
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
        horizon = self.task.horizon if horizon is None else horizon
        if not isinstance(horizon, Integral) or horizon < 1:
            raise ValueError(f"horizon={horizon!r} must be a whole number of steps, at least 1")
        if not isinstance(dataset, xr.Dataset):
            raise ValueError(f"the forecaster takes an xarray.Dataset, not {type(dataset).__name__}: see open_dataset")
        inside = orient(rename(dataset, self.task.variables, self.task.levels))
        histories = self._histories(inside, init_times, every)
        inits = inside.indexes["time"][histories[:, -1]]
        member = find_member(inside)
        series = [inside] if member is None else [inside.isel({member: at}) for at in range(inside.sizes[member])]
        forecasts = []
        for one in series:
            self.check(one)
            forecasts.append(self._label(self._states(one, histories, int(horizon)), inits, int(horizon), one))
        forecast = forecasts[0]
        if member is not None:
            along = inside[member] if member in inside.coords else member
            forecast = xr.concat(forecasts, along, combine_attrs="override", coords="minimal", compat="override")
        return layouts.encode(restore(forecast, like=dataset))

    def check(self, inside: xr.Dataset) -> None:
        """Raise ValueError, naming what differs, unless an oriented Dataset is what was trained on."""
        grid = xr.Dataset(coords={"latitude": self.latitude, "longitude": self.longitude})
        try:
            same_grid(grid, inside)
        except ValueError as error:
            raise ValueError(f"the data are on another grid than the forecaster was trained on: {error}") from error
        found = reader.channels(inside)
        if found != self.normalizer.channels:
            raise ValueError(
                f"the data have the channels {[str(c) for c in found]}, the forecaster was trained on "
                f"{[str(c) for c in self.normalizer.channels]}: give the same variables and levels"
            )
        self._conversions(inside)

    def _conversions(self, inside: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return factor and offset that carry each channel to the units trained on, (channel, 1, 1)."""
        found = []
        for channel, trained in zip(self.normalizer.channels, self.normalizer.units, strict=True):
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

    def save(self, path: str | os.PathLike) -> None:
        """Write the forecaster to one safetensors file that `load` reads; it holds no code.

        Raises
        ------
        FileExistsError
            If the path exists and is not a forecaster.
        """
        path = Path(path)
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(path.absolute().parent)!r}: make it first")
        if path.exists() and _read_metadata(path) is None:
            raise FileExistsError(
                f"{str(path)!r} exists and is not a forecaster of simvp_climate: nothing was overwritten. "
                "Choose another path"
            )
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        arrays = {
            "latitude": self.latitude,
            "longitude": self.longitude,
            "mean": self.normalizer.mean,
            "std": self.normalizer.std,
            "change_std": self.normalizer.change_std,
            "mask": self.normalizer.mask,
            "log_scale": self.normalizer.log_scale,
            "bounds": self.normalizer.bounds,
            "statics": self.statics,
        }
        tensors |= {name: torch.tensor(np.asarray(array)) for name, array in arrays.items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        header = {
            "task": dataclasses.asdict(self.task),
            "model": dataclasses.asdict(self.network.config),
            "channels": [[channel.variable, channel.level] for channel in self.normalizer.channels],
            "units": self.normalizer.units,
            "provenance": self.provenance,
        }
        unfinished = path.with_name(path.name + ".unfinished")
        safetensors.torch.save_file(tensors, unfinished, {"format": _FORMAT, "forecaster": json.dumps(header)})
        os.replace(unfinished, path)

    @staticmethod
    def load(path: str | os.PathLike, device: str = "auto") -> "Forecaster":
        """Return the forecaster saved at `path`, on a device ("auto": a GPU if there is one).

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a forecaster.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{str(path)!r} does not exist")
        header = _read_metadata(path)
        if header is None:
            raise ValueError(f"{str(path)!r} is not a forecaster saved by simvp_climate ({_FORMAT!r})")
        tensors = safetensors.torch.load_file(path)
        task = Task(**header["task"])
        channels = tuple(reader.Channel(*channel) for channel in header["channels"])
        forcings = 2 * len(forcing_channels(task.forcings)) + len(tensors["statics"])
        forcings += len(COORDINATE_CHANNELS) if "coordinates" in task.forcings else 0
        config = SimVPv2Config(**header["model"])
        network = SimVPv2(config, history=task.history, channels=len(channels), forcings=forcings)
        weights = {n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")}
        network.load_state_dict(weights)
        network.to(device=choose_device(device), memory_format=torch.channels_last)
        names = ("mean", "std", "change_std", "mask", "log_scale", "bounds")
        statistics = {name: tensors[name].numpy() for name in names}
        return Forecaster(
            task=task,
            network=network.eval(),
            normalizer=Normalizer(channels=channels, units=tuple(header["units"]), **statistics),
            latitude=tensors["latitude"].numpy(),
            longitude=tensors["longitude"].numpy(),
            statics=tensors["statics"].numpy(),
            provenance=header["provenance"],
        )

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
    def _states(self, inside: xr.Dataset, histories: np.ndarray, horizon: int) -> np.ndarray:
        """Return forecasts in physical units, float32, (init, lead, channel, latitude, longitude)."""
        device = next(self.network.parameters()).device
        scale = loader.Scale(self.normalizer, device)
        weights = latitude_weights(inside["latitude"]).values
        forcings = loader.Forcings(self.task, self.latitude, self.longitude, self.statics, weights, device)
        factor, offset = self._conversions(inside)
        converted = (factor != 1).any() or (offset != 0).any()
        source = reader.open_source(inside)
        unlabeled = [
            bool(trained) and not inside[channel.variable].attrs.get("units")
            for channel, trained in zip(self.normalizer.channels, self.normalizer.units, strict=True)
        ]
        inits = inside.indexes["time"][histories[:, -1]]
        calls = -(-horizon // self.task.history)
        batch = max(1, _BATCH_BYTES // (source.state_bytes * (self.task.history + horizon)))
        shape = (len(histories), horizon, len(source.channels), self.latitude.size, self.longitude.size)
        forecasts = np.empty(shape, dtype=np.float32)
        for start in range(0, len(histories), batch):
            positions, rows = np.unique(histories[start : start + batch], return_inverse=True)
            states = reader.read(source, positions)
            reader.check_finite(states, inside, positions, self.normalizer.mask)
            if converted:
                states = (states * factor + offset).astype(np.float32)
            check_plausible(self.normalizer, states, "the dataset", unlabeled)
            x_BTCHW = torch.from_numpy(states[rows.reshape(-1, histories.shape[1])]).to(device)
            f_BTFHW = forcings(inits[start : start + batch], calls)
            y_BTCHW = scale.physical(rollout(self.network, scale.normalize(x_BTCHW), horizon, f_BTFHW).float())
            states = y_BTCHW.cpu().numpy()
            forecasts[start : start + batch] = (states - offset) / factor if converted else states
        return forecasts

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
        variables, channel = {}, 0
        for name, variable in inside.data_vars.items():
            levels = ["level"] if "level" in variable.dims else []
            count = inside.sizes["level"] if levels else 1
            part = states[:, :, channel : channel + count]
            dims = ("init_time", "lead_time", *levels, "latitude", "longitude")
            variables[name] = (dims, part if levels else part[:, :, 0], variable.attrs)
            channel += count
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
            title=f"Forecast of {', '.join(self.task.variables)} by SimVPv2",
            source=f"SimVPv2 (simvp_climate {version('simvp-climate')}), trained {self.provenance['training']}",
            history=f"{now} forecast by simvp_climate {version('simvp-climate')}",
            references="Tan et al., SimVPv2, arXiv:2211.12509",
            system="SimVPv2",
        )


def choose_device(device: str) -> str:
    """Return "cuda", "mps" or "cpu": what was asked for, or for "auto" a GPU if there is one.

    Raises ValueError if it is unknown or not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in there.items() if available)
    if not there.get(device):
        usable = [name for name, available in there.items() if available]
        raise ValueError(f"device={device!r} is not to be had here: choose 'auto' or one of {usable}")
    return device


def _multiples(inits: pd.Index, every: str) -> np.ndarray:
    """Say which times are multiples of `every` from 00 UTC of 1970-01-01, in their calendar (or from January)."""
    size = parse_step(every)
    if isinstance(size, int):
        return np.asarray((inits.year * 12 + inits.month - 1) % size == 0)
    epoch = inits[0].replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return np.asarray((inits - epoch) % size == pd.Timedelta(0))


def _read_metadata(path: Path) -> dict | None:
    """Return the header of a saved forecaster, or None if the file is something else."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError):
        return None
    return json.loads(metadata["forecaster"]) if metadata.get("format") == _FORMAT else None
