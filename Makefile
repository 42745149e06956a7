# Two commands do everything on a fresh machine: `make rehearsal` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help install rehearsal rehearsal-seeds rehearsal-distill rehearsal-structure test test-fast check tables bench

help:
	@echo "make rehearsal        the whole method on this machine: data, base, LoRA, scores, table"
	@echo "make rehearsal-seeds  the same with two more seeds and with fewer traces (longer)"
	@echo "make rehearsal-distill  a data set made by the tuned model behind a URL"
	@echo "make rehearsal-structure  what in a trace teaches: 19 conditions, 3 seeds each (most of an hour)"
	@echo "make test             style, types and every test"
	@echo "make test-fast        tests of a few seconds only"
	@echo "make tables           generate results/*.md and figures from results/runs/*.json"
	@echo "make bench            speed side by side with the libraries' own ways"

install: $(VENV)/installed

$(VENV)/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed, `$(PYTHON) --version` found; make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.txt -r requirements-dev.txt
	touch $@

rehearsal: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash results/rehearsal.sh

rehearsal-seeds: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash results/rehearsal.sh seeds

rehearsal-distill: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash results/rehearsal.sh distill

rehearsal-structure: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash results/structure.sh rehearsal

test: check
	$(BIN)/pytest

test-fast: install
	$(BIN)/pytest -m "not slow"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

tables: install
	$(BIN)/python -m results.tables

bench: install
	$(BIN)/python -m tests.bench
