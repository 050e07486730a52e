"""Every handler answers, whatever happens in it."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Callable

import pyfuse3
import pytest
import trio

from tvfs.errors import TaskVaultError
from tvfs.filesystem.posix_error import NotFound, ReadOnly
from tvfs.fuse.answers import answers, answers_later, answers_nothing, refusal
from tvfs.fuse.operations import HANDLERS, FilesystemOperations
from tvfs.vault.reservations import VaultFull


class Raiser:
    """Raises what it is told to, from each kind of handler."""

    def __init__(self) -> None:
        self.counts = {"at_once": 0, "later": 0, "unheard": 0}

    @answers
    def at_once(self, exc: BaseException) -> None:
        raise exc

    @answers_later
    async def later(self, exc: BaseException) -> None:
        await trio.lowlevel.checkpoint()
        raise exc

    @answers_nothing
    def unheard(self, exc: BaseException) -> None:
        raise exc


async def errno_of(exc: BaseException) -> set[int]:
    numbers = set()
    raiser = Raiser()
    for handler in (raiser.at_once, raiser.later):
        with pytest.raises(pyfuse3.FUSEError) as refused:
            await handler(exc)
        numbers.add(refused.value.errno)
    assert raiser.counts == {"at_once": 1, "later": 1, "unheard": 0}
    return numbers


def test_every_request_that_pyfuse3_knows_has_a_wrapped_handler_of_ours() -> None:
    assert {"lookup", "read", "forget", "readdir", "poll", "access"} <= set(HANDLERS)
    for name in HANDLERS:
        handler = FilesystemOperations.__dict__.get(name)
        assert handler is not None, f"{name} is inherited"
        assert handler.__code__.co_name == "answered", f"{name} is not wrapped"


async def test_a_refusal_becomes_its_errno() -> None:
    assert await errno_of(NotFound("no such name")) == {errno.ENOENT}
    assert await errno_of(ReadOnly()) == {errno.EROFS}
    assert await errno_of(pyfuse3.FUSEError(errno.ENOSYS)) == {errno.ENOSYS}


async def test_an_error_of_the_disk_keeps_its_errno_and_is_logged(expect_log: Callable[[str], None]) -> None:
    expect_log("request failed")
    assert await errno_of(OSError(errno.EDQUOT, "quota")) == {errno.EDQUOT}
    assert await errno_of(OSError("without a number")) == {errno.EIO}
    expect_log("request handler raised")


async def test_a_full_vault_is_a_full_disk() -> None:
    assert await errno_of(VaultFull(10, 5, 100)) == {errno.ENOSPC}


async def test_any_other_error_of_ours_is_an_input_output_error_and_is_logged(
    expect_log: Callable[[str], None],
) -> None:
    expect_log("request failed")
    assert await errno_of(TaskVaultError("a chunk is damaged")) == {errno.EIO}


@pytest.mark.parametrize("exc", [ZeroDivisionError(), MemoryError(), ExceptionGroup("several", [ValueError()])])
async def test_a_bug_is_an_input_output_error_and_is_logged(exc: Exception, expect_log: Callable[[str], None]) -> None:
    expect_log("request handler raised")
    assert await errno_of(exc) == {errno.EIO}


async def test_cancellation_passes() -> None:
    with trio.move_on_after(1) as scope:
        scope.cancel()
        await Raiser().later(ValueError())
    assert scope.cancelled_caught


async def test_a_handler_that_nobody_hears_raises_nothing(expect_log: Callable[[str], None]) -> None:
    expect_log("request handler raised")
    raiser = Raiser()
    await raiser.unheard(ZeroDivisionError())
    await raiser.unheard(NotFound("gone already"))
    assert raiser.counts["unheard"] == 2


def test_an_errno_that_nobody_knows_becomes_an_input_output_error() -> None:
    assert refusal(99_999).errno == errno.EIO


async def test_a_shared_refusal_keeps_nothing_of_earlier_requests_alive() -> None:
    class Content:
        pass

    class Reader:
        counts = {"read": 0}  # noqa: RUF012

        @answers
        def read(self, content: Content) -> None:
            raise NotFound("no such name")

    content = Content()
    gone = weakref.ref(content)
    with pytest.raises(pyfuse3.FUSEError):
        await Reader().read(content)
    del content
    # The next refusal of the same kind lets go of the frames of the one before.
    refusal(errno.ENOENT)
    gc.collect()
    assert gone() is None
