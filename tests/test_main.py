import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from factories import waves
from typer.testing import CliRunner

import simvp_climate as sc
from simvp_climate.__main__ import _verdict, _write, app


def invoke(*options, status=0):
    """What the command says, in this process: an error that is not foreseen has status 1."""
    result = CliRunner().invoke(app, list(map(str, options)), env={"COLUMNS": "300"})
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def made_up_scores():
    leads = pd.to_timedelta([6, 12, 24, 36, 48], unit="h").astype("timedelta64[ns]")
    values = np.full((3, 3, 5), np.nan)
    values[:, 0] = [[1, 2, 3, 4, 7], [2, 3, 4, 5, 8], [6, 6, 6, 6, 6]]
    values[:, 1] = [[0.9, 0.8, 0.7, 0.6, 0.5], [0.8, 0.7, 0.6, 0.5, 0.4], [np.nan] * 5]
    values[:, 2] = [[0.8] * 5, [1] * 5, [0.1] * 5]
    coords = {
        "system": ["SimVPv2", "persistence", "climatology"],
        "metric": ["rmse", "acc", "small_scale_variance"],
        "lead_time": leads,
    }
    return xr.Dataset({"t2m": (list(coords), values, {"units": "K"})}, coords)


def test_verdict():
    scores = made_up_scores()
    assert _verdict(scores) == "t2m beats persistence at every lead; beats climatology up to day 1.5"
    worse = scores + xr.where(scores["lead_time"] == scores["lead_time"][0], 10, 0) * (scores["system"] == "SimVPv2")
    assert _verdict(worse) == "t2m beats persistence at 4 of 5 leads; beats climatology at no lead"


@pytest.mark.parametrize("command", ["demo", "check", "forecast", "score", "plot", "reproduce"])
def test_help_shows_an_example_and_says_the_exit_status(command):
    result = subprocess.run(
        [sys.executable, "-m", "simvp_climate", command, "--help"], capture_output=True, text=True, check=True
    )
    words = " ".join(result.stdout.split())
    assert f" {command} " in words.partition("Example:")[2] and "Exit status 0" in words


def test_help_of_all_commands_and_version():
    said = invoke("--help")
    words = " ".join(said.split())
    assert "Example: simvp-climate" in words
    for status in ("Exit status 0", "2 if an option", "1 if check found errors"):
        assert status in words
    assert invoke("--version") == f"simvp-climate {sc.__version__}\n"
    assert "Commands" in invoke(status=2)


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_in_the_way_is_refused(tmp_path, folder):
    mine = tmp_path / "demo" / "forecast.nc" if folder else tmp_path / "demo"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    command = [sys.executable, "-m", "simvp_climate", "demo", "--out", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True)
    words = " ".join(re.findall(r"\w+", result.stderr))
    assert result.returncode == 2 and "exists and is not a folder of this demo choose another" in words
    assert mine.read_text() == "mine"


def test_the_demo_writes_what_it_says(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "simvp_climate", "demo", "--out", str(tmp_path), "--months", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "forecast.nc",
        "forecaster.safetensors",
        "maps.png",
        "scorecard.png",
        "scores.csv",
        "scores.nc",
        "scores.png",
    }
    assert "beats persistence" in result.stdout and "5 d" in result.stdout
    with xr.open_dataset(tmp_path / "scores.nc", decode_timedelta=True) as scores:
        # one August alone would have an RMSE of 10 K in winter
        assert float(scores.t2m.sel(system="climatology", metric="rmse").max()) < 3
        assert scores.attrs["climatology_start"] == "2001-01-01T00:00:00"
        assert scores.attrs["climatology_end"] == "2003-08-31T18:00:00"


def test_a_demo_that_cannot_run_leaves_nothing(tmp_path):
    said = invoke("demo", "--device", "tpu", "--out", tmp_path / "new" / "demo", status=2)
    assert "device='tpu' is not available" in said and "--device" in said
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    invoke("demo", "--device", "tpu", "--out", tmp_path / "mine", status=2)
    assert (tmp_path / "mine").is_dir(), "a folder that was there stays"


def test_a_file_that_is_not_finished_does_not_stay(tmp_path):
    def half(path):
        path.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        _write(tmp_path / "a.nc", half)
    assert list(tmp_path.iterdir()) == []


