"""What a run shows while it works, on a terminal, in a log, and for programs."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from lox.eta import Pace
from lox.live import _View
from lox.output import Output
from lox.progress import PROBLEMS_SHOWN, Reporter
from lox.settings import Settings
from model.errors import Interrupted
from pipelines.options import Progress

MB = 1_000_000
NASTY = b"evil/\x1b[2J[bold]\xff\nname"


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def feed(reporter: Reporter, clock: Clock, seconds: float, make: Callable[[float], Progress]) -> None:
    """Calls `reporter` five times a second, as a run does."""
    for _ in range(round(seconds * 5)):
        clock.now += 0.2
        reporter.progress(make(clock.now - 1000.0))


def halfway(seconds: float) -> Progress:
    return Progress("backup", int(100 * seconds), int(MB * seconds), 10_000, 100 * MB, 2, NASTY, "compress")


def test_without_a_terminal_there_is_one_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOX_PROGRESS_INTERVAL", "10")
    clock = Clock()
    with Reporter(Output(Settings()), clock=clock) as reporter:
        feed(reporter, clock, 35, halfway)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("backup: 1,000 of 10,000 files, 9.5") and "left" in lines[0]
    assert "limited by compress" in lines[0] and "2 problems" in lines[0]


def test_json_progress_is_exact_about_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOX_PROGRESS_INTERVAL", "1")
    clock = Clock()
    with Reporter(Output(Settings(json=True)), clock=clock) as reporter:
        feed(reporter, clock, 4, halfway)
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.err.splitlines()]
    assert len(rows) >= 3 and captured.out == ""
    assert rows[-1]["type"] == "progress" and "current_b64" in rows[-1]
    assert 0 < rows[-1]["share"] < 1 and rows[-1]["seconds_remaining"] > 0


@pytest.mark.parametrize("settings", [Settings(progress=False), Settings(verbosity=-1)])
def test_progress_can_be_switched_off(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Reporter(Output(settings), clock=clock) as reporter:
        feed(reporter, clock, 70, halfway)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_the_live_display_fits_and_obeys_no_name(width: int) -> None:
    view = _View()
    pace = Pace(0.0)
    for tick in range(1, 60):
        pace.update(tick * 0.2, tick * 20, tick * MB // 5, 10_000, 100 * MB)
    view.progress, view.pace = halfway(12), pace
    sink = io.StringIO()
    console = Console(file=sink, width=width, markup=False, highlight=False, force_terminal=False)
    console.print(view)
    text = sink.getvalue()
    assert "\x1b" not in text and "\udcff" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) <= 3 or width == 10
    if width >= 80:
        assert "1,200 of 10,000 files" in text and "limited by compress" in text and "left" in text
        assert "/evil/\\x1b[2J[bold]\\xff\\nname" in text


def test_problems_are_told_once_each_and_not_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(Output(Settings())) as reporter:
        for number in range(PROBLEMS_SHOWN + 30):
            reporter.problem(NASTY + b"%d" % number, "permission denied")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == PROBLEMS_SHOWN + 1
    assert lines[0] == "lox: /evil/\\x1b[2J[bold]\\xff\\nname0: permission denied"
    assert reporter.problems_seen == PROBLEMS_SHOWN + 30


def test_json_lists_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter(Output(Settings(json=True))) as reporter:
        for number in range(PROBLEMS_SHOWN + 30):
            reporter.problem(b"%d" % number, "gone")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == PROBLEMS_SHOWN + 30
    assert rows[0] == {"type": "problem", "schema": 1, "path": "/0", "message": "gone"}


@pytest.mark.parametrize(("verbosity", "expected"), [(0, []), (1, ["new"]), (2, ["new", "unchanged"])])
def test_items_are_shown_when_asked_for(
    verbosity: int, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporter(Output(Settings(verbosity=verbosity)), frozenset({"unchanged"})) as reporter:
        reporter.item(b"a", "new", 10)
        reporter.item(b"b", "unchanged", 10)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == expected


def test_a_new_phase_starts_its_own_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Reporter(Output(Settings()), clock=clock) as reporter:
        feed(reporter, clock, 20, halfway)
        feed(reporter, clock, 15, lambda _: Progress("verify", 0, 0, 10, 10))
    assert capsys.readouterr().err.splitlines()[-1].startswith("verify: 0 of 10 files")


def test_a_check_can_be_stopped() -> None:
    with Reporter(Output(Settings(progress=False))) as reporter:
        reporter.step("reading packs", 1, 10)
        threading.Thread(target=reporter.stop.set).start()
        reporter.stop.wait(5)
        with pytest.raises(Interrupted):
            reporter.step("reading packs", 2, 10)
