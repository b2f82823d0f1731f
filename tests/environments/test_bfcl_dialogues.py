"""BFCL's multi-turn rows: classes as tools, checks after every turn, functions held back, long contexts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kascade.environments import Task, get_environment
from kascade.environments.base import Turn
from kascade.environments.rows.loading import load_tasks
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.errors import UserError
from kascade.recipe.benchmark_presets import benchmark_presets
from kascade.recipe.parts import DataSource
from kascade.task import Grade

DIALOGUES = get_environment("tool_dialogues")


def play(task: Task, *answers: str) -> list[Turn | Grade]:
    session = DIALOGUES.start(task)
    assert session is not None
    try:
        return [session.respond(answer) for answer in answers]
    finally:
        session.close()


def graded(task: Task, *answers: str) -> Grade:
    last = play(task, *answers)[-1]
    assert isinstance(last, Grade)
    return last


BASE: dict[str, Any] = {  # as BFCL_v3_multi_turn_base.json and its possible answers are laid out
    "id": "multi_turn_base_0",
    "question": [
        [{"role": "user", "content": "Put two pens into the top drawer."}],
        [{"role": "user", "content": "What is in the lower one?"}],
        [{"role": "user", "content": "Thanks."}],
    ],
    "initial_config": {"Drawers": {"contents": {"top": ["ruler"], "lower": ["tape"]}}},
    "path": ["Drawers.open", "Drawers.put"],
    "involved_classes": ["Drawers"],
}
POSSIBLE: dict[str, Any] = {
    "id": "multi_turn_base_0",
    "ground_truth": [["open(drawer='top')", "put('pen', count=2)"], ["open(drawer='lower')", "look()"], []],
}


@pytest.fixture
def drawers(tmp_path: Path) -> Task:
    return read(tmp_path, BASE, POSSIBLE)


def read(folder: Path, row: dict[str, Any], possible: dict[str, Any], **options: Any) -> Task:
    rows, answers = folder / "BFCL_v3_multi_turn.json", folder / "answers.json"
    rows.write_text(json.dumps(row) + "\n")
    answers.write_text(json.dumps(possible) + "\n")
    source = DataSource.model_validate(
        {
            **benchmark_presets()["bfcl_multi_turn"]["source"],
            "path": str(rows),
            "join": {"path": str(answers)},
        }
    )
    environment = DIALOGUES.with_options({"classes": {"Drawers": "simulated_interface"}, **options})
    with pytest.raises(UserError, match="involved_classes"):
        load_tasks(DIALOGUES, source)
    (task,) = load_tasks(environment, source).tasks
    return task


def c(name: str, **arguments: Any) -> str:
    return f"§</think>{render_tool_call(name, arguments)}"


PUT = (c("open", drawer="top"), c("put", thing="pen", count=2), "§</think>Done.")
LOOK = (c("open", drawer="lower"), c("look"), "§</think>Tape.")


def test_bfcl_dialogues_are_checked_after_every_turn(drawers: Task) -> None:
    names = [tool["name"] for tool in drawers.tools]
    assert names == ["look", "open", "put", "turn"]
    put = drawers.tools[2]["parameters"]
    assert put["properties"] == {"thing": {"type": "string"}, "count": {"type": "integer"}}
    assert put["required"] == ["thing"]
    assert graded(drawers, *PUT, *LOOK, "§</think>Bye.").reward == 1
    other_way = (c("open", drawer="top"), c("put", thing="pen"), c("put", thing="pen"), "§</think>Done.")
    refused = graded(drawers, *other_way)  # the state is right, but a result of the gold calls was never seen
    assert (refused.reward, refused.components["state"]) == (0, 0)
    detour = (c("open", drawer="cellar"), c("drop_tables"), *PUT)
    assert graded(drawers, *detour, *LOOK, "§</think>Bye.").reward == 1
    for wrong in (
        (*PUT[:1], "§</think>Done."),
        ("§</think>Done.",),
        (*PUT, "§</think>Tape, I guess."),
        (*PUT, c("open", drawer="lower"), "§</think>Tape."),
        (*PUT, *LOOK[:2], c("put", thing="pen"), "§</think>Tape."),
    ):
        assert graded(drawers, *wrong).reward == 0
    result = play(drawers, c("look", nothing=1))[0]
    assert isinstance(result, Turn) and result.messages[0]["content"].startswith("Error during execution")


HELD: dict[str, Any] = {  # as BFCL_v3_multi_turn_miss_func.json: the turn in which `put` comes is empty
    **BASE,
    "id": "multi_turn_miss_func_0",
    "question": [BASE["question"][0], [], *BASE["question"][1:]],
    "missed_function": {"1": ["put"]},
}
LATER = {"id": "multi_turn_miss_func_0", "ground_truth": [[], *POSSIBLE["ground_truth"]]}


def test_a_function_that_is_held_back_comes_in_its_turn(tmp_path: Path) -> None:
    task = read(tmp_path, HELD, LATER)
    assert [tool["name"] for tool in task.tools] == ["look", "open", "turn"]
    wait = "§</think>I cannot put things."
    reactions = play(task, c("put", thing="pen", count=2), wait, PUT[0], PUT[1])
    refused, asked, opened, put = ("".join(m["content"] for m in r.messages) for r in reactions)  # type: ignore[union-attr]
    assert "there is no tool 'put'" in refused
    assert '"name": "put"' in asked and asked.endswith("What about now?")
    assert (opened, put) == ('{"opened": "top"}', "2 pen")
    assert graded(task, wait, *PUT, *LOOK, "§</think>Bye.").reward == 1
    assert graded(task, c("open", drawer="top"), wait, *PUT, *LOOK, "§</think>Bye.").reward == 1  # as in BFCL
    assert graded(task, wait, "§</think>I still cannot.").reward == 0
    early = (*PUT[:2], wait, *PUT, *LOOK, "§</think>Bye.")  # what is called too early does nothing
    assert graded(task, *early).reward == 1


@pytest.mark.parametrize(
    ("missed", "user"),
    [
        ({"0": ["put"]}, None),
        ({"4": ["put"]}, None),
        ({"x": ["put"]}, None),
        ({"1": ["pull"]}, None),
        ({"1": "put"}, None),
        (["put"], None),
        ({"1": ["put"]}, {"script": ["one line"]}),
    ],
)
def test_a_faulty_missed_function_is_told(tmp_path: Path, missed: Any, user: Any) -> None:
    row = {**HELD, "missed_function": missed}
    if user is None:
        with pytest.raises(UserError, match="missed_function"):
            read(tmp_path, row, LATER)
    else:
        environment = DIALOGUES.with_options({"classes": {"Drawers": "simulated_interface"}})
        with pytest.raises(ValueError, match="missed_function"):
            messages = {"input": HELD["question"][0]}
            environment.from_row({**row, **LATER, "user": user, "responses_create_params": messages})


def test_bfcl_rows_without_a_parameter_or_with_a_long_context(tmp_path: Path) -> None:
    """The user leaves the count out and tells it when asked; the classes fill up their state."""
    question = [BASE["question"][0], [{"role": "user", "content": "Two."}], *BASE["question"][1:]]
    task = read(
        tmp_path,
        {**BASE, "id": "multi_turn_miss_param_0", "question": question},
        {**LATER, "id": "multi_turn_miss_param_0"},
    )
    assert graded(task, "§</think>How many?", *PUT, *LOOK, "§</think>Bye.").reward == 1
    assert graded(task, "§</think>How many?", "§</think>Done.").reward == 0
    crowded = read(
        tmp_path, {**BASE, "id": "multi_turn_long_context_0"}, {**POSSIBLE, "id": "multi_turn_long_context_0"}
    )
    attic = play(crowded, c("open", drawer="attic"), c("look"))[1]
    assert isinstance(attic, Turn) and attic.messages[0]["content"].count("dust") == 1000
    assert graded(crowded, *PUT, *LOOK, "§</think>Bye.").reward == 1


def test_what_a_call_asks_of_a_class_cannot_stop_or_fill_the_run(tmp_path: Path) -> None:
    task = read(tmp_path, BASE, POSSIBLE, call_seconds=0.3)
    for call, answer in (
        (c("turn", times=10**12), "more than 0.3 s"),
        (c("put", thing="a", count=10**14), "Error"),
    ):
        session, other = DIALOGUES.start(task), DIALOGUES.start(task)
        assert session is not None and other is not None
        for one in (session, other):
            one.respond(PUT[0])
        said = session.respond(call)
        assert isinstance(said, Turn) and answer in said.messages[0]["content"]
        last = [
            [one.respond(answer) for answer in (*PUT[1:], *LOOK, "§</think>Bye.")][-1]
            for one in (other, session)
        ]
        assert [(grade.reward, grade.error) for grade in last if isinstance(grade, Grade)] == [(1, None)] * 2
        session.close()
        other.close()


@pytest.mark.parametrize(
    "argument",
    ["__import__('os').system('touch PROOF')", "(lambda: open('PROOF', 'w'))()", "{1: 2}.__class__"],
)
def test_no_argument_is_run_as_code(tmp_path: Path, argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = read(tmp_path, BASE, POSSIBLE)
    written = f"<tool_call><function=open><parameter=drawer>{argument}</parameter></function></tool_call>"
    said = play(task, f"§</think>{written}", c("_load_scenario", scenario={}), c("__init__"))
    assert all(isinstance(one, Turn) for one in said)
    assert isinstance(said[0], Turn) and f"no drawer {argument}" in said[0].messages[0]["content"]
    assert ["no tool" in one.messages[0]["content"] for one in said[1:] if isinstance(one, Turn)] == [
        True,
        True,
    ]
    with pytest.raises(UserError, match="literal"):
        read(tmp_path, BASE, {**POSSIBLE, "ground_truth": [[f"open({argument})"], [], []]})
    assert not (tmp_path / "PROOF").exists()
