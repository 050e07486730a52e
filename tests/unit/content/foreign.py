"""Foreign trees for the tests, and a vault in memory that holds them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from tvplugins.hash.sha256 import make

from tvfs.catalog.catalog import Family
from tvfs.content import reapi
from tvfs.content.index_writer import Row
from tvfs.content.reference import EMPTY, Content, ContentKind
from tvfs.content.tree_index import TreeIndexMissing, TreeIndexReader, TreeIndexRoot, decode_root
from tvfs.digest import Digest
from tvfs.plugin_api import HashFunction

Named = dict[str, Digest]


def digest_of(content: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(content).digest(), len(content))


class MemorySource:
    """An `IngressSource`; `add` and `directory` put content into it."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.rows: dict[tuple[Family, bytes], bytes] = {}
        self.commits: list[int] = []
        self.read_bytes = 0
        self.in_chunks = True
        """Whether contents are single chunks; otherwise the vault believes its manifests."""
        self._function = make({})

    # what tests do

    def add(self, content: bytes) -> Digest:
        digest = digest_of(content)
        self.blobs[digest.hash] = content
        return digest

    def directory(
        self, files: Named | None = None, directories: Named | None = None, symlinks: dict[str, str] | None = None
    ) -> Digest:
        return self.add(message(files, directories, symlinks))

    @property
    def reader(self) -> TreeIndexReader:
        return TreeIndexReader(lambda family, key: self.rows.get((family, key)))

    # what ingress asks

    @property
    def hash_function(self) -> HashFunction:
        return self._function

    @property
    def scratch(self) -> Path:
        return Path(tempfile.gettempdir())

    def content_of(self, digest: Digest) -> Content | None:
        if not digest.size:
            return EMPTY
        blob = self.blobs.get(digest.hash)
        if blob is None or len(blob) != digest.size:
            return None
        return Content(ContentKind.CHUNK if self.in_chunks else ContentKind.MANIFEST, digest.hash, digest.size)

    def size_of(self, digest: Digest) -> int | None:
        blob = self.blobs.get(digest.hash)
        return None if blob is None else len(blob)

    def hold(self, index: bytes) -> None:
        """Nothing goes away here."""

    def root(self, index: bytes) -> TreeIndexRoot | None:
        try:
            return decode_root(index, self.rows.get((Family.TREE, index)))
        except TreeIndexMissing:
            return None

    async def read(self, content: Content, offset: int, length: int) -> bytes:
        self.read_bytes += min(length, content.size - offset)
        return self.blobs[content.hash][offset : offset + length]

    async def commit(self, rows: list[Row]) -> None:
        self.commits.append(len(rows))
        self.rows.update(((family, key), value) for family, key, value in rows)


def message(
    files: Named | None = None, directories: Named | None = None, symlinks: dict[str, str] | None = None
) -> bytes:
    made = reapi.Directory()
    for name, digest in (files or {}).items():
        made.files.add(name=name, digest=reapi_digest(digest), is_executable=name.endswith(".sh"))
    for name, digest in (directories or {}).items():
        made.directories.add(name=name, digest=reapi_digest(digest))
    for name, target in (symlinks or {}).items():
        made.symlinks.add(name=name, target=target)
    return reapi.serialise(made)


def reapi_digest(digest: Digest) -> object:
    return reapi.Digest(hash=digest.hex, size_bytes=digest.size)
