"""Programs that make thousands of files: `tar`, `git`, `make`, `npm`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks import trees
from benchmarks.cases import build
from benchmarks.filesystem.comparing import faster, no_slower
from benchmarks.filesystem.peers import OURS, S3QL, Peer, S3qlMissing, peers, pinned, s3ql_version
from benchmarks.pairs import Outcome, alternate, output, run, seconds
from benchmarks.transports.places import BINDFS, EXT4

UNTARRED_FILES = 10_000
_STATUS_TIMES = 5


def measure_untar(cache: Path, pairs: int) -> list[Outcome]:
    """A new directory each time, so that nothing has to be removed and no peer has to find room that was given back."""
    archive = trees.plain_archive(trees.small_files(cache, UNTARRED_FILES))
    outcomes = []
    what = f"untar of {UNTARRED_FILES:,} small files"
    with peers(cache, OURS, BINDFS) as served:
        for to_one in (False, True):
            with pinned(served, to_one=to_one):
                ours, theirs = _untar(f"untar{', pinned' * to_one}", served, archive, few(pairs))
            outcomes.append(no_slower(f"{what}, beside bindfs{', pinned' * to_one}", ours, theirs, floor=3.0, aim=1.0))
    return outcomes


def measure_untar_s3ql(cache: Path, pairs: int) -> list[Outcome]:
    """The same beside S3QL, a few times: it takes long."""
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
                ours, theirs = _untar(f"untar beside S3QL{', pinned' * to_one}", served, archive, max(2, pairs // 5))
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

        ours, ext4, through = alternate("git clone", few(pairs), *_in_turn(served, clone))
        for peer in served.values():
            peer.rest()
        measures = [lambda peer=peer: status(peer) for peer in served.values()]  # type: ignore[misc]
        warm, warm_ext4, warm_through = alternate("git status", pairs, *measures)
    what = f"git clone of {files:,} files"
    return [
        no_slower(f"{what}, beside ext4", ours, ext4, floor=4.0, aim=1.5),
        _told(f"{what}, beside bindfs", ours, through),
        no_slower("git status there, warm, beside ext4", warm, warm_ext4, floor=3.0, aim=1.2),
        _told("git status there, warm, beside bindfs", warm, warm_through),
    ]


def measure_build(cache: Path, pairs: int) -> list[Outcome]:
    """The sources of Lua, with two jobs."""
    return build.beside_ext4(cache, pairs, "C build (Lua 5.4, make -j2), cold, beside ext4", floor=1.15, aim=1.05)


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

    with peers(cache, OURS, BINDFS) as served:
        ours, theirs = alternate("npm ci", few(pairs), *_in_turn(served, install))
    return [no_slower(f"npm ci of {files:,} files, offline, beside bindfs", ours, theirs, floor=3.0, aim=1.0)]


def few(pairs: int) -> int:
    """Return how often what takes long is done."""
    return max(2, pairs // 3)


def _untar(label: str, served: dict[str, Peer], archive: Path, pairs: int) -> list[list[float]]:
    def unpack(peer: Peer) -> float:
        target = peer.new("untarred")
        target.mkdir()
        return seconds(lambda: run("tar", "-C", str(target), "-xf", str(archive)))

    return alternate(label, pairs, *_in_turn(served, unpack))


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