def check(*options):
    command = [sys.executable, "-W", "error", "-m", "simvp_climate", "check", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_check_of_clean_data(tmp_path):
    waves().to_zarr(tmp_path / "store.zarr", consolidated=False)
    result = check(tmp_path / "store.zarr")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("check: nothing found\n")
    assert "37 of 12 states in and 12 out, 6h apart" in result.stdout
    result = check(tmp_path / "store.zarr", "--variables", "t2m", "--history", "3", "--horizon", "2", "--step", "12h")
    assert result.returncode == 0 and "52 of 3 states in and 2 out, 12h apart" in result.stdout  # 60 - 2 * 4
    assert "z500" not in result.stdout


def test_check_says_by_its_status_what_it_found(tmp_path):
    gap = waves().isel(time=[*range(30), *range(32, 60)])
    gap.to_netcdf(tmp_path / "warning.nc")
    gap.assign(t2m=gap["t2m"].assign_attrs(units="degC")).to_netcdf(tmp_path / "error.nc")
    assert check(tmp_path / "warning.nc").returncode == 0
    assert check(tmp_path / "warning.nc", "--strict").returncode == 1
    result = check(tmp_path / "error.nc", "--html", tmp_path / "report.html", "--history", 4)
    assert result.returncode == 1 and 'ds["t2m"].attrs["units"] = "K"' in result.stdout
    assert "4 states in and 12 out" in result.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "units-mislabeled" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["error.nc", "report.html", "warning.nc"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere.zarr"], "does not exist"),
        (["store.nc", "--levels", "500,x"], "levels 500 x are no pressures"),
        (["store.nc", "--html", "nodir/x.html"], "html nodir x html there is no folder nodir"),
        (["store.nc", "--step", "sometimes"], "is not a time step"),
        (["store.nc", "--history", "0"], "history"),
    ],
)
def test_check_that_cannot_be_done(tmp_path, options, words):
    waves().to_netcdf(tmp_path / "store.nc")
    result = check(tmp_path / options[0], *options[1:])
    assert (
        result.returncode == 2
        and words.split()
        == [word for word in re.findall(r"\w+", result.stderr) if word in words.split()][: len(words.split())]
    )


