"""Signed statements about checkpoints: what they are made of, and which verdicts they passed."""
