"""A right answer to a task: its reference, or one written from what its grader expects."""

from __future__ import annotations

from kascade.environments import get_environment
from kascade.task import THINK_END, Called, Task


def gold_answer(task: Task) -> str | None:
    """None where the row holds no answer that could be written down (chat, instructions, repositories).

    Where the task opens a think block, the answer ends it.
    """
    known = task.reference
    answer = known if known is not None else get_environment(task.environment).gold(task)
    if answer is None or not task.thinking or THINK_END in answer:
        return answer
    return (
        answer.with_words(f"{THINK_END}{answer.words}")
        if isinstance(answer, Called)
        else f"{THINK_END}{answer}"
    )
