# `make quickstart` and `make test` need nothing but Python >= 3.10 (PYTHON=python3.12 picks another one).
PYTHON ?= python3
PYTEST_FLAGS ?=
MUTANTS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
EXTRAS_ENV := .venv-extras
LOWEST_ENV := .venv-lowest
BUILD_INPUTS := pyproject.toml constraints.txt $(wildcard CMakeLists.txt) \
	$(wildcard stretchysnake/ops/native/*.cpp stretchysnake/ops/native/*.h)

# Idle OpenMP threads sleep instead of spinning: on a shared machine spinning costs milliseconds per call.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-extras test-lowest mutants lint format hooks clean

help:
	@echo 'make quickstart   make the data, train two models on from one, measure them over every scale, write the report'
	@echo 'make test         lint, format check and the fast tests'
	@echo 'make test-extras  the tests of what is optional, with all of it installed: before a release'
	@echo 'make test-lowest  the tests of decoding with the oldest PyAV that pyproject.toml allows'
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

# An environment of its own, so that `make test` sees what a user without the extras has. The tests of torchcodec also
# need FFmpeg's shared libraries (Debian and Ubuntu: apt install ffmpeg).
$(EXTRAS_ENV)/.installed: $(BUILD_INPUTS)
	$(PYTHON) -m venv $(EXTRAS_ENV)
	$(EXTRAS_ENV)/bin/python -m pip install -c constraints.txt \
	  -e '.[all,dev,export,faiss,lancedb,tensorboard,torchcodec,hub]'
	@touch $@

test-extras: $(EXTRAS_ENV)/.installed
	$(EXTRAS_ENV)/bin/python -m pytest -m "extra and not gpu" --every-extra $(PYTEST_FLAGS)

# Only PyAV is installed; everything else is taken from .venv.
$(LOWEST_ENV)/.installed: $(INSTALLED)
	$(BIN)/python -m venv $(LOWEST_ENV)
	$(LOWEST_ENV)/bin/python -m pip install -q --no-deps \
	  'av==17.0.*; python_version >= "3.11"' 'av==17.1.*; python_version < "3.11"'
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$($(LOWEST_ENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	@touch $@

test-lowest: $(LOWEST_ENV)/.installed
	$(LOWEST_ENV)/bin/python -m pytest -m "not slow and not gpu" $(PYTEST_FLAGS) tests/data/decoding/test_picture.py \
	  tests/data/clips/test_seen_picture.py tests/data/decoding/test_colour_check.py tests/data/decoding/test_video.py

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
	rm -rf .venv $(EXTRAS_ENV) $(LOWEST_ENV) build dist .pytest_cache .ruff_cache .hypothesis
	find stretchysnake/ops/native -name '*.so' -delete
