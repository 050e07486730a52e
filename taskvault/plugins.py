"""The plugins of this process: what is installed is read once."""

from __future__ import annotations

from functools import cache

from tvfs.plugin_api import PluginRegistry
from tvfs.plugin_api.deadline import DEADLINE_S


@cache
def plugin_registry(deadline_s: float = DEADLINE_S) -> PluginRegistry:
    """Return the registry whose plugins have so long for one call."""
    return PluginRegistry(deadline_s=deadline_s)
