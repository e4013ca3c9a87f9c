"""Two hosts on this one: each in a network of its own, with a name and mounts of its own, joined by a virtual cable.

Ray is started there by the command lines and with the environment of the shipped systemd units, TLS included.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime import cluster as ray_module
from runtime.private import private_directory
from tests.packaging.project import ROOT

HEAD, WORKER = "10.213.77.1", "10.213.77.2"
TOKEN = "a token for tests, of no use elsewhere"


def possible() -> bool:
    """Whether this process may make networks."""
    if os.geteuid() != 0 or not Path("/usr/sbin/ip").exists() or not Path("/usr/bin/openssl").exists():
        return False
    name = f"lxt{os.getpid()}"
    made = subprocess.run(["ip", "link", "add", f"{name}x", "type", "veth", "peer", f"{name}y"], check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "link", "del", f"{name}x"], check=True)
    return made.returncode == 0


class Hosts:
    """The head "nas1" and the host "nas2". Made by `hosts`."""

    def __init__(self, directory: str, folder: Path) -> None:
        self._directory = directory
        self._spaces = [f"lxt{os.getpid()}{letter}" for letter in "ab"]
        self._started: list[subprocess.Popen[bytes]] = []
        self._asked: dict[subprocess.Popen[bytes], tuple[str, int, str, str]] = {}
        self.token = folder / "token"
        self.tls = folder / "tls"
        self.folder = folder

    def wire(self) -> None:
        """Make the networks, the token and the certificates."""
        one, two = self._spaces
        commands = [f"ip netns add {one}", f"ip netns add {two}"]
        commands.append(f"ip link add {one} netns {one} type veth peer name {two} netns {two}")
        for space, address in ((one, HEAD), (two, WORKER)):
            commands.append(f"ip -n {space} address add {address}/24 dev {space}")
            commands += [f"ip -n {space} link set {space} up", f"ip -n {space} link set lo up"]
        for command in commands:
            subprocess.run(command.split(), check=True)
        self.token.touch(0o600)
        self.token.write_text(TOKEN)
        self._certify()

    def _certify(self) -> None:
        self.tls.mkdir()
        new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        commands = [f"{new} -x509 -days 2 -subj /CN=lox-cluster -keyout ca.key -out ca.crt"]
        commands.append(f"{new} -subj /CN=lox -keyout node.key -out node.csr")
        commands.append("openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -days 2 -out node.crt -extfile names")
        (self.tls / "names").write_text(f"subjectAltName=IP:{HEAD},IP:{WORKER},IP:127.0.0.1")
        for command in commands:
            subprocess.run(command.split(), cwd=self.tls, check=True, capture_output=True)

    def inside(self, number: int, command: Sequence[str], mounts: str = "") -> list[str]:
        """The command line that runs `command` on host `number`; `mounts` is shell run there first."""
        script = f"hostname nas{number + 1}; {mounts or ':'}; exec {shlex.join(command)}"
        return ["ip", "netns", "exec", self._spaces[number], "unshare", "-m", "-u", "sh", "-c", script]

    def start(self, unit: str, number: int, labels: str, mounts: str = "") -> subprocess.Popen[bytes]:
        """Ray as `unit` would start it; what is returned has a process group of its own."""
        text = (ROOT / "configs" / "systemd" / unit).read_text()
        environment = dict(re.findall(r"(?<=[= ])((?:RAY_)\w+)=(\S+)", text))
        environment |= {name: f"{self.tls}/{file}" for name, file in ray_module.TLS_FILES.items()}
        environment["RAY_AUTH_TOKEN_PATH"] = os.fspath(self.token)
        mine = {"LOX_NODE_ADDRESS": (HEAD, WORKER)[number], "LOX_NODE_LABELS": labels, "LOX_HEAD": f"{HEAD}:6379"}
        found = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", text, re.MULTILINE)
        assert found is not None
        line = re.sub(r"\$\{(\w+)\}", lambda name: mine[name[1]], found[1].replace("\\\n", " "))
        line = line.replace("/opt/lox/bin/ray", f"{Path(sys.executable).parent}/ray")
        line = line.replace("/run/lox-ray", f"{self._directory}/{number}")
        with open(self.folder / f"ray{len(self._started)}.log", "wb") as log:
            started = subprocess.Popen(
                self.inside(number, line.split(), mounts),
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                umask=0o077,
                start_new_session=True,
            )
        self._started.append(started)
        self._asked[started] = unit, number, labels, mounts
        return started

    def lox(self, *arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """``lox`` on the head."""
        command = [os.fspath(Path(sys.executable).parent / "lox"), *arguments]
        known = {**os.environ, "LOX_RAY_ADDRESS": f"{HEAD}:6379", "LOX_RAY_TOKEN": os.fspath(self.token)}
        return subprocess.Popen(
            self.inside(0, command),
            env={**known, "LOX_RAY_TLS": os.fspath(self.tls), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, count: int, seconds: float = 240.0) -> None:
        """Until so many nodes are there: so many raylets have written that they are. As the units say, one that failed
        is started again: Ray gives a node 30 seconds to start, which is little on a busy machine."""
        deadline = time.monotonic() + seconds
        ready = "Ray runtime started"
        while sum(ready in log.read_text() for log in self.folder.glob("ray*.log")) < count:
            assert time.monotonic() < deadline, [log.read_text() for log in self.folder.glob("ray*.log")]
            for started in [one for one in self._asked if one.poll()]:
                self.start(*self._asked.pop(started))
            time.sleep(0.2)

    def cut(self, number: int) -> None:
        """Pull the cable of a host."""
        subprocess.run(["ip", "-n", self._spaces[number], "link", "set", self._spaces[number], "down"], check=True)

    def close(self) -> None:
        """End everything that was started, and take the networks away."""
        for started in self._started:
            started.kill()
            started.wait()
        ray_module._end_processes(self._directory)
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)


@contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    """Two hosts, wired; nothing runs on them yet."""
    with private_directory() as directory:
        made = Hosts(directory, folder)
        try:
            made.wire()
            yield made
        finally:
            made.close()
