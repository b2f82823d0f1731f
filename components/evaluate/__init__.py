"""Runs every benchmark on a checkpoint, and judges it against the best accepted ones."""

from components.evaluate.component import evaluate

__all__ = ["evaluate"]
