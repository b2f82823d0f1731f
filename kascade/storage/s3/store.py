"""A bucket, or a prefix in one, as a `Store`: parts in parallel, cut transfers continued, one winner."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kascade.storage.s3.bucket import Bucket
from kascade.storage.s3.download import Download
from kascade.storage.s3.file import S3File
from kascade.storage.s3.upload import upload
from kascade.storage.store import Entry, Unfinished

READ_AHEAD = 2**20  # bytes that a buffered reader asks for at a time


@dataclass(frozen=True)
class S3Store(Bucket):
    """A bucket as a `Store`."""

    @property
    def uri(self) -> str:
        return str(self.address)

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

    def upload(self, path: Path, name: str) -> None:
        upload(self, path, name)

    def download(self, name: str, path: Path, sha256: str) -> None:
        Download(self, name, path, sha256).run()

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        def request() -> list[Entry]:
            found = self.client.list_objects(
                self.address.bucket, prefix=self.key(prefix), recursive=True, use_url_encoding_type=True
            )
            return [Entry(self.name_of(one.object_name), one.size, one.last_modified) for one in found]

        return iter(self.ask(prefix, request))

    def delete(self, name: str) -> None:
        self.ask(name, lambda: self.client.remove_object(self.address.bucket, self.key(name)))

    def give_up(self, upload: Unfinished) -> None:
        def request() -> None:
            self.client._abort_multipart_upload(self.address.bucket, self.key(upload.name), upload.upload_id)

        try:
            self.ask(upload.name, request)
        except FileNotFoundError:
            return  # somebody has finished it, or given it up
