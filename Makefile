# pgnode: the commands of the README. Needs Python 3.11 or newer, make and PyPI; everything else comes with it.

VENV := .venv
# The newest Python of those that are tested; name another with `make run PYTHON=…`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
BIN := $(VENV)/bin

.PHONY: run install test demo bench docs lock gates dev clean

run: install ## install and run the node in the foreground
	@exec $(BIN)/pgnode run

install: $(VENV)/.installed ## .venv/bin/pgnode is there and works

demo: install ## show that it works, without a panel
	@$(BIN)/pgnode demo

test: dev ## gates, units, end to end
	@$(MAKE) --no-print-directory gates
	$(BIN)/python -m pytest

gates: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: dev ## measure, and print a table
	@$(BIN)/python -m bench

docs: dev ## write the generated pages
	$(BIN)/python -m tests.generated_docs

# The dependencies, locked with hashes; names no registry.
lock: dev
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --quiet --extra dev --extra build pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --quiet --extra build -c requirements-dev.lock pyproject.toml -o requirements.lock

dev: $(VENV)/.installed-dev

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "pgnode needs Python 3.11 or newer; none was found. Name one: make run PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
