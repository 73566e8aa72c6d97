"""The guide builds without a warning, needs no network, and leads nowhere that is not there."""

import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml

import simvp_climate as sc

ROOT = Path(__file__).resolve().parent.parent
FETCHED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}
NAMED_ONLY = {"canonical", "edit", "prev", "next"}


class Links(HTMLParser):
    """What a page fetches, and where it leads."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched, self.leads, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if attrs.get("rel") in NAMED_ONLY:
            return
        for name, value in attrs.items():
            if (tag, name) in FETCHED and value:
                self.fetched.append(value)
            if tag == "a" and name == "href" and value:
                self.leads.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    # not --quiet: it hides warnings from --strict too
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path: Links(path.read_text()) for path in folder.rglob("*.html")}


def test_pages_need_no_network(site):
    assert len(site) > 12
    for path, page in site.items():
        assert not [url for url in page.fetched if urlsplit(url).netloc], path.name
    folder = next(path.parent for path in site if path.name == "index.html")
    for sheet in folder.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet.name


def test_the_search_works_in_a_page_opened_from_a_disk(site):
    folder = next(path.parent for path in site if path.name == "index.html")
    assert (folder / "search" / "search_index.js").read_text().startswith("var __index = {")
    for path, page in site.items():
        assert any(url.endswith("javascripts/iframe-worker.js") for url in page.fetched), path.name


def test_links_lead_somewhere(site):
    for path, page in site.items():
        if path.name == "404.html":
            continue
        for url in page.fetched + page.leads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or url.startswith("data:"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name}: {url}"
            if parts.fragment and target.suffix == ".html" and target in site and parts.fragment != "__comments":
                assert unquote(parts.fragment) in site[target].ids, f"{path.name}: {url}"


def test_every_public_name_is_in_the_reference(site):
    (reference,) = (page for path, page in site.items() if path.name == "api.html")
    public = [getattr(sc, name) for name in sc._HOME]
    public += [
        getattr(space, name) for space in (getattr(sc, name) for name in sc._NAMESPACES) for name in space.__all__
    ]
    assert {f"{one.__module__}.{one.__qualname__}" for one in public} <= reference.ids


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["license"] == "Apache-2.0"
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_first_steps_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "get-started.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    # fewer months than a reader takes
    whole, part = 'sc.split(ds, "2003-08", "2003-12")', 'sc.split(ds.sel(time="2001"), "2001-02", "2001-03-15")'
    assert whole in blocks[0]
    names: dict = {}
    for block in blocks:
        exec(block.replace(whole, part), names)
    assert (tmp_path / "forecast.nc").exists()
    assert {"SimVPv2", "persistence", "climatology"} <= set(names["scores"].system.values)


def test_the_pictures_are_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pictures.md").read_text(), re.DOTALL)
    names = {}
    for block in blocks:
        exec(block, names)
        for number in plt.get_fignums():  # those of plt.subplots
            plt.close(number)
    # every function of the reference is on the page
    text = "".join(blocks)
    assert not [name for name in sc.plot.__all__ if f"sc.plot.{name}(" not in text]
    assert (tmp_path / "film.gif").stat().st_size > 10_000
    assert names["figure"].axes[0].get_title().startswith("Forecast +3 d")


def test_weights_of_openstl_become_a_forecaster(tmp_path, monkeypatch):
    """What docs/training.md says: run with a published network's shape, and 12 hourly states of its grid."""
    weights = torch.load(ROOT / "tests" / "goldens" / "small_t2m.pt", weights_only=True)["state_dict"]
    monkeypatch.chdir(tmp_path)
    torch.save(weights, "t2m.ckpt")
    (block,) = [
        b
        for b in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
        if "openstl.load" in b
    ]
    latitude, longitude = np.arange(-87.1875, 90, 5.625), np.arange(0, 360, 5.625)
    values = np.random.default_rng(0).normal(280, 20, (24, 32, 64)).astype("f4")
    coordinates = {"time": pd.date_range("2001", periods=24, freq="1h"), "latitude": latitude, "longitude": longitude}
    ds = xr.Dataset({"t2m": (tuple(coordinates), values, {"units": "K"})}, coordinates)
    names = {"sc": sc, "np": np, "ds": ds, "mean": 280.0, "std": 20.0}
    exec(block, names)
    forecast = names["forecaster"](ds)
    assert dict(forecast.sizes) == {"init_time": 1, "lead_time": 12, "latitude": 32, "longitude": 64}
    # the same by hand
    x = torch.from_numpy((values[-12:] - 280) / 20)[None, :, None]
    with torch.no_grad():
        by_hand = names["network"](x)[0, :, 0].numpy() * 20 + 280
    np.testing.assert_allclose(forecast["t2m"][0], by_hand, rtol=0, atol=1e-3)
    names["forecaster"].save("t2m.safetensors")
    again = sc.Forecaster.load("t2m.safetensors", device="cpu")(ds)
    np.testing.assert_array_equal(again["t2m"], forecast["t2m"])
