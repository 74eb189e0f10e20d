# Needs make and Python 3.11 or newer, nothing else: every target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := world2vlm teacher_service student_service trainer
SOURCES := $(PACKAGES) tests examples integrations $(wildcard benchmarks)
# Two OpenMP threads on a busy machine are slower than one.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format proto test-containers clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with everything in it (done by the other targets when needed)

# The stamp is older than pyproject.toml after a change of dependencies: the environment is then made anew.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): about two minutes and 2.5 GB the first time."
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq -e '.[all,dev]'
	@$(BIN)/python -m pip install -qq --no-deps "$$(grep -o 'nvidia-pytriton==[0-9.]*' pyproject.toml)" || \
		echo "No Triton server for this machine: the tests with one will be skipped."
	@touch $@ && echo "$(VENV) is ready."

demo: $(STAMP)  ## one whole round on this machine: imagine, label, train, evaluate, swap
	$(BIN)/world2vlm demo

test: $(STAMP)  ## all tests but the containers', with coverage
	$(BIN)/python -m pytest tests/contract tests/integration tests/unit -m 'not alone' --numprocesses 2 --dist loadfile \
		--cov --cov-report= --cov-fail-under=0
	$(BIN)/python -m pytest tests/integration tests/e2e -m alone --cov --cov-append --cov-report=term

lint: $(STAMP)  ## ruff, mypy, import contracts, protos
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(PACKAGES) benchmarks examples
	$(BIN)/lint-imports
	PATH="$(abspath $(BIN)):$$PATH" scripts/check-protos

format: $(STAMP)  ## put the code into shape
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

proto: $(STAMP)  ## regenerate the committed stubs from proto/
	PATH="$(abspath $(BIN)):$$PATH" scripts/generate-protos .

test-containers: $(STAMP)  ## build the images, start the composed stack, ask it a question (needs Docker)
	$(BIN)/python -m pytest tests/containers

clean:  ## remove what the other targets made, except runs/
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
