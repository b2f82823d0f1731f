"""`make gpu-check`: everything that only a GPU can show, in at most eight minutes on one of them.

    python -m benchmarks.gpu_check [--only PART] [--out FILE]

Each part runs in a process of its own with a time limit, so that one that fails, hangs or is not installed
leaves the others alone. Where there is no GPU, the parts that can run on a CPU do so at a tiny size, which
tests this script and nothing else; what was not measured is said. Results: `benchmarks/gpu.json`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from kascade.storage.files import read_json, write_json

RESULTS = Path(__file__).parent / "gpu.json"
COMMAND: tuple[str, ...] = ("-m", "benchmarks.gpu_check")  # what a part's own process runs
LIMIT_S = 480.0  # of all parts together
CPU_LIMIT_S = 240.0  # of a part where there is no GPU: importing the libraries takes most of it
Status = Literal["passed", "failed", "not measured"]
PACKAGES = ("torch", "transformers", "transformer-engine", "vllm", "peft")


@dataclass(frozen=True, slots=True)
class Part:
    """place: "module:function". seconds: its time limit on a GPU. on_cpu: whether it runs without one."""

    place: str
    what: str
    seconds: float
    on_cpu: bool
    package: str | None = None


HERE = "benchmarks.gpu_parts"
PARTS: Mapping[str, Part] = {
    "nccl": Part(f"{HERE}:nccl", "collectives of one NCCL rank", 30, on_cpu=False),
    "masters": Part(f"{HERE}:masters", "100 small bf16 updates against fp32", 40, on_cpu=True),
    "parity": Part(f"{HERE}:parity", "sampler and trainer in bf16", 40, on_cpu=True),
    "graphs": Part(f"{HERE}:graphs", "recorded decoding against the plain one", 40, on_cpu=True),
    "packed": Part(f"{HERE}:packed", "packed attention against padded rows", 40, on_cpu=False),
    "adapters": Part(f"{HERE}:adapters", "a LoRA update, sampled and scored", 40, on_cpu=True),
    "fits": Part(f"{HERE}:fits", "predicted against measured memory", 60, on_cpu=False),
    "fp8": Part(f"{HERE}:fp8", "Transformer Engine", 40, on_cpu=False, package="transformer-engine"),
    "vllm": Part(f"{HERE}:vllm", "vLLM's scores against ours", 120, on_cpu=False, package="vllm"),
    "mfu": Part(f"{HERE}:mfu", "FLOPs utilisation at 0.6B and 1.7B", 120, on_cpu=False),
    "rollout": Part(f"{HERE}:rollout", "tokens per second beside generate", 90, on_cpu=False),
}


@dataclass(frozen=True, slots=True)
class Result:
    """numbers: what the part measured. note: why it failed or was not measured."""

    part: str
    what: str
    status: Status
    numbers: Mapping[str, float]
    seconds: float
    note: str = ""


def main(arguments: list[str] | None = None, parts: Mapping[str, Part] = PARTS) -> int:
    """Run the parts; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(parts))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    said = parser.parse_args(arguments)
    if said.part:
        write_json(said.out, run_part(parts[said.part]))
        return 0
    device = device_name()
    results = run_all({name: parts[name] for name in said.only or parts}, device)
    found = {
        "device": device,
        "seconds": round(sum(one.seconds for one in results), 1),
        "versions": {name: found for name in PACKAGES if (found := installed(name)) is not None},
        "parts": [asdict(one) for one in results],
    }
    if may_write(said.out, device):
        measured = {one.part for one in results if one.status != "not measured"}
        kept = kept_parts(said.out, device, parts, measured)
        found["parts"] = sorted(
            [one for one in found["parts"] if one["part"] not in kept] + list(kept.values()),
            key=lambda one: list(parts).index(one["part"]),
        )
        write_json(said.out, found)
        print(f"written: {said.out}" + (f"; as measured before: {', '.join(kept)}" if kept else ""))
    unmeasured = [one.part for one in results if one.status == "not measured"]
    if device is None:
        print(f"*** NO GPU HERE: not measured: {', '.join(unmeasured)}; the others ran at a tiny size ***")
    elif unmeasured:
        print(f"*** not measured: {', '.join(unmeasured)} ***")
    return int(any(one.status == "failed" for one in results))


def may_write(out: Path, device: str | None) -> bool:
    """A run without a GPU never takes the place of results from one."""
    if device is not None or earlier(out).get("device") is None:
        return True
    print(f"{out} holds results of a GPU and stays as it is")
    return False


def earlier(out: Path) -> dict[str, Any]:
    """What a file holds; nothing for one that is not there or cannot be read."""
    try:
        found = read_json(out)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def kept_parts(
    out: Path, device: str | None, known: Collection[str], measured: Collection[str]
) -> dict[str, Any]:
    """Parts that an earlier run on the same device measured, and this one did not."""
    before = earlier(out)
    listed = before.get("parts") if before.get("device") == device else None
    return {one["part"]: one for one in listed or [] if one["part"] in known and one["part"] not in measured}


def run_all(parts: Mapping[str, Part], device: str | None) -> list[Result]:
    """Every part, as long as there is time."""
    end, results = time.monotonic() + LIMIT_S, []
    for name, part in parts.items():
        result = run_apart(name, part, device, end - time.monotonic())
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in result.numbers.items())
        print(f"{name:9} {result.status:13} {result.seconds:5.1f} s  {numbers or result.note}", flush=True)
        results.append(result)
    return results


def run_apart(name: str, part: Part, device: str | None, left: float) -> Result:
    """One part in a process of its own."""
    reason = why_not(part, device, left)
    if reason is not None:
        return Result(name, part.what, "not measured", {}, 0.0, reason)
    limit = min(part.seconds if device is not None else CPU_LIMIT_S, left)
    start = time.monotonic()
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "numbers.json"
        command = [sys.executable, *COMMAND, "--part", name, "--out", str(out)]
        try:
            code, said = run_within(command, limit)
            status: Status = "passed" if code == 0 else "failed"
            note = "" if code == 0 else last_line(said)
        except subprocess.TimeoutExpired:
            status, note = "failed", f"took longer than {limit:.0f} s"
        numbers = read_json(out) if out.exists() else {}
    return Result(name, part.what, status, numbers, round(time.monotonic() - start, 1), note)


def run_within(command: list[str], limit: float) -> tuple[int, str]:
    """Exit code and stderr. Raises TimeoutExpired.

    What the command started ends with it: such a process would hold the GPU's memory, and our pipe.
    """
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=limit)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def why_not(part: Part, device: str | None, left: float) -> str | None:
    """Why a part cannot be run here and now; None when it can."""
    if device is None and not part.on_cpu:
        return "there is no GPU"
    if part.package is not None and installed(part.package) is None:
        return f"{part.package} is not installed"
    return f"the {LIMIT_S:.0f} seconds are over" if left < 1 else None


def run_part(part: Part) -> dict[str, float]:
    """The numbers of one part, in this process. Raises what the part raises."""
    from importlib import import_module

    module, _, name = part.place.partition(":")
    found: dict[str, float] = getattr(import_module(module), name)()
    return found


def device_name() -> str | None:
    """Of the first GPU; None where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def installed(package: str) -> str | None:
    """The version of a package; None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended without a word"


if __name__ == "__main__":
    sys.exit(main())
