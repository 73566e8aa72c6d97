import subprocess
import sys

# what tqdm takes for a Jupyter kernel, without ipywidgets
JUPYTER = """
import sys, types, warnings
kernel = types.SimpleNamespace(config={})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
sys.modules["ipywidgets"] = None
sys.modules["ipykernel.zmqshell"] = None
warnings.simplefilter("always")
"""


def run(code):
    return subprocess.run([sys.executable, "-c", JUPYTER + code], capture_output=True, text=True)


def test_jupyter_without_ipywidgets_is_no_reason_to_warn():
    assert "IProgress not found" in run("import tqdm.auto").stderr  # by itself it does
    done = run("from simvp_climate.data.progress import tqdm; print(list(tqdm(range(2), disable=True)))")
    assert done.stdout == "[0, 1]\n" and not done.stderr, done.stderr
