"""A Kubernetes API server in a few lines: custom resources, pods, logs, and what it says of itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

Answer = tuple[int, Any]
KNOWN = ("/apis/trainer.kubeflow.org/v1alpha1", "/apis/ray.io/v1")


class StubApi:
    """Keeps custom resources by path; a test moves their status on, as an operator would.

    on_get: called with a resource before it is returned, and with how often it was asked for.
    outages: how many coming requests are answered with 503.
    """

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.description: dict[str, Any] = {}
        self.requests: list[tuple[str, str]] = []
        self.on_get: Callable[[dict[str, Any], int], None] = lambda resource, times: None
        self.outages = 0
        self._gets = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def client(self) -> Any:
        from kubernetes.client import ApiClient, Configuration

        configuration = Configuration()
        configuration.host = self.url
        configuration.retries = False
        return ApiClient(configuration)

    def only(self) -> dict[str, Any]:
        (resource,) = self.resources.values()
        return resource

    def verbs(self) -> list[str]:
        """What was done to custom resources, without the polling."""
        return [
            verb
            for verb, path in self.requests
            if "/namespaces/" in path and "/apis/" in path and verb != "GET"
        ]

    def answer(self, verb: str, path: str, query: dict[str, list[str]], body: Any) -> Answer:
        self.requests.append((verb, path))
        if self.outages > 0:
            self.outages -= 1
            return 503, {"message": "busy"}
        if path.startswith("/openapi/v3/apis/"):
            found = self.description.get(path.removeprefix("/openapi/v3/apis/"))
            return (200, found) if found else (404, {})
        if path in KNOWN or path.endswith("/selfsubjectaccessreviews"):
            return 200, {**(body or {}), "status": {"allowed": True}}
        if path.endswith("/log"):
            return 200, self.logs[path.split("/")[-2]]
        if path.endswith("/pods"):
            key, _, value = query["labelSelector"][0].partition("=")
            return 200, {"items": [p for p in self.pods if p["metadata"]["labels"].get(key) == value]}
        return self._custom(verb, path, body)

    def _custom(self, verb: str, path: str, body: Any) -> Answer:
        if verb == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.resources:
                return 409, {"reason": "AlreadyExists"}
            self.resources[path] = body
            return 201, body
        if path not in self.resources:
            return 404, {"reason": "NotFound"}
        resource = self.resources[path]
        if verb == "DELETE":
            del self.resources[path]
        elif verb == "PATCH":
            resource["metadata"].update(body["metadata"])
        else:
            self._gets += 1
            self.on_get(resource, self._gets)
        return 200, resource

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _go(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                url = urlparse(self.path)
                code, content = stub.answer(self.command, url.path, parse_qs(url.query), body)
                data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(code)
                kind = "text/plain" if isinstance(content, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PATCH = _go  # noqa: N815 (http.server's names)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
