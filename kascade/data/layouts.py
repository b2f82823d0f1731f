"""How published data sets lay out their rows, as the fields that environments read.

One function a layout, named by `layout` of a data source. Each returns the row with our fields added, among
them `prompt`, which a data source's own `prompt` template replaces; it may use every field. Raises
ValueError ("field: what is wrong"). Sources: the data sets' own cards, named at each function.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from kascade.data.json_text import within
from kascade.data.nemotron_layouts import nemotron_cascade_2
from kascade.data.packed_tests import unpacked

Row = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def multiple_choice(row: Row) -> Row:
    """MMLU and MMLU-Redux (`choices`, `answer` as index), MMLU-Pro (`options`, `answer` as letter)."""
    name = "choices" if row.get("choices") else "options"
    options, answer = row.get(name), row.get("answer")
    if not isinstance(options, Sequence) or isinstance(options, str) or not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"{name}: a list of 2 to {len(LETTERS)} answers is needed")
    if isinstance(answer, str) and answer.isdecimal():
        answer = int(answer)
    letters = LETTERS[: len(options)]
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        answer = letters[answer]
    if not isinstance(answer, str) or answer not in tuple(letters):
        raise ValueError(f"answer: {answer!r} is neither the index nor the letter of one of the options")
    texts = [_plain(option, f"{name}[{index}]") for index, option in enumerate(options)]
    return {**row, **_choice(_text(row, "question"), texts, answer)}


def gpqa(row: Row) -> Row:
    """GPQA (Idavidrein/gpqa): one right answer and three wrong ones; the order is drawn from the question."""
    question, right = _text(row, "Question"), _text(row, "Correct Answer")
    options = [right, *(_text(row, f"Incorrect Answer {n}") for n in (1, 2, 3))]
    random.Random(hashlib.sha256(question.encode()).hexdigest()).shuffle(options)
    return {**row, **_choice(question, options, LETTERS[options.index(right)])}


def longbench(row: Row) -> Row:
    """LongBench v2 (THUDM/LongBench-v2): `context`, `question`, `choice_A` to `choice_D`, `answer`."""
    options = [_text(row, f"choice_{letter}") for letter in "ABCD"]
    found = _choice(_text(row, "question"), options, _text(row, "answer"))
    return {**row, **found, "prompt": f"{_text(row, 'context')}\n\n{found['prompt']}"}


def math(row: Row) -> Row:
    """AIME, HMMT and their like: `problem` (or `question`) and `answer`."""
    question = _text(row, "problem" if "problem" in row else "question")
    return {**row, "question": question, "expected_answer": _answer(row), "prompt": question}


def ifeval(row: Row) -> Row:
    """IFEval (google/IFEval): `instruction_id_list`, `kwargs`; all instructions of a prompt, strictly."""
    kwargs = row.get("kwargs") or []
    if not isinstance(kwargs, list):
        raise ValueError(
            f"kwargs: is a {type(kwargs).__name__}; a list with one object per instruction is needed"
        )
    kwargs = [within(one, f"kwargs[{index}]") for index, one in enumerate(kwargs)]
    return {**row, "prompt": _text(row, "prompt"), "kwargs": kwargs}


def ifbench(row: Row) -> Row:
    """IFBench (allenai/IFBench_test), laid out like IFEval: all instructions of a prompt, loosely.

    Its metric is prompt-level loose accuracy (arXiv 2507.02833), where RL rewards the share followed.
    """
    return {"grading_mode": "binary", "strictness": "loose", **ifeval(row)}


def live_code_bench(row: Row) -> Row:
    """LiveCodeBench (livecodebench/code_generation_lite): public and private test cases, starter code."""
    tests = [*_tests(row, "public_test_cases"), *_tests(row, "private_test_cases")]
    if not tests:
        raise ValueError("public_test_cases: neither it nor private_test_cases holds a test")
    metadata = _object(row, "metadata")
    units: Row = {"inputs": [one["input"] for one in tests], "outputs": [one["output"] for one in tests]}
    if metadata.get("func_name"):
        units["fn_name"] = metadata["func_name"]
    question = _text(row, "question_content")
    starter = row.get("starter_code") or ""
    prompt = f"{question}\n\nStart from this code:\n```python\n{starter}\n```" if starter else question
    return {**row, "question": question, "prompt": prompt, "verifier_metadata": {"unit_tests": units}}


def _tests(row: Row, name: str) -> list[Mapping[str, Any]]:
    """Test cases as JSON, or as LiveCodeBench packs its private ones. Raises ValueError."""
    given = row.get(name) or "[]"
    is_packed = isinstance(given, str) and not given.lstrip().startswith("[")
    tests = unpacked(given, name) if is_packed else within(given, name)
    if not isinstance(tests, list) or not all(
        isinstance(one, dict) and {"input", "output"} <= one.keys() for one in tests
    ):
        raise ValueError(f"{name}: a list of {{input, output}} is needed")
    return tests


def arena_hard(row: Row) -> Row:
    """Arena-Hard (lmarena-ai/arena-hard-auto): `prompt` and the baseline's answer, joined as `baseline`."""
    if not isinstance(row.get("baseline"), str):
        raise ValueError("baseline: the baseline model's answer is needed; map its column with `columns`")
    return {**row, "prompt": _text(row, "prompt")}


