"""Keeps background tasks running, and says when they will not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
import trio

from tvd.config import SupervisionConfig
from tvfs.clock import Clock


@dataclass(slots=True)
class Health:
    """What is wrong, by task; nothing means healthy."""

    troubles: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether every background task works."""
        return not self.troubles

    @property
    def trouble(self) -> str:
        """One sentence on all that is wrong; empty when healthy."""
        return " ".join(self.troubles.values())


async def supervise(
    name: str, task: Callable[[], Awaitable[None]], *, settings: SupervisionConfig, health: Health, clock: Clock
) -> None:
    """Run `task` until it returns, again after each failure: the daemon goes on serving what still works.

    After `settings.unhealthy_after` failures in a row `health` says so, until the task has run stably.
    """
    log = structlog.get_logger().bind(task=name)
    failures = 0
    while True:
        started_s = clock.monotonic_s()
        try:
            async with trio.open_nursery() as nursery:
                if name in health.troubles:
                    nursery.start_soon(_declare_recovered, name, settings.stable_s, health)
                await task()
                nursery.cancel_scope.cancel()
            health.troubles.pop(name, None)
            return
        except Exception as exc:  # this is the task's outermost line: whatever it is, it is logged and tried again
            stable = clock.monotonic_s() - started_s >= settings.stable_s
            failures = 1 if stable else failures + 1
            backoff_s = min(settings.first_backoff_s * 2 ** min(failures - 1, 30), settings.longest_backoff_s)
            log.error("background task failed", exc_info=exc, failures=failures, restart_in_s=backoff_s)
            if failures >= settings.unhealthy_after:
                health.troubles[name] = f"The {name} has failed {failures} times in a row; see tvd.log."
        await trio.sleep(backoff_s)


async def _declare_recovered(name: str, stable_s: float, health: Health) -> None:
    await trio.sleep(stable_s)
    health.troubles.pop(name, None)
