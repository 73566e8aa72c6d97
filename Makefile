# make demo        train on the bundled sample, forecast, score, draw (about 5 minutes on 2 cores)
# make test        the tests, but for those that take minutes
# make test-slow   all tests
PYTHON ?= python3
BIN = .venv/bin

# glibc gives large blocks back to the system and asks for them again at every training step, tens of
# thousands of page faults each; told to keep them it has none
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
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
