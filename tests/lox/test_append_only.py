"""Credentials that add and take nothing away: docs/append-only.md, with the policies and scripts that stand there."""

from __future__ import annotations

import getpass
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lox.running import PASSWORD, ROOT, Shell
from tests.repository.servers import BUCKET, s3_server, sftp_server

TEXT = (ROOT / "docs" / "append-only.md").read_text()
ADMIN = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
OWNER = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
NEEDS_DELETE = [
    ("forget", "--allow-last", "latest"),
    ("undelete", "--all"),
    ("prune",),
    ("repair", "--apply"),
]


def block(label: str) -> str:
    """What stands in the document below a label."""
    found = re.search(rf"<!-- {re.escape(label)} -->\n```\w*\n(.*?)```", TEXT, re.DOTALL)
    assert found, f"nothing labelled {label}"
    return found[1]


def test_all_that_is_labelled_json_is() -> None:
    labels = re.findall(r"<!-- (policy: \w+) -->", TEXT)
    assert len(labels) == len(re.findall("```json", TEXT)) == 4
    for label in labels:
        assert json.loads(block(label))


@pytest.mark.parametrize("policy", ["agent", "maintenance"])
def test_the_policies_are_what_the_text_says(policy: str) -> None:
    document = json.loads(block(f"policy: {policy}"))
    allowed: set[str] = set()
    for statement in document["Statement"]:
        actions = statement["Action"]
        if statement["Effect"] == "Allow":
            allowed |= {actions} if isinstance(actions, str) else set(actions)
    assert {"s3:PutObject", "s3:GetObject", "s3:ListBucket"} <= allowed
    assert ("s3:DeleteObject" in allowed) == (policy == "maintenance")
    assert not allowed & {"s3:*", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"}


@dataclass(slots=True)
class Cloud:
    """An S3 server that checks signatures and policies, and its users."""

    environment: dict[str, str]
    conditional: set[str]  # access keys whose puts must refuse to overwrite
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)

    def client(self, service: str, **credentials: str) -> Any:
        import boto3

        return boto3.client(service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], **(ADMIN | credentials))

    def user(self, name: str, policy: dict[str, Any]) -> None:
        iam = self.client("iam")
        user = f"{name}-{os.urandom(4).hex()}"  # the server remembers those of other tests
        iam.create_user(UserName=user)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        iam.put_user_policy(UserName=user, PolicyName="it", PolicyDocument=json.dumps(policy))
        self.keys[name] = key["AccessKeyId"], key["SecretAccessKey"]
        if any("s3:if-none-match" in each.get("Condition", {}).get("Null", {}) for each in policy["Statement"]):
            self.conditional.add(key["AccessKeyId"])

    def as_user(self, name: str, patch: pytest.MonkeyPatch) -> None:
        """From now on requests are those of this user."""
        access, secret = self.keys[name]
        for key, value in self.environment.items():
            patch.setenv(key, value)
        patch.setenv("AWS_ACCESS_KEY_ID", access)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    def owner(self) -> Any:
        access, secret = self.keys["owner"]
        return self.client("s3", aws_access_key_id=access, aws_secret_access_key=secret)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    conditional: set[str] = set()

    def lets(request: dict[str, Any]) -> bool:
        """The condition of the policy, which moto does not know."""
        key = request.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        is_put = request["REQUEST_METHOD"] == "PUT" and request["PATH_INFO"].count("/") > 1
        return not (is_put and key in conditional) or "HTTP_IF_NONE_MATCH" in request

    with s3_server(lets=lets) as environment:
        cloud = Cloud(environment, conditional)
        cloud.user("agent", json.loads(block("policy: agent")))
        maintenance = json.loads(block("policy: maintenance"))
        # Of a list of names to delete Amazon's looks at each name, moto at the bucket.
        listed = {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{BUCKET}"}
        maintenance["Statement"].append(listed)
        cloud.user("maintenance", maintenance)
        cloud.user("owner", OWNER)
        from moto import settings

        monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        yield cloud


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root, dice = tmp_path / "tree", random.Random(7)
    root.mkdir()
    for number in range(12):
        (root / f"file{number}").write_bytes(dice.randbytes(40_000))
    return root


def look(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def restored(shell: Shell, folder: Path, snapshot: str = "latest") -> dict[str, bytes]:
    shell("restore", snapshot, "--target", folder).ok()
    return look(folder)


def works_without_deleting(shell: Shell, tree: Path, tmp_path: Path) -> str:
    """All that agents do; the first snapshot. And that what they must not do says so and changes nothing."""
    shell("init").ok()
    first = str(shell.json("backup", tree)[-1]["snapshot"])
    (tree / "more").write_bytes(os.urandom(30_000))
    shell("backup", tree).ok()
    assert restored(shell, tmp_path / "back") == look(tree)
    shell("tag", "latest", "--add", "kept").ok()
    shell("check", "--read-data").ok()
    shell("key", "rotate").ok()
    for arguments in NEEDS_DELETE:
        done = shell(*arguments).ok(1)
        assert "has to delete" in done.err and "docs/append-only.md" in done.err, arguments
    shell("key", "recovery-kit", "--output", tmp_path / "kit").ok()
    recovery = next(line["id"] for line in shell.json("key", "list") if line["kind"] == "recovery")
    assert "still opens" in shell("key", "remove", recovery).ok(1).err
    assert {line["id"] for line in shell.json("snapshots")} >= {first}
    assert restored(shell, tmp_path / "again") == look(tree)
    shell("check", "--read-data").ok()
    return first


def tidied_by_maintenance(shell: Shell, first: str, tree: Path, tmp_path: Path) -> dict[str, Any]:
    """A prune by somebody who may delete finds nobody at work and leaves no session; its summary."""
    shell("forget", first, "--allow-last").ok()
    (line,) = [line for line in shell.json("prune", "--trash", "0d", "--max-unused", "0%") if line["type"] == "summary"]
    assert line["purged"] >= 1 and line["waiting_for"] == [] and line["waiting"] == 0
    assert first not in {each["id"] for each in shell.json("snapshots")}
    shell("check", "--read-data").ok()
    assert restored(shell, tmp_path / "after") == look(tree)
    return dict(line)


def copies_and_mirrors(shell: Shell, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into places from which this user cannot delete either."""
    url, mirror, other = (f"s3://{BUCKET}/{name}" for name in ("folder", "mirror", "copy"))
    summary = shell.json("backup", "--mirror", mirror, tree)[-1]
    assert not summary["mirrors"][0]["behind"]
    shell("store", "sync", url, mirror).ok()
    monkeypatch.setenv("LOX_FROM_PASSWORD", PASSWORD)
    shell("--repo", other, "init", "--copy-chunker-from", url).ok()
    shell("--repo", other, "copy", "--from-repo", url).ok()
    assert len(shell.json("--repo", other, "snapshots")) == len(shell.json("snapshots")) > 1
    for place in (mirror, other):
        shell("--repo", place, "check", "--read-data").ok()


@pytest.mark.slow
def test_an_agent_with_the_policy_of_the_document(
    cloud: Cloud, empty: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/folder"
    monkeypatch.setenv("LOX_REPOSITORY", url)
    cloud.as_user("agent", monkeypatch)
    probed = empty.json("store", "probe", "--quick")
    (told,) = [line["text"] for line in probed if line.get("name") == "delete"]
    assert "refused" in told
    first = works_without_deleting(empty, tree, tmp_path)
    stranger = cloud.client(
        "s3", aws_access_key_id=cloud.keys["agent"][0], aws_secret_access_key=cloud.keys["agent"][1]
    )
    with pytest.raises(Exception, match="AccessDenied"):
        stranger.put_object(Bucket=BUCKET, Key="folder/config", Body=b"mine")
    with pytest.raises(Exception, match="AccessDenied"):
        stranger.delete_object(Bucket=BUCKET, Key="folder/config")
    copies_and_mirrors(empty, tree, monkeypatch)
    cloud.as_user("maintenance", monkeypatch)
    tidied_by_maintenance(empty, first, tree, tmp_path)
    names = [each["Key"] for each in cloud.owner().list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [name for name in names if name.startswith("folder/sessions/")] == []


@pytest.mark.slow
def test_a_bucket_is_brought_back_after_all_of_it_was_deleted(
    cloud: Cloud, empty: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, bucket = cloud.owner(), "locked"
    owner.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    owner.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=json.loads(block("policy: lock")))
    owner.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration=json.loads(block("policy: lifecycle"))
    )
    monkeypatch.setenv("LOX_REPOSITORY", f"s3://{bucket}/folder")
    cloud.as_user("owner", monkeypatch)
    (told,) = [
        each["text"] for each in empty.json("store", "probe", "--quick") if each.get("name") == "deleted objects"
    ]
    assert "older versions" in told and "governance, 30 days" in told and "removed 35 days after" in told
    assert "deleted objects: hidden" in empty("init").ok().err
    first = empty.json("backup", tree)[-1]["snapshot"]
    for file in tree.iterdir():
        file.write_bytes(os.urandom(40_000))
    empty("backup", tree).ok()
    empty("forget", str(first)).ok()
    done = empty("prune", "--trash", "0d", "--max-unused", "0%").ok()
    assert "bucket keeps deleted objects until its lifecycle rule" in done.out and " freed\n" not in done.out
    time.sleep(2.1)  # S3 counts in seconds
    moment = datetime.now(UTC).replace(microsecond=0).isoformat()
    time.sleep(1.1)
    attack(owner, bucket)
    assert "config" in empty("snapshots").ok(15).err
    bring_back(bucket, moment, tmp_path)
    assert restored(empty, tmp_path / "back") == look(tree)
    empty("check", "--read-data").ok()
    empty("backup", tree).ok()
    empty("prune").ok()
    empty("check", "--read-data").ok()


def attack(s3: Any, bucket: str) -> None:
    """Delete all there is, and put something else in the place of the config."""
    names = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    for name in names:
        s3.delete_object(Bucket=bucket, Key=name)
    versions = s3.list_object_versions(Bucket=bucket)["Versions"]
    with pytest.raises(Exception, match="AccessDenied"):
        s3.delete_object(Bucket=bucket, Key=versions[0]["Key"], VersionId=versions[0]["VersionId"])
    s3.put_object(Bucket=bucket, Key="folder/config", Body=b"pay", ChecksumAlgorithm="SHA256")
    s3.delete_object(Bucket=bucket, Key="folder/config")
    s3.put_object(Bucket=bucket, Key="folder/config", Body=b"pay more", ChecksumAlgorithm="SHA256")


def bring_back(bucket: str, moment: str, tmp_path: Path) -> None:
    script = tmp_path / "bring_back.py"
    script.write_text(block("script: bring_back.py"))
    done = subprocess.run(
        [sys.executable, script, bucket, "folder/", moment], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "brought back folder/config" in done.stdout


@pytest.mark.slow
@pytest.mark.root
def test_an_account_of_sftp_that_may_only_add(
    empty: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = re.search(r"ForceCommand (internal-sftp -P \S+)", block("sshd: agents"))
    assert denied
    with sftp_server(tmp_path / "sshd", f"ForceCommand {denied[1]}") as (port, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        folder = tmp_path / "repository"
        monkeypatch.setenv("LOX_REPOSITORY", f"sftp://{getpass.getuser()}@127.0.0.1:{port}{folder}")
        first = works_without_deleting(empty, tree, tmp_path)
        config = (folder / "config").stat()
        assert config.st_mode & 0o777 == 0o400
    monkeypatch.setenv("LOX_REPOSITORY", str(folder))
    line = tidied_by_maintenance(empty, first, tree, tmp_path)
    assert line["deleted"] > 0
    assert not [path for path in (folder / "sessions").rglob("*") if path.is_file()], "second names went as well"
    packs = [path.name for path in (folder / "packs").rglob("*") if path.is_file()]
    assert len([name for name in packs if name.startswith(".tmp-")]) < len(packs) / 2 + 1


def guard(folder: Path) -> None:
    """What the timer of the document does."""
    commands = [line.partition("#")[0] for line in TEXT.splitlines() if line.startswith("find /srv/backup ")]
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command.replace("/srv/backup", str(folder)), shell=True, check=True)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "guarded"
    folder.mkdir()
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+a", folder], check=False).returncode:
        pytest.skip("chattr cannot make a folder append-only here: needs root, and ext4, XFS or btrfs")
    yield folder
    subprocess.run(["chattr", "-R", "-ai", folder], check=True)


@pytest.mark.slow
@pytest.mark.root
def test_a_folder_to_which_names_are_only_added(
    guarded: Path, empty: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOX_REPOSITORY", str(guarded))
    empty("init").ok()
    first = str(empty.json("backup", tree)[-1]["snapshot"])
    guard(guarded)
    (tree / "more").write_bytes(os.urandom(30_000))
    empty("backup", tree).ok()
    guard(guarded)
    assert "has to delete" in empty("forget", first).ok(1).err
    with pytest.raises(PermissionError):
        (guarded / "config").write_bytes(b"mine")
    with pytest.raises(PermissionError):
        (guarded / "snapshots" / first).unlink()
    assert restored(empty, tmp_path / "back") == look(tree)
    empty("check", "--read-data").ok()
    subprocess.run(["chattr", "-R", "-ai", guarded], check=True)
    tidied_by_maintenance(empty, first, tree, tmp_path)
