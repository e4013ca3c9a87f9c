"""What a user sees of patterns: docs/patterns.md, line by line."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.entries import Paths
from model.errors import UsageError
from sources.files.patterns import Patterns

ROOT = (b"srv/data",)


def excluded(pattern: bytes | list[bytes], path: bytes, roots: tuple[bytes, ...] = ROOT) -> bool:
    """`path` ends with a slash if it is a directory."""
    lines = pattern if isinstance(pattern, list) else [pattern]
    return Patterns.compile(lines, roots=roots).excludes(path.rstrip(b"/"), path.endswith(b"/"))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"*.log", [b"srv/data/a.log", b"srv/data/x/y/.log", b"srv/data/d.log/"], [b"srv/data/a.log2"]),
        (b"temp/", [b"srv/data/temp/", b"srv/data/a/temp/"], [b"srv/data/temp", b"srv/data/temp2/"]),
        (b".git/", [b"srv/data/.git/"], [b"srv/data/.git", b"srv/data/.github/"]),
        (b"/srv/data/x", [b"srv/data/x", b"srv/data/x/"], [b"srv/data/y/x", b"srv/data/srv/data/x"]),
        (b"/var/log/*.log", [b"var/log/a.log"], [b"var/log/a/b.log", b"srv/var/log/a.log"]),
        (b"a/b", [b"srv/data/a/b"], [b"srv/data/x/a/b", b"a/b", b"srv/data/a/b/c"]),
        (b"**/a/b", [b"srv/data/a/b", b"srv/data/x/y/a/b"], [b"srv/data/a/x/b"]),
        (b"**/a", [b"srv/data/a", b"srv/data/x/a"], [b"srv/data/ab"]),
        (b"a/**/b", [b"srv/data/a/b", b"srv/data/a/x/b", b"srv/data/a/x/y/b"], [b"srv/data/ab", b"srv/data/a/xb"]),
        (b"a/**", [b"srv/data/a/b", b"srv/data/a/b/c/"], [b"srv/data/a/", b"srv/data/ab"]),
        (b"a/*", [b"srv/data/a/b"], [b"srv/data/a/b/c", b"srv/data/a"]),
        (b"f?o", [b"srv/data/foo", b"srv/data/f\no", b"srv/data/f\xffo"], [b"srv/data/fo", b"srv/data/fooo"]),
        (b"a?b/c", [b"srv/data/axb/c"], [b"srv/data/a/b/c"]),
        (b"[abc]x", [b"srv/data/ax", b"srv/data/cx"], [b"srv/data/dx"]),
        (b"[!a-c]x", [b"srv/data/dx", b"srv/data/\xffx"], [b"srv/data/ax", b"srv/data/x"]),
        (b"[^a-c]x", [b"srv/data/dx"], [b"srv/data/ax"]),
        (b"[]-]x", [b"srv/data/]x", b"srv/data/-x"], [b"srv/data/ax"]),
        (b"[[:digit:]_]x", [b"srv/data/7x", b"srv/data/_x"], [b"srv/data/ax"]),
        (b"[[:punct:]]x", [b"srv/data/!x", b"srv/data/[x", b"srv/data/~x"], [b"srv/data/ax"]),
        (rb"[\]]x", [b"srv/data/]x"], [b"srv/data/\\x"]),
        (rb"\*x", [b"srv/data/*x"], [b"srv/data/ax"]),
        (rb"\!x", [b"srv/data/!x"], [b"srv/data/x"]),
        (rb"a\ b", [b"srv/data/a b"], []),
        (b"*a*b*c", [b"srv/data/abc", b"srv/data/xaxbxc", b"srv/data/aabbcc"], [b"srv/data/acb", b"srv/data/abcx"]),
        (b"a**b", [b"srv/data/ab", b"srv/data/axxb"], [b"srv/data/a"]),
        (b"*", [b"srv/data/x", b"srv/data/x/"], []),
        (b"x\nb", [b"srv/data/x\nb"], [b"srv/data/x", b"srv/data/b"]),
        (b"\xff*", [b"srv/data/\xff\xfe"], [b"srv/data/\xfe"]),
    ],
)
def test_patterns_mean_what_the_page_says(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    assert [path for path in yes if not excluded(pattern, path)] == []
    assert [path for path in no if excluded(pattern, path)] == []


def test_the_last_rule_that_matches_decides() -> None:
    rules = [b"*.log", b"!keep.log", b"/srv/data/x/keep.log"]
    assert excluded(rules, b"srv/data/a.log")
    assert not excluded(rules, b"srv/data/keep.log")
    assert excluded(rules, b"srv/data/x/keep.log")
    assert excluded([b"!a", b"a"], b"srv/data/a")
    assert not excluded([b"a", b"!a"], b"srv/data/a")


def test_a_negation_for_directories_leaves_files_excluded() -> None:
    rules = [b"build", b"!build/"]
    assert excluded(rules, b"srv/data/build")
    assert not excluded(rules, b"srv/data/build/")


def test_rooted_patterns_hold_below_every_root() -> None:
    roots = (b"srv/data", b"etc", b"")
    assert all(excluded(b"a/b", path, roots) for path in (b"srv/data/a/b", b"etc/a/b", b"a/b"))
    assert not excluded(b"a/b", b"usr/a/b", roots)


def test_includes_take_files_and_whole_directories() -> None:
    patterns = Patterns.compile([b"*.tmp"], [b"*.conf", b"docs/", b"a/b"], roots=ROOT)
    kept = [b"srv/data/x/y.conf", b"srv/data/docs/readme", b"srv/data/x/docs/y/z", b"srv/data/a/b", b"srv/data/a/b/c"]
    assert [path for path in kept if patterns.excludes(path, False)] == []
    left_out = [b"srv/data/x", b"srv/data/docs", b"srv/data/a/c", b"srv/data/y.tmp", b"srv/data/docs/y.tmp"]
    assert [path for path in left_out if not patterns.excludes(path, False)] == []
    assert not patterns.excludes(b"srv/data/any", True), "directories are walked: what they hold may be included"


def test_an_include_does_not_reach_above_the_root() -> None:
    assert Patterns.compile([], [b"data/"], roots=ROOT).excludes(b"srv/data/x", False)


def test_no_patterns_keep_everything() -> None:
    patterns = Patterns.compile([])
    assert patterns.keep_everything and not patterns.excludes(b"a", False)
    assert not Patterns.compile([b"x"]).keep_everything
    assert not Patterns.compile([], [b"x"]).keep_everything


def test_a_column_of_names_is_judged_at_once() -> None:
    names = Paths.of([b"a.log", b"b", b"c.log"])
    kept = Patterns.compile([b"*.log"]).kept(b"var", names, np.array([False, False, True]))
    assert kept.tolist() == [False, True, False]


@pytest.mark.parametrize("pattern", [b"/", b"!", b"a/../b", b"./a", b"[a", b"a\\", b"[z-a]", b"[[:no:]]", b"a\0b"])
def test_a_pattern_that_can_mean_nothing_is_refused(pattern: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        Patterns.compile([pattern])
    assert caught.value.why and caught.value.hint


def test_lines_of_a_file_may_be_blank_or_comments() -> None:
    lines = [b"# a comment", b"", b"*.log  ", b"\\#x\r", b"!keep", b"name\\ ", b"  ", b"last"]
    assert excluded(lines, b"srv/data/a.log")
    assert excluded(lines, b"srv/data/#x")
    assert excluded(lines, b"srv/data/name ")
    assert excluded(lines, b"srv/data/last")
    assert not excluded(lines, b"srv/data/ a comment")
    assert Patterns.compile([b"# nothing", b""]).keep_everything


NAMES = st.binary(min_size=1, max_size=30).filter(lambda name: not set(name) & set(b"/\0") and name.strip(b"."))


@given(NAMES)
def test_an_escaped_name_matches_itself_only(name: bytes) -> None:
    pattern = b"".join(b"\\" + bytes([byte]) for byte in name)
    assert excluded(pattern, b"srv/data/" + name)
    assert not excluded(pattern, b"srv/data/" + name + b"x")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_pattern_or_an_error(pattern: bytes) -> None:
    try:
        patterns = Patterns.compile([pattern], [pattern])
    except UsageError:
        return
    patterns.excludes(b"srv/data/some/name", False)


def test_many_stars_take_no_exponential_time() -> None:
    patterns = Patterns.compile([b"*a" * 40 + b"b", b"**/x/" * 12 + b"y"])
    begin = time.process_time()
    patterns.excludes(b"a" * 250, False)
    assert time.process_time() - begin < 1
