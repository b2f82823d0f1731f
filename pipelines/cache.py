"""The local runner's cache of finished tasks, which is what makes the same command resume."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from kascade.storage.checkpoint import is_there
from kascade.storage.files import read_json

log = logging.getLogger(__name__)


def drop_vanished(cache: Path) -> list[Path]:
    """Forget the tasks whose checkpoint is no longer there, so that they run again. Returns what was dropped.

    Looks at manifests and files' presence; contents are checked where weights are loaded.
    """
    dropped = [entry for entry in sorted(cache.glob("*.json")) if not _holds(entry)]
    for entry in dropped:
        log.warning("the result of a finished task has vanished; it will run again (%s)", entry.name)
        entry.unlink()
    return dropped


def _holds(entry: Path) -> bool:
    try:
        outputs: dict[str, Any] = read_json(entry)
    except json.JSONDecodeError:
        return False
    references = [value for value in outputs.values() if isinstance(value, str) and "@sha256:" in value]
    return all(map(is_there, references))
