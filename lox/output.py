"""Results on stdout: text for people, JSON lines for programs. Everything else goes to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

import click

from lox.escape import columns_of
from lox.settings import Settings, settings_of

SCHEMA = 1  # of the JSON lines; grows when a field changes its meaning, not when one is added


_encode = json.JSONEncoder(separators=(", ", ": ")).encode  # made once: a listing has many lines


def json_line(kind: str, fields: dict[str, object]) -> str:
    """One JSON line: ASCII only, so that no locale can spoil it."""
    assert not fields.keys() & {"type", "schema"}, "these say what the line is"
    return _encode({"type": kind, "schema": SCHEMA, **fields})


@dataclass(slots=True)
class Output:
    """What a command prints. In text mode `event` prints nothing, in JSON mode `line` prints nothing.

    Unless `needed`, a reader that went away (``lox backup -v | head``) is no reason to stop.
    """

    settings: Settings
    needed: bool = True

    @property
    def json(self) -> bool:
        return self.settings.json

    @property
    def quiet(self) -> int:
        """0 ordinary, 1 only the summary, 2 nothing but errors."""
        return max(0, -self.settings.verbosity)

    @property
    def verbose(self) -> int:
        return max(0, self.settings.verbosity)

    def line(self, text: str = "") -> None:
        """One line of text."""
        if not self.json:
            self._write(text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Many lines in one write: a listing of a million entries must not cost a million of them."""
        if not self.json:
            self._write("".join([text + "\n" for text in texts]))

    def event(self, kind: str, /, **fields: object) -> None:
        """One JSON line."""
        if self.json:
            self._write(json_line(kind, fields) + "\n")

    def events(self, kind: str, rows: Iterable[dict[str, object]]) -> None:
        """Many JSON lines of one kind in one write."""
        if self.json:
            self._write("".join([json_line(kind, fields) + "\n" for fields in rows]))

    def note(self, text: str) -> None:
        """A remark for people, on stderr; none with -q or --json."""
        if not self.json and not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Hands everything to the reader now: errors that follow on stderr then stand below it."""
        self._guarded(sys.stdout.flush)

    def _write(self, text: str) -> None:
        if text:
            self._guarded(lambda: sys.stdout.write(text))

    def _guarded(self, action: object) -> None:
        assert callable(action)
        try:
            action()
        except BrokenPipeError:
            close_stdout()
            if self.needed:
                raise


def close_stdout() -> None:
    """After EPIPE: lets later writes, and the flush at exit, go nowhere instead of failing again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    finally:
        os.close(nowhere)


def output_of(ctx: click.Context, *, needed: bool = True) -> Output:
    """The output of the command that runs in `ctx`."""
    return Output(settings_of(ctx), needed)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Lines of a table; the columns in `right` are set flush right, the last column is not padded."""
    return table_of_columns(headings, list(zip(*rows, strict=True)) or [()] * len(headings), right)


def table_of_columns(headings: Sequence[str], columns: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """As `table`, of whole columns."""
    flush_right, last = set(right), len(headings) - 1
    padded = [
        texts if number == last and number not in flush_right else _padded(texts, number in flush_right)
        for number, texts in enumerate([heading, *column] for heading, column in zip(headings, columns, strict=True))
    ]
    return [line.rstrip() for line in map("  ".join, zip(*padded, strict=True))]


def _padded(texts: Sequence[str], right: bool) -> list[str]:
    if "".join(texts).isascii():  # nearly always, and a listing may have 100,000 cells
        width = max(map(len, texts))
        return [text.rjust(width) if right else text.ljust(width) for text in texts]
    widths = [columns_of(text) for text in texts]
    spaces = [" " * (max(widths) - width) for width in widths]
    return [space + text if right else text + space for text, space in zip(texts, spaces, strict=True)]


def open_missing_streams() -> None:
    """Puts /dev/null where the caller closed a standard stream (``>&-``).

    Python has no object for such a stream, and the first file opened would take its number: what something prints
    would then end up in a pack.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def utf8_streams(*streams: TextIO) -> None:
    """Makes streams print what their encoding lacks as escapes instead of failing (``LANG=C`` over ssh)."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
