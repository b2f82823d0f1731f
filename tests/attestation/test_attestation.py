"""A signed checkpoint verifies offline, and whatever changed since is named."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.example_run import BASE, SFT, ExampleRun, recipe
from support.s3_servers import moto
from typer.testing import CliRunner

from kascade.cli import app
from kascade.guard.end_check import EndVerdict, Held, write_end_verdict
from kascade.storage.checkpoint import CheckpointRef

Edit = Callable[[Path], None]


def write_keys(folder: Path, key: object, password: bytes | None = None) -> tuple[Path, Path]:
    """Private and public key as PEM files."""
    private, public = folder / "signing.pem", folder / "signing.pub"
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def ended_run(root: Path, store: str | None = None) -> ExampleRun:
    """Two stages and the end check."""
    run = ExampleRun(root / "run", recipe(("sft", "if_rl")), tasks=30, store=store)
    run.base(BASE)
    run.stage("sft", SFT)
    run.stage("if_rl", {"ifeval": 0.95})
    held = Held(benchmark="mcqa", domain="knowledge", standing="kept", against=())
    end = EndVerdict(checkpoint=run.parent, round=0, margin=0.03, level=0.05, benchmarks={"mcqa": held})
    write_end_verdict(run.layout, end)
    run.layout.write_final(run.parent)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended, whose final checkpoint is signed, and the keys beside it."""
    root = tmp_path_factory.mktemp("signed")
    run = ended_run(root)
    private, _ = write_keys(root, Ed25519PrivateKey.generate())
    code, said = command("sign", run.root, "--key", private)
    assert code == 0 and said.endswith("if_rl/train-k/attestation.json"), said
    return root


