# `make` lists the targets. They need Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# dvc.yaml calls `python`: put the environment's Python first.
export PATH := $(CURDIR)/$(BIN):$(PATH)

EXTRAS := dask demo heic onnx pretrained ray serve ssh tune
# The tests need these extras; they do not start Ray.
TESTED_EXTRAS := pipeline,dask,demo,heic,onnx,pretrained,serve,ssh,tune

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-docs setup-bench $(EXTRAS:%=setup-%) repro test test-all \
	test-fast compare lint prose format docs lock ui clean

help: ## List the targets
	@grep -E '^[a-zA-Z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20
	@echo 'setup-EXTRA         Add an optional feature; EXTRA is one of: $(EXTRAS)'

# Each setup target leaves a stamp file in .venv, so that nothing is installed twice. Byte code is
# compiled at the first import instead of at installation: only a fifth of it is ever needed.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint $(VENV)/constraints.txt

setup: $(VENV)/.pipeline ## Make .venv with the pinned packages of the pipeline (CPU only: TORCH=cpu)

# TORCH names a PyTorch build: cpu, cu130, ..., or auto for the one that fits the GPU driver. uv
# knows where these builds are. The CUDA packages are pinned for the default build only. The choice
# is kept in .venv, so that later targets need not repeat it.
TORCH ?= $(shell cat $(VENV)/torch-build 2>/dev/null)
$(VENV)/.pipeline: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"phototag needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	grep -vE '$(if $(TORCH),^(cuda-|nvidia-[^m]|triton),^$$)' requirements.lock >$(VENV)/constraints.txt
	$(INSTALL) pip
ifneq ($(TORCH),)
	$(INSTALL) uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend $(TORCH) \
		--constraint $(VENV)/constraints.txt torch torchvision
	echo $(TORCH) >$(VENV)/torch-build
endif
	$(INSTALL) --editable '.[pipeline]'
	@touch $@

$(EXTRAS:%=setup-%): setup-%: $(VENV)/.%

$(EXTRAS:%=$(VENV)/.%): $(VENV)/.%: $(VENV)/.pipeline
	$(INSTALL) --editable '.[$*]'
	@touch $@

setup-dev: $(VENV)/.dev ## Add tests, linters, the docs generator and the extras that the tests need
setup-bench: $(VENV)/.bench ## Add the libraries that the benchmarks compare with

$(VENV)/.dev: $(VENV)/.pipeline
	$(INSTALL) --editable '.[$(TESTED_EXTRAS)]' --group dev --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(INSTALL) --group bench
	@touch $@

repro: setup ## Run the whole pipeline and print a summary
	dvc repro
	@phototag summary

# Tests of one file run in one worker, because they share fixtures that take long to make. Three
# workers suit two cores: one of them usually waits for a server or a queue.
PYTEST := pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test: setup-dev lint ## Run the linters and all tests but the long soak tests
	$(PYTEST) -m 'not soak'

test-all: setup-dev lint docs ## Run the linters, all tests and the docs build, as CI does
	$(PYTEST)

test-fast: setup-dev ## Run the tests that take less than a minute together
	$(PYTEST) -m 'not slow'

# Later commits of BASE are no part of the change, so the common ancestor is compared with.
BASE ?= main
compare: setup ## Compare the results of the working tree (or REV) with those of BASE (main)
	@python -m tools.compare $$(git merge-base $(BASE) $(or $(REV),HEAD) || echo $(BASE)) $(REV)

lint: setup-dev prose ## Run ruff, mypy, import-linter and the prose check
	ruff check .
	ruff format --check .
	lint-imports
	mypy

prose: ## Find words in code and docs that tools/prose.toml refuses
	$(PYTHON) -m tools.prose

format: setup-dev ## Format the code with ruff
	ruff check --fix .
	ruff format .

docs: setup-dev ## Build the docs site in build/site; fails if a link or reference is broken
	python -m tools.docs
	zensical build --strict --clean --config-file build/mkdocs.yml

# Existing pins stay: delete a line of requirements.lock to renew that pin.
lock: setup ## Add the pins that pyproject.toml needs to requirements.lock
	$(INSTALL) uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --all-extras \
		--group setup --group dev --group docs --group bench \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

ui: setup ## Start MLflow's UI on the project's store
	@phototag sync
	@phototag ui

clean: ## Remove the environment, the docs site and tool caches; keep data and results
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache src/*.egg-info
