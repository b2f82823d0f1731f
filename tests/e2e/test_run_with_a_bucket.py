"""`kascade run` with its checkpoints in a bucket: killed in the middle, finished, found by others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.s3_servers import Server, moto
from test_cascade import kill_tree

from kascade.learning.metrics import read_metrics

STEPS = 30
DEADLINE_S = 420
RECIPE = f"""
kascade: 1
name: bucket
model: {{source: builtin://mini-nemotron-h}}
threads: 1
storage: {{checkpoints: s3://models/shared/place}}
stages:
  - kind: sft
    name: sft
    steps: 2
    batch_size: 8
    optimizer: {{learning_rate: 1e-3}}
    data: [{{source: {{environment: instruction_following, count: 40}}}}]
  - kind: if_rl
    name: if_rl
    steps: {STEPS}
    save_every: 1
    prompts_per_step: 4
    rollouts_per_prompt: 2
    sampling: {{max_new_tokens: 12}}
    optimizer: {{learning_rate: 1e-4}}
    grpo: {{min_usable_groups: 1}}
    limits: {{max_truncated: null}}
    data: [{{source: {{environment: instruction_following, count: 40}}}}]
benchmarks:
  - name: instructions
    source: {{environment: instruction_following}}
    tasks: 8
    sampling: {{max_new_tokens: 12}}
guard: {{weak_exams: warn, screen_samples: 1, confirm_samples: 2, recovery: {{rounds: 0}}}}
tracking: {{promote_as: champion}}
"""


@dataclass(frozen=True)
class Machine:
    """A folder with a cache of its own and the keys of a store."""

    folder: Path
    server: Server
    cache: str = "cache"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self, *verb: str) -> subprocess.Popen[str]:
        self.folder.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            **self.server.environment(),
            "KASCADE_CACHE": str(self.folder / self.cache),
            "KASCADE_S3_ATTEMPTS": "3",
        }
        command = [sys.executable, "-m", "kascade.cli", *verb]
        with (self.folder / "said.txt").open("a") as said:
            return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=said)

    def kascade(self, *verb: str) -> dict[str, Any]:
        """What a verb says in JSON; all that it wrote is kept in the folder."""
        process = self.start(*verb, "--json")
        said = process.communicate(timeout=DEADLINE_S)[0]
        with (self.folder / "said.txt").open("a") as kept:
            kept.write(said)
        assert process.returncode == 0, (self.folder / "said.txt").read_text()
        found: dict[str, Any] = json.loads(said)
        return found

    def bucket(self) -> dict[str, str]:
        """Each object's contents' mark and time."""
        import boto3

        keys = {"aws_access_key_id": self.server.access_key, "aws_secret_access_key": self.server.secret_key}
        endpoint = f"http://127.0.0.1:{self.server.port}"
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        listed = client.list_objects_v2(Bucket="models").get("Contents", [])
        return {one["Key"]: f"{one['ETag']} {one['LastModified']}" for one in listed}


def killed_in_the_second_stage(machine: Machine, recipe: Path) -> None:
    process = machine.start("run", str(recipe), "--out", str(machine.run), "--quiet")
    deadline = time.monotonic() + DEADLINE_S
    while not list(machine.run.glob("training/if_rl/*/state/step-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the second stage did not begin"
        time.sleep(0.05)
    kill_tree(process)


@pytest.mark.slow
def test_a_bucket_is_all_that_machines_share(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto is not installed: no run with a bucket was made")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    with moto() as server:
        here = Machine(tmp_path / "here", server)
        killed_in_the_second_stage(here, recipe)
        before = here.bucket()
        assert any("/sft/train-" in key for key in before)
        assert not any("/if_rl/" in key for key in before)

        here = replace(here, cache="an empty cache")
        ended = here.kascade("run", str(recipe), "--out", str(here.run))
        assert ended["status"] == "succeeded"
        made = here.bucket()
        assert {key: made[key] for key in before} == before  # found, not trained again
        (curves,) = here.run.glob("training/if_rl/*/metrics.jsonl")
        assert [row["step"] for row in read_metrics(curves)] == list(range(STEPS))
        assert not list(here.run.rglob("checkpoints/**/*.safetensors"))

        there = Machine(tmp_path / "there", server)
        found = there.kascade("run", str(recipe), "--out", str(there.run))
        assert found["final_checkpoint"] == ended["final_checkpoint"]
        assert str(ended["final_checkpoint"]).startswith("s3://models/shared/place/if_rl/train-")
        assert there.bucket() == made
        assert not (there.run / "training").exists()
        assert "instructions" in Path(found["report"]).read_text()

        listed = here.kascade("gc", str(here.run), str(there.run), "--older-than", "0")
        assert listed["stores"]["s3://models/shared/place"]["checkpoints"] == {}
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        for secret in (server.secret_key, server.access_key):
            assert not [path for path in kept if secret.encode() in path.read_bytes()]
