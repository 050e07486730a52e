"""Starting, stopping, and what is said when either cannot be done."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskvault.errors import DaemonUnreachable
from taskvault.protocol import messages as m
from tvfs.catalog.ballast import MOST_BYTES


def test_a_daemon_makes_its_vault_says_that_it_is_ready_and_stops_on_sigterm(daemon: Any) -> None:
    told = daemon.start()
    assert told == {"ok": True, "mount": None, "pid": daemon.process.pid}
    with daemon.client() as client:
        status = client.call(m.GetStatus())
        figures = client.call(m.GetStatistics()).figures
    assert status.pid == daemon.process.pid
    assert status.home == str(daemon.home)
    assert status.healthy
    assert 0 < status.used_bytes < MOST_BYTES + (2 << 20)
    assert (status.entries, status.staged_files, status.mount) == (0, 0, None)
    assert figures["capacity_bytes"] == status.capacity_bytes
    assert daemon.stop() == 0
    assert daemon.errors == ""
    assert not (daemon.home / "control.sock").exists()
    with pytest.raises(DaemonUnreachable, match="`tv up`"):
        daemon.client()


def test_the_figures_are_those_that_are_documented(daemon: Any) -> None:
    daemon.start()
    with daemon.client() as client:
        figures = client.call(m.GetStatistics()).figures
    page = (Path(__file__).parent.parent.parent / "docs" / "reference" / "statistics.md").read_text()
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert set(figures) == documented


def test_everything_that_is_made_is_for_its_owner_only(daemon: Any) -> None:
    daemon.start()
    loose = [path for path in [daemon.home, *daemon.home.rglob("*")] if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    # RocksDB decides on the modes of its own files; the directory above them is closed.
    assert [path for path in loose if daemon.home / "meta" not in path.parents] == []


def test_init_makes_a_vault_and_says_so_when_there_is_one(daemon: Any) -> None:
    daemon.start("--init", "--size", "300M", "--compression", "none", "--hash", "sha256")
    assert daemon.wait() == 0
    daemon.start("--init")
    assert daemon.wait() == 4
    assert "There is a vault" in daemon.errors
    daemon.start()
    with daemon.client() as client:
        assert client.call(m.GetStatus()).capacity_bytes == 300 << 20
        assert (client.welcome.compression, client.welcome.hash) == ("none", "sha256")
        assert client.welcome.pack_max_bytes == (300 << 20) // 16


def test_a_second_daemon_is_told_who_has_the_vault_and_disturbs_nothing(
    make_daemon: Callable[..., Any], daemon: Any
) -> None:
    daemon.start()
    second = make_daemon(daemon.home)
    told = second.start()
    assert not told["ok"]
    assert told["exit_code"] == 3
    assert f"process {daemon.process.pid}" in told["error"]
    assert second.wait() == 3
    assert second.errors.strip() == f"tvd: {told['error']}"
    with daemon.client() as client:
        client.call(m.GetStatus())


def test_a_killed_daemon_leaves_a_socket_that_the_next_one_replaces(daemon: Any) -> None:
    daemon.start()
    daemon.kill()
    assert (daemon.home / "control.sock").is_socket()
    with pytest.raises(DaemonUnreachable, match="it has stopped"):
        daemon.client()
    assert daemon.start()["ok"]
    with daemon.client() as client:
        client.call(m.GetStatus())


def test_what_is_no_socket_is_not_removed_from_the_sockets_place(daemon: Any) -> None:
    daemon.start()
    assert daemon.stop() == 0
    (daemon.home / "control.sock").write_text("precious")
    assert not daemon.start()["ok"]
    assert daemon.wait() == 4
    assert "control.sock cannot be made" in daemon.errors
    assert (daemon.home / "control.sock").read_text() == "precious"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[vault", "is not TOML"),
        ('[control]\ngroup = "no-such-group"', "There is no group 'no-such-group'"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_status_2(daemon: Any, text: str, said: str) -> None:
    daemon.home.mkdir()
    (daemon.home / "config.toml").write_text(text)
    told = daemon.start()
    assert daemon.wait() == told["exit_code"] == 2
    assert said in told["error"]
    assert len(daemon.errors.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [["--mount", "/x", "--no-mount"], ["--frobnicate"], ["--ready-fd", "three"]],
    ids=lambda options: options[0],
)
def test_a_wrong_command_line_is_exit_status_2(daemon: Any, options: list[str]) -> None:
    daemon.start(*options)
    assert daemon.wait() == 2
    assert "Traceback" not in daemon.errors


def test_a_vault_is_made_beside_what_an_operator_prepared(daemon: Any) -> None:
    (daemon.home / "mnt").mkdir(parents=True)
    (daemon.home / "config.toml").write_text('[vault]\ncapacity_bytes = "200M"')
    assert daemon.start()["ok"]
    with daemon.client() as client:
        assert client.call(m.GetStatus()).capacity_bytes == 200 << 20


def test_a_directory_that_is_something_else_is_left_alone(daemon: Any) -> None:
    daemon.home.mkdir()
    (daemon.home / "thesis.tex").write_text("precious")
    told = daemon.start()
    assert daemon.wait() == told["exit_code"] == 4
    assert "'thesis.tex'" in told["error"]
    assert [path.name for path in daemon.home.iterdir()] == ["thesis.tex"]


@pytest.mark.leaves_no_vault("it is of a newer format")
def test_a_newer_format_is_not_touched(daemon: Any) -> None:
    daemon.start()
    assert daemon.stop() == 0
    (daemon.home / "format").write_text("99\n")
    before = {path: path.stat().st_mtime_ns for path in (daemon.home / "meta").iterdir()}
    told = daemon.start()
    assert daemon.wait() == told["exit_code"] == 4
    assert "format version 99" in told["error"]
    assert {path: path.stat().st_mtime_ns for path in (daemon.home / "meta").iterdir()} == before


def test_a_plugin_that_is_not_installed_is_named(daemon: Any) -> None:
    told = daemon.start("--compression", "middle-out")
    assert daemon.wait() == told["exit_code"] == 4
    assert "No compression plugin is called 'middle-out'" in told["error"]


def test_shutdown_answers_the_client_that_asked(daemon: Any) -> None:
    daemon.start()
    with daemon.client() as client, daemon.client() as idle:
        assert client.call(m.Shutdown()) == m.Done()
        assert daemon.wait() == 0
        with pytest.raises(DaemonUnreachable):
            idle.call(m.GetStatus())
    assert [line["event"] for line in daemon.log()][-2:] == ["stopping", "stopped"]


def test_half_a_request_does_not_keep_the_daemon_from_stopping(daemon: Any) -> None:
    daemon.start(env={"TASKVAULT_CONTROL_DRAIN_TIMEOUT_S": "0.2"})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.home / "control.sock"))
        connection.sendall(b"\0\0\1\0half")
        with daemon.client() as client:
            client.call(m.GetStatus())  # so the half request has been read
        assert daemon.stop() == 0


def test_sigusr1_writes_the_stacks_and_everything_goes_on(daemon: Any) -> None:
    daemon.start()
    daemon.process.send_signal(signal.SIGUSR1)
    with daemon.client() as client:
        client.call(m.GetStatus())
    assert "most recent call first" in (daemon.home / "tvd.log").read_text()


def test_systemd_is_told(daemon: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        daemon.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert systemd.recv(1000).startswith(b"READY=1")
        assert daemon.stop() == 0
        assert systemd.recv(1000).startswith(b"STOPPING=1")


def test_in_the_foreground_the_log_goes_to_stderr(daemon: Any) -> None:
    daemon.start("--foreground")
    assert daemon.stop(signal.SIGINT) == 0
    events = [json.loads(line)["event"] for line in daemon.errors.splitlines()]
    assert events == ["opened", "ready", "stopping", "stopped"]
    assert not (daemon.home / "tvd.log").exists()


def test_a_daemon_that_is_short_of_descriptors_says_so_and_recovers(daemon: Any) -> None:
    daemon.start()
    pid = daemon.process.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={used}:"], check=True)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(daemon.home / "control.sock"))
        subprocess.run(["prlimit", f"--pid={pid}", "--nofile=1024:"], check=True)
        with daemon.client() as client:
            assert client.call(m.GetStatus()).healthy
    assert daemon.stop() == 0
