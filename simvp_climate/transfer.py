"""Fine-tuning and transfer: what a new run takes over from a trained forecaster."""

import dataclasses

import xarray as xr

from simvp_climate.data.normalizer import Normalizer
from simvp_climate.data.variables import conversion, same_units
from simvp_climate.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.task import Task


def choose_model(model: SimVPv2Config | None, start_from: Forecaster | None) -> SimVPv2Config:
    """Return the network to train: that of the start, if there is one."""
    if start_from is None:
        return model or SimVPv2Config()
    own = start_from.network.config
    if model is not None and dataclasses.replace(model, padding=own.padding) != own:
        raise ValueError(f"model={model} is not the network of start_from, {own}: leave model out when you fine-tune")
    return own


def take_over(start: Forecaster, task: Task, grid: xr.Dataset) -> Normalizer:
    """Return the statistics of a forecaster to fine-tune, after checking that the task and data fit it."""
    same = ("variables", "levels", "history", "step", "forcings", "transforms")
    different = [name for name in same if getattr(task, name) != getattr(start.task, name)]
    if different:
        raise ValueError(
            "; ".join(f"{n}={getattr(task, n)!r}, start_from has {getattr(start.task, n)!r}" for n in different)
            + ". Fine-tuning may change the horizon, the data and the schedule, nothing else of the task"
        )
    start.check(grid)
    for channel, trained in zip(start.normalizer.channels, start.normalizer.units, strict=True):
        units = grid[channel.variable].attrs.get("units", "")
        if units and trained and not same_units(units, trained):
            factor, offset = conversion(channel.variable, units, trained)
            raise ValueError(
                f"{channel.variable} is in {units!r}, start_from was trained in {trained!r}, whose statistics are "
                f"kept: convert it, (variable * {factor:g} + {offset:g}).assign_attrs(units={trained!r})"
            )
    return start.normalizer
