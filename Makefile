# make demo        train on the bundled sample, forecast, score, draw (about 5 minutes on 2 cores)
# make test        the whole test suite
# make test-slow   also the tests that take minutes
PYTHON ?= python3
BIN = .venv/bin

# glibc returns large blocks to the system at once and fetches them again at every training step;
# keeping them saves up to a quarter of the time on a CPU
export MALLOC_MMAP_THRESHOLD_ = 4000000000
export MALLOC_TRIM_THRESHOLD_ = 8000000000

.PHONY: demo test test-slow clean

demo: .venv/installed
	$(BIN)/python -m simvp_climate demo --out demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
