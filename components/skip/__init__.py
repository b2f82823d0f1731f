"""Says why a stage was not begun: the run form left it out, or the run waits."""

from components.skip.component import skip

__all__ = ["skip"]
