# One target per thing to do; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo lint test test-unit test-integration test-faults test-pure evidence bench generate verify clean

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest
# Each worker takes whole files, in order, and has servers of its own.
SHARED := -n 2 --dist loadfile --no-loadscope-reorder --durations=10
# A test of a server that is slow once is tried once more, and named; unit tests and faults are not: see conftest.py.
AGAIN := --reruns 1 -raR
PURE := .venv-pure/bin
# Seconds; without a terminal the demo ends by itself.
DEMO_SECONDS ?= $(shell test -t 1 || echo 20)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## Make .venv with all extras and the tools; install missing Debian packages, fetch servers
	@{ .ci/packages && $(PYTHON) -m cdcsync.testing.mysql_builds && $(PYTHON) -m cdcsync.testing.kafka_builds && $(PYTHON) -m cdcsync.testing.elastic_builds; } & fetching=$$!; \
	$(MAKE) --no-print-directory .venv/installed; \
	wait $$fetching

demo: .venv/installed  ## Run PostgreSQL, a shop that writes, and a pipeline into SQLite; verify at the end
	@$(BIN)/cdcsync demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

lint: .venv/installed  ## Check style, types, layers and the unit files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy cdcsync tests benchmarks
	$(BIN)/lint-imports --no-cache
	$(PYTEST) -q tests/test_tidy.py

test: install  ## Run every test in its short form, compiled and interpreted
	@mkdir -p build; $(MAKE) --no-print-directory .venv-pure/installed >build/pure.log 2>&1 & pure=$$!; \
	CDCSYNC_FORM=$(FORM) $(PYTEST) $(SHARED) $(AGAIN) tests; \
	wait $$pure || { cat build/pure.log; exit 1; }; \
	$(MAKE) --no-print-directory test-pure

test-unit: .venv/installed  ## Run the tests that need no server
	$(PYTEST) tests/unit tests/test_tidy.py

test-integration: install  ## Run the tests against real servers
	$(PYTEST) $(SHARED) tests/conformance tests/integration

test-faults: install  ## Run the tests that kill, cut and stall, in their short form
	$(PYTEST) tests/faults

test-pure: .venv-pure/installed  ## Run the unit tests and a part of the others against the interpreted form
	CDCSYNC_FORM=pure $(PURE)/pytest $(SHARED) tests/unit
	CDCSYNC_FORM=pure $(PURE)/pytest $(AGAIN) tests/conformance tests/integration -m pure

evidence: install .venv-pure/installed  ## Run everything at full length and the benchmarks; results in evidence/
	@mkdir -p evidence
	.ci/fresh make demo 2>&1 | tee evidence/demo.txt
	.ci/fresh make test 2>&1 | tee evidence/tests.txt
	CDCSYNC_FULL=1 $(PYTEST) -v -s tests/faults 2>&1 | tee evidence/faults.txt
	CDCSYNC_FULL=1 $(PYTEST) -v -s tests/unit/test_duckdb_agrees.py 2>&1 | tee evidence/duckdb.txt
	$(BIN)/python -m benchmarks run all --json | tee evidence/benchmarks.json

bench: install .venv-pure/installed  ## Measure side by side with the peers
	$(BIN)/python -m benchmarks run all

generate: .venv/installed  ## Write the generated pages anew
	$(BIN)/python docs/generate.py

verify: .venv/installed  ## Fail when a generated page is stale
	$(BIN)/python docs/generate.py --check

clean:  ## Remove what was built; caches outside the checkout stay
	rm -rf .venv .venv-pure build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find cdcsync -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Which form `make test` expects to be loaded: extensions where there is a C compiler.
FORM := $(shell command -v cc >/dev/null && echo compiled || echo pure)
COMPILED := $(shell find cdcsync -name '*.pxd' 2>/dev/null) $(patsubst %.pxd,%.py,$(shell find cdcsync -name '*.pxd' 2>/dev/null))

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade pip setuptools wheel Cython

# Made again when the project, or a module that is compiled, changes: an extension would hide the newer source.
.venv/installed: pyproject.toml setup.py $(COMPILED) | .venv/bin/pip
	find cdcsync -name '*.so' -delete
	$(BIN)/python -m pip install --no-build-isolation --editable '.[all]' --group dev
	@touch $@

.venv-pure/bin/pip:
	$(PYTHON) -m venv .venv-pure
	$(PURE)/python -m pip install --upgrade pip setuptools wheel

.venv-pure/installed: pyproject.toml setup.py $(shell find cdcsync -name '*.py' -o -name '*.pxd') | .venv-pure/bin/pip
	rm -rf build/lib
	CDCSYNC_PURE=1 $(PURE)/python -m pip install --upgrade '.[all]' --group test
	@touch $@
