"""Every check before a run, once: a name, what it needs, and how to run it.

`kascade check` and preflight run this list; `kascade data check` shares its parts. Each says what it looked
at: a check that cannot look at its subject raises `NotChecked`, and is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from kascade.doctor import data, effects, graders, memory, model, output, sampling, secrets, sight
from kascade.doctor.addresses import environment_faults
from kascade.doctor.subject import NotChecked, Subject
from kascade.doctor.unused import unused
from kascade.errors import Fault, UserError
from kascade.guard.power import VisibleFall

Need = Literal["nothing", "files", "weights", "sandbox", "network", "cluster"]
NEEDS: tuple[Need, ...] = get_args(Need)
LIGHT: tuple[Need, ...] = ("nothing", "files")  # at once, without torch
HERE: tuple[Need, ...] = ("nothing", "files", "weights", "sandbox", "network")  # on one machine
WHY = {
    "weights": "loads the tokenizer and compares all tasks",
    "sandbox": "grades answers, in a sandbox where they are programs",
    "network": "asks the servers of environments, and other tools",
    "cluster": "asks the cluster",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    name: what is looked at. need: what looking takes. run: its errors; may raise UserError, and NotChecked
    where it cannot look. warns: whether what it finds is a warning and lets a run start.
    """

    name: str
    need: Need
    run: Callable[[Subject], Sequence[Fault]]
    warns: Callable[[Subject], bool] = lambda subject: False


def always(subject: Subject) -> bool:
    """For checks that only ever warn."""
    return True


CHECKS: tuple[Check, ...] = (
    Check("fields without effect", "nothing", unused, always),
    Check("precision", "nothing", model.precision),
    Check("memory on the devices", "nothing", memory.fits),
    Check("addresses", "nothing", lambda subject: environment_faults()),
    Check("secrets by reference", "files", secrets.readable, always),
    Check("output folder", "files", output.folder),
    Check("model files", "files", model.files),
    Check("weights", "files", model.weights),
    Check("fit of recipe and model", "files", model.fit),
    Check("ranks of adapters", "files", model.ranks, always),
    Check("vocabulary", "files", model.vocabulary),
    Check("environment options", "nothing", data.options),
    Check("rows", "files", data.rows),
    Check("splits", "files", data.splits),
    Check("answers to imitate", "files", data.demonstrations),
    Check("chat template", "files", model.template),
    Check("lengths", "files", model.lengths),
    Check("contamination", "files", data.contamination, always),
    Check("rows of benchmarks", "files", effects.fewer_tasks, always),
    Check("size of benchmarks", "files", sight.sizes, sight.only_warned),
    Check("processes of recoveries", "nothing", effects.alone, always),
    Check("tasks to recover with", "nothing", sight.unrecoverable, always),
    Check("scores of the base model", "files", sight.base_scores, always),
    Check("tokenizer", "weights", model.tokenizer),
    Check("generated tasks", "weights", data.generators),
    Check("isolation of programs", "sandbox", graders.isolation),
    Check("graders on gold answers", "sandbox", graders.gold),
    Check("servers and other tools", "network", data.servers),
    Check("vLLM server", "network", sampling.vllm_server),
    Check("jobs of several nodes", "cluster", output.jobs),
)


@dataclass(slots=True)
class Findings:
    """What the checks found.

    checked: names of the checks that looked. not_checked: names of the others, with the reason. falls: what
    each benchmark can show.
    """

    errors: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: dict[str, str] = field(default_factory=dict)
    falls: dict[str, VisibleFall] = field(default_factory=dict)

    def raise_errors(self) -> None:
        """Raises UserError with all errors, if there are any."""
        if self.errors:
            raise UserError(self.errors)


def examine(subject: Subject, needs: Collection[Need] = LIGHT) -> Findings:
    """Run every check whose need is among `needs`; the others are named as not checked."""
    found = Findings(falls=sight.falls_of(subject))
    for check in CHECKS:
        if check.need not in needs:
            found.not_checked[check.name] = WHY[check.need]
            continue
        try:
            faults = check.run(subject)
        except NotChecked as reason:
            found.not_checked[check.name] = str(reason)
            continue
        except UserError as error:
            faults = error.faults
        found.checked.append(check.name)
        known = found.warnings if check.warns(subject) else found.errors
        known += [fault for fault in dict.fromkeys(faults) if fault not in known]
    return found
