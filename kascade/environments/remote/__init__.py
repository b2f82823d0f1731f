"""Environments that live in a server: one client, one class per protocol."""
