"""The live display on a terminal. The only module that imports Rich, and only once a run takes long enough."""

from __future__ import annotations

import sys

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lox.escape import shorten, shown_path
from lox.eta import Pace, share_done
from lox.progress import amounts
from lox.settings import Settings
from lox.units import format_clock, format_rate, plural
from pipelines.options import Progress

BAR_WIDTH = 28
NARROW = 60  # columns below which the bar is left out


class LiveDisplay:
    """Two or three lines at the foot of the terminal, redrawn when `show` is called."""

    def __init__(self, settings: Settings) -> None:
        color = settings.wants_color(sys.stderr.isatty())
        # No markup, no highlighting, no emoji: file names are text, whatever they hold.
        self._console = Console(
            file=sys.stderr, markup=False, highlight=False, emoji=False, no_color=not color, force_terminal=True
        )
        self._view = _View()
        self._live = Live(
            self._view,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Verbose lines on the same terminal must go above the display; into a file they go as they are.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, progress: Progress, pace: Pace, noun: str) -> None:
        """Redraws; `noun` is what is counted beside bytes."""
        self._view.progress, self._view.pace, self._view.noun = progress, pace, noun
        self._live.refresh()

    def say(self, text: str) -> None:
        """Prints a line above the display."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Removes the display and gives the terminal back."""
        self._live.stop()


class _View:
    """What is drawn, made anew for the width at hand."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.pace = Pace(0.0)
        self.noun = "files"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.progress is not None:
            width = options.max_width
            yield self._bar(self.progress, width)
            yield Text(self._amounts(self.progress), no_wrap=True, overflow="ellipsis")
            yield self._place(self.progress, width)

    def _bar(self, progress: Progress, width: int) -> Table:
        done = share_done(progress.files_done, progress.bytes_done, progress.files_total, progress.bytes_total)
        row = Table.grid(padding=(0, 2))
        cells: list[Text | ProgressBar] = [Text(progress.phase, style="bold")]
        if width >= NARROW:
            cells.append(ProgressBar(total=1.0, completed=done or 0.0, width=BAR_WIDTH, pulse=done is None))
        if done is not None:
            cells.append(Text(f"{int(100 * done):3d} %"))
        if self.pace.bytes_per_second > 0:
            cells.append(Text(format_rate(self.pace.bytes_per_second), style="cyan"))
        if done is not None and done >= 1.0:
            cells.append(Text("finishing"))
        elif self.pace.remaining is not None:
            cells.append(Text(f"{format_clock(self.pace.remaining)} left"))
        row.add_row(*cells)
        return row

    def _amounts(self, progress: Progress) -> str:
        parts = amounts(progress, self.noun)
        if progress.limiting_stage:
            parts.append(f"limited by {progress.limiting_stage}")
        if progress.problems:
            parts.append(plural(progress.problems, "problem"))
        return "  ".join(parts)

    def _place(self, progress: Progress, width: int) -> Text:
        return Text(shorten(shown_path(progress.current), width) if progress.current else "", style="dim", no_wrap=True)
