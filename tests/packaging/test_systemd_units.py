"""systemd takes the units as they are, and they keep the mount visible to everybody."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tvd.main import ExitCode

UNITS = Path(__file__).parent.parent.parent / "systemd"
AUDITS = sorted(UNITS.glob("tvd-audit*"))
each_unit = pytest.mark.parametrize("unit", sorted({*UNITS.glob("*.service")} - {*AUDITS}), ids=lambda path: path.name)
each_audit = pytest.mark.parametrize("unit", AUDITS, ids=lambda path: path.name)
# Each of these gives a unit its own mount namespace, in which a FUSE mount is seen by the unit alone.
NAMESPACE_SETTINGS = re.compile(
    r"^(PrivateTmp|PrivateDevices|PrivateMounts|PrivateUsers|PrivateNetwork|ProtectSystem|ProtectHome|ProtectProc"
    r"|ProtectKernel\w+|ProtectControlGroups|ProtectHostname|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|BindPaths"
    r"|BindReadOnlyPaths|TemporaryFileSystem|DynamicUser|RootDirectory|MountFlags|MountAPIVFS)=",
    re.MULTILINE,
)


def settings(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("unit", sorted(UNITS.iterdir()), ids=lambda path: path.name)
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze; `make setup` installs it")
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    # A template is verified by an instance; and what systemd looks for need not be installed here.
    for each in UNITS.glob(f"{unit.stem}.*"):
        text = re.sub(r"/usr/bin/tvd?\b", sys.executable, each.read_text())
        (tmp_path / each.name.replace("@", "@main").replace("tvd-audit-user", "tvd-audit")).write_text(text)
    copy = tmp_path / unit.name.replace("@", "@main").replace("tvd-audit-user", "tvd-audit")
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--user" if "user" in unit.name else "--system", str(copy)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert answer.returncode == 0, answer.stderr
    # An unknown setting is a remark about the unit's file, not a failure.
    assert copy.name not in answer.stderr, answer.stderr


@each_unit
def test_the_mount_stays_visible_outside_the_unit(unit: Path) -> None:
    assert not NAMESPACE_SETTINGS.findall(unit.read_text())


@each_unit
def test_readiness_stop_and_files_are_set(unit: Path) -> None:
    assert settings(unit, "Type") == ["notify"]
    assert settings(unit, "KillMode") == ["mixed"]
    assert settings(unit, "TimeoutStopSec")
    assert int(settings(unit, "LimitNOFILE")[0]) >= 65536


@each_unit
def test_a_daemon_that_is_restarted_leaves_its_mount_to_the_next_one(unit: Path) -> None:
    assert int(settings(unit, "FileDescriptorStoreMax")[0]) >= 2
    assert settings(unit, "RestartKillSignal") == ["SIGUSR2"]
    left = str(int(ExitCode.HANDED_OVER))
    assert settings(unit, "SuccessExitStatus") == settings(unit, "RestartForceExitStatus") == [left]
    # Nothing takes the mount away, or looks at it while nobody serves it.
    (mount,) = re.findall(r"--mount (\S+)", unit.read_text())
    around = [*settings(unit, "ExecStartPre"), *settings(unit, "ExecStopPost")]
    assert not [command for command in around if mount in command]


@each_unit
def test_the_daemon_knows_every_option_of_the_unit(unit: Path) -> None:
    shown = subprocess.run([sys.executable, "-m", "tvd", "--help"], capture_output=True, text=True, check=True)
    (command,) = settings(unit, "ExecStart")
    options = re.findall(r"(--[a-z-]+)", command)
    assert options
    assert not [option for option in options if not re.search(rf"{option}\b", shown.stdout)]


@each_audit
def test_an_audit_is_of_the_lowest_priority_and_its_command_is_known(unit: Path) -> None:
    if unit.suffix == ".timer":
        assert settings(unit, "OnCalendar") == ["daily"]
        return
    assert (settings(unit, "Nice"), settings(unit, "IOSchedulingClass")) == (["19"], ["idle"])
    (command,) = settings(unit, "ExecStart")
    shown = subprocess.run(
        [sys.executable, "-m", "taskvault", "audit", "runs", "--help"], capture_output=True, text=True, check=True
    )
    assert not [option for option in re.findall(r"(--[a-z-]+)", command.partition("audit runs")[2])
                if option not in shown.stdout]  # fmt: skip


def test_a_user_unit_lets_fusermount_be_setuid() -> None:
    text = (UNITS / "tvd-user.service").read_text()
    assert not re.findall(r"^(NoNewPrivileges|RestrictRealtime|LockPersonality|SystemCall\w+)=", text, re.MULTILINE)
