# `make demo` and `make test` set up all they need: a Python >= 3.11 and a package index are enough.
# uv is used where it is on the PATH, else venv and pip. PYTHON and VENV can be set.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
READY := $(VENV)/.ready
ifneq ($(UV),)
INSTALL := VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --compile-bytecode -e
else
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -e
endif
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench tables clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(READY)  ## the virtual environment, with adbench and its tools

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); adbench needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
ifneq ($(UV),)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "no venv module: apt-get install python3-venv, or install uv"; exit 1; }
endif
	$(INSTALL) '.[dev]'
	@touch $(READY)

demo: $(READY)  ## a method of every row on the embedded data; tables on screen and in results/
	$(BIN)/adbench run suite=demo
	$(BIN)/adbench report --show

test: $(READY)  ## the tests
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

check: $(READY)  ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

bench: $(READY)  ## speed against peers, brute force and plain decoding
	$(INSTALL) '.[bench]'  # the peers
	for script in scripts/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

tables: $(READY)  ## the committed tables again, from the committed records
	$(BIN)/adbench report

clean:  ## the virtual environment and caches; results stay
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .mypy_cache
