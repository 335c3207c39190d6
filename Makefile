# Two commands from a bare machine: `make demo` builds and shows the model, `make test` checks all.
# Nothing else has to be installed by hand; `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
PIP_FLAGS ?=
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	2>/dev/null && command -v $$p && break; done)

.PHONY: help demo demo-full test lint types pytest bench docs clean

help:            ## list the commands
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; install one and run make again"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that a CPU build that is at hand is kept by what follows.
$(VENV)/.torch: | $(BIN)/python
	$(BIN)/python -m pip install -q $(PIP_FLAGS) "$(TORCH)"
	@touch $@

$(VENV)/.base: pyproject.toml | $(VENV)/.torch
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -e .
	@touch $@

$(VENV)/.data: pyproject.toml | $(VENV)/.torch
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -e '.[data]'
	@touch $@ $(VENV)/.base

$(VENV)/.dev: pyproject.toml | $(VENV)/.torch
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -e '.[dev]'
	@touch $@ $(VENV)/.base

demo: $(VENV)/.base  ## build nano until it sees, hears and speaks, then show it
	@$(BIN)/lumo build nano --out runs/nano --until instruct; built=$$?; \
	if [ $$built -le 1 ]; then $(BIN)/python examples/demo.py runs/nano; shown=$$?; fi; \
	[ $$built -eq 0 ] && exit $$shown || exit $$built

demo-full: $(VENV)/.data  ## build every stage of nano, then show it
	$(BIN)/lumo build nano --out runs/nano
	$(BIN)/python examples/demo.py runs/nano

test: lint types pytest  ## lint, types, tests

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

pytest: $(VENV)/.dev  ## tests only
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(VENV)/.dev  ## benchmarks beside their peers, ratios in one run
	$(BIN)/python -m benchmarks.run

docs: $(VENV)/.base  ## build the documentation into site/
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:           ## remove the environment and caches, never runs/
	rm -rf $(VENV) .pytest_cache .ruff_cache site
