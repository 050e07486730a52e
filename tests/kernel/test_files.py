"""What programs do with files, through the kernel."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
KIB = 1024


def test_a_file_can_be_written_and_read_back(place: Path) -> None:
    content = os.urandom(3 * 1024 * KIB + 17)
    (place / "file").write_bytes(content)
    assert (place / "file").read_bytes() == content
    assert (place / "file").stat().st_size == len(content)


def test_opening_with_truncate_empties_a_file(place: Path) -> None:
    (place / "file").write_bytes(b"long content")
    with open(place / "file", "wb") as file:
        assert os.fstat(file.fileno()).st_size == 0
        file.write(b"new")
    assert (place / "file").read_bytes() == b"new"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 200 * KIB])
def test_truncating_cuts_and_growing_adds_zeros(place: Path, size: int) -> None:
    content = os.urandom(100 * KIB)
    (place / "file").write_bytes(content)
    os.truncate(place / "file", size)
    assert (place / "file").read_bytes() == content[:size].ljust(size, b"\0")
    os.truncate(place / "file", 300 * KIB)
    assert (place / "file").read_bytes() == content[:size].ljust(300 * KIB, b"\0")


def test_a_byte_in_the_middle_can_be_changed_through_a_write_only_handle(place: Path) -> None:
    (place / "file").write_bytes(b"a" * 10_000)
    descriptor = os.open(place / "file", os.O_WRONLY)
    os.pwrite(descriptor, b"B", 5_000)
    os.close(descriptor)
    assert (place / "file").read_bytes() == b"a" * 5_000 + b"B" + b"a" * 4_999


def test_two_processes_appending_lose_no_line(place: Path) -> None:
    log = place / "log"
    log.touch()
    code = "import os, sys\nd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n" + (
        "for i in range(500): os.write(d, f'{sys.argv[2]} {i}\\n'.encode())"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(log), name]) for name in "ab"]
    assert [writer.wait(20) for writer in writers] == [0, 0]
    lines = log.read_text().splitlines()
    for name in "ab":
        assert [line for line in lines if line[0] == name] == [f"{name} {i}" for i in range(500)]
    assert len(lines) == 1000


def test_a_shared_mapping_writes_to_the_file(place: Path) -> None:
    (place / "file").write_bytes(bytes(20_000))
    with open(place / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[10_000:10_005] = b"hello"
        mapped.flush()
    assert (place / "file").read_bytes() == bytes(10_000) + b"hello" + bytes(9_995)


def test_a_sparse_file_takes_only_the_room_of_what_was_written(place: Path) -> None:
    with open(place / "sparse", "wb") as file:
        file.write(b"start")
        file.truncate(4 << 30)
    status = (place / "sparse").stat()
    assert status.st_size == 4 << 30
    assert status.st_blocks * 512 < 1 << 20
    with open(place / "sparse", "rb") as file:
        file.seek(3 << 30)
        assert file.read(10) == bytes(10)


def test_a_file_that_would_be_too_big_is_refused(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(OSError, match="File too large"):
        os.truncate(place / "file", 1 << 60)


def test_an_open_file_outlives_its_name(place: Path) -> None:
    with open(place / "file", "w+b") as file:
        file.write(b"still here")
        file.flush()
        (place / "file").unlink()
        assert os.listdir(place) == []
        assert os.fstat(file.fileno()).st_nlink == 0
        file.write(b", and growing")
        file.seek(0)
        assert file.read() == b"still here, and growing"


def test_a_file_replaced_while_it_is_read_is_read_to_its_old_end(place: Path) -> None:
    (place / "file").write_bytes(b"old" * 100_000)
    (place / "new").write_bytes(b"new")
    with open(place / "file", "rb") as file:
        first = file.read(3)
        (place / "new").rename(place / "file")
        assert first + file.read() == b"old" * 100_000
    assert (place / "file").read_bytes() == b"new"


def test_editors_may_save_by_writing_aside_syncing_and_renaming_over(place: Path) -> None:
    (place / "text").write_text("one")
    for round_ in range(20):
        with open(place / ".text.swp", "x") as file:
            file.write(f"version {round_}")
            file.flush()
            os.fsync(file.fileno())
        os.rename(place / ".text.swp", place / "text")
        directory = os.open(place, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        assert (place / "text").read_text() == f"version {round_}"
    assert os.listdir(place) == ["text"]


def test_a_name_that_was_looked_for_in_vain_can_be_created(place: Path) -> None:
    for _ in range(3):
        assert not (place / "later").exists()
    (place / "later").write_text("now")
    assert (place / "later").read_text() == "now"
    (place / "later").unlink()
    assert not (place / "later").exists()


def test_a_name_may_have_255_bytes_and_no_more(place: Path) -> None:
    (place / ("é" * 127 + "x")).write_text("fits")
    with pytest.raises(OSError) as refused:
        (place / ("x" * 256)).touch()
    assert refused.value.errno == errno.ENAMETOOLONG
    with pytest.raises(OSError) as refused:
        os.stat(place / ("x" * 256))
    assert refused.value.errno == errno.ENAMETOOLONG


def test_a_name_need_not_be_text(place: Path) -> None:
    name = os.fsencode(place) + b"/\xff\x01 \n\\"
    with open(name, "w") as file:
        file.write("odd")
    assert os.listdir(os.fsencode(place)) == [b"\xff\x01 \n\\"]
    assert Path(os.fsdecode(name)).read_text() == "odd"


def test_modes_and_times_are_kept_to_the_nanosecond(place: Path) -> None:
    (place / "file").touch()
    os.chmod(place / "file", 0o4751)
    os.utime(place / "file", ns=(1_234_567_890_123_456_789, 987_654_321_098_765_432))
    status = (place / "file").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4751
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_098_765_432)


def test_times_before_1970_are_times_too(place: Path) -> None:
    (place / "file").touch()
    os.utime(place / "file", ns=(-1, -1_500_000_000))
    status = (place / "file").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (-1, -1_500_000_000)


def test_a_written_file_keeps_its_time_when_its_pages_are_written_back(place: Path) -> None:
    with open(place / "file", "wb") as file:
        file.write(b"content")
        file.flush()
        before = os.fstat(file.fileno()).st_mtime_ns
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_mtime_ns == before
    subprocess.run(["sync", "-f", str(place)], check=True)
    assert (place / "file").stat().st_mtime_ns == before


def test_fifos_and_sockets_are_made_and_work(place: Path) -> None:
    os.mkfifo(place / "fifo", 0o640)
    assert stat.S_ISFIFO((place / "fifo").stat().st_mode)
    received = []
    reader = threading.Thread(target=lambda: received.append((place / "fifo").read_bytes()))
    reader.start()
    (place / "fifo").write_bytes(b"through")
    reader.join(10)
    assert received == [b"through"]


def test_a_copy_in_the_kernel_copies(place: Path) -> None:
    content = os.urandom(500_000)
    (place / "from").write_bytes(content)
    with open(place / "from", "rb") as source, open(place / "to", "wb") as target:
        copied = 0
        while copied < len(content):
            copied += os.copy_file_range(source.fileno(), target.fileno(), len(content) - copied)
    assert (place / "to").read_bytes() == content


def test_preallocating_a_file_gives_it_its_size(place: Path) -> None:
    with open(place / "file", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 * KIB)
    assert (place / "file").read_bytes() == bytes(64 * KIB)


def test_locks_exclude_each_other(place: Path) -> None:
    import fcntl

    with open(place / "lock", "w") as mine, open(place / "lock", "w") as theirs:
        fcntl.flock(mine, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
