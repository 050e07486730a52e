"""What a request handler is and what it returns."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from taskvault.protocol.message import Message
from taskvault.protocol.messages import Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply and the file descriptors that travel with it; they are the answer's own, and closed once it is sent."""

    reply: Reply
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


S = TypeVar("S")

Handler = Callable[[S, Any], Awaitable[Answer | Reply]]
"""Carries out one kind of request for one session; raises a `TaskVaultError` to refuse it.

The request's type is `Any` here and exact at each handler: the table pairs them, and the server looks the type up.
"""

Table = Mapping[type[Message], Handler[S]]
"""Request type to handler."""
