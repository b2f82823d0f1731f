"""Kubeflow's REST API (v2beta1) in a thread: what the real client asks of it, answered as the server does.

Sources: backend/api/v2beta1/*.proto of kubeflow/pipelines; ids, paging, filters by display_name, bearer
tokens, gRPC errors as JSON, versions by time of creation, runs of the newest version where none is named.
"""

from __future__ import annotations

import email
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]
PAGE = 2  # small, so that every list has pages
CRON_FIELDS = 6


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Kubeflow:
    """The server's state. token: the one it takes; calls: (method, path) of every request.

    fail: statuses of the next answers; next_story: what happens to runs that are created, look by look.
    logs: of pods, by name.
    """

    token: str = "a-token"
    pipelines: list[Json] = field(default_factory=list)
    versions: list[Json] = field(default_factory=list)
    experiments: list[Json] = field(default_factory=list)
    runs: list[Json] = field(default_factory=list)
    recurring: list[Json] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)
    next_story: list[Json] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    ticks: int = 0

    def now(self) -> str:
        self.ticks += 1
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.ticks)
        return moment.isoformat().replace("+00:00", "Z")

    def answer(self, method: str, path: str, query: Json, body: bytes, headers: Any) -> Any:
        self.calls.append((method, path))
        if self.fail:
            raise Refused(self.fail.pop(0), "try later")
        if headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request not authenticated")
        route = path.removeprefix("/apis/v2beta1")
        for pattern, handler in ROUTES:
            verb, _, shape = pattern.partition(" ")
            if verb == method and (match := re.fullmatch(shape, route)):
                return handler(self, *match.groups(), query=query, body=body, headers=headers)
        raise Refused(404, f"no such route: {method} {route}")

    def one(self, items: list[Json], key: str, value: str) -> Json:
        for item in items:
            if item[key] == value:
                return item
        raise Refused(404, f"{key} {value} not found.")

    def page(self, items: list[Json], name: str, query: Json) -> Json:
        """Filtered by equality, cut to pages."""
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
            assert predicate["operation"] in ("EQUALS", 1)  # a name or a number of the enumeration
            items = [one for one in items if one.get(predicate["key"]) == predicate["stringValue"]]
        if namespace := query.get("namespace"):
            items = [one for one in items if one.get("namespace", namespace) == namespace]
        start = int(query.get("page_token") or 0)
        size = min(int(query.get("page_size") or PAGE), PAGE)
        more = start + size < len(items)
        return {name: items[start : start + size], "next_page_token": str(start + size) if more else ""}

    # handlers

    def healthz(self, **_: Any) -> Json:
        return {"multi_user": False}

    def list_experiments(self, query: Json, **_: Any) -> Json:
        return self.page(self.experiments, "experiments", query)

    def create_experiment(self, body: bytes, **_: Any) -> Json:
        return self._add(self.experiments, "experiment_id", json.loads(body))

    def list_pipelines(self, query: Json, **_: Any) -> Json:
        return self.page(self.pipelines, "pipelines", query)

    def create_pipeline(self, body: bytes, **_: Any) -> Json:
        wanted = json.loads(body)
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", wanted["name"]):
            raise Refused(400, f"Invalid input error: the pipeline name {wanted['name']!r} is invalid")
        if any(one["name"] == wanted["name"] for one in self.pipelines):
            raise Refused(409, "The name already exists")
        return self._add(self.pipelines, "pipeline_id", wanted)

    def list_versions(self, pipeline_id: str, query: Json, **_: Any) -> Json:
        own = [one for one in self.versions if one["pipeline_id"] == pipeline_id]
        return self.page(own, "pipeline_versions", query)

    def upload_version(self, query: Json, body: bytes, headers: Any, **_: Any) -> Json:
        self.one(self.pipelines, "pipeline_id", query["pipelineid"])
        message = email.message_from_bytes(
            b"Content-Type: " + headers["content-type"].encode() + b"\n\n" + body
        )
        (part,) = message.get_payload()
        spec = next(yaml.safe_load_all(part.get_payload(decode=True)))
        if "deploymentSpec" not in spec:
            raise Refused(400, "Invalid pipeline spec")
        if any(one["display_name"] == query["name"] for one in self.versions):
            raise Refused(409, "The name already exists")
        version = {"display_name": query["name"], "pipeline_id": query["pipelineid"], "pipeline_spec": spec}
        return self._add(self.versions, "pipeline_version_id", version)

    def newest(self, pipeline_id: str) -> Json:
        own = [one for one in self.versions if one["pipeline_id"] == pipeline_id]
        return max(own, key=lambda one: one["created_at"])

    def create_run(self, body: bytes, **_: Any) -> Json:
        wanted = json.loads(body)
        reference = wanted["pipeline_version_reference"]
        version = self.one(self.versions, "pipeline_version_id", reference["pipeline_version_id"])
        known = version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        if extra := set(wanted["runtime_config"].get("parameters", {})) - set(known):
            raise Refused(400, f"unknown parameters {sorted(extra)}")
        made = {**wanted, "state": "PENDING", "story": list(self.next_story)}
        return {key: value for key, value in self._add(self.runs, "run_id", made).items() if key != "story"}

    def get_run(self, run_id: str, **_: Any) -> Json:
        run = self.one(self.runs, "run_id", run_id)
        story: list[Json] = run.pop("story", [])
        if story:
            run.update(story.pop(0))
            run["story"] = story
        return {key: value for key, value in run.items() if key != "story"}

    def read_log(self, run_id: str, pod: str, **_: Any) -> str:
        if pod not in self.logs:
            raise Refused(404, f"no log of {pod} in {run_id}")
        return self.logs[pod]

    def list_recurring(self, query: Json, **_: Any) -> Json:
        return self.page(self.recurring, "recurringRuns", query)

    def create_recurring(self, body: bytes, **_: Any) -> Json:
        wanted = json.loads(body)
        if len(wanted["trigger"]["cron_schedule"]["cron"].split()) != CRON_FIELDS:
            raise Refused(400, "Invalid cron expression")
        status = "ENABLED" if wanted["mode"] == "ENABLE" else "DISABLED"
        return self._add(self.recurring, "recurring_run_id", {**wanted, "status": status})

    def disable_recurring(self, name: str, **_: Any) -> Json:
        self.one(self.recurring, "recurring_run_id", name).update(mode="DISABLE", status="DISABLED")
        return {}

    def delete_recurring(self, name: str, **_: Any) -> Json:
        found = self.one(self.recurring, "recurring_run_id", name)
        assert found["status"] == "DISABLED", "it might have fired meanwhile"
        self.recurring.remove(found)
        return {}

    def _add(self, items: list[Json], key: str, value: Json) -> Json:
        made = {**value, key: str(uuid.uuid4()), "created_at": self.now()}
        items.append(made)
        return made


