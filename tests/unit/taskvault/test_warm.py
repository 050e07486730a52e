"""Parts of the warm process by themselves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskvault.protocol.address import socket_address
from taskvault.run.request import Mode
from taskvault.warm.__main__ import has_owner
from taskvault.warm.code_watch import EVERY_S, CodeWatch
from taskvault.warm.launch_request import (
    HEADER,
    MAGIC,
    MOST_INLINE_BYTES,
    LaunchRequest,
    NotUnderstood,
    done,
    packed_parts,
    read_request,
    run_request,
)
from taskvault.warm.pool import Pool
from taskvault.warm.worker import _may_go


def frame(identity: bytes, arguments: list[bytes], variables: list[bytes]) -> tuple[bytes, bytes]:
    body = b"".join(text + b"\0" for text in [identity, *arguments, *variables])
    return HEADER.pack(MAGIC, len(body), 0o027, len(arguments), len(variables)), body


def test_a_request_is_read_as_python_reads_its_own_start() -> None:
    variables = [b"A=1", b"A=2", b"odd", b"B==x\xff", b"C="]
    asked = read_request(*frame(b"me", [b"run", b"", b"\xfe"], variables))
    assert asked.environment == {"A": "1", "B": os.fsdecode(b"=x\xff"), "C": ""}
    assert (asked.identity, asked.umask, asked.arguments) == ("me", 0o027, ("run", "", os.fsdecode(b"\xfe")))


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (1 << 31, 0), (2, 1 << 31)])
def test_a_request_of_other_counts_than_it_says_is_not_understood(counts: tuple[int, int]) -> None:
    _, body = frame(b"me", [b"run", b"x"], [b"A=1"])
    with pytest.raises(NotUnderstood):
        read_request(HEADER.pack(MAGIC, len(body), 0, *counts), body)
    with pytest.raises(NotUnderstood):
        read_request(HEADER.pack(MAGIC, len(body) - 1, 0, 2, 1), body[:-1])


def asked(*arguments: str, **variables: str) -> LaunchRequest:
    return LaunchRequest("me", 0o022, arguments, variables)


def test_the_plainest_options_are_understood() -> None:
    words = (
        "run",
        "--quiet",
        "--root",
        "..",
        "--scope",
        "s",
        "--env",
        "A",
        "--env",
        "B=1",
        "--no-store",
        "--",
        "x",
        "--",
    )
    request = run_request(asked(*words), Path("/w"))
    assert (request.command, request.root, request.scope) == (("x", "--"), Path(".."), "s")
    assert (request.variables, request.store, request.quiet, request.mode) == (("A", "B=1"), False, True, Mode.NORMAL)


def test_a_refresh_is_understood() -> None:
    assert run_request(asked("run", "--refresh", "--", "x"), Path("/w")).mode is Mode.REFRESH


@pytest.mark.parametrize(
    ("words", "variables", "home"),
    [
        ("--home /a/b run -- x", {"TASKVAULT_HOME": "/c"}, "/a/b"),
        ("--home=/a/../b/ run -- x", {"TASKVAULT_HOME": "/c"}, "/b"),
        ("--home= run -- x", {"TASKVAULT_HOME": "/c/"}, "/c"),
        ("run -- x", {"TASKVAULT_HOME": "/c"}, "/c"),
        ("run -- --home /a", {"TASKVAULT_HOME": "/c"}, "/c"),
        ("run -- x", {"TASKVAULT_HOME": "", "HOME": "/me"}, "/me/.taskvault"),
        ("run -- x", {"HOME": "/me"}, "/me/.taskvault"),
    ],
)
def test_the_vault_is_the_one_that_is_named_first(words: str, variables: dict[str, str], home: str) -> None:
    request = asked(*words.split(), **variables)
    assert request.home == home
    assert run_request(request, Path("/w")).command


@pytest.mark.parametrize(
    "words",
    [
        "",
        "cache",
        "run",
        "run --",
        "run x",
        "run --check -- x",
        "--home",
        "--home x cache",
        "--homeless run -- x",
        "run --root -- x",
        "run --root=. -- x",
    ],
)
def test_all_other_options_are_left_to_python(words: str) -> None:
    with pytest.raises(NotUnderstood):
        run_request(asked(*words.split()), Path("/w"))


def test_many_bytes_are_kept_back_for_a_file_in_memory() -> None:
    few, many = packed_parts([(1, b"x"), (2, b"")]), packed_parts([(1, b"x" * MOST_INLINE_BYTES)])
    assert done(0, 5, b"r", few)[1] == b""
    head, kept_back = done(0, 5, b"r", many)
    assert (head[-1:], kept_back) == (b"r", many)


def test_a_change_of_the_installed_code_is_noticed_and_not_looked_for_all_the_time(tmp_path: Path) -> None:
    module, moment = tmp_path / "module.py", [0.0]
    module.write_text("1")
    code = CodeWatch([str(module)], now_s=lambda: moment[0])
    module.write_text("22")
    assert not code.has_changed()
    moment[0] = EVERY_S
    assert code.has_changed()
    module.unlink()
    assert CodeWatch([str(module)], now_s=lambda: moment[0]).has_changed() is False


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "socket"


def test_a_pool_ends_with_a_worker_that_wants_it_and_takes_its_socket_along(place: Path) -> None:
    def serve(listener: socket.socket, parent: int, used: object) -> int:
        return 75

    Pool(place, serve, lambda: True).run(2)
    assert not place.exists()


def test_a_pool_that_nobody_asks_ends(place: Path) -> None:
    Pool(place, lambda *_: 0, lambda: True, idle_s=0).run(1)
    Pool(place, lambda *_: 0, lambda: False).run(1)
    assert not place.exists()


def test_a_pool_whose_workers_all_die_gives_up(place: Path) -> None:
    Pool(place, lambda *_: 0, lambda: True).run(1)
    assert not place.exists()


def test_a_vault_has_an_owner_as_long_as_somebody_listens_there(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    home.mkdir()
    assert not has_owner(home)
    assert not has_owner(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as owner:
        with socket_address(home) as address:
            owner.bind(address)
        assert not has_owner(home), "a socket that was left behind"
        owner.listen(0)
        assert [has_owner(home) for _ in range(5)] == [True] * 5, "nobody is taken in"
    assert not has_owner(home)


@pytest.fixture
def turn() -> Iterator[int]:
    reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.write(writes, b"G")
    os.close(writes)
    yield reads
    os.close(reads)


def test_only_who_takes_the_turn_first_acts(turn: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _may_go(ours, turn)
        assert os.read(turn, 1) == b""  # so a launcher whose patience ends now waits for us
        assert not _may_go(ours, turn)


def test_a_turn_that_the_launcher_has_taken_is_not_ours(turn: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert os.read(turn, 1) == b"G"
        assert not _may_go(ours, turn)


def test_nothing_is_done_for_a_launcher_that_is_gone(turn: int) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert not _may_go(ours, turn)
        assert os.read(turn, 1) == b"G"
