"""Damaged and hostile input for every reader: `python -m tests.fuzz --count 10000`."""
