# `make demo` and `make test` each set up .venv first; the second time that takes a second.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs lint clean

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: .venv/.done
	$(BIN)/unmix demo --out demo

test: .venv/.done
	$(BIN)/python -m pytest -q

# The documentation, in docs/_build/html; warnings are errors, and nothing is fetched.
docs: .venv/.docs
	rm -rf docs/_build docs/generated
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

.venv/.docs: .venv/.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

lint: .venv/.done
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf .venv demo docs/_build docs/generated docs/tutorials
