"""Says why a stage was not begun: the run form left it out, or the run waits."""

from components.consider.component import consider

__all__ = ["consider"]
