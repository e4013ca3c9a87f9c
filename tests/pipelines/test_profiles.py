"""What may stand in a profile, what is said about what may not, and which of several values holds."""

from __future__ import annotations

import json
import os
import pickle
import threading
from pathlib import Path

import jsonschema
import pytest
import yaml

from model.chunking import KIB, MIB
from model.errors import ConfigError, InvalidProfile, UsageError
from pipelines import profile_keys as keys
from pipelines.profile import DEFAULT, Profile, chunker_of, engine_of, load, request_fields
from pipelines.profile_advice import advice
from pipelines.profile_check import check_profile, check_setting
from pipelines.profile_faults import SIZE_MAX
from pipelines.profile_files import every
from pipelines.profile_schema import reference_markdown, schema
from pipelines.profile_write import profile_text, schema_path
from tests.packaging.project import ROOT

SHIPPED = sorted((ROOT / "configs" / "pipelines").glob("*.yaml"))
NAMES = {"default", "small-host", "fileserver-large", "many-small-files", "slow-wan", "low-memory", "database-stream",
         "block-image", "debug-unfused"}  # fmt: skip

GOOD = [
    "version: 1",
    "version: 1\nexecutor: {kind: ray, lanes: 3, memory: 1.5GiB, nice: 0, io_class: idle}",
    "version: 1\nstages:\n  read: {lanes: auto}\n  upload: {lanes: 8, queue: {items: 4, bytes: 64MiB}}",
    "version: 1\nstrands: {cut: [read, upload]}",
    "version: 1\nstrands: {cut: all}",
    "version: 1\nlimits: {upload: '08:00-18:00 50Mbit, 200Mbit', download: '@/etc/limit'}",
    "version: 1\nplacement: {read: {disk: ssd, rack: r-1}}",
    "version: 1\nchunker: {kind: fixed, average: 1MiB}\non_error: {unreadable_file: fail}",
    "version: 1\nstages: {compress: {codec: gzip, level: 9}}",
    "version: 1\nexecutor: {memory: '512MiB'}",
]
# What is wrong, where (line, column), the code, and what reason or hint must say.
BAD = [
    ("version: 1\nexecutr: {lanes: 2}", 2, 1, "unknown-key", "did you mean 'executor'"),
    ("version: 1\nstages:\n  compress:\n    leval: 3", 4, 5, "unknown-key", "did you mean 'level'"),
    ("version: 1\nstages:\n  chnk: {lanes: 2}", 3, 3, "unknown-key", "did you mean 'chunk'"),
    ("version: 1\nexecutor: {lanes: 2, lanes: 3}", 2, 22, "duplicate-key", "line 2"),
    ("version: 1\non: {}", 2, 1, "ambiguous", "truth value"),
    ("version: 1\nexecutor: {lanes: yes}", 2, 19, "ambiguous", "truth value"),
    ("version: 1\nlimits: {upload: 12:30}", 2, 18, "ambiguous", "base 60"),
    ("version: 1\nexecutor: {lanes: 0x10}", 2, 19, "ambiguous", "decimal"),
    ("version: 1\nexecutor: {lanes: 010}", 2, 19, "ambiguous", "decimal"),
    ("version: 1\ndescription: 2026-01-01", 2, 14, "ambiguous", "date"),
    ("version: 1\nexecutor: {lanes: }", 2, 18, "ambiguous", "nothing"),
    ("version: 1\nexecutor: {lanes: 1.5}", 2, 19, "ambiguous", "whole number"),
    ("version: 1\nexecutor: {lanes: 0}", 2, 19, "range", "1 to 1024"),
    ("version: 1\nexecutor: {lanes: many}", 2, 19, "type", "or auto"),
    ("version: 1\nexecutor: {memory: 512}", 2, 20, "unit", "512MiB"),
    ("version: 1\nexecutor: {memory: 3 parsecs}", 2, 20, "type", "unit of size"),
    ("version: 1\nexecutor: {memory: 64MiB}", 2, 20, "range", "256MiB"),
    ("version: 1\nexecutor: {kind: thread}", 2, 18, "choice", "did you mean 'threads'"),
    ("version: 1\nexecutor: 3", 2, 11, "type", "is a section"),
    ("version: 1\nexecutor: {lanes: [1]}", 2, 19, "type", "takes a value"),
    ("version: 1\nstrands: {cut: [uplaod]}", 2, 16, "choice", "did you mean 'upload'"),
    ("version: 1\nchunker: {average: 100KiB}", 2, 20, "range", "power of two"),
    ("version: 1\nplacement: {read: {disk: 'a b'}}", 2, 19, "type", "not a label"),
    ("version: 2", 1, 10, "range", "write 1"),
    ("version: 1\nexecutor:\n\tlanes: 1", 3, 1, "syntax", "indent with spaces"),
    ("executor: {lanes: 1}", 1, 1, "missing", "version: 1"),
    ("version: 1\nexecutor: &x {lanes: 1}", 2, 11, "alias", "anchors"),
    ("version: 1\nexecutor: *x", 2, 11, "alias", "aliases"),
    ("version: 1\nexecutor: !!python/object/apply:os.system {lanes: 1}", 2, 11, "tag", "tags"),
    ("version: 1\n<<: {executor: {lanes: 1}}", 2, 1, "ambiguous", "extends"),
    ("version: 1\n---\nversion: 1", 2, 1, "syntax", "second document"),
    ("version: 1\npassword: hunter2", 2, 1, "secret", "no secrets"),
    ("version: 1\nlimits: {access_token: x}", 2, 10, "secret", "no secrets"),
    ("version: 1\ndescription: see s3://me:pw@host/x", 2, 14, "secret", "URL with a password"),
    ("version: 1\nexecutor: {lanes: 1", 2, 20, "syntax", "expected"),
    ("- version", 1, 1, "type", "keys and values"),
    ("", 1, 1, "empty", "empty"),
    ("version: 1\nexecutor: [[[[[[[[1]]]]]]]]", 2, 18, "too-deep", "levels"),
]  # fmt: skip
# What a JSON Schema cannot say: it counts bytes as text, and does not know which level belongs to which codec.
BEYOND_SCHEMA = {"range", "secret", "unit", "syntax", "missing", "alias", "ambiguous", "tag", "duplicate-key"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles of one's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "lox" / "pipelines"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("text", GOOD)
def test_good_profiles_are_taken(text: str) -> None:
    values, faults = check_profile(text.encode(), "p.yaml")
    assert faults == [] and values["version"].value == 1


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "says"), BAD, ids=[f"{row[3]}-{row[0][-16:]}" for row in BAD]
)
def test_every_fault_has_a_place_a_reason_and_a_way_out(
    text: str, line: int, column: int, code: str, says: str
) -> None:
    _, faults = check_profile(text.encode(), "p.yaml")
    fault = faults[0]
    assert (fault.place.line, fault.place.column, fault.code) == (line, column, code)
    assert says in f"{fault.reason} {fault.hint}"
    assert str(fault.place) == f"p.yaml:{line}:{column}"


