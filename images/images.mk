# Container images: `make images`, or one of them: `make image-cpu`. Included by the Makefile.
# BASE, BASE_GPU: base images, best given by digest. PIP_OPTIONS: for `wheels`, where torch's builds come from.
# Builds use no network: `wheels` fetches everything by the lock file first.
DOCKER ?= docker
IMAGE ?= kascade
IMAGE_VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' kascade/version.py)
IMAGE_REVISION = $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BASE ?= python:3.11-slim-bookworm
BASE_GPU ?= python:3.11-bookworm
IMAGE_ARGUMENTS = --build-arg VERSION=$(IMAGE_VERSION) --build-arg REVISION=$(IMAGE_REVISION)
build_image = DOCKER_BUILDKIT=1 $(DOCKER) build --network none $(IMAGE_ARGUMENTS)

.PHONY: images image-cpu image-sandbox image-mlflow image-train image-vllm
.PHONY: wheel-kascade wheels wheels-gpu wheels-mlflow wheels-vllm lock-images sbom

# Wheels are fetched once for each lock file, and again whenever options are given.
AGAIN = $(if $(PIP_OPTIONS),fetch-again)
.PHONY: fetch-again
fetch-again:

images: image-cpu image-sandbox image-mlflow ## container images for a cluster, without GPUs (image-train, image-vllm: with)

wheels: wheel-kascade build/wheels/.fetched ## what the CPU image is made of, by the lock file

build/wheels/.fetched: requirements.lock images/closure.py $(STAMP) $(AGAIN)
	@mkdir -p $(@D)
	$(BIN)/python images/closure.py > $(@D)/requirements.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(@D) $(PIP_OPTIONS) --requirement $(@D)/requirements.txt
	touch $@

wheel-kascade: $(STAMP) # from a clean folder: setuptools packs what an earlier build left there
	rm -rf build/lib build/bdist.* build/kascade
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/kascade .

# Transformer Engine's torch part is source only; asking what it needs (pip does, in a place apart) wants CUDA's torch,
# which then lies there already.
SOURCE_ONLY = transformer-engine-torch
wheels-gpu: wheel-kascade build/wheels-gpu/.fetched ## what the GPU image is made of, by its lock file (4 GB)

build/wheels-gpu/.fetched: images/train/requirements.lock $(STAMP) $(AGAIN)
	@mkdir -p $(@D)
	grep -v "^$(SOURCE_ONLY)==" $< > $(@D)/requirements.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(@D) $(PIP_OPTIONS) --requirement $(@D)/requirements.txt
	PIP_CONSTRAINT=$< $(BIN)/python -m pip download --quiet --no-deps --dest $(@D) --find-links $(@D) $(PIP_OPTIONS) \
	  $(SOURCE_ONLY)
	touch $@

wheels-mlflow: build/wheels-mlflow/.fetched ## what the tracking server's image is made of, by its lock file

build/wheels-mlflow/.fetched: images/mlflow/requirements.lock $(STAMP) $(AGAIN)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(@D) $(PIP_OPTIONS) --requirement $<
	cp $< $(@D)/requirements.txt
	touch $@

wheels-vllm: build/wheels-vllm/.fetched ## what vLLM's own image is made of, by its lock file (4 GB)

build/wheels-vllm/.fetched: images/vllm/requirements.lock $(STAMP) $(AGAIN)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(@D) $(PIP_OPTIONS) --requirement $<
	cp $< $(@D)/requirements.txt
	touch $@

RESOLVE = build/uv/bin/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_31
lock-images: ## resolve the lock files of the images train, mlflow and vllm anew, near to what the tests ran with
	@mkdir -p build
	$(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv
	for image in train mlflow; do cp requirements.lock images/$$image/requirements.lock; done
	$(RESOLVE) --config-file images/train/uv.toml --extra distributed --extra attest pyproject.toml images/train/requirements.in \
	  --output-file images/train/requirements.lock
	$(RESOLVE) images/mlflow/requirements.in --output-file images/mlflow/requirements.lock
	cp tests/vllm_server/requirements.lock images/vllm/requirements.lock
	$(RESOLVE) images/vllm/requirements.in --output-file images/vllm/requirements.lock

image-mlflow: wheels-mlflow ## the image of the tracking server
	$(build_image) --build-arg BASE=$(BASE) --tag $(IMAGE)-mlflow:$(IMAGE_VERSION) --file images/mlflow/Dockerfile .

image-cpu: wheels ## the image of steps on CPU
	$(build_image) --build-arg BASE=$(BASE) --tag $(IMAGE):$(IMAGE_VERSION) --file images/cpu/Dockerfile .

image-sandbox: ## the image that runs untrusted programs
	$(build_image) --build-arg BASE=$(BASE) --tag $(IMAGE)-sandbox:$(IMAGE_VERSION) --file images/sandbox/Dockerfile .

image-train: wheels-gpu ## the image of steps on GPUs
	$(build_image) --build-arg BASE=$(BASE_GPU) --tag $(IMAGE)-train:$(IMAGE_VERSION) --file images/train/Dockerfile .

image-vllm: wheels-vllm ## the image of a vLLM server
	$(build_image) --build-arg BASE=$(BASE_GPU) --tag $(IMAGE)-vllm:$(IMAGE_VERSION) --file images/vllm/Dockerfile .

sbom: ## bills of materials of the images that are here, into build/
	@mkdir -p build
	@for kind in "" -sandbox -mlflow -train -vllm; do \
	  image=$(IMAGE)$$kind:$(IMAGE_VERSION); \
	  $(DOCKER) image inspect $$image >/dev/null 2>&1 || continue; \
	  $(DOCKER) run --rm --network none --entrypoint cat $$image /usr/share/sbom/kascade.cdx.json > build/$(IMAGE)$$kind.cdx.json; \
	  echo build/$(IMAGE)$$kind.cdx.json; \
	done
