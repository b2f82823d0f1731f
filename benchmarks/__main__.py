"""`python -m benchmarks`: run them, print the table, write results.json."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Measurement
from benchmarks.page import with_table
from benchmarks.registry import BENCHMARKS, load
from kascade.storage.files import read_json, write_json

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
# On shared cores, threads that wait must not spin. Torch, which a benchmark imports, reads these once.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}


def main(arguments: Sequence[str], benchmarks: Mapping[str, str] = BENCHMARKS) -> None:
    """Run what the arguments ask for. `benchmarks`: name → "module:function"."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmarks)}; all of them")
    parser.add_argument("--quick", action="store_true", help="seconds, not minutes; written only with --out")
    parser.add_argument("--out", type=Path, help=f"where the results go; {RESULTS.name} beside this file")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in benchmarks:
            parser.error(f"invalid choice: {name!r} (choose from {', '.join(benchmarks)})")
    out = options.out or (None if options.quick else RESULTS)
    measured: list[Measurement] = []
    for name in options.names or benchmarks:
        print(f"{name} ...", file=sys.stderr, flush=True)
        measured += load(benchmarks[name])(options.quick)
        if out is not None:  # at once: what was measured outlives an interruption
            write_results(out, measured, keep_others=True)
    print(table(measured))
    print(f"\none thread; load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    if out is not None:
        write_results(out, measured, keep_others=bool(options.names))
        print(f"written: {out}")
    if out == RESULTS:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), read_json(RESULTS)), encoding="utf-8")
        print(f"written: the table in {PAGE}")


def table(measured: Sequence[Measurement]) -> str:
    """Aligned columns; a ratio above 1 is in our favour."""
    rows = [("benchmark", "ours", "peer", "ratio", "unit", "peer is")]
    for one in measured:
        peer = "" if one.peer is None else f"{one.peer:,.1f}"
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        rows.append((one.name, f"{one.ours:,.1f}", peer, ratio, one.unit, one.peer_name or ""))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_results(path: Path, measured: Sequence[Measurement], *, keep_others: bool) -> None:
    """The measurements as a JSON list; with `keep_others`, rows of other names stay as they are."""
    rows = {one.name: one.as_json() for one in measured}
    before = {row["name"]: row for row in read_json(path)} if keep_others and path.exists() else {}
    write_json(path, list({**before, **rows}.values()))


if __name__ == "__main__":
    os.environ.update(THREADS)
    main(sys.argv[1:])
