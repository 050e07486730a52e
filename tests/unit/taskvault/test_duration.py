from __future__ import annotations

import click
import pytest

from taskvault.cli.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), (" 1D ", 86_400)],
)
def test_durations_are_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "7", "d", "7 d", "-1d", "1.5h", "7x", "1d12h", "٣d", "1e3s", "inf", "9" * 30 + "s"]
)
def test_what_is_no_duration_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30s, 15m, 12h, 7d, 2w"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["0s", "00w", "101000d"])
def test_a_duration_of_nothing_or_beyond_a_century_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="between 1s and a century"):
        Duration().convert(text, None, None)
