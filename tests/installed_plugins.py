"""Distributions as an installer leaves them, made by a test in a directory of its own."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

GOOD = dedent("""
    import hashlib, zlib
    from tvfs.plugin_api import CodecFailed

    class Hash:
        def __init__(self, name="blake2", change=lambda digest: digest):
            self.name = name
            self._change = change
        def digest(self, content, /):
            return self._change(hashlib.blake2s(content).digest())
        def hasher(self):
            return hashlib.blake2s()

    class Codec:
        def __init__(self, name="deflate", codec_id=200):
            self.name = name
            self.codec_id = codec_id
        def compress(self, chunk, /):
            return zlib.compress(chunk)
        def decompress(self, payload, raw_bytes, /):
            try:
                chunk = zlib.decompress(payload)
            except zlib.error as exc:
                raise CodecFailed(str(exc))
            if len(chunk) != raw_bytes:
                raise CodecFailed("length")
            return chunk

    class Chunker:
        def __init__(self, name="lines", piece=100_000):
            self.name = name
            self.piece = piece
            self.max_chunk_bytes = piece
            self.parameters = {"piece": piece}
        def cut(self, content, /):
            whole, rest = divmod(len(content), self.piece)
            return [self.piece] * whole + ([rest] if rest else [])

    class Policy:
        def __init__(self, name="fifo"):
            self.name = name
        def rank(self, entry, aging, /):
            return float(entry.created_ns)
        def spare(self, entry, aging, /):
            return None

    class Tracer:
        def __init__(self, name="watcher"):
            self.name = name
        def trouble(self):
            return "it never works"
        def start(self, command, /):
            raise OSError(self.trouble())

    def make_hash(parameters, /): return Hash()
    def make_codec(parameters, /): return Codec()
    def make_chunker(parameters, /): return Chunker(**parameters)
    def make_policy(parameters, /): return Policy()
    def make_tracer(parameters, /): return Tracer()
""")
"""Five plugins that keep their contracts; a test adds lines that break them."""

ENTRY_POINTS = {
    "hash": {"blake2": "make_hash"},
    "compression": {"deflate": "make_codec"},
    "chunking": {"lines": "make_chunker"},
    "eviction": {"fifo": "make_policy"},
    "tracer": {"watcher": "make_tracer"},
}


def install(
    site: Path,
    distribution: str = "tv-example",
    *,
    version: str = "1.2",
    source: str = "",
    points: dict[str, dict[str, str]] | None = None,
) -> str:
    """Install one module of `GOOD` and `source` below `site`; return the module's name."""
    module = f"{distribution.replace('-', '_')}_plugins"
    metadata = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = []
    for kind, factories in (ENTRY_POINTS if points is None else points).items():
        lines.append(f"[taskvault.{kind}]")
        lines += [f"{name} = {module}:{factory}" for name, factory in factories.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / f"{module}.py").write_text(GOOD + dedent(source))
    return module
