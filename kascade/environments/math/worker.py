"""A process of its own for math-verify: `python -m kascade.environments.math.worker`.

Memory is limited, since an answer may ask for a tower of powers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from kascade.environments.math.exact import same
from kascade.environments.math.forms import conflict
from kascade.sandbox.line_worker import serve

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

    def equal(expected: str, given: str, *, boxed: bool = True, depth: int = 0) -> bool:
        # The process's own limit keeps the time; the library would use signals of the wall clock.
        said = rf"\boxed{{{given}}}" if boxed else given
        gold = parse(rf"\boxed{{{expected}}}", extraction_config=[latex], parsing_timeout=None)
        answer = parse(said, extraction_config=[plain, latex], parsing_timeout=None)
        if not (gold and answer and verify(gold, answer, timeout_seconds=None)):
            return False
        if not same(gold[0], answer[0]):
            return False
        return not boxed or depth > 1 or not conflict(expected, given, partial(equal, depth=depth + 1))

    def answer(request: Any) -> dict[str, Any]:
        try:
            return {"equal": equal(request["expected"], request["given"], boxed=request["boxed"])}
        except MemoryError:
            return {"error": "ran out of memory"}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    equal("(1, 2)", r"1, \sqrt{4}")  # what the library loads late is not the first answer's time
    return answer


if __name__ == "__main__":
    serve(comparison, memory_bytes=MEMORY)
