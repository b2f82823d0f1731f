"""Notifications against a real server on this machine: signed, sent once, and never in a run's way."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import ValidationError
from support.example_run import BASE, SFT, ExampleRun, recipe
from support.http_receiver import receiver

from kascade.errors import UserError
from kascade.guard.approval import Waiting, Word, wait
from kascade.notices.delivery import Letter, Tries, deliver, signature
from kascade.notices.notice import Notice, tell
from kascade.recipe.load import load_recipe
from kascade.recipe.notify import Notify
from kascade.recipe.schema import Recipe
from kascade.run.context import open_run
from kascade.steps.telling import tell_end, tell_outcome, tell_promotion, tell_verdict
from kascade.storage.files import write_json, write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking.promote import Promotion

QUICK: dict[str, Any] = {"timeout_s": 0.4, "backoff_s": 0.05, "attempts": 3}
LOST = Notice("regressed", "sft/train-k", "mcqa is lost.", {"stage": "sft", "lost": ["mcqa"]})


def telling(*receivers: dict[str, Any]) -> Recipe:
    return recipe(("sft",)).model_copy(
        update={"notify": tuple(Notify.model_validate({**QUICK, **one}) for one in receivers)}
    )


@pytest.fixture
def layout(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def states(layout: RunFolder) -> list[str]:
    return [json.loads(path.read_text())["state"] for path in layout.notice_files()]


def test_a_notification_is_signed_and_sent_once(layout: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", "  a long secret \n")
    with receiver() as server:
        told = telling({"url": server.url, "secret": "env:HOOK_KEY"})
        for _ in range(3):  # a resumed run says it again
            tell(layout, told, LOST)
        tell(layout, told, Notice("regressed", "sft/recover-1-k", "again", {}))
    first, second = server.received
    body = json.loads(first.body)
    assert (body["event"], body["recipe"], body["run"]) == ("regressed", "example", "run")
    assert body["text"] == "mcqa is lost." and body["details"] == {"stage": "sft", "lost": ["mcqa"]}
    stamp = first.headers["X-Kascade-Timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    assert first.headers["X-Kascade-Signature"] == f"sha256={signature('a long secret', stamp, first.body)}"
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert states(layout) == ["sent", "sent"]


def test_the_signature_is_the_usual_one() -> None:
    """As `printf '1700000000.{}' | openssl dgst -sha256 -hmac key` computes it."""
    expected = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
    assert signature("key", "1700000000", b"{}") == expected


def test_a_receiver_gets_only_its_events_and_slack_gets_a_text(
    layout: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as all_events, receiver() as only_failed:
        monkeypatch.setenv("SLACK_HOOK", all_events.url)
        told = telling(
            {"url": "env:SLACK_HOOK", "format": "slack"}, {"url": only_failed.url, "events": ["failed"]}
        )
        tell(layout, told, Notice("regressed", "k", "a < b & c", {}))
    (found,) = all_events.received
    assert json.loads(found.body) == {"text": "example regressed. a &lt; b &amp; c"}
    assert only_failed.received == []


@pytest.mark.parametrize(
    ("answers", "state", "tries"),
    [
        ([500, 500, 200], "sent", 3),
        ([503], "failed", 3),
        ([429, 200], "sent", 2),
        ([404], "refused", 1),
        ([401, 200], "refused", 1),
    ],
)
def test_what_was_certainly_not_taken_is_tried_again(
    layout: RunFolder, answers: list[int], state: str, tries: int
) -> None:
    with receiver(answers=answers) as server:
        tell(layout, telling({"url": server.url}), LOST)
    assert states(layout) == [state]
    assert len(server.received) == tries
    assert len({one.headers["Idempotency-Key"] for one in server.received}) == 1


def test_a_later_try_of_the_run_sends_what_had_failed(layout: RunFolder) -> None:
    with receiver(answers=[500]) as server:
        told = telling({"url": server.url})
        tell(layout, told, LOST)
        assert states(layout) == ["failed"]
        server.answers = [200]
        tell(layout, told, LOST)
        tell(layout, told, LOST)
    assert states(layout) == ["sent"] and len(server.received) == 4


def test_what_was_being_sent_when_a_process_ended_is_not_sent_again(layout: RunFolder) -> None:
    with receiver() as server:
        told = telling({"url": server.url})
        tell(layout, told, LOST)
        (path,) = layout.notice_files()
        write_json(path, {**json.loads(path.read_text()), "state": "sending"})
        tell(layout, told, LOST)
    assert len(server.received) == 1


def test_a_slow_receiver_is_not_waited_for(layout: RunFolder) -> None:
    with receiver(pause_s=3.0) as server:
        began = time.monotonic()
        tell(layout, telling({"url": server.url}), LOST)
        took = time.monotonic() - began
    assert states(layout) == ["unanswered"]
    assert took < 2.0 and len(server.received) == 1, "it may have been taken: no second try"


def test_a_receiver_that_drips_its_answer_is_left_after_the_time_of_all_tries(layout: RunFolder) -> None:
    with receiver(drip=True) as server:
        began = time.monotonic()
        found = deliver(Letter(server.url, b"{}", "id", None), Tries(2, 0.4, 0.05))
        took = time.monotonic() - began
    assert found.state == "unanswered" and took < 2.5


def test_a_dead_receiver_fails_after_bounded_tries(layout: RunFolder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        began = time.monotonic()
        tell(layout, telling({"url": f"http://127.0.0.1:{port}/hook"}), LOST)
    assert states(layout) == ["failed"] and time.monotonic() - began < 3.0


def test_a_redirect_is_not_followed(layout: RunFolder) -> None:
    with receiver() as other, receiver(answers=[307], location=other.url) as server:
        tell(layout, telling({"url": server.url}), LOST)
    assert states(layout) == ["refused"] and other.received == [] and len(server.received) == 1


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[int]:
    """The port of a server whose certificate nobody signed."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    path = tmp_path / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    client, _ = listener.accept()
                    with client:
                        context.wrap_socket(client, server_side=True).close()
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join(2)