@pytest.mark.parametrize(
    "setting", ["executor.password=hunter2", "aws.secret_access_key=hunter2", "limits.upload=https://me:hunter2@host/"]
)
def test_a_secret_on_the_command_line_is_refused_as_such_and_not_repeated(setting: str) -> None:
    values, faults = check_setting(setting)
    assert values == {} and [fault.code for fault in faults] == ["secret"]
    told = f"{faults[0].place} {faults[0].reason} {faults[0].hint}"
    assert "no secrets" in told and "lox help environment" in told and "hunter2" not in told


def test_all_faults_are_told_at_once() -> None:
    text = "version: 1\nexecutor: {lanes: 0, memroy: 1GiB}\nlimits: {upload: fast}"
    _, faults = check_profile(text.encode(), "p.yaml")
    assert [fault.code for fault in faults] == ["range", "unknown-key", "type"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"version: 1 #" + b"x" * SIZE_MAX, "too-large"),
        (b"version: \xff", "syntax"),
        (b"version: \x07", "syntax"),
        (b"[" * 60_000, "too-deep"),
        (b"a: &a [x]\n" + b"".join(b"b%d: [*a,*a,*a,*a]\n" % number for number in range(3000)), "alias"),
    ],
)
def test_hostile_texts_are_refused(data: bytes, code: str) -> None:
    values, faults = check_profile(data, "p.yaml")
    assert code in {fault.code for fault in faults} and "executor.lanes" not in values


# ---- which value holds


