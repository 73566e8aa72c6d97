"""The device on which a network runs."""

import torch


def choose_device(device: str) -> str:
    """Return "cuda", "mps" or "cpu": the device asked for, or for "auto" a GPU if there is one.

    Raises ValueError if the device is unknown or not available.
    """
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, usable in devices.items() if usable]
    if device == "auto":
        return available[0]
    if device not in available:
        raise ValueError(f"device={device!r} is not available: choose 'auto' or one of {available}")
    return device
