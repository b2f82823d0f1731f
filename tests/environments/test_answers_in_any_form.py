"""What an answer means: read generously in form, strictly in value. Programs, sums and repairs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kascade.environments import Task, get_environment
from kascade.environments.fences import fenced_blocks
from kascade.environments.math.forms import form_of, parts, unit_of
from kascade.environments.math.numbers import same_value
from kascade.environments.software_engineering.diffs import apply_diff, diff_of
from kascade.environments.software_engineering.edits import apply_edits, parse_edits
from kascade.environments.software_engineering.lines import EditError
from kascade.task import Grade

ECHO = "print(input())"


def graded(name: str, row: dict[str, Any], *answers: str) -> list[Grade]:
    asked = {"responses_create_params": {"input": "q"}}
    grades = get_environment(name).grade(get_environment(name).from_row({**asked, **row}), answers)
    assert not [grade.error for grade in grades if grade.error]
    return grades


def rewards(name: str, row: dict[str, Any], *answers: str) -> list[float]:
    return [grade.reward for grade in graded(name, row, *answers)]


def stdin(given: str, wanted: str, **more: Any) -> dict[str, Any]:
    return {"unit_tests": {"inputs": [given], "outputs": [wanted], "time_limit_secs": 5, **more}}


FENCED = [
    f"\ufeff{ECHO}",
    f"```python\n{ECHO}\n```",
    f"``` python\n{ECHO}\n```",
    f"```python3\n{ECHO}\n```",
    f"```Python 3.11\n{ECHO}\n```",
    f"```{{.python}}\n{ECHO}\n```",
    f"~~~py\n{ECHO}\n~~~",
    f"````python\n{ECHO}\n````",
    f"1. The program:\n\n    ```python\n    {ECHO}\n    ```",
    f"Here:```python\n{ECHO}\n```",
    f"```python\n{ECHO}```",
    f"```python\r\n{ECHO}\r\n```\r\n",
    f"```python\n{ECHO}",
    f"```\n{ECHO}\n```",
    f"```text\n7\n```\n```python\n{ECHO}\n```",
    f"```sh\npython a.py\n```\nThen\n~~~python\n{ECHO}\n~~~\nprints\n```\n7\n```",
    f"```python\n{ECHO}\n```\nIts output:\n```text\n7\n```",
    f"Input:\n```\n7\n```\n```python\n{ECHO}\n```",
]


@pytest.mark.parametrize("answer", FENCED)
def test_a_program_is_found_in_every_usual_fence(answer: str) -> None:
    assert rewards("code_gen", stdin("7\n", "7\n"), answer) == [1]


def test_words_between_two_blocks_are_no_program() -> None:
    answer = f"```text\n7\n```\n{ECHO}\n```text\n7\n```"
    assert rewards("code_gen", stdin("7\n", "7\n"), answer) == [0]
    assert [block.tag for block in fenced_blocks("```a\n```\n~~~ b c\n```\n~~~\n")] == ["a", "b"]


RUNS = [
    "print(1)\nexit()",
    "print(1)\nquit(0)",
    "import sys\nprint(1)\nsys.exit(2)",
    "print(max(Counter('abb').values()) - 1)",
    "@lru_cache(None)\ndef f(n): return 1 if n == 0 else f(n - 1)\nprint(f(9000))",
    "def f(n): return 1 if n == 0 else f(n - 1)\nprint(f(30000))",
    "h = [2, 1]\nheapify(h)\nprint(heappop(h))",
    "print(bisect_left([0, 5], 3), end='')",
    "print(int(inf > 0))",
    "print(gcd(3, 4))",
    "print(next(accumulate([1])))",
    "print(datetime.timedelta(days=1).days)",
    "import os, atexit\nfrom io import BytesIO\nb = BytesIO(os.read(0, os.fstat(0).st_size))\n"
    "out = BytesIO()\natexit.register(lambda: os.write(1, out.getvalue()))\nout.write(b'1')",
    "f = open(1, 'w')\nf.write('1')",
    "print(open(0).read().strip())",
    "import sys\nprint(sys.stdin.buffer.readline().decode())",
    "import fileinput\nprint([line for line in fileinput.input()][0])",
    "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\n"
    "def f(n): return 1 if n == 0 else f(n - 1)\n"
    "threading.Thread(target=lambda: print(f(40000))).start()\nsys.exit()",
    "import sys\nprint(1)\nsys.stdout.close()",
    "print(len(str(3 ** 20000)) - 9542)",
]


@pytest.mark.parametrize("program", RUNS)
def test_programs_find_what_the_reference_executor_gives_them(program: str) -> None:
    assert rewards("code_gen", stdin("1\n", "1\n"), program) == [1]


def test_the_prelude_answers_nothing_by_itself() -> None:
    suite = {"fn_name": "gcd", "inputs": ["4\n6"], "outputs": ["2"]}
    solution = "class Solution:\n    def gcd(self, a, b):\n        return math.gcd(a, b)"
    assert rewards("code_gen", {"unit_tests": suite}, "pass", solution, "from math import gcd") == [0, 1, 1]


@pytest.mark.parametrize("said", ["sNaN", "NaN", "-sNaN123", "1e999999999", "Infinity", "9" * 5000])
@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_numbers_that_cannot_be_compared_are_wrong_answers(said: str, tolerance: float) -> None:
    row = stdin("1", "5\n", float_tolerance=tolerance)
    assert rewards("code_gen", row, f"print({said!r})", "print(5)") == [0, 1]


def test_only_line_feeds_end_a_line_of_output() -> None:
    assert rewards("code_gen", stdin("1", "a\x0cb\n"), "print('a\\x0cb')", "print('a\\nb')") == [1, 0]
    assert rewards("code_gen", stdin("1", "a\r\nb\r\n"), "print('a\\nb')") == [1]


VALUES = [  # expected, given, equal
    ("12", "1,2", 0), ("123", "1,2,3", 0), ("1,2", "12", 0), ("1000", "1,000", 1), ("1000", r"1\,000", 1),
    ("1000", "1{,}000", 1), ("1,23", "12,3", 0), ("12", "1 2", 0), ("12", r"1\,2", 0), ("52", "5²", 0),
    ("12", "1_2", 0), ("1000000", "1,000,000", 1), ("100000", "1,000,00", 0), ("1e5", "100000", 1),
    (r"\frac{1}{3}", "0.333333", 0), (r"\frac{1}{3}", r"0.\overline{3}", 1), (r"\sqrt{2}", "1.41421356", 1),
    (r"\sqrt{2}", "1.4142", 0), (r"\frac{1}{10^{9}}", "0.000000002", 0),
    (r"\{0.0000001\}", r"\{0.0000002\}", 0),
    ("[0.0000001,1]", "[0.0000002,1]", 0), (r"0.0000001\%", r"0.0000002\%", 0),
    ("0.1234567", "0.12345674", 0),
    (r"1.5\times 10^{-8}", "0.000000015", 1), (r"1.5\times 10^{-8}", r"2.5\times 10^{-8}", 0),
    ("5", "5, 6", 0), ("5", "5,5", 0), ("5", r"5\text{ or } 6", 0), ("5", r"5\text{ or more}", 0),
    ("5", r"\neq 5", 0),
    ("5", "4=5", 0), ("5", r"6\to 5", 0), ("56", r"5\text{ }6", 0), ("1200", r"1\text{ km }200\text{ m}", 0),
    (r"\{1,2\}", "(1,2)", 0), ("(1,2)", r"\{1,2\}", 0), (r"\{1,2\}", r"\{2,1\}", 1), ("1,1,2", "1,2", 0),
    ("(1,2)", "1,2", 1), ("1,2,3", "(3,2,1)", 0), ("x=1,y=2", "2,1", 0), ("x=1,y=2", "y=2,x=1", 1),
    (r"\pm 1", "1", 0), ("1", r"\pm 1", 0), (r"\pm 1", "1,-1", 1), (r"x=\pm 2", "2", 0),
    (r"1\pm 2", "3,-1", 1),
    ("101_2", "101_3", 0), (r"5\text{ cm}", r"5\text{ m}", 0), (r"5\text{ cm}", r"5\text{ centimeters}", 1),
    (r"5\text{ cm}", "5", 1), ("5", r"\leq 5", 0), ("5", "<5", 0), (r"x\geq 0", r"[0,\infty)", 1),
    ("10^{-12}", "1e-12", 1), ("10^{-12}", "10^{-13}", 0), ("x^2", "x\u00b2", 1), ("52", "5\u00b2", 0),
    (r"2\pi", "2\u03c0", 1), (r"\sqrt{2}", "\u221a2", 1), ("50", r"50\%", 1), ("0.5", r"50\%", 1),
    (r"\{5\}", "5", 1),
]  # fmt: skip


def test_unequal_values_are_unequal_and_equal_ones_equal_however_they_are_written() -> None:
    task: dict[str, Task] = {}
    found = []
    for expected, given, _ in VALUES:
        answer = rf"So it is $\boxed{{{given}}}$."
        found.append(rewards("math_with_judge", {"expected_answer": expected}, answer)[0])
    assert not task
    assert found == [equal for _, _, equal in VALUES]


def test_parts_and_forms_of_answers() -> None:
    texts = ("1", "1,2", "(1,2)", r"\{1,2\}", "[1,2)", "(1)(2)", "(1,2),(3,4)")
    forms = ["one", "list", "tuple", "set", "closed", "one", "list"]
    assert [form_of(text) for text in texts] == forms
    assert parts("(1,(2,3)),4") == ["(1,(2,3))", "4"]
    assert [unit_of(text) for text in (r"5\text{ cm}", "5 inches", "5", r"5\mathrm{kg}")] == [
        "cm",
        "inch",
        None,
        "kg",
    ]
    assert same_value("x + 1", "x+1") is True
    assert same_value("1 2", "12") is None


BOXES = [
    r"\boxed 5",
    r"$\boxed5$",
    r"\fbox{5}",
    r"\framebox{5}",
    r"\boxed{\boxed{5}}",
    r"\boxed{$5$}",
    r"\boxed{5.}",
]


@pytest.mark.parametrize("box", BOXES)
def test_a_box_is_read_as_tex_reads_it(box: str) -> None:
    assert rewards("math_with_judge", {"expected_answer": "5"}, f"So {box}.") == [1]
    assert rewards("math_with_judge", {"expected_answer": "51"}, f"So {box}.") == [0]


def test_a_plain_answer_is_not_glued_of_a_list() -> None:
    row = {"expected_answer": "12", "convention": "plain"}
    assert rewards("math_with_judge", row, "It is 1,2", "It is 12", "It is .12", "It is 1e12") == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("answer", "earned"),
    [
        (r"Sure. <think>so \boxed{5}", 0),
        (r"<think>a</think>\boxed{4} <think>no: \boxed{5}", 0),
        (r"\boxed{5} <think>or is it \boxed{4}", 1),
        (r"<think>a</think>b<think>c</think>\boxed{5}", 1),
    ],
)
def test_thinking_that_never_ends_counts_for_nothing_wherever_it_opens(answer: str, earned: int) -> None:
    assert rewards("math_with_judge", {"expected_answer": "5"}, answer) == [earned]


def repair(text: str, name: str = "f.py") -> dict[str, Any]:
    tests = {"t": {"input": "1", "output": "2"}}
    instance = {"instance_id": "i", "FAIL_TO_PASS": '["t"]', "PASS_TO_PASS": "[]", "patch": ""}
    return {
        "mode": "eval",
        "metadata": {"relevant_file_contents": json.dumps({name: text})},
        "instance": {**instance, "unit_tests": {"fn_name": "f", "tests": tests}},
    }


BODY = "def f(x):\n    return x"
EDIT = "<<<<<<< SEARCH\n    return x\n=======\n    return x + 1\n>>>>>>> REPLACE"
DIFF = "--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n def f(x):\n-    return x\n+    return x + 1\n"
ADDED = "--- /dev/null\n+++ b/g.py\n@@ -0,0 +1 @@\n+K = 1\n"
USES = DIFF.replace("return x + 1", "from g import K; return x + K")


@pytest.mark.parametrize("end", ["", "\n", " \n", "\x0c\n", "\n\n"])
@pytest.mark.parametrize("breaks", ["\n", "\r\n"])
def test_ends_of_lines_do_not_decide_a_repair(end: str, breaks: str) -> None:
    text = (BODY + end).replace("\n", breaks)
    answers = [
        EDIT,
        f"### f.py\n{EDIT}",
        f"```\n{EDIT}\n```",
        DIFF,
        f"```diff\n{DIFF}```\n\nDone.",
        DIFF + ADDED,
    ]
    answers += [answer.replace("\n", "\r\n") for answer in answers]
    answers += [
        EDIT.replace("SEARCH", "SEARCH  "),
        EDIT.replace("=\n", "= \n"),
        EDIT.replace("x\n=", "x  \n="),
    ]
    answers += [
        f"Change f:\n{EDIT}",
        f"f.py\n```python\n{EDIT}\n```",
        EDIT.replace("CH\n", "CH\n\n").replace("=\n", "=\n\n"),
    ]
    assert rewards("swerl_gen", repair(text), *answers) == [1] * len(answers)


def test_a_byte_order_mark_decides_nothing() -> None:
    row = repair(f"\ufeff{BODY}\n")
    assert rewards("swerl_gen", row, EDIT, f"\ufeff{EDIT}", DIFF.replace(" def", " \ufeffdef")) == [1, 1, 1]


def test_a_patch_may_add_files_that_what_runs_it_sees() -> None:
    new = "### g.py\n<<<<<<< SEARCH\n=======\nK = 1\n>>>>>>> REPLACE"
    used = EDIT.replace("return x + 1", "from g import K; return x + K")
    answers = [USES + ADDED, ADDED + USES, f"### f.py\n{used}\n{new}", USES]
    assert rewards("swerl_gen", repair(f"{BODY}\n"), *answers) == [1, 1, 1, 0]


def test_diffs_remove_and_rename_files_and_say_so_to_each_other() -> None:
    files = {"a.py": "x = 1\n", "b.py": "y = 2"}
    gone = "--- a/b.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-y = 2\n"
    assert apply_diff(files, gone) == {"a.py": "x = 1\n"}
    moved = "diff --git a/b.py b/c.py\nrename from b.py\nrename to c.py\n"
    assert apply_diff(files, moved) == {"a.py": "x = 1\n", "c.py": "y = 2"}
    assert apply_diff({"b.py": "y = 2"}, "--- a/b.py\n+++ b/b.py\n@@\n-y = 2\n+y = 3\n") == {"b.py": "y = 3"}
    assert diff_of(files, {**files, "b.py": "y = 2\n"}) == ""
    with pytest.raises(EditError):
        apply_diff(files, "--- a/d.py\n+++ b/d.py\n@@ -1 +1 @@\n-z\n+w\n")


def test_a_file_keeps_its_line_ends_and_what_an_edit_does_not_change() -> None:
    text = "a \r\nb\r\nc"
    edit = parse_edits("<<<<<<< SEARCH\na\nb\nc\n=======\na\nB\nc\n>>>>>>> REPLACE")
    assert apply_edits({"f": text}, edit) == {"f": "a \r\nB\r\nc"}


def test_a_heading_underlined_like_a_divider_stays_in_the_text() -> None:
    text = "T\n=======\nx\n"
    edit = "<<<<<<< SEARCH\nT\n=======\nx\n=======\nT\n=======\ny\n>>>>>>> REPLACE"
    assert apply_edits({"f": text}, parse_edits(edit)) == {"f": "T\n=======\ny\n"}
    only_new = "<<<<<<< SEARCH\nx\n=======\nU\n=======\ny\n>>>>>>> REPLACE"
    assert apply_edits({"f": text}, parse_edits(only_new)) == {"f": "T\n=======\nU\n=======\ny\n"}


@pytest.mark.parametrize(
    "answer",
    [
        DIFF.replace("-1,2", "-" + "9" * 5000 + ",2"),
        "--- a/f.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-def f(x):\n-    return x\n",
        "### ../g.py\n<<<<<<< SEARCH\n=======\nK = 1\n>>>>>>> REPLACE",
        "rename from f.py\nrename to g.py\n",
        "<<<<<<< SEARCH\n" * 2000,
        "<<<<<<< SEARCH\n" + "=======\n" * 2000 + ">>>>>>> REPLACE",
    ],
)  # fmt: skip
def test_no_patch_makes_the_grader_raise(answer: str) -> None:
    assert rewards("swerl_gen", repair(f"{BODY}\n"), answer) == [0]
