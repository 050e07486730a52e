"""Real programs that live on a mount, for as long as they need: `make slow`.  packages.txt is what they need."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.posix.places import WAYS, Mount, mounted

pytestmark = [pytest.mark.slow, pytest.mark.kernel]
NEEDED = {
    "git": "git", "sqlite3": "sqlite3", "rsync": "rsync", "tar": "tar", "npm": "nodejs", "make": "make", "gcc": "gcc",
    "setpriv": "util-linux", "setfattr": "attr",
}  # fmt: skip
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PROGRAM_TIMEOUT_S = 600
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"]


def run(*command: str | Path, cwd: Path, check: bool = True, **variables: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment | variables, timeout=PROGRAM_TIMEOUT_S, check=False,
        capture_output=True, text=True, errors="surrogateescape",
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def needed() -> None:
    missing = {package for program, package in NEEDED.items() if shutil.which(program) is None}
    missing |= set() if POSTGRES else {"postgresql"}
    assert not missing, f"install {', '.join(sorted(missing))}: these programs are what is tested"


@pytest.fixture(scope="module", params=WAYS)
def mount(request: pytest.FixtureRequest) -> Iterator[Mount]:
    with mounted(request.param) as mount:
        for directory in (mount.work.parent.parent, mount.work):
            directory.chmod(0o755)
        yield mount


@pytest.fixture
def place(mount: Mount, request: pytest.FixtureRequest) -> Iterator[Path]:
    directory = mount.work / request.node.originalname
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def copy_of_python(target: Path) -> None:
    """A few thousand real files: a part of the standard library."""
    source = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("site-packages", "test", "*.pyc"))


def test_git_clones_commits_and_collects(place: Path, mount: Mount) -> None:
    copy_of_python(place / "first")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        run(*GIT, *command, cwd=place / "first")
    run(*GIT, "clone", "-q", "--no-local", place / "first", place / "second", cwd=place)
    second = place / "second"
    for number in range(20):
        for path in sorted(second.glob("*.py"))[number::20]:
            path.write_text(f"# {number}\n{path.read_text()}")
        run(*GIT, "commit", "-q", "-a", "-m", str(number), cwd=second)
        run(*GIT, "branch", f"branch{number}", cwd=second)
    run(*GIT, "checkout", "-q", "branch3", cwd=second)
    run(*GIT, "gc", "-q", "--aggressive", "--prune=now", cwd=second)
    assert run(*GIT, "status", "--porcelain", cwd=second) == ""
    mount.again()
    for repository in (place / "first", second):
        run(*GIT, "fsck", "--full", "--strict", cwd=repository)
        assert run(*GIT, "status", "--porcelain", cwd=repository) == ""
    run(*GIT, "checkout", "-q", "branch19", cwd=second)
    run(*GIT, "pull", "-q", "--no-rebase", place / "first", cwd=second)


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60)
database.execute("pragma journal_mode=" + sys.argv[2])
database.execute("pragma synchronous=full")
database.execute("create table if not exists t (worker, number, filler, primary key (worker, number))")
database.execute("create index if not exists by_number on t (number)")
for number in range(100000):
    with database:
        database.execute("insert into t values (?, ?, ?)", (sys.argv[3], number, "x" * (number % 900)))
        if number % 7 == 3:
            database.execute("delete from t where worker = ? and number = ?", (sys.argv[3], number - 2))
    print(number, flush=True)
"""


@pytest.mark.parametrize("victim", ["the program", "the daemon"])
@pytest.mark.parametrize("mode", ["delete", "truncate", "wal"])
def test_sqlite_keeps_what_it_has_committed(place: Path, mount: Mount, tmp_path: Path, mode: str, victim: str) -> None:
    """Two writers are killed, or lose their disk; what each was told is committed is there, and all is sound."""
    database = place / "database"
    for attempt in range(3):
        said = {f"{name}{attempt}": tmp_path / f"{name}{attempt}" for name in "ab"}
        workers = []
        # Where two ask for the mode that a database has not got yet, SQLite refuses one of them without waiting.
        run("sqlite3", database, f"pragma journal_mode={mode}", cwd=place)
        for name, path in said.items():
            with open(path, "w") as output:
                command = [sys.executable, "-I", "-S", "-c", WRITER, str(database), mode, name]
                workers.append(subprocess.Popen(command, stdout=output, stderr=output))
        while sum(path.read_text().count("\n") for path in said.values()) < 60:
            assert all(worker.poll() is None for worker in workers), [path.read_text() for path in said.values()]
        if victim == "the daemon":
            os.kill(mount.pid, signal.SIGKILL)
        for worker in workers:
            if victim == "the program":
                worker.kill()
            worker.wait(60)
        if victim == "the daemon":
            mount.kill()
            mount.enter()
        assert run("sqlite3", database, "pragma integrity_check", cwd=place) == "ok\n"
        for name, path in said.items():
            committed = [int(line) for line in path.read_text().split("\n")[:-1] if line.isdecimal()]
            query = f"select max(number) from t where worker = '{name}'"
            assert not committed or int(run("sqlite3", database, query, cwd=place)) >= committed[-1]


