"""An engine that says what a script says, in the tokens of a byte tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kascade.data.chat import ChatFormat
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.task import Task

SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def byte_chat() -> ChatFormat:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL,
    )
    return ChatFormat(fast, "nemotron-cascade-2")


@dataclass
class ScriptedEngine:
    """say: from all that the policy has read, as text, and the sample's number, to what it says next."""

    chat: ChatFormat
    task: Task
    say: Callable[[str, int], str]

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        return [[self._one(prompt, k) for k in range(prompt.num_samples)] for prompt in prompts]

    def _one(self, prompt: Prompt, number: int) -> Sample:
        said = self.say(self.chat.text(prompt.token_ids), number)
        ids = tuple(self.chat.completion_ids(self.task, said))
        return Sample(ids, (-1.0,) * len(ids), "stop", 0)

    def load_weights(self, version: int) -> None:
        raise AssertionError("a script has no weights")
