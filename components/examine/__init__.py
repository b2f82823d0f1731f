"""Says why a stage was not begun: the run form left it out, or the run waits."""

from components.examine.component import examine

__all__ = ["examine"]
