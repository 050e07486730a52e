"""A mount outlives its daemon: clients of one that is replaced, or killed, wait and then go on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from taskvault.client import Client
from taskvault.errors import DaemonUnreachable, DaemonWedged, Refused
from taskvault.protocol import messages as m
from tests.thinned import thinned
from tests.vaults_in_order import assert_in_order
from tests.waiting import wait_until

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 30.0
TEST_TIMEOUT_S, SLOW_TEST_TIMEOUT_S = 50.0, 600.0


class Kept:
    """A daemon below a caretaker, and its mount."""

    def __init__(self, home: Path, *options: str, env: dict[str, str] | None = None, caretaker: str = "1000,0") -> None:
        self.home = home
        self.mount = home.parent / "mount"
        self.work = self.mount / "work"
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tvd", f"--caretaker={caretaker}", "--home", str(home)]
        command += ["--mount", str(self.mount)]
        self.caretaker = subprocess.Popen(
            [*command, "--ready-fd", str(writing), *options],
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", **(env or {})},
        )
        os.close(writing)
        with open(reading, "rb") as ready:
            assert select.select([ready], [], [], START_TIMEOUT_S)[0], "the daemon did not become ready"
            self.told = json.loads(ready.readline())
        assert self.told["ok"], self.told
        self.owner = self.told["pid"]

    def kill(self) -> None:
        """Kill the daemon."""
        os.kill(self.owner, signal.SIGKILL)

    def replace(self) -> None:
        """Have the daemon leave its mount to a new one."""
        with Client.connect(self.home) as client:
            client.call(m.Shutdown(hand_over=True))

    def wait_for_next(self) -> None:
        """Return when another daemon than the last one answers."""
        wait_until(self._has_next)

    def _has_next(self) -> bool:
        with suppress(DaemonUnreachable, DaemonWedged), Client.connect(self.home) as client:
            pid, self.owner = self.owner, client.call(m.GetStatus()).pid
            return pid != self.owner
        return False

    def stop(self) -> None:
        """End in order; the vault must be in order then, and nothing mounted."""
        self.caretaker.terminate()
        errors = self.caretaker.communicate(timeout=30)[1].decode()
        assert (self.caretaker.returncode, errors) == (0, "")
        assert not any(line.split()[4] == str(self.mount) for line in _mounts())
        assert_in_order(self.home)

    def log(self) -> list[dict[str, Any]]:
        lines = (self.home / "tvd.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def end_at_once(self) -> None:
        children = Path(f"/proc/{self.caretaker.pid}/task/{self.caretaker.pid}/children").read_text().split()
        self.caretaker.kill()
        for child in children:
            os.kill(int(child), signal.SIGKILL)

    def clean_up(self) -> None:
        if self.caretaker.poll() is None:
            self.caretaker.terminate()
            with suppress(ProcessLookupError):
                self.kill()
            try:
                self.caretaker.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.caretaker.kill()
                self.caretaker.communicate()
        if any(line.split()[4] == str(self.mount) for line in _mounts()):
            subprocess.run(["umount", "-l", str(self.mount)], check=False)


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Kept]]:
    made: list[Kept] = []

    def start(*options: str, **env: str) -> Kept:
        made.append(Kept(tmp_path / "vault", *options, env=env))
        return made[-1]

    # Who waits for a daemon that does not answer is freed by the end of the session.
    timeout_s = SLOW_TEST_TIMEOUT_S if request.node.get_closest_marker("slow") else TEST_TIMEOUT_S
    guard = threading.Timer(timeout_s, lambda: [kept.end_at_once() for kept in made])
    guard.start()
    yield start
    guard.cancel()
    for kept in made:
        kept.clean_up()


@pytest.fixture(params=["passthrough", "writeback"])
def kept(request: pytest.FixtureRequest, make: Callable[..., Kept]) -> Kept:
    """With each of the two ways in which the kernel caches."""
    return make(TASKVAULT_MOUNT_PASSTHROUGH="true" if request.param == "passthrough" else "false")


BOTH = pytest.mark.parametrize("end", [Kept.kill, Kept.replace], ids=["killed", "replaced"])
QUICKLY_KILLED = pytest.mark.parametrize("end", thinned([Kept.kill, Kept.replace]), ids=["killed", "replaced"])


@BOTH
def test_whoever_uses_the_mount_goes_on_with_the_next_daemon(kept: Kept, end: Callable[[Kept], None]) -> None:
    work = kept.work
    (work / "directory").mkdir()
    (work / "old").write_bytes(b"old")
    with (
        open(work / "file", "w+b", buffering=0) as file,
        open(work / "gone", "w+b", buffering=0) as gone,
        open(work / "mapped", "w+b", buffering=0) as mapped,
    ):
        file.write(b"before ")
        gone.write(b"without a name")
        os.unlink(work / "gone")
        mapped.write(bytes(8192))
        mapping = mmap.mmap(mapped.fileno(), 8192)
        mapping[:5] = b"dirty"
        shell = subprocess.Popen(
            ["sh"], cwd=work / "directory", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        removed = os.open(work / "directory", os.O_RDONLY | os.O_DIRECTORY)
        try:
            end(kept)
            file.write(b"after")
            assert os.pread(file.fileno(), 100, 0) == b"before after"
            assert os.pread(gone.fileno(), 100, 0) == b"without a name"
            gone.write(b", still")
            assert os.fstat(gone.fileno()).st_nlink == 0
            assert mapping[:6] == b"dirty\0"
            mapping[4096:4100] = b"more"
            mapping.flush()
            assert shell.stdin is not None
            assert shell.stdin.write("pwd -P; echo made > made; cat ../old\n")
            assert shell.communicate(timeout=20)[0] == f"{work}/directory\nold"
            assert os.listdir(removed) == ["made"]
            assert (work / "new").write_bytes(b"new")
            assert (work / "mapped").read_bytes() == b"dirty".ljust(4096, b"\0") + b"more".ljust(4096, b"\0")
            assert sorted(os.listdir(work)) == ["directory", "file", "mapped", "new", "old"]
            kept.wait_for_next()
            assert os.pread(gone.fileno(), 100, 0) == b"without a name, still"
        finally:
            os.close(removed)
            shell.kill()
            shell.communicate()
            mapping.close()
    assert (work / "file").read_bytes() == b"before after"
    kept.stop()


@QUICKLY_KILLED
def test_a_listing_goes_on_where_it_was(kept: Kept, end: Callable[[Kept], None]) -> None:
    names = {f"{number:05}" for number in range(3000)}
    for name in names:
        (kept.work / name).touch()
    with os.scandir(kept.work) as listing:
        seen = [next(listing).name for _ in range(10)]
        end(kept)
        seen += [entry.name for entry in listing]
    assert len(seen) == len(names)
    assert set(seen) == names
    kept.wait_for_next()
    kept.stop()


@QUICKLY_KILLED
def test_locks_are_held_on(kept: Kept, end: Callable[[Kept], None]) -> None:
    lock = "import fcntl,sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with open(kept.work / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end(kept)
        kept.wait_for_next()
        other = subprocess.run([sys.executable, "-c", lock, kept.work / "lock"], capture_output=True, check=False)
        assert b"BlockingIOError" in other.stderr
    subprocess.run([sys.executable, "-c", lock, kept.work / "lock"], check=True)
    kept.stop()


CHANGES: dict[str, Callable[[Path], object]] = {
    "mkdir": lambda work: os.mkdir(work / "made"),
    "create": lambda work: os.close(os.open(work / "made", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "mknod": lambda work: os.mkfifo(work / "made"),
    "symlink": lambda work: os.symlink("there", work / "made"),
    "link": lambda work: os.link(work / "old", work / "made"),
    "unlink": lambda work: os.unlink(work / "old"),
    "rmdir": lambda work: os.rmdir(work / "empty"),
    "rename": lambda work: os.rename(work / "old", work / "made"),
}


@pytest.mark.parametrize("kind", thinned(CHANGES))
def test_what_was_done_and_not_answered_is_answered_and_not_done_again(make: Callable[..., Kept], kind: str) -> None:
    # The daemon dies at the third change that it has not answered yet; so would its successor.
    kept = make(TASKVAULT_FAILPOINTS="request.changed=kill@3")
    (kept.work / "old").touch()
    (kept.work / "empty").mkdir()
    before = set(os.listdir(kept.work))
    CHANGES[kind](kept.work)
    kept.wait_for_next()
    after = set(os.listdir(kept.work))
    assert before ^ after == {
        "unlink": {"old"}, "rmdir": {"empty"}, "rename": {"old", "made"},
    }.get(kind, {"made"})  # fmt: skip
    kept.stop()


def test_what_a_file_was_opened_as_before_the_kill_is_what_it_is_opened_as_after_it(make: Callable[..., Kept]) -> None:
    kept = make(TASKVAULT_FAILPOINTS="request.opened=kill@2")
    (kept.work / "file").write_bytes(b"content")
    with open(kept.work / "file", "rb", buffering=0) as file:
        assert file.read() == b"content"
    kept.wait_for_next()
    assert [line["handles"] for line in kept.log() if line["event"] == "the mount is taken over"] == [1]
    os.unlink(kept.work / "file")
    with Client.connect(kept.home) as client:
        wait_until(lambda: client.call(m.GetStatus()).staged_files == 0)
    kept.stop()


def test_who_syncs_while_the_daemon_is_killed_is_answered(make: Callable[..., Kept]) -> None:
    kept = make(TASKVAULT_FAILPOINTS="fsync.after_data=kill@2")
    pieces = (b"first" * 4000, b"second")  # what is staged in a row has no bytes of its own to sync
    with open(kept.work / "file", "wb", buffering=0) as file:
        for piece in pieces:
            file.write(piece)
            os.fsync(file.fileno())
    kept.wait_for_next()
    assert (kept.work / "file").read_bytes() == b"".join(pieces)
    kept.stop()


@pytest.mark.parametrize(
    "end", [Kept.kill, pytest.param(Kept.replace, marks=pytest.mark.slow)], ids=["killed", "replaced"]
)
def test_a_file_that_is_read_past_the_daemon_is_read_on_and_follows_writers(
    make: Callable[..., Kept], end: Callable[[Kept], None]
) -> None:
    kept = make(TASKVAULT_MOUNT_PASSTHROUGH="true")
    path, content = kept.work / "file", bytearray(random.Random(7).randbytes(3 << 20))
    path.write_bytes(content)
    with Client.connect(kept.home) as client:
        wait_until(lambda: client.call(m.GetStatus()).staged_files == 0)
    for _ in range(2):
        assert path.read_bytes() == content
    wait_until(lambda: [entry for entry in (kept.home / "hot").glob("*") if not entry.suffix])
    with open(path, "rb", buffering=0) as reader:
        mapping = mmap.mmap(reader.fileno(), len(content), prot=mmap.PROT_READ)
        end(kept)
        kept.wait_for_next()
        assert [entry for entry in (kept.home / "hot").glob("*") if not entry.suffix]
        assert os.pread(reader.fileno(), len(content), 0) == content
        for turn in range(2):
            with open(path, "r+b", buffering=0) as writer:
                piece = b"in step %d" % turn
                os.pwrite(writer.fileno(), piece, 4096)
                content[4096 : 4096 + len(piece)] = piece
                assert os.pread(reader.fileno(), len(content), 0) == content
                assert mapping[:] == content
            end(kept)
            kept.wait_for_next()
            # The staging file was the copy, and is still read past the daemon: it is not sealed when others are.
            (kept.work / f"other{turn}").write_bytes(b"other")
            with Client.connect(kept.home) as client:
                wait_until(lambda client=client: client.call(m.GetStatus()).staged_files == 1)
        with open(path, "rb") as another:
            assert another.read() == content
        mapping.close()
    assert path.read_bytes() == content
    with Client.connect(kept.home) as client:
        wait_until(lambda: client.call(m.GetStatus()).staged_files == 0)
    assert path.read_bytes() == content
    kept.stop()


def test_an_unmount_after_a_hand_over_ends_the_daemon_and_who_takes_care_of_it(kept: Kept) -> None:
    kept.replace()
    kept.wait_for_next()
    with Client.connect(kept.home) as client:
        client.call(m.Shutdown())
    assert kept.caretaker.communicate(timeout=20)[1] == b""
    assert kept.caretaker.returncode == 0
    assert_in_order(kept.home)


def test_a_session_that_cannot_be_taken_over_is_taken_away_and_the_log_says_why(make: Callable[..., Kept]) -> None:
    kept = make()
    (kept.work / "file").write_bytes(b"kept")
    (kept.home / "config.toml").write_text('[mount]\ntransport = "pyfuse3"\n')
    with open(kept.work / "file", "rb", buffering=0) as file:
        kept.kill()
        kept.wait_for_next()
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.pread(file.fileno(), 10, 0)
    assert (kept.work / "file").read_bytes() == b"kept"
    (said,) = [line["reason"] for line in kept.log() if line["event"] == "the mount is not taken over"]
    assert "pyfuse3" in said
    with Client.connect(kept.home) as client, pytest.raises(Refused) as refused:
        client.call(m.Shutdown(hand_over=True))
    assert refused.value.kind == "HandOverImpossible"
    kept.stop()


def test_where_no_daemon_can_go_on_the_mount_is_taken_away_and_the_log_says_why(make: Callable[..., Kept]) -> None:
    kept = make()
    (kept.work / "file").write_bytes(b"kept")
    (kept.home / "config.toml").write_text("[mount]\nspeed = 1\n")
    with open(kept.work / "file", "rb", buffering=0) as file:
        kept.kill()
        kept.caretaker.communicate(timeout=20)
        assert kept.caretaker.returncode == 2
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.pread(file.fileno(), 10, 0)
    assert not any(line.split()[4] == str(kept.mount) for line in _mounts())
    assert "speed" in kept.log()[-2]["reason"]
    assert kept.log()[-1]["event"] == "nobody goes on with the mount"


def test_a_staging_file_that_somebody_looks_at_is_sealed_all_the_same(make: Callable[..., Kept]) -> None:
    # Without passthrough nobody reads the files of the mount in that way.
    kept = make(TASKVAULT_MOUNT_PASSTHROUGH="false")
    with open(kept.work / "file", "wb", buffering=0) as file:
        file.write(bytes(range(200)) * 100)
        os.fsync(file.fileno())
        (staged,) = (path for path in (kept.home / "staging").rglob("*") if path.is_file())
        with open(staged, "rb"):
            kept.kill()
            kept.wait_for_next()
    with Client.connect(kept.home) as client:
        wait_until(lambda: client.call(m.GetStatus()).staged_files == 0)
    kept.stop()


class Store:
    """Keeps descriptors as systemd does: an independent reading of its protocol."""

    def __init__(self, address: Path) -> None:
        self.kept: dict[str, int] = {}
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._socket.settimeout(20)
        self._started: list[subprocess.Popen[bytes]] = []

    def take_until_ready(self) -> None:
        """Take what the daemon sends until it is ready."""
        message = b""
        while b"READY=1" not in message:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 8)
            told = dict(line.partition("=")[::2] for line in message.decode().splitlines())
            if told.get("FDSTORE") == "1":
                # Out of the way of those that are passed.
                self.kept[told["FDNAME"]] = fcntl.fcntl(descriptors[0], fcntl.F_DUPFD_CLOEXEC, 64)
                os.close(descriptors[0])
            elif told.get("FDSTOREREMOVE") == "1" and told["FDNAME"] in self.kept:
                os.close(self.kept.pop(told["FDNAME"]))

    def start(self, home: Path, mount: Path) -> subprocess.Popen[bytes]:
        """Start a daemon and give it what is kept."""
        passed = list(self.kept.values())
        moves = "".join(f" {3 + place}<&{descriptor}-" for place, descriptor in enumerate(passed))
        command = f'LISTEN_PID=$$ exec "$@"{moves}' if passed else 'exec "$@"'
        listed = {"LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": ":".join(self.kept)} if passed else {}
        tvd = [sys.executable, "-m", "tvd", "--home", str(home), "--mount", str(mount)]
        notify = {"NOTIFY_SOCKET": str(self.address), "FDSTORE": "8", "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
        daemon = subprocess.Popen(
            ["bash", "-c", command, "bash", *tvd], pass_fds=passed, env={**os.environ, **notify, **listed}
        )
        self._started.append(daemon)
        self.take_until_ready()
        return daemon

    def close(self) -> None:
        """End what a test that failed has left, the mount with it."""
        self._socket.close()
        for descriptor in self.kept.values():
            os.close(descriptor)
        for daemon in self._started:
            daemon.kill()
            daemon.wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "notify")
    yield made
    made.close()
    if any(line.split()[4] == str(tmp_path / "mount") for line in _mounts()):
        subprocess.run(["umount", "-l", str(tmp_path / "mount")], check=False)


@pytest.mark.parametrize("readable", [True, False], ids=["intact", "another version's"])
def test_systemd_can_keep_the_mount_and_a_record_that_cannot_be_read_is_no_harm(
    store: Store, tmp_path: Path, readable: bool
) -> None:
    home, mount = tmp_path / "vault", tmp_path / "mount"
    daemon = store.start(home, mount)
    # The first close asks whether closes are to be told; that of the next daemon's process, before it runs, must not.
    (mount / "work" / "closed").touch()
    with open(mount / "work" / "file", "w+b", buffering=0) as file:
        file.write(b"written")
        assert set(store.kept) == {"session", "record"}
        daemon.kill()
        daemon.wait()
        if not readable:
            os.pwrite(store.kept["record"], b"\0" * 8, 0)
        daemon = store.start(home, mount)
        if readable:
            assert os.pread(file.fileno(), 10, 0) == b"written"
        else:
            with pytest.raises(OSError, match=r"not connected|abort"):
                os.pread(file.fileno(), 10, 0)
    assert (mount / "work" / "file").read_bytes() == b"written"
    assert set(store.kept) == {"session", "record"}
    daemon.terminate()
    assert daemon.wait(20) == 0
    assert_in_order(home)


def test_names_that_the_daemon_removed_and_was_killed_before_it_told_the_kernel_are_gone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, mount = tmp_path / "vault", tmp_path / "mount"
    monkeypatch.setenv("TASKVAULT_FAILPOINTS", "notification.waits=kill@1")
    daemon = store.start(home, mount)
    monkeypatch.delenv("TASKVAULT_FAILPOINTS")
    cache = mount / "work" / "cache"
    cache.mkdir()
    with Client.connect(home) as client:
        client.call(m.MarkEvictable("work/cache", True))
    for name in ("a", "b"):
        (cache / name).write_bytes(b"content")
    assert shown(cache) == {"a", "b"}

    def is_killed_as_it_evicts() -> bool:
        with suppress(DaemonUnreachable), Client.connect(home) as client:
            client.call(m.CollectGarbage(evict_bytes=1))
        return daemon.poll() is not None

    wait_until(is_killed_as_it_evicts)
    daemon = store.start(home, mount)
    wait_until(lambda: len(shown(cache)) < 2 and shown(cache) == set(os.listdir(cache)))
    daemon.terminate()
    assert daemon.wait(20) == 0
    assert_in_order(home)


def shown(directory: Path) -> set[str]:
    """Return what is there by one way or the other."""
    return {*os.listdir(directory), *(name for name in ("a", "b") if os.path.lexists(directory / name))}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_kills_under_load_lose_nothing(kept: Kept) -> None:
    over, facts, failed = threading.Event(), [dict[str, bytes]() for _ in range(3)], list[BaseException]()

    def work(number: int) -> None:
        rng, own, root = random.Random(number), facts[number], kept.work / str(number)
        try:
            root.mkdir()
            with open(root / "log", "ab", buffering=0) as log:
                step = 0
                while not over.is_set():
                    step += 1
                    _one_step(rng, root, own, step)
                    line = b"%d\n" % step
                    log.write(line)
                    own["log"] = own.get("log", b"") + line
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            failed.append(exc)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    rng = random.Random(0)
    for _ in range(30):
        wait_until(lambda: failed or threading.Event().wait(rng.random() / 2) is False)
        (Kept.kill if rng.random() < 0.7 else Kept.replace)(kept)
        kept.wait_for_next()
    over.set()
    for worker in workers:
        worker.join(60)
    assert not failed, failed
    for number, own in enumerate(facts):
        root = kept.work / str(number)
        found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == {
            name: hashlib.sha256(content).hexdigest() for name, content in own.items()
        }
    kept.stop()


def _one_step(rng: random.Random, root: Path, own: dict[str, bytes], step: int) -> None:
    """Do something of which each outcome but one is an error, and note it."""
    names = [name for name in own if name != "log"]
    match rng.randrange(5) if names else 0:
        case 0 | 1:
            name, content = f"f{step}", rng.randbytes(rng.choice([0, 100, 5000, 300_000]))
            with open(root / name, "xb") as file:
                file.write(content)
            own[name] = content
        case 2:
            name = rng.choice(names)
            os.unlink(root / name)
            del own[name]
        case 3:
            name, new = rng.choice(names), f"r{step}"
            os.rename(root / name, root / new)
            own[new] = own.pop(name)
        case 4:
            name = rng.choice(names)
            assert (root / name).read_bytes() == own[name]
            os.mkdir(root / f"d{step}")
            os.rmdir(root / f"d{step}")
