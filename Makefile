.PHONY: demo check test lowest static docs package clean
PYTHON ?= python3
BIN := .venv/bin
DEMO_DIR ?= runs/demo
# Above .venv and apart from it: where transformers is installed, every start of Lightning takes seconds longer.
WITH_TRANSFORMERS := .venv/with-transformers/bin
# Each test process on a core of its own.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

demo: .venv/.demo
	$(BIN)/python examples/demo.py --dirpath $(DEMO_DIR)

# What trains nothing or next to nothing: after every change.
check: static
	$(PYTEST) -m "not (process or engine or compile or slow or transformers)"

# Everything, as CI runs it.
test: static .venv/.transformers
	$(PYTEST) -m "not (process or engine or transformers)"
	$(PYTEST) -m "process or engine"
	$(WITH_TRANSFORMERS)/python -m pytest -m transformers

static: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With the oldest releases that are allowed, without what is optional; their warnings are theirs.
lowest: .venv/.lowest
	.venv/lowest/bin/python -m pytest -o filterwarnings=default --disable-warnings \
		-m "not (process or engine or compile or slow)" tests/planning tests/callbacks \
		tests/modules/test_video_classifier.py tests/cli/test_command_line.py

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

.venv/.transformers: .venv/.dev
	$(BIN)/python -m venv .venv/with-transformers
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> $$($(WITH_TRANSFORMERS)/python -c "import site; print(site.getsitepackages()[0])")/above.pth
	$(WITH_TRANSFORMERS)/python -m pip install --quiet 'accelerate>=1.1' 'transformers>=5.0'
	touch $@

.venv/.lowest: .venv/.dev
	$(BIN)/python -m uv venv --quiet --clear .venv/lowest
	$(BIN)/python -m uv pip install --quiet --python .venv/lowest --resolution lowest-direct --editable '.[tensorboard]' \
		'hypothesis>=6.100' 'pytest>=8.2' 'pytest-timeout>=2.3.1'
	touch $@

clean:
	rm -rf .venv build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
