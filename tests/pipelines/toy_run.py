"""The folder of a run of toy steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class ToyRun:
    """The folder of a run of toy steps."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def script(self, **script: Any) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "script.json").write_text(json.dumps(script), encoding="utf-8")

    def calls(self) -> list[dict[str, str]]:
        path = self.root / "calls.jsonl"
        return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []

    def steps(self) -> list[str]:
        return [call["step"] for call in self.calls()]

    def call(self, step: str) -> dict[str, str]:
        return next(call for call in self.calls() if call["step"] == step)
