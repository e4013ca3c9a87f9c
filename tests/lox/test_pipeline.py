"""``lox pipeline`` and what --profile and --set do to commands."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lox.commands import pipeline
from model.exits import ExitCode
from tests.lox.running import Shell


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles of one's own, and no wishes in the environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("LOX_PROFILE", "LOX_LIMIT_UPLOAD", "LOX_LIMIT_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "config" / "lox" / "pipelines"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(20):
        (root / f"file{number}").write_bytes(b"the same words again and again, %d\n" % number * 400)
    return root


def test_every_subcommand_has_help_that_says_what_the_list_says(empty: Shell) -> None:
    listing = " ".join(empty("pipeline", "--help").ok().out.split())
    for name, about in pipeline.COMMANDS.items():
        text = empty("pipeline", name, "--help").ok().out
        assert about in listing and " ".join(about.split()) in " ".join(text.split()), name
    assert "did you mean" in empty("pipeline", "valdate").ok(ExitCode.USAGE).err


def test_profiles_are_listed_with_what_is_wrong_with_them(mine: Path, empty: Shell) -> None:
    (mine / "bad.yaml").write_text("version: 1\nlanes: 3\n")
    (mine / "slow-wan.yaml").write_text("version: 1\ndescription: ours\nextends: default\n")
    rows = {row["name"]: row for row in empty.json("pipeline", "list")}
    assert rows["slow-wan"]["place"] == "yours" and rows["slow-wan"]["description"] == "ours"
    assert rows["default"]["place"] == "shipped"
    assert "bad.yaml:2:1" in rows["bad"]["description"]
    assert "low-memory" in empty("pipeline", "list").ok().out


def test_values_are_shown_with_where_they_come_from(empty: Shell) -> None:
    assert "cut: [upload]" in empty("pipeline", "show", "slow-wan").ok().out
    text = empty("pipeline", "show", "slow-wan", "--resolved", "--set", "executor.nice=7").ok().out
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "slow-wan.yaml:14:12" in lines["stages.compress.level"] and "--set" in lines["executor.nice"]
    assert lines["chunker.kind"].split()[1] == "gear"
    values = {row["key"]: row for row in empty.json("pipeline", "show", "slow-wan")}
    assert values["stages.upload.queue.bytes"]["value"] == 64 << 20
    assert values["stages.hash.lanes"]["origin"] == "default"


def test_validate_tells_faults_as_text_and_json(mine: Path, empty: Shell) -> None:
    bad = mine / "bad.yaml"
    bad.write_text("version: 1\nexecutor:\n  lanes: yes\n  memroy: 1GiB\n")
    outcome = empty("pipeline", "validate", str(bad), "slow-wan").ok(ExitCode.INVALID_CONFIGURATION)
    assert f"{bad}:3:10: error: yes is a truth value" in outcome.out
    assert (
        f"{bad}:4:3: error: no such key in executor: 'memroy' [unknown-key]\n    did you mean 'memory'?" in outcome.out
    )
    assert "slow-wan: valid" in outcome.out
    listed = json.loads(empty("pipeline", "validate", str(bad), "-o", "json").ok(ExitCode.INVALID_CONFIGURATION).out)
    assert [(row["line"], row["column"], row["code"]) for row in listed] == [
        (3, 10, "ambiguous"),
        (4, 3, "unknown-key"),
    ]
    assert listed[1]["hint"] == "did you mean 'memory'?" and listed[1]["file"] == str(bad)
    *faults, summary = empty.json("pipeline", "validate", str(bad), code=ExitCode.INVALID_CONFIGURATION)
    assert len(faults) == summary["faults"] == 2


def test_warnings_are_denied_on_request_and_the_host_is_left_out(mine: Path, empty: Shell) -> None:
    (mine / "odd.yaml").write_text("version: 1\nstages: {hash: {queue: {items: 2}}}\n")
    (mine / "huge.yaml").write_text("version: 1\nexecutor: {memory: 3TiB}\n")
    assert "warning" in empty("pipeline", "validate", "odd").ok().out
    empty("pipeline", "validate", "odd", "--deny-warnings").ok(ExitCode.INVALID_CONFIGURATION)
    empty("pipeline", "validate", "huge", "--deny-warnings").ok(ExitCode.INVALID_CONFIGURATION)
    empty("pipeline", "validate", "huge", "--deny-warnings", "--no-environment").ok()


@pytest.mark.parametrize(("option", "stage"), [("", "chunk"), ("--restore", "join"), ("--copy", "repack")])
def test_graphs_are_drawn_in_every_format(option: str, stage: str, empty: Shell) -> None:
    command = ["pipeline", "graph", "debug-unfused", *option.split(), "--lanes", "3"]
    assert f"{stage}, 3 lanes, at most" in empty(*command).ok().out
    assert empty(*command, "--format", "mermaid").ok().out.startswith("flowchart")
    assert empty(*command, "--format", "dot").ok().out.startswith("digraph")
    drawn = ElementTree.fromstring(empty(*command, "--format", "svg").ok().out)
    assert stage in {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    plan = json.loads(empty(*command, "--format", "json").ok().out)
    (line,) = empty.json(*command)
    assert line["strands"] == plan["strands"] and plan["strands"][0]["lanes"] == 3
    assert stage in {strand["name"] for strand in plan["strands"]}


def test_differences_are_shown(empty: Shell) -> None:
    rows = {row["key"]: (row["a"], row["b"]) for row in empty.json("pipeline", "diff", "default", "slow-wan")}
    assert rows["stages.compress.level"] == ("auto", "9") and "executor.kind" not in rows
    assert "[upload]" in empty("pipeline", "diff", "default", "slow-wan").ok().out
    assert "no differences" in empty("pipeline", "diff", "default", "default").ok().err


def test_the_schema_is_printed(empty: Shell) -> None:
    assert json.loads(empty("pipeline", "schema").ok().out)["required"] == ["version"]


def test_a_new_profile_is_made_checked_and_never_overwritten(mine: Path, empty: Shell, tmp_path: Path) -> None:
    new = ["pipeline", "new", "night", "--from", "slow-wan", "--set", "executor.nice=19", "--description", "at night"]
    empty(*new).ok()
    text = (mine / "night.yaml").read_text()
    assert text.splitlines()[0].startswith("# yaml-language-server: $schema=/")
    values = {row["key"]: row["value"] for row in empty.json("pipeline", "show", "night")}
    assert values["executor.nice"] == 19 and values["stages.compress.level"] == 9
    empty("pipeline", "validate", "night", "--deny-warnings").ok()
    assert "already" in empty(*new).ok(ExitCode.INVALID_CONFIGURATION).err
    assert (mine / "night.yaml").read_text() == text
    empty("pipeline", "new", tmp_path / "apart").ok()  # a file, because it has a slash
    assert (tmp_path / "apart").read_text().startswith("# yaml")
    assert "not a name" in empty("pipeline", "new", "x y").ok(ExitCode.USAGE).err


def test_help_explains_every_key(empty: Shell) -> None:
    text = empty("help", "configuration").ok().out
    assert "stages.STAGE.lanes" in text and "stages.compress.level" in text
    assert {row["path"] for row in empty.json("help", "configuration")} >= {"executor.memory", "placement.STAGE"}


# ---- in commands


def codecs(shell: Shell) -> set[int]:
    from repository.index import ChunkIndex
    from repository.repository import Repository
    from repository.store import LocalStore
    from tests.lox.running import PASSWORD

    index = ChunkIndex.load(Repository.open(LocalStore(str(shell.repository)), PASSWORD), None)
    return set(index.segments.codec.tolist())


def test_options_win_over_profiles_and_settings_over_both(shell: Shell, tree: Path) -> None:
    from repository.codecs import Codec

    shell("backup", tree, "--profile", "slow-wan", "--compression", "lz4", "--mode", "full").ok()
    assert Codec.LZ4 in codecs(shell) and Codec.GZIP not in codecs(shell)
    (tree / "more").write_bytes(b"other words, quite a few of them\n" * 900)
    shell("backup", tree, "--compression", "lz4", "--set", "stages.compress.codec=gzip").ok()
    assert Codec.GZIP in codecs(shell)


def test_the_profile_comes_from_the_environment_too(
    shell: Shell, tree: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine / "ours.yaml").write_text("version: 1\nstages: {compress: {codec: none}}\n")
    monkeypatch.setenv("LOX_PROFILE", "ours")
    shell("backup", tree).ok()
    text = shell("pipeline", "graph", "--lanes", "2").ok().out
    assert "2 lanes" in text
    monkeypatch.setenv("LOX_PROFILE", "nobodys")
    assert "nobodys" in shell("backup", tree).ok(ExitCode.INVALID_CONFIGURATION).err


def test_an_invalid_profile_ends_a_command_before_anything_is_done(shell: Shell, tree: Path, mine: Path) -> None:
    bad = mine / "bad.yaml"
    bad.write_text("version: 1\nexecutor: {lanes: 0}\n")
    before = sorted(shell.repository.rglob("*"))
    outcome = shell("backup", tree, "--profile", "bad").ok(ExitCode.INVALID_CONFIGURATION)
    assert f"{bad}:2:19" in outcome.err and "Hint: write a number" in outcome.err
    assert sorted(shell.repository.rglob("*")) == before
    assert shell("restore", "latest", "-t", tree, "--set", "executor.kind=x").ok(ExitCode.INVALID_CONFIGURATION).err
    named_twice = shell("pipeline", "graph", "default", "--profile", "default").ok(ExitCode.USAGE)
    assert "twice" in named_twice.err


def test_a_restore_takes_a_profile(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree, "--profile", "low-memory").ok()
    shell("restore", "latest", "--target", tmp_path / "out", "--profile", "debug-unfused").ok()
    assert (tmp_path / "out" / os.fspath(tree)[1:] / "file3").read_bytes() == (tree / "file3").read_bytes()


def test_init_takes_the_chunker_of_a_profile(empty: Shell) -> None:
    (summary,) = empty.json("init", "--profile", "block-image")
    assert summary["chunk_average"] == 256 << 10
    from repository.repository import Repository
    from repository.store import LocalStore
    from tests.lox.running import PASSWORD

    assert Repository.open(LocalStore(str(empty.repository)), PASSWORD).chunker.kind == "fixed"


def test_a_run_gives_way_as_the_profile_says(shell: Shell, tree: Path) -> None:
    """In a process of its own: what gives way once does so for good."""
    import psutil

    code = (
        "import os, sys, psutil\n"
        "from lox.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, os.getpriority(os.PRIO_PROCESS, 0), int(psutil.Process().ionice().ioclass))\n"
    )
    import subprocess
    import sys

    command = [sys.executable, "-c", code, "backup", "-qq", str(tree), "--profile", "small-host"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, nice, io_class = done.stdout.splitlines()[-1].split()
    assert (status, nice, io_class) == ("0", "10", str(int(psutil.IOPRIO_CLASS_IDLE)))
