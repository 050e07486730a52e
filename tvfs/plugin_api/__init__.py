"""The contracts that plugins implement, one screen each; the only part of TaskVault that a plugin imports.

A plugin is a factory registered under an entry-point group (`taskvault.hash`, `taskvault.compression`,
`taskvault.chunking`, `taskvault.eviction`, `taskvault.tracer`).  The factory receives the parameters that the vault's
configuration or superblock gives it, and returns the plugin.  docs/guide/plugins.md is the author's guide.

Versions: each contract has an `API_VERSION`.  A plugin may declare the one it was written for as `api_version`, on its
factory or on itself; another one is refused by name.  Within a version, methods may be added that a plugin need not
have, and fields to what it is given; nothing is removed and nothing changes its meaning.
Failure: a plugin of another distribution is called in a thread with a deadline, and what it returns is checked; what
it raises or returns against its contract becomes `PluginMisbehaved`, a call that does not come back `PluginHung`.
Neither stores anything.  One that holds the interpreter lock and never returns cannot be stopped by anybody.
"""

from tvfs.plugin_api.chunking import Chunker, ChunkerFactory
from tvfs.plugin_api.compression import BatchCodec, Codec, CodecFactory, CodecFailed
from tvfs.plugin_api.eviction import EntryFacts, EvictionPolicy, EvictionPolicyFactory
from tvfs.plugin_api.guard import PluginHung, PluginMisbehaved
from tvfs.plugin_api.hash import Hasher, HashFunction, HashFunctionFactory
from tvfs.plugin_api.registry import (
    PluginAmbiguous,
    PluginBroken,
    PluginIncompatible,
    PluginRegistry,
    PluginUnknown,
)
from tvfs.plugin_api.tracer import (
    CHANGES,
    Before,
    Event,
    Observation,
    Process,
    Spawn,
    SpawnedProcess,
    SpawningTracer,
    TracedCommand,
    TracedProcess,
    Tracer,
    TracerFactory,
    Use,
)

__all__ = [
    "CHANGES",
    "BatchCodec",
    "Before",
    "Chunker",
    "ChunkerFactory",
    "Codec",
    "CodecFactory",
    "CodecFailed",
    "EntryFacts",
    "Event",
    "EvictionPolicy",
    "EvictionPolicyFactory",
    "HashFunction",
    "HashFunctionFactory",
    "Hasher",
    "Observation",
    "PluginAmbiguous",
    "PluginBroken",
    "PluginHung",
    "PluginIncompatible",
    "PluginMisbehaved",
    "PluginRegistry",
    "PluginUnknown",
    "Process",
    "Spawn",
    "SpawnedProcess",
    "SpawningTracer",
    "TracedCommand",
    "TracedProcess",
    "Tracer",
    "TracerFactory",
    "Use",
]
