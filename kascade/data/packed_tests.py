"""Test cases as LiveCodeBench packs its private ones: JSON text, pickled, compressed by zlib, in base64."""

from __future__ import annotations

import base64
import json
import pickletools
import zlib
from typing import Any

LARGEST = 256 * 2**20  # bytes of one problem's tests; a small text may unpack to any size
TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
AROUND = ("PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP")  # what stands about a text


def unpacked(packed: str, where: str) -> Any:
    """The tests in a packed text. Raises ValueError naming `where`."""
    try:
        stream = zlib.decompressobj()
        pickled = stream.decompress(base64.b64decode(packed), LARGEST)
        if stream.unconsumed_tail:
            raise ValueError(f"more than {LARGEST:,} bytes")
        return json.loads(_only_text(pickled))
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError(f"{where}: cannot be unpacked: {error}") from None


def _only_text(pickled: bytes) -> str:
    """The one text that a pickle holds. It is read off and not unpickled, so that it can run nothing."""
    found = [(code.name, value) for code, value, _ in pickletools.genops(pickled)]
    texts = [value for name, value in found if name in TEXTS]
    if len(texts) != 1 or any(name not in (*TEXTS, *AROUND) for name, _ in found):
        raise ValueError("holds something other than one text")
    return str(texts[0])
