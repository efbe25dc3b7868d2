# Every target makes and fills its own .venv: a fresh machine needs Python 3.11 or later and nothing else.
#   make demo    install, then solve real problems with the built-in models
#   make test    install, then run the tests
#   make lint    install, then check format, types and import layers
#   make docs    write the parts of the documents that come from the code
#   make wheel   build the wheel, install it outside the checkout, and use it there
# TORCH names the PyTorch to install before all else, e.g. TORCH=torch to take your platform's default build.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := search prm ets arbitrage tests examples docs

.PHONY: demo test lint format docs wheel clean

demo: $(VENV)/.demo
	@$(BIN)/ets solve --mini 0
	@$(BIN)/ets solve --mini 6 --method beam

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(VENV)/.test
	$(BIN)/python docs/files.py

wheel: $(VENV)/.test
	$(BIN)/python tests/wheel.py --torch "$(TORCH)"

# Torch comes first and by itself: asked for through another package it may bring gigabytes that a CPU cannot use.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with make PYTHON=...")'
	@echo "installing into $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(PIP) install -c constraints.txt -e ".[test]"
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@$(PIP) install -c constraints.txt -e ".[test,lint]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
