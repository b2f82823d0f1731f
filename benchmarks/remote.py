"""An environment behind a server against the same grader in this process.

The server runs in threads of this process and grades with our own `mcqa`. So its CPU time counts too, and the
difference is what HTTP and sessions cost.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.measure import Measurement, compare
from kascade.environments import get_environment
from kascade.environments.rows.nemo_gym import response_text
from kascade.task import Task

AT_ONCE = (1, 16, 128)
WAITING = 256  # connections that may wait for the server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = WAITING


@contextmanager
def serving(tasks: dict[str, Task]) -> Iterator[str]:
    """A NeMo-Gym server of these tasks, by the text of their question. Yields its address."""
    grader = get_environment("mcqa")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say({"paths": {"/seed_session": {}, "/verify": {}}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/verify":
                task = tasks[body["responses_create_params"]["input"][0]["content"]]
                (grade,) = grader.grade(task, [response_text(body)])
                self._say({**body, "reward": grade.reward})
            else:
                self._say({})

        def _say(self, value: dict[str, Any]) -> None:
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            return

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run(quick: bool) -> list[Measurement]:
    count, rounds = (32, 1) if quick else (256, 5)
    local = get_environment("mcqa")
    posed = [local.pose(random.Random(seed), 1.0) for seed in range(count)]
    tasks = {task.messages[0]["content"]: task for task in posed}
    answers = [str(task.reference) for task in tasks.values()]
    near = [(task, [said]) for task, said in zip(tasks.values(), answers, strict=True)]
    with serving(tasks) as url:
        return [_measured(url, near, at_once, rounds) for at_once in AT_ONCE]


def _measured(url: str, near: list[tuple[Task, list[str]]], at_once: int, rounds: int) -> Measurement:
    options = {"url": url, "conversations": at_once, "domain": "knowledge", "style": "single"}
    remote = get_environment("nemo_gym").with_options(options)
    far = [
        (remote.from_row({"responses_create_params": {"input": list(task.messages)}}), said)
        for task, said in near
    ]
    local = get_environment("mcqa")
    assert _rewards(remote, far) == _rewards(local, near)
    own, other = compare(lambda: remote.grade_all(far), lambda: local.grade_all(near), rounds)
    name = f"environment in a server, conversations at once: {at_once}"
    return Measurement(name, len(far) / own, "answers / CPU s", len(near) / other, "the grader in-process")


def _rewards(environment: Any, groups: list[tuple[Task, list[str]]]) -> list[list[float]]:
    return [[grade.reward for grade in group] for group in environment.grade_all(groups)]
