# The first of these that is Python 3.11 or newer makes the environment; `make PYTHON=...` names one.
PYTHON ?= python3 python3.13 python3.12 python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Settings of the caller that would lead to another Python's packages, or past the environment.
unexport PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER

# The longest first.
QUICK := table asv suite parts ulp

.PHONY: demo test lint bench peers demo-quick verify bench-quick $(QUICK:%=quick-%)

demo: $(INSTALLED)-plot
	$(BIN)/python -m fastnet.bench.demo --output demo.png

# CI names dev, which has all of test: one pip less.
TEST_EXTRA := test

# Kernels first, or each worker compiles the same ones. Workers that take neighbouring tests, not turns, prepare and
# compile less twice.
test: $(INSTALLED)-$(TEST_EXTRA)
	@for dtype in float32 float64; do $(BIN)/python -m fastnet warmup --dtype $$dtype & done; wait
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(INSTALLED)-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: $(INSTALLED)-bench
	$(BIN)/python -m pytest benchmarks --benchmark-only
	$(BIN)/python -m fastnet bench
	$(BIN)/python -m fastnet.bench.parts
	$(BIN)/python benchmarks/ulp.py

# `lint` and what follows up to `bench-quick` can be made side by side: two extras would be two pips in each other's way.
# The demo fails if a figure or a bit is off.
demo-quick: $(INSTALLED)-dev
	$(BIN)/python -m fastnet.bench.demo --quick

verify: $(INSTALLED)-dev
	$(BIN)/python -m fastnet verify

# Runs every benchmark once: a broken one fails.
bench-quick: $(QUICK:%=quick-%)

$(QUICK:%=quick-%): $(INSTALLED)-dev

quick-table:
	$(BIN)/python -m fastnet bench --quick

quick-parts:
	$(BIN)/python -m fastnet.bench.parts --quick

quick-suite:
	$(BIN)/python -m pytest benchmarks --benchmark-disable --quick -q

# In one dtype, and without a first fit that compiles: the table has both.
quick-asv:
	$(BIN)/python -m asv machine --yes
	$(BIN)/python -m asv check -E existing:$(BIN)/python
	$(BIN)/python -m asv run -E existing:$(BIN)/python --quick --dry-run --show-stderr --launch-method forkserver \
	    --bench '^(?!.*(float64|empty cache))'

quick-ulp:
	$(BIN)/python benchmarks/ulp.py --quick

# What the benchmarks compare with, as far as pip has it: some gigabytes.
peers: $(INSTALLED)-peers

$(BIN)/python:
	@for python in $(PYTHON); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "$$python -m venv $(VENV)"; \
	        "$$python" -m venv $(VENV) && exit; \
	        rm -rf $(VENV); exit 1; \
	    fi; \
	done; \
	echo "fastnet needs Python 3.11 or newer, and none of these is: $(PYTHON)." \
	    "Name one with: make PYTHON=/path/to/python3" >&2; \
	exit 1

# One stamp an extra: pip runs again only when pyproject.toml has changed.
$(INSTALLED)-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@
