"""Small files, whole or not at all, and the progress that watchers read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kascade.storage.files import (
    LINE_BITS,
    file_digest,
    is_whole_line,
    read_json,
    sealed,
    share,
    write_json,
    write_text,
)
from kascade.storage.progress import Progress
from kascade.storage.store import copy_checked, create_file


def test_values_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "value.json"
    write_json(path, {"text": "é·", "none": None, "list": [1, 2.5]})
    assert read_json(path) == {"text": "é·", "none": None, "list": [1, 2.5]}


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.txt"]


def test_progress_tells_how_far_and_how_long(tmp_path: Path) -> None:
    path = tmp_path / "progress" / "sft.train.json"
    progress = Progress(path, "sft.train", every_s=0)
    progress.update(0, 4)
    assert read_json(path)["eta_s"] is None
    progress.update(3, 4, "steps", reward=0.5)
    stored = read_json(path)
    assert (stored["done"], stored["total"], stored["metrics"]) == (3, 4, {"reward": 0.5})
    assert 0 <= stored["eta_s"] < 1


def test_progress_is_written_rarely_but_the_end_always(tmp_path: Path) -> None:
    path = tmp_path / "sft.train.json"
    progress = Progress(path, "sft.train", every_s=3600)
    progress._written = progress._started
    progress.update(1, 3)
    assert not path.exists()
    progress.update(3, 3)
    assert read_json(path)["done"] == 3


def test_what_is_written_may_be_read_as_any_other_new_file(tmp_path: Path) -> None:
    """A run lies on a volume that people and servers read under users of their own."""
    plain = tmp_path / "plain"
    plain.write_text("")
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    (folder / "weights").touch(mode=0o600)
    share(folder)
    write_text(tmp_path / "text", "")
    create_file(tmp_path / "created", b"")
    copy_checked(plain, tmp_path / "copied", file_digest(plain))
    files = [tmp_path / name for name in ("text", "created", "copied")]
    assert {path.stat().st_mode for path in (*files, folder / "weights")} == {plain.stat().st_mode}
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert folder.stat().st_mode == fresh.stat().st_mode


def test_every_flipped_bit_of_a_written_file_shows_or_changes_nothing(tmp_path: Path) -> None:
    value = {"reward": [0.25, None, 1.0], "text": "ä \u2028 \t ", "deep": {"a": [1, 2, {}]}}
    write_json(tmp_path / "x.json", value)
    whole = (tmp_path / "x.json").read_bytes()
    assert json.loads(whole) == value  # other readers of JSON see nothing of the checksum
    for place in range(len(whole)):
        for bit in range(8):
            changed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            (tmp_path / "x.json").write_bytes(changed)
            try:
                found = read_json(tmp_path / "x.json")
            except ValueError:
                continue
            assert found == value


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    for end in ("", "\n", "\r\n", " \n", "   \t\n\n"):
        (tmp_path / "x.json").write_text('{"a": 1}' + end)
        assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_changed_line_is_not_whole() -> None:
    line = sealed('{"reward": 0.5}', LINE_BITS).encode()
    assert is_whole_line(line)
    assert is_whole_line(b'{"reward": 0.5}\n')
    assert not is_whole_line(line.replace(b"0.5", b"0.7"))
    assert not is_whole_line(line[:9])
