"""A checkpoint as a model of lm-eval: its own requests, answered by our engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from kascade.models.logprobs import continuation_scores
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.seeds import derive_seed

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from kascade.rollout.policy import Policy

BATCH_TOKENS = 8192  # of one forward of log-likelihoods, padding included
DEFAULT_LENGTH = 2048  # of a context that no config tells, as lm-eval assumes
Scored = tuple[Any, list[int], list[int]]  # what was asked, tokens of the context and of the continuation


@dataclass(frozen=True, slots=True)
class Said:
    """One generated answer: its text as lm-eval takes it, its tokens, and whether the limit cut it."""

    text: str
    num_tokens: int
    truncated: bool


@dataclass(slots=True)
class Drawing:
    """How answers are drawn. samples: of each request, by number. sampled: at the benchmark's own
    temperature where a task says none; else greedily."""

    params: SamplingParams
    samples: int
    seed: int
    sampled: bool
    default_tokens: int
    known: dict[tuple[str, str], list[Said]] = field(default_factory=dict)


class PolicyLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's view of a policy. `sample` is the number of the drawn answer that requests get."""

    def __init__(self, policy: Policy, drawing: Drawing) -> None:
        super().__init__()
        self.policy, self.drawing, self.sample = policy, drawing, 0
        self.tokenizer: Any = policy.tokenizer
        self._device = policy.model.device
        self._repeats: Counter[tuple[str, str]] = Counter()

    @property
    def eot_token_id(self) -> int:
        """The token that ends texts."""
        return cast("int", self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without context begins with."""
        bos: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        return int(getattr(self.policy.model.config, "max_position_embeddings", None) or DEFAULT_LENGTH)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's request caches are named by; none are used."""
        return str(self.policy.folder)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text, with the tokenizer's own special ones unless it has a first one already."""
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        said = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return cast("list[int]", self.tokenizer.encode(string, **said))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, by the template that the recipe chose."""
        return cast(
            "str",
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            ),
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source."""
        return cast("str | None", self.tokenizer.chat_template) if chat_template else ""

    def _loglikelihood_tokens(self, requests: Sequence[Scored], **_: Any) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the greedy one."""
        rows = [_cut(context, rest, self.max_length) for _, context, rest in requests]
        found: dict[int, tuple[float, bool]] = {}
        for numbers in _batches([len(ids) for ids, _ in rows]):
            ids, starts = zip(*(rows[number] for number in numbers), strict=True)
            scores = continuation_scores(self.policy.model, ids, starts, pad_id=self.policy.pad_id)
            found |= dict(zip(numbers, scores, strict=True))
        return [found[number] for number in range(len(rows))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each whole text, in windows of the model's context."""
        windows: list[Scored] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer number `sample` to each request. All samples are drawn the first time."""
        asked = [(request.args[0], repr(sorted(request.args[1].items()))) for request in requests]
        self._repeats |= Counter(asked)
        fresh = {one: request.args[1] for one, request in zip(asked, requests, strict=True)}
        fresh = {one: kwargs for one, kwargs in fresh.items() if one not in self.drawing.known}
        for settings in dict.fromkeys(settings for _, settings in fresh):
            own = {one: kwargs for one, kwargs in fresh.items() if one[1] == settings}
            self._draw(own, next(iter(own.values())))
        turns: Counter[tuple[str, str]] = Counter()
        said = []
        for one in asked:
            said.append(self._said(one, turns[one]).text)
            turns[one] += 1
        return said

    def said(self, context: str, settings: dict[str, Any]) -> Said:
        """The answer that `generate_until` gave to a request; of several to the same one the first."""
        return self._said((context, repr(sorted(settings.items()))), 0)

    def _said(self, one: tuple[str, str], turn: int) -> Said:
        answers = self.drawing.known[one]
        return answers[(self.sample * self._repeats[one] + turn) % len(answers)]

    def _draw(self, own: dict[tuple[str, str], Any], given: dict[str, Any]) -> None:
        """Draw all answers to requests with the same settings."""
        kwargs = normalize_gen_kwargs(given, self.drawing.default_tokens)
        eos = self.tokenizer.decode(self.eot_token_id)
        until = handle_stop_sequences(kwargs.get("until"), eos=eos)
        params = self._params(kwargs, tuple(stop for stop in until if stop and stop != eos))
        most = self.max_length - params.max_new_tokens
        if most < 1:
            raise ValueError(f"answers of {params.max_new_tokens} tokens leave no room in {self.max_length}")
        prompts = [
            Prompt(
                tuple(self.tok_encode(context)[-most:]),
                self.drawing.samples * self._repeats[context, settings] if params.temperature else 1,
                derive_seed(self.drawing.seed, context),
            )
            for context, settings in own
        ]
        drawn = self.policy.engine.sample(prompts, params)
        for one, samples in zip(own, drawn, strict=True):
            self.drawing.known[one] = [self._as_said(sample, until) for sample in samples]

    def _params(self, kwargs: Any, stops: tuple[str, ...]) -> SamplingParams:
        own = replace(self.drawing.params, max_new_tokens=kwargs["max_gen_toks"], stop_texts=stops)
        if not self.drawing.sampled:
            return replace(own, temperature=0.0)
        if not kwargs["do_sample"]:
            return own
        drawn = {name: kwargs[name] for name in ("temperature", "top_p", "top_k") if name in kwargs}
        return replace(own, **drawn)

    def _as_said(self, sample: Sample, until: list[str]) -> Said:
        text = self.tokenizer.decode(list(sample.token_ids), skip_special_tokens=True)
        return Said(
            postprocess_generated_text(text, until, None),
            len(sample.token_ids),
            sample.finish_reason == "length",
        )


def _cut(context: list[int], rest: list[int], most: int) -> tuple[list[int], int]:
    """The last tokens of context and continuation that fit, and where the continuation begins."""
    whole = (context + rest)[-(most + 1) :]
    return whole, max(1, len(whole) - len(rest))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of rows of similar length whose rectangle has at most BATCH_TOKENS."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
