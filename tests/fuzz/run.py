"""Coverage-guided fuzzing of every target: `python tests/fuzz/run.py SECONDS [TARGET ...]`.

Each target runs in a process of its own on its corpus for an equal share of the time. What a run finds stays
in the folder named by FUZZ_OUT; the inputs that made a target fail are printed, to join the corpus.
With --inputs each target takes that many, and with --seed the same ones again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LONGEST_INPUT = 4096  # bytes
MEMORY_MIB = 2048
SLOWEST_S = 10
SLOWEST_SEEDED_S = 120  # the same inputs again may not fail because a machine is busy


def one(name: str, arguments: list[str]) -> None:
    """The process of one target. Never returns: libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["kascade", "pipelines"]):
        import targets
    atheris.Setup([sys.argv[0], *arguments], targets.TARGETS[name])
    atheris.Fuzz()


def all_of(seconds: float, names: list[str], inputs: int = -1, seed: int = 0) -> int:
    """Fuzz the targets one after the other; the number of those that failed.

    inputs: at most so many a target; -1: as many as the time allows. seed: 0: another one each time.
    """
    sys.path.insert(0, str(HERE))
    import targets

    names = names or list(targets.TARGETS)
    share = max(1, round(seconds / len(names)))
    out = Path(os.environ.get("FUZZ_OUT") or tempfile.mkdtemp(prefix="kascade-fuzz-"))
    failed = []
    for name in names:
        found = out / name
        found.mkdir(parents=True, exist_ok=True)
        options = [
            f"-max_total_time={share}",
            f"-runs={inputs}",
            f"-seed={seed}",
            f"-max_len={LONGEST_INPUT}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-timeout={SLOWEST_SEEDED_S if seed else SLOWEST_S}",
            f"-artifact_prefix={found}/failed-",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        command = [sys.executable, __file__, "--one", name, *options, str(found), str(HERE / "corpus" / name)]
        environment = os.environ | ({"PYTHONHASHSEED": "0"} if seed else {})
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        runs = next((line.split()[-1] for line in done.stderr.splitlines() if "executed_units" in line), "?")
        print(f"{name}: {runs} inputs{'' if done.returncode == 0 else ', FAILED'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-3000:], file=sys.stderr)
    print(f"{len(names) - len(failed)} of {len(names)} targets hold; new inputs are in {out}")
    return len(failed)


def main() -> int:
    """1 when a target failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--inputs", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    return min(1, all_of(said.seconds, said.targets, said.inputs, said.seed))


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(sys.argv[2], sys.argv[3:])
    sys.exit(main())
