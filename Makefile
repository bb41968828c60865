# From a fresh clone: `make demo` runs the whole pipeline on a made cohort, `make test` runs the tests.
# Both need Python 3.11 or later and a package index; both set up .venv first and skip what is done.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := .venv/tools/bin/uv --no-progress --quiet

.PHONY: demo test check lock format clean

demo: .venv/ready
	$(BIN)/prognosis run jobs/demo.toml --out runs/demo

test: .venv/ready
	$(BIN)/pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_floors.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Locks for every platform at once: names, versions and hashes only
lock: .venv/tools
	$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --upgrade --custom-compile-command "make lock" -o requirements.lock

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

.venv/ready: .venv/tools requirements.lock pyproject.toml
	@echo "Installing the locked dependencies into .venv"
	@$(UV) build --wheel tools/oldconfigparser -o .venv/wheels
	@$(UV) pip sync --require-hashes --compile-bytecode --python $(BIN)/python --find-links .venv/wheels requirements.lock
	@$(UV) pip install --python $(BIN)/python --no-deps --editable .
	@touch $@

# uv lives in a corner of its own, so that syncing the environment does not remove it
.venv/tools:
	@test -n "$(PYTHON)" || { echo "No python3 found; Python 3.11 or later is needed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is $$($(PYTHON) --version); Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .venv/tools uv==$(UV_VERSION)
