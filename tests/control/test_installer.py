"""The installer as it is served: cut off anywhere it does nothing, tampered with it refuses, whole it installs."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.installer.manifest import MANIFEST, read_manifest, signing_key, write_manifest
from model.errors import ConfigError
from tests.control import clean_root
from tests.control.clean_root import CleanRoot
from tests.control.servers import Client, RunningServer, lox_server, make_tenant, running
from tests.packaging import project

AGENT = "550e8400-e29b-41d4-a716-446655440000"
TOKEN = "lox_agt_" + 32 * "0" + "_" + 51 * "0"


def wheel(folder: Path, version: str, note: str = "") -> Path:
    """A tiny wheel that is called lox-backup, with what the installer looks for in the real one."""
    head = f"lox_backup-{version}.dist-info"
    files = {
        "lox_agent_stub.py": f"def main(): print('agent {version} {note}')\n",
        "configs/systemd/lox-agent.service": "[Service]\nExecStart=/opt/lox-agent/current/bin/lox-agent run\n",
        f"{head}/METADATA": f"Metadata-Version: 2.1\nName: lox-backup\nVersion: {version}\n",
        f"{head}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{head}/entry_points.txt": "[console_scripts]\nlox-agent = lox_agent_stub:main\nlox = lox_agent_stub:main\n",
    }
    path = folder / f"lox_backup-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{head}/RECORD", "".join(f"{name},,\n" for name in files))
    return path


@pytest.fixture(scope="module")
def offering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that offers a tiny agent."""
    folder = tmp_path_factory.mktemp("offering") / "server"
    (folder / "files").mkdir(parents=True)
    wheel(folder / "files", "1.0")
    lox_server(folder, "wheels", "--sign-only")
    with running(folder) as server:
        yield server


@pytest.fixture(scope="module")
def script(offering: RunningServer) -> str:
    return str(Client(offering).ok("GET", "/agent"))


