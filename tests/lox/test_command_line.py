"""What every command has in common: help, global options, errors, exit codes, and a start that costs nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lox import app, trouble, types
from lox.__main__ import main
from lox.settings import Settings
from model import errors
from model.exits import ExitCode
from tests.lox.running import ROOT, Shell, spawn

# All that these commands may import beside the standard library and click.
LIGHT = (
    "lox",
    "model",
    "model.command_line",
    "model.errors",
    "model.exits",
    "model.chunking",
    "model.names",
    "model.sizes",
)
REPORT = """
import sys
before = set(sys.modules)
from lox.__main__ import main
main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr, sep="\\n")
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["help", "exit-codes"], ["backup", "--help"], ["bakcup"]]
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    command = [sys.executable, "-c", REPORT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    imported = {line for line in done.stderr.splitlines() if " " not in line}
    foreign = {name for name in imported if name.partition(".")[0] not in {*sys.stdlib_module_names, "click", "lox"}}
    assert foreign <= set(LIGHT)
    assert len(imported) > 10


def test_help_is_quick() -> None:
    """In processor time, which other work on the machine disturbs less than the wall clock; they are nearly equal."""
    best = 9.0
    for _ in range(5):
        before = os.times()
        assert spawn("--help").returncode == 0
        after = os.times()
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    assert best < 0.15


def test_every_command_has_help_that_says_what_the_list_says(empty: Shell) -> None:
    listing = empty("--help").ok().out
    for name, about in app.COMMANDS.items():
        assert about in listing
        text = empty(name, "--help").ok().out
        assert " ".join(about.split()) in " ".join(text.split()), name
        assert "Global options" in text and "--repo" in text
        assert empty("help", name).ok().out == text


@pytest.mark.parametrize(
    "arguments",
    [["--json", "help", "exit-codes"], ["help", "--json", "exit-codes"], ["help", "exit-codes", "--json"]],
)
def test_global_options_stand_before_and_after_the_command(arguments: list[str], empty: Shell) -> None:
    rows = empty(*arguments).ok().lines
    assert {row["code"] for row in rows} == {int(code) for code in ExitCode}
    assert {(row["type"], row["schema"]) for row in rows} == {("exit-code", 1)}


def test_the_repository_option_wins_over_the_environment(empty: Shell, tmp_path: Path) -> None:
    for arguments in (["--repo", "/no/such/1", "key", "list"], ["key", "--repo", "/no/such/1", "list"]):
        assert "/no/such/1" in empty(*arguments).ok(ExitCode.NO_REPOSITORY).err
    assert "/no/2" in empty("--repo", "/no/1", "key", "list", "--repo", "/no/2").ok(ExitCode.NO_REPOSITORY).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bakup"], "backup"),
        (["backup", "--exclde", "x", "/"], "--exclude"),
        (["backup"], "PATH"),
        (["backup", "/", "--compression", "brotli"], "zstd"),
        (["backup", "/", "--compression", "zstd:99"], "19"),
        (["backup", "/", "--compression", "none:1"], "no level"),
        (["backup", "/", "--memory", "1 parsec"], "unit"),
        (["backup", "/", "--memory", "1M"], "too small"),
        (["backup", "/", "--lanes", "0"], "lanes"),
        (["backup", "/no/such/path"], "/no/such/path"),
        (["backup", ""], "empty path"),
        (["backup", "/", "--tag", "a\nb"], "tag"),
        (["backup", "/", "--exclude-file", "/no/such/file"], "/no/such/file"),
        (["restore", "latest"], "--target"),
        (["restore", "latest", "--target", "/"], "--in-place"),
        (["restore", "latest", "--target", "x", "--in-place"], "where"),
        (["restore", "latest", "--target", "x", "../etc"], ".."),
        (["help", "nonsense"], "exit-codes"),
        (["completion", "tcsh"], "zsh"),
    ],
)
def test_wrong_command_lines_are_told_in_one_message(arguments: list[str], says: str, empty: Shell) -> None:
    outcome = empty(*arguments).ok(ExitCode.USAGE)
    assert says in outcome.err and outcome.err.startswith("lox: ")
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) <= 2


