"""The hosts of a cluster: who is there, who is let in, and where each lane goes.

Placing is ours and not Ray's, so that a host is asked first whether it runs the same program under the same token, and
so that the trace can say who did what.
"""

from __future__ import annotations

import hmac
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.errors import ConfigError, RunFailed
from runtime.gate import prove, token_of_this_host
from runtime.joining import is_loopback
from runtime.orders import Lane
from runtime.program import program

ASK_SECONDS = 60.0  # for a host to say what it is; its first process has to import Ray
NAME_LABEL = "host"  # the label that names a host, where what it calls itself will not do
SHUN_SECONDS = 60.0  # a host on which a lane died gets others only if there is no other host

START_HINT = "start Ray there, or leave the host out; nothing has been stored"

Labels = Mapping[str, str]  # what a host must be labelled with, all of it
NodeOption = Callable[[str], Mapping[str, Any]]  # options of Ray that bind a task or an actor to a node


@dataclass(frozen=True, slots=True)
class Host:
    """A node of the cluster.

    `name` is its label ``host``, or else what the host calls itself: then nodes of one host have the same.
    """

    id: str
    name: str
    address: str
    cpus: int
    labels: Mapping[str, str] = field(hash=False)

    def has(self, labels: Labels) -> bool:
        """Whether it is labelled with all of these."""
        return all(self.labels.get(key) == value for key, value in labels.items())

    @property
    def title(self) -> str:
        """For messages and traces: its name, and the beginning of its id."""
        return f"{self.name}/{self.id[:6]}"


def hosts_of(nodes: Sequence[Mapping[str, Any]]) -> list[Host]:
    """The living nodes of ``ray.nodes()`` that have processors to give."""
    found = [
        Host(
            node["NodeID"],
            node.get("Labels", {}).get(NAME_LABEL) or node["NodeManagerHostname"],
            node["NodeManagerAddress"],
            int(node["Resources"].get("CPU", 0)),
            dict(node.get("Labels", {})),
        )
        for node in nodes
        if node["Alive"]
    ]
    return sorted((host for host in found if host.cpus), key=lambda host: (host.name, host.id))


