from __future__ import annotations

import os
import stat

import pytest

from tvfs.filesystem import posix_error as refused
from tvfs.filesystem.model import (
    KEYS,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    ROOT,
    WORK,
    AttributeChanges,
)
from tvfs.testing.memory_vault import CALLER, MemoryWorld


async def test_what_is_made_is_found_with_owner_mode_and_links(world: MemoryWorld) -> None:
    made = world.mkdir(b"d")
    await world.write(b"d/f", b"hello")
    directory, file = world.stat(b"d"), world.stat(b"d/f")
    assert (directory.ino, stat.S_ISDIR(directory.mode), directory.nlink) == (made, True, 2)
    assert (file.mode, file.nlink, file.uid, file.size) == (0o100644, 1, CALLER.uid, 5)
    assert await world.read(b"d/f") == b"hello"


async def test_subdirectories_count_as_links_of_their_parent(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    world.mkdir(b"d/one")
    world.mkdir(b"d/two")
    assert world.stat(b"d").nlink == 4
    world.rename(b"d/two", b"two")
    assert world.stat(b"d").nlink == 3
    world.filesystem.rmdir(world.ino(b"d"), b"one")
    assert world.stat(b"d").nlink == 2


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"x" * 256, refused.NameTooLong),
        (b".", refused.Exists),
        (b"..", refused.Exists),
        (b"", refused.NotFound),
        (b"a/b", refused.Invalid),
    ],
)
async def test_impossible_names_are_refused(world: MemoryWorld, name: bytes, error: type[refused.PosixError]) -> None:
    with pytest.raises(error):
        world.filesystem.mkdir(WORK, name, 0o755, CALLER)


async def test_names_need_not_be_text(world: MemoryWorld) -> None:
    name = bytes(range(1, 256)).replace(b"/", b"")
    await world.write(name, b"x")
    await world.write(b"\xff" * 255, b"y")
    assert sorted(world.names(b"")) == sorted([name, b"\xff" * 255])
    assert await world.read(b"\xff" * 255) == b"y"


async def test_an_existing_name_is_not_made_again(world: MemoryWorld) -> None:
    await world.write(b"f", b"x")
    with pytest.raises(refused.Exists):
        world.mkdir(b"f")


