# Container images: `make images`, or one of them: `make image-cpu`. Included by the Makefile.
# BASE, BASE_GPU: base images, best given by digest. PIP_OPTIONS: for `wheels`, where torch's builds come from.
# Builds use no network: `wheels` fetches everything by the lock file first.
DOCKER ?= docker
IMAGE ?= kascade
IMAGE_VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' kascade/__init__.py)
IMAGE_REVISION = $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BASE ?= python:3.11-slim-bookworm
BASE_GPU ?= nvidia/cuda:13.0.1-runtime-ubuntu24.04
IMAGE_ARGUMENTS = --build-arg VERSION=$(IMAGE_VERSION) --build-arg REVISION=$(IMAGE_REVISION)
build_image = DOCKER_BUILDKIT=1 $(DOCKER) build --network none $(IMAGE_ARGUMENTS)

.PHONY: images image-cpu image-sandbox image-mlflow image-train wheel-kascade wheels wheels-gpu wheels-mlflow sbom

images: image-cpu image-sandbox image-mlflow ## container images for a cluster, without GPUs (image-train: with)

wheels: wheel-kascade ## what the CPU image is made of, by the lock file
	@mkdir -p build/wheels
	$(BIN)/python images/closure.py > build/wheels/requirements.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheels $(PIP_OPTIONS) --requirement build/wheels/requirements.txt

wheel-kascade: $(STAMP) # from a clean folder: setuptools packs what an earlier build left there
	rm -rf build/lib build/bdist.* build/kascade
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/kascade .

wheels-gpu: wheel-kascade ## what the GPU image is made of
	$(BIN)/python -m pip wheel --quiet --constraint requirements.lock --wheel-dir build/wheels-gpu $(PIP_OPTIONS) ".[fp8,distributed]"
	$(BIN)/python -m pip wheel --quiet --constraint requirements.lock --wheel-dir build/wheels-gpu $(PIP_OPTIONS) vllm

wheels-mlflow: $(STAMP) ## what the tracking server's image is made of
	$(BIN)/python -m pip wheel --quiet --constraint requirements.lock --wheel-dir build/wheels-mlflow $(PIP_OPTIONS) "mlflow[auth]" psycopg2-binary boto3

image-mlflow: wheels-mlflow ## the image of the tracking server
	$(build_image) --build-arg BASE=$(BASE) --tag $(IMAGE)-mlflow:$(IMAGE_VERSION) --file images/mlflow/Dockerfile .

image-cpu: wheels ## the image of steps on CPU
	$(build_image) --build-arg BASE=$(BASE) --tag $(IMAGE):$(IMAGE_VERSION) --file images/cpu/Dockerfile .

image-sandbox: ## the image that runs untrusted programs
	$(build_image) --build-arg BASE=$(BASE) --tag $(IMAGE)-sandbox:$(IMAGE_VERSION) --file images/sandbox/Dockerfile .

image-train: wheels-gpu ## the image of steps on GPUs
	$(build_image) --build-arg BASE=$(BASE_GPU) --tag $(IMAGE)-train:$(IMAGE_VERSION) --file images/train/Dockerfile .

sbom: ## bills of materials of the images that are here, into build/
	@mkdir -p build
	@for kind in "" -sandbox -mlflow -train; do \
	  image=$(IMAGE)$$kind:$(IMAGE_VERSION); \
	  $(DOCKER) image inspect $$image >/dev/null 2>&1 || continue; \
	  $(DOCKER) run --rm --network none --entrypoint cat $$image /usr/share/sbom/kascade.cdx.json > build/$(IMAGE)$$kind.cdx.json; \
	  echo build/$(IMAGE)$$kind.cdx.json; \
	done
