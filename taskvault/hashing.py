"""Digests of local paths, without a vault."""

from __future__ import annotations

import os
from pathlib import Path

from taskvault.plugins import plugin_registry
from taskvault.run.input_tree import digest_file
from tvfs.digest import Digest
from tvfs.ingest.port import IngestSettings
from tvfs.ingest.tree_walk import hash_paths

_PACK_BYTES = 64 << 20
"""Never written to; the settings want one."""


def digest_of_path(path: Path, hash_name: str) -> Digest:
    """Return the digest of a file's content or of a directory's canonical tree, following a symlink named as path.

    Raises `PluginUnknown`, `PathUnreadable`, or `OSError`.
    """
    registry = plugin_registry()
    hash_function = registry.hash_function(hash_name)
    if not os.path.isdir(path):
        return digest_file(path, hash_function)
    # The digest does not depend on where contents are cut, nor on how they are compressed.
    settings = IngestSettings(
        hash_function=hash_function,
        chunker=registry.chunker("fixed"),
        codec=registry.codec("none"),
        pack_max_bytes=_PACK_BYTES,
        threads=os.cpu_count() or 1,
    )
    return hash_paths(settings, os.fsencode(os.path.realpath(path)), [b"."])
