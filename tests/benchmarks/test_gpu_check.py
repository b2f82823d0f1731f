"""`make gpu-check` measures what it can, isolates what fails, and says what it did not measure."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import PARTS, Part, main


def of(name: str, seconds: float = 60, *, on_cpu: bool = True, package: str | None = None) -> Part:
    return Part(f"fake_gpu_parts:{name}", name, seconds, on_cpu=on_cpu, package=package)


CHILD = """
import sys
from test_gpu_check import FAKES
from benchmarks.gpu_check import main
sys.exit(main(sys.argv[1:], FAKES))
"""
FAKES = {
    "good": of("good"),
    "wrong": of("wrong"),
    "dies": of("dies"),
    "gpu": of("good", on_cpu=False),
    "package": of("good", package="no-such-package"),
    "hangs": of("hangs"),
    "leaves": of("leaves"),
}


@pytest.fixture(autouse=True)
def fakes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(gpu_check, "device_name", lambda: None)


def results(out: Path) -> dict[str, dict[str, Any]]:
    return {part["part"]: part for part in json.loads(out.read_text())["parts"]}


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Part]) -> tuple[int, Path]:
    """As the command does; its children find the fakes by the same names."""
    (tmp_path / "run.py").write_text(CHILD)
    monkeypatch.setattr(gpu_check, "COMMAND", (str(tmp_path / "run.py"),))
    out = tmp_path / "gpu.json"
    return main(["--out", str(out)], parts), out


def test_a_part_that_fails_or_dies_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(
        tmp_path, monkeypatch, {name: part for name, part in FAKES.items() if name not in ("hangs", "leaves")}
    )
    found = results(out)
    assert code == 1
    assert {name: part["status"] for name, part in found.items()} == {
        "good": "passed", "wrong": "failed", "dies": "failed",
        "gpu": "not measured", "package": "not measured",
    }  # fmt: skip
    assert found["good"]["numbers"] == {"answer": 42.0}
    assert "3 is not 4" in found["wrong"]["note"]
    assert found["gpu"]["note"] == "there is no GPU"
    assert found["package"]["note"] == "no-such-package is not installed"
    assert "not measured: gpu, package" in capsys.readouterr().out


def test_results_of_a_gpu_are_not_overwritten_by_a_run_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    out.write_text('{"device": "A GPU", "parts": []}')
    run(tmp_path, monkeypatch, {"gpu": FAKES["gpu"]})
    assert json.loads(out.read_text())["device"] == "A GPU"
    assert "stays as it is" in capsys.readouterr().out


def test_a_part_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "CPU_LIMIT_S", 3.0)
    _, out = run(tmp_path, monkeypatch, {"hangs": FAKES["hangs"]})
    assert results(out)["hangs"]["note"] == "took longer than 3 s"


def test_what_a_part_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that it left behind holds the pipe and would hold the GPU."""
    monkeypatch.setattr(gpu_check, "CPU_LIMIT_S", 5.0)
    monkeypatch.setenv("LEFT_BEHIND", str(tmp_path / "pid"))
    start = time.monotonic()
    _, out = run(tmp_path, monkeypatch, {"leaves": FAKES["leaves"]})
    assert results(out)["leaves"]["note"] == "took longer than 5 s" and time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.1)


def test_a_run_of_some_parts_keeps_what_was_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = run(tmp_path, monkeypatch, {"good": FAKES["good"], "gpu": FAKES["gpu"]})
    main(["--out", str(out), "--only", "gpu"], {"good": FAKES["good"], "gpu": FAKES["gpu"]})
    assert results(out)["good"]["status"] == "passed", "the other part's result was not lost"
    out.write_text("{")
    main(["--out", str(out), "--only", "gpu"], FAKES)
    assert set(results(out)) == {"gpu"}, "a damaged file costs what it held, and not this run"


def test_all_limits_together_are_what_is_promised() -> None:
    assert gpu_check.LIMIT_S <= 8 * 60
    assert all(part.seconds <= gpu_check.LIMIT_S / 2 for part in PARTS.values())


def test_what_was_measured_is_written_down_beside_the_script() -> None:
    kept = json.loads(gpu_check.RESULTS.read_text())
    assert {part["part"] for part in kept["parts"]} == set(PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.on_cpu])
def test_parts_that_need_no_gpu_run_at_a_tiny_size(name: str) -> None:
    assert gpu_check.run_part(PARTS[name])
