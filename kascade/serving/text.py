"""Tokens as text while they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

UNFINISHED = "\ufffd"  # what decoding puts where bytes of a character are missing


@dataclass(slots=True)
class Detokenizer:
    """Decodes tokens one by one. A character whose bytes have not all come yet waits for them.

    decode: text of tokens. end_ids: tokens that end an answer and are no text.
    """

    decode: Callable[[Sequence[int]], str]
    end_ids: frozenset[int]
    _ids: list[int] = field(default_factory=list)
    _context: int = 0  # where the tokens begin that the next text is decoded with
    _told: int = 0  # tokens whose text was given

    def add(self, token: int) -> str:
        """The text that is certain now."""
        if token in self.end_ids:
            return self.finish()
        self._ids.append(token)
        text = self._new()
        return "" if text.endswith(UNFINISHED) else self._give(text)

    def finish(self) -> str:
        """What is left."""
        return self._give(self._new())

    def _new(self) -> str:
        """Text of the tokens not given yet: decoded beside their forerunners, since spaces depend on them."""
        before = self.decode(self._ids[self._context : self._told])
        return self.decode(self._ids[self._context :])[len(before) :]

    def _give(self, text: str) -> str:
        self._context, self._told = self._told, len(self._ids)
        return text
