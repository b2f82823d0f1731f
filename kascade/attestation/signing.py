"""Signing a checkpoint, and verifying it offline: weights, manifest, verdicts and their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kascade.attestation.envelope import NotVerified, opened, public_half, public_key, sign
from kascade.attestation.statement import statement_of
from kascade.errors import CheckpointError, Fault, KascadeError, UserError
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import base_of, open_checkpoint, verify
from kascade.storage.files import file_digest, write_text
from kascade.storage.manifest import (
    ATTESTATION,
    LOADED,
    LOCATION,
    MANIFEST,
    CheckpointRef,
    file_names,
    manifest_text,
    parse_manifest,
)
from kascade.storage.run_folder import RunFolder
from kascade.storage.secrets import read_secret
from kascade.storage.uris import open_store


def sign_checkpoint(layout: RunFolder, recipe: Recipe, reference: str, key: str, where: str) -> str:
    """Write the attestation of a run's checkpoint beside its manifest, and return where. Idempotent.

    key: reference of the private key; where: what named it. What is signed already, by the same key and with
    the same contents, stays. Raises UserError for the key, KascadeError where there is no verdict to sign.
    """
    pem = read_secret(key, where)
    statement = statement_of(layout, recipe, reference)
    ref = CheckpointRef.parse(reference)
    known = _read(ref)
    if known is None or not _says(known, statement, pem, where):
        _write(ref, sign(statement["subject"], statement["predicate"], pem, where))
    return f"{ref.uri}/{ATTESTATION}"


def _says(known: bytes, statement: Mapping[str, Any], pem: str, where: str) -> bool:
    """Whether an attestation says this already, whenever it was signed."""
    try:
        subject, predicate = opened(known, public_half(pem, where))
    except NotVerified:
        return False
    wanted = {**statement["predicate"], "signed": predicate.get("signed")}
    return subject == statement["subject"] and predicate == wanted


def _read(ref: CheckpointRef) -> bytes | None:
    try:
        return open_store(ref.uri).read(ATTESTATION)
    except FileNotFoundError:
        return None


def _write(ref: CheckpointRef, text: str) -> None:
    if not ref.is_remote:
        write_text(ref.path / ATTESTATION, text)
        return
    store = open_store(ref.uri)
    store.delete(ATTESTATION)
    store.create(ATTESTATION, text.encode())


@dataclass(frozen=True, slots=True)
class Verified:
    """problems: what is not as it was signed, each naming its file; () where all is well.

    id, checkpoint, signed, end_check: what the statement says; "" and {} where it could not be read.
    unchecked: files of the run that were not at hand.
    """

    problems: tuple[str, ...]
    id: str = ""
    checkpoint: str = ""
    signed: str = ""
    end_check: Mapping[str, str] = field(default_factory=dict)
    unchecked: int = 0


def verify_model(model: str, pem: bytes, where: str, run: Path | None = None) -> Verified:
    """Hold a checkpoint (folder or reference) against its attestation and a public key.

    run: the folder of the run that made it; None: found where the checkpoint lies in one. Raises UserError
    for a key that cannot be read, or where there is no such checkpoint.
    """
    key = public_key(pem, where)
    found = _Found.at(model)
    try:
        subject, predicate = opened(found.attestation, key)
    except NotVerified as error:
        return Verified((f"{ATTESTATION}: {error}",))
    problems = [*found.other(predicate), *found.changed(subject), *found.base_problems(predicate)]
    run = run or found.run
    files = predicate.get("files", {})
    problems += _changed_in_run(run, files) if run else []
    end = (predicate.get("end_check") or {}).get("benchmarks", {})
    return Verified(
        tuple(problems),
        id=predicate["id"],
        checkpoint=predicate["checkpoint"],
        signed=predicate["signed"],
        end_check={name: held["standing"] for name, held in end.items()},
        unchecked=0 if run else len(files),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A checkpoint as it lies there. folder: its files. run: the folder of the run that it lies in."""

    folder: Path
    manifest: bytes
    attestation: bytes
    run: Path | None

    @classmethod
    def at(cls, model: str) -> _Found:
        """Raises UserError where there is no checkpoint, NotVerified's words where nothing signs it."""
        if "@sha256:" in model:
            return cls._stored(CheckpointRef.parse(model), None)
        folder = Path(model).absolute()
        if (folder / LOCATION).exists():
            return cls._stored(open_checkpoint(folder)[0], _run_of(folder))
        if not folder.is_dir():
            remedy = "give a checkpoint's folder, or a reference URI@sha256:DIGEST"
            raise UserError(Fault(model, "there is no such folder", remedy=remedy))
        manifest, attestation = (_bytes(folder / name) for name in (MANIFEST, ATTESTATION))
        return cls(folder, manifest, attestation, _run_of(folder))

    @classmethod
    def _stored(cls, ref: CheckpointRef, run: Path | None) -> _Found:
        folder, manifest = verify(str(ref))
        text = manifest_text(manifest).encode()
        return cls(folder, text, _read(ref) or b"", run or _run_of(folder))

    def other(self, predicate: Mapping[str, Any]) -> Iterator[str]:
        """That the attestation is one of another checkpoint, where this one's own manifest is whole."""
        try:
            own = parse_manifest(self.manifest, MANIFEST)
        except CheckpointError:
            return
        if own.digest != predicate["checkpoint"]:
            signed = f"{predicate['id']} ({predicate['checkpoint'][:12]})"
            yield f"{ATTESTATION}: is of another checkpoint, {signed}, not of {own.id} ({own.digest[:12]})"

    def changed(self, subject: Mapping[str, str]) -> Iterator[str]:
        """Files that are missing, changed or added."""
        for name, digest in sorted(subject.items()):
            path = self.folder / name
            if name == MANIFEST and self._is_fetched:
                continue
            if not path.is_file():
                yield f"{name}: is missing"
            elif file_digest(path) != digest:
                yield f"{name}: changed since it was signed"
        for name in file_names(self.folder):
            if name not in subject and name.endswith(LOADED) and not name.startswith("."):
                yield f"{name}: was added since it was signed"

    @property
    def _is_fetched(self) -> bool:
        """Whether the files came from a store, whose manifest was checked when they were fetched."""
        return not (self.folder / MANIFEST).exists() and bool(self.manifest)

    def base_problems(self, predicate: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with the model that an adapter belongs to."""
        if predicate.get("base") is None:
            return
        try:
            base_of(self.folder)
        except KascadeError as error:
            yield f"the adapter's base: {error}"


def _run_of(folder: Path) -> Path | None:
    """The run's folder that holds this checkpoint in its place: RUN/checkpoints/STAGE/ATTEMPT."""
    places = folder.parents
    is_one = len(places) > 2 and places[1].name == "checkpoints" and RunFolder(places[2]).has_begun
    return places[2] if is_one else None


def _changed_in_run(run: Path, files: Mapping[str, str]) -> list[str]:
    found = []
    for name, digest in sorted(files.items()):
        path = run / name
        if not path.is_file():
            found.append(f"{path}: is missing")
        elif file_digest(path) != digest:
            found.append(f"{path}: changed since it was signed")
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
