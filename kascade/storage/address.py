"""Addresses of files and checkpoints: what they look like, and nothing that opens them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kascade.errors import StorageError, holds_secret

SCHEMES = "a path, file:///FOLDER or s3://BUCKET/KEY"
WEB = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # with a driver, too: postgresql+psycopg2
TRACKING = (*WEB, *DATABASES, "file", "databricks", "databricks-uc", "uc")  # whom MLflow can ask
SECRET = "holds a user name, password or key"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # S3's rule for names of buckets
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class S3Address:
    """An object, or the common beginning of several. key is empty for a whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")


def is_remote(uri: str) -> bool:
    """Whether what `uri` names is in a bucket rather than in a file system."""
    return uri.startswith("s3://")


def address_problem(address: str, schemes: Collection[str]) -> str | None:
    """What is wrong with an address that somebody gave; None when nothing is. Never repeats the address.

    schemes: those that will do. This is the one place that reads addresses: no other may take them.
    """
    if holds_secret(address):
        return SECRET
    if _UNPRINTABLE.search(address):
        return "holds a blank or a control character"
    scheme, separator, rest = address.partition("://")
    if not separator or scheme.partition("+")[0] not in schemes:
        return "is no address that will do here"
    if scheme in WEB:
        return _host_problem(address)
    fits, problem = {
        "s3": (_BUCKET.fullmatch(rest.partition("/")[0]), "names no bucket"),
        "file": (rest.startswith("/"), "is not a whole path: file:/// and the folder from the root"),
        "sqlite": (len(rest) > 1 and rest.startswith("/"), "names no file: sqlite:////FOLDER/FILE"),
    }.get(scheme, (True, ""))
    return None if fits else problem


def _host_problem(address: str) -> str | None:
    try:
        split = urlsplit(address)
        if split.fragment:
            return "holds a fragment (#), which no request would use"
        return None if split.hostname and split.port != 0 else "names no host"
    except ValueError:
        return "has no number for a port"


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
    if "@" in bucket or ":" in bucket or holds_secret(uri):  # nothing of it may be repeated in a message
        raise StorageError("an s3:// address may not hold keys: give them by environment or credentials file")
    if not _BUCKET.fullmatch(bucket):
        what = "3 to 63 lower-case letters, digits, dots and hyphens"
        raise StorageError(f"{uri} names no bucket: give s3://BUCKET/KEY, BUCKET being {what}")
    return S3Address(bucket, key.strip("/"))


def join_uri(uri: str, name: str) -> str:
    return f"{uri.rstrip('/')}/{name}"
