"""The long proofs of the filesystem, in short: they work, and can fail."""

from __future__ import annotations

import pytest

from tests.posix.exerciser import Differs, Exerciser, exercise
from tests.posix.pjdfstest import differences, understood
from tests.posix.places import mounted
from tests.posix.twin_machine import run

pytestmark = pytest.mark.kernel


def test_a_file_changed_at_random_is_what_it_should_be() -> None:
    with mounted("kernel-writeback") as mount:
        assert exercise(mount, 3, 250, ranges=True).total() == 250


def test_a_byte_that_changed_by_itself_is_noticed() -> None:
    with mounted("kernel-writeback") as mount:
        exerciser = Exerciser(mount.work / "file", 1, ranges=True, rest=mount.rest)
        exerciser.open()
        exerciser.run(50)
        exerciser.append()
        exerciser.check()
        exerciser.model[-1] ^= 1
        with pytest.raises(Differs):
            exerciser.check()
        exerciser.close()


def test_the_mount_is_like_a_tmpfs_whatever_is_done() -> None:
    assert run("kernel", 5, 3, steps=40).total() > 0


def test_assertions_that_only_the_mount_fails_are_named() -> None:
    beside = {"a.t": understood("1..4\nok 1\nok 2\nnot ok 3 # TODO known\nnot ok 4 - said")}
    mount = {"a.t": understood("1..4\nok 1\nnot ok 2 - tried\nnot ok 3 # TODO known\nnot ok 4 - said")}
    assert differences(mount, beside) == ["a.t 2: - tried"]
    assert differences({"a.t": understood("1..4\nok 1\n")}, beside) == ["a.t 2: was not run"]
    assert beside["a.t"].not_run == 0
