"""The built-in eviction policies."""
