"""Predicted against measured peak memory: models of 100 to 200 M parameters, one process and several.

    python -m benchmarks.fits [--only NAME] [--out FILE]

Each layout trains two updates of three micro-batches in processes of its own. Measured is the peak of private
memory (RssAnon, every 5 ms) over what the libraries take, the largest of the processes. Frozen shards stay in
the file that they were mapped from, so their bytes are added. Predicted is `kascade.recipe.memory`, the very
formula of `kascade plan`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kascade.recipe.layout import Layout
from kascade.recipe.memory import memory_of, total_of
from kascade.recipe.shapes import ModelShape, shape_of

MIB = 2**20
BOUND = 0.15
MICRO_BATCHES, STEPS = 3, 2
# glibc keeps what is freed in pieces under its threshold, which grows: fixed, peaks can be measured again.
PIECE = str(2**16)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": PIECE, "MALLOC_TRIM_THRESHOLD_": PIECE}
TOKENS = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "tie_word_embeddings": False}
ATTENTION = {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {
        "model_type": "qwen3", "vocab_size": 16_384, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 16, **ATTENTION, **TOKENS,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", "vocab_size": 16_384, "hidden_size": 768, "intermediate_size": 3072,
        "moe_intermediate_size": 512, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "num_hidden_layers": 10, **ATTENTION, **TOKENS,
    },
    "nemotron_h": {
        "model_type": "nemotron_h", "vocab_size": 16_384, "hidden_size": 768, "intermediate_size": 3072,
        "hybrid_override_pattern": "MEM*EMEM*EME", "mamba_num_heads": 24, "mamba_head_dim": 64,
        "ssm_state_size": 64, "n_groups": 4, "conv_kernel": 4, "chunk_size": 64, "n_routed_experts": 16,
        "num_experts_per_tok": 2, "moe_intermediate_size": 640, "moe_shared_expert_intermediate_size": 1280,
        "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5, **ATTENTION,
        **TOKENS,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A model, a layout, and the rows of a micro-batch: so many of one length. reference: it scores, too."""

    model: str
    layout: Layout
    rows: int = 2
    length: int = 96

    @property
    def processes(self) -> int:
        return self.layout.shard


HERE = Layout(precision="fp32", device="cpu", tokens=192)
RANKED = replace(HERE, adapter=(16, None))
CASES: dict[str, Case] = {
    "qwen3, all weights": Case("qwen3", HERE),
    "qwen3, rows of 512": Case("qwen3", replace(HERE, tokens=1024), 2, 512),
    "qwen3, rank 16": Case("qwen3", RANKED),
    "qwen3, rank 16, rows of 512": Case("qwen3", replace(RANKED, tokens=1024), 2, 512),
    "qwen3, a whole teacher": Case("qwen3", replace(HERE, whole_teachers=1)),
    "qwen3, rank 16, three adapters teach": Case("qwen3", replace(RANKED, adapter_teachers=3)),
    "qwen3_moe, all weights": Case("qwen3_moe", replace(HERE, trunk=False)),
    "qwen3_moe, rank 16, rows of 512": Case("qwen3_moe", replace(RANKED, trunk=False, tokens=1024), 2, 512),
    "nemotron_h, all weights": Case("nemotron_h", HERE),
    "nemotron_h, rank 16, rows of 512": Case("nemotron_h", replace(RANKED, tokens=1024), 2, 512),
    "qwen3, two processes": Case("qwen3", replace(HERE, shard=2)),
    "qwen3, two processes, recompute": Case(
        "qwen3", replace(HERE, shard=2, tokens=1024, activations="recompute"), 2, 512
    ),
    "qwen3, four processes": Case("qwen3", replace(HERE, shard=4)),
    "qwen3, four processes, rank 16": Case("qwen3", replace(RANKED, shard=4)),
    "qwen3_moe, two processes, two expert groups": Case("qwen3_moe", replace(HERE, shard=2, experts=2)),
    "qwen3_moe, four processes": Case("qwen3_moe", replace(HERE, shard=4)),
    "qwen3, rank 16, a row of 4,096, recompute": Case(
        "qwen3", replace(RANKED, tokens=4096, activations="recompute"), 1, 4096
    ),
}


def shape_named(name: str) -> ModelShape:
    found = shape_of(CONFIGS[name])
    assert found is not None
    return found


def predicted(case: Case) -> float:
    """MiB that the formula expects."""
    return total_of(memory_of(shape_named(case.model), case.layout)).expected / MIB


def measured(name: str) -> float:
    """MiB at the peak, in processes of its own; the largest of them."""
    case = CASES[name]
    with TemporaryDirectory() as scratch:
        out = Path(scratch)
        own = ["-m", "benchmarks.fits", "--child", name, "--out", scratch]
        if case.processes > 1:
            spread = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(case.processes)]
            subprocess.run([sys.executable, *own, "--save"], check=True, env=os.environ | ENVIRONMENT)
            own = [*spread, *own]
        subprocess.run([sys.executable, *own], check=True, env=os.environ | ENVIRONMENT)
        return max(float(path.read_text()) for path in out.glob("peak-*"))


def child(name: str, out: Path) -> None:
    """One process of a layout: two updates, its peak written to `out`."""
    import torch

    from benchmarks.fits_training import prepare

    torch.set_num_threads(1)
    case = CASES[name]
    libraries = _private()
    peak = Peak()
    run, in_files = prepare(CONFIGS[case.model], case, out)
    for step in range(STEPS):
        run(step)
    rank = os.environ.get("RANK", "0")
    (out / f"peak-{rank}").write_text(str((peak.stop() - libraries) / 1024 + in_files / MIB))


class Peak:
    """The highest private memory from now on, in KiB."""

    def __init__(self) -> None:
        self._highest, self._watching = 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._watching:
            self._highest = max(self._highest, _private())
            time.sleep(0.005)

    def stop(self) -> int:
        self._watching = False
        self._thread.join()
        return self._highest


def _private() -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def main() -> int:
    """Measure every layout; 1 when one is further off than the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--child", default=None)
    parser.add_argument("--save", action="store_true")
    said = parser.parse_args()
    if said.child and said.save:
        from benchmarks.fits_training import save

        save(CONFIGS[CASES[said.child].model], said.out)
        return 0
    if said.child:
        child(said.child, said.out)
        return 0
    rows = []
    for name, case in CASES.items():
        if said.only not in name:
            continue
        found, expected = round(measured(name)), round(predicted(case))
        off = expected / found - 1
        rows.append({"layout": name, "processes": case.processes, "predicted": expected, "measured": found})
        parameters = shape_named(case.model).size / 1e6
        print(f"{name:44} {case.processes} x {parameters:4.0f} M: predicted {expected:6.0f} MiB, measured "
              f"{found:6.0f} MiB, {off:+.1%}", flush=True)  # fmt: skip
    if said.out:
        said.out.write_text(json.dumps(rows, indent=1) + "\n")
    return int(any(abs(row["predicted"] / row["measured"] - 1) > BOUND for row in rows))


if __name__ == "__main__":
    sys.exit(main())
