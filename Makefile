# Two commands on a fresh machine: `make tune` and `make test`. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help tune test docs bench clean

help:
	@echo "make tune    search networks on simulated recordings (under 5 minutes)"
	@echo "make test    lint, check the types, build the documentation, run the tests"
	@echo "make docs    build the documentation into build/docs"
	@echo "make bench   run what is timed"
	@echo "make clean   remove the environment and all caches; runs/ stays"
	@echo
	@echo "The first of them makes $(VENV) with $(PYTHON); choose another by PYTHON=python3.12."

tune: $(VENV)/installed
	$(BIN)/python -m ecg_shock.tune

test: $(VENV)/installed-dev docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --durations 10

# Warnings are errors, a reference of ours that leads nowhere among them.
docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --nitpicky --quiet docs build/docs
	@echo "documentation: build/docs/index.html"

bench: $(VENV)/installed-dev
	for script in tests/benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ecg_shock tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps are newer than pyproject.toml when nothing is left to install.
$(VENV)/installed: pyproject.toml
	@echo "installing into $(VENV), about a minute ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade pip
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) --editable ".[dev]"
	@touch $@
