# Requires Python 3.11 or newer, git and make. `make run` installs what the service needs, all other targets everything else.

PORT ?= 8000
KILLS ?= 500
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
OMITTED := $(addprefix --no-emit-package=,$(shell grep -v '^\#' requirements/omitted.txt))
LOCKED := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup run test check chaos interop bench flames format lock licenses schemas
.DEFAULT_GOAL := setup

setup: .venv/dev-installed

# What the service needs.
.venv/installed: pyproject.toml requirements/runtime.txt requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Latchkey needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# What tests and checks need in addition.
.venv/dev-installed: requirements/dev.txt .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	touch $@

run: .venv/installed
	$(BIN)/latchkey serve --dev --port $(PORT)

test: setup
	$(BIN)/pytest --numprocesses auto $(ARGS)

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# Fault injection: kills replicas while clients chat, KILLS times per database, then verifies that all data is consistent.
chaos: setup
	$(BIN)/python -m tests.chaos --kills $(KILLS) $(ARGS)

# The official MCP conformance suite and third-party MCP clients against the real service.
interop: setup .venv/interop/installed
	$(BIN)/pytest tests/interop --numprocesses 2 --dist worksteal $(ARGS)

.venv/interop/installed: requirements/interop.txt | .venv/dev-installed
	$(PYTHON) -m venv .venv/interop
	.venv/interop/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/interop.txt
	touch $@

# CPU time and latency of requests, compared with a minimal baseline. bench/README.md lists the options.
bench: setup .venv/bench-installed
	$(BIN)/python -m bench $(ARGS)

# Flame graphs of all operations, in docs/pictures.
flames: setup .venv/bench-installed
	$(BIN)/python -m bench.flames $(ARGS)

.venv/bench-installed: requirements/bench.txt | .venv/dev-installed
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/bench.txt
	touch $@

format: setup
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The lock files list every package that is to be installed, so pip installs them with --no-deps: its resolver fails on hashes as soon as an index has a
# newer version of a package that another one requires with an extra.
# Lock files with names, versions and hashes, but no URLs. Locked versions stay unless pyproject.toml requires another one;
# `make lock UPGRADE=--upgrade` takes the newest allowed versions. Run `make licenses` afterwards.
lock: setup
	$(BIN)/$(LOCKED) $(UPGRADE) $(OMITTED) pyproject.toml --output-file requirements/runtime.txt
	$(BIN)/$(LOCKED) $(UPGRADE) pyproject.toml --group dev --constraint requirements/runtime.txt --output-file requirements/dev.txt
	$(BIN)/$(LOCKED) $(UPGRADE) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	$(BIN)/$(LOCKED) $(UPGRADE) --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt
	$(BIN)/$(LOCKED) $(UPGRADE) --group interop --constraint requirements/dev.txt --output-file requirements/interop.txt

# Writes the list of the packages that the service needs, with their licenses. A test fails if it is out of date.
licenses: setup
	$(BIN)/python -m tests.third_party

# Writes the published schemas to docs/. A test fails if they are out of date.
schemas: setup
	$(BIN)/python -m tests.schemas
