"""Two users on one vault: who shares results, what each sees of the other, and who may not come in.

The vault belongs to one user and is shared through a group; a second is in the group, a third is not.  None of them is
root, for whom other rules hold: they are numbers, in a mount namespace in which they can reach what we run from.
"""

from __future__ import annotations

import grp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, kill
from tests.runs.driver import Said
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users"),
]

GROUP = "users"
OWNER, MEMBER, STRANGER = 61001, 61002, 61003
ANY_USER = '[run]\nany_user = true\nignored_environment = ["HOME"]\nignored_paths = ["{gate}/*"]\n'
SECRET = "of-the-owner-alone"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Site:
    """A namespace, and a directory in which everybody has one."""

    base: Path
    namespace: int
    """The number of a process in it."""

    @property
    def vault(self) -> Path:
        return self.base / "vault"

    @property
    def gate(self) -> Path:
        return self.base / "gate"

    def start(self, user: int, *command: str, cwd: Path | None = None, **more: str) -> subprocess.Popen[bytes]:
        groups = ["--clear-groups"] if user == STRANGER else [f"--groups={grp.getgrnam(GROUP).gr_gid}"]
        variables = {
            "PATH": os.environ["PATH"], "HOME": str(self.base / str(user)), "TASKVAULT_HOME": str(self.vault),
            "TASKVAULT_PATIENCE_S": "20", "TASKVAULT_WARM_IDLE_S": "5", "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        }  # fmt: skip
        return subprocess.Popen(
            ["nsenter", f"--mount=/proc/{self.namespace}/ns/mnt", f"--wdns={cwd or variables['HOME']}", "--",
             "setpriv", f"--reuid={user}", f"--regid={user}", *groups, "--", *command],
            env={**variables, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def tv(self, user: int, *arguments: str, cwd: Path | None = None, **more: str) -> Said:
        return ended(self.start(user, sys.executable, "-m", "taskvault", *arguments, cwd=cwd, **more))

    def json(self, user: int, *arguments: str) -> Any:
        said = self.tv(user, *arguments, "--json")
        assert said.status == 0, said
        return json.loads(said.out)

    def project(self, user: int, name: str, *, rules: str = ANY_USER, under: Path | None = None) -> Path:
        """Make a checkout that belongs to a user."""
        made = (under or self.base / str(user)) / name
        made.mkdir()
        (made / ".taskvault.toml").write_text(rules.format(gate=self.gate))
        (made / "in").write_text(f"content of {name}\n")
        for path in (made, *made.iterdir()):
            os.chown(path, user, user)
        return made


def ended(process: subprocess.Popen[bytes]) -> Said:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Said(process.returncode, out, err)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    base = Path(tempfile.mkdtemp(prefix="two-users-", dir="/tmp"))  # where everybody may look
    base.chmod(0o755)
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{within_reach()}\necho ready; cat"],
        env={**os.environ, "BASE": str(base)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        made = Site(base, holder.pid)
        try:
            yield from served(made)
        finally:
            holder.kill()
    shutil.rmtree(base)
    for user in (OWNER, MEMBER, STRANGER):
        shutil.rmtree(f"/tmp/taskvault-{user}", ignore_errors=True)


def within_reach() -> str:
    """Return a script that lets other users reach the interpreter, its packages and our sources, and mount for all."""
    script = ["mkdir $BASE/reach"]
    closed = {}
    for place in dict.fromkeys(map(Path, (sys.base_prefix, sys.prefix, ROOT))):
        above = [path for path in reversed(place.parents) if not path.stat().st_mode & 0o001]
        if above:
            kept = f"$BASE/reach/{len(closed)}"
            script.append(f"mkdir {kept}; mount --bind {place} {kept}")
            closed[place] = (above[0], kept)
    for above in dict.fromkeys(above for above, _ in closed.values()):
        script.append(f"mount -t tmpfs -o mode=755 none {above}")
    script += [f"mkdir -p {place}; mount --bind {kept} {place}" for place, (_, kept) in closed.items()]
    script.append("echo user_allow_other > $BASE/fuse.conf; mount --bind $BASE/fuse.conf /etc/fuse.conf")
    # fusermount3 wants a name for whoever mounts.
    script.append(f"(cat /etc/passwd; echo owner:x:{OWNER}:{OWNER}::/:) > $BASE/passwd")
    script.append("mount --bind $BASE/passwd /etc/passwd")
    script.append("mknod -m 666 $BASE/fuse c 10 229; mount --bind $BASE/fuse /dev/fuse")
    return "\n".join(script)


def served(site: Site) -> Iterator[Site]:
    for user in (OWNER, MEMBER, STRANGER):
        place = site.base / str(user)
        place.mkdir()
        os.chown(place, user, user)
    site.gate.mkdir()
    site.gate.chmod(0o777)
    site.vault.mkdir(mode=0o700)
    os.chown(site.vault, OWNER, OWNER)
    assert site.tv(OWNER, "init", "--size", "256M").status == 0
    (site.vault / "config.toml").write_text(f'[control]\ngroup = "{GROUP}"\n[mount]\nallow_other = true\n')
    up = site.tv(OWNER, "up")
    assert up.status == 0, (up, (site.vault / "tvd.log").read_text()[-1200:].partition("refused")[2])
    pid = int(site.json(OWNER, "status")["pid"])
    try:
        yield site
        down = site.tv(OWNER, "down")
        assert down.status == 0, down
    finally:
        if Path(f"/proc/{pid}").exists():
            kill(pid)


def run(site: Site, user: int, project: Path, script: str, **more: str) -> Said:
    return site.tv(user, "run", "--", "sh", "-c", script, cwd=project, **more)


def test_who_shares_a_vault_gets_what_another_made_and_owns_it(site: Site) -> None:
    theirs, ours = site.project(OWNER, "shared"), site.project(MEMBER, "shared")
    script = "mkdir made; cat in > made/one; cat in > out; echo said"
    first = run(site, OWNER, theirs, script)
    assert first.is_stored, first
    second = run(site, MEMBER, ours, script)
    assert (second.is_hit, second.out) == (True, b"said\n"), second
    for name in ("out", "made", "made/one"):
        assert (ours / name).stat().st_uid == MEMBER
    assert (ours / "made" / "one").read_text() == "content of shared\n"


@pytest.mark.slow
def test_under_the_mount_too(site: Site) -> None:
    common = site.vault / "mnt" / "work" / "common"
    assert ended(site.start(OWNER, "sh", "-c", f"mkdir {common} && chmod 777 {common}")).status == 0
    places = {}
    for user in (OWNER, MEMBER):
        places[user] = common / str(user)
        arranged = (
            f"mkdir $0; cd $0; echo content > in; printf %s '{ANY_USER.format(gate=site.gate)}' > .taskvault.toml"
        )
        assert ended(site.start(user, "sh", "-ec", arranged, str(places[user]))).status == 0
    script = "mkdir made; cat in > made/one; cat in > out"
    first = run(site, OWNER, places[OWNER], script)
    assert first.is_stored, first
    second = run(site, MEMBER, places[MEMBER], script)
    assert second.is_hit, second
    told = ended(site.start(MEMBER, "stat", "-c", "%u", "out", "made", "made/one", cwd=places[MEMBER]))
    assert told.out.split() == [str(MEMBER).encode()] * 3, told


@pytest.mark.slow
def test_results_of_another_user_are_not_taken_unless_the_project_says_so(site: Site) -> None:
    rules = '[run]\nignored_environment = ["HOME"]\n'
    theirs, ours = (site.project(user, "each its own", rules=rules) for user in (OWNER, MEMBER))
    assert run(site, OWNER, theirs, "cat in > out").is_stored
    second = run(site, MEMBER, ours, "cat in > out")
    assert second.is_stored, second
    why = site.tv(MEMBER, "why", cwd=ours)
    assert b"platform user" in why.out, why


@pytest.mark.slow
def test_of_identical_runs_of_two_users_at_once_one_executes_and_the_other_waits(site: Site) -> None:
    theirs, ours = site.project(OWNER, "at once"), site.project(MEMBER, "at once")
    script = f"echo $$ > {site.gate}/begun; while [ ! -e {site.gate}/go ]; do :; done; cat in > out"
    command = (sys.executable, "-m", "taskvault", "run", "--", "sh", "-c", script)
    leader = site.start(OWNER, *command, cwd=theirs)
    wait_until((site.gate / "begun").exists)
    other = site.start(MEMBER, *command, cwd=ours)
    assert other.stderr is not None
    waiting = other.stderr.readline()
    assert b"waiting for process" in waiting, waiting
    (site.gate / "go").touch()
    assert ended(leader).is_stored
    assert ended(other).is_hit
    assert (ours / "out").stat().st_uid == MEMBER


def test_nothing_private_of_the_owner_is_shown_to_who_shares_the_vault(site: Site) -> None:
    theirs, ours = site.project(OWNER, "private"), site.project(MEMBER, "private")
    script = f"cat in > out; printf %s-%s {SECRET} captured"
    first = site.tv(OWNER, "run", "--", "sh", "-c", script.replace(SECRET, '"$SETTING"'), cwd=theirs, SETTING=SECRET)
    assert first.is_stored, first
    (record,) = [each for each in site.json(OWNER, "runs") if each["root"] == str(theirs)]
    assert (record["user"], len(record["key"])) == (OWNER, 64)
    second = site.tv(MEMBER, "run", "--", "sh", "-c", script.replace(SECRET, '"$SETTING"'), cwd=ours, SETTING="another")
    assert second.is_stored, second
    asked: Mapping[str, int] = {
        "runs --json": 0, "runs": 0, f"why {record['run']} --json": 0, f"why {record['run']}": 0, "why --json": 0,
        "why": 0, "cache ls --json": 0, "audit --json": 4, "top --once --json": 0, "status --json": 0,
    }  # fmt: skip
    for words, status in asked.items():
        said = site.tv(MEMBER, *words.split(), cwd=ours)
        assert said.status == status, (words, said)
        for private in (SECRET, record["key"]):
            assert private.encode() not in said.out + said.err, (words, private)
    # By name, for the vault's directory lets them through, and is not listed to them.
    places = [*site.vault.glob("*"), *site.vault.glob("meta/*"), *site.vault.glob("packs/*"), f"{site.vault}/mnt/runs"]
    script = "for each; do [ -f $each ] && [ -r $each ] && echo ${each##*/}; [ -r $each ] && ls $each >&2; done; exit 0"
    found = ended(site.start(MEMBER, "sh", "-c", script, "sh", *map(str, places)))
    assert set(found.out.split()) <= {b"config.toml", b"format", b"superblock"}, found
    assert b"stdout" not in found.err


def test_who_does_not_share_the_vault_is_told_so_in_a_sentence_and_runs_without_it(site: Site) -> None:
    project = site.project(STRANGER, "outside")
    said = run(site, STRANGER, project, "cat in > out; echo ran")
    assert (said.status, said.out) == (0, b"ran\n"), said
    refusal = f"You may not use the vault {site.vault}; ask its owner to set control.group to a group that you are in"
    (line,) = os.fsdecode(said.err).splitlines()
    assert line.startswith(f"tv: running without the vault: {refusal}")
    for words in ("status", "runs", "cache ls", "up"):
        told = site.tv(STRANGER, *words.split())
        assert told.status != 0
        (line,) = os.fsdecode(told.err).splitlines()
        assert "Traceback" not in line
        assert str(site.vault) in line
