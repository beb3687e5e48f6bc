# Each target makes its own virtual environment in .venv on first use and reuses it afterwards;
# it is brought up to date when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench

demo: $(STAMP)
	$(BIN)/cortado demo --out demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.typing $(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/cortado bench $(BENCH_ARGS)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Cortado needs Python 3.11 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Needs a GPU: tests, races and input in one table.
.PHONY: gpu
gpu: $(STAMP)
	$(BIN)/python scripts/gpu_suite.py $(GPU_ARGS)