class Hosts:
    """The hosts of one joined cluster. `lost`: what Ray raises when a node is gone."""

    def __init__(self, ray: Any, token: bytes, tls: str, bound_to: NodeOption, lost: tuple[type[Exception], ...]):
        self._ray = ray
        self._token = token
        self._tls = tls
        self._bound_to = bound_to
        self._lost = lost
        self._admitted: set[str] = set()
        self._gone: set[str] = set()
        self._trouble: dict[str, float] = {}  # when a lane died there last, by id
        self._lanes: dict[Lane, Host] = {}
        self._named: dict[str, Host] = {}
        self.placed: list[tuple[str, str]] = []  # lane and host, in order

    def alive(self, labels: Labels) -> list[Host]:
        """Hosts with these labels that are there just now."""
        hosts = hosts_of(self._ray.nodes())
        return [host for host in hosts if host.has(labels) and host.id not in self._gone]

    def admit_all(self, wanted: Sequence[Labels]) -> list[Host]:
        """Ask all hosts that have one of the label sets, at once; those that may have lanes. Raises RunFailed."""
        hosts = [host for host in self.alive({}) if any(host.has(labels) for labels in wanted)]
        for labels in wanted:
            if not any(host.has(labels) for host in hosts):
                raise self._nobody(labels)
        asked = [(host, *self._ask(host)) for host in hosts]
        for host, answer, challenge in asked:
            self._admit(host, answer, challenge)
        return [host for host in hosts if host.id in self._admitted]

    def admit_named(self, names: Sequence[str]) -> list[Host]:
        """Ask the hosts of these names, at once. Raises RunFailed if one of them is not there, or not one of ours."""
        there = self.alive({})
        self._named = {name: self._by_name(name, there) for name in names}
        asked = [(host, *self._ask(host)) for host in self._named.values()]
        for host, answer, challenge in asked:
            self._admit(host, answer, challenge)
            if host.id not in self._admitted:
                raise RunFailed("a host does not answer", subject=host.name, hint=START_HINT)
        return list(self._named.values())

    def bound(self, name: str) -> Mapping[str, Any]:
        """Options that bind an actor to the host of this name, which was let in. Raises RunFailed if it is gone."""
        host = self._named[name]
        if all(other.id != host.id for other in self.alive({})):
            raise RunFailed(
                "a host was lost",
                subject=name,
                why="its node has left the cluster",
                hint="start Ray there again, then run the backup again: what was stored is found",
            )
        return self._bound_to(host.id)

    def begin(self) -> None:
        """A new run: no lane is anywhere yet."""
        self.placed.clear()
        self._lanes.clear()

    def place(self, lane: Lane, name: str, labels: Labels) -> Mapping[str, Any]:
        """A host for a lane: the one with the fewest lanes for its processors. Returns options for its actor.

        Raises RunFailed if there is none, or if it must not have any.
        """
        while True:
            hosts = self.alive(labels)
            if not hosts:
                raise self._nobody(labels)
            host = min(hosts, key=self._burden)
            if host.id not in self._admitted:
                self._admit(host, *self._ask(host))
            if host.id in self._admitted:
                break
        self._lanes[lane] = host
        self.placed.append((name, host.title))
        return self._bound_to(host.id)

    def left(self, lane: Lane) -> None:
        """The lane died."""
        if host := self._lanes.pop(lane, None):
            self._trouble[host.id] = time.monotonic()

    # ---- letting in

    @staticmethod
    def _by_name(name: str, there: Sequence[Host]) -> Host:
        found = [host for host in there if host.name == name]
        if not found:
            names = ", ".join(sorted({host.name for host in there})) or "none"
            raise RunFailed(
                "a host is not in the cluster", subject=name, why=f"those that are there: {names}", hint=START_HINT
            )
        if len(found) > 1:
            hint = f"give each a name of its own: LOX_NODE_LABELS={NAME_LABEL}=NAME in /etc/lox/ray.env"
            raise RunFailed("several nodes of the cluster have this name", subject=name, hint=hint)
        return found[0]

    def _burden(self, host: Host) -> tuple[bool, float]:
        lanes = sum(other.id == host.id for other in self._lanes.values())
        shunned = time.monotonic() - self._trouble.get(host.id, -SHUN_SECONDS) < SHUN_SECONDS
        return shunned, lanes / host.cpus

    def _ask(self, host: Host) -> tuple[Any, bytes]:
        challenge = secrets.token_bytes(32)
        task = self._ray.remote(facts).options(num_cpus=0, max_retries=0, **self._bound_to(host.id))
        return task.remote(challenge), challenge

    def _admit(self, host: Host, answer: Any, challenge: bytes) -> None:
        """Let a host in, or note that it is gone. Raises RunFailed if it is not one of ours."""
        try:
            said = self._ray.get(answer, timeout=ASK_SECONDS)
        except self._lost:
            self._gone.add(host.id)
            return
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            hint = "install the same version of lox for the Python that runs Ray there"
            raise RunFailed("a host cannot run lanes", subject=host.title, why=lines[-1].strip(), hint=hint) from error
        self._check(host, said, challenge)
        self._admitted.add(host.id)

    def _check(self, host: Host, said: Mapping[str, str], challenge: bytes) -> None:
        for what, ours in (("lox", program()), ("Python", platform.python_version())):
            if (theirs := said.get(what)) != ours:
                raise RunFailed(
                    f"another version of {what} runs on a host",
                    subject=host.title,
                    why=f"{theirs} there, {ours} here",
                    hint="install the same version on all hosts of the cluster",
                )
        proof = prove(self._token, b"host", challenge).hex()
        if said.get("auth") != "token" or not hmac.compare_digest(said.get("proof", ""), proof):
            raise RunFailed(
                "a host of the cluster does not ask for the token",
                subject=host.title,
                why=said.get("trouble") or "whoever reaches its ports may run programs there",
                hint="RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH in the environment of Ray, on every host",
            )
        if not self._tls and not is_loopback(host.address):
            raise RunFailed(
                "a host of the cluster would be reached over a network in the clear",
                subject=f"{host.title} at {host.address}",
                hint="--ray-tls DIR; or --ray-tls off if the network itself is encrypted, as by WireGuard",
            )

    def _nobody(self, labels: Labels) -> RunFailed:
        gone = f"; {len(self._gone)} did not answer" if self._gone else ""
        return RunFailed(
            "no host is left for the lanes",
            subject=", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "any host",
            why=f"the cluster has no living node with these labels and at least one CPU{gone}",
            hint="start Ray there again, then run the backup again: what was stored is found",
        )


def facts(challenge: bytes) -> dict[str, str]:
    """What a host says of itself; runs there."""
    said = {"lox": program(), "Python": platform.python_version(), "auth": os.environ.get("RAY_AUTH_MODE", "").lower()}
    try:
        said["proof"] = prove(token_of_this_host(), b"host", challenge).hex()
    except (RunFailed, ConfigError) as error:
        said["trouble"] = str(error)
    return said
