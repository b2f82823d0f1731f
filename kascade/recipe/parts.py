"""Parts of stages: optimiser, limits, data, sampling, and the rules of each way to learn.

Every number of a loss or a rule is a field, with its source. Sources: [C2] Nemotron-Cascade 2 (arXiv
2603.19220), [N3] Nemotron 3 Nano (arXiv 2512.20848), [LN] Llama-Nemotron (arXiv 2505.00949), [S3] Nemotron 3
Super (arXiv 2604.12374), [DAPO] arXiv 2503.14476, [RL] NeMo-RL.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
ROWS_HELP = (
    "rows: a file (JSONL, JSON, CSV, TSV, Parquet), a folder of them or of save_to_disk, hf://OWNER/NAME, or "
    "s3://BUCKET/KEY; None: generated tasks"
)


class Part(BaseModel):
    """Base of all recipe parts: unknown keys are errors, values do not change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Optimizer(Part):
    """AdamW with warm-up. Defaults: [C2 App. B]."""

    learning_rate: PositiveFloat = 3e-6
    final_learning_rate: float | None = Field(
        None, ge=0, description="where the schedule ends; None: constant"
    )
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    warmup_start: float = Field(0.0, ge=0, description="learning rate at step 0 of the warm-up")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.1, ge=0)
    max_grad_norm: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _schedule_has_an_end(self) -> Optimizer:
        if (self.schedule == "constant") != (self.final_learning_rate is None):
            what = f"a {self.schedule} schedule goes with final_learning_rate {self.final_learning_rate}"
            remedy = "give both a schedule (linear, cosine) and final_learning_rate, or neither"
            raise CrossCheckError([Problem(("final_learning_rate",), what, remedy=remedy)])
        return self


def check_warmup(optimizer: Optimizer, steps: int) -> None:
    if optimizer.warmup_steps > steps:
        what = f"the warm-up of {optimizer.warmup_steps} steps is longer than the {steps} steps in all"
        raise CrossCheckError([Problem(("optimizer", "warmup_steps"), what, allowed=f"0 to {steps}")])


class Limits(Part):
    """Training stops when one of these is passed; None switches that check off."""

    max_logprob_gap: PositiveFloat | None = Field(
        0.05, description="mean |log p(trainer) - log p(sampler)| over a step's tokens, nats"
    )
    max_dropped_tokens: Share | None = Field(0.2, description="share of tokens outside the importance range")
    min_entropy: float | None = Field(None, description="mean entropy of sampled tokens, nats")
    max_entropy: float | None = Field(None, description="mean entropy of sampled tokens, nats")
    max_response_tokens: PositiveFloat | None = Field(None, description="mean length of a step's rollouts")
    min_response_tokens: PositiveFloat | None = Field(None, description="mean length of a step's rollouts")
    max_truncated: Share | None = Field(None, description="share of rollouts cut at the length limit")
    max_grader_errors: Share | None = Field(0.1, description="share of grades that are errors")


class Join(Part):
    """Rows of another file whose fields are added to a source's rows, such as answers published apart."""

    path: str = Field(description=ROWS_HELP.partition("; None")[0])
    on: str = Field("id", description="the field that is the same in both")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our field: their column (dots reach into objects and lists); "
        "none: every field that the row does not have itself",
    )
    required: bool = Field(True, description="false: rows without a partner stay as they are")


class DataSource(Part):
    """Where an environment's tasks come from: generated here, or read from rows. See docs/data.md."""

    environment: str
    path: str | None = Field(None, description=ROWS_HELP)
    count: PositiveInt | None = Field(2000, description="how many tasks to generate (ignored for a path)")
    levels: tuple[Share, Share] = Field((0.0, 1.0), description="range of difficulty of generated tasks")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="the environment's own options (docs/environments.md)"
    )
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet"] = Field(
        "auto", description="of the files; auto: by their names' endings"
    )
    layout: str = Field("auto", description="how rows are laid out; auto: told from their fields")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our field: their column (dots reach into objects)"
    )
    join: Join | None = Field(None, description="rows of another file to take further fields from")
    prompt: str | None = Field(None, description="text of the user's turn; {column} stands for a value")
    system: str | None = Field(None, description="system message for rows that have none")
    split: str | None = Field(None, description="which split of a dataset; None: train, or every file")
    subset: str | None = Field(None, description="which configuration of a hub dataset")
    turns: Literal["last", "all"] = Field(
        "last", description="which assistant turns of `messages` are answers to learn"
    )
    thinking: bool = Field(False, description="answers to these rows begin inside an open think block")
    hold_out: bool = Field(
        True, description="split rows 80/10/10 by hash; false: all of them wherever they are named"
    )
    on_bad_row: Literal["stop", "skip"] = "stop"
    max_bad_rows: int = Field(100, ge=0, description="skipping more than this stops after all")

    @model_validator(mode="after")
    def _tasks_come_from_somewhere(self) -> DataSource:
        problems = []
        if self.path is None and self.count is None:
            problems.append(Problem(("count",), "neither a path to read nor a count to generate"))
        if self.levels[0] > self.levels[1]:
            problems.append(Problem(("levels",), f"{list(self.levels)} is not a range", "[low, high]"))
        if problems:
            raise CrossCheckError(problems)
        return self


