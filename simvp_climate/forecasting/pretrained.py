"""Forecasters that come with the package."""

from dataclasses import replace
from pathlib import Path

from simvp_climate.forecasting.forecaster import Forecaster

_CALL = "open_pretrained("
_FOLDER = Path(__file__).parents[1] / "pretrained"


def open_pretrained(name: str, device: str = "auto") -> Forecaster:
    """Return a trained forecaster that comes with the package; it needs no internet connection.

    "sample" is trained on the simulated climate of `open_sample`: for examples and first steps, not for real weather.
    "sample-ensemble" is the same network trained on as an ensemble: call it with `members=16`.
    "sample-climate" is trained for long runs, see `Forecaster.run`.
    "sample-simvpv2" is the predecessor of "sample" with the network as published, SimVPv2. Cards in the package,
    `pretrained/<name>.md`, give data, periods, skill and limits.

    Parameters
    ----------
    name
        Name of the forecaster.
    device
        "cuda", "mps" or "cpu"; "auto": a GPU if there is one.

    Raises
    ------
    ValueError
        If the package has no forecaster of this name; the message lists the names.
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.safetensors"))
    if name not in names:
        message = f"no pretrained forecaster {name!r}: the package has {names}"
        raise ValueError(f"{message}. Open files of your own with Forecaster.load(path)")
    # small: compiling would take longer
    forecaster = Forecaster.load(_FOLDER / f"{name}.safetensors", device, compile=False)
    # the path depends on where the package is installed
    return replace(forecaster, source=f"{_CALL}{name})")


def open_source(source: str, compile: bool | str = "auto") -> Forecaster:
    """Return the forecaster that the attribute `forecaster_source` of a forecast names."""
    if source.startswith(_CALL):
        return open_pretrained(source.removeprefix(_CALL).removesuffix(")"))
    return Forecaster.load(source, compile=compile)
