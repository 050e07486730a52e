"""What holds for every test: a printed seed, no unannounced warning or log, no leaked resource."""

from __future__ import annotations

import gc
import logging
import os
import random
import re
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.vaults_in_order import COST, assert_in_order, assert_repairable, vaults_below

# No deadline: a shared two-core machine is slow now and then, and `timeout` in pyproject.toml catches a hang.
hypothesis.settings.register_profile("default", print_blob=True, deadline=None)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("default"), max_examples=10)
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("default"), max_examples=2000)
hypothesis.settings.load_profile("default")


collect_ignore = ["plugin_example"]
"""A distribution of its own, whose tests run where it is installed: tests/packaging/test_plugin_example.py."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Another seed each time finds more; the header says how to have the same one again.
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    seed = config.option.hypothesis_seed
    return f"seed: {seed} (the same again: --hypothesis-seed={seed})"


def pytest_collection_finish() -> None:
    # What exists now stays: the collections after each test need not look at it again.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse, readable and writable")


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    """The run's printed seed, for tests that draw their own random numbers."""
    return int(pytestconfig.option.hypothesis_seed)


class ExpectedLogs:
    """Announces logs of WARNING or above by regular expression; what is announced must also come."""

    def __init__(self) -> None:
        self.patterns: list[str] = []

    def __call__(self, pattern: str) -> None:
        self.patterns.append(pattern)

    def check(self, loud: list[str]) -> None:
        unannounced = [message for message in loud if not any(re.search(p, message) for p in self.patterns)]
        unseen = [p for p in self.patterns if not any(re.search(p, message) for message in loud)]
        assert not unannounced, f"logged without being announced with expect_log: {unannounced}"
        assert not unseen, f"announced but never logged: {unseen}"


@pytest.fixture
def expect_log() -> ExpectedLogs:
    """Call it with a regular expression for each warning that the test provokes."""
    return ExpectedLogs()


@pytest.fixture(autouse=True)
def no_unannounced_log(
    caplog: pytest.LogCaptureFixture, expect_log: ExpectedLogs
) -> Iterator[list[structlog.typing.EventDict]]:
    """Fail a test that logs a warning which it did not announce; its value is what structlog was told."""
    with structlog.testing.capture_logs() as events:
        yield events
    loud = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    loud += [str(e["event"]) for e in events if e["log_level"] in {"warning", "error", "exception", "critical"}]
    expect_log.check(loud)


@pytest.fixture(autouse=True)
def vaults_in_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run fsck, dry, on every vault that the test leaves behind; those damaged on purpose must be repairable."""
    if "tmp_path" not in request.fixturenames:
        yield
        return
    tmp_path = request.getfixturevalue("tmp_path")
    yield
    if request.node.get_closest_marker("leaves_no_vault"):
        return
    damaged = request.node.get_closest_marker("damages_vault")
    for home in vaults_below(tmp_path):
        if damaged:
            assert_repairable(home)
        else:
            assert_in_order(home)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COST.vaults:
        terminalreporter.write_line(
            f"fsck after tests: {COST.vaults} vaults in {COST.total_s:.1f} s,"
            f" {COST.total_s / COST.vaults * 1000:.0f} ms each, of the processor {COST.cpu_s / COST.vaults * 1000:.0f},"
            f" the slowest {COST.slowest_s * 1000:.0f} ms: {COST.slowest}"
        )


@pytest.fixture(autouse=True)
def no_leaked_resource() -> Iterator[None]:
    """Collect garbage while the test can still be blamed for an unclosed file or a forgotten coroutine."""
    yield
    gc.collect()
