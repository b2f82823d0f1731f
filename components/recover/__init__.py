"""Distils back what a stage lost from the best accepted checkpoint of each lost domain."""

from components.recover.component import recover

__all__ = ["recover"]
