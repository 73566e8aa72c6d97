import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from simvp_climate.data import progress
from simvp_climate.data.windows import count_text, lead_text, lead_texts

# tqdm takes this for a Jupyter kernel without ipywidgets
JUPYTER = """
import sys, types, warnings
kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
sys.modules["ipywidgets"] = None
sys.modules["ipykernel.zmqshell"] = None
warnings.simplefilter("always")
"""


def run(code):
    return subprocess.run([sys.executable, "-c", JUPYTER + code], capture_output=True, text=True)


def test_jupyter_without_ipywidgets_does_not_warn():
    assert "IProgress not found" in run("import tqdm.auto").stderr  # tqdm alone warns
    process = run("from simvp_climate.data.progress import tqdm; print(list(tqdm(range(2), disable=True)))")
    assert process.stdout == "[0, 1]\n" and not process.stderr, process.stderr


def test_jupyter_has_a_bar():
    process = run("from simvp_climate.data import progress; print(progress.draws_bars())")
    assert process.stdout == "True\n", process.stderr


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose last number is the time in seconds."""
    times = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: times[-1]))
    return times


def test_a_log_gets_a_line_per_minute_without_carriage_returns(clock, capsys):
    with progress.progress_bar(100, "forecasts", "a.zarr", initial=40) as bar:
        for seconds, count in ((30, 10), (61, 20), (70, 10), (90, 19), (95, 1)):
            clock.append(float(seconds))
            bar.update(count)
    assert bar.n == 100
    assert capsys.readouterr().err.splitlines() == [
        "a.zarr: 70 of 100 forecasts, 0.492 forecasts/s, 61 s left",
        "a.zarr: 100 of 100 forecasts, 0.632 forecasts/s",
    ]


def test_a_log_gets_nothing_of_what_takes_seconds_or_is_not_shown(clock, capsys):
    for shown in (True, False):
        with progress.progress_bar(2, "frames", shown=shown) as bar:
            bar.update()
            clock.append(clock[-1] + (59.0 if shown else 600.0))
            bar.update()
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.progress_bar(2, "frames", "film") as bar:
        bar.update(2)
    assert "\r" in (shown := capsys.readouterr().err) and "film" in shown and "2/2" in shown and "frames" in shown


def test_durations_counts_and_leads_as_text():
    durations = (42, 99.7, 720, 12_000, 10_800, 2 * 86400 + 5 * 3600)
    texts = ["42 s", "100 s", "12 min", "3 h 20 min", "3 h", "2 d 5 h"]
    assert [progress.duration_text(seconds) for seconds in durations] == texts
    assert [count_text(count, "epochs") for count in (0, 1, 2)] == ["0 epochs", "1 epoch", "2 epochs"]
    assert [lead_text(np.int64(months)) for months in (1, 12)] == ["1 month", "12 months"]
    hours = np.array([6, 24, 120], "timedelta64[h]").astype("timedelta64[ns]")
    assert lead_texts(hours) == ["6 h", "24 h", "120 h"] and lead_texts(hours[1:]) == ["1 d", "5 d"]
    assert lead_texts(np.array([1, 3])) == ["1 month", "3 months"]