class Mix(Part):
    """One data source with its share of each batch."""

    source: DataSource
    weight: PositiveFloat = 1.0


class Conversation(Part):
    """When a conversation of several turns ends though nobody said so. [C2 §4.8; NeMo-Gym swe_agents]"""

    max_turns: PositiveInt = Field(200, description="answers of the policy [C2 §4.8]")
    max_tokens: PositiveInt = Field(262_144, description="prompt, answers and tool results [C2 §4.8]")
    max_seconds: PositiveFloat = Field(3600.0, description="from its first turn on [NeMo-Gym swe_agents]")


class Sampling(Part):
    """How rollouts are drawn. [C2 App. B: temperature 1, top-p 1]"""

    temperature: PositiveFloat = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: PositiveInt | None = None
    max_new_tokens: PositiveInt = Field(49_152, description="of an answer; of each one in a conversation")
    thinking_budget: PositiveInt | None = Field(
        None, description="tokens after which an open think block is closed for the model; None: no budget"
    )
    stop: tuple[str, ...] = Field((), description="texts that end an answer, beside the end of its turn")
    conversation: Conversation = Conversation()


class Clip(Part):
    """PPO's clipping of the ratio to the rollouts' policy, wider above than below. [DAPO §3.1]"""

    low: float = Field(0.2, gt=0, lt=1, description="ratios under 1 - low")
    high: PositiveFloat = Field(0.28, description="ratios over 1 + high")


class Correction(Part):
    """Importance weights trainer / sampler, where rollouts come from older weights or another engine."""

    rule: Literal["icepop", "tis", "sequence_mask"] = Field(
        "icepop",
        description="icepop: a token outside [low, high] is masked, others are weighted [N3 §3.2.5; RL]; "
        "tis: weights are cut to [low, high] [S3; RL]; sequence_mask: a rollout whose geometric mean lies "
        "outside is masked [RL: 0.999 to 1.002]",
    )
    low: float = Field(0.5, ge=0, description="[RL: icepop's reference bounds 0.5 and 5]")
    high: PositiveFloat = Field(5.0, description="[RL; S3: tis <= 5]")

    @model_validator(mode="after")
    def _keeps_on_policy_tokens(self) -> Correction:
        if not self.low < 1 < self.high:
            what = f"[{self.low}, {self.high}] does not hold the weight 1 of on-policy tokens"
            raise CrossCheckError([Problem(("low",), what, allowed="low < 1 < high")])
        return self


class GRPO(Part):
    """Strictly on-policy GRPO without KL, group-normalised, token-level. [C2 §4.1.2 Eq. 1]"""

    baseline: Literal["mean", "leave_one_out"] = "mean"
    normalize_std: bool = Field(True, description="false with `aggregation: constant` is Dr.GRPO")
    aggregation: Literal["token", "sample", "constant"] = Field(
        "token",
        description="token: all tokens of the batch count alike [C2 Eq. 1]; sample: all rollouts do (GRPO, "
        "arXiv 2402.03300); constant: divided by max_new_tokens, whatever the lengths (Dr.GRPO, "
        "arXiv 2503.20783)",
    )
    updates_per_batch: PositiveInt = Field(
        1, description="updates from one batch of rollouts; 1 is strictly on-policy [C2 §4.1.2]"
    )
    clip: Clip = Field(Clip(), description="of ratios, which only later updates of a batch have")
    correction: Correction | None = Field(None, description="None: sampler and trainer agree")
    kl_coefficient: float = Field(0.0, ge=0, description="0 everywhere but RLHF [C2 §4.1.2]")
    dynamic_filtering: bool = Field(True, description="drop groups whose rewards are all equal [C2 §4.2]")
    max_generation_batches: PositiveInt = Field(
        1, description="how often to draw more prompts when filtering leaves too few groups"
    )
    min_usable_groups: PositiveInt = Field(
        4, description="fewer usable groups than this: skip the update, say so"
    )
    overlong: Literal["keep", "filter", "penalty"] = Field(
        "keep", description="truncated rollouts: filter = masked from the loss, penalty = reward 0 [C2 §4.2]"
    )
    drop_below_best: float | None = Field(
        None, description="mask prompts where no rollout has a higher reward than this (SWE: 0.5) [C2 §4.8]"
    )


def check_usable_groups(grpo: GRPO, prompts_per_step: int) -> None:
    if grpo.min_usable_groups > prompts_per_step:
        what = f"{grpo.min_usable_groups} usable groups can never come from {prompts_per_step} prompts"
        allowed = f"1 to {prompts_per_step}"
        raise CrossCheckError([Problem(("grpo", "min_usable_groups"), what, allowed)])


