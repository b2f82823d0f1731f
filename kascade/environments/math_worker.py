"""A process of its own for math-verify: `python -m kascade.environments.math_worker`.

Memory is limited, since an answer may ask for a tower of powers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kascade.environments.line_worker import serve

MEMORY = 4 * 2**30  # bytes of address space


def comparison() -> Callable[[Any], dict[str, Any]]:
    """Answers {"expected", "given"} with {"equal"}, or {"error"} where math-verify cannot say."""
    from math_verify import (  # type: ignore[import-untyped]
        ExprExtractionConfig,
        LatexExtractionConfig,
        parse,
        verify,
    )

    logging.disable(logging.CRITICAL)
    latex, plain = LatexExtractionConfig(), ExprExtractionConfig()

    def equal(expected: str, given: str) -> bool:
        # The process's own limit keeps the time; the library would use signals of the wall clock.
        gold = parse(rf"\boxed{{{expected}}}", extraction_config=[latex], parsing_timeout=None)
        answer = parse(given, extraction_config=[plain, latex], parsing_timeout=None)
        return bool(gold and answer and verify(gold, answer, timeout_seconds=None))

    def answer(request: Any) -> dict[str, Any]:
        try:
            return {"equal": equal(request["expected"], request["given"])}
        except MemoryError:
            return {"error": "ran out of memory"}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    equal("1", r"\boxed{1}")  # what the library loads late is not the first answer's time
    return answer


if __name__ == "__main__":
    serve(comparison, memory_bytes=MEMORY)
