"""The store in a bucket, against moto with signatures on: whole files or none, whatever breaks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.s3_servers import CuttingProxy, Server, free_port

from kascade.errors import StorageError, UserError
from kascade.storage import s3_client
from kascade.storage.address import S3Address
from kascade.storage.s3.client import MIB, S3Settings
from kascade.storage.s3.store import S3Store
from kascade.storage.uris import open_store, open_uri

SIZE = 12 * MIB + 4321  # two whole parts and a piece


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(SIZE))
    return path


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def store(prefix: str) -> S3Store:
    return S3Store(S3Address("models", prefix))


def test_what_is_uploaded_comes_back(s3: Server, weights: Path, tmp_path: Path) -> None:
    root = store("whole")
    root.upload(weights, "a/model.safetensors")
    root.download("a/model.safetensors", tmp_path / "back", sha(weights))
    assert (tmp_path / "back").read_bytes() == weights.read_bytes()
    assert [(one.name, one.size) for one in root.entries()] == [("a/model.safetensors", SIZE)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "model.safetensors"]
    root.delete("a/model.safetensors")
    root.delete("a/model.safetensors")
    assert list(root.entries()) == []
    with pytest.raises(FileNotFoundError):
        root.read("a/model.safetensors")


def test_an_object_reads_like_a_file(s3: Server, weights: Path) -> None:
    store("file").upload(weights, "rows")
    data = weights.read_bytes()
    with open_uri("s3://models/file/rows") as file:
        assert file.read(10) == data[:10]
        assert file.seek(-7, os.SEEK_END) == SIZE - 7
        assert file.read() == data[-7:]
        file.seek(5 * MIB + 1)
        assert file.read(3 * MIB) == data[5 * MIB + 1 : 8 * MIB + 1]
    with pytest.raises(FileNotFoundError):
        open_uri("s3://models/file/nothing")


def test_a_file_that_is_there_is_not_sent_again(
    s3: Server, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CuttingProxy(s3.port, lambda connection, passed: False) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        store("twice").upload(weights, "w")
        before = wire.sent
        store("twice").upload(weights, "w")
        assert wire.sent - before < MIB < before
        weights.write_bytes(os.urandom(SIZE))  # other contents of the same size
        store("twice").upload(weights, "w")
        assert wire.sent > 2 * SIZE


def test_cut_connections_cost_time_only(
    s3: Server, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CuttingProxy(s3.port, lambda connection, passed: connection <= 6 and passed > 2 * MIB) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        store("cut").upload(weights, "w")
        assert wire.cuts >= 2
    with CuttingProxy(s3.port, lambda connection, passed: connection <= 6 and passed > 2 * MIB) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        store("cut").download("w", tmp_path / "back", sha(weights))
        assert wire.cuts >= 2
        with open_uri("s3://models/cut/w") as file:
            assert file.read() == weights.read_bytes()


def test_a_cut_download_is_continued(
    s3: Server, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store("continued").upload(weights, "w")
    monkeypatch.setenv("KASCADE_S3_ATTEMPTS", "1")
    monkeypatch.setenv("KASCADE_S3_PARALLEL", "1")
    received: dict[int, int] = {}
    budget = [7 * MIB]

    def cut(connection: int, passed: int) -> bool:
        received[connection] = passed
        return sum(received.values()) > budget[0]

    with CuttingProxy(s3.port, cut) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        with pytest.raises(StorageError, match="the connection broke"):
            store("continued").download("w", tmp_path / "back", sha(weights))
        assert not (tmp_path / "back").exists()
        received.clear()
        budget[0] = 8 * MIB  # of 12 MiB: the first part of 5 is here
        store("continued").download("w", tmp_path / "back", sha(weights))
    assert sha(tmp_path / "back") == sha(weights)


def test_other_contents_than_asked_for_are_refused(s3: Server, weights: Path, tmp_path: Path) -> None:
    store("other").upload(weights, "w")
    with pytest.raises(StorageError, match="SHA-256"):
        store("other").download("w", tmp_path / "back", "0" * 64)
    assert not list(tmp_path.glob("*back*"))


UPLOADER = """
import sys
from pathlib import Path
from kascade.storage.uris import open_store
open_store("s3://models/killed").upload(Path(sys.argv[1]), "w")
"""


def test_parts_of_a_killed_writer_are_used(
    s3: Server, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at = 8 * MIB
    held = []

    def stall(connection: int, passed: int) -> bool:
        while passed > stop_at and not held:
            time.sleep(0.05)
        return False

    with CuttingProxy(s3.port, stall) as wire:
        environment = {**os.environ, **s3.environment(wire.port), "KASCADE_S3_PARALLEL": "1"}
        writer = subprocess.Popen([sys.executable, "-c", UPLOADER, str(weights)], env=environment)
        wait_for(lambda: wire.sent > stop_at)
        writer.kill()
        writer.wait()
        held.append(True)
    root = store("killed")
    assert [one.name for one in root.unfinished()] == ["w"]
    with pytest.raises(FileNotFoundError):
        root.read("w")
    with CuttingProxy(s3.port, lambda connection, passed: False) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.port}")
        store("killed").upload(weights, "w")
        assert wire.sent < 8 * MIB  # the first part was not sent again
    root.download("w", tmp_path / "back", sha(weights))
    assert not list(root.unfinished())


def test_another_writers_parts_are_not_mixed_in(s3: Server, weights: Path, tmp_path: Path) -> None:
    root = store("mixed")
    other = root.client._create_multipart_upload("models", "mixed/w", {})
    root.client._upload_part("models", "mixed/w", os.urandom(5 * MIB), None, other, 1)
    root.upload(weights, "w")
    root.download("w", tmp_path / "back", sha(weights))


def test_of_many_writers_one_creates(s3: Server) -> None:
    def write(number: int) -> list[bool]:
        mine = store("race")
        return [mine.create(f"manifest-{key}", f"writer {number}".encode()) for key in range(5)]

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    for key in range(5):
        winners = [number for number in range(8) if won[number][key]]
        assert len(winners) == 1
        assert store("race").read(f"manifest-{key}") == f"writer {winners[0]}".encode()


def test_a_lost_answer_to_a_winning_write_is_a_win(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server writes, but its answer never arrives; the second try is told that a file is there."""
    root = store("lost")
    put, lost = root.client._put_object, []

    def put_and_lose(*arguments: object) -> None:
        put(*arguments)
        if not lost:
            lost.append(True)
            raise OSError("the answer got lost")

    monkeypatch.setattr(root.client, "_put_object", put_and_lose)
    assert root.create("manifest", b"ours")
    assert lost
    assert not store("lost").create("manifest", b"theirs")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refuses the keys"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "refuses the keys"),
        ({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}, "the connection broke"),
    ],
)
def test_faults_are_told_in_words(
    s3: Server, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    monkeypatch.setenv("KASCADE_S3_ATTEMPTS", "2")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=words) as caught:
        store("words").read("w")
    assert s3.secret_key not in str(caught.value)


