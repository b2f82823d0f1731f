"""Addresses of files and folders: a path, `file://` or `s3://BUCKET/KEY`, and how to open one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from kascade.errors import StorageError

if TYPE_CHECKING:
    from kascade.storage.store import Store

SCHEMES = "a path, file:///FOLDER or s3://BUCKET/KEY"


@dataclass(frozen=True, slots=True)
class S3Address:
    """An object, or the common beginning of several. key is empty for a whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")


def is_remote(uri: str) -> bool:
    """Whether what `uri` names lies in a bucket rather than in a file system."""
    return uri.startswith("s3://")


def parse_uri(uri: str) -> Path | S3Address:
    """Raises StorageError for another scheme, a missing bucket, or keys written into the address."""
    if "://" not in uri:
        return Path(uri)
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return Path(unquote(urlsplit(uri).path))
    if scheme != "s3":
        raise StorageError(f"{scheme}:// is not an address to read from or write to: give {SCHEMES}")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:  # nothing of it may be repeated in a message
        raise StorageError("an s3:// address may not hold keys: give them by environment or credentials file")
    if not bucket:
        raise StorageError(f"{uri} names no bucket: give s3://BUCKET/KEY")
    return S3Address(bucket, key.strip("/"))


def join_uri(uri: str, name: str) -> str:
    return f"{uri.rstrip('/')}/{name}"


def open_store(uri: str) -> Store:
    """The store whose root is the folder (or bucket, or prefix) that `uri` names."""
    address = parse_uri(uri)
    if isinstance(address, Path):
        from kascade.storage.store import LocalStore

        return LocalStore(address)
    from kascade.storage.s3 import S3Store

    return S3Store(address)


def open_copy(uri: str) -> BinaryIO:
    """As `open_uri`; what lies in a bucket is copied here first, once for each version of it."""
    address = parse_uri(uri)
    if isinstance(address, Path):
        return address.open("rb")
    from kascade.storage import cache
    from kascade.storage.s3 import S3Store

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
