"""Garbage: what nobody accepted and nobody descends from goes; all else stays, whatever breaks off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.s3_servers import Server
from test_checkpoint import staged

from kascade.storage.checkpoint import CheckpointRef, Manifest, is_there, mark_accepted, publish
from kascade.storage.collect import Evidence, find_garbage, remove
from kascade.storage.uris import open_store

LATER = datetime.now(UTC) + timedelta(days=2)
DAY = timedelta(days=1)


class Family:
    """Checkpoints in one store, by name: base, sft from it, a rejected stage with a recovery, and others."""

    def __init__(self, root: str, scratch: Path) -> None:
        self.root, self.scratch, self.number = root, scratch, 0

    def add(self, name: str, parent: CheckpointRef | None, **teachers: CheckpointRef) -> CheckpointRef:
        self.number += 1
        stage, _, attempt = name.partition("/")
        manifest = Manifest(
            id=name,
            stage=stage,
            attempt=attempt.rpartition("-")[0],
            key="a",
            parent=str(parent) if parent else None,
            teachers={domain: str(teacher) for domain, teacher in teachers.items()},
            fingerprint="f",
            code_version="0",
            created=datetime.now(UTC).isoformat(),
            files={},
        )
        folder = staged(self.scratch / str(self.number), name)
        return publish(folder, f"{self.root}/{name}", manifest)


@pytest.fixture(params=["s3", "file"])
def family(request: pytest.FixtureRequest, s3: Server, tmp_path: Path) -> Family:
    root = f"s3://models/{tmp_path.name}" if request.param == "s3" else (tmp_path / "store").as_uri()
    return Family(root, tmp_path / "scratch")


def test_only_what_was_rejected_and_has_no_heirs_goes(family: Family) -> None:
    base = family.add("base/train-a", None)
    sft = family.add("sft/train-a", base)
    fallen = family.add("if_rl/train-a", sft)
    recovered = family.add("if_rl/recover-1-a", fallen, knowledge=sft)
    rolled_back = family.add("code_rl/train-a", recovered)
    lost_cause = family.add("code_rl/recover-1-a", rolled_back)
    pinned = family.add("rlhf/train-a", recovered)
    running = family.add("swe_rl/train-a", recovered)
    taught = family.add("mopd/train-a", sft, code=family.add("code_rl/train-b", sft))
    rejected = [fallen, recovered, rolled_back, lost_cause, pinned]
    evidence = Evidence(
        rejected={ref.digest for ref in [*rejected, family.add("code_rl/train-b", sft)]},
        kept={recovered.digest, pinned.digest},
    )
    store = open_store(family.root)
    assert not find_garbage(store, evidence, min_age=DAY).checkpoints  # all too young
    garbage = find_garbage(store, evidence, min_age=DAY, now=LATER)
    assert set(garbage.checkpoints) == {"code_rl/train-a", "code_rl/recover-1-a"}
    remove(store, garbage)
    for ref in (base, sft, fallen, recovered, pinned, running, taught):
        assert is_there(str(ref))
    for ref in (rolled_back, lost_cause):
        assert not is_there(str(ref))
    assert not find_garbage(store, evidence, min_age=DAY, now=LATER).num_bytes


def test_what_another_run_has_accepted_stays_though_this_one_did_not(family: Family) -> None:
    base = family.add("base/train-a", None)
    theirs, nobodys = family.add("sft/train-a", base), family.add("sft/train-b", base)
    mark_accepted(str(theirs), "another run")
    mark_accepted(str(theirs), "a third one")
    evidence = Evidence(rejected={theirs.digest, nobodys.digest}, kept=set())
    store = open_store(family.root)
    garbage = find_garbage(store, evidence, min_age=DAY, now=LATER)
    assert set(garbage.checkpoints) == {"sft/train-b"}
    remove(store, garbage)
    assert is_there(str(theirs)) and not is_there(str(nobodys))
    assert not find_garbage(store, evidence, min_age=DAY, now=LATER).num_bytes


def test_a_removal_that_was_cut_leaves_leftovers_only(s3: Server, tmp_path: Path) -> None:
    family = Family("s3://models/cut-removal", tmp_path / "scratch")
    gone = family.add("sft/train-a", None)
    store, evidence = open_store(family.root), Evidence({gone.digest}, set())
    garbage = find_garbage(store, evidence, min_age=DAY, now=LATER)
    deleted: list[str] = []

    class Cut(Exception):
        pass

    class DyingStore:
        """Deletes one file, then dies."""

        def delete(self, name: str) -> None:
            if deleted:
                raise Cut
            deleted.append(name)
            store.delete(name)

    with pytest.raises(Cut):
        remove(DyingStore(), garbage)  # type: ignore[arg-type]
    assert deleted == ["sft/train-a/manifest.json"]
    leftovers = find_garbage(store, evidence, min_age=DAY, now=LATER)
    assert len(leftovers.names[""]) == 2
    remove(store, leftovers)
    assert not list(store.entries())


def test_leftovers_of_writers_go_and_strangers_files_stay(s3: Server, tmp_path: Path) -> None:
    family = Family("s3://models/leftovers", tmp_path / "scratch")
    ref = family.add("sft/train-a", None)
    store = open_store(family.root)
    lost = "sft/train-a/0123456789abcdef/model.safetensors"
    (tmp_path / "file").write_text("of the writer who lost")
    for name in (lost, "data/rows.jsonl", "sft/train-a/notes.txt"):
        store.upload(tmp_path / "file", name)
    client = store.client  # type: ignore[attr-defined]
    client._create_multipart_upload("models", "leftovers/sft/train-b/0123456789abcdef/w", {})
    client._create_multipart_upload("models", "leftovers/data/big.jsonl", {})
    assert not find_garbage(store, Evidence((), ()), min_age=DAY).names
    garbage = find_garbage(store, Evidence((), ()), min_age=DAY, now=LATER)
    assert garbage.names == {"": [lost]}
    assert [upload.name for upload in garbage.uploads] == ["sft/train-b/0123456789abcdef/w"]
    remove(store, garbage)
    assert is_there(str(ref))
    assert {"data/rows.jsonl", "sft/train-a/notes.txt"} <= {entry.name for entry in store.entries()}
    assert [upload.name for upload in store.unfinished()] == ["data/big.jsonl"]
