# make demo        train on the bundled sample, forecast, score and draw (about 5 minutes on 2 cores)
# make test        ruff, mypy and the tests that take seconds
# make test-slow   all tests
PYTHON ?= python3
BIN = .venv/bin

# By default glibc returns large blocks to the system and requests them again at every training step, which causes
# tens of thousands of page faults. These limits make it keep them.
export MALLOC_MMAP_THRESHOLD_ = 4000000000
export MALLOC_TRIM_THRESHOLD_ = 8000000000

.PHONY: demo test test-slow clean

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

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
