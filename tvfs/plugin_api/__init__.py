"""The contracts that plugins implement, one screen each; the only part of TaskVault that a plugin imports.

A plugin is a factory registered under an entry-point group (`taskvault.hash`, `taskvault.compression`,
`taskvault.chunking`).  The factory receives the parameters that the vault's configuration or superblock gives it, and
returns the plugin.
"""

from tvfs.plugin_api.chunking import Chunker, ChunkerFactory
from tvfs.plugin_api.compression import BatchCodec, Codec, CodecFactory, CodecFailed
from tvfs.plugin_api.hash import Hasher, HashFunction, HashFunctionFactory
from tvfs.plugin_api.registry import PluginBroken, PluginRegistry, PluginUnknown

__all__ = [
    "BatchCodec",
    "Chunker",
    "ChunkerFactory",
    "Codec",
    "CodecFactory",
    "CodecFailed",
    "HashFunction",
    "HashFunctionFactory",
    "Hasher",
    "PluginBroken",
    "PluginRegistry",
    "PluginUnknown",
]
