"""A grader that crashes grades nothing: its answers are errors, masked and counted, and the run goes on.

Ours never raise on an answer. One that a user adds may, and a run of days must outlive that. What is raised
on purpose (`KascadeError`: no sandbox, an option at fault) stops as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from kascade.environments.base import Environment, Grade, Session, Task, Turn
from kascade.errors import KascadeError

log = logging.getLogger(__name__)
Groups = Sequence[tuple[Task, Sequence[str]]]


def graded(environment: Environment, groups: Groups) -> list[list[Grade]]:
    """`grade_all`; groups on which it crashes, alone, have errors for grades."""
    try:
        found = environment.grade_all(groups)
    except KascadeError:
        raise
    except Exception as error:
        if len(groups) > 1:
            return [graded(environment, [group])[0] for group in groups]
        failed = _crashed(environment.name, error)
        return [[failed] * len(answers) for _, answers in groups]
    wanted, given = [len(answers) for _, answers in groups], [len(group) for group in found]
    if given == wanted:
        return found
    failed = Grade.failed(f"{environment.name} gave {sum(given)} grades for {sum(wanted)} answers")
    return [[failed] * number for number in wanted]


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
