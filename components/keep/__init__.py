"""Hands a checkpoint on: a branch of the pipeline needs a task of its own to take it from."""

from components.keep.component import keep

__all__ = ["keep"]
