"""NeMo-Gym's own resource servers, asked by our client: rewards are those that its own client gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import answering
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import get_environment
from kascade.environments.base import Turn
from kascade.environments.remote.environment import RemoteSession
from kascade.environments.remote.nemo_gym import NemoGym, response, response_items
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.task import Grade, Task

pytestmark = pytest.mark.outside
Options = Callable[..., dict[str, Any]]


def configured(options: dict[str, Any]) -> NemoGym:
    environment = get_environment("nemo_gym").with_options(options)
    assert isinstance(environment, NemoGym)
    return environment


def tasks(environment: NemoGym, path: Path, count: int = 5) -> list[Task]:
    rows = [json.loads(line) for line in path.read_text().splitlines()[:count]]
    return [environment.from_row(row) for row in rows]


def talk(environment: NemoGym, task: Task, answers: list[str]) -> tuple[Grade, list[Turn]]:
    """A conversation in which the policy says these answers. Returns its grade and what was said to it."""
    session = environment.start(task)
    assert isinstance(session, RemoteSession)
    opening = session.open()
    said = [opening] if opening else []
    for answer in answers:
        reaction = session.respond(answer)
        if isinstance(reaction, Grade):
            return reaction, said
        said.append(reaction)
    return session.stop(), said


def test_one_answer_then_verify(nemo_gym: Options, gym_rows: Callable[[str], Path], own_client: Any) -> None:
    """`mcqa`: rewards of 50 answers equal those of NeMo-Gym's own request."""
    environment = configured(nemo_gym("mcqa", domain="knowledge"))
    assert environment.needs() == [] and environment.domain == "knowledge"
    compared = 0
    for task in tasks(environment, gym_rows("mcqa")):
        assert environment.start(task) is None
        letters = [f"So</think>\\boxed{{{letter}}}" for letter in "ABCDEFGHIJ"]
        grades = environment.grade(task, letters)
        base = environment.server(task).base
        for answer, grade in zip(letters, grades, strict=True):
            row = task.fields["row"]
            body = {**row, "response": response(task, response_items(task, answer))}
            own_client(f"{base}/seed_session", row)
            assert own_client(f"{base}/verify", body)["reward"] == grade.reward, answer
            compared += 1
        assert sum(grade.reward for grade in grades) == 1.0
    assert compared == 50


