"""Says on stderr that a long step goes on, when stderr is a terminal; nothing otherwise."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHOWN_AFTER_S = 0.5
"""What is quicker than this needs no words, and does not pay for loading what shows them."""


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show a spinner and the time that has passed while the body runs, if it runs for long."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    spinner = threading.Thread(target=_spin, args=(label, done), daemon=True)
    spinner.start()
    try:
        yield
    finally:
        done.set()
        spinner.join()


def _spin(label: str, done: threading.Event) -> None:
    if done.wait(SHOWN_AFTER_S):
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(label, total=None)
        done.wait()
