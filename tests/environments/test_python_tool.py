"""The stateful Python tool, and C++: what runs, what is stopped, and what counts."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from kascade.environments import get_environment
from kascade.environments.base import Turn
from kascade.environments.code import cpp as cpp_tests
from kascade.environments.code.unit_tests import same_text
from kascade.environments.math.python_session import PythonSession
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.task import Grade

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nemo-gym"
CPP = get_environment("competitive_coding_challenges")


@pytest.fixture
def python() -> Any:
    session = PythonSession(cell_seconds=20, session_seconds=300, memory_mb=512, output_chars=2000)
    yield session
    session.close()


def test_cells_share_their_variables_and_show_values_prints_and_errors(python: PythonSession) -> None:
    assert python.run("x = 6\nprint('six')\nx * 7") == "six\n42\n"
    assert python.run("def f(n): return n + x\n") == ""
    assert python.run("f(1)") == "7\n"
    assert python.run("1 / 0").endswith("ZeroDivisionError: division by zero\n")
    assert "SyntaxError" in python.run("def (")
    assert python.run("import numpy as np; int(np.arange(4).sum())") == "6\n"
    assert len(python.run("print('y' * 10**6)")) == 2000
    assert python.run("import sys; sys.exit()") == "" and python.run("x") == "6\n"


def test_cells_that_hang_die_or_forge_lose_their_variables_only(python: PythonSession) -> None:
    python.run("x = 1")
    python._cell_seconds = 1
    assert "timed out" in python.run("import time; time.sleep(60)")
    python._cell_seconds = 20
    assert "NameError" in python.run("x")
    assert "session ended" in python.run("import os; os._exit(0)")
    assert "session ended" in python.run("import os; os.write(3, b'not json\\n')")
    assert "session ended" in python.run("import os\nwhile True: os.write(3, b'x' * 65536)")
    assert python.run("'on'") == "'on'\n"
    for code in ("open('/etc/passwd').read()", "import socket; socket.socket()", "bytearray(1 << 33)"):
        assert "Error" in python.run(code)


def test_a_conversation_calculates_and_answers() -> None:
    environment = get_environment("ns_tools")
    task = environment.pose(random.Random(0), 0.5)
    assert [g.reward for g in environment.grade(task, [str(task.reference), "", "\\boxed{-1}"])] == [1, 0, 0]
    session = environment.start(task)
    assert session is not None
    try:
        turn = session.respond(render_tool_call("stateful_python_code_exec", {"code": "a = 2\na + 40"}))
        assert isinstance(turn, Turn) and turn.messages[0]["content"] == "42\n"
        turn = session.respond(render_tool_call("rm", {"code": "1"}) + render_tool_call("rm", {}))
        assert (
            isinstance(turn, Turn)
            and len(turn.messages) == 2
            and "give `code`" in turn.messages[0]["content"]
        )
        grade = session.respond(str(task.reference))
        assert isinstance(grade, Grade) and (grade.reward, grade.components["num_calls"]) == (1.0, 3.0)
    finally:
        session.close()


def test_calls_are_counted_and_options_checked() -> None:
    environment = get_environment("math_with_code").with_options({"max_calls": 1})
    row = {"responses_create_params": {"input": "2+2?"}, "expected_result": "4"}
    session = environment.start(environment.from_row(row))
    assert session is not None
    code = render_tool_call("execute_python", {"code": "2 + 2"})
    assert isinstance(session.respond(code), Turn)
    turn = session.respond(code)
    assert isinstance(turn, Turn) and "no more than 1" in turn.messages[0]["content"]
    assert session.stop().reward == 0.0
    session.close()
    with pytest.raises(ValueError, match="expected_result"):
        environment.from_row({"responses_create_params": {"input": "?"}})
    with pytest.raises(ValueError, match=r"options\.max_calls"):
        environment.with_options({"max_calls": 0}).from_row(row)


@pytest.mark.parametrize("server", ["ns_tools", "math_with_code", "competitive_coding_challenges"])
def test_published_rows_load(server: str) -> None:
    file = PUBLISHED / server / "example.jsonl"
    if not file.is_file():
        pytest.skip(f"NOT RUN: no published NeMo-Gym rows of {server} beside the checkout")
    environment = get_environment(server)
    for line in file.read_text(encoding="utf-8").splitlines():
        task = environment.from_row(json.loads(line))
        (grade,) = environment.grade(task, [""])
        assert (grade.reward == 0.0) and ((grade.error is not None) == (server.startswith("comp")))


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="NOT RUN: no g++ here")


@needs_compiler
def test_cpp_is_compiled_run_and_compared() -> None:
    task = CPP.pose(random.Random(0), 0.5)
    hostile = '#include <cstdlib>\n#include <cstdio>\nint main(){ return system("cat *.in /etc/passwd"); }'
    wrong = "int main() { return 0; }"
    answers = [str(task.reference), str(task.reference), "", f"```cpp\n{wrong}\n```", "no program", hostile]
    grades = CPP.grade(task, answers)
    assert [(g.error, g.reward) for g in grades] == [(None, 1.0)] * 2 + [(None, 0.0)] * 4


@needs_compiler
def test_cpp_that_hangs_or_hoards_fails_its_tests() -> None:
    task = CPP.pose(random.Random(1), 0.0)
    hang = "int main() { for (volatile int i = 0;; i++); }"
    hoard = (
        "#include <vector>\nint main() { std::vector<char*> v; for (;;) { v.push_back(new char[1 << 24]); } }"
    )
    grades = CPP.grade(task, [hang, hoard])
    assert [(g.error, g.reward) for g in grades] == [(None, 0.0)] * 2


@needs_compiler
def test_a_compilation_has_limits_of_its_own() -> None:
    """About two seconds of evaluation at compile time."""
    loops = "for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) s += i ^ j;"
    slow = f"constexpr long long slow(int n) {{ long long s = 0; {loops} return s; }}\n"
    slow += "constexpr auto v = slow(1000), w = slow(1001), x = slow(1002);\n"
    source = f'#include <cstdio>\n{slow}int main() {{ puts(v + w + x ? "1" : "0"); }}'
    tests = {"inputs": [""], "outputs": ["1\n"]}
    row = {"responses_create_params": {"input": "Print 1."}, "unit_tests": tests}

    def grade(**options: float) -> Grade:
        environment = CPP.with_options(options) if options else CPP
        return environment.grade(environment.from_row(row), [source])[0]

    assert (grade().error, grade().reward) == (None, 1.0)
    assert (grade(compile_seconds=1).error, grade(compile_seconds=1).reward) == (None, 0.0)
    assert (grade(compile_memory_mb=8).error, grade(compile_memory_mb=8).reward) == (None, 0.0)
    busy = grade(compile_wall_seconds=0.3)  # not the program's fault
    assert busy.error is not None and "too busy" in busy.error
    with pytest.raises(ValueError, match=r"options\.compile_seconds"):
        CPP.with_options({"compile_seconds": 0})


def test_a_missing_compiler_is_an_error_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_tests, "COMPILER", ("no-such-compiler",))
    task = CPP.pose(random.Random(0), 0.5)
    (grade,) = CPP.grade(task, [str(task.reference)])
    assert grade.error is not None and "compiler" in grade.error


def test_tests_beside_the_rows(tmp_path: Path) -> None:
    file = tmp_path / "tests.jsonl"
    tests = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    file.write_text(json.dumps({"competition_id": "c", "problem_id": "p", "unit_tests": tests}))
    options = {"tests": str(file), "language": "python", "time_limit_secs": 2, "float_tolerance": 1e-6}
    environment = CPP.with_options(options)
    row = {"competition_id": "c", "problem_id": "p", "responses_create_params": {"input": "Add."}}
    task = environment.from_row(row)
    right = "print(sum(map(int, input().split())) + 1e-9)"
    assert [g.reward for g in environment.grade(task, [right, "print(4)"])] == [1.0, 0.0]
    (grade,) = CPP.grade(CPP.from_row(row), ["int main(){}"])
    assert grade.error is not None and "c/p" in grade.error
    with pytest.raises(ValueError, match=r"options\.tests"):
        CPP.with_options({"tests": str(tmp_path / "none")}).from_row(row)
    with pytest.raises(ValueError, match=r"options\.language"):
        CPP.with_options({"language": "cobol"})


def test_outputs_within_a_tolerance() -> None:
    assert same_text("x 0.3333333\n", "x 0.3333334\n", 1e-6) and not same_text("0.33", "0.34", 1e-6)
    assert not same_text("0.3333333", "0.3333334") and same_text("1.0 2", "1 2.00")
    assert not same_text("1 2", "1 2 3", 1e-3) and not same_text("nan", "1", 1e-3)
    assert not same_text("a 1", "b 1", 1e-3)
