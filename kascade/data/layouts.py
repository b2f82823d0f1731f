"""How published data sets lay out their rows, as the fields that environments read.

One function a layout, named by `layout` of a data source. Each returns the row with our fields added, among
them `prompt`, which a data source's own `prompt` template replaces; it may use every field. Raises
ValueError ("field: what is wrong"). Sources: the data sets' own cards, named at each function.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kascade.data.nemotron_layouts import nemotron_cascade_2

Row = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def multiple_choice(row: Row) -> Row:
    """MMLU and MMLU-Redux (`choices`, `answer` as index), MMLU-Pro (`options`, `answer` as letter)."""
    options = row.get("choices") or row.get("options")
    if not isinstance(options, Sequence) or isinstance(options, str) or len(options) < 2:
        raise ValueError("choices: a list of at least two answers is needed (or `options`)")
    answer = row.get("answer")
    if isinstance(answer, str) and answer.isdigit():
        answer = int(answer)
    letter = LETTERS[answer] if isinstance(answer, int) and 0 <= answer < len(options) else answer
    if not letter or str(letter) not in LETTERS[: len(options)]:
        raise ValueError(f"answer: {answer!r} is neither the index nor the letter of one of the options")
    return {**row, **_choice(_text(row, "question"), [str(option) for option in options], str(letter))}


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
    answer = row.get("answer", row.get("expected_answer"))
    if answer is None or not str(answer).strip():
        raise ValueError("answer: is missing or empty")
    return {**row, "question": question, "expected_answer": str(answer), "prompt": question}


def ifeval(row: Row) -> Row:
    """IFEval (google/IFEval): `instruction_id_list`, `kwargs`; all instructions of a prompt, strictly."""
    kwargs = row.get("kwargs") or []
    kwargs = [json.loads(one) if isinstance(one, str) else one for one in kwargs]
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
    metadata = row.get("metadata") or {}
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    units: Row = {"inputs": [one["input"] for one in tests], "outputs": [one["output"] for one in tests]}
    if metadata.get("func_name"):
        units["fn_name"] = metadata["func_name"]
    question = _text(row, "question_content")
    starter = row.get("starter_code") or ""
    prompt = f"{question}\n\nStart from this code:\n```python\n{starter}\n```" if starter else question
    return {**row, "question": question, "prompt": prompt, "verifier_metadata": {"unit_tests": units}}


def _tests(row: Row, name: str) -> list[Mapping[str, Any]]:
    """Test cases as JSON, or as LiveCodeBench packs its private ones: base64, zlib, a pickled JSON text."""
    packed = row.get(name) or "[]"
    try:
        if isinstance(packed, str) and not packed.lstrip().startswith("["):
            packed = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(packed)))).load()
        tests = json.loads(packed) if isinstance(packed, str) else packed
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{name}: cannot be unpacked: {error}") from None
    if not isinstance(tests, list) or not all(isinstance(one, dict) and "input" in one for one in tests):
        raise ValueError(f"{name}: a list of {{input, output}} is needed")
    return tests


class _TextOnly(pickle.Unpickler):
    """Reads pickled text and nothing else: without classes or functions a pickle can run nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"names {module}.{name}; only text is read")


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
    later = ["\n".join(str(message.get("content", "")) for message in turn) for turn in turns[1:]]
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
    return {**row, "prompt": _text(row, "input"), "expected_values": [str(one) for one in outputs]}


def document_qa(row: Row) -> Row:
    """Questions about documents (AA-LCR and its like): `documents` (text or a list), `question`, `answer`."""
    documents = row.get("documents", row.get("context"))
    if isinstance(documents, Sequence) and not isinstance(documents, str):
        numbered = (f"BEGIN DOCUMENT {n}\n{text}\nEND DOCUMENT {n}" for n, text in enumerate(documents, 1))
        documents = "\n\n".join(numbered)
    if not isinstance(documents, str) or not documents:
        raise ValueError("documents: text or a list of texts is needed; map its column with `columns`")
    question, answer = _text(row, "question"), row.get("answer", row.get("expected_answer"))
    if answer is None or not str(answer).strip():
        raise ValueError("answer: is missing or empty")
    prompt = f"{documents}\n\n{question}"
    return {**row, "documents": documents, "expected_answer": str(answer), "prompt": prompt}


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
    value = row.get(name) or {}
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{name}: is not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: an object is needed")
    return value


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: text is needed")
    return value


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
