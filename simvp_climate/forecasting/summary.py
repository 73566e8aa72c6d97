"""Summaries of a forecaster: its table in Jupyter and its training curve."""

from typing import Any

import pandas as pd
from torch import nn

from simvp_climate.data.html_table import html_table
from simvp_climate.data.windows import count_text
from simvp_climate.processing.statistics import Normalizer

_MAX_CHANNELS = 8  # listed in Jupyter


def parameter_millions(network: nn.Module) -> float:
    """Return the number of weights of a network in millions."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def kept_epoch(table: pd.DataFrame) -> int:
    """Return the epoch whose weights were kept: the best one, or without a validation or a finite rollout the last.

    Epochs that end before the training on the CRPS begins are never kept.
    """
    candidates = table[table.index > table.attrs.get("crps_after", 0)]
    measures = [name for name in ("valid_rollout_bias", "valid_loss") if name in table]
    values = candidates[measures[0]].dropna() if measures else pd.Series()
    return int(values.idxmin()) if len(values) else int(table.index[-1])


def training_curve(provenance: dict, normalizer: Normalizer) -> pd.DataFrame:
    """Return the table of `Forecaster.training_curve`."""
    table = pd.DataFrame(provenance.get("epochs", [])).drop(columns="epoch", errors="ignore")
    table.index = pd.RangeIndex(1, len(table) + 1, name="epoch")
    units = {}
    for channel, unit in zip(normalizer.channels, normalizer.units, strict=True):
        name = channel.variable if channel.level is None else f"{channel.variable}_{channel.level:g}"
        prefixes = (f"valid_rmse_{name}_", f"valid_crps_{name}_")
        units |= {column: unit for column in table if f"{column}_".startswith(prefixes)}
    table.attrs["units"] = units
    if "crps_after" in provenance:
        table.attrs["crps_after"] = provenance["crps_after"]
    if len(table):
        table.attrs["kept"] = kept_epoch(table)
    return table


def html(forecaster: Any) -> str:
    """Return an HTML table of the task, grid, training, statistics and skill of a Forecaster."""
    task, provenance = forecaster.task, forecaster.provenance
    latitude, longitude = forecaster.latitude, forecaster.longitude
    config, versions = provenance.get("config", {}), provenance.get("versions", {})
    epochs = count_text(len(provenance.get("epochs", ())), "epochs")
    training = f"{epochs}, seed {config.get('seed', '?')}, {provenance.get('device', '')}"
    origin = f"{latitude[0]:g}, {longitude[0]:g}"
    steps = f"{count_text(task.horizon, 'steps')} of {task.step} from {count_text(task.history, 'states')}"
    rows = {
        "forecasts": f"{', '.join(task.forecast_variables)}: {steps}",
        "forcings": ", ".join(task.forcings),
        "prescribed": ", ".join(task.prescribed),
        "grid": f"{latitude.size} latitudes, {longitude.size} longitudes, from {origin} degrees",
        "network": f"{type(forecaster.network).__name__}, {parameter_millions(forecaster.network):.2g} M parameters",
        "trained on": f"{provenance.get('training', '?')} ({training})",
        "validated on": str(provenance.get("validation") or "nothing: weights of the last epoch"),
        "statistics": _statistics_lines(forecaster.normalizer),
        "validation RMSE": _validation_lines(forecaster.training_curve),
        "created": f"{provenance.get('created', '?')}, simvp-climate {versions.get('simvp-climate', '?')}",
        "sha256": forecaster.digest[:16],
    }
    return html_table("Forecaster", rows)


def _statistics_lines(normalizer: Normalizer) -> list[str]:
    """Return one line per channel with mean and standard deviation; of many channels, the first ones."""
    rows = zip(normalizer.channels, normalizer.mean, normalizer.std, normalizer.units, strict=True)
    lines = ["{}: mean {:.5g}, standard deviation {:.4g} {}".format(*row).strip() for row in rows]
    if len(lines) <= _MAX_CHANNELS + 1:
        return lines
    return [*lines[:_MAX_CHANNELS], f"and {len(lines) - _MAX_CHANNELS} more"]


def _validation_lines(curve: pd.DataFrame) -> list[str]:
    """Return one line per validation error, of the epoch whose weights the forecaster has."""
    if "valid_loss" not in curve or curve.empty:
        return []
    best, units = curve.loc[curve.attrs["kept"]], curve.attrs["units"]
    return [
        f"{column.removeprefix('valid_rmse_').replace('_', ' ')}: {best[column]:.4g} {units.get(column, '')}".strip()
        for column in curve
        if column.startswith("valid_rmse_")
    ]
