"""Addresses of files and folders: a path, `file://` or `s3://BUCKET/KEY`, and how to open one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from kascade.storage.store import Store
from kascade.storage.address import S3Address, parse_uri


def open_store(uri: str) -> Store:
    """The store whose root is the folder (or bucket, or prefix) that `uri` names."""
    address = parse_uri(uri)
    if isinstance(address, Path):
        from kascade.storage.store import LocalStore

        return LocalStore(address)
    from kascade.storage.s3.store import S3Store

    return S3Store(address)


def open_copy(uri: str) -> BinaryIO:
    """As `open_uri`; what is in a bucket is copied here first, once for each version of it."""
    address = parse_uri(uri)
    if isinstance(address, Path):
        return address.open("rb")
    from kascade.storage import cache
    from kascade.storage.s3.store import S3Store

    folder, _, name = address.key.rpartition("/")
    store = S3Store(S3Address(address.bucket, folder))
    found = store.stat(name)
    with store.open(name) as content:
        return cache.copy_of(uri, f"{found.etag} {found.size} {found.last_modified}", content).open("rb")


def open_uri(uri: str | Path) -> BinaryIO:
    """A read-only, seekable binary file. Raises FileNotFoundError when there is none, else StorageError."""
    address = parse_uri(str(uri))
    if isinstance(address, Path):
        return address.open("rb")
    folder, _, name = address.key.rpartition("/")
    return open_store(str(S3Address(address.bucket, folder))).open(name)