@pytest.fixture
def signed(made: Path, tmp_path: Path) -> Path:
    """The signed run in another place: nothing in a signature depends on where files lie."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def model_of(root: Path) -> Path:
    return root / "run" / "checkpoints" / "if_rl" / "train-k"


def verified(root: Path, *more: object, model: Path | None = None) -> tuple[int, str]:
    return command("verify", model or model_of(root), "--public-key", root / "signing.pub", *more)


def test_what_was_signed_verifies_offline_and_says_what_it_passed(signed: Path) -> None:
    code, said = verified(signed)
    assert code == 0, said
    assert said.endswith(" verified") and "end check: mcqa kept" in said
    found = json.loads(
        command("verify", model_of(signed), "--public-key", signed / "signing.pub", "--json")[1]
    )
    assert found["verified"] and found["unchecked"] == 0 and found["problems"] == []


def test_a_manifest_of_an_earlier_version_is_signed_as_it_is(tmp_path: Path) -> None:
    """Without the fields that came later, and in another layout: the signature is over its bytes."""
    run = ended_run(tmp_path)
    private, _ = write_keys(tmp_path, Ed25519PrivateKey.generate())
    path = model_of(tmp_path) / "manifest.json"
    path.chmod(0o644)
    fields = {name: value for name, value in json.loads(path.read_text()).items() if value is not None}
    path.write_text(json.dumps(fields))
    assert command("sign", run.root, "--key", private)[0] == 0
    assert verified(tmp_path)[1].endswith(" verified")
    append(path)
    assert "manifest.json: changed" in verified(tmp_path)[1]


def test_a_model_alone_verifies_and_says_what_was_not_looked_at(signed: Path) -> None:
    alone = Path(shutil.copytree(model_of(signed), signed / "downloaded"))
    code, said = verified(signed, model=alone)
    assert code == 0 and "files of the run were not checked" in said
    assert verified(signed, "--run", signed / "run", model=alone)[1].endswith("verified")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


TAMPERED: dict[str, tuple[str, Edit, str]] = {
    "weights": ("checkpoints/if_rl/train-k/weights.txt", append, "weights.txt: changed"),
    "manifest": ("checkpoints/if_rl/train-k/manifest.json", append, "manifest.json: changed"),
    "weights that are gone": (
        "checkpoints/if_rl/train-k/weights.txt",
        Path.unlink,
        "weights.txt: is missing",
    ),
    "manifest that is gone": (
        "checkpoints/if_rl/train-k/manifest.json",
        Path.unlink,
        "manifest.json: is miss",
    ),
    "code that was added": (
        "checkpoints/if_rl/train-k/modeling.py",
        lambda path: path.write_text("import os") and None,
        "modeling.py: was added",
    ),
    "verdict": ("verdicts/if_rl/train-k.json", append, "verdicts/if_rl/train-k.json: changed"),
    "verdict before": ("verdicts/sft/train-k.json", append, "verdicts/sft/train-k.json: changed"),
    "verdict that is gone": ("verdicts/sft/train-k.json", Path.unlink, "train-k.json: is missing"),
    "no attestation": ("checkpoints/if_rl/train-k/attestation.json", Path.unlink, "nothing signs this"),
    "torn attestation": (
        "checkpoints/if_rl/train-k/attestation.json",
        lambda path: path.write_text(path.read_text()[:200]) and None,
        "is no signed envelope",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_changed_is_named(signed: Path, name: str) -> None:
    place, edit, expected = TAMPERED[name]
    edit(signed / "run" / place)
    code, said = verified(signed)
    assert code == 1 and expected in said and said.endswith("NOT VERIFIED"), said


def test_every_score_and_outcome_behind_the_verdicts_is_covered(signed: Path) -> None:
    run = signed / "run"
    behind = [*run.glob("scores/*/*.json"), *run.glob("outcomes/*.json"), *run.glob("retention/*.json")]
    assert len(behind) > 20
    for path in behind:
        append(path)
    code, said = verified(signed)
    assert code == 1
    assert all(f"{path.name}: changed" in said for path in behind)


def test_a_statement_that_was_edited_is_not_signed_by_the_key(signed: Path) -> None:
    """The verdict inside of the statement, too."""
    path = model_of(signed) / "attestation.json"
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"])
    assert b'"standing": "kept"' in payload
    envelope["payload"] = base64.b64encode(payload.replace(b'"kept"', b'"lost"')).decode()
    path.write_text(json.dumps(envelope))
    code, said = verified(signed)
    assert code == 1 and "not one by this key over this statement" in said


def test_another_key_does_not_verify(signed: Path) -> None:
    write_keys(signed, Ed25519PrivateKey.generate())
    code, said = verified(signed)
    assert code == 1 and "not one by this key" in said


def test_the_attestation_of_another_checkpoint_is_recognised(signed: Path) -> None:
    other = signed / "run" / "checkpoints" / "sft" / "train-k"
    shutil.copy(model_of(signed) / "attestation.json", other)
    code, said = verified(signed, model=other)
    assert code == 1 and "is of another checkpoint, if_rl/train-k" in said
    assert "weights.txt: changed" in said


@pytest.mark.parametrize("words", [["verify", "nowhere"], ["verify", "run/checkpoints/if_rl/train-k"]])
def test_input_that_cannot_be_read_is_an_error_of_its_own(
    signed: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(signed)
    (signed / "bad.pub").write_text("no key")
    key = "bad.pub" if words[1] != "nowhere" else "signing.pub"
    code, said = command(*words, "--public-key", key)
    assert code == 2 and ("there is no such folder" in said or "not a public key" in said)
    assert command(*words, "--public-key", "absent.pub")[0] == 2


def test_signing_twice_changes_nothing_and_another_key_signs_anew(made: Path, tmp_path: Path) -> None:
    path = model_of(made) / "attestation.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert command("sign", made / "run", "--key", made / "signing.pem")[0] == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    private, public = write_keys(tmp_path, Ed25519PrivateKey.generate())
    assert command("sign", made / "run", "--key", private)[0] == 0
    assert command("verify", model_of(made), "--public-key", public)[0] == 0
    assert command("verify", model_of(made), "--public-key", made / "signing.pub")[0] == 1
    path.write_bytes(before[0])


def test_keys_of_the_usual_kinds_by_reference(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_of(made) / "attestation.json"
    before = path.read_bytes()
    keys = [generate_private_key(SECP256R1()), generate_rsa(65537, 2048), Ed25519PrivateKey.generate()]
    for number, key in enumerate(keys):
        (tmp_path / str(number)).mkdir()
        private, public = write_keys(tmp_path / str(number), key, b"open sesame")
        monkeypatch.setenv("SIGNING_KEY", private.read_text())
        monkeypatch.delenv("KASCADE_KEY_PASSWORD", raising=False)
        code, said = command("sign", made / "run", "--key", "env:SIGNING_KEY")
        assert code == 2 and "not a private key that can be read" in said
        assert "PRIVATE KEY" not in said, "no message holds a key"
        monkeypatch.setenv("KASCADE_KEY_PASSWORD", "open sesame")
        assert command("sign", made / "run", "--key", "env:SIGNING_KEY")[0] == 0
        assert command("verify", model_of(made), "--public-key", public)[0] == 0
    path.write_bytes(before)


def test_signing_says_what_is_missing(made: Path, tmp_path: Path) -> None:
    code, said = command("sign", made / "run")
    assert code == 2 and "no key is named" in said
    code, said = command("sign", made / "run", "--key", "env:NO_SUCH_KEY")
    assert code == 2 and "NO_SUCH_KEY is not set" in said
    base = json.loads(model_of(made).joinpath("manifest.json").read_text())["parent"]
    unjudged = CheckpointRef.parse(
        json.loads(CheckpointRef.parse(base).path.joinpath("manifest.json").read_text())["parent"]
    )
    code, said = command("sign", made / "run", "--key", made / "signing.pem", "--checkpoint", unjudged)
    assert code == 1 and "nothing to sign" in said


def test_a_checkpoint_in_a_bucket_is_signed_there_and_verifies_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its reference alone, with an empty cache. A changed byte of signature or weights shows."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: buckets were not tried")
    with moto() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "first"))
        run = ended_run(tmp_path, "s3://models/team")
        private, public = write_keys(tmp_path, Ed25519PrivateKey.generate())
        code, said = command("sign", run.root, "--key", private)
        assert (code, said) == (0, "s3://models/team/if_rl/train-k/attestation.json")
        assert not list(run.root.rglob("attestation.json"))
        keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
        bucket = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1", **keys
        )
        where = {"Bucket": "models", "Key": "team/if_rl/train-k/attestation.json"}
        signed = bucket.get_object(**where)
        assert command("sign", run.root, "--key", private)[0] == 0  # changes nothing
        assert bucket.get_object(**where)["LastModified"] == signed["LastModified"]

        monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "second"))
        reference = run.layout.final_checkpoint()
        code, said = command("verify", reference, "--public-key", public)
        assert code == 0 and "end check: mcqa kept" in said and "files of the run were not checked" in said
        assert command("verify", reference, "--public-key", public, "--run", run.root)[1].endswith(
            " verified"
        )
        local = model_of(tmp_path)  # the run's own folder only points to the bucket
        assert command("verify", local, "--public-key", public)[1].endswith(" verified")

        text = signed["Body"].read()
        bucket.put_object(**where, Body=text.replace(b'"payload": "e', b'"payload": "f'))
        code, said = command("verify", reference, "--public-key", public)
        assert code == 1 and said.endswith("NOT VERIFIED"), said
        bucket.delete_object(**where)
        code, said = command("verify", reference, "--public-key", public)
        assert code == 1 and "nothing signs this checkpoint" in said
        bucket.put_object(**where, Body=text)
        (weights,) = [
            one["Key"]
            for one in bucket.list_objects_v2(Bucket="models", Prefix="team/if_rl/")["Contents"]
            if one["Key"].endswith("weights.txt")
        ]
        bucket.put_object(Bucket="models", Key=weights, Body=b"other")
        monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / "third"))
        code, said = command("verify", reference, "--public-key", public)
        assert code != 0 and "verified" not in said.replace("NOT VERIFIED", "")
