import subprocess
import sys

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
