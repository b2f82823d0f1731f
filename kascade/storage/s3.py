"""A bucket, or a prefix in one, as a `Store`: parts in parallel, cut transfers continued, one winner."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from kascade.errors import StorageError
from kascade.storage.s3_client import ConnectionCut, S3Settings, connect, patiently, translated
from kascade.storage.s3_download import Download
from kascade.storage.s3_file import S3File
from kascade.storage.s3_upload import upload
from kascade.storage.store import Entry, Unfinished
from kascade.storage.uris import S3Address

READ_AHEAD = 2**20  # bytes that a buffered reader asks for at a time
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class S3Store:
    """Objects under `address`; names are relative to it."""

    address: S3Address
    settings: S3Settings = field(default_factory=S3Settings.from_environment)

    @property
    def uri(self) -> str:
        return str(self.address)

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

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(S3File(self, name), READ_AHEAD)

    def create(self, name: str, data: bytes) -> bool:
        """As `Store.create`, by `If-None-Match: *`.

        A store that does not know the condition lets everybody write; what is read back afterwards then
        tells all but the last that they lost. It tells, too, that a write whose answer got lost was ours.
        """
        from minio.error import S3Error

        def put() -> None:
            try:
                self.client._put_object(  # the client has no public conditional write
                    self.address.bucket, self.key(name), data, {"If-None-Match": "*"}
                )
            except S3Error as error:
                if error.code == "ConditionalRequestConflict":  # another write is under way
                    raise OSError("conflict") from error
                if error.code != "PreconditionFailed":
                    raise

        if self.exists(name):
            return self.read(name) == data
        self.ask(name, put)
        return self.read(name) == data

    def exists(self, name: str) -> bool:
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def stat(self, name: str) -> Any:
        """The client's description of an object (size, etag, metadata). Raises FileNotFoundError."""
        return self.ask(name, lambda: self.client.stat_object(self.address.bucket, self.key(name)))

    def upload(self, path: Path, name: str) -> None:
        upload(self, path, name)

    def download(self, name: str, path: Path, sha256: str) -> None:
        Download(self, name, path, sha256).run()

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        def request() -> list[Entry]:
            found = self.client.list_objects(
                self.address.bucket, prefix=self.key(prefix), recursive=True, use_url_encoding_type=True
            )
            return [Entry(self._name(one.object_name), one.size, one.last_modified) for one in found]

        return iter(self.ask(prefix, request))

    def _name(self, key: str) -> str:
        return key[len(self.address.key) + 1 :] if self.address.key else key

    def delete(self, name: str) -> None:
        self.ask(name, lambda: self.client.remove_object(self.address.bucket, self.key(name)))

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """Oldest first, as the store lists them for one name."""

        def request() -> list[Unfinished]:
            answer = self.client._list_multipart_uploads(self.address.bucket, prefix=self.key(prefix))
            return [
                Unfinished(self._name(one.object_name), one.upload_id, one.initiated_time)
                for one in answer.uploads
            ]

        try:
            return iter(self.ask(prefix, request))
        except FileNotFoundError:  # rclone's answer when there are none
            return iter(())

    def give_up(self, upload: Unfinished) -> None:
        def request() -> None:
            self.client._abort_multipart_upload(self.address.bucket, self.key(upload.name), upload.upload_id)

        try:
            self.ask(upload.name, request)
        except FileNotFoundError:
            return  # somebody has finished it, or given it up
