"""Plugins of another distribution in a real daemon: missing, raising, hanging; the data stays what it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from taskvault.protocol import messages as m
from tests.installed_plugins import install
from tests.thinned import thinned

ROOT = Path(__file__).parent.parent.parent
TEXT = b"a line of text that compresses well\n" * 20_000
CALL_TIMEOUT_S = "0.5"
OBEDIENT = """
    import os, threading
    HERE = os.path.dirname(__file__)

    def obey(function, who):
        def obeying(self, *arguments):
            order = os.path.join(HERE, who)
            if os.path.exists(order):
                if open(order).read() == "hang":
                    threading.Event().wait()
                raise RuntimeError("as ordered")
            return function(self, *arguments)
        return obeying

    Hash.digest = obey(Hash.digest, "digest")
    Codec.compress = obey(Codec.compress, "compress")
    Codec.decompress = obey(Codec.decompress, "decompress")
    Chunker.cut = obey(Chunker.cut, "cut")
"""
"""Plugins that do as a file beside them says."""
FAILURES = pytest.mark.parametrize(
    ("who", "what"),
    thinned(
        [
            ("cut", "hang"),
            ("digest", "raise"),
            ("cut", "raise"),
            ("compress", "raise"),
            ("digest", "hang"),
            ("compress", "hang"),
        ],
        one_in=3,
    ),
)


class Foreign:
    """A vault whose plugins come from another distribution, its daemon, and `tv` for it."""

    def __init__(self, daemon: Any, site: Path) -> None:
        self.daemon = daemon
        self.site = site
        self.env = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins"), str(site)]),
            "TASKVAULT_PLUGINS_CALL_TIMEOUT_S": CALL_TIMEOUT_S,
            "TASKVAULT_HOME": str(daemon.home),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        install(site, source=OBEDIENT)
        choices = ["--hash", "blake2", "--compression", "deflate", "--chunking", "lines", "--size", "256M"]
        self.start("--init", *choices)
        assert daemon.wait() == 0, daemon.errors

    def start(self, *options: str, mounted: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = self.daemon.start(*options, mounted=mounted, env=self.env)
        return told

    def up(self, *, mounted: bool = False) -> None:
        told = self.start(mounted=mounted)
        assert told.get("ok"), told

    def tv(self, *arguments: str, exit_code: int = 0) -> str:
        done = self.run(arguments, exit_code)
        return done.stdout + done.stderr

    def tv_out(self, *arguments: str) -> str:
        """What programs read."""
        return self.run(arguments, 0).stdout

    def run(self, arguments: Sequence[str], exit_code: int) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "taskvault", *arguments],
            env={**os.environ, **self.env},
            cwd=self.daemon.home.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == exit_code, done.stderr + done.stdout
        return done

    def order(self, who: str, what: str) -> None:
        (self.site / who).write_text(what)

    def let_go(self, who: str) -> None:
        (self.site / who).unlink()

    def until(self, said: Callable[[], bool]) -> None:
        while not said():  # the suite's timeout is the deadline
            time.sleep(0.02)

    def logged(self, words: str) -> bool:
        return any(words in json.dumps(line) for line in self.daemon.log())


@pytest.fixture
def foreign(daemon: Any, tmp_path: Path) -> Foreign:
    return Foreign(daemon, tmp_path / "site")


def test_a_vault_that_lacks_a_plugin_is_refused_unchanged_and_opens_when_it_is_back(
    foreign: Foreign, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(TEXT)
    foreign.up()
    foreign.tv("cache", "save", "key", "in")
    assert foreign.daemon.stop() == 0
    packs = {path.name: path.read_bytes() for path in (foreign.daemon.home / "packs").iterdir()}
    shutil.move(foreign.site, tmp_path / "uninstalled")
    told = foreign.start()
    assert not told["ok"]
    assert "needs the hash plugin 'blake2'" in told["error"]
    assert "`pip install tv-example`" in told["error"]
    assert foreign.daemon.wait() == 4
    assert {path.name: path.read_bytes() for path in (foreign.daemon.home / "packs").iterdir()} == packs
    shutil.move(tmp_path / "uninstalled", foreign.site)
    foreign.up()
    foreign.tv("cache", "get", "key", "--to", "out")
    assert (tmp_path / "out" / "in").read_bytes() == TEXT


def test_the_plugins_are_listed_with_what_the_data_needs(foreign: Foreign, tmp_path: Path) -> None:
    alone = foreign.tv("plugins")
    assert "no daemon answers" in alone
    assert "tv-example 1.2" in alone
    (tmp_path / "in").write_bytes(TEXT)
    foreign.up()
    foreign.tv("cache", "save", "key", "in")
    install(foreign.site, "tv-broken", source="raise OSError", points={"chunking": {"bad": "make_chunker"}})
    install(foreign.site, "tv-twin", points={"hash": {"sha256": "make_hash"}})
    listed = {(line["kind"], line["name"]): line for line in json.loads(foreign.tv("plugins", "--json"))}
    assert listed["hash", "blake2"]["needed"] is True
    assert (listed["hash", "blake2"]["distribution"], listed["hash", "blake2"]["version"]) == ("tv-example", "1.2")
    assert "number 200" in listed["compression", "deflate"]["needed_because"]
    assert listed["eviction", "lru"]["needed"] is True
    assert listed["compression", "zstd"]["needed"] is False
    assert listed["compression", "zstd"]["state"] == "ok"
    assert listed["chunking", "bad"]["state"] == "broken"
    assert "OSError" in listed["chunking", "bad"]["reason"]
    assert listed["hash", "sha256"]["state"] == "ambiguous"
    text = foreign.tv("plugins")
    assert all(word in text for word in ("brotli", "lz4", "whole", "OSError", "tv-twin"))


def test_what_a_plugin_prints_is_no_part_of_an_answer(foreign: Foreign, tmp_path: Path) -> None:
    loud = "print('a banner', flush=True)"
    install(foreign.site, source=loud)
    install(foreign.site, "tv-loud", source=loud, points={"eviction": {"loud": "make_policy"}})
    (tmp_path / "in").write_bytes(TEXT)
    foreign.up()
    saved = json.loads(foreign.tv_out("cache", "save", "key", "in", "--json"))
    assert saved["key"] == "key"
    assert json.loads(foreign.tv_out("plugins", "--json"))
    assert len(json.loads(foreign.tv_out("hash", "in", "--json")))
    assert foreign.daemon.stop() == 0
    assert json.loads(foreign.tv_out("fsck", "--content", "--json"))["count"] == 0


@pytest.mark.kernel
@FAILURES
def test_a_plugin_that_fails_while_a_file_is_sealed_loses_nothing_and_stops_nobody(
    foreign: Foreign, who: str, what: str
) -> None:
    foreign.up(mounted=True)
    foreign.order(who, what)
    file = foreign.daemon.mount / "work" / "file"
    file.write_bytes(TEXT)
    foreign.until(lambda: foreign.logged("files stay staged"))
    assert foreign.logged("broke its contract")
    assert file.read_bytes() == TEXT
    with foreign.daemon.client() as client:
        assert client.call(m.GetStatus()).staged_files == 1
    assert foreign.daemon.stop() == 0
    foreign.let_go(who)
    foreign.up(mounted=True)
    assert file.read_bytes() == TEXT
    with foreign.daemon.client() as client:
        foreign.until(lambda: client.call(m.GetStatus()).staged_files == 0)
    assert file.read_bytes() == TEXT


@pytest.mark.kernel
@pytest.mark.parametrize("what", ["hang", "raise"])
def test_a_codec_that_fails_while_a_file_is_read_is_an_error_and_never_other_bytes(foreign: Foreign, what: str) -> None:
    foreign.up(mounted=True)
    file = foreign.daemon.mount / "work" / "file"
    file.write_bytes(TEXT)
    with foreign.daemon.client() as client:
        foreign.until(lambda: client.call(m.GetStatus()).staged_files == 0)
    assert foreign.daemon.stop() == 0
    foreign.up(mounted=True)
    foreign.order("decompress", what)
    with pytest.raises(OSError, match="Input/output error"):
        file.read_bytes()
    with foreign.daemon.client() as client:
        assert client.call(m.GetStatus()).healthy
    assert foreign.daemon.stop() == 0
    foreign.let_go("decompress")
    foreign.up(mounted=True)
    assert file.read_bytes() == TEXT


@FAILURES
def test_a_plugin_that_fails_in_the_client_ends_the_save_with_a_sentence_and_stores_no_entry(
    foreign: Foreign, tmp_path: Path, who: str, what: str
) -> None:
    (tmp_path / "in").write_bytes(TEXT)
    foreign.up()
    foreign.order(who, what)
    told = foreign.tv("cache", "save", "key", "in", exit_code=5)
    assert "broke its contract" in told or "does not work" in told
    foreign.let_go(who)
    assert json.loads(foreign.tv("cache", "ls", "--json")) == []
    foreign.tv("cache", "save", "key", "in")
    foreign.tv("cache", "get", "key", "--to", "out")
    assert (tmp_path / "out" / "in").read_bytes() == TEXT
