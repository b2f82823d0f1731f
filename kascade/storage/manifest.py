"""What a checkpoint is: its manifest, its reference, and whether a folder still holds what they say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, field_validator

from kascade.errors import CheckpointError
from kascade.storage.address import is_remote
from kascade.storage.files import file_digest, seal_of

MANIFEST = "manifest.json"
ACCEPTED = "accepted"  # beside the manifest of a checkpoint in a shared place, once a run continued from it
LOCATION = "location"  # in a run's folder, beside the manifest of a checkpoint that is in a bucket
ATTESTATION = "attestation.json"  # beside the manifest of a checkpoint that was signed
OUR_FILES = (MANIFEST, ACCEPTED, LOCATION, ATTESTATION)  # they tell of a checkpoint and are no part of it
LOADED = (
    ".bin",
    ".jinja",
    ".json",
    ".model",
    ".pt",
    ".pth",
    ".py",
    ".safetensors",
    ".txt",
)  # loaders read these
REMEDY = (
    "To do: resume the run that made it (`kascade resume FOLDER`), which makes it again. Elsewhere, copy the "
    "folder anew, or leave this checkpoint out"
)


class Manifest(BaseModel):
    """What a checkpoint is made of and where it comes from.

    id: `<stage>/<attempt>-<key>`. parent: reference of the checkpoint it was trained from.
    teachers: references of the checkpoints it was distilled from, by domain.
    base: reference of the whole model that an adapter belongs to; None: this is a whole model itself.
    files: SHA-256 of each file. created: ISO 8601, UTC.
    seal: hash of all the other fields; None in manifests from before 0.2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    stage: str
    attempt: str
    key: str
    parent: str | None
    teachers: dict[str, str] = {}
    base: str | None = None
    fingerprint: str
    code_version: str
    created: str
    files: dict[str, str]
    seal: str | None = None

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name, digest in files.items():
            inside = name and not name.startswith("/") and ".." not in name.split("/") and "\0" not in name
            if not inside or not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"{name!r} is no file of a checkpoint with a SHA-256")
        return files

    @property
    def computed_seal(self) -> str:
        """What `seal` has to be."""
        left_out = {"seal"} if self.base is not None else {"seal", "base"}
        return seal_of(self.model_dump(mode="json", exclude=left_out))

    @property
    def digest(self) -> str:
        """Identity of the checkpoint: a hash over its id, its files' hashes and its base's digest.

        The id is part of it because a stage that made no update has its parent's weights, and is
        another checkpoint all the same.
        """
        lines = f"{self.id}\n" + "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        if self.base is not None:
            lines += f"base {CheckpointRef.parse(self.base).digest}\n"
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """`URI@sha256:DIGEST`: what travels between steps."""

    uri: str
    digest: str

    def __str__(self) -> str:
        return f"{self.uri}@sha256:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> CheckpointRef:
        uri, separator, digest = text.rpartition("@sha256:")
        if not separator or not uri or len(digest) != 64:
            raise CheckpointError(f"{text!r} is not a checkpoint reference (URI@sha256:DIGEST)")
        return cls(uri, digest)

    @property
    def path(self) -> Path:
        return local_path(self.uri)

    @property
    def is_remote(self) -> bool:
        return is_remote(self.uri)


def local_path(uri: str) -> Path:
    """The folder behind a `file://` URI. Raises CheckpointError for any other scheme."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        raise CheckpointError(f"{uri}: only a file:// address is a folder here")
    return Path(unquote(parsed.path))


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Raises CheckpointError, also when a field changed since the manifest was written."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValueError as error:
        what = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{where}: not a checkpoint manifest: {what}. {REMEDY}") from error
    if manifest.seal not in (None, manifest.computed_seal):
        raise CheckpointError(f"{where}: changed since the checkpoint was written. {REMEDY}")
    return manifest


def manifest_text(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=1) + "\n"


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest of ours, intact or not: other tools call other things manifest.json."""
    try:
        return path.is_file() and b'"fingerprint"' in path.read_bytes()
    except OSError:
        return False


def file_names(folder: Path) -> list[str]:
    """The files of a checkpoint in a folder."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in OUR_FILES)


def damage(folder: Path, manifest: Manifest, digest_of: Callable[[Path], str] = file_digest) -> str | None:
    """What in a folder is not as the manifest says: a file that is missing, changed, or one too many.

    Files that no loader of models reads (notes, pictures) may be added. digest_of: how a file is read.
    """
    for name, digest in manifest.files.items():
        path = folder / name
        try:
            if not path.is_file() or digest_of(path) != digest:
                return f"{path}: missing or changed since the checkpoint was written"
        except (OSError, ValueError) as error:
            return f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
    added = [name for name in file_names(folder) if name not in manifest.files]
    loaded = [name for name in added if name.endswith(LOADED) and not name.startswith(".")]
    return f"{folder / loaded[0]}: was added since the checkpoint was written" if loaded else None
