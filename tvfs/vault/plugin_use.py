"""Which plugins a vault's data needs, with what is known of each for the day on which it is missing.

Two kinds of rows in family `sys` (docs/design/on-disk-format.md §3): `codec:` and a number, written by the chunk index
in the batch that first uses the number; and `plugin:` with kind and name, written when the vault is made, or at the
first start that finds it missing.  The second holds a witness: what the plugin made of fixed bytes then.  A plugin that
makes something else of them now is another one, whatever its name says, and nothing is served with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tvfs.catalog.catalog import Batch, Catalog, Family, prefix_end
from tvfs.chunks.chunk_index import CODEC_IN_USE
from tvfs.chunks.encoding import RAW_CODEC
from tvfs.errors import RowDamaged, TaskVaultError
from tvfs.plugin_api import Chunker, Codec, CodecFailed, HashFunction, PluginRegistry, PluginUnknown
from tvfs.plugin_api.compression import FIRST_FOREIGN_ID
from tvfs.plugin_api.guard import PROBE
from tvfs.vault.superblock import Superblock

PLUGIN = b"plugin:"


class PluginMissing(PluginUnknown):
    """The vault's data needs a plugin that is not installed."""

    def __init__(self, kind: str, name: str, known: list[str], was: PluginRow | None) -> None:
        super().__init__(kind, name, known)
        package = "the package that has it"
        if was is not None and was.distribution is not None:
            package = f"it with `pip install {was.distribution}` (it was {was.distribution} {was.distribution_version})"
        listed = ", ".join(self.known) or "none"
        self.args = (
            f"This vault's data needs the {kind} plugin {name!r}, which is not installed (installed: {listed});"
            f" nothing was changed: install {package}, and start again.",
        )
        self.distribution = None if was is None else was.distribution


class PluginChanged(TaskVaultError):
    """A plugin of the right name does something else than the one that the vault's data was made with."""

    def __init__(self, kind: str, name: str, was: PluginRow) -> None:
        package = "the package that it came with then"
        if was.distribution is not None:
            package = f"`pip install '{was.distribution}=={was.distribution_version}'`"
        super().__init__(
            f"The {kind} plugin {name!r} does not do any more what it did when this vault's data was made;"
            f" nothing was changed: install the version that did: {package}."
        )
        self.kind = kind
        self.name = name


class PluginRow(msgspec.Struct, frozen=True):
    """What is stored of a plugin that the data needs."""

    version: int
    """1."""
    distribution: str | None
    distribution_version: str | None
    """The ones that had it when it was last seen."""
    codec_id: int | None = None
    witness: bytes = b""
    """A hash function's hash of `PROBE`, a codec's payload of it; never changed."""