def bash(script: str, *arguments: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script through a pipe, as curl would bring it."""
    given = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(root), "TMPDIR": str(root.parent), **environment}
    line = ["bash", "-s", "--", *arguments]
    return subprocess.run(line, input=script, env=given, capture_output=True, text=True, check=False, timeout=120)


def install(script: str, root: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root.mkdir(parents=True, exist_ok=True)
    arguments = ["--api-url", "https://127.0.0.1:1", "--agent-uuid", AGENT, "--root", str(root), *more]
    return bash(script, *arguments, root=root, **{"LOX_TOKEN": TOKEN, **environment})


def offline(server: RunningServer, folder: Path) -> Path:
    """A copy of what a server offers."""
    return Path(shutil.copytree(server.data_dir / "files", folder))


def test_cut_off_at_any_line_nothing_runs(script: str, tmp_path: Path) -> None:
    lines = script.splitlines(keepends=True)
    last = "".join(lines[:-1])
    cuts = ["".join(lines[:number]) for number in range(len(lines))]
    cuts += [last + lines[-1][:length] for length in range(len(lines[-1]) - 2)]
    for cut in cuts:
        done = bash(cut, "--help", root=tmp_path)
        assert done.stdout == "", f"after {cut[-40:]!r}"
    assert "usage:" in bash(script, "--help", root=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []


def test_without_arguments_it_says_how(script: str, tmp_path: Path) -> None:
    done = bash(script, root=tmp_path)
    assert done.returncode == 2 and "usage:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--api-url", "http://x"], "https://HOST"),
        (["--agent-uuid", "x"], "not a UUID"),
        (["--token", "secret"], "lox_agt_"),
        (["--version", "9.9"], "offers version 1.0"),
        (["--unknown"], "unknown option"),
    ],
)
def test_wrong_arguments_are_named(script: str, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = install(script, tmp_path / "root", *arguments)
    assert done.returncode == 1 and says in done.stderr
    assert list((tmp_path / "root").iterdir()) == []


def test_a_dry_run_changes_nothing(offering: RunningServer, script: str, tmp_path: Path) -> None:
    done = install(script, tmp_path / "root", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would install version 1.0" in done.stdout
    assert list((tmp_path / "root").iterdir()) == []


def test_what_is_not_as_signed_is_not_installed(offering: RunningServer, script: str, tmp_path: Path) -> None:
    mirror, root = offline(offering, tmp_path / "mirror"), tmp_path / "root"
    listed = (mirror / MANIFEST).read_text()
    (mirror / MANIFEST).write_text(listed.replace("file ", "file 0", 1))
    done = install(script, root, "--offline", str(mirror))
    assert done.returncode == 1 and "not signed by this server" in done.stderr
    (mirror / MANIFEST).write_text(listed)
    stranger = signing_key(tmp_path / "stranger.key")
    write_manifest(mirror, stranger)
    done = install(script, root, "--offline", str(mirror))
    assert done.returncode == 1 and "not signed by this server" in done.stderr
    assert list(root.iterdir()) == []


@pytest.mark.slow
def test_a_wheel_that_was_changed_is_not_installed(offering: RunningServer, script: str, tmp_path: Path) -> None:
    mirror, root = offline(offering, tmp_path / "mirror"), tmp_path / "root"
    wheel(mirror, "1.0", "with a surprise")
    done = install(script, root, "--offline", str(mirror))
    assert done.returncode == 1 and "could not be installed" in done.stderr
    assert not (root / "opt/lox-agent/current").exists() and not (root / "etc").exists()


@pytest.mark.slow
def test_installing_upgrading_and_removing(offering: RunningServer, script: str, tmp_path: Path) -> None:
    root, server = tmp_path / "root", offering
    assert install(script, root).returncode == 0
    config = root / "etc/lox-agent/config.yaml"
    assert f"agent_uuid: {AGENT}" in config.read_text() and TOKEN in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    assert (root / "etc/lox-agent/ca.pem").read_text().strip() == server.ca.read_text().strip()
    assert (root / "etc/systemd/system/lox-agent.service").read_text().startswith("[Service]")
    program = root / "opt/lox-agent/current/bin/lox-agent"
    assert program.read_text().startswith("#!/opt/lox-agent/versions/1.0/bin/python")

    config.write_text("mine: true\n")
    made = os.stat(root / "opt/lox-agent/versions/1.0/bin/python", follow_symlinks=False).st_ctime_ns
    again = install(script, root)
    assert again.returncode == 0 and "is installed" in again.stdout and config.read_text() == "mine: true\n"
    assert os.stat(root / "opt/lox-agent/versions/1.0/bin/python", follow_symlinks=False).st_ctime_ns == made

    shutil.rmtree(server.data_dir / "files")
    (server.data_dir / "files").mkdir()
    wheel(server.data_dir / "files", "1.1")
    lox_server(server.data_dir, "wheels", "--sign-only")
    newer = str(Client(server).ok("GET", "/agent"))
    assert install(newer, root).returncode == 0
    assert os.readlink(root / "opt/lox-agent/current") == "versions/1.1" and config.read_text() == "mine: true\n"

    (root / "var/lib/lox-agent/keys").mkdir()
    assert "remove" in bash(newer, "--uninstall", "--root", str(root), "--dry-run", root=root).stdout
    assert program.exists()
    assert bash(newer, "--uninstall", "--root", str(root), root=root).returncode == 0
    assert not (root / "opt/lox-agent").exists() and (root / "var/lib/lox-agent/keys").exists() and config.exists()
    assert bash(newer, "--uninstall", "--purge", "--root", str(root), root=root).returncode == 0
    assert not (root / "var/lib/lox-agent").exists() and not (root / "etc/lox-agent").exists()


def test_only_what_is_listed_is_served(offering: RunningServer) -> None:
    (offering.data_dir / "files" / "notes.txt").write_text("private")
    for name in ("notes.txt", "..%2fserver.sqlite3", "..%2finstaller%2fsigning.key", "nothing.whl"):
        assert Client(offering)("GET", f"/files/{name}").status == 404
    assert "lox-agent-files 1" in (offering.data_dir / "files" / MANIFEST).read_text()


def test_the_command_pins_a_server_that_is_its_own_authority(offering: RunningServer, tmp_path: Path) -> None:
    made = make_tenant(offering, "Pins").api.ok("POST", "/api/v1/agents", {"hostname": "web", "os": "linux"})
    fetch = made["install_command"].split("|")[0]
    assert "usage: " in subprocess.run(["bash", "-c", fetch], capture_output=True, text=True, check=True).stdout
    wrong = base64.b64encode(bytes(32)).decode()
    swapped = fetch.split("sha256//")[0] + f"sha256//{wrong}'" + fetch.split("'")[-1]
    refused = subprocess.run(["bash", "-c", swapped], capture_output=True, text=True, check=False)
    assert refused.returncode == 90 and refused.stdout == "", "curl: the public key is not the pinned one"


def test_the_command_is_that_of_the_product_text(offering: RunningServer) -> None:
    tenant = make_tenant(offering, "Commands")
    for system, elevated in (("linux", "| sudo bash -s -- \\\n"), ("macos", "| bash -s -- \\\n")):
        made = tenant.api.ok("POST", "/api/v1/agents", {"hostname": "web", "os": system})
        command = made["install_command"]
        assert command.startswith("curl -sSL ") and f"{offering.url}/agent {elevated}" in command
        assert f"  --api-url {offering.url} \\\n  --agent-uuid {made['uuid']} \\\n  --token lox_agt_" in command
    made = tenant.api.ok("POST", "/api/v1/agents", {"hostname": "web", "os": "windows"})
    assert '"$env:TEMP\\install-lox-agent.ps1" -ApiUrl "' in made["install_command"]
    assert "UNTESTED" in Client(offering).ok("GET", "/agent.ps1")


def test_a_manifest_of_another_key_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    wheel(tmp_path / "files", "1.0")
    mine, other = signing_key(tmp_path / "a.key"), signing_key(tmp_path / "b.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    write_manifest(tmp_path / "files", mine)
    found = read_manifest(tmp_path / "files", mine.public_key())
    assert found is not None and found.version == "1.0" and len(found.files) == 1
    with pytest.raises(ConfigError):
        read_manifest(tmp_path / "files", other.public_key())
    wheel(tmp_path / "files", "1.1")
    with pytest.raises(ConfigError, match="several versions"):
        write_manifest(tmp_path / "files", mine)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck: apt install shellcheck")
def test_shellcheck_finds_nothing(script: str, tmp_path: Path) -> None:
    (tmp_path / "agent.sh").write_text(script)
    done = subprocess.run(["shellcheck", str(tmp_path / "agent.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(bool(clean_root.missing()), reason=clean_root.missing() or "there is all it needs")
def test_the_copied_command_makes_an_agent_of_a_clean_root(tmp_path: Path) -> None:
    """From nothing: wheels, server, command, agent."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist")]
    subprocess.run([*build, str(project.ROOT)], check=True, capture_output=True)
    (ours,) = (tmp_path / "dist").glob("*.whl")
    data = tmp_path / "server"
    found = lox_server(data, "wheels", "--wheel", str(ours), "--python", "3.11")
    assert "packages" in found and not list((data / "files").glob("ray-*"))
    with running(data) as server:
        tenant = make_tenant(server, "Alpha")
        made = tenant.api.ok("POST", "/api/v1/agents", {"hostname": "web", "os": "linux"})
        root = CleanRoot(tmp_path / "root")
        done = root.run(made["install_command"].replace("sudo ", ""))
        assert done.returncode == 0, done.stdout + done.stderr
        live = "lox-agent run & for try in $(seq 60); do lox-agent status && break; sleep 0.5; done; kill %1; wait"
        done = root.run(live)
        assert f"), registered with {server.url}\nlast heartbeat 20" in done.stdout, done.stdout + done.stderr
        shown = tenant.api.ok("GET", f"/api/v1/agents/{made['uuid']}")
        assert shown["status"] == "online" and shown["version"]
        before = [
            (root.folder / path).read_text() for path in ("etc/lox-agent/config.yaml", "var/lib/lox-agent/credential")
        ]
        again = tenant.api.ok("POST", f"/api/v1/agents/{made['uuid']}/install-command")["install_command"]
        for line, says in (
            (again, "registered agent"),
            (again, "is registered with"),
            (made["install_command"], "already"),
        ):
            done = root.run(line.replace("sudo ", ""))
            assert done.returncode == 0 and says in done.stdout, done.stdout + done.stderr
        after = [
            (root.folder / path).read_text() for path in ("etc/lox-agent/config.yaml", "var/lib/lox-agent/credential")
        ]
        assert after[0] == before[0] and after[1] != before[1], "its settings stay, and the new token was used, once"
