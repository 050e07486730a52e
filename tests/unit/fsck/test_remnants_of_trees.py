"""What was moved out of an attached tree stays in order when the directories that it was in are removed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.ended_batches import ended_after
from tests.thinned import thinned
from tests.unit.fsck.sample_vault import CALLER, REGISTRY, World, opened
from tvfs.filesystem.model import WORK, Ino
from tvfs.fsck.run import fsck
from tvfs.plugin_api import PluginRegistry
from tvfs.vault.create import create_vault
from tvfs.vault.superblock import VaultSettings


async def _attached(world: World) -> Ino:
    """Attach `top/{file,middle/{kept,inner/{deep,other}}}` as `tree`."""
    top = world.mkdir(WORK, b"top")
    middle = world.mkdir(top, b"middle")
    inner = world.mkdir(middle, b"inner")
    for parent, name in ((top, b"file"), (middle, b"kept"), (inner, b"deep"), (inner, b"other")):
        await world.write(parent, name, name)
    await world.seal()
    return world.filesystem.attach(WORK, b"tree", await world.snapshot(top), owner=None, read_only=False)


@pytest.mark.parametrize("moved", [b"middle/kept", b"middle/inner/deep", b"middle/inner"])
@pytest.mark.parametrize("removed", [b"middle", b"."])
async def test_what_was_moved_out_of_a_removed_directory_has_one_name(
    moved: bytes, removed: bytes, place: Path
) -> None:
    home = place / "home"
    create_vault(home, settings=VaultSettings(capacity_bytes=256 << 20), registry=PluginRegistry())
    async with opened(home) as world:
        fs = world.filesystem
        tree = await _attached(world)
        *parents, name = moved.split(b"/")
        fs.rename(fs.resolve(b"/".join(parents), tree), name, WORK, b"moved", 0)
        if removed == b".":
            fs.discard(WORK, b"tree")
        else:
            fs.discard(tree, removed)
        await fs.sweep()
        await world.vault.catalog.flush()
    assert [str(finding) for finding in fsck(home, REGISTRY, dry=True).findings] == []


async def _sweep_in_part(world: World, steps: int) -> bool:
    """Let the sweep come as far as its `steps`-th pause; return whether it was ended there."""
    with trio.CancelScope() as scope:

        class Pauses(trio.abc.Instrument):
            left = steps

            def after_task_step(self, task: trio.lowlevel.Task) -> None:
                self.left -= task is sweeper
                if self.left == 0:
                    scope.cancel()

        sweeper = trio.lowlevel.current_task()
        pauses = Pauses()
        trio.lowlevel.add_instrument(pauses)
        try:
            await world.filesystem.sweep()
        finally:
            trio.lowlevel.remove_instrument(pauses)
    return scope.cancelled_caught


async def _remove_in_part(world: World, removed: bytes, steps: int) -> bool:
    """Remove a path below `work/` and sweep, as far as the `steps`-th pause; return whether it was ended there."""
    above, _, name = removed.rpartition(b"/")
    world.filesystem.discard(world.filesystem.resolve(above, WORK), name)
    was_ended = await _sweep_in_part(world, steps)
    await world.vault.catalog.flush()
    return was_ended


@pytest.mark.parametrize("removed", [b"tree", b"tree/middle"])
@pytest.mark.parametrize("moved", thinned([True, False]))
async def test_wherever_a_sweep_is_ended_everything_is_in_order(moved: bool, removed: bytes, place: Path) -> None:
    for steps in range(1, 60):
        home = place / str(steps)
        create_vault(home, settings=VaultSettings(capacity_bytes=256 << 20), registry=PluginRegistry())
        async with opened(home, sweep_slice=1) as world:
            fs = world.filesystem
            tree = await _attached(world)
            inner = fs.resolve(b"middle/inner", tree)
            fs.rename(inner, b"deep", inner, b"deeper", 0)
            fs.unlink(tree, b"file")
            await world.write(world.mkdir(tree, b"new"), b"in it", b"new")
            await world.write(fs.resolve(b"middle", tree), b"kept", b"changed")
            if moved:
                fs.rename(inner, b"other", WORK, b"moved", 0)
            fs.symlink(inner, b"link", b"target", CALLER)
            was_ended = await _remove_in_part(world, removed, steps)
        assert [str(finding) for finding in fsck(home, REGISTRY, dry=True).findings] == [], f"after {steps} steps"
        if not was_ended:
            return
    raise AssertionError("the sweep never came to its end")


@pytest.mark.parametrize("removed", [b"tree", b"tree/middle"])
@pytest.mark.parametrize("gathered", thinned([3, 6]))
async def test_wherever_the_sweep_of_a_tree_that_is_being_made_ordinary_is_ended_everything_is_in_order(
    gathered: int, removed: bytes, place: Path
) -> None:
    for steps in range(1, 60):
        home = place / str(steps)
        create_vault(home, settings=VaultSettings(capacity_bytes=256 << 20), registry=PluginRegistry())
        async with opened(home) as world:
            await _attached(world)
            world.filesystem.evictables.mark(world.filesystem.resolve(b"tree", WORK), True)
            with ended_after(world.vault.catalog, gathered):
                await world.filesystem.gatherer.gather()
        async with opened(home, sweep_slice=1) as world:
            was_ended = await _remove_in_part(world, removed, steps)
        assert [str(finding) for finding in fsck(home, REGISTRY, dry=True).findings] == [], f"after {steps} steps"
        if not was_ended:
            return
    raise AssertionError("the sweep never came to its end")
