"""Checkpoints in a bucket: published by one of many, fetched once, refused when they are others."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.s3_servers import CuttingProxy, Server, rclone
from test_checkpoint import manifest, staged

from kascade.errors import CheckpointError, StorageError
from kascade.storage import cache
from kascade.storage.checkpoint import (
    CheckpointRef,
    is_there,
    open_checkpoint,
    point_to,
    publish,
    verify,
)
from kascade.storage.uris import open_store


def test_published_fetched_and_verified(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://models/run/sft/train-abc"
    ref = publish(staged(tmp_path / "staged"), uri, manifest())
    assert ref.uri == uri
    assert is_there(str(ref))
    folder, found = verify(str(ref))
    assert (folder / "model.safetensors").read_text() == "weights"
    assert found.digest == ref.digest
    monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "another machine"))
    folder, _ = verify(str(ref))
    assert (folder / "tokenizer" / "vocab.json").read_text() == "{}"
    with CuttingProxy(s3.port, lambda connection, passed: False) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        verify(str(ref))
        assert wire.connections == 1  # the manifest; the files are here
        with pytest.raises(CheckpointError, match="was asked for"):
            verify(str(CheckpointRef(uri, "0" * 64)))
        with pytest.raises(CheckpointError, match=r"no manifest\.json"):
            open_checkpoint("s3://models/run/sft/train-nothing")


def test_publishing_twice_keeps_the_first(s3: Server, tmp_path: Path) -> None:
    uri = "s3://models/twice/sft/train-abc"
    first = publish(staged(tmp_path / "a"), uri, manifest())
    assert publish(staged(tmp_path / "b", "other"), uri, manifest()) == first
    verify(str(first))


@pytest.mark.parametrize("scheme", ["s3", "file"])
def test_of_many_publishers_one_wins_and_its_files_are_whole(s3: Server, tmp_path: Path, scheme: str) -> None:
    root = "s3://models/race" if scheme == "s3" else (tmp_path / "race").as_uri()
    uri = f"{root}/sft/train-abc"
    folders = [staged(tmp_path / f"writer {n}", f"weights {n}") for n in range(6)]
    at_once = threading.Barrier(len(folders))

    def write(folder: Path) -> CheckpointRef:
        at_once.wait()
        return publish(folder, uri, manifest())

    with ThreadPoolExecutor(len(folders)) as pool:
        refs = set(pool.map(write, folders))
    assert len(refs) == 1
    verify(str(refs.pop()))


def test_a_file_changed_in_the_cache_is_named_and_fetched_again(s3: Server, tmp_path: Path) -> None:
    ref = publish(staged(tmp_path / "a"), "s3://models/changed/sft/train-abc", manifest())
    path = verify(str(ref))[0] / "model.safetensors"
    path.write_text("tampered")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        verify(str(ref))
    assert (verify(str(ref))[0] / "model.safetensors").read_text() == "weights"


def test_a_lost_object_is_named(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = publish(staged(tmp_path / "a"), "s3://models/lost/sft/train-abc", manifest())
    open_store(ref.uri).delete(f"{ref.digest[:16]}/model.safetensors")
    assert not is_there(str(ref))
    monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        verify(str(ref))


def test_a_folder_can_stand_for_a_remote_checkpoint(s3: Server, tmp_path: Path) -> None:
    ref = publish(staged(tmp_path / "a"), "s3://models/pointed/sft/train-abc", manifest())
    point_to(ref, tmp_path / "run" / "sft" / "train-abc")
    assert open_checkpoint(tmp_path / "run" / "sft" / "train-abc")[0] == ref


def test_the_cache_forgets_what_was_used_longest_ago(s3: Server, tmp_path: Path) -> None:
    refs = [
        publish(staged(tmp_path / f"{n}", f"{n}" * 1000), f"s3://models/prune/sft/train-{n}", manifest())
        for n in range(3)
    ]
    verify(str(refs[0]))
    assert cache.prune(2100) == [refs[1].digest]
    assert cache.prune(2100) == []
    verify(str(refs[1]))


def test_against_rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second implementation of S3: files lie in a folder, and conditions on writes are ignored."""
    monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KASCADE_S3_PART_MIB", "5")
    with rclone(tmp_path) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        big = staged(tmp_path / "staged", "w" * (11 * 2**20))
        ref = publish(big, "s3://models/run/sft/train-abc", manifest())
        shutil.rmtree(tmp_path / "cache")
        folder, _ = verify(str(ref))
        assert (folder / "model.safetensors").stat().st_size == 11 * 2**20
        assert not open_store("s3://models/run/sft/train-abc").create("manifest.json", b"another")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StorageError, match="refuses the keys"):
            verify(str(ref))
