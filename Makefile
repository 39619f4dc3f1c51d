# Each target does all of its set-up: a virtual environment in .venv, the package, what the target needs.
#   make demo    the whole main job on the built-in synthetic people; leaves runs/demo/report.html
#   make test    lint, types and the test suite
#   make test-all   what takes longer: several processes, signals, full disks, whole runs, the documentation built
#   make docs    the documentation as HTML in docs/_build
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all docs slow clean

demo: $(VENV)/demo.installed
	$(BIN)/python -m icre_jax.train --config configs/synthetic.py --workdir runs/demo --config.logging.tensorboard=True

test: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --durations=12

test-all: $(VENV)/test.installed $(VENV)/docs.installed
	$(BIN)/pytest -m "long and not slow" --durations=12

slow: $(VENV)/test.installed $(VENV)/browser.installed $(VENV)/ray.installed
	$(BIN)/pytest -m slow

docs: $(VENV)/docs.installed
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

# One stamp per extra, so that what is installed is installed once.
$(VENV)/%.installed: pyproject.toml
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build
