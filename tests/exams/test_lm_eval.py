"""lm-eval's tasks, answered by our engine: every sample is graded as when lm-eval runs the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.environments.outside.lm_eval_tasks import LmEvalError, lm_eval_tasks_of, load_lm_eval_tasks
from kascade.environments.outside.settings import LmEvalOptions
from kascade.exams.lm_eval_runs import lm_eval_answers
from kascade.models.load import resolve_source
from kascade.recipe.schema import ModelPart
from kascade.rollout.policy import Policy
from kascade.rollout.types import SamplingParams

pytest.importorskip("lm_eval", reason="lm-eval is not installed: its tasks were not asked")
CITIES = [("Ostaria", "Vell"), ("Belora", "Ond"), ("Tarn", "Kess"), ("Mirra", "Sol"), ("Ilva", "Pell")]
GREEDY = {"until": ["\n", "."], "max_gen_toks": 12, "do_sample": False}
MATCH = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
KINDS: dict[str, dict[str, Any]] = {
    "multiple_choice": {"doc_to_choice": "choices", "doc_to_target": "label"},
    "generate_until": {"doc_to_target": "answer", "generation_kwargs": GREEDY, "metric_list": MATCH},
    "loglikelihood": {"doc_to_target": "answer", "metric_list": [{"metric": "acc"}]},
    "loglikelihood_rolling": {"doc_to_target": "question", "metric_list": [{"metric": "word_perplexity"}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files of each kind, and their rows."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "question": f"The capital of {country} is",
            "choices": [city for _, city in CITIES],
            "label": number % 5,
            "answer": CITIES[number % 5][1],
        }
        for number, (country, _) in enumerate(CITIES * 3)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    common = {**data, "test_split": "test", "fewshot_split": "test", "doc_to_text": "{{question}}"}
    tasks = {f"cities_{kind}": {"output_type": kind, **more} for kind, more in KINDS.items()}
    drawn = {**GREEDY, "do_sample": True, "temperature": 0.8}
    tasks["drawn"] = {**tasks["cities_generate_until"], "generation_kwargs": drawn}
    strict = {"name": "strict", "filter": [{"function": "take_first"}]}
    tasks["filters"] = {
        **tasks["cities_generate_until"],
        "filter_list": [strict, {**strict, "name": "loose"}],
    }
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **common, **task}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("data_sets")))
        yield


@pytest.fixture(scope="module")
def policy() -> Policy:
    folder = resolve_source("builtin://mini-nemotron-h")
    return Policy.load(folder, ModelPart(source=str(folder)))


@pytest.fixture(scope="module")
def own_model() -> Any:
    from lm_eval.models.huggingface import HFLM

    folder = str(resolve_source("builtin://mini-nemotron-h"))
    return HFLM(folder, device="cpu", dtype="float32", batch_size=4)


def answers(policy: Policy, options: LmEvalOptions, samples: int = 1, seed: int = 0, tasks: int = 15) -> Any:
    params = SamplingParams(12, temperature=0.9)
    return lm_eval_answers(policy, options, tasks=tasks, params=params, samples=samples, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{}, {"chat": True, "num_fewshot": 2}], ids=["plain", "chat, two shots"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "loglikelihood_rolling"])
def test_every_sample_is_graded_as_by_lm_eval_itself(
    kind: str, asked: dict[str, Any], folder: Path, policy: Policy, own_model: Any
) -> None:
    from lm_eval import simple_evaluate

    options = LmEvalOptions(task=f"cities_{kind}", include=str(folder), **asked)
    ours = answers(policy, options)
    done = simple_evaluate(
        model=own_model,
        tasks=[options.task],
        task_manager=lm_eval_tasks_of(options),
        num_fewshot=options.num_fewshot,
        limit=15,
        bootstrap_iters=0,
        apply_chat_template=options.chat,
    )
    own = done["samples"][options.task]
    metric = "exact_match" if kind == "generate_until" else "acc"
    assert [one.rewards[0] for one in ours] == [row[metric] for row in own]
    assert [one.task_id.partition(":")[0] for one in ours] == [str(row["doc_id"]) for row in own]
    if kind == "generate_until":
        assert [one.answers[0] for one in ours] == [row["filtered_resps"][0] for row in own]
        assert all(one.num_tokens[0] > 0 for one in ours)
    else:
        mine = [value for one in ours for value, _ in json.loads(one.answers[0])]
        assert mine == pytest.approx([value for row in own for value, _ in row["filtered_resps"]], abs=1e-3)


@pytest.mark.slow
def test_whole_texts_have_the_log_likelihoods_of_lm_eval_itself(
    folder: Path, policy: Policy, own_model: Any
) -> None:
    from lm_eval import simple_evaluate

    from kascade.exams.lm_eval_model import Drawing, PolicyLM

    options = LmEvalOptions(task="cities_loglikelihood_rolling", include=str(folder))
    ours = PolicyLM(policy, Drawing(SamplingParams(12), 1, 0, sampled=False, default_tokens=256))
    found = [
        simple_evaluate(
            model=model,
            tasks=[options.task],
            task_manager=lm_eval_tasks_of(options),
            limit=5,
            bootstrap_iters=0,
        )["results"][options.task]["word_perplexity,none"]
        for model in (ours, own_model)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_drawn_answers_depend_on_the_seed_and_more_are_added(folder: Path, policy: Policy) -> None:
    options = LmEvalOptions(task="drawn", include=str(folder), sampled=True)
    two, four = answers(policy, options, 2, tasks=5), answers(policy, options, 4, tasks=5)
    assert [one.answers for one in two] == [one.answers[:2] for one in four]
    assert any(len(set(one.answers)) > 1 for one in four)
    assert [one.answers for one in answers(policy, options, 2, seed=1, tasks=5)] != [
        one.answers for one in two
    ]
    greedy = LmEvalOptions(task="cities_generate_until", include=str(folder), sampled=True)
    assert any(len(set(one.answers)) > 1 for one in answers(policy, greedy, 4, tasks=5))


@pytest.mark.parametrize(
    ("task", "more", "says"),
    [
        ("drawn", {}, "say `sampled: true`"),
        ("cities_multiple_choice", {"sampled": True}, "leave out `sampled`"),
        ("filters", {}, "strict, loose"),
        ("filters", {"filter": "soft"}, "no filter 'soft'"),
    ],
)
def test_options_that_do_not_suit_a_task_are_named(
    folder: Path, task: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(LmEvalError, match=says):
        load_lm_eval_tasks(LmEvalOptions(task=task, include=str(folder), **more))


def test_one_filter_of_several_counts(folder: Path, policy: Policy) -> None:
    found = answers(policy, LmEvalOptions(task="filters", include=str(folder), filter="loose"), tasks=5)
    assert len(found) == 5 and all(len(one.rewards) == 1 for one in found)
