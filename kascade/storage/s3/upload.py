"""Files into a bucket: in parts, several at a time; the parts of an upload that was cut are used again."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kascade.errors import StorageError
from kascade.storage.s3.bucket import Bucket
from kascade.storage.s3.client import MIB

MOST_PARTS = 10_000  # S3's own rule


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A stretch of a file; numbers count from 1."""

    number: int
    offset: int
    length: int


def split(size: int, part_bytes: int) -> list[UploadPart]:
    """The parts of a file; larger than asked for where there would be too many."""
    length = max(part_bytes, math.ceil(size / MOST_PARTS / MIB) * MIB)
    starts = range(0, size, length)
    return [UploadPart(n, start, min(length, size - start)) for n, start in enumerate(starts, 1)]


def upload(store: Bucket, path: Path, name: str) -> None:
    """Raises StorageError. Each request carries a checksum of its body, which the store checks."""
    parts = split(path.stat().st_size, store.settings.part_bytes)
    if _is_there(store, name, path, parts):
        return
    if len(parts) <= 1:
        data = path.read_bytes()
        store.ask(name, lambda: store.client._put_object(store.address.bucket, store.key(name), data))
        return
    for _ in range(store.settings.attempts):
        try:
            _upload_parts(store, path, name, parts)
            return
        except FileNotFoundError:  # another writer has finished this very upload, or given it up
            if _is_there(store, name, path, parts):
                return
    raise StorageError(f"{store.subject(name)}: other writers keep ending this upload")


def _is_there(store: Bucket, name: str, path: Path, parts: list[UploadPart]) -> bool:
    """Whether the object has the file's contents, as far as its ETag tells; if in doubt, no."""
    try:
        found = store.stat(name)
    except FileNotFoundError:
        return False
    return bool(found.size == path.stat().st_size and found.etag == etag(path, parts))


def etag(path: Path, parts: list[UploadPart]) -> str:
    """What S3 calls the contents of a file sent in these parts (unless it encrypts with keys of its own):
    the MD5 of a single one; of several, the MD5 of their MD5s, and how many."""
    digests = [_md5(_read(path, part)) for part in parts or [UploadPart(1, 0, 0)]]
    if len(digests) == 1:
        return digests[0].hex()
    return f"{_md5(b''.join(digests)).hex()}-{len(digests)}"


def _read(path: Path, part: UploadPart) -> bytes:
    with path.open("rb") as file:
        data = os.pread(file.fileno(), part.length, part.offset)
    if len(data) != part.length:
        raise StorageError(f"{path} became shorter while it was uploaded")
    return data


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _upload_parts(store: Bucket, path: Path, name: str, parts: list[UploadPart]) -> None:
    """Send the parts that are still missing. Raises FileNotFoundError when the upload is no longer open."""
    from minio.datatypes import Part as Sent

    bucket, key = store.address.bucket, store.key(name)
    upload_id, there = _open_upload(store, name)

    def send(part: UploadPart) -> Any:
        data = _read(path, part)
        if there.get(part.number) == (part.length, _md5(data).hex()):
            return Sent(part.number, there[part.number][1])
        etag = store.ask(
            name, lambda: store.client._upload_part(bucket, key, data, None, upload_id, part.number)
        )
        return Sent(part.number, etag)

    with ThreadPoolExecutor(store.settings.parallel) as pool:
        futures = [pool.submit(send, part) for part in parts]
        try:
            sent = [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)
    store.ask(name, lambda: store.client._complete_multipart_upload(bucket, key, upload_id, sent))


def _open_upload(store: Bucket, name: str) -> tuple[str, dict[int, tuple[int, str]]]:
    """The newest open upload of this object with (size, ETag) of its parts; a new one where there is none."""
    bucket, key = store.address.bucket, store.key(name)
    open_ones = [one for one in store.unfinished(name) if one.name == name]
    if open_ones:
        newest = max(open_ones, key=lambda one: one.begun)
        parts = {part.part_number: (part.size, part.etag.strip('"')) for part in _parts(store, name, newest)}
        return newest.upload_id, parts
    made = store.ask(name, lambda: store.client._create_multipart_upload(bucket, key, {}))
    return str(made), {}


def _parts(store: Bucket, name: str, upload: Any) -> Iterator[Any]:
    marker: str | None = None
    while True:
        answer = store.ask(
            name,
            lambda: store.client._list_parts(
                store.address.bucket,
                store.key(name),
                upload.upload_id,
                part_number_marker=marker,  # noqa: B023
            ),
        )
        yield from answer.parts
        if not answer.is_truncated:
            return
        marker = str(answer.next_part_number_marker)