def test_without_a_repository_the_hint_names_both_ways(empty: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOX_REPOSITORY")
    text = empty("key", "list").ok(ExitCode.USAGE).err
    assert "--repo" in text and "LOX_REPOSITORY" in text


def test_errors_have_four_parts_in_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.Damaged("cannot open", subject="packs/\x1b[31m", why="bad\nseal", hint="run lox check")
    assert trouble.report(error, Settings()) == ExitCode.DAMAGE_FOUND
    assert capsys.readouterr().err == "lox: cannot open: packs/\\x1b[31m: bad\\nseal\nHint: run lox check\n"
    trouble.report(error, Settings(json=True))
    fields = json.loads(capsys.readouterr().err)
    assert fields["type"] == "error" and fields["exit_code"] == 15
    assert (fields["what"], fields["why"], fields["hint"]) == ("cannot open", "bad\\nseal", "run lox check")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (MemoryError(), ExitCode.FAILURE, "memory"),
        (OSError(28, "No space left on device", b"/x/\xff"), ExitCode.STORE_FULL, "/x/\\xff: no space left"),
        (ValueError("odd\x07"), ExitCode.FAILURE, "internal error: ValueError: odd\\x07"),
        (AssertionError(), ExitCode.FAILURE, "--debug"),
    ],
)
def test_any_exception_becomes_one_message(
    error: BaseException, code: ExitCode, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trouble.report(error, Settings()) == code
    text = capsys.readouterr().err
    assert says in text and "Traceback" not in text


def test_tracebacks_are_shown_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("seen")
    except ValueError as error:
        trouble.report(error, Settings(debug=True))
    assert "Traceback" in capsys.readouterr().err


def test_arguments_that_are_not_utf8_are_kept(empty: Shell) -> None:
    done = spawn("backup", b"/no/such/\xff", env={"LOX_REPOSITORY": "/no/such"})
    assert done.returncode == ExitCode.USAGE
    assert "/no/such/\\xff" in done.stderr


def test_compression_levels_are_those_of_the_codecs() -> None:
    from repository import codecs

    for name, bounds in types.CODEC_LEVELS.items():
        lowest, _, highest = codecs.LEVELS[codecs.by_name(name)[0]]
        assert bounds == ((lowest, highest) if name != "none" else None)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell: str, empty: Shell) -> None:
    script = empty("completion", shell).ok().out
    assert "_LOX_COMPLETE" in script and "lox" in script


def test_completion_completes_commands_and_options() -> None:
    words = {"COMP_WORDS": "lox ba", "COMP_CWORD": "1", "_LOX_COMPLETE": "bash_complete"}
    assert "plain,backup" in spawn(env=words).stdout.split()
    words = {"COMP_WORDS": "lox backup --exec", "COMP_CWORD": "2", "_LOX_COMPLETE": "bash_complete"}
    assert "plain,--executor" in spawn(env=words).stdout.split()


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m lox help exit-codes --json | true; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ascii_terminals_get_escapes_instead_of_a_crash(tmp_path: Path) -> None:
    done = spawn("backup", "/no/such/ü", env={"PYTHONIOENCODING": "ascii", "LOX_REPOSITORY": str(tmp_path)})
    assert done.returncode == ExitCode.USAGE and "\\xfc" in done.stderr


def test_importing_the_public_package_is_light() -> None:
    code = "import lox, sys; print(any(name in sys.modules for name in ('numpy', 'pyarrow', 'click', 'repository')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"
    assert os.path.exists(ROOT / "lox" / "__init__.py")


def test_a_low_limit_of_open_files_is_raised() -> None:
    """The soft one, which a login shell sets for programs of another time; many lanes need more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert main(["version"]) == 0
        raised, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert raised == min(hard, 65_536)


def test_shipped_files_are_listed_and_printed(empty: Shell) -> None:
    """What a package manager's user has no other way to find."""
    listed = empty.json("help", "files")
    names = {row["name"] for row in listed}
    assert names >= {
        "systemd/lox-agent.service",
        "prometheus/lox-alerts.yml",
        "grafana/fleet.json",
        "agent/config.yaml",
    }
    for row in listed:
        assert empty("help", row["name"]).ok().out == Path(row["path"]).read_text()
    assert "lox help files" in empty("help", "systemd/nonsense").ok(ExitCode.USAGE).err
    assert "lox help files" in empty("help", "../pyproject.toml").ok(ExitCode.USAGE).err
