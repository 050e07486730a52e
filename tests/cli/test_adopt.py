"""`tv adopt`: whatever happens in between, the path leads to all of the content, and a rerun brings order."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from taskvault import adoption
from taskvault.adoptable import NotAdoptable, difference, remove_tree, walk
from taskvault.client import Client
from tests.cli.conftest import ROOT, Vault
from tests.thinned import thinned
from tvfs import failpoints

pytestmark = pytest.mark.kernel

KILL_POINTS = [
    "adopt.after_journal",
    "adopt.after_publish",
    "adopt.after_switch",
    "adopt.after_decision",
    "adopt.after_removal",
]
UNDO_POINTS = [
    "release.after_journal",
    "release.after_copy",
    "release.after_switch",
    "adopt.after_decision",
    "adopt.after_removal",
]
DRIVER = """
import sys
from pathlib import Path
from taskvault import adoption
from taskvault.client import Client
from tvfs import failpoints
failpoints.arm_from(sys.argv[1])
with Client.connect(Path(sys.argv[2])) as client:
    {"adopt": adoption.adopt, "undo": adoption.release}[sys.argv[3]](client, Path(sys.argv[4]))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with one of everything."""
    made = tmp_path / "cache"
    (made / "deep" / "deeper").mkdir(parents=True)
    (made / "empty-directory").mkdir(mode=0o555)
    (made / "empty").touch()
    (made / "file").write_text("content\n")
    (made / "deep" / "program").write_text("#!/bin/sh\n")
    (made / "deep" / "program").chmod(0o755)
    (made / "deep" / "deeper" / "large").write_bytes(os.urandom(1 << 20))
    os.link(made / "file", made / "deep" / "linked")
    (made / "symlink").symlink_to("deep/program")
    (made / "absolute").symlink_to(made / "file")
    (made / "deep" / "deeper" / "above").symlink_to("../program")
    (made / "dangling").symlink_to("nowhere")
    os.mkfifo(made / "fifo")
    Path(os.fsdecode(os.fsencode(made) + b"/not-utf8-\xff")).write_text("x")
    os.utime(made / "file", ns=(1_000_000_000, 123_456_789_012_345_678))
    os.utime(made / "deep", ns=(1_000_000_000, 987_654_321))
    return made


@pytest.fixture
def before(directory: Path, tmp_path: Path) -> Path:
    """What was there before."""
    subprocess.run(["cp", "-a", directory, tmp_path / "before"], check=True)
    return tmp_path / "before"


def assert_same(found: Path, expected: Path) -> None:
    assert difference(expected, Path(os.path.realpath(found))) is None
    for path, status in walk(expected):
        other = Path(os.path.realpath(found)) / path.relative_to(expected)
        if stat.S_ISREG(status.st_mode):
            assert other.read_bytes() == path.read_bytes(), path


def siblings(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory.parent) if "taskvault" in name)


def drive(vault: Vault, points: str, what: str, directory: Path) -> int:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, points, vault.home, what, directory],
        env=vault.environment(), cwd=ROOT, capture_output=True, check=False, timeout=60,
    ).returncode  # fmt: skip


def test_a_directory_is_moved_and_moved_back_whole(vault: Vault, directory: Path, before: Path) -> None:
    adopted = vault.json("adopt", str(directory))
    place = Path(adopted["place"])
    assert directory.is_symlink()
    assert place.is_relative_to(vault.mount / "work" / "adopted")
    assert_same(directory, before)
    assert os.path.samefile(directory / "file", directory / "deep" / "linked")
    assert (directory / "absolute").read_text() == (directory / "file").read_text() == "content\n"
    assert siblings(directory) == []
    (directory / "new").write_text("new")
    (directory / "empty").write_text("not any more")
    undone = vault.json("adopt", "--undo", str(directory))
    assert undone["undone"]
    assert not directory.is_symlink()
    assert not place.exists()
    assert (directory / "new").read_text() == "new"
    (directory / "new").unlink()
    (before / "empty").write_text("not any more")
    for each in (before, directory):
        os.utime(each / "empty", ns=(0, 0))
    assert_same(directory, before)
    assert siblings(directory) == []


@pytest.mark.parametrize("point", thinned(KILL_POINTS))
def test_killed_while_it_is_moved_all_is_there_and_the_same_again_ends_it(
    vault: Vault, directory: Path, before: Path, point: str
) -> None:
    assert drive(vault, f"{point}=kill", "adopt", directory) == -9
    assert_same(directory, before)
    vault.tv("adopt", str(directory))
    assert directory.is_symlink()
    assert_same(directory, before)
    assert siblings(directory) == []
    vault.tv("adopt", "--undo", str(directory))
    assert_same(directory, before)


@pytest.mark.parametrize("failing", thinned(["adopt.after_publish", "adopt.after_switch"]))
def test_killed_while_it_goes_back_after_an_error_all_is_there_and_the_same_again_ends_it(
    vault: Vault, directory: Path, before: Path, failing: str
) -> None:
    assert drive(vault, f"{failing}=eio,adopt.going_back=kill", "adopt", directory) == -9
    assert not directory.is_symlink()
    assert_same(directory, before)
    vault.tv("adopt", str(directory))
    assert_same(directory, before)
    assert siblings(directory) == []
    vault.tv("adopt", "--undo", str(directory))


@pytest.mark.parametrize("point", thinned(KILL_POINTS[:3]))
def test_killed_while_it_is_moved_undo_brings_it_back(vault: Vault, directory: Path, before: Path, point: str) -> None:
    assert drive(vault, f"{point}=kill", "adopt", directory) == -9
    vault.tv("adopt", "--undo", str(directory), exit_code=0 if point == "adopt.after_switch" else 4)
    assert not directory.is_symlink()
    assert_same(directory, before)
    assert siblings(directory) == []


@pytest.mark.parametrize("point", thinned(UNDO_POINTS))
@pytest.mark.parametrize("again", ["adopt", "undo"])
def test_killed_while_it_moves_back_all_is_there_and_either_command_ends_it(
    vault: Vault, directory: Path, before: Path, point: str, again: str
) -> None:
    vault.tv("adopt", str(directory))
    assert drive(vault, f"{point}=kill", "undo", directory) == -9
    assert_same(directory, before)
    is_back = point not in UNDO_POINTS[:2]
    if again == "undo":
        vault.tv("adopt", "--undo", str(directory), exit_code=4 if is_back else 0)
    else:
        vault.tv("adopt", str(directory))
        vault.tv("adopt", "--undo", str(directory))
    assert not directory.is_symlink()
    assert_same(directory, before)
    assert siblings(directory) == []


@pytest.mark.parametrize("point", thinned(KILL_POINTS[:3], one_in=3))
def test_a_full_disk_while_it_is_moved_leaves_it_as_it_was(
    vault: Vault, directory: Path, before: Path, point: str
) -> None:
    assert drive(vault, f"{point}=enospc", "adopt", directory) == 1
    assert not directory.is_symlink()
    assert_same(directory, before)
    vault.tv("adopt", str(directory))
    vault.tv("adopt", "--undo", str(directory))


@pytest.mark.parametrize("point", thinned(UNDO_POINTS[:3], one_in=3))
def test_a_full_disk_while_it_moves_back_leaves_it_adopted(
    vault: Vault, directory: Path, before: Path, point: str
) -> None:
    vault.tv("adopt", str(directory))
    assert drive(vault, f"{point}=enospc", "undo", directory) == 1
    assert directory.is_symlink()
    assert_same(directory, before)
    assert siblings(directory) == []
    vault.tv("adopt", "--undo", str(directory))


def test_what_was_written_after_an_interrupted_switch_is_never_removed(
    vault: Vault, directory: Path, before: Path
) -> None:
    assert drive(vault, "adopt.after_switch=kill", "adopt", directory) == -9
    aside = directory.parent / ".cache.taskvault-aside"
    (aside / "late").write_text("by somebody who had the directory open")
    said = vault.tv("adopt", str(directory), exit_code=4)
    assert str(aside) in said.err
    assert (aside / "late").exists()
    assert_same(directory, before)
    # What the message says to do.
    shutil.copy2(aside / "late", directory / "late")
    remove_tree(aside)
    (directory.parent / ".cache.taskvault-adoption").unlink()
    vault.tv("adopt", "--undo", str(directory))
    assert (directory / "late").exists()


@pytest.mark.parametrize("way", ["adopt", "undo"])
def test_what_was_there_before_an_interrupted_switch_may_be_removed_by_hand(
    vault: Vault, directory: Path, before: Path, way: str
) -> None:
    assert drive(vault, "adopt.after_switch=kill", "adopt", directory) == -9
    remove_tree(directory.parent / ".cache.taskvault-aside")
    # The journal is left, and what is under the mount is all there is.
    vault.tv("adopt", *(["--undo"] if way == "undo" else []), str(directory))
    assert directory.is_symlink() == (way == "adopt")
    assert_same(directory, before)
    assert siblings(directory) == []


def test_the_only_copy_is_not_removed_when_the_directory_is_gone(vault: Vault, directory: Path, before: Path) -> None:
    assert drive(vault, "adopt.after_switch=kill", "adopt", directory) == -9
    place = Path(os.readlink(directory))
    remove_tree(directory.parent / ".cache.taskvault-aside")
    directory.unlink()
    for arguments in ([], ["--undo"]):
        assert str(place) in vault.tv("adopt", *arguments, str(directory), exit_code=4).err
        assert_same(place, before)


@pytest.mark.parametrize("way", ["adopt", "release"])
def test_what_is_written_during_the_switch_takes_it_back(vault: Vault, directory: Path, way: str) -> None:
    if way == "release":
        vault.tv("adopt", str(directory))
    content = Path(os.path.realpath(directory)) if way == "release" else directory.parent / ".cache.taskvault-aside"
    failpoints.arm(f"{way}.after_switch", lambda: (content / "late").write_text("late") and None)
    try:
        with Client.connect(vault.home) as client, pytest.raises(NotAdoptable, match="was written to"):
            getattr(adoption, way)(client, directory)
    finally:
        failpoints.disarm_all()
    assert directory.is_symlink() == (way == "release")
    assert (directory / "late").read_text() == "late"
    assert siblings(directory) == []
    if way == "release":
        vault.tv("adopt", "--undo", str(directory))


def test_the_same_again_changes_nothing(vault: Vault, directory: Path) -> None:
    first = vault.json("adopt", str(directory))
    assert vault.json("adopt", str(directory))["place"] == first["place"]
    vault.tv("adopt", "--undo", str(directory))
    vault.tv("adopt", "--undo", str(directory), exit_code=4)


def test_an_evictable_one_is_marked_and_moves_back_too(vault: Vault, directory: Path, before: Path) -> None:
    place = vault.json("adopt", "--evictable", str(directory))["place"]
    assert vault.json("show", place)["evictable"]
    assert_same(directory, before)
    vault.tv("adopt", "--undo", str(directory))
    assert_same(directory, before)


def test_a_directory_under_the_mount_is_marked_where_it_is(vault: Vault, work: Path) -> None:
    (work / "cache").mkdir()
    (work / "cache" / "file").write_text("x")
    vault.tv("adopt", str(work / "cache"), exit_code=4)
    assert vault.json("adopt", "--evictable", str(work / "cache"))["files"] == 1
    assert vault.json("show", str(work / "cache" / "file"))["evictable"]
    vault.tv("adopt", "--undo", str(work / "cache"))
    assert not vault.json("show", str(work / "cache" / "file"))["evictable"]
    vault.tv("adopt", "--undo", str(work / "cache"), exit_code=4)


def test_ways_to_name_it(vault: Vault, directory: Path, before: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    for name in (f"{directory}/", f"{tmp_path}/elsewhere/cache", "cache", "./cache/", "../" + tmp_path.name + "/cache"):
        vault.tv("adopt", name, cwd=tmp_path)
        assert_same(directory, before)
        vault.tv("adopt", "--undo", name, cwd=tmp_path)
        assert not directory.is_symlink()
    # `.` is the working directory of `tv` itself and of nobody else here.
    vault.tv("adopt", ".", cwd=directory)
    assert directory.is_symlink()


def test_one_within_another_that_is_moved_later(vault: Vault, directory: Path, before: Path) -> None:
    vault.tv("adopt", str(directory / "deep"))
    vault.tv("adopt", str(directory))
    assert (directory / "deep" / "program").read_text() == "#!/bin/sh\n"
    vault.tv("adopt", "--undo", str(directory))
    vault.tv("adopt", "--undo", str(directory / "deep"))
    os.utime(directory / "deep", ns=(0, 0))
    os.utime(before / "deep", ns=(0, 0))
    for path in ("file", "deep/program", "deep/linked"):
        assert (directory / path).read_bytes() == (before / path).read_bytes()


def test_what_cannot_be_moved_is_refused_and_stays(vault: Vault, tmp_path: Path) -> None:
    def refused(path: Path, word: str) -> None:
        names = sorted(os.listdir(tmp_path))
        said = vault.tv("adopt", str(path), exit_code=4)
        assert word in said.err, said.err
        assert sorted(os.listdir(tmp_path)) == names

    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "not a directory")
    refused(tmp_path / "missing", "not a directory")
    (tmp_path / "link").symlink_to(tmp_path)
    refused(tmp_path / "link", "symbolic link")
    refused(vault.home, "holds the vault")
    refused(vault.home / "packs", "part of the vault")
    refused(vault.home.parent, "holds the vault")
    refused(Path("/"), "holds the vault")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "out").symlink_to("../file")
    refused(tmp_path / "d", "leads out")
    (tmp_path / "d" / "out").unlink()
    (tmp_path / "d" / "out").symlink_to("../d/in-again")
    refused(tmp_path / "d", "leads out")
    (tmp_path / "d" / "out").unlink()
    with (tmp_path / "d" / "open").open("w"):
        refused(tmp_path / "d", "in use by process")
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path / "d") as sleeper:
        refused(tmp_path / "d", "in use by process")
        sleeper.kill()
    looking = os.open(tmp_path / "d", os.O_RDONLY | os.O_DIRECTORY)
    with subprocess.Popen(["sleep", "60"], pass_fds=[looking]) as sleeper:
        refused(tmp_path / "d", "in use by process")
        sleeper.kill()
    os.close(looking)
    refused(Path("/proc"), "mounted")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "point").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "m" / "point"], check=False).returncode == 0
    if mounted:
        try:
            refused(tmp_path / "m", "mounted")
            refused(tmp_path / "m" / "point", "mounted")
        finally:
            subprocess.run(["umount", tmp_path / "m" / "point"], check=True)


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [
        ("security.capability", bytes([0, 0, 0, 2, 0, 32, *bytes(14)]), "capabilities"),
        # Version 2; owner, a user, group, mask and others, each with the right to read.
        (
            "system.posix_acl_access",
            struct.pack(
                "<I" + 5 * "HHI", 2, 1, 4, 2**32 - 1, 2, 4, 1000, 4, 4, 2**32 - 1, 16, 4, 2**32 - 1, 32, 4, 2**32 - 1
            ),
            "access control list",
        ),
    ],
)
def test_what_would_lose_rights_is_refused(
    vault: Vault, tmp_path: Path, attribute: str, value: bytes, word: str
) -> None:
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    program = tmp_path / "cache" / "deep" / "program"
    program.touch()
    os.setxattr(program, "user.mine", b"kept")
    os.setxattr(program, attribute, value)
    said = vault.tv("adopt", str(tmp_path / "cache"), exit_code=4)
    assert word in said.err
    assert str(program) in said.err
    os.removexattr(program, attribute)
    vault.tv("adopt", str(tmp_path / "cache"))
    vault.tv("adopt", "--undo", str(tmp_path / "cache"))
    assert os.getxattr(program, "user.mine") == b"kept"


def test_one_that_a_process_works_in_is_not_moved_back(vault: Vault, directory: Path) -> None:
    vault.tv("adopt", str(directory))
    with subprocess.Popen(["sleep", "60"], cwd=directory / "deep") as sleeper:
        assert "in use by process" in vault.tv("adopt", "--undo", str(directory), exit_code=4).err
        assert directory.is_symlink()
        sleeper.kill()
    vault.tv("adopt", "--undo", str(directory))


def test_one_whose_filesystem_cannot_exchange_it_stays(vault: Vault, tmp_path: Path) -> None:
    layers = tmp_path / "layers"
    (layers / "lower" / "cache").mkdir(parents=True)
    (layers / "lower" / "cache" / "file").write_text("x")
    for name in ("upper", "work", "merged"):
        (layers / name).mkdir()
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work,redirect_dir=off"
    mount = ["mount", "-t", "overlay", "-o", options, "overlay", layers / "merged"]
    if subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        try:
            said = vault.tv("adopt", str(layers / "merged" / "cache"), exit_code=4)
            assert "cannot change places" in said.err
            assert os.listdir(layers / "merged") == ["cache"]
            assert (layers / "merged" / "cache" / "file").read_text() == "x"
        finally:
            subprocess.run(["umount", layers / "merged"], check=True)


def test_an_empty_directory_and_one_with_a_strange_name(vault: Vault, tmp_path: Path) -> None:
    for name in (b"empty", b"\xff\xfe", b"a b\n", b"-x", b"n" * 250):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.mkdir()
        vault.tv(b"adopt", b"--", os.fsencode(path))
        assert path.is_symlink()
        (path / "made").write_text("x")
        vault.tv(b"adopt", b"--undo", b"--", os.fsencode(path))
        assert not path.is_symlink()
        assert (path / "made").read_text() == "x"


def test_a_socket_and_a_very_deep_tree(vault: Vault, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(deep / "socket"))
        inner = deep
        for _ in range(200):
            inner = inner / "d"
            inner.mkdir()
        (inner / "file").write_text("bottom")
        vault.tv("adopt", str(deep))
    assert inner.joinpath("file").read_text() == "bottom"
    assert stat.S_ISSOCK((deep / "socket").lstat().st_mode)
    vault.tv("adopt", "--undo", str(deep))
    assert inner.joinpath("file").read_text() == "bottom"
    remove_tree(deep)


def test_removing_follows_no_link_and_crosses_no_mount(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "gone" / "read-only").mkdir(parents=True)
    (tmp_path / "gone" / "read-only" / "file").touch()
    (tmp_path / "gone" / "read-only").chmod(0o500)
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert (tmp_path / "kept" / "file").exists()
    (tmp_path / "gone" / "point").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "gone" / "point"], check=False).returncode == 0:
        try:
            (tmp_path / "gone" / "point" / "file").touch()
            with pytest.raises(OSError) as refused:
                remove_tree(tmp_path / "gone")
            assert refused.value.errno == errno.EXDEV
            assert (tmp_path / "gone" / "point" / "file").exists()
        finally:
            subprocess.run(["umount", tmp_path / "gone" / "point"], check=True)


def test_programs_go_on_working_in_it(vault: Vault, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "0").mkdir(parents=True)
    vault.tv("adopt", "--evictable", str(cache))
    script = """
        set -e
        cd "$1"
        for n in $(seq 100); do
            mkdir -p $((n % 8)); echo result $n > tmp.$$; mv tmp.$$ $((n % 8))/$n
        done
        test "$(cat 4/4)" = "result 4"
        git init -q --bare origin.git
        git clone -q origin.git clone 2>/dev/null
        cd clone && echo x > x && git add x
        git -c user.name=t -c user.email=t@t commit -qm x && git push -q origin HEAD
        git fsck --no-progress
        python3 -m venv --without-pip ../venv
    """
    subprocess.run(["sh", "-c", script, "sh", cache], check=True, capture_output=True)
    vault.tv("adopt", "--undo", str(cache))
    subprocess.run(["git", "-C", cache / "clone", "fsck", "--no-progress"], check=True, capture_output=True)
    assert (cache / "4" / "4").read_text() == "result 4\n"


def test_two_at_the_same_time_do_not_meet(vault: Vault, directory: Path, before: Path) -> None:
    processes = [vault.start("adopt", str(directory)) for _ in range(3)]
    codes = sorted(process.wait(60) for process in processes)
    for process in processes:
        process.communicate()
    assert codes[0] == 0
    assert set(codes) <= {0, 4}
    assert_same(directory, before)
    assert siblings(directory) == []
