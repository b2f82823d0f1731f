"""A crash that one answer causes is that answer's zero; a grader that crashes on any answer grades nothing.

Ours never raise on an answer. One that a user adds may: then its group is graded again without the answers
that it crashes on. They earn nothing, since an error would hide them. A grader that crashes on everything, or
for want of the machine's means (OSError), has errors for grades: they are masked and counted, and the run
continues. What is raised on purpose (`KascadeError`: no sandbox, an option at fault) stops as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from kascade.environments.base import Environment, Session, Turn
from kascade.errors import KascadeError
from kascade.task import Grade, Task

log = logging.getLogger(__name__)
Groups = Sequence[tuple[Task, Sequence[str]]]


def graded(environment: Environment, groups: Groups) -> list[list[Grade]]:
    """`grade_all`; a group on which it crashes is looked at alone."""
    try:
        found = environment.grade_all(groups)
    except KascadeError:
        raise
    except Exception as error:
        if len(groups) > 1:
            return [graded(environment, [group])[0] for group in groups]
        return [_without_culprits(environment, *groups[0], error)]
    wanted, given = [len(answers) for _, answers in groups], [len(group) for group in found]
    if given == wanted:
        return found
    failed = Grade.failed(f"{environment.name} gave {sum(given)} grades for {sum(wanted)} answers")
    return [[failed] * number for number in wanted]


def _without_culprits(
    environment: Environment, task: Task, answers: Sequence[str], error: Exception
) -> list[Grade]:
    """The grades of a group that crashed: zeros for the answers that crash alone, too.

    The others are graded beside an answer that crashes nothing, since some graders compare a group's members.
    """
    failed = _crashed(environment.name, error)
    if isinstance(error, OSError | MemoryError):
        return [failed] * len(answers)
    culprits = [_crashes(environment, task, answer) for answer in answers]
    others = [*dict.fromkeys(answers), "", *([task.reference] if task.reference else [])]
    harmless = next((one for one in others if not _crashes(environment, task, one)), None)
    if harmless is None:
        return [failed] * len(answers)
    spared = [harmless if culprit else answer for culprit, answer in zip(culprits, answers, strict=True)]
    try:
        grades = environment.grade_all([(task, spared)])[0] if any(culprits) else []
    except Exception:
        grades = []
    if len(grades) != len(answers):
        return [failed] * len(answers)
    zero = Grade(0.0, {"crashed_the_grader": 1.0})
    return [zero if culprit else grade for culprit, grade in zip(culprits, grades, strict=True)]


def _crashes(environment: Environment, task: Task, answer: str) -> bool:
    try:
        environment.grade_all([(task, [answer])])
    except Exception:
        return True
    return False


def opened(environment: Environment, sessions: Sequence[Session]) -> list[Turn | None]:
    """`open_all`; where it crashes, sessions begin with the task alone, and `respond` says what is wrong."""
    try:
        return environment.open_all(sessions)
    except KascadeError:
        raise
    except Exception as error:
        log.error("%s cannot open its sessions", environment.name, exc_info=error)
        return [None] * len(sessions)


def responded(environment: Environment, turns: Sequence[tuple[Session, str]]) -> list[Turn | Grade]:
    """`respond_all`; a session that crashes ends with an error."""
    if type(environment).respond_all is Environment.respond_all:
        return [_outlived(environment.name, partial(session.respond, said)) for session, said in turns]
    try:
        return environment.respond_all(turns)
    except KascadeError:
        raise
    except Exception as error:
        return [_crashed(environment.name, error)] * len(turns)


def stopped(environment: str, session: Session) -> Grade:
    """`stop`; a session that crashes there ends with an error."""
    found = _outlived(environment, session.stop)
    assert isinstance(found, Grade)
    return found


def _outlived(environment: str, act: Callable[[], Turn | Grade]) -> Turn | Grade:
    try:
        return act()
    except KascadeError:
        raise
    except Exception as error:
        return _crashed(environment, error)


def _crashed(environment: str, error: Exception) -> Grade:
    log.error("the grader of %s crashed", environment, exc_info=error)
    return Grade.failed(f"the grader crashed: {type(error).__name__}: {error}")
