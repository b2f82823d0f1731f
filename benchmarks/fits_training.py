"""What a process of `benchmarks.fits` does: a model of a layout, and updates on random rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft  # noqa: F401 - its memory is that of a library
import torch
from torch.distributed.tensor import DTensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

import kascade.models.kernels  # noqa: F401 - and numba's is, too
from kascade.learning.objectives import Supervised
from kascade.learning.scoring import score_examples
from kascade.learning.trainer import Example, Trainer
from kascade.models.activations import use_activations
from kascade.models.adapters import add_adapter, without_adapter
from kascade.models.load import load_model
from kascade.models.logprobs import token_logprobs
from kascade.models.mesh import join_group
from kascade.recipe.adapter import Adapter
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import Optimizer

if TYPE_CHECKING:
    from benchmarks.fits import Case


def save(config: dict[str, Any], folder: Path) -> None:
    """Write the model for processes that read their own shards of it."""
    make_model(config).save_pretrained(folder / "model")
    (folder / "model" / "tokenizer.json").write_text("{}", encoding="utf-8")  # asked for, never read


def prepare(config: dict[str, Any], case: Case, folder: Path) -> tuple[Callable[[int], None], int]:
    """The work of one update, and the bytes of frozen weights that stay in files under `folder`.

    Everything that stays is there when this returns. folder: where `save` has put the model, for several
    processes.
    """
    from benchmarks.fits import MICRO_BATCHES, STEPS

    if case.processes == 1:
        model = make_model(config)
        use_activations(model, case.layout.activations)
    else:
        model = shards_of(case, folder / "model")
    part = None
    if case.layout.adapter is not None:
        part = Adapter(rank=case.layout.adapter[0], targets=case.layout.adapter[1])
        add_adapter(model, part, 0)
    layout = case.layout
    teachers = [make_model(config).requires_grad_(False) for _ in range(layout.whole_teachers)]
    for seed in range(layout.adapter_teachers):
        teacher = without_adapter(model)
        add_adapter(teacher, part or Adapter(), seed)
        teachers.append(teacher.requires_grad_(False))
    rate = Optimizer(learning_rate=1e-5)
    trainer = Trainer(model, rate, total_steps=STEPS, micro_batch_tokens=layout.tokens, pad_id=0)
    examples = rows(case, MICRO_BATCHES * case.processes, config["vocab_size"])

    def update(step: int) -> None:
        for teacher in teachers:
            score_examples(
                teacher, examples, lambda m, b: token_logprobs(m, b).logprobs,
                micro_batch_tokens=layout.tokens, pad_id=0,
            )  # fmt: skip
        trainer.update(step, examples, Supervised())

    return update, in_files(model, folder)


def in_files(model: PreTrainedModel, folder: Path) -> int:
    """Bytes of frozen weights of this process that are mapped from files under a folder, never copied."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    areas = [tuple(int(end, 16) for end in words[0].split("-")) for words in maps]
    frozen = [p.detach() for p in model.parameters() if not p.requires_grad]
    local = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
    return sum(t.nbytes for t in local if any(low <= t.data_ptr() < high for low, high in areas))


def shards_of(case: Case, folder: Path) -> PreTrainedModel:
    """This process's part of the model."""
    join_group()
    layout = case.layout
    parallel = Parallel(shard=layout.shard, experts=layout.experts)
    trained = layout.adapter is None
    model = load_model(folder, parallel=parallel, precision="fp32", trained=trained)
    use_activations(model, layout.activations)
    return model


def make_model(config: dict[str, Any]) -> PreTrainedModel:
    own = {name: value for name, value in config.items() if name != "model_type"}
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**own))
    return made.eval()


def rows(case: Case, batches: int, vocabulary: int) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(batches * case.rows):
        ids = torch.randint(4, vocabulary, (case.length,), generator=generator).tolist()
        scored = [False] + [True] * (case.length - 1)
        made.append(Example(ids, scored, {"weights": torch.full((case.length - 1,), 1e-4)}))
    return made
