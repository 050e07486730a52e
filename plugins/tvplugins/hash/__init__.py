"""The built-in hash functions."""
