"""An object as a file that is read from the store as one reads on; seeking costs a new request."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kascade.storage.s3.bucket import Bucket

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class S3File(io.RawIOBase):
    """Raises FileNotFoundError when opened on nothing, StorageError when the object changes meanwhile."""

    def __init__(self, store: Bucket, name: str) -> None:
        found = store.stat(name)
        self._store, self._name = store, name
        self._size, self._etag = int(found.size), found.etag
        self._at = 0
        self._answer: Any = None
        self.name = store.subject(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a file has no bytes before its first")
        if start + offset != self._at:
            self._hang_up()
        self._at = start + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._store.ask(self._name, self._reader(wanted))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _reader(self, wanted: int) -> Callable[[], bytes]:
        def request() -> bytes:
            try:
                if self._answer is None:
                    self._answer = self._ask()
                data: bytes = self._answer.read(wanted)
            except BaseException:
                self._hang_up()
                raise
            if not data:  # the answer ended before the file did
                self._hang_up()
                raise OSError("the answer ended early")
            return data

        return request

    def _ask(self) -> Any:
        return self._store.client.get_object(
            self._store.address.bucket,
            self._store.key(self._name),
            offset=self._at,
            length=0,  # to the end
            request_headers={"If-Match": f'"{self._etag}"'},
        )

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        self._hang_up()
        super().close()
