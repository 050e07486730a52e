"""The built-in compression codecs."""
