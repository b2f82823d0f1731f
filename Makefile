# A handful of verbs; each does its own set-up on a fresh machine.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUN ?= runs/quickstart
WORKERS ?= 2

# Two shared cores: threads that wait must not spin.
export OMP_WAIT_POLICY := PASSIVE
export KMP_BLOCKTIME := 0
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast test-containers test-cluster lint format bench mini-base lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(STAMP): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock torch # alone, with what its build for this machine needs
	$(PIP) --no-deps --requirement requirements.lock # the lock is complete: nothing is left to resolve
	$(PIP) --no-deps --editable .
	touch $@

install: $(STAMP) ## everything needed, into .venv

quickstart: $(STAMP) ## the whole cascade on this machine, then the report (RUN=runs/quickstart)
	$(BIN)/kascade run quickstart --out $(RUN)

test: $(STAMP) ## all tests that need neither a container engine nor a cluster (WORKERS=2 at once)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations=15 -m "not containers and not cluster"

test-fast: $(STAMP) ## the tests that take seconds
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m "not slow and not containers and not cluster"

test-containers: wheels wheels-mlflow ## tests that build and run the container images
	$(BIN)/python -m pytest -m containers

test-cluster: $(STAMP) ## tests on a Kubernetes cluster
	$(BIN)/python -m pytest -m cluster

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## rewrite in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## speeds, side by side with peers where there are any
	$(BIN)/python -m benchmarks

mini-base: $(STAMP) ## pretrain the built-in miniature anew (MODEL=mini-nemotron-h, OUT=build/MODEL)
	$(BIN)/python -m kascade.learning.mini_base --model $(or $(MODEL),mini-nemotron-h) --out $(or $(OUT),build/$(or $(MODEL),mini-nemotron-h))

lock: $(STAMP) ## write down the versions that are installed
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools | sed "s/+cpu$$//" > requirements.lock

include images/images.mk

clean: ## remove what was made here (runs are kept)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
