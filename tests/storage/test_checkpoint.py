"""Checkpoints: published whole, found by reference, refused by name when they are not what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.errors import CheckpointError
from kascade.storage.checkpoint import (
    MANIFEST,
    CheckpointRef,
    Manifest,
    local_path,
    open_checkpoint,
    publish,
    verify,
)

DIGEST = "0" * 64


def staged(folder: Path, weights: str = "weights") -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def manifest() -> Manifest:
    return Manifest(
        id="sft/train-abc",
        stage="sft",
        attempt="train",
        key="abc",
        parent=None,
        fingerprint="f",
        code_version="0",
        created="2026-01-01T00:00:00+00:00",
        files={},
    )


@pytest.fixture
def published(tmp_path: Path) -> CheckpointRef:
    return publish(staged(tmp_path / "staged"), tmp_path / "run folder" / "sft", manifest())


def test_what_is_published_can_be_verified(published: CheckpointRef, tmp_path: Path) -> None:
    folder, found = verify(str(published))
    assert folder == tmp_path / "run folder" / "sft"
    assert set(found.files) == {"model.safetensors", "tokenizer/vocab.json"}
    assert found.digest == published.digest
    assert not (tmp_path / "staged").exists()


def test_equal_contents_have_equal_digests(published: CheckpointRef, tmp_path: Path) -> None:
    same = publish(staged(tmp_path / "again"), tmp_path / "same", manifest())
    other = publish(staged(tmp_path / "other", "changed"), tmp_path / "elsewhere", manifest())
    assert same.digest == published.digest != other.digest


def test_publishing_twice_keeps_the_first(published: CheckpointRef, tmp_path: Path) -> None:
    again = publish(staged(tmp_path / "again", "other"), published.path, manifest())
    assert again == published
    verify(str(published))


def test_an_interrupted_copy_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "sft"
    target.mkdir()
    (target / "model.safetensors").write_text("half")
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        open_checkpoint(target)
    verify(str(publish(staged(tmp_path / "staged"), target, manifest())))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer/vocab.json"])
def test_a_changed_or_missing_file_is_named(published: CheckpointRef, name: str) -> None:
    (published.path / name).write_text("tampered")
    with pytest.raises(CheckpointError, match=name):
        verify(str(published))
    (published.path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        verify(str(published))


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}', '"text"', "null"])
def test_a_corrupt_manifest_is_named(published: CheckpointRef, text: str) -> None:
    (published.path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json: not a checkpoint manifest"):
        verify(str(published))


def test_another_checkpoint_under_the_same_uri_is_refused(published: CheckpointRef) -> None:
    with pytest.raises(CheckpointError, match="was asked for"):
        verify(str(CheckpointRef(published.uri, DIGEST)))


@given(st.text(min_size=1), st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_references_survive_being_text(uri: str, digest: str) -> None:
    ref = CheckpointRef(uri, digest)
    assert CheckpointRef.parse(str(ref)) == ref


@given(st.text())
def test_any_text_is_a_reference_or_a_checkpoint_error(text: str) -> None:
    try:
        CheckpointRef.parse(text)
    except CheckpointError as error:
        assert "URI@sha256:DIGEST" in str(error)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(CheckpointError, match="file://"):
        local_path("s3://bucket/model")