def bfcl(row: Row) -> Row:
    """BFCL: `question` (turns of messages), `function`, and `ground_truth` of the possible answers.

    The answers are published in files of their own (`possible_answer/`): `join` them. Categories without any
    are known by their ids: of irrelevance (no function answers the question), of relevance (some do).
    """
    turns = row.get("question")
    if not isinstance(turns, list) or not turns:
        raise ValueError("question: a list of turns, each a list of messages, is needed")
    if "involved_classes" in row:
        raise ValueError("involved_classes: is a dialogue's; those are read with layout bfcl_multi_turn")
    category = str(row.get("id"))
    any_call = "relevance" in category and "irrelevance" not in category
    answers = row.get("ground_truth", [] if "relevance" in category else None)
    if not isinstance(answers, list):
        raise ValueError(
            "ground_truth: is missing; name the possible_answer file of these rows as `join.path`"
        )
    messages = turns[0] if isinstance(turns[0], list) else turns
    functions = row.get("function") or []
    if not isinstance(functions, list) or not all(isinstance(one, dict) for one in functions):
        raise ValueError("function: a list of definitions is needed")
    tools = [{"type": "function", **function} for function in functions]
    return {**row, "prompt": messages, "tools": tools, "ground_truth": answers, "any_call": any_call}


def bfcl_multi_turn(row: Row) -> Row:
    """BFCL's dialogues: `question` (turns), `involved_classes`, `initial_config`, joined `ground_truth`."""
    turns = row.get("question")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, list) for turn in turns):
        raise ValueError("question: a list of turns, each a list of messages, is needed")
    if not isinstance(row.get("ground_truth"), list):
        raise ValueError(
            "ground_truth: is missing; name the possible_answer file of these rows as `join.path`"
        )
    later = ["\n".join(_said(turn, f"question[{index}]")) for index, turn in enumerate(turns[1:], 1)]
    return {**row, "prompt": turns[0], "user": {"script": later}}


def swe_bench(row: Row) -> Row:
    """SWE-bench (princeton-nlp/SWE-bench_Verified): the issue, the repository and its tests.

    `relevant_file_contents` {path: text} is what an answer without an agent may change; it is shown in a
    `prompt` template as {files}.
    """
    instance = {name: row[name] for name in row if name not in ("prompt", "relevant_file_contents")}
    for name in ("instance_id", "problem_statement", "FAIL_TO_PASS"):
        if name not in row:
            raise ValueError(f"{name}: is missing")
    files = _object(row, "relevant_file_contents")
    task = {
        "instance_id": row["instance_id"],
        "base_commit": row.get("base_commit"),
        "problem_statement": row["problem_statement"],
        "golden_patch": row.get("patch"),
        "instance_dict": json.dumps(instance),
    }
    return {
        **row,
        "instance": instance,
        "metadata": {"relevant_file_contents": json.dumps(files)},
        "create_params": {"metadata": task},
        "mode": "eval",
        "files": "\n\n".join(f"[start of {path}]\n{text}\n[end of {path}]" for path, text in files.items()),
        "prompt": _text(row, "problem_statement"),
    }


