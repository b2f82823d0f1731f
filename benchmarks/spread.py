"""Memory of training by several processes: python -m benchmarks.spread

Two tables: the peak of each process for a 172M-parameter Qwen3 on 1, 2 and 4 processes, and how it grows with
the length of a row. Counted is private memory (RssAnon) over what the imports take, at its highest in two
updates of AdamW in float32. Processes are started as torchrun does, on gloo; a machine of 8 GB does it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LENGTH, ROWS = 96, 8  # of the first table: tokens of a sequence, sequences of an update
LENGTHS = (1024, 2048, 4096)  # of the second, one sequence each: shorter ones hide behind AdamW
LAYERS, HIDDEN, VOCABULARY = 11, 1024, 16384


def save_model(folder: Path) -> None:
    """A Qwen3 of 172 million random parameters."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=3072, num_hidden_layers=LAYERS,
        num_attention_heads=16, num_key_value_heads=8, head_dim=64, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=3,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")


def private_mib() -> float:
    """Memory of this process that no other shares."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


class Peak:
    """The highest private memory since it was made, seen every 10 ms."""

    def __init__(self) -> None:
        self.start, self.highest = private_mib(), 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.highest = max(self.highest, private_mib() - self.start)
            time.sleep(0.01)


def measure(folder: Path, length: int, rows: int, activations: str) -> None:
    """One process of a group: two updates. The first process prints the peaks of all as JSON."""
    import torch
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401 - its memory is not counted

    from kascade.learning.example import Example
    from kascade.learning.objectives import Supervised
    from kascade.learning.trainer import Trainer
    from kascade.models.mesh import join_group, rank, world
    from kascade.models.policy_model import load_policy_model
    from kascade.recipe.schema import ModelPart, Optimizer

    torch.set_num_threads(1)
    join_group()
    peak = Peak()
    part = ModelPart(source="made here", precision="fp32")
    model, _ = load_policy_model(folder, part, activations=activations)  # type: ignore[arg-type]
    optimizer = Optimizer(learning_rate=1e-4)
    budget = max(length, 2 * LENGTH)
    trainer = Trainer(model, optimizer, total_steps=2, micro_batch_tokens=budget, pad_id=0)
    draw = torch.Generator().manual_seed(1)
    examples = [
        Example(
            torch.randint(4, VOCABULARY, (length,), generator=draw).tolist(),
            [False] + [True] * (length - 1),
            {"weights": torch.full((length - 1,), 1 / (rows * (length - 1)))},
        )
        for _ in range(rows)
    ]
    losses = [trainer.update(step, examples, Supervised())["loss"] for step in range(2)]
    peaks = [peak.highest]
    if world() > 1:
        peaks = [0.0] * world()
        torch.distributed.all_gather_object(peaks, peak.highest)
    if rank() == 0:
        print(json.dumps({"peaks": [round(p) for p in peaks], "losses": [round(x, 5) for x in losses]}))


def launch(folder: Path, processes: int, length: int, rows: int, activations: str) -> dict[str, list[float]]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    how = [f"--length={length}", f"--rows={rows}", f"--activations={activations}", f"--measure={folder}"]
    command = [sys.executable, *torchrun, "-m", "benchmarks.spread", *how]
    quiet = {"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **quiet})
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(folder: Path) -> None:
    """Both tables, as Markdown."""
    print("| processes | keep, MiB | recompute, MiB | part of one process | losses |\n|---|---|---|---|---|")
    alone = 0.0
    for processes in (1, 2, 4):
        kept, again = (launch(folder, processes, LENGTH, ROWS, how) for how in ("keep", "recompute"))
        most = max(kept["peaks"])
        alone = alone or most
        cells = [processes, most, max(again["peaks"]), f"{most / alone:.2f}", kept["losses"]]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print("\n| tokens of the row | keep, MiB | recompute, MiB |\n|---|---|---|")
    for length in LENGTHS:
        peaks = [max(launch(folder, 1, length, 1, how)["peaks"]) for how in ("keep", "recompute")]
        print(f"| {length} | {peaks[0]} | {peaks[1]} |", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments.add_argument("--length", type=int, default=LENGTH, help=argparse.SUPPRESS)
    arguments.add_argument("--rows", type=int, default=ROWS, help=argparse.SUPPRESS)
    arguments.add_argument("--activations", default="keep", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure is not None:
        measure(given.measure, given.length, given.rows, given.activations)
        return
    with tempfile.TemporaryDirectory(prefix="kascade-spread-") as scratch:
        save_model(Path(scratch))
        report(Path(scratch))


if __name__ == "__main__":
    main()
