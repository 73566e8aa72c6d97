"""The notebooks run from a clean state, and what is committed of them is small, whole and says nothing of a machine."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
FAST = ("01", "06")  # half a minute each; the others take one to three
# of this machine or of any: temporary folders, homes, checkouts
PATHS = re.compile(r"/(?:tmp|root|home|Users|var/folders)/")


def texts(output) -> str:
    """What an output says in words."""
    data = output.get("data", {})
    return "\n".join(["".join(output.get("text", "")), *(str(v) for k, v in data.items() if k.startswith("text/"))])


def figures(notebook) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def check_outputs(notebook) -> None:
    """No error and no warning, and a figure."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", output.get("evalue")
            if output.get("name") == "stderr":
                assert "Warning" not in output.text, output.text
    assert figures(notebook)


def test_there_are_six():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.name[:2] in FAST else [pytest.mark.slow]) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # of pytest's own process: the kernel draws into the notebook
    monkeypatch.delenv("MPLBACKEND", raising=False)
    # the real data, where a developer has set them, are no part of the test
    for name in ("SIMVP_DATA", "SIMVP_NCEP", "SIMVP_SST"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # CellExecutionError shows the cell and what it said
    check_outputs(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5 and notebook.metadata.kernelspec.name == "python3"
    check_outputs(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not executed in one go from the top"
    for cell in notebook.cells:
        for text in (cell.source, *map(texts, cell.get("outputs", []))):
            assert not (found := PATHS.search(text)), text[max(0, found.start() - 60) : found.end() + 60]
