"""Ends a stage: its last attempt is accepted, rolled back, or the cascade stops."""

from components.settle.component import settle

__all__ = ["settle"]
