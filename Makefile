# From a fresh clone: `make demo` runs the whole pipeline on a made cohort, `make test` runs the tests.
# Both need Python 3.11 or later and a package index; both set up .venv first and skip what is done.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
UV_VERSION := 0.13.9
BIN := .venv/bin
UV := .venv/tools/bin/uv --no-progress --quiet
# Beside the lock, since its CPU build has other hashes and no CUDA libraries; PIP_FIND_LINKS may lead to that build
TORCH := torch==2.13.0
# Its weights are all that is used, so without what it depends on
DEEPBET := --no-deps deepbet==1.0.2
# Two more than there are cores, since some tests wait; of one thread each, since sums that are split among more threads than
# there are cores take ten times as long
PROCESSES := 4
# Each with whole files, so that what a file's tests share is made once, the longest files first
# (tests/conftest.py); and where the time went
SIDE_BY_SIDE = -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=3

.PHONY: demo test test-slow test-all test-torch test-engines check lock format clean

demo: .venv/ready
	$(BIN)/prognosis run jobs/demo.toml --out runs/demo

test test-slow test-all test-torch test-engines: export OMP_NUM_THREADS := 1

test: .venv/ready
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow"

# What takes longer: kills at random moments, the network cut, whole cohorts
test-slow: .venv/ready
	$(BIN)/pytest $(SIDE_BY_SIDE) -m slow $$(grep -l 'mark[.]slow' tests/test_*.py)

# Both at once, so that no process waits for the last long test of one of them before the other begins
test-all: .venv/ready
	$(BIN)/pytest $(SIDE_BY_SIDE)

# Without MXNet: NumPy 2, torch, and the newest scikit-learn, zarr, Dask and codecs. One file for each way of meeting them:
# networks, whatever fits and scores, pyradiomics, pydicom's decoders and nibabel, what zarr stores, the newest Dask, and
# numbers printed (NumPy 2 writes them otherwise)
DIFFERS := \
    cube cube_networks deep_networks deep_weights grade_network keras network_features other_networks segment \
    torch_engine torch_network training weights_check \
    cox evaluate fit_models frozen learners measures reading scores selection selectors \
    radiomics radiomics_loops radiomics_maps \
    frames load multiframe rtstruct seg volumes \
    brain_epitome brain_size \
    features rois_store docstrings report_models reproducibility_command runner versions worker_starts
WHOLE_RUNS := $(addprefix tests/test_pipeline.py::test_, \
    lung1_002_from_dicom_gives_the_published_radiomics \
    the_planted_bad_cases_end_in_their_own_codes_and_the_others_go_on \
    two_workers_and_another_batch_of_the_network_give_the_same_features)

test-torch: PROCESSES := 2
test-torch: .venv-torch/ready
	.venv-torch/bin/pytest $(SIDE_BY_SIDE) -m "not slow" $(DIFFERS:%=tests/test_%.py) $(WHOLE_RUNS)

# What meets torch and Gluon in one environment, the skull strip by deepbet's networks, and slow tests of torch; each engine
# alone has run above
ENGINES := segment torch_engine torch_network grade_network brain_deepbet

test-engines: PROCESSES := 2
test-engines: .venv/ready .venv/torch
	PYTHONPATH=.venv/torch $(BIN)/pytest $(SIDE_BY_SIDE) -m engines $(ENGINES:%=tests/test_%.py)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_floors.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

COMPILE := $(UV) pip compile pyproject.toml --group dev --group docs --universal --python-version 3.11 --generate-hashes \
    --upgrade --custom-compile-command "make lock"

# Locks for every platform at once: names, versions and hashes only
lock: .venv/tools
	$(COMPILE) --group reference -o requirements.lock
	$(COMPILE) --extra onnx --excludes tools/torch-lock/excludes.txt --overrides tools/torch-lock/overrides.txt \
	    -o requirements-torch.lock

clean:
	rm -rf .venv .venv-torch .pytest_cache .mypy_cache .ruff_cache

# Built again where its sources changed, so that no old library is used or passed over
COMPILED := hatch_build.py $(wildcard prognosis_dask/radiomics/*.[ch])

.venv/ready: .venv/tools requirements.lock pyproject.toml $(COMPILED)
	@echo "Installing the locked dependencies into .venv"
	@$(SYNC) --python $(BIN)/python requirements.lock
	@$(UV) pip install --python $(BIN)/python --no-deps --editable .
	@touch $@

.venv-torch/ready: .venv/tools requirements-torch.lock pyproject.toml Makefile $(COMPILED)
	@echo "Installing torch and the locked dependencies into .venv-torch"
	@test -d .venv-torch || $(UV) venv --python $(PYTHON) .venv-torch
	@$(SYNC) --python .venv-torch/bin/python requirements-torch.lock
	@$(UV) pip install --compile-bytecode --python .venv-torch/bin/python $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)") $(TORCH)
	@$(UV) pip install --python .venv-torch/bin/python --no-deps --editable .
	@touch $@

.venv/torch: .venv/tools Makefile
	@echo "Installing torch beside Gluon"
	@$(UV) pip install --compile-bytecode --python $(BIN)/python --target $@ $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)") $(TORCH)
	@$(UV) pip install --compile-bytecode --python $(BIN)/python --target $@ $(DEEPBET)
	@touch $@

SYNC = $(UV) pip sync --require-hashes --compile-bytecode

# uv lives in a corner of its own, so that syncing the environment does not remove it
.venv/tools:
	@test -n "$(PYTHON)" || { echo "No python3 found; Python 3.11 or later is needed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is $$($(PYTHON) --version); Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Creating .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .venv/tools uv==$(UV_VERSION)
