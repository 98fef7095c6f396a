# Needs Python >= 3.11 and make; everything else is set up here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# More than cores: many tests wait for a process, a proxy or a deadline.
WORKERS ?= 3

.PHONY: demo test lint unit mutants bench docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     the whole story on this machine"
	@echo "make test     lint, types, architecture and every test"
	@echo "make lint     ruff, mypy --strict, import contracts"
	@echo "make unit     tests without services"
	@echo "make mutants  each protocol test against the change that breaks its rule"
	@echo "make bench    the benchmarks"
	@echo "make docs     docs/reference, written anew from the code"

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/dbsync demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

unit: $(READY)
	$(BIN)/python -m pytest -q tests/unit

mutants: $(READY)
	$(BIN)/python -m tests.mutants

bench: $(READY)
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/python -m dbsync.cli.reference

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
