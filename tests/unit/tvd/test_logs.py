from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tvd import logs
from tvd.config import LogConfig


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    before = structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logs.RotatingFile]:
    file = logs.RotatingFile(tmp_path / "tvd.log", max_bytes=1000, kept_files=2)
    yield file
    file.close()


def test_events_and_foreign_records_are_json_lines_with_their_traceback(tmp_path: Path, log: logs.RotatingFile) -> None:
    logs.configure(log, "info")
    structlog.get_logger().debug("too quiet")
    structlog.get_logger().info("opened", home="/v", name=b"\xff")
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().error("failed", exc_info=True)
    logging.getLogger("foreign").info("said %s", "so")
    lines = [json.loads(line) for line in (tmp_path / "tvd.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["opened", "failed", "said so"]
    assert lines[0]["home"] == "/v"
    assert lines[0]["level"] == "info"
    assert lines[0]["timestamp"].endswith("Z")
    assert "ValueError: why" in lines[1]["exception"]
    assert lines[2]["logger"] == "foreign"


def test_a_log_that_grows_is_moved_aside_and_no_line_is_cut(tmp_path: Path, log: logs.RotatingFile) -> None:
    for number in range(100):
        log.write(f"{number:03d} {'x' * 90}\n")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["tvd.log", "tvd.log.1", "tvd.log.2"]
    for file in files:
        assert file.stat().st_size <= 1000
        assert all(len(line) == 94 for line in file.read_text().splitlines())
    assert (tmp_path / "tvd.log").read_text().splitlines()[-1].startswith("099")


def test_the_logs_of_a_small_vault_are_small(tmp_path: Path, log: logs.RotatingFile) -> None:
    log.limit(600)
    log.limit(9000)
    for number in range(100):
        log.write(f"{number:03d} {'x' * 90}\n")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 600


def test_a_log_is_continued_by_the_next_start(tmp_path: Path, log: logs.RotatingFile) -> None:
    log.write("first\n")
    again = logs.RotatingFile(tmp_path / "tvd.log", max_bytes=1000, kept_files=2)
    again.write("x" * 998 + "\n")
    again.close()
    assert (tmp_path / "tvd.log.1").read_text() == "first\n"


def test_the_descriptor_stays_when_the_file_is_moved(tmp_path: Path, log: logs.RotatingFile) -> None:
    descriptor = log.fileno()
    for _ in range(20):
        log.write("x" * 99 + "\n")
    assert log.fileno() == descriptor
    assert os.path.sameopenfile(descriptor, os.open(tmp_path / "tvd.log", os.O_RDONLY))


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    log = logs.RotatingFile(tmp_path / "tvd.log", max_bytes=1 << 20, kept_files=2)
    threads = [
        threading.Thread(target=lambda letter=letter: [log.write(letter * 50 + "\n") for _ in range(200)])
        for letter in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = (tmp_path / "tvd.log").read_text().splitlines()
    assert len(lines) == 800
    assert all(len(set(line)) == 1 and len(line) == 50 for line in lines)


def test_a_log_that_cannot_be_opened_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(logs.LogUnwritable, match="cannot be written"):
        logs.open_log(tmp_path / "missing", LogConfig(), to_stderr=False)


def test_sigusr1_writes_every_threads_stack_to_the_log(tmp_path: Path) -> None:
    # A process of its own: the dump ends after 100 threads, and the tests before may have left that many.
    program = f"""
import os, signal
from pathlib import Path
from tvd import logs
from tvd.config import LogConfig

def waiting_for_the_signal():
    os.kill(os.getpid(), signal.SIGUSR1)

log = logs.open_log(Path({str(tmp_path)!r}), LogConfig(), to_stderr=False)
logs.enable_stack_dumps(log.fileno())
waiting_for_the_signal()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert "waiting_for_the_signal" in (tmp_path / "tvd.log").read_text()
