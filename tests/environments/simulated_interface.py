"""An interface in the form of BFCL's classes: set up by `_load_scenario`, public attributes are its state."""

from __future__ import annotations

from typing import Any


class Drawers:
    """A cabinet of drawers with things in them."""

    def __init__(self) -> None:
        self.contents: dict[str, list[str]] = {}
        self.opened: str | None = None
        self._times_asked = 0

    def _load_scenario(self, scenario: dict[str, Any], long_context: bool = False) -> None:
        self.contents = scenario.get("contents", {})
        if long_context:
            self.contents["attic"] = ["dust"] * 1000

    def open(self, drawer: str) -> dict[str, Any]:
        """Open a drawer."""
        if drawer not in self.contents:
            return {"error": f"there is no drawer {drawer}"}
        self.opened = drawer
        return {"opened": drawer}

    def look(self) -> list[str]:
        """What is in the open drawer."""
        self._times_asked += 1
        return self.contents[self.opened or ""]

    def put(self, thing: str, count: int = 1) -> str:
        """Put a thing into the open drawer."""
        self.contents[self.opened or ""] += [thing] * count
        return f"{count} {thing}"

    def turn(self, times: int) -> str:
        """Turn the knob of the open drawer so many times."""
        for _ in range(times):
            self._times_asked += 1
        return f"turned {times} times"
