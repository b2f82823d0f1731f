"""Trains one stage from the accepted checkpoint before it."""

from components.train.component import train

__all__ = ["train"]
