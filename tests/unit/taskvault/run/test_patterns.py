from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvault.run.patterns import PatternInvalid, PatternSet

NAMES = st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.one_of(NAMES, st.sampled_from(["*", "?", "**", "a*", "*.b", "[ab]", "[!a]"]))
PATTERNS = st.tuples(st.sampled_from(["", "", "!"]), st.lists(PARTS, min_size=1, max_size=4)).map(
    lambda drawn: drawn[0] + "/".join(drawn[1])
)


def matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a pattern names exactly this path: the definition, by trying everything."""
    if not parts:
        return not names
    if parts[0] == "**":
        return matches(parts[1:], names) or (bool(names) and matches(parts, names[1:]))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and matches(parts[1:], names[1:])


def names_it_or_one_above(pattern: str, path: str) -> bool:
    names = path.split("/")
    return any(matches(pattern.split("/"), names[:count]) for count in range(len(names) + 1))


@given(st.lists(PATTERNS, min_size=1, max_size=3), PATHS)
def test_a_set_takes_what_an_inclusion_names_and_no_exclusion_does(patterns: list[str], path: str) -> None:
    included = any(names_it_or_one_above(p, path) for p in patterns if not p.startswith("!"))
    excluded = any(names_it_or_one_above(p[1:], path) for p in patterns if p.startswith("!"))
    assert PatternSet(patterns).takes(path) == (included and not excluded)


@given(st.lists(PATTERNS, min_size=1, max_size=3), PATHS)
def test_a_walk_that_is_pruned_misses_nothing(patterns: list[str], path: str) -> None:
    pattern_set = PatternSet(patterns)
    progress = pattern_set.start()
    *above, last = path.split("/")
    for name in above:
        progress = pattern_set.step(progress, name)
        if not pattern_set.may_have_more(progress):
            assert not pattern_set.takes(path)
            return
    assert pattern_set.step(progress, last).taken == pattern_set.takes(path)


@given(st.lists(PATTERNS, min_size=1, max_size=4), PATHS, st.randoms())
def test_the_order_of_patterns_says_nothing(patterns: list[str], path: str, random: object) -> None:
    shuffled = sorted(patterns, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert PatternSet(shuffled).takes(path) == PatternSet(patterns).takes(path)


@pytest.mark.parametrize(
    ("pattern", "path", "taken"),
    [
        ("src", "src/a/b.c", True),
        ("src/", "src/a/b.c", True),
        ("./src", "src/a.c", True),
        (".", "anything/at/all", True),
        ("*.c", "src/a.c", False),
        ("**/*.c", "a.c", True),
        ("**/*.c", "x/y/a.c", True),
        ("src/*.c", "src/deep/a.c", False),
        ("*", ".hidden", True),
        ("a?c", "a/c", False),
        ("src/**", "src/a", True),
        ("[!a].c", "b.c", True),
        ("[!a].c", "a.c", False),
    ],
)
def test_the_documented_rules_hold(pattern: str, path: str, taken: bool) -> None:
    assert PatternSet([pattern]).takes(path) is taken


@pytest.mark.parametrize("text", ["", "!", "/etc/passwd", "../other", "a/../../b", "!/x"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(PatternInvalid):
        PatternSet([text])


def test_an_exclusion_alone_takes_nothing() -> None:
    assert not PatternSet(["!build"])
    assert not PatternSet(["!build"]).takes("src")