def test_a_certificate_that_is_not_trusted_is_refused(layout: RunFolder, untrusted: int) -> None:
    tell(layout, telling({"url": f"https://127.0.0.1:{untrusted}/hook", "timeout_s": 3.0}), LOST)
    (path,) = layout.notice_files()
    record = json.loads(path.read_text())
    assert record["state"] == "failed" and "certificate" in record["why"] and record["attempts"] == 1


def test_no_secret_is_written_or_logged(
    layout: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver(answers=[500]) as server, caplog.at_level(logging.DEBUG, logger="kascade"):
        monkeypatch.setenv("HOOK", f"{server.url}/T0P-S3CRET")
        monkeypatch.setenv("HOOK_KEY", "K3Y-S3CRET")
        told = telling({"url": "env:HOOK", "secret": "env:HOOK_KEY", "attempts": 1})
        tell(layout, told, Notice("failed", "k", "s3://name:pa55word@host is down", {"at": "http://a:b@c"}))
        monkeypatch.delenv("HOOK_KEY")
        tell(layout, told, Notice("failed", "other", "again", {}))
    written = "".join(path.read_text() for path in layout.root.rglob("*") if path.is_file())
    sent = b"".join(one.body for one in server.received).decode()
    for text in (written, caplog.text, sent):
        assert "S3CRET" not in text and "pa55word" not in text and "a:b@" not in text
    assert "HOOK_KEY is not set" in caplog.text
    assert len(server.received) == 1, "what cannot be signed is not sent"
    assert states(layout) == ["failed"], "and can still be sent by a later try"


def test_failures_are_told_with_the_steps_own_words(layout: RunFolder) -> None:
    with receiver() as server:
        told = telling({"url": server.url})
        write_text(layout.resolved_recipe, told.model_dump_json())
        for step, kind in (("sft.train", "TrainingStopped"), ("sft.settle", "GuardStop")):
            layout.write_state({"step": step, "state": "failed", "started": 1.0, "seconds": 2.0})
            layout.write_error(step, {"type": kind, "message": "loss is NaN", "exit_code": 4, "faults": []})
        layout.write_state({"step": "sft.begin", "state": "succeeded", "started": 1.0, "seconds": 2.0})
        layout.write_state({"step": "rl.train", "state": "running", "started": 3.0, "seconds": None})
        tell_end(layout, told)
        tell_end(layout, told)
        layout.write_state({"step": "sft.train", "state": "failed", "started": 9.0, "seconds": 2.0})
        tell_end(layout, told)
    texts = [json.loads(one.body)["text"] for one in server.received]
    assert texts[0] == "sft.train failed. TrainingStopped: loss is NaN"
    assert texts[1].startswith("rl.train failed. its process ended without a word")
    assert texts[2:] == texts[:1], "another try that failed is another event"


def test_promotions_are_told_and_those_that_were_not_are_not(layout: RunFolder) -> None:
    promoted = Promotion(
        name="own", alias="champion", decision="promoted", reasons=("Better.",), challenger="c", version="2"
    )
    with receiver() as server:
        write_text(layout.resolved_recipe, telling({"url": server.url}).model_dump_json())
        with open_run(str(layout.root), "report", light=True) as opened:
            tell_promotion(opened, promoted)
            tell_promotion(opened, promoted.model_copy(update={"decision": "stays"}))
    (found,) = server.received
    assert json.loads(found.body)["text"] == "champion is version 2. Better."


@pytest.mark.parametrize("word", ["waiting for approval", "budget reached"])
def test_what_a_run_waits_for_is_told_once(layout: RunFolder, word: Word) -> None:
    waiting = Waiting(word=word, before="if_rl", sentence="To do: kascade approve.", since="2026-01-01T00:00")
    with receiver() as server:
        told = telling({"url": server.url})
        wait(layout, waiting)
        tell_end(layout, told)
        tell_end(layout, told)
        wait(layout, waiting.model_copy(update={"before": "rlhf"}))
        tell_end(layout, told)
    bodies = [json.loads(one.body) for one in server.received]
    assert [one["event"] for one in bodies] == [word.replace(" ", "_")] * 2
    assert [one["details"]["before"] for one in bodies] == ["if_rl", "rlhf"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"url": "https://hooks.example/T/B/x", "format": "slack"}, "is a secret"),
        ({"url": "ftp://host/x"}, "address"),
        ({"url": "https://name:word@host/x"}, "holds a user name"),
        ({"url": "env:HOOK", "secret": "plain words"}, "pattern"),
        ({"url": "env:HOOK", "events": ["exploded"]}, "regressed"),
    ],
)
def test_receivers_that_cannot_be_are_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Notify.model_validate(change)


