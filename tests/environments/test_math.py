"""Math answers: equal in value however they are written, and what must not pass or hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.environments import Task, get_environment
from kascade.environments.math.boxes import last_boxed
from kascade.environments.math.environment import extract
from kascade.environments.math.numbers import as_number
from kascade.environments.math.verification import VerificationError, Verifier, VerifierUnavailable
from kascade.task import Grade


def task(expected: str, **fields: Any) -> Task:
    row = {
        "responses_create_params": {"input": "Solve it."},
        "question": "Solve it.",
        "expected_answer": expected,
    }
    return get_environment("math_with_judge").from_row({**row, **fields})


def graded(expected: str, answer: str, **fields: Any) -> Grade:
    (grade,) = get_environment("math_with_judge").grade(task(expected, **fields), [answer])
    return grade


EQUAL = [
    ("32", "32"),
    ("1/2", "0.5"),
    ("0.5", r"\frac12"),
    (r"\(\frac{333}{1997}\)", r"\frac{666}{3994}"),
    (r"-\frac{\sqrt{2}}{4}", r"-\frac{1}{2\sqrt{2}}"),
    ("[1,2)", r"\left[1, 2\right)"),
    (r"\{1,2\}", r"\{2, 1\}"),
    ("(1, 2)", r"\left(1,2\right)"),
    ("5", r"5\text{ cm}"),
    ("50", r"50\%"),
    (r"5\%", "0.05"),
    ("x^2+1", "1+x^2"),
    ("x=3", "3"),
    ("1,000", "1000"),
    ("$32$", "32.0"),
    ("-7", "\u22127"),
    ("32", "\uff13\uff12"),
    (r"\text{Yes}", r"\text{Yes}"),
]  # fmt: skip
UNEQUAL = [
    ("32", "33"),
    ("32", "3.2"),
    ("1/3", "0.33"),
    ("[1,2)", "[1,2]"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\{1,2\}", r"\{1\}"),
    ("(1, 2)", "(2, 1)"),
    (r"\frac{1}{3}", r"\frac{1}{2}"),
    ("x^2+1", "x^2-1"),
    ("5", r"5 \text{ or } 6"),
    ("32", "\u04172"),  # a Cyrillic letter
    ("7", r"\text{the expected answer}"),
    (r"\sqrt{2}", r"expected\_answer"),
    ("7", "\\frac{"),
    (r"\pi", "3.14"),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "given"), EQUAL)
def test_equal_answers(expected: str, given: str) -> None:
    assert graded(expected, rf"So it is \boxed{{{given}}}.").reward == 1


@pytest.mark.parametrize(("expected", "given"), UNEQUAL)
def test_unequal_answers(expected: str, given: str) -> None:
    grade = graded(expected, rf"So it is \boxed{{{given}}}.")
    assert grade.error is None
    assert grade.reward == 0


ATTEMPTS = [  # answer, reward under the boxed convention, under the plain one
    (r"\boxed{7}", 1, 1),
    (r"First \boxed{6}, no: \boxed{7}", 1, 1),
    (r"\boxed{7} or \boxed{6}", 0, 0),
    (r"<think>\boxed{7}</think>I do not know.", 0, 0),
    (r"\boxed{6}</think>\boxed{7}", 1, 1),
    (r"\boxed{\text{7}}", 1, 1),
    (r"\boxed{}", 0, 0),
    (r"\boxed{7", 0, 0),
    ("The answer is 7.", 0, 1),
    ("It is $7$", 0, 1),
    ("It is 6, not 7, so 8", 0, 0),
    (r"\boxed{6} is wrong, the answer is 7", 0, 0),
    (r"\boxed{5, 6, 7, 8}", 0, 0),
    (r"\boxed{\{6, 7\}}", 0, 0),
    ("", 0, 0),
    ("\x00\ud800", 0, 0),
]


@pytest.mark.parametrize(("answer", "boxed", "plain"), ATTEMPTS)
def test_where_the_answer_stands(answer: str, boxed: int, plain: int) -> None:
    assert graded("7", answer).reward == boxed
    assert graded("7", answer, convention="plain").reward == plain


def test_a_box_may_hold_braces() -> None:
    assert last_boxed(r"\boxed{\frac{1}{\sqrt{2}}} and \boxed {x}") == "x"
    assert last_boxed(r"\boxed{\frac{1}{\sqrt{2}}}") == r"\frac{1}{\sqrt{2}}"
    assert last_boxed(r"\boxed{1} \boxed{2") == "1"
    assert last_boxed(r"$\boxed 5$, \fbox{6}, $\boxed\frac{1}{2}$") == r"\frac{1}{2}"
    assert last_boxed(r"So $\boxed 12$.") == "12"
    assert last_boxed(r"\boxed{\left\{1\right.}") == r"\left\{1\right."


def test_numbers_that_would_fill_the_memory_are_no_numbers() -> None:
    assert as_number("1e999999999") is None
    assert as_number("9" * 1000) is None
    assert as_number("1/0") is None
    assert as_number("1,234.5") == as_number("12345/10")


TOWER = (r"9^{9^{9^{9}}}+1", r"\boxed{9^{9^{9^{9^{9}}}}+\sin(10^{10^{10}})}")


def test_a_comparison_that_hangs_is_an_error_and_the_next_one_works() -> None:
    verifier = Verifier()
    try:
        with pytest.raises(VerificationError, match=r"longer than 1 s of CPU time|memory|died"):
            verifier.equal(*TOWER, seconds=1)
        start = time.monotonic()
        with pytest.raises(VerificationError):  # known to hang
            verifier.equal(*TOWER, seconds=1)
        assert time.monotonic() - start < 0.9  # not compared again
        assert verifier.equal(r"\frac12", r"\boxed{\frac24}")
    finally:
        verifier.close()


@contextmanager
def stalled(verifier: Verifier) -> Iterator[int]:
    """The verifier's process gets no processor, as on a machine with much else to do."""
    assert verifier.equal(r"\frac12", r"\boxed{\frac24}")
    assert verifier._worker._process is not None
    pid = verifier._worker._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_busy_machine_is_not_the_answers_fault() -> None:
    verifier = Verifier(seconds=0.5)
    try:
        with stalled(verifier) as pid:
            Timer(1.5, os.kill, (pid, signal.SIGCONT)).start()
            start = time.monotonic()
            assert verifier.equal(r"\sqrt{8}", r"\boxed{2\sqrt{2}}")
            assert time.monotonic() - start > 1  # three times what it may compute
        with stalled(verifier), pytest.raises(VerifierUnavailable, match=r"within 0\.3 s.*too busy"):
            verifier.equal(r"\sqrt{8}", r"\boxed{2\sqrt{2}}", wall_seconds=0.3)
        assert verifier.equal(r"\sqrt{8}", r"\boxed{2\sqrt{2}}")  # not held against the answer
    finally:
        verifier.close()


