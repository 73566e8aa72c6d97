"""The benchmark for GPUs: what it makes of results, what it does with a limited time, and that all scripts run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_cuda import fake_cuda

ROOT = Path(__file__).parents[1]
ROWS = {
    "plain, float32": {"step": 0.12, "forecast": 0.04},
    "plain, all three changes": {"step": 0.03, "forecast": 0.02},
    "simvp_climate, float32": {"step": 0.08, "forecast": 0.02},
    "simvp_climate, bfloat16": {"step": 0.03, "forecast": 0.01},
    "simvp_climate, defaults on a GPU": {"step": 0.025, "forecast": 0.02},
}


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    monkeypatch.setattr(gpu, "describe_machine", lambda: {"device": "GPU", "torch": "2", "python": "3", "cores": 2})
    return gpu


def test_speeds_are_compared_with_the_targets(gpu):
    lines = gpu.compare_with_targets({"rows": ROWS, "waiting": 0.049})
    assert [(value, met) for _, value, _, met in lines] == [
        ("4.80", True),  # 120 / 25 ms, at least 3
        ("2.00", False),  # 40 / 20 ms, at least 4: forecasts are in float32
        ("1.20", False),  # 30 / 25 ms, at least 1.3
        ("4.9%", True),
    ]
    uncompiled = {name: row for name, row in ROWS.items() if name not in (gpu.STACK, gpu.DEFAULTS)}
    expected = {"training": 4.0, "forecast": 4.0, "waiting": 0.0}  # 120 / 30 and 40 / 10 ms, in bfloat16
    assert gpu.ratios({"rows": uncompiled, "waiting": 0.0}) == pytest.approx(expected)


def test_test_results_name_what_failed(gpu, tmp_path):
    (tmp_path / "results.xml").write_text(
        '<testsuites><testsuite tests="4" skipped="1" failures="1" errors="0"><testcase name="a"/>'
        '<testcase name="b"><failure/></testcase><testcase name="c"><skipped/></testcase>'
        '<testcase name="d"><properties><property name="bit_exact" value="False"/></properties></testcase>'
        "</testsuite></testsuites>"
    )
    result = gpu.read_test_results(tmp_path / "results.xml")
    assert result == {"passed": 2, "skipped": 1, "failures": ["b"], "resumed bit-exactly": False}
    text = "2 passed, 1 skipped, b failed; a killed training resumed to rounding"
    assert gpu.summarize("tests", result) == text


def test_parts_that_do_not_fit_are_skipped_and_measured_by_a_second_run(gpu, tmp_path, monkeypatch, capsys):
    names = ["tests", "demo", "SimVP"]
    parts = tuple(
        gpu.Part(name, seconds, lambda options: {}) for name, seconds in zip(names, (50, 200, 30), strict=True)
    )
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "summarize", lambda name, result: "done")
    monkeypatch.setattr(gpu, "missing_requirements", list)
    calls, out = [], tmp_path / "gpu.json"
    failing = {"SimVP"}

    def run_part(part, seconds, limit, quick):
        calls.append(part.name)
        written = set(json.loads(out.read_text())["parts"]) if out.exists() else set()
        assert written >= set(calls[:-1]) & set(names), "each part is written when it ends"
        return {"failed": "for a reason"} if part.name in failing else {"value": part.name}

    monkeypatch.setattr(gpu, "run_part", run_part)
    gpu.run_parts(out, 100, quick=False)
    assert calls == ["tests", "SimVP"]
    assert "demo: skipped, 200 s do not fit" in capsys.readouterr().err
    failing.clear()
    results = gpu.run_parts(out, 480, quick=False)
    assert calls == ["tests", "SimVP", "demo", "SimVP"], "what was measured is not measured again, what failed is"
    assert [results["parts"][name]["value"] for name in names] == names
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    monkeypatch.setattr(gpu, "describe_machine", lambda: {"device": "another GPU"})
    with pytest.raises(SystemExit, match="has results of .*choose another --out"):
        gpu.run_parts(out, 480, quick=False)


def test_failed_tests_run_again(gpu):
    passed = {"passed": 3, "skipped": 0, "failures": []}
    parts = {part.name: {} for part in gpu.PARTS if part.name != "tests"}
    assert gpu.missing_parts({"parts": {**parts, "tests": passed}}) == []
    assert gpu.missing_parts({"parts": {**parts, "tests": {**passed, "failures": ["b"]}}}) == [gpu.PARTS[0]]


def test_a_stopped_part_keeps_its_rows(gpu, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    head = "import pathlib, sys, time\npath = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
    monkeypatch.setattr(gpu, "__file__", str(script))
    rows = {"rows": {"plain, float32": {"step": 0.5, "forecast": 0.25}}}
    for end, failure in (("time.sleep(60)", "stopped after 2 s"), ("sys.exit(3)", "its process ended with status 3")):
        script.write_text(f"{head}path.write_text({json.dumps(rows)!r})\n{end}\n")
        result = gpu.run_part(gpu.PARTS[1], 1, 2 if "sleep" in end else 60, False)
        assert result == {**rows, "failed": failure}
    assert gpu.summarize("t2m, batch 16", result) == f"failed: {failure}"
    results = {"machine": {"device": "", "cores": 1, "torch": "", "python": ""}, "date": ""}
    table = gpu.make_table({**results, "parts": {"t2m, batch 16": result}}).splitlines()
    assert "t2m, batch 16: its process ended with status 3." in table
    assert "| plain, float32 | 500.0 | 1.0 | 250.0 | 1.0 |" in table
    large = {"grid": "", "rows": {"bfloat16": {"step": 1.5, "peak GB": 40.25}}, "failed": failure}
    assert gpu.summarize("721 x 1440", large) == f"failed: {failure}; until then bfloat16: 1.500 s a step, peak 40.2 GB"


def test_a_part_saves_what_it_has(gpu, tmp_path, monkeypatch):
    def run(options):
        options.save({"rows": {"a": 1}})
        assert json.loads(out.read_text()) == {"rows": {"a": 1}}
        raise ValueError("too large\nand more")

    out = tmp_path / "result.json"
    monkeypatch.setattr(gpu, "PARTS", (gpu.Part("demo", 1, run),))
    gpu.run_here(SimpleNamespace(part="demo", out=out, quick=True, seconds=1.0, compile_only=False))
    assert json.loads(out.read_text()) == {"rows": {"a": 1}, "failed": "ValueError: too large"}


def test_windows_come_from_the_gpu_as_in_a_training(gpu, monkeypatch):
    import model

    with fake_cuda(monkeypatch):
        assert next(model.stream_windows(model.QUICK, 2, "cuda")).device.type == "meta"


def test_a_part_that_takes_too_long_is_stopped(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "__file__", str(ROOT / "tests" / "http_server.py"))  # ends at once, without a result
    part = gpu.Part("tests", 1, lambda options: {})
    assert gpu.run_part(part, 1, 60, False) == {"failed": "its process ended with status 0"}
    monkeypatch.setattr(gpu.sys, "executable", "sleep")
    monkeypatch.setattr(gpu, "__file__", "60")
    popen = subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda command, **options: popen(command[:2], **options))
    assert gpu.run_part(part, 1, 0.1, False) == {"failed": "stopped after 0 s"}


def test_the_large_training_takes_the_time_that_others_leave(gpu):
    part = next(part for part in gpu.PARTS if part.name == "published size")
    assert gpu.plan(part, 400, 55) == 120  # never more than two minutes
    assert gpu.plan(part, 150, 55) == 95
    assert gpu.plan(part, 100, 55) == part.seconds
    assert gpu.plan(part, 59, 55) == 0


def test_the_rows_are_those_of_the_benchmark_of_the_network(gpu):
    import model

    assert (gpu.STACK, gpu.DEFAULTS) == (model.ALL_THREE, model.DEFAULTS)


def test_processes_in_the_background_are_stopped_in_time(gpu):
    sleeping, done = (subprocess.Popen(["sleep", seconds], start_new_session=True) for seconds in ("60", "0"))
    processes = [sleeping, done]
    gpu.wait_for(processes, 0.2)
    assert processes == [] and sleeping.poll() == -9 and done.poll() == 0


def test_the_table_replaces_what_is_between_the_comments(gpu):
    page = gpu.DOCS.read_text()
    filled = gpu.fill(page, "| a |")
    assert f"{gpu.BEGIN}\n| a |\n{gpu.END}\n" in filled
    assert gpu.fill(filled, "| a |") == filled
    assert filled.partition(gpu.BEGIN)[0] == page.partition(gpu.BEGIN)[0]
    assert filled.partition(gpu.END)[2] == page.partition(gpu.END)[2]
    with pytest.raises(ValueError, match="must have the lines"):
        gpu.fill("no comments", "| a |")


def test_the_table_has_every_part(gpu):
    machine = {"device": "H200", "cores": 16, "torch": "2.11", "python": "3.12"}
    parts = {
        "t2m, batch 16": {"batch": 16, "rows": ROWS, "waiting": 0.01},
        "demo": {"failed": "stopped after 120 s"},
        "721 x 1440": {"rows": {"bfloat16": {"step": 1.5, "peak GB": 40.25}, "float32": {"failed": "too large"}}},
    }
    table = gpu.make_table({"machine": machine, "date": "2026-12-01", "quick": False, "parts": parts}).splitlines()
    assert table[0] == "H200, 16 CPU cores, torch 2.11, Python 3.12, 2026-12-01."
    assert "| plain, all three changes | 30.0 | 4.0 | 20.0 | 2.0 |" in table
    assert "| training, times plain with all three changes | 1.20 | at least 1.3 | missed |" in table
    assert "t2m, batch 64: not measured." in table
    assert "- demo: failed: stopped after 120 s" in table
    assert "- 721 x 1440: bfloat16: 1.500 s a step, peak 40.2 GB; float32: too large" in table
    assert all(any(part.name in line for line in table) for part in gpu.PARTS)


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)


@pytest.mark.slow
def test_all_parts_run_in_tiny_form(gpu, tmp_path):
    command = ("benchmarks/gpu.py", "--out", tmp_path / "quick.json", "--quick", "--budget", "3000")
    run_script(*command)
    results = json.loads((tmp_path / "quick.json").read_text())
    parts = results["parts"]
    assert len(parts) == 8 and not [name for name, part in parts.items() if "failed" in part]
    assert parts["tests"]["passed"] == 4 and not parts["tests"]["failures"]
    for name in ("t2m, batch 16", "t2m, batch 64", "1.40625 degrees, batch 4"):
        assert set(parts[name]["rows"]) - {gpu.PUBLIC} == set(ROWS)
        assert all(row["step"] > 0 and row["forecast"] > 0 for row in parts[name]["rows"].values())
        assert 0 <= parts[name]["waiting"] < 1
    assert gpu.PUBLIC in parts["t2m, batch 16"]["rows"]
    losses = [row["loss"] for row in parts["721 x 1440"]["rows"].values()]
    assert losses == pytest.approx([losses[1]] * 3, rel=0.01), "the settings change memory, not the result"
    assert parts["published size"]["rmse"]["t2m"].keys() == {
        "SimVPv2",
        "persistence",
        "anomaly persistence",
        "climatology",
    }
    again = run_script(*command)
    assert again.stderr.count("measured already") == 8 and not again.stdout


@pytest.mark.slow
def test_the_benchmark_of_the_network_prints_every_row():
    done = run_script("benchmarks/model.py", "--quick")
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == [*list(ROWS)[:1], "plain, channels last", "plain, channels last, bfloat16", *list(ROWS)[2:4]]
    assert done.stderr.index("turn 1 of 2, plain, float32") < done.stderr.index("turn 2 of 2, plain, float32")


@pytest.mark.slow
def test_the_benchmark_of_the_loader_prints_every_row():
    done = run_script("benchmarks/loader.py", "--quick", "--cases", "b")
    rows = [line for line in done.stdout.splitlines() if line.startswith(("RAM gather", "stream", "in memory"))]
    assert len(rows) == 4 and "failed" not in done.stdout
    assert done.stderr.startswith("b: writes the store")
