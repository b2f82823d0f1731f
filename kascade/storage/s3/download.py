"""Files out of a bucket: ranges in parallel, and what a cut download already has is kept."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kascade.errors import StorageError
from kascade.storage.files import file_digest, read_json, write_json
from kascade.storage.s3.bucket import Bucket
from kascade.storage.s3.upload import UploadPart, split

CHUNK = 2**20  # bytes written at a time
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _DiskFault(Exception):
    """A write that failed here: no other try of the request would fix it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class Download:
    """One object on its way to `path`; until it is whole it is beside it, with a list of what is there."""

    store: Bucket
    name: str
    path: Path
    sha256: str
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.sha256[:16]}.part")

    @property
    def ledger(self) -> Path:
        return self.path.with_name(f"{self.partial.name}.json")

    def run(self) -> None:
        """Raises FileNotFoundError, or StorageError when the disk is full or the contents are others."""
        found = self.store.stat(self.name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._fetch(int(found.size), found.etag)
        except (_DiskFault, OSError) as fault:
            error = fault.error if isinstance(fault, _DiskFault) else fault
            if error.errno not in NO_ROOM:
                raise error from None
            free = shutil.disk_usage(self.path.parent).free
            raise StorageError(
                f"{self.store.subject(self.name)} does not fit: {found.size:,} bytes, {free:,} are free at "
                f"{self.path.parent}. To do: make room, or set KASCADE_CACHE to a larger disk; what has "
                "arrived is kept"
            ) from error
        self._finish()

    def _fetch(self, size: int, etag: str) -> None:
        parts = split(size, self.store.settings.part_bytes)
        done = self._known(size, etag)
        with self.partial.open("r+b" if done else "wb") as file:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is reported now, not at the end
            missing = [part for part in parts if part.offset not in done]
            target = file.fileno()
            with ThreadPoolExecutor(self.store.settings.parallel) as pool:
                futures = [pool.submit(self._range, target, part, etag, size, done) for part in missing]
                try:
                    for future in futures:
                        future.result()
                finally:
                    pool.shutdown(cancel_futures=True)

    def _known(self, size: int, etag: str) -> set[int]:
        """Offsets of the parts that an earlier try has brought, if it was of the same object."""
        try:
            kept = read_json(self.ledger)
        except (OSError, ValueError):
            return set()
        same = kept.get("of") == [size, etag, self.store.settings.part_bytes]
        return set(kept["done"]) if same and self.partial.exists() else set()

    def _range(self, descriptor: int, part: UploadPart, etag: str, size: int, done: set[int]) -> None:
        """Bring one part; after a cut the rest of it is asked for, not all."""
        at, end = part.offset, part.offset + part.length

        def request() -> None:
            nonlocal at
            answer = self.store.client.get_object(
                self.store.address.bucket,
                self.store.key(self.name),
                offset=at,
                length=end - at,
                request_headers={"If-Match": f'"{etag}"'},
            )
            with answer:
                while at < end and (data := answer.read(min(CHUNK, end - at))):
                    at += _write(descriptor, data, at)
            if at < end:
                raise OSError("the answer ended early")

        self.store.ask(self.name, request)
        with self._lock:
            done.add(part.offset)
            of = [size, etag, self.store.settings.part_bytes]
            write_json(self.ledger, {"of": of, "done": sorted(done)})

    def _finish(self) -> None:
        found = file_digest(self.partial)
        if found == self.sha256:
            self.partial.replace(self.path)
        else:
            self.partial.unlink()
        self.ledger.unlink(missing_ok=True)
        if found != self.sha256:
            raise StorageError(
                f"{self.store.subject(self.name)}: SHA-256 is {found[:12]}, {self.sha256[:12]} was asked for"
            )


def _write(descriptor: int, data: bytes, offset: int) -> int:
    try:
        return os.pwrite(descriptor, data, offset)
    except OSError as error:
        raise _DiskFault(error) from error
