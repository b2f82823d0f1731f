"""The end check: is everything that was once best still there?

After the last stage every benchmark is held against each accepted checkpoint that was within two standard
errors (`near_best`) of its best, on fresh samples. The hypothesis is that the final checkpoint is `margin` or
more below, and all of them must be rejected at the level; then no correction for their number is needed
(Berger, Technometrics 24, 1982). So the first one that is not rejected decides: a benchmark is held against
the strongest first, and no more is drawn for it once it is not kept.

That something is lost is another claim, and any of them may be false: there the level is divided over the
checkpoints of a benchmark (Bonferroni) and over the benchmarks (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kascade.guard.comparison import Standing
from kascade.guard.contenders import contenders
from kascade.guard.lineage import Ancestor, open_reference
from kascade.guard.looks import Looked, look_for_keeping
from kascade.guard.rule import first_kept_look, fixed_samples, holm, keep_rule
from kascade.guard.scores import read_score
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.task import Domain

WORDS: Mapping[Standing, str] = {
    "kept": "kept",
    "lost": "lost",
    "not_shown": "not shown to be kept",
    "not_judged": "without the grades to judge it",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeldAgainst(_Frozen):
    """The final checkpoint against one that was near the best. In reward; limits: the lower one-sided at
    `level`, the upper at `lost_level` (None: at `level`, in results from before there was one).

    samples: fresh answers per task of each. A checkpoint that is itself the best is held against none.
    """

    checkpoint: str
    before: float
    after: float
    difference: float
    limits: tuple[float, float]
    level: float
    samples: int
    standing: Standing
    lost_level: float | None = None


class Held(_Frozen):
    """One benchmark at the end. standing: kept against all that were near its best, or the first other word.

    not_compared: how many more were near the best, when one had decided already.
    """

    benchmark: str
    domain: Domain
    standing: Standing
    against: tuple[HeldAgainst, ...]
    not_compared: int = 0

    @property
    def fall(self) -> float:
        """The largest fall, in reward; 0 without one."""
        return max((-one.difference for one in self.against), default=0.0)


class EndVerdict(_Frozen):
    """The end check's result for one checkpoint. round: 0, or 1 after a last recovery, which started from
    `recovered_from`."""

    checkpoint: str
    round: int
    margin: float
    level: float
    benchmarks: dict[str, Held]
    recovered_from: str | None = None

    @property
    def kept(self) -> bool:
        """Whether every benchmark is shown to be kept."""
        return all(held.standing == "kept" for held in self.benchmarks.values())

    @property
    def not_kept(self) -> dict[str, Held]:
        """The benchmarks that are lost, not shown to be kept, or not judged."""
        return {name: held for name, held in self.benchmarks.items() if held.standing != "kept"}


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison of the end check. looked, held: None while there are no samples of both; held also where
    nothing was graded."""

    other: Ancestor
    looked: Looked | None
    held: HeldAgainst | None

    @property
    def standing(self) -> Standing:
        return self.held.standing if self.held else "not_judged"


