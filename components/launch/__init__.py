"""Trains a stage, or a recovery of it, in a job of several nodes, and waits for it."""

from components.launch.component import launch

__all__ = ["launch"]
