"""Rows in a bucket: tasks come from there, once over the wire, and faults name address and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.s3_servers import Server
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import get_environment
from kascade.environments.rows.loading import load_tasks
from kascade.errors import UserError
from kascade.recipe.parts import DataSource
from kascade.rollout.pools import source_tasks
from kascade.storage import cache
from kascade.storage.s3.file import S3File
from kascade.storage.uris import open_store


def row(number: int) -> str:
    return json.dumps({"prompt": f"What is {number} + 1?", "expected_answer": str(number + 1)})


@pytest.fixture
def bucket(s3: Server, tmp_path: Path) -> str:
    import boto3

    keys = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": s3.secret_key}
    address = f"http://127.0.0.1:{s3.port}"
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    name = f"rows-{abs(hash(str(tmp_path))) % 10**9}"
    client.create_bucket(Bucket=name)
    return f"s3://{name}"


def put(bucket: str, name: str, *lines: str, folder: Path) -> str:
    local = folder / "upload"
    local.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    open_store(bucket).upload(local, name)
    return f"{bucket}/{name}"


def source(uri: str, **fields: Any) -> DataSource:
    return DataSource(environment="math_with_judge", path=uri, hold_out=False, **fields)


def questions(found: DataSource) -> list[str]:
    tasks = load_tasks(get_environment("math_with_judge"), found).tasks
    return [task.messages[-1]["content"] for task in tasks]


def test_rows_of_a_bucket_are_tasks_and_come_over_the_wire_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, "train/a b.jsonl", *map(row, range(50)), folder=tmp_path)
    tasks = source_tasks(source(uri), split="train", seed=0, count=None)
    assert len(tasks) == 50
    (copy,) = cache.cache_folder().glob("rows/*/a b.jsonl")
    assert copy.read_bytes().count(b"\n") == 50

    def no_more(*_: Any) -> int:
        raise AssertionError("was read again")

    with monkeypatch.context() as patched:
        patched.setattr(S3File, "readinto", no_more)
        assert len(questions(source(uri, system="Another source of the same file."))) == 50
    put(bucket, "train/a b.jsonl", row(7), folder=tmp_path)  # other contents: another version
    assert questions(source(uri, system="A third.")) == ["What is 7 + 1?"]


def test_a_prefix_is_a_folder_of_files(bucket: str, tmp_path: Path) -> None:
    put(bucket, "math/train-0.jsonl", row(1), folder=tmp_path)
    put(bucket, "math/test-0.jsonl", row(2), folder=tmp_path)
    put(bucket, "math/README.md", "words", folder=tmp_path)
    put(bucket, "mathematics.jsonl", row(3), folder=tmp_path)
    both = sorted(questions(source(f"{bucket}/math")))
    assert both == ["What is 1 + 1?", "What is 2 + 1?"]
    assert questions(source(f"{bucket}/math/", split="test")) == ["What is 2 + 1?"]
    with pytest.raises(UserError, match="no data file of split 'dev'"):
        questions(source(f"{bucket}/math", split="dev"))
    with pytest.raises(UserError, match="holds no data files"):
        questions(source(f"{bucket}/nothing"))


def test_bad_rows_are_named_by_address_and_line(bucket: str, tmp_path: Path) -> None:
    uri = put(bucket, "rows.jsonl", row(1), '{"prompt": "?"}', row(2), "{", folder=tmp_path)
    with pytest.raises(UserError) as caught:
        questions(source(uri))
    assert [fault.where for fault in caught.value.faults] == [f"{uri}:2 expected_answer", f"{uri}:4"]
    assert questions(source(uri, on_bad_row="skip")) == ["What is 1 + 1?", "What is 2 + 1?"]
    result = CliRunner().invoke(app, ["data", "check", uri, "--environment", "math_with_judge"])
    assert result.exit_code == 2
    assert f"{uri}:2 expected_answer" in result.output


def test_what_is_not_there_is_told_in_words(bucket: str) -> None:
    for uri in (f"{bucket}/none.jsonl", "s3://no-such-bucket-here/none.jsonl"):
        with pytest.raises(UserError, match="cannot be read") as caught:
            questions(source(uri))
        assert uri in str(caught.value)
