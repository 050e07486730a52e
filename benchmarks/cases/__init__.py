"""One module a row group of the table; each has `measure(cache, pairs) -> list[Outcome]`."""
