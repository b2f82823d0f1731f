"""How long a server asks to be left alone: the header Retry-After, as seconds or as a date."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

LONGEST_DIGITS = 12  # of a number of seconds: one that is longer is no time that anybody means


def seconds_to_wait(header: str | None) -> float | None:
    """Seconds from now; None where there is no header, or it cannot be read."""
    said = (header or "").strip()
    if said.isascii() and said.isdigit():
        return float(said) if len(said) <= LONGEST_DIGITS else None
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