def test_a_missing_bucket_and_missing_keys_are_told(
    s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        open_store("s3://nowhere").create("w", b"")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match="no keys"):
        store("w").read("w")
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[kascade]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "kascade")
    with pytest.raises(FileNotFoundError):
        store("w").read("w")


DOWNLOADER = """
import resource, sys
from pathlib import Path
from kascade.errors import StorageError
from kascade.storage.uris import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 2**20, 6 * 2**20))
try:
    open_store("s3://models/full").download("w", Path(sys.argv[1]), sys.argv[2])
except StorageError as error:
    print(error)
"""


def test_a_full_disk_is_told(s3: Server, weights: Path, tmp_path: Path) -> None:
    store("full").upload(weights, "w")
    command = [sys.executable, "-c", DOWNLOADER, str(tmp_path / "back"), sha(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "does not fit" in done.stdout
    assert not (tmp_path / "back").exists()
    store("full").download("w", tmp_path / "back", sha(weights))


def test_settings_that_are_no_numbers_are_all_told() -> None:
    environment = {"KASCADE_S3_PART_MIB": "4", "KASCADE_S3_PARALLEL": "many", "AWS_ENDPOINT_URL": "here"}
    with pytest.raises(UserError) as caught:
        S3Settings.from_environment(environment)
    assert {fault.where for fault in caught.value.faults} == set(environment)


@pytest.mark.parametrize(
    ("endpoint", "taken"),
    [
        ("https://host.example", True),
        ("https://host.example/", True),
        ("https://host.example/minio", False),
        ("https://host.example?x=1", False),
        ("https://host.example/#", False),
        ("http://host.example:99999", False),
    ],
)
def test_a_script_connects_by_the_stable_name_to_what_its_endpoint_says(
    endpoint: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with nullcontext() if taken else pytest.raises(UserError, match="AWS_ENDPOINT_URL"):
        s3_client.connect(s3_client.S3Settings.from_environment({"AWS_ENDPOINT_URL": endpoint}))


def wait_for(condition: Callable[[], bool], patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
