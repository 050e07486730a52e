"""Append-only files of chunk records: their bytes, writing, reading, scanning, and the directory they lie in."""
