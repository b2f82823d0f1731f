"""Addresses are read or refused in words; nothing that looks like a key is ever repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kascade.errors import StorageError
from kascade.storage.address import S3Address, parse_uri
from kascade.storage.s3.client import MIB
from kascade.storage.s3.upload import MOST_PARTS, split
from kascade.storage.store import LocalStore
from kascade.storage.uris import open_uri


def test_paths_files_and_buckets(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"here")
    for uri in (tmp_path / "a b.txt", str(tmp_path / "a b.txt"), (tmp_path / "a b.txt").as_uri()):
        with open_uri(uri) as file:
            assert file.read() == b"here"
    assert parse_uri("s3://bucket/a/b/") == S3Address("bucket", "a/b")
    assert str(S3Address("bucket", "")) == "s3://bucket"
    with pytest.raises(FileNotFoundError):
        open_uri(tmp_path / "nothing")


@pytest.mark.parametrize("uri", ["gs://bucket/a", "s3://", "s3:///key", "http://host/file"])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(StorageError):
        parse_uri(uri)


def test_keys_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError, match="may not hold keys") as caught:
        parse_uri("s3://AKIA:secret@bucket/a")
    assert "secret" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_a_storage_error(text: str) -> None:
    try:
        parse_uri(text)
    except (StorageError, ValueError) as error:
        assert str(error)


@given(st.integers(0, 2**45), st.integers(5 * MIB, 64 * MIB))
def test_parts_cover_a_file_exactly(size: int, part_bytes: int) -> None:
    parts = split(size, part_bytes)
    assert len(parts) <= MOST_PARTS
    assert sum(part.length for part in parts) == size
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    ends = [0, *(part.offset + part.length for part in parts)]
    assert [part.offset for part in parts] == ends[:-1]


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    store, source = LocalStore(tmp_path / "store"), tmp_path / "file"
    source.write_text("contents")
    store.upload(source, "a/b/file")
    assert [(entry.name, entry.size) for entry in store.entries("a/")] == [("a/b/file", 8)]
    with pytest.raises(StorageError, match="contents"):
        store.download("a/b/file", tmp_path / "back", "0" * 64)
    assert store.create("new", b"1")
    assert not store.create("new", b"2")
    assert store.read("new") == b"1"
    store.delete("a/b/file")
    assert sorted(path.name for path in store.root.rglob("*")) == ["new"]
