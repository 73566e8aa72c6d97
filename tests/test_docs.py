"""The guide builds without a warning and needs no network; its links lead to pages and its code fits the package."""

import ast
import importlib.util
import inspect
import io
import json
import os
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
from factories import TASK, quick, tiny_model, waves
from PIL import Image

import simvp_climate as sc

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("guide_figures", ROOT / "tools" / "guide_figures.py")
guide_figures = importlib.util.module_from_spec(_spec)
sys.modules["guide_figures"] = guide_figures
_spec.loader.exec_module(guide_figures)
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}
NOT_LOADED = {"canonical", "edit", "prev", "next"}


class Page(HTMLParser):
    """The files that a page loads, its links, and the ids of its elements."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded, self.links, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if attrs.get("rel") in NOT_LOADED:
            return
        for name, value in attrs.items():
            if (tag, name) in LOADED and value:
                self.loaded.append(value)
            if tag == "a" and name == "href" and value:
                self.links.append(value)


def public_names() -> dict[str, object]:
    """Return all public functions and classes by the name that users write, such as "sc.metrics.rmse"."""
    names = {f"sc.{name}": getattr(sc, name) for name in sc._HOME}
    for namespace in sc._NAMESPACES:
        module = getattr(sc, namespace)
        names |= {f"sc.{namespace}.{name}": getattr(module, name) for name in module.__all__}
    return names


def python_blocks(path: Path) -> list[str]:
    """Return the blocks of Python code in a Markdown file."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def python_code() -> dict[str, str]:
    """Return the Python code of the README, the guide without the reference, the notebooks and the recipes by file."""
    pages = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "api.md")]
    code = {path.name: "\n".join(python_blocks(path)) for path in pages}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
        code[path.name] = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    return code | {path.name: path.read_text() for path in sorted((ROOT / "recipes").glob("*.py"))}


def shown_code() -> dict[str, str]:
    """Return the Python code by file, and for pages also what stands in backticks in the text."""
    code = python_code()
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        if path.name in code:
            code[path.name] += "\n" + "\n".join(re.findall(r"`([^`\n]+)`", path.read_text()))
    return code


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the guide and return its pages by path."""
    folder = tmp_path_factory.mktemp("site")
    # not --quiet: it hides warnings from --strict too
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"GUIDE_FIGURES": "no"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return {path: Page(path.read_text()) for path in folder.rglob("*.html")}


def test_pages_need_no_network(site):
    assert len(site) > 12
    for path, page in site.items():
        assert not [url for url in page.loaded if urlsplit(url).netloc], path.name
    folder = next(path.parent for path in site if path.name == "index.html")
    for sheet in folder.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet.name


def test_the_search_works_in_a_page_opened_from_a_disk(site):
    folder = next(path.parent for path in site if path.name == "index.html")
    assert (folder / "search" / "search_index.js").read_text().startswith("var __index = {")
    for path, page in site.items():
        assert any(url.endswith("javascripts/iframe-worker.js") for url in page.loaded), path.name


def test_links_lead_to_existing_pages(site):
    for path, page in site.items():
        if path.name == "404.html":
            continue
        for url in page.loaded + page.links:
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
    public = public_names().values()
    assert {f"{item.__module__}.{item.__qualname__}" for item in public} <= reference.ids


def test_every_public_name_is_used_in_the_guide_a_notebook_or_a_recipe():
    code = "\n".join(shown_code().values())
    unused = [name for name in public_names() if not re.search(rf"\b{re.escape(name)}\b", code)]
    assert not unused, "use it in the guide, or make it private"


def test_calls_of_public_functions_fit_their_signatures():
    public = public_names()
    calls = 0
    for source, code in python_code().items():
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name in public and not any(isinstance(argument, ast.Starred) for argument in call.args):
                keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
                try:
                    inspect.signature(public[name]).bind_partial(*call.args, **keywords)
                except TypeError as error:
                    raise AssertionError(f"{source}: {ast.unparse(call)}: {error}") from error
                calls += 1
    assert calls > 100


def test_the_map_in_contributing_names_existing_files_and_objects():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    entries = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?: or )?)+)", text)
    assert len(entries) > 10
    for file, names in entries:
        tree = ast.parse((ROOT / "simvp_climate" / file).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
        assert set(re.findall(r"\w+", names.replace(" or ", " "))) <= defined, file


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version and citation["license"] == "Apache-2.0"
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_first_steps_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(ROOT / "docs" / "get-started.md")
    assert len(blocks) == 3
    # fewer months than in the guide
    split, short_split = 'sc.split(ds, "2003-08", "2003-12")', 'sc.split(ds.sel(time="2001"), "2001-02", "2001-03-15")'
    assert split in blocks[0]
    names: dict = {}
    for block in blocks:
        # a climatology of two months holds no others
        block = block.replace(
            "train=train", "climatology=sc.baselines.climatology(train, method='hourly'), train=train"
        )
        exec(block.replace(split, short_split), names)
    assert (tmp_path / "forecast.nc").exists()
    baselines = {"persistence", "anomaly persistence", "climatology", "damped persistence", "linear regression"}
    assert {"SimVPSphere", *baselines} == set(names["scores"].system.values)


def test_every_figure_stands_beneath_its_code_and_in_the_gallery(site):
    pages = {path.name: page for path, page in site.items()}
    pictures = [url for url in pages["pictures.html"].loaded if url.startswith("figures/")]
    for name in sc.plot.__all__:
        assert any(re.fullmatch(rf"figures/{name}-1\.(png|gif)", url) for url in pictures), name
        assert f"figures/small-{name}.png" in pictures
    large = [url for url in pictures if "small-" not in url]
    assert large.index("figures/compare-1.png") < large.index("figures/scores_by_init-1.png")
    assert any(url.startswith("figures/maps-1") for url in pages["index.html"].loaded)


def test_code_in_the_pictures_fits_the_page():
    for page in ("pictures.md", "index.md"):
        lines = "\n".join(python_blocks(ROOT / "docs" / page)).splitlines()
        assert not [line for line in lines if len(line) > 80], page


def test_figures_follow_the_statement_that_draws_them():
    text = """## One

