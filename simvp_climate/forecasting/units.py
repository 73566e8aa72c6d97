"""Convert states between the units of a Dataset and those a forecaster was trained in."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from simvp_climate.data.variables import conversion, same_units
from simvp_climate.processing.statistics import Normalizer


@dataclass(frozen=True, eq=False)
class UnitConversion:
    """Linear conversion of each channel: trained = dataset * factor + offset."""

    factor: np.ndarray  # (channel, 1, 1), float64
    offset: np.ndarray
    unlabeled: tuple[bool, ...]  # for each channel, whether only the training data had units

    @property
    def is_identity(self) -> bool:
        return bool((self.factor == 1).all() and (self.offset == 0).all())

    def to_trained(self, states: np.ndarray) -> np.ndarray:
        """Return states (..., channel, latitude, longitude) in the units of training, float32."""
        return states if self.is_identity else (states * self.factor + self.offset).astype(np.float32)

    def from_trained(self, forecasts: np.ndarray, shared: int) -> np.ndarray:
        """Return forecasts (..., channel, latitude, longitude) in the units of the Dataset.

        The first `shared` channels are in the Dataset; the others, the diagnostics, keep the units of training.
        """
        if self.is_identity:
            return forecasts
        diagnostics = forecasts.shape[-3] - shared
        factor = np.concatenate([self.factor[:shared], np.ones((diagnostics, 1, 1))])
        offset = np.concatenate([self.offset[:shared], np.zeros((diagnostics, 1, 1))])
        return (forecasts - offset) / factor


def find_conversion(dataset: xr.Dataset, trained: Normalizer) -> UnitConversion:
    """Return the conversion of a canonical Dataset to the units of training; missing units count as those.

    Raises ValueError if no exact conversion is known.
    """
    factors, unlabeled = [], []
    for channel, trained_units in zip(trained.channels, trained.units, strict=True):
        units = dataset[channel.variable].attrs.get("units", "")
        unlabeled.append(bool(trained_units) and not units)
        if not units or not trained_units or same_units(units, trained_units):
            factors.append((1.0, 0.0))
            continue
        exact = conversion(channel.variable, units, trained_units)
        if exact is None:
            raise ValueError(
                f"{channel.variable} is in {units!r} and must be in {trained_units!r}, as in training: no exact "
                f"conversion is known. Convert the data and set ds[{channel.variable!r}].attrs['units']."
            )
        factors.append(exact)
    factor, offset = np.array(factors, dtype=np.float64).T[:, :, None, None]
    return UnitConversion(factor, offset, tuple(unlabeled))
