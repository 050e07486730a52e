"""What a stored result holds beyond the fields whose meaning the Remote Execution API gives."""

from __future__ import annotations

INLINE_BYTES = 4096
"""Standard output up to here is in the result itself too, so that a hit need not read a blob."""

ORDER_TYPE = "taskvault/output-order"
"""Type of the metadata that says in which order stdout and stderr were written: msgpack [[stream, length], …]."""

DELETED_TYPE = "taskvault/deleted"
"""Type of the metadata that names what the run removed: msgpack [path, …], relative to the root, escaped."""

MODES_TYPE = "taskvault/modes"
"""Type of the metadata with permissions that the umask does not explain: msgpack {path: mode}."""

KEPT_TYPE = "taskvault/kept"
"""Type of the metadata that names outputs which have the attributes of the file that was there, if one was: msgpack
[path, …], relative to the root, escaped.
"""

STAMPED_TYPE = "taskvault/stamped"
"""Type of the metadata that names outputs in which a tool wrote down when it made the others: msgpack [path, …],
relative to the root, escaped.
"""

KEYS_TYPE = "taskvault/keys"
"""Type of the metadata that names all keys that find the result, if there is more than one: msgpack [key, …]."""

MOST_TURNS = 10_000
"""Longer records of who wrote when are dropped; then all of stdout is replayed before all of stderr."""
