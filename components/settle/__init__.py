"""Ends a stage: the candidate is accepted, rolled back, or the cascade stops."""

from components.settle.component import settle

__all__ = ["settle"]
