"""The sizes that a network is built for, and the type of a function that builds one."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of the states that a network takes and returns; `train` gives them to the function that builds a network.

    Parameters
    ----------
    history
        Number of input states, and of output states.
    channels
        Input channels per state.
    forcings
        Forcing channels per input state; 0 without forcings.
    output_channels
        Output channels per state.
    shared_channels
        Number of leading channels that are both input and output.
    grid
        Latitudes and longitudes.
    """

    history: int
    channels: int
    forcings: int
    output_channels: int
    shared_channels: int
    grid: tuple[int, int]


NetworkBuilder = Callable[[NetworkShape], nn.Module]
