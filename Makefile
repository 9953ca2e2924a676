# Everything runs in .venv, which is made on first use and again when its lists of packages change.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Processes that share the tests between them; a file stays in one of them, so that what it sets up is set up once.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov=DualTrackCore

.DEFAULT_GOAL := test
.PHONY: demo sample test test-all bench lint clean

demo: $(STAMP)
	$(BIN)/dualtrack demo -o demo

# The sweep of the demo, as it is committed.
sample: $(STAMP)
	$(BIN)/dualtrack $$($(BIN)/python -c "from DualTrackCore.sample import COMMAND; print(COMMAND)") \
		-o DualTrackCore/data/sample.igs.mha

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-all: $(STAMP)
	$(PYTEST)

# Some of the benchmarks: make bench BENCH=Testing/Benchmarks/bench_engine.py
BENCH ?= Testing/Benchmarks

bench: $(STAMP)
	$(BIN)/python -m pytest -o addopts= -o timeout=0 -o faulthandler_timeout=0 -o python_files='bench_*.py' --benchmark-quiet --benchmark-json=bench.json $(BENCH)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

clean:
	rm -rf .venv build dist demo out *.egg-info htmlcov .coverage bench.json
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find DualTrackCore DualTrackSlicer Testing -name __pycache__ -type d -prune -exec rm -rf {} +

# The byte code of torch alone takes half a minute to compile; Python compiles what is imported anyway.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[test,lint]"
	touch $@
