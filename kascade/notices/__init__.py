"""Notifications of what happens to a run: written down, signed, sent once."""
