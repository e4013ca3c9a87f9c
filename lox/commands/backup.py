"""``lox backup``."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from lox.engine import Asked, announce, applied, engine_options, limit_options
from lox.escape import shown
from lox.joining import cluster_options, group_of, joined
from lox.metrics import Metering, metered
from lox.opening import open_repository
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option
from lox.signals import stopping
from lox.types import BytesType, CompressionType, SizeType
from model.errors import UsageError

if TYPE_CHECKING:
    from pipelines.backup import BackupRequest

PATTERN_SECTION = "What is taken"
PATTERN_FILE_MAX = 16 << 20  # bytes
UNCHANGED = frozenset({"unchanged", "carried"})


@command_of("backup")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=BytesType())
@option("--exclude", "excludes", multiple=True, metavar="PATTERN", type=BytesType(), section=PATTERN_SECTION,
        help="Leave out what matches, as in .gitignore; may be repeated.")  # fmt: skip
@option("--exclude-file", "exclude_files", multiple=True, metavar="FILE", type=BytesType(), section=PATTERN_SECTION,
        help="Read such patterns from a file, one a line.")  # fmt: skip
@option("--include", "includes", multiple=True, metavar="PATTERN", type=BytesType(), section=PATTERN_SECTION,
        help="Take only files that match; may be repeated.")  # fmt: skip
@option("--exclude-caches", is_flag=True, section=PATTERN_SECTION,
        help="Leave out the content of folders marked with a CACHEDIR.TAG.")  # fmt: skip
@option("--one-file-system", "-x", is_flag=True, section=PATTERN_SECTION,
        help="Do not go into other mounted file systems.")  # fmt: skip
@option("--exclude-larger-than", type=SizeType(), metavar="SIZE", section=PATTERN_SECTION,
        help="Leave out larger files.")  # fmt: skip
@option("--mode", type=click.Choice(["incremental", "full", "differential"]), default="incremental",
        show_default=True,
        help="What is read: changes since the last snapshot, all, or changes since the last full one.")  # fmt: skip
@option("--host", default=None, help="Name of the host in the snapshot. [default: this host, or those of --hosts]")
@option("--tag", "tags", multiple=True, help="A tag of the snapshot; may be repeated.")
@option("--compression", type=CompressionType(), metavar="CODEC[:LEVEL]",
        help="zstd, lz4, gzip or none. [default: zstd, or as the profile says]")  # fmt: skip
@option("--no-deduplication", is_flag=True,
        help="Store again whatever is read, even if the repository has it.")  # fmt: skip
@option("--mirror", "mirrors", multiple=True, metavar="URL",
        help="Store everything there as well; may be repeated. [env: LOX_MIRROR]")  # fmt: skip
@option("--dry-run", "-n", is_flag=True, help="Read and compare, but store nothing.")
@engine_options
@cluster_options
@limit_options
@click.pass_context
@metered("backup")
def command(
    ctx: click.Context, /, asked_engine: Asked, meter: Metering, **asked: Any
) -> int:  # fmt: skip
    """Back up files and folders into a new snapshot.

    Every snapshot is complete: it restores alone. Exit code 3 means that it was made but that some items could not
    be read, or that a mirror is behind; they are listed. The next run brings a mirror what it lacks. The pattern
    language is gitignore's: *.log, temp/, /var/cache, **/x, !keep.
    """
    output = output_of(ctx, needed=False)
    mirrors = asked.pop("mirrors") or os.environ.get("LOX_MIRROR", "").split()
    asked["hosts"], asked["host"] = _hosts(asked["hosts"], asked["host"])
    profile = asked_engine.with_compression(asked.pop("compression")).resolved()
    fields = _fields(asked, output)
    ctx.with_resource(applied(profile))
    repository = open_repository(ctx, ["pipelines.mirrors"], only_writes=True)
    from lox.counting import BackgroundCount
    from lox.progress import Reporter
    from lox.recording import recorded
    from lox.reports import finish_backup
    from pipelines.backup import BackupRequest
    from pipelines.mirrors import mirrored_backup
    from pipelines.profile import engine_of, request_fields
    from repository.store import open_store

    engine = joined(engine_of(profile), asked)
    request = BackupRequest(**fields, **request_fields(profile))
    reporter = Reporter(output, UNCHANGED, None if request.hosts else BackgroundCount(request))
    announce(output, engine.executor)
    watch = meter.watching(reporter)
    told = _settings(request)
    with recorded(output, "backup", repository, engine, reporter, request.paths, profile.name, **told) as record:
        with reporter, stopping(reporter.stop, quiet=output.json):
            report, followed = mirrored_backup(
                repository, [open_store(url) for url in mirrors], request, engine, watch, meter.stepping(reporter)
            )
        record.of_backup(report)
        meter.backed_up(report, sum(1 for mirror in followed if mirror.trouble))
        return record.ended(finish_backup(output, request, report, followed))


def _hosts(hosts: str, host: str | None) -> tuple[tuple[str, ...], str]:
    """Hosts that back up files of their own, none if it is only this one; and the name of it or of all of them."""
    return group_of(hosts, host) if hosts else ((), host or socket.gethostname())


def _fields(asked: dict[str, Any], output: Output) -> dict[str, Any]:
    """The fields of the request: checked before the password is asked for, without importing the pipeline."""
    return {
        "paths": plain_paths(asked["paths"]) if asked["hosts"] else absolute_paths(asked["paths"], output),
        "hosts": asked["hosts"],
        "excludes": (*asked["excludes"], *_patterns(asked["exclude_files"])),
        "includes": asked["includes"],
        "exclude_caches": asked["exclude_caches"],
        "one_file_system": asked["one_file_system"],
        "exclude_larger_than": asked["exclude_larger_than"],
        "mode": asked["mode"],
        "host": checked_name("host", asked["host"]),
        "user": user_name(),
        "tags": tuple(checked_name("tag", tag) for tag in asked["tags"]),
        "dry_run": asked["dry_run"],
        "deduplicate": not asked["no_deduplication"],
    }


def _settings(request: BackupRequest) -> dict[str, object]:
    """What the record of the run tells of the request."""
    told = {name: getattr(request, name) for name in ("mode", "one_file_system", "exclude_larger_than", "dry_run")}
    if not request.deduplicate:
        told["deduplication"] = "off"
    return told | {"compression": request.codec if request.level is None else f"{request.codec}:{request.level}"}


def absolute_paths(paths: Iterable[bytes], output: Output) -> tuple[bytes, ...]:
    """`paths` absolute, without doubles, sorted, so that the order of arguments does not hide the parent snapshot.

    Symbolic links on the way are resolved; one at the end is itself what is backed up, unless a slash follows it.
    """
    found = set()
    for path in paths:
        if not path:
            raise UsageError("an empty path", hint="name a file or folder, for example . or /data")
        directory, name = os.path.split(path)
        if name in (b"", b".", b".."):
            whole = os.path.realpath(path)
        else:
            whole = os.path.join(os.path.realpath(directory), name)
        try:
            status = os.lstat(whole)
        except OSError as error:
            raise UsageError("cannot back up", subject=os.fsdecode(path), why=(error.strerror or "").lower()) from error
        if stat.S_ISLNK(status.st_mode) and os.path.isdir(whole):
            link = shown(path)
            output.note(f"lox: {link} is a symbolic link and backed up as such; for its target write {link}/")
        found.add(whole)
    return tuple(sorted(found))


def plain_paths(paths: Iterable[bytes]) -> tuple[bytes, ...]:
    """Absolute paths of other hosts, without doubles, sorted. Raises UsageError: what a relative one or a link means is
    known there only."""
    for path in paths:
        if not path.startswith(b"/") or b".." in path.split(b"/"):
            hint = "with --hosts write it from / on, without .., as it is on those hosts"
            raise UsageError("a path of other hosts must be absolute", subject=os.fsdecode(path), hint=hint)
    return tuple(sorted({os.path.normpath(b"/" + path.lstrip(b"/")) for path in paths}))


def _patterns(files: Iterable[bytes]) -> list[bytes]:
    """The lines of exclude files, in order, without comments."""
    lines: list[bytes] = []
    for name in files:
        try:
            with open(name, "rb") as file:
                data = file.read(PATTERN_FILE_MAX + 1)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise UsageError("cannot read the exclude file", subject=os.fsdecode(name), why=why) from error
        if len(data) > PATTERN_FILE_MAX:
            raise UsageError("the exclude file is too long", subject=os.fsdecode(name), hint="at most 16 MiB")
        lines += [line for line in data.split(b"\n") if line.strip() and not line.startswith(b"#")]
    return lines


def checked_name(what: str, name: str) -> str:
    """A host or tag that is one printable word of text. Raises UsageError."""
    if not name or not name.isprintable() or "," in name or len(name) > 200:
        raise UsageError(f"not a usable {what}", subject=name, hint="use up to 200 printable characters, no comma")
    return name


def user_name() -> str:
    """Who runs this, by name if the system knows one."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
