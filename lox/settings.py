"""The options every command understands, before or after its name, and the classes that make that work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

GLOBAL_SECTION = "Global options (also before the command)"


@dataclass(slots=True)
class Settings:
    """What the global options and their environment variables say."""

    repo: str | None = None
    json: bool = False
    verbosity: int = 0  # -1 for each -q, +1 for each -v
    progress: bool = True
    debug: bool = False
    color: str = "auto"

    def wants_color(self, tty: bool) -> bool:
        """Whether text for a stream that is (not) a terminal is coloured; NO_COLOR and TERM=dumb are respected."""
        if self.color != "auto":
            return self.color == "always"
        return tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Option(click.Option):
    """A click option that knows under which heading of the help it belongs."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Puts a global option into the one `Settings` of this run; what stands later on the command line wins."""
    if value is None or ctx.resilient_parsing:
        return
    settings = ctx.ensure_object(Settings)
    match param.name:
        case "verbose":
            settings.verbosity += int(value)
        case "quiet":
            settings.verbosity -= int(value)
        case "no_progress":
            settings.progress = settings.progress and not value
        case "json" | "debug":
            setattr(settings, param.name, getattr(settings, param.name) or bool(value))
        case name if name is not None:
            setattr(settings, name, value)


def global_options() -> list[click.Parameter]:
    """Fresh copies of the global options; none of them is passed to the command's function."""

    def option(*names: str, **more: Any) -> Option:
        return Option(names, expose_value=False, callback=_remember, section=GLOBAL_SECTION, **more)

    return [
        option("--repo", metavar="URL", help="The repository: a path, s3://, sftp://, ... [env: LOX_REPOSITORY]"),
        option("--json", is_flag=True, help="Print JSON lines instead of text."),
        option("-q", "--quiet", count=True, help="Print less: only the summary; -qq: nothing but errors."),
        option("-v", "--verbose", count=True, help="Print more: each item that is new or changed; -vv: each item."),
        option("--no-progress", is_flag=True, help="Show no progress."),
        option("--color", type=click.Choice(["auto", "always", "never"]), help="Colours. [env: NO_COLOR]"),
        option("--debug", is_flag=True, help="Show tracebacks of errors."),
    ]


class Command(click.Command):
    """A command that also takes the global options and prints its options under headings."""

    def __init__(self, *args: Any, params: list[click.Parameter] | None = None, **kwargs: Any) -> None:
        kwargs["params"] = [*(params or []), *global_options()]
        super().__init__(*args, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_sections(self, ctx, formatter)


class Group(click.Group):
    """A group of such commands, itself taking the global options."""

    command_class = Command

    def __init__(self, *args: Any, params: list[click.Parameter] | None = None, **kwargs: Any) -> None:
        kwargs["params"] = [*(params or []), *global_options()]
        super().__init__(*args, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        write_sections(self, ctx, formatter)


def write_sections(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """The options of `command` under the headings they name, the global ones last."""
    sections: dict[str, list[tuple[str, str]]] = {"Options": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and isinstance(param, click.Option):
            sections.setdefault(getattr(param, "section", "Options"), []).append(record)
    sections[GLOBAL_SECTION] = sections.pop(GLOBAL_SECTION, [])
    for heading, records in sections.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records, col_max=32)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """``@command("ls")``: makes a `Command` of a function; the context settings are the same for all."""
    return click.command(name, cls=Command, **attributes)


def option(*names: str, section: str = "Options", **attributes: Any) -> Callable[[Callable[..., Any]], Any]:
    """``@option(...)``: as click.option, with a heading."""
    return click.option(*names, cls=Option, section=section, **attributes)


def stacked(*decorators: Callable[[Callable[..., Any]], Any]) -> Callable[[Callable[..., Any]], Any]:
    """Several option decorators as one, in the order in which the help shows them."""

    def decorate(function: Callable[..., Any]) -> Any:
        for each in reversed(decorators):
            function = each(function)
        return function

    return decorate


def settings_of(ctx: click.Context) -> Settings:
    """The `Settings` of this run, with the environment filled in where the command line said nothing."""
    settings = ctx.ensure_object(Settings)
    if settings.repo is None:
        settings.repo = os.environ.get("LOX_REPOSITORY") or None
    return settings


def early_settings(arguments: Sequence[str]) -> Settings:
    """A guess at --json, --debug and --color for errors of the command line itself, before it is parsed."""
    ours = list(arguments[: arguments.index("--")]) if "--" in arguments else list(arguments)
    return Settings(json="--json" in ours, debug="--debug" in ours)
