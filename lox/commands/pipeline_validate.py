"""``lox pipeline validate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.units import plural
from model.errors import InvalidProfile
from model.exits import ExitCode

if TYPE_CHECKING:
    from pipelines.profile_faults import Fault


@command_of("validate")
@click.argument("names", metavar="PROFILE...", nargs=-1, required=True)
@option("--no-environment", is_flag=True, help="Check only what is true on every host.")
@option("--deny-warnings", is_flag=True, help="Warnings are errors.")
@option("--output", "-o", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="json: one list of all faults.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, names: tuple[str, ...], no_environment: bool, deny_warnings: bool, form: str) -> int:
    """Check profiles: each fault with file, line and column.

    PROFILE is a name or a file. Exit code 78 if one of them is invalid.
    """
    output = output_of(ctx)
    faults: list[Fault] = []
    wrong = False
    for name in names:
        found = _faults(name, not no_environment)
        bad = any(deny_warnings or not fault.warning for fault in found)
        faults += found
        wrong = wrong or bad
        output.events("fault", (fault.fields() for fault in found))
        if form == "text":
            output.lines(line for fault in found for line in _lines(fault))
            output.line(f"{safe(name)}: {_verdict(found, bad)}")
    code = ExitCode.INVALID_CONFIGURATION if wrong else ExitCode.OK
    output.event("summary", profiles=len(names), faults=len(faults), exit_code=int(code))
    if form == "json":
        output.line(json.dumps([fault.fields() for fault in faults], indent=2))
    return code


def _faults(name: str, environment: bool) -> list[Fault]:
    """Errors, or else warnings."""
    from pipelines.profile import load
    from pipelines.profile_advice import advice

    try:
        return advice(load(name), environment)
    except InvalidProfile as error:
        from pipelines.profile_faults import Fault

        return [fault for fault in error.faults if isinstance(fault, Fault)]


def _lines(fault: Fault) -> list[str]:
    severity = "warning" if fault.warning else "error"
    line = f"{safe(str(fault.place))}: {severity}: {safe(fault.reason)} [{fault.code}]"
    return [line, f"    {safe(fault.hint)}"] if fault.hint else [line]


def _verdict(faults: list[Fault], bad: bool) -> str:
    errors = sum(not fault.warning for fault in faults)
    counts = [plural(count, word) for count, word in ((errors, "error"), (len(faults) - errors, "warning")) if count]
    return ", ".join(["invalid" if bad else "valid", *counts])
