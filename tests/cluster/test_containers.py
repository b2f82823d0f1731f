"""Images built for real, and the compiled pipeline run in them. Needs the cluster tool's engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine import CONFINED, ROOT, build, docker, docker_environment

import kascade
from components.image import IMAGE

pytestmark = [pytest.mark.containers, pytest.mark.slow]
SANDBOX = f"kascade-sandbox:{kascade.__version__}"


@pytest.fixture(scope="module")
def sandbox_image() -> str:
    build("sandbox", SANDBOX)
    return SANDBOX


@pytest.fixture(scope="module")
def cpu_image() -> str:
    docker_environment()
    wheels = ROOT / "build" / "wheels"
    if not any(wheels.glob("torch-*.whl")):
        pytest.skip("no wheels in build/wheels (`make wheels`): the CPU image was NOT built")
    for left in ("lib", "kascade"):  # setuptools packs what it finds there
        shutil.rmtree(ROOT / "build" / left, ignore_errors=True)
    code = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    into = ["--wheel-dir", str(ROOT / "build" / "kascade"), str(ROOT)]
    subprocess.run([*code, *into], check=True, capture_output=True)
    build("cpu", IMAGE)
    return IMAGE


def inspect(image: str) -> dict[str, Any]:
    (found,) = json.loads(docker("image", "inspect", image).stdout)
    return dict(found)


def bill(image: str) -> dict[str, Any]:
    text = docker("run", *CONFINED, "--entrypoint", "cat", image, "/usr/share/sbom/kascade.cdx.json").stdout
    return dict(json.loads(text))


def sandboxed(image: str, *lines: Any) -> list[dict[str, Any]]:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    answered = docker("run", "-i", *CONFINED, image, input=text).stdout
    return [json.loads(line) for line in answered.splitlines()]


def test_the_sandbox_runs_programs_and_nothing_else(sandbox_image: str) -> None:
    right, network, files, loop, nonsense = sandboxed(
        sandbox_image,
        {"source": "print(6 * 7)"},
        {"source": "import socket; socket.socket()"},
        {"source": "open('/etc/passwd').read()"},
        {"source": "while True: pass", "limits": {"cpu_seconds": 1}},
        {"sauce": ""},
    )
    assert right["stdout"] == "42\n" and right["error"] is None
    assert "PermissionError" in network["exception"] and "PermissionError" in files["exception"]
    assert loop["timed_out"] or loop["exit_status"] != 0
    assert "not a job" in nonsense["error"]


def test_the_sandbox_is_bare_and_nobody(sandbox_image: str) -> None:
    assert inspect(sandbox_image)["Config"]["User"] == "10002:10002"
    names = {c["name"] for c in bill(sandbox_image)["components"] if c["purl"].startswith("pkg:pypi")}
    assert not names & {"torch", "kascade", "numpy", "requests"}


def test_the_cpu_image_is_labelled_counted_and_no_root(cpu_image: str) -> None:
    found = inspect(cpu_image)
    assert found["Config"]["User"] == "10001:0"
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == kascade.__version__
    components = bill(cpu_image)
    assert components["bomFormat"] == "CycloneDX" and components["specVersion"] == "1.6"
    versions = {c["name"]: c["version"] for c in components["components"]}
    assert versions["kascade"] == kascade.__version__ and "torch" in versions and "pip" not in versions
    locked = dict(
        line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    )
    for name in ("kfp", "mlflow", "transformers"):
        assert versions[name] == locked[name]
    said = docker("run", *CONFINED, cpu_image, "kascade", "version").stdout
    assert said.strip() == kascade.__version__


RUN = """
import sys; from pathlib import Path
from kfp import components, local
root = Path(sys.argv[1])
confined = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "network_mode": "none"}
runner = local.DockerRunner(**confined, environment={"OMP_NUM_THREADS": "1"})
local.init(runner, pipeline_root=str(root))
components.load_component_from_file(str(root / "pipeline.yaml"))(run=str(root / "{id}"))
"""
MINUTES = 15  # 6 to 12 beside the work of eight other people: 46 containers


@pytest.mark.timeout((MINUTES + 2) * 60)
def test_the_compiled_pipeline_runs_in_containers(cpu_image: str, tmp_path: Path) -> None:
    """The package that a cluster gets, all eight stages, each step in a container of its own.

    Without network and without rights, as a namespace under Pod Security `restricted` has it.
    """
    from kascade.guard.lineage import own_outcomes
    from kascade.recipe.load import load_recipe
    from kascade.storage.run_folder import RunFolder
    from pipelines.compile import compile_recipe

    recipe = load_recipe("quickstart-short")
    compile_recipe(recipe, tmp_path / "pipeline.yaml")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o777)  # the images' user is not this one
    environment = {**docker_environment(), "PYTHONPATH": os.pathsep.join([str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MINUTES,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    (final,) = tmp_path.glob("*/final.json")
    run = final.parent
    assert json.loads(final.read_text())["final_checkpoint"].startswith(f"file://{run}/checkpoints/")
    assert set(own_outcomes(RunFolder(run))) == {stage.name for stage in recipe.stages}
    assert (run / "report.html").stat().st_size > 10_000
    assert final.stat().st_uid == 10001
    states = [json.loads(path.read_text())["state"] for path in (run / "logs").glob("*.state.json")]
    assert len(states) >= 4 + 4 * len(recipe.stages) and set(states) == {"succeeded"}


def test_confined_a_step_can_write_where_it_is_told_only(cpu_image: str) -> None:
    """Root file system read-only, no capability, a user that is not root: what `restricted` asks of pods."""
    program = (
        "import os, pathlib, tempfile\n"
        "assert os.getuid() == 10001, os.getuid()\n"
        "pathlib.Path('/tmp/here').write_text('x')\n"
        "for name in ('/opt/kascade/x', '/usr/x', '/home/kascade/x'):\n"
        "    try: pathlib.Path(name).write_text('x')\n"
        "    except OSError: continue\n"
        "    raise SystemExit(name + ' can be written')\n"
        "import kascade.steps.steps, components, pipelines\n"
        "print('confined')\n"
    )
    options = ("--tmpfs", "/tmp", "--entrypoint", "python", cpu_image, "-c", program)
    assert docker("run", *CONFINED, *options).stdout == "confined\n"
