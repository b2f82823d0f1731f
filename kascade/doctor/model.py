"""Checks of the base model: its files, weights, tokens, chat template and context."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kascade.data.chat import chat_format
from kascade.doctor.subject import NotChecked, Subject
from kascade.doctor.template import LightChat, special_tokens
from kascade.errors import Fault, UserError
from kascade.models.adapter_targets import ADAPTER_CONFIG
from kascade.models.fit import fit_faults, wide_ranks
from kascade.models.headers import embedding_rows, read_shapes, tensor_faults
from kascade.models.load import check_model_folder, load_tokenizer
from kascade.models.low_precision import precision_faults
from kascade.models.precision import LOW
from kascade.models.sizes import size_faults, unknown_type
from kascade.models.weight_files import WEIGHTS_INDEX
from kascade.recipe.schema import Sampling
from kascade.storage.checkpoint import base_of
from kascade.task import Mode, Task

BROKEN = "the model's files have errors"
SHOWN = 3  # kinds of conversations that a template refuses
REASON = 200  # characters of another library's message
OBJECTS = frozenset(  # files that transformers reads as objects
    ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS_INDEX)
)
SAVE_TOKENIZER = "save it again: tokenizer.save_pretrained(FOLDER)"
PROBE = "Which word is kascade?"
MODES: tuple[Mode, ...] = ("unasked", "no_think", "think")
PROBE_TASK = Task("", "chat", ({"role": "user", "content": PROBE},), {})


def precision(subject: Subject) -> list[Fault]:
    """Why this machine cannot compute in the precision that the recipe asks for."""
    part = subject.recipe.model
    if part.precision in LOW and _on_cluster(subject):
        raise NotChecked(f"{part.precision} is computed on the cluster's accelerators")
    found = precision_faults(part.precision, part.low_precision)
    return [Fault(subject.place("model", "precision"), f.what, f.allowed, f.remedy) for f in found]


def _on_cluster(subject: Subject) -> bool:
    """Whether the recipe's pods get accelerators; preflight in a pod asks all the same."""
    cluster = subject.recipe.cluster
    places = [cluster.default, *cluster.stages.values(), cluster.benchmarks or cluster.default]
    return subject.job_faults is None and any(place.accelerators for place in places)


def files(subject: Subject) -> list[Fault]:
    """Files of the model's folder that are missing, or are not what their names say."""
    folder = subject.model_folder
    found = [fault for path in sorted(folder.glob("*.json")) for fault in _json_faults(path)]
    if any(Path(fault.where).name in ("config.json", WEIGHTS_INDEX) for fault in found):
        return found
    return [*found, *check_model_folder(folder)]


def _json_faults(path: Path) -> Iterator[Fault]:
    remedy = "copy or download the file again"
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("version https://git-lfs"):
            yield Fault(str(path), "is a Git LFS pointer, not the file", remedy="fetch it: git lfs pull")
            return
        if not isinstance(json.loads(text), dict) and path.name in OBJECTS:
            yield Fault(str(path), "holds no JSON object", remedy=remedy)
    except UnicodeDecodeError as error:
        yield Fault(str(path), f"is not UTF-8 text (byte {error.start})", remedy=remedy)
    except (ValueError, RecursionError) as error:
        yield Fault(str(path), f"is not JSON: {error}", remedy=remedy)
    except OSError as error:
        yield Fault(str(path), f"cannot be read: {error.strerror}", remedy="check who may read it")


def _whole(subject: Subject) -> Path:
    """The folder with whole weights: the base's, where the model is an adapter of one of our checkpoints."""
    folder = subject.model_folder
    return base_of(folder)[1] if (folder / ADAPTER_CONFIG).exists() else folder


def _config(subject: Subject) -> Mapping[str, Any]:
    """The model's config.json. Raises NotChecked when its folder has errors, which `files` reports."""
    try:
        if files(subject):
            raise NotChecked(BROKEN)
        found = json.loads((_whole(subject) / "config.json").read_text(encoding="utf-8"))
    except UserError as error:
        raise NotChecked(BROKEN) from error
    return dict(found)


def weights(subject: Subject) -> list[Fault]:
    """Weights that are cut, are pointers to the real file, or lack tensors. Headers are read, no tensors."""
    config, folder = _config(subject), _whole(subject)
    shapes, faults = read_shapes(folder)
    faults = faults or unknown_type(folder, config)
    return faults or [*size_faults(folder, shapes, config), *tensor_faults(folder, shapes, config)]


