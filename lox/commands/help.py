"""``lox help [TOPIC]``: what belongs to no single command."""

from __future__ import annotations

import os

import click

from lox.output import output_of, table
from lox.settings import command as command_of
from model.errors import UsageError
from model.exits import ExitCode

ENVIRONMENT = {
    "LOX_REPOSITORY": "the repository, unless --repo names it",
    "LOX_PASSWORD_FILE": "1st: a file whose first line is the password, or a key file (see lox key add)",
    "LOX_PASSWORD_COMMAND": "2nd: a command whose first line of output is the password (no shell runs it)",
    "LOX_PASSWORD": "3rd: the password itself. The weakest: other programs of yours can read it",
    "LOX_NEW_PASSWORD[_FILE|_COMMAND]": "the new password of 'lox key add' and 'lox key passwd', in the same order",
    "LOX_CACHE_DIR": "where the local copy of the index lies; deleting it costs time, and room if the key only writes",
    "LOX_STATE_DIR": "where records of runs lie; the default is ~/.local/state/lox",
    "LOX_FROM_REPOSITORY": "the repository that 'lox copy' copies from, unless --from-repo names it",
    "LOX_FROM_PASSWORD[_FILE|_COMMAND]": "its password, in the same order; also for 'lox init --copy-chunker-from'",
    "LOX_MIRROR": "further stores 'lox backup' goes to, separated by spaces, unless --mirror names them",
    "LOX_LIMIT_UPLOAD, LOX_LIMIT_DOWNLOAD": "rates such as 50Mbit, unless the options --limit-... say others",
    "LOX_PROFILE": "the pipeline profile, unless --profile names it",
    "AWS_*, GOOGLE_*, AZURE_*": "credentials and endpoints of object stores; SFTP reads ~/.ssh and asks the agent",
    "LOX_VAULT_TOKEN_FILE, LOX_VAULT_CA_FILE": "credential for lox+https://, and the certificate (PEM) to trust",
    "LOX_SERVER, LOX_SERVER_[TOKEN|CA]_FILE": "the server to ask, its token and certificate, instead of 'lox login'",
    "LOX_TENANT": "the tenant of a server to act within, for those who stand above tenants",
    "LOX_CONFIG_DIR": "where 'lox login' keeps tokens; the default is ~/.config/lox",
    "LOX_PROGRESS_INTERVAL": "seconds between lines of progress where there is no terminal (30)",
    "LOX_METRICS_LISTEN, LOX_METRICS_TEXTFILE, LOX_METRICS_EVERY": "as the options --metrics-...; see docs/metrics.md",
    "LOX_UNITS": "sizes in text: iec (1.5 MiB, default), si (1.6 MB) or raw (bytes)",
    "LOX_KERNELS": "auto, native or reference: compiled or plain Python kernels",
    "NO_COLOR": "if set, no colours",
}

TOPICS = {
    "exit-codes": "what the exit status of every command means",
    "environment": "variables that are read, among them where the password comes from",
    "configuration": "every key of a pipeline profile, what it does and what may be written",
    "files": "units for systemd, rules for Prometheus, dashboards for Grafana, and where they lie",
}


@command_of("help")
@click.argument("topic", required=False)
@click.pass_context
def command(ctx: click.Context, /, topic: str | None) -> None:
    """Explain a topic.

    TOPIC is exit-codes, environment, configuration, files, the name of a command, or one of the files: that is printed.
    """
    from lox.app import COMMANDS

    if topic is None:
        _topics(ctx)
    elif topic == "exit-codes":
        _exit_codes(ctx)
    elif topic == "environment":
        _environment(ctx)
    elif topic == "configuration":
        _configuration(ctx)
    elif topic == "files":
        _files(ctx)
    elif topic in COMMANDS:
        _command_help(ctx, topic)
    elif "/" in topic:
        _file(topic)
    else:
        known = ", ".join(TOPICS)
        raise UsageError("no such topic", subject=topic, hint=f"topics are {known} and the names of the commands")


def _topics(ctx: click.Context, /) -> None:
    output = output_of(ctx)
    output.events("topic", [{"name": name, "about": about} for name, about in TOPICS.items()])
    output.lines(table(("TOPIC", "SAYS"), [*TOPICS.items(), ("COMMAND", "the help of that command")]))


def _exit_codes(ctx: click.Context, /) -> None:
    output = output_of(ctx)
    for code in ExitCode:
        output.event("exit-code", code=int(code), name=code.name.lower().replace("_", "-"), meaning=code.meaning)
    output.lines(table(("CODE", "MEANING"), [(str(int(code)), code.meaning) for code in ExitCode], right=[0]))
    output.line("Any other code must be treated as a failure.")


def _environment(ctx: click.Context, /) -> None:
    output = output_of(ctx)
    output.events("variable", [{"name": name, "about": about} for name, about in ENVIRONMENT.items()])
    output.lines(table(("VARIABLE", "SAYS"), ENVIRONMENT.items()))
    output.line("The password is the first of the three that is set, else it is asked for on the terminal.")


def _configuration(ctx: click.Context, /) -> None:
    from pipelines.profile_schema import reference

    output = output_of(ctx)
    for section, about, rows in reference():
        for path, meaning, usual, bounds in rows:
            output.event("key", path=path, meaning=meaning, default=usual, bounds=bounds)
        output.line(
            f"{section}: {about}" if section else "A profile is a YAML file; see lox pipeline list, lox pipeline show."
        )
        for path, meaning, usual, bounds in rows:
            output.line(f"  {path}")
            output.line(f"      {meaning}")
            output.line(f"      {bounds}{f'; if left out {usual}' if usual else ''}")
        output.line()
    output.line("Numbers may also be auto. Sizes have units. STAGE is one of the stages that lox pipeline graph shows.")


def _files(ctx: click.Context, /) -> None:
    from lox.escape import path_fields, shown
    from lox.shipped import ABOUT, shipped_files

    output = output_of(ctx)
    files = {name: os.fsencode(path) for name, path in shipped_files().items()}
    abouts = {name: ABOUT[name.partition("/")[0]] for name in files}
    output.events("file", [{"name": name, "about": abouts[name], **path_fields(path)} for name, path in files.items()])
    output.lines(
        table(("FILE", "SAYS", "LIES AT"), [(name, abouts[name], shown(path)) for name, path in files.items()])
    )
    output.line("lox help FILE prints one.")


def _file(name: str) -> None:
    from lox.shipped import shipped_files

    files = shipped_files()
    if name not in files:
        raise UsageError("no such file is shipped", subject=name, hint="lox help files lists them")
    click.echo(files[name].read_text(encoding="utf-8"), nl=False)


def _command_help(ctx: click.Context, name: str) -> None:
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    found = root.command.get_command(root, name)
    assert found is not None
    with click.Context(found, info_name=name, parent=root, **root.command.context_settings) as inner:
        click.echo(found.get_help(inner))