class VaultPlugins:
    """The plugins of one vault, loaded and found to be the ones that its data was made with."""

    def __init__(self, catalog: Catalog, registry: PluginRegistry, superblock: Superblock) -> None:
        """Write nothing; raise `PluginMissing`, `PluginChanged`, `PluginAmbiguous` or `PluginBroken`."""
        self._catalog = catalog
        self._registry = registry
        self._rows = dict(_stored(catalog))
        chunking = superblock.chunking
        self.hash_function: HashFunction = self._needed("hash", superblock.hash)
        self.chunker: Chunker = self._needed("chunking", chunking.name, chunking.parameters)
        self.codec: Codec = self._needed("compression", superblock.compression, superblock.compression_parameters)
        """For new chunks."""
        self.codec_numbers_in_use = frozenset(codecs_in_use(catalog))
        self.codecs: Mapping[int, Codec] = self._codecs()
        """For reading, by number: those that the data needs, and the one for new chunks."""
        self._loaded: dict[tuple[str, str], Any] = {
            ("hash", self.hash_function.name): self.hash_function,
            ("chunking", self.chunker.name): self.chunker,
            **{("compression", codec.name): codec for codec in self.codecs.values()},
        }
        self.check()

    def check(self) -> None:
        """Try what hash and codecs do with what they once did; raise `PluginChanged`, `PluginMisbehaved`.

        Threads: any.  For the start, and for when content turns out to be bad though its disk kept it well.
        """
        for (kind, name), plugin in self._loaded.items():
            row = self._rows.get((kind, name))
            if row is not None and not _is_the_same(kind, plugin, row):
                raise PluginChanged(kind, name, row)

    def note(self, batch: Batch) -> None:
        """Store what is known of the plugins, for the day on which one is missing."""
        for (kind, name), plugin in self._loaded.items():
            origin = self._registry.origins(kind, name)[0]
            was = self._rows.get((kind, name))
            row = PluginRow(
                1,
                origin.distribution,
                origin.version,
                getattr(plugin, "codec_id", None),
                _witness(kind, plugin) if was is None else was.witness,
            )
            if row != was:
                batch.put(Family.SYS, _key(kind, name), msgspec.msgpack.encode(row))
                self._rows[kind, name] = row

    def needed(self) -> dict[str, dict[str, str]]:
        """Return, by kind and name, why a plugin is needed: a sentence."""
        compression = {codec.name: f"chunks are stored with it (number {number})" for number, codec in self._in_use()}
        compression.setdefault(self.codec.name, "new chunks are compressed with it")
        return {
            "hash": {self.hash_function.name: "all content is addressed by it"},
            "chunking": {self.chunker.name: "it decides where contents are cut"},
            "compression": compression,
        }

    def _in_use(self) -> Iterator[tuple[int, Codec]]:
        # Asked of the catalog, because numbers come into use while the vault is open.
        return ((number, self.codecs[number]) for number in codecs_in_use(self._catalog))

    def _needed(self, kind: str, name: str, parameters: Mapping[str, int | str] | None = None) -> Any:
        try:
            return self._registry.make(kind, name, parameters)
        except PluginUnknown as exc:
            raise PluginMissing(kind, name, exc.known, self._rows.get((kind, name))) from exc

    def _codecs(self) -> dict[int, Codec]:
        codecs = {self.codec.codec_id: self.codec}
        installed = self._registry.codecs(likely=[self.codec.name])
        for number in {self.codec.codec_id, *self.codec_numbers_in_use} - {RAW_CODEC}:
            name = self._name_of(number)
            if number >= FIRST_FOREIGN_ID:
                installed.get(number)  # raises if two have it
            if number in codecs:
                continue
            found: Codec | None = self._needed("compression", name) if name else installed.get(number)
            if found is None:
                raise PluginMissing("compression", f"number {number}", self._registry.names("compression"), None)
            codecs[number] = found
        return codecs

    def _name_of(self, number: int) -> str | None:
        return next((name for (_, name), row in self._rows.items() if row.codec_id == number), None)


def codecs_in_use(catalog: Catalog) -> list[int]:
    """Return the numbers of codecs that chunks were ever stored with; `RAW_CODEC` needs none and is not there."""
    rows = catalog.scan(Family.SYS, CODEC_IN_USE, prefix_end(CODEC_IN_USE))
    return [key[len(CODEC_IN_USE)] for key, _ in rows]


def _stored(catalog: Catalog) -> Iterator[tuple[tuple[str, str], PluginRow]]:
    for key, value in catalog.scan(Family.SYS, PLUGIN, prefix_end(PLUGIN)):
        kind, _, name = key[len(PLUGIN) :].decode().partition(":")
        yield (kind, name), decode_plugin_row(value)


def decode_plugin_row(value: bytes) -> PluginRow:
    """Return what was stored of a plugin; raise `RowDamaged`."""
    try:
        return msgspec.msgpack.decode(value, type=PluginRow)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RowDamaged("A plugin's row in the catalog") from exc


def _key(kind: str, name: str) -> bytes:
    return PLUGIN + f"{kind}:{name}".encode()


def _witness(kind: str, plugin: Any) -> bytes:
    match kind:
        case "hash":
            return bytes(plugin.digest(PROBE))
        case "compression":
            return bytes(plugin.compress(PROBE))
    return b""


def _is_the_same(kind: str, plugin: Any, row: PluginRow) -> bool:
    match kind:
        case "hash":
            return bool(plugin.digest(PROBE) == row.witness)
        case "compression":
            try:
                back = plugin.decompress(row.witness, len(PROBE))
            except CodecFailed:
                return False
            return bool(back == PROBE) and plugin.codec_id == row.codec_id
    return True