@dataclass(frozen=True, slots=True)
class EndCheck:
    """One checkpoint after the last stage, with what it is held against. round: 0, or 1 after a last
    recovery."""

    layout: RunFolder
    recipe: Recipe
    checkpoint: Ancestor
    round: int
    against: Mapping[str, list[Ancestor]]

    def compared(self, name: str) -> list[Compared]:
        """The comparisons of one benchmark in order, up to the first that does not show it to be kept."""
        found = []
        for other in self.against.get(name, ()):
            found.append(self._compare(name, other))
            if found[-1].standing != "kept":
                break
        return found

    def _compare(self, name: str, other: Ancestor) -> Compared:
        before, after = (
            read_score(self.layout, one.digest, name, "end", self.round) for one in (other, self.checkpoint)
        )
        looked = held = None
        if before is not None and after is not None:
            claims = len(self.recipe.benchmarks) * len(self.against[name])
            rule = keep_rule(self.recipe.guard, fixed_samples(before, after), claims)
            looked = look_for_keeping(before.task_rewards(), after.task_rewards(), rule)
            held = held_against(other.reference, looked, rule.level, rule.lost_level)
        return Compared(other, looked, held)

    def needed(self) -> dict[str, tuple[str, int]]:
        """Per benchmark that is not decided: whom it is held against next (reference), and the samples per
        task of both that must be there.

        Half of what the comparison before has taken is asked for at once: batches are larger then, and looks
        at fewer answers are still looks.
        """
        found: dict[str, tuple[str, int]] = {}
        for name in self.against:
            size, other = first_kept_look(self.recipe, name), None
            for one in self.compared(name):
                more = size if one.looked is None else one.looked.more
                other = one.other.reference if more is not None else None
                size = more or (max(size, one.looked.size // 2) if one.looked else size)
            if other is not None:
                found[name] = (other, size)
        return found

    def conclude(self, domains: Mapping[str, Domain], recovered_from: str | None = None) -> EndVerdict:
        """The result, once nothing more is needed."""
        rule = self.recipe.guard.retention
        compared = {one.name: self.compared(one.name) for one in self.recipe.benchmarks}
        for name, level in self._lost(compared).items():
            compared[name][-1] = _called_lost(compared[name][-1], rule.level, level)
        held = {name: self._held(name, domains[name], found) for name, found in compared.items()}
        return EndVerdict(
            checkpoint=self.checkpoint.reference,
            round=self.round,
            margin=rule.margin,
            level=rule.level,
            benchmarks=held,
            recovered_from=recovered_from,
        )

    def _lost(self, compared: Mapping[str, list[Compared]]) -> dict[str, float]:
        """Benchmarks that are shown to be lost, each with the level over all looks that it was held to."""
        others = {name: len(found) for name, found in self.against.items()}
        falls = {
            name: (min(1.0, found[-1].looked.p * others[name]), 0.0)
            for name, found in compared.items()
            if found and found[-1].looked and found[-1].standing in ("lost", "not_shown")
        }
        tests = holm(falls, len(self.recipe.benchmarks), self.recipe.guard.retention.level, 0.0)
        return {name: test.level / others[name] for name, test in tests.items() if test.significant}

    def _held(self, name: str, domain: Domain, compared: list[Compared]) -> Held:
        alone: Standing = "kept" if name in self.against else "not_judged"
        return Held(
            benchmark=name,
            domain=domain,
            standing=compared[-1].standing if compared else alone,
            against=tuple(one.held for one in compared if one.held),
            not_compared=len(self.against.get(name, ())) - len(compared),
        )


def _called_lost(one: Compared, level: float, lost_level: float) -> Compared:
    held = held_against(one.other.reference, one.looked, level, lost_level)
    return replace(one, held=held.model_copy(update={"standing": "lost"}) if held else None)


def open_end_check(
    layout: RunFolder, recipe: Recipe, checkpoint: str, round_: int = 0, line: str | None = None
) -> EndCheck:
    """The end check of a checkpoint. line: whose accepted ancestors it is held against, beside side branches;
    None: its own."""
    own = open_reference(checkpoint)
    return EndCheck(layout, recipe, own, round_, contenders(layout, recipe, line or checkpoint, own))


def held_against(
    reference: str, looked: Looked | None, level: float, lost_level: float
) -> HeldAgainst | None:
    """What the looks say of a checkpoint against the one at `reference`; None where nothing was graded.

    level, lost_level: of the lower and of the upper limit, over all looks.
    """
    if looked is None or looked.comparison is None:
        return None
    found, levels = looked.comparison, (level * looked.share, lost_level * looked.share)
    return HeldAgainst(
        checkpoint=reference,
        before=found.before,
        after=found.after,
        difference=found.difference,
        limits=(found.limits(levels[0])[0], found.limits(levels[1])[1]),
        level=levels[0],
        lost_level=levels[1],
        samples=looked.size,
        standing=looked.standing,
    )


def better(first: EndVerdict, second: EndVerdict) -> EndVerdict:
    """The one that is all kept, else the one with fewer benchmarks that could not be judged, else the one
    with the smaller falls in all; of equals the first."""

    def key(one: EndVerdict) -> tuple[bool, int, float]:
        held = one.benchmarks.values()
        # A benchmark without grades shows no fall: unknown must not look better than known.
        unknown = sum(each.standing == "not_judged" for each in held)
        return not one.kept, unknown, sum(max(0.0, each.fall) for each in held)

    return second if key(second) < key(first) else first


def sentences(found: EndVerdict) -> list[str]:
    """One sentence per benchmark that is not shown to be kept, or that all are."""
    if found.kept:
        return [f"Every benchmark is kept within {found.margin:g} of its best accepted checkpoint."]
    return [f"{name} is {WORDS[held.standing]}{_numbers(held)}." for name, held in found.not_kept.items()]


def _numbers(held: Held) -> str:
    if not held.against:
        return ""
    one = held.against[-1]
    name = "/".join(CheckpointRef.parse(one.checkpoint).uri.split("/")[-2:])
    low, high = one.limits
    others = f"; {held.not_compared} more not compared" if held.not_compared else ""
    return (
        f": {one.before:.3f} in {name} and {one.after:.3f} at the end "
        f"({one.difference:+.3f}, limits {low:+.3f} to {high:+.3f}{others})"
    )


def write_end_verdict(layout: RunFolder, found: EndVerdict) -> None:
    """Write the end check of its checkpoint, in place of an earlier one."""
    path = layout.end_verdict(CheckpointRef.parse(found.checkpoint).digest)
    write_text(path, found.model_dump_json(indent=1) + "\n")


def read_end_verdict(layout: RunFolder, checkpoint: str) -> EndVerdict | None:
    """The end check of a checkpoint (reference); None before there is one. Raises UserError for a broken
    file."""
    return layout.load(layout.end_verdict(CheckpointRef.parse(checkpoint).digest), _parse)


def _parse(path: Path) -> EndVerdict:
    return EndVerdict.model_validate_json(path.read_text(encoding="utf-8"))
