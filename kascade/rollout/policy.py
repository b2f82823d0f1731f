"""The model in training with its tokens and its sampler."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kascade.data.chat import ChatFormat, chat_format
from kascade.errors import TrainingStopped
from kascade.models.adapters import read_adapter, sharing_copy
from kascade.models.checksum import weights_checksum
from kascade.models.load import empty_model, load_model, load_tokenizer, save_model
from kascade.models.policy_model import NewAdapter, base_folder, base_reference, load_policy_model
from kascade.models.seams import is_sharded
from kascade.recipe.parallel import Activations, Parallel
from kascade.recipe.schema import ModelPart, Rollout
from kascade.rollout.engines import make_drafting_engine, make_engine
from kascade.rollout.handover import NoSampler, WeightSource
from kascade.rollout.types import RolloutEngine


@dataclass(slots=True)
class Policy:
    """The model in training with its tokens and its sampler, which shares the model's storage.

    base: reference of the model whose weights stay as they are while its adapter is trained; None: all are
    trained.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    engine: RolloutEngine
    rollout: Rollout = field(default_factory=Rollout)
    version: int = 0
    base: str | None = None
    source: WeightSource | None = None  # who holds the weights; None: this process
    folder: Path | None = None  # what it was loaded from
    adapter: NewAdapter | None = None  # what it trains in place of all weights
    part: ModelPart | None = None  # how the recipe loads it
    final: Path | None = None  # the folder with the last weights of a source that has gone
    ahead: int | None = None  # checksum of the sampler's weights while `drawing_ahead`

    @classmethod
    def load(
        cls,
        folder: Path,
        part: ModelPart,
        *,
        sampled_elsewhere: bool = False,
        held_elsewhere: bool = False,
        parallel: Parallel | None = None,
        activations: Activations = "keep",
        adapter: NewAdapter | None = None,
    ) -> Policy:
        """The model in `folder`; a chat template that the recipe chose becomes the tokenizer's own.

        sampled_elsewhere: other processes will do so, or none; an engine that would take this one's memory
        stays out.
        held_elsewhere: other processes will hold the weights, too; here is the model without any. parallel:
        how the processes of a group that has met share them. activations: what training forwards keep.
        adapter: what is trained in place of all weights; None: an adapter in `folder` is merged.
        """
        if held_elsewhere:
            model, base = empty_model(base_folder(folder)), base_reference(folder, adapter)
        else:
            model, base = load_policy_model(
                folder, part, parallel=parallel, activations=activations, adapter=adapter
            )
        tokenizer = load_tokenizer(folder)
        here = part.rollout.model_copy(update={"engine": "native"}) if sampled_elsewhere else part.rollout
        chat = chat_format(tokenizer, part)
        tokenizer.chat_template = chat.template
        if held_elsewhere:
            policy = cls(model, tokenizer, chat, NoSampler(model), part.rollout, base=base, folder=folder)
            policy.adapter, policy.part = adapter, part
            return policy
        policy = cls.around(model, tokenizer, chat, here)
        policy.rollout, policy.base, policy.folder, policy.adapter = part.rollout, base, folder, adapter
        policy.part = part
        if part.draft_tokens is not None and not sampled_elsewhere:
            policy.use_engine(make_drafting_engine(model, tokenizer, policy.chat, part.draft_tokens))
        return policy

    @classmethod
    def around(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        chat: ChatFormat,
        rollout: Rollout = Rollout(),  # noqa: B008 - frozen
    ) -> Policy:
        engine: RolloutEngine = (
            NoSampler(model) if is_sharded(model) else make_engine(model, tokenizer, chat, rollout)
        )
        policy = cls(model, tokenizer, chat, engine, rollout)
        policy.sync(0)
        return policy

    @property
    def pad_id(self) -> int:
        return self.chat.pad_id

    def use_engine(self, engine: RolloutEngine) -> None:
        """Sample with `engine` from now on."""
        self.engine = engine
        self.sync(self.version)

    def sync(self, version: int) -> None:
        """The sampler takes over the current weights, stamped `version` (the number of updates)."""
        self.version = version
        self.engine.load_weights(version)
        self.check_weights()

    @contextmanager
    def drawing_ahead(self) -> Iterator[None]:
        """While answers are drawn beside an update: the sampler has to keep the weights that it has now.

        The trainer's change meanwhile, at a moment that depends on the machine, so they are compared before.
        """
        self.check_weights()
        self.ahead = self.engine.weights_checksum
        try:
            yield
        finally:
            self.ahead = None

    def check_weights(self) -> None:
        """Raise TrainingStopped when the sampler's weights are not the trainer's, bit for bit."""
        own, held = self.ahead, self.engine.weights_checksum
        if own is None:
            own = weights_checksum(self.model) if self.source is None else self.source.checksum()
        if held != own:
            raise TrainingStopped(
                f"the sampler holds weights {held:016x} as version {self.version}, the trainer {own:016x}: "
                "they were changed without a sync, or the sync lost some. To do: resume; if it happens "
                "again, report it"
            )

    def save(self, folder: Path) -> None:
        """Write the model's folder with the current weights, whoever holds them; of a group all call it."""
        if self.final is not None:
            shutil.copytree(self.final, folder, dirs_exist_ok=True)
        elif self.source is not None:
            self.source.write(folder)
        else:
            save_model(self.model, self.tokenizer, folder)
            return
        self.tokenizer.save_pretrained(folder)

    def whole_copy(self) -> PreTrainedModel:
        """A whole copy of the current model in this process, where it must fit; frozen weights are shared.

        Of a policy that trains an adapter: the base with a copy of the adapter, which is what learns.
        """
        if self.source is None:
            return sharing_copy(self.model)
        with tempfile.TemporaryDirectory(prefix="kascade-model-") as scratch:
            folder = Path(scratch) / "model"
            part = self.part or ModelPart(source=str(folder))
            how = {"precision": part.precision, "low_precision": part.low_precision}
            if self.adapter is None or self.folder is None:
                self.source.write_whole(folder)
                return load_model(folder, **how)  # type: ignore[arg-type]
            self.source.write(folder)  # the adapter alone
            model = load_model(base_folder(self.folder), **how)  # type: ignore[arg-type]
            read_adapter(model, folder, self.adapter.part)
            return model
