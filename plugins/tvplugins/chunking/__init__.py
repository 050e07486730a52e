"""The built-in chunkers."""
