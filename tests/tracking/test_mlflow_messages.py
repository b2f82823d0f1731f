"""Whatever is behind an MLflow address: the message names the address, what was found and what to do.

No library's exception, page or address of a password gets through.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from kascade.tracking.mlflow_server import TrackingError, connect

pytest.importorskip("mlflow")
LONGEST = 700  # characters of a message: a page of HTML is not shown


class Answers(BaseHTTPRequestHandler):
    """Answers every request with the status and text that its path's first part names."""

    said: ClassVar = {
        "page": (200, "<html><body>" + "Welcome! " * 2000 + "</body></html>"),
        "missing": (404, "<h1>404 Not Found</h1>" + "x" * 5000),
        "list": (200, "[]"),
        "word": (200, '"hello"'),
        "denied": (401, "who are you?"),
        "forbidden": (403, '{"error_code": "PERMISSION_DENIED", "message": "not you"}'),
        "broken": (500, "Traceback (most recent call last):\n" + "  File x\n" * 500),
        "binary": (200, "\x00\x01\x02"),
    }

    def do_GET(self) -> None:
        status, text = self.said[self.path.split("/")[1]]
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def refused(uri: str) -> str:
    with pytest.raises(TrackingError) as caught, connect(uri) as client:
        client.get_experiment_by_name("kascade")
    text = str(caught.value)
    assert "to do:" in text.lower() and len(text) <= LONGEST, text
    assert "Traceback" not in text and "\n" not in text
    return text


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.parametrize("kind", Answers.said)
def test_a_server_that_is_no_mlflow_is_named_with_what_to_do(server: str, kind: str) -> None:
    assert f"{server}/{kind}" in refused(f"{server}/{kind}")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


def another_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('no revision of ours')")


@pytest.mark.parametrize("make", [a_folder, a_text, another_database])
def test_a_file_that_is_no_database_is_named_with_what_to_do(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "mlflow.db")
    assert "mlflow.db" in refused(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:1"),
        ("http://me:s3cr3t@127.0.0.1:1", "127.0.0.1:1"),
        ("postgresql://me:s3cr3t@127.0.0.1:1/runs", "127.0.0.1:1"),
        ("mysql://me:s3cr3t@127.0.0.1:1/runs", "127.0.0.1:1"),
        ("mssql+pyodbc://me:s3cr3t@127.0.0.1:1/runs", "127.0.0.1:1"),
        ("sqlite:////proc/nowhere/mlflow.db", "nowhere"),
    ],
)
def test_what_does_not_answer_is_named_without_its_password(uri: str, shown: str) -> None:
    text = refused(uri)
    assert shown in text and "s3cr3t" not in text