def test_what_is_said_later_wins_and_its_place_is_known(mine: Path) -> None:
    write(mine, "base", "version: 1\nexecutor: {lanes: 2, memory: 1GiB}\nstages: {compress: {level: 5}}")
    top = write(mine, "top", "version: 1\nextends: base\nstages:\n  compress: {level: 7}\n  upload: {lanes: 4}")
    options = {keys.MEMORY.path: (768 * MIB, "--memory")}
    profile = load("top", ["executor.nice=3"], options)
    assert (profile[keys.LANES], profile[keys.LEVEL], profile[keys.MEMORY], profile[keys.NICE]) == (2, 7, 768 * MIB, 3)
    assert profile[keys.lanes_of("upload")] == 4 and profile[keys.lanes_of("read")] is None
    assert str(profile.origin(keys.LEVEL)) == f"{top}:4:21"
    assert str(profile.origin(keys.LANES)) == f"{mine / 'base.yaml'}:2:19"
    assert str(profile.origin(keys.MEMORY)) == "--memory"
    assert str(profile.origin(keys.NICE)) == "--set executor.nice=3"
    assert profile.origin(keys.CODEC) == DEFAULT
    assert [file.name for file in profile.files] == ["top", "base"]
    assert load("top", ["executor.memory=2GiB"], options)[keys.MEMORY] == 2048 * MIB


def test_auto_undoes_what_an_extended_profile_says(mine: Path) -> None:
    write(mine, "base", "version: 1\nexecutor: {lanes: 2}")
    write(mine, "top", "version: 1\nextends: base\nexecutor: {lanes: auto}")
    assert load("top")[keys.LANES] is None
    assert load("base", ["executor.lanes=auto"])[keys.LANES] is None


def test_profiles_that_extend_each_other_are_an_error(mine: Path) -> None:
    write(mine, "one", "version: 1\nextends: two")
    write(mine, "two", "version: 1\nextends: ./three.yaml")
    path = write(mine, "three", "version: 1\nextends: one")
    with pytest.raises(InvalidProfile, match="one → two → three → one") as caught:
        load("one")
    assert caught.value.subject == f"{path}:2:10"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.faults, str(again)) == (caught.value.faults, str(caught.value))


def test_a_profile_that_is_not_there_is_told_with_the_nearest_name(mine: Path) -> None:
    with pytest.raises(ConfigError, match="no such profile: slow-wam") as caught:
        load("slow-wam")
    assert "slow-wan" in caught.value.hint
    with pytest.raises(ConfigError, match="no such profile"):
        load(str(mine / "nowhere.yaml"))
    with pytest.raises(ConfigError, match="this is a folder"):
        load(f"{mine}/")
    path = write(mine, "top", "version: 1\nextends: nobody")
    with pytest.raises(InvalidProfile) as wrong:
        load("top")
    assert wrong.value.subject == f"{path}:2:10"


def test_a_profile_may_come_out_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("version: 1\nexecutor: {lanes: 3}",))
    writer.start()
    assert load(str(tmp_path / "pipe")).required(keys.LANES) == 3
    writer.join()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stages.compress.level", "no value"),
        ("stages.compres.level=9", "stages.compress.level"),
        ("level=9", "stages.compress.level"),
        ("stages.compress.level=99", "out of range"),
        ("executor.memory=512", "no unit"),
        ("strands.cut=[uplaod]", "upload"),
        ("extends=low-memory", "--profile"),
    ],
)
def test_settings_that_make_no_sense_are_told(text: str, says: str) -> None:
    with pytest.raises(InvalidProfile) as caught:
        load(None, [text])
    assert says in f"{caught.value} {caught.value.hint}" and "--set" in caught.value.subject


def test_settings_take_lists_and_mappings() -> None:
    profile = load(None, ["strands.cut=upload,hash", "placement.read={disk: ssd}", "limits.upload=@/etc/limit"])
    assert profile[keys.CUT] == ("hash", "upload")
    assert profile[keys.placement_of("read")] == {"disk": "ssd"}
    assert load(None, ["strands.cut=[read]"])[keys.CUT] == ("read",)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["stages.compress.codec=gzip", "stages.compress.level=12"], "gzip"),
        (["stages.compress.codec=none", "stages.compress.level=0"], "none"),
        (["chunker.minimum=1MiB", "chunker.average=64KiB"], "out of order"),
    ],
)
def test_values_must_fit_together(sets: list[str], says: str) -> None:
    with pytest.raises(InvalidProfile, match=says):
        load(None, sets)


