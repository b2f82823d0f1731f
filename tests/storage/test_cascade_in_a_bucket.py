"""A cascade whose checkpoints lie in a bucket: interrupted, and finished from an empty folder elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from s3_servers import Server

from kascade.guard.lineage import read_outcomes
from kascade.storage.checkpoint import verify
from kascade.storage.layout import RunLayout

pytestmark = pytest.mark.slow
DEADLINE_S = 420
RECIPE = """
preset: quickstart
name: bucket
scale: smoke
overrides:
  storage: {checkpoints: "s3://cascade/runs"}
  multi_domain_rl: null
  mopd: null
  rlhf: null
  long_context_rl: null
  code_rl: null
  swe_rl: null
"""


def start(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kascade.cli", "run", str(recipe), "--out", str(folder), "--quiet"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_once_accepted(process: subprocess.Popen[str], folder: Path, stage: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not list((folder / "outcomes").glob(f"{stage}-*.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the first stage did not end"
        time.sleep(0.2)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=20)


def test_another_machine_finishes_from_the_bucket_alone(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    keys = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": s3.secret_key}
    address = s3.environment()["AWS_ENDPOINT_URL"]
    bucket = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    bucket.create_bucket(Bucket="cascade")

    def stored() -> dict[str, str]:
        listed = bucket.list_objects_v2(Bucket="cascade", Prefix="runs/").get("Contents", [])
        return {one["Key"]: one["LastModified"].isoformat() for one in listed}

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    first = tmp_path / "here"
    kill_once_accepted(start(recipe, first), first, "sft")
    assert not list(first.rglob("checkpoints/**/*.safetensors"))
    before = {key: when for key, when in stored().items() if "/sft/" in key or "/base/" in key}
    assert any(key.endswith("manifest.json") for key in before)

    elsewhere = tmp_path / "there"  # an empty folder, an empty cache: only the bucket is shared
    monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "another cache"))
    process = start(recipe, elsewhere)
    output = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 0, output
    after = stored()
    assert {key: after[key] for key in before} == before  # found, not trained again
    outcomes = {outcome.stage: outcome for outcome in read_outcomes(RunLayout(elsewhere))}
    assert list(outcomes) == ["sft", "if_rl"]
    assert outcomes["if_rl"].parent == outcomes["sft"].accepted
    final = json.loads((elsewhere / "final.json").read_text(encoding="utf-8"))["final_checkpoint"]
    assert final.startswith("s3://cascade/runs/")
    assert verify(final)[1].parent is not None
    assert (elsewhere / "report.html").stat().st_size > 10_000
