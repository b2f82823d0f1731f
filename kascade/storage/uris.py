"""Addresses of files and folders, and how to open one: a path or `file://`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from kascade.errors import KascadeError


def parse_uri(uri: str) -> Path:
    """Raises KascadeError for a scheme that nothing here opens."""
    if "://" not in uri:
        return Path(uri)
    scheme = uri.partition("://")[0]
    if scheme != "file":
        raise KascadeError(f"{scheme}:// is not an address to read from: give a path or file:///FOLDER")
    return Path(unquote(urlsplit(uri).path))


def open_uri(uri: str | Path) -> BinaryIO:
    """A read-only, seekable binary file. Raises FileNotFoundError when there is none, else KascadeError."""
    return parse_uri(str(uri)).open("rb")
