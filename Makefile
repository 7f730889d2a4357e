# Requires Python 3.11 or newer, git and make. `make run` installs what the service needs, all other targets everything else.

PORT ?= 8000
KILLS ?= 500
RESTARTS ?= 50
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
OMITTED := $(addprefix --no-emit-package=,$(shell grep -v '^\#' requirements/omitted.txt))
LOCKED := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

LLAMA := .venv/llama/bin
# Fast to compile: without optimisation for this processor, HTTPS, and the web page, which the build would download.
LLAMA_OPTIONS := -D CMAKE_BUILD_TYPE=Release -D CMAKE_C_FLAGS_RELEASE=-O1 -D CMAKE_CXX_FLAGS_RELEASE=-O1 \
	-D CMAKE_MAKE_PROGRAM=$(CURDIR)/$(LLAMA)/ninja -D BUILD_SHARED_LIBS=OFF -D GGML_NATIVE=OFF -D GGML_OPENMP=OFF \
	-D LLAMA_BUILD_APP=OFF -D LLAMA_BUILD_EXAMPLES=OFF -D LLAMA_BUILD_TESTS=OFF -D LLAMA_OPENSSL=OFF -D LLAMA_USE_PREBUILT_UI=OFF

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup run console test check chaos interop browser picture llama bench flames format lock licenses schemas
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

# Builds the page at `/` from console/. The built files are committed; a test compares them with a new build.
console: setup
	$(BIN)/python -m tests.console_build

test: setup
	$(BIN)/pytest --numprocesses auto $(ARGS)

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# Fault injection: kills replicas while clients chat, KILLS times per database, and restarts them one after the other,
# RESTARTS times, then verifies that all data is consistent.
chaos: setup
	$(BIN)/python -m tests.chaos --kills $(KILLS) --restarts $(RESTARTS) $(ARGS)

# The official MCP conformance suite and third-party MCP clients against the real service.
interop: setup .venv/interop/installed
	$(BIN)/pytest tests/interop --numprocesses 2 --dist worksteal $(ARGS)

.venv/interop/installed: requirements/interop.txt | .venv/dev-installed
	$(PYTHON) -m venv .venv/interop
	.venv/interop/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/interop.txt
	touch $@

# Pages with the real clients, in Chromium, against the real service. Needs a Chromium on the PATH.
browser: setup
	$(BIN)/pytest tests/browser --numprocesses 2 --dist worksteal $(ARGS)

# The picture of the console in the README.
picture: setup
	$(BIN)/python -m tests.browser.picture

# The service with a real llama.cpp as its model server. The build takes some minutes of two cores, and needs a C++ compiler.
llama: setup .venv/llama/installed
	$(BIN)/pytest tests/interop/test_llama_cpp.py $(ARGS)

.venv/llama/installed: requirements/llama.txt requirements/llama-source.txt | .venv/dev-installed
	rm -rf .venv/llama
	$(PYTHON) -m venv .venv/llama
	$(LLAMA)/python -m pip install --quiet --no-deps --require-hashes -r requirements/llama.txt
	$(LLAMA)/python -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: --require-hashes \
		-r requirements/llama-source.txt --dest .venv/llama/download
	mkdir .venv/llama/source
	tar -xzf .venv/llama/download/*.tar.gz -C .venv/llama/source --strip-components 1
	$(LLAMA)/cmake -S .venv/llama/source/vendor/llama.cpp -B .venv/llama/build -G Ninja $(LLAMA_OPTIONS)
	$(LLAMA)/cmake --build .venv/llama/build --target llama-server
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
	$(BIN)/$(LOCKED) $(UPGRADE) --group llama --output-file requirements/llama.txt
	$(BIN)/$(LOCKED) $(UPGRADE) --group llama-source --no-deps --output-file requirements/llama-source.txt

# Writes the list of the packages that the service needs, with their licenses. A test fails if it is out of date.
licenses: setup
	$(BIN)/python -m tests.third_party

# Writes the published schemas to docs/, and the types of clients/typescript. A test fails if they are out of date.
schemas: setup
	$(BIN)/python -m tests.schemas --types
