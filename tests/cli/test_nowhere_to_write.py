"""Every verb that writes, where nothing can be written: one line with the place and what to do."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kascade.cli import app

OLD = Path(__file__).resolve().parents[1] / "e2e" / "old_run"
VERBS = {
    "init": ["init", "quickstart", "--out", "{D}/r.yaml"],
    "compile": ["compile", "quickstart", "--out", "{D}/p.yaml"],
    "compile for kubectl": ["compile", "quickstart", "--kubernetes", "--out", "{D}/p.yaml"],
    "export": ["export", "{CHECKPOINT}", "{D}/exported"],
    "report": ["report", "{D}/run"],
    "run": ["run", "quickstart", "--out", "{D}/new"],
    "resume": ["resume", "{D}/run"],
    "gc": ["gc", "{D}/run", "--delete", "--older-than", "0"],
    "upload": ["upload", "{ROWS}", "{D}/up"],
    "grade": ["grade", "{ROWS}", "--environment", "math_with_judge", "--out", "{D}/g.jsonl"],
    "lab": ["lab", "gains", "{D}/run", "--out", "{D}/gains"],
}
RDONLY, REMOUNT, BIND, REC, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000  # of mount(2)
NEWNS = 0x20000  # of unshare(2)
pytestmark = pytest.mark.slow
ROW = {"responses_create_params": {"input": "q"}, "expected_answer": "2", "response": "\\boxed{2}"}


def place(folder: Path) -> None:
    """A run, made by an earlier version, that believes it was made here."""
    for path in sorted(OLD.rglob("*")):
        copy = folder / path.relative_to(OLD)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".safetensors":
            shutil.copy(path, copy)
        else:
            text = path.read_text(encoding="utf-8").replace("{HERE}", str(folder))
            copy.write_text(text, encoding="utf-8")


def full(folder: Path) -> None:
    """No file may get a byte: what a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def read_only(folder: Path) -> None:
    """The folder on a disk that takes no writes: mounted so for this process alone, or without the right."""
    if os.geteuid():
        for one in (folder, *folder.rglob("*")):
            one.chmod(0o555 if one.is_dir() else 0o444)
        return
    libc, here = ctypes.CDLL(None, use_errno=True), str(folder).encode()
    mounts = ((b"none", b"/", PRIVATE | REC), (here, here, BIND), (None, here, BIND | REMOUNT | RDONLY))
    if libc.unshare(NEWNS) or any(libc.mount(what, at, None, how, None) for what, at, how in mounts):
        raise PermissionError("no mounts here")


def _child(
    queue: SimpleQueue[tuple[int, str]], arguments: list[str], before: Callable[[Path], None], folder: Path
) -> None:
    try:
        before(folder)
    except PermissionError as error:
        queue.put((-1, str(error)))
        return
    found = CliRunner().invoke(app, arguments)
    known = found.exception is None or isinstance(found.exception, SystemExit)
    said = found.stdout + found.stderr + ("" if known else f"Traceback {found.exception!r}")
    queue.put((found.exit_code, " ".join(said.split())))


def ended(arguments: list[str], before: Callable[[Path], None], folder: Path) -> tuple[int, str]:
    context = multiprocessing.get_context("fork")
    queue: SimpleQueue[tuple[int, str]] = context.SimpleQueue()
    process = context.Process(target=_child, args=(queue, arguments, before, folder))
    process.start()
    process.join(400)
    assert process.exitcode == 0
    return queue.get()


@pytest.mark.parametrize("before", [full, read_only])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_cannot_write_says_where_and_what_to_do(
    verb: str, before: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    place(folder)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    checkpoint = min((folder / "run" / "checkpoints").rglob("manifest.json")).parent
    names = {"{D}": folder, "{ROWS}": rows, "{CHECKPOINT}": checkpoint}
    arguments = list(VERBS[verb])
    for name, path in names.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    code, said = ended(arguments, before, folder)
    if code < 0:
        pytest.skip("NOT RUN: a process may not mount a folder read-only here")
    assert code in (1, 2), said
    assert "Traceback" not in said and "to do:" in said.lower()
    assert str(folder) in said or "temporary" in said
