"""Says why a stage was not begun: the run form left it out, or the run waits."""

from components.unchanged.component import unchanged

__all__ = ["unchanged"]
