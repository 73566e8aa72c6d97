"""The notebooks run from a clean state; the committed ones are small, complete, and free of paths of a machine."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TESTS = Path(__file__).parent
NOTEBOOKS = sorted((TESTS.parent / "notebooks").glob("*.ipynb"))
# temporary folders, home folders and checkouts
MACHINE_PATH = re.compile(r"/(?:tmp|root|home|Users|var/folders)/")


def output_text(output) -> str:
    """Return all text of an output."""
    texts = [value for mime_type, value in output.get("data", {}).items() if mime_type.startswith("text/")]
    return "\n".join(["".join(output.get("text", "")), *map(str, texts)])


def assert_clean_outputs(notebook) -> None:
    """Assert that there are no errors, no warnings, and at least one figure."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        assert output.output_type != "error", output.get("evalue")
        if output.get("name") == "stderr":
            assert "Warning" not in output.text, output.text
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_six():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


def execute(notebook, folder, monkeypatch) -> None:
    """Run all cells of a notebook from a clean state in a folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # set for pytest's own process; the kernel must draw into the notebook
    monkeypatch.delenv("MPLBACKEND", raising=False)
    # the test uses the bundled sample even where a developer has set real data
    for name in ("SIMVP_DATA", "SIMVP_NCEP", "SIMVP_SST"):
        monkeypatch.delenv(name, raising=False)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()  # a CellExecutionError shows the cell and its error
    assert_clean_outputs(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_short_form(path, tmp_path, monkeypatch):
    """All cells run as they are, with few steps of training and few forecasts: see short_simvp_climate."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("import simvp_climate as sc", "import short_simvp_climate as sc")
    execute(notebook, tmp_path, monkeypatch)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    execute(nbformat.read(path, as_version=4), tmp_path, monkeypatch)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_small_and_complete(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5 and notebook.metadata.kernelspec.name == "python3"
    assert_clean_outputs(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not executed once from top to bottom"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_contains_no_path_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for text in (cell.source, *map(output_text, cell.get("outputs", []))):
            match = MACHINE_PATH.search(text)
            assert match is None, text[max(0, match.start() - 60) : match.end() + 60]
