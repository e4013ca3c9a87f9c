# Every target sets up what it needs in .venv: a fresh machine with Python 3.11+ and a C compiler is enough.
# Overrides: PYTHON=python3.12, VENV=/elsewhere, ARGS='...' for the program behind a target.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard kernels/*.c kernels/*.h)
USER_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
NOTEBOOK_STAMP := $(VENV)/.installed-notebook
ARGS ?=

.PHONY: help demo test test-all lint types bench notebooks notebooks-write coverage format clean

help:
	@echo "make demo    back up, restore and compare a system folder (asks nothing, cleans up)"
	@echo "make test    the fast test suite"
	@echo "make test-all  fast, slow and Ray tests"
	@echo "make lint    ruff (rules and format), import-linter"
	@echo "make types   mypy --strict"
	@echo "make bench   the table of numbers against peers found on PATH (long; see tests/bench)"
	@echo "make notebooks  run all notebooks, compare them with their twins (notebooks-write: and write them)"
	@echo "make coverage | format | clean"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; set PYTHON=/path/to/python3" >&2; exit 1; }
	@if command -v uv >/dev/null; then uv venv --quiet --python "$(PYTHON)" "$(VENV)"; \
	else "$(PYTHON)" -m venv "$(VENV)" || { \
		rm -rf "$(VENV)"; echo "cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }; fi

COMMA := ,
# $(call install,<what>): with uv if there is one, else pip.
install = @echo "installing into $(VENV) ..."; \
	if command -v uv >/dev/null; then uv pip install --quiet --python "$(BIN)/python" $(1); \
	else "$(BIN)/python" -m pip install --quiet --disable-pip-version-check $(1); fi

$(USER_STAMP): $(SOURCES) | $(BIN)/python
	$(call install,--editable .)
	@touch $@

$(DEV_STAMP): $(SOURCES) | $(BIN)/python
	$(call install,--editable '.[dev]')
	@touch $@ $(USER_STAMP)

$(NOTEBOOK_STAMP): $(SOURCES) | $(BIN)/python
	$(call install,--editable '.[dev$(COMMA)notebook]')
	@touch $@ $(DEV_STAMP) $(USER_STAMP)

demo: $(USER_STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" "$(BIN)/python" -m tests.demo $(ARGS)

test: $(DEV_STAMP)
	@"$(BIN)/python" -m pytest -n auto $(ARGS)

test-all: test
	@"$(BIN)/python" -m pytest -n auto -m "slow and not ray" $(ARGS)
	@"$(BIN)/python" -m pytest -m alone $(ARGS)
	@"$(BIN)/python" -m pytest -n 2 --dist loadfile -m ray $(ARGS)

coverage: $(DEV_STAMP)
	@"$(BIN)/python" -m pytest -n auto --cov --cov-report=term $(ARGS)

lint: $(DEV_STAMP)
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/lint-imports"

types: $(DEV_STAMP)
	@"$(BIN)/mypy"

bench: $(DEV_STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" "$(BIN)/python" -m tests.bench $(ARGS)

notebooks: $(NOTEBOOK_STAMP)
	@"$(BIN)/python" -m pytest tests/notebooks $(ARGS)
	@"$(BIN)/python" -m pytest --nbmake --nbmake-timeout=120 notebooks/*.ipynb $(ARGS)

notebooks-write: $(NOTEBOOK_STAMP)
	@"$(BIN)/python" -m tests.notebooks.twins $(ARGS)

format: $(DEV_STAMP)
	@"$(BIN)/ruff" check --fix --quiet . || true
	@"$(BIN)/ruff" format .

clean:
	rm -rf build dist bench-out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	rm -f kernels/*.so
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