class Curriculum(Part):
    """Which tasks a stage sees when, by how often its start solves them. [N3 §3.2.2; LN §5.1]"""

    samples: PositiveInt = Field(8, description="answers a task that measure its pass rate")
    passed_from: float = Field(1.0, description="reward from which an answer has passed")
    drop_from: float = Field(
        1.0, gt=0, le=1, description="leave out tasks with at least this pass rate [N3: 1; LN: 0.75]"
    )
    unsolved_odds: Share = Field(
        0.25, description="odds of a task that was never solved to take part in a round through the tasks"
    )
    first_mean: Share = Field(0.7, description="mean of the target pass rates in the first step [N3 Fig. 6]")
    last_mean: Share = Field(0.4, description="the same in the last step [N3 Fig. 6]")
    width: PositiveFloat = Field(0.15, description="standard deviation of the target; no source gives one")
    bins: PositiveInt = Field(
        10, description="bins of pass rate, filled by the target, rest from the fullest"
    )


class ImportanceRange(Part):
    """Tokens whose trainer/sampler ratio lies outside are dropped, not clamped. [C2 §4.4 Eq. 3]"""

    low: PositiveFloat = 0.5
    high: PositiveFloat = 2.0

    @model_validator(mode="after")
    def _keeps_on_policy_tokens(self) -> ImportanceRange:
        if not self.low < 1 < self.high:
            what = f"[{self.low}, {self.high}] does not hold the ratio 1 of on-policy tokens"
            raise CrossCheckError([Problem(("low",), what, allowed="low < 1 < high")])
        return self


class JudgeModel(Part):
    """A language model that judges: behind an OpenAI-compatible endpoint, or a local checkpoint.

    Defaults of sampling: NeMo-Gym genrm_compare. A key is named by its environment variable, never written.
    """

    url: str | None = Field(
        None, pattern=r"^https?://", description="of the endpoint, up to and with /v1; None: a checkpoint"
    )
    model: str = Field(description="name at the endpoint; or a folder, hub id or builtin:// of a checkpoint")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable that holds the key"
    )
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: PositiveInt = 16_384
    timeout_s: PositiveFloat = Field(600.0, description="of one request")
    attempts: PositiveInt = Field(4, description="tries of a request that failed or said nothing readable")
    backoff_s: float = Field(1.0, ge=0, description="wait after the first failure; doubles with each")
    max_backoff_s: float = Field(60.0, ge=0)
    concurrency: PositiveInt = Field(16, description="requests under way at once")
    requests_per_minute: PositiveFloat | None = Field(None, description="None: as fast as they are answered")
    cache: bool = Field(True, description="keep verdicts on disk and ask no question twice")


class Judge(Part):
    """Who compares two answers.

    rule: the environment's own preference. reward_model: learned here. genrm: the recipe's `judge`.
    """

    kind: Literal["rule", "reward_model", "genrm"] = "rule"
    style: Literal["prompt", "roles"] = Field(
        "prompt", description="how a genrm is asked: in words, or by NeMo-Gym's response_1/response_2 roles"
    )
    principle: str | None = Field(None, description="what a genrm is to prefer, for rows without `principle`")
    votes: PositiveInt = Field(1, description="times each pair is judged, the mean taken")
    min_agreement: Share = Field(0.85, description="held-out agreement under which a reward model is refused")
    pairs: PositiveInt = Field(
        512, description="preference pairs the reward model is trained and measured on"
    )
    holdout: float = Field(0.2, gt=0, lt=1, description="share of the pairs it is measured on")
    epochs: PositiveInt = Field(1, description="[C1 §4.2]")
    batch_size: PositiveInt = Field(256, description="pairs an update [C1 §4.2]")
    optimizer: Optimizer = Field(Optimizer(learning_rate=2e-6), description="[C1 §4.2]")


class Pairwise(Part):
    """Aggregation of pairwise comparisons. [N3 §3.3; C2 §4.5 compares all pairs]"""

    pairs: Literal["all", "circular"] = "all"
    length_coefficient: float = Field(0.5, ge=0, description="lambda of the group-relative length term")
    conciseness_bonus: float = Field(0.5, ge=0, description="beta, for the shortest answer among the best")
    conciseness_percentile: Share = Field(
        0.8, description="only answers with at least this reward percentile"
    )


class VLLM(Part):
    """What the vLLM engine asks for, where it is chosen; names and meanings are vLLM's own."""

    tensor_parallel_size: PositiveInt = Field(1, description="GPUs that share the model")
    gpu_memory_utilization: float = Field(
        0.45, gt=0, lt=1, description="share of GPU memory; the rest is the trainer's"
    )
    max_model_len: PositiveInt | None = Field(None, description="None: the model's own")
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"


class Rollout(Part):
    """Which engine samples answers, and how many at a time."""

    engine: Literal["native", "vllm"] = Field("native", description="vllm: needs the package and a GPU")
    max_batch_rows: PositiveInt = Field(256, description="answers the native engine computes side by side")
    vllm: VLLM = VLLM()
