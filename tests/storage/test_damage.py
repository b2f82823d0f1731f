"""Whatever happens to a checkpoint's files: it is refused with a remedy, or it is still the same."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kascade.errors import CheckpointError
from kascade.learning.masters import Masters
from kascade.learning.state import State, load_state, save_state
from kascade.models.load import BUILTIN_ROOT, check_model_folder, load_model
from kascade.storage.checkpoint import MANIFEST, CheckpointRef, Manifest, open_checkpoint, publish, verify

PARENT = f"file:///base@sha256:{'1' * 64}"


def manifest() -> Manifest:
    return Manifest(
        id="sft/train-abc",
        stage="sft",
        attempt="train",
        key="abc",
        parent=PARENT,
        teachers={"knowledge": PARENT},
        fingerprint="f",
        code_version="0",
        created="2026-01-01T00:00:00+00:00",
        files={},
    )


@pytest.fixture
def published(tmp_path: Path) -> CheckpointRef:
    staged = tmp_path / "staged"
    staged.mkdir()
    save_file({"w": torch.arange(8.0)}, staged / "model.safetensors")
    (staged / "config.json").write_text('{"model_type": "qwen3"}')
    (staged / "tokenizer.json").write_text("{}")
    return publish(staged, tmp_path / "sft", manifest())


def test_every_flipped_bit_of_a_manifest_is_refused_or_changes_nothing(published: CheckpointRef) -> None:
    path = published.path / MANIFEST
    whole, known = path.read_bytes(), open_checkpoint(published.path)[1]
    for place in range(len(whole)):
        bit = random.Random(place).randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            found = open_checkpoint(published.path)[1]
        except CheckpointError as error:
            assert "To do:" in str(error)
        else:
            assert found == known, f"byte {place}"


def test_manifests_from_before_there_were_seals_stay_valid(published: CheckpointRef) -> None:
    path = published.path / MANIFEST
    said = json.loads(path.read_bytes())
    del said["seal"]
    path.write_text(json.dumps(said))
    assert verify(str(published))[1].parent == PARENT


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "a folder": _as_folder,
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", MANIFEST])
def test_every_damage_of_every_file_is_refused_with_a_remedy(
    published: CheckpointRef, name: str, how: str
) -> None:
    DAMAGE[how](published.path / name)
    with pytest.raises(CheckpointError, match="To do:") as caught:
        verify(str(published))
    assert str(published.path) in str(caught.value)


def test_a_file_that_a_loader_would_read_may_not_be_added(published: CheckpointRef) -> None:
    (published.path / "notes.md").write_text("mine")
    verify(str(published))
    (published.path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: was added"):
        verify(str(published))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "nul\0l"])
def test_a_manifest_names_no_files_outside_its_folder(published: CheckpointRef, name: str) -> None:
    path = published.path / MANIFEST
    said = json.loads(path.read_bytes())
    path.write_text(json.dumps({**said, "seal": None, "files": {name: "0" * 64}}))
    with pytest.raises(CheckpointError, match="no file of a checkpoint"):
        verify(str(published))


def test_a_manifest_beside_a_given_model_is_used(tmp_path: Path) -> None:
    model = next(folder for folder in sorted(BUILTIN_ROOT.iterdir()) if (folder / "config.json").exists())
    shutil.copytree(model, tmp_path / "staged")
    ref = publish(tmp_path / "staged", tmp_path / "given", manifest())
    assert check_model_folder(ref.path) == []
    weights = ref.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-9] ^= 1
    weights.write_bytes(data)
    (error,) = check_model_folder(ref.path)
    assert "model.safetensors" in error.what
    assert error.remedy
    with pytest.raises(Exception, match="missing or changed"):
        load_model(ref.path)
    (ref.path / MANIFEST).write_text('{"name": "another tool wrote this"}')
    assert check_model_folder(ref.path) == []


def test_a_state_is_used_whole_or_not_at_all(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    state = State(model, torch.optim.AdamW(model.parameters()), Masters(model))
    for step in (1, 2):
        save_state(tmp_path, step, state)
    path = tmp_path / "step-00000002" / "state.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        bit = random.Random(place).randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        assert load_state(tmp_path, state) in (1, 2)
    path.write_text(json.dumps({**json.loads(whole), "step": 7, "seal": None}))
    assert load_state(tmp_path, state) == 1
    path.write_text(json.dumps({name: json.loads(whole)[name] for name in ("step", "files")}))
    assert load_state(tmp_path, state) == 2