ROUTES = (
    ("GET /healthz", Kubeflow.healthz),
    ("GET /experiments", Kubeflow.list_experiments),
    ("POST /experiments", Kubeflow.create_experiment),
    ("GET /pipelines", Kubeflow.list_pipelines),
    ("POST /pipelines", Kubeflow.create_pipeline),
    ("POST /pipelines/upload_version", Kubeflow.upload_version),
    ("GET /pipelines/([^/]+)/versions", Kubeflow.list_versions),
    ("POST /runs", Kubeflow.create_run),
    ("GET /runs/([^/:]+)", Kubeflow.get_run),
    ("GET /apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", Kubeflow.read_log),
    ("GET /recurringruns", Kubeflow.list_recurring),
    ("POST /recurringruns", Kubeflow.create_recurring),
    ("POST /recurringruns/([^/:]+):disable", Kubeflow.disable_recurring),
    ("DELETE /recurringruns/([^/:]+)", Kubeflow.delete_recurring),
)


@contextmanager
def serving(kubeflow: Kubeflow) -> Iterator[str]:
    """The stub's address while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                status, found = 200, kubeflow.answer(self.command, address.path, query, body, self.headers)
            except Refused as error:
                status, found = error.status, {"error": str(error), "code": 5, "message": str(error)}
            data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
