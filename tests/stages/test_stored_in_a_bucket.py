"""A run whose checkpoints lie in a bucket: another machine, with an empty folder, goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.s3_servers import moto
from test_steps import BOTH, FORGET, guarded, start
from toy_cascade import make_run

from kascade.steps import steps
from kascade.storage.checkpoint import verify


def test_another_machine_goes_on_from_the_bucket_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: buckets were not tried")
    with moto() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KASCADE_CHECKPOINTS", "s3://cascade/runs")
        keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
        bucket = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1", **keys
        )
        bucket.create_bucket(Bucket="cascade")

        def stored() -> dict[str, str]:
            listed = bucket.list_objects_v2(Bucket="cascade", Prefix="runs/").get("Contents", [])
            return {one["Key"]: f"{one['ETag']} {one['LastModified']}" for one in listed}

        monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "cache of the first"))
        here = make_run(tmp_path / "here", BOTH, FORGET)
        base = start(here)
        first = guarded(here, "sft", base)  # and then this machine is gone
        assert first.startswith("s3://cascade/runs/sft/")
        assert not list(here.root.rglob("checkpoints/**/*.safetensors"))
        before = stored()

        monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "cache of the second"))
        there = make_run(tmp_path / "there", BOTH, FORGET)
        assert start(there) == base
        assert guarded(there, "sft", base) == first  # found, not trained again
        assert {key: stored()[key] for key in before} == before
        candidate = steps.train(str(there.root), "forget", first)
        assert verify(candidate)[1].parent == first
