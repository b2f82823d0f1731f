"""Chat templates and token counts without transformers: what `kascade check` says within a second.

Templates are Jinja in a sandbox, with the helpers that Hugging Face templates count on
(https://huggingface.co/docs/transformers/chat_templating). Training and sampling use `kascade.data.chat`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kascade.data.chat import template as shipped_template
from kascade.data.switch import chosen, own_switch, switched, template_flags
from kascade.errors import Fault
from kascade.recipe.schema import ModelPart
from kascade.task import Message, Task

if TYPE_CHECKING:
    from jinja2 import Template

GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # marks of what is learnt; they print nothing
PROBE = ({"role": "user", "content": "?"},)
MARGIN = 64  # bytes that a template may put around one message, beside what it puts around the probe


class TemplateRefuses(Exception):
    """A template does not take a conversation; the text is its own reason."""


def own_template(folder: Path) -> str | None:
    """The chat template of a model's folder, None where it has none."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).exists():
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
            if isinstance(found, list):  # several by name
                found = next((one["template"] for one in found if one.get("name") == "default"), None)
            if found:
                return str(found)
    return None


def special_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that tokenizer_config.json names, by what they are for."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    named = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    texts = {name: one.get("content") if isinstance(one, dict) else one for name, one in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


@dataclass(eq=False)
class LightChat:
    """A chat template and a tokenizer, as far as counting tokens needs them."""

    folder: Path
    source: str

    @classmethod
    def of(cls, folder: Path, part: ModelPart) -> LightChat | Fault:
        """The chat of a model's folder, or the error that it has no template."""
        name = part.chat_template
        source = own_template(folder) if name == "own" else shipped_template(name)
        if source is not None:
            plain = cls(folder, source)
            asks = chosen(part.thinking_switch, part.thinking_words) or own_switch(plain._probe)
            return plain if asks is None else cls(folder, switched(source, asks))
        allowed = "nemotron-cascade-1, nemotron-cascade-2, or own with a tokenizer that has a template"
        what = f"the tokenizer in {folder} has no chat template"
        return Fault("model.chat_template", what, allowed, "set model.chat_template: nemotron-cascade-2")

    @cached_property
    def _template(self) -> Template:
        from jinja2.exceptions import TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(reason: str) -> None:
            raise TemplateRefuses(reason)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **how: json.dumps(
            value, ensure_ascii=False, indent=how.get("indent")
        )
        environment.globals |= {
            "raise_exception": refuse,
            "strftime_now": lambda form: datetime.now().strftime(form),
            **special_tokens(self.folder),
        }
        try:
            return environment.from_string(GENERATION.sub("", self.source))
        except TemplateSyntaxError as error:
            raise TemplateRefuses(f"it is not valid Jinja: {error.message} (line {error.lineno})") from error

    def render(self, task: Task) -> str:
        """The prompt of a task as text. Raises TemplateRefuses."""
        return self._rendered(task.messages, task.tools, task.asks_to_think)

    def _probe(self, messages: Sequence[Message], thinking: bool | None) -> str:
        return self._rendered(messages, (), thinking)

    def _rendered(self, messages: Any, tools: Any, thinking: bool | None) -> str:
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,
                documents=None,
                add_generation_prompt=True,
                **template_flags(thinking),
            )
        except TemplateRefuses:
            raise
        except Exception as error:  # a template is a program; whatever stops it refuses the conversation
            raise TemplateRefuses(f"{type(error).__name__}: {error}") from error

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        path = self.folder / "tokenizer.json"
        try:
            return Tokenizer.from_file(str(path)) if path.exists() else None
        except Exception:  # the check of the vocabulary reports it
            return None

    @cached_property
    def _overhead(self) -> int:
        try:
            return len(self._rendered(PROBE, (), False).encode())
        except TemplateRefuses:
            return 0

    def may_exceed(self, task: Task, room: int) -> bool:
        """Whether a task may have more than `room` tokens: a token is at least one byte of text."""
        texts = [message["content"] or "" for message in task.messages] + [task.reference or ""]
        calls = sum(len(json.dumps(message.get("tool_calls") or "")) for message in task.messages)
        tools = sum(len(json.dumps(dict(tool), indent=4)) for tool in task.tools)
        marks = self._overhead + MARGIN * len(task.messages)
        return sum(len(text.encode()) for text in texts) + calls + tools + marks > room

    def length(self, task: Task, *, answered: bool = False) -> int:
        """Tokens of a prompt, with its reference answer where `answered`. Raises TemplateRefuses.

        Without a tokenizer.json it is not known, and 0.
        """
        if self._tokenizer is None:
            return 0
        text = self.render(task) + ((task.reference or "") if answered else "")
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def lengths(self, tasks: list[Task], *, room: int) -> Iterator[int]:
        """Tokens of the prompts that may not fit `room`; those that surely do are not counted."""
        for task in tasks:
            if self.may_exceed(task, room):
                try:
                    yield self.length(task)
                except TemplateRefuses:  # the template's own check reports it
                    continue
