"""The text of a new recipe: for a preset, or for a user's own model and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Use = Literal["sft", "rl", "exam"]

SCHEMA_FILE = "recipe.schema.json"
HEAD = f"""# Check it: kascade check FILE. Run it: kascade run FILE. Every field: docs/recipe-reference.md
# yaml-language-server: $schema=./{SCHEMA_FILE}
"""
FROM_PRESET = """preset: {preset}
# model: ./my-model           a folder, a hub id, or builtin://NAME
# data: {{mcqa: rows.jsonl}}    your rows in place of an environment's tasks
# seed: 0
# budget: 2                   CPU hours; a stage that would exceed it waits

# Change single stages, benchmarks and other parts. null leaves one out; a list of benchmarks replaces all.
# overrides:
#   if_rl: {{steps: 20}}
#   swe_rl: null
#   guard: {{min_drop: 0.05}}
#   benchmarks: [{{name: quiz, source: {{mcqa: rows.jsonl}}, tasks: 200}}]
"""
RL_KINDS = {
    "instruction_following": "if_rl",
    "code": "code_rl",
    "software_engineering": "swe_rl",
    "long_context": "long_context_rl",
}
EPOCHS = 3  # of the SFT rows; 2 to 3 are usual for small sets (Alpaca, LIMA)
SFT_BATCH, RL_STEPS, RL_PROMPTS, RL_ROLLOUTS = 8, 40, 8, 8
MOST_TASKS = 400  # of a benchmark: with 400 the guard sees a drop of 5 points (docs/guard.md)
ANSWER, SEQUENCE = (
    512,
    2048,
)  # tokens of an answer and of a demonstration, where the context has room for them


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Rows of the user's own. count: how many tasks they are; 0: not known yet. server: of an environment
    behind one, its address."""

    environment: str
    path: str
    count: int = 0
    server: str | None = None

    @property
    def named(self) -> str:
        """Environment, path and server as fields of a data source."""
        server = "" if self.server is None else f', options: {{url: "{self.server}"}}'
        return f"environment: {self.environment}, path: {_quoted(self.path)}{server}"


@dataclass(frozen=True, slots=True)
class OwnRecipe:
    """What `kascade init` was given. context: tokens that the model reads at once, where its config says so.

    domain: of the RL rows, where they are all of one. template: the chat template that it needs, where its
    tokenizer has none. weak: why the benchmarks see little, where they do.
    """

    name: str
    model: str
    sft: Sequence[OwnRows] = ()
    rl: Sequence[OwnRows] = ()
    exams: Sequence[OwnRows] = ()
    domain: str | None = None
    context: int | None = None
    template: str | None = None
    weak: str | None = None


def preset_text(preset: str) -> str:
    """A short recipe that starts from a preset."""
    return HEAD + FROM_PRESET.format(preset=preset)


def own_text(own: OwnRecipe) -> str:
    """A recipe of the user's own model and rows, with a comment on every choice."""
    parts = [
        f"{HEAD}kascade: 1\nname: {own.name}\ndescription: {_description(own)}\n"
        f"{_model(own)}\n"
        "# budget: 2 # CPU hours: a stage that would exceed it waits\n",
        "stages:",
        *([_sft(own)] if own.sft else []),
        *([_rl(own)] if own.rl else []),
        "benchmarks: # run on the base model and after every stage",
        *(_exam(own, rows) for rows in _exams(own)),
    ]
    if own.weak:
        parts.append(f"\n# {own.weak}\nguard: {{weak_exams: warn}} # take this out when there are more tasks")
    return "\n".join(parts) + "\n"


def _model(own: OwnRecipe) -> str:
    if own.template is None:
        return f"model: {_quoted(own.model)} # a folder, a hub id, or builtin://NAME"
    named = f"{{source: {_quoted(own.model)}, chat_template: {own.template}}}"
    return f"model: {named} # its tokenizer has no chat template: a base model, as a rule"


def _description(own: OwnRecipe) -> str:
    stages = " and ".join([*(["SFT"] if own.sft else []), *(["RL"] if own.rl else [])])
    return f"{stages} of {own.model.rstrip('/').rpartition('/')[2]} on own rows"


def _exams(own: OwnRecipe) -> Sequence[OwnRows]:
    """The rows of benchmarks: those given, else what RL holds out of its own rows."""
    return own.exams or own.rl


def _sft(own: OwnRecipe) -> str:
    count = sum(rows.count for rows in own.sft)
    steps = max(1, round(EPOCHS * count / SFT_BATCH))
    longest = min(SEQUENCE, own.context or SEQUENCE)
    return f"""  - kind: sft # imitates the answers in the rows
    name: sft
    steps: {steps} # updates; {EPOCHS} passes over the {count} different rows that are not held out
    batch_size: {SFT_BATCH} # rows per update
    max_tokens: {longest} # longer rows are left out and counted
    optimizer: {{learning_rate: 1e-5}} # usual for full fine-tuning; the papers' large models use 3e-6
{_data(own, own.sft)}
"""


def _rl(own: OwnRecipe) -> str:
    kind = RL_KINDS.get(own.domain or "", "multi_domain_rl")
    return f"""  - kind: {kind} # samples answers, grades them, and learns from the grades (GRPO)
    name: rl
    steps: {RL_STEPS}
    prompts_per_step: {RL_PROMPTS}
    rollouts_per_prompt: {RL_ROLLOUTS} # answers per prompt, compared with each other
    sampling: {{max_new_tokens: {_answer(own)}}}
    grpo: {{min_usable_groups: 1}} # prompts per step whose answers differ in reward; fewer skip the update
{_data(own, own.rl)}
"""


def _answer(own: OwnRecipe) -> int:
    """Tokens of an answer: at most a quarter of the context."""
    return min(ANSWER, (own.context or 4 * ANSWER) // 4)


def _data(own: OwnRecipe, rows: Sequence[OwnRows]) -> str:
    lines = [f"      - {{{one.named}{_held(own, one)}}}" for one in rows]
    return "\n".join(["    data:", *lines])


def _held(own: OwnRecipe, rows: OwnRows) -> str:
    """Rows that a benchmark reads, too, are split by hash; those of files of their own are all used."""
    exams = {exam.path for exam in _exams(own)}
    return "" if rows.path in exams else ", hold_out: false"


def _exam(own: OwnRecipe, rows: OwnRows) -> str:
    trained = {one.path for one in (*own.sft, *own.rl)}
    held = "" if rows.path in trained else ", hold_out: false"
    why = "the tenth of the rows that no stage sees" if rows.path in trained else "all rows of the file"
    name = rows.environment.replace(".", "_")[:40]
    return f"""  - name: {name}
    source: {{{rows.named}{held}}} # {why}
    tasks: {min(MOST_TASKS, rows.count) or MOST_TASKS}
    sampling: {{max_new_tokens: {_answer(own)}}}"""


def _quoted(text: str) -> str:
    """Text as a YAML value; quoted where a plain one could be read as something else."""
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return text if plain and not text[0].isdigit() else f'"{text}"'
