"""Compares a checkpoint with the best accepted ones, benchmark by benchmark."""

from components.verdict.component import verdict

__all__ = ["verdict"]
