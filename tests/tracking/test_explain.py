"""`explain` on stages, benchmarks and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kascade.errors import UserError
from kascade.tracking.explain import explain, explain_data
from kascade.tracking.summarise import summarise


def test_stage(whole: Path) -> None:
    text = explain(whole, "code_rl")
    assert text.startswith("7 · Code RL")
    assert "rolled back" in text
    assert "code_gen (2000 generated tasks)" in text
    assert "lost arithmetic" in text


def test_benchmark_lists_every_checkpoint_in_order(whole: Path) -> None:
    data = explain_data(whole, "needle")
    places = [score["checkpoint"] for score in data["scores"]]
    assert places[0] == "base/train-k"
    assert places[-1] == "swe_rl/train-k"
    assert [score["mark"] for score in data["scores"]].count("regressed") >= 2
    assert "RLHF made needle fall" in explain(whole, "needle")
    for score in data["scores"]:
        k = str(score["samples"])
        assert 0 <= score["pass_at"]["1"] <= score["pass_at"][k] <= 1
        assert f"pass@{k} {score['pass_at'][k]:.3f}" in explain(whole, "needle")


def test_checkpoint_by_id_digest_prefix_and_reference(whole: Path) -> None:
    final = summarise(whole).final
    assert final is not None
    texts = {explain(whole, subject) for subject in (final.id, final.digest[:8], str(final.ref))}
    assert len(texts) == 1
    assert "final" in texts.pop()


@pytest.mark.parametrize("subject", ["rlhf", "needle", "rlhf/recover-2-k", "base/train-k"])
def test_data_is_json(whole: Path, subject: str) -> None:
    data = explain_data(whole, subject)
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_unknown_subject_names_the_nearest(whole: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'needle'") as raised:
        explain(whole, "neadle")
    assert "swe_rl" in str(raised.value.faults[0].allowed)


def test_partial_run_explains_a_stage_not_begun(partial: Path) -> None:
    assert explain_data(partial, "rlhf")["outcome"] == "not begun"
