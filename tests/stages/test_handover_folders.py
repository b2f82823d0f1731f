"""The folders in which weights travel: the version just written is there, whatever an earlier try left."""

from __future__ import annotations

from pathlib import Path

from toy_cascade import make_policy

from kascade.recipe.schema import ModelPart
from kascade.rollout.handover import Handover, ModelSource


def versions(root: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("version-")) for folder in root.iterdir())


def test_versions_of_a_killed_run_do_not_displace_those_of_the_next(tmp_path: Path) -> None:
    policy = make_policy()

    def started() -> Handover:
        return Handover(ModelSource(policy.model, policy.tokenizer), tmp_path, ModelPart(source="x"))

    first = started()
    for version in range(4):
        folder, _ = first.write(version)
        assert (folder / "config.json").exists()
    assert versions(tmp_path) == [2, 3]
    again = started()
    for version, kept in ((0, [0]), (1, [0, 1]), (2, [1, 2]), (2, [1, 2]), (3, [2, 3])):
        folder, _ = again.write(version)
        assert (folder / "config.json").exists()
        assert versions(tmp_path) == kept
