# A handful of verbs; each does its own set-up on a fresh machine.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUN ?= runs/quickstart
WORKERS ?= 2
CHAOS_KILLS ?= 100
CHAOS_DAMAGES ?= 300
CHAOS_SEED ?= 0

# Two shared cores: threads that wait must not spin.
export OMP_WAIT_POLICY := PASSIVE
export KMP_BLOCKTIME := 0
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-again test-fast test-containers test-cluster outside test-outside fuzz lint format bench mini-base lock clean component chaos

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c "" 2>/dev/null || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock torch # alone, with what its build for this machine needs
	$(PIP) --no-deps --requirement requirements.lock # the lock is complete: nothing is left to resolve
	$(PIP) --no-deps --editable .
	touch $@

install: $(STAMP) ## everything needed, into .venv

quickstart: $(STAMP) ## the whole cascade on this machine, then the report (RUN=runs/quickstart)
	$(BIN)/kascade run quickstart --out $(RUN)
	@echo
	@echo "What to do next:"
	@echo "  source $(VENV)/bin/activate        # puts kascade on your PATH"
	@echo "  xdg-open $(RUN)/report.html        # or open the file in a browser; on macOS: open"
	@echo "  kascade ui $(RUN)                  # the same run in MLflow"
	@echo "  kascade init --help                # your own model and rows"

test: $(STAMP) ## all tests that need neither a container engine nor a cluster (WORKERS=2 at once)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations=15 -m "not containers and not cluster and not outside and not vllm"

test-again: $(STAMP) ## the tests that failed last, one at a time
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none -m "not containers and not cluster and not outside and not vllm"

test-fast: $(STAMP) ## the tests that take seconds
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m "not slow and not containers and not cluster and not outside and not vllm"

test-containers: wheels wheels-mlflow ## tests that build and run the container images
	$(BIN)/python -m pytest -m containers tests/cluster

test-cluster: $(STAMP) ## tests on a Kubernetes cluster
	$(BIN)/python -m pytest -m cluster tests/cluster

OUTSIDE := build/outside
# The name may be a shim that runs only where its version was chosen: then the version itself.
PYTHON312 ?= $(or $(shell python3.12 -c 'import sys; print(sys.executable)' 2>/dev/null),$(lastword $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.12.*/bin/python)),python3.12)

outside: $(OUTSIDE)/nemo-gym/.installed $(OUTSIDE)/outside/.installed ## environments of other projects, for their tests

$(OUTSIDE)/%/.installed: ITS_PYTHON = $(PYTHON)
$(OUTSIDE)/nemo-gym/.installed: ITS_PYTHON = $(PYTHON312)
$(OUTSIDE)/%/.installed: tests/outside/locks/%.txt
	@$(ITS_PYTHON) -c "" 2>/dev/null || { echo "$(ITS_PYTHON) is needed for $*; name it with PYTHON= or PYTHON312=" >&2; exit 2; }
	$(ITS_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

test-outside: $(STAMP) outside ## tests against the servers of NeMo-Gym, OpenEnv and verifiers
	$(BIN)/python -m pytest -m outside

.PHONY: vllm test-vllm
vllm: $(OUTSIDE)/vllm/.installed ## vLLM for CPUs, in an environment of its own

$(OUTSIDE)/vllm/.installed: tests/vllm_server/requirements.lock
	@$(PYTHON) -c "" 2>/dev/null || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

test-vllm: $(STAMP) vllm ## tests against vLLM's own server on this machine
	$(BIN)/python -m pytest -m vllm

FUZZ_SECONDS ?= 300
chaos: $(STAMP) ## kill and damage a small run in many ways (CHAOS_KILLS=100 CHAOS_DAMAGES=300 CHAOS_SEED=0)
	OMP_NUM_THREADS=1 CHAOS_KILLS=$(CHAOS_KILLS) CHAOS_DAMAGES=$(CHAOS_DAMAGES) CHAOS_SEED=$(CHAOS_SEED) \
		$(BIN)/python -m pytest --override-ini timeout=3600 --capture=no tests/chaos

fuzz: $(STAMP) ## look for inputs that readers and graders do not take (FUZZ_SECONDS=300)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py $(FUZZ_SECONDS)

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## rewrite in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## speeds, side by side with peers where there are any
	$(BIN)/python -m benchmarks

.PHONY: gpu-check fits
gpu-check: $(STAMP) ## what only a GPU can show, in eight minutes on one (benchmarks/gpu.json)
	$(BIN)/python -m benchmarks.gpu_check

fits: $(STAMP) ## the memory that `kascade plan` predicts against what is measured (benchmarks/fits.json)
	$(BIN)/python -m benchmarks.fits --out benchmarks/fits.json

mini-base: $(STAMP) ## pretrain the built-in miniature anew (MODEL=mini-nemotron-h, OUT=build/MODEL)
	$(BIN)/python -m kascade.miniature.pretrain --model $(or $(MODEL),mini-nemotron-h) --out $(or $(OUT),build/$(or $(MODEL),mini-nemotron-h))

component: $(STAMP) ## a new pipeline component to fill in, with its test (NAME=my_step)
	$(BIN)/python -m components.scaffold $(NAME)

lock: $(STAMP) ## write down the versions that are installed
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools | sed "s/+cpu$$//" > requirements.lock

include images/images.mk

clean: ## remove what was made here (runs are kept)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
