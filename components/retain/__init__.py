"""The end check: holds the cascade's last checkpoint against all that was once best."""

from components.retain.component import retain

__all__ = ["retain"]
