"""Garbage: which checkpoints and leftovers of a store nobody needs, by evidence and never by absence of it.

A checkpoint goes only when a run says that it was not accepted, no other run has marked it as accepted, no
checkpoint that stays was trained from it or taught by it, nobody asks to keep it, and it is old enough.
Leftovers (files of a publication that was killed or lost against another writer, unfinished uploads) go when
they are old enough and are where only this library writes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from kascade.storage.checkpoint import ACCEPTED, LOCATION, MANIFEST, Manifest, data_folder, parse_manifest
from kascade.storage.store import Entry, Store, Unfinished

CHECKPOINT = r"(?:[a-z][a-z0-9_-]{0,39}/(?:train|recover-[0-9])-[0-9a-f]+)"
DATA = re.compile(rf"(?P<id>{CHECKPOINT})/(?P<data>[0-9a-f]{{16}})/.+")
STAGED = re.compile(r"[a-z][a-z0-9_-]{0,39}/\.(?:train|recover-[0-9])-[^/]+/.+")


@dataclass(slots=True)
class Garbage:
    """What may go. checkpoints: ids with why; names: files by checkpoint id, `""` for leftovers."""

    checkpoints: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    uploads: list[Unfinished] = field(default_factory=list)
    num_bytes: int = 0

    def add(self, owner: str, entry: Entry) -> None:
        self.names.setdefault(owner, []).append(entry.name)
        self.num_bytes += entry.size


@dataclass(frozen=True, slots=True)
class Evidence:
    """Digests of checkpoints that runs have not accepted, and of those that must stay."""

    rejected: Collection[str]
    kept: Collection[str]


def find_garbage(
    store: Store, evidence: Evidence, *, min_age: timedelta, now: datetime | None = None
) -> Garbage:
    """Look only. min_age: what is younger stays, because somebody may be writing or about to name it."""
    cutoff = (now or datetime.now(UTC)) - min_age
    entries = list(store.entries())
    manifests = {
        entry.name.removesuffix(f"/{MANIFEST}"): parse_manifest(store.read(entry.name), entry.name)
        for entry in entries
        if re.fullmatch(rf"{CHECKPOINT}/{re.escape(MANIFEST)}", entry.name)
    }
    names = {entry.name for entry in entries}
    marked = {manifest.digest for name, manifest in manifests.items() if f"{name}/{ACCEPTED}" in names}
    evidence = replace(evidence, kept={*evidence.kept, *marked})
    doomed = _doomed(manifests, evidence, cutoff)
    garbage = Garbage({name: f"not accepted; {manifests[name].created}" for name in doomed})
    for entry in entries:
        owner = next((name for name in doomed if entry.name.startswith(f"{name}/")), None)
        if owner is not None:
            garbage.add(owner, entry)
        elif entry.modified < cutoff and _is_leftover(entry.name, manifests):
            garbage.add("", entry)
    garbage.uploads = [
        one for one in store.unfinished() if one.begun < cutoff and DATA.fullmatch(one.name) is not None
    ]
    return garbage


def remove(store: Store, garbage: Garbage) -> None:
    """Manifests first: a removal that is cut leaves leftovers, never a checkpoint without its files."""
    for owner, names in garbage.names.items():
        for name in sorted(names, key=lambda one: one != f"{owner}/{MANIFEST}"):
            store.delete(name)
    for upload in garbage.uploads:
        store.give_up(upload)


def _doomed(manifests: dict[str, Manifest], evidence: Evidence, cutoff: datetime) -> list[str]:
    """Ids of the rejected checkpoints that no checkpoint which stays descends from."""
    by_digest = {manifest.digest: manifest for manifest in manifests.values()}
    may_go = {
        manifest.digest
        for manifest in manifests.values()
        if manifest.digest in evidence.rejected
        and manifest.digest not in evidence.kept
        and datetime.fromisoformat(manifest.created) < cutoff
    }
    needed = _ancestors({*by_digest, *evidence.kept} - may_go, by_digest)
    return sorted(name for name, manifest in manifests.items() if manifest.digest in may_go - needed)


def _ancestors(digests: Iterable[str], by_digest: dict[str, Manifest]) -> set[str]:
    """The given digests and those of every checkpoint that they were trained from or taught by."""
    found: set[str] = set()
    waiting = list(digests)
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        if manifest := by_digest.get(digest):
            sources = [manifest.parent, manifest.base, *manifest.teachers.values()]
            waiting += [source.rpartition(":")[2] for source in sources if source]
    return found


def _is_leftover(name: str, manifests: dict[str, Manifest]) -> bool:
    """Whether a file is where only a publication puts files, and belongs to no checkpoint."""
    if STAGED.fullmatch(name):
        return True
    match = DATA.fullmatch(name)
    if match is None or name.endswith(f"/{LOCATION}"):
        return False
    owner = manifests.get(match["id"])
    return owner is None or data_folder(owner) != match["data"]