def test_a_profile_comes_to_options_requests_and_chunkers() -> None:
    sets = ["executor.kind=inline", "stages.read.lanes=1", "stages.read.queue.items=3", "strands.cut=[upload]"]
    with pytest.raises(InvalidProfile):  # nothing waits before the first stage
        load(None, sets)
    del sets[2]
    more = ["stages.upload.queue.bytes=1MiB", "stages.scan.batch.items=100", "stages.scan.threads=0"]
    profile = load("database-stream", [*sets, *more])
    engine = engine_of(profile)
    assert (engine.executor, engine.stage("read").lanes, set(engine.cuts)) == ("inline", 1, {"upload"})
    assert engine.stage("upload").queue.nbytes == MIB
    assert (engine.batch_rows, engine.scan_threads, engine.segment_bytes) == (100, 0, 8 * MIB)
    assert request_fields(profile)["changed_while_reading"] == "fail"
    cut = chunker_of(load("block-image"))
    assert (cut.kind, cut.average) == ("fixed", 256 * KIB)
    with pytest.raises(UsageError):
        engine_of(Profile().with_values({keys.LANES.path: 5000}, "a program"))


# ---- what warns


def reasons(*sets: str, environment: bool = True) -> list[str]:
    return [f"{fault.code}: {fault.reason}" for fault in advice(load(None, sets), environment)]


def test_what_does_nothing_or_does_not_fit_is_warned_about(tmp_path: Path) -> None:
    assert reasons() == []
    assert "shares a lane" in reasons("stages.hash.queue.items=3", environment=False)[0]
    assert reasons("stages.hash.queue.items=3", "strands.cut=[hash]", environment=False) == []
    assert "all stages run on this host" in reasons("placement.read={a: b}", environment=False)[0]
    assert any("add up to" in reason for reason in reasons("executor.lanes=64"))
    assert any("no such file" in reason for reason in reasons(f"limits.upload=@{tmp_path}/none"))
    assert any("this host has" in reason for reason in reasons("executor.memory=2TiB"))


# ---- what is shipped


def test_the_shipped_profiles_are_these() -> None:
    assert {path.stem for path in SHIPPED} == NAMES
    assert {file.name for file in every() if file.place == "shipped"} == NAMES


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_profiles_are_valid_and_say_so_to_editors(path: Path) -> None:
    profile = load(str(path))
    assert profile.description
    assert advice(profile, environment=False) == []
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../pipeline.schema.json"
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(schema()))


def test_the_default_profile_says_just_what_holds_without_one() -> None:
    default, nothing = load("default"), load(None)
    differing = [key.path for key in keys.KEYS.values() if key.path not in keys.ABOUT and default[key] != nothing[key]]
    assert differing == []


# ---- one source of truth


def test_the_schema_is_sound_and_the_shipped_one_is_this_one() -> None:
    document = json.loads(schema())
    jsonschema.Draft202012Validator.check_schema(document)
    assert Path(schema_path()).read_text() == schema() + "\n"


@pytest.mark.parametrize("text", GOOD)
def test_schema_and_loader_agree_on_what_is_good(text: str) -> None:
    jsonschema.validate(yaml.safe_load(text), json.loads(schema()))


@pytest.mark.parametrize("text", [row[0] for row in BAD if row[3] not in BEYOND_SCHEMA and row[3] != "too-deep"])
def test_schema_and_loader_agree_on_what_is_bad(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json.loads(schema()))


def test_the_reference_in_the_documentation_is_that_of_the_table() -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text()
    told = page.partition("<!-- keys: begin -->\n")[2].partition("<!-- keys: end -->")[0]
    assert told == reference_markdown()


def test_a_written_profile_says_what_it_was_made_of(mine: Path) -> None:
    changes = {
        keys.LANES.path: 3,
        keys.MEMORY.path: 768 * MIB,
        keys.LEVEL.path: None,
        keys.UPLOAD_LIMIT.path: "@/etc/limit: x",
        keys.CUT.path: ("upload",),
        keys.queue_bytes_of("upload").path: MIB,
        keys.placement_of("read").path: {"disk": "ssd"},
        keys.lanes_of("upload").path: 2,
    }
    write(mine, "made", profile_text("slow-wan", changes, "yes: 'made' #1"))
    profile = load("made")
    assert profile.description == "yes: 'made' #1"
    assert {path: profile.values[path].value for path in changes} == changes
