"""Shows what was judged of a checkpoint: before, after and interval of every benchmark, and the reasons."""

from components.verdict.component import verdict

__all__ = ["verdict"]