def as_postgres(*command: str | Path, cwd: Path, check: bool = True) -> str:
    who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return run(*who, POSTGRES[-1] / command[0], *command[1:], cwd=cwd, check=check, PGHOST=str(cwd), HOME=str(cwd))


def start_postgres(cluster: Path) -> subprocess.Popen[bytes]:
    """A child of ours: another's would stay a zombie for a while, which the next one takes for alive."""
    who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", POSTGRES[-1] / "postgres"]
    options = ["-D", cluster, "-c", "listen_addresses=", "-c", f"unix_socket_directories={cluster.parent}"]
    with open(cluster.parent / "log", "ab") as log:
        postmaster = subprocess.Popen([*who, *options], cwd=cluster.parent, stdout=log, stderr=log)
    while "accepting" not in as_postgres("pg_isready", cwd=cluster.parent, check=False):
        assert postmaster.poll() is None, (cluster.parent / "log").read_text()[-3000:]
    return postmaster


def transactions(place: Path) -> int:
    return int(as_postgres("psql", "-Atc", "select count(*) from pgbench_history", "bank", cwd=place))


def test_a_postgresql_cluster_recovers_from_a_kill(place: Path) -> None:
    shutil.chown(place, "postgres", "postgres")
    cluster = place / "cluster"
    as_postgres("initdb", "-D", cluster, "--data-checksums", cwd=place)
    postmaster = start_postgres(cluster)
    as_postgres("createdb", "bank", cwd=place)
    as_postgres("pgbench", "-q", "-i", "-s", "2", "bank", cwd=place)
    who, quiet = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"], subprocess.DEVNULL
    for _ in range(2):
        bank = [*who, POSTGRES[-1] / "pgbench", "-c", "4", "-T", "60", "bank"]
        load = subprocess.Popen(bank, env={**os.environ, "PGHOST": str(place)}, cwd=place, stdout=quiet, stderr=quiet)
        before = transactions(place)
        while (seen := transactions(place)) < before + 200:
            assert load.poll() is None
        postmaster.kill()
        postmaster.wait(60)
        load.wait(60)
        wait_for_the_end_of(cluster)
        postmaster = start_postgres(cluster)
        assert transactions(place) >= seen
        sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)"
        assert as_postgres("psql", "-Atc", sums, "bank", cwd=place) == "t\n"
    as_postgres("psql", "-c", "create extension amcheck", "bank", cwd=place)
    as_postgres("pg_amcheck", "--heapallindexed", "--parent-check", "bank", cwd=place)
    as_postgres("pg_ctl", "-D", cluster, "-m", "fast", "-w", "stop", cwd=place)
    assert postmaster.wait(60) == 0
    as_postgres("pg_checksums", "--check", "-D", cluster, cwd=place)


