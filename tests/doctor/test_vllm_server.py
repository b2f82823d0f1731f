"""A recipe's vLLM server is looked at before a run: whether it answers, and how it was started."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kascade.doctor.sampling import vllm_server
from kascade.doctor.subject import Subject
from kascade.recipe.load import load_recipe

RIGHT = {
    "weight_transfer_config": {"backend": "nccl"},
    "model_config": {"logprobs_mode": "processed_logprobs", "dtype": "torch.bfloat16"},
}


class Told:
    """A server that says of itself what `config` holds."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = dict(RIGHT)
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"vllm_config": told.config}).encode()
                self.send_response(200 if self.path.startswith("/server_info") else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def told() -> Iterator[Told]:
    one = Told()
    yield one
    one.server.shutdown()
    one.server.server_close()


def found(served: str, *more: str) -> list[str]:
    setting = f"model.rollout={{engine: vllm, vllm: {{served: {served}}}}}"
    recipe = load_recipe("quickstart", [setting, *more])
    return [f"{fault.what} / {fault.allowed}" for fault in vllm_server(Subject(recipe))]


def test_a_server_that_was_started_as_it_must_be_passes(told: Told) -> None:
    assert found(f"{{url: '{told.url}'}}") == []
    assert found(f"{{url: '{told.url}'}}", "model.rollout.vllm.dtype=bfloat16") == []


def test_every_option_that_differs_is_said(told: Told) -> None:
    told.config = {
        "weight_transfer_config": None,
        "model_config": {"logprobs_mode": "raw_logprobs", "dtype": "x"},
    }
    assert found(f"{{url: '{told.url}/'}}", "model.rollout.vllm.dtype=float32") == [
        "--weight-transfer-config backend is None / nccl",
        "--logprobs-mode is 'raw_logprobs' / processed_logprobs",
        "--dtype is 'x' / float32",
    ]


def test_a_server_that_is_not_there_is_an_error() -> None:
    (what,) = found("{url: 'http://127.0.0.1:9'}")
    assert "does not answer" in what and "To do: read its log, start it" in what


def test_an_interpreter_that_is_not_there_is_an_error() -> None:
    assert found(f"{{python: '{sys.executable}'}}") == []
    (what,) = found("{python: /nowhere/bin/python}")
    assert what.startswith("/nowhere/bin/python is no program of this machine")