```python
import matplotlib.pyplot as plt
def draw():
    figure, axes = plt.subplots(figsize=(2, 1))
    return figure
# a comment
draw()
x = 1
draw(
)
y = x
```

Text.
"""
    guide = guide_figures.draw_guide(text)
    parts = re.split(r"!\[Figure of draw\]\(figures/draw-\d.png\)", guide.text)
    assert [part.count("```") for part in parts] == [2, 2, 2]
    assert parts[0].endswith("# a comment\ndraw()\n```\n\n") and "x = 1\ndraw(\n)\n```" in parts[1]
    assert "y = x" in parts[2] and parts[2].endswith("Text.\n")
    assert [(figure.function, figure.section) for figure in guide.figures] == [("draw", "One")] * 2
    assert [Image.open(io.BytesIO(figure.content)).size for figure in guide.figures] == [(200, 100)] * 2
    assert plt.get_fignums() == []
    html, small = guide_figures.gallery(guide)
    assert html.count("<img") == len(small) == 1 and 'href="#one"' in html
    with pytest.raises(ZeroDivisionError):
        guide_figures.draw_guide("```python\n1 / 0\n```\n")


@pytest.mark.slow
def test_the_figures_of_the_guide_are_drawn():
    guide = guide_figures.draw_guide((ROOT / "docs" / "pictures.md").read_text())
    assert {figure.function for figure in guide.figures} == set(sc.plot.__all__)
    for figure in guide.figures:
        image = np.asarray(Image.open(io.BytesIO(figure.content)).convert("L"))
        assert image.shape[1] >= 300 and image.std() > 5 and len(figure.content) > 10_000, figure.path


def test_the_single_metrics_of_the_guide_run():
    times = pd.date_range("2001", periods=400, freq="1D", unit="ns")
    latitude, longitude = np.arange(-67.5, 90, 45), np.arange(0, 360, 9.0)
    random = np.random.default_rng(0)

    def field(offset: float) -> tuple:
        values = offset + random.exponential(1e-3, (len(times), len(latitude), len(longitude)))
        return ("time", "latitude", "longitude"), values

    units = {"z500": "m2 s-2", "t2m": "K", "u10": "m s-1", "v10": "m s-1", "tp": "m"}
    ds = xr.Dataset(
        {name: (*field(0.0), {"units": unit}) for name, unit in units.items()},
        {"time": times, "latitude": latitude, "longitude": longitude},
    )
    train, test = ds.isel(time=slice(None, 370)), ds.isel(time=slice(370, None))
    forecast = sc.baselines.persistence(test, test.time[:20], ["1D", "2D"])
    names = {
        "sc": sc,
        "forecast": forecast,
        "members": xr.concat([forecast, forecast + 1e-3], pd.Index([0, 1], name="number")).assign_attrs(forecast.attrs),
        "test": test,
        "train": train,
        "climatology": sc.baselines.climatology(train),
    }
    (block,) = [block for block in python_blocks(ROOT / "docs" / "verification.md") if "sc.metrics.seeps(" in block]
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr):
            result = eval(ast.unparse(statement), names)
            values = result.to_array() if isinstance(result, xr.Dataset) else result
            assert np.isfinite(values).all(), ast.unparse(statement)
        else:
            exec(ast.unparse(statement), names)


def test_the_files_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ds = sc.open_sample().sel(time=slice("2004-02-01", "2004-02-02"))
    forecast = sc.baselines.persistence(ds, ds.time[:3], ["6h", "12h"])
    (block,) = [block for block in python_blocks(ROOT / "docs" / "forecasts.md") if "save_valid_time" in block]
    exec(block, {"sc": sc, "forecast": forecast})
    one = xr.load_dataset("one.nc", decode_timedelta=False)
    np.testing.assert_array_equal(one.z500, forecast.z500[0])
    assert one.pressure_500 == 500 and len(list(Path("forecasts").iterdir())) == 3
    xr.testing.assert_equal(xr.load_dataset("forecast.nc", decode_timedelta=True), forecast)


def test_the_cmip_files_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = sc.open_sample().sel(time=slice("2001-01", "2001-12")).coarsen(time=4).mean()
    names = {"sc": sc, "run": run}
    exec(code_block("climate.md", '"cmip"'), names)
    assert names["paths"][0].name == re.search(r"name  # (.*)", code_block("climate.md", '"cmip"'))[1]
    grid = {"latitude": np.arange(-88.59375, 90, 2.8125), "longitude": np.arange(0, 360, 2.8125)}
    fine = run[["t2m"]].sel(time="2001-01").interp(grid, kwargs={"fill_value": "extrapolate"})
    exec(code_block("climate.md", '"aimip"'), {"sc": sc, "fine_run": fine})
    assert len(list(Path("aimip").rglob("tas_Amon_SimVP-1_aimip_r1i1p1f1_gn_200101-200101.nc"))) == 1


def test_the_means_of_the_guide():
    times = pd.date_range("2001", periods=500 * 4, freq="6h", unit="ns")
    values = 280 + np.random.default_rng(0).normal(size=(len(times), 4, 8))
    coords = {"time": times, "latitude": np.arange(-67.5, 90, 45), "longitude": np.arange(0, 360, 45.0)}
    ds = xr.Dataset({"t2m": (tuple(coords), values, {"units": "K"})}, coords)
    train, test = ds.sel(time="2001"), ds.sel(time="2002")
    forecast = sc.baselines.persistence(test, test.time[28:200:4], [f"{6 * k}h" for k in range(1, 57)])
    names = {"sc": sc, "forecast": forecast, "train": train, "test": test}
    (block,) = [block for block in python_blocks(ROOT / "docs" / "verification.md") if "time_mean" in block]
    exec(block, names)
    assert dict(names["weeks"].sizes)["lead_time"] == 2
    assert [str(time)[:7] for time in names["months"].time.values] == ["2002-01", "2002-02", "2002-03", "2002-04"]


class Decaying(torch.nn.Module):
    """Forecasts the input with weaker anomalies."""

    def __init__(self, shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.9))

    def forward(self, x_BTCHW):
        return self.weight * x_BTCHW


def test_the_runs_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "climate.md").read_text().split("## Run for decades")[1].split("\n## ")[0]
    training, running, prescribed = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    train, valid, test = waves(times=60), waves(times=40, start="2001-03-01"), waves(times=40, start="2003-12-25")
    names = {"sc": sc, "train": train, "valid": valid, "test": test}
    exec(training.replace("rollout_share=0.4,", "rollout_share=0.4, epochs=1, progress=False,"), names)
    assert "valid_rollout_bias" in names["forecaster"].training_curve
    # such a short training does not make a network that stays in range for months
    names["forecaster"] = sc.train(TASK, train, valid=None, model=Decaying, config=quick(), device="cpu")
    exec(running.replace("2034-01-01", "2004-03-05").replace("2010-07", "2004-02"), names)
    run = names["run"]
    assert run.sizes["time"] == 64 and {"t2m", "z500"} == set(run.data_vars)
    plt.close("all")
    exec(prescribed, names)
    assert names["task"].prescribed == ("t2m",)


def test_the_climate_report_of_the_guide():
    times = pd.date_range("2001", periods=4 * 365 + 1, freq="1D", unit="ns")
    values = np.random.default_rng(0).normal(280, 1, (3, len(times), 6, 12))
    grid = {"latitude": np.arange(-75, 90, 30.0), "longitude": np.arange(0, 360, 30.0)}
    dims = ("number", "time", "latitude", "longitude")
    both = xr.Dataset({"t2m": (dims, values, {"units": "K"})}, {"number": [0, 1, 2], "time": times, **grid})
    both = both.transpose("time", ...)
    names = {"sc": sc, "run": both.isel(number=slice(0, 2)), "truth": both.isel(number=2, drop=True)}
    text = (ROOT / "docs" / "climate.md").read_text().split("## Compare a run with the truth")[1].split("\n## ")[0]
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert names["report"].member.values.tolist() == ["all", "0", "1"]
    assert names["of_months"].band.size == 3 and abs(float(names["of_months"].t2m_bias.mean())) < 0.02


def test_the_indices_of_the_guide():
    times = pd.date_range("2001", periods=400, freq="1D", unit="ns")
    latitude, longitude = np.arange(-87.5, 90, 5), np.arange(0, 360, 10.0)
    random = np.random.default_rng(0)
    shape = (len(times), len(latitude), len(longitude))
    units = {"z500": "m2 s-2", "msl": "Pa", "sst": "K"}
    offsets = {"z500": 5e4, "msl": 1e5, "sst": 290.0}
    ds = xr.Dataset(
        {
            name: (("time", "latitude", "longitude"), offsets[name] + random.normal(size=shape), {"units": unit})
            for name, unit in units.items()
        },
        {"time": times, "latitude": latitude, "longitude": longitude},
    )
    train, test = ds.isel(time=slice(None, 370)), ds.isel(time=slice(370, None))
    forecast = sc.baselines.persistence(test, test.time[:20], ["1D", "2D"])
    names = {"sc": sc, "forecast": forecast, "test": test, "train": train}
    names["climatology"] = sc.baselines.climatology(train)
    (block,) = [block for block in python_blocks(ROOT / "docs" / "verification.md") if "fit_nao" in block]
    exec(block, names)
    scores = names["scores"].nao
    assert (scores.sel(system="forecast", metric="rmse") > 0).all() and (abs(scores.sel(metric="acc")[0]) < 1).all()


def test_points_and_stations_of_the_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ds = waves(times=60).assign(orography=0 * waves(times=1).t2m[0].drop_vars("time") + 300)
    ds.to_zarr("era5.zarr", consolidated=False)
    forecast = sc.baselines.persistence(ds[["t2m"]], ds.time[:40], ["6h", "12h"])
    stations = {"latitude": [59.9, -18.1], "longitude": [10.7, 178.4], "elevation": [94, 6], "names": ["Oslo", "Suva"]}
    observed = sc.at(ds[["t2m"]], **stations, orography=ds).t2m.to_dataframe().reset_index()
    observed["t2m"] -= 273.15
    observed["time"] += pd.Timedelta("10min")
    observed[["time", "station", "latitude", "longitude", "elevation", "t2m"]].to_csv("stations.csv", index=False)
    names = {"sc": sc, "pd": pd, "forecast": forecast, "orography": ds[["orography"]]}
    (points,) = [block for block in python_blocks(ROOT / "docs" / "forecasts.md") if "sc.at(" in block]
    exec(points, names)
    assert names["munich"].station.values.tolist() == ["48.1N 11.6E"]
    # 206 m lower than the grid
    warmer = names["places"].t2m - sc.at(forecast, 59.9, 10.7).t2m.values
    np.testing.assert_allclose(warmer.sel(station="Oslo"), 0.206 * 6.5, rtol=1e-4)
    (scores,) = [block for block in python_blocks(ROOT / "docs" / "verification.md") if "station_obs" in block]
    exec(scores, names)
    expected = sc.score(sc.at(forecast, **stations, orography=ds), sc.at(ds[["t2m"]], **stations, orography=ds))
    xr.testing.assert_allclose(names["scores"].t2m, expected.t2m, atol=1e-3)
    assert names["scores"].t2m_observations.values.tolist() == [80, 80]


def test_a_network_of_another_kind_is_trained_as_the_guide_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in python_blocks(ROOT / "docs" / "training.md") if "NetworkShape" in block]
    ds = waves(times=30)
    names = {"sc": sc, "task": TASK, "train": ds.isel(time=slice(0, 20)), "valid": ds.isel(time=slice(20, None))}
    block = block.replace("model=Convolutions)", "model=Convolutions, config=config, device='cpu')")
    exec(block, {**names, "config": quick(epochs=2)})
    assert (tmp_path / "convolutions.safetensors").exists()


def test_weights_of_openstl_become_a_forecaster(tmp_path, monkeypatch):
    """Run the example of docs/training.md with a network of the published shape and 12 hourly states of its grid."""
    weights = torch.load(ROOT / "tests" / "goldens" / "small_t2m.pt", weights_only=True)["state_dict"]
    monkeypatch.chdir(tmp_path)
    torch.save(weights, "t2m.ckpt")
    (block,) = [block for block in python_blocks(ROOT / "docs" / "training.md") if "openstl.load" in block]
    latitude, longitude = np.arange(-87.1875, 90, 5.625), np.arange(0, 360, 5.625)
    values = np.random.default_rng(0).uniform(240, 320, (24, 32, 64)).astype("f4")
    coordinates = {"time": pd.date_range("2001", periods=24, freq="1h"), "latitude": latitude, "longitude": longitude}
    ds = xr.Dataset({"t2m": (tuple(coordinates), values, {"units": "K"})}, coordinates)
    names = {"sc": sc, "np": np, "ds": ds, "mean": 280.0, "std": 20.0}
    exec(block, names)
    forecast = names["forecaster"](ds)
    assert dict(forecast.sizes) == {"init_time": 1, "lead_time": 12, "latitude": 32, "longitude": 64}
    # the network applied without the package
    x = torch.from_numpy((values[-12:] - 280) / 20)[None, :, None]
    with torch.no_grad():
        expected = names["network"](x)[0, :, 0].numpy() * 20 + 280
    np.testing.assert_allclose(forecast["t2m"][0], expected, rtol=0, atol=1e-3)
    names["forecaster"].save("t2m.safetensors")
    again = sc.Forecaster.load("t2m.safetensors", device="cpu")(ds)
    np.testing.assert_array_equal(again["t2m"], forecast["t2m"])


def code_block(page: str, text: str) -> str:
    """Return the only block of Python code in a page of the guide that contains a text."""
    (block,) = [block for block in python_blocks(ROOT / "docs" / page) if text in block]
    return block


def test_variables_are_renamed_as_the_guide_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heights = waves(times=4)["z500"].expand_dims(level=[500.0], axis=1)
    heights["level"].attrs = {"units": "hPa"}
    waves(times=4).rename(t2m="air").drop_vars("z500").assign(hgt=heights).to_netcdf("mine.nc")
    names = {"sc": sc}
    exec(code_block("data.md", '"z500": "hgt"'), names)
    for name in ("t2m", "z500"):
        np.testing.assert_array_equal(names["ds"][name], waves(times=4)[name])


@pytest.fixture(scope="module")
def periods():
    """Return a year to train on, a validation period, a test period and a forecaster, on a coarse grid."""
    ds = waves(times=1600)
    train, valid, test = (ds.isel(time=slice(*edges)) for edges in ((0, 1460), (1460, 1490), (1490, 1600)))
    config = quick(max_steps=2)
    return train, valid, test, sc.train(TASK, train, valid=valid, model=tiny_model(), config=config, device="cpu")


def test_a_forecaster_is_fine_tuned_from_its_file_as_the_guide_says(periods, tmp_path, monkeypatch, capsys):
    train, valid, _, forecaster = periods
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "z500_t2m" / "forecaster.safetensors"
    path.parent.mkdir(parents=True)
    forecaster.save(path)
    names = {"sc": sc, "train": train, "valid": valid, "forecaster": forecaster}
    exec(code_block("training.md", "tuned =").replace("epochs=2", "epochs=2, max_steps=1"), names)
    assert names["tuned"].provenance["start_from"]["taken"] == ["z500", "t2m"]
    block = code_block("training.md", "wider =").replace("epochs=2", "epochs=2, max_steps=1")
    task = forecaster.task
    block = block.replace("history=4, horizon=4", f"history={task.history}, horizon={task.horizon}")
    wind = [ds.assign(u10=(ds["t2m"] - 285.0).assign_attrs(units="m s-1")) for ds in (train, valid)]
    exec(block, names | dict(zip(("train", "valid"), wind, strict=True)))
    assert "copied the weights of z500, t2m; new, with random weights: u10" in capsys.readouterr().out


def test_scores_without_a_climatology_of_ones_own(periods):
    train, _, test, forecaster = periods
    names = {"sc": sc, "train": train, "test": test, "forecaster": forecaster, "forecast": forecaster(test, every="1D")}
    exec(code_block("verification.md", "climatology = forecaster.climatology"), names)
    assert names["anomaly"]["t2m"].dims == names["forecast"]["t2m"].dims
    assert abs(float(names["anomaly"]["t2m"].mean())) < 1
    assert "anomaly persistence" in names["scores"].system.values
    exec(code_block("verification.md", "sc.baselines.AnomalyPersistence(climatology)"), names)
    assert names["persisted"]["z500"].dims == names["forecast"]["z500"].dims