def test_threads_and_forks_share_a_verifier() -> None:
    verifier = Verifier(seconds=60.0)
    try:
        pairs = [(rf"\frac{{{n}}}{{7}}", rf"\boxed{{\frac{{{2 * n}}}{{14}}}}") for n in range(1, 9)]
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda pair: verifier.equal(*pair), pairs))
        child = os.fork()
        if child == 0:  # its own worker, not its parent's pipe
            os._exit(0 if verifier.equal(r"\frac12", r"\boxed{\frac24}") else 1)
        assert verifier.equal(r"\sqrt{8}", r"\boxed{2\sqrt{2}}")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        verifier.close()


@settings(max_examples=300, deadline=None)
@given(answer=st.text(max_size=200))
def test_no_text_makes_the_extraction_fail(answer: str) -> None:
    for boxed_only in (False, True):
        found = extract(answer, boxed_only=boxed_only)
        assert found is None or found.text


PIECES = [*r"0123456789+-*/^=<>(){}[],.|_&%$x y\\", r"\frac", r"\sqrt", r"\pi", r"\text{a}", r"\cup",
          r"\infty", r"\le", r"\begin{matrix}", r"\boxed{"]  # fmt: skip
SIGNS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(max_examples=60, deadline=None)
@given(answer=SIGNS)
def test_no_formula_crashes_the_grader(answer: str) -> None:
    grade = graded(r"\frac{1}{3}", rf"\boxed{{{answer}}}")
    assert grade.reward in (0, 1)
    assert grade.error is None or "math-verify" in grade.error


def test_a_bad_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="convention"):
        task("7", convention="boxd")
