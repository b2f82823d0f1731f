"""Programs in, what came of them out: one JSON object a line, until the input ends.

A line is the fields of an `Execution` (`{"source": "print(1)", "stdin": "", "limits": {"cpu_seconds": 2}}`).
The answer is the fields of a `Result`. A line that cannot be read gets a result whose `error` says so.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from kascade.sandbox.programs import Sandbox
from kascade.sandbox.protocol import Execution, Limits, Result


def answer(sandbox: Sandbox, line: str) -> Result:
    """What came of the job on one line."""
    try:
        fields = json.loads(line)
        limits = Limits(**fields.pop("limits", {}))
        job = Execution(**{**fields, "calls": tuple(fields.get("calls", ())), "limits": limits})
    except (ValueError, TypeError, AttributeError) as error:
        return Result(error=f"not a job: {error}")
    (result,) = sandbox.run_many([job])
    return result


def main() -> None:
    with Sandbox(parallel=1) as sandbox:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(asdict(answer(sandbox, line))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
