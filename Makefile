# Every target makes and fills its own .venv: a fresh machine needs Python 3.11 or later and nothing else.
#   make demo    install, then solve real problems with the built-in models
#   make real    fetch SmolLM2-135M-Instruct into real/ (98 MB); REAL=qwen: Qwen2.5-Coder-1.5B-Instruct (1.1 GB)
#   make test    install, then run the tests, one process a core
#   make test-nightly  install, then run the tests that prove again, larger or longer, what those prove
#   make test-browser  install, then test viewer and site in Chromium, which must be there (Debian: apt-get install chromium)
#   make lint    install, then check format, types and import layers
#   make docs    write the parts of the documents that come from the code and from measurements
#   make site    install, then build the documentation as a site in build/site
#   make repro-quick  install, then the papers' tables on the built-in models, in minutes
#   make wheel   build the wheel, install it outside the checkout, and use it there
#   make test-extras  install every extra in an environment of its own, by what the messages say, and use it
#   make release VERSION=0.2.0  date the changelog, build sdist and wheel into dist/, check both; uploads nothing
#   make test-sglang  build the server's own environment, then test against real SGLang servers on the CPU
#   make test-its-hub  build its_hub's own environment, then run its algorithms through `ets serve`
#   make test-clients  build litellm's and LangChain's environment, then ask `ets serve` by them
#   make sglang-cpu   the same environment, and the mini family served from it; make sglang-stop ends that
# TORCH names the PyTorch to install before all else, e.g. TORCH=torch to take your platform's default build.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PROCESSES ?= auto
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A file's tests share what they make, so a process takes whole files; pyproject.toml names the folders of long ones first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
SOURCES := search prm ets arbitrage tests examples docs

.PHONY: repro-quick demo real test test-nightly test-browser lint format docs site wheel clean sglang-cpu sglang-stop test-sglang test-its-hub test-clients test-extras release

demo: $(VENV)/.demo
	@echo "ets solve --mini 0   # a problem of the built-in models, by ETS at width 16"; $(BIN)/ets solve --mini 0
	@echo; echo "ets solve --mini 6 --method beam"; $(BIN)/ets solve --mini 6 --method beam
	@echo; echo "Next:"; echo "    . $(BIN)/activate                                     # so that your shell finds ets"
	@echo "    ets eval --limit 20 --method rebase --out runs/rebase   # twenty problems, kept in a folder"
	@echo "    ets eval --limit 20 --method ets --out runs/ets"
	@echo "    ets compare runs/rebase runs/ets                        # side by side"
	@echo "    ets view runs/ets                                       # the trees, in a browser"
	@echo "    ets eval --policy PATH_OR_HUB_ID --data YOUR.jsonl --dtype bfloat16 --out runs/own   # a model of your own: docs/your-model.md"

REAL ?= smollm2

real: $(VENV)/.real
	@$(BIN)/python tests/real_models.py $(REAL)

test: $(VENV)/.test
	$(PYTEST) -m "not nightly"

test-nightly: $(VENV)/.test
	$(PYTEST) -m nightly

ifdef ETS_SKIP_BROWSER
test-browser:
	@echo "*** ETS_SKIP_BROWSER IS SET: THE TREE VIEWER IS NOT TESTED IN A BROWSER ***" >&2
else
test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest tests/browser
endif

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
	$(BIN)/python docs/references.py
	$(BIN)/python docs/choosing.py

# Warnings are errors: a page links to nothing that is not there. The variable silences a notice about the theme's future.
site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.test
	$(BIN)/python tests/try_wheel.py --torch "$(TORCH)"

test-extras: $(VENV)/.test
	$(BIN)/python tests/try_extras.py --torch "$(TORCH)"

release: $(VENV)/.test
	$(BIN)/python tests/release.py $(VERSION) --torch "$(TORCH)"

# The server has an environment of its own: SGLang and this project want different versions of what both use.
SGLANG_VENV := .venv-sglang
SGLANG_PIP := $(SGLANG_VENV)/bin/python -m pip --disable-pip-version-check --quiet
SGLANG_SERVER := tests/sglang_server
SERVE ?= target:30000 prm:30001

sglang-cpu: $(SGLANG_VENV)/.ready
	@$(PYTHON) $(SGLANG_SERVER)/launch.py up $(SERVE)

sglang-stop:
	@$(PYTHON) $(SGLANG_SERVER)/launch.py down

ifdef ETS_SKIP_SGLANG
test-sglang:
	@echo "*** ETS_SKIP_SGLANG IS SET: NOTHING IS TESTED AGAINST THE REAL SGLANG SERVER ***" >&2
else
test-sglang: $(VENV)/.test $(SGLANG_VENV)/.ready
	$(BIN)/python -m pytest -s --timeout 900 $(SGLANG_SERVER)
endif

$(SGLANG_VENV)/.ready: $(SGLANG_SERVER)/requirements.txt $(SGLANG_SERVER)/requirements-deps.txt
	@echo "installing SGLang into $(SGLANG_VENV) (2.6 GB, some minutes) ..." >&2
	@$(PYTHON) -m venv $(SGLANG_VENV)
	@$(SGLANG_PIP) install $(TORCH)
	@$(SGLANG_PIP) install --no-deps -r $(SGLANG_SERVER)/requirements.txt
	@$(SGLANG_PIP) install --no-warn-conflicts -r $(SGLANG_SERVER)/requirements-deps.txt
	@touch $@

# A client's environment: its_hub asks for nothing heavy, and its packages are listed to the last one.
ITS_HUB_VENV := .venv-its-hub

test-its-hub: $(VENV)/.test $(ITS_HUB_VENV)/.ready
	$(BIN)/python -m pytest tests/its_hub

$(ITS_HUB_VENV)/.ready: tests/its_hub/requirements.txt
	@$(PYTHON) -m venv $(ITS_HUB_VENV)
	@$(ITS_HUB_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r $<
	@touch $@

CLIENTS_VENV := .venv-clients

test-clients: $(VENV)/.test $(CLIENTS_VENV)/.ready
	$(BIN)/python -m pytest tests/clients

$(CLIENTS_VENV)/.ready: tests/clients/requirements.txt
	@$(PYTHON) -m venv $(CLIENTS_VENV)
	@$(CLIENTS_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r $<
	@touch $@

# Torch comes first and by itself: asked for through another package it may bring gigabytes that a CPU cannot use.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one with make PYTHON=...")'
	@echo "installing into $(VENV) (1.4 GB, a minute or two) ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@$(PIP) install -c constraints.txt -e ".[serve]"
	@touch $@

$(VENV)/.real: $(VENV)/.demo
	@$(PIP) install -c constraints.txt -e ".[gguf]"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@$(PIP) install -c constraints.txt -e ".[test]"
	@touch $@

$(VENV)/.browser: $(VENV)/.test
	@$(PIP) install -c constraints.txt -e ".[test,browser,docs]"
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	@$(PIP) install -c constraints.txt -e ".[serve,docs]"
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@$(PIP) install -c constraints.txt -e ".[test,lint]"
	@touch $@

repro-quick: $(VENV)/.demo
	@$(BIN)/ets repro ets --recipe mini --quick
	@$(BIN)/ets repro arbitrage --recipe mini --quick

clean:
	rm -rf $(VENV) $(SGLANG_VENV) $(ITS_HUB_VENV) $(CLIENTS_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
