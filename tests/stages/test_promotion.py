"""Champion and challenger with a real model, real draws and a real MLflow that several runs share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from test_steps import guarded, start
from toy_cascade import SayA, make_run, stage
from typer.testing import CliRunner

from kascade.cli import app
from kascade.errors import CheckpointError
from kascade.guard.champion import read_challenge
from kascade.guard.scores import read_scores
from kascade.recipe.attest import Attest
from kascade.recipe.retrain import Retrain
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Tracking
from kascade.run.context import open_run
from kascade.steps import steps
from kascade.steps.challenge import challenge
from kascade.steps.examine import examine_champion
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.task import Grade
from kascade.tracking.promote import read_promotion
from kascade.tracking.retrain import consider, read_reason

pytestmark = pytest.mark.slow


def ended_run(
    folder: Path, uri: str, steps_: int, *environments: str, seed: int = 0, attest: Attest | None = None
) -> RunFolder:
    """A run of one SFT stage that ends as the pipeline ends it: end check, final checkpoint, report."""
    layout = make_run(folder, stage("sft", "sft", *environments, steps=steps_), retention={"samples": 16})
    recipe = read_run_recipe(layout.root)
    tracking = Tracking(uri=uri, promote_as="champion")
    write_text(
        layout.resolved_recipe,
        recipe.model_copy(update={"tracking": tracking, "seed": seed, "attest": attest}).model_dump_json(),
    )
    run = str(layout.root)
    steps.finish(run, steps.retain(run, guarded(layout, "sft", start(layout))))
    steps.report(run)
    return layout


def champion_of(layout: RunFolder) -> dict[str, object]:
    done = CliRunner().invoke(app, ["champion", str(layout.root), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["champion"]


def run_cli(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def test_a_worse_challenger_leaves_the_champion_and_a_better_one_replaces_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = ended_run(tmp_path / "first", uri, 12, "say_a", "say_b")
    assert read_promotion(first).decision == "promoted"
    assert "no champion yet" in read_promotion(first).reasons[0]

    worse = ended_run(tmp_path / "worse", uri, 12, "say_a", seed=1)
    stayed = read_promotion(worse)
    assert stayed.decision == "stays" and stayed.champion == first.final_checkpoint()
    lost = stayed.challenge.benchmarks["say_b"]
    assert lost.standing == "lost" and lost.held.difference < -0.2
    assert champion_of(worse)["reference"] == first.final_checkpoint()
    page, card = worse.report.read_text(), worse.model_card.read_text()
    assert "Against the champion" in page and "say_b is lost" in page and "## Against the champion" in card

    better = ended_run(tmp_path / "better", uri, 40, "say_a", "say_b", seed=2)
    won = read_promotion(better)
    assert won.decision == "promoted" and won.champion == first.final_checkpoint()
    gains = [one.held.difference for one in won.challenge.benchmarks.values()]
    assert max(gains) > 0.02 and min(gains) > -0.03
    assert champion_of(better)["reference"] == better.final_checkpoint()

    again = run_cli("promote", str(better.root), "--json")
    assert again[0] == 0 and json.loads(again[1])["version"] == won.version
    code, said = run_cli("promote", str(worse.root))
    assert code == 1 and "stays where it is" in said

    code, said = run_cli("rollback", "toy", "--tracking", uri)
    assert code == 0 and f"version {1}" in said
    assert run_cli("rollback", "toy", "--tracking", uri)[1].endswith("nothing changed: it was before\n")
    steps.report(str(better.root))
    assert read_promotion(better).decision == "stays", "no run takes back what a person rolled back"
    assert "only a person may promote it again" in read_promotion(better).reasons[0]
    assert run_cli("promote", str(better.root), "--again")[0] == 0
    history = json.loads(run_cli("champion", "toy", "--tracking", uri, "--json")[1])["history"]
    assert [(one["how"], one["version"]) for one in history] == [
        ("promoted", "1"),
        ("promoted", "2"),
        ("rolled back", "1"),
        ("promoted", "2"),
    ]


def test_the_comparison_has_draws_of_its_own_and_is_made_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = ended_run(tmp_path / "first", uri, 12, "say_a", "say_b")
    second = ended_run(tmp_path / "second", uri, 14, "say_a", "say_b")
    challenger, champion = second.final_checkpoint(), first.final_checkpoint()
    found = read_challenge(second, challenger, champion)
    fresh = second.score_files(CheckpointRef.parse(challenger).digest, phase="shared-promotion")
    assert {path.name.split(".")[0] for path in fresh} == {"say_a", "say_b"}
    ends = read_scores(second, CheckpointRef.parse(challenger).digest, "end")
    for path in fresh:
        drawn = json.loads(path.read_text())
        end = ends[drawn["benchmark"]].rewards
        assert drawn["rewards"].keys() == end.keys(), "the same tasks"
        assert any(rewards[:2] != end[task][:2] for task, rewards in drawn["rewards"].items()), "other draws"
    times = {path: path.stat().st_mtime_ns for path in second.score_files()}
    assert steps.retain(str(second.root), challenger) == challenger
    assert {path: path.stat().st_mtime_ns for path in second.score_files()} == times
    assert read_challenge(second, challenger, champion) == found


def test_a_champion_that_cannot_be_loaded_is_named_and_only_a_person_goes_on(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    first = ended_run(tmp_path / "first", uri, 12, "say_a", "say_b")
    place = CheckpointRef.parse(first.final_checkpoint()).path
    moved = place.rename(tmp_path / "elsewhere")
    second = ended_run(tmp_path / "second", uri, 14, "say_a", "say_b")
    found = read_promotion(second)
    assert found.decision == "not compared", "the run ended all the same"
    assert "the champion, version 1" in found.reasons[0] and "cannot be loaded" in found.reasons[0]
    assert second.report.exists() and "cannot be loaded" in second.report.read_text()
    code, said = run_cli("promote", str(second.root))
    assert code == 1 and "cannot be loaded" in said and "To do:" in said
    moved.rename(place)
    own = CheckpointRef.parse(second.final_checkpoint()).path
    gone = own.rename(tmp_path / "gone")
    with open_run(str(second.root), "retain") as run, pytest.raises(CheckpointError) as error:
        challenge(run, second.final_checkpoint())
    assert "the champion, version" not in str(error.value), "it is the run's own checkpoint that is gone"
    gone.rename(own)
    code, said = run_cli("promote", str(second.root), "--without-champion")
    assert code == 2 and "can be compared" in said
    shutil.rmtree(place)
    code, said = run_cli("promote", str(second.root), "--without-champion")
    assert code == 0 and "A person let the end check alone decide" in said
    code, said = run_cli("rollback", str(second.root))
    assert code == 2 and "is gone" in said


def test_a_champion_of_other_benchmarks_is_compared_on_those_of_the_run(tmp_path: Path) -> None:
    """Nothing of the champion's recipe is needed; that fewer are measured is for a person to allow."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ended_run(tmp_path / "first", uri, 12, "say_a", "say_b")
    third = make_run(tmp_path / "third", stage("sft", "sft", "say_a", steps=60), retention={"samples": 16})
    recipe = read_run_recipe(third.root)
    fewer = recipe.model_copy(
        update={
            "benchmarks": recipe.benchmarks[:1],
            "tracking": Tracking(uri=uri, promote_as="champion"),
            "seed": 4,
        }
    )
    write_text(third.resolved_recipe, fewer.model_dump_json())
    run = str(third.root)
    steps.finish(run, steps.retain(run, guarded(third, "sft", start(third))))
    steps.report(run)
    found = read_promotion(third)
    assert found.decision == "stays" and "promoted on: say_b" in found.reasons[0]
    code, _ = run_cli("promote", run, "--fewer-benchmarks")
    assert code == 0


