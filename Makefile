.PHONY: demo check test static docs package clean
PYTHON ?= python3
BIN := .venv/bin
DEMO_DIR ?= runs/demo
# Each of two test processes on a core of its own.
PYTEST_IN_TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

demo: .venv/.demo
	$(BIN)/python examples/demo.py --dirpath $(DEMO_DIR)

# What trains nothing or next to nothing: after every change.
check: static
	$(PYTEST_IN_TWO) -m "not (process or engine or compile or slow)"

# Everything, as CI runs it.
test: static
	$(PYTEST_IN_TWO) -m "not (process or engine)"
	$(PYTEST_IN_TWO) -m "process or engine"

static: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.dev
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# What a release would be, in a bare environment.
package: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv --clear dist/venv
	dist/venv/bin/python -m pip install --quiet --no-deps dist/*.whl
	cd dist && venv/bin/python -c "import lightning_opplan; print(lightning_opplan.__version__)"

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ .venv/.demo

clean:
	rm -rf .venv build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
