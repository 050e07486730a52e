"""What is known of whoever started us, beside arguments and variables: umask and standard input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from tvfs.plugin_api import HashFunction

MOST_DESCRIBED = 5000
"""Inputs that the history keeps one by one; of more it keeps one digest a directory."""

_SPILL_BYTES = 1 << 20


def umask_now() -> int:
    """Return our umask."""
    # It can only be read by setting it.
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def read_stdin() -> IO[bytes]:
    """Return all of our stdin as a file that a command can read; from here on it is our stdin too.

    Whoever runs the command after all, and however, has it read the same.
    """
    import tempfile

    content = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the run
    while part := os.read(0, _SPILL_BYTES):
        content.write(part)
    content.flush()
    content.seek(0)
    os.dup2(content.fileno(), 0)
    return content


def stream_digest(stream: IO[bytes] | None, hash_function: HashFunction) -> str:
    """Return the digest of what a command will read from its stdin; empty for nothing."""
    if stream is None:
        return ""
    # Imported here: it brings along what only trees need.
    from taskvault.run.input_tree import digest_file

    digest = digest_file(Path(f"/proc/self/fd/{stream.fileno()}"), hash_function)
    return str(digest)
