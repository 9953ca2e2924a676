# Everything runs in .venv, which is made on first use and again when its lists of packages change.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Processes that share the tests between them; a file stays in one of them, so that what it sets up is set up once.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Without byte code every process compiles the sources of torch, numba and matplotlib again, which takes longer than a run.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/bytecode

.DEFAULT_GOAL := test
.PHONY: demo sample test test-all test-isa campaign resolve bench package docs lint clean

demo: $(STAMP)
	$(BIN)/dualtrack demo -o demo

# The sweep of the demo, as it is committed.
sample: $(STAMP)
	$(BIN)/dualtrack $$($(BIN)/python -c "from DualTrackCore.sample import COMMAND; print(COMMAND)") \
		-o DualTrackCore/data/sample.igs.mha

test: $(STAMP)
	$(PYTEST) -m "not slow" --cov=DualTrackCore

test-all: $(STAMP)
	$(PYTEST)

# The numeric part of the suite as other processors compute it: one with AVX2 (Haswell), and one with neither that nor
# fused multiply-add. Kernels compiled for them are kept apart from those of this processor.
# Without AVX the published network takes several minutes a sweep, so the second run leaves it out, and whole runs of
# training, whose steps are in the other files. Files that take longest come first: none is left to one process alone.
NUMERIC := $(patsubst %,Testing/Core/test_%.py,training_run network_golden training_backbone training_tasks \
	training_gradients baselines fast_trunk network reconstruction reconstruction_references hole_filling volume_builder \
	grid lora streaming tta)
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=$(shell echo \
	+64bit +cmov +cx8 +cx16 +fxsr +mmx +sahf +sse +sse2 +sse3 +ssse3 +sse4.1 +sse4.2 +popcnt +crc32 +avx +avx2 +fma \
	+f16c +bmi +bmi2 +lzcnt +movbe +fsgsbase +rdrnd +xsave +xsaveopt | tr ' ' ,)
PLAIN := ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic

test-isa: $(STAMP)
ifneq (,$(filter x86_64 amd64 AMD64,$(shell uname -m)))
	NUMBA_CACHE_DIR=$(CURDIR)/.numba_cache/avx2 $(AVX2) $(PYTEST) -m "not slow" $(NUMERIC)
	NUMBA_CACHE_DIR=$(CURDIR)/.numba_cache/plain $(PLAIN) $(PYTEST) -m "not slow" $(filter-out %_golden.py %training_run.py,$(NUMERIC))
else
	@echo "Instruction sets differ on x86-64 alone; on this processor make test is enough."
endif

# Faulty files, kills and failing writes, MINUTES each (a short pass of them is among the slow tests); and the way of a lab
# from the challenge's folders to a submission.
MINUTES ?= 20

campaign: $(STAMP)
	$(BIN)/python Testing/Campaign/fuzz_readers.py --minutes $(MINUTES) --json fuzz_readers.json
	$(BIN)/python Testing/Campaign/kill_runs.py --minutes $(MINUTES) --json kill_runs.json
	$(BIN)/python Testing/Campaign/write_faults.py --minutes $(MINUTES) --json write_faults.json
	$(BIN)/python Testing/Campaign/lab_journey.py

# Some of the benchmarks: make bench BENCH=Testing/Benchmarks/bench_engine.py
BENCH ?= Testing/Benchmarks

bench: $(STAMP)
	$(BIN)/python -m pytest -o addopts= -o timeout=0 -o faulthandler_timeout=0 -o python_files='bench_*.py' --benchmark-quiet --benchmark-json=bench.json $(BENCH)

# Whether the requirements of the Slicer module fit the numpy that Slicer brings, on every system; asks the package index.
resolve: $(STAMP)
	$(BIN)/python Testing/resolve_requirements.py

# The documentation as a site, in site/.
docs: $(STAMP)
	$(BIN)/sphinx-build -b html -W --keep-going -q Docs site

# What a release hands out, in dist/: built, checked, and tried in a bare environment; needs the package index.
package:
	$(PYTHON) Testing/release.py dist $(if $(TAG),--tag $(TAG)) --constraint constraints.txt

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=DualTrackSlicer $(BIN)/lint-imports
	$(BIN)/python Testing/extension_index.py

clean:
	rm -rf .venv build dist site jupyter_execute demo out *.egg-info htmlcov .coverage bench.json
	rm -rf fuzz_readers.* kill_runs.json write_faults.json
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks .numba_cache
	find DualTrackCore DualTrackSlicer Testing -name __pycache__ -type d -prune -exec rm -rf {} +

# The byte code of torch alone takes half a minute to compile; Python compiles what is imported anyway.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[test,lint,docs]"
	touch $@
