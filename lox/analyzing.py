"""What the commands of ``lox analyze`` have in common: a view of the repository, progress, and damage on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.opening import open_repository
from lox.output import Output, json_line, output_of
from model.errors import LoxError
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.tables.view import View


class Damage:
    """What could not be read: told once, and the exit code that says so. The answer is of what is left."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: set[str] = set()
        self._code = ExitCode.OK
        self._pruned: bool | None = None
        self.view: View | None = None

    @property
    def code(self) -> ExitCode:
        """What is to be said in the end. What a prune took away while it was read is no damage."""
        if self._code is ExitCode.OK or self.view is None:
            return self._code
        if self._pruned is None:
            self._pruned = self.view.pruned_meanwhile()
            if self._pruned:
                self._output.note("the repository was pruned meanwhile, so this is no damage: run it again")
        return ExitCode.PARTIAL if self._pruned else self._code

    @property
    def count(self) -> int:
        """How many different things were told."""
        return len(self._told)

    def note(self, error: LoxError) -> None:
        """Tell of it."""
        if (text := safe(str(error))) in self._told:
            return
        self._told.add(text)
        self._code = self._code or error.exit_code
        fields: dict[str, object] = {"message": text, "exit_code": int(error.exit_code)}
        click.echo(json_line("problem", fields) if self._output.json else f"lox: {text}", err=True)


def open_view(ctx: click.Context, modules: Sequence[str] = ()) -> tuple[View, Damage]:
    """The repository of this command line, and who is told of damage; `modules` are imported meanwhile."""
    repository = open_repository(ctx, ["repository.tables.view", *modules])
    from repository.cache_dir import default_cache_dir
    from repository.tables.view import View

    damage = Damage(output_of(ctx))
    damage.view = view = View(repository, default_cache_dir(), damage.note)
    for _, error in view.snapshots.unreadable:
        damage.note(error)
    return view, damage


@contextmanager
def step(output: Output) -> Iterator[Callable[[str, int, int], None]]:
    """Progress of something that goes step by step, and can be interrupted."""
    from lox.progress import Reporter
    from lox.signals import stopping

    reporter = Reporter(output)
    with reporter, stopping(reporter.stop, quiet=output.json):
        yield reporter.step
