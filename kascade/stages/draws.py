"""The batches of a stage's steps, one drawn after the other, or each while the one before is learnt."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from kascade.recipe.schema import RolloutStage
from kascade.rollout.policy import Policy

Drawn_co = TypeVar("Drawn_co", covariant=True)


class DrawBatch(Protocol[Drawn_co]):
    """Samples a step's batch."""

    def __call__(self, *, step: int) -> Drawn_co: ...


class Draws(Generic[Drawn_co]):
    """The batches of the steps; with asynchronous workers, the next one is drawn while the present one is
    learnt, by weights that are one update older.

    Not across a saved state, so that a run that was interrupted draws what it would have drawn.
    """

    def __init__(self, draw: DrawBatch[Drawn_co], part: RolloutStage, policy: Policy) -> None:
        self._draw, self._part, self._policy = draw, part, policy
        self._waiting: tuple[int, Future[Drawn_co]] | None = None

    @contextmanager
    def of(self, step: int) -> Iterator[Drawn_co]:
        """The batch of a step, to learn within the block; when it is left, the next one is drawn, too."""
        kept, self._waiting = self._waiting, None
        batch = kept[1].result() if kept and kept[0] == step else self._draw(step=step)
        following = step + 1
        ahead = self._part.workers.asynchronous
        if not ahead or following >= self._part.steps or following % self._part.save_every == 0:
            yield batch
            return
        # Leaving the executor waits for the batch: the sampler's weights change between batches only.
        with self._policy.drawing_ahead(), ThreadPoolExecutor(1) as thread:
            self._waiting = (following, thread.submit(self._draw, step=following))
            yield batch
