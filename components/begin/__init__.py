"""Decides whether a stage begins: the run form, a person's word and the budget."""

from components.begin.component import begin

__all__ = ["begin"]