def test_example_rows_come_from_the_package(
    tmp_path: Path, nemo_gym: Options, gym_rows: Callable[[str], Path]
) -> None:
    given, out = nemo_gym("mcqa"), tmp_path / "rows.jsonl"
    options = ["--option", f"package={given['package']}", "--option", f"python={given['python']}"]
    done = CliRunner().invoke(app, ["data", "rows", "nemo_gym", *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_text() == gym_rows("mcqa").read_text()


def test_a_session_remembers_its_own_conversation(nemo_gym: Options, gym_rows: Callable[[str], Path]) -> None:
    """`example_session_state_mgmt`: many counters at once, each its own."""
    environment = configured(nemo_gym("example_session_state_mgmt"))
    (task,) = tasks(environment, gym_rows("example_session_state_mgmt"), 1)
    right = [
        render_tool_call("increment_counter", {"count": 1}),
        render_tool_call("increment_counter", {"count": 2}),
        render_tool_call("get_counter_value", {}),
        "It is 6.",
    ]
    sessions = [environment.start(task) for _ in range(16)]
    assert all(isinstance(session, RemoteSession) for session in sessions)
    environment.open_all(sessions)
    for answer in right[:-1]:
        said = environment.respond_all([(session, answer) for session in sessions])
        assert all(isinstance(one, Turn) for one in said)
    assert all(json.loads(one.messages[0]["content"])["count"] == 6 for one in said)
    grades = environment.respond_all([(session, right[-1]) for session in sessions])
    assert [grade.reward for grade in grades] == [1.0] * 16
    assert talk(environment, task, [right[0], "done"])[0].reward == 0.0


def test_tools_of_several_steps(nemo_gym: Options, gym_rows: Callable[[str], Path]) -> None:
    """`example_multi_step`: parts of the reward keep their names; a call that fails is read, not raised."""
    environment = configured(nemo_gym("example_multi_step"))
    (task,) = tasks(environment, gym_rows("example_multi_step"), 1)
    values = task.fields["row"]["expected_synonym_values"]
    grade, said = talk(
        environment,
        task,
        [
            render_tool_call("get_synonym_value", {"synonym": task.fields["row"]["expected_synonyms"][0]}),
            render_tool_call("get_synonym_value", {"word": "no such parameter"}),
            render_tool_call("no_such_tool", {}),
            render_tool_call("extract_synonym_values", {"synonym_values": values}),
            "Done.",
        ],
    )
    assert (
        grade.reward == 1.0 and grade.components["accuracy"] == 1.0 and grade.components["set_overlap"] == 1.0
    )
    assert json.loads(said[0].messages[0]["content"]) == {"synonym_value": values[0]}
    assert "missing" in said[1].messages[0]["content"] and "no tool" in said[2].messages[0]["content"]
    assert talk(environment, task, ["I do not know."])[0].reward == 0.0


def test_a_game_of_several_turns(nemo_gym: Options, gym_rows: Callable[[str], Path]) -> None:
    """`blackjack`: the first observation comes before the first answer; -1 to 1 is scaled to 0 to 1."""
    environment = configured(nemo_gym("blackjack", reward_range=[-1, 1], domain="games"))
    (task,) = tasks(environment, gym_rows("blackjack"), 1)
    rewards = set()
    for _ in range(30):
        grade, said = talk(environment, task, ["<action>hit</action>"] * 10)
        assert "Your hand" in said[0].messages[0]["content"]
        rewards.add(grade.reward)
        assert grade.components["steps"] >= 1 or grade.reward in (0.0, 0.5, 1.0)
    assert 0.0 in rewards and rewards <= {0.0, 0.5, 1.0}


def test_turns_of_a_scripted_user(nemo_gym: Options, gym_rows: Callable[[str], Path]) -> None:
    """`example_multi_turn_gymnasium`: a user's further turns, and the expected words in the last answer."""
    environment = configured(nemo_gym("example_multi_turn_gymnasium"))
    for task in tasks(environment, gym_rows("example_multi_turn_gymnasium")):
        metadata = task.fields["row"]
        turns = len(metadata["follow_ups"]) + 1
        right, said = talk(environment, task, ["hm"] * (turns - 1) + [metadata["expected_answer"]])
        assert right.reward == 1.0 and len(said) == turns - 1
        assert talk(environment, task, ["hm"] * turns)[0].reward == 0.0


def test_calls_that_only_verify_reads(nemo_gym: Options, gym_rows: Callable[[str], Path]) -> None:
    """`xlam_fc`: the row's tools are no endpoints, so one answer is all, and its calls reach `/verify`."""
    environment = configured(nemo_gym("xlam_fc"))
    for task in tasks(environment, gym_rows("xlam_fc")):
        assert environment.start(task) is None
        calls = [
            f"<tool_call>{json.dumps(call)}</tool_call>" for call in task.fields["row"]["expected_answers"]
        ]
        right, wrong = environment.grade(task, ["".join(calls), "I cannot."])
        assert (right.reward, wrong.reward, right.error, wrong.error) == (1.0, 0.0, None, None)


def judged(body: dict[str, Any]) -> dict[str, Any]:
    """A judge's reply: two answers are equal where the candidate holds the gold one."""
    asked = body["input"][-1]["content"]
    official = asked.partition("The OFFICIAL ANSWER: ")[2].partition("\n")[0]
    candidate = asked.partition("CANDIDATE ANSWER TO ASSESS: ")[2].partition("\n\n")[0]
    verdict = "CORRECT" if official.lower() in candidate.lower() else "INCORRECT"
    text = {"type": "output_text", "text": verdict, "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
    return {"id": "r", "object": "response", "created_at": 0, "model": "judge", "output": [message],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip


@pytest.fixture
def judge_port() -> Iterator[int]:
    with answering(judged) as port:
        yield port


def test_a_judge_that_the_server_asks(
    nemo_gym: Options, gym_rows: Callable[[str], Path], own_client: Any, judge_port: int
) -> None:
    """`equivalence_llm_judge`: the server asks a model on loopback; rewards are those of its own request."""
    config = {
        "judge_port": judge_port,
        "judge_model_server": {"type": "responses_api_models", "name": "judge"},
        "judge_responses_create_params": {"input": []},
        "judge_prompt_template_fpath": "prompt_templates/lc_judge.txt",
        "judge_equal_label": "CORRECT",
        "judge_not_equal_label": "INCORRECT",
    }
    environment = configured(nemo_gym("equivalence_llm_judge", config=config))
    compared = []
    for task in tasks(environment, gym_rows("equivalence_llm_judge")):
        gold = task.fields["row"]["expected_answer"]
        answers = [f"It is {gold}.", "I do not know."]
        base = environment.server(task).base
        for answer, grade in zip(answers, environment.grade(task, answers), strict=True):
            body = {**task.fields["row"], "response": response(task, response_items(task, answer))}
            assert grade.error is None
            assert own_client(f"{base}/verify", body)["reward"] == grade.reward
            compared.append(grade.reward)
    assert compared == [1.0, 0.0] * 5
