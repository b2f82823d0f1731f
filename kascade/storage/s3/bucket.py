"""A bucket, or a prefix in one, as what its transfers ask: names, requests and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from kascade.errors import StorageError
from kascade.storage.address import S3Address
from kascade.storage.s3.client import ConnectionCut, S3Settings, connect, patiently, translated
from kascade.storage.store import Unfinished

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Bucket:
    """Objects under `address`. Names are relative to it."""

    address: S3Address
    settings: S3Settings = field(default_factory=S3Settings.from_environment)

    @cached_property
    def client(self) -> Any:
        return connect(self.settings)

    def key(self, name: str) -> str:
        return f"{self.address.key}/{name}" if self.address.key else name

    def subject(self, name: str) -> str:
        """What messages call an object."""
        return f"s3://{self.address.bucket}/{self.key(name)}"

    def ask(self, name: str, request: Callable[[], Answer]) -> Answer:
        """A request about `name`, tried again while the connection is cut. Raises StorageError."""

        def once() -> Answer:
            with translated(self.subject(name)):
                return request()

        try:
            return patiently(self.settings.attempts, once)
        except ConnectionCut as error:
            tries = f"{self.settings.attempts} times at {self.settings.endpoint}"
            raise StorageError(f"{error}, {tries}") from error

    def read(self, name: str) -> bytes:
        def request() -> bytes:
            answer = self.client.get_object(self.address.bucket, self.key(name))
            try:
                data: bytes = answer.data
            finally:
                answer.close()
            return data

        return self.ask(name, request)

    def stat(self, name: str) -> Any:
        """The client's description of an object (size, etag, metadata). Raises FileNotFoundError."""
        return self.ask(name, lambda: self.client.stat_object(self.address.bucket, self.key(name)))

    def name_of(self, key: str) -> str:
        return key[len(self.address.key) + 1 :] if self.address.key else key

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """Oldest first, as the store lists them for one name."""

        def request() -> list[Unfinished]:
            answer = self.client._list_multipart_uploads(self.address.bucket, prefix=self.key(prefix))
            return [
                Unfinished(self.name_of(one.object_name), one.upload_id, one.initiated_time)
                for one in answer.uploads
            ]

        try:
            return iter(self.ask(prefix, request))
        except FileNotFoundError:  # rclone's answer when there are none
            return iter(())
