"""No name can repaint the terminal, forge a line or pass for another name."""

from __future__ import annotations

import base64
import json
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from lox import escape

NAMES = st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))


@given(NAMES)
@example(b"\x1b[2J\x1b]0;owned\x07")
@example("\u202egnp.exe".encode())
@example(b"a\nb")
@example("zero\u200bwidth\u2028line".encode())
def test_shown_names_hold_nothing_a_terminal_obeys(name: bytes) -> None:
    text = escape.shown(name)
    text.encode("utf-8")
    assert all(
        unicodedata.category(letter)[0] != "C" and unicodedata.category(letter) not in ("Zl", "Zp") for letter in text
    )


@given(NAMES, NAMES)
@example(b"\\n", b"\n")
@example(b"\\xff", b"\xff")
@example(b"\x80", "\x80".encode())
@example("\udc80".encode("utf-8", "surrogatepass"), b"\x80")
def test_different_names_look_different(one: bytes, two: bytes) -> None:
    assert (escape.shown(one) == escape.shown(two)) == (one == two)


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("plain.txt", "with space", "Größe 大きさ.txt", "quote'\"$(x)", "émoji 🎉"):
        assert escape.shown(name.encode()) == name


@given(st.text())
def test_messages_become_one_safe_line(text: str) -> None:
    line = escape.safe(text)
    assert len(line.splitlines()) <= 1
    assert "\x1b" not in line
    line.encode("utf-8")


@given(NAMES)
def test_json_carries_every_name_exactly(name: bytes) -> None:
    fields = json.loads(json.dumps(escape.path_fields(name)))
    if "path_b64" in fields:
        assert base64.b64decode(fields["path_b64"]) == name
    else:
        assert fields["path"].encode() == name


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60), st.integers(0, 50))
def test_shortened_text_fits(text: str, columns: int) -> None:
    shown = escape.shown(text.encode())
    assert escape.columns_of(escape.shorten(shown, columns)) <= columns


def test_the_end_of_a_path_survives_shortening() -> None:
    short = escape.shorten("/usr/lib/python3/dist-packages/package/module/name.py", 24)
    assert short.startswith("/usr") and short.endswith("/name.py") and "…" in short
