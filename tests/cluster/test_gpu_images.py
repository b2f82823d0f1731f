"""The images of GPU nodes, as far as a machine without a GPU shows: what they import, what they start.

They take gigabytes of wheels, so nothing here builds them: `make image-train image-vllm` does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine import CONFINED, docker
from vllm_server import test_vllm_names as names_of

import kascade

pytestmark = [pytest.mark.containers, pytest.mark.slow]
TRAIN, VLLM = (f"kascade-{kind}:{kascade.__version__}" for kind in ("train", "vllm"))
LIBRARY = ("torch", "transformers", "peft", "ray", "mlflow", "kfp", "transformer_engine.pytorch", "vllm")
IMPORTS = """
import importlib, json, os, sys
names = sys.argv[1:]
for name in names:
    importlib.import_module(name)
from pipelines.steps import LIBRARY, Steps
for name in LIBRARY:
    importlib.import_module(name)
Steps.shipped()
import torch
print(json.dumps({"uid": os.getuid(), "cuda": torch.version.cuda, "imported": len(names) + len(LIBRARY)}))
"""
CONFINED_HOME = ("--tmpfs", "/tmp", "-e", "HOME=/tmp")


def built(image: str, how: str) -> str:
    if docker("image", "inspect", image, check=False).returncode:
        pytest.skip(f"{image} is not built (`{how}`): its imports were NOT tried")
    return image


@pytest.fixture(scope="module")
def train_image() -> str:
    return built(TRAIN, "make image-train")


@pytest.fixture(scope="module")
def vllm_image() -> str:
    return built(VLLM, "make image-vllm")


@pytest.mark.timeout(600)
def test_the_train_image_imports_all_that_its_steps_do(train_image: str) -> None:
    """CUDA's torch, Transformer Engine with its part that was compiled in the image, vLLM, every step."""
    done = docker("run", *CONFINED, *CONFINED_HOME, train_image, "python", "-c", IMPORTS, *LIBRARY)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["uid"] == 10001 and said["cuda"].startswith("13.") and said["imported"] > 15


@pytest.mark.timeout(600)
def test_the_train_image_is_this_version_and_counted(train_image: str) -> None:
    assert docker("run", *CONFINED, train_image, "kascade", "version").stdout.strip() == kascade.__version__
    bill = docker("run", *CONFINED, "--entrypoint", "cat", train_image, "/usr/share/sbom/kascade.cdx.json")
    versions = {one["name"]: one["version"] for one in json.loads(bill.stdout)["components"]}
    assert versions["kascade"] == kascade.__version__
    assert {"torch", "vllm", "ray", "transformer-engine-torch"} <= {
        name.lower().replace("_", "-") for name in versions
    }


@pytest.mark.timeout(600)
def test_the_vllm_image_has_every_name_that_a_run_leans_on(vllm_image: str) -> None:
    """As the tests against vLLM's build for CPUs look for them."""
    script = Path(names_of.__file__).with_name("names_in_vllm.py").read_text(encoding="utf-8")
    done = docker("run", "-i", *CONFINED, *CONFINED_HOME, vllm_image, "python", "-", input=script)
    names = json.loads(done.stdout.splitlines()[-1])
    names_of.test_an_engine_of_ones_own_is_written_as_ours(names)
    names_of.test_nccl_is_joined_by_a_unique_id_without_vllm(names)
    names_of.test_a_server_has_the_routes_and_options(names)
    names_of.test_requests_and_samples_have_their_fields(names)


@pytest.mark.timeout(600)
def test_the_vllm_image_holds_vllm_alone(vllm_image: str) -> None:
    program = "import importlib.util as u, os; print(os.getuid(), u.find_spec('kascade'), u.find_spec('pip'))"
    assert docker("run", *CONFINED, vllm_image, "python", "-c", program).stdout == "10001 None None\n"
