"""The ways to reach a vault's files, each served by a process of its own, and a client that asks as fast as it can."""
