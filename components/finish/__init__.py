"""Writes down which checkpoint the cascade ended with."""

from components.finish.component import finish

__all__ = ["finish"]
