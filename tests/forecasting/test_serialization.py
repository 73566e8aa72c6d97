"""Files of forecasters: complete, checked, of every format."""

import dataclasses
import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from factories import waves

from simvp_climate.forecasting import serialization
from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2Config
from simvp_climate.processing.task import Task

GOLDENS = Path(__file__).parents[1] / "goldens" / "forecasters"


@pytest.fixture
def path(forecaster, tmp_path):
    """A file of the current format."""
    (tmp_path / "whole").mkdir()
    forecaster.save(tmp_path / "whole" / "f.safetensors")
    return tmp_path / "whole" / "f.safetensors"


def edit(path, to, change, *, sealed=True):
    """Write a copy that `change(metadata, header, tensors)` edits in place; `sealed` recomputes the checksum."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    text, tensors = metadata["forecaster"], safetensors.torch.load_file(path)
    header = json.loads(text)
    change(metadata, header, tensors)
    if json.dumps(header) != text:
        metadata["forecaster"] = json.dumps(header)
    if sealed:
        metadata["sha256"] = serialization._checksum(metadata, tensors)
    to.write_bytes(safetensors.torch.save(tensors, metadata))
    return to


@pytest.mark.parametrize("file_format", [1, 2])
def test_older_formats_forecast_the_same_as_the_version_that_wrote_them(file_format, tmp_path):
    expected = np.load(GOLDENS / f"format_{file_format}.npz")
    old = Forecaster.load(GOLDENS / f"format_{file_format}.safetensors", "cpu")
    old.save(tmp_path / "again")
    # format 2 has a bound, which its version did not apply to the states that a rollout feeds back
    leads = slice(0, 4 if file_format == 1 else 3)
    for made in (old, Forecaster.load(tmp_path / "again", "cpu")):
        forecast = made(waves(), horizon=4).isel(init_time=0, lead_time=leads)
        np.testing.assert_allclose(forecast["z500"], expected["z500"][leads], rtol=0, atol=1e-2)  # of about 50000
        np.testing.assert_allclose(forecast["t2m"], expected["t2m"][leads], rtol=0, atol=1e-4)
    assert old.task.forcings == (("insolation", "time_of_day", "coordinates", "orography") if file_format == 2 else ())
    assert list(old.training_curve.columns) == ["loss", "valid_loss"]


def test_every_new_setting_has_a_default_for_older_files():
    with safetensors.safe_open(GOLDENS / "format_1.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["forecaster"])
    for group, settings_type in (("task", Task), ("model", SimVPv2Config)):
        new = {field.name for field in dataclasses.fields(settings_type)} - header[group].keys()
        assert new <= serialization.LEGACY_DEFAULTS[group].keys(), "add a default for the new setting"


def test_a_newer_format_asks_for_an_upgrade(path, tmp_path):
    newer = edit(path, tmp_path / "f", lambda m, h, t: m.update(format="simvp_climate forecaster 6", version="9"))
    with pytest.raises(ValueError, match=r"/f'.* newer simvp_climate \(9, format 6\).*pip install -"):
        Forecaster.load(newer)


def test_an_unknown_setting_is_named_with_the_version_that_wrote_it(path, tmp_path):
    def change(metadata, header, tensors):
        header["model"]["wings"] = 2
        metadata["version"] = "0.7.3"

    with pytest.raises(ValueError, match=r"model has \['wings'\].* version 0.7.3: install"):
        Forecaster.load(edit(path, tmp_path / "f", change))


def test_a_missing_setting_has_its_default_or_is_an_error(path, tmp_path):
    loaded = Forecaster.load(edit(path, tmp_path / "f", lambda m, h, t: h["task"].pop("forcings")))
    assert loaded.task.forcings == ()
    with pytest.raises(ValueError, match=r"model lacks \['blocks'\].* default"):
        Forecaster.load(edit(path, tmp_path / "g", lambda m, h, t: h["model"].pop("blocks")))


def test_every_changed_byte_is_detected(path, tmp_path):
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    positions = {0, 1, 7, 8, 9, 8 + header - 1, 8 + header, len(whole) // 2, len(whole) - 1}
    positions |= {whole.index(text) + 1 for text in (b"format", b"forecaster 5", b"sha256", b"version", b"t2m", b"F32")}
    positions |= {whole.index(b"__metadata__") + 3, *np.random.default_rng(0).integers(0, len(whole), 60).tolist()}
    for position in sorted(positions):
        for bit in (1, 32):
            damaged = bytearray(whole)
            damaged[position] ^= bit
            (tmp_path / "f").write_bytes(damaged)
            with pytest.raises(ValueError, match=re.escape(str(tmp_path / "f"))):
                Forecaster.load(tmp_path / "f")


@pytest.mark.parametrize("length", [0, 5, 8, 100, 5000, -1, "one byte more"])
def test_a_file_of_another_length_is_detected(path, tmp_path, length):
    whole = path.read_bytes()
    (tmp_path / "f").write_bytes(whole + b"\0" if length == "one byte more" else whole[:length])
    with pytest.raises(ValueError, match="/f'.* cut short"):
        Forecaster.load(tmp_path / "f")


def test_loading_runs_no_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    (tmp_path / "f").write_bytes(pickle.dumps(Trap()))
    torch.save(Trap(), tmp_path / "g")
    for name in ("f", "g"):
        with pytest.raises(ValueError, match="not a forecaster"):
            Forecaster.load(tmp_path / name)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, h, t: h["units"].reverse(), "/f' is damaged or was edited.* checksum"),
        (lambda m, h, t: t["std"].mul_(1.001), "not match its checksum"),
        (lambda m, h, t: m.pop("sha256"), "/f' has no checksum"),
        # claiming an older format does not avoid the checksum
        (
            lambda m, h, t: (m.pop("sha256"), m.update(format="simvp_climate forecaster 2")),
            "/f' has no checksum",
        ),
        (
            lambda m, h, t: (m.pop("sha256"), m.pop("version"), m.update(format="simvp_climate forecaster 2")),
            "/f' has no checksum",
        ),
        (lambda m, h, t: m.update(format="simvp_climate forecaster 2"), "not match its checksum"),
        (lambda m, h, t: m.update(format="pt"), "not a forecaster.* format 'pt'"),
    ],
)
def test_an_edit_that_leaves_the_checksum_is_detected(path, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Forecaster.load(edit(path, tmp_path / "f", change, sealed=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, h, t: t["std"].fill_(0), "/f' is not a usable forecaster: std must be finite"),
        (lambda m, h, t: t["std"].neg_(), "std must be finite and above 0"),
        (lambda m, h, t: t["change_std"].fill_(0), "change_std must be .* above 0"),
        (lambda m, h, t: t["mean"].fill_(np.nan), "mean must be finite"),
        (lambda m, h, t: t["log_scale"].fill_(-1), "log_scale must be .* at least 0"),
        (lambda m, h, t: t["bounds"].fill_(0), "bounds must be a smaller"),
        (lambda m, h, t: t.update(mask=t["mask"].float()), "mask must be boolean"),
        (lambda m, h, t: t.update(mask=t["mask"][:1].clone()), r"mask has the shape \(1, 8, 16\).* \(2, 8, 16\)"),
        (lambda m, h, t: t.update(std=t["std"][:1].clone()), r"std has the shape \(1,\).* \(2,\)"),
        (lambda m, h, t: t.update(latitude=t["latitude"].flip(0)), "latitude must be ascending"),
        (lambda m, h, t: t["latitude"].add_(30), "latitude must be .* within -90 and 90"),
        (lambda m, h, t: t.pop("climatology"), "climatology must have both coefficients and a period"),
        (lambda m, h, t: h.pop("climatology"), "climatology must have both coefficients and a period"),
        (
            lambda m, h, t: t.update(climatology=t["climatology"][:3].clone()),
            r"climatology is \(3, 2, 8, 16\) of float32, but must be \(9, 2, 8, 16\)",
        ),
        (lambda m, h, t: t["climatology"][0, 0, 0].fill_(np.nan), "climatology must be finite outside of the mask"),
        (lambda m, h, t: h["climatology"].update(months=[13]), r"months \[13\], is no period"),
        (lambda m, h, t: t["mask"].fill_(True), "mask must be .* unmasked cell"),
        (lambda m, h, t: h["channels"][0].__setitem__(0, "q"), r"channels \['q', 't2m'\] must be .* task"),
        (lambda m, h, t: h["model"].update(hidden_time=10**5), r"has the shape .* model .*100000"),
        (lambda m, h, t: h["model"].update(blocks=10**6), "model has 1000002 layers"),
        (
            lambda m, h, t: t["network.translator.blocks.0.norm_mix.running_var"].neg_(),
            "norm_mix.running_var' is a variance and has values below 0",
        ),
        (lambda m, h, t: m.update(format="simvp_climate forecaster 0"), "format 0, .* start at 1"),
        (lambda m, h, t: t.pop("longitude"), "it has no 'longitude'"),
        (lambda m, h, t: t.pop("network.readout.bias"), "lacks the weight 'readout.bias'"),
        (lambda m, h, t: t.update({"network.extra": torch.ones(1)}), "should not have the weight 'extra'"),
        (lambda m, h, t: t["network.readout.bias"].fill_(np.nan), "weight 'readout.bias' has values that are"),
        (
            lambda m, h, t: t.update({"network.readout.bias": torch.ones(3)}),
            r"weight 'readout.bias' has the shape \(3,\).* \(2,\)",
        ),
        (
            lambda m, h, t: t.update({"network.readout.bias": torch.ones(2).double()}),
            "weight 'readout.bias' .*torch.float64.* torch.float32",
        ),
        (lambda m, h, t: h["model"].update(blocks=3), "lacks the weight 'translator.blocks.2.* more"),
        (lambda m, h, t: h["model"].update(blocks="2"), "blocks='2'"),
        (lambda m, h, t: h["task"].update(history=0), "history=0"),
        (lambda m, h, t: h["task"].update(forcings=["insolation"]), r"forcings \[\].* task"),
        (lambda m, h, t: h.pop("channels"), "it has no 'channels'"),
        (lambda m, h, t: h["units"].pop(), "1 units for 2 channels"),
        (lambda m, h, t: h.update(model=3), "/f' is not a usable forecaster: "),
        (lambda m, h, t: h.update(provenance=None), "/f' is not a usable forecaster: "),
        (lambda m, h, t: h["provenance"].update(training=[1]), "provenance must name the training period"),
        (lambda m, h, t: h["model"].update(mlp_ratio=1e308), r"mlp_ratio=1e\+308 must be from 0.125 to"),
        (lambda m, h, t: h["channels"][0].__setitem__(1, "x"), r"levels of its channels, \['x'\], must be numbers"),
        (lambda m, h, t: h["channels"][0].__setitem__(1, np.nan), r"levels of its channels, \[nan\], must be numbers"),
        (lambda m, h, t: h.update(units="Km"), "units 'Km' .* must be lists of text"),
    ],
)  # fmt: skip
def test_inconsistent_content_is_named(path, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Forecaster.load(edit(path, tmp_path / "f", change))


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "{}"])
def test_an_unreadable_header_is_an_error(path, tmp_path, text):
    changed = edit(path, tmp_path / "f", lambda m, h, t: m.update(forecaster=text))
    with pytest.raises(ValueError, match="/f' (is damaged: its header|is not a usable forecaster)"):
        Forecaster.load(changed)


def test_the_checksum_covers_metadata_and_tensors(path):
    """Computed independently here."""
    with safetensors.safe_open(path, framework="np") as file:
        metadata, names = file.metadata(), sorted(file.keys())
        arrays = {name: file.get_tensor(name) for name in names}
    dtypes = {
        np.float32: "torch.float32",
        np.float64: "torch.float64",
        np.int64: "torch.int64",
        np.bool_: "torch.bool",
    }
    layout = [[name, dtypes[arrays[name].dtype.type], list(arrays[name].shape)] for name in names]
    others = [[key, metadata[key]] for key in ("forecaster", "format", "version")]
    digest = hashlib.sha256(json.dumps([others, layout]).encode())
    for name in names:
        digest.update(arrays[name].tobytes())
    assert metadata["sha256"] == digest.hexdigest()


def test_a_failed_write_keeps_the_previous_file(forecaster, tmp_path, monkeypatch):
    forecaster.save(tmp_path / "f")
    before = (tmp_path / "f").read_bytes()

    def fail(file_format):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        forecaster.save(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_files_of_older_formats_may_be_overwritten(forecaster, tmp_path):
    (tmp_path / "f").write_bytes((GOLDENS / "format_1.safetensors").read_bytes())
    forecaster.save(tmp_path / "f")
    assert Forecaster.load(tmp_path / "f", "cpu").provenance == forecaster.provenance
