"""Whether what a recipe says about the thinking switch goes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kascade.recipe.checks import Problem, entries_of

ASKING = ("think", "no_think")


def thinking_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Switches that cannot work, and rules that have nothing to hold for."""
    found = recipe.get("model")
    model: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    switch, words = model.get("thinking_switch", "template"), model.get("thinking_words")
    if words is not None and switch == "template":
        what = "there are words, but thinking_switch says that the template has its own way"
        remedy, also = "set thinking_switch: system or slash", (("model", "thinking_switch"),)
        yield Problem(("model", "thinking_words"), what, remedy=remedy, also=also)
    if isinstance(words, list | tuple) and len(set(words)) < len(words):
        yield Problem(("model", "thinking_words"), "both words are the same", "two different texts")
    if switch != "template" and model.get("chat_template") == "nemotron-cascade-1":
        what = "the template nemotron-cascade-1 writes /think and /no_think itself"
        also = (("model", "chat_template"),)
        yield Problem(("model", "thinking_switch"), what, "template", "or name another template", also=also)
    for stage in entries_of(recipe, "stages"):
        yield from _rule_problems(stage.path, stage.value)


def _rule_problems(path: tuple[str | int, ...], stage: Mapping[str, Any]) -> Iterator[Problem]:
    rule = stage.get("grpo")
    if not isinstance(rule, Mapping) or rule.get("obey_switch") is not True:
        return
    here = (*path, "grpo", "obey_switch")
    mixes = stage.get("data") if isinstance(stage.get("data"), list | tuple) else ()
    sources = [mix.get("source") for mix in mixes or () if isinstance(mix, Mapping)]
    modes = [source.get("mode") for source in sources if isinstance(source, Mapping)]
    if not any(mode in ASKING for mode in modes):
        what = "no source of this stage asks for thinking or for none"
        yield Problem(here, what, remedy="set `mode: think` or `mode: no_think` on its sources")
