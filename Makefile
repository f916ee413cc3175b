# up      install, start in the background, ask a first picture question
# down    stop; nothing stays behind
# test    every test        check   format, lint, types        bench   measure
# test-terraform   check and plan every environment under terraform/, offline (needs the terraform binary)
# soak    the long chaos test: 500 requests, processes killed, databases paused (a quarter of an hour)
#
# Each target sets up what it needs in .venv; the second time is quick.
#
#   PYTHON     the interpreter that makes .venv (3.11 or newer)
#   PIP_ARGS   more arguments for pip, e.g. an index with CPU builds of torch (README, "Install")
#   UP_ARGS    more arguments for `pixtral up`        TEST_ARGS   more arguments for pytest

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
UP_ARGS ?=
TEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
EXAMPLE := ops/examples/shapes.png

.PHONY: help up down test test-terraform soak check bench
help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

up: .venv/.installed
	@$(BIN)/pixtral up --detach $(UP_ARGS)
	@printf '\nA first question about %s:\n\n' $(EXAMPLE)
	@$(BIN)/pixtral ask "What is in this picture?" --image $(EXAMPLE) --temperature 0
	@printf '\nAsk your own:  %s/pixtral ask "…" --image FILE      Stop:  make down\n' $(BIN)

down: .venv/.installed
	@$(BIN)/pixtral down

# Unit tests share the cores between two processes; what starts whole systems has them to itself.
ALONE := cluster or e2e or multirank or gpu
test: .venv/.installed-dev
ifeq ($(TEST_ARGS),)
	@status=0; \
	$(BIN)/python -m pytest -m "$(ALONE)" || status=1; \
	$(BIN)/python -m pytest -m "not ($(ALONE))" -n 2 || status=1; \
	exit $$status
else
	@$(BIN)/python -m pytest $(TEST_ARGS)
endif

test-terraform: .venv/.installed-dev
	@$(BIN)/python -m pytest tests/terraform -n 2 $(TEST_ARGS)

soak: .venv/.installed-dev
	@PIXTRAL_SOAK=1 $(BIN)/python -m pytest tests/chaos -o log_cli=true -o log_cli_level=INFO $(TEST_ARGS)

check: .venv/.installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: .venv/.installed-dev
	@$(BIN)/python -m ops.bench all

.venv/.python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed; $(PYTHON) is {v.major}.{v.minor}. Say PYTHON=/path/to/python3.11")'
	@echo "making .venv with $(PYTHON) …"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "This Python cannot make a virtual environment; on Debian or Ubuntu: apt install python3.11-venv" >&2; exit 1; }
	@touch $@

.venv/.installed: pyproject.toml constraints.txt | .venv/.python
	@echo "installing what pixtral needs (the first time takes about three minutes) …"
	@$(PIP) -e '.[cpu]'
	@touch $@

# The runtime's stamp is renewed too: what dev installs contains it.
.venv/.installed-dev: pyproject.toml constraints.txt | .venv/.python
	@echo "installing what pixtral and its tests need (the first time takes about four minutes) …"
	@$(PIP) -e '.[cpu,dev]'
	@touch .venv/.installed $@