def fit(subject: Subject) -> list[Fault]:
    """What the recipe asks of the model and the model does not have."""
    _config(subject)
    return fit_faults(_whole(subject), subject.recipe)


def ranks(subject: Subject) -> list[Fault]:
    """Adapters that some of their layers are too narrow for."""
    _config(subject)
    return list(wide_ranks(_whole(subject), subject.recipe))


def vocabulary(subject: Subject) -> list[Fault]:
    """Tokens that the model has no embedding for."""
    config, folder = _config(subject), subject.model_folder
    path = folder / "tokenizer.json"
    if not path.exists():
        raise NotChecked("there is no tokenizer.json to read token ids from")
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        return [Fault(str(path), f"is not a tokenizer: {error}", remedy=SAVE_TOKENIZER)]
    highest = _highest_token(json.loads(path.read_text(encoding="utf-8")))
    rows = embedding_rows(read_shapes(_whole(subject))[0], config)
    if highest is None or rows is None:
        raise NotChecked("tokenizer.json or config.json does not say how many tokens there are")
    if highest < rows:
        return _unknown_tokens(folder)
    what = f"has tokens up to id {highest:,}, the model has embeddings for {rows:,}"
    remedy = "use the model's own tokenizer, or model.resize_token_embeddings(len(tokenizer)) and save both"
    return [Fault(str(path), what, f"ids below {rows:,}", remedy)]


def _unknown_tokens(folder: Path) -> list[Fault]:
    """Special tokens of tokenizer_config.json that tokenizer.json does not hold: they would get new ids."""
    config = folder / "tokenizer_config.json"
    named = special_tokens(folder)
    known = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = (known.get("model") or {}).get("vocab")
    texts = {token.get("content") for token in known.get("added_tokens") or [] if isinstance(token, dict)}
    if not isinstance(vocab, dict):
        return []
    lacking = [f"{name} {text!r}" for name, text in named.items() if text not in vocab and text not in texts]
    what = f"names tokens that tokenizer.json does not hold: {', '.join(lacking)}"
    return [Fault(str(config), what, remedy=SAVE_TOKENIZER)] if lacking else []


def _highest_token(tokenizer: Any) -> int | None:
    """The highest id of a tokenizer.json; None where it holds none."""
    if not isinstance(tokenizer, dict):
        return None
    model, added = tokenizer.get("model") or {}, tokenizer.get("added_tokens") or []
    vocab = model.get("vocab") or {}
    ids = list(vocab.values()) if isinstance(vocab, dict) else [len(vocab) - 1]
    ids += [token["id"] for token in added if isinstance(token, dict) and isinstance(token.get("id"), int)]
    return max((one for one in ids if isinstance(one, int)), default=None)


def template(subject: Subject) -> list[Fault]:
    """Whether there is a chat template, and whether it takes the conversations of the rows."""
    _config(subject)
    chat = LightChat.of(subject.model_folder, subject.recipe.model)
    if isinstance(chat, Fault):
        return [chat]
    faults = _refusals(subject, chat.render)
    if not faults and PROBE not in chat.render(PROBE_TASK):
        what = "does not show what the user says"
        faults.append(Fault("model.chat_template", what, remedy=_other_template(subject)))
    return faults or _mode_faults(subject, chat)


def _mode_faults(subject: Subject, chat: LightChat) -> list[Fault]:
    """Sources that leave thinking to the model, where the template always says one of both."""
    said, *asked = (chat.render(replace(PROBE_TASK, mode=mode, thinking=mode == "think")) for mode in MODES)
    sources = [mix.source for stage in subject.recipe.stages for mix in stage.data]
    sources += [benchmark.source for benchmark in subject.recipe.benchmarks]
    if said not in asked or not any(source.mode == "unasked" for source in sources):
        return []
    what = "a source has `mode: unasked`, but the chat template always asks for thinking or for none"
    return [Fault("model.thinking_switch", what, "system, slash", "set it, or leave `mode: unasked` out")]


def _refusals(subject: Subject, render: Callable[[Task], object]) -> list[Fault]:
    """Kinds of conversations that a template does not take, by the roles in them."""
    found: dict[tuple[str, ...], Fault | None] = {}
    for where, task in [*subject.all_tasks(), ("the shortest conversation", PROBE_TASK)]:
        roles = tuple(message["role"] for message in task.messages)
        if roles in found:
            continue
        found[roles] = None
        try:
            render(task)
        except Exception as error:  # a template is a program and may raise anything
            reason = " ".join(str(error).split())[:REASON]
            what = f"refuses a conversation of the roles {', '.join(roles)} ({where}): {reason}"
            found[roles] = Fault("model.chat_template", what, remedy=_other_template(subject))
    return [fault for fault in found.values() if fault is not None][:SHOWN]