def test_a_recipe_file_names_receivers_under_overrides(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    head = "preset: quickstart\noverrides:\n  notify:\n    - "
    path.write_text(f"{head}{{url: 'env:HOOK', events: [promoted]}}\n")
    assert load_recipe(str(path)).notify[0].events == ("promoted",)
    path.write_text(f"{head}{{url: 'env:HOOK', event: [promoted]}}\n")
    with pytest.raises(UserError, match=r"own.yaml:4"):
        load_recipe(str(path))


def test_a_run_that_regresses_and_recovers_says_so(tmp_path: Path) -> None:
    """By the events that the steps make of verdicts and outcomes."""
    with receiver() as server:
        run = ExampleRun(tmp_path / "run", recipe(("sft", "if_rl")), tasks=60)
        told = run.recipe.model_copy(update={"notify": telling({"url": server.url}).notify})
        run.recipe = told
        write_text(run.layout.resolved_recipe, told.model_dump_json())
        run.base(BASE)
        run.stage("sft", SFT)
        verdicts = run.stage("if_rl", {"ifeval": 0.95, "mcqa": 0.1}, recoveries=({"mcqa": 0.5},))
        with open_run(str(run.root), "test", light=True) as opened:
            for verdict in verdicts:
                tell_verdict(opened, verdict)
            tell_outcome(opened, "sft")
            tell_outcome(opened, "if_rl")
    bodies = [json.loads(one.body) for one in server.received]
    assert [one["event"] for one in bodies] == ["regressed", "recovered"]
    assert bodies[0]["details"]["lost"] == ["mcqa"]
    assert bodies[0]["text"].startswith("if_rl/train-k lost mcqa.")
