# make demo        train on the bundled sample, forecast, score and draw (about 5 minutes on 2 cores)
# make test        ruff, mypy and the tests that take seconds
# make test-slow   all tests
# make test-lowest the tests that take seconds, with the lowest versions of the dependencies (downloads PyTorch with CUDA)
PYTHON ?= python3
BIN = .venv/bin

# By default glibc returns large blocks to the system and requests them again at every training step, which causes
# tens of thousands of page faults. These limits make it keep them.
export MALLOC_MMAP_THRESHOLD_ = 4000000000
export MALLOC_TRIM_THRESHOLD_ = 8000000000

# uv installs in seconds, with the build of PyTorch for the machine; elsewhere, or where it fails, pip
UV = $(shell command -v uv)
INSTALL = $(if $(UV),$(UV) pip install --quiet --compile-bytecode --torch-backend $${UV_TORCH_BACKEND:-auto} \
	--python $(1) $(2) ||) $(1) -m pip install --quiet --disable-pip-version-check $(2)

.PHONY: demo test test-slow test-lowest test-lowest-part clean

# older versions warn of newer ones
LOWEST = --numprocesses 2 --dist worksteal -m "not slow" --override-ini filterwarnings=default
PART = data/test_store_layouts.py data/test_reader.py data/test_cache.py forecasting/test_forecaster.py \
	training/test_train.py forecasting/test_export.py plot/test_plot_spectra.py test_times.py \
	metrics/test_score.py::TestSystems

demo: .venv/installed
	$(BIN)/python -m simvp_climate demo --out demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_use.py
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest $(LOWEST)

# a part of them, with the lowest versions of all but PyTorch, for continuous integration
test-lowest-part: .venv/lowest/installed
	PYTHONPATH=$(CURDIR)/.venv/lowest $(BIN)/python -m pytest $(LOWEST) $(addprefix tests/,$(PART))

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(call INSTALL,$(BIN)/python,--constraint constraints.txt --editable ".[test]")
	touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(call INSTALL,.venv-lowest/bin/python,--constraint constraints-lowest.txt --editable ".[test]")
	touch $@

.venv/lowest/installed: .venv/installed constraints-lowest.txt
	rm -rf .venv/lowest
	grep -vxFf constraints.txt constraints-lowest.txt | grep -v "^#\|^torch=" > .venv/lowest.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target .venv/lowest -r .venv/lowest.txt
	touch $@

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info
