# pgnode: the commands of the README. Needs Python 3.11 or newer, make and PyPI; everything else comes with it.

# Each process that starts would compile the node anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
# The newest Python of those that are tested; name another with `make run PYTHON=…`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
BIN := $(VENV)/bin

# The panel's own client, which tests drive a node with, needs a newer Python than the node and an environment of its own.
PANEL_VENV := .venv-panel

# How many tests run at the same time: they wait as long as they compute, so there are twice as many.
JOBS ?= 2
UNIT_JOBS ?= $(shell echo $$(( $(JOBS) > 1 ? 2 * $(JOBS) : 1 )))
SLOW_JOBS ?= $(shell echo $$(( $(JOBS) > 1 ? 2 * $(JOBS) : 1 )))
PYTEST := $(BIN)/python -m pytest -n $(JOBS)
UNITS := $(BIN)/python -m pytest --forks $(UNIT_JOBS) tests/unit
# Tests with a row in the table of faults.
FAULTS := tests/faults tests/e2e
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run install demo test unit slow faults fuzz coverage gates bench docs lock dist dev panel clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

run: install ## install and run the node in the foreground
	@exec $(BIN)/pgnode run

install: $(VENV)/.installed ## install: .venv/bin/pgnode works then

demo: install ## show that it works, without a panel
	@$(BIN)/pgnode demo

test: dev panel ## everything below that checks: gates, units with their coverage, and whole nodes
	@$(MAKE) --no-print-directory gates
	@$(MAKE) --no-print-directory coverage
	@$(MAKE) --no-print-directory slow

gates: dev ## format, lint, docstrings, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pydoclint pgnode
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: dev ## the unit tests: about a minute
	$(UNITS)

coverage: dev ## the unit tests, and what they cover of each module
	$(UNITS) --cov --cov-report=json:build/coverage.json --cov-report=
	$(BIN)/python -m tests.coverage_gate build/coverage.json

slow: dev panel ## all other tests, with real processes
	$(BIN)/python -m pytest -n $(SLOW_JOBS) --ignore=tests/unit

faults: dev ## try every fault three times, print the table of docs/faults.md and write it there
	$(PYTEST) -m fault $(FAULTS) --fault-rounds 3 --fault-page docs/faults.md

# FUZZ_DOORS="gate json" names doors, FUZZ_SEED makes the same inputs again, FUZZ_ONLY (7 or 3-7) only some of them.
fuzz: dev ## send odd inputs to each door of a node, for FUZZ_SECONDS (60) each
	@$(BIN)/python -m tests.fuzz $(FUZZ_DOORS) --seconds $(FUZZ_SECONDS) $(FUZZ_SEED:%=--seed %) $(FUZZ_ONLY:%=--only %)

# `make bench scale` is `make bench SCENARIOS=scale`. SCALE="10 30" tries these numbers of workers.
ifeq (bench,$(firstword $(MAKECMDGOALS)))
SCENARIOS ?= $(wordlist 2,99,$(MAKECMDGOALS))
$(wordlist 2,99,$(MAKECMDGOALS)): bench
	@:
endif
bench: dev ## measure, and print a table; SCENARIOS="footprint …" or `make bench footprint …` names them
	@$(BIN)/python -m bench $(SCENARIOS) $(SCALE:%=--scale %)

docs: dev ## write the generated pages
	$(BIN)/python -m tests.generated_docs

# The dependencies, locked with hashes; names no registry.
lock: dev ## take the newest dependencies into the locks
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --quiet --extra dev --extra build pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
		--no-header --quiet --extra build -c requirements-dev.lock pyproject.toml -o requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["fast"])' \
		| $(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet - -o requirements-fast.lock
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.12 --generate-hashes \
		--no-header --quiet tests/panel/requirements.in -o requirements-panel.lock

# The bundle is for the Python and the kind of machine that make it. Built from the source distribution, so nothing old is in the wheel.
DIST := build/dist
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
dist: dev ## wheel, source distribution, offline bundle with hashes and an SBOM, in build/dist
	@rm -rf $(DIST) build/wheels
	$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir $(DIST) .
	@mkdir -p build/wheels
	@# What only earlier bug fixes of the same Python need comes along: the bundle is for all of them.
	@sed "s/ ; python_full_version[^\\]*//" requirements.lock > build/wheels/requirements.txt
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		-r build/wheels/requirements.txt --wheel-dir build/wheels
	-@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation \
		-r requirements-fast.lock --wheel-dir build/wheels >/dev/null 2>&1 \
		|| echo "the fast HTTP parser could not be built: the bundle is without it"
	$(BIN)/python deploy/make_bundle.py $(DIST) build/wheels
	@ls -l $(DIST)

dev: $(VENV)/.installed-dev ## the environment of those who work on it

# Without a Python for it the tests with the panel's client are left out, and say so; with CI=true that is a failure.
panel: ## the environment of the panel's own client
	@if [ -f $(PANEL_VENV)/.installed ] && ! [ requirements-panel.lock -nt $(PANEL_VENV)/.installed ] \
			&& $(PANEL_VENV)/bin/python -c '' 2>/dev/null; then exit 0; fi; \
	rm -rf $(PANEL_VENV); \
	python=$$(sh tests/panel/find_python.sh); \
	if [ -z "$$python" ]; then \
		echo "no Python 3.12 or newer was found, on PATH or among pyenv's versions: tests/panel needs one"; \
		case "$$CI" in true|1) exit 1;; esac; \
		echo "the tests with the panel's own client will be left out"; exit 0; \
	fi; \
	echo "$$python -m venv $(PANEL_VENV), with the panel's own client"; \
	$$python -m venv $(PANEL_VENV) \
		&& $(PANEL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-panel.lock \
		&& touch $(PANEL_VENV)/.installed || { rm -rf $(PANEL_VENV); exit 1; }

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "pgnode needs Python 3.11 or newer; none was found. Name one: make run PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The fast parser of HTTP requests is built at its installation. Without a C compiler the node takes Gunicorn's own.
$(VENV)/.installed: $(VENV)/.python requirements.lock requirements-fast.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@sh deploy/install_fast_parser.sh $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

clean: ## remove the environment and caches
	rm -rf $(VENV) $(PANEL_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
