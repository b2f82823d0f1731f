"""The words that ask a model to think or not to think, as part of its chat template.

Llama-Nemotron (arXiv 2505.00949) reads `detailed thinking on` or `off` in the system turn. Nemotron-Cascade
(arXiv 2512.13607) reads ` /think` or ` /no_think` after the user's words. The model then opens a think block
itself, or not. Without such words, it decides. A switch is written into the template, so a checkpoint's own
template has it, and every server renders what was trained.

Templates read three values of `enable_thinking`: true, false, and none given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kascade.recipe.model_parts import ThinkingSwitch
from kascade.task import THINK_END, THINK_START, Message

Place = Literal["system", "slash"]
Render = Callable[[Sequence[Message], bool | None], str]
WORDS: dict[Place, tuple[str, str]] = {
    "system": ("detailed thinking on", "detailed thinking off"),
    "slash": (" /think", " /no_think"),
}
MARK = "{#- thinking switch: "  # how a template begins that has been given one
PROBE: Message = {"role": "user", "content": "?"}


@dataclass(frozen=True, slots=True)
class Switch:
    """place: of the words. words: what asks for thinking, and for none. opens: the template's own words open
    or close a think block in the prompt, and that is kept; else the prompt ends before any.
    """

    place: Place
    words: tuple[str, str]
    opens: bool = False


# What templates of published models look for: Nemotron-H's reasoning models, Llama-Nemotron's, and those that
# read the flags of Nemotron-Cascade in a system turn or after the user's words.
KNOWN = (
    Switch("system", ("{'reasoning': True}", "{'reasoning': False}"), opens=True),
    Switch("system", WORDS["system"], opens=True),
    Switch("system", ("/think", "/no_think"), opens=True),
    Switch("slash", WORDS["slash"], opens=True),
)


def chosen(switch: ThinkingSwitch, words: tuple[str, str] | None) -> Switch | None:
    """The switch that a recipe names; None: the template's own."""
    return None if switch == "template" else Switch(switch, words or WORDS[switch])


def own_switch(render: Render) -> Switch | None:
    """Words that a template looks for, where it does nothing with `enable_thinking`; None: there are none.

    render: a conversation and `enable_thinking` as a prompt. Found by trying: words are the template's switch
    if it writes more than the words themselves differently.
    """
    if render([PROBE], True) != render([PROBE], False):
        return None
    return next((known for known in KNOWN if _is_read(render, known)), None)


def _is_read(render: Render, switch: Switch) -> bool:
    try:
        on, off = (render(_said(switch, word), None).replace(word, "", 1) for word in switch.words)
    except Exception:  # a template is a program, and may refuse a system turn
        return False
    return on != off


def _said(switch: Switch, word: str) -> list[Message]:
    if switch.place == "system":
        return [Message(role="system", content=word), PROBE]
    return [Message(role="user", content=PROBE["content"] + word)]


def switched(source: str, switch: Switch) -> str:
    """A chat template with a switch. One that has a switch already stays as it is."""
    if source.startswith(MARK):
        return source
    head = f"{MARK}{switch.place} -#}}\n{_SAY[switch.place]}"
    on, off = (_quoted(word) for word in switch.words)
    head = head.replace("ON_WORDS", on).replace("OFF_WORDS", off)
    whole = source.removesuffix("\n")
    return f"{head}{whole}" if switch.opens else f"{head}{{% set whole %}}{whole}{{% endset -%}}\n{_CUT}"


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends inside an open think block."""
    return THINK_END not in prompt.rpartition(THINK_START)[2] and THINK_START in prompt


def _quoted(word: str) -> str:
    """A text as Jinja writes it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def template_flags(asked: bool | None) -> dict[str, Any]:
    """What a template is given: nothing where neither is asked for."""
    return {} if asked is None else {"enable_thinking": asked}


_SAY: dict[Place, str] = {
    "system": """\
{%- if enable_thinking is defined and enable_thinking is not none -%}
{%- set said = ON_WORDS if enable_thinking else OFF_WORDS -%}
{%- if messages and messages[0].role == "system" -%}
{%- if ON_WORDS not in messages[0].content and OFF_WORDS not in messages[0].content -%}
{%- set messages = [dict(messages[0], content=said + "\\n" + messages[0].content)] + messages[1:] -%}
{%- endif -%}
{%- else -%}
{%- set messages = [{"role": "system", "content": said}] + messages -%}
{%- endif -%}
{%- endif -%}
""",
    "slash": """\
{%- if enable_thinking is defined and enable_thinking is not none -%}
{%- set ns = namespace(last=-1, turns=[]) -%}
{%- for turn in messages if turn.role == "user" -%}
{%- set ns.last = ns.last + 1 -%}
{%- endfor -%}
{%- set seen = namespace(users=-1) -%}
{%- for turn in messages -%}
{%- if turn.role == "user" -%}
{%- set seen.users = seen.users + 1 -%}
{%- endif -%}
{%- if turn.role == "user" and seen.users == ns.last -%}
{%- set flag = ON_WORDS if enable_thinking else OFF_WORDS -%}
{%- set ns.turns = ns.turns + [dict(turn, content=turn.content + flag)] -%}
{%- else -%}
{%- set ns.turns = ns.turns + [turn] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = ns.turns -%}
{%- endif -%}
""",
}
_CUT = """\
{%- set bare = namespace(text=whole) -%}
{%- if add_generation_prompt -%}
{%- set end = whole.rstrip() -%}
{%- if end.endswith("</think>") -%}
{%- set end = end[:-8].rstrip() -%}
{%- endif -%}
{%- if end.endswith("<think>") -%}
{%- set bare.text = end[:-7] -%}
{%- endif -%}
{%- endif -%}
{{- bare.text -}}
"""