@pytest.mark.slow
def test_the_demo_reaches_its_targets(tmp_path):
    command = [sys.executable, "-m", "simvp_climate", "demo", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "z500 beats persistence at every lead; beats climatology up to day 5." in result.stdout
    assert "t2m beats persistence at every lead" in result.stdout


def run(*options, status=0):
    command = [sys.executable, "-W", "error", "-m", "simvp_climate", *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == status, result.stderr
    return result


@pytest.fixture(scope="module")
def folder(forecaster, tmp_path_factory):
    """A forecaster, its data, and two forecasts of it."""
    folder = tmp_path_factory.mktemp("files")
    waves().to_zarr(folder / "data.zarr", consolidated=False)
    waves().to_netcdf(folder / "data.nc")
    forecaster.save(folder / "f.safetensors")
    options = ["forecast", folder / "f.safetensors", folder / "data.zarr", "--device", "cpu"]
    run(*options, "--every", "12h", "--out", folder / "forecast.nc")
    run(*options, "--every", "12h", "--horizon", 6, "--out", folder / "hindcast.zarr")
    return folder


class TestFromFileToFigure:
    def test_a_forecast_is_that_of_the_forecaster(self, folder, forecaster):
        expected = forecaster(waves(), every="12h")
        with xr.open_dataset(folder / "forecast.nc", decode_timedelta=True) as found:
            xr.testing.assert_allclose(found.load(), expected, rtol=1e-5)
        with xr.open_zarr(folder / "hindcast.zarr", decode_timedelta=True) as found:
            assert found.sizes["lead_time"] == 6
        last = folder / "last.nc"
        options = ["forecast", folder / "f.safetensors", folder / "data.zarr", "--out", last]
        said = run(*options, "--init", str(expected.init_time.values[0])).stdout
        assert f"{last}: 1 forecasts of" in said
        with xr.open_dataset(last, decode_timedelta=True) as found:
            xr.testing.assert_allclose(found.load(), expected.isel(init_time=[0]), rtol=1e-5)

    def test_forecasts_of_one_name_are_all_scored(self, folder, tmp_path):
        for name in ("a/forecast", "b/forecast", "persistence", "climatology", "SimVPv2", "other"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(folder / "forecast.nc", tmp_path / f"{name}.nc")
        files = sorted(tmp_path.rglob("*.nc"))
        invoke("score", folder / "forecast.nc", *files, "--truth", folder / "data.zarr", "--out", tmp_path / "s.nc")
        with xr.open_dataset(tmp_path / "s.nc", decode_timedelta=True) as found:
            own = tmp_path.name
            expected = {f"{own}/{name}" for name in ("persistence", "climatology", "SimVPv2")}
            assert set(found.system.values) == expected | {
                "a/forecast",
                "b/forecast",
                "other",
                "SimVPv2",
                "persistence",
            }
            rmse = found.t2m.sel(metric="rmse")
            for name in {*found.system.values} - {"persistence"}:
                np.testing.assert_allclose(rmse.sel(system=name), rmse.sel(system="SimVPv2"))
        twice = [tmp_path / "other.nc", tmp_path / "other.nc"]
        said = invoke("score", folder / "forecast.nc", *twice, "--truth", folder / "data.zarr", status=2)
        assert "have one name" in said

    def test_the_table_has_the_intervals_of_the_file(self, folder, tmp_path):
        said = invoke(
            "score", folder / "forecast.nc", "--truth", folder / "data.zarr", "--out", tmp_path / "s.nc"
        )  # fmt: skip
        with xr.open_dataset(tmp_path / "s.nc", decode_timedelta=True) as found:
            at = dict(system="persistence", metric="rmse", lead_time=pd.Timedelta("18h"))
            low, value, high = (float(found[name].sel(at)) for name in ("t2m_low", "t2m", "t2m_high"))
        assert low < value < high
        assert f"persistence {value:#.4g} [{low:#.4g}, {high:#.4g}]" in " ".join(said.split("t2m [K]")[1].split())

    def test_scores_are_those_of_score(self, folder, forecaster):
        store = folder / "data.zarr"
        options = ["score", folder / "forecast.nc", folder / "hindcast.zarr", "--truth", store]
        said = run(*options, "--out", folder / "scores.nc", "--csv", folder / "scores.csv").stdout
        assert "rmse" in said and "hindcast" in said and "persistence" in said
        expected = sc.score(forecaster(waves(), every="12h"), waves())
        with xr.open_dataset(folder / "scores.nc", decode_timedelta=True) as found:
            ours = found.t2m.sel(metric="rmse", system="SimVPv2")
            np.testing.assert_allclose(ours, expected.t2m.sel(metric="rmse", system="SimVPv2"), rtol=1e-5)
            # the same forecaster from the same times
            np.testing.assert_allclose(found.t2m.sel(metric="rmse", system="hindcast"), ours, rtol=1e-5)
        assert (folder / "scores.csv").read_text().startswith("metric")

    @pytest.mark.parametrize("kind", ["maps", "film", "hovmoller", "scores", "scorecard"])
    def test_pictures(self, folder, kind):
        out = folder / ("film.gif" if kind == "film" else f"{kind}.png")
        if kind in ("scores", "scorecard"):
            run("score", folder / "forecast.nc", "--truth", folder / "data.zarr", "--out", folder / "s.nc")
            said = run("plot", kind, folder / "s.nc", "--out", out).stdout
        else:
            options = ["--truth", folder / "data.zarr", "--variable", "t2m", "--out", out]
            said = run("plot", kind, folder / "forecast.nc", *options).stdout
        assert said == f"{out}\n"
        assert out.stat().st_size > 5000

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["forecast", "f.safetensors", "data.zarr", "--out", "f.txt"], "ends in nc or zarr"),
            (["forecast", "f.safetensors", "data.zarr", "--out", "f.zarr"], "say from which times"),
            (["forecast", "f.safetensors", "nowhere.zarr", "--out", "f.nc"], "does not exist"),
            (["score", "forecast.nc", "--truth", "data.zarr", "--train", "2001"], "is no period"),
            (["score", "nowhere.nc", "--truth", "data.zarr"], "does not exist"),
            (["plot", "maps", "forecast.nc", "--variable", "x", "--out", "m.png"], "variable x is not in"),
            (["plot", "maps", "forecast.nc", "--out", "cm2"], "out cm2 the name ends in png"),
            (["plot", "maps", "forecast.nc", "--out", "cm2.gif"], "cm2 gif the name ends in png"),
            (["plot", "film", "forecast.nc", "--out", "m.png"], "the name ends in gif or mp4"),
            (["plot", "maps", "forecast.nc", "--out", "nodir/m.png"], "there is no folder"),
            (["plot", "film", "forecast.nc", "--out", "m.gif"], "here variable level"),
            (["plot", "maps", "forecast.nc", "--init", "junk", "--out", "m.png"], "here init"),
            (["plot", "scores", "forecast.nc", "--out", "m.png"], "it holds no scores"),
            (["plot", "maps", "data.nc", "--out", "m.png"], "it is no forecast"),
            (["forecast", "f.safetensors", "data.zarr", "--start", "junk", "--out", "f.nc"], "start junk is no date"),
            (
                ["forecast", "f.safetensors", "data.zarr", "--end", "1999", "--out", "f.nc"],
                "has no time from its first",
            ),
            (["forecast", "f.safetensors", "forecast.nc", "--out", "f.nc"], "and no time"),
            (["forecast", "f.safetensors", "data.zarr", "--init", "junk", "--out", "f.nc"], "init junk is no date"),
            (["reproduce", "forecast.nc", "--forecaster", "f.safetensors", "--data", "forecast.nc"], "and no time"),
            (["forecast", "f.safetensors", "data.zarr", "--out", "nodir/b.nc"], "there is no folder"),
            (["score", "forecast.nc", "--truth", "data.zarr", "--train", "junk:2003"], "train junk is no date"),
            (["score", "forecast.nc", "--truth", "data.zarr", "--train", "2001:"], "here allow overlap"),
            (["score", "forecast.nc", "--truth", "data.zarr", "--out", "nodir/x.nc"], "there is no folder"),
            (["score", "forecast.nc", "--truth", "data.zarr", "--csv", "nodir/x.csv"], "there is no folder"),
        ],
    )
    def test_what_cannot_be_done(self, folder, options, words):
        before = sorted(folder.iterdir())
        paths = [folder / one if "." in one and not one.startswith("-") else one for one in options]
        said = " ".join(re.findall(r"[^\W_]+", invoke(*paths, status=2)))
        assert words in said
        assert sorted(folder.iterdir()) == before

    def test_an_overlap_may_be_allowed(self, folder):
        options = ["score", folder / "forecast.nc", "--truth", folder / "data.zarr", "--train", ":2001-01-10"]
        assert "climatology" in invoke(*options, "--allow-overlap")

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("scores", ["--truth", "nowhere", "--lead", "9D", "--init", "junk"]),
            ("scores", ["--baseline", "climatology"]),
            ("scorecard", ["--truth", "nowhere"]),
            ("hovmoller", ["--lead", "1D"]),
            ("maps", ["--baseline", "persistence"]),
            ("film", ["--dpi", "100"]),
        ],
    )
    def test_what_would_be_ignored_is_refused(self, folder, kind, options):
        out = "m.gif" if kind == "film" else "m.png"
        said = invoke("plot", kind, folder / "forecast.nc", *options, "--out", folder / out, status=2)
        for name in options[::2]:
            assert name in said.partition("would ignore it")[0]

    @pytest.mark.parametrize("kind", ["maps", "film", "hovmoller"])
    def test_a_level_of_a_forecast_with_levels(self, folder, tmp_path, kind):
        with xr.open_dataset(folder / "forecast.nc", decode_timedelta=True) as found:
            t = found["t2m"].load().isel(init_time=slice(-4, None))
        t = xr.concat([t, t - 30], pd.Index([850, 500], name="level")).assign_attrs(units="K")
        t = t.transpose("init_time", "lead_time", "level", ...).rename("temperature")
        t["level"].attrs = {"units": "hPa", "standard_name": "air_pressure"}
        t.drop_encoding().to_dataset().to_netcdf(tmp_path / "forecast.nc")
        out = tmp_path / ("film.gif" if kind == "film" else "picture.png")
        options = ["plot", kind, tmp_path / "forecast.nc", "--out", out]
        assert invoke(*options, "--level", 500).strip().endswith(str(out))
        assert out.stat().st_size > 5000
        assert "700" in invoke(*options, "--level", 700, status=2)
        if kind != "maps":
            assert "shows one" in invoke(*options, "--level", 500, "--level", 850, status=2)