async def test_a_directory_with_names_is_not_removed(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    await world.write(b"d/f", b"")
    with pytest.raises(refused.NotEmpty):
        world.filesystem.rmdir(WORK, b"d")
    world.unlink(b"d/f")
    world.filesystem.rmdir(WORK, b"d")
    assert not world.exists(b"d")


async def test_unlink_and_rmdir_keep_to_their_kind(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    await world.write(b"f", b"")
    with pytest.raises(refused.IsADirectory):
        world.unlink(b"d")
    with pytest.raises(refused.NotADirectory):
        world.filesystem.rmdir(WORK, b"f")


async def test_rename_replaces_a_file_in_one_step(world: MemoryWorld) -> None:
    await world.write(b"old", b"old")
    await world.write(b"new", b"new")
    world.rename(b"new", b"old")
    assert await world.read(b"old") == b"new"
    assert world.names(b"") == [b"old"]


async def test_rename_onto_a_name_of_the_same_file_changes_nothing(world: MemoryWorld) -> None:
    await world.write(b"a", b"x")
    world.filesystem.link(world.ino(b"a"), WORK, b"b")
    world.rename(b"a", b"b")
    assert sorted(world.names(b"")) == [b"a", b"b"]


async def test_rename_keeps_files_and_directories_apart(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    world.mkdir(b"full")
    await world.write(b"full/f", b"")
    await world.write(b"f", b"")
    with pytest.raises(refused.IsADirectory):
        world.rename(b"f", b"d")
    with pytest.raises(refused.NotADirectory):
        world.rename(b"d", b"f")
    with pytest.raises(refused.NotEmpty):
        world.rename(b"d", b"full")
    world.rename(b"full", b"d")
    assert world.names(b"d") == [b"f"]


async def test_a_directory_is_not_moved_below_itself(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    world.mkdir(b"d/e")
    with pytest.raises(refused.Invalid):
        world.rename(b"d", b"d/e/d")
    world.mkdir(b"x")
    with pytest.raises(refused.Invalid):
        world.rename(b"d/e", b"d", RENAME_EXCHANGE)


async def test_noreplace_refuses_and_exchange_swaps(world: MemoryWorld) -> None:
    await world.write(b"f", b"file")
    world.mkdir(b"d")
    await world.write(b"d/inside", b"")
    with pytest.raises(refused.Exists):
        world.rename(b"f", b"d", RENAME_NOREPLACE)
    world.rename(b"f", b"d", RENAME_EXCHANGE)
    assert await world.read(b"d") == b"file"
    assert world.names(b"f") == [b"inside"]
    with pytest.raises(refused.NotFound):
        world.rename(b"f", b"nowhere", RENAME_EXCHANGE)
    with pytest.raises(refused.Invalid):
        world.rename(b"f", b"g", 4)


async def test_exchange_between_directories_moves_the_link_of_the_parent(world: MemoryWorld) -> None:
    world.mkdir(b"p")
    world.mkdir(b"q")
    world.mkdir(b"p/d")
    await world.write(b"q/f", b"")
    world.rename(b"p/d", b"q/f", RENAME_EXCHANGE)
    assert (world.stat(b"p").nlink, world.stat(b"q").nlink) == (2, 3)


async def test_a_removed_file_lives_on_while_the_kernel_knows_it(world: MemoryWorld) -> None:
    await world.write(b"f", b"bytes")
    ino = world.ino(b"f")
    world.lookups.add(ino)
    world.unlink(b"f")
    assert world.filesystem.getattr(ino).nlink == 0
    assert await world.read_inode(ino) == b"bytes"
    assert world.lookups.drop(ino, 1)
    world.filesystem.forgotten(ino)
    with pytest.raises(refused.NotFound):
        world.filesystem.getattr(ino)


async def test_a_removed_file_lives_on_while_it_is_open(world: MemoryWorld) -> None:
    handle, found = await world.filesystem.create(WORK, b"f", 0o600, os.O_RDWR, CALLER)
    world.unlink(b"f")
    assert world.filesystem.write_nowait(handle, 0, b"still") == 5
    assert world.filesystem.read_nowait(handle, 0, 100) == b"still"
    world.filesystem.release(handle)
    with pytest.raises(refused.NotFound):
        world.filesystem.getattr(found.attributes.ino)
    assert world.filesystem.staged_files() == 0


async def test_orphans_are_purged_by_the_next_start(world: MemoryWorld) -> None:
    await world.write(b"f", b"bytes")
    ino = world.ino(b"f")
    world.lookups.add(ino)
    world.unlink(b"f")
    world.kill()
    with pytest.raises(refused.NotFound):
        world.filesystem.getattr(ino)
    await world.filesystem.seal_all()
    assert world.staging_files() == []


async def test_hard_links_share_everything(world: MemoryWorld) -> None:
    await world.write(b"a", b"one")
    world.filesystem.link(world.ino(b"a"), WORK, b"b")
    await world.write(b"b", b"two")
    assert await world.read(b"a") == b"two"
    assert world.stat(b"a").nlink == 2
    world.unlink(b"a")
    assert world.stat(b"b").nlink == 1
    with pytest.raises(refused.NotPermitted):
        world.filesystem.link(WORK, WORK, b"c")


async def test_names_change_the_times_of_their_directory(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    before = world.stat(b"d")
    world.clock.advance(1)
    await world.write(b"d/f", b"")
    after = world.stat(b"d")
    assert after.mtime_ns == after.ctime_ns == before.mtime_ns + 10**9


async def test_setgid_directories_hand_their_group_down(world: MemoryWorld) -> None:
    made = world.mkdir(b"d")
    await world.filesystem.setattr(made, AttributeChanges(mode=0o2775, gid=42), CALLER)
    inside = world.mkdir(b"d/e")
    assert world.filesystem.getattr(inside).gid == 42
    assert world.filesystem.getattr(inside).mode & stat.S_ISGID


async def test_the_places_of_the_owner_are_read_only(world: MemoryWorld) -> None:
    for place in (ROOT, KEYS):
        with pytest.raises(refused.ReadOnly):
            world.filesystem.mkdir(place, b"x", 0o755, CALLER)
    with pytest.raises(refused.ReadOnly):
        world.filesystem.rename(ROOT, b"work", WORK, b"x", 0)
    scope = world.filesystem.ensure_directory(KEYS, b"main")
    assert world.filesystem.ensure_directory(KEYS, b"main") == scope
    with pytest.raises(refused.ReadOnly):
        world.filesystem.mkdir(scope, b"x", 0o755, CALLER)


async def test_nothing_is_made_in_a_removed_directory(world: MemoryWorld) -> None:
    ino = world.mkdir(b"d")
    world.lookups.add(ino)
    world.filesystem.rmdir(WORK, b"d")
    with pytest.raises(refused.NotFound):
        world.filesystem.mkdir(ino, b"x", 0o755, CALLER)


async def test_special_files_and_symlinks_keep_what_they_are(world: MemoryWorld) -> None:
    world.filesystem.mknod(WORK, b"fifo", stat.S_IFIFO | 0o600, 0, CALLER)
    world.filesystem.mknod(WORK, b"device", stat.S_IFCHR | 0o600, os.makedev(1, 3), CALLER)
    world.filesystem.symlink(WORK, b"link", b"to/\xff", CALLER)
    world.kill()
    assert stat.S_ISFIFO(world.stat(b"fifo").mode)
    assert world.stat(b"device").rdev == os.makedev(1, 3)
    assert world.filesystem.readlink(world.ino(b"link")) == b"to/\xff"
    assert world.stat(b"link").size == 4


async def test_a_listing_continues_where_it_stopped_whatever_is_removed(world: MemoryWorld) -> None:
    world.mkdir(b"d")
    names = [b"%03d" % number for number in range(100)]
    for name in names:
        await world.write(b"d/" + name, b"")
    listed = world.ino(b"d")
    first = [next(listing) for listing in [world.filesystem.readdir(listed, 0)] for _ in range(40)]
    for entry in first[20:]:
        world.unlink(b"d/" + entry.name)
    rest = [entry.name for entry in world.filesystem.readdir(listed, first[-1].next_cookie)]
    assert [entry.name for entry in first] + rest == names


async def test_a_cookie_that_another_daemon_gave_is_found_again(world: MemoryWorld) -> None:
    for name in (b"a", b"b", b"c"):
        await world.write(name, b"")
    cookie = next(world.filesystem.readdir(WORK, 0)).next_cookie
    world.kill()
    assert [entry.name for entry in world.filesystem.readdir(WORK, cookie)] == [b"b", b"c"]


@pytest.mark.parametrize("change", ["removed", "renamed", "replaced"])
async def test_a_cookie_that_another_was_told_is_good_when_its_name_is_gone(world: MemoryWorld, change: str) -> None:
    """The kernel keeps listings: a reader may come to us in the middle, with a cookie that another was told."""
    for name in (b"a", b"b", b"c", b"new"):
        await world.write(name, b"")
    _, after_b = [entry.next_cookie for entry in world.filesystem.readdir(WORK, 0)][:2]
    world.filesystem._listings._recent[WORK].clear()
    match change:
        case "removed":
            world.unlink(b"b")
        case "renamed":
            world.filesystem.rename(WORK, b"b", WORK, b"0", 0)
        case "replaced":
            world.filesystem.rename(WORK, b"new", WORK, b"b", 0)
    rest = [entry.name for entry in world.filesystem.readdir(WORK, after_b)]
    assert rest == ([b"c"] if change == "replaced" else [b"c", b"new"])