def _other_template(subject: Subject) -> str:
    rows = "rewrite the rows without these roles"
    own = subject.recipe.model.chat_template == "own"
    return f"set model.chat_template: nemotron-cascade-2, or {rows}" if own else rows


def lengths(subject: Subject) -> list[Fault]:
    """Answers and prompts that are longer than the model's context."""
    config = _config(subject)
    context = _context(subject, config)
    chat = LightChat.of(subject.model_folder, subject.recipe.model)
    if isinstance(chat, Fault):
        raise NotChecked("there is no chat template")
    found: list[Fault] = []
    for index, stage in enumerate(subject.recipe.stages):
        tasks = [task for _, tasks in subject.pools.get(stage.name, []) for task in tasks]
        if (longest := stage.longest_given()) is not None:
            found += _long_demonstrations(f"stage {stage.name}", tasks, chat, context, longest)
        if (sampling := stage.answers_by()) is not None:
            place = subject.place("stages", index, "sampling", "max_new_tokens")
            found += _long_answers(Fault(place, f"stage {stage.name}"), sampling, tasks, chat, context)
    for index, benchmark in enumerate(subject.recipe.benchmarks):
        place = subject.place("benchmarks", index, "sampling", "max_new_tokens")
        tasks = subject.exams.get(benchmark.name, [])
        where = Fault(place, f"benchmark {benchmark.name}")
        if benchmark.is_fixed:
            continue  # the tool says how long an answer may be
        found += _long_answers(where, benchmark.sampling, tasks, chat, context)
    return found


def _context(subject: Subject, config: Mapping[str, Any]) -> int:
    """Tokens that the model can read at once, stretched where the recipe does so."""
    context = config.get("max_position_embeddings")
    longer = subject.recipe.model.long_context
    if longer is not None:
        context = longer.original_max_position_embeddings or context
    if not isinstance(context, int):
        raise NotChecked("config.json does not say how long the context is")
    return int(context * longer.factor) if longer is not None else context


def _long_answers(
    where: Fault, sampling: Sampling, tasks: list[Task], chat: LightChat, context: int
) -> Iterator[Fault]:
    """Answers that the context has no room for after the longest prompt. where: the field and its owner."""
    most = sampling.max_new_tokens
    over = [length for length in chat.lengths(tasks, room=context - most) if length + most > context]
    longest = max(over, default=0)
    if over or most > context:
        prompt = f" after a prompt of {longest:,} ({len(over)} of {len(tasks)} tasks)" if over else ""
        what = f"{where.what}: answers of up to {most:,} tokens{prompt} do not fit a context of {context:,}"
        left = context - longest
        allowed = f"max_new_tokens up to {left:,}" if left > 0 else "shorter prompts"
        yield Fault(where.where, what, allowed, "lower sampling.max_new_tokens, or take shorter rows")


def _long_demonstrations(
    name: str, tasks: list[Task], chat: LightChat, context: int, max_tokens: int
) -> Iterator[Fault]:
    """Demonstrations that training would take and the context has no room for."""
    if max_tokens <= context:
        return
    lengths = [chat.length(task, answered=True) for task in tasks if chat.may_exceed(task, context)]
    if over := [length for length in lengths if context < length <= max_tokens]:
        what = f"{len(over)} of {len(tasks)} demonstrations are longer than the context of {context:,} tokens"
        remedy = (
            f"set max_tokens: {context} in the stage, which leaves longer ones out, or model.long_context"
        )
        yield Fault(name, f"{what}, the longest has {max(over):,}", remedy=remedy)


def tokenizer(subject: Subject) -> list[Fault]:
    """Whether the tokenizer loads, and its template takes every kind of conversation of the tasks."""
    _config(subject)
    try:
        chat = chat_format(load_tokenizer(subject.model_folder), subject.recipe.model)
    except UserError as error:
        return list(error.faults)
    except Exception as error:  # transformers raises errors of many kinds for files that it cannot read
        what = (
            f"the tokenizer cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:REASON]}"
        )
        return [Fault(str(subject.model_folder), what, remedy=SAVE_TOKENIZER)]
    return _refusals(subject, chat.prompt_ids)
