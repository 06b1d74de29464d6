# `make demo` and `make test` each set up .venv first; the second time that takes a second.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs lint clean fuzz audit test-oldest test-newest

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
	rm -rf .venv .venv-audit .venv-oldest .venv-newest demo docs/_build docs/generated docs/tutorials

# ten thousand hostile cases; a seed and a time of your own: make fuzz SEED=7 BUDGET=600
fuzz: .venv/.done
	$(BIN)/python -W ignore -m tests.fuzz --cases 10000 --seed $(or $(SEED),0) --budget $(or $(BUDGET),7200)

# known vulnerabilities of what constraints.txt pins, in an environment of its own
audit:
	$(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

# the oldest versions that pyproject.toml claims; torch is the one of constraints.txt. One package on the way (of squidpy)
# says that it ends before Python 3.11, and works.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --ignore-requires-python --constraint constraints-oldest.txt --editable ".[dask,mudata]" \
		clarabel daqp hypothesis import-linter pyarrow pytest pytest-timeout qpsolvers
	.venv-oldest/bin/python -m pytest -q -W default tests/test_contracts.py tests/_adata tests/core tests/test_metrics.py \
		tests/cli tests/test_cli.py --deselect tests/cli/test_shell.py::test_a_terminal_is_told_what_goes_on_and_a_pipe_is_not

# the newest versions of everything but torch, with any Python: make test-newest PYTHON=python3.12
test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		more = p['optional-dependencies']; every = p['dependencies'] + more['dask'] + more['mudata']; \
		print(*[name for name in every if not name.startswith('torch')], sep='\n')" > .venv-newest/wanted.txt
	.venv-newest/bin/python -m pip install --quiet --requirement .venv-newest/wanted.txt \
		clarabel daqp hypothesis import-linter pyarrow pytest pytest-timeout qpsolvers
	.venv-newest/bin/python -m pip install --quiet --no-deps --editable .
	.venv-newest/bin/python -m pytest -q -W default tests/test_contracts.py tests/_adata tests/core tests/test_metrics.py
