"""A process of its own for math-verify: `python -m kascade.environments.math_worker`.

It reads one JSON request a line and answers one a line. A parent that tires of waiting kills it; memory is
limited, since an answer may ask for a tower of powers.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space


def main() -> None:
    """Serve until the parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    logging.disable(logging.CRITICAL)
    equal = _comparison()
    print("{}", file=answers, flush=True)  # loaded
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {"equal": equal(request["expected"], request["given"])}
        except MemoryError:
            answer = {"error": "math-verify ran out of memory"}
        except Exception as error:
            answer = {"error": f"math-verify: {type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _comparison() -> Any:
    from math_verify import (  # type: ignore[import-untyped]
        ExprExtractionConfig,
        LatexExtractionConfig,
        parse,
        verify,
    )

    latex, plain = LatexExtractionConfig(), ExprExtractionConfig()

    def equal(expected: str, given: str) -> bool:
        # The parent keeps the time; the library would use signals, which work in the main thread only.
        gold = parse(rf"\boxed{{{expected}}}", extraction_config=[latex], parsing_timeout=None)
        answer = parse(given, extraction_config=[plain, latex], parsing_timeout=None)
        return bool(gold and answer and verify(gold, answer, timeout_seconds=None))

    return equal


if __name__ == "__main__":
    main()
