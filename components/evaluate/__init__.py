"""Lets a checkpoint sit every exam."""

from components.evaluate.component import evaluate

__all__ = ["evaluate"]
