# `make quickstart` and `make test` need nothing but Python >= 3.10 (PYTHON=python3.12 picks another one).
PYTHON ?= python3
PYTEST_FLAGS ?=
MUTANTS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
BUILD_INPUTS := pyproject.toml constraints.txt $(wildcard CMakeLists.txt) \
	$(wildcard stretchysnake/ops/native/*.cpp stretchysnake/ops/native/*.h)

# Idle OpenMP threads sleep instead of spinning: on a shared machine spinning costs milliseconds per call.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help quickstart test mutants lint format hooks clean

help:
	@echo 'make quickstart   make the data, train two models, measure them over every scale, write the report'
	@echo 'make test         lint, format check and the fast tests'
	@echo 'make mutants      plant small mistakes one at a time and list those that no fast test notices (hours)'
	@echo 'make lint | format | hooks | clean'

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(INSTALLED): $(BUILD_INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[all,dev]'
	@if ! find stretchysnake/ops/native -name '*.so' -o -name '*.dylib' 2>/dev/null | grep -q .; then \
	  echo 'note: no C++ compiler worked, so the native CPU kernels are missing and the scan runs in plain PyTorch (slower).'; \
	  echo '      Install one (Debian and Ubuntu: apt install g++), then: rm $(INSTALLED) and run make again.'; fi
	@touch $@

quickstart: $(INSTALLED)
	$(BIN)/stretchysnake quickstart

test: lint
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST_FLAGS)

mutants: $(INSTALLED)
	$(BIN)/python tests/mutants/plant.py --out benchmarks/results/mutants.json $(MUTANTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(INSTALLED)
	$(BIN)/prek install

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find stretchysnake/ops/native -name '*.so' -delete
