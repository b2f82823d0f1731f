"""Serve an installed taskset by verifiers' own server: `python serve_verifiers.py TASKSET PORT [CONFIG]`.

`python serve_verifiers.py TASKSET rows [CONFIG]` prints its tasks instead, a line each. Runs in the
environment that holds `verifiers` and the taskset's package. CONFIG: fields of the environment's own
configuration as JSON, such as `agent` (its harness and runtime) and `taskset`.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any


def main(name: str, what: str, given: dict[str, Any]) -> None:
    """Serve until ended, or print rows."""
    from verifiers.v1.serve import serve_env
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    config = resolve_env_config({**given, "taskset": {**given.get("taskset", {}), "id": name}})
    if what == "rows":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # some tasksets end when nobody reads on
        for task in load_environment(config).taskset:
            sys.stdout.write(json.dumps(task.data.model_dump(mode="json", exclude_none=True)) + "\n")
        return
    serve_env(config=config, max_workers=1, address=f"tcp://127.0.0.1:{int(what)}")


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, where a file is called like the package
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
