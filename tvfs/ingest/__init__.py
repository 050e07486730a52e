"""Bringing contents and trees into a vault, and writing them out again; no daemon, no event loop."""