def ruler(row: Row) -> Row:
    """RULER as its own generator writes it: `input`, `outputs`; QA rows need any of the outputs."""
    outputs = row.get("outputs")
    if not isinstance(outputs, list) or not outputs:
        raise ValueError("outputs: a non-empty list of expected texts is needed")
    values = [_plain(one, f"outputs[{index}]") for index, one in enumerate(outputs)]
    return {**row, "prompt": _text(row, "input"), "expected_values": values}


def document_qa(row: Row) -> Row:
    """Questions about documents (AA-LCR and its like): `documents` (text or a list), `question`, `answer`."""
    documents = row.get("documents", row.get("context"))
    if isinstance(documents, Sequence) and not isinstance(documents, str):
        texts = [_plain(text, f"documents[{index}]") for index, text in enumerate(documents)]
        numbered = (f"BEGIN DOCUMENT {n}\n{text}\nEND DOCUMENT {n}" for n, text in enumerate(texts, 1))
        documents = "\n\n".join(numbered)
    if not isinstance(documents, str) or not documents:
        raise ValueError("documents: text or a list of texts is needed; map its column with `columns`")
    prompt = f"{documents}\n\n{_text(row, 'question')}"
    return {**row, "documents": documents, "expected_answer": _answer(row), "prompt": prompt}


def _choice(question: str, options: Sequence[str], letter: str) -> Row:
    listed = "\n".join(f"{key}: {text}" for key, text in zip(LETTERS, options, strict=False))
    return {
        "question": question,
        "options": [{key: text} for key, text in zip(LETTERS, options, strict=False)],
        "choices": listed,
        "expected_answer": letter,
        "prompt": f"{question}\n{listed}",
    }


def _object(row: Row, name: str) -> Mapping[str, Any]:
    """An object, or the JSON text of one; a field that is not there is an empty one."""
    value = within(row.get(name) or {}, name)
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: an object is needed")
    return value


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: text is needed")
    return value


def _answer(row: Row) -> str:
    """The final answer, which a number may be. Raises ValueError."""
    name = "answer" if "answer" in row else "expected_answer"
    answer = _plain(row.get(name), name)
    if not answer.strip():
        raise ValueError(f"{name}: is empty; give the final answer")
    return answer


def _plain(value: Any, where: str) -> str:
    """A text, or a number as text. Raises ValueError: of nothing, NaN or a list no text can be made."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        what = "is missing (null)" if value is None else f"{value!r} is no text and no number"
        raise ValueError(f"{where}: {what}")
    return str(value)


def _said(turn: Sequence[Any], where: str) -> Iterator[str]:
    """What the messages of a turn say. Raises ValueError."""
    for index, message in enumerate(turn):
        if not isinstance(message, Mapping):
            raise ValueError(f"{where}[{index}]: a message with role and content is needed")
        yield _plain(message.get("content"), f"{where}[{index}].content")


LAYOUTS: dict[str, Callable[[Row], Row]] = {
    "multiple_choice": multiple_choice,
    "gpqa": gpqa,
    "longbench": longbench,
    "math": math,
    "ifeval": ifeval,
    "ifbench": ifbench,
    "live_code_bench": live_code_bench,
    "arena_hard": arena_hard,
    "bfcl": bfcl,
    "bfcl_multi_turn": bfcl_multi_turn,
    "swe_bench": swe_bench,
    "ruler": ruler,
    "document_qa": document_qa,
    "nemotron_cascade_2": nemotron_cascade_2,
}
