"""Variables whose values are never written down: they count in keys, and the history only says whether they differ."""

from __future__ import annotations

import fnmatch
import hashlib
from functools import lru_cache

SECRET_NAMES = (
    "*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*PASSPHRASE*", "*CREDENTIAL*", "*API_KEY*", "*APIKEY*",
    "*ACCESS_KEY*", "*PRIVATE_KEY*", "*AUTH*", "*COOKIE*", "*_PAT", "AWS_SESSION*", "DATABASE_URL", "*_DSN", "NETRC",
)  # fmt: skip
"""Matched whatever the case; published in docs/design/task-key.md."""


def recorded(name: str, value: str) -> str:
    """Return what the history says of a variable: its value, or for a secret 16 bits of a hash, which tell changes."""
    if not _is_secret(name):
        return value
    return f"(not recorded, #{hashlib.sha256(value.encode(errors='surrogateescape')).hexdigest()[:4]})"


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.upper(), pattern) for pattern in SECRET_NAMES)