def test_what_is_promoted_is_signed_first_where_the_recipe_names_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIGNING_KEY", raising=False)
    uri, attest = f"sqlite:///{tmp_path / 'mlflow.db'}", Attest(key="env:SIGNING_KEY")
    layout = ended_run(tmp_path / "run", uri, 12, "say_a", "say_b", attest=attest)
    refused = read_promotion(layout)
    assert refused.decision == "stays" and "SIGNING_KEY is not set" in refused.reasons[0]
    assert champion_of(layout) is None
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    monkeypatch.setenv("SIGNING_KEY", pem)
    steps.report(str(layout.root))
    assert read_promotion(layout).decision == "promoted"
    public = tmp_path / "signing.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    model = CheckpointRef.parse(layout.final_checkpoint()).path
    assert run_cli("verify", str(model), "--public-key", str(public))[0] == 0
    for path in layout.root.rglob("*.json"):
        assert pem[40:80] not in path.read_text(), path


def test_a_run_ends_where_mlflow_is_gone_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    layout = ended_run(tmp_path / "run", "http://127.0.0.1:9", 12, "say_a", "say_b")
    found = read_promotion(layout)
    assert found.decision == "not compared" and "kascade promote" in found.reasons[0]
    assert "kascade promote" in layout.report.read_text()


def test_a_champion_that_fell_on_fresh_samples_is_a_reason_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are the same; a grader around them has changed."""
    layout = ended_run(tmp_path / "run", f"sqlite:///{tmp_path / 'mlflow.db'}", 12, "say_a", "say_b")
    run = str(layout.root)
    asking = read_run_recipe(layout.root).model_copy(update={"retrain": Retrain(champion=True)})
    write_text(layout.resolved_recipe, asking.model_dump_json())
    assert consider(layout.root, asking).train
    steps.report(run)
    assert not consider(layout.root, asking).train
    assert examine_champion(run) == []
    assert "did not fall" in read_reason(layout).reasons[-1]
    assert not consider(layout.root, asking).train

    fair = SayA._grade
    monkeypatch.setattr(SayA, "_grade", lambda self, answer: Grade(0.6 * fair(self, answer).reward))
    monkeypatch.setattr("kascade.steps.examine._number", lambda digest: 7)  # another day
    (fallen,) = examine_champion(run)
    assert fallen.startswith("The champion fell on say_a: from 0.")
    found = consider(layout.root, asking)
    assert found.train and found.reasons == (fallen,)
    steps.report(run)
    assert not consider(layout.root, asking).train, "a run has answered it"
