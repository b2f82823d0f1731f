"""What was checked lately: a file's size and times stand for its digest until one of them changes.

So a run that is continued looks at every weight it has without reading gigabytes. A file that was written
moments before it was checked is not remembered: its times could not distinguish another write. What changes
without a write (a failing disk) is found by the deep check only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from kascade.storage.files import file_digest, read_json, write_json

SETTLED_S = 2.0  # file systems distinguish times that far at the latest


@dataclass(slots=True)
class Stamps:
    """Digests by file, kept at `path`. deep: read every file, whatever is known."""

    path: Path
    deep: bool = False
    _known: dict[str, list[object]] = field(default_factory=dict)
    _seen: dict[str, list[object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            found = read_json(self.path)
            self._known = found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, in hex. Raises OSError."""
        found = path.stat()
        stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        known = self._known.get(str(path))
        if not self.deep and isinstance(known, list) and known[:-1] == stamp:
            digest = str(known[-1])
        else:
            digest = file_digest(path)
        if time.time() - max(found.st_mtime, found.st_ctime) > SETTLED_S:
            self._seen[str(path)] = [*stamp, digest]
        return digest

    def save(self) -> None:
        if self._seen != self._known:
            write_json(self.path, self._seen)
