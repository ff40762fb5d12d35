# `make` lists the targets. Nothing but Python 3.11 or newer, git and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stages call `python`: it must be the environment's own.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-fast lint format ui clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## Make .venv and install what is pinned in requirements.lock

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"phototag needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint requirements.lock --editable '.[dev]'
	@touch $@

repro: setup ## Run the whole pipeline and say what came of it
	dvc repro
	@phototag summary

test: setup lint ## Run ruff, mypy and all tests
	pytest

test-fast: setup ## Run the tests that take less than a minute together
	pytest -m 'not slow'

lint: setup ## Run ruff and mypy
	ruff check .
	ruff format --check .
	mypy

format: setup ## Let ruff lay out the code
	ruff check --fix .
	ruff format .

ui: setup ## Serve MLflow on the project's store
	@phototag sync
	@phototag ui

clean: ## Remove the environment and the tools' caches (no data, no results)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
