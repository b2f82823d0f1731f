"""Any other tool, run against the served checkpoint; and the results that it writes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kascade.environments.outside.settings import HarnessOptions
from kascade.errors import Fault, UserError
from kascade.results.model import Answer
from kascade.results.reading import read_answers

if TYPE_CHECKING:
    from kascade.rollout.policy import Policy

SHOWN = 2000  # last characters of a failed command's output that its error repeats
MODEL = "checkpoint"  # what clients call the model


def harness_answers(
    policy: Policy, options: HarnessOptions, words: Mapping[str, str], most_tokens: int
) -> list[Answer]:
    """The graded answers of a tool. words: what stands in place of {tasks}, {checkpoint} and the like.

    most_tokens: of an answer where the tool names no limit. Raises UserError where the command fails, or
    where there are no results.
    """
    if not options.command:
        return _read(options, words)
    with _served(policy, most_tokens) as url:
        return answers_at(Api(f"{url}/v1", MODEL), options, words)


@dataclass(frozen=True, slots=True)
class Api:
    """Where a model listens. url: with its version, such as http://host:8000/v1."""

    url: str
    model: str
    key: str = "none"


def answers_at(api: Api, options: HarnessOptions, words: Mapping[str, str]) -> list[Answer]:
    """`harness_answers` of a model that is served already."""
    with TemporaryDirectory(prefix="kascade-harness-") as out:
        words = {**words, "out": out, "url": api.url, "model": api.model}
        _run(options, words, api.key)
        return _read(options, words)


def _read(options: HarnessOptions, words: Mapping[str, str]) -> list[Answer]:
    path = Path(filled(options.results, words))
    if not path.exists():
        raise UserError(_no_results(options, path, words))
    return _chosen(list(read_answers(path, options.metric)), options.benchmark, path)


def filled(text: str, words: Mapping[str, str]) -> str:
    """A text with {names} replaced. Other braces stay: commands may hold JSON."""
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", value)
    return text


class _served:  # noqa: N801 - read as a verb
    """A policy behind the OpenAI API on loopback."""

    def __init__(self, policy: Policy, most_tokens: int) -> None:
        from kascade.serving.app import make_app
        from kascade.serving.background import in_background
        from kascade.serving.served import Served

        served = Served.of(MODEL, policy)
        self._thread = served.thread
        app = make_app(served, default_tokens=most_tokens)
        self._api = in_background(app)

    def __enter__(self) -> str:
        return self._api.__enter__()

    def __exit__(self, *_: object) -> None:
        self._api.__exit__(None, None, None)
        self._thread.close()


def _run(options: HarnessOptions, words: Mapping[str, str], api_key: str) -> None:
    """Run the command to its end. Raises UserError with its last words where it fails."""
    command = [filled(word, words) for word in options.command]
    key = {"OPENAI_BASE_URL": words["url"], "OPENAI_API_BASE": words["url"], "OPENAI_API_KEY": api_key}
    with Path(words["out"], ".log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **key}, start_new_session=True
        )
        try:
            status: int | None = process.wait(options.timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status == 0:
            return
        log.seek(0)
        said = log.read().decode(errors="replace")[-SHOWN:].strip()
    why = f"took over {options.timeout_s:g} s" if status is None else f"ended with exit code {status}"
    remedy = "run it by hand against `kascade serve CHECKPOINT`"
    raise UserError(Fault(f"harness {command[0]}", f"{why}. It said last:\n{said}", remedy=remedy))


def _no_results(options: HarnessOptions, path: Path, words: Mapping[str, str]) -> Fault:
    if options.command:
        return Fault(
            f"harness {options.command[0]}", "wrote no results", remedy="let it write them below {out}"
        )
    remedy = (
        f"run the benchmark on the checkpoint {words['checkpoint']}, put the results there, and run "
        "the same command again: the run goes on where it stopped"
    )
    return Fault(str(path), "no results are there yet", remedy=remedy)


def _chosen(answers: list[Answer], wanted: str | None, path: Path) -> list[Answer]:
    names = list(dict.fromkeys(one.benchmark for one in answers))
    if wanted is None and len(names) > 1:
        what = f"holds {len(names)} benchmarks"
        raise UserError(Fault(str(path), what, ", ".join(names), "name one as options.benchmark"))
    found = [one for one in answers if wanted in (None, one.benchmark)]
    if not found:
        what = "holds no graded answers" if not names else f"has no benchmark {wanted!r}"
        raise UserError(Fault(str(path), what, ", ".join(names)))
    return found
