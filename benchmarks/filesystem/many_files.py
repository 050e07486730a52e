"""Programs that make thousands of files: `tar`, `git`, `make`, `npm`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks import trees
from benchmarks.filesystem.comparing import faster, no_slower
from benchmarks.filesystem.peers import OURS, S3QL, Peer, S3qlMissing, peers, pinned, s3ql_version
from benchmarks.pairs import Outcome, alternate, output, run, seconds
from benchmarks.transports.places import BINDFS, EXT4
from taskvault.demo import BUILD, Demo, fetched_source

UNTARRED_FILES = 10_000
_STATUS_TIMES = 5


def measure_untar(cache: Path, pairs: int) -> list[Outcome]:
    """A new directory each time, so that nothing has to be removed and no peer has to find room that was given back."""
    archive = trees.plain_archive(trees.small_files(cache, UNTARRED_FILES))
    case = f"untar of {UNTARRED_FILES:,} small files, beside bindfs"
    with peers(cache, OURS, BINDFS) as served:
        return _pinned_and_not(served, case, pairs, lambda peer: _unpack(peer, archive), 3.0, 1.0)


def measure_untar_s3ql(cache: Path, pairs: int) -> list[Outcome]:
    """The same beside S3QL, as it comes."""
    archive = trees.plain_archive(trees.small_files(cache, UNTARRED_FILES))
    what = f"untar of {UNTARRED_FILES:,} small files"
    try:
        version = s3ql_version(cache)
    except S3qlMissing as exc:
        return [Outcome(f"{what}, beside S3QL", "", f"not installed: {exc}", "", "2.0x faster", "5.0x", None, 0)]
    outcomes = []
    with peers(cache, OURS, S3QL) as served:
        for to_one in (False, True):
            with pinned(served, to_one=to_one):
                label = f"untar beside S3QL{', pinned' * to_one}"
                ours, theirs = alternate(label, pairs, *_in_turn(served, lambda peer: _unpack(peer, archive)))
            case = f"{what}, beside S3QL {version}{', pinned' * to_one}"
            outcomes.append(faster(case, ours, theirs, floor=2.0, aim=5.0))
    return outcomes


def measure_git(cache: Path, pairs: int) -> list[Outcome]:
    """Clone a repository, and ask for the status of a clone that has rested."""
    source = trees.repository(cache)
    files = len(output("git", "-C", str(source), "ls-files").splitlines())
    with peers(cache, OURS, EXT4, BINDFS) as served:
        clones: dict[str, Path] = {}

        def clone(peer: Peer) -> float:
            # Without hard links: across filesystems there are none, and here all copy the same.
            target = clones[peer.name] = peer.new("clone")
            return seconds(lambda: run("git", "clone", "-q", "--no-hardlinks", str(source), str(target)))

        def status(peer: Peer) -> float:
            command = ("git", "-C", str(clones[peer.name]), "status", "--porcelain")
            return seconds(lambda: [run(*command) for _ in range(_STATUS_TIMES)]) / _STATUS_TIMES

        outcomes = []
        for to_one in (False, True):
            there = f", warm{', pinned' * to_one}"
            with pinned(served, to_one=to_one):
                made = alternate(f"git clone{', pinned' * to_one}", pairs, *_in_turn(served, clone))
                for peer in served.values():
                    peer.rest()
                measures = [lambda peer=peer: status(peer) for peer in served.values()]  # type: ignore[misc]
                warm = alternate(f"git status{', pinned' * to_one}", pairs, *measures)
            what = f"git clone of {files:,} files{', pinned' * to_one}"
            outcomes += [
                no_slower(f"{what}, beside ext4", made[0], made[1], floor=4.0, aim=1.5),
                _told(f"{what}, beside bindfs", made[0], made[2]),
                no_slower(f"git status there{there}, beside ext4", warm[0], warm[1], floor=3.0, aim=1.2),
                _told(f"git status there{there}, beside bindfs", warm[0], warm[2]),
            ]
    return outcomes


def measure_build(cache: Path, pairs: int) -> list[Outcome]:
    """The sources of Lua, with two jobs; each build starts from a fresh copy, and only the build is timed."""
    source = fetched_source(Demo(cache))

    def build(peer: Peer) -> float:
        directory = peer.new("build")
        shutil.copytree(source, directory)
        peer.rest()
        return seconds(lambda: run(*BUILD, cwd=str(directory)))

    case = "C build (Lua 5.4, make -j2), cold, beside ext4"
    with peers(cache, OURS, EXT4) as served:
        return _pinned_and_not(served, case, pairs, build, 1.15, 1.05)


def measure_npm(cache: Path, pairs: int) -> list[Outcome]:
    """From npm's own cache, which is on the disk for both, without a network."""
    try:
        project = trees.npm_project(cache)
    except (RuntimeError, FileNotFoundError) as exc:
        return [Outcome("npm ci, beside bindfs", "", f"not run: {exc}", "", "3.0x", "1.0x", None, 0)]
    files = sum(1 for path in (project / "node_modules").rglob("*") if path.is_file())

    def install(peer: Peer) -> float:
        target = peer.new("npm")
        target.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(project / name, target / name)
        return seconds(lambda: run(*trees.npm_ci(cache), "--offline", cwd=str(target)))

    case = f"npm ci of {files:,} files, offline, beside bindfs"
    with peers(cache, OURS, BINDFS) as served:
        return _pinned_and_not(served, case, pairs, install, 3.0, 1.0)


def _pinned_and_not(
    served: dict[str, Peer], case: str, pairs: int, measure: Callable[[Peer], float], floor: float, aim: float
) -> list[Outcome]:
    outcomes = []
    for to_one in (False, True):
        with pinned(served, to_one=to_one):
            ours, theirs = alternate(f"{case}{', pinned' * to_one}", pairs, *_in_turn(served, measure))
        outcomes.append(no_slower(f"{case}{', pinned' * to_one}", ours, theirs, floor=floor, aim=aim))
    return outcomes


def _unpack(peer: Peer, archive: Path) -> float:
    target = peer.new("untarred")
    target.mkdir()
    return seconds(lambda: run("tar", "-C", str(target), "-xf", str(archive)))


def _in_turn(served: dict[str, Peer], measure: Callable[[Peer], float]) -> list[Callable[[], float]]:
    """Return what measures each of them after all have come to rest."""

    def rested(peer: Peer) -> float:
        for each in served.values():
            each.rest()
        return measure(peer)

    return [lambda peer=peer: rested(peer) for peer in served.values()]  # type: ignore[misc]


def _told(case: str, ours: list[float], theirs: list[float]) -> Outcome:
    line = no_slower(case, ours, theirs, floor=0.0, aim=0.0)
    return Outcome(line.case, line.ours, line.peer, line.figure, "", "", None, line.pairs)
