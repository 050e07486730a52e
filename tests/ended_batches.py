"""Ends a work after some of its batches, as a kill would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tvfs.catalog.catalog import Batch, Catalog


@contextmanager
def ended_after(catalog: Catalog, batches: int) -> Iterator[None]:
    """In the body so many batches are written; it ends with the last of them."""
    write, left = catalog.write, batches

    def counted(batch: Batch) -> None:
        nonlocal left
        write(batch)
        left -= 1
        if not left:
            raise ConnectionAbortedError

    catalog.write = counted  # type: ignore[method-assign]
    try:
        with suppress(ConnectionAbortedError):
            yield
    finally:
        catalog.write = write  # type: ignore[method-assign]