def wait_for_the_end_of(cluster: Path) -> None:
    """The processes of a postmaster that was killed notice it, and end."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        working = [path for path in Path("/proc").glob("[0-9]*/cwd") if _leads_to(path, cluster)]
        if not working:
            return
    raise AssertionError("processes of the cluster are left")


def _leads_to(link: Path, target: Path) -> bool:
    try:
        return link.readlink() == target
    except OSError:
        return False


def test_pip_installs_into_an_environment(place: Path) -> None:
    run(sys.executable, "-m", "venv", place / "environment", cwd=place)
    pip = [place / "environment" / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    wanted = [f"{name}=={version(name)}" for name in ("trio", "msgspec", "hypothesis", "rocksdict")]
    run(*pip, "install", "-q", *wanted, cwd=place)
    run(*pip, "check", cwd=place)
    program = "import trio, msgspec, hypothesis, rocksdict; trio.run(trio.sleep, 0); print(trio.__file__)"
    assert str(place) in run(place / "environment" / "bin" / "python", "-c", program, cwd=place)
    run(*pip, "uninstall", "-q", "-y", "trio", "hypothesis", cwd=place)


def test_npm_installs_what_is_locked(place: Path, tmp_path: Path) -> None:
    package = {"name": "t", "version": "1.0.0", "dependencies": {"eslint": "8.57.0", "typescript": "5.4.5"}}
    for project in (tmp_path / "beside", place / "project"):
        project.mkdir()
        (project / "package.json").write_text(json.dumps(package))
        if project.parent == place:
            shutil.copy(tmp_path / "beside" / "package-lock.json", project)
        else:
            run("npm", "install", "--package-lock-only", "--no-audit", "--no-fund", cwd=project)
        run("npm", "ci", "--no-audit", "--no-fund", cwd=project)
    assert run("diff", "-r", "--no-dereference", tmp_path / "beside", place / "project", cwd=place) == ""
    (place / "project" / "a.ts").write_text("export const one: number = 1;\n")
    run("node_modules/.bin/tsc", "a.ts", cwd=place / "project")
    run("node_modules/.bin/eslint", "--no-eslintrc", "--env=commonjs", "a.js", cwd=place / "project")


@pytest.mark.parametrize(
    ("project", "commands"),
    [
        ("zlib", [["./configure"], ["make", "-j2"], ["make", "test"]]),
        ("bzip2", [["make", "-j2", "libbz2.a", "bzip2", "bzip2recover"], ["make", "test"]]),
    ],
)
def test_a_c_project_builds_and_passes_its_tests(
    place: Path, tmp_path: Path, project: str, commands: list[list[str]]
) -> None:
    (archive,) = debian_source(project, tmp_path)
    for where in (place, tmp_path):
        (where / "built").mkdir()
        run("tar", "-xf", archive, "--strip-components=1", "-C", where / "built", cwd=where)
    for command in commands:
        run(*command, cwd=place / "built")
        run(*command, cwd=tmp_path / "built")
    made = {path.name for path in (place / "built").iterdir()}
    assert made == {path.name for path in (tmp_path / "built").iterdir()}
    # What was made is not older than what it was made from.
    run("make", "-q", "libz.a" if project == "zlib" else "bzip2", cwd=place / "built")


def debian_source(package: str, place: Path) -> list[Path]:
    """Have apt fetch a source package; return the upstream archive."""
    sources = place / "src.sources"
    (place / "lists" / "partial").mkdir(parents=True)
    signed = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
    where = "URIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main"
    sources.write_text(f"Types: deb-src\n{where}\n{signed}\n")
    apt = ["apt-get", "-q"]
    for option in (
        f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-", f"Dir::State::lists={place / 'lists'}",
        "APT::Sandbox::User=root",
    ):  # fmt: skip
        apt += ["-o", option]
    run(*apt, "update", cwd=place)
    run(*apt, "source", "--download-only", package, cwd=place)
    return list(place.glob("*.orig.tar.*"))


def make_awkward_tree(root: Path) -> None:
    """Hard links, symlinks, holes, names that are no UTF-8, attributes, times, modes, owners."""
    draw = random.Random(1)
    for number in range(400):
        directory = root / f"d{number % 23}" / f"e{number % 5}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number}").write_bytes(draw.randbytes(draw.choice((0, 1, 4095, 4096, 70_000, 300_000))))
    files = sorted(path for path in root.rglob("file*"))
    for number, path in enumerate(files[::3]):
        os.link(path, root / f"link{number}")
        os.utime(path, ns=(5, 1_600_000_000_123_456_789 + number))
        path.chmod(draw.choice((0o600, 0o4755, 0o444)))
    for number, path in enumerate(files[::7]):
        (root / f"symlink{number}").symlink_to(path.relative_to(root))
        os.setxattr(path, "user.number", str(number).encode())
        os.chown(path, 1000 + number, 2000)
    for name in (b"latin-\xe9\xff", b"new\nline", b" space ", "ünïcode".encode(), b"x" * 255):
        (root / os.fsdecode(name)).write_bytes(name)
    with open(root / "sparse", "wb") as sparse:
        for offset in (0, 5 << 20, (40 << 20) + 77):
            sparse.seek(offset)
            sparse.write(b"data")
        sparse.truncate(64 << 20)
    os.mkfifo(root / "fifo")


def test_rsync_in_and_out_finds_nothing_left_to_do(place: Path, tmp_path: Path, mount: Mount) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    make_awkward_tree(source)
    there = place / "there"
    for again in range(2):
        run("rsync", "-aHX", "--numeric-ids", "--delete", f"{source}/", f"{there}/", cwd=place)
        mount.rest()
        run("rsync", "-aHX", "--numeric-ids", "--delete", f"{there}/", f"{back}/", cwd=place)
        for one, other in ((source, there), (there, back), (source, back)):
            dry = ["rsync", "-aHXni", "--checksum", "--numeric-ids", "--delete", f"{one}/", f"{other}/"]
            assert run(*dry, cwd=place) == ""
        if not again:
            shutil.rmtree(source / "d3")
            for path in sorted(source.glob("d1*/e*/file*"))[::2]:
                path.unlink()
            (source / "d4").rename(source / "renamed")


def test_tar_brings_back_an_awkward_tree(place: Path, tmp_path: Path, mount: Mount) -> None:
    source = tmp_path / "source"
    source.mkdir()
    make_awkward_tree(source)
    tar = ["tar", "--sparse", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=posix"]
    run(*tar, "-cf", tmp_path / "in.tar", "-C", source, ".", cwd=place)
    run(*tar, "-xpf", tmp_path / "in.tar", "-C", place, cwd=place)
    mount.again()
    run(*tar, "-cf", tmp_path / "out.tar", "-C", place, ".", cwd=tmp_path)
    (tmp_path / "back").mkdir()
    run(*tar, "-xpf", tmp_path / "out.tar", "-C", tmp_path / "back", cwd=tmp_path)
    for other in (place, tmp_path / "back"):
        dry = ["rsync", "-aHXni", "--checksum", "--numeric-ids", "--delete", f"{source}/", f"{other}/"]
        assert run(*dry, cwd=tmp_path) == ""
        assert sorted(os.listdir(os.fsencode(other))) == sorted(os.listdir(os.fsencode(source)))
